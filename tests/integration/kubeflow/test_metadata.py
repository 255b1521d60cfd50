"""What a run produced, read from the real ML Metadata engine, in which KFP's launcher's way of writing is copied."""

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from kfp_operator.api.run import ArtifactDefinition
from kfp_operator.errors import Permanent, Retryable
from kfp_operator.events.artifacts import resolve, serving_model_artifacts
from kfp_operator.providers.kubeflow import mlmd as reading
from kfp_operator.providers.kubeflow.mlmd import MetadataStore
from kfp_operator.providers.kubeflow.mlmd_messages import SERVICE, messages
from kfp_operator.providers.protocol import ComponentArtifact
from tests.cluster.ports import free_port
from tests.doubles.kfp_api import KfpApi, Options, Outcome
from tests.doubles.mlmd.engine import Mlmd
from tests.doubles.mlmd.environment import environment
from tests.doubles.mlmd.recording import DAG, IMPORTER, WrittenArtifact, WrittenExecution, WrittenRun, root
from tests.unit.providers.kubeflow.arrange import FakeClock, provider_of, submission


@pytest.fixture(scope="module")
def mlmd() -> Iterator[Mlmd]:
    with Mlmd() as started:
        yield started


@pytest.fixture
async def store(mlmd: Mlmd) -> AsyncIterator[MetadataStore]:
    opened = MetadataStore(mlmd.address)
    yield opened
    await opened.close()


def model(uri: str = "s3://b/model", output: str = "model", **metadata: Any) -> WrittenArtifact:
    return WrittenArtifact(output, "system.Model", uri, metadata)


def train(*outputs: WrittenArtifact, **changes: Any) -> WrittenExecution:
    return WrittenExecution("train", outputs=outputs, **changes)


def names(found: Any) -> list[tuple[str, str, int, str]]:
    return [(a.component, a.name, a.index, a.uri) for a in found]


async def test_artifacts_are_read_as_the_step_wrote_them(mlmd: Mlmd, store: MetadataStore) -> None:
    written = {
        "accuracy": 0.93,
        "epochs": 10,
        "serving": True,
        "final": False,
        "labels": ["a", 1],
        "shape": {"x": 1.5, "n": 2},
        "note": "é",
    }
    mlmd.record(WrittenRun("values", "train", (root(), train(model(**written)))))
    found = await store.artifacts("values")
    assert found == [ComponentArtifact("train", "model", "system.Model", "s3://b/model", written, 0)]
    assert [type(found[0].metadata[key]) for key in ("epochs", "serving")] == [int, bool]


async def test_what_was_read_only_and_what_others_wrote_is_left_out(mlmd: Mlmd, store: MetadataStore) -> None:
    data = WrittenArtifact("data", "system.Dataset", "s3://b/data", key="shared")
    mlmd.record(WrittenRun("other", "train", (root(), WrittenExecution("load", outputs=(data,)))))
    mlmd.record(WrittenRun("mine", "train", (root(), train(model(), inputs=(data,)))))
    assert names(await store.artifacts("mine") or ()) == [("train", "model", 0, "s3://b/model")]


async def test_a_cached_task_has_the_artifacts_of_an_earlier_run(mlmd: Mlmd, store: MetadataStore) -> None:
    shared = WrittenArtifact("model", "system.Model", "s3://b/first", {"n": 1}, key="cached")
    mlmd.record(WrittenRun("first", "train", (root(), train(shared))))
    mlmd.record(WrittenRun("second", "train", (root(), train(shared, state="CACHED"))))
    assert names(await store.artifacts("second") or ()) == [("train", "model", 0, "s3://b/first")]


async def test_of_a_task_that_was_tried_twice_the_last_that_succeeded_is_read(mlmd: Mlmd, store: MetadataStore) -> None:
    tries = (
        train(model("s3://b/1"), key="one", state="FAILED"),
        train(model("s3://b/2"), key="two"),
        train(model("s3://b/3"), key="three", state="FAILED"),
    )
    mlmd.record(WrittenRun("tries", "train", (root(), *tries)))
    assert names(await store.artifacts("tries") or ()) == [("train", "model", 0, "s3://b/2")]


async def test_each_iteration_of_a_loop_counts_from_0_and_comes_in_order(mlmd: Mlmd, store: MetadataStore) -> None:
    loop = WrittenExecution("for-loop-1", type=DAG, key="loop")
    iterations = [WrittenExecution(f"for-loop-1-{n}", type=DAG, key=f"iteration-{n}", parent="loop", iteration=n) for n in (0, 1, 2)]
    tasks = [train(model(f"s3://b/{n}"), key=f"train-{n}", parent=f"iteration-{n}") for n in (2, 0, 1)]
    mlmd.record(WrittenRun("loop", "train", (root(), loop, *iterations, *tasks)))
    assert names(await store.artifacts("loop") or ()) == [("train", "model", 0, f"s3://b/{n}") for n in (0, 1, 2)]


async def test_an_importer_produces_what_it_imports(mlmd: Mlmd, store: MetadataStore) -> None:
    imported = WrittenExecution("importer", type=IMPORTER, outputs=(WrittenArtifact("artifact", "system.Dataset", "gs://b/d"),))
    mlmd.record(WrittenRun("imports", "train", (root(), imported)))
    assert names(await store.artifacts("imports") or ()) == [("importer", "artifact", 0, "gs://b/d")]


