"""Builds the objects that tests start from: small, valid, and changed by keyword where a test needs it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from kfp_operator.api import conditions
from kfp_operator.api.experiment import Experiment
from kfp_operator.api.names import Names
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.provider import Provider
from kfp_operator.api.run import Run
from kfp_operator.api.run_configuration import RunConfiguration
from kfp_operator.api.states import RunState
from kfp_operator.providers.protocol import RunUpdate, StateChange
from kfp_operator.reconcile.situation import Knowledge, ProviderView, Situation

NAMES = Names()
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
VERSION = "49e208"


def at(seconds: float) -> datetime:
    """NOW plus some seconds."""
    return NOW + timedelta(seconds=seconds)


def run(
    *,
    spec: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    bound: bool = False,
    deleted: float | None = None,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    name: str = "train-1",
    uid: str = "uid-1",
    resource_version: str = "1",
) -> Run:
    """A Run of Pipeline team/train; `bound`: with finalizer, labels and annotation, as just before its submit."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "team",
        "uid": uid,
        "resourceVersion": resource_version,
        "generation": 1,
        "creationTimestamp": "2026-03-01T11:59:00Z",
        "labels": dict(labels or {}),
        "annotations": dict(annotations or {}),
        "finalizers": [],
    }
    if bound:
        metadata["finalizers"] = [NAMES.finalizer]
        metadata["labels"] = {NAMES.pipeline: "train", NAMES.pipeline_version: VERSION} | metadata["labels"]
        metadata["annotations"] = {NAMES.provider: "mlops/local"} | metadata["annotations"]
    if deleted is not None:
        metadata["deletionTimestamp"] = at(deleted).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Run.parse({"metadata": metadata, "spec": {"pipeline": "train"} | (spec or {}), "status": status or {}})


def pipeline(*, spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None, deleted: bool = False) -> Pipeline:
    """Pipeline team/train on Provider mlops/local, synchronized."""
    metadata: dict[str, Any] = {"name": "train", "namespace": "team", "uid": "pipeline-uid", "resourceVersion": "1", "generation": 1}
    if deleted:
        metadata["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    synced = {"synchronizationState": "Succeeded", "version": VERSION, "providerId": "team/train"}
    return Pipeline.parse(
        {
            "metadata": metadata,
            "spec": {"provider": "mlops/local", "pipelineSpec": {"pipelineInfo": {"name": "train"}}} | (spec or {}),
            "status": synced if status is None else status,
        }
    )


def experiment(
    *,
    spec: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    finalizers: Sequence[str] = (),
    annotations: dict[str, str] | None = None,
    deleted: bool = False,
) -> Experiment:
    """Experiment team/penguins at Provider mlops/local, not looked at before."""
    metadata: dict[str, Any] = {
        "name": "penguins",
        "namespace": "team",
        "uid": "experiment-uid",
        "resourceVersion": "1",
        "generation": 1,
        "finalizers": list(finalizers),
        "annotations": dict(annotations or {}),
    }
    if deleted:
        metadata["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    return Experiment.parse({"metadata": metadata, "spec": {"provider": "mlops/local"} | (spec or {}), "status": status or {}})


def stalled(message: str = "") -> list[dict[str, Any]]:
    """Conditions of an object that waits for a person."""
    wishes = conditions.failed("InvalidSpec", message)
    return [c.to_json() for c in conditions.apply((), wishes, generation=1, now=NOW)]


def provider(
    *, usable: bool = True, message: str = "", spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None
) -> ProviderView:
    """Provider mlops/local that serves namespace team."""
    resource = Provider.parse(
        {
            "metadata": {"name": "local", "namespace": "mlops", "uid": "provider-uid", "resourceVersion": "1", "generation": 1},
            "spec": {"type": "local", "allowedNamespaces": ["team"]} | (spec or {}),
            "status": status or {},
        }
    )
    return ProviderView(resource, usable, message)


def update(*states: str, seconds: float = 0, **changes: Any) -> RunUpdate:
    """What the backend reports after the run went through these states, one a second from `seconds` after NOW on."""
    history = tuple(StateChange(RunState(state), at(seconds + i)) for i, state in enumerate(states))
    report = RunUpdate(submission_id="sub", provider_id="backend-1", history=history)
    running = next((c.time for c in history if c.state is RunState.RUNNING), None)
    if running is not None:
        report = replace(report, start_time=running)
    if history[-1].state.final:
        report = replace(report, end_time=history[-1].time)
    return replace(report, **changes)


def knows(**known: Any) -> Knowledge:
    """What a process knows that has asked the bus about the Run."""
    return Knowledge(**({"recalled": True} | known))


def situation(subject: Run, **changes: Any) -> Situation:
    """A Run whose Pipeline and Provider are ready."""
    usual = Situation(
        run=subject,
        pipeline=pipeline(),
        provider=provider(),
        known=knows(),
        versions=frozenset({VERSION}),
        configurations={},
        experiment=None,
        artifact_deadline=timedelta(minutes=10),
        now=NOW,
        names=NAMES,
    )
    return replace(usual, **changes)


def configuration(
    name: str = "nightly",
    *,
    namespace: str = "team",
    uid: str = "",
    run: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    annotations: dict[str, str] | None = None,
    generation: int = 1,
    created: float = -60,
    **spec: Any,
) -> RunConfiguration:
    """RunConfiguration team/nightly of Pipeline team/train, made a minute before NOW; `run` changes the template, `spec` the rest."""
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": uid or f"uid-{name}",
        "resourceVersion": "1",
        "generation": generation,
        "creationTimestamp": at(created).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "annotations": annotations or {},
    }
    return RunConfiguration.parse(
        {"metadata": metadata, "spec": {"run": {"pipeline": "train"} | (run or {}), **spec}, "status": status or {}}
    )
