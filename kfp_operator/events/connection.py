"""A connection to NATS that is always there or on its way back.

nats-py can reconnect by itself, but then what was published while it was away is sent later, although its caller was told that it
failed; an nkey is read once and for ever; and some errors ("authentication expired") close it for good. So every connection here is a
new client with freshly read credentials, and a loop with a backoff makes the next one, without end: NATS may be absent at start, gone
for a week, or refuse us until somebody mends the credentials. Why there is no connection now is in `last_error`, for readiness.
"""

import asyncio
import contextlib
import logging
import random
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import nats.errors
import nkeys
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from kfp_operator.errors import BusError, BusUnavailable, ConfigurationError
from kfp_operator.settings import NatsSettings

_log = logging.getLogger(__name__)

REQUEST_TIMEOUT = 5.0
_CONNECT_TIMEOUT = 3
_LOOK = 1.0  # seconds; nats-py tells of a close only after it flushed to a peer that may be frozen
_CANCEL_AGAIN = 0.5
_HEADER_OVERHEAD = 16
_VIOLATION_SECONDS = 60.0


class NoResponders(BusUnavailable):
    """Nobody listens on the subject of a request."""


class Backoff:
    """Pauses between tries: doubling from `first` to `longest` seconds, each shortened by up to half so that many do not come at once."""

    def __init__(self, first: float = 0.1, longest: float = 5.0) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def reset(self) -> None:
        """Begin anew: it works."""
        self._next = self._first

    async def pause(self) -> None:
        """Wait, longer than the last time."""
        seconds = self._next * random.uniform(0.5, 1.0)  # noqa: S311 (nothing secret about it)
        self._next = min(self._next * 2, self._longest)
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Link:
    """One connection, from its beginning to its end."""

    client: Client
    closed: "asyncio.Future[None]"


