"""Lists as the server gives them: filter, sorting, pages, with the traps of the SQL behind them.

The filter is decoded once more after the gateway has decoded it, so that a ``+`` or ``%`` in a value is mangled unless the caller
encodes twice. A time given as string compares as MySQL compares a number with text. Substrings are LIKE patterns without escapes.
A page token holds sort and filter: the next request repeats them or leaves both out.
"""

import base64
import heapq
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote_plus

from tests.doubles.kfp_api.failures import Refusal, invalid, not_json
from tests.doubles.kfp_api.rows import Experiment, Pipeline, RecurringRun, Run, Version

R = TypeVar("R", Experiment, Pipeline, RecurringRun, Run, Version)
Value = str | int
Column = Callable[[Any], Value]

DEFAULT_PAGE = 20
LARGEST_PAGE = 200
OPERATIONS = frozenset(
    {
        "EQUALS",
        "NOT_EQUALS",
        "GREATER_THAN",
        "GREATER_THAN_EQUALS",
        "LESS_THAN",
        "LESS_THAN_EQUALS",
        "IN",
        "IS_SUBSTRING",
    }
)
KUBERNETES_OPERATIONS = frozenset({"EQUALS", "NOT_EQUALS", "IN", "IS_SUBSTRING"})
SINGLE = {"int_value", "long_value", "string_value", "timestamp_value"}
MANY = {"int_values", "long_values", "string_values"}
V1_STATUS = {
    "PENDING": "Pending",
    "RUNNING": "Running",
    "SUCCEEDED": "Succeeded",
    "SKIPPED": "Skipped",
    "FAILED": "Failed",
    "CANCELING": "Terminating",
    "CANCELED": "Canceled",
    "PAUSED": "Paused",
}


def epoch(moment: datetime) -> int:
    """A time as the columns hold it."""
    return int(moment.timestamp())


def _storage(archived: bool) -> str:
    return "ARCHIVED" if archived else "AVAILABLE"


RUN_COLUMNS: dict[str, Column] = {
    "run_id": lambda r: r.id,
    "display_name": lambda r: r.name,
    "created_at": lambda r: epoch(r.created),
    "finished_at": lambda r: epoch(r.finished),
    "scheduled_at": lambda r: epoch(r.scheduled),
    "description": lambda r: r.description,
    "storage_state": lambda r: _storage(r.archived),
    "status": lambda r: V1_STATUS.get(r.state, ""),
    "state": lambda r: r.state or "RUNTIME_STATE_UNSPECIFIED",
    "namespace": lambda r: r.namespace,
    "experiment_id": lambda r: r.experiment,
    "recurring_run_id": lambda r: r.recurring_run,
    "state_history": lambda r: json.dumps([[c.state, epoch(c.time)] for c in r.history]),
    "runtime_details": lambda r: "",
}
EXPERIMENT_COLUMNS: dict[str, Column] = {
    "experiment_id": lambda r: r.id,
    "display_name": lambda r: r.name,
    "created_at": lambda r: epoch(r.created),
    "last_run_created_at": lambda r: epoch(r.last_run),
    "description": lambda r: r.description,
    "namespace": lambda r: r.namespace,
    "storage_state": lambda r: _storage(r.archived),
}
PIPELINE_COLUMNS: dict[str, Column] = {
    "pipeline_id": lambda r: r.id,
    "name": lambda r: r.name,
    "display_name": lambda r: r.display_name,
    "created_at": lambda r: epoch(r.created),
    "description": lambda r: r.description,
    "namespace": lambda r: r.namespace,
}
VERSION_COLUMNS: dict[str, Column] = {
    "pipeline_version_id": lambda r: r.id,
    "name": lambda r: r.name,
    "display_name": lambda r: r.display_name,
    "created_at": lambda r: epoch(r.created),
    "status": lambda r: "READY",
    "description": lambda r: r.description,
}
RECURRING_RUN_COLUMNS: dict[str, Column] = {
    "recurring_run_id": lambda r: r.id,
    "display_name": lambda r: r.name,
    "created_at": lambda r: epoch(r.created),
    "updated_at": lambda r: epoch(r.created),
    "description": lambda r: str(r.request.get("description", "")),
}
ID_KEYS = ("run_id", "experiment_id", "pipeline_id", "pipeline_version_id", "recurring_run_id")
NO_NEXT_PAGE = frozenset({"experiment_id", "recurring_run_id"})
"""Run columns whose value the server cannot find again for the token."""


