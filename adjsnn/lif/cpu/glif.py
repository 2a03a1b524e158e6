"""A layer of generalised LIF neurons in one fused loop: each sample event by event, an arrival touching its targets alone.

The order of events is that of `lif/plain.py`: at equal times spikes, releases, arrivals, changes of the drive, then
probes. A neuron is carried to the time of what happens to it and no further. After that a bound without exponentials says
until when it cannot spike; it waits for that time, or an earlier one of before, in a heap, and is examined only when it comes
first there. Most arrivals in a large network ask no more than the bound.
"""

from math import inf
from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.flow import grown
from adjsnn.lif.cpu.glif_cell import bound, first_crossing, move, never, passage, share, wait_of
from adjsnn.lif.cpu.glif_follow import slope_of
from adjsnn.lif.cpu.glif_kernels import BIAS, CURRENTS, KEY, KIND, SAFE, SHARED, SINCE, SPAN, V_TH, V
from adjsnn.lif.cpu.queue import pop, push, queue_of, roomier
from adjsnn.lif.glif.errors import ABOVE, AT_THRESHOLD
from adjsnn.lif.layer import ARRIVAL, DRIVE, FINE, PROBE, RECURRENT, RELEASE, RUNAWAY, SPIKE
from adjsnn.numerics.compiled import EXACT, EXACT_BARE, EXACT_BARE_INLINE, EXACT_PIECE, EXACT_WITHIN, compiled

SAFELY, FORESEEN, HELD = range(3)  # what a neuron waits for: the end of a bound, its next spike, its release
WORTH = 0.25  # of the time since its last event: a bound so long is taken, a shorter one makes way for the crossing
FULL = -1  # an outcome of `_sample`


class Spikes(NamedTuple):
    """Spikes in order of time.

    Attributes:
        time: (S,), ms.
        neuron: (S,).
        speed: (S,), v̇ - θ̇ just before the spike.
        rise: (S,), v̇ just before it.
        over: (S,), v - v_th just before it.
        released: (S,), v̇ just after the release, or NaN where the trial ends before it.
    """

    time: np.ndarray
    neuron: np.ndarray
    speed: np.ndarray
    rise: np.ndarray
    over: np.ndarray
    released: np.ndarray


class Log(NamedTuple):
    """What happened, in order.

    Attributes:
        time: (E,), ms.
        kind: (E,), one of ARRIVAL, RECURRENT, SPIKE, RELEASE, PROBE, DRIVE.
        ref: (E,), which spike, counted in the sample, input spike, counted in the batch, probe or step of the drive.
        target: (E,), the neuron, or the group of synapses of an arrival.
    """

    time: np.ndarray
    kind: np.ndarray
    ref: np.ndarray
    target: np.ndarray


class Cells(NamedTuple):
    """The neurons of a sample on their way.

    Attributes:
        x: (N, 6 + P + H), a row of `glif_cell` for each.
        waits: (N,), SAFELY, FORESEEN or HELD.
        spike_of: (N,), the last spike of each that is held, counted in the group of samples.
        fired: (N,), spikes so far.
        key: (N,), a binary heap of the times under which neurons wait, the earliest first, ms.
        who: (N,), the neuron of each.
        place: (N,), where in the heap a neuron stands.
        shared: exponentials of `glif_cell.share`.
        ahead: a row that is not a neuron's.
        work: room for `first_crossing`.
    """

    x: np.ndarray
    waits: np.ndarray
    spike_of: np.ndarray
    fired: np.ndarray
    key: np.ndarray
    who: np.ndarray
    place: np.ndarray
    shared: np.ndarray
    ahead: np.ndarray
    work: np.ndarray


class Progress(NamedTuple):
    """How far the solve of a sample has come, all integers.

    Attributes:
        step: the present step of the drive.
        probe: the next probe.
        coming: the next input spike.
        queued: arrivals that wait in the queue.
        pushed: those that ever did, their order at equal times.
        first: number of spikes of the samples before.
        total: with those of this one.
        logged: entries of the log.
    """

    step: np.int64
    probe: np.int64
    coming: np.int64
    queued: np.int64
    pushed: np.int64
    first: np.int64
    total: np.int64
    logged: np.int64


