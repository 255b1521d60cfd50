"""10 000 event triggers and 1 000 events a second: matching and recording, in memory, as the consumer of events does it."""

import time
from collections.abc import Iterator

from kfp_operator.events import envelope
from kfp_operator.events.triggers.happening import Happening, Position, run_happening
from kfp_operator.events.triggers.ledger import Ledger, Recorded
from kfp_operator.events.triggers.subscriptions import Subscriber, Subscriptions, subscribe
from kfp_operator.schemas import Artifact, RunCompletion, RunStatus, V1EventTrigger
from tests.bench.report import Figure
from tests.cluster import Progress

EVENTS = 3000
RATE = 1000
CONFIGURATIONS = 2500
"""Upstream configurations, each with as many triggers as there are of the others."""
FILTER = 'event.data.status == "succeeded" && event.data.artifacts.exists(a, a.type == "system.Model" && a.metadata.accuracy > 0.5)'


def triggers(count: int, progress: Progress) -> list[Figure]:
    """Measure with so many triggers, a quarter of which has a filter."""
    subscriptions, ledgers = _subscribe(count, progress)
    few, _ = _subscribe(count // 100, progress)
    happenings = list(_happenings())
    progress.show("matching events")
    alone = _match(few, happenings)
    matching, started = 0, time.perf_counter()
    recorded = 0
    for happening in happenings:
        matches = subscriptions.match(happening)
        matching += len(matches.occurrences)
        for one, occurrence in matches.occurrences:
            recorded += ledgers[one.subscriber.uid].record(occurrence) is Recorded.PENDING
        for one in matches.closed:
            ledgers[one.subscriber.uid].close(one.name, happening.subject, happening.position)
    spent = time.perf_counter() - started
    rate = len(happenings) / spent
    return [
        Figure(f"{len(subscriptions)} triggers: events matched and recorded per second", f"{rate:.0f}", f">= {RATE}", rate >= RATE),
        Figure("  matches per event, filters included", f"{matching / len(happenings):.1f}"),
        Figure("  occurrences recorded", str(recorded)),
        Figure(f"{len(few)} triggers: events matched per second", f"{len(happenings) / alone:.0f}"),
    ]


def _subscribe(count: int, progress: Progress) -> tuple[Subscriptions, dict[str, Ledger]]:
    subscriptions, ledgers = Subscriptions(), dict[str, Ledger]()
    kinds = (["run_status_succeeded"], ["run_status_failed"], ["run_status_running", "run_status_done"], ["run_status_warning"])
    for number in range(count):
        uid = f"uid-{number}"
        kind = number // CONFIGURATIONS % len(kinds)
        written = V1EventTrigger(ref=f"runConfigurations.c{number % CONFIGURATIONS}", kinds=kinds[kind], filter="" if kind else FILTER)
        found, _ = subscribe(Subscriber("RunConfiguration", "bench", f"deploy-{number}", uid), [written])
        subscriptions.replace(uid, found)
        ledgers[uid] = Ledger()
        ledgers[uid].follow(found, ())
        if number % 500 == 0:
            progress.show(f"making triggers: {number} of {count}")
    return subscriptions, ledgers


def _happenings() -> Iterator[Happening]:
    """A run-status and a completion of each run, through the codec that reads them from the bus."""
    for number in range(EVENTS // 2):
        names = {
            "provider": "bench/none",
            "pipeline_name": "bench/train",
            "run_name": f"bench/r{number}",
            "run_uid": f"00000000-0000-4000-8000-{number:012}",
            "run_configuration_name": f"bench/c{number % CONFIGURATIONS}",
        }
        now = "2026-03-01T12:00:00Z"
        artifacts = [Artifact(name=f"a{n}", location=f"s3://a{n}", type="system.Model", metadata={"accuracy": 0.9}) for n in range(5)]
        running = RunStatus.model_validate({**names, "state": "running", "transition": 2, "time": now})
        ended = RunCompletion.model_validate(
            {**names, "state": "succeeded", "status": "succeeded", "artifacts": artifacts, "run_start_time": now, "run_end_time": now}
        )
        told: list[RunStatus | RunCompletion] = [running, ended]
        for place, data in enumerate(told):
            found = run_happening(envelope.build(data), data, Position("runs", "bench", 2 * number + place + 1))
            if found is not None:
                yield found


def _match(subscriptions: Subscriptions, happenings: list[Happening]) -> float:
    started = time.perf_counter()
    for happening in happenings:
        subscriptions.match(happening)
    return time.perf_counter() - started
