import fcntl
import json
import os
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kfp_operator.api.states import RunState
from kfp_operator.errors import Permanent
from kfp_operator.providers.local import driver
from kfp_operator.providers.local.driver import Identity
from kfp_operator.providers.local.folder import Options, RunFolder
from kfp_operator.providers.local.rewrite import Resolved, Step
from kfp_operator.providers.protocol import PipelineVersion, Submission

STEPS = {"load": Step("load", {"data": "system.Dataset"}), "train": Step("train", {"model": "system.Model"}, trains=True)}
QUEUED, RUNNING, STOPPING = RunState.QUEUED, RunState.RUNNING, RunState.STOPPING


def submit(runs: Path, **parameters: Any) -> RunFolder:
    """A new run's folder."""
    version = PipelineVersion("team", "penguin", "abc123", {})
    submission = Submission("run-1", "team", "train-1", "uid", 2, version, parameters)
    options = Options(
        python="/usr/bin/python3", packages="preinstalled", grace=1, max_log_bytes=8192, environment={}, root=str(runs / "root")
    )
    folder = RunFolder.of(runs, "run-1")
    assert folder.appear(folder.prepare(submission, Resolved({"root": {"text": "Grüße 🐧\x7f"}}, STEPS), options, order=7))
    return folder


def claim(folder: RunFolder) -> None:
    identity = Identity.of(os.getpid())
    assert identity is not None
    assert driver.create_json(folder.path / driver.CLAIM, {"time": driver.now(), "process": asdict(identity)})


def end(folder: RunFolder, state: str, failed_task: str = "") -> None:
    driver.create_json(folder.path / driver.RESULT, {"state": state, "time": driver.now(), "message": "why", "failed_task": failed_task})


def step(folder: RunFolder, path: str, code: int | None = None) -> None:
    document: dict[str, Any] = {"path": path, "component": path, "root": f"/root/{path}"}
    driver.append_event(folder.path, event="start", **document)
    if code is not None:
        driver.append_event(folder.path, event="end", code=code, message="", **document)


def states(folder: RunFolder) -> list[RunState]:
    return [change.state for change in folder.update("waits").history]


def test_what_was_submitted_is_read_back(tmp_path: Path) -> None:
    submission = submit(tmp_path, size=0.2, names=["ä"]).submission()
    assert submission.parameters == {"size": 0.2, "names": ["ä"]}
    assert (submission.attempt, submission.order, submission.pipeline) == (2, 7, "team/penguin")
    assert submission.steps == STEPS


def test_the_resolved_ir_is_kept_with_the_run(tmp_path: Path) -> None:
    import yaml

    text = (submit(tmp_path).path / driver.PIPELINE).read_text(encoding="ascii")
    assert yaml.safe_load(text) == {"root": {"text": "Grüße 🐧\x7f"}}


def test_a_second_submission_of_the_same_id_changes_nothing(tmp_path: Path) -> None:
    first = submit(tmp_path).submission()
    options = first.options
    submission = Submission("run-1", "team", "other", "uid", 1, PipelineVersion("team", "penguin", "abc123", {}))
    again = RunFolder.of(tmp_path, "run-1")
    assert not again.appear(again.prepare(submission, Resolved({}, {}), options, order=8))
    assert RunFolder.of(tmp_path, "run-1").submission() == first
    assert [path.name for path in tmp_path.iterdir()] == ["run-1"]


@pytest.mark.parametrize("name", ["..", "a/b", "", ".new-x", "a" * 65, "a\0b"])
def test_an_id_cannot_leave_the_folder_of_runs(tmp_path: Path, name: str) -> None:
    with pytest.raises(Permanent):
        RunFolder.of(tmp_path, name)


def test_a_run_waits_until_a_driver_claims_it(tmp_path: Path) -> None:
    folder = submit(tmp_path)
    waiting = folder.update("waits for a slot")
    assert (states(folder), waiting.message, waiting.start_time, waiting.attempt) == ([QUEUED], "waits for a slot", None, 1)
    claim(folder)
    assert states(folder) == [QUEUED, RUNNING]
    assert folder.update("waits for a slot").message == ""


def test_the_history_holds_every_state_with_its_time(tmp_path: Path) -> None:
    folder = submit(tmp_path)
    claim(folder)
    folder.cancel()
    assert states(folder) == [QUEUED, RUNNING, STOPPING]
    end(folder, "stopped")
    update = folder.update("")
    assert states(folder) == [QUEUED, RUNNING, STOPPING, RunState.STOPPED]
    times = [change.time for change in update.history]
    assert times == sorted(times)
    assert (update.start_time, update.end_time) == (times[1], times[3])


