import pytest

from kfp_operator.events.triggers.filters import FilteredEvent
from kfp_operator.events.triggers.happening import Happening, Position
from kfp_operator.events.triggers.subscriptions import NAMESPACE_BUDGET, Subscriber, Subscriptions, subscribe
from kfp_operator.schemas import RunCompletion, RunStatus, V1EventTrigger
from tests.triggers.world import Upstream, of, trigger

RUN = Upstream("train-1")


def happening(data: RunStatus | RunCompletion | None = None) -> Happening:
    found = of(data or RUN.completion())(Position("runs", "monday", 1))
    assert found is not None
    return found


def waiting(*triggers: V1EventTrigger, name: str = "deploy", namespace: str = "team") -> Subscriptions:
    made = Subscriptions()
    found, refused = subscribe(Subscriber("RunConfiguration", namespace, name, name), triggers)
    assert refused == []
    made.replace(name, found)
    return made


def test_one_bad_trigger_stops_no_other_and_is_told_with_its_place() -> None:
    triggers = [trigger("runs.a", "done", filter="1 +"), trigger("runs.a", "done"), trigger("ops.b", "done")]
    found, refused = subscribe(Subscriber("RunConfiguration", "team", "x", "x"), triggers)
    assert [one.place for one in found] == [1]
    assert [(error.field, error.reason) for error in refused] == [
        ("events[0].filter", "InvalidFilter"),
        ("events[2].ref", "InvalidReference"),
    ]


def test_triggers_that_cannot_be_told_apart_are_all_refused() -> None:
    found, refused = subscribe(
        Subscriber("RunConfiguration", "team", "x", "x"), [trigger("runs.a", "done", name="n"), trigger("runs.b", "done", name="n")]
    )
    assert found == []
    assert "triggers 0 and 1 are both named 'n'" in str(refused[0])


def test_another_namespace_is_named_or_meant() -> None:
    ours, theirs = (
        waiting(trigger("runConfigurations.team/train", "done"), namespace="other"),
        waiting(trigger("runConfigurations.train", "done"), namespace="other"),
    )
    assert len(ours.match(happening()).occurrences) == 1
    assert theirs.match(happening()).occurrences == ()


def test_matches_come_in_the_order_of_the_list() -> None:
    kinds = ["done", "succeeded", "running", "created", "starting"]
    made = waiting(*(trigger("runs.train-1", kind) for kind in kinds))
    assert [one.trigger.kinds[0].state for one, _ in made.match(happening()).occurrences] == kinds


def test_the_kind_is_what_was_told_or_the_furthest_that_was_passed() -> None:
    made = waiting(trigger("runs.train-1", "created", "running", name="a"), trigger("runs.train-1", "done", "succeeded", name="b"))
    assert [occurrence.kind.state for _, occurrence in made.match(happening()).occurrences] == ["running", "succeeded"]


def test_who_waits_for_a_passing_state_is_told_when_the_run_ends() -> None:
    made = waiting(
        trigger("runs.train-1", "warning", name="a"), trigger("runs.train-1", "done", name="b"), trigger("runs.other", "warning", name="c")
    )
    matches = made.match(happening())
    assert [one.name for one, _ in matches.occurrences] == ["b"]
    assert [one.name for one in matches.closed] == ["a"]
    assert made.match(happening(RUN.status("running"))).closed == ()


def test_a_filter_that_does_not_hold_says_so_and_one_that_fails_says_why() -> None:
    made = waiting(
        trigger("runs.train-1", "done", filter="event.data.attempt == 2"), trigger("runs.train-1", "done", filter="event.nothing")
    )
    answers = [answer.problem for _, answer in made.match(happening()).filtered]
    assert answers[0] == ""
    assert "Key not found" in answers[1]


def test_the_filters_of_one_namespace_take_no_more_than_its_share_of_time() -> None:
    event = happening(RUN.completion(message="x"))
    triggers = [
        trigger("pipelines.penguin", "done", filter=f"event.data.artifacts.map(a, a).size() == 0 && {n} > 0") for n in range(1, 101)
    ]
    heavy, _ = subscribe(Subscriber("RunConfiguration", "team", "y", "y"), triggers)
    light, _ = subscribe(
        Subscriber("RunConfiguration", "other", "z", "z"), [trigger("runConfigurations.team/train", "done", filter="0 < 1")]
    )
    assert heavy[0].filter is not None
    cost = heavy[0].filter.cost(FilteredEvent(event.document()).measures)
    assert 0 < cost < NAMESPACE_BUDGET / 100
    for budget, matched in ((NAMESPACE_BUDGET, 100), (10 * cost, 10)):
        made = Subscriptions(namespace_budget=budget)
        made.replace("y", heavy)
        made.replace("z", light)
        matches = made.match(event)
        assert [one.subscriber.name for one, _ in matches.occurrences].count("y") == pytest.approx(matched, abs=1)
        assert [one.subscriber.name for one, _ in matches.occurrences].count("z") == 1
    assert "may take all the time there is" in matches.filtered[-1][1].problem


def test_a_reference_that_was_never_seen_is_told_with_similar_ones() -> None:
    made = waiting(
        trigger("runConfigurations.trian", "done"), trigger("runConfigurations.train", "done"), trigger("alerts.train", "alert_info")
    )
    assert made.never_seen(made.of("deploy")[1]) == []
    made.match(happening())
    assert made.never_seen(made.of("deploy")[0]) == ["runConfigurations.train"]
    assert made.never_seen(made.of("deploy")[1]) is None
    assert made.never_seen(made.of("deploy")[2]) == []


@pytest.mark.parametrize("times", [1, 3])
def test_a_subscriber_that_is_forgotten_leaves_nothing_behind(times: int) -> None:
    made = waiting(trigger("runs.train-1", "warning", "done"), trigger("runs.train-1", "stopping"))
    for _ in range(times):
        made.replace("deploy", made.of("deploy"))
    made.replace("deploy", ())
    assert (len(made), made.of("deploy")) == (0, ())
    matches = made.match(happening())
    assert (matches.occurrences, matches.closed) == ((), ())
