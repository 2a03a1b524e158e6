"""What a text says, checked: states, parameters, inputs, and f, guards and jumps as short programs of expressions."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import sympy

from adjsnn.equations.grammar import Assignment, Place, Reader, Statement, assignments, lines, statements
from adjsnn.errors import ConfigurationError

FIRED = "fired"
COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "": lambda before, right: right,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


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


class Change(NamedTuple):
    """What a jump does to one state: the node that holds its new value, of one unit for a guard of each; or what is added to
    all units by W @ fired, the name of W with its sign."""

    state: str
    node: str | None
    matrix: str | None = None
    sign: float = 1.0


class Event(NamedTuple):
    """One threshold and its reset.

    Fields: name; size, the number of guards, one for each unit; guard, a program with one result; reset, a program of the state
    before the jump; changes.
    """

    name: str
    size: int
    guard: Program
    reset: Program
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Model:
    """A system as its text says it.

    Attributes:
        states: sizes of the states, in order.
        parameters: sizes of the parameters, (rows, columns), columns 0 where it is no matrix.
        inputs: sizes of the inputs, in order.
        flow: f, a result for each state.
        events: thresholds and resets.
        readout: a result for each name that is read.
        initial: numbers and expressions of parameters, by state.
    """

    states: Mapping[str, int]
    parameters: Mapping[str, tuple[int, int]]
    inputs: Mapping[str, int]
    flow: Program
    events: tuple[Event, ...] = ()
    readout: Program | None = None
    initial: Mapping[str, Any] = field(default_factory=dict)

    @property
    def guards(self) -> int:
        return sum(event.size for event in self.events)

    @property
    def width(self) -> int:
        """D, the entries of a state."""
        return sum(self.states.values())


def symbol(name: str) -> Any:
    return sympy.Symbol(name, real=True)


class Writer:
    """Writes one program: reads texts in order and makes nodes of them, subexpressions first, each once.

    Args:
        entries: names that are known before.
        subexpressions: lines that may be needed, by name.
        single: vectors stand for the entry of one unit, as in the reset of a guard of each unit.
    """

    def __init__(self, entries: Mapping[str, Entry], subexpressions: Mapping[str, Statement], *, single: bool = False) -> None:
        self.entries, self.subexpressions = dict(entries), subexpressions
        self.single = single
        self.nodes: list[Node] = []
        self.under_way: list[str] = []
        self.calls: dict[Any, Any] = {}  # of functions, each a node of its own, whose value its slope is made of
        self.reader = Reader(self._name, self._product, self._reduce)

    def add(self, text: str, place: Place, name: str | None = None) -> str:
        """The node of a text."""
        return self.node(self.reader.read(text, place), place, name)

    def node(self, expression: Any, place: Place, name: str | None = None) -> str:
        """The node of an expression."""
        expression = self._apart(expression, place)
        name = name or f"_{len(self.nodes)}"
        self._write(Node(name, self._size(expression, place), "map", expression, None, None, place))
        return name

    def _apart(self, expression: Any, place: Place) -> Any:
        """The expression with nodes in the place of its calls of functions, but of those that hang on a condition."""
        if isinstance(expression, sympy.Piecewise) or not expression.args:
            return expression
        rest = expression.func(*(self._apart(x, place) for x in expression.args))
        if not isinstance(rest, sympy.Function) or not rest.free_symbols:
            return rest
        if rest not in self.calls:
            name = f"_{len(self.nodes)}"
            self._write(Node(name, self._size(rest, place), "map", rest, None, None, place))
            self.calls[rest] = symbol(name)
        return self.calls[rest]

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
        if name not in self.entries and name in self.subexpressions:
            self._subexpression(self.subexpressions[name], place)
        entry = self.entries.get(name)
        if entry is None:
            known = ", ".join(sorted(x for x in (*self.entries, *self.subexpressions) if not x.startswith("_")))
            place.refuse(f"the unknown name {name!r}", f"one of {known}", f"parameters={{{name!r}: 1.0}}")
        if entry.columns:
            place.refuse(f"the matrix {name!r} by itself", f"{name} @ x", f"{name} @ x")
        return symbol(name)

    def _subexpression(self, line: Statement, place: Place) -> None:
        if line.name in self.under_way:
            circle = " → ".join((*self.under_way, line.name))
            place.refuse(f"{line.name!r}, which needs itself ({circle}),", "no circle", "a state")
        self.under_way.append(line.name)
        outer = self.reader.place
        self.add(line.right, line.place, line.name)
        self.reader.place = outer
        self.under_way.pop()

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
        name, size = self._argument(expression, place)
        total = self._made("sum", 1, None, name, place)
        return total / size if how == "mean" else total

    def _made(self, kind: str, size: int, matrix: str | None, argument: str, place: Place) -> Any:
        name = f"_{len(self.nodes)}"
        self._write(Node(name, size, kind, None, matrix, argument, place))
        return symbol(name)


def read_model(
    text: str,
    thresholds: Mapping[str, str],
    resets: Mapping[str, str],
    parameters: Mapping[str, tuple[int, int]],
    inputs: Mapping[str, int],
    sizes: Mapping[str, int] | int,
    readout: Sequence[str] | None,
    initial: Mapping[str, Any],
) -> Model:
    """The model of a text.

    Args:
        text: equations, one a line.
        thresholds: a comparison for each event, by name.
        resets: assignments of each event.
        parameters: (rows, columns) of each parameter: (1, 0) a number, (N, 0) a vector, (M, N) a matrix.
        inputs: size of each input.
        sizes: of the states; one for all, or by name, 1 where not said.
        readout: expressions that are read, or None: the states.
        initial: numbers or expressions of parameters, by state.

    Raises:
        ConfigurationError: whatever cannot be right; quotes the line and points at the place.
    """
    found = statements(text)
    entries = _known(found, parameters, inputs, sizes)
    subexpressions = {line.name: line for line in found if line.kind == "subexpression"}
    states = {line.name: entries[line.name].size for line in found if line.kind == "derivative"}
    writer = Writer(entries, subexpressions)
    flow = writer.program([_rate(writer, line, states) for line in found if line.kind == "derivative"])
    for line in subexpressions.values():  # those that nothing needs are checked, too
        Writer(entries, subexpressions).add(line.right, line.place, line.name)
    still = {name: entry for name, entry in entries.items() if entry.kind != "input"}
    events = tuple(_event(name, thresholds[name], resets[name], still, subexpressions, states) for name in thresholds)
    read = None if readout is None else _readout(readout, still, subexpressions)
    return Model(states, parameters, inputs, flow, events, read, _initial(initial, states, entries))


def _known(
    found: Sequence[Statement],
    parameters: Mapping[str, tuple[int, int]],
    inputs: Mapping[str, int],
    sizes: Mapping[str, int] | int,
) -> dict[str, Entry]:
    """Every name that lines may use, but subexpressions."""
    entries = {"t": Entry("time", 1)}
    entries |= {name: Entry("parameter", *shape) for name, shape in parameters.items()}
    entries |= {name: Entry("input", size) for name, size in inputs.items()}
    seen: dict[str, Statement] = {}
    for line in found:
        if line.name in seen or (line.name in entries and line.kind != "declaration"):
            line.place._replace(column=0).refuse(f"{line.name!r} a second time", "one line for each name", "another name")
        if line.kind == "declaration" and line.name not in entries:
            line.place.refuse(f"{line.name!r} without a value", "a parameter or an input", f"parameters={{{line.name!r}: 1.0}}")
        seen[line.name] = line
    states = [line for line in found if line.kind == "derivative"]
    if not states:
        raise ConfigurationError("no equation of a state", "at least one dx/dt = ...", '"dv/dt = (I - v)/tau"')
    by_name = dict.fromkeys((line.name for line in states), sizes) if isinstance(sizes, int) else sizes
    for name in by_name:
        if name not in {line.name for line in states}:
            raise ConfigurationError(f"size of {name!r}", ", ".join(x.name for x in states), "leaving it out")
    return entries | {line.name: Entry("state", by_name.get(line.name, 1)) for line in states}


def _rate(writer: Writer, line: Statement, states: Mapping[str, int]) -> str:
    name = writer.add(line.right, line.place, f"_d_{line.name}")
    if writer.entries[name].size not in (1, states[line.name]):
        line.place.refuse(f"a right side of {writer.entries[name].size}", f"{states[line.name]}, as {line.name} has", "size=")
    return name


def _event(
    name: str,
    threshold: str,
    reset: str,
    entries: Mapping[str, Entry],
    lines_: Mapping[str, Statement],
    states: Mapping[str, int],
) -> Event:
    places = list(lines(threshold, "threshold"))
    if len(places) != 1:
        raise ConfigurationError(f"the threshold {threshold!r}", "one comparison", 'threshold="v > 30"')
    guard = Writer(entries, lines_)
    level = guard.node(guard.reader.comparison(places[0].line, places[0]), places[0])
    size = guard.entries[level].size
    program, changes = _reset(assignments(reset), entries, lines_, states, size)
    return Event(name, size, guard.program([level]), program, changes)


def _reset(
    found: Sequence[Assignment],
    entries: Mapping[str, Entry],
    lines_: Mapping[str, Statement],
    states: Mapping[str, int],
    size: int,
) -> tuple[Program, tuple[Change, ...]]:
    """The program of a reset: each assignment sees those before it."""
    writer = Writer(entries, lines_, single=size > 1)
    new: dict[str, Any] = {}  # of each state that changed, as an expression of the state before the jump
    coupled: list[Change] = []
    for line in found:
        if line.name not in states:
            known = ", ".join(states)
            line.place._replace(column=0).refuse(f"{line.name!r}, no state,", f"one of {known}", "an assignment to a state")
        if (coupling := _coupling(line, entries, states, size)) is not None:
            coupled.append(coupling)
            continue
        if size > 1 and states[line.name] not in (1, size):
            line.place.refuse(
                f"{line.name} of {states[line.name]} at a guard of {size}",
                "a state with as many units",
                f"{line.name} += W @ fired",
            )
        right = writer.reader.read(line.right, line.place)
        allowed = (1, size if size > 1 else states[line.name])
        if any(writer.entries[x.name].size not in allowed for x in right.free_symbols):
            line.place.refuse("a vector of another size", f"numbers, and vectors of {allowed[1]}", "W @ fired")
        before = new.get(line.name, symbol(line.name))
        right = right.xreplace({symbol(state): value for state, value in new.items()})
        new[line.name] = COMBINE[line.operator](before, right)
    place = found[0].place if found else Place("", 1)
    changes = [Change(state, writer.node(value, place)) for state, value in new.items()]
    return writer.program([change.node or "" for change in changes]), (*changes, *coupled)


def _coupling(line: Assignment, entries: Mapping[str, Entry], states: Mapping[str, int], size: int) -> Change | None:
    """g += W @ fired, or None where an assignment is none such."""
    parts = line.right.split("@")
    if len(parts) != 2 or parts[1].strip() != FIRED:
        return None
    matrix = parts[0].strip()
    entry = entries.get(matrix)
    if line.operator not in ("+", "-") or entry is None or (entry.size, entry.columns) != (states[line.name], size):
        seen = f"{line.name} {line.operator}= {line.right.strip()}"
        line.place.refuse(seen, f"W of {states[line.name]} × {size}, added", f"{line.name} += W @ fired")
    return Change(line.name, None, matrix, 1.0 if line.operator == "+" else -1.0)


def _readout(texts: Sequence[str], entries: Mapping[str, Entry], lines_: Mapping[str, Statement]) -> Program:
    writer = Writer({name: x for name, x in entries.items() if name != "t"}, lines_)
    add = partial(writer.add)
    return writer.program([add(place.line, place) for text in texts for place in lines(text, "readout")])


def _initial(initial: Mapping[str, Any], states: Mapping[str, int], entries: Mapping[str, Entry]) -> dict[str, Any]:
    known = {name: x for name, x in entries.items() if x.kind == "parameter"}
    found = {}
    for name, value in initial.items():
        if name not in states:
            raise ConfigurationError(f"initial value of {name!r}", f"names of states: {', '.join(states)}", "leaving it out")
        if isinstance(value, str):
            writer = Writer(known, {})
            (place,) = lines(value, "initial")
            value = writer.program([writer.add(value, place)])
        found[name] = value
    return found
