import asyncio
import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kfp_operator.api.crd import KINDS, crds
from kfp_operator.cli.exits import ExitCode
from kfp_operator.events.streams import Streams
from kfp_operator.events.subjects import Subjects
from kfp_operator.operator.permissions import permissions, rules
from kfp_operator.operator.resources import Kinds
from kfp_operator.settings import EventsSettings
from tests.cluster import Cluster, ControlPlane, NatsServer, free_port
from tests.integration.cli.shell import Shell
from tests.integration.events.rigs import connected

Install = Callable[[list[dict[str, Any]]], None]


@pytest.fixture
def group() -> str:
    """An API group that no other test has."""
    return f"t{secrets.token_hex(4)}.example.org"


@pytest.fixture
def install(cluster: Cluster, group: str) -> Iterator[Install]:
    """Installs CRDs of the group, and removes them at the end."""

    def apply(documents: list[dict[str, Any]]) -> None:
        cluster.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(documents))
        for document in documents:
            cluster.kubectl("wait", "--for=condition=Established", "crd", document["metadata"]["name"])

    yield apply
    names = [document["metadata"]["name"] for document in crds(group)]
    cluster.kubectl("delete", "crd", *names, "--ignore-not-found", "--wait=false")


@pytest.fixture
def role(cluster: Cluster) -> Iterator[Callable[[str, list[dict[str, Any]]], None]]:
    """Gives a user a ClusterRole with these rules, for one test."""
    name = f"test-{secrets.token_hex(4)}"

    def grant(user: str, granted: list[dict[str, Any]]) -> None:
        api = "rbac.authorization.k8s.io"
        cluster.apply(
            {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": granted},
            {
                "apiVersion": f"{api}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": name},
                "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
                "subjects": [{"apiGroup": api, "kind": "User", "name": user}],
            },
        )

    yield grant
    cluster.kubectl("delete", "clusterrole,clusterrolebinding", name, "--ignore-not-found")


def findings(output: str, level: str) -> list[str]:
    return [line for line in output.splitlines() if line.split()[0] == level]


def make_streams(server: NatsServer) -> None:
    async def make() -> None:
        async with connected(server) as bus:
            await Streams(bus, Subjects(), EventsSettings()).ensure()

    asyncio.run(make())


def with_api(server: NatsServer, operation: str, document: dict[str, Any] | None = None) -> None:
    async def work() -> None:
        async with connected(server) as bus:
            await bus.api(operation, document)

    asyncio.run(work())


def add_stream(server: NatsServer, name: str, *subjects: str) -> None:
    with_api(server, f"STREAM.CREATE.{name}", {"name": name, "subjects": list(subjects)})


def test_all_is_well_for_an_administrator_with_streams(shell: Shell, nats: NatsServer) -> None:
    make_streams(nats)
    result = shell.run("doctor", "--nats", nats.url)
    assert result.exit_code == ExitCode.OK, result.stdout
    assert not findings(result.stdout, "FAIL")
    assert not findings(result.stdout, "warn")
    said = result.stdout
    for expected in (
        "API server",
        "clocks",
        *(f"kind {kind.name} ({kind.plural}.kfp-operator.dev) is current" for kind in KINDS),
        "permissions",
        "nats-server 2.",
        "JetStream",
        "kfp-operator-runs: 0",
    ):
        assert expected in said


def test_each_finding_is_one_line_however_narrow_the_terminal(shell: Shell, nats: NatsServer) -> None:
    lines = shell.run("doctor", "--nats", nats.url, env={"COLUMNS": "40"}).stdout.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "warn", "FAIL"}


def test_missing_streams_are_a_warning_because_the_operator_makes_them(shell: Shell, nats: NatsServer) -> None:
    result = shell.run("doctor", "--nats", nats.url)
    assert result.exit_code == ExitCode.OK
    assert len(findings(result.stdout, "warn")) == 4
    assert "the operator makes it when it starts" in result.stdout


