"""How often the operator writes to a Run, counted by the API server."""

import re
from collections import Counter

import pytest

from tests.integration.operator.harness import NAMES, Bench
from tests.integration.operator.verdict import all_ended_well, ended_well
from tests.waiting import eventually

SAMPLE = re.compile(r"^apiserver_request_total\{(.*)\} ([0-9.e+]+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')
WRITES = frozenset({"POST", "PUT", "PATCH", "APPLY"})  # who deletes here is Kubernetes, which ends the namespaces of earlier tests


def writes(bench: Bench) -> Counter[tuple[str, str]]:
    """Requests of any outcome to change Runs that the API server has answered, by verb and subresource."""
    found: Counter[tuple[str, str]] = Counter()
    for labels, value in SAMPLE.findall(bench.ask(lambda client: client.raw("/metrics"))):
        of = dict(LABEL.findall(labels))
        if (of["group"], of["resource"]) == (NAMES.group, "runs") and of["verb"] in WRITES:
            found[of["verb"], of["subresource"]] += int(float(value))
    return found


@pytest.mark.usefixtures("control_plane")  # nobody else writes to Runs there
def test_a_run_that_queues_and_runs_takes_five_writes_and_none_once_it_has_settled(bench: Bench) -> None:
    operator = bench.operator().start().wait_ready()
    bench.prepare(maxActiveRuns=1)
    gate = bench.folder / "gate"
    bench.apply(bench.run("long", "wait", parameters={"wait_for": str(gate)}))
    bench.wait("long", "running")
    before = writes(bench)
    bench.apply(bench.run("counted"))
    bench.wait("counted", "queued")
    gate.touch()
    all_ended_well(bench, {"long": "succeeded", "counted": "succeeded"})
    made = writes(bench) - before
    assert made.pop(("POST", "")) == 1, "our own"
    # the end of the long Run takes its last status and the release of its finalizer
    assert sum(made.values()) - 2 <= 5, made
    assert set(made) == {("PATCH", ""), ("PATCH", "status")}, made

    settled, before = bench.runs(), writes(bench)
    operator.stop()
    operator.restart().wait_ready()
    bench.apply(bench.run("refused", parameters={"nonsense": 1}))  # when this has come to its end, the others had their turn
    ended_well(bench, "refused", "failed")
    made = writes(bench) - before
    made.subtract({("POST", ""): 1})
    assert sum(made.values()) == 3, "all for the refused Run: its finalizer, its status, its release"
    now = bench.runs()
    assert {name: now[name].metadata.resource_version for name in settled} == {n: r.metadata.resource_version for n, r in settled.items()}
    eventually(lambda: operator.metric("kfp_operator_workqueue_depth") == 0, 10, "nothing is left to do")
