"""What users get wrong: it waits or it ends, says why and what helps, and goes on once it is put right."""

import base64
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import yaml

from kfp_operator.api import hashing
from tests.cluster.cluster import KubectlError
from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import SCENARIO, Bench
from tests.integration.operator.verdict import ended_well
from tests.waiting import eventually

SPEC: dict[str, Any] = SCENARIO["spec"]["pipelineSpec"]
ACCEPTED = ("queued", "running", "succeeded")


def changed(**members: Any) -> dict[str, Any]:
    """The scenario with other members of its pipelineInfo, which makes another version."""
    spec = copy.deepcopy(SPEC)
    spec["pipelineInfo"] |= members
    return spec


@pytest.fixture(scope="module")
def ready(shared: Bench) -> Bench:
    """A Provider and a Pipeline that are as they should be."""
    shared.prepare(maxActiveRuns=3)
    return shared


def conditions(bench: Bench, resource: str, name: str) -> dict[str, str]:
    return {type_: c["status"] for type_, c in bench.conditions(resource, name).items()}


def starts(bench: Bench, name: str) -> None:
    """Wait until the backend has the Run."""

    def accepted() -> bool:
        run = bench.get(name)
        return run is not None and run.status.state in ACCEPTED and bool(run.status.provider_id)

    eventually(accepted, 30, f"Run {name} starts")


# What waits


def test_a_run_waits_for_its_pipeline_and_starts_when_it_appears(ready: Bench) -> None:
    ready.apply(ready.run("early", pipeline="later"))
    waits = ready.wait_reason("mlr", "early", "PipelineNotFound")
    assert f"waits for Pipeline {ready.namespace}/later" in waits["message"]
    shown = conditions(ready, "mlr", "early")
    assert shown == {"Ready": "False", "Synchronized": "Unknown", "Succeeded": "Unknown", "Completed": "False", "Reconciling": "True"}
    run = ready.get("early")
    assert run is not None
    assert run.status.message == waits["message"]
    assert not run.metadata.finalizers
    ready.apply(ready.pipeline("later"))
    starts(ready, "early")


def test_a_run_waits_for_its_version_and_starts_when_it_is_made(ready: Bench) -> None:
    coming = changed(description="the next version")
    version = hashing.inline_version({"pipelineSpec": coming})
    ready.apply(ready.pipeline("versioned"))
    ready.wait_reason("mlp", "versioned", "Succeeded")
    ready.apply(ready.run("ahead", pipeline=f"versioned:{version}"))
    waits = ready.wait_reason("mlr", "ahead", "PipelineVersionNotFound")
    assert version in waits["message"]
    assert hashing.inline_version({"pipelineSpec": SPEC}) in waits["message"], "the versions there are"
    ready.apply(ready.pipeline("versioned", pipelineSpec=coming))
    starts(ready, "ahead")
    run = ready.get("ahead")
    assert run is not None
    assert run.status.pipeline_version == version


def test_pipelines_and_runs_wait_for_their_provider_and_start_when_it_appears(ready: Bench) -> None:
    ready.apply(ready.pipeline("homeless", provider=f"{ready.namespace}/coming"), ready.run("homeless", pipeline="homeless"))
    waits = ready.wait_reason("mlp", "homeless", "ProviderNotFound")
    assert f"waits for Provider {ready.namespace}/coming, which does not exist; create it" in waits["message"]
    waits = ready.wait_reason("mlr", "homeless", "PipelineNotReady")
    assert f"Provider {ready.namespace}/coming" in waits["message"]
    ready.apply(ready.provider("coming"))
    starts(ready, "homeless")


def test_a_forbidden_provider_needs_its_owner_who_can_let_the_run_go(ready: Bench) -> None:
    there = replace(ready, namespace=ready.neighbour)
    there.apply(ready.pipeline("guest"), there.run("guest", pipeline="guest"))
    for resource, reason in (("mlp", "ProviderForbidden"), ("mlr", "PipelineNotReady")):
        waits = there.wait_reason(resource, "guest", reason)
        assert f"does not serve namespace {there.namespace}; its owner can add it to spec.allowedNamespaces" in waits["message"]
        assert conditions(there, resource, "guest")["Stalled"] == "True", "a person must act"
    ready.apply(ready.provider(maxActiveRuns=3, allowedNamespaces=[there.namespace]))
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
def test_a_provider_with_a_mistake_names_the_field_and_what_is_accepted(shared: Bench, case: str) -> None:
    mistake, name = PROVIDERS[case], f"wrong-{case}"
    shared.apply(shared.provider(name, **mistake.spec))
    said = shared.wait_reason("mlprv", name, mistake.reason)["message"]
    for word in mistake.words:
        assert word in said
    assert conditions(shared, "mlprv", name) == {"Ready": "False", "Synchronized": "False", "Stalled": "True"}
    if mistake.remedy is None:
        shared.delete("mlprv", name)
        shared.gone("mlprv", name)
        return
    shared.apply(shared.provider(name, **mistake.remedy))
    shared.wait_reason("mlprv", name, "Succeeded")
    assert conditions(shared, "mlprv", name) == {"Ready": "True", "Synchronized": "True"}


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
def test_what_is_no_pipeline_fails_with_its_path_and_is_mended_by_an_edit(
    ready: Bench, broken: Callable[[], dict[str, Any]], words: tuple[str, ...]
) -> None:
    name = broken.__name__.replace("_", "-")
    ready.apply(ready.pipeline(name, pipelineSpec=broken()), ready.run(name, pipeline=name))
    said = ready.wait_reason("mlp", name, "InvalidPipelineSpec")["message"]
    for word in words:
        assert word in said
    assert conditions(ready, "mlp", name) == {"Ready": "False", "Synchronized": "False", "Stalled": "True"}
    waits = ready.wait_reason("mlr", name, "PipelineNotReady")
    assert words[0] in waits["message"]
    assert conditions(ready, "mlr", name)["Stalled"] == "True", "only a person can mend the Pipeline"
    ready.delete("mlr", name)
    ready.gone("mlr", name)
    ready.apply(ready.pipeline(name))
    ready.wait_reason("mlp", name, "Succeeded")


