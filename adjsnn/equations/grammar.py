"""From statements to expressions: a grammar of its own, and no evaluation of text.

Python's parser makes a tree; only the nodes named here are taken out of it. Whatever else stands in a text is an error that
quotes the line and points at the place.
"""

import ast
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import sympy

from adjsnn.equations.functions import CONDITIONAL, FUNCTIONS, NAMES, REDUCTIONS, Choose, Power
from adjsnn.equations.lines import NOWHERE, Place, nearest, short

COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: sympy.StrictLessThan,
    ast.LtE: sympy.LessThan,
    ast.Gt: sympy.StrictGreaterThan,
    ast.GtE: sympy.GreaterThan,
}
DEEPEST = 60  # operations inside one another: sympy calls itself for each
MOST = 1500  # nodes of the tree of one expression: a product's derivative grows with their square
LARGEST = 2**1023  # of whole numbers: what floats hold
BRIAN = {
    "xi": ("noise", "inputs that were drawn before, inputs=('noise',)"),
    "rand": ("random numbers", "parameters or inputs that were drawn before"),
    "randn": ("random numbers", "parameters or inputs that were drawn before"),
    "poisson": ("random numbers", "parameters or inputs that were drawn before"),
    "i": ("the number of a unit", "a parameter, torch.arange(N)"),
    "j": ("the number of a unit", "a parameter, torch.arange(N)"),
    "N": ("the number of units", "a parameter of another name"),
    "dt": ("the length of a step", "equations that do not depend on how they are solved"),
    "e": ("Euler's number", "exp(1)"),
    "inf": ("infinity", "a large number"),
    "timestep": ("the grid of a clock", "t"),
    "floor": ("a function that jumps", "a guard whose reset counts"),
    "ceil": ("a function that jumps", "a guard whose reset counts"),
    "sign": ("a function that jumps", "where(x > 0, 1, -1)"),
    "arcsin": ("an inverse", "arctan(x/sqrt(1 - x**2))"),
    "arccos": ("an inverse", "pi/2 - arctan(x/sqrt(1 - x**2))"),
}


def tree(text: str, place: Place) -> ast.expr:
    """The syntax tree of one expression."""
    if not text.strip():
        place.refuse("nothing", "an expression", "a number, at least")
    # In parentheses a text of several lines' length and with blanks before it is one expression.
    source = "(" + text.replace("^", "**") + ")"
    try:
        with warnings.catch_warnings():  # of Python, on calls of what is no function
            warnings.simplefilter("ignore")
            found = ast.parse(source, mode="eval").body
    except SyntaxError as error:
        column = max((error.offset or 1) - 2, 0)
        shift = text[:column].count("^")  # each became one character longer
        place.at(min(column - shift, max(len(text) - 1, 0))).refuse(
            f"{short(text)!r}, which is no expression ({error.msg}),", "sums, products, powers and calls", "Python's rules"
        )
    except (ValueError, RecursionError, MemoryError):
        _too_deep(place)
    level, depth, count = [found], 0, 0
    while level:
        count, depth = count + len(level), depth + 1
        level = [x for node in level for x in _inside(node)]
    if depth > DEEPEST or count > MOST:
        _too_deep(place)
    return found


def _inside(node: ast.AST) -> list[ast.AST]:
    """What stands one level deeper: in a sum or product of many, the terms."""
    if not isinstance(node, ast.BinOp):
        return list(ast.iter_child_nodes(node))
    terms: list[ast.AST] = []
    first: ast.AST = node
    while isinstance(first, ast.BinOp):
        terms.append(first.right)
        first = first.left
    return [first, *terms]


def _too_deep(place: Place) -> NoReturn:
    seen = f"more than {DEEPEST} operations inside one another, or a long one,"
    place.refuse(seen, "a shorter expression", "named subexpressions")


def _times(left: Any, right: Any) -> Any:
    """A product; a number stays before a sum, as it was written: so -(v + 40)/10 is 0 where v is -40."""
    for one, other in ((left, right), (right, left)):
        number, rest = other.as_coeff_Mul()
        if one.is_Number and rest.is_Add and one * number not in (0, 1):
            return sympy.Mul(one * number, rest, evaluate=False)
    return left * right


