"""What generalised LIF neurons do by themselves from one time at which all stand to the next arrival, step or probe.

Those that a bound does not rule out are searched together, and again from their releases; what they do is written in a book, in
order. Where a spike arrives within that time, it ends there.
"""

from math import inf
from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.feedforward import merge_sort
from adjsnn.lif.cpu.glif_cell import share
from adjsnn.lif.cpu.glif_kernels import CURRENTS, E_BIAS, SHARED
from adjsnn.lif.cpu.glif_lanes import BEGIN, DRIVEN, F1, RISE, START, TH, VECTOR, WAIT, filled, look, search
from adjsnn.lif.cpu.glif_lanes import SPAN as LOOKED
from adjsnn.lif.glif.errors import AT_THRESHOLD
from adjsnn.lif.layer import RELEASE, SPIKE
from adjsnn.numerics.compiled import EXACT_BARE, EXACT_BARE_INLINE, EXACT_PIECE, compiled

NOW, LASTING, FAILING = range(3)  # places in Columns.clock
BOTH = -1  # a spike and its release at the same instant, in Book.what
HELD, BOOKED, FAILED = range(3)  # places in Columns.size
SHORTEST = 2.0**-6  # of the time to the next stop, an interval that is looked at


class Book(NamedTuple):
    """What neurons do by themselves in an interval.

    Attributes:
        time: (E,), ms.
        what: (E,), SPIKE, RELEASE or BOTH.
        neuron: (E,).
        next: (E,), of a spike the time of the release, ms.
        rise: (E,), v̇ before a spike.
        freed: (E,), v̇ after a release.
        speed: (E,), v̇ - θ̇ before a spike.
        over: (E,), v - v_th before it.
        state: (E, 1 + P + H), v, c and h just after it.
        order: (E,), places in the order of time.
        sorted: (E,), the times.
        spare: (E,).
        spare_order: (E,).
    """

    time: np.ndarray
    what: np.ndarray
    neuron: np.ndarray
    next: np.ndarray
    rise: np.ndarray
    freed: np.ndarray
    speed: np.ndarray
    over: np.ndarray
    state: np.ndarray
    order: np.ndarray
    sorted: np.ndarray
    spare: np.ndarray
    spare_order: np.ndarray


class Columns(NamedTuple):
    """The neurons of a sample, all at one time.

    Attributes:
        x: (1 + P + H, N), v, c and h.
        bias: (N,), b and the present step of the drive together.
        free: (N,), 1, or 0 where a neuron is held.
        release: (N,), when those that are held are released, ms.
        spike_of: (N,), the last spike of each that is held, counted in the group of samples.
        fired: (N,), spikes so far.
        last: (N,), the last entry of each in the book, or -1.
        list: (N,), neurons to look at, or those of the book.
        marks: (N,), which to look at.
        v_th: (N,), threshold.
        limits: (4, N), room for what a bound sums; of the thresholds 0 where none moves.
        soonest: (N,), how long the first arrival of a spike takes, ms.
        clock: (3,), the present time, about how long the next arrival is waited for, when a neuron is above its threshold, ms.
        size: (3,), how many are held, how many entries the book has, the neuron that is above its threshold.
        shared: exponentials of `glif_cell.share`.
        ahead: a row of `glif_cell`.
        work: room for `first_crossing`.
    """

    x: np.ndarray
    bias: np.ndarray
    free: np.ndarray
    release: np.ndarray
    spike_of: np.ndarray
    fired: np.ndarray
    last: np.ndarray
    list: np.ndarray
    marks: np.ndarray
    v_th: np.ndarray
    limits: np.ndarray
    soonest: np.ndarray
    clock: np.ndarray
    size: np.ndarray
    shared: np.ndarray
    ahead: np.ndarray
    work: np.ndarray


@compiled(**EXACT_PIECE)
def columns_of(kinds, n, rows):
    """Memory for n neurons."""
    terms = kinds.slot.shape[1]
    return Columns(
        np.empty((rows, n)), np.empty(n), np.empty(n), np.empty(n), np.empty(n, np.int64), np.empty(n, np.int64),
        np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n), np.zeros((4, n)), np.empty(n),
        np.empty(3), np.empty(3, np.int64), np.empty(SHARED + 2 * terms), np.empty(CURRENTS + terms - 1),
        np.empty((terms + 1, 3, terms + 2)),
    )  # fmt: skip


