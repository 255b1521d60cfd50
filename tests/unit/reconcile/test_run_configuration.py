"""What becomes of what happened: parameters, policies, limits, refusals, and what is lost."""

import pytest

from kfp_operator.api.states import RunState
from kfp_operator.reconcile import run_configuration_manual as manual
from tests import builders
from tests.builders import NAMES
from tests.doubles.configurations import EVERY_MINUTE, MODEL, OPTIONAL, OTHER, UPSTREAM, completion, following, recorded, rig

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


@pytest.mark.slow
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
