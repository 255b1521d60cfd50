"""The Bus on a NATS JetStream server.

Speaks the JetStream API itself, in JSON, over `Connection`: what it asks for is what the server's documentation shows, and fields it
does not know pass through untouched. Publishing waits for the PubAck; a durable pull consumer is fed by one pull request after
another, and everything that can end one (the server restarts, the consumer or its stream is deleted, the link dies) only leads to the
next, after a pause, with the consumer made again if need be.
"""

import asyncio
import base64
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self

from nats.aio.msg import Msg

from kfp_operator.errors import BusError, BusUnavailable, StreamMissing, WrongLastSequence
from kfp_operator.events.bus import Cursor, StoredMessage
from kfp_operator.events.connection import Backoff, Connection, Link, NoResponders
from kfp_operator.settings import NatsSettings

_log = logging.getLogger(__name__)

BATCH = 256
MAX_ACK_PENDING = 50_000
_PULL_EXPIRES = 30.0
_HEARTBEAT = 5.0
_PULL_BYTES = 16 * 1024 * 1024
_NANOSECONDS = 1_000_000_000

# nats-server, server/errors.json
_STREAM_NOT_FOUND = 10059
_CONSUMER_NOT_FOUND = 10014
_MESSAGE_NOT_FOUND = 10037
_SEQUENCE_NOT_FOUND = 10043
_WRONG_LAST_SEQUENCE = (10071, 10164)
_OTHER_STREAM = 10060
_TTL_DISABLED = 10166


class ApiError(BusError):
    """The server refused a JetStream request; `err_code` as in nats-server's errors.json."""

    def __init__(self, message: str, *, code: int, err_code: int) -> None:
        super().__init__(message)
        self.code = code
        self.err_code = err_code


