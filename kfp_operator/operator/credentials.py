"""Where the API server is, and how a request to it is authenticated.

Looked up as kubectl and controller-runtime do: an explicit kubeconfig or context, ``KUBECONFIG``, the pod's service account,
``~/.kube/config``. Everything that talks to the API server, Kopf included, gets its aiohttp session here: a middleware puts a fresh
Authorization header on each request and, after a 401, renews the credentials and repeats the request once. So a rotated
token neither fails a request nor breaks a watch.
"""

import asyncio
import os
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp import hdrs

from kfp_operator import __version__
from kfp_operator.errors import ClusterUnavailable, ConfigurationError
from kfp_operator.operator import kubeconfig
from kfp_operator.operator.kubeconfig import Context

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REFRESH = 60.0
"""Seconds for which a token is used before its source is asked again. Bound tokens are rotated at 80 % of an hour or more."""


def in_cluster(environ: Mapping[str, str] | None = None, folder: Path = SERVICE_ACCOUNT) -> bool:
    """Whether this process runs in a pod with a service account."""
    environ = os.environ if environ is None else environ
    return bool(environ.get("KUBERNETES_SERVICE_HOST")) and (folder / "token").is_file()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The API server and how to reach it."""

    server: str
    """URL without a trailing slash."""
    origin: str
    """Where this was found, for people."""
    namespace: str = "default"
    """The namespace that is meant when none is named."""
    tls: ssl.SSLContext | None = None
    """None: plain HTTP. Renewal loads new certificates into the same context."""
    server_name: str | None = None
    """Name in the server's certificate, where it is not the host's."""
    proxy: str | None = None
    """The kubeconfig's; None: the environment decides."""


