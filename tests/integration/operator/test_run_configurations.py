"""RunConfigurations on real parts: one that trains, one that follows it with what was produced, and what users and faults do to them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kfp_operator.api.run import Run
from kfp_operator.api.run_configuration import RunConfiguration
from kfp_operator.cli.main import app
from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import API_VERSION, NAMES, Bench
from tests.waiting import eventually

MODEL = [{"name": "model", "path": "act:model"}]


@pytest.fixture(scope="module")
def ready(shared: Bench) -> Bench:
    """A bench with Provider and Pipeline, and an operator that runs."""
    shared.prepare()
    return shared


def configuration(
    bench: Bench,
    name: str,
    *,
    mode: str = "succeed",
    parameters: list[dict[str, Any]] | None = None,
    run: dict[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A RunConfiguration of the scenario that reports its model."""
    listed = [{"name": "mode", "value": mode}, *(parameters or [])]
    template = {"pipeline": bench.scenario, "parameters": listed, "artifacts": MODEL} | (run or {})
    return {"apiVersion": API_VERSION, "kind": "RunConfiguration", "metadata": {"name": name}, "spec": {"run": template, **spec}}


def follower(bench: Bench, name: str, upstream: str, *, optional: bool = False, **spec: Any) -> dict[str, Any]:
    """One that follows another, with its model as a parameter."""
    ref = {"name": upstream, "outputArtifact": "model", "optional": optional}
    parameter = {"name": "wait_for", "valueFrom": {"runConfigurationRef": ref}}
    return configuration(bench, name, parameters=[parameter], triggers={"runConfigurations": [upstream]}, **spec)


def get(bench: Bench, name: str) -> RunConfiguration:
    found = bench.document("mlrc", name)
    assert found is not None
    return RunConfiguration.parse(found)


def looked_at(bench: Bench, *names: str) -> None:
    """Wait until the operator has looked at what was applied."""
    for name in names:
        eventually(lambda name=name: _current(get(bench, name)), 20, f"{name} was looked at")  # type: ignore[misc]


def _current(found: RunConfiguration) -> bool:
    return found.status.observed_generation == found.metadata.generation


def start(bench: Bench, name: str, *args: str) -> str:
    """Start a Run by hand; its name."""
    answer = command(bench, "runs", "start", name, *args)
    assert answer.exit_code == 0, answer.output
    return str(answer.stdout.split()[0].partition("/")[2])


def command(bench: Bench, *args: str) -> Any:
    return CliRunner().invoke(app, [*args, "--kubeconfig", str(bench.cluster.kubeconfig), "-n", bench.namespace])


def runs_of(bench: Bench, name: str) -> list[Run]:
    """The Runs of a configuration, oldest first."""
    found = [run for run in bench.runs().values() if run.metadata.labels.get(NAMES.run_configuration) == name]
    return sorted(found, key=lambda run: (run.metadata.creation_timestamp, run.metadata.name))  # type: ignore[arg-type, return-value]


def wait_runs(bench: Bench, name: str, count: int, within: float = 60) -> list[Run]:
    return eventually(lambda: found if len(found := runs_of(bench, name)) >= count else None, within, f"{name} has {count} Runs")


def value(run: Run, parameter: str) -> Any:
    return next(p.value for p in run.spec.parameters if p.name == parameter)


def test_one_that_follows_another_gets_what_it_produced(ready: Bench) -> None:
    bench, space, reader = ready, ready.namespace, Reader(ready.nats.url)
    bench.apply(configuration(bench, "train"), follower(bench, "score", "train"))
    looked_at(bench, "train", "score")
    ready_condition = bench.wait_reason("mlrc", "score", "ArtifactNotFound", says="waits for the first run")
    assert ready_condition["status"] == "False"
    assert not runs_of(bench, "train") + runs_of(bench, "score"), "to create them starts nothing"

    answer = command(bench, "runs", "start", "train", "--wait")
    assert answer.exit_code == 0, answer.output
    [trained] = runs_of(bench, "train")
    [model] = trained.status.artifacts
    [scored] = wait_runs(bench, "score", 1)
    assert value(scored, "wait_for") == model.location
    assert all(p.value_from is None for p in scored.spec.parameters)
    assert scored.metadata.annotations[NAMES.upstream_run] == f"{space}/{trained.metadata.name}"
    scored = bench.wait(scored.metadata.name, "succeeded")

    [told] = reader.completions(f"{space}/{trained.metadata.name}")
    assert (told["runConfigurationName"], told["trigger"]) == (f"{space}/train", {"type": "manual", "source": f"{space}/train"})
    [told] = reader.completions(f"{space}/{scored.metadata.name}")
    assert (told["runConfigurationName"], told["trigger"]) == (f"{space}/score", {"type": "runConfiguration", "source": f"{space}/train"})

    status = eventually(
        lambda: s if (s := get(bench, "score").status).latest_runs.succeeded and not s.active else None, 20, "its end is recorded"
    )
    assert status.latest_runs.succeeded is not None
    assert status.latest_runs.succeeded.provider_id == scored.status.provider_id
    assert [end.uid for end in status.recent_runs] == [scored.metadata.uid]
    assert status.dependencies[0].artifacts[0].location == model.location
    assert status.last_successful_time == scored.status.end_time
    bench.wait_reason("mlrc", "score", "Succeeded")
    listed = bench.cluster.kubectl("get", "mlrc", "score", "-n", space, "-o", "wide").stdout
    assert "scenario" in listed
    assert "Succeeded" in listed
    events = json.loads(bench.cluster.kubectl("get", "events", "-n", space, "-o", "json").stdout)["items"]
    reasons = {e["reason"] for e in events if e["involvedObject"]["name"] == "score"}
    assert {"ArtifactNotFound", "Started"} <= reasons


