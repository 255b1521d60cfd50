"""What users get wrong: it waits or it ends, says why and what helps, and goes on once it is put right."""

import base64
import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import yaml

from kfp_operator.api import hashing
from tests.cluster.cluster import KubectlError
from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import SCENARIO, Bench
from tests.integration.operator.together import scenario
from tests.integration.operator.verdict import ended_well
from tests.waiting import eventually

SPEC: dict[str, Any] = SCENARIO["spec"]["pipelineSpec"]
ACCEPTED = ("queued", "running", "succeeded")


def changed(**members: Any) -> dict[str, Any]:
    """The scenario with other members of its pipelineInfo, which makes another version."""
    spec = copy.deepcopy(SPEC)
    spec["pipelineInfo"] |= members
    return spec


def prepare(bench: Bench) -> None:
    """A Provider and a Pipeline that are as they should be, and what tables below ask for."""
    bench.prepare(maxActiveRuns=3)
    bench.apply(bench.pipeline("strict", pipelineSpec=without_default()))
    bench.apply(bench.provider("terse", parameters={"maxLogBytes": LOG_BYTES}))
    bench.apply(bench.pipeline("terse", provider=f"{bench.namespace}/terse"))


def conditions(bench: Bench, resource: str, name: str) -> dict[str, str]:
    return {type_: c["status"] for type_, c in bench.conditions(resource, name).items()}


def starts(bench: Bench, name: str) -> None:
    """Wait until the backend has the Run."""

    def accepted() -> bool:
        run = bench.get(name)
        return run is not None and run.status.state in ACCEPTED and bool(run.status.provider_id)

    eventually(accepted, 30, f"Run {name} starts")


# What waits


@scenario
def test_a_run_waits_for_its_pipeline_and_starts_when_it_appears(bench: Bench) -> None:
    bench.apply(bench.run("early", pipeline="later"))
    waits = bench.wait_reason("mlr", "early", "PipelineNotFound")
    assert f"waits for Pipeline {bench.namespace}/later" in waits["message"]
    shown = conditions(bench, "mlr", "early")
    assert shown == {"Ready": "False", "Synchronized": "Unknown", "Succeeded": "Unknown", "Completed": "False", "Reconciling": "True"}
    run = bench.get("early")
    assert run is not None
    assert run.status.message == waits["message"]
    assert not run.metadata.finalizers
    bench.apply(bench.pipeline("later"))
    starts(bench, "early")


@scenario
def test_a_run_waits_for_its_version_and_starts_when_it_is_made(bench: Bench) -> None:
    coming = changed(description="the next version")
    version = hashing.inline_version({"pipelineSpec": coming})
    bench.apply(bench.pipeline("versioned"))
    bench.wait_reason("mlp", "versioned", "Succeeded")
    bench.apply(bench.run("ahead", pipeline=f"versioned:{version}"))
    waits = bench.wait_reason("mlr", "ahead", "PipelineVersionNotFound")
    assert version in waits["message"]
    assert hashing.inline_version({"pipelineSpec": SPEC}) in waits["message"], "the versions there are"
    bench.apply(bench.pipeline("versioned", pipelineSpec=coming))
    starts(bench, "ahead")
    run = bench.get("ahead")
    assert run is not None
    assert run.status.pipeline_version == version


@scenario
def test_pipelines_and_runs_wait_for_their_provider_and_start_when_it_appears(bench: Bench) -> None:
    bench.apply(bench.pipeline("homeless", provider=f"{bench.namespace}/coming"), bench.run("homeless", pipeline="homeless"))
    waits = bench.wait_reason("mlp", "homeless", "ProviderNotFound")
    assert f"waits for Provider {bench.namespace}/coming, which does not exist; create it" in waits["message"]
    waits = bench.wait_reason("mlr", "homeless", "PipelineNotReady")
    assert f"Provider {bench.namespace}/coming" in waits["message"]
    bench.apply(bench.provider("coming"))
    starts(bench, "homeless")


@scenario
def test_a_forbidden_provider_needs_its_owner_who_can_let_the_run_go(bench: Bench) -> None:
    there = replace(bench, namespace=bench.neighbour)
    there.apply(bench.pipeline("guest"), there.run("guest", pipeline="guest"))
    for resource, reason in (("mlp", "ProviderForbidden"), ("mlr", "PipelineNotReady")):
        waits = there.wait_reason(resource, "guest", reason)
        assert f"does not serve namespace {there.namespace}; its owner can add it to spec.allowedNamespaces" in waits["message"]
        assert conditions(there, resource, "guest")["Stalled"] == "True", "a person must act"
    bench.apply(bench.provider(maxActiveRuns=3, allowedNamespaces=[there.namespace]))
    starts(there, "guest")
    assert "Stalled" not in conditions(there, "mlr", "guest")


