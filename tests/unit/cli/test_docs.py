import re
from pathlib import Path

import pytest

from kfp_operator.cli.exits import ExitCode
from tests.unit.cli.invoking import commands

DOCUMENT = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
COMMANDS = [name for name, _ in commands()]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_reference(name: str) -> None:
    assert f"| `{name}` |" in DOCUMENT


def test_the_reference_names_no_command_that_does_not_exist() -> None:
    assert set(re.findall(r"^\| `(kfp-operator [a-z ]+)` \|", DOCUMENT, re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_option_is_in_the_reference(name: str, command: object) -> None:
    options = {option for parameter in getattr(command, "params", ()) for option in parameter.opts if option.startswith("--")}
    assert not {option for option in options - {"--help"} if not re.search(rf"{option}(?![a-z-])", DOCUMENT)}


def test_the_reference_names_no_option_that_does_not_exist() -> None:
    known = {option for _, command in commands() for parameter in getattr(command, "params", ()) for option in parameter.opts}
    others = {"--help", "--debug", "--version", "--install-completion", "--server-side", "--force-conflicts"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", DOCUMENT)) <= known | others


@pytest.mark.parametrize("code", list(ExitCode))
def test_every_exit_code_is_in_the_reference(code: ExitCode) -> None:
    assert re.search(rf"^\| {int(code)} \|", DOCUMENT, re.MULTILINE)
