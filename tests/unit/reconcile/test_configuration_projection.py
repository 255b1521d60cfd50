"""What the end of a run means for the configuration that made it."""

import random

from hypothesis import given
from hypothesis import strategies as st

from kfp_operator.api.run_configuration import MAX_RECENT, RunConfiguration
from kfp_operator.reconcile.configuration_projection import Ended, record
from kfp_operator.schemas import RunCompletion
from tests import builders
from tests.builders import at
from tests.doubles.configurations import completion, recorded

BASE = builders.configuration("base")


def numbers(configuration: RunConfiguration) -> list[int]:
    return [entry.number for entry in configuration.status.recent_runs]


def names(configuration: RunConfiguration) -> list[str]:
    return [entry.name for entry in configuration.status.recent_runs]


def test_an_end_is_remembered_with_what_it_produced() -> None:
    status = recorded(BASE, completion(BASE, "base-1", seconds=5, artifacts={"model": "gs://b/1"})).status
    latest = status.latest_runs.succeeded
    assert latest is not None
    assert (latest.name, latest.uid, latest.attempt, latest.state, latest.provider_id) == (
        "base-1",
        "uid-base-1",
        1,
        "succeeded",
        "id-base-1",
    )
    assert latest.artifacts[0].location == "gs://b/1"
    assert status.last_successful_time == at(5)
    assert status.latest_runs.failed is None
    assert "artifacts" not in status.recent_runs[0].to_json(), "the journal is small"


def test_failed_and_stopped_runs_are_remembered_apart() -> None:
    made = recorded(BASE, completion(BASE, "a", seconds=1), completion(BASE, "b", state="failed", seconds=2))
    made = recorded(made, completion(BASE, "c", state="stopped", seconds=3))
    runs = made.status.latest_runs
    assert runs.succeeded is not None
    assert runs.failed is not None
    assert (runs.succeeded.name, runs.failed.name) == ("a", "c")
    assert made.status.last_successful_time == at(1)


def test_the_latest_is_the_one_that_ended_last_and_the_journal_is_in_the_order_of_telling() -> None:
    made = recorded(BASE, completion(BASE, "late", seconds=9), completion(BASE, "early", seconds=1))
    assert made.status.latest_runs.succeeded is not None
    assert made.status.latest_runs.succeeded.name == "late"
    assert names(made) == ["late", "early"]
    assert numbers(made) == [1, 2]


def test_what_is_told_again_changes_nothing() -> None:
    ends = [completion(BASE, f"base-{n}", seconds=n) for n in range(3)]
    made = recorded(BASE, *ends)
    for news in (True, False):
        assert recorded(made, *ends, news=news).status is made.status


def test_a_stream_that_is_read_anew_changes_nothing() -> None:
    """A consumer that was lost is made again, and may tell all of thirty days."""
    ends = [completion(BASE, f"base-{n}", seconds=n) for n in range(3 * MAX_RECENT)]
    made = recorded(BASE, *ends)
    assert recorded(made, *ends, news=False).status is made.status
    assert numbers(made) == list(range(2 * MAX_RECENT + 1, 3 * MAX_RECENT + 1))


def test_news_are_recorded_however_old_they_are() -> None:
    made = recorded(BASE, *(completion(BASE, f"base-{n}", seconds=100 + n) for n in range(MAX_RECENT)))
    late = completion(BASE, "late", seconds=1)
    assert recorded(made, late, news=False).status is made.status
    assert names(recorded(made, late, news=True))[-1] == "late"


def test_another_attempt_of_a_run_is_another_end() -> None:
    made = recorded(BASE, completion(BASE, "a", state="failed"), completion(BASE, "a", attempt=2, seconds=1))
    assert numbers(made) == [1, 2]


def test_a_run_that_ended_is_no_longer_active() -> None:
    status = {"active": [{"name": "a", "uid": "uid-a"}, {"name": "b", "uid": "uid-b"}]}
    made = recorded(builders.configuration("base", status=status), completion(BASE, "a"))
    assert [run.name for run in made.status.active] == ["b"]


def test_an_end_of_an_earlier_configuration_of_the_name_is_not_its_own() -> None:
    end = completion(BASE, "old", seconds=-3600)
    assert record(BASE, [Ended(end, owner="uid-of-another")]) is BASE.status
    assert record(BASE, [Ended(end)]) is BASE.status, "it ended before this one was made"
    assert record(BASE, [Ended(completion(BASE, "new", seconds=1))]) is not BASE.status


def test_a_status_of_the_go_operator_has_a_latest_run_without_a_time() -> None:
    status = {"latestRuns": {"succeeded": {"providerId": "0b9c", "artifacts": []}}}
    made = recorded(builders.configuration("base", status=status), completion(BASE, "a", seconds=-50))
    assert made.status.latest_runs.succeeded is not None
    assert made.status.latest_runs.succeeded.name == "a"


ENDS = st.lists(
    st.builds(
        lambda n, state, seconds, attempt: completion(BASE, f"r-{n}", state=state, seconds=seconds, attempt=attempt),
        st.integers(0, 9),
        st.sampled_from(["succeeded", "failed", "stopped"]),
        st.integers(0, 5),
        st.integers(1, 2),
    ),
    max_size=20,
    unique_by=lambda end: (end.run_uid, end.attempt),
)


@given(ENDS, st.randoms(use_true_random=False))
def test_the_order_of_telling_and_repetitions_do_not_matter_for_the_latest(ends: list[RunCompletion], chance: random.Random) -> None:
    shuffled = [*ends, *chance.sample(ends, len(ends) // 2)]
    chance.shuffle(shuffled)
    first, second = recorded(BASE, *ends).status, recorded(BASE, *shuffled).status

    def latest(status: object) -> list[str]:
        runs = status.latest_runs  # type: ignore[attr-defined]
        return [run.uid if run is not None else "" for run in (runs.succeeded, runs.failed)]

    assert latest(first) == latest(second)
    assert sorted((e.uid, e.attempt) for e in first.recent_runs) == sorted((e.uid, e.attempt) for e in second.recent_runs)
    assert [e.number for e in second.recent_runs] == list(range(1, len(ends) + 1))
