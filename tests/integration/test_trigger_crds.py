"""The CRDs of Experiment, RunConfiguration and RunSchedule on a real API server."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from subprocess import CompletedProcess
from typing import Any

import pytest

from kfp_operator.api import conditions
from kfp_operator.api.clip import clip
from kfp_operator.api.crd import KINDS
from kfp_operator.api.experiment import ExperimentStatus
from kfp_operator.api.names import DEFAULT_GROUP
from kfp_operator.api.run import RunArtifact
from kfp_operator.api.run_configuration import (
    Dependency,
    EndedRun,
    LatestRun,
    LatestRuns,
    RunConfiguration,
    RunConfigurationStatus,
    TriggerStatus,
)
from kfp_operator.api.run_schedule import RunSchedule, RunScheduleStatus
from kfp_operator.api.schedule import ActiveRun
from kfp_operator.api.states import SyncState
from tests.cluster import Cluster
from tests.integration.crds import Refused, columns, manifest, refusals, stream

Kubectl = Callable[..., CompletedProcess[str]]

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LONGEST = "a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 8
"""A name of 200 characters, from which those of Runs are made."""
TOO_LONG = LONGEST + "d"

PROVIDER = 'must be "namespace/name" of a Provider'
CRON = "must have five fields (minute, hour, day of month, month, day of week) or six with seconds first"
YEAR = {"startTime": "2026-01-01T00:00:00Z", "endTime": "2026-12-31T23:59:59Z"}
BACKWARDS = {"startTime": "2026-12-31T23:59:59+00:00", "endTime": "2027-01-01T00:59:58+01:00"}
HOURLY = {"cronExpression": "0 * * * *"}


def scheduled(**schedule: Any) -> dict[str, Any]:
    """The spec of a RunSchedule."""
    return {"pipeline": "p", "schedule": HOURLY | schedule}


def triggered(*schedules: dict[str, Any], **triggers: Any) -> dict[str, Any]:
    """The spec of a RunConfiguration."""
    return {"run": {"pipeline": "p"}, "triggers": {"schedules": list(schedules), **triggers}}


REFUSED: dict[str, Refused] = {
    "experiment-no-provider": ("Experiment", {}, "spec.provider", "Required value"),
    "experiment-provider": ("Experiment", {"provider": "kfp"}, "spec.provider", PROVIDER),
    "experiment-description": ("Experiment", {"provider": "a/b", "description": "x" * 4097}, "spec.description", "more than 4096"),
    "schedule-none": ("RunSchedule", {"pipeline": "p"}, "spec.schedule", "Required value"),
    "schedule-no-cron": ("RunSchedule", {"pipeline": "p", "schedule": {}}, "spec.schedule.cronExpression", "Required value"),
    "schedule-empty-cron": ("RunSchedule", scheduled(cronExpression=""), "spec.schedule.cronExpression", "at least 1 chars"),
    "schedule-four-fields": ("RunSchedule", scheduled(cronExpression="* * * *"), "spec.schedule.cronExpression", CRON),
    "schedule-seven-fields": ("RunSchedule", scheduled(cronExpression="* * * * * * *"), "spec.schedule.cronExpression", CRON),
    "schedule-macro": ("RunSchedule", scheduled(cronExpression="@every 5m"), "spec.schedule.cronExpression", CRON),
    "schedule-zone": ("RunSchedule", scheduled(timeZone="UTC+2; drop"), "spec.schedule.timeZone", "must be the name of a time zone"),
    "schedule-time": ("RunSchedule", scheduled(startTime="2026-01-01"), "spec.schedule.startTime", "must be of type date-time"),
    "schedule-backwards": ("RunSchedule", scheduled(**BACKWARDS), "spec.schedule.endTime", "endTime is before startTime"),
    "schedule-pipeline": ("RunSchedule", {"pipeline": "a/p", "schedule": HOURLY}, "spec.pipeline", 'must be the "name" or "name:version"'),
    "schedule-policy": (
        "RunSchedule",
        scheduled() | {"concurrencyPolicy": "Queue"},
        "spec.concurrencyPolicy",
        'supported values: "Allow", "Forbid", "Replace", "QueueLatest"',
    ),
    "schedule-deadline": ("RunSchedule", scheduled() | {"startingDeadlineSeconds": 0}, "spec.startingDeadlineSeconds", "equal to 1"),
    "schedule-history": ("RunSchedule", scheduled() | {"failedRunsHistoryLimit": -1}, "spec.failedRunsHistoryLimit", "equal to 0"),
    TOO_LONG: ("RunSchedule", scheduled(), "<nil>", "must have at most 200 characters"),
    "configuration-no-run": ("RunConfiguration", {}, "spec.run", "Required value"),
    "configuration-no-pipeline": ("RunConfiguration", {"run": {}}, "spec.run.pipeline", "Required value"),
    "configuration-provider": ("RunConfiguration", {"run": {"pipeline": "p", "provider": "b"}}, "spec.run.provider", PROVIDER),
    "configuration-on-change": ("RunConfiguration", triggered(onChange=["image"]), "spec.triggers.onChange[0]", '"pipeline", "runSpec"'),
    "configuration-on-change-twice": (
        "RunConfiguration",
        triggered(onChange=["pipeline", "pipeline"]),
        "spec.triggers.onChange[1]",
        "Duplicate value",
    ),
    "configuration-upstream": (
        "RunConfiguration",
        triggered(runConfigurations=["a/b/c"]),
        "spec.triggers.runConfigurations[0]",
        'must be the "name" or "namespace/name" of a RunConfiguration',
    ),
    "configuration-upstream-twice": (
        "RunConfiguration",
        triggered(runConfigurations=["a/b", "a/b"]),
        "spec.triggers.runConfigurations[1]",
        "Duplicate value",
    ),
    "configuration-itself": (
        "RunConfiguration",
        triggered(runConfigurations=["configuration-itself"]),
        "spec.triggers.runConfigurations",
        "cannot be started by itself",
    ),
    "configuration-cron": (
        "RunConfiguration",
        triggered(HOURLY, {"cronExpression": "hourly"}),
        "spec.triggers.schedules[1].cronExpression",
        CRON,
    ),
    "configuration-backwards": (
        "RunConfiguration",
        triggered(HOURLY | BACKWARDS),
        "spec.triggers.schedules[0].endTime",
        "endTime is before startTime",
    ),
    "configuration-schedule-name": (
        "RunConfiguration",
        triggered(HOURLY | {"name": "every hour"}),
        "spec.triggers.schedules[0].name",
        "must be lower case letters, digits and -",
    ),
    "configuration-schedule-names": (
        "RunConfiguration",
        triggered(HOURLY | {"name": "a"}, {"cronExpression": "@daily", "name": "a"}),
        "spec.triggers.schedules",
        "the names of spec.triggers.schedules must differ",
    ),
    "configuration-schedule-twice": (
        "RunConfiguration",
        triggered(HOURLY | YEAR, HOURLY, HOURLY | YEAR),
        "spec.triggers.schedules",
        "a schedule is in spec.triggers.schedules twice",
    ),
    "configuration-schedules-many": (
        "RunConfiguration",
        triggered(*(HOURLY | {"name": f"n{i}"} for i in range(33))),
        "spec.triggers.schedules",
        "Too many: 33: must have at most 32 items",
    ),
    "configuration-no-artifact": (
        "RunConfiguration",
        {"run": {"pipeline": "p", "parameters": [{"name": "a", "valueFrom": {"runConfigurationRef": {"name": "b"}}}]}},
        "spec.run.parameters[0].valueFrom.runConfigurationRef.outputArtifact",
        "Required value",
    ),
    "configuration-empty-source": (
        "RunConfiguration",
        {"run": {"pipeline": "p", "parameters": [{"name": "a", "valueFrom": {}}]}},
        "spec.run.parameters[0].valueFrom",
        "set runConfigurationRef",
    ),
    "configuration-start": ("RunConfiguration", triggered() | {"startFrom": "Now"}, "spec.startFrom", 'supported values: "New", "Latest"'),
    "configuration-namespaces": (
        "RunConfiguration",
        triggered() | {"allowedNamespaces": ["*"]},
        "spec.allowedNamespaces[0]",
        "must be the name of a namespace",
    ),
}


@pytest.fixture(scope="module")
def answers(cluster: Cluster) -> dict[str, str]:
    return refusals(cluster, REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_manifest_is_refused_with_the_field_and_the_accepted_form(answers: dict[str, str], name: str) -> None:
    _, _, field, message = REFUSED[name]
    assert f"{field}: " in answers[name]
    assert message in answers[name]


TAKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "experiment": ("Experiment", {"provider": "a/b", "description": "x" * 4096}),
    LONGEST: ("RunSchedule", scheduled(**YEAR, timeZone="America/Argentina/Buenos_Aires")),
    "seconds": ("RunSchedule", scheduled(cronExpression="*/30 0-5,7 * L JAN-MAR 5#2")),
    "macro": ("RunSchedule", scheduled(cronExpression="@daily")),
    "moment": ("RunSchedule", scheduled(startTime="2026-01-01T00:00:00Z", endTime="2026-01-01T00:00:00Z")),
    "everything": (
        "RunSchedule",
        {
            "pipeline": "p:v1",
            "provider": "a/b",
            "experimentName": "e",
            "parameters": [{"name": "n", "value": [1]}],
            "artifacts": [{"name": "m", "path": "c:o"}],
            "schedule": HOURLY,
            "activeDeadlineSeconds": 60,
            "retries": 2,
            "startingDeadlineSeconds": 10,
            "catchUp": "All",
            "concurrencyPolicy": "Forbid",
            "suspend": True,
            "successfulRunsHistoryLimit": 0,
            "failedRunsHistoryLimit": 10_000,
        },
    ),
    "unnamed": ("RunConfiguration", triggered(HOURLY, HOURLY | YEAR, {"cronExpression": "@daily", "name": ""})),
    "full": (
        "RunConfiguration",
        {
            "run": {
                "pipeline": "p",
                "parameters": [
                    {"name": "a", "valueFrom": {"runConfigurationRef": {"name": "full", "outputArtifact": "m", "optional": True}}},
                    {"name": "b", "valueFrom": {"runConfigurationRef": {"name": "base/other.rc", "outputArtifact": "m"}}},
                    {"name": "c"},
                ],
                "retries": 3,
                "ttlSecondsAfterFinished": 60,
                "deletionPolicy": "Orphan",
            },
            "triggers": {
                "schedules": [HOURLY | {"name": f"n{i}"} for i in range(32)],
                "onChange": ["runSpec", "pipeline"],
                "runConfigurations": ["other", "base/full"],
            },
            "startFrom": "Latest",
            "concurrencyPolicy": "QueueLatest",
            "suspend": True,
            "successfulRunsHistoryLimit": 5,
            "allowedNamespaces": ["a", "b"],
        },
    ),
}


def test_what_the_documentation_allows_is_taken_and_kept_as_it_is(kubectl: Kubectl, namespace: str) -> None:
    manifests = [manifest(kind, name, spec) for name, (kind, spec) in TAKEN.items()]
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=stream(*manifests))
    items = json.loads(kubectl("get", "mlexp,mlrc,mlrs", "--namespace", namespace, "--output", "json").stdout)["items"]
    stored = {item["metadata"]["name"]: item for item in items}
    for name, (kind, spec) in TAKEN.items():
        found = stored[name]
        assert found["kind"] == kind
        assert {key: found["spec"][key] for key in spec} == {key: filled(kind, value) for key, value in spec.items()}
        model = next(k.model for k in KINDS if k.name == kind)
        assert model.parse(found).metadata.name == name


def filled(kind: str, value: Any) -> Any:
    """With the defaults that the API server sets below the spec's own fields."""
    match value:
        case {"pipeline": _}:
            parameters = [_with_optional(parameter) for parameter in value.get("parameters", [])]
            return {"retries": 0, "deletionPolicy": "Cancel"} | value | ({"parameters": parameters} if parameters else {})
        case {"schedules": schedules}:
            return value | {"schedules": [{"catchUp": "Latest"} | schedule for schedule in schedules]}
    return value


