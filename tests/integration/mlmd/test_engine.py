"""The real ML Metadata of the tests: what is recorded as KFP records it is read by Google's own client."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.mlmd.engine import Mlmd
from tests.doubles.mlmd.environment import environment
from tests.doubles.mlmd.recording import DAG, WrittenArtifact, WrittenExecution, WrittenRun, root

METADATA = {"accuracy": 0.5, "pushed": True, "layers": [1, 2], "config": {"a": 1}, "note": "x"}
MODEL = WrittenArtifact("model", "system.Model", "gs://b/m", METADATA)


@pytest.fixture(scope="module")
def mlmd() -> Iterator[Mlmd]:
    with Mlmd() as started:
        yield started


def test_metadata_is_written_as_the_launcher_does_which_loses_types(mlmd: Mlmd) -> None:
    mlmd.record(WrittenRun("typed", "train", (root(), WrittenExecution("act", (MODEL,)))))
    (found,) = mlmd.read("typed")
    session = found["properties"].pop("store_session_info")
    assert "minio" in session["stringValue"]
    assert found["properties"] == {
        "display_name": {"stringValue": "model"},
        "accuracy": {"doubleValue": 0.5},
        "pushed": {"intValue": "1"},
        "layers": {"structValue": {"list": [1.0, 2.0]}},
        "config": {"structValue": {"struct": {"a": 1.0}}},
        "note": {"stringValue": "x"},
    }
    assert (found["task"], found["state"], found["output"], found["type"], found["uri"]) == (
        "act",
        "COMPLETE",
        "model",
        "system.Model",
        "gs://b/m",
    )


def test_an_execution_is_created_by_the_driver_and_published_by_the_launcher(mlmd: Mlmd) -> None:
    mlmd.record(WrittenRun("published", "train", (root("RUNNING"), WrittenExecution("act", state="RUNNING"))))
    assert not mlmd.read("published")
    mlmd.record(WrittenRun("published", "train", (WrittenExecution("act", (MODEL,)), root())))
    assert [found["state"] for found in mlmd.read("published")] == ["COMPLETE"]


def test_a_cached_task_links_the_artifact_of_an_earlier_run(mlmd: Mlmd) -> None:
    kept = WrittenArtifact("model", "system.Model", "gs://b/kept", key="kept")
    mlmd.record(WrittenRun("first", "train", (root(), WrittenExecution("act", (kept,)))))
    mlmd.record(WrittenRun("second", "train", (root(), WrittenExecution("act", (kept,), state="CACHED"))))
    (first,), (second,) = mlmd.read("first"), mlmd.read("second")
    assert first["artifact"] == second["artifact"]
    assert second["state"] == "CACHED"


def test_loops_and_nested_pipelines_repeat_names(mlmd: Mlmd) -> None:
    loop = WrittenExecution("for-loop", type=DAG, key="loop")
    inner = [WrittenExecution("act", (MODEL,), key=f"act-{n}", parent="loop", iteration=n) for n in range(2)]
    mlmd.record(WrittenRun("nested", "train", (root(), loop, *inner)))
    assert [found["task"] for found in mlmd.read("nested")] == ["act", "act"]


def test_a_run_that_died_early_has_no_context(mlmd: Mlmd) -> None:
    assert not mlmd.read("never-began")


def test_a_child_before_its_parent_is_refused(mlmd: Mlmd) -> None:
    with pytest.raises(ValueError, match="cannot be recorded"):
        mlmd.record(WrittenRun("orphan", "train", (WrittenExecution("act"),)))


def test_the_environment_is_outside_the_repository(mlmd: Mlmd) -> None:
    assert not environment().is_relative_to(Path(__file__).parents[3])
