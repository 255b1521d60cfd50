"""Versions: the Go operator's verified vectors, its canonical JSON, and the form for inline specs."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kfp_operator.api.experiment import ExperimentSpec
from kfp_operator.api.hashing import (
    canonical_json,
    digest,
    experiment_version,
    image_tag,
    image_version,
    inline_version,
    items,
    json_map,
    pairs,
    run_schedule_version,
    run_spec,
    run_spec_version,
    run_version,
    text,
)
from kfp_operator.api.pipeline import PipelineSpec
from kfp_operator.api.run import ArtifactDefinition, Parameter, RunSpec
from kfp_operator.api.run_schedule import RunScheduleSpec


def image_pipeline(image: str, env: dict[str, str], framework: str, parameters: dict[str, Any]) -> bytes:
    return text(image) + pairs(env.items()) + text(framework) + json_map(parameters)


def value_from(name: str, namespace: str, output: str, optional: bool) -> bytes:
    return text(name) + text(namespace) + text(output) + text("true" if optional else "false")


ARTIFACT = ("serving-model", "Pusher:pushed_model:0[pushed == 1]")
TRAINING_RUNS = text("TRAINING_RUNS") + text("100")
PENGUIN_RUN = (
    text("penguin-pipeline")
    + text("penguin-experiment")
    + items([text("EXAMPLES") + text("") + value_from("rc", "base", "examples", False), TRAINING_RUNS])
    + pairs([ARTIFACT])
)
PENGUIN_SCHEDULE = (
    text("penguin-pipeline")
    + text("penguin-experiment")
    + pairs([("TRAINING_RUNS", "100")])
    + pairs([ARTIFACT])
    + text("0 * * * *")
    + text("2024-01-01 00:00:00 +0000 UTC")
    + text("2024-12-31 23:59:59 +0000 UTC")
)


@pytest.mark.parametrize(
    ("encoded", "version"),
    [
        (image_pipeline("quickstart:v1", {"TRAINING_RUNS": "100"}, "tfx", {"components": "base_pipeline.create_components"}), "49e208"),
        (image_pipeline("quickstart:v1", {}, "kfpsdk", {"pipeline": "getting_started.pipeline.add_pipeline"}), "0cf383"),
        (PENGUIN_RUN, "77a440"),
        (PENGUIN_RUN + text("v1-abcdef"), "a1d1af"),
        (PENGUIN_SCHEDULE, "30e59e"),
        (text("An experiment"), "b16e9a"),
    ],
)
def test_the_primitives_give_the_versions_of_the_go_operator(encoded: bytes, version: str) -> None:
    assert digest(encoded) == version


PENGUIN = {
    "pipeline": "penguin-pipeline",
    "experimentName": "penguin-experiment",
    "parameters": [
        {"name": "TRAINING_RUNS", "value": "100"},
        {"name": "EXAMPLES", "valueFrom": {"runConfigurationRef": {"name": "base/rc", "outputArtifact": "examples"}}},
    ],
    "artifacts": [{"name": "serving-model", "path": "Pusher:pushed_model:0[pushed == 1]"}],
}


def test_a_run_with_a_parameter_from_a_run_configuration_has_the_go_operators_version() -> None:
    spec = RunSpec.model_validate(PENGUIN)
    assert run_spec_version(spec) == "77a440"
    assert run_version(spec, "v1-abcdef") == "a1d1af"


@pytest.mark.parametrize(
    "reference",
    [
        {"name": "base/rc", "outputArtifact": "examples", "optional": True},
        {"name": "base/rc", "outputArtifact": "schema"},
        {"name": "other/rc", "outputArtifact": "examples"},
        {"name": "rc", "outputArtifact": "examples"},
    ],
)
def test_a_runs_version_follows_each_part_of_where_a_value_comes_from(reference: dict[str, Any]) -> None:
    changed = PENGUIN | {
        "parameters": [{"name": "EXAMPLES", "valueFrom": {"runConfigurationRef": reference}}, {"name": "TRAINING_RUNS", "value": "100"}]
    }
    assert run_spec_version(RunSpec.model_validate(changed)) != "77a440"


def test_no_value_and_null_count_as_the_empty_string_for_the_version() -> None:
    """The Go operator has strings only, and leaves an empty one out of what it writes."""
    without, null, empty = ({"pipeline": "p", "parameters": [{"name": "a"} | value]} for value in ({}, {"value": None}, {"value": ""}))
    assert len({run_spec_version(RunSpec.model_validate(spec)) for spec in (without, null, empty)}) == 1


def test_an_experiments_version_is_the_go_operators() -> None:
    assert experiment_version(ExperimentSpec(provider="a/b", description="An experiment")) == "b16e9a"


@pytest.mark.parametrize(
    ("spec", "version"),
    [
        (
            {
                "image": "quickstart:v1",
                "env": [{"name": "TRAINING_RUNS", "value": "100"}],
                "framework": {"name": "tfx", "parameters": {"components": "base_pipeline.create_components"}},
            },
            "v1-49e208",
        ),
        (
            {
                "image": "quickstart:v1",
                "framework": {"name": "kfpsdk", "parameters": {"pipeline": "getting_started.pipeline.add_pipeline"}},
            },
            "v1-0cf383",
        ),
    ],
)
def test_a_pipeline_of_an_image_has_the_go_operators_version(spec: dict[str, Any], version: str) -> None:
    assert image_version(PipelineSpec.model_validate({"provider": "a/b"} | spec)) == version


SHA = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("image", "tag"),
    [
        ("quickstart", "latest"),
        ("quickstart:v1", "v1"),
        ("localhost:5000/team/quickstart", "latest"),
        ("localhost:5000/team/quickstart:V1.0_rc-2", "V1.0_rc-2"),
        ("registry.example.org/a/b__c/d.e-f:v1", "v1"),
        ("Registry.Example.org/a:v1", "v1"),
        (f"quickstart@{SHA}", ""),
        (f"quickstart:v1@{SHA}", "v1"),
        ("team/Quickstart:v1", ""),
        ("quickstart:", ""),
        ("quickstart:-v1", ""),
        ("a//b:v1", ""),
        ("https://registry.example.org/a:v1", ""),
        ("a/" * 127 + "ab:v1", ""),
        ("", ""),
    ],
)
def test_the_tag_of_an_image_is_told_from_ports_and_digests(image: str, tag: str) -> None:
    assert image_tag(image) == tag


def test_a_pipeline_of_an_image_without_a_tag_has_the_hash_alone() -> None:
    spec = PipelineSpec.model_validate({"provider": "a/b", "image": f"quickstart@{SHA}", "framework": {"name": "kfpsdk"}})
    assert "-" not in image_version(spec)
    assert len(image_version(spec)) == 6


def test_a_run_of_nothing_but_a_pipeline_has_the_go_operators_version() -> None:
    assert run_version(RunSpec(pipeline="p"), "") == "f6e641"


SCHEDULE: dict[str, Any] = {
    "pipeline": "penguin-pipeline",
    "experimentName": "penguin-experiment",
    "parameters": [{"name": "TRAINING_RUNS", "value": "100"}],
    "artifacts": [{"name": "serving-model", "path": "Pusher:pushed_model:0[pushed == 1]"}],
    "schedule": {"cronExpression": "0 * * * *", "startTime": "2024-01-01T00:00:00Z", "endTime": "2024-12-31T23:59:59Z"},
}


def test_a_schedule_has_the_go_operators_version_in_whatever_zone_its_times_are_written() -> None:
    assert run_schedule_version(RunScheduleSpec.model_validate(SCHEDULE)) == "30e59e"
    elsewhere = SCHEDULE["schedule"] | {"startTime": "2024-01-01T05:30:00+05:30"}
    assert run_schedule_version(RunScheduleSpec.model_validate(SCHEDULE | {"schedule": elsewhere})) == "30e59e"


@pytest.mark.parametrize(
    ("change", "new"),
    [
        ({"pipeline": "p:v1"}, True),
        ({"parameters": []}, True),
        ({"schedule": {"cronExpression": "1 * * * *"}}, True),
        ({"schedule": SCHEDULE["schedule"] | {"timeZone": "Europe/Paris"}}, True),
        ({"schedule": SCHEDULE["schedule"] | {"endTime": None}}, True),
        ({"suspend": True}, False),
        ({"concurrencyPolicy": "Forbid", "successfulRunsHistoryLimit": 1}, False),
    ],
)
def test_a_schedules_version_is_of_what_it_executes_and_when(change: dict[str, Any], new: bool) -> None:
    assert (run_schedule_version(RunScheduleSpec.model_validate(SCHEDULE | change)) != "30e59e") is new


def test_a_run_is_encoded_as_the_go_operator_does_whatever_the_order_of_its_lists() -> None:
    parameters = [Parameter(name="b", value="2"), Parameter(name="a", value="1"), Parameter(name="TRAINING_RUNS", value="100")]
    for order in itertools.permutations(parameters):
        spec = RunSpec(
            pipeline="penguin-pipeline:v1",
            experiment_name="penguin-experiment",
            parameters=list(order),
            artifacts=[ArtifactDefinition(name="serving-model", path="Pusher:pushed_model[pushed == 1]")],
        )
        expected = items([TRAINING_RUNS, text("a") + text("1"), text("b") + text("2")])
        assert run_spec(spec) == text("penguin-pipeline:v1") + text("penguin-experiment") + expected + pairs([ARTIFACT])


def test_a_runs_version_follows_each_part_of_what_it_executes() -> None:
    base = {"pipeline": "p", "experiment_name": "e", "parameters": [Parameter(name="a", value=1)], "artifacts": []}
    changes: list[dict[str, Any]] = [
        {"pipeline": "q"},
        {"experiment_name": "f"},
        {"parameters": [Parameter(name="a", value=2)]},
        {"parameters": [Parameter(name="a", value=[1])]},
        {"artifacts": [ArtifactDefinition(name="x", path="a:b")]},
    ]
    versions = [
        run_version(RunSpec(**base), "v1"),
        run_version(RunSpec(**base), "v2"),
        *(run_version(RunSpec(**base | c), "v1") for c in changes),
    ]
    assert len(set(versions)) == len(versions)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1.0, "1"),
        (-0.0, "-0"),
        (0, "0"),
        (100, "100"),
        (120.5, "120.5"),
        (-3.25, "-3.25"),
        (1e21, "1e+21"),
        (1.5e21, "1.5e+21"),
        (1e20, "100000000000000000000"),
        (123456789012345678901234567890, "1.2345678901234568e+29"),
        (12345678901234567890, "12345678901234567000"),
        (0.0000001, "1e-7"),
        (0.000001, "0.000001"),
        (1.25e-7, "1.25e-7"),
        (1e-10, "1e-10"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (5e-324, "5e-324"),
        (True, "true"),
        (None, "null"),
        ({"b": 1, "a": [1.0, "x"], "B": {}}, '{"B":{},"a":[1,"x"],"b":1}'),
        ({"é": 1, "z": 2, "\U0001f600": 3, "￿": 4}, '{"z":2,"é":1,"￿":4,"😀":3}'),
        ('<a href="x">&', '"\\u003ca href=\\"x\\"\\u003e\\u0026"'),
        ("\u2028\u2029é\x7f", '"\\u2028\\u2029é\x7f"'),
        ("\x00\x1f\b\f\n\r\t\\", '"\\u0000\\u001f\\b\\f\\n\\r\\t\\\\"'),
        ("\ud800", '"�"'),
    ],
)
def test_json_is_written_as_go_writes_it(value: Any, written: str) -> None:
    assert canonical_json(value) == written


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_a_number_that_no_double_holds_has_no_json(value: float) -> None:
    with pytest.raises(OverflowError):
        canonical_json({"a": [value]})


def test_values_nested_deeper_than_the_stack_are_written() -> None:
    deep: Any = 1
    for _ in range(5_000):
        deep = [{"a": deep}]
    assert canonical_json(deep) == '[{"a":' * 5_000 + "1" + "}]" * 5_000


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_reads_back_as_itself(value: float) -> None:
    assert float(canonical_json(value)) == value


def test_a_map_writes_null_as_its_key_alone() -> None:
    assert json_map({"b": None, "a": 1.0}) == b"a\x001\x00b\x00"


IR = {"schemaVersion": "2.1.0", "pipelineInfo": {"name": "penguin"}, "root": {"dag": {}}}


def test_an_inline_pipeline_has_a_version_of_six_digits_that_stays() -> None:
    assert inline_version({"pipelineSpec": IR}) == "4f0398"
    assert inline_version({"pipelineSpec": dict(reversed(IR.items())), "platformSpec": None}) == "4f0398"


def test_the_way_of_writing_numbers_does_not_change_an_inline_version() -> None:
    assert inline_version({"pipelineSpec": IR | {"a": 3.0}}) == inline_version({"pipelineSpec": IR | {"a": 3}})


def test_each_document_counts_for_the_inline_version() -> None:
    platform = {"platforms": {"kubernetes": {}}}
    versions = {
        inline_version({"pipelineSpec": IR}),
        inline_version({"pipelineSpec": IR | {"sdkVersion": "kfp-2.14.0"}}),
        inline_version({"pipelineSpec": IR, "platformSpec": platform}),
        inline_version({"pipelineSpec": platform, "platformSpec": IR}),
    }
    assert len(versions) == 4


def test_the_inline_form_is_no_image_form() -> None:
    """Even an image form made to look like it, with the empty image that the API does not take, has more bytes."""
    document = canonical_json(IR)
    assert digest(image_pipeline("", {"pipelineSpec": document}, "", {})) != inline_version({"pipelineSpec": IR})
