"""`spec.parameters` of a Provider of type kubeflow.

Whoever may create Providers chooses what the operator connects to, and what it shows there as its identity. So a token file must lie
where administrators put such tokens, the value of a header comes from a Secret beside the Provider, and a URL holds no password: it
would be told in messages.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from kfp_operator.api.run import ArtifactDefinition

TOKENS = Path("/var/run/secrets/kubeflow")
"""Below it lie the tokens that a Provider may name, in a cluster: the SDK looks for its own there too."""
DEFAULT_TOKEN = TOKENS / "pipelines" / "token"
DEFAULT_NAMESPACE = "kubeflow"
METADATA_SERVICE = "metadata-grpc-service"
METADATA_PORT = 8080

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN_HEADERS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection", "accept"})


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a URL, as http://ml-pipeline.kubeflow:8888")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no user or password: messages show it; use authentication")
    return value


def _endpoint(value: str) -> str:
    parts = urlsplit(_url(value))
    if parts.query or parts.fragment:
        raise ValueError("must be a URL without ? and #, as http://ml-pipeline.kubeflow:8888")
    try:
        parts.port  # noqa: B018  # raises for what is no port
    except ValueError as error:
        raise ValueError(f"must be a URL with a valid port: {error}") from error
    return value.rstrip("/")


def _namespace(value: str) -> str:
    if value and not _LABEL.fullmatch(value):
        raise ValueError("must be the name of a namespace, as team-a")
    return value


def _address(value: str) -> str:
    if value and not re.fullmatch(r"(https?://)?[A-Za-z0-9.\-]+:[0-9]{1,5}", value):
        raise ValueError("must be host:port, as metadata-grpc-service.kubeflow:8080, with https:// in front for TLS")
    return value


def _header_name(value: str) -> str:
    if not _HEADER.fullmatch(value):
        raise ValueError(f"{value!r} cannot be the name of a header")
    if value.lower() in _FORBIDDEN_HEADERS:
        raise ValueError(f"{value} is set by the provider itself")
    return value


def _token_file(value: str) -> str:
    if "\0" in value or not value.startswith("/"):
        raise ValueError("must be an absolute path")
    inside = Path(os.path.normpath(value)).is_relative_to(TOKENS)
    if os.environ.get("KUBERNETES_SERVICE_HOST") and not inside:
        raise ValueError(f"must lie below {TOKENS}: other files of the operator are not shown to backends; mount the token there")
    return value


def _none(value: object) -> object:
    return "None" if value is None else value


class _Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class SecretKey(_Section):
    """A key of a Secret in the Provider's namespace."""

    name: str = Field(description="Name of the Secret.", min_length=1, max_length=253)
    key: str = Field(description="The key in it.", min_length=1, max_length=253)


class HeaderAuthentication(_Section):
    """A header with a value from a Secret."""

    name: Annotated[str, AfterValidator(_header_name)] = Field("Authorization", description="Name of the header.", max_length=128)
    prefix: str = Field("", description='What stands before the value, as "Bearer ".', max_length=128, pattern=r"^[ -~]*$")
    secret_key_ref: SecretKey = Field(description="Where the value is. Read again every minute, and when it is refused.")


