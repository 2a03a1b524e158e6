"""One generalised LIF neuron, compiled by numba: its flow, a bound on its next spike, and the first crossing, equation (6.3).

A neuron is a row of numbers: the time its state is of, until when it cannot spike, under which time it waits in the heap, v, b
and the drive, v_th, then c (P,) and h (H,), of which the last may follow the voltage. Neurons of equal rates are of one kind.
Rounding must stay what it is written as.
"""

from math import exp, inf, sqrt
from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.glif_follow import (
    followed,
    lowest,
    over_following,
    retreat,
    share_following,
    slope_of,
    slowest_following,
    terms_following,
)
from adjsnn.lif.cpu.glif_kernels import BIAS, CURRENTS, E_BIAS, E_MU, KIND, SHARED, SPAN, V_TH, V, fading, kernel
from adjsnn.lif.glif.arrays import Neurons
from adjsnn.numerics.compiled import EXACT_BARE, EXACT_BARE_INLINE, compiled

F_OF_FOLLOWING, G_OF_FOLLOWING = -2, -3  # in the place of a level, what `root` looks for


class Kinds(NamedTuple):
    """What the flow of N neurons depends on, of which U are different; T = 1 + P + H terms make up g of (6.3).

    Attributes:
        of: (N,), int64, the kind of each neuron.
        leak_rate: μ, (U,).
        gain: G, (U,).
        rate: r, (U, P).
        th_rate: s, (U, H).
        follow: κ, (U, 1), of the last of these, or (U, 0).
        most: (U, P), the largest value of K(μ, r, t), a little more.
        slots: (U,), int64, how many different rates the terms have.
        slot: (U, T), int64, which of them each term has: the constant, the currents, the thresholds.
        slot_rate: (U, T), these rates in rising order.
    """

    of: np.ndarray
    leak_rate: np.ndarray
    gain: np.ndarray
    rate: np.ndarray
    th_rate: np.ndarray
    follow: np.ndarray
    most: np.ndarray
    slots: np.ndarray
    slot: np.ndarray
    slot_rate: np.ndarray


def kinds_of(neurons: Neurons) -> Kinds:
    """Kinds of a layer's neurons."""
    rows = np.column_stack([neurons.leak_rate, neurons.gain, neurons.rate.T, neurons.th_rate.T, neurons.follow.T])
    table, of = np.unique(rows, axis=0, return_inverse=True)
    p, mu, end = len(neurons.rate), table[:, :1], 2 + len(neurons.rate) + len(neurons.th_rate)
    rate = np.ascontiguousarray(table[:, 2 : 2 + p])
    with np.errstate(divide="ignore", invalid="ignore"):
        away = rate - mu
        ratio = np.where(np.abs(away) < 0.5 * mu, np.log1p(away / mu), np.log(rate / mu))  # log1p loses a small rate over μ
        peak = np.where(away == 0.0, 1.0 / mu, ratio / away)
        most = np.where(mu > 0.0, np.exp(-mu * peak), 1.0) / rate * (1.0 + 1e-9)
    terms = np.column_stack([np.zeros(len(table)), table[:, 2:end]])
    order = terms.argsort(axis=1, kind="stable")
    rising = np.take_along_axis(terms, order, 1)
    number = np.zeros(terms.shape, np.int64)
    number[:, 1:] = (np.diff(rising, axis=1) > 0.0).cumsum(1)
    slot, slot_rate = np.zeros(terms.shape, np.int64), np.zeros(terms.shape)
    np.put_along_axis(slot, order, number, 1)
    np.put_along_axis(slot_rate, number, rising, 1)
    th_rate, follow = (np.ascontiguousarray(x) for x in (table[:, 2 + p : end], table[:, end:]))
    return Kinds(
        of.reshape(-1).astype(np.int64),
        np.ascontiguousarray(table[:, 0]),
        np.ascontiguousarray(table[:, 1]),
        rate,
        th_rate,
        follow,
        most,
        number[:, -1] + 1,
        slot,
        slot_rate,
    )