class JetStreamBus:
    """JetStream over one connection: a `Bus`.

    ``async with JetStreamBus(settings) as bus`` does not wait for a server.
    """

    def __init__(self, settings: NatsSettings, *, ack_wait: float = 10.0, longest_pause: float = 5.0) -> None:
        """Take the settings.

        `ack_wait`: seconds after which an unsettled message is delivered again. `longest_pause`: seconds between two tries to connect
        or to consume.
        """
        self.attention = asyncio.Event()
        """Set when streams should be looked at: a connection was made, or a stream was found missing."""
        self.connection = Connection(settings, longest_pause=longest_pause, on_up=self.attention.set)
        self._ack_wait = ack_wait
        self._longest_pause = longest_pause
        self._problems: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        await self.connection.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.__aexit__()

    @property
    def connected(self) -> bool:
        """Whether a server is connected now."""
        return self.connection.connected

    @property
    def last_error(self) -> str:
        """Why the bus cannot be used as it should, for readiness; empty when all is well."""
        if not self.connected:
            return self.connection.last_error
        return "; ".join([*self._problems.values(), *filter(None, [self.connection.last_error])])

    @property
    def server_version(self) -> str:
        """Version of the last server seen, or empty."""
        return self.connection.server_version

    async def publish(
        self,
        subject: str,
        data: bytes,
        headers: Mapping[str, str],
        *,
        stream: str = "",
        delivered: bool = False,
        expected_last: int | None = None,
        ttl: float | None = None,
    ) -> int:
        """Store a message and return its sequence (see `Bus`)."""
        sent = dict(headers)
        if stream and not delivered:
            sent["Nats-Expected-Stream"] = stream
        if expected_last is not None:
            sent["Nats-Expected-Last-Subject-Sequence"] = str(expected_last)
        if ttl is not None:
            sent["Nats-TTL"] = str(max(1, round(ttl)))
        try:
            answer = _parse(await self.connection.request(subject, data, sent), subject)
        except NoResponders as error:
            self.attention.set()
            raise StreamMissing(f"no stream stores {subject}, or JetStream is not enabled") from error
        except ApiError as error:
            if error.err_code in _WRONG_LAST_SEQUENCE:
                raise WrongLastSequence(str(error)) from error
            if error.err_code == _OTHER_STREAM:
                self.attention.set()
                raise StreamMissing(f"{subject} is stored by another stream than {stream}") from error
            if error.err_code == _TTL_DISABLED:
                raise BusError(f"{error}: set allow_msg_ttl on the stream (nats-server 2.11 or later)") from error
            raise
        if "seq" not in answer:  # a responder that is no stream, on a subject of ours
            raise BusUnavailable(f"{subject}: the answer is no PubAck; does something else than a stream answer there?")
        if stream and answer.get("stream") != stream:
            self.attention.set()
            raise StreamMissing(f"{subject} is stored by stream {answer.get('stream')}, not by {stream}")
        return int(answer["seq"])

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """The newest message on the subject (see `Bus`); asked of the stream's leader, so what was acknowledged is seen."""
        try:
            answer = await self.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        except ApiError as error:
            if error.err_code == _MESSAGE_NOT_FOUND:
                return None
            raise
        return _stored(stream, answer["message"])

    async def delete(self, stream: str, sequence: int) -> None:
        """Remove one message; fine when it is gone."""
        try:
            await self.api(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})
        except ApiError as error:
            if error.err_code in (_SEQUENCE_NOT_FOUND, _MESSAGE_NOT_FOUND):
                return
            if await self._is_gone(stream, sequence):
                return
            raise

    async def last_sequence(self, stream: str) -> int:
        """The stream's newest sequence, 0 when it never held one."""
        return int((await self.api(f"STREAM.INFO.{stream}"))["state"]["last_seq"])

    async def cursor(self, stream: str, durable: str) -> Cursor | None:
        """How far the consumer got (see `Bus`)."""
        created = str((await self.api(f"STREAM.INFO.{stream}"))["created"])
        try:
            consumer = await self.api(f"CONSUMER.INFO.{stream}.{durable}")
        except ApiError as error:
            if error.err_code == _CONSUMER_NOT_FOUND:
                return None
            raise
        return Cursor(created, int(consumer["ack_floor"]["stream_seq"]))

    async def consume(
        self, stream: str, durable: str, *, subjects: Sequence[str] = (), resume: Callable[[], Cursor | None] | None = None
    ) -> AsyncGenerator["JetStreamDelivery"]:
        """Deliveries of a durable pull consumer, for ever (see `Bus`)."""
        backoff = Backoff(longest=self._longest_pause)
        name = f"{stream}/{durable}"
        try:
            while True:
                await self.connection.wait_connected()
                try:
                    await self._ensure_consumer(stream, durable, subjects, resume)
                    self._problems.pop(name, None)
                    async with contextlib.aclosing(self._pull(stream, durable)) as deliveries:
                        async for delivery in deliveries:
                            backoff.reset()
                            yield delivery
                except BusError as error:
                    self._note(name, f"consumer {durable} of stream {stream}: {error}")
                    if isinstance(error, StreamMissing):
                        self.attention.set()
                await backoff.pause()
        finally:
            self._problems.pop(name, None)

    def _note(self, name: str, problem: str) -> None:
        """Show why a consumer stands still, and log it once; without a connection that is the reason, and is told elsewhere."""
        if self.connected and self._problems.get(name) != problem:
            _log.warning("%s", problem)
            self._problems[name] = problem

    async def api(self, operation: str, document: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask the JetStream API (``STREAM.INFO.<name>`` ...).

        Raises StreamMissing, ApiError for every other refusal, BusUnavailable without an answer.
        """
        payload = json.dumps(document).encode() if document is not None else b""
        try:
            return _parse(await self.connection.request(f"$JS.API.{operation}", payload), operation)
        except NoResponders as error:
            raise BusUnavailable(f"{operation}: JetStream is not enabled on the server, or not for this account") from error

    async def _is_gone(self, stream: str, sequence: int) -> bool:
        try:
            await self.api(f"STREAM.MSG.GET.{stream}", {"seq": sequence})
        except ApiError as error:
            return error.err_code == _MESSAGE_NOT_FOUND
        return False

    async def _ensure_consumer(
        self, stream: str, durable: str, subjects: Sequence[str], resume: Callable[[], Cursor | None] | None
    ) -> None:
        """Make the consumer, or bring it up to date; its position is only ever set when it is made."""
        wanted: dict[str, Any] = {
            "durable_name": durable,
            "name": durable,
            "ack_policy": "explicit",
            "ack_wait": round(self._ack_wait * _NANOSECONDS),
            "max_deliver": -1,
            "max_ack_pending": MAX_ACK_PENDING,
            "replay_policy": "instant",
        }
        if subjects:
            wanted["filter_subjects"] = sorted(subjects)
        try:
            found = (await self.api(f"CONSUMER.INFO.{stream}.{durable}"))["config"]
        except ApiError as error:
            if error.err_code != _CONSUMER_NOT_FOUND:
                raise
            wanted |= await self._position(stream, resume)
            action = "create"
        else:
            if isinstance(one := found.pop("filter_subject", None), str):
                found["filter_subjects"] = [one]
            found["filter_subjects"] = sorted(found.get("filter_subjects", ()))
            wanted.setdefault("filter_subjects", [])
            if all(found.get(key) == value for key, value in wanted.items()):
                return
            wanted = found | wanted
            action = "update"
        await self.api(f"CONSUMER.CREATE.{stream}.{durable}", {"stream_name": stream, "config": wanted, "action": action})

    async def _position(self, stream: str, resume: Callable[[], Cursor | None] | None) -> dict[str, Any]:
        cursor = resume() if resume else None
        if cursor is None or cursor.created != (await self.api(f"STREAM.INFO.{stream}"))["created"]:
            return {"deliver_policy": "all"}
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": cursor.sequence + 1}

    async def _pull(self, stream: str, durable: str) -> AsyncGenerator["JetStreamDelivery"]:
        """Deliveries over the present link; ends by an exception."""
        link = self.connection.link()
        arrived: asyncio.Queue[tuple[float, Msg] | None] = asyncio.Queue()

        async def on_message(message: Msg) -> None:
            arrived.put_nowait((time.monotonic(), message))

        def on_closed(_: object) -> None:
            arrived.put_nowait(None)

        inbox = link.client.new_inbox()
        subscription = await self.connection.subscribe(link, inbox, on_message)
        link.closed.add_done_callback(on_closed)
        try:
            while True:
                await self._ask(link, stream, durable, inbox)
                wanted = BATCH
                while wanted:
                    at, message = await _next(arrived)
                    if (status := _status(message)) is not None:
                        if _ends_pull(status, message):
                            break
                        continue
                    wanted -= 1
                    if time.monotonic() - at < self._ack_wait:  # an older one is on its way again already
                        yield JetStreamDelivery(self.connection, message)
        finally:
            link.closed.remove_done_callback(on_closed)
            await self.connection.unsubscribe(link, subscription)
            while not arrived.empty():
                if (item := arrived.get_nowait()) and _status(item[1]) is None:
                    await self.connection.send(item[1].reply, b"-NAK")  # for whoever consumes next

    async def _ask(self, link: Link, stream: str, durable: str, inbox: str) -> None:
        request = {
            "batch": BATCH,
            "max_bytes": max(_PULL_BYTES, 2 * link.client.max_payload),
            "expires": round(_PULL_EXPIRES * _NANOSECONDS),
            "idle_heartbeat": round(_HEARTBEAT * _NANOSECONDS),
        }
        await self.connection.ask(link, f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}", json.dumps(request).encode(), inbox)


class JetStreamDelivery:
    """A message that a consumer got: a `Delivery`. Settling works over any later connection too."""

    def __init__(self, connection: Connection, message: Msg) -> None:
        metadata = message.metadata
        self._connection = connection
        self._reply = message.reply
        self._deliveries = metadata.num_delivered
        self._message = StoredMessage(
            metadata.stream, metadata.sequence.stream, message.subject, dict(message.headers or {}), message.data, metadata.timestamp
        )

    @property
    def message(self) -> StoredMessage:
        """What was stored."""
        return self._message

    @property
    def deliveries(self) -> int:
        """How often it was delivered, this time included (from 1)."""
        return self._deliveries

    async def ack(self) -> None:
        """Done: never again."""
        await self._settle(b"+ACK")

    async def nak(self, delay: float) -> None:
        """Again, in `delay` seconds."""
        await self._settle(b"-NAK " + json.dumps({"delay": round(delay * _NANOSECONDS)}).encode())

    async def in_progress(self) -> None:
        """Still being worked on: start ack_wait anew."""
        await self._settle(b"+WPI")

    async def term(self, reason: str) -> None:
        """Can never be understood: never again, and say why (in the server's advisory)."""
        await self._settle(b"+TERM " + " ".join(reason.split())[:200].encode("utf-8", "replace"))

    async def _settle(self, word: bytes) -> None:
        if not await self._connection.send(self._reply, word):
            _log.debug("NATS is away: message %d of %s will come again", self._message.sequence, self._message.stream)


async def _next(arrived: "asyncio.Queue[tuple[float, Msg] | None]") -> tuple[float, Msg]:
    """The next message or status; BusUnavailable when the link ended or the consumer fell silent."""
    if arrived.empty():
        try:
            async with asyncio.timeout(2 * _HEARTBEAT + 1):
                item = await arrived.get()
        except TimeoutError as error:
            raise BusUnavailable("two heartbeats of the consumer were missed") from error
    else:
        item = arrived.get_nowait()
    if item is None:
        raise BusUnavailable("the connection was lost")
    return item


def _status(message: Msg) -> str | None:
    """The status code of a message from the server itself, None for a stored message (whatever headers that has)."""
    return None if message.reply.startswith("$JS.ACK.") else (message.headers or {}).get("Status", "")


def _ends_pull(status: str, message: Msg) -> bool:
    """Whether the pull request is over; raises when there is no consumer to ask again."""
    description = (message.headers or {}).get("Description", "")
    match status:
        case "100":
            return False
        case "404" | "408":
            return True
        case "409" if description.lower().startswith(("message size exceeds maxbytes", "batch completed")):
            return True
        case "503":
            raise BusUnavailable("nobody answers: it was deleted, or has no leader")
        case _:
            raise BusUnavailable(description or f"status {status!r}")


def _parse(message: Msg, what: str) -> dict[str, Any]:
    try:
        answer = json.loads(message.data)
    except ValueError as error:
        raise BusUnavailable(f"{what}: the answer is not JSON") from error
    if not isinstance(answer, dict):
        raise BusUnavailable(f"{what}: the answer is not a JSON object")
    if isinstance(refusal := answer.get("error"), dict):
        code, err_code = int(refusal.get("code", 0)), int(refusal.get("err_code", 0))
        text = f"{what}: {refusal.get('description', 'refused')} (NATS error {err_code or code})"
        if err_code == _STREAM_NOT_FOUND:
            raise StreamMissing(text)
        raise ApiError(text, code=code, err_code=err_code)
    return answer


def _stored(stream: str, message: Mapping[str, Any]) -> StoredMessage:
    headers: dict[str, str] = {}
    for line in base64.b64decode(message.get("hdrs") or "").split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            headers[name.strip().decode("ascii", "replace")] = value.strip().decode("utf-8", "replace")
    data = base64.b64decode(message.get("data") or "")
    return StoredMessage(stream, int(message["seq"]), str(message["subject"]), headers, data, parse_time(str(message["time"])))


def parse_time(text: str) -> datetime:
    """A time as Go writes it, with up to nine decimals."""
    return datetime.fromisoformat(text).astimezone(UTC)
