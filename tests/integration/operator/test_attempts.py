"""More than one attempt, on real parts: retries by the operator, re-opens at the backend, and values that an attempt starts with."""

import json
import signal
from datetime import datetime, timedelta
from typing import Any

import pytest

from kfp_operator.api.run import Run
from kfp_operator.cli.start import start
from kfp_operator.cli.target import Target
from tests.doubles.kfp_api.outcomes import Outcome
from tests.integration.operator.backends import BACKENDS, KubeflowBackend
from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import API_VERSION, KINDS, NAMES, Bench
from tests.integration.operator.together import scenario
from tests.integration.operator.verdict import settled, starts
from tests.waiting import eventually

PAUSE = timedelta(seconds=10)
on_every_backend = pytest.mark.parametrize("backend", BACKENDS)


def told(bench: Bench, run: Run) -> list[dict[str, Any]]:
    """Data of the Run's run-status events, in order."""
    events = Reader(bench.nats.url).events()
    return [e["data"] for e in events if e["type"].endswith("run-status") and e["data"]["runUid"] == run.metadata.uid]


def completions(bench: Bench, run: Run) -> list[dict[str, Any]]:
    return [d for d in Reader(bench.nats.url).completions() if d["runUid"] == run.metadata.uid]


def ended(bench: Bench, name: str, state: str, *, attempt: int, submissions: int, completed: int = 1, within: float = 90) -> Run:
    """The settled Run: status, label and events agree on how its last attempt ended, and each number was given once."""

    def there() -> Run | None:
        run = settled(bench, {name: state}, within)[name]
        return run if run.status.attempt == attempt else None

    run = eventually(there, within, f"{name} has ended its attempt {attempt}")
    statuses, ends = told(bench, run), completions(bench, run)
    assert run.status.state == state, run.status.to_json()
    assert [s["transition"] for s in statuses] == list(range(1, len(statuses) + 1))
    assert [s["attempt"] for s in statuses] == sorted(s["attempt"] for s in statuses)
    assert (len(ends), ends[-1]["attempt"], ends[-1]["state"]) == (completed, attempt, state)
    assert ends[-1]["message"] == run.status.message
    assert starts(bench)[run.metadata.uid] == submissions, "each submission was started once"
    return run


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@on_every_backend
@scenario
def test_a_run_that_fails_is_tried_again_after_a_pause_and_told_once_at_its_end(bench: Bench, backend: str) -> None:
    bench.operator().start()
    bench.prepare()
    bench.apply(bench.run("it", "raise", retries=1))
    waits = bench.wait("it", "retrying")
    assert "tried again in 10 s (retry 1 of 1)" in waits.status.message
    assert waits.status.attempt == 1
    assert not completions(bench, waits)
    run = ended(bench, "it", "failed", attempt=2, submissions=2)
    statuses = told(bench, run)
    retrying = next(s for s in statuses if s["state"] == "retrying")
    again = next(s for s in statuses if s["attempt"] == 2)
    assert (retrying["attempt"], retrying["submission"], retrying["firstAttempt"]) == (1, 2, 2)
    assert (again["submission"], again["previousState"]) == (2, "retrying")
    assert moment(again["time"]) >= moment(retrying["time"]) + PAUSE - timedelta(seconds=1), "backends tell whole seconds"
    assert again["runId"] != retrying["runId"]
    assert run.status.submission == 2


@on_every_backend
@scenario
def test_a_run_that_is_cancelled_in_its_pause_is_not_tried_again(bench: Bench, backend: str) -> None:
    bench.operator().start()
    bench.prepare()
    bench.apply(bench.run("it", "raise", retries=3))
    bench.wait("it", "retrying")
    bench.apply(bench.run("it", "raise", retries=3, cancel=True))
    run = ended(bench, "it", "stopped", attempt=2, submissions=1)
    assert completions(bench, run)[0]["runId"] == ""
    assert run.status.message == "cancelled before it was submitted again"


@on_every_backend
@scenario
def test_all_attempts_together_have_as_long_as_the_run(bench: Bench, backend: str) -> None:
    bench.operator().start()
    bench.prepare()
    bench.apply(bench.run("it", "raise", retries=3, activeDeadlineSeconds=9))
    run = ended(bench, "it", "failed", attempt=2, submissions=1)
    assert run.status.message == "ran longer than spec.activeDeadlineSeconds (9 s)"


@pytest.mark.parametrize("backend", ["kubeflow"])
@scenario
def test_a_later_attempt_that_succeeds_is_the_outcome(bench: Bench, backend: str) -> None:
    assert isinstance(bench.backend, KubeflowBackend)
    bench.operator().start()
    bench.prepare()
    bench.backend.server.outcome(Outcome(fails_in="act"), times=1)
    bench.apply(bench.run("it", retries=2))
    run = ended(bench, "it", "succeeded", attempt=2, submissions=2)
    assert [a.name for a in run.status.artifacts] == ["model"]
    (end,) = completions(bench, run)
    assert (end["status"], end["submission"], len(end["artifacts"])) == ("succeeded", 2, 1)


