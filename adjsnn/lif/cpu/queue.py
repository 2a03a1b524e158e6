"""Arrivals to come, for the loop of a recurrent layer: those of input spikes, sorted, and a queue of the layer's own."""

from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.feedforward import merge_sort, permute
from adjsnn.lif.cpu.flow import grown
from adjsnn.lif.layer import ALL
from adjsnn.numerics.compiled import EXACT_BARE, EXACT_PIECE, EXACT_WITHIN, compiled


class Arrivals(NamedTuple):
    """Arrivals of a sample's input spikes in order of time.

    Attributes:
        time: (A,), ms.
        ref: (A,), the input spike, counted in the batch.
        target: (A,), the neuron, or ALL.
    """

    time: np.ndarray
    ref: np.ndarray
    target: np.ndarray


class Queue(NamedTuple):
    """A binary heap of arrivals, the next one first, in memory that may be longer than it.

    Attributes:
        time: of arrival, ms.
        order: which of them comes first at equal times.
        ref: the spike, counted in the sample.
        target: the neuron, or ALL.
    """

    time: np.ndarray
    order: np.ndarray
    ref: np.ndarray
    target: np.ndarray


@compiled(**EXACT_PIECE)
def inputs_of(delays, inputs, b, t_end):
    """Arrivals of sample b by t_end."""
    rows, start, stop = len(delays), inputs.first[b], inputs.first[b + 1]
    size = (stop - start) * rows
    time, ref, target = np.empty(size), np.empty(size, np.int64), np.empty(size, np.int64)
    count, ordered = 0, True
    for s in range(start, stop):
        for n in range(rows):
            t = inputs.time[s] + delays[n, inputs.neuron[s]]
            if t <= t_end:
                time[count], ref[count], target[count] = t, s, n if rows > 1 else ALL
                ordered &= count == 0 or time[count - 1] <= t
                count += 1
    if not ordered:  # at equal times they stay in the order of the spikes
        order, spare, spare_order = np.empty(count, np.int64), np.empty(count), np.empty(count, np.int64)
        for k in range(count):
            order[k] = k
        merge_sort(time, order, count, spare, spare_order)
        permute(ref, order, spare_order, 0, count)
        permute(target, order, spare_order, 0, count)
    return Arrivals(time[:count], ref[:count], target[:count])


@compiled(**EXACT_PIECE)
def queue_of(size):
    """Memory for `size` arrivals."""
    return Queue(np.empty(size), np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64))


@compiled(**EXACT_WITHIN)
def roomier(queue, size):
    """The same arrivals in memory for at least `size`."""
    return Queue(grown(queue.time, size), grown(queue.order, size), grown(queue.ref, size), grown(queue.target, size))


@compiled(**EXACT_BARE)
def push(queue, size):
    """Entry `size` sinks to its place; returns the new size."""
    k = size
    while k > 0 and _before(queue, k, (k - 1) // 2):
        _swap(queue, k, (k - 1) // 2)
        k = (k - 1) // 2
    return size + 1


@compiled(**EXACT_BARE)
def pop(queue, size):
    """Move the first entry to place size-1; returns the new size."""
    size, k = size - 1, np.int64(0)
    _swap(queue, k, size)
    while True:
        child = 2 * k + 1
        if child >= size:
            return size
        if child + 1 < size and _before(queue, child + 1, child):
            child += 1
        if not _before(queue, child, k):
            return size
        _swap(queue, k, child)
        k = child


@compiled(**EXACT_BARE)
def _before(queue, a, b):
    return queue.time[a] < queue.time[b] or (queue.time[a] == queue.time[b] and queue.order[a] < queue.order[b])


@compiled(**EXACT_BARE)
def _swap(queue, a, b):
    queue.time[a], queue.time[b] = queue.time[b], queue.time[a]
    queue.order[a], queue.order[b] = queue.order[b], queue.order[a]
    queue.ref[a], queue.ref[b] = queue.ref[b], queue.ref[a]
    queue.target[a], queue.target[b] = queue.target[b], queue.target[a]
