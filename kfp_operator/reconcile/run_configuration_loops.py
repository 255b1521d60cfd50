"""Finds RunConfigurations that would start each other for ever: a follows b, b follows a. Pure."""

from collections.abc import Callable, Iterable, Mapping

Follows = Callable[[str], Iterable[str]]
"""The RunConfigurations whose success starts the given one, all as namespace/name."""
Loops = Mapping[str, tuple[str, ...]]
"""For each RunConfiguration that is followed and closes a loop: the loop, in the order in which runs would start each other."""


def loops_of(name: str, follows: Follows) -> Loops:
    """The shortest loop through a RunConfiguration by way of each that it follows, as (name, ..., followed, name).

    The work is bounded by the number of references among the configurations that can be reached.
    """
    found = {}
    for followed in dict.fromkeys(follows(name)):
        if way := _way(name, followed, follows):
            found[followed] = (*way, name)
    return found


def _way(name: str, followed: str, follows: Follows) -> tuple[str, ...]:
    """How runs of `name` would come to start `followed`; empty: they would not."""
    starts = {followed: ""}
    frontier = [followed]
    while frontier:
        further = []
        for each in frontier:
            if each == name:
                way = [name]
                while starts[way[-1]]:
                    way.append(starts[way[-1]])
                return tuple(way) if len(way) > 1 else (name,)
            for source in follows(each):
                if source not in starts:
                    starts[source] = each
                    further.append(source)
        frontier = further
    return ()
