"""The status of a RunConfiguration: what keeps it from starting Runs, and how that is shown. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from kfp_operator.api import conditions, hashing
from kfp_operator.api.clip import clip
from kfp_operator.api.conditions import Wish
from kfp_operator.api.run_configuration import RunConfigurationStatus, TriggerStatus
from kfp_operator.api.states import SyncState
from kfp_operator.reconcile.run_configuration_parameters import Missing, dependencies, resolve
from kfp_operator.reconcile.run_configuration_runs import parameters
from kfp_operator.reconcile.run_configuration_situation import ConfigurationSituation, Problem
from kfp_operator.reconcile.starting import active_runs

RUN_REFUSED = "RunRefused"
"""The API server does not take a Run: a quota, an admission policy, a name that is taken."""


def held(s: ConfigurationSituation) -> Problem | None:
    """Why no Run is started at all: each would wait for the same, and they would become many."""
    template, pipeline = s.configuration.spec.run, s.pipeline
    name = f"{s.namespace}/{template.pipeline_name}"
    if pipeline is None or pipeline.metadata.deletion_timestamp is not None:
        return Problem("PipelineNotFound", f"waits for Pipeline {name}, which does not exist; create it and runs start")
    if template.provider and template.provider != pipeline.spec.provider:
        return Problem(
            "ProviderMismatch",
            f"spec.run.provider: {template.provider} is not {pipeline.spec.provider}, which Pipeline {name} uses; leave it out",
            stalled=True,
        )
    if template.pipeline_version:
        if s.versions and template.pipeline_version not in s.versions:
            has = ", ".join(sorted(s.versions))
            return Problem("PipelineVersionNotFound", f"waits for version {template.pipeline_version} of Pipeline {name}, which has {has}")
        return None
    if pipeline.status.synchronization_state is not SyncState.SUCCEEDED or not pipeline.status.version:
        why = f": {pipeline.status.message}" if pipeline.status.message else ""
        stalled = conditions.stalled(pipeline.status.conditions)
        return Problem("PipelineNotReady", f"waits for Pipeline {name} to be synchronized{why}", stalled=stalled)
    return None


def waits(s: ConfigurationSituation) -> Problem | None:
    """What parameters of the template wait for."""
    blocking = resolve(parameters(s), s.namespace, s.configurations).blocking
    return waits_for(s, blocking[0]) if blocking else None


def waits_for(s: ConfigurationSituation, missing: Missing) -> Problem:
    """What a parameter waits for; one that comes from the configuration's own runs needs a first one."""
    if missing.configuration == s.configuration.metadata.full_name and missing.reason == "ArtifactNotFound":
        start = f"kfp-operator runs start {s.configuration.metadata.name} --parameter {missing.parameter}=VALUE"
        return Problem(missing.reason, f"{missing.message}; make it optional, or start the first one with a value: {start}", stalled=True)
    return Problem(missing.reason, missing.message, missing.stalled)


def status_of(
    s: ConfigurationSituation, entries: Sequence[TriggerStatus], problems: Iterable[Problem], *, following: datetime | None
) -> RunConfigurationStatus:
    """The whole status. `problems`: the first that only a person can help with is shown, else the first. `following`: the next tick."""
    configuration, spec = s.configuration, s.configuration.spec
    status, generation = configuration.status, configuration.metadata.generation
    found = sorted(problems, key=lambda problem: not problem.stalled)
    problem = found[0] if found else None
    message = problem.message if problem is not None else "suspended: only starts by hand start runs" if spec.suspend else ""
    sync, wishes = _conditions(status, problem, message)
    version = spec.run.pipeline_version
    if not version and s.pipeline is not None:
        version = s.pipeline.status.version
    made = status.model_copy(
        update={
            "synchronization_state": sync,
            "provider": s.pipeline.spec.provider if s.pipeline is not None else spec.run.provider,
            "version": hashing.run_spec_version(spec.run),
            "pipeline_version": version,
            "observed_generation": generation,
            "conditions": conditions.apply(status.conditions, wishes, generation=generation, now=s.now),
            "message": message,
            "triggers": list(entries),
            "dependencies": dependencies(spec.run.parameters, s.namespace, s.configurations),
            "active": active_runs(s.runs),
            "next_schedule_time": following,
        }
    )
    return clip(made)


def _conditions(status: RunConfigurationStatus, problem: Problem | None, message: str) -> tuple[SyncState, list[Wish]]:
    if problem is None:
        return SyncState.SUCCEEDED, conditions.scheduling("Suspended", message) if message else conditions.synced()
    if problem.reason == RUN_REFUSED:
        return SyncState.SUCCEEDED, conditions.start_refused(problem.reason, message)
    if problem.stalled:
        return SyncState.FAILED, conditions.failed(problem.reason, message)
    state = SyncState.UPDATING if status.version else SyncState.CREATING
    return state, conditions.progressing(problem.reason, message, state=state)
