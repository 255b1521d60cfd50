from typing import Any

import pytest
import yaml

from kfp_operator.cli.exits import ExitCode
from tests.unit.cli.invoking import invoke


def dry_run(*args: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    result = invoke("runs", "create", "--dry-run", *args, env=env)
    assert result.exit_code == 0, result.stderr
    document: dict[str, Any] = yaml.safe_load(result.stdout)
    return document


def test_a_dry_run_prints_only_what_was_said() -> None:
    assert dry_run("penguin-1", "--pipeline", "penguin") == {
        "apiVersion": "kfp-operator.dev/v1beta1",
        "kind": "Run",
        "metadata": {"name": "penguin-1"},
        "spec": {"pipeline": "penguin"},
    }


def test_values_of_parameters_stay_text_which_the_pipeline_gives_a_type() -> None:
    spec = dry_run("p", "--pipeline", "penguin", "-p", "epochs=3", "-p", "on=true", "-p", "none=")["spec"]
    assert [parameter["value"] for parameter in spec["parameters"]] == ["3", "true", ""]


def test_the_api_group_is_a_setting() -> None:
    document = dry_run("p", "--pipeline", "penguin", env={"KFPOP_API_GROUP": "ml.example.org"})
    assert document["apiVersion"] == "ml.example.org/v1beta1"


def test_a_prefix_takes_the_place_of_a_name() -> None:
    document = dry_run("--generate-name", "penguin-", "--pipeline", "penguin", "-n", "team-a")
    assert document["metadata"] == {"generateName": "penguin-", "namespace": "team-a"}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["p"], "--pipeline"),
        (["--pipeline", "x"], "either a name or --generate-name"),
        (["p", "--generate-name", "q-", "--pipeline", "x"], "either a name or --generate-name"),
        (["p", "--pipeline", "x", "-p", "novalue"], "name=value"),
        (["p", "--pipeline", "x", "-p", "a=1", "-p", "a=2"], "a given more than once"),
        (["p", "--pipeline", "x", "--artifact", "a=b:c", "--artifact", "a=b:d"], "a given more than once"),
        (["p", "--pipeline", "x", "--dry-run", "--wait"], "nothing to wait for"),
        (["p", "--pipeline", "x", "--timeout", "soon"], "90s, 10m or 1h30m"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(args: list[str], told: str) -> None:
    result = invoke("runs", "create", *args)
    assert result.exit_code == ExitCode.USAGE
    assert told in " ".join(result.stderr.split())


def test_without_a_kubeconfig_it_is_said_how_to_name_one(tmp_path: object) -> None:
    result = invoke("runs", "wait", "p", env={"HOME": str(tmp_path)})
    assert result.exit_code == ExitCode.USAGE
    assert "--kubeconfig" in result.stderr