def _with_optional(parameter: dict[str, Any]) -> dict[str, Any]:
    if "valueFrom" not in parameter:
        return parameter
    return parameter | {"valueFrom": {"runConfigurationRef": {"optional": False} | parameter["valueFrom"]["runConfigurationRef"]}}


def test_a_template_can_be_edited_and_a_schedule_too(kubectl: Kubectl, namespace: str) -> None:
    objects = (manifest("RunConfiguration", "x", triggered(HOURLY)), manifest("RunSchedule", "x", scheduled()))
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=stream(*objects))
    edited = {"pipeline": "q:v2", "provider": "a/c", "parameters": [{"name": "a", "value": 1}], "retries": 1}
    for kind, spec in (
        ("mlrc", {"run": edited}),
        ("mlrs", edited | {"schedule": {"cronExpression": "@daily", "timeZone": "Europe/Paris"}}),
    ):
        kubectl("patch", kind, "x", "--namespace", namespace, "--type=merge", "--patch", json.dumps({"spec": spec}))


def test_the_provider_of_an_experiment_cannot_be_changed(kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=json.dumps(manifest("Experiment", "x", {"provider": "a/b"})))
    patch = ("patch", "mlexp", "x", "--namespace", namespace, "--type=merge", "--patch")
    assert "spec.provider of an Experiment cannot be changed" in kubectl(*patch, '{"spec":{"provider":"a/c"}}', check=False).stderr
    kubectl(*patch, '{"spec":{"description":"another"}}')


