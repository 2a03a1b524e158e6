"""A feed-forward LIF layer whose neurons have the same arrivals: a tile of samples from stop to stop.

All neurons of a sample move together from one stop to the next, by exponentials that they share, or that each has for itself
where their time constants differ (`each.py`); those that a bound does not rule out are searched together, of all samples of
the tile (`lanes.py`). The result is that of `feedforward.forward`, to rounding.
"""

from math import exp, inf
from typing import Any, NamedTuple

import numpy as np

from adjsnn.lif.cpu.each import Each, at, each_of, either, put_at, shares, taus_of
from adjsnn.lif.cpu.elementary import decays, rates_at, rates_of
from adjsnn.lif.cpu.feedforward import Spikes, Walk, longest_walk, more_room, room, stops
from adjsnn.lif.cpu.flow import BLUR, quick_bound
from adjsnn.lif.cpu.lane_order import in_order, order_memory
from adjsnn.lif.cpu.lanes import column_memory, put, search
from adjsnn.lif.layer import FINE, RUNAWAY
from adjsnn.numerics.compiled import EXACT, EXACT_BARE, EXACT_PIECE, compiled

LANES = 512  # neurons of a tile, about: few enough for a core's cache, many enough to search some dozens at a time
STOPS = 1 << 16  # of a tile, about: some megabytes of exponentials
SPIKES, LISTED, HELD, RAN, BEFORE = range(5)  # places in Tile.size


class Tile(NamedTuple):
    """Samples that are solved together, S of them, and their neurons, L = S N lanes.

    Attributes:
        v: (L,), membrane voltage.
        i: (L,), synaptic current.
        bias: (L,), b and the present step of the drive together, (2.16).
        extra: (L,), that step alone.
        release: (L,), when a neuron that is held is released, ms.
        last: (L,), the last spike of each.
        fired: (L,), spikes so far.
        sample: (L,), of the tile.
        neuron: (L,), of the layer.
        v_th: (L,), threshold.
        mark: (L,), 1 where a bound says that a neuron may cross.
        v_next: (L,), v at the next stop if nothing happens before.
        e_mem: (L,), e^{-t/τ_m} of the interval to the next stop of its sample; 1 where that has had its last one.
        e_syn: (L,), e^{-t/τ_s} of it.
        gain: (L,), K(t)/τ_m.
        share: (L,), t/τ_m.
        held: the neurons that are held at their reset, in any order.
        kept: (2, L), v and i of those that are held, while the others move.
        time: (S, K), of the stops, ms.
        ref: (S, K), what happens there, as in Walk.
        stops: (S,), how many there are.
        all_e_mem: (S, K + 1), e_mem of every interval of every sample, where neurons share it.
        all_e_syn: (S, K + 1), e_syn.
        all_gain: (S, K + 1), gain.
        all_share: (S, K + 1), share; where neurons do not share it the interval itself, ms.
        size: (5,), spikes so far; neurons in the column; neurons that are held; a neuron that runs away, or -1; spikes before
            the tile.
        tau_mem: τ_m, or that of each lane, (L,), ms.
        tau_syn: τ_s, likewise.
        each: Each, of the lanes, where their time constants differ, or None.
        column_mem: τ_m, or that of each place of the column, (L,), ms.
        column_syn: τ_s, likewise.
    """

    v: np.ndarray
    i: np.ndarray
    bias: np.ndarray
    extra: np.ndarray
    release: np.ndarray
    last: np.ndarray
    fired: np.ndarray
    sample: np.ndarray
    neuron: np.ndarray
    v_th: np.ndarray
    mark: np.ndarray
    v_next: np.ndarray
    e_mem: np.ndarray
    e_syn: np.ndarray
    gain: np.ndarray
    share: np.ndarray
    held: np.ndarray
    kept: np.ndarray
    time: np.ndarray
    ref: np.ndarray
    stops: np.ndarray
    all_e_mem: np.ndarray
    all_e_syn: np.ndarray
    all_gain: np.ndarray
    all_share: np.ndarray
    size: np.ndarray
    tau_mem: Any
    tau_syn: Any
    each: Each | None
    column_mem: Any
    column_syn: Any


