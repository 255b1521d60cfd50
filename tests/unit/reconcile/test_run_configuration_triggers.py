"""What starts a Run and what does not: changes, and the clock. Given a configuration, this happened, these Runs follow."""

from collections.abc import Callable
from typing import Any

import pytest

from kfp_operator.api.names import name_in
from kfp_operator.reconcile.run_configuration_triggers import ON_PIPELINE, ON_RUN_SPEC
from tests import builders
from tests.builders import NAMES, at
from tests.doubles.configurations import EVERY_MINUTE, UPSTREAM, Rig, completion, following, recorded, rig

# To create, to edit, to delete


@pytest.mark.parametrize("start_from", ["New", "Latest"])
@pytest.mark.parametrize(
    "triggers",
    [
        {},
        {"schedules": [EVERY_MINUTE]},
        {"schedules": [{"cronExpression": "* * * * * *", "startTime": "2020-01-01T00:00:00Z"}]},
        {"runConfigurations": ["base"]},
        {"runConfigurations": ["team/base", "elsewhere/other", "missing"]},
    ],
)
def test_to_create_a_configuration_starts_nothing(triggers: dict[str, Any], start_from: str) -> None:
    made = Rig(builders.configuration(triggers=triggers, startFrom=start_from), UPSTREAM)
    assert made.settle() == []


@pytest.mark.parametrize("triggers", [{"onChange": ["pipeline"]}, {"onChange": ["runSpec"]}, {"onChange": ["pipeline", "runSpec"]}])
def test_a_new_trigger_of_on_change_starts_nothing_unless_it_is_to_look_back(triggers: dict[str, Any]) -> None:
    assert Rig(builders.configuration(triggers=triggers)).settle() == []
    assert len(Rig(builders.configuration(triggers=triggers, startFrom="Latest")).settle()) == 1


def test_a_new_trigger_of_run_configurations_looks_back_only_if_it_is_to() -> None:
    upstream = recorded(UPSTREAM, completion(UPSTREAM, "base-1"), completion(UPSTREAM, "base-2", seconds=1))
    triggers = {"runConfigurations": ["base"]}
    assert Rig(builders.configuration(triggers=triggers), upstream).settle() == []
    assert Rig(builders.configuration(triggers=triggers, startFrom="Latest"), upstream).settle() == ["runConfiguration base"]


def test_to_add_and_to_remove_triggers_starts_nothing() -> None:
    upstream = recorded(UPSTREAM, completion(UPSTREAM, "base-1"))
    made = rig(upstream)
    for triggers in (
        {"runConfigurations": ["base"]},
        {"runConfigurations": ["base", "team/other"], "onChange": ["pipeline"]},
        {"runConfigurations": ["team/base"], "onChange": ["pipeline", "runSpec"], "schedules": [EVERY_MINUTE]},
        {"onChange": ["runSpec"]},
        {},
        {"runConfigurations": ["base"], "onChange": ["pipeline", "runSpec"]},
    ):
        made.edit(triggers=triggers)
        assert made.settle() == []
        made.restart()
        assert made.settle() == []


def test_a_trigger_that_was_away_for_a_while_begins_anew() -> None:
    made = following()
    made.edit(triggers={})
    made.settle()
    made.upstream_ends("team/base", completion(UPSTREAM, "base-1"))
    made.edit(triggers={"runConfigurations": ["base"]})
    assert made.settle() == []


def test_a_configuration_that_is_being_deleted_does_nothing() -> None:
    made = following()
    made.upstream_ends("team/base", completion(UPSTREAM, "base-1"))
    metadata = made.configuration.metadata.model_copy(update={"deletion_timestamp": at(0)})
    made.configuration = made.configuration.model_copy(update={"metadata": metadata})
    assert made.settle() == []
    assert made.pass_time(3600) == []


# The Pipeline


def test_a_new_version_of_the_pipeline_starts_a_run_of_that_version() -> None:
    made = rig(triggers={"onChange": ["pipeline"]})
    made.publish("aaaaaa")
    assert made.settle() == ["onChangePipeline train"]
    assert made.manifests[-1]["spec"]["pipeline"] == "train:aaaaaa"
    assert made.settle() == []


