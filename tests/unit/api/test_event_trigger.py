"""Event triggers as a part of resources: complete, bounded, and as strict as what they become."""

import re
from typing import Any, get_args

import pytest

from kfp_operator.api.event_trigger import EventsStatus, EventTrigger, KindName
from kfp_operator.api.schema import structural
from kfp_operator.schemas import RefType, V1EventKind, V1EventTrigger
from tests.unit.api.test_crd import fields

SCHEMA = structural(EventTrigger.model_json_schema(by_alias=True))


def rules(part: dict[str, Any]) -> list[dict[str, str]]:
    return part.get("x-kubernetes-validations", [])


@pytest.mark.parametrize(
    ("path", "part"),
    [
        *fields(SCHEMA, "trigger"),
        *fields(structural(EventsStatus.model_json_schema(by_alias=True), defaults=False), "status"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_field_is_described_and_bounded(path: str, part: dict[str, Any]) -> None:
    if "." in path and not path.endswith("[]"):
        assert part["description"].endswith(".")
    match part.get("type"):
        case "string":
            assert part.get("format") == "date-time" or "enum" in part or "maxLength" in part
        case "array":
            assert "maxItems" in part
            assert part["x-kubernetes-list-type"] == "atomic"
        case "object":
            assert "properties" in part
    assert not [rule for rule in rules(part) if len(rule["message"]) < 20 or "\n" in rule["message"]]


def test_the_kinds_are_all_kinds_and_the_other_word_for_starting() -> None:
    names = get_args(KindName)
    assert len(names) == len(set(names)) == 33
    assert {V1EventKind(name) for name in names} == set(V1EventKind)
    assert set(names) - {kind.value for kind in V1EventKind} == {"run_status_initializing"}


def pattern() -> re.Pattern[str]:
    found = re.fullmatch(r"self\.matches\('(.*)'\)", rules(SCHEMA["properties"]["ref"])[0]["rule"])
    assert found is not None
    return re.compile(found[1].replace("\\\\", "\\"))


@pytest.mark.parametrize("kind", RefType)
@pytest.mark.parametrize("form", ["{}.a", "{{{{ {}.a-b }}}}", " {}.a1 ", "{{{{{}.a.b}}}}"])
def test_the_api_server_takes_every_reference_that_is_one(kind: RefType, form: str) -> None:
    for word in (kind.value, kind.value.lower(), kind.value.upper()):
        text = form.format(word)
        assert pattern().fullmatch(text)
        assert EventTrigger(ref=text, kinds=[kind.kinds[0].value]).parsed().reference.type is kind


@pytest.mark.parametrize(
    "text", ["", "ops", "ops.", "a.b", "runs.A", "runs.a b", "runs.a/b", "{ runs.a }", "runs.a;", "runConfigurations./a"]
)
def test_the_api_server_takes_no_other_reference(text: str) -> None:
    assert not pattern().fullmatch(text)


def test_it_becomes_the_trigger_that_users_write_in_python() -> None:
    stored = {
        "ref": "{{ runConfigurations.a/b }}",
        "kinds": ["run_status_initializing"],
        "name": "x",
        "filter": "true",
        "startFrom": "Latest",
    }
    assert EventTrigger.model_validate(stored).parsed() == V1EventTrigger.from_dict(stored)


def test_what_cel_lets_pass_is_refused_when_it_is_understood() -> None:
    with pytest.raises(ValueError, match=r"is not a name as in runs\.NAME"):
        EventTrigger(ref="runs.a-", kinds=["run_status_done"]).parsed()