def test_a_cancel_that_comes_after_the_end_is_no_part_of_the_history(tmp_path: Path) -> None:
    folder = submit(tmp_path)
    claim(folder)
    end(folder, "succeeded")
    folder.cancel()
    assert states(folder) == [QUEUED, RUNNING, RunState.SUCCEEDED]


def test_a_result_is_written_once(tmp_path: Path) -> None:
    folder = submit(tmp_path)
    claim(folder)
    end(folder, "succeeded")
    folder.end("failed", "vanished")
    assert states(folder)[-1] is RunState.SUCCEEDED


def test_a_run_that_ends_in_the_queue_never_ran(tmp_path: Path) -> None:
    folder = submit(tmp_path)
    folder.cancel()
    assert folder.end_unclaimed("stopped", "stopped before it started")
    update = folder.update("")
    assert (states(folder), update.start_time, update.message) == ([QUEUED, RunState.STOPPED], None, "stopped before it started")


def test_a_run_that_a_driver_claimed_cannot_be_ended_as_if_it_had_not(tmp_path: Path) -> None:
    folder = submit(tmp_path)
    claim(folder)
    assert not folder.end_unclaimed("stopped", "")
    assert folder.result() is None


def test_a_result_that_a_step_scribbled_over_is_a_failure(tmp_path: Path) -> None:
    folder = submit(tmp_path)
    claim(folder)
    (folder.path / driver.RESULT).write_text("{")
    assert folder.update("").message.endswith("result.json cannot be read")
    assert states(folder)[-1] is RunState.FAILED


@pytest.mark.parametrize("name", [driver.CLAIM, driver.CANCEL])
def test_a_claim_or_a_cancel_that_a_step_scribbled_over_still_counts(tmp_path: Path, name: str) -> None:
    folder = submit(tmp_path)
    (folder.path / name).write_text("{")
    assert folder.claim() is not None or folder.cancellation() is not None
    assert not folder.end_unclaimed("failed", "") if name == driver.CLAIM else folder.end_unclaimed("stopped", "")


def test_steps_are_told_with_their_last_try(tmp_path: Path) -> None:
    folder = submit(tmp_path)
    claim(folder)
    step(folder, "load", code=1)
    step(folder, "load", code=0)
    step(folder, "train")
    assert [(task.name, task.state) for task in folder.update("").tasks] == [("load", RunState.SUCCEEDED), ("train", RUNNING)]


def test_a_step_on_its_way_ends_with_its_run(tmp_path: Path) -> None:
    folder = submit(tmp_path)
    claim(folder)
    step(folder, "train")
    end(folder, "stopped")
    assert [task.state for task in folder.update("").tasks] == [RunState.STOPPED]


def test_training_is_the_span_of_the_steps_that_train(tmp_path: Path) -> None:
    folder = submit(tmp_path)
    claim(folder)
    step(folder, "load", code=0)
    assert folder.update("").training_start is None
    step(folder, "train", code=0)
    update = folder.update("")
    assert (update.training_start, update.training_end) == (update.tasks[1].start_time, update.tasks[1].end_time)


def test_lines_that_a_step_wrote_into_the_events_do_no_harm(tmp_path: Path) -> None:
    folder = submit(tmp_path)
    claim(folder)
    with (folder.path / driver.EVENTS).open("a") as file:
        file.write(json.dumps({"event": "start", "path": ["x"]}) + "\n" + json.dumps({"event": "end", "path": "never-began"}) + "\n")
    step(folder, "train", code=0)
    assert [task.name for task in folder.update("").tasks] == ["train"]


def test_the_lock_tells_whether_a_driver_lives(tmp_path: Path) -> None:
    folder = submit(tmp_path)
    assert not folder.held()
    descriptor = os.open(folder.path / driver.LOCK, os.O_RDWR | os.O_CREAT)
    assert not folder.held()
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert folder.held()
    os.close(descriptor)
    assert not folder.held()


def test_old_ends_are_told_from_recent_ones_by_one_look(tmp_path: Path) -> None:
    folder = submit(tmp_path)
    assert folder.ended_after(time.time())
    end(folder, "succeeded")
    os.utime(folder.path / driver.RESULT, (1000, 1000))
    assert not folder.ended_after(2000)
    assert folder.ended()


def test_a_clock_that_was_set_back_does_not_turn_the_history_round(tmp_path: Path) -> None:
    folder = submit(tmp_path)
    early = datetime(2020, 1, 1, tzinfo=UTC).isoformat()
    driver.create_json(folder.path / driver.CLAIM, {"time": early, "process": asdict(Identity("h", "b", 1, "2"))})
    times = [change.time for change in folder.update("").history]
    assert times == sorted(times)
