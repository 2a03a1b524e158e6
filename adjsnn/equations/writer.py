"""Expressions as short programs: nodes in order, each computed from those before it."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sympy

from adjsnn.equations.functions import Choose, is_steep
from adjsnn.equations.grammar import BRIAN, Reader, tree
from adjsnn.equations.lines import Place, Statement, nearest
from adjsnn.equations.units import value_of

FIRED = "fired"


class Entry(NamedTuple):
    """A name that expressions may use: "state", "parameter", "input" or "node"; its size, 1 for a number; for a matrix, its
    columns, else 0."""

    kind: str
    size: int
    columns: int = 0


class Node(NamedTuple):
    """One value of a program, computed from those before it.

    Fields: name; size, 1 for a number; kind "map", an expression of entries one by one, numbers with all; "product", matrix @
    argument; "sum", of the entries of argument. For a map `expression`, else `matrix` (or None) and `argument`, names. `place`
    is where it stands in the text.
    """

    name: str
    size: int
    kind: str
    expression: Any
    matrix: str | None
    argument: str | None
    place: Place


class Program(NamedTuple):
    """Nodes in order, and for each result the name that holds it: of f and a jump by state, of guards by guard."""

    nodes: tuple[Node, ...]
    results: tuple[str, ...]


def symbol(name: str) -> Any:
    return sympy.Symbol(name, real=True)


class Writer:
    """Writes one program: reads texts in order and makes nodes of them, subexpressions first, each once.

    Args:
        entries: names that are known before.
        subexpressions: lines that may be needed, by name.
        single: vectors stand for the entry of one unit, as in the reset of a guard of each unit.
        units: whether names of units are numbers.
        absent: names that are known elsewhere, and why not here.
    """

    def __init__(
        self,
        entries: Mapping[str, Entry],
        subexpressions: Mapping[str, Statement],
        *,
        single: bool = False,
        units: bool = False,
        absent: Mapping[str, str] | None = None,
    ) -> None:
        self.entries, self.subexpressions = dict(entries), subexpressions
        self.single, self.units, self.absent = single, units, dict(absent or {})
        self.nodes: list[Node] = []
        self.now: dict[str, str] = {}  # nodes that hold subexpressions, and in a reset states that have changed
        self.calls: dict[Any, Any] = {}  # of functions, each a node of its own, whose value its slope is made of
        self.flat: set[str] = set()  # numbers that stand for vectors of equal entries
        self.reader = Reader(self._name, self._product, self._reduce)

    def add(self, text: str, place: Place, name: str | None = None) -> str:
        """The node of a text."""
        return self.node(self.read(text, place), place, name)

    def read(self, text: str, place: Place) -> Any:
        """The expression of a text."""
        self.prepare(text, place)
        return self.reader.read(text, place)

    def comparison(self, text: str, place: Place) -> Any:
        """φ of a comparison."""
        self.prepare(text, place)
        return self.reader.comparison(text, place)

    def node(self, expression: Any, place: Place, name: str | None = None) -> str:
        """The node of an expression."""
        expression = self._apart(expression, place)
        name = name or f"_{len(self.nodes)}"
        self._write(Node(name, self._size(expression, place), "map", expression, None, None, place))
        return name

    def _apart(self, expression: Any, place: Place) -> Any:
        """The expression with nodes in the place of its calls of functions, but of those that hang on a condition."""
        if isinstance(expression, Choose) or not expression.args:
            return expression
        parts = [self._apart(x, place) for x in expression.args]
        # A number before a sum stays there, as it was written.
        kept = {"evaluate": False} if expression.is_Mul and len(parts) == 2 and expression.args[1].is_Add else {}
        rest = expression if tuple(parts) == expression.args else expression.func(*parts, **kept)
        if not isinstance(rest, sympy.Function) or not rest.free_symbols:
            return rest
        if rest not in self.calls:
            name = f"_{len(self.nodes)}"
            self._write(Node(name, self._size(rest, place), "map", rest, None, None, place))
            self.calls[rest] = symbol(name)
        return self.calls[rest]

    def prepare(self, text: str, place: Place) -> None:
        """Nodes of the subexpressions that a text needs, those first that others need."""
        under_way: list[tuple[str, Place, Iterator[str]]] = [("", place, self._needed(text, place))]
        while under_way:
            name, place, rest = under_way[-1]
            needed = next(rest, None)
            if needed is None:
                under_way.pop()
                if name:
                    line = self.subexpressions[name]
                    self.now[name] = self.node(self.reader.read(line.right, line.place), line.place)
            elif needed not in self.now:
                names = [x for x, *_ in under_way]
                if needed in names:
                    circle = " → ".join((*names[names.index(needed) :], needed))
                    place.refuse(f"{needed!r}, which needs itself ({circle}),", "no circle", "a state")
                line = self.subexpressions[needed]
                under_way.append((needed, line.place, self._needed(line.right, line.place)))

    def _needed(self, text: str, place: Place) -> Iterator[str]:
        found = {x.id for x in ast.walk(tree(text, place)) if isinstance(x, ast.Name)}
        return iter(sorted(name for name in found if name in self.subexpressions))

    def change(self, state: str, value: Any, place: Place, size: int) -> None:
        """A state has another value from here on: subexpressions are computed anew."""
        node = self.node(value, place)
        self.now = {name: x for name, x in self.now.items() if name not in self.subexpressions} | {state: node}
        if self.entries[node].size < size:
            self.flat.add(node)

    def program(self, results: Sequence[str]) -> Program:
        return Program(tuple(self.nodes), tuple(results))

    def _write(self, node: Node) -> None:
        self.nodes.append(node)
        self.entries[node.name] = Entry("node", node.size)

    def _size(self, expression: Any, place: Place) -> int:
        sizes = {x.name: self.entries[x.name].size for x in expression.free_symbols}
        found = {n for n in sizes.values() if n != 1}
        if len(found) > 1:
            seen = ", ".join(f"{name} of {n}" for name, n in sorted(sizes.items()) if n != 1)
            place.refuse(seen, "vectors of one size", "W @ x from one size to another, sum(x) to a number")
        return found.pop() if found else 1

    def _name(self, name: str, place: Place) -> Any:
        if name == FIRED:
            place.refuse("fired", "W @ fired in a reset, added to a state", "g += W @ fired")
        if name in self.absent:
            place.refuse(f"{name!r}, {self.absent[name]},", "states, parameters and the time", "a state or a parameter")
        name = self.now.get(name, name)
        entry = self.entries.get(name)
        if entry is None:
            if self.units and (value := value_of(name)) is not None:
                return value
            if name in BRIAN:
                place.refuse(f"{name!r}, {BRIAN[name][0]},", "functions of states, parameters, inputs and t", BRIAN[name][1])
            known = sorted(x for x in (*self.entries, *self.subexpressions) if not x.startswith("_"))
            remedy = nearest(name, known, f"parameters={{{name!r}: 1.0}}")
            place.refuse(f"the unknown name {name!r}", f"one of {', '.join(known)}" if known else "a number, or units", remedy)
        if entry.columns:
            place.refuse(f"the matrix {name!r} by itself", f"{name} @ x", f"{name} @ x")
        return symbol(name)

    def _argument(self, expression: Any, place: Place) -> tuple[str, int]:
        name = expression.name if expression.is_Symbol else self.node(expression, place)
        return name, self.entries[name].size

    def _product(self, matrix: str, expression: Any, place: Place) -> Any:
        entry = self.entries.get(matrix)
        if entry is None or not entry.columns:
            place.refuse(f"{matrix!r} before @", "a matrix, a parameter", f"{{{matrix!r}: torch.zeros(M, N)}}")
        if self.single:
            place.refuse("a product in a reset", "W @ fired, added to a state", "a subexpression in the equations")
        name, size = self._argument(expression, place)
        if size != entry.columns:
            place.refuse(
                f"{matrix} of {entry.size} × {entry.columns} @ a vector of {size}",
                "as many columns as entries",
                "its transpose",
            )
        return self._made("product", entry.size, matrix, name, place)

    def _reduce(self, how: str, expression: Any, place: Place) -> Any:
        if self.single:
            place.refuse(f"{how} in a reset", "states of the unit that fired", "a state")
        if any(x.name in self.flat for x in expression.free_symbols):
            place.refuse(f"{how} of a vector that this reset has set to one number", "a vector", "the number")
        name, size = self._argument(expression, place)
        total = self._made("sum", 1, None, name, place)
        return total / size if how == "mean" else total

    def _made(self, kind: str, size: int, matrix: str | None, argument: str, place: Place) -> Any:
        name = f"_{len(self.nodes)}"
        self._write(Node(name, size, kind, None, matrix, argument, place))
        return symbol(name)


def doubtful(program: Program) -> set[str]:
    """Nodes that a branch of `where` hangs on, and whose slope may be no number where that branch is not chosen.

    A slope that is infinite would else be multiplied with the zero that comes back from there. Not behind a sum or a product.
    """
    hang: set[str] = set()
    for node in reversed(program.nodes):
        if node.kind == "map":
            branches = [x for choice in node.expression.atoms(Choose) for x in choice.args[1:]]
            whole = [node.expression] if node.name in hang else []
            hang |= {x.name for part in (*branches, *whole) for x in part.free_symbols}
    steep: set[str] = set()
    for node in program.nodes:
        if node.kind == "map" and (is_steep(node.expression) or any(x.name in steep for x in node.expression.free_symbols)):
            steep.add(node.name)
    return hang & steep


def used_by(program: Program) -> set[str]:
    """Names that a program's results depend on."""
    found = set(program.results)
    for node in reversed(program.nodes):
        if node.name in found:
            names = {x.name for x in node.expression.free_symbols} if node.kind == "map" else {node.matrix, node.argument}
            found |= {x for x in names if x is not None}
    return found