@compiled(**EXACT_BARE_INLINE)
def share(kinds, shared, kind, t):
    """The exponentials and kernels of a kind over t, unless they are there: e_μ, E, then of each current e, K, then e_h.

    Behind these are those of a part of the threshold that follows the voltage.
    """
    if shared[SPAN] == t and shared[KIND] == kind:
        return
    mu, rate, th_rate = kinds.leak_rate[kind], kinds.rate, kinds.th_rate
    e_mu, e_bias = fading(mu, t)
    shared[KIND], shared[SPAN], shared[E_MU], shared[E_BIAS] = kind, t, e_mu, e_bias
    at = SHARED
    for p in range(rate.shape[1]):
        shared[at], shared[at + 1] = kernel(mu, e_mu, rate[kind, p], t)
        at += 2
    for m in range(th_rate.shape[1]):
        shared[at] = exp(-th_rate[kind, m] * t)
        at += 1
    if kinds.follow.shape[1] > 0:
        share_following(kinds, shared, kind, e_mu, t)


@compiled(**EXACT_BARE_INLINE)
def move(kinds, shared, kind, x, y, held):
    """State y from x, which may be the same row, over the time of `shared`."""
    at, n_c, n_h = SHARED, kinds.rate.shape[1], kinds.th_rate.shape[1]
    fed = x[BIAS] * shared[E_BIAS]
    if kinds.follow.shape[1] > 0:
        n_h -= 1
        y[-1] = x[-1] if held else followed(kinds, shared, kind, x)
    for p in range(n_c):
        c = x[CURRENTS + p]
        y[CURRENTS + p] = c * shared[at]
        fed += c * shared[at + 1]
        at += 2
    for m in range(n_h):
        y[CURRENTS + n_c + m] = x[CURRENTS + n_c + m] * shared[at]
        at += 1
    y[V] = x[V] if held else x[V] * shared[E_MU] + kinds.gain[kind] * fed


@compiled(**EXACT_BARE_INLINE)
def bound(kinds, kind, x, v_th):
    """(gap, slope, bend) so that a neuron cannot reach its threshold within t while slope t + bend t² < gap.

    With e^{-rt} ≥ 1 - rt and while v is not below v(0), v̇ ≤ v̇(0) + t G Σ_{c<0} |c| r; likewise θ ≥ θ(0) - t Σ_{h>0} s h. All
    have room for rounding. What follows the voltage may fall by `retreat`.
    """
    rate, th_rate, n_c, v = kinds.rate, kinds.th_rate, kinds.rate.shape[1], x[V]
    n_h = th_rate.shape[1] - kinds.follow.shape[1]
    current, size, bend = x[BIAS], abs(x[BIAS]), 0.0
    for p in range(n_c):
        c = x[CURRENTS + p]
        current += c
        size += abs(c)
        bend -= min(c, 0.0) * rate[kind, p]
    theta, falls, near = v_th, 0.0, abs(v) + abs(v_th)
    for m in range(n_h):
        h = x[CURRENTS + n_c + m]
        theta += h
        near += abs(h)
        falls += max(h, 0.0) * th_rate[kind, m]
    gain, mu = kinds.gain[kind], kinds.leak_rate[kind]
    slope = max(gain * current - mu * v + 2.0**-40 * (gain * size + mu * abs(v)), 0.0) + falls
    if kinds.follow.shape[1] > 0:
        lead, turn = retreat(kinds, kind, x, gain * current - mu * v, 2.0**-40 * (gain * size + mu * abs(v)))
        gap, near = theta + x[-1] - v, near + abs(x[-1])
        return (1.0 - 2.0**-20) * gap - 2.0**-36 * near, slope + lead, 0.5 * gain * bend + turn
    return (1.0 - 2.0**-20) * (theta - v) - 2.0**-36 * near, slope, 0.5 * gain * bend


@compiled(**EXACT_BARE_INLINE)
def wait_of(gap, slope, bend):
    """The longest such t."""
    if not gap > 0.0:
        return 0.0
    whole = slope + sqrt(slope * slope + 4.0 * bend * gap)
    return 2.0 * gap / whole if whole > 0.0 else inf


@compiled(**EXACT_BARE_INLINE)
def passage(kinds, kind, x, v_th):
    """About how long a neuron takes to its threshold, by its first two derivatives; 0 if they know none."""
    mu, gain, n_c = kinds.leak_rate[kind], kinds.gain[kind], kinds.rate.shape[1]
    current, fades, way, rise, curve = x[BIAS], 0.0, v_th - x[V], 0.0, 0.0
    for p in range(n_c):
        c = x[CURRENTS + p]
        current += c
        fades += kinds.rate[kind, p] * c
    climbs = gain * current - mu * x[V]
    for m in range(kinds.th_rate.shape[1] - kinds.follow.shape[1]):
        h, s = x[CURRENTS + n_c + m], kinds.th_rate[kind, m]
        way += h
        rise += s * h
        curve -= s * s * h
    if kinds.follow.shape[1] > 0:
        lead = slope_of(kinds, kind, x[V], x[-1])
        way += x[-1]
        rise -= lead
        curve -= slope_of(kinds, kind, climbs, lead)
    rise += climbs
    left = rise * rise + 2.0 * (curve - mu * climbs - gain * fades) * way
    return 2.0 * way / (rise + sqrt(left)) if rise > 0.0 and left >= 0.0 else 0.0


