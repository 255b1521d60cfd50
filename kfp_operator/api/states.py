"""The words for where a Run is: the vocabulary of events, status and triggers."""

from enum import StrEnum


class RunState(StrEnum):
    """State of a Run, in Polyaxon's words. `done` (any final state) exists only as a trigger kind."""

    CREATED = "created"
    RESUMING = "resuming"
    COMPILED = "compiled"
    ON_SCHEDULE = "on_schedule"
    QUEUED = "queued"
    SCHEDULED = "scheduled"
    STARTING = "starting"
    RUNNING = "running"
    PROCESSING = "processing"
    WARNING = "warning"
    UNSCHEDULABLE = "unschedulable"
    UNKNOWN = "unknown"
    RETRYING = "retrying"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UPSTREAM_FAILED = "upstream_failed"
    STOPPED = "stopped"
    SKIPPED = "skipped"

    @property
    def final(self) -> bool:
        """Whether nothing follows within this attempt."""
        return self in FINAL

    @property
    def completes(self) -> bool:
        """Whether this end is announced by a run-completion (upstream_failed and skipped runs never ran)."""
        return self in COMPLETING

    @property
    def reason(self) -> str:
        """The state as a condition's reason: CamelCase, as UpstreamFailed."""
        return "".join(word.capitalize() for word in self.value.split("_"))


FINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.UPSTREAM_FAILED, RunState.STOPPED, RunState.SKIPPED})
COMPLETING = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.STOPPED})


class SyncState(StrEnum):
    """`status.synchronizationState`: where the resource is on its way to the backend."""

    CREATING = "Creating"
    UPDATING = "Updating"
    DELETING = "Deleting"
    DELETED = "Deleted"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
