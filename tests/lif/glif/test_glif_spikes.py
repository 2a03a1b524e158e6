"""Spikes and states of generalised LIF layers against a dense scan, and against layers that must do the same."""

import numpy as np
import pytest
from dense_scan import scan
from layers import random_layer

from adjsnn.lif.glif.plain import forward


def slow(case):
    """A case whose parts others have, too."""
    return pytest.param(case, marks=pytest.mark.slow)


CASES = [
    slow({"receptors": 1, "adaptation": 0, "thresholds": 1}),
    {"receptors": 2, "adaptation": 2, "thresholds": 0, "leak": False, "reset": "by", "refractory": 4.0},
    {"receptors": 3, "adaptation": 1, "thresholds": 2, "reset": "mixed", "driven": True, "delays": "axon"},
    slow({"receptors": 2, "adaptation": 0, "thresholds": 2, "leak": False, "reset": "mixed", "driven": True}),
    slow({"receptors": 1, "adaptation": 2, "thresholds": 1, "reset": "by", "refractory": 6.0, "delays": "none"}),
    slow({"receptors": 3, "adaptation": 0, "thresholds": 0, "recurrent": False, "leak": False}),
    {"receptors": 2, "adaptation": 1, "thresholds": 1, "refractory": 5.0, "driven": True, "follows": True},
    slow({"receptors": 1, "adaptation": 0, "thresholds": 0, "reset": "by", "delays": "none", "follows": True}),
    slow(
        {"receptors": 2, "adaptation": 1, "thresholds": 2, "leak": False, "reset": "mixed", "refractory": 3.0, "follows": True},
    ),
]
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("options", CASES)
def test_spikes_and_states_are_those_of_a_dense_scan(options, seed):
    layer, inputs, start, trial = random_layer(np.random.default_rng(seed), **options)
    run = forward(layer, inputs, start, trial)
    assert len(run.spikes.time) >= 6
    for b in range(inputs.batch):
        incoming, own = inputs.of_sample(b), run.spikes.of_sample(b)
        state = (start.v[b], start.c[b], start.h[b])
        expected = scan(layer, inputs.time[incoming], inputs.neuron[incoming], *state, trial, b)
        np.testing.assert_array_equal(run.spikes.neuron[own], expected.neuron)
        np.testing.assert_allclose(run.spikes.time[own], expected.time, rtol=0.0, atol=1e-9)  # bisected to 1e-13
        for found, there in zip(run.states, expected[2:], strict=True):
            np.testing.assert_allclose(found[:, b], there, rtol=0.0, atol=1e-9)
