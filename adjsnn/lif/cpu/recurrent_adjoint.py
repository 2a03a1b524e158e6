"""The adjoint (2.5)-(2.10) of a recurrent LIF layer in one fused loop, back through the log of its forward run."""

from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.cells import advance, advance_all, begin, flow_of, kind_of, memory_of, schedule, set_bias
from adjsnn.lif.cpu.each import at, either, shares, shift_sum, weights_over
from adjsnn.lif.cpu.elementary import decay_soon, rates_at
from adjsnn.lif.cpu.flow import (
    add_transposed,
    arrival_shift,
    copy,
    release_shift,
    speed,
    tau_gradients,
    tau_weights,
)
from adjsnn.lif.cpu.recurrent import Log, Spikes
from adjsnn.lif.layer import ALL, ARRIVAL, DRIVE, FINE, GRAZING, PROBE, RECURRENT, RELEASE, SPIKE
from adjsnn.numerics.compiled import EXACT, EXACT_BARE_INLINE, EXACT_PIECE, EXACT_WITHIN, REORDERED, compiled

START = -1  # an event that is none


class History(NamedTuple):
    """What the forward run of a batch left behind.

    Attributes:
        first: (B+1,), where each sample's spikes begin.
        spikes: Spikes.
        log_first: (B+1,), where each sample's entries begin.
        log: Log.
    """

    first: np.ndarray
    spikes: Spikes
    log_first: np.ndarray
    log: Log


class Costates(NamedTuple):
    """The costate of a sample's neurons on its way back, each (N,).

    Attributes:
        lam_v: λ_v.
        lam_i: λ_i.
        at: for neurons that are ahead, further back than the others, the time that both are of, ms.
        held: whether the neuron is at its reset.
        bias: b and the present step of the drive together, (2.16).
        ahead: those neurons, in any order.
        place: where in `ahead` a neuron stands, or -1.
        saved: λ_v and λ_i of those that are ahead, (2, N), while the others move.
        size: (1,), how many are ahead.
        now: (1,), the time of the others, ms.
    """

    lam_v: np.ndarray
    lam_i: np.ndarray
    at: np.ndarray
    held: np.ndarray
    bias: np.ndarray
    ahead: np.ndarray
    place: np.ndarray
    saved: np.ndarray
    size: np.ndarray
    now: np.ndarray


class Sums(NamedTuple):
    """Gradients of weights as they are gathered, a row per source.

    Attributes:
        w_in_t: (M, N).
        w_rec_t: (N, N).
    """

    w_in_t: np.ndarray
    w_rec_t: np.ndarray