LONG = "é" * 100_000
COMMON: dict[str, Any] = {
    "synchronization_state": SyncState.UPDATING,
    "provider": LONG,
    "provider_id": LONG,
    "version": LONG,
    "observed_generation": 1,
    "conditions": conditions.apply([], conditions.progressing("ProviderNotFound", LONG, stalled=True), generation=1, now=NOW),
    "message": LONG,
}
ARTIFACTS = [RunArtifact(name=LONG, location="gs://" + "a" * 5000, type=LONG, metadata={str(i): [i] for i in range(200)})] * 5
ENDED: dict[str, Any] = {"number": 7, "name": LONG, "uid": LONG, "attempt": 2, "state": LONG, "provider_id": LONG, "end_time": NOW}
ACTIVE = [ActiveRun(name=LONG, uid=LONG)] * 200
STATUSES = {
    "Experiment": ({"provider": "a/b"}, ExperimentStatus(**COMMON)),
    "RunSchedule": (
        scheduled(),
        RunScheduleStatus(
            **COMMON,
            active=ACTIVE,
            last_schedule_time=NOW,
            last_successful_time=NOW,
            next_schedule_time=NOW,
            queued_time=NOW,
            scheduled_until=NOW,
            schedule=LONG,
        ),
    ),
    "RunConfiguration": (
        triggered(),
        RunConfigurationStatus(
            **COMMON,
            latest_runs=LatestRuns(
                succeeded=LatestRun(**ENDED, artifacts=ARTIFACTS),
                failed=LatestRun(**ENDED),
            ),
            recent_runs=[EndedRun(**ENDED)] * 60,
            triggers=[
                TriggerStatus(
                    name=LONG,
                    subject=LONG,
                    baseline=LONG,
                    last_run=LONG,
                    last_time=NOW,
                    pending=["uid.1"] * 1200,
                    suppressed=3,
                    message=LONG,
                )
            ]
            * 20,
            dependencies=[Dependency(name=LONG, provider_id=LONG, artifacts=ARTIFACTS)],
            active=ACTIVE,
            pipeline_version=LONG,
            last_schedule_time=NOW,
            last_successful_time=NOW,
            next_schedule_time=NOW,
        ),
    ),
}


