"""What a RunConfiguration starts: given a configuration, this happened, these Runs follow."""

from collections.abc import Callable
from typing import Any

import pytest

from kfp_operator.api.names import name_in
from kfp_operator.api.states import RunState
from kfp_operator.reconcile import run_configuration_manual as manual
from kfp_operator.reconcile.run_configuration_triggers import MANUAL, ON_PIPELINE, ON_RUN_SPEC
from tests import builders
from tests.builders import NAMES, at
from tests.doubles.configurations import Rig, completion, recorded

EVERY_MINUTE = {"name": "m", "cronExpression": "* * * * *"}
UPSTREAM = builders.configuration("base", run={"artifacts": [{"name": "model", "path": "trainer:model"}]})
OTHER = "runConfiguration/team/base"
MODEL = {"name": "model", "valueFrom": {"runConfigurationRef": {"name": "base", "outputArtifact": "model"}}}
OPTIONAL = {"name": "model", "valueFrom": {"runConfigurationRef": {"name": "base", "outputArtifact": "model", "optional": True}}}


def rig(*others: Any, run: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **spec: Any) -> Rig:
    """A configuration that has been looked at once."""
    made = Rig(builders.configuration(run=run, status=status, **spec), *others)
    assert made.settle() == []
    return made


def following(*others: Any, **spec: Any) -> Rig:
    return rig(*(others or (UPSTREAM,)), triggers={"runConfigurations": ["base"]}, **spec)


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


# Suspended


def test_what_happens_while_it_is_suspended_is_passed_over_and_counted() -> None:
    made = following(suspend=True)
    made.edit(triggers={"runConfigurations": ["base"], "onChange": ["pipeline", "runSpec"], "schedules": [EVERY_MINUTE]})
    assert made.settle() == []
    made.upstream_ends("team/base", completion(UPSTREAM, "base-1"), completion(UPSTREAM, "base-2"))
    made.publish("aaaaaa")
    made.edit(run={"experimentName": "other"})
    writes = made.writes
    assert made.pass_time(600) == []
    assert made.writes - writes <= 2, "a tick while suspended is not worth a write"
    assert made.condition()[:2] == ("True", "Suspended")
    made.edit(suspend=False)
    assert made.settle() == []
    suppressed = {name: made.entry(name).suppressed for name in (OTHER, ON_PIPELINE, ON_RUN_SPEC, "schedule/m")}
    assert suppressed == {OTHER: 2, ON_PIPELINE: 1, ON_RUN_SPEC: 1, "schedule/m": 10}
    made.upstream_ends("team/base", completion(UPSTREAM, "base-3"))
    assert made.settle() == ["runConfiguration base"]
    assert made.pass_time(60) == ["schedule m"]


def test_what_waits_when_it_is_suspended_is_passed_over_too() -> None:
    made = following(concurrencyPolicy="QueueLatest")
    made.upstream_ends("team/base", completion(UPSTREAM, "base-1"))
    assert made.settle() == ["runConfiguration base"]
    made.upstream_ends("team/base", completion(UPSTREAM, "base-2"))
    assert made.settle() == []
    made.edit(suspend=True)
    made.settle()
    made.edit(suspend=False)
    made.end_all()
    assert made.settle() == []
    assert made.entry(OTHER).suppressed == 1


# Other RunConfigurations


def test_each_success_of_another_configuration_starts_a_run() -> None:
    made = following()
    made.upstream_ends("team/base", completion(UPSTREAM, "base-1"))
    assert made.settle() == ["runConfiguration base"]
    made.upstream_ends("team/base", completion(UPSTREAM, "base-2", state="failed"), completion(UPSTREAM, "base-3", state="stopped"))
    assert made.settle() == []
    made.upstream_ends("team/base", completion(UPSTREAM, "base-4"), completion(UPSTREAM, "base-5"), completion(UPSTREAM, "base-6"))
    assert made.settle() == ["runConfiguration base"] * 3


