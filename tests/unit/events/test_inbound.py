import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_operator.errors import BusUnavailable, EventError, EventRefused, StreamMissing
from kfp_operator.events import binding, inbound
from kfp_operator.events.bus import StoredMessage
from kfp_operator.events.subjects import Subjects
from kfp_operator.schemas import V1EventKind
from tests.doubles.bus import MemoryBus
from tests.doubles.events import check_cloudevent

SUBJECTS = Subjects()
STREAM = SUBJECTS.stream("inbound")
REFS = {
    "connection_git_commit": "connections.repo",
    "connection_dataset_version": "connections.penguins",
    "connection_registry_image": "connections.registry",
    "alert_info": "alerts.Drift",
    "alert_warning": "alerts.Drift",
    "alert_critical": "alerts.Drift",
    "model_version_new_metric": "models.penguin",
    "project_custom_event": "projects.vision",
    "org_custom_event": "orgs.acme",
}
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def document(**changes: Any) -> dict[str, Any]:
    """A CloudEvent about a data set, in JSON; None removes a member."""
    made = {
        "specversion": "1.0",
        "id": "7",
        "source": "/lake",
        "type": "org.kubeflow.pipelines.event",
        "data": {"ref": "connections.penguins", "kind": "connection_dataset_version", "version": "2026-01-02"},
    } | changes
    return {name: value for name, value in made.items() if value is not None}


def event(**changes: Any) -> CloudEvent:
    return binding.parse_document(document(**changes))


def data(**members: Any) -> dict[str, Any]:
    return {"ref": "connections.penguins", "kind": "connection_dataset_version"} | members


def message(body: object, *, subject: str = "", headers: Mapping[str, str] | None = None) -> StoredMessage:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    where = subject or "events.inbound.team-a.connection_dataset_version"
    return StoredMessage(STREAM, 1, where, headers if headers is not None else {"content-type": binding.STRUCTURED_TYPE}, encoded, NOW)


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(SUBJECTS)


@pytest.mark.parametrize("kind", list(V1EventKind), ids=str)
def test_only_what_can_be_known_outside_is_accepted(kind: V1EventKind) -> None:
    given = event(data={"ref": REFS.get(kind.value, "runs.train"), "kind": kind.value})
    if kind.value in REFS:
        assert inbound.admit(given, "team-a").data.kind is kind
    else:
        with pytest.raises(EventRefused, match=f"data.kind '{kind.value}' is told by the operator alone; from outside come connection_git"):
            inbound.admit(given, "team-a")


def test_there_is_no_other_kind() -> None:
    assert {kind.value for kind in inbound.KINDS} == set(REFS)


def test_an_accepted_event_is_stored_as_a_cloudevent_with_its_data(bus: MemoryBus) -> None:
    accepted = inbound.admit(
        event(data=data(ref="{{ Connections.penguins }}", rows=344), traceparent="00-1", time="2026-01-02T03:04:05Z"), "a"
    )
    wire = binding.encode(accepted.event)
    check_cloudevent(json.loads(wire.body))
    assert json.loads(wire.body) == {
        "specversion": "1.0",
        "id": "7",
        "source": "/lake",
        "type": "org.kubeflow.pipelines.event",
        "subject": "connections.penguins",
        "datacontenttype": "application/json",
        "dataschema": "urn:kfp-operator:event:v1",
        "traceparent": "00-1",
        "time": "2026-01-02T03:04:05Z",
        "data": {"ref": "connections.penguins", "kind": "connection_dataset_version", "rows": 344},
    }


