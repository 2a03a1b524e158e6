"""Trajectories as the fused loops take them."""

from typing import Any

import numpy as np
from torch import Tensor

from adjsnn.gated.cpu.arguments import SPARE, EulerMemory, Path
from adjsnn.gated.limits import KEPT
from adjsnn.numerics.memory import aligned


def array(x: Tensor) -> np.ndarray:
    """The tensor's memory as an array, contiguous."""
    return (x.detach() if x.requires_grad else x).contiguous().numpy()


def copied(*arrays: np.ndarray) -> list[np.ndarray]:
    """Copies of arrays of one type."""
    results = aligned([x.shape for x in arrays], arrays[0].dtype)
    for result, x in zip(results, arrays, strict=True):
        result[...] = x
    return results


def rows(x: np.ndarray, dimensions: int) -> np.ndarray:
    """An array (…, B, N) as the loops take it, (…, B·N) of so many dimensions."""
    return x.reshape(-1) if dimensions == 1 else x.reshape(len(x), x.shape[1] * x.shape[2])


def path_of(*arrays: Tensor) -> Path:
    """What is stored of a trajectory, u to crossings, as the loops take it."""
    whole = Path(*(array(x) for x in arrays))
    per_neuron = {name: rows(getattr(whole, name), 2) for name in ("v", "a_fast", "a_slow", "current", "crossings")}
    return whole._replace(**per_neuron)


def part_of(path: Path, start: int, stop: int, length: int) -> Path:
    """Steps start … stop-1 of a path, one of its blocks of `length` steps."""
    at, states = slice(start, stop), slice(start, stop + 1)
    thin = len(path.crossings) < len(path.current)
    row = start // length * -(-length // KEPT)
    kept = slice(min(start, len(path.a_fast) - 1), stop + 1)  # of a lean one the last row is all there is
    return Path(
        u=path.u[at],
        v=path.v[row : row - (start - stop) // KEPT + 1] if thin else path.v[states],
        a_fast=path.a_fast[kept],
        a_slow=path.a_slow[kept],
        readout=path.readout[states],
        current=path.current[at],
        crossings=path.crossings[at],  # a thin one has none
    )


def blocks_of(n_steps: int, length: int) -> list[tuple[int, int]]:
    return [(start, min(start + length, n_steps)) for start in range(0, n_steps, length)]


def euler_memory(n_hidden: int, tile: int, dtype: Any) -> EulerMemory:
    """What a thread writes to in Euler steps, of `tile` samples together."""
    vectors = aligned([(tile * n_hidden,)] * (len(EulerMemory._fields) - 2), dtype)
    return EulerMemory._make([np.empty(n_hidden + SPARE, np.int32), *vectors, np.empty(tile * n_hidden, np.int8)])
