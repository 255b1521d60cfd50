"""Filters on an artifact's metadata: the expression language of the Go operator, which is hashicorp/go-bexpr.

::

    pushed == 1 and (framework != tf or name matches `^penguin`)

- ``selector == value``, ``!=``, ``contains`` / ``not contains``, ``matches`` / ``not matches`` (RE2, not anchored),
  ``value in selector`` / ``not in``, ``selector is empty`` / ``is not empty``
- ``not``, ``and``, ``or`` (``and`` binds tighter, both stop at the first side that decides), parentheses
- ``any selector as item { ... }``, ``all selector as key, item { ... }``, with ``_`` for a name that is not used
- a selector is ``name.name.0``, or a JSON pointer in quotes for other names: ``"/a-b/c"``
- a value is a bare word, a number, ``"text"`` or ```text```. There is no ``<`` or ``>``.

A value takes the type of what it is compared with: ``pushed == 1`` holds for 1, 1.0, true and "1". A missing key at the top is an
error, whatever the operator; a missing key inside a map compares as unequal, contains and matches nothing, and is empty. An error
decides the whole filter. All of that is go-bexpr's; only that an error is told, instead of dropping the artifact in silence, is ours.

Filters and metadata are users' data: length, nesting and the number of comparisons are bounded, matching is linear (RE2).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import re2

from kfp_operator.errors import InvalidSpec

MAX_LENGTH = 1024
"""Characters of a filter."""
MAX_DEPTH = 32
"""Levels of parentheses, ``not`` and collections."""
MAX_STEPS = 100_000
"""Comparisons for one artifact; only nested collections get near it."""

REASON = "InvalidArtifactFilter"

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    | (?P<operator>==|!=)
    | (?P<punctuation>[(){},])
    | (?P<blank>_(?!\w))
    | (?P<word>[a-zA-Z][a-zA-Z0-9_/]*(?:\.(?:[a-zA-Z][a-zA-Z0-9_/]*|[0-9]+))*)
    | (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?=[ \t\r\n)}]|\Z))
    | (?P<string>"[^"]*"|`[^`]*`)""",
    re.VERBOSE,
)
_POINTER = re.compile(r"(?:/[\w.~:|-]+)*")
_ESCAPE = re.compile(r"\\(?:([abfnrtv\\])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.?))", re.DOTALL)
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class _MissingKeyError(Exception):
    """A key inside a map that is not there."""


class _MismatchError(Exception):
    """The metadata does not fit the filter."""


