import json
from pathlib import Path
from typing import Any

import pytest

from kfp_operator import settings as module
from kfp_operator.errors import ConfigurationError
from kfp_operator.settings import EventsSettings, Settings, load

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "operator.yaml"
    path.write_text(text)
    return path


def refused(config: Path | None = None, overrides: dict[str, Any] | None = None, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(config, overrides, environ)
    return str(caught.value)


def test_without_anything_the_defaults_hold() -> None:
    assert load(environ={}) == Settings()


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    config = file(tmp_path, "workers: 1\nhttp: {port: 1}\nlog:\n  level: error\n  format: json\n")
    loaded = load(config, {"workers": 3}, {"KFPOP_WORKERS": "2", "KFPOP_HTTP__PORT": "2"})
    assert (loaded.workers, loaded.http.port, loaded.log.level, loaded.log.format) == (3, 2, "error", "json")


def test_no_port_is_opened_for_events_from_outside_unless_it_is_set() -> None:
    assert Settings().inbound.port is None
    assert load(None, None, {"KFPOP_INBOUND__PORT": ""}).inbound.port is None
    assert load(None, None, {"KFPOP_INBOUND__PORT": "0", "KFPOP_INBOUND__TOKENS_FILE": "t"}).inbound.port == 0


def test_flags_that_were_not_given_change_nothing() -> None:
    flags = {"state_dir": None, "nats": None, "http": {"port": None}, "log": {}}
    assert load(None, flags, {"KFPOP_HTTP__PORT": "7"}).http.port == 7


def test_flags_may_use_the_names_of_the_model_or_of_the_file() -> None:
    loaded = load(None, {"state_dir": Path("/a"), "nats": {"servers": ["nats://n:4222"]}, "apiGroup": "ml.example.org"}, {})
    assert (loaded.state_dir, loaded.nats.servers, loaded.api_group) == (Path("/a"), ["nats://n:4222"], "ml.example.org")


def test_every_setting_can_be_given_in_the_environment_and_in_a_file(tmp_path: Path) -> None:
    nats = {
        "nats": {"servers": ["tls://n:1"], "user": "u", "passwordFile": "/p", "tls": {"caFile": "/a", "certFile": "/c", "keyFile": "/k"}}
    }
    changed = {
        "apiGroup": "ml.example.org",
        "namespaces": ["a", "b"],
        "providerNamespaces": ["c"],
        "providers": {"enabled": ["local"]},
        "stateDir": "/s",
        **nats,
        "events": {
            "prefix": "ml",
            "documentedSubject": "",
            "documentedContentMode": "binary",
            "replayWindow": 1.5,
            "retention": 2,
            "replicas": 3,
            "manageStreams": False,
            "artifactDeadline": 4,
        },
        "inbound": {"port": 0, "tokensFile": "/t", "tls": {"certFile": "/c", "keyFile": "/k"}},
        "leaderElection": {"enabled": False, "namespace": "ops", "leaseDuration": 5},
        "http": {"port": 0},
        "workers": 6,
        "log": {"format": "json", "level": "debug"},
    }
    variables: dict[str, str] = {}

    def spell(values: dict[str, Any], prefix: str) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                spell(value, f"{prefix}{name.upper()}__")
            else:
                variables[prefix + name.upper()] = ",".join(value) if isinstance(value, list) else str(value)

    spell(changed, "KFPOP_")
    from_file, from_environment = load(file(tmp_path, json.dumps(changed)), None, {}), load(None, None, variables)
    assert from_file == from_environment
    unchanged = Settings().model_dump(by_alias=True)
    found = from_file.model_dump(by_alias=True)
    same = [key for key, value in found.items() if value == unchanged[key]]
    assert same == []
    assert found["nats"]["credsFile"] is None  # beside nats.user it is refused
    assert load(None, None, {"KFPOP_NATS__CREDSFILE": "/c"}).nats.creds_file == Path("/c")
    assert load(None, None, {"KFPOP_NATS__NKEYFILE": "/n"}).nats.nkey_file == Path("/n")


@pytest.mark.parametrize("variable", ["KFPOP_STATEDIR", "KFPOP_STATE_DIR"])
def test_names_of_several_words_have_two_spellings_in_the_environment(variable: str) -> None:
    assert load(None, None, {variable: "/x"}).state_dir == Path("/x")


def test_both_spellings_at_once_are_refused() -> None:
    message = refused(KFPOP_STATEDIR="/a", KFPOP_STATE_DIR="/b")
    assert message == "KFPOP_STATEDIR and KFPOP_STATE_DIR are the same setting: keep one"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a", ["a"]), (" a , b,", ["a", "b"]), ('["a", "b"]', ["a", "b"]), ("", [])],
)
def test_lists_in_the_environment_are_separated_by_commas_or_json(text: str, expected: list[str]) -> None:
    assert load(None, None, {"KFPOP_NAMESPACES": text}).namespaces == expected


