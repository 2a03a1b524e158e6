"""The dense loops of generalised layers, of neurons of one kind that nearly all hear every spike, against the plain code."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from layers import Solvable, random_layer, wiring_of
from test_glif_cpu import AMONG_MANY, compare, outcome

import adjsnn
from adjsnn.lif.cpu import glif_loops
from adjsnn.lif.cpu.glif_cell import kinds_of
from adjsnn.lif.glif import plain
from adjsnn.lif.glif.arrays import GLIF, Neurons, Wiring
from adjsnn.lif.layer import Events

RATES = ("leak_rate", "gain", "rate", "th_rate")


def dense_layer(rng: np.random.Generator, **options: Any) -> Solvable:
    """A random layer whose neurons have equal rates, with nine tenths of all synapses; it is solved by the dense loops."""
    layer, inputs, start, trial = random_layer(rng, **options)
    same = {name: np.repeat(x[..., :1], x.shape[-1], -1) for name, x in layer.neurons._asdict().items() if name in RATES}
    neurons = layer.neurons._replace(**same)
    n, receptors, m = len(neurons.bias), len(neurons.rate) - len(neurons.jump), len(layer.incoming.first) - 1
    size = 1.0 if neurons.leak_rate[0] > 0.0 else 0.08

    def wired(sources: int, low: float, high: float) -> Wiring:
        late = rng.uniform(0.1, 3.0, sources) * (options.get("delays") == "axon")
        synapses = [(s, late[s], post, k) for s in range(sources) for post in range(n) for k in range(receptors)]
        there = [x for x in synapses if rng.random() < 0.9]
        return wiring_of(sources, there, size * rng.uniform(low, high, len(there)))

    incoming = wired(m, -0.6, 2.2 / receptors**0.5)
    recurrent = wired(n if options.get("recurrent", True) else 0, -1.2 / n**0.5, 0.8 / n**0.5)
    layer = GLIF(neurons, incoming, recurrent)
    assert glif_loops.tables_of(layer, len(kinds_of(neurons).leak_rate)) is not None
    return layer, inputs, start, trial


@pytest.mark.parametrize("leak", [True, False], ids=["leak", "no leak"])
@pytest.mark.parametrize("reset", ["to", "by"])
@pytest.mark.parametrize("delays", ["none", "axon"])
def test_it_does_what_the_plain_code_does(leak: bool, reset: str, delays: str):
    problem = dense_layer(
        np.random.default_rng(1), leak=leak, reset=reset, delays=delays, refractory=2.0, driven=leak, n=9, t_end=30.0
    )
    assert compare(problem, 2) > 20


@pytest.mark.parametrize("tau_syn", [1e3, 1e6, 1e9, 1e13])
def test_currents_that_hardly_decay_make_no_spike_late(tau_syn: float):
    """Without leak v = w τ_s (1 - e^{-t/τ_s}), reset to 0 by its own threshold: spike k at -τ_s ln(1 - k/(w τ_s))."""
    w = torch.linspace(0.11, 0.4, 9, dtype=torch.float64)
    lif = adjsnn.LIFNetwork(1, 9, leak=False, reset="by", tau_syn=tau_syn, receptors=1, dtype=torch.float64)
    with torch.no_grad():
        lif.w_in[0].copy_(w.view(lif.w_in[0].shape))
    x = adjsnn.SpikeTrains.from_list([[(0.0, 0)]], n_neurons=1, t_max=50.0, dtype=torch.float64)
    spikes = adjsnn.solve(lif, x, t_end=50.0).layer_spikes[0]
    nth = torch.stack([(spikes.idx[0, : k + 1] == spikes.idx[0, k]).sum() for k in range(len(spikes))])
    ideal = -tau_syn * torch.log1p(-nth / (w[spikes.idx[0]] * tau_syn))
    assert len(spikes) > 100
    torch.testing.assert_close(spikes.time[0], ideal, rtol=0.0, atol=1e-11)


@settings(max_examples=8, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 20),
    m=st.integers(1, 4),
    receptors=st.integers(1, 3),
    adaptation=st.integers(0, 2),
    thresholds=st.integers(0, 2),
    leak=st.booleans(),
    reset=st.sampled_from(["to", "by", "mixed"]),
    recurrent=st.booleans(),
    delays=st.sampled_from(["none", "axon"]),
    refractory=st.sampled_from([0.0, 2.0]),
    driven=st.booleans(),
)
def test_any_layer(seed: int, **options: Any):
    compare(dense_layer(np.random.default_rng(seed), t_end=20.0, **options), seed)


def test_neurons_that_are_alike_spike_at_one_instant():
    layer, inputs, start, trial = dense_layer(np.random.default_rng(3), n=11, delays="none", recurrent=False)
    same = Neurons._make(np.repeat(x[..., :1], x.shape[-1], -1) for x in layer.neurons)
    m = len(layer.incoming.first) - 1
    synapses = [(source, 0.0, post, 0) for source in range(m) for post in range(11)]
    incoming = wiring_of(m, synapses, np.repeat(np.random.default_rng(4).uniform(0.5, 2.0, m), 11))
    problem = layer._replace(neurons=same, incoming=incoming), inputs, type(start)._make(0.0 * x for x in start), trial
    run = glif_loops.forward(*problem)
    assert len(run.spikes.time) > 50
    assert (run.spikes.time.reshape(-1, 11) == run.spikes.time[::11, None]).all()
    assert (run.spikes.neuron.reshape(-1, 11) == np.arange(11)).all()
    compare(problem, 5)


def test_a_batch_is_its_samples():
    layer, inputs, start, trial = problem = dense_layer(np.random.default_rng(6), n=30, batch=5)
    run = glif_loops.forward(*problem)
    for b in range(5):
        mine, own = inputs.of_sample(b), run.spikes.of_sample(b)
        alone = Events(np.array([0, len(inputs.time[mine])]), inputs.time[mine], inputs.neuron[mine])
        single = glif_loops.forward(layer, alone, type(start)._make(x[b : b + 1] for x in start), trial)
        assert (single.spikes.time == run.spikes.time[own]).all()


def test_errors_are_those_of_the_plain_code():
    layer, inputs, start, trial = dense_layer(np.random.default_rng(7), thresholds=1, refractory=1.0)
    often = layer, inputs, start, trial._replace(limit=3)
    said = outcome(glif_loops.forward, often)
    assert isinstance(said, str)
    assert "more than 3 spikes" in said
    assert said == outcome(plain.forward, often)
    layer.neurons.v_reset[:] = 4.0
    said = outcome(glif_loops.forward, (layer, inputs, start, trial))
    assert isinstance(said, str)
    assert "above its threshold" in said
    assert said == outcome(plain.forward, (layer, inputs, start, trial))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 200, 50))
def test_many_layers(first: int):
    for seed in range(first, first + 50):
        rng = np.random.default_rng(seed)
        most = {"n": 20, "m": 5, "receptors": 4, "batch": 4}
        options: dict[str, Any] = {name: int(rng.integers(1, high)) for name, high in most.items()}
        options |= {name: int(rng.integers(0, 3)) for name in ("adaptation", "thresholds")}
        options |= {name: bool(rng.integers(2)) for name in ("leak", "recurrent", "driven", "scaled")}
        options |= {"reset": str(rng.choice(["to", "by", "mixed"])), "delays": str(rng.choice(["none", "axon"]))}
        compare(dense_layer(rng, refractory=float(rng.choice([0.0, 2.0])), **options), seed, AMONG_MANY)
