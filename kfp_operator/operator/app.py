"""The one place that builds the operator and runs it.

Every process connects to the API server and to NATS, serves health and metrics, and waits for the Lease. The leader then keeps the
streams, watches our kinds, and lets workers and the projector act, each effect guarded by the Lease. It stops when it is told to, or
when another process leads; nothing needs to be saved before, so it may also be killed.
"""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from typing import Protocol

from kfp_operator.api.meta import Metadata
from kfp_operator.api.names import Names
from kfp_operator.api.provider import Provider as ProviderResource
from kfp_operator.errors import BusError, ClusterError, KfpOperatorError, LeadershipLost
from kfp_operator.events.bus import Cursor
from kfp_operator.events.jetstream import JetStreamBus
from kfp_operator.events.streams import Streams
from kfp_operator.events.subjects import Kind, Subjects
from kfp_operator.operator import logging as logs
from kfp_operator.operator import nats_server
from kfp_operator.operator.backends import Backends
from kfp_operator.operator.client import Cluster
from kfp_operator.operator.clock_watch import ClockWatch
from kfp_operator.operator.configuration_projector import ConfigurationProjector
from kfp_operator.operator.credentials import Credentials, load_credentials
from kfp_operator.operator.cursors import Cursors, FileCursors, LeaseCursors
from kfp_operator.operator.experiment_controller import ExperimentController
from kfp_operator.operator.guarded import GuardedProvider
from kfp_operator.operator.health import Check, Health
from kfp_operator.operator.inbound_server import InboundServer
from kfp_operator.operator.kube_events import EventRecorder
from kfp_operator.operator.lease import Lease, pod_namespace
from kfp_operator.operator.metrics import Metrics, Observed
from kfp_operator.operator.objects import ClusterObjects, ClusterRevisions
from kfp_operator.operator.observer import Observer
from kfp_operator.operator.opening import open_provider
from kfp_operator.operator.outbox import Outbox
from kfp_operator.operator.owned_runs import OwnedRuns
from kfp_operator.operator.pipeline_controller import PipelineController
from kfp_operator.operator.ports import utc_now
from kfp_operator.operator.projector import DURABLE, AsyncioTimers, Projector
from kfp_operator.operator.provider_controller import ProviderController
from kfp_operator.operator.queue import QueueShutDown, WorkQueue
from kfp_operator.operator.resources import Kinds
from kfp_operator.operator.run_configuration_controller import RunConfigurationController
from kfp_operator.operator.run_controller import RunController
from kfp_operator.operator.run_schedule_controller import RunScheduleController
from kfp_operator.operator.source import Source
from kfp_operator.operator.store import KINDS, Key, Store
from kfp_operator.operator.sweeper import Sweeper
from kfp_operator.operator.tasks import Tasks, first_of
from kfp_operator.providers.protocol import Provider
from kfp_operator.settings import Settings

log = logging.getLogger(__name__)

LEASE = "kfp-operator"
CURSOR_EVERY = 15.0
PROVIDERS_FIRST = 10.0
"""Seconds that Providers get to be opened before Runs are looked at: else each would say that it waits for its Provider."""
RECURSION = 40_000
"""The API server stores JSON of up to 10 000 levels: one object with a parameter like that must not stop the list of all others."""
STOP_WITHIN = 8.0
"""Seconds that work in hand gets to end."""


