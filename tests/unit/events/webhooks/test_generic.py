import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kfp_operator.errors import EventError
from kfp_operator.events.webhooks.connection import Reading
from kfp_operator.events.webhooks.generic import Generic
from kfp_operator.events.webhooks.signatures import NotAuthentic
from tests.doubles.deliveries import SECRET, SIGNING_TOKEN, bearer, delivery, payload, standard_headers


def generic(**changes: Any) -> Generic:
    given = {
        "type": "generic",
        "namespace": "team-a",
        "name": "labelling",
        "secretEnv": "X",
        "kind": "connection_dataset_version",
    } | changes
    return Generic.model_validate(given)


def events(document: object, **changes: Any) -> Reading:
    return generic(**changes).events(delivery(json.dumps(document).encode(), bearer()))


def refused(**changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        generic(**changes)
    return str(caught.value)


def test_data_is_what_its_paths_find_and_plain_text() -> None:
    reading = events(
        {"set": {"id": 7, "tags": ["a"]}}, data={"version": "$.set.id", "tags": "$.set.tags", "owner": "vision", "none": "$.no"}
    )
    (event,) = reading.events
    assert event.event.get_data() == {
        "kind": "connection_dataset_version",
        "ref": "connections.labelling",
        "version": 7,
        "tags": ["a"],
        "owner": "vision",
    }


def test_an_image_pushed_to_harbor_is_described_by_configuration() -> None:
    harbor = generic(
        kind="connection_registry_image",
        when={"$.type": "PUSH_ARTIFACT"},
        data={"image": "$.event_data.repository.repo_full_name", "tag": "$.event_data.resources[0].tag"},
    )
    (event,) = harbor.events(delivery(payload("harbor-push-artifact"), bearer())).events
    assert event.data.payload == {"image": "vision/trainer", "tag": "2026.3.1"}
    ignored = harbor.events(delivery(payload("harbor-push-artifact", type="DELETE_ARTIFACT"), bearer()))
    assert (ignored.events, ignored.ignored) == ([], ["$.type is another value"])


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ({"$.state": "done"}, True),
        ({"$.state": ["failed", "done"]}, True),
        ({"$.state": "done", "$.n": "3", "$.ok": "true", "$.null": "null"}, True),
        ({"$.state": "failed"}, False),
        ({"$.state": []}, False),
        ({"$.no": "done"}, False),
        ({"$.state": "done", "$.n": "4"}, False),
    ],
)
def test_only_deliveries_with_the_given_values_become_events(when: dict[str, Any], told: bool) -> None:
    assert bool(events({"state": "done", "n": 3, "ok": True, "null": None}, when=when).events) == told


def test_without_an_id_the_same_body_is_the_same_event() -> None:
    assert events({"a": 1}).events[0].id == events({"a": 1}).events[0].id != events({"a": 2}).events[0].id


def test_an_id_in_the_body_identifies_a_delivery() -> None:
    ids = [events({"id": id_, "n": n}, id="$.id").events[0].id for id_, n in (("x", 1), ("x", 2), ("y", 1), (7, 1))]
    assert len(set(ids)) == 3
    assert ids[0] == ids[1]


@pytest.mark.parametrize("id_", [None, "", [], {}])
def test_a_body_without_its_id_is_an_error(id_: object) -> None:
    with pytest.raises(EventError, match=r"\$.id, which identifies a delivery, is not a text or number"):
        events({"id": id_}, id="$.id")
    with pytest.raises(EventError):
        events({}, id="$.id")


def test_the_id_of_a_signed_delivery_is_the_one_that_is_signed() -> None:
    signed = generic(authentication="standard-webhooks")
    given = delivery(b"{}", standard_headers(b"{}"))
    signed.authenticate(given, [SIGNING_TOKEN])
    assert signed.events(given).events[0].id == "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"


def test_a_secret_in_a_header_is_checked_before_the_body_is_read() -> None:
    connection = generic(header="X-Api-Key")
    assert not connection.signs_body
    connection.authenticate(delivery(b"", {"x-api-key": SECRET}), [SECRET])
    with pytest.raises(NotAuthentic):
        connection.authenticate(delivery(b"", bearer()), [SECRET])


def test_an_hmac_of_the_body_is_checked() -> None:
    connection = generic(authentication="hmac-sha256", header="X-Signature", prefix="v0=")
    signature = hmac.new(SECRET.encode(), b"{}", hashlib.sha256).hexdigest()
    assert connection.signs_body
    connection.authenticate(delivery(b"{}", {"X-Signature": f"v0={signature}"}), [SECRET])
    with pytest.raises(NotAuthentic):
        connection.authenticate(delivery(b"{ }", {"X-Signature": f"v0={signature}"}), [SECRET])


@pytest.mark.parametrize("kind", ["alert_critical", "model_version_new_metric", "project_custom_event", "org_custom_event"])
def test_any_kind_from_outside_can_be_told(kind: str) -> None:
    assert "ref must say what" in refused(kind=kind)
    ref = {"alert_critical": "alerts.x", "model_version_new_metric": "models.x", "project_custom_event": "projects.x"}.get(kind, "orgs.x")
    assert events({}, kind=kind, ref=ref).events[0].data.ref == ref


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "run_status_succeeded"}, "run_status_succeeded is told by the operator alone"),
        ({"kind": "other"}, "kind"),
        ({"ref": "alerts.x"}, "connection_dataset_version can never come from alerts.x"),
        ({"ref": "x"}, "is not a reference"),
        ({"data": {"version": "$.a[*]"}}, "is not a path to one value"),
        ({"data": {"ref": "$.a"}}, "data may not hold ref and kind"),
        ({"data": {"a b": "$.a"}}, "data"),
        ({"when": {"a": "b"}}, "is not a path to one value"),
        ({"id": "id"}, "is not a path to one value"),
        ({"authentication": "hmac-sha256"}, "header must name the header with the HMAC"),
        ({"authentication": "none"}, "authentication"),
        ({"header": "X: Y"}, "header"),
        ({"secretFile": "/x"}, "exactly one of secretFile and secretEnv"),
        ({"secretEnv": ""}, "exactly one of secretFile and secretEnv"),
        ({"namespace": "Team"}, "namespace"),
        ({"name": "a/b"}, "name"),
        ({"eventsPerSecond": 0}, "eventsPerSecond"),
        ({"extra": 1}, "extra"),
    ],
    ids=str,
)
def test_a_configuration_that_cannot_work_is_refused(changes: dict[str, Any], told: str) -> None:
    assert told in refused(**changes)


def test_a_secret_may_be_in_a_file() -> None:
    assert generic(secretEnv="", secretFile="/secrets/x").secret_file == Path("/secrets/x")
