"""Many neurons at a time, each at its own: where they cross their thresholds, and what comes of them.

The neurons of a tile that may cross before their next stops are listed in columns, and every formula runs down the columns by
vector instructions, for those that need it and for those that do not. What the formulas do not cover, which is rare, is
searched one by one by `flow.first_crossing`.
"""

from math import inf, nan
from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.each import at, put_at
from adjsnn.lif.cpu.elementary import F3, decays, exponential, logarithm, rates_of
from adjsnn.lif.cpu.flow import first_crossing, nearness
from adjsnn.numerics.compiled import EXACT_BARE, EXACT_BARE_INLINE, EXACT_PIECE, compiled

NEVER, CROSSES, UNSURE, LATE = range(4)  # what is known of a neuron in a column; LATE crosses, but was not found at it
SHORT = 2.0**-14  # of t/τ, up to which a flow is the first terms of its series, to rounding
NEAR = 16.0  # roundings of v, within which it is at its threshold
MORE = 4  # steps of one that is not at its crossing after those of all
DISTINCT = 2.0**-6  # |1 - τ_s/τ_m| from which on the time of a maximum is computed by a logarithm


class Column(NamedTuple):
    """Neurons that may cross, (L,) each.

    Attributes:
        lane: the number of the neuron in its tile.
        v: membrane voltage at the beginning.
        i: synaptic current there.
        bias: with the drive.
        v_th: threshold.
        begin: the time of the beginning, ms.
        until: the time of the next stop, ms.
        span: how long it is until then, ms.
        v_end: v at the stop if nothing happens before.
        i_end: i there.
        wait: how long it is to the crossing, inf if there is none, ms.
        v_cross: v at the crossing, as far as it is found.
        i_cross: i there.
        high: no crossing comes later than this, ms: the time of the maximum, or the next stop.
        peak: the time of the maximum of v, ms.
        top: the maximum, or inf where there is none.
        known: NEVER, CROSSES, UNSURE or LATE.
        place: of those that stay in the column.
    """

    lane: np.ndarray
    v: np.ndarray
    i: np.ndarray
    bias: np.ndarray
    v_th: np.ndarray
    begin: np.ndarray
    until: np.ndarray
    span: np.ndarray
    v_end: np.ndarray
    i_end: np.ndarray
    wait: np.ndarray
    v_cross: np.ndarray
    i_cross: np.ndarray
    high: np.ndarray
    peak: np.ndarray
    top: np.ndarray
    known: np.ndarray
    place: np.ndarray


@compiled(**EXACT_PIECE)
def column_memory(n):
    """Memory for n neurons."""
    return Column(
        np.empty(n, np.int64), np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n),
        np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n),
        np.empty(n, np.int64), np.empty(n, np.int64),
    )  # fmt: skip


@compiled(**EXACT_BARE_INLINE)
def approach(way, rise, i, rate_mem, rate_syn):
    """`flow.passage` without a branch: how long v takes for a way, by its first three derivatives. Rates are 1/τ, 1/ms."""
    speed = rise * rate_mem
    slowing = (i * rate_syn + speed) * rate_mem
    left = speed * speed - 2.0 * slowing * way
    root = speed + np.sqrt(left if left > 0.0 else 0.0)
    mean = slowing - (i * rate_syn * rate_syn + slowing) * rate_mem * (2.0 / 3.0) * way / root
    second = speed * speed - 2.0 * mean * way
    return 2.0 * way / (speed + np.sqrt(second if (left > 0.0) & (second > 0.0) else speed * speed))


@compiled(**EXACT_BARE)
def search(column, count, tau_mem, tau_syn):
    """When neurons cross, `wait`, and with which current.

    Args:
        column: in whose first `count` places they stand; those of which it is soon clear that they do not cross are dropped.
        tau_mem: a number, or an array of every place's, from which they are dropped too.
        tau_syn: likewise.

    Returns:
        how many are left.
    """
    _sort_out(column, count, tau_mem, tau_syn)
    left = np.uint64(0)
    for j in range(np.uint64(count)):  # whether one stays cannot be foretold, so all are written down
        column.place[left] = j
        left += np.uint64(column.known[j] != NEVER)
    for k in range(left):
        j = np.uint64(column.place[k])
        put(column, j, k)
        put_at(tau_mem, k, at(tau_mem, j))
        put_at(tau_syn, k, at(tau_syn, j))
        column.high[k], column.peak[k], column.top[k] = column.high[j], column.peak[j], column.top[j]
        column.known[k] = column.known[j]
    count = np.int64(left)
    _start(column, count, tau_mem, tau_syn)
    _carry(column, count, tau_mem, tau_syn)
    _turn(column, count, tau_mem, tau_syn)
    _carry(column, count, tau_mem, tau_syn)
    _last_turn(column, count, tau_mem, tau_syn)
    if _settle(column, count):
        _one_by_one(column, count, tau_mem, tau_syn)
    return count


