"""Carries out what `reconcile.run_schedule` decides."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from kfp_operator.api.names import Names
from kfp_operator.api.run_schedule import RunSchedule
from kfp_operator.errors import AlreadyExists, ClusterError, ClusterUnavailable, Conflict, NotFound
from kfp_operator.operator.backoff import backoff
from kfp_operator.operator.faults import fault_point
from kfp_operator.operator.owned_runs import OwnedRuns
from kfp_operator.operator.ports import Guard, Now, Objects, Recorder
from kfp_operator.operator.store import Key, Store
from kfp_operator.reconcile import run_schedule as decisions
from kfp_operator.reconcile.run_schedule import Refused, ScheduleSituation, Told

log = logging.getLogger(__name__)

STEPS = 20
"""Steps in one go; then others get their turn."""
BREATH = 0.1
"""Seconds until a schedule that has more to do is looked at again."""
MAX_BACKOFF = 60.0
PRUNE_AGAIN = 300.0
"""Seconds after which Runs beyond the history limits are deleted again when the API server refused that."""
UNANSWERED_AGAIN = 10.0
"""Seconds after which they are when it did not answer."""


@dataclass(slots=True)
class Desk:
    """What this process knows of one RunSchedule."""

    uid: str
    generation: int = 0
    refused: Refused | None = None
    prune_after: datetime | None = None
    unsure: bool = False
    """No answer came to a write of the status: it is to be read before anything else is decided."""
    unsure_of: str = ""
    """Name of a Run of which is not known whether it was created: no answer came."""


class RunScheduleController:
    """Reconciles RunSchedules."""

    def __init__(
        self, *, store: Store, objects: Objects, runs: OwnedRuns, recorder: Recorder, guard: Guard, now: Now, names: Names
    ) -> None:
        self._store = store
        self._objects = objects
        self._runs = runs
        self._recorder = recorder
        self._guard = guard
        self._now = now
        self._names = names
        self._desks: dict[Key, Desk] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Take the RunSchedule as far as it goes; seconds after which to look again."""
        schedule = self._store.get(key)
        if not isinstance(schedule, RunSchedule):
            self._desks.pop(key, None)
            return None
        desk = self._desks.get(key)
        if desk is None or desk.uid != schedule.metadata.uid:
            desk = self._desks[key] = Desk(schedule.metadata.uid)
        if desk.generation != schedule.metadata.generation:  # what was edited is tried at once
            desk.generation, desk.refused = schedule.metadata.generation, None
        await self._make_sure(key, desk)
        for _ in range(STEPS):
            found = self._store.get(key)
            if not isinstance(found, RunSchedule) or found.metadata.uid != desk.uid:
                return 0
            schedule = found
            decision = decisions.decide_run_schedule(self._situation(schedule, desk))
            if decision.action is None:
                return decision.again
            self._guard()
            try:
                await self._act(schedule, desk, decision.action)
            except (Conflict, NotFound):
                await self._refresh(key)
            except ClusterUnavailable:
                desk.unsure = True
                raise
        return BREATH

    async def _make_sure(self, key: Key, desk: Desk) -> None:
        """Learn what became of writes without an answer: no watch need have reported it yet."""
        if desk.unsure:
            await self._refresh(key)
            desk.unsure = False
        if desk.unsure_of:
            await self._runs.look(key.namespace, desk.unsure_of)
            desk.unsure_of = ""

    def _situation(self, schedule: RunSchedule, desk: Desk) -> ScheduleSituation:
        return ScheduleSituation(
            schedule=schedule,
            runs=self._runs.of(schedule.metadata.uid),
            refused=desk.refused,
            prune_after=desk.prune_after,
            now=self._now(),
            names=self._names,
        )

    async def _act(self, schedule: RunSchedule, desk: Desk, action: decisions.ScheduleAction) -> None:
        """Carry out one step. Conflict, NotFound: the schedule is another one by now."""
        match action:
            case decisions.WriteScheduleStatus(status, told):
                self._store.put(await self._objects.patch_status(schedule, status))
                fault_point("schedule-written")
                self._tell(schedule, told)
            case decisions.StartRun():
                await self._start(schedule, desk, action)
            case decisions.StopRuns(runs, tick):
                try:
                    for run in runs:
                        await self._runs.stop(schedule.metadata.namespace, run)
                        self._tell(schedule, (Told("RunReplaced", f"Run {run.name} is stopped for {decisions.tick_text(tick)}"),))
                    fault_point("run-replaced")
                    desk.refused = None
                except ClusterError as error:
                    self._put_off(schedule, desk, error, f"a Run that {decisions.tick_text(tick)} replaces cannot be stopped")
            case decisions.ReleaseSchedule(told):
                self._tell(schedule, told)
                finalizers = self._names.released(schedule.metadata.finalizers)
                self._store.put(await self._objects.patch_metadata(schedule, {"finalizers": finalizers}))
            case decisions.DeleteRuns(runs):
                try:
                    for run in runs:
                        await self._runs.delete(schedule.metadata.namespace, run)
                    desk.prune_after = None
                except ClusterUnavailable:
                    desk.prune_after = self._now() + timedelta(seconds=UNANSWERED_AGAIN)
                except ClusterError as error:
                    desk.prune_after = self._now() + timedelta(seconds=PRUNE_AGAIN)
                    self._recorder.warning(schedule, "HistoryKept", f"Runs beyond the history limits cannot be deleted: {error}")

    async def _start(self, schedule: RunSchedule, desk: Desk, action: decisions.StartRun) -> None:
        try:
            _, created = await self._runs.start(schedule, action.manifest)
        except ClusterError as error:
            desk.unsure_of = action.name if isinstance(error, ClusterUnavailable) else ""
            self._put_off(schedule, desk, error, f"the Run for {decisions.tick_text(action.tick)} cannot be created")
            return
        fault_point("run-created")
        desk.refused = None
        if created:
            self._tell(schedule, action.told)

    def _put_off(self, schedule: RunSchedule, desk: Desk, error: ClusterError, what: str) -> None:
        """Whatever the reason, be it a quota, a webhook or the namespace's end: it may pass, and is shown until it does."""
        failures = desk.refused.failures + 1 if desk.refused is not None else 1
        asked = error.after if isinstance(error, ClusterUnavailable) else None
        delay = max(backoff(failures, most=MAX_BACKOFF), asked or 0.0)
        reason = "RunNameTaken" if isinstance(error, AlreadyExists) else "RunRefused"
        desk.refused = Refused(reason, f"{what}: {error}", self._now() + timedelta(seconds=delay), failures)
        self._recorder.warning(schedule, reason, desk.refused.message)
        log.info("RunSchedule %s: %s; tried again in %.0f s", schedule.metadata.full_name, desk.refused.message, delay)

    def _tell(self, schedule: RunSchedule, told: tuple[Told, ...]) -> None:
        for each in told:
            (self._recorder.warning if each.warning else self._recorder.normal)(schedule, each.reason, each.message)

    async def _refresh(self, key: Key) -> None:
        try:
            self._store.put(await self._objects.get(key))
        except NotFound:
            self._store.drop(key)
