"""Resources as the API server sends them, and back."""

from datetime import UTC, datetime, timedelta, timezone

from kfp_operator.api.clip import clip
from kfp_operator.api.meta import Condition
from kfp_operator.api.names import DEFAULT_GROUP, Names, label_value
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.run import MAX_HISTORY, HistoryEntry, Run, RunArtifact, RunSpec, RunStatus
from kfp_operator.api.states import RunState

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def run(**parts: object) -> Run:
    return Run.parse({"metadata": {"name": "r", "namespace": "team-a"}, "spec": {"pipeline": "p"}, **parts})


def test_what_is_absent_stays_absent() -> None:
    assert run().spec.to_json() == {
        "pipeline": "p",
        "provider": "",
        "experimentName": "",
        "parameters": [],
        "artifacts": [],
        "retries": 0,
        "deletionPolicy": "Cancel",
        "cancel": False,
    }


def test_members_from_a_later_version_are_ignored() -> None:
    found = run(spec={"pipeline": "p", "events": [{"ref": "runs.x"}]}, kind="Run", status={"state": "running", "later": 1})
    assert found.status.state is RunState.RUNNING


def test_a_pipelines_name_may_have_dots_and_a_version() -> None:
    spec = RunSpec(pipeline="penguin.v2.team-a:v1.0-49e208")
    assert (spec.pipeline_name, spec.pipeline_version) == ("penguin.v2.team-a", "v1.0-49e208")
    assert RunSpec(pipeline="penguin").pipeline_version == ""


def test_the_go_operators_status_is_read() -> None:
    status = run(status={"provider": {"name": "kfp-ns/kfp", "id": "0b9c"}, "version": "49e208"}).status
    assert (status.provider, status.provider_id, status.version) == ("kfp-ns/kfp", "0b9c", "49e208")
    old = {"metadata": {"name": "p", "namespace": "n"}, "spec": {"provider": "a/b"}, "status": {"provider": {"name": "", "id": ""}}}
    assert Pipeline.parse(old).status.provider == ""


def test_times_are_written_in_utc() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=5)))
    assert (
        Condition(type="Ready", status="True", reason="A", last_transition_time=there).to_json()["lastTransitionTime"]
        == "2026-01-02T03:04:05Z"
    )
    assert HistoryEntry(state=RunState.RUNNING, time=there).to_json()["time"] == "2026-01-02T03:04:05.678901Z"


def test_states_have_a_reason_in_camel_case() -> None:
    assert (RunState.UPSTREAM_FAILED.reason, RunState.RUNNING.reason) == ("UpstreamFailed", "Running")


def test_names_follow_the_group() -> None:
    names = Names("pipelines.kubeflow.org")
    assert (names.finalizer, names.api_version) == ("pipelines.kubeflow.org/cleanup", "pipelines.kubeflow.org/v1beta1")
    assert Names().completed == f"{DEFAULT_GROUP}/completed"


def test_a_label_holds_a_long_name_as_its_begin_and_a_hash() -> None:
    first, second = label_value("a" * 253), label_value("a" * 252 + "b")
    assert label_value("a" * 63) == "a" * 63
    assert len(first) == 63
    assert first != second
    assert first.startswith("a" * 52 + "-")


def test_a_status_is_cut_to_the_bounds_of_its_crd() -> None:
    status = RunStatus(
        message="x" * 40_000,
        failed_task="é" * 1024,
        artifacts=[RunArtifact(name="m", location="l" * 5000, metadata={str(i): i for i in range(200)})] * 300,
        history=[HistoryEntry(state=RunState.RUNNING, time=NOW, message="y" * 2000)] * (MAX_HISTORY + 1),
    )
    cut = clip(status)
    assert len(cut.message) == 32768
    assert cut.message.endswith("…")
    assert cut.failed_task == status.failed_task
    assert (len(cut.artifacts), len(cut.artifacts[0].location), len(cut.artifacts[0].metadata)) == (256, 4096, 128)
    assert (len(cut.history), len(cut.history[0].message)) == (MAX_HISTORY, 1024)


def test_a_status_within_its_bounds_is_left_as_it_is() -> None:
    status = RunStatus(message="fine", history=[HistoryEntry(state=RunState.RUNNING, time=NOW)])
    assert clip(status) is status
