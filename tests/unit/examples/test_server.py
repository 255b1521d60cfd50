"""The example's model server, without NATS: what it does with an event. Models are what joblib wrote, here a Baseline of its own."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import joblib
import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, post
from nats.aio.client import Client
from nats.aio.msg import Msg

PIPELINE = "default/penguin-pipeline"
ROW = {"bill_length_mm": 50, "bill_depth_mm": 15, "flipper_length_mm": 220, "body_mass_g": 5000}


def _import() -> ModuleType:
    path = Path(__file__).parents[3] / "examples" / "serving" / "server.py"
    spec = importlib.util.spec_from_file_location("penguin_server", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["penguin_server"] = module
    spec.loader.exec_module(module)
    return module


server = _import()


class Gentoo:
    """A model."""

    def predict(self, rows: list[list[float]]) -> list[str]:
        return ["Gentoo"] * len(rows)


def completion(location: Path | str, **changes: Any) -> dict[str, Any]:
    """Data of a run-completion."""
    return {
        "status": "succeeded",
        "pipelineName": PIPELINE,
        "runName": "default/penguin-run",
        "runEndTime": "2026-03-01T12:00:00Z",
        "artifacts": [{"name": "serving-model", "location": str(location), "type": "system.Model", "metadata": {"accuracy": 0.97}}],
    } | changes


def message(document: Any, **headers: str) -> Msg:
    """A message as it comes from NATS."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Msg(Client(), subject="events", data=data, headers=headers or None)


def compatible(data: dict[str, Any], kind: str = server.COMPLETION) -> dict[str, Any]:
    """The operator's default on the documented subject: the event, with the members of data repeated at top level."""
    return {"specversion": "1.0", "id": "1", "type": kind, "data": data} | data


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "model"
    path.parent.mkdir()
    joblib.dump(Gentoo(), path)
    return path


@pytest.fixture
def serving(tmp_path: Path) -> Any:
    return server.Server(PIPELINE, "serving-model", tmp_path / "models")


@pytest.mark.parametrize("mode", ["compatible", "structured", "binary"])
async def test_it_loads_the_model_of_a_run_that_succeeded_in_every_content_mode(serving: Any, model: Path, mode: str) -> None:
    data = completion(model)
    messages = {
        "compatible": message(compatible(data)),
        "structured": message({"specversion": "1.0", "type": server.COMPLETION, "data": data}),
        "binary": message(data, **{"ce-type": server.COMPLETION}),
    }
    await serving.on_message(messages[mode])
    assert (serving.serving.name, serving.serving.accuracy) == ("default/penguin-run", 0.97)
    assert serving.serving.classifier.predict([[0.0]]) == ["Gentoo"]


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "failed", "artifacts": []},
        {"pipelineName": "default/another"},
        {"artifacts": []},
    ],
)
async def test_it_keeps_its_model_when_there_is_none_for_it(serving: Any, model: Path, changes: dict[str, Any]) -> None:
    await serving.on_message(message(compatible(completion(model, **changes))))
    assert serving.serving.name == "baseline"


@pytest.mark.parametrize("data", [b"", b"\xff", b"[1]", b'"text"', b"{}", b'{"data": 7}'])
async def test_what_is_no_event_does_no_harm(serving: Any, data: bytes) -> None:
    await serving.on_message(message(data))
    assert (serving.serving.name, serving.events) == ("baseline", 1)


async def test_a_run_status_is_not_a_completion(serving: Any, model: Path) -> None:
    await serving.on_message(message(compatible(completion(model), "org.kubeflow.pipelines.run-status")))
    assert serving.serving.name == "baseline"


async def test_an_older_model_does_not_come_back(serving: Any, model: Path) -> None:
    await serving.on_message(message(compatible(completion(model))))
    await serving.on_message(message(compatible(completion(model, runName="default/older", runEndTime="2026-03-01T11:00:00Z"))))
    assert serving.serving.name == "default/penguin-run"


@pytest.mark.parametrize(
    "location", ["{outside}", "{root}/../outside", "{root}/link", "gs://bucket/model", "{root}/missing", "{root}/text"]
)
async def test_nothing_is_loaded_that_is_not_a_model_below_the_root(serving: Any, model: Path, tmp_path: Path, location: str) -> None:
    outside = tmp_path / "outside"
    joblib.dump(Gentoo(), outside)
    (model.parent / "link").symlink_to(outside)
    (model.parent / "text").write_text("not a pickle")
    location = location.replace("{outside}", str(outside)).replace("{root}", str(model.parent))
    await serving.on_message(message(compatible(completion(location))))
    assert serving.serving.name == "baseline"


async def test_it_predicts_with_the_model_it_has(serving: Any, model: Path) -> None:
    app = Application()
    app.add_routes([post("/predict", serving.predict)])
    async with TestClient(TestServer(app)) as client:
        before = await (await client.post("/predict", json=ROW)).json()
        await serving.on_message(message(compatible(completion(f"file://{model}"))))
        after = await (await client.post("/predict", json=ROW)).json()
        wrong = await client.post("/predict", json={"bill_length_mm": "long"})
    assert before == {"species": "Adelie", "model": "baseline", "accuracy": None}
    assert after == {"species": "Gentoo", "model": "default/penguin-run", "accuracy": 0.97}
    assert wrong.status == 400