@compiled(**EXACT)
def forward(layer, kinds, inputs, start, trial, first, last, states):
    """Solve samples first … last-1.

    Args:
        layer: GLIF.
        kinds: Kinds of its neurons.
        inputs: Events.
        start: GLIFState at time 0, (B, …).
        trial: Trial.
        first: of the samples.
        last: the first sample after them.
        states: GLIFState at the probes, (P_t, B, …), to be filled.

    Returns:
        the number of spikes of each sample, (last - first,); Spikes; the number of log entries of each sample; Log; the
        outcome: what went wrong, in which sample and neuron; and when.
    """
    cells = memory_of(kinds)
    size = max(64, 2 * len(kinds.of) * (last - first))
    spikes = Spikes(np.empty(size), np.empty(size, np.int64), np.empty(size), np.empty(size), np.empty(size), np.empty(size))
    log = Log(np.empty(size), np.empty(size, np.int8), np.empty(size, np.int32), np.empty(size, np.int32))
    counts, entries = np.zeros(last - first, np.int64), np.zeros(last - first, np.int64)
    queue, total, logged = queue_of(64), np.int64(0), np.int64(0)  # a bare 0 is a type of its own to numba
    for b in range(first, last):
        begin(layer.neurons, kinds, cells, start, trial.drive, b)
        _line_up(kinds, cells)
        none = np.int64(0)
        progress, outcome, n, t = Progress(none, none, inputs.first[b], none, none, total, total, logged), FULL, none, 0.0
        while outcome == FULL:
            progress, outcome, n, t = _sample(layer, kinds, inputs, trial, cells, spikes, log, queue, progress, b, states)
            if outcome == FULL:
                spikes = more_spikes(spikes, progress.total + 1)
                log = more_log(log, progress.logged + len(trial.probes) + 3)
                queue = roomier(queue, progress.queued + 2)
        if outcome != FINE:
            return counts, spikes, entries, log, (outcome, b, n), t
        counts[b - first], entries[b - first] = progress.total - total, progress.logged - logged
        total, logged = progress.total, progress.logged
    history = Log(log.time[:logged], log.kind[:logged], log.ref[:logged], log.target[:logged])
    return counts, these(spikes, total), entries, history, (FINE, 0, 0), 0.0


@compiled(**EXACT_PIECE)
def these(spikes, total):
    """The spikes there are, without room for more."""
    time, neuron, speed, rise, over, released = spikes
    return Spikes(time[:total], neuron[:total], speed[:total], rise[:total], over[:total], released[:total])


@compiled(**EXACT_WITHIN)
def more_spikes(spikes, size):
    """The same in memory for at least `size`."""
    time, neuron, speed, rise, over, released = spikes
    return Spikes(
        grown(time, size), grown(neuron, size), grown(speed, size), grown(rise, size), grown(over, size), grown(released, size)
    )


@compiled(**EXACT_WITHIN)
def more_log(log, size):
    """Likewise."""
    return Log(grown(log.time, size), grown(log.kind, size), grown(log.ref, size), grown(log.target, size))