@compiled(**EXACT_PIECE)
def book_of(n, rows):
    """Memory for n entries."""
    return Book(
        np.empty(n), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n), np.empty(n), np.empty(n), np.empty(n),
        np.empty(n), np.empty((n, rows)), np.empty(n, np.int64), np.empty(n), np.empty(n), np.empty(n, np.int64),
    )  # fmt: skip


@compiled(**EXACT_BARE_INLINE)
def feed(kinds, shared, x, bias, fed):
    """What drives v of all neurons over the span that the shared numbers are of, and their currents and thresholds after it."""
    neurons, n_c, e_bias = len(bias), kinds.rate.shape[1], shared[E_BIAS]
    if n_c == 0:
        for n in range(neurons):
            fed[n] = bias[n] * e_bias
    for p in range(n_c):
        c, e, k = x[1 + p], shared[SHARED + 2 * p], shared[SHARED + 2 * p + 1]
        if p == 0:
            for n in range(neurons):
                fed[n] = bias[n] * e_bias + c[n] * k
                c[n] *= e
        else:
            for n in range(neurons):
                fed[n] += c[n] * k
                c[n] *= e
    for m in range(kinds.th_rate.shape[1]):
        h, e = x[1 + n_c + m], shared[SHARED + 2 * n_c + m]
        for n in range(neurons):
            h[n] *= e


@compiled(**EXACT_BARE_INLINE)
def alone(neurons, kinds, columns, lanes, book, stop, limit):
    """Write in the book what neurons do by themselves up to a stop, in order, and which of them is above its threshold.

    Returns:
        until when that is all there is: the stop, or when the first of the spikes arrives, or the book is full.
    """
    now, room = columns.clock[NOW], len(book.time)
    reach = min(stop, now + max(1.2 * columns.clock[LASTING], SHORTEST * (stop - now)))
    while True:
        columns.size[BOOKED], columns.size[FAILED], columns.clock[FAILING] = 0, -1, inf
        until, wave = reach, 0
        count = _candidates(kinds, columns, lanes, reach)
        if columns.size[HELD] > 0:
            count = _released(kinds, columns, lanes, book, count, until)
        while count > 0:
            count, until = _of_wave(neurons, kinds, columns, lanes, book, count, until)
            wave += 1
            if wave > limit or columns.size[BOOKED] + 2 * count > room:
                for j in range(count):
                    until = min(until, lanes.of[BEGIN, j])
                count = np.int64(0)
        if columns.size[BOOKED] > 0:
            _in_order(columns, book, until)
        if columns.clock[FAILING] > until:
            columns.size[FAILED] = -1
        if columns.size[BOOKED] > 0 or columns.size[FAILED] >= 0 or not reach < stop:
            if until < stop:
                lasting, span = columns.clock[LASTING], until - now
                columns.clock[LASTING] = span if lasting == inf else 0.75 * lasting + 0.25 * span
            return until
        reach = min(stop, now + 4.0 * (reach - now))


@compiled(**EXACT_BARE_INLINE)
def _sums(kinds, columns):
    """What the bound sums of all neurons, in `limits`: b + Σ c, Σ (-c r where c < 0), Σ h, Σ (s h where h > 0); returns the
    slowest r and s."""
    n_c, neurons, x, bias, limits = kinds.rate.shape[1], len(columns.bias), columns.x, columns.bias, columns.limits
    current, bend, raised, falls = limits[0], limits[1], limits[2], limits[3]
    slowest, slow_th = inf, inf
    for p in range(n_c):
        c, r = x[1 + p], kinds.rate[0, p]
        slowest = min(slowest, r)
        if p == 0:
            for n in range(neurons):
                current[n] = bias[n] + c[n]
                bend[n] = -(c[n] if c[n] < 0.0 else 0.0) * r
        else:
            for n in range(neurons):
                current[n] += c[n]
                bend[n] -= (c[n] if c[n] < 0.0 else 0.0) * r
    if n_c == 0:
        for n in range(neurons):
            current[n], bend[n] = bias[n], 0.0
    for m in range(kinds.th_rate.shape[1]):
        h, s = x[1 + n_c + m], kinds.th_rate[0, m]
        slow_th = min(slow_th, s)
        if m == 0:
            for n in range(neurons):
                raised[n] = h[n]
                falls[n] = (h[n] if h[n] > 0.0 else 0.0) * s
        else:
            for n in range(neurons):
                raised[n] += h[n]
                falls[n] += (h[n] if h[n] > 0.0 else 0.0) * s
    return slowest, slow_th


