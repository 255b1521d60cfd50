"""Conditions: the table of situations, and when lastTransitionTime moves."""

from datetime import UTC, datetime, timedelta

import pytest

from kfp_operator.api import conditions
from kfp_operator.api.conditions import Wish
from kfp_operator.api.meta import Condition
from kfp_operator.api.states import RunState, SyncState

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)


def table(wishes: list[Wish]) -> dict[str, str]:
    return {wish.type: f"{wish.status}/{wish.reason}" for wish in wishes}


def previous(*wishes: Wish) -> list[Condition]:
    return conditions.apply([], wishes, generation=1, now=NOW)


SITUATIONS = {
    "a Run that waits": (
        conditions.run_waiting("PipelineNotFound", "waits for Pipeline p"),
        {
            "Synchronized": "Unknown/Creating",
            "Ready": "False/PipelineNotFound",
            "Reconciling": "True/PipelineNotFound",
            "Succeeded": "Unknown/PipelineNotFound",
            "Completed": "False/PipelineNotFound",
        },
    ),
    "a Run that waits for a person": (
        conditions.run_waiting("NamespaceNotAllowed", "ask the owner", stalled=True),
        {
            "Synchronized": "Unknown/Creating",
            "Ready": "False/NamespaceNotAllowed",
            "Reconciling": "True/NamespaceNotAllowed",
            "Stalled": "True/NamespaceNotAllowed",
            "Succeeded": "Unknown/NamespaceNotAllowed",
            "Completed": "False/NamespaceNotAllowed",
        },
    ),
    "a Run the backend has": (
        conditions.run_accepted(RunState.ON_SCHEDULE),
        {"Synchronized": "True/Succeeded", "Ready": "True/OnSchedule", "Succeeded": "Unknown/OnSchedule", "Completed": "False/OnSchedule"},
    ),
    "a Run that succeeded": (
        conditions.run_finished(RunState.SUCCEEDED),
        {"Synchronized": "True/Succeeded", "Ready": "True/Succeeded", "Succeeded": "True/Succeeded", "Completed": "True/Succeeded"},
    ),
    "a Run that was skipped": (
        conditions.run_finished(RunState.SKIPPED, synchronized=False),
        {"Synchronized": "True/Succeeded", "Ready": "True/Skipped", "Succeeded": "False/Skipped", "Completed": "True/Skipped"},
    ),
    "a Run that failed": (
        conditions.run_finished(RunState.FAILED, "boom"),
        {
            "Synchronized": "True/Succeeded",
            "Ready": "False/Failed",
            "Stalled": "True/Failed",
            "Succeeded": "False/Failed",
            "Completed": "True/Failed",
        },
    ),
    "a Run that ran into its deadline": (
        conditions.run_finished(RunState.FAILED, "too slow", reason="DeadlineExceeded"),
        {
            "Synchronized": "True/Succeeded",
            "Ready": "False/DeadlineExceeded",
            "Stalled": "True/DeadlineExceeded",
            "Succeeded": "False/DeadlineExceeded",
            "Completed": "True/DeadlineExceeded",
        },
    ),
    "a Run that was stopped": (
        conditions.run_finished(RunState.STOPPED),
        {
            "Synchronized": "True/Succeeded",
            "Ready": "False/Stopped",
            "Stalled": "True/Stopped",
            "Succeeded": "False/Stopped",
            "Completed": "True/Stopped",
        },
    ),
    "a Run that was refused": (
        conditions.run_finished(RunState.FAILED, "no such parameter", synchronized=False),
        {
            "Synchronized": "False/Failed",
            "Ready": "False/Failed",
            "Stalled": "True/Failed",
            "Succeeded": "False/Failed",
            "Completed": "True/Failed",
        },
    ),
    "a Run whose upstream failed": (
        conditions.run_finished(RunState.UPSTREAM_FAILED, synchronized=False),
        {
            "Synchronized": "False/Failed",
            "Ready": "False/UpstreamFailed",
            "Stalled": "True/UpstreamFailed",
            "Succeeded": "False/UpstreamFailed",
            "Completed": "True/UpstreamFailed",
        },
    ),
    "a running Run that is being deleted": (
        conditions.run_deleting(previous(*conditions.run_accepted(RunState.RUNNING)), "its run is being stopped"),
        {
            "Synchronized": "Unknown/Deleting",
            "Ready": "False/Deleting",
            "Reconciling": "True/Deleting",
            "Succeeded": "Unknown/Running",
            "Completed": "False/Running",
        },
    ),
    "a failed Run that is being deleted": (
        conditions.run_deleting(previous(*conditions.run_finished(RunState.FAILED)), "its completion is being published"),
        {
            "Synchronized": "Unknown/Deleting",
            "Ready": "False/Deleting",
            "Reconciling": "True/Deleting",
            "Succeeded": "False/Failed",
            "Completed": "True/Failed",
        },
    ),
    "a Run restored after it succeeded": (
        conditions.run_restored("kfp-operator.dev/completed=succeeded"),
        {"Synchronized": "True/Succeeded", "Ready": "True/Restored", "Succeeded": "True/Restored", "Completed": "True/Restored"},
    ),
    "a Run restored after it failed": (
        conditions.run_restored("kfp-operator.dev/completed=failed"),
        {
            "Synchronized": "True/Succeeded",
            "Ready": "False/Restored",
            "Stalled": "True/Restored",
            "Succeeded": "False/Restored",
            "Completed": "True/Restored",
        },
    ),
    "a Run with a label of that name from someone else": (
        conditions.run_restored("kfp-operator.dev/completed=yes"),
        {"Synchronized": "True/Succeeded", "Ready": "True/Restored", "Succeeded": "Unknown/Restored", "Completed": "True/Restored"},
    ),
    "a Pipeline in sync": (conditions.synced(), {"Synchronized": "True/Succeeded", "Ready": "True/Succeeded"}),
    "a new Pipeline": (
        conditions.progressing("ProviderNotFound", "waits for Provider a/b"),
        {"Synchronized": "Unknown/Creating", "Ready": "False/ProviderNotFound", "Reconciling": "True/ProviderNotFound"},
    ),
    "a changed Pipeline": (
        conditions.progressing("Uploading", "", state=SyncState.UPDATING, stalled=True),
        {"Synchronized": "Unknown/Updating", "Ready": "False/Uploading", "Reconciling": "True/Uploading", "Stalled": "True/Uploading"},
    ),
    "a Pipeline that is none": (
        conditions.failed("InvalidPipelineSpec", "no root"),
        {"Synchronized": "False/Failed", "Ready": "False/InvalidPipelineSpec", "Stalled": "True/InvalidPipelineSpec"},
    ),
    "a Provider that is being deleted": (
        conditions.deleting("still used by 2 Pipelines"),
        {"Synchronized": "Unknown/Deleting", "Ready": "False/Deleting", "Reconciling": "True/Deleting"},
    ),
}


