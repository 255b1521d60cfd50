"""Edits and deletions at any time: Runs keep what they were bound to, all ends are told, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from kfp_operator.api import hashing
from kfp_operator.api.run import Run
from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import NAMES, SCENARIO, Bench, end_runs, processes
from tests.integration.operator.together import scenario
from tests.integration.operator.verdict import all_ended_well, ended_well
from tests.waiting import eventually

SPEC: dict[str, Any] = SCENARIO["spec"]["pipelineSpec"]


def described(text: str) -> dict[str, Any]:
    """The scenario under another description: another version."""
    return SPEC | {"pipelineInfo": SPEC["pipelineInfo"] | {"description": text}}


def version(text: str) -> str:
    return hashing.inline_version({"pipelineSpec": described(text)})


def prepare(bench: Bench) -> None:
    """A Provider with a slot for everyone, and a Pipeline on it."""
    bench.prepare(maxActiveRuns=8)


def lane(bench: Bench, name: str, **provider: Any) -> None:
    """A Provider of this name, and a Pipeline of the same on it."""
    bench.apply(bench.provider(name, **provider), bench.pipeline(name, provider=f"{bench.namespace}/{name}"))


class Gate:
    """A file that steps of mode "wait" wait for."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.path = bench.folder / f"gate-{name}"
        self.parameters = {"wait_for": str(self.path)}

    def open(self) -> None:
        self.path.touch()


def gated(bench: Bench, name: str, gate: Gate, **spec: Any) -> dict[str, Any]:
    """A Run that waits at the gate."""
    return bench.run(name, "wait", parameters=gate.parameters, **spec)


def revisions(bench: Bench, pipeline: str) -> set[str]:
    """Versions of the Pipeline that are kept."""
    selector = f"{NAMES.pipeline}={pipeline}"
    listed = json.loads(bench.cluster.kubectl("get", "controllerrevisions", "-n", bench.namespace, "-l", selector, "-o", "json").stdout)
    return {item["data"]["version"] for item in listed["items"]}


def shown_version(bench: Bench, pipeline: str) -> str:
    """The version that new Runs of the Pipeline get."""
    found = bench.document("mlp", pipeline) or {}
    return str(found.get("status", {}).get("version", ""))


def run_folder(bench: Bench, run: Run, provider: str = "local") -> Path:
    return bench.operators[0].folder / "state" / "providers" / bench.namespace / provider / "runs" / run.status.provider_id


def present(bench: Bench, name: str) -> Run:
    run = bench.get(name)
    assert run is not None
    return run


def states(bench: Bench, uid: str) -> list[str]:
    return Reader(bench.nats.url).states(uid)


def completions(bench: Bench, uid: str) -> list[dict[str, Any]]:
    return [d for d in Reader(bench.nats.url).completions() if d["runUid"] == uid]


# Pipelines


@scenario
def test_runs_keep_their_version_while_their_pipeline_is_edited_and_old_versions_stay_as_long_as_they_are_used(bench: Bench) -> None:
    gate = Gate(bench, "edited")
    lane(bench, "edited", maxActiveRuns=1)

    def edit(text: str) -> None:
        place = f"{bench.namespace}/edited"
        bench.apply(bench.pipeline("edited", provider=place, pipelineSpec=described(text), revisionHistoryLimit=0))
        eventually(lambda: shown_version(bench, "edited") == version(text), 20, f"{text} is ready")

    edit("first")
    bench.apply(gated(bench, "on-first", gate, pipeline="edited"))
    bench.wait("on-first", "running")
    bench.apply(gated(bench, "queued-first", gate, pipeline="edited"))
    bench.wait("queued-first", "queued")
    edit("second")
    bench.apply(gated(bench, "queued-second", gate, pipeline="edited"))
    bench.wait("queued-second", "queued")
    edit("third")
    assert revisions(bench, "edited") == {version("first"), version("second"), version("third")}, "all are in use, or present"
    gate.open()
    ended = all_ended_well(bench, dict.fromkeys(("on-first", "queued-first", "queued-second"), "succeeded"), quiet=False)
    for name, (run, told) in ended.items():
        wanted = version(name.partition("-")[2])
        assert (run.status.pipeline_version, told["pipelineVersion"]) == (wanted, wanted)
        assert wanted in run.metadata.labels.values()
    eventually(lambda: revisions(bench, "edited") == {version("third")}, 10, "versions that nothing uses are pruned")


@pytest.mark.usefixtures("controller_manager")
@scenario
def test_a_pipeline_deleted_and_applied_anew_at_once_keeps_its_version(bench: Bench) -> None:
    for _ in range(3):
        bench.apply(bench.pipeline("anew"))
        bench.wait_reason("mlp", "anew", "Succeeded")
        bench.delete("mlp", "anew")
    bench.apply(bench.pipeline("anew"), bench.run("anew", pipeline="anew"))
    ended_well(bench, "anew", "succeeded", quiet=False)
    (kept,) = revisions(bench, "anew")
    assert shown_version(bench, "anew") == kept