@compiled(**EXACT_BARE_INLINE)
def _candidates(kinds, columns, lanes, reach):
    """Put those neurons in lanes that the bound of `glif_cell.bound` cannot rule out; returns their number."""
    gain, mu, neurons = kinds.gain[0], kinds.leak_rate[0], len(columns.bias)
    span, some, x, bias = reach - columns.clock[NOW], np.int64(0), columns.x, columns.bias
    v, v_th, marks, free, limits = x[0], columns.v_th, columns.marks, columns.free, columns.limits
    current, bend, raised, falls = limits[0], limits[1], limits[2], limits[3]
    slowest, slow_th = _sums(kinds, columns)
    # Sums of sizes leave room for rounding. Σ|c| = Σ c + 2 Σ (-c where c < 0), and that is no more than `bend` by the slowest.
    negative, positive = 2.0 / slowest, 2.0 / slow_th
    for n in range(neurons):
        size = current[n] + negative * bend[n] + 2.0 * abs(bias[n])
        climb = gain * current[n] - mu * v[n] + 2.0**-40 * (gain * size + mu * abs(v[n]))
        slope = (climb if climb > 0.0 else 0.0) + falls[n]
        near = abs(v[n]) + abs(v_th[n]) + (positive * falls[n] - raised[n])
        way = (1.0 - 2.0**-20) * (v_th[n] - v[n] + raised[n]) - 2.0**-36 * near
        mark = (free[n] > 0.0) & (not way > span * (slope + span * (0.5 * gain * bend[n])))
        marks[n] = mark
        some |= mark
    if not some:
        return np.int64(0)
    count, whole = np.int64(0), neurons // VECTOR * VECTOR
    for low in range(0, neurons, VECTOR):
        if low < whole:  # few are marked, most often none of so many
            there = np.int64(0)
            for n in range(low, low + VECTOR):
                there |= marks[n]
            if there == 0:
                continue
        for n in range(low, min(low + VECTOR, neurons)):
            columns.list[count] = n
            count += marks[n]
    begin, driven, th = lanes.of[BEGIN], lanes.of[DRIVEN], lanes.of[TH]
    for j in range(count):
        n = columns.list[j]
        lanes.neuron[j], begin[j], driven[j], th[j] = n, columns.clock[NOW], bias[n], v_th[n]
    for q in range(len(x)):
        for j in range(count):
            lanes.x[q, j] = x[q, columns.list[j]]
    return count


@compiled(**EXACT_BARE)
def _released(kinds, columns, lanes, book, count, until):
    """Book releases of neurons that are held, and put these in lanes behind the first `count`."""
    n_c, x, shared = kinds.rate.shape[1], columns.x, columns.shared
    for n in range(len(columns.bias)):
        if columns.free[n] > 0.0 or columns.release[n] > until:
            continue
        t = columns.release[n]
        share(kinds, shared, 0, t - columns.clock[NOW])
        lanes.x[0, count] = x[0, n]
        for p in range(n_c):
            lanes.x[1 + p, count] = x[1 + p, n] * shared[SHARED + 2 * p]
        for m in range(kinds.th_rate.shape[1]):
            lanes.x[1 + n_c + m, count] = x[1 + n_c + m, n] * shared[SHARED + 2 * n_c + m]
        lanes.neuron[count], lanes.of[BEGIN, count], lanes.of[DRIVEN, count] = n, t, columns.bias[n]
        lanes.of[TH, count] = columns.v_th[n]
        _book_release(kinds, columns, lanes, book, count)
        count += 1
    return count


@compiled(**EXACT_BARE_INLINE)
def _book_release(kinds, columns, lanes, book, j):
    """The release of the neuron in lane j, at its beginning."""
    e = columns.size[BOOKED]
    for q in range(len(lanes.x)):
        book.state[e, q] = lanes.x[q, j]
    book.time[e], book.what[e], book.neuron[e] = lanes.of[BEGIN, j], RELEASE, lanes.neuron[j]
    book.freed[e] = _freed(kinds, lanes, j)
    columns.size[BOOKED] += 1


