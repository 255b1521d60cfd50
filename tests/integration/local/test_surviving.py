"""Runs outlive the operator, which finds them again; none is started twice; none is lost."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from kfp_operator.api.states import RunState
from kfp_operator.errors import Retryable
from kfp_operator.providers.local import LocalParameters, LocalProvider, driver
from kfp_operator.providers.local.process import run_environment, spawn
from kfp_operator.providers.protocol import ProviderConfig, Submission, submission_id
from tests.integration.local.conftest import Open
from tests.integration.local.harness import DEADLINE, Pipelines, marked, submission, watching
from tests.waiting import eventually_async


def killed_at(point: str, tmp_path: Path, pipelines: Pipelines, marks: Sequence[str] = ("marks",)) -> list[str]:
    """Ids of the runs that an operator submitted before it was killed at `point`."""
    ir = tmp_path / "ir.yaml"
    ir.write_text(yaml.safe_dump(dict(pipelines["counted"])))
    command = [sys.executable, "-m", "tests.integration.local.victim", tmp_path / "state", ir, point, tmp_path / "gate"]
    code = subprocess.run([*command, *(tmp_path / name for name in marks)], timeout=DEADLINE, check=False).returncode
    assert code == -signal.SIGKILL
    return [submission_id(f"uid-{number}", 1) for number in range(1, len(marks) + 1)]


def job(tmp_path: Path, pipelines: Pipelines, number: int = 1, marks: str = "marks") -> Submission:
    """A run that notes its start in `marks` and waits for the file `gate`."""
    return submission(pipelines, "counted", number, file=str(tmp_path / marks), gate_file=str(tmp_path / "gate"))


def wait_for_child(pid: int) -> None:
    with suppress(ChildProcessError):  # the one that got the run is reaped by the provider
        os.waitpid(pid, 0)


def pid_of(folder: Path) -> int:
    pid: int = json.loads((folder / driver.CLAIM).read_text())["process"]["pid"]
    return pid


@pytest.mark.parametrize("point", ["prepare", "visible", "spawn", "spawned", "running"])
async def test_an_operator_killed_at_any_point_of_a_start_leaves_a_run_that_runs_once(
    open_provider: Open, pipelines: Pipelines, tmp_path: Path, point: str
) -> None:
    [run] = await asyncio.to_thread(killed_at, point, tmp_path, pipelines)
    (tmp_path / "gate").touch()
    provider = open_provider(slots=1)
    async with watching(provider) as watch:
        if point == "prepare":
            assert await provider.get_run(run) is None
        await provider.submit_run(job(tmp_path, pipelines))  # as the operator does when it does not know better
        update = await watch.until(run)
    assert (update.state, update.message) == (RunState.SUCCEEDED, "")
    assert [change.state.value for change in update.history] == ["queued", "running", "succeeded"]
    assert (tmp_path / "marks").read_text() == "ran\n"


async def test_a_submission_that_is_given_up_half_way_can_be_repeated(open_provider: Open, pipelines: Pipelines, tmp_path: Path) -> None:
    (tmp_path / "gate").touch()
    run = job(tmp_path, pipelines)
    parameters = LocalParameters()
    attempts: list[asyncio.Task[str]] = []

    def give_up(point: str) -> None:
        if point == "prepare" and len(attempts) == 1:
            attempts[0].cancel()

    provider = LocalProvider(ProviderConfig("team", "laptop", parameters, state_dir=tmp_path / "state"), parameters, faults=give_up)
    attempts.append(asyncio.create_task(provider.submit_run(run)))
    with pytest.raises(asyncio.CancelledError):
        await attempts[0]
    attempts.append(asyncio.create_task(provider.submit_run(run)))
    async with watching(provider) as watch:
        assert (await watch.until(run.id)).state is RunState.SUCCEEDED
    await provider.close()
    assert (tmp_path / "marks").read_text() == "ran\n"


async def test_one_broken_folder_does_not_keep_the_others_from_being_looked_at(
    open_provider: Open, pipelines: Pipelines, tmp_path: Path
) -> None:
    broken, whole = job(tmp_path, pipelines, 1, "a"), job(tmp_path, pipelines, 2, "b")
    provider = open_provider(slots=2)
    async with watching(provider) as watch:
        await provider.submit_run(broken)
        await provider.submit_run(whole)
        await watch.until_step(broken.id, "gate")
        await watch.until_step(whole.id, "gate")
    submission_file = tmp_path / "state" / "runs" / broken.id / driver.SUBMISSION
    text = submission_file.read_text()
    submission_file.write_text("{")
    watch_of_all = aiter(provider.watch_runs())
    (tmp_path / "gate").touch()
    with pytest.raises(Retryable, match="cannot look after its runs"):
        async for _ in watch_of_all:
            pass
    submission_file.write_text(text)
    async with watching(provider) as watch:
        assert (await watch.until(whole.id)).state is RunState.SUCCEEDED
        assert (await watch.until(broken.id)).state is RunState.SUCCEEDED


async def test_a_run_that_lives_is_adopted_and_can_be_followed_and_stopped(
    open_provider: Open, pipelines: Pipelines, tmp_path: Path
) -> None:
    [run] = await asyncio.to_thread(killed_at, "running", tmp_path, pipelines)
    folder = tmp_path / "state" / "runs" / run
    pid = pid_of(folder)
    provider = open_provider()
    async with watching(provider) as watch:
        update = await watch.until_step(run, "gate")
        assert update.state is RunState.RUNNING
        assert pid in marked(folder)
        await provider.cancel_run(run)
        update = await watch.until(run)
    assert [change.state.value for change in update.history] == ["queued", "running", "stopping", "stopped"]
    assert marked(folder) == []


async def test_a_run_that_ended_while_no_one_watched_is_told_when_someone_does(
    open_provider: Open, pipelines: Pipelines, tmp_path: Path
) -> None:
    [run] = await asyncio.to_thread(killed_at, "running", tmp_path, pipelines)
    (tmp_path / "gate").touch()
    await eventually_async((tmp_path / "state" / "runs" / run / driver.RESULT).exists, DEADLINE, "the run is over")
    provider = open_provider()
    async with watching(provider) as watch:
        update = await watch.until(run)
        assert update == await provider.get_run(run)
        assert watch.seen[run] == [update]
    assert update.state is RunState.SUCCEEDED
    assert [artifact async for artifact in provider.logs(run)][-1].endswith("finished with status SUCCESS")


async def test_an_operator_killed_between_its_note_and_the_signal_of_a_cancel_leaves_a_run_that_stops(
    open_provider: Open, pipelines: Pipelines, tmp_path: Path
) -> None:
    [run] = await asyncio.to_thread(killed_at, "cancel", tmp_path, pipelines)
    result = tmp_path / "state" / "runs" / run / driver.RESULT
    await eventually_async(result.exists, DEADLINE, "the driver stopped the run by itself")
    update = await open_provider().get_run(run)
    assert update is not None
    assert [change.state.value for change in update.history] == ["queued", "running", "stopping", "stopped"]


async def test_the_queue_is_kept_in_order_over_a_kill(open_provider: Open, pipelines: Pipelines, tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    runs = await asyncio.to_thread(killed_at, "running", tmp_path, pipelines, names)
    provider = open_provider(slots=1)
    async with watching(provider) as watch:
        await watch.until_step(runs[0], "gate")
        for run in runs[1:]:
            waiting = await provider.get_run(run)
            assert waiting is not None
            assert (waiting.state, waiting.message) == (
                RunState.QUEUED,
                "waits for one of 1 slots (spec.maxActiveRuns of Provider team/laptop)",
            )
        await provider.cancel_run(runs[2])
        update = await watch.until(runs[2])
        assert [change.state.value for change in update.history] == ["queued", "stopped"]
        (tmp_path / "gate").touch()
        ends = [await watch.until(run) for run in (runs[0], runs[1], runs[3])]
    times = [(update.start_time, update.end_time) for update in ends]
    flat = [moment for pair in times for moment in pair if moment is not None]
    assert flat == sorted(flat), "one after the other, in order of submission"
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("away", [False, True], ids=["seen", "while the operator was away"])
async def test_a_run_whose_process_vanished_fails_and_what_it_left_is_killed(
    open_provider: Open, pipelines: Pipelines, tmp_path: Path, away: bool
) -> None:
    run = job(tmp_path, pipelines)
    folder = tmp_path / "state" / "runs" / run.id
    provider = open_provider()
    async with watching(provider) as watch:
        await provider.submit_run(run)
        await watch.until_step(run.id, "gate")
    if away:
        await provider.close()
    os.kill(pid_of(folder), signal.SIGKILL)
    if away:
        provider = open_provider()
    async with watching(provider) as watch:
        update = await watch.until(run.id)
    assert (update.state, update.failed_task) == (RunState.FAILED, "gate")
    assert f"process {pid_of(folder)} on" in update.message
    assert "vanished without a result" in update.message
    await eventually_async(lambda: not marked(folder), 20, "nothing of the run is left")


async def test_a_run_that_vanished_after_it_was_cancelled_was_stopped(open_provider: Open, pipelines: Pipelines, tmp_path: Path) -> None:
    run = job(tmp_path, pipelines)
    provider = open_provider(termination_grace_period_seconds=60)
    async with watching(provider) as watch:
        await provider.submit_run(run)
        await watch.until_step(run.id, "gate")
        os.kill(pid_of(tmp_path / "state" / "runs" / run.id), signal.SIGSTOP)
        await provider.cancel_run(run.id)
        await watch.until(run.id, RunState.STOPPING)
        os.kill(pid_of(tmp_path / "state" / "runs" / run.id), signal.SIGKILL)
        update = await watch.until(run.id)
    assert update.state is RunState.STOPPED


async def test_a_driver_that_does_not_stop_is_killed_in_the_end(open_provider: Open, pipelines: Pipelines, tmp_path: Path) -> None:
    run = job(tmp_path, pipelines)
    folder = tmp_path / "state" / "runs" / run.id
    provider = open_provider(termination_grace_period_seconds=0)
    async with watching(provider) as watch:
        await provider.submit_run(run)
        await watch.until_step(run.id, "gate")
        os.kill(pid_of(folder), signal.SIGSTOP)
        await provider.cancel_run(run.id)
        update = await watch.until(run.id)
    assert update.state is RunState.STOPPED
    await eventually_async(lambda: not marked(folder), 20, "nothing of the run is left")


async def test_a_run_that_something_else_terminates_says_so(open_provider: Open, pipelines: Pipelines, tmp_path: Path) -> None:
    run = job(tmp_path, pipelines)
    provider = open_provider()
    async with watching(provider) as watch:
        await provider.submit_run(run)
        await watch.until_step(run.id, "gate")
        os.kill(pid_of(tmp_path / "state" / "runs" / run.id), signal.SIGTERM)
        update = await watch.until(run.id)
    assert update.state is RunState.FAILED
    assert "terminated (SIGTERM) by something other than the operator" in update.message


async def test_of_many_drivers_started_for_one_run_one_runs_it(open_provider: Open, pipelines: Pipelines, tmp_path: Path) -> None:
    (tmp_path / "gate").touch()
    run = job(tmp_path, pipelines)
    folder = tmp_path / "state" / "runs" / run.id
    provider = open_provider()
    async with watching(provider) as watch:
        await provider.submit_run(run)
        environment = run_environment(folder, sys.executable, {}, os.environ, tmp_path)
        others = [spawn(folder, sys.executable, environment) for _ in range(5)]
        update = await watch.until(run.id)
        for pid in others:
            await asyncio.to_thread(wait_for_child, pid)
    assert update.state is RunState.SUCCEEDED
    late = spawn(folder, sys.executable, environment)
    await asyncio.to_thread(wait_for_child, late)
    assert await provider.get_run(run.id) == update
    assert (tmp_path / "marks").read_text() == "ran\n"


async def test_a_driver_of_another_host_is_watched_by_its_lock_and_stopped_by_a_file_and_its_pid_here_is_left_alone(
    open_provider: Open, pipelines: Pipelines, tmp_path: Path
) -> None:
    [run] = await asyncio.to_thread(killed_at, "running", tmp_path, pipelines)
    claim = tmp_path / "state" / "runs" / run / driver.CLAIM
    innocent = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        document = json.loads(claim.read_text())
        document["process"] |= {"host": "elsewhere", "pid": innocent.pid}
        claim.write_text(json.dumps(document))
        provider = open_provider()
        async with watching(provider) as watch:
            await watch.until_step(run, "gate")
            await provider.cancel_run(run)
            assert (await watch.until(run)).state is RunState.STOPPED
    finally:
        innocent.kill()
    assert await innocent.wait() == -signal.SIGKILL, "nobody else ended it"


async def test_a_pid_that_is_another_process_by_now_does_not_pass_for_the_run(
    open_provider: Open, pipelines: Pipelines, tmp_path: Path
) -> None:
    run = job(tmp_path, pipelines)
    folder = tmp_path / "state" / "runs" / run.id
    provider = open_provider()
    async with watching(provider) as watch:
        await provider.submit_run(run)
        await watch.until_step(run.id, "gate")
    await provider.close()
    os.kill(pid_of(folder), signal.SIGKILL)
    document = json.loads((folder / driver.CLAIM).read_text())
    document["process"]["pid"] = os.getpid()
    (folder / driver.CLAIM).write_text(json.dumps(document))
    async with watching(open_provider()) as watch:
        assert "vanished" in (await watch.until(run.id)).message


async def test_a_machine_that_was_restarted_is_told(open_provider: Open, pipelines: Pipelines, tmp_path: Path) -> None:
    [run] = await asyncio.to_thread(killed_at, "running", tmp_path, pipelines)
    folder = tmp_path / "state" / "runs" / run
    os.kill(pid_of(folder), signal.SIGKILL)
    document = json.loads((folder / driver.CLAIM).read_text())
    document["process"]["boot"] = "00000000-0000-0000-0000-000000000000"
    (folder / driver.CLAIM).write_text(json.dumps(document))
    async with watching(open_provider()) as watch:
        update = await watch.until(run)
    assert update.message == f"the machine {document['process']['host']} was restarted while the run was on its way"


async def test_two_operators_do_not_share_a_state_folder(open_provider: Open, pipelines: Pipelines, tmp_path: Path) -> None:
    first, second = open_provider(), open_provider()
    await first.check()
    with pytest.raises(Retryable, match=rf"in use by process {os.getpid()} on .*another stateDir") as caught:
        await second.check()
    assert caught.value.reason == "StateDirInUse"
    with pytest.raises(Retryable):
        await second.submit_run(job(tmp_path, pipelines))
    await first.close()
    await second.check()
    with pytest.raises(Retryable, match="is closed"):
        await first.check()


async def test_what_a_kill_left_half_written_is_removed(open_provider: Open, tmp_path: Path) -> None:
    half = tmp_path / "state" / "runs" / ".new-x-1"
    half.mkdir(parents=True)
    (half / "pipeline.yaml").touch()
    provider = open_provider()
    await provider.check()
    assert not half.exists()


async def test_a_state_folder_that_cannot_be_written_is_told_and_tried_again(open_provider: Open, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, not a folder")
    provider = open_provider()
    with pytest.raises(Retryable, match="cannot use its state folder"):
        await provider.check()
    (tmp_path / "state").unlink()
    await provider.check()


async def test_a_watch_ends_with_its_provider(open_provider: Open) -> None:
    provider = open_provider()
    watch = aiter(provider.watch_runs())
    waiting = asyncio.ensure_future(anext(watch))
    await provider.check()
    await provider.close()
    with pytest.raises(StopAsyncIteration):
        await waiting
