"""The Runs of a RunConfiguration: their names, what stands in them, and which run each follows. Pure."""

from collections.abc import Sequence
from typing import Any

from kfp_operator.api.run import Parameter
from kfp_operator.api.run_configuration import LatestRun, RunConfiguration
from kfp_operator.reconcile import run_configuration_manual as manual
from kfp_operator.reconcile.run_configuration_parameters import Resolution, references, resolve
from kfp_operator.reconcile.run_configuration_situation import ConfigurationSituation, Occurrence
from kfp_operator.reconcile.run_configuration_triggers import (
    CONFIGURATION,
    MANUAL,
    ON_PIPELINE,
    ON_RUN_SPEC,
    SCHEDULE,
    followed_run,
    tick_of,
)
from kfp_operator.reconcile.starting import Trigger, occurrence_name, run_manifest


def run_name(s: ConfigurationSituation, occurrence: Occurrence) -> str:
    """The name of the Run for an occurrence: the same whoever starts it, and never another's."""
    return occurrence_name(s.configuration, occurrence.trigger, occurrence.what)


def parameters(s: ConfigurationSituation, occurrence: Occurrence | None = None) -> Sequence[Parameter]:
    """Those of the template, or what a start by hand puts in their place."""
    template = s.configuration.spec.run.parameters
    if occurrence is None or occurrence.trigger != MANUAL:
        return template
    given = manual.parse(occurrence.what).parameters
    kept = [p for p in template if p.name not in given]
    return [*kept, *(Parameter(name=name, value=value) for name, value in given.items())]


def to_read(s: ConfigurationSituation, occurrence: Occurrence) -> tuple[str, str, int] | None:
    """Namespace and name, uid and attempt of the run whose artifacts the Run takes, while they are known only to its object."""
    if not occurrence.trigger.startswith(CONFIGURATION) or occurrence in s.known.followed:
        return None
    configuration = occurrence.trigger.removeprefix(CONFIGURATION)
    other = s.configurations.get(configuration)
    if other is None or configuration not in references(parameters(s), s.namespace):
        return None
    name, uid, attempt = followed_run(occurrence.what)
    latest = other.status.latest_runs.succeeded
    if not uid or (latest is not None and (latest.uid, latest.attempt) == (uid, attempt)):
        return None
    return f"{other.metadata.namespace}/{name}", uid, attempt


def values(s: ConfigurationSituation, occurrence: Occurrence) -> Resolution:
    """The Run's parameters."""
    followed: dict[str, LatestRun] = {}
    if (run := s.known.followed.get(occurrence)) is not None:
        followed[occurrence.trigger.removeprefix(CONFIGURATION)] = run
    return resolve(parameters(s, occurrence), s.namespace, s.configurations, followed=followed)


def manifest(s: ConfigurationSituation, occurrence: Occurrence, resolution: Resolution) -> dict[str, Any]:
    """The Run to create, with plain values."""
    template = s.configuration.spec.run
    spec = template.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True, exclude={"parameters"})
    if occurrence.trigger == ON_PIPELINE and not template.pipeline_version:
        spec["pipeline"] = f"{template.pipeline_name}:{_version(occurrence.what)}"
    if resolution.values:
        spec["parameters"] = [{"name": p.name, "value": p.value} for p in resolution.parameters]
    annotations = {s.names.upstream_run: ",".join(resolution.upstream)} if resolution.upstream else {}
    trigger = _trigger(s, occurrence, annotations)
    return run_manifest(s.configuration, s.names, name=run_name(s, occurrence), spec=spec, trigger=trigger)


def versions_used(configuration: RunConfiguration) -> set[str]:
    """Versions of the Pipeline that Runs still to be started will name, so that they are kept."""
    pending = [_version(what) for entry in configuration.status.triggers if entry.name == ON_PIPELINE for what in entry.pending]
    return {configuration.spec.run.pipeline_version, *pending} - {""}


def _version(what: str) -> str:
    return what.rpartition(".")[0]


def _trigger(s: ConfigurationSituation, occurrence: Occurrence, annotations: dict[str, str]) -> Trigger:
    own, what = s.configuration.metadata.name, occurrence.trigger
    if what.startswith(SCHEDULE):
        return Trigger("schedule", what.removeprefix(SCHEDULE), s.namespace, tick_of(occurrence.what, s.now), annotations)
    if what.startswith(CONFIGURATION):
        namespace, _, name = what.removeprefix(CONFIGURATION).partition("/")
        return Trigger("runConfiguration", name, namespace, None, annotations)
    if what == ON_PIPELINE:
        return Trigger("onChangePipeline", s.configuration.spec.run.pipeline_name, s.namespace, None, annotations)
    kind = "onChangeRunSpec" if what == ON_RUN_SPEC else "manual"
    return Trigger(kind, own, s.namespace, None, annotations)