@compiled(**EXACT_BARE_INLINE)
def put(column, j, k):
    """Copy the neuron in place j to place k, with where it is at its stop."""
    column.lane[k], column.v[k], column.i[k], column.bias[k] = column.lane[j], column.v[j], column.i[j], column.bias[j]
    column.v_th[k], column.begin[k], column.until[k] = column.v_th[j], column.begin[j], column.until[j]
    column.span[k], column.v_end[k], column.i_end[k] = column.span[j], column.v_end[j], column.i_end[j]


@compiled(**EXACT_BARE)
def _sort_out(column, count, tau_mem, tau_syn):
    """Who crosses: as long as v climbs with i > 0 it is concave, and its maximum b + i(t) is that of (2.4)."""
    v, i, bias, v_th, v_end, i_end = column.v, column.i, column.bias, column.v_th, column.v_end, column.i_end
    span, high, peaks, tops, known = column.span, column.high, column.peak, column.top, column.known
    for j in range(count):
        tm, ts = at(tau_mem, j), at(tau_syn, j)
        kappa = (tm - ts) / (tm * ts)
        alike = abs(kappa * ts) < DISTINCT
        rate_syn, per_kappa = 1.0 / ts, 1.0 / (kappa if kappa != 0.0 else 1.0)
        near = nearness(v[j], i[j], bias[j], v_th[j])
        rise, fall = i[j] + bias[j] - v[j], i_end[j] + bias[j] - v_end[j]
        left = 1.0 - kappa * ts * rise / i[j]
        peak = -logarithm(left if left > 1e-300 else 1e-300) * per_kappa
        top = bias[j] + i[j] * exponential(-peak * rate_syn)
        inside = (left > 1e-300) & (peak < span[j])
        regular = (i[j] > 0.0) & (rise > 0.0) & (v[j] < v_th[j])
        through = regular & (v_end[j] > v_th[j])  # it climbs through the threshold once, whatever comes then
        over = inside & (top > v_th[j] + near)
        under = (inside & (top < v_th[j] - near)) | ((fall > near) & (v_end[j] < v_th[j]))
        sure = through | (regular & (not alike) & (over | under))
        known[j] = (CROSSES if through | over else NEVER) if sure else UNSURE
        high[j] = peak if inside & (not alike) else span[j]
        tops[j] = top if (left > 1e-300) & (not alike) else inf  # wherever it is: a crossing does not depend on the next stop
        peaks[j] = peak


@compiled(**EXACT_BARE)
def _start(column, count, tau_mem, tau_syn):
    """The first approximation: from the beginning on by three derivatives, or back from the maximum where that is nearer."""
    v, i, bias, v_th, wait, high, peaks, tops = (
        column.v, column.i, column.bias, column.v_th, column.wait, column.high, column.peak, column.top,
    )  # fmt: skip
    for j in range(count):
        rate_mem, rate_syn = 1.0 / at(tau_mem, j), 1.0 / at(tau_syn, j)
        way, over, i_top = v_th[j] - v[j], tops[j] - v_th[j], tops[j] - bias[j]
        bend = i_top * rate_syn * rate_mem  # -v̈ at the maximum
        parabola = 2.0 * over / bend
        skew = (i_top * rate_syn * rate_syn + bend) * rate_mem / (3.0 * bend)
        back = peaks[j] - np.sqrt(parabola / (1.0 + skew * np.sqrt(parabola)))
        t = back if over < way else approach(way, i[j] + bias[j] - v[j], i[j], rate_mem, rate_syn)
        wait[j] = t if (t > 0.0) & (t < high[j]) else high[j]


@compiled(**EXACT_BARE)
def _carry(column, count, tau_mem, tau_syn):
    """v and i at the approximate crossing; a loop of its own, since short ones leave more of them in flight."""
    v, i, bias, wait, v_cross, i_cross = column.v, column.i, column.bias, column.wait, column.v_cross, column.i_cross
    for j in range(count):
        e_mem, e_syn, gain = decays(wait[j], rates_of(at(tau_mem, j), at(tau_syn, j)))
        v_cross[j], i_cross[j] = bias[j] + (v[j] - bias[j]) * e_mem + i[j] * gain, i[j] * e_syn


