"""Losses where a division or an exponential could leave the numbers: long trials, silent neurons, trials of no length."""

import math

import pytest
import torch

import adjsnn
from adjsnn import ConfigurationError, SpikeTrains, losses

DTYPES = (torch.float32, torch.float64)


def _two_neurons(weights, t_end, dtype, **options):
    """Two neurons with one input spike each, at 1 ms and close to the end."""
    net = adjsnn.LIFNetwork(2, (2,), dtype=dtype)
    with torch.no_grad():
        net.w_in[0].copy_(torch.tensor(weights).diag())
    rows = [[(1.0, 0), (0.9 * t_end, 1)]]
    return net, adjsnn.solve(net, SpikeTrains.from_list(rows, n_neurons=2, t_max=t_end, dtype=dtype), t_end=t_end, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("t_end", [60.0, 200.0, 600.0, 5000.0, 1e6])
def test_cross_entropy_of_a_silent_neuron_is_finite_however_long_the_trial(dtype, t_end):
    _, sol = _two_neurons([9.0, 0.1], t_end, dtype)
    first = sol.first_spike_times()
    assert bool(first[0, 1].isinf())
    value = losses.first_spike_cross_entropy(sol, torch.tensor([1]))
    tau1 = 6.4 * t_end / 60.0
    early = float(first.detach()[0, 0])
    expected = (t_end - early) / 0.5 + math.log1p(math.exp(-(t_end - early) / 0.5)) + 0.003 * math.expm1(60.0 / 6.4)
    assert value.item() == pytest.approx(expected, rel=1e-5 if dtype == torch.float32 else 1e-12)
    assert losses.first_spike_cross_entropy(sol, torch.tensor([1]), tau1=tau1).item() == value.item()


@pytest.mark.parametrize("t_end", [5.0, 60.0])
def test_cross_entropy_of_a_short_trial_has_the_constants_it_had(t_end):
    _, sol = _two_neurons([9.0, 9.0], t_end, torch.float64)
    for label in (0, 1):
        labels = torch.tensor([label])
        explicit = losses.first_spike_cross_entropy(sol, labels, tau0=0.5, alpha=0.003, tau1=6.4)
        assert losses.first_spike_cross_entropy(sol, labels).item() == explicit.item()


@pytest.mark.parametrize("t_end", [60.0, 600.0])
def test_cross_entropy_of_a_late_spike_has_the_slope_of_its_differences(t_end):
    def value(w):
        net, sol = _two_neurons([9.0, 9.0], t_end, torch.float64)
        with torch.no_grad():
            net.w_in[0][1, 1] += w
        rows = [[(1.0, 0), (0.9 * t_end, 1)]]
        x = SpikeTrains.from_list(rows, n_neurons=2, t_max=t_end, dtype=torch.float64)
        sol = adjsnn.solve(net, x, t_end=t_end)
        assert sol.spike_counts().tolist() == [[1, 1]]
        return net, losses.first_spike_cross_entropy(sol, torch.tensor([1]))

    net, loss = value(0.0)
    (slope,) = torch.autograd.grad(loss, net.w_in[0])
    h = 1e-4
    far, near = (value(2 * h)[1] - value(-2 * h)[1]).item(), (value(h)[1] - value(-h)[1]).item()
    assert slope[1, 1].item() == pytest.approx((8 * near - far) / (12 * h), rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_exponential_that_would_overflow_is_refused(dtype):
    _, sol = _two_neurons([9.0, 0.1], 6000.0, dtype)
    with pytest.raises(ConfigurationError, match="tau1=6.4 ms in a trial of 6000 ms"):
        losses.first_spike_cross_entropy(sol, torch.tensor([1]), tau1=6.4)


def test_a_rate_needs_a_trial_that_lasts():
    _, sol = _two_neurons([9.0, 9.0], 10.0, torch.float64)
    assert losses.firing_rate(sol).tolist() == [[100.0, 0.0]]
    empty = adjsnn.solve(adjsnn.LIFNetwork(1, (2,)), SpikeTrains.from_list([[]], n_neurons=1, t_max=0.0))
    for rate in (losses.firing_rate, lambda s: s.squared_rate()):
        with pytest.raises(ConfigurationError, match="0 ms"):
            rate(empty)


def test_a_cost_relative_to_a_target_of_nothing_is_refused():
    net = adjsnn.GatedSynapseNetwork(1, 2, 1)
    sol = adjsnn.solve(net, torch.ones(4, 1, 1), dt=0.5, kernels="plain")
    lif = adjsnn.LIFNetwork(1, (2,), n_out=1)
    spiking = adjsnn.solve(lif, SpikeTrains.from_list([[(1.0, 0)]], n_neurons=1, t_max=5.0), ts=[0.0, 5.0])
    for found in (sol, spiking):
        with pytest.raises(ConfigurationError, match="zero throughout"):
            losses.normalised_cost(found, torch.zeros_like(found.readout))
        assert bool(losses.normalised_cost(found, torch.ones_like(found.readout)).isfinite())


def test_a_time_asked_for_twice_changes_no_integral():
    net, x = (
        adjsnn.LIFNetwork(1, (2,), n_out=1, dtype=torch.float64, bias=2.0),
        SpikeTrains.from_list([[]], n_neurons=1, t_max=50.0),
    )
    target = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    once, twice = torch.tensor([0.0, 20.0, 50.0]), torch.tensor([0.0, 20.0, 20.0, 50.0, 50.0])
    a, b = (adjsnn.solve(net, x, ts=ts) for ts in (once, twice))
    assert sum(a.stats.spikes) > 2
    expected, found = a.readout_error(target[:, None, None]), b.readout_error(target[[0, 1, 1, 2, 2], None, None])
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    slopes = [
        torch.autograd.grad(value.sum(), net.w_in[0], allow_unused=True)[0] for value in (a.spike_times(), b.spike_times())
    ]
    assert torch.equal(*slopes)
    (of_a,), (of_b,) = (torch.autograd.grad(value, net.w_out) for value in (expected, found))
    assert torch.allclose(of_a, of_b, rtol=1e-12, atol=0.0)
