"""Cron schedules: against a brute-force reading of every second and minute, over changes of clocks, years and downtimes."""

import calendar
import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_operator.api.schedule import Schedule
from kfp_operator.errors import InvalidSpec
from kfp_operator.reconcile.schedule import CLOCK_ERROR, MOST, Due, due, identity, next_tick, parse

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NAMES = {"SUN": 0, "MON": 1, "TUE": 2, "WED": 3, "THU": 4, "FRI": 5, "SAT": 6} | {
    name.upper(): number for number, name in enumerate(calendar.month_abbr) if name
}
RANGES = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def schedule(expression: str, zone: str = "", **parts: Any) -> Schedule:
    return Schedule(cron_expression=expression, time_zone=zone, **parts)


def ticks(expression: str, zone: str, after: datetime, until: datetime) -> list[datetime]:
    return list(itertools.takewhile(until.__ge__, parse(schedule(expression, zone)).ticks(after)))


def local(found: list[datetime], zone: str) -> list[str]:
    return [tick.astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M%z") for tick in found]


# The oracle: numbers, lists, ranges and steps, read by hand


def values(part: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for term in part.split(","):
        span, _, step = term.partition("/")
        first, _, last = span.partition("-")
        begin = low if span == "*" else int(NAMES.get(first, first))
        end = high if span == "*" or (step and not last) else int(NAMES.get(last, last or begin))
        found |= set(range(begin, end + 1, int(step or 1)))
    return found


def oracle(expression: str, zone: str, after: datetime, until: datetime) -> list[datetime]:
    """Every second (every minute without seconds) of real time, with local time beside it."""
    parts = expression.split()
    parts = parts if len(parts) == 6 else ["0", *parts]
    second, minute, hour, day, month, weekday = (values(part, *span) for part, span in zip(parts, RANGES, strict=True))
    weekday = {number % 7 for number in weekday}
    star = parts[3].startswith("*") or parts[5].startswith("*")

    def matches(at: datetime) -> bool:
        if at.month not in month or at.hour not in hour or at.minute not in minute or at.second not in second:
            return False
        of_month, of_week = at.day in day, (at.weekday() + 1) % 7 in weekday
        return (of_month and of_week) if star else (of_month or of_week)

    step = SECOND if parts[0] != "0" else MINUTE
    moments = moments_between(after, until, step)
    if parts[1].startswith("*") or parts[2].startswith("*"):
        return [at for at in moments if matches(at.astimezone(ZoneInfo(zone)))]
    # at fixed times: each local time once, those that are skipped right after the gap
    found: set[datetime] = set()
    previous = (next(iter(moments)) - step).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    seen = previous
    for at in moments_between(after, until, step):
        now = at.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        while seen < now:  # all local times up to now that were not passed before
            seen += step
            if matches(seen):
                found.add(at)
    return sorted(found)


def moments_between(after: datetime, until: datetime, step: timedelta) -> Iterator[datetime]:
    at = after + step
    while at <= until:
        yield at
        at += step


def changes(zone: str, year: int) -> list[datetime]:
    """The hours of the year in which the zone's offset changes."""
    offsets = [(utc(f"{year}-01-01") + n * HOUR) for n in range(8784)]
    place = ZoneInfo(zone)
    return [b for a, b in itertools.pairwise(offsets) if a.astimezone(place).utcoffset() != b.astimezone(place).utcoffset()]


ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # changes by half an hour
    "Africa/Cairo",  # at midnight
    "America/Havana",  # at midnight, and back at one
    "Asia/Kathmandu",  # +05:45, never
    "Pacific/Chatham",  # +12:45, at 02:45
    "Africa/Casablanca",  # for Ramadan, twice a year
    "Antarctica/Troll",  # by two hours
)
EXPRESSIONS = (
    "* * * * *",
    "*/7 * * * *",
    "*/10 0 * * *",
    "*/10 2 * * *",
    "*/15 2-3 * * *",
    "5,35 */2 * * *",
    "30 * * * *",
    "0 0 * * *",
    "30 0,1,2,3 * * *",
    "0 2 * * *",
    "15 1-3 * * *",
    "45 2 * * SUN",
    "0 12 * * MON-FRI",
    "0 3 1,15 * 5",
    "0 3 */2 * 5",
    "59 23 * * *",
)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_minutes_around_each_change_of_clocks_are_those_of_a_brute_force_search(expression: str, zone: str) -> None:
    for change in changes(zone, 2026) or [utc("2026-03-01")]:
        after, until = change - 30 * HOUR, change + 30 * HOUR
        assert ticks(expression, zone, after, until) == oracle(expression, zone, after, until)


@pytest.mark.parametrize("zone", ZONES[:6])
@pytest.mark.parametrize(
    "expression", ["*/20 * * * * *", "*/7 */10 * * * *", "10,40 30 2 * * *", "0 30 2 * * *", "30 59 1,2 * * *", "5 */30 2 * * *"]
)
def test_the_seconds_around_each_change_of_clocks_are_those_of_a_brute_force_search(expression: str, zone: str) -> None:
    for change in changes(zone, 2026)[:2] or [utc("2026-03-01")]:
        after, until = change - 3 * HOUR, change + 4 * HOUR
        assert ticks(expression, zone, after, until) == oracle(expression, zone, after, until)


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["Europe/Berlin", "UTC"])
@pytest.mark.parametrize("expression", ["30 2 * * *", "*/20 */5 * * *", "0 0 29 2 *", "0 0 31 * *", "0 6 13 * FRI", "0 6 * 3-11/4 *"])
def test_a_leap_year_of_ticks_is_that_of_a_brute_force_search(expression: str, zone: str) -> None:
    after, until = utc("2028-01-01"), utc("2029-01-01")
    assert ticks(expression, zone, after, until) == oracle(expression, zone, after, until)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.tuples(st.one_of(st.just("*"), span), st.integers(1, 9)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    term = st.one_of(number.map(str), span, step)
    return st.one_of(st.just("*"), term, st.lists(number.map(str), min_size=1, max_size=4).map(",".join))


EXPRESSION = st.tuples(field(0, 59), field(0, 23), st.just("*"), st.just("*"), field(0, 6)).map(" ".join)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(EXPRESSION, st.sampled_from(ZONES), st.integers(0, 1), st.integers(0, 30 * 60))
def test_any_expression_begun_at_any_minute_near_a_change_agrees_with_brute_force(
    expression: str, zone: str, which: int, back: int
) -> None:
    found = changes(zone, 2027)
    change = found[which % len(found)] if found else utc("2027-03-01")
    after, until = change - back * MINUTE, change + 10 * HOUR
    assert ticks(expression, zone, after, until) == [t for t in oracle(expression, zone, change - 40 * HOUR, until) if t > after]


@settings(max_examples=200, deadline=None)
@given(EXPRESSION, st.sampled_from(ZONES), st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)))  # noqa: DTZ001
def test_the_next_tick_is_later_on_a_whole_second_and_there_is_none_between(expression: str, zone: str, after: datetime) -> None:
    timetable = parse(schedule(expression, zone))
    begin = after.replace(tzinfo=UTC)
    tick = next_tick(timetable, begin)
    assert tick is not None
    assert tick > begin
    assert tick.microsecond == 0
    assert next_tick(timetable, tick - SECOND) == tick
    assert next_tick(timetable, begin + (tick - begin) / 2) == tick


