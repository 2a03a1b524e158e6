"""A recurrent LIF layer on a GPU: a block of threads for each sample, its neurons on the threads, from event to event.

Every spike arrives at all neurons at one time, so all threads stop there together; what comes next is the least of a key over
all neurons, found in shared memory. Spikes of one neuron arrive in their order, so they are a list, and no queue is needed.
"""

from math import exp, inf
from typing import Any, NamedTuple

import numpy as np

from adjsnn.lif.cpu.flow import decay, first_crossing, may_cross, moved
from adjsnn.lif.cuda.stops import bias_at
from adjsnn.lif.layer import ALL
from adjsnn.numerics.device import cuda

# Kinds of events in the order in which they come at one instant; a STRAY is a spike that a neuron has no right to.
STRAY, SPIKE, RELEASE, ARRIVAL, RECURRENT, DRIVE, PROBE, END = range(8)
WIDTH = 256  # most threads of a block; some have several neurons where there are more
NOBODY = -1


class Echo(NamedTuple):
    """How a layer hears itself.

    Attributes:
        w: (N, N), a row per source.
        delays: (N,), of each source, ms.
    """

    w: Any
    delays: Any


class Cells(NamedTuple):
    """Neurons on their way, (B, N).

    Attributes:
        v: membrane voltage.
        i: synaptic current.
        at: the time of both, ms.
        own: its next release where it is held, else its next spike, as far as foreseen, ms.
        arrives: when the first of its spikes that are on their way arrives, ms.
        held: 1 where it is held at the reset, else 0.
        fired: spikes so far.
        latest: the last of them, counted in the sample.
        waiting: the first of them that is on its way, or NOBODY.
    """

    v: Any
    i: Any
    at: Any
    own: Any
    arrives: Any
    held: Any
    fired: Any
    latest: Any
    waiting: Any


class Spikes(NamedTuple):
    """Spikes of each sample in order, (B, R), with room for R.

    Attributes:
        time: ms.
        current: i and the drive just before.
        released: the same at the release; NaN where the trial ends before it.
        neuron: of the layer.
        following: the next spike of that neuron, or NOBODY.
    """

    time: Any
    current: Any
    released: Any
    neuron: Any
    following: Any


class Log(NamedTuple):
    """What happened, in order: (B, L) with room for L entries, or of all samples one after the other, (L,).

    Attributes:
        time: ms.
        kind: SPIKE … PROBE.
        ref: the input spike, counted in the batch; the sample's spike that arrives, is fired or released; the step; the probe.
        target: the neuron it happens to, or ALL.
    """

    time: Any
    kind: Any
    ref: Any
    target: Any


class Done(NamedTuple):
    """What became of each sample, (B,).

    Attributes:
        spikes: their number, or NOBODY where there was no room for them.
        entries: their number in the log.
        stray: 1 + a neuron that spikes more often than it may, or 0.
        time: when it does, ms.
    """

    spikes: Any
    entries: Any
    stray: Any
    time: Any


@cuda.jit
def forward(neurons, echo, stops, start, limit, cells, spikes, log, states, done):
    """Block b solves sample b.

    Args:
        neurons: Neurons.
        echo: Echo.
        stops: Stops, its arrivals in one row.
        start: State (B, N) at time 0.
        limit: the most spikes that a neuron may have.
        cells: Cells, written.
        spikes: Spikes, written.
        log: Log, written.
        states: State (P, B, N), written at the probes.
        done: Done, written.
    """
    times = cuda.shared.array(WIDTH, np.float64)
    kinds = cuda.shared.array(WIDTH, np.int64)
    places = cuda.shared.array(WIDTH, np.int64)
    b, thread, width = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    place, last, mark, step, count, entry = stops.first[b], stops.first[b + 1], 0, 0, 0, 0
    edge = _next_edge(stops, 0)
    for n in range(thread, len(neurons.bias), width):
        _begin(neurons, stops, start, cells, b, n, _horizon(stops, place, last, edge))
    while True:
        times[thread], kinds[thread], places[thread] = _own(cells, limit, b, thread, width)
        t, kind, which = _least(times, kinds, places)
        t, kind, which = _outside(stops, place, last, mark, t, kind, which)
        if kind in (END, STRAY) or (kind == SPIKE and count == spikes.time.shape[1]):
            break
        if thread == 0:
            _note(cells, log, b, entry, count, t, kind, which)
        entry += 1
        if kind == ARRIVAL:
            place += 1
        elif kind == DRIVE:
            step, edge = which, _next_edge(stops, mark + 1)
        if kind in (DRIVE, PROBE):
            mark += 1
        horizon = _horizon(stops, place, last, edge)
        if kind in (SPIKE, RELEASE):
            if which % width == thread and kind == SPIKE:
                _fire(neurons, echo, stops, cells, spikes, b, which, step, t, count)
            elif which % width == thread:
                _release(neurons, stops, cells, spikes, b, which, step, t, horizon)
            count += kind == SPIKE
        else:
            source = _source(stops, spikes, b, kind, which)
            for n in range(thread, len(neurons.bias), width):
                _reach(neurons, echo, stops, cells, states, b, n, (t, kind, which, source, step, horizon))
            if kind == RECURRENT and source % width == thread:
                _delivered(echo, cells, spikes, b, source, which)
    if thread == 0:
        done.spikes[b], done.entries[b] = (NOBODY if kind == SPIKE else count), entry
        done.stray[b], done.time[b] = (which + 1 if kind == STRAY else 0), t


