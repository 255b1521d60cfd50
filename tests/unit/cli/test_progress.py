from datetime import datetime
from typing import Any

import pytest

from kfp_operator.api.run import Run
from kfp_operator.api.states import RunState
from kfp_operator.cli.progress import Line, clean, length, news, summary, view
from tests.builders import at, run


def condition(type_: str, status: str, reason: str = "Reason", message: str = "") -> dict[str, Any]:
    return {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-03-01T12:00:00Z"}


def entry(state: str, seconds: float, message: str = "", attempt: int = 1) -> dict[str, Any]:
    return {"state": state, "time": at(seconds).isoformat(), "message": message, "attempt": attempt}


def waiting(message: str) -> Run:
    return run(status={"conditions": [condition("Ready", "False", "PipelineMissing", message)]})


def underway(*history: dict[str, Any], message: str = "") -> Run:
    return run(status={"state": history[-1]["state"], "history": list(history), "message": message, "attempt": 1})


def ended(state: str, **status: Any) -> Run:
    good = "True" if state == "succeeded" else "False"
    reason = RunState(state).reason
    conditions = [condition("Completed", "True", reason), condition("Succeeded", good, reason)]
    return run(status={"state": state, "conditions": conditions, "attempt": 1, **status})


def test_a_run_without_a_status_waits_for_the_operator() -> None:
    now = view(run())
    assert (now.state, now.ended) == ("waiting", False)
    assert now.message == "the operator has not looked at it yet"


def test_a_waiting_run_says_for_what() -> None:
    assert view(waiting("Pipeline team/train does not exist")).message == "Pipeline team/train does not exist"


def test_a_final_state_has_not_ended_a_run_before_its_completion_is_known() -> None:
    assert not view(underway(entry("succeeded", 0))).ended


@pytest.mark.parametrize(("state", "succeeded"), [("succeeded", True), ("failed", False), ("stopped", False), ("skipped", False)])
def test_only_a_run_that_succeeded_has_succeeded(state: str, succeeded: bool) -> None:
    now = view(ended(state))
    assert (now.ended, now.succeeded, now.state) == (True, succeeded, state)


def test_a_restored_run_has_ended_without_a_state() -> None:
    restored = run(
        status={"conditions": [condition("Completed", "True", "Restored", "it was restored"), condition("Succeeded", "Unknown")]}
    )
    now = view(restored)
    assert (now.ended, now.succeeded, now.state) == (True, False, "Restored")


def test_states_that_passed_unseen_are_told_with_the_times_of_the_backend() -> None:
    before = waiting("something")
    now = underway(entry("queued", 1), entry("running", 2))
    assert news(before, now) == [Line("queued", "", at(1)), Line("running", "", at(2))]


def test_a_state_is_told_once() -> None:
    now = underway(entry("queued", 1), entry("running", 2))
    later = underway(entry("queued", 1), entry("running", 2), entry("retrying", 3))
    assert news(now, now) == []
    assert news(now, later) == [Line("retrying", "", at(3))]


def test_the_same_state_in_the_next_attempt_is_told_again() -> None:
    now = underway(entry("running", 1))
    later = underway(entry("running", 1), entry("running", 1, attempt=2))
    assert news(now, later) == [Line("running", "", at(1))]


def test_a_new_reason_to_wait_is_told_and_an_old_one_is_not() -> None:
    assert news(None, waiting("a")) == [Line("waiting", "a")]
    assert news(waiting("a"), waiting("a")) == []
    assert news(waiting("a"), waiting("b")) == [Line("waiting", "b")]


def test_a_message_that_comes_with_a_state_stands_beside_it() -> None:
    now = underway(entry("queued", 1), message="waits for a slot")
    assert news(None, now) == [Line("queued", "waits for a slot", at(1))]


def test_a_message_that_comes_later_is_told_and_its_end_is_not() -> None:
    now = underway(entry("running", 1))
    collecting = underway(entry("running", 1), message="collecting artifacts")
    assert news(now, collecting) == [Line("running", "collecting artifacts")]
    assert news(collecting, now) == []


def test_a_history_that_was_clipped_at_its_start_tells_nothing_twice() -> None:
    before = underway(entry("queued", 1), entry("running", 2))
    assert news(before, underway(entry("running", 2), entry("retrying", 3))) == [Line("retrying", "", at(3))]


def test_the_summary_of_a_success_names_its_artifacts() -> None:
    status = {
        "startTime": "2026-03-01T12:00:00Z",
        "endTime": "2026-03-01T12:01:10Z",
        "artifacts": [{"name": "model", "location": "file:///m"}],
    }
    assert summary(ended("succeeded", **status)) == ["Run team/train-1 succeeded after 1 min 10 s", "  artifact model: file:///m"]


def test_the_summary_of_a_failure_says_where_and_how_to_see_more() -> None:
    failed = ended("failed", message="the step raised ValueError", failedTask="train", attempt=2, url="http://kfp/1")
    assert summary(failed) == [
        "Run team/train-1 failed at attempt 2",
        "  failed task: train",
        "  http://kfp/1",
        "  its log: kfp-operator runs logs train-1 -n team",
    ]
    assert news(None, failed) == [Line("failed", "the step raised ValueError")]


def test_a_run_that_was_refused_has_no_log() -> None:
    assert summary(ended("failed", message="no such parameter", attempt=0)) == ["Run team/train-1 failed"]


def test_a_run_that_goes_on_has_no_summary() -> None:
    assert summary(underway(entry("running", 1))) == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (-3, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min")]
)
def test_a_length_of_time_is_written_for_people(seconds: float, text: str) -> None:
    assert length(seconds) == text


@pytest.mark.parametrize(
    ("text", "limit", "cleaned"),
    [
        ("two\nlines", 0, "two lines"),
        ("\x1b[31mred\x07", 0, "[31mred"),
        ("[bold]not markup[/bold]", 0, "[bold]not markup[/bold]"),
        ("abcdef", 4, "abc…"),
        ("abcd", 4, "abcd"),
    ],
)
def test_what_a_terminal_would_obey_is_taken_out(text: str, limit: int, cleaned: str) -> None:
    assert clean(text, limit) == cleaned


def test_lines_have_aware_times() -> None:
    times = [line.time for line in news(None, underway(entry("running", 1)))]
    assert all(isinstance(time, datetime) and time.tzinfo for time in times)
