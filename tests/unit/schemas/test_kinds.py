import pytest

from kfp_operator.api.states import RunState
from kfp_operator.schemas import V1EventKind, V1EventTrigger

KINDS = """
run_status_created run_status_resuming run_status_compiled run_status_on_schedule run_status_queued run_status_scheduled
run_status_starting run_status_running run_status_processing run_status_stopping run_status_failed run_status_stopped
run_status_succeeded run_status_skipped run_status_warning run_status_unschedulable run_status_upstream_failed run_status_retrying
run_status_unknown run_status_done run_approved_actor run_invalidated_actor run_new_artifacts connection_git_commit
connection_dataset_version connection_registry_image alert_info alert_warning alert_critical model_version_new_metric
project_custom_event org_custom_event
"""


def test_there_are_the_32_kinds_of_the_documentation() -> None:
    assert [kind.value for kind in V1EventKind] == KINDS.split()
    assert len(V1EventKind) == 32


def test_initializing_is_another_word_for_starting() -> None:
    assert V1EventKind("run_status_initializing") is V1EventKind.RUN_STATUS_STARTING
    assert V1EventKind.RUN_STATUS_INITIALIZING is V1EventKind.RUN_STATUS_STARTING


def test_status_kinds_are_the_states_of_a_run_and_done() -> None:
    assert {kind.state for kind in V1EventKind if kind.state} == {*RunState, "done"}


@pytest.mark.parametrize("name", [*V1EventKind.__members__])
def test_a_trigger_has_every_kind_as_the_examples_write_it(name: str) -> None:
    assert getattr(V1EventTrigger, name) is V1EventKind[name]


def test_kinds_of_runs_are_told_by_the_operator_alone() -> None:
    assert [kind.value for kind in V1EventKind if not kind.internal] == KINDS.split()[23:]
