"""Compiled pipelines: what is one, and which parameters fit it."""

import contextlib
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kfp_operator.api.run import Parameter
from kfp_operator.errors import InvalidSpec
from kfp_operator.providers.ir import MAX_TEXT, PipelineIR, bind_parameters, parse_ir, parse_text

SPEC: dict[str, Any] = {
    "schemaVersion": "2.1.0",
    "sdkVersion": "kfp-2.14.0",
    "pipelineInfo": {"name": "penguin"},
    "components": {
        "comp-train": {"executorLabel": "exec-train", "inputDefinitions": {"parameters": {"runs": {"parameterType": "NUMBER_INTEGER"}}}}
    },
    "deploymentSpec": {"executors": {"exec-train": {"container": {"image": "python:3.11", "command": ["true"]}}}},
    "root": {
        "dag": {"tasks": {"train": {"taskInfo": {"name": "train"}, "componentRef": {"name": "comp-train"}}}},
        "inputDefinitions": {
            "parameters": {
                "runs": {"parameterType": "NUMBER_INTEGER"},
                "rate": {"parameterType": "NUMBER_DOUBLE", "isOptional": True, "defaultValue": 0.5},
                "name": {"parameterType": "STRING", "isOptional": True},
                "fast": {"parameterType": "BOOLEAN", "defaultValue": False},
                "layers": {"parameterType": "LIST", "isOptional": True},
                "labels": {"parameterType": "STRUCT", "isOptional": True},
                "mode": {"parameterType": "STRING", "isOptional": True, "literals": ["a", "b"]},
                "final": {"parameterType": "TASK_FINAL_STATUS", "isOptional": True},
            }
        },
    },
}
PLATFORM = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-train": {"imagePullPolicy": "Always"}}}}}}