def test_nothing_is_added_that_differs_from_call_to_call() -> None:
    assert "time" not in json.loads(binding.encode(inbound.admit(event(), "team-a").event).body)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"type": "org.example.other"}, "type is 'org.example.other': events from outside have type org.kubeflow.pipelines.event"),
        ({"data": None}, "data is not a JSON object"),
        ({"data": [1]}, "data is not a JSON object"),
        ({"data": {"kind": "alert_info"}}, "data.ref: Field required"),
        ({"data": {"ref": "alerts.Drift"}}, "data.kind is missing; from outside come connection_git_commit, "),
        (
            {"data": data(kind="RUN_STATUS_DONE")},
            "data.kind 'RUN_STATUS_DONE' is no kind of event; from outside come connection_git_commit",
        ),
        ({"data": data(kind={"a": 1})}, "is no kind of event"),
        ({"data": data(kind="run_status_initializing")}, "told by the operator alone"),
        ({"data": data(ref=7)}, "data.ref: Input should be a valid string"),
        ({"data": data(ref="penguins")}, "is not a reference; accepted: ops.NAME"),
        ({"data": data(ref="alerts.Drift")}, "connection_dataset_version can never come from alerts.Drift; what can: alert_info"),
        ({"data": data(ref="runs.train")}, "connection_dataset_version can never come from runs.train"),
        ({"data": data(x=[[[[]]]] * 2, y="a" * 65536)}, "65536 are allowed"),
        ({"subject": "s" * 9000}, "the event without its data takes"),
        ({"data": data(x=float("inf"))}, "data cannot be written as JSON"),
        ({"data": data(x="\ud800")}, "data cannot be written as JSON"),
    ],
    ids=str,
)
def test_what_is_not_accepted_is_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(EventRefused) as caught:
        inbound.admit(event(**changes), "team-a")
    assert told in str(caught.value)


@pytest.mark.parametrize("namespace", ["", "Team", "a.b", "a" * 64, "-a", "*", ">"])
def test_a_namespace_that_is_none_is_refused(namespace: str) -> None:
    with pytest.raises(EventRefused, match="is not the name of a namespace"):
        inbound.admit(event(), namespace)


def nested(levels: int) -> Any:
    """Objects and lists in turn, `levels` deep."""
    made: Any = {}
    for level in range(levels - 1):
        made = [made] if level % 2 else {"a": made}
    return made


def test_nesting_is_bounded() -> None:
    inbound.admit(event(data=data(x=nested(inbound.MAX_DEPTH - 1))), "team-a")
    with pytest.raises(EventRefused, match="more than 32 levels"):
        inbound.admit(event(data=data(x=nested(inbound.MAX_DEPTH))), "team-a")