def test_a_success_that_is_told_again_starts_nothing() -> None:
    made = following()
    first, second = completion(UPSTREAM, "base-1"), completion(UPSTREAM, "base-2", seconds=1)
    for ends in ([first], [second], [first], [first, second]):
        made.upstream_ends("team/base", *ends)
        made.restart()
        made.settle()
    assert len(made.runs) == 2


def test_a_run_that_succeeds_at_another_attempt_starts_another() -> None:
    made = following()
    made.upstream_ends("team/base", completion(UPSTREAM, "base-1"), completion(UPSTREAM, "base-1", attempt=2, seconds=9))
    assert len(made.settle()) == 2


def test_more_ends_than_the_other_one_remembers_are_counted() -> None:
    made = following()
    made.upstream_ends("team/base", *(completion(UPSTREAM, f"base-{n}", seconds=n) for n in range(70)))
    assert len(made.settle()) == 50
    assert made.entry(OTHER).suppressed == 20
    made.upstream_ends("team/base", completion(UPSTREAM, "base-70", seconds=70))
    assert len(made.settle()) == 1


def test_to_make_the_other_configuration_again_starts_nothing_but_its_new_successes_do() -> None:
    made = following()
    made.upstream_ends("team/base", completion(UPSTREAM, "base-1"))
    made.settle()
    made.others.clear()
    assert made.settle() == []
    assert made.condition()[:2] == ("False", "RunConfigurationNotFound")
    again = builders.configuration("base", uid="uid-again", created=100)
    made.others["team/base"] = again
    assert made.settle() == []
    made.upstream_ends("team/base", completion(again, "base-2", seconds=200))
    assert made.settle() == ["runConfiguration base"]


def test_successes_that_come_with_a_restored_configuration_start_nothing() -> None:
    made = following()
    restored = recorded(UPSTREAM, *(completion(UPSTREAM, f"base-{n}", seconds=n) for n in range(5)))
    metadata = restored.metadata.model_copy(update={"uid": "uid-restored", "creation_timestamp": at(1000)})
    made.others["team/base"] = restored.model_copy(update={"metadata": metadata})
    assert made.settle() == []
    made.upstream_ends("team/base", completion(made.others["team/base"], "base-9", seconds=2000))
    assert made.settle() == ["runConfiguration base"]


def test_the_other_configuration_may_be_made_after_the_one_that_follows_it() -> None:
    made = Rig(builders.configuration(triggers={"runConfigurations": ["base"]}))
    assert made.settle() == []
    made.others["team/base"] = recorded(UPSTREAM, completion(UPSTREAM, "base-1", seconds=5))
    assert made.settle() == ["runConfiguration base"]


def test_a_journal_that_was_set_back_starts_nothing_twice() -> None:
    made = following()
    made.upstream_ends("team/base", *(completion(UPSTREAM, f"base-{n}", seconds=n) for n in range(5)))
    made.settle()
    made.others["team/base"] = recorded(UPSTREAM, *(completion(UPSTREAM, f"base-{n}", seconds=n) for n in range(2)))
    assert made.settle() == []
    made.upstream_ends("team/base", *(completion(UPSTREAM, f"base-{n}", seconds=n) for n in range(2, 6)))
    assert made.settle() == ["runConfiguration base"], "the one that is new"


def test_a_configuration_of_another_namespace_must_allow_it() -> None:
    other = builders.configuration("base", namespace="shared")
    made = rig(other, triggers={"runConfigurations": ["shared/base"]})
    made.upstream_ends("shared/base", completion(other, "base-1"))
    assert made.settle() == []
    status, reason, message = made.condition()
    assert (status, reason) == ("False", "ReferenceForbidden")
    assert "spec.allowedNamespaces" in message
    allowing = builders.configuration("base", namespace="shared", allowedNamespaces=["team"])
    made.others["shared/base"] = made.others["shared/base"].model_copy(update={"spec": allowing.spec})
    assert made.settle() == [], "what it did before is nobody's business"
    made.upstream_ends("shared/base", completion(other, "base-2"))
    assert made.settle() == ["runConfiguration base"]
    assert made.manifests[-1]["metadata"]["labels"][NAMES.trigger_source_namespace] == "shared"
    assert made.condition()[0] == "True"


