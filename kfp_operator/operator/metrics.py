"""The metrics at /metrics, under the names that users of controller-runtime know, with the prefix ``kfp_operator_``.

Counters and histograms are attributes that the code concerned increments. What can be read off at any time (queue depth, Runs by state)
is read when Prometheus asks, from callables given to `observe`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kfp_operator import __version__
from kfp_operator.operator.resources import Resource

PREFIX = "kfp_operator"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LAG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_RUN = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 3 * 3600.0, 6 * 3600.0, 12 * 3600.0, 24 * 3600.0, 72 * 3600.0)


@dataclass(frozen=True, slots=True)
class Observed:
    """Where values come from that are read when Prometheus asks."""

    runs: Callable[[], Mapping[str, int]]
    """Runs by state."""
    queue_depth: Callable[[], int]
    queue_delayed: Callable[[], int]
    outbox: Callable[[], int]
    """Events that are due and not stored yet."""
    nats_connected: Callable[[], bool]
    leader: Callable[[], bool]


class _ReadOff(Collector):
    """Gauges whose values are read at the time of asking."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def collect(self) -> Iterator[Metric]:
        observed = self._observed
        runs = GaugeMetricFamily(f"{PREFIX}_runs", "Runs by state.", labels=["state"])
        for state, number in sorted(observed.runs().items()):
            runs.add_metric([state], number)
        yield runs
        for name, text, value in (
            ("workqueue_depth", "Objects that wait for a worker.", observed.queue_depth),
            ("workqueue_delayed", "Objects that will be looked at later.", observed.queue_delayed),
            ("events_outbox_pending", "Events that are due and not stored by NATS yet.", observed.outbox),
            ("nats_connected", "Whether the connection to NATS is up, 1 or 0.", observed.nats_connected),
            ("leader", "Whether this process holds the Lease, 1 or 0.", observed.leader),
        ):
            yield GaugeMetricFamily(f"{PREFIX}_{name}", text, value=float(value()))


class Metrics:
    """All metrics of one operator, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # not annotated; drops a second series for each counter
        self.registry = CollectorRegistry()
        self.reconcile = self._counter("reconcile", "Reconciliations.", "kind", "result")
        """result: success, requeue, conflict, error."""
        self.reconcile_time = self._histogram("reconcile_time_seconds", "Duration of reconciliations.", _SECONDS, "kind")
        self.run_duration = self._histogram("run_duration_seconds", "Duration of runs at the backend.", _RUN, "state")
        self.events_published = self._counter("events_published", "Events handed to NATS.", "type", "result")
        """type: status, completion, documented; result: stored, duplicate, retry, error."""
        self.publish_lag = self._histogram(
            "event_publish_lag_seconds", "Time from a change at the backend to its stored event.", _LAG, "type"
        )
        self.projected = self._counter("projected", "Consumed events by what became of them.", "result")
        """result: applied, duplicate, stale, gone, foreign, poison."""
        self.provider_calls = self._counter("provider_calls", "Calls of ML backends.", "provider", "call", "result")
        self.api_requests = self._counter("api_requests", "Requests to the Kubernetes API.", "verb", "resource", "code")
        self.status_writes = self._counter("status_writes", "Writes of status.", "kind")
        self.status_refused = self._counter("status_refused", "Writes of status that the API server found invalid: each is a defect.")
        self.kube_events = self._counter("kube_events", "Kubernetes Events by what became of them.", "result")
        """result: written, failed, dropped."""
        self.watch_events = self._counter("watch_events", "Events of the watches of our own kinds.", "kind", "type")
        self.inbound_requests = self._counter("inbound_requests", "Requests with events from outside.", "route", "code")
        """route: events, hooks."""
        self.inbound_events = self._counter("inbound_events", "Events from outside by what became of them.", "sender", "result")
        """sender: a token or the path of a webhook; result: stored, duplicate, ignored, refused, unavailable."""
        self.swept = self._counter("swept", "Objects whose deletion no watch had reported.", "kind")
        info = GaugeMetricFamily(f"{PREFIX}_build_info", "Version of this operator; always 1.", labels=["version"])
        info.add_metric([__version__], 1)
        self.registry.register(_Constant(info))

    def observe(self, observed: Observed) -> None:
        """Say where the values come from that are read off; once."""
        self.registry.register(_ReadOff(observed))

    def count_request(self, verb: str, resource: Resource | None, code: int, seconds: float) -> None:
        """Count a request of `client.Cluster`, as its `observe`. Code 0 means no answer."""
        self.api_requests.labels(verb=verb, resource=resource.plural if resource is not None else "", code=str(code)).inc()

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", text, labels, buckets=buckets, registry=self.registry)


class _Constant(Collector):
    """A metric that never changes."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric
