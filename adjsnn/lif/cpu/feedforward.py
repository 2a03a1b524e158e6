"""A feed-forward LIF layer in one fused loop: samples, then neurons, then the arrivals of each neuron in time.

Between arrivals a neuron needs one step of its flow; crossings are looked for only where a bound from both ends allows one.
Layers whose neurons have equal time constants and arrivals are solved in lanes (`feedforward_lanes.py`).
"""

from math import exp, inf
from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.flow import decay, first_crossing, grown, may_cross, moved
from adjsnn.lif.layer import FINE, RUNAWAY
from adjsnn.numerics.compiled import EXACT, EXACT_BARE, EXACT_PIECE, compiled


class Marks(NamedTuple):
    """Times at which every neuron stops beside its arrivals.

    Attributes:
        time: (K,), sorted, ms.
        what: (K,), the probe p ≥ 0, or -k for the beginning of step k of the drive.
    """

    time: np.ndarray
    what: np.ndarray


class Walk(NamedTuple):
    """A neuron's way through a sample, from stop to stop.

    Attributes:
        time: (K,) of the stops, sorted, ms.
        ref: (K,), the input spike s ≥ 0 of the batch that arrives there, or -1-m for mark m.
    """

    time: np.ndarray
    ref: np.ndarray


class Spikes(NamedTuple):
    """Spikes in the order in which they are found, and what the adjoint must know of each.

    Attributes:
        time: (S,), ms.
        neuron: (S,).
        current: (S,), i and the drive just before the spike.
        released: (S,), the same at the release, or NaN where the trial ends before it.
        at: (S,), the stop before which the neuron spikes.
        free: (S,), the stop before which it is released, or -1.
    """

    time: np.ndarray
    neuron: np.ndarray
    current: np.ndarray
    released: np.ndarray
    at: np.ndarray
    free: np.ndarray


@compiled(**EXACT_PIECE)
def room(size):
    """Memory for `size` spikes."""
    integers = np.int32
    return Spikes(
        np.empty(size),
        np.empty(size, np.int64),
        np.empty(size),
        np.empty(size),
        np.empty(size, integers),
        np.empty(size, integers),
    )


@compiled(**EXACT_PIECE)
def more_room(spikes, size):
    """The same spikes in memory for at least `size`."""
    return Spikes(
        grown(spikes.time, size), grown(spikes.neuron, size), grown(spikes.current, size), grown(spikes.released, size),
        grown(spikes.at, size), grown(spikes.free, size),
    )  # fmt: skip


@compiled(**EXACT_PIECE)
def longest_walk(inputs, marks, first, last):
    """The most stops, and one more, of samples first … last-1."""
    longest = len(marks.time) + 1
    for b in range(first, last):
        longest = max(longest, inputs.first[b + 1] - inputs.first[b] + len(marks.time) + 1)
    return longest


@compiled(**EXACT_PIECE)
def walk_memory(inputs, marks, first, last):
    """Memory for the longest walk through samples first … last-1, and for another to sort in."""
    longest = longest_walk(inputs, marks, first, last)
    return Walk(np.empty(longest), np.empty(longest, np.int64)), Walk(np.empty(longest), np.empty(longest, np.int64))


@compiled(**EXACT_PIECE)
def walk_of(delays, inputs, b, t_end, marks, memory, spare):
    """The walk through sample b of a neuron with these delays (M,)."""
    count = stops(delays, inputs, b, t_end, marks.time, memory.time, memory.ref, spare)
    return Walk(memory.time[:count], memory.ref[:count])


