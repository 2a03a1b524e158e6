"""The nodes of a program as lines of source, in order and back, and where everything that they read lies."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import sympy

from adjsnn.equations.model import Model
from adjsnn.equations.printing import LoopPrinter
from adjsnn.equations.writer import Node, Program, doubtful, symbol

WIDE = 4  # units of a vector from which on its loop takes several at once


class Slot(NamedTuple):
    """Where a name's values lie: the array, the first entry, and how many; 1 is a number."""

    array: str
    first: int
    size: int


class Layout(NamedTuple):
    """Where everything lies.

    Fields: slots by name; matrices (first entry in p, rows, columns), kept by columns; entries of p and of q.
    """

    slots: Mapping[str, Slot]
    matrices: Mapping[str, tuple[int, int, int]]
    shared: int
    own: int


def layout_of(model: Model, own: Mapping[str, int]) -> Layout:
    """Parameters that all samples share lie in p, in order; those of each sample, `own` with their sizes, in q."""
    slots = {"t": Slot("t", 0, 1)}
    for array, sizes in (("y", model.states), ("u", model.inputs), ("q", own)):
        first = 0
        for name, size in sizes.items():
            slots[name] = Slot(array, first, size)
            first += size
    matrices, first = {}, 0
    for name, (rows, columns) in model.parameters.items():
        if name in own:
            continue
        if columns:
            matrices[name] = (first, rows, columns)
        else:
            slots[name] = Slot("p", first, rows)
        first += rows * max(columns, 1)
    return Layout(slots, matrices, first, sum(own.values()))


