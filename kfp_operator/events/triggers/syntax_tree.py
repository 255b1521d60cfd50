"""The syntax tree of a compiled CEL expression, as the library gives it away: a ``google.protobuf.Any`` with a ``cel.expr.CheckedExpr``.

The messages are those of https://github.com/google/cel-spec (proto/cel/expr/syntax.proto); only the members that decide about cost are
declared, because protobuf passes over the others. They live in a pool of their own: another library may bring its own copy.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "CheckedExpr": {"expr": (4, "Expr")},
    "Expr": {
        "const_expr": (3, "Constant"),
        "ident_expr": (4, "Ident"),
        "select_expr": (5, "Select"),
        "call_expr": (6, "Call"),
        "list_expr": (7, "CreateList"),
        "struct_expr": (8, "CreateStruct"),
        "comprehension_expr": (9, "Comprehension"),
    },
    "Constant": {"string_value": (6, "string"), "bytes_value": (7, "bytes")},
    "Ident": {"name": (1, "string")},
    "Select": {"operand": (1, "Expr"), "field": (2, "string")},
    "Call": {"target": (1, "Expr"), "function": (2, "string"), "args": (3, "*Expr")},
    "CreateList": {"elements": (1, "*Expr")},
    "CreateStruct": {"entries": (2, "*Entry")},
    "Entry": {"map_key": (3, "Expr"), "value": (4, "Expr")},
    "Comprehension": {
        "iter_var": (1, "string"),
        "iter_range": (2, "Expr"),
        "accu_var": (3, "string"),
        "accu_init": (4, "Expr"),
        "loop_condition": (5, "Expr"),
        "loop_step": (6, "Expr"),
        "result": (7, "Expr"),
        "iter_var2": (8, "string"),
    },
}
_PACKAGE = "cel.expr"


def _parser() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="cel/expr/cost.proto", package=_PACKAGE, syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    scalars = {"string": field.TYPE_STRING, "bytes": field.TYPE_BYTES}
    for message, members in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for name, (number, kind) in members.items():
            label = field.LABEL_REPEATED if kind.startswith("*") else field.LABEL_OPTIONAL
            added = declared.field.add(name=name, number=number, label=label)
            if (word := kind.removeprefix("*")) in scalars:
                added.type = scalars[word]
            else:
                added.type, added.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{word}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.CheckedExpr"))


_CHECKED = _parser()


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal. `text`: of strings; `size`: bytes of text or bytes, 0 for numbers and the like."""

    text: str | None
    size: int


@dataclass(frozen=True, slots=True)
class Name:
    """A variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """``operand.field``, or ``has(operand.field)``."""

    operand: "Node"


@dataclass(frozen=True, slots=True)
class Call:
    """A function, method or operator; the target of a method is the first argument."""

    function: str
    arguments: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Literal:
    """``[...]``, ``{...}``."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Comprehension:
    """What ``all``, ``exists``, ``exists_one``, ``map`` and ``filter`` become."""

    variables: tuple[str, ...]
    range: "Node"
    accumulator: str
    initial: "Node"
    body: tuple["Node", ...]
    """What is computed for each item: condition and step."""
    result: "Node"


Node = Constant | Name | Select | Call | Literal | Comprehension


def parse(serialized: bytes) -> Node:
    """The tree. Its depth is bounded by the compiler, which takes 32 levels of the grammar at most."""
    return _node(_CHECKED.FromString(any_pb2.Any.FromString(serialized).value).expr)


def children(node: Node) -> Iterator[Node]:
    """The nodes right below."""
    match node:
        case Select(operand):
            yield operand
        case Call(_, parts) | Literal(parts):
            yield from parts
        case Comprehension():
            yield from (node.range, node.initial, *node.body, node.result)


def walk(node: Node) -> Iterator[Node]:
    """The node and all below."""
    yield node
    for child in children(node):
        yield from walk(child)


def _node(expr: Any) -> Node:
    if expr.HasField("const_expr"):
        constant = expr.const_expr
        return Constant(constant.string_value or None, len(constant.string_value.encode()) + len(constant.bytes_value))
    if expr.HasField("ident_expr"):
        return Name(expr.ident_expr.name)
    if expr.HasField("select_expr"):
        return Select(_node(expr.select_expr.operand))
    if expr.HasField("call_expr"):
        call = expr.call_expr
        target = (_node(call.target),) if call.HasField("target") else ()
        return Call(call.function, (*target, *map(_node, call.args)))
    if expr.HasField("comprehension_expr"):
        c = expr.comprehension_expr
        return Comprehension(
            variables=tuple(name for name in (c.iter_var, c.iter_var2) if name),
            range=_node(c.iter_range),
            accumulator=c.accu_var,
            initial=_node(c.accu_init),
            body=(_node(c.loop_condition), _node(c.loop_step)),
            result=_node(c.result),
        )
    if expr.HasField("list_expr"):
        return Literal(tuple(map(_node, expr.list_expr.elements)))
    entries = expr.struct_expr.entries
    return Literal(tuple(_node(part) for entry in entries for part in (entry.map_key, entry.value) if part.ByteSize()))
