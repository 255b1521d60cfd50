"""What the operator asks of an ML backend, and what a backend tells it.

One `Provider` instance serves one Provider resource. Everything is asynchronous, everything may be repeated: the operator calls
again after a crash or a lost answer, so `submit_run` is idempotent by `Submission.id` and `cancel_run` by the run.
Errors are `Retryable` (network, 5xx, 429) or `Permanent` (this submission can never work); anything else is a defect of the
provider and is treated as `Retryable`.
"""

import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from kfp_operator.api.run import ArtifactDefinition
from kfp_operator.api.states import RunState

SUBMISSION_NAMESPACE = uuid.UUID("6f1d3f86-5d0b-5c0e-9d29-6a1f4b3f2c55")


def submission_id(uid: str, number: int) -> str:
    """The id under which submission number `number` (from 1) of the Run `uid` is known to backends that let us choose it.

    Computed, never stored: after a crash it can be looked up (UUIDv5, valid as label value and KFP run_id).
    """
    return str(uuid.uuid5(SUBMISSION_NAMESPACE, f"{uid}.{number}"))


@dataclass(frozen=True, slots=True)
class PipelineVersion:
    """One synchronized version of a Pipeline: what a run executes."""

    namespace: str
    name: str
    version: str
    spec: Mapping[str, Any]
    """KFP intermediate representation (IR), the PipelineSpec document."""
    platform_spec: Mapping[str, Any] | None = None
    provider_id: str = ""


@dataclass(frozen=True, slots=True)
class ExperimentDescription:
    """A grouping of runs, as an Experiment resource describes it."""

    namespace: str
    name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Submission:
    """One attempt of one Run, complete: nothing else is needed to execute it."""

    id: str
    namespace: str
    name: str
    uid: str
    attempt: int
    """Of the Run: 1, or more when it is tried again (`spec.retries`)."""
    pipeline: PipelineVersion
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Typed after the IR (see `providers.ir.bind_parameters`); defaults are left to the backend."""
    experiment: str = ""
    """Name of an Experiment in the Run's namespace, for which ensure_experiment was called, or, if there is none, of one at the backend.

    Empty: the backend's default. Retryable while the backend has neither: it may be made yet.
    """
    first_try: bool = False
    """No process has ever handed this submission to the backend. False: one may have, and its answer, or the process, was lost."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """The backend's run entered `state` at `time` (aware, UTC)."""

    state: RunState
    time: datetime


@dataclass(frozen=True, slots=True)
class Task:
    """Progress of one step, for people who wait."""

    name: str
    state: RunState
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """What a backend tells of a run that was started by others: there is no Run object, so the names are the backend's own."""

    name: str
    """The run's display name."""
    pipeline: str = ""
    """The pipeline's display name."""
    pipeline_version: str = ""
    experiment: str = ""


@dataclass(frozen=True, slots=True)
class RunUpdate:
    """All a backend knows of a run now. Updates are whole, never differences: a later one replaces an earlier one."""

    submission_id: str
    provider_id: str
    history: Sequence[StateChange]
    """Every state since the attempt began, oldest first, never empty; the last one is the present state."""
    attempt: int = 1
    """The backend's own count within this submission: 1, and one more each time that somebody re-opens the ended run at the backend.

    A higher one begins a history of its own.
    """
    message: str = ""
    """Why it waits or failed, one paragraph, no secrets, no terminal colours."""
    failed_task: str = ""
    url: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None
    training_start: datetime | None = None
    training_end: datetime | None = None
    tasks: Sequence[Task] = ()
    perhaps_stopped: bool = False
    """It ended as failed, at a backend that tells a stopped run so too: if somebody wanted it stopped before its end, it was."""
    earlier: Sequence["RunUpdate"] = ()
    """The attempts of the same submission before this one, oldest first, as far as the backend still tells of them."""
    gone: bool = False
    """The backend, which knew the run, does not know it any more; the rest is what it told last."""
    observed: Observed | None = None
    """Set for a run that others started (observe mode); `submission_id` is the backend's run id then."""

    @property
    def state(self) -> RunState:
        """The present state."""
        return self.history[-1].state


@dataclass(frozen=True, slots=True)
class ComponentArtifact:
    """One artifact that a component of a run produced."""

    component: str
    """The task's name in the IR."""
    name: str
    """The output's key."""
    type: str
    """Schema title: system.Model, system.Dataset, tfx.PushedModel ..."""
    uri: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    index: int = 0
    """Position among the artifacts of one output of one execution; executions in a loop each count from 0."""