@compiled(**EXACT_BARE)
def stops(delays, inputs, b, t_end, marks, time, ref, spare):
    """Arrivals by t_end and marks, sorted in time, arrivals first; returns their number."""
    place, ordered, before = np.uint64(0), True, -inf
    for s in range(np.uint64(inputs.first[b]), np.uint64(inputs.first[b + 1])):
        t = inputs.time[s] + delays[np.uint64(inputs.neuron[s])]
        time[place], ref[place] = t, s
        if t <= t_end:
            ordered &= before <= t
            before = t
            place += np.uint64(1)
    count = np.int64(place)
    if not ordered:  # seldom: input spikes are sorted, and delays often alike
        merge_sort(time, ref, count, spare.time, spare.ref)
    k, m = count - 1, len(marks) - 1
    for place in range(count + len(marks) - 1, -1, -1):  # merged from the end, so that nothing unread is overwritten
        if m < 0:
            break  # the others stand in their places
        if k >= 0 and time[k] > marks[m]:
            time[place], ref[place] = time[k], ref[k]
            k -= 1
        else:
            time[place], ref[place] = marks[m], -1 - m
            m -= 1
    return count + len(marks)


@compiled(**EXACT_BARE)
def merge_sort(time, ref, count, spare_time, spare_ref):
    """Sort the first `count` entries by time, in memory that is there; at equal times in the order in which they stand.

    numba's own sort allocates, and takes as long to compile as the rest of a walk.
    """
    width = 1
    while width < count:
        for low in range(0, count, 2 * width):
            middle, high = min(low + width, count), min(low + 2 * width, count)
            i, j = low, middle
            for k in range(low, high):
                if i < middle and (j >= high or time[i] <= time[j]):
                    spare_time[k], spare_ref[k] = time[i], ref[i]
                    i += 1
                else:
                    spare_time[k], spare_ref[k] = time[j], ref[j]
                    j += 1
        for k in range(count):
            time[k], ref[k] = spare_time[k], spare_ref[k]
        width *= 2


@compiled(**EXACT_BARE)
def permute(x, order, spare, begin, end):
    """Entries begin … end-1 of x are those at the places of `order`, which are among them."""
    size, least = np.uint64(end - begin), np.uint64(begin)
    for s in range(size):
        spare[s] = x[np.uint64(order[s])]
    for s in range(size):
        x[least + s] = spare[s]


@compiled(**EXACT)
def forward(layer, inputs, start, trial, marks, first, last, states):
    """Solve samples first … last-1.

    Args:
        layer: Layer.
        inputs: Events.
        start: State (B, N) at time 0.
        trial: Trial; its probes and edges are read in `marks`.
        marks: where every walk stops.
        first: of the samples.
        last: one past the last of them.
        states: State (P, B, N), written at the probes.

    Returns:
        the number of spikes of each sample, (last - first,); Spikes, of each sample sorted in time; the outcome: what went
        wrong, in which sample and neuron; and when.
    """
    neurons = len(layer.bias)
    counts = np.zeros(last - first, np.int64)
    spikes, total = room(max(64, 2 * neurons * (last - first))), np.int64(0)  # a bare 0 is a type of its own to numba
    memory, spare = walk_memory(inputs, marks, first, last)
    for b in range(first, last):
        begin, n = total, np.int64(0)
        while n < neurons:
            n, total, ran_away = _sample(layer, inputs, start, trial, marks, memory, spare, b, n, spikes, total, states)
            if ran_away < inf:
                return counts, spikes, (RUNAWAY, b, n), ran_away
            if n < neurons:  # no room for a spike of this one, which is solved once more
                spikes = more_room(spikes, len(spikes.time) + 1)
        counts[b - first] = total - begin
        _sort(spikes, begin, total)
    found = Spikes(
        spikes.time[:total], spikes.neuron[:total], spikes.current[:total], spikes.released[:total], spikes.at[:total],
        spikes.free[:total],
    )  # fmt: skip
    return counts, found, (FINE, 0, 0), 0.0