@compiled(**EXACT)
def backward(layer, inputs, start, trial, history, cotangents, first, last, want_tau, into):
    """Gradients of samples first … last-1; arguments as in `feedforward_adjoint.backward`.

    Args:
        history: History, in place of its own_first and spikes.
    """
    neurons, kind = len(layer.bias), kind_of(layer)
    sums = Sums(np.zeros_like(kind.w_in_t), np.zeros_like(kind.w_rec_t))
    costates, cells = _costates_of(neurons), memory_of(neurons)
    states, spikes, log = np.empty((2, 0)), history.spikes, history.log
    for b in range(first, last):
        first_spike, log_begin, log_end = history.first[b], history.log_first[b], history.log_first[b + 1]
        rows = neurons
        for e in range(log_begin, log_end):
            rows += neurons if log.target[e] == ALL else 1
        if want_tau:
            if rows > states.shape[1]:
                states = np.empty((2, 2 * rows))
            _replay(layer, kind, inputs, start, trial.drive, history, b, cells, states)
        error = cotangents.time[first_spike : history.first[b + 1]].copy()
        _begin(layer, costates, trial, history, b)
        step = len(trial.edges)
        for e in range(log_end - 1, log_begin - 2, -1):
            what, ref, n, until = START, np.int64(0), ALL, 0.0  # where nothing is left; a call alone would be compiled twice
            if e >= log_begin:
                what, ref, n, until = np.int64(log.kind[e]), np.int64(log.ref[e]), np.int64(log.target[e]), log.time[e]
            rows -= neurons if n == ALL else 1
            if n == ALL:
                _all_back(layer, kind, costates, until, states, rows, into, step, b)
            else:
                _back(layer, kind, costates, n, until, states, rows, into, step, b)
            if what == ARRIVAL:
                source = inputs.neuron[ref]
                into.time[ref] += _arrival(layer, kind, costates, n, source, kind.w_in_t, sums.w_in_t, into.layer.delays)
            elif what == RECURRENT:
                source = spikes.neuron[first_spike + ref]
                error[ref] += _arrival(layer, kind, costates, n, source, kind.w_rec_t, sums.w_rec_t, into.layer.rec_delays)
            elif what == RELEASE:
                error[ref] += _release(layer, costates, spikes.released[first_spike + ref], n, into.layer)
            elif what == SPIKE:
                slope = speed(spikes.current[first_spike + ref], layer.bias[n], layer.v_th[n], layer.tau_mem[n])
                if error[ref] != 0.0 and not slope > 0.0:
                    return (GRAZING, b, n), until
                _spike(costates, error[ref], slope, n, into.layer)
            elif what == DRIVE:
                step -= 1
                set_bias(layer.bias, trial.drive, step, b, costates.bias)
            elif what == PROBE:
                _read(costates, cotangents.v[ref, b], cotangents.i[ref, b], into.layer)
        copy(costates.lam_v, into.v[b])
        copy(costates.lam_i, into.i[b])
    add_transposed(sums.w_in_t, into.layer.w_in)
    add_transposed(sums.w_rec_t, into.layer.w_rec)
    return (FINE, 0, 0), 0.0


@compiled(**EXACT_PIECE)
def _begin(layer, costates, trial, history, b):
    """The costate of sample b at t_end: zero; neurons that are not released by then are held."""
    set_bias(layer.bias, trial.drive, len(trial.edges), b, costates.bias)
    costates.lam_v[:], costates.lam_i[:], costates.held[:], costates.place[:] = 0.0, 0.0, False, -1
    costates.size[0], costates.now[0] = 0, trial.t_end
    for s in range(history.first[b], history.first[b + 1]):
        costates.held[history.spikes.neuron[s]] = np.isnan(history.spikes.released[s])


@compiled(**EXACT_PIECE)
def _costates_of(n):
    """Memory for n neurons."""
    return Costates(
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(n, np.bool_),
        np.empty(n),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty((2, n)),
        np.empty(1, np.int64),
        np.empty(1),
    )


@compiled(**EXACT_WITHIN)
def _replay(layer, kind, inputs, start, drive, history, b, cells, states):
    """v and i of the targets of each log entry of sample b just after it, in the order of the log, after those at the start.

    Args:
        states: memory for both, (2, rows).
    """
    neurons, log, fired = len(layer.bias), history.log, history.spikes.neuron[history.first[b] :]
    v, i, row = cells.v, cells.i, len(layer.bias)
    begin(cells, start.v[b], start.i[b])
    copy(v, states[0])
    copy(i, states[1])
    set_bias(layer.bias, drive, np.int64(0), b, cells.bias)
    for e in range(history.log_first[b], history.log_first[b + 1]):
        what, ref, n = log.kind[e], log.ref[e], log.target[e]
        low, high = (0, neurons) if n == ALL else (n, n + 1)
        if n == ALL:
            advance_all(layer, kind, cells, log.time[e])
        else:
            advance(layer, kind, cells, n, log.time[e])
        if what == ARRIVAL:
            weights = kind.w_in_t[inputs.neuron[ref]]
            for m in range(low, high):
                i[m] += weights[m]
        elif what == RECURRENT:
            weights = kind.w_rec_t[fired[ref]]
            for m in range(low, high):
                i[m] += weights[m]
        elif what == SPIKE:
            v[n], cells.held[n] = layer.v_reset[n], 1
            schedule(cells, n, 0.0)  # one of those that are looked at
        elif what == RELEASE:
            cells.held[n] = 0
        elif what == DRIVE:
            set_bias(layer.bias, drive, ref, b, cells.bias)
        copy(v[low:high], states[0, row:])
        copy(i[low:high], states[1, row:])
        row += high - low


