"""The adjoint (6.4) of a layer of generalised LIF neurons in one fused loop, back through the log of its forward run.

As there, a neuron's costate is carried back to what happens to it and no further. It needs no states but those that each spike
left in the record. Gradients of rates and of scales need them where every interval begins, and thresholds that follow the
voltage at spikes and releases: the sample then runs once more by its log, which tells the spikes, with the states on a stack.
"""

from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.flow import psi
from adjsnn.lif.cpu.glif import HELD, SAFELY, Log, Spikes, advance, begin, leap, memory_of
from adjsnn.lif.cpu.glif_cell import share
from adjsnn.lif.cpu.glif_follow import slope_of
from adjsnn.lif.cpu.glif_kernels import BIAS, CURRENTS, E_BIAS, E_MU, KIND, SHARED, SPAN, V, four
from adjsnn.lif.flow import SERIES_BELOW
from adjsnn.lif.layer import ARRIVAL, DRIVE, FINE, GRAZING, PROBE, RECURRENT, RELEASE, SPIKE
from adjsnn.numerics.compiled import EXACT, EXACT_BARE, EXACT_BARE_INLINE, EXACT_PIECE, compiled

AT, PUSHED, LAM_V, COSTATES = range(4)  # places in a neuron's row: its time, what its bias gathers, λ_v, then λ_c and λ_h


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
    """The costates of a sample's neurons on their way back.

    Attributes:
        y: (N, 3 + P + H), a row for each.
        held: (N,), whether the neuron is at its reset.
        bias: (N,), b and the present step of the drive together.
        shared: exponentials of `glif_cell.share`.
        stack: v, c and h of what each entry of the log happened to, just after it and for a spike also just before,
            (rows, 1 + P + H), after those at the start; or no rows.
    """

    y: np.ndarray
    held: np.ndarray
    bias: np.ndarray
    shared: np.ndarray
    stack: np.ndarray


@compiled(**EXACT)
def backward(layer, kinds, inputs, start, trial, history, cotangents, first, last, rates, into):
    """Gradients of samples first … last-1; arguments as in `glif.forward`.

    Args:
        history: History.
        cotangents: GLIFCotangents, all there.
        rates: whether those that need states along the run are wanted.
        into: GLIFGradients to add to.

    Returns:
        the outcome: what went wrong, in which sample and neuron; and when.
    """
    neurons, cells = len(kinds.of), memory_of(kinds)
    width = kinds.slot.shape[1]
    y, held, bias = np.empty((neurons, COSTATES + width)), np.empty(neurons, np.bool_), np.empty(neurons)
    stack = np.empty((0, width))
    for b in range(first, last):
        if rates or kinds.follow.shape[1] > 0:
            stack = np.empty((_rows(layer, history, neurons, b), width))
            _replay(layer, kinds, inputs, start, trial.drive, history, b, cells, stack)
        costates = Costates(y, held, bias, cells.shared, stack)
        error = cotangents.time[history.first[b] : history.first[b + 1]].copy()
        outcome, n, t = _sample(layer, kinds, inputs, trial, history, cotangents, b, costates, error, into)
        if outcome != FINE:
            return (outcome, b, n), t
    return (FINE, 0, 0), 0.0


