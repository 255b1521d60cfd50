"""The store keeps the newest of everything, in little memory, and knows who refers to whom."""

import tracemalloc
from typing import Any

import pytest
from pydantic import ValidationError

from kfp_operator.api.meta import Resource
from kfp_operator.api.names import Names
from kfp_operator.api.run import Run
from kfp_operator.api.states import RunState
from kfp_operator.operator.store import TOMBSTONES, Key, SettledRun, Store, newer, read

NAMES = Names()
PIPELINE = Key("Pipeline", "team", "train")
PROVIDER = Key("Provider", "mlops", "local")
RUN = Key("Run", "team", "train-1")
COMPLETED = [{"type": "Completed", "status": "True", "reason": "Succeeded", "lastTransitionTime": "2026-03-01T13:00:00Z"}]


def run(name: str = "train-1", *, uid: str = "u1", version: str = "1", **parts: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team", "uid": uid, "resourceVersion": version, **parts.get("metadata", {})}
    return {
        "metadata": metadata,
        "spec": {"pipeline": "train:v1", "provider": "mlops/local", **parts.get("spec", {})},
        "status": parts.get("status", {}),
    }


def settled(name: str = "train-1", *, uid: str = "u1", version: str = "1", **parts: Any) -> dict[str, Any]:
    return run(name, uid=uid, version=version, status={"state": "succeeded", "conditions": COMPLETED}, **parts)


def store_of(*bodies: dict[str, Any], parsed: int = 500) -> Store:
    store = Store(NAMES, parsed=parsed)
    for body in bodies:
        store.put(read("Run", body, NAMES))
    return store


def version(store: Store, key: Key = RUN) -> str:
    stored = store.get(key)
    assert isinstance(stored, Resource)
    return stored.metadata.resource_version


def test_what_was_put_comes_back_equal_whether_it_is_still_parsed_or_not() -> None:
    status = {
        "state": "running",
        "history": [{"state": "running", "time": "2026-03-01T12:00:00.123456Z"}],
        "startTime": "2026-03-01T12:00:00Z",
    }
    body = run(status=status, spec={"parameters": [{"name": "n", "value": None}, {"name": "m", "value": {"a": [1, None]}}]})
    for parsed in (0, 500):
        assert store_of(body, parsed=parsed).get(RUN) == Run.parse(body)


def test_an_older_version_is_ignored_whoever_brings_it() -> None:
    store = store_of(run(version="10"))
    assert not store.put(read("Run", run(version="9"), NAMES)), "9 < 10 as numbers, not as text"
    assert not store.put(read("Run", run(version="10"), NAMES)), "the echo of what is known"
    assert version(store) == "10"
    assert store.put(read("Run", run(version="11"), NAMES))
    assert version(store) == "11"


@pytest.mark.parametrize(
    ("version", "than", "expected"),
    [("2", "1", True), ("1", "2", False), ("1", "1", False), ("b", "a", True), ("a", "a", False), ("", "1", True)],
)
def test_versions_that_are_no_integers_give_way_to_what_arrives_last(version: str, than: str, expected: bool) -> None:
    assert newer(version, than) is expected


def test_an_answer_that_comes_after_the_deletion_does_not_bring_the_object_back() -> None:
    store = store_of(run(version="1"))
    assert store.drop(RUN, "u1")
    assert not store.put(read("Run", run(version="2"), NAMES))
    assert store.get(RUN) is None
    assert store.key_of("u1") is None


def test_a_new_object_of_the_same_name_is_not_dropped_with_the_old_one() -> None:
    store = store_of(run(version="1"), run(uid="u2", version="5"))
    assert store.key_of("u1") is None
    assert not store.drop(RUN, "u1")
    assert store.uid_of(RUN) == "u2"
    assert not store.put(read("Run", run(version="7"), NAMES)), "u1 is known to be deleted"
    assert store.drop(RUN)


def test_only_so_many_deleted_uids_are_remembered() -> None:
    store = Store(NAMES)
    for number in range(TOMBSTONES + 1):
        store.drop(RUN, f"gone-{number}")
    assert store.put(read("Run", run(uid="gone-0"), NAMES))
    assert not store.put(read("Run", run(uid="gone-1", version="2"), NAMES))


def test_unfinished_objects_are_found_by_what_they_refer_to_even_before_that_exists() -> None:
    store = store_of(run(), run("train-2", uid="u2"))
    assert store.referring(PIPELINE) == [RUN, Key("Run", "team", "train-2")]
    assert store.referring(PROVIDER) == store.referring(PIPELINE)
    store.put(read("Run", run(version="2", spec={"pipeline": "other"}), NAMES))
    assert store.referring(PIPELINE) == [Key("Run", "team", "train-2")]
    store.drop(Key("Run", "team", "train-2"))
    assert store.referring(PIPELINE) == []


def test_a_run_refers_to_the_provider_of_its_spec_of_its_binding_and_of_its_status() -> None:
    bound = run(spec={"provider": ""}, metadata={"annotations": {NAMES.provider: "mlops/bound"}}, status={"provider": "mlops/reported"})
    store = store_of(bound)
    assert store.referring(Key("Provider", "mlops", "bound")) == [RUN]
    assert store.referring(Key("Provider", "mlops", "reported")) == [RUN]


def test_a_run_refers_to_its_experiment_and_that_to_its_provider() -> None:
    store = store_of(run(spec={"experimentName": "penguins"}))
    experiment = Key("Experiment", "team", "penguins")
    assert store.referring(experiment) == [RUN]
    body = {"metadata": {"name": "penguins", "namespace": "team", "uid": "e", "resourceVersion": "1"}, "spec": {"provider": "mlops/other"}}
    store.put(read("Experiment", body, NAMES))
    assert store.referring(Key("Provider", "mlops", "other")) == [experiment]


def test_an_ended_run_of_the_go_operator_is_kept_short() -> None:
    status = {"completionState": "Failed", "provider": {"name": "kfp/kfp", "id": "0b9c"}}
    made = {"creationTimestamp": "2025-06-03T10:40:00Z"}
    stored = read("Run", run(status=status, spec={"ttlSecondsAfterFinished": 60}, metadata=made), NAMES)
    assert isinstance(stored, SettledRun)
    assert stored.state is RunState.FAILED
    assert stored.expires is not None
    assert stored.expires.isoformat() == "2025-06-03T10:41:00+00:00"


def test_a_pipeline_refers_to_its_provider() -> None:
    store = Store(NAMES)
    body = {"metadata": {"name": "train", "namespace": "team", "uid": "p", "resourceVersion": "1"}, "spec": {"provider": "mlops/local"}}
    store.put(read("Pipeline", body, NAMES))
    assert store.referring(PROVIDER) == [PIPELINE]


def owned_by(uid: str) -> dict[str, Any]:
    return {"ownerReferences": [{"uid": "other"}, {"uid": uid, "controller": True}]}


def test_what_an_object_controls_is_found_whether_it_runs_or_is_settled() -> None:
    store = store_of(run("a", uid="a", metadata=owned_by("o1")), settled("b", uid="b", metadata=owned_by("o1")), run("c", uid="c"))
    assert [Key.of(stored).name for stored in store.owned("o1")] == ["a", "b"]
    assert store.owned("other") == [], "it owns, but does not control"
    assert store.owned("") == []
    store.put(read("Run", run("a", uid="a", version="2"), NAMES))
    store.drop(Key("Run", "team", "b"))
    assert store.owned("o1") == []


def test_an_owner_is_told_of_every_change_of_what_it_controls_and_of_its_end() -> None:
    told: list[Key] = []
    store = Store(NAMES, owned=told.append)
    metadata = {"name": "nightly", "namespace": "team", "uid": "o1", "resourceVersion": "1"}
    spec = {"pipeline": "train", "schedule": {"cronExpression": "@daily"}}
    store.put(read("RunSchedule", {"metadata": metadata, "spec": spec}, NAMES))
    store.put(read("Run", run(metadata=owned_by("o1")), NAMES))
    assert told == [Key("RunSchedule", "team", "nightly")]
    store.put(read("Run", run(metadata=owned_by("o1")), NAMES))
    assert len(told) == 1, "nothing changed"
    store.put(read("Run", settled(version="2", metadata=owned_by("o1")), NAMES))
    assert len(told) == 2
    store.drop(RUN, "u1")
    assert len(told) == 3
    store.put(read("Run", run("b", uid="b", metadata=owned_by("gone")), NAMES))
    assert len(told) == 3


def test_a_settled_run_is_kept_short_and_wakes_with_nobody() -> None:
    body = settled(metadata={"ownerReferences": [{"uid": "o1", "controller": True}]}, spec={"ttlSecondsAfterFinished": 60})
    store = store_of(body)
    stored = store.get(RUN)
    assert isinstance(stored, SettledRun)
    assert (stored.state, stored.pipeline, stored.owner) == (RunState.SUCCEEDED, "train", "o1")
    assert stored.expires is not None
    assert stored.expires.isoformat() == "2026-03-01T13:01:00+00:00"
    assert store.referring(PIPELINE) == []
    assert store.settled() == [stored]


def test_the_end_of_a_reference_is_told_once_whether_by_settling_by_deletion_or_by_a_change() -> None:
    released: list[Key] = []
    store = Store(NAMES, released=released.append)
    store.put(read("Run", run(), NAMES))
    store.put(read("Run", run(version="2", metadata={"labels": {"a": "b"}}), NAMES))
    assert not released
    store.put(read("Run", settled(version="3"), NAMES))
    assert set(released) == {PIPELINE, PROVIDER}
    store.drop(RUN, "u1")
    assert len(released) == 2
    store.put(read("Run", run(uid="u2"), NAMES))
    store.drop(RUN, "u2")
    assert len(released) == 4
    store.put(read("Run", run(uid="u3", metadata={"annotations": {NAMES.provider: "mlops/old"}}), NAMES))
    store.put(read("Run", run(uid="u3", version="2"), NAMES))
    assert released[4:] == [Key("Provider", "mlops", "old")]


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"metadata": {"finalizers": [NAMES.finalizer]}}, "our finalizer"),
        ({"metadata": {"deletionTimestamp": "2026-03-01T13:00:00Z"}}, "being deleted"),
    ],
)
def test_a_completed_run_that_still_has_work_is_kept_whole(parts: dict[str, Any], why: str) -> None:
    assert isinstance(store_of(settled(**parts)).get(RUN), Run), why


