"""Data of the events about Dags: executions of several operations, each of which is a run."""

from typing import Literal

from pydantic import Field

from kfp_operator.schemas.data import Cause, EventData, Timestamp


class OperationState(EventData):
    """Where one operation is."""

    name: str = Field(description="Name of the operation in the Dag.")
    state: str = Field(description="Its state, in the words of a run.")
    run_name: str = Field("", description="Its Run, as namespace/name; empty while there is none, and of a skipped operation.")
    run_uid: str = Field("", description="The Run's metadata.uid.")
    attempt: int = Field(0, ge=0, description="The attempt it is in; 0 before the first.")


class DagEvent(EventData):
    """What both events about a Dag say."""

    dag_name: str = Field(description="The Dag, as namespace/name.")
    dag_uid: str = Field(description="The Dag's metadata.uid.")
    run_configuration_name: str = Field("", description="The RunConfiguration that made the Dag, as namespace/name, or empty.")
    attempt: int = Field(1, ge=1, description="Number of the attempt, from 1; running the failed part again is another.")
    message: str = Field("", description="Why, where there is something to say.")
    operations: list[OperationState] = Field(default_factory=list, description="All operations, in the order of the Dag.")
    truncated: bool = Field(False, description="True when the message or operations were cut to the size limit.")


class DagStatus(DagEvent):
    """Data of org.kubeflow.pipelines.dag-status: a Dag entered a state, or an operation of it did. Names are namespace/name."""

    transition: int = Field(ge=1, description="Number of this change, from 1, counted over the Dag's life.")
    state: str = Field(description="The state the Dag is in.")
    previous_state: str = Field("", description="The state before; empty at first, the same when only an operation changed.")
    time: Timestamp = Field(description="When it was entered.")
    total: int = Field(0, ge=0, description="Number of operations.")
    done: int = Field(0, ge=0, description="Operations in a final state.")
    running: int = Field(0, ge=0, description="Operations that run.")


class DagCompletion(DagEvent):
    """Data of org.kubeflow.pipelines.dag-completion: a Dag ended. Names are namespace/name."""

    status: Literal["succeeded", "failed"] = Field(description="The outcome: failed stands for stopped Dags too.")
    state: str = Field(description="The exact final state: succeeded, failed or stopped.")
    failed_operation: str = Field("", description="The operation that failed first.")
    start_time: Timestamp | None = Field(None, description="Begin of the first operation.")
    end_time: Timestamp | None = Field(None, description="End of the last one.")
    trigger: Cause = Field(default_factory=Cause, description="What started the Dag.")
