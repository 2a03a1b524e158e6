"""A layer of generalised LIF neurons of one kind, every spike of which arrives at most of them: all are carried in columns.

The order of events is that of `lif/plain.py`, and so are the results of `glif.py`, to rounding. From one time at which all
neurons stand to the next arrival, step of the drive or probe, neurons have no events but their own spikes (`glif_columns.py`).
"""

from math import inf

import numpy as np

from adjsnn.lif.cpu.glif import (
    FULL,
    Log,
    Progress,
    Spikes,
    come,
    more_log,
    more_spikes,
    send,
    these,
    write,
)
from adjsnn.lif.cpu.glif_cell import share
from adjsnn.lif.cpu.glif_columns import BOOKED, FAILED, HELD, LASTING, NOW, alone, book_of, columns_of, feed
from adjsnn.lif.cpu.glif_kernels import E_MU, KIND, SPAN
from adjsnn.lif.cpu.glif_lanes import DRIVEN, carry, filled, lanes_of
from adjsnn.lif.cpu.glif_lanes import SPAN as LOOKED
from adjsnn.lif.cpu.queue import pop, queue_of, roomier
from adjsnn.lif.glif.errors import ABOVE, AT_THRESHOLD
from adjsnn.lif.layer import ARRIVAL, DRIVE, FINE, PROBE, RECURRENT, RELEASE, RUNAWAY, SPIKE
from adjsnn.numerics.compiled import EXACT, EXACT_BARE, EXACT_BARE_INLINE, compiled

ROOM = 8  # spikes of an interval, of each neuron; with more it ends earlier


@compiled(**EXACT)
def table_of(wiring, n_k, neurons):
    """Weights as a table (Q, K, N), 0 where there is no synapse; of no groups where a table is not worth it, or cannot be."""
    groups = len(wiring.delay)
    table = np.zeros((groups, n_k, neurons))
    if 2 * len(wiring.post) < groups * neurons:
        return table[:0], False
    seen = np.full((n_k, neurons), -1)
    for q in range(groups):
        for e in range(wiring.edge[q], wiring.edge[q + 1]):
            n, k = wiring.post[e], wiring.receptor[e]
            if seen[k, n] == q:
                return table[:0], False
            seen[k, n], table[q, k, n] = q, wiring.weight[e]
    return table, True


@compiled(**EXACT)
def forward(layer, kinds, tables, inputs, start, trial, first, last, states):
    """Solve samples first … last-1; as `glif.forward`.

    Args:
        tables: from `table_of`, of the inputs and of the layer itself.
    """
    neurons = len(kinds.of)
    rows, room = 1 + kinds.rate.shape[1] + kinds.th_rate.shape[1], 2 * ROOM * neurons
    columns, lanes, book = columns_of(kinds, neurons, rows), lanes_of(neurons, rows), book_of(room, rows)
    wiring = layer.recurrent
    for n in range(neurons):
        there = n + 1 < len(wiring.first) and wiring.first[n] < wiring.first[n + 1]
        columns.v_th[n] = layer.neurons.v_th[n]
        columns.soonest[n] = wiring.delay[wiring.first[n]] if there else inf
    size = max(2 * room, 2 * neurons * (last - first))
    spikes = Spikes(np.empty(size), np.empty(size, np.int64), np.empty(size), np.empty(size), np.empty(size), np.empty(size))
    log = Log(np.empty(size), np.empty(size, np.int8), np.empty(size, np.int32), np.empty(size, np.int32))
    counts, entries = np.zeros(last - first, np.int64), np.zeros(last - first, np.int64)
    queue, total, logged = queue_of(room + 64), np.int64(0), np.int64(0)
    for b in range(first, last):
        _begin(layer.neurons, columns, start, trial, b)
        none = np.int64(0)
        progress, outcome, n, t = Progress(none, none, inputs.first[b], none, none, total, total, logged), FULL, none, 0.0
        while outcome == FULL:
            progress, outcome, n, t = _sample(
                layer, kinds, tables, inputs, trial, (columns, lanes, book), spikes, log, queue, progress, b, states
            )
            if outcome == FULL:
                spikes = more_spikes(spikes, progress.total + room)
                log = more_log(log, progress.logged + 2 * room + 3)
                queue = roomier(queue, progress.queued + room + 3)
        if outcome != FINE:
            return counts, spikes, entries, log, (outcome, b, n), t
        counts[b - first], entries[b - first] = progress.total - total, progress.logged - logged
        total, logged = progress.total, progress.logged
    history = Log(log.time[:logged], log.kind[:logged], log.ref[:logged], log.target[:logged])
    return counts, these(spikes, total), entries, history, (FINE, 0, 0), 0.0


