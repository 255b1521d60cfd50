"""The port for events from outside, served over a real socket with a bus in memory, and what people send to it."""

import hashlib
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from kfp_operator.events import binding
from kfp_operator.events.subjects import Subjects
from kfp_operator.operator.inbound_listener import Limits
from kfp_operator.operator.inbound_server import InboundServer
from kfp_operator.operator.metrics import Metrics
from kfp_operator.settings import InboundSettings
from tests.doubles.bus import MemoryBus
from tests.doubles.deliveries import NOW

SUBJECTS = Subjects()
TOKENS = {"team": "token-of-team-a", "many": "token-of-many", "alerts": "token-for-alerts", "slow": "token-that-is-slow"}


def senders() -> dict[str, Any]:
    def token(name: str, **changes: Any) -> dict[str, Any]:
        return {"name": name, "sha256": hashlib.sha256(TOKENS[name].encode()).hexdigest(), "namespaces": ["team-a"]} | changes

    def hook(type_: str, **changes: Any) -> dict[str, Any]:
        return {"namespace": "team-a", "name": type_, "type": type_, "secretEnv": "SECRET"} | changes

    return {
        "tokens": [
            token("team"),
            token("many", namespaces=["team-a", "team-b"]),
            token("alerts", kinds=["alert_info"]),
            token("slow", eventsPerSecond=0.5),
        ],
        "connections": [
            hook("github"),
            hook("gitlab"),
            hook("oci-registry"),
            hook("alertmanager"),
            hook("github", name="slow", eventsPerSecond=0.5),
        ],
    }


@dataclass
class Answer:
    status: int
    document: Any
    headers: Mapping[str, str]

    @property
    def detail(self) -> str:
        assert self.headers["Content-Type"] == "application/problem+json"
        return str(self.document["detail"])


class Port:
    """A server with a bus in memory, and a client of it."""

    def __init__(self, folder: Path, *, limits: Mapping[str, Any] | None = None, **settings: Any) -> None:
        file = folder / "senders.yaml"
        file.write_text(yaml.safe_dump(senders()))
        self.bus = MemoryBus(SUBJECTS)
        self.metrics = Metrics()
        self.seconds = 0.0
        self.limits = Limits(**{"look_every": 0.05} | dict(limits or {}))
        self.server = InboundServer(
            InboundSettings(port=0, tokens_file=file, **settings),
            bus=self.bus,
            subjects=SUBJECTS,
            metrics=self.metrics,
            now=lambda: NOW,
            clock=lambda: self.seconds,
            limits=self.limits,
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Port"]:
        async with self.server.serving("127.0.0.1"), aiohttp.ClientSession() as self.client:
            yield self

    async def post(self, path: str, body: object, headers: Mapping[str, str]) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.server.port}{path}"
        async with self.client.post(url, data=io.BytesIO(data), headers=headers) as response:
            text = await response.text()
            return Answer(response.status, json.loads(text) if "json" in response.content_type else text, response.headers)

    async def event(self, body: object, sender: str = "team", query: str = "", **headers: str) -> Answer:
        """Send a structured event, or what there is instead."""
        given = {"Authorization": f"Bearer {TOKENS.get(sender, sender)}", "Content-Type": binding.STRUCTURED_TYPE} | headers
        return await self.post(f"/v1/events{query}", body, given)

    def stored(self) -> list[str]:
        return [message.subject for message in self.bus.messages("events.inbound.>")]

    def counted(self, sender: str, result: str) -> float:
        return self.metrics.registry.get_sample_value("kfp_operator_inbound_events_total", {"sender": sender, "result": result}) or 0.0


def event(**changes: Any) -> dict[str, Any]:
    """A CloudEvent about a data set, in JSON."""
    data = {"ref": "connections.penguins", "kind": "connection_dataset_version", "version": "1"}
    return {"specversion": "1.0", "id": "7", "source": "/lake", "type": "org.kubeflow.pipelines.event", "data": data} | changes
