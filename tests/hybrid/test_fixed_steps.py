"""Forward solutions of smooth systems with fixed steps, against SciPy and against themselves."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from smooth_systems import F64, FIXED, TIMES, Network, problem
from torch import nn

from adjsnn.adjoints import BPTT
from adjsnn.hybrid.solve import solve_hybrid
from adjsnn.hybrid.system import HybridSystem
from adjsnn.numerics.tableaus import TABLEAUS


def reference(net, y0, ts, inputs=None, held=None):
    """SciPy's DOP853 at a tolerance near rounding, sample by sample and interval by interval; (T+1, B, D)."""
    rows = [y0.detach().numpy()]
    for n in range(len(ts) - 1):
        ends = []
        for b in range(len(y0)):

            def field(t, y, n=n, b=b):
                time = torch.full((1, 1), t, dtype=F64)
                u = inputs(time) if inputs is not None else None if held is None else held[n, b : b + 1]
                with torch.no_grad():
                    return net.vector_field(time, torch.as_tensor(y, dtype=F64)[None], u)[0].numpy()

            span = (float(ts[n]), float(ts[n + 1]))
            ends.append(solve_ivp(field, span, rows[-1][b], method="DOP853", rtol=1e-13, atol=1e-14).y[:, -1])
        rows.append(np.stack(ends))
    return torch.as_tensor(np.stack(rows))


@pytest.mark.every(4)
@pytest.mark.parametrize("mode", ["none", "held", "callable"])
@pytest.mark.parametrize("method", FIXED)
def test_slope_against_scipy(method, mode):
    net, inputs, y0, wanted = problem(mode)
    exact = reference(net, y0, TIMES, inputs if mode == "callable" else None, wanted["u"].detach() if mode == "held" else None)
    errors = []
    for substeps in (16, 32):
        with torch.no_grad():
            y = solve_hybrid(net, inputs, ts=TIMES, method=method, y0=y0, substeps=substeps).y
        errors.append(float((y - exact).abs().max()))
    # The slope approaches the order with an error O(h): a quarter is what 16 to 32 steps per interval leave.
    assert math.log2(errors[0] / errors[1]) == pytest.approx(TABLEAUS[method].order, abs=0.25), errors


@pytest.mark.parametrize("adjoint", [None, BPTT()])
def test_dt_is_the_same_as_its_times(adjoint):
    net, u, y0, _ = problem("held")
    by_dt = solve_hybrid(net, u, dt=0.25, y0=y0, adjoint=adjoint)
    by_ts = solve_hybrid(net, u, ts=torch.arange(7, dtype=F64) * 0.25, y0=y0, adjoint=adjoint)
    assert torch.equal(by_dt.y, by_ts.y)
    assert torch.equal(by_dt.ts, by_ts.ts)
    assert by_dt.y.shape == (7, 4, 3)


def test_held_inputs_are_those_of_their_interval():
    net, u, y0, _ = problem("held")
    changed = u.detach().clone()
    changed[3] += 1.0
    before, after = (solve_hybrid(net, x, dt=0.25, y0=y0).y for x in (u, changed))
    assert torch.equal(before[:4], after[:4])
    assert (before[4] != after[4]).all()


def test_readout_gets_rows_of_states():
    class Read(Network):
        def readout(self, y):
            return y[:, :1] * self.tau

    net, y0 = Read(), torch.ones(4, 3, dtype=F64)
    solution = solve_hybrid(net, None, ts=TIMES, y0=y0)
    assert torch.equal(solution.readout, solution.y[..., :1] * 2.0)
    solution.readout.sum().backward()
    assert net.w.grad.abs().max() > 0.0


def test_initial_state_of_the_system_is_learnt():
    class Started(Network):
        def __init__(self):
            super().__init__()
            self.start = nn.Parameter(torch.zeros(3, dtype=F64))

        def initial_state(self, batch):
            return self.start.expand(batch, 3)

    net = Started()
    solution = solve_hybrid(net, torch.zeros(5, 2, 2, dtype=F64), dt=0.1)
    (gradient,) = torch.autograd.grad(solution.y[-1].sum(), net.start)
    start = torch.zeros(2, 3, dtype=F64, requires_grad=True)
    again = solve_hybrid(net, torch.zeros(5, 2, 2, dtype=F64), dt=0.1, y0=start)
    (of_y0,) = torch.autograd.grad(again.y[-1].sum(), start)
    assert solution.y.shape == (6, 2, 3)
    # The same sum of two rows, in another order at most.
    torch.testing.assert_close(gradient, of_y0.sum(0), rtol=1e-14, atol=0.0)


def test_float32_and_time_per_sample():
    class Clock(HybridSystem):
        def vector_field(self, t, y, u):
            assert t.shape == (len(y), 1)
            assert t.dtype == y.dtype
            return torch.cos(t) * torch.ones_like(y)

    y0 = torch.zeros(2, 1)
    for method in ("rk4", "dopri5"):
        y = solve_hybrid(Clock(), None, ts=torch.linspace(0.0, 2.0, 21), y0=y0, method=method).y
        # Twenty steps each rounded at 6e-8, and tolerance 1e-6 in each.
        torch.testing.assert_close(y[-1], torch.full((2, 1), math.sin(2.0)), rtol=0.0, atol=1e-5)
