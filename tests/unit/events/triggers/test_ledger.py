from datetime import UTC, datetime
from typing import Any

import pytest

from kfp_operator.api.event_trigger import MAX_HANDLED, MAX_PENDING
from kfp_operator.events.triggers.happening import Position
from kfp_operator.events.triggers.ledger import Ledger, Recorded
from kfp_operator.events.triggers.subscriptions import Occurrence, Subscriber, Subscription, subscribe
from kfp_operator.schemas import V1EventKind, V1EventTrigger

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUNNING = V1EventKind.RUN_STATUS_RUNNING
ON_RUNNING = V1EventTrigger(ref="runConfigurations.train", kinds=[RUNNING], name="on-train")
ON_COMMIT = V1EventTrigger(ref="connections.git", kinds=["connection_git_commit"], name="on-commit")


def subscriptions(*triggers: V1EventTrigger) -> list[Subscription]:
    return subscribe(Subscriber("RunConfiguration", "team", "deploy", "uid"), triggers)[0]


def runs(sequence: int, created: str = "monday") -> Position:
    return Position("runs", created, sequence)


def inbound(sequence: int) -> Position:
    return Position("inbound", "monday", sequence)


def occurrence(subject: str, position: Position, **changes: Any) -> Occurrence:
    fields: dict[str, Any] = {"trigger": "on-train" if position.stream == "runs" else "on-commit", "kind": RUNNING, "about": "team/train-1"}
    return Occurrence(subject=subject, position=position, **fields | changes)


@pytest.fixture
def ledger() -> Ledger:
    made = Ledger()
    made.follow(subscriptions(ON_RUNNING, ON_COMMIT), [runs(10), inbound(0)])
    return made


def test_what_happened_before_the_trigger_was_there_starts_nothing(ledger: Ledger) -> None:
    assert ledger.record(occurrence("a/1", runs(10))) is Recorded.BEFORE
    assert ledger.record(occurrence("b/1", runs(11))) is Recorded.PENDING
    assert ledger.record(occurrence("c/1", runs(1, "tuesday"))) is Recorded.PENDING, "of a stream that was made anew"


def test_what_is_told_twice_is_recorded_once(ledger: Ledger) -> None:
    assert ledger.record(occurrence("a/1", runs(11))) is Recorded.PENDING
    assert ledger.record(occurrence("a/1", runs(11))) is Recorded.KNOWN
    assert ledger.record(occurrence("a/1", runs(12))) is Recorded.KNOWN
    assert ledger.record(occurrence("a/2", runs(13))) is Recorded.PENDING
    assert [one.subject for one in ledger.pending] == ["a/1", "a/2"]


def test_what_was_started_is_not_pending_and_still_known(ledger: Ledger) -> None:
    ledger.record(one := occurrence("a/1", runs(11)))
    ledger.started(one, "deploy-1", NOW)
    ledger.started(one, "deploy-1", NOW)
    assert ledger.pending == []
    assert ledger.record(occurrence("a/1", runs(12))) is Recorded.KNOWN
    entry = ledger.status().triggers[0]
    assert (entry.started, entry.last_run, entry.last_about, entry.last_kind) == (1, "deploy-1", "team/train-1", "run_status_running")


def test_an_attempt_is_forgotten_when_its_end_was_worked_off_and_not_before(ledger: Ledger) -> None:
    ledger.record(occurrence("a/1", runs(11)))
    ledger.record(occurrence("b/1", runs(12)))
    ledger.record(occurrence("a/1", runs(13), closed=True))
    ledger.worked_off(runs(12))
    assert len(ledger.status().handled) == 2
    ledger.worked_off(runs(13))
    assert len(ledger.status().handled) == 1, "b/1 goes on"
    assert ledger.record(occurrence("a/1", runs(11))) is Recorded.BEFORE, "delivered again by a consumer that was made anew"
    assert ledger.record(occurrence("b/1", runs(14))) is Recorded.KNOWN


def test_an_end_that_is_no_occurrence_closes_an_attempt_too(ledger: Ledger) -> None:
    ledger.record(occurrence("a/1", runs(11)))
    ledger.close("on-train", "a/1", runs(12))
    ledger.close("on-train", "stranger/1", runs(12))
    ledger = Ledger(ledger.status())
    ledger.worked_off(runs(11))
    assert len(ledger.status().handled) == 1
    ledger.worked_off(runs(12))
    assert ledger.status().handled == []


def test_an_event_from_outside_is_remembered_though_it_was_worked_off(ledger: Ledger) -> None:
    """Its publisher may send it again."""
    assert ledger.record(occurrence("x", inbound(1), closed=True)) is Recorded.PENDING
    ledger.worked_off(inbound(1))
    ledger = Ledger(ledger.status())
    ledger.worked_off(inbound(2))
    ledger.worked_off(runs(50))
    assert ledger.record(occurrence("x", inbound(3), closed=True)) is Recorded.KNOWN


