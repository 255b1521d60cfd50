from io import StringIO

import pytest
from rich.console import Console

from kfp_operator.cli.progress import Line, view
from kfp_operator.cli.waiting import Plain, Terminal, display
from tests.builders import at, run


def console(*, terminal: bool) -> Console:
    return Console(file=StringIO(), force_terminal=terminal, width=60, color_system=None, _environ={"TERM": "xterm", "TZ": "UTC"})


def printed(to: Console) -> str:
    assert isinstance(to.file, StringIO)
    return to.file.getvalue()


def test_a_terminal_gets_a_line_that_moves_and_anything_else_does_not() -> None:
    assert isinstance(display(console(terminal=True)), Terminal)
    assert not isinstance(display(console(terminal=False)), Terminal)


@pytest.mark.parametrize("terminal", [True, False])
def test_what_happened_stays_whole_on_one_line(terminal: bool) -> None:
    to = console(terminal=terminal)
    with display(to) as shown:
        shown.happened(Line("failed", "step [bold]train[/bold] " + "x" * 100, at(0)))
    assert f"failed        step [bold]train[/bold] {'x' * 100}\n" in printed(to)


def test_the_moving_line_says_how_it_stands_and_is_gone_at_the_end() -> None:
    to = console(terminal=True)
    now = run(status={"state": "running", "attempt": 2, "message": "[red]collecting"})
    with display(to) as shown:
        shown.present(now, view(now))
    assert "team/train-1 running (attempt 2): [red]collecting" in printed(to)
    assert printed(to).endswith("\x1b[2K")


def test_an_outage_is_told_once() -> None:
    to = console(terminal=False)
    now = run()
    with Plain(to) as shown:
        for _ in range(3):
            shown.trouble("refused")
        shown.present(now, view(now))
        shown.trouble("refused")
    assert printed(to).count("refused") == 2
