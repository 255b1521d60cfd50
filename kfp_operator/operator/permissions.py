"""Everything the operator does at the API server, as permissions: what `doctor` asks for, and what RBAC manifests are made from.

A verb that is missing here is a defect that shows in clusters where the operator has only these rights; a verb too many is a right
that every installation gives away. Of the core group, nothing but ConfigMaps that Pipelines name is read, and Events are written.
What a Provider needs that only some have is asked for where it is (`of_provider`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from kfp_operator.api.names import GO_GROUP
from kfp_operator.api.provider import Provider
from kfp_operator.operator.resources import (
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    CUSTOM_RESOURCE_DEFINITIONS,
    EVENTS,
    LEASES,
    SECRETS,
    WORKFLOWS,
    Kinds,
    Resource,
)
from kfp_operator.providers.kubeflow.parameters import KubeflowParameters


class Scope(StrEnum):
    """Where a permission is needed."""

    SERVED = "served"
    """In the namespaces that are served: a ClusterRole when all are, else a Role in each."""
    LEASE = "lease"
    """In the namespace of the leader's Lease."""
    CLUSTER = "cluster"
    """For objects without a namespace."""
    PROVIDER = "provider"
    """In a namespace that a Provider names, see `of_provider`."""


@dataclass(frozen=True, slots=True)
class Permission:
    """Verbs on a resource, and what for."""

    resource: Resource
    verbs: tuple[str, ...]
    why: str
    subresource: str = ""
    scope: Scope = Scope.SERVED
    required: bool = True
    """False: the operator works without it, and says less."""

    @property
    def title(self) -> str:
        """As in ``kubectl auth can-i``: ``runs.kfp-operator.dev/status``."""
        return f"{self.resource.title}/{self.subresource}" if self.subresource else self.resource.title


def permissions(kinds: Kinds, *, leader_election: bool = True) -> tuple[Permission, ...]:
    """All permissions under an API group."""
    watched = ("get", "list", "watch", "patch")
    own = (
        Permission(kinds.provider, watched, "follow Providers, hold them while they are used"),
        Permission(kinds.pipeline, watched, "follow Pipelines, hold them until the backend let them go"),
        Permission(kinds.experiment, watched, "follow Experiments, hold them until the backend let them go"),
        Permission(kinds.run_configuration, ("get", "list", "watch"), "follow RunConfigurations"),
        Permission(kinds.run_schedule, watched if kinds.group == GO_GROUP else ("get", "list", "watch"), "follow RunSchedules"),
        Permission(
            kinds.run,
            (*watched, "create", "delete"),
            "follow Runs, start those of schedules and configurations, hold them until their end is told, delete those no longer kept",
        ),
    )
    status = tuple(Permission(kind, ("patch",), "say how far it is", subresource="status") for kind in kinds.all)
    lease = Permission(LEASES, ("get", "create", "patch"), "elect a leader, keep its cursors", scope=Scope.LEASE)
    return (
        *own,
        *status,
        Permission(CONTROLLER_REVISIONS, ("get", "list", "create", "delete"), "keep the versions of Pipelines"),
        Permission(CONFIG_MAPS, ("get",), "read compiled pipelines (spec.pipelineSpecFrom)"),
        Permission(EVENTS, ("create", "patch"), "tell in kubectl describe what happened"),
        *((lease,) if leader_election else ()),
        Permission(CUSTOM_RESOURCE_DEFINITIONS, ("get",), "compare the CRDs with this version", scope=Scope.CLUSTER, required=False),
    )


def of_provider(provider: Provider) -> tuple[tuple[Permission, str], ...]:
    """What the type of a Provider needs beside the rest, and in which namespace: a right that only those give away who use it."""
    if provider.spec.type != "kubeflow":
        return ()
    try:
        parameters = KubeflowParameters.model_validate(provider.spec.parameters)
    except ValidationError:
        return ()
    needed: list[tuple[Permission, str]] = []
    if parameters.watch == "Workflows" or parameters.service is not None:
        why = "notice changes at once, say why a step failed, tell a lost submission from one that arrived"
        workflows = Permission(WORKFLOWS, ("list", "watch"), why, scope=Scope.PROVIDER, required=False)
        needed.append((workflows, parameters.workflow_namespace))
    if parameters.authentication.header is not None or parameters.ca_secret_key_ref is not None:
        secrets = Permission(SECRETS, ("get",), "read what spec.parameters names", scope=Scope.PROVIDER)
        needed.append((secrets, provider.metadata.namespace))
    return tuple(needed)


def rules(needed: Iterable[Permission]) -> list[dict[str, Any]]:
    """The permissions as rules of a Role or ClusterRole."""
    return [
        {
            "apiGroups": [permission.resource.group],
            "resources": [
                f"{permission.resource.plural}/{permission.subresource}" if permission.subresource else permission.resource.plural
            ],
            "verbs": list(permission.verbs),
        }
        for permission in needed
    ]
