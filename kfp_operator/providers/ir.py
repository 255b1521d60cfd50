"""KFP's intermediate representation (IR): is it a pipeline, and do a Run's parameters fit it?

A compiled pipeline is one document (PipelineSpec) or two (with a PlatformSpec). The check is the Kubeflow Pipelines server's own
(strict protobuf JSON, schemaVersion 2.1.0, a name, a root), done before anything is submitted, so that the error stands in a
condition and names the path. Every problem is an `InvalidSpec`; documents are untrusted: size, depth and the expansion of YAML
aliases are bounded.

The server converts no parameter, and kfp.local is stricter still (3 is no double, 3.0 no integer), while manifests that come
from the Go operator have strings only: `bind_parameters` converts by the declared type and leaves defaults to the backend.
"""

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from google.protobuf import json_format
from google.protobuf.message import Message

from kfp_operator.api.run import Parameter
from kfp_operator.errors import InvalidSpec
from kfp_operator.providers.pipeline_spec import messages

SCHEMA_VERSION = "2.1.0"
MAX_TEXT = 1024 * 1024
"""Bytes of YAML or JSON text: what a ConfigMap holds."""
MAX_NODES = 200_000
"""Values in a document, aliases expanded; IR of 1 MiB has a tenth of that."""
MAX_DEPTH = 90
"""Levels of nesting; protobuf stops at 100."""
MAX_SAFE_INTEGER = 2**53 - 1
"""IR values are JSON numbers, that is doubles."""
MAX_PROBLEMS = 10
"""Problems told in one message."""

NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
WRAPPERS = {
    "pipelineSpec": "pipelineSpec",
    "pipeline_spec": "pipelineSpec",
    "platformSpec": "platformSpec",
    "platform_spec": "platformSpec",
}
HALLMARKS = {"pipelineInfo", "pipeline_info", "schemaVersion", "schema_version", "root"}
"""A document with none of these is something else, and is told so instead of which field is unknown."""
INVALID = "InvalidPipelineSpec"


@dataclass(frozen=True, slots=True)
class ParameterDeclaration:
    """A parameter of the pipeline."""

    name: str
    type: str
    """NUMBER_INTEGER, NUMBER_DOUBLE, STRING, BOOLEAN, LIST or STRUCT; empty: anything goes."""
    required: bool
    literals: tuple[Any, ...] = ()
    """If not empty, the only values."""


@dataclass(frozen=True, slots=True)
class PipelineIR:
    """A compiled pipeline that passed the check."""

    spec: Mapping[str, Any]
    """The PipelineSpec document as it was given."""
    platform_spec: Mapping[str, Any] | None
    """The PlatformSpec document as it was given, if there is one."""
    name: str
    parameters: Mapping[str, ParameterDeclaration]
    required_artifacts: tuple[str, ...]
    """Input artifacts of the root, which no Run can give."""

    def documents(self) -> dict[str, Any]:
        """``{pipelineSpec[, platformSpec]}``, what `parse_ir` takes and the version hash is made of."""
        return {"pipelineSpec": self.spec} | ({"platformSpec": self.platform_spec} if self.platform_spec else {})


