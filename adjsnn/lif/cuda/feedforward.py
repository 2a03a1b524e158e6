"""A feed-forward LIF layer on a GPU: one thread walks one neuron through one sample, from stop to stop.

The neuron's mathematics are the scalar pieces of `lif/cpu/flow.py`, compiled here for another machine.
"""

from math import exp, inf
from typing import Any, NamedTuple

from adjsnn.lif.cpu.flow import decay, first_crossing, may_cross, moved
from adjsnn.lif.cuda.stops import ARRIVAL, END, bias_at, upcoming
from adjsnn.numerics.device import cuda


class Spikes(NamedTuple):
    """Spikes of all neurons, each in its own room.

    Attributes:
        time: (S,), ms.
        current: (S,), i and the drive just before the spike.
        released: (S,), the same at the release; NaN where the trial ends before it.
        at: (S,), the stop before which the neuron spikes.
        free: (S,), the stop before which it is released, or -1.
    """

    time: Any
    current: Any
    released: Any
    at: Any
    free: Any


@cuda.jit
def forward(neurons, stops, start, limit, room, spikes, states, counts, ran_away):
    """Thread b N + n walks neuron n through sample b.

    Args:
        neurons: Neurons.
        stops: Stops.
        start: State (B, N) at time 0.
        limit: the most spikes that a neuron may have.
        room: (B N + 1,), where in `spikes` each neuron may write. What it has no room for it counts alone.
        spikes: Spikes, written.
        states: State (P, B, N), written at the probes.
        counts: (B N,), written: the number of its spikes.
        ran_away: (B N,), written: when it spikes more often than it may, or inf.
    """
    j = cuda.grid(1)
    if j < len(counts):
        counts[j], ran_away[j] = _walk(neurons, stops, start, limit, room[j], room[j + 1], spikes, states, j)


@cuda.jit(device=True)
def _walk(neurons, stops, start, limit, begin, end, spikes, states, j):
    """To every stop, through the spikes and releases before it; returns as `forward` writes."""
    b, n = j // len(neurons.bias), j % len(neurons.bias)
    tm, ts, threshold = neurons.tau_mem[n], neurons.tau_syn[n], neurons.v_th[n]
    v, i, t, release, count, k = start.v[b, n], start.i[b, n], 0.0, inf, 0, 0
    c, extra = bias_at(neurons, stops, 0, b, n)
    row, place, last, mark = (n if len(stops.time) > 1 else 0), stops.first[b], stops.first[b + 1], 0
    while True:
        to, kind = upcoming(stops, row, place, last, mark)
        while True:
            if release < inf:  # held at the reset: the current alone moves
                if release > to:
                    i *= exp(-(to - t) / ts)
                    break
                i *= exp(-(release - t) / ts)
                t, release = release, inf
                if begin + count <= end:
                    spikes.released[begin + count - 1], spikes.free[begin + count - 1] = i + extra, k
            e_mem, e_syn, conv = decay(to - t, tm, ts)
            v_after, i_after = moved(v, i, c, tm, e_mem, e_syn, conv)
            wait = inf
            if may_cross(v, i, v_after, i_after, c, tm, ts, threshold, to - t):
                wait = first_crossing(v, i, c, tm, ts, threshold, to - t, v_after)
            if wait == inf:
                v, i = v_after, i_after
                break
            if count == limit:
                return count, t + wait
            # A wait that rounds past the stop ends there: what arrives at the instant of a spike does not take part in it.
            t, i, v = min(t + wait, to), i * exp(-wait / ts), neurons.v_reset[n]
            release = t + neurons.refractory[n]
            if begin + count < end:
                spikes.time[begin + count], spikes.current[begin + count], spikes.at[begin + count] = t, i + extra, k
            count += 1
        t = to
        if kind == END:
            return count, inf
        if kind == ARRIVAL:
            i += neurons.w[stops.source[stops.ref[row, place]], n]
            place += 1
        else:
            what = stops.what[mark]
            mark += 1
            if what < 0:
                c, extra = bias_at(neurons, stops, -what, b, n)
            else:
                states.v[what, b, n], states.i[what, b, n] = v, i
        k += 1
