"""Who may send events from outside: the file that ``inbound.tokensFile`` names.

Tokens, for senders of CloudEvents, are bound to namespaces and kinds and stand there as SHA-256 hashes; a hash without salt is enough for
what is random and long. Connections, for systems that call a webhook, name a file or a variable with the secret that is shared. So the
file itself holds no secret. All problems in it are reported at once, each with its place.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from kfp_operator.errors import ConfigurationError
from kfp_operator.events.http_binding import MAX_BATCH
from kfp_operator.events.inbound import KINDS
from kfp_operator.events.webhooks import signatures
from kfp_operator.events.webhooks.alertmanager import Alertmanager
from kfp_operator.events.webhooks.connection import Connection
from kfp_operator.events.webhooks.generic import Generic
from kfp_operator.events.webhooks.git import GitHub, GitLab
from kfp_operator.events.webhooks.registry import Registry
from kfp_operator.schemas import V1EventKind

MOST = 1000
"""Tokens, and connections, in one file."""
SHORTEST_SECRET = 16
"""Characters."""
EVERY_NAMESPACE = "*"

AnyConnection = Annotated[GitHub | GitLab | Registry | Alertmanager | Generic, Field(discriminator="type")]


def _from_outside(kinds: list[V1EventKind]) -> list[V1EventKind]:
    if refused := [kind.value for kind in kinds if kind not in KINDS]:
        raise ValueError(f"{', '.join(refused)} cannot come from outside; what can: {', '.join(kind.value for kind in KINDS)}")
    return kinds


class Token(BaseModel):
    """A bearer token, known by its hash, and what it is good for."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=63, description="For logs and metrics.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the token in hex digits.")
    namespaces: list[Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?|\*)$", max_length=63)]] = Field(
        min_length=1, max_length=MOST, description='Namespaces it may send events for; "*" is every one.'
    )
    kinds: Annotated[list[V1EventKind], AfterValidator(_from_outside)] = Field(
        default_factory=lambda: list(KINDS), min_length=1, description="Kinds it may send. Default: all that can come from outside."
    )
    events_per_second: float = Field(50, gt=0, le=10_000, allow_inf_nan=False, description="Events accepted per second.")

    def permits(self, namespace: str) -> bool:
        """Whether it may send events for the namespace."""
        return namespace in self.namespaces or EVERY_NAMESPACE in self.namespaces

    @property
    def only_namespace(self) -> str:
        """The one it is bound to; empty when there are several."""
        return self.namespaces[0] if len(self.namespaces) == 1 and not self.permits(EVERY_NAMESPACE) else ""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: list[Token] = Field(default_factory=list, max_length=MOST)
    connections: list[AnyConnection] = Field(default_factory=list, max_length=MOST)


@dataclass(frozen=True, slots=True)
class Senders:
    """All that may send. `secrets`: of each connection, by its path."""

    tokens: tuple[Token, ...] = ()
    connections: Mapping[str, Connection] = field(default_factory=dict)
    secrets: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def token(self, presented: str) -> Token | None:
        """Who presents this token; takes as long for any that is not known."""
        hashed = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).hexdigest()
        known = [token for token in self.tokens if hmac.compare_digest(token.sha256, hashed)]
        return known[0] if known else None


def parse(text: str, origin: str) -> tuple[tuple[Token, ...], tuple[Connection, ...]]:
    """The tokens and connections in the file's text; `origin` names the file in messages.

    Raises ConfigurationError that names each problem.
    """
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: what looks like a date and is none
        mark = getattr(error, "problem_mark", None)  # the message itself would quote the file
        raise ConfigurationError(f"{origin} is not YAML{f', see line {mark.line + 1}' if mark is not None else ''}") from error
    try:
        file = _File.model_validate({} if document is None else document)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_problem(origin, one) for one in error.errors(include_input=False)[:10])) from None
    problems = [
        *_twice("token name", [token.name for token in file.tokens]),
        *_twice("token with sha256", [token.sha256 for token in file.tokens]),
        *_twice("connection", [connection.path for connection in file.connections]),
    ]
    if problems:
        raise ConfigurationError("; ".join(f"{origin}: {problem}" for problem in problems))
    return tuple(file.tokens), tuple(file.connections)


def parse_secrets(text: str, where: str) -> tuple[str, ...]:
    """The secrets in the text of a file or variable, one on each line; ConfigurationError when one of them is no good."""
    secrets = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not secrets:
        raise ConfigurationError(f"{where} holds no secret")
    for number, secret in enumerate(secrets, 1):
        if len(secret) < SHORTEST_SECRET:
            raise ConfigurationError(
                f"{where}: secret {number} is shorter than {SHORTEST_SECRET} characters: make one with openssl rand -hex 32"
            )
        try:
            signatures.standard_key(secret)
        except ValueError as error:
            raise ConfigurationError(f"{where}: secret {number}: {error}") from None
    return secrets


def burst(per_second: float) -> int:
    """Events that may come at once: those of two seconds, and a full batch in any case."""
    return max(MAX_BATCH, round(2 * per_second))


def _problem(origin: str, error: Mapping[str, Any]) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{origin}: {place}: {message}" if place else f"{origin}: {message}"


def _twice(what: str, values: list[str]) -> list[str]:
    return [f"{what} {value} is there twice" for value in sorted({value for value in values if values.count(value) > 1})]
