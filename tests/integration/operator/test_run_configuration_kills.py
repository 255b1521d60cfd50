"""The operator is killed with SIGKILL around the creation of a Run, and around the record of its end: each end still starts one Run."""

import signal

import pytest

from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import NAMES, Bench
from tests.integration.operator.test_run_configurations import configuration, follower, get, looked_at, runs_of, wait_runs
from tests.integration.operator.together import scenario
from tests.waiting import eventually

POINTS = [
    "configuration-written:2",  # what happened stands in status, and there is no Run
    "run-created",  # there is the Run, and what happened still stands in status
    "configuration-written:3",  # that was taken off
    "recorded",  # the end is recorded, and its event is not acknowledged
]


@pytest.mark.parametrize("point", POINTS)
@scenario
def test_each_end_starts_one_run_when_the_operator_is_killed(bench: Bench, point: str) -> None:
    operator = bench.operator(leaderElection={"enabled": False}).start().wait_ready(60)
    bench.prepare()
    bench.apply(configuration(bench, "train"), follower(bench, "score", "train"))
    looked_at(bench, "train", "score")
    assert operator.stop() == 0
    bench.patch("mlrc", "train", metadata={"annotations": {NAMES.start: "once"}})
    operator.restart(fault=point)
    assert operator.wait_end(120) == -signal.SIGKILL
    operator.restart()
    [trained] = wait_runs(bench, "train", 1)
    bench.wait(trained.metadata.name, "succeeded", 120)
    [scored] = wait_runs(bench, "score", 1)
    bench.wait(scored.metadata.name, "succeeded", 120)
    eventually(lambda: not get(bench, "score").status.active, 30, "all is recorded")
    assert len(runs_of(bench, "train")) == len(runs_of(bench, "score")) == 1
    for each in ("train", "score"):
        status = get(bench, each).status
        assert [end.number for end in status.recent_runs] == [1]
        assert not [what for entry in status.triggers for what in entry.pending]
    Reader(bench.nats.url).once_each()
