"""The store follows a real API server, through restarts and what nobody reported."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kfp_operator.api.names import Names
from kfp_operator.api.run import Run
from kfp_operator.errors import ClusterUnavailable
from kfp_operator.operator.client import Cluster as Client
from kfp_operator.operator.resources import Kinds
from kfp_operator.operator.source import Source
from kfp_operator.operator.store import Key, SettledRun
from tests.cluster import Cluster, ControlPlane
from tests.integration.operator.parts import KINDS, Gateway, Watched, connected, plain_kubeconfig, run_manifest, watching, with_user
from tests.waiting import eventually_async

RUN = KINDS.run


@asynccontextmanager
async def gateway_to(admin: Client, folder: Path) -> AsyncIterator[tuple[Gateway, Client]]:
    """A gateway and a client that goes through it."""
    gateway = Gateway(admin)
    async with gateway.serving(), connected(plain_kubeconfig(folder, gateway.url)) as client:
        yield gateway, client


async def test_everything_that_exists_is_seen_before_the_source_says_so_and_changes_follow(cluster: Cluster, namespace: str) -> None:
    async with connected(cluster.kubeconfig) as client:
        await asyncio.gather(*(client.create(RUN, run_manifest(f"r-{n}"), namespace) for n in range(10)))
        async with watching(client, namespace) as watched:
            async with asyncio.timeout(30):
                await watched.source.synced.wait()
            assert watched.source.trouble == ""
            assert watched.runs == {f"r-{n}" for n in range(10)}

            await client.create(RUN, run_manifest("new"), namespace)
            await client.patch(RUN, "r-1", {"status": {"state": "running"}}, namespace, subresource="status")
            await client.delete(RUN, "r-2", namespace)
            await eventually_async(lambda: watched.gone, 10, "the deletion is seen")
            await eventually_async(lambda: "new" in watched.runs, 10, "the new Run is seen")
            changed = watched.store.get(Key("Run", namespace, "r-1"))
            assert isinstance(changed, Run)
            assert changed.status.state == "running"
            assert watched.gone == [Key("Run", namespace, "r-2")]
            assert watched.relists == 0


async def test_kopf_writes_nothing_to_objects(cluster: Cluster, namespace: str) -> None:
    async with connected(cluster.kubeconfig) as client:
        before = await client.create(RUN, run_manifest("r"), namespace)
        async with watching(client, namespace) as watched:
            async with asyncio.timeout(30):
                await watched.source.synced.wait()
            await client.create(RUN, run_manifest("marker"), namespace)
            await eventually_async(lambda: "marker" in watched.runs, 10, "events are handled")
        assert (await client.get(RUN, "r", namespace))["metadata"] == before["metadata"]


async def test_the_echo_of_a_write_whose_answer_is_known_wakes_nobody(cluster: Cluster, namespace: str) -> None:
    async with connected(cluster.kubeconfig) as client, watching(client, namespace) as watched:
        async with asyncio.timeout(30):
            await watched.source.synced.wait()
        for number in range(20):
            watched.store.put(Run.parse(await client.create(RUN, run_manifest(f"r-{number}"), namespace)))
        await client.create(RUN, run_manifest("marker"), namespace)
        marker = Key("Run", namespace, "marker")
        await eventually_async(lambda: marker in watched.changed, 10, "events are handled")
        # the answer and the echo race; whoever is second changes nothing
        assert len(watched.changed) == len(set(watched.changed))
        assert watched.runs == {f"r-{number}" for number in range(20)} | {"marker"}


async def test_a_finished_run_becomes_short(cluster: Cluster, namespace: str) -> None:
    condition = {"type": "Completed", "status": "True", "reason": "Succeeded", "message": "", "lastTransitionTime": "2026-03-01T12:00:00Z"}
    async with connected(cluster.kubeconfig) as client, watching(client, namespace) as watched:
        await client.create(RUN, run_manifest("r"), namespace)
        status = {"state": "succeeded", "conditions": [condition]}
        await client.patch(RUN, "r", {"status": status}, namespace, subresource="status")
        key = Key("Run", namespace, "r")
        await eventually_async(lambda: isinstance(watched.store.get(key), SettledRun), 30, "it is settled")
        assert watched.store.runs_by_state() == {"succeeded": 1}


async def test_the_whole_cluster_is_watched_when_no_namespace_is_named(cluster: Cluster, namespace: str) -> None:
    async with connected(cluster.kubeconfig) as client, watching(client) as watched:
        await client.create(RUN, run_manifest("somewhere"), namespace)
        await eventually_async(lambda: Key("Run", namespace, "somewhere") in watched.store, 30, "it is seen")


async def test_the_store_follows_through_a_restart_of_the_api_server(control_plane: ControlPlane, namespace: str) -> None:
    async with connected(control_plane.kubeconfig) as client, watching(client, namespace) as watched:
        await client.create(RUN, run_manifest("before"), namespace)
        await eventually_async(lambda: watched.runs == {"before"}, 30, "it is seen")
        await asyncio.to_thread(control_plane.restart_apiserver)
        await client.create(RUN, run_manifest("after"), namespace)
        await eventually_async(lambda: watched.runs == {"before", "after"}, 60, "changes are seen again")


async def test_a_deletion_that_no_watch_reported_is_swept(cluster: Cluster, namespace: str) -> None:
    async with connected(cluster.kubeconfig) as client:
        for name in ("kept", "deleted", "replaced"):
            await client.create(RUN, run_manifest(name), namespace)
        async with watching(client, namespace) as watched:
            async with asyncio.timeout(30):
                await watched.source.synced.wait()
            store, sweeper = watched.store, watched.sweeper
        # nobody watches now
        await client.delete(RUN, "deleted", namespace)
        await client.delete(RUN, "replaced", namespace)
        await client.create(RUN, run_manifest("replaced"), namespace)
        assert await sweeper.sweep() == 2
        assert {key.name for key in store.keys("Run")} == {"kept"}
        assert {key.name for key in watched.gone} == {"deleted", "replaced"}
        assert await sweeper.sweep() == 0


async def test_a_watch_that_must_be_listed_again_misses_no_deletion(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    async with connected(cluster.kubeconfig) as admin, gateway_to(admin, tmp_path) as (gateway, client):
        for name in ("kept", "deleted"):
            await admin.create(RUN, run_manifest(name), namespace)
        async with watching(client, namespace) as watched:
            async with asyncio.timeout(30):
                await watched.source.synced.wait()
            await gateway.watches_open()
            gateway.watch_error = gone
            gateway.cut_watches()
            await admin.delete(RUN, "deleted", namespace)
            await admin.create(RUN, run_manifest("new"), namespace)
            await eventually_async(lambda: gateway.errors, 30, "the watch is told to list again")
            gateway.watch_error = None
            await eventually_async(lambda: watched.runs == {"kept", "new"}, 30, "the store is right again")
            assert watched.gone == [Key("Run", namespace, "deleted")]
            assert watched.relists >= 1


async def test_an_error_in_a_watch_that_ends_kopf_is_survived(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    failure = {"kind": "Status", "code": 500, "reason": "InternalError", "message": "etcdserver: leader changed"}
    async with connected(cluster.kubeconfig) as admin, gateway_to(admin, tmp_path) as (gateway, client):
        await admin.create(RUN, run_manifest("deleted"), namespace)
        async with watching(client, namespace) as watched:
            async with asyncio.timeout(30):
                await watched.source.synced.wait()
            await gateway.watches_open()
            gateway.watch_error = failure
            gateway.cut_watches()
            await eventually_async(lambda: "the watches ended" in watched.source.trouble, 30, "readiness tells")
            gateway.watch_error = None
            await admin.delete(RUN, "deleted", namespace)
            await admin.create(RUN, run_manifest("new"), namespace)
            await eventually_async(lambda: watched.runs == {"new"}, 60, "the store is right again")
            await eventually_async(lambda: watched.source.trouble == "", 10, "readiness tells")


async def test_watches_that_end_again_and_again_are_an_error_in_the_end(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    failure = {"kind": "Status", "code": 500, "message": "broken for good"}
    async with connected(cluster.kubeconfig) as admin, gateway_to(admin, tmp_path) as (gateway, client):
        gateway.watch_error = failure
        watched = Watched(client, (namespace,), pause=0.01)
        with pytest.raises(ClusterUnavailable, match=r"the watches ended: .*broken for good"):
            async with asyncio.timeout(60):
                await watched.source.run(asyncio.Event())


async def test_missing_definitions_are_waited_for_and_named(cluster: Cluster) -> None:
    async with connected(cluster.kubeconfig) as client, watching(client, "default") as watched:
        source = Source(
            client.credentials,
            client,
            watched.store,
            names=Names("other.example"),
            kinds=[Kinds("other.example").run],
            changed=watched.changed.append,
            gone=lambda key, _: None,
            relisted=lambda: None,
            invalid=lambda key, uid, why: None,
            metrics=watched.metrics,
        )
        stop = asyncio.Event()
        running = asyncio.create_task(source.run(stop))
        expected = "runs.other.example v1beta1 is not installed: kubectl apply -f crds/"
        await eventually_async(lambda: source.trouble == expected, 10, "the trouble is named")
        assert not running.done()
        assert not source.synced.is_set()
        stop.set()
        async with asyncio.timeout(10):
            await running


async def test_missing_rights_are_named_and_the_source_begins_when_they_are_given(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    cluster.kubectl("create", "serviceaccount", "operator", "-n", namespace)
    token = cluster.kubectl("create", "token", "operator", "-n", namespace).stdout.strip()
    async with connected(with_user(cluster, tmp_path, token=token)) as client, watching(client, namespace) as watched:
        expected = f'User "system:serviceaccount:{namespace}:operator" cannot list resource "providers"'
        await eventually_async(lambda: expected in watched.source.trouble, 15, "the trouble is named")
        verbs, resources = "--verb=get,list,watch", "--resource=" + ",".join(kind.title for kind in KINDS.all)
        cluster.kubectl("create", "role", "operator", "-n", namespace, verbs, resources)
        cluster.kubectl("create", "rolebinding", "operator", "-n", namespace, "--role=operator", f"--serviceaccount={namespace}:operator")
        async with asyncio.timeout(60):
            await watched.source.synced.wait()
        assert watched.source.trouble == ""


async def test_a_watch_that_cannot_be_kept_up_shows_in_readiness_until_it_can(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    async with (
        connected(cluster.kubeconfig) as admin,
        gateway_to(admin, tmp_path) as (gateway, client),
        watching(client, namespace) as watched,
    ):
        async with asyncio.timeout(30):
            await watched.source.synced.wait()
        await gateway.watches_open()
        gateway.refuse = 403
        gateway.cut_watches()
        await eventually_async(lambda: "the API server answers 403 Forbidden to" in watched.source.trouble, 30, "readiness tells")
        gateway.refuse = 0
        await eventually_async(lambda: watched.source.trouble == "", 30, "readiness tells")


def test_kopf_is_imported_without_the_kubernetes_client() -> None:
    program = "import sys, kfp_operator.operator.source; print('kubernetes.client' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, env=dict(os.environ))
    assert result.stdout.strip() == "False"
    program = "import kfp_operator.operator.source, kubernetes.client"
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)
