"""From text to statements and expressions: Brian's habits, a grammar of its own, and no evaluation of text.

Python's parser makes a tree; only the nodes named here are taken out of it. Whatever else stands in a text is an error that
quotes the line and points at the place.
"""

import ast
import keyword
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import sympy

from adjsnn.equations.functions import CONDITIONAL, FUNCTIONS, NAMES, REDUCTIONS
from adjsnn.errors import ConfigurationError

NAME = re.compile(r"[^\W\d]\w*$")
DERIVATIVE = re.compile(r"\s*d\s*([^\W\d]\w*)\s*/\s*dt\s*$")
UNIT = re.compile(r":\s*(?P<unit>[^()#:]*?)\s*(?:\((?P<flags>[^()]*)\))?\s*$")
RESERVED = {"t", "dt", "xi", "fired", "pi", "e", "inf", "nan", "i", "N", *keyword.kwlist}
COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: sympy.StrictLessThan,
    ast.LtE: sympy.LessThan,
    ast.Gt: sympy.StrictGreaterThan,
    ast.GtE: sympy.GreaterThan,
}
LONGEST = 100_000  # characters of a text: Python's parser is not made for more
DEEPEST = 200  # nested parentheses


class Place(NamedTuple):
    """Where something stands: the line as it was written, its number from 1 on, and the column from 0 on."""

    line: str
    number: int
    column: int = 0

    def refuse(self, what: str, expected: str, remedy: str) -> NoReturn:
        """Raise ConfigurationError that quotes the line and points at the place."""
        raise ConfigurationError(f"{what} at line {self.number}, column {self.column + 1} of {self.line!r}", expected, remedy)

    def at(self, column: int) -> "Place":
        """Another column of the same line."""
        return self._replace(column=self.column + column)


NOWHERE = Place("", 1)


class Statement(NamedTuple):
    """A line of equations.

    Fields: kind "derivative", "subexpression" or "declaration"; name; the text of the right side and where it begins; the unit
    that was given, or None.
    """

    kind: str
    name: str
    right: str
    place: Place
    unit: str | None


class Assignment(NamedTuple):
    """One assignment of a reset: name, the operator "", "+", "-", "*" or "/", right side and its place."""

    name: str
    operator: str
    right: str
    place: Place


def lines(text: object, what: str) -> Iterator[Place]:
    """The lines of a text that hold something, without comments, those that go on joined; `column` is where each begins."""
    if not isinstance(text, str):
        raise ConfigurationError(f"{what} of type {type(text).__name__}", "text", f'{what}="..."')
    if len(text) > LONGEST:
        raise ConfigurationError(f"{what} of {len(text)} characters", f"at most {LONGEST}", "fewer equations, or vectors")
    held, first = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split("#", 1)[0].rstrip()
        if not held and not line.strip():
            continue
        first = first if held else number
        goes_on = line.endswith("\\")
        held += line.removesuffix("\\") if goes_on else line
        if goes_on or held.count("(") > held.count(")"):
            held += " "
            continue
        yield Place(held, first)
        held = ""
    if held:
        Place(held, first).refuse("a line that does not end", "as many closing as opening parentheses", "closing them")


def statements(text: object) -> list[Statement]:
    """The equations of a text."""
    return [_statement(place) for place in lines(text, "equations")]


def _statement(place: Place) -> Statement:
    line, unit = place.line, None
    if (found := UNIT.search(line)) is not None:
        unit = found["unit"].strip() or None
        for flag in filter(None, re.split(r"[,\s]+", found["flags"] or "")):
            if flag not in ("constant", "shared"):
                place.at(found.start("flags")).refuse(
                    f"the flag ({found['flags']})",
                    "(constant) or (shared) at most",
                    "a state and a guard that say the same",
                )
        line = line[: found.start()]
    left, equals, right = line.partition("=")
    if not equals:
        return Statement("declaration", _name(left, place), "", place, unit)
    begin = len(left) + 1
    derivative = DERIVATIVE.match(left)
    name = derivative[1] if derivative else left
    return Statement("derivative" if derivative else "subexpression", _name(name, place), right, place.at(begin), unit)


