"""How long a filter can take at most for a given event, before it is evaluated.

The evaluator cannot be interrupted, and a filter is anybody's: comparing long texts for each of thousands of items takes minutes. So
the worst case is computed from the filter's syntax tree and the measures of the event, as Kubernetes does for CEL in CRDs. The unit
is a nanosecond of an average machine. Prices are measured; each is that of the worst input known for the operation, as text of one
letter for `contains`, or the automaton's fall-back for `matches`.

A comprehension (``all``, ``exists``, ...) is paid for each item of the largest list or map there is. What is done with the item itself
is paid by its size, and the sizes of all items add up to no more than what holds them; so the cost of an item is linear in its size.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

from kfp_operator.events.triggers.syntax_tree import Call, Comprehension, Constant, Literal, Name, Node, Select

ENTRY = 64
"""What an item of a list or a map weighs, besides its text."""
MAX_ITERATIONS = 10_000
"""The evaluator gives up beyond (cel-cpp's comprehension_max_iterations)."""

NODE = 200.0
COMPARE = 4.0
"""Per byte of weight."""
COUNT = 4.0
CONTAIN, CONTAIN_NEEDLE = 8.0, 1 / 32
"""Per byte of text, and more per byte of what is looked for."""
COPY = 2.0
CONVERT = 10.0
MATCH, MATCH_CALL, MATCH_COMPILE = 11.0, 4000.0, 400.0
"""Per byte of text and instruction of the pattern; per call; per instruction and call, because patterns are compiled at each."""
APPEND = 20.0
"""Per item and item: lists are copied when they grow."""

Instructions = Callable[[str], int]
"""The size of a pattern's program."""


@dataclass(frozen=True, slots=True)
class Measures:
    """An event, as far as cost depends on it."""

    items: int
    """In the largest list or map."""
    text: int
    """Bytes of all strings and keys."""
    entries: int
    """Items of all lists and maps."""

    @property
    def weight(self) -> float:
        """Text, and what the items weigh."""
        return self.text + ENTRY * (self.entries + 1)


@dataclass(frozen=True, slots=True)
class _Form:
    """``fixed + weight * (the item's weight) + text * (the item's text)``."""

    fixed: float = 0.0
    weight: float = 0.0
    text: float = 0.0

    def __add__(self, other: "_Form") -> "_Form":
        return _Form(self.fixed + other.fixed, self.weight + other.weight, self.text + other.text)

    def times(self, factor: float) -> "_Form":
        return _Form(self.fixed * factor, self.weight * factor, self.text * factor)


@dataclass(frozen=True, slots=True)
class _Size:
    """Of a value: `weight` if it is a list or a map, `text` if it is a string."""

    weight: _Form
    text: _Form

    def __add__(self, other: "_Size") -> "_Size":
        return _Size(self.weight + other.weight, self.text + other.text)


@dataclass(frozen=True, slots=True)
class _Paid:
    """What a node costs, and how large its value is."""

    cost: _Form
    size: _Size


_SMALL = _Size(_Form(ENTRY), _Form(ENTRY))
"""A number, a truth value, a time."""
_NOTHING = _Size(_Form(), _Form())
_WITHOUT_TEXT = frozenset(
    {"_&&_", "_||_", "!_", "-_", "_-_", "_*_", "_/_", "_%_", "@not_strictly_false", "__not_strictly_false__", "dyn", "type"}
)
_COMPARED = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "startsWith", "endsWith"})


