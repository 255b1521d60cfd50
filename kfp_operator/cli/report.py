"""What a check found: one line with what is wrong and what helps."""

from dataclasses import dataclass
from enum import StrEnum

from rich.console import Console
from rich.text import Text

from kfp_operator.cli.progress import clean


class Level(StrEnum):
    """How bad it is. Only FAIL keeps the operator from working."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    level: Level
    subject: str
    message: str
    remedy: str = ""


def ok(subject: str, message: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, subject, message)


def warn(subject: str, message: str, remedy: str = "") -> Finding:
    """It works, but less well than it could, or not for long."""
    return Finding(Level.WARN, subject, message, remedy)


def fail(subject: str, message: str, remedy: str) -> Finding:
    """The operator cannot work like this."""
    return Finding(Level.FAIL, subject, message, remedy)


def show(finding: Finding, console: Console) -> None:
    """Print it on one line."""
    line = Text.assemble((f"{finding.level:<5}", _COLOURS[finding.level]), f" {finding.subject:<12} ", clean(finding.message))
    if finding.remedy:
        line.append(f". Remedy: {clean(finding.remedy)}")
    console.print(line, soft_wrap=True)
