"""The double answers as the real server was recorded to answer: status, shape and words."""

import json
from typing import Any

import pytest
import yaml

from tests.integration.kfp_api import recorded
from tests.integration.kfp_api.recorded import RUN_ID, differences, gateway, upload
from tests.integration.kfp_api.site import TWO_STEP, Answer, Site, site


def same(answer: Answer, status: int, body: Any) -> None:
    """Assert that the answer is as recorded."""
    assert (answer.status, differences(body, answer.body)) == (status, []), answer.text


async def test_an_empty_installation() -> None:
    async with site() as s:
        same(await s.ask("GET", "/healthz"), 200, recorded.HEALTH)
        same(await s.ask("GET", "/runs"), 200, {})
        same(await s.ask("GET", "/pipelines"), 200, {})


async def test_json_is_printed_with_blanks_between_members() -> None:
    async with site() as s:
        assert (await s.ask("GET", "/healthz")).text.startswith('{"commit_sha":"unknown", "tag_name":')


async def test_a_pipeline_and_a_second_version() -> None:
    async with site() as s:
        made = await s.upload(name="two-step", display_name="Two Step", description="hello", tags='{"team":"a"}')
        same(made, 200, recorded.PIPELINE)
        version = await s.upload(version=True, pipelineid=made.body["pipeline_id"], name="v-2", display_name="Second")
        assert version.status == 200
        assert version.body["pipeline_spec"] == TWO_STEP, "the whole spec"
        version.body.pop("pipeline_spec")
        same(
            version,
            200,
            {"pipeline_id": "<id>", "pipeline_version_id": "<id>", "display_name": "Second", "name": "v-2", "created_at": "<time>"},
        )


async def test_an_experiment() -> None:
    async with site() as s:
        same(await s.ask("POST", "/experiments", {"display_name": "exp-a", "description": "d"}), 200, recorded.EXPERIMENT)


async def test_a_run_from_its_post_to_its_end() -> None:
    async with site() as s:
        posted = await s.run(RUN_ID, await s.pipeline(), display_name="run one", description="owner=ns/name")
        same(posted, 200, recorded.RUN)

        s.clock.forward(1)
        running = (await s.ask("GET", f"/runs/{RUN_ID}")).body
        tasks = {t["display_name"]: t for t in running.pop("run_details")["task_details"]}
        history = [{"update_time": "<time>", "state": state} for state in ("PENDING", "RUNNING")]
        assert differences(recorded.RUN | {"state": "RUNNING", "state_history": history}, running) == []
        assert differences(recorded.RUNNING_TASK, tasks["prep"]) == []
        assert set(tasks) >= {"root", "root-driver", "prep", "prep-driver", "executor"}
        assert "train" not in tasks

        s.clock.forward(10)
        done = (await s.ask("GET", f"/runs/{RUN_ID}")).body
        tasks = {t["display_name"]: t for t in done.pop("run_details")["task_details"]}
        history = [*history, {"update_time": "<time>", "state": "SUCCEEDED"}]
        assert differences(recorded.RUN | {"state": "SUCCEEDED", "finished_at": "<time>", "state_history": history}, done) == []
        assert done["finished_at"] > done["created_at"]
        ended = [{"update_time": "<time>", "state": state} for state in ("RUNNING", "SUCCEEDED")]
        assert (
            differences(recorded.RUNNING_TASK | {"state": "SUCCEEDED", "end_time": "<time>", "state_history": ended}, tasks["train"]) == []
        )


async def test_a_list_has_runs_as_a_get_has_them_and_a_token() -> None:
    async with site() as s:
        reference = await s.pipeline()
        for number in range(11):
            await s.run(f"run-{number}", reference)
        s.clock.forward(20)
        listed = await s.ask("GET", "/runs", page_size=4)
        first = (await s.ask("GET", f"/runs/{listed.body['runs'][0]['run_id']}")).body
        assert listed.body["runs"][0] == first
        assert differences({"total_size": 11, "next_page_token": "<token>"}, {k: v for k, v in listed.body.items() if k != "runs"}) == []


