"""The adjoint (6.4) of a layer of generalised LIF neurons of one kind, every spike of which arrives at most of them.

Back through the log of its forward run, as `glif_adjoint.py`, but all neurons in columns from one entry that happens to all of
them to the one before. Those that had an event of their own in between are ahead; their exponentials are computed in columns.
"""

from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.elementary import exponential, fades
from adjsnn.lif.cpu.glif_adjoint import (
    AT,
    COSTATES,
    LAM_V,
    PUSHED,
    Costates,
    begin_back,
    flush,
    leave,
    of_rates,
    of_scales,
    read_probe,
    spike_back,
)
from adjsnn.lif.cpu.glif_cell import share
from adjsnn.lif.cpu.glif_dense_states import of_all_rates, replay, states_of
from adjsnn.lif.cpu.glif_kernels import E_BIAS, E_MU, SHARED
from adjsnn.lif.layer import ARRIVAL, FINE, GRAZING, PROBE, RECURRENT, RELEASE, SPIKE
from adjsnn.numerics.compiled import EXACT, EXACT_BARE, EXACT_BARE_INLINE, EXACT_PIECE, EXACT_WITHIN, REORDERED, compiled

CHUNK = 256  # entries whose exponentials are computed together


class Way(NamedTuple):
    """Neurons on their way back.

    Attributes:
        now: (1,), the time of those that are not ahead, ms.
        size: (1,), how many are ahead.
        ahead: (N,), these, in any order.
        place: (N,), where in `ahead` a neuron stands, or -1.
        saved: (3 + P + H, N), their costates while the others move.
        span: (L,), how far entries are apart, ms.
        slot: (L,), where the exponentials of an entry stand, or -1 where nothing has changed.
        powers: (4 + 2P + H, L), exponentials as in `glif_cell.share`, from E_MU on.
    """

    now: np.ndarray
    size: np.ndarray
    ahead: np.ndarray
    place: np.ndarray
    saved: np.ndarray
    span: np.ndarray
    slot: np.ndarray
    powers: np.ndarray


class Sums(NamedTuple):
    """What is gathered at arrivals, a row for each group of synapses.

    Attributes:
        weight: (Q, K, N), the weights.
        by_rate: (Q, K, N), weights times the rates of their currents.
        total: (Q, N), weights of all receptors times the gain.
        lam_c: (Q, K, N), Σ λ_c.
        lam_v: (Q, N), Σ λ_v where the neuron is not held.
    """

    weight: np.ndarray
    by_rate: np.ndarray
    total: np.ndarray
    lam_c: np.ndarray
    lam_v: np.ndarray


@compiled(**EXACT)
def backward(layer, kinds, tables, start, trial, history, cotangents, first, last, rates, into):
    """Gradients of samples first … last-1; arguments as in `glif_adjoint.backward`.

    Args:
        tables: from `glif_dense.table_of`, of the inputs and of the layer itself.
    """
    neurons, n_c, n_h = len(kinds.of), kinds.rate.shape[1], kinds.th_rate.shape[1]
    y = np.empty((COSTATES + n_c + n_h, neurons))
    shared = np.empty(SHARED + 2 * n_c + n_h)
    costates = Costates(y.T, np.empty(neurons, np.bool_), np.empty(neurons), shared, np.empty((0, 1)))
    way = _way_of(neurons, len(y), max(CHUNK, neurons), SHARED + 2 * n_c + n_h)
    sums = _sums_of(kinds, tables[0]), _sums_of(kinds, tables[1])
    for b in range(first, last):
        error = cotangents.time[history.first[b] : history.first[b + 1]].copy()
        states = states_of(history, b, len(y) - COSTATES + 1, neurons, rates)
        if rates:
            replay(layer, kinds, tables, start, trial.drive, history, b, costates, way, states)
        outcome, n, t = _sample(layer, kinds, trial, history, cotangents, b, costates, way, states, sums, error, into)
        if outcome != FINE:
            return (outcome, b, n), t
    _spread(kinds, layer.incoming, sums[0], into.in_weight, into.in_delay)
    _spread(kinds, layer.recurrent, sums[1], into.rec_weight, into.rec_delay)
    return (FINE, 0, 0), 0.0


@compiled(**EXACT_PIECE)
def _way_of(n, rows, chunk, powers):
    """Memory for n neurons."""
    return Way(
        np.empty(1), np.empty(1, np.int64), np.empty(n, np.int64), np.empty(n, np.int64), np.empty((rows, n)), np.empty(chunk),
        np.empty(chunk, np.int64), np.empty((powers, chunk)),
    )  # fmt: skip


@compiled(**EXACT_WITHIN)
def _sums_of(kinds, table):
    """Nothing gathered yet, at synapses of a table of weights."""
    groups, n_k, n = table.shape
    sums = Sums(table, np.empty_like(table), np.zeros((groups, n)), np.zeros((groups, n_k, n)), np.zeros((groups, n)))
    for q in range(groups):
        for k in range(n_k):
            for i in range(n):
                sums.by_rate[q, k, i] = table[q, k, i] * kinds.rate[0, k]
                sums.total[q, i] += table[q, k, i] * kinds.gain[0]
    return sums


