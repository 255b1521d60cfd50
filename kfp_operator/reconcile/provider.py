"""Decides what to do next for a Provider. Pure: open it when its spec is valid, say whether it can be used, keep it while it is used."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from kfp_operator.api import conditions
from kfp_operator.api.conditions import Wish
from kfp_operator.api.names import Names
from kfp_operator.api.provider import Provider, ProviderStatus
from kfp_operator.api.states import SyncState

CHECK_EVERY = 60.0
"""Seconds between two checks of a provider that answers."""
CHECK_AGAIN = 5.0
"""Seconds between two checks of one that does not: Runs wait for it."""
NAMED = 5
"""Users named in a message."""


@dataclass(frozen=True, slots=True)
class Check:
    """Result of the last look at the backend, or why it could not be opened."""

    generation: int
    """metadata.generation the result is about."""
    ok: bool
    time: datetime
    reason: str = ""
    message: str = ""
    permanent: bool = False
    """A person must change the spec or the installation."""


@dataclass(frozen=True, slots=True)
class ProviderSituation:
    """All that a decision depends on."""

    provider: Provider
    check: Check | None
    users: Sequence[str]
    """Unfinished Runs, Pipelines and Experiments that need this provider to be released, as "Run ns/name", sorted."""
    now: datetime
    names: Names


@dataclass(frozen=True, slots=True)
class AddProviderFinalizer:
    """Put the finalizer on."""


@dataclass(frozen=True, slots=True)
class CloseProvider:
    """Close the instance and let the object go."""


@dataclass(frozen=True, slots=True)
class CheckProvider:
    """Open the instance of the present spec if needed, and ask whether the backend can be used."""


@dataclass(frozen=True, slots=True)
class WriteProviderStatus:
    """Patch the status to this."""

    status: ProviderStatus


ProviderAction = AddProviderFinalizer | CloseProvider | CheckProvider | WriteProviderStatus


@dataclass(frozen=True, slots=True)
class ProviderDecision:
    """The next step, if any, and when to look again (seconds)."""

    action: ProviderAction | None = None
    again: float | None = None
    held: bool = False
    """It waits for the end of its users."""


def decide_provider(s: ProviderSituation) -> ProviderDecision:
    """The next step for the Provider."""
    meta = s.provider.metadata
    finalizer = s.names.finalizer in meta.finalizers
    if meta.deletion_timestamp is not None:
        return _deleted(s, finalizer)
    if s.check is None or s.check.generation != meta.generation:
        return ProviderDecision(CheckProvider())
    if s.check.ok and not finalizer:
        return ProviderDecision(AddProviderFinalizer())
    if s.check.permanent:
        return _write(s, conditions.failed(s.check.reason, s.check.message), SyncState.FAILED, s.check.message, None)
    again = (CHECK_EVERY if s.check.ok else CHECK_AGAIN) - (s.now - s.check.time).total_seconds()
    if again <= 0:
        return ProviderDecision(CheckProvider())
    if s.check.ok:
        return _write(s, conditions.synced(), SyncState.SUCCEEDED, "", again)
    return _write(s, conditions.progressing(s.check.reason, s.check.message), SyncState.CREATING, s.check.message, again)


def _deleted(s: ProviderSituation, finalizer: bool) -> ProviderDecision:
    if not finalizer:
        return ProviderDecision()
    if not s.users or s.names.force_release in s.provider.metadata.annotations:
        return ProviderDecision(CloseProvider())
    named = ", ".join(s.users[:NAMED]) + (f" and {len(s.users) - NAMED} more" if len(s.users) > NAMED else "")
    message = f"still used by {named}"
    return replace(_write(s, conditions.deleting(message), SyncState.DELETING, message, 30), held=True)


def _write(s: ProviderSituation, wishes: list[Wish], sync: SyncState, message: str, again: float | None) -> ProviderDecision:
    provider = s.provider
    generation = provider.metadata.generation
    status = provider.status.model_copy(
        update={
            "synchronization_state": sync,
            "provider": provider.metadata.full_name,
            "message": message,
            "observed_generation": generation,
            "conditions": conditions.apply(provider.status.conditions, wishes, generation=generation, now=s.now),
        }
    )
    if status != provider.status:
        return ProviderDecision(WriteProviderStatus(status), again=again)
    return ProviderDecision(again=again)
