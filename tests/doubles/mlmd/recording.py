"""What KFP's driver and launcher write for a run, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CONTAINER = "system.ContainerExecution"
DAG = "system.DAGExecution"
IMPORTER = "system.ImporterExecution"
ROOT = "root"
"""Key of a run's outermost DAG execution."""


@dataclass(frozen=True)
class WrittenArtifact:
    """An output of an execution.

    Args:
        output: The output's key in the component.
        type: Schema title.
        uri: Where it is.
        metadata: As the step set it; MLMD keeps no booleans, lists or mappings, the server writes them as the launcher does.
        key: Artifacts with the same key are one and the same, as a cached task links what an earlier run wrote; empty: a new one.

    """

    output: str
    type: str
    uri: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""


@dataclass(frozen=True)
class WrittenExecution:
    """A task of a run.

    Args:
        task: Its name; not unique in nested DAGs and loops.
        outputs: Artifacts that it wrote.
        inputs: Artifacts that it read, by their input's key.
        type: CONTAINER, DAG or IMPORTER.
        key: What its children name it by; empty: its task.
        parent: Key of the DAG execution that it is in, which must have been written before; empty: none.
        iteration: Its index in a loop.
        state: RUNNING, COMPLETE, FAILED, CACHED or CANCELED.
        parameters: Output parameters.

    """

    task: str
    outputs: tuple[WrittenArtifact, ...] = ()
    inputs: tuple[WrittenArtifact, ...] = ()
    type: str = CONTAINER
    key: str = ""
    parent: str = ROOT
    iteration: int | None = None
    state: str = "COMPLETE"
    parameters: Mapping[str, Any] = field(default_factory=dict)


def root(state: str = "COMPLETE") -> WrittenExecution:
    """The outermost DAG execution, which comes first."""
    return WrittenExecution("", type=DAG, key=ROOT, parent="", state=state)


@dataclass(frozen=True)
class WrittenRun:
    """Executions of a run. Written again, those with the same key are updated, as the launcher publishes what the driver created.

    Args:
        run_id: KFP's.
        pipeline: Name of the pipeline in the IR.
        executions: In the order in which they are written.
        namespace: Of the run.
        pipeline_root: Below which artifacts are.

    """

    run_id: str
    pipeline: str
    executions: tuple[WrittenExecution, ...] = ()
    namespace: str = "kubeflow"
    pipeline_root: str = "minio://mlpipeline/v2/artifacts"
