"""The CRDs on a real API server: what it takes and refuses, in which words, and how kubectl shows it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from kfp_operator.api import conditions
from kfp_operator.api.clip import clip
from kfp_operator.api.crd import KINDS, crd_yaml, schema
from kfp_operator.api.names import DEFAULT_GROUP
from kfp_operator.api.pipeline import PipelineStatus
from kfp_operator.api.provider import ProviderStatus
from kfp_operator.api.run import Cancellation, HistoryEntry, Run, RunArtifact, RunStatus
from kfp_operator.api.states import RunState, SyncState
from tests.cluster import Cluster
from tests.integration.crds import Refused, columns, manifest, refusals, stream

Kubectl = Callable[..., CompletedProcess[str]]

REPOSITORY = Path(__file__).parents[2]
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LONG = ".".join(["a" * 63] * 3 + ["b" * 61])
"""A name of 253 characters."""


def run(name: str, **spec: Any) -> dict[str, Any]:
    return manifest("Run", name, {"pipeline": "p", **spec})


def test_the_api_server_takes_the_schemas_as_structural(kubectl: Kubectl) -> None:
    for kind in KINDS:
        found = json.loads(kubectl("get", "crd", f"{kind.plural}.{DEFAULT_GROUP}", "--output", "json").stdout)
        assert {c["type"]: c["status"] for c in found["status"]["conditions"]} == {"NamesAccepted": "True", "Established": "True"}


def test_the_api_server_takes_them_under_another_group(kubectl: Kubectl) -> None:
    answer = kubectl("apply", "--dry-run=server", "--filename", "-", stdin=crd_yaml("pipelines.kubeflow.org"))
    assert answer.stdout.count("(server dry run)") == len(KINDS)


def test_what_the_api_server_stores_is_what_the_repository_says(kubectl: Kubectl) -> None:
    """It drops keywords that it does not know, so a misspelt one shows here."""
    for kind in KINDS:
        stored = json.loads(kubectl("get", "crd", f"{kind.plural}.{DEFAULT_GROUP}", "--output", "json").stdout)
        generated = yaml.safe_load((REPOSITORY / "crds" / f"{kind.plural}.yaml").read_text())
        assert stored["spec"]["versions"][0]["schema"] == generated["spec"]["versions"][0]["schema"]


PROVIDER = 'must be "namespace/name" of a Provider'
PIPELINE = 'must be the "name" or "name:version" of a Pipeline'
SOURCE = "exactly one of spec.pipelineSpec, spec.pipelineSpecFrom and spec.image must be set"
PATH = 'must be "component:output"'
FROM = {"valueFrom": {"runConfigurationRef": {"name": "b", "outputArtifact": "c"}}}
REFUSED: dict[str, Refused] = {
    "no-pipeline": ("Run", {}, "spec.pipeline", "Required value"),
    "pipeline-upper-case": ("Run", {"pipeline": "Penguin"}, "spec.pipeline", PIPELINE),
    "pipeline-namespace": ("Run", {"pipeline": "team-a/penguin"}, "spec.pipeline", PIPELINE),
    "pipeline-empty-version": ("Run", {"pipeline": "penguin:"}, "spec.pipeline", PIPELINE),
    "pipeline-empty": ("Run", {"pipeline": ""}, "spec.pipeline", PIPELINE),
    "pipeline-long": ("Run", {"pipeline": LONG + "b"}, "spec.pipeline", "at most 253 characters"),
    "pipeline-longer": ("Run", {"pipeline": "a" * 400}, "spec.pipeline", "may not be more than 389"),
    "provider-name": ("Run", {"pipeline": "p", "provider": "kfp"}, "spec.provider", PROVIDER),
    "provider-parts": ("Run", {"pipeline": "p", "provider": "a/b/c"}, "spec.provider", PROVIDER),
    "provider-namespace": ("Run", {"pipeline": "p", "provider": "a.b/c"}, "spec.provider", PROVIDER),
    "parameter-no-name": ("Run", {"pipeline": "p", "parameters": [{"value": 1}]}, "spec.parameters[0].name", "Required value"),
    "parameter-empty-name": (
        "Run",
        {"pipeline": "p", "parameters": [{"name": "", "value": 1}]},
        "spec.parameters[0].name",
        "should be at least 1 chars long",
    ),
    "parameter-two-values": (
        "Run",
        {
            "pipeline": "p",
            "parameters": [{"name": "a", "value": 1, "valueFrom": {"runConfigurationRef": {"name": "b", "outputArtifact": "c"}}}],
        },
        "<nil>",  # CEL cannot see a field of any type, so the API server says it in its own way
        '"spec.parameters[0]" must not validate the schema (not)',
    ),
    "parameter-twice": (
        "Run",
        {"pipeline": "p", "parameters": [{"name": "a", "value": 1}, {"name": "a", "value": 2}]},
        "spec.parameters[1]",
        "Duplicate value",
    ),
    "parameters-many": (
        "Run",
        {"pipeline": "p", "parameters": [{"name": f"a{i}", "value": 1} for i in range(257)]},
        "spec.parameters",
        "Too many: 257: must have at most 256 items",
    ),
    "artifact-twice": (
        "Run",
        {"pipeline": "p", "artifacts": [{"name": "a", "path": "c:o"}, {"name": "a", "path": "c:q"}]},
        "spec.artifacts[1]",
        "Duplicate value",
    ),
    "artifact-path": ("Run", {"pipeline": "p", "artifacts": [{"name": "a", "path": "trainer"}]}, "spec.artifacts[0].path", PATH),
    "artifact-index": ("Run", {"pipeline": "p", "artifacts": [{"name": "a", "path": "c:o:x"}]}, "spec.artifacts[0].path", PATH),
    "artifact-filter": ("Run", {"pipeline": "p", "artifacts": [{"name": "a", "path": "c:o[]"}]}, "spec.artifacts[0].path", PATH),
    "deadline": ("Run", {"pipeline": "p", "activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds", "greater than or equal to 1"),
    "ttl": ("Run", {"pipeline": "p", "ttlSecondsAfterFinished": -1}, "spec.ttlSecondsAfterFinished", "greater than or equal to 0"),
    "run-deletion": ("Run", {"pipeline": "p", "deletionPolicy": "Keep"}, "spec.deletionPolicy", 'supported values: "Cancel", "Orphan"'),
    "cancel": ("Run", {"pipeline": "p", "cancel": "yes"}, "spec.cancel", "must be of type boolean"),
    "pipeline-no-provider": ("Pipeline", {"pipelineSpec": {}}, "spec.provider", "Required value"),
    "pipeline-empty-provider": ("Pipeline", {"provider": "", "pipelineSpec": {}}, "spec.provider", PROVIDER),
    "pipeline-no-source": ("Pipeline", {"provider": "a/b"}, "spec", SOURCE),
    "pipeline-two-sources": (
        "Pipeline",
        {"provider": "a/b", "pipelineSpec": {}, "pipelineSpecFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
        "spec",
        SOURCE,
    ),
    "pipeline-empty-source": ("Pipeline", {"provider": "a/b", "pipelineSpecFrom": {}}, "spec.pipelineSpecFrom", "set configMapKeyRef"),
    "pipeline-no-key": (
        "Pipeline",
        {"provider": "a/b", "pipelineSpecFrom": {"configMapKeyRef": {"name": "c"}}},
        "spec.pipelineSpecFrom.configMapKeyRef.key",
        "Required value",
    ),
    "pipeline-bad-key": (
        "Pipeline",
        {"provider": "a/b", "pipelineSpecFrom": {"configMapKeyRef": {"name": "c", "key": "a/b"}}},
        "spec.pipelineSpecFrom.configMapKeyRef.key",
        "must be a key of a ConfigMap",
    ),
    "pipeline-bad-config-map": (
        "Pipeline",
        {"provider": "a/b", "pipelineSpecFrom": {"configMapKeyRef": {"name": "C", "key": "k"}}},
        "spec.pipelineSpecFrom.configMapKeyRef.name",
        "must be the name of a ConfigMap",
    ),
    "pipeline-spec-text": ("Pipeline", {"provider": "a/b", "pipelineSpec": "x"}, "spec.pipelineSpec", "must be of type object"),
    "pipeline-history": (
        "Pipeline",
        {"provider": "a/b", "pipelineSpec": {}, "revisionHistoryLimit": 101},
        "spec.revisionHistoryLimit",
        "less than or equal to 100",
    ),
    "pipeline-deletion": (
        "Pipeline",
        {"provider": "a/b", "pipelineSpec": {}, "deletionPolicy": "Cancel"},
        "spec.deletionPolicy",
        'supported values: "Delete", "Orphan"',
    ),
    "pipeline-image-and-spec": (
        "Pipeline",
        {"provider": "a/b", "pipelineSpec": {}, "image": "i:v1", "framework": {"name": "kfpsdk"}},
        "spec",
        SOURCE,
    ),
    "pipeline-no-framework": ("Pipeline", {"provider": "a/b", "image": "i:v1"}, "spec.framework", "set both or none"),
    "pipeline-no-image": (
        "Pipeline",
        {"provider": "a/b", "pipelineSpec": {}, "framework": {"name": "k"}},
        "spec.framework",
        "set both or none",
    ),
    "pipeline-env": ("Pipeline", {"provider": "a/b", "pipelineSpec": {}, "env": []}, "spec.env", "spec.env is for spec.image"),
    "pipeline-env-twice": (
        "Pipeline",
        {"provider": "a/b", "image": "i", "framework": {"name": "k"}, "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
        "spec.env[1]",
        "Duplicate value",
    ),
    "provider-no-type": ("Provider", {}, "spec.type", "Required value"),
    "provider-type": ("Provider", {"type": "Local"}, "spec.type", "must be the name of a provider type"),
    "provider-namespaces": (
        "Provider",
        {"type": "local", "allowedNamespaces": ["a", "B"]},
        "spec.allowedNamespaces[1]",
        "must be the name of a namespace",
    ),
    "provider-namespace-twice": (
        "Provider",
        {"type": "local", "allowedNamespaces": ["a", "a"]},
        "spec.allowedNamespaces[1]",
        "Duplicate value",
    ),
    "provider-runs": ("Provider", {"type": "local", "maxActiveRuns": 0}, "spec.maxActiveRuns", "greater than or equal to 1"),
}


@pytest.fixture(scope="module")
def answers(cluster: Cluster) -> dict[str, str]:
    return refusals(cluster, REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_manifest_is_refused_with_the_field_and_the_accepted_form(answers: dict[str, str], name: str) -> None:
    _, _, field, message = REFUSED[name]
    assert f"{field}: " in answers[name]
    assert message in answers[name]


def test_an_unknown_field_is_refused(kubectl: Kubectl, namespace: str) -> None:
    answer = kubectl("create", "--namespace", namespace, "--filename", "-", stdin=json.dumps(run("r", paramters=[])), check=False)
    assert 'unknown field "spec.paramters"' in answer.stderr


TAKEN: dict[str, tuple[str, dict[str, Any]]] = {
    LONG: ("Pipeline", {"provider": f"{'n' * 63}/{LONG}", "pipelineSpec": {"a": [None, {"b": 1.5}]}}),
    "by.dots": ("Run", {"pipeline": f"{LONG}:{'v' * 128}-49e208", "provider": ""}),
    "by.version": ("Run", {"pipeline": "penguin.v2:v1.0_rc-49e208"}),
    "values": (
        "Run",
        {
            "pipeline": "p",
            "parameters": [
                {"name": "any name ü", "value": None},
                {"name": "list", "value": [1, 1.5, None, {"a": {}}]},
                {"name": "text", "value": "3"},
                {"name": "off", "value": False},
            ],
        },
    ),
    "paths": (
        "Run",
        {
            "pipeline": "p",
            "artifacts": [
                {"name": str(number), "path": path}
                for number, path in enumerate(
                    ["c:o", "c:o:", "c:o:2", "c:o[pushed == 1]", "for-loop 1.c:o:0[x matches `a` or not (b == 1)]"]
                )
            ],
        },
    ),
    "source": ("Pipeline", {"provider": "a/b", "pipelineSpecFrom": {"configMapKeyRef": {"name": "c.d", "key": "_pipeline.yaml"}}}),
    "local": ("Provider", {"type": "local", "parameters": {"deep": {"er": [1]}}, "allowedNamespaces": ["a", "b"], "maxActiveRuns": 1}),
}


def test_what_the_documentation_allows_is_taken_and_kept_as_it_is(kubectl: Kubectl, namespace: str) -> None:
    manifests = [manifest(kind, name, spec) for name, (kind, spec) in TAKEN.items()]
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=stream(*manifests))
    stored = {
        item["metadata"]["name"]: item
        for item in json.loads(kubectl("get", "mlprv,mlp,mlr", "--namespace", namespace, "--output", "json").stdout)["items"]
    }
    for name, (kind, spec) in TAKEN.items():
        found = stored[name]
        assert found["kind"] == kind
        assert {key: found["spec"][key] for key in spec} == spec
        model = next(k.model for k in KINDS if k.name == kind)
        assert model.parse(found).metadata.name == name


def test_the_api_server_fills_in_defaults(kubectl: Kubectl, namespace: str) -> None:
    pipeline = manifest("Pipeline", "p", {"provider": "a/b", "pipelineSpec": {}})
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=stream(pipeline, run("r")))
    made = json.loads(kubectl("get", "mlp,mlr", "--namespace", namespace, "--output", "json").stdout)
    assert [item["spec"] for item in made["items"]] == [
        {"provider": "a/b", "pipelineSpec": {}, "revisionHistoryLimit": 5, "deletionPolicy": "Delete"},
        {"pipeline": "p", "retries": 0, "deletionPolicy": "Cancel", "cancel": False},
    ]


FULL: dict[str, Any] = {
    "pipeline": "p:v1",
    "provider": "a/b",
    "experimentName": "e",
    "parameters": [{"name": "a", "value": {"x": [1, {"y": True}]}}, {"name": "b", "value": "3"}],
    "artifacts": [{"name": "m", "path": "c:o"}],
    "activeDeadlineSeconds": 60,
    "ttlSecondsAfterFinished": 60,
}
CHANGES: dict[str, list[Any]] = {
    "pipeline": ["p:v2", "q:v1"],
    "provider": ["a/c", None, ""],
    "experimentName": ["f", None],
    "parameters": [
        None,
        [],
        FULL["parameters"][:1],
        [{"name": "a", "value": {"x": [1, {"y": False}]}}, {"name": "b", "value": "3"}],
        [{"name": "a", "value": {"x": [1, {}]}}, {"name": "b", "value": "3"}],
        [{"name": "a", "value": {"x": [1, {"y": True}]}}, {"name": "b", "value": 3}],
        [{"name": "a", "value": {"x": [1, {"y": True}]}}, {"name": "b", "value": "3"}, {"name": "c", "value": 1}],
    ],
    "artifacts": [None, [{"name": "m", "path": "c:q"}], [{"name": "n", "path": "c:o"}]],
    "activeDeadlineSeconds": [61, None],
}


def test_what_a_run_executes_cannot_be_changed_field_by_field(kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=stream(manifest("Run", "full", FULL), run("bare")))
    for field, values in CHANGES.items():
        patches = [("full", value) for value in values] + ([("bare", FULL[field])] if field != "pipeline" else [])
        for name, value in patches:
            patch = json.dumps({"spec": {field: value}})
            answer = kubectl("patch", "mlr", name, "--namespace", namespace, "--type=merge", "--patch", patch, check=False)
            assert f"spec.{field} of a Run cannot be changed: create another Run" in answer.stderr, patch
            assert f"* spec.{field}: " in answer.stderr or f"is invalid: spec.{field}: " in answer.stderr


def test_what_steers_a_run_can_be_changed_and_its_lists_reordered(kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=json.dumps(manifest("Run", "full", FULL)))
    reordered = list(reversed(FULL["parameters"]))
    changes = [
        {"ttlSecondsAfterFinished": 0},
        {"ttlSecondsAfterFinished": None},
        {"deletionPolicy": "Orphan"},
        {"deletionPolicy": "Cancel"},
        {"parameters": reordered},
        {"cancel": True},
    ]
    for spec in changes:
        kubectl("patch", "mlr", "full", "--namespace", namespace, "--type=merge", "--patch", json.dumps({"spec": spec}))
    for back in (False, None):
        patch = json.dumps({"spec": {"cancel": back}})
        answer = kubectl("patch", "mlr", "full", "--namespace", namespace, "--type=merge", "--patch", patch, check=False)
        assert "spec.cancel cannot be taken back" in answer.stderr


@pytest.mark.parametrize(
    ("kind", "spec", "change", "message"),
    [
        ("Provider", {"type": "local"}, {"type": "kubeflow"}, "spec.type of a Provider cannot be changed"),
        ("Pipeline", {"provider": "a/b", "pipelineSpec": {}}, {"provider": "a/c"}, "spec.provider of a Pipeline cannot be changed"),
    ],
)
def test_what_identifies_an_object_cannot_be_changed(
    kubectl: Kubectl, namespace: str, kind: str, spec: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=json.dumps(manifest(kind, "x", spec)))
    patch = ("patch", kind, "x", "--namespace", namespace, "--type=merge", "--patch")
    assert message in kubectl(*patch, json.dumps({"spec": change}), check=False).stderr
    kubectl(*patch, json.dumps({"metadata": {"labels": {"a": "b"}}}))


SITUATIONS = {
    "waiting": conditions.run_waiting("NamespaceNotAllowed", "ask", stalled=True),
    "running": conditions.run_accepted(RunState.RUNNING),
    "failed": [
        *conditions.run_finished(RunState.FAILED, "x" * 50_000, reason="over quota"),
        conditions.events_undelivered("NoBus", "away"),
    ],
    "restored": conditions.run_restored("kfp-operator.dev/completed=succeeded"),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_status_that_is_clipped_is_taken(kubectl: Kubectl, namespace: str, situation: str) -> None:
    long = "é" * 100_000
    status = clip(
        RunStatus(
            synchronization_state=SyncState.SUCCEEDED,
            provider=long,
            provider_id=long,
            version=long,
            observed_generation=1,
            conditions=conditions.apply([], SITUATIONS[situation], generation=1, now=NOW),
            message=long,
            state=RunState.UPSTREAM_FAILED,
            attempt=2,
            transition=3,
            completion_state="Failed",
            pipeline_version=long,
            start_time=NOW,
            end_time=NOW,
            artifacts=[RunArtifact(name=long, location="gs://" + "a" * 5000, type=long, metadata={str(i): [i] for i in range(200)})] * 70,
            failed_task=long,
            url=long,
            history=[HistoryEntry(state=RunState.RUNNING, time=NOW, attempt=1, message=long)] * 30,
            cancellation=Cancellation(reason="DeadlineExceeded", time=NOW),
        )
    )
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=json.dumps(run("r")))
    stored = json.loads(
        kubectl("replace", "--subresource=status", "--namespace", namespace, "--output", "json", "--filename", "-",
                stdin=json.dumps(run("r") | {"status": status.to_json()})).stdout
    )  # fmt: skip
    assert Run.parse(stored).status.to_json() == status.to_json()


def test_the_statuses_of_other_kinds_are_taken(kubectl: Kubectl, namespace: str) -> None:
    common: dict[str, Any] = {
        "synchronization_state": SyncState.CREATING,
        "provider": "a/b",
        "provider_id": "x",
        "version": "49e208",
        "observed_generation": 1,
        "conditions": conditions.apply([], conditions.progressing("ProviderNotFound", "waits"), generation=1, now=NOW),
        "message": "waits",
    }
    objects = [
        (manifest("Provider", "x", {"type": "local"}), ProviderStatus(**common)),
        (manifest("Pipeline", "x", {"provider": "a/b", "pipelineSpec": {}}), PipelineStatus(**common)),
    ]
    for body, status in objects:
        kubectl("create", "--namespace", namespace, "--filename", "-", stdin=json.dumps(body))
        answer = kubectl(
            "replace", "--subresource=status", "--namespace", namespace, "--output", "json", "--filename", "-",
            stdin=json.dumps(body | {"status": status.to_json()}),
        )  # fmt: skip
        assert json.loads(answer.stdout)["status"] == status.to_json()


def test_a_pipeline_of_900_kb_is_applied_from_the_server_side(kubectl: Kubectl, namespace: str) -> None:
    big = manifest("Pipeline", "big", {"provider": "a/b", "pipelineSpec": {"a": "x" * 900_000}})
    answer = kubectl("apply", "--server-side", "--namespace", namespace, "--filename", "-", stdin=json.dumps(big))
    assert "serverside-applied" in answer.stdout


def test_kubectl_shows_what_people_look_for(kubectl: Kubectl, namespace: str) -> None:
    spec = {"pipeline": "penguin:49e208", "provider": "mlops/local"}
    ready = conditions.apply([], conditions.run_finished(RunState.FAILED, "boom", reason="DeadlineExceeded"), generation=1, now=NOW)
    status = RunStatus(
        state=RunState.FAILED,
        provider="mlops/local",
        provider_id="id-1",
        attempt=1,
        pipeline_version="49e208",
        message="boom",
        conditions=ready,
    )
    body = manifest("Run", "r", spec)
    pipeline = manifest("Pipeline", "penguin", {"provider": "mlops/local", "pipelineSpec": {}})
    provider = manifest("Provider", "local", {"type": "local"})
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=stream(body, pipeline, provider))
    update = json.dumps(body | {"status": status.to_json()})
    kubectl("replace", "--subresource=status", "--namespace", namespace, "--filename", "-", stdin=update)
    [narrow] = columns(kubectl("get", "mlr", "--namespace", namespace).stdout)
    assert narrow.pop("AGE")
    assert narrow == {"NAME": "r", "STATE": "failed", "REASON": "DeadlineExceeded", "PIPELINE": "penguin:49e208", "PROVIDER": "mlops/local"}
    [wide] = columns(kubectl("get", "mlr", "--namespace", namespace, "--output", "wide").stdout)
    assert {key: wide[key] for key in ("ID", "VERSION", "ATTEMPT", "MESSAGE")} == {
        "ID": "id-1",
        "VERSION": "49e208",
        "ATTEMPT": "1",
        "MESSAGE": "boom",
    }
    everything = kubectl("get", "mlops", "--namespace", namespace, "--output", "name").stdout.split()
    assert everything == [
        f"pipeline.{DEFAULT_GROUP}/penguin",
        f"provider.{DEFAULT_GROUP}/local",
        f"run.{DEFAULT_GROUP}/r",
    ]


def test_runs_are_selected_by_what_they_run_and_where_they_are(kubectl: Kubectl, namespace: str) -> None:
    running = run("a") | {"status": RunStatus(state=RunState.RUNNING, provider="a/b").to_json()}
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=stream(running, run("b", pipeline="q", provider="a/c")))
    kubectl("replace", "--subresource=status", "--namespace", namespace, "--filename", "-", stdin=json.dumps(running))
    for selector, name in [
        ("status.state=running", "a"),
        ("status.provider=a/b", "a"),
        ("spec.pipeline=q", "b"),
        ("spec.provider=a/c", "b"),
        ("status.state!=running", "b"),
    ]:
        answer = kubectl("get", "mlr", "--namespace", namespace, "--field-selector", selector, "--output", "name")
        assert answer.stdout.split() == [f"run.{DEFAULT_GROUP}/{name}"], selector


def words(text: str) -> str:
    return " ".join(text.split())


def test_kubectl_explains_every_field_in_our_words(kubectl: Kubectl) -> None:
    for kind in KINDS:
        told = words(kubectl("explain", f"{kind.plural}.{DEFAULT_GROUP}.spec").stdout)
        spec = schema(kind.model)["properties"]["spec"]
        for name, part in spec["properties"].items():
            assert name in told
            assert words(part["description"]) in told
    told = words(kubectl("explain", "mlr.spec.artifacts").stdout)
    assert "component:output[:index][[filter]]" in told
    assert "path <string> -required-" in told
