"""The neurons of a recurrent layer on their way through a sample: carried to a time, and their next spikes foreseen.

Where every arrival reaches all neurons, all of them stand at one time nearly always. They are carried and examined in groups
of equal time constants, whose exponentials are computed once, by loops over arrays that have no branch; or as one group with
exponentials of their own, also by such loops (`each.py`). The few that had an event of their own since are ahead, each at its
own time, and move alone.
"""

from math import exp, inf, nan
from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.each import Each, at, each_of, either, flow_over, shares
from adjsnn.lif.cpu.elementary import Rates, all_rates, decay_soon, exponential, logarithm, rates_at
from adjsnn.lif.cpu.flow import BLUR, first_crossing, may_reach, nearness, quick_bound
from adjsnn.lif.cpu.lanes import DISTINCT
from adjsnn.numerics.compiled import EXACT_BARE, EXACT_BARE_INLINE, EXACT_PIECE, compiled

ACTIVE, AHEAD = range(2)  # places in Cells.size
NOW, WAIT = range(2)  # places in Cells.clock
SHORTEST = 2.0**-6  # of the time to the horizon, an interval that is looked at
TURNS = 8  # towards a crossing, each with three times as many digits
NARROW = 2.0**-300  # of a logarithm


class Cells(NamedTuple):
    """The neurons of a sample on their way; (N,) unless said otherwise.

    Attributes:
        v: membrane voltage.
        i: synaptic current.
        at: for neurons that are ahead, the time that v and i are of, ms.
        own: when its next event of its own comes, as far as foreseen: the release of a neuron that is held, or else its next
            spike, ms; read of active neurons only.
        bias: b and the present step of the drive together, (2.16).
        held: 1 where the neuron is held at its reset, else 0.
        spike_of: the last spike of each that is held, counted in the group of samples.
        fired: spikes so far.
        active: the neurons that may have an event of their own to come, in any order.
        listed: 1 where the neuron is among them.
        ahead: the neurons that are later than the others, in any order.
        place: where in `ahead` a neuron stands, or -1.
        saved: v and i of those that are ahead, (2, N), while the others move.
        look: the neurons to look at in detail; some room more.
        marks: 1 where a bound says that a neuron must be looked at, (8⌈N/8⌉,) bytes.
        eights: the same bytes, eight in a number.
        block: which of these are not 0.
        end: v at the end of the interval that is looked at.
        size: (2,), how many are active and ahead.
        clock: (2,), the time of the neurons that are not ahead; and about how long the next spike is waited for, ms.
    """

    v: np.ndarray
    i: np.ndarray
    at: np.ndarray
    own: np.ndarray
    bias: np.ndarray
    held: np.ndarray
    spike_of: np.ndarray
    fired: np.ndarray
    active: np.ndarray
    listed: np.ndarray
    ahead: np.ndarray
    place: np.ndarray
    saved: np.ndarray
    look: np.ndarray
    marks: np.ndarray
    eights: np.ndarray
    block: np.ndarray
    end: np.ndarray
    size: np.ndarray
    clock: np.ndarray


class Kind(NamedTuple):
    """What the neurons of a layer have in common.

    Attributes:
        groups: (G+1,), neurons groups[g] … groups[g+1]-1 have equal time constants, or each has its own and there is one group.
            Unsigned, since of other numbers numba asks at every array whether they count from the end, and no vector
            instructions remain.
        broadcast: whether every spike arrives at all neurons at once.
        instant: whether the layer's own spikes do so without delay.
        rates: Rates.
        each: Each, where every neuron has time constants of its own, or None.
        nothing: (N,), zeros.
        w_in_t: (M, N), a row per source.
        w_rec_t: (N, N), a row per source.
    """

    groups: np.ndarray
    broadcast: bool
    instant: bool
    rates: Rates
    each: Each | None
    nothing: np.ndarray
    w_in_t: np.ndarray
    w_rec_t: np.ndarray


