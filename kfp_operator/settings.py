"""Every setting of the operator, in one documented model, and where their values come from.

The same keys stand in a YAML file (``--config``) and, upper-cased with the prefix ``KFPOP_`` and ``__`` between levels, in the
environment: ``nats.servers`` is ``KFPOP_NATS__SERVERS``, ``stateDir`` is ``KFPOP_STATEDIR`` (``KFPOP_STATE_DIR`` too). Flags beat the
environment, the environment beats the file. What is not a setting, or cannot be one's value, is an error that says where it stands and
what was probably meant: a setting that is silently ignored is found out in production. Secrets are never values here, only files.

``docs/settings.md`` is written from the model: ``python -m kfp_operator.settings > docs/settings.md``.
"""

import difflib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from kfp_operator.errors import ConfigurationError

PREFIX = "KFPOP_"
_NOT_SETTINGS = frozenset({"KFPOP_TEST_FAULT"})  # for tests only, see operator/faults.py
_SERVICE_LINK = re.compile(r"KFPOP_(?:\w+_)?(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)")
_LONGEST = 10 * 366 * 86400.0
_SHOWN = 80  # characters of a refused value


def _no_boolean(value: object) -> object:
    """YAML's ``on`` and ``yes`` are no numbers, whatever Python thinks."""
    if isinstance(value, bool):
        raise ValueError("a boolean")  # noqa: TRY004 -- only a ValueError becomes a ValidationError
    return value


def _absent_if_empty(value: object) -> object:
    """An empty path, as templates write it, is no path; Path("") would be the working folder."""
    return None if value == "" else value


@dataclass(frozen=True, slots=True)
class _Form:
    """How the accepted values are described, where the type does not say enough."""

    text: str


_Whole = Annotated[int, BeforeValidator(_no_boolean)]
_Seconds = Annotated[float, BeforeValidator(_no_boolean), Field(ge=1, le=_LONGEST, allow_inf_nan=False)]
_Port = Annotated[
    Annotated[int, Field(ge=0, le=65535)] | None,
    BeforeValidator(_no_boolean),
    BeforeValidator(_absent_if_empty),
    _Form("a whole number from 0 to 65535, or empty"),
]
_Folder = Annotated[Path, BeforeValidator(_absent_if_empty), _Form("the path of a folder")]
_File = Annotated[Path | None, BeforeValidator(_absent_if_empty), _Form("the path of a file")]
_Namespace = Annotated[
    str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63), _Form("a namespace: lower-case letters, digits and '-'")
]
_Group = Annotated[
    str,
    Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$", max_length=200),
    _Form("a domain in lower case, as ml.example.org"),
]
_Token = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,63}$"), _Form("one token of letters, digits, '-' and '_' (63 at most)")]
_Subject = Annotated[str, _Form("a NATS subject without wildcards, as events, or empty")]  # checked by events.streams


class _Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class ProvidersSettings(_Section):
    """Which backends may be used."""

    enabled: list[str] = Field(
        default_factory=list,
        description="Provider types that may be used although they run user code beside the operator (local, in a cluster).",
    )


class TlsSettings(_Section):
    """TLS to NATS."""

    ca_file: _File = Field(None, description="PEM file of the authorities that may have signed the server's certificate.")
    cert_file: _File = Field(None, description="PEM file of the client certificate.")
    key_file: _File = Field(None, description="PEM file of the client certificate's key.")


class NatsSettings(_Section):
    """How to reach NATS."""

    servers: list[str] = Field(
        default_factory=list,
        description="URLs, as nats://nats.nats-system:4222. Outside a cluster, empty starts a private server under stateDir.",
    )
    user: str = Field("", description="User name.")
    password_file: _File = Field(None, description="File with the user's password.")
    creds_file: _File = Field(None, description="File with a JWT and its nkey (.creds).")
    nkey_file: _File = Field(None, description="File with an nkey seed.")
    tls: TlsSettings = Field(default_factory=TlsSettings, description="TLS to the servers.")


class EventsSettings(_Section):
    """Subjects and streams."""

    prefix: _Token = Field("events", description="First token of every subject.")
    documented_subject: _Subject = Field("events", description="Subject for plain subscribers; empty: off.")
    documented_content_mode: Literal["compatible", "structured", "binary"] = Field(
        "compatible", description="Content mode on the documented subject."
    )
    replay_window: _Seconds = Field(3600, description="Seconds for which a plain subscriber catches up.")
    retention: _Seconds = Field(30 * 86400, description="Seconds for which completions are kept.")
    replicas: _Whole = Field(1, ge=1, le=5, description="Replicas of each stream.")
    manage_streams: bool = Field(True, description="Create and update the streams; else they must exist.")
    artifact_deadline: _Seconds = Field(600, description="Seconds to wait for a succeeded run's artifacts.")


