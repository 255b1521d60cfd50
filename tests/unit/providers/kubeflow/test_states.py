from datetime import datetime, timedelta
from typing import Any

import pytest

from kfp_operator.api.states import RunState
from kfp_operator.providers.kubeflow.failures import Diagnosis
from kfp_operator.providers.kubeflow.states import Ending, is_final, updates
from kfp_operator.providers.kubeflow.times import moment
from kfp_operator.providers.protocol import RunUpdate
from tests.unit.providers.kubeflow.arrange import NOW


def stamp(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def document(*history: tuple[str, float], state: str | None = None, finished: float | None = None, **members: Any) -> dict[str, Any]:
    """A run as the server tells it."""
    said = state if state is not None else history[-1][0]
    return {
        "run_id": "r1",
        "display_name": "run one",
        "created_at": stamp(0),
        "finished_at": "1970-01-01T00:00:00Z" if finished is None else stamp(finished),
        "state_history": [{"update_time": stamp(when), "state": word} for word, when in history],
        **({"state": said} if said else {}),
        **members,
    }


def last(run: dict[str, Any], **known: Any) -> RunUpdate:
    return updates(run, **known)[-1]


def told(update: RunUpdate) -> list[tuple[str, float]]:
    return [(change.state.value, (change.time - NOW).total_seconds()) for change in update.history]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2026-03-01T12:00:00Z", NOW),
        ("2026-03-01T12:00:00.5Z", at(0.5)),
        ("2026-03-01T13:00:00+01:00", NOW),
        ("1970-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
        (None, None),
        (5, None),
    ],
)
def test_a_time_that_is_not_there_is_1970_or_the_year_1(text: object, found: datetime | None) -> None:
    assert moment(text) == found


def test_a_run_that_succeeded_tells_all_its_states() -> None:
    update = last(document(("PENDING", 0), ("RUNNING", 2), ("SUCCEEDED", 60), finished=59), url="https://kfp/#/runs/details/r1")
    assert told(update) == [("queued", 0), ("running", 2), ("succeeded", 60)]
    assert (update.start_time, update.end_time) == (at(2), at(59))
    assert (update.submission_id, update.provider_id, update.attempt) == ("r1", "r1", 1)
    assert update.url == "https://kfp/#/runs/details/r1"
    assert not update.perhaps_stopped


def test_a_run_whose_phase_is_not_known_yet_waits() -> None:
    assert told(last(document(state=""))) == [("queued", 0)]
    assert told(last(document(state="RUNTIME_STATE_UNSPECIFIED"))) == [("queued", 0)]


def test_states_that_repeat_are_told_once_and_those_of_one_second_all() -> None:
    update = last(document(("PENDING", 0), ("PENDING", 0), ("RUNNING", 0), ("SUCCEEDED", 0), finished=0))
    assert told(update) == [("queued", 0), ("running", 0), ("succeeded", 0)]


def test_an_end_that_the_history_lacks_is_told_with_the_time_of_the_end() -> None:
    assert told(last(document(("PENDING", 0), state="FAILED", finished=9)))[-1] == ("failed", 9)
    assert told(last(document(("PENDING", 3), state="FAILED")))[-1] == ("failed", 3)


def test_stopping_is_told_when_the_history_has_a_time_for_it() -> None:
    assert told(last(document(("PENDING", 0), ("RUNNING", 1), state="CANCELING"))) == [("queued", 0), ("running", 1)]
    assert told(last(document(("RUNNING", 1), ("CANCELING", 5))))[-1] == ("stopping", 5)


def test_a_run_that_was_terminated_is_stopped_though_the_server_says_failed() -> None:
    by_history = last(document(("RUNNING", 1), ("CANCELING", 5), ("FAILED", 6), finished=6))
    assert told(by_history)[-1] == ("stopped", 6)
    run = document(("RUNNING", 1), ("FAILED", 6), finished=6)
    assert told(last(run, ending=Ending(stop_accepted=True)))[-1] == ("stopped", 6)
    assert told(last(document(("RUNNING", 1), ("CANCELED", 6), finished=6)))[-1] == ("stopped", 6)


def test_a_failed_run_may_have_been_stopped_unless_the_server_refused_to() -> None:
    run = document(("RUNNING", 1), ("FAILED", 6), finished=6)
    assert last(run).perhaps_stopped
    assert not last(run, ending=Ending(stop_refused=True)).perhaps_stopped


def test_a_failure_names_its_step() -> None:
    update = last(document(("RUNNING", 1), ("FAILED", 6), finished=6), ending=Ending(diagnosis=Diagnosis("act", "step act failed")))
    assert (update.failed_task, update.message) == ("act", "step act failed")


def test_a_run_that_is_retried_in_the_ui_is_another_attempt() -> None:
    run = document(("PENDING", 0), ("RUNNING", 1), ("FAILED", 5), ("RUNNING", 20), ("SUCCEEDED", 30), finished=30)
    first, second = updates(run, ending=Ending(stop_refused=True))
    assert (first.attempt, told(first)) == (1, [("queued", 0), ("running", 1), ("failed", 5)])
    assert (first.end_time, first.perhaps_stopped) == (at(5), True)
    assert (second.attempt, told(second)) == (2, [("running", 20), ("succeeded", 30)])
    assert (second.start_time, second.end_time) == (at(20), at(30))


def test_what_a_second_workflow_reports_is_no_second_attempt() -> None:
    update = last(document(("RUNNING", 1), ("SUCCEEDED", 5), ("FAILED", 6), finished=6))
    assert (update.attempt, told(update)) == (1, [("running", 1), ("failed", 6)])


def test_what_the_server_could_not_convert_is_no_end() -> None:
    update = last({"run_id": "r1", "error": {"code": 13, "message": "cannot be converted"}})
    assert (update.state, update.message) == (RunState.QUEUED, "cannot be converted")


@pytest.mark.parametrize("history", [None, "x", [None], [{}], [{"state": "NEW"}]])
def test_history_that_cannot_be_read_is_left_out(history: Any) -> None:
    assert told(last({"run_id": "r1", "created_at": stamp(0), "state": "RUNNING", "state_history": history})) == [("running", 0)]


@pytest.mark.parametrize(("word", "final"), [("SUCCEEDED", True), ("FAILED", True), ("SKIPPED", True), ("CANCELING", False), ("", False)])
def test_ends_are_known(word: str, final: bool) -> None:
    assert is_final({"state": word}) is final
