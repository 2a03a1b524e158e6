"""The adjoint (2.5)-(2.10) of a feed-forward LIF layer whose neurons have the same arrivals.

The costates of all neurons go back from stop to stop together, by exponentials that they share, or that each has for itself
where their time constants differ; the few that spike on the way go apart, by exponentials that are computed for all spikes of a
sample at once. The result is that of `feedforward_adjoint.py`, to rounding.
"""

from math import exp
from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.each import Each, at, each_of, either, flows, put_at, shares
from adjsnn.lif.cpu.each import weights as weights_of_lanes
from adjsnn.lif.cpu.feedforward import Walk, longest_walk, stops
from adjsnn.lif.cpu.flow import add_transposed, release_shift, speed, tau_gradients, tau_weights
from adjsnn.lif.cpu.moves import Moves, fill, moves
from adjsnn.lif.layer import FINE, GRAZING
from adjsnn.numerics.compiled import EXACT, EXACT_BARE, EXACT_BARE_INLINE, EXACT_PIECE, REORDERED, compiled

BLOCK = 512  # neurons and stops together, about, whose exponentials are computed at once where each neuron has its own


class Memory(NamedTuple):
    """What a thread writes to.

    Attributes:
        time: of the stops of a sample, ms.
        ref: what happens there, as in Walk.
        spare: another walk to sort in.
        between: Moves, from stop to stop; of neurons with time constants of their own the intervals alone.
        after: Moves, from the release of each spike to what comes next, a spike or a stop.
        before: Moves, to each spike from the stop before it, where nothing comes between.
        late: (K + 1,), the last spike of which the release comes before a stop that its spike does not come before; or -1.
        next_late: (S,), the one before it.
        last: (N,), the last spike of each neuron.
        held: (N,), 1 where the neuron is at its reset.
        carried: (N,), dC/dt of the release of a neuron that is held.
        lam_v: (N,), the costate of v.
        lam_i: (N,), that of i.
        shift: (N,), dC/dt of an arrival at each neuron.
        done: the neurons that have gone back to the stop by themselves.
        ready: (2, N), their costates.
        d_w_in_t: (M, N), a row per source.
        states: (K + 1, 2, N), v and i just after time 0 and every stop; empty where nobody asks.
        each: Each, of all neurons in the intervals to some stops, one after the other; None where neurons share constants.
        rates: 1/τ_m and 1/τ_s of the first neuron, 1/ms.
    """

    time: np.ndarray
    ref: np.ndarray
    spare: Walk
    between: Moves
    after: Moves
    before: Moves
    late: np.ndarray
    next_late: np.ndarray
    last: np.ndarray
    held: np.ndarray
    carried: np.ndarray
    lam_v: np.ndarray
    lam_i: np.ndarray
    shift: np.ndarray
    done: np.ndarray
    ready: np.ndarray
    d_w_in_t: np.ndarray
    states: np.ndarray
    each: Each | None
    rates: tuple[float, float]


