"""One pipeline per Pipeline and one version per version, found again by name; deletions of what is ours."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from kfp_operator.errors import Permanent, Retryable
from kfp_operator.providers.kubeflow.provider import KubeflowProvider
from kfp_operator.providers.protocol import ExperimentDescription
from tests.doubles.kfp_api import Identities, KfpApi, Options
from tests.unit.providers.kubeflow.arrange import SPEC, FakeClock, pipeline, provider_of, submission

SERVERS = {
    "2.17": Options(),
    "2.14": Options(version="2.14.0"),
    "2.0": Options(version="2.0.5"),
    "Kubernetes store": Options(kubernetes_store=True),
}


def versions(kfp: KfpApi) -> list[str]:
    return sorted(version.name for version in kfp.service.rows.versions.values())


@pytest.mark.parametrize("server", SERVERS)
async def test_an_update_adds_a_version_and_deletes_none(server: str) -> None:
    async with KfpApi(SERVERS[server]) as kfp, provider_of(kfp, clock=FakeClock()) as provider:
        first = await provider.ensure_pipeline(pipeline(version="aaaaaa"))
        assert await provider.ensure_pipeline(pipeline(version="bbbbbb")) == first
        assert await provider.ensure_pipeline(pipeline(version="aaaaaa")) == first
        assert versions(kfp) == ["team-a.train.aaaaaa", "team-a.train.bbbbbb"]
        (row,) = kfp.service.rows.pipelines.values()
        assert row.name == "team-a.train"
        assert {"team-a/train", "team-a.train"} & {row.display_name}


@pytest.mark.parametrize("server", SERVERS)
async def test_runs_pin_the_version_they_are_made_for(server: str) -> None:
    async with KfpApi(SERVERS[server]) as kfp, provider_of(kfp, clock=FakeClock()) as provider:
        await provider.ensure_pipeline(pipeline(version="aaaaaa"))
        await provider.ensure_pipeline(pipeline(version="bbbbbb"))
        old = submission(pipeline=pipeline(version="aaaaaa"))
        await provider.submit_run(old)
        assert kfp.service.rows.versions[kfp.run(old.id).version].name == "team-a.train.aaaaaa"


async def test_pipelines_of_names_that_look_alike_are_two() -> None:
    async with KfpApi() as kfp, provider_of(kfp) as provider:
        ids = {await provider.ensure_pipeline(pipeline(name, namespace=namespace)) for namespace, name in (("a-b", "c"), ("a", "b-c"))}
        assert len(ids) == 2
        assert len(kfp.service.rows.pipelines) == 2


@pytest.mark.parametrize("path", ["/pipelines", "/pipelines/upload_version"])
@pytest.mark.parametrize("lost", [{"reset": True}, {"status": 502}, {"truncate": True}])
async def test_what_a_lost_answer_made_is_found_by_name(path: str, lost: dict[str, Any]) -> None:
    async with KfpApi() as kfp, provider_of(kfp, clock=FakeClock()) as provider:
        kfp.fault(method="POST", path=path, effect=True, **lost)
        with pytest.raises(Retryable):
            await provider.ensure_pipeline(pipeline())
        await provider.ensure_pipeline(pipeline())
        assert (len(kfp.service.rows.pipelines), versions(kfp)) == (1, ["team-a.train.49e208"])


async def test_a_pipeline_that_is_deleted_while_its_version_is_uploaded_is_made_again() -> None:
    async with KfpApi() as kfp, provider_of(kfp, clock=FakeClock()) as provider:
        kfp.fault(method="POST", path="/pipelines/upload_version", latency=0.2)
        kfp.fault(method="POST", path="/pipelines", effect=True)
        await provider.ensure_pipeline(pipeline())
        kfp.service.rows.pipelines.clear()
        kfp.service.rows.versions.clear()
        await provider.ensure_pipeline(pipeline(version="bbbbbb"))
        assert versions(kfp) == ["team-a.train.bbbbbb"]


async def test_a_spec_that_the_server_refuses_is_told_with_the_cause_and_no_stack_trace() -> None:
    spec = {**SPEC, "schemaVersion": "2.2.0"}
    async with KfpApi() as kfp, provider_of(kfp) as provider:
        with pytest.raises(Permanent, match=r"KFP only supports schema version 2\.1\.0") as caught:
            await provider.ensure_pipeline(pipeline(spec=spec))
    assert caught.value.reason == "PipelineRefused"
    assert "goexit" not in str(caught.value)


async def test_nothing_that_hangs_the_server_is_uploaded() -> None:
    async with KfpApi() as kfp, provider_of(kfp) as provider:
        with pytest.raises(Permanent, match="YAML"):
            await provider.ensure_pipeline(pipeline(spec={**SPEC, "sdkVersion": {"k" * 2000: 1}}))
        odd = {**SPEC, "root": {**SPEC["root"], "inputDefinitions": {"parameters": {"t": {"defaultValue": "\x85\u2028\ufeff\x7f🧀"}}}}}
        with pytest.raises(Permanent):  # refused by the server as a spec, which it could read
            await provider.ensure_pipeline(pipeline(spec={**odd, "unknown": 1}))
        assert kfp.service.wedged == 0


@pytest.mark.parametrize("server", SERVERS)
async def test_versions_that_are_not_kept_are_pruned_and_no_others(server: str) -> None:
    async with KfpApi(SERVERS[server]) as kfp, provider_of(kfp, clock=FakeClock()) as provider:
        for version in ("aaaaaa", "bbbbbb", "cccccc", "dddddd"):
            await provider.ensure_pipeline(pipeline(version=version))
        await provider.ensure_pipeline(pipeline("other", version="aaaaaa"))
        _upload_by_hand(kfp, "by-hand")
        await provider.prune_pipeline(pipeline(version="dddddd"), keep={"bbbbbb"})
        assert versions(kfp) == ["by-hand", "team-a.other.aaaaaa", "team-a.train.bbbbbb", "team-a.train.dddddd"]
        await provider.prune_pipeline(pipeline("never-made"), keep=())


def _upload_by_hand(kfp: KfpApi, name: str) -> None:
    row = next(p for p in kfp.service.rows.pipelines.values() if p.name == "team-a.train")
    ours = next(v for v in kfp.service.rows.versions.values() if v.pipeline == row.id)
    made = type(ours)(kfp.service.rows.new_id(), row.id, name, name, ours.created, ours.spec, "by hand", {})
    kfp.service.rows.versions[made.id] = made


async def test_many_versions_are_pruned_over_pages() -> None:
    async with KfpApi() as kfp, provider_of(kfp, clock=FakeClock()) as provider:
        await provider.ensure_pipeline(pipeline())
        (row,) = kfp.service.rows.versions.values()
        for number in range(250):
            version = f"{number:06}"
            told = row.description.replace("49e208", version)
            made = type(row)(kfp.service.rows.new_id(), row.pipeline, f"team-a.train.{version}", version, row.created, row.spec, told, {})
            kfp.service.rows.versions[made.id] = made
        await provider.prune_pipeline(pipeline(), keep=())
        assert versions(kfp) == ["team-a.train.49e208"]


@pytest.mark.parametrize("server", SERVERS)
async def test_deletion_removes_what_we_made_and_tolerates_what_is_gone(server: str) -> None:
    async with KfpApi(SERVERS[server]) as kfp, provider_of(kfp, clock=FakeClock()) as provider:
        made = await provider.ensure_pipeline(pipeline(version="aaaaaa"))
        await provider.ensure_pipeline(pipeline(version="bbbbbb"))
        await provider.delete_pipeline(made)
        await provider.delete_pipeline(made)
        assert (kfp.service.rows.pipelines, kfp.service.rows.versions) == ({}, {})


async def test_a_pipeline_whose_id_was_never_told_is_deleted_by_its_name() -> None:
    async with KfpApi() as kfp, provider_of(kfp) as provider:
        await provider.ensure_pipeline(pipeline())
        await provider.delete_pipeline("team-a/train")
        await provider.delete_pipeline("team-a/train")
        assert kfp.service.rows.pipelines == {}


async def test_what_people_added_to_our_pipeline_keeps_it() -> None:
    async with KfpApi() as kfp, provider_of(kfp) as provider:
        made = await provider.ensure_pipeline(pipeline())
        _upload_by_hand(kfp, "by-hand")
        await provider.delete_pipeline(made)
        assert (len(kfp.service.rows.pipelines), versions(kfp)) == (1, ["by-hand"])


async def test_a_pipeline_of_somebody_else_is_not_deleted() -> None:
    async with KfpApi() as kfp, provider_of(kfp) as provider:
        made = await provider.ensure_pipeline(pipeline())
        kfp.service.rows.pipelines[made].description = "mine"
        kfp.service.rows.versions.clear()  # nothing but the description keeps the server from deleting it
        await provider.delete_pipeline(made)
        assert len(kfp.service.rows.pipelines) == 1


@pytest.mark.parametrize(("caching", "name"), [(True, "team-a.train.49e208-cached"), (False, "team-a.train.49e208-uncached")])
async def test_caching_that_the_provider_imposes_makes_a_version_of_its_own(caching: bool, name: str) -> None:
    async with KfpApi() as kfp:
        async with provider_of(kfp) as provider:
            await provider.ensure_pipeline(pipeline())
        async with provider_of(kfp, caching=caching) as provider:
            await provider.ensure_pipeline(pipeline())
        row = next(v for v in kfp.service.rows.versions.values() if v.name == name)
        (task,) = row.spec["root"]["dag"]["tasks"].values()
        assert bool(task["cachingOptions"].get("enableCache")) is caching
        assert len(kfp.service.rows.versions) == 2


# Experiments


async def test_an_experiment_is_made_once_and_found_again() -> None:
    described = ExperimentDescription("team-a", "penguins", "which island")
    async with KfpApi() as kfp, provider_of(kfp, clock=FakeClock()) as provider:
        kfp.fault(method="POST", path="/experiments", reset=True, effect=True)
        with pytest.raises(Retryable):
            await provider.ensure_experiment(described)
        made = await provider.ensure_experiment(described)
        row = kfp.service.rows.experiments[made]
        assert (row.name, row.description) == ("team-a/penguins", "which island")
        assert [e.name for e in kfp.service.rows.experiments.values()].count("team-a/penguins") == 1
        await provider.delete_experiment(made)
        await provider.delete_experiment(made)
        assert made not in kfp.service.rows.experiments


@pytest.mark.parametrize("at_backend", [True, False])
async def test_a_run_goes_to_its_experiment_or_to_one_of_that_name_at_the_server(at_backend: bool) -> None:
    async with KfpApi() as kfp, provider_of(kfp, clock=FakeClock()) as provider:
        with pytest.raises(Retryable, match="create Experiment team-a/penguins") as caught:
            await provider.submit_run(submission(experiment="penguins"))
        assert caught.value.reason == "ExperimentNotFound"
        if at_backend:
            await provider._api.create_experiment("penguins", "by hand")
        else:
            await provider.ensure_experiment(ExperimentDescription("team-a", "penguins"))
        await provider.submit_run(submission(experiment="penguins"))
        name = kfp.service.rows.experiments[kfp.run(submission().id).experiment].name
        assert name == ("penguins" if at_backend else "team-a/penguins")
        assert kfp.requests["POST", "/runs"] == 1


# Multi-user


def identities(rights: Collection[str]) -> Identities:
    return Identities(tokens={"good-token": "operator"}, rights={"operator": rights})


async def ready(provider: KubeflowProvider) -> str:
    """The reason why it is not ready; "": it is."""
    try:
        await provider.check()
    except (Permanent, Retryable) as error:
        return f"{error.reason}: {error}"
    return ""


async def test_a_multi_user_server_wants_a_namespace_since_without_one_pipelines_are_everybodys() -> None:
    async with KfpApi(Options(identities=identities({"team-a"}))) as kfp, provider_of(kfp) as provider:
        assert (await ready(provider)).startswith("NamespaceMissing: the server is multi-user: set spec.parameters.namespace")


async def test_in_a_multi_user_server_everything_is_made_in_the_namespace(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("good-token")
    options = Options(identities=identities({"team-a"}))
    async with KfpApi(options) as kfp, provider_of(kfp, namespace="team-a", authentication={"tokenFile": str(token)}) as provider:
        assert await ready(provider) == ""
        await provider.ensure_pipeline(pipeline())
        assert {row.namespace for row in kfp.service.rows.pipelines.values()} == {"team-a"}
        await provider.submit_run(submission())
        row = kfp.run(submission().id)
        assert row.namespace == "team-a"
        experiment = kfp.service.rows.experiments[row.experiment]
        assert (experiment.name, experiment.namespace) == ("Default", "team-a")
        await provider.cancel_run(submission().id)
        await provider.prune_pipeline(pipeline(version="bbbbbb"), keep=())
        await provider.delete_pipeline("team-a/train")
        assert kfp.service.rows.pipelines == {}


@pytest.mark.parametrize(
    ("token", "rights", "told"),
    [
        ("bad-token", {"team-a"}, "Unauthenticated: list runs: .* spec.parameters.authentication"),
        ("good-token", {"team-b"}, "PermissionDenied: list runs: .* ClusterRole kubeflow-pipelines-edit in namespace team-a"),
    ],
)
async def test_who_may_not_use_the_server_is_told_what_is_missing(token: str, rights: set[str], told: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    options = Options(identities=identities(rights))
    async with KfpApi(options) as kfp, provider_of(kfp, namespace="team-a", authentication={"tokenFile": str(file)}) as provider:
        found = await ready(provider)
        assert re.match(told, found), found
        assert token not in found
