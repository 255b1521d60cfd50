"""Finds RunConfigurations that would start each other for ever: a follows b, b follows a. Pure."""

from collections.abc import Callable, Iterable

Follows = Callable[[str], Iterable[str]]
"""The RunConfigurations whose success starts the given one, all as namespace/name."""


def loop_through(name: str, follows: Follows) -> tuple[str, ...]:
    """The shortest way from a RunConfiguration over those that it follows back to itself, both ends included; empty: there is none.

    The work is bounded by the number of references among the configurations that can be reached.
    """
    came_from: dict[str, str] = {}
    frontier = [name]
    while frontier:
        further = []
        for each in frontier:
            for source in follows(each):
                if source == name:
                    return _way(name, each, came_from)
                if source not in came_from:
                    came_from[source] = each
                    further.append(source)
        frontier = further
    return ()


def _way(name: str, last: str, came_from: dict[str, str]) -> tuple[str, ...]:
    """In the order in which runs would follow each other."""
    way = [name, last] if last != name else [name]
    while way[-1] != name:
        way.append(came_from[way[-1]])
    return (*way, name) if way == [name] else tuple(way)
