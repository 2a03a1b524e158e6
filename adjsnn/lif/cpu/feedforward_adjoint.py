"""The adjoint (2.5)-(2.10) of a feed-forward LIF layer in one fused loop, each neuron back through its stops and spikes."""

from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.feedforward import Walk, walk_memory, walk_of
from adjsnn.lif.cpu.flow import (
    arrival_shift,
    costate_back,
    decay,
    moved,
    release_shift,
    speed,
    tau_gradients,
    tau_weights,
)
from adjsnn.lif.layer import FINE, GRAZING
from adjsnn.numerics.compiled import EXACT, EXACT_BARE, EXACT_PIECE, compiled


class Memory(NamedTuple):
    """What a thread writes to.

    Attributes:
        walk: Walk, the longest of the samples.
        spare: another to sort in.
        states: (moves, 2), v and i at the start of every move of a neuron; empty where nobody asks.
        group: (N+1,), where each neuron's spikes begin in `grouped`.
        place: (N,), where the next one goes.
        grouped: spikes of a sample, by neuron.
    """

    walk: Walk
    spare: Walk
    states: np.ndarray
    group: np.ndarray
    place: np.ndarray
    grouped: np.ndarray


@compiled(**EXACT)
def backward(layer, inputs, start, trial, marks, own_first, spikes, cotangents, first, last, want_tau, into):
    """Gradients of samples first … last-1.

    Args:
        layer: Layer.
        inputs: Events.
        start: State (B, N) at time 0.
        trial: Trial.
        marks: Marks.
        own_first: (B+1,), where each sample's spikes begin.
        spikes: Spikes, of the whole batch.
        cotangents: LayerCotangents, none of them None.
        first: of the samples.
        last: one past the last of them.
        want_tau: whether the gradients of τ_m and τ_s are asked for; they need the states of the forward run again.
        into: LayerGradients, added to, or written where each number belongs to one sample.

    Returns:
        the outcome: what went wrong, in which sample and neuron; and when.
    """
    neurons = len(layer.bias)
    walk, spare = walk_memory(inputs, marks, first, last)
    most = 0
    for b in range(first, last):
        most = max(most, own_first[b + 1] - own_first[b])
    states = np.empty((len(walk.time) + 2 * most + 1 if want_tau else 0, 2))
    integers = np.empty(neurons + 1, np.int64), np.empty(neurons, np.int64), np.empty(most, np.int64)
    memory = Memory(walk, spare, states, integers[0], integers[1], integers[2])
    for b in range(first, last):
        n, grazes = _sample(layer, inputs, start, trial, marks, own_first, spikes, cotangents, memory, b, into)
        if grazes >= 0.0:
            return (GRAZING, b, n), grazes
    return (FINE, 0, 0), 0.0


@compiled(**EXACT_BARE)
def _sample(layer, inputs, start, trial, marks, own_first, spikes, cotangents, memory, b, into):
    """Gradients of sample b, neuron after neuron.

    Returns:
        a neuron, and the time of a spike of it on which the loss depends though it only touches the threshold; or -1.
    """
    neurons, shared = len(layer.bias), len(layer.delays) == 1
    group, grouped, walk, want_tau = memory.group, memory.grouped, memory.walk, len(memory.states) > 0
    _by_neuron(spikes.neuron, own_first[b], own_first[b + 1], group, memory.place, grouped)
    for n in range(neurons):
        if n == 0 or not shared:
            delays = layer.delays[0 if shared else n]
            walk = walk_of(delays, inputs, b, trial.t_end, marks, memory.walk, memory.spare)
        own, moves = grouped[group[n] : group[n + 1]], 0
        if want_tau:
            moves = _replay(layer, inputs, start, trial, marks, walk, spikes, own, b, n, memory.states)
        grazes = _sweep(layer, inputs, trial, marks, walk, spikes, own, memory.states[:moves], cotangents, b, n, into)
        if grazes >= 0.0:
            return n, grazes
    return 0, -1.0


@compiled(**EXACT_PIECE)
def _by_neuron(neuron, start, stop, group, place, grouped):
    """Spikes start … stop-1 of a sample grouped by neuron, in their order; those of n at group[n] … group[n+1]-1."""
    group[:] = 0
    for s in range(start, stop):
        group[neuron[s] + 1] += 1
    for n in range(len(place)):
        group[n + 1] += group[n]
        place[n] = group[n]
    for s in range(start, stop):
        grouped[place[neuron[s]]] = s
        place[neuron[s]] += 1


@compiled(**EXACT_BARE)
def _replay(layer, inputs, start, trial, marks, walk, spikes, own, b, n, states):
    """(v, i) at the start of every move of neuron n in sample b, in order; returns their number.

    A move ends at a stop, a spike, a release or t_end.
    """
    drive, time, at, free, what = trial.drive, spikes.time, spikes.at, spikes.free, marks.what
    moves, s, t, held = 0, 0, 0.0, False
    v, i, tau_mem, tau_syn, refractory = start.v[b, n], start.i[b, n], layer.tau_mem[n], layer.tau_syn[n], layer.refractory[n]
    c = layer.bias[n] + drive[0, b, n] if len(drive) > 0 else layer.bias[n]
    for k in range(len(walk.time) + 1):
        to = walk.time[k] if k < len(walk.time) else trial.t_end
        while True:
            fires = (not held) and s < len(own) and at[own[s]] == k
            frees = held and free[own[s - 1]] == k
            until = time[own[s]] if fires else (time[own[s - 1]] + refractory if frees else to)
            states[moves, 0], states[moves, 1] = v, i
            moves += 1
            e_mem, e_syn, conv = decay(until - t, tau_mem, tau_syn)
            v_after, i = moved(v, i, c, tau_mem, e_mem, e_syn, conv)
            v, t = (v if held else v_after), until
            if fires:
                v, held = layer.v_reset[n], True
                s += 1
            elif frees:
                held = False
            else:
                break
        if k < len(walk.time) and walk.ref[k] >= 0:
            i += layer.w_in[n, inputs.neuron[walk.ref[k]]]
        elif k < len(walk.time) and what[-1 - walk.ref[k]] < 0:
            c = layer.bias[n] + drive[-what[-1 - walk.ref[k]], b, n]
    return moves


