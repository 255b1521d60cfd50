"""What a decision about a Run looks at: the object, what this process knows beyond it, and its Pipeline and Provider."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from kfp_operator.api.experiment import Experiment
from kfp_operator.api.names import Names
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.provider import Provider
from kfp_operator.api.run import Run, RunStatus
from kfp_operator.api.run_configuration import RunConfiguration
from kfp_operator.api.states import RunState
from kfp_operator.providers.protocol import RunUpdate
from kfp_operator.reconcile.attempts import FIRST, CurrentSubmission, shown, told
from kfp_operator.reconcile.outcome import Collected, Mark, Refusal
from kfp_operator.schemas import RunStatus as RunStatusEvent


@dataclass(slots=True)
class Knowledge:
    """What this process knows of a Run beyond the object. Lost in a crash, and made again by looking."""

    current: CurrentSubmission = FIRST
    """The submission that decisions are about; `submitted` to `trouble_reason` are about this one."""
    heard: CurrentSubmission = FIRST
    """The latest submission that an event named; it becomes the current one between two steps."""
    fresh: bool = False
    """This process bound the Run: nothing was submitted or published before."""
    recalled: bool = False
    """The bus was asked what is stored of the Run (its last run-status, its completion)."""
    submitted: bool = False
    absent_since: datetime | None = None
    """Since when the run is known not to be at the backend."""
    refusal: Refusal | None = None
    update: RunUpdate | None = None
    """The backend's report, its attempt as the Run counts."""
    promised: RunStatusEvent | None = None
    """A final run-status of an earlier process, whose completion was not stored when the bus was asked."""
    published: set[Mark] = field(default_factory=set)
    telling: bool = False
    """An event was sent, whether or not the answer said that it is stored."""
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

    def hear(self, event: RunStatusEvent) -> None:
        """A run-status is stored: this process published it, asked for it, or read it as it was projected."""
        self.transition = max(self.transition, event.transition)
        self.published.add((event.attempt, RunState(event.state), event.time))
        self.heard = max(self.heard, told(event))

    def turn(self, status: RunStatus) -> None:
        """Look at the latest submission that is known of; what was known of an earlier one is forgotten."""
        latest = max(self.current, self.heard, shown(status))
        if latest != self.current:
            self._begin(latest)

    def lose(self, now: datetime) -> None:
        """The backend does not know the run any more that it told of; one that had ended is known well enough."""
        if self.update is None or not self.update.state.completes:
            self.update = None
            self.absent_since = self.absent_since or now

    def doubt(self) -> None:
        """The Provider may speak to another backend now: it is to be asked for the run."""
        if self.update is not None and not self.update.state.completes:
            self.update = None
        self.absent_since = None

    def forget_published(self, status: RunStatus) -> None:
        """Ask the bus anew: what was stored there may be gone."""
        self.published.clear()
        self.completed.clear()
        self.transition = 0
        self.published_at = None
        self.fresh = self.recalled = False
        self.overdue = True
        self.heard = shown(status)
        if self.current != self.heard:
            self._begin(self.heard)

    def _begin(self, current: CurrentSubmission) -> None:
        self.current = current
        self.fresh = self.submitted = False
        self.absent_since = self.cancel_sent = None
        self.refusal = self.update = self.promised = self.collected = None
        self.trouble = self.trouble_reason = ""


@dataclass(frozen=True, slots=True)
class ProviderView:
    """A Provider resource, and whether this process can use it."""

    resource: Provider
    usable: bool
    message: str = ""
    backend: str = ""
    """Which backend it speaks to, where an edit of the Provider may change that."""


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
    configurations: Mapping[str, RunConfiguration]
    """Those that exist of the ones that parameters without a value name, by namespace/name."""
    experiment: Experiment | None
    """That of the Run's experimentName in its namespace."""
    artifact_deadline: timedelta
    now: datetime
    names: Names