@compiled(**EXACT_PIECE)
def _tile_memory(layer, samples, longest):
    neurons = len(layer.bias)
    lanes = samples * neurons
    each = each_of(layer, samples)
    tau_mem, tau_syn = taus_of(layer.tau_mem, layer.tau_syn, each, lanes)
    for q in range(lanes):
        put_at(tau_mem, q, layer.tau_mem[q % neurons])
        put_at(tau_syn, q, layer.tau_syn[q % neurons])
    column_mem, column_syn = taus_of(layer.tau_mem, layer.tau_syn, each, lanes)
    integers = np.int64
    tables = samples, longest + 1
    return Tile(
        np.empty(lanes), np.empty(lanes), np.empty(lanes), np.empty(lanes), np.empty(lanes), np.empty(lanes, integers),
        np.empty(lanes, integers), np.empty(lanes, integers), np.empty(lanes, integers), np.empty(lanes),
        np.empty(lanes, integers), np.empty(lanes), np.empty(lanes), np.empty(lanes), np.empty(lanes), np.empty(lanes),
        np.empty(lanes, integers), np.empty((2, lanes)), np.empty((samples, longest)), np.empty((samples, longest), integers),
        np.empty(samples, integers), np.empty(tables), np.empty(tables), np.empty(tables), np.empty(tables),
        np.empty(5, integers), tau_mem, tau_syn, each, column_mem, column_syn,
    )  # fmt: skip


