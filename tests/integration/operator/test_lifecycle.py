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
from tests.integration.operator.harness import NAMES, SCENARIO, Bench, processes
from tests.integration.operator.verdict import all_ended_well, ended_well
from tests.waiting import eventually

SPEC: dict[str, Any] = SCENARIO["spec"]["pipelineSpec"]


def described(text: str) -> dict[str, Any]:
    """The scenario under another description: another version."""
    return SPEC | {"pipelineInfo": SPEC["pipelineInfo"] | {"description": text}}


def version(text: str) -> str:
    return hashing.inline_version({"pipelineSpec": described(text)})


@pytest.fixture(scope="module")
def ready(shared: Bench) -> Bench:
    """A Provider with a slot for everyone, one with a single slot, and a Pipeline on each."""
    shared.apply(shared.provider(maxActiveRuns=8), shared.provider("narrow", maxActiveRuns=1))
    shared.apply(shared.pipeline(), shared.pipeline("narrow", provider=f"{shared.namespace}/narrow"))
    for name in ("scenario", "narrow"):
        shared.wait_reason("mlp", name, "Succeeded")
    return shared


class Gate:
    """A file that steps of mode "wait" wait for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parameters = {"wait_for": str(path)}

    def open(self) -> None:
        self.path.touch()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "open")


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


def test_runs_keep_their_version_while_their_pipeline_is_edited_and_old_versions_stay_as_long_as_they_are_used(
    ready: Bench, gate: Gate
) -> None:
    def edit(text: str) -> None:
        place = f"{ready.namespace}/narrow"
        ready.apply(ready.pipeline("edited", provider=place, pipelineSpec=described(text), revisionHistoryLimit=0))
        eventually(lambda: shown_version(ready, "edited") == version(text), 20, f"{text} is ready")

    edit("first")
    ready.apply(gated(ready, "on-first", gate, pipeline="edited"))
    ready.wait("on-first", "running")
    ready.apply(gated(ready, "queued-first", gate, pipeline="edited"))
    ready.wait("queued-first", "queued")
    edit("second")
    ready.apply(gated(ready, "queued-second", gate, pipeline="edited"))
    ready.wait("queued-second", "queued")
    edit("third")
    assert revisions(ready, "edited") == {version("first"), version("second"), version("third")}, "all are in use, or present"
    gate.open()
    ended = all_ended_well(ready, dict.fromkeys(("on-first", "queued-first", "queued-second"), "succeeded"), quiet=False)
    for name, (run, told) in ended.items():
        wanted = version(name.partition("-")[2])
        assert (run.status.pipeline_version, told["pipelineVersion"]) == (wanted, wanted)
        assert wanted in run.metadata.labels.values()
    eventually(lambda: revisions(ready, "edited") == {version("third")}, 10, "versions that nothing uses are pruned")


@pytest.mark.usefixtures("controller_manager")
def test_runs_of_a_deleted_pipeline_go_on_to_their_end(ready: Bench, gate: Gate) -> None:
    ready.apply(ready.pipeline("deleted", provider=f"{ready.namespace}/narrow"))
    ready.apply(gated(ready, "survivor", gate, pipeline="deleted"))
    ready.wait("survivor", "running")
    ready.apply(gated(ready, "queued-survivor", gate, pipeline="deleted"))
    ready.wait("queued-survivor", "queued")
    ready.delete("mlp", "deleted")
    ready.gone("mlp", "deleted")
    eventually(lambda: not revisions(ready, "deleted"), 20, "its versions are garbage-collected")
    gate.open()
    all_ended_well(ready, dict.fromkeys(("survivor", "queued-survivor"), "succeeded"), quiet=False)


# Runs that are deleted


def replaced(bench: Bench, name: str, old: Run) -> None:
    """Apply a Run of the same name as soon as the old one is gone: it comes to a good end of its own."""
    bench.gone("mlr", name)
    bench.apply(bench.run(name))
    run, _ = ended_well(bench, name, "succeeded", quiet=False)
    assert run.metadata.uid != old.metadata.uid


def test_a_run_deleted_while_it_waits_vanishes_without_an_event(ready: Bench) -> None:
    ready.apply(ready.run("impatient", pipeline="never"))
    ready.wait_reason("mlr", "impatient", "PipelineNotFound")
    old = present(ready, "impatient")
    ready.delete("mlr", "impatient")
    replaced(ready, "impatient", old)
    assert not states(ready, old.metadata.uid)
    assert not completions(ready, old.metadata.uid)


def test_runs_deleted_while_running_and_queued_are_stopped_told_and_replaced(ready: Bench) -> None:
    ready.apply(ready.run("under-way", "hang", pipeline="narrow"))
    running = ready.wait("under-way", "running")
    ready.apply(ready.run("in-line", "hang", pipeline="narrow"))
    queued = ready.wait("in-line", "queued")
    ready.delete("mlr", "in-line")
    ready.gone("mlr", "in-line")
    assert states(ready, queued.metadata.uid) == ["queued", "stopped"]
    ready.delete("mlr", "under-way")
    deleting = ready.document("mlr", "under-way")
    if deleting is not None:  # it may be gone already
        assert deleting["metadata"]["deletionTimestamp"]
    ready.gone("mlr", "under-way")
    ready.apply(ready.run("under-way"), ready.run("in-line"))
    again = all_ended_well(ready, dict.fromkeys(("under-way", "in-line"), "succeeded"), quiet=False)
    assert {run.metadata.uid for run, _ in again.values()}.isdisjoint({running.metadata.uid, queued.metadata.uid})
    for run in (running, queued):
        (told,) = completions(ready, run.metadata.uid)
        assert (told["state"], told["status"], told["runId"]) == ("stopped", "failed", run.status.provider_id)
        assert told["message"] == "stopped because the Run was deleted"
        assert not processes(run_folder(ready, run, "narrow"))


def test_a_run_deleted_as_it_ends_is_told_as_succeeded(ready: Bench, gate: Gate) -> None:
    ready.apply(gated(ready, "finishing", gate))
    old = ready.wait("finishing", "running")
    result = run_folder(ready, old) / "result.json"
    gate.open()
    eventually(result.exists, 20, "the run ends")
    ready.delete("mlr", "finishing")
    replaced(ready, "finishing", old)
    (told,) = completions(ready, old.metadata.uid)
    assert told["state"] == "succeeded"
    assert states(ready, old.metadata.uid)[-1] == "succeeded"


def test_an_orphaned_run_goes_on_at_the_backend_and_is_not_told_any_more(ready: Bench, gate: Gate) -> None:
    ready.apply(gated(ready, "orphan", gate, deletionPolicy="Orphan"))
    run = ready.wait("orphan", "running")
    ready.delete("mlr", "orphan")
    ready.gone("mlr", "orphan")
    folder = run_folder(ready, run)
    assert processes(folder)
    gate.open()
    result = eventually(lambda: (folder / "result.json").exists() and json.loads((folder / "result.json").read_text()), 20, "it ends")
    assert result["state"] == "succeeded"
    assert not completions(ready, run.metadata.uid)


def test_force_release_ends_the_wait_for_a_backend_that_does_not_stop(ready: Bench) -> None:
    patient = {"parameters": {"terminationGracePeriodSeconds": 600}}
    ready.apply(ready.provider("stubborn", **patient), ready.pipeline("stubborn", provider=f"{ready.namespace}/stubborn"))
    ready.apply(ready.run("stuck", "hang", pipeline="stubborn"))
    run = ready.wait("stuck", "running")
    pids = processes(run_folder(ready, run, "stubborn"))
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    ready.delete("mlr", "stuck")
    ready.wait_reason("mlr", "stuck", "Deleting")
    ready.delete("mlprv", "stubborn")
    said = ready.wait_reason("mlprv", "stubborn", "Deleting")["message"]
    assert f"still used by Run {ready.namespace}/stuck" in said
    ready.patch("mlr", "stuck", metadata={"annotations": {NAMES.force_release: "true"}})
    ready.gone("mlr", "stuck", within=5)
    ready.gone("mlprv", "stubborn", within=5)
    warned = ready.cluster.kubectl("get", "events", "-n", ready.namespace, "--field-selector", "involvedObject.name=stuck").stdout
    assert "its end at the backend was not waited for" in warned
    assert not completions(ready, run.metadata.uid)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_the_command_line_cancels_a_run(ready: Bench) -> None:
    ready.apply(ready.run("called-off", "hang"))
    ready.wait("called-off", "running")
    command = [sys.executable, "-m", "kfp_operator", "runs", "cancel", "called-off", "--namespace", ready.namespace]
    done = subprocess.run([*command, "--kubeconfig", str(ready.cluster.kubeconfig)], capture_output=True, text=True, timeout=30, check=True)
    assert "called-off cancelled" in done.stdout
    _, told = ended_well(ready, "called-off", "stopped", quiet=False)
    assert told["message"] == "stopped by spec.cancel"


# Runs that have ended


def test_a_settled_run_is_deleted_when_its_time_to_live_is_over(ready: Bench) -> None:
    refused = {"parameters": {"nonsense": 1}}
    ready.apply(ready.run("short-lived", ttlSecondsAfterFinished=1, **refused), ready.run("later-short-lived", **refused))
    ready.gone("mlr", "short-lived")
    assert [d["state"] for d in Reader(ready.nats.url).completions(f"{ready.namespace}/short-lived")] == ["failed"]
    ended_well(ready, "later-short-lived", "failed", quiet=False)
    ready.patch("mlr", "later-short-lived", spec={"ttlSecondsAfterFinished": 0})
    ready.gone("mlr", "later-short-lived")


def test_a_run_restored_from_backup_is_never_executed_again(ready: Bench) -> None:
    ready.apply(ready.run("kept"))
    old, _ = ended_well(ready, "kept", "succeeded", quiet=False)
    backup = yaml.safe_load(ready.cluster.kubectl("get", "mlr", "kept", "-n", ready.namespace, "-o", "yaml").stdout)
    ready.delete("mlr", "kept")
    ready.gone("mlr", "kept")
    del backup["status"]
    for member in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
        backup["metadata"].pop(member, None)
    ready.apply(backup)
    ready.wait_reason("mlr", "kept", "Restored")
    run = present(ready, "kept")
    shown = ready.conditions("mlr", "kept")
    assert (shown["Completed"]["status"], shown["Succeeded"]["status"]) == ("True", "True")
    assert f"{NAMES.completed}=succeeded" in shown["Completed"]["message"]
    assert "runs rerun" in shown["Completed"]["message"]
    assert run.metadata.uid != old.metadata.uid
    assert not run.metadata.finalizers
    ready.patch("mlr", "kept", metadata={"annotations": {"touched": "yes"}})
    touched = present(ready, "kept")
    ready.apply(ready.run("after", parameters={"nonsense": 1}))  # when this has come to its end, that had its turn too
    ended_well(ready, "after", "failed", quiet=False)
    assert present(ready, "kept") == touched
    assert not states(ready, run.metadata.uid)
    assert not completions(ready, run.metadata.uid)


# Providers


def test_a_provider_edited_under_its_runs_keeps_them_and_gives_the_new_slots_at_once(ready: Bench, gate: Gate) -> None:
    name = "widened"
    ready.apply(ready.provider(name, maxActiveRuns=1), ready.pipeline(name, provider=f"{ready.namespace}/{name}"))
    ready.apply(gated(ready, "before-edit", gate, pipeline=name))
    first = ready.wait("before-edit", "running")
    ready.apply(gated(ready, "behind", gate, pipeline=name))
    ready.wait("behind", "queued")
    ready.apply(ready.provider(name, maxActiveRuns=1, parameters={"packages": "never"}))
    ready.wait_reason("mlprv", name, "InvalidParameters")
    ready.apply(ready.provider(name, maxActiveRuns=2, parameters={"maxLogBytes": 100_000}))
    ready.wait("behind", "running")
    assert processes(run_folder(ready, first, name))
    gate.open()
    all_ended_well(ready, dict.fromkeys(("before-edit", "behind"), "succeeded"), quiet=False)


def test_a_deleted_provider_waits_for_its_runs_and_names_them(ready: Bench, gate: Gate) -> None:
    name = "leaving"
    ready.apply(ready.provider(name), ready.pipeline(name, provider=f"{ready.namespace}/{name}"))
    ready.apply(gated(ready, "last-guest", gate, pipeline=name))
    ready.wait("last-guest", "running")
    ready.delete("mlprv", name)
    said = ready.wait_reason("mlprv", name, "Deleting")["message"]
    assert said == f"still used by Run {ready.namespace}/last-guest"
    ready.apply(ready.run("too-late", pipeline=name))
    waits = ready.wait_reason("mlr", "too-late", "PipelineNotReady")
    assert f"Provider {ready.namespace}/{name}" in waits["message"]
    gate.open()
    ended_well(ready, "last-guest", "succeeded", quiet=False)
    ready.gone("mlprv", name, within=5)
    ready.apply(ready.provider(name))
    ended_well(ready, "too-late", "succeeded", quiet=False)


@pytest.mark.usefixtures("controller_manager")
def test_a_namespace_deleted_with_a_provider_a_pipeline_and_runs_in_it_ends(ready: Bench) -> None:
    there = replace(ready, namespace=ready.neighbour)
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


def test_nothing_was_told_twice_and_nothing_is_left_to_do(ready: Bench) -> None:
    reader, operator = Reader(ready.nats.url), ready.operators[0]
    reader.once_each()
    eventually(lambda: reader.unsettled() == 0, 30, "the projector has acknowledged everything")
    assert operator.metric("kfp_operator_events_outbox_pending") == 0
    assert operator.metric("kfp_operator_status_refused_total") == 0
    assert "please report this" not in operator.log.read_text()