@compiled(**EXACT_BARE)
def _sample(layer, kinds, inputs, trial, cells, spikes, log, queue, progress, b, states):
    """Solve sample b, event by event, from where its progress is, as far as there is room for what happens.

    Returns:
        Progress; FINE at the end of the trial, FULL where memory must be longer before it can go on, RUNAWAY or ABOVE; a neuron
        that spikes more often than it may or is above its threshold, and when.
    """
    step, probe, coming, queued, pushed, first, total, logged = progress
    neurons, full = layer.neurons, (len(log.time) - len(trial.probes) - 2, len(queue.time) - 1)
    while True:
        coming, queued, pushed = come(layer.incoming, inputs, queue, coming, queued, pushed, inputs.first[b + 1], trial.t_end)
        if total == len(spikes.time) or logged >= full[0] or queued >= full[1]:
            return Progress(step, probe, coming, queued, pushed, first, total, logged), FULL, step, 0.0
        arriving = queue.time[0] if queued > 0 else inf
        ends = trial.edges[step] if step < len(trial.edges) else inf  # of the step of the drive
        n, own = cells.who[0], cells.key[0]
        t = min(own, arriving, ends)
        while probe < len(trial.probes) and trial.probes[probe] < t:
            _record(kinds, cells, trial.probes[probe], probe, b, states)
            logged = write(log, logged, trial.probes[probe], PROBE, probe, 0)
            probe += 1
        if t > trial.t_end:
            return Progress(step, probe, coming, queued, pushed, first, total, logged), FINE, step, t
        if own == t:
            if cells.waits[n] == SAFELY:
                if not _examine(kinds, cells, n, min(ends, trial.t_end)):
                    return progress, ABOVE, n, t
            elif cells.waits[n] == HELD:
                logged = write(log, logged, t, RELEASE, cells.spike_of[n] - first, n)
                _release(kinds, cells, spikes, n, t)
            else:
                logged = write(log, logged, t, SPIKE, total - first, n)
                _fire(neurons, kinds, cells, spikes, total, n, t)
                queued, pushed = send(layer.recurrent, queue, queued, pushed, total - first, n, -1, t, trial.t_end)
                total += 1
                if cells.fired[n] > trial.limit:
                    return Progress(step, probe, coming, queued, pushed, first, total, logged), RUNAWAY, n, t
        elif arriving == t:
            ref, q = queue.ref[0], queue.target[0]
            queued = pop(queue, queued)
            if ref < 0:
                source = inputs.neuron[~ref]
                logged = write(log, logged, t, ARRIVAL, ~ref, q)
                _arrive(layer.incoming, kinds, cells, q, t)
                queued, pushed = send(layer.incoming, queue, queued, pushed, ref, source, q + 1, inputs.time[~ref], trial.t_end)
            else:
                source = spikes.neuron[first + ref]
                logged = write(log, logged, t, RECURRENT, ref, q)
                _arrive(layer.recurrent, kinds, cells, q, t)
                fired = spikes.time[first + ref]
                queued, pushed = send(layer.recurrent, queue, queued, pushed, ref, source, q + 1, fired, trial.t_end)
        else:
            step += 1
            logged = write(log, logged, t, DRIVE, step, 0)
            set_bias(neurons.bias, kinds, cells, trial.drive, step, b, t)
            _line_up(kinds, cells)


@compiled(**EXACT_BARE_INLINE)
def send(wiring, queue, queued, pushed, ref, source, group, t, t_end):
    """Queue the arrival of a spike of a source through a group of synapses, -1 for its first, if it comes by the end.

    The next group follows when this one has arrived, and so only those under way wait in the queue.

    Args:
        ref: the spike, counted in the sample; of an input spike ~ its number in the batch.
    """
    if source + 1 >= len(wiring.first):
        return queued, pushed
    if group < 0:
        group = wiring.first[source]
    if group < wiring.first[source + 1] and t + wiring.delay[group] <= t_end:
        queue.time[queued], queue.order[queued] = t + wiring.delay[group], pushed
        queue.ref[queued], queue.target[queued] = ref, group
        return push(queue, queued), pushed + 1
    return queued, pushed


@compiled(**EXACT_BARE_INLINE)
def come(wiring, inputs, queue, coming, queued, pushed, stop, t_end):
    """Queue input spikes until none that is left can arrive before those in the queue."""
    while coming < stop and queued < len(queue.time) - 1 and (queued == 0 or inputs.time[coming] <= queue.time[0]):
        queued, pushed = send(wiring, queue, queued, pushed, ~coming, inputs.neuron[coming], -1, inputs.time[coming], t_end)
        coming += 1
    return coming, queued, pushed


@compiled(**EXACT_PIECE)
def memory_of(kinds):
    """Memory for the neurons of a layer."""
    n, terms = len(kinds.of), kinds.slot.shape[1]
    width = CURRENTS + terms - 1
    return Cells(
        np.empty((n, width)),
        np.empty(n, np.int8),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty(n),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty(SHARED + 3 * terms),
        np.empty(width),
        np.empty((terms + 1, 3, terms + 2)),
    )


@compiled(**EXACT_BARE)
def begin(neurons, kinds, cells, start, drive, b):
    """All neurons of sample b at time 0."""
    n_c, n_h = kinds.rate.shape[1], kinds.th_rate.shape[1]
    cells.shared[KIND], cells.shared[SPAN] = -1.0, -1.0
    for n in range(len(kinds.of)):
        x = cells.x[n]
        x[SINCE], x[V], x[V_TH] = 0.0, start.v[b, n], neurons.v_th[n]
        x[BIAS] = neurons.bias[n] + (drive[0, b, n] if len(drive) > 0 else 0.0)
        for p in range(n_c):
            x[CURRENTS + p] = start.c[b, p, n]
        for m in range(n_h):
            x[CURRENTS + n_c + m] = start.h[b, m, n]
        cells.waits[n], cells.fired[n] = SAFELY, 0


