"""Who the operator is to the server: headers for a request, read anew where they change.

A token file is rotated by the kubelet and read for each request. A Secret costs a request to the Kubernetes API, so its value is kept
for a minute, and read again when the server refuses it. Values never leave here but as headers: `hide` takes them out of texts.
"""

import asyncio
from pathlib import Path
from typing import Protocol

from kfp_operator.errors import Permanent, Retryable
from kfp_operator.providers.kubeflow.clock import Clock
from kfp_operator.providers.kubeflow.parameters import Authentication, HeaderAuthentication
from kfp_operator.providers.protocol import Secrets

KEPT = 60.0
"""Seconds for which the value of a Secret is used."""
LARGEST_TOKEN = 64 * 1024
HIDDEN = "***"
_SHORTEST_HIDDEN = 6


class Identity(Protocol):
    """Headers that say who asks."""

    async def headers(self) -> dict[str, str]:
        """For a request now. Retryable when they cannot be read, with the field and the remedy."""

    async def renew(self) -> bool:
        """Read them anew because the server refused them; tell whether they are others now."""

    def hide(self, text: str) -> str:
        """The text without anything secret."""


class Nobody:
    """No headers: single-user servers ask nobody who they are."""

    async def headers(self) -> dict[str, str]:
        """See `Identity`."""
        return {}

    async def renew(self) -> bool:
        """See `Identity`."""
        return False

    def hide(self, text: str) -> str:
        """See `Identity`."""
        return text


class TokenFile:
    """A bearer token from a file."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._sent = ""

    async def headers(self) -> dict[str, str]:
        """See `Identity`."""
        self._sent = await asyncio.to_thread(self._read)
        return {"Authorization": f"Bearer {self._sent}"}

    async def renew(self) -> bool:
        """See `Identity`."""
        before = self._sent
        await self.headers()
        return self._sent != before

    def hide(self, text: str) -> str:
        """See `Identity`."""
        return _without(text, self._sent)

    def _read(self) -> str:
        field = f"spec.parameters.authentication.tokenFile: {self._path}"
        try:
            with self._path.open("rb") as file:
                content = file.read(LARGEST_TOKEN + 1)
        except OSError as error:
            message = f"{field} cannot be read ({error.strerror}); mount a projected service account token there"
            raise Retryable(message, reason="TokenUnreadable") from error
        return _header_value(content, field, "TokenUnreadable")


class SecretHeader:
    """A header with a value from a Secret."""

    def __init__(self, wanted: HeaderAuthentication, secrets: Secrets | None, namespace: str, clock: Clock) -> None:
        self._wanted = wanted
        self._secrets = secrets
        self._namespace = namespace
        self._clock = clock
        self._value = ""
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def headers(self) -> dict[str, str]:
        """See `Identity`."""
        async with self._reading:
            if self._clock.monotonic() - self._read_at > KEPT:
                await self._read()
        return {self._wanted.name: f"{self._wanted.prefix}{self._value}"}

    async def renew(self) -> bool:
        """See `Identity`."""
        async with self._reading:
            before = self._value
            await self._read()
            return self._value != before

    def hide(self, text: str) -> str:
        """See `Identity`."""
        return _without(text, self._value)

    async def _read(self) -> None:
        ref = self._wanted.secret_key_ref
        field = f"spec.parameters.authentication.header.secretKeyRef: key {ref.key} of Secret {self._namespace}/{ref.name}"
        content = await read_secret(self._secrets, ref.name, ref.key, field)
        self._value = _header_value(content, field, "SecretUnusable")
        self._read_at = self._clock.monotonic()


def identity_of(wanted: Authentication, secrets: Secrets | None, namespace: str, clock: Clock) -> Identity:
    """The identity that the parameters ask for. `namespace` is the Provider's."""
    if wanted.token_file is not None:
        return TokenFile(wanted.token_file)
    if wanted.header is not None:
        return SecretHeader(wanted.header, secrets, namespace, clock)
    return Nobody()


async def read_secret(secrets: Secrets | None, name: str, key: str, field: str) -> bytes:
    """The value of a key. Retryable, since somebody may yet create it, with `field` in front."""
    if secrets is None:
        raise Retryable(f"{field} cannot be read: this process has no access to Secrets", reason="SecretUnreadable")
    try:
        return await secrets.read(name, key)
    except Permanent as error:
        raise Retryable(f"{field}: {error}", reason=error.reason) from error


def _header_value(content: bytes, field: str, reason: str) -> str:
    """As a header can hold it; what is wrong is told without the value."""
    text = content.decode("latin-1").strip()
    if len(content) > LARGEST_TOKEN:
        raise Retryable(f"{field} is larger than {LARGEST_TOKEN} bytes, which is no token", reason=reason)
    if not text:
        raise Retryable(f"{field} is empty", reason=reason)
    if not all("\x20" <= character <= "\x7e" for character in text):
        raise Retryable(f"{field} holds line breaks or characters that a header cannot hold", reason=reason)
    return text


def _without(text: str, secret: str) -> str:
    return text.replace(secret, HIDDEN) if len(secret) >= _SHORTEST_HIDDEN else text
