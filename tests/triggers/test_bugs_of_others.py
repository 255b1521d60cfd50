"""What went wrong elsewhere with events that start work, one test each, as far as matching and deciding can show it.

Numbers are those of the issues of the projects named.
"""

import time

import pytest

from kfp_operator.api.states import RunState
from kfp_operator.events.triggers.gate import Upstream as Watched
from kfp_operator.events.triggers.gate import gate
from kfp_operator.events.triggers.happening import Position, Target
from kfp_operator.events.triggers.subscriptions import Subscriber, Subscriptions, subscribe
from kfp_operator.schemas import RefType, V1EventKind
from kfp_operator.schemas.trigger import trigger_names
from tests.triggers.world import Configuration, Killed, Upstream, World, inbound, of, trigger

TRAIN = Upstream("train-1")
ON_SUCCESS = trigger("runConfigurations.train", "succeeded")


def test_a_second_list_of_everything_fires_nothing_again() -> None:
    """argo-events 681, 760, 1025."""
    world = World(configuration := Configuration([ON_SUCCESS, trigger("connections.git", "connection_git_commit")]))
    world.tell(of(TRAIN.completion()), inbound("connection_git_commit", "connections.git"))
    world.consume()
    for _ in range(3):
        world.forget_acknowledgements()
        world.start_operator()
        world.consume()
    assert len(configuration.made) == 2


def test_history_does_not_fire_what_is_new_or_was_suspended() -> None:
    """airflow 38826."""
    world = World()
    world.tell(*(of(Upstream(f"train-{number}").completion()) for number in range(10)))
    world.add(configuration := Configuration([ON_SUCCESS], suspended=True))
    world.tell(of(TRAIN.completion()))
    world.consume()
    configuration.suspended = False
    world.start_operator()
    world.consume()
    assert configuration.made == []
    assert configuration.status.triggers[0].suppressed == 1


def test_what_is_told_after_a_suspension_is_not_lost() -> None:
    """airflow 38891, 49857, 50890."""
    world = World(configuration := Configuration([ON_SUCCESS], suspended=True))
    world.tell(of(TRAIN.completion()))
    world.consume()
    configuration.suspended = False
    world.tell(of(Upstream("train-2").completion()))
    world.consume()
    assert [run.occurrence.about for run in configuration.made] == ["team/train-2"]


def test_as_many_runs_are_started_as_events_come_at_once() -> None:
    """airflow 35870, 47398; prefect 11199."""
    world = World(configuration := Configuration([ON_SUCCESS]))
    world.tell(*(of(Upstream(f"train-{number}").completion()) for number in range(100)))
    world.consume(at_once=100)
    assert len(configuration.made) == 100


def test_no_trigger_is_started_by_what_another_one_waits_for() -> None:
    """airflow 56541, dagster 30992, kestra 1472, 1917: conditions on several inputs that held without one of them. Ours stand alone."""
    both = [ON_SUCCESS, trigger("runConfigurations.test", "succeeded")]
    world = World(configuration := Configuration(both))
    world.tell(of(TRAIN.completion()), of(Upstream("train-2").completion()))
    world.consume()
    assert {run.occurrence.trigger for run in configuration.made} == {trigger_names(both)[0]}


def test_what_one_process_recorded_the_next_one_starts() -> None:
    """prefect 18049: events that came to one server were not seen by another."""
    world = World(configuration := Configuration([ON_SUCCESS]))
    world.tell(of(TRAIN.completion()))
    world.fuse = 2  # recorded and stored, not acknowledged
    with pytest.raises(Killed):
        world.consume()
    assert configuration.made == []
    world.start_operator()
    world.act()
    assert len(configuration.made) == 1
    world.consume()
    assert len(configuration.made) == 1


@pytest.mark.parametrize("state", [state for state in RunState if not state.final])
def test_nothing_is_given_up_while_the_run_that_is_waited_for_is_alive(state: RunState) -> None:
    """prefect 21932, 14692: what waits for the absence of an event fired on healthy runs."""
    found, _ = subscribe(Subscriber("Run", "team", "report", "uid"), [trigger("runs.train-1", "succeeded")])
    assert gate(found, {Target(RefType.RUNS, "team", "train-1"): Watched(state)}).never is None


def test_the_same_event_twice_in_one_go_starts_one_run() -> None:
    """dagster 26753."""
    world = World(configuration := Configuration([ON_SUCCESS, trigger("connections.git", "connection_git_commit")]))
    world.tell(*[of(TRAIN.completion())] * 2, *[inbound("connection_git_commit", "connections.git")] * 2)
    world.consume(at_once=4)
    assert len(configuration.made) == 2


def test_an_error_on_the_way_repeats_nothing_that_was_done() -> None:
    """dagster 4887: the cursor stayed where it was when one of several failed, and all were repeated."""
    world = World(first := Configuration([ON_SUCCESS], uid="1"), second := Configuration([ON_SUCCESS], uid="2"))
    world.tell(*(of(Upstream(f"train-{number}").completion()) for number in range(5)))
    for fuse in range(0, 60, 7):
        world.fuse = fuse
        try:
            world.consume()
        except Killed:
            world.start_operator()
    world.fuse = None
    world.consume()
    assert (len(first.made), len(second.made)) == (5, 5)


def test_an_occurrence_says_what_matched_whatever_came_after() -> None:
    """dagster 6931: the status was read later than the one that had matched."""
    world = World(configuration := Configuration([trigger("runConfigurations.train", "running", "failed")]))
    world.refuse_runs = True
    world.tell(of(TRAIN.status("running", transition=2)))
    world.consume()
    world.tell(of(TRAIN.completion("failed")))
    world.consume()
    world.refuse_runs = False
    world.act()
    assert [(run.occurrence.kind, run.occurrence.position.sequence) for run in configuration.made] == [(V1EventKind.RUN_STATUS_RUNNING, 1)]


@pytest.mark.slow
def test_an_event_costs_what_it_matches_however_many_triggers_there_are() -> None:
    """dagster 19224, 9444: falls behind under load."""

    def seconds(triggers: int) -> float:
        subscriptions = Subscriptions()
        for number in range(triggers):
            uid = f"uid-{number}"
            found, _ = subscribe(
                Subscriber("RunConfiguration", "team", uid, uid), [trigger(f"runConfigurations.c{number}", "succeeded", "failed")]
            )
            subscriptions.replace(uid, found)
        happenings = [of(Upstream(f"r{n}", configuration=f"c{n % 100}").completion())(Position("runs", "", n)) for n in range(200)]
        started = time.thread_time()
        for happening in happenings:
            assert happening is not None
            assert len(subscriptions.match(happening).occurrences) == 1
        return time.thread_time() - started

    few = min(seconds(100) for _ in range(3))
    many = min(seconds(5_000) for _ in range(2))
    assert many < 10 * few


def test_two_triggers_of_one_name_are_refused() -> None:
    """kestra 12560, 12905: both fired twice."""
    found, refused = subscribe(
        Subscriber("RunConfiguration", "team", "x", "x"), [trigger("runs.a", "done", name="same"), trigger("runs.a", "failed", name="same")]
    )
    assert found == []
    assert "both named 'same'" in str(refused[0])


@pytest.mark.parametrize("state", ["succeeded", "failed", "stopped", "skipped", "upstream_failed"])
def test_one_trigger_is_enough_for_every_end(state: str) -> None:
    """dagster 9181 asked for it."""
    world = World(configuration := Configuration([trigger("runConfigurations.train", "done")]))
    world.tell(of(TRAIN.completion(state) if RunState(state).completes else TRAIN.status(state)))
    world.consume()
    assert len(configuration.made) == 1
