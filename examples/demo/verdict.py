"""What must have happened for the demo to have shown anything: each claim with what was really seen."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.demo.outsider import Received
from kfp_operator.api.run import Run
from kfp_operator.api.states import RunState

GOOD, BAD = "penguin-run", "penguin-run-bad"
COMPLETION = "org.kubeflow.pipelines.run-completion"


@dataclass(frozen=True)
class Claim:
    """Something that must be so. `seen`: what is, when it is not."""

    text: str
    holds: bool
    seen: str = ""


@dataclass(frozen=True)
class Served:
    """The model server at one time: the name of its model, and what it took each penguin for."""

    model: str
    predicted: Sequence[str]
    truth: Sequence[str]

    @property
    def right(self) -> int:
        """How many predictions are right."""
        return sum(found == true for found, true in zip(self.predicted, self.truth, strict=True))

    @property
    def accuracy(self) -> float:
        """Share of right predictions."""
        return self.right / len(self.truth)


def claims(namespace: str, runs: Mapping[str, Run], received: Sequence[Received], before: Served, after: Served) -> list[Claim]:
    """All claims, in the order of what happened."""
    good, bad = runs[GOOD].status, runs[BAD].status
    return [
        Claim(f"Run {GOOD} succeeded", good.state is RunState.SUCCEEDED and good.completion_state == "Succeeded", str(good.state)),
        Claim(f"Run {BAD} failed, and says in which step", bad.state is RunState.FAILED and bad.failed_task == "train", str(bad.state)),
        *(_told_once(namespace, runs[name], received) for name in (GOOD, BAD)),
        _nothing_else(runs, received),
        _model_is_there(namespace, received),
        Claim(f"the model server serves the model of {GOOD}", after.model == f"{namespace}/{GOOD}", after.model),
        Claim(
            f"it predicts better: right {before.right} times before and {after.right} times after, of {len(after.truth)}",
            after.accuracy > before.accuracy and list(after.predicted) != list(before.predicted),
        ),
    ]


def _told_once(namespace: str, run: Run, received: Sequence[Received]) -> Claim:
    status = "succeeded" if run.status.completion_state == "Succeeded" else "failed"
    name, identity = f"{namespace}/{run.metadata.name}", f"{run.metadata.uid}.1.completion"
    text = f"the subscriber received exactly one completion of {name}: {status}"
    told = [message for message in received if message.headers.get("ce-id") == identity]
    if len(told) != 1:
        return Claim(text, False, f"{len(told)} messages with ce-id {identity}")
    headers, body = told[0].headers, told[0].document()
    data: dict[str, Any] = body.get("data", {})
    agree = {headers.get("ce-type"), body.get("type")} == {COMPLETION} and {headers.get("ce-status"), body.get("status")} == {status}
    of_it = (
        {data.get("runName"), body.get("runName")} == {name} and {data.get("status")} == {status} and data.get("runUid") == run.metadata.uid
    )
    return Claim(text, agree and of_it, told[0].body.decode(errors="replace")[:300])


def _nothing_else(runs: Mapping[str, Run], received: Sequence[Received]) -> Claim:
    ids = Counter(message.headers.get("ce-id", "without an id") for message in received)
    known = {f"{run.metadata.uid}.1.completion" for run in runs.values()}
    others = {identity: count for identity, count in ids.items() if identity not in known}
    return Claim("and nothing else", not others, str(others))


def _model_is_there(namespace: str, received: Sequence[Received]) -> Claim:
    """The artifact that the event names exists, with its accuracy."""
    text = "the event of the good one names a model that exists, with its accuracy"
    for message in received:
        data = message.document().get("data", {})
        if data.get("runName") == f"{namespace}/{GOOD}":
            found = [artifact for artifact in data.get("artifacts", []) if artifact["name"] == "serving-model"]
            good = len(found) == 1 and Path(found[0]["location"]).is_file() and found[0]["metadata"].get("accuracy", 0) > 0
            return Claim(text, good, str(found))
    return Claim(text, False, "there is no such event")
