"""Whether a run that failed is tried again, when, and how long a Run may take in all."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from kfp_operator.api.run import Run
from kfp_operator.api.states import RunState
from kfp_operator.providers.protocol import RunUpdate
from kfp_operator.reconcile import retry
from kfp_operator.reconcile.attempts import CurrentSubmission
from tests import builders as b

FAILED = b.update("running", "failed", message="exit code 1", failed_task="train")
SECOND = CurrentSubmission(2, 2)


@pytest.mark.parametrize(("number", "seconds"), [(2, 10), (3, 20), (4, 40), (5, 80), (6, 160), (7, 300), (8, 300), (100, 300)])
def test_the_pause_doubles_from_ten_seconds_to_five_minutes(number: int, seconds: int) -> None:
    assert retry.pause(number) == timedelta(seconds=seconds)


def why(spec: dict[str, Any], update: RunUpdate = FAILED, *, run: Run | None = None, **known: Any) -> str:
    return retry.why_again(run or b.run(spec=spec, bound=True), b.knows(**known), update, b.at(100))


def test_a_run_that_failed_says_why_it_is_tried_again_and_how_often() -> None:
    assert why({"retries": 3}) == "attempt 1 failed in train: exit code 1; it is tried again in 10 s (retry 1 of 3)"
    second = why({"retries": 3}, b.update("failed", attempt=2), current=SECOND)
    assert second == "attempt 2 failed; it is tried again in 20 s (retry 2 of 3)"


@pytest.mark.parametrize(
    ("spec", "update", "known"),
    [
        pytest.param({}, FAILED, {}, id="no retries"),
        pytest.param({"retries": 1}, b.update("failed", attempt=2), {"current": SECOND}, id="none left"),
        pytest.param({"retries": 1}, b.update("running"), {}, id="not ended"),
        pytest.param({"retries": 1}, b.update("succeeded"), {}, id="succeeded"),
        pytest.param({"retries": 1}, b.update("stopped"), {}, id="stopped"),
        pytest.param({"retries": 1, "cancel": True}, FAILED, {}, id="nobody wants it any more"),
        pytest.param({"retries": 1, "activeDeadlineSeconds": 100}, FAILED, {}, id="out of time"),
        pytest.param({"retries": 1}, FAILED, {"published": {(1, RunState.FAILED, b.at(1))}}, id="its end was told"),
    ],
)
def test_what_is_not_tried_again(spec: dict[str, Any], update: RunUpdate, known: dict[str, Any]) -> None:
    assert why(spec, update, **known) == ""


def test_a_run_that_is_being_stopped_or_deleted_is_not_tried_again() -> None:
    marked = {"cancellation": {"reason": "DeadlineExceeded", "time": "2026-03-01T12:00:00Z"}}
    assert why({}, run=b.run(spec={"retries": 1}, bound=True, status=marked)) == ""
    assert why({}, run=b.run(spec={"retries": 1}, bound=True, deleted=0)) == ""


def test_a_mark_of_an_earlier_attempt_does_not_keep_a_later_one_from_being_tried_again() -> None:
    marked = {"cancellation": {"reason": "Cancelled", "time": "2026-03-01T12:00:00Z", "attempt": 1}}
    assert why({}, b.update("failed", attempt=2), run=b.run(spec={"retries": 1}, bound=True, status=marked))


def test_the_pause_begins_with_the_end_that_status_shows() -> None:
    history = [{"state": "retrying", "time": b.at(7).isoformat(), "attempt": 1}]
    known = b.knows(current=SECOND)
    assert retry.due(b.run(status={"history": history}), known) == b.at(17)
    assert retry.due(b.run(status={"history": history}), b.knows()) is None, "the first submission waits for nothing"
    assert retry.due(b.run(), known) is None, "nobody knows when the attempt ended"
    known.published.add((1, RunState.RETRYING, b.at(8)))
    assert retry.due(b.run(), known) == b.at(18), "the event tells it before status does"


@pytest.mark.parametrize(
    ("status", "update", "over"),
    [
        pytest.param({}, None, None, id="not begun"),
        pytest.param({}, b.update("running", seconds=5), b.at(65), id="from the begin of the first attempt"),
        pytest.param({"startTime": "2026-03-01T12:00:00Z"}, None, b.at(60), id="through the pause"),
        pytest.param({"startTime": "2026-03-01T12:00:00Z"}, b.update("running", seconds=30), b.at(60), id="through retries"),
        pytest.param(
            {"startTime": "2026-03-01T12:00:00Z", "completionState": "Failed"}, b.update("running", seconds=30), b.at(90), id="anew"
        ),
        pytest.param(
            {"startTime": "2026-03-01T12:00:00Z", "completionState": "Failed"},
            b.update("running", seconds=30, attempt=2, start_time=b.at(0)),
            b.at(90),
            id="anew though the backend tells when it began first",
        ),
    ],
)
def test_the_deadline_is_that_of_the_run_with_all_its_retries(
    status: dict[str, Any], update: RunUpdate | None, over: datetime | None
) -> None:
    assert retry.deadline(b.run(spec={"activeDeadlineSeconds": 60}, status=status), update) == over
    assert retry.deadline(b.run(status=status), update) is None


def test_a_report_of_a_reopened_run_waits_while_the_end_before_it_is_told() -> None:
    subject = b.run(bound=True)
    known = b.knows(update=FAILED, cancel_sent=b.NOW)
    going_on = b.update("running", attempt=2, seconds=60)
    retry.report(subject, known, going_on, b.at(60))
    assert known.update == FAILED
    known.completed.add(1)
    retry.report(subject, known, going_on, b.at(60))
    assert known.update == going_on
    assert known.cancel_sent is None, "that was about the attempt before"


def test_a_reopen_takes_the_place_of_a_retry_that_was_not_told() -> None:
    known = b.knows(update=FAILED)
    going_on = b.update("running", attempt=2, seconds=60)
    retry.report(b.run(spec={"retries": 1}, bound=True), known, going_on, b.at(60))
    assert known.update == going_on
