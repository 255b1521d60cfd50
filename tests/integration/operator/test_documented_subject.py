"""What a plain subscriber of `events` receives from the whole operator on its default settings, and what Argo Events makes of it."""

import asyncio
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import nats
from nats.aio.msg import Msg

from tests.doubles.argo import data_filters, event_source
from tests.integration.operator.harness import Bench
from tests.integration.operator.verdict import all_ended_well

STATES = {"good": "succeeded", "bad": "failed", "refused": "failed", "cancelled": "stopped"}


@contextmanager
def subscribed(url: str, subject: str) -> Iterator[list[Msg]]:
    """A core NATS subscription in a thread of its own, from here to the end of the block; what it received so far."""
    received: list[Msg] = []
    ready, stop = threading.Event(), threading.Event()

    async def listen() -> None:
        async def receive(message: Msg) -> None:
            received.append(message)

        client = await nats.connect(url)
        await client.subscribe(subject, cb=receive)
        await client.flush()
        ready.set()
        await asyncio.to_thread(stop.wait)
        await client.close()

    thread = threading.Thread(target=lambda: asyncio.run(listen()))
    thread.start()
    assert ready.wait(10)
    try:
        yield received
    finally:
        stop.set()
        thread.join(10)


def sensor(prefix: str, pipeline: str) -> list[dict[str, Any]]:
    """`filters.data` that wait for a success of the pipeline."""
    wanted = {"status": "succeeded", "pipelineName": pipeline}
    return [{"path": f"{prefix}.{name}", "type": "string", "comparator": "=", "value": [value]} for name, value in wanted.items()]


def test_each_completion_comes_once_and_both_sensors_fire_on_the_one_that_succeeded(bench: Bench) -> None:
    operator = bench.operator(fault="documented", leaderElection={"enabled": False}).start()
    bench.prepare(maxActiveRuns=4)
    bench.apply(bench.pipeline("penguin-pipeline"))
    bench.cluster.kubectl("wait", "-n", bench.namespace, "--for=condition=Ready", "mlp/penguin-pipeline", "--timeout=60s")
    pipeline = {"pipeline": "penguin-pipeline"}
    with subscribed(bench.nats.url, "events") as received:
        bench.apply(
            bench.run("good", **pipeline),
            bench.run("bad", "raise", **pipeline),
            bench.run("refused", parameters={"unknown": 1}, **pipeline),
            bench.run("cancelled", "hang", cancel=True, **pipeline),
        )
        assert operator.wait_end() == -signal.SIGKILL  # one copy is stored, and the event before it not acknowledged
        operator.restart()
        ended = all_ended_well(bench, STATES)
        assert Counter(m.headers["ce-subject"] for m in received) == Counter(f"{bench.namespace}/{name}" for name in STATES)
    bodies = {m.headers["ce-subject"].partition("/")[2]: event_source(m.subject, m.headers, m.data) for m in received}
    for name, event in bodies.items():
        assert event["body"]["data"] == ended[name][1]
        for filters in (sensor("body", "penguin-pipeline"), sensor("body.data", f"^{bench.namespace}/penguin-pipeline$")):
            assert data_filters(event, filters).fires == (name == "good")
        assert not data_filters(event, sensor("body", "another-pipeline")).fires