# Runs that are deleted


def replaced(bench: Bench, name: str, old: Run) -> None:
    """Apply a Run of the same name as soon as the old one is gone: it comes to a good end of its own."""
    bench.gone("mlr", name)
    bench.apply(bench.run(name))
    run, _ = ended_well(bench, name, "succeeded", quiet=False)
    assert run.metadata.uid != old.metadata.uid


@scenario
def test_a_run_deleted_while_it_waits_vanishes_without_an_event(bench: Bench) -> None:
    bench.apply(bench.run("impatient", pipeline="never"))
    bench.wait_reason("mlr", "impatient", "PipelineNotFound")
    old = present(bench, "impatient")
    bench.delete("mlr", "impatient")
    replaced(bench, "impatient", old)
    assert not states(bench, old.metadata.uid)
    assert not completions(bench, old.metadata.uid)


@scenario
def test_a_run_deleted_as_it_ends_is_told_as_succeeded(bench: Bench) -> None:
    gate = Gate(bench, "finishing")
    bench.apply(gated(bench, "finishing", gate))
    old = bench.wait("finishing", "running")
    result = run_folder(bench, old) / "result.json"
    gate.open()
    eventually(result.exists, 20, "the run ends")
    bench.delete("mlr", "finishing")
    replaced(bench, "finishing", old)
    (told,) = completions(bench, old.metadata.uid)
    assert told["state"] == "succeeded"
    assert states(bench, old.metadata.uid)[-1] == "succeeded"


@scenario
def test_force_release_ends_the_wait_for_a_backend_that_does_not_stop(bench: Bench) -> None:
    lane(bench, "stubborn", parameters={"terminationGracePeriodSeconds": 600})
    bench.apply(bench.run("stuck", "hang", pipeline="stubborn"))
    run = bench.wait("stuck", "running")
    folder = run_folder(bench, run, "stubborn")
    for pid in processes(folder):
        os.kill(pid, signal.SIGSTOP)
    bench.delete("mlr", "stuck")
    bench.wait_reason("mlr", "stuck", "Deleting")
    bench.delete("mlprv", "stubborn")
    said = bench.wait_reason("mlprv", "stubborn", "Deleting")["message"]
    assert f"still used by Run {bench.namespace}/stuck" in said
    bench.patch("mlr", "stuck", metadata={"annotations": {NAMES.force_release: "true"}})
    bench.gone("mlr", "stuck", within=15)
    bench.gone("mlprv", "stubborn", within=15)
    warned = bench.cluster.kubectl("get", "events", "-n", bench.namespace, "--field-selector", "involvedObject.name=stuck").stdout
    assert "its end at the backend was not waited for" in warned
    assert not completions(bench, run.metadata.uid)
    end_runs(folder)


@scenario
def test_the_command_line_cancels_a_run(bench: Bench) -> None:
    bench.apply(bench.run("called-off", "hang"))
    bench.wait("called-off", "running")
    command = [sys.executable, "-m", "kfp_operator", "runs", "cancel", "called-off", "--namespace", bench.namespace]
    done = subprocess.run([*command, "--kubeconfig", str(bench.cluster.kubeconfig)], capture_output=True, text=True, timeout=30, check=True)
    assert "called-off cancelled" in done.stdout
    _, told = ended_well(bench, "called-off", "stopped", quiet=False)
    assert told["message"] == "stopped by spec.cancel"


@scenario
def test_names_with_dots_and_of_the_greatest_length_go_all_the_way(bench: Bench) -> None:
    name = ".".join(["v1-2", "x" * 60, "y" * 63, "z" * 63, "w" * 59])
    assert len(name) == 253
    bench.apply(bench.pipeline(name), bench.run(name, pipeline=name))
    _, told = ended_well(bench, name, "succeeded", quiet=False)
    assert (told["runName"], told["pipelineName"]) == (f"{bench.namespace}/{name}", f"{bench.namespace}/{name}")


# Runs that have ended


@scenario
def test_a_settled_run_is_deleted_when_its_time_to_live_is_over(bench: Bench) -> None:
    refused = {"parameters": {"nonsense": 1}}
    bench.apply(bench.run("short-lived", ttlSecondsAfterFinished=1, **refused), bench.run("later-short-lived", **refused))
    bench.gone("mlr", "short-lived")
    assert [d["state"] for d in Reader(bench.nats.url).completions(f"{bench.namespace}/short-lived")] == ["failed"]
    ended_well(bench, "later-short-lived", "failed", quiet=False)
    bench.patch("mlr", "later-short-lived", spec={"ttlSecondsAfterFinished": 0})
    bench.gone("mlr", "later-short-lived")