def test_an_edit_changes_nothing_for_runs_in_flight(ready: Bench) -> None:
    bench = ready
    gate = bench.folder / "edit.gate"
    bench.apply(configuration(bench, "edited", mode="wait", parameters=[{"name": "wait_for", "value": str(gate)}]))
    looked_at(bench, "edited")
    name = start(bench, "edited")
    bench.wait(name, "running")
    bench.patch(
        "mlrc",
        "edited",
        spec={"run": {"artifacts": [{"name": "renamed", "path": "act:model"}], "parameters": [{"name": "mode", "value": "raise"}]}},
    )
    looked_at(bench, "edited")
    gate.touch()
    run = bench.wait(name, "succeeded")
    assert [a.name for a in run.status.artifacts] == ["model"], "as it was when the run was made"
    latest = eventually(lambda: get(bench, "edited").status.latest_runs.succeeded, 20, "its end is recorded")
    assert [a.name for a in latest.artifacts] == ["model"]
    following = bench.wait(start(bench, "edited"), "failed")
    assert [a.name for a in following.spec.artifacts] == ["renamed"]
    failed = eventually(lambda: get(bench, "edited").status.latest_runs.failed, 20, "that end is recorded too")
    assert failed.uid == following.metadata.uid
    assert get(bench, "edited").status.latest_runs.succeeded == latest


def test_suspended_it_lets_pass_what_happens_and_starts_by_hand_only(ready: Bench) -> None:
    bench = ready
    bench.apply(configuration(bench, "source"), follower(bench, "resting", "source", optional=True, suspend=True))
    looked_at(bench, "source", "resting")
    bench.wait(start(bench, "source"), "succeeded")
    entry = eventually(lambda: e if (e := get(bench, "resting").status.triggers[0]).suppressed else None, 20, "it was passed over")
    assert (entry.suppressed, entry.pending) == (1, [])
    bench.patch("mlrc", "resting", spec={"suspend": False})
    looked_at(bench, "resting")
    assert runs_of(bench, "resting") == []
    bench.patch("mlrc", "resting", spec={"suspend": True})
    looked_at(bench, "resting")
    name = start(bench, "resting", "-p", "size=2")
    assert value(bench.wait(name, "succeeded"), "size") == "2"
    assert [run.metadata.name for run in runs_of(bench, "resting")] == [name]


def test_runs_are_kept_as_many_as_the_limits_say_and_the_clock_starts_them(ready: Bench) -> None:
    bench = ready
    schedules = [{"name": "often", "cronExpression": "*/3 * * * * *"}]
    limits = {"successfulRunsHistoryLimit": 1, "concurrencyPolicy": "Forbid"}
    bench.apply(configuration(bench, "clocked", triggers={"schedules": schedules}, **limits))
    ended = eventually(lambda: s if (s := get(bench, "clocked").status).recent_runs[2:] else None, 90, "three of its runs ended")
    assert ended.last_schedule_time is not None
    assert ended.next_schedule_time is not None
    bench.patch("mlrc", "clocked", spec={"suspend": True})
    eventually(lambda: len(runs_of(bench, "clocked")) == 1 and not get(bench, "clocked").status.active, 60, "one is kept")
    status = get(bench, "clocked").status
    assert status.next_schedule_time is None
    assert len(status.recent_runs) >= 3, "what it knows of its runs does not depend on Runs"
    [kept] = runs_of(bench, "clocked")
    assert kept.metadata.uid == status.recent_runs[-1].uid


def test_to_delete_the_one_that_is_followed_starts_nothing_and_is_told(ready: Bench) -> None:
    bench = ready
    bench.apply(configuration(bench, "leaving"), follower(bench, "staying", "leaving", optional=True))
    looked_at(bench, "leaving", "staying")
    bench.wait(start(bench, "leaving"), "succeeded")
    wait_runs(bench, "staying", 1)
    bench.delete("mlrc", "leaving")
    bench.wait_reason("mlrc", "staying", "RunConfigurationNotFound", says="leaving, which does not exist")
    eventually(lambda: not runs_of(bench, "leaving"), 30, "its Runs went with it")
    bench.apply(configuration(bench, "leaving"))
    bench.wait_reason("mlrc", "staying", "Succeeded")
    assert len(runs_of(bench, "staying")) == 1
    bench.wait(start(bench, "leaving"), "succeeded")
    assert len(wait_runs(bench, "staying", 2)) == 2


