"""Where Workflows are kept for others to see: on a real API server, or in memory behind the port that providers get.

On an API server the double is Argo and KFP in one: it creates the custom resource before it answers a POST, and writes each later state
as soon as the API server takes it, so that a real watch sees what it would see beside a real Argo. A Workflow that somebody deletes is
gone: nothing more is heard of its run.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

from kfp_operator.errors import ClusterError, ClusterUnavailable, NotFound, Permanent, Retryable
from kfp_operator.operator.client import Cluster
from kfp_operator.operator.resources import WORKFLOWS
from tests.doubles.kfp_api.argo import Argo
from tests.doubles.kfp_api.workflow import Workflow

CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": WORKFLOWS.title},
    "spec": {
        "group": WORKFLOWS.group,
        "names": {"kind": WORKFLOWS.kind, "listKind": "WorkflowList", "plural": "workflows", "singular": "workflow", "shortNames": ["wf"]},
        "scope": "Namespaced",
        "versions": [
            {
                "name": WORKFLOWS.version,
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
"""Argo's own minimal one, without a status subresource as there."""
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
OURS = ("labels", "annotations")
"""Members of metadata that are written; the API server makes the others."""


class ClusterWorkflows:
    """Writes Workflows to a real API server. Use as an async context manager; `client` is open."""

    def __init__(self, client: Cluster) -> None:
        self._client = client
        self._before: Callable[[], Awaitable[None]] | None = None
        self._argo: Argo | None = None
        self._written: dict[str, dict[str, Any]] = {}
        """What the API server holds, by uid here."""
        self._changed: dict[str, Workflow] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def attach(self, argo: Argo, before: Callable[[], Awaitable[None]]) -> None:
        """Follow these Workflows; `before` is awaited before each write, for what must be known elsewhere when they show it."""
        self._argo, self._before = argo, before
        argo.listeners.append(self._told)

    def shows(self, workflow: Workflow) -> bool:
        """Whether the API server has it as it is: the agent sees what others see, and no sooner."""
        return self._written.get(workflow.uid) == _document(workflow)

    async def create(self, workflow: Workflow) -> None:
        """Return when it is there; ConnectionError."""
        document = _document(workflow)
        try:
            await self._client.create(WORKFLOWS, document, workflow.namespace)
        except ClusterError as error:
            raise ConnectionError(str(error)) from error
        self._written[workflow.uid] = document
        self._note(workflow)

    async def stop(self, workflow: Workflow) -> None:
        """Set spec.activeDeadlineSeconds to 0; LookupError, ConnectionError."""
        try:
            await self._client.patch(WORKFLOWS, workflow.name, {"spec": {"activeDeadlineSeconds": 0}}, workflow.namespace)
        except NotFound as error:
            raise LookupError(str(error)) from error
        except ClusterError as error:
            raise ConnectionError(str(error)) from error

    async def delete(self, workflow: Workflow) -> None:
        """Remove it; fine when it is gone, and best effort."""
        self._written.pop(workflow.uid, None)
        with suppress(ClusterError):
            await self._client.delete(WORKFLOWS, workflow.name, workflow.namespace)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def _told(self, what: str, workflow: Workflow) -> None:
        if what == "MODIFIED" and workflow.uid in self._written:
            self._note(workflow)

    def _note(self, workflow: Workflow) -> None:
        self._changed[workflow.uid] = workflow
        self._wake.set()

    async def _write(self) -> None:
        pause = FIRST_PAUSE
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._changed:
                _, workflow = self._changed.popitem()
                try:
                    if self._before is not None:
                        await self._before()
                    await self._update(workflow)
                except ClusterUnavailable:
                    self._note(workflow)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                else:
                    pause = FIRST_PAUSE

    async def _update(self, workflow: Workflow) -> None:
        wanted, written = _document(workflow), self._written.get(workflow.uid)
        if written is None or wanted == written:
            return
        try:
            await self._client.patch(WORKFLOWS, workflow.name, merge_patch(written, wanted), workflow.namespace)
        except NotFound:
            del self._written[workflow.uid]
            if self._argo is not None:
                self._argo.delete(workflow)
        else:
            self._written[workflow.uid] = wanted