class Authentication(_Section):
    """How the operator shows who it is; nothing: not at all, as a single-user server wants it."""

    token_file: Annotated[str, AfterValidator(_token_file)] | None = Field(
        None,
        description=f"File with a bearer token, read for each request, since it rotates. Usually {DEFAULT_TOKEN}, "
        "a projected service account token with the audience pipelines.kubeflow.org.",
        max_length=4096,
    )
    header: HeaderAuthentication | None = Field(None, description="A header with a value from a Secret.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.token_file is not None and self.header is not None:
            raise ValueError("set tokenFile or header, not both")
        return self


class KubeflowParameters(_Section):
    """Where Kubeflow Pipelines is and how runs are made there. Only `endpoint` has no default; unknown members are errors."""

    endpoint: Annotated[str, AfterValidator(_endpoint)] = Field(
        description="URL of the API server, without /apis, as http://ml-pipeline.kubeflow:8888.", max_length=1024
    )
    namespace: Annotated[str, AfterValidator(_namespace)] = Field(
        "",
        description="Namespace of pipelines, experiments and runs at the backend: required where the server is multi-user (a profile's). "
        "Else where Workflows are; default: the namespace in the endpoint's host, or kubeflow.",
        max_length=63,
    )
    ui_url: str = Field(
        "", description="URL of the web pages, as https://kubeflow.example.org/pipeline; runs link to theirs.", max_length=1024
    )
    ca_file: str | None = Field(
        None, description="PEM file with the authorities that may have signed the server's certificate.", max_length=4096
    )
    ca_secret_key_ref: SecretKey | None = Field(None, description="The same from a Secret.")
    authentication: Authentication = Field(default_factory=Authentication, description="How the operator shows who it is.")
    service_account: str = Field("", description="Service account of runs; default: the server's.", max_length=253)
    experiment: str = Field(
        "Default", description="Experiment of runs that name none. Made if it does not exist.", min_length=1, max_length=127
    )
    caching: bool | None = Field(
        None, description="Whether steps may take results of earlier runs; default: as each step was compiled. Part of what is uploaded."
    )
    watch: Literal["Auto", "Workflows", "Poll"] = Field(
        "Auto",
        description="How changes of runs are noticed. Workflows: from the Argo Workflows in the operator's own cluster. "
        "Poll: by asking the server. Auto: from Workflows if the endpoint is a Service of this cluster and they may be watched.",
    )
    poll_interval_seconds: float = Field(10, description="Seconds between two questions for changes.", ge=1, le=3600)
    request_timeout_seconds: float = Field(30, description="Seconds that a request may take.", ge=1, le=600)
    requests_per_second: float = Field(20, description="Most requests per second over time; twice as many at once.", ge=0.1, le=1000)
    confirmation_seconds: float = Field(
        120,
        description="Seconds for which a run is looked for whose submission was not answered, before it may be submitted once more. "
        "Must be longer than the server and proxies in between work on a request.",
        ge=1,
        le=3600,
    )
    artifact_source: Annotated[Literal["Auto", "MetadataStore", "ArtifactApi", "None"], BeforeValidator(_none)] = Field(
        "Auto",
        description="Where artifacts are read. MetadataStore: ML Metadata, as in releases up to 2.17. ArtifactApi: the server itself. "
        "Auto: the server if it can tell, else ML Metadata. None: runs have no artifacts.",
    )
    metadata_endpoint: Annotated[str, AfterValidator(_address)] = Field(
        "",
        description=f"host:port of ML Metadata; default: {METADATA_SERVICE} in the namespace of the endpoint's host, port {METADATA_PORT}.",
        max_length=1024,
    )
    observe: Annotated[Literal["None", "All"], BeforeValidator(_none)] = Field(
        "None",
        description="All: runs that others start (in the UI, by the SDK, by recurring runs) are told in run-completion events too, "
        "without a Run object; from now on, not those that have ended.",
    )
    observed_artifacts: list[ArtifactDefinition] = Field(
        default_factory=list, description="Artifacts that completions of observed runs tell, as spec.artifacts of a Run.", max_length=64
    )

    @model_validator(mode="before")
    @classmethod
    def _known(cls, document: object) -> object:
        """What the Go operator's Provider called them."""
        if isinstance(document, Mapping):
            for theirs, ours in _GO_NAMES.items():
                if theirs in document:
                    raise ValueError(f"{theirs} is a parameter of the Go operator's provider; here it is {ours}")
        return document

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.ca_file is not None and self.ca_secret_key_ref is not None:
            raise ValueError("set caFile or caSecretKeyRef, not both")
        if self.ui_url:
            _url(self.ui_url)
        return self

    @property
    def service(self) -> tuple[str, str] | None:
        """Name and namespace of the Service that the endpoint's host is, if it looks like one of this cluster."""
        parts = urlsplit(self.endpoint)
        labels = (parts.hostname or "").split(".")
        if not all(_LABEL.fullmatch(label) for label in labels) or all(label.isdecimal() for label in labels):
            return None
        if len(labels) >= 3 and labels[2] == "svc":
            return labels[0], labels[1]
        if len(labels) == 2 and parts.scheme == "http":  # two labels are a public host's too, but those have certificates
            return labels[0], labels[1]
        return None

    @property
    def workflow_namespace(self) -> str:
        """Where the runs' Workflows are."""
        if self.namespace:
            return self.namespace
        return self.service[1] if self.service is not None else DEFAULT_NAMESPACE

    @property
    def metadata_address(self) -> str:
        """Where ML Metadata is, as host:port; "": nobody said."""
        if self.metadata_endpoint:
            return self.metadata_endpoint
        return f"{METADATA_SERVICE}.{self.service[1]}:{METADATA_PORT}" if self.service is not None else ""

    def run_url(self, run_id: str) -> str:
        """The page of a run; "": nobody said where pages are."""
        if not self.ui_url:
            return ""
        base, _, _ = self.ui_url.partition("#")
        return f"{base}#/runs/details/{run_id}" if "?" in base else f"{base.rstrip('/')}/#/runs/details/{run_id}"


_GO_NAMES = {
    "restKfpApiUrl": "endpoint",
    "grpcKfpApiAddress": "endpoint",
    "grpcMetadataStoreAddress": "metadataEndpoint",
    "kfpNamespace": "namespace",
    "kfpMultiUserMode": "namespace, and authentication.tokenFile",
    "defaultExperiment": "experiment",
}