UNKNOWN = "00000000-0000-4000-8000-000000000001"
NOT_FOUND = gateway(
    5, f"Failed to get a run: Failed to fetch run {UNKNOWN}: ResourceNotFoundError: Run {UNKNOWN} not found", f"Run {UNKNOWN} not found"
)


async def test_what_is_not_there() -> None:
    async with site() as s:
        same(await s.ask("GET", f"/runs/{UNKNOWN}"), 404, NOT_FOUND)
        for path in ("/runs/{}:terminate", "/runs/{}:retry"):
            assert (await s.ask("POST", path.format(UNKNOWN), {})).status == 404
        assert (await s.ask("GET", "/pipelines/names/nobody")).status == 404
        assert (await s.run("x", await s.pipeline(), experiment_id=UNKNOWN)).status == 404
        assert (await s.ask("GET", "/nothing")).status == 404
        assert (await s.ask("PUT", "/runs")).status == 501


async def test_what_is_there_already() -> None:
    async with site() as s:
        reference = await s.pipeline()
        same(await s.upload(name="two-step"), 409, upload("Failed to create a pipeline and a pipeline version"))
        again = await s.upload(version=True, name="two-step", pipelineid=reference["pipeline_id"])
        same(again, 409, upload("Failed to create a pipeline version"))
        await s.ask("POST", "/experiments", {"display_name": "exp-a"})
        message = "Failed to create a experiment: Already exist error: .. The name exp-a already exists. .."
        same(await s.ask("POST", "/experiments", {"display_name": "exp-a"}), 409, gateway(6, message))
        await s.run("ebbe", reference)
        message = (
            "Failed to create a new run: Failed to create a run: InternalServerError: Failed to store run run four again to table: "
            "Error 1062 (23000): Duplicate entry 'ebbe' for key 'PRIMARY'"
        )
        same(await s.run("ebbe", reference, display_name="run four again"), 500, gateway(13, message, "Internal Server Error"))


BAD_UPLOADS = {
    "no pipeline": ({"kind": "Deployment"}, "unknown template format"),
    "unknown member": (TWO_STEP | {"surprise": 1}, "unknown template format"),
    "schema": (TWO_STEP | {"schemaVersion": "2.2.0"}, "KFP only supports schema version 2.1.0, but the pipeline spec has version 2.2.0"),
    "name": (
        TWO_STEP | {"pipelineInfo": {"name": "Two_Step"}},
        "pipeline's name must contain only lowercase alphanumeric characters or '-' ..",
    ),
}


@pytest.mark.parametrize("case", BAD_UPLOADS)
async def test_a_spec_that_is_none(case: str) -> None:
    spec, message = BAD_UPLOADS[case]
    async with site() as s:
        same(await s.upload(yaml.safe_dump(spec), name="x"), 400, upload(message))


async def test_names_of_pipelines() -> None:
    async with site() as s:
        long = await s.upload(name="x" * 129)
        assert (long.status, long.body, long.text) == (400, None, "Invalid input error: Pipeline.Name length cannot exceed 128")
        assert (await s.upload(name="x" * 128)).status == 500, "its first version has the same name, and less room"
        assert (await s.upload(name="y" * 127)).status == 200
        assert (await s.upload()).body["name"] == "fromfile.yaml"
        assert (await s.upload(name="My Pipeline é")).body["name"] == "My Pipeline é"


