"""Generalised LIF neurons of one kind in columns, a lane for each: their flow, and where they first cross, equation (6.3).

Every formula runs down the columns by vector instructions. Where g changes its sign once at most, or is positive up to the end,
f rises through 0 once at most: the ends of the interval, and the maximum of e^{μt} f where that lies in between, tell whether
it does. The rest, which is rare, is searched one by one by `glif_cell.first_crossing`.
"""

from math import inf
from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.elementary import exponential, fades, logarithm
from adjsnn.lif.cpu.glif_cell import first_crossing
from adjsnn.lif.cpu.glif_kernels import BIAS, CURRENTS, V_TH, V
from adjsnn.numerics.compiled import EXACT_BARE, EXACT_BARE_INLINE, EXACT_PIECE, compiled

NEVER, BUMP, CROSSES, UNSURE = range(4)  # what is known of a lane: it is below at the end, but may have been above before
PEAKS = 3  # approximations of a maximum
TURNS = 7  # of a crossing; each has about four times as many digits, and the last ones are of rounding
NEAR = 16.0  # roundings of f, within which a neuron is at its threshold
TINY = 1e-300

# Rows of Lanes.of
BEGIN, DRIVEN, TH, SPAN, SIZE, HIGH, WAY, F1, F2, F3, START, FIRST, WAIT, RISE, E_LEAK, FED, PLUS, MINUS, CHANGES = range(19)
KEPT, NUMBERS = 10, 19  # the first rows are what is known of a neuron, the others are for the moment
VECTOR = 8  # lanes that one instruction takes; columns are filled up to a multiple of them


class Lanes(NamedTuple):
    """Neurons of one kind, each from its own time on.

    Attributes:
        neuron: (L,), which.
        known: (L,), NEVER, BUMP, CROSSES or UNSURE.
        of: (19, L), numbers of each: BEGIN its time, ms; DRIVEN b and the drive; TH v_th; SPAN how long it is looked at; SIZE
            of what f is a sum of; START f at the beginning; FIRST g there; HIGH no crossing comes later; WAIT how long it is to
            the crossing, inf for none; others are for the search.
        x: (1 + P + H, L), v, c and h at the beginning.
        y: (1 + P + H, L), these at the crossing.
        term: (1 + P + H, L), the terms of g.
    """

    neuron: np.ndarray
    known: np.ndarray
    of: np.ndarray
    x: np.ndarray
    y: np.ndarray
    term: np.ndarray


@compiled(**EXACT_PIECE)
def lanes_of(count, rows):
    """Memory for so many lanes, and those that fill up a vector."""
    count += VECTOR
    return Lanes(
        np.empty(count, np.int64),
        np.empty(count, np.int64),
        np.zeros((NUMBERS, count)),
        np.zeros((rows, count)),
        np.zeros((rows, count)),
        np.zeros((rows, count)),
    )


@compiled(**EXACT_BARE)
def carry(mu, gain, rate, th_rate, of, x, y, count, after):
    """States y of the first lanes after the times in row `after`, as `glif_cell.move`.

    A call with all arrays of kinds and lanes for arguments would take as long as all this for eight lanes.
    """
    n_c, t = len(rate), of[after]
    fed, e_leak, driven, v, v_after = of[FED], of[E_LEAK], of[DRIVEN], x[0], y[0]
    per_mu = 1.0 / mu if mu > 0.0 else 1.0
    for j in range(count):
        e_leak[j], lost = fades(mu * t[j])
        fed[j] = driven[j] * (lost * per_mu if mu > 0.0 else t[j])
    for p in range(n_c):
        r = rate[p]
        c, c_after, apart = x[1 + p], y[1 + p], r - mu
        per = 1.0 / abs(apart) if apart != 0.0 else 1.0
        if apart == 0.0:
            for j in range(count):
                fed[j] += c[j] * t[j] * e_leak[j]
                c_after[j] = c[j] * e_leak[j]
        elif apart > 0.0:
            for j in range(count):
                left, lost = fades(apart * t[j])
                fed[j] += c[j] * (e_leak[j] * lost * per)
                c_after[j] = c[j] * (e_leak[j] * left)
        else:
            for j in range(count):
                left, lost = fades(-apart * t[j])
                slow = exponential(-r * t[j])
                fed[j] += c[j] * (slow * lost * per)
                c_after[j] = c[j] * slow
    for m in range(len(th_rate)):
        s = th_rate[m]
        h, h_after = x[1 + n_c + m], y[1 + n_c + m]
        for j in range(count):
            h_after[j] = h[j] * exponential(-s * t[j])
    for j in range(count):
        v_after[j] = v[j] * e_leak[j] + gain * fed[j]


