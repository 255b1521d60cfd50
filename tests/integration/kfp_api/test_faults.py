"""What a test can let go wrong between a client and the server."""

import asyncio
import json

import aiohttp
import pytest

from tests.doubles.kfp_api import HANG, Outcome
from tests.integration.kfp_api.site import site
from tests.waiting import eventually_async

ID = "11111111-1111-5111-8111-111111111111"


async def test_an_answer_is_lost_after_the_effect_or_the_request_before_it() -> None:
    async with site() as s:
        reference = await s.pipeline()
        s.kfp.fault(method="POST", path="/runs", status=503, effect=True)
        s.kfp.fault(method="POST", path="/runs", status=503)
        assert (await s.run("had-effect", reference)).status == 503
        assert (await s.run("had-none", reference)).status == 503
        assert (await s.ask("GET", "/runs/had-effect")).status == 200
        assert (await s.ask("GET", "/runs/had-none")).status == 404


@pytest.mark.parametrize("effect", [True, False])
async def test_a_connection_is_reset(effect: bool) -> None:
    async with site() as s:
        reference = await s.pipeline()
        s.kfp.fault(method="POST", path="/runs", reset=True, effect=effect)
        with pytest.raises(aiohttp.ClientError):
            await s.run(ID, reference)
        assert s.kfp.started(ID) == int(effect)


@pytest.mark.parametrize("fault", [{"late": 60.0}, {"latency": 0.2}])
async def test_who_hangs_up_before_the_answer_has_asked_all_the_same(fault: dict[str, float]) -> None:
    async with site() as s:
        reference = await s.pipeline()
        s.kfp.fault(method="POST", path="/runs", **fault)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await s.run(ID, reference)
        await eventually_async(lambda: s.kfp.started(ID) == 1, 5, "the run is started")


async def test_an_answer_breaks_off() -> None:
    async with site() as s:
        s.kfp.fault(path="/healthz", truncate=True)
        answer = await s.ask("GET", "/healthz")
        assert (answer.status, answer.body) == (200, None)
        with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
            json.loads(answer.text)


async def test_a_hanging_request_is_not_answered_and_the_next_is() -> None:
    async with site() as s:
        s.kfp.fault(path="/healthz", hang=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await s.ask("GET", "/healthz")
        assert (await s.ask("GET", "/healthz")).status == 200


async def test_faults_are_for_so_many_requests_that_match_after_so_many() -> None:
    async with site() as s:
        s.kfp.fault(path="/runs*", status=429, times=2, after=1, headers={"Retry-After": "7"})
        assert [(await s.ask("GET", "/runs")).status for _ in range(4)] == [200, 429, 429, 200]
        s.kfp.fault(path="/runs*", status=500, times=0)
        assert [(await s.ask("GET", "/runs")).status for _ in range(3)] == [500] * 3
        assert (await s.ask("GET", "/pipelines")).status == 200
        s.kfp.faults.clear()
        assert (await s.ask("GET", "/runs")).status == 200


async def test_requests_are_counted_by_pattern_also_those_that_fail() -> None:
    async with site() as s:
        s.kfp.fault(path="/runs/*", status=500)
        for run_id in ("a", "b", "c"):
            await s.ask("GET", f"/runs/{run_id}")
        assert s.kfp.requests["GET", "/runs/{id}"] == 3


async def test_runs_go_as_they_are_told_by_hand_by_name_and_by_time() -> None:
    async with site() as s:
        reference = await s.pipeline()
        s.kfp.outcome(Outcome(by_hand=True), name="by hand*")
        s.kfp.outcome(HANG, name="hang*")
        s.kfp.outcome(Outcome(fails_in="prep", then=Outcome(seconds=3)), name="again*")
        s.kfp.outcome(Outcome(phase="Error", message="the controller was lost"), name="error*")
        for name in ("by hand", "hang", "again", "error", "usual"):
            await s.run(name.replace(" ", "-"), reference, display_name=name)
        s.clock.forward(60)
        states = {r: await s.state(r) for r in ("by-hand", "hang", "again", "error", "usual")}
        assert states == {"by-hand": "PENDING", "hang": "RUNNING", "again": "FAILED", "error": "FAILED", "usual": "SUCCEEDED"}
        s.kfp.start("by-hand")
        assert await s.state("by-hand") == "RUNNING"
        s.kfp.finish("by-hand", fails_in="train", message="main: Error (exit code 3)")
        await s.ask("POST", "/runs/again:retry", {})
        s.kfp.finish("hang")
        s.clock.forward(5)
        assert {r: await s.state(r) for r in ("by-hand", "hang", "again")} == {
            "by-hand": "FAILED",
            "hang": "SUCCEEDED",
            "again": "SUCCEEDED",
        }


async def test_a_row_follows_its_workflow_after_the_report() -> None:
    async with site(report_delay=5.0) as s:
        await s.run(ID, await s.pipeline())
        s.clock.forward(12)
        (workflow,) = s.kfp.service.argo.of(ID)
        assert (await s.state(ID), workflow.phase) == ("RUNNING", "Succeeded")
        assert "pipeline/persistedFinalState" not in workflow.document()["metadata"]["labels"]
        s.clock.forward(5)
        assert await s.state(ID) == "SUCCEEDED"
        assert workflow.document()["metadata"]["labels"]["pipeline/persistedFinalState"] == "true"