@compiled(**EXACT_WITHIN)
def _spread(kinds, wiring, sums, d_weight, d_delay):
    """What was gathered, at every synapse."""
    for q in range(len(wiring.delay)):
        for e in range(wiring.edge[q], wiring.edge[q + 1]):
            n, k = wiring.post[e], wiring.receptor[e]
            lam = sums.lam_c[q, k, n]
            d_weight[e] += lam
            d_delay[e] += wiring.weight[e] * (kinds.rate[0, k] * lam - kinds.gain[0] * sums.lam_v[q, n])


@compiled(**EXACT_BARE)
def _sample(layer, kinds, trial, history, cotangents, b, costates, way, states, sums, error, into):
    """Gradients of sample b; returns FINE, or GRAZING, a neuron, and when."""
    neurons, spikes, log, at, y = layer.neurons, history.spikes, history.log, history.first[b], costates.y.T
    step, begin, e = len(trial.edges), history.log_first[b], history.log_first[b + 1] - 1
    begin_back(kinds, costates, neurons.bias, trial, history, b)
    every, alone = np.int64(len(states.all_of) - 1), np.int64(len(states.own))
    way.now[0], way.size[0] = trial.t_end, 0
    for n in range(len(way.place)):
        way.place[n] = -1
    while e >= begin:
        what, ref, t = log.kind[e], log.ref[e], log.time[e]
        if what in (SPIKE, RELEASE):
            count = _foresee(kinds, y, way, log, begin, e)
            for k in range(count):
                what, ref, n, t = log.kind[e - k], log.ref[e - k], log.target[e - k], log.time[e - k]
                alone -= 1
                if way.slot[k] >= 0:
                    if every >= 0:
                        span = way.span[way.slot[k]]
                        share(kinds, costates.shared, 0, span)
                        of_rates(kinds, costates, n, span, states.own[alone, 1], into.neurons)
                    _back(kinds, y, costates.held[n], n, way.powers, way.slot[k])
                if what == RELEASE:
                    shift = -y[LAM_V, n] * spikes.released[at + ref]
                    into.neurons.refractory[n] += shift
                    error[ref] += shift
                    costates.held[n] = True
                    continue
                if every >= 0:
                    of_scales(neurons, kinds, costates, n, states.own[alone, 0], into.neurons)
                if not spike_back(neurons, kinds, costates, spikes, at + ref, error[ref], n, into.neurons):
                    return GRAZING, n, t
            e -= count
            continue
        _all_back(kinds, costates, y, way, t, states, every, into.neurons)
        every -= 1
        if what == ARRIVAL:
            into.time[ref] += _arrival(costates.held, y, sums[0], log.target[e])
        elif what == RECURRENT:
            error[ref] += _arrival(costates.held, y, sums[1], log.target[e])
        elif what == PROBE:
            read_probe(kinds, costates, cotangents, ref, b)
        else:
            flush(costates, into, step, b)
            step -= 1
            for m in range(len(costates.bias)):
                costates.bias[m] = neurons.bias[m] + trial.drive[step, b, m]
        e -= 1
    _all_back(kinds, costates, y, way, 0.0, states, every, into.neurons)
    flush(costates, into, step, b)
    leave(kinds, costates, into, b)
    return FINE, np.int64(0), 0.0


@compiled(**EXACT_BARE_INLINE)
def _foresee(kinds, y, way, log, begin, e):
    """Exponentials for events of single neurons one after the other, back from entry e; returns how many entries."""
    count, slots = np.int64(0), np.int64(0)
    while count < CHUNK and e - count >= begin and (log.kind[e - count] == SPIKE or log.kind[e - count] == RELEASE):
        n, t = log.target[e - count], log.time[e - count]
        span = (y[AT, n] if way.place[n] >= 0 else way.now[0]) - t
        way.slot[count] = -1
        if span > 0.0:
            if way.place[n] < 0:
                way.place[n], way.ahead[way.size[0]] = way.size[0], n
                way.size[0] += 1
            way.slot[count], way.span[slots], y[AT, n] = slots, span, t
            slots += 1
        count += 1
    _powers(kinds, way, slots)
    return count


