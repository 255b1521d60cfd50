"""What the operator decides about a Run whose backend is somebody else's too: ends told in other words, lost runs, edited Providers."""

from dataclasses import replace
from typing import Any

import pytest

from kfp_operator.api.run import Run
from kfp_operator.reconcile import actions as a
from kfp_operator.reconcile import retry
from kfp_operator.reconcile.outcome import translated
from kfp_operator.reconcile.run import LOST_AFTER, decide
from kfp_operator.reconcile.situation import Situation
from tests import builders as b

RUNNING = {"synchronizationState": "Succeeded", "providerId": "backend-1", "state": "running", "attempt": 1, "transition": 2}
OLD, NEW = "http://old:8888", "http://new:8888"


def marked(reason: str, *, at: float) -> Run:
    mark = {"reason": reason, "time": b.at(at).isoformat(), "attempt": 1}
    return b.run(spec={"activeDeadlineSeconds": 9}, status=RUNNING | {"cancellation": mark}, bound=True)


@pytest.mark.parametrize(
    ("reason", "marked_at", "state", "message"),
    [
        pytest.param("Cancelled", 0, "stopped", "stopped by spec.cancel", id="cancelled before the end"),
        pytest.param("Cancelled", 1, "stopped", "stopped by spec.cancel", id="in the second of the end"),
        pytest.param("Cancelled", 5, "failed", "exit code 1", id="it had failed by itself"),
        pytest.param("DeadlineExceeded", 0, "failed", "ran longer than spec.activeDeadlineSeconds (9 s)", id="out of time"),
    ],
)
def test_a_run_that_was_stopped_is_told_so_though_its_backend_says_failed(reason: str, marked_at: float, state: str, message: str) -> None:
    update = b.update("running", "failed", message="exit code 1", perhaps_stopped=True)
    report = translated(marked(reason, at=marked_at), update)
    assert (report.state, report.message) == (state, message)


def test_a_backend_that_knows_what_failed_is_believed() -> None:
    assert translated(marked("Cancelled", at=0), b.update("running", "failed")).state == "failed"


def test_attempts_that_began_and_ended_unseen_are_told_one_after_the_other() -> None:
    first = b.update("running", "failed", perhaps_stopped=True)
    second = b.update("running", seconds=20, attempt=2, earlier=(first,))
    known = b.knows()
    retry.report(b.run(bound=True), known, second, b.at(21))
    assert known.update == first
    retry.report(b.run(bound=True), b.knows(completed={1}), second, b.at(21))
    settled = b.run(bound=True, status=RUNNING | {"completionState": "Failed"})
    for subject, knows in (
        (b.run(bound=True), b.knows(completed={1})),
        (settled, b.knows()),
        (b.run(bound=True, status=RUNNING | {"attempt": 2}), b.knows()),
    ):
        retry.report(subject, knows, second, b.at(21))
        assert knows.update == second


def test_a_failure_that_would_be_tried_again_is_not_when_the_backend_goes_on_with_the_run() -> None:
    first = b.update("running", "failed")
    second = b.update("running", seconds=20, attempt=2, earlier=(first,))
    known = b.knows()
    retry.report(b.run(bound=True, spec={"retries": 1}), known, second, b.at(21))
    assert known.update == second


def lost(*, since: float, annotations: dict[str, str] | None = None, backend: str = "", **known: Any) -> Situation:
    """A Run whose backend answered at NOW that it does not know it, some seconds ago."""
    subject = b.run(bound=True, status=RUNNING, annotations=annotations)
    knows = b.knows(**({"absent_since": b.NOW, "transition": 2} | known))
    return b.situation(subject, known=knows, now=b.at(since), provider=replace(b.provider(), backend=backend))


def test_a_run_that_its_backend_has_lost_is_looked_for_and_then_failed() -> None:
    assert decide(lost(since=60)).action == a.Lookup()
    told = decide(lost(since=LOST_AFTER.total_seconds())).action
    assert isinstance(told, a.PublishStatus)
    assert (told.event.state, told.event.run_id) == ("failed", "backend-1")


def test_a_run_is_not_lost_because_its_provider_was_edited_to_another_backend() -> None:
    for since in (60.0, 10 * LOST_AFTER.total_seconds()):
        decision = decide(lost(since=since, annotations={b.NAMES.backend: OLD}, backend=NEW))
        assert isinstance(decision.action, a.WriteStatus)
        message = decision.action.status.message
        assert message == (
            "Provider mlops/local was changed from http://old:8888 to http://new:8888, which does not know the run; "
            "change it back, or delete the Run"
        )
    shown = b.run(bound=True, status=RUNNING | {"message": message}, annotations={b.NAMES.backend: OLD})
    knows = b.knows(absent_since=b.NOW, transition=2)
    situation = b.situation(shown, known=knows, now=b.at(9999), provider=replace(b.provider(), backend=NEW))
    assert decide(situation) == a.Decision(a.Lookup(), again=30)


@pytest.mark.parametrize(("bound", "present"), [(OLD, OLD), ("", NEW), (OLD, "")])
def test_a_run_of_the_same_backend_is_lost_when_it_is(bound: str, present: str) -> None:
    annotations = {b.NAMES.backend: bound} if bound else None
    decision = decide(lost(since=LOST_AFTER.total_seconds(), annotations=annotations, backend=present))
    assert isinstance(decision.action, a.PublishStatus)


def test_a_run_that_may_have_been_submitted_to_another_backend_is_looked_for_and_not_submitted_again() -> None:
    subject = b.run(bound=True, annotations={b.NAMES.backend: OLD})
    view = replace(b.provider(), backend=NEW)
    assert decide(b.situation(subject, known=b.knows(), provider=view)).action == a.Lookup()
    told = decide(b.situation(subject, known=b.knows(absent_since=b.NOW), provider=view)).action
    assert isinstance(told, a.PublishStatus)
    assert told.event.state == "failed"
    assert "whether the run was submitted before cannot be told" in told.event.message


def test_a_run_that_was_never_submitted_goes_to_the_backend_of_now() -> None:
    subject = b.run(bound=True, annotations={b.NAMES.backend: OLD})
    view = replace(b.provider(), backend=NEW)
    assert decide(b.situation(subject, known=b.knows(fresh=True), provider=view)).action == a.Submit(b.VERSION)
