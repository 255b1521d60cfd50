"""What becomes of a run: told by the test, or read from the parameters of the scenario pipeline.

An `Outcome` is data, so that a test in another process can send it. Rules are asked in the order in which they were added, the newest
first; a run that none matches does what its `mode` says (tests/data/pipelines/scenario.py), as it would anywhere else, and without
a `mode` it succeeds.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXIT_MESSAGE = "main: Error (exit code {code})"
"""What Argo says of a step that failed: what the step itself said stands in its log only."""


@dataclass(frozen=True)
class Artifact:
    """What a step writes. `metadata`: as the step sets it."""

    task: str
    name: str
    type: str
    uri: str = ""
    """Empty: a place below the pipeline root."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a Workflow goes on.

    Args:
        seconds: From its start to its end.
        pending: Seconds before it starts.
        unseen: Seconds before Argo sees it at all: it has no phase, and its run no state.
        fails_in: The task that fails; empty: none does.
        message: What Argo says of that step.
        phase: How it ends if nothing fails: Succeeded, or Error for a failure of Argo's own.
        wait_for: A path; the last step goes on until there is something.
        by_hand: It only moves when told to (`Argo.start`, `Argo.finish`).
        artifacts: What its steps write; a step that fails writes nothing.
        then: The outcome of the next attempt, when it is retried in the UI; None: it succeeds.

    """

    seconds: float = 0.2
    pending: float = 0.0
    unseen: float = 0.0
    fails_in: str = ""
    message: str = EXIT_MESSAGE.format(code=1)
    phase: str = "Succeeded"
    wait_for: str = ""
    by_hand: bool = False
    artifacts: tuple[Artifact, ...] = ()
    then: "Outcome | None" = None

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "Outcome":
        """From JSON."""
        members = dict(document)
        members["artifacts"] = tuple(Artifact(**a) for a in members.get("artifacts") or ())
        if members.get("then"):
            members["then"] = cls.parse(members["then"])
        return cls(**members)

    @property
    def gate_open(self) -> bool:
        """Whether what it waits for is there."""
        return not self.wait_for or Path(self.wait_for).exists()


HANG = Outcome(wait_for="/nonexistent/gate")
"""Goes on until it is terminated."""


@dataclass(frozen=True)
class Rule:
    """Which runs an outcome is for; what is empty matches all.

    Args:
        outcome: What becomes of them.
        name: Pattern (with ``*``) of the display name.
        run_id: The id.
        parameters: Values that the run must have.
        times: How many runs it is for; 0: all.

    """

    outcome: Outcome
    name: str = "*"
    run_id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    times: int = 0

    def matches(self, name: str, run_id: str, parameters: Mapping[str, Any]) -> bool:
        """Whether it is for this run."""
        return (
            fnmatch.fnmatchcase(name, self.name)
            and self.run_id in ("", run_id)
            and all(parameters.get(key) == value for key, value in self.parameters.items())
        )


class Script:
    """The rules of a test."""

    def __init__(self, *rules: Rule, seconds: float = 0.2) -> None:
        self.seconds = seconds
        """How long a run takes that no rule is for."""
        self._rules: list[tuple[Rule, int]] = []
        for rule in rules:
            self.add(rule)

    def add(self, rule: Rule) -> None:
        """Ask this rule before the others."""
        self._rules.insert(0, (rule, rule.times))

    def outcome(self, name: str, run_id: str, parameters: Mapping[str, Any], tasks: Sequence[str]) -> Outcome:
        """What becomes of a run with these parameters (defaults included) and tasks."""
        for index, entry in enumerate(self._rules):
            rule, left = entry
            if rule.matches(name, run_id, parameters) and (rule.times == 0 or left > 0):
                self._rules[index] = (rule, left - 1)
                return rule.outcome
        return by_mode(parameters, tasks, self.seconds)


def by_mode(parameters: Mapping[str, Any], tasks: Sequence[str], seconds: float = 0.2) -> Outcome:
    """What the scenario pipeline does on any backend."""
    last = tasks[-1] if tasks else ""
    artifacts = (Artifact(last, "model", "system.Model", metadata={"accuracy": 0.93, "pushed": 1}),) if "mode" in parameters else ()
    match parameters.get("mode"):
        case "raise":
            return Outcome(seconds=seconds, fails_in=last)
        case "exit":
            return Outcome(seconds=seconds, fails_in=last, message=EXIT_MESSAGE.format(code=7))
        case "hang" | "wait":
            return Outcome(seconds=seconds, wait_for=str(parameters.get("wait_for") or "/nonexistent"), artifacts=artifacts)
        case _:
            return Outcome(seconds=seconds, artifacts=artifacts)