@compiled(**EXACT_BARE)
def _sample(layer, inputs, start, trial, marks, memory, spare, b, n, spikes, total, states):
    """Solve neurons n, n + 1, … of sample b, as far as there is room for their spikes.

    Returns:
        the neuron that is to be solved next, or that runs away; the number of spikes of those before it; when it spikes more
        often than it may, or inf.
    """
    shared, walk, begin = len(layer.delays) == 1, memory, n
    while n < len(layer.bias):
        if n == begin or not shared:
            delays = layer.delays[0 if shared else n]
            walk = walk_of(delays, inputs, b, trial.t_end, marks, memory, spare)
        after, ran_away = _solve(layer, inputs, start, trial, marks, walk, b, n, spikes, total, states)
        if after < 0 or ran_away < inf:
            return n, total, ran_away
        total = after
        n += 1
    return n, total, inf


@compiled(**EXACT_PIECE)
def _solve(layer, inputs, start, trial, marks, walk, b, n, spikes, total, states):
    """Neuron n through sample b: to every stop, through the spikes and releases before it.

    Returns:
        the number of spikes with this neuron's, or -1 where there is no room for them; when it spikes more often than it
        may, or inf.
    """
    v, i, t, release, mine = start.v[b, n], start.i[b, n], 0.0, inf, 0
    extra = trial.drive[0, b, n] if len(trial.drive) > 0 else 0.0
    tm, ts, c, threshold = layer.tau_mem[n], layer.tau_syn[n], layer.bias[n] + extra, layer.v_th[n]
    for k in range(len(walk.time) + 1):
        to = walk.time[k] if k < len(walk.time) else trial.t_end
        while True:
            if release < inf:  # held at the reset: the current alone moves
                if release > to:
                    i *= exp(-(to - t) / ts)
                    break
                i *= exp(-(release - t) / ts)
                t, release = release, inf
                spikes.released[total - 1], spikes.free[total - 1] = i + extra, k
            e_mem, e_syn, conv = decay(to - t, tm, ts)
            v_after, i_after = moved(v, i, c, tm, e_mem, e_syn, conv)
            wait = inf
            if may_cross(v, i, v_after, i_after, c, tm, ts, threshold, to - t):  # seldom; the search costs some 20 moves
                wait = first_crossing(v, i, c, tm, ts, threshold, to - t, v_after)
            if wait == inf:
                v, i = v_after, i_after
                break
            if mine == trial.limit:
                return total, t + wait
            if total == len(spikes.time):
                return -1, inf
            # A wait that rounds past the stop ends there: what arrives at the instant of a spike does not take part in it.
            t, i, v = min(t + wait, to), i * exp(-wait / ts), layer.v_reset[n]
            release = t + layer.refractory[n]
            spikes.time[total], spikes.neuron[total], spikes.current[total], spikes.at[total] = t, n, i + extra, k
            spikes.released[total], spikes.free[total] = np.nan, -1
            total += 1
            mine += 1
        t = to
        if k < len(walk.time):
            ref = walk.ref[k]
            if ref >= 0:
                i += layer.w_in[n, inputs.neuron[ref]]
            elif marks.what[-1 - ref] < 0:
                extra = trial.drive[-marks.what[-1 - ref], b, n]
                c = layer.bias[n] + extra
            else:
                states.v[marks.what[-1 - ref], b, n], states.i[marks.what[-1 - ref], b, n] = v, i
    return total, inf


@compiled(**EXACT_PIECE)
def _sort(spikes, begin, end):
    """Spikes begin … end-1 in order of time; of equal times the first neuron stays first."""
    count = end - begin
    order, spare, spare_order = np.empty(count, np.int64), np.empty(count), np.empty(count, np.int64)
    for s in range(count):
        order[s] = begin + s
    merge_sort(spikes.time[begin:end], order, count, spare, spare_order)
    permute(spikes.current, order, spare, begin, end)
    permute(spikes.released, order, spare, begin, end)
    permute(spikes.neuron, order, spare_order, begin, end)
    permute(spikes.at, order, spare_order, begin, end)
    permute(spikes.free, order, spare_order, begin, end)