class Observing(Protocol):
    """What a provider offers that also tells of runs that others start (observe mode)."""

    artifacts: Sequence[ArtifactDefinition]
    """Which artifacts their completions tell."""

    def watch(self, since: datetime) -> AsyncIterator[RunUpdate | datetime]:
        """Runs of others that ended at `since` or later, `observed` set, once for each attempt, oldest end first as far as possible.

        A time in between says that every end before it has been told: where to begin again. Ends only by an exception or by close().
        What is told again after it began anew is for the caller to sort out.
        """


class Provider(Protocol):
    """One backend, as one Provider resource describes it."""

    statuses: frozenset[RunState]
    """The states this backend can report."""
    keeps_pipelines: bool
    """Whether pipelines are objects at the backend, which must be made there and deleted."""
    keeps_experiments: bool
    """Whether experiments are objects at the backend, which must be made there and deleted; False: a label of its runs at most."""
    backend: str
    """Which backend this instance speaks to, for people; "": an edit of the Provider cannot make it another."""
    others: Observing | None
    """Tells of runs that others start, if it was asked to; None: only of its own."""

    async def check(self) -> None:
        """Return when the backend can be used; raise Retryable or Permanent with a message that names the remedy."""

    async def close(self) -> None:
        """Release connections and tasks. Runs go on."""

    async def ensure_experiment(self, experiment: ExperimentDescription) -> str:
        """Make the grouping known to the backend, once; return its provider id. Backends that only label runs return the name.

        One that exists is found by its name. Its description stays as it was made where the backend cannot change it.
        """

    async def delete_experiment(self, provider_id: str) -> None:
        """Remove what ensure_experiment made; its runs stay. Fine when it is gone."""

    async def ensure_pipeline(self, pipeline: PipelineVersion) -> str:
        """Make the version known to the backend, once; return its provider id."""

    async def delete_pipeline(self, provider_id: str) -> None:
        """Remove what ensure_pipeline made; return when it is gone, also when it was gone before.

        `provider_id`: what ensure_pipeline returned, or, where its answer was lost, "namespace/name" of the Pipeline.
        """

    async def prune_pipeline(self, pipeline: PipelineVersion, keep: Collection[str]) -> None:
        """Remove what ensure_pipeline made of other versions than those in `keep`, where the backend keeps versions."""

    async def submit_run(self, submission: Submission) -> str:
        """Start the run unless a run of this submission id exists; return its provider id."""

    async def get_run(self, submission_id: str) -> RunUpdate | None:
        """What the backend knows of the submission; None: it never arrived, or is gone."""

    async def cancel_run(self, submission_id: str) -> None:
        """Ask the run to stop. Its end is told by the watch. Nothing happens when it ended before."""

    def logs(self, submission_id: str, *, follow: bool = False) -> AsyncIterator[str]:
        """Lines of the run's log, without line ends; with `follow` until the run ends."""

    def watch_runs(self) -> AsyncIterator[RunUpdate]:
        """Updates of all runs this provider started, beginning with one for every run that has not ended.

        Ends only by an exception or by close(). Cost follows changes, not the number of runs.
        """

    async def artifacts(self, submission_id: str) -> Sequence[ComponentArtifact]:
        """What an ended run produced. Retryable while not yet known."""


class Workflows(Protocol):
    """Argo Workflows in the cluster, as far as the operator may see them. Errors are Retryable; Permanent: it may not look at them."""

    async def list(self, namespace: str, selector: str) -> Sequence[Mapping[str, Any]]:
        """The Workflows that a label selector chooses; no namespace: of all namespaces."""

    def watch(self, namespace: str, selector: str) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Event type (ADDED, MODIFIED, DELETED) and the Workflow's metadata: begins with all that exist, then SYNCED with nothing.

        DELETED also tells one that the selector does not choose any more. Ends, or raises, when it must begin anew.
        """


class Secrets(Protocol):
    """Secrets in the Provider's own namespace."""

    async def read(self, name: str, key: str) -> bytes:
        """The value of a key. Permanent, with reason SecretNotFound, names what is missing."""


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """What a provider is opened with."""

    namespace: str
    name: str
    parameters: BaseModel
    """An instance of `ProviderType.parameters`."""
    pipeline_root: str = ""
    max_active_runs: int | None = None
    state_dir: Path = Path()
    """A folder of this provider's own on this machine, kept over restarts."""
    looked_until: datetime | None = None
    """When an operator last looked after this backend, as far as that is known."""
    workflows: Workflows | None = None
    """None: this process has no access to the cluster."""
    secrets: Secrets | None = None
    """None: this process has no access to the cluster."""


class ProviderType(Protocol):
    """An entry point of group ``kfp_operator.providers``; its name is `spec.type`."""

    parameters: type[BaseModel]
    """The model of `spec.parameters`; unknown keys are errors."""
    in_cluster: bool
    """Whether it may run inside a cluster without being named in the setting providers.enabled."""

    def open(self, config: ProviderConfig) -> Provider:
        """A new instance; must not block or connect."""