class Connection:
    """Keeps one connection to NATS.

    ``async with Connection(settings)`` starts it in the background and does not wait for a server.
    """

    def __init__(
        self, settings: NatsSettings, *, name: str = "kfp-operator", longest_pause: float = 5.0, on_up: Callable[[], None] = lambda: None
    ) -> None:
        """Take the settings.

        `name`: as NATS' monitoring shows it. `longest_pause`: seconds between two tries to connect. `on_up`: called after each connect.
        """
        self._settings = settings
        self._name = name
        self._longest_pause = longest_pause
        self._on_up = on_up
        self._link: Link | None = None
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._error = "not started"
        self._seen: Exception | None = None
        self._violation = ("", 0.0)
        self.server_version = ""
        """Of the last server seen, as ``2.11.4``."""

    @property
    def connected(self) -> bool:
        """Whether a server is connected now."""
        return self._link is not None and self._link.client.is_connected

    @property
    def last_error(self) -> str:
        """Why there is no connection, or what the server forbade within the last minute; empty when all is well."""
        return self._forbidden() if self.connected else self._error

    async def __aenter__(self) -> Self:
        self._error = "connecting"
        self._task = asyncio.create_task(self._keep(), name="nats-connection")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            while not self._task.done():  # while it connects, nats-py may swallow a cancellation and go on
                self._task.cancel()
                await asyncio.wait({self._task}, timeout=_CANCEL_AGAIN)
            self._task = None
        self._error = "closed"

    async def wait_connected(self) -> None:
        """Return when a server is connected, however long it takes."""
        while not self.connected:
            self._up.clear()
            await self._up.wait()

    def link(self) -> Link:
        """The present connection; BusUnavailable when there is none."""
        if self._link is None or not self._link.client.is_connected:
            raise BusUnavailable(f"NATS is away: {self._error}")
        return self._link

    async def request(self, subject: str, payload: bytes = b"", headers: dict[str, str] | None = None) -> Msg:
        """Send and wait for the answer, at most `REQUEST_TIMEOUT` seconds.

        Raises NoResponders; BusUnavailable when no answer came (it may have been acted upon); BusError for what can never be sent.
        """
        link = self.link()
        size = len(payload) + sum(len(name) + len(value.encode()) + _HEADER_OVERHEAD for name, value in (headers or {}).items())
        if size > link.client.max_payload:
            raise BusError(f"{subject}: {size} bytes are more than the server's max_payload of {link.client.max_payload}")
        answer = asyncio.ensure_future(link.client.request(subject, payload, timeout=REQUEST_TIMEOUT, headers=headers))
        try:
            waiting: set[asyncio.Future[Any]] = {answer, link.closed}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise BusUnavailable(f"{subject}: the connection was lost before an answer came")
            with self._translated(subject):
                return answer.result()
        finally:
            answer.cancel()

    async def send(self, subject: str, payload: bytes) -> bool:
        """Send without waiting for anything; False when there is no connection."""
        try:
            await self.link().client.publish(subject, payload)
        except (BusUnavailable, nats.errors.Error, OSError):
            return False
        return True

    async def subscribe(self, link: Link, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Listen on one connection: nothing is carried over to the next."""
        with self._translated(subject):
            return await link.client.subscribe(subject, cb=callback, pending_bytes_limit=0)

    async def unsubscribe(self, link: Link, subscription: Subscription) -> None:
        """Stop listening; a connection that ended has stopped already."""
        if link.client.is_connected:
            with contextlib.suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()

    async def ask(self, link: Link, subject: str, payload: bytes, reply: str) -> None:
        """Send on one connection a request whose answers come to a subscription on it."""
        with self._translated(subject):
            await link.client.publish(subject, payload, reply=reply)

    @contextlib.contextmanager
    def _translated(self, subject: str) -> Iterator[None]:
        try:
            yield
        except nats.errors.NoRespondersError as error:
            raise NoResponders(f"{subject}: nobody answers there") from error
        except nats.errors.TimeoutError as error:
            hint = f"; the server said: {forbidden}" if (forbidden := self._forbidden()) else ""
            raise BusUnavailable(f"{subject}: no answer within {REQUEST_TIMEOUT:g} s{hint}") from error
        except (nats.errors.BadSubjectError, nats.errors.BadHeaderError, nats.errors.MaxPayloadError) as error:
            raise BusError(f"{subject}: {error}") from error
        except (nats.errors.Error, OSError) as error:
            raise BusUnavailable(f"{subject}: {error or type(error).__name__}") from error

    async def _keep(self) -> None:
        backoff = Backoff(longest=self._longest_pause)
        told = ""
        while True:
            client = Client()
            closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            try:
                await self._connect(client, closed)
                backoff.reset()
                told = ""
                _log.info("connected to NATS %s at %s", self.server_version, _hosts(self._settings.servers))
                await self._watch(Link(client, closed))
                self._error = f"connection lost ({_describe(client.last_error)})" if client.last_error else "connection lost"
                _log.warning("NATS: %s", self._error)
            except Exception as error:  # noqa: BLE001 (a loop that ended would leave the operator without a bus, and nobody would know why)
                self._error = f"cannot connect to {_hosts(self._settings.servers)}: {self._reason(error)}"
                if self._error != told:  # once per cause, not per try
                    _log.warning("NATS: %s", self._error)
                told = self._error
            finally:
                self._link = None
                await _close(client)
            await backoff.pause()

    async def _watch(self, link: Link) -> None:
        """Be connected until it ends."""
        self._link = link
        self._up.set()
        self._on_up()
        try:
            while link.client.is_connected:
                await asyncio.wait({link.closed}, timeout=_LOOK)
                if link.closed.done():
                    break
        finally:
            self._link = None
            if not link.closed.done():
                link.closed.set_result(None)

    async def _connect(self, client: Client, closed: "asyncio.Future[None]") -> None:
        self._violation = ("", 0.0)
        self._seen = None
        settings = self._settings
        tls = await asyncio.to_thread(_tls_context, settings)
        secure = tls is not None or any(server.startswith(("tls://", "wss://")) for server in settings.servers)

        async def on_error(error: Exception) -> None:
            text = str(error)
            if "permissions violation" in text.lower():
                self._violation = (text.removeprefix("nats: "), time.monotonic())
                _log.warning("NATS: %s", self._violation[0])
            self._seen = error

        async def on_closed() -> None:
            if not closed.done():
                closed.set_result(None)

        def secret() -> str:
            _require_tls(client, secure)  # before anything secret is sent
            return _read_secret("nats.passwordFile", settings.password_file) if settings.password_file else ""

        if not settings.servers:
            raise ConfigurationError("nats.servers is empty")
        await asyncio.to_thread(_check_files, settings)
        async with asyncio.timeout(30):
            await client.connect(
                list(settings.servers),
                name=self._name,
                error_cb=on_error,
                closed_cb=on_closed,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=_CONNECT_TIMEOUT,
                ping_interval=10,
                max_outstanding_pings=2,
                tls=tls,
                user=settings.user or None,
                password=secret if settings.user else None,
                user_credentials=str(settings.creds_file) if settings.creds_file else None,
                nkeys_seed=str(settings.nkey_file) if settings.nkey_file else None,
            )
        _require_tls(client, secure)
        version = client.connected_server_version
        self.server_version = f"{version.major}.{version.minor}.{version.patch}"

    def _forbidden(self) -> str:
        """What the server forbade lately: it does not say when that has been mended."""
        text, at = self._violation
        return text if time.monotonic() - at < _VIOLATION_SECONDS else ""

    def _reason(self, error: Exception) -> str:
        if isinstance(error, nats.errors.NoServersError | TimeoutError) and self._seen is not None:
            error = self._seen
        return _describe(error)


def _hosts(servers: list[str]) -> str:
    """The servers without the credentials that an URL may hold."""
    return ", ".join(re.sub(r"^([a-z]+://)?(?:[^/@]*@)?", r"\1", server) for server in servers) or "no server"


def _describe(error: Exception) -> str:
    text = str(error).removeprefix("nats: ").strip("'\"")
    return text or ("no answer" if isinstance(error, TimeoutError) else type(error).__name__)


def _require_tls(client: Client, secure: bool) -> None:
    """Refuse a server without TLS when TLS is configured: nats-py would go on in clear, whoever answered there."""
    if secure and not client._server_info.get("tls_required"):  # noqa: SLF001 (nats-py shows the server's INFO nowhere else)
        raise ssl.SSLError("TLS is configured, but the server does not require it")


def _tls_context(settings: NatsSettings) -> ssl.SSLContext | None:
    tls = settings.tls
    if not (tls.ca_file or tls.cert_file or tls.key_file):
        return None
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"nats.tls.caFile: {tls.ca_file}: {error}") from error
    if bool(tls.cert_file) != bool(tls.key_file):
        raise ConfigurationError("nats.tls: certFile and keyFile go together")
    if tls.cert_file and tls.key_file:
        try:
            context.load_cert_chain(tls.cert_file, tls.key_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"nats.tls.certFile, keyFile: {tls.cert_file}, {tls.key_file}: {error}") from error
    return context


def _read_secret(setting: str, path: Path) -> str:
    try:
        return path.expanduser().read_text().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{setting}: {path}: {error}") from error


def _check_files(settings: NatsSettings) -> None:
    """Read the credentials before nats-py does, which would read a file without a JWT for ever."""
    if settings.creds_file:
        text = _read_secret("nats.credsFile", settings.creds_file)
        if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
            raise ConfigurationError(f"nats.credsFile: {settings.creds_file} does not hold a user JWT and its nkey seed")
    if settings.nkey_file:
        seed = _read_secret("nats.nkeyFile", settings.nkey_file).strip()
        try:
            nkeys.from_seed(bytearray(seed.encode()))
        except (nkeys.NkeysError, ValueError) as error:
            raise ConfigurationError(f"nats.nkeyFile: {settings.nkey_file} does not hold an nkey seed: {_describe(error)}") from error
    if settings.password_file:
        _read_secret("nats.passwordFile", settings.password_file)
        if not settings.user:
            raise ConfigurationError("nats.user is empty, but nats.passwordFile is set")


async def _close(client: Client) -> None:
    # AssertionError: nats-py's answer to closing what never got as far as connecting.
    with contextlib.suppress(OSError, nats.errors.Error, TimeoutError, AssertionError):
        async with asyncio.timeout(2):
            await client.close()
