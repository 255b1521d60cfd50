"""What is decided for an Experiment."""

from dataclasses import replace
from typing import Any

import pytest

from kfp_operator.api import conditions
from kfp_operator.api.experiment import Experiment
from kfp_operator.api.names import GO_FINALIZER, Names
from kfp_operator.api.states import SyncState
from kfp_operator.reconcile.experiment import (
    DeleteExperiment,
    EnsureExperiment,
    ExperimentSituation,
    WriteExperimentStatus,
    decide_experiment,
)
from kfp_operator.reconcile.pipeline import AddFinalizer, RemoveFinalizer
from tests import builders as b

HELD = (b.NAMES.finalizer,)
AT_BACKEND = {"providerId": "exp-1", "synchronizationState": "Succeeded"}


def situation(experiment: Experiment, **changes: Any) -> ExperimentSituation:
    """An Experiment whose Provider is ready and keeps nothing."""
    usual = ExperimentSituation(
        experiment=experiment,
        provider=b.provider(),
        keeps_experiments=False,
        known_at_provider="",
        trouble="",
        refused="",
        now=b.NOW,
        names=b.NAMES,
    )
    return replace(usual, **changes)


def written(s: ExperimentSituation) -> Experiment:
    """The Experiment with the status that is decided to be written."""
    action = decide_experiment(s).action
    assert isinstance(action, WriteExperimentStatus)
    return s.experiment.model_copy(update={"status": action.status})


def shown(experiment: Experiment) -> tuple[str, str, bool]:
    """State, reason of Ready, and whether a person must act."""
    ready = conditions.find(experiment.status.conditions, "Ready")
    assert ready is not None
    return str(experiment.status.synchronization_state), ready.reason, conditions.stalled(experiment.status.conditions)


def test_an_experiment_is_made_known_once_and_then_left_alone() -> None:
    s = situation(b.experiment(spec={"description": "An experiment"}))
    assert decide_experiment(s).action == EnsureExperiment()
    known = replace(s, known_at_provider="penguins")
    synced = written(known)
    assert (synced.status.provider_id, synced.status.version, synced.status.provider) == ("penguins", "b16e9a", "mlops/local")
    assert shown(synced) == ("Succeeded", "Succeeded", False)
    assert decide_experiment(replace(known, experiment=synced)).action is None


def test_an_experiment_is_held_before_the_provider_makes_what_it_keeps() -> None:
    s = situation(b.experiment(), keeps_experiments=True)
    assert decide_experiment(s).action == AddFinalizer()
    assert decide_experiment(replace(s, experiment=b.experiment(finalizers=HELD))).action == EnsureExperiment()


def test_an_experiment_that_was_synchronized_is_looked_for_again_by_another_process() -> None:
    assert decide_experiment(situation(b.experiment(status=AT_BACKEND))).action == EnsureExperiment()


@pytest.mark.parametrize(
    ("changes", "shows"),
    [
        pytest.param({"provider": None}, ("Creating", "ProviderNotFound", False), id="no provider"),
        pytest.param({"provider": b.provider(usable=False, message="down")}, ("Creating", "ProviderNotReady", False), id="not ready"),
        pytest.param(
            {"provider": b.provider(spec={"allowedNamespaces": ["others"]})}, ("Creating", "ProviderForbidden", True), id="forbidden"
        ),
        pytest.param({"trouble": "no answer"}, ("Creating", "ProviderRetrying", False), id="no answer"),
        pytest.param({"trouble": "too long", "refused": "InvalidName"}, ("Failed", "InvalidName", True), id="refused"),
    ],
)
def test_an_experiment_that_waits_says_for_what(changes: dict[str, Any], shows: tuple[str, str, bool]) -> None:
    told = written(situation(b.experiment(), **changes))
    assert shown(told) == shows
    assert told.status.message


@pytest.mark.parametrize("trouble", [{"trouble": "no answer"}, {"trouble": "too long", "refused": "InvalidName"}])
def test_what_failed_is_said_and_then_tried_again(trouble: dict[str, str]) -> None:
    s = situation(b.experiment(), **trouble)
    assert decide_experiment(replace(s, experiment=written(s))).action == EnsureExperiment()


