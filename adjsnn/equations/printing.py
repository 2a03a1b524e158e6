"""Expressions as Python source, for compiled loops and for tensors."""

from collections.abc import Callable
from typing import Any

import sympy
from sympy.printing.pycode import PythonCodePrinter

_Base: Any = PythonCodePrinter  # whose methods are typed more narrowly than they are meant


class _Printer(_Base):
    """Python source in which every function is a plain name in small letters.

    Args:
        name: what a symbol is written as.
    """

    def __init__(self, name: Callable[[str], str]) -> None:
        super().__init__({"fully_qualified_modules": False, "allow_unknown_functions": True})
        self.name = name

    def _print_Symbol(self, expr: Any) -> str:
        return self.name(expr.name)

    def _print_Float(self, expr: Any) -> str:
        return repr(float(expr))

    def _print_Rational(self, expr: Any) -> str:
        return repr(int(expr.p) / int(expr.q))

    def _print_Integer(self, expr: Any) -> str:
        return repr(float(int(expr)))

    def _print_Pi(self, expr: Any) -> str:
        return repr(float(expr))

    _print_Exp1 = _print_Half = _print_NumberSymbol = _print_Pi

    def _print_Pow(self, expr: Any, rational: bool = False) -> str:
        del rational
        base, power = expr.args
        if base == sympy.E:
            return f"exp({self._print(power)})"
        if power.is_Integer:
            # Written out, so that loops and tensors multiply in the same order.
            product = self._repeated(f"({self._print(base)})", abs(int(power)))
            return f"({product})" if power > 0 else f"(1.0 / ({product}))"
        if power in (sympy.S.Half, -sympy.S.Half):
            root = f"sqrt({self._print(base)})"
            return root if power > 0 else f"(1.0 / {root})"
        return f"power({self._print(base)}, {self._print(power)})"

    @staticmethod
    def _repeated(base: str, count: int) -> str:
        return " * ".join([base] * count) if count <= 3 else f"whole_power({base}, {count})"

    def _print_Function(self, expr: Any) -> str:
        return f"{type(expr).__name__.lower()}({', '.join(self._print(x) for x in expr.args)})"

    def _print_Abs(self, expr: Any) -> str:
        return f"absolute({self._print(expr.args[0])})"  # sympy makes it of the root of a square

    _print_sign = _print_exp = _print_log = _print_sin = _print_cos = _print_tan = _print_atan = _print_Function
    _print_sinh = _print_cosh = _print_tanh = _print_Function

    def _print_Relational(self, expr: Any) -> str:
        return f"({self._print(expr.lhs)} {expr.rel_op} {self._print(expr.rhs)})"

    def _print_BooleanTrue(self, expr: Any) -> str:
        del expr
        return "True"

    def _print_BooleanFalse(self, expr: Any) -> str:
        del expr
        return "False"


LANES = {"exp", "tanh", "sigmoid"}  # for which there are functions that take several units at once


class LoopPrinter(_Printer):
    """For numbers in compiled loops.

    Attributes:
        lanes: whether the line stands in a loop over units.
    """

    lanes = False

    def _print_Function(self, expr: Any) -> str:
        text = super()._print_Function(expr)
        return f"lane_{text}" if self.lanes and text.partition("(")[0] in LANES else text

    _print_exp = _print_log = _print_sin = _print_cos = _print_tan = _print_atan = _print_Function
    _print_sinh = _print_cosh = _print_tanh = _print_Function

    def _print_Pow(self, expr: Any, rational: bool = False) -> str:
        text = super()._print_Pow(expr, rational)
        return f"lane_{text}" if self.lanes and expr.args[0] == sympy.E else text

    def _print_Choose(self, expr: Any) -> str:
        condition, yes, no = (self._print(x) for x in expr.args)
        return f"({yes} if {condition} else {no})"

    def _print_And(self, expr: Any) -> str:
        return "(" + " and ".join(self._print(x) for x in expr.args) + ")"

    def _print_Or(self, expr: Any) -> str:
        return "(" + " or ".join(self._print(x) for x in expr.args) + ")"

    def _print_Not(self, expr: Any) -> str:
        return f"(not {self._print(expr.args[0])})"


class TensorPrinter(_Printer):
    """For tensors."""

    def _print_Choose(self, expr: Any) -> str:
        condition, yes, no = (self._print(x) for x in expr.args)
        names = tuple(sorted(x.name for x in expr.free_symbols))
        return f"choose({condition}, lambda v: {yes}, lambda v: {no}, v, {names})"

    def _print_And(self, expr: Any) -> str:
        return "(" + " & ".join(self._print(x) for x in expr.args) + ")"

    def _print_Or(self, expr: Any) -> str:
        return "(" + " | ".join(self._print(x) for x in expr.args) + ")"

    def _print_Not(self, expr: Any) -> str:
        return f"(~{self._print(expr.args[0])})"
