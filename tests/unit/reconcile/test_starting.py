"""Starting Runs for an owner: who goes first, what they are called, and what they carry."""

from dataclasses import replace
from typing import Any

import pytest

from kfp_operator.api.names import Names, name_in
from kfp_operator.api.run import Run
from kfp_operator.api.run_schedule import RunSchedule
from kfp_operator.api.states import RunState
from kfp_operator.reconcile.starting import OwnedRun, Trigger, Verdict, active_runs, admit, occurrence_name, run_manifest, tick_name
from tests.builders import at

NAMES = Names()
ACTIVE = OwnedRun("active", "a", at(0))
STOPPING = OwnedRun("stopping", "s", at(1), stopping=True)
ENDED = OwnedRun("ended", "e", at(2), state=RunState.SUCCEEDED, ended=at(3), settled=True)


def owner(name: str = "nightly") -> RunSchedule:
    metadata = {"name": name, "namespace": "team", "uid": "owner-uid"}
    return RunSchedule.parse({"metadata": metadata, "spec": {"pipeline": "train", "schedule": {"cronExpression": "@daily"}}})


@pytest.mark.parametrize(
    ("policy", "runs", "verdict", "others"),
    [
        ("Allow", [ACTIVE], Verdict.START, []),
        ("Forbid", [], Verdict.START, []),
        ("Forbid", [ENDED], Verdict.START, []),
        ("Forbid", [ENDED, ACTIVE], Verdict.SKIP, [ACTIVE]),
        ("Forbid", [STOPPING], Verdict.SKIP, [STOPPING]),
        ("QueueLatest", [ENDED], Verdict.START, []),
        ("QueueLatest", [ACTIVE, STOPPING], Verdict.QUEUE, [ACTIVE, STOPPING]),
        ("Replace", [ENDED], Verdict.START, []),
        ("Replace", [ACTIVE, STOPPING], Verdict.STOP, [ACTIVE]),
        ("Replace", [STOPPING], Verdict.START, []),
    ],
)
def test_a_policy_says_what_becomes_of_a_run_that_is_due(
    policy: Any, runs: list[OwnedRun], verdict: Verdict, others: list[OwnedRun]
) -> None:
    admission = admit(policy, runs, "new")
    assert (admission.verdict, list(admission.others)) == (verdict, others)


@pytest.mark.parametrize("policy", ["Allow", "Forbid", "Replace", "QueueLatest"])
def test_a_run_that_is_there_already_needs_no_admission(policy: Any) -> None:
    assert admit(policy, [ACTIVE, STOPPING], "active").verdict is Verdict.START


def test_the_reason_names_the_runs_that_stand_in_the_way_but_not_hundreds() -> None:
    assert admit("Forbid", [ACTIVE], "new").because == "Run active has not ended"
    crowd = [replace(ACTIVE, name=f"run-{n}") for n in range(100)]
    assert admit("Forbid", crowd, "new").because == "Runs run-0, run-1, run-2 and 97 more have not ended"


def test_the_active_ones_are_listed_oldest_first_and_not_without_end() -> None:
    assert [run.name for run in active_runs([STOPPING, ENDED, ACTIVE])] == ["active", "stopping"]
    assert len(active_runs([replace(ACTIVE, name=f"run-{n}") for n in range(300)])) == 100


def test_a_run_is_called_after_what_it_is_started_for() -> None:
    assert tick_name("nightly", at(0)) == "nightly-1772366400"
    first = occurrence_name(owner(), "onChange/pipeline", "49e208")
    assert first.startswith("nightly-")
    assert len(first) == len("nightly-") + 10
    assert first == occurrence_name(owner("nightly"), "onChange/pipeline", "49e208")
    others = {
        occurrence_name(owner(), "onChange/runSpec", "49e208"),
        occurrence_name(owner(), "onChange/pipeline", "49e209"),
        occurrence_name(owner(), "onChange/pipeline49e208", ""),
    }
    assert len(others | {first}) == 4


@pytest.mark.parametrize("name", ["nightly", "n" * 200, "a.b" * 60])
def test_a_run_says_who_owns_it_and_what_started_it_in_names_that_labels_can_hold(name: str) -> None:
    trigger = Trigger("schedule", name, "team", at(0), {"extra": "x"})
    manifest = run_manifest(owner(name), NAMES, name=tick_name(name, at(0)), spec={"pipeline": "train"}, trigger=trigger)
    run = Run.parse(manifest)
    labels, annotations = run.metadata.labels, run.metadata.annotations
    assert (manifest["apiVersion"], manifest["kind"], run.metadata.namespace) == ("kfp-operator.dev/v1beta1", "Run", "team")
    assert all(len(value) <= 63 for value in labels.values())
    assert name_in(NAMES.run_schedule, labels, annotations) == name
    assert name_in(NAMES.trigger_source, labels, annotations) == name
    assert (labels[NAMES.trigger_type], labels[NAMES.trigger_source_namespace]) == ("schedule", "team")
    assert annotations[NAMES.scheduled_time] == "2026-03-01T12:00:00Z"
    assert annotations["extra"] == "x"
    (reference,) = manifest["metadata"]["ownerReferences"]
    assert reference == {
        "apiVersion": "kfp-operator.dev/v1beta1",
        "kind": "RunSchedule",
        "name": name,
        "uid": "owner-uid",
        "controller": True,
        "blockOwnerDeletion": False,
    }
