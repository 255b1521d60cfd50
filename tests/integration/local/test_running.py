"""One run from submission to its end, in every way it can end."""

import asyncio
import json
from pathlib import Path

import pytest
import yaml

from kfp_operator.api.states import RunState
from kfp_operator.errors import InvalidSpec, Permanent, Retryable
from kfp_operator.providers.local.driver import MARK
from tests.integration.local.conftest import Open
from tests.integration.local.harness import Pipelines, marked, submission, watching


async def test_a_run_succeeds_step_by_step_and_leaves_its_artifacts(
    open_provider: Open, pipelines: Pipelines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/secret")
    monkeypatch.setenv("KFPOP_NATS__USER", "operator")
    provider = open_provider(environment={"CITY": "Ny-Ålesund"})
    await provider.check()
    job = submission(pipelines, "good", rows=7)
    async with watching(provider) as watch:
        assert await provider.submit_run(job) == job.id
        update = await watch.until(job.id)
        assert (update.state, update.message, update.failed_task) == (RunState.SUCCEEDED, "", "")
        assert [change.state.value for change in update.history] == ["queued", "running", "succeeded"]
        assert watch.states(job.id) == ["queued", "running", "succeeded"]
    assert [(task.name, task.state.value) for task in update.tasks] == [
        ("load", "succeeded"),
        ("train", "succeeded"),
        ("push", "succeeded"),
    ]
    train = update.tasks[1]
    assert (update.training_start, update.training_end) == (train.start_time, train.end_time)
    times = [update.history[0].time, update.start_time, train.start_time, train.end_time, update.end_time]
    assert times == sorted(time for time in times if time is not None)

    folder = tmp_path / "state" / "runs" / job.id
    artifacts = {(artifact.component, artifact.name): artifact for artifact in await provider.artifacts(job.id)}
    assert {key: artifact.type for key, artifact in artifacts.items()} == {
        ("load", "data"): "system.Dataset",
        ("train", "model"): "system.Model",
        ("push", "model"): "system.Model",
    }
    assert artifacts["load", "data"].metadata == {"rows": 7}
    assert artifacts["train", "model"].metadata == {"accuracy": 0.97, "serving": True, "nested": {"classes": ["a", "b"]}}
    model = Path(artifacts["train", "model"].uri)
    assert model.is_relative_to(folder)

    seen = json.loads(await asyncio.to_thread(model.read_text))
    assert seen["stdin"] == ""
    assert seen["folder"] == seen["environment"]["HOME"] == str(folder / "work")
    assert seen["environment"]["CITY"] == "Ny-Ålesund"
    assert seen["environment"][MARK] == str(folder)
    assert not [name for name in seen["environment"] if name.startswith("KFPOP") or name == "KUBECONFIG"]
    assert yaml.safe_load((folder / "pipeline.yaml").read_text())["pipelineInfo"]["name"] == "good"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", "step fail: ValueError: column 'kind' is not in the data"),
        ("exit", "step fail: it exited with code 3"),
        ("kill", "step fail: it was killed by signal SIGKILL (out of memory?): Killed"),
        ("import", "step fail: ModuleNotFoundError: No module named 'no_such_module' (packages: preinstalled installs nothing"),
    ],
)  # fmt: skip
async def test_a_step_that_fails_is_told_with_its_last_words(open_provider: Open, pipelines: Pipelines, how: str, message: str) -> None:
    provider = open_provider()
    job = submission(pipelines, "failing", how=how)
    async with watching(provider) as watch:
        await provider.submit_run(job)
        update = await watch.until(job.id)
    assert (update.state, update.failed_task) == (RunState.FAILED, "fail")
    assert update.message.startswith(message)
    assert [artifact.component for artifact in await provider.artifacts(job.id)] == ["load"]
    assert "about to fail" in [line async for line in provider.logs(job.id)]


async def test_loops_conditions_nesting_retries_and_exit_handlers_are_followed(
    open_provider: Open, pipelines: Pipelines, tmp_path: Path
) -> None:
    provider = open_provider()
    job = submission(pipelines, "shapes", file=str(tmp_path / "marks"))
    async with watching(provider) as watch:
        await provider.submit_run(job)
        update = await watch.until(job.id)
    assert (update.state, update.message) == (RunState.SUCCEEDED, "")
    assert {task.state for task in update.tasks} == {RunState.SUCCEEDED}
    names = {task.name.removeprefix("exit-handler-1/") for task in update.tasks}
    assert {"flaky", "inner/item", "inner-2/item", "count"} <= names
    assert len([name for name in names if "-iteration-" in name]) == 2
    found = [(artifact.component, artifact.metadata["n"]) for artifact in await provider.artifacts(job.id)]
    assert sorted(found) == [("item", 1), ("item", 2), ("item", 5), ("item", 7), ("item-2", 6)]


