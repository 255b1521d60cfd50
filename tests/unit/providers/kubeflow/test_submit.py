"""One POST per run, whatever becomes of its answer."""

from typing import Any

import pytest

from kfp_operator.api.states import RunState
from kfp_operator.errors import Permanent, ProviderError, Retryable
from kfp_operator.providers.kubeflow.provider import KubeflowProvider
from kfp_operator.providers.kubeflow.submit import UNKNOWN_AFTER
from kfp_operator.providers.protocol import Submission
from tests.doubles.kfp_api import KfpApi, Options, Outcome
from tests.unit.providers.kubeflow.arrange import FakeClock, SeenWorkflows, provider_of, submission

LOST: dict[str, dict[str, Any]] = {
    "reset": {"reset": True},
    "503": {"status": 503},
    "truncated": {"truncate": True},
}


async def submit(provider: KubeflowProvider, clock: FakeClock, what: Submission, *, limit: float = 2000) -> tuple[str, list[ProviderError]]:
    """Submit again and again, as the operator does, until it is done or refused: the id, or "", and what was told on the way."""
    told: list[ProviderError] = []
    began = clock.passed
    while clock.passed - began < limit:
        try:
            return await provider.submit_run(what), told
        except Retryable as error:
            told.append(error)
            clock.passed += error.after or 10
        except Permanent as error:
            return "", [*told, error]
        what = Submission(**{name: getattr(what, name) for name in what.__slots__} | {"first_try": False})
    raise AssertionError(f"no end within {limit} s: {told[-1]}")


async def test_a_run_is_what_the_submission_says() -> None:
    async with KfpApi() as kfp, provider_of(kfp, serviceAccount="trainer", pipeline_root="gs://bucket/root/") as provider:
        what = submission(parameters={"mode": "succeed", "wait_for": "x"})
        assert await provider.submit_run(what) == what.id
        row = kfp.run(what.id)
        assert row.name == "team-a/train-1"
        assert row.parameters == {"mode": "succeed", "wait_for": "x"}
        assert (row.service_account, row.pipeline_root) == ("trainer", "gs://bucket/root/team-a/train")
        assert "uid-1" in row.description
        version = kfp.service.rows.versions[row.version]
        assert (version.name, version.display_name) == ("team-a.train.49e208", "49e208")
        assert kfp.service.rows.experiments[row.experiment].name == "Default"


async def test_a_run_that_is_there_is_not_posted_again() -> None:
    async with KfpApi() as kfp:
        async with provider_of(kfp) as provider:
            await provider.submit_run(submission())
            await provider.submit_run(submission())
        async with provider_of(kfp) as another:
            await another.submit_run(submission(first_try=False))
        assert kfp.started(submission().id) == 1
        assert kfp.requests["POST", "/runs"] == 1


@pytest.mark.parametrize("lost", LOST)
async def test_a_lost_answer_is_found_again_without_another_post(lost: str) -> None:
    clock = FakeClock()
    async with KfpApi() as kfp, provider_of(kfp, clock=clock) as provider:
        await provider.ensure_pipeline(submission().pipeline)
        kfp.fault(method="POST", path="/runs", effect=True, **LOST[lost])
        found, told = await submit(provider, clock, submission())
        assert found == submission().id
        assert told == []
        assert kfp.requests["POST", "/runs"] == 1
        assert kfp.started(found) == 1


@pytest.mark.parametrize("lost", ["reset", "503"])
async def test_a_post_that_had_no_effect_is_repeated_once_both_look_ups_say_no_for_two_minutes(lost: str) -> None:
    clock = FakeClock()
    async with KfpApi(now=clock.now) as kfp:
        seen = SeenWorkflows(kfp)
        async with provider_of(kfp, clock=clock, workflows=seen, watch="Workflows") as provider:
            kfp.fault(method="POST", path="/runs", **LOST[lost])
            found, told = await submit(provider, clock, submission())
            assert found == submission().id
            assert {error.reason for error in told} == {"SubmissionUnconfirmed"}
            assert "confirmationSeconds" in str(told[1])
            assert 120 <= clock.passed <= 135
            assert seen.lists > 2
            assert (kfp.requests["POST", "/runs"], kfp.started(found)) == (2, 1)


async def test_without_the_right_to_see_workflows_there_is_no_second_post() -> None:
    clock = FakeClock()
    async with KfpApi(now=clock.now) as kfp:
        seen = SeenWorkflows(kfp, forbidden="the operator may not list workflows.argoproj.io")
        async with provider_of(kfp, clock=clock, workflows=seen, watch="Auto") as provider:
            kfp.fault(method="POST", path="/runs", **LOST["reset"])
            found, told = await submit(provider, clock, submission())
    assert found == ""
    assert told[-1].reason == "SubmissionUnknown"
    assert "pipeline/runid=" in str(told[-1])
    assert UNKNOWN_AFTER <= clock.passed <= UNKNOWN_AFTER + 40
    assert kfp.requests["POST", "/runs"] == 1