def test_a_version_that_comes_back_is_new_again() -> None:
    made = rig(triggers={"onChange": ["pipeline"]})
    for version in ("aaaaaa", builders.VERSION, "aaaaaa"):
        made.publish(version)
        assert made.settle() == ["onChangePipeline train"]
    assert len(made.runs) == 3


def test_an_edit_of_the_pipeline_that_leaves_its_version_starts_nothing() -> None:
    made = rig(triggers={"onChange": ["pipeline"]})
    made.publish(builders.VERSION)
    assert made.settle() == []


def test_who_sees_an_older_pipeline_than_another_did_starts_nothing() -> None:
    made = rig(triggers={"onChange": ["pipeline"]})
    older = made.pipeline
    made.publish("aaaaaa")
    made.settle()
    made.pipeline = older
    assert made.settle() == []
    made.publish("aaaaaa")
    assert made.settle() == []


@pytest.mark.parametrize("state", ["Creating", "Updating", "Failed", "Deleting"])
def test_a_pipeline_that_is_not_synchronized_starts_nothing(state: str) -> None:
    made = rig(triggers={"onChange": ["pipeline"]})
    made.pipeline = builders.pipeline(status={"synchronizationState": state, "version": "bbbbbb"})
    assert made.settle() == []
    made.publish("bbbbbb")
    assert made.settle() == ["onChangePipeline train"]


def test_to_delete_and_to_make_the_pipeline_again_starts_nothing() -> None:
    made = rig(triggers={"onChange": ["pipeline", "runSpec"]})
    made.pipeline = None
    assert made.settle() == []
    made.publish("cccccc", uid="pipeline-uid-2")
    assert made.settle() == []
    made.publish("dddddd", uid="pipeline-uid-2")
    assert made.settle() == ["onChangePipeline train"]


@pytest.mark.parametrize(("start_from", "starts"), [("New", []), ("Latest", ["onChangePipeline train"])])
def test_it_does_not_matter_whether_the_pipeline_or_its_configuration_is_made_first(start_from: str, starts: list[str]) -> None:
    first = Rig(builders.configuration(triggers={"onChange": ["pipeline"]}, startFrom=start_from))
    first.pipeline = None
    assert first.settle() == []
    first.publish("aaaaaa")
    second = Rig(builders.configuration(triggers={"onChange": ["pipeline"]}, startFrom=start_from))
    second.publish("aaaaaa")
    assert first.settle() == second.settle() == starts


def test_a_configuration_that_names_a_version_does_not_follow_others() -> None:
    made = rig(run={"pipeline": f"train:{builders.VERSION}"}, triggers={"onChange": ["pipeline"]})
    made.publish("aaaaaa")
    assert made.settle() == []
    assert "other versions start nothing" in made.entry(ON_PIPELINE).message
    made.edit(run={"pipeline": "train"})
    assert made.settle() == []
    assert made.entry(ON_PIPELINE).message == ""
    made.publish("bbbbbb")
    assert made.settle() == ["onChangePipeline train"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda made: setattr(made, "pipeline", None), "PipelineNotFound"),
        (lambda made: setattr(made, "pipeline", builders.pipeline(deleted=True)), "PipelineNotFound"),
        (lambda made: setattr(made, "pipeline", builders.pipeline(status={})), "PipelineNotReady"),
        (lambda made: made.edit(run={"provider": "mlops/other"}), "ProviderMismatch"),
        (
            lambda made: (setattr(made, "versions", frozenset({"a", "b"})), made.edit(run={"pipeline": "train:c"})),
            "PipelineVersionNotFound",
        ),
    ],
)
def test_while_no_run_could_go_on_none_is_made_and_the_latest_tick_waits(spoil: Callable[[Rig], Any], reason: str) -> None:
    made = rig(triggers={"schedules": [EVERY_MINUTE]})
    spoil(made)
    assert made.pass_time(600) == []
    assert made.condition()[:2] == ("False", reason)
    assert len(made.entry("schedule/m").pending) == 1
    made.pipeline, made.versions = builders.pipeline(), frozenset()
    made.edit(run={"pipeline": "train", "provider": ""})
    assert made.settle() == ["schedule m"]
    assert made.condition()[0] == "True"


# The template