@pytest.mark.parametrize(
    ("expression", "zone", "after", "until", "expected"),
    [
        # clocks go forward from 02:00 to 03:00
        ("30 2 * * *", "Europe/Berlin", "2026-03-28", "2026-03-31", ["03-28 02:30+0100", "03-29 03:00+0200", "03-30 02:30+0200"]),
        ("0 30 2 * * *", "Europe/Berlin", "2026-03-28T12", "2026-03-29T12", ["03-29 03:00+0200"]),
        ("0,20,40 2 * * *", "Europe/Berlin", "2026-03-28T12", "2026-03-29T12", ["03-29 03:00+0200"]),
        ("0 * * * *", "Europe/Berlin", "2026-03-29T00", "2026-03-29T02", ["03-29 03:00+0200", "03-29 04:00+0200"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12", "2026-03-29T12", []),
        # clocks go back from 03:00 to 02:00
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12", "2026-10-26T12", ["10-25 02:30+0200", "10-26 02:30+0100"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10", "2026-10-26T12", ["10-26 02:30+0100"]),
        ("0 * * * *", "Europe/Berlin", "2026-10-24T23", "2026-10-25T02", ["10-25 02:00+0200", "10-25 02:00+0100", "10-25 03:00+0100"]),
        # a day whose midnight does not come
        ("0 0 * * *", "Africa/Cairo", "2026-04-23T12", "2026-04-25T12", ["04-24 01:00+0300", "04-25 00:00+0300"]),
        ("*/30 0 * * *", "Africa/Cairo", "2026-04-23T12", "2026-04-24T20", []),
        # by half an hour, from 02:00 to 01:30
        (
            "*/10 2 * * *",
            "Australia/Lord_Howe",
            "2026-04-04T14:50",
            "2026-04-04T15:55",
            ["04-05 02:00+1030", "04-05 02:10+1030", "04-05 02:20+1030"],
        ),
    ],
)
def test_daylight_saving_is_that_of_debians_cron(expression: str, zone: str, after: str, until: str, expected: list[str]) -> None:
    assert local(ticks(expression, zone, utc(after), utc(until)), zone) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 29 2 *", ["2028-02-29", "2032-02-29", "2036-02-29"]),
        ("0 0 L * *", ["2026-01-31", "2026-02-28", "2026-03-31"]),
        ("0 0 LW * *", ["2026-01-30", "2026-02-27", "2026-03-31"]),
        ("0 0 31 * *", ["2026-01-31", "2026-03-31", "2026-05-31"]),
        ("0 0 * * 5L", ["2026-01-30", "2026-02-27", "2026-03-27"]),
        ("0 0 * * 1#2", ["2026-01-12", "2026-02-09", "2026-03-09"]),
        ("0 0 ? * 7", ["2026-01-04", "2026-01-11", "2026-01-18"]),
        ("0 0 1 1 ?", ["2027-01-01", "2028-01-01", "2029-01-01"]),
        ("0 0 5-05/2 1 *", ["2026-01-05", "2027-01-05", "2028-01-05"]),
        ("0 0 25/5 1 *", ["2026-01-25", "2026-01-30", "2027-01-25"]),
        ("@weekly", ["2026-01-04", "2026-01-11", "2026-01-18"]),
        ("@Monthly", ["2026-02-01", "2026-03-01", "2026-04-01"]),
        ("  0  0 1  jan,JUL * ", ["2026-07-01", "2027-01-01", "2027-07-01"]),
        ("0 0 * 2 MON#5", ["2044-02-29", "2072-02-29", "2112-02-29"]),
    ],
)
def test_days_are_found_in_the_calendar(expression: str, expected: list[str]) -> None:
    found = itertools.islice(parse(schedule(expression)).ticks(utc("2026-01-01")), 3)
    assert [tick.strftime("%Y-%m-%d") for tick in found] == expected


