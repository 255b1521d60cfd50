import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cloudevents.core.v1.event import CloudEvent

from kfp_operator.errors import EventError
from kfp_operator.events.binding import encode
from kfp_operator.events.bus import StoredMessage
from kfp_operator.events.envelope import (
    MAX_EVENT_BYTES,
    UNKNOWN_SOURCE,
    RunEvent,
    build,
    bus_subject,
    documented_subject,
    event_id,
    fit,
    read,
    receive,
)
from kfp_operator.events.subjects import Subjects
from kfp_operator.schemas import Artifact, RunCompletion, ServingModelArtifact
from tests.doubles.events import END, START, UID, check_cloudevent, completion, status

SUBJECTS = Subjects()


def stored(data: RunEvent, subject: str = "", body: bytes | None = None) -> StoredMessage:
    wire = encode(build(data))
    return StoredMessage("runs", 1, subject or bus_subject(SUBJECTS, data), wire.headers, wire.body if body is None else body, END)


def test_a_completion_is_the_documented_event() -> None:
    document = json.loads(encode(build(completion())).body)
    data = document.pop("data")
    assert document == {
        "id": f"{UID}.1.completion",
        "specversion": "1.0",
        "source": "mlops/kfp",
        "type": "org.kubeflow.pipelines.run-completion",
        "subject": "team-a/penguin-x7k2p",
        "time": "2026-01-02T03:14:15.250000Z",
        "datacontenttype": "application/json",
        "dataschema": "urn:kfp-operator:run-completion:v1",
        "status": "succeeded",
        "provider": "mlops/kfp",
    }
    assert data["runName"] == "team-a/penguin-x7k2p"
    assert data["experimentName"] == ""
    assert data["servingModelArtifacts"] == []
    assert data["training"] == {"startTime": "2026-01-02T03:04:05Z", "endTime": "2026-01-02T03:14:15.250Z"}


def test_a_status_tells_its_state_as_an_attribute() -> None:
    document = json.loads(encode(build(status(state="running", transition=3))).body)
    assert (document["id"], document["status"], document["time"]) == (f"{UID}.3.status", "running", "2026-01-02T03:04:05Z")
    assert document["type"] == "org.kubeflow.pipelines.run-status"


@pytest.mark.parametrize("data", [completion(), completion(state="stopped", status="failed"), status()])
def test_what_was_built_is_read_back(data: RunEvent) -> None:
    assert receive(SUBJECTS, stored(data)).data == data


def test_the_same_data_makes_the_same_bytes() -> None:
    assert encode(build(completion(run_end_time=None))) == encode(build(completion(run_end_time=None)))


def test_times_are_told_in_utc() -> None:
    local = END.astimezone(timezone(timedelta(hours=2)))
    assert encode(build(completion(run_end_time=local))) == encode(build(completion()))


def test_subjects_come_from_the_data() -> None:
    assert bus_subject(SUBJECTS, completion(attempt=2)) == f"events.run-completion.team-a.penguin-x7k2p.{UID}.2"
    assert bus_subject(SUBJECTS, status(transition=4)) == f"events.run-status.team-a.penguin-x7k2p.{UID}.4"
    assert documented_subject(SUBJECTS, completion()) == f"events.documented.team-a.penguin-x7k2p.{UID}.1"
    assert event_id(status(transition=4)) == f"{UID}.4.status"


@pytest.mark.parametrize("provider", ["", "not a name, 100%"])
def test_a_run_refused_for_its_provider_has_an_event_all_the_same(provider: str) -> None:
    data = completion(provider=provider, state="failed", status="failed", run_id="")
    document = json.loads(encode(build(data)).body)
    check_cloudevent(document)
    assert document["source"] == (UNKNOWN_SOURCE if not provider else "not%20a%20name%2C%20100%25")
    assert receive(SUBJECTS, stored(data)).data == data


def test_a_run_without_an_end_has_an_event_without_time() -> None:
    assert build(completion(run_end_time=None)).get_time() is None


def test_json_has_no_nan_so_metadata_says_null() -> None:
    data = completion(artifacts=[Artifact(name="m", location="l", metadata={"loss": float("nan"), "best": float("-inf")})])
    document = json.loads(encode(build(data)).body)
    assert document["data"]["artifacts"][0]["metadata"] == {"loss": None, "best": None}


