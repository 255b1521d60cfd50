"""A RunConfiguration's life with the pure decisions alone: what they decide is done at once, on a clock that tests move."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.run_configuration import LatestRun, RunConfiguration, TriggerStatus
from kfp_operator.api.states import RunState
from kfp_operator.reconcile import run_configuration as decisions
from kfp_operator.reconcile.configuration_projection import Ended, record
from kfp_operator.reconcile.run_configuration_loops import loops_of
from kfp_operator.reconcile.run_configuration_parameters import full_name
from kfp_operator.reconcile.run_configuration_situation import ConfigurationSituation, Knowledge, Refused
from kfp_operator.reconcile.starting import OwnedRun
from kfp_operator.schemas import Artifact, RunCompletion
from tests import builders

STEPS = 3000


def completion(
    configuration: RunConfiguration,
    run: str,
    *,
    state: str = "succeeded",
    seconds: float = 0,
    uid: str = "",
    attempt: int = 1,
    artifacts: dict[str, str] | None = None,
) -> RunCompletion:
    """The end of a Run of the configuration, `seconds` after NOW."""
    return RunCompletion(
        provider="mlops/local",
        status="succeeded" if state == "succeeded" else "failed",
        state=state,
        pipeline_name="team/train",
        run_name=f"{configuration.metadata.namespace}/{run}",
        run_uid=uid or f"uid-{run}",
        run_configuration_name=configuration.metadata.full_name,
        run_id=f"id-{run}",
        attempt=attempt,
        artifacts=[Artifact(name=name, location=location) for name, location in (artifacts or {}).items()],
        run_end_time=builders.at(seconds),
    )


def recorded(configuration: RunConfiguration, *ends: RunCompletion, news: bool = True) -> RunConfiguration:
    """The configuration after these ends were told, in this order."""
    status = record(configuration, [Ended(end, configuration.metadata.uid, news) for end in ends])
    return configuration.model_copy(update={"status": status})


class Rig:
    """One RunConfiguration, and all that it looks at."""

    def __init__(self, configuration: RunConfiguration, *others: RunConfiguration, pipeline: Pipeline | None = None) -> None:
        self.configuration = configuration
        self.others = {other.metadata.full_name: other for other in others}
        self.pipeline: Pipeline | None = pipeline or builders.pipeline()
        self.versions: frozenset[str] = frozenset()
        self.runs: dict[str, OwnedRun] = {}
        self.manifests: list[dict[str, Any]] = []
        """Of every Run that was created, in order."""
        self.produced: dict[str, LatestRun] = {}
        """What Runs of others that still exist produced, by namespace/name."""
        self.refuse = ""
        """While set, the API server answers this to every Run."""
        self.known = Knowledge()
        self.now: datetime = builders.NOW
        self.writes = 0
        self._revision = 1

    # What happens

    def settle(self) -> list[str]:
        """Decide until nothing is left to do; what started Runs meanwhile."""
        before = len(self.manifests)
        for _ in range(STEPS):
            if self._step() is None:
                return [self.trigger_of(manifest) for manifest in self.manifests[before:]]
        raise AssertionError("it does not come to rest")

    def pass_time(self, seconds: float) -> list[str]:
        """Let the clock go on, looking whenever it was asked for; what started Runs meanwhile."""
        until, started = self.now + timedelta(seconds=seconds), self.settle()
        for _ in range(STEPS):
            again = decisions.decide(self.situation()).again
            if again is None or self.now + timedelta(seconds=again) > until:
                self.now = until
                return started + self.settle()
            self.now += timedelta(seconds=max(again, 0.001))
            started += self.settle()
        raise AssertionError("it looks too often")

    def sleep(self, seconds: float) -> None:
        """The clock goes on, and nobody looks."""
        self.now += timedelta(seconds=seconds)

    def restart(self) -> None:
        """Another process takes over."""
        self.known = Knowledge()

    def edit(self, **spec: Any) -> None:
        """Somebody edits the spec; `run` replaces members of the template."""
        document = self.configuration.spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
        document |= spec | {"run": document["run"] | spec.get("run", {})}
        made = RunConfiguration.parse({"metadata": self.configuration.metadata.to_json(), "spec": document})
        metadata = self.configuration.metadata
        update = {"spec": made.spec, "metadata": metadata.model_copy(update={"generation": metadata.generation + 1})}
        self.configuration = self.configuration.model_copy(update=update)

    def annotate(self, text: str) -> None:
        """Somebody sets the annotation that starts a Run by hand."""
        metadata = self.configuration.metadata
        annotations = {**metadata.annotations, builders.NAMES.start: text}
        self.configuration = self.configuration.model_copy(update={"metadata": metadata.model_copy(update={"annotations": annotations})})

    def publish(self, version: str, *, uid: str = "pipeline-uid") -> None:
        """The Pipeline gets a version."""
        self._revision += 1
        found = builders.pipeline(status={"synchronizationState": "Succeeded", "version": version})
        metadata = found.metadata.model_copy(update={"uid": uid, "resource_version": str(self._revision)})
        self.pipeline = found.model_copy(update={"metadata": metadata})

    def upstream_ends(self, name: str, *ends: RunCompletion, news: bool = True) -> None:
        """Ends of runs of another configuration are told."""
        self.others[name] = recorded(self.others[name], *ends, news=news)

    def end(self, name: str, state: RunState = RunState.SUCCEEDED) -> None:
        """A Run ends, and settles."""
        self.runs[name] = replace(self.runs[name], state=state, ended=self.now, settled=True)

    def end_all(self) -> None:
        for run in list(self.runs.values()):
            if run.active:
                self.end(run.name)

    # What there is to see

    @staticmethod
    def trigger_of(manifest: dict[str, Any]) -> str:
        """``type source`` of a Run's labels."""
        labels = manifest["metadata"]["labels"]
        return f"{labels[builders.NAMES.trigger_type]} {labels[builders.NAMES.trigger_source]}"

    def entry(self, name: str) -> TriggerStatus:
        """A trigger in status."""
        return next(entry for entry in self.configuration.status.triggers if entry.name == name)

    def parameters(self, index: int = -1) -> dict[str, Any]:
        """Those of a Run that was created."""
        return {p["name"]: p["value"] for p in self.manifests[index]["spec"].get("parameters", ())}

    def condition(self, type_: str = "Ready") -> tuple[str, str, str]:
        """Status, reason and message; empty when it is absent."""
        found = next((c for c in self.configuration.status.conditions if c.type == type_), None)
        return (found.status, found.reason, found.message) if found is not None else ("", "", "")

    @property
    def active(self) -> list[str]:
        return [run.name for run in self.runs.values() if run.active]

    def situation(self) -> ConfigurationSituation:
        return ConfigurationSituation(
            configuration=self.configuration,
            pipeline=self.pipeline,
            versions=self.versions,
            configurations=self.others | {self.configuration.metadata.full_name: self.configuration},
            loops=loops_of(self.configuration.metadata.full_name, self._follows),
            runs=list(self.runs.values()),
            known=self.known,
            now=self.now,
            names=builders.NAMES,
        )

    def _follows(self, name: str) -> list[str]:
        known = self.others | {self.configuration.metadata.full_name: self.configuration}
        if name not in known:
            return []
        return [full_name(each, name.partition("/")[0]) for each in known[name].spec.triggers.run_configurations]

    # What is done about it

    def _step(self) -> decisions.Action | None:
        action = decisions.decide(self.situation()).action
        match action:
            case decisions.WriteStatus(status):
                assert status != self.configuration.status
                self.writes += 1
                stored = type(status).model_validate(status.to_json())
                self.configuration = self.configuration.model_copy(update={"status": stored})
                self.known.started.clear()
                if not any(entry.pending for entry in stored.triggers):
                    self.known.refused = None
            case decisions.StartRuns(starts):
                for start in starts:
                    if not self._start(start):
                        break
            case decisions.StopRuns(runs):
                for run in runs:
                    self.runs[run.name] = replace(self.runs[run.name], stopping=True)
            case decisions.DeleteRuns(runs):
                for run in runs:
                    del self.runs[run.name]
            case decisions.ReadRuns(reads):
                for read in reads:
                    self.known.followed[read.occurrence] = self.produced.get(read.run)
        return action

    def _start(self, start: decisions.Start) -> bool:
        if self.refuse:
            failures = self.known.refused.failures + 1 if self.known.refused is not None else 1
            self.known.refused = Refused(self.refuse, self.now + timedelta(seconds=2.0**failures), failures)
            return False
        self.known.refused = None
        self.known.started[start.name] = self.now
        if start.name not in self.runs:
            self.manifests.append(dict(start.manifest))
            self.runs[start.name] = OwnedRun(start.name, f"uid-{start.name}", self.now)
        return True


EVERY_MINUTE = {"name": "m", "cronExpression": "* * * * *"}
UPSTREAM = builders.configuration("base", run={"artifacts": [{"name": "model", "path": "trainer:model"}]})
OTHER = "runConfiguration/team/base"
MODEL = {"name": "model", "valueFrom": {"runConfigurationRef": {"name": "base", "outputArtifact": "model"}}}
OPTIONAL = {"name": "model", "valueFrom": {"runConfigurationRef": {"name": "base", "outputArtifact": "model", "optional": True}}}


def rig(*others: Any, run: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **spec: Any) -> Rig:
    """A configuration that has been looked at once."""
    made = Rig(builders.configuration(run=run, status=status, **spec), *others)
    assert made.settle() == []
    return made


def following(*others: Any, **spec: Any) -> Rig:
    return rig(*(others or (UPSTREAM,)), triggers={"runConfigurations": ["base"]}, **spec)