def test_a_new_version_of_the_pipeline_starts_a_run_of_it_and_its_deletion_none(ready: Bench) -> None:
    bench = ready
    bench.apply(bench.pipeline("versioned"))
    bench.cluster.kubectl("wait", "-n", bench.namespace, "--for=condition=Ready", "mlp/versioned", "--timeout=60s")
    bench.apply(configuration(bench, "follows-versions", run={"pipeline": "versioned"}, triggers={"onChange": ["pipeline"]}))
    looked_at(bench, "follows-versions")
    changed = json.loads(json.dumps(bench.pipeline("versioned")["spec"]["pipelineSpec"]))
    changed["pipelineInfo"]["description"] = "another"
    bench.apply(bench.pipeline("versioned", pipelineSpec=changed))
    [run] = wait_runs(bench, "follows-versions", 1)
    version = get(bench, "follows-versions").status.pipeline_version
    assert run.spec.pipeline == f"versioned:{version}"
    bench.wait(run.metadata.name, "succeeded")
    bench.delete("mlp", "versioned")
    bench.wait_reason("mlrc", "follows-versions", "PipelineNotFound")
    bench.apply(bench.pipeline("versioned"))
    bench.wait_reason("mlrc", "follows-versions", "Succeeded")
    assert len(runs_of(bench, "follows-versions")) == 1


def test_what_an_admission_policy_refuses_is_told_and_started_when_it_may_be(ready: Bench) -> None:
    bench, policy = ready, f"no-runs-{ready.namespace}"
    bench.apply(configuration(bench, "refused"))
    looked_at(bench, "refused")
    resources = {"apiGroups": [NAMES.group], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["runs"]}
    validation = {"expression": "!object.metadata.name.startsWith('refused-')", "message": "no runs today"}
    spec = {"matchConstraints": {"resourceRules": [resources]}, "validations": [validation]}
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": policy}}
    space = {"matchLabels": {"kubernetes.io/metadata.name": bench.namespace}}
    binding = {"policyName": policy, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": space}}
    bench.cluster.apply(
        {"kind": "ValidatingAdmissionPolicy", "spec": spec, **kind}, {"kind": "ValidatingAdmissionPolicyBinding", "spec": binding, **kind}
    )
    try:
        probe = json.dumps(bench.run("refused-probe"))
        attempt = ("create", "--dry-run=server", "-n", bench.namespace, "-f", "-")
        eventually(
            lambda: "no runs today" in bench.cluster.kubectl(*attempt, stdin=probe, check=False).stderr, 30, "the policy is in force"
        )
        name = start(bench, "refused")
        bench.wait_reason("mlrc", "refused", "RunRefused", says="no runs today")
        assert get(bench, "refused").status.triggers[0].pending
    finally:
        for each in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            bench.cluster.kubectl("delete", each, policy)
    bench.wait(name, "succeeded", 90)
    bench.wait_reason("mlrc", "refused", "Succeeded")


def test_the_manifests_of_the_documentation_are_accepted(ready: Bench) -> None:
    text = (Path(__file__).parents[3] / "docs" / "run-configurations.md").read_text()
    [block] = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    manifests = block.replace("namespace: team-a", f"namespace: {ready.namespace}")
    answer = ready.cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=manifests)
    assert answer.stdout.count("(server dry run)") == 2


def test_loops_are_told_on_each_of_them(ready: Bench) -> None:
    bench, space = ready, ready.namespace
    bench.apply(
        configuration(bench, "hen", triggers={"runConfigurations": ["egg"]}),
        configuration(bench, "egg", triggers={"runConfigurations": ["hen"]}),
    )
    for name, other in (("hen", "egg"), ("egg", "hen")):
        bench.wait_reason("mlrc", name, "TriggerLoop", says=f"{space}/{name} starts {space}/{other} starts {space}/{name}")
    refused = bench.cluster.kubectl(
        "apply",
        "-n",
        space,
        "-f",
        "-",
        stdin=json.dumps(configuration(bench, "self", triggers={"runConfigurations": ["self"]})),
        check=False,
    )
    assert "a RunConfiguration cannot be started by itself" in refused.stderr


def test_a_restart_of_an_idle_operator_writes_nothing(bench: Bench) -> None:
    operator = bench.operator(leaderElection={"enabled": False}).start().wait_ready(90)
    bench.prepare()
    bench.apply(configuration(bench, "idle"), follower(bench, "idle-too", "idle"))
    looked_at(bench, "idle", "idle-too")
    bench.wait(start(bench, "idle"), "succeeded")
    [followed] = wait_runs(bench, "idle-too", 1)
    bench.released(bench.wait(followed.metadata.name, "succeeded").metadata.name)
    eventually(lambda: not get(bench, "idle-too").status.active, 20, "all is recorded")
    before = {name: get(bench, name).metadata.resource_version for name in ("idle", "idle-too")}
    assert operator.stop() == 0
    operator.restart().wait_ready(90)
    eventually(lambda: operator.metric("kfp_operator_reconcile_total", kind="RunConfiguration", result="success") >= 2, 20, "it has looked")
    assert {name: get(bench, name).metadata.resource_version for name in before} == before
