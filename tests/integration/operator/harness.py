"""Runs the operator as a user does, as a process of its own, on a real API server, a real NATS server and real kfp."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml

from kfp_operator.api.names import Names
from kfp_operator.api.run import Run
from kfp_operator.errors import NotFound
from kfp_operator.operator.client import Cluster as Client
from kfp_operator.operator.credentials import load_credentials
from kfp_operator.operator.resources import Kinds
from tests.cluster import Cluster, NatsServer
from tests.cluster.ports import free_port
from tests.integration.operator.backends import Backend, LocalBackend
from tests.waiting import eventually

T = TypeVar("T")
NAMES = Names()
KINDS = Kinds()
SHORT = {
    "mlprv": KINDS.provider,
    "mlp": KINDS.pipeline,
    "mlexp": KINDS.experiment,
    "mlr": KINDS.run,
    "mlrc": KINDS.run_configuration,
    "mlrs": KINDS.run_schedule,
}
SCENARIO = yaml.safe_load((Path(__file__).parents[2] / "data" / "pipelines" / "scenario.yaml").read_text())
API_VERSION = NAMES.api_version


class Operator:
    """One operator process."""

    def __init__(self, kubeconfig: Path, folder: Path, *, nats: str | Mapping[str, Any], fault: str = "", **settings: Any) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "operator.log"
        self._config = folder / "config.yaml"
        self._kubeconfig = kubeconfig
        self.fault = fault
        self._process: subprocess.Popen[bytes] | None = None
        document: dict[str, Any] = {
            "stateDir": str(folder / "state"),
            "nats": {"servers": [nats]} if isinstance(nats, str) else dict(nats),
            "http": {"port": self.port},
            "leaderElection": {"leaseDuration": 6},
            "log": {"level": "debug"},
        }
        self._config.write_text(yaml.safe_dump(document | settings))

    def start(self) -> Self:
        """Start the process; does not wait."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KFPOP_")}
        if self.fault:
            environment["KFPOP_TEST_FAULT"] = self.fault
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # its own session: nothing that tests signal reaches its runs by accident
                [sys.executable, "-m", "kfp_operator", "run", "--config", str(self._config), "--kubeconfig", str(self._kubeconfig)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        return self

    def wait_ready(self, within: float = 30) -> Self:
        """Wait until it leads, sees all objects and is connected."""
        eventually(lambda: self.readiness()[0] == 200, within, f"the operator is ready\n{self.tail()}")
        return self

    def readiness(self) -> tuple[int, str]:
        """Code and body of /readyz; 0 while nothing answers."""
        return self._get("/readyz")

    def metric(self, name: str, **labels: str) -> float:
        """A sample of /metrics; 0 when it is not there."""
        wanted = name + ("{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}" if labels else "")
        return next(
            (float(line.rpartition(" ")[2]) for line in self._get("/metrics")[1].splitlines() if line.startswith(wanted + " ")), 0.0
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self._signal(signal.SIGKILL)
        self.wait_end()

    def stop(self, within: float = 30) -> int:
        """SIGTERM; the exit code."""
        self._signal(signal.SIGTERM)
        return self.wait_end(within)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def wait_end(self, within: float = 30) -> int:
        """The exit code, once it has ended."""
        assert self._process is not None
        return self._process.wait(within)

    def restart(self, fault: str = "") -> Self:
        """Start a new process on the same settings, after the old one ended."""
        self.fault = fault
        return self.start()

    def close(self) -> None:
        """End it, whatever it does, and what it left running."""
        if self.alive:
            self.thaw()
            self.kill()
        end_runs(self.folder)

    def tail(self, lines: int = 40) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)


def end_runs(folder: Path) -> None:
    """Kill the process groups of local runs whose work folder lies below `folder`."""
    for pid in processes(folder):
        with suppress(OSError):
            os.killpg(pid, signal.SIGKILL)


def processes(folder: Path) -> list[int]:
    """Pids of what was started with a path below `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if str(folder).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


@dataclass
class Bench:
    """A namespace with a Provider and a Pipeline, and what tests ask of it."""

    cluster: Cluster
    namespace: str
    nats: NatsServer
    folder: Path
    operators: list[Operator] = field(default_factory=list)
    neighbour: str = ""
    """Another namespace that the operators serve, if any."""
    backend: Backend = field(default_factory=LocalBackend)
    """Where its runs go."""
    others: Mapping[str, Backend] = field(default_factory=dict)
    """More backends of the same operators, by name."""
    scenario: str = "scenario"
    """Name of the Pipeline that Runs are of if they say nothing else."""

    def on(self, backend: str) -> "Bench":
        """The same bench, on another of its backends: Provider and Pipeline have other names."""
        return self if backend == self.backend.name else replace(self, backend=self.others[backend], scenario=f"scenario-{backend}")

    def operator(self, name: str = "operator", *, fault: str = "", nats: str | Mapping[str, Any] = "", **settings: Any) -> Operator:
        """A new operator of this namespace, not started."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        lease = {"leaseDuration": 6, "namespace": self.namespace}
        usual = {"namespaces": [n for n in (self.namespace, self.neighbour) if n], "leaderElection": lease}
        made = Operator(self.cluster.kubeconfig, folder, nats=nats or self.nats.url, fault=fault, **(usual | settings))
        self.operators.append(made)
        return made

    def apply(self, *documents: Mapping[str, Any]) -> None:
        self.cluster.apply(*documents, namespace=self.namespace)

    def provider(self, name: str = "", **spec: Any) -> dict[str, Any]:
        """A Provider of the backend, of the same name unless another is given."""
        given = self.backend.spec() | spec
        return {"apiVersion": API_VERSION, "kind": "Provider", "metadata": {"name": name or self.backend.name}, "spec": given}

    def pipeline(self, name: str = "", **changes: Any) -> dict[str, Any]:
        """A Pipeline of the scenario; `changes` replace members of its spec, None removes one."""
        spec = {"provider": f"{self.namespace}/{self.backend.name}", "pipelineSpec": SCENARIO["spec"]["pipelineSpec"]} | changes
        kept = {key: value for key, value in spec.items() if value is not None}
        return {"apiVersion": API_VERSION, "kind": "Pipeline", "metadata": {"name": name or self.scenario}, "spec": kept}

    def run(self, name: str, mode: str = "succeed", *, parameters: Mapping[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
        given = {"mode": mode} | dict(parameters or {})
        listed = [{"name": k, "value": v} for k, v in given.items()]
        document = {"pipeline": self.scenario, "parameters": listed, "artifacts": [{"name": "model", "path": "act:model"}]} | spec
        return {"apiVersion": API_VERSION, "kind": "Run", "metadata": {"name": name}, "spec": document}

    def prepare(self, **provider: Any) -> None:
        """Apply Provider and Pipeline, and wait until they are ready."""
        self.apply(self.provider(**provider), self.pipeline())
        objects = (f"mlprv/{self.backend.name}", f"mlp/{self.scenario}")
        self.cluster.kubectl("wait", "-n", self.namespace, "--for=condition=Ready", *objects, "--timeout=60s")

    def get(self, name: str) -> Run | None:
        async def read(client: Client) -> Run | None:
            try:
                return Run.parse(await client.get(KINDS.run, name, self.namespace))
            except NotFound:
                return None

        return self.ask(read)

    def runs(self) -> dict[str, Run]:
        """All Runs by name."""

        async def read(client: Client) -> dict[str, Run]:
            return {(run := Run.parse(body)).metadata.name: run async for body in client.list(KINDS.run, self.namespace)}

        return self.ask(read)

    def ask(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Do something with a client of the API server: a tenth of what a kubectl costs, which counts where tests look again and again."""

        async def connected() -> T:
            async with Client(await load_credentials(str(self.cluster.kubeconfig))) as client:
                return await work(client)

        return asyncio.run(connected())

    def wait(self, name: str, state: str, within: float = 60) -> Run:
        """The Run, once its status shows the state."""

        def there() -> Run | None:
            run = self.get(name)
            return run if run is not None and run.status.state == state else None

        try:
            return eventually(there, within, f"Run {name} is {state}")
        except AssertionError as error:
            run = self.get(name)
            status = json.dumps(run.status.to_json(), indent=1) if run is not None else "no such Run"
            logs = "\n".join(o.tail(25) for o in self.operators)
            raise AssertionError(f"{error}\n{status}\n{logs}") from None

    def released(self, name: str, within: float = 20) -> Run:
        """The Run, once it is settled and without our finalizer."""

        def there() -> Run | None:
            run = self.get(name)
            return run if run is not None and NAMES.completed in run.metadata.labels and not run.metadata.finalizers else None

        return eventually(there, within, f"Run {name} is released")

    def document(self, resource: str, name: str) -> dict[str, Any] | None:
        """The object of that short name (a key of `SHORT`) as the API server has it."""

        async def read(client: Client) -> dict[str, Any] | None:
            try:
                return await client.get(SHORT[resource], name, self.namespace)
            except NotFound:
                return None

        return self.ask(read)

    def patch(self, resource: str, name: str, **changes: Any) -> None:
        """Merge into the object, as a user."""
        self.ask(lambda client: client.patch(SHORT[resource], name, changes, self.namespace))

    def delete(self, resource: str, name: str) -> None:
        """Delete the object, as a user; does not wait until it is gone."""
        self.ask(lambda client: client.delete(SHORT[resource], name, self.namespace))

    def gone(self, resource: str, name: str, within: float = 20) -> None:
        """Wait until there is no such object."""
        eventually(lambda: self.document(resource, name) is None, within, f"{resource} {name} is gone")

    def conditions(self, resource: str, name: str) -> dict[str, dict[str, Any]]:
        """The object's conditions by type."""
        found = self.document(resource, name) or {}
        return {c["type"]: c for c in found.get("status", {}).get("conditions", [])}

    def condition(self, resource: str, name: str, type_: str) -> dict[str, Any] | None:
        return self.conditions(resource, name).get(type_)

    def wait_reason(self, resource: str, name: str, reason: str, within: float = 30, *, says: str = "") -> dict[str, Any]:
        """The Ready condition, once it has the reason, and a message with these words in it."""

        def there() -> dict[str, Any] | None:
            found = self.condition(resource, name, "Ready")
            return found if found is not None and found["reason"] == reason and says in found["message"] else None

        return eventually(there, within, f"{resource} {name} says {reason} {says}")

    def close(self) -> None:
        for operator in self.operators:
            operator.close()
