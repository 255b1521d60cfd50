"""The client against a real API server: every refusal becomes the right error, and pages add up."""

import asyncio
import sys
from pathlib import Path

import pytest

from kfp_operator.errors import ConfigurationError, Conflict, Forbidden, NotFound, Unprocessable
from kfp_operator.operator.credentials import load_credentials
from kfp_operator.operator.resources import CONFIG_MAPS, NAMESPACES, Resource
from tests.cluster import Cluster
from tests.integration.operator.parts import KINDS, connected, run_manifest, with_user

RUN = KINDS.run


async def test_an_object_is_created_read_patched_and_deleted(cluster: Cluster, namespace: str) -> None:
    async with connected(cluster.kubeconfig) as client:
        created = await client.create(CONFIG_MAPS, {"metadata": {"name": "a"}, "data": {"k": "v", "gone": "x"}}, namespace)
        assert (await client.get(CONFIG_MAPS, "a", namespace))["data"] == {"k": "v", "gone": "x"}
        version = created["metadata"]["resourceVersion"]
        patched = await client.patch(CONFIG_MAPS, "a", {"data": {"k": "w", "gone": None}}, namespace, resource_version=version)
        assert patched["data"] == {"k": "w"}
        assert patched["metadata"]["resourceVersion"] != version
        await client.delete(CONFIG_MAPS, "a", namespace, uid=created["metadata"]["uid"])
        with pytest.raises(NotFound, match=rf'get configmaps {namespace}/a: configmaps "a" not found \(404\)'):
            await client.get(CONFIG_MAPS, "a", namespace)


async def test_a_write_based_on_an_old_version_is_a_conflict_and_changes_nothing(cluster: Cluster, namespace: str) -> None:
    async with connected(cluster.kubeconfig) as client:
        created = await client.create(RUN, run_manifest("train-1"), namespace)
        version = created["metadata"]["resourceVersion"]
        await client.patch(RUN, "train-1", {"status": {"message": "first"}}, namespace, subresource="status", resource_version=version)
        with pytest.raises(
            Conflict, match=rf"patch runs.kfp-operator.dev/status {namespace}/train-1: .*the object has been modified.* \(409\)"
        ):
            await client.patch(RUN, "train-1", {"status": {"message": "second"}}, namespace, subresource="status", resource_version=version)
        assert (await client.get(RUN, "train-1", namespace))["status"]["message"] == "first"


async def test_a_name_that_is_taken_is_a_conflict(cluster: Cluster, namespace: str) -> None:
    async with connected(cluster.kubeconfig) as client:
        await client.create(RUN, run_manifest("train-1"), namespace)
        with pytest.raises(Conflict, match="already exists"):
            await client.create(RUN, run_manifest("train-1"), namespace)


async def test_a_delete_meant_for_an_earlier_object_of_the_name_is_a_conflict(cluster: Cluster, namespace: str) -> None:
    async with connected(cluster.kubeconfig) as client:
        await client.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, namespace)
        with pytest.raises(Conflict, match="the UID in the precondition"):
            await client.delete(CONFIG_MAPS, "a", namespace, uid="00000000-0000-0000-0000-000000000000")
        await client.get(CONFIG_MAPS, "a", namespace)


async def test_what_the_schema_refuses_is_unprocessable_and_says_which_field(cluster: Cluster, namespace: str) -> None:
    async with connected(cluster.kubeconfig) as client:
        with pytest.raises(Unprocessable, match=r"spec.activeDeadlineSeconds.*\(422\)"):
            await client.create(RUN, run_manifest("train-1", activeDeadlineSeconds=-1), namespace)


async def test_what_is_not_allowed_is_forbidden_and_names_the_user(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    cluster.kubectl("create", "serviceaccount", "nobody", "-n", namespace)
    token = cluster.kubectl("create", "token", "nobody", "-n", namespace).stdout.strip()
    async with connected(with_user(cluster, tmp_path, token=token)) as client:
        with pytest.raises(Forbidden, match=rf'User "system:serviceaccount:{namespace}:nobody" cannot list resource "runs"') as raised:
            [item async for item in client.list(RUN, namespace)]
    assert raised.value.status == 403


async def test_a_token_the_server_does_not_know_is_forbidden_with_401(cluster: Cluster, tmp_path: Path) -> None:
    async with connected(with_user(cluster, tmp_path, token="wrong")) as client:
        with pytest.raises(Forbidden) as raised:
            await client.get(NAMESPACES, "default")
    assert raised.value.status == 401


async def test_a_kind_without_a_definition_is_named(cluster: Cluster, namespace: str) -> None:
    unknown = Resource("kfp-operator.dev", "v1beta1", "teapots", "Teapot")
    async with connected(cluster.kubeconfig) as client:
        with pytest.raises(NotFound, match=r"does not serve teapots.kfp-operator.dev v1beta1: is its CustomResourceDefinition installed"):
            await client.get(unknown, "a", namespace)
        assert await client.serves(RUN)
        assert not await client.serves(unknown)


async def test_pages_add_up_to_the_whole_list_and_selectors_narrow_it(cluster: Cluster, namespace: str) -> None:
    async with connected(cluster.kubeconfig) as client:
        bodies = [{"metadata": {"name": f"m-{n:02}", "labels": {"odd": str(n % 2)}}, "data": {"k": "v"}} for n in range(25)]
        await asyncio.gather(*(client.create(CONFIG_MAPS, body, namespace) for body in bodies))
        names = [
            item["metadata"]["name"] async for item in client.list(CONFIG_MAPS, namespace, page=7) if item["metadata"]["name"][:2] == "m-"
        ]
        assert names == [f"m-{n:02}" for n in range(25)]
        odd = [item async for item in client.list(CONFIG_MAPS, namespace, label_selector="odd=1", page=5)]
        assert len(odd) == 12
        slim = [item async for item in client.list(CONFIG_MAPS, namespace, field_selector="metadata.name=m-03", metadata_only=True)]
        assert [(item["kind"], "data" in item) for item in slim] == [("PartialObjectMetadata", False)]
        assert slim[0]["metadata"]["uid"]
        assert await client.count(CONFIG_MAPS, namespace) == len([item async for item in client.list(CONFIG_MAPS, namespace)])


async def test_the_server_says_its_version_and_that_it_is_ready(cluster: Cluster) -> None:
    async with connected(cluster.kubeconfig) as client:
        assert await client.version() == cluster.version
        assert await client.raw("/readyz") == "ok"


async def test_an_exec_plugin_gives_the_token_and_is_asked_again_after_a_401(cluster: Cluster, tmp_path: Path) -> None:
    calls, plugin = tmp_path / "calls", tmp_path / "plugin.py"
    plugin.write_text(
        f"""
import json, pathlib
calls = pathlib.Path({str(calls)!r})
calls.write_text((calls.read_text() if calls.exists() else "") + "x")
token = "wrong" if calls.read_text() == "x" else {cluster.token!r}
print(json.dumps({{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {{"token": token}}}}))
"""
    )
    command = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(plugin)],
        "interactiveMode": "Never",
    }
    async with connected(with_user(cluster, tmp_path, exec=command)) as client:
        await client.get(NAMESPACES, "default")
    assert calls.read_text() == "xx"


async def test_a_plugin_that_fails_is_named(cluster: Cluster, tmp_path: Path) -> None:
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/false", "interactiveMode": "Never"}
    with pytest.raises(
        ConfigurationError, match=r"the plugin of context '\S+' in kubeconfig \S+ gives no credentials; does kubectl work with it"
    ):
        await load_credentials(with_user(cluster, tmp_path, exec=command))
