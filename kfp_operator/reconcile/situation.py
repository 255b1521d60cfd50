"""What a decision about a Run looks at: the object, what this process knows beyond it, and its Pipeline and Provider."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from kfp_operator.api.names import Names
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.provider import Provider
from kfp_operator.api.run import Run
from kfp_operator.providers.protocol import RunUpdate
from kfp_operator.reconcile.outcome import Collected, Mark, Refusal


@dataclass(slots=True)
class Knowledge:
    """What this process knows of a Run beyond the object. Lost in a crash, and made again by looking."""

    fresh: bool = False
    """This process bound the Run: nothing was submitted or published before."""
    recalled: bool = False
    """The bus was asked what is stored of the Run (its last run-status, its completion)."""
    submitted: bool = False
    absent_since: datetime | None = None
    """Since when the backend says it does not know the run."""
    refusal: Refusal | None = None
    update: RunUpdate | None = None
    published: set[Mark] = field(default_factory=set)
    transition: int = 0
    """Highest transition published or seen on the bus."""
    completed: set[int] = field(default_factory=set)
    """Attempts whose completion is known to be stored."""
    published_at: datetime | None = None
    overdue: bool = False
    """What was stored did not come back as status: what the bus holds is to be projected again."""
    collected: Collected | None = None
    cancel_sent: datetime | None = None
    trouble: str = ""
    """The last failure that may pass, for people."""
    trouble_reason: str = ""
    bus_away_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class ProviderView:
    """A Provider resource, and whether this process can use it."""

    resource: Provider
    usable: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a decision depends on."""

    run: Run
    pipeline: Pipeline | None
    provider: ProviderView | None
    """Of the bound provider, else of the one the Pipeline names."""
    known: Knowledge
    versions: frozenset[str]
    """Versions of the Pipeline that can be run."""
    artifact_deadline: timedelta
    now: datetime
    names: Names
