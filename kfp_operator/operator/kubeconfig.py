"""Kubeconfigs: files, merging and contexts as in client-go, and credentials that stand in the file itself.

Credentials that a plugin makes (exec, auth-provider) are left to the official `kubernetes` package. It takes 40 MB and half a second
to import, which nobody pays whose kubeconfig has a token or a client certificate.
"""

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from kfp_operator.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Entry:
    """A named cluster, user or context, and the folder that relative paths in it are relative to."""

    body: Mapping[str, Any] = field(repr=False)  # it has secrets
    folder: Path


@dataclass(frozen=True, slots=True)
class Context:
    """One context with what it refers to."""

    files: str
    name: str
    namespace: str
    cluster: Entry
    user: Entry

    @property
    def server(self) -> str:
        """URL without a trailing slash."""
        return str(self.cluster.body["server"]).rstrip("/")

    @property
    def needs_plugin(self) -> bool:
        """Whether the credentials are made by a plugin."""
        return any(self.user.body.get(kind) for kind in ("exec", "auth-provider"))


def read_context(files: str, name: str | None = None) -> Context:
    """Read a context, else the current one. `files`: a path, or several separated as in ``KUBECONFIG``; the first to say something wins.

    Raises ConfigurationError that names the file and what it lacks.
    """
    clusters: dict[str, Entry] = {}
    users: dict[str, Entry] = {}
    contexts: dict[str, Entry] = {}
    current = ""
    found = [path for path in (Path(part).expanduser() for part in files.split(os.pathsep) if part) if path.is_file()]
    if not found:
        raise ConfigurationError(f"there is no kubeconfig at {files}: name one with --kubeconfig or KUBECONFIG")
    for path in found:
        document = _document(path)
        current = current or str(document.get("current-context") or "")
        for plural, singular, entries in (("clusters", "cluster", clusters), ("users", "user", users), ("contexts", "context", contexts)):
            for item in document.get(plural) or ():
                if not isinstance(item, dict) or "name" not in item:
                    raise ConfigurationError(f"kubeconfig {path}: each of {plural} needs a name")
                entries.setdefault(str(item["name"]), Entry(item.get(singular) or {}, path.absolute().parent))
    chosen = name or current
    if not chosen:
        raise ConfigurationError(f"kubeconfig {files} has no current-context: name one of {_names(contexts)} with --context")
    if chosen not in contexts:
        raise ConfigurationError(f"kubeconfig {files} has no context {chosen!r}, but {_names(contexts)}")
    context = contexts[chosen].body
    cluster = clusters.get(str(context.get("cluster")))
    if cluster is None or not cluster.body.get("server"):
        raise ConfigurationError(
            f"kubeconfig {files}: context {chosen!r} refers to cluster {context.get('cluster')!r}, which has no server there"
        )
    user = users.get(str(context.get("user")), Entry({}, cluster.folder))
    return Context(files, chosen, str(context.get("namespace") or "default"), cluster, user)


def authorization(context: Context) -> str | None:
    """The Authorization header that the user's token, tokenFile or password make; None without."""
    user = context.user.body
    if user.get("tokenFile"):  # beats token, as in client-go: it is the one that is kept fresh
        return f"Bearer {_read(context, context.user.folder / str(user['tokenFile'])).decode().strip()}"
    if user.get("token"):
        return f"Bearer {user['token']}"
    if user.get("username"):
        return aiohttp.encode_basic_auth(str(user["username"]), str(user.get("password") or ""))
    return None


def tls(context: Context) -> ssl.SSLContext | None:
    """The cluster's authority and the user's certificate; None for plain HTTP."""
    if not context.server.startswith("https"):
        return None
    authority = _data(context, context.cluster, "certificate-authority")
    try:
        result = ssl.create_default_context(cadata=authority.decode() if authority else None)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(f"kubeconfig {context.files}: the certificate authority cannot be loaded: {error}") from error
    if context.cluster.body.get("insecure-skip-tls-verify"):
        result.check_hostname = False
        result.verify_mode = ssl.CERT_NONE
    load_client_certificate(result, context)
    return result


def load_client_certificate(into: ssl.SSLContext, context: Context) -> None:
    """Load the user's certificate and key, if there are, for connections made from now on."""
    certificate, key = _data(context, context.user, "client-certificate"), _data(context, context.user, "client-key")
    if not certificate or not key:
        return
    with tempfile.NamedTemporaryFile() as file:  # mode 0600; OpenSSL reads only files
        file.write(certificate + b"\n" + key)
        file.flush()
        try:
            into.load_cert_chain(file.name)
        except ssl.SSLError as error:
            raise ConfigurationError(f"kubeconfig {context.files}: the client certificate cannot be loaded: {error}") from error


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"cannot read kubeconfig {path}: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"kubeconfig {path} is not a mapping")
    return document


def _data(context: Context, entry: Entry, key: str) -> bytes:
    """The PEM text under ``key-data``, or in the file named by ``key``."""
    data, path = entry.body.get(f"{key}-data"), entry.body.get(key)
    if data:
        try:
            return base64.b64decode("".join(str(data).split()), validate=True)
        except binascii.Error as error:
            raise ConfigurationError(f"kubeconfig {context.files}: {key}-data is not base64: {error}") from error
    return _read(context, entry.folder / str(path)) if path else b""


def _read(context: Context, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"kubeconfig {context.files} names a file that cannot be read: {error}") from error


def _names(entries: Mapping[str, Entry]) -> str:
    return ", ".join(repr(name) for name in sorted(entries)) or "none"