def test_half_a_surrogate_pair_from_a_log_does_not_stop_an_event() -> None:
    document = json.loads(encode(build(completion(message="bad \ud83d byte"))).body)
    assert document["data"]["message"] == "bad ? byte"


# Distrust


def altered(data: RunEvent, **attributes: object) -> CloudEvent:
    event = build(data)
    return CloudEvent({**event.get_attributes(), **attributes}, event.get_data())


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"id": "another"}, "id"),
        ({"subject": "team-b/penguin"}, "subject"),
        ({"source": "mlops/other"}, "source"),
        ({"status": "failed"}, "status"),
        ({"provider": "mlops/other"}, "provider"),
        ({"type": "org.kubeflow.pipelines.run-status"}, "transition"),
        ({"type": "com.example"}, "type"),
    ],
)
def test_an_event_that_contradicts_its_data_is_refused(attributes: dict[str, object], said: str) -> None:
    with pytest.raises(EventError, match=said):
        read(altered(completion(), **attributes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state": "failed"}, "contradicts"),
        ({"state": "running", "status": "failed"}, "completion"),
        ({"state": "skipped", "status": "failed"}, "completion"),
        ({"state": "bogus", "status": "failed"}, "bogus"),
        ({"status": "stopped"}, "status"),
        ({"attempt": 0}, "attempt"),
        ({"runName": "penguin"}, "runName"),
        ({"runUid": None}, "runUid"),
        ({"runEndTime": "yesterday"}, "runEndTime"),
    ],
)
def test_data_that_makes_no_sense_is_refused(changes: dict[str, Any], said: str) -> None:
    document = json.loads(encode(build(completion())).body)
    document["data"] |= changes
    document["status"] = document["data"]["status"]
    with pytest.raises(EventError, match=said):
        receive(SUBJECTS, stored(completion(), body=json.dumps(document).encode()))


@pytest.mark.parametrize("data", [None, [], "text"])
def test_data_that_is_no_object_is_refused(data: object) -> None:
    document = json.loads(encode(build(completion())).body) | {"data": data}
    with pytest.raises(EventError, match="object"):
        receive(SUBJECTS, stored(completion(), body=json.dumps(document).encode()))


@pytest.mark.parametrize(
    "subject",
    [
        f"events.run-completion.team-a.penguin-x7k2p.{UID}.2",
        f"events.run-completion.team-b.penguin-x7k2p.{UID}.1",
        f"events.run-completion.team-a.another.{UID}.1",
        "events.run-completion.team-a.penguin-x7k2p.another.1",
        f"events.run-status.team-a.penguin-x7k2p.{UID}.1",
        f"events.documented.team-a.penguin-x7k2p.{UID}.1",
        f"other.run-completion.team-a.penguin-x7k2p.{UID}.1",
    ],
)
def test_an_event_on_a_subject_where_it_does_not_belong_is_refused(subject: str) -> None:
    with pytest.raises(EventError):
        receive(SUBJECTS, stored(completion(), subject))


def test_members_of_a_later_version_are_ignored() -> None:
    document = json.loads(encode(build(completion())).body)
    document["data"]["new"] = {"anything": 1}
    assert receive(SUBJECTS, stored(completion(), body=json.dumps(document).encode())).data == completion()


# Size


