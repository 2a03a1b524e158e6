"""Generalised LIF layers that must do the same as others: simple LIF, adaptation through a synapse, a leak that vanishes."""

import numpy as np
import pytest
from layers import random_layer, wiring_of
from test_glif_gradients import named, random_cotangents

from adjsnn.lif import plain, plain_adjoint
from adjsnn.lif.glif.arrays import GLIF, GLIFGradients, GLIFRun, GLIFState, Neurons, Wiring
from adjsnn.lif.glif.plain import forward
from adjsnn.lif.glif.plain_adjoint import backward
from adjsnn.lif.layer import Events, Layer, LayerCotangents, State, Trial


def dense(weights: np.ndarray, delays: np.ndarray) -> Wiring:
    """Of a matrix (N, M)."""
    n, m = weights.shape
    pairs = [(source, post) for source in range(m) for post in range(n)]
    synapses = [(s, float(delays[post if len(delays) > 1 else 0, s]), post, 0) for s, post in pairs]
    return wiring_of(m, synapses, np.array([weights[post, source] for source, post in pairs]))


def matrix(wiring: Wiring, of_synapses: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Summed back into one (N, M)."""
    total = np.zeros(shape)
    source = np.repeat(np.repeat(np.arange(shape[1]), np.diff(wiring.first)), np.diff(wiring.edge))
    np.add.at(total, (wiring.post, source), of_synapses)
    return total


@pytest.mark.parametrize("per_synapse", [False, True])
def test_one_receptor_and_nothing_else_is_a_simple_lif_layer(per_synapse):
    """Spikes, states and gradients, by time constants from those by rates."""
    rng = np.random.default_rng(1)
    n, m, batch, t_end = 3, 4, 2, 40.0
    rows = n if per_synapse else 1
    layer = Layer(
        rng.uniform(-0.5, 2.5, (n, m)),
        rng.uniform(-1.0, 1.0, (n, n)),
        rng.uniform(0.0, 0.4, n),
        np.array([10.0, 20.0, 5.0]),
        np.array([5.0, 4.0, 5.0]),
        rng.uniform(0.9, 1.1, n),
        rng.uniform(-0.3, 0.1, n),
        np.array([0.0, 3.0, 1.0]),
        rng.uniform(0.0, 3.0, (rows, m)),
        rng.uniform(0.5, 3.0, (rows, n)),
    )
    times = np.sort(rng.uniform(0.0, t_end, (batch, 30)), 1).ravel()
    inputs = Events(np.array([0, 30, 60]), times, rng.integers(0, m, 60))
    start = State(rng.uniform(-0.2, 0.5, (batch, n)), rng.uniform(0.0, 0.8, (batch, n)))
    probes, edges = np.array([0.0, 11.0, 23.0, t_end]), np.array([15.0, 30.0])
    trial = Trial(0, t_end, probes, 100, rng.uniform(-0.1, 0.3, (3, batch, n)), edges)
    none = np.zeros((0, n))
    mu = 1.0 / layer.tau_mem
    neurons = Neurons(
        mu, mu, layer.bias, layer.v_th, layer.v_reset, np.zeros(n), layer.refractory, 1.0 / layer.tau_syn[None], *[none] * 6
    )
    glif = GLIF(neurons, dense(layer.w_in, layer.delays), dense(layer.w_rec, layer.rec_delays))
    state = GLIFState(start.v, start.i[:, None], np.zeros((batch, 0, n)))
    simple, run = plain.forward(layer, inputs, start, trial), forward(glif, inputs, state, trial)
    assert len(run.spikes.time) > 10
    assert simple.states is not None
    np.testing.assert_array_equal(run.spikes.first, simple.spikes.first)
    np.testing.assert_array_equal(run.spikes.neuron, simple.spikes.neuron)
    # Both solve the same equations, with rates in the place of time constants: rounding, grown by what spikes do to later ones.
    np.testing.assert_allclose(run.spikes.time, simple.spikes.time, rtol=1e-12)
    np.testing.assert_allclose(run.states.v, simple.states.v, atol=1e-11)
    np.testing.assert_allclose(run.states.c[:, :, 0], simple.states.i, atol=1e-11)
    cotangents = random_cotangents(rng, run)
    simple_cotangents = LayerCotangents(cotangents.time, cotangents.v, None if cotangents.c is None else cotangents.c[:, :, 0])
    g = backward(glif, inputs, state, trial, run, cotangents, True)
    expected = plain_adjoint.backward(layer, inputs, start, trial, simple, simple_cotangents, frozenset())
    by_delay = [matrix(w, x, (n, k)) for w, x, k in ((glif.incoming, g.in_delay, m), (glif.recurrent, g.rec_delay, n))]
    found = Layer(
        matrix(glif.incoming, g.in_weight, (n, m)),
        matrix(glif.recurrent, g.rec_weight, (n, n)),
        g.neurons.bias,
        -(g.neurons.leak_rate + g.neurons.gain) / layer.tau_mem**2,
        -g.neurons.rate[0] / layer.tau_syn**2,
        g.neurons.v_th,
        g.neurons.v_reset,
        g.neurons.refractory,
        *(x if per_synapse else x.sum(0, keepdims=True) for x in by_delay),
    )
    pairs = [*zip(found, expected.layer, strict=True), (g.time, expected.time), (g.v, expected.v), (g.drive, expected.drive)]
    for one, other in [*pairs, (g.c[:, 0], expected.i)]:
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * np.abs(other).max())


@pytest.mark.parametrize("refractory", [0.0, 4.0])
def test_adaptation_is_a_synapse_to_oneself_without_delay(refractory):
    """In a receptor of its own: the same spikes, states and gradients."""
    rng = np.random.default_rng(2)
    problem = random_layer(rng, adaptation=1, receptors=2, refractory=refractory, scaled=False, reset="mixed")
    layer, inputs, start, trial = problem
    p, rec, n = layer.neurons, layer.recurrent, 3
    sources = np.repeat(np.repeat(np.arange(n), np.diff(rec.first)), np.diff(rec.edge))
    columns = (sources, np.repeat(rec.delay, np.diff(rec.edge)), rec.post, rec.receptor)
    synapses = [(int(s), float(d), int(post), int(k)) for s, d, post, k in zip(*columns, strict=True)]
    own = wiring_of(n, [*synapses, *((m, 0.0, m, 2) for m in range(n))], np.concatenate([rec.weight, p.jump[0]]))
    heard = GLIF(p._replace(jump=np.zeros((0, n)), scale=np.zeros((0, n))), layer.incoming, own)
    run, other = forward(*problem), forward(heard, inputs, start, trial)
    same_runs(run, other, 1e-12)
    assert len(run.spikes.time) > 10
    cotangents = random_cotangents(rng, run)
    g, expected = backward(*problem, run, cotangents, True), backward(heard, inputs, start, trial, other, cotangents, True)
    ours = own.receptor == 2
    np.testing.assert_allclose(g.neurons.jump[0], expected.rec_weight[ours], rtol=1e-9)
    for one, there in ((g.rec_weight, expected.rec_weight), (g.rec_delay, expected.rec_delay)):
        np.testing.assert_allclose(one, there[~ours], rtol=1e-9, atol=1e-9 * np.abs(one).max())
    # A neuron without a refractory time adapts before its release, but hears itself after it: there the two have each a kink.
    late = p.refractory > 0.0
    np.testing.assert_allclose(g.neurons.refractory[late], expected.neurons.refractory[late], rtol=1e-9)
    same_gradients(g, expected, {"jump", "scale", "refractory", "rec_weight", "rec_delay"}, 1e-9)


def test_without_leak_is_the_limit_of_a_leak_that_vanishes():
    """1e-13 per ms changes v by 1e-11 or so in the end."""
    rng = np.random.default_rng(4)
    problem = random_layer(rng, leak=False, reset="mixed", refractory=3.0, receptors=3, thresholds=2)
    layer, inputs, start, trial = problem
    leaky = GLIF(layer.neurons._replace(leak_rate=np.full(3, 1e-13)), layer.incoming, layer.recurrent)
    run, other = forward(*problem), forward(leaky, inputs, start, trial)
    same_runs(run, other, 1e-9)
    assert len(run.spikes.time) > 10
    cotangents = random_cotangents(rng, run)
    g, expected = backward(*problem, run, cotangents, True), backward(leaky, inputs, start, trial, other, cotangents, True)
    same_gradients(g, expected, set(), 1e-8)


def test_a_batch_is_its_samples():
    problem = random_layer(np.random.default_rng(5), batch=3, refractory=2.0, driven=True)
    layer, inputs, start, trial = problem
    whole = forward(*problem)
    for b in range(3):
        incoming, own = inputs.of_sample(b), whole.spikes.of_sample(b)
        alone = Events(np.array([0, incoming.stop - incoming.start]), inputs.time[incoming], inputs.neuron[incoming])
        state = GLIFState._make(x[b : b + 1] for x in start)
        run = forward(layer, alone, state, trial._replace(drive=trial.drive[:, b : b + 1]))
        np.testing.assert_array_equal(run.spikes.time, whole.spikes.time[own])
        np.testing.assert_array_equal(run.states.v[:, 0], whole.states.v[:, b])


def same_runs(run: GLIFRun, other: GLIFRun, tolerance: float) -> None:
    np.testing.assert_array_equal(run.spikes.neuron, other.spikes.neuron)
    for one, there in zip(
        (run.spikes.time, run.speed, *run.states), (other.spikes.time, other.speed, *other.states), strict=True
    ):
        np.testing.assert_allclose(one, there, rtol=tolerance, atol=tolerance)


def same_gradients(g: GLIFGradients, expected: GLIFGradients, but: set[str], tolerance: float) -> None:
    other = named(expected)
    for name, one in named(g).items():
        if name not in but and one.size:
            np.testing.assert_allclose(
                one, other[name], rtol=tolerance, atol=tolerance * np.abs(other[name]).max(), err_msg=name
            )
