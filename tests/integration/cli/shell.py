"""Calls the command line as people do, in an environment of its own."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from typer.testing import CliRunner, Result

from kfp_operator.cli.main import app


class Shell:
    """An environment in which ``kfp-operator`` is called."""

    def __init__(self, folder: Path, **environment: str) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("KFPOP_", "KUBE"))}
        self.state_dir = folder / "state"
        self.environment: dict[str, str] = {
            **kept,
            "HOME": str(folder),
            "COLUMNS": "200",
            "NO_COLOR": "1",
            "TZ": "UTC",
            "KFPOP_STATE_DIR": str(self.state_dir),
            **environment,
        }

    def run(self, *args: object, env: Mapping[str, str] | None = None) -> Result:
        """Call a command and wait for its end; in this process, which spares a second of imports."""
        environment: dict[str, str | None] = dict.fromkeys(key for key in os.environ if key.startswith(("KFPOP_", "KUBE")))
        environment |= {**self.environment, **(env or {})}
        result = CliRunner().invoke(app, [str(arg) for arg in args], env=environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def run_python(self, code: str, *, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run Python code in this environment."""
        command = [sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, env={**self.environment, **env}, check=False)

    def start(self, *args: object) -> "Running":
        """Call a command in a process of its own and go on."""
        return Running(_command(args), self.environment)


class Running:
    """A command that goes on; killed at the end of the ``with`` block."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(environment)
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, args=(stream, kept), daemon=True)
            for stream, kept in ((self._process.stdout, self.stdout), (self._process.stderr, self.stderr))
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: IO[str], kept: list[str]) -> None:
        for line in stream:
            kept.append(line.rstrip("\n"))
            self._lines.put(line.rstrip("\n"))

    def until(self, text: str, within: float = 20) -> str:
        """The next line of either output that holds the text."""
        deadline = time.monotonic() + within
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{text!r} was not printed within {within} s: {self.stdout + self.stderr}") from None
            if text in line:
                return line

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def wait(self, within: float = 20) -> int:
        """The exit code."""
        code = self._process.wait(within)
        for thread in self._threads:
            thread.join(5)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


def _command(args: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "kfp_operator", *map(str, args)]
