"""Our own Kubernetes: a real etcd, kube-apiserver and kube-controller-manager on free ports, in a scratch folder, ready in three seconds.

There is no scheduler and no kubelet: pods stay Pending. Everything else is the real thing: admission, CEL validation, garbage collection,
namespace deletion, RBAC, watches. Users are bearer tokens (``--token-auth-file``); ``admin`` is in ``system:masters``.
"""

import base64
import contextlib
import http.client
import secrets
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import kubeconfig
from tests.cluster.cluster import Cluster
from tests.cluster.folders import ScratchFolder
from tests.cluster.ports import free_port
from tests.cluster.process import Process, ProcessError

_START_WITHIN = 60.0  # of each process; three seconds on an idle machine
_START_ATTEMPTS = 3
_DRAIN_WITHIN = 2.0  # for requests in flight; the API server itself would wait a minute for the slowest

_Identity = tuple[str, tuple[str, ...]]  # a user and its groups
_ADMIN: _Identity = ("admin", ("system:masters",))


@dataclass(frozen=True)
class Binaries:
    """The programs of a control plane. Without a controller manager nothing is garbage-collected and namespaces are never gone."""

    kube_apiserver: Path
    etcd: Path
    kubectl: Path
    kube_controller_manager: Path | None


class ControlPlane(Cluster):
    """A cluster of our own.

    Args:
        binaries: What to run.
        why: How they were found, for people.
        crds: Folder of manifests that are applied before the controller manager starts, so that it collects their garbage from the first
            moment (it looks for new kinds only every 30 s).
        users: Names of users besides ``admin``, each with its groups; ``kubeconfig_for`` gives their kubeconfigs.

    """

    def __init__(self, *, binaries: Binaries, why: str, crds: Path | None = None, users: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__(kubectl_binary=binaries.kubectl, why=why, crds=crds)
        self._binaries = binaries
        self._tokens: dict[_Identity, str] = {_ADMIN: secrets.token_urlsafe()}
        for user, groups in (users or {}).items():
            self._tokens[user, tuple(groups)] = secrets.token_urlsafe()
        self._etcd: Process | None = None
        self._apiserver: Process | None = None
        self._controller_manager: Process | None = None
        self._port = 0

    @property
    def has_controller_manager(self) -> bool:
        """Whether owners' dependents and namespaces' contents are deleted."""
        return self._binaries.kube_controller_manager is not None

    @property
    def pids(self) -> list[int]:
        """The process ids of what runs."""
        return [process.pid for process in (self._etcd, self._apiserver, self._controller_manager) if process is not None and process.alive]

    def start(self) -> None:
        """Start everything and return when the API server is ready.

        Raises:
            ProcessError: A part did not start; the message holds the end of its log.

        """
        self._scratch = ScratchFolder()
        try:
            self._start_storage_and_api()
            self._apply_crds()
            self._start_controller_manager()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill everything and remove the folder; nothing of a cluster outlives it."""
        for process in (self._controller_manager, self._apiserver, self._etcd):
            if process is not None:
                process.kill()
        super().stop()

    def stop_apiserver(self) -> None:
        """Stop the API server: connections are refused from now on."""
        self._running(self._apiserver).stop(within=_DRAIN_WITHIN)

    def kill_apiserver(self) -> None:
        """Kill the API server with SIGKILL."""
        self._running(self._apiserver).kill()

    def start_apiserver(self) -> None:
        """Start the API server again, on the same port with the same data, and wait until it is ready.

        The controller manager is started anew too: its watches would come back one by one, half a minute after the last.
        """
        apiserver = self._running(self._apiserver)
        apiserver.start()
        apiserver.wait_until(self._ready, _START_WITHIN)
        if self._controller_manager is not None:
            self._controller_manager.kill()
            self._controller_manager.start()

    def restart_apiserver(self) -> None:
        """Stop the API server and start it again: clients lose their watches."""
        self.stop_apiserver()
        self.start_apiserver()

    def pause_apiserver(self) -> None:
        """Freeze the API server: connections stay open, nothing answers."""
        self._running(self._apiserver).pause()

    def resume_apiserver(self) -> None:
        """Let the API server go on."""
        self._running(self._apiserver).resume()

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """Return a kubeconfig of a user in these groups (and ``system:authenticated``).

        The API server reads its users only at its start: one that was not among ``users`` costs a restart, two seconds, at its first use.
        ``system:serviceaccount:NAMESPACE:NAME`` is a user too.
        """
        identity = (user, tuple(groups))
        if identity not in self._tokens:
            self._tokens[identity] = secrets.token_urlsafe()
            self._write_tokens()
            self.restart_apiserver()
        return self._write_kubeconfig(self.folder / kubeconfig.file_name(user, groups), identity)

    def _start_storage_and_api(self) -> None:
        _write_key(self.folder / "service-accounts.key")
        self._write_tokens()
        for left in reversed(range(_START_ATTEMPTS)):
            try:
                self._start_on_free_ports()
            except ProcessError as error:
                for process in (self._apiserver, self._etcd):
                    if process is not None:
                        process.kill()
                if not left or "address already in use" not in str(error):
                    raise
            else:
                return

    def _start_on_free_ports(self) -> None:
        storage, peers, self._port = free_port(), free_port(), free_port()
        self._etcd = Process("etcd", self._etcd_command(storage, peers), log=self.folder / "etcd.log")
        self._apiserver = Process("kube-apiserver", self._apiserver_command(storage), log=self.folder / "kube-apiserver.log")
        self._etcd.start()
        self._etcd.wait_until(lambda: _answers(http.client.HTTPConnection("127.0.0.1", storage, timeout=1)), _START_WITHIN)
        self._apiserver.start()
        self._apiserver.wait_until(self._ready, _START_WITHIN)
        self._given_kubeconfig = self._write_kubeconfig(self.folder / "admin.kubeconfig", _ADMIN)

    def _start_controller_manager(self) -> None:
        if self._binaries.kube_controller_manager is None:
            return
        command: list[str | Path] = [
            self._binaries.kube_controller_manager,
            f"--kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={self.folder / 'service-accounts.key'}",
            "--leader-elect=false",
            "--controllers=*,-nodeipam,-nodelifecycle",
            "--secure-port=0",
            "--kube-api-qps=200",  # the default, 20, makes garbage collection the slowest part of a test
            "--kube-api-burst=400",
        ]
        self._controller_manager = Process("kube-controller-manager", command, log=self.folder / "kube-controller-manager.log")
        self._controller_manager.start()

    def _etcd_command(self, storage: int, peers: int) -> list[str | Path]:
        clients, others = f"http://127.0.0.1:{storage}", f"http://127.0.0.1:{peers}"
        return [
            self._binaries.etcd,
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={others}",
            f"--initial-advertise-peer-urls={others}",
            f"--initial-cluster=default={others}",
            "--log-level=warn",
            "--unsafe-no-fsync",  # a power cut may lose it: nobody will miss it
        ]

    def _apiserver_command(self, storage: int) -> list[str | Path]:
        key = self.folder / "service-accounts.key"
        return [
            self._binaries.kube_apiserver,
            f"--etcd-servers=http://127.0.0.1:{storage}",
            f"--secure-port={self._port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",  # no pod looks for the Service `kubernetes`, and it refuses a loopback address
            f"--cert-dir={self.folder / 'certificates'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=ServiceAccount",
        ]

    def _ready(self) -> bool:
        certificate = self._certificate
        if not certificate.exists():  # the API server makes it
            return False
        trust = ssl.create_default_context(cafile=str(certificate))
        return _answers(http.client.HTTPSConnection("127.0.0.1", self._port, timeout=1, context=trust), self._tokens[_ADMIN])

    @property
    def _certificate(self) -> Path:
        return self.folder / "certificates" / "apiserver.crt"

    def _write_kubeconfig(self, file: Path, identity: _Identity) -> Path:
        url = f"https://127.0.0.1:{self._port}"
        connection = kubeconfig.Connection(url=url, ca=self._certificate.read_text(), token=self._tokens[identity])
        return kubeconfig.write(file, connection, user=identity[0])

    def _write_tokens(self) -> None:
        lines = [f'{token},"{user}","{user}","{",".join(groups)}"\n' for (user, groups), token in self._tokens.items()]
        path = self.folder / "tokens.csv"
        path.touch(mode=0o600)
        path.write_text("".join(lines))

    def _running(self, process: Process | None) -> Process:
        if process is None:
            raise ProcessError("the cluster was not started")
        return process


def _write_key(path: Path) -> None:
    """Write a new key that signs service account tokens: P-256, which is any number, in the form of RFC 5915 without its public half."""
    der = bytes.fromhex("30310201010420") + secrets.token_bytes(32) + bytes.fromhex("a00a06082a8648ce3d030107")
    path.touch(mode=0o600)
    path.write_text(f"-----BEGIN EC PRIVATE KEY-----\n{base64.b64encode(der).decode()}\n-----END EC PRIVATE KEY-----\n")


def _answers(connection: http.client.HTTPConnection, token: str = "") -> bool:
    """Tell whether ``/readyz`` is answered with 200; OSError if nothing answers."""
    with contextlib.closing(connection):
        connection.request("GET", "/readyz", headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status == http.client.OK