@scenario
def test_a_run_restored_from_backup_is_never_executed_again(bench: Bench) -> None:
    bench.apply(bench.run("kept"))
    old, _ = ended_well(bench, "kept", "succeeded", quiet=False)
    backup = yaml.safe_load(bench.cluster.kubectl("get", "mlr", "kept", "-n", bench.namespace, "-o", "yaml").stdout)
    bench.delete("mlr", "kept")
    bench.gone("mlr", "kept")
    del backup["status"]
    for member in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
        backup["metadata"].pop(member, None)
    bench.apply(backup)
    bench.wait_reason("mlr", "kept", "Restored")
    run = present(bench, "kept")
    shown = bench.conditions("mlr", "kept")
    assert (shown["Completed"]["status"], shown["Succeeded"]["status"]) == ("True", "True")
    assert f"{NAMES.completed}=succeeded" in shown["Completed"]["message"]
    assert "runs rerun" in shown["Completed"]["message"]
    assert run.metadata.uid != old.metadata.uid
    assert run.status.state == "succeeded"
    assert not run.metadata.finalizers
    bench.patch("mlr", "kept", metadata={"annotations": {"touched": "yes"}})
    touched = present(bench, "kept")
    bench.apply(bench.run("after", parameters={"nonsense": 1}))  # when this has come to its end, that had its turn too
    ended_well(bench, "after", "failed", quiet=False)
    assert present(bench, "kept") == touched
    assert not states(bench, run.metadata.uid)
    assert not completions(bench, run.metadata.uid)


# Providers


@scenario
def test_a_provider_edited_under_its_runs_keeps_them_and_gives_the_new_slots_at_once(bench: Bench) -> None:
    name, gate = "widened", Gate(bench, "widened")
    lane(bench, name, maxActiveRuns=1)
    bench.apply(gated(bench, "before-edit", gate, pipeline=name))
    first = bench.wait("before-edit", "running")
    bench.apply(gated(bench, "behind", gate, pipeline=name))
    bench.wait("behind", "queued")
    bench.apply(bench.provider(name, maxActiveRuns=1, parameters={"packages": "never"}))
    bench.wait_reason("mlprv", name, "InvalidParameters")
    bench.apply(bench.provider(name, maxActiveRuns=2, parameters={"maxLogBytes": 100_000}))
    bench.wait("behind", "running")
    assert processes(run_folder(bench, first, name))
    gate.open()
    all_ended_well(bench, dict.fromkeys(("before-edit", "behind"), "succeeded"), quiet=False)


@scenario
def test_a_deleted_provider_waits_for_its_runs_and_names_them(bench: Bench) -> None:
    name, gate = "leaving", Gate(bench, "leaving")
    lane(bench, name)
    bench.apply(gated(bench, "last-guest", gate, pipeline=name))
    bench.wait("last-guest", "running")
    bench.delete("mlprv", name)
    said = bench.wait_reason("mlprv", name, "Deleting")["message"]
    assert said == f"still used by Run {bench.namespace}/last-guest"
    bench.apply(bench.run("too-late", pipeline=name))
    waits = bench.wait_reason("mlr", "too-late", "PipelineNotReady")
    assert f"Provider {bench.namespace}/{name}" in waits["message"]
    gate.open()
    ended_well(bench, "last-guest", "succeeded", quiet=False)
    bench.gone("mlprv", name, within=15)
    bench.apply(bench.provider(name))
    ended_well(bench, "too-late", "succeeded", quiet=False)


@pytest.mark.usefixtures("controller_manager")
@scenario
def test_a_namespace_deleted_with_a_provider_a_pipeline_and_runs_in_it_ends(bench: Bench) -> None:
    there = replace(bench, namespace=bench.neighbour)
    there.prepare(maxActiveRuns=1)
    there.apply(there.run("running", "hang"))
    running = there.wait("running", "running")
    there.apply(there.run("queued", "hang"), there.run("waiting", pipeline="never"))
    queued = there.wait("queued", "queued")
    there.wait_reason("mlr", "waiting", "PipelineNotFound")
    there.cluster.kubectl("delete", "namespace", there.namespace, "--timeout=60s", within=70)
    for run in (running, queued):
        assert not processes(run_folder(there, run))
        (told,) = completions(there, run.metadata.uid)
        assert (told["state"], told["runId"]) == ("stopped", run.status.provider_id)
    assert {d["runName"] for d in Reader(there.nats.url).completions() if d["runName"].startswith(there.namespace)} == {
        f"{there.namespace}/running",
        f"{there.namespace}/queued",
    }


def test_nothing_was_told_twice_and_nothing_is_left_to_do(shared: Bench) -> None:
    reader, operator = Reader(shared.nats.url), shared.operators[0]
    reader.once_each()
    eventually(lambda: reader.unsettled() == 0, 90, "the projector has acknowledged everything")
    assert operator.metric("kfp_operator_events_outbox_pending") == 0
    assert operator.metric("kfp_operator_status_refused_total") == 0
    assert "please report this" not in operator.log.read_text()