async def test_a_run_that_appears_late_is_taken_even_without_the_right_to_see_workflows() -> None:
    clock = FakeClock()
    async with KfpApi(now=clock.now) as kfp, provider_of(kfp, clock=clock) as provider:
        kfp.fault(method="POST", path="/runs", effect=True, **LOST["reset"])
        kfp.fault(method="GET", path="/runs/*", after=1, times=20, status=503)
        found, told = await submit(provider, clock, submission())
        assert found == submission().id
        assert len(told) > 5
        assert kfp.requests["POST", "/runs"] == 1


async def test_a_workflow_whose_run_is_not_stored_is_waited_for() -> None:
    clock = FakeClock()
    async with KfpApi(now=clock.now) as kfp:
        seen = SeenWorkflows(kfp)
        async with provider_of(kfp, clock=clock, workflows=seen, watch="Workflows") as provider:
            what = submission()
            kfp.fault(method="POST", path="/runs", effect=True, **LOST["reset"])
            kfp.outcome(Outcome(by_hand=True))
            with pytest.raises(Retryable):
                await _post_and_lose_the_row(provider, kfp, what)
            clock.passed += 60
            with pytest.raises(Retryable, match=r"was started for run .* has not stored"):
                await provider.submit_run(submission(first_try=False))
            found, _ = await submit(provider, clock, submission(first_try=False))
            assert found == what.id
            assert kfp.requests["POST", "/runs"] == 2
            assert [w.run_id for w in kfp.service.argo.workflows.values()] == [what.id]  # the first one was deleted by the server


async def _post_and_lose_the_row(provider: KubeflowProvider, kfp: KfpApi, what: Submission) -> None:
    """The server starts the Workflow and fails to store the run."""
    insert = kfp._runs._insert
    kfp._runs._insert = lambda row: None  # type: ignore[method-assign]
    try:
        await provider.submit_run(what)
    finally:
        kfp._runs._insert = insert  # type: ignore[method-assign]


@pytest.mark.parametrize("visible", [True, False])
async def test_a_new_process_looks_for_two_minutes_before_it_posts_what_another_may_have_posted(visible: bool) -> None:
    clock = FakeClock()
    async with KfpApi(now=clock.now) as kfp:
        workflows = SeenWorkflows(kfp, forbidden="" if visible else "forbidden")
        async with provider_of(kfp, clock=clock, workflows=workflows, watch="Workflows" if visible else "Auto") as provider:
            found, told = await submit(provider, clock, submission(first_try=False))
            assert found == submission().id
            assert "an operator before this one may have submitted it" in str(told[0])
            assert 120 <= clock.passed <= 135
            assert kfp.started(found) == 1


async def test_a_new_process_finds_what_another_posted_without_waiting() -> None:
    async with KfpApi() as kfp:
        async with provider_of(kfp) as first:
            await first.submit_run(submission())
        async with provider_of(kfp, clock=(clock := FakeClock())) as second:
            assert await second.submit_run(submission(first_try=False)) == submission().id
        assert clock.passed == 0


async def test_what_failed_before_anything_was_sent_is_posted_without_waiting() -> None:
    clock = FakeClock()
    async with KfpApi(now=clock.now) as kfp, provider_of(kfp, clock=clock) as provider:
        kfp.fault(method="GET", path="/runs/*", status=503, times=2)
        _, told = await submit(provider, clock, submission())
        assert len(told) == 2
        assert clock.passed <= 20
        assert kfp.requests["POST", "/runs"] == 1


@pytest.mark.parametrize(("status", "reason"), [(401, "Unauthenticated"), (403, "PermissionDenied"), (429, "RateLimited")])
async def test_what_the_server_did_not_let_in_is_posted_again_without_waiting(status: int, reason: str) -> None:
    clock = FakeClock()
    async with KfpApi(now=clock.now) as kfp, provider_of(kfp, clock=clock) as provider:
        await provider.ensure_pipeline(submission().pipeline)
        kfp.fault(method="POST", path="/runs", status=status)
        found, told = await submit(provider, clock, submission())
        assert [error.reason for error in told] == [reason]
        assert found == submission().id
        assert clock.passed <= 10
        assert kfp.started(found) == 1


async def test_a_parameter_that_the_server_refuses_ends_the_run() -> None:
    async with KfpApi() as kfp, provider_of(kfp, clock=FakeClock()) as provider:
        with pytest.raises(Permanent, match="not required by pipeline: zzz"):
            await provider.submit_run(submission(parameters={"mode": "succeed", "zzz": 1}))
        assert kfp.service.rows.runs == {}


