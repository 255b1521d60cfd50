"""Any system that posts JSON: which of its deliveries become events, of which kind, and what of them is told, by configuration.

Values are paths into the body (`json_path`), or plain text. What a path does not find is left out of the data.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from kfp_operator.errors import EventError
from kfp_operator.events.inbound import KINDS
from kfp_operator.events.webhooks import signatures
from kfp_operator.events.webhooks.connection import Connection, Delivery, Fact, Told, computed_id, ref_type
from kfp_operator.events.webhooks.json_path import MISSING, parse_path
from kfp_operator.schemas import RefType, V1EventKind


def _path_or_text(value: str) -> str:
    if value.startswith("$"):
        parse_path(value)
    return value


def _path(value: str) -> str:
    parse_path(value)
    return value


def _from_outside(kind: V1EventKind) -> V1EventKind:
    if kind not in KINDS:
        raise ValueError(f"{kind} is told by the operator alone; from outside come {', '.join(one.value for one in KINDS)}")
    return kind


_Path = Annotated[str, AfterValidator(_path)]
_Value = Annotated[str, AfterValidator(_path_or_text), Field(max_length=1000)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=63)]


class Generic(Connection):
    """A webhook that is described by its configuration."""

    type: Literal["generic"]
    kind: Annotated[V1EventKind, AfterValidator(_from_outside)] = Field(description="The kind of its events.")
    data: Mapping[_Name, _Value] = Field(default_factory=dict, max_length=100, description="Members of the data: paths, or plain text.")
    when: Mapping[_Path, str | list[str]] = Field(
        default_factory=dict, max_length=20, description="Deliveries that become events: at each path one of the values."
    )
    id: _Path | None = Field(None, description="Path to what identifies a delivery. Default: webhook-id if signed, else the body's hash.")
    authentication: Literal["token", "hmac-sha256", "standard-webhooks"] = Field(
        "token", description="A secret in a header, an HMAC of the body in a header, or a signature by Standard Webhooks."
    )
    header: str = Field("Authorization", pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=100, description="That header.")
    prefix: str = Field("", max_length=20, description="What stands before the HMAC, as sha256=")
    encoding: Literal["hex", "base64"] = Field("hex", description="Of the HMAC.")

    @model_validator(mode="after")
    def _consistent(self) -> "Generic":
        if self.ref is None and ref_type(self.kind) is not RefType.CONNECTIONS:
            raise ValueError(f"ref must say what {self.kind} is about, as {ref_type(self.kind).form}")
        if self.authentication == "hmac-sha256" and self.header == "Authorization":
            raise ValueError("header must name the header with the HMAC, as X-Signature")
        if {"ref", "kind"} & set(self.data):
            raise ValueError("data may not hold ref and kind: they are set by the fields ref and kind")
        return self

    @property
    def kinds(self) -> tuple[V1EventKind, ...]:
        """The one that is configured."""
        return (self.kind,)

    @property
    def signs_body(self) -> bool:
        """Unless the secret is in a header."""
        return self.authentication != "token"

    def authenticate(self, delivery: Delivery, secrets: Sequence[str]) -> None:
        """Check what the configuration says."""
        match self.authentication:
            case "token":
                signatures.header(delivery.headers, self.header, secrets)
            case "hmac-sha256":
                signatures.hmac_sha256(delivery.headers, self.header, delivery.body, secrets, prefix=self.prefix, encoding=self.encoding)
            case "standard-webhooks":
                signatures.standard(delivery.headers, delivery.body, secrets, delivery.received)

    def read(self, delivery: Delivery) -> Told:
        """One event, if the delivery is one of those that become events."""
        document = delivery.document()
        for path, accepted in self.when.items():
            found = parse_path(path).find(document)
            if found is MISSING or _plain(found) not in ([accepted] if isinstance(accepted, str) else accepted):
                return Told(ignored=[f"{path} is {'missing' if found is MISSING else 'another value'}"])
        payload: dict[str, Any] = {}
        for name, value in self.data.items():
            found = parse_path(value).find(document) if value.startswith("$") else value
            if found is not MISSING:
                payload[name] = found
        return Told([Fact(self.kind, self._id(delivery, document), payload)])

    def _id(self, delivery: Delivery, document: Mapping[str, Any]) -> str:
        if self.id is not None:
            found = parse_path(self.id).find(document)
            if found is MISSING or found is None or isinstance(found, dict | list) or not str(found):
                raise EventError(f"{self.id}, which identifies a delivery, is not a text or number in the body")
            return computed_id(found)
        if self.authentication == "standard-webhooks":
            return delivery.headers["webhook-id"][:200]
        return hashlib.sha256(delivery.body).hexdigest()[:32]


def _plain(value: object) -> str:
    """A value as it is written in the configuration."""
    return value if isinstance(value, str) else json.dumps(value)
