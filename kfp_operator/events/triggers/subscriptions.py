"""Who waits for what: an index from (target, kind) to triggers, so that an event costs what it matches, however many triggers there are."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kfp_operator.api.states import RunState
from kfp_operator.errors import InvalidSpec
from kfp_operator.events.triggers.filters import BUDGET, Answer, Filter, FilteredEvent, compile_filter
from kfp_operator.events.triggers.happening import Happening, Position, Target, reached
from kfp_operator.schemas import Reference, RefType, V1EventKind, V1EventTrigger
from kfp_operator.schemas.kinds import ORDER
from kfp_operator.schemas.references import similar
from kfp_operator.schemas.trigger import trigger_names

NAMESPACE_BUDGET = 2 * BUDGET
"""Nanoseconds that the filters of one namespace may take for one event, in the worst case."""
MAX_SEEN = 10_000
"""Targets that are remembered as seen."""
REASON = "InvalidReference"

_ENDS = (RunState.SUCCEEDED, RunState.FAILED, RunState.STOPPED)
_AT_EVERY_END = frozenset.intersection(*(reached(state, began=True) for state in _ENDS))
"""Kinds whose subscribers match a run's end, too."""


class Subscriber(NamedTuple):
    """An object with triggers."""

    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Subscription:
    """One trigger of a subscriber, ready to be matched."""

    subscriber: Subscriber
    name: str
    """Of the trigger: given or computed, unique for the subscriber."""
    trigger: V1EventTrigger
    target: Target
    filter: Filter | None
    place: int = 0
    """In the subscriber's list."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something happened that a trigger waits for."""

    trigger: str
    """Name of the trigger."""
    subject: str
    """What makes it the same occurrence when it is told again, by this event or another one."""
    kind: V1EventKind
    about: str
    """What it happened to, for people."""
    position: Position
    """Of the event, to read it again for what it says."""
    closed: bool = False
    """Whether nothing more will be told about its subject."""


@dataclass(frozen=True, slots=True)
class Matches:
    """What an event means to all subscribers."""

    occurrences: tuple[tuple[Subscription, Occurrence], ...] = ()
    filtered: tuple[tuple[Subscription, Answer], ...] = ()
    """Those whose filter did not hold, or failed."""
    closed: tuple[Subscription, ...] = ()
    """Those that do not match, but may have acted upon an earlier event about the same subject, which has ended."""


_Key = tuple[str, str]
_Bucket = dict[_Key, Subscription]


def subscribe(
    subscriber: Subscriber, triggers: Sequence[V1EventTrigger], *, operations: Mapping[str, str] | None = None
) -> tuple[list[Subscription], list[InvalidSpec]]:
    """Make triggers ready to be matched. Those that cannot be are told with the field and the reason, and the others work.

    `operations`: in a Dag, the Run of each operation.
    """
    subscriptions, refused = [], list[InvalidSpec]()
    try:
        names = trigger_names(triggers)
    except ValueError as error:
        return [], [InvalidSpec(str(error), field="events", reason="DuplicateTrigger")]
    for index, (name, trigger) in enumerate(zip(names, triggers, strict=True)):
        try:
            target = resolve(trigger.reference, subscriber.namespace, operations, field=f"events[{index}].ref")
            compiled = compile_filter(trigger.filter, field=f"events[{index}].filter") if trigger.filter else None
        except InvalidSpec as error:
            refused.append(error)
            continue
        subscriptions.append(Subscription(subscriber, name, trigger, target, compiled, index))
    return subscriptions, refused


def resolve(reference: Reference, namespace: str, operations: Mapping[str, str] | None = None, *, field: str = "") -> Target:
    """What a reference comes to for somebody in a namespace. InvalidSpec for an operation that is not there."""
    if reference.type is not RefType.OPS:
        return Target(reference.type, reference.namespace or namespace, reference.name)
    if operations is None:
        raise InvalidSpec(f"{reference} names an operation, which only operations of the same Dag can do", field=field, reason=REASON)
    if reference.name not in operations:
        known = ", ".join(sorted(operations)) or "none"
        raise InvalidSpec(f"there is no operation {reference.name}; there are: {known}", field=field, reason=REASON)
    return Target(RefType.RUNS, namespace, operations[reference.name])