@compiled(**EXACT_BARE)
def _begin(neurons, columns, start, trial, b):
    """All neurons of sample b at time 0."""
    n_c = start.c.shape[1]
    for n in range(len(columns.bias)):
        columns.x[0, n], columns.free[n], columns.fired[n], columns.last[n] = start.v[b, n], 1.0, 0, -1
        columns.bias[n] = neurons.bias[n] + (trial.drive[0, b, n] if len(trial.drive) > 0 else 0.0)
        for p in range(n_c):
            columns.x[1 + p, n] = start.c[b, p, n]
        for m in range(start.h.shape[1]):
            columns.x[1 + n_c + m, n] = start.h[b, m, n]
    columns.clock[NOW], columns.clock[LASTING], columns.size[HELD], columns.size[BOOKED] = 0.0, inf, 0, 0
    columns.shared[KIND], columns.shared[SPAN] = -1.0, -1.0


@compiled(**EXACT_BARE)
def _sample(layer, kinds, tables, inputs, trial, memory, spikes, log, queue, progress, b, states):
    """Solve sample b from where its progress is, as far as there is room for what happens; as `glif._sample`."""
    step, probe, coming, queued, pushed, first, total, logged = progress
    columns, lanes, book = memory
    room = len(book.time)
    while True:
        coming, queued, pushed = come(layer.incoming, inputs, queue, coming, queued, pushed, inputs.first[b + 1], trial.t_end)
        full = logged + 2 * room + 2 > len(log.time)  # a spike and its release at once are two entries there, one in the book
        if full or total + room > len(spikes.time) or queued + room + 2 > len(queue.time):
            return Progress(step, probe, coming, queued, pushed, first, total, logged), FULL, step, 0.0
        arriving = queue.time[0] if queued > 0 else inf
        ends = trial.edges[step] if step < len(trial.edges) else inf
        asked = trial.probes[probe] if probe < len(trial.probes) else inf
        stop = alone(layer.neurons, kinds, columns, lanes, book, min(arriving, ends, asked, trial.t_end), trial.limit)
        for k in range(columns.size[BOOKED]):
            e = book.order[k]
            n, t = book.neuron[e], book.time[e]
            if book.what[e] != RELEASE:
                logged = write(log, logged, t, SPIKE, total - first, n)
                spikes.time[total], spikes.neuron[total], spikes.released[total] = t, n, np.nan
                spikes.speed[total], spikes.rise[total], spikes.over[total] = book.speed[e], book.rise[e], book.over[e]
                columns.spike_of[n] = total
                queued, pushed = send(layer.recurrent, queue, queued, pushed, total - first, n, -1, t, trial.t_end)
                total += 1
                columns.fired[n] += 1
                if columns.fired[n] > trial.limit:
                    return Progress(step, probe, coming, queued, pushed, first, total, logged), RUNAWAY, n, t
            if book.what[e] != SPIKE:
                logged = write(log, logged, t, RELEASE, columns.spike_of[n] - first, n)
                spikes.released[columns.spike_of[n]] = book.freed[e]
        if columns.size[FAILED] >= 0:
            return progress, ABOVE, columns.size[FAILED], stop
        _settle(kinds, columns, lanes, book, stop)
        if queued > 0 and queue.time[0] == stop:
            ref, q = queue.ref[0], queue.target[0]
            queued = pop(queue, queued)
            if ref < 0:
                source, t = inputs.neuron[~ref], inputs.time[~ref]
                logged = write(log, logged, stop, ARRIVAL, ~ref, q)
                arrive(columns.x, tables[0][q])
                queued, pushed = send(layer.incoming, queue, queued, pushed, ref, source, q + 1, t, trial.t_end)
            else:
                source, t = spikes.neuron[first + ref], spikes.time[first + ref]
                logged = write(log, logged, stop, RECURRENT, ref, q)
                arrive(columns.x, tables[1][q])
                queued, pushed = send(layer.recurrent, queue, queued, pushed, ref, source, q + 1, t, trial.t_end)
        elif ends == stop:
            step += 1
            logged = write(log, logged, stop, DRIVE, step, 0)
            for n in range(len(columns.bias)):
                columns.bias[n] = layer.neurons.bias[n] + trial.drive[step, b, n]
        elif asked == stop:
            logged = write(log, logged, stop, PROBE, probe, 0)
            _record(columns.x, probe, b, states)
            probe += 1
        elif stop == trial.t_end:
            n = _above(columns, kinds.rate.shape[1])
            if n >= 0:
                return progress, ABOVE, n, stop
            return Progress(step, probe, coming, queued, pushed, first, total, logged), FINE, step, stop


