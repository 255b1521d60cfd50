"""Publish, consume, patch: whatever is killed, lost, repeated or reordered, each Run ends once, and right.

The real controllers, projector and outbox run against a simulated API server, bus, backend and clock (tests/doubles/world.py), through
random schedules with deaths between any two calls.
"""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kfp_operator.api.conditions import find
from kfp_operator.api.run import Run
from kfp_operator.api.states import RunState
from kfp_operator.errors import EventError
from kfp_operator.events import envelope
from kfp_operator.providers.protocol import submission_id
from kfp_operator.reconcile.retry import pause
from kfp_operator.schemas import RunCompletion, RunStatus
from tests.doubles.world import World

pytestmark = pytest.mark.slow

RUNS = 3
Step = tuple[int, int]
EVERYTHING = range(25)
"""Kinds of steps. The first 20 are those in which the bus keeps what it has and nobody else writes to it."""
FAULTS = range(20)
AGAIN = range(25, 29)
"""What runs meet that are tried again or re-opened, and those that wait for a value."""
LIVELY = [*range(8), *range(8), *range(8), 8, 9, 10, 11, 14, 25, 25, 26, 26, 27, 28, 28]
"""Fewer faults, so that runs get far."""
SPECS: Sequence[Mapping[str, Any]] = (
    {"retries": 2},
    {"retries": 1, "activeDeadlineSeconds": 60},
    {"retries": 3, "parameters": [{"name": "model", "valueFrom": {"runConfigurationRef": {"name": "up", "outputArtifact": "model"}}}]},
)


def submissions(world: World, index: int) -> list[str]:
    """The submissions of a Run that reached the backend, in their order."""
    ids = (submission_id(f"uid-{index}", number) for number in range(1, 10))
    return [submission for submission in ids if submission in world.backend.runs]