@pytest.mark.parametrize(("wishes", "expected"), SITUATIONS.values(), ids=SITUATIONS)
def test_each_situation_has_its_conditions(wishes: list[Wish], expected: dict[str, str]) -> None:
    assert table(wishes) == expected


@pytest.mark.parametrize("state", [state for state in RunState if state.final])
def test_every_final_state_completes_a_run_and_nothing_else_does(state: RunState) -> None:
    assert table(conditions.run_finished(state))["Completed"].startswith("True/")


def kstatus(made: list[Condition]) -> str:
    """What kubectl, Helm and Flux conclude (cli-utils, pkg/kstatus/status/generic.go): the first of these in the list decides."""
    for condition in made:
        if condition.type == "Reconciling" and condition.status == "True":
            return "InProgress"
        if condition.type == "Stalled" and condition.status == "True":
            return "Failed"
    ready = conditions.find(made, "Ready")
    return "Current" if ready is None or ready.status == "True" else "InProgress"


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        (conditions.run_waiting("NoSlot", ""), "InProgress"),
        (conditions.run_waiting("NamespaceNotAllowed", "", stalled=True), "Failed"),
        (conditions.run_accepted(RunState.RUNNING), "Current"),
        (conditions.run_finished(RunState.SUCCEEDED), "Current"),
        (conditions.run_finished(RunState.FAILED), "Failed"),
        (conditions.synced(), "Current"),
        (conditions.progressing("A", ""), "InProgress"),
        (conditions.failed("A", ""), "Failed"),
        (conditions.deleting(""), "InProgress"),
    ],
)
def test_tools_that_wait_conclude_the_same(wishes: list[Wish], expected: str) -> None:
    assert kstatus(previous(*wishes)) == expected


def test_the_time_moves_only_when_the_status_does() -> None:
    made = conditions.apply([], [Wish("Ready", "False", "A", "a"), Wish("Completed", "False", "A")], generation=1, now=NOW)
    again = conditions.apply(made, [Wish("Ready", "False", "B", "b"), Wish("Completed", "True", "A")], generation=2, now=LATER)
    ready, completed = conditions.find(again, "Ready"), conditions.find(again, "Completed")
    assert ready is not None
    assert completed is not None
    assert (ready.reason, ready.message, ready.observed_generation) == ("B", "b", 2)
    assert ready.last_transition_time == NOW.replace(microsecond=0)
    assert completed.last_transition_time == LATER.replace(microsecond=0)


def test_what_is_not_wished_for_goes() -> None:
    made = previous(*conditions.run_waiting("A", "", stalled=True))
    after = conditions.apply(made, conditions.run_accepted(RunState.RUNNING), generation=1, now=LATER)
    assert {c.type for c in after} == {"Ready", "Synchronized", "Succeeded", "Completed"}


def test_equal_wishes_make_an_equal_list() -> None:
    made = previous(*conditions.run_accepted(RunState.RUNNING))
    assert conditions.apply(made, reversed(conditions.run_accepted(RunState.RUNNING)), generation=1, now=LATER) == made


@pytest.mark.parametrize(
    ("reason", "taken"),
    [
        ("NoSlot", "NoSlot"),
        ("upstream_failed", "UpstreamFailed"),
        ("quota exceeded!", "QuotaExceeded"),
        ("404 Not Found", "NotFound"),
        ("", "Unknown"),
        ("…", "Unknown"),
        ("x" * 2000, "X" + "x" * 1023),
    ],
)
def test_any_reason_becomes_one_that_the_api_server_takes(reason: str, taken: str) -> None:
    assert conditions.camel_case(reason) == taken
    assert previous(Wish("Ready", "False", reason))[0].reason == taken


def test_a_message_is_cut_to_what_the_api_server_takes() -> None:
    assert len(previous(Wish("Ready", "False", "A", "x" * 40000))[0].message) == conditions.MAX_MESSAGE


def test_a_restored_run_is_told_its_label_and_the_remedy() -> None:
    messages = {w.message for w in conditions.run_restored("kfp-operator.dev/completed=failed") if w.type == "Completed"}
    assert all("kfp-operator.dev/completed=failed" in m and "runs rerun" in m for m in messages)


def test_undelivered_events_are_a_condition_of_their_own() -> None:
    wish = conditions.events_undelivered("BusUnavailable", "NATS does not answer")
    assert (wish.type, wish.status, wish.reason) == ("EventsDelivered", "False", "BusUnavailable")
