import json
from datetime import UTC, datetime

import pytest
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_operator.errors import EventError
from kfp_operator.events.binding import decode, decode_value, encode, encode_value
from kfp_operator.events.envelope import build
from tests.doubles.events import check_cloudevent, completion, status

TIME = datetime(2018, 4, 5, 3, 56, 24, tzinfo=UTC)
REQUIRED = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
DOCUMENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}


def event(data: object = None, **attributes: object) -> CloudEvent:
    return CloudEvent({"id": "1", "source": "/s", "type": "t", "time": TIME, **attributes}, data)  # type: ignore[arg-type]  # the SDK's type is narrower than JSON


# The examples of the specification


def test_the_specifications_encoding_example() -> None:
    assert encode_value("Euro € 😀") == "Euro%20%E2%82%AC%20%F0%9F%98%80"
    assert decode_value("Euro%20%E2%82%AC%20%F0%9F%98%80") == "Euro € 😀"


def test_the_specifications_overlong_space_is_refused() -> None:
    with pytest.raises(EventError, match="UTF-8"):
        decode_value("%C0%A0")


def test_the_specifications_binary_example() -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-type": "com.example.someevent",
        "ce-time": "2018-04-05T03:56:24Z",
        "ce-id": "1234-1234-1234",
        "ce-source": "/mycontext/subcontext",
        "ce-datacontenttype": "application/json",
    }
    decoded = decode(headers, b'{"a": 1}')
    assert decoded.get_time() == TIME
    assert decoded.get_data() == {"a": 1}
    assert encode(decoded, "binary").headers == {**headers, "content-type": "application/json"}


def test_the_specifications_structured_example_which_has_no_headers() -> None:
    decoded = decode({}, b'{ "specversion" : "1.0", "type" : "com.example.someevent", "id": "1", "source": "/s", "data" : {"a": 1} }')
    assert decoded.get_type() == "com.example.someevent"
    assert decoded.get_data() == {"a": 1}


# Encoding


@pytest.mark.parametrize("data", [completion(), completion(message="naïve 😀", run_end_time=None), status()])
def test_structured_events_satisfy_the_cloudevents_schema_and_have_no_attribute_headers(data: object) -> None:
    wire = encode(build(data))  # type: ignore[arg-type]  # parametrize loses the type
    assert wire.headers == {"content-type": "application/cloudevents+json"}
    check_cloudevent(json.loads(wire.body))
    assert decode(wire.headers, wire.body).get_attributes() == build(data).get_attributes()  # type: ignore[arg-type]


def test_compatible_events_show_both_spellings_and_are_valid_binary_mode() -> None:
    wire = encode(build(completion()), "compatible")
    body = json.loads(wire.body)
    check_cloudevent(body)
    assert body["status"] == body["data"]["status"] == "succeeded"
    assert body["pipelineName"] == body["data"]["pipelineName"] == "team-a/penguin-pipeline"
    assert body["type"] == "org.kubeflow.pipelines.run-completion"
    assert wire.headers["content-type"] == wire.headers["ce-datacontenttype"] == "application/json"
    decoded = decode(wire.headers, wire.body)
    assert decoded.get_attributes() == build(completion()).get_attributes()
    assert decoded.get_data() == body


def test_the_envelope_is_not_overwritten_by_data_of_the_same_name() -> None:
    body = json.loads(encode(event({"id": "other", "extra": 1}), "compatible").body)
    assert (body["id"], body["data"]["id"], body["extra"]) == ("1", "other", 1)


attribute = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


@settings(deadline=None)
@given(ident=attribute, subject=attribute, extension=attribute, data=st.dictionaries(st.text(), st.integers() | st.text(), max_size=3))
@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_every_event_survives_both_modes(mode: str, ident: str, subject: str, extension: str, data: dict[str, object]) -> None:
    data = {key: value for key, value in data.items() if not any(0xD800 <= ord(c) <= 0xDFFF for c in f"{key}{value}")}
    original = event(data, id=ident, subject=subject, status=extension, datacontenttype="application/json")
    wire = encode(original, mode)  # type: ignore[arg-type]  # parametrize loses the literal
    assert all(0x21 <= ord(c) <= 0x7E for value in wire.headers.values() for c in value)
    decoded = decode(wire.headers, wire.body)
    assert decoded.get_attributes() == original.get_attributes()
    assert decoded.get_data() == data


@pytest.mark.parametrize(
    ("data", "content_type", "body"),
    [
        (None, None, b""),
        (b"\x00\xff", "application/octet-stream", b"\x00\xff"),
        ("plain", "text/plain", b"plain"),
        ("json", "application/json", b'"json"'),
        ([1, 2], None, b"[1,2]"),
    ],
)
def test_data_of_every_type_is_the_body_in_binary_mode(data: object, content_type: str | None, body: bytes) -> None:
    original = event(data, **({"datacontenttype": content_type} if content_type else {}))
    wire = encode(original, "binary")
    assert wire.body == body
    assert decode(wire.headers, wire.body).get_data() == data


def test_bytes_are_base64_in_structured_mode() -> None:
    wire = encode(event(b"\x00\xff", datacontenttype="application/octet-stream"))
    assert json.loads(wire.body)["data_base64"] == "AP8="
    assert decode(wire.headers, wire.body).get_data() == b"\x00\xff"


