"""Images pushed to a registry: ``connection_registry_image``.

Reads the envelope in which the CNCF Distribution registry, and registries built on it, notify their endpoints. One event per tag that
was pushed; layers, pulls and deletions give none, nor do the untagged parts of an image for several platforms, unless asked for.
Members of the data:

==========  ========================================================
image       registry and repository, as ``registry.example.org/team/trainer``
tag         the tag; empty when pushed by digest
digest      of the manifest, as ``sha256:...``
repository  the image's name without the registry; registry: its host
mediaType   of the manifest
actor       who pushed, where the registry knows
==========  ========================================================
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from kfp_operator.errors import EventError
from kfp_operator.events.webhooks import signatures
from kfp_operator.events.webhooks.connection import Connection, Delivery, Fact, Told, computed_id, moment, objects, text
from kfp_operator.schemas import V1EventKind

_MANIFESTS = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
    }
)
_MOST = 1000


class Registry(Connection):
    """A registry that sends notifications as CNCF Distribution does, with the secret in the endpoint's headers."""

    type: Literal["oci-registry"]
    untagged: bool = Field(False, description="Tell manifests without a tag too.")

    @property
    def kinds(self) -> tuple[V1EventKind, ...]:
        """Images."""
        return (V1EventKind.CONNECTION_REGISTRY_IMAGE,)

    @property
    def signs_body(self) -> bool:
        """No: the secret is in a header."""
        return False

    def authenticate(self, delivery: Delivery, secrets: Sequence[str]) -> None:
        """Check the Authorization header."""
        signatures.authorization(delivery.headers, secrets)

    def read(self, delivery: Delivery) -> Told:
        """The pushes of manifests."""
        document = delivery.document()
        if not isinstance(document.get("events"), list):
            raise EventError("the body is not an envelope with a list of events")
        events = objects(document, "events")
        facts, ignored = [], [f"{len(events) - _MOST} events beyond the first {_MOST}"] if len(events) > _MOST else []
        for event in events[:_MOST]:
            why = self._not_told(event)
            if why:
                ignored.append(why)
            else:
                facts.append(_fact(event))
        return Told(facts, ignored)

    def _not_told(self, event: Mapping[str, Any]) -> str:
        if (action := text(event, "action", longest=50)) != "push":
            return f"action {action!r}: only push becomes an event"
        if (media := text(event, "target", "mediaType", longest=100)) not in _MANIFESTS:
            return f"mediaType {media!r} is not that of a manifest"
        if not (text(event, "target", "repository") and text(event, "target", "digest")):
            return "target has no repository or no digest"
        if not text(event, "target", "tag") and not self.untagged:
            return "pushed without a tag"
        return ""


def _fact(event: Mapping[str, Any]) -> Fact:
    registry, repository = text(event, "request", "host"), text(event, "target", "repository")
    digest, tag, at = text(event, "target", "digest"), text(event, "target", "tag"), text(event, "timestamp")
    payload = {
        "image": f"{registry}/{repository}" if registry else repository,
        "tag": tag,
        "digest": digest,
        "repository": repository,
        "registry": registry,
        "mediaType": text(event, "target", "mediaType"),
        "actor": text(event, "actor", "name"),
    }
    id_ = text(event, "id", longest=200) or computed_id(registry, repository, digest, tag, at)
    return Fact(V1EventKind.CONNECTION_REGISTRY_IMAGE, id_, payload, time=moment(at))
