import json
from datetime import UTC, datetime

import pytest
from jsonschema import Draft202012Validator

from kfp_operator.events.schemas import schema
from kfp_operator.schemas import DagCompletion, DagStatus, OperationState

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TRAIN = OperationState(name="train", state="running", run_name="team-a/nightly-train", run_uid="u1", attempt=1)


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (
            "dag-status",
            DagStatus(
                dag_name="team-a/nightly", dag_uid="u0", transition=2, state="running", time=NOW, operations=[TRAIN], total=1, running=1
            ),
        ),
        ("dag-completion", DagCompletion(dag_name="team-a/nightly", dag_uid="u0", status="failed", state="stopped", end_time=NOW)),
    ],
)
def test_what_is_told_of_a_dag_satisfies_its_schema(event: str, data: DagStatus | DagCompletion) -> None:
    document = schema(event)
    Draft202012Validator.check_schema(document)
    Draft202012Validator(document).validate(json.loads(data.model_dump_json(by_alias=True)))


def test_names_are_those_of_the_events_about_runs() -> None:
    data = DagStatus(dag_name="a/b", dag_uid="u", transition=1, state="created", time=NOW, operations=[TRAIN]).model_dump(
        mode="json", by_alias=True
    )
    assert data["time"] == "2026-01-02T03:04:05Z"
    assert data["operations"] == [{"name": "train", "state": "running", "runName": "team-a/nightly-train", "runUid": "u1", "attempt": 1}]
    assert {"dagName", "dagUid", "runConfigurationName", "previousState"} < set(data)
