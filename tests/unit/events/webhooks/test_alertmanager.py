import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_operator.errors import EventError
from kfp_operator.events.webhooks.alertmanager import Alertmanager
from kfp_operator.events.webhooks.connection import Reading
from kfp_operator.events.webhooks.signatures import NotAuthentic
from kfp_operator.schemas import V1EventKind
from tests.doubles.deliveries import SECRET, bearer, delivery, payload

FIRING = json.loads(payload("alertmanager"))["alerts"][0]


def alertmanager(**changes: Any) -> Alertmanager:
    return Alertmanager(type="alertmanager", namespace="team-a", name="alertmanager", secret_env="X", **changes)


def alerts(*given: Any, **changes: Any) -> Reading:
    return alertmanager(**changes).events(delivery(payload("alertmanager", alerts=list(given)), bearer()))


def changed(alert: dict[str, Any] | None = None, **labels: str | None) -> dict[str, Any]:
    """The firing alert with other labels and members; None removes a label."""
    merged = {name: value for name, value in (FIRING["labels"] | labels).items() if value is not None}
    return FIRING | {"labels": merged} | (alert or {})


def test_an_alert_that_fires_is_an_event_and_its_end_is_not() -> None:
    reading = alertmanager().events(delivery(payload("alertmanager"), bearer()))
    (event,) = reading.events
    assert event.event.get_data() == {
        "kind": "alert_critical",
        "ref": "alerts.ModelDrift",
        "alert": "ModelDrift",
        "status": "firing",
        "severity": "critical",
        "labels": {"alertname": "ModelDrift", "model": "penguin", "severity": "critical", "team": "vision"},
        "annotations": FIRING["annotations"],
        "summary": "penguin: the inputs differ from those of training",
        "description": "Population stability index 0.41 over the last hour",
        "startsAt": "2026-03-01T16:05:26.739266876Z",
        "endsAt": "",
        "fingerprint": "c3a5d0b6f1e29478",
        "generatorURL": "https://prometheus.example.org/graph?g0.expr=model_psi+%3E+0.25&g0.tab=1",
        "externalURL": "https://alertmanager.example.org",
        "receiver": "kfp-operator",
    }
    assert event.event.get_time() == datetime(2026, 3, 1, 16, 5, 26, 739266, tzinfo=UTC)
    assert reading.ignored == ["alert 'ModelDrift' is resolved"]


def test_the_end_is_told_if_asked_for_as_an_event_of_its_own() -> None:
    firing, resolved = alertmanager(resolved=True).events(delivery(payload("alertmanager"), bearer())).events
    assert (resolved.data.payload["status"], resolved.data.payload["endsAt"]) == ("resolved", "2026-03-01T16:04:30.120Z")
    assert resolved.event.get_time() == datetime(2026, 3, 1, 16, 4, 30, 120000, tzinfo=UTC)
    assert resolved.id != firing.id
    began, ended = alerts(FIRING, FIRING | {"status": "resolved"}, resolved=True).events
    assert began.id != ended.id


@pytest.mark.parametrize(
    ("severity", "options", "kind"),
    [
        ("info", {}, V1EventKind.ALERT_INFO),
        ("warning", {}, V1EventKind.ALERT_WARNING),
        ("critical", {}, V1EventKind.ALERT_CRITICAL),
        ("Critical", {}, V1EventKind.ALERT_CRITICAL),
        ("page", {}, V1EventKind.ALERT_WARNING),
        (None, {}, V1EventKind.ALERT_WARNING),
        (None, {"default_severity": "info"}, V1EventKind.ALERT_INFO),
        ("page", {"severities": {"page": "critical"}}, V1EventKind.ALERT_CRITICAL),
        ("critical", {"severities": {"critical": "info"}}, V1EventKind.ALERT_INFO),
        ("none", {"severities": {"none": "ignore"}}, None),
        (None, {"default_severity": "ignore"}, None),
        ("critical", {"default_severity": "ignore"}, V1EventKind.ALERT_CRITICAL),
    ],
)
def test_the_kind_follows_the_severity(severity: str | None, options: dict[str, Any], kind: V1EventKind | None) -> None:
    reading = alerts(changed(severity=severity), **options)
    assert [event.data.kind for event in reading.events] == ([kind] if kind else [])
    assert bool(reading.ignored) == (kind is None)


