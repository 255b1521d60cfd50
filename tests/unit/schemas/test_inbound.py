import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from kfp_operator.events.schemas import schema
from kfp_operator.schemas import InboundEvent, V1EventKind
from kfp_operator.schemas.inbound import MAX_INBOUND_BYTES


def inbound(**changes: Any) -> InboundEvent:
    return InboundEvent.model_validate({"ref": "connections.git", "kind": "connection_git_commit"} | changes)


def test_further_members_are_kept_as_they_are() -> None:
    event = inbound(commit="0a1b", payload={"head_commit": {"author": None}}, dag_name="d")
    assert event.payload == {"commit": "0a1b", "payload": {"head_commit": {"author": None}}, "dag_name": "d"}
    assert json.loads(event.model_dump_json(by_alias=True)) == {"ref": "connections.git", "kind": "connection_git_commit", **event.payload}


def test_its_reference_is_kept_bare() -> None:
    assert inbound(ref="{{ connections.git }}").ref == "connections.git"


def test_the_kinds_from_outside_are_those_that_no_run_tells() -> None:
    document = schema("event")
    assert document["properties"]["kind"]["enum"] == [kind.value for kind in V1EventKind if not kind.internal]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"kind": "run_status_succeeded"}, "Input should be"),
        ({"kind": "run_approved_actor"}, "Input should be"),
        ({"kind": "alert_info"}, "alert_info can never come from connections.git; what can: connection_git_commit"),
        ({"ref": "runs.train"}, "connection_git_commit can never come from runs.train"),
        ({"ref": "git"}, "accepted: ops.NAME"),
        ({"payload": "a" * MAX_INBOUND_BYTES}, "65536 are allowed"),
    ],
)
def test_what_cannot_be_is_refused(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  what it says is checked
        inbound(**data)
    assert said in str(caught.value)


def test_its_size_is_that_of_its_compact_json() -> None:
    room = MAX_INBOUND_BYTES - len('{"ref":"connections.git","kind":"connection_git_commit","payload":""}')
    assert inbound(payload="a" * room)
    assert inbound(payload="ä" * (room // 2))
    with pytest.raises(ValueError, match="65537 bytes"):
        inbound(payload="a" * (room + 1))


def test_it_satisfies_its_schema() -> None:
    document = schema("event")
    Draft202012Validator.check_schema(document)
    Draft202012Validator(document).validate(json.loads(inbound(commit="0a1b", nested=[{"a": 1}]).model_dump_json(by_alias=True)))
    assert not Draft202012Validator(document).is_valid({"ref": "connections.git", "kind": "run_status_done"})
