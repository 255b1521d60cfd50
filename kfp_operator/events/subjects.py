"""Where events live on the bus: subjects, and the streams that store them.

A subject says what happened to which object, so that a subscriber chooses with wildcards and a permission can name it::

    <prefix>.run-completion.<namespace>.<run>.<uid>.<attempt>
    <prefix>.run-status.<namespace>.<run>.<uid>.<transition>
    <prefix>.dag-completion.<namespace>.<dag>.<uid>.<attempt>
    <prefix>.dag-status.<namespace>.<dag>.<uid>.<transition>
    <prefix>.documented.<namespace>.<run>.<uid>.<attempt>
    <prefix>.inbound.<namespace>.<kind>[.<hash of source and id>]
    <prefix>.provider.<namespace>.<name>
    <prefix>.dead-letter.<stream>.<sequence>

A name may hold dots, which separate tokens in NATS; so every token is percent-encoded, the dot included. One object has exactly one
subject: a token that is not encoded in this one way does not parse.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from urllib.parse import quote, unquote_to_bytes

from kfp_operator.errors import ConfigurationError, EventError

DEFAULT_PREFIX = "events"

_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,63}")


class Kind(StrEnum):
    """The second token of a subject: what is told."""

    RUN_COMPLETION = "run-completion"
    RUN_STATUS = "run-status"
    DAG_COMPLETION = "dag-completion"
    DAG_STATUS = "dag-status"
    DOCUMENTED = "documented"
    INBOUND = "inbound"
    PROVIDER = "provider"
    DEAD_LETTER = "dead-letter"


Role = Literal["runs", "documented", "inbound", "dead-letter"]
"""What a stream is for."""


@dataclass(frozen=True, slots=True)
class Address:
    """The subject of an event about one Run or Dag, taken apart."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    number: int
    """The attempt (completions, documented) or the transition (status), from 1."""


@dataclass(frozen=True, slots=True)
class InboundAddress:
    """The subject of an event that others published, taken apart."""

    namespace: str
    kind: str
    digest: str = ""
    """Of source and id, as `events.inbound.digest` computes it; empty when the publisher left it out."""


def encode_token(value: str) -> str:
    """One token of a subject: everything but ``A-Z a-z 0-9 _ - ~`` percent-encoded as UTF-8, so ``.`` is ``%2E``.

    Raises EventError when it is empty or not encodable: a subject has no empty tokens.
    """
    if not value:
        raise EventError("a token of a subject cannot be empty")
    try:
        return quote(value, safe="").replace(".", "%2E")
    except UnicodeEncodeError as error:
        raise EventError(f"{value!r} cannot be part of a subject: {error.reason}") from error


def decode_token(token: str) -> str:
    """What `encode_token` encoded; EventError for any other spelling."""
    try:
        value = unquote_to_bytes(token).decode("utf-8")
        canonical = encode_token(value)
    except (UnicodeDecodeError, EventError) as error:
        raise EventError(f"token {token!r} of a subject is not a percent-encoded name") from error
    if canonical != token:
        raise EventError(f"token {token!r} of a subject must be spelled {canonical!r}")
    return value


