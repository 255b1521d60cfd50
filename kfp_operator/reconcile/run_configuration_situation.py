"""What the decision about a RunConfiguration looks at."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from kfp_operator.api.names import Names
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.run_configuration import LatestRun, RunConfiguration
from kfp_operator.reconcile.run_configuration_loops import Loops
from kfp_operator.reconcile.run_configuration_parameters import Configurations
from kfp_operator.reconcile.starting import OwnedRun


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something that happened and is to start one Run."""

    trigger: str
    """The trigger's name in status."""
    what: str
    """What happened, as it stands in `pending`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something does not go as it should, as a condition says it."""

    reason: str
    message: str
    stalled: bool = False
    """Only a person can help."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The API server did not take a Run."""

    message: str
    not_before: datetime
    """When it is tried again."""
    failures: int = 1


@dataclass(slots=True)
class Knowledge:
    """What this process knows beside the object; lost with the process, and made again by trying."""

    started: dict[str, datetime] = field(default_factory=dict)
    """Names of Runs that exist or existed, whose occurrences may still stand in `pending`."""
    followed: dict[Occurrence, LatestRun | None] = field(default_factory=dict)
    """What the run behind an occurrence produced; None: it is gone, the latest stands for it."""
    refused: Refused | None = None


@dataclass(frozen=True, slots=True)
class ConfigurationSituation:
    """All that a decision depends on."""

    configuration: RunConfiguration
    pipeline: Pipeline | None
    versions: frozenset[str]
    """Versions of the Pipeline that can be run; empty: not known yet."""
    configurations: Configurations
    """Those that this one refers to and that exist."""
    loops: Loops
    runs: Sequence[OwnedRun]
    """Its Runs."""
    known: Knowledge
    now: datetime
    names: Names

    @property
    def namespace(self) -> str:
        """Where it lies, and its Runs."""
        return self.configuration.metadata.namespace

    @property
    def suspended(self) -> bool:
        """Whether only a person starts Runs."""
        return self.configuration.spec.suspend
