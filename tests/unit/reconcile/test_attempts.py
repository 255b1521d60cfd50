"""How submissions by the operator and re-opens at the backend make one number."""

import pytest

from kfp_operator.api.run import HistoryEntry, RunStatus
from kfp_operator.api.states import RunState
from kfp_operator.reconcile.attempts import FIRST, CurrentSubmission, attempt_of, shown, submission_of
from tests import builders as b


@pytest.mark.parametrize(
    ("current", "count", "attempt"),
    [
        pytest.param(FIRST, 1, 1, id="the first"),
        pytest.param(FIRST, 3, 3, id="re-opened twice"),
        pytest.param(CurrentSubmission(2, 2), 1, 2, id="tried again"),
        pytest.param(CurrentSubmission(2, 4), 1, 4, id="tried again after two re-opens"),
        pytest.param(CurrentSubmission(3, 5), 2, 6, id="tried again twice, re-opened before and after"),
        pytest.param(FIRST, 0, 1, id="a backend that counts from 0"),
    ],
)
def test_the_attempt_is_what_came_before_the_submission_and_the_backends_own_count(
    current: CurrentSubmission, count: int, attempt: int
) -> None:
    assert current.attempt(count) == attempt
    assert current.numbered(b.update("running", attempt=count)).attempt == attempt


def test_a_submission_follows_the_attempt_that_failed() -> None:
    again = FIRST.next(1)
    assert again == CurrentSubmission(2, 2)
    assert again.next(3) == CurrentSubmission(3, 4), "attempt 3 was re-opened at the backend"
    assert FIRST < again < again.next(3)


def test_status_shows_the_submission_that_is_on() -> None:
    assert shown(RunStatus()) == FIRST
    assert shown(RunStatus(submission=2, first_attempt=3)) == CurrentSubmission(2, 3)


def test_the_attempt_that_comes_next_is_the_one_that_a_run_waits_for() -> None:
    assert attempt_of(b.run(), FIRST) == 1
    assert attempt_of(b.run(status={"attempt": 1}), CurrentSubmission(2, 2)) == 2
    assert attempt_of(b.run(status={"attempt": 4}), CurrentSubmission(2, 2)) == 4


def retried(*attempts: int) -> list[HistoryEntry]:
    return [HistoryEntry(state=RunState.RETRYING, time=b.at(n), attempt=n) for n in attempts]


@pytest.mark.parametrize(
    ("status", "numbers"),
    [
        pytest.param(RunStatus(attempt=3), {1: 1, 2: 1, 3: 1}, id="re-opened only"),
        pytest.param(RunStatus(attempt=3, submission=3, first_attempt=3), {1: 1, 2: 2, 3: 3}, id="tried again only"),
        pytest.param(
            RunStatus(attempt=5, submission=3, first_attempt=4, history=retried(2, 3)), {1: 1, 2: 1, 3: 2, 4: 3, 5: 3}, id="both by turns"
        ),
    ],
)
def test_the_submission_of_an_attempt_is_found_from_status(status: RunStatus, numbers: dict[int, int]) -> None:
    assert {attempt: submission_of(status, attempt) for attempt in numbers} == numbers
