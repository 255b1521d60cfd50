"""What the operator decides to do next for a Run."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kfp_operator.api.conditions import find
from kfp_operator.api.experiment import Experiment
from kfp_operator.api.names import GO_FINALIZER, Names
from kfp_operator.api.states import RunState
from kfp_operator.reconcile import actions as a
from kfp_operator.reconcile import run as r
from kfp_operator.reconcile import telling
from kfp_operator.reconcile.outcome import Collected, Refusal
from kfp_operator.reconcile.run import decide
from kfp_operator.reconcile.situation import Knowledge
from tests import builders as b

ACCEPTED = {"synchronizationState": "Succeeded", "providerId": "backend-1", "state": "running", "attempt": 1, "transition": 2}
FAILED = b.pipeline(status={"synchronizationState": "Failed", "message": "no pipeline", "conditions": b.stalled()})
SETTLED = {**ACCEPTED, "state": "succeeded", "completionState": "Succeeded", "endTime": "2026-03-01T12:00:00Z"}


def history(*states: str) -> list[dict[str, Any]]:
    return [{"state": s, "time": b.at(i).isoformat(), "attempt": 1} for i, s in enumerate(states)]


def waiting(decision: a.Decision) -> tuple[str, str, bool]:
    """Reason, message and whether a person must act, of a decision that writes a waiting status."""
    assert isinstance(decision.action, a.WriteStatus)
    status = decision.action.status
    ready = find(status.conditions, "Ready")
    assert ready is not None
    assert ready.status == "False"
    assert find(status.conditions, "Reconciling") is not None
    return ready.reason, status.message, find(status.conditions, "Stalled") is not None


@pytest.mark.parametrize(
    ("changes", "spec", "reason", "says", "stalled"),
    [
        pytest.param({"pipeline": None}, {}, "PipelineNotFound", "team/train", False, id="no pipeline"),
        pytest.param({"pipeline": b.pipeline(deleted=True)}, {}, "PipelineNotFound", "team/train", False, id="pipeline being deleted"),
        pytest.param({"pipeline": b.pipeline(status={})}, {}, "PipelineNotReady", "team/train", False, id="pipeline not synchronized"),
        pytest.param({}, {"pipeline": "train:abc"}, "PipelineVersionNotFound", "abc", False, id="unknown version"),
        pytest.param({"pipeline": FAILED}, {}, "PipelineNotReady", "no pipeline", True, id="pipeline that a person must mend"),
        pytest.param({"provider": None}, {}, "ProviderNotFound", "mlops/local", False, id="no provider"),
        pytest.param(
            {"provider": b.provider(usable=False, message="no kfp")}, {}, "ProviderNotReady", "no kfp", False, id="provider not ready"
        ),
        pytest.param(
            {"provider": b.provider(usable=False, message="no type", status={"conditions": b.stalled()})},
            {},
            "ProviderNotReady",
            "no type",
            True,
            id="provider that a person must mend",
        ),
        pytest.param(
            {"provider": b.provider(spec={"allowedNamespaces": ["x"]})}, {}, "ProviderForbidden", "namespace team", True, id="forbidden"
        ),
        pytest.param(
            {"provider": b.provider(spec={"allowedNamespaces": []})},
            {},
            "ProviderForbidden",
            "namespace team",
            True,
            id="local serves its own",
        ),
        pytest.param(
            {"experiment": b.experiment(status={"message": "no route to host"})},
            {"experimentName": "penguins"},
            "ExperimentNotReady",
            "team/penguins: no route to host",
            False,
            id="experiment not synchronized",
        ),
        pytest.param(
            {"experiment": b.experiment(status={"conditions": b.stalled()})},
            {"experimentName": "penguins"},
            "ExperimentNotReady",
            "team/penguins",
            True,
            id="experiment that a person must mend",
        ),
    ],
)
def test_a_run_that_cannot_start_says_what_it_waits_for(
    changes: dict[str, Any], spec: dict[str, Any], reason: str, says: str, stalled: bool
) -> None:
    told = waiting(decide(b.situation(b.run(spec=spec), **changes)))
    assert told[0] == reason
    assert says in told[1]
    assert told[2] is stalled


def test_a_run_that_waits_is_not_written_twice() -> None:
    first = decide(b.situation(b.run(), pipeline=None))
    assert isinstance(first.action, a.WriteStatus)
    again = b.run().model_copy(update={"status": first.action.status})
    assert decide(b.situation(again, pipeline=None)).action is None


def test_a_ready_run_is_bound_to_the_present_version_before_anything_is_submitted() -> None:
    assert decide(b.situation(b.run())).action == a.Bind(b.VERSION, "mlops/local")


def test_a_pinned_version_is_bound_though_the_pipeline_has_moved_on() -> None:
    subject = b.run(spec={"pipeline": "train:0ld"})
    moved_on = b.pipeline(status={"synchronizationState": "Updating", "version": "new"})
    assert decide(b.situation(subject, pipeline=moved_on, versions=frozenset({"0ld", "new"}))).action == a.Bind("0ld", "mlops/local")


def test_a_bound_run_is_submitted_with_the_version_on_its_label_whatever_the_pipeline_says_now() -> None:
    subject = b.run(bound=True)
    assert decide(b.situation(subject, known=b.knows(fresh=True), pipeline=None)).action == a.Submit(b.VERSION)


def test_a_run_bound_by_an_earlier_process_is_not_submitted_before_the_bus_was_asked() -> None:
    """Its completion (a refusal) may be stored: submitting again would start what was announced as failed."""
    subject = b.run(bound=True)
    assert decide(b.situation(subject, known=Knowledge())).action == a.Recall()
    assert decide(b.situation(subject, known=b.knows())).action == a.Submit(b.VERSION)
    assert decide(b.situation(subject, known=b.knows(completed={1}, published_at=b.NOW))).action is None
    reason, _, _ = waiting(decide(b.situation(subject, known=Knowledge(bus_away_since=b.NOW))))
    assert reason == "EventBusUnavailable"


def test_a_run_whose_provider_differs_from_the_pipelines_ends_failed() -> None:
    subject = b.run(spec={"provider": "mlops/other"})
    assert isinstance(decide(b.situation(subject)).action, a.Bind)
    bound = b.run(spec={"provider": "mlops/other"}, bound=True, labels={b.NAMES.pipeline_version: ""})
    decision = decide(b.situation(bound))
    assert isinstance(decision.action, a.PublishStatus)
    assert decision.action.event.state == "failed"
    assert "spec.provider" in decision.action.event.message


def test_a_retried_submission_says_so_and_goes_on() -> None:
    known = b.knows(fresh=True, trouble="connection refused", trouble_reason="ProviderUnavailable")
    subject = b.run(bound=True)
    first = decide(b.situation(subject, known=known))
    reason, message, _ = waiting(first)
    assert (reason, "connection refused" in message) == ("ProviderUnavailable", True)
    assert isinstance(first.action, a.WriteStatus)
    written = subject.model_copy(update={"status": first.action.status})
    assert decide(b.situation(written, known=known)).action == a.Submit(b.VERSION)


def test_every_state_the_backend_passed_is_published_in_order_with_the_next_number() -> None:
    subject, known = b.run(bound=True), b.knows(submitted=True, update=b.update("queued", "running"))
    first = decide(b.situation(subject, known=known)).action
    assert isinstance(first, a.PublishStatus)
    assert (first.event.transition, first.event.state, first.event.previous_state) == (1, "queued", "")
    known.published.add((1, RunState.QUEUED, b.at(0)))
    known.transition = 1
    second = decide(b.situation(subject, known=known)).action
    assert isinstance(second, a.PublishStatus)
    assert (second.event.transition, second.event.state, second.event.previous_state) == (2, "running", "queued")
    known.published.add((1, RunState.RUNNING, b.at(1)))
    known.transition, known.published_at = 2, b.NOW
    assert decide(b.situation(subject, known=known)).action is None


def test_after_a_restart_only_what_status_does_not_show_is_published() -> None:
    subject = b.run(bound=True, status={**ACCEPTED, "transition": 1, "state": "queued", "history": history("queued")})
    decision = decide(b.situation(subject, known=b.knows(update=b.update("queued", "running"))))
    assert isinstance(decision.action, a.PublishStatus)
    assert (decision.action.event.state, decision.action.event.transition) == ("running", 2)


def test_what_was_published_and_never_came_back_is_compared_with_the_bus_again() -> None:
    known = b.knows(update=b.update("queued"), published={(1, RunState.QUEUED, b.at(0))}, transition=1, published_at=b.NOW)
    subject = b.run(bound=True)
    assert not decide(b.situation(subject, known=known)).forget_published
    assert decide(b.situation(subject, known=known, now=b.NOW + telling.REPUBLISH_AFTER)).forget_published


def test_a_succeeded_run_waits_for_its_artifacts_then_tells_its_end_and_completes() -> None:
    subject = b.run(bound=True, status={**ACCEPTED, "history": history("queued", "running")})
    known = b.knows(update=b.update("queued", "running", "succeeded"))
    assert isinstance(decide(b.situation(subject, known=known)).action, a.Collect)
    known.collected = Collected()
    told = decide(b.situation(subject, known=known)).action
    assert isinstance(told, a.PublishStatus)
    assert told.event.state == "succeeded"
    known.published.add((1, RunState.SUCCEEDED, b.at(2)))
    known.transition = 3
    done = decide(b.situation(subject, known=known)).action
    assert isinstance(done, a.PublishCompletion)
    assert (done.event.status, done.event.run_id, done.event.artifacts_complete) == ("succeeded", "backend-1", True)


def test_artifacts_that_do_not_come_in_time_do_not_hold_up_the_completion() -> None:
    subject = b.run(bound=True, status={**ACCEPTED, "history": history("queued", "running", "succeeded")})
    known = b.knows(update=b.update("queued", "running", "succeeded"))
    late = decide(b.situation(subject, known=known, now=b.at(2) + timedelta(minutes=10))).action
    assert isinstance(late, a.PublishCompletion)
    assert late.event.artifacts_complete is False


def test_a_kill_between_the_two_last_publishes_is_repaired() -> None:
    """The final run-status was projected (transition 3), the completion was never stored."""
    subject = b.run(bound=True, status={**ACCEPTED, "transition": 3, "history": history("queued", "running")})
    known = b.knows(update=b.update("queued", "running", "failed", message="boom"), published={(1, RunState.FAILED, b.at(2))})
    done = decide(b.situation(subject, known=known)).action
    assert isinstance(done, a.PublishCompletion)
    assert (done.event.status, done.event.message) == ("failed", "boom")


def test_a_settled_run_is_released_with_its_outcome_as_label() -> None:
    assert decide(b.situation(b.run(bound=True, status=SETTLED))).action == a.Release(completed="succeeded")
    assert decide(b.situation(b.run(status=SETTLED))).action is None


def test_a_settled_run_is_deleted_when_its_time_to_live_is_over() -> None:
    subject = b.run(spec={"ttlSecondsAfterFinished": 60}, status=SETTLED)
    assert decide(b.situation(subject, now=b.at(59))).again == 1
    assert decide(b.situation(subject, now=b.at(60))).action == a.DeleteRun()


def test_a_run_restored_from_backup_is_never_submitted() -> None:
    subject = b.run(labels={b.NAMES.completed: "succeeded"})
    decision = decide(b.situation(subject))
    assert isinstance(decision.action, a.WriteStatus)
    completed = find(decision.action.status.conditions, "Completed")
    assert completed is not None
    assert (completed.status, completed.reason) == ("True", "Restored")
    assert decision.action.status.state is RunState.SUCCEEDED
    after = subject.model_copy(update={"status": decision.action.status})
    assert decide(b.situation(after)).action is None


@pytest.mark.parametrize(
    ("spec", "deleted", "reason"),
    [({"cancel": True}, None, "Cancelled"), ({}, -1.0, "Deleted"), ({"activeDeadlineSeconds": 5}, None, "DeadlineExceeded")],
)
def test_a_stop_is_marked_in_status_before_the_backend_is_asked(spec: dict[str, Any], deleted: float | None, reason: str) -> None:
    subject = b.run(bound=True, spec=spec, deleted=deleted, status={**ACCEPTED, "history": history("queued", "running")})
    known = b.knows(update=b.update("queued", "running"))
    marked = decide(b.situation(subject, known=known, now=b.at(10))).action
    assert isinstance(marked, a.WriteStatus)
    assert marked.status.cancellation is not None
    assert marked.status.cancellation.reason == reason
    after = subject.model_copy(update={"status": marked.status})
    assert decide(b.situation(after, known=known, now=b.at(10))).action == a.CancelRun()
    known.cancel_sent = b.at(10)
    assert decide(b.situation(after, known=known, now=b.at(11))).action is None
    assert decide(b.situation(after, known=known, now=b.at(10) + r.CANCEL_AGAIN)).action == a.CancelRun()


def test_a_deadline_counts_from_the_start_of_the_run_and_not_of_the_wait() -> None:
    subject = b.run(bound=True, spec={"activeDeadlineSeconds": 60}, status={**ACCEPTED, "history": history("queued", "running")})
    known = b.knows(update=b.update("queued", "running"))
    assert decide(b.situation(subject, known=known, now=b.at(31))).again == 30  # running since second 1


def test_a_run_stopped_by_its_deadline_failed_and_says_why() -> None:
    marked = {
        **ACCEPTED,
        "history": history("queued", "running"),
        "cancellation": {"reason": "DeadlineExceeded", "time": b.NOW.isoformat()},
    }
    subject = b.run(bound=True, spec={"activeDeadlineSeconds": 5}, status=marked)
    told = decide(b.situation(subject, known=b.knows(update=b.update("queued", "running", "stopped")))).action
    assert isinstance(told, a.PublishStatus)
    assert told.event.state == "failed"
    assert "activeDeadlineSeconds" in told.event.message


def test_a_run_cancelled_before_its_submit_ends_stopped_without_a_backend_id() -> None:
    assert isinstance(decide(b.situation(b.run(spec={"cancel": True}), pipeline=None)).action, a.Bind)
    subject, known = b.run(spec={"cancel": True}, bound=True), b.knows(fresh=True)
    told = decide(b.situation(subject, known=known)).action
    assert isinstance(told, a.PublishStatus)
    assert told.event.state == "stopped"
    known.published.add((1, RunState.STOPPED, told.event.time))
    known.transition = 1
    done = decide(b.situation(subject, known=known)).action
    assert isinstance(done, a.PublishCompletion)
    assert (done.event.run_id, done.event.state, done.event.status) == ("", "stopped", "failed")


def test_a_cancel_asks_the_backend_first_when_an_earlier_process_may_have_submitted() -> None:
    subject = b.run(spec={"cancel": True}, bound=True)
    assert decide(b.situation(subject)).action == a.Lookup()


UNVERSIONED = {b.NAMES.pipeline_version: ""}
"""Bound only to be told as ended: it was never to be submitted."""


def test_a_run_bound_without_a_version_needs_no_backend_to_be_stopped_or_deleted() -> None:
    """Its Provider may not exist: waiting for an answer would be for ever."""
    cancelled = b.run(spec={"cancel": True}, bound=True, labels=UNVERSIONED)
    assert isinstance(decide(b.situation(cancelled, provider=None)).action, a.PublishStatus)
    deleted = b.run(spec={"cancel": True}, bound=True, labels=UNVERSIONED, deleted=-1)
    assert decide(b.situation(deleted, provider=None, known=Knowledge())).action == a.Recall()
    assert decide(b.situation(deleted, provider=None)).action == a.Release()
    told = b.knows(refusal=Refusal("Refused", "cancelled", RunState.STOPPED), published={(1, RunState.STOPPED, b.NOW)}, transition=1)
    assert isinstance(decide(b.situation(deleted, provider=None, known=told)).action, a.PublishCompletion)


def test_a_refused_run_fails_with_the_reason_and_one_time_through_retries() -> None:
    subject, known = b.run(bound=True), b.knows(refusal=Refusal("InvalidParameters", "spec.parameters[0]: unknown"))
    told = decide(b.situation(subject, known=known)).action
    assert isinstance(told, a.PublishStatus)
    known.published.add((1, RunState.FAILED, told.event.time))
    known.transition = 1
    done = decide(b.situation(subject, known=known, now=b.at(50))).action
    assert isinstance(done, a.PublishCompletion)
    assert done.event.run_end_time == told.event.time
    assert (done.event.run_id, done.event.message) == ("", "spec.parameters[0]: unknown")


def test_a_run_the_backend_forgot_fails_after_five_minutes_of_asking() -> None:
    subject = b.run(bound=True, status=ACCEPTED)
    assert decide(b.situation(subject, known=b.knows())).action == a.Lookup()
    lost = b.knows(absent_since=b.NOW)
    assert decide(b.situation(subject, known=lost, now=b.at(299))).action == a.Lookup()
    told = decide(b.situation(subject, known=lost, now=b.at(300))).action
    assert isinstance(told, a.PublishStatus)
    assert told.event.state == "failed"


def test_a_run_deleted_before_its_submit_vanishes_without_an_event() -> None:
    assert decide(b.situation(b.run(deleted=-1))).action is None
    assert decide(b.situation(b.run(bound=True, deleted=-1), known=b.knows(fresh=True))).action == a.Release()
    assert decide(b.situation(b.run(bound=True, deleted=-1))).action == a.Lookup()  # an earlier process may have submitted it
    assert decide(b.situation(b.run(bound=True, deleted=-1), known=b.knows(absent_since=b.NOW))).action == a.Release()


def test_a_deleted_run_with_policy_orphan_goes_at_once() -> None:
    subject = b.run(bound=True, spec={"deletionPolicy": "Orphan"}, deleted=-1, status=ACCEPTED)
    assert decide(b.situation(subject, known=b.knows(update=b.update("running")))).action == a.Release()


def test_a_deletion_that_waits_for_its_provider_says_so() -> None:
    broken = b.provider(usable=False, message="spec.parameters.packages: wrong")
    subject = b.run(bound=True, deleted=0, status={**ACCEPTED, "history": history("queued", "running")})
    for known in (b.knows(), b.knows(update=b.update("queued", "running"))):
        action = decide(b.situation(subject, known=known, provider=broken)).action
        assert isinstance(action, a.WriteStatus)
        ready = find(action.status.conditions, "Ready")
        assert ready is not None
        assert ready.message == "waits for Provider mlops/local to stop its run: spec.parameters.packages: wrong"
        again = subject.model_copy(update={"status": action.status})
        assert not isinstance(decide(b.situation(again, known=known, provider=broken)).action, a.WriteStatus)


def test_a_deletion_does_not_wait_for_ever_for_the_backend() -> None:
    subject = b.run(bound=True, deleted=0, status={**ACCEPTED, "history": history("queued", "running")})
    known = b.knows(update=b.update("queued", "running"))
    late = decide(b.situation(subject, known=known, now=b.at(1) + r.RELEASE_AFTER)).action
    assert isinstance(late, a.Release)
    assert late.warning


def test_force_release_ends_any_wait() -> None:
    subject = b.run(bound=True, deleted=0, status=ACCEPTED, annotations={b.NAMES.force_release: "true"})
    assert isinstance(decide(b.situation(subject, known=b.knows(update=b.update("running")))).action, a.Release)


@pytest.mark.parametrize("known", [b.knows(update=b.update("queued", "running")), Knowledge(update=b.update("queued", "running"))])
@pytest.mark.parametrize("transition", [0, 1])
def test_a_run_is_stopped_though_the_bus_is_away(known: Knowledge, transition: int) -> None:
    """What happened last could not be published; with or without a process that knows what was published before."""
    known = replace(known, bus_away_since=b.NOW)
    status = {**ACCEPTED, "transition": transition, "history": history("queued")} if transition else {}
    subject = b.run(bound=True, deleted=0, status=status)
    taken: list[a.Action | None] = []
    for _ in range(6):
        action = decide(b.situation(subject, known=known, now=b.at(20))).action
        taken.append(action)
        if isinstance(action, a.WriteStatus):
            subject = subject.model_copy(update={"status": action.status})
        elif isinstance(action, a.CancelRun):
            known.cancel_sent = b.at(20)
    writes = [action for action in taken if isinstance(action, a.WriteStatus)]
    assert sum(isinstance(action, a.CancelRun) for action in taken) == 1
    assert 1 <= len(writes) <= 3
    assert isinstance(taken[-1], a.PublishStatus | a.Recall), "tried until it works"


def test_a_run_whose_events_were_not_delivered_shows_it_no_longer_when_the_bus_is_back_and_there_is_no_news() -> None:
    undelivered = {"type": "EventsDelivered", "status": "False", "reason": "EventBusUnavailable", "lastTransitionTime": b.NOW.isoformat()}
    subject = b.run(bound=True, status={**ACCEPTED, "history": history("queued", "running"), "conditions": [undelivered]})
    known = b.knows(update=b.update("queued", "running"))
    written = decide(b.situation(subject, known=known)).action
    assert isinstance(written, a.WriteStatus)
    assert find(written.status.conditions, "EventsDelivered") is None
    after = subject.model_copy(update={"status": written.status})
    assert decide(b.situation(after, known=known)).action is None


def test_an_outage_of_the_bus_shows_as_a_condition_and_nothing_is_given_up() -> None:
    subject = b.run(bound=True, status={**ACCEPTED, "history": history("queued", "running")})
    known = b.knows(update=b.update("queued", "running", "failed"), bus_away_since=b.NOW)
    assert isinstance(decide(b.situation(subject, known=known, now=b.at(9))).action, a.PublishStatus)
    told = decide(b.situation(subject, known=known, now=b.at(10))).action
    assert isinstance(told, a.WriteStatus)
    undelivered = find(told.status.conditions, "EventsDelivered")
    assert undelivered is not None
    assert undelivered.status == "False"
    after = subject.model_copy(update={"status": told.status})
    assert isinstance(decide(b.situation(after, known=known, now=b.at(11))).action, a.PublishStatus)


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param(None, id="only the backend may have it"),
        pytest.param(b.experiment(status={"providerId": "exp-1"}), id="synchronized"),
        pytest.param(b.experiment(deleted=True), id="being deleted"),
        pytest.param(b.experiment(spec={"provider": "mlops/other"}), id="of another Provider"),
    ],
)
def test_a_run_goes_to_the_backend_with_the_name_of_its_experiment(experiment: Experiment | None) -> None:
    s = b.situation(b.run(spec={"experimentName": "penguins"}), experiment=experiment)
    assert isinstance(decide(s).action, a.Bind)


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({"provider": {"name": "kfp/kfp", "id": "0b9c"}, "version": "a1d1af"}, id="at the backend"),
        pytest.param({"provider": {"name": "", "id": ""}, "version": "a1d1af"}, id="failed on its way there"),
    ],
)
def test_a_run_that_another_operator_took_on_is_never_submitted(status: dict[str, Any]) -> None:
    subject = b.run(status=status)
    written = decide(b.situation(subject)).action
    assert isinstance(written, a.WriteStatus)
    completed = find(written.status.conditions, "Completed")
    assert completed is not None
    assert (completed.status, completed.reason) == ("True", "TakenOnElsewhere")
    assert "runs rerun" in written.status.message
    told = subject.model_copy(update={"status": written.status})
    assert decide(b.situation(told)).action is None


@pytest.mark.parametrize(
    "status", [{}, {"completionState": "Succeeded"}, {"provider": {"name": "kfp/kfp", "id": "0b9c"}, "version": "a1d1af"}]
)
def test_a_deleted_run_of_the_go_operator_is_let_go_under_its_group(status: dict[str, Any]) -> None:
    subject = b.run(status=status, deleted=-1)
    held = subject.model_copy(update={"metadata": subject.metadata.model_copy(update={"finalizers": [GO_FINALIZER]})})
    assert decide(b.situation(held, names=Names("pipelines.kubeflow.org"))).action == a.Release()
    assert decide(b.situation(held)).action is None, "under our own group it is not ours to remove"
