"""The vocabulary of conditions, and the one place that sets them.

Types: `Synchronized` (the Go operator's), `Ready`, `Reconciling`, `Stalled` (kstatus), `Succeeded`, `Completed` (Runs),
`EventsDelivered`. Conditions that are abnormal when true (Reconciling, Stalled) and EventsDelivered=True are absent, not False.

Nothing else in the operator names a condition: a reconciler says what the situation is (`run_waiting`, `run_finished`,
`failed`, ...) and gets the wishes for all types that belong to it; `apply` makes conditions of them.

kstatus (kubectl, Helm, Flux and kpt wait with it) reads conditions in the order of the list: the first of Reconciling=True
(in progress) and Stalled=True (failed) decides. So Stalled stands before Reconciling: who waits for an object that only a
person can help is told at once.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from kfp_operator.api.meta import Condition
from kfp_operator.api.states import FINAL, RunState, SyncState

Status = Literal["True", "False", "Unknown"]
ORDER = ("Ready", "Synchronized", "Succeeded", "Completed", "Stalled", "Reconciling", "EventsDelivered")
MAX_MESSAGE = 32768
"""Characters of a message that the API server takes (metav1.Condition)."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A condition as it should be, before times are filled in."""

    type: str
    status: Status
    reason: str
    message: str = ""