async def test_a_run_without_executions_or_artifacts_is_no_error(mlmd: Mlmd, store: MetadataStore) -> None:
    mlmd.record(WrittenRun("empty", "train", (root("RUNNING"),)))
    assert await store.artifacts("empty") == []
    assert await store.artifacts("never-heard-of") is None


async def test_a_run_of_many_tasks_is_read_whole(mlmd: Mlmd, store: MetadataStore) -> None:
    tasks = tuple(WrittenExecution(f"t{n:04}", outputs=(model(f"s3://b/{n}"),)) for n in range(reading.BATCH + 20))
    mlmd.record(WrittenRun("many", "train", (root(), *tasks)))
    assert names(await store.artifacts("many") or ()) == [(f"t{n:04}", "model", 0, f"s3://b/{n}") for n in range(reading.BATCH + 20)]


async def test_filters_and_serving_models_work_on_what_is_read(mlmd: Mlmd, store: MetadataStore) -> None:
    pushed = WrittenArtifact("pushed_model", "tfx.PushedModel", "gs://b/pushed", {"pushed": 1})
    mlmd.record(WrittenRun("serve", "train", (root(), train(model(serving=True)), WrittenExecution("Pusher", outputs=(pushed,)))))
    found = await store.artifacts("serve") or ()
    serving = serving_model_artifacts("penguin", "r", found)
    assert {(s.name, s.location) for s in serving} == {
        ("penguin:r:train:model:0", "s3://b/model"),
        ("penguin:r:Pusher:pushed_model:0", "gs://b/pushed"),
    }
    definition = ArtifactDefinition(name="m", path="Pusher:pushed_model:0[pushed == 1]")
    resolved, problems = resolve([definition], found)
    assert ([a.location for a in resolved], problems) == (["gs://b/pushed"], [])


async def test_a_store_that_is_away_is_told_with_its_field() -> None:
    away = MetadataStore(f"127.0.0.1:{free_port()}")
    try:
        with pytest.raises(Retryable, match=r"spec\.parameters\.metadataEndpoint\) answers .* UNAVAILABLE"):
            await away.artifacts("r")
    finally:
        await away.close()


def test_the_messages_are_those_of_ml_metadata() -> None:
    """Field numbers and types, compared with the package's own descriptors."""
    script = """
import json
from ml_metadata.proto import metadata_store_pb2 as pb, metadata_store_service_pb2 as rpc
def find(name):
    return {"Step": pb.Event.Path.Step, "Path": pb.Event.Path}.get(name) or getattr(pb, name, None) or getattr(rpc, name)
names = NAMES
print(json.dumps({n: {f.name: [f.number, f.type] for f in find(n).DESCRIPTOR.fields} for n in names}))
""".replace("NAMES", repr(sorted(messages)))
    told = subprocess.run([str(environment()), "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout
    theirs: dict[str, dict[str, list[int]]] = json.loads(told)
    enums = {("Execution", "last_known_state"), ("Event", "type")}
    for name, message in messages.items():
        for field in message.DESCRIPTOR.fields:
            number, kind = theirs[name][field.name]
            assert field.number == number, (name, field.name)
            assert field.type == (5 if (name, field.name) in enums else kind), (name, field.name)
    assert SERVICE == "/ml_metadata.MetadataStoreService/"


# In a provider


async def test_a_succeeded_runs_artifacts_are_waited_for_and_a_failed_ones_are_not(mlmd: Mlmd) -> None:
    async with KfpApi(Options(seconds=0)) as kfp:
        kfp.outcome(Outcome(seconds=0, fails_in="act"), parameters={"mode": "raise"})
        given = {"artifactSource": "Auto", "metadataEndpoint": mlmd.address}
        async with provider_of(kfp, clock=FakeClock(), **given) as provider:
            await provider.check()
            good, bad = submission(uid="good"), submission(uid="bad", mode="raise")
            for what in (good, bad):
                await provider.submit_run(what)
            assert kfp.run(bad.id).state == "FAILED"
            assert await provider.artifacts(bad.id) == ()
            with pytest.raises(Retryable, match=r"does not know run .* which succeeded"):
                await provider.artifacts(good.id)
            mlmd.record(WrittenRun(good.id, "scenario", (root(), WrittenExecution("act", outputs=(model(),)))))
            assert names(await provider.artifacts(good.id)) == [("act", "model", 0, "s3://b/model")]


async def test_a_metadata_store_that_nobody_named_or_reached_keeps_the_provider_from_being_ready() -> None:
    async with KfpApi() as kfp:
        async with provider_of(kfp, artifactSource="Auto") as provider:
            with pytest.raises(Permanent, match=r"set spec\.parameters\.metadataEndpoint") as caught:
                await provider.check()
            assert caught.value.reason == "MetadataEndpointMissing"
        async with provider_of(kfp, artifactSource="Auto", metadataEndpoint=f"127.0.0.1:{free_port()}") as provider:
            with pytest.raises(Retryable, match="artifactSource: None does without artifacts"):
                await provider.check()
        async with provider_of(kfp, artifactSource="None") as provider:
            await provider.check()
            assert await provider.artifacts("r") == ()


async def test_a_server_with_an_artifact_api_of_its_own_needs_no_metadata_store() -> None:
    async with KfpApi(Options(seconds=0, artifact_api=True)) as kfp, provider_of(kfp, artifactSource="Auto") as provider:
        await provider.check()
        await provider.submit_run(submission())
        (found,) = await provider.artifacts(submission().id)
        assert (found.component, found.name, found.type, found.index) == ("act", "model", "system.Model", 0)
        assert found.metadata == {"accuracy": 0.93, "pushed": 1}
