"""The world around triggers, in memory: streams that deliver at least once, an operator that may die between any two steps, and Runs.

What the operator does here is what `kfp_operator.events.triggers` expects of one: match what is delivered, record it with the subscriber,
store its status, acknowledge, then act upon what waits. Only the decisions are those of the product.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from kfp_operator.api.event_trigger import EventsStatus
from kfp_operator.api.schedule import ConcurrencyPolicy
from kfp_operator.api.states import RunState
from kfp_operator.events import envelope
from kfp_operator.events.inbound import make
from kfp_operator.events.triggers.causes import Causes
from kfp_operator.events.triggers.happening import Happening, Position, StreamRole, actor_happening, inbound_happening, run_happening
from kfp_operator.events.triggers.ledger import Ledger
from kfp_operator.events.triggers.subscriptions import Occurrence, Subscriber, Subscriptions, subscribe
from kfp_operator.reconcile.hourly import allowance
from kfp_operator.reconcile.starting import OwnedRun, Verdict, admit
from kfp_operator.schemas import Artifact, RunCompletion, RunStatus, V1EventKind, V1EventTrigger

BEGIN = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NAMESPACE = "team"


@dataclass(frozen=True)
class Upstream:
    """A run that tells events. `configuration` and `pipeline` may be empty or `namespace/name`."""

    name: str = "train-1"
    uid: str = ""
    configuration: str = "train"
    pipeline: str = "penguin"
    namespace: str = NAMESPACE

    @property
    def identity(self) -> str:
        return self.uid or f"uid-of-{self.name}"

    def _names(self) -> dict[str, str]:
        def full(name: str) -> str:
            return name if "/" in name or not name else f"{self.namespace}/{name}"

        return {
            "provider": "mlops/local",
            "pipeline_name": full(self.pipeline),
            "run_name": f"{self.namespace}/{self.name}",
            "run_uid": self.identity,
            "run_configuration_name": full(self.configuration),
        }

    def status(self, state: str, *, transition: int = 1, attempt: int = 1, **changes: Any) -> RunStatus:
        return RunStatus(**self._names(), state=state, transition=transition, attempt=attempt, time=BEGIN, **changes)

    def completion(self, state: str = "succeeded", *, began: bool = True, attempt: int = 1, **changes: Any) -> RunCompletion:
        outcome = "succeeded" if state == "succeeded" else "failed"
        start = BEGIN if began else None
        return RunCompletion(
            **self._names(), state=state, status=outcome, attempt=attempt, run_start_time=start, run_end_time=BEGIN, **changes
        )


def artifact(name: str = "model") -> Artifact:
    return Artifact(name=name, location=f"s3://{name}")


Maker = Callable[[Position], Happening | None]


def of(data: RunStatus | RunCompletion) -> Maker:
    """The event of a run."""
    event = envelope.build(data)
    return lambda position: run_happening(event, envelope.read(event), position)


def approved(data: RunStatus, kind: str = "run_approved_actor") -> Maker:
    """Somebody approved the run."""
    return lambda position: actor_happening(envelope.build(data), data, V1EventKind(kind), position)


def inbound(kind: str, ref: str, id_: str = "1", *, namespace: str = NAMESPACE, source: str = "git", **payload: Any) -> Maker:
    """An event from outside."""
    event = make(namespace, V1EventKind(kind), ref, payload, source=source, id_=id_, time=BEGIN)
    return lambda position: inbound_happening(event, position)


@dataclass
class Stream:
    """What is stored, and what the operator has acknowledged."""

    role: StreamRole
    created: str = "2026-03-01T00:00:00Z"
    messages: list[Maker] = field(default_factory=list)
    acknowledged: set[int] = field(default_factory=set)

    @property
    def head(self) -> Position:
        return Position(self.role, self.created, len(self.messages))

    @property
    def floor(self) -> Position:
        """Up to where all is acknowledged."""
        sequence = 0
        while sequence + 1 in self.acknowledged:
            sequence += 1
        return Position(self.role, self.created, sequence)

    def happening(self, sequence: int) -> Happening | None:
        return self.messages[sequence - 1](Position(self.role, self.created, sequence))


class Killed(Exception):
    """The operator died."""


@dataclass
class Started:
    """A Run that was made."""

    name: str
    occurrence: Occurrence
    causes: Causes = field(default_factory=Causes)
    ended: bool = False


@dataclass
class Configuration:
    """A RunConfiguration: what is stored of it at the API server."""

    triggers: Sequence[V1EventTrigger]
    name: str = "deploy"
    uid: str = "uid-of-deploy"
    namespace: str = NAMESPACE
    policy: ConcurrencyPolicy = "Allow"
    suspended: bool = False
    hourly: int | None = None
    status: EventsStatus = field(default_factory=EventsStatus)
    runs: dict[str, Started] = field(default_factory=dict)
    made: list[Started] = field(default_factory=list)
    """All Runs ever made, also those that were removed since."""
    times: list[datetime] = field(default_factory=list)

    @property
    def subscriber(self) -> Subscriber:
        return Subscriber("RunConfiguration", self.namespace, self.name, self.uid)


class World:
    """Streams, configurations and an operator."""

    def __init__(self, *configurations: Configuration) -> None:
        self.runs = Stream("runs")
        self.inbound = Stream("inbound")
        self.configurations = {one.uid: one for one in configurations}
        self.now = BEGIN
        self.writes = 0
        self.refuse_runs = False
        self.causes: dict[str, Causes] = {}
        """Of upstream runs, by uid."""
        self.fuse: int | None = None
        """Steps until the operator dies."""
        self.compacts = True
        """Whether it tells the ledgers what was worked off."""
        self.start_operator()

    # What others do

    def tell(self, *makers: Maker) -> None:
        """Events are stored."""
        for maker in makers:
            probe = maker(Position("runs", "", 0))
            role = self.inbound if probe is not None and not probe.told.internal else self.runs
            role.messages.append(maker)

    def edit(self, uid: str, triggers: Sequence[V1EventTrigger]) -> None:
        self.configurations[uid].triggers = triggers
        self._follow(self.configurations[uid])

    def delete(self, uid: str) -> None:
        del self.configurations[uid]
        self.subscriptions.replace(uid, ())
        self.ledgers.pop(uid, None)

    def forget_acknowledgements(self) -> None:
        """The consumer was deleted: everything is delivered again."""
        self.runs.acknowledged.clear()
        self.inbound.acknowledged.clear()

    # What the operator does

    def start_operator(self) -> None:
        """A new process, which knows what is stored."""
        self.subscriptions = Subscriptions()
        self.ledgers: dict[str, Ledger] = {}
        for configuration in self.configurations.values():
            self._follow(configuration)

    def add(self, configuration: Configuration) -> None:
        self.configurations[configuration.uid] = configuration
        self._follow(configuration)

    def _follow(self, configuration: Configuration) -> None:
        subscriptions, refused = subscribe(configuration.subscriber, configuration.triggers)
        assert not refused, refused
        self.subscriptions.replace(configuration.uid, subscriptions)
        ledger = Ledger(configuration.status)
        ledger.follow(subscriptions, (self.runs.head, self.inbound.head), self._latest(configuration))
        self.ledgers[configuration.uid] = ledger
        self._store(configuration, ledger)

    def _latest(self, configuration: Configuration) -> Mapping[str, Occurrence]:
        """What was stored last, for each trigger of one configuration: the operator reads it from the streams."""
        alone = Subscriptions()
        alone.replace(configuration.uid, subscribe(configuration.subscriber, configuration.triggers)[0])
        found: dict[str, Occurrence] = {}
        for stream in (self.runs, self.inbound):
            for sequence in range(1, len(stream.messages) + 1):
                if (happening := stream.happening(sequence)) is not None:
                    found |= {one.name: occurrence for one, occurrence in alone.match(happening).occurrences}
        return found

    def _store(self, configuration: Configuration, ledger: Ledger) -> None:
        status = ledger.status()
        if status != configuration.status:
            configuration.status = status
            self.writes += 1

    def step(self) -> None:
        """A point at which the operator may die."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.fuse = None
                raise Killed

    def deliver(self, deliveries: Sequence[tuple[Stream, int]]) -> None:
        """Some deliveries, to their acknowledgement: one write for each object that they touch."""
        touched: dict[str, Ledger] = {}
        for stream, sequence in deliveries:
            if (happening := stream.happening(sequence)) is None:
                continue
            matches = self.subscriptions.match(happening)
            for one, occurrence in matches.occurrences:
                touched[one.subscriber.uid] = self.ledgers[one.subscriber.uid]
                self.ledgers[one.subscriber.uid].record(occurrence)
            for one in matches.closed:
                touched[one.subscriber.uid] = self.ledgers[one.subscriber.uid]
                self.ledgers[one.subscriber.uid].close(one.name, happening.subject, happening.position)
        self.step()
        for uid, ledger in touched.items():
            for stream in (self.runs, self.inbound) if self.compacts else ():
                ledger.worked_off(stream.floor)
            self._store(self.configurations[uid], ledger)
            self.step()
        for stream, sequence in deliveries:
            stream.acknowledged.add(sequence)
            self.step()

    def consume(self, *, at_once: int = 1) -> None:
        """Deliver all that is not acknowledged, so many at once, and act."""
        waiting = [(s, n) for s in (self.runs, self.inbound) for n in range(1, len(s.messages) + 1) if n not in s.acknowledged]
        for start in range(0, len(waiting), at_once):
            self.deliver(waiting[start : start + at_once])
        self.act()

    def act(self) -> None:
        """What the controller does about everything that waits."""
        for configuration in list(self.configurations.values()):
            self._act(configuration, self.ledgers[configuration.uid])

    def _act(self, configuration: Configuration, ledger: Ledger) -> None:
        waiting = ledger.pending
        if configuration.suspended:
            for occurrence in waiting:
                ledger.suppress(occurrence, "suspended")
        elif not self.refuse_runs:
            queued: list[Occurrence] = []
            for occurrence in waiting:
                self._consider(configuration, ledger, occurrence, queued)
            for occurrence in queued[:-1]:
                ledger.suppress(occurrence, "a later one took its place")
        self._store(configuration, ledger)

    def _consider(self, configuration: Configuration, ledger: Ledger, occurrence: Occurrence, queued: list[Occurrence]) -> None:
        uid = occurrence.subject.partition("/")[0]
        causes = self.causes.get(uid, Causes())
        full_name = f"{configuration.namespace}/{configuration.name}"
        if why := causes.refusal(full_name):
            ledger.suppress(occurrence, why)
            return
        room = allowance(configuration.times, configuration.hourly, self.now)
        if room is not None and room.starts == 0:
            ledger.suppress(occurrence, "maxRunsPerHour")
            return
        name = f"{configuration.name}-{occurrence.trigger}-{occurrence.subject}"
        owned = [OwnedRun(run.name, run.name, self.now, ended=self.now if run.ended else None) for run in configuration.runs.values()]
        admission = admit(configuration.policy, owned, name)
        match admission.verdict:
            case Verdict.SKIP:
                ledger.suppress(occurrence, admission.because)
            case Verdict.QUEUE:
                queued.append(occurrence)
            case Verdict.STOP | Verdict.START:
                for other in admission.others:
                    configuration.runs[other.name].ended = True
                if name not in configuration.runs:  # the API server answers AlreadyExists
                    run = Started(name, occurrence, causes)
                    configuration.runs[name] = run
                    configuration.made.append(run)
                    configuration.times.append(self.now)
                self.step()
                ledger.started(occurrence, name, self.now)
                self._store(configuration, ledger)
                self.step()


def trigger(ref: str, *kinds: str, **more: Any) -> V1EventTrigger:
    """A trigger, kinds without their prefix: ``trigger("runConfigurations.train", "running")``."""
    full = [
        kind if kind.partition("_")[0] in {"run", "connection", "alert", "model", "project", "org"} else f"run_status_{kind}"
        for kind in kinds
    ]
    return V1EventTrigger(ref=ref, kinds=full, **more)


def later(world: World, seconds: float) -> None:
    """The clock goes on."""
    world.now += timedelta(seconds=seconds)


def renamed(upstream: Upstream, name: str) -> Upstream:
    """Another run of the same configuration."""
    return replace(upstream, name=name, uid="")


FINAL = [state.value for state in RunState if state.completes]
