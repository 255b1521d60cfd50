"""Which ended Runs are deleted."""

from dataclasses import replace

import pytest

from kfp_operator.api.states import RunState
from kfp_operator.reconcile.history import AT_ONCE, last_success, surplus
from kfp_operator.reconcile.starting import OwnedRun
from tests.builders import at


def ended(number: int, state: RunState | None = RunState.SUCCEEDED, *, at_second: float | None = None) -> OwnedRun:
    end = at(number if at_second is None else at_second)
    return OwnedRun(f"run-{number}", f"uid-{number}", at(0), state=state, ended=end, settled=True)


def names(runs: list[OwnedRun]) -> list[str]:
    return [run.name for run in runs]


@pytest.mark.parametrize(
    ("successful", "failed", "expected"),
    [
        (None, None, []),
        (3, 3, []),
        (1, None, ["run-1", "run-3"]),
        (None, 1, ["run-2"]),
        (0, 0, ["run-1", "run-2", "run-3", "run-4", "run-5"]),
        (1, 1, ["run-1", "run-2", "run-3"]),
    ],
)
def test_each_outcome_has_its_limit_and_the_oldest_ends_go_first(successful: int | None, failed: int | None, expected: list[str]) -> None:
    runs = [ended(5), ended(1), ended(4, RunState.STOPPED), ended(3), ended(2, RunState.FAILED)]
    assert names(surplus(runs, successful=successful, failed=failed)) == expected


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.STOPPED, RunState.UPSTREAM_FAILED, RunState.SKIPPED, None])
def test_whatever_did_not_succeed_counts_as_failed(state: RunState | None) -> None:
    assert names(surplus([ended(1, state)], successful=None, failed=0)) == ["run-1"]
    assert surplus([ended(1, state)], successful=0, failed=None) == []


def test_what_is_active_unsettled_deleted_or_still_needed_stays() -> None:
    active = replace(ended(1), ended=None, settled=False)
    unsettled = replace(ended(2), settled=False)
    deleting = replace(ended(3), deleting=True)
    runs = [active, unsettled, deleting, ended(4), ended(5)]
    assert names(surplus(runs, successful=0, failed=0, keep={"run-4"})) == ["run-5"]


def test_a_run_that_is_being_deleted_takes_nobodys_place() -> None:
    assert surplus([ended(1), replace(ended(2), deleting=True)], successful=1, failed=0) == []


def test_the_order_is_that_of_ends_not_of_names_or_of_beginnings() -> None:
    first, second = ended(9, at_second=1), ended(1, at_second=2)
    assert names(surplus([second, first], successful=1, failed=None)) == ["run-9"]


def test_many_are_deleted_in_parts() -> None:
    found = surplus([ended(n) for n in range(100)], successful=0, failed=0)
    assert names(found) == [f"run-{n}" for n in range(AT_ONCE)]


def test_the_last_success_is_the_one_that_ended_last() -> None:
    runs = [ended(9, at_second=1), ended(1, at_second=2), ended(3, RunState.FAILED), replace(ended(5), ended=None)]
    found = last_success(runs)
    assert found is not None
    assert found.name == "run-1"
    assert last_success([]) is None
