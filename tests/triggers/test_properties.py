"""Whatever the order, however often it is told, wherever the operator is killed: which Runs are made depends on what happened alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_operator.api.event_trigger import MAX_HANDLED, MAX_PENDING
from kfp_operator.events.triggers.happening import Happening, Position
from kfp_operator.events.triggers.ledger import Ledger
from kfp_operator.events.triggers.subscriptions import Subscriber, Subscriptions, subscribe
from kfp_operator.schemas import V1EventTrigger
from tests.triggers.world import FINAL, Configuration, Killed, Maker, Upstream, World, inbound, of, trigger

STATES = ["created", "queued", "starting", "running", "warning", "stopping", "retrying"]
REFS = ["runConfigurations.train", "runConfigurations.test", "pipelines.penguin", "runs.train-1"]
KINDS = [*STATES, *FINAL, "done"]
SOMEWHERE = Position("runs", "", 0)


@dataclass(frozen=True)
class Told:
    """One event, for the runs that it is about."""

    subject: str
    maker: Maker

    @property
    def happening(self) -> Happening | None:
        return self.maker(SOMEWHERE)


def configurations(draw: st.DrawFn) -> list[Configuration]:
    triggers = st.lists(
        st.builds(
            lambda ref, kinds, odd: trigger(ref, *kinds, filter="event.data.attempt == 1" if odd else ""),
            st.sampled_from(REFS),
            st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
            st.booleans(),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda one: (one.ref, tuple(one.kinds), one.filter),
    )
    found = [Configuration(draw(triggers), name=f"deploy-{n}", uid=f"uid-{n}") for n in range(draw(st.integers(1, 2)))]
    found[0].triggers = [*found[0].triggers, trigger("connections.git", "connection_git_commit")]
    return found


@st.composite
def histories(draw: st.DrawFn) -> list[list[Told]]:
    """What happens to some runs, each in its order, states told twice among it; and events from outside."""
    found: list[list[Told]] = []
    for number in range(draw(st.integers(1, 4))):
        run = Upstream(f"train-{number}", configuration=draw(st.sampled_from(["train", "test", ""])))
        events: list[Told] = []
        transition = 0
        for attempt in range(1, draw(st.integers(1, 2)) + 1):
            for state in draw(st.lists(st.sampled_from(STATES), max_size=5)):
                transition += 1
                events.append(Told(f"{run.identity}/{attempt}", of(run.status(state, transition=transition, attempt=attempt))))
            if (end := draw(st.sampled_from([*FINAL, ""]))) or attempt == 1:
                end = end or "failed"
                events.append(Told(f"{run.identity}/{attempt}", of(run.status(end, transition=transition + 1, attempt=attempt))))
                events.append(Told(f"{run.identity}/{attempt}", of(run.completion(end, attempt=attempt, began=draw(st.booleans())))))
                transition += 1
        found.append(events)
    found += [
        [Told("", inbound("connection_git_commit", "connections.git", id_))] for id_ in draw(st.lists(st.sampled_from("abc"), max_size=4))
    ]
    return found


def interleaved(draw: st.DrawFn, histories: Sequence[Sequence[Told]]) -> list[Told]:
    """All events, those of each run in their order."""
    turns = draw(st.permutations([n for n, events in enumerate(histories) for _ in events]))
    rest = [list(events) for events in histories]
    return [rest[n].pop(0) for n in turns]


def expected(configuration: Configuration, events: Sequence[Told]) -> set[tuple[str, str]]:
    """By the definition alone: some event about the subject satisfies the trigger."""
    found = set()
    for subscription in subscribe(configuration.subscriber, configuration.triggers)[0]:
        for happening in (told.happening for told in events):
            if happening is None or subscription.target not in happening.targets or not happening.kinds & set(subscription.trigger.kinds):
                continue
            if subscription.trigger.filter and happening.event.get_data()["attempt"] != 1:  # type: ignore[index,call-overload]  # a dict
                continue
            found.add((subscription.name, happening.subject))
    return found


def made(configuration: Configuration) -> list[tuple[str, str]]:
    return sorted((run.occurrence.trigger, run.occurrence.subject) for run in configuration.made)


@pytest.mark.slow
@settings(max_examples=150)
@given(st.data())
def test_kills_restarts_and_second_deliveries_change_nothing(data: st.DataObject) -> None:
    found = data.draw(st.composite(configurations)())
    events = data.draw(st.composite(interleaved)(data.draw(histories())))
    world = World(*found)
    at = 0
    while at < len(events):
        some = data.draw(st.integers(1, 6))
        world.tell(*(told.maker for told in events[at : at + some]))
        at += some
        world.fuse = data.draw(st.none() | st.integers(0, 12))
        try:
            world.consume(at_once=data.draw(st.integers(1, 4)))
        except Killed:
            world.start_operator()
        world.fuse = None
        habit = data.draw(st.sampled_from(["", "", "restart", "deliver again", "remove runs"]))
        if habit == "deliver again":
            world.forget_acknowledgements()
        elif habit == "restart":
            world.start_operator()
        elif habit == "remove runs":
            for configuration in found:
                waiting = {(one.trigger, one.subject) for one in world.ledgers[configuration.uid].pending}
                kept = {
                    name: run for name, run in configuration.runs.items() if (run.occurrence.trigger, run.occurrence.subject) in waiting
                }
                configuration.runs = kept
    world.consume()
    world.act()
    for configuration in found:
        assert made(configuration) == sorted(expected(configuration, events))
        assert configuration.status.pending == []


@pytest.mark.slow
@settings(max_examples=100)
@given(st.data())
def test_the_order_of_events_changes_nothing(data: st.DataObject) -> None:
    """Even the order of the events of one run, which a stream keeps; for that the ledger must not have forgotten the run yet."""
    found = data.draw(st.composite(configurations)())
    events = [told for history in data.draw(histories()) for told in history]
    shuffled = data.draw(st.permutations([*events, *data.draw(st.lists(st.sampled_from(events), max_size=5))])) if events else []
    world = World(*found)
    world.compacts = False
    for told in shuffled:
        world.tell(told.maker)
    world.consume(at_once=data.draw(st.integers(1, 10)))
    for configuration in found:
        assert made(configuration) == sorted(expected(configuration, events))


@pytest.mark.slow
@settings(max_examples=100)
@given(st.data())
def test_the_index_finds_what_looking_at_all_triggers_finds(data: st.DataObject) -> None:
    found = data.draw(st.composite(configurations)())
    events = [told for history in data.draw(histories()) for told in history]
    subscriptions = Subscriptions()
    for configuration in found:
        subscriptions.replace(configuration.uid, subscribe(configuration.subscriber, configuration.triggers)[0])
    for configuration in data.draw(st.lists(st.sampled_from(found), max_size=1)):
        subscriptions.replace(configuration.uid, ())
        configuration.triggers = []
    for told in events:
        if (happening := told.happening) is None:
            continue
        matched = {(one.subscriber.uid, one.name, occurrence.subject) for one, occurrence in subscriptions.match(happening).occurrences}
        wanted = {(each.uid, *one) for each in found for one in expected(each, [told])}
        assert matched == wanted
    for configuration in found:
        subscriptions.replace(configuration.uid, ())
    assert len(subscriptions) == 0
    assert subscriptions.match(events[0].happening).occurrences == () if events and events[0].happening else True


MANY = subscribe(
    Subscriber("RunConfiguration", "team", "a", "a"), [trigger("pipelines.penguin", "running", "warning"), trigger("pipelines.x", "done")]
)[0]


@pytest.mark.slow
@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.integers(0, 2 * MAX_HANDLED), st.sampled_from(["running", "warning", "completion"])), max_size=60),
    st.integers(0, 3000),
)
def test_what_is_remembered_is_bounded_and_read_as_it_was_written(some: list[tuple[int, str]], storm: int) -> None:
    ledger, subscriptions = Ledger(), Subscriptions()
    subscriptions.replace("a", MANY)
    ledger.follow(MANY, ())
    told: list[tuple[int, str]] = [*((number, "running") for number in range(storm)), *some]
    for sequence, (number, what) in enumerate(told, 1):
        run = Upstream(f"r{number}")
        data: Any = run.completion() if what == "completion" else run.status(what)
        happening = of(data)(Position("runs", "c", sequence))
        assert happening is not None
        for _, occurrence in subscriptions.match(happening).occurrences:
            ledger.record(occurrence)
        if sequence % 7 == 0:
            ledger.worked_off(Position("runs", "c", sequence - 3))
    status = ledger.status()
    assert Ledger(status).status() == status
    assert len(status.pending) <= MAX_PENDING
    assert len(status.handled) <= MAX_HANDLED
    subjects = {number for number, _ in told}
    assert len(status.pending) + sum(entry.suppressed for entry in status.triggers) >= min(len(subjects), MAX_PENDING)


def test_triggers_are_the_same_however_they_are_written() -> None:
    written = [V1EventTrigger(ref=ref, kinds=["run_status_running"]) for ref in ("runs.a", "{{ runs.a }}", " {{runs.a}} ")]
    names = {subscribe(Subscriber("Run", "team", "x", "x"), [one])[0][0].name for one in written}
    assert len(names) == 1
