"""Argo Events as it is documented: what its NATS EventSource wraps, how paths resolve, how a Sensor's data filters decide.

Argo Events does not run on a test bed without pods, so its behaviour is modelled here, narrowly: EventSource output for NATS, the part
of tidwall/gjson that Sensors use, and `filters.data`. Anything else raises, so that a test cannot pass by accident.
"""

import base64
import fnmatch
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import re2


class _Missing:
    """What a path that leads nowhere resolves to: JSON null is something else."""


MISSING = _Missing()


def event_source(subject: str, headers: Mapping[str, str], body: bytes, *, json_body: bool = True) -> Any:
    """The JSON that the NATS EventSource hands to Sensors; ValueError where it drops the message (`jsonBody` without JSON)."""
    wrapped: dict[str, Any] = {"subject": subject}
    wrapped["body"] = json.loads(body) if json_body else base64.b64encode(body).decode()
    if headers:
        wrapped["header"] = {name: [value] for name, value in headers.items()}
    return json.loads(json.dumps(wrapped))


@dataclass(frozen=True)
class Verdict:
    """Whether a Sensor fires, and why it does not."""

    fires: bool
    reason: str = ""


def data_filters(event: Any, filters: Sequence[Mapping[str, Any]]) -> Verdict:
    """Whether all of ``filters.data`` let the event pass. A path that does not exist discards the event."""
    for one in filters:
        found = resolve(event, one["path"])
        if found is MISSING:
            return Verdict(False, f"path '{one['path']}' does not exist")
        if not one.get("value"):
            return Verdict(False, "no values specified")
        if not any(_compare(found, one["type"], one.get("comparator", ""), value) for value in one["value"]):
            return Verdict(False, f"{one['path']} is {_text(found)}")
    return Verdict(True)


def resolve(document: Any, path: str) -> Any:
    """What gjson finds at `path`: keys, ``\\.`` escapes, ``*`` and ``?``, indices, ``#``, ``#(key=="x")``, ``#(...)#``."""
    return _resolve(document, list(_parts(path)))


def _resolve(value: Any, parts: list[str]) -> Any:
    if not parts:
        return value
    head, rest = parts[0], parts[1:]
    if isinstance(value, list):
        return _resolve_list(value, head, rest)
    if not isinstance(value, dict):
        return MISSING
    key = next((key for key in value if _key_matches(head, key)), None)
    return MISSING if key is None else _resolve(value[key], rest)


def _resolve_list(items: list[Any], head: str, rest: list[str]) -> Any:
    if head == "#":
        return len(items) if not rest else [found for item in items if (found := _resolve(item, rest)) is not MISSING]
    if head.startswith("#("):
        every = head.endswith(")#")
        query = head[2:-2] if every else head[2:-1]
        chosen = [item for item in items if _query(item, query)]
        if every:
            return [found for item in chosen if (found := _resolve(item, rest)) is not MISSING]
        return _resolve(chosen[0], rest) if chosen else MISSING
    if head.isdigit():
        return _resolve(items[int(head)], rest) if int(head) < len(items) else MISSING
    return MISSING


def _parts(path: str) -> Iterator[str]:
    """The parts of a path; escapes stay in them, because an escaped wildcard is none."""
    part, depth, quoted, index = "", 0, False, 0
    while index < len(path):
        char = path[index]
        if char == "\\" and index + 1 < len(path):
            part += path[index : index + 2]
            index += 2
            continue
        if char == '"' and depth:
            quoted = not quoted
        elif char == "(" and not quoted:
            depth += 1
        elif char == ")" and not quoted:
            depth -= 1
        elif char in "|@{[!" and not depth:
            raise NotImplementedError(f"gjson's {char!r} in {path!r}")
        if char == "." and not depth:
            yield part
            part = ""
        else:
            part += char
        index += 1
    yield part


def _key_matches(pattern: str, key: str) -> bool:
    if re.search(r"(?<!\\)[*?]", pattern):
        return fnmatch.fnmatchcase(key, pattern)
    return re.sub(r"\\(.)", r"\1", pattern) == key


