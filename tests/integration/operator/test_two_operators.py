"""Two operators on one Lease: one acts and the other stands by, whatever happens to the first; and how an operator ends in good order."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.operator.harness import Bench, Operator
from tests.integration.operator.together import scenario
from tests.integration.operator.verdict import all_ended_well
from tests.waiting import eventually

LEASE = 8.0
"""Seconds."""
SLACK = 5.0


def pair(bench: Bench) -> tuple[Operator, Operator]:
    """The leader and the standby, with one state folder as two processes on one machine have it."""
    state = bench.folder / "shared" / "state"
    election = {"leaseDuration": LEASE, "namespace": bench.namespace}
    first, second = (bench.operator(name, stateDir=str(state), leaderElection=election) for name in ("first", "second"))
    first.start()
    leads(first)
    second.start().wait_ready()
    assert "waits for the Lease" in second.readiness()[1]
    return first.wait_ready(), second


def leads(operator: Operator, within: float = 30) -> None:
    eventually(lambda: operator.metric("kfp_operator_leader") == 1, within, "the operator leads")


def gated(bench: Bench, name: str) -> tuple[dict[str, Any], Path]:
    """A Run that goes on until the file is made."""
    gate = bench.folder / f"{name}.go"
    return bench.run(name, "wait", parameters={"wait_for": str(gate)}), gate


@scenario
def test_a_standby_takes_over_at_once_from_one_that_stops_and_after_the_lease_from_one_that_is_killed(bench: Bench) -> None:
    first, second = pair(bench)
    bench.prepare(maxActiveRuns=2)
    (stopped, killed), gates = zip(*(gated(bench, name) for name in ("stopped", "killed")), strict=True)
    bench.apply(stopped, killed)
    bench.wait("stopped", "running")
    bench.wait("killed", "running")

    assert first.stop() == 0
    began = time.monotonic()
    leads(second)
    assert time.monotonic() - began < LEASE
    gates[0].touch()
    bench.wait("stopped", "succeeded")

    first.start().wait_ready()
    second.kill()
    began = time.monotonic()
    gates[1].touch()
    leads(first)
    assert time.monotonic() - began < LEASE + SLACK
    all_ended_well(bench, dict.fromkeys(("stopped", "killed"), "succeeded"))


@scenario
def test_a_leader_that_was_frozen_for_longer_than_its_lease_does_not_act_any_more(bench: Bench) -> None:
    first, second = pair(bench)
    bench.prepare(maxActiveRuns=1)
    document, gate = gated(bench, "running")
    bench.apply(document)
    bench.wait("running", "running")
    bench.apply(bench.run("queued"), bench.run("refused", parameters={"unknown": 1}))
    bench.wait("queued", "queued")
    first.freeze()
    gate.touch()
    leads(second)
    assert "is in use by process" in bench.wait_reason("mlprv", "local", "StateDirInUse")["message"]
    first.thaw()
    assert first.wait_end() != 0
    assert "another process may act by now" in first.tail()  # what it was about to do, it did not
    assert "was taken by another process" in first.tail()
    assert "Traceback" not in first.log.read_text()
    all_ended_well(bench, {"running": "succeeded", "queued": "succeeded", "refused": "failed"})


@pytest.mark.parametrize("gone", ["nothing", "nats"])
@scenario
def test_an_operator_that_is_told_to_stop_ends_in_seconds_and_the_next_adopts_its_runs(bench: Bench, gone: str) -> None:
    operator = bench.operator().start().wait_ready()
    bench.prepare(maxActiveRuns=1)
    document, gate = gated(bench, "it")
    bench.apply(document, bench.run("queued"))
    bench.wait("it", "running")
    if gone == "nats":
        bench.nats.kill()
    began = time.monotonic()
    assert operator.stop() == 0, operator.tail()
    assert time.monotonic() - began < SLACK
    gate.touch()
    if gone == "nats":
        bench.nats.start()
    operator.restart()
    all_ended_well(bench, {"it": "succeeded", "queued": "succeeded"})
    assert "Traceback" not in operator.log.read_text()
