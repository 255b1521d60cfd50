"""The examples of Polyaxon's documentation of events, each as printed there. Where one is incomplete, the test says what it adds."""

import textwrap

from kfp_operator.schemas import V1EventKind, V1EventTrigger

RUNNING_UPSTREAM = V1EventTrigger(ref="ops.upstream-operation", kinds=[V1EventKind.RUN_STATUS_RUNNING])
COMMIT = V1EventTrigger(ref="connections.git-repo-connection-name", kinds=[V1EventKind.CONNECTION_GIT_COMMIT])

YAML_OF_AN_OPERATION = """
events:
  ref: {{ ops.upstream-operation }}
  kinds: [run_status_running]
"""

YAML_OF_A_COMMIT = """
event:
  ref: {{ connections.git-repo-connection-name }}
  kinds: [connection_git_commit]
"""

PYTHON = """
from polyaxon.schemas import V1EventKind, V1EventTrigger
event1 = V1EventTrigger(
    ref="{{ ops.upstream-operation }}",
    kinds=[V1EventTrigger.RUN_STATUS_RUNNING],
)
event2 = V1EventTrigger(
    ref="{{ connections.git-repo-connection-name }}",
    kinds=[V1EventTrigger.CONNECTION_GIT_COMMIT],
)
"""

YAML_OF_KINDS = """
event:
  kinds: [run_status_running, run_status_done]
"""

YAML_OF_A_REF = """
event:
  ref: ops.upstream_operation_name
"""

YAML_OF_A_DEPENDENCY = """
- name: job3
  hubRef: "component:version"
  events:
    - ref: ops.job2
     kinds: [run_status_running]
"""


def test_an_operation_that_runs() -> None:
    assert V1EventTrigger.from_yaml(YAML_OF_AN_OPERATION) == RUNNING_UPSTREAM


def test_a_commit() -> None:
    assert V1EventTrigger.from_yaml(YAML_OF_A_COMMIT) == COMMIT


def test_both_in_python() -> None:
    """Changed: the package that is imported from."""
    for package in ("kfp_operator.schemas", "kfp_operator"):
        names: dict[str, object] = {}
        exec(PYTHON.replace("polyaxon.schemas", package), names)  # noqa: S102  the example above
        assert names["event1"] == RUNNING_UPSTREAM
        assert names["event2"] == COMMIT


def test_several_kinds() -> None:
    """Added: a reference, which the example leaves out."""
    found = V1EventTrigger.from_yaml(YAML_OF_KINDS + "  ref: ops.upstream-operation\n")
    assert found.kinds == [V1EventKind.RUN_STATUS_RUNNING, V1EventKind.RUN_STATUS_DONE]


def test_a_bare_reference_with_underscores() -> None:
    """Added: kinds, which the example leaves out."""
    found = V1EventTrigger.from_yaml(YAML_OF_A_REF + "  kinds: [run_status_running]\n")
    assert found.ref == "ops.upstream_operation_name"


def test_an_event_instead_of_a_dependency() -> None:
    """Changed: `kinds` is moved below `ref` by one column, without which it is no YAML. Left out: the operation around `events`."""
    repaired = YAML_OF_A_DEPENDENCY.replace("     kinds", "      kinds")
    events = textwrap.dedent(repaired[repaired.index("  events:") :])
    assert V1EventTrigger.from_yaml(events) == V1EventTrigger(ref="ops.job2", kinds=["run_status_running"])
