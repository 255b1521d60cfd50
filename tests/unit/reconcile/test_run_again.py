"""What the operator decides about a Run that is tried again, re-opened at its backend, or out of sight."""

from dataclasses import replace
from typing import Any

import pytest

from kfp_operator.api.run import Run
from kfp_operator.api.states import RunState
from kfp_operator.reconcile import actions as a
from kfp_operator.reconcile.attempts import CurrentSubmission
from kfp_operator.reconcile.outcome import Refusal
from kfp_operator.reconcile.run import decide
from kfp_operator.reconcile.situation import Knowledge, ProviderView, Situation
from kfp_operator.schemas import RunStatus
from tests import builders as b

SECOND = CurrentSubmission(2, 2)
RUNNING = {"synchronizationState": "Succeeded", "providerId": "backend-1", "state": "running", "attempt": 1, "transition": 2}
RETRYING: dict[str, Any] = {
    **RUNNING,
    "state": "retrying",
    "transition": 3,
    "submission": 2,
    "firstAttempt": 2,
    "startTime": "2026-03-01T12:00:00Z",
    "history": [{"state": "retrying", "time": b.at(1).isoformat(), "attempt": 1}],
}
SETTLED = {**RUNNING, "state": "failed", "transition": 3, "completionState": "Failed", "endTime": "2026-03-01T12:00:00Z"}


def pending(*, spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **changes: Any) -> Run:
    """A Run whose first attempt failed a second after NOW and that waits to be tried again."""
    return b.run(spec={"retries": 2} | (spec or {}), status=RETRYING | (status or {}), bound=True, **changes)


def waits(subject: Run, *, after: float = 2, provider: ProviderView | None = None, **known: Any) -> Situation:
    """The situation of a Run that waits, some seconds after NOW; this process has published that it does."""
    knows = b.knows(**({"current": SECOND, "absent_since": b.at(1), "transition": 3} | known))
    return b.situation(subject, known=knows, now=b.at(after), provider=provider or b.provider())


def event_of(decision: a.Decision) -> RunStatus:
    assert isinstance(decision.action, a.PublishStatus)
    return decision.action.event


def test_a_failure_with_retries_left_is_told_as_retrying_and_names_the_submission_that_comes_next() -> None:
    subject = b.run(spec={"retries": 1}, bound=True, status={**RUNNING, "history": []})
    known = b.knows(update=b.update("running", "failed", message="exit code 1"), published={(1, RunState.RUNNING, b.at(0))}, transition=2)
    event = event_of(decide(b.situation(subject, known=known, now=b.at(2))))
    assert (event.state, event.attempt, event.transition, event.previous_state) == ("retrying", 1, 3, "running")
    assert (event.submission, event.first_attempt) == (2, 2)
    assert event.time == b.at(1)
    assert event.run_start_time == b.at(0)
    assert "exit code 1" in event.message


def test_states_before_the_failure_are_told_as_those_of_the_submission_that_failed() -> None:
    subject = b.run(spec={"retries": 1}, bound=True)
    event = event_of(decide(b.situation(subject, known=b.knows(update=b.update("queued", "running", "failed")), now=b.at(3))))
    assert (event.state, event.submission) == ("queued", 1)


def test_the_last_attempt_ends_with_a_completion_that_names_its_submission() -> None:
    subject = b.run(spec={"retries": 1}, bound=True, status=RETRYING | {"attempt": 2, "state": "running"})
    update = b.update("failed", attempt=2, seconds=20)
    known = b.knows(current=SECOND, update=update)
    assert event_of(decide(b.situation(subject, known=known, now=b.at(30)))).state == "failed"
    known.published.add((2, RunState.FAILED, b.at(20)))
    done = decide(b.situation(subject, known=known, now=b.at(30))).action
    assert isinstance(done, a.PublishCompletion)
    assert (done.event.attempt, done.event.submission, done.event.first_attempt) == (2, 2, 2)


def test_a_run_is_submitted_again_when_its_pause_is_over() -> None:
    early = decide(waits(pending(), after=2))
    assert (early.action, early.again) == (None, 9), "it failed after a second, the pause is ten"
    assert decide(waits(pending(), after=11)).action == a.Submit(b.VERSION)


def test_nothing_is_submitted_again_before_status_shows_it() -> None:
    behind = b.run(spec={"retries": 2}, status=RUNNING, bound=True)
    decision = decide(waits(behind, after=20, published_at=b.at(1)))
    assert decision.action is None
    assert decision.again == 11, "what was published and did not come back is then compared with the bus"


def test_what_keeps_a_run_from_being_tried_again_is_its_message_and_nothing_else() -> None:
    """From the first event on conditions are the projector's."""
    decision = decide(waits(pending(), after=20, provider=b.provider(usable=False, message="no route to host")))
    assert isinstance(decision.action, a.WriteStatus)
    status = decision.action.status
    assert "no route to host" in status.message
    assert status.model_copy(update={"message": ""}) == pending().status


