"""Which Run a backend's report is about, that of a settled Run included."""

from typing import Any

from kfp_operator.operator.backends import Backend
from kfp_operator.operator.flights import STRANGERS, Flights
from kfp_operator.operator.store import Key, SettledRun, Store
from kfp_operator.providers.protocol import Observed, RunUpdate, submission_id
from tests import builders as b


class Reports:
    """The backends of one Provider: only what they reported last."""

    def __init__(self) -> None:
        self.kept: dict[str, RunUpdate] = {}
        self.asked = 0
        self.generation = 1

    def get(self, name: str) -> Backend | None:
        return Backend(self.generation, provider=None, latest=self.kept) if name == "mlops/local" else None  # type: ignore[arg-type]

    def latest(self, submission: str) -> RunUpdate | None:
        self.asked += 1
        return self.kept.get(submission)

    def settle(self, name: str, submission: str) -> None:
        self.kept.pop(submission, None)

    def tell(self, submission: str, *states: str, **changes: Any) -> None:
        self.kept[submission] = b.update(*states, submission_id=submission, **changes)


class CountingStore(Store):
    """Counts how often all settled Runs are looked through."""

    looked = 0

    def settled(self) -> list[SettledRun]:
        self.looked += 1
        return super().settled()


def rig(**status: Any) -> tuple[Flights, Reports, CountingStore]:
    """One settled Run, uid-1, whose only attempt failed unless `status` says more."""
    store, reports = CountingStore(b.NAMES), Reports()
    settled = {"state": "failed", "completionState": "Failed", "attempt": 1, "transition": 3, "provider": "mlops/local"}
    done = [{"type": "Completed", "status": "True", "reason": "Failed", "lastTransitionTime": "2026-03-01T12:00:00Z"}]
    store.put(b.run(status=settled | {"conditions": done} | status))
    return Flights(store, reports), reports, store  # type: ignore[arg-type]


def settled_of(store: Store) -> SettledRun:
    (found,) = store.settled()
    return found


RUN = Key("Run", "team", "train-1")


def test_a_report_belongs_to_the_run_whose_current_submission_it_is_about() -> None:
    flights, reports, _ = rig()
    flight = flights.enter("uid-2")
    key = Key("Run", "team", "train-2")
    reports.tell(submission_id("uid-2", 1), "running")
    update = flights.follow(flight, key, "uid-2", "mlops/local", b.NOW)
    assert update is not None
    assert flights.owner(submission_id("uid-2", 1)) == key
    flights.gone("uid-2")
    assert flights.owner(submission_id("uid-2", 1)) is None
    assert reports.kept == {}, "and is forgotten with it"


def test_a_reopened_run_of_a_settled_run_is_found() -> None:
    flights, reports, store = rig()
    reports.tell(submission_id("uid-1", 1), "running", attempt=2)
    assert flights.owner(submission_id("uid-1", 1)) == RUN
    assert flights.reopened(settled_of(store))
    flights.gone("uid-1")
    assert not flights.reopened(settled_of(store))


def test_a_run_that_is_reopened_while_its_release_has_no_answer_yet_is_found() -> None:
    flights, reports, store = rig()
    flights.follow(flights.enter("uid-1"), RUN, "uid-1", "mlops/local", b.NOW)
    reports.tell(submission_id("uid-1", 1), "running", attempt=2)
    assert flights.owner(submission_id("uid-1", 1)) == RUN
    assert flights.reopened(settled_of(store))


def test_the_last_submission_counts_and_the_attempts_before_it() -> None:
    flights, reports, _ = rig(attempt=3, submission=2, firstAttempt=2)
    reports.tell(submission_id("uid-1", 1), "running", attempt=9)
    assert flights.owner(submission_id("uid-1", 1)) is None, "an earlier submission, which another has replaced"
    reports.tell(submission_id("uid-1", 2), "failed", attempt=2)
    assert flights.owner(submission_id("uid-1", 2)) is None, "attempt 3 is the one that ended"
    reports.tell(submission_id("uid-1", 2), "running", attempt=3)
    assert flights.owner(submission_id("uid-1", 2)) == RUN


def test_settled_runs_are_looked_through_only_for_reopened_ones_and_once() -> None:
    flights, reports, store = rig()
    reports.tell("first-attempt", "running")
    reports.tell("observed", "running", attempt=2, observed=Observed("by others"))
    reports.tell("of-nobody", "running", attempt=2)
    for submission in ("first-attempt", "observed", "of-nobody", "of-nobody", "never-told"):
        assert flights.owner(submission) is None
    assert store.looked == 1
    reports.tell("of-nobody", "running", attempt=3)
    assert flights.owner("of-nobody") is None
    assert store.looked == 2, "another attempt is other news"


def test_strangers_are_remembered_up_to_a_bound() -> None:
    flights, reports, _ = rig()
    for n in range(STRANGERS + 10):
        reports.tell(f"of-nobody-{n}", "running", attempt=2)
        flights.owner(f"of-nobody-{n}")
    assert len(flights._strangers) == STRANGERS


def test_a_run_that_its_backend_does_not_know_any_more_is_to_be_looked_for() -> None:
    flights, reports, _ = rig()
    flight = flights.enter("uid-2")
    flight.known.update = b.update("running")
    wanted = submission_id("uid-2", 1)
    reports.tell(wanted, "running", gone=True)
    assert flights.follow(flight, RUN, "uid-2", "mlops/local", b.NOW) is None
    assert (flight.known.update, flight.known.absent_since) == (None, b.NOW)
    flight.known.update, flight.known.absent_since = b.update("running"), None
    assert flights.follow(flight, RUN, "uid-2", "mlops/local", b.NOW) is None
    assert flight.known.update is not None  # said once, and looked for since


def test_an_end_is_not_forgotten_because_the_backend_forgets_the_run() -> None:
    flights, reports, _ = rig()
    flight = flights.enter("uid-2")
    flight.known.update = b.update("running", "succeeded")
    reports.tell(submission_id("uid-2", 1), "running", gone=True)
    flights.follow(flight, RUN, "uid-2", "mlops/local", b.NOW)
    assert flight.known.update is not None


def test_a_provider_that_was_edited_is_asked_for_the_runs_it_had() -> None:
    flights, reports, _ = rig()
    running, ended = flights.enter("uid-2"), flights.enter("uid-3")
    for uid, flight in (("uid-2", running), ("uid-3", ended)):
        flights.follow(flight, RUN, uid, "mlops/local", b.NOW)
    running.known.update, ended.known.update = b.update("running"), b.update("running", "failed")
    for uid, flight in (("uid-2", running), ("uid-3", ended)):
        flights.follow(flight, RUN, uid, "mlops/local", b.NOW)
    assert running.known.update is not None
    reports.generation = 2
    for uid, flight in (("uid-2", running), ("uid-3", ended)):
        flights.follow(flight, RUN, uid, "mlops/local", b.NOW)
    assert running.known.update is None
    assert ended.known.update is not None