def changed(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    spec = copy.deepcopy(SPEC)
    change(spec)
    return spec


def refused(document: Any, **where: str) -> InvalidSpec:
    with pytest.raises(InvalidSpec) as caught:
        parse_text(document, **where) if isinstance(document, str | bytes) else parse_ir(document, **where)
    assert caught.value.reason == "InvalidPipelineSpec"
    return caught.value


def bind(**values: Any) -> dict[str, Any]:
    return bind_parameters(parse_ir(SPEC), [Parameter(name=name, value=value) for name, value in values.items()])


def not_bound(ir: PipelineIR, *values: tuple[str, Any]) -> InvalidSpec:
    with pytest.raises(InvalidSpec) as caught:
        bind_parameters(ir, [Parameter(name=name, value=value) for name, value in values])
    assert caught.value.reason == "InvalidParameters"
    return caught.value


@pytest.mark.parametrize(
    ("document", "platform"),
    [
        (SPEC, None),
        ({"pipelineSpec": SPEC}, None),
        ({"pipelineSpec": SPEC, "platformSpec": PLATFORM}, PLATFORM),
        ({"platform_spec": PLATFORM, "pipeline_spec": SPEC}, PLATFORM),
        ({"pipelineSpec": SPEC, "platformSpec": {}}, None),
    ],
)
def test_the_document_itself_and_both_documents_are_taken(document: dict[str, Any], platform: dict[str, Any] | None) -> None:
    ir = parse_ir(document)
    assert (ir.name, ir.spec, ir.platform_spec) == ("penguin", SPEC, platform)
    assert parse_ir(ir.documents()) == ir


def test_names_in_protobuf_style_are_understood_too() -> None:
    spec = {
        "schema_version": "2.1.0",
        "pipeline_info": {"name": "p"},
        "root": {"input_definitions": {"parameters": {"a": {"parameter_type": "STRING"}}}},
        "deployment_spec": {"executors": {"e": {"container": {"image": "i"}}}},
    }
    assert parse_ir(spec).parameters["a"].type == "STRING"
    spec["deployment_spec"] = {"executors": {"e": {"contaner": {}}}}
    assert refused(spec).field == "spec.pipelineSpec.deploymentSpec.executors[e]"


@pytest.mark.parametrize(
    ("document", "field", "message"),
    [
        ({}, "spec.pipelineSpec", "is not a compiled pipeline"),
        ({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow"}, "spec.pipelineSpec", "is not a compiled pipeline"),
        (PLATFORM, "spec.pipelineSpec", "is not a compiled pipeline"),
        ({"platformSpec": PLATFORM}, "spec.pipelineSpec", "has a platformSpec but no pipelineSpec"),
        ({"pipelineSpec": SPEC, "pipeline_spec": SPEC}, "spec.pipelineSpec", "both spellings"),
        ({"pipelineSpec": SPEC, "extra": 1}, "spec.pipelineSpec", "has 'extra' beside pipelineSpec"),
        (
            {"platformSpec": PLATFORM, "pipelineSpec": {"root": {}}},
            "spec.pipelineSpec.pipelineSpec.schemaVersion",
            "must be 2.1.0, is missing",
        ),
        ({"pipelineSpec": SPEC, "platformSpec": {"platform": {}}}, "spec.pipelineSpec.platformSpec", "did you mean 'platforms'"),
        ({"pipelineSpec": SPEC, "platformSpec": [1]}, "spec.pipelineSpec.platformSpec", "must be a mapping"),
        ({"pipelineSpec": 3}, "spec.pipelineSpec.pipelineSpec", "must be a mapping"),
        (changed(lambda s: s.update(schemaVersion="2.0.0")), "spec.pipelineSpec.schemaVersion", "must be 2.1.0, is '2.0.0'"),
        (changed(lambda s: s.pop("root")), "spec.pipelineSpec.root", "is missing"),
        (changed(lambda s: s.pop("pipelineInfo")), "spec.pipelineSpec.pipelineInfo.name", "lower case"),
        (changed(lambda s: s["pipelineInfo"].update(name="My_Pipeline")), "spec.pipelineSpec.pipelineInfo.name", "'My_Pipeline'"),
        (changed(lambda s: s.update(rot={})), "spec.pipelineSpec", "there is no field 'rot'; did you mean 'root'?"),
        (
            changed(lambda s: s["root"]["dag"]["tasks"]["train"].update(inptus={})),
            "spec.pipelineSpec.root.dag.tasks[train]",
            "did you mean 'inputs'?",
        ),
        (
            changed(lambda s: s["root"]["inputDefinitions"]["parameters"]["runs"].update(parameterType="INT")),
            "spec.pipelineSpec.root.inputDefinitions.parameters[runs].parameterType",
            "Invalid enum value INT",
        ),
        (
            changed(lambda s: s["deploymentSpec"]["executors"]["exec-train"]["container"].update(img="x")),
            "spec.pipelineSpec.deploymentSpec.executors[exec-train].container",
            "did you mean 'image'?",
        ),
        (changed(lambda s: s.update(components=[3])), "spec.pipelineSpec.components", "must be in a dict"),
        (changed(lambda s: s.update(components={3: {}})), "spec.pipelineSpec.components", "the key 3, which is not a string"),
        (
            changed(lambda s: s.update(deploymentSpec={"a": float("nan")})),
            "spec.pipelineSpec.deploymentSpec.a",
            "not a number that JSON knows",
        ),
        (changed(lambda s: s.update(deploymentSpec={"a": b"x"})), "spec.pipelineSpec.deploymentSpec.a", "type that JSON does not know"),
        (changed(lambda s: s.update(deploymentSpec={"a": 10**400})), "spec.pipelineSpec", ""),
        (changed(lambda s: s.update(sdkVersion="\ud800")), "spec.pipelineSpec", ""),
    ],
)
def test_what_is_no_pipeline_is_refused_with_its_path(document: dict[str, Any], field: str, message: str) -> None:
    error = refused(document)
    assert error.field.startswith(field)
    assert message in str(error)
    assert str(error).startswith(f"{error.field}: ")
    assert "\n" not in str(error)


def test_the_place_of_a_document_leads_the_message() -> None:
    assert str(refused({}, field="ConfigMap c[k]")).startswith("ConfigMap c[k]: is not a compiled pipeline")


def test_depth_is_bounded_before_anything_recurses() -> None:
    deep: Any = 1
    for _ in range(50_000):
        deep = [deep]
    assert "nested deeper" in str(refused(changed(lambda s: s.update(deploymentSpec={"a": deep}))))


def test_text_of_one_or_two_documents_is_taken_and_comments_do_not_matter() -> None:
    one, two = yaml.safe_dump(SPEC), yaml.safe_dump(PLATFORM)
    assert parse_text("# PIPELINE DEFINITION\n# Name: penguin\n" + one) == parse_ir(SPEC)
    both = parse_ir({"pipelineSpec": SPEC, "platformSpec": PLATFORM})
    assert parse_text(f"{one}---\n{two}") == parse_text(f"---\n{two}---\n{one}---\n") == both
    assert parse_text(json.dumps(SPEC).encode()) == parse_ir(SPEC)
    assert parse_text(yaml.safe_dump({"pipelineSpec": SPEC, "platformSpec": PLATFORM})) == both


def test_an_unquoted_date_is_a_string_as_in_json() -> None:
    spec = changed(lambda s: s["root"]["inputDefinitions"]["parameters"].update(day={"parameterType": "STRING", "defaultValue": "DAY"}))
    text = yaml.safe_dump(spec).replace("DAY", "2026-01-02")
    assert parse_text(text).spec["root"]["inputDefinitions"]["parameters"]["day"]["defaultValue"] == "2026-01-02"


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("# nothing\n---\n", "is empty"),
        ("just words", "each document must be a mapping"),
        ("a: [1\n", "is not YAML: did not find expected ',' or ']' in line 2"),
        ("a: !!python/object/apply:os.system [ls]", "is not YAML: could not determine a constructor"),
        (b"\xff\xfe\x00", "is not YAML"),
        ("a: \x00", "is not YAML"),
        ("root: {}\n---\nroot: {}\n", "several documents"),
        ("root: {}\n---\nplatforms: {}\n---\nroot: {}\n", "several documents"),
        ("x" * (MAX_TEXT + 1), "is larger than"),
        (BOMB, "is too large"),
        ("root: &a {b: *a}", "nested deeper"),
        ("[" * 500_000, "nested deeper"),
        ("- " * 500_000, "nested deeper"),
        ("? " * 500_000, "nested deeper"),
        ("a: [" + "1," * 400_000 + "]", "is too large"),
        ("{1: 2}", "the key 1, which is not a string"),
    ],
)
def test_text_that_is_no_pipeline_is_refused(text: str | bytes, message: str) -> None:
    assert message in str(refused(text, field="ConfigMap c[k]"))


@pytest.mark.parametrize(
    ("name", "value", "typed"),
    [
        ("runs", 3, 3),
        ("runs", "3", 3),
        ("runs", 3.0, 3),
        ("runs", "3.0", 3),
        ("runs", "-7", -7),
        ("runs", "1e3", 1000),
        ("runs", 2**53 - 1, 2**53 - 1),
        ("rate", 2, 2.0),
        ("rate", "0.25", 0.25),
        ("name", "3", "3"),
        ("name", "", ""),
        ("fast", True, True),
        ("fast", "false", False),
        ("fast", "True", True),
        ("layers", [1, {"a": None}], [1, {"a": None}]),
        ("layers", "[1, 2]", [1, 2]),
        ("labels", {"a": [1]}, {"a": [1]}),
        ("labels", '{"a": 1}', {"a": 1}),
        ("mode", "b", "b"),
    ],
)
def test_a_value_gets_the_type_the_pipeline_declares(name: str, value: Any, typed: Any) -> None:
    bound = bind(**{"runs": 1, name: value})[name]
    assert bound == typed
    assert type(bound) is type(typed)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("runs", "3.5", 'must be a whole number of at most 2^53-1 either way, as 3 (NUMBER_INTEGER), is "3.5"'),
        ("runs", True, "NUMBER_INTEGER"),
        ("runs", "true", "NUMBER_INTEGER"),
        ("runs", None, "NUMBER_INTEGER"),
        ("runs", 2**53, "NUMBER_INTEGER"),
        ("runs", 10**400, "NUMBER_INTEGER"),
        ("runs", "9" * 5000, "NUMBER_INTEGER"),
        ("runs", "NaN", "NUMBER_INTEGER"),
        ("rate", "fast", 'must be a number, as 2.5 (NUMBER_DOUBLE), is "fast"'),
        ("rate", "Infinity", "NUMBER_DOUBLE"),
        ("rate", "1e999", "NUMBER_DOUBLE"),
        ("rate", [1], "NUMBER_DOUBLE"),
        ("name", 3, 'must be a string, in quotes, as "3" (STRING), is 3'),
        ("name", {"a": "b" * 200}, "STRING"),
        ("fast", 1, "must be true or false (BOOLEAN), is 1"),
        ("fast", "yes", "BOOLEAN"),
        ("layers", "1, 2", "must be a list, as [1, 2] (LIST)"),
        ("layers", {}, "LIST"),
        ("layers", "[" * 100_000, "LIST"),
        ("labels", [], 'must be a mapping, as {"a": 1} (STRUCT)'),
        ("mode", "c", 'must be one of "a", "b", is "c"'),
        ("final", "x", "is a TASK_FINAL_STATUS, which the backend fills in itself; leave it out"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_is_accepted(name: str, value: Any, message: str) -> None:
    rest = [] if name == "runs" else [("runs", 1)]
    error = not_bound(parse_ir(SPEC), *rest, (name, value))
    assert error.field == f"spec.parameters[{len(rest)}].value"
    assert f"'{name}' " in str(error)
    assert message in str(error)
    assert len(str(error)) < 300


def test_defaults_are_left_to_the_backend() -> None:
    assert bind(runs=1) == {"runs": 1}


def test_null_for_a_parameter_with_a_default_means_the_default() -> None:
    assert bind(runs=1, rate=None, name=None, fast=None) == {"runs": 1}


def test_a_parameter_of_no_declared_type_takes_anything() -> None:
    ir = parse_ir(changed(lambda s: s["root"]["inputDefinitions"].update(parameters={"any": {}})))
    assert bind_parameters(ir, [Parameter(name="any", value=[1, "x"])]) == {"any": [1, "x"]}


def test_all_problems_are_told_at_once_with_their_paths() -> None:
    error = not_bound(parse_ir(SPEC), ("rat", 1), ("fast", "no"), ("fast", True))
    assert error.field == "spec.parameters"
    assert str(error).split("; spec.") == [
        "spec.parameters[0].name: there is no parameter 'rat'; did you mean 'rate'?",
        "parameters[1].value: 'fast' must be true or false (BOOLEAN), is \"no\"",
        "parameters[2].name: 'fast' is given twice",
        "parameters: 'runs' (NUMBER_INTEGER) is missing; the pipeline has no default for it",
    ]


def test_a_value_nested_too_deep_is_refused() -> None:
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    assert "is nested deeper than 90 levels" in str(not_bound(parse_ir(SPEC), ("runs", 1), ("layers", deep)))


def test_a_pipeline_without_parameters_says_so() -> None:
    ir = parse_ir(changed(lambda s: s["root"].pop("inputDefinitions")))
    assert str(not_bound(ir, ("a", 1))) == "spec.parameters[0].name: there is no parameter 'a'; it has none"


def test_no_more_problems_are_told_than_people_read() -> None:
    error = not_bound(parse_ir(SPEC), ("runs", 1), *((f"q{i}", 1) for i in range(100)))
    assert str(error).endswith("; and 90 more")


def test_a_pipeline_that_takes_an_artifact_cannot_be_run() -> None:
    artifact = {"artifactType": {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"}}
    ir = parse_ir(
        changed(lambda s: s["root"]["inputDefinitions"].update(artifacts={"data": artifact, "more": artifact | {"isOptional": True}}))
    )
    assert ir.required_artifacts == ("data",)
    assert "takes 'data', an artifact, as input" in str(not_bound(ir, ("runs", 1)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["root", "dag", "tasks", "components", "deploymentSpec", "executors", "inputDefinitions", "parameters", "pipelineSpec"]
)
DOCUMENTS = st.recursive(JSON, lambda inner: st.dictionaries(KEYS, inner, max_size=4), max_leaves=12)


@pytest.mark.slow
@given(st.dictionaries(KEYS, DOCUMENTS, max_size=5))
def test_no_document_raises_anything_but_invalid_spec(document: dict[str, Any]) -> None:
    for part in (document, {**SPEC, **document}):
        with contextlib.suppress(InvalidSpec):
            parse_ir(part)


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_no_text_raises_anything_but_invalid_spec(text: str | bytes) -> None:
    with pytest.raises(InvalidSpec):
        parse_text(text)


@given(st.lists(st.tuples(st.sampled_from([*SPEC["root"]["inputDefinitions"]["parameters"], "other"]), JSON), max_size=6))
def test_no_parameter_raises_anything_but_invalid_spec(values: list[tuple[str, Any]]) -> None:
    ir = parse_ir(SPEC)
    try:
        bound = bind_parameters(ir, [Parameter(name=name, value=value) for name, value in values])
    except InvalidSpec:
        return
    assert json.loads(json.dumps(bound, allow_nan=False)) == bound
