"""One Run per tick, whatever is killed, lost, refused, deleted, edited or doubled.

The real controller, store and decisions run against a simulated API server (tests/doubles/schedule_world.py), through random schedules
with deaths between any two calls and lost answers.
"""

import asyncio
import random
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kfp_operator.api.run import Run
from kfp_operator.api.schedule import ConcurrencyPolicy
from kfp_operator.api.states import RunState
from kfp_operator.errors import Forbidden
from kfp_operator.operator.store import Key
from tests.doubles.schedule_world import BEGIN, KEY, World, tick

pytestmark = pytest.mark.slow

Step = tuple[int, int]
STEPS = 12
QUOTA = Forbidden("exceeded quota", status=403)
MINUTE = timedelta(minutes=1)


async def act(world: World, step: Step) -> None:
    """One thing that happens: work of the operator, time, the end of a run, a user, or a fault."""
    what, which = step
    active = sorted(world.active)
    match what:
        case 0 | 1 | 2 | 3:
            await world.reconcile()
        case 4 | 5:
            world.pass_time(seconds=(1, 17, 30, 60, 61, 200)[which % 6])
        case 6 | 7 if active:
            world.end(active[which % len(active)], RunState.FAILED if which % 5 == 0 else RunState.SUCCEEDED)
        case 8:
            world.fate.kill_in, world.fate.before = which % 6 + 1, which % 2 == 0
        case 9:
            world.fate.lose.add("api")
        case 10:
            world.restart()
        case 11:
            world.api.refusal = None if world.api.refusal else QUOTA
    world.overlap = max(world.overlap, len([name for name in world.active if not world.runs[name].spec.cancel]))


async def live(steps: list[Step], policy: ConcurrencyPolicy, catch_up: str) -> World:
    world = World("* * * * *", concurrencyPolicy=policy, catchUp=catch_up, successfulRunsHistoryLimit=1, failedRunsHistoryLimit=0)
    for step in steps:
        await act(world, step)
    world.fate.kill_in, world.api.refusal = None, None
    world.fate.lose.clear()
    world.pass_time(seconds=61)  # beyond every backoff
    await world.settle()
    check(world, policy, catch_up)
    return world


def check(world: World, policy: ConcurrencyPolicy, catch_up: str) -> None:
    """Nothing twice, nothing in between forgotten, nothing left undone."""
    assert set(world.api.created.values()) <= {1}, "a tick was run twice"
    started = world.started
    assert started == sorted(started), "an older tick was run after a newer one"
    passed = [BEGIN + n * MINUTE for n in range(1, int((world.api.now - BEGIN) / MINUTE) + 1)]
    assert set(started) <= set(passed), "a Run for no tick"
    status = world.schedule.status
    assert status.scheduled_until == passed[-1], "ticks are left undone"
    assert [run.name for run in status.active] == sorted(world.active, key=lambda name: (tick(name), name))
    if started:
        assert status.last_schedule_time == started[-1]
    if policy == "Allow":
        if catch_up == "All":
            assert started == passed, "a tick has no Run"
        else:
            assert started[-1] == passed[-1], "the latest tick has no Run"
    if policy in ("Forbid", "QueueLatest"):
        assert world.overlap <= 1, "two at once"
    if policy == "Replace":
        assert started[-1] == passed[-1]
        assert [name for name in world.active if not world.runs[name].spec.cancel] in ([], [started_name(world)])
    if policy == "QueueLatest":
        assert (status.queued_time or started[-1]) == passed[-1], "the latest tick neither runs nor waits"
        assert (status.queued_time is None) or len(world.active) == 1
    ended = [run for run in world.runs.values() if run.status.completion_state]
    assert len([run for run in ended if run.status.state is RunState.SUCCEEDED]) <= 1, "history is not deleted"
    assert not [run for run in ended if run.status.state is RunState.FAILED]


def started_name(world: World) -> str:
    return world.api.order[-1]


POLICIES: list[ConcurrencyPolicy] = ["Allow", "Forbid", "Replace", "QueueLatest"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    st.lists(st.tuples(st.integers(0, STEPS - 1), st.integers(0, 1000)), max_size=100),
    st.sampled_from(POLICIES),
    st.sampled_from(["Latest", "All"]),
)
def test_each_tick_is_run_once_or_passed_over_whatever_happens(steps: list[Step], policy: ConcurrencyPolicy, catch_up: str) -> None:
    asyncio.run(live(steps, policy, catch_up))


