"""Spike times of LIF networks against an independent scan, and what happens at instants where events coincide."""

import pytest
from lif_networks import RATIOS, T_END, random_lif, random_spikes, scanned_spikes

import adjsnn

CLOSE = 1e-9  # ms; bisection and Newton both stop at rounding, and slow crossings amplify it


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("kind", ["feedforward", "per_axon", "per_synapse", "no_delay", "no_refractory"])
def test_spikes_are_those_of_a_dense_scan(ratio, kind, lif_kernels):
    lif = random_lif(
        7,
        ratio=ratio,
        recurrent=kind != "feedforward",
        per_synapse=kind == "per_synapse",
        delayed=kind != "no_delay",
        refractory=0.0 if kind == "no_refractory" else 2.0,
    )
    x = random_spikes(7, batch=2)
    expected = scanned_spikes(lif, x, T_END)
    sol = adjsnn.solve(lif, x, t_end=T_END, kernels=lif_kernels)
    for scanned, found in zip(expected, sol.layer_spikes, strict=True):
        for row, other in zip(scanned, found.to_list(), strict=True):
            assert len(row) > 5
            assert [n for _, n in row] == [n for _, n in other]
            assert max(abs(a - b) for (a, _), (b, _) in zip(row, other, strict=True)) < CLOSE