def test_empty_values_of_a_template_mean_what_they_say(tmp_path: Path) -> None:
    config = file(tmp_path, "nats:\n  passwordFile: ''\n  servers:\n  tls:\nevents:\n  documentedSubject: ''\n")
    loaded = load(config, None, {})
    assert (loaded.nats.password_file, loaded.nats.servers, loaded.events.documented_subject) == (None, [], "")
    assert load(file(tmp_path, "# nothing\n"), None, {}) == Settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nats:\n  severs: [a]\n", "operator.yaml:2: nats.severs is not a setting; did you mean nats.servers?"),
        ("state_dir: /x\n", "operator.yaml:1: state_dir is not a setting; did you mean stateDir?"),
        ("servers: [a]\n", "operator.yaml:1: servers is not a setting; did you mean nats.servers?"),
        ("leaderelection: {}\n", "operator.yaml:1: leaderelection is not a setting; did you mean leaderElection?"),
        ("qqq: 1\n", "operator.yaml:1: qqq is not a setting"),
        ("workers: 1\nworkers: 2\n", "operator.yaml:2: workers is set twice, first in line 1"),
        ("log: debug\n", "operator.yaml:1: log is 'debug', but it holds further keys: log.format, log.level"),
        ("http: {port: 99999}\n", "http.port: 99999 is not a whole number from 0 to 65535 (@/operator.yaml:1)"),
        ("workers: yes\n", "workers: True is not a whole number from 1 to 256 (@/operator.yaml:1)"),
        ("workers: 0\n", "workers: 0 is not a whole number from 1 to 256 (@/operator.yaml:1)"),
        ("workers: 1.5\n", "workers: 1.5 is not a whole number from 1 to 256 (@/operator.yaml:1)"),
        ("events:\n\n  retention: .inf\n", "events.retention: inf is not a number from 1 to 316224000 (@/operator.yaml:3)"),
        ("events: {replayWindow: 1h}\n", "events.replayWindow: '1h' is not a number from 1 to 316224000 (@/operator.yaml:1)"),
        ("events: {prefix: a.b}\n", "events.prefix: 'a.b' is not one token of letters"),
        ("events: {manageStreams: maybe}\n", "events.manageStreams: 'maybe' is not true or false"),
        ("log: {format: xml}\n", "log.format: 'xml' is not text or json"),
        ("namespaces: team-a\n", "namespaces: 'team-a' is not a list, each item a namespace"),
        ("namespaces: [a, B]\n", "namespaces[1]: 'B' is not a namespace: lower-case letters, digits and '-' (@/operator.yaml:1)"),
        ("nats: {user: 7}\n", "nats.user: 7 is not text"),
        ("apiGroup: nodots\n", "apiGroup: 'nodots' is not a domain in lower case"),
        ("stateDir: ''\n", "stateDir: '' is not the path of a folder"),
        ("leaderElection: {namespace: A_b}\n", "leaderElection.namespace: 'A_b' is not empty or a namespace"),
        ("nats: {servers: ['http://n']}\n", "nats.servers: 'http://n' is not a URL as nats://nats.nats-system:4222"),
        ("nats: {servers: ['nats://:4222']}\n", "nats.servers: 'nats://:4222' is not a URL"),
        ("nats: {servers: ['nats://n:x']}\n", "nats.servers: 'nats://n:x' is not a URL"),
        ("nats: {user: u}\n", "nats.user is set, but nats.passwordFile is not"),
        ("nats: {passwordFile: p}\n", "nats.passwordFile is set, but nats.user is not"),
        ("nats: {credsFile: c, nkeyFile: n}\n", "nats.credsFile and nats.nkeyFile are set, but only one of them can say who"),
        ("nats: {tls: {certFile: c}}\n", "nats.tls.certFile and nats.tls.keyFile go together"),
        ("inbound: {port: 8090}\n", "inbound.port is set, but inbound.tokensFile, which says who may send, is not"),
        ("inbound: {port: 65536}\n", "inbound.port: 65536 is not a whole number from 0 to 65535, or empty"),
        ("inbound: {port: yes}\n", "inbound.port: True is not a whole number from 0 to 65535, or empty"),
        ("inbound: {tls: {keyFile: k}}\n", "inbound.tls.certFile and inbound.tls.keyFile go together"),
        ("- a\n", "does not hold settings"),
        ("a: [\n", "is not YAML: while parsing a flow"),
        ("a: 1\n---\nb: 2\n", "is not YAML: expected a single document"),
    ],
)
def test_what_a_file_has_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    assert said.replace("@", str(tmp_path)) in refused(file(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.yaml") == f"cannot read the settings in {tmp_path}/none.yaml: No such file or directory"
    assert "Is a directory" in refused(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "cannot read the settings" in refused(tmp_path / "binary")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("KFPOP_WORKRES", "2", "KFPOP_WORKRES is not a setting; did you mean KFPOP_WORKERS?"),
        ("KFPOP_NATS_SERVERS", "a", "KFPOP_NATS_SERVERS is not a setting; did you mean KFPOP_NATS__SERVERS?"),
        ("KFPOP_nats__user", "a", "KFPOP_nats__user is not a setting; did you mean KFPOP_NATS__USER?"),
        ("KFPOP_NATS", "{}", "KFPOP_NATS is not a setting"),
        ("KFPOP_HTP__PORT", "80", "KFPOP_HTP__PORT is not a setting; did you mean KFPOP_HTTP__PORT?"),
        ("KFPOP_HTTP__PORT", "http", "http.port: 'http' is not a whole number from 0 to 65535 (KFPOP_HTTP__PORT)"),
        ("KFPOP_EVENTS__RETENTION", "nan", "events.retention: 'nan' is not a number"),
        ("KFPOP_NAMESPACES", "[1", "namespaces: '[1' is not a list"),
        ("KFPOP_NAMESPACES", "[1]", "namespaces[0]: 1 is not a namespace"),
    ],
)
def test_what_the_environment_has_wrong_is_named(variable: str, value: str, said: str) -> None:
    assert said in refused(**{variable: value})


def test_unknown_flags_are_refused() -> None:
    assert refused(None, {"state_dri": "x"}) == "given as a flag: stateDri is not a setting; did you mean stateDir?"


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    message = refused(file(tmp_path, "workers: 0\nfoo: 1\n"), None, KFPOP_LOG__LEVEL="loud")
    assert all(part in message for part in ("workers: 0", "foo is not a setting", "log.level: 'loud'"))


def test_variables_that_kubernetes_sets_for_a_service_and_the_test_switch_are_passed_over() -> None:
    environ = {
        "KFPOP_SERVICE_HOST": "10.0.0.1",
        "KFPOP_SERVICE_PORT_HTTP": "80",
        "KFPOP_METRICS_SERVICE_PORT": "80",
        "KFPOP_PORT": "tcp://10.0.0.1:80",
        "KFPOP_PORT_80_TCP_ADDR": "10.0.0.1",
        "KFPOP_TEST_FAULT": "published:2",
        "OTHER": "x",
    }
    assert load(None, None, environ) == Settings()


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    message = refused(KFPOP_NATS__SERVERS="nats://operator:hunter2@n:4222")
    assert "use nats.user and nats.passwordFile" in message
    assert "hunter2" not in message
    assert "hunter2" not in refused(KFPOP_NATS__SERVERS='["nats://operator:hunter2@n:4222", 1]')


def test_the_constructor_takes_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFPOP_WORKERS", "3")
    assert Settings().workers == 16
    assert load().workers == 3


def test_bounds_hold_without_load_too() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        EventsSettings(replicas=0)


def test_the_page_about_settings_is_current() -> None:
    assert DOCUMENT.read_text() == module.reference(), "python -m kfp_operator.settings > docs/settings.md"
