"""The vocabulary of conditions, and the one place that sets them.

Types: `Synchronized` (the Go operator's), `Ready`, `Reconciling`, `Stalled` (kstatus), `Succeeded`, `Completed` (Runs),
`EventsDelivered`. Conditions that are abnormal when true (Reconciling, Stalled) and EventsDelivered=True are absent, not False.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from kfp_operator.api.meta import Condition

Status = Literal["True", "False", "Unknown"]
ORDER = ("Ready", "Synchronized", "Succeeded", "Completed", "Reconciling", "Stalled", "EventsDelivered")


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
                reason=wish.reason,
                message=wish.message,
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return out


def find(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """The condition of that type, if present."""
    return next((c for c in conditions if c.type == type_), None)