async def test_a_failure_in_a_loop_is_told_with_its_iteration_though_the_exit_handler_ran_after_it(
    open_provider: Open, pipelines: Pipelines, tmp_path: Path
) -> None:
    provider = open_provider()
    job = submission(pipelines, "failing_inside", file=str(tmp_path / "marks"))
    async with watching(provider) as watch:
        await provider.submit_run(job)
        update = await watch.until(job.id)
    assert update.state is RunState.FAILED
    assert update.failed_task.endswith("-iteration-0/fail")
    assert "ValueError: column 'kind'" in update.message
    assert (tmp_path / "marks").read_text() == "ran\n"


async def test_a_parameter_of_a_wrong_kind_fails_the_run_with_kfps_own_words(open_provider: Open, pipelines: Pipelines) -> None:
    provider = open_provider()
    job = submission(pipelines, "good", rows="many")
    async with watching(provider) as watch:
        await provider.submit_run(job)
        update = await watch.until(job.id)
    assert update.state is RunState.FAILED
    assert "rows" in update.message or "many" in update.message


async def test_a_location_outside_the_runs_folders_is_not_reported(open_provider: Open, pipelines: Pipelines) -> None:
    provider = open_provider()
    job = submission(pipelines, "outside")
    async with watching(provider) as watch:
        await provider.submit_run(job)
        assert (await watch.until(job.id)).state is RunState.SUCCEEDED
    assert [artifact.name for artifact in await provider.artifacts(job.id)] == ["kept"]


async def test_outputs_go_to_the_pipeline_root_of_the_provider(open_provider: Open, pipelines: Pipelines, tmp_path: Path) -> None:
    provider = open_provider(root=f"file://{tmp_path}/outputs")
    job = submission(pipelines, "outside")
    async with watching(provider) as watch:
        await provider.submit_run(job)
        await watch.until(job.id)
    assert [Path(artifact.uri).is_relative_to(tmp_path / "outputs" / job.id) for artifact in await provider.artifacts(job.id)] == [True]


@pytest.mark.parametrize("root", ["gs://bucket/path", "bucket/path", "s3://bucket"])
def test_a_pipeline_root_that_is_no_local_folder_is_refused(open_provider: Open, root: str) -> None:
    with pytest.raises(InvalidSpec, match=f"folder of this machine .*not to {root}"):
        open_provider(root=root)


async def test_a_run_that_hangs_is_stopped_with_all_its_processes(open_provider: Open, pipelines: Pipelines, tmp_path: Path) -> None:
    provider = open_provider()
    job = submission(pipelines, "unstoppable", file=str(tmp_path / "ready"))
    folder = tmp_path / "state" / "runs" / job.id
    async with watching(provider) as watch:
        await provider.submit_run(job)
        await watch.until_step(job.id, "stubborn")
        await _exists(tmp_path / "ready")
        assert len(marked(folder)) >= 5
        await provider.cancel_run(job.id)
        update = await watch.until(job.id)
        assert [change.state.value for change in update.history] == ["queued", "running", "stopping", "stopped"]
        assert "stopping" in watch.states(job.id)
    assert [task.state for task in update.tasks] == [RunState.STOPPED]
    assert marked(folder) == []


async def test_what_a_step_leaves_behind_ends_with_the_run(open_provider: Open, pipelines: Pipelines, tmp_path: Path) -> None:
    provider = open_provider()
    job = submission(pipelines, "daemon")
    async with watching(provider) as watch:
        await provider.submit_run(job)
        assert (await watch.until(job.id)).state is RunState.SUCCEEDED
    assert marked(tmp_path / "state" / "runs" / job.id) == []


async def test_a_cancel_that_comes_too_late_changes_nothing(open_provider: Open, pipelines: Pipelines) -> None:
    provider = open_provider()
    job = submission(pipelines, "outside")
    async with watching(provider) as watch:
        await provider.submit_run(job)
        update = await watch.until(job.id)
        await provider.cancel_run(job.id)
    assert await provider.get_run(job.id) == update


