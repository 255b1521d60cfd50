"""What an answer of the server means: the protocol's Retryable and Permanent, with what callers decide by.

The server answers many mistakes of the caller with 500, uses 409 for two things, and puts a Go stack trace beside some messages. So
callers look at status and code; `said` is for people, and is the server's shortest text that says something.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from kfp_operator.errors import Permanent, Retryable

NOT_FOUND = 5
"""gRPC code of 404."""
ABORTED = 10
"""gRPC code of the 409 that means "not now"; that of "exists already" is 6, and upload handlers give none."""
UNKNOWN_PATH = "Not Found"
"""All that the gateway says of a path that it does not serve."""
LONGEST = 500
"""Characters of what a server said that are passed on."""
DEFAULT_PAUSE = 5.0
"""Seconds of pause after a 429 that names none."""


class NoAnswer(Retryable):
    """The server did not answer. `sent` is False when it cannot have got the request either: nobody took the connection."""

    def __init__(self, message: str, *, sent: bool, reason: str = "ProviderUnavailable") -> None:
        super().__init__(message, reason=reason)
        self.sent = sent


class Failure(Retryable):
    """The server, or a proxy before it, answered that it cannot now: 401, 403, 429, 5xx, or something that is no answer of this API."""

    def __init__(self, message: str, *, status: int, said: str, reason: str = "ProviderUnavailable", after: float | None = None) -> None:
        super().__init__(message, reason=reason, after=after)
        self.status = status
        self.said = said


class Refusal(Permanent):
    """The server answered that it will not: 400, 404, 409 and the like. `code` is the gRPC code, 0: there is none."""

    def __init__(self, message: str, *, status: int, said: str, code: int = 0, reason: str = "Refused") -> None:
        super().__init__(message, reason=reason)
        self.status = status
        self.said = said
        self.code = code

    @property
    def exists(self) -> bool:
        """Whether something of that name is there. 409 also means "not now" (Aborted)."""
        return self.status == 409 and self.code != ABORTED

    @property
    def absent(self) -> bool:
        """Whether what was asked for is not there, said by the server that would know."""
        return self.status == 404 and self.code == NOT_FOUND and self.said != UNKNOWN_PATH


def describe(body: bytes) -> tuple[str, int]:
    """What the server says in an error's body, for people, and its gRPC code (0: none)."""
    text = body.decode(errors="replace")
    try:
        document = json.loads(text)
    except ValueError:
        return ("" if text.lstrip().startswith("<") else clip(text)), 0
    if not isinstance(document, dict):
        return clip(text), 0
    code = document.get("code")
    return clip(_said(document)), code if isinstance(code, int) else 0


def _said(document: Mapping[str, Any]) -> str:
    details = document.get("details")
    first = details[0] if isinstance(details, list) and details and isinstance(details[0], dict) else {}
    external = str(first.get("message") or "")
    if external and external != "Internal Server Error":
        return external
    return str(document.get("message") or document.get("error_message") or "")


def clip(text: str) -> str:
    """One paragraph, without a stack trace, not too long."""
    head = text.strip().partition("\n")[0].replace("\N{NO-BREAK SPACE}", " ").strip()
    return head if len(head) <= LONGEST else f"{head[: LONGEST - 1]}…"


def retry_after(header: str | None, now: datetime) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date."""
    if not header:
        return None
    try:
        return max(float(header), 0.0)
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - now).total_seconds(), 0.0)
