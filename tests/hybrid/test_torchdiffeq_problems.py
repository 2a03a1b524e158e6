"""The kinds of problem that torchdiffeq tests itself on, with known solutions: forward and gradient, by every method."""

import math

import pytest
import torch
from smooth_systems import F64
from torch import nn

from adjsnn import BPTT, DiscreteAdjoint
from adjsnn.hybrid.backsolve import Backsolve
from adjsnn.hybrid.continuous import ContinuousAdjoint
from adjsnn.hybrid.forward import ForwardSensitivity
from adjsnn.hybrid.solve import solve_hybrid
from adjsnn.hybrid.system import HybridSystem

TS = torch.linspace(1.0, 3.0, 9, dtype=F64)


class Constant(HybridSystem):
    """y = y(1) + a (t - 1), written so that f depends on y: ẏ = a + (y - its own solution)^5."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.2, dtype=F64))
        self.b = nn.Parameter(torch.tensor(3.0, dtype=F64))

    def vector_field(self, t, y, u):
        return self.a + (y - (self.a * t + self.b)) ** 5

    def exact(self, t):
        return (self.a * t + self.b)[:, None, None]


class Linear(HybridSystem):
    """ẏ = A y with A skew-symmetric: y = exp(A (t - 1)) y(1)."""

    def __init__(self):
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.u = nn.Parameter(0.5 * torch.randn(4, 4, generator=random, dtype=F64))

    def vector_field(self, t, y, u):
        return y @ (self.u - self.u.T).T

    def exact(self, t):
        start = torch.ones(4, dtype=F64)
        return torch.stack([torch.linalg.matrix_exp((self.u - self.u.T) * (x - 1.0)) @ start for x in t])[:, None]


class Sine(HybridSystem):
    """ẏ = 2y/t + t⁴ sin(a t) - t² + 4t³, a linear equation with variable coefficients."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(2.0, dtype=F64))

    def vector_field(self, t, y, u):
        return 2.0 * y / t + t**4 * torch.sin(self.a * t) - t**2 + 4.0 * t**3

    def exact(self, t):
        # (y/t²)' = t² sin(a t) - 1 + 4t, integrated by parts, with y/t² = integral + 1.
        a = self.a
        integral = -(t**2) * torch.cos(a * t) / a + 2.0 * t * torch.sin(a * t) / a**2 + 2.0 * torch.cos(a * t) / a**3
        return (t**2 * (integral - t + 2.0 * t**2 + 1.0))[:, None, None]


class Exponential(HybridSystem):
    """ẏ = a y: y = exp(a (t - 1)) y(1)."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.7, dtype=F64))

    def vector_field(self, t, y, u):
        return self.a * y

    def exact(self, t):
        return torch.exp(self.a * (t - 1.0))[:, None, None] * torch.ones(2, 1, dtype=F64)


PROBLEMS = [Constant, Linear, Sine, Exponential]
# A method of order p with 8·64 steps of 1/256 is off by (1/256)^p times a high derivative, of some hundred for the sine.
OPTIONS = {
    "euler": ({"substeps": 64}, 3e-2),
    "heun": ({"substeps": 64}, 1e-3),
    "rk4": ({"substeps": 64}, 1e-7),
    "dopri5": ({"rtol": 1e-9, "atol": 1e-9}, 1e-6),
    "tsit5": ({"rtol": 1e-9, "atol": 1e-9}, 1e-6),
    "torchdiffeq:dopri5": ({"rtol": 1e-9, "atol": 1e-9}, 1e-6),
}


def _errors(problem, method, adjoint):
    """Largest error of the solution and of the gradient of a weighted sum of it, each relative to its largest value."""
    options, _ = OPTIONS[method]
    found, judge = problem(), problem()
    exact = judge.exact(TS)
    start = exact[0].detach()
    y = solve_hybrid(found, None, ts=TS, method=method, y0=start, adjoint=adjoint, **options).y
    # y(1) depends on the parameters in the closed form, but not in the solve.
    offset = judge.exact(TS[:1])[0]
    weights = torch.linspace(0.5, 1.5, len(TS), dtype=F64)[:, None, None]
    of_found = torch.autograd.grad((weights * y).sum(), list(found.parameters()))
    sensitivity = _propagated(problem, offset, judge)
    of_judge = torch.autograd.grad((weights * (exact - sensitivity)).sum(), list(judge.parameters()))
    forward = float((y - exact).detach().abs().max() / exact.detach().abs().max())
    scale = max(float(g.abs().max()) for g in of_judge)
    backward = max(float((a - b).abs().max()) for a, b in zip(of_found, of_judge, strict=True)) / scale
    return forward, backward


def _propagated(problem, offset, judge):
    """What a change of y(1) alone adds at each time, as a function of the parameters through y(1) only."""
    moved = offset - offset.detach()
    if problem is Sine:
        return (TS**2)[:, None, None] * moved  # the homogeneous solution is t²
    return moved.expand(len(TS), *moved.shape) if problem is Constant else torch.zeros_like(judge.exact(TS))


@pytest.mark.every(5)
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("method", OPTIONS)
def test_solution_and_gradient(method, problem):
    tolerance = OPTIONS[method][1]
    forward, backward = _errors(problem, method, None)
    assert forward < tolerance
    assert backward < 3.0 * tolerance


@pytest.mark.every(3)
@pytest.mark.parametrize(
    "adjoint", [BPTT(), DiscreteAdjoint(), ContinuousAdjoint(method="dopri5"), ForwardSensitivity(), Backsolve()]
)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_adjoint(problem, adjoint):
    forward, backward = _errors(problem, "dopri5", adjoint)
    assert forward < 1e-6
    assert backward < 3e-6


@pytest.mark.parametrize("problem", PROBLEMS)
def test_torchdiffeqs_own_adjoint(problem):
    forward, backward = _errors(problem, "torchdiffeq:dopri5", Backsolve())
    assert forward < 1e-6
    assert backward < 3e-6


def test_held_inputs_through_torchdiffeq():
    class Driven(Exponential):
        def vector_field(self, t, y, u):
            return -self.a * y + u

    results = []
    for method, adjoint in (("dopri5", None), ("torchdiffeq:dopri5", None), ("torchdiffeq:dopri5", Backsolve())):
        u = torch.linspace(-1.0, 1.0, 20, dtype=F64).view(10, 2, 1).requires_grad_()
        net = Driven()
        y0 = torch.ones(2, 1, dtype=F64, requires_grad=True)
        y = solve_hybrid(net, u, dt=0.3, method=method, y0=y0, adjoint=adjoint, rtol=1e-10, atol=1e-10).y
        results.append([y.detach(), *torch.autograd.grad((y**2).sum(), [net.a, u, y0])])
    assert results[0][2].abs().min() > 1e-3
    for other in results[1:]:
        for expected, found in zip(results[0], other, strict=True):
            # Some hundred steps at 1e-10, each in three programs.
            torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    assert math.isclose(float(results[0][0][0, 0, 0]), 1.0)