# Loops


@pytest.mark.parametrize(
    ("own", "others", "path"),
    [
        (["team/nightly"], {}, "team/nightly starts team/nightly"),
        (["base"], {"base": ["nightly"]}, "team/nightly starts team/base starts team/nightly"),
        (
            ["base"],
            {"base": ["middle"], "middle": ["nightly"]},
            "team/nightly starts team/middle starts team/base starts team/nightly",
        ),
    ],
)
def test_configurations_that_would_start_each_other_for_ever_are_told_so(own: list[str], others: dict[str, list[str]], path: str) -> None:
    made = Rig(
        builders.configuration(triggers={"runConfigurations": own, "schedules": [EVERY_MINUTE]}),
        *(builders.configuration(name, triggers={"runConfigurations": follows}) for name, follows in others.items()),
    )
    made.settle()
    status, reason, message = made.condition("Stalled")
    assert (status, reason) == ("True", "TriggerLoop")
    assert path in message
    if "team/base" in made.others:
        made.upstream_ends("team/base", completion(made.others["team/base"], "base-1"))
    assert made.settle() == []
    assert made.pass_time(60) == ["schedule m"], "other triggers go on"


def test_a_loop_of_others_is_not_ones_own() -> None:
    made = rig(
        builders.configuration("base", triggers={"runConfigurations": ["middle"]}),
        builders.configuration("middle", triggers={"runConfigurations": ["base"]}),
        triggers={"runConfigurations": ["base"]},
    )
    assert made.condition()[0] == "True"


# Parameters


def test_an_artifact_of_another_configuration_becomes_a_plain_value() -> None:
    made = following(run={"parameters": [{"name": "epochs", "value": 3}, MODEL]})
    assert made.condition()[:2] == ("False", "ArtifactNotFound")
    made.upstream_ends("team/base", completion(UPSTREAM, "base-1", artifacts={"model": "gs://b/1"}))
    assert made.settle() == ["runConfiguration base"]
    assert made.parameters() == {"epochs": 3, "model": "gs://b/1"}
    assert made.manifests[-1]["metadata"]["annotations"][NAMES.upstream_run] == "team/base-1"
    [dependency] = made.configuration.status.dependencies
    assert (dependency.name, dependency.provider_id, dependency.artifacts[0].location) == ("team/base", "id-base-1", "gs://b/1")
    assert made.condition()[0] == "True"


def test_a_required_parameter_that_is_missing_makes_it_wait_and_say_so() -> None:
    made = rig(UPSTREAM, run={"parameters": [MODEL]}, triggers={"schedules": [EVERY_MINUTE]})
    status, reason, message = made.condition()
    assert (status, reason) == ("False", "ArtifactNotFound")
    assert "parameter model: waits for the first run of RunConfiguration team/base that succeeds" in message
    assert made.condition("Reconciling")[0] == "True"
    assert made.pass_time(300) == []
    assert "parameter model" in made.entry("schedule/m").message
    made.upstream_ends("team/base", completion(UPSTREAM, "base-1", artifacts={"model": "gs://b/1"}))
    assert made.settle() == ["schedule m"]
    assert made.entry("schedule/m").message == ""


def test_an_optional_parameter_that_is_missing_is_left_out() -> None:
    made = rig(run={"parameters": [{"name": "epochs", "value": 3}, OPTIONAL]}, triggers={"schedules": [EVERY_MINUTE]})
    assert made.condition()[0] == "True"
    assert made.pass_time(60) == ["schedule m"]
    assert made.parameters() == {"epochs": 3}