class InboundTlsSettings(_Section):
    """TLS of the port for events from outside."""

    cert_file: _File = Field(
        None, description="PEM file of the server's certificate, with those that signed it. Read again when it changes."
    )
    key_file: _File = Field(None, description="PEM file of the certificate's key.")


class InboundSettings(_Section):
    """Events from outside."""

    port: _Port = Field(None, description="Port for events from outside over HTTP (0: a free one); empty: none is opened.")
    tokens_file: _File = Field(None, description="File that says who may send: tokens and webhooks. Read again when it changes.")
    tls: InboundTlsSettings = Field(default_factory=InboundTlsSettings, description="TLS of that port.")


class LeaderElectionSettings(_Section):
    """Which of several processes acts."""

    enabled: bool = Field(True, description="Take a Lease before acting.")
    namespace: Literal[""] | _Namespace = Field("", description="Namespace of the Lease; default: the pod's, else default.")
    lease_duration: _Seconds = Field(15, le=3600, description="Seconds after which a silent leader is replaced.")


class HttpSettings(_Section):
    """Health and metrics."""

    port: _Whole = Field(8080, ge=0, le=65535, description="Port of /healthz, /readyz and /metrics; 0: a free one.")


class LogSettings(_Section):
    """The log, on standard error."""

    format: Literal["text", "json"] = Field("text", description="text for people, json for machines.")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")


