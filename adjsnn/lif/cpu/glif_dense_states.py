"""States along the run of a layer of `glif_dense.py`, which gradients by rates and scales need, equation (6.4).

A sample runs once more by its log, which tells the spikes: all neurons in columns from one entry that happens to all of them to
the next, those that have events of their own in between by themselves. On its way back the adjoint reads what is kept here.
"""

from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.glif_adjoint import AT, COSTATES, LAM_V, double_kernel
from adjsnn.lif.cpu.glif_cell import share
from adjsnn.lif.cpu.glif_columns import feed
from adjsnn.lif.cpu.glif_dense import arrive
from adjsnn.lif.cpu.glif_kernels import E_BIAS, E_MU, KIND, SHARED, SPAN
from adjsnn.lif.layer import ARRIVAL, DRIVE, RECURRENT, RELEASE, SPIKE
from adjsnn.numerics.compiled import EXACT_BARE, EXACT_BARE_INLINE, EXACT_PIECE, compiled


class States(NamedTuple):
    """States of a sample, of which v, c and h stand in 1 + P + H rows.

    Attributes:
        all_of: (G+1, 1 + P + H, N), of all neurons at the start, and after every entry of the log that happens to all.
        own: (O, 2, 1 + P + H), of a neuron before and after each event of its own.
        x: (1 + P + H, N), the present one.
        row: (1 + P + H,), of one neuron.
        work: (2, N), room for sums.
        kept: (2 + P + H, N), gradients of neurons that are ahead while those of the others are added to.
    """

    all_of: np.ndarray
    own: np.ndarray
    x: np.ndarray
    row: np.ndarray
    work: np.ndarray
    kept: np.ndarray


@compiled(**EXACT_PIECE)
def states_of(history, b, rows, n, wanted):
    """Memory for the states of sample b, or for none."""
    every, alone = -1, 0
    if wanted:
        every = 0
        for e in range(history.log_first[b], history.log_first[b + 1]):
            own = history.log.kind[e] == SPIKE or history.log.kind[e] == RELEASE
            alone += own
            every += not own
    return States(
        np.empty((every + 1, rows, n)),
        np.empty((alone, 2, rows)),
        np.empty((rows, n)),
        np.empty(rows),
        np.empty((2, n)),
        np.empty((rows + 1, n)),
    )


@compiled(**EXACT_BARE)
def replay(layer, kinds, tables, start, drive, history, b, costates, way, states):
    """Fill the states of sample b, from its start on; what they need of costates and of the way back is free before that."""
    log, x, held, bias, y, neurons = history.log, states.x, costates.held, costates.bias, costates.y.T, layer.neurons
    costates.shared[KIND], costates.shared[SPAN] = -1.0, -1.0
    _begin(neurons, start, drive, b, costates, way, x)
    _keep(x, states.all_of[0])
    every, alone = np.int64(1), np.int64(0)
    for e in range(history.log_first[b], history.log_first[b + 1]):
        what, n, t = log.kind[e], log.target[e], log.time[e]
        if what in (SPIKE, RELEASE):
            if way.place[n] < 0:
                way.place[n], way.ahead[way.size[0]], y[AT, n] = way.size[0], n, way.now[0]
                way.size[0] += 1
            _carry(kinds, costates, x, n, t - y[AT, n])
            y[AT, n] = t
            own = states.own[alone]
            for q in range(len(x)):
                own[0, q] = x[q, n]
            if what == SPIKE:
                _leap(neurons, x, n, kinds.rate.shape[1])
            for q in range(len(x)):
                own[1, q] = x[q, n]
            held[n] = what == SPIKE
            alone += 1
            continue
        _carry_all(kinds, costates, way, x, t)
        if what == ARRIVAL:
            arrive(x, tables[0][n])
        elif what == RECURRENT:
            arrive(x, tables[1][n])
        elif what == DRIVE:
            for m in range(len(bias)):
                bias[m] = neurons.bias[m] + drive[log.ref[e], b, m]
        _keep(x, states.all_of[every])
        every += 1


@compiled(**EXACT_BARE)
def _begin(neurons, start, drive, b, costates, way, x):
    """All neurons of sample b at time 0."""
    n_c = start.c.shape[1]
    way.now[0], way.size[0] = 0.0, 0
    for n in range(x.shape[1]):
        way.place[n], costates.held[n], x[0, n] = -1, False, start.v[b, n]
        costates.bias[n] = neurons.bias[n] + (drive[0, b, n] if len(drive) > 0 else 0.0)
        for p in range(n_c):
            x[1 + p, n] = start.c[b, p, n]
        for m in range(start.h.shape[1]):
            x[1 + n_c + m, n] = start.h[b, m, n]


@compiled(**EXACT_BARE_INLINE)
def _keep(x, kept):
    """Copy the states of all neurons."""
    for q in range(len(x)):
        row, to = x[q], kept[q]
        for n in range(len(row)):
            to[n] = row[n]


@compiled(**EXACT_BARE_INLINE)
def _leap(neurons, x, n, n_c):
    """What neuron n's own spike does to its state (6.2)."""
    n_j = len(neurons.jump)
    x[0, n] = neurons.reset_factor[n] * (x[0, n] - neurons.v_th[n]) + neurons.v_reset[n]
    for i in range(n_j):
        at = 1 + n_c - n_j + i
        x[at, n] = neurons.scale[i, n] * x[at, n] + neurons.jump[i, n]
    for m in range(len(neurons.th_jump)):
        at = 1 + n_c + m
        x[at, n] = neurons.th_scale[m, n] * x[at, n] + neurons.th_jump[m, n]