@compiled(**EXACT_BARE_INLINE)
def _back(layer, kind, costates, n, t, states, row, into, step, b):
    """The costate of neuron n alone back to time t, where its state was that of `row`, if there are any."""
    span = (costates.at[n] if costates.place[n] >= 0 else costates.now[0]) - t
    if span == 0.0:
        return
    tau_mem, tau_syn, lam_v, lam_i = layer.tau_mem[n], layer.tau_syn[n], costates.lam_v[n], costates.lam_i[n]
    e_mem, e_syn, gain = decay_soon(span, rates_at(kind.rates, n))
    if states.shape[1] > 0:
        conv = gain * tau_mem
        weights = tau_weights(span, tau_mem, tau_syn, e_mem, e_syn, conv)
        d_mem, d_syn = tau_gradients(states[0, row], states[1, row], lam_v, lam_i, costates.bias[n], weights)
        into.layer.tau_mem[n] += d_mem
        into.layer.tau_syn[n] += d_syn
    costates.lam_v[n], costates.lam_i[n] = lam_v * e_mem, lam_i * e_syn + lam_v * gain
    into.layer.bias[n] += lam_v - costates.lam_v[n]  # ∫ λ_v dt/τ_m, since λ_v decays with τ_m
    if len(into.drive) > 0:
        into.drive[step, b, n] += lam_v - costates.lam_v[n]
    costates.at[n] = t
    if costates.place[n] < 0:
        costates.place[n], costates.ahead[costates.size[0]] = costates.size[0], n
        costates.size[0] += 1


@compiled(**EXACT_BARE_INLINE)
def _weights_of_group(tau_mem, tau_syn, each, t, flow):
    e_mem, e_syn, gain = flow
    return tau_weights(t, tau_mem, tau_syn, e_mem, e_syn, gain * tau_mem)


@compiled(**EXACT_BARE_INLINE)
def _weights_of_all(tau_mem, tau_syn, each, t, flow):
    return weights_over(each, t)


weights_of = either(_weights_of_group, _weights_of_all)
"""weights_of(tau_mem, tau_syn, each, t, flow): `tau_weights` from the flow over t, likewise to be read by `at`."""


@compiled(**EXACT_BARE_INLINE)
def _all_back(layer, kind, costates, t, states, row, into, step, b):
    """The costates of all neurons back to time t, where their states were those from `row` on."""
    span, ahead = costates.now[0] - t, costates.size[0]
    if span == 0.0 and ahead == 0:
        return
    lam_v, lam_i, d_bias = costates.lam_v, costates.lam_i, into.layer.bias
    d_mem, d_syn = into.layer.tau_mem, into.layer.tau_syn
    for k in range(ahead):  # what is ahead goes alone, and the loop over all finds nothing there
        n = costates.ahead[k]
        _back(layer, kind, costates, n, t, states, row + n, into, step, b)
        costates.saved[0, k], costates.saved[1, k] = lam_v[n], lam_i[n]
        lam_v[n], lam_i[n] = 0.0, 0.0
    for g in range(len(kind.groups) - 1):
        first, last = kind.groups[g], kind.groups[g + 1]
        flow = flow_of(rates_at(kind.rates, first), kind.each, span)
        e_mem, e_syn, gain = flow
        if states.shape[1] > 0:
            tau_mem, tau_syn = layer.tau_mem[first], layer.tau_syn[first]
            leak, fed, fading, feeding = weights_of(tau_mem, tau_syn, kind.each, span, flow)
            v, i, bias = states[0, row:], states[1, row:], costates.bias
            for n in range(first, last):
                weights = at(leak, n), at(fed, n), at(fading, n), at(feeding, n)
                for_mem, for_syn = tau_gradients(v[n], i[n], lam_v[n], lam_i[n], bias[n], weights)
                d_mem[n] += for_mem
                d_syn[n] += for_syn
        if len(into.drive) > 0:
            d_drive = into.drive[step, b]
            for n in range(first, last):
                d_drive[n] += lam_v[n] - lam_v[n] * at(e_mem, n)
        for n in range(first, last):
            before = lam_v[n]
            after = before * at(e_mem, n)
            lam_v[n], lam_i[n] = after, lam_i[n] * at(e_syn, n) + before * at(gain, n)
            d_bias[n] += before - after  # ∫ λ_v dt/τ_m, since λ_v decays with τ_m
    for k in range(ahead):
        n = costates.ahead[k]
        lam_v[n], lam_i[n], costates.place[n] = costates.saved[0, k], costates.saved[1, k], -1
    costates.size[0], costates.now[0] = 0, t


