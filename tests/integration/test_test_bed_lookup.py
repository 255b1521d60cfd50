"""Which cluster the test bed takes, and how its programs come to be built once."""

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import BuildError, ControlPlane, Progress, background, build, open_cluster
from tests.cluster.build import PACKAGES, built_folder
from tests.cluster.folders import cache_folder, try_lock
from tests.cluster.kubeconfig import Connection, read, write, write_impersonating
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder of the test's own, a PATH without Go and docker, and no package index: nothing can be built by mistake."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


@pytest.fixture
def told() -> Iterator[io.StringIO]:
    with io.StringIO() as stream:
        yield stream


def programs(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch(mode=0o755)
    return folder


def test_an_explicit_kubeconfig_goes_before_everything(tmp_path: Path, told: io.StringIO) -> None:
    programs(tmp_path / "bin", "kubectl")
    assets = programs(tmp_path / "assets", *PACKAGES)
    mine = write(tmp_path / "mine", Connection("https://mine:6443", "", ""), user="me")
    cluster = open_cluster(mine, progress=Progress(told), environment={"KUBEBUILDER_ASSETS": str(assets), "CLUSTER": "kind"})
    assert cluster.kubeconfig == mine
    assert cluster.url == "https://mine:6443"
    assert told.getvalue() == f"cluster: the one of {mine}, as asked for\n"


def test_a_kubeconfig_that_is_not_there_is_an_error(tmp_path: Path, told: io.StringIO) -> None:
    with pytest.raises(FileNotFoundError, match="there is no kubeconfig"):
        open_cluster(tmp_path / "absent", progress=Progress(told))


def test_assets_of_envtest_go_before_a_build(tmp_path: Path, told: io.StringIO) -> None:
    programs(built_folder(), *PACKAGES)
    assets = programs(tmp_path / "assets", "kube-apiserver", "etcd", "kubectl")
    cluster = open_cluster(progress=Progress(told), environment={"KUBEBUILDER_ASSETS": str(assets)})
    assert f"KUBEBUILDER_ASSETS={assets}" in told.getvalue()
    assert not cluster.has_controller_manager


def test_incomplete_assets_are_named_and_passed_over(tmp_path: Path, told: io.StringIO) -> None:
    programs(built_folder(), *PACKAGES)
    assets = programs(tmp_path / "assets", "kubectl")
    cluster = open_cluster(progress=Progress(told), environment={"KUBEBUILDER_ASSETS": str(assets)})
    assert f"KUBEBUILDER_ASSETS={assets} cannot be used: it has no kube-apiserver, etcd" in told.getvalue()
    assert "built earlier" in cluster.why
    assert cluster.has_controller_manager


def test_kind_without_an_engine_is_said_and_passed_over(told: io.StringIO) -> None:
    programs(built_folder(), *PACKAGES)
    cluster = open_cluster(progress=Progress(told), environment={"CLUSTER": "kind"})
    assert "CLUSTER=kind cannot be used: there is no kind on PATH" in told.getvalue()
    assert "built earlier" in cluster.why


def test_an_exported_kubeconfig_is_never_used(tmp_path: Path, told: io.StringIO) -> None:
    programs(built_folder(), *PACKAGES)
    exported = write(tmp_path / "exported", Connection("https://production:6443", "", ""), user="me")
    cluster = open_cluster(progress=Progress(told), environment={"KUBECONFIG": str(exported)})
    assert "built earlier" in cluster.why


def test_without_a_go_and_an_index_the_error_says_what_to_install(told: io.StringIO) -> None:
    with pytest.raises(BuildError, match=r"(?s)there is no Go on PATH.*Install Go 1\.26 or newer, or set KUBEBUILDER_ASSETS"):
        open_cluster(progress=Progress(told), environment={})


def test_a_go_that_fails_is_quoted_and_leaves_no_program(tmp_path: Path, told: io.StringIO) -> None:
    go = programs(tmp_path / "bin") / "go"
    go.write_text('#!/bin/sh\n[ "$1" = env ] && echo go1.26.0 && exit\necho "cannot find module providing package" >&2\nexit 1\n')
    go.chmod(0o755)
    with pytest.raises(BuildError, match="cannot find module providing package"):
        build(["etcd"], Progress(told))
    assert not any(built_folder().iterdir())


def test_who_comes_second_waits_for_the_build_of_the_first(told: io.StringIO) -> None:
    lock = try_lock(cache_folder() / "build.lock")
    assert lock is not None
    second = threading.Thread(target=build, args=(PACKAGES, Progress(told)))
    second.start()
    eventually(lambda: "another process is building" in told.getvalue(), 10, "the second tells that it waits")
    programs(built_folder(), *PACKAGES)
    lock.close()
    second.join(timeout=10)
    assert not second.is_alive()
    assert "Go" not in told.getvalue(), "it uses what the first one built"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m tests.cluster``."""
    return subprocess.run([sys.executable, "-m", "tests.cluster", *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_the_cluster_in_the_background_is_used_again_until_it_is_taken_down(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(control_plane.kubectl_binary.parent))
    first = run("up")
    try:
        assert first.returncode == 0, first.stderr
        assert "export KUBECONFIG=" in first.stdout
        assert run("up").stdout == first.stdout
        assert run("status").returncode == 0
        assert "runs.kfp-operator.dev" in run("kubectl", "get", "crds").stdout
    finally:
        down = run("down")
    assert down.stdout == "the cluster is down\n"
    assert run("status").returncode == 1
    assert run("down").stdout == "no cluster runs in the background\n"


def test_a_cluster_in_the_background_that_was_killed_is_not_taken_for_a_running_one(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(control_plane.kubectl_binary.parent))
    assert run("up").returncode == 0
    running = background.find()
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    eventually(lambda: background.find() is None, 10, "it counts as gone")
    assert run("kubectl", "get", "pods").stderr == "no cluster runs in the background; start one with `make cluster-up`\n"


def test_an_impersonating_kubeconfig_keeps_the_connection(tmp_path: Path) -> None:
    original = write(tmp_path / "original", Connection("https://mine:6443", "PEM", "secret"), user="me")
    copy = write_impersonating(tmp_path / "copy", original, user="ann", groups=("readers",))
    assert read(copy) == read(original) == Connection("https://mine:6443", "PEM", "secret")
    assert "as: ann" in copy.read_text()
    assert copy.stat().st_mode & 0o077 == 0
