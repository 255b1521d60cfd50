"""A model server that replaces its model when a run has pushed a better one.

It knows nothing of Kubernetes or of the operator but the subject of its events: a plain core NATS subscriber, as anyone could
write. It starts with a baseline; a run-completion event of the pipeline it serves names the new model under `serving-model`, and
from then on it predicts with that.

    python examples/serving/server.py --nats nats://127.0.0.1:4222 --model-root ~/.local/state/kfp-operator --port 8081
    curl -s http://127.0.0.1:8081/predict -d '{"bill_length_mm": 50, "bill_depth_mm": 15, "flipper_length_mm": 220, "body_mass_g": 5000}'

Needs aiohttp, nats-py, joblib and what the models were made with.

A model is a pickle: who can write it can run code in this process, and an event is only a message. So nothing is loaded but from below
`--model-root`, after symbolic links are resolved; keep that folder writable by those only who may run pipelines.
"""

import argparse
import asyncio
import json
import logging
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import nats
from aiohttp import web
from nats.aio.msg import Msg

log = logging.getLogger("server")

COMPLETION = "org.kubeflow.pipelines.run-completion"
FEATURES = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]


class Classifier(Protocol):
    """What scikit-learn's classifiers offer."""

    def predict(self, rows: list[list[float]]) -> Any: ...


class Baseline:
    """The most common species, whatever is asked: 44 % of the penguins."""

    def predict(self, rows: list[list[float]]) -> list[str]:
        return ["Adelie"] * len(rows)


@dataclass(frozen=True)
class Serving:
    """The model in use."""

    name: str
    classifier: Classifier
    features: list[str] = field(default_factory=lambda: FEATURES)
    label: str = "species"
    accuracy: float | None = None
    ended: str = ""
    """When its run ended, RFC 3339 in UTC: an event that is delivered again or late does not bring an older model back."""


class ModelError(Exception):
    """The event's model is not loaded; the message says why."""


class Server:
    """Holds the model, takes events, answers requests."""

    def __init__(self, pipeline: str, artifact: str, root: Path) -> None:
        self.pipeline = pipeline
        self.artifact = artifact
        self.root = root.expanduser().resolve()
        self.serving = Serving("baseline", Baseline())
        self.events = 0

    async def on_message(self, message: Msg) -> None:
        """One event: look at it, perhaps load its model, write one line."""
        self.events += 1
        try:
            document = json.loads(message.data)
            kind = document.get("type") or (message.headers or {}).get("ce-type", "")
            outcome = await self.on_event(kind, document.get("data", document))
        except ModelError as refused:
            outcome = f"refused: {refused}"
        except (ValueError, AttributeError) as error:
            outcome = f"ignored: not an event ({error})"
        log.info("event %d on %s: %s; serving %s", self.events, message.subject, outcome, self.serving.name)

    async def on_event(self, kind: str, data: dict[str, Any]) -> str:
        """What came of an event."""
        run = f"{data.get('runName')} {data.get('status')}"
        if kind != COMPLETION or data.get("pipelineName") != self.pipeline:
            return f"ignored: {kind or 'no type'} of {data.get('pipelineName')}"
        if data.get("status") != "succeeded":
            return f"{run}, nothing to load ({data.get('message')})"
        artifact = next((item for item in data.get("artifacts", []) if item.get("name") == self.artifact), None)
        if artifact is None:
            return f"{run}, without an artifact {self.artifact}"
        if (ended := str(data.get("runEndTime", ""))) <= self.serving.ended:
            return f"{run}, not newer than what is served"
        classifier = await asyncio.to_thread(self.load, artifact["location"])
        metadata = artifact.get("metadata", {})
        self.serving = Serving(
            name=str(data.get("runName")),
            classifier=classifier,
            features=metadata.get("features", FEATURES),
            label=metadata.get("label", "species"),
            accuracy=metadata.get("accuracy"),
            ended=ended,
        )
        return f"{run}, loaded {artifact['location']}"

    def load(self, location: str) -> Classifier:
        """The classifier at a path or file URI below the root."""
        import joblib

        parts = urlsplit(location)
        if parts.scheme not in ("", "file"):
            raise ModelError(f"{location} is not a file")
        path = Path(unquote(parts.path) if parts.scheme else location).resolve()
        if not path.is_relative_to(self.root):
            raise ModelError(f"{location} is not below {self.root}")
        try:
            classifier: Classifier = joblib.load(path)
        except Exception as error:
            raise ModelError(f"{location} cannot be loaded: {error}") from error
        return classifier

    async def predict(self, request: web.Request) -> web.Response:
        """POST /predict with the measurements as a JSON object."""
        serving = self.serving
        try:
            body = await request.json()
            row = [float(body[name]) for name in serving.features]
        except (ValueError, KeyError, TypeError) as error:
            raise web.HTTPBadRequest(text=f"send a JSON object with {', '.join(serving.features)} ({error})\n") from error
        predicted = await asyncio.to_thread(serving.classifier.predict, [row])
        return web.json_response({serving.label: str(predicted[0]), "model": serving.name, "accuracy": serving.accuracy})

    async def healthz(self, _: web.Request) -> web.Response:
        """GET /healthz: which model is served."""
        return web.json_response({"model": self.serving.name, "accuracy": self.serving.accuracy, "events": self.events})


async def on_nats_error(error: Exception) -> None:
    log.warning("NATS: %s", error or type(error).__name__)


async def serve(arguments: argparse.Namespace) -> None:
    """Subscribe, listen, until SIGTERM or SIGINT."""
    server = Server(arguments.pipeline, arguments.artifact, arguments.model_root)
    connection = await nats.connect(arguments.nats, name="penguin-server", max_reconnect_attempts=-1, error_cb=on_nats_error)
    await connection.subscribe(arguments.subject, cb=server.on_message)
    await connection.flush()

    app = web.Application()
    app.add_routes([web.post("/predict", server.predict), web.get("/healthz", server.healthz)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, arguments.host, arguments.port)
    await site.start()
    host, port = runner.addresses[0][:2]
    log.info("listening on http://%s:%d; serving %s; waiting for models of %s", host, port, server.serving.name, server.pipeline)

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()
    await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Serves penguin models, the latest one that a run pushed.")
    parser.add_argument("--nats", default="nats://127.0.0.1:4222", help="URL of the NATS server")
    parser.add_argument("--subject", default="events", help="the operator's documented subject")
    parser.add_argument("--pipeline", default="default/penguin-pipeline", help="whose models to serve, as namespace/name")
    parser.add_argument("--artifact", default="serving-model", help="name of the artifact that the Runs declare")
    parser.add_argument("--model-root", type=Path, required=True, help="the folder that models may be loaded from")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8081, help="0: a free one; the line `listening on` tells it")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
