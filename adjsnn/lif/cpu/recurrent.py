"""A recurrent LIF layer in one fused loop: each sample event by event, with a queue of the arrivals to come.

The order of events is that of `lif/plain.py`: at equal times spikes, releases, arrivals, changes of the drive, then
probes. Of every neuron the time of its next spike is known as far as it is foreseen. Where every arrival reaches all neurons,
that is up to the next arrival, or the next spike where it arrives at once, for then all are looked at again; where delays
differ from synapse to synapse it is up to the end. Nowhere is it beyond the present step of the drive.
"""

from math import inf
from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.cells import (
    advance,
    advance_all,
    begin,
    earliest,
    foresee,
    kind_of,
    memory_of,
    predict,
    schedule,
    set_bias,
)
from adjsnn.lif.cpu.flow import grown
from adjsnn.lif.cpu.queue import inputs_of, pop, push, queue_of, roomier
from adjsnn.lif.layer import ALL, ARRIVAL, DRIVE, FINE, PROBE, RECURRENT, RELEASE, RUNAWAY, SPIKE
from adjsnn.numerics.compiled import EXACT, EXACT_BARE, EXACT_PIECE, compiled


class Spikes(NamedTuple):
    """Spikes in order of time.

    Attributes:
        time: (S,), ms.
        neuron: (S,).
        current: (S,), i and the drive just before the spike.
        released: (S,), the same at the release, or NaN where the trial ends before it.
    """

    time: np.ndarray
    neuron: np.ndarray
    current: np.ndarray
    released: np.ndarray


class Log(NamedTuple):
    """What happened, in order.

    Attributes:
        time: (E,), ms.
        kind: (E,), one of ARRIVAL, RECURRENT, SPIKE, RELEASE, PROBE, DRIVE.
        ref: (E,), which spike, counted in the sample, input spike, counted in the batch, probe or step of the drive.
        target: (E,), which neuron, or ALL.
    """

    time: np.ndarray
    kind: np.ndarray
    ref: np.ndarray
    target: np.ndarray


