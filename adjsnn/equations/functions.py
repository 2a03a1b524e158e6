"""The functions that equations may call: how each is written in sympy, for compiled loops and for tensors."""

from collections.abc import Callable
from typing import Any

import sympy
from sympy import Piecewise, S

_Function: Any = sympy.Function  # typed more narrowly than it is meant


class Exprel(_Function):
    """exprel(x) = (eˣ - 1)/x, and 1 at 0: rates such as Hodgkin and Huxley's, without their division of zero by zero."""

    nargs = 1

    def fdiff(self, argindex: int = 1) -> Any:
        del argindex
        return ExprelSlope(self.args[0])


class ExprelSlope(_Function):
    """d exprel/dx = (eˣ - exprel(x))/x, and ½ at 0."""

    nargs = 1

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
        return Sigmoid(self.args[0]) * Sigmoid(-self.args[0])


def _where(condition: Any, yes: Any, no: Any) -> Any:
    return Piecewise((yes, condition), (no, S.true), evaluate=False)


def _clip(x: Any, low: Any, high: Any) -> Any:
    return _where(x < low, low, _where(x > high, high, x))


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
    "abs": (1, lambda x: _where(x < 0, -x, x)),
    "minimum": (2, lambda x, y: _where(x < y, x, y)),
    "maximum": (2, lambda x, y: _where(x > y, x, y)),
    "clip": (3, _clip),
}
REDUCTIONS = ("sum", "mean")
CONDITIONAL = ("where", "int")  # their first argument is a comparison
NAMES = {*FUNCTIONS, *REDUCTIONS, *CONDITIONAL}