def test_a_change_of_what_is_executed_starts_a_run() -> None:
    made = rig(run={"parameters": [{"name": "epochs", "value": 1}]}, triggers={"onChange": ["runSpec"]})
    for index, change in enumerate(
        (
            {"parameters": [{"name": "epochs", "value": 2}]},
            {"parameters": [{"name": "epochs", "value": 1}]},
            {"experimentName": "other"},
            {"pipeline": f"train:{builders.VERSION}"},
        ),
        start=1,
    ):
        made.edit(run=change)
        assert made.settle() == ["onChangeRunSpec nightly"]
        assert len(made.runs) == index


@pytest.mark.parametrize(
    "change",
    [
        {"artifacts": [{"name": "model", "path": "trainer:model"}]},
        {"ttlSecondsAfterFinished": 60},
        {"retries": 3},
        {"parameters": [{"name": "b", "value": "2"}, {"name": "a", "value": "1"}]},
    ],
)
def test_a_change_of_what_is_only_reported_or_kept_starts_nothing(change: dict[str, Any]) -> None:
    made = rig(run={"parameters": [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]}, triggers={"onChange": ["runSpec"]})
    made.edit(run=change)
    assert made.settle() == []


def test_edits_while_nobody_looks_start_one_run_for_what_has_become_of_them() -> None:
    made = rig(triggers={"onChange": ["runSpec"]})
    made.edit(run={"experimentName": "a"})
    made.edit(run={"experimentName": "b"})
    made.restart()
    assert made.settle() == ["onChangeRunSpec nightly"]
    made.edit(run={"experimentName": "c"})
    made.edit(run={"experimentName": "b"})
    assert made.settle() == []


def test_another_recipe_of_the_hash_starts_nothing() -> None:
    made = rig(triggers={"onChange": ["runSpec"]})
    [entry] = made.configuration.status.triggers
    older = entry.model_copy(update={"subject": "0", "baseline": "something else"})
    made.configuration = made.configuration.model_copy(
        update={"status": made.configuration.status.model_copy(update={"triggers": [older]})}
    )
    assert made.settle() == []
    assert made.entry(ON_RUN_SPEC).baseline == entry.baseline


def test_a_run_is_made_of_the_template_as_it_is_then() -> None:
    made = rig(
        run={
            "experimentName": "penguins",
            "artifacts": [{"name": "model", "path": "trainer:model"}],
            "parameters": [{"name": "epochs", "value": 3}, {"name": "none", "value": None}],
            "retries": 2,
            "deletionPolicy": "Orphan",
        },
        triggers={"onChange": ["pipeline"]},
    )
    made.publish("aaaaaa")
    made.settle()
    made.edit(run={"experimentName": "later", "artifacts": []})
    [manifest] = made.manifests
    assert manifest["spec"] == {
        "pipeline": "train:aaaaaa",
        "experimentName": "penguins",
        "artifacts": [{"name": "model", "path": "trainer:model"}],
        "parameters": [{"name": "epochs", "value": 3}, {"name": "none", "value": None}],
        "retries": 2,
        "deletionPolicy": "Orphan",
    }
    metadata = manifest["metadata"]
    assert metadata["name"].startswith("nightly-")
    assert metadata["labels"] == {
        NAMES.run_configuration: "nightly",
        NAMES.trigger_type: "onChangePipeline",
        NAMES.trigger_source: "train",
        NAMES.trigger_source_namespace: "team",
    }
    [owner] = metadata["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (
        "RunConfiguration",
        "uid-nightly",
        True,
        False,
    )


def test_messages_of_any_length_fit_into_the_status() -> None:
    name, artifact = "b" * 250, "a" * 250
    ref = {"name": f"{'n' * 60}/{name}", "outputArtifact": artifact}
    other = builders.configuration(
        name, namespace="n" * 60, allowedNamespaces=["team"], run={"artifacts": [{"name": artifact, "path": "a:b"}]}
    )
    made = rig(
        other, run={"parameters": [{"name": "p" * 250, "valueFrom": {"runConfigurationRef": ref}}]}, triggers={"schedules": [EVERY_MINUTE]}
    )
    assert made.pass_time(120) == []
    assert 0 < len(made.entry("schedule/m").message) <= 1024
    writes = made.writes
    made.settle()
    assert made.writes == writes


