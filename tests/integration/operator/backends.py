"""The backends that the same scenarios run on: where a bench's runs go, and what can be seen there without asking the operator.

The scenario pipeline behaves alike on both: its parameter `mode` says how it ends, and a file lets it go on.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from kfp_operator.providers.kubeflow.naming import Mark
from tests.cluster import Cluster
from tests.doubles.kfp_api.process import KfpApiProcess
from tests.doubles.mlmd.engine import Mlmd

BACKENDS = ("local", "kubeflow")
SECONDS = 0.3
"""What a run takes at Kubeflow Pipelines, if its mode says nothing else."""

RUNS = "*/state/providers/*/*/runs/[!.]*"
"""Folders of local runs, below the folder of a bench."""
ENDED = frozenset({"SUCCEEDED", "FAILED"})
ENDED_PHASES = frozenset({"Succeeded", "Failed", "Error"})


class Backend(Protocol):
    """Where runs go."""

    name: str
    """Type of the Provider, and its name in tests."""
    failures: Mapping[str, str]
    """What is told of a step that fails, by mode."""

    def spec(self) -> dict[str, Any]:
        """The spec of a Provider of it."""

    def starts(self, folder: Path) -> Counter[str]:
        """How often something was started for each Run, by the Run's uid; `folder`: the bench's."""

    def results(self, folder: Path) -> int:
        """How many runs have ended there."""

    def active(self, folder: Path) -> set[str]:
        """Ids of the runs there that have not."""


class LocalBackend:
    """kfp.local: its runs are child processes, with folders below the state folder of an operator."""

    name = "local"
    failures: Mapping[str, str] = {"raise": "ValueError: the data has no column island", "exit": "code 7"}

    def spec(self) -> dict[str, Any]:
        """Nothing but the type."""
        return {"type": "local"}

    def starts(self, folder: Path) -> Counter[str]:
        """How often the one step of each Run's pipeline began."""
        count: Counter[str] = Counter()
        for file in folder.glob(f"{RUNS}/submission.json"):
            events = file.with_name("events.jsonl")
            lines = events.read_text().splitlines() if events.exists() else []
            count[json.loads(file.read_text())["uid"]] += sum(json.loads(line)["event"] == "start" for line in lines)
        return count

    def results(self, folder: Path) -> int:
        """How many wrote their result."""
        return len(list(folder.glob(f"{RUNS}/result.json")))

    def active(self, folder: Path) -> set[str]:
        """Those that were submitted and wrote none."""
        return {file.parent.name for file in folder.glob(f"{RUNS}/submission.json") if not file.with_name("result.json").exists()}


class KubeflowBackend:
    """The double of Kubeflow Pipelines, with Workflows in the cluster and artifacts in a real ML Metadata store.

    Args:
        server: Running.
        mlmd: Running, and the server's.
        parameters: More of the Provider's.

    """

    name = "kubeflow"
    failures: Mapping[str, str] = {"raise": "Error (exit code 1)", "exit": "Error (exit code 7)"}

    def __init__(self, server: KfpApiProcess, mlmd: Mlmd, **parameters: Any) -> None:
        self.server = server
        self.mlmd = mlmd
        self._parameters = parameters

    def spec(self) -> dict[str, Any]:
        """Patience is short: what waits in earnest is tested on clocks of their own."""
        usual = {
            "endpoint": self.server.url,
            "metadataEndpoint": self.mlmd.address,
            "watch": "Workflows",
            "pollIntervalSeconds": 1,
            "requestTimeoutSeconds": 5,
            "confirmationSeconds": 1,
        }
        return {"type": "kubeflow", "parameters": usual | self._parameters}

    def starts(self, folder: Path) -> Counter[str]:
        """How many Workflows were made, also of runs that were deleted."""
        count: Counter[str] = Counter()
        for row in self.server.runs().values():
            mark = Mark.parse(row["description"])
            if mark is not None:
                count[mark.uid] += row["started"]
        return count

    def results(self, folder: Path) -> int:
        """How many Workflows have ended, whether or not the server knows it yet."""
        return sum(workflow.get("status", {}).get("phase") in ENDED_PHASES for workflow in self.server.workflows())

    def active(self, folder: Path) -> set[str]:
        """Those in any other state."""
        return {run_id for run_id, row in self.server.runs().items() if row["state"] not in ENDED}


@contextlib.contextmanager
def backend(name: str, cluster: Cluster, namespace: str, folder: Path, mlmd: Mlmd | None, **parameters: Any) -> Iterator[Backend]:
    """The backend of that name for one bench; `mlmd`: for kubeflow."""
    if name == "local":
        yield LocalBackend()
        return
    assert mlmd is not None
    given = {"namespace": namespace, "seconds": SECONDS, "patience": 0.5}
    with KfpApiProcess(folder, kubeconfig=cluster.kubeconfig, recorder=mlmd.recorder, **given) as server:
        yield KubeflowBackend(server, mlmd, namespace=namespace, **parameters)