async def test_a_version_of_no_pipeline_is_400() -> None:
    async with site() as s:
        for query in ({}, {"pipelineid": UNKNOWN}):
            assert (await s.upload(version=True, name="v", **query)).status == 400


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"n": 5, "zzz": 1}, "parameter(s) provided are not required by pipeline: zzz"),
        ({}, "parameter n is not optional, yet has neither default value nor user provided value"),
        ({"n": "5"}, "input parameter n requires type"),
        ({"n": None}, "input parameter n requires type"),
        ({"n": 5, "s": 3}, "input parameter s requires type string"),
    ],
)
async def test_parameters_that_do_not_fit_are_400(parameters: dict[str, Any], words: str) -> None:
    async with site() as s:
        answer = await s.run("x", await s.pipeline(), runtime_config={"parameters": parameters})
        same(answer, 400, gateway(3, f"..: invalid pipeline job inputs: Invalid input error: ..{words}.."))
        assert not s.kfp.service.argo.workflows


async def test_a_double_is_good_enough_for_an_integer() -> None:
    async with site() as s:
        assert (await s.run("x", await s.pipeline(), runtime_config={"parameters": {"n": 2.5}})).status == 200


BAD_RUNS: dict[str, tuple[dict[str, Any], str]] = {
    "no name": (
        {"display_name": ""},
        "CreateJob(job.ToV2())Failed to create a run due to conversion error: .. Invalid input error: Run name cannot be empty",
    ),
    "unknown version": (
        {"pipeline_version_reference": {"pipeline_version_id": UNKNOWN}},
        f"..ResourceNotFoundError: PipelineVersion {UNKNOWN} not found",
    ),
    "no version": ({"pipeline_version_reference": {}}, "..empty pipeline spec manifest"),
    "bad inline spec": ({"pipeline_spec": {"root": {}}}, "..InvalidInputError: unknown template format: pipeline spec is invalid"),
    "no executor": (
        {"pipeline_spec": TWO_STEP | {"deploymentSpec": {"executors": {}}}},
        '..executor(label="exec-act") not found in deployment config..',
    ),
    "run_id is no label": ({"run_id": "a b"}, "..Failed to create a workflow for (): ..metadata.labels: Invalid value.."),
}


@pytest.mark.parametrize("case", BAD_RUNS)
async def test_a_run_that_can_never_work_is_a_500_with_the_cause_in_its_message(case: str) -> None:
    changes, message = BAD_RUNS[case]
    async with site() as s:
        same(await s.run("x", await s.pipeline(), **changes), 500, gateway(13, message, "Internal Server Error"))


async def test_a_version_of_another_pipeline_is_named() -> None:
    async with site() as s:
        first, second = await s.pipeline("one"), await s.pipeline("two")
        mixed = {"pipeline_id": first["pipeline_id"], "pipeline_version_id": second["pipeline_version_id"]}
        message = f"..belongs to pipeline {second['pipeline_id']} (not {first['pipeline_id']})"
        same(await s.run("x", mixed), 500, gateway(13, message, ".."))


async def test_an_unknown_member_is_400_without_details() -> None:
    async with site() as s:
        answer = await s.run("x", await s.pipeline(), foo=1)
        assert answer.status == 400
        assert set(answer.body) == {"code", "message"}
        assert answer.body["message"].startswith("proto:")
        assert answer.body["message"].endswith('unknown field "foo"')


async def test_without_its_database_the_server_is_healthy_and_of_no_use() -> None:
    async with site() as s:
        s.kfp.service.database = False
        same(await s.ask("GET", "/healthz"), 200, recorded.HEALTH)
        same(await s.ask("GET", "/runs"), 500, gateway(13, "..connection refused", "Internal Server Error"))
        s.kfp.service.database = True
        assert (await s.ask("GET", "/runs")).status == 200


async def test_a_termination_and_what_cannot_be_terminated() -> None:
    async with site() as s:
        await s.run(RUN_ID, await s.pipeline())
        s.clock.forward(1)
        same(await s.ask("POST", f"/runs/{RUN_ID}:terminate", {}), 200, {})
        refused = gateway(3, f"..Failed to terminate a run {RUN_ID}. Row not found..")
        same(await s.ask("POST", f"/runs/{RUN_ID}:terminate", {}), 400, refused)
        s.clock.forward(5)
        assert await s.history(RUN_ID) == ["PENDING", "RUNNING", "CANCELING", "FAILED"], "never CANCELED"
        same(await s.ask("POST", f"/runs/{RUN_ID}:terminate", {}), 400, refused)


