"""Neurons that reach their thresholds in one instant all spike, whatever their spikes do to each other (2.2)."""

import numpy as np
import pytest
import torch

import adjsnn

F64 = torch.float64


@pytest.mark.every(3)
@pytest.mark.parametrize("taus", [(20.0, 5.0), (5.0, 20.0), (10.0, 10.0), (10.0, 10.0 * (1.0 + 1e-9))])
def test_neurons_that_are_alike_spike_together_though_each_would_silence_the_others(taus, lif_kernels):
    """Winner takes all without a delay: rounding must not make a winner."""
    random = np.random.default_rng(0)
    for _ in range(60):
        net = adjsnn.LIFNetwork(
            2, (5,), True, *taus, float(random.uniform(0.5, 1.5)), float(random.uniform(-1.0, 0.3)),
            bias=float(random.uniform(-0.5, 1.3)), dtype=F64,
        )  # fmt: skip
        with torch.no_grad():
            net.w_in[0].copy_(torch.from_numpy(random.uniform(2.0, 9.0, (1, 2))).expand(5, 2))
            net.w_rec[0].copy_(torch.from_numpy(random.uniform(-30.0, -1.0, (1, 5))).expand(5, 5))
        events = [
            (float(t), int(k)) for t, k in zip(np.sort(random.uniform(0.0, 40.0, 8)), random.integers(0, 2, 8), strict=True)
        ]
        x = adjsnn.SpikeTrains.from_list([events], n_neurons=2, t_max=60.0, dtype=F64)
        start = random.uniform(-0.5, 0.4)
        y0 = [adjsnn.lif.structure.LIFState(torch.full((1, 5), start, dtype=F64), torch.zeros(1, 5, dtype=F64))]
        spikes = adjsnn.solve(net, x, y0=y0, kernels=lif_kernels).layer_spikes[0].to_list()[0]
        trains = [[t for t, n in spikes if n == k] for k in range(5)]
        assert trains[0]
        assert all(train == trains[0] for train in trains[1:])
