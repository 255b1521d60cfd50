import json
from typing import Any

import pytest
import yaml

from kfp_operator.errors import Permanent
from kfp_operator.providers.kubeflow.template import render

SPEC: dict[str, Any] = {
    "pipelineInfo": {"name": "train"},
    "schemaVersion": "2.1.0",
    "root": {
        "dag": {"tasks": {"a": {"cachingOptions": {"enableCache": True}, "taskInfo": {"name": "a"}}, "b": {"taskInfo": {"name": "b"}}}}
    },
    "components": {
        "comp-a": {"executorLabel": "exec-a"},
        "comp-nested": {"dag": {"tasks": {"c": {"cachingOptions": {}}}}},
    },
}


@pytest.mark.parametrize(
    "value",
    [
        'line\nbreaks\tand "quotes"',
        "\x7f\x80\x85\x9f\u2028\u2029\ufeff\ufffe",
        "Käse 🧀 \U0001f600",
        "no: 1e5, yes, 0o7, 2020-01-01, ~, null, 1_000, <<",
        "",
        1e-07,
        1e16,
        1.5e300,
        0.1,
        -3,
        2**60,
        True,
        None,
        [],
        {},
        {"<<": {"a": 1}, "1": "1"},
    ],
)
def test_any_value_reads_the_same_as_json_and_as_yaml(value: Any) -> None:
    text = render({"value": value, value if isinstance(value, str) else "k": [value]}, None)
    document = {"value": value, value if isinstance(value, str) else "k": [value]}
    assert yaml.safe_load(text) == document
    assert json.loads(text) == document


def test_the_platform_spec_is_a_second_document() -> None:
    platform = {"platforms": {"kubernetes": {}}}
    assert list(yaml.safe_load_all(render(SPEC, platform))) == [SPEC, platform]


@pytest.mark.parametrize("value", ["\ud800", {"k" * 1100: 1}])
def test_what_would_hang_the_server_is_never_sent(value: Any) -> None:
    with pytest.raises(Permanent) as caught:
        render({"value": value}, None)
    assert caught.value.reason == "PipelineNotUploadable"


def test_caching_is_imposed_on_every_task_of_every_dag() -> None:
    off = yaml.safe_load(render(SPEC, None, caching=False))
    tasks = [*off["root"]["dag"]["tasks"].values(), *off["components"]["comp-nested"]["dag"]["tasks"].values()]
    assert [task["cachingOptions"] for task in tasks] == [{}, {}, {}]
    assert off["root"]["dag"]["tasks"]["a"]["taskInfo"] == {"name": "a"}
    assert off["components"]["comp-a"] == {"executorLabel": "exec-a"}
    on = yaml.safe_load(render(SPEC, None, caching=True))
    assert {json.dumps(task["cachingOptions"]) for task in on["root"]["dag"]["tasks"].values()} == {'{"enableCache": true}'}
    assert SPEC["root"]["dag"]["tasks"]["a"]["cachingOptions"] == {"enableCache": True}
