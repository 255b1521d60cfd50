import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kfp_operator.cli.exits import ExitCode
from kfp_operator.providers.local import driver
from kfp_operator.providers.protocol import submission_id
from tests.cluster import Cluster
from tests.integration.cli.shell import Shell

API = "kfp-operator.dev/v1beta1"


class Backend:
    """A Provider of type local and one Run, as an operator on this machine would keep them."""

    def __init__(self, cluster: Cluster, namespace: str, state_dir: Path) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.folder = state_dir / "providers" / namespace / "local"
        provider = {"apiVersion": API, "kind": "Provider", "metadata": {"name": "local"}, "spec": {"type": "local"}}
        run = {"apiVersion": API, "kind": "Run", "metadata": {"name": "penguin-1"}, "spec": {"pipeline": "penguin"}}
        cluster.apply(provider, run, namespace=namespace)

    def submit(self, attempt: int = 1) -> driver.Log:
        """The Run is at the backend, submitted for the `attempt`th time; its log."""
        submission = {"submission": attempt, "firstAttempt": attempt}
        status = {"state": "running", "attempt": attempt, "provider": f"{self.namespace}/local", **submission}
        command = ("patch", "mlr", "penguin-1", "-n", self.namespace, "--subresource=status", "--type=merge", "-p")
        self.cluster.kubectl(*command, json.dumps({"status": status}))
        folder = self._run(attempt)
        folder.mkdir(parents=True)
        (folder / driver.SUBMISSION).write_text("{}")
        return driver.Log(folder / driver.LOG, 1 << 20)

    def end(self, attempt: int = 1) -> None:
        """The run has ended."""
        driver.create_json(self._run(attempt) / driver.RESULT, {"state": "succeeded", "time": driver.now()})

    def _run(self, attempt: int) -> Path:
        run = self.cluster.get("mlr", "penguin-1", self.namespace)
        assert run is not None
        return self.folder / "runs" / submission_id(run["metadata"]["uid"], attempt)


@pytest.fixture
def backend(cluster: Cluster, namespace: str, shell: Shell) -> Iterator[Backend]:
    """A backend whose state folder an operator has taken."""
    backend = Backend(cluster, namespace, shell.state_dir)
    backend.folder.mkdir(parents=True)
    with (backend.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield backend


def test_the_log_is_read_beside_the_operator_that_has_the_state_folder(shell: Shell, backend: Backend) -> None:
    backend.submit().write(b"epoch 1\nepoch 2\n")
    result = shell.run("runs", "logs", "penguin-1", "-n", backend.namespace)
    assert (result.exit_code, result.stdout) == (ExitCode.OK, "epoch 1\nepoch 2\n"), result.stderr


def test_following_begins_before_the_start_and_ends_with_the_run(shell: Shell, backend: Backend) -> None:
    with shell.start("runs", "logs", "penguin-1", "-f", "-n", backend.namespace) as logs:
        log = backend.submit()
        log.write(b"epoch 1\n")
        logs.until("epoch 1")
        log.write(b"epoch 2\n")
        logs.until("epoch 2")
        backend.end()
        assert logs.wait() == ExitCode.OK
        assert logs.stdout == ["epoch 1", "epoch 2"]


def test_an_earlier_attempt_can_be_read(shell: Shell, backend: Backend) -> None:
    backend.submit(1).write(b"first\n")
    backend.submit(2).write(b"second\n")
    command = ("runs", "logs", "penguin-1", "-n", backend.namespace)
    assert shell.run(*command).stdout == "second\n"
    assert shell.run(*command, "--attempt", 1).stdout == "first\n"
    result = shell.run(*command, "--attempt", 3)
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "has no attempt 3: the last one is 2" in result.stderr


def test_a_run_that_has_not_started_says_so(shell: Shell, backend: Backend) -> None:
    result = shell.run("runs", "logs", "penguin-1", "-n", backend.namespace)
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "has not started" in result.stderr
    assert "-f waits for it" in result.stderr


def test_a_log_on_another_machine_is_told_from_one_that_is_missing(shell: Shell, backend: Backend, tmp_path: Path) -> None:
    backend.submit().write(b"x\n")
    result = shell.run("runs", "logs", "penguin-1", "-n", backend.namespace, "--state-dir", tmp_path / "elsewhere")
    assert result.exit_code == ExitCode.FAILED
    assert "on the machine of their operator" in result.stderr
    assert str(tmp_path / "elsewhere") in result.stderr
    assert not (tmp_path / "elsewhere").exists()