@compiled(**EXACT_BARE_INLINE)
def _rounding(v, bias, v_th):
    """As closely as v is computed near the threshold: what i adds is no more than the way up to there."""
    return 2.0**-53 * (abs(v_th) + abs(bias) + abs(v))


@compiled(**EXACT_BARE_INLINE)
def _nearer(column, j, rate_mem, rate_syn):
    """A step towards the crossing, or to where v is above the threshold by its rounding: of about four times as many digits."""
    v, i, bias, v_th, high = column.v_cross[j], column.i_cross[j], column.bias[j], column.v_th[j], column.high[j]
    way = v_th - v + _rounding(column.v[j], bias, v_th)
    t = column.wait[j] + approach(way, i + bias - v, i, rate_mem, rate_syn)
    return (t if t < high else high) if t > 0.0 else 0.0


@compiled(**EXACT_BARE)
def _turn(column, count, tau_mem, tau_syn):
    for j in range(count):
        column.wait[j] = _nearer(column, j, 1.0 / at(tau_mem, j), 1.0 / at(tau_syn, j))


@compiled(**EXACT_BARE)
def _last_turn(column, count, tau_mem, tau_syn):
    """The same, and v and i there by a few terms of their series, since it is a small step; v is no number where it is not."""
    bias, wait, v_cross, i_cross = column.bias, column.wait, column.v_cross, column.i_cross
    for j in range(count):
        rate_mem, rate_syn, v, i = 1.0 / at(tau_mem, j), 1.0 / at(tau_syn, j), v_cross[j], i_cross[j]
        t = _nearer(column, j, rate_mem, rate_syn)
        x, y = (t - wait[j]) * rate_syn, (t - wait[j]) * rate_mem
        fed = y * (1.0 - 0.5 * (x + y) + F3 * (x * x + x * y + y * y))
        lost = y * (1.0 - 0.5 * y + F3 * y * y)
        small = (abs(x) < SHORT) & (abs(y) < SHORT)
        wait[j], i_cross[j] = t, i - i * (x * (1.0 - 0.5 * x + F3 * x * x))
        v_cross[j] = v + ((bias[j] - v) * lost + i * fed) if small else nan


@compiled(**EXACT_BARE)
def _settle(column, count):
    """Whether some are left of which it is not known that they have come to their crossing."""
    v, bias, v_th, known, v_cross, some = column.v, column.bias, column.v_th, column.known, column.v_cross, np.int64(0)
    for j in range(count):
        gap = v_cross[j] - v_th[j]
        there = (gap >= 0.0) & (gap <= NEAR * _rounding(v[j], bias[j], v_th[j]))
        known[j] = known[j] if there | (known[j] == UNSURE) else LATE
        some |= known[j] != CROSSES
    return some


@compiled(**EXACT_BARE)
def _found(column, j, tm, ts):
    """Whether the neuron in a place, whose last step was no small one, comes to its crossing in a few more."""
    v, i, bias, v_th, rates = column.v[j], column.i[j], column.bias[j], column.v_th[j], rates_of(tm, ts)
    for _ in range(MORE):
        e_mem, e_syn, gain = decays(column.wait[j], rates)
        column.v_cross[j], column.i_cross[j] = bias + (v - bias) * e_mem + i * gain, i * e_syn
        gap = column.v_cross[j] - v_th
        if (gap >= 0.0) & (gap <= NEAR * _rounding(v, bias, v_th)):
            return True
        column.wait[j] = _nearer(column, j, 1.0 / tm, 1.0 / ts)
    return False


@compiled(**EXACT_BARE)
def _one_by_one(column, count, tau_mem, tau_syn):
    for j in range(count):
        if column.known[j] == LATE and _found(column, j, at(tau_mem, j), at(tau_syn, j)):
            column.known[j] = CROSSES
        if column.known[j] != CROSSES:
            v, i, bias, tm, ts = column.v[j], column.i[j], column.bias[j], at(tau_mem, j), at(tau_syn, j)
            wait = first_crossing(v, i, bias, tm, ts, column.v_th[j], column.span[j], column.v_end[j])
            column.wait[j] = wait
            if wait < inf:
                column.i_cross[j] = i * np.exp(-wait / ts)
