"""Filters of event triggers: CEL expressions over the CloudEvent as ``event``.

::

    event.data.state == "failed" && event.data.failedTask.startsWith("train")
    event.data.commits.exists(commit, commit.message.contains("[train]"))

Anybody who may create a trigger may write one, so a filter is checked when it is accepted and again before it is evaluated:

- at most 1 kB, compiled and type-checked by Google's implementation (cel-cpp), which bounds nesting;
- no comprehension within another, nor over what another one makes;
- the pattern of ``matches`` is a literal of bounded size (RE2, which is linear);
- an event with too many items or levels is not looked at, nor one for which the filter could take longer than `BUDGET` (see `cost`).

A filter that fails, because a member is missing or the like, is no match and says why. It depends on the event alone, so it says the
same whenever it is asked again.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import re2
from cel_expr_python import cel

from kfp_operator.errors import InvalidSpec
from kfp_operator.events.triggers.cost import Estimate, Measures
from kfp_operator.events.triggers.syntax_tree import Call, Comprehension, Constant, Node, children, parse, walk

MAX_BYTES = 1024
"""Of a filter."""
MAX_PROGRAM = 1000
"""Instructions of a pattern, as RE2 compiles it; 30 to 100 are usual."""
MAX_ENTRIES = 10_000
"""Items of all lists and maps of an event that is filtered."""
MAX_LEVELS = 64
BUDGET = 10e6
"""Nanoseconds that a filter may take for an event, in the worst case."""
REASON = "InvalidFilter"

_INT64 = 2**63
_MESSAGE = re.compile(r"(?:[A-Z_]+: )*(?:<input>:(?:-1:-1|(\d+):(\d+)): )?([^\n]*?)(?: \[[A-Z_]+\])?(?:\n|\Z)")
_LARGEST = Measures(items=MAX_ENTRIES, text=256 * 1024, entries=MAX_ENTRIES)
_ENVIRONMENT = cel.NewEnv(variables={"event": cel.Type.Map(cel.Type.STRING, cel.Type.DYN)})


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a filter holds; `problem` says why it could not be told, which counts as no."""

    holds: bool
    problem: str = ""


