"""A connection: a system that calls a webhook here, what it shares with us, and the events that its deliveries become.

Each type of system is a model of its configuration with two methods, `authenticate` and `read`. What is read is told as facts; the rest
is the same for all: the source is the path of the webhook, and the namespace that of the connection.
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from kfp_operator.errors import EventError, EventRefused
from kfp_operator.events import inbound
from kfp_operator.events.http_binding import read_json
from kfp_operator.events.inbound import Inbound
from kfp_operator.schemas import RefType, V1EventKind, parse_reference

LONGEST_TEXT = 1024
"""Characters of a text that is passed on."""

_UNFIT = re.compile(r"[^-A-Za-z0-9_.]+")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request as it arrived. Names of headers are lower-case; `received` is aware."""

    headers: Mapping[str, str]
    body: bytes
    received: datetime

    def document(self) -> dict[str, Any]:
        """The body as a JSON object; EventError when it is none."""
        found = read_json(self.body)
        if not isinstance(found, dict):
            raise EventError("the body is not a JSON object")
        return found


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that a delivery tells."""

    kind: V1EventKind
    id: str
    """The same whenever the sender tells it again."""
    payload: Mapping[str, Any]
    name: str = ""
    """What it is about, for the reference; empty: the connection."""
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What a delivery says: facts, and why other parts of it become none."""

    facts: Sequence[Fact] = ()
    ignored: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """The events of a delivery, and why parts of it become none."""

    events: Sequence[Inbound]
    ignored: Sequence[str]


def _reference(text: str) -> str:
    return str(parse_reference(text))


class Connection(BaseModel, ABC):
    """What all types of connections have in common."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    namespace: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63, description="The namespace of its events.")
    name: str = Field(
        pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=63, description="Its name, in the path and in references."
    )
    secret_file: Path | None = Field(None, description="File with the shared secret; a secret on each line while it is being changed.")
    secret_env: str = Field("", description="Variable of the environment with the shared secret, instead of a file.")
    ref: Annotated[str, AfterValidator(_reference)] | None = Field(None, description="The reference of its events, instead of the usual.")
    events_per_second: float = Field(50, gt=0, le=10_000, allow_inf_nan=False, description="Deliveries accepted per second.")

    @model_validator(mode="after")
    def _one_secret(self) -> "Connection":
        if (self.secret_file is None) == (not self.secret_env):
            raise ValueError("exactly one of secretFile and secretEnv says where the shared secret is")
        return self

    @model_validator(mode="after")
    def _fitting_ref(self) -> "Connection":
        if self.ref is not None:
            parse_reference(self.ref).check_kinds(self.kinds)
        return self

    @property
    @abstractmethod
    def kinds(self) -> tuple[V1EventKind, ...]:
        """The kinds of its events."""

    @property
    def signs_body(self) -> bool:
        """Whether the body must be read to know who sent it."""
        return True

    @property
    def path(self) -> str:
        """Where it calls, which is the source of its events too."""
        return f"/hooks/{self.namespace}/{self.name}"

    @abstractmethod
    def authenticate(self, delivery: Delivery, secrets: Sequence[str]) -> None:
        """Raise NotAuthentic unless who knows one of the secrets sent it. The body counts only if the type signs it."""

    @abstractmethod
    def read(self, delivery: Delivery) -> Told:
        """What an authentic delivery tells; EventError when it is not what such a system sends."""

    def events(self, delivery: Delivery) -> Reading:
        """The events of an authentic delivery. EventError when nothing in it can be understood; what cannot become an event is ignored."""
        told = self.read(delivery)
        events, ignored = [], list(told.ignored)
        for fact in told.facts:
            ref = self.ref or f"{ref_type(fact.kind)}.{fact.name or self.name}"
            try:
                events.append(inbound.make(self.namespace, fact.kind, ref, fact.payload, source=self.path, id_=fact.id, time=fact.time))
            except EventRefused as error:
                ignored.append(str(error))
        return Reading(events, ignored)


def ref_type(kind: V1EventKind) -> RefType:
    """The type of reference that events of the kind are about."""
    return next(one for one in RefType if kind in one.kinds)


def member(document: object, *path: str) -> object:
    """What lies under nested keys; None when it is not there."""
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def text(document: object, *path: str, longest: int = LONGEST_TEXT) -> str:
    """The text or whole number under nested keys, cut to `longest` characters; empty when there is none."""
    found = member(document, *path)
    if isinstance(found, bool) or not isinstance(found, str | int):
        return ""
    found = str(found)
    return found if len(found) <= longest else found[: longest - 1] + "…"


def objects(document: object, *path: str) -> list[dict[str, Any]]:
    """The objects in the list under nested keys."""
    found = member(document, *path)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def moment(value: str) -> datetime | None:
    """An RFC 3339 time with its zone, in UTC; None for anything else."""
    try:
        found = datetime.fromisoformat(value)
        return found.astimezone(UTC) if found.tzinfo is not None else None
    except (ValueError, OverflowError):  # the first and last hours of the calendar are not there in UTC
        return None


def fit_name(value: str) -> str:
    """The value as a name in a reference: what may not stand there becomes "-"; empty when nothing is left."""
    return _UNFIT.sub("-", value)[:200].strip("-_.")


def computed_id(*parts: object) -> str:
    """An id that is the same for the same parts."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]
