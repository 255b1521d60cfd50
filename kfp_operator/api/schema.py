"""What the API server enforces on the models' fields: bounds, list types and CEL rules, written beside the field they are about.

Parsing does not check them again: an object that the API server stores must not be refused by the operator, where only a log
would show it, and a status that is too long is clipped (`api.clip`), not lost. `structural` turns pydantic's JSON Schema into the
structural schema of a CustomResourceDefinition, which `api.crd` wraps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

DNS_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_SUBDOMAIN = rf"{DNS_LABEL}(\.{DNS_LABEL})*"
MAX_LABEL = 63
MAX_NAME = 253
MAX_NAMESPACED_NAME = MAX_LABEL + 1 + MAX_NAME
MAX_VERSION = 135
"""A tag of 128 characters, "-" and a hash of 6."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL rule of ``x-kubernetes-validations``. The message is for the person at kubectl: the accepted form, or the remedy."""

    rule: str
    message: str
    field_path: str = ""
    """JSONPath below the object the rule stands on, for rules about one of its fields."""

    def to_json(self) -> dict[str, Any]:
        """As the CRD has it."""
        document = {"rule": self.rule, "message": self.message}
        return document | {"fieldPath": self.field_path} if self.field_path else document


def matches(pattern: str, message: str, *, or_empty: bool = False) -> Rule:
    """The whole string matches an RE2 pattern. A rule, because the keyword `pattern` can only answer with the pattern itself."""
    literal = pattern.replace("\\", "\\\\")
    rule = f"self.matches('^{literal}$')"
    return Rule(f"self == '' || {rule}" if or_empty else rule, message)


def immutable(field: str, message: str) -> Rule:
    """The field keeps its value, and is neither added nor removed; stands on the object that holds the field."""
    return Rule(
        f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})", message, f".{field}"
    )


def exactly_one_of(fields: Sequence[str], message: str) -> Rule:
    """One of the fields is set, and no other; stands on the object that holds them."""
    present = ", ".join(f"has(self.{field})" for field in fields)
    return Rule(f"[{present}].exists_one(x, x)", message)


@dataclass(frozen=True, slots=True)
class Enforced:
    """Annotation of a field: keywords that go into the CRD. Lengths count characters, not bytes."""

    min_length: int | None = None
    max_length: int | None = None
    min_items: int | None = None
    max_items: int | None = None
    max_properties: int | None = None
    minimum: int | None = None
    maximum: int | None = None
    nullable: bool | None = None
    pattern: str | None = None
    list_type: str | None = None
    list_map_keys: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()

    def keywords(self) -> dict[str, Any]:
        """The OpenAPI keywords."""
        plain = {
            "minLength": self.min_length,
            "maxLength": self.max_length,
            "minItems": self.min_items,
            "maxItems": self.max_items,
            "maxProperties": self.max_properties,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "nullable": self.nullable,
            "pattern": self.pattern,
            "x-kubernetes-list-type": self.list_type,
            "x-kubernetes-list-map-keys": list(self.list_map_keys) or None,
            "x-kubernetes-validations": [rule.to_json() for rule in self.rules] or None,
        }
        return {keyword: value for keyword, value in plain.items() if value is not None}

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core_schema), **self.keywords()}


def keyed_by(key: str, max_items: int) -> Enforced:
    """A list whose items are told apart by one field: merged item by item on server-side apply, no two alike."""
    return Enforced(max_items=max_items, list_type="map", list_map_keys=(key,))


KEPT = (
    "not",
    "type",
    "format",
    "enum",
    "default",
    "nullable",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
)
"""Keywords that mean the same in pydantic's schema and in a CRD."""
UNDERSTOOD = {*KEPT, "description", "title", "const", "properties", "items", "additionalProperties", "anyOf", "$ref", "$defs"}
PRESERVE = "x-kubernetes-preserve-unknown-fields"


def structural(schema: Mapping[str, Any], *, defaults: bool = True) -> dict[str, Any]:
    """The structural schema for a JSON Schema of pydantic.

    `defaults`: whether the API server fills them in. An empty default ("", [], {}, null) is how Python spells absence and is
    never filled in. ValueError: the schema uses what a CRD cannot say.
    """
    return _structural(schema, schema.get("$defs", {}), defaults)


def _structural(schema: Mapping[str, Any], definitions: Mapping[str, Any], defaults: bool) -> dict[str, Any]:
    schema = _flat(schema, definitions)
    if unknown := set(schema) - UNDERSTOOD:
        raise ValueError(f"a CRD cannot say {sorted(unknown)}")
    out = {"description": schema["description"]} if "description" in schema else {}
    out |= {keyword: schema[keyword] for keyword in KEPT if keyword in schema}
    if "const" in schema:
        out |= {"type": "string", "enum": [schema["const"]]}
    if not defaults or out.get("default") in (None, "", [], {}):
        out.pop("default", None)
    if out.get("type") == "integer":
        out["format"] = "int64"
    if "type" not in out:
        out[PRESERVE] = True
    if "properties" in schema:
        out["properties"] = {name: _structural(part, definitions, defaults) for name, part in schema["properties"].items()}
    if "items" in schema:
        out["items"] = _structural(schema["items"], definitions, defaults)
    if (values := schema.get("additionalProperties")) is True or values == {}:
        out[PRESERVE] = True
    elif isinstance(values, Mapping):
        out["additionalProperties"] = _structural(values, definitions, defaults)
    return out


def _flat(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """References resolved and "or null" removed; what stands beside a reference wins over what it refers to."""
    schema = dict(schema)
    while "$ref" in schema or "anyOf" in schema:
        if "$ref" in schema:
            target = definitions[schema.pop("$ref").rpartition("/")[2]]
        else:
            choices = [choice for choice in schema.pop("anyOf") if choice.get("type") != "null"]
            if len(choices) != 1:
                raise ValueError("a CRD cannot say anyOf")
            target = choices[0]
        schema = {**target, **schema}
    return schema