def test_a_whole_model_of_a_settled_run_becomes_short_too() -> None:
    store = Store(NAMES)
    store.put(Run.parse(settled()))
    assert isinstance(store.get(RUN), SettledRun)


def test_a_run_that_was_reopened_is_whole_again() -> None:
    store = store_of(settled(version="1"), run(version="2", status={"state": "running"}))
    assert isinstance(store.get(RUN), Run)
    assert store.settled() == []
    assert store.referring(PIPELINE) == [RUN]


def test_runs_are_counted_by_state_and_one_without_a_state_is_created() -> None:
    store = store_of(run(), run("b", uid="u2", status={"state": "running"}), settled("c", uid="u3"))
    assert store.runs_by_state() == {"created": 1, "running": 1, "succeeded": 1}


def test_an_object_that_is_not_of_its_kind_is_refused_when_read() -> None:
    with pytest.raises(ValidationError):
        read("Run", {"metadata": {"name": "x", "namespace": "y"}, "spec": {}}, NAMES)


@pytest.mark.slow
def test_ten_thousand_settled_runs_take_less_than_ten_megabytes_and_active_ones_less_than_forty() -> None:
    history = [{"state": state, "time": "2026-03-01T12:00:00.000000Z"} for state in ("queued", "starting", "running")]
    conditions = [{**COMPLETED[0], "type": kind} for kind in ("Ready", "Synchronized", "Succeeded", "Completed")]
    active = {"state": "running", "history": history, "conditions": conditions[:3], "message": "running", "provider": "mlops/local"}
    for status, most in (({**active, "conditions": conditions}, 10), (active, 40)):
        store = Store(NAMES)
        tracemalloc.start()
        for number in range(2_000):
            store.put(read("Run", run(f"train-{number}", uid=f"00000000-0000-0000-0000-{number:012}", status=status), NAMES))
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(store) == 2_000
        assert used * 5 / 1e6 < most
