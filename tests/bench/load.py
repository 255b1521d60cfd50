"""Runs in bulk, in the states that a cluster has thousands of."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

from kfp_operator.api.names import Names
from kfp_operator.api.run import Run
from kfp_operator.operator.client import Cluster
from kfp_operator.operator.resources import Kinds
from kfp_operator.providers.protocol import submission_id
from kfp_operator.reconcile.projection import project
from kfp_operator.schemas import Artifact, RunCompletion, RunStatus
from tests.cluster import Progress

NAMES, KINDS = Names(), Kinds()
AT_ONCE = 32
PROVIDER = "bench/none"

T = TypeVar("T")
R = TypeVar("R")


async def each(items: Iterable[T], work: Callable[[T], Awaitable[R]], *, at_once: int = AT_ONCE) -> list[R]:
    """Do something with all items, several at a time, and return the results in their order."""
    slots = asyncio.Semaphore(at_once)

    async def one(item: T) -> R:
        async with slots:
            return await work(item)

    return await asyncio.gather(*map(one, items))


def manifest(name: str, *, bound: bool) -> dict[str, Any]:
    """A Run like many: some parameters, an artifact. `bound`: as after its submit."""
    metadata: dict[str, Any] = {"name": name, "labels": {NAMES.pipeline: "train", NAMES.pipeline_version: "49e208"}}
    if bound:
        metadata |= {"finalizers": [NAMES.finalizer], "annotations": {NAMES.provider: PROVIDER}}
    else:
        metadata["labels"][NAMES.completed] = "succeeded"
    parameters = [{"name": f"parameter-{n}", "value": n} for n in range(4)]
    return {
        "metadata": metadata,
        "spec": {"pipeline": "train", "parameters": parameters, "artifacts": [{"name": "model", "path": "push:model"}]},
    }


def running(run: Run) -> RunStatus:
    """Data of the event that it runs."""
    return RunStatus(
        provider=PROVIDER,
        pipeline_name=f"{run.metadata.namespace}/train",
        run_name=run.metadata.full_name,
        run_uid=run.metadata.uid,
        run_id=submission_id(run.metadata.uid, 1),
        attempt=1,
        transition=1,
        state="running",
        time=datetime.now(UTC),
    )


def completion(run: Run) -> RunCompletion:
    """Data of the event that it succeeded."""
    now = datetime.now(UTC)
    location = f"gs://models/{run.metadata.uid}/push/model"
    return RunCompletion(
        provider=PROVIDER,
        status="succeeded",
        state="succeeded",
        pipeline_name=f"{run.metadata.namespace}/train",
        pipeline_version="49e208",
        run_name=run.metadata.full_name,
        run_uid=run.metadata.uid,
        run_id=submission_id(run.metadata.uid, 1),
        attempt=1,
        artifacts=[Artifact(name="model", location=location, type="system.Model", metadata={"accuracy": 0.97})],
        run_start_time=now,
        run_end_time=now,
    )


def after(run: Run, *events: RunStatus | RunCompletion) -> Run:
    """The Run with the status that these events give it."""
    for event in events:
        status = project(run, event, names=NAMES, now=datetime.now(UTC)).status
        run = run.model_copy(update={"status": status})
    return run


async def create(cluster: Cluster, namespace: str, prefix: str, count: int, *, settled: bool, progress: Progress) -> list[Run]:
    """Create Runs that have ended, or that run at a backend which nobody has; as they are stored."""
    done = 0

    async def one(number: int) -> Run:
        nonlocal done
        name = f"{prefix}-{number:05}"
        body = await cluster.create(KINDS.run, manifest(name, bound=not settled), namespace)
        run = Run.parse(body)
        events = (running(run), completion(run)) if settled else (running(run),)
        status = after(run, *events).status.to_json()
        body = await cluster.patch(KINDS.run, name, {"status": status}, namespace, subresource="status")
        done += 1
        progress.show(f"making Runs: {done} of {count}")
        return Run.parse(body)

    return await each(range(count), one)
