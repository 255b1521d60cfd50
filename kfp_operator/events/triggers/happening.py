"""What happened, in the terms of triggers: to whom, which kinds of events that makes, and what tells it apart from all else.

A backend may be asked too late to be seen in every state, so an event also stands for the states that were passed on the way: who
succeeded, ran. Final states are taken from the completion, never from the run-status before it: only the completion ends a run, it
comes exactly once, and it knows the artifacts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from cloudevents.core.v1.event import CloudEvent

from kfp_operator.api.states import RunState
from kfp_operator.events import binding
from kfp_operator.events.inbound import Inbound, digest
from kfp_operator.schemas import RefType, RunCompletion, RunStatus, V1EventKind
from kfp_operator.schemas.kinds import STATUS_PREFIX

StreamRole = Literal["runs", "inbound"]

_WAY = (RunState.CREATED, RunState.QUEUED, RunState.SCHEDULED, RunState.STARTING, RunState.RUNNING)
"""The states that every run passes that gets there; all others may or may not come."""
_REACHED = {RunState.PROCESSING: RunState.RUNNING, RunState.WARNING: RunState.SCHEDULED, RunState.UNSCHEDULABLE: RunState.QUEUED}
"""How far on the way a run is that is in a state beside it; in any other one: created."""


class Target(NamedTuple):
    """What a reference comes to: one thing in one namespace."""

    type: RefType
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.type.value}.{self.namespace}/{self.name}"


class Position(NamedTuple):
    """Where an event is stored. Of two in one stream, the one with the higher sequence was stored later."""

    stream: StreamRole
    created: str
    """The stream's creation time: sequences begin anew with a new stream."""
    sequence: int


@dataclass(frozen=True, slots=True)
class Happening:
    """An event, as triggers see it."""

    targets: tuple[Target, ...]
    """All that may be referred to and that it happened to."""
    told: V1EventKind
    """What the event says."""
    kinds: frozenset[V1EventKind]
    """That, and what must have been before."""
    subject: str
    """What it is about, which a trigger acts upon once: uid and attempt of a run; of an event from outside, a hash of source and id."""
    about: str
    """The same for people: namespace/name of the run, or the reference."""
    event: CloudEvent
    position: Position
    closes: bool = False
    """Whether nothing more will be told about its subject."""

    def document(self) -> dict[str, Any]:
        """The event in JSON format, for filters."""
        attributes = {
            name: binding.rfc3339(value) if isinstance(value, datetime) else value
            for name, value in self.event.get_attributes().items()
            if value is not None
        }
        return {**attributes, "data": self.event.get_data()}


def run_happening(event: CloudEvent, data: RunStatus | RunCompletion, position: Position) -> Happening | None:
    """What an event about a run means to triggers; None: nothing, because its completion tells it.

    `data` is that of `event`, checked (`envelope.read`), so that its state is known.
    """
    state = RunState(data.state)
    if isinstance(data, RunStatus) and state.completes:
        return None
    kinds = reached(state, began=data.run_start_time is not None)
    if data.artifacts:
        kinds |= {V1EventKind.RUN_NEW_ARTIFACTS}
    return Happening(
        targets=tuple(_run_targets(data)),
        told=kind_of(state),
        kinds=kinds,
        subject=run_subject(data.run_uid, data.attempt),
        about=data.run_name,
        event=event,
        position=position,
        closes=state.final,
    )


def actor_happening(event: CloudEvent, data: RunStatus, kind: V1EventKind, position: Position) -> Happening:
    """Somebody approved a run, or took that back. `data`: the run, as it was then."""
    return Happening(
        targets=tuple(_run_targets(data)),
        told=kind,
        kinds=frozenset({kind}),
        subject=run_subject(data.run_uid, data.attempt),
        about=data.run_name,
        event=event,
        position=position,
    )


def inbound_happening(inbound: Inbound, position: Position) -> Happening:
    """Something happened outside. Its reference is meant in the namespace that it was published for."""
    reference, kind = inbound.data.reference, inbound.data.kind
    return Happening(
        targets=(Target(reference.type, inbound.namespace, reference.name),),
        told=kind,
        kinds=frozenset({kind}),
        subject=digest(inbound.source, inbound.id),
        about=str(reference),
        event=inbound.event,
        position=position,
        closes=True,
    )


def run_subject(uid: str, attempt: int) -> str:
    """What makes the events of one attempt of a run one subject."""
    return f"{uid}/{attempt}"


def kind_of(state: RunState) -> V1EventKind:
    """The kind that says that a run entered the state."""
    return V1EventKind(STATUS_PREFIX + state.value)


def reached(state: RunState, *, began: bool) -> frozenset[V1EventKind]:
    """The kinds that hold once a run was seen in a state. `began`: whether it is known to have started at the backend."""
    states = {state}
    if state is RunState.SUCCEEDED or (state in {RunState.FAILED, RunState.STOPPED} and began):
        states.update(_WAY)
    elif state in _WAY:
        states.update(_WAY[: _WAY.index(state)])
    else:
        states.update(_WAY[: _WAY.index(_REACHED.get(state, RunState.CREATED)) + 1])
    done = {V1EventKind.RUN_STATUS_DONE} if state.final else set()
    return frozenset({*map(kind_of, states), *done})


def outputs_known(kinds: Iterable[V1EventKind]) -> bool:
    """Whether each of the kinds comes only when a run's outputs are there, so that they may be used by what it starts."""
    return set(kinds) <= {V1EventKind.RUN_STATUS_SUCCEEDED, V1EventKind.RUN_NEW_ARTIFACTS}


def _run_targets(data: RunStatus | RunCompletion) -> Iterable[Target]:
    namespace, _, name = data.run_name.partition("/")
    yield Target(RefType.RUNS, namespace, name)
    if data.run_uid != name:
        yield Target(RefType.RUNS, namespace, data.run_uid)
    for kind, full_name in ((RefType.PIPELINES, data.pipeline_name), (RefType.RUN_CONFIGURATIONS, data.run_configuration_name)):
        owner, _, short = full_name.partition("/")
        if short:
            yield Target(kind, owner, short)
