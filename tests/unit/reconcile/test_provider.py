"""What the operator decides to do next for a Provider."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from kfp_operator.api.conditions import find
from kfp_operator.api.provider import Provider
from kfp_operator.api.states import SyncState
from kfp_operator.reconcile import provider as p
from kfp_operator.reconcile.provider import CHECK_AGAIN, CHECK_EVERY, Check, ProviderSituation, decide_provider
from tests import builders as b


def provider(**metadata: Any) -> Provider:
    usual = b.provider().resource
    return usual.model_copy(update={"metadata": usual.metadata.model_copy(update=metadata)})


def checked(*, ok: bool = True, time: datetime = b.NOW, **changes: Any) -> Check:
    return replace(Check(generation=1, ok=ok, time=time), **changes)


def situation(**changes: Any) -> ProviderSituation:
    usual = ProviderSituation(provider=provider(finalizers=[b.NAMES.finalizer]), check=checked(), users=(), now=b.NOW, names=b.NAMES)
    return replace(usual, **changes)


def test_a_provider_is_checked_before_anything_is_said_and_again_after_an_edit() -> None:
    assert decide_provider(situation(check=None)).action == p.CheckProvider()
    assert decide_provider(situation(provider=provider(generation=2))).action == p.CheckProvider()


def test_a_usable_provider_is_ready_and_looked_at_every_minute() -> None:
    decision = decide_provider(situation())
    assert isinstance(decision.action, p.WriteProviderStatus)
    assert decision.action.status.synchronization_state is SyncState.SUCCEEDED
    assert decision.again == CHECK_EVERY
    assert decide_provider(situation(now=b.at(CHECK_EVERY))).action == p.CheckProvider()


def test_a_provider_whose_spec_is_wrong_is_stalled_and_not_asked_again() -> None:
    decision = decide_provider(
        situation(check=checked(ok=False, permanent=True, reason="InvalidParameters", message="no such parameter"), now=b.at(999))
    )
    assert isinstance(decision.action, p.WriteProviderStatus)
    assert decision.action.status.synchronization_state is SyncState.FAILED
    assert find(decision.action.status.conditions, "Stalled") is not None
    assert decision.again is None


def test_an_unreachable_provider_says_so_and_is_asked_again_soon() -> None:
    away = checked(ok=False, reason="ProviderUnavailable", message="connection refused")
    decision = decide_provider(situation(check=away))
    assert isinstance(decision.action, p.WriteProviderStatus)
    ready = find(decision.action.status.conditions, "Ready")
    assert ready is not None
    assert (ready.status, ready.reason, ready.message) == ("False", "ProviderUnavailable", "connection refused")
    assert decision.again == CHECK_AGAIN
    assert decide_provider(situation(check=away, now=b.at(CHECK_AGAIN))).action == p.CheckProvider()


def test_a_provider_in_use_stays_until_its_users_are_gone() -> None:
    deleted = provider(finalizers=[b.NAMES.finalizer], deletion_timestamp=b.NOW)
    decision = decide_provider(situation(provider=deleted, users=[f"Run team/r{n}" for n in range(7)]))
    assert isinstance(decision.action, p.WriteProviderStatus)
    assert "Run team/r0" in decision.action.status.message
    assert "2 more" in decision.action.status.message
    assert decision.held, "looked at again when a user ends"
    assert decide_provider(situation(provider=deleted)).action == p.CloseProvider()
    forced = provider(finalizers=[b.NAMES.finalizer], deletion_timestamp=b.NOW, annotations={b.NAMES.force_release: "true"})
    assert decide_provider(situation(provider=forced, users=["Run team/r"])).action == p.CloseProvider()
