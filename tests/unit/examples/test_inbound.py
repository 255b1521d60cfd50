"""Every file under ``examples/inbound/`` does what it says: what other programs send because of it becomes the event that is meant."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from kfp_operator.events import inbound
from kfp_operator.events.senders import parse
from kfp_operator.events.webhooks.connection import Connection
from tests.doubles.argo import Dependency, data_filters, http_trigger, nats_trigger
from tests.doubles.deliveries import SECRET, bearer, delivery, github_headers, gitlab_headers, payload
from tests.doubles.inbound_port import SUBJECTS, TOKENS, Port

EXAMPLES = Path(__file__).parents[3] / "examples" / "inbound"
TESTED = {
    "senders.yaml",
    "alertmanager.yaml",
    "registry.yaml",
    "argo/minio.yaml",
    "argo/kafka.yaml",
    "payloads/event.json",
    "payloads/github-push.json",
    "payloads/gitlab-push.json",
    "payloads/gitlab-tag-push.json",
    "payloads/registry-push.json",
    "payloads/alertmanager.json",
    "payloads/harbor-push-artifact.json",
}
CONTEXT = {
    "id": "evaluation:metrics:kafka.streams:9092:model-metrics:0:4711",
    "source": "evaluation",
    "specversion": "1.0",
    "type": "kafka",
    "datacontenttype": "application/json",
    "subject": "metrics",
    "time": "2026-03-01T16:00:00Z",
}
RECORD = {
    "eventVersion": "2.0",
    "eventSource": "minio:s3",
    "awsRegion": "",
    "eventTime": "2026-03-01T16:00:00.123Z",
    "eventName": "s3:ObjectCreated:Put",
    "userIdentity": {"principalId": "labelling"},
    "requestParameters": {"principalId": "labelling", "region": "", "sourceIPAddress": "10.0.4.8"},
    "responseElements": {"x-amz-request-id": "1898C2B7D4E5F601", "x-minio-origin-endpoint": "http://10.0.0.9:9000"},
    "s3": {
        "s3SchemaVersion": "1.0",
        "configurationId": "Config",
        "bucket": {"name": "datasets", "ownerIdentity": {"principalId": "labelling"}, "arn": "arn:aws:s3:::datasets"},
        "object": {
            "key": "penguins%2F2026-03-01.csv",
            "size": 13478,
            "eTag": "7d793037a0760186574b0282f2f435e7",
            "contentType": "text/csv",
            "sequencer": "1898C2B7D4F0A1B2",
        },
    },
    "source": {"host": "10.0.4.8", "port": "", "userAgent": "MinIO (linux; amd64) minio-go/v7.0.70"},
}
"""A notification as the MinIO EventSource hands it on."""


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
    async with Port(tmp_path).serving() as made:
        yield made


@pytest.fixture(scope="module")
def connections() -> dict[str, Connection]:
    """Those of senders.yaml, by their paths."""
    return {one.path: one for one in parse((EXAMPLES / "senders.yaml").read_text(), "senders.yaml")[1]}


def documents(file: str) -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load_all((EXAMPLES / file).read_text())


def sensor(file: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The one dependency of the Sensor in the file, and the template of its one trigger."""
    source, spec = documents(file)
    (dependency,), (trigger,) = spec["spec"]["dependencies"], spec["spec"]["triggers"]
    assert (source["kind"], spec["kind"]) == ("EventSource", "Sensor")
    assert source["metadata"]["name"] == dependency["eventSourceName"]
    (events,) = source["spec"].values()
    assert list(events) == [dependency["eventName"]]
    return dependency, trigger


def test_every_file_is_tested() -> None:
    assert {str(file.relative_to(EXAMPLES)) for file in EXAMPLES.rglob("*") if file.is_file()} == TESTED


async def test_the_event_is_accepted(port: Port) -> None:
    answer = await port.event((EXAMPLES / "payloads" / "event.json").read_bytes())
    assert answer.status == 202
    (stored,) = port.bus.messages("events.inbound.>")
    assert inbound.receive(SUBJECTS, stored).data.payload == {"version": "2026-03-01", "rows": 344}