class Estimate:
    """The worst case for one event."""

    def __init__(self, measures: Measures, instructions: Instructions) -> None:
        self._measures = measures
        self._instructions = instructions
        whole = _Size(_Form(measures.weight), _Form(float(measures.text)))
        self._event: Mapping[str, _Size] = {"event": whole}

    def of(self, tree: Node) -> float:
        """Nanoseconds."""
        return self._pay(tree, self._event, _Form(1.0)).cost.fixed

    def _pay(self, node: Node, scope: Mapping[str, _Size], most: _Form) -> _Paid:
        """`most`: a bound of an item's weight and text, where there is an item."""
        match node:
            case Constant():
                return _Paid(_Form(), _Size(_Form(float(ENTRY + node.size)), _Form(float(node.size))))
            case Name(name):
                return _Paid(_Form(NODE), scope.get(name, _SMALL))
            case Select(operand):
                paid = self._pay(operand, scope, most)
                return _Paid(paid.cost + _Form(NODE), paid.size)
            case Literal(parts):
                paid_parts = [self._pay(part, scope, most) for part in parts]
                size = _sizes(paid_parts) + _Size(_Form(float(ENTRY * (len(parts) + 1))), _Form())
                return _Paid(_costs(paid_parts) + _Form(NODE * (len(parts) + 1)) + size.weight, size)
            case Call(function, arguments):
                return self._call(function, arguments, scope, most)
            case Comprehension():
                return self._comprehension(node, scope)

    def _call(self, function: str, arguments: tuple[Node, ...], scope: Mapping[str, _Size], most: _Form) -> _Paid:
        paid = [self._pay(argument, scope, most) for argument in arguments]
        cost = _costs(paid) + _Form(NODE)
        sizes = [one.size for one in paid]
        if function in _WITHOUT_TEXT:
            return _Paid(cost, _SMALL)
        if function in {"_[_]", "dyn"}:
            return _Paid(cost, sizes[0])
        if function == "_?_:_":
            return _Paid(cost, sizes[1] + sizes[2])
        if function in _COMPARED:
            smaller = min(sizes, key=lambda size: _cap(size.weight, most))
            return _Paid(cost + smaller.weight.times(COMPARE), _SMALL)
        if function == "@in":
            return _Paid(cost + sizes[-1].weight.times(COMPARE), _SMALL)
        if function == "contains":
            needle = _cap(sizes[1].text, most)
            return _Paid(cost + sizes[0].text.times(CONTAIN + CONTAIN_NEEDLE * needle) + sizes[1].text, _SMALL)
        if function == "matches":
            pattern = arguments[1]
            program = self._instructions((pattern.text or "") if isinstance(pattern, Constant) else "")
            return _Paid(cost + sizes[0].text.times(MATCH * program) + _Form(MATCH_CALL + MATCH_COMPILE * program), _SMALL)
        if function == "size":
            return _Paid(cost + sizes[0].text.times(COUNT), _SMALL)
        if function == "_+_":
            size = _sizes(paid)
            return _Paid(cost + size.weight.times(COPY), size)
        size = _sizes(paid) + _SMALL
        return _Paid(cost + size.weight.times(CONVERT), size)

    def _comprehension(self, node: Comprehension, scope: Mapping[str, _Size]) -> _Paid:
        """Never inside another: see `filters`. So everything out here is fixed."""
        within = self._pay(node.range, scope, _Form(1.0))
        weight, text = within.size.weight.fixed, within.size.text.fixed
        items = min(weight / ENTRY, MAX_ITERATIONS)
        if not isinstance(node.range, Call):
            items = min(items, max(self._measures.items, len(node.range.parts) if isinstance(node.range, Literal) else 0))
        item = _Size(_Form(weight=1.0), _Form(text=1.0))
        inside = {**scope, **dict.fromkeys(node.variables, item), node.accumulator: _NOTHING}
        most = _Form(1.0, weight, text)
        initial = self._pay(node.initial, scope, _Form(1.0))
        body = [self._pay(part, inside, most) for part in node.body]
        cost = _total(_costs(body), items, weight, text)
        size = _SMALL
        if isinstance(node.initial, Literal):
            cost += APPEND * items * items
            grown = _sizes(body)
            size = _Size(_Form(_total(grown.weight, items, weight, text)), _Form(_total(grown.text, items, weight, text)))
        result = self._pay(node.result, {**scope, node.accumulator: size}, _Form(1.0))
        return _Paid(within.cost + initial.cost + result.cost + _Form(cost), result.size)


def _total(form: _Form, items: float, weight: float, text: float) -> float:
    """Summed up over all items, whose weights add up to `weight`."""
    return form.fixed * items + form.weight * weight + form.text * text


def _cap(form: _Form, most: _Form) -> float:
    """A bound: no item is larger than what holds it."""
    return form.fixed + form.weight * most.weight + form.text * most.text


def _costs(paid: Iterable[_Paid]) -> _Form:
    return reduce(add, (one.cost for one in paid), _Form())


def _sizes(paid: Iterable[_Paid]) -> _Size:
    return reduce(add, (one.size for one in paid), _NOTHING)
