"""An event trigger as people write it: ``{ref, kinds}``, in Python and in YAML, as in Polyaxon's documentation.

Everything is brought into one form when it is read, so that triggers that mean the same are equal: the reference is bare, kinds stand
once and in the order of `V1EventKind`.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from kfp_operator.schemas.kinds import INITIALIZING, ORDER, EventKindNames, V1EventKind
from kfp_operator.schemas.references import Reference, parse_reference

MAX_FILTER = 1024
"""Characters of a filter."""
TRIGGER_NAME = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
MAX_TRIGGER_NAME = 63

_BARE_TEMPLATE = re.compile(r"""((?:^|[\s{,-])["']?ref["']?\s*:\s*)(\{\{[^{}\n]*\}\})""", re.MULTILINE)
_WRAPPERS = ("events", "event")


def _kind(value: Any) -> V1EventKind:
    try:
        return V1EventKind(value)
    except ValueError:
        known = ", ".join(kind.value for kind in V1EventKind)
        raise ValueError(f"{str(value)[:80]!r} is not a kind of event; there are: {known} (and {INITIALIZING})") from None


def _kinds(kinds: list[V1EventKind]) -> list[V1EventKind]:
    if not kinds:
        raise ValueError("kinds is empty: name at least one kind of event")
    return sorted(set(kinds), key=ORDER.__getitem__)


def _name(name: str) -> str:
    if name and (len(name) > MAX_TRIGGER_NAME or not re.fullmatch(TRIGGER_NAME, name)):
        raise ValueError(f"{name[:80]!r} is not a name: at most {MAX_TRIGGER_NAME} lower-case letters, digits and '-'")
    return name


def _filter(text: str) -> str:
    text = text.strip()
    if len(text) > MAX_FILTER:
        raise ValueError(f"the filter has {len(text)} characters; at most {MAX_FILTER} are allowed")
    return text


class V1EventTrigger(EventKindNames, BaseModel):
    """Something that may happen, and that starts a run when it does.

    ref: what it happens to, as ``ops.NAME`` or ``"{{ ops.NAME }}"``; kept bare. kinds: any one of them is enough. filter: a CEL
    expression over the CloudEvent as ``event`` that must hold, too. name: unique in a list; empty: computed. start_from: whether only
    new events count or also the latest one before.

    Raises pydantic's ValidationError, a ValueError, which names the accepted forms.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    ref: Annotated[str, Field(strict=True), AfterValidator(lambda text: str(parse_reference(text)))]
    kinds: Annotated[list[Annotated[V1EventKind, BeforeValidator(_kind)]], AfterValidator(_kinds)]
    filter: Annotated[str, AfterValidator(_filter)] = ""
    name: Annotated[str, AfterValidator(_name)] = ""
    start_from: Literal["New", "Latest"] = Field("New", alias="startFrom")

    _reference: Reference = PrivateAttr()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._reference = parse_reference(self.ref)
        self._reference.check_kinds(self.kinds)
        return self

    @property
    def reference(self) -> Reference:
        """The reference, taken apart."""
        return self._reference

    def to_dict(self) -> dict[str, Any]:
        """As JSON: camelCase, what is empty or a default left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def to_yaml(self) -> str:
        """As YAML."""
        text: str = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        return text

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From ``{ref, kinds, ...}``."""
        return cls.model_validate(dict(data))

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """From YAML: a trigger, bare or under ``events:`` or ``event:``. ValueError unless there is exactly one; see `all_from_yaml`."""
        found = cls.all_from_yaml(text)
        if len(found) != 1:
            raise ValueError(f"there are {len(found)} triggers where one was expected; read several with all_from_yaml")
        return found[0]

    @classmethod
    def all_from_yaml(cls, text: str) -> list[Self]:
        """From YAML: a trigger or a list of them, bare or under ``events:`` or ``event:``.

        ``ref: {{ ops.x }}`` may stand without quotes, as in Polyaxon's examples. (In YAML it is a map with a map as its key; kubectl wants
        quotes or the bare form.) ValueError says what cannot be read.
        """
        data = _load(text)
        for word in _WRAPPERS:
            if isinstance(data, Mapping) and set(data) == {word}:
                data = data[word]
        items = data if isinstance(data, list) else [data]
        if strangers := [item for item in items if not isinstance(item, Mapping)]:
            raise ValueError(
                f"{str(strangers[0])[:80]!r} is not a trigger; a trigger has the form {{ref: ops.NAME, kinds: [run_status_running]}}"
            )
        return [cls.from_dict(item) for item in items]


def trigger_names(triggers: Sequence[V1EventTrigger]) -> list[str]:
    """The name of each trigger of a list: given, or a hash of what it waits for, which an edit changes.

    ValueError when two have the same one.
    """
    names = [trigger.name or computed_name(trigger) for trigger in triggers]
    for index, name in enumerate(names):
        if name in names[:index]:
            same = "are the same" if not triggers[index].name else f"are both named {name!r}"
            raise ValueError(f"triggers {names.index(name)} and {index} {same}: take one out or give it a name of its own")
    return names


def computed_name(trigger: V1EventTrigger) -> str:
    """A hash of what it waits for: reference, kinds and filter."""
    told = [trigger.ref, [kind.value for kind in trigger.kinds], trigger.filter]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8]


def _load(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        quoted = _BARE_TEMPLATE.sub(r'\1"\2"', text)
        if quoted == text:
            raise ValueError(f"this is not YAML: {error}") from error
    try:
        return yaml.safe_load(quoted)
    except yaml.YAMLError as error:
        raise ValueError(f"this is not YAML: {error}") from error
