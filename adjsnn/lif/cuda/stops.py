"""Where the neurons of a feed-forward layer stop on their way through a sample, and what a stop is, for threads of a GPU.

A thread meets two sorted columns: arrivals of its sample, which lie sorted in memory for all samples, and marks, which are
those of every sample. It merges them on its way, arrivals before marks at equal times, and so needs no memory of its own.
"""

from math import inf
from typing import Any, NamedTuple

from adjsnn.numerics.device import cuda

ARRIVAL, MARK, END = range(3)  # kinds of stops; END is that of the trial, or on the way back its beginning


class Neurons(NamedTuple):
    """Parameters of a layer, (N,) unless said otherwise.

    Attributes:
        w: (M, N), a row per source, so that threads side by side read numbers side by side.
        bias: b.
        tau_mem: ms.
        tau_syn: ms.
        v_th: threshold.
        v_reset: reset.
        refractory: ms.
    """

    w: Any
    bias: Any
    tau_mem: Any
    tau_syn: Any
    v_th: Any
    v_reset: Any
    refractory: Any


class Stops(NamedTuple):
    """Where neurons stop.

    Attributes:
        first: (B+1,), where the input spikes of each sample begin.
        time: (R, S), of arrivals, sorted in each sample, ms; one row for all neurons, or one for each.
        ref: (R, S), the input spike that arrives.
        source: (S,), the input neuron of each input spike.
        mark: (K,), sorted times of probes and of beginnings of steps of the drive, ms; K ≥ 1.
        what: (K,), the probe p ≥ 0, or -k for the beginning of step k of the drive.
        drive: (T, B, N), of any size where there is none.
        steps: T, 0 where there is no drive.
        t_end: end of the trial, ms.
    """

    first: Any
    time: Any
    ref: Any
    source: Any
    mark: Any
    what: Any
    drive: Any
    steps: int
    t_end: float


@cuda.jit(device=True)
def upcoming(stops, row, place, last, mark):
    """The next stop after arrivals up to `place` and marks up to `mark`: its time and kind.

    Args:
        stops: Stops.
        row: of its arrivals.
        place: the next arrival, which there is if it is below `last`.
        last: one past those of the sample.
        mark: the next mark.
    """
    arrival = stops.time[row, place] if place < last else inf
    if mark < len(stops.mark):
        return (arrival, ARRIVAL) if arrival <= stops.mark[mark] else (stops.mark[mark], MARK)
    return (arrival, ARRIVAL) if arrival <= stops.t_end else (stops.t_end, END)


@cuda.jit(device=True)
def previous(stops, row, first, place, mark):
    """The stop before, on the way back: that of arrival place-1 or mark-1, or the beginning of the trial."""
    if mark > 0 and (place == first or stops.mark[mark - 1] >= stops.time[row, place - 1]):
        return stops.mark[mark - 1], MARK
    return (stops.time[row, place - 1], ARRIVAL) if place > first else (0.0, END)


@cuda.jit(device=True)
def bias_at(neurons, stops, step, b, n):
    """b and the drive of a step together (2.16), and the drive alone."""
    extra = stops.drive[step, b, n] if stops.steps > 0 else 0.0
    return neurons.bias[n] + extra, extra
