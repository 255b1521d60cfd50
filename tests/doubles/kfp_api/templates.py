"""Compiled pipelines as the server reads them: what it refuses at an upload, and what only when a run is made of it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from google.protobuf import json_format

from kfp_operator.providers.pipeline_spec import messages
from tests.doubles.kfp_api.failures import Refusal, internal, invalid

NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
NAME_RULE = (
    "pipeline's name must contain only lowercase alphanumeric characters or '-' and must start with alphanumeric characters: "
    "invalid input error"
)
Document = dict[str, Any]


class BadTemplate(ValueError):
    """What the server says is wrong with it."""


class SyntaxErrorInFirst(Exception):
    """The first document is not YAML: the real server never answers."""


def parse(text: bytes) -> Document:
    """The spec that the API will show: one document, or both under their names. BadTemplate, SyntaxErrorInFirst."""
    documents: list[Any] = []
    try:
        for document in yaml.load_all(text, yaml.CSafeLoader):
            documents.append(document)  # noqa: PERF402 - a later one may be broken
    except yaml.YAMLError:
        if not documents:
            raise SyntaxErrorInFirst from None
        raise BadTemplate("unknown template format") from None
    documents = [d for d in documents if d is not None]
    if not documents or not all(isinstance(d, dict) for d in documents):
        raise BadTemplate("unknown template format")
    platforms = [d for d in documents if "platforms" in d]
    specs = [d for d in documents if "platforms" not in d]
    if len(specs) != 1 or len(platforms) > 1:
        raise BadTemplate("unknown template format")
    check(specs[0])
    return {"pipeline_spec": specs[0], "platform_spec": platforms[0]} if platforms else specs[0]


def check(spec: Mapping[str, Any]) -> None:
    """The server's own checks of a PipelineSpec; BadTemplate."""
    try:
        message = json_format.ParseDict(dict(spec), messages.PipelineSpec())
    except (json_format.ParseError, TypeError, ValueError, AttributeError):
        raise BadTemplate("unknown template format") from None
    if not message.HasField("root") or not message.pipeline_info.name:
        raise BadTemplate("unknown template format")
    if message.schema_version != "2.1.0":
        raise BadTemplate(f"KFP only supports schema version 2.1.0, but the pipeline spec has version {message.schema_version}")
    if len(message.pipeline_info.name) > 128 or not NAME.fullmatch(message.pipeline_info.name):
        raise BadTemplate(NAME_RULE)


def inner(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The PipelineSpec of a stored document."""
    found: Mapping[str, Any] = spec.get("pipeline_spec", spec)
    return found


def name(spec: Mapping[str, Any]) -> str:
    """The name that Workflows begin with."""
    return str(inner(spec)["pipelineInfo"]["name"])


def tasks(spec: Mapping[str, Any]) -> list[str]:
    """Names of the root's tasks, in an order in which they can run."""
    dag: Mapping[str, Any] = inner(spec)["root"].get("dag", {}).get("tasks", {})
    ordered: list[str] = []
    while len(ordered) < len(dag):
        ready = [t for t in dag if t not in ordered and set(dag[t].get("dependentTasks", ())) <= set(ordered)]
        if not ready:  # a circle: the server does not look
            return ordered + sorted(set(dag) - set(ordered))
        ordered += ready
    return ordered


def parameters(spec: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a run, defaults included. Refusal: they do not fit."""
    declared: Mapping[str, Any] = inner(spec)["root"].get("inputDefinitions", {}).get("parameters", {})
    unknown = sorted(set(given) - set(declared))
    values: dict[str, Any] = {}
    for key, definition in declared.items():
        if key in given:
            _check_type(key, str(definition.get("parameterType", "")), given[key])
            values[key] = given[key]
        elif "defaultValue" in definition:
            values[key] = definition["defaultValue"]
        elif not definition.get("isOptional"):
            raise _inputs(f"parameter {key} is not optional, yet has neither default value nor user provided value")
    if unknown:
        raise _inputs(f"parameter(s) provided are not required by pipeline: {', '.join(unknown)}")
    return values


def check_executors(spec: Mapping[str, Any]) -> None:
    """Each component's executor must be there; found out only when a Workflow is made."""
    executors: Mapping[str, Any] = inner(spec).get("deploymentSpec", {}).get("executors", {})
    for component in inner(spec).get("components", {}).values():
        label = component.get("executorLabel")
        if label and label not in executors:
            raise internal(f'executor(label="{label}") not found in deployment config')


def _check_type(key: str, kind: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits: dict[str, tuple[bool, str]] = {
        "NUMBER_INTEGER": (number, "double or integer"),
        "NUMBER_DOUBLE": (number, "double or integer"),
        "STRING": (isinstance(value, str), "string"),
        "BOOLEAN": (isinstance(value, bool), "bool"),
        "LIST": (isinstance(value, list), "list"),
        "STRUCT": (isinstance(value, dict), "struct"),
    }
    fine, wanted = fits.get(kind, (value is not None, "value"))
    if not fine:
        shape = "number" if wanted == "double or integer" else wanted
        raise _inputs(f"input parameter {key} requires type {wanted}, but the parameter value is not of {shape} value type")


def _inputs(problem: str) -> Refusal:
    found = invalid(problem)
    return Refusal(3, f"invalid pipeline job inputs: {found.message}", found.external)


def unknown_fields(body: Mapping[str, Any], known: Sequence[str]) -> str:
    """The first member that the message does not have; empty: there is none."""
    return next((key for key in body if key not in known), "")
