"""Drivers as the provider sees them: started, adopted, watched, signalled, cleaned up after.

A driver leads a session of its own, so neither the end of the operator nor a Ctrl-C in its terminal reaches it. It may be our child
or, after a restart, somebody else's; both are watched through a pidfd (Linux), which cannot mean another process than the one it
was opened for. Without pidfds the lock in the run folder tells the end (see `driver`).
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from kfp_operator.providers.local import driver
from kfp_operator.providers.local.driver import Identity

INHERITED = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)
"""The operator's variables that runs see. All others stay here: credentials, KFPOP_*, KUBECONFIG, proxies with passwords in them."""


def run_environment(folder: Path, python: str, extra: Mapping[str, str], own: Mapping[str, str], caches: Path) -> dict[str, str]:
    """The whole environment of a run. `extra`: from the Provider; `own`: the operator's, of which `INHERITED` is passed on."""
    inherited = {name: own[name] for name in INHERITED if name in own}
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PIP_CACHE_DIR": str(caches / "pip"),
        **inherited,
        **extra,
        "HOME": str(folder / driver.WORK),
        "TMPDIR": str(folder / driver.TEMPORARY),
        driver.MARK: str(folder),
        "KFP_RUN_PYTHON": python,
        "KFP_RUN_WORKER": str(folder / driver.WORKER),
    }


def spawn(folder: Path, python: str, environment: Mapping[str, str]) -> int:
    """Start a driver for the run; its pid. Raises OSError when the interpreter cannot be executed."""
    errors = str(folder / driver.DRIVER_ERRORS)
    start = partial(
        os.posix_spawn,
        python,
        [python, "-I", str(folder / driver.DRIVER), str(folder)],
        dict(environment),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsigmask=[],
        setsigdef=[signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE],
    )
    try:
        return start(setsid=True)
    except NotImplementedError:  # some C libraries: the driver does it itself, an instant later
        return start()


class Watched:
    """A driver that is watched. `on_end` is called once when it has ended, but where there are no pidfds: there the lock must be asked."""

    def __init__(self, pid: int, *, child: bool, on_end: Callable[[], None]) -> None:
        self.pid = pid
        self._child = child
        self._descriptor = -1
        if sys.platform == "linux":
            self._descriptor = os.pidfd_open(pid)
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._descriptor, self._at_end, on_end)

    @classmethod
    def adopt(cls, identity: Identity, on_end: Callable[[], None]) -> "Watched | None":
        """Watch the process of a claim; None unless host, boot id, pid and start time all say that it is that one."""
        try:
            watched = cls(identity.pid, child=False, on_end=on_end)
        except ProcessLookupError:
            return None
        if Identity.of(identity.pid) == identity:  # after the pidfd is open: from here on it cannot be another process
            return watched
        watched.close()
        return None

    def _at_end(self, on_end: Callable[[], None]) -> None:
        self._loop.remove_reader(self._descriptor)
        on_end()

    def ended(self) -> bool:
        """Whether it is a child of ours that has ended (and is reaped hereby); False of any other process: ask the lock."""
        try:
            pid, _ = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return self._child  # reaped already; or not a child
        return pid != 0

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process can be told for certain and lives."""
        if sys.platform == "linux" and self._descriptor >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)
        elif self._child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def close(self) -> None:
        """Stop watching; the process goes on."""
        self.ended()
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def kill_leftovers(folder: Path) -> int:
    """Kill what is left of a run whose driver vanished: every process with the run's mark in its environment; how many there were.

    Needs /proc. By pidfd, opened before the environment is read: never another process that got the pid meanwhile.
    """
    mark = f"{driver.MARK}={folder}".encode()
    killed = 0
    for pid in driver.processes():
        if sys.platform != "linux" or pid == os.getpid():
            continue
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue  # gone, or a thread
        try:
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                killed += 1
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue  # gone, or another user's
        finally:
            os.close(descriptor)
    return killed
