"""A compiled pipeline as the text that is uploaded.

The server reads YAML, and one syntax error in the first document makes it loop until it is restarted. So the text is JSON of the
strictest kind, which every YAML parser reads alike: each character that YAML does not print is escaped (also those that JSON leaves
as they are, and line separators that YAML folds), numbers have one form for both, and before anything is sent our own YAML parser must
read from it exactly what was meant.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from kfp_operator.errors import Permanent

REASON = "PipelineNotUploadable"

_UNPRINTABLE = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def render(spec: Mapping[str, Any], platform_spec: Mapping[str, Any] | None, *, caching: bool | None = None) -> bytes:
    """The documents as text; `caching` replaces what each step was compiled with.

    Raises Permanent for what cannot be sent without danger to the server.
    """
    if caching is not None:
        spec = _with_caching(spec, caching)
    documents = [spec, *([platform_spec] if platform_spec else [])]
    text = "\n---\n".join(_write(document) for document in documents) + "\n"
    try:
        encoded = text.encode()
        found = list(yaml.load_all(encoded, yaml.CSafeLoader))
    except UnicodeEncodeError as error:
        raise Permanent("the compiled pipeline holds half of a surrogate pair, which is no character", reason=REASON) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        told = " ".join(str(error).split())[:300]
        raise Permanent(f"the compiled pipeline cannot be written as YAML, which the server reads: {told}", reason=REASON) from error
    if found != documents:
        message = "the compiled pipeline reads differently as YAML, which the server reads; give long keys shorter names"
        raise Permanent(message, reason=REASON)
    return encoded


def _with_caching(spec: Mapping[str, Any], enabled: bool) -> dict[str, Any]:
    """With the same caching for every task, those of nested pipelines included."""
    components = {name: _tasks_cached(component, enabled) for name, component in (spec.get("components") or {}).items()}
    changed = dict(spec)
    if components:
        changed["components"] = components
    if "root" in spec:
        changed["root"] = _tasks_cached(spec["root"], enabled)
    return changed


def _tasks_cached(component: Any, enabled: bool) -> Any:
    dag = component.get("dag") if isinstance(component, Mapping) else None
    if not isinstance(dag, Mapping) or not isinstance(dag.get("tasks"), Mapping):
        return component
    options = {"enableCache": True} if enabled else {}
    tasks = {}
    for name, task in dag["tasks"].items():
        kept = {key: value for key, value in task.items() if key not in ("cachingOptions", "caching_options")}
        tasks[name] = {**kept, "cachingOptions": options}
    return {**component, "dag": {**dag, "tasks": tasks}}


def _write(value: Any) -> str:
    match value:
        case None | True | False:
            return json.dumps(value)
        case str():
            return _UNPRINTABLE.sub(_escape, json.dumps(value, ensure_ascii=False))
        case int():
            return str(value)
        case float():
            return _number(value)
        case Mapping():
            return "{" + ", ".join(f"{_write(key)}: {_write(member)}" for key, member in value.items()) + "}"
        case _:
            return "[" + ", ".join(_write(item) for item in value) + "]"


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}" if not "\ud800" <= found[0] <= "\udfff" else found[0]


def _number(value: float) -> str:
    """With a point and a signed exponent: without them YAML 1.1 takes it for text."""
    text = repr(value)
    mantissa, exponent, power = text.partition("e")
    if exponent:
        mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
        power = power if power[0] in "+-" else f"+{power}"
    return f"{mantissa}{exponent}{power}"