def apply(old: Sequence[Condition], wishes: Iterable[Wish], *, generation: int, now: datetime) -> list[Condition]:
    """The full list of conditions; lastTransitionTime moves only when a status does. Types not wished for are dropped."""
    before = {c.type: c for c in old}
    out = []
    for wish in sorted(wishes, key=lambda w: ORDER.index(w.type) if w.type in ORDER else len(ORDER)):
        was = before.get(wish.type)
        since = was.last_transition_time if was is not None and was.status == wish.status else now.replace(microsecond=0)
        out.append(
            Condition(
                type=wish.type,
                status=wish.status,
                reason=camel_case(wish.reason),
                message=wish.message[:MAX_MESSAGE],
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return out


def find(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """The condition of that type, if present."""
    return next((c for c in conditions if c.type == type_), None)


def stalled(conditions: Iterable[Condition]) -> bool:
    """Whether the object waits for a person."""
    found = find(conditions, "Stalled")
    return found is not None and found.status == "True"


def camel_case(reason: str) -> str:
    """A reason that the API server takes: plugins choose theirs freely, and a refused one would lose the whole status."""
    parts = re.split(r"[^A-Za-z0-9]+", reason.strip())
    word = re.sub(r"^[0-9]+", "", "".join(part[:1].upper() + part[1:] for part in parts))
    return word[:1024] or "Unknown"


def run_waiting(reason: str, message: str, *, stalled: bool = False) -> list[Wish]:
    """A Run that waits for something before its submit. `stalled`: only a person can end the wait."""
    wishes = [
        Wish("Ready", "False", reason, message),
        Wish("Synchronized", "Unknown", SyncState.CREATING, message),
        Wish("Succeeded", "Unknown", reason),
        Wish("Completed", "False", reason),
        Wish("Reconciling", "True", reason, message),
    ]
    return [*wishes, Wish("Stalled", "True", reason, message)] if stalled else wishes


def run_accepted(state: RunState, message: str = "") -> list[Wish]:
    """A Run that the backend has and that has not ended; `state` is where it is there."""
    return [
        Wish("Ready", "True", state.reason, message),
        Wish("Synchronized", "True", SyncState.SUCCEEDED),
        Wish("Succeeded", "Unknown", state.reason, message),
        Wish("Completed", "False", state.reason),
    ]


def run_finished(state: RunState, message: str = "", *, reason: str = "", synchronized: bool = True) -> list[Wish]:
    """A Run that ended. `reason` can tell more than the state (DeadlineExceeded); `synchronized`: False when the backend never had it."""
    reason = reason or state.reason
    well = state in (RunState.SUCCEEDED, RunState.SKIPPED)
    wishes = [
        Wish("Ready", "True" if well else "False", reason, message),
        Wish("Synchronized", "True", SyncState.SUCCEEDED),
        Wish("Succeeded", "True" if state is RunState.SUCCEEDED else "False", reason, message),
        Wish("Completed", "True", reason, message),
    ]
    if well:
        return wishes
    if not synchronized:
        wishes[1] = Wish("Synchronized", "False", SyncState.FAILED, message)
    return [*wishes, Wish("Stalled", "True", reason, message)]


def run_deleting(previous: Iterable[Condition], message: str) -> list[Wish]:
    """A Run that is being deleted: Succeeded and Completed stay as they were."""
    kept = [Wish(c.type, c.status, c.reason, c.message) for c in previous if c.type in ("Succeeded", "Completed")]
    return [*deleting(message), *kept]


def run_restored(label: str) -> list[Wish]:
    """A Run that arrived with the label of a settled one, as a restore from backup brings it: it is never submitted again.

    `label` is ``name=value`` as found on the object; the value is the final state, unless someone else chose it.
    """
    message = (
        f"the Run arrived with label {label}: it ended before it was restored, and is not executed again; "
        "to execute it again: kfp-operator runs rerun NAME"
    )
    value = label.partition("=")[2]
    if value in FINAL:
        return run_finished(RunState(value), message, reason="Restored")
    return [
        Wish("Ready", "True", "Restored", message),
        Wish("Synchronized", "True", SyncState.SUCCEEDED),
        Wish("Succeeded", "Unknown", "Restored", message),
        Wish("Completed", "True", "Restored", message),
    ]


def run_taken_on_elsewhere(provider_id: str) -> list[Wish]:
    """A Run that another operator has begun with, under this id at the backend if it got there: it is neither submitted nor followed."""
    where = f", as {provider_id} at the backend" if provider_id else ""
    message = (
        f"another operator took it on{where}: it is not executed again, and its end is not told; "
        "to execute it again: kfp-operator runs rerun NAME"
    )
    return [
        Wish("Ready", "Unknown", "TakenOnElsewhere", message),
        Wish("Synchronized", "True", SyncState.SUCCEEDED),
        Wish("Succeeded", "Unknown", "TakenOnElsewhere", message),
        Wish("Completed", "True", "TakenOnElsewhere", message),
    ]


def events_undelivered(reason: str, message: str) -> Wish:
    """Added to any of the above while the bus is away."""
    return Wish("EventsDelivered", "False", reason, message)


def scheduling(reason: str, message: str = "") -> list[Wish]:
    """A RunSchedule or RunConfiguration that does what its spec says; `reason`: Scheduled, Suspended, Ended, ..."""
    return [Wish("Ready", "True", reason, message), Wish("Synchronized", "True", SyncState.SUCCEEDED)]


def start_refused(reason: str, message: str) -> list[Wish]:
    """A RunSchedule or RunConfiguration whose Run cannot be started now; it is tried again."""
    return [
        Wish("Ready", "False", reason, message),
        Wish("Synchronized", "True", SyncState.SUCCEEDED),
        Wish("Reconciling", "True", reason, message),
    ]


def synced(message: str = "") -> list[Wish]:
    """A Provider or Pipeline that is as its spec says."""
    return [Wish("Ready", "True", SyncState.SUCCEEDED, message), Wish("Synchronized", "True", SyncState.SUCCEEDED, message)]


def progressing(reason: str, message: str, *, state: SyncState = SyncState.CREATING, stalled: bool = False) -> list[Wish]:
    """A Provider or Pipeline on its way: `state` is Creating or Updating. `stalled`: only a person can end the wait."""
    wishes = [
        Wish("Ready", "False", reason, message),
        Wish("Synchronized", "Unknown", state, message),
        Wish("Reconciling", "True", reason, message),
    ]
    return [*wishes, Wish("Stalled", "True", reason, message)] if stalled else wishes


def failed(reason: str, message: str) -> list[Wish]:
    """A Provider or Pipeline that cannot become what its spec says until someone changes something."""
    return [
        Wish("Ready", "False", reason, message),
        Wish("Synchronized", "False", SyncState.FAILED, message),
        Wish("Stalled", "True", reason, message),
    ]


def deleting(message: str) -> list[Wish]:
    """Any object that is being deleted; the message says what it waits for."""
    return [
        Wish("Ready", "False", SyncState.DELETING, message),
        Wish("Synchronized", "Unknown", SyncState.DELETING, message),
        Wish("Reconciling", "True", SyncState.DELETING, message),
    ]
