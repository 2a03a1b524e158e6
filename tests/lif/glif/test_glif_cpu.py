"""The compiled loop of generalised LIF layers against the plain code, and its cost."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from layers import Solvable, random_layer, random_wiring, split, wiring_of

from adjsnn.errors import EventError
from adjsnn.lif.cpu import glif_loops
from adjsnn.lif.glif import plain, plain_adjoint
from adjsnn.lif.glif.arrays import GLIF, GLIFCotangents, GLIFGradients, GLIFRun, GLIFState, Neurons
from adjsnn.lif.layer import Events, Trial
from adjsnn.numerics.threads import loops_alone

# Rounding of a spike time, some 2e-16 of it, grows with every spike that follows from it and, in a gradient, with every
# division by a slow crossing: of 2,000 small random layers the worst came to 7e-13, one of the larger ones to 1.3e-12.
CLOSE = 1e-12
AMONG_MANY = 1e-11
# whose gradients need the states along the run
STATES = ("leak_rate", "gain", "rate", "th_rate", "scale", "th_scale", "follow")


def assert_close(a: np.ndarray, b: np.ndarray, what: str, near: float = CLOSE) -> None:
    """To CLOSE of the largest entry, or of 1: v - v_th at a spike, which `reset_factor` is given, may be rounding alone."""
    assert a.shape == b.shape, what
    assert np.abs(a - b).max(initial=0.0) <= near * max(1.0, np.abs(b).max(initial=0.0)), what


def cotangents_of(rng: np.random.Generator, run: GLIFRun) -> GLIFCotangents:
    return GLIFCotangents(rng.standard_normal(len(run.spikes.time)), *[rng.standard_normal(x.shape) for x in run.states])


def outcome(forward: Callable[..., GLIFRun], problem: Solvable) -> GLIFRun | str:
    try:
        return forward(*problem)
    except EventError as error:
        return str(error)


def compare(problem: Solvable, seed: int, near: float = CLOSE) -> int:
    """Compiled as plain in all there is, with and without the gradients of rates; returns the number of spikes."""
    rng = np.random.default_rng(seed)
    a, b = outcome(plain.forward, problem), outcome(glif_loops.forward, problem)
    if isinstance(a, str) or isinstance(b, str):
        assert a == b
        return 0
    assert a.spikes.first.tolist() == b.spikes.first.tolist()
    assert a.spikes.neuron.tolist() == b.spikes.neuron.tolist()
    assert_close(b.spikes.time, a.spikes.time, "times", near)
    assert_close(b.speed, a.speed, "speed", near)
    for name, x, y in zip("vch", b.states, a.states, strict=True):
        assert_close(x, y, name, near)
    cotangents = cotangents_of(rng, a)
    exact = plain_adjoint.backward(*problem, a, cotangents, True)
    for rates in (True, False):
        found = glif_loops.backward(*problem, b, cotangents, rates)
        for name in Neurons._fields:
            if rates or name not in STATES:
                assert_close(getattr(found.neurons, name), getattr(exact.neurons, name), name, near)
        for name in GLIFGradients._fields[1:]:
            assert_close(getattr(found, name), getattr(exact, name), name, near)
    return len(a.spikes.time)


@pytest.mark.every(5)
@pytest.mark.parametrize("leak", [True, False], ids=["leak", "no leak"])
@pytest.mark.parametrize("reset", ["to", "by"])
@pytest.mark.parametrize("delays", ["none", "axon", "synapse"])
def test_it_does_what_the_plain_code_does(leak: bool, reset: str, delays: str):
    rng = np.random.default_rng(1)
    problem = random_layer(rng, leak=leak, reset=reset, delays=delays, refractory=2.0, driven=leak, n=4)
    assert compare(problem, 2) > 20


@pytest.mark.parametrize(("receptors", "adaptation", "thresholds"), [(1, 0, 0), (3, 0, 2), (1, 2, 0)])
def test_any_number_of_currents_and_thresholds(receptors: int, adaptation: int, thresholds: int):
    rng = np.random.default_rng(3)
    numbers: dict[str, Any] = {"receptors": receptors, "adaptation": adaptation, "thresholds": thresholds}
    assert compare(random_layer(rng, **numbers, recurrent=False, reset="mixed"), 4) > 20


@settings(max_examples=8, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 7),
    m=st.integers(1, 4),
    receptors=st.integers(1, 3),
    adaptation=st.integers(0, 2),
    thresholds=st.integers(0, 2),
    leak=st.booleans(),
    reset=st.sampled_from(["to", "by", "mixed"]),
    recurrent=st.booleans(),
    delays=st.sampled_from(["none", "axon", "synapse"]),
    refractory=st.sampled_from([0.0, 2.0]),
    driven=st.booleans(),
    scaled=st.booleans(),
    follows=st.booleans(),
)
def test_any_layer(seed: int, **options):
    compare(random_layer(np.random.default_rng(seed), t_end=30.0, **options), seed)


def alike(problem: Solvable) -> Solvable:
    """The same with every neuron like the first, which share their exponentials and spike at one instant."""
    layer, inputs, start, trial = problem
    same = Neurons._make(np.repeat(x[..., :1], x.shape[-1], -1) for x in layer.neurons)
    n, m = len(same.bias), len(layer.incoming.first) - 1
    synapses = [(source, 0.5, post, 0) for source in range(m) for post in range(n)]
    weights = np.repeat(np.random.default_rng(0).uniform(0.5, 2.0, m), n)
    return layer._replace(neurons=same, incoming=wiring_of(m, synapses, weights)), inputs, start, trial


def test_neurons_that_are_alike():
    layer, inputs, start, trial = alike(random_layer(np.random.default_rng(5), n=6, delays="none"))
    start = GLIFState._make(np.repeat(x[..., :1], x.shape[-1], -1) for x in start)
    own = layer.recurrent._replace(weight=np.zeros_like(layer.recurrent.weight))
    times = glif_loops.forward(layer._replace(recurrent=own), inputs, start, trial).spikes.time
    assert len(times) > 20
    assert (times.reshape(-1, 6) == times[::6, None]).all()
    compare((layer, inputs, start, trial), 6)


def test_groups_do_not_matter():
    """To rounding of sums: a group for each synapse is the same network, of arrivals one after the other."""
    layer, inputs, start, trial = random_layer(np.random.default_rng(7), delays="axon")
    apart = GLIF(layer.neurons, split(layer.incoming), split(layer.recurrent))
    a, b = glif_loops.forward(layer, inputs, start, trial), glif_loops.forward(apart, inputs, start, trial)
    assert_close(b.spikes.time, a.spikes.time, "times")
    cotangents = cotangents_of(np.random.default_rng(8), a)
    of_a = glif_loops.backward(layer, inputs, start, trial, a, cotangents, True)
    of_b = glif_loops.backward(apart, inputs, start, trial, b, cotangents, True)
    for x, y in zip((*of_b.neurons, *of_b[1:]), (*of_a.neurons, *of_a[1:]), strict=True):
        assert_close(x, y, "gradient")


def test_a_batch_is_its_samples_whatever_the_threads():
    layer, inputs, start, trial = problem = random_layer(np.random.default_rng(9), n=30, m=10, batch=6, t_end=100.0)
    layer.incoming.weight[:] *= 0.3
    layer.recurrent.weight[:] *= 0.2
    run = glif_loops.forward(*problem)
    cotangents = cotangents_of(np.random.default_rng(10), run)
    whole = glif_loops.backward(*problem, run, cotangents, True)
    with loops_alone(2):
        again = glif_loops.forward(*problem)
        two = glif_loops.backward(*problem, again, cotangents, True)
    assert all((x == y).all() for x, y in zip((*again.spikes, *again.states), (*run.spikes, *run.states), strict=True))
    assert all((x == y).all() for x, y in zip((*two.neurons, *two[1:]), (*whole.neurons, *whole[1:]), strict=True))
    for b in range(6):
        mine, own = inputs.of_sample(b), run.spikes.of_sample(b)
        alone = Events(np.array([0, len(inputs.time[mine])]), inputs.time[mine], inputs.neuron[mine])
        single = glif_loops.forward(layer, alone, GLIFState._make(x[b : b + 1] for x in start), trial)
        assert (single.spikes.time == run.spikes.time[own]).all()


def test_a_neuron_that_runs_away():
    layer, inputs, start, trial = random_layer(np.random.default_rng(11))
    problem = layer, inputs, start, trial._replace(limit=3)
    said = outcome(glif_loops.forward, problem)
    assert isinstance(said, str)
    assert "more than 3 spikes" in said
    assert said == outcome(plain.forward, problem)


@pytest.mark.parametrize("when", ["start", "release"])
def test_a_neuron_above_its_threshold(when: str):
    layer, inputs, start, trial = random_layer(np.random.default_rng(12), thresholds=1, refractory=1.0)
    if when == "start":
        start.v[1, 2] = 5.0
    else:
        layer.neurons.v_reset[0] = 4.0
    said = outcome(glif_loops.forward, (layer, inputs, start, trial))
    assert isinstance(said, str)
    assert "above its threshold" in said
    assert said == outcome(plain.forward, (layer, inputs, start, trial))


def test_a_spike_that_grazes():
    """Without bias, v̇ = 0 at v_th = 0 where the current is gone as well."""
    problem = random_layer(np.random.default_rng(13), receptors=1, adaptation=0, thresholds=0, batch=1)
    run = glif_loops.forward(*problem)
    spikes, *others = run.record
    touching = run._replace(record=(spikes._replace(speed=0.0 * spikes.speed), *others))
    cotangents = GLIFCotangents(np.ones_like(run.spikes.time), None, None, None)
    with pytest.raises(EventError, match=r"where dv/dt = 0"):
        glif_loops.backward(*problem, touching, cotangents, False)
    nothing = glif_loops.backward(*problem, touching, cotangents._replace(time=0.0 * run.spikes.time), False)
    assert not nothing.in_weight.any()


def test_nothing_to_do():
    """No inputs, no synapses, no probes, no spikes."""
    layer, _, start, trial = random_layer(np.random.default_rng(14), n=2, recurrent=False)
    layer.neurons.bias[:] = 0.0
    none = Events(np.zeros(3, np.int64), np.zeros(0), np.zeros(0, np.int64))
    compare((layer, none, start, trial._replace(probes=np.zeros(0))), 15)


def drawn(seed: int, **options: Any) -> Solvable:
    """A random layer of random options, beside those that are given."""
    rng = np.random.default_rng(seed)
    most = {"n": 8, "m": 5, "receptors": 4} | ({} if "batch" in options else {"batch": 4})
    options |= {name: int(rng.integers(1, high)) for name, high in most.items()}
    options |= {name: int(rng.integers(0, 3)) for name in ("adaptation", "thresholds")}
    options |= {name: bool(rng.integers(2)) for name in ("leak", "recurrent", "driven", "scaled", "follows")}
    options |= {"reset": str(rng.choice(["to", "by", "mixed"])), "delays": str(rng.choice(["none", "axon", "synapse"]))}
    return random_layer(rng, refractory=float(rng.choice([0.0, 2.0])), **options)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 400, 50))
def test_many_layers(first: int):
    for seed in range(first, first + 50):
        compare(drawn(seed), seed, AMONG_MANY)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 2000, 250))
def test_two_thousand_small_layers(first: int):
    """None hangs, and none has a NaN, which no comparison lets pass."""
    spikes = (compare(drawn(seed, batch=1, t_end=25.0), seed, AMONG_MANY) for seed in range(first, first + 250))
    assert sum(spikes) > 2000


@pytest.mark.slow
def test_cost_is_proportional_to_arrivals():
    """Time over arrivals of growing layers; timings on a busy machine vary by some tens of percent."""
    arrivals, seconds = [], []
    for n in (500, 1000, 2000, 4000):
        rng = np.random.default_rng(16)
        ones, none = np.ones(n), np.zeros((0, n))
        neurons = Neurons(
            ones / 20, ones / 20, 0.0 * ones, ones, 0.0 * ones, 0.0 * ones, 2.0 * ones, ones[None] / 2, *[none] * 6
        )
        wiring = random_wiring(rng, 50, n, 1, "axon", rng.uniform(-0.5, 0.5, 100 * n))
        layer = GLIF(neurons, wiring, random_wiring(rng, 0, n, 1, "axon", np.zeros(0)))
        inputs = Events(np.array([0, 5000]), np.sort(rng.uniform(0.0, 50.0, 5000)), rng.integers(0, 50, 5000))
        start = GLIFState(np.zeros((1, n)), np.zeros((1, 1, n)), np.zeros((1, 0, n)))
        problem = layer, inputs, start, Trial(0, 50.0, np.zeros(0), 1000, np.zeros((0, 1, n)), np.zeros(0))
        best = math.inf
        for _ in range(3):
            begun = time.process_time()
            run = glif_loops.forward(*problem)
            glif_loops.backward(*problem, run, GLIFCotangents(np.ones_like(run.spikes.time), None, None, None), False)
            best = min(best, time.process_time() - begun)
        arrivals.append(np.diff(wiring.edge)[inputs.neuron].sum())
        seconds.append(best)
    exponent = np.polyfit(np.log(arrivals), np.log(seconds), 1)[0]
    assert exponent < 1.15, (arrivals, seconds)