async def act(world: World, step: Step) -> None:
    """One thing that happens: work of the operator, news at the backend, a user, a fault, or time."""
    what, which = step
    index = which % RUNS
    key = world.keys[index]
    submission = (submissions(world, index) or [submission_id(f"uid-{index}", 1)])[-1]
    match what:
        case 0 | 1 | 2:
            await world.reconcile(index)
        case 3 | 4:
            await world.deliver()
        case 5:
            world.pass_time(which % 3 + 0.5)
            await world.fire()
        case 6 | 7:
            if submission in world.backend.runs:
                world.backend.advance(submission)
        case 8:
            world.fate.kill_in, world.fate.before = which % 7 + 1, which % 2 == 0
        case 9:
            world.restart()
        case 10:
            world.bus.fail("publish", answer_lost=which % 2 == 0, after=which % 3)
        case 11:
            world.fate.lose.add(("api", "submit")[which % 2])
        case 12:
            world.bus.down = not world.bus.down
        case 13:
            world.backend.down = not world.backend.down
        case 14:
            world.pass_time(float(which % 60))
        case 15 if key in world.api.runs:
            (world.api.cancel, world.api.remove)[which % 2](key)
        case 16 if key in world.api.runs:
            world.api.change(key, annotations={**world.api.runs[key].metadata.annotations, "touched": str(which)})
        case 17:
            world.backend.outcome[submission] = (RunState.FAILED, RunState.SUCCEEDED)[which % 2]
        case 18 if submission not in world.backend.runs:
            world.backend.refuse.add(f"uid-{index}")
        case 19:
            world.bus.fail("settle", after=which % 3)
        case 20:
            world.lose_stream()
        case 21:
            world.lose_consumer()
        case 22:
            await world.make_noise(index, which // RUNS % 4)
        case 23:
            await world.reconcile(index, stale=True)
        case 24:
            world.process.leads = not world.process.leads
        case 25 if submission in world.backend.runs:
            world.reopen(submission)
        case 26:
            world.backend.outcome[submission] = RunState.FAILED
            world.backend.outcome[submission_id(f"uid-{index}", len(submissions(world, index)) + 1)] = RunState.FAILED
        case 27:
            world.produce(f"/models/{which}")
        case 28:
            world.pass_time(12)


async def settle(world: World) -> None:
    """All faults end; everything that is under way comes to its end."""
    world.fate.kill_in = None
    world.fate.lose.clear()
    world.bus._failures.clear()
    world.bus.down = world.backend.down = False
    world.process.leads = True
    world.produce("/models/last")
    for _ in range(60):
        for index in range(RUNS):
            await world.reconcile(index)
        for submission in list(world.backend.runs):
            world.backend.advance(submission)
        while await world.deliver():
            pass
        world.pass_time(11)
        await world.fire()
        if all(_done(world, i) for i in range(RUNS)) and not world.process.projector.pending:
            break
    while await world.deliver():
        pass
    world.pass_time(11)
    await world.fire()


def _done(world: World, index: int) -> bool:
    run = world.api.runs.get(world.keys[index])
    return run is None or (run.status.completion_state is not None and not run.metadata.finalizers)


def events(world: World, pattern: str) -> dict[str, list[RunStatus | RunCompletion]]:
    found: dict[str, list[RunStatus | RunCompletion]] = defaultdict(list)
    for message in world.bus.messages(pattern):
        with suppress(EventError):  # noise
            data = envelope.receive(world.bus.subjects, message).data
            found[data.run_uid].append(data)
    return found


def check(world: World) -> None:
    """Nothing lost, nothing doubled, nothing stuck."""
    completions = events(world, "events.run-completion.>")
    statuses = events(world, "events.run-status.>")
    documented = [m.subject.split(".")[4:] for m in world.bus.messages("events.documented.>")]
    copies = {(uid, int(attempt)) for uid, attempt in documented}
    assert len(copies) == len(documented)
    for index, key in enumerate(world.keys):
        uid = f"uid-{index}"
        run = world.api.runs.get(key)
        told = sorted((e for e in completions[uid] if isinstance(e, RunCompletion)), key=lambda e: e.attempt)
        states = [e for e in statuses[uid] if isinstance(e, RunStatus)]
        check_submissions(world, index, states)
        assert len({e.attempt for e in told}) == len(told), "completed twice"
        if run is not None:
            assert _done(world, index), f"stuck: {run.status.model_dump(exclude_none=True)}"
        if uid in world.emptied and not told:
            continue  # its end was told, and its effect seen, before the stream was lost
        if run is not None:
            assert told, "its end was never told"
            _agree(run, told[-1], world)
        elif submissions(world, index):
            assert told, "its end was never told"
        assert {(uid, e.attempt) for e in told} <= copies
        transitions = [e.transition for e in states]
        if world.losses:
            assert transitions == sorted(set(transitions))
            continue
        assert transitions == list(range(1, len(transitions) + 1))
        attempts = [e.attempt for e in states]
        assert attempts == sorted(attempts)
        finals = {e.attempt: e.state for e in states if RunState(e.state).completes}
        assert finals == {e.attempt: e.state for e in told}, "an end and its completion do not agree"
        assert not {e.attempt for e in states if e.state == "retrying"} & finals.keys(), "tried again, and completed"
    stream = world.bus._streams[world.bus.subjects.stream("runs")]
    assert all(not c.pending for c in stream.consumers.values()), "never acknowledged"


def check_submissions(world: World, index: int, states: list[RunStatus]) -> None:
    """Each at most once, no more than wanted, in order, not too early, with the same values; and as many as were wanted."""
    ids = submissions(world, index)
    spec = world.specs[index]
    assert all(world.backend.starts[submission] <= 1 for submission in ids), "started twice"
    assert not world.backend.misled, "handed over before, and said to be new"
    assert ids == [submission_id(f"uid-{index}", number) for number in range(1, len(ids) + 1)]
    assert len(ids) <= 1 + spec.retries
    assert len({str(world.backend.parameters[submission]) for submission in ids}) <= 1, "tried again with other values"
    assert all(world.backend.runs[submission].state.final for submission in ids), "left running"
    failures = {e.submission: e for e in states if e.state == "retrying"}
    for number, submission in enumerate(ids[1:], start=2):
        if number in failures:
            assert world.backend.submitted[submission] >= failures[number].time + pause(number), "too early"
        else:
            assert world.losses, "tried again without a word"
    run, last = world.api.runs.get(world.keys[index]), states[-1] if states else None
    wanted = run is not None and not run.spec.cancel and spec.active_deadline_seconds is None
    if wanted and not world.losses and last is not None and last.state == "failed" and last.run_id:
        assert len(ids) == 1 + spec.retries, "not tried again"


def _agree(run: Run, told: RunCompletion, world: World) -> None:
    assert run.status.state == told.state
    assert run.status.attempt == told.attempt
    assert world.api.completed[run.metadata.uid] == told.state
    completed = find(run.status.conditions, "Completed")
    assert completed is not None
    assert completed.status == "True"
    backend = world.backend.runs.get(submission_id(run.metadata.uid, told.submission))
    if backend is not None:
        over = told.state == "failed" and run.spec.active_deadline_seconds is not None
        assert run.status.state is backend.state or (over and backend.state is RunState.STOPPED)
        assert run.status.provider_id == backend.provider_id
        assert told.attempt == told.first_attempt - 1 + backend.attempt
    else:
        assert told.run_id == ""


async def live(steps: list[Step], *, restored: bool = False, specs: Sequence[Mapping[str, Any]] = ()) -> World:
    """Live through the steps, and if `restored` go on with an API server that was restored from a backup."""
    world = World(RUNS, specs)
    for step in steps:
        await act(world, step)
    await settle(world)
    check(world)
    if restored:
        for key in world.api.runs:
            world.api.restore(key, len(world.bus.messages()))
        world.restart()
        await settle(world)
        check(world)
    return world


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 1000)), max_size=120))
def test_nothing_is_lost_doubled_or_stuck_whatever_happens(steps: list[Step]) -> None:
    asyncio.run(live(steps))


