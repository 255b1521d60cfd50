"""The start gate of a single Run: it starts when something happens for the first time, and never waits again.

What a trigger of a Run refers to is either another run, whose past counts (a run that ran has run), or a stream of events, of which the
next one counts. The other run may end in a way that the event cannot come any more; when no trigger has a chance left, the Run is over
before it began: UpstreamFailed if a run that was waited for failed, else Skipped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kfp_operator.api.states import RunState
from kfp_operator.events.triggers.happening import Target, reached
from kfp_operator.events.triggers.subscriptions import Occurrence, Subscription
from kfp_operator.schemas import RefType, V1EventKind

WAITING = "WaitingForEvent"
OBSERVED = "EventObserved"
NOT_OBSERVED = "EventNotObserved"
UPSTREAM_FAILED = "UpstreamFailed"
UPSTREAM_DELETED = "UpstreamDeleted"


@dataclass(frozen=True, slots=True)
class Upstream:
    """A run that is waited for, as far as it is known."""

    state: RunState | None = None
    """None: nothing is known of it yet."""
    began: bool = False
    """Whether it is known to have started at the backend."""
    passed: frozenset[RunState] = frozenset()
    """States it was seen in."""
    deleted: bool = False
    """It was there, and is gone."""
    told: bool = True
    """Whether its end, if it ended, went through the triggers, so that no filter waits to see it."""

    @property
    def kinds(self) -> frozenset[V1EventKind]:
        """The kinds that hold."""
        if self.state is None:
            return frozenset()
        kinds = reached(self.state, began=self.began)
        return kinds.union(*(reached(state, began=False) for state in self.passed if not state.final))

    @property
    def over(self) -> bool:
        """Whether nothing more comes from it."""
        return self.deleted or (self.state is not None and self.state.final and self.told)


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether a Run may start. `never`: the state in which it ends because it cannot."""

    open: bool
    reason: str
    message: str
    never: RunState | None = None


def gate(subscriptions: Sequence[Subscription], upstreams: Mapping[Target, Upstream], opened: Occurrence | None = None) -> Gate:
    """Whether a Run with these triggers may start.

    `upstreams`: the runs that are referred to, those that are known. `opened`: the occurrence that opened the gate, remembered for ever.
    """
    if not subscriptions:
        return Gate(True, OBSERVED, "")
    if opened is not None:
        return Gate(True, OBSERVED, f"{opened.kind} of {opened.about}")
    for one in subscriptions:
        held = _upstream(one, upstreams).kinds.intersection(one.trigger.kinds) if one.filter is None else ()
        if held:
            return Gate(True, OBSERVED, f"{next(kind for kind in one.trigger.kinds if kind in held)} of {one.trigger.ref}")
    if all(_upstream(one, upstreams).over for one in subscriptions):
        return _never(subscriptions, upstreams)
    waits = " or ".join(_waits(one, upstreams) for one in subscriptions[:3])
    more = f" or {len(subscriptions) - 3} other events" if len(subscriptions) > 3 else ""
    return Gate(False, WAITING, f"waits for {waits}{more}")


def _upstream(subscription: Subscription, upstreams: Mapping[Target, Upstream]) -> Upstream:
    return upstreams.get(subscription.target, Upstream()) if subscription.target.type is RefType.RUNS else Upstream()


def _never(subscriptions: Sequence[Subscription], upstreams: Mapping[Target, Upstream]) -> Gate:
    found = [(one, _upstream(one, upstreams)) for one in subscriptions]
    failed = [one.trigger.ref for one, upstream in found if upstream.state in {RunState.FAILED, RunState.UPSTREAM_FAILED}]
    if failed:
        return Gate(False, UPSTREAM_FAILED, f"{failed[0]} failed, and what was waited for cannot come any more", RunState.UPSTREAM_FAILED)
    one, upstream = found[0]
    if upstream.deleted:
        return Gate(False, UPSTREAM_DELETED, f"{one.trigger.ref} was deleted before what was waited for", RunState.SKIPPED)
    kinds = ", ".join(kind.value for kind in one.trigger.kinds)
    return Gate(False, NOT_OBSERVED, f"{one.trigger.ref} ended {upstream.state} without {kinds}", RunState.SKIPPED)


def _waits(subscription: Subscription, upstreams: Mapping[Target, Upstream]) -> str:
    trigger = subscription.trigger
    words = f"{', '.join(kind.value for kind in trigger.kinds)} of {trigger.ref}"
    unknown = subscription.target.type is RefType.RUNS and _upstream(subscription, upstreams).state is None
    return f"{words}{', which nothing is known of yet' if unknown else ''}{' with its filter' if trigger.filter else ''}"
