"""The operator is killed with SIGKILL between an effect and what should follow it; the next one makes everything right."""

import random
import signal
import subprocess
from contextlib import suppress
from typing import Any

import pytest

from tests.integration.operator.backends import BACKENDS
from tests.integration.operator.harness import Bench, Operator
from tests.integration.operator.together import scenario
from tests.integration.operator.verdict import all_ended_well, ended_well

ENDS = {"succeed": "succeeded", "raise": "failed", "refuse": "failed", "cancel": "stopped"}
KILLS = [
    ("succeed", "bound"),
    ("succeed", "submitted"),
    ("succeed", "status-published"),
    ("succeed", "completion-published"),
    ("succeed", "released"),
    ("refuse", "status-published"),  # its only run-status is that of its end, and so is its only patch
    ("refuse", "patched"),
    ("refuse", "documented"),
    ("refuse", "acked"),
    ("cancel", "cancel-marked"),
    ("cancel", "cancelled"),
]


@pytest.mark.parametrize(("backend", "deaths"), [("local", 7), ("kubeflow", 3)])
@scenario
def test_twenty_runs_end_once_and_right_when_the_operator_and_nats_are_killed_again_and_again(
    bench: Bench, backend: str, deaths: int
) -> None:
    chance = random.Random(20)
    operator = bench.operator(leaderElection={"enabled": False}).start()
    bench.prepare(maxActiveRuns=3)
    kinds = [kind for kind, number in (("succeed", 4), ("raise", 1), ("refuse", 13), ("cancel", 2)) for _ in range(number)]
    chance.shuffle(kinds)
    names = {f"{kind}-{n}": kind for n, kind in enumerate(kinds)}
    bench.apply(*(run_of(bench, name, kind) for name, kind in names.items()))
    for death in range(deaths):
        survive(operator, chance.uniform(1.5, 4.0))
        if death % 2:
            bench.nats.kill()
        operator.kill()
        operator.restart()
        if not bench.nats.alive:
            survive(operator, chance.uniform(0.5, 4.0))
            bench.nats.start()
        if death == 2:
            bench.apply(*(run_of(bench, name, kind, cancel=True) for name, kind in names.items() if kind == "cancel"))
    all_ended_well(bench, {name: ENDS[kind] for name, kind in names.items()}, within=90)


@pytest.mark.parametrize(
    ("backend", "kind", "point"),
    [(backend, kind, point) for backend in BACKENDS for kind, point in KILLS if backend == "local" or kind != "refuse"],
)
@scenario
def test_a_run_ends_once_and_right_when_the_operator_is_killed(bench: Bench, backend: str, kind: str, point: str) -> None:
    operator = bench.operator(fault=point, leaderElection={"enabled": False}).start()
    bench.prepare()
    bench.apply(run_of(bench, "it", kind))
    if kind == "cancel":
        bench.wait("it", "running")
        bench.apply(run_of(bench, "it", kind, cancel=True))
    assert operator.wait_end() == -signal.SIGKILL
    operator.restart()
    ended_well(bench, "it", ENDS[kind])


def run_of(bench: Bench, name: str, kind: str, **spec: Any) -> dict[str, Any]:
    """A Run of one of the `ENDS`."""
    mode = {"cancel": "hang", "refuse": "succeed"}.get(kind, kind)
    return bench.run(name, mode, parameters={"unknown": 1} if kind == "refuse" else {}, **spec)


def survive(operator: Operator, within: float) -> None:
    """Give the operator this long, and fail if it ends without being killed."""
    with suppress(subprocess.TimeoutExpired):
        raise AssertionError(f"the operator ended with {operator.wait_end(within)}\n{operator.tail()}")
