"""What the API server told us last, in memory: the only thing decisions about dependents read.

Objects come from the watch and from the answers to our own writes, whichever is newer. A parsed Run takes 16 kB of Python objects, so
objects are kept as the JSON of what their models know (1 to 2 kB) and parsed when asked for, the last few hundred of them kept parsed.
A settled Run, of which a cluster has thousands and of which nothing is asked but to be counted and to expire, is kept as a
`SettledRun` of some 500 bytes; whoever needs all of it reads it from the API server. Objects refer to one another by name: the
store knows which unfinished ones refer to an object, so that a change wakes them and nobody else, and tells when one refers to it no
longer, so that what waits for the end of its users need not ask. It knows the Runs that an object controls, and tells when one changed.
"""

import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from kfp_operator.api import conditions
from kfp_operator.api.experiment import Experiment
from kfp_operator.api.meta import Resource
from kfp_operator.api.names import Names
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.provider import Provider
from kfp_operator.api.run import Run
from kfp_operator.api.run_configuration import RunConfiguration
from kfp_operator.api.run_schedule import RunSchedule
from kfp_operator.api.states import RunState
from kfp_operator.reconcile.attempts import FIRST, CurrentSubmission, shown
from kfp_operator.reconcile.blockers import unresolved
from kfp_operator.reconcile.run_configuration_parameters import full_name, references

KINDS: Mapping[str, type[Resource]] = {kind.__name__: kind for kind in (Provider, Pipeline, Experiment, RunConfiguration, RunSchedule, Run)}
"""The models of our kinds."""
TOMBSTONES = 10_000
"""How many deleted uids are remembered: an answer to our own write may come after the watch reported the deletion."""


class Key(NamedTuple):
    """Names an object of ours."""

    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, stored: "Stored") -> "Key":
        """The key of a model."""
        if isinstance(stored, SettledRun):
            return stored.key
        return cls(type(stored).__name__, stored.metadata.namespace, stored.metadata.name)

    @classmethod
    def parse(cls, kind: str, full_name: str) -> "Key":
        """From "namespace/name"."""
        namespace, _, name = full_name.partition("/")
        return cls(kind, namespace, name)

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class SettledRun:
    """A Run that is Completed, not being deleted and free of our finalizer."""

    key: Key
    uid: str
    resource_version: str
    state: RunState | None
    provider: str
    """``ns/name``"""
    pipeline: str
    """Name in the Run's namespace."""
    pipeline_version: str
    owner: str
    """uid of the controlling owner, or ""."""
    created: float
    """Seconds since the epoch, as the next one; 0: not known."""
    ended: float
    ttl: int | None
    """`spec.ttlSecondsAfterFinished`."""
    attempt: int = 1
    current: CurrentSubmission = FIRST
    """The last submission: a report of a later attempt of it says that the backend goes on with the run."""

    @property
    def expires(self) -> datetime | None:
        """When it is to be deleted."""
        return None if self.ttl is None or not self.ended else datetime.fromtimestamp(self.ended + self.ttl, UTC)


Stored = Resource | SettledRun


def read(kind: str, body: dict[str, Any], names: Names) -> Stored:
    """Parse what the API server sent. Raises pydantic's ValidationError when it is not of this kind."""
    stored = KINDS[kind].parse(body)
    return shorten(stored, names) if isinstance(stored, Run) and settled(stored, names) else stored


@dataclass(frozen=True, slots=True)
class _Entry:
    """An unfinished object at rest."""

    uid: str
    version: str
    state: RunState | None
    references: tuple[Key, ...]
    owner: str
    """uid of the controlling owner, or ""."""
    document: bytes


