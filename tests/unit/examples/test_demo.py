"""The demo says that everything happened only if it did."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from examples.demo.outsider import Received
from examples.demo.text import pretty
from examples.demo.verdict import BAD, GOOD, Served, claims
from kfp_operator.api.run import Run
from kfp_operator.events import binding, envelope
from kfp_operator.schemas import Artifact, RunCompletion

TIME = datetime(2026, 3, 1, 12, tzinfo=UTC)
TRUTH = ["Adelie", "Gentoo", "Chinstrap"]
BEFORE = Served("baseline", ["Adelie"] * 3, TRUTH)
AFTER = Served("default/penguin-run", TRUTH, TRUTH)


def run(name: str, state: str, **status: Any) -> Run:
    end = "Succeeded" if state == "succeeded" else "Failed"
    return Run.parse(
        {
            "apiVersion": "kfp-operator.dev/v1beta1",
            "kind": "Run",
            "metadata": {"name": name, "namespace": "default", "uid": f"uid-of-{name}"},
            "spec": {"pipeline": "penguin-pipeline"},
            "status": {"state": state, "completionState": end, **status},
        }
    )


RUNS = {GOOD: run(GOOD, "succeeded"), BAD: run(BAD, "failed", failedTask="train")}


def told(name: str, status: str, artifacts: list[Artifact] | None = None) -> Received:
    """What a plain subscriber gets."""
    data = RunCompletion(
        provider="default/local",
        status="succeeded" if status == "succeeded" else "failed",
        state=status,
        pipeline_name="default/penguin-pipeline",
        run_name=f"default/{name}",
        run_uid=f"uid-of-{name}",
        run_id="1",
        attempt=1,
        artifacts=artifacts or [],
        run_end_time=TIME,
    )
    message = binding.encode(envelope.build(data), "compatible")
    return Received("events.documented", message.headers, message.body)


@pytest.fixture
def received(tmp_path: Path) -> list[Received]:
    model = tmp_path / "model"
    model.touch()
    artifact = Artifact(name="serving-model", location=str(model), type="system.Model", metadata={"accuracy": 0.97})
    return [told(BAD, "failed"), told(GOOD, "succeeded", [artifact])]


def broken(**changes: Any) -> list[str]:
    """Claims that do not hold."""
    arguments = {"namespace": "default", "runs": RUNS, "before": BEFORE, "after": AFTER} | changes
    return [claim.text for claim in claims(**arguments) if not claim.holds]


def test_all_claims_hold_when_everything_happened(received: list[Received]) -> None:
    assert broken(received=received) == []


def test_a_run_that_ended_otherwise_is_noticed(received: list[Received]) -> None:
    assert any(GOOD in text for text in broken(received=received, runs={**RUNS, GOOD: run(GOOD, "failed")}))
    assert any(BAD in text for text in broken(received=received, runs={**RUNS, BAD: run(BAD, "failed", failedTask="load")}))


def test_an_event_that_is_missing_doubled_or_of_somebody_else_is_noticed(received: list[Received]) -> None:
    bad, good = received
    assert broken(received=[good]) == [f"the subscriber received exactly one completion of default/{BAD}: failed"]
    assert broken(received=[bad, good, bad]) == [f"the subscriber received exactly one completion of default/{BAD}: failed"]
    assert broken(received=[bad, good, told("another", "succeeded")]) == ["and nothing else"]


def test_an_event_whose_body_says_otherwise_is_noticed(received: list[Received]) -> None:
    bad, good = received
    document = bad.document()
    document["data"]["status"] = "succeeded"
    told_wrong = replace(bad, body=json.dumps(document).encode())
    assert broken(received=[told_wrong, good]) == [f"the subscriber received exactly one completion of default/{BAD}: failed"]


def test_a_model_that_is_not_where_the_event_says_is_noticed(received: list[Received]) -> None:
    location = received[1].document()["data"]["artifacts"][0]["location"]
    Path(location).unlink()
    assert broken(received=received) == ["the event of the good one names a model that exists, with its accuracy"]


def test_a_server_that_does_not_reload_or_predicts_no_better_is_noticed(received: list[Received]) -> None:
    assert len(broken(received=received, after=BEFORE)) == 2
    assert len(broken(received=received, after=replace(AFTER, predicted=["Gentoo"] * 3))) == 1


@pytest.mark.parametrize(
    "document", [{}, [], {"a": {"b": ["c" * 100, "d" * 100]}, "e": []}, {"message": 'say "hä?"', "none": None}, ["x" * 300, 1, {"y": True}]]
)
def test_json_for_people_is_still_that_json(document: Any) -> None:
    assert json.loads(pretty(document)) == document
