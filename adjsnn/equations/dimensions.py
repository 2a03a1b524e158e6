"""Whether a text's dimensions fit: every line, threshold, reset, readout and initial value."""

import ast
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from adjsnn.equations.grammar import pointed, tree
from adjsnn.equations.lines import Place, Statement, assignments, lines, short, statements
from adjsnn.equations.synapses import Synapse
from adjsnn.equations.units import NONE, TIME, Dimension, stated, unit_of, value_of
from adjsnn.equations.writer import FIRED, Writer
from adjsnn.errors import ConfigurationError

SAME = ("abs", "sum", "mean")  # of the dimension of their argument
EQUAL = ("minimum", "maximum", "clip")  # of several of one dimension
QUANTITY = 'a quantity of pint, quantities or Brian2, or text, "10*ms"'


def in_use(text: str, parameters: Mapping[str, Any]) -> bool:
    """Whether a line states a unit, or a parameter has one."""
    return any(x.unit is not None for x in statements(text)) or any(
        isinstance(x, str) or stated(name, x) is not None for name, x in parameters.items()
    )


def number(name: str, value: Any) -> tuple[Any, Dimension]:
    """Numbers of the coherent system and the dimension of a value: a quantity, text, or plain numbers, which have none."""
    if isinstance(value, str):
        places = list(lines(value, name))
        if len(places) != 1:
            raise ConfigurationError(f"{name}={value!r}", QUANTITY, f'{name}="10*ms"')
        expression = Writer({}, {}, units=True).read(places[0].line, places[0])
        return float(expression), Dimensions({}).of(places[0].line, places[0]) or NONE
    return stated(name, value) or (value, NONE)


class Dimensions:
    """Dimensions of expressions; None is that of 0, which fits everywhere.

    Args:
        known: of names.
    """

    def __init__(self, known: Mapping[str, Dimension | None]) -> None:
        self.known = dict(known)
        self.text, self.place = "", Place("", 1)

    def of(self, text: str, place: Place) -> Dimension | None:
        """Of a text that was read before."""
        node = tree(text, place)
        self.text, self.place = text, place
        return self._of(node)

    def compared(self, text: str, place: Place) -> None:
        """Of a threshold: those of both sides are the same."""
        node = tree(text, place)
        self.text, self.place = text, place
        self._condition(node)

    def expect(self, text: str, place: Place, wanted: Dimension | None, why: str) -> None:
        """Refuse a text of another dimension."""
        found = self.of(text, place)
        if found is not None and wanted is not None and found != wanted:
            place.refuse(f"{short(text)!r}, which is in {found},", f"{wanted}, {why}", "the units of every term")

    def _of(self, node: ast.AST) -> Dimension | None:  # noqa: PLR0911  one for each kind of node
        match node:
            case ast.Constant(value=value):
                return None if value == 0 else NONE
            case ast.Name(id=name):
                if name in self.known:
                    return self.known[name]
                unit = unit_of(name)
                return NONE if unit is None else unit[1]
            case ast.UnaryOp(operand=operand):
                return self._of(operand)
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
                return self._same([left, right])
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                return self._power(left, right)
            case ast.BinOp(left=left, op=op, right=right):
                one, other = self._of(left), self._of(right)
                return None if one is None or other is None else one.times(other, -1 if isinstance(op, ast.Div) else 1)
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self._call(name, arguments)
        return NONE

    def _same(self, nodes: Sequence[ast.AST]) -> Dimension | None:
        """The dimension that several have."""
        found = [(node, dimension) for node in nodes if (dimension := self._of(node)) is not None]
        for node, dimension in found[1:]:
            if dimension != found[0][1]:
                self._refuse(node, dimension, f"{found[0][1]}, as {short(ast.unparse(found[0][0]))!r}")
        return found[0][1] if found else None

    def _plain(self, node: ast.AST, what: str) -> None:
        if (found := self._of(node)) not in (None, NONE):
            self._refuse(node, found, f"a number without a unit, {what}")

    def _refuse(self, node: ast.AST, dimension: Dimension | None, expected: str) -> None:
        seen = f"{short(ast.unparse(node))!r}, which is in {dimension},"
        pointed(node, self.text, self.place).refuse(seen, expected, "the units of both")

    def _power(self, base: ast.AST, power: ast.AST) -> Dimension | None:
        self._plain(power, "as a power")
        dimension = self._of(base)
        if dimension in (None, NONE):
            return dimension
        sign = -1 if isinstance(power, ast.UnaryOp) else 1
        inner = power.operand if isinstance(power, ast.UnaryOp) else power
        parts = [inner.left, inner.right] if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Div) else [inner]
        numbers = [x.value for x in parts if isinstance(x, ast.Constant) and isinstance(x.value, int | float)]
        if len(numbers) != len(parts):
            self._refuse(base, dimension, "a power that is a number, or a base without a unit")
        return dimension.to(sign * Fraction(numbers[0]).limit_denominator(100) / Fraction(numbers[1] if numbers[1:] else 1))

    def _call(self, name: str, arguments: Sequence[ast.AST]) -> Dimension | None:
        if name in ("where", "int"):
            self._condition(arguments[0])
            return self._same(arguments[1:]) if name == "where" else NONE
        if name in SAME or name in EQUAL:
            return self._same(arguments)
        if name == "sqrt":
            found = self._of(arguments[0])
            return None if found is None else found.to(Fraction(1, 2))
        for argument in arguments:
            self._plain(argument, f"as {name} takes")
        return NONE

    def _condition(self, node: ast.AST) -> None:
        match node:
            case ast.BoolOp(values=values):
                for x in values:
                    self._condition(x)
            case ast.UnaryOp(operand=operand):
                self._condition(operand)
            case ast.Compare(left=left, comparators=[right]):
                self._same([left, right])