@compiled(**EXACT_BARE_INLINE)
def never(kinds, kind, x, v_th):
    """Whether a bound for all times rules out a spike: every positive current at its best time, the threshold at its lowest."""
    mu, gain, n_c = kinds.leak_rate[kind], kinds.gain[kind], kinds.rate.shape[1]
    if mu == 0.0 and (x[BIAS] > 0.0 or kinds.follow.shape[1] > 0):
        return False
    high = max(x[V], x[BIAS] * gain / mu) if mu > 0.0 else x[V]
    near = abs(high) + abs(v_th)
    for p in range(n_c):
        high += gain * max(x[CURRENTS + p], 0.0) * kinds.most[kind, p]
    w = lowest(kinds, kind, x, high) if kinds.follow.shape[1] > 0 else 0.0
    for m in range(kinds.th_rate.shape[1] - kinds.follow.shape[1]):
        high -= min(x[CURRENTS + n_c + m], 0.0)
    if kinds.follow.shape[1] > 0:
        return high - w < v_th - 2.0**-36 * (near + abs(high) + abs(w))
    return high < v_th - 2.0**-36 * (near + abs(high))


@compiled(**EXACT_BARE_INLINE)
def over(kinds, kind, x, base, t):
    """f = v - θ and g = (d/dt + μ) f at t from the state of a row, both times e^{base t}, of which no rate is below base."""
    mu, gain, n_c = kinds.leak_rate[kind], kinds.gain[kind], kinds.rate.shape[1]
    push = gain * x[BIAS] - mu * x[V_TH]
    e_mu, e_bias = fading(mu - base, t)  # base > 0 only where push = 0
    f, g = (x[V] - x[V_TH]) * e_mu + push * e_bias, push
    for p in range(n_c):
        c = gain * x[CURRENTS + p]
        if c != 0.0:
            e, k = kernel(mu - base, e_mu, kinds.rate[kind, p] - base, t)
            f += c * k
            g += c * e
    for m in range(kinds.th_rate.shape[1]):
        if x[CURRENTS + n_c + m] != 0.0:
            s = kinds.th_rate[kind, m]
            h = x[CURRENTS + n_c + m] * exp(-(s - base) * t)
            f -= h
            g += (s - mu) * h
    return f, g


@compiled(**EXACT_BARE_INLINE)
def slowest(kinds, kind, x):
    """The slowest rate of what f is made of."""
    mu, n_c, base = kinds.leak_rate[kind], kinds.rate.shape[1], inf
    if kinds.gain[kind] * x[BIAS] != mu * x[V_TH]:
        return 0.0
    if x[V] != x[V_TH]:
        base = mu
    for p in range(n_c):
        if x[CURRENTS + p] != 0.0:
            base = min(base, mu, kinds.rate[kind, p])
    for m in range(kinds.th_rate.shape[1]):
        if x[CURRENTS + n_c + m] != 0.0:
            base = min(base, kinds.th_rate[kind, m])
    return base if base < inf else 0.0


@compiled(**EXACT_BARE_INLINE)
def terms_of(kinds, kind, x, work):
    """g as a sum of exponentials, slowest first, none zero: γ to work[0, 0] and ρ to work[0, 1]; returns their number."""
    mu, gain, n_c, slots = kinds.leak_rate[kind], kinds.gain[kind], kinds.rate.shape[1], kinds.slots[kind]
    for q in range(slots):
        work[0, 0, q] = 0.0
    work[0, 0, 0] = gain * x[BIAS] - mu * x[V_TH]
    for p in range(n_c):
        work[0, 0, kinds.slot[kind, 1 + p]] += gain * x[CURRENTS + p]
    for m in range(kinds.th_rate.shape[1]):
        work[0, 0, kinds.slot[kind, 1 + n_c + m]] += (kinds.th_rate[kind, m] - mu) * x[CURRENTS + n_c + m]
    count = 0
    for q in range(slots):
        if work[0, 0, q] != 0.0:
            work[0, 0, count], work[0, 1, count] = work[0, 0, q], kinds.slot_rate[kind, q]
            count += 1
    return count