@dataclass(frozen=True)
class Kind:
    """What can be asked of one resource."""

    columns: Mapping[str, Column]
    id: str
    """The key of the primary key."""
    tags: bool = False
    named: str = "display_name"
    """What the key `name` means."""
    operations: Collection[str] = OPERATIONS

    def column(self, key: str, what: str) -> Column:
        """The column of a key; Refusal."""
        if self.tags and key.startswith("tags."):
            return partial(_tag, key.removeprefix("tags."))
        if key == "id":
            key = self.id
        elif key == "name" and "name" not in self.columns:
            key = self.named
        found = self.columns.get(key)
        if found is None:
            raise invalid(f"Invalid {what}: no such field {key!r}")
        return found


def _tag(name: str, row: Pipeline | Version) -> str:
    return row.tags.get(name, "\0absent")


@dataclass(frozen=True)
class Page:
    """One page of a list."""

    rows: Sequence[Any]
    total: int
    next: str


def page(rows: Sequence[R], kind: Kind, query: Mapping[str, str]) -> Page:
    """Answer a list request from all rows that the caller may see; Refusal (400)."""
    size = _size(query.get("page_size", ""))
    text, sort = unquote(query.get("filter", "")), query.get("sort_by", "")
    token = _token(query.get("page_token", ""))
    if token:
        if (sort and sort != token["Sort"]) or (text and text != token["Filter"]):
            raise invalid("Cannot change sort order or filter when using page_token")
        sort, text = token["Sort"], token["Filter"]
    found = _matching(rows, kind, text)
    field, descending = _order(sort)
    by = kind.column(field, "sort_by")
    key = kind.columns[kind.id]
    total = len(found)
    if token:
        if kind.id == "run_id" and field in NO_NEXT_PAGE:
            raise invalid(f"cannot sort by field {field!r} on type Run")
        last = (token["Value"], token["Key"])
        found = [r for r in found if ((by(r), key(r)) <= last if descending else (by(r), key(r)) >= last)]
    first = heapq.nlargest if descending else heapq.nsmallest
    ordered = first(size + 1, found, key=lambda r: (by(r), key(r)))
    more = ""
    if len(ordered) > size:  # the token names the first row of the next page
        following = {"Sort": sort, "Value": by(ordered[size]), "Key": key(ordered[size]), "Filter": text}
        more = base64.urlsafe_b64encode(json.dumps(following).encode()).decode()
    return Page(ordered[:size], total, more)