class Subscriptions:
    """All triggers of all subscribers."""

    def __init__(self, *, namespace_budget: float = NAMESPACE_BUDGET) -> None:
        self._namespace_budget = namespace_budget
        self._by_subscriber: dict[str, tuple[Subscription, ...]] = {}
        self._waiting: dict[tuple[Target, V1EventKind], _Bucket] = {}
        self._ending: dict[Target, _Bucket] = {}
        self._seen: OrderedDict[Target, None] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._by_subscriber.values()))

    def of(self, uid: str) -> tuple[Subscription, ...]:
        """A subscriber's subscriptions."""
        return self._by_subscriber.get(uid, ())

    def replace(self, uid: str, subscriptions: Iterable[Subscription]) -> None:
        """Exchange all subscriptions of a subscriber; none: it is forgotten."""
        for old in self._by_subscriber.pop(uid, ()):
            key = (uid, old.name)
            for kind in old.trigger.kinds:
                bucket = self._waiting[old.target, kind]
                del bucket[key]
                if not bucket:
                    del self._waiting[old.target, kind]
            if (ending := self._ending.get(old.target)) is not None:
                ending.pop(key, None)
                if not ending:
                    del self._ending[old.target]
        if new := tuple(subscriptions):
            self._by_subscriber[uid] = new
        for one in new:
            key = (uid, one.name)
            for kind in one.trigger.kinds:
                self._waiting.setdefault((one.target, kind), {})[key] = one
            if not _AT_EVERY_END.intersection(one.trigger.kinds):
                self._ending.setdefault(one.target, {})[key] = one

    def match(self, happening: Happening) -> Matches:
        """What the event means, and to whom: subscriber by subscriber, their triggers in the order of their list."""
        self._notice(happening)
        found, ended = _Bucket(), _Bucket()
        for target in happening.targets:
            for kind in happening.kinds:
                if bucket := self._waiting.get((target, kind)):
                    found |= bucket
            if happening.closes and (bucket := self._ending.get(target)):
                ended |= bucket
        sieve = _Sieve(happening, self._namespace_budget)
        occurrences, filtered = [], []
        for key, one in sorted(found.items(), key=lambda item: (item[0][0], item[1].place)):
            answer = sieve.answer(one)
            if answer.holds:
                occurrences.append((one, occurrence(one, happening)))
                ended.pop(key, None)
            else:
                filtered.append((one, answer))
        return Matches(tuple(occurrences), tuple(filtered), tuple(ended.values()))

    def never_seen(self, subscription: Subscription) -> list[str] | None:
        """None once anything happened to the target of a subscription; before, references like it that were seen."""
        target = subscription.target
        if target in self._seen:
            return None
        near = (_reference(one) for one in self._seen if (one.namespace, one.type) == (target.namespace, target.type))
        return [str(one) for one in similar(_reference(target), near)]

    def _notice(self, happening: Happening) -> None:
        for target in happening.targets:
            self._seen[target] = None
            self._seen.move_to_end(target)
        while len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)


def occurrence(subscription: Subscription, happening: Happening) -> Occurrence:
    """The event as an occurrence of a trigger that waits for one of its kinds."""
    kinds = happening.kinds.intersection(subscription.trigger.kinds)
    kind = happening.told if happening.told in kinds else max(kinds, key=ORDER.__getitem__)
    return Occurrence(subscription.name, happening.subject, kind, happening.about, happening.position, happening.closes)


class _Sieve:
    """The filters for one event: each text is evaluated once, and no namespace takes more than its share of time."""

    def __init__(self, happening: Happening, budget: float) -> None:
        self._happening = happening
        self._budget = budget
        self._event: FilteredEvent | None = None
        self._answers: dict[str, Answer] = {}
        self._spent: dict[str, float] = {}

    def answer(self, subscription: Subscription) -> Answer:
        if subscription.filter is None:
            return Answer(True)
        text, namespace = subscription.filter.text, subscription.subscriber.namespace
        if text in self._answers:
            return self._answers[text]
        if self._spent.get(namespace, 0.0) >= self._budget:
            return Answer(
                False, f"the other filters of namespace {namespace} may take all the time there is for an event; make them simpler"
            )
        if self._event is None:
            self._event = FilteredEvent(self._happening.document())
        before = self._event.cost
        answer = self._answers[text] = subscription.filter.evaluate(self._event)
        self._spent[namespace] = self._spent.get(namespace, 0.0) + self._event.cost - before
        return answer


def _reference(target: Target) -> Reference:
    return Reference(target.type, target.name)
