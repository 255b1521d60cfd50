"""MLMD as a process: started on free ports, gone with whoever started it."""

import http.client
import json
import subprocess
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import pytest

from tests.cluster.folders import ScratchFolder
from tests.cluster.ports import free_port
from tests.cluster.process import Process, ProcessError, bound_to_this_process
from tests.doubles.mlmd.environment import EngineUnavailable, environment
from tests.doubles.mlmd.recording import WrittenRun

SERVER = Path(__file__).with_name("server.py")
READER = Path(__file__).with_name("reading.py")
START_WITHIN = 30.0
START_ATTEMPTS = 3
ANSWER_WITHIN = 10.0


class Mlmd:
    """One metadata store, in memory. Use as a context manager."""

    def __init__(self) -> None:
        self._scratch: ScratchFolder | None = None
        self._process: Process | None = None
        self._ports = (0, 0)

    @property
    def address(self) -> str:
        """host:port of its gRPC service."""
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def recorder(self) -> str:
        """URL to which runs are posted as JSON."""
        return f"http://127.0.0.1:{self._ports[1]}/record"

    def record(self, run: WrittenRun) -> None:
        """Write what the launcher writes."""
        status, told = self._ask("POST", json.dumps(asdict(run)))
        if status != HTTPStatus.OK:
            raise ValueError(f"the run cannot be recorded: {told}")

    def read(self, run_id: str) -> list[dict[str, Any]]:
        """The outputs of a run's executions, as Google's own client reads them over gRPC."""
        host, _, port = self.address.partition(":")
        command = [str(environment()), str(READER), host, port, run_id]
        done = subprocess.run(bound_to_this_process(command), capture_output=True, text=True, timeout=START_WITHIN, check=False)
        if done.returncode:
            raise ProcessError(f"reading run {run_id} failed: {done.stderr}")
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def start(self) -> None:
        """Start it and return when it answers; skips the test where it cannot be had."""
        try:
            python = environment()
        except EngineUnavailable as error:
            pytest.skip(str(error))
        self._scratch = self._scratch or ScratchFolder()
        for left in reversed(range(START_ATTEMPTS)):
            self._ports = (free_port(), free_port())
            command: list[str | Path] = [python, SERVER, *map(str, self._ports)]
            self._process = Process("mlmd", command, log=self._scratch.path / "mlmd.log")
            self._process.start()
            try:
                self._process.wait_until(self._answers, START_WITHIN)
            except ProcessError:
                self._process.kill()
                if not left:
                    raise
            else:
                return

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing answers."""
        self._started().pause()

    def resume(self) -> None:
        """Let it go on."""
        self._started().resume()

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
        if self._scratch is not None:
            self._scratch.remove()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> Process:
        if self._process is None:
            raise ProcessError("ML Metadata was never started")
        return self._process

    def _answers(self) -> bool:
        try:
            return self._ask("GET", "")[0] == HTTPStatus.OK
        except OSError:
            return False

    def _ask(self, method: str, body: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._ports[1], timeout=ANSWER_WITHIN)
        try:
            connection.request(method, "/record", body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()
