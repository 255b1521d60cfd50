import json
from datetime import UTC, datetime
from typing import Any

import pytest

from kfp_operator.errors import EventError
from kfp_operator.events.webhooks.connection import Reading
from kfp_operator.events.webhooks.registry import Registry
from kfp_operator.events.webhooks.signatures import NotAuthentic
from tests.doubles.deliveries import SECRET, bearer, delivery, payload

MANIFEST = json.loads(payload("registry-push"))["events"][1]


def registry(**changes: Any) -> Registry:
    return Registry(type="oci-registry", namespace="team-a", name="registry", secret_env="X", **changes)


def events(*given: Any, **changes: Any) -> Reading:
    """What becomes of an envelope with these events."""
    return registry(**changes).events(delivery(json.dumps({"events": given}).encode(), bearer()))


def changed(**target: Any) -> dict[str, Any]:
    return MANIFEST | {"target": MANIFEST["target"] | target}


def test_a_pushed_tag_is_an_image_and_its_layers_are_not() -> None:
    reading = registry().events(delivery(payload("registry-push"), bearer()))
    (event,) = reading.events
    assert event.event.get_data() == {
        "kind": "connection_registry_image",
        "ref": "connections.registry",
        "image": "registry.example.org/vision/trainer",
        "tag": "2026.3.1",
        "digest": "sha256:9d6a3c1f5e8b7a4d2c0f9e8d7c6b5a493827160f5e4d3c2b1a09f8e7d6c5b4a3",
        "repository": "vision/trainer",
        "registry": "registry.example.org",
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "actor": "ci",
    }
    assert event.id == "5b9a8e47-2c31-4f60-9d7e-0a1b2c3d4e5f"
    assert event.event.get_time() == datetime(2026, 3, 1, 16, 0, 11, 92000, tzinfo=UTC)
    assert reading.ignored == ["mediaType 'application/octet-stream' is not that of a manifest"]


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (MANIFEST | {"action": "pull"}, "action 'pull'"),
        (MANIFEST | {"action": "delete"}, "action 'delete'"),
        (changed(tag=None), "pushed without a tag"),
        (changed(digest=None), "no repository or no digest"),
        (changed(repository=["a"]), "no repository or no digest"),
        (changed(mediaType="application/vnd.oci.image.layer.v1.tar+gzip"), "is not that of a manifest"),
        ({}, "action ''"),
    ],
    ids=["pull", "delete", "untagged", "no-digest", "no-repository", "layer", "empty"],
)
def test_what_is_no_pushed_tag_is_ignored(event: dict[str, Any], why: str) -> None:
    reading = events(event)
    assert reading.events == []
    assert why in reading.ignored[0]


def test_untagged_images_are_told_if_asked_for() -> None:
    (event,) = events(changed(tag=None), untagged=True).events
    assert (event.data.payload["tag"], event.data.payload["digest"]) == ("", MANIFEST["target"]["digest"])


@pytest.mark.parametrize("kind", ["image.index.v1+json", "image.manifest.v1+json"])
def test_images_of_one_and_of_several_platforms_are_images(kind: str) -> None:
    assert events(changed(mediaType=f"application/vnd.oci.{kind}")).events


def test_several_pushes_in_one_envelope_are_several_events() -> None:
    assert [event.id for event in events(MANIFEST, MANIFEST | {"id": "2"}).events] == [MANIFEST["id"], "2"]


def test_an_event_without_an_id_gets_one_that_stays() -> None:
    first, again, other = (events(e).events[0].id for e in (MANIFEST | {"id": ""}, MANIFEST | {"id": ""}, changed(tag="2") | {"id": ""}))
    assert first == again != other


def test_an_envelope_of_many_events_is_read_in_part() -> None:
    reading = events(*[MANIFEST | {"id": str(n)} for n in range(1005)])
    assert (len(reading.events), reading.ignored) == (1000, ["5 events beyond the first 1000"])


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"events": {}}'])
def test_what_is_no_envelope_is_an_error(body: bytes) -> None:
    with pytest.raises(EventError):
        registry().events(delivery(body, bearer()))


def test_whoever_sends_it_is_known_before_the_body_is_read() -> None:
    assert not registry().signs_body
    registry().authenticate(delivery(b"", bearer()), [SECRET])
    with pytest.raises(NotAuthentic):
        registry().authenticate(delivery(b"", bearer("another")), [SECRET])
