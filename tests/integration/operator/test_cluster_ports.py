"""What providers see of a real cluster: Workflows as they change, Secrets, and what they are told where they may not look."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

import pytest

from kfp_operator.errors import AlreadyExists, Permanent
from kfp_operator.operator.client import Cluster as Client
from kfp_operator.operator.cluster_ports import ClusterSecrets, ClusterWorkflows
from kfp_operator.operator.resources import CUSTOM_RESOURCE_DEFINITIONS, SECRETS, WORKFLOWS
from kfp_operator.providers.kubeflow.workflows import PERSISTED, PHASE, RUN_ID, UNFINISHED
from tests.cluster import Cluster, ControlPlane
from tests.doubles.kfp_api.cluster import CRD
from tests.integration.operator.parts import connected
from tests.waiting import eventually_async

NOBODY = "a-user-without-rights"


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    """Of a cluster with Argo's CRD."""
    async with connected(cluster.kubeconfig) as opened:
        with suppress(AlreadyExists):
            await opened.create(CUSTOM_RESOURCE_DEFINITIONS, CRD)
        await eventually_async(lambda: opened.serves(WORKFLOWS), 30, "Workflows are served")
        yield opened


def workflow(name: str, run_id: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {RUN_ID: run_id, **labels}}, "spec": {"big": "x" * 1000}}


async def label(client: Client, namespace: str, name: str, **labels: str | None) -> None:
    keys = {"phase": PHASE, "persisted": PERSISTED}
    await client.patch(WORKFLOWS, name, {"metadata": {"labels": {keys[key]: value for key, value in labels.items()}}}, namespace)


async def test_workflows_are_found_by_their_run_and_whole(client: Client, namespace: str) -> None:
    for name, run_id in (("a", "r1"), ("b", "r1"), ("c", "r2")):
        await client.create(WORKFLOWS, workflow(name, run_id), namespace)
    port = ClusterWorkflows(client)
    found = await port.list(namespace, f"{RUN_ID}=r1")
    assert sorted(str(each["metadata"]["name"]) for each in found) == ["a", "b"]
    assert found[0]["spec"]["big"]
    assert await port.list("no-such-namespace", f"{RUN_ID}=r1") == []


async def test_a_watch_tells_what_is_there_what_changes_and_what_is_selected_no_longer(client: Client, namespace: str) -> None:
    await client.create(WORKFLOWS, workflow("old", "r0", **{PERSISTED: "true"}), namespace)
    await client.create(WORKFLOWS, workflow("a", "r1"), namespace)
    seen: list[tuple[str, str, str]] = []

    async def watch() -> None:
        async with aclosing(ClusterWorkflows(client).watch(namespace, UNFINISHED)) as changes:
            async for kind, found in changes:
                assert "spec" not in found, "metadata is enough"
                labels = (found.get("metadata") or {}).get("labels") or {}
                seen.append((kind, str(labels.get(RUN_ID, "")), str(labels.get(PHASE, ""))))

    watching = asyncio.create_task(watch())
    try:
        await eventually_async(lambda: ("SYNCED", "", "") in seen, 10, "the list is told")
        assert seen == [("ADDED", "r1", ""), ("SYNCED", "", "")]
        await label(client, namespace, "a", phase="Running")
        await label(client, namespace, "a", phase="Succeeded", persisted="true")
        await label(client, namespace, "a", phase="Running", persisted=None)
        await client.delete(WORKFLOWS, "a", namespace)
        # what is selected no longer is told as it was while it was
        expected = [("MODIFIED", "r1", "Running"), ("DELETED", "r1", "Running"), ("ADDED", "r1", "Running"), ("DELETED", "r1", "Running")]
        await eventually_async(lambda: seen[2:] == expected, 10, f"all is told: {seen}")
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_who_may_not_see_workflows_is_told_so(control_plane: ControlPlane, client: Client, namespace: str) -> None:
    async with connected(control_plane.kubeconfig_for(NOBODY)) as restricted:
        port = ClusterWorkflows(restricted)
        told = re.escape(f"may not list and watch workflows.argoproj.io in namespace {namespace}")
        with pytest.raises(Permanent, match=told) as caught:
            await port.list(namespace, RUN_ID)
        assert caught.value.reason == "WorkflowsForbidden"
        with pytest.raises(Permanent, match=told):
            await anext(port.watch(namespace, RUN_ID))


async def test_a_secret_is_read_by_key_and_what_is_missing_is_named(client: Client, namespace: str) -> None:
    encoded = base64.b64encode(b"value\n").decode()
    await client.create(SECRETS, {"metadata": {"name": "kfp"}, "data": {"token": encoded}}, namespace)
    port = ClusterSecrets(client, namespace)
    assert await port.read("kfp", "token") == b"value\n"
    with pytest.raises(Permanent, match=f"Secret {namespace}/other does not exist") as caught:
        await port.read("other", "token")
    assert caught.value.reason == "SecretNotFound"
    with pytest.raises(Permanent, match=f"Secret {namespace}/kfp has no key key, only token"):
        await port.read("kfp", "key")


async def test_who_may_not_read_a_secret_is_told_what_grants_it(control_plane: ControlPlane, namespace: str) -> None:
    async with connected(control_plane.kubeconfig_for(NOBODY)) as restricted:
        told = re.escape(f"grant it get on secrets with resourceNames [kfp] in namespace {namespace}")
        with pytest.raises(Permanent, match=told):
            await ClusterSecrets(restricted, namespace).read("kfp", "token")