def test_a_run_takes_what_the_run_it_follows_produced_though_a_later_one_ended_since() -> None:
    made = following(run={"parameters": [MODEL]})
    ends = [completion(UPSTREAM, f"base-{n}", seconds=n, artifacts={"model": f"gs://b/{n}"}) for n in (1, 2, 3)]
    for n, end in enumerate(ends, start=1):
        made.produced[f"team/base-{n}"] = recorded(UPSTREAM, end).status.latest_runs.succeeded  # type: ignore[assignment]
    made.upstream_ends("team/base", *ends)
    made.settle()
    assert [made.parameters(n)["model"] for n in range(3)] == ["gs://b/1", "gs://b/2", "gs://b/3"]


def test_the_latest_stands_for_a_run_that_is_gone() -> None:
    made = following(run={"parameters": [MODEL]})
    made.upstream_ends("team/base", *(completion(UPSTREAM, f"base-{n}", seconds=n, artifacts={"model": f"gs://b/{n}"}) for n in (1, 2)))
    made.settle()
    assert [made.parameters(n)["model"] for n in range(2)] == ["gs://b/2", "gs://b/2"]


def test_one_that_needs_its_own_artifacts_says_how_to_begin() -> None:
    own = {"name": "warm", "valueFrom": {"runConfigurationRef": {"name": "nightly", "outputArtifact": "model"}}}
    made = rig(run={"parameters": [own], "artifacts": [{"name": "model", "path": "trainer:model"}]})
    status, reason, message = made.condition("Stalled")
    assert (status, reason) == ("True", "ArtifactNotFound")
    assert "kfp-operator runs start nightly --parameter warm=VALUE" in message
    made.annotate(manual.write(manual.Start("1", parameters={"warm": "gs://first"})))
    assert made.settle() == ["manual nightly"]
    assert made.parameters() == {"warm": "gs://first"}
    made.configuration = recorded(made.configuration, completion(made.configuration, "nightly-1", artifacts={"model": "gs://b/1"}))
    made.settle()
    assert made.condition()[0] == "True"
    made.annotate("2")
    made.settle()
    assert made.parameters() == {"warm": "gs://b/1"}


# By hand


def test_a_start_by_hand_starts_one_run_even_while_suspended() -> None:
    made = rig(suspend=True)
    made.annotate("one")
    assert made.settle() == ["manual nightly"]
    made.restart()
    assert made.settle() == []
    made.annotate("two")
    assert made.settle() == ["manual nightly"]
    made.annotate("")
    assert made.settle() == []
    made.annotate("two")
    assert made.settle() == [], "it had that"
    assert len(made.runs) == 2


def test_parameters_of_a_start_by_hand_take_the_place_of_the_templates() -> None:
    made = rig(run={"parameters": [{"name": "epochs", "value": 3}, {"name": "rate", "value": "0.1"}]})
    made.annotate(manual.write(manual.Start("a", parameters={"epochs": 9, "more": [1]})))
    made.settle()
    assert made.parameters() == {"rate": "0.1", "epochs": 9, "more": [1]}
    made.annotate("b")
    made.settle()
    assert made.parameters() == {"epochs": 3, "rate": "0.1"}


@pytest.mark.parametrize(
    ("annotation", "starts"),
    [
        ("word", 0),
        (manual.write(manual.Start("1")), 0),
        (manual.write(manual.Start("1", uid="uid-of-another")), 0),
        (manual.write(manual.Start("1", uid="uid-nightly")), 1),
    ],
)
def test_an_annotation_that_came_with_the_object_starts_nothing_unless_it_means_this_very_one(annotation: str, starts: int) -> None:
    made = Rig(builders.configuration(annotations={NAMES.start: annotation}))
    assert len(made.settle()) == starts
    assert made.settle() == []


def test_an_annotation_that_is_too_long_is_refused_once() -> None:
    made = rig()
    made.annotate("x" * 5000)
    assert made.settle() == []
    assert "4096" in made.entry(MANUAL).message
    writes = made.writes
    made.settle()
    assert made.writes == writes