def test_numbers_that_json_lacks_are_refused_not_written() -> None:
    with pytest.raises(EventError, match="JSON"):
        encode(event({"loss": float("nan")}))


# Decoding


@pytest.mark.parametrize("content_type", ["application/cloudevents+json", "Application/CloudEvents+JSON; charset=UTF-8"])
def test_the_mode_is_told_by_the_content_type_in_any_case(content_type: str) -> None:
    assert decode({"CONTENT-Type": content_type}, json.dumps(DOCUMENT).encode()).get_id() == "1"


def test_header_names_are_case_insensitive() -> None:
    assert decode({name.upper(): value for name, value in REQUIRED.items()}, b"").get_source() == "/s"


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        ('"a \\"quoted\\" \\\\ value"', 'a "quoted" \\ value'),
        ('"Euro%20%e2%82%ac"', "Euro €"),
        ("%61%62", "ab"),
        ("  padded  ", "padded"),
        ('half "quoted"', 'half "quoted"'),
        ("100%", "100%"),
        ("%2541", "%41"),
    ],
)
def test_values_are_unquoted_then_decoded_once(value: str, decoded: str) -> None:
    assert decode_value(value) == decoded


def test_an_attribute_without_time_gets_none_invented() -> None:
    assert decode(REQUIRED, b"").get_time() is None


POISON = {
    "empty": ({}, b""),
    "not JSON": ({}, b"{"),
    "not UTF-8": ({}, b"\xff"),
    "an array": ({}, b"[]"),
    "a number": ({}, b"1"),
    "null": ({}, b"null"),
    "nested without end": ({}, b"[" * 100_000),
    "no attributes": ({}, b"{}"),
    "another version": ({}, json.dumps(DOCUMENT | {"specversion": "0.3"}).encode()),
    "a NaN": ({}, json.dumps(DOCUMENT | {"data": float("nan")}).encode()),
    "an empty id": ({}, json.dumps(DOCUMENT | {"id": ""}).encode()),
    "an id that is a number": ({}, json.dumps(DOCUMENT | {"id": 1}).encode()),
    "a time without zone": ({}, json.dumps(DOCUMENT | {"time": "2018-04-05T03:56:24"}).encode()),
    "a time that is no time": ({}, json.dumps(DOCUMENT | {"time": "2018-13-05T03:56:24Z"}).encode()),
    "a time that is a date": ({}, json.dumps(DOCUMENT | {"time": "2018-04-05"}).encode()),
    "a time that is a number": ({}, json.dumps(DOCUMENT | {"time": 1}).encode()),
    "an attribute that is an object": ({}, json.dumps(DOCUMENT | {"status": {}}).encode()),
    "an attribute that is a fraction": ({}, json.dumps(DOCUMENT | {"status": 1.5}).encode()),
    "an attribute name in capitals": ({}, json.dumps(DOCUMENT | {"Status": "x"}).encode()),
    "an attribute name with a line end": ({}, json.dumps(DOCUMENT | {"status\n": "x"}).encode()),
    "an empty subject": ({}, json.dumps(DOCUMENT | {"subject": ""}).encode()),
    "a control character": ({}, json.dumps(DOCUMENT | {"subject": "a\u0007"}).encode()),
    "half a surrogate pair": ({}, json.dumps(DOCUMENT | {"subject": "\ud800"}).encode()),
    "data twice": ({}, json.dumps(DOCUMENT | {"data": 1, "data_base64": "AA=="}).encode()),
    "base64 that is none": ({}, json.dumps(DOCUMENT | {"data_base64": "*"}).encode()),
    "base64 that is a number": ({}, json.dumps(DOCUMENT | {"data_base64": 1}).encode()),
    "a batch": ({"content-type": "application/cloudevents-batch+json"}, b"[]"),
    "another format": ({"content-type": "application/cloudevents+avro"}, b""),
    "plain JSON": ({"content-type": "application/json"}, json.dumps(DOCUMENT).encode()),
    "binary without id": ({name: value for name, value in REQUIRED.items() if name != "ce-id"}, b""),
    "binary with half of its headers": ({"ce-id": "1"}, b""),
    "binary with invalid UTF-8": (REQUIRED | {"ce-subject": "%C0%A0"}, b""),
    "binary with a raw byte that was no UTF-8": (REQUIRED | {"ce-subject": "\ufffd"}, b""),
    "binary with a header twice": (REQUIRED | {"CE-ID": "2"}, b""),
    "binary with an attribute called data": (REQUIRED | {"ce-data": "x"}, b""),
    "binary without an attribute name": (REQUIRED | {"ce-": "x"}, b""),
    "binary whose data is not JSON": (REQUIRED | {"ce-datacontenttype": "application/json"}, b"{"),
    "binary whose text is not UTF-8": (REQUIRED | {"ce-datacontenttype": "text/plain"}, b"\xff"),
}


@pytest.mark.parametrize(("headers", "body"), POISON.values(), ids=POISON.keys())
def test_poison_is_named_as_such(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(EventError) as caught:
        decode(headers, body)
    assert len(str(caught.value)) > 10


@settings(deadline=None)
@given(
    headers=st.dictionaries(st.sampled_from([*REQUIRED, "content-type", "ce-time", "x"]), st.text(max_size=20)), body=st.binary(max_size=60)
)
def test_bytes_never_raise_anything_else(headers: dict[str, str], body: bytes) -> None:
    try:
        decode(headers, body)
    except EventError:
        return
