"""Sums over pairs of spikes, and the van Rossum distance by them, against the sums themselves and against differences."""

from itertools import pairwise

import pytest
import torch

import adjsnn
from adjsnn.losses import van_rossum
from adjsnn.numerics.pair_sums import pair_sums

F64 = torch.float64
FIRST = torch.tensor([0, 4, 4, 5, 9])  # groups of 4, 0, 1 and 4 spikes


def spikes(seed: int, channels: int):
    generator = torch.Generator().manual_seed(seed)
    time = torch.cat([torch.rand(n, generator=generator, dtype=F64).mul_(20.0).sort().values for n in FIRST.diff().tolist()])
    return time.requires_grad_(), torch.randn(len(time), channels, generator=generator, dtype=F64).requires_grad_()


def over_all_pairs(time, w, tau):
    rows = []
    for a, b in pairwise(FIRST.tolist()):
        t, x = time[a:b], w[a:b]
        rows.append(0.5 * ((x @ x.T) * torch.exp(-(t[:, None] - t).abs() / tau)).sum())
    return torch.stack(rows)


@pytest.mark.parametrize("channels", [1, 3])
def test_sum_and_gradient_are_those_of_all_pairs(channels):
    time, w = spikes(0, channels)
    found, expected = pair_sums(time, w, FIRST, 7.0), over_all_pairs(time, w, 7.0)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)  # a dozen sums of numbers of order 1
    weight = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=F64)
    for g, h in zip(*(torch.autograd.grad(weight @ x, [time, w]) for x in (found, expected)), strict=True):
        torch.testing.assert_close(g, h, rtol=1e-12, atol=1e-13)


def test_its_gradient_is_that_of_differences():
    time, w = spikes(1, 2)
    assert torch.autograd.gradcheck(lambda t, x: pair_sums(t, x, FIRST, 7.0), (time, w))


def test_the_gradient_of_van_rossum_is_that_of_differences():
    """By the times of both trains, in no order among each other."""
    idx = torch.tensor([[0, 1, 0, 1], [1, 0, -1, -1]])
    first = torch.tensor([[1.0, 2.5, 6.0, 9.0], [3.0, 4.0, torch.inf, torch.inf]], dtype=F64)
    second = torch.tensor([[0.5, 3.5, 7.0, 8.0], [2.0, 5.0, torch.inf, torch.inf]], dtype=F64)
    real = idx >= 0

    def distance(a, b):
        trains = [adjsnn.SpikeTrains(idx, x.masked_scatter(real, flat), 2, 10.0) for x, flat in ((first, a), (second, b))]
        return van_rossum(*trains, tau=4.0)

    flat = [x[real].requires_grad_() for x in (first, second)]
    assert torch.autograd.gradcheck(distance, flat)


def test_a_kernel_that_rises_is_the_integral_of_its_traces():
    """Against quadrature, in units in which a single spike costs ½; and by the exact gradient of a network's spike times."""
    a, b = [1.0, 2.5, 9.0], [0.5, 7.0]
    one, two = (adjsnn.SpikeTrains.from_list([[(t, 0) for t in x]], n_neurons=1, t_max=10.0, dtype=F64) for x in (a, b))
    none = adjsnn.SpikeTrains.from_list([[]], n_neurons=1, t_max=10.0, dtype=F64)
    t = torch.arange(0.0, 400.0, 1e-3, dtype=F64)

    def trace(times):
        ages = [t - x for x in times]
        return sum(((-x / 10.0).exp() - (-x / 4.0).exp()) * (x > 0) for x in ages)

    whole = torch.trapezoid(trace([0.0]).square(), t)
    expected = 0.5 * torch.trapezoid((trace(a) - trace(b)).square(), t) / whole
    torch.testing.assert_close(
        van_rossum(one, two, tau_rise=4.0)[0], expected, rtol=1e-6, atol=0
    )  # of kinks in the middle of a step
    assert float(van_rossum(one, one, tau_rise=4.0)) == 0.0
    assert float(van_rossum(adjsnn.SpikeTrains(one.idx[:, :1], one.time[:, :1], 1, 10.0), none, tau_rise=4.0)) == pytest.approx(
        0.5, rel=1e-14
    )
    torch.testing.assert_close(van_rossum(one, two, tau_rise=1e-9), van_rossum(one, two))
    for rise in (10.0, 12.0, 0.0, -1.0):
        with pytest.raises(adjsnn.ConfigurationError, match="tau_rise"):
            van_rossum(one, two, tau_rise=rise)


def test_a_kernel_that_rises_has_the_gradient_of_differences():
    idx = torch.tensor([[0, 1, 0, 1]])
    times = [torch.tensor([[1.0, 2.5, 6.0, 9.0]], dtype=F64), torch.tensor([[0.5, 3.5, 7.0, 8.0]], dtype=F64)]

    def distance(a, b):
        return van_rossum(*(adjsnn.SpikeTrains(idx, x, 2, 10.0) for x in (a, b)), tau=4.0, tau_rise=1.5)

    assert torch.autograd.gradcheck(distance, [x.requires_grad_() for x in times])


def test_the_distance_has_the_dtype_of_the_times():
    one = adjsnn.SpikeTrains.from_list([[(5.0, 1)]], n_neurons=2, t_max=40.0, dtype=torch.float32)
    none = adjsnn.SpikeTrains.from_list([[]], n_neurons=2, t_max=40.0, dtype=torch.float32)
    assert torch.equal(van_rossum(one, none), torch.tensor([0.5]))
