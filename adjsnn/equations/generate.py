"""The functions of a model as Python source for compiled loops: f, guards, jumps, and their products with a cotangent.

Reverse mode through the nodes of a program; the derivatives of each node by sympy, common subexpressions taken once. What the
functions are given and leave is said in `adjsnn.equations.cpu.names`.
"""

from collections.abc import Sequence
from typing import Any

from adjsnn.equations.model import Event, Model
from adjsnn.equations.nodes import Layout, Lines
from adjsnn.equations.writer import Program


def source_of(model: Model, layout: Layout) -> str:
    """Source of the functions of `adjsnn.equations.cpu.names` for one model."""
    parts = [_constants(model, layout), _field(model, layout), _pull_field(model, layout)]
    parts += [_levels(model, layout), _level(model, layout), _pull_level(model, layout)]
    parts += [_jump(model, layout), _pull_jump(model, layout)]
    return "\n\n".join(parts) + "\n"


def _constants(model: Model, layout: Layout) -> str:
    room = max((_room(program, layout) for program in _programs(model)), default=0)
    watched = sorted({k for event in model.events for k in _watched(event.guard, layout)})
    numbers = {
        "D": model.width,
        "C": sum(model.inputs.values()),
        "G": model.guards,
        "P": layout.shared,
        "Q": layout.own,
        "ROOM": max(room, 1),
        "WATCHED": tuple(watched) or (0,),
    }
    return "\n".join(f"{name} = {value!r}" for name, value in numbers.items())


def _programs(model: Model) -> list[Program]:
    return [model.flow, *(x for event in model.events for x in (event.guard, event.reset))]


def _room(program: Program, layout: Layout) -> int:
    del layout
    return sum(node.size for node in program.nodes if node.size > 1)


def _watched(program: Program, layout: Layout) -> set[int]:
    """The entries of the state that a guard is a function of."""
    names = {x.name for node in program.nodes if node.kind == "map" for x in node.expression.free_symbols}
    names |= {node.argument for node in program.nodes if node.argument}
    slots = [layout.slots[x] for x in names if x in layout.slots and layout.slots[x].array == "y"]
    return {k for slot in slots for k in range(slot.first, slot.first + slot.size)}


def _function(head: str, lines: Sequence[str], end: str = "") -> str:
    return "\n".join(
        [f"def {head}:", *(lines or ()), *([f"    {end}"] if end else []), *([] if lines or end else ["    pass"])]
    )


def _results(lines: Lines, program: Program, sizes: Sequence[int], into: str) -> None:
    first = 0
    for result, size in zip(program.results, sizes, strict=True):
        if size > 1:
            lines.say(f"for i in range({size}):")
            lines.say(f"{lines.view(into, first, size)}[i] = {lines._read(result)}", 1)
        else:
            lines.say(f"{into}[{first}] = {lines._read(result)}")
        first += size


def _field(model: Model, layout: Layout) -> str:
    lines = Lines(layout)
    lines.forward(model.flow)
    _results(lines, model.flow, list(model.states.values()), "dy")
    return _function("field(t, y, u, p, q, w, dy)", lines.body)


def _pull_field(model: Model, layout: Layout) -> str:
    lines = Lines(layout)
    lines.say("tb = 0.0")
    lines.forward(model.flow, again=True, kept=True)
    lines.clear(model.flow)
    first = 0
    for result, size in zip(model.flow.results, model.states.values(), strict=True):
        if size > 1:
            lines.say(f"for i in range({size}):")
            lines.say(f"{lines.bar(result)} += {lines.view('bar', first, size)}[i]", 1)
        else:
            lines.say(f"{lines.bar(result)} += bar[{first}]")
        first += size
    lines.backward(model.flow)
    return _function("pull_field(t, y, u, p, q, w, wb, bar, yb, ub, pb, qb)", lines.body, "return tb")


def _single(program: Program) -> bool:
    return all(node.kind == "map" for node in program.nodes)


def _levels(model: Model, layout: Layout) -> str:
    """All guards."""
    body: list[str] = []
    first = 0
    for event in model.events:
        lines = Lines(layout)
        lines.forward(event.guard)
        if event.size > 1:
            lines.say(f"for i in range({event.size}):")
            lines.say(f"{lines.view('levels', first, event.size)}[i] = {lines._read(event.guard.results[0])}", 1)
        else:
            lines.say(f"levels[{first}] = {lines._read(event.guard.results[0])}")
        body += lines.body
        first += event.size
    return _function("levels_of(t, y, p, q, w, levels)", body)


