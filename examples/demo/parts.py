"""The processes of the demo beside the cluster and NATS: the operator, and the model server that is to notice what it does."""

import csv
import http.client
import importlib.util
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.demo import DemoError
from examples.demo.place import Place
from kfp_operator.providers.local.process import kill_leftovers
from tests.cluster import NatsServer, Process, free_port

ROOT = Path(__file__).parents[2]
_OPERATOR_WITHIN = 60.0
_SERVER_WITHIN = 30.0
_STOP_WITHIN = 20.0
_LOG_WITHIN = 30.0
_LOG_LINES = 30
FEATURES = ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g")


class Operator:
    """``kfp-operator run`` as a process of its own."""

    def __init__(self, place: Place, nats: NatsServer, folder: Path) -> None:
        self.state = folder / "state"
        self._place = place
        self._nats = nats
        self._port = free_port()
        flags = ["--kubeconfig", str(place.cluster.kubeconfig), "--nats", nats.url, "--state-dir", str(self.state)]
        flags += ["--http-port", str(self._port), *place.operator_flags]
        self._program = Path(sys.executable).with_name("kfp-operator")
        settings = place.operator_settings
        self.process = Process("operator", [self._program, "run", *flags], log=folder / "operator.log", env=_environment(settings))
        self.command = " ".join([*(f"{name}={value}" for name, value in settings.items()), "kfp-operator", "run", *flags])

    def start(self) -> None:
        """Start it and return when it is ready; ProcessError holds the end of its log."""
        self.process.start()
        self.process.wait_until(lambda: self._ready()[0] == http.HTTPStatus.OK, _OPERATOR_WITHIN)

    def readiness(self) -> str:
        """What it says of itself."""
        return self._ready()[1]

    def cli(self, *arguments: str, within: float = _LOG_WITHIN) -> str:
        """What a command of ``kfp-operator`` prints, whose settings are this operator's; DemoError when it fails."""
        result = self._command(*arguments, within=within)
        if result.returncode != 0:
            raise DemoError(f"kfp-operator {' '.join(arguments)} ended with {result.returncode}: {result.stdout}{result.stderr}")
        return result.stdout

    def run_log(self, run: str) -> str:
        """What a Run printed, the end of it."""
        result = self._command("runs", "logs", run, "--namespace", self._place.namespace)
        return "\n".join((result.stdout + result.stderr).splitlines()[-_LOG_LINES:])

    def _command(self, *arguments: str, within: float = _LOG_WITHIN) -> "subprocess.CompletedProcess[str]":
        settings = {
            "KUBECONFIG": str(self._place.cluster.kubeconfig),
            "KFPOP_NATS__SERVERS": self._nats.url,
            "KFPOP_STATEDIR": str(self.state),
        }
        command = [str(self._program), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=within, env=_environment(settings), check=False)

    def stop(self) -> None:
        """Stop it, and kill what runs of its are left (they outlive an operator by design)."""
        self.process.stop(_STOP_WITHIN)
        for run in self.state.glob("providers/*/*/runs/*"):
            kill_leftovers(run)

    def _ready(self) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@dataclass(frozen=True)
class Penguin:
    """One of the Palmer penguins, and what it is."""

    features: Mapping[str, float]
    species: str


def penguins() -> Sequence[Penguin]:
    """All that were measured: 342, read from the file of the package ``palmerpenguins`` without importing it."""
    package = importlib.util.find_spec("palmerpenguins")
    if package is None or package.origin is None:
        raise DemoError("the package palmerpenguins is not installed: make setup")
    with (Path(package.origin).parent / "data" / "penguins.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["bill_length_mm"] not in ("", "NA")]
    return [Penguin({name: float(row[name]) for name in FEATURES}, row["species"]) for row in rows]


class ModelServer:
    """``examples/serving/server.py`` as a process of its own; it is spoken to over HTTP only."""

    def __init__(self, place: Place, nats: NatsServer, models: Path, folder: Path) -> None:
        script = ROOT / "examples" / "serving" / "server.py"
        flags = ["--nats", nats.url, "--pipeline", f"{place.namespace}/penguin-pipeline", "--model-root", str(models), "--port", "0"]
        self.process = Process("model server", [sys.executable, script, *flags], log=folder / "server.log", env=_environment({}))
        self._port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it and return when it listens."""
        self.process.start()
        self.process.wait_until(self._listening, _SERVER_WITHIN)

    def stop(self) -> None:
        """Stop it."""
        self.process.stop()

    def serving(self) -> dict[str, Any]:
        """Which model it uses."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/healthz", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def predict(self, asked: Sequence[Penguin]) -> list[str]:
        """What it takes each penguin for; DemoError when it does not answer with a species."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            return [self._one(connection, penguin) for penguin in asked]
        finally:
            connection.close()

    def log(self) -> str:
        """What it wrote about events."""
        return "\n".join(line for line in self.process.log.read_text().splitlines() if " event " in line)

    def _one(self, connection: http.client.HTTPConnection, penguin: Penguin) -> str:
        connection.request("POST", "/predict", json.dumps(penguin.features))
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status != http.HTTPStatus.OK or not isinstance(species := json.loads(text).get("species"), str):
            raise DemoError(f"the model server answers {answer.status} {text}")
        return species

    def _listening(self) -> bool:
        found = re.search(r"listening on http://[^:]+:(\d+)", self.process.log.read_text())
        self._port = int(found[1]) if found else 0
        return found is not None


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours without what would change the operator's settings or its cluster."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("KFPOP_") and key != "KUBECONFIG"}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}
