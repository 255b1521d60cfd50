"""The penguins as the README shows them: the manifests are what the pipeline says, they can be applied, they run, and a server reloads."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import nats
import pytest
import yaml

from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.provider import Provider
from kfp_operator.api.run import Run
from kfp_operator.api.states import RunState
from kfp_operator.cli.build import build_manifest
from kfp_operator.events import artifacts
from kfp_operator.providers import registry
from kfp_operator.providers.ir import bind_parameters, parse_ir
from kfp_operator.providers.protocol import PipelineVersion, ProviderConfig, RunUpdate, Submission, submission_id
from kfp_operator.providers.protocol import Provider as Backend
from tests.cluster import Cluster, NatsServer
from tests.waiting import eventually_async

EXAMPLES = Path(__file__).parents[3] / "examples"
GENTOO = {"bill_length_mm": 50, "bill_depth_mm": 15, "flipper_length_mm": 220, "body_mass_g": 5000}


def manifests(name: str) -> list[dict[str, Any]]:
    documents = list(yaml.safe_load_all((EXAMPLES / "penguin" / name).read_text()))
    assert not [document for document in documents if "namespace" in document["metadata"]], "they go where the user applies them"
    return [
        document | {"metadata": document["metadata"] | {"namespace": "default", "uid": document["metadata"]["name"]}}
        for document in documents
    ]


def portable(document: dict[str, Any]) -> dict[str, Any]:
    """Without what another release of kfp writes differently: its version, its pip command."""
    text = re.sub(r"'kfp==[^']+'", "'kfp'", json.dumps(document))
    portable: dict[str, Any] = json.loads(text)
    portable["spec"]["pipelineSpec"].pop("sdkVersion")
    return portable


def test_the_manifest_is_what_the_pipeline_compiles_to() -> None:
    committed = yaml.safe_load((EXAMPLES / "penguin" / "pipeline.yaml").read_text())
    built = build_manifest(EXAMPLES / "penguin" / "pipeline.py")
    remedy = "kfp-operator pipelines build examples/penguin/pipeline.py --output examples/penguin/pipeline.yaml"
    assert portable(built) == portable(committed), f"pipeline.yaml is not what pipeline.py says: {remedy}"


def test_the_folder_can_be_applied_though_python_lies_in_it(cluster: Cluster, namespace: str) -> None:
    said = cluster.kubectl(
        "apply", "--dry-run=server", "--namespace", namespace, "-f", str(EXAMPLES / "penguin") + "/", "-o", "name"
    ).stdout
    kinds = sorted(line.partition(".")[0] + "/" + line.partition("/")[2] for line in said.split())
    assert kinds == ["pipeline/penguin-pipeline", "provider/local", "run/penguin-run", "run/penguin-run-bad"]


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Backend]:
    """The Provider of provider.yaml."""
    spec = Provider.parse(manifests("provider.yaml")[0]).spec
    found = registry.find(spec.type, in_cluster=False)
    parameters = registry.parse_parameters(found, spec.parameters)
    opened = found.open(ProviderConfig("default", "local", parameters, max_active_runs=spec.max_active_runs, state_dir=tmp_path / "state"))
    yield opened
    await opened.close()


@pytest.fixture
def server_for_events() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server


async def ran(provider: Backend, runs: list[Run]) -> dict[str, RunUpdate]:
    """Submit the Runs as the operator does; their ends by name."""
    pipeline = Pipeline.parse(manifests("pipeline.yaml")[0])
    ir = parse_ir(pipeline.spec.pipeline_spec)
    version = PipelineVersion("default", pipeline.metadata.name, "v1", ir.spec)
    names = {}
    for run in runs:
        assert run.spec.pipeline == pipeline.metadata.name
        job = submission_id(run.metadata.uid, 1)
        names[job] = run.metadata.name
        parameters = bind_parameters(ir, run.spec.parameters)
        await provider.submit_run(Submission(job, "default", run.metadata.name, run.metadata.uid, 1, version, parameters))
    ends: dict[str, RunUpdate] = {}
    async with asyncio.timeout(120):
        async for update in provider.watch_runs():
            if update.state.final:
                ends[names[update.submission_id]] = update
            if len(ends) == len(runs):
                break
    return ends


@asynccontextmanager
async def serving(server: NatsServer, models: Path) -> AsyncIterator[str]:
    """The model server as a process; its URL."""
    flags = ["--nats", server.url, "--model-root", models, "--port", "0"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, EXAMPLES / "serving" / "server.py", *flags, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    async with asyncio.timeout(30):
        line = await process.stderr.readuntil(b"waiting for models")
    found = re.search(r"listening on (http://\S+);", line.decode())
    assert found is not None
    drain = asyncio.create_task(process.stderr.read())
    try:
        yield found.group(1)
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        await drain


async def test_one_run_pushes_a_model_that_a_subscriber_serves_and_one_fails_on_bad_input(
    provider: Backend, server_for_events: NatsServer, tmp_path: Path
) -> None:
    runs = {run.metadata.name: run for run in map(Run.parse, manifests("runs.yaml"))}
    ends = await ran(provider, list(runs.values()))
    good, bad = ends["penguin-run"], ends["penguin-run-bad"]
    assert good.state is RunState.SUCCEEDED, good.message
    assert (bad.state, bad.failed_task) == (RunState.FAILED, "train")
    assert "the data has no column 'favourite_fish'" in bad.message

    found, problems = artifacts.resolve(runs["penguin-run"].spec.artifacts, await provider.artifacts(good.submission_id))
    assert problems == []
    [model] = found
    assert (model.name, model.type, model.metadata["pushed"], model.metadata["serving"]) == ("serving-model", "system.Model", 1, True)
    assert model.metadata["accuracy"] > 0.9

    data = {
        "status": "succeeded",
        "pipelineName": "default/penguin-pipeline",
        "runName": "default/penguin-run",
        "runEndTime": "2026-03-01T12:00:00Z",
        "artifacts": [model.model_dump(mode="json", by_alias=True)],
    }
    event = {"specversion": "1.0", "id": "1", "type": "org.kubeflow.pipelines.run-completion", "data": data} | data
    async with serving(server_for_events, tmp_path / "state") as url, aiohttp.ClientSession(url) as http:
        before = await (await http.post("/predict", json=GENTOO)).json()
        connection = await nats.connect(server_for_events.url)
        await connection.publish("events", json.dumps(event).encode())
        await connection.drain()

        async def reloaded() -> bool:
            health = await (await http.get("/healthz")).json()
            return bool(health["model"] != "baseline")

        await eventually_async(reloaded, 30, "the server has the new model")
        after = await (await http.post("/predict", json=GENTOO)).json()
    assert (before["species"], before["model"]) == ("Adelie", "baseline")
    assert (after["species"], after["model"], after["accuracy"]) == ("Gentoo", "default/penguin-run", model.metadata["accuracy"])
