import json

import pytest

from tests.doubles.argo import MISSING, data_filters, event_source, resolve

DOCUMENT = {
    "body": {
        "status": "succeeded",
        "accuracy": 0.97,
        "nothing": None,
        "artifacts": [
            {"name": "model", "location": "gs://1", "n": 1},
            {"name": "serving.model", "location": "gs://2", "n": 2},
            {"location": "gs://3"},
        ],
        "my.label/x": "dotted",
        "a*b": "starred",
    },
    "header": {"ce-type": ["t"]},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("body.status", "succeeded"),
        ("body.missing", MISSING),
        ("body.status.deeper", MISSING),
        ("body.nothing", None),
        ("body.nothing.deeper", MISSING),
        (r"body.my\.label/x", "dotted"),
        (r"body.a\*b", "starred"),
        ("body.st*", "succeeded"),
        ("body.artifacts.0.location", "gs://1"),
        ("body.artifacts.7", MISSING),
        ("body.artifacts.#", 3),
        ("body.artifacts.#.name", ["model", "serving.model"]),
        ('body.artifacts.#(name=="model").location', "gs://1"),
        ('body.artifacts.#(name=="serving.model").location', "gs://2"),
        ('body.artifacts.#(name=="other").location', MISSING),
        ('body.artifacts.#(name%"serv*").location', "gs://2"),
        ("body.artifacts.#(n>1).location", "gs://2"),
        ("body.artifacts.#(n>=1)#.location", ["gs://1", "gs://2"]),
        ('body.artifacts.#(name!="model")#.location', ["gs://2"]),
        ("body.artifacts.#(name)#.n", [1, 2]),
        ("header.ce-type.0", "t"),
        ("header.Ce-Type.0", MISSING),
        ("body.artifacts.name", MISSING),
    ],
)
def test_paths_lead_where_gjson_leads(path: str, found: object) -> None:
    assert resolve(DOCUMENT, path) == found


@pytest.mark.parametrize(
    ("kind", "comparator", "value", "path", "fires"),
    [
        ("string", "=", "succeeded", "body.status", True),
        ("string", "", "ceed", "body.status", True),
        ("string", "=", "^ceed", "body.status", False),
        ("string", "!=", "failed", "body.status", True),
        ("string", "!=", "succ", "body.status", False),
        ("string", "=", "0.97", "body.accuracy", True),
        ("number", ">", "0.9", "body.accuracy", True),
        ("number", ">", "0.99", "body.accuracy", False),
        ("number", "=", "0", "body.status", True),
        ("bool", "=", "false", "body.status", True),
    ],
)
def test_filters_compare_as_argo_compares(kind: str, comparator: str, value: str, path: str, fires: bool) -> None:
    verdict = data_filters(DOCUMENT, [{"path": path, "type": kind, "comparator": comparator, "value": [value]}])
    assert verdict.fires is fires


def test_one_of_several_values_is_enough_and_every_filter_must_pass() -> None:
    passing = {"path": "body.status", "type": "string", "value": ["failed", "succeeded"]}
    refusing = {"path": "body.accuracy", "type": "number", "comparator": "<", "value": ["0.5"]}
    assert data_filters(DOCUMENT, [passing]).fires
    assert not data_filters(DOCUMENT, [passing, refusing]).fires


def test_a_path_that_does_not_exist_discards_the_event_and_says_so() -> None:
    verdict = data_filters(DOCUMENT, [{"path": "body.data.status", "type": "string", "value": [".*"]}])
    assert verdict == type(verdict)(False, "path 'body.data.status' does not exist")


def test_an_event_source_wraps_headers_as_lists_and_the_body_as_json() -> None:
    wrapped = event_source("events", {"ce-id": "a%20b"}, b'{"a": 1}')
    assert wrapped == {"subject": "events", "body": {"a": 1}, "header": {"ce-id": ["a%20b"]}}
    assert event_source("events", {}, b'{"a": 1}', json_body=False) == {"subject": "events", "body": "eyJhIjogMX0="}


def test_an_event_source_for_json_drops_what_is_none() -> None:
    with pytest.raises(json.JSONDecodeError):
        event_source("events", {}, b"")