def parse_ir(document: Mapping[str, Any], *, field: str = "spec.pipelineSpec") -> PipelineIR:
    """Check a compiled pipeline: the PipelineSpec itself, or ``{pipelineSpec, platformSpec}`` (or with ``_``) of both documents.

    `field` is where it was found, for messages. Raises InvalidSpec.
    """
    _check_json(document, field)
    spec: Any = document
    platform: Any = None
    where = field
    if used := [key for key in document if key in WRAPPERS]:
        parts = {WRAPPERS[key]: document[key] for key in used}
        if len(parts) != len(used):
            raise _invalid("has both spellings of a key; keep pipelineSpec and platformSpec", field)
        if others := [key for key in document if key not in WRAPPERS]:
            raise _invalid(f"has {others[0]!r} beside pipelineSpec; only platformSpec may stand there", field)
        if parts.get("pipelineSpec") is None:
            raise _invalid("has a platformSpec but no pipelineSpec", field)
        spec, platform = parts["pipelineSpec"], parts.get("platformSpec")
        where = f"{field}.{used[0] if WRAPPERS[used[0]] == 'pipelineSpec' else used[1]}"
    if isinstance(spec, Mapping) and not spec.keys() & HALLMARKS:
        raise _invalid("is not a compiled pipeline: compile it with kfp-operator pipelines build", where)
    message = _parse(spec, messages.PipelineSpec(), where)
    _check_pipeline(message, where)
    deployment = spec.get("deploymentSpec", spec.get("deployment_spec")) or {}
    _parse(deployment, messages.PipelineDeploymentConfig(), f"{where}.deploymentSpec")
    if platform:
        _parse(platform, messages.PlatformSpec(), f"{field}.platformSpec")
    inputs = message.root.input_definitions
    return PipelineIR(
        spec=spec,
        platform_spec=platform or None,
        name=message.pipeline_info.name,
        parameters={name: _declaration(name, declared) for name, declared in inputs.parameters.items()},
        required_artifacts=tuple(sorted(name for name, declared in inputs.artifacts.items() if not declared.is_optional)),
    )


def parse_text(text: str | bytes, *, field: str = "spec.pipelineSpecFrom") -> PipelineIR:
    """The same from YAML or JSON text of one or two documents, as the KFP compiler writes it. Comments do not matter.

    Raises InvalidSpec, with `field` in front of what is wrong where.
    """
    if len(text if isinstance(text, bytes) else text.encode(errors="replace")) > MAX_TEXT:
        raise _invalid(f"is larger than {MAX_TEXT} bytes", field)
    try:
        _check_nesting(text, field)
        documents = [document for document in yaml.load_all(text, _JsonLoader) if document is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}" if mark else ""
        raise _invalid(f"is not YAML: {error.problem or error.context}{place}", field) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _invalid(f"is not YAML: {str(error).splitlines()[0]}", field) from error
    if not documents:
        raise _invalid("is empty; it must hold a compiled pipeline", field)
    if not all(isinstance(document, dict) for document in documents):
        raise _invalid("is not a compiled pipeline: each document must be a mapping", field)
    if len(documents) == 1:
        return parse_ir(documents[0], field=field)
    platforms = [document for document in documents if "platforms" in document]
    if len(documents) > 2 or len(platforms) != 1:
        raise _invalid("holds several documents; a compiled pipeline has one, or two of which one has `platforms`", field)
    pipeline = next(document for document in documents if document is not platforms[0])
    return parse_ir({"pipelineSpec": pipeline, "platformSpec": platforms[0]}, field=field)


