"""Carries out what `reconcile.run_configuration` decides: one RunConfiguration at a time, step after step, until nothing is left to do."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from kfp_operator.api.names import Names
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.run import Run
from kfp_operator.api.run_configuration import LatestRun, RunConfiguration, RunConfigurationStatus
from kfp_operator.api.states import RunState
from kfp_operator.errors import AlreadyExists, Conflict, Forbidden, NotFound, Unprocessable
from kfp_operator.operator.backoff import backoff
from kfp_operator.operator.faults import fault_point
from kfp_operator.operator.owned_runs import OwnedRuns
from kfp_operator.operator.ports import Guard, Now, Objects, Recorder
from kfp_operator.operator.store import Key, Store
from kfp_operator.reconcile import run_configuration as decisions
from kfp_operator.reconcile.run_configuration_loops import Loops, loops_of
from kfp_operator.reconcile.run_configuration_parameters import allows, full_name, references
from kfp_operator.reconcile.run_configuration_situation import ConfigurationSituation, Knowledge, Occurrence, Refused
from kfp_operator.reconcile.run_configuration_status import RUN_REFUSED
from kfp_operator.reconcile.run_configuration_triggers import as_asked
from kfp_operator.reconcile.starting import OwnedRun, occurrence_name

log = logging.getLogger(__name__)

STEPS = 200
"""Most steps in one go: a batch of Runs and the writes around it take fewer."""
MAX_BACKOFF = 300.0


@dataclass(slots=True)
class Desk:
    """What this process knows of one RunConfiguration."""

    uid: str
    known: Knowledge = field(default_factory=Knowledge)


class RunConfigurationController:
    """Reconciles RunConfigurations."""

    def __init__(
        self,
        *,
        store: Store,
        objects: Objects,
        runs: OwnedRuns,
        versions_of: Callable[[str, str], frozenset[str]],
        recorder: Recorder,
        guard: Guard,
        now: Now,
        names: Names,
    ) -> None:
        self._store = store
        self._objects = objects
        self._runs = runs
        self._versions_of = versions_of
        self._recorder = recorder
        self._guard = guard
        self._now = now
        self._names = names
        self._desks: dict[Key, Desk] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Take the RunConfiguration as far as it goes; seconds after which to look again, None: when something changes."""
        configuration = self._configuration(key)
        if configuration is None:
            self._desks.pop(key, None)
            return None
        desk = self._desks.get(key)
        if desk is None or desk.uid != configuration.metadata.uid:
            desk = self._desks[key] = Desk(configuration.metadata.uid)
        for _ in range(STEPS):
            configuration = self._configuration(key)
            if configuration is None or configuration.metadata.uid != desk.uid:
                return 0
            decision = decisions.decide(self._situation(configuration, desk))
            if decision.action is None:
                return decision.again
            self._guard()
            await self._act(configuration, desk, decision.action)
        log.error("%s needs too many steps, it is put off; please report this", key)
        return MAX_BACKOFF

    def _configuration(self, key: Key) -> RunConfiguration | None:
        stored = self._store.get(key)
        return stored if isinstance(stored, RunConfiguration) else None

    async def _fresh(self, key: Key) -> None:
        """Have the object in the store as it is now."""
        try:
            self._store.put(await self._objects.get(key))
        except NotFound:
            self._store.drop(key)

    # What is looked at

    def _situation(self, configuration: RunConfiguration, desk: Desk) -> ConfigurationSituation:
        spec, namespace = configuration.spec, configuration.metadata.namespace
        pipeline = self._store.get(Key("Pipeline", namespace, spec.run.pipeline_name))
        named = [full_name(reference, namespace) for reference in spec.triggers.run_configurations]
        others = {name: self._other(name) for name in (*named, *references(spec.run.parameters, namespace))}
        return ConfigurationSituation(
            configuration=configuration,
            pipeline=pipeline if isinstance(pipeline, Pipeline) else None,
            versions=self._versions_of(namespace, spec.run.pipeline_name),
            configurations={name: other for name, other in others.items() if other is not None},
            loops=self._loops(configuration),
            runs=self._own(configuration),
            known=desk.known,
            now=self._now(),
            names=self._names,
        )

    def _other(self, name: str) -> RunConfiguration | None:
        other = self._configuration(Key.parse("RunConfiguration", name))
        return other if other is not None and other.metadata.deletion_timestamp is None else None

    def _loops(self, configuration: RunConfiguration) -> Loops:
        return loops_of(configuration.metadata.full_name, self._follows) if configuration.spec.triggers.run_configurations else {}

    def _follows(self, name: str) -> list[str]:
        configuration = self._other(name)
        if configuration is None:
            return []
        namespace = configuration.metadata.namespace
        named = [full_name(reference, namespace) for reference in configuration.spec.triggers.run_configurations]
        return [each for each in named if (other := self._other(each)) is not None and allows(other, namespace)]

    def _own(self, configuration: RunConfiguration) -> list[OwnedRun]:
        """Its Runs; of those that are settled, which may be thousands, only those that a decision can be about."""
        spec = configuration.spec
        pending = {occurrence_name(configuration, e.name, what) for e in configuration.status.triggers for what in e.pending}
        limited = spec.successful_runs_history_limit is not None or spec.failed_runs_history_limit is not None
        return self._runs.of(configuration.metadata.uid, settled=lambda run: limited or run.key.name in pending)

    # What is done

    async def _act(self, configuration: RunConfiguration, desk: Desk, action: decisions.Action) -> None:
        match action:
            case decisions.WriteStatus(status):
                await self._write(configuration, desk, status)
            case decisions.StartRuns(starts):
                for start in starts:
                    self._guard()
                    if not await self._start(configuration, desk, start):
                        return
            case decisions.StopRuns(runs):
                for run in runs:
                    self._guard()
                    await self._runs.stop(configuration.metadata.namespace, run)
                    self._recorder.normal(configuration, "Replaced", f"Run {run.name} is stopped: another takes its place")
            case decisions.DeleteRuns(runs):
                for run in runs:
                    self._guard()
                    await self._runs.delete(configuration.metadata.namespace, run)
            case decisions.ReadRuns(reads):
                for read in reads:
                    desk.known.followed[read.occurrence] = await self._read(read)

    async def _write(self, configuration: RunConfiguration, desk: Desk, status: RunConfigurationStatus) -> None:
        try:
            written = await self._objects.patch_status(configuration, status)
        except (Conflict, NotFound):
            await self._fresh(Key.of(configuration))
            return
        fault_point("configuration-written")
        pending = {Occurrence(entry.name, what) for entry in written.status.triggers for what in entry.pending}
        desk.known.followed = {what: run for what, run in desk.known.followed.items() if what in pending}
        desk.known.started.clear()  # all of them were taken off in this write; without its answer they are remembered
        if not pending:
            desk.known.refused = None
        self._store.put(written)
        self._tell(configuration, written)

    async def _start(self, configuration: RunConfiguration, desk: Desk, start: decisions.Start) -> bool:
        """Have the Run; False: the API server refuses it."""
        try:
            _, created = await self._runs.start(configuration, start.manifest)
        except (AlreadyExists, Forbidden, Unprocessable, NotFound) as error:
            self._refuse(configuration, desk, f"Run {start.name} cannot be created and is tried again: {error}")
            return False
        fault_point("run-created")
        desk.known.refused = None
        desk.known.started[start.name] = self._now()
        if created:
            self._recorder.normal(configuration, "Started", f"Run {start.name} was started by {start.occurrence.trigger}")
            for message in start.left_out:
                self._recorder.normal(configuration, "ParameterLeftOut", f"Run {start.name} goes without an optional parameter; {message}")
        return True

    def _refuse(self, configuration: RunConfiguration, desk: Desk, message: str) -> None:
        before = desk.known.refused
        failures = before.failures + 1 if before is not None else 1
        delay = timedelta(seconds=backoff(failures, most=MAX_BACKOFF))
        desk.known.refused = Refused(message, self._now() + delay, failures)
        if before is None or before.message != message:
            self._recorder.warning(configuration, "RunRefused", message)

    async def _read(self, wanted: decisions.Read) -> LatestRun | None:
        try:
            run = await self._objects.get(Key.parse("Run", wanted.run))
        except NotFound:
            return None
        if not isinstance(run, Run) or run.metadata.uid != wanted.uid or run.status.attempt != wanted.attempt:
            return None
        if run.status.state is not RunState.SUCCEEDED:
            return None
        return LatestRun(
            name=run.metadata.name,
            uid=wanted.uid,
            attempt=wanted.attempt,
            state="succeeded",
            provider_id=run.status.provider_id,
            artifacts=run.status.artifacts,
        )

    def _tell(self, before: RunConfiguration, written: RunConfiguration) -> None:
        """As Events, what people wait for and what was passed over."""
        was, status = before.status, written.status
        if status.message and status.message != was.message:
            ready = next((c for c in status.conditions if c.type == "Ready"), None)
            tell = self._recorder.normal if ready is None or ready.status == "True" else self._recorder.warning
            if ready is None or ready.reason != RUN_REFUSED:  # that was told when it happened
                tell(written, ready.reason if ready is not None else "Waiting", status.message)
        suppressed = {entry.name: entry.suppressed for entry in was.triggers}
        for entry in status.triggers:
            if entry.suppressed > suppressed.get(entry.name, 0):
                tell = self._recorder.normal if as_asked(entry.message) else self._recorder.warning
                tell(written, "Suppressed", f"{entry.name}: {entry.message}")
