"""Which of a run's artifacts a Run reports: paths ``component:output[:index][[filter]]``, and the models pushed for serving.

The grammar and what it selects are the Go operator's. What names nothing, or has a filter that fails, is told as a problem of the
run instead of being left out in silence.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kfp_operator.api.run import ARTIFACT_PATH, ArtifactDefinition
from kfp_operator.errors import InvalidSpec
from kfp_operator.events.filters import Filter, parse_filter
from kfp_operator.schemas import Artifact, ServingModelArtifact

PUSHED_MODEL = "tfx.PushedModel"
MAX_ARTIFACTS = 256
"""Artifacts of one run that are reported; the status holds no more."""

_FORM = "component:output, component:output:index or either with a filter, as trainer:model:0[pushed == 1]"


class ComponentArtifact(Protocol):
    """An artifact that a component of a run produced, as providers tell it."""

    @property
    def component(self) -> str:
        """The task's name."""

    @property
    def name(self) -> str:
        """The output's key."""

    @property
    def type(self) -> str:
        """Schema title."""

    @property
    def uri(self) -> str:
        """Where it is."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the component wrote about it."""

    @property
    def index(self) -> int:
        """Position among the artifacts of one output of one execution; executions in a loop each count from 0."""


@dataclass(frozen=True, slots=True)
class ArtifactPath:
    """A path that was understood."""

    component: str
    output: str
    index: int = 0
    filter: Filter | None = None


def parse_path(text: str, *, field: str = "") -> ArtifactPath:
    """Understand an artifact path. Raises InvalidSpec."""
    found = re.fullmatch(ARTIFACT_PATH, text)
    if not found:
        raise InvalidSpec(f"must be {_FORM}, is {text[:200]!r}", field=field, reason="InvalidArtifactPath")
    component, output, index, condition = found.groups()
    return ArtifactPath(component, output, int(index or 0), parse_filter(condition, field=field) if condition is not None else None)


def check(definition: ArtifactDefinition, *, field: str) -> None:
    """Before a Run is submitted: path and filter of a definition can be understood. Raises InvalidSpec."""
    parse_path(definition.path, field=f"{field}.path")


def resolve(definitions: Sequence[ArtifactDefinition], found: Iterable[ComponentArtifact]) -> tuple[list[Artifact], list[str]]:
    """The artifacts that a Run reports, in the order of its definitions, and what is wrong with definitions.

    A definition whose filter excludes everything is fine and gives nothing; an output of a loop gives several of one name.
    """
    produced = list(found)
    artifacts: list[Artifact] = []
    problems: list[str] = []
    for number, definition in enumerate(definitions):
        field = f"spec.artifacts[{number}]"
        try:
            path = parse_path(definition.path, field=f"{field}.path")
        except InvalidSpec as error:
            problems.append(str(error))
            continue
        here = [a for a in produced if (a.component, a.name, a.index) == (path.component, path.output, path.index) and a.uri]
        if not here:
            problems.append(f"{field}.path: the run produced no {path.component}:{path.output}:{path.index}{_instead(path, produced)}")
        wrong: InvalidSpec | None = None
        for artifact in here:
            try:
                if path.filter is None or path.filter.matches(artifact.metadata, field=f"{field}.path"):
                    artifacts.append(
                        Artifact(name=definition.name, location=artifact.uri, type=artifact.type, metadata=dict(artifact.metadata))
                    )
            except InvalidSpec as error:
                wrong = error
        if wrong is not None:
            problems.append(str(wrong))
    if len(artifacts) > MAX_ARTIFACTS:
        problems.append(f"spec.artifacts: the run produced {len(artifacts)} artifacts, the first {MAX_ARTIFACTS} are reported")
    return artifacts[:MAX_ARTIFACTS], problems


def serving_model_artifacts(pipeline: str, run_id: str, found: Iterable[ComponentArtifact]) -> list[ServingModelArtifact]:
    """Models that the run pushed for serving: of type tfx.PushedModel with ``pushed == 1``, or of any type with ``serving: true``.

    `pipeline` is the Pipeline's name, `run_id` the backend's id; the name of each is
    ``<pipeline>:<run_id>:<component>:<output>:<index>``, the index counted over all artifacts of that output.
    """
    counts: dict[tuple[str, str], int] = {}
    serving: list[ServingModelArtifact] = []
    for artifact in found:
        key = (artifact.component, artifact.name)
        index = counts.get(key, 0)
        counts[key] = index + 1
        if artifact.uri and _is_served(artifact) and len(serving) < MAX_ARTIFACTS:
            serving.append(ServingModelArtifact(name=f"{pipeline}:{run_id}:{key[0]}:{key[1]}:{index}", location=artifact.uri))
    return serving


def _is_served(artifact: ComponentArtifact) -> bool:
    metadata = artifact.metadata
    if metadata.get("serving") is True:
        return True
    return artifact.type == PUSHED_MODEL and metadata.get("pushed") in (1, "1")


def _instead(path: ArtifactPath, produced: Sequence[ComponentArtifact]) -> str:
    outputs = sorted({f"{a.component}:{a.name}" for a in produced})
    if not outputs:
        return "; it produced no artifacts"
    if f"{path.component}:{path.output}" in outputs:
        return ", only others of that output"
    return f"; it produced {', '.join(outputs[:20])}" + (", ..." if len(outputs) > 20 else "")
