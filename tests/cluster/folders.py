"""Where the test bed keeps things: a cache per user, and scratch folders that go when nobody uses them.

Nothing is ever written into the repository.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from tests.waiting import eventually

_SCRATCH_PREFIX = "kfp-operator-test-bed-"
_IN_USE = "in-use"


def cache_folder() -> Path:
    """Return the user's cache folder for the test bed (XDG base directories: a relative XDG_CACHE_HOME does not count)."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "kfp-operator" / "test-bed"


def try_lock(path: Path) -> TextIO | None:
    """Take a lock that lasts until the file is closed or this process ends; None: somebody else has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


@contextlib.contextmanager
def locked(path: Path, within: float, what: str) -> Iterator[None]:
    """Hold a lock between processes; AssertionError if somebody else holds it for longer than ``within`` seconds."""
    with eventually(lambda: try_lock(path), within, f"the lock {path} for {what} is free"):
        yield


class ScratchFolder:
    """A temporary folder. Those that killed processes left behind are removed when the next one is made."""

    def __init__(self) -> None:
        _sweep()
        unseen = Path(tempfile.mkdtemp(prefix=f".{_SCRATCH_PREFIX}"))
        self._lock = try_lock(unseen / _IN_USE)
        self.path = unseen.rename(unseen.with_name(unseen.name.removeprefix(".")))  # locked before anybody who sweeps can see it

    def remove(self) -> None:
        """Delete it."""
        shutil.rmtree(self.path, ignore_errors=True)  # a killed writer's last file may appear meanwhile; the next sweep takes it
        if self._lock is not None:
            self._lock.close()


def _sweep() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH_PREFIX}*"):
        with contextlib.suppress(PermissionError):  # another user's
            lock = try_lock(folder / _IN_USE)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                lock.close()