async def test_a_retry_and_what_cannot_be_tried_again() -> None:
    async with site() as s:
        await s.run(RUN_ID, await s.pipeline())
        refused = gateway(10, "..Workflow must be Failed/Error to retry: workflow cannot be retried")
        s.clock.forward(1)
        same(await s.ask("POST", f"/runs/{RUN_ID}:retry", {}), 409, refused)
        await s.ask("POST", f"/runs/{RUN_ID}:terminate", {})
        s.clock.forward(5)
        assert await s.state(RUN_ID) == "FAILED"
        same(await s.ask("POST", f"/runs/{RUN_ID}:retry", {}), 200, {})
        again = (await s.ask("GET", f"/runs/{RUN_ID}")).body
        assert (again["state"], again["finished_at"]) == ("RUNNING", recorded.NEVER)
        s.clock.forward(20)
        assert (await s.history(RUN_ID))[-3:] == ["FAILED", "RUNNING", "SUCCEEDED"]


async def test_a_pipeline_with_versions_is_deleted_only_as_a_whole_and_its_runs_live_on() -> None:
    async with site() as s:
        reference = await s.pipeline()
        await s.run(RUN_ID, reference)
        refused = await s.ask("DELETE", f"/pipelines/{reference['pipeline_id']}")
        message = "..has existing pipeline versions (e.g. ..). Set cascade=true to delete all versions"
        same(refused, 400, gateway(3, message))
        assert (await s.ask("DELETE", f"/pipelines/{reference['pipeline_id']}", cascade="true")).status == 200
        s.clock.forward(20)
        run = (await s.ask("GET", f"/runs/{RUN_ID}")).body
        assert (run["state"], run["pipeline_version_reference"]) == ("SUCCEEDED", reference)


async def test_an_update_changes_display_name_and_tags_and_nothing_else() -> None:
    async with site() as s:
        reference = await s.pipeline(description="before", tags='{"a":"b"}')
        path = f"/pipelines/{reference['pipeline_id']}"
        changed = await s.ask("PATCH", path, {"display_name": "Shown", "description": "after"})
        assert {k: changed.body[k] for k in ("display_name", "description", "tags")} == {
            "display_name": "Shown",
            "description": "before",
            "tags": {"a": "b"},
        }
        assert "tags" not in (await s.ask("PATCH", path, {"tags": {}})).body


@pytest.mark.parametrize(
    "query",
    [
        {"filter": json.dumps({"predicates": [{"operation": "EQUALS", "key": "zzz", "string_value": "x"}]})},
        {"filter": json.dumps({"predicates": [{"op": "EQUALS", "key": "state", "string_value": "x"}]})},
        {"sort_by": "zzz"},
        {"page_size": "-1"},
        {"page_token": "zzz"},
        {"filter": "%"},
    ],
)
async def test_a_list_that_cannot_be_made_is_400(query: dict[str, str]) -> None:
    async with site() as s:
        assert (await s.ask("GET", "/runs", **query)).status == 400


async def seen(s: Site) -> list[str]:
    """Ids of all runs in the first page."""
    return [r["run_id"] for r in (await s.ask("GET", "/runs")).body.get("runs", [])]


async def test_after_a_deletion_the_id_is_free() -> None:
    async with site() as s:
        reference = await s.pipeline()
        await s.run("my-run.1", reference)
        assert await seen(s) == ["my-run.1"]
        same(await s.ask("DELETE", "/runs/my-run.1"), 200, {})
        assert not await seen(s)
        assert (await s.run("my-run.1", reference)).status == 200