class Settings(_Section):
    """All settings. `load` reads them; the constructor takes nothing from the environment."""

    api_group: _Group = Field("kfp-operator.dev", description="API group of our resources.")
    namespaces: list[_Namespace] = Field(default_factory=list, description="Namespaces to serve; empty: all.")
    provider_namespaces: list[_Namespace] = Field(default_factory=list, description="Namespaces whose Providers are used; empty: all.")
    providers: ProvidersSettings = Field(default_factory=ProvidersSettings)
    state_dir: _Folder = Field(Path("~/.local/state/kfp-operator"), description="Folder for local runs and the private NATS server.")
    nats: NatsSettings = Field(default_factory=NatsSettings)
    events: EventsSettings = Field(default_factory=EventsSettings)
    inbound: InboundSettings = Field(default_factory=InboundSettings)
    leader_election: LeaderElectionSettings = Field(default_factory=LeaderElectionSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    workers: _Whole = Field(16, ge=1, le=256, description="Objects that are worked on at once.")
    log: LogSettings = Field(default_factory=LogSettings)


def load(config_file: Path | None = None, overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings from a YAML file, the environment and flags, the later beating the earlier.

    `overrides`: what flags gave, nested as the model is (Python's or YAML's names); None means not given. `environ`: default os.environ.

    Raises ConfigurationError that names every value that cannot be used, where it stands and what would be accepted.
    """
    problems: list[str] = []
    given: dict[str, _Given] = {}
    if config_file is not None:
        given |= _from_file(config_file, problems)
    given |= _from_environment(os.environ if environ is None else environ, problems)
    given |= _from_flags(overrides or {}, problems)
    document: dict[str, Any] = {}
    for key, one in given.items():
        *sections, name = key.split(".")
        level = document
        for section in sections:
            level = level.setdefault(section, {})
        level[name] = one.value
    settings = None
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        problems += dict.fromkeys(_refusal(found["loc"], given) for found in error.errors())
    if settings is not None:
        problems += _contradictions(settings, given)
    if settings is None or problems:
        raise ConfigurationError("; ".join(problems))
    return settings


@dataclass(frozen=True, slots=True)
class _Key:
    """One setting."""

    name: str
    """Dotted, as ``nats.passwordFile``."""
    field: FieldInfo
    variables: tuple[str, ...]
    """In the environment; the first is the one to recommend."""

    @property
    def is_list(self) -> bool:
        """Whether it has several values."""
        return get_origin(self.field.annotation) is list

    @property
    def item(self) -> str:
        """What an item of a list can be, in words."""
        (item,) = get_args(self.field.annotation)
        return _accepted(item, ())

    @property
    def accepted(self) -> str:
        """What it can be, in words."""
        if self.is_list:
            return f"a list, each item {self.item}"
        return _accepted(self.field.annotation, self.field.metadata)


@dataclass(frozen=True, slots=True)
class _Given:
    """A value and where it stands."""

    value: object
    origin: str


def _keys(model: type[BaseModel], prefix: str = "", variables: tuple[str, ...] = (PREFIX,)) -> Iterator[_Key]:
    for python_name, field in model.model_fields.items():
        name = to_camel(python_name)
        spellings = dict.fromkeys((name.upper(), python_name.upper()))
        here = tuple(f"{variable}{spelling}" for variable in variables for spelling in spellings)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.", tuple(f"{variable}__" for variable in here))
        else:
            yield _Key(prefix + name, field, here)


_KEYS: Mapping[str, _Key] = {key.name: key for key in _keys(Settings)}
_SECTIONS = frozenset(".".join(key.split(".")[:depth]) for key in _KEYS for depth in range(1, key.count(".") + 1))
_VARIABLES: Mapping[str, _Key] = {variable: key for key in _KEYS.values() for variable in key.variables}


def _from_file(path: Path, problems: list[str]) -> dict[str, _Given]:
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the settings in {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise ConfigurationError(f"{path} does not hold settings: at the top there must be keys, as nats: and events:")
    lines: dict[str, int] = {}
    for key, line in _lines(tree, ""):
        if key in lines:
            problems.append(f"{path}:{line}: {key} is set twice, first in line {lines[key]}")
        lines[key] = line
    return _flat(document, lambda key: f"{path}:{lines[key]}" if key in lines else str(path), problems)


def _lines(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, int]]:
    """Where each key of a YAML document stands."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            yield prefix + key.value, key.start_mark.line + 1
            yield from _lines(value, f"{prefix}{key.value}.")


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, _Given]:
    found: dict[str, _Given] = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in _NOT_SETTINGS:
            continue
        key, text = _VARIABLES.get(variable), environ[variable]
        if key is None:
            if not (_SERVICE_LINK.fullmatch(variable) or ("://" in text and variable.endswith("_PORT"))):  # of a Service named kfpop
                problems.append(f"{variable} is not a setting{_hint(variable.removeprefix(PREFIX), PREFIX, _recommended())}")
        elif key.name in found:
            problems.append(f"{found[key.name].origin} and {variable} are the same setting: keep one")
        else:
            found[key.name] = _Given(_list(text) if key.is_list else text, variable)
    return found


def _list(text: str) -> object:
    """A list as people write it in one line; what is no JSON after all is refused as it stands."""
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return [item.strip() for item in text.split(",") if item.strip()]


def _from_flags(overrides: Mapping[str, Any], problems: list[str]) -> dict[str, _Given]:
    def camel(values: Mapping[str, Any]) -> dict[str, Any]:
        return {to_camel(name): camel(value) if isinstance(value, Mapping) else value for name, value in values.items()}

    return _flat(camel(overrides), lambda _: "given as a flag", problems)


def _flat(document: Mapping[Any, Any], origin: Callable[[str], str], problems: list[str], prefix: str = "") -> dict[str, _Given]:
    found: dict[str, _Given] = {}
    for name, value in document.items():
        key = f"{prefix}{name}"
        if key not in _KEYS and key not in _SECTIONS:
            problems.append(f"{origin(key)}: {key} is not a setting{_hint(key, '', [*_KEYS, *_SECTIONS])}")
        elif value is None:
            continue
        elif key in _KEYS:
            found[key] = _Given(value, origin(key))
        elif isinstance(value, Mapping):
            found |= _flat(value, origin, problems, f"{key}.")
        else:
            inside = ", ".join(sorted(one for one in _KEYS if one.startswith(f"{key}.")))
            problems.append(f"{origin(key)}: {key} is {_shown(value)}, but it holds further keys: {inside}")
    return found


def _recommended() -> list[str]:
    return [key.variables[0].removeprefix(PREFIX) for key in _KEYS.values()]


def _hint(name: str, prefix: str, candidates: Iterable[str]) -> str:
    """The nearest known name, spelled alike as a whole or in its last part."""

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    def likeness(candidate: str) -> float:
        last = re.split(r"\.|__", candidate)[-1]
        return max(difflib.SequenceMatcher(None, plain(name), plain(part)).ratio() for part in (candidate, last))

    best = max(candidates, key=likeness)
    return f"; did you mean {prefix}{best}?" if likeness(best) >= 0.6 else ""


def _accepted(annotation: Any, metadata: Iterable[Any]) -> str:
    metadata = list(metadata)
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        metadata += more
        metadata += [inner for one in more if isinstance(one, FieldInfo) for inner in one.metadata]
    for note in metadata:
        if isinstance(note, _Form):
            return note.text
    if get_origin(annotation) is Literal:
        return " or ".join(filter(None, (str(one) for one in get_args(annotation)))) or "empty"
    if len(options := get_args(annotation)) > 1:
        return " or ".join(_accepted(one, ()) for one in options)
    if annotation is bool:
        return "true or false"
    if annotation is str:
        return "text"
    least = max((note.ge for note in metadata if getattr(note, "ge", None) is not None), default=None)
    most = min((note.le for note in metadata if getattr(note, "le", None) is not None), default=None)
    return f"a {'whole ' if annotation is int else ''}number from {least:.0f} to {most:.0f}"


def _refusal(location: tuple[int | str, ...], given: Mapping[str, _Given]) -> str:
    """What is wrong with a value."""
    parts = [str(part) for part in location]
    depth = next(depth for depth in range(len(parts), 0, -1) if ".".join(parts[:depth]) in _KEYS)
    key = _KEYS[".".join(parts[:depth])]
    value, index = given[key.name].value, location[depth] if len(location) > depth else None
    if isinstance(value, list) and isinstance(index, int):
        return f"{key.name}[{index}]: {_shown(value[index])} is not {key.item} ({given[key.name].origin})"
    return f"{key.name}: {_shown(value)} is not {key.accepted} ({given[key.name].origin})"


def _shown(value: object) -> str:
    """A value in a message: short, and without the password of a URL."""
    text = re.sub(r"//[^/@\s]*@", "//...@", repr(str(value) if isinstance(value, Path) else value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _contradictions(settings: Settings, given: Mapping[str, _Given]) -> Iterator[str]:
    """Settings that are fine each and wrong together."""
    nats, tls = settings.nats, settings.nats.tls
    for server in nats.servers:
        yield from _server_problem(server, given["nats.servers"].origin)
    if nats.user and nats.password_file is None:
        yield "nats.user is set, but nats.passwordFile is not"
    if nats.password_file is not None and not nats.user:
        yield "nats.passwordFile is set, but nats.user is not"
    ways = {"nats.user": nats.user, "nats.credsFile": nats.creds_file, "nats.nkeyFile": nats.nkey_file}
    chosen = [name for name, value in ways.items() if value]
    if len(chosen) > 1:
        yield f"{' and '.join(chosen)} are set, but only one of them can say who the operator is"
    if (tls.cert_file is None) != (tls.key_file is None):
        yield "nats.tls.certFile and nats.tls.keyFile go together, but only one of them is set"
    inbound = settings.inbound
    if inbound.port is not None and inbound.tokens_file is None:
        yield "inbound.port is set, but inbound.tokensFile, which says who may send, is not"
    if (inbound.tls.cert_file is None) != (inbound.tls.key_file is None):
        yield "inbound.tls.certFile and inbound.tls.keyFile go together, but only one of them is set"


def _server_problem(server: str, origin: str) -> Iterator[str]:
    try:
        url = urlsplit(server if "://" in server else f"nats://{server}")
        usable = url.scheme in {"nats", "tls", "ws", "wss"} and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        usable = False
    if not usable:
        yield f"nats.servers: {_shown(server)} is not a URL as nats://nats.nats-system:4222 ({origin})"
    elif url.username is not None or url.password is not None:
        yield f"nats.servers: {_shown(server)} holds credentials in plain sight: use nats.user and nats.passwordFile ({origin})"


def reference() -> str:
    """All settings as a page in Markdown."""
    rows = [
        "# Settings",
        "",
        "One set of keys, in a YAML file (`kfp-operator run --config FILE`) and in the environment; flags beat the environment, the",
        "environment beats the file. Lists are written in the environment with commas or as JSON. A key or `KFPOP_` variable that is",
        "not in this table is an error. Secrets are read from files; relative paths start at the working folder, `~` is your home.",
        "",
        "| key | environment | accepted | default | meaning |",
        "|---|---|---|---|---|",
    ]
    for key in _KEYS.values():
        default = key.field.get_default(call_default_factory=True, validated_data={})
        shown = "" if default in (None, "", []) else f"`{json.dumps(default) if isinstance(default, bool) else default}`"
        rows.append(f"| `{key.name}` | `{key.variables[0]}` | {key.accepted} | {shown} | {key.field.description} |")
    return "\n".join([*rows, ""])


if __name__ == "__main__":
    print(reference(), end="")