@cuda.jit(device=True)
def _begin(neurons, stops, start, cells, b, n, horizon):
    cells.v[b, n], cells.i[b, n], cells.at[b, n] = start.v[b, n], start.i[b, n], 0.0
    cells.held[b, n], cells.fired[b, n], cells.waiting[b, n], cells.arrives[b, n] = 0, 0, NOBODY, inf
    cells.own[b, n] = _foreseen(neurons, stops, cells, b, n, 0, horizon)


@cuda.jit(device=True)
def _own(cells, limit, b, thread, width):
    """The first event that neurons of this thread bring: its time, kind, and the neuron, or the spike that arrives."""
    t, kind, which = inf, END, 0
    for n in range(thread, cells.v.shape[1], width):
        own = RELEASE if cells.held[b, n] else (SPIKE if cells.fired[b, n] < limit else STRAY)
        if cells.own[b, n] < t or (cells.own[b, n] == t and own < kind):
            t, kind, which = cells.own[b, n], own, n
        arrives, spike = cells.arrives[b, n], cells.waiting[b, n]
        if arrives < t or (arrives == t and (kind > RECURRENT or (kind == RECURRENT and spike < which))):
            t, kind, which = arrives, RECURRENT, spike
    return t, kind, which


@cuda.jit(device=True)
def _least(times, kinds, places):
    """The least entry of all threads, by time, then kind, then place."""
    thread, half = cuda.threadIdx.x, cuda.blockDim.x // 2
    cuda.syncthreads()
    while half > 0:
        if thread < half:
            t, kind, which = times[thread + half], kinds[thread + half], places[thread + half]
            equal = t == times[thread]
            if (
                t < times[thread]
                or (equal and kind < kinds[thread])
                or (equal and kind == kinds[thread] and which < places[thread])
            ):
                times[thread], kinds[thread], places[thread] = t, kind, which
        cuda.syncthreads()
        half //= 2
    t, kind, which = times[0], kinds[0], places[0]
    cuda.syncthreads()
    return t, kind, which


@cuda.jit(device=True)
def _outside(stops, place, last, mark, t, kind, which):
    """The same, or the input spike, the step, the probe or the end of the trial if that comes first."""
    if place < last and (stops.time[0, place] < t or (stops.time[0, place] == t and kind > ARRIVAL)):
        t, kind, which = stops.time[0, place], ARRIVAL, stops.ref[0, place]
    if mark < len(stops.mark):
        what = stops.what[mark]
        other = DRIVE if what < 0 else PROBE
        if stops.mark[mark] < t or (stops.mark[mark] == t and kind > other):
            t, kind, which = stops.mark[mark], other, abs(what)
    return (stops.t_end, END, which) if t > stops.t_end else (t, kind, which)


@cuda.jit(device=True)
def _next_edge(stops, mark):
    """When the next step of the drive begins, or the trial ends."""
    while mark < len(stops.mark) and stops.what[mark] >= 0:
        mark += 1
    return stops.mark[mark] if mark < len(stops.mark) else stops.t_end


@cuda.jit(device=True)
def _horizon(stops, place, last, edge):
    """Up to when spikes are foreseen: there all neurons are looked at again."""
    return min(edge, stops.time[0, place]) if place < last else edge