async def run(settings: Settings, *, kubeconfig: str | None = None, context: str | None = None) -> None:
    """Run until SIGTERM or SIGINT.

    Raises KfpOperatorError for what keeps it from starting, LeadershipLost when another process has taken over.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    logs.configure(settings.log)
    sys.setrecursionlimit(RECURSION)
    found = await load_credentials(kubeconfig, context)
    async with nats_server.serving(settings) as nats_settings:
        await Operator(settings.model_copy(update={"nats": nats_settings}), found).run(stop)


class Controller(Protocol):
    """Reconciles objects of one kind."""

    async def reconcile(self, key: Key) -> float | None:
        """Take the object as far as it goes; seconds after which to look again, None: when something changes."""


class Operator:
    """All parts, built from the settings; `run` brings them to life."""

    def __init__(self, settings: Settings, found: Credentials) -> None:
        self._settings = settings
        self._credentials = found
        self.names = Names(settings.api_group)
        self.kinds = Kinds(settings.api_group)
        self.metrics = Metrics()
        self.store = Store(self.names, released=self._on_release, owned=self._on_owned)
        self.queue: WorkQueue[Key] = WorkQueue()
        self.subjects = Subjects(settings.events.prefix)
        self.bus = JetStreamBus(settings.nats)
        self.streams = Streams(self.bus, self.subjects, settings.events)
        self.cluster = Cluster(self._credentials, observe=self.metrics.count_request)
        namespace = settings.leader_election.namespace or pod_namespace(self._credentials.endpoint.namespace)
        # connections of its own: a renewal must not wait behind a thousand writes
        self.lease_cluster = Cluster(self._credentials, limit=2, observe=self.metrics.count_request)
        self.lease = Lease(self.lease_cluster, namespace=namespace, name=LEASE, duration=settings.leader_election.lease_duration)
        self.cursors: Cursors = (
            LeaseCursors(self.lease.get_annotations, self.lease.set_annotations, self.names.group)
            if settings.leader_election.enabled
            else FileCursors(settings.state_dir.expanduser())
        )
        self._leading = not settings.leader_election.enabled
        self.recorder = EventRecorder(self.cluster, self.names, self.metrics)
        self.health = Health(self.metrics, self._checks)
        self.inbound = InboundServer(settings.inbound, bus=self.bus, subjects=self.subjects, metrics=self.metrics, now=utc_now)
        self._source: Source | None = None
        self._waiting = False
        """Work was put off because this process may not act."""
        self._opened: set[str] = set()
        """Providers that this process has looked after."""
        self._build()

    def _build(self) -> None:
        settings, guard, now = self._settings, self.guard, utc_now
        objects = ClusterObjects(self.cluster, self.kinds, guard)
        revisions = ClusterRevisions(self.cluster, self.names, guard)
        mode = settings.events.documented_content_mode if settings.events.documented_subject else None
        outbox = Outbox(self.bus, self.subjects, mode=mode, metrics=self.metrics, guard=guard, now=now)
        observer = Observer(
            store=self.store,
            objects=objects,
            outbox=outbox,
            guard=guard,
            now=now,
            artifact_deadline=timedelta(seconds=settings.events.artifact_deadline),
        )
        self.backends = Backends(self._open, now=now, on_update=self._on_update, on_trouble=self._on_trouble, observe=observer.observe)
        self.pipelines = PipelineController(
            store=self.store,
            objects=objects,
            revisions=revisions,
            read_config_map=revisions.read_config_map,
            backends=self.backends,
            recorder=self.recorder,
            guard=guard,
            now=now,
            names=self.names,
            wake=self.queue.add,
        )
        self.providers = ProviderController(
            store=self.store,
            objects=objects,
            backends=self.backends,
            recorder=self.recorder,
            guard=guard,
            now=now,
            names=self.names,
            wake=self.queue.add,
        )
        self.experiments = ExperimentController(
            store=self.store,
            objects=objects,
            backends=self.backends,
            recorder=self.recorder,
            guard=guard,
            now=now,
            names=self.names,
            wake=self.queue.add,
        )
        self.runs = RunController(
            store=self.store,
            objects=objects,
            revisions=revisions,
            versions_of=self.pipelines.versions_of,
            backends=self.backends,
            outbox=outbox,
            recorder=self.recorder,
            metrics=self.metrics,
            guard=guard,
            now=now,
            names=self.names,
            artifact_deadline=timedelta(seconds=settings.events.artifact_deadline),
            project=lambda event: self.projector.take(event),
        )
        owned_runs = OwnedRuns(self.store, objects, wake=self.queue.add)
        self.run_configurations = RunConfigurationController(
            store=self.store,
            objects=objects,
            runs=owned_runs,
            versions_of=self.pipelines.versions_of,
            recorder=self.recorder,
            guard=guard,
            now=now,
            names=self.names,
        )
        self.run_schedules = RunScheduleController(
            store=self.store,
            objects=objects,
            runs=owned_runs,
            recorder=self.recorder,
            guard=guard,
            now=now,
            names=self.names,
        )
        configurations = ConfigurationProjector(store=self.store, objects=objects, metrics=self.metrics, guard=guard, wake=self.queue.add)
        self.projector = Projector(
            subjects=self.subjects,
            store=self.store,
            objects=objects,
            outbox=outbox,
            metrics=self.metrics,
            guard=guard,
            now=now,
            timers=AsyncioTimers(),
            names=self.names,
            replay_window=timedelta(seconds=settings.events.replay_window),
            saw=self.runs.saw,
            record=configurations.record,
            wake=self.queue.add,
        )
        self.controllers: dict[str, Controller] = {
            "Provider": self.providers,
            "Pipeline": self.pipelines,
            "Experiment": self.experiments,
            "RunConfiguration": self.run_configurations,
            "RunSchedule": self.run_schedules,
            "Run": self.runs,
        }
        self.metrics.observe(
            Observed(
                runs=self.store.runs_by_state,
                queue_depth=lambda: len(self.queue),
                queue_delayed=lambda: self.queue.delayed,
                outbox=lambda: self.runs.undelivered,
                nats_connected=lambda: self.bus.connected,
                leader=lambda: self._leading and self.lease.is_leader if settings.leader_election.enabled else self._leading,
            )
        )

    def guard(self) -> None:
        """Raise LeadershipLost unless this process may act."""
        if self._settings.leader_election.enabled:
            self.lease.guard()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.cluster)
            await stack.enter_async_context(self.lease_cluster)
            await stack.enter_async_context(self.bus)
            await stack.enter_async_context(self.health.serving(self._settings.http.port))
            await stack.enter_async_context(self.inbound.serving())
            log.info("API server: %s (%s)", self.cluster.server, self._credentials.endpoint.origin)
            if self._settings.leader_election.enabled:
                acquired = asyncio.Event()
                waiting = asyncio.create_task(self._acquire(acquired), name="lease")
                first = await first_of(acquired, stop)
                waiting.cancel()
                if first is stop:
                    return
            self._leading = True
            try:
                await self._lead(stop)
            finally:
                self._leading = False

    async def _acquire(self, acquired: asyncio.Event) -> None:
        await self.lease.acquire()
        acquired.set()

    async def _lead(self, stop: asyncio.Event) -> None:
        """Act, until `stop` is set or a part fails."""
        kinds, namespaces, metrics = self.kinds.all, self._settings.namespaces, self.metrics
        sweeper = Sweeper(self.cluster, self.store, kinds=kinds, namespaces=namespaces, gone=self._on_gone, metrics=metrics)
        source = Source(
            self._credentials,
            self.cluster,
            self.store,
            names=self.names,
            kinds=kinds,
            namespaces=namespaces,
            changed=self._on_change,
            gone=self._on_gone,
            relisted=sweeper.soon,
            invalid=self._on_invalid,
            metrics=metrics,
        )
        self._source = source
        stop_source, workers = asyncio.Event(), list[asyncio.Task[None]]()
        async with self._tending() as tasks, self.recorder.running():
            tasks.start(self.streams.run(), "streams")
            if self._settings.leader_election.enabled:
                tasks.start(self.lease.hold(), "lease")
            watching = tasks.start(source.run(stop_source), "watch")
            try:
                if await first_of(source.synced, stop, tasks.failed) is source.synced:
                    await self._providers_first()
                    log.info("this process leads and has seen %d objects", len(self.store))
                    gc.collect()
                    gc.freeze()  # what was read at the start stays: no later collection need walk over it
                    workers += [asyncio.create_task(self._work(), name=f"worker {n}") for n in range(self._settings.workers)]
                    tasks.start(self._project(), "projector")
                    tasks.start(self._keep_cursor(), "cursor")
                    tasks.start(sweeper.run(), "sweeper")
                    tasks.start(ClockWatch(self._on_clock_jump).run(), "clock")
                    await first_of(stop, tasks.failed)
            finally:
                self.queue.shutdown()
                if workers:
                    _, busy = await asyncio.wait(workers, timeout=STOP_WITHIN)
                    for worker in busy:
                        worker.cancel()
                stop_source.set()
                await asyncio.wait({watching}, timeout=STOP_WITHIN)
                await self.backends.close_all()
        if self._settings.leader_election.enabled:
            await self.lease.release()

    @asynccontextmanager
    async def _tending(self) -> AsyncIterator[Tasks]:
        tasks = Tasks()
        try:
            yield tasks
        finally:
            await tasks.end()
        tasks.raise_failure()

    # What happens

    def _on_change(self, key: Key) -> None:
        self.queue.add(key)
        if key.kind != "Run":
            for user in self.store.referring(key):
                self.queue.add(user)

    def _on_gone(self, key: Key, uid: str) -> None:
        if key.kind == "Run":
            self.runs.gone(uid)
            self.projector.forget(uid)
        self._on_change(key)

    def _on_release(self, key: Key) -> None:
        """Something unfinished ceased to refer to the object."""
        if key in self.pipelines.held or key in self.providers.held:
            self.queue.add(key)

    def _on_owned(self, key: Key) -> None:
        """Something that the object controls changed or is gone."""
        if key.kind in self.controllers:
            self.queue.add(key)

    def _on_invalid(self, key: Key, uid: str, why: str) -> None:
        """An object that the CRD lets pass and the model does not: the CRDs are of another version."""
        log.error("%s cannot be read and is left alone; are the CRDs those of this version? %s", key, why)
        named = KINDS[key.kind].model_construct(metadata=Metadata(name=key.name, namespace=key.namespace, uid=uid))
        message = f"this version of the operator cannot read it and leaves it alone; are the CRDs those of this version? {why}"
        self.recorder.warning(named, "Unreadable", message)

    def _on_update(self, submission: str) -> None:
        key = self.runs.owner(submission)
        if key is not None:
            self.queue.add(key)

    def _on_clock_jump(self) -> None:
        for key in (*self.store.keys("RunSchedule"), *self.store.keys("RunConfiguration")):
            self.queue.add(key)

    def _on_trouble(self, provider: str) -> None:
        self.queue.add(Key.parse("Provider", provider))

    # What is done

    def _open(self, resource: ProviderResource) -> Provider:
        name = resource.metadata.full_name
        looked_until = utc_now() if name in self._opened else self.lease.led_until
        provider = open_provider(resource, self._settings, cluster=self.cluster, looked_until=looked_until)
        self._opened.add(name)
        return GuardedProvider(name, provider, self.metrics)

    async def _providers_first(self) -> None:
        async def open_(key: Key) -> None:
            with suppress(KfpOperatorError):  # the worker that comes to it later retries and says so
                await self.providers.reconcile(key)

        tasks = [asyncio.create_task(open_(key)) for key in self.store.keys("Provider")]
        if tasks:
            await asyncio.wait(tasks, timeout=PROVIDERS_FIRST)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                key = await self.queue.get()
            except QueueShutDown:
                return
            began, result = loop.time(), "success"
            try:
                again = await self.controllers[key.kind].reconcile(key)
                self.queue.forget(key)
                self._acts()
                if again is not None:
                    result = "requeue"
                    self.queue.add_after(key, again)
            except LeadershipLost as error:
                result = "error"
                self._put_off(key, error)
                self.queue.retry(key)
            except ClusterError as error:
                result = "conflict" if error.status == 409 else "error"
                delay = self.queue.retry(key, at_least=getattr(error, "after", None) or 0.0)
                log.info("%s is tried again in %.1f s: %s", key, delay, error)
            except Exception:
                result = "error"
                delay = self.queue.retry(key)
                log.exception("%s failed, it is tried again in %.1f s; please report this", key, delay)
            finally:
                self.queue.done(key)
                self.metrics.reconcile.labels(kind=key.kind, result=result).inc()
                self.metrics.reconcile_time.labels(kind=key.kind).observe(loop.time() - began)

    def _put_off(self, key: Key, error: LeadershipLost) -> None:
        """Say once that work waits until this process may act again, and not for each object."""
        log.log(logging.DEBUG if self._waiting else logging.WARNING, "%s is put off, and what else is to be done: %s", key, error)
        self._waiting = True

    def _acts(self) -> None:
        if self._waiting and self.lease.is_leader:
            self._waiting = False
            log.info("this process acts again")

    async def _project(self) -> None:
        subjects = [self.subjects.pattern(Kind.RUN_STATUS), self.subjects.pattern(Kind.RUN_COMPLETION)]
        async for delivery in self.bus.consume(self.subjects.stream("runs"), DURABLE, subjects=subjects, resume=self._cursor):
            await self.projector.accept(delivery)

    def _cursor(self) -> Cursor | None:
        """Where the projector got to: for a consumer that was deleted."""
        return self.cursors.get(DURABLE)

    async def _keep_cursor(self) -> None:
        while True:
            await asyncio.sleep(CURSOR_EVERY)
            with suppress(BusError):  # its absence only means that more is read again
                cursor = await self.bus.cursor(self.subjects.stream("runs"), DURABLE)
                if cursor is not None and cursor != self._cursor():
                    self.cursors.keep(DURABLE, cursor)

    def _checks(self) -> Mapping[str, Check]:
        """What readiness depends on. A standby is ready."""
        checks = {
            "nats": Check(self.bus.connected and not self.bus.last_error, self.bus.last_error or "connected"),
            **self.inbound.checks(),
        }
        if self._leading:
            checks["streams"] = Check(not self.streams.problem, self.streams.problem or "as they should be")
            trouble = self._source.trouble if self._source is not None else "not begun"
            checks["watch"] = Check(not trouble, trouble or "all objects are seen")
        if self._settings.leader_election.enabled:
            role = "leads" if self._leading and self.lease.is_leader else "waits for the Lease"
            checks["lease"] = Check(not self.lease.trouble, self.lease.trouble or role)
        return checks