def _reopened(bench: Bench, name: str) -> None:
    """Somebody retries the Run's run in the UI."""
    run = bench.get(name)
    assert run is not None
    assert isinstance(bench.backend, KubeflowBackend)
    bench.backend.server.retry(run.status.provider_id)


@pytest.mark.parametrize("backend", ["kubeflow"])
@scenario
def test_a_settled_run_that_is_retried_at_the_backend_gets_another_attempt_and_another_completion(bench: Bench, backend: str) -> None:
    assert isinstance(bench.backend, KubeflowBackend)
    operator = bench.operator().start()
    bench.prepare()
    bench.backend.server.outcome(Outcome(fails_in="act", then=Outcome(seconds=4)), times=1)
    bench.apply(bench.run("it"))
    ended(bench, "it", "failed", attempt=1, submissions=1)
    _reopened(bench, "it")

    def goes_on() -> Run | None:
        run = bench.get("it")
        return run if run is not None and run.status.attempt == 2 and run.metadata.finalizers else None

    again = eventually(goes_on, 30, "the Run goes on")
    assert NAMES.completed not in again.metadata.labels
    assert (again.status.completion_state, again.status.end_time, again.status.message) == (None, None, "")
    run = ended(bench, "it", "succeeded", attempt=2, submissions=1, completed=2)
    assert run.status.submission is None, "the operator submitted it once"
    operator.stop()
    operator.restart().wait_ready()
    settled_again = bench.released("it")
    assert settled_again.metadata.resource_version == run.metadata.resource_version, "nothing is left to do for it"


@pytest.mark.parametrize("point", ["status-published:3", "submitted:2"])
@on_every_backend
@scenario
def test_a_run_is_tried_again_once_though_the_operator_is_killed(bench: Bench, backend: str, point: str) -> None:
    """After the event that says so, the third one; after the second submission."""
    operator = bench.operator(fault=point, leaderElection={"enabled": False}).start()
    bench.prepare()
    bench.apply(bench.run("it", "raise", retries=1))
    assert operator.wait_end(60) == -signal.SIGKILL
    operator.restart()
    ended(bench, "it", "failed", attempt=2, submissions=2)


@pytest.mark.parametrize("point", ["reopened", "status-published", "completion-published"])
@pytest.mark.parametrize("backend", ["kubeflow"])
@scenario
def test_a_reopened_run_is_told_once_though_the_operator_is_killed(bench: Bench, backend: str, point: str) -> None:
    assert isinstance(bench.backend, KubeflowBackend)
    operator = bench.operator(leaderElection={"enabled": False}).start()
    bench.prepare()
    bench.backend.server.outcome(Outcome(fails_in="act", then=Outcome(seconds=4)), times=1)
    bench.apply(bench.run("it"))
    ended(bench, "it", "failed", attempt=1, submissions=1)
    operator.stop()
    operator.restart(fault=point).wait_ready()
    _reopened(bench, "it")
    assert operator.wait_end(60) == -signal.SIGKILL
    operator.restart()
    ended(bench, "it", "succeeded", attempt=2, submissions=1, completed=2)


@scenario
def test_a_run_by_hand_waits_for_what_another_configuration_produces(bench: Bench) -> None:
    bench.operator().start()
    bench.prepare()
    ref = {"name": "base", "outputArtifact": "model"}
    document = bench.run("it", retries=1)
    document["spec"]["parameters"].append({"name": "wait_for", "valueFrom": {"runConfigurationRef": ref}})
    bench.apply(document)
    bench.wait_reason("mlr", "it", "RunConfigurationNotFound", says=f"{bench.namespace}/base")
    template = {"pipeline": bench.scenario, "parameters": [{"name": "mode", "value": "succeed"}]}
    base = {"apiVersion": API_VERSION, "kind": "RunConfiguration", "metadata": {"name": "base"}, "spec": {"run": template}}
    bench.apply(base)
    bench.wait_reason("mlr", "it", "ArtifactNotDeclared", says="spec.run.artifacts")
    assert bench.condition("mlr", "it", "Stalled") is not None, "only a person can declare it"
    template["artifacts"] = [{"name": "model", "path": "act:model"}]
    bench.apply(base)
    bench.wait_reason("mlr", "it", "ArtifactNotFound", says="the first run of RunConfiguration")
    assert bench.condition("mlr", "it", "Stalled") is None
    name, _ = bench.ask(lambda client: start(Target(client, KINDS, NAMES, bench.namespace), "base", {}))
    produced = bench.wait(name, "succeeded").status.artifacts[0].location
    run = ended(bench, "it", "succeeded", attempt=1, submissions=1)
    (value,) = run.status.resolved
    assert (value.name, value.value, value.run_configuration) == ("wait_for", produced, f"{bench.namespace}/base")
    submissions = [json.loads(file.read_text()) for file in bench.folder.glob("*/state/providers/*/*/runs/*/submission.json")]
    (submitted,) = (s for s in submissions if s["uid"] == run.metadata.uid)
    assert submitted["parameters"]["wait_for"] == produced
