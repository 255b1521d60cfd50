"""What is decided for RunSchedules, step by step, and for those that the Go operator has made.

All else: tests of the controller, over years of virtual time.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from kfp_operator.api.conditions import find
from kfp_operator.api.names import GO_FINALIZER, Names
from kfp_operator.api.run import RunTemplate
from kfp_operator.api.run_schedule import RunSchedule, RunScheduleSpec
from kfp_operator.api.states import RunState
from kfp_operator.reconcile.run_schedule import (
    DeleteRuns,
    Refused,
    ReleaseSchedule,
    ScheduleDecision,
    ScheduleSituation,
    StartRun,
    WriteScheduleStatus,
    decide_run_schedule,
    tick_of,
)
from kfp_operator.reconcile.starting import OwnedRun
from tests import builders as b

GO = Names("pipelines.kubeflow.org")
LEFT = {
    "provider": {"name": "kfp/kfp", "id": "recurring-7"},
    "version": "30e59e",
    "conditions": [{"type": "Synchronized", "status": "True", "reason": "Succeeded", "lastTransitionTime": "2025-06-03T10:11:12Z"}],
}


def schedule(status: dict[str, Any] | None = None, **metadata: Any) -> RunSchedule:
    """RunSchedule team/hourly as the Go operator leaves it."""
    known = {"name": "hourly", "namespace": "team", "uid": "u", "generation": 1, "creationTimestamp": "2025-06-03T10:11:12Z"}
    spec = {"pipeline": "train", "schedule": {"cronExpression": "0 * * * *"}}
    return RunSchedule.parse({"metadata": known | metadata, "spec": spec, "status": LEFT if status is None else status})


def situation(subject: RunSchedule, names: Names = GO) -> ScheduleSituation:
    return ScheduleSituation(schedule=subject, runs=(), refused=None, prune_after=None, now=b.NOW, names=names)


def test_a_schedule_of_the_go_operator_begins_with_the_next_tick_and_its_own_at_the_backend_is_named() -> None:
    written = decide_run_schedule(situation(schedule())).action
    assert isinstance(written, WriteScheduleStatus)
    assert [told.reason for told in written.told if told.warning] == ["ScheduledElsewhere"]
    assert "recurring-7" in written.told[-1].message
    assert written.status.next_schedule_time == b.at(3600)
    again = decide_run_schedule(situation(schedule().model_copy(update={"status": written.status})))
    assert again.action is None


def test_a_schedule_of_the_go_operator_makes_up_for_nothing() -> None:
    """It followed its schedule elsewhere until now."""
    for known in ({}, {"observedGeneration": 1}):
        written = decide_run_schedule(situation(schedule(LEFT | known))).action
        assert isinstance(written, WriteScheduleStatus)
        assert written.status.scheduled_until == b.NOW


def test_a_schedule_that_a_run_configuration_controls_starts_nothing() -> None:
    """The Go operator makes one for each schedule of a RunConfiguration; ours would start each of its runs twice."""
    owner = {"apiVersion": "v1beta1", "kind": "RunConfiguration", "name": "nightly", "uid": "rc", "controller": True}
    written = decide_run_schedule(situation(schedule(ownerReferences=[owner]))).action
    assert isinstance(written, WriteScheduleStatus)
    ready = find(written.status.conditions, "Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == ("True", "Superseded")
    assert "RunConfiguration nightly" in ready.message
    assert written.status.next_schedule_time is None
    told = schedule(ownerReferences=[owner]).model_copy(update={"status": written.status})
    decision = decide_run_schedule(situation(told))
    assert (decision.action, decision.again) == (None, None)


def test_a_schedule_of_somebody_elses_is_followed() -> None:
    owner = {"apiVersion": "v1", "kind": "Application", "name": "nightly", "uid": "app", "controller": True}
    written = decide_run_schedule(situation(schedule(ownerReferences=[owner]))).action
    assert isinstance(written, WriteScheduleStatus)
    assert written.status.next_schedule_time is not None


def test_a_deleted_schedule_of_the_go_operator_is_let_go_under_its_group() -> None:
    deleted = schedule(deletionTimestamp="2026-03-01T12:00:00Z", finalizers=[GO_FINALIZER])
    released = decide_run_schedule(situation(deleted)).action
    assert isinstance(released, ReleaseSchedule)
    assert "recurring-7" in released.told[0].message
    assert decide_run_schedule(situation(deleted, Names())).action is None


def test_nothing_is_told_of_a_schedule_that_never_got_to_the_backend() -> None:
    deleted = schedule({}, deletionTimestamp="2026-03-01T12:00:00Z", finalizers=[GO_FINALIZER])
    assert decide_run_schedule(situation(deleted)).action == ReleaseSchedule()


# Ours


def hourly(now: float, *runs: OwnedRun, refused: Refused | None = None, **spec: Any) -> ScheduleSituation:
    """RunSchedule team/hourly, created and seen at 12:00 (`b.NOW`), at so many hours later."""
    made = {"pipeline": "train", "schedule": {"cronExpression": "0 * * * *"}} | spec
    status = {"observedGeneration": 1, "schedule": "0 * * * *, UTC"}
    metadata = {"name": "hourly", "namespace": "team", "uid": "u", "generation": 1, "creationTimestamp": "2026-03-01T12:00:00Z"}
    subject = RunSchedule.parse({"metadata": metadata, "spec": made, "status": status})
    return ScheduleSituation(schedule=subject, runs=runs, refused=refused, prune_after=None, now=b.at(3600 * now), names=Names())


def made(hour: int, *, ended: bool = False) -> OwnedRun:
    """Its Run of that many hours after 12:00."""
    time = b.at(3600 * hour)
    state, end = (RunState.SUCCEEDED, time) if ended else (None, None)
    return OwnedRun(f"hourly-{int(time.timestamp())}", f"uid-{hour}", time, state=state, ended=end, settled=ended)


def written(s: ScheduleSituation) -> tuple[ScheduleSituation, WriteScheduleStatus]:
    """The situation after the status was written, and what was."""
    action = decide_run_schedule(s).action
    assert isinstance(action, WriteScheduleStatus)
    return replace(s, schedule=s.schedule.model_copy(update={"status": action.status})), action


def test_a_tick_is_known_to_be_dealt_with_before_the_next_is_started() -> None:
    """So a Run that somebody deletes between the two is not made again."""
    situation = hourly(2.5, made(1), catchUp="All")
    after, action = written(situation)
    assert action.status.scheduled_until == b.at(3600)
    following = decide_run_schedule(after).action
    assert isinstance(following, StartRun)
    assert following.tick == b.at(7200)


def test_a_run_that_ended_before_its_tick_was_known_is_not_deleted_before_that() -> None:
    after, action = written(hourly(1.5, made(1, ended=True), successfulRunsHistoryLimit=0))
    assert (action.status.scheduled_until, action.status.last_successful_time) == (b.at(3600), b.at(3600))
    assert decide_run_schedule(after).action == DeleteRuns((made(1, ended=True),))


def test_it_looks_again_at_the_next_tick_but_never_later_than_in_an_hour() -> None:
    idle, _ = written(hourly(0.25))
    assert decide_run_schedule(idle).again == 2700
    far, _ = written(hourly(0.25, schedule={"cronExpression": "0 0 1 1 *"}))
    assert decide_run_schedule(far).again == 3600


def test_what_was_refused_is_shown_first_and_tried_when_its_time_has_come() -> None:
    refused = Refused("RunRefused", "exceeded quota", b.at(3700), 1)
    after, action = written(hourly(1, refused=refused))
    ready = find(action.status.conditions, "Ready")
    assert ready is not None
    assert (ready.status, ready.reason, ready.message) == ("False", "RunRefused", "exceeded quota")
    assert find(action.status.conditions, "Reconciling") is not None
    assert decide_run_schedule(after) == ScheduleDecision(None, 100)
    assert isinstance(decide_run_schedule(replace(after, now=b.at(3700))).action, StartRun)


def test_a_name_that_leaves_no_room_for_those_of_runs_stalls() -> None:
    situation = hourly(1)
    metadata = situation.schedule.metadata.model_copy(update={"name": "n" * 201})
    _, action = written(replace(situation, schedule=situation.schedule.model_copy(update={"metadata": metadata})))
    stalled = find(action.status.conditions, "Stalled")
    assert stalled is not None
    assert stalled.reason == "NameTooLong"


@pytest.mark.parametrize(
    ("name", "tick"),
    [
        ("hourly-1772370000", b.at(3600)),
        ("hourly", None),
        ("hourly-x7k2p", None),
        ("hourly-17-1772370000", None),
        ("other-1772370000", None),
        ("hourly-" + "9" * 12, None),
        ("hourly-²", None),
    ],
)
def test_the_tick_of_a_run_stands_in_its_name(name: str, tick: datetime | None) -> None:
    assert tick_of(hourly(0).schedule, replace(made(1), name=name)) == tick


def test_everything_that_a_run_and_a_schedule_share_is_handed_on() -> None:
    kept_to_runs = {"ttl_seconds_after_finished", "deletion_policy"}
    assert set(RunTemplate.model_fields) - set(RunScheduleSpec.model_fields) == kept_to_runs
