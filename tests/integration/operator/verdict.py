"""What must be true of a Run in the end, whatever was killed, cut off or deleted meanwhile."""

import json
from pathlib import Path
from typing import Any

from kfp_operator.api.run import Run
from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import Bench
from tests.waiting import eventually


def starts(bench: Bench, uid: str) -> int:
    """How often the one step of the Run's pipeline began, in all state folders of the bench."""
    count = 0
    for file in bench.folder.glob("*/state/**/submission.json"):
        if json.loads(file.read_text())["uid"] == uid:
            events = file.with_name("events.jsonl")
            lines = events.read_text().splitlines() if events.exists() else []
            count += sum(json.loads(line)["event"] == "start" for line in lines)
    return count


def ended_well(bench: Bench, name: str, state: str, within: float = 60) -> tuple[Run, dict[str, Any]]:
    """The Run and the data of its completion: status, finalizer and label agree, event and documented copy are stored once, it began once."""
    run, told = bench.ended(name, state, within)
    uid = run.metadata.uid
    reader = Reader(bench.nats.url)
    # what a killed process held comes again after ten seconds
    eventually(lambda: reader.unsettled() == 0, 30, "the projector has acknowledged everything")
    copies = [e["data"] for e in reader.events("documented") if e["data"]["runUid"] == uid]
    assert copies == [told], copies
    begun = starts(bench, uid)
    assert begun <= 1
    assert begun == 1 or state != "succeeded"
    states = reader.states(uid)
    assert states[-1] == state
    assert states.count(state) == 1, states
    assert not any(c.type == "EventsDelivered" for c in run.status.conditions)
    return run, told


def state_folder(bench: Bench, name: str = "operator") -> Path:
    """Where an operator of the bench keeps its runs."""
    return bench.folder / name / "state"