def _cases(model: Model, layout: Layout, write: Any, single: Any, otherwise: str) -> list[str]:
    """Lines for each event, by the number g of a guard; `j` is the unit."""
    body: list[str] = []
    first = 0
    for event in model.events:
        alone = event.size > 1 and single(event)
        lines = Lines(layout, "j" if alone else None)
        write(lines, event, alone)
        body.append(f"    if g < {first + event.size}:")
        body.append(f"        j = g - {first}")
        body += ["    " + line for line in lines.body]
        first += event.size
    return [*body, f"    {otherwise}"]


def _result(lines: Lines, event: Event, alone: bool) -> str:
    """The level of unit j."""
    text = lines._read(event.guard.results[0])
    return text if alone or event.size == 1 else text.replace("[i]", "[j]")


def _level(model: Model, layout: Layout) -> str:
    def write(lines: Lines, event: Event, alone: bool) -> None:
        lines.forward(event.guard)
        lines.say(f"return {_result(lines, event, alone)}")

    body = _cases(model, layout, write, lambda event: _single(event.guard), "return 0.0")
    return _function("level_of(g, t, y, p, q, w)", body)


def _pull_level(model: Model, layout: Layout) -> str:
    def write(lines: Lines, event: Event, alone: bool) -> None:
        lines.say("tb = 0.0")
        lines.forward(event.guard, again=True)
        lines.clear(event.guard)
        bar = lines.bar(event.guard.results[0])
        lines.say(f"{bar if alone or event.size == 1 else bar.replace('[i]', '[j]')} += scale")
        lines.backward(event.guard)
        lines.say("return tb")

    body = _cases(model, layout, write, lambda event: _single(event.guard), "return 0.0")
    return _function("pull_level(g, t, y, p, q, w, wb, scale, yb, pb, qb)", body)


def _jump(model: Model, layout: Layout) -> str:
    def write(lines: Lines, event: Event, alone: bool) -> None:
        lines.forward(event.reset)
        for change in event.changes:
            slot = layout.slots[change.state]
            if change.node is not None:
                if slot.size > 1 and not alone:
                    lines.say(f"for i in range({slot.size}):")
                    lines.say(f"{lines.view('plus', slot.first, slot.size)}[i] = {lines._read(change.node)}", 1)
                else:
                    lines.say(f"{lines._entry('plus', slot)} = {lines._read(change.node)}")
        for change in event.changes:
            if change.matrix is not None:
                slot, (first, rows, _) = layout.slots[change.state], layout.matrices[change.matrix]
                lines.say(f"for i in range({rows}):")
                lines.say(f"plus[{slot.first} + i] += {change.sign} * p[{first} + j * {rows} + i]", 1)
        lines.say("return")

    body = ["    for i in range(len(y)):", "        plus[i] = y[i]"]
    body += _cases(model, layout, write, lambda event: True, "return")
    return _function("jump(g, t, y, p, q, w, plus)", body)


def _pull_jump(model: Model, layout: Layout) -> str:
    def write(lines: Lines, event: Event, alone: bool) -> None:
        lines.say("tb = 0.0")
        lines.forward(event.reset, again=True)
        lines.clear(event.reset)
        for change in event.changes:
            slot = layout.slots[change.state]
            if change.matrix is not None:
                first, rows, _ = layout.matrices[change.matrix]
                lines.say(f"for i in range({rows}):")
                lines.say(f"pb[{first} + j * {rows} + i] += {change.sign} * bar[{slot.first} + i]", 1)
        for change in event.changes:
            slot = layout.slots[change.state]
            if change.node is None:
                continue
            depth = 0
            if slot.size > 1 and not alone:
                lines.say(f"for i in range({slot.size}):")
                depth = 1
            lines.say(f"{lines.bar(change.node)} += {lines._entry('bar', slot)}", depth)
            lines.say(f"{lines._entry('yb', slot)} -= {lines._entry('bar', slot)}", depth)
        lines.backward(event.reset)
        lines.say("return tb")

    body = ["    for i in range(len(y)):", "        yb[i] += bar[i]"]
    body += _cases(model, layout, write, lambda event: True, "return 0.0")
    return _function("pull_jump(g, t, y, p, q, w, wb, bar, yb, pb, qb)", body)
