"""What an event means for a Run's status."""

import itertools
from typing import Any

import pytest

from kfp_operator.api.conditions import find
from kfp_operator.api.run import Run
from kfp_operator.api.states import RunState, SyncState
from kfp_operator.reconcile.projection import HISTORY, project
from kfp_operator.schemas import Artifact, RunCompletion, RunStatus
from tests import builders as b

USUAL = {"provider": "mlops/local", "pipeline_name": "team/train", "run_name": "team/train-1", "run_uid": "uid-1", "run_id": "backend-1"}


def told(state: str, transition: int, **changes: Any) -> RunStatus:
    return RunStatus(**{**USUAL, "state": state, "transition": transition, "time": b.at(transition), **changes})


def ended(state: str = "succeeded", **changes: Any) -> RunCompletion:
    status = "succeeded" if state == "succeeded" else "failed"
    return RunCompletion(
        **{
            **USUAL,
            "state": state,
            "status": status,
            "run_start_time": b.at(2),
            "run_end_time": b.at(9),
            "pipeline_version": b.VERSION,
            **changes,
        }
    )


def after(*events: RunStatus | RunCompletion, run: Run | None = None) -> tuple[Run, list[str]]:
    """The Run after the events, and what became of each."""
    subject, fates = run or b.run(bound=True), []
    for event in events:
        made = project(subject, event, names=b.NAMES, now=b.at(20))
        fates.append(made.disposition)
        subject = subject.model_copy(update={"status": made.status})
    return subject, fates


def condition(run: Run, type_: str) -> str:
    found = find(run.status.conditions, type_)
    return found.status if found is not None else "-"


def test_the_first_event_makes_a_run_synchronized() -> None:
    run, _ = after(told("queued", 1))
    assert run.status.synchronization_state is SyncState.SUCCEEDED
    assert (run.status.provider_id, run.status.provider, run.status.pipeline_version) == ("backend-1", "mlops/local", b.VERSION)
    assert (condition(run, "Synchronized"), condition(run, "Ready"), condition(run, "Succeeded"), condition(run, "Completed")) == (
        "True",
        "True",
        "Unknown",
        "False",
    )


def test_only_the_completion_ends_a_run() -> None:
    run, _ = after(told("queued", 1), told("running", 2), told("succeeded", 3))
    assert (run.status.state, run.status.transition, run.status.completion_state) == (RunState.RUNNING, 3, None)
    run, _ = after(ended(artifacts=[Artifact(name="model", location="/m")]), run=run)
    assert (run.status.state, run.status.completion_state) == (RunState.SUCCEEDED, "Succeeded")
    assert [a.location for a in run.status.artifacts] == ["/m"]
    assert (condition(run, "Succeeded"), condition(run, "Completed"), condition(run, "Ready")) == ("True", "True", "True")


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_a_run_that_did_not_succeed_says_so_in_every_condition(state: str) -> None:
    run, _ = after(told("running", 1), ended(state, message="boom", failed_task="fit"))
    assert (run.status.completion_state, run.status.message, run.status.failed_task) == ("Failed", "boom", "fit")
    assert (condition(run, "Succeeded"), condition(run, "Completed"), condition(run, "Ready"), condition(run, "Stalled")) == (
        "False",
        "True",
        "False",
        "True",
    )


def test_a_run_that_never_reached_the_backend_is_not_synchronized() -> None:
    run, _ = after(ended("failed", run_id="", run_start_time=None, message="refused"))
    assert (run.status.synchronization_state, condition(run, "Synchronized")) == (SyncState.FAILED, "False")


def test_any_order_of_delivery_with_repeats_ends_the_same() -> None:
    events = [told("queued", 1), told("running", 2), told("succeeded", 3), ended()]
    wanted = None
    for order in itertools.permutations(events):
        run, _ = after(*order, *order)
        summary = (run.status.state, run.status.completion_state, run.status.provider_id, condition(run, "Completed"))
        assert wanted in (None, summary)
        wanted = summary


def test_what_is_old_or_of_another_run_changes_nothing() -> None:
    run, _ = after(told("queued", 1), told("running", 2))
    assert after(told("queued", 1), run=run)[1] == ["duplicate"]
    assert after(told("running", 3, run_uid="other"), run=run)[1] == ["foreign"]
    done, _ = after(ended(), run=run)
    assert after(told("running", 7), run=done)[1] == ["stale"]
    assert after(ended(), run=done)[1] == ["duplicate"]
    assert after(ended("failed"), run=done)[0] == done


