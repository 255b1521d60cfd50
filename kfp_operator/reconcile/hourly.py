"""How many Runs may be started within an hour. Pure.

The hour slides: at no time have more than so many Runs been started within the last 3600 seconds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be started now. `again`: when one more may be, if none may now."""

    starts: int
    again: datetime | None = None


def allowance(started: Iterable[datetime], limit: int | None, now: datetime) -> Allowance | None:
    """How many Runs may be started now, beside those that were started at these times; None: any number."""
    if limit is None:
        return None
    recent = sorted(time for time in started if now - HOUR < time)
    if len(recent) < limit:
        return Allowance(limit - len(recent))
    return Allowance(0, recent[len(recent) - limit] + HOUR if limit else None)
