"""Artifact paths, what they select of a run, and the models pushed for serving."""

from typing import Any

import pytest

from kfp_operator.api.run import ArtifactDefinition
from kfp_operator.errors import InvalidSpec
from kfp_operator.events.artifacts import MAX_ARTIFACTS, check, parse_path, resolve, serving_model_artifacts
from kfp_operator.providers.protocol import ComponentArtifact


def artifact(
    component: str, output: str, uri: str = "gs://b/m", index: int = 0, type_: str = "system.Model", **metadata: Any
) -> ComponentArtifact:
    return ComponentArtifact(component, output, type_, uri, metadata, index)


def define(path: str, name: str = "model") -> ArtifactDefinition:
    return ArtifactDefinition(name=name, path=path)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Pusher:pushed_model", "Pusher:pushed_model:0"),
        ("Pusher:pushed_model:", "Pusher:pushed_model:0"),
        ("Pusher:pushed_model:2", "Pusher:pushed_model:2"),
        ("Pusher:pushed_model:0[pushed == 1]", "Pusher:pushed_model:0[pushed == 1]"),
        ("Pusher:pushed_model[pushed == 1]", "Pusher:pushed_model:0[pushed == 1]"),
        ("for-loop 1.train:model", "for-loop 1.train:model:0"),
    ],
)
def test_a_path_is_understood_as_its_normal_form_says(text: str, normal: str) -> None:
    path = parse_path(text)
    condition = f"[{path.filter.text}]" if path.filter else ""
    assert define(text).normal_path == f"{path.component}:{path.output}:{path.index}{condition}" == normal


@pytest.mark.parametrize(
    "text",
    ["", "C", ":a:0", "C::0", "C:a:x", "C:a:-1", "C:a:0:0", "C:a[]", "C[pushed == 1]", "C:a[x == 1", "C:a[x == a:b]", "C:a:1234567890"],
)
def test_what_is_no_path_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(InvalidSpec, match=r"spec.artifacts\[3\].path: must be component:output"):
        check(define(text), field="spec.artifacts[3]")


def test_a_filter_that_cannot_be_understood_is_refused_before_the_run_starts() -> None:
    with pytest.raises(InvalidSpec, match="no operator >"):
        check(define("write-result:result[size > 3]"), field="spec.artifacts[0]")


def test_artifacts_are_reported_in_the_order_of_the_definitions() -> None:
    found = [artifact("evaluate", "metrics", "gs://b/e"), artifact("train", "model", "gs://b/m", accuracy=0.9)]
    artifacts, problems = resolve([define("train:model", "serving-model"), define("evaluate:metrics", "report")], found)
    assert [(a.name, a.location, a.type, a.metadata) for a in artifacts] == [
        ("serving-model", "gs://b/m", "system.Model", {"accuracy": 0.9}),
        ("report", "gs://b/e", "system.Model", {}),
    ]
    assert problems == []


def test_the_index_chooses_among_the_artifacts_of_an_output() -> None:
    found = [artifact("train", "models", f"gs://b/{i}", i) for i in range(3)]
    assert [a.location for a in resolve([define("train:models:1")], found)[0]] == ["gs://b/1"]
    assert [a.location for a in resolve([define("train:models")], found)[0]] == ["gs://b/0"]


def test_an_output_of_a_loop_gives_several_of_one_name() -> None:
    found = [artifact("train", "model", f"gs://b/{i}") for i in range(3)]
    assert [(a.name, a.location) for a in resolve([define("train:model")], found)[0]] == [("model", f"gs://b/{i}") for i in range(3)]


def test_a_filter_excludes_without_being_a_problem() -> None:
    found = [artifact("Pusher", "pushed_model", pushed=0)]
    assert resolve([define("Pusher:pushed_model[pushed == 1]")], found) == ([], [])


def test_what_was_not_produced_is_told_with_what_was() -> None:
    found = [artifact("train", "model"), artifact("train", "empty", uri="")]
    definitions = [define("trian:model"), define("train:model:1"), define("train:empty")]
    artifacts, problems = resolve(definitions, found)
    assert artifacts == []
    assert problems == [
        "spec.artifacts[0].path: the run produced no trian:model:0; it produced train:empty, train:model",
        "spec.artifacts[1].path: the run produced no train:model:1, only others of that output",
        "spec.artifacts[2].path: the run produced no train:empty:0, only others of that output",
    ]
    assert resolve([define("a:b")], [])[1] == ["spec.artifacts[0].path: the run produced no a:b:0; it produced no artifacts"]


def test_a_filter_that_fails_is_told_and_takes_nothing_else_along() -> None:
    found = [
        artifact("train", "model", "gs://b/1"),
        artifact("train", "model", "gs://b/2", pushed=1),
        artifact("train", "model", "gs://b/3"),
    ]
    artifacts, problems = resolve([define("train:model[pushed == 1]"), define("train:model[", "bad"), define("train:model")], found)
    assert [a.location for a in artifacts] == ["gs://b/2", "gs://b/1", "gs://b/2", "gs://b/3"]
    assert len(problems) == 2
    assert problems[0] == "spec.artifacts[0].path: filter [pushed == 1]: the metadata has no 'pushed'"
    assert problems[1].startswith("spec.artifacts[1].path: must be component:output")


def test_no_more_artifacts_are_reported_than_a_status_holds() -> None:
    artifacts, problems = resolve([define("train:model")], [artifact("train", "model")] * (MAX_ARTIFACTS + 1))
    assert len(artifacts) == MAX_ARTIFACTS
    assert "the first 256 are reported" in problems[0]


@pytest.mark.parametrize(
    ("given", "served"),
    [
        (artifact("Pusher", "pushed_model", type_="tfx.PushedModel", pushed=1), True),
        (artifact("Pusher", "pushed_model", type_="tfx.PushedModel", pushed=1.0), True),
        (artifact("Pusher", "pushed_model", type_="tfx.PushedModel", pushed="1"), True),
        (artifact("Pusher", "pushed_model", type_="tfx.PushedModel", pushed=0), False),
        (artifact("Pusher", "pushed_model", type_="tfx.PushedModel"), False),
        (artifact("push", "model", pushed=1), False),
        (artifact("push", "model", serving=True), True),
        (artifact("push", "model", serving="true"), False),
        (artifact("push", "model", serving=1), False),
        (artifact("push", "model", uri="", serving=True), False),
    ],
)
def test_a_model_counts_as_pushed_for_serving_by_type_or_by_metadata(given: ComponentArtifact, served: bool) -> None:
    assert bool(serving_model_artifacts("penguin", "r1", [given])) is served


def test_serving_models_are_named_after_pipeline_run_and_output() -> None:
    found = [
        artifact("push", "model", "gs://b/0"),
        artifact("push", "model", "gs://b/1", serving=True),
        artifact("x", "y", "gs://b/2", serving=True),
    ]
    assert [(a.name, a.location) for a in serving_model_artifacts("penguin", "r1", found)] == [
        ("penguin:r1:push:model:1", "gs://b/1"),
        ("penguin:r1:x:y:0", "gs://b/2"),
    ]