def check_units(
    text: str,
    thresholds: Sequence[str],
    resets: Sequence[str],
    readout: Sequence[str],
    initial: Mapping[str, Any],
    parameters: Mapping[str, Dimension],
) -> dict[str, Dimension]:
    """Dimensions of every name of a text that was read, whose lines all state a unit.

    Raises:
        ConfigurationError: a line without a unit or with one that does not fit; quotes the expression, its dimension and the
            one that is expected.
    """
    found = statements(text)
    known: dict[str, Dimension] = {"t": TIME, **parameters}
    for line in found:
        dimension = _stated(line)
        if line.name in parameters and parameters[line.name] != dimension:
            seen = f"{line.name} in {parameters[line.name]}"
            line.place._replace(column=0).refuse(seen, f"{dimension}, as the line says", QUANTITY)
        known[line.name] = dimension
    of = Dimensions(known)
    for line in found:
        if line.kind == "derivative":
            of.expect(line.right, line.place, known[line.name].times(TIME, -1), f"as d{line.name}/dt has")
        elif line.kind == "subexpression":
            of.expect(line.right, line.place, known[line.name], "as the line says")
    for threshold in thresholds:
        for place in lines(threshold, "threshold"):
            of.compared(place.line, place)
    for reset in resets:
        _check_reset(of, reset, known)
    for read in readout:
        for place in lines(read, "readout"):
            of.of(place.line, place)
    for name, value in initial.items():
        if isinstance(value, str):
            (place,) = lines(value, "initial")
            of.expect(place.line, place, known[name], f"as {name} has")
        elif known[name] != NONE and stated(name, value) is None and not (isinstance(value, int | float) and value == 0):
            raise ConfigurationError(
                f"initial value {value!r} of {name!r} without a unit", f"a value in {known[name]}", QUANTITY
            )
    return known


def check_synapses(synapses: Sequence[Synapse], known: Mapping[str, Dimension]) -> None:
    """Refuse weights that are not in the unit of the state they add to, and delays that are no times."""
    for synapse in synapses if known else ():
        for name, wanted in ((synapse.weight, known[synapse.state]), (synapse.delay, TIME)):
            if known[name] != wanted:
                raise ConfigurationError(f"{name} of synapses[{synapse.state!r}] in {known[name]}", f"{wanted}", QUANTITY)


def _stated(line: Statement) -> Dimension:
    """The dimension of the unit of a line."""
    if line.unit is None:
        remedy = "a unit on every line, 'dv/dt = ... : volt' and 'I : amp' for an input, or none and plain parameters"
        line.place._replace(column=0).refuse(f"{line.name!r} without a unit, where others have one,", "all or none", remedy)
    nodes = list(ast.walk(tree(line.unit, line.place)))
    for x in nodes:
        if isinstance(x, ast.Name) and value_of(x.id) is None:
            line.place.refuse(f"the unit {x.id!r}", "units such as volt, mV, amp, nS, second, 1", "leaving all units out")
        if not isinstance(x, ast.Name | ast.Constant | ast.BinOp | ast.UnaryOp | ast.operator | ast.unaryop | ast.expr_context):
            line.place.refuse(f"the unit {short(line.unit)!r}", "a product of units, nS/um2", "leaving all units out")
    return Dimensions({}).of(line.unit, line.place) or NONE


def _check_reset(of: Dimensions, reset: str, known: Mapping[str, Dimension]) -> None:
    for line in assignments(reset):
        wanted = known[line.name] if line.operator in ("", "+", "-") else NONE
        inner = Dimensions({**of.known, FIRED: NONE})
        inner.expect(line.right, line.place, wanted, f"as {line.name} has" if wanted != NONE else "as a factor")


def checked(name: str, value: Any, dimensions: Mapping[str, Dimension]) -> Any:
    """A value of a state as plain numbers, of its dimension where it has one.

    Raises:
        ConfigurationError: a quantity of another dimension, or one where the equations have no units.
    """
    if isinstance(value, str) or (found := stated(name, value)) is None:
        return value
    if name not in dimensions:
        raise ConfigurationError(f"{name}={value}, and equations without units", "plain numbers", "units in the text")
    if found[1] != dimensions[name]:
        raise ConfigurationError(f"{name} in {found[1]}", f"{dimensions[name]}, as the equations say", QUANTITY)
    return found[0]
