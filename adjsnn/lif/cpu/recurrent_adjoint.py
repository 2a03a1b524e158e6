"""The adjoint (2.5)-(2.10) of a recurrent LIF layer in one fused loop, back through the log of its forward run."""

from math import inf
from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.cells import Cells, advance_all, kind_of, set_bias
from adjsnn.lif.cpu.flow import arrival_shift, costate_back, decay, release_shift, speed, tau_gradients
from adjsnn.lif.cpu.recurrent import Log, Spikes
from adjsnn.lif.layer import ALL, ARRIVAL, DRIVE, FINE, GRAZING, PROBE, RECURRENT, RELEASE, SPIKE
from adjsnn.numerics.compiled import EXACT, EXACT_BARE, EXACT_PIECE, compiled


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
        at: the time that both are of, ms.
        held: whether the neuron is at its reset.
        bias: b and the present step of the drive together, (2.16).
    """

    lam_v: np.ndarray
    lam_i: np.ndarray
    at: np.ndarray
    held: np.ndarray
    bias: np.ndarray


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
    costates = Costates(np.empty(neurons), np.empty(neurons), np.empty(neurons), np.empty(neurons, np.bool_), np.empty(neurons))
    states, spikes, log = np.empty((0, 2)), history.spikes, history.log
    everyone = (np.int64(0), neurons)  # a bare 0 is a type of its own to numba
    for b in range(first, last):
        begin, log_begin, log_end = history.first[b], history.log_first[b], history.log_first[b + 1]
        rows = neurons
        for e in range(log_begin, log_end):
            rows += neurons if log.target[e] == ALL else 1
        if want_tau:
            if rows > len(states):
                states = np.empty((2 * rows, 2))
            _replay(layer, kind, inputs, start, trial.drive, history, b, states)
        replayed = states[:rows] if want_tau else states[:0]
        error = cotangents.time[begin : history.first[b + 1]].copy()
        _begin(layer, costates, trial, history, b)
        step = len(trial.edges)
        for e in range(log_end - 1, log_begin - 1, -1):
            what, ref, n = log.kind[e], log.ref[e], log.target[e]
            low, high = everyone if n == ALL else (np.int64(n), n + 1)
            who, until = (low, high), log.time[e]
            rows -= high - low
            _back(layer, kind.same, costates, who, until, replayed[rows:], into, step, b)
            if what == ARRIVAL:
                source = inputs.neuron[ref]
                into.time[ref] += _arrival(layer, costates, who, source, kind.w_in_t, sums.w_in_t, into.layer.delays)
            elif what == RECURRENT:
                source = spikes.neuron[begin + ref]
                error[ref] += _arrival(layer, costates, who, source, kind.w_rec_t, sums.w_rec_t, into.layer.rec_delays)
            elif what == RELEASE:
                error[ref] += _release(layer, costates, spikes.released[begin + ref], n, into.layer)
            elif what == SPIKE:
                slope = speed(spikes.current[begin + ref], layer.bias[n], layer.v_th[n], layer.tau_mem[n])
                if error[ref] != 0.0 and not slope > 0.0:
                    return (GRAZING, b, n), until
                _spike(costates, error[ref], slope, n, into.layer)
            elif what == DRIVE:
                step -= 1
                set_bias(layer.bias, trial.drive, step, b, costates.bias)
            elif what == PROBE:
                _read(costates, cotangents.v[ref, b], cotangents.i[ref, b], into.layer)
        _back(layer, kind.same, costates, everyone, 0.0, replayed, into, step, b)
        into.v[b], into.i[b] = costates.lam_v, costates.lam_i
    into.layer.w_in[:] += sums.w_in_t.T
    into.layer.w_rec[:] += sums.w_rec_t.T
    return (FINE, 0, 0), 0.0


@compiled(**EXACT_PIECE)
def _begin(layer, costates, trial, history, b):
    """The costate of sample b at t_end: zero; neurons that are not released by then are held."""
    set_bias(layer.bias, trial.drive, len(trial.edges), b, costates.bias)
    costates.lam_v[:], costates.lam_i[:], costates.at[:], costates.held[:] = 0.0, 0.0, trial.t_end, False
    for s in range(history.first[b], history.first[b + 1]):
        costates.held[history.spikes.neuron[s]] = np.isnan(history.spikes.released[s])


@compiled(**EXACT)
def _replay(layer, kind, inputs, start, drive, history, b, states):
    """(v, i) of the targets of each log entry of sample b just after it, in the order of the log, after those at the start."""
    neurons, log, fired = len(layer.bias), history.log, history.spikes.neuron[history.first[b] :]
    v, i, at, release = start.v[b].copy(), start.i[b].copy(), np.zeros(neurons), np.full(neurons, inf)
    states[:neurons, 0], states[:neurons, 1] = v, i
    row, c, unused = neurons, np.empty(neurons), np.empty(0, np.int64)
    set_bias(layer.bias, drive, np.int64(0), b, c)
    for e in range(history.log_first[b], history.log_first[b + 1]):
        what, ref, n = log.kind[e], log.ref[e], log.target[e]
        first, last = (0, neurons) if n == ALL else (n, n + 1)
        who = slice(first, last)
        part = Cells(v[who], i[who], at[who], release[who], v[:0], c[who], unused, unused)
        advance_all(layer.tau_mem[who], layer.tau_syn[who], kind.same[who], part, log.time[e])
        if what == ARRIVAL:
            i[who] += kind.w_in_t[inputs.neuron[ref]][who]
        elif what == RECURRENT:
            i[who] += kind.w_rec_t[fired[ref]][who]
        elif what == SPIKE:
            v[n], release[n] = layer.v_reset[n], 0.0
        elif what == RELEASE:
            release[n] = inf
        elif what == DRIVE:
            set_bias(layer.bias, drive, ref, b, c)
        states[row : row + last - first, 0], states[row : row + last - first, 1] = v[who], i[who]
        row += last - first


@compiled(**EXACT_BARE)
def _back(layer, same, costates, who, t, states, into, step, b):
    """The costate of neurons who[0] … who[1]-1 back to time t, where their states were the first of `states`, if it has any."""
    lam_v, lam_i, at = costates.lam_v, costates.lam_i, costates.at
    since, e_mem, e_syn, conv = -1.0, 1.0, 1.0, 0.0
    for n in range(who[0], who[1]):
        tm, ts, span = layer.tau_mem[n], layer.tau_syn[n], at[n] - t
        if not same[n] or at[n] != since:
            since = at[n]
            e_mem, e_syn, conv = decay(span, tm, ts)
        if len(states) > 0:
            v, i = states[n - who[0], 0], states[n - who[0], 1]
            d_mem, d_syn = tau_gradients(span, v, i, lam_v[n], lam_i[n], costates.bias[n], tm, ts, e_mem, e_syn, conv)
            into.layer.tau_mem[n] += d_mem
            into.layer.tau_syn[n] += d_syn
        before = lam_v[n]
        lam_v[n], lam_i[n] = costate_back(before, lam_i[n], tm, e_mem, e_syn, conv)
        at[n] = t
        into.layer.bias[n] += before - lam_v[n]  # ∫ λ_v dt/τ_m, since λ_v decays with τ_m
        if len(into.drive) > 0:
            into.drive[step, b, n] += before - lam_v[n]


@compiled(**EXACT_BARE)
def _arrival(layer, costates, who, source, w_t, d_w_t, d_delays):
    """Equation (2.6) at neurons who[0] … who[1]-1; returns Σ dC/dt_a."""
    total, shared = 0.0, len(d_delays) == 1
    for n in range(who[0], who[1]):
        shift = arrival_shift(w_t[source, n], costates.lam_v[n], costates.lam_i[n], layer.tau_mem[n], layer.tau_syn[n])
        d_w_t[source, n] += costates.lam_i[n]
        d_delays[0 if shared else n, source] += shift
        total += shift
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