@pytest.mark.parametrize("kind", STATUSES)
def test_every_status_that_is_clipped_is_taken(kubectl: Kubectl, namespace: str, kind: str) -> None:
    spec, status = STATUSES[kind]
    body = manifest(kind, "x", spec)
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=json.dumps(body))
    clipped = clip(status).to_json()
    answer = kubectl(
        "replace", "--subresource=status", "--namespace", namespace, "--output", "json", "--filename", "-",
        stdin=json.dumps(body | {"status": clipped}),
    )  # fmt: skip
    assert json.loads(answer.stdout)["status"] == clipped


def show(kubectl: Kubectl, namespace: str, kind: str, spec: dict[str, Any], status: Any) -> tuple[dict[str, str], dict[str, str]]:
    """One object's row in ``kubectl get``, and in ``kubectl get -o wide``."""
    body = manifest(kind, "x", spec)
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=json.dumps(body))
    update = json.dumps(body | {"status": status.to_json()})
    kubectl("replace", "--subresource=status", "--namespace", namespace, "--filename", "-", stdin=update)
    plural = next(k.plural for k in KINDS if k.name == kind)
    [narrow] = columns(kubectl("get", plural, "--namespace", namespace).stdout)
    [wide] = columns(kubectl("get", plural, "--namespace", namespace, "--output", "wide").stdout)
    assert narrow.pop("AGE")
    return narrow, wide


def ready(reason: str) -> list[Any]:
    return conditions.apply([], conditions.progressing(reason, "why"), generation=1, now=NOW)