class Subjects:
    """Subjects and stream names under one prefix."""

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ConfigurationError(f"events.prefix: {prefix!r} is not one token of letters, digits, '-' and '_' (63 at most)")
        self.prefix = prefix

    def run_completion(self, namespace: str, name: str, uid: str, attempt: int) -> str:
        """Where the completion of one attempt of a Run is stored, once."""
        return self._join(Kind.RUN_COMPLETION, namespace, name, uid, str(attempt))

    def run_status(self, namespace: str, name: str, uid: str, transition: int) -> str:
        """Where change of state number `transition` of a Run is stored, once."""
        return self._join(Kind.RUN_STATUS, namespace, name, uid, str(transition))

    def dag_completion(self, namespace: str, name: str, uid: str, attempt: int) -> str:
        """Where the completion of one attempt of a Dag is stored, once."""
        return self._join(Kind.DAG_COMPLETION, namespace, name, uid, str(attempt))

    def dag_status(self, namespace: str, name: str, uid: str, transition: int) -> str:
        """Where change number `transition` of a Dag is stored, once."""
        return self._join(Kind.DAG_STATUS, namespace, name, uid, str(transition))

    def documented(self, namespace: str, name: str, uid: str, attempt: int) -> str:
        """Where the copy for plain subscribers is stored, which a push consumer delivers on the documented subject."""
        return self._join(Kind.DOCUMENTED, namespace, name, uid, str(attempt))

    def inbound(self, namespace: str, kind: str, digest: str = "") -> str:
        """Where others publish events for triggers in `namespace`."""
        return self._join(Kind.INBOUND, namespace, kind, *([digest] if digest else []))

    def provider(self, namespace: str, name: str) -> str:
        """Where a third-party provider service reports completions."""
        return self._join(Kind.PROVIDER, namespace, name)

    def dead_letter(self, stream: str, sequence: int) -> str:
        """Where message number `sequence` of `stream` is kept when nobody can understand it."""
        return self._join(Kind.DEAD_LETTER, stream, str(sequence))

    def pattern(self, kind: Kind, namespace: str = "", name: str = "") -> str:
        """A subscription to events of `kind`, of one namespace or one object of it if given."""
        tokens = [self.prefix, kind.value]
        if namespace or name:
            tokens.append(encode_token(namespace) if namespace else "*")
        if name:
            tokens.append(encode_token(name))
        return ".".join([*tokens, ">"])

    def parse(self, subject: str) -> Address:
        """The parts of a subject of a run or dag event; EventError for every other one."""
        tokens = subject.split(".")
        if len(tokens) != 6 or tokens[0] != self.prefix or tokens[1] not in _EXECUTION:
            raise EventError(f"{subject!r} is not the subject of an event about a Run")
        namespace, name, uid = (decode_token(token) for token in tokens[2:5])
        number = tokens[5]
        if not re.fullmatch(r"[1-9][0-9]{0,17}", number):
            raise EventError(f"{subject!r} does not end in a number from 1")
        return Address(Kind(tokens[1]), namespace, name, uid, int(number))

    def parse_inbound(self, subject: str) -> InboundAddress:
        """The parts of a subject of an event that others published; EventError for every other one."""
        tokens = subject.split(".")
        if len(tokens) not in (4, 5) or tokens[:2] != [self.prefix, Kind.INBOUND]:
            raise EventError(f"{subject!r} is not {self.prefix}.{Kind.INBOUND}.<namespace>.<kind>[.<digest>]")
        return InboundAddress(*map(decode_token, tokens[2:]))

    def stream(self, role: Role) -> str:
        """Name of the stream; a prefix other than the default is part of it, so that two operators can share a server."""
        return f"kfp-operator-{role}" if self.prefix == DEFAULT_PREFIX else f"kfp-operator-{self.prefix}-{role}"

    def stored_by(self, role: Role) -> tuple[str, ...]:
        """The subjects that the stream stores."""
        return tuple(self.pattern(kind) for kind in _STORED_BY[role])

    def _join(self, kind: Kind, *tokens: str) -> str:
        return ".".join([self.prefix, kind, *map(encode_token, tokens)])


_EXECUTION = frozenset({Kind.RUN_COMPLETION, Kind.RUN_STATUS, Kind.DAG_COMPLETION, Kind.DAG_STATUS, Kind.DOCUMENTED})
_STORED_BY: dict[Role, tuple[Kind, ...]] = {
    "runs": (Kind.RUN_COMPLETION, Kind.RUN_STATUS, Kind.DAG_COMPLETION, Kind.DAG_STATUS),
    "documented": (Kind.DOCUMENTED,),
    "inbound": (Kind.INBOUND, Kind.PROVIDER),
    "dead-letter": (Kind.DEAD_LETTER,),
}
ROLES: tuple[Role, ...] = ("runs", "documented", "inbound", "dead-letter")
