"""Memory for trajectories, recycled.

A trajectory is tens to thousands of megabytes, written once from front to back. The first touch of a fresh page costs more
than the write itself, on a virtual machine many times more, and a training loop would pay it at every iteration. So large
CPU buffers come from a small pool: a buffer is handed out again only when nothing refers to it any more, no tensor, view,
array or autograd node, so a Solution never shares memory with a later one. CUDA has such a pool in torch.
"""

import mmap
import sys
import threading
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

HUGE_PAGE = 1 << 21  # bytes
ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
SMALLEST = 2 * HUGE_PAGE  # smaller buffers come from the heap, which recycles them itself
POOL_BYTES = 1 << 30  # most that is kept for reuse

_pool: list[mmap.mmap] = []
_lock = threading.Lock()


def fresh(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None, *, place: int = 0) -> Tensor:
    """Uninitialised memory of its own for a tensor of `shape`, with the device and, unless given, the dtype of `like`.

    It begins as far behind a boundary of ALIGNMENT bytes as entry `place` of a whole tensor does, because a matrix product of
    the same numbers may round differently at another distance from it.
    """
    dtype = like.dtype if dtype is None else dtype
    count, lead = prod(shape), place % (ALIGNMENT // dtype.itemsize)
    size = (lead + count) * dtype.itemsize
    if sys.platform != "linux" or like.device.type != "cpu" or size < SMALLEST:
        return torch.empty(lead + count, dtype=dtype, device=like.device)[lead:].view(shape)
    # The tensor's storage holds a reference to the pages until the last tensor on it is gone.
    return torch.frombuffer(_pages(size), dtype=dtype, count=lead + count)[lead:].view(shape)


def aligned(shapes: Sequence[tuple[int, ...]], dtype: Any, *, zero: bool = False) -> list[np.ndarray]:
    """Arrays of their own, each on a boundary of ALIGNMENT bytes, uninitialised unless `zero`.

    A vector register that lies across two cache lines is read and written half as fast.
    """
    per_line, ends, pieces = ALIGNMENT // np.dtype(dtype).itemsize, 0, []
    for shape in shapes:
        count = shape[0] if len(shape) == 1 else prod(shape)
        pieces.append((ends, ends + count, shape))
        ends += -(-count // per_line) * per_line
    memory = (np.zeros if zero else np.empty)(ends + per_line, dtype)
    begin = -(memory.__array_interface__["data"][0] // memory.itemsize) % per_line
    return [
        memory[begin + at : begin + to] if len(shape) == 1 else memory[begin + at : begin + to].reshape(shape)
        for at, to, shape in pieces
    ]


def release_memory() -> None:
    """Give the pool's memory back to the system; tensors in use keep theirs."""
    with _lock:
        _pool.clear()


def _pages(size: int) -> mmap.mmap:
    size = -(-size // HUGE_PAGE) * HUGE_PAGE
    with _lock:
        for index in range(len(_pool)):
            if len(_pool[index]) == size and sys.getrefcount(_pool[index]) == _UNUSED:
                _pool.append(_pool.pop(index))
                return _pool[-1]
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pages.madvise(mmap.MADV_HUGEPAGE)
        _pool.append(pages)
        while sum(len(kept) for kept in _pool) > POOL_BYTES:
            _pool.pop(0)  # the longest unused; whoever still holds it keeps it alive
        return pages


def _count_references_when_unused() -> int:
    """What sys.getrefcount says of an element that only its list holds; it differs between Python versions."""
    elements = [object()]
    return sys.getrefcount(elements[0])


_UNUSED = _count_references_when_unused()
