"""The version of a spec: SHA-1 over its parts, cut to three bytes, as the Go operator computes it, bit for bit.

Keeping the recipe keeps versions over a migration, so that nothing is compiled again and nothing is triggered by it. It is built
from a few primitives (`text`, `pairs`, `items`, `json_map`, `canonical_json`), from which each kind composes its bytes. Order is that of
UTF-8 bytes, which is that of code points, Python's own.

===================  ==============================================================================================================
spec of a Run        text(pipeline) text(experimentName) items(parameters) pairs(artifacts, paths normalised)
Run                  its spec, text(pipeline version)
RunSchedule          spec of a Run, text(cronExpression), and those that are set of text(startTime) text(endTime) text(timeZone)
Experiment           text(description)
Pipeline, inline     text("") text("pipelineSpec") text(canonical JSON) [text("platformSpec") text(canonical JSON)]
Pipeline, of image   text(image) pairs(env) text(framework's name) json_map(framework's parameters); behind the image's tag
===================  ==============================================================================================================

A parameter is text(name) text(value), and where it has valueFrom also text(name), text(namespace) of the RunConfiguration,
text(outputArtifact) and text("true" or "false") for optional.

Times are in Go's own notation and in UTC; the Go operator, which has no time zones, writes them in its own.

The inline form is ours. It begins with an empty text, where the form for images has the image, which is never empty; what is
hashed are the documents' values, so comments, order of keys and the way of writing numbers do not matter.

Three bytes are few: among 4 800 versions two are alike with even odds. A Pipeline keeps a handful, and two specs of one Pipeline
that collide are told apart by the digest of the ControllerRevision, not by the version.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from kfp_operator.api.experiment import ExperimentSpec
from kfp_operator.api.pipeline import PipelineSpec
from kfp_operator.api.run import Parameter, RunConfigurationRef, RunTemplate
from kfp_operator.api.run_schedule import RunScheduleSpec

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPED = re.compile('[\x00-\x1f"\\\\<>&\u2028\u2029]')
_SURROGATE = re.compile("[\ud800-\udfff]")
_HOST = r"(?:[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?P<name>(?:{_HOST}/)?{_PART}(?:/{_PART})*)(?::(?P<tag>\w[\w.-]{{0,127}}))?(?:@(?P<digest>[\w+.-]+:[0-9a-fA-F]{{32,}}))?", re.ASCII
)
"""Grammar of an image reference (distribution/reference)."""


def text(value: str) -> bytes:
    """A string, ended by a zero byte."""
    return _SURROGATE.sub("\ufffd", value).encode() + b"\0"


def pairs(values: Iterable[tuple[str, str]]) -> bytes:
    """Names and values in the order of their bytes, whatever the order they are given in; ended by a zero byte."""
    return items(text(name) + text(value) for name, value in sorted(values))


def items(encoded: Iterable[bytes]) -> bytes:
    """A list whose items are encoded, and in order; ended by a zero byte."""
    return b"".join(encoded) + b"\0"


def json_map(values: Mapping[str, Any]) -> bytes:
    """A map of any JSON, in the order of its keys' bytes, not ended; null leaves only its key."""
    return b"".join(text(key) + (b"" if values[key] is None else text(canonical_json(values[key]))) for key in sorted(values))


def digest(encoded: bytes) -> str:
    """The version: six hexadecimal digits."""
    return hashlib.sha1(encoded, usedforsecurity=False).hexdigest()[:6]


def inline_version(documents: Mapping[str, Any]) -> str:
    """The version of a Pipeline whose compiled spec is given: ``{pipelineSpec[, platformSpec]}``, an empty platformSpec counts as none."""
    encoded = text("") + text("pipelineSpec") + text(canonical_json(documents["pipelineSpec"]))
    if platform := documents.get("platformSpec"):
        encoded += text("platformSpec") + text(canonical_json(platform))
    return digest(encoded)


def image_version(spec: PipelineSpec) -> str:
    """The version of a Pipeline that is compiled in an image: the image's tag, "-" and the hash; the hash alone when it has none."""
    framework = spec.framework
    hashed = digest(
        text(spec.image)
        + pairs((variable.name, variable.value) for variable in spec.env)
        + (text(framework.name) + json_map(framework.parameters) if framework is not None else text(""))
    )
    tag = image_tag(spec.image)
    return f"{tag}-{hashed}" if tag else hashed


def image_tag(image: str) -> str:
    """The tag of an image reference: "latest" when it names neither tag nor digest; "" when it names a digest alone, or is none."""
    found = _IMAGE.fullmatch(image)
    if found is None or len(found["name"]) > 255:
        return ""
    return found["tag"] or ("" if found["digest"] else "latest")


