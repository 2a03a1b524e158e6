"""What a text says, checked: states, parameters, inputs, and f, guards and jumps as short programs of expressions."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from adjsnn.equations.lines import Assignment, Statement, assignments, lines, nearest, statements
from adjsnn.equations.writer import FIRED, Entry, Program, Writer, symbol, used_by
from adjsnn.errors import ConfigurationError

COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "": lambda before, right: right,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


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
    def used(self) -> set[str]:
        """Names that anything depends on."""
        events = [x for event in self.events for x in (event.guard, event.reset)]
        read = [x for x in (self.readout, *self.initial.values()) if isinstance(x, Program)]
        coupled = {x.matrix for event in self.events for x in event.changes if x.matrix is not None}
        return coupled.union(*(used_by(x) for x in (self.flow, *events, *read)))

    @property
    def width(self) -> int:
        """D, the entries of a state."""
        return sum(self.states.values())


def read_model(
    text: str,
    thresholds: Mapping[str, str],
    resets: Mapping[str, str],
    parameters: Mapping[str, tuple[int, int]],
    inputs: Mapping[str, int],
    sizes: Mapping[str, int] | int,
    readout: Sequence[str] | None,
    initial: Mapping[str, Any],
    units: bool = False,
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
        units: whether names of units are numbers.

    Raises:
        ConfigurationError: whatever cannot be right; quotes the line and points at the place.
    """
    found = statements(text)
    entries = _known(found, parameters, inputs, sizes)
    subexpressions = {line.name: line for line in found if line.kind == "subexpression"}
    states = {line.name: entries[line.name].size for line in found if line.kind == "derivative"}
    write = partial(Writer, subexpressions=subexpressions, units=units)
    writer = write(entries)
    flow = writer.program([_rate(writer, line, states) for line in found if line.kind == "derivative"])
    others = write(entries)
    for line in subexpressions.values():  # those that nothing needs are checked, too
        others.prepare(line.name, line.place)
    still = {name: entry for name, entry in entries.items() if entry.kind != "input"}
    absent = dict.fromkeys(inputs, "an input, of which events are not functions")
    write = partial(write, absent=absent)
    events = tuple(_event(name, thresholds[name], resets[name], write, still, states) for name in thresholds)
    write = partial(write, absent=absent | {"t": "the time, of which a readout is no function"})
    read = None if readout is None else _readout(readout, write({name: x for name, x in still.items() if name != "t"}))
    write = partial(Writer, subexpressions={}, units=units)
    return Model(states, parameters, inputs, flow, events, read, _initial(initial, states, entries, write))


def _known(
    found: Sequence[Statement],
    parameters: Mapping[str, tuple[int, int]],
    inputs: Mapping[str, int],
    sizes: Mapping[str, int] | int,
) -> dict[str, Entry]:
    """Every name that lines may use, but subexpressions."""
    for name in inputs:
        if name in parameters:
            raise ConfigurationError(f"{name!r} as an input and as a parameter", "one meaning of a name", "another name")
    entries = {"t": Entry("time", 1)}
    entries |= {name: Entry("parameter", *shape) for name, shape in parameters.items()}
    entries |= {name: Entry("input", size) for name, size in inputs.items()}
    seen: dict[str, Statement] = {}
    for line in found:
        if line.name in seen or (line.name in entries and line.kind != "declaration"):
            line.place._replace(column=0).refuse(f"{line.name!r} a second time", "one line for each name", "another name")
        if line.kind == "declaration" and line.name not in entries:
            line.place._replace(column=0).refuse(
                f"{line.name!r} without a value", "a parameter or an input", f"parameters={{{line.name!r}: 1.0}}"
            )
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
    write: Callable[..., Writer],
    entries: Mapping[str, Entry],
    states: Mapping[str, int],
) -> Event:
    places = list(lines(threshold, "threshold"))
    if len(places) != 1:
        raise ConfigurationError(f"the threshold {threshold!r}", "one comparison", 'threshold="v > 30"')
    guard = write(entries)
    level = guard.node(guard.comparison(places[0].line, places[0]), places[0])
    program, size = guard.program([level]), guard.entries[level].size
    if not used_by(program) & {"t", *states}:
        places[0].refuse("a threshold that nothing moves", "a comparison of a state, or of t", 'threshold="v > 30"')
    return Event(name, size, program, *_reset(assignments(reset), write(entries, single=size > 1), states, size))


def _reset(
    found: Sequence[Assignment], writer: Writer, states: Mapping[str, int], size: int
) -> tuple[Program, tuple[Change, ...]]:
    """The program of a reset: each assignment sees those before it."""
    entries = dict(writer.entries)
    coupled: list[Change] = []
    changed: dict[str, None] = {}
    for line in found:
        if line.name not in states:
            remedy = nearest(line.name, states, "an assignment to a state")
            column = max(line.place.line.rfind(line.name, 0, line.place.column), 0)
            line.place._replace(column=column).refuse(f"{line.name!r}, no state,", f"one of {', '.join(states)}", remedy)
        if line.name in {x.state for x in coupled} and FIRED not in line.right:
            line.place.refuse(f"{line.name} after {line.name} += W @ fired", "this to come last", "another order")
        if (coupling := _coupling(line, entries, states, size)) is not None:
            coupled.append(coupling)
            writer.absent[line.name] = "which has got W @ fired before"
            continue
        if size > 1 and states[line.name] not in (1, size):
            line.place.refuse(
                f"{line.name} of {states[line.name]} at a guard of {size}",
                "a state with as many units",
                f"{line.name} += W @ fired",
            )
        right = writer.read(line.right, line.place)
        allowed = (1, size if size > 1 else states[line.name])
        if any(writer.entries[x.name].size not in allowed for x in right.free_symbols):
            line.place.refuse("a vector of another size", f"numbers, and vectors of {allowed[1]}", "W @ fired")
        before = symbol(writer.now.get(line.name, line.name))
        if line.operator == "/" and right == 0:
            line.place.refuse("a division by zero", "a divisor that is not zero", "another expression")
        writer.change(line.name, COMBINE[line.operator](before, right), line.place, states[line.name])
        changed[line.name] = None
    changes = [Change(state, writer.now[state]) for state in changed]
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


def _readout(texts: Sequence[str], writer: Writer) -> Program:
    return writer.program([writer.add(place.line, place) for text in texts for place in lines(text, "readout")])


def _initial(
    initial: Mapping[str, Any], states: Mapping[str, int], entries: Mapping[str, Entry], write: Callable[..., Writer]
) -> dict[str, Any]:
    known = {name: x for name, x in entries.items() if x.kind == "parameter"}
    found = {}
    for name, value in initial.items():
        if name not in states:
            raise ConfigurationError(f"initial value of {name!r}", f"names of states: {', '.join(states)}", "leaving it out")
        if isinstance(value, str):
            writer = write(known)
            places = list(lines(value, "initial"))
            if len(places) != 1:
                raise ConfigurationError(f"the initial value {value!r} of {name!r}", "one expression", 'initial={"v": "b*c"}')
            node = writer.add(places[0].line, places[0])
            if writer.entries[node].size not in (1, states[name]):
                places[0].refuse(f"a vector of {writer.entries[node].size}", f"{states[name]}, as {name} has", "size=")
            value = writer.program([node])
        found[name] = value
    return found
