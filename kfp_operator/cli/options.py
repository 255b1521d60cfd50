"""Flags that several commands share, so that they have one spelling and one meaning.

Everything that costs time to import (pydantic, aiohttp, the Kubernetes client) is imported inside functions, here and in the
modules with commands: ``--help`` and shell completion answer at once.
"""

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from kfp_operator.settings import Settings

PROGRAM = "kfp-operator"

_PARTS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_DURATION = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings in YAML. The environment (KFPOP_...) beats it, flags beat both.", rich_help_panel="Where"
    ),
]
Kubeconfig = Annotated[
    str | None,
    typer.Option(
        "--kubeconfig",
        metavar="FILE",
        help="Kubeconfig of the cluster. Default: KUBECONFIG, in a pod its service account, else ~/.kube/config.",
        rich_help_panel="Where",
    ),
]
Context = Annotated[
    str | None,
    typer.Option("--context", metavar="NAME", help="Context of the kubeconfig. Default: the current one.", rich_help_panel="Where"),
]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", metavar="NAME", help="Namespace. Default: that of the context.", rich_help_panel="Where"),
]
Namespaces = Annotated[
    list[str] | None,
    typer.Option(
        "--namespace", "-n", metavar="NAME", help="A namespace to serve; may be given several times. Default: all.", rich_help_panel="Where"
    ),
]
Nats = Annotated[
    list[str] | None,
    typer.Option(
        "--nats",
        metavar="URL",
        help="NATS server, as nats://127.0.0.1:4222; may be given several times. Default: the setting nats.servers, "
        "else the private server of an operator on this machine.",
        rich_help_panel="Where",
    ),
]
StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        help="Folder of local runs and of the private NATS server. Default: the setting stateDir.",
        rich_help_panel="Where",
    ),
]


def examples(*lines: str) -> str:
    """The end of a command's help: commands to copy. A line that starts with "#" explains the next one."""
    return "\n".join(["[bold]Examples[/bold]", "", *(f"[dim]{line}[/dim]" if line.startswith("#") else line for line in lines)])


def exit_codes(*lines: str) -> str:
    """The part of a command's help that scripts rely on."""
    return "\n".join(["", "", "[bold]Exit codes[/bold]", "", *lines])


def duration(text: str) -> timedelta:
    """A length of time as people type it: 90s, 10m, 1h30m, 2d. Raises typer.BadParameter for anything else, and for none at all."""
    found = _DURATION.fullmatch(text.strip())
    parts = {unit: float(value) for unit, value in zip(_PARTS.values(), found.groups(), strict=True) if value} if found else {}
    try:
        length = timedelta(**parts)
    except OverflowError:
        length = timedelta()
    if length <= timedelta():
        raise typer.BadParameter(f"{text!r} is not a length of time, as 90s, 10m or 1h30m")
    return length


def pair(what: str) -> Callable[[str], tuple[str, str]]:
    """A parser of ``name=value`` for `what`."""

    def parse(text: str) -> tuple[str, str]:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{text!r} is not {what}, as name=value")
        return name.strip(), value

    return parse


def settings(config: Path | None, **flags: Any) -> "Settings":
    """The settings from file, environment and flags, of which None was not given. ConfigurationError says what is wrong with them."""
    from kfp_operator.settings import load

    return load(config, flags)


def nats_flags(servers: list[str] | None) -> dict[str, Any]:
    """``--nats`` as a setting."""
    return {"servers": servers or None}