@dataclass(slots=True)
class _Scope:
    """What names mean: the metadata, and the names that collections bind."""

    metadata: Mapping[str, Any]
    names: dict[str, Any]
    steps: int = 0

    def count(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise _MismatchError(f"needs more than {MAX_STEPS} comparisons")

    def find(self, path: Sequence[str]) -> Any:
        """The value at a path. `_MissingKeyError` when only its last key is not there, inside a map; `_MismatchError` otherwise."""
        if path and path[0] in self.names:
            value, rest = self.names[path[0]], path[1:]
        else:
            value, rest = self.metadata, path
        for index, key in enumerate(rest):
            if isinstance(value, Mapping):
                if key not in value:
                    if index == len(rest) - 1 and len(path) > 1:
                        raise _MissingKeyError
                    raise _MismatchError(f"the metadata has no {'.'.join(path[: len(path) - len(rest) + index + 1])!r}")
                value = value[key]
            elif isinstance(value, list):
                if not re.fullmatch("[0-9]{1,9}", key) or int(key) >= len(value):
                    raise _MismatchError(f"{'.'.join(path)!r} has no item {key!r}")
                value = value[int(key)]
            else:
                raise _MismatchError(f"{'.'.join(path)!r} leads into {_kind(value)}")
        return value


_Expression = Callable[[_Scope], bool]


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter that was understood."""

    text: str
    expression: _Expression

    def matches(self, metadata: Mapping[str, Any], *, field: str = "") -> bool:
        """Whether it holds for an artifact's metadata. InvalidSpec when the metadata does not fit it."""
        try:
            return self.expression(_Scope(metadata, {}))
        except _MismatchError as error:
            raise InvalidSpec(f"filter [{self.text}]: {error}", field=field, reason=REASON) from error


def parse_filter(text: str, *, field: str = "") -> Filter:
    """Understand a filter. Raises InvalidSpec, which says where it is wrong."""
    return Filter(text, _Parser(text, field).parse())


class _Parser:
    """Recursive descent; each method returns what evaluates the part it read."""

    def __init__(self, text: str, field: str) -> None:
        self.text = text
        self.field = field
        self.depth = 0
        self.at = 0
        self.tokens: list[tuple[str, str, int]] = []
        if len(text) > MAX_LENGTH:
            raise self.fail(f"the filter is longer than {MAX_LENGTH} characters")
        place = 0
        while place < len(text):
            if not (found := _TOKEN.match(text, place)):
                raise self.fail(_unreadable(text, place))
            if found.lastgroup != "space":
                self.tokens.append((found.lastgroup or "", found[0], place))
            place = found.end()
        self.tokens.append(("end", "", len(text)))

    def fail(self, message: str) -> InvalidSpec:
        return InvalidSpec(f"filter [{self.text[:100]}]: {message}", field=self.field, reason=REASON)

    def expected(self, what: str) -> InvalidSpec:
        kind, word, place = self.tokens[self.at]
        return self.fail(f"expected {what} at its end" if kind == "end" else f"expected {what} instead of {word} at character {place + 1}")

    def take(self, *words: str) -> bool:
        """Read these words if they come next."""
        following = [(kind, word) for kind, word, _ in self.tokens[self.at : self.at + len(words)]]
        if [word for kind, word in following if kind != "string"] != list(words):
            return False
        self.at += len(words)
        return True

    def need(self, word: str) -> None:
        if not self.take(word):
            raise self.expected(word)

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.fail(f"nested deeper than {MAX_DEPTH} levels")

    def parse(self) -> _Expression:
        expression = self.either()
        if self.tokens[self.at][0] != "end":
            raise self.expected("and, or (or quotes around a text)")
        return expression

    def either(self) -> _Expression:
        parts = [self.both()]
        while self.take("or"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else lambda scope: any(part(scope) for part in parts)

    def both(self) -> _Expression:
        parts = [self.negated()]
        while self.take("and"):
            parts.append(self.negated())
        return parts[0] if len(parts) == 1 else lambda scope: all(part(scope) for part in parts)

    def negated(self) -> _Expression:
        # `not == 1` is about a key of that name
        if self.tokens[self.at][:2] == ("word", "not") and self.tokens[self.at + 1][0] != "operator":
            self.at += 1
            self.deeper()
            inner = self.negated()
            self.depth -= 1
            return lambda scope: not inner(scope)
        return self.group()

    def group(self) -> _Expression:
        if self.take("("):
            self.deeper()
            inner = self.either()
            self.need(")")
            self.depth -= 1
            return inner
        kind, word, _ = self.tokens[self.at]
        if (kind, word) in (("word", "any"), ("word", "all")) and self.tokens[self.at + 1][0] in ("word", "string"):
            following = self.tokens[self.at + 2][:2] if self.at + 2 < len(self.tokens) else ("end", "")
            if following == ("word", "as"):
                return self.collection()
        return self.match()

    def collection(self) -> _Expression:
        everything = self.tokens[self.at][1] == "all"
        self.at += 1
        path = self.selector()
        self.need("as")
        names = [self.name()]
        if self.take(","):
            names.append(self.name())
        self.need("{")
        self.deeper()
        inner = self.either()
        self.need("}")
        self.depth -= 1
        return lambda scope: _over(scope, path, names, inner, everything)

    def match(self) -> _Expression:
        start = self.at
        kind, _, _ = self.tokens[self.at]
        if kind not in ("word", "number", "string"):
            raise self.expected("a comparison, as pushed == 1")
        self.at += 1
        negative = self.take("not", "in")
        if negative or self.take("in"):
            value = self.value(start)
            return _compare(self.selector(), _contains(value), negative)
        self.at = start
        path = self.selector()
        if self.take("is", "not", "empty"):
            return _compare(path, _is_empty, negative=True, missing=True)
        if self.take("is", "empty"):
            return _compare(path, _is_empty, negative=False, missing=True)
        if self.take("=="):
            return _compare(path, _equals(self.next_value()), negative=False)
        if self.take("!="):
            return _compare(path, _equals(self.next_value()), negative=True)
        negative = self.take("not", "contains")
        if negative or self.take("contains"):
            return _compare(path, _contains(self.next_value()), negative)
        negative = self.take("not", "matches")
        if negative or self.take("matches"):
            return _compare(path, self.pattern(self.next_value()), negative)
        raise self.expected("one of ==, !=, in, contains, matches, is empty")

    def selector(self) -> tuple[str, ...]:
        kind, word, _ = self.tokens[self.at]
        if kind == "string" and word[0] == '"' and _POINTER.fullmatch(word[1:-1]) and len(word) > 2:
            self.at += 1
            return tuple(part.replace("~1", "/").replace("~0", "~") for part in word[2:-1].split("/"))
        if kind != "word":
            raise self.expected("the name of a metadata key")
        self.at += 1
        return tuple(word.split("."))

    def name(self) -> str:
        kind, word, _ = self.tokens[self.at]
        if kind not in ("word", "blank") or "." in word:
            raise self.expected("a name")
        self.at += 1
        return word

    def next_value(self) -> str:
        self.at += 1
        return self.value(self.at - 1)

    def value(self, index: int) -> str:
        kind, word, place = self.tokens[min(index, len(self.tokens) - 1)]
        if kind in ("word", "number"):
            return word
        if kind != "string":
            self.at = min(index, len(self.tokens) - 1)
            raise self.expected("a value")
        if word[0] == "`":
            return word[1:-1]

        def unescape(found: re.Match[str]) -> str:
            if found[4] is not None:
                raise self.fail(f"\\{found[4]} in the text at character {place + 1} means nothing; write such text between backticks")
            return _ESCAPED[found[1]] if found[1] else chr(int(found[2] or found[3], 16))

        return _ESCAPE.sub(unescape, word[1:-1])

    def pattern(self, text: str) -> Callable[[Any], bool]:
        options = re2.Options()
        options.log_errors = False
        try:
            compiled = re2.compile(text.encode(errors="replace"), options)
        except re2.error as error:
            reason = error.args[0].decode(errors="replace") if error.args and isinstance(error.args[0], bytes) else str(error)
            raise self.fail(f"`{text}` is not a regular expression (RE2): {reason}") from error

        def found(value: Any) -> bool:
            if not isinstance(value, str):
                raise _MismatchError(f"matches wants a string, not {_kind(value)}")
            return compiled.search(value.encode(errors="replace")) is not None

        return found


def _unreadable(text: str, place: int) -> str:
    character = text[place]
    if character in "<>":
        return f"there is no operator {character}; use ==, !=, in, contains, matches, is empty"
    if character in '"`':
        return f"the text that begins with {character} at character {place + 1} has no end"
    return f'cannot read {text[place : place + 20]!r} at character {place + 1}; write text as "text" or `text`'


def _compare(path: tuple[str, ...], test: Callable[[Any], bool], negative: bool, *, missing: bool = False) -> _Expression:
    """`missing`: what the positive form says of a key that is not there."""

    def evaluate(scope: _Scope) -> bool:
        scope.count()
        try:
            value = scope.find(path)
        except _MissingKeyError:
            return missing != negative
        try:
            return test(value) != negative
        except _MismatchError as error:
            raise _MismatchError(f"{'.'.join(path)!r}: {error}") from error

    return evaluate


def _over(scope: _Scope, path: tuple[str, ...], names: Sequence[str], inner: _Expression, everything: bool) -> bool:
    """any (or all) of a list's items or a map's entries. One name is an item of a list, or a key of a map; two are key and value."""
    try:
        collection = scope.find(path)
    except _MissingKeyError:
        return everything
    if isinstance(collection, Mapping):
        entries, single = list(collection.items()), 0
    elif isinstance(collection, list):
        entries, single = list(enumerate(collection)), 1
    else:
        raise _MismatchError(f"{'.'.join(path)!r} is {_kind(collection)}, neither a list nor a map")
    for entry in entries:
        scope.count()
        bound = {names[0]: entry[single]} if len(names) == 1 else dict(zip(names, entry, strict=True))
        inside = _Scope(scope.metadata, {**scope.names, **bound}, scope.steps)
        holds = inner(inside)
        scope.steps = inside.steps
        if holds != everything:
            return holds
    return everything


def _equals(raw: str) -> Callable[[Any], bool]:
    def test(value: Any) -> bool:
        if isinstance(value, bool):
            return value == _boolean(raw)
        if isinstance(value, int | float):
            return _float(value) == _number(raw)
        if isinstance(value, str):
            return value == raw
        raise _MismatchError(f"{_kind(value)} cannot be compared with {raw!r}")

    return test


def _contains(raw: str) -> Callable[[Any], bool]:
    equals = _equals(raw)

    def test(value: Any) -> bool:
        if isinstance(value, str):
            return raw in value
        if isinstance(value, Mapping):
            return raw in value
        if isinstance(value, list):
            return any(_fits(item, raw) and equals(item) for item in value)
        raise _MismatchError(f"{_kind(value)} contains nothing")

    return test


def _fits(item: Any, raw: str) -> bool:
    """An item of another type than the value is no match, and no error."""
    if isinstance(item, bool):
        return raw in _TRUE or raw in _FALSE
    return not isinstance(item, int | float) or _NUMBER.fullmatch(raw) is not None


def _is_empty(value: Any) -> bool:
    if isinstance(value, str | Mapping | list):
        return len(value) == 0
    raise _MismatchError(f"{_kind(value)} is neither empty nor full")


def _boolean(raw: str) -> bool:
    if raw in _TRUE or raw in _FALSE:
        return raw in _TRUE
    raise _MismatchError(f"true or false cannot be compared with {raw!r}")


def _number(raw: str) -> float:
    if _NUMBER.fullmatch(raw):
        return float(raw)
    raise _MismatchError(f"a number cannot be compared with {raw!r}")


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError as error:  # an int beyond any double
        raise _MismatchError("the number is too large") from error


def _kind(value: Any) -> str:
    names = {bool: "a truth value", int: "a number", float: "a number", str: "a string", list: "a list", type(None): "null"}
    return names.get(type(value), "a map")
