import json
from typing import Any

import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_operator.errors import EventError
from kfp_operator.events.http_binding import BATCH_TYPE, MAX_BATCH, UnsupportedMedia, decode, media_type, read_json

JSON = [("content-type", "application/json")]
STRUCTURED = [("content-type", "application/cloudevents+json; charset=utf-8")]
ATTRIBUTES = [("ce-specversion", "1.0"), ("ce-id", "7"), ("ce-source", "/lake"), ("ce-type", "t")]


def document(**changes: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "7", "source": "/lake", "type": "t", "data": {"x": 1}} | changes


def dump(value: object) -> bytes:
    return json.dumps(value).encode()


def test_a_structured_event_is_the_body() -> None:
    (event,) = decode(STRUCTURED, dump(document(subject="s")))
    assert (event.get_id(), event.get_source(), event.get_subject(), event.get_data()) == ("7", "/lake", "s", {"x": 1})


def test_in_binary_mode_headers_are_attributes_and_the_body_is_the_data() -> None:
    headers = [("Content-Type", "application/json"), ("CE-Subject", "na%C3%AFve%20one"), *ATTRIBUTES, ("X-Other", "1"), ("X-Other", "2")]
    (event,) = decode(headers, b'{"x": 1}')
    assert (event.get_id(), event.get_subject(), event.get_data()) == ("7", "naïve one", {"x": 1})
    assert event.get_datacontenttype() == "application/json"


def test_a_batch_is_a_list_of_events() -> None:
    events = decode([("content-type", BATCH_TYPE)], dump([document(id="1"), document(id="2")]))
    assert [event.get_id() for event in events] == ["1", "2"]
    assert decode([("content-type", BATCH_TYPE)], b"[]") == []


@pytest.mark.parametrize("write", [to_binary_event, to_structured_event])
def test_what_the_cloudevents_sdk_sends_is_understood(write: Any) -> None:
    sent = write(
        CloudEvent({"id": "7", "source": "/lake", "type": "t", "subject": "naïve", "datacontenttype": "application/json"}, {"x": 1})
    )
    body = sent.body if isinstance(sent.body, bytes) else sent.body.encode()
    (event,) = decode(sent.headers.items(), body)
    assert (event.get_id(), event.get_subject(), event.get_data()) == ("7", "naïve", {"x": 1})


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ([], "content-type is missing; send application/cloudevents+json"),
        (JSON, "not a CloudEvent: content-type is application/json"),
        ([("content-type", "application/cloudevents+xml")], "not a CloudEvent: content-type is application/cloudevents+xml"),
        ([("content-type", "application/cloudevents+json; charset=latin-1")], "charset latin-1 is not supported"),
        ([("content-type", "text/plain"), *ATTRIBUTES], "the data of an event must be JSON; content-type is text/plain"),
        (ATTRIBUTES, "the data of an event must be JSON; content-type is missing"),
    ],
    ids=str,
)
def test_other_types_of_bodies_are_not_supported(headers: list[tuple[str, str]], told: str) -> None:
    with pytest.raises(UnsupportedMedia) as caught:
        decode(headers, dump(document()))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "body", "told"),
    [
        (STRUCTURED, b"x", "the body is not JSON"),
        (STRUCTURED, b"[]", "the body is not a JSON object"),
        (STRUCTURED, b'{"a": NaN}', "the body is not JSON"),
        (STRUCTURED, b'{"a": "\\ud800"}', "the body is not JSON"),
        (STRUCTURED, b"[" * 100_000, "the body is not JSON: recursion limit exceeded"),
        (STRUCTURED, b'{"a": ' + b"9" * 100_000 + b"}", "the body is not JSON: number out of range"),
        (STRUCTURED, dump(document(specversion="0.3")), "not a CloudEvent 1.0"),
        (STRUCTURED, dump(document(id="")), "attribute id is missing, empty"),
        ([("content-type", BATCH_TYPE)], dump(document()), "a batch is a JSON list"),
        ([("content-type", BATCH_TYPE)], dump([document(), document(source=1)]), "event [1] of the batch: not a CloudEvent"),
        ([("content-type", BATCH_TYPE)], dump([document()] * (MAX_BATCH + 1)), "the batch has 101 events; 100 are allowed"),
        ([*JSON, *ATTRIBUTES], b"", "the event has no data"),
        ([*JSON, *ATTRIBUTES], b"{", "the body is not JSON"),
        ([*JSON, *ATTRIBUTES, ("ce-id", "8")], b"{}", "header ce-id is there twice"),
        ([*JSON, *JSON, *ATTRIBUTES], b"{}", "header content-type is there twice"),
        ([*JSON, *ATTRIBUTES, ("ce-a", "%ff")], b"{}", "not UTF-8"),
        ([*JSON, *ATTRIBUTES, ("ce-a", "\udcff")], b"{}", "not UTF-8"),
        ([*JSON, *ATTRIBUTES, ("ce-a", "%0a")], b"{}", "control character"),
        ([*JSON, *ATTRIBUTES, ("ce-data_base64", "AA")], b"{}", "both data and data_base64"),
        ([*JSON, *ATTRIBUTES, ("ce-datacontenttype", "text/plain")], b"{}", "header ce-datacontenttype is not allowed"),
        ([*JSON, *ATTRIBUTES, ("ce-time", "yesterday")], b"{}", "not an RFC 3339 time"),
    ],
    ids=[
        "no-json", "list", "nan", "surrogate", "deep", "number", "version", "no-id", "no-batch", "bad-one", "too-many", "no-data",
        "bad-data", "twice", "type-twice", "not-utf8", "raw-byte", "control", "data64", "data-type", "time",
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_request_is_told(headers: list[tuple[str, str]], body: bytes, told: str) -> None:
    with pytest.raises(EventError) as caught:
        decode(headers, body)
    assert told in str(caught.value)
    assert not isinstance(caught.value, UnsupportedMedia)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("", "")),
        ("Application/JSON", ("application/json", "")),
        ('a/b; boundary=x; CHARSET="UTF-8"', ("a/b", "utf-8")),
        (";;", ("", "")),
    ],
)
def test_a_content_type_is_taken_apart(text: str, expected: tuple[str, str]) -> None:
    assert media_type(text) == expected


names = st.sampled_from(["content-type", "ce-id", "ce-source", "ce-type", "ce-specversion", "ce-x", "ce-data", "ce-", "CE-ID"])
values = st.sampled_from(["application/json", "application/cloudevents+json", BATCH_TYPE, "1.0", "%", "x"]) | st.text(max_size=20)


@settings(deadline=None, max_examples=300)
@given(headers=st.lists(st.tuples(names, values), max_size=8), body=st.binary(max_size=100) | st.just(dump([document()])))
def test_anything_is_events_or_refused(headers: list[tuple[str, str]], body: bytes) -> None:
    try:
        events = decode(headers, body)
    except EventError:
        return
    assert all(event.get_id() and event.get_source() and event.get_type() for event in events)


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=10))
def test_json_is_read_as_python_reads_it(value: object) -> None:
    assert read_json(dump(value)) == value
