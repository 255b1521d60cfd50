"""A subscriber who knows nothing of the operator but a subject: plain core NATS, nothing acknowledged, everything kept as it came."""

import asyncio
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import nats
from nats.aio.msg import Msg

_CONNECT_WITHIN = 10.0


@dataclass(frozen=True)
class Received:
    """A message: the subject it was stored under, its headers, its bytes."""

    subject: str
    headers: Mapping[str, str]
    body: bytes

    def document(self) -> dict[str, Any]:
        """The body as JSON."""
        document: dict[str, Any] = json.loads(self.body)
        return document


class Outsider:
    """Listens from ``start`` to ``close``, in a thread of its own."""

    def __init__(self, url: str, subject: str) -> None:
        self._url = url
        self._subject = subject
        self._received: list[Received] = []
        self._listening = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._listen(),), name="outsider", daemon=True)

    def start(self) -> Self:
        """Subscribe; TimeoutError when the server does not answer."""
        self._thread.start()
        if not self._listening.wait(_CONNECT_WITHIN):
            raise TimeoutError(f"{self._url} did not take a subscription within {_CONNECT_WITHIN:g} s")
        return self

    def received(self) -> list[Received]:
        """What came, in order."""
        return list(self._received)

    def close(self) -> None:
        """Leave."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_CONNECT_WITHIN)

    async def _listen(self) -> None:
        client = await nats.connect(self._url, name="demo-outsider")
        await client.subscribe(self._subject, cb=self._take)
        await client.flush()
        self._listening.set()
        await self._stop.wait()
        await client.close()

    async def _take(self, message: Msg) -> None:
        self._received.append(Received(message.subject, dict(message.headers or {}), message.data))