def _query(item: Any, query: str) -> bool:
    match = re.fullmatch(r"(?P<path>[^=!<>%]*?)\s*(?P<op>==|=|!=|<=|>=|<|>|!%|%)\s*(?P<value>.*)", query)
    if match is None:
        return resolve(item, query) is not MISSING
    found = resolve(item, match["path"]) if match["path"] else item
    if found is MISSING:
        return False
    wanted = json.loads(match["value"])
    match match["op"]:
        case "==" | "=":
            return bool(found == wanted)
        case "!=":
            return bool(found != wanted)
        case "%":
            return isinstance(found, str) and fnmatch.fnmatchcase(found, wanted)
        case "!%":
            return isinstance(found, str) and not fnmatch.fnmatchcase(found, wanted)
        case "<":
            return type(found) is type(wanted) and found < wanted
        case "<=":
            return type(found) is type(wanted) and found <= wanted
        case ">":
            return type(found) is type(wanted) and found > wanted
        case _:
            return type(found) is type(wanted) and found >= wanted


def _compare(found: Any, kind: str, comparator: str, value: str) -> bool:
    match kind, comparator or "=":
        case "string", "=" | "!=" as operator:
            matched = re2.search(value, _text(found)) is not None  # Go's regexp, anywhere in the text
            return matched == (operator == "=")
        case "number", operator:
            number, wanted = _number(found), float(value)
            return {
                "=": number == wanted,
                "!=": number != wanted,
                "<": number < wanted,
                "<=": number <= wanted,
                ">": number > wanted,
                ">=": number >= wanted,
            }[operator]
        case "bool", _:
            return (found is True or _text(found).lower() in ("true", "1", "t")) == (value.lower() in ("true", "1", "t"))
    raise NotImplementedError(f"type {kind} with comparator {comparator!r}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _number(value: Any) -> float:
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float):
        return float(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


@dataclass(frozen=True)
class Dependency:
    """An event that a Sensor depends on: the context that Argo Events gave it, and the EventSource's output."""

    context: Mapping[str, Any]
    data: Any


@dataclass(frozen=True)
class Request:
    """What an HTTP trigger sends."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


def http_trigger(trigger: Mapping[str, Any], events: Mapping[str, Dependency], secrets: Mapping[tuple[str, str], str]) -> Request:
    """The request of ``template.http``. `secrets`: by name and key."""
    _only(trigger, "url", "method", "headers", "secureHeaders", "dynamicHeaders", "payload", "timeout")
    headers = dict(trigger.get("headers", {}))
    for dynamic in trigger.get("dynamicHeaders", ()):
        headers[dynamic["dest"]] = _parameter(dynamic["src"], events)[0]
    for secure in trigger.get("secureHeaders", ()):
        ref = secure["valueFrom"]["secretKeyRef"]
        headers[secure["name"]] = secrets[ref["name"], ref["key"]]
    return Request(trigger.get("method", "POST"), trigger["url"], headers, _payload(trigger["payload"], events))


def nats_trigger(trigger: Mapping[str, Any], events: Mapping[str, Dependency]) -> tuple[str, bytes]:
    """Subject and body that ``template.nats`` publishes, on core NATS and without headers."""
    _only(trigger, "url", "subject", "auth", "payload")
    return trigger["subject"], _payload(trigger["payload"], events)


def _payload(parameters: Sequence[Mapping[str, Any]], events: Mapping[str, Dependency]) -> bytes:
    """What ConstructPayload makes: values are text, but where `useRawData` asks for what the value is."""
    document: dict[str, Any] = {}
    for parameter in parameters:
        _only(parameter, "src", "dest")
        value, kind = _parameter(parameter["src"], events)
        *path, last = parameter["dest"].split(".")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", parameter["dest"]):
            raise NotImplementedError(f"sjson's path {parameter['dest']!r}")
        place = document
        for key in path:
            place = place.setdefault(key, {})
        place[last] = json.loads(value) if kind != "String" and parameter["src"].get("useRawData") else value
    return json.dumps(document).encode()


def _parameter(source: Mapping[str, Any], events: Mapping[str, Dependency]) -> tuple[str, str]:
    """Value and type of a parameter; what is not there falls back to `value`, without which the trigger fails."""
    _only(source, "dependencyName", "dataKey", "contextKey", "value", "useRawData")
    event = events[source["dependencyName"]]
    if "dataKey" not in source and "contextKey" not in source:
        return source["value"], "String"
    found = resolve(event.data, source["dataKey"]) if "dataKey" in source else resolve(event.context, source["contextKey"])
    if found is MISSING:
        if "value" not in source:
            raise ValueError(f"unable to resolve parameter {source}")
        return source["value"], "String"
    return _text(found), "String" if isinstance(found, str) else "JSON"


def _only(found: Mapping[str, Any], *known: str) -> None:
    if unknown := set(found) - set(known):
        raise NotImplementedError(f"Argo Events' {', '.join(sorted(unknown))}")
