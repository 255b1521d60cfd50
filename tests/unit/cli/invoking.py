"""Calls commands in this process, as a shell would, and walks through them."""

from collections.abc import Iterator
from typing import Any

import typer
from typer.testing import CliRunner, Result

from kfp_operator.cli.main import app

WIDE = {"TERMINAL_WIDTH": "200", "COLUMNS": "200", "NO_COLOR": "1"}


def invoke(*args: object, env: dict[str, str] | None = None) -> Result:
    """The result of a command: exit_code, stdout, stderr."""
    return CliRunner().invoke(app, [str(arg) for arg in args], env={**WIDE, "KUBECONFIG": "", **(env or {})})


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name, without the groups."""
    yield from _below(typer.main.get_command(app), "kfp-operator")


def _below(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for child, below in children.items():
        yield from _below(below, f"{name} {child}")