def pointed(node: ast.AST, text: str, place: Place) -> Place:
    """Where a node of a text stands: Python counts bytes, of a text in parentheses with ** for ^."""
    source = "(" + text.replace("^", "**") + ")"
    column = len(source.encode()[: getattr(node, "col_offset", 1)].decode(errors="ignore")) - 1
    reached = 0
    for k, letter in enumerate(text):
        if reached >= column:
            return place.at(k)
        reached += 2 if letter == "^" else 1
    return place.at(max(len(text) - 1, 0))


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
    text: str = ""

    def read(self, text: str, place: Place) -> Any:
        """The expression of a text."""
        return self._real(self._read(text, place), text, place)

    def _read(self, text: str, place: Place) -> Any:
        node = tree(text, place)
        self.place, self.text = place, text
        return self._of(node)

    def _real(self, expression: Any, text: str, place: Place) -> Any:
        if expression.has(sympy.I, sympy.oo, sympy.zoo, sympy.nan):
            place.refuse(f"{short(text)!r}, which is {short(str(expression))},", "a real number", "another expression")
        if any(abs(x) >= LARGEST for x in expression.atoms(sympy.Number)):
            place.refuse(f"a number in {short(text)!r} that is too large", "at most 1e307", "another unit")
        return expression

    def comparison(self, text: str, place: Place) -> Any:
        """φ of a comparison, which holds where φ > 0."""
        node = tree(text, place)
        self.place, self.text = place, text
        if not isinstance(node, ast.Compare) or len(node.ops) != 1 or type(node.ops[0]) not in COMPARISONS:
            place.refuse(f"{short(text)!r}", "one comparison by > or <, which becomes true at an event", 'threshold="v > 30"')
        left, right = self._of(node.left), self._of(node.comparators[0])
        return self._real(right - left if isinstance(node.ops[0], ast.Lt | ast.LtE) else left - right, text, place)

    def _at(self, node: ast.AST) -> Place:
        return pointed(node, self.text, self.place)

    def _of(self, node: ast.expr) -> Any:  # noqa: PLR0911  one for each kind of node
        match node:
            case ast.Constant(value=bool()):
                pass
            case ast.Constant(value=int() as number) if number < LARGEST:
                return sympy.Integer(number) if number < 2**53 else sympy.Float(number, 17)
            case ast.Constant(value=float() as number) if abs(number) < float("inf"):
                return sympy.Float(number, 17)
            case ast.Name(id=name):
                return {"pi": sympy.Float(sympy.pi, 17)}.get(name) or self.names(name, self._at(node))
            case ast.UnaryOp(op=ast.USub()):
                return _times(self._of(node.operand), sympy.S.NegativeOne)
            case ast.UnaryOp(op=ast.UAdd()):
                return self._of(node.operand)
            case ast.BinOp(op=ast.MatMult()):
                if not isinstance(node.left, ast.Name):
                    self._at(node.left).refuse("what is no name", "the name of a matrix before @", "W @ (V @ x)")
                return self.product(node.left.id, self._of(node.right), self._at(node))
            case ast.BinOp():
                return self._binary(node)
            case ast.Call():
                return self._call(node)
            case _:
                pass
        return self._at(node).refuse(
            f"{short(ast.unparse(node))!r}", "numbers, names, + - * / ** @, and calls of known functions", "where(v > 0, x, y)"
        )

    def _binary(self, node: ast.BinOp) -> Any:
        following: list[ast.BinOp] = []
        first: ast.expr = node
        while isinstance(first, ast.BinOp) and not isinstance(first.op, ast.MatMult):
            following.append(first)
            first = first.left
        value = self._of(first)
        for part in reversed(following):
            value = self._combined(value, self._of(part.right), part)
        return value

    def _combined(self, left: Any, right: Any, node: ast.BinOp) -> Any:
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return _times(left, right)
            case ast.Div():
                if right == 0:
                    self._at(node.right).refuse("a division by zero", "a divisor that is not zero", "another expression")
                return _times(left, 1 / right)
            case ast.Pow():
                if right.is_Integer and abs(int(right)) > 64:
                    self._at(node.right).refuse(f"the power {right}", "at most 64", "exp(n*log(x))")
                return self._power(left, right, node)
            case _:
                return self._at(node).refuse(f"{short(ast.unparse(node))!r}", "+ - * / ** or @", "another expression")

    def _power(self, left: Any, right: Any, node: ast.BinOp) -> Any:
        if not right.is_number:
            if left.is_number and not left.is_positive:
                self._at(node.left).refuse(f"a power of {left}", "a positive number", "another expression")
            return Power(left, right)
        if left.is_number:  # in floating point: whole ones could be too long to write down
            try:
                return sympy.Float(float(left) ** float(right), 17)
            except (OverflowError, ZeroDivisionError, TypeError):
                self._at(node).refuse(f"{short(ast.unparse(node))!r}", "a real number", "another power")
        found = left**right
        if any(abs(x.p) > LARGEST or abs(x.q) > LARGEST for x in found.atoms(sympy.Rational)):
            self._at(node).refuse(
                f"a number in {short(ast.unparse(node))!r} that is too large", "at most 1e307", "another unit"
            )
        return found

    def _call(self, node: ast.Call) -> Any:
        name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
        if name in BRIAN:
            self._at(node).refuse(f"{name}(), {BRIAN[name][0]},", "a smooth function of states", BRIAN[name][1])
        if name not in NAMES:
            known, called = ", ".join(sorted(NAMES)), f"inputs=({name!r},), without parentheses, where it is a current of time"
            remedy = nearest(name, NAMES, called if name.isidentifier() else "writing it out")
            self._at(node).refuse(f"the function {short(name)!r}", f"one of {known}", remedy)
        if node.keywords:
            self._at(node).refuse(f"{name} with an argument by name", f"{name}(x)", "its place")
        wanted = {"where": 3, "int": 1}.get(name, 1) if name not in FUNCTIONS else FUNCTIONS[name][0]
        if len(node.args) != wanted:
            self._at(node).refuse(
                f"{name} of {len(node.args)} arguments", f"{wanted} of them", f"{name}({', '.join('xyz'[:wanted])})"
            )
        if name in CONDITIONAL:
            condition = self._condition(node.args[0])
            yes, no = (self._of(x) for x in node.args[1:]) if name == "where" else (sympy.Integer(1), sympy.Integer(0))
            return Choose(condition, yes, no)
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
                return self._at(node).refuse(f"{short(ast.unparse(node))!r}", "a comparison by < or >", "where(v > 0, v, 0)")
