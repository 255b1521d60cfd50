import pytest

from kfp_operator.api.states import RunState
from kfp_operator.events import envelope
from kfp_operator.events.inbound import make
from kfp_operator.events.triggers.happening import Position, Target, inbound_happening, reached, run_happening
from kfp_operator.schemas import RefType, V1EventKind
from tests.doubles.events import END, UID, completion, status

HERE = Position("runs", "monday", 3)


@pytest.mark.parametrize(
    ("state", "began", "kinds"),
    [
        ("created", False, "created"),
        ("queued", False, "created queued"),
        ("scheduled", False, "created queued scheduled"),
        ("starting", False, "created queued scheduled starting"),
        ("running", True, "created queued scheduled starting running"),
        ("processing", True, "created queued scheduled starting running processing"),
        ("warning", False, "created queued scheduled warning"),
        ("unschedulable", False, "created queued unschedulable"),
        ("resuming", False, "created resuming"),
        ("compiled", False, "created compiled"),
        ("on_schedule", False, "created on_schedule"),
        ("unknown", False, "created unknown"),
        ("retrying", False, "created retrying"),
        ("stopping", True, "created stopping"),
        ("succeeded", False, "created queued scheduled starting running succeeded done"),
        ("failed", True, "created queued scheduled starting running failed done"),
        ("failed", False, "created failed done"),
        ("stopped", False, "created stopped done"),
        ("skipped", False, "created skipped done"),
        ("upstream_failed", False, "created upstream_failed done"),
    ],
)
def test_a_state_stands_for_those_that_must_have_been_before(state: str, began: bool, kinds: str) -> None:
    assert {kind.state for kind in reached(RunState(state), began=began)} == set(kinds.split())


def test_every_state_has_its_kinds() -> None:
    assert all(state in {kind.state for kind in reached(state, began=False)} for state in RunState)


def test_a_run_can_be_referred_to_by_name_uid_pipeline_and_configuration() -> None:
    data = status(run_configuration_name="team-a/train")
    happening = run_happening(envelope.build(data), data, HERE)
    assert happening is not None
    assert set(happening.targets) == {
        Target(RefType.RUNS, "team-a", "penguin-x7k2p"),
        Target(RefType.RUNS, "team-a", UID),
        Target(RefType.PIPELINES, "team-a", "penguin-pipeline"),
        Target(RefType.RUN_CONFIGURATIONS, "team-a", "train"),
    }
    assert (happening.told, happening.subject, happening.closes) == (V1EventKind.RUN_STATUS_RUNNING, f"{UID}/1", False)


def test_an_end_is_told_by_its_completion_alone() -> None:
    ended = status(state="succeeded")
    assert run_happening(envelope.build(ended), ended, HERE) is None
    done = completion()
    happening = run_happening(envelope.build(done), done, HERE)
    assert happening is not None
    assert happening.closes
    assert V1EventKind.RUN_NEW_ARTIFACTS in happening.kinds


@pytest.mark.parametrize("state", ["skipped", "upstream_failed"])
def test_an_end_without_a_completion_is_told_by_its_status(state: str) -> None:
    ended = status(state=state)
    happening = run_happening(envelope.build(ended), ended, HERE)
    assert happening is not None
    assert happening.closes
    assert V1EventKind.RUN_STATUS_DONE in happening.kinds


def test_a_filter_sees_the_event_in_json_format() -> None:
    data = completion(run_end_time=END)
    event = envelope.build(data)
    happening = run_happening(event, data, HERE)
    assert happening is not None
    document = happening.document()
    assert document["time"] == "2026-01-02T03:14:15.250000Z"
    assert document["type"] == "org.kubeflow.pipelines.run-completion"
    assert document["data"]["runName"] == "team-a/penguin-x7k2p"


def test_an_event_from_outside_is_for_its_namespace() -> None:
    happening = inbound_happening(make("team-a", V1EventKind.ALERT_INFO, "{{ alerts.disk }}", {"full": 0.9}, source="a", id_="1"), HERE)
    assert happening.targets == (Target(RefType.ALERTS, "team-a", "disk"),)
    assert (happening.kinds, happening.closes) == ({V1EventKind.ALERT_INFO}, True)
    assert happening.document()["data"] == {"ref": "alerts.disk", "kind": "alert_info", "full": 0.9}


def test_events_from_outside_are_told_apart_by_source_and_id() -> None:
    def subject(source: str, id_: str) -> str:
        return inbound_happening(make("team-a", V1EventKind.ALERT_INFO, "alerts.disk", {}, source=source, id_=id_), HERE).subject

    assert subject("a", "1") == subject("a", "1")
    assert len({subject("a", "1"), subject("b", "1"), subject("a", "2"), subject("a1", "1")}) == 4
