"""What the controllers need of the world, as small protocols: the real ones are built in `app`, simulated ones in the model test."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from kfp_operator.api.meta import Model, Resource
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.revision import Revision
from kfp_operator.operator.store import Key
from kfp_operator.reconcile.pipeline import KeptRevision

R = TypeVar("R", bound=Resource)

Now = Callable[[], datetime]
"""The wall clock, aware and in UTC."""


def utc_now() -> datetime:
    """The real wall clock."""
    return datetime.now(UTC)


class Objects(Protocol):
    """Our kinds at the API server. Errors are ClusterError; every write carries the resourceVersion of what it is based on."""

    async def get(self, key: Key) -> Resource:
        """The object as it is now; NotFound."""

    async def create(self, kind: type[R], document: Mapping[str, Any]) -> R:
        """Create what the manifest says, in its metadata.namespace, and return it as stored; AlreadyExists when the name is taken."""

    async def patch_spec(self, resource: R, spec: Mapping[str, Any]) -> R:
        """Merge into the spec and return the new object; Conflict when it changed."""

    async def patch_metadata(self, resource: R, metadata: Mapping[str, Any]) -> R:
        """Merge into metadata and return the new object; Conflict when it changed."""

    async def patch_status(self, resource: R, status: Model) -> R:
        """Make the status equal to `status`, writing the differences; Conflict when the object changed."""

    async def delete(self, key: Key, uid: str) -> None:
        """Delete this very object."""


class Revisions(Protocol):
    """The ControllerRevisions of Pipelines."""

    async def list(self, pipeline: Pipeline) -> Sequence[KeptRevision]:
        """All of a Pipeline's."""

    async def load(self, namespace: str, pipeline: str, version: str) -> Revision:
        """One version; NotFound, InvalidSpec when damaged."""

    async def create(self, pipeline: Pipeline, version: str, documents: Mapping[str, Any], number: int) -> None:
        """Keep a version; fine when an equal one is there."""

    async def delete(self, namespace: str, name: str) -> None:
        """Remove one; fine when it is gone."""


class Recorder(Protocol):
    """Kubernetes Events. Never blocks, never fails."""

    def normal(self, resource: Resource, reason: str, message: str) -> None:
        """Something happened as it should."""

    def warning(self, resource: Resource, reason: str, message: str) -> None:
        """Something needs attention."""


Guard = Callable[[], None]
"""Called right before each effect; raises LeadershipLost when another process may act."""
Wake = Callable[[Key], None]
"""Have an object reconciled soon."""