@compiled(**EXACT_BARE)
def _sample(layer, kinds, inputs, trial, history, cotangents, b, costates, error, into):
    """Gradients of sample b; returns FINE, or GRAZING, a neuron, and when."""
    neurons, spikes, log, at = layer.neurons, history.spikes, history.log, history.first[b]
    follows = kinds.follow.shape[1] > 0
    step, row = len(trial.edges), len(costates.stack)
    begin_back(kinds, costates, neurons.bias, trial, history, b)
    for e in range(history.log_first[b + 1] - 1, history.log_first[b] - 1, -1):
        what, ref, n, t = log.kind[e], log.ref[e], log.target[e], log.time[e]
        if what == ARRIVAL:
            row -= layer.incoming.edge[n + 1] - layer.incoming.edge[n]
            into.time[ref] += _arrival(layer.incoming, kinds, costates, n, t, row, into.neurons, into.in_weight, into.in_delay)
        elif what == RECURRENT:
            row -= layer.recurrent.edge[n + 1] - layer.recurrent.edge[n]
            error[ref] += _arrival(layer.recurrent, kinds, costates, n, t, row, into.neurons, into.rec_weight, into.rec_delay)
        elif what == RELEASE:
            row -= 1
            _back(kinds, costates, n, t, row, into.neurons)
            shift = -costates.y[n, LAM_V] * spikes.released[at + ref]
            if follows:
                shift -= _led(kinds, costates, n, costates.stack[row])
            into.neurons.refractory[n] += shift
            error[ref] += shift
            costates.held[n] = True
        elif what == SPIKE:
            row -= 2
            _back(kinds, costates, n, t, row + 1, into.neurons)
            if len(costates.stack) > 0:
                of_scales(neurons, kinds, costates, n, costates.stack[row], into.neurons)
            if follows:
                error[ref] += _led(kinds, costates, n, costates.stack[row])
            if not spike_back(neurons, kinds, costates, spikes, at + ref, error[ref], n, into.neurons):
                return GRAZING, n, t
        else:
            row -= len(kinds.of)
            for m in range(len(kinds.of)):
                _back(kinds, costates, m, t, row + m, into.neurons)
            if what == PROBE:
                read_probe(kinds, costates, cotangents, ref, b)
            else:
                flush(costates, into, step, b)
                step -= 1
                for m in range(len(kinds.of)):
                    costates.bias[m] = neurons.bias[m] + trial.drive[step, b, m]
    for m in range(len(kinds.of)):
        _back(kinds, costates, m, 0.0, m, into.neurons)
    flush(costates, into, step, b)
    leave(kinds, costates, into, b)
    return FINE, 0, 0.0


@compiled(**EXACT_BARE)
def begin_back(kinds, costates, bias, trial, history, b):
    """The costate of sample b at t_end: zero; neurons that are not released by then are held."""
    step = len(trial.edges)
    costates.shared[KIND], costates.shared[SPAN] = -1.0, -1.0
    for n in range(len(kinds.of)):
        for k in range(costates.y.shape[1]):
            costates.y[n, k] = 0.0
        costates.y[n, AT], costates.held[n] = trial.t_end, False
        costates.bias[n] = bias[n] + (trial.drive[step, b, n] if len(trial.drive) > 0 else 0.0)
    for s in range(history.first[b], history.first[b + 1]):
        costates.held[history.spikes.neuron[s]] = np.isnan(history.spikes.released[s])


@compiled(**EXACT_BARE_INLINE)
def _back(kinds, costates, n, t, row, d):
    """The costate of neuron n back to time t, where its state was that of a row of the stack, if there is one."""
    y, shared, n_c = costates.y[n], costates.shared, kinds.rate.shape[1]
    span = y[AT] - t
    if span > 0.0:
        kind, held, at, gain = kinds.of[n], costates.held[n], SHARED, 0.0
        share(kinds, shared, kind, span)
        if len(costates.stack) > 0:
            of_rates(kinds, costates, n, span, costates.stack[row], d)
        if not held:
            gain = kinds.gain[kind] * y[LAM_V]
            y[PUSHED] += gain * shared[E_BIAS]
            y[LAM_V] *= shared[E_MU]
        for k in range(COSTATES, COSTATES + n_c):
            y[k] = y[k] * shared[at] + gain * shared[at + 1]
            at += 2
        last = COSTATES + n_c + kinds.th_rate.shape[1] - kinds.follow.shape[1]
        for k in range(COSTATES + n_c, last):
            y[k] *= shared[at]
            at += 1
        if kinds.follow.shape[1] > 0 and not held:
            lead = kinds.follow[kind, 0] * y[last]
            y[LAM_V] += lead * shared[at + 1]
            lead *= kinds.gain[kind]
            y[PUSHED] += lead * shared[at + 2]
            for p in range(n_c):
                y[COSTATES + p] += lead * shared[at + 3 + p]
            y[last] *= shared[at]
        y[AT] = t


