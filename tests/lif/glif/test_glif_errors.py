"""What a layer of generalised LIF neurons refuses, by neuron, sample and time, and the order of what happens at one instant."""

import numpy as np
import pytest
from layers import wiring_of

import adjsnn
from adjsnn.lif.cpu import glif_loops
from adjsnn.lif.glif.arrays import GLIF, GLIFCotangents, GLIFState, Neurons
from adjsnn.lif.glif.plain import forward
from adjsnn.lif.glif.plain_adjoint import backward
from adjsnn.lif.layer import Events, Trial

NO_SPIKES = Events(np.array([0, 0]), np.zeros(0), np.zeros(0, int))


def ones(**other: float) -> Neurons:
    """Two neurons without leak that climb by 0.25 a ms from 0 to 1, with one own current and one part of the threshold."""
    values = dict.fromkeys(Neurons._fields, 0.0) | {"gain": 1.0, "bias": 0.25, "v_th": 1.0, "rate": 0.5, "th_rate": 0.25}
    values |= {"scale": 1.0, "th_scale": 1.0} | other
    rows = {
        "rate": (2, 2),
        "jump": (1, 2),
        "scale": (1, 2),
        "th_rate": (1, 2),
        "th_jump": (1, 2),
        "th_scale": (1, 2),
        "follow": (0, 2),
    }
    return Neurons(**{name: np.full(rows.get(name, (2,)), x) for name, x in values.items()})


def rest(v: float = 0.0) -> GLIFState:
    return GLIFState(np.full((1, 2), v), np.zeros((1, 2, 2)), np.zeros((1, 1, 2)))


def layer_of(neurons: Neurons, synapses=(), weights=(), recurrent=(), rec_weights=()) -> GLIF:
    return GLIF(
        neurons,
        wiring_of(1, list(synapses), np.array(weights, float)),
        wiring_of(2 if recurrent else 0, list(recurrent), np.array(rec_weights, float)),
    )


def trial(t_end: float = 20.0, limit: int = 100, probes=()) -> Trial:
    return Trial(1, t_end, np.array(probes, float), limit, np.zeros((0, 1, 2)), np.zeros(0))


def test_above_the_threshold_after_a_reset():
    """A part of the threshold that jumps down at a spike, under where "by" leaves v; or that decays while v is held."""
    down = ones(th_jump=-1.5, reset_factor=1.0)
    with pytest.raises(
        adjsnn.EventError, match=r"neuron 0 of layer 1 in sample 0 is above its threshold after its reset at 4 ms"
    ):
        forward(layer_of(down), NO_SPIKES, rest(), trial())
    late = ones(th_jump=2.0, v_reset=1.5, refractory=8.0)
    apart = late._replace(th_rate=np.array([[0.25, 0.26]]))  # neurons of two kinds have another compiled loop
    for body in (forward, glif_loops.forward):
        for t_end in (20.0, 12.0):  # at the very end as well
            for neurons in (late, apart):
                with pytest.raises(adjsnn.EventError, match="at 12 ms"):
                    body(layer_of(neurons), NO_SPIKES, rest(), trial(t_end))
        assert len(body(layer_of(late), NO_SPIKES, rest(), trial(11.99)).spikes.time) == 2
    forward(layer_of(late._replace(refractory=np.full(2, 1.0))), NO_SPIKES, rest(), trial(6.0))


def test_above_the_threshold_at_the_start():
    with pytest.raises(adjsnn.EventError, match="at 0 ms"):
        forward(layer_of(ones()), NO_SPIKES, rest(1.1), trial())


def test_a_neuron_that_is_not_reset_may_fall_from_its_threshold():
    """ρ = 1 and v_reset = v_th leave v where it is; its own current takes it down, and it comes back, late in a trial too."""
    neurons = ones(reset_factor=1.0, v_reset=1.0, jump=-2.0)
    run = forward(layer_of(neurons), NO_SPIKES, rest(), trial(2000.0, limit=10**4))
    # Of -2 the integral is -4 and v climbs by 0.25 a ms: 16 ms and a bit between spikes.
    between = np.diff(run.spikes.time[run.spikes.neuron == 0])
    assert len(between) > 100
    np.testing.assert_allclose(between[5:], between[-1], rtol=1e-9)


def test_runaway():
    with pytest.raises(adjsnn.EventError, match="more than 5 spikes of neuron 0 of layer 1"):
        forward(layer_of(ones(v_reset=0.9)), NO_SPIKES, rest(), trial(limit=5))
    with pytest.raises(adjsnn.EventError, match="more than 100 spikes"):  # that are not reset at all
        forward(layer_of(ones(v_reset=1.0)), NO_SPIKES, rest(), trial())


def test_a_touched_threshold_has_no_gradient():
    run = forward(layer_of(ones()), NO_SPIKES, rest(), trial(5.0))
    assert run.spikes.time.tolist() == [4.0, 4.0]
    flat = layer_of(ones(bias=0.0))  # v̇ = 0 at the same spikes
    cotangents = GLIFCotangents(np.array([0.0, 1.0]), None, None, None)
    with pytest.raises(adjsnn.EventError, match="spike of neuron 1 of layer 1 in sample 0 at 4 ms"):
        backward(flat, NO_SPIKES, rest(), trial(5.0), run, cotangents, False)
    backward(flat, NO_SPIKES, rest(), trial(5.0), run, GLIFCotangents(np.zeros(2), None, None, None), False)


def test_order_at_one_instant():
    """A spike does not hear what arrives with it; without delay a neuron hears itself after its reset; a probe sees all."""
    neurons = ones(jump=-0.5, th_jump=0.25, bias=0.25)
    inputs = Events(np.array([0, 1]), np.array([4.0]), np.array([0]))
    layer = layer_of(neurons, [(0, 0.0, 0, 0)], [-9.0], [(0, 0.0, 0, 0), (0, 0.0, 1, 0), (1, 1.0, 1, 0)], [3.0, -1.0, 5.0])
    run = forward(layer, inputs, rest(), trial(4.5, probes=[4.0]))
    assert run.spikes.time.tolist() == [4.0, 4.0]
    assert run.spikes.neuron.tolist() == [0, 1]
    np.testing.assert_array_equal(run.speed, [0.25, 0.25])
    np.testing.assert_array_equal(run.states.v, [[[0.0, 0.0]]])
    np.testing.assert_array_equal(run.states.c, [[[[-6.0, -1.0], [-0.5, -0.5]]]])
    np.testing.assert_array_equal(run.states.h, [[[[0.25, 0.25]]]])


def test_sources_without_synapses_do_nothing():
    inputs = Events(np.array([0, 2]), np.array([1.0, 2.0]), np.array([0, 0]))
    run = forward(layer_of(ones()), inputs, rest(), trial(5.0))
    g = backward(layer_of(ones()), inputs, rest(), trial(5.0), run, GLIFCotangents(np.ones(2), None, None, None), True)
    assert run.spikes.time.tolist() == [4.0, 4.0]
    np.testing.assert_array_equal(g.time, [0.0, 0.0])
    np.testing.assert_allclose(g.neurons.v_th, [4.0, 4.0])  # t = v_th/b
    np.testing.assert_allclose(g.neurons.bias, [-16.0, -16.0])