def test_missing_streams_are_a_failure_when_they_are_somebody_elses(shell: Shell, nats: NatsServer) -> None:
    result = shell.run("doctor", "--nats", nats.url, env={"KFPOP_EVENTS__MANAGE_STREAMS": "false"})
    assert result.exit_code == ExitCode.FAILED
    assert "make it with subjects events.run-completion.>" in result.stdout


def test_streams_that_somebody_else_made_are_judged_as_the_operator_judges_them(shell: Shell, nats: NatsServer) -> None:
    make_streams(nats)
    foreign = {"KFPOP_EVENTS__MANAGE_STREAMS": "false"}
    assert "fit for use" in shell.run("doctor", "--nats", nats.url, env=foreign).stdout
    runs = Subjects().stream("runs")
    with_api(nats, f"STREAM.DELETE.{runs}")
    add_stream(nats, runs, *Subjects().stored_by("runs"))
    result = shell.run("doctor", "--nats", nats.url, env=foreign)
    assert result.exit_code == ExitCode.FAILED
    assert f"stream {runs} allows no message TTL" in findings(result.stdout, "FAIL")[0]


def test_a_stream_that_stores_our_subjects_is_named(shell: Shell, nats: NatsServer) -> None:
    add_stream(nats, "everything", "events.>")
    result = shell.run("doctor", "--nats", nats.url)
    assert result.exit_code == ExitCode.FAILED
    assert "stream everything stores events.run-completion.>" in findings(result.stdout, "FAIL")[0]


def test_a_stream_with_other_limits_is_a_warning(shell: Shell, nats: NatsServer) -> None:
    make_streams(nats)
    result = shell.run("doctor", "--nats", nats.url, env={"KFPOP_EVENTS__RETENTION": "3600"})
    assert result.exit_code == ExitCode.OK
    assert any(
        "kfp-operator-runs differs in duplicate_window, max_age" in line or "differs in max_age" in line
        for line in findings(result.stdout, "warn")
    )


def test_an_absent_nats_is_a_failure_with_its_address(shell: Shell) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    result = shell.run("doctor", "--nats", url)
    assert result.exit_code == ExitCode.FAILED
    [line] = findings(result.stdout, "FAIL")
    assert url in line
    assert "Remedy" in line


def test_without_any_nats_a_laptop_is_told_that_one_will_be_started(shell: Shell) -> None:
    result = shell.run("doctor")
    assert result.exit_code == ExitCode.OK
    [line] = findings(result.stdout, "warn")
    assert "kfp-operator run starts a private one" in line


def test_a_server_without_jetstream_is_a_failure(shell: Shell) -> None:
    with NatsServer(jetstream=False) as server:
        result = shell.run("doctor", "--nats", server.url)
    assert result.exit_code == ExitCode.FAILED
    assert "JetStream is not enabled" in findings(result.stdout, "FAIL")[0]


def test_an_absent_cluster_does_not_keep_nats_from_being_checked(shell: Shell, cluster: Cluster, nats: NatsServer, tmp_path: Path) -> None:
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    address = f"https://127.0.0.1:{free_port()}"
    document["clusters"][0]["cluster"]["server"] = address
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(document))
    result = shell.run("doctor", "--kubeconfig", kubeconfig, "--nats", nats.url)
    assert result.exit_code == ExitCode.FAILED
    [line] = findings(result.stdout, "FAIL")
    assert address in line
    assert "nats-server 2." in result.stdout


def test_a_kubeconfig_that_is_not_there_is_a_finding(shell: Shell, nats: NatsServer, tmp_path: Path) -> None:
    result = shell.run("doctor", "--kubeconfig", tmp_path / "none", "--nats", nats.url)
    assert result.exit_code == ExitCode.FAILED
    assert "there is no kubeconfig" in findings(result.stdout, "FAIL")[0]


