"""Kubeconfig files: written for our own API server, read for clusters that exist."""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Connection:
    """What a client needs. ``ca`` is PEM text, ``token`` a bearer token; either is empty when a kubeconfig authenticates otherwise."""

    url: str
    ca: str
    token: str


def write(path: Path, connection: Connection, *, user: str) -> Path:
    """Write a kubeconfig with one context for one user, readable by its owner only."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test-bed",
        "contexts": [{"name": "test-bed", "context": {"cluster": "test-bed", "user": user}}],
        "clusters": [
            {
                "name": "test-bed",
                "cluster": {"server": connection.url, "certificate-authority-data": base64.b64encode(connection.ca.encode()).decode()},
            }
        ],
        "users": [{"name": user, "user": {"token": connection.token}}],
    }
    return _save(path, document)


def write_impersonating(path: Path, original: Path, *, user: str, groups: tuple[str, ...]) -> Path:
    """Write a copy of a kubeconfig whose current user acts as somebody else."""
    document = yaml.safe_load(original.read_text())
    context = _current_context(document, original)
    entry = _named(document["users"], context["user"], original)
    entry["user"] = {**entry["user"], "as": user, "as-groups": list(groups)}
    return _save(path, document)


def file_name(user: str, groups: Sequence[str]) -> str:
    """Return a file name for an identity; without colons, which separate the entries of KUBECONFIG."""
    digest = hashlib.sha256("\n".join([user, *groups]).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', user)}-{digest}.kubeconfig"


def read(path: Path) -> Connection:
    """Read where the current context leads to.

    Raises:
        ValueError: There is no current context, or it names something that is not there.

    """
    document = yaml.safe_load(path.read_text())
    context = _current_context(document, path)
    cluster = _named(document.get("clusters") or [], context["cluster"], path)["cluster"]
    user = _named(document.get("users") or [], context["user"], path)["user"] or {}
    return Connection(url=cluster["server"], ca=_certificate(cluster, path), token=user.get("token", ""))


def _certificate(cluster: dict[str, Any], path: Path) -> str:
    if data := cluster.get("certificate-authority-data"):
        return base64.b64decode(str(data)).decode()
    if file := cluster.get("certificate-authority"):
        return (path.parent / str(file)).read_text()
    return ""


def _current_context(document: dict[str, Any], path: Path) -> dict[str, Any]:
    name = document.get("current-context")
    if not name:
        raise ValueError(f"{path} has no current-context: choose one with `kubectl config use-context`")
    context: dict[str, Any] = _named(document.get("contexts") or [], name, path)["context"]
    return context


def _named(items: list[dict[str, Any]], name: str, path: Path) -> dict[str, Any]:
    for item in items:
        if item["name"] == name:
            return item
    raise ValueError(f"{path} names {name!r}, which it does not define")


def _save(path: Path, document: dict[str, Any]) -> Path:
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