@compiled(**EXACT_BARE_INLINE)
def first_change(work, level, count):
    """The first term before a change of sign among those of a level, and how many changes there are."""
    first, changes = -1, 0
    for q in range(count - 1):
        if (work[level, 0, q] > 0.0) != (work[level, 0, q + 1] > 0.0):
            changes += 1
            if first < 0:
                first = q
    return first, changes


@compiled(**EXACT_BARE_INLINE)
def total(work, level, count, t):
    """Σ γ e^{-ρt} of a level and, of the next one, what of it is (d/dt + ρ_k) of that; both times e^{ρ t} of the slowest."""
    base, rate = work[level, 1, 0], work[level, 2, 0]
    value, slope = 0.0, 0.0
    for q in range(count):
        term = work[level, 0, q] * exp(-(work[level, 1, q] - base) * t)
        value += term
        slope += term * (rate - work[level, 1, q])
    return value, slope


@compiled(**EXACT_BARE)
def root(kinds, kind, x, work, level, count, base, low, high, t, climbs):
    """Where e^{-ρt} times a monotone function changes sign between low and high, by Newton's method for the latter.

    The product is f for level -1, and the root rounded to the side where the threshold is reached; or it is the sum of a level.
    Where the threshold follows the voltage f is F_OF_FOLLOWING, and g G_OF_FOLLOWING.
    Where a step would leave the interval, and after many steps, it is bisected.

    Args:
        t: where to begin, in the interval.
    """
    sign, value = 1.0 if climbs else -1.0, 0.0
    for step in range(300):
        if level < -1:
            f, g, below = over_following(kinds, kind, x, base, t)
            value, slope = (f, g) if level == F_OF_FOLLOWING else (g, below)
        else:
            value, slope = over(kinds, kind, x, base, t) if level < 0 else total(work, level, count, t)
        value, slope = sign * value, sign * slope
        if value < 0.0:
            low = t
        else:
            high = t
        new = t - value / slope if slope > 0.0 else inf
        if high - low <= 2.0**-52 * high or value == 0.0 or abs(new - t) <= 2.0**-52 * t:
            break
        t = new if low < new < high and step < 60 else 0.5 * (low + high)
    if level >= 0 or level == G_OF_FOLLOWING:
        return t
    step = max(2.0**-52 * high, 2.0**-1074)
    while value < 0.0 and t < high:
        t, step = min(t + step, high), 2.0 * step
        value = over(kinds, kind, x, base, t)[0] if level == -1 else over_following(kinds, kind, x, base, t)[0]
    return t


@compiled(**EXACT_BARE)
def first_crossing(kinds, kind, x, work, horizon, guess):
    """Time of the first crossing of θ from below in [0, horizon], or inf, of a neuron that is not held; see `glif/crossing.py`.

    With at most one zero of g, f rises through 0 once at most, and Newton's method from a guess nearly always finds it at once;
    or the value at the horizon tells, or that at the zero.
    """
    if kinds.follow.shape[1] > 0:
        return _of_following(kinds, kind, x, work, horizon, guess)
    count, base = terms_of(kinds, kind, x, work), slowest(kinds, kind, x)
    if count == 0:
        return inf
    place, changes = first_change(work, 0, count)
    if changes < 2 and over(kinds, kind, x, base, 0.0)[0] < 0.0:
        work[0, 2, 0] = work[0, 1, max(place, 0)]
        return _of_one_piece(kinds, kind, x, work, count, base, horizon, guess, changes)
    pieces, climbs = cut(kinds, kind, x, work, count, horizon)
    for k in range(pieces):
        left, right = work[-1, 0, k], work[-1, 0, k + 1]
        if climbs:
            end = over(kinds, kind, x, base, right)[0]
            if end > 0.0 or (end == 0.0 and right == horizon):
                if over(kinds, kind, x, base, left)[0] >= 0.0:
                    return left
                return root(kinds, kind, x, work, -1, count, base, left, right, left, True)
        climbs = not climbs
    return inf


