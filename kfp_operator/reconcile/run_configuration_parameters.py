"""Resolves parameters whose value comes from another RunConfiguration: `valueFrom.runConfigurationRef`. Pure.

The value is the URI of an artifact of the referred configuration's latest succeeded run, as its status shows it. A Run that follows a
certain run takes what that run produced, though a later one may have ended since. What cannot be resolved is left out when it is
optional; else it is what the Run waits for, said in words that name the parameter and the remedy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kfp_operator.api.run import Parameter, RunArtifact, RunConfigurationRef
from kfp_operator.api.run_configuration import Dependency, LatestRun, RunConfiguration

Configurations = Mapping[str, RunConfiguration]
"""RunConfigurations that exist, by namespace/name."""


@dataclass(frozen=True, slots=True)
class Value:
    """A parameter's value, and where it came from."""

    parameter: Parameter
    """With its value, and nothing else."""
    configuration: str = ""
    """The RunConfiguration it came from, as namespace/name."""
    run: str = ""
    """The run that produced it, as namespace/name."""
    provider_id: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """A parameter that has no value yet."""

    parameter: str
    configuration: str
    reason: str
    message: str
    optional: bool = False
    stalled: bool = False
    """Only a person can help."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What became of a list of parameters."""

    values: tuple[Value, ...]
    missing: tuple[Missing, ...]
    """Optional ones too: these are left out."""

    @property
    def blocking(self) -> tuple[Missing, ...]:
        """What must be there before anything can start."""
        return tuple(m for m in self.missing if not m.optional)

    @property
    def parameters(self) -> list[Parameter]:
        """Parameters with plain values."""
        return [value.parameter for value in self.values]

    @property
    def upstream(self) -> list[str]:
        """The runs that values came from, each once, as namespace/name."""
        return list(dict.fromkeys(value.run for value in self.values if value.run))


def full_name(reference: str, namespace: str) -> str:
    """``[ns/]name`` as seen from a namespace, as namespace/name."""
    return reference if "/" in reference else f"{namespace}/{reference}"


def allows(configuration: RunConfiguration, namespace: str) -> bool:
    """Whether what lies in the namespace may refer to the RunConfiguration."""
    return namespace == configuration.metadata.namespace or namespace in configuration.spec.allowed_namespaces


def forbidden(name: str, namespace: str) -> str:
    """What to say where it does not."""
    return f"RunConfiguration {name} does not allow references from namespace {namespace}; its owner can add it to spec.allowedNamespaces"


def references(parameters: Sequence[Parameter], namespace: str) -> list[str]:
    """The RunConfigurations that parameters refer to, each once, as namespace/name."""
    return list(dict.fromkeys(full_name(ref.name, namespace) for p in parameters if (ref := _reference(p)) is not None))


def resolve(
    parameters: Sequence[Parameter], namespace: str, configurations: Configurations, *, followed: Mapping[str, LatestRun] | None = None
) -> Resolution:
    """Plain values for the parameters of a Run in the namespace.

    `followed`: for the RunConfigurations in it (namespace/name), the run to take artifacts from instead of the latest.
    """
    values: list[Value] = []
    missing: list[Missing] = []
    for parameter in parameters:
        reference = _reference(parameter)
        if reference is None:
            values.append(Value(Parameter(name=parameter.name, value=parameter.value)))
            continue
        found = _find(parameter.name, reference, namespace, configurations, followed or {})
        if isinstance(found, Missing):
            missing.append(found)
        else:
            values.append(found)
    return Resolution(tuple(values), tuple(missing))


def dependencies(parameters: Sequence[Parameter], namespace: str, configurations: Configurations) -> list[Dependency]:
    """What `status.dependencies` shows: of each RunConfiguration referred to, the artifacts in question of its latest succeeded run."""
    shown = []
    for name in references(parameters, namespace):
        wanted = {ref.output_artifact for p in parameters if (ref := _reference(p)) and full_name(ref.name, namespace) == name}
        configuration = configurations.get(name)
        latest = configuration.status.latest_runs.succeeded if configuration is not None and allows(configuration, namespace) else None
        if latest is None:
            shown.append(Dependency(name=name))
            continue
        artifacts = [RunArtifact(name=a.name, location=a.location, type=a.type) for a in latest.artifacts if a.name in wanted]
        shown.append(Dependency(name=name, provider_id=latest.provider_id, artifacts=artifacts))
    return shown


def _reference(parameter: Parameter) -> RunConfigurationRef | None:
    return parameter.value_from.run_configuration_ref if parameter.value_from is not None else None


def _find(
    parameter: str, ref: RunConfigurationRef, namespace: str, configurations: Configurations, followed: Mapping[str, LatestRun]
) -> Value | Missing:
    name = full_name(ref.name, namespace)
    configuration = configurations.get(name)

    def missing(reason: str, message: str, *, stalled: bool = False) -> Missing:
        return Missing(parameter, name, reason, f"parameter {parameter}: {message}", ref.optional, stalled)

    if configuration is None:
        return missing("RunConfigurationNotFound", f"waits for RunConfiguration {name}, which does not exist; create it")
    if not allows(configuration, namespace):
        return missing("ReferenceForbidden", forbidden(name, namespace), stalled=True)
    latest = followed.get(name) or configuration.status.latest_runs.succeeded
    artifact = next((a for a in latest.artifacts if a.name == ref.output_artifact), None) if latest is not None else None
    if latest is None or artifact is None:
        declared = sorted({a.name for a in configuration.spec.run.artifacts})
        if ref.output_artifact not in declared:
            has = f"it declares {', '.join(declared) or 'none'}"
            lacking = f"RunConfiguration {name} does not have in spec.run.artifacts ({has}); add it there or correct outputArtifact"
            return missing("ArtifactNotDeclared", f"waits for artifact {ref.output_artifact}, which {lacking}", stalled=True)
        if latest is None:
            first = f"waits for the first run of RunConfiguration {name} that succeeds"
            return missing("ArtifactNotFound", f"{first}, and for its artifact {ref.output_artifact}")
        lacking = f"the latest succeeded run of RunConfiguration {name} did not produce"
        return missing("ArtifactNotFound", f"waits for artifact {ref.output_artifact}, which {lacking}")
    run = f"{configuration.metadata.namespace}/{latest.name}" if latest.name else ""
    return Value(Parameter(name=parameter, value=artifact.location), name, run, latest.provider_id)
