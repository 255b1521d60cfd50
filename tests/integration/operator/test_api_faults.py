"""The API server is away, frozen, started anew or contradicts: runs go on, nothing is told twice, and deletions are found out."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kfp_operator.operator.client import Cluster as Client
from tests.cluster import ControlPlane
from tests.integration.operator.backends import BACKENDS
from tests.integration.operator.harness import KINDS, NAMES, Bench
from tests.integration.operator.verdict import all_ended_well, ended_well, results
from tests.waiting import eventually


def gated(bench: Bench, name: str) -> tuple[dict[str, Any], Path]:
    """A Run that goes on until the file is made."""
    gate = bench.folder / f"{name}.go"
    return bench.run(name, "wait", parameters={"wait_for": str(gate)}), gate


@pytest.mark.parametrize("bench", BACKENDS, indirect=True)
def test_runs_that_end_while_the_api_server_is_away_are_shown_when_it_is_back(control_plane: ControlPlane, bench: Bench) -> None:
    control_plane.stop_apiserver()
    operator = bench.operator().start()
    eventually(lambda: operator.readiness()[0] == 503, 30, "the operator is not ready")
    assert "[-] lease:" in operator.readiness()[1]
    control_plane.start_apiserver()
    operator.wait_ready()
    bench.prepare(maxActiveRuns=3)
    names = ("restarted", "killed", "frozen")
    runs, gates = zip(*(gated(bench, name) for name in names), strict=True)
    bench.apply(*runs)
    for name in names:
        bench.wait(name, "running")
    pid = operator.pid

    gates[0].touch()
    control_plane.restart_apiserver()
    bench.wait("restarted", "succeeded")

    control_plane.kill_apiserver()
    gates[1].touch()
    eventually(lambda: results(bench) == 2, 30, "the run ends at the provider")
    eventually(lambda: "[-] lease:" in operator.readiness()[1], 30, "readiness says that the Lease cannot be written")
    control_plane.start_apiserver()
    bench.wait("killed", "succeeded")

    control_plane.pause_apiserver()
    try:
        gates[2].touch()
        eventually(lambda: results(bench) == 3, 30, "the run ends at the provider")
        eventually(lambda: operator.metric("kfp_operator_leader") == 0, 30, "it may not act any more")
    finally:
        control_plane.resume_apiserver()
    all_ended_well(bench, dict.fromkeys(names, "succeeded"))
    operator.wait_ready()
    assert operator.alive
    assert operator.pid == pid
    control_plane.stop_apiserver()
    try:
        assert operator.stop(10) == 0
    finally:
        control_plane.start_apiserver()


@contextmanager
def touched_again_and_again(bench: Bench, name: str) -> Iterator[list[int]]:
    """Somebody changes the Run as fast as the API server lets them; the list has the number of times so far."""
    count, stop = [0], threading.Event()

    async def touch(client: Client) -> None:
        while not stop.is_set():
            annotations = {"example.org/touched": str(count[0])}
            await client.patch(KINDS.run, name, {"metadata": {"annotations": annotations}}, bench.namespace)
            count[0] += 1

    thread = threading.Thread(target=bench.ask, args=(touch,))
    thread.start()
    try:
        yield count
    finally:
        stop.set()
        thread.join(20)


def test_a_run_that_somebody_changes_all_the_time_gets_its_status_all_the_same(bench: Bench) -> None:
    operator = bench.operator().start().wait_ready()
    bench.prepare()
    document, gate = gated(bench, "it")
    bench.apply(document)
    with touched_again_and_again(bench, "it") as count:
        bench.wait("it", "running")
        gate.touch()
        ended_well(bench, "it", "succeeded")
        assert count[0] > 100
    assert operator.metric("kfp_operator_api_requests_total", code="409", resource="runs", verb="patch") > 0


def test_what_is_deleted_while_nobody_watches_is_found_out(control_plane: ControlPlane, bench: Bench) -> None:
    operator = bench.operator().start().wait_ready()
    bench.prepare()
    document, gate = gated(bench, "it")
    bench.apply(document, bench.run("waits", pipeline="nobody"), bench.run("kept", pipeline="nobody"))
    bench.wait("it", "running")
    for name in ("waits", "kept"):
        bench.wait_reason("mlr", name, "PipelineNotFound")
    operator.freeze()
    control_plane.restart_apiserver()  # its memory of changes begins after what the operator saw last: 410
    bench.cluster.kubectl("delete", "mlr", "waits", "-n", bench.namespace)
    gate.touch()
    operator.thaw()
    eventually(lambda: operator.metric("kfp_operator_swept_total", kind="Run") == 1, 60, "the deletion is found out")
    ended_well(bench, "it", "succeeded")
    bench.apply(bench.run("waits", parameters={"unknown": 1}))
    ended_well(bench, "waits", "failed")
    assert operator.metric("kfp_operator_runs", state="created") == 1
    assert NAMES.finalizer not in bench.runs()["kept"].metadata.finalizers
