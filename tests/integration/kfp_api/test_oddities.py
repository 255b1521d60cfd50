"""What the real server does that nobody would guess, and which a careful client must survive."""

import asyncio
import json

import pytest

from tests.doubles.kfp_api import Outcome
from tests.integration.kfp_api.site import TWO_STEP, Site, site
from tests.waiting import eventually_async

ID = "11111111-1111-5111-8111-111111111111"


async def ended(s: Site, run_id: str, seconds: float = 60) -> str:
    s.clock.forward(seconds)
    return await s.state(run_id)


async def test_a_second_post_starts_a_second_workflow_that_can_turn_succeeded_into_failed() -> None:
    async with site() as s:
        reference = await s.pipeline()
        await s.run(ID, reference)
        assert await ended(s, ID) == "SUCCEEDED"
        s.kfp.outcome(Outcome(fails_in="train"), run_id=ID)
        assert (await s.run(ID, reference)).status == 500
        assert s.kfp.started(ID) == 2
        assert await ended(s, ID) == "FAILED"
        tasks = (await s.ask("GET", f"/runs/{ID}")).body["run_details"]["task_details"]
        assert [t["display_name"] for t in tasks].count("prep") == 2


async def test_of_four_posts_one_is_answered_well_and_a_deletion_leaves_three_workflows() -> None:
    async with site() as s:
        reference = await s.pipeline()
        answers = await asyncio.gather(*(s.run(ID, reference) for _ in range(4)))
        assert sorted(a.status for a in answers) == [200, 500, 500, 500]
        assert s.kfp.started(ID) == 4
        await s.ask("DELETE", f"/runs/{ID}")
        assert len(s.kfp.service.argo.of(ID)) == 3
        await ended(s, ID, 300)
        assert not s.kfp.service.argo.of(ID), "the agent deletes what belongs to no run"


async def test_a_name_that_is_too_long_fails_after_the_workflow_has_begun() -> None:
    async with site() as s:
        assert (await s.run(ID, await s.pipeline(), display_name="x" * 256)).status == 500
        assert len(s.kfp.service.argo.of(ID)) == 1
        assert (await s.ask("GET", f"/runs/{ID}")).status == 404


async def test_a_termination_without_its_workflow_leaves_the_run_canceling_for_ever() -> None:
    async with site(patience=0.0) as s:
        await s.run(ID, await s.pipeline())
        s.clock.forward(1)
        assert await s.state(ID) == "RUNNING"
        s.kfp.service.argo.delete(s.kfp.service.argo.of(ID)[0])
        assert (await s.ask("POST", f"/runs/{ID}:terminate", {})).status == 500
        assert await s.state(ID) == "CANCELING"
        assert (await s.ask("POST", f"/runs/{ID}:terminate", {})).status == 400
        assert await ended(s, ID, 10_000) == "CANCELING"


async def test_the_latest_version_of_two_in_one_second_may_be_the_first() -> None:
    async with site() as s:
        reference = await s.pipeline()
        other = await s.upload(version=True, pipelineid=reference["pipeline_id"], name="v2")
        run = (await s.run(ID, {"pipeline_id": reference["pipeline_id"]})).body
        first = min(reference["pipeline_version_id"], other.body["pipeline_version_id"])
        assert run["pipeline_version_reference"]["pipeline_version_id"] == first


async def test_a_version_is_found_under_any_pipeline() -> None:
    async with site() as s:
        first, second = await s.pipeline("one"), await s.pipeline("two")
        found = await s.ask("GET", f"/pipelines/{second['pipeline_id']}/versions/{first['pipeline_version_id']}")
        assert (found.status, found.body["pipeline_id"]) == (200, first["pipeline_id"])


async def test_a_run_without_a_phase_has_no_state() -> None:
    async with site() as s:
        s.kfp.outcome(Outcome(unseen=5, seconds=5))
        await s.run(ID, await s.pipeline())
        assert await ended(s, ID, 1) == ""
        assert await ended(s, ID, 10) == "SUCCEEDED"


