"""Events from outside over HTTP: ``POST /v1/events`` takes CloudEvents, ``POST /hooks/<namespace>/<connection>`` native webhooks.

Every process serves it, leader or not: nothing is kept here. Who sends is found out first, then whether they may, then what they say; an
answer 202 means that all events of the request are stored. While NATS is away it is 503, and whoever sends again later loses nothing and
repeats nothing, because an event is stored once. Answers of errors are problem details (RFC 9457).

Neither tokens nor payloads are ever logged.
"""

import asyncio
import json
import logging
import math
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError

from kfp_operator.errors import BusError, ConfigurationError, EventError, EventRefused
from kfp_operator.events import http_binding, inbound
from kfp_operator.events.bus import Bus
from kfp_operator.events.inbound import Inbound, Stored, TooLarge
from kfp_operator.events.senders import Senders, Token, burst
from kfp_operator.events.subjects import Subjects
from kfp_operator.events.webhooks.connection import Connection, Delivery
from kfp_operator.events.webhooks.signatures import NotAuthentic
from kfp_operator.operator.health import Check
from kfp_operator.operator.inbound_listener import Budget, Certificate, Limits, listening
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.ports import Now
from kfp_operator.operator.rate_limit import RateLimit
from kfp_operator.operator.senders_file import SendersFile
from kfp_operator.settings import InboundSettings

log = logging.getLogger(__name__)

RETRY_AFTER = 5
"""Seconds after which to send again what could not be stored."""
AT_ONCE = 32
"""Events of one request that are on their way to NATS at the same time."""
TELL_AGAIN = 60.0
"""Seconds in which the log says one and the same thing about a sender once."""


class Problem(Exception):
    """The answer to a request that is not accepted."""

    def __init__(self, status: HTTPStatus, detail: str, *, headers: Mapping[str, str] | None = None, unread: bool = False) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.unread = unread
        """Whether the body, or a part of it, was not read: then the connection is closed."""


@dataclass(slots=True)
class _Accepted:
    """What a request comes down to."""

    sender: str
    events: Sequence[Inbound]
    ignored: Sequence[str] = field(default_factory=list)


_Take = Callable[[web.Request, AsyncExitStack], Awaitable[_Accepted]]