@dataclass(frozen=True)
class Mistake:
    """A Provider's spec, and what is said of it."""

    spec: dict[str, Any]
    reason: str
    words: tuple[str, ...]
    remedy: dict[str, Any] | None = None


PROVIDERS = {
    "type": Mistake({"type": "lokal"}, "UnknownProviderType", ("spec.type", "'lokal'", "did you mean local?")),
    "name": Mistake(
        {"parameters": {"package": "install"}},
        "InvalidParameters",
        ("spec.parameters", "package:", "maxLogBytes, packages, python", "did you mean packages?"),
        {"parameters": {"packages": "install"}},
    ),
    "value": Mistake(
        {"parameters": {"packages": "later"}},
        "InvalidParameters",
        ("spec.parameters", "packages:", "'preinstalled' or 'install'"),
        {"parameters": {}},
    ),
    "root": Mistake({"pipelineRootStorage": "gs://bucket"}, "InvalidSpec", ("spec.pipelineRootStorage", "/path"), {}),
}


@pytest.mark.parametrize("case", PROVIDERS)
@scenario
def test_a_provider_with_a_mistake_names_the_field_and_what_is_accepted(bench: Bench, case: str) -> None:
    mistake, name = PROVIDERS[case], f"wrong-{case}"
    bench.apply(bench.provider(name, **mistake.spec))
    said = bench.wait_reason("mlprv", name, mistake.reason)["message"]
    for word in mistake.words:
        assert word in said
    assert conditions(bench, "mlprv", name) == {"Ready": "False", "Synchronized": "False", "Stalled": "True"}
    if mistake.remedy is None:
        bench.delete("mlprv", name)
        bench.gone("mlprv", name)
        return
    bench.apply(bench.provider(name, **mistake.remedy))
    bench.wait_reason("mlprv", name, "Succeeded")
    assert conditions(bench, "mlprv", name) == {"Ready": "True", "Synchronized": "True"}


# Pipelines


def no_pipeline() -> dict[str, Any]:
    return {"kind": "Deployment"}


def unknown_member() -> dict[str, Any]:
    spec = copy.deepcopy(SPEC)
    spec["root"]["dag"]["tasks"]["act"]["cachingOption"] = {}
    return spec


def wrong_type() -> dict[str, Any]:
    spec = copy.deepcopy(SPEC)
    spec["root"]["dag"]["tasks"]["act"]["cachingOptions"]["enableCache"] = "perhaps"
    return spec


def old_schema() -> dict[str, Any]:
    return copy.deepcopy(SPEC) | {"schemaVersion": "2.0.0"}


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (no_pipeline, ("spec.pipelineSpec: is not a compiled pipeline", "kfp-operator pipelines build")),
        (unknown_member, ("spec.pipelineSpec.root.dag.tasks", "'cachingOption'", "did you mean 'cachingOptions'?")),
        (wrong_type, ("spec.pipelineSpec.root.dag.tasks", "enableCache")),
        (old_schema, ("spec.pipelineSpec.schemaVersion", "2.1.0")),
    ],
)
@scenario
def test_what_is_no_pipeline_fails_with_its_path_and_is_mended_by_an_edit(
    bench: Bench, broken: Callable[[], dict[str, Any]], words: tuple[str, ...]
) -> None:
    name = broken.__name__.replace("_", "-")
    bench.apply(bench.pipeline(name, pipelineSpec=broken()), bench.run(name, pipeline=name))
    said = bench.wait_reason("mlp", name, "InvalidPipelineSpec")["message"]
    for word in words:
        assert word in said
    assert conditions(bench, "mlp", name) == {"Ready": "False", "Synchronized": "False", "Stalled": "True"}
    bench.wait_reason("mlr", name, "PipelineNotReady", says=words[0])
    assert conditions(bench, "mlr", name)["Stalled"] == "True", "only a person can mend the Pipeline"
    bench.delete("mlr", name)
    bench.gone("mlr", name)
    bench.apply(bench.pipeline(name))
    bench.wait_reason("mlp", name, "Succeeded")