@compiled(**EXACT_BARE)
def _carry(kinds, costates, x, n, span):
    """Neuron n alone over a span."""
    if not span > 0.0:
        return
    shared, n_c = costates.shared, kinds.rate.shape[1]
    share(kinds, shared, 0, span)
    fed = costates.bias[n] * shared[E_BIAS]
    for p in range(n_c):
        fed += x[1 + p, n] * shared[SHARED + 2 * p + 1]
        x[1 + p, n] *= shared[SHARED + 2 * p]
    for m in range(kinds.th_rate.shape[1]):
        x[1 + n_c + m, n] *= shared[SHARED + 2 * n_c + m]
    if not costates.held[n]:
        x[0, n] = x[0, n] * shared[E_MU] + kinds.gain[0] * fed


@compiled(**EXACT_BARE)
def _carry_all(kinds, costates, way, x, t):
    """All neurons to time t, where none is ahead any more."""
    span, y, ahead, neurons = t - way.now[0], costates.y.T, way.size[0], x.shape[1]
    for k in range(ahead):
        n = way.ahead[k]
        _carry(kinds, costates, x, n, t - y[AT, n])
        way.place[n] = -1
    for q in range(len(x)):
        for k in range(ahead):
            way.saved[q, k] = x[q, way.ahead[k]]
    if span > 0.0:
        share(kinds, costates.shared, 0, span)
        shared, v, fed, held, gain = costates.shared, x[0], y[LAM_V], costates.held, kinds.gain[0]
        e_mu = shared[E_MU]
        feed(kinds, shared, x, costates.bias, fed)
        for n in range(neurons):
            v[n] = v[n] if held[n] else v[n] * e_mu + gain * fed[n]
    for q in range(len(x)):
        for k in range(ahead):
            x[q, way.ahead[k]] = way.saved[q, k]
    way.now[0], way.size[0] = t, 0


@compiled(**EXACT_BARE)
def of_all_rates(kinds, costates, way, states, t, x, d):
    """What an interval of length t adds to the gradients of rates and gains of all neurons that are not ahead.

    As `glif_adjoint.of_rates`, from states x (1 + P + H, N) at its start and the costates at its end.
    """
    y, shared, n_c, mu, gain = costates.y.T, costates.shared, kinds.rate.shape[1], kinds.leak_rate[0], kinds.gain[0]
    ahead, kept, fed, slowed, lam = way.size[0], states.kept, states.work[0], states.work[1], y[AT]
    _of_ahead(way, kept, d, True)
    share(kinds, shared, 0, t)
    e_mu, e_bias = shared[E_MU], shared[E_BIAS]
    slow = double_kernel(mu, 0.0, t, e_mu, e_bias)
    for n in range(len(fed)):
        lam[n] = 0.0 if costates.held[n] else y[LAM_V, n]
        fed[n], slowed[n] = costates.bias[n] * e_bias, costates.bias[n] * slow
    for p in range(n_c):
        c, r, e, k = x[1 + p], kinds.rate[0, p], shared[SHARED + 2 * p], shared[SHARED + 2 * p + 1]
        lam_c, d_rate = y[COSTATES + p], d.rate[p]
        slow, fast, late = double_kernel(mu, r, t, e_mu, k), gain * double_kernel(r, mu, t, e, k), t * e
        for n in range(len(fed)):
            fed[n] += c[n] * k
            slowed[n] += c[n] * slow
        for n in range(len(fed)):
            d_rate[n] -= c[n] * (lam[n] * fast + lam_c[n] * late)
    v, d_gain, d_leak, late = x[0], d.gain, d.leak_rate, t * e_mu
    for n in range(len(fed)):
        d_gain[n] += lam[n] * fed[n]
    for n in range(len(fed)):
        d_leak[n] -= lam[n] * (v[n] * late + gain * slowed[n])
    for m in range(kinds.th_rate.shape[1]):
        h, lam_h, d_rate, late = x[1 + n_c + m], y[COSTATES + n_c + m], d.th_rate[m], t * shared[SHARED + 2 * n_c + m]
        for n in range(len(fed)):
            d_rate[n] -= lam_h[n] * h[n] * late
    if ahead > 0:
        _of_ahead(way, kept, d, False)


@compiled(**EXACT_BARE)
def _of_ahead(way, kept, d, aside):
    """Put the gradients of neurons that are ahead aside, or back."""
    n_c = len(d.rate)
    for k in range(way.size[0]):
        n = way.ahead[k]
        if aside:
            kept[0, k], kept[1, k] = d.gain[n], d.leak_rate[n]
            for p in range(n_c):
                kept[2 + p, k] = d.rate[p, n]
            for m in range(len(d.th_rate)):
                kept[2 + n_c + m, k] = d.th_rate[m, n]
        else:
            d.gain[n], d.leak_rate[n] = kept[0, k], kept[1, k]
            for p in range(n_c):
                d.rate[p, n] = kept[2 + p, k]
            for m in range(len(d.th_rate)):
                d.th_rate[m, n] = kept[2 + n_c + m, k]
