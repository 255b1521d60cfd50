"""Changes are noticed at the cost of the runs that are active, and alike by both ways of watching."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from kfp_operator.api.states import RunState
from kfp_operator.errors import Permanent, Retryable
from kfp_operator.providers.kubeflow.naming import Mark
from kfp_operator.providers.kubeflow.provider import KubeflowProvider
from kfp_operator.providers.protocol import RunUpdate
from tests.doubles.kfp_api import KfpApi, Options, Outcome
from tests.doubles.kfp_api.rows import Change, Run
from tests.unit.providers.kubeflow.arrange import FakeClock, SeenWorkflows, provider_of, submission
from tests.waiting import eventually_async as until

pytestmark = pytest.mark.slow

BOTH = pytest.mark.parametrize("watch", ["Poll", "Workflows"])


@dataclass
class Told:
    """What a watch has told."""

    updates: list[RunUpdate] = field(default_factory=list)
    error: BaseException | None = None

    def of(self, run_id: str) -> list[RunUpdate]:
        return [update for update in self.updates if update.submission_id == run_id]

    def states(self, run_id: str) -> list[str]:
        """The last state of each report."""
        return [update.state.value for update in self.of(run_id)]


@asynccontextmanager
async def watching(provider: KubeflowProvider) -> AsyncIterator[Told]:
    """A watch in the background."""
    told = Told()

    async def watch() -> None:
        try:
            async for update in provider.watch_runs():
                told.updates.append(update)
        except (Permanent, Retryable) as error:
            told.error = error

    task = asyncio.create_task(watch())
    try:
        yield told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def quick(kfp: KfpApi, watch: str, **parameters: Any) -> AbstractAsyncContextManager[KubeflowProvider]:
    """A provider that looks often, on the real clock."""
    workflows = SeenWorkflows(kfp)
    return provider_of(kfp, workflows=workflows, watch=watch, pollIntervalSeconds=1, requestsPerSecond=1000, **parameters)


@BOTH
async def test_a_run_is_told_from_its_start_to_its_end(watch: str) -> None:
    async with KfpApi(Options(seconds=0.1)) as kfp, quick(kfp, watch) as provider, watching(provider) as told:
        await provider.submit_run(what := submission())
        await until(lambda: told.states(what.id)[-1:] == ["succeeded"], 10, "its end is told")
        last = told.of(what.id)[-1]
        assert [change.state.value for change in last.history] == ["queued", "running", "succeeded"]
        assert (last.attempt, last.end_time) == (1, last.history[-1].time)


Act = Callable[[KfpApi, KubeflowProvider, Told, str], Awaitable[None]]


async def let_end(kfp: KfpApi, provider: KubeflowProvider, told: Told, run_id: str) -> None:
    kfp.finish(run_id)


async def let_fail(kfp: KfpApi, provider: KubeflowProvider, told: Told, run_id: str) -> None:
    kfp.finish(run_id, fails_in="act", message="main: Error (exit code 7)")


async def stop(kfp: KfpApi, provider: KubeflowProvider, told: Told, run_id: str) -> None:
    await provider.cancel_run(run_id)


async def retry_in_the_ui(kfp: KfpApi, provider: KubeflowProvider, told: Told, run_id: str) -> None:
    kfp.finish(run_id, fails_in="act")
    await until(lambda: told.states(run_id)[-1:] == ["failed"], 10, "the first end is told")
    await provider._client.post(f"/runs/{run_id}:retry", what="retry")


@pytest.mark.parametrize(
    ("act", "state", "attempt", "failed_task", "message"),
    [
        pytest.param(let_end, "succeeded", 1, "", "", id="succeeds"),
        pytest.param(let_fail, "failed", 1, "act", "step act failed: main: Error (exit code 7)", id="fails"),
        pytest.param(stop, "stopped", 1, "", "", id="is stopped"),
        pytest.param(retry_in_the_ui, "succeeded", 2, "", "", id="is retried in the UI"),
    ],
)
async def test_both_ways_of_watching_tell_the_same(act: Act, state: str, attempt: int, failed_task: str, message: str) -> None:
    ends = []
    for watch in ("Poll", "Workflows"):
        async with KfpApi(Options(seconds=0.1)) as kfp, quick(kfp, watch, uiUrl="https://kfp.example.org") as provider:
            if watch == "Poll":
                provider._workflows._port = SeenWorkflows(kfp)  # they may be looked at, only not watched
            kfp.outcome(Outcome(by_hand=True, then=Outcome(seconds=0.1)))
            async with watching(provider) as told:
                await provider.submit_run(what := submission())
                kfp.start(what.id)
                await until(lambda: "running" in told.states(what.id), 10, "it runs")
                await act(kfp, provider, told, what.id)
                wanted = lambda: [u for u in told.of(what.id) if u.state == state and u.attempt == attempt]  # noqa: E731
                await until(wanted, 15, "its end is told")
                ends.append(wanted()[-1])
    by_poll, by_workflows = (_without_times(update) for update in ends)
    assert by_poll == by_workflows
    assert (by_poll.failed_task, by_poll.message) == (failed_task, message)
    assert by_poll.url == f"https://kfp.example.org/#/runs/details/{submission().id}"
    assert [_ends(update) for update in by_poll.earlier] == [["failed"]] * (attempt - 1)


def _without_times(update: RunUpdate) -> RunUpdate:
    history = tuple(replace(change, time=update.history[0].time) for change in update.history)
    history = tuple(replace(change, time=type(change.time).min) for change in history)
    earlier = tuple(_without_times(each) for each in update.earlier)
    return replace(update, history=history, earlier=earlier, start_time=None, end_time=None, tasks=())


def _ends(update: RunUpdate) -> list[str]:
    return [change.state.value for change in update.history if change.state.final]


@BOTH
async def test_a_watch_that_begins_anew_tells_what_is_active_and_what_ended_meanwhile(watch: str) -> None:
    async with KfpApi() as kfp, quick(kfp, watch) as provider:
        kfp.outcome(Outcome(by_hand=True))
        ended, active = submission(uid="a"), submission(uid="b")
        async with watching(provider) as told:
            for what in (ended, active):
                await provider.submit_run(what)
                await until(lambda what=what: told.of(what.id), 10, "it is told")
        kfp.finish(ended.id)
        async with watching(provider) as told:
            await until(lambda: told.states(ended.id) == ["succeeded"] and told.of(active.id), 10, "both are told")


async def test_a_new_process_is_told_of_the_active_runs() -> None:
    async with KfpApi() as kfp:
        kfp.outcome(Outcome(by_hand=True))
        async with quick(kfp, "Poll") as first:
            await first.submit_run(what := submission())
        async with quick(kfp, "Poll") as second, watching(second) as told:
            await until(lambda: told.of(what.id), 10, "it is told")


async def test_a_run_that_was_retried_and_ended_while_nobody_looked_is_told_with_all_its_attempts() -> None:
    clock = FakeClock()
    async with KfpApi(Options(seconds=5), now=clock.now) as kfp:
        kfp.outcome(Outcome(seconds=5, fails_in="act", then=Outcome(seconds=5)))
        async with provider_of(kfp, clock=clock) as first:
            await first.submit_run(what := submission())
            clock.passed += 60
            await first._client.post(f"/runs/{what.id}:retry", what="retry")
            clock.passed += 60
        left_at = clock.now()
        clock.passed += 4 * 3600
        async with provider_of(kfp, clock=clock, looked_until=left_at - timedelta(minutes=3)) as second:
            update = await asyncio.wait_for(anext(u async for u in second.watch_runs()), 10)
            assert (update.submission_id, update.attempt, update.state) == (what.id, 2, RunState.SUCCEEDED)
            assert [(each.attempt, each.state) for each in update.earlier] == [(1, RunState.FAILED)]


@BOTH
async def test_a_run_that_is_deleted_at_the_server_is_told_as_gone(watch: str) -> None:
    async with KfpApi() as kfp, quick(kfp, watch) as provider, watching(provider) as told:
        kfp.outcome(Outcome(by_hand=True))
        await provider.submit_run(what := submission())
        await until(lambda: told.of(what.id), 10, "it is told")
        await provider._client.delete(f"/runs/{what.id}", what="delete")
        await until(lambda: told.of(what.id)[-1].gone, 10, "it is gone")
        assert await provider.get_run(what.id) is None


async def test_runs_of_other_providers_and_clones_of_ours_are_not_told() -> None:
    async with KfpApi() as kfp, quick(kfp, "Poll") as provider:
        kfp.outcome(Outcome(by_hand=True))
        async with provider_of(kfp, name="kfp-2") as another:
            await another.submit_run(submission(uid="another"))
        async with watching(provider) as told:
            await provider.submit_run(what := submission())
            row = kfp.run(what.id)
            clone = replace(row, id="clone", history=list(row.history), tasks={})
            kfp.service.rows.runs["clone"] = clone
            await until(lambda: told.of(what.id), 10, "it is told")
            assert {update.submission_id for update in told.updates} == {what.id}


async def test_workflows_that_may_not_be_watched_are_replaced_by_polling() -> None:
    async with KfpApi(Options(seconds=0.1)) as kfp:
        workflows = SeenWorkflows(kfp, forbidden="no right")
        async with provider_of(kfp, workflows=workflows, pollIntervalSeconds=1, watch="Workflows") as provider:
            with pytest.raises(Permanent, match=r"grant list and watch on workflows\.argoproj\.io there, or set watch: Poll"):
                await provider.check()
            async with watching(provider) as told:
                await provider.submit_run(what := submission())
                await until(lambda: told.states(what.id)[-1:] == ["succeeded"], 10, "its end is told")


async def test_a_watch_of_workflows_that_breaks_loses_nothing() -> None:
    async with KfpApi() as kfp:
        workflows = SeenWorkflows(kfp)
        kfp.outcome(Outcome(by_hand=True))
        async with provider_of(kfp, workflows=workflows, pollIntervalSeconds=1, watch="Workflows") as provider, watching(provider) as told:
            await provider.submit_run(what := submission())
            kfp.start(what.id)
            await until(lambda: "running" in told.states(what.id), 10, "it runs")
            workflows.down = True
            kfp.finish(what.id)
            await until(lambda: told.states(what.id)[-1:] == ["succeeded"], 10, "its end is told")
            workflows.down = False


async def test_what_happened_while_a_watch_of_workflows_was_cut_is_looked_for_when_it_is_back() -> None:
    async with KfpApi() as kfp:
        workflows = SeenWorkflows(kfp)
        kfp.outcome(Outcome(by_hand=True))
        given: dict[str, Any] = {"workflows": workflows, "pollIntervalSeconds": 600, "watch": "Workflows"}
        async with provider_of(kfp, **given) as provider, watching(provider) as told:
            await provider.submit_run(what := submission())
            kfp.start(what.id)
            await until(lambda: "running" in told.states(what.id), 10, "it runs")
            workflows.cut()
            await until(lambda: not workflows._watches, 5, "the watch is cut")
            kfp.finish(what.id)
            await until(lambda: told.states(what.id)[-1:] == ["succeeded"], 10, "its end is told")


async def test_the_server_is_asked_again_until_it_shows_what_its_workflow_does() -> None:
    async with KfpApi(Options(report_delay=1)) as kfp:
        kfp.outcome(Outcome(by_hand=True))
        given: dict[str, Any] = {"workflows": SeenWorkflows(kfp), "pollIntervalSeconds": 600, "watch": "Workflows"}
        async with provider_of(kfp, **given) as provider, watching(provider) as told:
            await provider.submit_run(what := submission())
            await until(lambda: told.of(what.id), 10, "it is told")
            kfp.start(what.id)
            await until(lambda: "running" in told.states(what.id), 15, "it runs")


async def test_the_server_may_be_behind_its_workflow() -> None:
    options = Options(seconds=0.1, report_delay=1.5)
    async with KfpApi(options) as kfp, quick(kfp, "Workflows") as provider, watching(provider) as told:
        await provider.submit_run(what := submission())
        await until(lambda: told.states(what.id)[-1:] == ["succeeded"], 15, "its end is told")


@pytest.mark.parametrize("fault", [{"status": 503}, {"reset": True}, {"truncate": True}, {"status": 401}])
async def test_a_server_that_is_away_breaks_the_watch_with_its_reason(fault: dict[str, Any]) -> None:
    async with KfpApi() as kfp, quick(kfp, "Poll") as provider:
        kfp.fault(method="GET", path="/runs", times=0, **fault)
        async with watching(provider) as told:
            await until(lambda: told.error is not None, 10, "the watch breaks")
        assert isinstance(told.error, Retryable)
        assert kfp.url in str(told.error)


# Cost


def finished(kfp: KfpApi, count: int, *, ours: bool = True) -> None:
    """Runs that ended a day ago and before."""
    for number in range(count):
        end = kfp.service.rows.now() - timedelta(days=1, seconds=number)
        run_id = f"old-{number}"
        description = str(Mark("mlops/kfp", run_id, f"team-a/old-{number}", f"uid-{number}", 1)) if ours else ""
        kfp.service.rows.runs[run_id] = Run(
            id=run_id,
            name=f"old {number}",
            created=end,
            experiment="",
            namespace="kubeflow",
            state="SUCCEEDED",
            history=[Change("SUCCEEDED", end)],
            description=description,
            finished=end,
        )


@pytest.mark.parametrize("known", [0, 10_000])
@BOTH
async def test_an_hour_with_ten_active_runs_costs_the_same_whatever_has_finished(watch: str, known: int) -> None:
    clock = FakeClock()
    async with KfpApi(now=clock.now) as kfp:
        finished(kfp, known)
        kfp.outcome(Outcome(by_hand=True))
        given: dict[str, Any] = {"watch": watch, "pollIntervalSeconds": 60, "requestsPerSecond": 1000}
        async with provider_of(kfp, clock=clock, workflows=SeenWorkflows(kfp), **given) as provider:
            await provider.check()
            for number in range(10):
                await provider.submit_run(submission(uid=f"active-{number}"))
            kfp.requests.clear()
            clock.end = clock.passed + 3600
            async with watching(provider) as told:
                await until(lambda: clock.passed >= clock.end, 120, "an hour has passed")
            assert told.error is None
            assert {update.submission_id for update in told.updates} == {submission(uid=f"active-{number}").id for number in range(10)}
            asked = sum(kfp.requests.values())
            # a sweep every interval, or every sixth where Workflows tell; every sixth a look at what ended lately; one at each run
            assert asked <= {"Poll": 60 + 10, "Workflows": 10 + 10}[watch] + 15


async def test_with_nothing_active_hardly_anything_is_asked() -> None:
    clock = FakeClock(end=3600)
    async with KfpApi(now=clock.now) as kfp, provider_of(kfp, clock=clock, watch="Poll") as provider:
        async with watching(provider):
            await until(lambda: clock.passed >= clock.end, 120, "an hour has passed")
        assert sum(kfp.requests.values()) <= 2 * 60 + 5