def test_no_more_can_wait_than_there_is_room_for(ledger: Ledger) -> None:
    for number in range(MAX_PENDING):
        assert ledger.record(occurrence(f"a{number}/1", runs(11 + number))) is Recorded.PENDING
    assert ledger.record(occurrence("b/1", runs(5000))) is Recorded.OVERFLOW
    assert ledger.record(occurrence("b/1", runs(5001))) is Recorded.KNOWN
    entry = ledger.status().triggers[0]
    assert (entry.suppressed, entry.message) == (1, "1000 occurrences wait already: this one starts nothing")


def test_of_too_much_to_remember_the_oldest_that_ended_goes_first(ledger: Ledger) -> None:
    for number in range(MAX_HANDLED):
        ledger.record(one := occurrence(f"a{number}/1", runs(11 + number), closed=number in {7, 9}))
        ledger.started(one, "x", NOW)
    for number in range(3):
        ledger.record(one := occurrence(f"b{number}/1", runs(9000 + number)))
        ledger.started(one, "x", NOW)
    status = ledger.status()
    assert len(status.handled) == MAX_HANDLED

    def known(number: int) -> bool:
        return Ledger(status).record(occurrence(f"a{number}/1", runs(9500))) is Recorded.KNOWN

    assert [number for number in range(20) if not known(number)] == [0, 7, 9]


def test_a_trigger_that_waits_for_something_else_begins_anew(ledger: Ledger) -> None:
    ledger.record(occurrence("a/1", runs(11)))
    ledger.record(occurrence("x", inbound(1)))
    other = V1EventTrigger(ref="runConfigurations.train", kinds=["run_status_done"], name="on-train")
    ledger.follow(subscriptions(other, ON_COMMIT), [runs(20), inbound(2)])
    assert [one.subject for one in ledger.pending] == ["x"]
    assert ledger.status().triggers[0].suppressed == 1
    assert ledger.record(occurrence("b/1", runs(20))) is Recorded.BEFORE
    assert ledger.record(occurrence("a/1", runs(21))) is Recorded.KNOWN, "this occurrence of this trigger was acted upon"
    assert ledger.record(occurrence("c/1", runs(21))) is Recorded.PENDING


def test_the_same_triggers_again_change_nothing(ledger: Ledger) -> None:
    ledger.record(occurrence("a/1", runs(11)))
    before = ledger.status()
    ledger.follow(subscriptions(ON_RUNNING, ON_COMMIT), [runs(99), inbound(99)])
    assert ledger.status() == before


def test_a_trigger_that_is_gone_takes_what_waited_along(ledger: Ledger) -> None:
    ledger.record(one := occurrence("a/1", runs(11)))
    ledger.follow(subscriptions(ON_COMMIT), [runs(20), inbound(2)])
    assert ledger.pending == []
    assert ledger.record(occurrence("b/1", runs(21))) is Recorded.STRANGER
    ledger.suppress(one, "whatever")
    ledger.started(one, "whatever", NOW)
    assert [entry.name for entry in ledger.status().triggers] == ["on-commit"]


def test_a_trigger_may_look_back_at_the_latest_event_once() -> None:
    ledger = Ledger()
    latest = ON_RUNNING.model_copy(update={"start_from": "Latest"})
    last = occurrence("a/1", runs(7))
    ledger.follow(subscriptions(latest), [runs(10)], {"on-train": last})
    assert ledger.pending == [last]
    ledger.started(last, "deploy-1", NOW)
    ledger.follow(subscriptions(latest), [runs(12)], {"on-train": occurrence("b/1", runs(11))})
    assert ledger.pending == []


def test_a_suppressed_occurrence_says_why(ledger: Ledger) -> None:
    ledger.record(one := occurrence("a/1", runs(11)))
    ledger.suppress(one, "spec.suspend is set")
    ledger.suppress(one, "again")
    entry = ledger.status().triggers[0]
    assert (entry.suppressed, entry.message) == (1, "spec.suspend is set")
    assert ledger.record(occurrence("a/1", runs(12))) is Recorded.KNOWN


def test_it_reads_what_it_wrote(ledger: Ledger) -> None:
    for number in range(20):
        ledger.record(occurrence(f"a{number}/1", runs(11 + number), closed=number % 3 == 0))
        ledger.record(occurrence(f"x{number}", inbound(1 + number), closed=True))
    ledger.worked_off(runs(15))
    ledger.worked_off(inbound(4))
    status = ledger.status()
    again = Ledger(type(status).model_validate(status.to_json()))
    assert again.status() == status
    assert again.pending == ledger.pending
