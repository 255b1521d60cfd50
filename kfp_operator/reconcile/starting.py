"""Starting Runs on behalf of an object that owns them: under which name, with what in it, and whether others must end first. Pure.

A Run is named after what it was started for (the tick of a schedule, a version, an upstream run), so whoever starts it again after a
crash, or beside another process, finds the one that is there.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from kfp_operator.api.meta import Resource
from kfp_operator.api.names import Names, labelled
from kfp_operator.api.schedule import ActiveRun, ConcurrencyPolicy
from kfp_operator.api.states import RunState
from kfp_operator.reconcile.schedule import rfc3339


@dataclass(frozen=True, slots=True)
class OwnedRun:
    """A Run, as far as its owner looks at it."""

    name: str
    uid: str
    created: datetime
    state: RunState | None = None
    ended: datetime | None = None
    """When it ended; None: it is active."""
    stopping: bool = False
    """Somebody wants it to stop: it is cancelled or being deleted."""
    deleting: bool = False
    settled: bool = False
    """It has ended and nothing is left to do for it, so it may be deleted."""

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.ended is None


def active_runs(runs: Sequence[OwnedRun], *, most: int = 100) -> list[ActiveRun]:
    """The active ones as status shows them, the oldest first."""
    found = sorted((run for run in runs if run.active), key=lambda run: (run.created, run.name))
    return [ActiveRun(name=run.name, uid=run.uid) for run in found[:most]]


class Verdict(StrEnum):
    """What becomes of a Run that is due."""

    START = "start"
    STOP = "stop"
    """Stop the others first."""
    SKIP = "skip"
    """It is not started, now or later."""
    QUEUE = "queue"
    """It waits until the others have ended, in the place of one that waits already."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A verdict and the Runs that are its reason."""

    verdict: Verdict
    others: tuple[OwnedRun, ...] = ()

    @property
    def because(self) -> str:
        """The reason for people."""
        names = ", ".join(run.name for run in self.others[:3])
        more = f" and {len(self.others) - 3} more" if len(self.others) > 3 else ""
        return f"Run{'s' if len(self.others) > 1 else ''} {names}{more} {'have' if len(self.others) > 1 else 'has'} not ended"


def admit(policy: ConcurrencyPolicy, runs: Sequence[OwnedRun], name: str) -> Admission:
    """Whether the Run of that name may be started beside its owner's other `runs`; it may be there already."""
    if any(run.name == name for run in runs):
        return Admission(Verdict.START)
    active = tuple(run for run in runs if run.active)
    if policy == "Allow" or not active:
        return Admission(Verdict.START)
    if policy == "Replace":
        going_on = tuple(run for run in active if not run.stopping)
        return Admission(Verdict.STOP, going_on) if going_on else Admission(Verdict.START)
    return Admission(Verdict.SKIP if policy == "Forbid" else Verdict.QUEUE, active)


@dataclass(frozen=True, slots=True)
class Trigger:
    """What a Run is started by."""

    type: str
    """schedule, onChangePipeline, onChangeRunSpec, runConfiguration or manual."""
    source: str
    """Name of the object, or of the schedule."""
    namespace: str
    tick: datetime | None = None
    """The tick, when it is a schedule."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """What else the Run is to carry."""


def tick_name(owner: str, tick: datetime) -> str:
    """The name of the Run of a tick: the owner's, and seconds since the epoch."""
    return f"{owner}-{int(tick.timestamp())}"


def occurrence_name(owner: Resource, trigger: str, occurrence: str) -> str:
    """The name of the Run for anything else that happened: the owner's, and a hash of who was triggered by what."""
    told = "\0".join((owner.metadata.uid, trigger, occurrence))
    return f"{owner.metadata.name}-{hashlib.sha256(told.encode()).hexdigest()[:10]}"


def run_manifest(owner: Resource, names: Names, *, name: str, spec: Mapping[str, Any], trigger: Trigger) -> dict[str, Any]:
    """The Run to create: owned by `owner`, deleted with it, labelled with what started it.

    `spec` is JSON of a Run's spec. Labels hold clipped names; annotations hold those that had to be clipped.
    """
    kind = type(owner).__name__
    key = {"RunSchedule": names.run_schedule, "RunConfiguration": names.run_configuration}[kind]
    labels, annotations = {names.trigger_type: trigger.type}, dict(trigger.annotations)
    told = {key: owner.metadata.name, names.trigger_source: trigger.source, names.trigger_source_namespace: trigger.namespace}
    for label, value in told.items():
        short, whole = labelled(label, value)
        labels |= short
        annotations |= whole
    if trigger.tick is not None:
        annotations[names.scheduled_time] = rfc3339(trigger.tick)
    return {
        "apiVersion": names.api_version,
        "kind": "Run",
        "metadata": {
            "name": name,
            "namespace": owner.metadata.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [
                {
                    "apiVersion": names.api_version,
                    "kind": kind,
                    "name": owner.metadata.name,
                    "uid": owner.metadata.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": dict(spec),
    }
