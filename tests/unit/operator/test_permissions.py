from typing import Any

import pytest

from kfp_operator.api.provider import Provider
from kfp_operator.operator.permissions import Permission, Scope, of_provider, permissions, rules
from kfp_operator.operator.resources import LEASES, Kinds
from tests import builders

NEEDED = permissions(Kinds())


@pytest.mark.parametrize("permission", NEEDED, ids=lambda permission: permission.title)
def test_every_permission_is_explicit_and_says_what_for(permission: Permission) -> None:
    assert permission.why
    assert "*" not in (*permission.verbs, permission.resource.group, permission.resource.plural)


def test_no_secret_is_ever_asked_for() -> None:
    assert not [permission for permission in NEEDED if permission.resource.plural in ("secrets", "pods", "serviceaccounts")]


def test_a_status_is_only_written_and_only_as_a_subresource() -> None:
    status = [permission for permission in NEEDED if permission.subresource == "status"]
    assert [permission.resource for permission in status] == list(Kinds().all)
    assert {permission.verbs for permission in status} == {("patch",)}


def test_every_kind_that_is_watched_may_be_listed_and_watched() -> None:
    followed = [permission.resource for permission in NEEDED if {"get", "list", "watch"} <= set(permission.verbs)]
    assert followed == list(Kinds().all)


def test_only_runs_are_deleted_among_our_kinds() -> None:
    assert [p.resource.plural for p in NEEDED if p.resource in Kinds().all and "delete" in p.verbs] == ["runs"]


def test_rules_speak_of_the_api_group_in_use() -> None:
    assert {rule["apiGroups"][0] for rule in rules(permissions(Kinds("ml.example.org")))} >= {"ml.example.org", "", "apps"}


def test_without_leader_election_no_lease_is_touched() -> None:
    assert not [p for p in permissions(Kinds(), leader_election=False) if p.resource == LEASES or p.scope is Scope.LEASE]


def test_run_schedules_are_changed_only_where_the_go_operator_holds_them() -> None:
    def verbs(group: str) -> tuple[str, ...]:
        kinds = Kinds(group)
        return next(p.verbs for p in permissions(kinds) if p.resource == kinds.run_schedule and not p.subresource)

    assert "patch" not in verbs("kfp-operator.dev")
    assert "patch" in verbs("pipelines.kubeflow.org")


def provider(**parameters: Any) -> Provider:
    document = {"type": "kubeflow", "parameters": {"endpoint": "http://ml-pipeline.kubeflow:8888", **parameters}}
    return builders.provider(spec=document).resource


def asked(**parameters: Any) -> set[tuple[str, tuple[str, ...], str, bool]]:
    return {(p.title, p.verbs, namespace, p.required) for p, namespace in of_provider(provider(**parameters))}


WORKFLOWS = ("workflows.argoproj.io", ("list", "watch"), "kubeflow", False)
HEADER = {"header": {"secretKeyRef": {"name": "kfp", "key": "token"}}}


@pytest.mark.parametrize(
    ("parameters", "needed"),
    [
        ({}, {WORKFLOWS}),
        ({"watch": "Poll"}, {WORKFLOWS}),
        ({"namespace": "team-a"}, {(*WORKFLOWS[:2], "team-a", False)}),
        ({"endpoint": "https://kfp.example.org"}, set()),
        ({"endpoint": "https://kfp.example.org", "watch": "Workflows"}, {WORKFLOWS}),
        ({"authentication": HEADER}, {WORKFLOWS, ("secrets", ("get",), "mlops", True)}),
        ({"caSecretKeyRef": {"name": "ca", "key": "ca.crt"}}, {WORKFLOWS, ("secrets", ("get",), "mlops", True)}),
        ({"nonsense": 1}, set()),
    ],
)
def test_a_provider_needs_rights_of_its_own_only_for_what_it_names(parameters: dict[str, Any], needed: set[Any]) -> None:
    assert asked(**parameters) == needed


def test_a_provider_of_another_type_needs_none() -> None:
    assert of_provider(builders.provider().resource) == ()
