"""What the events of a Run say of it."""

from typing import Any

import pytest

from kfp_operator.api.names import labelled
from kfp_operator.api.states import RunState
from kfp_operator.reconcile import outcome
from kfp_operator.reconcile.attempts import FIRST
from kfp_operator.schemas import Cause
from tests import builders as b

LONG = "nightly-training-of-the-penguin-classifier-with-all-features-of-the-year"


def origin(**told: str) -> dict[str, Any]:
    """Labels and annotations under the names that `told` names."""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    for name, value in told.items():
        short, whole = labelled(getattr(b.NAMES, name), value)
        labels |= short
        annotations |= whole
    return {"labels": labels, "annotations": annotations}


@pytest.mark.parametrize(
    ("told", "cause"),
    [
        pytest.param({}, Cause(), id="made by a person"),
        pytest.param(
            {"trigger_type": "schedule", "trigger_source": "nightly", "trigger_source_namespace": "team"},
            Cause(type="schedule", source="team/nightly"),
            id="a schedule",
        ),
        pytest.param(
            {"trigger_type": "runConfiguration", "trigger_source": LONG, "trigger_source_namespace": "ops"},
            Cause(type="runConfiguration", source=f"ops/{LONG}"),
            id="a name that no label holds",
        ),
        pytest.param({"trigger_type": "manual", "trigger_source": "train"}, Cause(type="manual", source="train"), id="no namespace"),
    ],
)
def test_a_completion_tells_what_started_the_run(told: dict[str, str], cause: Cause) -> None:
    event = outcome.completion(b.run(**origin(**told)), b.NAMES, b.update("running", "succeeded"), FIRST, None)
    assert event.trigger == cause


def test_events_name_the_configuration_that_made_the_run() -> None:
    owner = {"kind": "RunConfiguration", "name": "nightly", "uid": "u", "controller": True}
    subject = b.run()
    made = subject.parse({**subject.to_json(), "metadata": {**subject.metadata.to_json(), "ownerReferences": [owner]}})
    assert outcome.configuration_of(made, b.NAMES) == "team/nightly"
    assert outcome.configuration_of(b.run(**origin(run_configuration=LONG)), b.NAMES) == f"team/{LONG}", "its owner was orphaned"
    assert outcome.configuration_of(b.run(), b.NAMES) == ""


def test_a_state_is_told_with_the_begin_of_its_attempt_once_that_has_begun() -> None:
    report = b.update("queued", "running")
    queued, running = report.history
    told = [outcome.status_event(b.run(), b.NAMES, report, c, transition=1, current=FIRST).run_start_time for c in (queued, running)]
    assert told == [None, b.at(1)]


def test_the_first_state_of_a_later_attempt_follows_the_state_that_is_shown() -> None:
    subject = b.run(status={"state": "retrying", "attempt": 1})
    report = b.update("queued", attempt=2)
    assert outcome.previous_state(subject, report, report.history[0]) == "retrying"
    first = b.update("queued", "running")
    assert [outcome.previous_state(b.run(), first, change) for change in first.history] == ["", "queued"]


def test_an_attempt_that_was_reopened_began_no_earlier_than_its_first_state() -> None:
    """Some backends go on telling when the run began first."""
    assert outcome.begun(b.update("running", attempt=2, seconds=60, start_time=b.at(0))) == b.at(60)
    assert outcome.begun(b.update("queued", "running", start_time=b.at(0.5))) == b.at(0.5)


def test_nothing_is_told_of_an_attempt_after_its_end() -> None:
    """An earlier process told another time, or a state that the backend's history does not hold."""
    report = b.update("queued", "running", "failed")
    assert outcome.unpublished(b.run(), report, {(1, RunState.FAILED, b.at(90))}) == []
    assert outcome.unpublished(b.run(), report, {(1, RunState.STOPPED, b.at(2))}) == []
    later = outcome.unpublished(b.run(), b.update("running", attempt=2), {(1, RunState.FAILED, b.at(2))})
    assert [change.state for change in later] == [RunState.RUNNING]
