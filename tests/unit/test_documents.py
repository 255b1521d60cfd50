"""What the documents name is there: files, make targets, commands with their flags, settings."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.invoking import commands

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
COMMANDS = dict(commands())
KEYS = set(re.findall(r"^\| `([\w.]+)` \| `(?:KFPOP_\w+)`", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE))
VARIABLES = set(re.findall(r"`(KFPOP_\w+)`", (ROOT / "docs" / "settings.md").read_text()))
FOLDERS = "kfp_operator|tests|examples|docs|\\.ci"

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def code(document: Path) -> list[str]:
    """Lines of code blocks, fenced or indented, with continued lines joined, and code in sentences."""
    text = document.read_text()
    fences = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks = "".join(fences) + "".join(re.findall(r"^    .*\n", rest, re.MULTILINE))
    return [*blocks.replace("\\\n", " ").splitlines(), *re.findall(r"`([^`\n]+)`", rest)]


def invocations(document: Path) -> Iterator[list[str]]:
    """The words of each ``kfp-operator ...`` in code."""
    for line in code(document):
        for part in re.split(r"\|\|?|&&?|(?:^|\s)#|[<>]", line):
            words = part.strip().removeprefix("$ ").split("kfp-operator ", 1)
            if len(words) == 2 and words[0] == "":
                yield shlex.split(words[1])


def command_of(words: list[str]) -> str:
    """The longest name of a command that the words begin with."""
    names = [" ".join(["kfp-operator", *words[:length]]) for length in (2, 1)]
    return next((name for name in names if name in COMMANDS), "")


@documents
def test_links_lead_somewhere(document: Path) -> None:
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()) if "://" not in target]
    assert [target for target in targets if target and not (document.parent / target).exists()] == []


@documents
def test_named_files_exist(document: Path) -> None:
    named = re.findall(rf"(?<![\w/.~-])(crds/|(?:{FOLDERS})/[\w./-]*\w)", document.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@documents
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {match for line in code(document) for match in re.findall(r"^(?:\$ )?make ([a-z][a-z-]*)", line.strip())}
    assert named <= targets


@documents
def test_commands_and_their_flags_exist(document: Path) -> None:
    wrong = []
    for words in invocations(document):
        name = command_of(words)
        if words[0].startswith("-") or words[0] == "COMMAND":
            continue  # --version and the like; any command
        if not name:
            wrong.append(words)
            continue
        known = {flag for parameter in COMMANDS[name].params for flag in parameter.opts} | {"--help"}
        wrong += [[name, flag] for word in words if (flag := word.partition("=")[0]).startswith("-") and flag not in known]
    assert wrong == []


@documents
def test_settings_exist(document: Path) -> None:
    inline = re.findall(r"`([^`\n]+)`", document.read_text())
    sections = {key.partition(".")[0] for key in KEYS if "." in key}
    named = {text for text in inline if re.fullmatch(r"[a-z]+[A-Za-z]*\.[A-Za-z.]+", text) and text.partition(".")[0] in sections}
    assert {key for key in named if key not in KEYS and not any(known.startswith(f"{key}.") for known in KEYS)} <= {"events.jsonl"}
    assert set(re.findall(r"KFPOP_\w+\w", document.read_text())) <= VARIABLES


def test_the_readers_of_the_documents_find_what_they_look_for() -> None:
    assert any(words[:2] == ["runs", "create"] for words in invocations(ROOT / "README.md"))
    assert "events.prefix" in KEYS
    assert "KFPOP_STATEDIR" in VARIABLES
    assert command_of(["runs", "wait", "penguin-1"]) == "kfp-operator runs wait"


def test_the_readme_opens_with_what_a_newcomer_does() -> None:
    block = re.search(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    assert [line.split("#")[0].strip() for line in block[1].splitlines()] == ["$ make demo", "$ make test"]