@pytest.mark.parametrize(
    ("spec", "deleted", "after", "state", "says"),
    [
        pytest.param({"cancel": True}, None, 2, "stopped", "before it was submitted again", id="cancelled"),
        pytest.param({}, 2.0, 2, "stopped", "before it was submitted again", id="deleted"),
        pytest.param({"activeDeadlineSeconds": 60}, None, 60, "failed", "spec.activeDeadlineSeconds (60 s)", id="out of time"),
    ],
)
def test_a_run_that_is_ended_in_its_pause_ends_with_the_attempt_that_does_not_come(
    spec: dict[str, Any], deleted: float | None, after: float, state: str, says: str
) -> None:
    s = waits(pending(spec=spec, deleted=deleted, status={"history": []} if after == 60 else None), after=after)
    event = event_of(decide(s))
    assert (event.state, event.attempt, event.transition, event.run_id) == (state, 2, 4, "")
    assert says in event.message
    s.known.published.add((2, RunState(state), event.time))
    done = decide(s).action
    assert isinstance(done, a.PublishCompletion)
    assert (done.event.state, done.event.attempt, done.event.run_id) == (state, 2, "")


def test_a_backend_that_may_have_the_run_is_asked_before_it_ends() -> None:
    """An earlier process may have submitted it: its answer was lost, or it was killed."""
    assert decide(waits(pending(spec={"cancel": True}), absent_since=None)).action == a.Lookup()


def test_a_pause_ends_early_when_time_is_over() -> None:
    assert decide(waits(pending(spec={"activeDeadlineSeconds": 5}), after=2)).again == 3


def test_a_refusal_of_a_later_submission_ends_the_run() -> None:
    event = event_of(decide(waits(pending(), after=20, refusal=Refusal("Refused", "no such image"))))
    assert (event.state, event.attempt, event.run_id) == ("failed", 2, "")


# Re-opened at the backend


def test_a_settled_run_that_goes_on_at_the_backend_is_taken_up_again() -> None:
    subject = b.run(status=SETTLED, labels={b.NAMES.completed: "failed"})
    going_on = b.knows(update=b.update("running", attempt=2, seconds=60))
    assert decide(b.situation(subject, known=going_on)).action == a.Reopen()
    assert decide(b.situation(subject, known=b.knows(update=b.update("failed", attempt=1)))).action is None
    assert decide(b.situation(b.run(status=SETTLED, deleted=0), known=going_on)).action is None, "a deleted one goes"


def test_a_reopened_run_is_told_with_the_next_attempt_and_is_not_released_before_its_end() -> None:
    subject = b.run(status=SETTLED, bound=True)
    known = Knowledge(update=b.update("running", attempt=2, seconds=60))
    assert decide(b.situation(subject, known=known)).action == a.Recall(), "another process may have told it"
    known.recalled, known.completed = True, {1}
    event = event_of(decide(b.situation(subject, known=known)))
    assert (event.state, event.attempt, event.transition, event.previous_state) == ("running", 2, 4, "failed")


def test_a_run_whose_reopen_an_earlier_process_told_is_not_taken_for_a_restored_one() -> None:
    subject = b.run(status=RUNNING | {"attempt": 2}, labels={b.NAMES.completed: "failed"})
    assert decide(b.situation(subject)).action == a.Reopen()
    restored = decide(b.situation(b.run(labels={b.NAMES.completed: "failed"}))).action
    assert isinstance(restored, a.WriteStatus)


def test_the_mark_of_the_attempt_before_does_not_stop_a_reopened_run() -> None:
    marked = {"cancellation": {"reason": "DeadlineExceeded", "time": "2026-03-01T12:00:00Z", "attempt": 1}}
    going_on = b.update("running", attempt=2, seconds=60)
    told: dict[str, Any] = {"published": {(2, RunState.RUNNING, b.at(60))}, "completed": {1}}
    subject = b.run(spec={"activeDeadlineSeconds": 30}, status=SETTLED | marked, bound=True)
    assert decide(b.situation(subject, known=b.knows(update=going_on, **told), now=b.at(80))).action is None
    over = decide(b.situation(subject, known=b.knows(update=going_on, **told), now=b.at(90))).action
    assert isinstance(over, a.WriteStatus)
    assert over.status.cancellation is not None
    assert over.status.cancellation.attempt == 2


def test_a_cancelled_run_that_is_reopened_is_stopped_again() -> None:
    """spec.cancel cannot be taken back."""
    subject = b.run(spec={"cancel": True}, status=RUNNING | {"attempt": 2}, bound=True)
    known = b.knows(update=b.update("running", attempt=2), published={(2, RunState.RUNNING, b.at(0))})
    decision = decide(b.situation(subject, known=known)).action
    assert isinstance(decision, a.WriteStatus)
    assert decision.status.cancellation is not None


def test_an_end_that_was_told_is_completed_though_the_backend_has_gone_on() -> None:
    """An earlier process stored the last run-status, and died before the completion."""
    names = {"provider": "mlops/local", "pipeline_name": "team/train", "run_name": "team/train-1", "run_uid": "uid-1"}
    promised = RunStatus(
        **names, run_id="backend-1", transition=3, state="failed", time=b.at(9), message="exit code 1", run_start_time=b.at(1)
    )
    known = b.knows(promised=promised, update=b.update("running", attempt=2, seconds=60), transition=3)
    done = decide(b.situation(b.run(status=RUNNING, bound=True), known=known)).action
    assert isinstance(done, a.PublishCompletion)
    event = done.event
    assert (event.state, event.attempt, event.run_id, event.message) == ("failed", 1, "backend-1", "exit code 1")
    assert (event.run_start_time, event.run_end_time) == (b.at(1), b.at(9))