def big(artifacts: int, metadata: int, message: int) -> RunCompletion:
    made = [
        Artifact(name=f"a{index}", location=f"gs://x/{index}", metadata={"text": "é" * (metadata * (index + 1) // artifacts)})
        for index in range(artifacts)
    ]
    return completion(artifacts=made, message="m€" * message)


def size(data: RunEvent) -> int:
    return len(encode(build(data)).body)


def test_an_event_within_the_limit_is_left_alone() -> None:
    data = build(big(10, 1000, 100)).get_data()
    assert isinstance(data, dict)
    assert data["truncated"] is False


def test_metadata_is_cut_first_and_the_largest_of_it() -> None:
    data = read(build(big(10, 30_000, 100)))
    assert isinstance(data, RunCompletion)
    assert data.truncated
    assert [bool(artifact.metadata) for artifact in data.artifacts] == [True] * 8 + [False] * 2
    assert data.message == "m€" * 100


def test_artifacts_are_cut_next_from_the_end() -> None:
    data = read(build(big(10_000, 10, 100)))
    assert isinstance(data, RunCompletion)
    assert data.truncated
    assert 0 < len(data.artifacts) < 10_000
    assert not any(artifact.metadata for artifact in data.artifacts)
    assert [artifact.name for artifact in data.artifacts] == [f"a{index}" for index in range(len(data.artifacts))]
    assert data.message == "m€" * 100
    assert MAX_EVENT_BYTES - 8 * 1024 < size(data) <= MAX_EVENT_BYTES


def test_deprecated_artifacts_are_cut_too() -> None:
    made = [ServingModelArtifact(name=f"n{index}", location="x" * 100) for index in range(5000)]
    data = read(build(completion(serving_model_artifacts=made)))
    assert isinstance(data, RunCompletion)
    assert data.truncated
    assert data.artifacts == []
    assert 0 < len(data.serving_model_artifacts) < 5000


@pytest.mark.parametrize("make", [completion, status])
def test_the_message_is_cut_last(make: Any) -> None:
    data = read(build(make(message='"quoted" ' * 100_000)))
    assert data.truncated
    assert data.message.startswith('"quoted" ')
    assert data.message.endswith("…")
    assert MAX_EVENT_BYTES - 8 * 1024 < size(data) <= MAX_EVENT_BYTES


def test_status_artifacts_are_cut_too() -> None:
    made = [Artifact(name="a", location="l", metadata={"t": "x" * 300_000})]
    data = read(build(status(artifacts=made)))
    assert data.truncated
    assert data.artifacts[0].metadata == {}


def test_what_decides_is_never_cut() -> None:
    with pytest.raises(EventError, match="bytes"):
        build(completion(experiment_name="x" * 300_000))


def test_a_failed_step_of_absurd_length_does_not_stop_an_event() -> None:
    assert size(completion(failed_task="x" * 300_000, url="y" * 300_000)) <= MAX_EVENT_BYTES


def test_fitting_twice_changes_nothing() -> None:
    once = fit(big(10, 30_000, 100), 200_000)
    assert fit(once, 200_000) == once


def test_long_names_do_not_break_the_limit() -> None:
    data = completion(
        provider=f"{'p' * 63}/{'q' * 253}", run_name=f"{'r' * 63}/{'s' * 253}", message="m" * 400_000, run_start_time=START.astimezone(UTC)
    )
    assert size(data) <= MAX_EVENT_BYTES


def test_times_keep_milliseconds_in_envelope_and_data() -> None:
    moment = datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)
    event = build(completion(run_end_time=moment))
    assert event.get_time() == moment.replace(microsecond=123000)


# Runs that others started

OBSERVED: dict[str, Any] = {"run_name": "", "run_uid": ""}


def test_a_completion_without_a_run_is_stored_under_its_provider_and_the_backends_id() -> None:
    data = completion(**OBSERVED, attempt=2)
    assert data.observed
    assert not completion().observed
    assert bus_subject(SUBJECTS, data) == "events.run-completion.mlops.kfp.0b9c.2"
    assert documented_subject(SUBJECTS, data) == "events.documented.mlops.kfp.0b9c.2"
    document = json.loads(encode(build(data)).body)
    assert (document["id"], document["subject"], document["source"]) == ("0b9c.2.completion", "0b9c", "mlops/kfp")
    assert (document["data"]["runName"], document["data"]["runUid"], document["data"]["runId"]) == ("", "", "0b9c")
    assert receive(SUBJECTS, stored(data)).data == data


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"run_id": ""}, "neither runName nor runId"),
        ({"provider": ""}, "provider is '', not namespace/name"),
        ({"provider": "kfp"}, "provider is 'kfp', not namespace/name"),
    ],
)
def test_a_completion_without_a_run_says_whose_it_is(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(EventError, match=told):
        bus_subject(SUBJECTS, completion(**OBSERVED, **changes))
    with pytest.raises(EventError, match=told):
        read(build(completion(**OBSERVED, **changes)))


def test_a_completion_without_a_run_cannot_pass_for_one_of_a_run() -> None:
    with pytest.raises(EventError, match="belongs on"):
        receive(SUBJECTS, stored(completion(**OBSERVED), bus_subject(SUBJECTS, completion())))
    with pytest.raises(EventError, match="runName is ''"):
        read(build(status(run_name="", run_uid="")))
