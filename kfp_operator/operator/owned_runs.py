"""The Runs that an object controls: seen in the store, and started, stopped and deleted at the API server."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from kfp_operator.api import conditions
from kfp_operator.api.meta import Resource
from kfp_operator.api.run import Run
from kfp_operator.errors import AlreadyExists, Conflict, NotFound
from kfp_operator.operator.ports import Objects, Wake
from kfp_operator.operator.store import Key, SettledRun, Store, Stored
from kfp_operator.reconcile.starting import OwnedRun

REMEMBERED = 10_000
"""Deleted Runs whose deletion has perhaps not been reported yet."""


class OwnedRuns:
    """Runs on behalf of their owners. What was done is seen at once by `of`, before any watch reports it."""

    def __init__(self, store: Store, objects: Objects, *, wake: Wake) -> None:
        """`wake`: what is put into the store here is no news to the watch any more, so the Run's own controller is told."""
        self._store = store
        self._objects = objects
        self._wake = wake
        self._deleted: OrderedDict[str, None] = OrderedDict()

    def of(self, uid: str, *, settled: Callable[[SettledRun], bool] = lambda _: True) -> list[OwnedRun]:
        """The Runs that the object with this uid controls. `settled`: which of those that are settled, of which there may be thousands."""
        found = (seen(stored) for stored in self._store.owned(uid) if not isinstance(stored, SettledRun) or settled(stored))
        return [replace(run, stopping=True, deleting=True) if run.uid in self._deleted else run for run in found if run is not None]

    async def start(self, owner: Resource, manifest: Mapping[str, Any]) -> tuple[Run, bool]:
        """Create the Run, or find the one that `owner` has under this name; True: it was created just now.

        Raises AlreadyExists when the name is taken by somebody else's, ClusterError for what the API server does not take.
        """
        name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
        try:
            run, created = await self._objects.create(Run, manifest), True
        except AlreadyExists:
            found = await self._objects.get(Key("Run", namespace, name))
            if not isinstance(found, Run) or not _controls(owner, found):
                why = f"Run {namespace}/{name} exists and is not of {type(owner).__name__} {owner.metadata.name}; delete it"
                raise AlreadyExists(why, status=409) from None
            run, created = found, False
        self._keep(run)
        return run, created

    async def look(self, namespace: str, name: str) -> None:
        """Learn whether there is a Run of that name after the answer to its creation was lost. Raises ClusterError but for NotFound."""
        with suppress(NotFound):
            found = await self._objects.get(Key("Run", namespace, name))
            if isinstance(found, Run):
                self._keep(found)

    async def stop(self, namespace: str, run: OwnedRun) -> None:
        """Cancel the Run; fine when it is gone."""
        try:
            found = await self._objects.get(Key("Run", namespace, run.name))
            if isinstance(found, Run) and found.metadata.uid == run.uid:
                self._keep(found if found.spec.cancel else await self._objects.patch_spec(found, {"cancel": True}))
                return
        except NotFound:
            pass
        self._remember(run)

    async def delete(self, namespace: str, run: OwnedRun) -> None:
        """Delete the Run; fine when it is gone."""
        with suppress(NotFound, Conflict):  # it is gone, or there is another one of its name
            await self._objects.delete(Key("Run", namespace, run.name), run.uid)
        self._remember(run)

    def _keep(self, run: Run) -> None:
        if self._store.put(run):
            self._wake(Key.of(run))

    def _remember(self, run: OwnedRun) -> None:
        """It stays in the store until its end is reported, which others wait for."""
        self._deleted[run.uid] = None
        if len(self._deleted) > REMEMBERED:
            self._deleted.popitem(last=False)


def seen(stored: Stored) -> OwnedRun | None:
    """A Run as its owner looks at it; None: it is none."""
    if isinstance(stored, SettledRun):
        return OwnedRun(
            name=stored.key.name,
            uid=stored.uid,
            created=_time(stored.created),
            state=stored.state,
            ended=_time(stored.ended or stored.created),
            settled=True,
        )
    if not isinstance(stored, Run):
        return None
    metadata, status = stored.metadata, stored.status
    completed = conditions.find(status.conditions, "Completed")
    created = metadata.creation_timestamp or _time(0)
    ended = None
    if status.completion_state is not None or (completed is not None and completed.status == "True"):
        ended = status.end_time or (completed.last_transition_time if completed is not None else created)
    return OwnedRun(
        name=metadata.name,
        uid=metadata.uid,
        created=created,
        state=status.state,
        ended=ended,
        stopping=stored.spec.cancel or metadata.deletion_timestamp is not None or status.cancellation is not None,
        deleting=metadata.deletion_timestamp is not None,
    )


def _controls(owner: Resource, run: Run) -> bool:
    return any(reference.controller and reference.uid == owner.metadata.uid for reference in run.metadata.owner_references)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