@compiled(**EXACT_BARE_INLINE)
def _freed(kinds, lanes, j):
    """v̇ at the beginning of lane j."""
    current = lanes.of[DRIVEN, j]
    for p in range(kinds.rate.shape[1]):
        current += lanes.x[1 + p, j]
    return kinds.gain[0] * current - kinds.leak_rate[0] * lanes.x[0, j]


@compiled(**EXACT_BARE_INLINE)
def _of_wave(neurons, kinds, columns, lanes, book, count, until):
    """Book the next spikes of the neurons in lanes, and their releases; returns how many go on from there, and until when."""
    of, x, y, n_c, n_j = lanes.of, lanes.x, lanes.y, kinds.rate.shape[1], len(neurons.jump)
    for j in range(count):
        of[LOOKED, j] = until - of[BEGIN, j]
    look(kinds, lanes, filled(count))
    for j in range(count):
        if of[START, j] > 0.0:
            size = abs(x[0, j]) + abs(of[TH, j])
            for q in range(1 + n_c, len(x)):
                size += abs(x[q, j])
            if of[START, j] > AT_THRESHOLD * size and of[BEGIN, j] < columns.clock[FAILING]:
                columns.clock[FAILING], columns.size[FAILED] = of[BEGIN, j], lanes.neuron[j]
    end, until = until, min(until, columns.clock[FAILING])
    count = search(kinds, lanes, count, columns.ahead, columns.work)
    for j in range(count):
        if of[WAIT, j] < inf:
            until = min(until, min(of[BEGIN, j] + of[WAIT, j], end) + columns.soonest[lanes.neuron[j]])
    left = np.int64(0)
    for j in range(count):
        n, t, e = lanes.neuron[j], min(of[BEGIN, j] + of[WAIT, j], end), columns.size[BOOKED]
        if of[WAIT, j] == inf or t > until:
            continue
        book.time[e], book.what[e], book.neuron[e], book.next[e] = t, SPIKE, n, t + neurons.refractory[n]
        book.rise[e], book.speed[e], book.over[e] = of[RISE, j], of[F1, j], y[0, j] - of[TH, j]
        columns.size[BOOKED] += 1
        state = book.state[e]
        state[0] = neurons.reset_factor[n] * (y[0, j] - of[TH, j]) + neurons.v_reset[n]
        for q in range(1, len(x)):
            state[q] = y[q, j]
        for i in range(n_j):
            at = 1 + n_c - n_j + i
            state[at] = neurons.scale[i, n] * state[at] + neurons.jump[i, n]
        for m in range(len(neurons.th_jump)):
            at = 1 + n_c + m
            state[at] = neurons.th_scale[m, n] * state[at] + neurons.th_jump[m, n]
        if book.next[e] > until:
            continue
        lanes.neuron[left], of[BEGIN, left], of[DRIVEN, left], of[TH, left] = n, book.next[e], of[DRIVEN, j], of[TH, j]
        for q in range(len(x)):
            x[q, left] = state[q]
        if book.next[e] > t:
            share(kinds, columns.shared, 0, book.next[e] - t)
            for p in range(n_c):
                x[1 + p, left] *= columns.shared[SHARED + 2 * p]
            for m in range(len(neurons.th_jump)):
                x[1 + n_c + m, left] *= columns.shared[SHARED + 2 * n_c + m]
            _book_release(kinds, columns, lanes, book, left)
        else:
            book.what[e], book.freed[e] = BOTH, _freed(kinds, lanes, left)
        left += book.next[e] < until  # at the end it is all neurons' turn again
    return left, until


@compiled(**EXACT_BARE_INLINE)
def _in_order(columns, book, until):
    """Sort what is in the book by its end; of equal times the first neuron stays first."""
    count, time, order = np.int64(0), book.sorted, book.order
    for e in range(columns.size[BOOKED]):
        if book.time[e] <= until:
            time[count], order[count] = book.time[e], e
            count += 1
    columns.size[BOOKED] = count
    merge_sort(time, order, count, book.spare, book.spare_order)
    for k in range(1, count):
        e, j = order[k], k
        while j > 0 and time[j - 1] == time[k] and book.neuron[order[j - 1]] > book.neuron[e]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = e
