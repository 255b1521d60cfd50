"""The Workflows of the double: on a real API server as a watch sees them, and behind the port that providers get."""

import asyncio
import json
import secrets
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
import yaml

from kfp_operator.errors import Permanent, Retryable
from kfp_operator.operator.resources import WORKFLOWS
from tests.cluster import Cluster, ControlPlane
from tests.doubles.kfp_api import HANG, Outcome, PortedWorkflows
from tests.doubles.kfp_api.process import KfpApiProcess
from tests.doubles.mlmd.engine import Mlmd
from tests.integration.kfp_api.site import TWO_STEP, site
from tests.integration.operator.parts import connected
from tests.waiting import eventually, eventually_async

LABEL = "pipeline/runid"


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[str]:
    """A namespace for the Workflows of all tests here."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def mlmd() -> Iterator[Mlmd]:
    with Mlmd() as started:
        yield started


@pytest.fixture(scope="module")
def server(cluster: Cluster, place: str, mlmd: Mlmd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KfpApiProcess]:
    """A server process whose Workflows are in the place, and whose steps write to ML Metadata."""
    folder, given = tmp_path_factory.mktemp("kfp"), {"namespace": place, "seconds": 0.2, "patience": 0.0}
    with KfpApiProcess(folder, kubeconfig=cluster.kubeconfig, recorder=mlmd.recorder, **given) as made:
        yield made


async def post(server: KfpApiProcess, run_id: str, mode: str = "") -> int:
    """Upload and run a pipeline of two steps; `mode`: a parameter."""
    spec = TWO_STEP | {"root": TWO_STEP["root"] | {"inputDefinitions": {"parameters": {"mode": {"parameterType": "STRING"}}}}}
    async with aiohttp.ClientSession(f"{server.url}/apis/v2beta1/") as session:
        form = aiohttp.FormData()
        form.add_field("uploadfile", yaml.safe_dump(spec), filename="x.yaml")
        async with session.post("pipelines/upload", data=form, params={"name": f"for-{run_id}"}) as answer:
            pipeline = (await answer.json())["pipeline_id"]
        body = {"run_id": run_id, "display_name": run_id, "pipeline_version_reference": {"pipeline_id": pipeline}}
        async with session.post("runs", json=body | {"runtime_config": {"parameters": {"mode": mode}}}) as answer:
            return answer.status


def state(server: KfpApiProcess, run_id: str) -> str:
    return str(server.runs()[run_id]["state"])


def workflows(cluster: Cluster, place: str, run_id: str) -> list[dict[str, Any]]:
    """The Workflows of a run, as the API server has them."""
    listed = json.loads(cluster.kubectl("get", "workflows", "-n", place, "-l", f"{LABEL}={run_id}", "-o", "json").stdout)
    return list(listed["items"])


async def test_a_workflow_is_there_when_the_post_is_answered_and_is_watched_to_its_stored_end(
    server: KfpApiProcess, cluster: Cluster, place: str
) -> None:
    assert await post(server, "watched", "hang") == 200
    (found,) = workflows(cluster, place, "watched")
    metadata = found["metadata"]
    assert metadata["annotations"]["pipelines.kubeflow.org/run_name"] == "watched"
    assert metadata["name"].startswith(metadata["generateName"])
    eventually(lambda: phases(cluster, place, "watched") == ["Running"], 10, "it runs")
    seen: list[tuple[str, str | None]] = []
    async with connected(cluster.kubeconfig) as client, asyncio.timeout(20):
        watch = client.watch(WORKFLOWS, metadata["name"], place, resource_version="0", seconds=20)
        async for change in watch:
            if not seen:
                server.finish("watched")
            seen.append((change.body["status"]["phase"], change.body["metadata"]["labels"].get("pipeline/persistedFinalState")))
            if seen[-1][1]:
                break
        await watch.aclose()
    assert (seen[0], seen[-1]) == (("Running", None), ("Succeeded", "true"))
    assert state(server, "watched") == "SUCCEEDED", "the label is set when the row is final"


def phases(cluster: Cluster, place: str, run_id: str) -> list[str]:
    return [w.get("status", {}).get("phase", "") for w in workflows(cluster, place, run_id)]


async def test_a_termination_is_written_into_the_workflow(server: KfpApiProcess, cluster: Cluster, place: str) -> None:
    await post(server, "stopped", "hang")
    await terminate(server, "stopped", 200)
    eventually(lambda: state(server, "stopped") == "FAILED", 10, "the run has ended")
    eventually(lambda: phases(cluster, place, "stopped") == ["Failed"], 10, "the Workflow too")
    assert workflows(cluster, place, "stopped")[0]["spec"]["activeDeadlineSeconds"] == 0


async def terminate(server: KfpApiProcess, run_id: str, status: int) -> None:
    url = f"{server.url}/apis/v2beta1/runs/{run_id}:terminate"
    async with aiohttp.ClientSession() as session, session.post(url, json={}) as answer:
        assert answer.status == status


async def test_of_a_deleted_workflow_nothing_more_is_heard(server: KfpApiProcess, cluster: Cluster, place: str) -> None:
    await post(server, "deleted", "hang")
    cluster.kubectl("delete", "workflows", "-n", place, "-l", f"{LABEL}=deleted")
    await terminate(server, "deleted", 500)
    assert state(server, "deleted") == "CANCELING"


async def test_a_post_fails_while_the_api_server_is_away_and_later_states_are_written_when_it_is_back(
    control_plane: ControlPlane, server: KfpApiProcess, place: str
) -> None:
    await post(server, "before", "hang")
    eventually(lambda: state(server, "before") == "RUNNING", 10, "it runs")
    control_plane.kill_apiserver()
    try:
        assert await post(server, "meanwhile") == 500
        assert "meanwhile" not in server.runs()
        server.finish("before")
        assert [w["status"]["phase"] for w in server.workflows() if w["metadata"]["labels"][LABEL] == "before"] == ["Succeeded"]
        assert state(server, "before") == "RUNNING", "the agent cannot see it either"
    finally:
        control_plane.start_apiserver()
    eventually(lambda: state(server, "before") == "SUCCEEDED", 20, "the end is stored")
    assert phases(control_plane, place, "before") == ["Succeeded"]


async def test_a_retry_removes_the_labels_of_the_end(server: KfpApiProcess, cluster: Cluster, place: str) -> None:
    server.outcome(Outcome(seconds=0.1, fails_in="prep", then=HANG), run_id="again")
    await post(server, "again")
    eventually(lambda: state(server, "again") == "FAILED", 10, "the run has failed")
    eventually(lambda: ended(cluster, place) == {"true"}, 10, "the Workflow has the labels")
    server.retry("again")
    assert state(server, "again") == "RUNNING"
    eventually(lambda: ended(cluster, place) == {None}, 10, "the labels are gone")
    server.finish("again")
    eventually(lambda: state(server, "again") == "SUCCEEDED", 10, "the second end is stored")
    assert server.runs()["again"]["history"] == ["PENDING", "RUNNING", "FAILED", "RUNNING", "SUCCEEDED"]


def ended(cluster: Cluster, place: str) -> set[str | None]:
    """Values of the labels that tell the end of the run that is tried again."""
    (found,) = workflows(cluster, place, "again")
    return {found["metadata"]["labels"].get(name) for name in ("pipeline/persistedFinalState", "workflows.argoproj.io/completed")}


async def test_a_run_writes_to_ml_metadata_before_its_end_is_seen(server: KfpApiProcess, mlmd: Mlmd) -> None:
    await post(server, "writes", "succeed")
    eventually(lambda: state(server, "writes") == "SUCCEEDED", 10, "the run has succeeded")
    (artifact,) = mlmd.read("writes")
    assert (artifact["task"], artifact["output"], artifact["type"]) == ("train", "model", "system.Model")


# In memory, as the provider's port


async def test_the_port_lists_and_watches_by_label_as_an_api_server_does() -> None:
    async with site() as s:
        port = PortedWorkflows(s.kfp.service.argo)
        reference = await s.pipeline()
        await s.run("one", reference)
        seen: list[tuple[str, str]] = []

        async def watch() -> None:
            async for what, workflow in port.watch("kubeflow", f"{LABEL},pipeline/persistedFinalState!=true"):
                labels = workflow.get("metadata", {}).get("labels", {})
                seen.append((what, labels.get("workflows.argoproj.io/phase", "")))

        watching = asyncio.create_task(watch())
        await eventually_async(lambda: seen == [("ADDED", ""), ("SYNCED", "")], 5, "what exists is told first")
        await s.run("two", reference)
        await eventually_async(lambda: ("ADDED", "") in seen[2:], 5, "what is new is told")
        s.clock.forward(60)
        s.kfp.service.catch_up()
        await eventually_async(lambda: [what for what, _ in seen].count("DELETED") == 2, 5, "so is what is not chosen any more")
        assert ("MODIFIED", "Running") in seen
        assert len(await port.list("kubeflow", LABEL)) == 2
        assert not await port.list("elsewhere", LABEL)
        assert not await port.list("", f"{LABEL},!pipeline/persistedFinalState")
        assert len(await port.list("", f"{LABEL} in (two, three)")) == 1
        port.cut()
        with pytest.raises(Retryable):
            await watching


async def test_the_port_can_be_closed_to_the_caller() -> None:
    async with site() as s:
        port = PortedWorkflows(s.kfp.service.argo)
        port.allowed = False
        with pytest.raises(Permanent):
            await port.list("", LABEL)
        port.allowed, port.available = True, False
        with pytest.raises(Retryable):
            await port.list("", LABEL)
