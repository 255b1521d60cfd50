"""What can be decided about a Run: one step, carried out by `operator.run_controller`."""

from dataclasses import dataclass

from kfp_operator.api.run import RunStatus
from kfp_operator.schemas import RunCompletion
from kfp_operator.schemas import RunStatus as RunStatusEvent


@dataclass(frozen=True, slots=True)
class Bind:
    """Finalizer, labels and the provider annotation, in one patch of metadata."""

    version: str
    provider: str


@dataclass(frozen=True, slots=True)
class Recall:
    """Ask the bus what an earlier process stored of the Run, so that it is neither told twice nor started after its end was told."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Hand the bound version to the provider; its refusal becomes `Knowledge.refusal`."""

    version: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """Ask the provider what it knows of the run."""


@dataclass(frozen=True, slots=True)
class Collect:
    """Ask the provider for the artifacts of a succeeded run."""


@dataclass(frozen=True, slots=True)
class CancelRun:
    """Ask the provider to stop the run (the mark is in status already)."""


@dataclass(frozen=True, slots=True)
class PublishStatus:
    """Store a run-status event."""

    event: RunStatusEvent


@dataclass(frozen=True, slots=True)
class PublishCompletion:
    """Store the run-completion event."""

    event: RunCompletion


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Patch the status to this."""

    status: RunStatus


@dataclass(frozen=True, slots=True)
class Release:
    """Remove the finalizer; `completed` becomes the label's value, "" sets none."""

    completed: str = ""
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Reopen:
    """Its run goes on at the backend: the finalizer comes back, the label of the end goes."""


@dataclass(frozen=True, slots=True)
class DeleteRun:
    """Its time to live after the end is over."""


Action = (
    Bind | Recall | Submit | Lookup | Collect | CancelRun | PublishStatus | PublishCompletion | WriteStatus | Release | Reopen | DeleteRun
)


@dataclass(frozen=True, slots=True)
class Decision:
    """The next step, if any, and when to look again though nothing changed (seconds)."""

    action: Action | None = None
    again: float | None = None
    forget_published: bool = False
    """Compare with the bus anew: what was published has not come back."""