@compiled(**EXACT)
def forward(layer, inputs, start, trial, marks, first, last, states):
    """Solve samples first … last-1; as `feedforward.forward`."""
    neurons, group = len(layer.bias), last - first
    w_in_t = np.ascontiguousarray(layer.w_in.T)
    counts, spikes = np.zeros(group, np.int64), room(max(64, 2 * neurons * group))
    longest = longest_walk(inputs, marks, first, last)
    samples = max(1, min(group, LANES // neurons, STOPS // longest))
    tile, column = _tile_memory(layer, samples, longest), column_memory(samples * neurons)
    spare = Walk(np.empty(longest), np.empty(longest, np.int64))
    memory = order_memory(4 * samples * neurons)
    tile.size[SPIKES] = 0
    for b in range(first, last, samples):
        size = min(samples, last - b)
        for k in range(_begin(layer, inputs, start, trial, marks, tile, spare, b, size) + 1):
            _move(layer, trial, tile, column, spikes, k, size)
            while tile.size[LISTED] > 0:
                if tile.size[SPIKES] + tile.size[LISTED] > len(spikes.time):
                    spikes = more_room(spikes, tile.size[SPIKES] + tile.size[LISTED])
                ran_away = _spikes(layer, trial, tile, column, spikes, k)
                if ran_away < inf:
                    lane = tile.size[RAN]
                    return counts, spikes, (RUNAWAY, b + lane // neurons, lane % neurons), ran_away
            _stop(layer, w_in_t, inputs, trial, marks, tile, states, b, k, size)
        found = tile.size[SPIKES] - tile.size[BEFORE]
        if found > len(memory.order):
            memory = order_memory(2 * found)
        in_order(spikes, tile, tile.size[BEFORE], tile.size[SPIKES], trial.t_end, counts[b - first : b - first + size], memory)
    total = tile.size[SPIKES]
    found = Spikes(
        spikes.time[:total], spikes.neuron[:total], spikes.current[:total], spikes.released[:total], spikes.at[:total],
        spikes.free[:total],
    )  # fmt: skip
    return counts, found, (FINE, 0, 0), 0.0


@compiled(**EXACT_BARE)
def _begin(layer, inputs, start, trial, marks, tile, spare, b, size):
    """Samples b … b + size - 1 at time 0, their stops, and the exponentials between them; returns the most stops of one."""
    most = 0
    neurons, rates, rate_mem = len(layer.bias), rates_of(layer.tau_mem[0], layer.tau_syn[0]), 1.0 / layer.tau_mem[0]
    for s in range(size):
        time, of_sample = tile.time[s], slice(s * neurons, (s + 1) * neurons)
        count = stops(layer.delays[0], inputs, b + s, trial.t_end, marks.time, time, tile.ref[s], spare)
        tile.stops[s], most = count, max(most, count)
        e_mem, e_syn, gain, share = tile.all_e_mem[s], tile.all_e_syn[s], tile.all_gain[s], tile.all_share[s]
        before = 0.0
        for k in range(count + 1):
            t = time[k] if k < count else trial.t_end
            share[k], before = t - before, t
        if shares(tile.each):
            for k in range(count + 1):
                e_mem[k], e_syn[k], gain[k] = decays(share[k], rates)
                share[k] *= rate_mem
        v, i, extra, bias = tile.v[of_sample], tile.i[of_sample], tile.extra[of_sample], tile.bias[of_sample]
        v_th, sample, neuron = tile.v_th[of_sample], tile.sample[of_sample], tile.neuron[of_sample]
        last, fired = tile.last[of_sample], tile.fired[of_sample]
        for n in range(np.uint64(neurons)):
            v[n], i[n], v_th[n] = start.v[b + s, n], start.i[b + s, n], layer.v_th[n]
            extra[n] = trial.drive[0, b + s, n] if len(trial.drive) > 0 else 0.0
            bias[n] = layer.bias[n] + extra[n]
            last[n], fired[n], sample[n], neuron[n] = -1, 0, s, n
    tile.size[HELD], tile.size[LISTED], tile.size[RAN], tile.size[BEFORE] = 0, 0, -1, tile.size[SPIKES]
    return most


@compiled(**EXACT_BARE)
def _move(layer, trial, tile, column, spikes, k, size):
    """Carry all neurons to stop k as if none crossed, and list those that may."""
    neurons = len(layer.bias)
    flow_of_lanes(tile, k, size, neurons)
    if shares(tile.each):
        for s in range(size):
            past = k > tile.stops[s]  # a sample that has had its last stop stays where it is
            e_mem, e_syn = (1.0, 1.0) if past else (tile.all_e_mem[s, k], tile.all_e_syn[s, k])
            gain, share = (0.0, 0.0) if past else (tile.all_gain[s, k], tile.all_share[s, k])
            for q in range(np.uint64(s * neurons), np.uint64((s + 1) * neurons)):
                tile.e_mem[q], tile.e_syn[q], tile.gain[q], tile.share[q] = e_mem, e_syn, gain, share
    _look(tile, np.uint64(size * neurons))
    for s in range(size):
        if k > tile.stops[s]:
            for q in range(np.uint64(s * neurons), np.uint64((s + 1) * neurons)):
                tile.mark[q] = 0
    for h in range(np.uint64(tile.size[HELD])):
        q = np.uint64(tile.held[h])
        tile.kept[0, h], tile.kept[1, h], tile.mark[q] = tile.v[q], tile.i[q], 0
    count, lanes = np.uint64(0), np.uint64(size * neurons)
    for q in range(lanes):
        column.lane[count] = q
        count += np.uint64(tile.mark[q])
    for j in range(count):
        q = np.uint64(column.lane[j])
        s = tile.sample[q]
        begin, until = tile.time[s, k - 1] if k > 0 else 0.0, tile.time[s, k] if k < tile.stops[s] else trial.t_end
        column.v[j], column.i[j], column.bias[j], column.v_th[j] = tile.v[q], tile.i[q], tile.bias[q], tile.v_th[q]
        column.begin[j], column.until[j], column.span[j] = begin, until, until - begin
        column.v_end[j], column.i_end[j] = tile.v_next[q], tile.i[q] * tile.e_syn[q]
        put_at(tile.column_mem, j, at(tile.tau_mem, q))
        put_at(tile.column_syn, j, at(tile.tau_syn, q))
    v, i, v_next, e_syn = tile.v, tile.i, tile.v_next, tile.e_syn
    for q in range(lanes):
        v[q] = v_next[q]
        i[q] *= e_syn[q]
    tile.size[LISTED] = np.int64(count)
    if tile.size[HELD] > 0:
        _release(layer, trial, tile, column, spikes, k)


@compiled(**EXACT_BARE)
def _flow_of_lanes(tile, k, size, neurons):
    """Exponentials of the intervals that end at stop k, of every neuron its own."""
    e_mem, e_syn, gain, share, rates = tile.e_mem, tile.e_syn, tile.gain, tile.share, tile.each.rates
    for s in range(size):
        t = 0.0 if k > tile.stops[s] else tile.all_share[s, k]
        for q in range(np.uint64(s * neurons), np.uint64((s + 1) * neurons)):
            share[q] = t
    for q in range(np.uint64(size * neurons)):
        e_mem[q], e_syn[q], gain[q] = decays(share[q], rates_at(rates, q))
        share[q] *= rates.mem[q]


flow_of_lanes = either(None, _flow_of_lanes)


@compiled(**EXACT_BARE)
def _look(tile, lanes):
    """Where the neurons will be at their next stops, and a mark where the bound allows a crossing on the way."""
    v, i, bias, v_th, mark, v_next = tile.v, tile.i, tile.bias, tile.v_th, tile.mark, tile.v_next
    e_mem, gain, share = tile.e_mem, tile.gain, tile.share
    for q in range(lanes):
        v_after = bias[q] + (v[q] - bias[q]) * e_mem[q] + i[q] * gain[q]
        mark[q] = quick_bound(v[q], i[q], v_after, bias[q], v_th[q], share[q], BLUR + BLUR * share[q])
        v_next[q] = v_after


@compiled(**EXACT_BARE)
def _release(layer, trial, tile, column, spikes, k):
    """Neurons that are held: their current alone moves; those that are released before stop k go on from there."""
    held, count, before = 0, tile.size[LISTED], tile.size[LISTED]
    for h in range(tile.size[HELD]):
        q = tile.held[h]
        s, n, v, i, release = tile.sample[q], tile.neuron[q], tile.kept[0, h], tile.kept[1, h], tile.release[q]
        until = tile.time[s, k] if k < tile.stops[s] else trial.t_end
        if k <= tile.stops[s] and release <= until:
            i *= exp(-(release - (tile.time[s, k - 1] if k > 0 else 0.0)) / at(tile.tau_syn, q))
            spikes.released[tile.last[q]], spikes.free[tile.last[q]] = i + tile.extra[q], k
            _again(layer, tile, column, count, q, n, i, release, until)
            count += 1
        else:
            tile.v[q] = v
            tile.i[q] = i * tile.e_syn[q]
            tile.held[held] = q
            held += 1
    tile.size[HELD] = held
    tile.size[LISTED] = _sift(layer, tile, column, before, count)


@compiled(**EXACT_PIECE)
def _again(layer, tile, column, place, q, n, i, begin, until):
    """A neuron of the tile on its way from its reset, in a place of the column."""
    column.lane[place], column.v[place], column.i[place], column.bias[place] = q, layer.v_reset[n], i, tile.bias[q]
    column.v_th[place], column.begin[place], column.until[place] = layer.v_th[n], begin, until
    column.span[place] = until - begin
    put_at(tile.column_mem, place, at(tile.tau_mem, q))
    put_at(tile.column_syn, place, at(tile.tau_syn, q))


@compiled(**EXACT_BARE)
def _sift(layer, tile, column, first, last):
    """Carry neurons in places first … last-1 of the column to their stops as if they did not cross, and keep those that may.

    Returns:
        where the column now ends.
    """
    v, i, bias, v_th = column.v[first:last], column.i[first:last], column.bias[first:last], column.v_th[first:last]
    span, v_end, i_end, known = (
        column.span[first:last], column.v_end[first:last], column.i_end[first:last], column.known[first:last],
    )  # fmt: skip
    for j in range(np.uint64(last - first)):
        tau_mem, tau_syn = at(tile.column_mem, np.uint64(first) + j), at(tile.column_syn, np.uint64(first) + j)
        e_mem, e_syn, gain = decays(span[j], rates_of(tau_mem, tau_syn))
        v_end[j], i_end[j] = bias[j] + (v[j] - bias[j]) * e_mem + i[j] * gain, i[j] * e_syn
        share = span[j] * (1.0 / tau_mem)
        known[j] = quick_bound(v[j], i[j], v_end[j], bias[j], v_th[j], share, BLUR + BLUR * share)
    count = np.uint64(first)
    for j in range(np.uint64(first), np.uint64(last)):
        q = np.uint64(column.lane[j])
        tile.v[q], tile.i[q] = column.v_end[j], column.i_end[j]
        column.place[count] = j
        count += np.uint64(column.known[j])
    for k in range(np.uint64(first), count):
        j = np.uint64(column.place[k])
        put(column, j, k)
        put_at(tile.column_mem, k, at(tile.column_mem, j))
        put_at(tile.column_syn, k, at(tile.column_syn, j))
    return np.int64(count)


@compiled(**EXACT_BARE)
def _spikes(layer, trial, tile, column, spikes, k):
    """The next spikes of the neurons in the column, which then holds those that may spike once more before stop k.

    Returns:
        when a neuron spikes more often than it may, or inf.
    """
    total, one, count = np.uint64(tile.size[SPIKES]), np.uint64(1), np.uint64(0)
    found = search(column, tile.size[LISTED], tile.column_mem, tile.column_syn)
    for j in range(np.uint64(found)):
        if column.wait[j] == inf:
            continue
        q, until = np.uint64(column.lane[j]), column.until[j]
        n = np.uint64(tile.neuron[q])
        # A wait that rounds past the stop ends there: what arrives at the instant of a spike does not take part in it.
        t, i = min(column.begin[j] + column.wait[j], until), column.i_cross[j]
        if tile.fired[q] == trial.limit:
            tile.size[RAN] = q
            return t
        spikes.time[total], spikes.neuron[total], spikes.current[total], spikes.at[total] = t, q, i + tile.extra[q], k
        spikes.released[total], spikes.free[total] = np.nan, -1
        tile.last[q] = total
        tile.fired[q] += 1
        total += one
        release = t + layer.refractory[n]
        if release > until:
            tile.v[q], tile.i[q], tile.release[q] = layer.v_reset[n], i * exp(-(until - t) / at(tile.tau_syn, q)), release
            tile.held[tile.size[HELD]] = q
            tile.size[HELD] += 1
        else:
            i = i * exp(-(release - t) / at(tile.tau_syn, q)) if release > t else i
            spikes.released[total - one], spikes.free[total - one] = i + tile.extra[q], k
            _again(layer, tile, column, count, q, n, i, release, until)
            count += one
    tile.size[SPIKES] = total
    tile.size[LISTED] = _sift(layer, tile, column, np.int64(0), np.int64(count))
    return inf


@compiled(**EXACT_BARE)
def _stop(layer, w_in_t, inputs, trial, marks, tile, states, b, k, size):
    """What happens at stop k of every sample."""
    neurons = len(layer.bias)
    for s in range(size):
        if k < tile.stops[s]:
            of_sample, ref = slice(s * neurons, (s + 1) * neurons), tile.ref[s, k]
            v, i = tile.v[of_sample], tile.i[of_sample]
            if ref >= 0:
                weights = w_in_t[inputs.neuron[ref]]
                for n in range(neurons):
                    i[n] += weights[n]
            elif marks.what[-1 - ref] < 0:
                extra, bias, step = tile.extra[of_sample], tile.bias[of_sample], -marks.what[-1 - ref]
                for n in range(neurons):
                    extra[n] = trial.drive[step, b + s, n]
                    bias[n] = layer.bias[n] + extra[n]
            else:
                probe = marks.what[-1 - ref]
                for n in range(neurons):
                    states.v[probe, b + s, n], states.i[probe, b + s, n] = v[n], i[n]