def test_missing_crds_are_named_with_the_command_that_installs_them(shell: Shell, group: str, nats: NatsServer) -> None:
    result = shell.run("doctor", "--nats", nats.url, env={"KFPOP_API_GROUP": group})
    assert result.exit_code == ExitCode.FAILED
    failed = findings(result.stdout, "FAIL")
    assert all(f"kind {kind.name} is not installed" in line for kind, line in zip(KINDS, failed, strict=True))
    assert all(f"kfp-operator crds --api-group {group} | kubectl apply --server-side --force-conflicts -f -" in line for line in failed)


def test_an_older_crd_is_a_failure_that_names_the_field(shell: Shell, group: str, install: Install) -> None:
    older = crds(group)
    version = older[2]["spec"]["versions"][0]
    del version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["ttlSecondsAfterFinished"]
    install(older)
    result = shell.run("doctor", env={"KFPOP_API_GROUP": group})
    assert result.exit_code == ExitCode.FAILED
    [line] = findings(result.stdout, "FAIL")
    assert "kind Run" in line
    assert "spec.ttlSecondsAfterFinished is missing" in line


def test_other_words_and_columns_are_a_warning(shell: Shell, group: str, install: Install) -> None:
    other = crds(group)
    other[0]["spec"]["versions"][0]["additionalPrinterColumns"].pop()
    properties = other[1]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    properties["spec"]["properties"]["provider"]["description"] = "Another text."
    install(other)
    result = shell.run("doctor", env={"KFPOP_API_GROUP": group})
    assert result.exit_code == ExitCode.OK
    warned = findings(result.stdout, "warn")
    assert [kind in " ".join(warned) for kind in ("kind Provider", "kind Pipeline", "kind Run")] == [True, True, False]


def test_a_kind_of_the_same_name_with_another_version_is_a_failure(shell: Shell, group: str, install: Install) -> None:
    foreign = crds(group)
    foreign[1]["spec"]["versions"][0]["name"] = "v2beta1"
    install(foreign)
    result = shell.run("doctor", env={"KFPOP_API_GROUP": group})
    assert result.exit_code == ExitCode.FAILED
    assert "is installed without version v1beta1; it has v2beta1" in findings(result.stdout, "FAIL")[0]


def test_a_user_without_rights_is_told_which_are_missing(shell: Shell, control_plane: ControlPlane) -> None:
    kubeconfig = control_plane.kubeconfig_for("guest")
    result = shell.run("doctor", "--kubeconfig", kubeconfig)
    assert result.exit_code == ExitCode.FAILED
    [line] = findings(result.stdout, "FAIL")
    assert "guest may not get, list, watch, patch providers.kfp-operator.dev" in line
    assert "whether runs.kfp-operator.dev is current is unknown" in result.stdout


def test_the_rules_made_of_the_table_are_all_that_is_asked_for(
    shell: Shell, control_plane: ControlPlane, role: Callable[[str, list[dict[str, Any]]], None]
) -> None:
    kubeconfig = control_plane.kubeconfig_for("operator")
    role("operator", rules(permissions(Kinds())))
    result = shell.run("doctor", "--kubeconfig", kubeconfig)
    assert result.exit_code == ExitCode.OK, result.stdout
    assert "operator may do all of the" in result.stdout


def test_one_missing_verb_in_one_namespace_is_told_exactly(
    shell: Shell, control_plane: ControlPlane, namespace: str, role: Callable[[str, list[dict[str, Any]]], None]
) -> None:
    kubeconfig = control_plane.kubeconfig_for("operator")
    granted = rules(permissions(Kinds()))
    without = [rule for rule in granted if rule["resources"] != ["runs/status"]]
    assert len(without) == len(granted) - 1
    role("operator", without)
    result = shell.run("doctor", "--kubeconfig", kubeconfig, "-n", namespace)
    [line] = findings(result.stdout, "FAIL")
    assert f"operator may not patch runs.kfp-operator.dev/status in namespace {namespace}. Remedy" in line


def test_settings_that_cannot_be_used_are_wrong_usage(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "operator.yaml").write_text(json.dumps({"natz": {}}))
    result = shell.run("doctor", "--config", tmp_path / "operator.yaml")
    assert result.exit_code == ExitCode.USAGE
    assert "natz" in result.stderr
