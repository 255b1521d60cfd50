"""A port that is open to strangers: what they can take of this process is bounded.

So many connections at once and no more, each closed when its request is slow to come; bodies within a budget of memory, and within a few
seconds; TLS with a certificate that is read again when it is renewed. Of what libraries would log nothing is kept: what strangers send
may hold tokens, and there may be much of it.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from kfp_operator.errors import ConfigurationError
from kfp_operator.operator.senders_file import EVERY, look
from kfp_operator.settings import InboundTlsSettings

log = logging.getLogger(__name__)

HANDSHAKE_WITHIN = 10.0
SHUTDOWN = 2.0
"""Seconds that a request in hand gets when the server ends."""

_silent = logging.getLogger(f"{__name__}.aiohttp")
_silent.disabled = True


@dataclass(frozen=True, slots=True)
class Limits:
    """What strangers can take. Sizes in bytes, times in seconds."""

    connections: int = 256
    request_within: float = 15.0
    """Until the head of a request must be there, from the beginning of the connection or the request before."""
    body_within: float = 10.0
    events_body: int = 1024 * 1024
    hook_body: int = 5 * 1024 * 1024
    """GitHub lists up to 2048 commits with their files."""
    budget: int = 16 * 1024 * 1024
    """All bodies that are being read, of senders who are known, and as much of those who are not yet."""
    look_every: float = EVERY
    """Between two looks at the files that were read."""


class Budget:
    """Bytes that may be held at once."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    @property
    def left(self) -> int:
        """Bytes that are free."""
        return self._left

    def take(self, count: int) -> bool:
        """Whether there was room for them; then they are taken."""
        if count > self._left:
            return False
        self._left -= count
        return True

    def give_back(self, count: int) -> None:
        """Free what was taken."""
        self._left += count


class Certificate:
    """TLS for the port; renewed files serve the connections that begin after."""

    def __init__(self, settings: InboundTlsSettings) -> None:
        """Read the files; ConfigurationError when they cannot be used."""
        if settings.cert_file is None or settings.key_file is None:
            raise ConfigurationError("inbound.tls.certFile and inbound.tls.keyFile go together")
        self._cert, self._key = settings.cert_file.expanduser(), settings.key_file.expanduser()
        self._files: list[Path] = [self._cert, self._key]
        self._seen = look(self._files)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.problem = ""
        """Why the files as they are now are not in use; empty when they are."""
        self._load(self.context)

    async def follow(self, every: float = EVERY) -> None:
        """Read the files again whenever they changed, for ever; `every`: seconds between two looks."""
        while True:
            await asyncio.sleep(every)
            if (seen := await asyncio.to_thread(look, self._files)) != self._seen:
                self._seen = seen
                self._renew()

    def _renew(self) -> None:
        try:
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # a pair that does not match must not spoil the one in use
            self._load(self.context)
        except ConfigurationError as error:
            log.warning("%s; the certificate before stays in use", error)
            self.problem = str(error)
            return
        self.problem = ""
        log.info("inbound.tls: the certificate was renewed")

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._cert, self._key, password=lambda: "")  # a prompt would wait for ever
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"inbound.tls.certFile, keyFile: {self._cert}, {self._key}: {error}") from error


class _Refusal(asyncio.Protocol):
    """Closes a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@asynccontextmanager
async def listening(
    app: web.Application, port: int, limits: Limits, *, host: str | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve for the time of the context; the port in use. Port 0: a free one; no host: every address of this machine.

    Raises ConfigurationError when the port cannot be had.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=SHUTDOWN,
        keepalive_timeout=limits.request_within,
        lingering_time=1.0,
        auto_decompress=False,
        logger=_silent,
    )
    await runner.setup()
    server = runner.server
    assert server is not None  # noqa: S101 -- setup made it

    def protocol() -> asyncio.Protocol:
        return server() if len(server.connections) < limits.connections else _Refusal()

    try:
        timeout = HANDSHAKE_WITHIN if tls is not None else None
        try:
            listener = await asyncio.get_running_loop().create_server(
                protocol, host, port, ssl=tls, ssl_handshake_timeout=timeout, reuse_address=True
            )
        except OSError as error:
            raise ConfigurationError(f"inbound.port {port} cannot be used, choose another (0: a free one): {error.strerror}") from error
        try:
            yield int(listener.sockets[0].getsockname()[1])
        finally:
            listener.close()
    finally:
        await runner.cleanup()
