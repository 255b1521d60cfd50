"""A provider's folder on this machine: one process has it at a time; all runs are in it."""

import contextlib
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from kfp_operator.errors import Retryable
from kfp_operator.providers.local.folder import RunFolder
from kfp_operator.providers.protocol import RunUpdate

logger = logging.getLogger(__name__)


class StateDir:
    """The folder `path`, for the Provider `owner` (namespace/name, for messages)."""

    def __init__(self, path: Path, owner: str) -> None:
        self.path = path
        self.runs = path / "runs"
        self._owner = owner
        self._lock = -1

    @property
    def taken(self) -> bool:
        """Whether this process has it."""
        return self._lock >= 0

    def take(self) -> None:
        """Lock out every other process until `release` or the end of this one. Raises Retryable while another has it."""
        self.runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 200).decode(errors="replace").strip()
            os.close(lock)
            raise Retryable(
                f"the state folder {self.path} of Provider {self._owner} is in use by {holder or 'another process'}: "
                "stop that operator, or give this one another stateDir",
                reason="StateDirInUse",
            ) from None
        os.truncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        self._lock = lock

    def release(self) -> None:
        """Let others have it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def run(self, submission_id: str) -> RunFolder:
        """The folder of a run, whether it exists or not. Raises Permanent for an id that cannot name a folder."""
        return RunFolder.of(self.runs, submission_id)

    def remove_unfinished_submissions(self) -> None:
        """Remove what a killed process did not get visible."""
        for path in self.runs.glob(".new-*"):
            shutil.rmtree(path)

    def not_ended(self) -> list[tuple[int, RunFolder]]:
        """The runs that have not ended, oldest submission first."""
        found = []
        for folder in self._folders():
            if not folder.ended():
                try:
                    found.append((folder.submission().order, folder))
                except ValidationError as error:
                    folder.end_unclaimed("failed", f"the run's submission in {folder.path} cannot be read")
                    logger.warning("Cannot read the run folder %s: %s", folder.path, error)
        return sorted(found, key=lambda item: item[0])

    def updates(self, waiting: str, *, ended_within: float) -> list[RunUpdate]:
        """Updates of the runs that ended within so many seconds, oldest end first, then of those that have not ended."""
        since = time.time() - ended_within
        found: list[RunUpdate] = []
        for folder in self._folders():
            if folder.ended_after(since):
                try:
                    found.append(folder.update(waiting))
                except ValidationError as error:
                    logger.warning("Cannot read the run folder %s: %s", folder.path, error)
        return sorted(found, key=lambda update: (update.end_time or datetime.max.replace(tzinfo=UTC), update.history[0].time))

    @contextlib.contextmanager
    def patience(self) -> Iterator[None]:
        """What the disk refuses may work later: OSError becomes Retryable."""
        try:
            yield
        except OSError as error:
            raise Retryable(
                f"Provider {self._owner} cannot use its state folder {self.path}: {error}", reason="StateDirUnusable"
            ) from error

    def _folders(self) -> Iterator[RunFolder]:
        with os.scandir(self.runs) as entries:
            for entry in entries:
                folder = RunFolder(Path(entry.path))
                if not entry.name.startswith(".") and folder.exists():
                    yield folder
