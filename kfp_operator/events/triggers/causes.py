"""Why a Run was started, back to the first cause; and what keeps triggers from starting each other for ever.

A Run that an event started carries the chain of what came before it as an annotation: the RunConfigurations and runs by way of which it
came to be. A configuration that stands in the chain of its cause would start itself, so it starts nothing. Most such loops can be seen
beforehand from the triggers (`started_by`); the chain stops those that cannot, and very long ways.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kfp_operator.events.triggers.subscriptions import Subscription
from kfp_operator.schemas import RefType

MAX_CAUSES = 32
"""Links of a chain."""
SKIPPED = "TriggerCycle"
"""The reason for starting nothing."""


@dataclass(frozen=True, slots=True)
class Link:
    """One cause: a run, and what it was a run of."""

    configuration: str
    """namespace/name; empty: a run that no RunConfiguration made."""
    uid: str
    """Of the run."""

    def __str__(self) -> str:
        return f"{self.configuration}@{self.uid}"


@dataclass(frozen=True, slots=True)
class Causes:
    """The chain, the first cause first."""

    links: tuple[Link, ...] = ()

    def __str__(self) -> str:
        return ",".join(map(str, self.links))

    @classmethod
    def parse(cls, text: str) -> "Causes":
        """What `str` wrote. Links that somebody wrote otherwise are left out: an annotation is anybody's."""
        parts = (link.rpartition("@") for link in text.split(","))
        return cls(tuple(Link(configuration, uid) for configuration, at, uid in parts if at and uid)[-MAX_CAUSES:])

    def then(self, configuration: str, uid: str) -> "Causes":
        """The chain of what a run causes. A link that is there is not put there twice: a run has one chain, however often it is told."""
        link = Link(configuration, uid)
        return self if self.links[-1:] == (link,) else Causes((*self.links, link))

    def refusal(self, configuration: str) -> str:
        """Why a RunConfiguration must not be started by this; empty: it may."""
        ways = [link.configuration for link in self.links]
        if configuration in ways:
            loop = [*ways[ways.index(configuration) :], configuration]
            return f"would start itself for ever: {' starts '.join(one for one in loop if one)}"
        if len(self.links) >= MAX_CAUSES:
            return f"{MAX_CAUSES} runs started one another before this one: too many to go on"
        return ""


def started_by(subscriptions: Iterable[Subscription], running: Callable[[str], Iterable[str]]) -> list[str]:
    """The RunConfigurations (namespace/name) whose runs can start what has these triggers.

    `running`: those that run a Pipeline (namespace/name), because a trigger on a Pipeline is one on all of them.
    """
    found: dict[str, None] = {}
    for one in subscriptions:
        full_name = f"{one.target.namespace}/{one.target.name}"
        if one.target.type is RefType.RUN_CONFIGURATIONS:
            found[full_name] = None
        elif one.target.type is RefType.PIPELINES:
            found.update(dict.fromkeys(running(full_name)))
    return list(found)
