"""Stopping a run, with the server's oddities: it says FAILED, refuses a second stop, and notes a stop that did not reach the Workflow."""

import asyncio
from typing import Any

import pytest

from kfp_operator.api.states import RunState
from kfp_operator.errors import Retryable
from kfp_operator.providers.kubeflow.provider import STUCK_AFTER, KubeflowProvider
from kfp_operator.providers.protocol import RunUpdate
from tests.doubles.kfp_api import KfpApi, Options, Outcome
from tests.unit.providers.kubeflow.arrange import FakeClock, SeenWorkflows, provider_of, submission
from tests.waiting import eventually_async

WHAT = submission()
HANGS = Outcome(by_hand=True)


async def ended(provider: KubeflowProvider) -> RunUpdate:
    async def look() -> RunUpdate | None:
        update = await provider.get_run(WHAT.id)
        return update if update is not None and update.state.final else None

    return await eventually_async(look, 10, "it has ended")


async def test_a_stopped_run_is_told_as_stopped_though_the_server_says_failed() -> None:
    async with KfpApi(Options(stop_delay=0)) as kfp, provider_of(kfp) as provider:
        kfp.outcome(HANGS)
        await provider.submit_run(WHAT)
        await provider.cancel_run(WHAT.id)
        assert (await ended(provider)).state is RunState.STOPPED
        assert kfp.run(WHAT.id).state == "FAILED"


async def test_a_stop_that_the_server_took_is_remembered_though_its_history_does_not_tell() -> None:
    async with KfpApi(Options(stop_delay=0)) as kfp, provider_of(kfp) as provider:
        kfp.outcome(HANGS)
        await provider.submit_run(WHAT)
        await provider.cancel_run(WHAT.id)
        await ended(provider)
        kfp.run(WHAT.id).history[:] = [c for c in kfp.run(WHAT.id).history if c.state != "CANCELING"]
        assert (await ended(provider)).state is RunState.STOPPED


async def test_a_process_that_did_not_ask_says_that_it_was_perhaps_stopped() -> None:
    async with KfpApi(Options(stop_delay=0)) as kfp:
        kfp.outcome(HANGS)
        async with provider_of(kfp) as first:
            await first.submit_run(WHAT)
            await first.cancel_run(WHAT.id)
            await ended(first)
        kfp.run(WHAT.id).history[:] = [c for c in kfp.run(WHAT.id).history if c.state != "CANCELING"]
        async with provider_of(kfp) as second:
            update = await ended(second)
            assert (update.state, update.perhaps_stopped) == (RunState.FAILED, True)


async def test_a_stop_that_is_repeated_is_no_error() -> None:
    async with KfpApi(Options(stop_delay=60)) as kfp, provider_of(kfp, clock=FakeClock()) as provider:
        kfp.outcome(HANGS)
        await provider.submit_run(WHAT)
        for _ in range(3):
            await provider.cancel_run(WHAT.id)
        assert kfp.requests["POST", "/runs/{id}:terminate"] == 1


async def test_a_stop_that_comes_too_late_changes_nothing() -> None:
    async with KfpApi(Options(seconds=0)) as kfp, provider_of(kfp) as provider:
        kfp.outcome(Outcome(seconds=0, fails_in="act"))
        await provider.submit_run(WHAT)
        await ended(provider)
        await provider.cancel_run(WHAT.id)
        update = await ended(provider)
        assert (update.state, update.perhaps_stopped) == (RunState.FAILED, False)


async def test_a_run_that_ends_between_look_and_stop_keeps_its_end() -> None:
    async with KfpApi() as kfp, provider_of(kfp) as provider:
        kfp.outcome(Outcome(by_hand=True, fails_in="act"))
        await provider.submit_run(WHAT)
        kfp.fault(method="POST", path="/runs/*:terminate", latency=0.5)
        stopping = asyncio.create_task(provider.cancel_run(WHAT.id))
        await eventually_async(lambda: kfp.requests["POST", "/runs/{id}:terminate"], 5, "the stop is on its way")
        kfp.finish(WHAT.id)
        await stopping
        update = await ended(provider)
        assert (update.state, update.perhaps_stopped) == (RunState.FAILED, False)


async def test_a_run_that_is_gone_needs_no_stop() -> None:
    async with KfpApi() as kfp, provider_of(kfp) as provider:
        await provider.cancel_run(WHAT.id)
        assert kfp.requests["POST", "/runs/{id}:terminate"] == 0


async def test_a_lost_answer_to_a_stop_is_found_out_by_looking() -> None:
    async with KfpApi(Options(stop_delay=0.2)) as kfp, provider_of(kfp) as provider:
        kfp.outcome(HANGS)
        await provider.submit_run(WHAT)
        kfp.fault(method="POST", path="/runs/*:terminate", reset=True, effect=True)
        with pytest.raises(Retryable):
            await provider.cancel_run(WHAT.id)
        await provider.cancel_run(WHAT.id)
        assert (await ended(provider)).state is RunState.STOPPED


@pytest.mark.parametrize("visible", [True, False])
async def test_a_stop_that_never_reached_the_workflow_is_told_with_the_remedy(visible: bool) -> None:
    clock = FakeClock()
    async with KfpApi(Options(patience=0), now=clock.now) as kfp:
        kfp.outcome(HANGS)
        given: dict[str, Any] = {"workflows": SeenWorkflows(kfp), "watch": "Workflows"} if visible else {}
        async with provider_of(kfp, clock=clock, **given) as provider:
            await provider.submit_run(WHAT)
            (workflow,) = kfp.service.argo.of(WHAT.id)
            kfp.service.argo.delete(workflow)
            with pytest.raises(Retryable):
                await provider.cancel_run(WHAT.id)  # 500, and CANCELING for ever
            await provider.cancel_run(WHAT.id)
            clock.passed += STUCK_AFTER + 1
            with pytest.raises(Retryable) as caught:
                await provider.cancel_run(WHAT.id)
            assert caught.value.reason == "StopStuck"
            remedy = (
                "its Workflow is gone, so the server will never see its end"
                if visible
                else "kubectl patch workflow -n kubeflow -l pipeline"
            )
            assert remedy in str(caught.value)
            assert kfp.requests["POST", "/runs/{id}:terminate"] == 1


async def test_a_run_that_is_retried_after_a_stop_and_fails_then_has_failed() -> None:
    async with KfpApi(Options(stop_delay=0)) as kfp, provider_of(kfp) as provider:
        kfp.outcome(Outcome(by_hand=True, then=Outcome(seconds=0.1, fails_in="act")))
        await provider.submit_run(WHAT)
        await provider.cancel_run(WHAT.id)
        await ended(provider)
        await provider._client.post(f"/runs/{WHAT.id}:retry", what="retry")

        async def second() -> RunUpdate | None:
            update = await provider.get_run(WHAT.id)
            return update if update is not None and update.attempt == 2 and update.state.final else None

        update = await eventually_async(second, 10, "the second attempt has ended")
        assert update.state is RunState.FAILED
        assert [each.state for each in update.earlier] == [RunState.STOPPED]