@compiled(**EXACT_BARE_INLINE)
def double_kernel(a, b, t, e_a, k):
    """J(a, b) = e_a∗e_a∗e_b = (K - t e_a)/(a - b) at t, from e^{-at} and K(a, b); -∂K/∂a."""
    x = (a - b) * t
    if abs(x) < SERIES_BELOW:
        return e_a * t * t * psi(-x)
    return (k - t * e_a) / (a - b)


@compiled(**EXACT_BARE)
def of_rates(kinds, costates, n, t, x, d):
    """What an interval adds to the gradients of rates and of the gain: derivatives of the flow from its first state x."""
    y, shared, at, n_c, kind = costates.y[n], costates.shared, SHARED, kinds.rate.shape[1], kinds.of[n]
    mu, gain, e_mu = kinds.leak_rate[kind], kinds.gain[kind], shared[E_MU]
    lam_v = 0.0 if costates.held[n] else y[LAM_V]
    fed, slowed = costates.bias[n] * shared[E_BIAS], costates.bias[n] * double_kernel(mu, 0.0, t, e_mu, shared[E_BIAS])
    for p in range(n_c):
        c, r, e, k = x[1 + p], kinds.rate[kind, p], shared[at], shared[at + 1]
        fed += c * k
        slowed += c * double_kernel(mu, r, t, e_mu, k)
        d.rate[p, n] -= c * (lam_v * gain * double_kernel(r, mu, t, e, k) + y[COSTATES + p] * t * e)
        at += 2
    d.gain[n] += lam_v * fed
    d.leak_rate[n] -= lam_v * (x[0] * t * e_mu + gain * slowed)
    for m in range(kinds.th_rate.shape[1] - kinds.follow.shape[1]):
        d.th_rate[m, n] -= y[COSTATES + n_c + m] * x[1 + n_c + m] * t * shared[at]
        at += 1
    if kinds.follow.shape[1] > 0 and not costates.held[n]:
        _of_following(kinds, costates, n, t, x, d)


@compiled(**EXACT_BARE)
def _of_following(kinds, costates, n, t, x, d):
    """What an interval adds by the flow of a threshold that follows the voltage, (6.11)."""
    y, shared, n_c, kind = costates.y[n], costates.shared, kinds.rate.shape[1], kinds.of[n]
    mu, gain, q, kappa = kinds.leak_rate[kind], kinds.gain[kind], kinds.th_rate[kind, -1], kinds.follow[kind, 0]
    at, last, bias, e_mu = (
        SHARED + 2 * n_c + kinds.th_rate.shape[1],
        len(kinds.th_rate[kind]) - 1,
        costates.bias[n],
        shared[E_MU],
    )
    w, v = 1 + n_c + last, x[0]
    lam, e_q, k = y[COSTATES + n_c + last], shared[at - 1], shared[at]
    lead = lam * kappa
    fed, by_q, by_mu = bias * shared[at + 1], bias * four(q, q, mu, 0.0, t), bias * four(q, mu, mu, 0.0, t)
    for p in range(n_c):
        c, r = x[1 + p], kinds.rate[kind, p]
        fed += c * shared[at + 2 + p]
        by_q += c * four(q, q, mu, r, t)
        by_mu += c * four(q, mu, mu, r, t)
        d.rate[p, n] -= lead * gain * c * four(q, mu, r, r, t)
    d.follow[0, n] += lam * (v * k + gain * fed)
    d.gain[n] += lead * fed
    d.leak_rate[n] -= lead * (v * double_kernel(mu, q, t, e_mu, k) + gain * by_mu)
    d.th_rate[last, n] -= lam * x[w] * t * e_q + lead * (v * double_kernel(q, mu, t, e_q, k) + gain * by_q)


