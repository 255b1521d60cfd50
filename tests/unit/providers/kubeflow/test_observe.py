"""Runs that others start: told once they end, from when observing began, and after an absence."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from kfp_operator.api.states import RunState
from kfp_operator.providers.kubeflow.provider import KubeflowProvider
from kfp_operator.providers.protocol import Observed, RunUpdate
from tests.doubles.kfp_api import KfpApi, Options, Outcome
from tests.unit.providers.kubeflow.arrange import NOW, SPEC, FakeClock, pipeline, provider_of, submission
from tests.waiting import eventually_async as until

pytestmark = pytest.mark.slow


@asynccontextmanager
async def observing(provider: KubeflowProvider, since: datetime) -> AsyncIterator[list[RunUpdate]]:
    """What is told of others' runs, in the background."""
    told: list[RunUpdate] = []

    async def watch() -> None:
        assert provider.others is not None
        async for update in provider.others.watch(since):
            if isinstance(update, RunUpdate):
                told.append(update)  # noqa: PERF401  # the watch does not end

    task = asyncio.create_task(watch())
    try:
        yield told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def start(provider: KubeflowProvider, run_id: str, **members: Any) -> None:
    """Somebody starts a run with the SDK."""
    body = {"run_id": run_id, "display_name": f"by hand {run_id}", "pipeline_spec": SPEC}
    await provider._client.post("/runs", body | members, what="start")


def states(told: list[RunUpdate]) -> list[tuple[str, int, str]]:
    return [(update.submission_id, update.attempt, update.state.value) for update in told]


async def test_without_being_asked_to_nothing_is_observed() -> None:
    async with KfpApi() as kfp, provider_of(kfp) as provider:
        assert provider.others is None


async def test_ends_of_others_runs_are_told_with_their_names() -> None:
    async with KfpApi(Options(seconds=0.1)) as kfp, provider_of(kfp, observe="All", pollIntervalSeconds=1) as provider:
        ours = await provider.ensure_pipeline(pipeline())
        await provider.submit_run(submission())
        experiment = await provider._api.create_experiment("tests", "")
        (version,) = kfp.service.rows.versions
        async with observing(provider, kfp.service.rows.now()) as told:
            await start(provider, "inline")
            reference = {"pipeline_id": ours, "pipeline_version_id": version}
            body = {"run_id": "of-ours", "display_name": "clone", "pipeline_version_reference": reference}
            await provider._client.post("/runs", body | {"experiment_id": experiment["experiment_id"]}, what="start")
            await until(lambda: len(told) == 2, 10, "both are told")
            found = {update.submission_id: update for update in told}
    assert found["inline"].observed == Observed("by hand inline", "scenario", "", "Default")
    assert found["of-ours"].observed == Observed("clone", "team-a/train", "49e208", "tests")
    assert {update.state for update in told} == {RunState.SUCCEEDED}


async def test_what_ended_before_observing_began_is_not_told() -> None:
    clock = FakeClock()
    async with KfpApi(Options(seconds=5), now=clock.now) as kfp, provider_of(kfp, clock=clock, observe="All") as provider:
        await start(provider, "before")
        clock.passed += 60
        began = clock.now()
        clock.passed += 60
        await start(provider, "after")
        async with observing(provider, began) as told:
            await until(lambda: told, 10, "it is told")
            await until(lambda: clock.passed > 3600, 60, "an hour has passed")
        assert states(told) == [("after", 1, "succeeded")]


async def test_after_an_absence_all_that_ended_meanwhile_is_told_oldest_first() -> None:
    clock = FakeClock()
    async with KfpApi(Options(seconds=5), now=clock.now) as kfp, provider_of(kfp, clock=clock, observe="All") as provider:
        left_at = clock.now()
        for number in range(120):
            kfp.outcome(Outcome(seconds=5, fails_in="act" if number % 2 else ""), name=f"by hand {number}")
            await start(provider, str(number))
            clock.passed += 60
        async with observing(provider, left_at) as told:
            await until(lambda: len(told) >= 120, 20, "all are told")
        assert states(told) == [(str(n), 1, "failed" if n % 2 else "succeeded") for n in range(120)]