@compiled(**EXACT)
def backward(layer, inputs, start, trial, marks, own_first, spikes, cotangents, first, last, want_tau, into):
    """Gradients of samples first … last-1; as `feedforward_adjoint.backward`."""
    neurons, sources = layer.w_in.shape
    longest, most = longest_walk(inputs, marks, first, last), np.int64(0)
    for b in range(first, last):
        most = max(most, own_first[b + 1] - own_first[b])
    integers, each = np.int64, each_of(layer, max(1, min(longest + 1, BLOCK // neurons)))
    memory = Memory(
        np.empty(longest), np.empty(longest, integers),
        Walk(np.empty(longest), np.empty(longest, integers)),
        moves(layer, each, longest + 1), moves(layer, each, most), moves(layer, each, most),
        np.empty(longest + 1, integers), np.empty(most, integers),
        np.empty(neurons, integers), np.empty(neurons, integers), np.empty(neurons), np.empty(neurons), np.empty(neurons),
        np.empty(neurons), np.empty(neurons, integers), np.empty((2, neurons)), np.zeros((sources, neurons)),
        np.empty((longest + 1 if want_tau else 0, 2, neurons)), each, (1.0 / layer.tau_mem[0], 1.0 / layer.tau_syn[0]),
    )  # fmt: skip
    w_in_t = np.ascontiguousarray(layer.w_in.T)
    for b in range(first, last):
        count = _prepare(layer, inputs, trial, marks, own_first, spikes, memory, b)
        if want_tau:
            _replay(layer, w_in_t, inputs, start, trial, marks, own_first, spikes, memory, b, count)
        grazing = _sample(layer, w_in_t, inputs, trial, marks, own_first, spikes, cotangents, memory, b, count, into)
        if grazing >= 0:
            return (GRAZING, b, spikes.neuron[grazing]), spikes.time[grazing]
    add_transposed(memory.d_w_in_t, into.layer.w_in)
    return (FINE, 0, 0), 0.0


@compiled(**EXACT_BARE)
def _prepare(layer, inputs, trial, marks, own_first, spikes, memory, b):
    """The stops of sample b, the intervals of its neurons and all exponentials; returns the number of stops."""
    count = stops(layer.delays[0], inputs, b, trial.t_end, marks.time, memory.time, memory.ref, memory.spare)
    t, neurons, after, before = 0.0, np.uint64(len(layer.bias)), memory.after.span, memory.before.span
    for k in range(np.uint64(count + 1)):
        until = memory.time[k] if k < np.uint64(count) else trial.t_end
        memory.between.span[k], t, memory.late[k] = until - t, until, -1
    for n in range(neurons):
        memory.last[n], memory.held[n], memory.carried[n] = -1, 0, 0.0
        memory.lam_v[n], memory.lam_i[n] = 0.0, 0.0
    begin, end = own_first[b], own_first[b + 1]
    for s in range(np.uint64(begin), np.uint64(end)):
        n = np.uint64(spikes.neuron[s])
        stop, previous, own = spikes.at[s], memory.last[n], s - np.uint64(begin)
        put_at(memory.after.tau_mem, own, layer.tau_mem[n])
        put_at(memory.after.tau_syn, own, layer.tau_syn[n])
        put_at(memory.before.tau_mem, own, layer.tau_mem[n])
        put_at(memory.before.tau_syn, own, layer.tau_syn[n])
        if previous >= 0:
            _after(layer, trial, spikes, memory, count, np.uint64(previous), begin, n)
        if previous >= 0 and spikes.free[np.uint64(previous)] == stop:
            last = np.uint64(previous)
            after[last - np.uint64(begin)] = spikes.time[s] - (spikes.time[last] + layer.refractory[n])
            before[own] = -1.0
        else:
            before[own] = spikes.time[s] - (memory.time[np.uint64(stop - 1)] if stop > 0 else 0.0)
        memory.last[n] = s
    for n in range(neurons):
        if memory.last[n] >= 0:
            last = np.uint64(memory.last[n])
            _after(layer, trial, spikes, memory, count, last, begin, n)
            memory.held[n] = 1 if spikes.free[last] < 0 else 0
    if shares(memory.each):
        fill(memory.between, count + 1)
    fill(memory.after, end - begin)
    fill(memory.before, end - begin)
    forget(memory.each)
    return count


@compiled(**EXACT_BARE)
def _reach(memory, k, count):
    each, neurons = memory.each, len(memory.lam_v)
    many = len(each.span) // neurons
    block = k // many
    if each.block[0] != block:
        first = block * many
        stops = min(many, count + 1 - first)
        for j in range(stops):
            for q in range(np.uint64(j * neurons), np.uint64((j + 1) * neurons)):
                each.span[q] = memory.between.span[first + j]
        lanes = np.uint64(stops * neurons)
        flows(each, lanes)
        if len(memory.states) > 0:
            weights_of_lanes(each, lanes)
    each.block[0], each.block[1] = block, (k - block * many) * neurons


reach = either(None, _reach)
"""reach(memory, k, count): the lanes of Each become those of interval k and of some others, of so many and one."""


@compiled(**EXACT_BARE_INLINE)
def _forget(each):
    each.block[0] = -1


forget = either(None, _forget)
"""forget(each): the intervals of another sample come."""


@compiled(**EXACT_BARE_INLINE)
def _flow_of_all(between, each, k):
    return between.e_mem[k], between.e_syn[k], between.gain[k], np.uint64(0)


@compiled(**EXACT_BARE_INLINE)
def _flow_of_each(between, each, k):
    return each.e_mem, each.e_syn, each.gain, np.uint64(each.block[1])


flow_of = either(_flow_of_all, _flow_of_each)
"""flow_of(between, each, k): e_mem, e_syn and gain of interval k, to be read by `at`, from which lane on."""


@compiled(**EXACT_BARE_INLINE)
def _weights_of_all(tau_mem, tau_syn, between, each, k):
    e_mem, e_syn, conv = between.e_mem[k], between.e_syn[k], between.gain[k] * tau_mem
    return tau_weights(between.span[k], tau_mem, tau_syn, e_mem, e_syn, conv)


@compiled(**EXACT_BARE_INLINE)
def _weights_of_each(tau_mem, tau_syn, between, each, k):
    return each.leak, each.fed, each.fading, each.feeding


weights_of = either(_weights_of_all, _weights_of_each)
"""weights_of(tau_mem, tau_syn, between, each, k): the `tau_weights` likewise."""


@compiled(**EXACT_BARE_INLINE)
def _rates_of_all(rates, each):
    return rates


@compiled(**EXACT_BARE_INLINE)
def _rates_of_each(rates, each):
    return each.rates.mem, each.rate_syn


rates_of_neurons = either(_rates_of_all, _rates_of_each)
"""rates_of_neurons(rates, each): 1/τ_m and 1/τ_s, to be read by `at`."""


@compiled(**EXACT_PIECE)
def _until(trial, memory, count, k):
    return memory.time[k] if k < count else trial.t_end


@compiled(**EXACT_PIECE)
def _after(layer, trial, spikes, memory, count, s, begin, n):
    """The interval from the release of spike s to the next stop, and its place among those that are released late."""
    free, own = spikes.free[s], s - np.uint64(begin)
    if free < 0:
        memory.after.span[own] = -1.0
        return
    memory.after.span[own] = _until(trial, memory, count, free) - (spikes.time[s] + layer.refractory[n])
    if free > spikes.at[s]:
        memory.next_late[own], memory.late[free] = memory.late[free], s


@compiled(**EXACT_BARE)
def _replay(layer, w_in_t, inputs, start, trial, marks, own_first, spikes, memory, b, count):
    """v and i of all neurons after every stop, from what is known of the spikes between them. Spikes do not change i."""
    step, s, states = 0, own_first[b], memory.states
    for n in range(len(layer.bias)):
        states[0, 0, n], states[0, 1, n] = start.v[b, n], start.i[b, n]
    for k in range(count):
        reach(memory, k, count)
        e_mem, e_syn, gain, q = flow_of(memory.between, memory.each, k)
        v, i, v_next, i_next = states[k, 0], states[k, 1], states[k + 1, 0], states[k + 1, 1]
        for n in range(len(v)):
            c, lane = layer.bias[n] + _extra(trial, step, b, n), q + np.uint64(n)
            v_next[n], i_next[n] = c + (v[n] - c) * at(e_mem, lane) + i[n] * at(gain, lane), i[n] * at(e_syn, lane)
        late = memory.late[k]
        while late >= 0:
            _released(layer, trial, spikes, memory, own_first[b], late, step, b, v_next)
            late = memory.next_late[late - own_first[b]]
        while s < own_first[b + 1] and spikes.at[s] == k:
            if spikes.free[s] == k:
                _released(layer, trial, spikes, memory, own_first[b], s, step, b, v_next)
            else:
                v_next[spikes.neuron[s]] = layer.v_reset[spikes.neuron[s]]
            s += 1
        ref = memory.ref[k]
        if ref >= 0:
            for n in range(len(v)):
                i_next[n] += w_in_t[inputs.neuron[ref], n]
        elif marks.what[-1 - ref] < 0:
            step = -marks.what[-1 - ref]


@compiled(**EXACT_PIECE)
def _extra(trial, step, b, n):
    """The drive of a step."""
    return trial.drive[step, b, n] if len(trial.drive) > 0 else 0.0


@compiled(**EXACT_PIECE)
def _released(layer, trial, spikes, memory, begin, s, step, b, v_next):
    """v at what comes after the release of spike s, where that is a stop."""
    n, after = spikes.neuron[s], memory.after
    c = layer.bias[n] + _extra(trial, step, b, n)
    i = _current(layer, memory, spikes.free[s], n, spikes.time[s] + layer.refractory[n])
    v_next[n] = c + (layer.v_reset[n] - c) * after.e_mem[s - begin] + i * after.gain[s - begin]


@compiled(**EXACT_BARE_INLINE)
def _current(layer, memory, k, n, t):
    """i of neuron n at a time t before stop k, from that after the stop before; 0 where nobody asks.

    Spikes store it together with the drive, beside which one that has decayed would have lost its digits.
    """
    if len(memory.states) == 0:
        return 0.0
    return memory.states[k, 1, n] * exp(-(t - (memory.time[k - 1] if k > 0 else 0.0)) / layer.tau_syn[n])


@compiled(**EXACT_BARE)
def _sample(layer, w_in_t, inputs, trial, marks, own_first, spikes, cotangents, memory, b, count, into):
    """The costates of all neurons back through sample b, and what they add to every gradient.

    Returns:
        a spike on which the loss depends though it only touches the threshold, or -1.
    """
    lam_v, lam_i, d_bias = memory.lam_v, memory.lam_i, into.layer.bias
    s, step = own_first[b + 1] - 1, len(trial.drive) - 1
    for k in range(count, -1, -1):
        done = np.int64(0)
        while s >= own_first[b] and spikes.at[s] == k:
            grazes, done = _spike_back(layer, trial, spikes, cotangents, memory, b, own_first[b], count, s, step, done, into)
            if grazes:
                return s
            s -= 1
        late = memory.late[k]
        while late >= 0:
            done = _late_release(layer, trial, spikes, memory, b, own_first[b], k, late, step, done, into)
            late = memory.next_late[late - own_first[b]]
        reach(memory, k, count)
        e_mem, e_syn, gain, q = flow_of(memory.between, memory.each, k)
        if len(memory.states) > 0:
            leak, fed, fading, feeding = weights_of(layer.tau_mem[0], layer.tau_syn[0], memory.between, memory.each, k)
            for n in range(len(lam_v)):
                lane = q + np.uint64(n)
                weights = at(leak, lane), at(fed, lane), at(fading, lane), at(feeding, lane)
                _tau(layer, trial, memory, b, n, step, memory.states[k, 0, n], memory.states[k, 1, n], weights, into)
        if step >= 0:
            for n in range(len(lam_v)):
                into.drive[step, b, n] += lam_v[n] - lam_v[n] * at(e_mem, q + np.uint64(n))
        for n in range(len(lam_v)):
            before, lane = lam_v[n], q + np.uint64(n)
            lam_v[n], lam_i[n] = before * at(e_mem, lane), lam_i[n] * at(e_syn, lane) + before * at(gain, lane)
            d_bias[n] += before - lam_v[n]  # ∫ λ_v dt/τ_m, since λ_v decays with τ_m
        for j in range(done):
            n = memory.done[j]
            lam_v[n], lam_i[n] = memory.ready[0, j], memory.ready[1, j]
        if k > 0:
            step = _stop_back(layer, w_in_t, inputs, marks, cotangents, memory, b, k - 1, step, into)
    for n in range(len(lam_v)):
        into.v[b, n], into.i[b, n] = lam_v[n], lam_i[n]
    return -1


@compiled(**EXACT_BARE_INLINE)
def _tau(layer, trial, memory, b, n, step, v, i, weights, into):
    """What an interval that starts at (v, i) adds to the gradients of the time constants (2.8), before the costate is moved."""
    c = layer.bias[n] + _extra(trial, step, b, n)
    d_mem, d_syn = tau_gradients(v, i, memory.lam_v[n], memory.lam_i[n], c, weights)
    into.layer.tau_mem[n] += d_mem
    into.layer.tau_syn[n] += d_syn


@compiled(**EXACT_BARE_INLINE)
def _move(layer, trial, memory, moves, place, b, n, step, v, i, into):
    """The costate of neuron n alone back over an interval that starts at (v, i)."""
    if len(memory.states) > 0:
        tau_mem, conv = layer.tau_mem[n], moves.gain[place] * layer.tau_mem[n]
        weights = tau_weights(moves.span[place], tau_mem, layer.tau_syn[n], moves.e_mem[place], moves.e_syn[place], conv)
        _tau(layer, trial, memory, b, n, step, v, i, weights, into)
    before = memory.lam_v[n]
    memory.lam_v[n] = before * moves.e_mem[place]
    memory.lam_i[n] = memory.lam_i[n] * moves.e_syn[place] + before * moves.gain[place]
    into.layer.bias[n] += before - memory.lam_v[n]
    if step >= 0:
        into.drive[step, b, n] += before - memory.lam_v[n]


@compiled(**EXACT_BARE_INLINE)
def _hold(layer, memory, n, span, i, into):
    """The costate of neuron n back over a time at its reset that starts with the current i: λ_v is 0, and λ_i decays."""
    tau_syn = layer.tau_syn[n]
    e_syn = exp(-span / tau_syn)
    into.layer.tau_syn[n] += i * memory.lam_i[n] * span * e_syn / (tau_syn * tau_syn)
    memory.lam_i[n] *= e_syn


@compiled(**EXACT_BARE_INLINE)
def _wait(memory, n, done):
    """Neuron n has come to the stop, and waits for the others, whose move changes nothing of a costate of 0."""
    memory.done[done], memory.ready[0, done], memory.ready[1, done] = n, memory.lam_v[n], memory.lam_i[n]
    memory.lam_v[n], memory.lam_i[n] = 0.0, 0.0
    return done + 1


@compiled(**EXACT_BARE_INLINE)
def _release_back(layer, trial, spikes, memory, b, begin, s, step, into):
    """Back over the release of spike s: v starts from the reset, so λ_v ends here; returns dC/dt of the release.

    Its instant is that of the spike moved by a constant.
    """
    n = np.uint64(spikes.neuron[s])
    i = _current(layer, memory, spikes.free[s], n, spikes.time[s] + layer.refractory[n])
    _move(layer, trial, memory, memory.after, s - begin, b, n, step, layer.v_reset[n], i, into)
    carried = release_shift(memory.lam_v[n], spikes.released[s], layer.bias[n], layer.v_reset[n], layer.tau_mem[n])
    into.layer.v_reset[n] += memory.lam_v[n]
    into.layer.refractory[n] += carried
    memory.lam_v[n] = 0.0
    return carried


@compiled(**EXACT_PIECE)
def _spike_back(layer, trial, spikes, cotangents, memory, b, begin, count, s, step, done, into):
    """Back over spike s (2.7), its release if that comes before the same stop, and to the stop before if nothing comes between.

    Returns:
        whether it only touches the threshold though the loss depends on it; and how many neurons have come to the stop.
    """
    n, time, k = np.uint64(spikes.neuron[s]), spikes.time[s], spikes.at[s]
    if spikes.free[s] == k:
        carried, held = _release_back(layer, trial, spikes, memory, b, begin, s, step, into), layer.refractory[n]
    else:
        carried, held = memory.carried[n], _until(trial, memory, count, k) - time
        memory.held[n] = 0
    if held > 0.0:
        _hold(layer, memory, n, held, _current(layer, memory, k, n, time), into)
    error = cotangents.time[s] + carried
    if error != 0.0:
        slope = speed(spikes.current[s], layer.bias[n], layer.v_th[n], layer.tau_mem[n])
        if not slope > 0.0:
            return True, done
        moved = error / slope
        into.layer.v_th[n] += moved
        memory.lam_v[n] = -moved
    if memory.before.span[s - begin] >= 0.0:
        v, i = (memory.states[k, 0, n], memory.states[k, 1, n]) if len(memory.states) > 0 else (0.0, 0.0)
        _move(layer, trial, memory, memory.before, s - begin, b, n, step, v, i, into)
        done = _wait(memory, n, done)
    return False, done


@compiled(**EXACT_PIECE)
def _late_release(layer, trial, spikes, memory, b, begin, k, s, step, done, into):
    """Back over the release of spike s and to the stop before it, where the neuron is still held."""
    n = np.uint64(spikes.neuron[s])
    memory.carried[n], memory.held[n] = _release_back(layer, trial, spikes, memory, b, begin, s, step, into), 1
    held = spikes.time[s] + layer.refractory[n] - memory.time[k - 1]
    _hold(layer, memory, n, held, memory.states[k, 1, n] if len(memory.states) > 0 else 0.0, into)
    return _wait(memory, n, done)


@compiled(**EXACT_BARE)
def _stop_back(layer, w_in_t, inputs, marks, cotangents, memory, b, k, step, into):
    """Back over stop k: an arrival (2.6), the beginning of a step of the drive, or a probe that the loss reads.

    Returns:
        the step of the drive before it.
    """
    ref, lam_v, lam_i, shift = memory.ref[k], memory.lam_v, memory.lam_i, memory.shift
    if ref >= 0:
        source, (rate_mem, rate_syn) = inputs.neuron[ref], rates_of_neurons(memory.rates, memory.each)
        weights, d_weights = w_in_t[source], memory.d_w_in_t[source]
        for n in range(len(lam_v)):
            shift[n] = weights[n] * (lam_i[n] * at(rate_syn, n) - lam_v[n] * at(rate_mem, n))
            d_weights[n] += lam_i[n]
        total = _sum(shift)
        into.layer.delays[0, source] += total
        into.time[ref] += total
        return step
    if marks.what[-1 - ref] < 0:
        return step - 1
    probe = marks.what[-1 - ref]
    for n in range(len(lam_v)):
        lam_i[n] += cotangents.i[probe, b, n]
        if memory.held[n]:  # v is v_reset there
            into.layer.v_reset[n] += cotangents.v[probe, b, n]
        else:
            lam_v[n] += cotangents.v[probe, b, n]
    return step


@compiled(**REORDERED)
def _sum(x):
    total = 0.0
    for n in range(len(x)):
        total += x[n]
    return total