@cuda.jit(device=True)
def _foreseen(neurons, stops, cells, b, n, step, horizon):
    """When neuron n spikes if nothing reaches it before the horizon, or inf."""
    v, i, t, tm, ts, v_th = (
        cells.v[b, n],
        cells.i[b, n],
        cells.at[b, n],
        neurons.tau_mem[n],
        neurons.tau_syn[n],
        neurons.v_th[n],
    )
    c, _ = bias_at(neurons, stops, step, b, n)
    e_mem, e_syn, conv = decay(horizon - t, tm, ts)
    v_after, i_after = moved(v, i, c, tm, e_mem, e_syn, conv)
    wait = inf
    if may_cross(v, i, v_after, i_after, c, tm, ts, v_th, horizon - t):
        wait = first_crossing(v, i, c, tm, ts, v_th, horizon - t, v_after)
    return min(t + wait, horizon) if wait < inf else inf


@cuda.jit(device=True)
def _advance(neurons, stops, cells, b, n, step, t):
    """Carry neuron n to time t; one that is held keeps its voltage."""
    span, tm, ts = t - cells.at[b, n], neurons.tau_mem[n], neurons.tau_syn[n]
    if cells.held[b, n]:
        cells.i[b, n] *= exp(-span / ts)
    else:
        c, _ = bias_at(neurons, stops, step, b, n)
        e_mem, e_syn, conv = decay(span, tm, ts)
        cells.v[b, n], cells.i[b, n] = moved(cells.v[b, n], cells.i[b, n], c, tm, e_mem, e_syn, conv)
    cells.at[b, n] = t


@cuda.jit(device=True)
def _fire(neurons, echo, stops, cells, spikes, b, n, step, t, spike):
    """Neuron n spikes, is held, and its spike on its way."""
    _advance(neurons, stops, cells, b, n, step, t)
    _, extra = bias_at(neurons, stops, step, b, n)
    spikes.time[b, spike], spikes.current[b, spike], spikes.neuron[b, spike] = t, cells.i[b, n] + extra, n
    if cells.waiting[b, n] == NOBODY:
        cells.waiting[b, n], cells.arrives[b, n] = spike, t + echo.delays[n]
    if cells.fired[b, n] > 0:
        spikes.following[b, cells.latest[b, n]] = spike
    cells.v[b, n], cells.held[b, n], cells.own[b, n] = neurons.v_reset[n], 1, t + neurons.refractory[n]
    cells.latest[b, n] = spike
    cells.fired[b, n] += 1


@cuda.jit(device=True)
def _release(neurons, stops, cells, spikes, b, n, step, t, horizon):
    _advance(neurons, stops, cells, b, n, step, t)
    _, extra = bias_at(neurons, stops, step, b, n)
    spikes.released[b, cells.latest[b, n]] = cells.i[b, n] + extra
    cells.held[b, n] = 0
    cells.own[b, n] = _foreseen(neurons, stops, cells, b, n, step, horizon)


@cuda.jit(device=True)
def _source(stops, spikes, b, kind, which):
    """The neuron whose spike arrives, of the inputs or the layer."""
    if kind == ARRIVAL:
        return stops.source[which]
    return spikes.neuron[b, which] if kind == RECURRENT else np.int64(0)


@cuda.jit(device=True)
def _reach(neurons, echo, stops, cells, states, b, n, event):
    """What happens to every neuron happens to neuron n.

    Args:
        event: its time, kind, and which; the source of a spike that arrives; the step of the drive after it; the horizon.
    """
    t, kind, which, source, step, horizon = event
    _advance(neurons, stops, cells, b, n, (step - 1 if kind == DRIVE else step), t)
    if kind == ARRIVAL:
        cells.i[b, n] += neurons.w[source, n]
    elif kind == RECURRENT:
        cells.i[b, n] += echo.w[source, n]
    elif kind == PROBE:
        states.v[which, b, n], states.i[which, b, n] = cells.v[b, n], cells.i[b, n]
    if kind != PROBE and not cells.held[b, n]:
        cells.own[b, n] = _foreseen(neurons, stops, cells, b, n, step, horizon)


@cuda.jit(device=True)
def _delivered(echo, cells, spikes, b, n, spike):
    """A spike of neuron n has arrived: the next one is its first on the way."""
    after = spikes.following[b, spike]
    cells.waiting[b, n] = after
    cells.arrives[b, n] = spikes.time[b, after] + echo.delays[n] if after != NOBODY else inf


@cuda.jit(device=True)
def _note(cells, log, b, entry, count, t, kind, which):
    """An entry of the log, after `count` spikes."""
    target, ref = ALL, which
    if kind in (SPIKE, RELEASE):
        target, ref = which, (count if kind == SPIKE else cells.latest[b, which])
    log.time[b, entry], log.kind[b, entry], log.ref[b, entry], log.target[b, entry] = t, kind, ref, target