def test_kubectl_shows_where_an_experiment_is(kubectl: Kubectl, namespace: str) -> None:
    status = ExperimentStatus(
        synchronization_state=SyncState.CREATING, provider_id="exp-1", conditions=ready("ProviderNotFound"), message="why"
    )
    narrow, wide = show(kubectl, namespace, "Experiment", {"provider": "a/b"}, status)
    assert narrow == {"NAME": "x", "STATE": "Creating", "REASON": "ProviderNotFound", "PROVIDER": "a/b"}
    assert (wide["ID"], wide["MESSAGE"]) == ("exp-1", "why")


def test_kubectl_shows_a_run_schedule_as_it_shows_a_cron_job(kubectl: Kubectl, namespace: str) -> None:
    status = RunScheduleStatus(
        active=[ActiveRun(name="x-1")], last_schedule_time=NOW, next_schedule_time=NOW, conditions=ready("Suspended"), message="why"
    )
    narrow, wide = show(kubectl, namespace, "RunSchedule", scheduled(timeZone="Europe/Paris"), status)
    assert narrow.pop("LAST SCHEDULE").endswith("d")
    assert narrow == {
        "NAME": "x",
        "SCHEDULE": "0 * * * *",
        "SUSPEND": "false",
        "REASON": "Suspended",
        "PIPELINE": "p",
    }
    told = [wide[column] for column in ("TIME ZONE", "ACTIVE", "NEXT SCHEDULE", "MESSAGE")]
    assert told == ["Europe/Paris", "x-1", "2026-01-02T03:04:05Z", "why"]


def test_kubectl_shows_what_a_run_configuration_does(kubectl: Kubectl, namespace: str) -> None:
    status = RunConfigurationStatus(
        active=[ActiveRun(name="x-1"), ActiveRun(name="x-2")],
        last_successful_time=NOW,
        next_schedule_time=NOW,
        conditions=ready("Waiting"),
        message="why",
    )
    narrow, wide = show(kubectl, namespace, "RunConfiguration", triggered(HOURLY) | {"suspend": True}, status)
    assert narrow.pop("LAST SUCCESS").endswith("d")
    assert narrow == {"NAME": "x", "REASON": "Waiting", "SUSPEND": "true", "PIPELINE": "p"}
    assert (wide["ACTIVE"], wide["NEXT SCHEDULE"], wide["MESSAGE"]) == ("x-1", "2026-01-02T03:04:05Z", "why")


def test_they_are_selected_by_provider_and_pipeline(kubectl: Kubectl, namespace: str) -> None:
    objects = [
        manifest("Experiment", "x", {"provider": "a/b"}),
        manifest("RunSchedule", "x", scheduled() | {"provider": "a/b"}),
        manifest("RunConfiguration", "x", {"run": {"pipeline": "p", "provider": "a/b"}}),
        manifest("Experiment", "y", {"provider": "a/c"}),
        manifest("RunSchedule", "y", scheduled() | {"pipeline": "q"}),
        manifest("RunConfiguration", "y", {"run": {"pipeline": "q"}}),
    ]
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=stream(*objects))
    for kind, selector in [
        ("experiment", "spec.provider=a/b"),
        ("runschedule", "spec.provider=a/b"),
        ("runschedule", "spec.pipeline=p"),
        ("runconfiguration", "spec.run.provider=a/b"),
        ("runconfiguration", "spec.run.pipeline=p"),
    ]:
        answer = kubectl("get", kind, "--namespace", namespace, "--field-selector", selector, "--output", "name")
        assert answer.stdout.split() == [f"{kind}.{DEFAULT_GROUP}/x"], selector
    everything = kubectl("get", "mlops", "--namespace", namespace, "--output", "name").stdout.split()
    assert len(everything) == len(objects)


def test_models_read_what_the_api_server_fills_in(kubectl: Kubectl, namespace: str) -> None:
    objects = (manifest("RunConfiguration", "x", triggered(HOURLY)), manifest("RunSchedule", "x", scheduled()))
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=stream(*objects))
    configuration = RunConfiguration.parse(json.loads(kubectl("get", "mlrc", "x", "--namespace", namespace, "--output", "json").stdout))
    schedule = RunSchedule.parse(json.loads(kubectl("get", "mlrs", "x", "--namespace", namespace, "--output", "json").stdout))
    assert (configuration.spec.concurrency_policy, configuration.spec.start_from, configuration.spec.suspend) == ("Allow", "New", False)
    assert configuration.spec.successful_runs_history_limit is None
    assert (schedule.spec.successful_runs_history_limit, schedule.spec.failed_runs_history_limit) == (3, 3)
    assert (configuration.spec.triggers.schedules[0].catch_up, schedule.spec.catch_up) == ("Latest", "Latest")