@compiled(**REORDERED)
def _products(w, x, y, first, last):
    """Σ w x and Σ w y from `first` to before `last`."""
    of_x, of_y = 0.0, 0.0
    for n in range(first, last):
        of_x += w[n] * x[n]
        of_y += w[n] * y[n]
    return of_x, of_y


@compiled(**EXACT_BARE_INLINE)
def _zero(w, lam_v, lam_i, each):
    return 0.0


shift_of_all = either(_zero, shift_sum)
"""shift_of_all(w, lam_v, lam_i, each): Σ dC/dt_a of neurons that share no time constants."""


@compiled(**EXACT_BARE_INLINE)
def _arrival(layer, kind, costates, target, source, w_t, d_w_t, d_delays):
    """Equation (2.6) at the target, or at all neurons; returns Σ dC/dt_a."""
    lam_v, lam_i, shared = costates.lam_v, costates.lam_i, len(d_delays) == 1
    if target != ALL:
        n = target
        shift = arrival_shift(w_t[source, n], lam_v[n], lam_i[n], layer.tau_mem[n], layer.tau_syn[n])
        d_w_t[source, n] += lam_i[n]
        d_delays[0 if shared else n, source] += shift
        return shift
    w, d_w = w_t[source], d_w_t[source]
    total = shift_of_all(w, lam_v, lam_i, kind.each)
    if shares(kind.each):
        for g in range(len(kind.groups) - 1):
            first, last = kind.groups[g], kind.groups[g + 1]
            of_v, of_i = _products(w, lam_v, lam_i, first, last)
            total += of_i / layer.tau_syn[first] - of_v * kind.rates.mem[first]
    for n in range(len(w)):
        d_w[n] += lam_i[n]
    d_delays[0, source] += total
    return total


@compiled(**EXACT_PIECE)
def _release(layer, costates, current, n, d):
    """Back over the release of neuron n: v starts there from the reset, so λ_v ends; returns dC/dt of its spike."""
    shift = release_shift(costates.lam_v[n], current, layer.bias[n], layer.v_reset[n], layer.tau_mem[n])
    d.v_reset[n] += costates.lam_v[n]
    d.refractory[n] += shift
    costates.lam_v[n], costates.held[n] = 0.0, True
    return shift


@compiled(**EXACT_PIECE)
def _spike(costates, error, slope, n, d):
    """Back over a spike of neuron n whose time has the cotangent `error`: λ_v = -error/v̇."""
    costates.lam_v[n], costates.held[n] = 0.0, False
    if error != 0.0:
        costates.lam_v[n] = -error / slope
        d.v_th[n] -= costates.lam_v[n]


@compiled(**EXACT_PIECE)
def _read(costates, d_v, d_i, d):
    """Add what a loss asks of v and i (N,) at a probe; v of a neuron that is held is v_reset."""
    for n in range(len(d_v)):
        costates.lam_i[n] += d_i[n]
        if costates.held[n]:
            d.v_reset[n] += d_v[n]
        else:
            costates.lam_v[n] += d_v[n]
