"""Following a stream as a reader who leaves no trace: an ephemeral push consumer without acks, made again wherever reading broke off.

The consumer delivers on an inbox of this connection, so nobody else gets these messages and none are taken from anyone. What arrives is
counted by the server: after a gap, a missed heartbeat, a lost connection or a deleted stream, the consumer is made anew behind the last
message that was handed on.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from nats.aio.msg import Msg

from kfp_operator.errors import BusError, BusUnavailable, ConfigurationError, StreamMissing
from kfp_operator.events.binding import rfc3339
from kfp_operator.events.bus import Cursor, StoredMessage
from kfp_operator.events.connection import Backoff
from kfp_operator.events.jetstream import JetStreamBus
from kfp_operator.settings import NatsSettings, Settings

CONNECT_WITHIN = 5.0
"""Seconds for the first connection; later ones are waited for without end."""
_HEARTBEAT = 2.0
_INACTIVE = 30.0  # seconds after which the server forgets a consumer whose reader vanished
_NANOSECONDS = 1_000_000_000

Start = Literal["new", "all"] | datetime
"""Where to begin: with what is stored from now on, with everything, or with what was stored since."""


@dataclass(frozen=True, slots=True)
class Interruption:
    """Nothing comes for the moment; it goes on by itself."""

    message: str


def servers(settings: Settings) -> NatsSettings:
    """How to reach NATS: as set, else the private server of an operator on this machine.

    Raises ConfigurationError that says what to set.
    """
    if settings.nats.servers:
        return settings.nats
    file = private_server_file(settings)
    try:
        url = file.read_text().strip()
    except FileNotFoundError:
        raise ConfigurationError(
            "no NATS server is known: give --nats URL, or set nats.servers (KFPOP_NATS__SERVERS); "
            f"no operator with a private server runs on this machine either (there is no {file})"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"cannot read the address of the private NATS server: {error}") from error
    return settings.nats.model_copy(update={"servers": [url]})


def private_server_file(settings: Settings) -> Path:
    """Where an operator writes the URL of its private server."""
    return settings.state_dir.expanduser() / "nats" / "url"


async def connected(bus: JetStreamBus, within: float = CONNECT_WITHIN) -> None:
    """Wait for the first connection. BusUnavailable says why there is none."""
    try:
        async with asyncio.timeout(within):
            await bus.connection.wait_connected()
    except TimeoutError as error:
        raise BusUnavailable(f"NATS: {bus.last_error}") from error


async def follow(bus: JetStreamBus, stream: str, subjects: Sequence[str], start: Start) -> AsyncGenerator[StoredMessage | Interruption]:
    """Messages of the stream on these subjects, in order, each once; for ever, over outages of any kind."""
    reader = _Reader(bus, stream, subjects, start)
    backoff = Backoff(first=0.2)
    told = ""
    while True:
        try:
            if not bus.connected:
                raise BusUnavailable(f"NATS: {bus.last_error}")
            async with aclosing(reader.read()) as messages:
                async for message in messages:
                    told = ""
                    backoff.reset()
                    yield message
        except BusError as error:
            text = f"stream {stream} does not exist: the operator makes it" if isinstance(error, StreamMissing) else str(error)
            if text != told:
                yield Interruption(text)
            told = text
        await backoff.pause()


class _Reader:
    def __init__(self, bus: JetStreamBus, stream: str, subjects: Sequence[str], start: Start) -> None:
        self._bus = bus
        self._stream = stream
        self._subjects = list(subjects)
        self._start = start
        self._last: Cursor | None = None

    async def read(self) -> AsyncGenerator[StoredMessage]:
        """Messages over the present connection; ends by BusError."""
        info = await self._bus.api(f"STREAM.INFO.{self._stream}")
        created = str(info["created"])
        if self._last is None and self._start == "new":
            self._last = Cursor(created, int(info["state"]["last_seq"]))
        elif self._last is not None and self._last.created != created:
            self._last = Cursor(created, 0)
        arrived: asyncio.Queue[Msg | None] = asyncio.Queue()
        link = self._bus.connection.link()
        inbox = link.client.new_inbox()

        async def on_message(message: Msg) -> None:
            arrived.put_nowait(message)

        def on_closed(_: object) -> None:
            arrived.put_nowait(None)

        subscription = await self._bus.connection.subscribe(link, inbox, on_message)
        link.closed.add_done_callback(on_closed)
        try:
            consumer = await self._bus.api(f"CONSUMER.CREATE.{self._stream}", {"stream_name": self._stream, "config": self._config(inbox)})
            expected = 1
            while True:
                message = await _next(arrived)
                if not (message.reply or "").startswith("$JS.ACK."):
                    if message.reply:  # flow control: the server waits for an answer
                        await self._bus.connection.send(message.reply, b"")
                    continue
                metadata = message.metadata
                if metadata.sequence.consumer != expected:
                    raise BusUnavailable(f"messages were lost on the way: reading again from there (consumer {consumer['name']})")
                expected += 1
                self._last = Cursor(created, metadata.sequence.stream)
                headers = dict(message.headers or {})
                yield StoredMessage(self._stream, metadata.sequence.stream, message.subject, headers, message.data, metadata.timestamp)
        finally:
            link.closed.remove_done_callback(on_closed)
            await self._bus.connection.unsubscribe(link, subscription)

    def _config(self, inbox: str) -> dict[str, Any]:
        config: dict[str, Any] = {
            "deliver_subject": inbox,
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": True,
            "idle_heartbeat": round(_HEARTBEAT * _NANOSECONDS),
            "inactive_threshold": round(_INACTIVE * _NANOSECONDS),
            "mem_storage": True,
            "num_replicas": 1,
            "filter_subjects": self._subjects,
        }
        if self._last is not None:
            return config | {"deliver_policy": "by_start_sequence", "opt_start_seq": self._last.sequence + 1}
        if isinstance(self._start, datetime):
            return config | {"deliver_policy": "by_start_time", "opt_start_time": rfc3339(self._start)}
        return config | {"deliver_policy": "all"}


async def _next(arrived: "asyncio.Queue[Msg | None]") -> Msg:
    try:
        async with asyncio.timeout(2 * _HEARTBEAT + 1):
            message = await arrived.get()
    except TimeoutError as error:
        raise BusUnavailable("two heartbeats of the consumer were missed") from error
    if message is None:
        raise BusUnavailable("the connection was lost")
    return message
