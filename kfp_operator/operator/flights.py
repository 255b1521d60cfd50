"""What this process knows of Runs that have not ended, and which Run a backend's report is about.

All state of a Run outside its object lives in a `Flight`, lost with the process and made again by looking. Of a settled Run nothing is
kept: a backend that re-opens its run tells that by a report of a second or later attempt under an id that belongs to no flight, which is
rare enough to look for the Run among all settled ones by computing their ids.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime

from kfp_operator.operator.backends import Backends
from kfp_operator.operator.store import Key, SettledRun, Store
from kfp_operator.providers.protocol import RunUpdate, submission_id
from kfp_operator.reconcile.situation import Knowledge

STRANGERS = 4096
"""Reports of re-opened runs that belong to no Run are remembered, so that they are not looked for again each time they are told."""


@dataclass(slots=True)
class Flight:
    """What this process knows of one unfinished Run."""

    known: Knowledge = field(default_factory=Knowledge)
    submission: str = ""
    provider: str = ""
    generation: int = 0
    """That of the instance of the provider which was asked last; 0: none was."""
    announced: int = 0
    """Number of a submission that this process was the first to announce, and has not made yet: nobody has."""
    failures: dict[type, int] = field(default_factory=dict)
    not_before: dict[type, datetime] = field(default_factory=dict)


class Flights:
    """The flights of this process, by uid of the Run and by submission."""

    def __init__(self, store: Store, backends: Backends) -> None:
        self._store = store
        self._backends = backends
        self._flights: dict[str, Flight] = {}
        self._owners: dict[str, Key] = {}
        self._reopened: dict[str, str] = {}
        """uid of settled Runs to the submission that was re-opened."""
        self._strangers: OrderedDict[tuple[str, int], None] = OrderedDict()

    def get(self, uid: str) -> Flight | None:
        """The flight of the Run, if there is one."""
        return self._flights.get(uid)

    def enter(self, uid: str) -> Flight:
        """The flight of the Run, made if there is none."""
        return self._flights.setdefault(uid, Flight())

    @property
    def undelivered(self) -> int:
        """Runs with events that the bus has not taken."""
        return sum(1 for flight in self._flights.values() if flight.known.bus_away_since is not None)

    def follow(self, flight: Flight, key: Key, uid: str, provider: str, now: datetime) -> RunUpdate | None:
        """Follow the Run's current submission at its Provider; return the backend's latest report of it."""
        wanted = submission_id(uid, flight.known.current.number)
        if flight.submission != wanted:
            self._leave(flight)
            flight.submission, flight.provider = wanted, provider
            self._owners[wanted] = key
        backend = self._backends.get(flight.provider)
        if backend is None:
            return None
        if flight.generation != backend.generation:
            if flight.generation:
                flight.known.doubt()
            flight.generation = backend.generation
        update = backend.latest.get(wanted)
        if update is not None and update.gone:
            del backend.latest[wanted]
            flight.known.lose(now)
            return None
        return flight.known.current.numbered(update) if update is not None else None

    def owner(self, submission: str) -> Key | None:
        """The Run that a backend's report is about: one that this process follows, or a settled one that goes on at the backend."""
        key = self._owners.get(submission)
        return key if key is not None else self._settled(submission)

    def reopened(self, run: SettledRun) -> bool:
        """Whether the backend has gone on with the run of a settled Run."""
        flight = self._flights.get(run.uid)  # its release may have been seen before its answer came
        submission = self._reopened.get(run.uid) or (flight.submission if flight is not None else "")
        if not submission:
            return False
        backend = self._backends.get(run.provider)
        update = backend.latest.get(submission) if backend is not None else None
        return update is not None and run.current.attempt(update.attempt) > run.attempt

    def gone(self, uid: str) -> None:
        """The Run is settled or deleted: what is known of it beside its object is forgotten."""
        self._reopened.pop(uid, None)
        flight = self._flights.pop(uid, None)
        if flight is not None:
            self._leave(flight)

    def _leave(self, flight: Flight) -> None:
        self._owners.pop(flight.submission, None)
        self._backends.settle(flight.provider, flight.submission)

    def _settled(self, submission: str) -> Key | None:
        update = self._backends.latest(submission)
        if update is None or update.attempt <= 1 or update.observed is not None or (submission, update.attempt) in self._strangers:
            return None
        for run in self._store.settled():
            if submission_id(run.uid, run.current.number) == submission and run.current.attempt(update.attempt) > run.attempt:
                self._reopened[run.uid] = submission
                return run.key
        self._strangers[submission, update.attempt] = None
        if len(self._strangers) > STRANGERS:
            self._strangers.popitem(last=False)
        return None