class InboundServer:
    """The port for events from outside; nothing unless `settings` name one."""

    def __init__(
        self,
        settings: InboundSettings,
        *,
        bus: Bus,
        subjects: Subjects,
        metrics: Metrics,
        now: Now,
        clock: Callable[[], float] = time.monotonic,
        limits: Limits | None = None,
    ) -> None:
        """Take the settings. `clock`: seconds that only go forward."""
        self._settings = settings
        self._bus = bus
        self._subjects = subjects
        self._metrics = metrics
        self._now = now
        self._clock = clock
        self._limits = limits or Limits()
        self._rates = RateLimit(clock)
        self._trusted, self._strangers = Budget(self._limits.budget), Budget(self._limits.budget)
        self._told: dict[str, float] = {}
        self._file: SendersFile | None = None
        self._certificate: Certificate | None = None
        self.port: int | None = None
        """The port in use; None: none is."""

    @asynccontextmanager
    async def serving(self, host: str | None = None) -> AsyncIterator[None]:
        """Serve for the time of the context. ConfigurationError when port, senders or certificate cannot be used."""
        if self._settings.port is None:
            yield
            return
        if self._settings.tokens_file is None:
            raise ConfigurationError("inbound.tokensFile is not set: it says who may send events")
        self._file = SendersFile(self._settings.tokens_file, changed=self._on_senders)
        self._file.read()
        tls = self._settings.tls
        self._certificate = Certificate(tls) if tls.cert_file is not None or tls.key_file is not None else None
        context = self._certificate.context if self._certificate is not None else None
        app = web.Application()
        app.add_routes([web.post("/v1/events", self._events), web.post("/hooks/{namespace}/{name}", self._hook)])
        following = [asyncio.create_task(one.follow(self._limits.look_every)) for one in (self._file, self._certificate) if one is not None]
        try:
            async with listening(app, self._settings.port, self._limits, host=host, tls=context) as self.port:
                log.info("events from outside are taken on port %d: %s", self.port, self._file.describe())
                yield
        finally:
            self.port = None
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)

    def checks(self) -> dict[str, Check]:
        """For readiness: where events are taken, and what is wrong with the files; nothing of it makes this process unready."""
        if self.port is None or self._file is None:
            return {}
        problems = [self._file.problem, self._certificate.problem if self._certificate is not None else ""]
        told = [f"port {self.port}{'' if self._certificate is None else ' with TLS'}, {self._file.describe()}", *filter(None, problems)]
        return {"inbound": Check(True, "; ".join(told))}

    def _on_senders(self, senders: Senders) -> None:
        self._rates.keep([*(f"token {token.name}" for token in senders.tokens), *senders.connections])
        self._told.clear()

    @property
    def _senders(self) -> Senders:
        return self._file.current if self._file is not None else Senders()

    # The two ways in

    async def _events(self, request: web.Request) -> web.Response:
        return await self._answer(request, "events", self._take_events)

    async def _hook(self, request: web.Request) -> web.Response:
        return await self._answer(request, "hooks", self._take_delivery)

    async def _take_events(self, request: web.Request, held: AsyncExitStack) -> _Accepted:
        token = self._token(request)
        sender, namespace = f"token {token.name}", _namespace(request, token)
        self._limit(sender, 1, token.events_per_second)
        body = await held.enter_async_context(self._body(request, self._limits.events_body, self._trusted))
        try:
            events = http_binding.decode(request.headers.items(), body)
        except http_binding.UnsupportedMedia as error:
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, str(error)) from error
        except EventError as error:
            raise Problem(HTTPStatus.BAD_REQUEST, str(error)) from error
        accepted = []
        for number, event in enumerate(events):
            where = f"event [{number}] of the batch: " if len(events) > 1 else ""
            try:
                accepted.append(inbound.admit(event, namespace))
            except EventRefused as error:
                self._count(sender, "refused", len(events))
                raise _refusal(error, where) from error
            if (kind := accepted[-1].data.kind) not in token.kinds:
                self._count(sender, "refused", len(events))
                raise Problem(HTTPStatus.FORBIDDEN, f"{where}token {token.name} may not send {kind}")
        self._limit(sender, max(0, len(events) - 1), token.events_per_second)
        return _Accepted(sender, accepted)

    async def _take_delivery(self, request: web.Request, held: AsyncExitStack) -> _Accepted:
        path = f"/hooks/{request.match_info['namespace']}/{request.match_info['name']}"
        connection = self._senders.connections.get(path)
        if connection is None:
            raise _unknown("there is no connection of that name, or its secret is another one")
        secrets = self._senders.secrets[path]
        headers = {name.lower(): value for name, value in reversed(list(request.headers.items()))}  # of several the first
        delivery = Delivery(headers, b"", self._now())
        if not connection.signs_body:
            self._authenticate(connection, delivery, secrets)
        budget = self._strangers if connection.signs_body else self._trusted
        body = await held.enter_async_context(self._body(request, self._limits.hook_body, budget))
        delivery = Delivery(headers, body, delivery.received)
        if connection.signs_body:
            self._authenticate(connection, delivery, secrets)
        self._limit(path, 1, connection.events_per_second)
        try:
            reading = connection.events(delivery)
        except EventError as error:
            self._count(path, "refused", 1)
            raise Problem(HTTPStatus.BAD_REQUEST, str(error)) from error
        self._count(path, "ignored", len(reading.ignored))
        return _Accepted(path, reading.events, reading.ignored)

    # What both need

    async def _answer(self, request: web.Request, route: str, take: _Take) -> web.Response:
        try:
            async with AsyncExitStack() as held:
                accepted = await take(request, held)
                stored = await self._store(accepted)
            response = _response(HTTPStatus.ACCEPTED, _describe(accepted, stored))
        except Problem as problem:
            document = {"title": problem.status.phrase, "status": int(problem.status), "detail": problem.detail}
            response = _response(problem.status, document, "application/problem+json", problem.headers)
            if problem.unread:
                response.force_close()
        except Exception as error:  # noqa: BLE001 -- the last resort: its message may hold what was sent, so only its type is told
            where = "".join(traceback.format_tb(error.__traceback__))
            log.warning("events from outside (%s): %s; please report this\n%s", route, type(error).__name__, where)
            response = _response(HTTPStatus.INTERNAL_SERVER_ERROR, {"title": "Internal Server Error", "status": 500})
        self._metrics.inbound_requests.labels(route=route, code=str(response.status)).inc()
        return response

    def _token(self, request: web.Request) -> Token:
        scheme, _, presented = request.headers.get("Authorization", "").strip().partition(" ")
        if scheme.lower() != "bearer" or not presented.strip():
            raise _unknown("send a token: Authorization: Bearer TOKEN")
        token = self._senders.token(presented.strip())
        if token is None:
            raise _unknown("the token is not known")
        return token

    def _authenticate(self, connection: Connection, delivery: Delivery, secrets: Sequence[str]) -> None:
        try:
            connection.authenticate(delivery, secrets)
        except NotAuthentic as error:
            self._tell(connection.path, str(error))
            raise _unknown("there is no connection of that name, or its secret is another one") from error

    def _tell(self, sender: str, why: str) -> None:
        """Log why a webhook was refused, which its sender does not tell anybody; a stranger must not fill the log."""
        if self._clock() - self._told.get(sender, -math.inf) >= TELL_AGAIN:
            self._told[sender] = self._clock()
            log.warning("%s: a delivery was refused: %s", sender, why)

    def _limit(self, sender: str, count: int, per_second: float) -> None:
        wait = self._rates.take(sender, count, per_second=per_second, burst=burst(per_second))
        if wait > 0:
            detail = f"more than {per_second:g} events per second (eventsPerSecond)"
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, detail, headers=_retry(wait), unread=True)

    @asynccontextmanager
    async def _body(self, request: web.Request, limit: int, budget: Budget) -> AsyncIterator[bytes]:
        """The body; its memory counts until the end of the context, which is that of what is made of it."""
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content-encoding is not supported: send the body as it is", unread=True)
        if (request.content_length or 0) > limit:
            raise _too_large(limit)
        parts, taken = list[bytes](), 0
        try:
            try:
                async with asyncio.timeout(self._limits.body_within):
                    async for part in request.content.iter_any():
                        if taken + len(part) > limit:
                            raise _too_large(limit)
                        if not budget.take(len(part)):
                            detail = "too many requests at once"
                            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers=_retry(RETRY_AFTER), unread=True)
                        parts.append(part)
                        taken += len(part)
            except TimeoutError as error:
                detail = f"the body did not come within {self._limits.body_within:g} s"
                raise Problem(HTTPStatus.REQUEST_TIMEOUT, detail, unread=True) from error
            except (OSError, HttpProcessingError, web.RequestPayloadError) as error:
                raise Problem(HTTPStatus.BAD_REQUEST, "the body broke off", unread=True) from error
            yield b"".join(parts)
        finally:
            budget.give_back(taken)

    async def _store(self, accepted: _Accepted) -> list[Stored]:
        gate = asyncio.Semaphore(AT_ONCE)

        async def store(event: Inbound) -> Stored | BusError:
            async with gate:
                try:
                    return await inbound.store(self._bus, self._subjects, event)
                except BusError as error:
                    return error

        results = await asyncio.gather(*(store(event) for event in accepted.events))
        stored = [one for one in results if isinstance(one, Stored)]
        already = sum(one.already for one in stored)
        self._count(accepted.sender, "stored", len(stored) - already)
        self._count(accepted.sender, "duplicate", already)
        failed = next((one for one in results if isinstance(one, BusError)), None)
        if failed is not None:
            self._count(accepted.sender, "unavailable", len(results) - len(stored))
            self._tell("NATS", f"it cannot be stored: {failed}")
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "events cannot be stored now; send the same again later: what is stored already is not stored twice",
                headers=_retry(RETRY_AFTER),
            )
        return stored

    def _count(self, sender: str, result: str, count: int) -> None:
        if count:
            self._metrics.inbound_events.labels(sender=sender, result=result).inc(count)


