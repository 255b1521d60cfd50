"""Cron schedules: which ticks a schedule has, and which of them are due. Pure: the clock is passed in.

cronsim reads the expressions and knows the calendar; it is asked in local time without a zone. What daylight saving makes of a
local time is decided here, by the rule of Debian's cron, because cronsim has it for five fields only, repeats ticks when it is begun
within a repeated hour, and skips some where clocks change by half an hour (Lord Howe) or at midnight (Cairo):

- A schedule *at fixed times* (neither minute nor hour begins with ``*``) ticks once for each local time. One that is skipped when
  clocks go forward comes at the moment after the gap; one that is repeated when clocks go back comes the first time only.
- Any other ticks whenever the clock on the wall matches: not at times that are skipped, twice at those that are repeated.

All times in and out are aware; ticks are in UTC, on whole seconds. The work is bounded whatever the clock does: no call looks at more
than `MOST` ticks one by one, for none further ahead than 50 years, and what lies between two distant times is found by bisection.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice, takewhile
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from kfp_operator.api.schedule import Schedule
from kfp_operator.errors import InvalidSpec

CatchUp = Literal["Latest", "All", "None"]

MOST = 100
"""Ticks that are caught up or counted at most."""
GRACE = timedelta(seconds=60)
"""How late a tick may be without counting as missed when nothing is caught up and no deadline is given."""
CLOCK_ERROR = timedelta(days=1)
"""When the last tick lies this far in the future, the clock was wrong then: the schedule goes on from now."""
MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
ACCEPTED = {
    "second": "0-59",
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31, L (the last day) or LW (the last weekday)",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT, with L (5L: the last Friday) or # (1#2: the second Monday)",
}
"""Fields of an expression, in their order, and what stands in them."""
_SECOND, _DAY = timedelta(seconds=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Timetable:
    """A schedule that was understood (`parse`)."""

    expression: str
    """Six fields, seconds first."""
    zone: ZoneInfo
    start: datetime | None = None
    """No tick before."""
    end: datetime | None = None
    """No tick after."""

    @property
    def at_fixed_times(self) -> bool:
        """Whether it ticks once for each local time, whatever clocks do."""
        _, minute, hour, *_ = self.expression.split()
        return not minute.startswith("*") and not hour.startswith("*")

    def ticks(self, after: datetime) -> Iterator[datetime]:
        """The ticks after that time, in order."""
        begin = after.astimezone(UTC) if self.start is None else max(after.astimezone(UTC), self.start.astimezone(UTC) - _SECOND)
        found = _at_fixed_times(self, begin) if self.at_fixed_times else _by_the_wall(self, begin)
        with suppress(OverflowError):  # the end of the calendar, in the year 9999
            yield from found if self.end is None else takewhile(self.end.__ge__, found)

    def latest(self, after: datetime, until: datetime, most: int) -> list[datetime]:
        """The last `most` ticks in (after, until], oldest first."""
        found = _between(self, after, until, most + 1)
        if len(found) <= most:
            return found
        # from `low` on there are `most` ticks or more, from `high` on fewer; ticks are a second apart at least
        low, high = after.replace(microsecond=0), until
        while high - low > _SECOND:
            middle = low + timedelta(seconds=(high - low) // _SECOND // 2 or 1)
            found = _between(self, middle, until, most)
            low, high = (middle, high) if len(found) == most else (low, middle)
        return _between(self, low, until, most)


def parse(schedule: Schedule, *, field: str = "spec.schedule") -> Timetable:
    """Understand a schedule. InvalidSpec names the field below `field` that cannot be, and what can."""
    return _parse(schedule.cron_expression, schedule.time_zone, schedule.start_time, schedule.end_time, field)


def identity(schedule: Schedule) -> str:
    """What tells a schedule from another: ticks of one are not made up for as ticks of the other."""
    start, end = schedule.start_time, schedule.end_time
    parts = [
        " ".join(schedule.cron_expression.split()),
        schedule.time_zone or "UTC",
        f"from {rfc3339(start)}" if start else "",
        f"until {rfc3339(end)}" if end else "",
    ]
    return ", ".join(part for part in parts if part)


def rfc3339(time: datetime) -> str:
    """As Kubernetes writes it: whole seconds of UTC."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def next_tick(timetable: Timetable, after: datetime) -> datetime | None:
    """The first tick after that time; None: there is none within 50 years."""
    return next(timetable.ticks(after), None)


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done now."""

    run: tuple[datetime, ...] = ()
    """Ticks to start a run for, oldest first."""
    missed: int = 0
    """Ticks that have passed and get no run; `MOST` and `more`: more than that."""
    more: bool = False
    """Whether `missed` is only a lower bound."""
    until: datetime | None = None
    """The latest tick that has passed since: when it is dealt with, all before are; None: none has."""
    next: datetime | None = None
    """The next tick; None: there is none."""
    clock_error: bool = False
    """The last tick lies in the future by more than `CLOCK_ERROR`, so ticks are counted from now on."""

    @property
    def missed_text(self) -> str:
        """The number for people."""
        return f"more than {MOST}" if self.more else str(self.missed)


def due(timetable: Timetable, *, last: datetime, now: datetime, deadline: timedelta | None = None, catch_up: CatchUp = "Latest") -> Due:
    """What is due at `now` when all ticks up to `last` are dealt with.

    `deadline`: how late a run may still be started. `catch_up`: of several ticks that may be started, the Latest, All (the `MOST`
    latest), or None: the latest, if it is no later than the deadline, `GRACE` without one.

    A clock that was set back starts nothing until it has come to where it was, for `CLOCK_ERROR` at most.
    """
    clock_error = last - now > CLOCK_ERROR
    if clock_error:
        last = now
    counted, upcoming = [], None
    for tick in islice(timetable.ticks(last), MOST + 1):
        if tick > now:
            upcoming = tick
            break
        counted.append(tick)
    if not counted:
        return Due(next=upcoming, clock_error=clock_error)
    more = len(counted) > MOST
    if more:
        upcoming = next_tick(timetable, now)
    passed = timetable.latest(last, now, MOST if catch_up == "All" else 1) if more else counted
    if catch_up == "None" and deadline is None:
        deadline = GRACE
    timely = [tick for tick in passed if deadline is None or now - tick <= deadline]
    run = tuple(timely if catch_up == "All" else timely[-1:])
    missed = MOST if more else len(counted) - len(run)
    return Due(run=run, missed=missed, more=more, until=passed[-1], next=upcoming, clock_error=clock_error)


@lru_cache(maxsize=4096)
def _parse(expression: str, zone: str, start: datetime | None, end: datetime | None, field: str) -> Timetable:
    if start is not None and end is not None and end < start:
        raise InvalidSpec(f"{rfc3339(end)} is before startTime {rfc3339(start)}", field=f"{field}.endTime", reason="InvalidSchedule")
    found = _zone(zone, f"{field}.timeZone")
    return Timetable(_expression(expression, f"{field}.cronExpression"), found, start, end)


def _expression(written: str, field: str) -> str:
    """The six fields of an expression."""

    def refuse(why: str) -> InvalidSpec:
        return InvalidSpec(why, field=field, reason="InvalidSchedule")

    text = written.strip()
    if text.startswith("@"):
        if text.lower() not in MACROS:
            raise refuse(f"{text} is not known; use one of {', '.join(MACROS)}, or five or six fields")
        text = MACROS[text.lower()]
    if text.startswith(("TZ=", "CRON_TZ=")):
        raise refuse(f'"{text}" begins with a time zone; write that into timeZone, and the five or six fields here')
    parts = text.split()
    if len(parts) == 5:
        parts.insert(0, "0")
    if len(parts) != 6:
        raise refuse(
            f'"{text}" has {len(parts)} fields; use five (minute hour day-of-month month day-of-week), '
            f"six with seconds first, or one of {', '.join(MACROS)}"
        )
    for day in (3, 5):
        if parts[day] == "?":  # as Quartz and the Go library write it
            parts[day] = "*"
    expression = " ".join(",".join(map(_without_idle_step, part.split(","))) for part in parts)
    try:
        first = next(CronSim(expression, datetime(2024, 1, 1)), None)  # noqa: DTZ001  # local time of no zone
    except (CronSimError, ValueError) as error:
        name = str(error).removeprefix("Bad ")
        if name not in ACCEPTED:
            raise refuse(f'"{text}" cannot be read: {error}') from error
        value = parts[list(ACCEPTED).index(name)]
        ways = "*, a value, a list (1,15), a range (9-17) or steps (*/5, 9-17/2)"
        raise refuse(f'{name} "{value}" of "{text}" cannot be; use {ways} of {ACCEPTED[name]}') from error
    if first is None:
        raise refuse(f'"{text}" never comes: no date has that day of the month, month and day of the week')
    return expression


def _without_idle_step(term: str) -> str:
    """5-5/2 is 5; cronsim would take it for 5/2: from 5 on."""
    found = re.fullmatch(r"(\w+)-(\w+)/0*[1-9][0-9]*", term, re.ASCII)
    if found is None or found[1].upper().lstrip("0") != found[2].upper().lstrip("0"):
        return term
    return found[1]


def _zone(name: str, field: str) -> ZoneInfo:
    try:
        if name.lower() not in ("local", "localtime"):  # where they exist they are another place on each machine
            return ZoneInfo(name or "UTC")
    except (KeyError, ValueError, OSError):  # unknown; no name of a file; a folder of zones
        pass
    similar = get_close_matches(name, available_timezones(), n=3)
    hint = f"; did you mean {' or '.join(similar)}?" if similar else "; use a name as Europe/Paris, or leave it out for UTC"
    raise InvalidSpec(f'"{name}" is not a time zone{hint}', field=field, reason="InvalidSchedule")


def _between(timetable: Timetable, after: datetime, until: datetime, most: int) -> list[datetime]:
    """The first `most` ticks in (after, until]."""
    return list(islice(takewhile(until.__ge__, timetable.ticks(after)), most))


def _at_fixed_times(timetable: Timetable, begin: datetime) -> Iterator[datetime]:
    last = begin
    for local in CronSim(timetable.expression, begin.astimezone(timetable.zone).replace(tzinfo=None)):
        tick = _moment(local, timetable.zone)
        if tick > last:  # else several in one gap, or of the first time round when begun in the second
            last = tick
            yield tick


def _by_the_wall(timetable: Timetable, begin: datetime) -> Iterator[datetime]:
    """From one change of the offset to the next, between which local time goes as UTC does."""
    at: datetime | None = begin
    before = timedelta()
    while at is not None:
        offset, looked = _offset(at, timetable.zone), at
        change = None
        for local in CronSim(timetable.expression, (at + offset - before).replace(tzinfo=None)):
            tick = (local - offset).replace(tzinfo=UTC)
            change = _change(timetable.zone, looked, tick)
            if change is not None:
                break
            looked = tick
            yield tick
        at, before = change, _SECOND  # the change itself may be a tick


def _moment(local: datetime, zone: ZoneInfo) -> datetime:
    """When a local time comes for the first time; for one in a gap, the moment after the gap."""
    aware = local.replace(tzinfo=zone)
    moment = aware.astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == local:
        return moment
    return _change(zone, aware.replace(fold=1).astimezone(UTC), moment) or moment


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _change(zone: ZoneInfo, after: datetime, until: datetime) -> datetime | None:
    """The first change of the zone's offset in (after, until], to the second; two within a day that undo each other are not seen."""
    if zone.key == "UTC":
        return None
    offset, low = _offset(after, zone), after
    while low < until:
        high = min(low + _DAY, until)
        if _offset(high, zone) != offset:
            low = low.replace(microsecond=0)
            while high - low > _SECOND:
                middle = low + timedelta(seconds=(high - low) // _SECOND // 2 or 1)
                low, high = (middle, high) if _offset(middle, zone) == offset else (low, middle)
            return high
        low = high
    return None
