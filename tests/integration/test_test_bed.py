"""The test bed keeps what it promises: real parts, and nothing left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import aiohttp
import nats as nats_py
import pytest

from tests.cluster import Cluster, ControlPlane, KubectlError, NatsServer, Process, ProcessError, free_port
from tests.cluster.build import kubernetes_version
from tests.cluster.folders import ScratchFolder
from tests.waiting import eventually

Kubectl = Callable[..., CompletedProcess[str]]

PARENT = """
import sys
from tests.cluster import NatsServer, open_cluster
cluster = open_cluster()
cluster.start()
server = NatsServer()
server.start()
print(cluster.folder, *cluster.pids, server.pid, flush=True)
sys.stdin.read()
"""


def config_map(name: str, **metadata: object) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}


def gone(pid: int) -> bool:
    """Whether the process is dead; a zombie that its adopter has not reaped yet is."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_api_server_is_the_version_that_is_pinned(control_plane: ControlPlane) -> None:
    if "KUBEBUILDER_ASSETS" in control_plane.why:
        pytest.skip("runs other programs than the pinned ones")
    assert control_plane.version == kubernetes_version()


def test_a_kubeconfig_with_a_token_and_a_ca_leads_to_the_api_server(control_plane: ControlPlane, kubectl: Kubectl) -> None:
    assert control_plane.url.startswith("https://127.0.0.1:")
    assert control_plane.ca.startswith("-----BEGIN CERTIFICATE-----")
    who = json.loads(kubectl("auth", "whoami", "--output", "json").stdout)
    assert who["status"]["userInfo"]["username"] == "admin"
    assert control_plane.token


def test_other_users_have_the_rights_they_are_given_and_no_more(cluster: Cluster, namespace: str) -> None:
    ann = cluster.kubeconfig_for("ann", ["readers"])
    cluster.kubectl("create", "rolebinding", "readers", "--namespace", namespace, "--clusterrole", "view", "--group", "readers")
    reads = ("auth", "can-i", "list", "configmaps", "--namespace", namespace)
    eventually(lambda: cluster.kubectl(*reads, kubeconfig=ann, check=False).returncode == 0, 30, "the binding is in force")
    with pytest.raises(KubectlError, match="forbidden"):
        cluster.kubectl("create", "configmap", "mine", "--namespace", namespace, kubeconfig=ann)


def test_what_an_object_owns_is_collected_with_it(cluster: Cluster, namespace: str, controller_manager: None) -> None:
    cluster.apply(config_map("owner"), namespace=namespace)
    owner = cluster.get("configmap", "owner", namespace)
    assert owner is not None
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    cluster.apply(config_map("owned", ownerReferences=[reference]), namespace=namespace)
    cluster.kubectl("delete", "configmap", "owner", "--namespace", namespace)
    eventually(lambda: cluster.get("configmap", "owned", namespace) is None, 30, "the owned object is collected")


def test_a_namespace_ends_with_all_that_is_in_it(cluster: Cluster, namespace: str, controller_manager: None) -> None:
    cluster.apply(config_map("inside"), namespace=namespace)
    cluster.kubectl("delete", "namespace", namespace, "--timeout=60s")
    assert cluster.get("namespace", namespace) is None


def test_the_api_server_comes_back_on_its_address_with_its_data(control_plane: ControlPlane, namespace: str) -> None:
    url = control_plane.url
    control_plane.apply(config_map("kept"), namespace=namespace)
    control_plane.stop_apiserver()
    assert control_plane.kubectl("get", "namespaces", check=False).returncode != 0
    control_plane.start_apiserver()
    assert control_plane.url == url
    assert control_plane.get("configmap", "kept", namespace) is not None


def test_a_frozen_api_server_answers_nothing_until_it_goes_on(control_plane: ControlPlane) -> None:
    control_plane.pause_apiserver()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            control_plane.kubectl("get", "--raw", "/readyz", within=1)
    finally:
        control_plane.resume_apiserver()
    assert control_plane.kubectl("get", "--raw", "/readyz").stdout == "ok"


def test_nothing_outlives_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent, parent.stdin, parent.stdout:
        folder, *pids = parent.stdout.readline().split()
        children = [int(pid) for pid in pids]
        assert len(children) >= 3
        assert not any(gone(child) for child in children)
        parent.send_signal(signal.SIGKILL)
        try:
            eventually(lambda: all(gone(child) for child in children), 10, "the parent's processes are gone")
        finally:
            for survivor in (child for child in children if not gone(child)):
                os.kill(survivor, signal.SIGKILL)
    assert Path(folder).exists()
    ScratchFolder().remove()
    assert not Path(folder).exists(), "the next one that makes a scratch folder removes those of the dead"


def test_a_process_that_ends_while_it_starts_says_why(tmp_path: Path) -> None:
    process = Process("speaker", ["sh", "-c", "echo no such flag >&2; exit 3"], log=tmp_path / "log")
    process.start()
    with pytest.raises(ProcessError, match=r"(?s)speaker ended with 3.*no such flag"):
        process.wait_until(lambda: False, within=10)


def test_the_children_of_a_process_are_stopped_with_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = Process("nest", ["sh", "-c", "sleep 1000 & echo $!; wait"], log=log)
    process.start()
    process.wait_until(lambda: log.read_text().strip(), within=10)
    child = int(log.read_text())
    process.stop()
    eventually(lambda: gone(child), 10, "the child is gone")
    assert process.returncode == -signal.SIGTERM


async def test_nats_keeps_its_port_and_its_data_when_it_is_killed(nats: NatsServer) -> None:
    client = await nats_py.connect(nats.url)
    await client.jetstream().add_stream(name="kept", subjects=["kept"])
    await client.jetstream().publish("kept", b"before")
    await client.close()
    url = nats.url
    nats.kill()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", nats.port), timeout=1)
    nats.start()
    assert nats.url == url
    client = await nats_py.connect(nats.url)
    message = await client.jetstream().get_msg("kept", seq=1)
    assert message.data == b"before"
    await client.close()


def test_a_frozen_nats_answers_when_it_goes_on(nats: NatsServer) -> None:
    nats.pause()
    with socket.create_connection(("127.0.0.1", nats.port), timeout=1) as connection:
        with pytest.raises(TimeoutError):
            connection.recv(4)
        nats.resume()
        connection.settimeout(10)
        assert connection.recv(4) == b"INFO"


async def test_nats_takes_users_and_monitoring_from_its_configuration(tmp_path: Path) -> None:
    users = 'authorization { users: [ { user: ann, password: "secret" } ] }'
    with NatsServer(tmp_path, config=users, monitoring=True) as server:
        client = await nats_py.connect(server.url, user="ann", password="secret")
        await client.close()
        async with aiohttp.ClientSession() as session, session.get(f"{server.monitoring_url}/varz") as answer:
            assert (await answer.json())["port"] == server.port
    assert (tmp_path / "jetstream").exists(), "a folder that was given is the caller's"


def test_a_server_on_a_port_that_is_taken_says_so() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", free_port()))
        holder.listen()
        server = NatsServer(port=holder.getsockname()[1])
        with pytest.raises(ProcessError, match="address already in use"):
            server.start()
        server.close()