@pytest.mark.parametrize("line", ["0123456789" * 10 + "\n", "x" * 100])
async def test_a_run_that_prints_without_end_fills_its_share_of_the_disk_only(
    open_provider: Open, pipelines: Pipelines, tmp_path: Path, line: str
) -> None:
    cap = 1_000_000
    provider = open_provider(max_log_bytes=cap)
    job = submission(pipelines, "talking", lines=500_000, line=line)
    async with watching(provider) as watch:
        await provider.submit_run(job)
        assert (await watch.until(job.id)).state is RunState.SUCCEEDED
    assert cap * 0.8 < sum(path.stat().st_size for path in (tmp_path / "state" / "runs" / job.id / "log").iterdir()) <= cap
    lines = [text async for text in provider.logs(job.id)]
    assert "first words" in lines
    assert any(text.endswith("bytes of log were not kept ...]") for text in lines)
    assert lines.index("last words") > lines.index(next(text for text in lines if "not kept" in text))


async def test_the_log_can_be_followed_while_the_run_goes_on(open_provider: Open, pipelines: Pipelines, tmp_path: Path) -> None:
    provider = open_provider()
    gate = tmp_path / "gate"
    job = submission(pipelines, "counted", file=str(tmp_path / "marks"), gate_file=str(gate))
    await provider.submit_run(job)
    lines = []
    async with asyncio.timeout(30):
        async for line in provider.logs(job.id, follow=True):
            lines.append(line)
            if line == "at the gate":
                update = await provider.get_run(job.id)
                assert update is not None
                assert not update.state.final
                gate.touch()
    assert "through the gate" in lines
    assert not [line for line in lines if "\x1b" in line]


async def test_an_interpreter_without_kfp_is_told_with_the_remedy(open_provider: Open, tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(Permanent, match=r"has no kfp.*pip install 'kfp-operator\[local\]'"):
        await open_provider(python=str(tmp_path / "python")).check()


async def test_an_interpreter_that_is_not_there_is_told(open_provider: Open, pipelines: Pipelines) -> None:
    provider = open_provider(python="/no/such/python")
    with pytest.raises(Permanent, match=r"spec\.parameters\.python: /no/such/python cannot be executed: No such file"):
        await provider.check()
    job = submission(pipelines, "good")
    async with watching(provider) as watch:
        await provider.submit_run(job)
        update = await watch.until(job.id)
    assert [change.state.value for change in update.history] == ["queued", "failed"]
    assert update.message == "/no/such/python cannot be executed: No such file or directory"


async def test_an_interpreter_that_dies_before_it_starts_the_run_is_told(open_provider: Open, pipelines: Pipelines, tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\necho libpython is missing >&2\nexit 127\n")
    (tmp_path / "python").chmod(0o755)
    provider = open_provider(python=str(tmp_path / "python"))
    job = submission(pipelines, "good")
    async with watching(provider) as watch:
        await provider.submit_run(job)
        update = await watch.until(job.id)
    assert update.message == "the process of the run ended before it could start: libpython is missing"


async def test_a_pipeline_that_cannot_run_here_is_refused_before_it_is_submitted(open_provider: Open, pipelines: Pipelines) -> None:
    provider = open_provider()
    container = json.loads(json.dumps(pipelines["outside"]).replace("kfp.dsl.executor_main", "something else"))
    job = submission({"container": container}, "container")
    with pytest.raises(Permanent, match="task elsewhere is a container component"):
        await provider.ensure_pipeline(job.pipeline)
    with pytest.raises(Permanent, match="task elsewhere is a container component"):
        await provider.submit_run(job)
    assert await provider.get_run(job.id) is None


async def test_a_run_that_is_not_known_here_is_no_run(open_provider: Open) -> None:
    provider = open_provider()
    assert await provider.get_run("unknown") is None
    await provider.cancel_run("unknown")
    with pytest.raises(Permanent, match="knows no run unknown"):
        await provider.artifacts("unknown")
    with pytest.raises(Permanent, match="knows no run unknown"):
        await anext(aiter(provider.logs("unknown")))


async def test_artifacts_are_not_told_before_the_end(open_provider: Open, pipelines: Pipelines, tmp_path: Path) -> None:
    provider = open_provider()
    job = submission(pipelines, "counted", file=str(tmp_path / "marks"), gate_file=str(tmp_path / "gate"))
    await provider.submit_run(job)
    with pytest.raises(Retryable, match="has not ended"):
        await provider.artifacts(job.id)


async def _exists(path: Path) -> None:
    from tests.waiting import eventually_async

    await eventually_async(path.exists, 20, f"{path} exists")