def test_names_that_labels_cannot_hold_are_clipped_there_and_whole_in_annotations() -> None:
    long, other = "nightly-" + "n" * 192, "base-" + "b" * 195
    upstream = builders.configuration(other)
    made = Rig(builders.configuration(long, triggers={"runConfigurations": [other]}), upstream)
    made.settle()
    made.upstream_ends(f"team/{other}", completion(upstream, "run-1"))
    made.settle()
    metadata = made.manifests[-1]["metadata"]
    assert all(len(value) <= 63 for value in metadata["labels"].values())
    assert len(metadata["name"]) <= 253
    for key, whole in ((NAMES.run_configuration, long), (NAMES.trigger_source, other)):
        assert name_in(key, metadata["labels"], metadata["annotations"]) == whole


# Schedules


def test_each_tick_starts_a_run() -> None:
    made = rig(triggers={"schedules": [EVERY_MINUTE]})
    assert made.configuration.status.next_schedule_time == at(60)
    assert made.pass_time(59) == []
    assert made.pass_time(1) == ["schedule m"]
    status = made.configuration.status
    assert (status.last_schedule_time, status.next_schedule_time) == (at(60), at(120))
    assert made.manifests[-1]["metadata"]["annotations"][NAMES.scheduled_time] == "2026-03-01T12:01:00Z"
    assert len(made.pass_time(600)) == 10


def test_schedules_of_one_configuration_are_told_apart() -> None:
    schedules = [EVERY_MINUTE, {"cronExpression": "* * * * *"}, {"cronExpression": "*/2 * * * *"}]
    made = rig(triggers={"schedules": schedules})
    started = made.pass_time(120)
    assert len(started) == 5
    assert len(set(started)) == 3
    assert len(made.runs) == 5


def test_alike_schedules_are_one() -> None:
    alike = {"cronExpression": "* * * * *", "startTime": "2026-01-01T00:00:00Z"}
    made = rig(triggers={"schedules": [alike, dict(alike)]})
    assert len(made.pass_time(60)) == 1


@pytest.mark.parametrize(("catch_up", "runs"), [("Latest", 1), ("All", 3), ("None", 0)])
def test_ticks_that_passed_while_the_operator_was_away_are_made_up_for_as_asked(catch_up: str, runs: int) -> None:
    made = rig(triggers={"schedules": [{"name": "h", "cronExpression": "0 * * * *", "catchUp": catch_up}]})
    made.sleep(3.5 * 3600)
    made.restart()
    assert len(made.settle()) == runs
    assert made.entry("schedule/h").suppressed == 3 - runs
    assert len(made.pass_time(1800)) == 1


def test_a_tick_that_could_not_be_started_in_time_is_missed() -> None:
    made = rig(triggers={"schedules": [{"name": "h", "cronExpression": "0 * * * *", "startingDeadlineSeconds": 300}]})
    made.refuse = "exceeded quota"
    made.pass_time(3600 + 200)
    assert len(made.entry("schedule/h").pending) == 1
    made.pass_time(400)
    assert made.entry("schedule/h").pending == []
    assert made.entry("schedule/h").suppressed == 1
    made.refuse = ""
    assert made.pass_time(1000) == []


def test_an_edited_schedule_starts_nothing_for_the_time_before_the_edit() -> None:
    made = rig(triggers={"schedules": [{"name": "n", "cronExpression": "0 0 1 1 *"}]})
    made.sleep(1800)
    made.edit(triggers={"schedules": [{"name": "n", "cronExpression": "* * * * *"}]})
    made.restart()
    assert made.settle() == []
    assert made.pass_time(60) == ["schedule n"]


def test_a_schedule_that_cannot_be_is_told_and_does_not_stop_the_others() -> None:
    made = rig(triggers={"schedules": [{"name": "bad", "cronExpression": "61 * * * *"}, EVERY_MINUTE]})
    status, reason, message = made.condition()
    assert (status, reason) == ("False", "InvalidSchedule")
    assert "spec.triggers.schedules[0].cronExpression" in message
    assert made.condition("Stalled")[0] == "True"
    assert made.pass_time(60) == ["schedule m"]
