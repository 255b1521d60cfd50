"""Every setting of the operator, in one documented model.

The same keys stand in a YAML file (``--config``) and, upper-cased with the prefix ``KFPOP_`` and ``__`` between levels, in the
environment: ``nats.servers`` is ``KFPOP_NATS__SERVERS``. Flags beat the environment, the environment beats the file.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_settings import BaseSettings, SettingsConfigDict


class _Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class ProvidersSettings(_Section):
    enabled: list[str] = Field(default_factory=list, description="Provider types that may be used although they run user code beside the operator (local, in a cluster).")


class TlsSettings(_Section):
    ca_file: Path | None = Field(None, description="PEM file of the authorities that may have signed the server's certificate.")
    cert_file: Path | None = Field(None, description="PEM file of the client certificate.")
    key_file: Path | None = Field(None, description="PEM file of the client certificate's key.")


class NatsSettings(_Section):
    servers: list[str] = Field(default_factory=list, description="URLs, as nats://nats.nats-system:4222. Outside a cluster, empty starts a private server under stateDir.")
    user: str = Field("", description="User name.")
    password_file: Path | None = Field(None, description="File with the user's password.")
    creds_file: Path | None = Field(None, description="File with a JWT and its nkey (.creds).")
    nkey_file: Path | None = Field(None, description="File with an nkey seed.")
    tls: TlsSettings = Field(default_factory=TlsSettings, description="TLS to the servers.")


class EventsSettings(_Section):
    prefix: str = Field("events", description="First token of every subject.")
    documented_subject: str = Field("events", description="Subject for plain subscribers; empty: off.")
    documented_content_mode: Literal["compatible", "structured", "binary"] = Field("compatible", description="Content mode on the documented subject.")
    replay_window: float = Field(3600, description="Seconds for which a plain subscriber catches up.")
    retention: float = Field(30 * 86400, description="Seconds for which completions are kept.")
    replicas: int = Field(1, description="Replicas of each stream.")
    manage_streams: bool = Field(True, description="Create and update the streams; else they must exist.")
    artifact_deadline: float = Field(600, description="Seconds to wait for a succeeded run's artifacts.")


class LeaderElectionSettings(_Section):
    enabled: bool = Field(True, description="Take a Lease before acting.")
    namespace: str = Field("", description="Namespace of the Lease; default: the pod's, else default.")
    lease_duration: float = Field(15, description="Seconds after which a silent leader is replaced.")


class HttpSettings(_Section):
    port: int = Field(8080, description="Port of /healthz, /readyz and /metrics; 0: a free one.")


class LogSettings(_Section):
    format: Literal["text", "json"] = Field("text", description="text for people, json for machines.")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")


class Settings(BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, env_prefix="KFPOP_", env_nested_delimiter="__"
    )

    api_group: str = Field("kfp-operator.dev", description="API group of our resources.")
    namespaces: list[str] = Field(default_factory=list, description="Namespaces to serve; empty: all.")
    provider_namespaces: list[str] = Field(default_factory=list, description="Namespaces whose Providers are used; empty: all.")
    providers: ProvidersSettings = Field(default_factory=ProvidersSettings)
    state_dir: Path = Field(Path("~/.local/state/kfp-operator"), description="Folder for local runs and the private NATS server.")
    nats: NatsSettings = Field(default_factory=NatsSettings)
    events: EventsSettings = Field(default_factory=EventsSettings)
    leader_election: LeaderElectionSettings = Field(default_factory=LeaderElectionSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    workers: int = Field(16, description="Objects that are worked on at once.")
    log: LogSettings = Field(default_factory=LogSettings)
