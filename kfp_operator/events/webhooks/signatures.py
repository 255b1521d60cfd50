"""Whether a delivery comes from who shares a secret with us. Several secrets may be in force at once, so that they can be changed.

Comparisons take as long for a wrong secret as for the right one, and all secrets are compared always.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime

from kfp_operator.errors import EventError

TOLERANCE = 300.0
"""Seconds that a signed time may differ from ours, as the specification of Standard Webhooks recommends."""
STANDARD_PREFIX = "whsec_"
"""How secrets for signatures by Standard Webhooks begin; the rest is the key in base64."""


class NotAuthentic(EventError):
    """Nobody who shares the secret sent this."""


def header(headers: Mapping[str, str], name: str, secrets: Sequence[str]) -> None:
    """Check a header that holds the secret itself, as it is or after ``Bearer``."""
    given = headers.get(name.lower())
    if given is None:
        raise NotAuthentic(f"header {name} is missing")
    if not _any_of(given.strip(), [*secrets, *(f"Bearer {secret}" for secret in secrets)]):
        raise NotAuthentic(f"header {name} does not hold the secret of the connection")


def authorization(headers: Mapping[str, str], secrets: Sequence[str]) -> None:
    """Check ``Authorization: Bearer`` with the secret, or ``Basic`` with it as the password of any user."""
    scheme, _, credentials = headers.get("authorization", "").strip().partition(" ")
    given = credentials.strip()
    match scheme.lower():
        case "bearer":
            pass
        case "basic":
            try:
                given = base64.b64decode(given, validate=True).decode("utf-8").partition(":")[2]
            except (binascii.Error, ValueError) as error:
                raise NotAuthentic("header Authorization is not Basic as in RFC 7617") from error
        case _:
            raise NotAuthentic("header Authorization with Bearer or Basic is missing")
    if not _any_of(given, secrets):
        raise NotAuthentic("header Authorization does not hold the secret of the connection")


def hmac_sha256(headers: Mapping[str, str], name: str, body: bytes, secrets: Sequence[str], *, prefix: str, encoding: str) -> None:
    """Check a header with an HMAC-SHA256 of the body, `encoding` hex or base64, after `prefix`."""
    given = headers.get(name.lower())
    if given is None:
        raise NotAuthentic(f"header {name} is missing: set the secret of the connection at the sender too")
    digests = [hmac.digest(secret.encode(), body, hashlib.sha256) for secret in secrets]
    accepted = [prefix + (base64.b64encode(one).decode() if encoding == "base64" else one.hex()) for one in digests]
    if not _any_of(given.strip(), accepted):
        raise NotAuthentic(f"header {name} is not the HMAC-SHA256 of the body under the secret of the connection")


def standard(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> None:
    """Check a signature of Standard Webhooks: over id, time and body, made within the last five minutes.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """
    id_, at, given = (headers.get(f"webhook-{name}", "").strip() for name in ("id", "timestamp", "signature"))
    if not (id_ and at and given):
        raise NotAuthentic("headers webhook-id, webhook-timestamp and webhook-signature are not all there")
    if not (at.isascii() and at.isdecimal() and len(at) <= 12) or abs(now.timestamp() - int(at)) > TOLERANCE:
        raise NotAuthentic(f"webhook-timestamp is more than {TOLERANCE:.0f} s away from the time here: an old delivery, or a wrong clock")
    signed = f"{id_}.{at}.".encode("utf-8", "surrogateescape") + body
    accepted = ["v1," + base64.b64encode(hmac.digest(standard_key(secret), signed, hashlib.sha256)).decode() for secret in secrets]
    found = [_any_of(one, accepted) for one in given.split(" ")[:10]]
    if not any(found):
        raise NotAuthentic("webhook-signature is not the signature under the secret of the connection")


def standard_key(secret: str) -> bytes:
    """The key in a secret of Standard Webhooks; ValueError when what follows ``whsec_`` is not base64."""
    if not secret.startswith(STANDARD_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(STANDARD_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(f"what follows {STANDARD_PREFIX} is not base64") from error


def _any_of(given: str, accepted: Sequence[str]) -> bool:
    value = given.encode("utf-8", "surrogateescape")
    equal = [hmac.compare_digest(value, one.encode()) for one in accepted]  # a list: all are compared
    return any(equal)
