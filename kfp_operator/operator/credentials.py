"""Where the API server is, and how a request to it is authenticated.

Looked up as kubectl and controller-runtime do: an explicit kubeconfig or context, ``KUBECONFIG``, the pod's service account,
``~/.kube/config``. Kubeconfigs are read by the official `kubernetes` package, which knows exec plugins, OIDC and the rest;
it is imported only then, because it costs some 30 MB. Everything that talks to the API server, Kopf included, gets its
aiohttp session here: a middleware puts a fresh Authorization header on each request and, after a 401, renews the
credentials and repeats the request once. So a rotated token neither fails a request nor breaks a watch.
"""

import asyncio
import os
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import getproxies

import aiohttp
import yaml
from aiohttp import hdrs

from kfp_operator import __version__
from kfp_operator.errors import ClusterUnavailable, ConfigurationError

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


class Credentials(ABC):
    """An API server and the right to use it. Safe to use from several threads and event loops."""

    def __init__(self, endpoint: Endpoint, authorization: str | None) -> None:
        self.endpoint = endpoint
        self.authorization = authorization
        """Value of the Authorization header as last read; None: there is none (client certificate, anonymous)."""
        self._lock = threading.Lock()
        self._read_at = time.monotonic()

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
        if time.monotonic() - self._read_at > REFRESH:
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
            proxy=endpoint.proxy,
            trust_env=endpoint.proxy is None,
        )

    async def _authorize(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if self.endpoint.server_name is not None:
            request.server_hostname = self.endpoint.server_name
        sent = await self.headers()
        request.headers.update(sent)
        rejected = sent.get(hdrs.AUTHORIZATION)
        try:
            response = await handler(request)
        except aiohttp.ClientConnectorSSLError:
            await self.renew(rejected)  # an expired client certificate, a new authority: the caller's next attempt has the new ones
            raise
        if response.status != 401 or not await self.renew(rejected):
            return response
        response.close()
        request.headers.update(await self.headers())
        return await handler(request)

    def _refresh_once(self) -> None:
        with self._lock:
            if time.monotonic() - self._read_at > REFRESH:
                self.authorization = self._refresh()
                self._read_at = time.monotonic()

    def _reload_once(self, rejected: str | None) -> None:
        with self._lock:
            if self.authorization == rejected:  # else another request was refused before and has renewed them
                self.authorization = self._reload()
                self._read_at = time.monotonic()


class ServiceAccount(Credentials):
    """The pod's service account: token, authority and namespace in files that the kubelet keeps fresh."""

    def __init__(self, folder: Path = SERVICE_ACCOUNT, environ: Mapping[str, str] | None = None) -> None:
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
        )

    def _token(self) -> str:
        return f"Bearer {(self._folder / 'token').read_text().strip()}"

    def _refresh(self) -> str | None:
        try:
            return self._token()
        except OSError as error:
            raise ClusterUnavailable(f"cannot read the service account's token: {error}") from error

    def _reload(self) -> str | None:
        self._tls.load_verify_locations(cafile=str(self._folder / "ca.crt"))
        return self._refresh()


class Kubeconfig(Credentials):
    """One context of a kubeconfig. `files`: a path, or several separated as in ``KUBECONFIG``."""

    def __init__(self, files: str, context: str | None = None) -> None:
        self._files = files
        self._context = context
        self._config = _read(files, context)
        namespace, name = _active_context(files, context)
        super().__init__(
            Endpoint(
                server=str(self._config.host).rstrip("/"),
                origin=f"kubeconfig {files}, context {name}",
                namespace=namespace,
                tls=_tls(self._config),
                server_name=getattr(self._config, "tls_server_name", None) or None,
                proxy=_proxy(self._config),
            ),
            _authorization(self._config),
        )

    def _refresh(self) -> str | None:
        return _authorization(self._config)

    def _reload(self) -> str | None:
        try:
            self._config = _read(self._files, self._context)
            if self.endpoint.tls is not None:
                _load_client_certificate(self.endpoint.tls, self._config)
        except ConfigurationError as error:
            raise ClusterUnavailable(f"the credentials were refused and new ones cannot be read: {error}", status=401) from error
        return _authorization(self._config)


async def load_credentials(kubeconfig: str | Path | None = None, context: str | None = None) -> Credentials:
    """Find the API server (see the module's text for the order).

    Raises ConfigurationError that names the file or context and the remedy. An exec plugin may take its time, as with kubectl.
    """
    return await asyncio.to_thread(_load, kubeconfig, context)


def _load(kubeconfig: str | Path | None, context: str | None) -> Credentials:
    files = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG", "")
    if not files and not context and in_cluster():
        return ServiceAccount()
    return Kubeconfig(files or "~/.kube/config", context)


def _read(files: str, context: str | None) -> Any:
    paths = [Path(path).expanduser() for path in files.split(os.pathsep) if path]
    if not any(path.is_file() for path in paths):
        raise ConfigurationError(f"there is no kubeconfig at {files}: name one with --kubeconfig or KUBECONFIG")
    import kubernetes.client
    import kubernetes.config

    config = kubernetes.client.Configuration()
    try:
        kubernetes.config.load_kube_config(config_file=files, context=context, client_configuration=config)
    except (kubernetes.config.ConfigException, yaml.YAMLError, OSError, KeyError, TypeError, ValueError) as error:
        which = f"context {context!r} of " if context else ""
        raise ConfigurationError(f"cannot use {which}kubeconfig {files}: {error}") from error
    return config


def _active_context(files: str, context: str | None) -> tuple[str, str]:
    """Namespace and name of the context in use."""
    import kubernetes.config

    contexts, active = kubernetes.config.list_kube_config_contexts(config_file=files)
    chosen = next((c for c in contexts if c["name"] == context), active)
    return str(chosen["context"].get("namespace") or "default"), str(chosen["name"])


def _authorization(config: Any) -> str | None:
    """The header's value; runs the exec plugin or asks the OIDC issuer when the token is about to expire."""
    setting = config.auth_settings().get("BearerToken")
    return None if setting is None or not setting["value"] else str(setting["value"])


def _proxy(config: Any) -> str | None:
    """The kubeconfig's proxy-url. One from the environment is left to aiohttp, which honours NO_PROXY too."""
    proxy = getattr(config, "proxy", None)
    return None if not proxy or proxy in getproxies().values() else str(proxy)


def _tls(config: Any) -> ssl.SSLContext | None:
    if not str(config.host).startswith("https"):
        return None
    try:
        tls = ssl.create_default_context(cafile=config.ssl_ca_cert or None)
    except OSError as error:
        raise ConfigurationError(f"cannot load the certificate authority of the kubeconfig for {config.host}: {error}") from error
    if not config.verify_ssl:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    _load_client_certificate(tls, config)
    return tls


def _load_client_certificate(tls: ssl.SSLContext, config: Any) -> None:
    if not config.cert_file:
        return
    try:
        tls.load_cert_chain(config.cert_file, config.key_file)
    except OSError as error:
        raise ConfigurationError(f"cannot load the client certificate of the kubeconfig for {config.host}: {error}") from error