def bind_parameters(ir: PipelineIR, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """A Run's parameters, typed as the pipeline declares them. Those left out stay left out: defaults are the backend's.

    Raises one InvalidSpec that tells every problem with its path in the Run.
    """
    problems = [
        ("spec.parameters", f"the pipeline takes {name!r}, an artifact, as input, and a Run can only give parameters")
        for name in ir.required_artifacts
    ]
    bound: dict[str, Any] = {}
    given: set[str] = set()
    for index, parameter in enumerate(parameters):
        path = f"spec.parameters[{index}]"
        declared = ir.parameters.get(parameter.name)
        if declared is None:
            problems.append((f"{path}.name", _unknown(parameter.name, ir.parameters)))
        elif parameter.name in given:
            problems.append((f"{path}.name", f"{parameter.name!r} is given twice"))
        elif parameter.value is not None or declared.required:
            try:
                bound[parameter.name] = _typed(declared, parameter.value)
            except ValueError as error:
                problems.append((f"{path}.value", f"{parameter.name!r} {error}"))
        given.add(parameter.name)
    problems += [
        ("spec.parameters", f"{name!r} ({declared.type or 'any type'}) is missing; the pipeline has no default for it")
        for name, declared in sorted(ir.parameters.items())
        if declared.required and name not in given
    ]
    if problems:
        raise _several(problems)
    return bound


class _JsonLoader(yaml.CSafeLoader):
    """Safe YAML without dates: IR is JSON, and an unquoted date is a string there."""


_JsonLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def _check_nesting(text: str | bytes, field: str) -> None:
    """Depth and number of nodes as they are parsed: libyaml's parser does not recurse, but composing overflows the stack of the process."""
    depth = nodes = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        nodes += isinstance(event, yaml.NodeEvent)
        if depth > MAX_DEPTH:
            raise _invalid(f"is nested deeper than {MAX_DEPTH} levels", field)
        if nodes > MAX_NODES:
            raise _invalid("is too large", field)


def _check_json(document: Any, field: str) -> None:
    if not isinstance(document, Mapping):
        raise _invalid("is not a compiled pipeline: it must be a mapping", field)
    if flaw := _flaw(document):
        path, text = flaw
        raise _invalid(text, field + path)


def _flaw(document: Any) -> tuple[str, str] | None:
    """Where and why this is not JSON, or too deep or too much of it: asked before any code that recurses."""
    left: list[tuple[Any, str, int]] = [(document, "", 0)]
    nodes = 0
    while left:
        value, path, depth = left.pop()
        nodes += 1
        if nodes + len(left) > MAX_NODES:
            return "", "is too large"
        if depth > MAX_DEPTH:
            return "", f"is nested deeper than {MAX_DEPTH} levels"
        if isinstance(value, Mapping):
            for key, part in value.items():
                if not isinstance(key, str):
                    return path, f"has the key {key!r}, which is not a string; quote it"
                left.append((part, f"{path}.{key}", depth + 1))
        elif isinstance(value, list):
            left += [(part, f"{path}[{index}]", depth + 1) for index, part in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            return path, "is not a number that JSON knows"
        elif value is not None and not isinstance(value, bool | int | float | str):
            return path, f"is of a type that JSON does not know ({type(value).__name__})"
    return None


def _parse(document: Any, message: Message, field: str) -> Any:
    """Strict protobuf JSON. The library's errors tell the path in several ways, and nest; ours tell it once."""
    if not isinstance(document, Mapping):
        raise _invalid("must be a mapping", field)
    try:
        return json_format.ParseDict(document, message)
    except json_format.ParseError as error:
        path, text = _explain(str(error), message.DESCRIPTOR.name)
        raise _invalid(text, field + path) from error
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise _invalid(f"is not a {message.DESCRIPTOR.name}: {error}", field) from error


def _explain(text: str, root: str) -> tuple[str, str]:
    names = []
    while nested := re.match(r"Failed to parse (\S+) field: ", text):
        names.append(nested[1])
        text = text[nested.end() :]
    text = " ".join(text.split()).rstrip(".")
    path = "".join(f".{name}" for name in names)
    if located := re.search(rf' at "?{root}((?:[^"\s]|\s(?!Available))*?)"?(?=\.? Available|$)', text):
        path = located[1].rstrip(".")
        text = text[: located.start()] + text[located.end() :]
    if unknown := re.match(r'Message type "[^"]*" has no field named "([^"]*)"\.? Available Fields\(except extensions\): "\[(.*)\]"', text):
        fields = re.findall(r"'([^']*)'", unknown[2])
        return path, _unknown(unknown[1], fields, what="field")
    return path, text


def _check_pipeline(message: Any, field: str) -> None:
    if message.schema_version != SCHEMA_VERSION:
        found = repr(message.schema_version) if message.schema_version else "missing"
        raise _invalid(f"must be {SCHEMA_VERSION}, is {found}; compile the pipeline with kfp 2", f"{field}.schemaVersion")
    if not NAME.fullmatch(message.pipeline_info.name):
        raise _invalid(
            f"must be lower case letters, digits, - and ., with a letter or digit at either end; is {message.pipeline_info.name!r}",
            f"{field}.pipelineInfo.name",
        )
    if not message.HasField("root"):
        raise _invalid("is missing", f"{field}.root")


def _declaration(name: str, declared: Any) -> ParameterDeclaration:
    kind = messages.ParameterType.ParameterTypeEnum.Name(declared.parameter_type)
    return ParameterDeclaration(
        name=name,
        type="" if kind == "PARAMETER_TYPE_ENUM_UNSPECIFIED" else kind,
        required=not (declared.is_optional or declared.HasField("default_value")),
        literals=tuple(json_format.MessageToDict(value) for value in declared.literals),
    )


def _typed(declared: ParameterDeclaration, value: Any) -> Any:
    """ValueError: what is accepted, and what was given."""
    if flaw := _flaw(value):
        raise ValueError(" ".join(filter(None, flaw)))
    if not declared.type:
        typed = value
    elif declared.type not in _CONVERSIONS:
        raise ValueError(f"is a {declared.type}, which the backend fills in itself; leave it out")
    else:
        convert, accepted = _CONVERSIONS[declared.type]
        typed = convert(value)
        if typed is None:
            raise ValueError(f"must be {accepted} ({declared.type}), is {_show(value)}")
    if declared.literals and typed not in declared.literals:
        raise ValueError(f"must be one of {', '.join(_show(literal) for literal in declared.literals)}, is {_show(value)}")
    return typed


def _integer(value: Any) -> int | None:
    number = _number(value)
    if number is None or number != math.floor(number) or abs(number) > MAX_SAFE_INTEGER:
        return None
    return int(number)


def _double(value: Any) -> float | None:
    number = _number(value)
    return None if number is None else float(number)


def _number(value: Any) -> int | float | None:
    if isinstance(value, str):
        value = _from_json(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an int beyond any double
        return None


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _boolean(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def _list(value: Any) -> list[Any] | None:
    found = _from_json(value) if isinstance(value, str) else value
    return found if isinstance(found, list) else None


def _struct(value: Any) -> dict[str, Any] | None:
    found = _from_json(value) if isinstance(value, str) else value
    return found if isinstance(found, dict) else None


_CONVERSIONS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "NUMBER_INTEGER": (_integer, "a whole number of at most 2^53-1 either way, as 3"),
    "NUMBER_DOUBLE": (_double, "a number, as 2.5"),
    "STRING": (_string, 'a string, in quotes, as "3"'),
    "BOOLEAN": (_boolean, "true or false"),
    "LIST": (_list, "a list, as [1, 2]"),
    "STRUCT": (_struct, 'a mapping, as {"a": 1}'),
}
"""By declared type: the value as that type, or None, and what is accepted."""


def _not_json(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _from_json(text: str) -> Any:
    """The JSON a string holds, or None: who asks says what it wanted instead."""
    try:
        return json.loads(text, parse_constant=_not_json)
    except (ValueError, RecursionError):
        return None


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _unknown(name: str, known: Iterable[str], *, what: str = "parameter") -> str:
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    some = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {some}" if some else "; it has none"
    return f"there is no {what} {name!r}{hint}"


def _invalid(message: str, field: str) -> InvalidSpec:
    return InvalidSpec(message, field=field, reason=INVALID)


def _several(problems: Sequence[tuple[str, str]]) -> InvalidSpec:
    """One error for all problems; its field is their common one when they differ."""
    if len(problems) == 1:
        return InvalidSpec(problems[0][1], field=problems[0][0], reason="InvalidParameters")
    told = "; ".join(f"{path}: {text}" for path, text in problems[:MAX_PROBLEMS])
    more = f"; and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
    error = InvalidSpec(told + more, reason="InvalidParameters")
    error.field = "spec.parameters"
    return error