def experiment_version(spec: ExperimentSpec) -> str:
    """The version of an Experiment: of what can be changed in it."""
    return digest(text(spec.description))


def run_spec(spec: RunTemplate) -> bytes:
    """What a Run is asked to execute. Values that are no strings, which the Go operator does not have, count as their JSON."""
    return (
        text(spec.pipeline)
        + text(spec.experiment_name)
        + items(encoded for _, encoded in sorted(_parameter(parameter) for parameter in spec.parameters))
        + pairs((artifact.name, artifact.normal_path) for artifact in spec.artifacts)
    )


def run_spec_version(spec: RunTemplate) -> str:
    """The version of a RunConfiguration's template: another one means that something else is executed."""
    return digest(run_spec(spec))


def run_version(spec: RunTemplate, pipeline_version: str) -> str:
    """The version of a Run that is bound to a version of its Pipeline."""
    return digest(run_spec(spec) + text(pipeline_version))


def run_schedule_version(spec: RunScheduleSpec) -> str:
    """The version of a RunSchedule: of what it executes, and when."""
    schedule = spec.schedule
    times = (text(_go_time(time)) for time in (schedule.start_time, schedule.end_time) if time is not None)
    zone = text(schedule.time_zone) if schedule.time_zone else b""
    return digest(run_spec(spec.template) + text(schedule.cron_expression) + b"".join(times) + zone)


def _go_time(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")


def _parameter(parameter: Parameter) -> tuple[tuple[str | bool, ...], bytes]:
    """A parameter's place in the order, and its bytes. No value and null count as the empty string."""
    given = parameter.value
    value = given if isinstance(given, str) else "" if given is None else canonical_json(given)
    plain = text(parameter.name) + text(value)
    ref = parameter.value_from.run_configuration_ref if parameter.value_from is not None else None
    if ref is None:
        return (parameter.name, value, False), plain
    place = (parameter.name, value, True, ref.name, ref.output_artifact, ref.optional)
    return place, plain + _reference(ref)


def _reference(ref: RunConfigurationRef) -> bytes:
    namespace, _, name = ref.name.rpartition("/")
    return text(name) + text(namespace) + text(ref.output_artifact) + text("true" if ref.optional else "false")


def canonical_json(value: Any) -> str:
    """JSON as Go writes what it has read into ``any``: compact, keys in order of their bytes, every number a double.

    The characters <, >, &, U+2028 and U+2029 are escaped, other text is not. OverflowError: a number beyond any double.
    """
    written: list[str] = []
    left: list[Any] = [value]
    while left:  # not by recursion: a Run's parameters may be nested deeper than Python's stack
        part = left.pop()
        if isinstance(part, _Written):
            written.append(part.text)
        elif isinstance(part, Mapping):
            entries = [(_Written(f"{',' if number else ''}{_string(key)}:"), part[key]) for number, key in enumerate(sorted(part))]
            left += reversed([_Written("{"), *chain.from_iterable(entries), _Written("}")])
        elif isinstance(part, list | tuple):
            entries = [(_Written("," if number else ""), item) for number, item in enumerate(part)]
            left += reversed([_Written("["), *chain.from_iterable(entries), _Written("]")])
        elif isinstance(part, str):
            written.append(_string(part))
        elif isinstance(part, bool) or part is None:
            written.append(json.dumps(part))
        else:
            written.append(_number(float(part)))
    return "".join(written)


@dataclass(frozen=True, slots=True)
class _Written:
    """Text between values that are still to be written."""

    text: str


def _string(value: str) -> str:
    def escape(found: re.Match[str]) -> str:
        return _ESCAPES.get(found[0]) or f"\\u{ord(found[0]):04x}"

    return '"' + _SURROGATE.sub("\ufffd", _ESCAPED.sub(escape, value)) + '"'


def _number(value: float) -> str:
    """The shortest digits that read back as the same double; an exponent below 1e-6 and from 1e21 on, as in ECMAScript."""
    if value != value or value in (float("inf"), float("-inf")):
        raise OverflowError(f"{value} is not JSON")
    mantissa, _, exponent = repr(value).partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))  # digits before the decimal point
    digits = digits.rstrip("0")
    if not digits:
        return f"{sign}0"
    if value and not 1e-6 <= abs(value) < 1e21:
        power = point - 1
        return f"{sign}{digits[0]}{'.' + digits[1:] if digits[1:] else ''}e{'-' if power < 0 else '+'}{abs(power):02d}".replace("e-0", "e-")
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if point >= len(digits):
        return f"{sign}{digits}{'0' * (point - len(digits))}"
    return f"{sign}{digits[:point]}.{digits[point:]}"
