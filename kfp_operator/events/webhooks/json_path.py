"""Paths into JSON documents: the singular queries of RFC 9535, which lead to at most one value.

``$.repository.name``, ``$.resources[0]['tag name']``, ``$.items[-1]``.
"""

import re
from dataclasses import dataclass

_SEGMENT = re.compile(
    r"""\.(?P<name>[A-Za-z_\u0080-\U0010FFFF][A-Za-z0-9_\u0080-\U0010FFFF]*)
    | \[ \s* (?P<index> 0 | -?[1-9][0-9]{0,8} ) \s* \]
    | \[ \s* ' (?P<single> [^'\\\x00-\x1f]* ) ' \s* \]
    | \[ \s* " (?P<double> [^"\\\x00-\x1f]* ) " \s* \]""",
    re.VERBOSE,
)
_LONGEST = 200


class Missing:
    """What a path leads to that leads nowhere: JSON null is something else."""


MISSING = Missing()


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A path that was understood."""

    text: str
    segments: tuple[str | int, ...]

    def find(self, document: object) -> object:
        """What lies there, or MISSING."""
        for segment in self.segments:
            match document, segment:
                case dict(), str() if segment in document:
                    document = document[segment]
                case list(), int() if -len(document) <= segment < len(document):
                    document = document[segment]
                case _:
                    return MISSING
        return document


def parse_path(text: str) -> JsonPath:
    """Understand a path; ValueError says what can be written."""
    segments: list[str | int] = []
    place = 1
    if text.startswith("$") and len(text) <= _LONGEST:
        while place < len(text) and (found := _SEGMENT.match(text, place)):
            key = next(part for part in (found["name"], found["single"], found["double"], found["index"]) if part is not None)
            segments.append(int(key) if found["index"] is not None else key)
            place = found.end()
        if place == len(text):
            return JsonPath(text, tuple(segments))
    raise ValueError(f"{text[:_LONGEST]!r} is not a path to one value, as $.repository.name or $.items[0]['key']")
