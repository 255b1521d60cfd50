"""What is decided for RunSchedules that the Go operator has made. All else: tests of the controller, over years of virtual time."""

from typing import Any

from kfp_operator.api.conditions import find
from kfp_operator.api.names import GO_FINALIZER, Names
from kfp_operator.api.run_schedule import RunSchedule
from kfp_operator.reconcile.run_schedule import ReleaseSchedule, ScheduleSituation, WriteScheduleStatus, decide_run_schedule
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