async def test_a_mistake_that_the_server_answers_with_500_ends_the_run() -> None:
    spec = dict(submission().pipeline.spec)
    spec["deploymentSpec"] = {"executors": {}}
    async with KfpApi() as kfp, provider_of(kfp, clock=FakeClock()) as provider:
        what = submission(pipeline=type(submission().pipeline)("team-a", "train", "0badbe", spec))
        with pytest.raises(Permanent, match="not found in deployment config") as caught:
            await provider.submit_run(what)
        assert "\n" not in str(caught.value)
        assert kfp.requests["POST", "/runs"] == 1


async def test_posts_that_the_server_keeps_failing_without_starting_anything_end_the_run() -> None:
    clock = FakeClock()
    async with KfpApi(now=clock.now) as kfp, provider_of(kfp, clock=clock, workflows=SeenWorkflows(kfp), watch="Workflows") as provider:
        kfp.fault(method="POST", path="/runs", status=500, times=0)
        found, told = await submit(provider, clock, submission())
    assert found == ""
    assert told[-1].reason == "SubmissionFailed"
    assert kfp.requests["POST", "/runs"] == 3


async def test_a_version_that_somebody_deleted_is_uploaded_again() -> None:
    clock = FakeClock()
    async with KfpApi(now=clock.now) as kfp, provider_of(kfp, clock=clock) as provider:
        await provider.ensure_pipeline(submission().pipeline)
        kfp.service.rows.versions.clear()
        assert await provider.submit_run(submission()) == submission().id
        kfp.service.rows.versions.clear()
        kfp.service.rows.pipelines.clear()
        assert await provider.submit_run(submission(uid="uid-2")) == submission(uid="uid-2").id


async def test_an_experiment_that_somebody_deleted_is_looked_for_again() -> None:
    clock = FakeClock()
    async with KfpApi(now=clock.now) as kfp, provider_of(kfp, clock=clock, experiment="nightly") as provider:
        await provider.submit_run(submission())
        kfp.service.rows.experiments = {e.id: e for e in kfp.service.rows.experiments.values() if e.name != "nightly"}
        found, told = await submit(provider, clock, submission(uid="uid-2"))
        assert [error.reason for error in told] == ["BackendObjectMissing"]
        assert kfp.service.rows.experiments[kfp.run(found).experiment].name == "nightly"


async def test_a_run_with_an_unanswered_post_is_neither_absent_nor_there() -> None:
    clock = FakeClock()
    async with KfpApi(now=clock.now) as kfp, provider_of(kfp, clock=clock) as provider:
        assert await provider.get_run(submission().id) is None
        kfp.fault(method="POST", path="/runs", **LOST["reset"])
        with pytest.raises(Retryable):
            await provider.submit_run(submission())
        with pytest.raises(Retryable, match="may arrive yet"):
            await provider.get_run(submission().id)
        clock.passed += 130
        assert await provider.get_run(submission().id) is None


async def test_names_that_the_server_cannot_store_are_never_sent() -> None:
    long = Submission(**{name: getattr(submission(), name) for name in Submission.__slots__} | {"namespace": "n" * 63, "name": "x" * 253})
    async with KfpApi() as kfp, provider_of(kfp) as provider:
        await provider.submit_run(long)
        assert len(kfp.run(long.id).name) <= 255
        assert kfp.started(long.id) == 1


async def test_runs_beyond_max_active_runs_wait_for_a_slot_without_asking_the_server() -> None:
    clock = FakeClock()
    async with KfpApi(Options(seconds=0), now=clock.now) as kfp:
        kfp.outcome(Outcome(by_hand=True))
        async with provider_of(kfp, clock=clock, max_active_runs=2) as provider:
            await provider.check()
            for uid in ("a", "b"):
                await provider.submit_run(submission(uid=uid))
            before = sum(kfp.requests.values())
            with pytest.raises(Retryable, match=r"waits for one of 2 slots \(spec.maxActiveRuns of Provider mlops/kfp\)"):
                await provider.submit_run(submission(uid="c"))
            assert sum(kfp.requests.values()) == before
            kfp.finish(submission(uid="a").id)
            update = await anext(u async for u in provider.watch_runs() if u.state is RunState.SUCCEEDED)
            assert update.submission_id == submission(uid="a").id
            await provider.submit_run(submission(uid="c"))


async def test_a_new_process_counts_the_runs_that_are_active() -> None:
    clock = FakeClock()
    async with KfpApi(now=clock.now) as kfp:
        kfp.outcome(Outcome(by_hand=True))
        async with provider_of(kfp, clock=clock) as first:
            await first.submit_run(submission(uid="a"))
        async with provider_of(kfp, clock=clock, max_active_runs=1) as second:
            await second.check()
            with pytest.raises(Retryable, match="slots"):
                await second.submit_run(submission(uid="b"))
            await second.submit_run(submission(uid="a", first_try=False))
