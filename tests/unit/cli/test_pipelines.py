from pathlib import Path

import pytest
import typer

from kfp_operator.cli.exits import ExitCode
from kfp_operator.cli.pipelines import split
from tests.unit.cli.invoking import invoke


@pytest.mark.parametrize(("suffix", "function"), [("", None), (":train", "train")])
def test_a_file_may_name_one_of_its_functions(tmp_path: Path, suffix: str, function: str | None) -> None:
    file = tmp_path / "pipeline.py"
    file.touch()
    assert split(f"{file}{suffix}") == (file, function)


@pytest.mark.parametrize("suffix", [":", ":a-b", ":1"])
def test_what_cannot_be_a_function_is_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "pipeline.py").touch()
    with pytest.raises(typer.BadParameter, match=r"as in pipeline\.py:train"):
        split(f"{tmp_path / 'pipeline.py'}{suffix}")


def test_a_file_that_is_not_there_is_named() -> None:
    result = invoke("pipelines", "build", "nothing.py:train")
    assert result.exit_code == ExitCode.USAGE
    assert "there is no file nothing.py" in result.stderr


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").touch()
    result = invoke("pipelines", "build", tmp_path / "pipeline.py", "--output", tmp_path / "no" / "such" / "folder.yaml")
    assert result.exit_code == ExitCode.USAGE
    assert "--output" in result.stderr