def _namespace(request: web.Request, token: Token) -> str:
    """The namespace of the events: that of the token, or the one of several that the request asks for."""
    asked = request.query.get("namespace", "")
    if not asked and not token.only_namespace:
        raise Problem(
            HTTPStatus.BAD_REQUEST, f"token {token.name} is good for several namespaces: say which one, as ?namespace=NAME", unread=True
        )
    if asked and not token.permits(asked):
        raise Problem(HTTPStatus.FORBIDDEN, f"token {token.name} may not send events for namespace {asked[:100]!r}", unread=True)
    return asked or token.only_namespace


def _refusal(error: EventRefused, where: str) -> Problem:
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if isinstance(error, TooLarge) else HTTPStatus.UNPROCESSABLE_ENTITY
    return Problem(status, f"{where}{error}")


def _unknown(detail: str) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": 'Bearer realm="kfp-operator"'}, unread=True)


def _too_large(limit: int) -> Problem:
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {limit} bytes", unread=True)


def _retry(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(math.ceil(seconds))}


def _describe(accepted: _Accepted, stored: Sequence[Stored]) -> dict[str, Any]:
    """What became of a request, for its sender. Reasons are counted: a registry tells of a hundred layers in one request."""
    events = [
        {"id": event.id, "source": event.source, "subject": one.subject, "duplicate": one.already}
        for event, one in zip(accepted.events, stored, strict=True)
    ]
    ignored = [{"reason": reason, "count": count} for reason, count in Counter(accepted.ignored).most_common(10)]
    return {"events": events, "ignored": ignored}


def _response(
    status: HTTPStatus, document: Mapping[str, Any], media: str = "application/json", headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(body=json.dumps(document).encode() + b"\n", status=status, content_type=media, headers=headers)
