from typing import Any

import pytest
from pydantic import ValidationError

from kfp_operator.providers.kubeflow.parameters import KubeflowParameters


def parameters(**given: Any) -> KubeflowParameters:
    return KubeflowParameters.model_validate({"endpoint": "http://ml-pipeline.kubeflow:8888", **given})


@pytest.mark.parametrize(
    ("endpoint", "service"),
    [
        ("http://ml-pipeline.kubeflow:8888", ("ml-pipeline", "kubeflow")),
        ("http://ml-pipeline.kubeflow.svc:8888", ("ml-pipeline", "kubeflow")),
        ("https://ml-pipeline.kubeflow.svc.cluster.local:8888", ("ml-pipeline", "kubeflow")),
        ("https://kubeflow.org", None),
        ("http://127.0.0.1:8888", None),
        ("http://localhost:8888", None),
        ("https://kfp.example.org/pipeline", None),
    ],
)
def test_a_service_of_this_cluster_is_known_by_its_host(endpoint: str, service: tuple[str, str] | None) -> None:
    assert parameters(endpoint=endpoint).service == service


def test_namespace_and_metadata_come_from_the_services_host() -> None:
    found = parameters(endpoint="http://ml-pipeline.kfp:8888")
    assert (found.workflow_namespace, found.metadata_address) == ("kfp", "metadata-grpc-service.kfp:8080")
    elsewhere = parameters(endpoint="https://kfp.example.org")
    assert (elsewhere.workflow_namespace, elsewhere.metadata_address) == ("kubeflow", "")
    assert parameters(namespace="team-a").workflow_namespace == "team-a"


@pytest.mark.parametrize(
    ("ui", "page"),
    [
        ("https://kfp.example.org/pipeline/", "https://kfp.example.org/pipeline/#/runs/details/42"),
        ("https://kf.example.org/_/pipeline/?ns=team-a", "https://kf.example.org/_/pipeline/?ns=team-a#/runs/details/42"),
        ("https://kfp.example.org/#/runs", "https://kfp.example.org/#/runs/details/42"),
        ("", ""),
    ],
)
def test_runs_link_to_their_page(ui: str, page: str) -> None:
    assert parameters(uiUrl=ui).run_url("42") == page


def test_none_may_be_null_in_yaml() -> None:
    assert (parameters(observe=None).observe, parameters(artifactSource=None).artifact_source) == ("None", "None")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"endpoint": "ml-pipeline:8888"}, "must be a URL, as http"),
        ({"endpoint": "http://user:secret@kfp"}, "must hold no user or password"),
        ({"endpoint": "http://kfp:99999"}, "valid port"),
        ({"endpoint": "http://kfp/?a=b"}, r"without \? and #"),
        ({"namespace": "Team_A"}, "name of a namespace"),
        ({"metadataEndpoint": "metadata"}, "must be host:port"),
        ({"uiUrl": "kfp.example.org"}, "must be a URL"),
        ({"authentication": {"tokenFile": "token"}}, "absolute path"),
        ({"authentication": {"header": {"name": "a b", "secretKeyRef": {"name": "s", "key": "k"}}}}, "cannot be the name of a header"),
        ({"authentication": {"header": {"name": "Host", "secretKeyRef": {"name": "s", "key": "k"}}}}, "set by the provider itself"),
        (
            {"authentication": {"tokenFile": "/t", "header": {"secretKeyRef": {"name": "s", "key": "k"}}}},
            "tokenFile or header, not both",
        ),
        ({"caFile": "/ca", "caSecretKeyRef": {"name": "s", "key": "k"}}, "caFile or caSecretKeyRef, not both"),
        ({"restKfpApiUrl": "http://kfp"}, "restKfpApiUrl is a parameter of the Go operator's provider; here it is endpoint"),
        ({"pollIntervalSeconds": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_would_be(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        parameters(**given)


@pytest.mark.parametrize(
    "path", ["/var/run/secrets/kubernetes.io/serviceaccount/token", "/var/run/secrets/kubeflow/../kubernetes.io/serviceaccount/token"]
)
def test_in_a_cluster_a_provider_cannot_have_other_files_of_the_operator_sent(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(ValidationError, match="must lie below /var/run/secrets/kubeflow"):
        parameters(authentication={"tokenFile": path})
    usual = "/var/run/secrets/kubeflow/pipelines/token"
    assert parameters(authentication={"tokenFile": usual}).authentication.token_file == usual
