"""What the operator decides to do next for a Pipeline."""

from dataclasses import replace
from typing import Any

import pytest

from kfp_operator.api.conditions import find
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.states import SyncState
from kfp_operator.reconcile import pipeline as p
from kfp_operator.reconcile.pipeline import KeptRevision, PipelineSituation, Source, decide_pipeline
from tests import builders as b

KEPT = KeptRevision("train-49e208", b.VERSION, 1, "sha")


def situation(**changes: Any) -> PipelineSituation:
    usual = PipelineSituation(
        pipeline=b.pipeline(status={}),
        provider=b.provider(),
        keeps_pipelines=False,
        source=Source(version=b.VERSION, documents={"pipelineSpec": {}}),
        digest="sha",
        revisions=(KEPT,),
        in_use=frozenset(),
        known_at_provider="team/train",
        trouble="",
        refused="",
        now=b.NOW,
        names=b.NAMES,
    )
    return replace(usual, **changes)


def with_finalizer(pipeline: Pipeline) -> Pipeline:
    return pipeline.model_copy(update={"metadata": pipeline.metadata.model_copy(update={"finalizers": [b.NAMES.finalizer]})})


def written(s: PipelineSituation) -> tuple[SyncState | None, str, str, bool]:
    """State, reason, message and whether it is stalled, of a decision that writes a status."""
    action = decide_pipeline(s).action
    assert isinstance(action, p.WritePipelineStatus)
    ready = find(action.status.conditions, "Ready")
    assert ready is not None
    return action.status.synchronization_state, ready.reason, action.status.message, find(action.status.conditions, "Stalled") is not None


def test_a_pipeline_is_kept_then_made_known_then_synchronized() -> None:
    assert decide_pipeline(situation(revisions=(), known_at_provider=None)).action == p.Keep(1)
    assert decide_pipeline(situation(known_at_provider=None)).action == p.EnsureAtProvider()
    action = decide_pipeline(situation()).action
    assert isinstance(action, p.WritePipelineStatus)
    assert (action.status.version, action.status.provider_id) == (b.VERSION, "team/train")
    settled = situation(pipeline=b.pipeline(status={}).model_copy(update={"status": action.status}))
    assert decide_pipeline(settled).action is None


@pytest.mark.parametrize(
    ("changes", "state", "reason", "stalled"),
    [
        pytest.param(
            {"source": Source(problem="not IR", reason="InvalidPipelineSpec")}, "Failed", "InvalidPipelineSpec", True, id="not IR"
        ),
        pytest.param(
            {"source": Source(problem="waits", reason="ConfigMapNotFound", waits=True)},
            "Creating",
            "ConfigMapNotFound",
            False,
            id="no ConfigMap",
        ),
        pytest.param({"provider": None}, "Creating", "ProviderNotFound", False, id="no provider"),
        pytest.param({"provider": b.provider(usable=False)}, "Creating", "ProviderNotReady", False, id="provider not ready"),
        pytest.param({"provider": b.provider(spec={"allowedNamespaces": ["x"]})}, "Creating", "ProviderForbidden", True, id="forbidden"),
        pytest.param({"revisions": (replace(KEPT, digest="other"),)}, "Failed", "VersionCollision", True, id="hash collision"),
    ],
)
def test_a_pipeline_that_is_not_in_sync_says_why(changes: dict[str, Any], state: str, reason: str, stalled: bool) -> None:
    told = written(situation(**changes))
    assert (told[0], told[1], told[3]) == (state, reason, stalled)
    assert told[2]


def test_a_config_map_is_read_again_every_minute_and_every_five_seconds_while_it_is_waited_for() -> None:
    source = {"provider": "mlops/local", "pipelineSpec": None, "pipelineSpecFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}
    synced = b.pipeline(spec=source, status={})
    first = decide_pipeline(situation(pipeline=synced)).action
    assert isinstance(first, p.WritePipelineStatus)
    synced = synced.model_copy(update={"status": first.status})
    assert decide_pipeline(situation(pipeline=synced)) == p.PipelineDecision(again=p.SOURCE_AGAIN)
    missing = Source(problem="waits for it", reason="ConfigMapNotFound", waits=True)
    assert decide_pipeline(situation(pipeline=synced, source=missing)).again == 5
    broken = Source(problem="is not YAML", reason="InvalidPipelineSpec")
    assert decide_pipeline(situation(pipeline=synced, source=broken)).again == p.SOURCE_AGAIN


def test_an_update_keeps_the_synchronized_version_until_the_new_one_is_ready() -> None:
    s = situation(pipeline=b.pipeline(), source=Source(version="new", documents={}), provider=b.provider(usable=False))
    action = decide_pipeline(s).action
    assert isinstance(action, p.WritePipelineStatus)
    assert (action.status.synchronization_state, action.status.version) == (SyncState.UPDATING, b.VERSION)


def test_old_revisions_go_but_never_one_in_use() -> None:
    old = tuple(KeptRevision(f"train-{n}", f"{n}", n, f"{n}") for n in range(2, 9))
    s = situation(revisions=(*old, replace(KEPT, number=9)), in_use=frozenset({"2"}))
    synced = decide_pipeline(s).action
    assert isinstance(synced, p.WritePipelineStatus), "what fails to be pruned keeps no version from being ready"
    settled = s.pipeline.model_copy(update={"status": synced.status})
    assert decide_pipeline(replace(s, pipeline=settled)).action == p.Prune(["train-3", "train-4"])
    pruned = situation(revisions=(*old[:1], *old[3:], replace(KEPT, number=9)), in_use=frozenset({"2"}))
    assert not decide_pipeline(pruned).held
    crowded = situation(revisions=(*old, replace(KEPT, number=9)), in_use=frozenset(r.version for r in old))
    assert isinstance(decide_pipeline(crowded).action, p.WritePipelineStatus)
    assert decide_pipeline(crowded).held, "looked at again when a Run ends"


def test_a_provider_that_keeps_pipelines_is_asked_to_delete_them() -> None:
    assert decide_pipeline(situation(keeps_pipelines=True)).action == p.AddFinalizer()
    deleted = with_finalizer(b.pipeline(deleted=True))
    first = decide_pipeline(situation(pipeline=deleted)).action
    assert isinstance(first, p.WritePipelineStatus)
    told = deleted.model_copy(update={"status": first.status})
    assert decide_pipeline(situation(pipeline=told)).action == p.DeleteAtProvider()
    orphan = with_finalizer(b.pipeline(deleted=True, spec={"deletionPolicy": "Orphan"}))
    assert decide_pipeline(situation(pipeline=orphan)).action == p.RemoveFinalizer()
    assert decide_pipeline(situation(pipeline=deleted, provider=None)).action == p.RemoveFinalizer()
    unanswered = with_finalizer(b.pipeline(deleted=True, status={}))
    said = decide_pipeline(situation(pipeline=unanswered)).action
    assert isinstance(said, p.WritePipelineStatus), "the provider may have it though its answer was lost"
    assert decide_pipeline(situation(pipeline=unanswered.model_copy(update={"status": said.status}))).action == p.DeleteAtProvider()
