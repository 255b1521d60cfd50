"""The process of one run: it claims the run, keeps watch over it and writes how it ended.

``python -I driver.py FOLDER`` leads a session of its own and outlives the operator. Below it runs the worker (`worker.py`), which
runs the pipeline with ``kfp.local``, and below that its steps. This module needs nothing but the standard library, and each run
folder holds a copy of it: the interpreter that has kfp need not have the operator, and an upgrade does not touch a run on its way.

**A run is never started twice.** `claim.json` appears by a hard link of a finished file, which the file system lets succeed for
exactly one process; whoever makes it decides what becomes of the run. A driver that does not get it exits before it has done
anything, so the operator may start as many drivers as its crashes make it. An operator that ends a run which no driver claimed
(cancelled in the queue, no interpreter) takes the same claim first: a driver that is late finds it taken.

**A run that lives is told from one that vanished** by the lock on the file `lock`: the driver takes it before the claim and the
kernel drops it with the process, whatever killed it. Claimed, unlocked and without `result.json` means vanished. Claimed and locked
means living, and the identity in the claim (host, boot id, pid, start time) tells whether that process may be signalled from here:
a pid alone may be another's.

**A run ends whole.** The driver is a child subreaper, so even a step's daemons become its children; all are killed before
`result.json`, also made by a hard link, says how the run ended. Cancelling is a file too (`cancel.json`, written before any
signal): a driver that missed the signal, or whose operator died between the two, finds it.

**The log is bounded here**, not by the operator, which may be dead: see `Log`.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SUBMISSION, PIPELINE = "submission.json", "pipeline.yaml"
CLAIM, CANCEL, RESULT = "claim.json", "cancel.json", "result.json"
LOCK, EVENTS, LOG, FIFO = "lock", "events.jsonl", "log", "log.fifo"
DRIVER, WORKER, DRIVER_ERRORS = "driver.py", "worker.py", "driver.err"
WORK, TEMPORARY, ROOT = "work", "tmp", "root"

MARK = "KFP_RUN_FOLDER"
"""Environment variable with the run folder, in every process of a run: what survives a killed driver is found by it."""
MAX_MESSAGE = 1024
_PR_SET_CHILD_SUBREAPER = 36
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def now() -> str:
    """The time as the files hold it: RFC 3339, UTC, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def plain(text: str) -> str:
    """One paragraph without terminal colours, at most `MAX_MESSAGE` bytes of UTF-8."""
    data = re.sub(r"\s*[\r\n]\s*", " ", _ANSI.sub("", text).strip()).encode(errors="replace")
    return data.decode() if len(data) <= MAX_MESSAGE else data[: MAX_MESSAGE - 4].decode(errors="ignore") + " ..."


