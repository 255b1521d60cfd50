"""A small Argo: it moves Workflows along their outcomes, and the agent that reports them to the server.

Nothing moves by itself: `advance` brings everything up to a moment, in order, each change stamped with the moment at which it was due.
The server calls it before every request, and every few milliseconds where the clock is the real one, so that a test with a clock of
its own sees the same as one that waits. Cost follows the Workflows that have not ended.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.doubles.kfp_api.outcomes import Script
from tests.doubles.kfp_api.workflow import STOPPED, Step, Workflow, steps_of

LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Those of Kubernetes' generated names."""

NEVER = datetime.max.replace(tzinfo=UTC)
WITHOUT_ROW = timedelta(seconds=120)
"""Age from which a Workflow whose run nobody knows is deleted."""
AGAIN = timedelta(seconds=0.05)
"""After which a report is tried again."""

Turn = tuple[datetime, Callable[[datetime], None] | None]
"""When something changes, and what does it with that moment."""
REST: Turn = (NEVER, None)

Listener = Callable[[str, Workflow], None]
"""Told of each change: ADDED, MODIFIED or DELETED, and the Workflow."""


class Argo:
    """All Workflows of a cluster.

    Args:
        script: What becomes of each.
        report: Stores the state of a Workflow in the server's database, as the persistence agent has it done; False: no such run.
        shown: Whether the cluster shows the Workflow as it is, so that the agent can see it.
        report_delay: Seconds from a change to its report.
        stop_delay: Seconds from the request to stop to the end.
        first: Number of the first Workflow: names are made of it.

    """

    def __init__(
        self,
        script: Script,
        report: Callable[[Workflow, datetime], bool],
        shown: Callable[[Workflow], bool],
        *,
        report_delay: float,
        stop_delay: float,
        first: int = 1,
    ) -> None:
        self.script = script
        self.listeners: list[Listener] = []
        self.workflows: dict[str, Workflow] = {}
        """All that exist, by uid."""
        self.made: Counter[str] = Counter()
        """How many were ever made, by run."""
        self._report = report
        self._shown = shown
        self._report_delay = timedelta(seconds=report_delay)
        self._stop_delay = timedelta(seconds=stop_delay)
        self._open: dict[str, Workflow] = {}
        self._reports: list[tuple[datetime, Workflow]] = []
        self._count = itertools.count(first)
        self._version = itertools.count(1)

    def create(
        self,
        prefix: str,
        *,
        namespace: str,
        run_id: str,
        run_name: str,
        tasks: Sequence[str],
        parameters: Mapping[str, Any],
        service_account: str,
        now: datetime,
        labels: Mapping[str, str] | None = None,
        owner: dict[str, Any] | None = None,
    ) -> Workflow:
        """Start one; a second of the same run is another Workflow."""
        number = next(self._count)
        made = Workflow(
            name=f"{prefix}-{_suffix(number)}",
            namespace=namespace,
            uid=f"00000000-0000-4000-8000-{number:012}",
            run_id=run_id,
            run_name=run_name,
            prefix=prefix,
            created=now,
            outcome=self.script.outcome(run_name, run_id, parameters, tasks),
            steps=steps_of(tasks),
            service_account=service_account,
            labels=dict(labels or {}),
            owner=owner,
        )
        self.made[run_id] += 1
        self.workflows[made.uid] = self._open[made.uid] = made
        self._changed(made, "ADDED")
        if made.outcome.unseen:
            self._queue(now + self._report_delay, made)
        return made

    def of(self, run_id: str) -> list[Workflow]:
        """The Workflows of a run, oldest first."""
        return [w for w in self.workflows.values() if w.run_id == run_id]

    # What people and the server do

    def start(self, run_id: str, now: datetime) -> None:
        """Let a run by hand begin."""
        self._by_hand(run_id).released = True
        self.advance(now)

    def finish(self, run_id: str, now: datetime, phase: str = "Succeeded", *, fails_in: str = "", message: str = "") -> None:
        """Let a run by hand end, in this phase or because a task fails."""
        workflow = self._by_hand(run_id)
        workflow.released = True
        changes: dict[str, Any] = {"message": message} if message else {}
        if fails_in:
            changes["fails_in"] = fails_in
        elif phase != "Succeeded":
            changes["phase"] = phase
        workflow.outcome = replace(workflow.outcome, seconds=0.0, pending=0.0, by_hand=False, wait_for="", **changes)
        self.advance(now)

    def stop(self, workflow: Workflow, now: datetime) -> None:
        """Set spec.activeDeadlineSeconds to 0, as a termination does."""
        workflow.stopping = now
        self._changed(workflow)
        self._queue(now + self._report_delay, workflow)
        self.advance(now)

    def retry(self, workflow: Workflow, now: datetime) -> None:
        """Begin anew where it failed, as the retry of a run does."""
        workflow.outcome = workflow.outcome.then or replace(workflow.outcome, fails_in="", phase="Succeeded", then=None)
        workflow.steps = [s if s.phase == "Succeeded" else Step(s.name, s.attempt + 1) for s in workflow.steps]
        workflow.phase, workflow.started, workflow.finished, workflow.message = "Running", now, None, ""
        workflow.stopping, workflow.persisted = None, False
        workflow.attempt += 1
        self._open[workflow.uid] = workflow
        self._changed(workflow)
        self.advance(now)

    def delete(self, workflow: Workflow) -> None:
        """Remove it from the cluster: nothing more is reported of it."""
        if self.workflows.pop(workflow.uid, None) is not None:
            workflow.deleted = True
            self._open.pop(workflow.uid, None)
            self._reports = [(due, w) for due, w in self._reports if w is not workflow]
            self._tell("DELETED", workflow)

    def persist(self, workflow: Workflow) -> None:
        """Label it as stored in its final state."""
        workflow.persisted = True
        self._changed(workflow)

    # Time

    def advance(self, now: datetime) -> None:
        """Bring everything up to `now`."""
        while True:
            due, act = min((self._next(w, now) for w in self._open.values()), key=lambda turn: turn[0], default=REST)
            if self._reports and self._reports[0][0] <= min(due, now):
                self._report_first()
            elif act is not None and due <= now:
                act(due)
            else:
                return

    def _report_first(self) -> None:
        moment, workflow = self._reports.pop(0)
        if not self._shown(workflow):
            self._queue(moment + AGAIN, workflow)
            return
        if self._report(workflow, moment):
            return
        if moment - workflow.created >= WITHOUT_ROW:
            self.delete(workflow)
        else:
            self._queue(moment + AGAIN, workflow)

    def _queue(self, due: datetime, workflow: Workflow) -> None:
        self._reports.append((due, workflow))
        self._reports.sort(key=lambda entry: entry[0])

    def _next(self, workflow: Workflow, now: datetime) -> Turn:
        """What the Workflow does next, and when: `now` for what no clock decides."""
        outcome = workflow.outcome
        if workflow.stopping is not None:
            return workflow.stopping + self._stop_delay, lambda at: self._end(workflow, at, "Failed", STOPPED)
        if not workflow.phase:
            return workflow.created + timedelta(seconds=outcome.unseen), lambda at: self._pend(workflow, at)
        if workflow.phase == "Pending":
            if outcome.by_hand and not workflow.released:
                return REST
            due = workflow.created + timedelta(seconds=outcome.pending)
            return max(due, now) if workflow.released else due, lambda at: self._run(workflow, at)
        return self._next_step(workflow, now)

    def _next_step(self, workflow: Workflow, now: datetime) -> Turn:
        outcome, steps = workflow.outcome, workflow.steps
        index = sum(s.phase == "Succeeded" for s in steps)
        if index == len(steps):
            return self._after(workflow, index), lambda at: self._end(workflow, at, outcome.phase)
        step = next(s for s in steps if s.phase != "Succeeded")
        if not step.phase:
            return self._after(workflow, index), lambda at: self._begin(workflow, step, at)
        if outcome.by_hand or (index == len(steps) - 1 and not outcome.gate_open):
            return REST
        due = self._after(workflow, index + 1)
        if outcome.wait_for or workflow.released:  # no clock says when that was
            due = max(due, now)
        return due, lambda at: self._complete(workflow, step, at)

    def _after(self, workflow: Workflow, steps: int) -> datetime:
        """When so many steps are through."""
        begun = workflow.started or workflow.created
        due = begun + timedelta(seconds=workflow.outcome.seconds * steps / max(len(workflow.steps), 1))
        return max(due, *(s.finished for s in workflow.steps if s.finished), begun)

    # Changes

    def _pend(self, workflow: Workflow, at: datetime) -> None:
        workflow.phase = "Pending"
        self._reported(workflow, at)

    def _run(self, workflow: Workflow, at: datetime) -> None:
        workflow.phase, workflow.started = "Running", at
        self._reported(workflow, at)

    def _begin(self, workflow: Workflow, step: Step, at: datetime) -> None:
        step.phase, step.started = "Running", at
        self._reported(workflow, at)

    def _complete(self, workflow: Workflow, step: Step, at: datetime) -> None:
        step.finished = at
        if step.name == workflow.outcome.fails_in:
            step.phase, step.message = "Failed", workflow.outcome.message
            self._end(workflow, at, "Failed")
            return
        step.phase = "Succeeded"
        if all(s.phase == "Succeeded" for s in workflow.steps):
            self._end(workflow, at, workflow.outcome.phase)
        else:
            self._reported(workflow, at)

    def _end(self, workflow: Workflow, at: datetime, phase: str, stopped: str = "") -> None:
        for step in workflow.steps:
            if step.phase == "Running":
                step.phase, step.finished, step.message = "Failed", at, stopped
            elif not step.phase:
                step.phase = "Omitted"
        workflow.phase, workflow.started, workflow.finished = phase, workflow.started or at, at
        if phase == "Error":
            workflow.message = workflow.outcome.message
        self._open.pop(workflow.uid, None)
        self._reported(workflow, at)

    def _reported(self, workflow: Workflow, at: datetime) -> None:
        self._changed(workflow)
        self._queue(at + self._report_delay, workflow)

    def _changed(self, workflow: Workflow, what: str = "MODIFIED") -> None:
        workflow.version = next(self._version)
        self._tell(what, workflow)

    def _tell(self, what: str, workflow: Workflow) -> None:
        for listener in self.listeners:
            listener(what, workflow)

    def _by_hand(self, run_id: str) -> Workflow:
        found = self.of(run_id)
        if not found:
            raise LookupError(f"run {run_id} has no Workflow")
        return found[-1]


def _suffix(number: int) -> str:
    """Five letters as Kubernetes appends them, others for each number."""
    number = number * 9_871_673 % len(LETTERS) ** 5
    letters = []
    for _ in range(5):
        number, rest = divmod(number, len(LETTERS))
        letters.append(LETTERS[rest])
    return "".join(letters)
