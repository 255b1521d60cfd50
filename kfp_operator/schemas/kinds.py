"""What can happen: the kinds of events that triggers wait for, in Polyaxon's words.

The prefix of a kind says what sends it, and so which references it can come from: ``run_*`` kinds from runs, ``connection_*`` kinds from
connections, and so on (`REFERENCES`). The kinds of runs are told by this operator alone; the others come from outside.
"""

from enum import StrEnum

STATUS_PREFIX = "run_status_"


class V1EventKind(StrEnum):
    """A kind of event. ``run_status_initializing``, which the documentation lists too, is another word for ``run_status_starting``."""

    RUN_STATUS_CREATED = "run_status_created"
    RUN_STATUS_RESUMING = "run_status_resuming"
    RUN_STATUS_COMPILED = "run_status_compiled"
    RUN_STATUS_ON_SCHEDULE = "run_status_on_schedule"
    RUN_STATUS_QUEUED = "run_status_queued"
    RUN_STATUS_SCHEDULED = "run_status_scheduled"
    RUN_STATUS_STARTING = "run_status_starting"
    RUN_STATUS_RUNNING = "run_status_running"
    RUN_STATUS_PROCESSING = "run_status_processing"
    RUN_STATUS_STOPPING = "run_status_stopping"
    RUN_STATUS_FAILED = "run_status_failed"
    RUN_STATUS_STOPPED = "run_status_stopped"
    RUN_STATUS_SUCCEEDED = "run_status_succeeded"
    RUN_STATUS_SKIPPED = "run_status_skipped"
    RUN_STATUS_WARNING = "run_status_warning"
    RUN_STATUS_UNSCHEDULABLE = "run_status_unschedulable"
    RUN_STATUS_UPSTREAM_FAILED = "run_status_upstream_failed"
    RUN_STATUS_RETRYING = "run_status_retrying"
    RUN_STATUS_UNKNOWN = "run_status_unknown"
    RUN_STATUS_DONE = "run_status_done"
    RUN_APPROVED_ACTOR = "run_approved_actor"
    RUN_INVALIDATED_ACTOR = "run_invalidated_actor"
    RUN_NEW_ARTIFACTS = "run_new_artifacts"
    CONNECTION_GIT_COMMIT = "connection_git_commit"
    CONNECTION_DATASET_VERSION = "connection_dataset_version"
    CONNECTION_REGISTRY_IMAGE = "connection_registry_image"
    ALERT_INFO = "alert_info"
    ALERT_WARNING = "alert_warning"
    ALERT_CRITICAL = "alert_critical"
    MODEL_VERSION_NEW_METRIC = "model_version_new_metric"
    PROJECT_CUSTOM_EVENT = "project_custom_event"
    ORG_CUSTOM_EVENT = "org_custom_event"

    RUN_STATUS_INITIALIZING = RUN_STATUS_STARTING

    @classmethod
    def _missing_(cls, value: object) -> "V1EventKind | None":
        return cls.RUN_STATUS_STARTING if value == INITIALIZING else None

    @property
    def state(self) -> str:
        """The state of a run that a ``run_status_*`` kind is about (``done``: any final one); empty for the other kinds."""
        return self.value.removeprefix(STATUS_PREFIX) if self.value.startswith(STATUS_PREFIX) else ""

    @property
    def internal(self) -> bool:
        """Whether only this operator tells it: all kinds of runs. From outside they are refused."""
        return self.value.startswith("run_")


INITIALIZING = "run_status_initializing"
ORDER = {kind: place for place, kind in enumerate(V1EventKind)}
"""The order in which kinds are written: the one above."""


class EventKindNames:
    """The kinds as attributes of V1EventTrigger, as the examples of the documentation write them."""

    RUN_STATUS_CREATED = V1EventKind.RUN_STATUS_CREATED
    RUN_STATUS_RESUMING = V1EventKind.RUN_STATUS_RESUMING
    RUN_STATUS_COMPILED = V1EventKind.RUN_STATUS_COMPILED
    RUN_STATUS_ON_SCHEDULE = V1EventKind.RUN_STATUS_ON_SCHEDULE
    RUN_STATUS_QUEUED = V1EventKind.RUN_STATUS_QUEUED
    RUN_STATUS_SCHEDULED = V1EventKind.RUN_STATUS_SCHEDULED
    RUN_STATUS_STARTING = V1EventKind.RUN_STATUS_STARTING
    RUN_STATUS_INITIALIZING = V1EventKind.RUN_STATUS_INITIALIZING
    RUN_STATUS_RUNNING = V1EventKind.RUN_STATUS_RUNNING
    RUN_STATUS_PROCESSING = V1EventKind.RUN_STATUS_PROCESSING
    RUN_STATUS_STOPPING = V1EventKind.RUN_STATUS_STOPPING
    RUN_STATUS_FAILED = V1EventKind.RUN_STATUS_FAILED
    RUN_STATUS_STOPPED = V1EventKind.RUN_STATUS_STOPPED
    RUN_STATUS_SUCCEEDED = V1EventKind.RUN_STATUS_SUCCEEDED
    RUN_STATUS_SKIPPED = V1EventKind.RUN_STATUS_SKIPPED
    RUN_STATUS_WARNING = V1EventKind.RUN_STATUS_WARNING
    RUN_STATUS_UNSCHEDULABLE = V1EventKind.RUN_STATUS_UNSCHEDULABLE
    RUN_STATUS_UPSTREAM_FAILED = V1EventKind.RUN_STATUS_UPSTREAM_FAILED
    RUN_STATUS_RETRYING = V1EventKind.RUN_STATUS_RETRYING
    RUN_STATUS_UNKNOWN = V1EventKind.RUN_STATUS_UNKNOWN
    RUN_STATUS_DONE = V1EventKind.RUN_STATUS_DONE
    RUN_APPROVED_ACTOR = V1EventKind.RUN_APPROVED_ACTOR
    RUN_INVALIDATED_ACTOR = V1EventKind.RUN_INVALIDATED_ACTOR
    RUN_NEW_ARTIFACTS = V1EventKind.RUN_NEW_ARTIFACTS
    CONNECTION_GIT_COMMIT = V1EventKind.CONNECTION_GIT_COMMIT
    CONNECTION_DATASET_VERSION = V1EventKind.CONNECTION_DATASET_VERSION
    CONNECTION_REGISTRY_IMAGE = V1EventKind.CONNECTION_REGISTRY_IMAGE
    ALERT_INFO = V1EventKind.ALERT_INFO
    ALERT_WARNING = V1EventKind.ALERT_WARNING
    ALERT_CRITICAL = V1EventKind.ALERT_CRITICAL
    MODEL_VERSION_NEW_METRIC = V1EventKind.MODEL_VERSION_NEW_METRIC
    PROJECT_CUSTOM_EVENT = V1EventKind.PROJECT_CUSTOM_EVENT
    ORG_CUSTOM_EVENT = V1EventKind.ORG_CUSTOM_EVENT