async def test_a_time_says_that_every_end_before_it_was_told() -> None:
    clock = FakeClock()
    async with KfpApi(Options(seconds=5), now=clock.now) as kfp, provider_of(kfp, clock=clock, observe="All") as provider:
        await start(provider, "r")
        clock.passed += 3600
        assert provider.others is not None
        watch = provider.others.watch(NOW)
        first, second = [await anext(watch) for _ in range(2)]  # type: ignore[call-overload]
        assert isinstance(first, RunUpdate)
        assert second == clock.now() - timedelta(minutes=5)
        third = await anext(watch)  # type: ignore[call-overload]
        assert third > second


async def test_an_end_that_is_stored_late_is_told() -> None:
    clock = FakeClock()
    options = Options(seconds=5, report_delay=3600)
    async with KfpApi(options, now=clock.now) as kfp, provider_of(kfp, clock=clock, observe="All") as provider:
        async with observing(provider, NOW) as told:
            await start(provider, "late")
            await until(lambda: told, 30, "it is told")
        assert states(told) == [("late", 1, "succeeded")]
        assert told[0].end_time is not None
        assert clock.now() - told[0].end_time > timedelta(minutes=50)


async def test_an_end_that_is_stored_after_a_restart_is_told_though_it_is_older() -> None:
    clock = FakeClock()
    options = Options(seconds=5, report_delay=3600)
    async with KfpApi(options, now=clock.now) as kfp, provider_of(kfp, clock=clock, observe="All") as provider:
        await start(provider, "late")
        clock.passed += 1800
        async with observing(provider, clock.now()) as told:
            await until(lambda: told, 30, "it is told")
        assert states(told) == [("late", 1, "succeeded")]


async def test_each_attempt_is_told_once() -> None:
    clock = FakeClock()
    async with KfpApi(Options(seconds=5), now=clock.now) as kfp, provider_of(kfp, clock=clock, observe="All") as provider:
        kfp.outcome(Outcome(seconds=5, fails_in="act", then=Outcome(seconds=5)))
        async with observing(provider, NOW) as told:
            await start(provider, "r")
            await until(lambda: told, 10, "the first attempt is told")
            await provider._client.post("/runs/r:retry", what="retry")
            await until(lambda: len(told) == 2, 10, "the second attempt is told")
            seen = clock.passed
            await until(lambda: clock.passed > seen + 3600, 60, "an hour has passed")
        assert states(told) == [("r", 1, "failed"), ("r", 2, "succeeded")]


async def test_an_attempt_that_ended_before_observing_began_is_not_told_when_its_run_is_retried() -> None:
    clock = FakeClock()
    async with KfpApi(Options(seconds=5), now=clock.now) as kfp, provider_of(kfp, clock=clock, observe="All") as provider:
        kfp.outcome(Outcome(seconds=5, fails_in="act", then=Outcome(seconds=5)))
        await start(provider, "r")
        clock.passed += 60
        began = clock.now()
        clock.passed += 60
        await provider._client.post("/runs/r:retry", what="retry")
        async with observing(provider, began) as told:
            await until(lambda: told, 60, "the second attempt is told")
            seen = clock.passed
            await until(lambda: clock.passed > seen + 600, 60, "time has passed")
        assert states(told) == [("r", 2, "succeeded")]


@pytest.mark.parametrize("state", ["SKIPPED"])
async def test_what_has_no_completion_is_not_told(state: str) -> None:
    clock = FakeClock()
    async with KfpApi(Options(seconds=5), now=clock.now) as kfp, provider_of(kfp, clock=clock, observe="All") as provider:
        await start(provider, "s")
        clock.passed += 60
        row = kfp.run("s")
        row.state = state
        async with observing(provider, NOW) as told:
            seen = clock.passed
            await until(lambda: clock.passed > seen + 600, 60, "time has passed")
        assert told == []


async def test_others_have_no_part_in_the_watch_of_our_runs() -> None:
    clock = FakeClock()
    async with KfpApi(Options(seconds=5), now=clock.now) as kfp, provider_of(kfp, clock=clock, observe="All") as provider:
        await start(provider, "others")
        await provider.submit_run(submission())
        async for update in provider.watch_runs():
            assert update.submission_id == submission().id
            if update.state.final:
                break
