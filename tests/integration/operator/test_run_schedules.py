"""RunSchedules on real parts and by the real clock: what users see, and that each tick has one Run whoever is killed when."""

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kfp_operator.api.run import Run
from kfp_operator.api.run_schedule import RunSchedule
from tests.integration.crds import columns
from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import API_VERSION, NAMES, Bench
from tests.integration.operator.together import scenario
from tests.waiting import eventually


def schedule(name: str, expression: str, *, pipeline: str = "missing", **spec: Any) -> dict[str, Any]:
    """A RunSchedule. Its Runs wait for a Pipeline that is not there, which costs nothing, unless another one is named."""
    made = {"pipeline": pipeline, "schedule": {"cronExpression": expression}} | spec
    return {"apiVersion": API_VERSION, "kind": "RunSchedule", "metadata": {"name": name}, "spec": made}


def get(bench: Bench, name: str) -> RunSchedule:
    found = bench.document("mlrs", name)
    assert found is not None
    return RunSchedule.parse(found)


def runs_of(bench: Bench, name: str) -> dict[datetime, Run]:
    """The Runs of a schedule by the ticks in their names."""
    found = [run for run in bench.runs().values() if run.metadata.labels.get(NAMES.run_schedule) == name]
    return {datetime.fromtimestamp(int(run.metadata.name.rpartition("-")[2]), UTC): run for run in found}


def wait_runs(bench: Bench, name: str, count: int, within: float = 60) -> dict[datetime, Run]:
    return eventually(lambda: found if len(found := runs_of(bench, name)) >= count else None, within, f"{name} has {count} Runs")


def in_step(ticks: dict[datetime, Run], seconds: int) -> None:
    """No tick between the first and the last is left out."""
    times = sorted(ticks)
    assert times == [times[0] + timedelta(seconds=seconds * n) for n in range(len(times))]


@scenario
def test_runs_come_by_the_clock_one_after_the_other_and_old_ones_go(bench: Bench) -> None:
    bench.operator().start().wait_ready(60)
    bench.prepare()
    spec: dict[str, Any] = {"parameters": [{"name": "mode", "value": "succeed"}], "successfulRunsHistoryLimit": 1}
    bench.apply(schedule("often", "*/4 * * * * *", pipeline=bench.scenario, concurrencyPolicy="Forbid", **spec))
    eventually(lambda: get(bench, "often").status.last_successful_time, 120, "a run of the schedule succeeded")

    def replaced() -> dict[datetime, Run] | None:
        found = runs_of(bench, "often")
        first = min(found, default=None)
        return found if first is not None and first > began and len(found) <= 2 else None

    began = min(runs_of(bench, "often"))
    eventually(replaced, 120, "the first Run was deleted by the history limit")
    status = get(bench, "often").status
    assert status.next_schedule_time is not None
    assert status.last_schedule_time is not None
    assert status.next_schedule_time.second % 4 == status.last_schedule_time.second % 4 == 0
    assert len(status.active) <= 1
    told = [d for d in Reader(bench.nats.url).completions() if d["trigger"]["type"] == "schedule"]
    assert told[0]["trigger"]["source"] == f"{bench.namespace}/often"
    Reader(bench.nats.url).once_each()

    bench.patch("mlrs", "often", spec={"suspend": True})
    bench.wait_reason("mlrs", "often", "Suspended")
    eventually(lambda: not get(bench, "often").status.active, 60, "what was in flight has ended")
    count, writes = len(runs_of(bench, "often")), bench.document("mlrs", "often")
    later = datetime.now(UTC) + timedelta(seconds=6)
    eventually(lambda: datetime.now(UTC) > later, 10, "a tick has passed")
    assert len(runs_of(bench, "often")) == count
    assert bench.document("mlrs", "often") == writes, "an idle schedule is not written"

    events = json.loads(bench.cluster.kubectl("get", "events", "-n", bench.namespace, "-o", "json").stdout)["items"]
    reasons = {e["reason"] for e in events if e["involvedObject"]["kind"] == "RunSchedule"}
    assert reasons >= {"RunStarted", "RunEnded", "Suspended"}
    [row] = columns(bench.cluster.kubectl("get", "mlrs", "-n", bench.namespace).stdout)
    assert (row["NAME"], row["SCHEDULE"], row["SUSPEND"], row["REASON"]) == ("often", "*/4 * * * * *", "true", "Suspended")
    bench.delete("mlrs", "often")
    eventually(lambda: not runs_of(bench, "often"), 60, "its Runs are gone with it")