def test_random_schedules_with_deaths_end_right() -> None:
    assert run_schedules(range(60))["deaths"] > 40


def test_schedules_that_once_went_wrong_end_right() -> None:
    """21: a cancel after a submission without an answer; 178: a refusal was told, then a cancel; 919, 1166: states told after the end."""
    for seed in (21, 178, 919, 1166):
        run_schedules(range(seed, seed + 1))


def test_random_schedules_with_retries_reopens_and_values_to_wait_for_end_right() -> None:
    met = run_schedules(range(25), LIVELY, SPECS, length=250)
    assert met["deaths"] > 200
    assert met["tried again"] > 20
    assert met["completed more than once"] > 2
    assert met["re-opened, and tried again"] > 5
    assert met["resolved"] > 15


def test_schedules_of_retries_and_reopens_that_once_went_wrong_end_right() -> None:
    """0: a re-open that an earlier process told was taken for a restore; 375: it came before the answer to the release of its Run."""
    for seed in (0, 375):
        run_schedules(range(seed, seed + 1), LIVELY, SPECS, length=250)


def test_random_schedules_with_lost_streams_noise_and_interrupted_leadership_end_right() -> None:
    assert run_schedules(range(60), EVERYTHING)["deaths"] > 30


def test_retries_and_reopens_survive_lost_streams_noise_and_interrupted_leadership() -> None:
    met = run_schedules(range(20), [*LIVELY, *EVERYTHING], SPECS, length=250)
    assert met["tried again"] > 2


def run_schedules(
    seeds: range, kinds: Sequence[int] = FAULTS, specs: Sequence[Mapping[str, Any]] = (), *, length: int = 150
) -> Counter[str]:
    """Live through the schedules of these seeds, of so many steps of these kinds; how often what happened."""
    met: Counter[str] = Counter()
    for seed in seeds:
        chance = random.Random(seed)
        steps = [(kinds[chance.randrange(len(kinds))], chance.randrange(1000)) for _ in range(length)]
        try:
            world = asyncio.run(live(steps, restored=20 in kinds, specs=specs))
        except AssertionError as error:
            raise AssertionError(f"schedule of seed {seed}: {error}") from error
        met["deaths"] += world.deaths
        for uid, told in events(world, "events.run-completion.>").items():
            last = max((e for e in told if isinstance(e, RunCompletion)), key=lambda e: e.attempt)
            met["completed more than once"] += len(told) > 1
            met["tried again"] += len(submissions(world, int(uid.removeprefix("uid-")))) > 1
            met["re-opened, and tried again"] += last.attempt > last.submission > 1
        met["resolved"] += sum(bool(run.status.resolved) for run in world.api.runs.values())
    return met


def test_a_quiet_run_takes_three_status_writes() -> None:
    async def quiet() -> World:
        world = World(1)
        submission = submission_id("uid-0", 1)
        await world.reconcile(0)
        for _ in range(3):
            while await world.deliver():
                pass
            world.pass_time(3)
            await world.fire()
            world.backend.advance(submission)
            await world.reconcile(0)
        while await world.deliver():
            pass
        await world.fire()
        await world.reconcile(0)
        return world

    world = asyncio.run(quiet())
    assert world.api.runs[world.keys[0]].status.state is RunState.SUCCEEDED
    assert world.api.completed == {"uid-0": "succeeded"}
    assert world.api.writes["uid-0"] == 3
