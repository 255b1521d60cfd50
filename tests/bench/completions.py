"""Completions projected into status per second, beside raw patches of the same bodies by the same client."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from kfp_operator.api.run import Run
from kfp_operator.events import publisher
from kfp_operator.events.bus import Cursor
from kfp_operator.events.jetstream import JetStreamBus
from kfp_operator.events.streams import Streams
from kfp_operator.events.subjects import Kind, Subjects
from kfp_operator.operator.client import Cluster as Client
from kfp_operator.operator.credentials import load_credentials
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.objects import ClusterObjects
from kfp_operator.operator.outbox import Outbox
from kfp_operator.operator.ports import utc_now
from kfp_operator.operator.projector import AT_ONCE, DURABLE, AsyncioTimers, Projector
from kfp_operator.operator.store import Key, Store
from kfp_operator.settings import EventsSettings, NatsSettings
from tests.bench import load
from tests.bench.report import Figure
from tests.cluster import Cluster, NatsServer, Progress
from tests.doubles.world import unrecorded
from tests.integration.operator.harness import Operator
from tests.waiting import eventually

_WITHIN = 300.0
_TURNS = 3  # a machine has other things to do now and then
_NAMESPACE = "completing"


async def completions(cluster: Cluster, nats: NatsServer, folder: Path, count: int, progress: Progress) -> list[Figure]:
    """Raw patches and the projector alone, in turns, of which the best counts; then a whole operator: `count` completions each time."""
    cluster.kubectl("create", "namespace", _NAMESPACE)
    subjects = Subjects("events")
    async with Client(await load_credentials(cluster.kubeconfig)) as client, JetStreamBus(NatsSettings(servers=[nats.url])) as bus:
        await bus.connection.wait_connected()
        await Streams(bus, subjects, EventsSettings()).ensure()
        raw = projected = 0.0
        for turn in range(_TURNS):
            patched = await _raw(client, await _running(client, f"raw-{turn}", count, progress))
            read = await _projected(client, bus, subjects, await _running(client, f"alone-{turn}", count, progress))
            progress.say(f"raw: {patched:.0f}/s, projected: {read:.0f}/s")
            raw, projected = max(raw, patched), max(projected, read)
            await bus.api(f"CONSUMER.DELETE.{subjects.stream('runs')}.{DURABLE}")
        progress.say("the same with a whole operator")
        settled = await _settled(cluster, nats, folder, bus, subjects, await _running(client, "whole", count, progress))
    return [
        Figure(f"raw patches of status, {AT_ONCE} in flight", f"{raw:.0f}/s"),
        Figure(
            "completions projected: read, patched, documented copy stored, acknowledged",
            f"{projected:.0f}/s, {projected / raw:.0%} of raw",
            "60 % of raw",
            projected >= 0.6 * raw,
        ),
        Figure(
            "the same in a whole operator, which also releases each Run (a second patch)", f"{settled:.0f}/s, {settled / raw:.0%} of raw"
        ),
    ]


async def _running(client: Client, prefix: str, count: int, progress: Progress) -> Sequence[Run]:
    return await load.create(client, _NAMESPACE, prefix, count, settled=False, progress=progress)


async def _raw(client: Client, runs: Sequence[Run]) -> float:
    """Patches per second of the bodies that a projector writes."""
    objects = ClusterObjects(client, load.KINDS, lambda: None)
    began = time.monotonic()
    await load.each(runs, lambda run: objects.patch_status(run, load.after(run, load.completion(run)).status), at_once=AT_ONCE)
    return len(runs) / (time.monotonic() - began)


async def _publish(bus: JetStreamBus, subjects: Subjects, runs: Sequence[Run]) -> None:
    await load.each(runs, lambda run: publisher.store(bus, subjects, load.completion(run)), at_once=256)


async def _projected(client: Client, bus: JetStreamBus, subjects: Subjects, runs: Sequence[Run]) -> float:
    """Completions per second from a full stream, with the projector as the operator has it."""
    before = await bus.last_sequence(subjects.stream("runs"))
    created = (await bus.api(f"STREAM.INFO.{subjects.stream('runs')}"))["created"]
    start = Cursor(str(created), before)
    await _publish(bus, subjects, runs)
    store, metrics, written, done = Store(load.NAMES), Metrics(), set[Key](), asyncio.Event()
    for run in runs:
        store.put(run)

    def wake(key: Key) -> None:
        written.add(key)
        if len(written) == len(runs):
            done.set()

    projector = Projector(
        subjects=subjects,
        store=store,
        objects=ClusterObjects(client, load.KINDS, lambda: None),
        outbox=Outbox(bus, subjects, mode="compatible", metrics=metrics, guard=lambda: None, now=utc_now),
        metrics=metrics,
        guard=lambda: None,
        now=utc_now,
        timers=AsyncioTimers(),
        names=load.NAMES,
        replay_window=timedelta(hours=1),
        saw=lambda *_: None,
        record=unrecorded,
        wake=wake,
    )

    async def consume() -> None:
        wanted = [subjects.pattern(Kind.RUN_STATUS), subjects.pattern(Kind.RUN_COMPLETION)]
        async for delivery in bus.consume(subjects.stream("runs"), DURABLE, subjects=wanted, resume=lambda: start):
            await projector.accept(delivery)

    began = time.monotonic()
    consumer = asyncio.create_task(consume())
    try:
        async with asyncio.timeout(_WITHIN):
            await done.wait()
        seconds = time.monotonic() - began
        await _until(lambda: projector.pending == 0, "everything is acknowledged")
    finally:
        consumer.cancel()
        await asyncio.wait({consumer})
    return len(runs) / seconds


async def _settled(cluster: Cluster, nats: NatsServer, folder: Path, bus: JetStreamBus, subjects: Subjects, runs: Sequence[Run]) -> float:
    """Completions per second with an operator process at work, until each Run is settled and released."""

    def unreleased() -> int:
        """Runs that the operator has not let go of."""
        wanted = ("get", "mlr", "-n", _NAMESPACE, "-l", f"!{load.NAMES.completed}", "-o", "name")
        return len(cluster.kubectl(*wanted).stdout.split())

    usual: dict[str, Any] = {"log": {"level": "info"}, "leaderElection": {}, "namespaces": [_NAMESPACE]}
    with Operator(cluster.kubeconfig, folder, nats=nats.url, **usual) as operator:
        operator.wait_ready(60)
        # those of the measurements before have ended, and it releases them first
        await _until(lambda: unreleased() == len(runs), "the operator has nothing else to do")
        before = _applied(operator)
        began = time.monotonic()
        await _publish(bus, subjects, runs)
        await _until(lambda: _applied(operator) - before >= len(runs) and not unreleased(), f"all Runs are settled\n{operator.tail()}")
        return len(runs) / (time.monotonic() - began)


def _applied(operator: Operator) -> float:
    return operator.metric("kfp_operator_projected_total", result="applied")


async def _until(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(eventually, condition, _WITHIN, what)