def test_what_was_told_as_the_end_stands_though_the_mark_that_explained_it_is_gone() -> None:
    """The backend says stopped; told was failed, because time was over."""
    known = b.knows(update=b.update("running", "stopped"), published={(1, RunState.FAILED, b.at(1))})
    done = decide(b.situation(b.run(status=RUNNING, bound=True), known=known)).action
    assert isinstance(done, a.PublishCompletion)
    assert done.event.state == "failed"


def test_a_run_whose_end_may_have_been_told_does_not_vanish_when_it_is_deleted() -> None:
    """The answer to the event that told it was lost: it is sent again, and its completion after it."""
    subject = b.run(spec={"cancel": True}, bound=True, deleted=0)
    assert decide(b.situation(subject, known=b.knows(absent_since=b.NOW))).action == a.Release(), "nothing was told"
    assert event_of(decide(b.situation(subject, known=b.knows(absent_since=b.NOW, telling=True)))).state == "stopped"


# Parameters from other configurations


REF = {"name": "base", "outputArtifact": "model"}
FROM = {"name": "model", "valueFrom": {"runConfigurationRef": REF}}
OPTIONAL = {"name": "model", "valueFrom": {"runConfigurationRef": REF | {"optional": True}}}


def succeeded(location: str) -> dict[str, Any]:
    latest = {"name": "base-1", "providerId": "b-1", "artifacts": [{"name": "model", "location": location}]}
    return {"team/base": b.configuration("base", status={"latestRuns": {"succeeded": latest}})}


def test_a_run_waits_for_the_artifact_that_a_parameter_takes() -> None:
    decision = decide(b.situation(b.run(spec={"parameters": [FROM]}), configurations={}))
    assert isinstance(decision.action, a.WriteStatus)
    assert "team/base" in decision.action.status.message
    assert decision.action.status.resolved == []


def test_a_value_is_remembered_before_anything_else_happens_and_never_looked_up_again() -> None:
    subject = b.run(spec={"parameters": [FROM]})
    first = decide(b.situation(subject, configurations=succeeded("/models/1"))).action
    assert isinstance(first, a.WriteStatus)
    (value,) = first.status.resolved
    assert (value.name, value.value, value.run_configuration, value.provider_id) == ("model", "/models/1", "team/base", "b-1")
    remembered = subject.model_copy(update={"status": first.status})
    assert decide(b.situation(remembered, configurations=succeeded("/models/2"))).action == a.Bind(b.VERSION, "mlops/local")


def test_an_optional_value_that_is_not_there_is_remembered_as_left_out() -> None:
    first = decide(b.situation(b.run(spec={"parameters": [OPTIONAL]}), configurations={})).action
    assert isinstance(first, a.WriteStatus)
    assert [(v.name, v.omitted) for v in first.status.resolved] == [("model", True)]


def test_a_bound_run_that_lost_its_values_gets_them_before_it_is_submitted() -> None:
    """A restored object."""
    s = b.situation(b.run(spec={"parameters": [FROM]}, bound=True), configurations=succeeded("/models/1"))
    assert isinstance(decide(s).action, a.WriteStatus)


# Out of sight


def out_of_sight(seconds: float) -> ProviderView:
    condition = {"type": "Ready", "status": "False", "reason": "X", "lastTransitionTime": b.at(-seconds).isoformat()}
    return b.provider(usable=False, message="no route to host", status={"conditions": [condition]})


def in_flight(provider: ProviderView | None, message: str = "") -> Situation:
    known = b.knows(update=b.update("running"), published={(1, RunState.RUNNING, b.at(0))})
    return replace(b.situation(b.run(status=RUNNING | {"message": message}, bound=True), known=known), provider=provider)


def test_a_short_outage_of_its_provider_costs_a_run_in_flight_no_write() -> None:
    assert decide(in_flight(out_of_sight(20))) == a.Decision(again=40)


@pytest.mark.parametrize(
    ("provider", "says"), [(out_of_sight(60), "Provider mlops/local: no route to host"), (None, "Provider mlops/local does not exist")]
)
def test_a_run_in_flight_says_that_its_provider_is_out_of_sight(provider: ProviderView | None, says: str) -> None:
    decision = decide(in_flight(provider))
    assert isinstance(decision.action, a.WriteStatus)
    message = decision.action.status.message
    assert says in message
    assert decide(in_flight(provider, message)).action is None, "once"


def test_a_run_that_is_seen_again_says_so_no_longer() -> None:
    said = decide(in_flight(out_of_sight(60))).action
    assert isinstance(said, a.WriteStatus)
    decision = decide(in_flight(b.provider(), said.status.message))
    assert isinstance(decision.action, a.WriteStatus)
    assert decision.action.status.message == ""