class Credentials(ABC):
    """An API server and the right to use it. Safe to use from several threads and event loops."""

    def __init__(self, endpoint: Endpoint, authorization: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.endpoint = endpoint
        self.authorization = authorization
        """Value of the Authorization header as last read; None: there is none (client certificate, anonymous)."""
        self._lock = threading.Lock()
        self._clock = clock
        self._read_at = clock()

    @abstractmethod
    def _refresh(self) -> str | None:
        """The authorization, after asking its source whether it is still good: cheap when it is. May block."""

    @abstractmethod
    def _reload(self) -> str | None:
        """The authorization, after reading everything anew, certificates too. May block."""

    async def headers(self) -> dict[str, str]:
        """Headers for a request now.

        Raises ClusterUnavailable when the source of the token cannot be read.
        """
        if self._clock() - self._read_at > REFRESH:
            await asyncio.to_thread(self._refresh_once)
        return {} if self.authorization is None else {hdrs.AUTHORIZATION: self.authorization}

    async def renew(self, rejected: str | None) -> bool:
        """Read the credentials anew because the API server refused `rejected`; tell whether there are other ones now."""
        await asyncio.to_thread(self._reload_once, rejected)
        return self.authorization != rejected

    def session(self, *, limit: int, tracing: Sequence[aiohttp.TraceConfig] = ()) -> aiohttp.ClientSession:
        """A new session with at most `limit` connections (0: any number), to be closed by the caller."""
        endpoint = self.endpoint
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=limit, ssl=True if endpoint.tls is None else endpoint.tls),
            headers={hdrs.USER_AGENT: f"kfp-operator/{__version__}"},
            middlewares=(self._authorize,),
            trace_configs=list(tracing),
            proxy=endpoint.proxy or _environments_proxy(endpoint.server),
        )

    async def _authorize(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if self.endpoint.server_name is not None:
            request.server_hostname = self.endpoint.server_name
        sent = await self.headers()
        request.headers.update(sent)
        rejected = sent.get(hdrs.AUTHORIZATION)
        try:
            response = await handler(request)
        except aiohttp.ClientSSLError:
            await self.renew(rejected)  # an expired client certificate, a new authority: the caller's next attempt has the new ones
            raise
        if response.status != 401 or not await self.renew(rejected):
            return response
        response.close()
        request.headers.update(await self.headers())
        return await handler(request)

    def _refresh_once(self) -> None:
        with self._lock:
            if self._clock() - self._read_at > REFRESH:
                self.authorization = self._refresh()
                self._read_at = self._clock()

    def _reload_once(self, rejected: str | None) -> None:
        with self._lock:
            if self.authorization == rejected:  # else another request was refused before and has renewed them
                self.authorization = self._reload()
                self._read_at = self._clock()


class ServiceAccount(Credentials):
    """The pod's service account: token, authority and namespace in files that the kubelet keeps fresh."""

    def __init__(
        self, folder: Path = SERVICE_ACCOUNT, environ: Mapping[str, str] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        environ = os.environ if environ is None else environ
        host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
        self._folder = folder
        try:
            token = self._token()
            namespace = (folder / "namespace").read_text().strip() if (folder / "namespace").is_file() else "default"
            self._tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        except OSError as error:
            raise ConfigurationError(f"cannot read the service account in {folder}: {error}") from error
        super().__init__(
            Endpoint(
                server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
                origin=f"the pod's service account ({folder})",
                namespace=namespace,
                tls=self._tls,
            ),
            token,
            clock,
        )

    def _token(self) -> str:
        return f"Bearer {(self._folder / 'token').read_text().strip()}"

    def _refresh(self) -> str | None:
        try:
            return self._token()
        except OSError as error:
            raise ClusterUnavailable(f"cannot read the service account's token: {error}") from error

    def _reload(self) -> str | None:
        try:
            self._tls.load_verify_locations(cafile=str(self._folder / "ca.crt"))
        except OSError as error:
            raise ClusterUnavailable(f"cannot read the service account's authority: {error}") from error
        return self._refresh()


class Kubeconfig(Credentials):
    """A context of a kubeconfig whose credentials stand there: a token, a password, a client certificate."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tls = kubeconfig.tls(context)
        super().__init__(_endpoint(context, self._tls), kubeconfig.authorization(context))

    def _refresh(self) -> str | None:
        with _unavailable():
            return kubeconfig.authorization(self._context)

    def _reload(self) -> str | None:
        with _unavailable():
            self._context = kubeconfig.read_context(self._context.files, self._context.name)
            if self._tls is not None:
                kubeconfig.load_client_certificate(self._tls, self._context)
            return kubeconfig.authorization(self._context)


class Plugin(Credentials):
    """A context of a kubeconfig whose credentials an exec plugin or an identity provider makes, through the official client."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tls = kubeconfig.tls(context)
        self._config: Any = None
        super().__init__(_endpoint(context, self._tls), self._ask())

    def _refresh(self) -> str | None:
        with _unavailable():
            return self._authorization()

    def _reload(self) -> str | None:
        with _unavailable():
            return self._ask()

    def _ask(self) -> str | None:
        """Run the plugin; its certificate is loaded, its token returned."""
        import kubernetes.client
        import kubernetes.config

        context = self._context
        config = kubernetes.client.Configuration()
        try:
            kubernetes.config.load_kube_config(config_file=context.files, context=context.name, client_configuration=config)
            if self._tls is not None and config.cert_file:
                self._tls.load_cert_chain(config.cert_file, config.key_file)
        except Exception as error:  # plugins and providers fail in their own ways
            raise ConfigurationError(f"{self._title} gives no credentials: {error}") from error
        self._config = config
        token = self._authorization()
        if token is None and not config.cert_file:
            raise ConfigurationError(f"{self._title} gives no credentials; does kubectl work with it?")
        return token

    def _authorization(self) -> str | None:
        """The header's value; runs the plugin or asks the identity provider again when the token is about to expire."""
        try:
            setting = self._config.auth_settings().get("BearerToken")
        except Exception as error:
            raise ConfigurationError(f"{self._title} gives no new token: {error}") from error
        return None if setting is None or not setting["value"] else str(setting["value"])

    @property
    def _title(self) -> str:
        return f"the plugin of context {self._context.name!r} in kubeconfig {self._context.files}"


async def load_credentials(path: str | Path | None = None, context: str | None = None) -> Credentials:
    """Find the API server (see the module's text for the order).

    Raises ConfigurationError that names the file or context and the remedy. An exec plugin may take its time, as with kubectl.
    """
    return await asyncio.to_thread(_load, path, context)


def _load(path: str | Path | None, context: str | None) -> Credentials:
    files = str(path) if path else os.environ.get("KUBECONFIG", "")
    if not files and not context and in_cluster():
        return ServiceAccount()
    found = kubeconfig.read_context(files or "~/.kube/config", context)
    return Plugin(found) if found.needs_plugin else Kubeconfig(found)


def _environments_proxy(server: str) -> str | None:
    """The proxy that HTTPS_PROXY and NO_PROXY mean. Looked up once: aiohttp would do so, in a thread, for each request."""
    url = urlsplit(server)
    return None if proxy_bypass(url.hostname or "") else getproxies().get(url.scheme)


def _endpoint(context: Context, tls: ssl.SSLContext | None) -> Endpoint:
    cluster = context.cluster.body
    return Endpoint(
        server=context.server,
        origin=f"kubeconfig {context.files}, context {context.name}",
        namespace=context.namespace,
        tls=tls,
        server_name=cluster.get("tls-server-name") or None,
        proxy=cluster.get("proxy-url") or None,
    )


@contextmanager
def _unavailable() -> Iterator[None]:
    """What is wrong with a kubeconfig while the operator runs may be repaired: it is waited for."""
    try:
        yield
    except ConfigurationError as error:
        raise ClusterUnavailable(f"new credentials cannot be read: {error}") from error
