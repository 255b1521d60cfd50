"""RunSchedules over hours and years of virtual time: one Run per tick, whatever policies, people and the API server do."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from kfp_operator.api import conditions
from kfp_operator.api.run import Run
from kfp_operator.api.states import RunState
from kfp_operator.errors import ClusterError, ClusterUnavailable, Forbidden, Unprocessable
from kfp_operator.operator.store import Key
from tests.doubles.schedule_world import BEGIN, KEY, World, tick

HOUR = timedelta(hours=1)


def hours(*numbers: float) -> list[datetime]:
    return [BEGIN + HOUR * number for number in numbers]


def names(*numbers: float) -> list[str]:
    return [f"nightly-{int(time.timestamp())}" for time in hours(*numbers)]


async def test_each_tick_makes_one_run_of_the_spec_owned_and_labelled() -> None:
    world = World(
        parameters=[{"name": "n", "value": {"a": None}}, {"name": "m", "value": "3"}],
        artifacts=[{"name": "model", "path": "train:model"}],
        retries=2,
        experimentName="exp",
    )
    await world.run_until(hours(2.5)[0])
    assert world.api.order == names(1, 2)
    run = world.runs[names(1)[0]]
    (owner,) = run.metadata.owner_references
    assert (owner.kind, owner.name, owner.uid, owner.controller) == ("RunSchedule", "nightly", "schedule-1", True)
    group = "kfp-operator.dev"
    assert run.metadata.labels == {
        f"{group}/runschedule": "nightly",
        f"{group}/trigger-type": "schedule",
        f"{group}/trigger-source": "nightly",
        f"{group}/trigger-source-namespace": "team",
    }
    assert run.metadata.annotations == {f"{group}/scheduled-time": "2026-01-01T01:00:00Z"}
    assert (run.spec.pipeline, run.spec.experiment_name, run.spec.retries) == ("train", "exp", 2)
    assert [(p.name, p.value) for p in run.spec.parameters] == [("n", {"a": None}), ("m", "3")]
    assert run.spec.artifacts[0].path == "train:model"


async def test_status_reads_as_that_of_a_cronjob() -> None:
    world = World()
    await world.run_until(hours(2.5)[0])
    status = world.schedule.status
    assert [run.name for run in status.active] == names(1, 2)
    assert (status.last_schedule_time, status.next_schedule_time, status.last_successful_time) == (hours(2)[0], hours(3)[0], None)
    version = hashlib.sha1(b"train\0\0\0\0" + b"0 * * * *\0", usedforsecurity=False).hexdigest()[:6]
    assert (status.version, status.observed_generation) == (version, 1)
    assert world.ready() == ("True", "Scheduled")
    world.end(names(1)[0])
    await world.settle()
    status = world.schedule.status
    assert [run.name for run in status.active] == names(2)
    assert status.last_successful_time == hours(2.5)[0]
    assert world.notes.reasons() == ["RunStarted", "RunStarted", "RunEnded"]


async def test_a_quiet_schedule_writes_status_once_per_tick_and_once_per_end_and_never_when_idle() -> None:
    world = World("*/10 * * * *")
    await world.settle()
    assert world.api.status_writes == 1, "it is ready"
    for number in range(1, 7):
        await world.run_until(BEGIN + timedelta(minutes=10 * number))
        assert world.api.status_writes == 2 * number
        world.pass_time(seconds=30)
        world.end(world.api.order[-1])
        await world.settle()
        assert world.api.status_writes == 2 * number + 1
    for _ in range(3):
        world.restart()
        world.pass_time(seconds=20)
        await world.settle()
    assert world.api.status_writes == 13


async def test_a_new_schedule_starts_nothing_for_the_time_before_it() -> None:
    world = World("0 0 1 1 *")
    await world.run_until(BEGIN + timedelta(days=3))
    assert world.api.order == []
    assert world.schedule.status.next_schedule_time == datetime(2027, 1, 1, tzinfo=UTC)


# Time


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana"])
async def test_three_years_of_nights_are_run_once_each_over_all_changes_of_clocks(zone: str) -> None:
    world = World("30 2 * * *", timeZone=zone, successfulRunsHistoryLimit=1)
    until = datetime(2029, 1, 2, tzinfo=UTC)
    while world.api.now < until:
        world.pass_time(hours=13)
        await world.settle()
        for name in world.active:
            world.end(name)
    days = [time.astimezone(ZoneInfo(zone)).date() for time in world.started]
    assert days == [days[0] + timedelta(days=n) for n in range(len(days))]
    assert len(days) in (1097, 1098)
    assert set(world.api.created.values()) == {1}
    assert len(world.runs) <= 3


async def test_leap_days_and_ends_of_months_come_when_the_calendar_says() -> None:
    world = World("0 0 29 2 *")
    while world.api.now.year < 2033:
        world.pass_time(days=25)
        await world.settle()
    assert [time.strftime("%Y-%m-%d") for time in world.started] == ["2028-02-29", "2032-02-29"]
    world = World("0 12 L * *")
    while world.api.now.month < 5:
        world.pass_time(days=9)
        await world.settle()
    assert [time.strftime("%m-%d") for time in world.started] == ["01-31", "02-28", "03-31", "04-30"]


@pytest.mark.parametrize(
    ("catch_up", "deadline", "started", "missed"),
    [
        ("Latest", None, hours(5), "4 ticks up to 2026-01-01T05:00:00Z got no Run"),
        ("All", None, hours(1, 2, 3, 4, 5), ""),
        ("None", None, [], "5 ticks up to"),
        ("None", 3600, hours(5), "4 ticks up to"),
        ("Latest", 600, [], "5 ticks up to"),
        ("All", 6000, hours(4, 5), "3 ticks up to"),
    ],
)
async def test_after_a_downtime_what_was_missed_is_made_up_for_as_asked_and_told(
    catch_up: str, deadline: int | None, started: list[datetime], missed: str
) -> None:
    spec: dict[str, Any] = {"catchUp": catch_up} | ({"startingDeadlineSeconds": deadline} if deadline else {})
    world = World(**spec)
    await world.settle()
    world.pass_time(hours=5.5)
    world.restart()
    await world.settle()
    assert world.started == started
    told = [message for reason, message in world.notes.told if reason == "MissedSchedule"]
    assert (missed in told[0]) if missed else not told
    await world.run_until(hours(7.5)[0])
    assert world.started == started + hours(6, 7)
    assert len([reason for reason in world.notes.reasons() if reason == "MissedSchedule"]) == len(told), "told once"


async def test_a_month_without_an_operator_makes_at_most_a_hundred_runs_of_an_every_second_schedule() -> None:
    world = World("* * * * * *", catchUp="All")
    await world.settle()
    world.pass_time(days=30)
    for _ in range(30):
        await world.reconcile()
    assert len(world.api.order) == 100
    assert world.started[-1] == BEGIN + timedelta(days=30)
    assert [m for r, m in world.notes.told if r == "MissedSchedule"] == [
        "more than 100 ticks up to 2026-01-31T00:00:00Z got no Run: they came while none could be started"
    ]


async def test_a_schedule_with_much_to_do_gives_others_their_turn() -> None:
    world = World("* * * * * *", catchUp="All")
    await world.settle()
    world.pass_time(minutes=10)
    await world.reconcile()
    assert 5 <= len(world.api.order) <= 20
    assert world.again is not None
    assert 0 < world.again < 1


async def test_a_clock_set_back_by_hours_repeats_nothing_and_goes_on_where_it_was() -> None:
    world = World(successfulRunsHistoryLimit=0)
    await world.run_until(hours(10.5)[0])
    for name in world.active:
        world.end(name)
    await world.settle()
    assert world.runs == {}
    world.pass_time(hours=-6)
    world.restart()
    await world.run_until(hours(12.5)[0])
    assert world.started == hours(*range(1, 13))


async def test_a_clock_that_was_years_ahead_costs_one_run_and_is_told() -> None:
    world = World()
    await world.run_until(hours(1.5)[0])
    world.pass_time(days=3652)
    await world.settle()
    assert len(world.api.order) == 2
    world.pass_time(days=-3652)
    await world.run_until(hours(4.5)[0])
    assert world.started == [*hours(1), datetime(2036, 1, 1, 1, tzinfo=UTC), *hours(2, 3, 4)]
    assert "ClockSetBack" in world.notes.reasons()
    assert world.schedule.status.last_schedule_time == hours(4)[0]


async def test_nothing_starts_before_the_start_or_after_the_end() -> None:
    world = World(startTime="2026-01-01T02:30:00Z", endTime="2026-01-01T04:00:00Z")
    await world.run_until(hours(9)[0])
    assert world.started == hours(3, 4)
    assert world.ready() == ("True", "Ended")
    assert "no tick is left before endTime 2026-01-01T04:00:00Z" in world.schedule.status.message
    assert world.schedule.status.next_schedule_time is None


# People


async def test_an_edit_of_the_schedule_starts_nothing_for_the_past_and_leaves_runs_alone() -> None:
    world = World("0 12 * * *")
    await world.run_until(hours(14)[0])
    world.apply("0 6,15 * * *")
    await world.settle()
    assert world.started == hours(12)
    assert world.active == names(12)
    await world.run_until(hours(16)[0])
    assert world.started == hours(12, 15)


async def test_an_edit_of_what_is_run_holds_from_the_next_tick_and_forgets_none() -> None:
    world = World()
    await world.run_until(hours(1.5)[0])
    world.restart()
    world.pass_time(hours=1)
    world.apply(pipeline="other:v2")
    await world.run_until(hours(3.5)[0])
    assert world.started == hours(1, 2, 3)
    assert [run.spec.pipeline for run in world.runs.values()] == ["train", "other:v2", "other:v2"]


async def test_a_suspended_schedule_starts_nothing_and_makes_up_for_nothing() -> None:
    world = World(catchUp="All")
    await world.run_until(hours(1.5)[0])
    world.apply(catchUp="All", suspend=True)
    await world.run_until(hours(4.5)[0])
    assert world.started == hours(1)
    assert world.ready() == ("True", "Suspended")
    assert world.schedule.status.next_schedule_time is None
    assert world.active == names(1), "runs in flight go on"
    world.end(names(1)[0])
    await world.settle()
    assert world.schedule.status.active == []
    world.apply(catchUp="All", suspend=False)
    world.restart()
    await world.run_until(hours(5.5)[0])
    assert world.started == hours(1, 5)
    assert world.notes.reasons().count("ScheduleChanged") == 1


async def test_what_cannot_be_a_schedule_stalls_and_says_why_and_recovers_without_making_up_for_it() -> None:
    world = World("0 25 * * *")
    await world.settle()
    assert world.ready() == ("False", "InvalidSchedule")
    stalled = conditions.find(world.schedule.status.conditions, "Stalled")
    assert stalled is not None
    assert stalled.message.startswith('spec.schedule.cronExpression: hour "25" of "0 25 * * *" cannot be; use')
    assert world.schedule.status.observed_generation == 1
    world.restart()
    await world.settle()
    assert (world.api.status_writes, world.notes.reasons()) == (1, ["InvalidSchedule"])
    world.pass_time(hours=3.5)
    world.apply("0 * * * *")
    await world.run_until(hours(4.5)[0])
    assert world.started == hours(4)
    assert world.ready() == ("True", "Scheduled")


async def test_a_deleted_schedule_starts_nothing_and_a_new_one_of_its_name_begins_anew() -> None:
    world = World()
    await world.run_until(hours(2.5)[0])
    gone = world.schedule.metadata.model_copy(update={"deletion_timestamp": world.api.now})
    world.api.put(world.schedule.model_copy(update={"metadata": gone}))
    world.pass_time(hours=1)
    await world.settle()
    assert world.started == hours(1, 2)
    for key in [KEY, *(Key("Run", "team", name) for name in world.runs)]:
        world.api.remove(key)
    world.apply(uid="schedule-2")
    await world.run_until(hours(4.5)[0])
    assert world.started == hours(1, 2, 4)


async def test_runs_deleted_by_hand_are_not_made_again() -> None:
    world = World(catchUp="All")
    await world.run_until(hours(2.5)[0])
    world.api.remove(Key("Run", "team", names(2)[0]))
    world.restart()
    await world.run_until(hours(3.5)[0])
    assert world.started == hours(1, 2, 3)
    assert ("RunGone", f"Run {names(2)[0]} was deleted") in world.notes.told


# Policies


async def test_allow_lets_runs_pile_up() -> None:
    world = World()
    await world.run_until(hours(3.5)[0])
    assert world.active == names(1, 2, 3)


async def test_forbid_skips_ticks_while_a_run_is_active_for_good() -> None:
    world = World(concurrencyPolicy="Forbid")
    await world.run_until(hours(3.5)[0])
    assert world.started == hours(1)
    skipped = [message for reason, message in world.notes.told if reason == "RunSkipped"]
    assert skipped[0] == f"the tick of 2026-01-01T02:00:00Z is skipped: Run {names(1)[0]} has not ended (concurrencyPolicy Forbid)"
    assert world.schedule.status.last_schedule_time == hours(1)[0]
    world.end(names(1)[0])
    world.restart()
    await world.run_until(hours(4.5)[0])
    assert world.started == hours(1, 4)


async def test_replace_stops_the_run_that_is_active_and_starts_the_new_one() -> None:
    world = World(concurrencyPolicy="Replace")
    await world.run_until(hours(2.5)[0])
    assert world.started == hours(1, 2)
    assert [run.spec.cancel for run in world.runs.values()] == [True, False]
    assert ("RunReplaced", f"Run {names(1)[0]} is stopped for the tick of 2026-01-01T02:00:00Z") in world.notes.told
    await world.run_until(hours(3.5)[0])
    assert [run.spec.cancel for run in world.runs.values()] == [True, True, False]
    assert world.notes.reasons().count("RunReplaced") == 2, "a Run that is being stopped is not stopped again"


async def test_replace_after_a_downtime_starts_the_latest_only() -> None:
    world = World(concurrencyPolicy="Replace", catchUp="All")
    await world.settle()
    world.pass_time(hours=4.5)
    await world.settle()
    assert world.started == hours(4)


async def test_queue_latest_starts_the_latest_tick_when_the_run_has_ended() -> None:
    world = World(concurrencyPolicy="QueueLatest")
    await world.run_until(hours(3.5)[0])
    assert world.started == hours(1)
    assert world.schedule.status.queued_time == hours(3)[0]
    assert world.ready() == ("True", "Scheduled")
    assert world.schedule.status.message == f"the tick of 2026-01-01T03:00:00Z waits: Run {names(1)[0]} has not ended"
    world.restart()
    world.end(names(1)[0])
    await world.settle()
    assert world.started == hours(1, 3)
    assert world.schedule.status.queued_time is None
    assert world.schedule.status.last_schedule_time == hours(3)[0]
    world.end(names(3)[0])
    await world.run_until(hours(4.5)[0])
    assert world.started == hours(1, 3, 4)


@pytest.mark.parametrize(
    ("edit", "then"),
    [
        ({"concurrencyPolicy": "Allow"}, [1, 3]),
        ({"concurrencyPolicy": "Forbid"}, [1]),
        ({"concurrencyPolicy": "QueueLatest", "suspend": True}, [1]),
        ({"concurrencyPolicy": "QueueLatest", "startingDeadlineSeconds": 60}, [1]),
    ],
)
async def test_a_tick_that_waits_obeys_what_is_said_meanwhile(edit: dict[str, Any], then: list[int]) -> None:
    world = World(concurrencyPolicy="QueueLatest")
    await world.run_until(hours(3.5)[0])
    world.apply(**edit)
    await world.settle()
    assert world.started == hours(*then)
    assert world.schedule.status.queued_time is None


async def test_a_waiting_tick_outlives_an_edit_of_the_schedule_but_not_its_deadline() -> None:
    world = World(concurrencyPolicy="QueueLatest", startingDeadlineSeconds=5400)
    await world.run_until(hours(2.5)[0])
    world.apply("0 12 * * *", concurrencyPolicy="QueueLatest", startingDeadlineSeconds=5400)
    await world.run_until(hours(3.4)[0])
    assert world.schedule.status.queued_time == hours(2)[0]
    await world.run_until(hours(3.6)[0])
    assert world.schedule.status.queued_time is None
    assert "waited for longer than startingDeadlineSeconds" in world.notes.told[-1][1]


# History


async def test_only_so_many_runs_are_kept_by_outcome_and_never_an_active_one() -> None:
    world = World("*/10 * * * *", successfulRunsHistoryLimit=2, failedRunsHistoryLimit=1)
    for number in range(1, 13):
        await world.run_until(BEGIN + timedelta(minutes=10 * number))
        if number not in (2, 5):
            world.end(world.api.order[-1], RunState.FAILED if number % 3 == 0 else RunState.SUCCEEDED)
    await world.settle()
    kept = sorted((tick(name) - BEGIN).total_seconds() / 600 for name in world.runs)
    assert kept == [2, 5, 10, 11, 12]
    assert [run.name for run in world.schedule.status.active] == names(2 / 6, 5 / 6)


async def test_runs_that_are_not_its_own_are_left_alone() -> None:
    world = World(successfulRunsHistoryLimit=0, concurrencyPolicy="Forbid")
    foreign = Run.parse({"metadata": {"name": "nightly-17", "namespace": "team", "uid": "foreign"}, "spec": {"pipeline": "train"}})
    world.api.put(foreign)
    await world.run_until(hours(1.5)[0])
    assert world.started == hours(1)
    world.end("nightly-17")
    world.end(names(1)[0])
    await world.settle()
    assert list(world.runs) == ["nightly-17"]


async def test_a_lower_limit_deletes_many_in_turns() -> None:
    world = World("* * * * *", successfulRunsHistoryLimit=10_000)
    for number in range(1, 101):
        await world.run_until(BEGIN + timedelta(minutes=number))
        world.end(world.api.order[-1])
    await world.settle()
    assert len(world.runs) == 100
    world.apply("* * * * *", successfulRunsHistoryLimit=1)
    await world.settle()
    assert len(world.runs) == 1


# The API server


REFUSALS = [
    Forbidden("exceeded quota: runs", status=403),
    Forbidden("namespace team is being terminated", status=403),
    Unprocessable('admission webhook "deny.example.org" denied the request', status=400),
    ClusterError("a webhook answers a teapot", status=418),
    ClusterUnavailable("failed calling webhook", status=500),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: str(refusal.status))
async def test_a_refused_run_is_shown_told_and_tried_again_until_it_is_taken(refusal: ClusterError) -> None:
    world = World(startingDeadlineSeconds=1800)
    await world.run_until(hours(0.9)[0])
    world.api.refusal = refusal
    await world.run_until(hours(1.1)[0])
    assert world.ready() == ("False", "RunRefused")
    assert world.schedule.status.message == f"the Run for the tick of 2026-01-01T01:00:00Z cannot be created: {refusal}"
    assert world.schedule.status.scheduled_until is None
    assert 5 <= world.notes.reasons().count("RunRefused") <= 15, "with a backoff"
    assert world.api.status_writes == 2
    world.api.refusal = None
    await world.run_until(hours(1.2)[0])
    assert world.started == hours(1)
    assert world.ready() == ("True", "Scheduled")


@pytest.mark.parametrize(("catch_up", "started"), [("Latest", [3]), ("All", [1, 2, 3]), ("None", [])])
async def test_ticks_that_could_start_nothing_count_as_missed(catch_up: str, started: list[int]) -> None:
    world = World(catchUp=catch_up)
    await world.run_until(hours(0.5)[0])
    world.api.refusal = REFUSALS[0]
    await world.run_until(hours(3.5)[0])
    world.api.refusal = None
    await world.run_until(hours(3.9)[0])
    assert world.started == hours(*started)
    assert ("MissedSchedule" in world.notes.reasons()) is (catch_up != "All")
    assert world.ready() == ("True", "Scheduled")


async def test_a_refusal_does_not_keep_history_from_being_deleted() -> None:
    world = World(successfulRunsHistoryLimit=1)
    await world.run_until(hours(2.5)[0])
    world.api.refusal = REFUSALS[0]
    await world.run_until(hours(3.1)[0])
    for name in names(1, 2):
        world.end(name)
    await world.run_until(hours(3.2)[0])
    assert list(world.runs) == names(2)
    assert world.schedule.status.last_successful_time is not None


async def test_an_edit_tries_at_once_what_was_refused() -> None:
    world = World()
    await world.run_until(hours(0.5)[0])
    world.api.refusal = REFUSALS[0]
    await world.run_until(hours(1.5)[0])
    world.api.refusal = None
    world.apply(experimentName="other")
    await world.reconcile()
    assert world.started == hours(1)


async def test_a_name_that_somebody_else_has_is_told_until_it_is_free() -> None:
    world = World()
    await world.run_until(hours(0.5)[0])
    taken = {"name": names(1)[0], "namespace": "team", "uid": "foreign"}
    world.api.put(Run.parse({"metadata": taken, "spec": {"pipeline": "train"}}))
    await world.run_until(hours(1.1)[0])
    assert world.ready() == ("False", "RunNameTaken")
    assert f"Run team/{names(1)[0]} exists and is not of RunSchedule nightly; delete it" in world.schedule.status.message
    assert world.schedule.status.active == []
    world.api.remove(Key("Run", "team", names(1)[0]))
    await world.run_until(hours(1.2)[0])
    assert world.started == hours(1)


async def test_a_run_that_is_there_already_is_taken_for_the_ticks() -> None:
    """Another leader made it, and this process has not heard of it."""
    world = World()
    await world.settle()
    other = World()
    await other.run_until(hours(1)[0])
    world.pass_time(hours=1)
    stores, world.api.stores = world.api.stores, []
    world.api.put(other.runs[names(1)[0]])
    world.api.stores = stores
    await world.settle()
    assert world.api.order == []
    assert [run.name for run in world.schedule.status.active] == names(1)
    assert world.schedule.status.last_schedule_time == hours(1)[0]


async def test_runs_that_cannot_be_deleted_do_not_stop_the_schedule() -> None:
    world = World(successfulRunsHistoryLimit=0)
    await world.run_until(hours(1.5)[0])
    world.end(names(1)[0])

    world.api.undeletable = True
    await world.run_until(hours(2.5)[0])
    assert world.started == hours(1, 2)
    assert world.ready() == ("True", "Scheduled")
    assert 1 < world.notes.reasons().count("HistoryKept") <= 15
    world.api.undeletable = False
    await world.run_until(hours(2.7)[0])
    assert list(world.runs) == names(2)