def test_trouble_with_one_that_exists_is_an_update() -> None:
    told = written(situation(b.experiment(status=AT_BACKEND), trouble="no answer"))
    assert (told.status.synchronization_state, told.status.provider_id) == (SyncState.UPDATING, "exp-1")


def edited(**changes: Any) -> ExperimentSituation:
    made = written(situation(b.experiment(spec={"description": "An experiment"}, finalizers=HELD), known_at_provider="exp-1", **changes))
    spec = made.spec.model_copy(update={"description": "Another description"})
    metadata = made.metadata.model_copy(update={"generation": 2})
    return situation(made.model_copy(update={"spec": spec, "metadata": metadata}), known_at_provider="exp-1", **changes)


def test_an_edited_description_stays_here_where_the_provider_cannot_change_it() -> None:
    s = edited(keeps_experiments=True)
    told = written(s)
    assert shown(told) == ("Succeeded", "Succeeded", False)
    assert "keeps the description that the experiment was made with" in told.status.message
    assert (told.status.version, told.status.observed_generation) == ("b16e9a", 2), "the version is of what the provider has"
    assert decide_experiment(replace(s, experiment=told)).action is None


def test_a_description_that_is_set_back_is_no_longer_remarked() -> None:
    told = written(edited(keeps_experiments=True))
    back = told.model_copy(update={"spec": told.spec.model_copy(update={"description": "An experiment"})})
    assert written(situation(back, keeps_experiments=True, known_at_provider="exp-1")).status.message == ""


def test_an_edited_description_needs_nothing_where_the_provider_keeps_none() -> None:
    told = written(edited())
    assert told.status.message == ""
    assert told.status.version not in ("", "b16e9a")


def test_an_experiment_made_anew_at_the_provider_has_the_present_description() -> None:
    told = written(replace(edited(keeps_experiments=True), known_at_provider="exp-2"))
    assert (told.status.provider_id, told.status.message) == ("exp-2", "")
    assert told.status.version != "b16e9a"


def test_a_deleted_experiment_says_so_and_goes_at_the_provider_first() -> None:
    s = situation(b.experiment(deleted=True, finalizers=HELD, status=AT_BACKEND), keeps_experiments=True)
    told = written(s)
    assert shown(told) == ("Deleting", "Deleting", False)
    assert decide_experiment(replace(s, experiment=told)).action == DeleteExperiment("exp-1")


def test_an_experiment_deleted_before_its_id_was_noted_is_found_again_first() -> None:
    s = situation(b.experiment(deleted=True, finalizers=HELD), keeps_experiments=True)
    s = replace(s, experiment=written(s))
    assert decide_experiment(s).action == EnsureExperiment()
    assert decide_experiment(replace(s, known_at_provider="exp-1")).action == DeleteExperiment("exp-1")


@pytest.mark.parametrize(
    ("subject", "changes"),
    [
        pytest.param({"status": AT_BACKEND}, {"provider": None}, id="Provider gone"),
        pytest.param({"status": AT_BACKEND, "annotations": {b.NAMES.force_release: ""}}, {}, id="forced"),
        pytest.param({}, {"trouble": "too long", "refused": "InvalidName"}, id="never taken"),
    ],
)
def test_a_deletion_with_nothing_to_wait_for_ends_at_once(subject: dict[str, Any], changes: dict[str, Any]) -> None:
    s = situation(b.experiment(deleted=True, finalizers=HELD, **subject), keeps_experiments=True, **changes)
    assert decide_experiment(s).action == RemoveFinalizer()


def test_a_deletion_waits_for_a_provider_that_is_away_and_says_so() -> None:
    s = situation(b.experiment(deleted=True, finalizers=HELD, status=AT_BACKEND), keeps_experiments=True, trouble="no route to host")
    assert "no route to host" in written(s).status.message


def test_an_experiment_that_nobody_holds_is_left_to_the_api_server() -> None:
    foreign = b.experiment(deleted=True, finalizers=["example.org/hold", GO_FINALIZER], status=AT_BACKEND)
    assert decide_experiment(situation(foreign)).action is None


def test_under_the_go_operators_group_its_experiments_are_deleted_too() -> None:
    s = situation(b.experiment(deleted=True, finalizers=[GO_FINALIZER], status=AT_BACKEND), names=Names("pipelines.kubeflow.org"))
    assert decide_experiment(replace(s, experiment=written(s))).action == DeleteExperiment("exp-1")
