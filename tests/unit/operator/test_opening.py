"""From a Provider resource to an instance of its type."""

from pathlib import Path

import pytest

from kfp_operator.errors import InvalidSpec
from kfp_operator.operator.opening import open_provider
from kfp_operator.providers.kubeflow import KubeflowProvider
from kfp_operator.providers.local import LocalProvider
from kfp_operator.settings import Settings
from tests import builders as b

KUBEFLOW = {"type": "kubeflow", "parameters": {"endpoint": "http://ml-pipeline.kubeflow:8888"}}


async def test_each_type_is_opened_without_connecting_to_anything(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    assert isinstance(open_provider(b.provider().resource, settings), LocalProvider)
    assert isinstance(open_provider(b.provider(spec=KUBEFLOW).resource, settings), KubeflowProvider)


def test_what_is_wrong_with_parameters_is_told_with_its_path(tmp_path: Path) -> None:
    wrong = {"type": "kubeflow", "parameters": {"endpoint": "kfp", "authentication": {"header": {"name": "Host"}}, "observ": "All"}}
    with pytest.raises(InvalidSpec) as caught:
        open_provider(b.provider(spec=wrong).resource, Settings(state_dir=tmp_path))
    told = str(caught.value)
    assert caught.value.reason == "InvalidParameters"
    for part in (
        "endpoint: must be a URL, as http://ml-pipeline.kubeflow:8888",
        "authentication.header.name: Host is set by the provider itself",
        "authentication.header.secretKeyRef: field required",
        "did you mean observe?",
    ):
        assert part in told


def test_providers_are_used_only_where_the_settings_say(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, provider_namespaces=["platform"])
    with pytest.raises(
        InvalidSpec, match=r"metadata.namespace: Providers in mlops are not used: .* providerNamespaces has only platform"
    ) as caught:
        open_provider(b.provider().resource, settings)
    assert caught.value.reason == "ProviderNamespaceNotUsed"
    open_provider(b.provider().resource, Settings(state_dir=tmp_path, provider_namespaces=["platform", "mlops"]))
