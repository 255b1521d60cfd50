"""What was measured, beside its bar."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One line. `bar`: what it should be, "" for a figure that is only compared with; `met`: whether it is."""

    what: str
    measured: str
    bar: str = ""
    met: bool = True


def show(figures: list[Figure]) -> bool:
    """Print all figures; whether all bars are met."""
    table = Table(box=None, pad_edge=False)
    for column in ("what", "measured", "bar", ""):
        table.add_column(column)
    for figure in figures:
        table.add_row(figure.what, figure.measured, figure.bar, "" if not figure.bar else "met" if figure.met else "[bold red]missed[/]")
    Console(width=140).print(table)
    return all(figure.met for figure in figures)
