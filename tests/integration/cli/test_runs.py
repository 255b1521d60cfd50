import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kfp_operator.cli.exits import ExitCode
from tests.cluster import Cluster, ControlPlane, free_port
from tests.integration.cli.shell import Shell
from tests.waiting import eventually

Project = Callable[..., None]


@pytest.fixture
def project(cluster: Cluster, namespace: str) -> Project:
    """Writes the status of a Run, as the operator's projector does."""
    history: dict[str, list[dict[str, Any]]] = {}

    def write(name: str, state: str, *, reason: str = "", **status: Any) -> None:
        entries = history.setdefault(name, [])
        entries.append({"state": state, "time": f"2026-03-01T12:00:{len(entries):02}.000000Z", "attempt": 1})
        ended = state in ("succeeded", "failed", "stopped")
        succeeded = "True" if state == "succeeded" else "False" if ended else "Unknown"
        conditions = [condition("Completed", str(ended), reason), condition("Succeeded", succeeded, reason)]
        body = {"status": {"state": state, "attempt": 1, "history": entries, "conditions": conditions, **status}}
        cluster.kubectl("patch", "mlr", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", json.dumps(body))

    return write


def condition(type_: str, status: str, reason: str = "", message: str = "") -> dict[str, Any]:
    time = "2026-03-01T12:00:00Z"
    return {"type": type_, "status": status, "reason": reason or "Reason", "message": message, "lastTransitionTime": time}


def create(cluster: Cluster, namespace: str, name: str, **spec: Any) -> None:
    api_version = "kfp-operator.dev/v1beta1"
    body = {"apiVersion": api_version, "kind": "Run", "metadata": {"name": name}, "spec": {"pipeline": "penguin", **spec}}
    cluster.apply(body, namespace=namespace)


def test_create_makes_the_run_that_the_flags_describe(shell: Shell, cluster: Cluster, namespace: str) -> None:
    result = shell.run(
        *("runs", "create", "penguin-1", "-n", namespace, "--pipeline", "penguin:49e208", "--provider", "mlops/local"),
        *("-p", "epochs=3", "-p", "layers=[1, 2]", "--parameter", "name=a=b", "--artifact", "model=push:model:0[pushed == 1]"),
    )
    assert (result.exit_code, result.stdout, result.stderr) == (0, "run.kfp-operator.dev/penguin-1 created\n", "")
    run = cluster.get("mlr", "penguin-1", namespace)
    assert run is not None
    assert run["spec"] == {
        "pipeline": "penguin:49e208",
        "provider": "mlops/local",
        "parameters": [
            {"name": "epochs", "value": "3"},
            {"name": "layers", "value": "[1, 2]"},
            {"name": "name", "value": "a=b"},
        ],
        "artifacts": [{"name": "model", "path": "push:model:0[pushed == 1]"}],
        "deletionPolicy": "Cancel",
        "retries": 0,
        "cancel": False,
    }


def test_create_tells_the_name_that_the_api_server_chose(shell: Shell, cluster: Cluster, namespace: str) -> None:
    result = shell.run("runs", "create", "--generate-name", "penguin-", "--pipeline", "penguin", "-n", namespace)
    assert result.exit_code == 0
    name = result.stdout.removeprefix("run.kfp-operator.dev/").removesuffix(" created\n")
    assert name.startswith("penguin-")
    assert cluster.get("mlr", name, namespace) is not None


def test_the_manifest_of_a_dry_run_makes_the_same_run(shell: Shell, cluster: Cluster, namespace: str) -> None:
    flags = ("--pipeline", "penguin", "-p", "epochs=3", "-n", namespace)
    manifest = shell.run("runs", "create", "by-manifest", *flags, "--dry-run").stdout
    assert cluster.get("mlr", "by-manifest", namespace) is None
    cluster.kubectl("apply", "-f", "-", stdin=manifest)
    shell.run("runs", "create", "by-flags", *flags)
    one, other = cluster.get("mlr", "by-manifest", namespace), cluster.get("mlr", "by-flags", namespace)
    assert one is not None
    assert other is not None
    assert one["spec"] == other["spec"]


def test_a_run_that_the_api_server_refuses_is_explained(shell: Shell, namespace: str) -> None:
    result = shell.run("runs", "create", "penguin-1", "--pipeline", "Not A Name", "-n", namespace)
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "spec.pipeline" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_second_run_of_the_same_name_is_refused(shell: Shell, cluster: Cluster, namespace: str) -> None:
    create(cluster, namespace, "penguin-1")
    result = shell.run("runs", "create", "penguin-1", "--pipeline", "penguin", "-n", namespace)
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "already exists" in result.stderr


def test_the_namespace_is_that_of_the_context_unless_another_is_named(
    shell: Shell, cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    document["contexts"][0]["context"]["namespace"] = namespace
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(document))
    result = shell.run("runs", "create", "penguin-1", "--pipeline", "penguin", "--kubeconfig", kubeconfig)
    assert result.exit_code == 0
    assert cluster.get("mlr", "penguin-1", namespace) is not None


def test_wait_tells_each_state_and_ends_with_the_run(shell: Shell, cluster: Cluster, namespace: str, project: Project) -> None:
    create(cluster, namespace, "penguin-1")
    with shell.start("runs", "wait", "penguin-1", "-n", namespace) as wait:
        wait.until("waiting")
        project("penguin-1", "queued")
        assert wait.until("queued").startswith("12:00:00  queued")
        project("penguin-1", "running")
        assert wait.until("running").startswith("12:00:01  running")
        project("penguin-1", "succeeded", artifacts=[{"name": "model", "location": "file:///model"}])
        wait.until(f"Run {namespace}/penguin-1 succeeded")
        assert wait.wait() == ExitCode.OK
        assert wait.stdout[-1] == "  artifact model: file:///model"
        assert not wait.stderr


def test_wait_says_for_what_a_run_waits(shell: Shell, cluster: Cluster, namespace: str) -> None:
    create(cluster, namespace, "penguin-1")
    with shell.start("runs", "wait", "penguin-1", "-n", namespace) as wait:
        wait.until("waiting")
        body = {"status": {"conditions": [condition("Ready", "False", "PipelineMissing", "Pipeline penguin does not exist")]}}
        cluster.kubectl("patch", "mlr", "penguin-1", "-n", namespace, "--subresource=status", "--type=merge", "-p", json.dumps(body))
        wait.until("Pipeline penguin does not exist")


def test_wait_for_a_run_that_failed_says_why_and_exits_1(shell: Shell, cluster: Cluster, namespace: str, project: Project) -> None:
    create(cluster, namespace, "penguin-1")
    project("penguin-1", "failed", message="step train raised ValueError", failedTask="train")
    result = shell.run("runs", "wait", "penguin-1", "-n", namespace)
    assert result.exit_code == ExitCode.FAILED
    assert "step train raised ValueError" in result.stdout
    assert "failed task: train" in result.stdout


def test_wait_gives_up_after_its_timeout_and_the_run_goes_on(shell: Shell, cluster: Cluster, namespace: str, project: Project) -> None:
    create(cluster, namespace, "penguin-1")
    project("penguin-1", "running")
    result = shell.run("runs", "wait", "penguin-1", "-n", namespace, "--timeout", "1s")
    assert result.exit_code == ExitCode.TIMEOUT
    assert f"Run {namespace}/penguin-1 is still running after 1 s" in result.stdout


def test_wait_for_an_unknown_run_is_an_error_that_names_it(shell: Shell, namespace: str) -> None:
    result = shell.run("runs", "wait", "nobody", "-n", namespace)
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert f"{namespace}/nobody" in result.stderr
    assert "not found" in result.stderr


def test_wait_ends_when_the_run_is_deleted(shell: Shell, cluster: Cluster, namespace: str) -> None:
    create(cluster, namespace, "penguin-1")
    with shell.start("runs", "wait", "penguin-1", "-n", namespace) as wait:
        wait.until("waiting")
        cluster.kubectl("delete", "mlr", "penguin-1", "-n", namespace)
        wait.until("was deleted before its end")
        assert wait.wait() == ExitCode.FAILED


def test_wait_outlives_a_restart_of_the_api_server(shell: Shell, control_plane: ControlPlane, namespace: str, project: Project) -> None:
    create(control_plane, namespace, "penguin-1")
    with shell.start("runs", "wait", "penguin-1", "-n", namespace) as wait:
        wait.until("waiting")
        control_plane.stop_apiserver()
        wait.until("no answer")
        control_plane.start_apiserver()
        project("penguin-1", "running")
        project("penguin-1", "succeeded")
        wait.until("succeeded")
        assert wait.wait() == ExitCode.OK
        assert not wait.stderr


def test_ctrl_c_ends_a_wait_with_130_and_without_a_trace(shell: Shell, cluster: Cluster, namespace: str) -> None:
    create(cluster, namespace, "penguin-1")
    with shell.start("runs", "wait", "penguin-1", "-n", namespace) as wait:
        wait.until("waiting")
        wait.interrupt()
        assert wait.wait() == ExitCode.INTERRUPTED
        assert not wait.stderr


def test_create_can_wait_at_once(shell: Shell, cluster: Cluster, namespace: str, project: Project) -> None:
    with shell.start("runs", "create", "penguin-1", "--pipeline", "penguin", "-n", namespace, "--wait") as wait:
        wait.until("created")
        project("penguin-1", "stopped")
        wait.until("stopped")
        assert wait.wait() == ExitCode.FAILED


def test_cancel_sets_the_field_and_says_when_there_is_nothing_to_do(
    shell: Shell, cluster: Cluster, namespace: str, project: Project
) -> None:
    create(cluster, namespace, "penguin-1")
    command = ("runs", "cancel", "penguin-1", "-n", namespace)
    assert shell.run(*command).stdout == "run.kfp-operator.dev/penguin-1 cancelled\n"
    run = cluster.get("mlr", "penguin-1", namespace)
    assert run is not None
    assert run["spec"]["cancel"] is True
    assert "being cancelled already" in shell.run(*command).stdout
    project("penguin-1", "stopped")
    assert "has ended before: stopped" in shell.run(*command).stdout


def test_cancel_of_an_unknown_run_is_an_error(shell: Shell, namespace: str) -> None:
    assert shell.run("runs", "cancel", "nobody", "-n", namespace).exit_code == ExitCode.UNAVAILABLE


def test_an_absent_cluster_is_one_line_with_its_address(shell: Shell, cluster: Cluster, tmp_path: Path) -> None:
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    address = f"https://127.0.0.1:{free_port()}"
    document["clusters"][0]["cluster"]["server"] = address
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(document))
    result = shell.run("runs", "wait", "penguin-1", "--kubeconfig", kubeconfig)
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert address in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_kubeconfig_that_is_not_there_is_wrong_usage(shell: Shell, tmp_path: Path) -> None:
    result = shell.run("runs", "cancel", "penguin-1", "--kubeconfig", tmp_path / "none")
    assert result.exit_code == ExitCode.USAGE
    assert "--kubeconfig" in result.stderr


