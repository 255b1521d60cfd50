"""Sensors that people have, fed with what a real server delivers on the documented subject."""

from typing import Any

import nats as nats_py
import pytest

from kfp_operator.events.binding import ContentMode
from kfp_operator.events.envelope import build
from kfp_operator.events.jetstream import JetStreamBus
from kfp_operator.events.publisher import publish_documented
from kfp_operator.schemas import RunCompletion
from kfp_operator.settings import EventsSettings
from tests.cluster import NatsServer
from tests.doubles.argo import MISSING, data_filters, event_source, resolve
from tests.doubles.events import completion
from tests.integration.events.rigs import SUBJECTS

DOCUMENTED: list[dict[str, Any]] = [
    {"path": "body.status", "type": "string", "comparator": "=", "value": ["succeeded"]},
    {"path": "body.pipelineName", "type": "string", "comparator": "=", "value": ["penguin-pipeline"]},
]
"""The Sensor of the reference page."""

QUICKSTART: list[dict[str, Any]] = [
    {"path": "body.data.status", "type": "string", "comparator": "=", "value": ["succeeded"]},
    {"path": "body.data.pipelineName", "type": "string", "comparator": "=", "value": ["^team-a/penguin-pipeline$"]},
]
"""The Sensor of the quickstart."""


async def wrapped(server: NatsServer, bus: JetStreamBus, data: RunCompletion, mode: ContentMode) -> Any:
    client = await nats_py.connect(server.url)
    try:
        subscription = await client.subscribe("events")
        await client.flush()
        await publish_documented(bus, SUBJECTS, build(data), mode)
        message = await subscription.next_msg(timeout=10)
        return event_source(message.subject, message.headers or {}, message.data)
    finally:
        await client.close()


async def test_both_sensors_fire_on_the_default_settings(nats: NatsServer, bus: JetStreamBus) -> None:
    event = await wrapped(nats, bus, completion(), EventsSettings().documented_content_mode)
    assert data_filters(event, DOCUMENTED).fires
    assert data_filters(event, QUICKSTART).fires


async def test_in_structured_mode_only_the_quickstarts_sensor_fires(nats: NatsServer, bus: JetStreamBus) -> None:
    event = await wrapped(nats, bus, completion(), "structured")
    assert resolve(event, "body.status") == "succeeded"  # the extension attribute
    assert data_filters(event, DOCUMENTED).reason == "path 'body.pipelineName' does not exist"
    assert data_filters(event, QUICKSTART).fires


async def test_in_binary_mode_only_the_documented_sensor_fires(nats: NatsServer, bus: JetStreamBus) -> None:
    event = await wrapped(nats, bus, completion(), "binary")
    assert data_filters(event, DOCUMENTED).fires
    assert data_filters(event, QUICKSTART).reason == "path 'body.data.status' does not exist"


@pytest.mark.parametrize(
    "changes", [{"status": "failed", "state": "failed"}, {"status": "failed", "state": "stopped"}, {"pipeline_name": "team-a/other"}]
)
async def test_neither_fires_on_another_outcome_or_pipeline(nats: NatsServer, bus: JetStreamBus, changes: dict[str, str]) -> None:
    event = await wrapped(nats, bus, completion(**changes), "compatible")
    assert not data_filters(event, DOCUMENTED).fires
    assert not data_filters(event, QUICKSTART).fires


async def test_a_trigger_finds_the_model_by_name(nats: NatsServer, bus: JetStreamBus) -> None:
    event = await wrapped(nats, bus, completion(), "compatible")
    for path in ('body.artifacts.#(name=="serving-model").location', 'body.data.artifacts.#(name=="serving-model").location'):
        assert resolve(event, path) == "gs://models/1"
    assert resolve(event, "body.artifacts.0.location") == "gs://models/1"
    assert resolve(event, 'body.artifacts.#(name=="other").location') is MISSING


async def test_attributes_can_be_filtered_in_headers_and_body(nats: NatsServer, bus: JetStreamBus) -> None:
    event = await wrapped(nats, bus, completion(), "compatible")
    assert resolve(event, "header.ce-type.0") == resolve(event, "body.type") == "org.kubeflow.pipelines.run-completion"
    assert resolve(event, "header.ce-id.0") == resolve(event, "body.id")
    assert resolve(event, "header.ce-status.0") == "succeeded"
