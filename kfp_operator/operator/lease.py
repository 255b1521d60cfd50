"""Leader election on a coordination.k8s.io Lease, with a fence.

One process acts; others stand by. The leader writes the Lease every `duration`/6 seconds. A standby takes over when the Lease has not
changed for `duration` seconds of the standby's own clock, so clocks need not agree. The leader asks `guard()` right before each
effect: it raises once 2/3 of `duration` have passed since the last successful renewal *was sent*, on a clock that also runs while
the process or the machine sleeps. So a leader that cannot renew, or was stopped and goes on, has ceased to act before
another can begin.

A leader that was cut off keeps trying. Its writes carry the resourceVersion of its last one: if one succeeds, nobody else has led
meanwhile, and it goes on; if another has, `hold` raises LeadershipLost. An outage of the API server therefore ends nothing.
(Who deletes the Lease takes that protection away from its holder: a process that never saw it makes a new one and leads at once.)
Small facts that must outlive the process, the cursors of consumers, are kept in the Lease's annotations.
"""

import asyncio
import logging
import math
import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from kfp_operator.errors import ClusterError, Conflict, LeadershipLost, NotFound
from kfp_operator.operator.resources import LEASES, Resource

log = logging.getLogger(__name__)


class LeaseApi(Protocol):
    """What is needed of the API server; `client.Cluster` is one."""

    async def get(self, resource: Resource, name: str, namespace: str = "") -> dict[str, Any]:
        """The object; NotFound."""

    async def create(self, resource: Resource, body: Mapping[str, Any], namespace: str = "") -> dict[str, Any]:
        """Create it; Conflict."""

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Mapping[str, Any],
        namespace: str = "",
        *,
        subresource: str = "",
        resource_version: str = "",
    ) -> dict[str, Any]:
        """Merge into it; Conflict, NotFound."""