def unquote(text: str) -> str:
    """Decode once more, as Go's QueryUnescape does; Refusal for a bare percent sign."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise invalid(f"Error parsing filter: invalid URL escape {text!r}")
    return unquote_plus(text)


def _size(text: str) -> int:
    try:
        size = int(text or 0)
    except ValueError:
        raise Refusal(3, f'type mismatch, parameter: page_size, error: strconv.ParseInt: parsing "{text}": invalid syntax') from None
    if size < 0:
        raise invalid(f"The page size should be greater than 0. Got {size}")
    return min(size or DEFAULT_PAGE, LARGEST_PAGE)


def _token(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        token = json.loads(base64.urlsafe_b64decode(text))
        return {name: token[name] for name in ("Sort", "Value", "Key", "Filter")}
    except (ValueError, KeyError, TypeError):
        raise invalid("Invalid package token") from None


def _order(sort: str) -> tuple[str, bool]:
    words = sort.split()
    if len(words) > 2 or (len(words) == 2 and words[1] not in ("asc", "desc")):
        raise invalid(f'Received invalid sort by format {sort!r}. Supported format: "field_name", "field_name desc", or "field_name asc"')
    return (words[0] if words else "created_at"), words[1:] == ["desc"]


def _matching(rows: Sequence[R], kind: Kind, text: str) -> list[R]:
    if not text:
        return list(rows)
    try:
        document = json.loads(text)
    except ValueError as error:
        raise invalid(f"Failed to parse filter: {error}") from None
    if not isinstance(document, dict) or set(document) - {"predicates"}:
        raise not_json("syntax error (line 1:1): the filter has unknown fields")
    tests = [_predicate(p, kind) for p in document.get("predicates") or ()]
    return [row for row in rows if all(test(row) for test in tests)]


def _predicate(predicate: Any, kind: Kind) -> Callable[[Any], bool]:
    values = set(predicate) & (SINGLE | MANY) if isinstance(predicate, dict) else set()
    if len(values) != 1 or set(predicate) - values - {"operation", "key"}:
        unknown = next(iter(set(predicate) - values - {"operation", "key"}), "value") if isinstance(predicate, dict) else "predicate"
        raise not_json(f'(line 1:18): unknown field "{unknown}"')
    member = values.pop()
    operation, key = predicate.get("operation", ""), predicate.get("key", "")
    if operation not in OPERATIONS:
        raise not_json(f'(line 1:18): invalid value for enum field operation: "{operation}"')
    if operation not in kind.operations:
        raise invalid(f"The filter operation {operation} is not supported with the Kubernetes pipeline store")
    if key.startswith("tags.") and operation != "EQUALS":
        raise invalid("tags can only be filtered with EQUALS")
    if (member in MANY) != (operation == "IN"):
        raise invalid(f"Invalid value for operation {operation}: {member}")
    column, raw = kind.column(key, "filter"), predicate[member]
    wanted = [_value(member, v) for v in raw.get("values", ())] if member in MANY else [_value(member, raw)]
    if operation == "IS_SUBSTRING":
        if member != "string_value":
            raise invalid("IS_SUBSTRING needs a string_value")
        like = re.compile(".*" + re.escape(str(wanted[0])).replace("%", ".*").replace("_", ".") + ".*", re.DOTALL | re.IGNORECASE)
        return lambda row: like.fullmatch(str(column(row))) is not None
    compare = COMPARISONS[operation]
    return lambda row: compare(column(row), wanted)


COMPARISONS: dict[str, Callable[[Value, list[Value]], bool]] = {
    "EQUALS": lambda v, w: _alike(v, w[0])[0] == _alike(v, w[0])[1],
    "NOT_EQUALS": lambda v, w: _alike(v, w[0])[0] != _alike(v, w[0])[1],
    "GREATER_THAN": lambda v, w: _alike(v, w[0])[0] > _alike(v, w[0])[1],
    "GREATER_THAN_EQUALS": lambda v, w: _alike(v, w[0])[0] >= _alike(v, w[0])[1],
    "LESS_THAN": lambda v, w: _alike(v, w[0])[0] < _alike(v, w[0])[1],
    "LESS_THAN_EQUALS": lambda v, w: _alike(v, w[0])[0] <= _alike(v, w[0])[1],
    "IN": lambda v, w: any(_alike(v, each)[0] == _alike(v, each)[1] for each in w),
}


def _alike(value: Value, wanted: Value) -> tuple[Any, Any]:
    """Both sides as MySQL compares them: text beside a number is the number it begins with."""
    if isinstance(value, str) == isinstance(wanted, str):
        return (value.casefold(), wanted.casefold()) if isinstance(value, str) and isinstance(wanted, str) else (value, wanted)
    return _number(value), _number(wanted)


def _number(value: Value) -> int:
    digits = re.match(r"-?\d+", str(value))
    return int(digits[0]) if digits else 0


def _value(member: str, value: Any) -> Value:
    if member == "timestamp_value":
        try:
            return epoch(datetime.fromisoformat(str(value)).astimezone(UTC))
        except ValueError:
            raise not_json(f'(line 1:18): invalid google.protobuf.Timestamp value "{value}"') from None
    if member.startswith("string"):
        if not isinstance(value, str):
            raise not_json(f"(line 1:18): invalid value for string type: {value}")
        return value
    try:
        return int(value)
    except (TypeError, ValueError):
        raise not_json(f"(line 1:18): invalid value for integer type: {value}") from None