@compiled(**EXACT_BARE)
def _line_up(kinds, cells):
    """All neurons, in the heap again; those that are held keep their time."""
    for n in range(len(kinds.of)):
        x = cells.x[n]
        if cells.waits[n] != HELD:
            cells.waits[n] = SAFELY
            x[SAFE] = x[KEY] = x[SINCE] + _quiet(kinds, cells, n)
        _sink(cells, n, n, n + 1, x[KEY])


@compiled(**EXACT_BARE_INLINE)
def _wait(cells, n, t):
    """Neuron n waits under time t, and stands in the heap accordingly."""
    cells.x[n, KEY] = t
    _sink(cells, n, cells.place[n], len(cells.key), t)


@compiled(**EXACT_BARE_INLINE)
def _sink(cells, n, k, size, t):
    """Neuron n finds its place in the heap of the first `size` for time t, from place k on, which is free."""
    while k > 0 and _before(cells, n, t, (k - 1) // 2):
        _put(cells, cells.who[(k - 1) // 2], k, cells.key[(k - 1) // 2])
        k = (k - 1) // 2
    while 2 * k + 1 < size:
        child = 2 * k + 1
        if child + 1 < size and _before(cells, cells.who[child + 1], cells.key[child + 1], child):
            child += 1
        if _before(cells, n, t, child):
            break
        _put(cells, cells.who[child], k, cells.key[child])
        k = child
    _put(cells, n, k, t)


@compiled(**EXACT_BARE_INLINE)
def _before(cells, n, t, k):
    """Whether neuron n at time t comes before place k; at equal times spikes before releases, each in order of the neurons."""
    if t != cells.key[k]:
        return t < cells.key[k]
    m = cells.who[k]
    return (cells.waits[n] == HELD, n) < (cells.waits[m] == HELD, m)


@compiled(**EXACT_BARE_INLINE)
def _put(cells, n, k, t):
    cells.key[k], cells.who[k], cells.place[n] = t, n, k


@compiled(**EXACT_BARE_INLINE)
def advance(kinds, cells, n, t):
    """Carry neuron n to time t; one that is held keeps its voltage, and what follows it."""
    x = cells.x[n]
    span = t - x[SINCE]
    if span > 0.0:
        kind = kinds.of[n]
        share(kinds, cells.shared, kind, span)
        move(kinds, cells.shared, kind, x, x, cells.waits[n] == HELD)
        x[SINCE] = t


@compiled(**EXACT_BARE)
def _examine(kinds, cells, n, horizon):
    """The bound of neuron n has come to its end: for how much longer it is safe, or when it spikes by the horizon.

    Returns:
        whether it was below its threshold after its last event.
    """
    x, y, kind, t = cells.x[n], cells.ahead, kinds.of[n], cells.key[0]
    if x[SAFE] > t:  # an event since has brought another bound
        _wait(cells, n, x[SAFE])
        return True
    passed, guess = t - x[SINCE], 0.0
    if passed > 0.0:
        share(kinds, cells.shared, kind, passed)
        y[BIAS] = x[BIAS]
        move(kinds, cells.shared, kind, x, y, False)
        gap, slope, bend = bound(kinds, kind, y, x[V_TH])
        more = inf if never(kinds, kind, y, x[V_TH]) else wait_of(gap, slope, bend)
        if more > WORTH * passed and t + more > t:
            x[SAFE] = t + more
            _wait(cells, n, t + more)
            return True
        guess = passed + passage(kinds, kind, y, x[V_TH])
    gap, size = x[V] - x[V_TH], abs(x[V]) + abs(x[V_TH])
    for m in range(CURRENTS + kinds.rate.shape[1], len(x)):
        gap -= x[m]
        size += abs(x[m])
    if gap > AT_THRESHOLD * size:
        return False
    wait = first_crossing(kinds, kind, x, cells.work, horizon - x[SINCE], guess)
    x[SAFE] = max(min(x[SINCE] + wait, horizon), t) if wait < inf else inf
    if wait < inf:
        cells.waits[n] = FORESEEN
    _wait(cells, n, x[SAFE])
    return True


@compiled(**EXACT_BARE)
def _arrive(wiring, kinds, cells, group, t):
    """A spike arrives through a group of synapses. Most neurons stay safe for as long as they wait."""
    for e in range(wiring.edge[group], wiring.edge[group + 1]):
        n = wiring.post[e]
        advance(kinds, cells, n, t)
        x = cells.x[n]
        x[CURRENTS + wiring.receptor[e]] += wiring.weight[e]
        if cells.waits[n] != HELD:
            cells.waits[n] = SAFELY
            gap, slope, bend = bound(kinds, kinds.of[n], x, x[V_TH])
            x[SAFE] = x[KEY]
            span = x[KEY] - t
            if not gap > span * (slope + span * bend):
                x[SAFE] = t + wait_of(gap, slope, bend)
                _wait(cells, n, x[SAFE])


@compiled(**EXACT_BARE_INLINE)
def _quiet(kinds, cells, n):
    """How long neuron n is sure not to spike."""
    gap, slope, bend = bound(kinds, kinds.of[n], cells.x[n], cells.x[n, V_TH])
    return wait_of(gap, slope, bend)


@compiled(**EXACT_PIECE)
def _fire(neurons, kinds, cells, spikes, total, n, t):
    """Neuron n spikes, jumps, and is held from now on."""
    advance(kinds, cells, n, t)
    x, n_c = cells.x[n], kinds.rate.shape[1]
    rise, speed, over = _rise(kinds, x, kinds.of[n]), 0.0, x[V] - x[V_TH]
    for m in range(kinds.th_rate.shape[1] - kinds.follow.shape[1]):
        speed += kinds.th_rate[kinds.of[n], m] * x[CURRENTS + n_c + m]
    if kinds.follow.shape[1] > 0:
        speed -= slope_of(kinds, kinds.of[n], x[V], x[-1])
    spikes.time[total], spikes.neuron[total], spikes.released[total] = t, n, np.nan
    spikes.speed[total], spikes.rise[total], spikes.over[total] = rise + speed, rise, over
    leap(neurons, x, n, n_c)
    cells.waits[n], cells.spike_of[n] = HELD, total
    cells.fired[n] += 1
    x[SAFE] = t + neurons.refractory[n]
    _wait(cells, n, x[SAFE])


@compiled(**EXACT_BARE_INLINE)
def leap(neurons, x, n, n_c):
    """What neuron n's own spike does to its state (6.2)."""
    n_j = len(neurons.jump)
    x[V] = neurons.reset_factor[n] * (x[V] - neurons.v_th[n]) + neurons.v_reset[n]
    for j in range(n_j):
        at = CURRENTS + n_c - n_j + j
        x[at] = neurons.scale[j, n] * x[at] + neurons.jump[j, n]
    for m in range(len(neurons.th_jump)):
        at = CURRENTS + n_c + m
        x[at] = neurons.th_scale[m, n] * x[at] + neurons.th_jump[m, n]


@compiled(**EXACT_BARE_INLINE)
def _rise(kinds, x, kind):
    """v̇ of a neuron that is not held."""
    current = x[BIAS]
    for p in range(kinds.rate.shape[1]):
        current += x[CURRENTS + p]
    return kinds.gain[kind] * current - kinds.leak_rate[kind] * x[V]


@compiled(**EXACT_PIECE)
def _release(kinds, cells, spikes, n, t):
    """Neuron n moves again, from its reset."""
    advance(kinds, cells, n, t)
    x = cells.x[n]
    spikes.released[cells.spike_of[n]] = _rise(kinds, x, kinds.of[n])
    cells.waits[n] = SAFELY
    x[SAFE] = t + _quiet(kinds, cells, n)
    _wait(cells, n, x[SAFE])


@compiled(**EXACT_BARE)
def set_bias(bias, kinds, cells, drive, step, b, t):
    """All neurons at time t, where a step of the drive begins (2.16)."""
    for n in range(len(bias)):
        advance(kinds, cells, n, t)
        cells.x[n, BIAS] = bias[n] + drive[step, b, n]


@compiled(**EXACT_BARE)
def _record(kinds, cells, t, probe, b, states):
    """The states of all neurons at a probe."""
    n_c = kinds.rate.shape[1]
    for n in range(len(kinds.of)):
        advance(kinds, cells, n, t)
        x = cells.x[n]
        states.v[probe, b, n] = x[V]
        for p in range(n_c):
            states.c[probe, b, p, n] = x[CURRENTS + p]
        for m in range(kinds.th_rate.shape[1]):
            states.h[probe, b, m, n] = x[CURRENTS + n_c + m]


@compiled(**EXACT_BARE_INLINE)
def write(log, logged, t, kind, ref, target):
    """Enter in the log what happens; returns its new length."""
    log.time[logged], log.kind[logged], log.ref[logged], log.target[logged] = t, kind, ref, target
    return logged + 1