def test_a_firing_alert_that_is_repeated_is_the_same_event() -> None:
    (first,), (again,) = alerts(FIRING).events, alerts(changed({"endsAt": "2026-03-01T16:09:26Z", "annotations": {}})).events
    assert again.id == first.id


@pytest.mark.parametrize("change", [{"startsAt": "2026-03-02T00:00:00Z"}, {"fingerprint": "0000000000000000"}])
def test_an_alert_that_fires_anew_is_another_event(change: dict[str, str]) -> None:
    assert alerts(FIRING | change).events[0].id != alerts(FIRING).events[0].id


def test_without_a_fingerprint_the_labels_tell_alerts_apart() -> None:
    ids = [alerts(changed({"fingerprint": ""}, model=model)).events[0].id for model in ("a", "a", "b")]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(
    ("name", "ref"),
    [
        ("ModelDrift", "alerts.ModelDrift"),
        ("GPU usage: 100 %", "alerts.GPU-usage-100"),
        ("drift.psi_1", "alerts.drift.psi_1"),
        ("-x-", "alerts.x"),
        ("a" * 300, "alerts." + "a" * 200),
    ],
)
def test_an_alert_is_referred_to_by_its_name_as_far_as_a_reference_can_hold_it(name: str, ref: str) -> None:
    (event,) = alerts(changed(alertname=name)).events
    assert event.data.ref == ref
    assert event.data.payload["alert"] == name


def test_another_reference_can_be_configured() -> None:
    assert [event.data.ref for event in alerts(FIRING, changed(alertname="Other"), ref="alerts.vision").events] == ["alerts.vision"] * 2


@pytest.mark.parametrize(
    ("alert", "why"),
    [
        (changed(alertname=None), "alert without a usable label alertname: ''"),
        (changed(alertname="模型"), "alert without a usable label alertname"),
        (FIRING | {"status": "suppressed"}, "alert 'ModelDrift' is suppressed"),
        ({}, "alert '' is of no status"),
        (changed({"annotations": {f"a{n}": "x" * 1024 for n in range(70)}}), "65536 are allowed"),
    ],
    ids=["no-name", "foreign-name", "suppressed", "empty", "too-large"],
)
def test_one_alert_that_can_be_no_event_does_not_stop_the_others(alert: dict[str, Any], why: str) -> None:
    reading = alerts(alert, changed(alertname="Other"))
    assert [event.data.ref for event in reading.events] == ["alerts.Other"]
    assert why in reading.ignored[0]


def test_alerts_that_alertmanager_cut_off_are_reported() -> None:
    reading = alertmanager().events(delivery(payload("alertmanager", alerts=[], truncatedAlerts=3), bearer()))
    assert reading.ignored == ["3 alerts were cut off by Alertmanager: raise max_alerts of the receiver"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", payload("alertmanager", version="3"), payload("alertmanager", alerts={})])
def test_what_is_no_payload_of_version_4_is_an_error(body: bytes) -> None:
    with pytest.raises(EventError):
        alertmanager().events(delivery(body, bearer()))


def test_whoever_sends_it_is_known_before_the_body_is_read() -> None:
    assert not alertmanager().signs_body
    alertmanager().authenticate(delivery(b"", bearer()), [SECRET])
    with pytest.raises(NotAuthentic):
        alertmanager().authenticate(delivery(b"", {}), [SECRET])


values = st.recursive(st.none() | st.integers() | st.text(max_size=10), lambda c: st.lists(c) | st.dictionaries(st.text(), c), max_leaves=4)


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from(["status", "labels", "annotations", "startsAt", "endsAt", "fingerprint", "generatorURL"]), values))
def test_an_alert_with_anything_in_it_is_an_event_or_ignored(change: dict[str, Any]) -> None:
    reading = alerts(FIRING | change, resolved=True)
    assert len(reading.events) + len(reading.ignored) == 1


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-03-01", "2026-03-01T00:00:00", "x"])
def test_a_time_that_is_none_is_left_out(at: str) -> None:
    (event,) = alerts(FIRING | {"startsAt": at}).events
    assert "time" not in event.event.get_attributes()
