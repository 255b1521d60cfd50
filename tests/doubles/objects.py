"""Objects of our kinds at a simulated API server, for processes that come and go: resourceVersions, conflicts, deaths and lost answers."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from kfp_operator.api.meta import Model, Resource
from kfp_operator.errors import AlreadyExists, ClusterUnavailable, Conflict, Forbidden, NotFound
from kfp_operator.operator.store import Key, Store
from tests.doubles.world import Fate

R = TypeVar("R", bound=Resource)


class SimulatedObjects:
    """`ports.Objects`. A call dies or loses its answer as `fate` says."""

    def __init__(self, fate: Fate, created: datetime) -> None:
        self.fate = fate
        self.created_at = created
        self.objects: dict[Key, Resource] = {}
        self.created: Counter[str] = Counter()
        """How often each name was created."""
        self.status_writes: Counter[Key] = Counter()
        self.deleted = 0
        self.quota = False
        """While set, nothing is created."""
        self.lose_after_create = False
        """Whether the answer of the first write after a creation gets lost."""
        self._lost: set[str] = set()
        self._revision = 100

    def put(self, resource: Resource, **metadata: Any) -> Resource:
        """Somebody creates or changes the object."""
        self._revision += 1
        made = resource.metadata.model_copy(update={"resource_version": str(self._revision), **metadata})
        stored = resource.model_copy(update={"metadata": made})
        self.objects[Key.of(stored)] = stored
        return stored

    def lose_next(self, call: str) -> None:
        """The answer of the next call of that name gets lost."""
        self._lost.add(call)

    def list(self, store: Store) -> None:
        """The watch of a process catches up."""
        for resource in self.objects.values():
            store.put(resource)
        for key, uid in store.uids().items():
            if key not in self.objects or self.objects[key].metadata.uid != uid:
                store.drop(key)

    async def get(self, key: Key) -> Resource:
        self.fate.enter()
        if key not in self.objects:
            raise NotFound(f"{key} is gone", status=404)
        return self.objects[key]

    async def create(self, kind: type[R], document: Mapping[str, Any]) -> R:
        self.fate.enter()
        metadata = document["metadata"]
        key = Key(kind.__name__, metadata["namespace"], metadata["name"])
        if key in self.objects:
            raise AlreadyExists(f"{key} exists", status=409)
        if self.quota:
            raise Forbidden("exceeded quota: runs", status=403)
        self.created[key.name] += 1
        made = kind.parse({**document, "metadata": {**metadata, "uid": f"uid-of-{key.name}"}})
        answer = self._answer(self.put(made, creation_timestamp=self.created_at), "create")
        if self.lose_after_create:
            self.lose_after_create = False
            self.lose_next("patch_status")
        return answer

    async def patch_metadata(self, resource: R, metadata: Mapping[str, Any]) -> R:
        now = self._checked(resource)
        return self._answer(self.put(now, **metadata))

    async def patch_spec(self, resource: R, spec: Mapping[str, Any]) -> R:
        now = self._checked(resource)
        document = {"metadata": now.metadata.to_json(), "spec": {**now.spec.to_json(), **spec}, "status": now.status.to_json()}  # type: ignore[attr-defined]
        return self._answer(self.put(type(resource).parse(document)))

    async def patch_status(self, resource: R, status: Model) -> R:
        now = self._checked(resource)
        self.status_writes[Key.of(now)] += 1
        document = {"metadata": now.metadata.to_json(), "spec": now.spec.to_json(), "status": status.to_json()}  # type: ignore[attr-defined]
        return self._answer(self.put(type(resource).parse(document)), "patch_status")

    async def delete(self, key: Key, uid: str) -> None:
        self.fate.enter()
        if key not in self.objects:
            raise NotFound(f"{key} is gone", status=404)
        if self.objects[key].metadata.uid != uid:
            raise Conflict(f"{key} is another", status=409)
        del self.objects[key]
        self.deleted += 1

    def _checked(self, resource: Resource) -> Resource:
        self.fate.enter()
        key = Key.of(resource)
        if key not in self.objects:
            raise NotFound(f"{key} is gone", status=404)
        if self.objects[key].metadata.resource_version != resource.metadata.resource_version:
            raise Conflict(f"{key} changed", status=409)
        return self.objects[key]

    def _answer(self, resource: Any, call: str = "") -> Any:
        lost = call in self._lost
        self._lost.discard(call)
        if self.fate.leave("api") or lost:
            raise ClusterUnavailable("no answer")
        return resource
