import base64
import gzip
import json
from typing import Any

from kfp_operator.api.states import RunState
from kfp_operator.providers.kubeflow.failures import Diagnosis, diagnose, failed_task, tasks_of
from tests.unit.providers.kubeflow.test_states import at, document, stamp


def row(name: str, state: str, start: float = 0, end: float | None = None) -> dict[str, Any]:
    return {"display_name": name, "state": state, "start_time": stamp(start), "end_time": stamp(end) if end else "0001-01-01T00:00:00Z"}


def step(name: str, state: str, start: float = 0, end: float | None = None) -> list[dict[str, Any]]:
    """The rows of a step: its driver, itself, what it executes."""
    return [row("executor", state, start, end), row(name, state, start, end), row(f"{name}-driver", "SUCCEEDED", start, start)]


def run(*rows: dict[str, Any], state: str = "FAILED") -> dict[str, Any]:
    around = [row("train-x7k2p", state), row("root", state), row("root-driver", "SUCCEEDED")]
    return document((state, 9), finished=9, run_details={"task_details": [*rows, *around]})


def workflow(*nodes: dict[str, Any], message: str = "", compressed: bool = False) -> dict[str, Any]:
    listed = {f"n{index}": node for index, node in enumerate(nodes)}
    packed = base64.b64encode(gzip.compress(json.dumps(listed).encode())).decode()
    return {"status": {"message": message} | ({"compressedNodes": packed} if compressed else {"nodes": listed})}


def pod(name: str, message: str, phase: str = "Failed", finished: float = 9) -> dict[str, Any]:
    shown = name.rpartition(".")[2]
    return {"type": "Pod", "name": name, "displayName": shown, "phase": phase, "message": message, "finishedAt": stamp(finished)}


def test_the_step_that_failed_is_found_among_rows_without_order() -> None:
    assert failed_task(run(*step("prep", "SUCCEEDED", 0, 2), *step("act", "FAILED", 2, 9))) == "act"


def test_of_nested_steps_the_inner_one_is_told() -> None:
    rows = [*step("for-loop-1", "FAILED", 1, 9), *step("inner", "FAILED", 3, 8)]
    assert failed_task(run(*rows)) == "inner"


def test_a_step_that_fails_before_it_begins_is_told_by_its_driver() -> None:
    assert failed_task(run(row("act-driver", "FAILED", 2, 3))) == "act"


def test_without_rows_nothing_is_told() -> None:
    assert failed_task(document(("FAILED", 9))) == ""
    assert failed_task(run()) == ""
    assert diagnose(run(), None) == Diagnosis("", "the run failed")


def test_the_workflow_says_why() -> None:
    failed = run(*step("prep", "SUCCEEDED", 0, 2), *step("act", "FAILED", 2, 9))
    why = workflow(pod("train-x7k2p.root.act.executor", "main: Error (exit code 1)"), pod("train-x7k2p.root.act-driver", "", "Succeeded"))
    assert diagnose(failed, why) == Diagnosis("act", "step act failed: main: Error (exit code 1)")
    assert diagnose(failed, None) == Diagnosis("act", "step act failed")


def test_the_workflow_tells_the_step_that_failed_first() -> None:
    nodes = [pod("w.root.late.executor", "m2", finished=9), pod("w.root.for-loop-1.act(1:b).executor", "m1", finished=8)]
    assert diagnose(run(), workflow(*nodes)) == Diagnosis("act", "step act failed: m1")


def test_a_driver_that_failed_tells_its_step() -> None:
    assert diagnose(run(), workflow(pod("w.root.act-driver", "OOMKilled"))) == Diagnosis("act", "step act failed: OOMKilled")


def test_a_failure_of_argos_own_is_told_without_a_step() -> None:
    assert diagnose(run(), workflow(message="quota exceeded")) == Diagnosis("", "the run failed: quota exceeded")


def test_nodes_that_argo_compressed_are_read() -> None:
    assert diagnose(run(), workflow(pod("w.root.act.executor", "m"), compressed=True)) == Diagnosis("act", "step act failed: m")
    assert diagnose(run(), {"status": {"compressedNodes": "no base64!"}}) == Diagnosis("", "the run failed")


def test_steps_are_told_in_the_order_in_which_they_began() -> None:
    tasks = tasks_of(run(*step("act", "RUNNING", 2), *step("prep", "SUCCEEDED", 0, 2), state="RUNNING"))
    assert [(task.name, task.state, task.start_time, task.end_time) for task in tasks] == [
        ("prep", RunState.SUCCEEDED, at(0), at(2)),
        ("act", RunState.RUNNING, at(2), None),
    ]