def assignments(text: object, what: str = "reset") -> list[Assignment]:
    """The assignments of a reset, one a line or separated by semicolons."""
    found = []
    for place in lines(text, what):
        column = 0
        for part in place.line.split(";"):
            if part.strip():
                found.append(_assignment(part, place.at(column)))
            column += len(part) + 1
    return found


def _assignment(part: str, place: Place) -> Assignment:
    left, equals, right = part.partition("=")
    if not equals or right.startswith("="):
        place.refuse(f"{part.strip()!r}", "an assignment", "v = c, or w += d")
    operator = left.rstrip()[-1:] if left.rstrip()[-1:] in tuple("+-*/") else ""
    name = left.rstrip().removesuffix(operator) if operator else left
    return Assignment(_name(name, place), operator, right, place.at(len(left) + 1))


def _name(text: str, place: Place) -> str:
    name = text.strip()
    column = len(text) - len(text.lstrip())
    if not NAME.match(name):
        place.at(column).refuse(f"{name!r}", "a name, as in dv/dt = ..., x = ...", "one equation a line")
    if name in RESERVED or name in NAMES or name.startswith("_"):
        place.at(column).refuse(f"{name!r}, which has a meaning already,", "another name", f"{name}_0")
    return name


def tree(text: str, place: Place) -> ast.expr:
    """The syntax tree of one expression."""
    if text.count("(") > DEEPEST:
        place.refuse(f"{text.count('(')} parentheses", f"at most {DEEPEST}", "named subexpressions")
    if not text.strip():
        place.refuse("nothing", "an expression", "a number, at least")
    # In parentheses a text of several lines' length and with blanks before it is one expression.
    source = "(" + text.replace("^", "**") + ")"
    try:
        return ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        column = max((getattr(error, "offset", None) or 1) - 2, 0)
        shift = text[:column].count("^")  # each became one character longer
        place.at(min(column - shift, max(len(text) - 1, 0))).refuse(
            f"{text.strip()!r}, which is no expression,",
            "sums, products, powers and calls",
            "Python's rules",
        )


