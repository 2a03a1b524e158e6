"""Where the functions of a text have no value at the start of a solve, said by the line and the part of it."""

from collections.abc import Mapping
from typing import Any, NoReturn

import sympy
import torch
from sympy.printing.str import StrPrinter
from torch import Tensor

from adjsnn.equations.functions import Choose
from adjsnn.equations.lines import NOWHERE, short
from adjsnn.equations.tensors import Value, evaluator
from adjsnn.equations.writer import Node, Program

DIVISION = "exprel(x) = (exp(x) - 1)/x, which is 1 at 0: x/(1 - exp(-x)) = 1/exprel(-x)"


def refuse_infinite(program: Program, values: Mapping[str, Value], what: str) -> None:
    """Refuse a program with a result that is not finite.

    Raises:
        ConfigurationError: quotes the line, and the divisor that is zero or the part that has no value.
    """
    names = tuple(node.name for node in program.nodes)
    known = {**values, **dict(zip(names, evaluator(program, names)(values), strict=True))}
    nodes = {node.name: node for node in program.nodes}
    for name in program.results:
        if (place := _first(known[name])) is not None:
            _refuse(nodes[name], nodes, known, place, what)


class _Written(StrPrinter):  # type: ignore[misc]
    """As text, with what stands for a part in its place."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        super().__init__()
        self.nodes = nodes

    def _print_Symbol(self, expr: Any) -> str:
        node = self.nodes.get(expr.name)
        if node is None or node.kind != "map":
            return expr.name
        text = self._print(node.expression)
        return text if isinstance(node.expression, sympy.Function | sympy.Symbol) else f"({text})"


def _first(value: Value) -> tuple[int, ...] | None:
    """The first entry that is not finite."""
    x = torch.as_tensor(value)
    wrong = ~x.isfinite()
    return tuple(wrong.nonzero()[0].tolist()) if bool(wrong.any()) else None


def _refuse(node: Node, nodes: Mapping[str, Node], known: Mapping[str, Value], place: tuple[int, ...], what: str) -> NoReturn:
    """Go down from a value that is not finite to the first part whose own parts all are."""
    part = node.expression
    while node.kind == "map":
        if isinstance(part, Choose):
            part = part.args[1] if _at(Choose(part.args[0], sympy.S.One, sympy.S.Zero), known, place) else part.args[2]
        elif (below := next((x for x in part.args if _first(_at(x, known, place)) is not None), None)) is not None:
            part = below
        elif not part.is_Symbol or part.name not in nodes:
            break
        else:
            node = nodes[part.name]
            part = node.expression
    sample = f" of sample {place[0]}" if len(place) == 2 else ""
    unit = f", unit {place[1]}," if len(place) == 2 and node.size > 1 else ""
    expected, remedy = "a finite value", "another initial state, or where(x > 0, log(x), 0) around what is not defined there"
    if node.kind != "map":
        argument = nodes.get(node.argument or "")
        if argument is not None and (inner := _first(known[argument.name])) is not None:
            _refuse(argument, nodes, known, inner, what)
        node.place.refuse(f"{what}: a sum that is not finite at the start{sample}", expected, remedy)
    if part.is_Pow and part.exp.is_negative and not _at(part.base, known, place):
        seen = f"{short(_Written(nodes).doprint(part.base))!r}, a divisor that is zero at the start{sample}{unit}"
        given = part.base.is_Symbol and part.base.name not in nodes
        node.place.refuse(f"{what}: {seen}", "a divisor that is not zero", f"another {part.base}" if given else DIVISION)
    value = float(torch.as_tensor(_at(part, known, place)))
    seen = f"{short(_Written(nodes).doprint(part))!r}, which is {value:g} at the start{sample}{unit}"
    node.place.refuse(f"{what}: {seen}", expected, remedy)


def _at(expression: Any, known: Mapping[str, Value], place: tuple[int, ...] | None = None) -> Any:
    """The value of a part of an expression, all of it or one entry."""
    node = Node("_part", 1, "map", expression, None, None, NOWHERE)
    value = evaluator(Program((node,), ("_part",)))(known)[0]
    if place is None or not isinstance(value, Tensor):
        return value
    row = value[min(place[0], len(value) - 1)] if value.dim() == 2 else value
    return row[min(place[-1], len(row) - 1)] if row.dim() else row
