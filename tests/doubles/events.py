"""Event data for tests, and the CloudEvents JSON Schema to check events against."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft7Validator, FormatChecker

from kfp_operator.schemas import Artifact, RunCompletion, RunStatus, Span

UID = "5b0f2a4e-8c3d-4f0a-9a1b-0c2d4e6f8a10"
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
END = datetime(2026, 1, 2, 3, 14, 15, 250000, tzinfo=UTC)


def completion(**changes: Any) -> RunCompletion:
    """A completion of team-a/penguin-x7k2p with one serving model."""
    data = RunCompletion(
        provider="mlops/kfp",
        status="succeeded",
        state="succeeded",
        pipeline_name="team-a/penguin-pipeline",
        pipeline_version="49e208",
        run_name="team-a/penguin-x7k2p",
        run_uid=UID,
        run_id="0b9c",
        artifacts=[Artifact(name="serving-model", location="gs://models/1", type="system.Model", metadata={"accuracy": 0.97})],
        training=Span(start_time=START, end_time=END),
        run_start_time=START,
        run_end_time=END,
    )
    return data.model_copy(update=changes)


def status(**changes: Any) -> RunStatus:
    """The first change of state of team-a/penguin-x7k2p: it runs."""
    data = RunStatus(
        provider="mlops/kfp",
        pipeline_name="team-a/penguin-pipeline",
        run_name="team-a/penguin-x7k2p",
        run_uid=UID,
        run_id="0b9c",
        transition=1,
        state="running",
        time=START,
    )
    return data.model_copy(update=changes)


def check_cloudevent(document: Any) -> None:
    """Raise jsonschema.ValidationError unless the document is a CloudEvent in JSON format."""
    _VALIDATOR.validate(document)


def _is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    datetime.fromisoformat(value)
    return re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", value) is not None


def _is_uri_reference(value: object) -> bool:
    if not isinstance(value, str):
        return True
    urlsplit(value)
    return re.fullmatch(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*", value) is not None


def _is_uri(value: object) -> bool:
    return not isinstance(value, str) or (_is_uri_reference(value) and bool(urlsplit(value).scheme))


_FORMATS = FormatChecker(formats=())
_FORMATS.checks("date-time", raises=ValueError)(_is_date_time)
_FORMATS.checks("uri-reference", raises=ValueError)(_is_uri_reference)
_FORMATS.checks("uri", raises=ValueError)(_is_uri)
_SCHEMA = Path(__file__).parents[1] / "data" / "cloudevents" / "cloudevents.json"
_VALIDATOR = Draft7Validator(json.loads(_SCHEMA.read_text()), format_checker=_FORMATS)