@compiled(**EXACT_BARE)
def _above(columns, n_c):
    """The first neuron that was released above its threshold at the end of the trial, where no interval begins, or -1."""
    x = columns.x
    for n in range(len(columns.bias)):
        gap, size = x[0, n] - columns.v_th[n], abs(x[0, n]) + abs(columns.v_th[n])
        for q in range(1 + n_c, len(x)):
            gap -= x[q, n]
            size += abs(x[q, n])
        if columns.free[n] > 0.0 and gap > AT_THRESHOLD * size:
            return n
    return -1


@compiled(**EXACT_BARE)
def arrive(x, weights):
    """A spike arrives with weights (K, N)."""
    for k in range(len(weights)):
        c, w = x[1 + k], weights[k]
        for n in range(len(c)):
            c[n] += w[n]


@compiled(**EXACT_BARE)
def _record(x, probe, b, states):
    """The states of all neurons at a probe."""
    n_c = states.c.shape[2]
    for n in range(x.shape[1]):
        states.v[probe, b, n] = x[0, n]
        for p in range(n_c):
            states.c[probe, b, p, n] = x[1 + p, n]
        for m in range(states.h.shape[2]):
            states.h[probe, b, m, n] = x[1 + n_c + m, n]


@compiled(**EXACT_BARE_INLINE)
def _settle(kinds, columns, lanes, book, stop):
    """All neurons to time `stop`, after what is in the book."""
    span, x = stop - columns.clock[NOW], columns.x
    if span > 0.0:
        _move(kinds, columns, span)
        columns.clock[NOW] = stop
    count, late = np.int64(0), 0.0
    for k in range(columns.size[BOOKED]):
        n = book.neuron[book.order[k]]
        if columns.last[n] < 0:
            columns.list[count] = n
            count += 1
        columns.last[n] = book.order[k]
    for j in range(count):
        n = columns.list[j]
        e = columns.last[n]
        columns.last[n] = -1
        for q in range(len(x)):
            lanes.x[q, j] = book.state[e, q]
        lanes.of[DRIVEN, j], lanes.of[LOOKED, j] = columns.bias[n], stop - book.time[e]
        late = max(late, stop - book.time[e])
        held = book.what[e] == SPIKE
        columns.size[HELD] += np.int64(held) - np.int64(columns.free[n] == 0.0)
        columns.free[n], columns.release[n] = 0.0 if held else 1.0, book.next[e]
    if late > 0.0:
        mu, gain, rate, th_rate = kinds.leak_rate[0], kinds.gain[0], kinds.rate[0], kinds.th_rate[0]
        carry(mu, gain, rate, th_rate, lanes.of, lanes.x, lanes.y, filled(count), LOOKED)
    after = lanes.y if late > 0.0 else lanes.x
    for j in range(count):
        n = columns.list[j]
        x[0, n] = after[0, j] if columns.free[n] > 0.0 else lanes.x[0, j]
    for q in range(1, len(x)):
        for j in range(count):
            x[q, columns.list[j]] = after[q, j]


@compiled(**EXACT_BARE_INLINE)
def _move(kinds, columns, span):
    """All neurons over a span without spikes; those that are held keep their voltage."""
    shared, x, free, gain = columns.shared, columns.x, columns.free, kinds.gain[0]
    share(kinds, shared, 0, span)
    v, fed, neurons, e_mu = x[0], columns.limits[0], len(columns.bias), shared[E_MU]
    feed(kinds, shared, x, columns.bias, fed)
    for n in range(neurons):
        v[n] = v[n] * e_mu + gain * fed[n] if free[n] > 0.0 else v[n]
