"""Why a Run cannot be submitted now: its Pipeline, its version, its Provider, its Experiment, its parameters. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from kfp_operator.api import conditions
from kfp_operator.api.provider import Provider
from kfp_operator.api.run import Parameter, ResolvedParameter
from kfp_operator.api.states import SyncState
from kfp_operator.reconcile.run_configuration_parameters import full_name, resolve
from kfp_operator.reconcile.situation import Situation


@dataclass(frozen=True, slots=True)
class Blocker:
    """Why a Run cannot be submitted now."""

    reason: str
    message: str
    stalled: bool = False
    """A person must act."""
    refused: bool = False
    """It can never work."""


def blocked(s: Situation) -> Blocker | None:
    """What keeps an unbound Run from its submission; None: nothing but its parameters, see `resolved`."""
    run, pipeline = s.run, s.pipeline
    namespace, name, version = run.metadata.namespace, run.spec.pipeline_name, run.spec.pipeline_version
    if pipeline is None or pipeline.metadata.deletion_timestamp is not None:
        return Blocker("PipelineNotFound", f"waits for Pipeline {namespace}/{name}, which does not exist; create it and the run starts")
    if run.spec.provider and run.spec.provider != pipeline.spec.provider:
        return Blocker(
            "ProviderMismatch",
            f"spec.provider: {run.spec.provider} is not {pipeline.spec.provider}, which Pipeline {namespace}/{name} uses; leave it out",
            refused=True,
        )
    if version and version not in s.versions:
        return Blocker(
            "PipelineVersionNotFound",
            f"waits for version {version} of Pipeline {namespace}/{name}, which has {', '.join(sorted(s.versions)) or 'none yet'}",
        )
    if not version and (pipeline.status.synchronization_state is not SyncState.SUCCEEDED or not pipeline.status.version):
        why = f": {pipeline.status.message}" if pipeline.status.message else ""
        message = f"waits for Pipeline {namespace}/{name} to be synchronized{why}"
        return Blocker("PipelineNotReady", message, stalled=conditions.stalled(pipeline.status.conditions))
    return provider_blocker(s, pipeline.spec.provider) or _experiment_blocker(s, pipeline.spec.provider)


def provider_blocker(s: Situation, wanted: str) -> Blocker | None:
    """Why the Provider cannot take the Run now."""
    namespace = s.run.metadata.namespace
    if s.provider is None or s.provider.resource.metadata.deletion_timestamp is not None:
        return Blocker("ProviderNotFound", f"waits for Provider {wanted}, which does not exist; create it and the run starts")
    if not allows(s.provider.resource, namespace):
        return Blocker(
            "ProviderForbidden",
            f"Provider {wanted} does not serve namespace {namespace}; its owner can add it to spec.allowedNamespaces",
            stalled=True,
        )
    if not s.provider.usable:
        message = f"waits for Provider {wanted}: {s.provider.message or 'it is not ready'}"
        return Blocker("ProviderNotReady", message, stalled=conditions.stalled(s.provider.resource.status.conditions))
    return None


def _experiment_blocker(s: Situation, wanted: str) -> Blocker | None:
    """Why the Run's Experiment cannot take it yet.

    What is no Experiment of this Provider is left to the backend, which may know the name: a Run need not fail because only it does.
    """
    experiment = s.experiment
    if experiment is None or experiment.metadata.deletion_timestamp is not None or experiment.spec.provider != wanted:
        return None
    if experiment.status.provider_id:
        return None
    why = f": {experiment.status.message}" if experiment.status.message else " to be synchronized"
    message = f"waits for Experiment {experiment.metadata.full_name}{why}"
    return Blocker("ExperimentNotReady", message, stalled=conditions.stalled(experiment.status.conditions))


def allows(provider: Provider, namespace: str) -> bool:
    """Whether the Provider serves Runs and Pipelines of the namespace (empty list: all; type local: its own only)."""
    allowed = provider.spec.allowed_namespaces
    if namespace == provider.metadata.namespace or namespace in allowed:
        return True
    return not allowed and provider.spec.type != "local"


def resolved(s: Situation) -> list[ResolvedParameter] | Blocker:
    """What the Run's parameters with valueFrom have become, each once and for all; or what the Run waits for."""
    run, namespace = s.run, s.run.metadata.namespace
    known = {value.name: value for value in run.status.resolved}
    open_ = [p for p in run.spec.parameters if p.value_from is not None and p.name not in known]
    if not open_:
        return run.status.resolved
    found = resolve(open_, namespace, s.configurations)
    if found.blocking:
        first = found.blocking[0]
        more = f" (and {len(found.blocking) - 1} more)" if len(found.blocking) > 1 else ""
        return Blocker(first.reason, first.message + more, stalled=any(missing.stalled for missing in found.blocking))
    for value in found.values:
        known[value.parameter.name] = ResolvedParameter(
            name=value.parameter.name,
            value=str(value.parameter.value),
            run_configuration=value.configuration,
            provider_id=value.provider_id,
        )
    for missing in found.missing:
        known[missing.parameter] = ResolvedParameter(name=missing.parameter, run_configuration=missing.configuration, omitted=True)
    return [known[p.name] for p in run.spec.parameters if p.name in known]


def unresolved(parameters: Sequence[Parameter], remembered: Sequence[ResolvedParameter], namespace: str) -> list[str]:
    """The RunConfigurations, as namespace/name, that parameters without a value wait for."""
    known = {value.name for value in remembered}
    refs = (p.value_from.run_configuration_ref for p in parameters if p.value_from is not None and p.name not in known)
    return list(dict.fromkeys(full_name(ref.name, namespace) for ref in refs if ref is not None))


def filled_in(parameters: Sequence[Parameter], remembered: Sequence[ResolvedParameter]) -> list[Parameter]:
    """The parameters with the values they were resolved to; those that were left out are not among them."""
    values = {value.name: value for value in remembered}
    filled = []
    for parameter in parameters:
        if parameter.value_from is None:
            filled.append(parameter)
        elif (value := values.get(parameter.name)) is not None and not value.omitted:
            filled.append(Parameter(name=parameter.name, value=value.value))
    return filled