@compiled(**EXACT_BARE)
def slopes(mu, gain, rate, th_rate, of, y, count):
    """WAY = -f, RISE = v̇ and the first three derivatives of f in the states y."""
    n_c = len(rate)
    way, rise, f1, f2, f3, driven, th, v = of[WAY], of[RISE], of[F1], of[F2], of[F3], of[DRIVEN], of[TH], y[0]
    for j in range(count):
        f1[j], f2[j], f3[j] = driven[j], 0.0, 0.0
    for p in range(n_c):
        r, c = rate[p], y[1 + p]
        for j in range(count):
            f1[j] += c[j]
            f2[j] += r * c[j]
            f3[j] += r * r * c[j]
    for j in range(count):
        way[j] = th[j] - v[j]
        rise[j] = gain * f1[j] - mu * v[j]
        f1[j] = rise[j]
        f2[j] = -mu * rise[j] - gain * f2[j]
        f3[j] = -mu * f2[j] + gain * f3[j]
    for m in range(len(th_rate)):
        s, h = th_rate[m], y[1 + n_c + m]
        for j in range(count):
            way[j] += h[j]
            f1[j] += s * h[j]
            f2[j] -= s * s * h[j]
            f3[j] += s * s * s * h[j]


@compiled(**EXACT_BARE_INLINE)
def approach(way, f1, f2, f3):
    """How long f takes for a way, forwards or back, by its first three derivatives."""
    left = f1 * f1 + 2.0 * f2 * way
    first = 2.0 * way / (f1 + np.sqrt(left if left > 0.0 else 0.0))
    second = f1 * f1 + 2.0 * (f2 + f3 * first * (1.0 / 3.0)) * way
    return 2.0 * way / (f1 + np.sqrt(second if (left > 0.0) & (second > 0.0) else f1 * f1))


@compiled(**EXACT_BARE_INLINE)
def filled(count):
    """So many lanes as vectors."""
    return (count + VECTOR - 1) // VECTOR * VECTOR


@compiled(**EXACT_BARE_INLINE)
def search(kinds, lanes, count, ahead, work):
    """When the neurons in the first lanes, after `look`, cross within SPAN: WAIT, and the states there in y, of which `slopes`.

    Args:
        ahead: a row of `glif_cell`.
        work: room for `first_crossing`.

    Returns:
        how many lanes are left; those of which it is soon clear that they do not cross are dropped.
    """
    of, all_of = lanes.of, filled(count)
    mu, gain, rate, th_rate = kinds.leak_rate[0], kinds.gain[0], kinds.rate[0], kinds.th_rate[0]
    carry(mu, gain, rate, th_rate, of, lanes.x, lanes.y, all_of, SPAN)
    slopes(mu, gain, rate, th_rate, of, lanes.y, all_of)
    _sort_out(kinds, lanes, all_of)
    bumps, count = _arrange(lanes, count)
    if bumps > 0:
        _peak(kinds, lanes, filled(bumps), bumps)
        bumps, count = _arrange(lanes, count)
    all_of = filled(count)
    for j in range(count, all_of):
        lanes.known[j] = NEVER
    if count == 0:
        return count
    _start(kinds, lanes, all_of)
    for _ in range(TURNS):
        carry(mu, gain, rate, th_rate, of, lanes.x, lanes.y, all_of, WAIT)
        slopes(mu, gain, rate, th_rate, of, lanes.y, all_of)
        if not _turn(lanes, all_of):
            break
    if _one_by_one(kinds, lanes, count, ahead, work):
        carry(mu, gain, rate, th_rate, of, lanes.x, lanes.y, all_of, WAIT)
        slopes(mu, gain, rate, th_rate, of, lanes.y, all_of)
    return count