@pytest.mark.parametrize("catch_up", ["Latest", "All"])
@pytest.mark.parametrize("policy", POLICIES)
def test_random_lives_with_deaths_end_right(policy: ConcurrencyPolicy, catch_up: str) -> None:
    deaths = 0
    for seed in range(40):
        chance = random.Random(seed)
        steps = [(chance.randrange(STEPS), chance.randrange(1000)) for _ in range(120)]
        try:
            deaths += asyncio.run(live(steps, policy, catch_up)).deaths
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    assert deaths > 40


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_death_at_any_call_around_a_tick_is_made_up_for(policy: ConcurrencyPolicy, before: bool) -> None:
    async def life(calls: int) -> bool:
        world = World("* * * * *", concurrencyPolicy=policy, successfulRunsHistoryLimit=0)
        await world.run_until(BEGIN + 1.5 * MINUTE)
        if policy == "Allow":
            world.end(world.api.order[-1])
        world.pass_time(seconds=40)
        world.fate.kill_in, world.fate.before = calls, before
        await world.reconcile()
        died = world.deaths > 0
        world.fate.kill_in = None
        for name in world.active[:-1] if policy == "Replace" else world.active:
            world.end(name)  # settled, and over the limit, before its tick is known to be dealt with
        world.overlap = 0
        await world.settle()
        check(world, policy, "Latest")
        return died

    calls = 1
    while asyncio.run(life(calls)):
        calls += 1
    assert calls > (1 if policy == "Forbid" else 2), "there were calls to die at"


def test_two_processes_that_both_act_make_one_run_per_tick() -> None:
    """Nothing but the names keeps them apart: no Lease, and each hears of the other when it must."""

    async def life(seed: int) -> None:
        chance = random.Random(seed)
        world = World("* * * * *", catchUp="All", successfulRunsHistoryLimit=10_000)
        first = world.process
        world.restart()
        second = world.process
        for _ in range(80):
            world.process = chance.choice((first, second))
            world.api.stores = [[first.store], [second.store], [first.store, second.store]][chance.randrange(3)]
            world.pass_time(seconds=chance.choice((0, 1, 30, 61)))
            if world.active and chance.random() < 0.3:
                world.end(chance.choice(world.active))
            await world.reconcile()
        world.restart()
        await world.settle()
        check_all(world)

    def check_all(world: World) -> None:
        passed = [BEGIN + n * MINUTE for n in range(1, int((world.api.now - BEGIN) / MINUTE) + 1)]
        assert set(world.api.created.values()) == {1}
        assert sorted(world.started) == passed
        assert world.schedule.status.scheduled_until == passed[-1]

    for seed in range(30):
        asyncio.run(life(seed))


def test_users_who_delete_edit_and_suspend_get_no_tick_twice_and_none_of_the_past() -> None:
    async def life(seed: int) -> None:
        chance = random.Random(seed)
        world = World("* * * * *", catchUp="All", successfulRunsHistoryLimit=2)
        edits = 0
        for _ in range(100):
            match chance.randrange(8):
                case 0:
                    world.apply(chance.choice(("* * * * *", "*/2 * * * *", "bad")), catchUp="All", suspend=chance.random() < 0.3)
                    edits += 1
                case 1 if world.runs:
                    # a Run that status does not show yet is only known by itself: its deletion is its tick's second chance
                    shown = {run.name for run in world.schedule.status.active}
                    for name in chance.sample(sorted(shown & set(world.runs)), k=min(1, len(shown & set(world.runs)))):
                        world.api.remove(Key("Run", "team", name))
                case 2 if world.active:
                    world.end(chance.choice(world.active))
                case 3:
                    world.fate.kill_in, world.fate.before = chance.randrange(1, 5), chance.random() < 0.5
                case _:
                    world.pass_time(seconds=chance.choice((1, 20, 61, 130)))
                    await world.reconcile()
        world.fate.kill_in = None
        world.apply("* * * * *", catchUp="All")
        before = len(world.api.order)
        edited = world.api.now
        await world.settle()
        assert len(world.api.order) == before or world.schedule.status.schedule, "an edit started something"
        world.pass_time(minutes=3)
        await world.settle()
        assert set(world.api.created.values()) <= {1}
        late = [time for time in world.started[before:] if time <= edited]
        assert len(late) <= 100

    for seed in range(30):
        asyncio.run(life(seed))


def test_a_schedule_that_is_gone_in_the_middle_of_a_tick_leaves_nothing_undone() -> None:
    async def life() -> None:
        world = World("* * * * *")
        world.pass_time(seconds=61)
        stores, world.api.stores = world.api.stores, []
        world.api.remove(KEY)
        world.api.stores = stores
        await world.settle()
        assert KEY not in world.process.store
        assert [type(thing) for thing in world.api.objects.values()] in ([], [Run])

    asyncio.run(life())
