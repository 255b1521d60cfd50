"""Kubeflow's own generated client, which knows nothing of the double, finds in it all that it expects."""

import json
from pathlib import Path
from typing import Any

import kfp_server_api  # type: ignore[import-untyped]  # generated, without types
import pytest
import yaml
from kfp_server_api.exceptions import ApiException  # type: ignore[import-untyped]

from tests.integration.kfp_api.site import TWO_STEP, site

ID = "11111111-1111-5111-8111-111111111111"


@pytest.fixture
def compiled(tmp_path: Path) -> str:
    """A file to upload: the generated client takes nothing else."""
    path = tmp_path / "pipeline.yaml"
    path.write_text(yaml.safe_dump(TWO_STEP))
    return str(path)


async def test_pipelines_are_uploaded_found_by_name_changed_and_deleted(compiled: str) -> None:
    async with site() as s:
        api = s.generated()
        uploads, pipelines = kfp_server_api.PipelineUploadServiceApi(api), kfp_server_api.PipelineServiceApi(api)
        made = await s.client(uploads.upload_pipeline, compiled, name="two-step", display_name="Two", tags='{"team":"a"}')
        version = await s.client(uploads.upload_pipeline_version, compiled, name="v-2", pipelineid=made.pipeline_id)
        assert version.pipeline_spec["pipelineInfo"] == {"name": "two-step"}
        found = await s.client(pipelines.pipeline_service_get_pipeline_by_name, "two-step")
        assert (found.pipeline_id, found.display_name, found.tags) == (made.pipeline_id, "Two", {"team": "a"})
        listed = await s.client(pipelines.pipeline_service_list_pipeline_versions, made.pipeline_id, sort_by="created_at desc")
        assert {v.name for v in listed.pipeline_versions} == {"two-step", "v-2"}
        await s.client(pipelines.pipeline_service_delete_pipeline_version, made.pipeline_id, version.pipeline_version_id)
        with pytest.raises(ApiException) as refusal:
            await s.client(pipelines.pipeline_service_delete_pipeline, made.pipeline_id)
        assert refusal.value.status == 400
        await s.client(pipelines.pipeline_service_delete_pipeline, made.pipeline_id, cascade=True)
        assert (await s.client(pipelines.pipeline_service_list_pipelines)).pipelines is None


async def test_a_run_is_started_followed_stopped_tried_again_and_deleted(compiled: str) -> None:
    async with site() as s:
        api = s.generated()
        runs = kfp_server_api.RunServiceApi(api)
        experiments = kfp_server_api.ExperimentServiceApi(api)
        pipeline = await s.client(kfp_server_api.PipelineUploadServiceApi(api).upload_pipeline, compiled, name="two-step")
        experiment = await s.client(
            experiments.experiment_service_create_experiment, kfp_server_api.V2beta1Experiment(display_name="e", description="d")
        )
        body = kfp_server_api.V2beta1Run(
            run_id=ID,
            display_name="run one",
            experiment_id=experiment.experiment_id,
            pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(pipeline_id=pipeline.pipeline_id),
            runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters={"n": 5}),
        )
        made = await s.client(runs.run_service_create_run, body)
        assert (made.run_id, made.state, made.experiment_id) == (ID, "PENDING", experiment.experiment_id)
        s.clock.forward(1)
        found = await s.client(runs.run_service_get_run, ID)
        assert found.state == "RUNNING"
        assert {t.display_name for t in found.run_details.task_details} >= {"prep", "root"}
        await s.client(runs.run_service_terminate_run, ID)
        s.clock.forward(5)
        stopped = await s.client(runs.run_service_get_run, ID)
        assert [c.state for c in stopped.state_history] == ["PENDING", "RUNNING", "CANCELING", "FAILED"]
        await s.client(runs.run_service_retry_run, ID)
        s.clock.forward(60)
        assert (await s.client(runs.run_service_get_run, ID)).state == "SUCCEEDED"
        await s.client(runs.run_service_archive_run, ID)
        query: dict[str, Any] = {"predicates": [{"operation": "EQUALS", "key": "storage_state", "string_value": "ARCHIVED"}]}
        listed = await s.client(runs.run_service_list_runs, filter=json.dumps(query))
        assert [r.run_id for r in listed.runs] == [ID]
        await s.client(runs.run_service_delete_run, ID)
        with pytest.raises(ApiException) as refusal:
            await s.client(runs.run_service_get_run, ID)
        assert (refusal.value.status, json.loads(refusal.value.body)["code"]) == (404, 5)


async def test_health_and_recurring_runs(compiled: str) -> None:
    async with site() as s:
        api = s.generated()
        health = await s.client(kfp_server_api.HealthzServiceApi(api).healthz_service_get_healthz)
        assert (health.multi_user, health.pipeline_store) == (False, "database")
        recurring = kfp_server_api.RecurringRunServiceApi(api)
        pipeline = await s.client(kfp_server_api.PipelineUploadServiceApi(api).upload_pipeline, compiled, name="two-step")
        body = kfp_server_api.V2beta1RecurringRun(
            display_name="nightly",
            max_concurrency="1",
            mode="ENABLE",
            pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(pipeline_id=pipeline.pipeline_id),
            runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters={"n": 5}),
        )
        made = await s.client(recurring.recurring_run_service_create_recurring_run, body)
        run = await s.kfp.tick(made.recurring_run_id)
        listed = await s.client(recurring.recurring_run_service_list_recurring_runs)
        assert [r.status for r in listed.recurring_runs] == ["ENABLED"]
        found = await s.client(kfp_server_api.RunServiceApi(api).run_service_get_run, run.id)
        assert found.recurring_run_id == made.recurring_run_id
