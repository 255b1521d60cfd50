from typing import Any

import pytest

from kfp_operator.api.crd import crds
from kfp_operator.cli.check_cluster import differences, without_descriptions


def schema(**fields: str) -> dict[str, Any]:
    properties = {name: {"type": type_} for name, type_ in fields.items()}
    return {"schema": {"properties": {"spec": {"properties": properties}}}}


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ({}, {}, []),
        ({"a": 1}, {"a": 1}, []),
        ({"a": []}, {}, []),
        ({}, {"a": {}}, []),
        ({"a": 1}, {}, ["a is missing"]),
        ({}, {"a": 1}, ["a is not of this version"]),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ["a.b is another"]),
        ({"a": 0}, {}, ["a is missing"]),
        (schema(x="string", y="string"), schema(y="integer"), ["spec.x is missing", "spec.y.type is another"]),
    ],
)
def test_differences_are_named_as_fields(wanted: Any, found: Any, expected: list[str]) -> None:
    assert list(differences(wanted, found)) == expected


def test_a_crd_does_not_differ_from_itself() -> None:
    assert list(differences(crds(), crds())) == []


def test_words_are_left_out_but_not_a_field_that_is_called_description() -> None:
    schema = {"description": "An object.", "properties": {"description": {"type": "string", "description": "A text."}}}
    assert without_descriptions(schema) == {"properties": {"description": {"type": "string"}}}