class Store:
    """All objects of our kinds in the namespaces served. Belongs to one event loop.

    `parsed`: how many are kept parsed. `released` is called with the key of an object that something unfinished has ceased to refer to,
    `owned` with the key of one that controls an object that changed, whoever changed it, or is gone.
    """

    def __init__(
        self,
        names: Names,
        *,
        parsed: int = 500,
        released: Callable[[Key], None] = lambda _: None,
        owned: Callable[[Key], None] = lambda _: None,
    ) -> None:
        self._names = names
        self._released = released
        self._on_owned = owned
        self._objects: dict[Key, _Entry | SettledRun] = {}
        self._parsed: OrderedDict[Key, Resource] = OrderedDict()
        self._most_parsed = parsed
        self._keys: dict[str, Key] = {}
        self._referring: dict[Key, dict[Key, None]] = {}
        self._owned: dict[str, dict[Key, None]] = {}
        self._dead: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, key: object) -> bool:
        return key in self._objects

    def get(self, key: Key) -> Stored | None:
        """The object as last seen; a settled Run in short form."""
        entry = self._objects.get(key)
        if entry is None or isinstance(entry, SettledRun):
            return entry
        model = self._parsed.get(key)
        if model is None:
            model = KINDS[key.kind].model_validate_json(entry.document)
        self._keep_parsed(key, model)
        return model

    def key_of(self, uid: str) -> Key | None:
        """The object with this uid."""
        return self._keys.get(uid)

    def uid_of(self, key: Key) -> str:
        """The object's uid, "" when it is not here."""
        entry = self._objects.get(key)
        return "" if entry is None else entry.uid

    def uids(self) -> dict[Key, str]:
        """The uids of all objects."""
        return {key: entry.uid for key, entry in self._objects.items()}

    def keys(self, kind: str = "") -> list[Key]:
        """All keys, or those of one kind."""
        return [key for key in self._objects if not kind or key.kind == kind]

    def settled(self) -> list[SettledRun]:
        """All settled Runs."""
        return [entry for entry in self._objects.values() if isinstance(entry, SettledRun)]

    def referring(self, key: Key) -> list[Key]:
        """Unfinished objects that refer to this one, which need not exist: Runs of a Pipeline, all of a Provider."""
        return list(self._referring.get(key, ()))

    def owned(self, uid: str) -> list[Stored]:
        """The objects that the object with this uid controls (metadata.ownerReferences), settled Runs in short form."""
        found = (self.get(key) for key in self._owned.get(uid, ()))
        return [stored for stored in found if stored is not None]

    def runs_by_state(self) -> Counter[str]:
        """Number of Runs in each state; those without one count as created."""
        return Counter(str(entry.state or RunState.CREATED) for key, entry in self._objects.items() if key.kind == "Run")

    def put(self, stored: Stored) -> bool:
        """Keep the object unless a newer one is kept or it is known to be deleted; tell whether anything changed."""
        if isinstance(stored, Run) and settled(stored, self._names):
            stored = shorten(stored, self._names)
        key = Key.of(stored)
        entry = stored if isinstance(stored, SettledRun) else self._entry(stored)
        if entry.uid in self._dead:
            return False
        before = self._objects.get(key)
        if before is not None:
            if not newer(_version(entry), _version(before)):
                return False
            self._remove(key, before)
        self._objects[key] = entry
        self._keys[entry.uid] = key
        if entry.owner:
            self._owned.setdefault(entry.owner, {})[key] = None
        if isinstance(entry, _Entry) and isinstance(stored, Resource):
            self._keep_parsed(key, stored)
            for target in entry.references:
                self._referring.setdefault(target, {})[key] = None
        self._release(before, entry)
        self._tell_owner(entry)
        return True

    def drop(self, key: Key, uid: str = "") -> bool:
        """Forget the object because it was deleted; tell whether it was here. `uid`: only that very one, not a new one of the same name."""
        entry = self._objects.get(key)
        if entry is None or (uid and entry.uid != uid):
            if uid:
                self._bury(uid)
            return False
        self._remove(key, entry)
        self._bury(entry.uid)
        self._release(entry, None)
        self._tell_owner(entry)
        return True

    def _entry(self, model: Resource) -> _Entry:
        return _Entry(
            uid=model.metadata.uid,
            version=model.metadata.resource_version,
            state=model.status.state if isinstance(model, Run) else None,
            references=tuple(self._references(model)),
            owner=_owner(model),
            document=model.model_dump_json(by_alias=True, exclude_unset=True).encode(),
        )

    def _keep_parsed(self, key: Key, model: Resource) -> None:
        self._parsed[key] = model
        self._parsed.move_to_end(key)
        if len(self._parsed) > self._most_parsed:
            self._parsed.popitem(last=False)

    def _remove(self, key: Key, entry: _Entry | SettledRun) -> None:
        del self._objects[key]
        self._parsed.pop(key, None)
        self._keys.pop(entry.uid, None)
        if entry.owner:
            owned = self._owned[entry.owner]
            del owned[key]
            if not owned:
                del self._owned[entry.owner]
        for target in _references_of(entry):
            referrers = self._referring[target]
            del referrers[key]
            if not referrers:
                del self._referring[target]

    def _release(self, before: _Entry | SettledRun | None, after: _Entry | SettledRun | None) -> None:
        for target in set(_references_of(before)).difference(_references_of(after)):
            self._released(target)

    def _tell_owner(self, entry: _Entry | SettledRun) -> None:
        owner = self._keys.get(entry.owner)
        if owner is not None:
            self._on_owned(owner)

    def _bury(self, uid: str) -> None:
        self._dead[uid] = None
        if len(self._dead) > TOMBSTONES:
            self._dead.popitem(last=False)

    def _references(self, model: Resource) -> Iterable[Key]:
        """What an unfinished object refers to; each once."""
        if isinstance(model, Pipeline | Experiment):
            return {Key.parse("Provider", model.spec.provider)}
        if isinstance(model, RunConfiguration):
            template, triggers, namespace = model.spec.run, model.spec.triggers, model.metadata.namespace
            others = [full_name(reference, namespace) for reference in triggers.run_configurations]
            named = {Key.parse("RunConfiguration", name) for name in (*others, *references(template.parameters, namespace))}
            return {Key("Pipeline", namespace, template.pipeline_name), *named}
        if isinstance(model, RunSchedule):
            return {Key("Pipeline", model.metadata.namespace, model.spec.template.pipeline_name)}
        if isinstance(model, Run):
            providers = {model.spec.provider, model.status.provider, model.metadata.annotations.get(self._names.provider, "")}
            named = {Key("Pipeline", model.metadata.namespace, model.spec.pipeline_name)}
            if model.spec.experiment_name:
                named.add(Key("Experiment", model.metadata.namespace, model.spec.experiment_name))
            unknown = unresolved(model.spec.parameters, model.status.resolved, model.metadata.namespace)
            waits_for = {Key.parse("RunConfiguration", name) for name in unknown}
            return {*named, *waits_for, *(Key.parse("Provider", name) for name in providers if name)}
        return ()