@compiled(**EXACT_PIECE)
def kind_of(layer):
    """Kind of a layer."""
    broadcast = len(layer.delays) == 1 and len(layer.rec_delays) == 1
    tau_mem, tau_syn, instant = layer.tau_mem, layer.tau_syn, broadcast
    groups, count, neurons = np.empty(len(tau_mem) + 1, np.uint64), 0, len(tau_mem)
    nothing, each = np.empty(neurons), each_of(layer, 1)
    for n in range(neurons):
        nothing[n] = 0.0
    for n in range(neurons + 1):
        if n in (0, neurons) or (shares(each) and (tau_mem[n] != tau_mem[n - 1] or tau_syn[n] != tau_syn[n - 1])):
            groups[count] = n
            count += 1
    for n in range(layer.rec_delays.shape[1]):
        instant &= layer.rec_delays[0, n] == 0.0
    return Kind(
        groups[:count],
        broadcast,
        instant,
        all_rates(tau_mem, tau_syn),
        each,
        nothing,
        np.ascontiguousarray(layer.w_in.T),
        np.ascontiguousarray(layer.w_rec.T),
    )


@compiled(**EXACT_PIECE)
def memory_of(n):
    """Memory for n neurons."""
    marks = np.empty((n + 7) // 8 * 8, np.int8)
    return Cells(
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty((2, n)),
        np.empty(n + 8, np.int64),
        marks,
        marks.view(np.int64),
        np.empty(n, np.int64),
        np.empty(n),
        np.empty(2, np.int64),
        np.empty(2),
    )


@compiled(**EXACT_BARE)
def begin(cells, v, i):
    """All neurons at time 0, in the states v and i (N,)."""
    for n in range(len(v)):
        cells.v[n], cells.i[n] = v[n], i[n]
        cells.held[n], cells.fired[n], cells.listed[n], cells.place[n] = 0, 0, 0, -1
    for n in range(len(cells.marks)):
        cells.marks[n] = 0
    cells.size[ACTIVE], cells.size[AHEAD] = 0, 0
    cells.clock[NOW], cells.clock[WAIT] = 0.0, inf


@compiled(**EXACT_BARE)
def set_bias(bias, drive, step, b, c):
    """c ← b and the drive of a step in sample b together, (2.16)."""
    for n in range(len(c)):
        c[n] = bias[n] + drive[step, b, n] if len(drive) > 0 else bias[n]


@compiled(**EXACT_BARE_INLINE)
def _flow_of_group(rates, each, t):
    return decay_soon(t, rates)


@compiled(**EXACT_BARE_INLINE)
def _flow_of_all(rates, each, t):
    return flow_over(each, t)


flow_of = either(_flow_of_group, _flow_of_all)
"""flow_of(rates, each, t): e_mem, e_syn and gain of the neurons of a group, to be read by `at`."""


@compiled(**EXACT_BARE_INLINE)
def advance(layer, kind, cells, n, t):
    """Carry neuron n alone to time t; one that is held keeps its voltage."""
    span = t - (cells.at[n] if cells.place[n] >= 0 else cells.clock[NOW])
    if span > 0.0 and cells.held[n]:
        cells.i[n] *= exp(-span / layer.tau_syn[n])
    elif span > 0.0:
        e_mem, e_syn, gain = decay_soon(span, rates_at(kind.rates, n))
        cells.v[n] = cells.bias[n] + (cells.v[n] - cells.bias[n]) * e_mem + cells.i[n] * gain
        cells.i[n] *= e_syn
    cells.at[n] = t
    if cells.place[n] < 0 and t > cells.clock[NOW]:
        cells.place[n] = cells.size[AHEAD]
        cells.ahead[cells.size[AHEAD]] = n
        cells.size[AHEAD] += 1


@compiled(**EXACT_BARE_INLINE)
def advance_all(layer, kind, cells, t):
    """Carry every neuron to time t."""
    span, ahead = t - cells.clock[NOW], cells.size[AHEAD]
    if span == 0.0 and ahead == 0:
        return
    for k in range(ahead):
        n = cells.ahead[k]
        advance(layer, kind, cells, n, t)
        cells.saved[0, k], cells.saved[1, k] = cells.v[n], cells.i[n]
    for g in range(len(kind.groups) - 1):
        first, last = kind.groups[g], kind.groups[g + 1]
        e_mem, e_syn, gain = flow_of(rates_at(kind.rates, first), kind.each, span)
        v, i, bias = cells.v, cells.i, cells.bias
        for n in range(first, last):
            v[n] = bias[n] + (v[n] - bias[n]) * at(e_mem, n) + i[n] * at(gain, n)
            i[n] *= at(e_syn, n)
    for k in range(cells.size[ACTIVE]):
        n = cells.active[k]
        if cells.held[n]:
            cells.v[n] = layer.v_reset[n]
    for k in range(ahead):
        n = cells.ahead[k]
        cells.v[n], cells.i[n], cells.place[n] = cells.saved[0, k], cells.saved[1, k], -1
    cells.size[AHEAD], cells.clock[NOW] = 0, t


@compiled(**EXACT_BARE_INLINE)
def earliest(cells):
    """The neuron whose own event comes first, or -1, and its time; of equal times spikes first, then the first neuron."""
    best, soonest = np.int64(-1), inf
    for k in range(cells.size[ACTIVE]):
        n = cells.active[k]
        t = cells.own[n]
        if t < soonest:
            best, soonest = n, t
        elif t == soonest and t < inf and (cells.held[n], n) < (cells.held[best], best):
            best = n
    return best, soonest


@compiled(**EXACT_BARE_INLINE)
def predict(layer, kind, cells, n, t, horizon):
    """When neuron n, which is at time t, spikes next, if it does by the horizon."""
    v, i, c, rates = cells.v[n], cells.i[n], cells.bias[n], rates_at(kind.rates, n)
    e_mem, _, gain = decay_soon(horizon - t, rates)
    end = c + (v - c) * e_mem + i * gain
    wait = crossing(v, i, c, layer.tau_mem[n], layer.tau_syn[n], rates, layer.v_th[n], horizon - t, end)
    return min(t + wait, horizon) if wait < inf else inf


@compiled(**EXACT_BARE)
def crossing(v, i, bias, tau_mem, tau_syn, rates, v_th, horizon, end):
    """`flow.first_crossing`, where v climbs through its threshold once, as it nearly always does, by fewer exponentials."""
    if i > 0.0 and v < v_th:
        rate_mem, rate_syn = rates[-1], 1.0 / tau_syn
        high = horizon if end > v_th else _peak(v, i, bias, rate_mem, tau_syn, v_th)
        if high == 0.0:
            return inf
        rounding = 2.0**-52 * (abs(v_th) + abs(bias) + abs(v) + abs(i) * min(1.0, tau_syn * rate_mem))
        aim = v_th + 2.0**-53 * (abs(v_th) + abs(bias) + abs(v))  # above it by its rounding, as in lanes
        way, speed = v_th - v, (i + bias - v) * rate_mem
        left = speed * speed - 2.0 * (i * rate_syn + speed) * rate_mem * way
        t = 2.0 * way / (speed + np.sqrt(left if left > 0.0 else 0.0))
        t = t if 0.0 < t < high else high
        for _ in range(TURNS):
            if not 0.0 < t <= min(high, horizon):
                break
            e_mem, e_syn, gain = decay_soon(t, rates)
            at, current = bias + (v - bias) * e_mem + i * gain, i * e_syn
            if 0.0 <= at - v_th <= rounding:
                return t
            gap, speed = at - aim, (current + bias - at) * rate_mem
            bend = (current * rate_syn + speed) * rate_mem  # -v̈
            t -= 2.0 * gap * speed / (2.0 * speed * speed + gap * bend)
    return first_crossing(v, i, bias, tau_mem, tau_syn, v_th, horizon, end)


@compiled(**EXACT_BARE_INLINE)
def _peak(v, i, bias, rate_mem, tau_syn, v_th):
    """When v, with i > 0, comes to a maximum above v_th, (2.4); 0 if that is below, NaN if it is not sure."""
    rise, unlike = i + bias - v, 1.0 - tau_syn * rate_mem
    left = 1.0 - unlike * rise / i
    if not (rise > 0.0 and left > NARROW and abs(unlike) > DISTINCT):
        return nan
    steps = logarithm(left) / unlike  # of τ_s, back
    over, near = bias + i * exponential(steps) - v_th, nearness(v, i, bias, v_th)
    return -steps * tau_syn if over > near else (0.0 if over < -near else nan)


@compiled(**EXACT_BARE_INLINE)
def schedule(cells, n, t):
    """Neuron n has its next event of its own at time t; inf for none."""
    cells.own[n] = t
    if t < inf and not cells.listed[n]:
        cells.active[cells.size[ACTIVE]], cells.listed[n] = n, 1
        cells.size[ACTIVE] += 1


@compiled(**EXACT_BARE_INLINE)
def foresee(layer, kind, cells, horizon, weights):
    """The next spikes of all neurons, all of them at the present time, by the horizon, after an arrival by these weights (N,).

    A bound from both ends of an interval first, then in detail the few that it leaves. With `kind.instant` the first spike
    reaches all neurons at once, and later ones need not be foreseen: the interval is about as long as the next spike is waited
    for, longer if there is none in it, and ends at the earliest crossing found so far.
    """
    size = np.int64(0)
    for k in range(cells.size[ACTIVE]):  # those that are held stay
        n = cells.active[k]
        cells.listed[n] = cells.held[n]
        if cells.held[n]:
            cells.active[size] = n
            size += 1
    cells.size[ACTIVE] = size
    now = cells.clock[NOW]
    whole = horizon - now
    span = min(whole, max(2.0 * cells.clock[WAIT], SHORTEST * whole)) if kind.instant else whole
    while True:
        count, shared = candidates(layer, kind, cells, span, weights)
        weights = kind.nothing
        if count > 0:
            _search(layer, kind, cells, count, span, shared, horizon)
        if cells.size[ACTIVE] > size or not span < whole:
            return
        span = min(whole, 4.0 * span)


@compiled(**EXACT_BARE_INLINE)
def _candidates(layer, kind, cells, span, weights):
    """Add the weights (N,) to the currents, and put in `cells.look` whom a bound cannot rule out over the next `span`.

    Returns:
        their number; what the flow over this time is of neurons of the last group, as `decays` says.
    """
    e_mem, e_syn, gain = 1.0, 1.0, 0.0
    v, i, bias, v_th, marks, end = cells.v, cells.i, cells.bias, layer.v_th, cells.marks, cells.end
    for g in range(len(kind.groups) - 1):
        first, last = kind.groups[g], kind.groups[g + 1]
        e_mem, e_syn, gain = decay_soon(span, rates_at(kind.rates, first))
        share = span * kind.rates.mem[first]
        room = 2.0 * BLUR * (1.0 + share)
        for n in range(first, last):
            fed = i[n] + weights[n]
            v_after = bias[n] + (v[n] - bias[n]) * e_mem + fed * gain
            marks[n], end[n], i[n] = quick_bound(v[n], fed, v_after, bias[n], v_th[n], share, room), v_after, fed
    for k in range(cells.size[ACTIVE]):
        marks[cells.active[k]] = 0  # they are held, or foreseen already
    return _listed(cells), (e_mem, e_syn, gain)


@compiled(**EXACT_BARE_INLINE)
def bound_without_end(v, i, bias, v_th, x):
    """Whether v may come to v_th within x = t/τ_m, 1 or 0: it climbs by less than (i + b - v)(1 - e^{-x}), of i where i > 0."""
    series = x * (1.0 + x * (x * (1.0 / 6.0) - 0.5))  # 1 - e^{-x} from above
    pull = (i if i > 0.0 else 0.0) + bias - v
    highest = v + (pull if pull > 0.0 else 0.0) * (series if x < 1.0 else 1.0)
    return 1 if highest + 4.0 * nearness(v, i, bias, v_th) >= v_th else 0


@compiled(**EXACT_BARE_INLINE)
def _candidates_of_each(layer, kind, cells, span, weights):
    """The same by a bound that needs no exponentials, of neurons with time constants of their own.

    Returns:
        their number; of the first neuron what the flow is.
    """
    v, i, bias, v_th, marks, rate = cells.v, cells.i, cells.bias, layer.v_th, cells.marks, kind.rates.mem
    for n in range(np.uint64(len(v))):
        fed = i[n] + weights[n]
        marks[n], i[n] = bound_without_end(v[n], fed, bias[n], v_th[n], span * rate[n]), fed
    for k in range(cells.size[ACTIVE]):
        marks[cells.active[k]] = 0  # they are held, or foreseen already
    count = _listed(cells)
    return count, (decay_soon(span, rates_at(kind.rates, 0)) if count > 0 else (1.0, 1.0, 0.0))


candidates = either(_candidates, _candidates_of_each)


@compiled(**EXACT_BARE)
def _put_end(kind, cells, n, span):
    e_mem, _, gain = decay_soon(span, rates_at(kind.rates, n))
    cells.end[n] = cells.bias[n] + (cells.v[n] - cells.bias[n]) * e_mem + cells.i[n] * gain


put_end = either(None, _put_end)
"""put_end(kind, cells, n, span): v of neuron n at the end of the interval that is looked at, which the bound left out."""


@compiled(**EXACT_BARE_INLINE)
def _listed(cells):
    """Put the neurons that are marked in `cells.look`, without a branch, eight at a time; returns their number."""
    marks, eights, block, look, some, count = cells.marks, cells.eights, cells.block, cells.look, np.uint64(0), np.uint64(0)
    for k in range(np.uint64(len(eights))):
        block[some] = k
        some += np.uint64(eights[k] != 0)
    for j in range(some):
        first = np.uint64(8) * np.uint64(block[j])
        for n in range(first, first + np.uint64(8)):
            look[count] = n
            count += np.uint64(marks[n])
    return count


@compiled(**EXACT_BARE_INLINE)
def _put_first(layer, cells, count):
    """Put the neuron in front that would be the first if all went on as they do now: few others are then left to search."""
    first, most = np.uint64(0), np.int64(0)
    for k in range(count):
        n = np.uint64(cells.look[k])
        rate = (cells.i[n] + cells.bias[n] - cells.v[n]) / ((layer.v_th[n] - cells.v[n]) * layer.tau_mem[n])
        bits = np.float64(rate).view(np.int64)  # of positive numbers these are in the same order, and sooner compared
        first, most = k if bits > most else first, max(bits, most)
    cells.look[0], cells.look[first] = cells.look[first], cells.look[0]


@compiled(**EXACT_BARE_INLINE)
def _search(layer, kind, cells, count, span, shared, horizon):
    """Look at the first `count` of `cells.look` in detail over the next `span`.

    Crossings are located over the whole interval, since one is rounded differently with another end, and neurons that are
    alike must cross in the same instant; for the same reason the bound has room for the rounding of v.
    """
    now, until, asked, of, k = cells.clock[NOW], span, span, kind.groups[len(kind.groups) - 2], np.uint64(0)
    e_mem, e_syn, gain = shared
    share = span * kind.rates.mem[of]
    if kind.instant:
        _put_first(layer, cells, count)
    while k < count:
        n = np.uint64(cells.look[k])
        v, i, c, tau_mem, tau_syn = cells.v[n], cells.i[n], cells.bias[n], layer.tau_mem[n], layer.tau_syn[n]
        if until != asked or tau_mem != layer.tau_mem[of] or tau_syn != layer.tau_syn[of]:
            e_mem, e_syn, gain = decay_soon(until, rates_at(kind.rates, n))
            share, asked, of = until * kind.rates.mem[n], until, n
        v_after, near = c + (v - c) * e_mem + i * gain, nearness(v, i, c, layer.v_th[n])
        if may_reach(v, i, v_after, i * e_syn, c, tau_mem, tau_syn, layer.v_th[n] - near, share, near):
            put_end(kind, cells, n, span)
            rates = rates_at(kind.rates, n)
            wait = crossing(v, i, c, tau_mem, tau_syn, rates, layer.v_th[n], span, cells.end[n])
            if wait < inf:
                schedule(cells, n, min(now + wait, horizon))
                if kind.instant:
                    until = min(until, wait)
                    if k == 0:
                        count = _sift(layer, kind, cells, count, until)
        k += np.uint64(1)
    if until < span:
        cells.clock[WAIT] = until if cells.clock[WAIT] == inf else 0.75 * cells.clock[WAIT] + 0.25 * until


@compiled(**EXACT_BARE_INLINE)
def _sift(layer, kind, cells, count, until):
    """Drop those behind the first of `cells.look` that a tangent rules out over a shorter interval; returns how many are left.

    v is below it for good, where it climbs and i > 0.
    """
    left = np.uint64(1)
    for k in range(np.uint64(1), count):
        n = np.uint64(cells.look[k])
        v, i, c, v_th, share = cells.v[n], cells.i[n], cells.bias[n], layer.v_th[n], until * kind.rates.mem[n]
        rise, room = i + c - v, 2.0 * (1.0 + share) * nearness(v, i, c, v_th)
        cells.look[left] = n
        left += np.uint64((v + rise * share + room >= v_th) | (rise <= 0.0) | (i <= 0.0))
    return left
