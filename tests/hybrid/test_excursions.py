"""Guards that are above zero for a short part of a step only."""

import math

import pytest
import torch
from torch import Tensor, nn

import adjsnn
from adjsnn.hybrid.excursions import may_exceed

F64 = torch.float64


@pytest.mark.slow
def test_quartics_that_rise_above_zero_between_two_looks_are_not_passed_over():
    """Along a step a linear guard is a quartic; 9 looks, and the highest point is above zero by 1e-6 … 1 of the range."""
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(5, 50_000, generator=generator, dtype=F64)

    def quartic(s: Tensor) -> Tensor:
        return sum((c[k] * s[:, None] ** k for k in range(5)), torch.zeros(len(s), 1, dtype=F64))

    fine = quartic(torch.linspace(0.0, 1.0, 1001, dtype=F64))
    above = 10.0 ** (-6.0 * torch.rand(50_000, generator=generator, dtype=F64)) * (fine.amax(0) - fine.amin(0))
    levels = (quartic(torch.linspace(0.0, 1.0, 9, dtype=F64)) - fine.amax(0) + above)[:, :, None]
    hidden = (levels < 0.0).all(0).squeeze(1)
    assert hidden.sum() > 5_000
    assert may_exceed(levels).any(0).squeeze(1)[hidden].float().mean() > 0.999
    lower = levels - (above + 0.1 * (fine.amax(0) - fine.amin(0)))[None, :, None]
    assert may_exceed(lower).any(0).float().mean() < 0.01  # and a guard well below zero is left alone


class Pulses(adjsnn.HybridSystem):
    """A state that stands still, so that steps are long, and a guard that is above zero for 0.09 of every 2π."""

    def __init__(self) -> None:
        super().__init__()
        self.height = nn.Parameter(torch.tensor(0.999, dtype=F64))

    def vector_field(self, t, y, u):
        del t, u
        return torch.zeros_like(y)

    def guard(self, t, y):
        return torch.cos(t - y) - self.height


@pytest.mark.parametrize("method", ["dopri5", "tsit5"])
def test_short_excursions_in_long_steps_are_events_with_their_gradient(method):
    phases = torch.linspace(1.0, 6.0, 60, dtype=F64)[:, None]
    system = Pulses()
    sol = adjsnn.solve(system, None, y0=phases, ts=torch.tensor([0.0, 6.5], dtype=F64), method=method)
    expected = phases - math.acos(0.999)
    assert sol.event_index.shape[1] == 1
    torch.testing.assert_close(sol.event_times.detach(), expected, rtol=0, atol=1e-11)
    (slope,) = torch.autograd.grad(sol.event_times.mean(), [system.height])
    assert float(slope) == pytest.approx(1.0 / math.sqrt(1.0 - 0.999**2), rel=1e-9)
    single = adjsnn.solve(system, None, y0=phases[7:8], ts=torch.tensor([0.0, 6.5], dtype=F64), method=method)
    assert torch.equal(single.event_times, sol.event_times[7:8])
