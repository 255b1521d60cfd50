"""What starts a Run and what does not: other configurations, people, and what suspension makes of all that."""

import pytest

from kfp_operator.reconcile import run_configuration_manual as manual
from kfp_operator.reconcile.run_configuration_triggers import MANUAL, ON_PIPELINE, ON_RUN_SPEC
from tests import builders
from tests.builders import NAMES, at
from tests.doubles.configurations import EVERY_MINUTE, OTHER, UPSTREAM, Rig, completion, following, recorded, rig

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