def _write(path: Path, document: Any) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    with temporary.open("x", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def create_json(path: Path, document: Any) -> bool:
    """Make the file, whole, unless there is one; whether this call made it. One of any number of processes gets True."""
    temporary = _write(path, document)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def append_event(folder: Path, **event: Any) -> None:
    """Add one line to the run's events: a single write to a file opened for appending, so that parallel steps do not mix."""
    line = json.dumps({"time": now(), **event}).encode() + b"\n"
    descriptor = os.open(folder / EVENTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def read_events(folder: Path) -> list[dict[str, Any]]:
    """All events so far, without a line that is still being written or that is no event."""
    try:
        data = (folder / EVENTS).read_bytes()
    except FileNotFoundError:
        return []
    events = []
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                events.append(event)
    return events


def failed_step(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The end of the first step that failed and was not repeated with success."""
    last = {str(event.get("path")): event for event in events if event["event"] == "end"}
    return next((event for event in last.values() if event.get("code") != 0), None)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which process this is, over restarts of everything else. `started`: clock ticks since boot, empty without /proc."""

    host: str
    boot: str
    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """The identity of a process of this machine; None when there is none (a zombie is none)."""
        boot = Path("/proc/sys/kernel/random/boot_id")
        if not boot.exists():
            return cls(socket.gethostname(), "", pid, "") if pid == os.getpid() else None
        status = _stat(pid)
        if status is None or status[0] in "ZX":
            return None
        return cls(socket.gethostname(), boot.read_text().strip(), pid, status[19])


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third on: state, ppid, pgrp, session, ..., start time is at 19 (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def processes() -> Iterator[int]:
    """Pids of this machine; none without /proc."""
    with contextlib.suppress(FileNotFoundError):
        yield from (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def descendants() -> list[int]:
    """Every living process below this one, and of its session. A subreaper's orphans are its children, so none gets away."""
    me, session = os.getpid(), os.getsid(0)
    parents: dict[int, int] = {}
    ours: set[int] = set()
    for pid in processes():
        status = _stat(pid)
        if pid != me and status is not None and status[0] not in "ZX":
            parents[pid] = int(status[1])
            if int(status[3]) == session:
                ours.add(pid)
    grown = True
    while grown:
        grown = False
        for pid, parent in parents.items():
            if pid not in ours and (parent == me or parent in ours):
                ours.add(pid)
                grown = True
    return sorted(ours)


class Log:
    """What the steps print, in at most about `limit` bytes: the first half as it came and the last part; between them is a gap.

    Files of a fixed size, named after the offset of their first byte in all that was printed. A reader that knows an offset finds its file,
    or sees by the next name how much is gone.
    """

    PARTS = 8

    def __init__(self, folder: Path, limit: int) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._size = max(limit // self.PARTS, 1)
        self._offset = 0
        self._tail: list[Path] = []
        self._descriptor = -1
        self.error = ""
        """Why the log has an end before the run has, as a full disk."""

    def write(self, data: bytes) -> None:
        """Keep the bytes, or note why not: a run does not fail for its log."""
        view = memoryview(data)
        while view and not self.error:
            room = self._size - self._offset % self._size
            try:
                if room == self._size:
                    self._next()
                written = os.write(self._descriptor, view[:room])
            except OSError as error:
                self.error = f"the log ends early: {error.strerror}"
                return
            self._offset += written
            view = view[written:]

    def _next(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        path = self._folder / f"{self._offset:020d}"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        if self._offset >= self._size * (self.PARTS // 2):
            self._tail.append(path)
            if len(self._tail) > self.PARTS // 2:
                self._tail.pop(0).unlink(missing_ok=True)


class Driver:
    """Runs the worker of a claimed run to its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        options = json.loads((folder / SUBMISSION).read_text(encoding="utf-8"))["options"]
        self._python: str = options["python"]
        self._grace: float = options["grace"]
        self._installs = options["packages"] == "install"
        self._log = Log(folder / LOG, options["max_log_bytes"])
        self._stop_at: float | None = None
        self._terminated = False
        self._worker = 0
        self._code: int | None = None

    def run(self) -> None:
        """From the start of the worker to `result.json`."""
        if (self._folder / CANCEL).exists():
            self._finish("stopped", "stopped before it started")
            return
        _become_subreaper()
        wake, notify = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(notify, False)
        signal.set_wakeup_fd(notify, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_terminate)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.mkfifo(self._folder / FIFO, 0o600)
        source = os.open(self._folder / FIFO, os.O_RDONLY | os.O_NONBLOCK)
        sink = os.open(self._folder / FIFO, os.O_WRONLY)  # kept open: the steps come and go, the pipe has no end until all are gone
        self._worker = os.posix_spawn(
            self._python,
            [self._python, "-I", "-u", str(self._folder / WORKER), "pipeline", str(self._folder)],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, sink, 1),
                (os.POSIX_SPAWN_DUP2, sink, 2),
            ],
        )
        while not self._over():
            select.select([source, wake], [], [], 0.25)
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
            self._pump(source)
            self._reap()
            self._stop_when_asked()
        self._kill_all(source)
        self._finish(*self._outcome())

    def _on_terminate(self, *_: object) -> None:
        self._terminated = True

    def _over(self) -> bool:
        """Whether the worker ended, and with it, or after the time they have to stop, its steps."""
        if self._code is None:
            return False
        return self._stop_at is None or time.monotonic() >= self._stop_at or not descendants()

    def _pump(self, source: int) -> bool:
        """Move what was printed into the log, some megabytes at most at a time; whether there may be more."""
        for _ in range(64):
            try:
                data = os.read(source, 65536)
            except BlockingIOError:
                return False
            self._log.write(data)
        return True

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._worker:
                    self._code = os.waitstatus_to_exitcode(status)

    def _stop_when_asked(self) -> None:
        if self._stop_at is None:
            if self._terminated or (self._folder / CANCEL).exists():
                self._stop_at = time.monotonic() + self._grace
                _signal_all(signal.SIGTERM)
        elif time.monotonic() >= self._stop_at:
            _signal_all(signal.SIGKILL)

    def _kill_all(self, source: int) -> None:
        """Kill what the pipeline left behind, read what it still printed. A process that the kernel cannot end in 5 s is given up."""
        deadline = time.monotonic() + 5
        while descendants() and time.monotonic() < deadline:
            _signal_all(signal.SIGKILL)
            select.select([], [], [], 0.005)
            self._reap()
        while self._pump(source) and time.monotonic() < deadline:
            pass

    def _outcome(self) -> tuple[str, str, str]:
        """State, message and failed task."""
        if self._code == 0:
            return "succeeded", self._log.error, ""
        if (self._folder / CANCEL).exists():
            return "stopped", "", ""
        if self._terminated:
            return "failed", "the run was terminated (SIGTERM) by something other than the operator, as a shutdown of the machine", ""
        events = read_events(self._folder)
        step = failed_step(events)
        if step is not None:
            path = str(step.get("path"))
            message = f"step {path}: {step.get('message')}"
            if "ModuleNotFoundError" in message and not self._installs:
                message += (
                    f" (packages: preinstalled installs nothing: have it in {self._python}, or set packages: install in the Provider)"
                )
            return "failed", message, path
        errors = [str(event.get("message")) for event in events if event["event"] == "error"]
        if errors:
            inner = re.search(r"Inner task failed: '([^']+)'", errors[-1])
            return "failed", errors[-1], inner.group(1) if inner else ""
        return "failed", f"the process that ran the pipeline {describe_exit(self._code or 0)}", ""

    def _finish(self, state: str, message: str, failed_task: str = "") -> None:
        shutil.rmtree(self._folder / TEMPORARY, ignore_errors=True)
        (self._folder / FIFO).unlink(missing_ok=True)  # whoever copies the folder would hang on it
        create_json(self._folder / RESULT, {"state": state, "time": now(), "message": plain(message), "failed_task": failed_task})


def describe_exit(code: int) -> str:
    """How a process ended, for people. A shell tells by 128 + n that its command was killed by signal n."""
    code = 128 - code if code > 128 else code
    if code >= 0:
        return f"exited with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    return f"was killed by signal {name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")


def _signal_all(number: signal.Signals) -> None:
    if not Path("/proc/self/stat").exists():  # no /proc: the group; our own SIGTERM handler ignores the repetition
        if number != signal.SIGKILL:
            os.killpg(0, number)
        return
    for pid in descendants():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _become_subreaper() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _take_lock(folder: Path) -> int | None:
    """The run's lock, held by this process from here to its end; None when another driver has it.

    The operator's look at the lock holds it for an instant: hence a second of patience.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(100):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            time.sleep(0.01)
    os.close(descriptor)
    return None


def main(folder: Path) -> None:
    """Claim the run in `folder` and see it through; do nothing when another process has it."""
    with contextlib.suppress(PermissionError):  # leads a session already
        os.setsid()
    if _take_lock(folder) is None:
        return
    identity = Identity.of(os.getpid())
    if identity is None or not create_json(folder / CLAIM, {"time": now(), "process": asdict(identity)}):
        return
    Driver(folder).run()
    if not Path("/proc/self/stat").exists():
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