def test_a_pipeline_broken_by_an_edit_still_runs_its_versions(ready: Bench) -> None:
    ready.apply(ready.pipeline("mended"))
    ready.wait_reason("mlp", "mended", "Succeeded")
    good = hashing.inline_version({"pipelineSpec": SPEC})
    ready.apply(ready.pipeline("mended", pipelineSpec=unknown_member()))
    ready.wait_reason("mlp", "mended", "InvalidPipelineSpec")
    ready.apply(ready.run("pinned", pipeline=f"mended:{good}"), ready.run("latest", pipeline="mended"))
    ready.wait_reason("mlr", "latest", "PipelineNotReady")
    starts(ready, "pinned")
    ready.apply(ready.pipeline("mended"))
    starts(ready, "latest")


def test_a_config_map_is_waited_for_read_and_read_again(ready: Bench) -> None:
    def write(field: str = "data", **data: str) -> None:
        ready.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "compiled"}, field: data})

    def touch(value: str) -> None:  # the ConfigMap is read again whenever the Pipeline changes, else every minute
        ready.patch("mlp", "stored", metadata={"annotations": {"touched": value}})

    def version() -> str:
        found = ready.document("mlp", "stored") or {}
        return str(found["status"].get("version", ""))

    source = {"configMapKeyRef": {"name": "compiled", "key": "pipeline.yaml"}}
    ready.apply(ready.pipeline("stored", pipelineSpec=None, pipelineSpecFrom=source))
    said = ready.wait_reason("mlp", "stored", "ConfigMapNotFound")["message"]
    assert said == f"waits for ConfigMap {ready.namespace}/compiled, which does not exist"
    assert "Stalled" not in conditions(ready, "mlp", "stored")
    write(other="text")
    said = ready.wait_reason("mlp", "stored", "ConfigMapKeyNotFound", within=10)["message"]
    assert said == f"waits for key pipeline.yaml in ConfigMap {ready.namespace}/compiled, which has other"
    write(**{"pipeline.yaml": "root: [unfinished"})
    touch("broken")
    said = ready.wait_reason("mlp", "stored", "InvalidPipelineSpec")["message"]
    assert said.startswith(f"ConfigMap {ready.namespace}/compiled[pipeline.yaml]: is not YAML")
    write(**{"pipeline.yaml": yaml.safe_dump(SPEC)})
    touch("whole")
    ready.wait_reason("mlp", "stored", "Succeeded")
    assert version() == hashing.inline_version({"pipelineSpec": SPEC})
    following = changed(description="changed in the ConfigMap")
    ready.cluster.kubectl("delete", "configmap", "compiled", "-n", ready.namespace)
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


@pytest.fixture(scope="module")
def refused(ready: Bench) -> Bench:
    """All of REFUSED, applied at once."""
    ready.apply(ready.pipeline("strict", pipelineSpec=without_default()))
    for case, (spec, _) in REFUSED.items():
        run = ready.run(f"refused-{case}", pipeline="strict")
        ready.apply(run | {"spec": run["spec"] | spec})
    return ready


@pytest.mark.parametrize("case", REFUSED)
def test_a_run_that_can_never_work_fails_with_its_field_and_is_told(refused: Bench, case: str) -> None:
    run, told = ended_well(refused, f"refused-{case}", "failed", quiet=False)
    for word in REFUSED[case][1]:
        assert word in told["message"]
    assert (told["runId"], told["attempt"], told["runStartTime"]) == ("", 1, None)
    assert run.status.synchronization_state == "Failed"
    assert Reader(refused.nats.url).states(run.metadata.uid) == ["failed"]


