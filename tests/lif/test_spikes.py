"""Spike times of LIF networks against an independent scan."""

from functools import lru_cache

import pytest
from lif_networks import RATIOS, random_lif, random_spikes, scanned_spikes

import adjsnn

CLOSE = 1e-9  # ms; bisection and Newton both stop at rounding, which slow crossings amplify
T_SCAN = 40.0


def network(kind: str, ratio: float) -> adjsnn.LIFNetwork:
    return random_lif(
        7,
        ratio=ratio,
        recurrent=kind != "feedforward",
        per_synapse=kind == "per_synapse",
        delayed=kind != "no_delay",
        refractory=0.0 if kind == "no_refractory" else 2.0,
    )


@lru_cache
def scanned(kind: str, ratio: float) -> list:
    return scanned_spikes(network(kind, ratio), random_spikes(7, batch=2), T_SCAN)


@pytest.mark.every(29)
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("kind", ["feedforward", "per_axon", "per_synapse", "no_delay", "no_refractory"])
def test_spikes_are_those_of_a_dense_scan(ratio, kind, lif_kernels):
    sol = adjsnn.solve(network(kind, ratio), random_spikes(7, batch=2), t_end=T_SCAN, kernels=lif_kernels)
    for expected, found in zip(scanned(kind, ratio), sol.layer_spikes, strict=True):
        for row, other in zip(expected, found.to_list(), strict=True):
            assert len(row) > 5
            assert [n for _, n in row] == [n for _, n in other]
            assert max(abs(a - b) for (a, _), (b, _) in zip(row, other, strict=True)) < CLOSE
