"""The generated CustomResourceDefinitions: complete, bounded, and the ones in the repository."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic.alias_generators import to_camel

from kfp_operator.api.crd import KINDS, Kind, crd_files, crd_yaml, crds, schema
from kfp_operator.api.run import IMMUTABLE, MUTABLE, RunSpec

REPOSITORY = Path(__file__).parents[3]
FREE = {"pipelineSpec", "parameters", "metadata", "value"}
"""Fields that hold any JSON, which a schema cannot bound."""


def fields(part: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, part
    for name, inner in part.get("properties", {}).items():
        yield from fields(inner, f"{path}.{name}")
    if "items" in part:
        yield from fields(part["items"], f"{path}[]")


def all_fields() -> list[tuple[str, dict[str, Any]]]:
    return [
        found
        for kind in KINDS
        for part in ("spec", "status")
        for found in fields(schema(kind.model)["properties"][part], f"{kind.name}.{part}")
    ]


def test_the_files_in_the_repository_are_the_generated_ones() -> None:
    folder = REPOSITORY / "crds"
    generated = crd_files()
    assert {name: (folder / name).read_text() for name in generated} == generated, "run: kfp-operator crds --output crds"


def test_one_stream_holds_all_kinds_and_says_how_it_was_made() -> None:
    assert list(yaml.safe_load_all(crd_yaml())) == crds()
    assert "kfp-operator crds" in crd_yaml().splitlines()[0]


def test_another_group_changes_all_names_and_nothing_else() -> None:
    ours, theirs = crd_yaml(), crd_yaml("ml.example.org")
    assert theirs == ours.replace("kfp-operator.dev", "ml.example.org")


def test_the_go_operators_group_lets_its_form_of_the_provider_pass_and_changes_nothing_else() -> None:
    assert [crd["metadata"]["name"] for crd in crds("pipelines.kubeflow.org")] == [
        "providers.pipelines.kubeflow.org",
        "pipelines.pipelines.kubeflow.org",
        "runs.pipelines.kubeflow.org",
        "experiments.pipelines.kubeflow.org",
        "runconfigurations.pipelines.kubeflow.org",
        "runschedules.pipelines.kubeflow.org",
    ]
    for ours, theirs in zip(crds("ml.example.org"), crds("pipelines.kubeflow.org"), strict=True):
        mine, open_ = ours["spec"]["versions"][0], theirs["spec"]["versions"][0]
        text = mine["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"].pop("provider")["description"]
        provider = open_["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"].pop("provider")
        assert provider == {"description": text, "x-kubernetes-preserve-unknown-fields": True}
        assert open_["schema"] == mine["schema"]
        assert open_["selectableFields"] == [field for field in mine["selectableFields"] if field["jsonPath"] != ".status.provider"]


@pytest.mark.parametrize(("path", "part"), all_fields(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_field_is_described_and_bounded(path: str, part: dict[str, Any]) -> None:
    if not path.endswith("[]"):
        text = part.get("description", "")
        assert len(text) >= 5
        assert text.endswith(".")
    name = path.rpartition(".")[2]
    match part.get("type"):
        case "string":
            assert part.get("format") == "date-time" or "enum" in part or "maxLength" in part
        case "array":
            assert "maxItems" in part
            assert "x-kubernetes-list-type" in part
        case "object":
            assert "properties" in part or (name in FREE and part["x-kubernetes-preserve-unknown-fields"])
        case None:
            assert name in FREE


def test_rules_have_messages_for_people() -> None:
    rules = [rule for _, part in all_fields() for rule in part.get("x-kubernetes-validations", [])]
    assert len(rules) > 15
    assert not [rule for rule in rules if len(rule["message"]) < 20 or "\n" in rule["message"]]


def test_every_field_of_a_runs_spec_is_either_immutable_or_mutable() -> None:
    assert not IMMUTABLE & MUTABLE
    assert set(RunSpec.model_fields) == IMMUTABLE | MUTABLE


def test_every_immutable_field_of_a_run_has_its_rule() -> None:
    run = schema(next(kind.model for kind in KINDS if kind.name == "Run"))
    rules = run["properties"]["spec"]["x-kubernetes-validations"]
    assert {rule["fieldPath"] for rule in rules if "oldSelf" in rule["rule"]} == {f".{to_camel(field)}" for field in IMMUTABLE} | {
        ".cancel"
    }


def test_a_run_says_which_fields_may_change_and_a_template_does_not() -> None:
    described = {
        model: schema(kind.model)["properties"]["spec"]["properties"]
        for kind in KINDS
        if (model := kind.name) in ("Run", "RunConfiguration")
    }
    run, template = described["Run"], described["RunConfiguration"]["run"]["properties"]
    assert {name for name, part in run.items() if part["description"].endswith("Immutable.")} == {to_camel(field) for field in IMMUTABLE}
    assert not [name for name, part in template.items() if "mmutable" in part["description"]]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_columns_and_selectable_fields_exist_in_the_schema(kind: Kind) -> None:
    known = {
        path.removeprefix(kind.name): part
        for part in ("spec", "status")
        for path, part in fields(schema(kind.model)["properties"][part], f"{kind.name}.{part}")
    }
    for column in kind.columns:
        assert column.path == ".metadata.creationTimestamp" or column.path.partition("[")[0] in known
    for path in kind.selectable:
        assert known[path]["type"] == "string"


def test_statuses_agree_on_what_all_kinds_have() -> None:
    shared = [
        {
            name: schema(kind.model)["properties"]["status"]["properties"][name]
            for name in ("synchronizationState", "provider", "conditions")
        }
        for kind in KINDS
    ]
    assert shared[0] == shared[1] == shared[2]
