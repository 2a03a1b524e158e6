"""A Runge–Kutta method in the form in which the fused loops take it; it loads no compiler."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from adjsnn.gated.cpu.arguments import Filter, Method, RungeKutta
from adjsnn.gated.runge_kutta import GatedRungeKutta


@dataclass(frozen=True)
class FusedTableau:
    """A Runge–Kutta method for the fused loops: its coefficients, and the filters (1.14) they give.

    Attributes:
        a: (s, s), of the tableau.
        b: (s,), of the tableau.
        c: (s,), of the tableau.
        dense: (s, degree + 1), polynomials of the dense output.
        along: (s, degree + 1), those of the current.
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    dense: np.ndarray
    along: np.ndarray

    @classmethod
    def of(cls, program: GatedRungeKutta) -> "FusedTableau":
        """The method of a program, as rectangular arrays."""
        t, s = program.tableau, program.tableau.stages
        a, along = np.zeros((s, s)), np.zeros((s, max(len(x) for x in program.along)))
        dense = np.zeros((s, 1 + max(len(x) for x in t.dense)))
        for i in range(s):
            a[i, : len(t.a[i])], along[i, : len(program.along[i])] = t.a[i], program.along[i]
            dense[i, 1 : 1 + len(t.dense[i])] = t.dense[i]
        return cls(a, np.array(t.b), np.array(t.c), dense, along)

    def scheme(self, dt: float, tau_fast: float, tau_slow: float, dtype: Any) -> RungeKutta:
        """The method as the loops take it."""
        method = Method(self.a.astype(dtype), self.b.astype(dtype), self.c, self.dense, self.along)
        (fast, d_fast), (slow, d_slow) = (self.filter(dt, tau, dtype) for tau in (tau_fast, tau_slow))
        return RungeKutta(method, fast, slow, d_fast, d_slow)

    def filter(self, dt: float, tau: float, dtype: Any) -> tuple[Filter, Filter]:
        """(α, C/τ) with C = (1 + zA)⁻¹ and α = C 1, and the derivatives of both in τ."""
        s = len(self.b)
        extended = np.zeros((s + 1, s + 1))
        extended[:s, :s], extended[s, :s] = self.a, self.b
        c = np.linalg.inv(np.eye(s + 1) + dt / tau * extended)
        d_c = c @ extended @ c * (dt / tau**2)
        value, slope = (c.sum(1), c / tau), (d_c.sum(1), d_c / tau - c / tau**2)
        return Filter(*(x.astype(dtype) for x in value)), Filter(*(x.astype(dtype) for x in slope))