@dataclass
class Reader:
    """Makes expressions of sympy from syntax trees.

    Attributes:
        names: what a name is, given it and its place; raises where it is not known.
        product: what W @ x is, from the name of the matrix, the expression x and the place.
        reduce: what sum(x) or mean(x) is.
    """

    names: Callable[[str, Place], Any]
    product: Callable[[str, Any, Place], Any]
    reduce: Callable[[str, Any, Place], Any]
    place: Place = NOWHERE

    def read(self, text: str, place: Place) -> Any:
        """The expression of a text."""
        self.place = place
        return self._real(self._of(tree(text, place)), text)

    def _real(self, expression: Any, text: str) -> Any:
        if expression.has(sympy.I, sympy.oo, sympy.zoo, sympy.nan):
            self.place.refuse(f"{text.strip()!r}, which is {expression},", "a real number", "another expression")
        return expression

    def comparison(self, text: str, place: Place) -> Any:
        """φ of a comparison, which holds where φ > 0."""
        self.place = place
        node = tree(text, place)
        if not isinstance(node, ast.Compare) or len(node.ops) != 1 or type(node.ops[0]) not in COMPARISONS:
            place.refuse(f"{text.strip()!r}", "one comparison by > or <, which becomes true at an event", 'threshold="v > 30"')
        left, right = self._of(node.left), self._of(node.comparators[0])
        return self._real(right - left if isinstance(node.ops[0], ast.Lt | ast.LtE) else left - right, text)

    def _at(self, node: ast.AST) -> Place:
        return self.place.at(max(getattr(node, "col_offset", 1) - 1, 0))

    def _of(self, node: ast.expr) -> Any:  # noqa: PLR0911  one for each kind of node
        match node:
            case ast.Constant(value=bool()):
                pass
            case ast.Constant(value=int() as number):
                return sympy.Integer(number) if number < 2**53 else sympy.Float(number, 17)
            case ast.Constant(value=float() as number) if abs(number) < float("inf"):
                return sympy.Float(number, 17)
            case ast.Name(id=name):
                return {"pi": sympy.Float(sympy.pi, 17)}.get(name) or self.names(name, self._at(node))
            case ast.UnaryOp(op=ast.USub()):
                return -self._of(node.operand)
            case ast.UnaryOp(op=ast.UAdd()):
                return self._of(node.operand)
            case ast.BinOp(op=ast.MatMult()):
                if not isinstance(node.left, ast.Name):
                    self._at(node.left).refuse("what is no name", "the name of a matrix before @", "W @ x")
                return self.product(node.left.id, self._of(node.right), self._at(node))
            case ast.BinOp():
                return self._binary(node)
            case ast.Call():
                return self._call(node)
            case _:
                pass
        return self._at(node).refuse(
            f"{ast.unparse(node)!r}", "numbers, names, + - * / ** @, and calls of known functions", ", ".join(sorted(NAMES))
        )

    def _binary(self, node: ast.BinOp) -> Any:
        left, right = self._of(node.left), self._of(node.right)
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.Div():
                if right == 0:
                    self._at(node.right).refuse("a division by zero", "a divisor that is not zero", "another expression")
                return left / right
            case ast.Pow():
                if right.is_Integer and abs(int(right)) > 64:
                    self._at(node.right).refuse(f"the power {right}", "at most 64", "exp(n*log(x))")
                return self._number_power(left, right, node) if left.is_number and right.is_number else left**right
            case _:
                return self._at(node).refuse(f"{ast.unparse(node)!r}", "+ - * / ** or @", "another expression")

    def _number_power(self, left: Any, right: Any, node: ast.expr) -> Any:
        """Of two numbers, in floating point: whole ones could be too long to write down."""
        try:
            return sympy.Float(float(left) ** float(right), 17)
        except (OverflowError, ZeroDivisionError, TypeError):
            return self._at(node).refuse(f"{ast.unparse(node)!r}", "a real number", "another power")

    def _call(self, node: ast.Call) -> Any:
        name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
        if name not in NAMES or node.keywords:
            self._at(node).refuse(f"the function {name!r}", f"one of {', '.join(sorted(NAMES))}", "writing it out")
        wanted = {"where": 3, "int": 1}.get(name, 1) if name not in FUNCTIONS else FUNCTIONS[name][0]
        if len(node.args) != wanted:
            self._at(node).refuse(f"{name} of {len(node.args)} arguments", f"{wanted}", f"{name}({', '.join('xyz'[:wanted])})")
        if name in CONDITIONAL:
            condition = self._condition(node.args[0])
            yes, no = (self._of(x) for x in node.args[1:]) if name == "where" else (sympy.Integer(1), sympy.Integer(0))
            return sympy.Piecewise((yes, condition), (no, sympy.true), evaluate=False)
        arguments = [self._of(x) for x in node.args]
        return self.reduce(name, arguments[0], self._at(node)) if name in REDUCTIONS else FUNCTIONS[name][1](*arguments)

    def _condition(self, node: ast.expr) -> Any:
        match node:
            case ast.BoolOp(op=ast.And() | ast.Or() as op):
                parts = [self._condition(x) for x in node.values]
                return (sympy.And if isinstance(op, ast.And) else sympy.Or)(*parts)
            case ast.UnaryOp(op=ast.Not()):
                return sympy.Not(self._condition(node.operand))
            case ast.Compare(ops=[op], comparators=[right]) if type(op) in COMPARISONS:
                return COMPARISONS[type(op)](self._of(node.left), self._of(right))
            case _:
                return self._at(node).refuse(f"{ast.unparse(node)!r}", "a comparison by < or >", "where(v > 0, v, 0)")