@compiled(**EXACT_PIECE)
def _sweep(layer, inputs, trial, marks, walk, spikes, own, states, cotangents, b, n, into):
    """The costate of neuron n back through sample b, and what it adds to every gradient.

    Args:
        own: the neuron's spikes.
        states: (moves, 2), what `_replay` found, or empty.

    Returns:
        the time of a spike on which the loss depends though it only touches the threshold, or -1.
    """
    tm, ts, c, refractory = layer.tau_mem[n], layer.tau_syn[n], layer.bias[n], layer.refractory[n]
    time, at, free, drive, d_drive, d = spikes.time, spikes.at, spikes.free, trial.drive, into.drive, into.layer
    d_bias, d_tau_mem, d_tau_syn = d.bias, d.tau_mem, d.tau_syn
    move, step = len(states), len(drive) - 1
    now = c + drive[step, b, n] if step >= 0 else c  # with the drive of the step
    lam_v, lam_i, t, s, carried = 0.0, 0.0, trial.t_end, len(own) - 1, 0.0
    held = s >= 0 and free[own[s]] < 0
    for k in range(len(walk.time), -1, -1):
        to = walk.time[k - 1] if k > 0 else 0.0
        while True:
            frees = (not held) and s >= 0 and free[own[s]] == k
            fires = held and at[own[s]] == k
            until = time[own[s]] if fires else (time[own[s]] + refractory if frees else to)
            e_mem, e_syn, conv = decay(t - until, tm, ts)
            if len(states) > 0:
                move -= 1
                v, i = states[move, 0], states[move, 1]
                d_mem, d_syn = tau_gradients(v, i, lam_v, lam_i, now, tau_weights(t - until, tm, ts, e_mem, e_syn, conv))
                d_tau_mem[n] += d_mem
                d_tau_syn[n] += d_syn
            before = lam_v
            lam_v, lam_i = costate_back(lam_v, lam_i, tm, e_mem, e_syn, conv)
            t = until
            d_bias[n] += before - lam_v  # ∫ λ_v dt/τ_m, since λ_v decays with τ_m
            if step >= 0:
                d_drive[step, b, n] += before - lam_v
            if frees:  # v starts from the reset: λ_v ends here, and the instant is that of the spike moved by a constant
                carried = release_shift(lam_v, spikes.released[own[s]], c, layer.v_reset[n], tm)
                d.v_reset[n] += lam_v
                d.refractory[n] += carried
                lam_v, held = 0.0, True
            elif fires:
                lam_v, grazes = _spike_back(layer, spikes, own[s], n, cotangents.time[own[s]] + carried, d.v_th)
                if grazes:
                    return t
                held, carried = False, 0.0
                s -= 1
            else:
                break
        if k == 0:
            break
        costate = (lam_v, lam_i)
        lam_v, lam_i, step = _stop_back(layer, inputs, marks, cotangents, into, walk.ref[k - 1], b, n, costate, held, step)
        if step >= 0:
            now = c + drive[step, b, n]
    into.v[b, n], into.i[b, n] = lam_v, lam_i
    return -1.0


@compiled(**EXACT_PIECE)
def _spike_back(layer, spikes, spike, n, error, d_v_th):
    """λ_v before a spike of neuron n whose time has the cotangent `error` (2.7); and whether it only touches the threshold."""
    slope = speed(spikes.current[spike], layer.bias[n], layer.v_th[n], layer.tau_mem[n])
    if error == 0.0:
        return 0.0, False
    if not slope > 0.0:
        return 0.0, True
    d_v_th[n] += error / slope
    return -error / slope, False


@compiled(**EXACT_PIECE)
def _stop_back(layer, inputs, marks, cotangents, into, ref, b, n, costate, held, step):
    """Back over a stop of neuron n: an arrival (2.6), the beginning of a step of the drive, or a probe that the loss reads.

    Args:
        ref: which stop, as in Walk.
        costate: (λ_v, λ_i) just after it.
        held: whether the neuron is at its reset.
        step: of the drive, just after it.

    Returns:
        λ_v, λ_i and the step of the drive just before it.
    """
    lam_v, lam_i = costate
    if ref >= 0:
        source, row = inputs.neuron[ref], (0 if len(layer.delays) == 1 else n)
        shift = arrival_shift(layer.w_in[n, source], lam_v, lam_i, layer.tau_mem[n], layer.tau_syn[n])
        into.layer.w_in[n, source] += lam_i
        into.layer.delays[row, source] += shift
        into.time[ref] += shift
    elif marks.what[-1 - ref] < 0:
        step -= 1
    else:
        probe = marks.what[-1 - ref]
        lam_i += cotangents.i[probe, b, n]
        if held:  # v is v_reset there
            into.layer.v_reset[n] += cotangents.v[probe, b, n]
        else:
            lam_v += cotangents.v[probe, b, n]
    return lam_v, lam_i, step
