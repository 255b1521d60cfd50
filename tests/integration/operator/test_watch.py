"""Following one object by `Cluster.watch`."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from kfp_operator.errors import Forbidden, Gone, NotFound
from kfp_operator.operator.client import Change, Cluster
from kfp_operator.operator.credentials import load_credentials
from kfp_operator.operator.resources import CONFIG_MAPS, Resource
from tests.cluster import Cluster as Bed
from tests.cluster import ControlPlane


async def open_client(kubeconfig: Path) -> Cluster:
    return Cluster(await load_credentials(kubeconfig))


@pytest.fixture
async def client(cluster: Bed) -> AsyncIterator[Cluster]:
    async with await open_client(cluster.kubeconfig) as client:
        yield client


async def changes(client: Cluster, name: str, namespace: str, *, since: str, count: int) -> list[Change]:
    """The first changes of a ConfigMap."""
    found: list[Change] = []
    watch = client.watch(CONFIG_MAPS, name, namespace, resource_version=since, seconds=15)
    async with asyncio.timeout(20), aclosing(watch):
        async for change in watch:
            found.append(change)
            if len(found) == count:
                break
    return found


async def make(client: Cluster, namespace: str, name: str, **data: str) -> dict[str, Any]:
    return await client.create(CONFIG_MAPS, {"metadata": {"name": name}, "data": data}, namespace)


async def test_changes_come_in_order_and_of_one_object_alone(client: Cluster, namespace: str) -> None:
    first = await make(client, namespace, "one", n="0")
    await make(client, namespace, "two", n="0")
    await client.patch(CONFIG_MAPS, "two", {"data": {"n": "1"}}, namespace)
    await client.patch(CONFIG_MAPS, "one", {"data": {"n": "1"}}, namespace)
    await client.delete(CONFIG_MAPS, "one", namespace)
    seen = await changes(client, "one", namespace, since=first["metadata"]["resourceVersion"], count=2)
    assert [(change.type, change.body["metadata"]["name"], change.body["data"]["n"]) for change in seen] == [
        ("MODIFIED", "one", "1"),
        ("DELETED", "one", "1"),
    ]


async def test_an_object_larger_than_any_buffer_arrives_whole(client: Cluster, namespace: str) -> None:
    first = await make(client, namespace, "large")
    await client.patch(CONFIG_MAPS, "large", {"data": {"text": "x" * 900_000}}, namespace)
    [change] = await changes(client, "large", namespace, since=first["metadata"]["resourceVersion"], count=1)
    assert len(change.body["data"]["text"]) == 900_000


async def test_a_watch_ends_by_itself_after_its_time(client: Cluster, namespace: str) -> None:
    first = await make(client, namespace, "quiet")
    began = time.monotonic()
    version = first["metadata"]["resourceVersion"]
    assert [c async for c in client.watch(CONFIG_MAPS, "quiet", namespace, resource_version=version, seconds=1)] == []
    assert time.monotonic() - began < 10


async def test_a_version_that_is_forgotten_is_gone(control_plane: ControlPlane, client: Cluster, namespace: str) -> None:
    await asyncio.to_thread(control_plane.restart_apiserver)  # its memory of changes begins anew
    with pytest.raises(Gone, match=f"watch configmaps {namespace}/x"):
        await changes(client, "x", namespace, since="1", count=1)


async def test_a_kind_that_is_not_installed_is_not_found(client: Cluster, namespace: str) -> None:
    unknown = Resource("absent.example.org", "v1", "things", "Thing")
    with pytest.raises(NotFound, match="is its CustomResourceDefinition installed"):
        async for _ in client.watch(unknown, "x", namespace, resource_version="1", seconds=1):
            pass


async def test_a_refusal_is_told_as_such(control_plane: ControlPlane, namespace: str) -> None:
    async with await open_client(control_plane.kubeconfig_for("guest")) as client:
        with pytest.raises(Forbidden, match="guest"):
            await changes(client, "x", namespace, since="1", count=1)