@compiled(**EXACT_BARE_INLINE)
def _led(kinds, costates, n, x):
    """λ_w ẇ of neuron n in the state x, in which it is not held."""
    last = COSTATES + kinds.rate.shape[1] + kinds.th_rate.shape[1] - 1
    return costates.y[n, last] * slope_of(kinds, kinds.of[n], x[0], x[-1])


@compiled(**EXACT_BARE)
def _arrival(wiring, kinds, costates, group, t, row, d, d_weight, d_delay):
    """Back over an arrival through a group of synapses; returns Σ dC/dt_a."""
    first, total = wiring.edge[group], 0.0
    for e in range(wiring.edge[group + 1] - 1, first - 1, -1):  # of several at one neuron the last left the state there
        n, k = wiring.post[e], wiring.receptor[e]
        _back(kinds, costates, n, t, row + e - first, d)
        y, kind = costates.y[n], kinds.of[n]
        lam = y[COSTATES + k]
        shift = kinds.rate[kind, k] * lam
        if not costates.held[n]:
            shift -= kinds.gain[kind] * y[LAM_V]
        shift *= wiring.weight[e]
        d_weight[e] += lam
        d_delay[e] += shift
        total += shift
    return total


@compiled(**EXACT_BARE_INLINE)
def spike_back(neurons, kinds, costates, spikes, s, error, n, d):
    """Back over spike s, of neuron n, whose time has the cotangent `error` beside its jumps (6.4); False where it grazes."""
    y, kind, n_c, n_j = costates.y[n], kinds.of[n], kinds.rate.shape[1], len(neurons.jump)
    lam_v, factor = y[LAM_V], neurons.reset_factor[n]
    error += lam_v * factor * spikes.rise[s]
    for j in range(n_j):
        p = n_c - n_j + j
        error += y[COSTATES + p] * neurons.jump[j, n] * kinds.rate[kind, p]
    for m in range(len(neurons.th_jump)):
        error += y[COSTATES + n_c + m] * neurons.th_jump[m, n] * kinds.th_rate[kind, m]
    if error != 0.0 and not spikes.speed[s] > 0.0:
        return False
    passed = error / spikes.speed[s] if error != 0.0 else 0.0
    for j in range(n_j):
        k = COSTATES + n_c - n_j + j
        d.jump[j, n] += y[k]
        y[k] *= neurons.scale[j, n]
    for m in range(len(neurons.th_jump)):
        k = COSTATES + n_c + m
        d.th_jump[m, n] += y[k]
        y[k] = neurons.th_scale[m, n] * y[k] + passed
    d.v_reset[n] += lam_v
    d.reset_factor[n] += lam_v * spikes.over[s]
    d.v_th[n] += passed - factor * lam_v
    y[LAM_V], costates.held[n] = factor * lam_v - passed, False
    return True


@compiled(**EXACT_BARE_INLINE)
def of_scales(neurons, kinds, costates, n, x, d):
    """What a spike of neuron n adds to the gradients of scales, from the state x before it."""
    y, n_c, n_j = costates.y[n], kinds.rate.shape[1], len(neurons.jump)
    for j in range(n_j):
        d.scale[j, n] += y[COSTATES + n_c - n_j + j] * x[1 + n_c - n_j + j]
    for m in range(len(neurons.th_jump)):
        d.th_scale[m, n] += y[COSTATES + n_c + m] * x[1 + n_c + m]


@compiled(**EXACT_BARE)
def read_probe(kinds, costates, cotangents, probe, b):
    """Add what a loss asks of the states at a probe."""
    n_c = kinds.rate.shape[1]
    for n in range(len(kinds.of)):
        y = costates.y[n]
        y[LAM_V] += cotangents.v[probe, b, n]
        for p in range(n_c):
            y[COSTATES + p] += cotangents.c[probe, b, p, n]
        for m in range(kinds.th_rate.shape[1]):
            y[COSTATES + n_c + m] += cotangents.h[probe, b, m, n]