def _document(workflow: Workflow) -> dict[str, Any]:
    """What we decide of it."""
    document = workflow.document()
    metadata = document["metadata"]
    kept = {"name": metadata["name"], "generateName": metadata["generateName"]} | {key: metadata[key] for key in OURS}
    return document | {"metadata": kept}


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The RFC 7386 patch that makes `new` of `old`."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := merge_patch(before, value):
                patch[key] = inner
        elif key not in old or before != value:
            patch[key] = value
    return patch


class PortedWorkflows:
    """The Workflows of an `Argo` in this process as providers see them (`providers.protocol.Workflows`)."""

    def __init__(self, argo: Argo) -> None:
        self.allowed = True
        """Whether the caller may look."""
        self.available = True
        """Whether there is an answer."""
        self.lists = 0
        self.watches = 0
        self._argo = argo
        self._open: list[asyncio.Queue[tuple[str, dict[str, Any]] | None]] = []
        argo.listeners.append(self._told)

    async def list(self, namespace: str, selector: str) -> Sequence[Mapping[str, Any]]:
        """The Workflows that a label selector chooses."""
        self.lists += 1
        self._check()
        return [d for w in self._argo.workflows.values() if matches(d := w.document(), namespace, selector)]

    async def watch(self, namespace: str, selector: str) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Metadata of all that exist, SYNCED, then what changes, until `cut`."""
        self.watches += 1
        self._check()
        queue: asyncio.Queue[tuple[str, dict[str, Any]] | None] = asyncio.Queue()
        chosen: set[str] = set()
        existing = [w.document() for w in self._argo.workflows.values()]
        self._open.append(queue)
        try:
            for document in existing:
                if matches(document, namespace, selector):
                    chosen.add(document["metadata"]["uid"])
                    yield "ADDED", {"metadata": document["metadata"]}
            yield "SYNCED", {}
            while (change := await queue.get()) is not None:
                what, document = change
                uid = document["metadata"]["uid"]
                known, wanted = uid in chosen, what != "DELETED" and matches(document, namespace, selector)
                if known or wanted:
                    yield ("DELETED" if not wanted else "MODIFIED" if known else "ADDED"), {"metadata": document["metadata"]}
                (chosen.add if wanted else chosen.discard)(uid)
        finally:
            self._open.remove(queue)
        raise Retryable("the watch of Workflows ended; begin anew")

    def cut(self) -> None:
        """End all watches."""
        for queue in self._open:
            queue.put_nowait(None)

    def _check(self) -> None:
        if not self.allowed:
            raise Permanent("may not list workflows.argoproj.io", reason="Forbidden")
        if not self.available:
            raise Retryable("the API server does not answer")

    def _told(self, what: str, workflow: Workflow) -> None:
        change = (what, workflow.document())
        for queue in self._open:
            queue.put_nowait(change)


def matches(document: Mapping[str, Any], namespace: str, selector: str) -> bool:
    """Whether a label selector chooses the object: ``key``, ``!key``, ``key=value``, ``key!=value`` and ``key in (a,b)``."""
    metadata = document["metadata"]
    if namespace and metadata["namespace"] != namespace:
        return False
    labels: Mapping[str, str] = metadata["labels"]
    for part in _requirements(selector):
        key, operator, value = part
        found = labels.get(key)
        fine = {
            "exists": found is not None,
            "absent": found is None,
            "=": found == value,
            "!=": found != value,
            "in": found in value.split(","),
        }
        if not fine[operator]:
            return False
    return True


REQUIREMENT = re.compile(
    r"""\s*(?: !(?P<absent>[^\s,]+)
    | (?P<key>[^\s,!=()]+) \s* (?: (?P<op>in|==|=|!=) \s* (?: \((?P<many>[^)]*)\) | (?P<one>[^,]*) ) )?
    )\s*(?:,|$)""",
    re.VERBOSE,
)


def _requirements(selector: str) -> list[tuple[str, str, str]]:
    """Key, operator and value of each part; ValueError for what is none."""
    found, place = [], 0
    while place < len(selector):
        part = REQUIREMENT.match(selector, place)
        if part is None:
            raise ValueError(f"not a label selector: {selector!r}")
        place = part.end()
        if part["absent"]:
            found.append((part["absent"], "absent", ""))
        elif part["op"] is None:
            found.append((part["key"], "exists", ""))
        else:
            value = (part["one"] or "").strip() if part["many"] is None else ",".join(v.strip() for v in part["many"].split(","))
            found.append((part["key"], "=" if part["op"] == "==" else part["op"], value))
    return found
