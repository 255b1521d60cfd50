"""Installations of other kinds: older servers, several users, pipelines as custom resources, artifacts without ML Metadata."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.doubles.kfp_api import Artifact, Identities, Outcome
from tests.integration.kfp_api.site import site

ID = "11111111-1111-5111-8111-111111111111"
TOKENS = Identities(
    tokens={"good": "operator", "guest": "guest"},
    rights={"operator": {"team-a"}, "guest": {"team-a:runs.get", "team-a:runs.list"}},
)


@pytest.mark.parametrize(
    ("version", "split", "tags", "store"),
    [("2.0.5", False, False, False), ("2.14.0", True, False, False), ("2.16.1", True, False, False), ("2.17.0", True, True, True)],
)
async def test_a_server_has_what_its_version_brought(version: str, split: bool, tags: bool, store: bool) -> None:
    async with site(version=version) as s:
        health = (await s.ask("GET", "/healthz")).body
        assert (health["tag_name"], "pipeline_store" in health) == (version, store)
        made = (await s.upload(name="two-step", display_name="Two", tags='{"a":"b"}')).body
        assert ("name" in made, "tags" in made) == (split, tags)
        assert made["display_name"] == ("Two" if split else "two-step")
        named = await s.ask("POST", "/pipelines", {"name": "another", "display_name": "Another"})
        assert named.status == (200 if split else 400)
        path = f"/pipelines/{made['pipeline_id']}"
        assert (await s.ask("PATCH", path, {"display_name": "x"})).status == (200 if tags else 501)
        assert (await s.ask("DELETE", path, cascade="true")).status == (200 if split else 400)
        by_name = {"predicates": [{"operation": "EQUALS", "key": "name", "string_value": "two-step"}]}
        assert (await s.ask("GET", "/pipelines", filter=quote(json.dumps(by_name)))).status == 200


async def test_who_is_nobody_is_401_and_who_may_not_is_403() -> None:
    async with site(identities=TOKENS) as s:
        experiment = {"display_name": "e", "namespace": "team-a"}
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer bad"}, 401),
            ({"Authorization": "Bearer guest"}, 403),
            ({"kubeflow-userid": "guest"}, 403),
            ({"Authorization": "Bearer good"}, 200),
        ):
            answer = await s.as_user(**headers).ask("POST", "/experiments", experiment)
            assert answer.status == status, answer.text
        other = await s.as_user(Authorization="Bearer good").ask("POST", "/experiments", experiment | {"namespace": "team-b"})
        assert (other.status, other.body["code"]) == (403, 7)


async def test_several_users_need_namespaces_and_experiments() -> None:
    async with site(identities=TOKENS) as s:
        me = s.as_user(Authorization="Bearer good")
        assert (await me.ask("POST", "/experiments", {"display_name": "e"})).status == 400
        assert (await me.ask("GET", "/runs")).status == 400
        experiment = (await me.ask("POST", "/experiments", {"display_name": "e", "namespace": "team-a"})).body
        assert experiment["namespace"] == "team-a"
        reference = await me.pipeline("one", namespace="team-a")
        assert (await me.run("x", reference)).status == 400
        assert (await me.run(ID, reference, experiment_id=experiment["experiment_id"])).status == 200
        (workflow,) = s.kfp.service.argo.of(ID)
        assert workflow.namespace == "team-a"
        guest = s.as_user(Authorization="Bearer guest")
        assert (await guest.ask("GET", f"/runs/{ID}")).status == 200
        assert (await guest.ask("POST", f"/runs/{ID}:terminate", {})).status == 403
        assert [r["run_id"] for r in (await guest.ask("GET", "/runs", namespace="team-a")).body["runs"]] == [ID]


async def test_an_unknown_run_is_404_before_anybody_is_asked_who_they_are() -> None:
    async with site(identities=TOKENS) as s:
        assert (await s.ask("GET", f"/runs/{ID}")).status == 404


async def test_a_forgotten_namespace_publishes_a_pipeline_to_everybody() -> None:
    async with site(identities=TOKENS) as s:
        assert (await s.upload(name="shared")).status == 200, "without any identity"
        assert [p["name"] for p in (await s.ask("GET", "/pipelines")).body["pipelines"]] == ["shared"]
        assert (await s.upload(name="mine", namespace="team-a")).status == 400, "an upload tells 400 for what is 401"


async def test_pipelines_that_are_custom_resources_have_their_names_and_few_filters() -> None:
    async with site(kubernetes_store=True) as s:
        assert (await s.ask("GET", "/healthz")).body["pipeline_store"] == "kubernetes"
        assert (await s.upload(name="My Pipeline")).status == 400
        assert (await s.upload(name="ns.name")).body["namespace"] == "kubeflow"

        def filtered(operation: str, key: str, **value: Any) -> str:
            return quote(json.dumps({"predicates": [{"operation": operation, "key": key, **value}]}))

        assert (await s.ask("GET", "/pipelines", filter=filtered("EQUALS", "name", string_value="ns.name"))).body["total_size"] == 1
        later = filtered("GREATER_THAN", "created_at", timestamp_value="2026-01-01T00:00:00Z")
        assert (await s.ask("GET", "/pipelines", filter=later)).status == 400


@pytest.mark.parametrize(("version", "status"), [("2.16.1", 409), ("2.17.0", 200)])
async def test_older_custom_resources_of_versions_share_names_in_a_namespace(version: str, status: int) -> None:
    async with site(kubernetes_store=True, version=version) as s:
        first, second = await s.pipeline("one"), await s.pipeline("two")
        assert (await s.upload(version=True, pipelineid=first["pipeline_id"], name="v1")).status == 200
        assert (await s.upload(version=True, pipelineid=second["pipeline_id"], name="v1")).status == status


async def test_a_server_without_ml_metadata_tells_artifacts_itself() -> None:
    async with site(artifact_api=True) as s:
        model = Artifact("train", "model", "system.Model", "gs://bucket/model", {"accuracy": 0.9, "pushed": True})
        s.kfp.outcome(Outcome(artifacts=(model,)))
        await s.run(ID, await s.pipeline())
        s.clock.forward(60)
        assert "run_details" not in (await s.ask("GET", f"/runs/{ID}")).body
        tasks = (await s.ask("GET", f"/runs/{ID}", view="FULL")).body["tasks"]
        assert [t["name"] for t in tasks] == ["prep", "train"]
        (output,) = tasks[1]["outputs"]["artifacts"]
        assert (output["artifact_key"], output["artifacts"][0]["uri"]) == ("model", "gs://bucket/model")
        (link,) = (await s.ask("GET", "/artifact_tasks", run_ids=ID)).body["artifact_tasks"]
        artifact = (await s.ask("GET", f"/artifacts/{link['artifact_id']}")).body
        assert (artifact["type"], artifact["metadata"]) == ("Model", {"accuracy": 0.9, "pushed": True})


async def test_a_server_with_ml_metadata_has_no_artifact_api() -> None:
    async with site() as s:
        assert (await s.ask("GET", "/artifact_tasks", run_ids=ID)).status == 404
