"""Runs pipelines on Kubeflow Pipelines, servers 2.0 and later, over its REST API.

`client` and `api` are the way to the server, `authentication` and `limiter` what each request passes; `pipelines`, `experiments` and
`submit` make things there, once; `watch` (with `hints` from Argo's Workflows) and `observe` notice what becomes of runs, `reading`,
`states` and `failures` say what it means; `artifacts` reads what they produced, from `mlmd` or `artifact_api`; `provider` is all of it.
"""

from pydantic import BaseModel

from kfp_operator.errors import InvalidSpec
from kfp_operator.providers.kubeflow.parameters import KubeflowParameters
from kfp_operator.providers.kubeflow.provider import KubeflowProvider
from kfp_operator.providers.protocol import Provider, ProviderConfig


class KubeflowProviderType:
    """Entry point `kubeflow`."""

    parameters: type[BaseModel] = KubeflowParameters
    in_cluster = True

    def open(self, config: ProviderConfig) -> Provider:
        """A provider that connects when it is first used."""
        if not isinstance(config.parameters, KubeflowParameters):
            raise InvalidSpec(f"parameters of another type: {type(config.parameters).__name__}", field="spec.parameters")
        return KubeflowProvider(config, config.parameters)


__all__ = ["KubeflowParameters", "KubeflowProvider", "KubeflowProviderType"]
