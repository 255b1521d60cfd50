import re
import subprocess
import sys

import pytest

from kfp_operator import __version__
from kfp_operator.cli.exits import ExitCode, exit_code
from kfp_operator.errors import BusUnavailable, ConfigurationError, Forbidden, InvalidSpec, KfpOperatorError, Permanent
from tests.unit.cli.invoking import commands, invoke

HEAVY = ("kubernetes", "kopf", "nats", "kfp", "aiohttp", "pydantic", "cloudevents", "yaml", "rich")


def run_python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=30, check=False)


def test_version_is_told_by_the_module_too() -> None:
    result = run_python("-m", "kfp_operator", "--version")
    assert (result.returncode, result.stdout) == (0, f"kfp-operator {__version__}\n")


def test_nothing_heavy_is_imported_before_a_command_needs_it() -> None:
    code = f"import sys, kfp_operator.cli.main; print([m for m in {HEAVY} if m in sys.modules])"
    assert run_python("-c", code).stdout == "[]\n"


def test_without_a_command_the_help_is_shown() -> None:
    assert "doctor" in invoke().stdout


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_has_help_with_examples(name: str, command: object) -> None:
    result = invoke(*name.split()[1:], "--help")
    assert result.exit_code == 0
    assert "Examples" in result.stdout
    assert name in result.stdout.split("Examples")[1]


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_option_says_what_it_is_for(name: str, command: object) -> None:
    silent = [parameter.name for parameter in getattr(command, "params", ()) if not getattr(parameter, "help", "")]
    assert not silent


def test_examples_keep_their_lines() -> None:
    lines = [line.strip() for line in invoke("runs", "create", "--help").stdout.splitlines()]
    assert "kfp-operator runs create penguin-1 --pipeline penguin-pipeline" in lines
    assert "3   it had not ended after --timeout; it goes on" in lines


def test_an_unknown_command_is_wrong_usage() -> None:
    result = invoke("rnu")
    assert result.exit_code == ExitCode.USAGE
    assert "rnu" in result.stderr


def test_an_error_of_ours_is_one_line_without_a_trace() -> None:
    result = invoke("events", "schema", "nonsense")
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.startswith("Error: no event 'nonsense'")
    assert len(result.stderr.splitlines()) == 1
    assert not result.stdout


def test_debug_shows_the_traceback_of_an_error() -> None:
    result = invoke("--debug", "events", "schema", "nonsense")
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize("flags", [[], ["--debug"]])
def test_a_defect_is_a_line_to_report_and_a_code_of_its_own(flags: list[str]) -> None:
    code = (
        "import sys; sys.argv[1:] = ['--debug', 'broken'] if '--debug' in sys.argv else ['broken']\n"
        "from kfp_operator.cli.main import app, main\n"
        "@app.command()\n"
        "def broken() -> None:\n"
        "    [].pop()\n"
        "main()\n"
    )
    result = run_python("-c", code, *flags)
    assert result.returncode == ExitCode.DEFECT
    assert "unexpected IndexError: pop from empty list" in result.stderr
    assert ("Traceback" in result.stderr) is bool(flags)


def test_ctrl_c_ends_a_command_with_130() -> None:
    code = (
        "import sys; sys.argv[1:] = ['interrupted']\n"
        "from kfp_operator.cli.main import app, main\n"
        "@app.command()\n"
        "def interrupted() -> None:\n"
        "    raise KeyboardInterrupt\n"
        "main()\n"
    )
    result = run_python("-c", code)
    assert (result.returncode, result.stderr) == (ExitCode.INTERRUPTED, "")


def test_a_closed_pipe_ends_quietly() -> None:
    result = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m kfp_operator crds | head -n 1"], capture_output=True, text=True, timeout=30, check=True
    )
    assert re.match("# Generated", result.stdout)
    assert not result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("x"), ExitCode.USAGE),
        (Forbidden("x"), ExitCode.UNAVAILABLE),
        (BusUnavailable("x"), ExitCode.UNAVAILABLE),
        (InvalidSpec("x"), ExitCode.FAILED),
        (Permanent("x"), ExitCode.FAILED),
    ],
)
def test_each_error_has_its_exit_code(error: KfpOperatorError, code: ExitCode) -> None:
    assert exit_code(error) is code
