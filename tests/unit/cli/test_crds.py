from pathlib import Path

import pytest
import yaml

from kfp_operator.api.crd import crd_files, crd_yaml
from kfp_operator.cli.exits import ExitCode
from tests.unit.cli.invoking import invoke


def test_all_kinds_are_printed_as_one_stream_for_kubectl() -> None:
    result = invoke("crds")
    assert result.exit_code == 0
    assert result.stdout == crd_yaml()


def test_another_api_group_comes_from_the_flag_or_the_setting() -> None:
    by_flag = invoke("crds", "--api-group", "ml.example.org")
    by_environment = invoke("crds", env={"KFPOP_API_GROUP": "ml.example.org"})
    assert by_flag.stdout == by_environment.stdout
    names = {document["metadata"]["name"] for document in yaml.safe_load_all(by_flag.stdout)}
    kinds = ("providers", "pipelines", "experiments", "runs", "runconfigurations", "runschedules")
    assert names == {f"{plural}.ml.example.org" for plural in kinds}


@pytest.mark.parametrize("group", ["", "Example.org", "nodots", "a b.c", "-a.b", "a" * 250 + ".org"])
def test_what_cannot_be_an_api_group_is_refused(group: str) -> None:
    result = invoke("crds", "--api-group", group)
    assert result.exit_code == ExitCode.USAGE
    assert "--api-group" in result.stderr


def test_one_file_per_kind_is_written_to_a_folder(tmp_path: Path) -> None:
    result = invoke("crds", "--output", tmp_path / "new" / "crds")
    assert result.exit_code == 0
    assert {path.name: path.read_text() for path in (tmp_path / "new" / "crds").iterdir()} == crd_files()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = invoke("crds", "--output", tmp_path / "file")
    assert result.exit_code == ExitCode.USAGE
    assert "file" in result.stderr