def test_an_artifact_path_of_another_form_is_refused_at_once(ready: Bench) -> None:
    with pytest.raises(KubectlError) as refusal:
        ready.apply(ready.run("path", artifacts=[{"name": "model", "path": "act/model"}]))
    assert "spec.artifacts[0].path" in str(refusal.value)
    assert "component:output" in str(refusal.value)


def test_a_run_cancelled_while_it_waits_ends_stopped_and_is_told(ready: Bench) -> None:
    ready.apply(ready.run("given-up", pipeline="never"))
    ready.wait_reason("mlr", "given-up", "PipelineNotFound")
    ready.patch("mlr", "given-up", spec={"cancel": True})
    _, told = ended_well(ready, "given-up", "stopped", quiet=False)
    assert (told["runId"], told["message"]) == ("", "cancelled before it was submitted")


# What components do


@dataclass(frozen=True)
class Ending:
    """How a component behaves, and how the Run ends."""

    state: str
    words: tuple[str, ...]
    mode: str = "succeed"
    spec: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)


ENDINGS = {
    "raises": Ending("failed", ("step act: ValueError: the data has no column island",), "raise"),
    "exits": Ending("failed", ("step act", "code 7"), "exit"),
    "hangs": Ending("failed", ("ran longer than spec.activeDeadlineSeconds (2 s)",), "hang", {"activeDeadlineSeconds": 2}),
    "is-cancelled": Ending("stopped", ("stopped by spec.cancel",), "hang"),
    "shouts": Ending("succeeded", (), "shout", {"pipeline": "terse"}, {"size": 20_000}),
    "writes-less": Ending(
        "succeeded",
        ("spec.artifacts[0].path: the run produced no act:metrics:0; it produced act:model",),
        spec={"artifacts": [{"name": "metrics", "path": "act:metrics"}, {"name": "model", "path": "act:model[accuracy == 0.93]"}]},
    ),
    "excludes": Ending("succeeded", (), spec={"artifacts": [{"name": "model", "path": "act:model[accuracy == 0.5]"}]}),
}
LOG_BYTES = 65536


@pytest.fixture(scope="module")
def endings(ready: Bench) -> Iterator[Bench]:
    """All of ENDINGS, applied at once."""
    ready.apply(
        ready.provider("terse", parameters={"maxLogBytes": LOG_BYTES}), ready.pipeline("terse", provider=f"{ready.namespace}/terse")
    )
    made = [ready.run(f"run-{case}", e.mode, parameters=e.parameters, **e.spec) for case, e in ENDINGS.items()]
    ready.apply(*made)
    yield ready
    reader = Reader(ready.nats.url)
    reader.once_each()


@pytest.mark.parametrize("case", ENDINGS)
def test_whatever_a_component_does_its_run_ends_right_and_is_told_once(endings: Bench, case: str) -> None:
    name, ending = f"run-{case}", ENDINGS[case]
    if case == "is-cancelled":
        endings.wait(name, "running")
        endings.patch("mlr", name, spec={"cancel": True})
    run, told = ended_well(endings, name, ending.state, quiet=False)
    for word in ending.words:
        assert word in told["message"]
    assert bool(told["message"]) == bool(ending.words)
    assert told["runId"]
    assert told["failedTask"] == ("act" if case in ("raises", "exits") else "")
    declared = [d["name"] for d in ending.spec.get("artifacts", [{"name": "model"}])]
    wanted = declared[-1:] if ending.state == "succeeded" and case != "excludes" else []
    assert [a["name"] for a in told["artifacts"]] == wanted
    assert [a.name for a in run.status.artifacts] == wanted
    if case == "shouts":
        folder = endings.operators[0].folder / "state" / "providers" / endings.namespace / "terse" / "runs" / run.status.provider_id
        kept = sum(part.stat().st_size for part in (folder / "log").iterdir())
        assert LOG_BYTES / 2 < kept <= LOG_BYTES


# What people see


def test_kubectl_tells_a_person_what_to_do(endings: Bench) -> None:
    endings.apply(endings.run("puzzled", pipeline="not-yet"))
    endings.wait_reason("mlr", "puzzled", "PipelineNotFound")
    ended_well(endings, "run-raises", "failed", quiet=False)

    def kubectl(*args: str) -> str:
        return endings.cluster.kubectl(*args, "-n", endings.namespace).stdout

    rows = {row.split()[0]: row.split() for row in kubectl("get", "mlr").splitlines()[1:]}
    assert rows["puzzled"][1] == "PipelineNotFound", "a waiting Run has no state; the reason says for what"
    assert rows["run-raises"][1:3] == ["failed", "Failed"]
    waiting = kubectl("describe", "mlr", "puzzled")
    assert f"waits for Pipeline {endings.namespace}/not-yet, which does not exist; create it and the run starts" in waiting
    failed = kubectl("describe", "mlr", "run-raises")
    assert "the data has no column island" in failed
    assert "Failed Task:" in failed
    events = failed.partition("\nEvents:")[2]
    assert "Warning" in events
    assert "Started" in events
