"""The Run that executes again what another one executed."""

from typing import Any

import pytest

from kfp_operator.api.names import labelled
from kfp_operator.cli.rerun import TRIES, Wanted, candidate, manifest, rerun
from kfp_operator.cli.target import Target
from kfp_operator.errors import AlreadyExists, ConfigurationError
from kfp_operator.operator.resources import Kinds, Resource
from tests.builders import NAMES
from tests.unit.cli.invoking import invoke

FROM = {"name": "model", "valueFrom": {"runConfigurationRef": {"name": "base", "outputArtifact": "model"}}}
EXTRA = {"name": "extra", "valueFrom": {"runConfigurationRef": {"name": "base", "outputArtifact": "x", "optional": True}}}


def old(
    name: str = "train-1", *, labels: dict[str, str] | None = None, status: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "team",
        "uid": "u",
        "resourceVersion": "7",
        "labels": {"team": "penguins", NAMES.completed: "failed"} | (labels or {}),
        "annotations": {NAMES.provider: "mlops/local"},
        "finalizers": [NAMES.finalizer],
        "ownerReferences": [{"kind": "RunConfiguration", "name": "nightly", "uid": "o", "controller": True}],
    }
    return {"metadata": metadata, "spec": {"pipeline": "train", "retries": 2, **spec}, "status": status or {}}


def test_the_spec_is_taken_over_and_nothing_that_belongs_to_the_old_run() -> None:
    made = manifest(old(cancel=True, deletionPolicy="Orphan", newField={"of": "a later version"}), Wanted(), NAMES)
    assert made == {
        "apiVersion": "kfp-operator.dev/v1beta1",
        "kind": "Run",
        "metadata": {"namespace": "team", "labels": {NAMES.rerun_of: "train-1"}},
        "spec": {"pipeline": "train", "retries": 2, "deletionPolicy": "Orphan", "newField": {"of": "a later version"}},
    }


def test_a_name_too_long_for_a_label_is_told_whole_in_an_annotation() -> None:
    long = "train-" + "x" * 100
    made = manifest(old(long), Wanted(), NAMES)["metadata"]
    assert (made["labels"], made["annotations"]) == labelled(NAMES.rerun_of, long)


RESOLVED = {"resolved": [{"name": "model", "value": "/models/1"}, {"name": "extra", "omitted": True}]}


@pytest.mark.parametrize(
    ("status", "again", "parameters"),
    [
        pytest.param(RESOLVED, False, [{"name": "n", "value": 3}, {"name": "model", "value": "/models/1"}], id="as they were"),
        pytest.param(RESOLVED, True, [{"name": "n", "value": 3}, FROM, EXTRA], id="anew"),
        pytest.param({}, False, [{"name": "n", "value": 3}, FROM, EXTRA], id="never got any, or restored without status"),
    ],
)
def test_values_from_configurations(status: dict[str, Any], again: bool, parameters: list[dict[str, Any]]) -> None:
    subject = old(status=status, parameters=[{"name": "n", "value": 3}, FROM, EXTRA])
    assert manifest(subject, Wanted(resolve_again=again), NAMES)["spec"]["parameters"] == parameters


@pytest.mark.parametrize(
    ("pipeline", "labels", "status", "wanted"),
    [
        ("train", {NAMES.pipeline_version: "49e208"}, {}, "train:49e208"),
        ("train", {}, {"pipelineVersion": "49e208"}, "train:49e208"),
        ("train:v1", {NAMES.pipeline_version: "v1"}, {}, "train:v1"),
    ],
)
def test_the_version_that_ran(pipeline: str, labels: dict[str, str], status: dict[str, Any], wanted: str) -> None:
    subject = old(labels=labels, status=status, pipeline=pipeline)
    assert manifest(subject, Wanted(same_version=True), NAMES)["spec"]["pipeline"] == wanted
    assert manifest(subject, Wanted(), NAMES)["spec"]["pipeline"] == pipeline


def test_a_run_without_a_version_says_so() -> None:
    with pytest.raises(ConfigurationError, match="train-1 was never bound to a version"):
        manifest(old(), Wanted(same_version=True), NAMES)


@pytest.mark.parametrize(
    ("name", "again_of", "number", "wanted"),
    [
        ("train-1", "", 0, "train-1-r1"),
        ("train-1", "", 2, "train-1-r3"),
        ("train-1-r2", "train-1", 0, "train-1-r3"),
        ("train-1-r2", "", 0, "train-1-r2-r1"),
        ("other", "train-1", 0, "other-r1"),
        ("x" * 253, "", 0, "x" * 250 + "-r1"),
        ("x" * 249 + ".yyy", "", 0, "x" * 249 + "-r1"),
    ],
)
def test_the_name_tells_what_is_repeated_and_how_often(name: str, again_of: str, number: int, wanted: str) -> None:
    assert candidate(old(name, labels={NAMES.rerun_of: again_of} if again_of else {}), NAMES, number) == wanted


class Api:
    """An API server that has one Run, and names that are taken."""

    def __init__(self, taken: int) -> None:
        self.taken = {f"train-1-r{n}" for n in range(1, taken + 1)}
        self.created: list[dict[str, Any]] = []

    async def get(self, resource: Resource, name: str, namespace: str = "") -> dict[str, Any]:
        return old(name)

    async def create(self, resource: Resource, body: dict[str, Any], namespace: str = "") -> dict[str, Any]:
        metadata = body["metadata"]
        if metadata.get("name") in self.taken:
            raise AlreadyExists("taken", status=409)
        self.created.append(body)
        return {"metadata": {"name": metadata.get("name") or f"{metadata['generateName']}abcde"}}


@pytest.mark.parametrize(("taken", "name"), [(0, "train-1-r1"), (3, "train-1-r4"), (TRIES, "train-1-r-abcde")])
async def test_the_first_free_name_is_taken(taken: int, name: str) -> None:
    api = Api(taken)
    assert await rerun(Target(api, Kinds(), NAMES, "team"), "train-1", Wanted()) == name  # type: ignore[arg-type]
    assert len(api.created) == 1


async def test_a_wanted_name_that_is_taken_is_an_error() -> None:
    with pytest.raises(AlreadyExists):
        await rerun(Target(Api(1), Kinds(), NAMES, "team"), "train-1", Wanted(name="train-1-r1"))  # type: ignore[arg-type]


def test_what_is_not_created_is_not_waited_for() -> None:
    result = invoke("runs", "rerun", "train-1", "--dry-run", "--wait")
    assert result.exit_code == 2
    assert "--dry-run" in result.stderr