@compiled(**EXACT_BARE_INLINE)
def look(kinds, lanes, count):
    """START, SIZE, the terms of g, slowest first, and how often they change their sign."""
    mu, gain, n_c = kinds.leak_rate[0], kinds.gain[0], kinds.rate.shape[1]
    of, x, term = lanes.of, lanes.x, lanes.term
    start, size, first, changes, last = of[START], of[SIZE], of[FIRST], of[CHANGES], of[PLUS]
    driven, th, span, v = of[DRIVEN], of[TH], of[SPAN], x[0]
    for q in range(len(term)):
        row = term[q]
        for j in range(count):
            row[j] = 0.0
    row = term[0]
    for j in range(count):
        row[j] = gain * driven[j] - mu * th[j]
        start[j] = v[j] - th[j]
        size[j] = abs(v[j]) + abs(th[j]) + abs(driven[j]) * (gain / mu if mu > 0.0 else span[j] * gain)
    for p in range(n_c):
        row, c, most = term[kinds.slot[0, 1 + p]], x[1 + p], gain * kinds.most[0, p]
        for j in range(count):
            row[j] += gain * c[j]
            size[j] += abs(c[j]) * (most if mu > 0.0 or most < gain * span[j] else gain * span[j])
    for m in range(kinds.th_rate.shape[1]):
        row, h, s = term[kinds.slot[0, 1 + n_c + m]], x[1 + n_c + m], kinds.th_rate[0, m]
        for j in range(count):
            row[j] += (s - mu) * h[j]
            start[j] -= h[j]
            size[j] += abs(h[j])
    for j in range(count):
        first[j], changes[j], last[j] = 0.0, 0.0, 0.0
    for q in range(kinds.slots[0]):
        row = term[q]
        for j in range(count):
            sign = 1.0 if row[j] > 0.0 else (-1.0 if row[j] < 0.0 else last[j])
            first[j] += row[j]
            changes[j] += 1.0 if sign * last[j] < 0.0 else 0.0
            last[j] = sign


@compiled(**EXACT_BARE_INLINE)
def _sort_out(kinds, lanes, count):
    """What is known of each lane, from its states at both ends."""
    mu, gain, n_c = kinds.leak_rate[0], kinds.gain[0], kinds.rate.shape[1]
    of, x, y, known = lanes.of, lanes.x, lanes.y, lanes.known
    start, size, first, changes, last = of[START], of[SIZE], of[FIRST], of[CHANGES], of[PLUS]
    way, f1, span, high, low, most = of[WAY], of[F1], of[SPAN], of[HIGH], of[FED], of[E_LEAK]
    driven, th = of[DRIVEN], of[TH]
    for j in range(count):
        low[j] = most[j] = gain * driven[j] - mu * th[j]
    for p in range(n_c):
        c, c_end = x[1 + p], y[1 + p]
        for j in range(count):
            low[j] += gain * (c[j] if c[j] < c_end[j] else c_end[j])
            most[j] += gain * (c_end[j] if c[j] < c_end[j] else c[j])
    for m in range(kinds.th_rate.shape[1]):
        s, h, h_end = kinds.th_rate[0, m] - mu, x[1 + n_c + m], y[1 + n_c + m]
        for j in range(count):
            low[j] += s * h[j] if s * h[j] < s * h_end[j] else s * h_end[j]
            most[j] += s * h_end[j] if s * h[j] < s * h_end[j] else s * h[j]
    for j in range(count):
        room = size[j] * (2.0**-40 * mu + (2.0**-60 if mu > 0.0 else 2.0**-50) / (span[j] + TINY))  # of rounding in sums of g
        below = start[j] < -(2.0**-44) * size[j]
        climbs = low[j] > room
        usual = below & ((changes[j] <= 1.0) | climbs) & ((mu == 0.0) | (gain * driven[j] != mu * th[j]))
        through = usual & (way[j] <= 0.0)
        peaks = (changes[j] == 1.0) & (last[j] > 0.0) & (first[j] > 0.0) & (f1[j] - mu * way[j] < 0.0) & (not climbs)
        under = below & ((most[j] < -room) | (usual & (way[j] > 0.0) & (not peaks)))
        known[j] = NEVER if under else (CROSSES if through else (BUMP if usual else UNSURE))
        high[j] = span[j]


