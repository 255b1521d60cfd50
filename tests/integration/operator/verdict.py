"""What must be true of Runs in the end, whatever was killed, cut off or deleted meanwhile."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from kfp_operator.api.run import Run
from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import NAMES, Bench
from tests.waiting import eventually


def ended_well(bench: Bench, name: str, state: str, within: float = 60, *, quiet: bool = True) -> tuple[Run, dict[str, Any]]:
    """`all_ended_well` for one Run: it, and the data of its completion."""
    return all_ended_well(bench, {name: state}, within, quiet=quiet)[name]


def all_ended_well(
    bench: Bench, states: Mapping[str, str], within: float = 60, *, quiet: bool = True
) -> dict[str, tuple[Run, dict[str, Any]]]:
    """Each Run, by name with the state it must end in, and the data of its completion.

    Status, label and event agree, nothing holds the Run, the event and its documented copy are stored once each, every state was told
    once, the pipeline was started once, and no event waits for its effect (`quiet`; False: other Runs are on their way).
    """
    reader, runs = Reader(bench.nats.url), settled(bench, states, within)
    if quiet:  # what a killed process held comes again after ten seconds
        eventually(lambda: reader.unsettled() == 0, 90, "the projector has acknowledged everything")
    else:
        uids = {runs[name].metadata.uid for name in states}
        eventually(lambda: uids <= {e["data"]["runUid"] for e in reader.events("documented")}, 30, "the documented copies are stored")
    events, copies, begun = reader.events(), reader.events("documented"), starts(bench)
    found = {}
    for name, state in states.items():
        run = runs[name]
        uid, status = run.metadata.uid, run.status
        bench_says = f"{name}: {status.to_json()}"
        told = [e["data"] for e in events if e["type"].endswith("completion") and e["data"]["runUid"] == uid]
        assert len(told) == 1, (name, told)
        assert [e["data"] for e in copies if e["data"]["runUid"] == uid] == told, name
        changes = [e["data"]["state"] for e in events if e["type"].endswith("status") and e["data"]["runUid"] == uid]
        assert (status.state, told[0]["state"], changes[-1]) == (state, state, state), bench_says
        assert len(changes) == len(set(changes)), (name, changes)
        assert told[0]["status"] == ("succeeded" if state == "succeeded" else "failed"), told
        assert (told[0]["runId"], told[0]["message"]) == (status.provider_id, status.message), bench_says
        shown = {c.type: c.status for c in status.conditions}
        assert (shown["Completed"], shown["Succeeded"]) == ("True", "True" if state == "succeeded" else "False"), bench_says
        assert not {"Reconciling", "EventsDelivered"} & shown.keys(), bench_says
        assert begun[uid] <= 1, bench_says
        assert begun[uid] == 1 or state != "succeeded", bench_says
        found[name] = (run, told[0])
    return found


def settled(bench: Bench, states: Mapping[str, str], within: float = 60) -> dict[str, Run]:
    """The Runs, once none of them is held any more and all are labelled with how they ended."""

    def there() -> dict[str, Run] | None:
        runs = bench.runs()
        open_ = [n for n in states if n not in runs or runs[n].metadata.finalizers or NAMES.completed not in runs[n].metadata.labels]
        assert not open_, {n: runs[n].status.to_json() if n in runs else "no such Run" for n in open_}
        return runs

    try:
        runs = eventually(there, within, "the Runs are settled")
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *(o.tail(40) for o in bench.operators)])) from None
    assert {n: runs[n].metadata.labels[NAMES.completed] for n in states} == dict(states)
    return runs


def starts(bench: Bench) -> Counter[str]:
    """How often something was started for each Run at the backend, by the Run's uid."""
    return bench.backend.starts(bench.folder)


def results(bench: Bench) -> int:
    """How many runs have ended at the backend."""
    return bench.backend.results(bench.folder)
