"""What the threads of a block, which solve one sample together, share: who releases charge, and products with W_rec.

Neurons are dealt out to the threads, n to thread n modulo their number. A product is a sum over the few neurons that matter,
listed in the order of their numbers, so that every sum is taken in one order and gives the same bits every time.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import uint32

from adjsnn.gated.cuda.arguments import COLUMNS, NOTHING
from adjsnn.numerics.device import cuda

SEGMENT = 16  # neurons that one thread lists


class Shared(NamedTuple):
    """Memory of a block.

    Attributes:
        marks: (N,), not 0 for the neurons that matter: charges, or what is found for them.
        vector: (N,), what is multiplied by W_recᵀ; not used forward.
        active: (N,), their indices.
        counts: how many each segment has.
        w_t: (N·N,), W_rec as in Network, here or in the memory of all blocks.
        w: likewise.
    """

    marks: Any
    vector: Any
    active: Any
    counts: Any
    w_t: Any
    w: Any


def layout(size: int, item: int, most: int) -> tuple[bool, int, int]:
    """Whether W_rec is copied; where the integers begin, counted in integers; and bytes in all.

    Args:
        size: N.
        item: bytes of a number.
        most: bytes of W_rec up to which it is copied.
    """
    copied = size * size * item <= most
    ints = (2 * size + copied * size * size) * item // 4
    return copied, ints, 4 * (ints + size + -(-size // SEGMENT))


@cuda.jit(device=True)
def place():
    """The sample of the thread's block, its number in there, and their number.

    Unsigned, as all indices of neurons are: of one that may be negative every access asks whether it counts from the end.
    """
    return np.uint64(cuda.blockIdx.x), np.uint64(cuda.threadIdx.x), np.uint64(cuda.blockDim.x)


@cuda.jit(device=True)
def workspace(network):
    """Shared of this block, with W_rec where it is copied; `listed` waits for it."""
    size, begin, (_, thread, width) = network.constants.shape[1], network.ints, place()
    floats = cuda.shared.array(0, network.constants.dtype)
    ints = cuda.shared.array(0, uint32)
    w_t, w = network.w_t, network.w
    if network.copied != NOTHING:
        source, target = (w_t if network.copied == COLUMNS else w), floats[2 * size : 2 * size + size * size]
        for k in range(thread, np.uint64(size * size), width):
            target[k] = source[k]
        if network.copied == COLUMNS:
            w_t = target
        else:
            w = target
    segments = (size + SEGMENT - 1) // SEGMENT
    active, counts = ints[begin : begin + size], ints[begin + size : begin + size + segments]
    return Shared(floats[:size], floats[size : 2 * size], active, counts, w_t, w)


@cuda.jit(device=True)
def listed(shared):
    """Indices of the marks that are not 0, in their order, into `active`; returns their number.

    All threads of a block take part, each when its marks are written.
    """
    size, segments, (_, thread, width) = np.uint64(len(shared.marks)), np.uint64(len(shared.counts)), place()
    one, length = np.uint64(1), np.uint64(SEGMENT)
    cuda.syncthreads()
    for g in range(thread, segments, width):
        found = 0
        for n in range(g * length, min(size, (g + one) * length)):
            if shared.marks[n] != 0:
                found += 1
        shared.counts[g] = found
    cuda.syncthreads()
    for g in range(thread, segments, width):
        to = np.uint64(0)
        for before in range(g):
            to += shared.counts[before]
        for n in range(g * length, min(size, (g + one) * length)):
            if shared.marks[n] != 0:
                shared.active[to] = n
                to += one
    count = np.uint64(0)
    for g in range(segments):
        count += shared.counts[g]
    cuda.syncthreads()
    return count


@cuda.jit(device=True)
def column_sum(shared, count, n):
    """Entry n of W_rec · marks, over the neurons that are listed."""
    size, whole = np.uint64(len(shared.marks)), shared.w.dtype.type(0.0)
    for k in range(count):
        j = np.uint64(shared.active[k])
        whole += shared.marks[j] * shared.w_t[j * size + n]
    return whole


@cuda.jit(device=True)
def project(shared):
    """W_recᵀ · vector into the marks that are not 0. All threads of a block take part."""
    size, count, (_, thread, width) = np.uint64(len(shared.marks)), listed(shared), place()
    for k in range(thread, count, width):
        n, whole = np.uint64(shared.active[k]), shared.w.dtype.type(0.0)
        for m in range(size):
            whole += shared.vector[m] * shared.w[m * size + n]
        shared.marks[n] = whole
    cuda.syncthreads()
