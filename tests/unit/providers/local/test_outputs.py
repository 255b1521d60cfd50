import json
from pathlib import Path
from typing import Any

import pytest

from kfp_operator.providers.local import driver
from kfp_operator.providers.local.outputs import artifacts
from kfp_operator.providers.protocol import ComponentArtifact
from tests.unit.providers.local.test_folder import submit


def step(runs: Path, component: str, written: Any, *, code: int = 0) -> None:
    """A step that wrote its outputs."""
    root = runs / "root" / component
    root.mkdir(parents=True)
    (root / "executor_output.json").write_text(written if isinstance(written, str) else json.dumps({"artifacts": written}))
    document = {"path": component, "component": component, "root": str(root)}
    driver.append_event(runs / "run-1", event="start", **document)
    driver.append_event(runs / "run-1", event="end", code=code, message="", **document)


def listed(*uris: str, metadata: Any = None) -> dict[str, Any]:
    return {"artifacts": [{"name": "n", "uri": uri, "metadata": {} if metadata is None else metadata} for uri in uris]}


def test_artifacts_have_the_type_that_the_ir_declares(tmp_path: Path) -> None:
    folder = submit(tmp_path)
    uri = str(tmp_path / "root/train/model")
    step(tmp_path, "train", {"model": listed(uri, metadata={"accuracy": 0.97, "serving": True})})
    assert artifacts(folder) == [ComponentArtifact("train", "model", "system.Model", uri, {"accuracy": 0.97, "serving": True})]


def test_several_artifacts_of_one_output_are_numbered(tmp_path: Path) -> None:
    folder = submit(tmp_path)
    step(tmp_path, "load", {"data": listed(*(str(tmp_path / f"root/load/{n}") for n in range(3)))})
    assert [artifact.index for artifact in artifacts(folder)] == [0, 1, 2]


def test_the_outputs_of_a_failed_step_are_not_reported(tmp_path: Path) -> None:
    folder = submit(tmp_path)
    step(tmp_path, "train", {"model": listed(str(tmp_path / "root/m"))}, code=1)
    assert artifacts(folder) == []


@pytest.mark.parametrize(
    "uri",
    ["/etc/passwd", "gs://bucket/model", "s3://b/m", "relative/model", "{root}/../../../etc", "{root}/link/model", "file:///etc/passwd",
     "file://elsewhere{root}/m", "{root}/%00\0", ""],
)  # fmt: skip
def test_what_lies_elsewhere_is_not_reported(tmp_path: Path, uri: str) -> None:
    folder = submit(tmp_path)
    step(tmp_path, "train", {"model": listed(uri.replace("{root}", str(tmp_path / "root")))})
    (tmp_path / "root/link").symlink_to("/tmp")
    assert artifacts(folder) == []


@pytest.mark.parametrize("uri", ["{root}/train/model", "{root}/a/../b", "file://{root}/train/model", "{run}/work/model"])
def test_what_lies_in_the_runs_own_folders_is_reported_as_it_is(tmp_path: Path, uri: str) -> None:
    folder = submit(tmp_path)
    uri = uri.replace("{root}", str(tmp_path / "root")).replace("{run}", str(folder.path))
    step(tmp_path, "train", {"model": listed(uri)})
    assert [artifact.uri for artifact in artifacts(folder)] == [uri]


@pytest.mark.parametrize(
    "written",
    [
        "",
        "[",
        "[]",
        {"model": []},
        {"model": {"artifacts": {}}},
        {"model": {"artifacts": ["x", {"uri": 7}]}},
        [1],
        {"model": listed("x", metadata=[])},
    ],
)
def test_an_output_file_that_makes_no_sense_does_no_harm(tmp_path: Path, written: Any) -> None:
    folder = submit(tmp_path)
    step(tmp_path, "train", written)
    assert artifacts(folder) == []
