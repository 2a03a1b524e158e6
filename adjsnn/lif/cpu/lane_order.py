"""The spikes of a tile, found stop by stop, in the order of samples and times."""

from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.feedforward import merge_sort, permute
from adjsnn.numerics.compiled import EXACT_BARE, EXACT_PIECE, compiled

CROWDED = 16  # more spikes than this in an interval are not sorted by insertion


class Order(NamedTuple):
    """Memory to sort the spikes of a tile in, as many as there is room for.

    Attributes:
        time: sorted.
        spare: of numbers.
        order: the places of the spikes, sorted.
        which: of whole numbers; in which interval a spike is.
        place: where the spikes of each interval begin; one more.
    """

    time: np.ndarray
    spare: np.ndarray
    order: np.ndarray
    which: np.ndarray
    place: np.ndarray


@compiled(**EXACT_PIECE)
def order_memory(size):
    """Memory to sort so many spikes in."""
    return Order(
        np.empty(size), np.empty(size), np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size + 1, np.int64)
    )


@compiled(**EXACT_BARE)
def in_order(spikes, tile, begin, total, t_end, counts, memory):
    """Sort spikes begin … total-1, those of a tile, by sample and time; of equal times the first neuron stays first.

    Args:
        spikes: Spikes; `neuron` is that of the tile, and that of the layer afterwards.
        tile: Tile.
        begin: of the spikes.
        total: one past the last of them.
        t_end: end of the trial, ms.
        counts: (S,), how many spikes each sample has; filled in.
        memory: Order, with room for all of them.
    """
    neurons = len(tile.fired) // len(tile.stops)
    order, time, spare, which = memory.order, memory.time, memory.spare, memory.which
    for s in range(len(counts)):
        for q in range(np.uint64(s * neurons), np.uint64((s + 1) * neurons)):
            counts[s] += tile.fired[q]
    if not _by_interval(spikes, tile, begin, total, t_end, counts, memory):
        _by_lane(spikes, tile, begin, total, len(counts) * neurons, memory)
        first = 0
        for count in counts:
            merge_sort(time[first:], order[first:], count, spare, which)
            first += count
    for s in range(np.uint64(begin), np.uint64(total)):
        spikes.neuron[s], spikes.time[s] = tile.neuron[np.uint64(spikes.neuron[s])], time[s - np.uint64(begin)]
    permute(spikes.current, order, spare, begin, total)
    permute(spikes.released, order, spare, begin, total)
    permute(spikes.neuron, order, which, begin, total)
    permute(spikes.at, order, which, begin, total)
    permute(spikes.free, order, which, begin, total)


@compiled(**EXACT_BARE)
def _by_interval(spikes, tile, begin, total, t_end, counts, memory):
    """Sort by as many short intervals of time as a sample has spikes, and those of an interval by insertion.

    Returns:
        whether that was possible: no interval has many spikes.
    """
    order, time, which, place, one = memory.order, memory.time, memory.which, memory.place, np.uint64(1)
    first, size, least = 0, np.uint64(total - begin), np.uint64(begin)  # unsigned: no number of a place counts from the end
    for s in range(len(counts)):  # where its spikes begin; `kept` is idle by now, and has room for every sample
        tile.kept[0, s] = first
        first += counts[s]
    for k in range(size + one):
        place[k] = 0
    for s in range(size):
        sample = np.uint64(tile.sample[np.uint64(spikes.neuron[least + s])])
        count = counts[sample]
        share = spikes.time[least + s] / t_end if t_end > 0.0 else 0.0
        interval = np.uint64(int(tile.kept[0, sample]) + min(int(share * count), count - 1))
        which[s] = interval
        place[interval + one] += 1
        if place[interval + one] > CROWDED:
            return False
    for k in range(size):
        place[k + one] += place[k]
    for k in range(size):  # from the end of each interval on, whose beginning `place` then is
        s = size - one - k
        interval = np.uint64(which[s]) + one
        place[interval] -= 1
        to = np.uint64(place[interval])
        order[to], time[to] = least + s, spikes.time[least + s]
    for interval in range(one, size + one):
        last = np.uint64(place[interval + one]) if interval < size else size
        start = np.uint64(place[interval])
        for k in range(start + one, last):
            s, t, j = order[k], time[k], k
            n = spikes.neuron[np.uint64(s)]
            while j > start and (t, n) < (time[j - one], spikes.neuron[np.uint64(order[j - one])]):
                order[j], time[j] = order[j - one], time[j - one]
                j -= one
            order[j], time[j] = s, t
    return True


@compiled(**EXACT_BARE)
def _by_lane(spikes, tile, begin, total, lanes, memory):
    """The spikes of each lane together, in their order."""
    place = 0
    for q in range(lanes):  # the last spike of a lane is read no more
        tile.last[q] = place
        place += tile.fired[q]
    for s in range(begin, total):
        q = spikes.neuron[s]
        memory.order[tile.last[q]], memory.time[tile.last[q]] = s, spikes.time[s]
        tile.last[q] += 1
