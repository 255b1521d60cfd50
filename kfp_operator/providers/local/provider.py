"""Type local: runs are processes on this machine.

State is the run folders (`folder`) and nothing else; this module decides when to start which run, notices changes and tells the
watchers. One task, `_keep`, does it: woken by a submission, a cancel or the end of a driver, and every quarter of a second while
runs are active to look at their progress. It starts the oldest queued run whenever one of `max_active_runs` slots is free.

What happens to a run after a crash of the operator, at any point, follows from its folder when the next instance opens:

=========================================== ===========================================================================
folder                                      next
=========================================== ===========================================================================
not yet visible (``.new-*``)                removed; the submission is repeated by the operator
no claim                                    queued: a driver is started; should an older one come late, one of both wins
claim, lock held                            adopted: watched, and stopped if it shall be
claim, lock free, result                    ended
claim, lock free, no result                 vanished: what is left of it is killed, it failed (or stopped, if it should)
=========================================== ===========================================================================
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from bisect import insort
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kfp_operator.api.states import RunState
from kfp_operator.errors import InvalidSpec, Permanent, Retryable
from kfp_operator.providers.local import driver, logs, outputs
from kfp_operator.providers.local.driver import Identity
from kfp_operator.providers.local.feed import Feed
from kfp_operator.providers.local.folder import ClaimFile, Options, RunFolder
from kfp_operator.providers.local.interpreter import kfp_version
from kfp_operator.providers.local.parameters import LocalParameters
from kfp_operator.providers.local.process import Watched, kill_leftovers, run_environment, spawn
from kfp_operator.providers.local.rewrite import resolve
from kfp_operator.providers.local.statedir import StateDir
from kfp_operator.providers.protocol import (
    ComponentArtifact,
    ExperimentDescription,
    Observing,
    PipelineVersion,
    ProviderConfig,
    RunUpdate,
    Submission,
)

logger = logging.getLogger(__name__)

REPLAY = 7 * 86400.0
"""Seconds: a watch begins with the runs that ended within this time too. An operator that was away for longer asks `get_run`."""
_POLL = 0.25
_MAX_BACKOFF = 30.0
_ESCALATION = 2.0
"""Seconds after the grace period until the provider kills what the driver did not."""


@dataclass(slots=True)
class _Active:
    """A run that has a slot."""

    folder: RunFolder
    driver: Watched | None = None
    progress: int = -1
    claimed: bool = False
    stop_asked: float | None = None
    """Monotonic time of the signal that asked it to stop."""


class LocalProvider:
    """See `providers.protocol.Provider`. `faults` is called with the name of each step of a start; tests die there."""

    statuses = frozenset({RunState.QUEUED, RunState.RUNNING, RunState.STOPPING, RunState.SUCCEEDED, RunState.FAILED, RunState.STOPPED})
    keeps_pipelines = False
    keeps_experiments = False
    backend = ""
    others: Observing | None = None

    def __init__(self, config: ProviderConfig, parameters: LocalParameters, *, faults: Callable[[str], None] = lambda _: None) -> None:
        self._name = f"{config.namespace}/{config.name}"
        self._parameters = parameters
        self._state = StateDir(config.state_dir.absolute(), self._name)
        self._root = _pipeline_root(config.pipeline_root)
        self._slots = config.max_active_runs or _cpus()
        self._faults = faults
        self._opening = asyncio.Lock()
        self._kfp = ""
        self._active: dict[str, _Active] = {}
        self._queue: list[tuple[int, str]] = []
        self._feed = Feed()
        self._wake = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False

    async def check(self) -> None:
        """The state folder is ours and the interpreter has kfp; else Retryable or Permanent."""
        await self._open()
        if not self._kfp:
            self._kfp = await kfp_version(self._parameters.python, self._state.path)

    async def close(self) -> None:
        """Let go of the state folder. Runs go on, and so does nothing else: no queued run starts until the next instance."""
        async with self._opening:
            self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        for active in self._active.values():
            if active.driver is not None:
                active.driver.close()
        self._active.clear()
        self._feed.end()
        self._state.release()

    async def ensure_pipeline(self, pipeline: PipelineVersion) -> str:
        """Nothing is kept per pipeline; but what can never run here is refused already now."""
        await asyncio.to_thread(resolve, pipeline.spec, self._parameters.packages)
        return ""

    async def delete_pipeline(self, provider_id: str) -> None:
        """Nothing is kept per pipeline."""

    async def prune_pipeline(self, pipeline: PipelineVersion, keep: Collection[str]) -> None:
        """Nothing is kept per version."""

    async def ensure_experiment(self, experiment: ExperimentDescription) -> str:
        """An experiment is a name that runs carry; nothing is kept of it."""
        return experiment.name

    async def delete_experiment(self, provider_id: str) -> None:
        """Nothing is kept per experiment."""

    async def submit_run(self, submission: Submission) -> str:
        """Put the run into the queue, on disk, unless it is known; it starts when a slot is free."""
        await self._open()
        folder = self._state.run(submission.id)
        if not folder.exists():
            resolved = await asyncio.to_thread(resolve, submission.pipeline.spec, self._parameters.packages)
            order = max(time.time_ns(), self._queue[-1][0] + 1 if self._queue else 0)
            options = Options(
                python=self._parameters.python,
                packages=self._parameters.packages,
                grace=self._parameters.termination_grace_period_seconds,
                max_log_bytes=self._parameters.max_log_bytes,
                environment=self._parameters.environment,
                root=str(self._root / submission.id if self._root else folder.path / driver.ROOT),
            )
            self._faults("prepare")
            with self._state.patience():
                prepared = await asyncio.to_thread(folder.prepare, submission, resolved, options, order=order)
                # from here on no await: whoever gives up waiting leaves a run that is known, or none
                created = folder.appear(prepared)
            self._faults("visible")
            if created:
                insort(self._queue, (order, submission.id))
                self._tell(folder)
                self._wake.set()
        return submission.id

    async def get_run(self, submission_id: str) -> RunUpdate | None:
        """What the run's folder says; None when there is none."""
        await self._open()
        folder = self._state.run(submission_id)
        with self._state.patience():
            return await asyncio.to_thread(folder.update, self._waiting) if folder.exists() else None

    async def cancel_run(self, submission_id: str) -> None:
        """Note it on disk, then stop the run: a queued one at once, a running one with SIGTERM and, after the grace period, SIGKILL."""
        await self._open()
        folder = self._state.run(submission_id)
        with self._state.patience():
            if not folder.exists() or folder.result() is not None:
                return
            folder.cancel()
            self._faults("cancel")
            queued = next((item for item in self._queue if item[1] == submission_id), None)
            if queued is not None and folder.end_unclaimed("stopped", "stopped before it started"):
                self._queue.remove(queued)
        self._tell(folder)
        self._wake.set()

    async def logs(self, submission_id: str, *, follow: bool = False) -> AsyncIterator[str]:
        """Lines that the run printed; with `follow` until it has ended. Permanent for a run that is not known here.

        The state folder is only read: the operator that has taken it may be another process (``kfp-operator runs logs``).
        """
        folder = self._state.run(submission_id)
        if not folder.exists():
            raise Permanent(f"Provider {self._name} knows no run {submission_id}", reason="RunNotFound")
        async for line in logs.lines(folder, follow=follow):
            yield line

    async def watch_runs(self) -> AsyncIterator[RunUpdate]:
        """First all runs that have not ended or ended within `REPLAY`, then every change as it happens; ends with `close`."""
        await self._open()
        watcher = self._feed.join()
        try:
            with self._state.patience():
                watcher.begin(await asyncio.to_thread(self._state.updates, self._waiting, ended_within=REPLAY))
            async for update in watcher.updates():
                yield update
        finally:
            self._feed.leave(watcher)

    async def artifacts(self, submission_id: str) -> Sequence[ComponentArtifact]:
        """What the run's steps wrote; Retryable before its end."""
        await self._open()
        folder = self._state.run(submission_id)
        if not folder.exists():
            raise Permanent(f"Provider {self._name} knows no run {submission_id}", reason="RunNotFound")
        with self._state.patience():
            if folder.result() is None:
                raise Retryable(f"run {submission_id} has not ended", reason="RunNotEnded")
            return await asyncio.to_thread(outputs.artifacts, folder)

    # ------------------------------------------------------------------------------------------------ opening

    async def _open(self) -> None:
        """Take the state folder and find out where each run is; once. Retryable while another process has the folder."""
        async with self._opening:
            if self._closed:
                raise Retryable(f"Provider {self._name} is closed", reason="Closed")
            if self._state.taken:
                return
            with self._state.patience():
                self._state.take()
                try:
                    await asyncio.to_thread(self._state.remove_unfinished_submissions)
                    for order, folder in await asyncio.to_thread(self._state.not_ended):
                        if folder.claim() is None:
                            self._queue.append((order, folder.id))
                        else:
                            self._active[folder.id] = _Active(folder)
                except BaseException:
                    self._queue.clear()
                    self._active.clear()
                    self._state.release()
                    raise
            self._keeper = asyncio.create_task(self._keep(), name=f"local runs of {self._name}")

    # ------------------------------------------------------------------------------------------------ keeping

    async def _keep(self) -> None:
        backoff = _POLL
        while True:
            try:
                await self._turn()
                backoff = _POLL
                pause = _POLL if self._active else None
            except Exception as error:
                # a full or broken disk, as a rule: told to whoever watches, tried again
                logger.exception("Provider %s cannot look after its runs", self._name)
                self._feed.end(Retryable(f"Provider {self._name} cannot look after its runs in {self._state.runs}: {error}"))
                backoff = pause = min(backoff * 2, _MAX_BACKOFF)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()

    async def _turn(self) -> None:
        errors = []
        for active in list(self._active.values()):
            try:
                await self._look(active)
            except (OSError, ValueError) as error:  # one broken folder must not keep the others from being looked at
                error.add_note(f"run folder {active.folder.path}")
                errors.append(error)
        if errors:
            raise errors[0]
        while self._queue and len(self._active) < self._slots:
            order, submission_id = self._queue.pop(0)
            try:
                await self._start(self._state.run(submission_id))
            except OSError:
                self._active.pop(submission_id, None)
                self._queue.insert(0, (order, submission_id))
                raise

    async def _start(self, folder: RunFolder) -> None:
        """Start a driver. The claim decides whether it is the one that runs the pipeline."""
        active = self._active[folder.id] = _Active(folder)
        options = folder.submission().options
        environment = run_environment(folder.path, options.python, options.environment, os.environ, self._state.path)
        self._faults("spawn")
        try:
            pid = spawn(folder.path, options.python, environment)
        except OSError as error:
            await self._end_unclaimed(active, f"{options.python} cannot be executed: {error.strerror}")
            return
        self._faults("spawned")
        with contextlib.suppress(ProcessLookupError):
            active.driver = Watched(pid, child=True, on_end=self._wake.set)

    async def _look(self, active: _Active) -> None:
        """Compare one active run with its folder."""
        folder = active.folder
        child_ended = active.driver is not None and active.driver.ended()
        claim = folder.claim()
        if claim is None:
            if child_ended:
                why = folder.driver_errors() or "no reason given"
                await self._end_unclaimed(active, f"the process of the run ended before it could start: {why}")
            return
        if not active.claimed:
            self._follow(active, claim)
        held = folder.held()
        if folder.result() is not None:
            if not held or claim.process is None:  # the driver ends right after its result
                await self._release(active)
            return
        if not held:
            await self._vanished(active, claim)
            return
        if folder.cancellation() is not None:
            self._stop(active)
        if (progress := folder.progress()) != active.progress:
            active.progress = progress
            self._tell(folder)

    def _follow(self, active: _Active, claim: ClaimFile) -> None:
        """Watch the driver that has the claim: our child, or another that an earlier instance started."""
        active.claimed = True
        mine = active.driver.pid if active.driver is not None else None
        if claim.process is not None and claim.process.pid != mine:
            if active.driver is not None:
                active.driver.close()
            active.driver = Watched.adopt(claim.process, self._wake.set)

    def _stop(self, active: _Active) -> None:
        """SIGTERM once, which the driver passes on; it kills after the grace period. SIGKILL when it did not."""
        now = time.monotonic()
        if active.stop_asked is None:
            active.stop_asked = now
            if active.driver is not None:
                active.driver.signal(signal.SIGTERM)
        elif now - active.stop_asked > active.folder.submission().options.grace + _ESCALATION and active.driver is not None:
            active.driver.signal(signal.SIGKILL)

    async def _vanished(self, active: _Active, claim: ClaimFile) -> None:
        """End a run whose driver is gone without a result."""
        folder = active.folder
        killed = await asyncio.to_thread(kill_leftovers, folder.path)
        open_step = next((step.path for step in reversed(folder.step_runs()) if step.end is None), "")
        state: Literal["failed", "stopped"] = "stopped" if folder.cancellation() is not None else "failed"
        folder.end(state, _why_vanished(folder, claim, killed), open_step if state == "failed" else "")
        await self._release(active)

    async def _end_unclaimed(self, active: _Active, message: str) -> None:
        stopped = active.folder.cancellation() is not None
        if active.folder.end_unclaimed("stopped" if stopped else "failed", "stopped before it started" if stopped else message):
            await self._release(active)

    async def _release(self, active: _Active) -> None:
        """The run has ended: tell it, free its slot."""
        if active.driver is not None:
            active.driver.close()
        del self._active[active.folder.id]
        self._tell(active.folder)

    # ------------------------------------------------------------------------------------------------ telling

    @property
    def _waiting(self) -> str:
        return f"waits for one of {self._slots} slots (spec.maxActiveRuns of Provider {self._name})"

    def _tell(self, folder: RunFolder) -> None:
        self._feed.tell(folder.update(self._waiting))


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _why_vanished(folder: RunFolder, claim: ClaimFile, killed: int) -> str:
    process = claim.process
    here = Identity.of(os.getpid())
    if process is None:
        return "the run was ended before it started"
    if here is not None and process.boot and process.boot != here.boot:
        return f"the machine {process.host} was restarted while the run was on its way"
    where = f"process {process.pid} on {process.host}"
    why = folder.driver_errors() or "it was killed, or the machine ran out of memory"
    rest = f"; {killed} processes it left behind were killed" if killed else ""
    return f"the run's {where} vanished without a result: {why}{rest}"


def _pipeline_root(location: str) -> Path | None:
    """The folder of the outputs of all runs; None: each in its run's folder. Raises InvalidSpec for what is no local folder."""
    if not location:
        return None
    path = location.removeprefix("file://")
    if not path.startswith("/"):
        raise InvalidSpec(
            f"type local writes to a folder of this machine (/path or file:///path), not to {location}", field="spec.pipelineRootStorage"
        )
    return Path(path)