@compiled(**EXACT_BARE)
def _of_following(kinds, kind, x, work, horizon, guess):
    """`first_crossing` of a threshold that follows the voltage, with one sum more, (6.10)."""
    count, base = terms_following(kinds, kind, x, work), slowest_following(kinds, kind, x)
    pieces, positive = cut(kinds, kind, x, work, count, horizon)
    for k in range(pieces):  # of (d/dt + q) g, between whose zeros e^{qt} g is monotone
        left, right = work[-1, 0, k], work[-1, 0, k + 1]
        start, end = over_following(kinds, kind, x, base, left)[1], over_following(kinds, kind, x, base, right)[1]
        climbs, zero = positive if (start >= 0.0 if positive else start <= 0.0) else not positive, right
        if climbs != positive and (end > 0.0 if positive else end < 0.0):
            zero = root(kinds, kind, x, work, G_OF_FOLLOWING, count, base, left, right, left, positive)
        t = _rising(kinds, kind, x, work, base, left, zero, horizon, guess) if climbs else inf
        if t == inf and zero < right and positive:
            t = _rising(kinds, kind, x, work, base, zero, right, horizon, guess)
        if t < inf:
            return t
        positive = not positive
    return inf


@compiled(**EXACT_BARE)
def _rising(kinds, kind, x, work, base, left, right, horizon, guess):
    """Where f, which climbs from left to right, crosses 0, or inf."""
    end = over_following(kinds, kind, x, base, right)[0]
    if not (end > 0.0 or (end == 0.0 and right == horizon)):
        return inf
    if over_following(kinds, kind, x, base, left)[0] >= 0.0:
        return left
    begin = guess if left < guess < right else left
    return root(kinds, kind, x, work, F_OF_FOLLOWING, 0, base, left, right, begin, True)


@compiled(**EXACT_BARE_INLINE)
def _of_one_piece(kinds, kind, x, work, count, base, horizon, guess, changes):
    """`first_crossing` where g changes its sign at most once, and f begins below 0."""
    low, t = 0.0, guess
    for _ in range(6):
        if not 0.0 < t < horizon:
            break
        f, g = over(kinds, kind, x, base, t)
        if f >= 0.0:
            begin = t - f / g if g > 0.0 else low
            return root(kinds, kind, x, work, -1, count, base, low, t, begin if low < begin < t else t, True)
        if not g > 0.0:
            break
        low, t = t, t - f / g + 2.0**-52 * t
    end, g_end = over(kinds, kind, x, base, horizon)
    if end >= 0.0:
        return root(kinds, kind, x, work, -1, count, base, 0.0, horizon, horizon, True)
    if changes == 0 or work[0, 0, 0] > 0.0 or g_end >= 0.0 or over(kinds, kind, x, base, 0.0)[1] <= 0.0:
        return inf
    zero = root(kinds, kind, x, work, 0, count, base, 0.0, horizon, 0.0, False)
    if over(kinds, kind, x, base, zero)[0] > 0.0:
        return root(kinds, kind, x, work, -1, count, base, 0.0, zero, 0.0, True)
    return inf


@compiled(**EXACT_BARE)
def cut(kinds, kind, x, work, count, horizon):
    """[0, horizon] cut where g changes sign, the edges in work[-1, 0]; returns the number of pieces, and whether g > 0 first.

    With ρ_k next to a change of sign among the γ, (d/dt + ρ_k) of the sum has a term and a change less. Between the zeros of
    that, e^{ρ_k t} times the sum is monotone, and the signs at both ends tell.
    """
    level = 0
    place, changes = first_change(work, 0, count)
    while changes > 0:  # work[level]: γ, ρ, and first ρ_k and the number of terms
        rate, left = work[level, 1, place], 0
        work[level, 2, 0], work[level, 2, 1] = rate, count
        for q in range(count):
            if q != place:
                work[level + 1, 0, left] = work[level, 0, q] * (rate - work[level, 1, q])
                work[level + 1, 1, left] = work[level, 1, q]
                left += 1
        count, level = left, level + 1
        place, changes = first_change(work, level, count)
    edges, before = work[-1, 0], work[-1, 1]
    edges[0], edges[1], pieces, positive = 0.0, horizon, 1, work[level, 0, 0] > 0.0
    while level > 0:
        level -= 1
        count, climbs = int(work[level, 2, 1]), positive
        for k in range(pieces + 1):
            before[k] = edges[k]
        found, last = 0, False
        for k in range(pieces):
            left, right = before[k], before[k + 1]
            start, end = total(work, level, count, left)[0], total(work, level, count, right)[0]
            first = climbs if (start >= 0.0 if climbs else start <= 0.0) else not climbs
            if found == 0:
                positive, found = first, 1
            elif first != last:
                edges[found] = left
                found += 1
            last = first
            if first != climbs and (end > 0.0 if climbs else end < 0.0):
                edges[found] = root(kinds, kind, x, work, level, count, 0.0, left, right, left, climbs)
                found, last = found + 1, climbs
            climbs = not climbs
        edges[found], pieces = horizon, found
    return pieces, positive
