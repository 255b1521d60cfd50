"""Event triggers as a part of a CRD, on a real API server: a kind of its own, made for this test, has them in all places."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from subprocess import CompletedProcess
from typing import Annotated, Any

import pytest
from pydantic import Field

from kfp_operator.api.clip import clip
from kfp_operator.api.event_trigger import (
    EVENTS,
    MAX_EVENTS,
    MAX_HANDLED,
    MAX_PENDING,
    OPERATION_EVENTS,
    EventsStatus,
    EventTrigger,
    EventTriggerStatus,
    PendingOccurrence,
    StreamPosition,
)
from kfp_operator.api.meta import Model, Resource
from kfp_operator.api.schema import Enforced, keyed_by, structural
from kfp_operator.schemas import V1EventKind
from tests.cluster import Cluster

Kubectl = Callable[..., CompletedProcess[str]]
GROUP = "triggers.kfp-operator.test"


class Operation(Model):
    """An operation."""

    name: Annotated[str, Enforced(min_length=1, max_length=63)] = Field(description="Its name.")
    events: Annotated[list[EventTrigger], OPERATION_EVENTS] = Field(default_factory=list, description="What it waits for.")


class WaiterSpec(Model):
    """What it waits for."""

    events: Annotated[list[EventTrigger], EVENTS] = Field(default_factory=list, description="Triggers.")
    operations: Annotated[list[Operation], keyed_by("name", 100)] = Field(default_factory=list, description="Operations.")


class Waiter(Resource):
    """Something with triggers."""

    spec: WaiterSpec = Field(description="What it waits for.")
    status: EventsStatus = Field(default_factory=EventsStatus, description="How far it got.")


def crd() -> dict[str, Any]:
    parts = Waiter.model_json_schema(by_alias=True)
    properties: dict[str, Any] = {"metadata": {"type": "object"}}
    for part in ("spec", "status"):
        properties[part] = structural({**parts["properties"][part], "$defs": parts["$defs"]}, defaults=part == "spec")
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"waiters.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": {"kind": "Waiter", "plural": "waiters"}, "versions": [version]},
    }


@pytest.fixture(scope="module")
def waiters(cluster: Cluster) -> Iterator[None]:
    cluster.kubectl("apply", "--server-side", "--filename", "-", stdin=json.dumps(crd()))
    cluster.kubectl("wait", "--for=condition=Established", f"crd/waiters.{GROUP}", "--timeout=60s")
    yield
    cluster.kubectl("delete", "crd", f"waiters.{GROUP}", "--wait=false")


def waiter(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": f"{GROUP}/v1", "kind": "Waiter", "metadata": {"name": name}, "spec": spec}


def event(**changes: Any) -> dict[str, Any]:
    return {"ref": "runConfigurations.train", "kinds": ["run_status_running"]} | changes


def events(*triggers: dict[str, Any]) -> dict[str, Any]:
    return {"events": list(triggers)}


FORMS = "must be one of: ops.NAME (an operation, in a Dag), runs.NAME or runs.UID, runConfigurations.[NAMESPACE/]NAME"
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no-ref": (events({"kinds": ["run_status_done"]}), "spec.events[0].ref", "Required value"),
    "no-kinds": (events({"ref": "runs.a"}), "spec.events[0].kinds", "Required value"),
    "empty-ref": (events(event(ref="")), "spec.events[0].ref", "should be at least 1 chars long"),
    "only-a-type": (events(event(ref="runs")), "spec.events[0].ref", FORMS),
    "no-name": (events(event(ref="runs.")), "spec.events[0].ref", FORMS),
    "unknown-type": (events(event(ref="jobs.a")), "spec.events[0].ref", FORMS),
    "half-braces": (events(event(ref="{{ runs.a")), "spec.events[0].ref", FORMS),
    "other-half": (events(event(ref="runs.a }}")), "spec.events[0].ref", FORMS),
    "upper-case-run": (events(event(ref="runs.A")), "spec.events[0].ref", FORMS),
    "long-ref": (events(event(ref="runs." + "a" * 400)), "spec.events[0].ref", "may not be more than 400"),
    "empty-kinds": (events(event(kinds=[])), "spec.events[0].kinds", "should have at least 1 items"),
    "wrong-case": (events(event(kinds=["Run_Status_Running"])), "spec.events[0].kinds[0]", 'supported values: "run_status_created"'),
    "kind-of-alerts": (
        events(event(kinds=["alert_info"])),
        "spec.events[0].kinds",
        "what can come from ops, runs, runConfigurations, pipelines: run_status_*",
    ),
    "kind-of-runs": (
        events(event(ref="{{ Connections.git }}")),
        "spec.events[0].kinds",
        "what can come from connections: connection_git_commit, connection_dataset_version, connection_registry_image",
    ),
    "one-of-two-kinds": (
        events(event(ref="alerts.a", kinds=["alert_info", "run_status_done"])),
        "spec.events[0].kinds",
        "what can come from alerts: alert_info, alert_warning, alert_critical",
    ),
    "name-with-spaces": (events(event(name="on train")), "spec.events[0].name", "must be lower-case letters, digits and '-'"),
    "long-name": (events(event(name="a" * 64)), "spec.events[0].name", "may not be more than 63"),
    "same-name": (
        events(event(name="a"), event(), event(ref="runs.b", name="a")),
        "spec.events",
        "the names of event triggers in one list must differ",
    ),
    "long-filter": (events(event(filter="x" * 1025)), "spec.events[0].filter", "may not be more than 1024"),
    "start-from": (events(event(startFrom="Oldest")), "spec.events[0].startFrom", 'supported values: "New", "Latest"'),
    "operation-outside": (events(event(ref="{{ ops.train }}")), "spec.events", "ops.NAME names an operation of a Dag"),
    "operation-in-capitals": (events(event(ref="OPS.train")), "spec.events", "ops.NAME names an operation of a Dag"),
    "too-many": (events(*[event()] * (MAX_EVENTS + 1)), "spec.events", "must have at most 32 items"),
    "in-an-operation": ({"operations": [{"name": "a", "events": [event(ref="ops.")]}]}, "spec.operations[0].events[0].ref", FORMS),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_trigger_is_refused_with_the_field_and_the_accepted_form(kubectl: Kubectl, waiters: None, name: str) -> None:
    spec, field, message = REFUSED[name]
    answer = kubectl("create", "--validate=ignore", "--dry-run=server", "--filename", "-", stdin=json.dumps(waiter("w", spec)), check=False)
    said = answer.stderr.partition("is invalid: ")[2]
    assert f"{field}: " in said, answer.stderr
    assert message in said


TAKEN: dict[str, dict[str, Any]] = {
    "all-kinds": events(event(ref="pipelines.a.b", kinds=[*map(str, V1EventKind), "run_status_initializing"][:24])),
    "templated": events(event(ref="{{ runConfigurations.other-ns/train }}"), event(ref="{{runs.5b0f2a4e-8c3d-4f0a-9a1b-0c2d4e6f8a10}}")),
    "external": events(
        event(ref="connections.git-repo-connection-name", kinds=["connection_git_commit"]),
        event(ref="models.team/Penguin_v2", kinds=["model_version_new_metric"]),
        event(ref="projects.p", kinds=["project_custom_event"]),
        event(ref="orgs.Acme", kinds=["org_custom_event"]),
        event(ref="alerts.HighErrorRate", kinds=["alert_warning", "alert_critical", "alert_warning"]),
    ),
    "full": events(event(name="on-train", filter='event.data.state == "running"', startFrom="Latest"), event(name=""), event()),
    "operations": {"operations": [{"name": "tensorboard", "events": [event(ref="{{ ops.upstream_operation_name }}")]}]},
    "most": events(*[event(name=f"t{n}", kinds=[str(k) for k in V1EventKind if k.internal]) for n in range(MAX_EVENTS)]),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_documented_is_taken_and_means_the_same_in_python(kubectl: Kubectl, waiters: None, namespace: str, name: str) -> None:
    spec = json.loads(json.dumps(TAKEN[name]))
    if name == "all-kinds":
        spec["events"][0]["kinds"] = [str(kind) for kind in V1EventKind if kind.internal] + ["run_status_initializing"]
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=json.dumps(waiter(name, spec)))
    found = Waiter.parse(json.loads(kubectl("get", "waiters", name, "--namespace", namespace, "--output", "json").stdout))
    written = [*spec.get("events", []), *(one for operation in spec.get("operations", []) for one in operation["events"])]
    read = [*found.spec.events, *(one for operation in found.spec.operations for one in operation.events)]
    assert len(read) == len(written)
    for one, said in zip(read, written, strict=True):
        parsed = one.parsed()
        assert parsed.ref == said["ref"].strip("{} ")
        assert set(parsed.kinds) == {V1EventKind(kind) for kind in said["kinds"]}
        assert (parsed.name, parsed.filter, parsed.start_from) == (
            said.get("name", ""),
            said.get("filter", ""),
            said.get("startFrom", "New"),
        )


def test_what_is_remembered_of_triggers_can_be_stored_at_its_fullest(kubectl: Kubectl, waiters: None, namespace: str) -> None:
    position = StreamPosition(stream="inbound", created="2026-01-02T03:04:05.123456789Z", sequence=2**53)
    now = datetime(2026, 1, 2, tzinfo=UTC)
    full = EventsStatus(
        triggers=[
            EventTriggerStatus(name=f"t{n}", spec="a" * 64, since=[position] * 2, last_time=now, last_run="r" * 253, message="m" * 5000)
            for n in range(MAX_EVENTS)
        ],
        pending=[
            PendingOccurrence(trigger="t" * 63, subject="s" * 41, kind="connection_dataset_version", about="a" * 317, position=position)
            for n in range(MAX_PENDING)
        ],
        handled=[f"{n:032x}" for n in range(MAX_HANDLED)],
        floors=[position] * 2,
    )
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=json.dumps(waiter("full", events(event()))))
    patch = json.dumps({"status": clip(full).to_json()})
    assert len(patch) < 1_000_000
    path = f"/apis/{GROUP}/v1/namespaces/{namespace}/waiters/full"
    stored = json.loads(kubectl("get", "--raw", path).stdout)
    answer = kubectl("replace", "--raw", f"{path}/status", "--filename", "-", stdin=json.dumps(stored | json.loads(patch)))
    assert Waiter.parse(json.loads(answer.stdout)).status == clip(full)