def boot_time() -> float:
    """Seconds since boot, those included in which the machine slept."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))  # elsewhere than on Linux, the latter counts them


def identity() -> str:
    """A name for this process that no other has: host and a random part."""
    return f"{socket.gethostname()}_{uuid.uuid4()}"


class Lease:
    """This process's part in the election. `duration` in seconds; `now` is a clock that never stands still or goes back."""

    def __init__(
        self,
        api: LeaseApi,
        *,
        namespace: str,
        name: str,
        holder: str = "",
        duration: float = 15.0,
        now: Callable[[], float] = boot_time,
        chance: random.Random | None = None,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self.holder = holder or identity()
        self._duration = duration
        self._now = now
        self._chance = random.Random() if chance is None else chance  # noqa: S311 -- spreads load, guards nothing
        self._renewed: float | None = None
        """When the last successful renewal was sent."""
        self._version = ""
        self._seen: tuple[object, ...] = ()
        self._seen_at = 0.0
        self._annotations: dict[str, str] = {}
        self._pending: dict[str, str | None] = {}
        self._transitions = 0
        self._acquired_at = ""
        self.led_until: datetime | None = None
        """When the holder before this process last wrote the Lease, by its own clock; None: nobody has, as far as is known."""
        self.trouble = ""
        """Why the Lease cannot be read or written, for readiness; "" when it can."""

    @property
    def interval(self) -> float:
        """Seconds between renewals."""
        return self._duration / 6

    @property
    def patience(self) -> float:
        """Seconds for which one attempt may take: two fit between a renewal and the deadline."""
        return self._duration / 4

    @property
    def deadline(self) -> float:
        """Seconds after which a leader that has not renewed must not act."""
        return self._duration * 2 / 3

    @property
    def is_leader(self) -> bool:
        """Whether this process may act now."""
        return self._renewed is not None and self._now() - self._renewed < self.deadline

    def guard(self) -> None:
        """Return if this process may act now; call right before each effect.

        Raises LeadershipLost otherwise: the effect may be tried again once `is_leader`.
        """
        if self._renewed is None:
            raise LeadershipLost(f"Lease {self._namespace}/{self._name} is not held by this process")
        age = self._now() - self._renewed
        if age >= self.deadline:
            raise LeadershipLost(f"Lease {self._namespace}/{self._name} was renewed {age:.1f} s ago, another process may act by now")

    def get_annotations(self) -> dict[str, str]:
        """The Lease's annotations, with what `set_annotations` has added."""
        merged = {**self._annotations, **self._pending}
        return {key: value for key, value in merged.items() if value is not None}

    def set_annotations(self, values: Mapping[str, str | None]) -> None:
        """Write these with the next renewal; None removes one."""
        self._pending.update(values)

    async def acquire(self) -> None:
        """Wait until this process leads. API failures are waited out; `trouble` tells of them."""
        while True:
            try:
                async with asyncio.timeout(self.patience):
                    acquired = await self._try_to_acquire()
            except (ClusterError, TimeoutError) as error:
                self._report(error)
            else:
                self._answered()
                if acquired:
                    log.info("This process leads: it holds Lease %s/%s as %s", self._namespace, self._name, self.holder)
                    return
            await asyncio.sleep(self.interval * self._chance.uniform(0.8, 1.2))

    async def hold(self) -> None:
        """Renew for as long as no other process leads. Never returns.

        Raises LeadershipLost when another one does.
        """
        wait = self.interval
        while True:
            await asyncio.sleep(wait)
            try:
                async with asyncio.timeout(self.patience):
                    renewed = await self._renew()
            except (ClusterError, TimeoutError) as error:
                self._report(error)
                wait = self.interval / 2
                continue
            if not renewed:
                self._renewed = None
                raise LeadershipLost(f"Lease {self._namespace}/{self._name} was taken by another process")
            self._answered()
            wait = self.interval

    async def release(self) -> None:
        """Give the Lease up, after the last effect, so that a standby takes over at once. Fine when it is not held."""
        if self._renewed is None:
            return
        self._renewed = None
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now_text()}
        try:
            async with asyncio.timeout(self.patience):
                await self._write({"spec": spec})
        except (ClusterError, TimeoutError) as error:
            log.warning(
                "Lease %s/%s could not be released, it expires by itself: %s", self._namespace, self._name, error or "no answer in time"
            )

    async def _try_to_acquire(self) -> bool:
        try:
            found = await self._api.get(LEASES, self._name, self._namespace)
        except NotFound:
            if self._seen and self._now() - self._seen_at < self._duration:
                return False  # somebody deleted it; its holder may still act
            return await self._create()
        self._notice(found)
        spec = found.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        patience = max(self._duration, float(spec.get("leaseDurationSeconds") or 0))
        if holder and holder != self.holder and self._now() - self._seen_at < patience:
            return False
        sent = self._now()
        self._transitions = int(spec.get("leaseTransitions") or 0) + (holder != self.holder)
        self._acquired_at = _now_text()
        try:
            await self._write({"spec": self._spec()})
        except Conflict:
            return False
        self._renewed = sent
        self.led_until = _moment(spec.get("renewTime"))
        return True

    async def _create(self) -> bool:
        sent = self._now()
        self._acquired_at = _now_text()
        metadata: dict[str, Any] = {"name": self._name, "namespace": self._namespace}
        if annotations := self.get_annotations():
            metadata["annotations"] = annotations
        try:
            self._accept(await self._api.create(LEASES, {"metadata": metadata, "spec": self._spec()}, self._namespace))
        except Conflict:
            return False
        self._renewed = sent
        return True

    async def _renew(self) -> bool:
        """Renew; False when another process leads. Somebody may have edited the Lease, so it is looked at and tried again."""
        for _ in range(3):
            sent = self._now()
            try:
                await self._write({"spec": self._spec()})
            except NotFound:
                if await self._create():
                    return True
            except Conflict:
                found = await self._api.get(LEASES, self._name, self._namespace)
                self._notice(found)
                if (found.get("spec") or {}).get("holderIdentity") != self.holder:
                    return False
            else:
                self._renewed = sent
                return True
        raise Conflict(f"Lease {self._namespace}/{self._name} changes faster than it can be renewed", status=409)

    async def _write(self, body: dict[str, Any]) -> None:
        pending = dict(self._pending)
        if pending:
            body = {**body, "metadata": {"annotations": pending}}
        written = await self._api.patch(LEASES, self._name, body, self._namespace, resource_version=self._version)
        for key, value in pending.items():
            if self._pending.get(key, value) == value:
                self._pending.pop(key, None)
        self._accept(written)

    def _accept(self, lease: Mapping[str, Any]) -> None:
        metadata = lease.get("metadata") or {}
        self._version = str(metadata.get("resourceVersion") or "")
        self._annotations = dict(metadata.get("annotations") or {})

    def _notice(self, lease: Mapping[str, Any]) -> None:
        """Remember when, by the local clock, the Lease was last seen to change."""
        self._accept(lease)
        spec = lease.get("spec") or {}
        seen = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"), spec.get("acquireTime"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._now()

    def _spec(self) -> dict[str, Any]:
        return {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": max(1, math.ceil(self._duration)),
            "acquireTime": self._acquired_at,
            "renewTime": _now_text(),
            "leaseTransitions": self._transitions,
        }

    def _report(self, error: Exception) -> None:
        trouble = str(error) or f"no answer within {self.patience:g} s"
        if trouble != self.trouble:  # an outage changes its face from try to try: once is enough for people
            log.log(logging.INFO if self.trouble else logging.WARNING, "Lease %s/%s: %s", self._namespace, self._name, trouble)
        self.trouble = trouble

    def _answered(self) -> None:
        if self.trouble:
            log.info("Lease %s/%s is read and written again", self._namespace, self._name)
        self.trouble = ""


def pod_namespace(default: str = "default") -> str:
    """The namespace this pod runs in, as the downward API says (POD_NAMESPACE), else `default`."""
    return os.environ.get("POD_NAMESPACE", "") or default


def _moment(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text or ""))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _now_text() -> str:
    """For people only: no process trusts another's clock."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
