"""From a Provider resource to an instance of its provider: the one place that says where a provider keeps its state."""

import os
from datetime import datetime
from pathlib import Path

from kfp_operator.api.provider import Provider as ProviderResource
from kfp_operator.errors import InvalidSpec
from kfp_operator.operator.client import Cluster
from kfp_operator.operator.cluster_ports import ClusterSecrets, ClusterWorkflows
from kfp_operator.providers import registry
from kfp_operator.providers.protocol import Provider, ProviderConfig
from kfp_operator.settings import Settings


def state_dir_of(resource: ProviderResource, settings: Settings) -> Path:
    """The folder of this provider's own; names hold no slash, so two providers never share one."""
    return settings.state_dir.expanduser() / "providers" / resource.metadata.namespace / resource.metadata.name


def open_provider(
    resource: ProviderResource, settings: Settings, *, cluster: Cluster | None = None, looked_until: datetime | None = None
) -> Provider:
    """A new instance for the resource; InvalidSpec names what is wrong with its type or parameters.

    `cluster`: where it may look at Workflows and Secrets; `looked_until`: when an operator last looked after the backend.
    """
    spec, namespace = resource.spec, resource.metadata.namespace
    if settings.provider_namespaces and namespace not in settings.provider_namespaces:
        used = ", ".join(settings.provider_namespaces)
        raise InvalidSpec(
            f"Providers in {namespace} are not used: the operator's setting providerNamespaces has only {used}",
            field="metadata.namespace",
            reason="ProviderNamespaceNotUsed",
        )
    provider_type = registry.find(spec.type, enabled=settings.providers.enabled, in_cluster=bool(os.environ.get("KUBERNETES_SERVICE_HOST")))
    config = ProviderConfig(
        namespace=namespace,
        name=resource.metadata.name,
        parameters=registry.parse_parameters(provider_type, spec.parameters),
        pipeline_root=spec.pipeline_root_storage,
        max_active_runs=spec.max_active_runs,
        state_dir=state_dir_of(resource, settings),
        looked_until=looked_until,
        workflows=ClusterWorkflows(cluster) if cluster is not None else None,
        secrets=ClusterSecrets(cluster, namespace) if cluster is not None else None,
    )
    return provider_type.open(config)