def test_five_fields_are_six_with_second_zero() -> None:
    after = utc("2026-01-01")
    for zone in ("", "Europe/Berlin"):
        five, six = parse(schedule("*/5 3 * * *", zone)), parse(schedule("0 */5 3 * * *", zone))
        assert list(itertools.islice(five.ticks(after), 50)) == list(itertools.islice(six.ticks(after), 50))


def test_no_tick_is_before_the_start_or_after_the_end_but_both_may_be_ticks() -> None:
    bounded = parse(schedule("0 * * * *", start_time=utc("2026-01-01T10:00"), end_time=utc("2026-01-01T12:00")))
    assert [tick.hour for tick in bounded.ticks(utc("2025-01-01"))] == [10, 11, 12]
    assert [tick.hour for tick in bounded.ticks(utc("2026-01-01T10:00"))] == [11, 12]
    assert next_tick(bounded, utc("2026-01-01T12:00")) is None
    found = due(bounded, last=utc("2025-12-01"), now=utc("2026-02-01"), catch_up="All")
    assert (len(found.run), found.next) == (3, None)


@pytest.mark.parametrize(
    ("wrong", "field", "says"),
    [
        ({"cron_expression": "61 * * * *"}, "cronExpression", 'minute "61" of "61 * * * *" cannot be; use *,'),
        ({"cron_expression": "* * * 13 *"}, "cronExpression", "of 1-12 or JAN-DEC"),
        ({"cron_expression": "* * * * 8"}, "cronExpression", "of 0-7 or SUN-SAT"),
        ({"cron_expression": "60 * * * * *"}, "cronExpression", 'second "60"'),
        ({"cron_expression": "*/0 * * * *"}, "cronExpression", 'minute "*/0"'),
        ({"cron_expression": "a b c d e"}, "cronExpression", 'minute "a"'),
        ({"cron_expression": "* * * *"}, "cronExpression", "has 4 fields; use five (minute hour"),
        ({"cron_expression": "* * * * * * *"}, "cronExpression", "has 7 fields"),
        ({"cron_expression": ""}, "cronExpression", "has 0 fields"),
        ({"cron_expression": "@every 1h"}, "cronExpression", "@every 1h is not known; use one of @yearly,"),
        ({"cron_expression": "TZ=UTC 0 0 * * *"}, "cronExpression", "write that into timeZone"),
        ({"cron_expression": "0 0 30 2 *"}, "cronExpression", 'day-of-month "30"'),
        ({"cron_expression": "* * */20 * 1L"}, "cronExpression", "never comes"),
        ({"time_zone": "Europe/Berln"}, "timeZone", "did you mean Europe/Berlin"),
        ({"time_zone": "europe/berlin"}, "timeZone", "did you mean Europe/Berlin"),
        ({"time_zone": "Mars/Olympus"}, "timeZone", "is not a time zone"),
        ({"time_zone": "Europe"}, "timeZone", "is not a time zone"),
        ({"time_zone": "../../etc/passwd"}, "timeZone", "use a name as Europe/Paris"),
        ({"time_zone": "Local"}, "timeZone", "is not a time zone"),
        (
            {"start_time": utc("2026-01-02"), "end_time": utc("2026-01-01")},
            "endTime",
            "2026-01-01T00:00:00Z is before startTime 2026-01-02T",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_names_the_field_and_what_can(wrong: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(InvalidSpec) as raised:
        parse(Schedule.model_construct(**({"cron_expression": "* * * * *", "time_zone": ""} | wrong)), field="spec.schedule")
    assert raised.value.reason == "InvalidSchedule"
    assert raised.value.field == f"spec.schedule.{field}"
    assert says in str(raised.value)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789*/,-#?LW@ABNJMOSU² \t\0é", max_size=40), st.text(max_size=12))
def test_no_text_makes_anything_but_a_schedule_or_a_refusal(expression: str, zone: str) -> None:
    for zone_name in ("", zone):
        try:
            timetable = parse(Schedule.model_construct(cron_expression=expression, time_zone=zone_name))
        except InvalidSpec:
            continue
        next_tick(timetable, utc("2026-01-01"))


# What is due


def at(hours: float) -> datetime:
    return utc("2026-01-01") + timedelta(hours=hours)


HOURLY = parse(schedule("@hourly"))


@pytest.mark.parametrize(
    ("since", "now", "options", "run", "missed", "until"),
    [
        (0, 0.5, {}, [], 0, None),
        (0, 1, {}, [1], 0, 1),
        (0, 1.01, {}, [1], 0, 1),
        (0, 3.5, {}, [3], 2, 3),
        (0, 3.5, {"catch_up": "All"}, [1, 2, 3], 0, 3),
        (0, 3.5, {"catch_up": "None"}, [], 3, 3),
        (0, 3.01, {"catch_up": "None"}, [3], 2, 3),  # 36 s late
        (0, 3.5, {"catch_up": "None", "deadline": HOUR}, [3], 2, 3),
        (0, 3.5, {"deadline": 20 * MINUTE}, [], 3, 3),
        (0, 3.5, {"deadline": 30 * MINUTE}, [3], 2, 3),
        (0, 3.5, {"deadline": 100 * MINUTE, "catch_up": "All"}, [2, 3], 1, 3),
        (3, 2.5, {}, [], 0, None),  # set back by half an hour: nothing twice
    ],
)
def test_what_is_due_depends_on_the_deadline_and_on_what_is_made_up_for(
    since: float, now: float, options: dict[str, Any], run: list[int], missed: int, until: int | None
) -> None:
    found = due(HOURLY, last=at(since), now=at(now), **options)
    assert list(found.run) == [at(hour) for hour in run]
    assert (found.missed, found.more, found.clock_error) == (missed, False, False)
    assert found.until == (None if until is None else at(until))
    assert found.next == at(int(max(since, now)) + 1)


def test_a_clock_that_was_far_ahead_is_not_waited_for() -> None:
    ahead = at(0) + CLOCK_ERROR + SECOND
    assert due(HOURLY, last=ahead, now=at(0)) == Due(next=at(1), clock_error=True)
    assert due(HOURLY, last=at(0) + CLOCK_ERROR, now=at(0)).next == at(25)


@pytest.mark.parametrize("catch_up", ["Latest", "All", "None"])
@pytest.mark.parametrize("zone", ["", "Europe/Berlin"])
@pytest.mark.parametrize("expression", ["* * * * * *", "* * * * *", "0-59 0-59 2 * * *", "* * * 29 2 *", "0 0 29 2 *"])
@pytest.mark.parametrize("away", [30 * DAY, 365 * 20 * DAY, -365 * 20 * DAY])
def test_the_work_is_bounded_whatever_the_clock_does(expression: str, zone: str, away: timedelta, catch_up: Any) -> None:
    timetable, last = parse(schedule(expression, zone)), utc("2030-06-15T12:00")
    began = time.process_time()
    found = due(timetable, last=last, now=last + away, catch_up=catch_up)
    assert time.process_time() - began < 2, "usually some 30 ms"
    assert len(found.run) <= (MOST if catch_up == "All" else 1)
    assert found.missed <= MOST
    assert found.clock_error is (away < timedelta())


def test_after_a_month_of_seconds_the_latest_hundred_are_made_up_for_and_the_rest_is_told() -> None:
    timetable, now = parse(schedule("* * * * * *")), utc("2026-02-01")
    found = due(timetable, last=utc("2026-01-01"), now=now, catch_up="All")
    assert list(found.run) == [now - n * SECOND for n in reversed(range(MOST))]
    assert (found.missed, found.missed_text, found.until) == (MOST, "more than 100", now)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["*/7 * * * * *", "* * * * *", "30 2 * * *", "*/10 2 * * *", "0 0 1 * *"]),
    st.sampled_from(["UTC", "Europe/Berlin"]),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001
    st.integers(0, 200_000),
)
def test_the_latest_ticks_are_the_end_of_all_ticks(expression: str, zone: str, after: datetime, seconds: int) -> None:
    timetable, begin = parse(schedule(expression, zone)), after.replace(tzinfo=UTC)
    until = begin + seconds * SECOND
    everything = ticks(expression, zone, begin, until)
    for most in (1, 5, 100):
        assert timetable.latest(begin, until, most) == everything[-most:]


@pytest.mark.parametrize("catch_up", ["Latest", "All"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Havana"])
def test_looks_at_odd_times_run_each_tick_once(zone: str, catch_up: Any) -> None:
    """The operator looks at irregular times, closer together than ticks are: none is left out, none comes twice."""
    timetable = parse(schedule("30 0,1,2,12 * * *", zone))
    for change in (*changes(zone, 2026), *changes(zone, 2027)):
        begin, gap = change - 2 * DAY, itertools.cycle([1, 7, 59, 60, 61, 1499])
        now, last, run = begin, begin, list[datetime]()
        while now < change + 2 * DAY:
            now += next(gap) * SECOND
            found = due(timetable, last=last, now=now, catch_up=catch_up)
            run += found.run
            last = found.until or last
        assert run == [tick for tick in oracle("30 0,1,2,12 * * *", zone, begin - 2 * DAY, last) if tick > begin]


def test_what_is_another_schedule_has_another_identity() -> None:
    base = schedule("0  2 * * *", "Europe/Paris")
    assert identity(base) == identity(schedule("0 2 * * *", "Europe/Paris")) == "0 2 * * *, Europe/Paris"
    others = [
        schedule("1 2 * * *", "Europe/Paris"),
        schedule("0 2 * * *"),
        schedule("0 2 * * *", "Europe/Paris", start_time=utc("2026-01-01")),
        schedule("0 2 * * *", "Europe/Paris", end_time=utc("2026-01-01")),
    ]
    assert len({identity(other) for other in (base, *others)}) == 5
