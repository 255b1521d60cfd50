"""Our kinds at the API server, as typed objects: the real `ports.Objects` and `ports.Revisions`."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from kfp_operator.api import revision
from kfp_operator.api.meta import Model, Resource, Status
from kfp_operator.api.names import Names, label_value
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.revision import Revision
from kfp_operator.errors import ClusterUnavailable, Conflict, NotFound
from kfp_operator.operator.client import Cluster
from kfp_operator.operator.ports import Guard
from kfp_operator.operator.resources import CONFIG_MAPS, CONTROLLER_REVISIONS, Kinds
from kfp_operator.operator.resources import Resource as ApiResource
from kfp_operator.operator.store import KINDS, Key
from kfp_operator.reconcile.pipeline import KeptRevision

R = TypeVar("R", bound=Resource)


class ClusterObjects:
    """Reads and writes objects of our kinds; `guard` is called before every write."""

    def __init__(self, cluster: Cluster, kinds: Kinds, guard: Guard) -> None:
        self._cluster = cluster
        self._resources: dict[str, ApiResource] = {resource.kind: resource for resource in kinds.all}
        self._guard = guard

    async def get(self, key: Key) -> Resource:
        """The object as it is now."""
        return KINDS[key.kind].parse(await self._cluster.get(self._resources[key.kind], key.name, key.namespace))

    async def create(self, kind: type[R], document: Mapping[str, Any]) -> R:
        """Create what the manifest says."""
        self._guard()
        return kind.parse(await self._cluster.create(self._resources[kind.__name__], document, document["metadata"]["namespace"]))

    async def patch_spec(self, resource: R, spec: Mapping[str, Any]) -> R:
        """Merge into the spec."""
        self._guard()
        return await self._patch(resource, {"metadata": {"resourceVersion": resource.metadata.resource_version}, "spec": spec}, "")

    async def patch_metadata(self, resource: R, metadata: Mapping[str, Any]) -> R:
        """Merge into metadata."""
        self._guard()
        return await self._patch(resource, {"metadata": {**metadata, "resourceVersion": resource.metadata.resource_version}}, "")

    async def patch_status(self, resource: R, status: Model) -> R:
        """Write the differences to the status; removed members become null.

        Of a status in the Go operator's form nothing stays: where its form is another, the API server would refuse what is merged into it.
        """
        present: Status = getattr(resource, "status")  # noqa: B009  # every kind of ours has a status, the base has none
        before, after = present.to_json(), status.to_json()
        changes: dict[str, Any] = {name: value for name, value in after.items() if present.in_go_form or before.get(name) != value}
        changes |= {name: None for name in before if name not in after}
        if not changes:
            return resource
        self._guard()
        body = {"metadata": {"resourceVersion": resource.metadata.resource_version}, "status": changes}
        return await self._patch(resource, body, "status")

    async def delete(self, key: Key, uid: str) -> None:
        """Delete this very object."""
        self._guard()
        await self._cluster.delete(self._resources[key.kind], key.name, key.namespace, uid=uid)

    async def _patch(self, resource: R, body: Mapping[str, Any], subresource: str) -> R:
        meta = resource.metadata
        kind = type(resource)
        answer = await self._cluster.patch(self._resources[kind.__name__], meta.name, body, meta.namespace, subresource=subresource)
        return kind.parse(answer)


class ClusterRevisions:
    """The ControllerRevisions of Pipelines, and the ConfigMaps that hold compiled pipelines."""

    def __init__(self, cluster: Cluster, names: Names, guard: Guard) -> None:
        self._cluster = cluster
        self._names = names
        self._guard = guard

    async def list(self, pipeline: Pipeline) -> Sequence[KeptRevision]:
        """All revisions that the Pipeline owns."""
        selector = f"{self._names.pipeline}={label_value(pipeline.metadata.name)}"
        found = []
        async for body in self._cluster.list(CONTROLLER_REVISIONS, pipeline.metadata.namespace, label_selector=selector):
            owners = body["metadata"].get("ownerReferences") or ()
            if not any(owner.get("uid") == pipeline.metadata.uid for owner in owners):
                continue
            data = body.get("data") or {}
            found.append(
                KeptRevision(
                    name=body["metadata"]["name"],
                    version=str(data.get("version", "")),
                    number=int(body.get("revision", 0)),
                    digest=str(data.get("digest", "")),
                )
            )
        return found

    async def load(self, namespace: str, pipeline: str, version: str) -> Revision:
        """One version."""
        name = revision.revision_name(pipeline, version)
        return revision.decode(await self._cluster.get(CONTROLLER_REVISIONS, name, namespace))

    async def create(self, pipeline: Pipeline, version: str, documents: Mapping[str, Any], number: int) -> None:
        """Keep a version. ClusterUnavailable while one of an earlier Pipeline of the same name is still there."""
        self._guard()
        body = revision.encode(pipeline, self._names, version, documents, number)
        try:
            await self._cluster.create(CONTROLLER_REVISIONS, body, pipeline.metadata.namespace)
        except Conflict:
            there = await self._cluster.get(CONTROLLER_REVISIONS, body["metadata"]["name"], pipeline.metadata.namespace)
            owners = there["metadata"].get("ownerReferences") or ()
            if any(owner.get("uid") == pipeline.metadata.uid for owner in owners):
                return
            name = body["metadata"]["name"]
            raise ClusterUnavailable(
                f"ControllerRevision {name} belongs to a deleted Pipeline of this name and is still being removed", status=409
            ) from None

    async def delete(self, namespace: str, name: str) -> None:
        """Remove one."""
        self._guard()
        try:
            await self._cluster.delete(CONTROLLER_REVISIONS, name, namespace)
        except NotFound:
            return

    async def read_config_map(self, namespace: str, name: str) -> Mapping[str, str | bytes]:
        """The data and the binaryData of a ConfigMap, whose keys differ."""
        body = await self._cluster.get(CONFIG_MAPS, name, namespace)
        binary = {key: base64.b64decode(value) for key, value in (body.get("binaryData") or {}).items()}
        return {**(body.get("data") or {}), **binary}