@compiled(**EXACT_BARE_INLINE)
def _arrange(lanes, count):
    """Those that never cross are dropped, and bumps stand in front; returns how many these are, and all that are left."""
    bumps, left, known = np.int64(0), np.int64(0), lanes.known
    for j in range(count):
        left += known[j] != NEVER
        bumps += known[j] == BUMP
    if bumps == 0 and filled(left) == filled(count):  # nothing is won
        return bumps, count
    bumps = left = np.int64(0)
    for j in range(count):
        now = known[j]
        if now == NEVER:
            continue
        if left < j:
            _put(lanes, j, left)
            known[left] = now
        if now == BUMP:
            if bumps < left:
                _swap(lanes, bumps, left)
            bumps += 1
        left += 1
    return bumps, left


@compiled(**EXACT_BARE_INLINE)
def _put(lanes, j, k):
    """Copy lane j to lane k."""
    of, x, term = lanes.of, lanes.x, lanes.term
    lanes.neuron[k] = lanes.neuron[j]
    for q in range(KEPT):
        of[q, k] = of[q, j]
    for q in range(len(x)):
        x[q, k], term[q, k] = x[q, j], term[q, j]


@compiled(**EXACT_BARE_INLINE)
def _swap(lanes, j, k):
    """Lanes j and k change their places."""
    of, x, term = lanes.of, lanes.x, lanes.term
    lanes.neuron[j], lanes.neuron[k] = lanes.neuron[k], lanes.neuron[j]
    lanes.known[j], lanes.known[k] = lanes.known[k], lanes.known[j]
    for q in range(KEPT):
        of[q, j], of[q, k] = of[q, k], of[q, j]
    for q in range(len(x)):
        x[q, j], x[q, k] = x[q, k], x[q, j]
        term[q, j], term[q, k] = term[q, k], term[q, j]


@compiled(**EXACT_BARE_INLINE)
def _peak(kinds, lanes, count, bumps):
    """HIGH at the zero of g, where its positive terms, all faster than the negative ones, come to be as small as these.

    The logarithm of their ratio is nearly linear in time.
    """
    mu, gain, rate, th_rate = kinds.leak_rate[0], kinds.gain[0], kinds.rate[0], kinds.th_rate[0]
    of, known = lanes.of, lanes.known
    t, plus, minus, plus_rate, minus_rate = of[HIGH], of[PLUS], of[MINUS], of[WAIT], of[RISE]
    span, size = of[SPAN], of[SIZE]
    for j in range(count):
        t[j] = 0.0
    for _ in range(PEAKS):
        for j in range(count):
            plus[j], minus[j], plus_rate[j], minus_rate[j] = 0.0, 0.0, 0.0, 0.0
        for q in range(kinds.slots[0]):
            r, row = kinds.slot_rate[0, q], lanes.term[q]
            for j in range(count):
                e = row[j] * exponential(-r * t[j]) if r > 0.0 else row[j]
                up, down = e if e > 0.0 else 0.0, e if e < 0.0 else 0.0
                plus[j] += up
                minus[j] -= down
                plus_rate[j] += r * up
                minus_rate[j] -= r * down
        for j in range(count):
            ratio = plus[j] / minus[j]
            apart = plus_rate[j] / plus[j] - minus_rate[j] / minus[j]
            new = t[j] + logarithm(ratio if (ratio > TINY) & (ratio < 1e300) else 1.0) / apart
            t[j] = (new if new < span[j] else span[j]) if new > 0.0 else 0.0
    carry(mu, gain, rate, th_rate, of, lanes.x, lanes.y, count, HIGH)
    slopes(mu, gain, rate, th_rate, of, lanes.y, count)
    way, f1, f2 = of[WAY], of[F1], of[F2]
    for j in range(bumps):
        g, bend, top = f1[j] - mu * way[j], f2[j] + mu * f1[j], -way[j]
        room = 8.0 * g * g / abs(bend) + 2.0**-36 * size[j]  # that it is higher at the zero itself
        sure = (bend < 0.0) & (abs(g) < 0.01 * span[j] * abs(bend))
        known[j] = NEVER if sure & (top < -room) else (CROSSES if top > 2.0**-40 * size[j] else UNSURE)


