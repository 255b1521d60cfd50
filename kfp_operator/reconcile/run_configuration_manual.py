"""What stands in the annotation that starts a Run of a RunConfiguration by hand. Pure.

Any word will do, if it is new: ``kubectl annotate --overwrite mlrc/train kfp-operator.dev/start="$(date +%s)"``. A JSON object can say
more: ``{"id": "4f1c", "uid": "<of the RunConfiguration>", "parameters": {"epochs": 3}}``. With `uid` it is meant for that very object and
not for one that is restored or copied with its annotations; `parameters` take the place of those in the template.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kfp_operator.api.run_configuration import MAX_OCCURRENCE


@dataclass(frozen=True, slots=True)
class Start:
    """A start that is asked for."""

    id: str
    """What tells it from others."""
    uid: str = ""
    """The RunConfiguration it is meant for; "": any."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Values instead of those in the template, by name."""


def parse(text: str) -> Start:
    """Read the annotation. What is no such JSON object is a word."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return Start(text)
    if not isinstance(document, dict) or "id" not in document:
        return Start(text)
    parameters = document.get("parameters")
    return Start(str(document["id"]), str(document.get("uid") or ""), dict(parameters) if isinstance(parameters, dict) else {})


def write(start: Start) -> str:
    """The annotation for a start."""
    document = {"id": start.id, "uid": start.uid, "parameters": dict(start.parameters)}
    return json.dumps({key: value for key, value in document.items() if value}, separators=(",", ":"), sort_keys=True)


def baseline(text: str) -> str:
    """What stands for the annotation in status once it was seen: itself, or a hash when it is longer than a start may be."""
    return text if len(text) <= MAX_OCCURRENCE else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