def test_a_fact_becomes_an_event() -> None:
    time = datetime(2026, 1, 2, 4, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    made = inbound.make("team-a", V1EventKind.ALERT_INFO, "alerts.Drift", {"ref": "x", "value": 3}, source="/s", id_="1", time=time)
    assert (made.source, made.id, made.event.get_subject(), made.event.get_time()) == ("/s", "1", "alerts.Drift", NOW)
    assert made.event.get_data() == {"ref": "alerts.Drift", "kind": "alert_info", "value": 3}


@pytest.mark.parametrize("changes", [{"id_": ""}, {"source": ""}, {"id_": "a\nb"}, {"ref": "alerts."}])
def test_a_fact_that_can_be_no_event_is_refused(changes: dict[str, str]) -> None:
    given = {"ref": "alerts.Drift", "source": "/s", "id_": "1"} | changes
    with pytest.raises(EventRefused):
        inbound.make("team-a", V1EventKind.ALERT_INFO, given["ref"], {}, source=given["source"], id_=given["id_"])


def test_the_digest_is_what_is_documented() -> None:
    assert inbound.digest("/lake", "7") == hashlib.sha256(b"/lake\x007").hexdigest()[:32]
    assert inbound.digest("/lak", "e7") != inbound.digest("/lake", "7") != inbound.digest("/lake/7", "")


async def test_an_event_is_stored_under_the_digest_of_its_source_and_id(bus: MemoryBus) -> None:
    stored = await inbound.store(bus, SUBJECTS, inbound.admit(event(), "team-a"))
    where = f"events.inbound.team-a.connection_dataset_version.{inbound.digest('/lake', '7')}"
    assert (stored.subject, stored.already, stored.sequence) == (where, False, 1)
    found = await bus.last(STREAM, where)
    assert found is not None
    assert found.headers == {"content-type": binding.STRUCTURED_TYPE}
    read = inbound.receive(SUBJECTS, found)
    assert (read.namespace, read.data.kind, read.data.ref) == ("team-a", V1EventKind.CONNECTION_DATASET_VERSION, "connections.penguins")
    assert read.data.payload == {"version": "2026-01-02"}


async def test_the_same_source_and_id_again_is_stored_already(bus: MemoryBus) -> None:
    await inbound.store(bus, SUBJECTS, inbound.admit(event(), "team-a"))
    again = await inbound.store(bus, SUBJECTS, inbound.admit(event(data=data(version="other"), time="2026-01-02T03:04:05Z"), "team-a"))
    assert (again.already, again.sequence) == (True, None)
    assert await bus.last_sequence(STREAM) == 1


@pytest.mark.parametrize("changes", [{"id": "8"}, {"source": "/other"}])
async def test_another_source_or_id_is_another_event(bus: MemoryBus, changes: dict[str, str]) -> None:
    await inbound.store(bus, SUBJECTS, inbound.admit(event(), "team-a"))
    assert not (await inbound.store(bus, SUBJECTS, inbound.admit(event(**changes), "team-a"))).already


async def test_the_same_event_for_another_namespace_is_another_event(bus: MemoryBus) -> None:
    await inbound.store(bus, SUBJECTS, inbound.admit(event(), "team-a"))
    assert not (await inbound.store(bus, SUBJECTS, inbound.admit(event(), "team-b"))).already


async def test_after_a_lost_answer_the_next_try_finds_the_event(bus: MemoryBus) -> None:
    bus.fail("publish", answer_lost=True)
    accepted = inbound.admit(event(), "team-a")
    with pytest.raises(BusUnavailable):
        await inbound.store(bus, SUBJECTS, accepted)
    assert (await inbound.store(bus, SUBJECTS, accepted)).already


async def test_without_the_stream_nothing_is_stored(bus: MemoryBus) -> None:
    bus.delete_stream(STREAM)
    with pytest.raises(StreamMissing):
        await inbound.store(bus, SUBJECTS, inbound.admit(event(), "team-a"))


def test_the_namespace_is_that_of_the_subject() -> None:
    given = message(document(data=data(namespace="team-b"), namespace="team-b"))
    assert inbound.receive(SUBJECTS, given).namespace == "team-a"


def test_an_event_without_headers_or_in_binary_mode_is_read_too() -> None:
    assert inbound.receive(SUBJECTS, message(document(), headers={})).id == "7"
    headers = {"ce-id": "7", "ce-source": "/lake", "ce-type": "org.kubeflow.pipelines.event", "ce-specversion": "1.0"}
    binary = inbound.receive(SUBJECTS, message(data(version="2"), headers=headers | {"content-type": "application/json"}))
    assert binary.data.payload == {"version": "2"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            message(document(), subject="events.inbound.team-a.alert_info"),
            "the subject says 'alert_info', the data says 'connection_dataset",
        ),
        (message(document(), subject=SUBJECTS.inbound("team-a", "connection_dataset_version", "0" * 32)), "not the digest"),
        (message(document(), subject="events.inbound.Team.connection_dataset_version"), "is not the name of a namespace"),
        (message(document(data=data(kind="run_status_done"))), "told by the operator alone"),
        (message(b"x"), "not JSON"),
        (message(b" " * 200_000 + json.dumps(document()).encode()), "bytes"),
        (message(document(type="org.kubeflow.pipelines.run-completion")), "events from outside have type"),
    ],
    ids=["kind", "digest", "namespace", "internal", "no-json", "size", "type"],
)
def test_what_others_published_that_cannot_be_accepted_is_told(given: StoredMessage, told: str) -> None:
    with pytest.raises(EventError) as caught:
        inbound.receive(SUBJECTS, given)
    assert told in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4),
    max_leaves=20,
)


@settings(deadline=None, max_examples=200)
@given(
    body=st.binary(max_size=300)
    | json_values.map(lambda v: json.dumps(v).encode())
    | json_values.map(lambda v: json.dumps(document(data=v if v is not None else 0)).encode())
    | st.dictionaries(st.sampled_from(["ref", "kind", "x"]), json_values).map(lambda v: json.dumps(document(data=data(**v))).encode()),
    headers=st.dictionaries(st.sampled_from(["content-type", "ce-id", "ce-source", "ce-type", "ce-specversion"]), st.text(max_size=30)),
)
def test_hostile_messages_are_refused_or_become_what_can_be_stored(body: bytes, headers: dict[str, str]) -> None:
    for used in (headers, {}):
        try:
            found = inbound.receive(SUBJECTS, message(body, headers=used))
        except EventError:
            continue
        assert len(binding.encode(found.event).body) <= inbound.MAX_EVENT_BYTES
        assert found.data.kind.value == "connection_dataset_version"