@compiled(**EXACT_BARE_INLINE)
def _start(kinds, lanes, count):
    """The first approximation: from the end that is nearer to the threshold."""
    of = lanes.of
    mu, gain, rate, th_rate = kinds.leak_rate[0], kinds.gain[0], kinds.rate[0], kinds.th_rate[0]
    way_b, f1_b, f2_b, f3_b = of[E_LEAK], of[FED], of[PLUS], of[MINUS]
    way, f1, f2, f3, wait, high = of[WAY], of[F1], of[F2], of[F3], of[WAIT], of[HIGH]
    for j in range(count):
        way_b[j], f1_b[j], f2_b[j], f3_b[j] = way[j], f1[j], f2[j], f3[j]
    slopes(mu, gain, rate, th_rate, of, lanes.x, count)
    for j in range(count):
        ahead, back = approach(way[j], f1[j], f2[j], f3[j]), approach(way_b[j], f1_b[j], f2_b[j], f3_b[j])
        from_end = (f1[j] <= 0.0) | ((-way_b[j] < way[j]) & (f1_b[j] >= 0.0))
        t = high[j] + back if from_end else ahead
        wait[j] = t if (t > 0.0) & (t < high[j]) else high[j]


@compiled(**EXACT_BARE_INLINE)
def _turn(lanes, count):
    """One step towards where f is above 0 by its rounding, of those that are not there; returns whether there are any."""
    of, known, some = lanes.of, lanes.known, np.int64(0)
    way, f1, f2, f3, wait, high, size = of[WAY], of[F1], of[F2], of[F3], of[WAIT], of[HIGH], of[SIZE]
    for j in range(count):
        rounding = 2.0**-53 * size[j]
        there = (way[j] <= 0.0) & (way[j] >= -NEAR * rounding)
        step = approach(way[j] + rounding, f1[j], f2[j], f3[j])
        least = 2.0**-52 * wait[j] if way[j] > 0.0 else step
        t = wait[j] + (step if step > least else least)
        t = (t if t < high[j] else high[j]) if t > 0.0 else 0.0
        wait[j] = wait[j] if there else t
        some |= (not there) & (known[j] == CROSSES)
    return some


@compiled(**EXACT_BARE)
def _one_by_one(kinds, lanes, count, ahead, work):
    """Those that have not come to their crossings, or of which it is not known whether they have one; returns if any."""
    of, x, some = lanes.of, lanes.x, False
    for j in range(count):
        known = lanes.known[j]
        there = (of[WAY, j] <= 0.0) & (of[WAY, j] >= -NEAR * 2.0**-53 * of[SIZE, j])
        if known == NEVER:
            of[WAIT, j] = inf
        elif known == UNSURE or not there:
            ahead[V], ahead[BIAS], ahead[V_TH] = x[0, j], of[DRIVEN, j], of[TH, j]
            for q in range(1, len(x)):
                ahead[CURRENTS + q - 1] = x[q, j]
            of[WAIT, j] = first_crossing(kinds, 0, ahead, work, of[SPAN, j], 0.0)
            some |= of[WAIT, j] < inf
    return some
