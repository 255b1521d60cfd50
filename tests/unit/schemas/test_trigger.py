import pickle
import subprocess
import sys
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import kfp_operator
from kfp_operator.schemas import RefType, V1EventKind, V1EventTrigger
from kfp_operator.schemas.trigger import trigger_names

RUNNING = V1EventKind.RUN_STATUS_RUNNING
DONE = V1EventKind.RUN_STATUS_DONE


def trigger(**changes: Any) -> V1EventTrigger:
    return V1EventTrigger.from_dict({"ref": "ops.train", "kinds": ["run_status_running"]} | changes)


@pytest.mark.parametrize(
    "other",
    [
        {"ref": "{{ ops.train }}"},
        {"ref": " ops.train "},
        {"kinds": [RUNNING, "run_status_running"]},
        {"filter": "  "},
        {"startFrom": "New"},
        {"name": ""},
    ],
)
def test_triggers_that_mean_the_same_are_equal(other: dict[str, Any]) -> None:
    assert trigger(**other) == trigger()


@pytest.mark.parametrize(
    "other",
    [{"ref": "ops.test"}, {"kinds": [DONE]}, {"filter": "true"}, {"start_from": "Latest"}, {"name": "a"}],
)
def test_triggers_that_mean_something_else_differ(other: dict[str, Any]) -> None:
    assert trigger(**other) != trigger()


def test_kinds_stand_once_and_in_one_order() -> None:
    assert trigger(kinds=["run_status_done", "run_status_initializing", "run_status_done"]).kinds == [V1EventKind.RUN_STATUS_STARTING, DONE]


def test_it_is_written_as_the_resources_have_it() -> None:
    full = V1EventTrigger(ref="{{ runConfigurations.ns/a }}", kinds=[DONE], filter="event.id != ''", name="on-a", start_from="Latest")
    assert full.to_dict() == {
        "ref": "runConfigurations.ns/a",
        "kinds": ["run_status_done"],
        "filter": "event.id != ''",
        "name": "on-a",
        "startFrom": "Latest",
    }
    assert trigger().to_dict() == {"ref": "ops.train", "kinds": ["run_status_running"]}
    assert trigger().to_yaml() == "ref: ops.train\nkinds:\n- run_status_running\n"


@given(
    st.builds(
        V1EventTrigger,
        ref=st.sampled_from(["ops.a_b", "{{ runs.a }}", "pipelines.a.b"]),
        kinds=st.lists(st.sampled_from(RefType.RUNS.kinds), min_size=1),
        filter=st.sampled_from(["", "event.id == '{{ a }}'", 'event.data.x == "ref: {{ ops.x }}"']),
        name=st.sampled_from(["", "on-a"]),
        start_from=st.sampled_from(["New", "Latest"]),
    )
)
def test_what_is_written_reads_the_same_again(one: V1EventTrigger) -> None:
    assert V1EventTrigger.from_dict(one.to_dict()) == one
    assert V1EventTrigger.from_yaml(one.to_yaml()) == one
    assert V1EventTrigger.all_from_yaml(yaml.safe_dump({"events": [one.to_dict()] * 2})) == [one, one]
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301  our own bytes


@pytest.mark.parametrize(
    "text",
    [
        "ref: {{ ops.x }}\nkinds: [run_status_running]",
        "ref: {{ops.x}}   # the trainer\nkinds: [run_status_running]",
        "{ref: {{ ops.x }}, kinds: [run_status_running]}",
        "- ref: {{ ops.x }}\n  kinds: [run_status_running]",
        "-  kinds: [run_status_running]\n   ref: {{ ops.x }}",
        'events:\n- "ref": {{ ops.x }}\n  "kinds": ["run_status_running"]',
        '{"events": [{"ref": "{{ ops.x }}", "kinds": ["run_status_running"]}]}',
        "event:\n  ref: '{{ ops.x }}'\n  kinds: [run_status_running]",
        "ref: ops.x\nkinds:\n- run_status_running",
    ],
)
def test_yaml_is_read_with_and_without_quotes(text: str) -> None:
    assert V1EventTrigger.from_yaml(text) == trigger(ref="ops.x")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"ref": "ops"}, "accepted: ops.NAME"),
        ({"ref": 3}, "valid string"),
        ({"kinds": []}, "name at least one kind"),
        ({"kinds": "run_status_running"}, "valid list"),
        ({"kinds": ["Run_Status_Running"]}, "'Run_Status_Running' is not a kind of event; there are: run_status_created"),
        ({"kinds": ["{{ kind }}"]}, "is not a kind of event"),
        ({"kinds": ["alert_info"]}, "alert_info can never come from ops.train; what can: run_status_created"),
        ({"name": "On Train"}, "'On Train' is not a name"),
        ({"name": "a" * 64}, "at most 63"),
        ({"filter": "a" * 1025}, "has 1025 characters; at most 1024"),
        ({"start_from": "Oldest"}, "'New' or 'Latest'"),
        ({"kind": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_a_mistake_is_told_with_the_accepted_forms(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  what it says is checked
        trigger(**data)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "this is not YAML"),
        ("ref: {{ ops.x }\nkinds: [run_status_running]", "this is not YAML"),
        ("just text", "'just text' is not a trigger"),
        ("", "'None' is not a trigger"),
        ("events: []", "there are 0 triggers"),
        ("- {ref: ops.a, kinds: [run_status_done]}\n- {ref: ops.b, kinds: [run_status_done]}", "there are 2 triggers"),
        ("events:\n  ref: ops.x", "Field required"),
    ],
)
def test_yaml_that_is_not_one_trigger_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  what it says is checked
        V1EventTrigger.from_yaml(text)
    assert said in str(caught.value)


def test_a_trigger_without_a_name_is_named_after_what_it_waits_for() -> None:
    named = trigger_names([trigger(), trigger(name="on-train"), trigger(ref="ops.test"), trigger(kinds=[DONE]), trigger(filter="true")])
    assert named[1] == "on-train"
    assert len(set(named)) == 5
    assert {len(name) for name in named[2:]} == {8}
    assert trigger_names([trigger(ref="{{ ops.train }}", start_from="Latest")]) == named[:1]


@pytest.mark.parametrize(
    ("triggers", "said"),
    [
        ([trigger(), trigger(ref="ops.test"), trigger()], "triggers 0 and 2 are the same"),
        ([trigger(name="a"), trigger(ref="ops.test", name="a")], "triggers 0 and 1 are both named 'a'"),
    ],
)
def test_triggers_of_one_list_are_told_apart(triggers: list[V1EventTrigger], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        trigger_names(triggers)


def test_it_comes_from_the_package_itself_too() -> None:
    assert kfp_operator.V1EventTrigger is V1EventTrigger
    assert kfp_operator.V1EventKind is V1EventKind
    with pytest.raises(AttributeError, match="no attribute 'V1Nothing'"):
        _ = kfp_operator.V1Nothing


def test_it_needs_neither_kopf_nor_a_kubernetes_client_and_the_package_alone_not_even_pydantic() -> None:
    program = """
import sys
import kfp_operator
assert "pydantic" not in sys.modules
from kfp_operator import V1EventTrigger
print(sorted({name.partition(".")[0] for name in sys.modules} & {"kopf", "kubernetes", "nats", "aiohttp", "kfp", "cel_expr_python"}))
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"