# Policies


def test_with_allow_all_run_side_by_side() -> None:
    made = following()
    made.upstream_ends("team/base", *(completion(UPSTREAM, f"base-{n}") for n in range(3)))
    made.settle()
    assert len(made.active) == 3
    assert [run.name for run in made.configuration.status.active] == sorted(made.active)


def test_with_forbid_what_happens_while_one_runs_starts_nothing_and_is_counted() -> None:
    made = following(concurrencyPolicy="Forbid")
    made.upstream_ends("team/base", *(completion(UPSTREAM, f"base-{n}") for n in range(3)))
    assert len(made.settle()) == 1
    assert made.entry(OTHER).suppressed == 2
    assert "Forbid" in made.entry(OTHER).message
    made.end_all()
    assert made.settle() == []
    made.upstream_ends("team/base", completion(UPSTREAM, "base-9"))
    assert len(made.settle()) == 1


def test_with_replace_the_others_are_stopped_first() -> None:
    made = following(concurrencyPolicy="Replace")
    made.upstream_ends("team/base", completion(UPSTREAM, "base-1"))
    made.settle()
    [first] = made.active
    made.upstream_ends("team/base", completion(UPSTREAM, "base-2"))
    assert len(made.settle()) == 1
    assert made.runs[first].stopping
    assert [run.name for run in made.runs.values() if not run.stopping] != [first]


def test_with_queue_latest_the_latest_waits_for_the_one_that_runs() -> None:
    made = following(concurrencyPolicy="QueueLatest")
    for n in range(4):
        made.upstream_ends("team/base", completion(UPSTREAM, f"base-{n}", seconds=n))
        made.settle()
    assert len(made.active) == 1
    entry = made.entry(OTHER)
    assert entry.pending == ["base-3/uid-base-3/1"]
    assert entry.suppressed == 2
    made.restart()
    made.end_all()
    assert made.settle() == ["runConfiguration base"]
    assert made.entry(OTHER).pending == []


def test_a_start_by_hand_keeps_its_place_in_the_queue() -> None:
    made = following(concurrencyPolicy="QueueLatest")
    made.annotate("one")
    assert made.settle() == ["manual nightly"]
    made.annotate("two")
    made.settle()
    made.upstream_ends("team/base", completion(UPSTREAM, "base-1"))
    made.settle()
    made.end_all()
    assert made.settle() == ["manual nightly"]


# Limits


def test_history_limits_delete_the_oldest_that_ended() -> None:
    made = rig(triggers={"schedules": [EVERY_MINUTE]}, successfulRunsHistoryLimit=2, failedRunsHistoryLimit=1)
    for minute in range(6):
        made.pass_time(60)
        [name] = made.active
        made.end(name, RunState.FAILED if minute % 2 else RunState.SUCCEEDED)
        made.settle()
    kept = [run.state for run in made.runs.values()]
    assert sorted(kept) == [RunState.FAILED, RunState.SUCCEEDED, RunState.SUCCEEDED]


def test_without_limits_all_are_kept() -> None:
    made = rig(triggers={"schedules": [EVERY_MINUTE]})
    for _ in range(10):
        made.pass_time(60)
        made.end_all()
    made.settle()
    assert len(made.runs) == 10


# What is refused, and what is lost


def test_a_quota_that_refuses_runs_delays_and_loses_none() -> None:
    made = following()
    made.refuse = "exceeded quota"
    made.upstream_ends("team/base", *(completion(UPSTREAM, f"base-{n}") for n in range(30)))
    assert made.pass_time(600) == []
    assert made.condition()[:2] == ("False", "RunRefused")
    assert "exceeded quota" in made.condition()[2]
    made.restart()
    made.refuse = ""
    assert len(made.pass_time(600)) == 30
    assert made.condition()[0] == "True"
    assert made.entry(OTHER).pending == []


