"""From models to structural schemas: what is kept, what is left out, what is refused."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from kfp_operator.api.meta import Model
from kfp_operator.api.schema import Enforced, Rule, exactly_one_of, immutable, keyed_by, matches, structural


class Part(Model):
    """A part."""

    rules = (Rule("self.name != self.kind", "name and kind must differ"),)

    name: Annotated[str, Enforced(min_length=1, max_length=63)] = Field(description="Its name.")
    kind: Literal["a", "b"] = Field("a", description="Its kind.")


class Whole(Model):
    """All of it."""

    parts: Annotated[list[Part], keyed_by("name", 4)] = Field(default_factory=list, description="Its parts.")
    part: Part | None = Field(None, description="The chosen part.")
    limit: Annotated[int, Enforced(minimum=1, maximum=9)] | None = Field(None, description="A limit.")
    value: Annotated[Any, Enforced(nullable=True)] = Field(description="Any JSON.")
    free: dict[str, Any] = Field(default_factory=dict, description="Any object.")
    labels: dict[str, str] = Field(default_factory=dict, description="Strings.")
    retries: int = Field(3, description="How often.")
    on: bool = Field(False, description="Whether.")
    only: Literal["x"] = Field("x", description="A constant.")


PART = {
    "type": "object",
    "required": ["name"],
    "x-kubernetes-validations": [{"rule": "self.name != self.kind", "message": "name and kind must differ"}],
    "properties": {
        "name": {"description": "Its name.", "type": "string", "minLength": 1, "maxLength": 63},
        "kind": {"description": "Its kind.", "type": "string", "enum": ["a", "b"], "default": "a"},
    },
}


def test_a_model_becomes_a_structural_schema() -> None:
    assert structural(Whole.model_json_schema(by_alias=True)) == {
        "description": "All of it.",
        "type": "object",
        "required": ["value"],
        "properties": {
            "parts": {
                "description": "Its parts.",
                "type": "array",
                "maxItems": 4,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": PART | {"description": "A part."},
            },
            "part": PART | {"description": "The chosen part."},
            "limit": {"description": "A limit.", "type": "integer", "format": "int64", "minimum": 1, "maximum": 9},
            "value": {"description": "Any JSON.", "nullable": True, "x-kubernetes-preserve-unknown-fields": True},
            "free": {"description": "Any object.", "type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "labels": {"description": "Strings.", "type": "object", "additionalProperties": {"type": "string"}},
            "retries": {"description": "How often.", "type": "integer", "format": "int64", "default": 3},
            "on": {"description": "Whether.", "type": "boolean", "default": False},
            "only": {"description": "A constant.", "type": "string", "enum": ["x"], "default": "x"},
        },
    }


def test_a_status_has_no_defaults() -> None:
    schema = structural(Whole.model_json_schema(by_alias=True), defaults=False)
    assert not [name for name, part in schema["properties"].items() if "default" in part]


@pytest.mark.parametrize(
    "schema", [{"anyOf": [{"type": "string"}, {"type": "integer"}]}, {"type": "string", "exclusiveMinimum": 3}, {"oneOf": []}]
)
def test_what_a_crd_cannot_say_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a CRD cannot say"):
        structural(schema)


def test_parsing_does_not_repeat_what_the_api_server_enforces() -> None:
    """An object the API server stored is never refused by the operator, where only a log would show it."""
    assert Part(name="x" * 100).name == "x" * 100


def test_rules_quote_patterns_for_cel() -> None:
    rule = matches(r"a\.b", "must be a.b", or_empty=True)
    assert rule.to_json() == {"rule": r"self == '' || self.matches('^a\\.b$')", "message": "must be a.b"}


def test_an_immutable_field_can_neither_change_nor_come_nor_go() -> None:
    assert immutable("x", "no").to_json() == {
        "rule": "has(self.x) == has(oldSelf.x) && (!has(self.x) || self.x == oldSelf.x)",
        "message": "no",
        "fieldPath": ".x",
    }


def test_exactly_one_of_counts_what_is_there() -> None:
    assert exactly_one_of(["a", "b"], "one").rule == "[has(self.a), has(self.b)].exists_one(x, x)"