class Lines:
    """Source of one function: nodes of a program in order, and back.

    Args:
        layout: of what is given.
        unit: the entry that vectors stand for, where the program is that of one unit; None: all entries.
    """

    def __init__(self, layout: Layout, unit: str | None = None) -> None:
        self.layout, self.unit = layout, unit
        self.slots = dict(layout.slots)
        self.lines: list[str] = []
        self.views: dict[str, str] = {}
        self.room = 0  # entries of w taken
        self.printer = LoopPrinter(self._read)
        self.counter = 0

    def say(self, line: str, depth: int = 0) -> None:
        self.lines.append("    " * (depth + 1) + line)

    def is_number(self, name: str) -> bool:
        return self.slots[name].size == 1 or self.unit is not None

    def _read(self, name: str) -> str:
        """A value, in a loop over i where it is a vector's."""
        if name not in self.slots:
            return name  # of a common subexpression
        slot = self.slots[name]
        if slot.array == "t":
            return "t"
        if slot.array == "local":
            return f"n{slot.first}"
        return self._entry(slot.array, slot)

    def _entry(self, array: str, slot: Slot) -> str:
        if slot.size == 1:
            return f"{array}[{slot.first}]"
        if self.unit:
            return f"{array}[{slot.first} + {self.unit}]"
        return f"{self.view(array, slot.first, slot.size)}[i]"

    def view(self, array: str, first: int, size: int) -> str:
        """A part of an array: an index that is a sum may be negative, for all the compiler knows, and then no vectors."""
        name = f"{array}_{first}_{size}"
        self.views[name] = f"    {name} = {array}[{first} : {first + size}]"
        return name

    @property
    def body(self) -> list[str]:
        """All lines, the parts of arrays first."""
        return [*self.views.values(), *self.lines]

    def bar(self, name: str) -> str:
        """Where the cotangent of a value is summed."""
        slot = self.slots[name]
        if slot.array == "t":
            return "tb"
        if slot.array == "local":
            return f"b{slot.first}"
        return self._entry({"w": "wb", "y": "yb", "u": "ub", "p": "pb", "q": "qb"}[slot.array], slot)

    def forward(self, program: Program, *, again: bool = False, kept: bool = False) -> None:
        """Lines that compute every node; `again`, those that the way back reads, but vectors `kept` in w since."""
        read = _read_again(program) if again else {node.name for node in program.nodes}
        for node in program.nodes:
            if node.size == 1 or self.unit is not None:
                self.slots[node.name] = Slot("local", self.counter, 1)
                self.counter += 1
            else:
                self.slots[node.name] = Slot("w", self.room, node.size)
                self.room += node.size
        nodes = [x for x in program.nodes if x.name in read and not (kept and self.slots[x.name].array == "w")]
        for (kind, size), group in groupby(nodes, lambda x: (x.kind, 1 if self.unit else x.size)):
            if kind == "map":
                self._maps(list(group), size)
            else:
                for node in group:
                    self._reduced(node)

    def _maps(self, nodes: Sequence[Node], size: int) -> None:
        depth = 0
        if size > 1:
            self.say(f"for i in range({size}):")
            depth = 1
        self.printer.lanes = size >= WIDE
        for node in nodes:
            self.say(f"{self._read(node.name)} = {self.printer.doprint(node.expression)}", depth)
        self.printer.lanes = False

    def _reduced(self, node: Node) -> None:
        slot = self.slots[node.argument or ""]
        if node.matrix is None:
            self.say(
                f"{self._read(node.name)} = total({self._span(slot)})"
                if slot.size > 1
                else f"{self._read(node.name)} = {self._read(node.argument or '')}"
            )
            return
        first, rows, columns = self.layout.matrices[node.matrix]
        own = self.slots[node.name]
        matrix = self.view("p", first, rows * columns)
        if own.size == 1:
            self.say(
                f"{self._read(node.name)} = dot({matrix}, {self._span(slot)})"
                if slot.size > 1
                else f"{self._read(node.name)} = p[{first}] * {self._read(node.argument or '')}"
            )
        elif slot.size > 1:
            self.say(f"apply({matrix}, {self._span(slot)}, {self._span(own)})")
        else:
            self.say(f"for i in range({own.size}):")
            self.say(f"{self._read(node.name)} = {matrix}[i] * {self._read(node.argument or '')}", 1)

    def _span(self, slot: Slot, array: str | None = None) -> str:
        return self.view(array or slot.array, slot.first, slot.size)

    def clear(self, program: Program) -> None:
        """Lines that set the cotangents of all nodes to zero."""
        for node in program.nodes:
            slot = self.slots[node.name]
            if slot.array == "local":
                self.say(f"b{slot.first} = 0.0")
        if self.room:
            self.say(f"for i in range({self.room}):")
            self.say("wb[i] = 0.0", 1)

    def backward(self, program: Program) -> None:
        """Lines that carry the cotangents of nodes to what they were computed from: of those on which results depend smoothly.

        So zero is not multiplied with the infinite slope of what stands in a condition alone.
        """
        alive, guarded = set(program.results), doubtful(program)
        for node in reversed(program.nodes):
            if node.name not in alive:
                continue
            if node.kind == "map":
                alive |= self._map_back(node, guarded=node.name in guarded)
            else:
                self._reduced_back(node)
                alive.add(node.argument or "")

    def _map_back(self, node: Node, *, guarded: bool) -> set[str]:
        """Lines of one node; the names it carries to. Of one that is guarded zero carries nothing, whatever the slope."""
        symbols: list[Any] = sorted(node.expression.free_symbols, key=lambda x: x.name)
        slopes = slopes_of(node)
        wanted = [(x, d) for x, d in zip(symbols, slopes, strict=True) if d != 0]
        if not wanted:
            return set()
        size = 1 if self.unit else node.size
        depth = 0
        sums: dict[str, str] = {}  # of numbers over the units, outside of memory
        if size > 1:
            sums = {x.name: f"s{k}" for k, (x, _) in enumerate(wanted) if self.slots[x.name].size == 1}
            for total in sums.values():
                self.say(f"{total} = 0.0")
            self.say(f"for i in range({size}):")
            depth = 1
        self.printer.lanes = size >= WIDE
        common, reduced = sympy.cse([d for _, d in wanted], sympy.numbered_symbols("_c", real=True))
        for name, value in common:
            self.say(f"{name} = {self.printer.doprint(value)}", depth)
        own = self.bar(node.name)
        guard = f" if {own} != 0.0 else 0.0" if guarded else ""
        for (x, _), slope in zip(wanted, reduced, strict=True):
            factor = "" if slope == 1 else f" * ({self.printer.doprint(slope)})"
            into = sums.get(x.name) or self.bar(x.name)
            self.say(f"{into} += {own}{factor}{guard}", depth)
        for name, total in sums.items():
            self.say(f"{self.bar(name)} += {total}")
        self.printer.lanes = False
        return {x.name for x, _ in wanted}

    def _reduced_back(self, node: Node) -> None:
        slot, own = self.slots[node.argument or ""], self.slots[node.name]
        into = {"w": "wb", "y": "yb", "u": "ub", "p": "pb", "q": "qb"}.get(slot.array, "")
        argument = self.bar(node.argument or "")
        if node.matrix is None:
            if slot.size > 1:
                self.say(f"for i in range({slot.size}):")
                self.say(f"{argument} += {self.bar(node.name)}", 1)
            else:
                self.say(f"{argument} += {self.bar(node.name)}")
            return
        first, rows, columns = self.layout.matrices[node.matrix]
        matrix, sums = (self.view(x, first, rows * columns) for x in ("p", "pb"))
        if own.size == 1 and slot.size > 1:
            self.say(f"dot_back({matrix}, {self._span(slot)}, {self.bar(node.name)}, {self._span(slot, into)}, {sums})")
        elif own.size == 1:
            self.say(f"pb[{first}] += {self.bar(node.name)} * {self._read(node.argument or '')}")
            self.say(f"{argument} += {self.bar(node.name)} * p[{first}]")
        elif slot.size > 1:
            bars = self._span(own, "wb")
            self.say(f"apply_back({matrix}, {self._span(slot)}, {bars}, {self._span(slot, into)}, {sums})")
        else:
            self.say(f"for i in range({own.size}):")
            self.say(f"{sums}[i] += {self.bar(node.name)} * {self._read(node.argument or '')}", 1)
            self.say(f"{argument} += {self.bar(node.name)} * {matrix}[i]", 1)


def slopes_of(node: Node) -> list[Any]:
    """Derivatives of a map by its symbols, in the order of their names; of a function by its own value."""
    own = {node.expression: symbol(node.name)} if isinstance(node.expression, sympy.Function) else {}
    symbols: list[Any] = sorted(node.expression.free_symbols, key=lambda x: x.name)
    return [sympy.diff(node.expression, x).xreplace(own) for x in symbols]


def _read_again(program: Program) -> set[str]:
    """Nodes whose values the derivatives of others read, and what these are computed from."""
    wanted: set[str] = set()
    for node in program.nodes:
        if node.kind == "map":
            slopes = slopes_of(node)
            symbols: Any = {x for slope in slopes for x in slope.free_symbols}
            wanted |= {x.name for x in symbols}
        elif node.matrix is not None:
            wanted.add(node.argument or "")
    for node in reversed(program.nodes):
        if node.name in wanted:
            wanted |= {x.name for x in node.expression.free_symbols} if node.kind == "map" else {node.argument or ""}
    return wanted