def complete(shell: Shell, line: str) -> list[str]:
    environment = {"_KFP_OPERATOR_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    code = "from kfp_operator.cli.main import main; main()"
    return shell.run_python(code, env=environment).stdout.split()


def test_names_of_runs_are_completed_from_the_cluster(shell: Shell, cluster: Cluster, namespace: str) -> None:
    create(cluster, namespace, "penguin-1")
    create(cluster, namespace, "penguin-2")
    create(cluster, namespace, "other")
    names = eventually(lambda: complete(shell, f"kfp-operator runs wait -n {namespace} pen"), 20, "the cluster answers within a second")
    assert names == ["penguin-1", "penguin-2"]


def test_completion_without_a_cluster_says_nothing(shell: Shell, tmp_path: Path) -> None:
    assert complete(shell, f"kfp-operator runs wait --kubeconfig {tmp_path / 'none'} pen") == []


def test_rerun_makes_a_run_of_the_old_ones_spec_with_the_values_it_got(shell: Shell, cluster: Cluster, namespace: str) -> None:
    model = {"name": "model", "valueFrom": {"runConfigurationRef": {"name": "base", "outputArtifact": "model"}}}
    create(cluster, namespace, "penguin-1", retries=2, cancel=True, parameters=[{"name": "epochs", "value": {"a": [1]}}, model])
    resolved = {"status": {"resolved": [{"name": "model", "value": "/models/1"}], "pipelineVersion": "49e208"}}
    cluster.kubectl("patch", "mlr", "penguin-1", "-n", namespace, "--subresource=status", "--type=merge", "-p", json.dumps(resolved))
    for name in ("penguin-1-r1", "penguin-1-r2"):
        result = shell.run("runs", "rerun", "penguin-1", "-n", namespace)
        assert (result.exit_code, result.stdout, result.stderr) == (0, f"run.kfp-operator.dev/{name} created\n", "")
    again = cluster.get("mlr", "penguin-1-r2", namespace)
    assert again is not None
    assert again["metadata"]["labels"] == {"kfp-operator.dev/rerun-of": "penguin-1"}
    assert again["spec"] == {
        "pipeline": "penguin",
        "retries": 2,
        "parameters": [{"name": "epochs", "value": {"a": [1]}}, {"name": "model", "value": "/models/1"}],
        "deletionPolicy": "Cancel",
        "cancel": False,
    }
    pinned = shell.run("runs", "rerun", "penguin-1-r2", "--name", "pinned", "--resolve-again", "-n", namespace)
    assert pinned.stdout == "run.kfp-operator.dev/pinned created\n"
    exact = yaml.safe_load(shell.run("runs", "rerun", "penguin-1", "--same-version", "--dry-run", "-n", namespace).stdout)
    assert (exact["metadata"]["name"], exact["spec"]["pipeline"]) == ("penguin-1-r1", "penguin:49e208")
    assert shell.run("runs", "rerun", "nobody", "-n", namespace).exit_code == ExitCode.UNAVAILABLE


def test_rerun_waits_for_the_new_run(shell: Shell, cluster: Cluster, namespace: str, project: Project) -> None:
    create(cluster, namespace, "penguin-1")
    with shell.start("runs", "rerun", "penguin-1", "--wait", "-n", namespace) as running:
        running.until("penguin-1-r1 created")
        project("penguin-1-r1", "failed", reason="Failed")
        assert running.wait() == ExitCode.FAILED