def test_more_than_a_thousand_that_wait_are_counted_and_not_kept() -> None:
    made = following()
    made.refuse = "exceeded quota"
    for n in range(0, 1010, 10):
        made.upstream_ends("team/base", *(completion(UPSTREAM, f"base-{n + more}", seconds=n + more) for more in range(10)))
        made.settle()
    entry = made.entry(OTHER)
    assert (len(entry.pending), entry.suppressed) == (1000, 10)
    assert entry.pending[0].startswith("base-0/"), "the oldest are kept"


def test_a_run_that_exists_is_not_made_again_by_who_finds_its_occurrence_pending() -> None:
    made = following()
    made.upstream_ends("team/base", completion(UPSTREAM, "base-1"))
    while not made.runs:
        made._step()
    made.restart()  # after the Run was made, before that was noted
    made.settle()
    assert len(made.manifests) == 1
    assert made.entry(OTHER).pending == []
    assert made.entry(OTHER).last_run == made.manifests[0]["metadata"]["name"]


def test_a_run_that_ended_and_is_gone_is_not_made_again() -> None:
    made = following()
    made.upstream_ends("team/base", completion(UPSTREAM, "base-1"))
    while not made.runs:
        made._step()
    [name] = made.runs
    made.restart()
    made.runs.clear()
    made.configuration = recorded(made.configuration, completion(made.configuration, name))
    assert made.settle() == []
    assert made.entry(OTHER).pending == []


def test_many_starts_cost_few_writes() -> None:
    made = following()
    made.upstream_ends("team/base", *(completion(UPSTREAM, f"base-{n}") for n in range(40)))
    writes = made.writes
    assert len(made.settle()) == 40
    assert made.writes - writes <= 4


def test_a_restart_writes_nothing() -> None:
    made = following(run={"parameters": [OPTIONAL]}, suspend=False)
    made.edit(triggers={"runConfigurations": ["base"], "onChange": ["pipeline", "runSpec"], "schedules": [EVERY_MINUTE]})
    made.upstream_ends("team/base", completion(UPSTREAM, "base-1", artifacts={"model": "gs://b/1"}))
    made.annotate("once")
    made.pass_time(90)
    writes = made.writes
    made.restart()
    made.settle()
    assert made.writes == writes


def test_a_tick_costs_two_writes() -> None:
    made = rig(triggers={"schedules": [EVERY_MINUTE]})
    writes = made.writes
    made.pass_time(600)
    assert made.writes - writes == 20


def test_the_status_says_what_it_is_about() -> None:
    made = rig()
    status = made.configuration.status
    assert (status.provider, status.pipeline_version, status.observed_generation) == ("mlops/local", builders.VERSION, 1)
    assert (status.synchronization_state, len(status.version)) == ("Succeeded", 6)
    made.edit(run={"experimentName": "other"})
    made.settle()
    assert made.configuration.status.version != status.version
    assert made.configuration.status.observed_generation == 2


def test_a_status_of_the_go_operator_is_read_and_starts_nothing() -> None:
    status = {
        "provider": {"name": "mlops/local"},
        "latestRuns": {"succeeded": {"providerId": "0b9c", "artifacts": [{"name": "model", "location": "gs://b/7"}]}},
        "dependencies": {"pipeline": {"version": "v1-49e208"}, "runConfigurations": {"team/base": {"providerId": "77aa"}}},
        "triggers": {
            "pipeline": {"version": "v1-49e208"},
            "runSpec": {"version": "77a440"},
            "runConfigurations": {"base": {"providerId": "77aa"}},
        },
        "observedGeneration": 3,
    }
    triggers = {"onChange": ["pipeline", "runSpec"], "runConfigurations": ["base"]}
    made = rig(UPSTREAM, status=status, triggers=triggers)
    assert made.configuration.status.latest_runs.succeeded is not None
    assert made.configuration.status.latest_runs.succeeded.provider_id == "0b9c"
    made.publish("aaaaaa")
    assert made.settle() == ["onChangePipeline train"]
