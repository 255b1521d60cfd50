"""What providers may see of the cluster: Argo Workflows, and Secrets beside their Provider. Nothing is written.

A right that is missing is Permanent, with what grants it: whoever asks does without, or tells it.
"""

import base64
import binascii
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from kfp_operator.errors import ClusterError, ClusterUnavailable, Forbidden, NotFound, Permanent, Retryable
from kfp_operator.operator.client import Cluster
from kfp_operator.operator.resources import SECRETS, WORKFLOWS

WATCH_SECONDS = 300
"""Of one request; the next goes on where it ended."""


class ClusterWorkflows:
    """The real `providers.protocol.Workflows`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def list(self, namespace: str, selector: str) -> Sequence[Mapping[str, Any]]:
        """The Workflows that the selector chooses, whole."""
        try:
            found, _ = await self._cluster.snapshot(WORKFLOWS, namespace, label_selector=selector)
        except ClusterError as error:
            raise _refused(error, namespace) from error
        return found

    async def watch(self, namespace: str, selector: str) -> AsyncGenerator[tuple[str, Mapping[str, Any]]]:
        """Metadata of those that exist, then SYNCED, then changes."""
        try:
            found, version = await self._cluster.snapshot(WORKFLOWS, namespace, label_selector=selector, metadata_only=True)
            for workflow in found:
                yield "ADDED", workflow
            yield "SYNCED", {}
            while True:
                changes = self._cluster.watch_all(
                    WORKFLOWS, namespace, resource_version=version, seconds=WATCH_SECONDS, label_selector=selector, metadata_only=True
                )
                async with aclosing(changes):
                    async for change in changes:
                        version = str((change.body.get("metadata") or {}).get("resourceVersion") or version)
                        yield change.type, change.body
        except ClusterError as error:
            raise _refused(error, namespace) from error


class ClusterSecrets:
    """The real `providers.protocol.Secrets`, of one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace

    async def read(self, name: str, key: str) -> bytes:
        """The value of a key."""
        where = f"Secret {self._namespace}/{name}"
        try:
            body = await self._cluster.get(SECRETS, name, self._namespace)
        except NotFound as error:
            raise Permanent(f"{where} does not exist", reason="SecretNotFound") from error
        except Forbidden as error:
            message = (
                f"the operator may not read {where}: grant it get on secrets with resourceNames [{name}] in namespace {self._namespace}"
            )
            raise Permanent(message, reason="SecretForbidden") from error
        except ClusterError as error:
            after = error.after if isinstance(error, ClusterUnavailable) else None
            raise Retryable(f"{where} cannot be read: {error}", reason="SecretUnreadable", after=after) from error
        data = body.get("data") or {}
        if key not in data:
            raise Permanent(f"{where} has no key {key}, only {', '.join(sorted(data)) or 'none'}", reason="SecretNotFound")
        try:
            return base64.b64decode(data[key], validate=True)
        except (binascii.Error, TypeError) as error:
            raise Permanent(f"{where} has no valid value in key {key}", reason="SecretNotFound") from error


def _refused(error: ClusterError, namespace: str) -> Permanent | Retryable:
    where = f"namespace {namespace}" if namespace else "all namespaces"
    if isinstance(error, Forbidden):
        return Permanent(f"the operator may not list and watch {WORKFLOWS.title} in {where}: {error}", reason="WorkflowsForbidden")
    if isinstance(error, NotFound):
        return Permanent(f"there are no {WORKFLOWS.title} in this cluster: {error}", reason="WorkflowsMissing")
    after = error.after if isinstance(error, ClusterUnavailable) else None
    return Retryable(f"{WORKFLOWS.title} in {where}: {error}", reason="WorkflowsUnavailable", after=after)