@compiled(**EXACT_BARE_INLINE)
def _powers(kinds, way, count):
    """Exponentials over the first spans."""
    mu, n_c, t, at = kinds.leak_rate[0], kinds.rate.shape[1], way.span, SHARED
    e_leak, e_bias = way.powers[E_MU], way.powers[E_BIAS]
    per_mu = 1.0 / mu if mu > 0.0 else 1.0
    for j in range(count):
        e_leak[j], gone = fades(mu * t[j])
        e_bias[j] = gone * per_mu if mu > 0.0 else t[j]
    for p in range(n_c):
        e, k, r = way.powers[at], way.powers[at + 1], kinds.rate[0, p]
        apart, at = r - mu, at + 2
        per = 1.0 / abs(apart) if apart != 0.0 else 1.0
        if apart == 0.0:
            for j in range(count):
                e[j], k[j] = e_leak[j], t[j] * e_leak[j]
        elif apart > 0.0:
            for j in range(count):
                left, gone = fades(apart * t[j])
                e[j], k[j] = e_leak[j] * left, e_leak[j] * gone * per
        else:
            for j in range(count):
                left, gone = fades(-apart * t[j])
                slow = exponential(-r * t[j])
                e[j], k[j] = slow, slow * gone * per
    for m in range(kinds.th_rate.shape[1]):
        e, s = way.powers[at + m], kinds.th_rate[0, m]
        for j in range(count):
            e[j] = exponential(-s * t[j])


@compiled(**EXACT_BARE_INLINE)
def _back(kinds, y, held, n, powers, j):
    """The costate of neuron n alone back over a time with exponentials in column j."""
    n_c, gain, at = kinds.rate.shape[1], 0.0, SHARED
    if not held:
        gain = kinds.gain[0] * y[LAM_V, n]
        y[PUSHED, n] += gain * powers[E_BIAS, j]
        y[LAM_V, n] *= powers[E_MU, j]
    for k in range(COSTATES, COSTATES + n_c):
        y[k, n] = y[k, n] * powers[at, j] + gain * powers[at + 1, j]
        at += 2
    for k in range(COSTATES + n_c, len(y)):
        y[k, n] *= powers[at, j]
        at += 1


@compiled(**EXACT_BARE_INLINE)
def _all_back(kinds, costates, y, way, t, states, every, d):
    """The costates of all neurons back to time t, where their states were those that are kept, if any are."""
    ahead, span, rows, neurons = way.size[0], way.now[0] - t, len(y), y.shape[1]
    if span == 0.0 and ahead == 0:
        return
    held, shared, n_c, gain = costates.held, costates.shared, kinds.rate.shape[1], kinds.gain[0]
    for k in range(ahead):
        way.span[k] = y[AT, way.ahead[k]] - t
    if every >= 0:
        _of_rates_back(kinds, costates, way, states, span, states.all_of[every], d)
    _powers(kinds, way, ahead)
    for k in range(ahead):
        n = way.ahead[k]
        _back(kinds, y, held[n], n, way.powers, k)
        way.place[n] = -1
    for q in range(PUSHED, rows):
        for k in range(ahead):
            way.saved[q, k] = y[q, way.ahead[k]]
    if span > 0.0:
        share(kinds, shared, 0, span)
        lam, pushed, fed, e_mu, e_bias = y[LAM_V], y[PUSHED], y[AT], shared[E_MU], shared[E_BIAS]
        for n in range(neurons):  # factors, so that vectors take it
            free = 0.0 if held[n] else 1.0
            fed[n] = free * gain * lam[n]
            lam[n] *= 1.0 - free + free * e_mu
        for n in range(neurons):
            pushed[n] += fed[n] * e_bias
        for p in range(n_c):
            c, e, k = y[COSTATES + p], shared[SHARED + 2 * p], shared[SHARED + 2 * p + 1]
            for n in range(neurons):
                c[n] = c[n] * e + fed[n] * k
        for m in range(kinds.th_rate.shape[1]):
            h, e = y[COSTATES + n_c + m], shared[SHARED + 2 * n_c + m]
            for n in range(neurons):
                h[n] *= e
    for q in range(PUSHED, rows):
        for k in range(ahead):
            y[q, way.ahead[k]] = way.saved[q, k]
    way.now[0], way.size[0] = t, 0


@compiled(**EXACT_BARE)
def _of_rates_back(kinds, costates, way, states, span, x, d):
    """What the way back to the states x adds to the gradients of rates: of neurons that are ahead from there, of the others."""
    for k in range(way.size[0]):
        n = way.ahead[k]
        for q in range(len(x)):
            states.row[q] = x[q, n]
        share(kinds, costates.shared, 0, way.span[k])
        of_rates(kinds, costates, n, way.span[k], states.row, d)
    if span > 0.0:
        of_all_rates(kinds, costates, way, states, span, x, d)


@compiled(**REORDERED)
def _product(w, x):
    total = 0.0
    for n in range(len(w)):
        total += w[n] * x[n]
    return total


@compiled(**EXACT_BARE_INLINE)
def _arrival(held, y, sums, group):
    """Back over an arrival through a group of synapses; returns Σ dC/dt_a."""
    lam, d_v, moving = y[LAM_V], sums.lam_v[group], y[AT]
    for n in range(len(lam)):
        moving[n] = 0.0 if held[n] else lam[n]
        d_v[n] += moving[n]
    shift = -_product(sums.total[group], moving)
    for k in range(sums.weight.shape[1]):
        c, d_c = y[COSTATES + k], sums.lam_c[group, k]
        shift += _product(sums.by_rate[group, k], c)
        for n in range(len(c)):
            d_c[n] += c[n]
    return shift
