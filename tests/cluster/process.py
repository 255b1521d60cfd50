"""Child processes of the test bed: each in a group of its own, with a log file, gone when this process is gone.

Nothing is ever killed by name. A process is stopped through its own process group, and if this process dies, even by SIGKILL, the
kernel kills its children (see ``launcher.py``).
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.waiting import eventually

_LAUNCHER = Path(__file__).with_name("launcher.py")
_FREEZE_WITHIN = 10.0
_LOG_TAIL = 30  # lines shown when a process fails

# The parent-death signal comes when the *thread* that forked ends (prctl(2)), and a caller's thread may be a short-lived one. This one
# lives as long as the process.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


class ProcessError(RuntimeError):
    """A process of the test bed did not start, or ended by itself; the message holds the end of its log."""


def bound_to_this_process(argv: Sequence[str | Path]) -> list[str]:
    """Return a command line that runs ``argv`` and dies with this process."""
    return [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *map(str, argv)]


class Process:
    """One program: started, stopped, frozen and started again, always with the same command line.

    Args:
        name: What people call it.
        argv: The command line.
        log: File that receives both its outputs; appended to.
        env: Its whole environment; None: ours.
        cwd: Its working folder; None: ours.

    """

    def __init__(
        self, name: str, argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.log = log
        self._env = None if env is None else dict(env)
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the last start."""
        if self._process is None:
            raise ProcessError(f"{self.name} was never started")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs (or is frozen)."""
        return self._process is not None and self.returncode is None

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self._process is None or self._process.returncode is not None:
            return None if self._process is None else self._process.returncode
        # Only looks: until `kill` reaps it, its number and its group's cannot be given to another process.
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def start(self) -> None:
        """Start it; the caller waits until it is ready (``wait_until``)."""
        if self.alive:
            raise ProcessError(f"{self.name} runs already")
        self._process = _spawner.submit(self._spawn).result()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                bound_to_this_process(self.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,  # its own group: a Ctrl-C in the terminal is ours to handle
            )

    def wait_until(self, ready: Callable[[], object], within: float) -> None:
        """Wait until ``ready()`` is true; an OSError means not yet.

        Raises:
            ProcessError: It ended, or was not ready in time; nothing of it is left.

        """

        def ready_or_dead() -> object:
            return not self.alive or ready()

        try:
            eventually(ready_or_dead, within, f"{self.name} is ready", ignoring=(OSError,))
        except AssertionError as error:
            self.kill()
            raise ProcessError(f"{error}\n{self.log_tail()}") from error
        if not self.alive:
            self.kill()
            raise ProcessError(f"{self.name} ended with {self.returncode} while it started\n{self.log_tail()}")

    def wait(self, within: float) -> int:
        """Wait for its end and return its exit status; AssertionError after ``within`` seconds. What it started goes on."""
        if self._process is None:
            raise ProcessError(f"{self.name} was never started")
        self._wait(within)
        return self._process.wait()

    def stop(self, within: float = 10) -> None:
        """Ask it to end (SIGTERM), and kill what is left of its group after ``within`` seconds."""
        if self.alive:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)
            with contextlib.suppress(AssertionError):
                self._wait(within)
        self.kill()

    def kill(self) -> None:
        """Kill its whole group at once, and wait for its end."""
        if self._process is not None and self._process.returncode is None:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def pause(self) -> None:
        """Freeze it: sockets stay open, nothing answers. It has stopped when this returns; a thread may run on for a moment before."""
        self._signal(signal.SIGSTOP)
        eventually(self._frozen, _FREEZE_WITHIN, f"{self.name} is frozen")

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def log_tail(self, lines: int = _LOG_TAIL) -> str:
        """Return the last lines of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _frozen(self) -> bool:
        threads = Path(f"/proc/{self.pid}/task").glob("*/stat")
        return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in threads)

    def _wait(self, within: float) -> None:
        eventually(lambda: not self.alive, within, f"{self.name} ends")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            os.killpg(self.pid, number)
