"""Parts of the decision about RunConfigurations: values of parameters, loops, and the annotation that starts by hand."""

from typing import Any

import pytest

from kfp_operator.api.run import Parameter
from kfp_operator.reconcile import run_configuration_manual as manual
from kfp_operator.reconcile.run_configuration_loops import loops_of
from kfp_operator.reconcile.run_configuration_parameters import references, resolve
from kfp_operator.reconcile.run_configuration_runs import versions_used
from tests import builders
from tests.doubles.configurations import completion, recorded

BASE = builders.configuration("base", run={"artifacts": [{"name": "model", "path": "trainer:model"}]})
READY = recorded(BASE, completion(BASE, "base-1", artifacts={"model": "gs://b/1", "other": "gs://b/2"}))


def wanted(name: str = "base", artifact: str = "model", *, optional: bool = False, parameter: str = "p") -> Parameter:
    ref = {"name": name, "outputArtifact": artifact, "optional": optional}
    return Parameter.model_validate({"name": parameter, "valueFrom": {"runConfigurationRef": ref}})


@pytest.mark.parametrize(
    ("parameter", "configurations", "reason", "says"),
    [
        (wanted(), {}, "RunConfigurationNotFound", "RunConfiguration team/base, which does not exist"),
        (wanted(), {"team/base": BASE}, "ArtifactNotFound", "the first run of RunConfiguration team/base that succeeds"),
        (wanted(artifact="x"), {"team/base": READY}, "ArtifactNotDeclared", "declares model"),
        (wanted(artifact="x"), {"team/base": BASE}, "ArtifactNotDeclared", "spec.run.artifacts"),
        (
            wanted("other/base"),
            {"other/base": builders.configuration("base", namespace="other")},
            "ReferenceForbidden",
            "allowedNamespaces",
        ),
    ],
)
def test_what_a_parameter_waits_for_is_said(parameter: Parameter, configurations: dict[str, Any], reason: str, says: str) -> None:
    resolution = resolve([parameter], "team", configurations)
    [missing] = resolution.blocking
    assert missing.reason == reason
    assert missing.message.startswith("parameter p: ")
    assert says in missing.message
    assert missing.stalled == (reason in ("ReferenceForbidden", "ArtifactNotDeclared")), "what can come by itself is waited for"
    assert not resolution.values


def test_optional_parameters_do_not_block() -> None:
    resolution = resolve([wanted(optional=True), Parameter(name="plain", value=1)], "team", {})
    assert resolution.blocking == ()
    assert [m.parameter for m in resolution.missing] == ["p"]
    assert [p.name for p in resolution.parameters] == ["plain"], "no parameter of an empty name stands for it"


def test_of_several_artifacts_of_a_name_the_first_is_taken() -> None:
    made = recorded(BASE, completion(BASE, "base-1", artifacts={"model": "gs://first"}))
    latest = made.status.latest_runs.succeeded
    assert latest is not None
    twice = latest.model_copy(update={"artifacts": [*latest.artifacts, latest.artifacts[0].model_copy(update={"location": "gs://second"})]})
    resolution = resolve([wanted()], "team", {"team/base": made}, followed={"team/base": twice})
    assert resolution.parameters[0].value == "gs://first"


def test_parameters_that_share_name_and_value_are_no_trouble() -> None:
    """The Go operator's comparison of two such parameters, one of them with valueFrom, ends the process."""
    both = [Parameter(name="p", value=""), wanted(optional=True)]
    assert len(resolve(both, "team", {"team/base": READY}).values) == 2


def test_references_are_listed_once_and_in_full() -> None:
    listed = [wanted(), wanted("team/base", "other"), wanted("other/x"), Parameter(name="plain", value=1)]
    assert references(listed, "team") == ["team/base", "other/x"]


def test_what_values_came_from_is_told() -> None:
    resolution = resolve([wanted(), wanted(artifact="other", parameter="q")], "team", {"team/base": READY})
    assert resolution.upstream == ["team/base-1"]
    assert [(v.configuration, v.provider_id) for v in resolution.values] == [("team/base", "id-base-1")] * 2


@pytest.mark.parametrize(
    ("graph", "loops"),
    [
        ({}, {}),
        ({"a": ["b"], "b": ["c"]}, {}),
        ({"a": ["a"]}, {"a": ("a", "a")}),
        ({"a": ["b"], "b": ["a"]}, {"b": ("a", "b", "a")}),
        ({"a": ["b", "x"], "b": ["c"], "c": ["a"]}, {"b": ("a", "c", "b", "a")}),
        ({"a": ["b"], "b": ["b", "c"], "c": ["b"]}, {}),
        ({"a": ["b", "c"], "b": ["a"], "c": ["b"]}, {"b": ("a", "b", "a"), "c": ("a", "b", "c", "a")}),
    ],
)
def test_loops_are_found_by_each_way_they_close(graph: dict[str, list[str]], loops: dict[str, tuple[str, ...]]) -> None:
    assert loops_of("a", lambda name: graph.get(name, ())) == loops


def test_a_large_graph_without_loops_is_looked_through_once() -> None:
    asked = 0

    def follows(name: str) -> list[str]:
        nonlocal asked
        asked += 1
        level = int(name)
        return [str(level + 1)] * 50 if level < 300 else []

    assert loops_of("0", follows) == {}
    assert asked < 700


@pytest.mark.parametrize("text", ["word", "12", '"quoted"', "[1]", "{", '{"parameters": {"a": 1}}', "null", "[" * 2000])
def test_any_word_starts_a_run(text: str) -> None:
    assert manual.parse(text) == manual.Start(text)


def test_a_start_is_read_as_it_was_written() -> None:
    start = manual.Start("4f1c", "uid-1", {"epochs": 3, "deep": {"a": [1, None]}})
    assert manual.parse(manual.write(start)) == start
    assert manual.write(manual.Start("x")) == '{"id":"x"}'


def test_versions_that_are_still_to_be_run_are_kept() -> None:
    status = {"triggers": [{"name": "onChange/pipeline", "pending": ["v1.2-aaaaaa.7", "bbbbbb.8"]}, {"name": "manual", "pending": ["x.y"]}]}
    assert versions_used(builders.configuration(status=status)) == {"v1.2-aaaaaa", "bbbbbb"}
    assert versions_used(builders.configuration(run={"pipeline": "train:cccccc"})) == {"cccccc"}
