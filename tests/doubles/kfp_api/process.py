"""The server as a process of its own, for operators that are one too: started, killed, frozen and controlled by a test."""

import http.client
import json
import sys
from collections import Counter
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from tests.cluster.ports import free_port
from tests.cluster.process import Process, ProcessError
from tests.doubles.kfp_api.outcomes import Outcome

START_WITHIN = 30.0
START_ATTEMPTS = 3
ANSWER_WITHIN = 10.0


class KfpApiProcess:
    """One server process on a port of its own. Use as a context manager.

    Args:
        folder: Receives its log.
        kubeconfig: Of the API server that keeps its Workflows; None: nobody does.
        recorder: `Mlmd.recorder`; empty: what steps write is told by nobody.
        options: Members of `Options`.

    Its rows are in memory: after `kill`, nothing is there but what begins anew. To take the backend away use `pause`, or faults.

    """

    def __init__(self, folder: Path, *, kubeconfig: Path | None = None, recorder: str = "", **options: Any) -> None:
        self._folder = folder
        self._arguments: list[str] = ["--options", json.dumps(options)]
        self._arguments += ["--kubeconfig", str(kubeconfig)] if kubeconfig else []
        self._arguments += ["--recorder", recorder] if recorder else []
        self._port = 0
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """What a Provider has as endpoint."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it and return when it answers."""
        for left in reversed(range(START_ATTEMPTS)):
            self._port = free_port()
            command: list[str | Path] = [sys.executable, "-m", "tests.doubles.kfp_api", "--port", str(self._port), *self._arguments]
            self._process = Process("kfp-api", command, log=self._folder / "kfp-api.log")
            self._process.start()
            try:
                self._process.wait_until(self._answers, START_WITHIN)
            except ProcessError as error:
                self._process.kill()
                if not left or "address already in use" not in str(error):
                    raise
            else:
                return

    def outcome(self, outcome: Outcome, **match: Any) -> None:
        """What becomes of runs that match; the newest rule is asked first."""
        self._command("outcome", outcome=asdict(outcome), **match)

    def fault(self, **fault: Any) -> None:
        """Something that will happen to requests (see `Fault`)."""
        self._command("fault", **fault)

    def clear_faults(self) -> None:
        """Nothing happens to requests any more."""
        self._command("clear_faults")

    def begin(self, run_id: str) -> None:
        """Let a run begin whose outcome is by hand."""
        self._command("start", run_id=run_id)

    def finish(self, run_id: str, phase: str = "Succeeded", *, fails_in: str = "", message: str = "") -> None:
        """Let a run end whose outcome is by hand or which waits."""
        self._command("finish", run_id=run_id, phase=phase, fails_in=fails_in, message=message)

    def requests(self) -> Counter[tuple[str, str]]:
        """How many requests arrived, by method and path pattern."""
        return Counter({(method, path): count for method, path, count in self._command("requests")})

    def runs(self) -> dict[str, dict[str, Any]]:
        """All runs by id, with how many Workflows were made for each (`started`) and their states so far (`history`)."""
        return {row["id"]: row for row in self._command("runs")}

    def workflows(self) -> list[dict[str, Any]]:
        """All Workflows."""
        found: list[dict[str, Any]] = self._command("workflows")
        return found

    def retry(self, run_id: str) -> None:
        """Try a failed run again, as people do in the UI."""
        status, told = self._ask("POST", f"/apis/v2beta1/runs/{run_id}:retry", "")
        if status != HTTPStatus.OK:
            raise ValueError(told)

    def delete_run(self, run_id: str) -> None:
        """Delete a run, as people do in the UI."""
        status, told = self._ask("DELETE", f"/apis/v2beta1/runs/{run_id}", "")
        if status != HTTPStatus.OK:
            raise ValueError(told)

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

    def log_tail(self) -> str:
        """The end of its log."""
        return self._started().log_tail()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _command(self, command: str, **arguments: Any) -> Any:
        status, told = self._ask("POST", f"/test/{command}", json.dumps(arguments))
        if status != HTTPStatus.OK:
            raise ValueError(f"{command}: {told}")
        return json.loads(told)

    def _started(self) -> Process:
        if self._process is None:
            raise ProcessError("the server was never started")
        return self._process

    def _answers(self) -> bool:
        try:
            return self._ask("GET", "/apis/v2beta1/healthz", "")[0] == HTTPStatus.OK
        except OSError:
            return False

    def _ask(self, method: str, path: str, body: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_WITHIN)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()