@compiled(**EXACT_BARE_INLINE)
def flush(costates, into, step, b):
    """What the biases have gathered over a step of the drive."""
    for n in range(len(costates.y)):
        into.neurons.bias[n] += costates.y[n, PUSHED]
        if len(into.drive) > 0:
            into.drive[step, b, n] = costates.y[n, PUSHED]
        costates.y[n, PUSHED] = 0.0


@compiled(**EXACT_BARE_INLINE)
def leave(kinds, costates, into, b):
    """The costate at time 0 is the gradient with respect to the state there."""
    n_c = kinds.rate.shape[1]
    for n in range(len(kinds.of)):
        y = costates.y[n]
        into.v[b, n] = y[LAM_V]
        for p in range(n_c):
            into.c[b, p, n] = y[COSTATES + p]
        for m in range(kinds.th_rate.shape[1]):
            into.h[b, m, n] = y[COSTATES + n_c + m]


@compiled(**EXACT_PIECE)
def _rows(layer, history, neurons, b):
    """Rows of the stack of sample b."""
    log, rows = history.log, neurons
    for e in range(history.log_first[b], history.log_first[b + 1]):
        what, q = log.kind[e], log.target[e]
        if what == ARRIVAL:
            rows += layer.incoming.edge[q + 1] - layer.incoming.edge[q]
        elif what == RECURRENT:
            rows += layer.recurrent.edge[q + 1] - layer.recurrent.edge[q]
        elif what in (PROBE, DRIVE):
            rows += neurons
        else:
            rows += 2 if what == SPIKE else 1
    return rows


@compiled(**EXACT_BARE)
def _replay(layer, kinds, inputs, start, drive, history, b, cells, stack):
    """Fill the stack of sample b."""
    neurons, log, row = layer.neurons, history.log, 0
    begin(neurons, kinds, cells, start, drive, b)
    for n in range(len(kinds.of)):
        row = _keep(cells, n, stack, row)
    for e in range(history.log_first[b], history.log_first[b + 1]):
        what, n, t = log.kind[e], log.target[e], log.time[e]
        if what == ARRIVAL:
            row = _arrive(layer.incoming, kinds, cells, n, t, stack, row)
        elif what == RECURRENT:
            row = _arrive(layer.recurrent, kinds, cells, n, t, stack, row)
        elif what in (SPIKE, RELEASE):
            advance(kinds, cells, n, t)
            if what == SPIKE:
                row = _keep(cells, n, stack, row)
                leap(neurons, cells.x[n], n, kinds.rate.shape[1])
            cells.waits[n] = HELD if what == SPIKE else SAFELY
            row = _keep(cells, n, stack, row)
        else:
            for m in range(len(kinds.of)):
                advance(kinds, cells, m, t)
                if what == DRIVE:
                    cells.x[m, BIAS] = neurons.bias[m] + drive[log.ref[e], b, m]
                row = _keep(cells, m, stack, row)


@compiled(**EXACT_BARE)
def _arrive(wiring, kinds, cells, group, t, stack, row):
    """A spike arrives through a group of synapses."""
    for e in range(wiring.edge[group], wiring.edge[group + 1]):
        n = wiring.post[e]
        advance(kinds, cells, n, t)
        cells.x[n, CURRENTS + wiring.receptor[e]] += wiring.weight[e]
        row = _keep(cells, n, stack, row)
    return row


@compiled(**EXACT_BARE_INLINE)
def _keep(cells, n, stack, row):
    """Put the state of neuron n on the stack; returns the next row."""
    stack[row, 0] = cells.x[n, V]
    for k in range(CURRENTS, cells.x.shape[1]):
        stack[row, 1 + k - CURRENTS] = cells.x[n, k]
    return row + 1
