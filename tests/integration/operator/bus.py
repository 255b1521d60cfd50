"""Reads the streams of the operator with nothing but nats-py."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import nats
from nats.aio.client import Client
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

T = TypeVar("T")


@dataclass(frozen=True)
class Reader:
    """The events on a NATS server."""

    url: str

    def events(self, stream: str = "runs") -> list[dict[str, Any]]:
        """Every CloudEvent in a stream, in order, with its NATS subject under "nats"; what is none is passed over."""
        found = []
        for message in self.messages(stream):
            with suppress(ValueError):
                document = json.loads(message.data or b"{}")
                if isinstance(document, dict) and "specversion" in document:
                    found.append(document | {"nats": message.subject})
        return found

    def messages(self, stream: str = "runs") -> list[RawStreamMsg]:
        """Every message in a stream, in order."""

        async def read(client: Client) -> list[RawStreamMsg]:
            js = client.jetstream()
            try:
                info = await js.stream_info(f"kfp-operator-{stream}")
            except NotFoundError:
                return []
            found = []
            for sequence in range(max(info.state.first_seq, 1), info.state.last_seq + 1):
                try:
                    found.append(await js.get_msg(f"kfp-operator-{stream}", seq=sequence))
                except NotFoundError:
                    continue
            return found

        return self._do(read)

    def completions(self, run: str = "") -> list[dict[str, Any]]:
        """Data of all run-completion events, of one Run ("ns/name") if named."""
        found = [e["data"] for e in self.events() if e["type"].endswith("run-completion")]
        return [d for d in found if not run or d["runName"] == run]

    def states(self, uid: str) -> list[str]:
        """States that were told of a Run."""
        return [e["data"]["state"] for e in self.events() if e["type"].endswith("run-status") and e["data"]["runUid"] == uid]

    def unsettled(self) -> int:
        """Events that the projector has not acknowledged."""

        async def look(client: Client) -> int:
            info = await client.jetstream().consumer_info("kfp-operator-runs", "projector")
            return int(info.num_pending or 0) + int(info.num_ack_pending or 0)

        return self._do(look)

    def do(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Do something with a connected client."""
        return self._do(work)

    def once_each(self) -> None:
        """Assert that no Run's completion is stored twice."""
        counts = Counter(d["runUid"] for d in self.completions())
        assert all(n == 1 for n in counts.values()), counts

    def _do(self, work: Callable[[Client], Awaitable[T]]) -> T:
        async def connected() -> T:
            client = await nats.connect(self.url)
            try:
                return await work(client)
            finally:
                await client.close()

        return asyncio.run(connected())
