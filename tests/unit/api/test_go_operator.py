"""Objects of the Go operator, read by the models: its manifests and its statuses."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from kfp_operator.api.crd import KINDS
from kfp_operator.api.experiment import Experiment
from kfp_operator.api.hashing import experiment_version, image_version, run_spec_version
from kfp_operator.api.meta import Resource
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.run import Run
from kfp_operator.api.run_configuration import RunConfiguration
from kfp_operator.api.run_schedule import RunSchedule
from kfp_operator.api.states import RunState

DATA = Path(__file__).parents[2] / "data" / "go_operator"
MODELS = {kind.name: kind.model for kind in KINDS}
MANIFESTS = {
    (found["kind"], found["metadata"].get("name", "generated")): found
    for found in yaml.safe_load_all((DATA / "manifests.yaml").read_text())
}
STATUSES = {(found["kind"], found["name"]): found for found in yaml.safe_load_all((DATA / "statuses.yaml").read_text())}


def read(kind: str, name: str, *, status: bool = False) -> Any:
    """The manifest as a model, with the status that the Go operator gave it."""
    body = MANIFESTS[kind, name]
    parts = {"metadata": {"name": name, "namespace": "botany"}, "status": STATUSES[kind, name]["status"] if status else {}}
    return MODELS[kind].parse({**body, **parts})


@pytest.mark.parametrize(("kind", "name"), MANIFESTS)
def test_each_manifest_is_read(kind: str, name: str) -> None:
    found: Resource = read(kind, name)
    assert found.metadata.name == name


@pytest.mark.parametrize(("kind", "name"), STATUSES)
def test_a_status_is_told_to_be_the_go_operators_and_keeps_its_conditions(kind: str, name: str) -> None:
    status = read(kind, name, status=True).status
    assert status.in_go_form
    assert [c.reason for c in status.conditions] == [c["reason"] for c in STATUSES[kind, name]["status"]["conditions"]]


@pytest.mark.parametrize("status", [{}, {"synchronizationState": "Creating", "message": "waits"}])
def test_a_status_of_ours_and_none_at_all_are_not_the_go_operators(status: dict[str, Any]) -> None:
    for model in MODELS.values():
        assert not model.model_fields["status"].annotation.model_validate(status).in_go_form  # type: ignore[union-attr]


def test_versions_are_those_that_the_go_operator_wrote() -> None:
    """A takeover neither compiles nor triggers anything."""
    pipeline: Pipeline = read("Pipeline", "iris-tfx")
    assert image_version(pipeline.spec).startswith("v1.2-")
    experiment: Experiment = read("Experiment", "flowers")
    assert len(experiment_version(experiment.spec)) == 6
    run: Run = read("Run", "iris-full")
    assert len(run_spec_version(run.spec)) == 6


def test_an_objects_provider_and_id_are_read_from_its_status() -> None:
    for kind, name in (("Experiment", "flowers"), ("Pipeline", "iris"), ("Run", "iris-full"), ("RunSchedule", "iris-hourly")):
        written = STATUSES[kind, name]["status"]
        status = read(kind, name, status=True).status
        assert (status.provider, status.provider_id, status.version) == ("kfp-system/kfp", written["provider"]["id"], written["version"])


def test_an_ended_run_is_read_as_ended() -> None:
    run: Run = read("Run", "iris-full", status=True)
    assert (run.status.completion_state, run.status.state) == ("Succeeded", RunState.SUCCEEDED)


def test_the_latest_run_of_a_configuration_is_read_with_its_artifacts() -> None:
    configuration: RunConfiguration = read("RunConfiguration", "iris-nightly", status=True)
    latest = configuration.status.latest_runs.succeeded
    assert latest is not None
    assert latest.provider_id == "0b9c1f0e-0000-4000-8000-000000000004"
    assert [(a.name, a.location) for a in latest.artifacts] == [("model", "gs://flowers/models/7")]


def test_a_configuration_without_a_run_has_no_latest_one() -> None:
    """The Go operator writes empty parts out."""
    configuration: RunConfiguration = read("RunConfiguration", "iris-bare", status=True)
    assert configuration.status.latest_runs.succeeded is None


def test_maps_of_triggers_and_dependencies_give_no_baseline() -> None:
    configuration: RunConfiguration = read("RunConfiguration", "iris-nightly", status=True)
    assert (configuration.status.triggers, configuration.status.dependencies) == ([], [])


def test_everything_that_a_manifest_says_is_in_the_model() -> None:
    run: Run = read("Run", "iris-full")
    assert (run.spec.pipeline_name, run.spec.pipeline_version, run.spec.experiment_name) == ("iris", "v1.2-49e208", "flowers")
    sources = [p.value_from.run_configuration_ref for p in run.spec.parameters if p.value_from]
    assert [(s.name, s.output_artifact, s.optional) for s in sources if s] == [
        ("botany-base/examples", "examples", False),
        ("iris-nightly", "model", True),
    ]
    assert [a.normal_path for a in run.spec.artifacts] == [
        "Pusher:pushed_model:0[pushed == 1]",
        "Statistics Gen:statistics:0",
        "split:parts:1",
        "split:parts:0",
    ]
    configuration: RunConfiguration = read("RunConfiguration", "iris-nightly")
    assert [s.cron_expression for s in configuration.spec.triggers.schedules] == ["0 2 * * *", "0 0 * * * *", "0 0 * * * *"]
    assert configuration.spec.triggers.on_change == ["pipeline", "runSpec"]
    assert configuration.spec.triggers.run_configurations == ["botany-base/examples", "statistics"]
    schedule: RunSchedule = read("RunSchedule", "iris-hourly")
    assert schedule.spec.schedule.start_time is not None
    pipeline: Pipeline = read("Pipeline", "iris-tfx")
    assert {v.name: v.value for v in pipeline.spec.env} == {"TRAIN_STEPS": "400", "LABEL_COLUMN": ""}
    assert pipeline.spec.framework is not None
    assert pipeline.spec.framework.parameters["usePipelineSpec2_1"] is True
