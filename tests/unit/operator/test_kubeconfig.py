"""Kubeconfigs mean what they mean to kubectl."""

import base64
import os
import ssl
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from kfp_operator.errors import ConfigurationError
from kfp_operator.operator import kubeconfig
from kfp_operator.operator.kubeconfig import read_context


def write(folder: Path, name: str = "config", **parts: Any) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://api.example:6443/"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
        **parts,
    }
    path = folder / name
    path.write_text(yaml.safe_dump({key: value for key, value in document.items() if value is not None}))
    return path


def test_the_current_context_is_read(tmp_path: Path) -> None:
    context = read_context(str(write(tmp_path)))
    assert (context.name, context.namespace, context.server) == ("x", "default", "https://api.example:6443")
    assert kubeconfig.authorization(context) == "Bearer secret"
    assert not context.needs_plugin


def test_a_named_context_beats_the_current_one_and_brings_its_namespace(tmp_path: Path) -> None:
    contexts = [{"name": "x", "context": {"cluster": "c"}}, {"name": "y", "context": {"cluster": "c", "user": "u", "namespace": "team-a"}}]
    context = read_context(str(write(tmp_path, contexts=contexts)), "y")
    assert (context.name, context.namespace) == ("y", "team-a")


def test_several_files_are_merged_and_the_first_to_say_something_wins(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "token").write_text("from-file\n")
    first = write(tmp_path, "first", users=None, clusters=None, **{"current-context": ""})
    second = write(
        other,
        "second",
        clusters=[{"name": "c", "cluster": {"server": "http://second"}}],
        users=[{"name": "u", "user": {"tokenFile": "token"}}],
        contexts=[{"name": "x", "context": {"cluster": "elsewhere"}}],
    )
    third = write(tmp_path, "third", clusters=[{"name": "c", "cluster": {"server": "http://third"}}], **{"current-context": "other"})
    context = read_context(os.pathsep.join(map(str, (first, tmp_path / "absent", second, third))))
    assert context.server == "http://second"
    assert kubeconfig.authorization(context) == "Bearer from-file", "relative to the file that names it"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({}, None),
        ({"token": "t"}, "Bearer t"),
        ({"username": "a", "password": "b"}, "Basic " + base64.b64encode(b"a:b").decode()),
    ],
)
def test_a_user_is_authorized_by_what_stands_there(tmp_path: Path, user: dict[str, str], expected: str | None) -> None:
    context = read_context(str(write(tmp_path, users=[{"name": "u", "user": user}])))
    assert kubeconfig.authorization(context) == expected


def test_a_token_file_beats_a_token_and_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    context = read_context(str(write(tmp_path, users=[{"name": "u", "user": {"token": "t", "tokenFile": str(file)}}])))
    assert kubeconfig.authorization(context) == "Bearer one"
    file.write_text("two")
    assert kubeconfig.authorization(context) == "Bearer two"


@pytest.mark.parametrize("kind", ["exec", "auth-provider"])
def test_plugins_are_recognized(tmp_path: Path, kind: str) -> None:
    assert read_context(str(write(tmp_path, users=[{"name": "u", "user": {kind: {"command": "x"}}}]))).needs_plugin


def test_plain_http_needs_no_certificates(tmp_path: Path) -> None:
    context = read_context(str(write(tmp_path, clusters=[{"name": "c", "cluster": {"server": "http://127.0.0.1:8001"}}])))
    assert kubeconfig.tls(context) is None


def test_a_server_is_verified_unless_the_kubeconfig_says_otherwise(tmp_path: Path) -> None:
    verified = kubeconfig.tls(read_context(str(write(tmp_path))))
    assert verified is not None
    assert (verified.verify_mode, verified.check_hostname) == (ssl.CERT_REQUIRED, True)
    insecure = {"server": "https://x", "insecure-skip-tls-verify": True}
    unverified = kubeconfig.tls(read_context(str(write(tmp_path, clusters=[{"name": "c", "cluster": insecure}]))))
    assert unverified is not None
    assert (unverified.verify_mode, unverified.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.parametrize(
    ("parts", "name", "message"),
    [
        ({"current-context": ""}, None, "has no current-context: name one of 'x'"),
        ({}, "z", "has no context 'z', but 'x'"),
        ({"clusters": []}, None, "context 'x' refers to cluster 'c', which has no server there"),
        ({"users": [{"user": {}}]}, None, "each of users needs a name"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, parts: dict[str, Any], name: str | None, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_context(str(write(tmp_path, **parts)), name)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "cannot read kubeconfig"), ("- 1", "is not a mapping"), ("", "has no current-context: name one of none")],
)
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_context(str(tmp_path / "config"))


def test_no_file_at_all_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="name one with --kubeconfig or KUBECONFIG"):
        read_context(str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("cluster", "user", "message"),
    [
        ({"certificate-authority-data": "not base64!"}, {}, "certificate-authority-data is not base64"),
        ({"certificate-authority-data": base64.b64encode(b"no PEM").decode()}, {}, "the certificate authority cannot be loaded"),
        ({"certificate-authority": "absent.pem"}, {}, "names a file that cannot be read: .*absent.pem"),
        ({}, {"client-certificate-data": "eA==", "client-key-data": "eA=="}, "the client certificate cannot be loaded"),
    ],
)
def test_certificates_that_are_none_are_named(tmp_path: Path, cluster: dict[str, str], user: dict[str, str], message: str) -> None:
    parts: dict[str, Any] = {
        "clusters": [{"name": "c", "cluster": {"server": "https://x", **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    with pytest.raises(ConfigurationError, match=message):
        kubeconfig.tls(read_context(str(write(tmp_path, **parts))))


def test_nothing_secret_is_left_in_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    user = {"client-certificate-data": "eA==", "client-key-data": "eA=="}
    path = write(tmp_path, users=[{"name": "u", "user": user}])
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    with pytest.raises(ConfigurationError):
        kubeconfig.tls(read_context(str(path)))
    assert list(tmp_path.iterdir()) == [path]