@pytest.mark.parametrize(
    ("path", "name", "headers", "expected"),
    [
        ("penguins", "github-push", {}, {"kind": "connection_git_commit", "ref": "connections.penguins", "branch": "main"}),
        ("penguins-gitlab", "gitlab-push", gitlab_headers(), {"kind": "connection_git_commit", "branch": "main"}),
        (
            "penguins-gitlab",
            "gitlab-tag-push",
            gitlab_headers("Tag Push Hook"),
            {"tag": "v1.0.0", "message": "Train on flipper length too\n"},
        ),
        ("registry", "registry-push", bearer(), {"kind": "connection_registry_image", "tag": "2026.3.1"}),
        ("alertmanager", "alertmanager", bearer(), {"kind": "alert_critical", "ref": "alerts.ModelDrift"}),
        (
            "harbor",
            "harbor-push-artifact",
            bearer(),
            {"ref": "connections.harbor", "image": "vision/trainer", "tag": "2026.3.1", "actor": "robot$ci"},
        ),
    ],
)
def test_a_payload_becomes_the_event_that_its_connection_is_for(
    connections: dict[str, Connection], path: str, name: str, headers: dict[str, str], expected: dict[str, str]
) -> None:
    connection = connections[f"/hooks/team-a/{path}"]
    body = payload(name)
    given = delivery(body, headers or github_headers(body))
    connection.authenticate(given, [SECRET])
    (event,) = connection.events(given).events
    assert expected.items() <= event.event.get_data().items()


def test_alertmanager_calls_its_connection(connections: dict[str, Connection]) -> None:
    (document,) = documents("alertmanager.yaml")
    receivers = {one["name"]: one for one in document["receivers"]}
    (hook,) = receivers[document["route"]["routes"][0]["receiver"]]["webhook_configs"]
    assert getattr(connections[urlsplit(hook["url"]).path], "type", "") == "alertmanager"
    assert hook["http_config"]["authorization"]["type"] == "Bearer"


def test_the_registry_calls_its_connection(connections: dict[str, Connection]) -> None:
    (document,) = documents("registry.yaml")
    (endpoint,) = document["notifications"]["endpoints"]
    connection = connections[urlsplit(endpoint["url"]).path]
    (authorization,) = endpoint["headers"]["Authorization"]
    connection.authenticate(delivery(b"", {"Authorization": authorization}), ["the-secret-of-the-connection"])
    assert {event.data.kind.value for event in connection.events(delivery(payload("registry-push"), {})).events} == {
        "connection_registry_image"
    }


async def forwarded(port: Port, record: dict[str, Any]) -> int:
    """The answer to what the Sensor of minio.yaml sends for a record."""
    dependency, trigger = sensor("argo/minio.yaml")
    data = {"notification": [record]}
    assert data_filters(data, dependency["filters"]["data"]).fires
    secrets = {("kfp-operator-token", "authorization"): f"Bearer {TOKENS['many']}"}
    request = http_trigger(trigger["template"]["http"], {dependency["name"]: Dependency(CONTEXT, data)}, secrets)
    parts = urlsplit(request.url)
    assert request.method == "POST"
    return (await port.post(f"{parts.path}?{parts.query}", request.body, request.headers)).status


async def test_argo_events_forwards_a_data_set_over_http(port: Port) -> None:
    _, trigger = sensor("argo/minio.yaml")
    assert await forwarded(port, RECORD) in trigger["policy"]["status"]["allow"]
    assert await forwarded(port, RECORD) == 202, "Argo Events may send it again"
    (message,) = port.bus.messages("events.inbound.>")
    event = inbound.receive(SUBJECTS, message)
    assert (event.namespace, event.source, event.id) == ("team-a", "penguins/2026-03-01.csv", "1898C2B7D4F0A1B2")
    assert event.event.get_data() == {
        "kind": "connection_dataset_version",
        "ref": "connections.penguins",
        "object": "penguins%2F2026-03-01.csv",
        "version": "7d793037a0760186574b0282f2f435e7",
        "bytes": 13478,
    }


async def test_a_data_set_that_is_written_again_is_another_event(port: Port) -> None:
    again = json.loads(json.dumps(RECORD))
    again["s3"]["object"]["sequencer"] = "1898C2B7D4F0A1B3"
    for record in (RECORD, again):
        assert await forwarded(port, record) == 202
    assert len(port.stored()) == 2


async def test_argo_events_forwards_a_metric_over_nats(port: Port) -> None:
    dependency, trigger = sensor("argo/kafka.yaml")
    data = {
        "topic": "model-metrics",
        "key": "penguin",
        "partition": 0,
        "body": {"model": "penguin", "version": "7", "metrics": {"accuracy": 0.97}},
        "timestamp": "2026-03-01 16:00:00 +0000 UTC",
    }
    assert data_filters(data, dependency["filters"]["data"]).fires
    subject, body = nats_trigger(trigger["template"]["nats"], {dependency["name"]: Dependency(CONTEXT, data)})
    await port.bus.publish(subject, body, {})
    (message,) = port.bus.messages("events.inbound.>")
    event = inbound.receive(SUBJECTS, message)
    assert (event.namespace, event.source, event.id) == ("team-a", "argo-events/evaluation", CONTEXT["id"])
    assert event.data.payload == {"version": "7", "metrics": {"accuracy": 0.97}}
    assert (event.data.kind.value, event.data.ref) == ("model_version_new_metric", "models.penguin")