class Progress(NamedTuple):
    """How far the solve of a sample has come, all integers.

    Attributes:
        step: the present step of the drive.
        probe: the next probe.
        coming: the next arrival from outside.
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


FULL = -1  # an outcome of `_sample`


@compiled(**EXACT)
def forward(layer, inputs, start, trial, first, last, states):
    """Solve samples first … last-1; arguments as in `feedforward.forward`.

    Returns:
        the number of spikes of each sample, (last - first,); Spikes; the number of log entries of each sample; Log; the
        outcome: what went wrong, in which sample and neuron; and when.
    """
    kind, cells = kind_of(layer), memory_of(len(layer.bias))
    size = max(64, 2 * len(layer.bias) * (last - first))
    spikes = Spikes(np.empty(size), np.empty(size, np.int64), np.empty(size), np.empty(size))
    log = Log(np.empty(size), np.empty(size, np.int8), np.empty(size, np.int32), np.empty(size, np.int32))
    counts, entries = np.zeros(last - first, np.int64), np.zeros(last - first, np.int64)
    queue, total, logged = queue_of(64), np.int64(0), np.int64(0)  # a bare 0 is a type of its own to numba
    for b in range(first, last):
        external = inputs_of(layer.delays, inputs, b, trial.t_end)
        begin(cells, start.v[b], start.i[b])
        set_bias(layer.bias, trial.drive, np.int64(0), b, cells.bias)
        none = np.int64(0)
        progress, outcome, n, t = Progress(none, none, none, none, none, total, total, logged), FULL, none, 0.0
        while outcome == FULL:
            progress, outcome, n, t = _sample(
                layer, kind, inputs, trial, cells, external, spikes, log, queue, progress, b, states
            )
            if outcome == FULL:
                spikes = _more_spikes(spikes, progress.total + 1)
                log = _more_log(log, progress.logged + len(trial.probes) + 3)
                queue = roomier(queue, progress.queued + len(layer.rec_delays))
        if outcome == RUNAWAY:
            return counts, spikes, entries, log, (RUNAWAY, b, n), t
        counts[b - first], entries[b - first] = progress.total - total, progress.logged - logged
        total, logged = progress.total, progress.logged
    found = Spikes(spikes.time[:total], spikes.neuron[:total], spikes.current[:total], spikes.released[:total])
    history = Log(log.time[:logged], log.kind[:logged], log.ref[:logged], log.target[:logged])
    return counts, found, entries, history, (FINE, 0, 0), 0.0


@compiled(**EXACT_BARE)
def _sample(layer, kind, inputs, trial, cells, external, spikes, log, queue, progress, b, states):
    """Solve sample b, event by event, from where its progress is, as far as there is room for what happens.

    Returns:
        Progress; FINE at the end of the trial, FULL where memory must be longer before it can go on, or RUNAWAY; a neuron that
        spikes more often than it may, and when.
    """
    step, probe, coming, queued, pushed, first, total, logged = progress
    most = len(log.time) - len(trial.probes) - 2, len(queue.time) - len(layer.rec_delays)
    fresh, weights = (step == 0) & (probe == 0) & (coming == 0) & (pushed == 0) & (total == first), kind.nothing
    while True:  # whatever carries or looks at all neurons stands here once, since it takes seconds to compile
        ends = trial.edges[step] if step < len(trial.edges) else inf  # of the step of the drive
        if fresh:
            foresee(layer, kind, cells, _horizon(kind, external, coming, queue, queued, min(ends, trial.t_end)), weights)
            fresh, weights = False, kind.nothing
        if total == len(spikes.time) or logged >= most[0] or queued > most[1]:
            return Progress(step, probe, coming, queued, pushed, first, total, logged), FULL, step, 0.0
        n, soonest = earliest(cells)
        arriving = _next_arrival(external, coming, queue, queued)
        t, due = min(soonest, arriving, ends), trial.probes[probe] if probe < len(trial.probes) else inf
        if due < t:
            t, what, ref, target = due, PROBE, probe, ALL
        elif t > trial.t_end:
            return Progress(step, probe, coming, queued, pushed, first, total, logged), FINE, step, t
        elif soonest == t and cells.held[n]:
            what, ref, target = RELEASE, cells.spike_of[n] - first, n
        elif soonest == t:
            if cells.fired[n] == trial.limit:
                return Progress(step, probe, coming, queued, pushed, first, total, logged), RUNAWAY, n, t
            what, ref, target = SPIKE, total - first, n
        elif arriving > t:
            step += 1
            what, ref, target = DRIVE, step, ALL
        else:
            what, ref, target, coming, queued = _take(external, coming, queue, queued, t)
        logged = _write(log, logged, t, what, ref, target)
        if target == ALL or (what == SPIKE and kind.instant):  # as the arrival at once will ask
            advance_all(layer, kind, cells, t)
        else:
            advance(layer, kind, cells, target, t)
        if what == SPIKE:
            _spike(layer, cells, spikes, total, n, t)
            queued, pushed = _send(layer, queue, queued, pushed, ref, n, t, trial.t_end)
            total += 1
        elif what == PROBE:
            _record(cells, probe, b, states)
            probe += 1
        elif what == DRIVE:
            set_bias(layer.bias, trial.drive, step, b, cells.bias)
            fresh, weights = True, kind.nothing
        else:
            if what == RELEASE:
                _release(layer, cells, spikes, n)
            else:
                weights = kind.w_in_t[inputs.neuron[ref]] if what == ARRIVAL else kind.w_rec_t[spikes.neuron[first + ref]]
            fresh = target == ALL
            if not fresh:
                horizon = _horizon(kind, external, coming, queue, queued, min(ends, trial.t_end))
                _alone(layer, kind, cells, what, weights, target, t, horizon)


@compiled(**EXACT_PIECE)
def _horizon(kind, external, coming, queue, queued, ends):
    """Up to when spikes are foreseen."""
    return min(_next_arrival(external, coming, queue, queued), ends) if kind.broadcast else ends


@compiled(**EXACT_PIECE)
def _write(log, logged, time, kind, ref, target):
    """Write entry `logged`; returns the number of entries."""
    log.time[logged], log.kind[logged], log.ref[logged], log.target[logged] = time, kind, ref, target
    return logged + 1


@compiled(**EXACT_PIECE)
def _more_log(log, size):
    """The same entries in memory for at least `size`."""
    return Log(grown(log.time, size), grown(log.kind, size), grown(log.ref, size), grown(log.target, size))


@compiled(**EXACT_PIECE)
def _more_spikes(spikes, size):
    """The same spikes in memory for at least `size`."""
    return Spikes(
        grown(spikes.time, size), grown(spikes.neuron, size), grown(spikes.current, size), grown(spikes.released, size)
    )


@compiled(**EXACT_PIECE)
def _next_arrival(external, coming, queue, queued):
    """When the next spike arrives, from outside or from the layer itself; inf if none does."""
    from_outside = external.time[coming] if coming < len(external.time) else inf
    return min(from_outside, queue.time[0] if queued > 0 else inf)


@compiled(**EXACT_PIECE)
def _take(external, coming, queue, queued, t):
    """The arrival at time t: its kind, spike and target; and how many came from outside, and how many wait in the queue.

    Of arrivals at one time those from outside come first.
    """
    if coming < len(external.time) and external.time[coming] == t:
        return ARRIVAL, external.ref[coming], external.target[coming], coming + 1, queued
    queued = pop(queue, queued)
    return RECURRENT, queue.ref[queued], queue.target[queued], coming, queued


@compiled(**EXACT_PIECE)
def _record(cells, probe, b, states):
    """v and i of sample b at a probe."""
    for n in range(len(cells.v)):
        states.v[probe, b, n], states.i[probe, b, n] = cells.v[n], cells.i[n]


@compiled(**EXACT_PIECE)
def _spike(layer, cells, spikes, total, n, t):
    """Neuron n spikes: it is held at its reset from now on."""
    spikes.time[total], spikes.neuron[total] = t, n
    spikes.current[total], spikes.released[total] = cells.i[n] + (cells.bias[n] - layer.bias[n]), np.nan
    cells.v[n], cells.held[n], cells.own[n] = layer.v_reset[n], 1, t + layer.refractory[n]
    cells.spike_of[n] = total
    cells.fired[n] += 1


@compiled(**EXACT_PIECE)
def _send(layer, queue, queued, pushed, spike, n, t, t_end):
    """Queue the arrivals of a spike of neuron n that come by the end; returns how many wait, and how many ever did.

    The latter is their order at equal times: first come, first served.
    """
    rows = len(layer.rec_delays)
    for m in range(rows):
        if t + layer.rec_delays[m, n] <= t_end:
            queue.time[queued], queue.order[queued] = t + layer.rec_delays[m, n], pushed
            queue.ref[queued], queue.target[queued] = spike, m if rows > 1 else ALL
            pushed += 1
            queued = push(queue, queued)
    return queued, pushed


@compiled(**EXACT_PIECE)
def _release(layer, cells, spikes, n):
    """Neuron n moves again, from its reset."""
    spikes.released[cells.spike_of[n]], cells.held[n] = cells.i[n] + (cells.bias[n] - layer.bias[n]), 0


@compiled(**EXACT_PIECE)
def _alone(layer, kind, cells, what, weights, n, t, horizon):
    """What comes of a release or arrival of neuron n alone; its next spike is foreseen again, up to the horizon."""
    if what != RELEASE:
        cells.i[n] += weights[n]
    ahead = horizon > t or (what != RELEASE and horizon == t)
    if what == RELEASE or (ahead and not cells.held[n]):
        schedule(cells, n, predict(layer, kind, cells, n, t, horizon) if ahead else inf)