def _references_of(entry: _Entry | SettledRun | None) -> tuple[Key, ...]:
    return entry.references if isinstance(entry, _Entry) else ()


def _owner(model: Resource) -> str:
    return sys.intern(next((owner.uid for owner in model.metadata.owner_references if owner.controller), ""))


def _version(entry: _Entry | SettledRun) -> str:
    return entry.resource_version if isinstance(entry, SettledRun) else entry.version


def newer(version: str, than: str) -> bool:
    """Whether a resourceVersion is later than another of the same resource.

    They compare as integers (KEP-5504). An API server whose versions are not integers gets what arrives last.
    """
    if version.isdecimal() and than.isdecimal():
        return int(version) > int(than)
    return version != than


def settled(run: Run, names: Names) -> bool:
    """Whether nothing is left to do for the Run but to delete it one day."""
    completed = conditions.find(run.status.conditions, "Completed")
    if run.status.completion_state is None and (completed is None or completed.status != "True"):
        return False
    return run.metadata.deletion_timestamp is None and names.finalizer not in run.metadata.finalizers


def shorten(run: Run, names: Names) -> SettledRun:
    """The short form of a settled Run."""
    metadata, status = run.metadata, run.status
    completed = conditions.find(status.conditions, "Completed")
    ended = status.end_time or (completed.last_transition_time if completed else metadata.creation_timestamp)
    return SettledRun(
        key=Key("Run", sys.intern(metadata.namespace), metadata.name),
        uid=metadata.uid,
        resource_version=metadata.resource_version,
        state=status.state,
        provider=sys.intern(status.provider or metadata.annotations.get(names.provider, "") or run.spec.provider),
        pipeline=sys.intern(run.spec.pipeline_name),
        pipeline_version=sys.intern(status.pipeline_version),
        owner=_owner(run),
        created=metadata.creation_timestamp.timestamp() if metadata.creation_timestamp else 0.0,
        ended=ended.timestamp() if ended else 0.0,
        ttl=run.spec.ttl_seconds_after_finished,
        attempt=status.attempt,
        current=shown(status),
    )
