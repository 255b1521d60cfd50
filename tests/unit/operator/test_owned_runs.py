"""Runs on behalf of their owner: who else is told of what is done."""

from typing import Any

from kfp_operator.api.names import Names
from kfp_operator.operator.owned_runs import OwnedRuns, seen
from kfp_operator.operator.store import Key, Store
from tests import builders
from tests.doubles.objects import SimulatedObjects
from tests.doubles.world import Fate

KEY = Key("Run", "team", "nightly-1")
OWNER = builders.pipeline()


def manifest() -> dict[str, Any]:
    owner = {"apiVersion": "v1", "kind": "Pipeline", "name": OWNER.metadata.name, "uid": OWNER.metadata.uid, "controller": True}
    return {"metadata": {"name": KEY.name, "namespace": KEY.namespace, "ownerReferences": [owner]}, "spec": {"pipeline": "train"}}


async def test_a_run_that_was_started_or_stopped_is_told_to_its_own_controller_for_the_watch_brings_no_news_of_it() -> None:
    store, api, woken = Store(Names()), SimulatedObjects(Fate(), builders.NOW), list[Key]()
    runs = OwnedRuns(store, api, wake=woken.append)

    run, created = await runs.start(OWNER, manifest())
    assert created
    assert woken == [KEY]
    assert not store.put(run), "what the watch brings is known already"

    owned = seen(run)
    assert owned is not None
    await runs.stop(KEY.namespace, owned)
    assert woken == [KEY, KEY]
