"""The backend is frozen, cut off, refuses or does not answer: runs go on, none is started twice, and all is told in the end."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.ports import free_port
from tests.doubles.kfp_api.outcomes import Outcome
from tests.doubles.kfp_api.process import KfpApiProcess
from tests.integration.operator.backends import KubeflowBackend
from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import NAMES, Bench, processes
from tests.integration.operator.together import scenario
from tests.integration.operator.verdict import ended_well, starts
from tests.waiting import eventually

RUNS = ("POST", "/runs")
UPLOAD = ("POST", "/pipelines/upload*")
UPLOADED = ("POST", "/pipelines/upload_version")


def server(bench: Bench) -> KfpApiProcess:
    """The server of a bench on Kubeflow Pipelines."""
    assert isinstance(bench.backend, KubeflowBackend)
    return bench.backend.server


def waiting(bench: Bench, name: str) -> tuple[dict[str, Any], Path]:
    """A Run that goes on until the file is made."""
    gate = bench.folder / f"{name}.go"
    return bench.run(name, "wait", parameters={"wait_for": str(gate)}), gate


# While runs are on their way


@contextmanager
def frozen(bench: Bench) -> Iterator[None]:
    """Stop the processes of the backend: connections stay open, nothing answers."""
    if isinstance(bench.backend, KubeflowBackend):
        server(bench).pause()
        try:
            yield
        finally:
            server(bench).resume()
        return
    pids = processes(bench.folder / "operator" / "state")
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def failing(bench: Bench, **fault: Any) -> Iterator[None]:
    """Let every request to the server go wrong."""
    server(bench).fault(times=0, **fault)
    try:
        yield
    finally:
        server(bench).clear_faults()


OUTAGES: dict[str, dict[str, Any]] = {"cut-off": {"reset": True}, "failing": {"status": 503}, "half": {"truncate": True}}


@pytest.mark.parametrize(("backend", "outages"), [("local", ("frozen",)), ("kubeflow", ("frozen", *OUTAGES))], ids=["local", "kubeflow"])
@scenario
def test_runs_that_end_while_their_backend_is_away_are_told_when_it_is_back(bench: Bench, backend: str, outages: Sequence[str]) -> None:
    operator = bench.operator().start().wait_ready()
    bench.prepare(maxActiveRuns=3)
    goes_on, later = waiting(bench, "goes-on")
    bench.apply(goes_on)
    for outage in outages:
        document, gate = waiting(bench, outage)
        bench.apply(document)
        bench.wait(outage, "running")
        with frozen(bench) if outage == "frozen" else failing(bench, **OUTAGES[outage]):
            gate.touch()
            noticed(bench, outage)
            shown = [bench.get(name) for name in (outage, "goes-on")]
            assert [run.status.state for run in shown if run is not None] == ["running", "running"]
        ended_well(bench, outage, "succeeded", quiet=False)
    later.touch()
    ended_well(bench, "goes-on", "succeeded")
    assert operator.alive


def noticed(bench: Bench, outage: str) -> None:
    """Return when the operator has had the time to be wrong about the Runs."""
    if outage == "frozen":
        bench.apply(bench.run("refused", parameters={"unknown": 1}))
        bench.wait("refused", "failed")
        return
    before = sum(server(bench).requests().values())
    eventually(lambda: sum(server(bench).requests().values()) >= before + 2, 60, "the server was asked in vain")


@pytest.mark.parametrize("backend", ["kubeflow"])
@scenario
def test_a_provider_whose_server_is_away_says_so_and_runs_wait_until_it_is_back(bench: Bench, backend: str) -> None:
    bench.operator().start().wait_ready()
    bench.prepare()
    with failing(bench, status=503):
        bench.apply(bench.run("waits"))
        said = bench.wait_reason("mlr", "waits", "ProviderUnavailable", says="answers 503")["message"]
        assert server(bench).url in said
        assert not starts(bench)
    ended_well(bench, "waits", "succeeded")


@pytest.mark.parametrize("backend", ["kubeflow"])
@pytest.mark.parametrize("member", ["endpoint", "metadataEndpoint"])
@scenario
def test_a_provider_edited_to_a_wrong_address_and_back_loses_nothing(bench: Bench, backend: str, member: str) -> None:
    bench.operator().start().wait_ready()
    bench.prepare()
    document, gate = waiting(bench, "it")
    bench.apply(document)
    bench.wait("it", "running")
    right = bench.backend.spec()["parameters"]
    nowhere = f"127.0.0.1:{free_port()}"
    wrong = {"endpoint": f"http://{nowhere}", "metadataEndpoint": nowhere}[member]
    bench.apply(bench.provider(parameters=right | {member: wrong}))
    says = eventually(lambda: unready(bench, backend), 20, "the Provider is not ready")
    assert nowhere in says
    gate.touch()
    eventually(lambda: bench.backend.results(bench.folder) == 1, 20, "the run ends at the server")
    bench.apply(bench.provider(parameters=right))
    _, told = ended_well(bench, "it", "succeeded")
    assert [a["name"] for a in told["artifacts"]] == ["model"]


def unready(bench: Bench, name: str) -> str:
    """The message of a Provider that is not ready; "": it is."""
    found = bench.condition("mlprv", name, "Ready")
    return found["message"] if found is not None and found["status"] == "False" else ""


# Answers that are lost


LOST: dict[str, dict[str, Any]] = {
    "after-the-effect-by-a-proxy": {"status": 504, "effect": True},
    "after-the-effect-by-the-network": {"reset": True, "effect": True},
    "before-it-by-a-proxy": {"status": 503},
    "before-it-by-the-network": {"reset": True},
    "in-the-middle": {"truncate": True},
}


@pytest.mark.parametrize("backend", ["kubeflow"])
@scenario
def test_runs_and_pipelines_whose_submission_is_not_answered_are_made_once(bench: Bench, backend: str) -> None:
    bench.operator().start().wait_ready()
    bench.prepare()
    for name, lost in LOST.items():
        for method, path in (RUNS, UPLOAD):
            server(bench).fault(method=method, path=path, **lost)
        bench.apply(bench.pipeline(name), bench.run(name, pipeline=name))
        ended_well(bench, name, "succeeded", quiet=False)
    assert list(starts(bench).values()) == [1] * len(LOST)
    assert server(bench).requests()[UPLOADED] == 1 + len(LOST) + 2, "those without effect were made again"


@pytest.mark.parametrize("backend", ["kubeflow"])
@scenario
def test_an_operator_killed_while_it_submits_finds_what_it_started(bench: Bench, backend: str) -> None:
    operator = bench.operator(leaderElection={"enabled": False}).start()
    bench.prepare()
    server(bench).fault(method="POST", path="/runs", late=20.0)
    bench.apply(bench.run("it"))
    posted(bench, 1)
    operator.kill()
    operator.restart()
    ended_well(bench, "it", "succeeded")
    assert server(bench).requests()[RUNS] == 1


@pytest.mark.parametrize("backend", ["kubeflow"])
@scenario
def test_a_stop_that_is_not_answered_stops_all_the_same(bench: Bench, backend: str) -> None:
    bench.operator().start().wait_ready()
    bench.prepare()
    names = ("effect", "none")
    bench.apply(*(bench.run(name, "hang") for name in names))
    for name in names:
        bench.wait(name, "running")
    for name, effect in zip(names, (True, False), strict=True):
        server(bench).fault(method="POST", path="/runs/*:terminate", reset=True, effect=effect)
        bench.patch("mlr", name, spec={"cancel": True})
        ended_well(bench, name, "stopped", quiet=False)


def posted(bench: Bench, count: int) -> None:
    """Wait until so many submissions have arrived."""
    eventually(lambda: server(bench).requests()[RUNS] == count, 30, f"{count} submissions have arrived")


# What others do at the backend


@pytest.mark.parametrize("backend", ["kubeflow"])
@pytest.mark.parametrize("killed", ["", "reopened", "completion-published:2"], ids=["never", "as it begins", "as it ends"])
@scenario
def test_a_run_that_is_tried_again_in_the_ui_gets_another_attempt_and_another_completion(bench: Bench, backend: str, killed: str) -> None:
    operator = bench.operator(fault=killed, leaderElection={"enabled": False}).start()
    bench.prepare()
    server(bench).outcome(Outcome(fails_in="act", then=Outcome(seconds=2)), times=1)
    bench.apply(bench.run("it"))
    run, first = ended_well(bench, "it", "failed")
    server(bench).retry(run.status.provider_id)
    if killed:
        assert operator.wait_end() == -signal.SIGKILL
        operator.restart()
    again = bench.wait("it", "succeeded")
    assert (again.status.attempt, again.status.completion_state) == (2, "Succeeded")
    bench.released("it")
    reader = Reader(bench.nats.url)
    eventually(lambda: reader.unsettled() == 0, 90, "the projector has acknowledged everything")
    told = reader.completions(run.metadata.full_name)
    assert told[0] == first
    assert [(d["attempt"], d["state"]) for d in told] == [(1, "failed"), (2, "succeeded")]
    assert {d["runId"] for d in told} == {run.status.provider_id}
    assert [e["data"] for e in reader.events("documented")] == told


@pytest.mark.parametrize("backend", ["kubeflow"])
@scenario
def test_a_run_is_stopped_though_its_workflow_was_deleted_under_it(bench: Bench, backend: str) -> None:
    bench.operator().start().wait_ready()
    bench.prepare()
    bench.apply(bench.run("it", "hang"))
    bench.wait("it", "running")
    bench.cluster.kubectl("delete", "workflows", "--all", "-n", bench.namespace)
    bench.delete("mlr", "it")
    eventually(lambda: [row["state"] for row in server(bench).runs().values()] == ["CANCELING"], 20, "the server was asked")
    bench.patch("mlr", "it", metadata={"annotations": {NAMES.force_release: "true"}})
    bench.gone("mlr", "it")