@scenario
def test_a_pipeline_that_its_provider_cannot_run_fails_and_is_mended_by_an_edit(bench: Bench) -> None:
    spec = copy.deepcopy(SPEC)
    spec["deploymentSpec"]["executors"]["exec-act"]["container"] = {"image": "busybox", "command": ["true"]}
    bench.apply(bench.pipeline("foreign", pipelineSpec=spec))
    said = bench.wait_reason("mlp", "foreign", "Refused")["message"]
    assert said == "task act is a container component; type local runs Python components only (use a Provider of another type)"
    assert conditions(bench, "mlp", "foreign") == {"Ready": "False", "Synchronized": "False", "Stalled": "True"}
    bench.apply(bench.pipeline("foreign"))
    bench.wait_reason("mlp", "foreign", "Succeeded", within=10)


@scenario
def test_a_pipeline_broken_by_an_edit_still_runs_its_versions(bench: Bench) -> None:
    bench.apply(bench.pipeline("mended"))
    bench.wait_reason("mlp", "mended", "Succeeded")
    good = hashing.inline_version({"pipelineSpec": SPEC})
    bench.apply(bench.pipeline("mended", pipelineSpec=unknown_member()))
    bench.wait_reason("mlp", "mended", "InvalidPipelineSpec")
    bench.apply(bench.run("pinned", pipeline=f"mended:{good}"), bench.run("latest", pipeline="mended"))
    bench.wait_reason("mlr", "latest", "PipelineNotReady")
    starts(bench, "pinned")
    bench.apply(bench.pipeline("mended"))
    starts(bench, "latest")


@scenario
def test_a_config_map_is_waited_for_read_and_read_again(bench: Bench) -> None:
    def write(field: str = "data", **data: str) -> None:
        bench.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "compiled"}, field: data})

    def touch(value: str) -> None:  # the ConfigMap is read again whenever the Pipeline changes, else every minute
        bench.patch("mlp", "stored", metadata={"annotations": {"touched": value}})

    def version() -> str:
        found = bench.document("mlp", "stored") or {}
        return str(found["status"].get("version", ""))

    source = {"configMapKeyRef": {"name": "compiled", "key": "pipeline.yaml"}}
    bench.apply(bench.pipeline("stored", pipelineSpec=None, pipelineSpecFrom=source))
    said = bench.wait_reason("mlp", "stored", "ConfigMapNotFound")["message"]
    assert said == f"waits for ConfigMap {bench.namespace}/compiled, which does not exist"
    assert "Stalled" not in conditions(bench, "mlp", "stored")
    write(other="text")
    said = bench.wait_reason("mlp", "stored", "ConfigMapKeyNotFound", within=10)["message"]
    assert said == f"waits for key pipeline.yaml in ConfigMap {bench.namespace}/compiled, which has other"
    write(**{"pipeline.yaml": "root: [unfinished"})
    touch("broken")
    said = bench.wait_reason("mlp", "stored", "InvalidPipelineSpec")["message"]
    assert said.startswith(f"ConfigMap {bench.namespace}/compiled[pipeline.yaml]: is not YAML")
    write(**{"pipeline.yaml": yaml.safe_dump(SPEC)})
    touch("whole")
    bench.wait_reason("mlp", "stored", "Succeeded")
    assert version() == hashing.inline_version({"pipelineSpec": SPEC})
    following = changed(description="changed in the ConfigMap")
    bench.cluster.kubectl("delete", "configmap", "compiled", "-n", bench.namespace)
    write("binaryData", **{"pipeline.yaml": base64.b64encode(yaml.safe_dump(following).encode()).decode()})
    touch("changed")
    eventually(lambda: version() == hashing.inline_version({"pipelineSpec": following}), 10, "the new version is ready")


# Runs that end before they reach the backend


def without_default() -> dict[str, Any]:
    spec = copy.deepcopy(SPEC)
    declared = spec["root"]["inputDefinitions"]["parameters"]["mode"]
    declared.pop("defaultValue")
    declared.pop("isOptional", None)
    return spec


REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "missing": ({"parameters": []}, ("spec.parameters: 'mode' (STRING) is missing",)),
    "unknown": (
        {"parameters": [{"name": "mode", "value": "succeed"}, {"name": "waitfor", "value": "x"}]},
        ("spec.parameters[1].name: there is no parameter 'waitfor'", "did you mean 'wait_for'?"),
    ),
    "ill-typed": (
        {"parameters": [{"name": "mode", "value": 3}, {"name": "size", "value": "many"}]},
        ("spec.parameters[0].value: 'mode' must be a string", "spec.parameters[1].value: 'size' must be a whole number", 'is "many"'),
    ),
    "filter": (
        {"artifacts": [{"name": "model", "path": "act:model:0[pushed < 1]"}]},
        ("spec.artifacts[0].path: filter [pushed < 1]: there is no operator <; use ==",),
    ),
    "provider": ({"provider": "elsewhere/vertex"}, ("spec.provider: elsewhere/vertex is not", "which Pipeline", "leave it out")),
}


@pytest.mark.parametrize("case", REFUSED)
@scenario
def test_a_run_that_can_never_work_fails_with_its_field_and_is_told(bench: Bench, case: str) -> None:
    spec, words = REFUSED[case]
    document = bench.run(f"refused-{case}", pipeline="strict")
    bench.apply(document | {"spec": document["spec"] | spec})
    run, told = ended_well(bench, f"refused-{case}", "failed", quiet=False)
    for word in words:
        assert word in told["message"]
    assert (told["runId"], told["attempt"], told["runStartTime"]) == ("", 1, None)
    assert run.status.synchronization_state == "Failed"
    assert Reader(bench.nats.url).states(run.metadata.uid) == ["failed"]


@scenario
def test_an_artifact_path_of_another_form_is_refused_at_once(bench: Bench) -> None:
    with pytest.raises(KubectlError) as refusal:
        bench.apply(bench.run("path", artifacts=[{"name": "model", "path": "act/model"}]))
    assert "spec.artifacts[0].path" in str(refusal.value)
    assert "component:output" in str(refusal.value)


@scenario
def test_a_run_cancelled_while_it_waits_ends_stopped_and_is_told(bench: Bench) -> None:
    bench.apply(bench.run("given-up", pipeline="never"))
    bench.wait_reason("mlr", "given-up", "PipelineNotFound")
    bench.patch("mlr", "given-up", spec={"cancel": True})
    _, told = ended_well(bench, "given-up", "stopped", quiet=False)
    assert (told["runId"], told["message"]) == ("", "cancelled before it was submitted")


# What components do


LOG_BYTES = 65536


@scenario
def test_a_component_that_prints_without_end_fills_no_disk(bench: Bench) -> None:
    bench.apply(bench.run("run-shouts", "shout", parameters={"size": 20_000}, pipeline="terse"))
    run, told = ended_well(bench, "run-shouts", "succeeded", quiet=False)
    assert [a["name"] for a in told["artifacts"]] == ["model"]
    folder = bench.operators[0].folder / "state" / "providers" / bench.namespace / "terse" / "runs" / run.status.provider_id
    kept = sum(part.stat().st_size for part in (folder / "log").iterdir())
    assert LOG_BYTES / 2 < kept <= LOG_BYTES


# What people see


@scenario
def test_kubectl_tells_a_person_what_to_do(bench: Bench) -> None:
    bench.apply(bench.run("puzzled", pipeline="not-yet"), bench.run("erring", "raise"))
    bench.wait_reason("mlr", "puzzled", "PipelineNotFound")
    ended_well(bench, "erring", "failed", quiet=False)

    def kubectl(*args: str) -> str:
        return bench.cluster.kubectl(*args, "-n", bench.namespace).stdout

    rows = {row.split()[0]: row.split() for row in kubectl("get", "mlr").splitlines()[1:]}
    assert rows["puzzled"][1] == "PipelineNotFound", "a waiting Run has no state; the reason says for what"
    assert rows["erring"][1:3] == ["failed", "Failed"]
    waiting = kubectl("describe", "mlr", "puzzled")
    assert f"waits for Pipeline {bench.namespace}/not-yet, which does not exist; create it and the run starts" in waiting
    failed = kubectl("describe", "mlr", "erring")
    assert "the data has no column island" in failed
    assert "Failed Task:" in failed
    events = failed.partition("\nEvents:")[2]
    assert "Warning" in events
    assert "Started" in events


def test_nothing_was_told_twice_and_nothing_was_a_defect(shared: Bench) -> None:
    Reader(shared.nats.url).once_each()
    operator = shared.operators[0]
    assert operator.metric("kfp_operator_status_refused_total") == 0
    assert "please report this" not in operator.log.read_text()