async def test_a_deleted_recurring_run_leaves_its_runs_running_for_ever_unless_it_orphans_them() -> None:
    async with site() as s:
        reference = await s.pipeline()
        config = {"parameters": {"n": 1}}
        schedule = {
            "display_name": "nightly",
            "max_concurrency": "1",
            "mode": "ENABLE",
            "pipeline_version_reference": reference,
            "runtime_config": config,
        }
        for propagation, state in (("FOREGROUND", "RUNNING"), ("ORPHAN", "SUCCEEDED")):
            made = (await s.ask("POST", "/recurringruns", schedule)).body["recurring_run_id"]
            run = await s.kfp.tick(made)
            s.clock.forward(1)
            assert await s.state(run.id) == "RUNNING"
            await s.ask("DELETE", f"/recurringruns/{made}", propagation_policy=propagation)
            assert await ended(s, run.id) == state


async def test_a_recurring_run_needs_a_bound_and_is_disabled_unless_it_says_otherwise() -> None:
    async with site() as s:
        schedule = {"display_name": "nightly", "pipeline_version_reference": await s.pipeline()}
        assert (await s.ask("POST", "/recurringruns", schedule)).status == 400
        made = await s.ask("POST", "/recurringruns", schedule | {"max_concurrency": "1"})
        assert made.body["status"] == "DISABLED"
        assert [r["display_name"] for r in (await s.ask("GET", "/recurringruns")).body["recurringRuns"]] == ["nightly"]


async def test_an_archived_experiment_takes_its_runs_and_keeps_them() -> None:
    async with site() as s:
        experiment = (await s.ask("POST", "/experiments", {"display_name": "e"})).body["experiment_id"]
        await s.run(ID, await s.pipeline(), experiment_id=experiment)
        await s.ask("POST", f"/experiments/{experiment}:archive", {})
        assert (await s.ask("GET", f"/runs/{ID}")).body["storage_state"] == "ARCHIVED"
        await s.ask("POST", f"/experiments/{experiment}:unarchive", {})
        assert (await s.ask("GET", f"/runs/{ID}")).body["storage_state"] == "ARCHIVED"
        await s.ask("POST", f"/experiments/{experiment}:archive", {})
        assert (await s.run("another", await s.pipeline("p2"), experiment_id=experiment)).status == 200


async def test_an_upload_with_broken_yaml_is_never_answered() -> None:
    async with site() as s:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await s.upload("root: [unfinished", name="x")
        await eventually_async(lambda: s.kfp.service.wedged == 1, 5, "a core burns")
        assert (await s.ask("GET", "/healthz")).status == 200, "the others are answered"
        second = json.dumps(TWO_STEP) + "\n---\nroot: [unfinished"
        assert (await s.upload(second, name="x")).status == 400


async def test_an_empty_upload_is_a_500() -> None:
    async with site(patience=0.0) as s:
        assert (await s.upload("", name="x")).status == 500


async def test_a_failed_step_leaves_those_after_it_without_a_state() -> None:
    async with site() as s:
        s.kfp.outcome(Outcome(fails_in="prep"))
        await s.run(ID, await s.pipeline())
        assert await ended(s, ID) == "FAILED"
        tasks = {t["display_name"]: t for t in (await s.ask("GET", f"/runs/{ID}")).body["run_details"]["task_details"]}
        assert (tasks["prep"]["state"], "state" in tasks["train"]) == ("FAILED", False)
        assert "error" not in tasks["prep"], "why stands in the Workflow only"
        (workflow,) = s.kfp.service.argo.of(ID)
        assert [n["message"] for n in workflow.document()["status"]["nodes"].values() if n["phase"] == "Failed" and "message" in n] == [
            "main: Error (exit code 1)"
        ]


async def test_an_experiment_is_deleted_without_its_runs() -> None:
    async with site() as s:
        experiment = (await s.ask("POST", "/experiments", {"display_name": "e"})).body["experiment_id"]
        await s.run(ID, await s.pipeline(), experiment_id=experiment)
        assert (await s.ask("DELETE", f"/experiments/{experiment}")).status == 200
        assert await ended(s, ID) == "SUCCEEDED"