class FilteredEvent:
    """An event to be filtered: measured and handed over to the evaluator once, for all filters."""

    def __init__(self, document: dict[str, Any]) -> None:
        """`document`: the event in JSON format (structured mode)."""
        self.measures, self.problem = _measure(document)
        self.cost = 0.0
        """Nanoseconds that filters may have taken so far, in the worst case."""
        self._document = document
        self._activation: Any = None

    @property
    def activation(self) -> Any:
        """For the evaluator. Never asked for when there is a `problem`."""
        if self._activation is None:
            self._activation = _ENVIRONMENT.Activation({"event": self._document})
        return self._activation


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter that was accepted."""

    text: str
    program: Any
    tree: Node
    most: float
    """Nanoseconds for the largest event, in the worst case. Within the budget, no event needs an estimate of its own."""

    def cost(self, measures: Measures) -> float:
        """Nanoseconds in the worst case, for a slightly larger event, so that one estimate serves for all of about that size."""
        return _estimate(self.text, Measures(_rounded(measures.items), _rounded(measures.text), _rounded(measures.entries)))

    def evaluate(self, event: FilteredEvent) -> Answer:
        """Whether it holds for an event. Never raises, and takes bounded time."""
        if event.problem:
            return Answer(False, event.problem)
        cost = self.most if self.most <= BUDGET else self.cost(event.measures)
        if cost > BUDGET:
            size = f"{event.measures.entries} items and {event.measures.text} bytes of text"
            return Answer(False, f"the filter could take {cost / 1e6:.0f} ms for an event of {size}; {BUDGET / 1e6:.0f} ms are allowed")
        event.cost += cost
        try:
            result = self.program.eval(event.activation)
            kind, value = result.type(), result.value()
        except RuntimeError as error:  # how the library tells that it gave up
            return Answer(False, f"the filter failed: {_plain(str(error))}")
        if kind == cel.Type.ERROR:
            return Answer(False, f"the filter failed: {_plain(str(value))}")
        if not isinstance(value, bool):
            return Answer(False, f"the filter says {str(value)[:80]!r}, not true or false")
        return Answer(value)


def compile_filter(text: str, *, field: str = "") -> Filter:
    """Understand a filter. Raises InvalidSpec, which says what is wrong with it and where."""
    try:
        return _compile(text)
    except _RefusedError as error:
        raise InvalidSpec(f"filter `{text[:200]}`: {error}", field=field, reason=REASON) from error


class _RefusedError(Exception):
    """What is wrong with a filter."""


@lru_cache(maxsize=10_000)
def _compile(text: str) -> Filter:
    if not _encodes(text):
        raise _RefusedError("it is not Unicode")
    if (size := len(text.encode())) > MAX_BYTES:
        raise _RefusedError(f"it has {size} bytes; {MAX_BYTES} are allowed")
    try:
        program = _ENVIRONMENT.compile(text)
        result = program.return_type()
        tree = parse(program.serialize())
    except RuntimeError as error:  # how the library tells what is wrong with the text
        raise _RefusedError(_plain(str(error))) from error
    if result not in (cel.Type.BOOL, cel.Type.DYN):
        raise _RefusedError(f"it must be true or false, not of type {result.name().lower()}")
    for node in walk(tree):
        if isinstance(node, Comprehension) and any(isinstance(inner, Comprehension) for part in children(node) for inner in walk(part)):
            raise _RefusedError("all, exists, exists_one, map and filter cannot stand within or behind one another")
        if isinstance(node, Call) and node.function == "matches":
            _check_pattern(node.arguments[1])
    return Filter(text, program, tree, Estimate(_LARGEST, _instructions).of(tree))


@lru_cache(maxsize=20_000)
def _estimate(text: str, measures: Measures) -> float:
    return Estimate(measures, _instructions).of(_compile(text).tree)


def _rounded(number: int) -> int:
    """Up, to a number with three significant bits: at most a quarter more."""
    step = 1 << max(number.bit_length() - 3, 0)
    return -(-number // step) * step


def _check_pattern(pattern: Node) -> None:
    if not isinstance(pattern, Constant):
        raise _RefusedError("the pattern of matches must be a literal")
    try:
        program = _instructions(pattern.text or "")
    except re2.error as error:
        told = error.args[0].decode(errors="replace") if error.args and isinstance(error.args[0], bytes) else str(error)
        raise _RefusedError(f"{pattern.text!r} is not a pattern (RE2): {told}") from error
    if program > MAX_PROGRAM:
        raise _RefusedError(f"pattern {pattern.text!r} is too large: {program} instructions, {MAX_PROGRAM} are allowed")


@lru_cache(maxsize=1000)
def _instructions(pattern: str) -> int:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 18
    compiled = re2.compile(pattern.encode(), options)
    return int(compiled.programsize)


def _measure(document: dict[str, Any]) -> tuple[Measures, str]:
    """Measures, and why the event cannot be filtered. Without recursion: levels are what is being counted."""
    items = text = entries = 0
    level: list[Any] = [document]
    for _ in range(MAX_LEVELS):
        below: list[Any] = []
        for container in level:
            values = container.values() if isinstance(container, dict) else container
            if isinstance(container, dict):
                text += sum(map(_bytes, container))
            items = max(items, len(container))
            entries += len(container)
            if entries > MAX_ENTRIES:
                return Measures(items, text, entries), f"the event has more than {MAX_ENTRIES} items, too many to be filtered"
            for value in values:
                if isinstance(value, str):
                    text += _bytes(value)
                    if not value.isascii() and not _encodes(value):
                        return Measures(items, text, entries), "the event holds text that is not Unicode"
                elif isinstance(value, dict | list):
                    below.append(value)
                elif isinstance(value, int) and not -_INT64 <= value < _INT64:
                    return Measures(items, text, entries), f"the event holds {_short(value)}, which is beyond 64 bits"
        if not below:
            return Measures(items, text, entries), ""
        level = below
    return Measures(items, text, entries), f"the event has more than {MAX_LEVELS} levels of lists and maps"


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: int) -> str:
    return f"a number of about 10^{int(math.log10(abs(value)))}"


def _plain(message: str) -> str:
    """The evaluator's message without its codes and its drawing of the place."""
    found = _MESSAGE.match(message)
    if found is None:
        return message
    line, column, text = found.groups()
    if column is None:
        return text
    return f"at character {column}: {text}" if line == "1" else f"at line {line}, character {column}: {text}"
