"""What is asked of Kopf."""

import asyncio
from pathlib import Path

from kfp_operator.api.names import Names
from kfp_operator.operator.client import Cluster
from kfp_operator.operator.credentials import Kubeconfig
from kfp_operator.operator.kopf_thread import KopfThread, kopf_settings
from kfp_operator.operator.kubeconfig import Context, Entry
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.resources import Kinds
from kfp_operator.operator.source import Source
from kfp_operator.operator.store import Store


async def test_kopf_gets_handlers_of_events_and_of_itself_only_so_that_it_writes_nothing() -> None:
    entry = Entry({"server": "http://127.0.0.1:9"}, Path())
    credentials = Kubeconfig(Context("", "x", "default", entry, entry))
    source = Source(
        credentials,
        Cluster(credentials),
        Store(Names()),
        names=Names(),
        kinds=Kinds().all,
        changed=lambda key: None,
        gone=lambda key, uid: None,
        relisted=lambda: None,
        invalid=lambda key, why: None,
        metrics=Metrics(),
    )
    loop = asyncio.get_running_loop()
    registry = source._registry(loop)
    KopfThread(registry, credentials, namespaces=(), tracing=source._tracing(loop), ended=lambda error: None)
    watched = {handler.selector.plural for handler in registry._watching.get_all_handlers() if handler.selector}
    assert watched == {"providers", "pipelines", "experiments", "runconfigurations", "runschedules", "runs"}
    assert {str(handler.activity) for handler in registry._activities.get_all_handlers()} == {"authentication", "cleanup"}
    for others in (registry._changing, registry._spawning, registry._indexing, registry._webhooks):
        assert not list(others.get_all_handlers())


def test_an_outage_of_the_api_server_never_ends_kopf() -> None:
    backoffs = kopf_settings().networking.error_backoffs
    assert not isinstance(backoffs, float)
    first = [delay for delay, _ in zip(backoffs, range(1000), strict=False)]
    assert len(first) == 1000
    assert first[0] < 2
    assert all(20 < delay < 40 for delay in first[10:])