@pytest.mark.parametrize("point", ["run-created:2", "schedule-written:3"])
@scenario
def test_each_tick_has_one_run_though_the_operator_is_killed_in_the_middle_of_one(bench: Bench, point: str) -> None:
    operator = bench.operator(leaderElection={"enabled": False}, fault=point).start().wait_ready(60)
    bench.apply(schedule("ticks", "*/2 * * * * *", catchUp="All"))
    assert operator.wait_end(60) == -signal.SIGKILL
    before = set(runs_of(bench, "ticks"))
    assert before
    operator.restart().wait_ready(60)
    found = wait_runs(bench, "ticks", len(before) + 3)
    in_step(found, 2)
    status = eventually(lambda: s if (s := get(bench, "ticks").status).scheduled_until else None, 20, "ticks are dealt with")
    assert status.last_schedule_time == status.scheduled_until


@scenario
def test_a_standby_goes_on_where_the_leader_was_killed(bench: Bench) -> None:
    first, second = bench.operator("first"), bench.operator("second")
    first.start().wait_ready(60)
    eventually(lambda: first.metric("kfp_operator_leader") == 1, 60, "the first operator leads")
    second.start().wait_ready(60)
    bench.apply(schedule("ticks", "*/2 * * * * *", catchUp="All"))
    wait_runs(bench, "ticks", 2)
    first.kill()
    eventually(lambda: second.metric("kfp_operator_leader") == 1, 60, "the second operator leads")
    count = len(runs_of(bench, "ticks"))
    in_step(wait_runs(bench, "ticks", count + 3), 2)


@scenario
def test_what_the_operator_and_the_api_server_refuse_is_told(bench: Bench) -> None:
    bench.operator().start().wait_ready(60)
    nowhere = {"cronExpression": "@daily", "timeZone": "Europe/Pari"}
    bench.apply(schedule("wrong", "0 25 * * *"), schedule("nowhere", "", schedule=nowhere))
    bench.wait_reason("mlrs", "wrong", "InvalidSchedule", says='spec.schedule.cronExpression: hour "25" of "0 25 * * *" cannot be')
    bench.wait_reason("mlrs", "nowhere", "InvalidSchedule", says='timeZone: "Europe/Pari" is not a time zone; did you mean Europe/Paris')
    assert bench.condition("mlrs", "wrong", "Stalled") is not None

    spec = {"hard": {"count/runs.kfp-operator.dev": "1"}}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": spec}
    bench.apply(quota)

    def counted() -> bool:
        found = json.loads(bench.cluster.kubectl("get", "resourcequota", "few", "-n", bench.namespace, "-o", "json").stdout)
        return "count/runs.kfp-operator.dev" in found.get("status", {}).get("used", {})

    eventually(counted, 60, "the quota is counted")
    bench.apply(schedule("much", "*/2 * * * * *"))
    bench.wait_reason("mlrs", "much", "RunRefused", says="exceeded quota")
    assert len(runs_of(bench, "much")) == 1
    bench.cluster.kubectl("delete", "resourcequota", "few", "-n", bench.namespace)
    bench.wait_reason("mlrs", "much", "Scheduled", within=90)
    assert len(runs_of(bench, "much")) > 1

    bench.apply(schedule("clash", "0 0 1 1 *"))
    bench.wait_reason("mlrs", "clash", "Scheduled")
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
    taken = f"clash-{int(soon.timestamp())}"
    bench.apply(bench.run(taken, pipeline="missing"))
    bench.patch("mlrs", "clash", spec={"schedule": {"cronExpression": f"{soon.second} * * * * *"}})
    bench.wait_reason("mlrs", "clash", "RunNameTaken", says=f"Run {bench.namespace}/{taken} exists and is not of RunSchedule clash")
