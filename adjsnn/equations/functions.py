"""The functions that equations may call: how each is written in sympy, for compiled loops and for tensors."""

from collections.abc import Callable
from typing import Any

import sympy
from sympy import S

_Base: Any = sympy.Function  # typed more narrowly than it is meant


class _Function(_Base):
    """A function that sympy has no numbers of."""

    @classmethod
    def _should_evalf(cls, arg: Any) -> int:
        del arg
        return -1

    def _eval_evalf(self, prec: int) -> None:
        del prec

    @property
    def is_number(self) -> bool:
        """False: so that sympy computes nothing with it."""
        return False


class Exprel(_Function):
    """exprel(x) = (eˣ - 1)/x, and 1 at 0: rates such as Hodgkin and Huxley's, without their division of zero by zero."""

    nargs = 1

    def fdiff(self, argindex: int = 1) -> Any:
        del argindex
        return ExprelSlope(self.args[0], self)


class ExprelSlope(_Function):
    """d exprel/dx = e + (1 - e)/x of x and e = exprel(x), and ½ at 0."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> Any:
        raise sympy.core.function.ArgumentIndexError(self, argindex)


class Expm1(_Function):
    """eˣ - 1 without cancellation."""

    nargs = 1

    def fdiff(self, argindex: int = 1) -> Any:
        del argindex
        return sympy.exp(self.args[0])


class Log1p(_Function):
    """log(1 + x) without cancellation."""

    nargs = 1

    def fdiff(self, argindex: int = 1) -> Any:
        del argindex
        return 1 / (1 + self.args[0])


class Sigmoid(_Function):
    """1/(1 + e⁻ˣ) without overflow."""

    nargs = 1

    def fdiff(self, argindex: int = 1) -> Any:
        del argindex
        return self * (1 - self)


class Choose(_Function):
    """Choose(condition, x, y) = x where the condition holds, else y; its slope is that of the one that was chosen."""

    nargs = 3
    is_commutative = True

    @classmethod
    def eval(cls, *args: Any) -> Any:
        condition, yes, no = args
        return yes if condition is S.true else no if condition is S.false else None

    def _eval_derivative(self, s: Any) -> Any:
        condition, *branches = self.args
        yes, no = (sympy.diff(x, s) for x in branches)
        return yes if yes == no else Choose(condition, yes, no)


class Absolute(_Function):
    """|x|, with the slope of x at 0."""

    nargs = 1

    def fdiff(self, argindex: int = 1) -> Any:
        del argindex
        return Choose(self.args[0] < 0, S.NegativeOne, S.One)


class Minimum(_Function):
    """The smaller of two, the second where they are equal."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> Any:
        x, y = self.args
        return Choose(x < y, S.One, S.Zero) if argindex == 1 else Choose(x < y, S.Zero, S.One)


class Maximum(_Function):
    """The larger of two, the second where they are equal."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> Any:
        x, y = self.args
        return Choose(x > y, S.One, S.Zero) if argindex == 1 else Choose(x > y, S.Zero, S.One)


class Clip(_Function):
    """x, but at least low and at most high."""

    nargs = 3

    def fdiff(self, argindex: int = 1) -> Any:
        x, low, high = self.args
        one = [S.One if k == argindex else S.Zero for k in (1, 2, 3)]
        return Choose(x < low, one[1], Choose(x > high, one[2], one[0]))


class Power(_Function):
    """xⁿ where n is no number."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> Any:
        x, n = self.args
        return n * Power(x, n - 1) if argindex == 1 else PowerLog(x, n)


class PowerLog(_Function):
    """d xⁿ/dn = xⁿ log x, and 0 at x = 0."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> Any:
        raise sympy.core.function.ArgumentIndexError(self, argindex)


EVEN = (Choose, Absolute, Minimum, Maximum, Clip, Sigmoid, sympy.tanh, sympy.sin, sympy.cos, sympy.atan)  # slopes are bounded


def is_steep(expression: Any) -> bool:
    """Whether an expression may have a slope that is not finite, or no value, where its symbols are finite."""
    parts: list[Any] = list(sympy.preorder_traversal(expression))
    powers = any(x.is_Pow and not (x.exp.is_Integer and x.exp.is_positive) for x in parts)
    return powers or any(isinstance(x, sympy.Function) and not isinstance(x, EVEN) for x in parts)


# name in a text: number of arguments, what it becomes
FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "exp": (1, sympy.exp),
    "expm1": (1, Expm1),
    "exprel": (1, Exprel),
    "log": (1, sympy.log),
    "log1p": (1, Log1p),
    "log10": (1, lambda x: sympy.log(x) / sympy.log(10)),
    "sqrt": (1, sympy.sqrt),
    "sin": (1, sympy.sin),
    "cos": (1, sympy.cos),
    "tan": (1, sympy.tan),
    "arctan": (1, sympy.atan),
    "sinh": (1, sympy.sinh),
    "cosh": (1, sympy.cosh),
    "tanh": (1, sympy.tanh),
    "sigmoid": (1, Sigmoid),
    "abs": (1, Absolute),
    "minimum": (2, Minimum),
    "maximum": (2, Maximum),
    "clip": (3, Clip),
}
REDUCTIONS = ("sum", "mean")
CONDITIONAL = ("where", "int")  # their first argument is a comparison
NAMES = {*FUNCTIONS, *REDUCTIONS, *CONDITIONAL}