def test_a_later_attempt_reopens_a_settled_run() -> None:
    done, _ = after(told("running", 1), ended("failed", message="boom"))
    run, fates = after(told("running", 3, attempt=2), run=done)
    assert fates == ["applied"]
    assert (run.status.attempt, run.status.completion_state, run.status.end_time) == (2, None, None)
    assert after(ended("succeeded", attempt=1), run=run)[1] == ["stale"]
    run, _ = after(ended("succeeded", attempt=2), run=run)
    assert run.status.completion_state == "Succeeded"


def test_history_keeps_the_last_states() -> None:
    run, _ = after(*(told("running" if n % 2 else "warning", n) for n in range(1, 40)))
    assert [h.time for h in run.status.history] == [b.at(n) for n in range(40 - HISTORY, 40)]


def test_a_run_that_is_being_deleted_says_so_until_its_end() -> None:
    run, _ = after(told("stopping", 2), run=b.run(bound=True, deleted=0))
    assert (run.status.synchronization_state, condition(run, "Reconciling")) == (SyncState.DELETING, "True")
    run, _ = after(ended("stopped"), run=run)
    assert condition(run, "Completed") == "True"


def test_a_run_that_is_tried_again_shows_the_submission_that_comes_next_and_keeps_its_begin() -> None:
    first, _ = after(told("running", 1, run_start_time=b.at(1)))
    assert (first.status.submission, first.status.first_attempt) == (None, None), "not said of a Run that was never tried again"
    again, _ = after(told("retrying", 2, submission=2, first_attempt=2, message="attempt 1 failed"), run=first)
    assert (again.status.state, again.status.attempt) == (RunState.RETRYING, 1)
    assert (again.status.submission, again.status.first_attempt) == (2, 2)
    assert (condition(again, "Completed"), condition(again, "Succeeded")) == ("False", "Unknown")
    later = {"attempt": 2, "submission": 2, "first_attempt": 2}
    run, _ = after(told("running", 3, run_start_time=b.at(3), **later), ended(run_start_time=b.at(3), **later), run=again)
    assert (run.status.attempt, run.status.submission, run.status.completion_state) == (2, 2, "Succeeded")
    assert (run.status.start_time, run.status.end_time) == (b.at(1), b.at(9)), "of the Run, all attempts together"


def test_the_begin_is_known_though_the_event_that_told_it_first_was_replaced() -> None:
    """A state that a later one replaced is acknowledged; if the process dies then, only the later one comes again."""
    run, _ = after(told("retrying", 3, submission=2, first_attempt=2, run_start_time=b.at(1)))
    assert run.status.start_time == b.at(1)


def test_a_run_that_ended_before_it_was_submitted_again_was_at_the_backend() -> None:
    again, _ = after(told("running", 1), told("retrying", 2, submission=2, first_attempt=2))
    run, _ = after(ended("stopped", run_id="", attempt=2, submission=2, first_attempt=2, run_start_time=None), run=again)
    assert (run.status.state, run.status.attempt, run.status.provider_id) == (RunState.STOPPED, 2, "backend-1")
    assert condition(run, "Synchronized") == "True"


def test_a_reopened_run_begins_anew_and_keeps_only_a_mark_of_its_own() -> None:
    marked = b.run(bound=True, status={"cancellation": {"reason": "Cancelled", "time": "2026-03-01T12:00:00Z"}})
    done, _ = after(told("running", 1), ended("stopped", message="stopped by spec.cancel"), run=marked)
    assert done.status.cancellation is not None
    run, _ = after(told("running", 3, attempt=2, run_start_time=b.at(15)), run=done)
    assert (run.status.start_time, run.status.cancellation, run.status.message) == (b.at(15), None, "")
    own = done.status.cancellation.model_copy(update={"attempt": 2})
    done = done.model_copy(update={"status": done.status.model_copy(update={"cancellation": own})})
    run, _ = after(told("running", 3, attempt=2), run=done)
    assert run.status.cancellation == own


def test_a_lower_submission_never_comes_back() -> None:
    run, _ = after(ended("failed", attempt=2, submission=2, first_attempt=2))
    run, fates = after(told("running", 9, attempt=3, submission=1), run=run)
    assert (fates, run.status.submission) == (["applied"], 2)
