"""Spike trains that go to another library and back."""

import torch

from adjsnn import SpikeTrains


def random_trains(batch=3, n_neurons=5, rate=40.0, t_max=1100.0, *, signs=True):
    generator = torch.Generator().manual_seed(batch)
    x = SpikeTrains.poisson(torch.full((batch, n_neurons), rate, dtype=torch.float64), t_max, generator=generator)
    if not signs:
        return x
    sign = torch.where(x.idx < 0, 0, torch.randint(2, x.idx.shape, generator=generator) * 2 - 1).to(torch.int8)
    return SpikeTrains(x.idx, x.time, n_neurons, t_max, sign)


def assert_same(a, b):
    """To the bit."""
    assert (a.batch, a.n_neurons) == (b.batch, b.n_neurons)
    for x, y in ((a.time, b.time), (a.idx, b.idx), (a.sign, b.sign)):
        assert torch.equal(x, y)
