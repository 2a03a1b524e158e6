"""Integrals of the readout on a clock are those of the same spikes without one, and smooth functions of every S."""

from types import SimpleNamespace

import pytest
import torch
from test_clocked import F64, network, spikes

import adjsnn
from adjsnn import ConfigurationError, losses
from adjsnn.lif.clocked import ClockedRun
from adjsnn.lif.layer import Events
from adjsnn.lif.readout import readout_error, readout_integral, squared_activity
from adjsnn.rules import SurrogateBPTT

DT = 0.5


def solved(ts=None):
    net = network(n_out=2)
    return net, adjsnn.solve(net, spikes(), dt=DT, ts=ts, adjoint=SurrogateBPTT())


def of_events(sol):
    """Its last layer's spikes as those of an event-exact solve."""
    fired = sol.spikes_on_grid().detach().transpose(0, 1).nonzero()
    first = torch.searchsorted(fired[:, 0].contiguous(), torch.arange(sol.spikes_on_grid().shape[1] + 1))
    time = fired[:, 1].double() * sol.dt
    return SimpleNamespace(time=time, run=SimpleNamespace(spikes=Events(first, time, fired[:, 2])))


@pytest.mark.parametrize("ts", [None, (0.0, 7.5, 8.0, 31.0, 60.0), (5.0, 5.0, 20.0)])
def test_error_is_the_integral_of_the_same_spikes(ts):
    net, sol = solved(ts)
    target = torch.randn(sol.readout.shape, dtype=F64)
    expected = readout_error(sol._readout, of_events(sol), sol.ts, target).detach()
    torch.testing.assert_close(sol.readout_error(target).detach(), expected, rtol=1e-12, atol=1e-12)
    assert float(sol.squared_errors(target)[0].detach()) == pytest.approx(float(expected.sum()), rel=1e-12)
    silent = readout_error(sol._readout._replace(w_out=0.0 * net.w_out.detach()), of_events(sol), sol.ts, target)
    torch.testing.assert_close(sol.error_of_silence(target), silent, rtol=1e-12, atol=1e-12)
    assert float(losses.normalised_cost(sol, target).detach()) == pytest.approx(float(expected.sum() / silent.sum()), rel=1e-12)


def test_window_and_activity_are_those_of_the_same_spikes():
    _, sol = solved()
    start, stop = torch.tensor([0.0, 10.0, 10.3, 20.0], dtype=F64), torch.tensor([60.0, 10.0, 33.7, 99.0], dtype=F64)
    expected = readout_integral(sol._readout, of_events(sol), start, stop)
    torch.testing.assert_close(sol.readout_integral(start, stop), expected, rtol=1e-12, atol=1e-12)
    energy = squared_activity(of_events(sol), sol.spikes_on_grid().shape[2], 20.0) * (1e6 / 60.0)
    torch.testing.assert_close(sol.squared_rate(20.0), energy, rtol=1e-12, atol=1e-12)


def test_their_derivatives_by_a_spike_are_differences():
    """All are quadratic in S, so that a central difference is exact but for rounding."""
    _, sol = solved()
    target = torch.randn(sol.readout.shape, dtype=F64)
    start, stop = torch.full((4,), 3.0, dtype=F64), torch.full((4,), 44.2, dtype=F64)

    def figures(s):
        run = ClockedRun(s, *list(sol._runs[-1])[1:])
        of = adjsnn.lif.clocked_solution.ClockedSolution(
            sol.ts, sol.i, sol.a, sol.h, sol.t_end, sol.dt, sol._rows, sol._layers, [*sol._runs[:-1], run],
            sol._readout, torch.nn.functional.linear(s, sol._readout.w_out.detach()), sol._ran,
        )  # fmt: skip
        return of.readout_error(target).sum() + of.readout_integral(start, stop).sum() + 1e-3 * of.squared_rate().sum()

    s = sol.spikes_on_grid().detach().clone().requires_grad_()
    (g,) = torch.autograd.grad(figures(s), s)
    for place in ((0, 0, 0), (17, 1, 2), (120, 3, 1)):
        step = torch.zeros_like(s)
        step[place] = 0.5
        difference = float((figures(s + step) - figures(s - step)).detach())
        assert float(g[place]) == pytest.approx(difference, rel=1e-9)


def test_bad_arguments():
    _, sol = solved()
    plain = adjsnn.solve(network(n_out=None), spikes(), dt=DT, adjoint=SurrogateBPTT())
    one = solved((5.0,))[1]
    for call, message in (
        (lambda: sol.readout_error(torch.zeros(3, 4, 2)), r"target of shape \(3, 4, 2\)"),
        (lambda: one.readout_error(torch.zeros(1, 4, 2)), "1 times ts"),
        (lambda: plain.readout_error(torch.zeros(121, 4, 2)), "without one"),
        (lambda: plain.readout_integral(torch.zeros(4), torch.ones(4)), "without one"),
        (lambda: sol.readout_integral(torch.ones(4), torch.zeros(4)), "windows"),
        (lambda: sol.squared_rate(0.0), "tau"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            call()
