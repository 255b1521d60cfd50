import json

import pytest
from jsonschema import Draft202012Validator, ValidationError

from kfp_operator.errors import ConfigurationError
from kfp_operator.events.envelope import RunEvent, build
from kfp_operator.events.schemas import DATA_MODELS, dataschema, schema, schemas
from tests.doubles.events import completion, status


@pytest.mark.parametrize("data", [completion(), completion(run_end_time=None, state="failed", status="failed"), status()])
def test_what_is_published_satisfies_the_schema_it_names(data: RunEvent) -> None:
    event = build(data)
    document = schema(event.get_type())
    assert document["$id"] == event.get_dataschema()
    Draft202012Validator.check_schema(document)
    Draft202012Validator(document).validate(event.get_data())


def test_a_schema_allows_members_of_later_versions() -> None:
    data = build(completion()).get_data()
    assert isinstance(data, dict)
    Draft202012Validator(schema("run-completion")).validate(data | {"new": 1})


def test_a_schema_refuses_another_outcome() -> None:
    data = build(completion()).get_data()
    assert isinstance(data, dict)
    with pytest.raises(ValidationError, match="stopped"):
        Draft202012Validator(schema("run-completion")).validate(data | {"status": "stopped"})


def test_every_member_is_described() -> None:
    for event_type, document in schemas().items():
        for part in [document, *document.get("$defs", {}).values()]:
            undescribed = [name for name, member in part["properties"].items() if not {"description", "$ref"} & set(member)]
            assert undescribed == [], event_type


def test_schemas_have_stable_names() -> None:
    assert {event_type: dataschema(event_type) for event_type in DATA_MODELS} == {
        "org.kubeflow.pipelines.run-completion": "urn:kfp-operator:run-completion:v1",
        "org.kubeflow.pipelines.run-status": "urn:kfp-operator:run-status:v1",
        "org.kubeflow.pipelines.dag-completion": "urn:kfp-operator:dag-completion:v1",
        "org.kubeflow.pipelines.dag-status": "urn:kfp-operator:dag-status:v1",
        "org.kubeflow.pipelines.event": "urn:kfp-operator:event:v1",
    }


def test_schemas_are_json() -> None:
    assert json.loads(json.dumps(schemas())) == schemas()


def test_an_unknown_event_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="run-completion, run-status, dag-completion, dag-status, event"):
        schema("pod-completion")
