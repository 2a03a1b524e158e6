"""Arrays of adaptive runs: numpy's for small states on the CPU, torch's elsewhere.

A step takes some hundred operations on arrays of a few hundred numbers, on which numpy's cost less than torch's. Sums,
products and comparisons are the same numbers in both, and functions of a system only ever see tensors.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from adjsnn.numerics.tableaus import Tableau

SMALL = 2**12  # numbers of a state
DTYPES = {torch.float32: np.float32, torch.float64: np.float64}


class TorchArrays:
    """Tensors as they are."""

    xp: Any = torch

    @staticmethod
    def array(x: Tensor) -> Any:
        """A tensor as an array of the same memory."""
        return x

    @staticmethod
    def tensor(x: Any) -> Tensor:
        """An array as a tensor of the same memory."""
        return x

    @staticmethod
    def cast(x: Any, dtype: torch.dtype) -> Any:
        return x.to(dtype)

    @staticmethod
    def widened(x: Any, width: int) -> Any:
        """(..., 1) as (..., width), for several products with such arrays."""
        return x.expand(*x.shape[:-1], width)

    @staticmethod
    def clip(x: Any, low: int | float | None, high: int | float | None) -> Any:
        return x.clip(low, high)

    @staticmethod
    def surely_none(x: Any) -> bool:
        """Whether no entry is True, as far as that is known without waiting for a device."""
        del x
        return False

    @staticmethod
    def first_true(x: Any, axis: int) -> Any:
        """The number of the first True along an axis, 0 where there is none."""
        return x.to(torch.int8).argmax(axis)

    @staticmethod
    def counting(n: int, like: Any) -> Any:
        """0 … n-1, (n,)."""
        return torch.arange(n, dtype=like.dtype, device=like.device)


class NumpyArrays(TorchArrays):
    """Numpy's views of tensors."""

    xp: Any = np

    @staticmethod
    def array(x: Tensor) -> Any:
        return (x.detach() if x.requires_grad else x).numpy()

    @staticmethod
    def tensor(x: Any) -> Tensor:
        return torch.from_numpy(x)

    @staticmethod
    def cast(x: Any, dtype: torch.dtype) -> Any:
        return x.astype(DTYPES[dtype], copy=False)

    @staticmethod
    def widened(x: Any, width: int) -> Any:
        return np.repeat(x, width, -1)  # a loop over few numbers costs as much as one over a hundred

    @staticmethod
    def clip(x: Any, low: int | float | None, high: int | float | None) -> Any:
        x = x if low is None else np.maximum(x, low)  # np.clip takes as long as five of these
        return x if high is None else np.minimum(x, high)

    @staticmethod
    def surely_none(x: Any) -> bool:
        return not x.any()

    @staticmethod
    def first_true(x: Any, axis: int) -> Any:
        return x.argmax(axis)

    @staticmethod
    def counting(n: int, like: Any) -> Any:
        return np.arange(n, dtype=like.dtype)


def arrays_for(y0: Tensor) -> type[TorchArrays]:
    """Numpy's for small states on the CPU that no transform of torch looks at."""
    watched = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return NumpyArrays if y0.device.type == "cpu" and y0.numel() <= SMALL and not watched else TorchArrays


def weighted(weights: Sequence[float], ks: Sequence[Any]) -> Any:
    """Σ_i w_i k_i over the weights that are not zero, of arrays, as `combine` of `steps` does it."""
    total = None
    for w, k in zip(weights, ks, strict=False):
        if w != 0.0:
            total = k * w if total is None else total + k * w
    return 0.0 * ks[0] if total is None else total


def stages(
    arrays: type[TorchArrays],
    tableau: Tableau,
    field: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    times: tuple[Any, Any, Any],
    y: Tensor,
    u: Tensor | None,
    count: int,
    first: Tensor | None = None,
) -> tuple[list[Tensor], list[Any], Tensor]:
    """The first `count` k_i of a step, as tensors and as arrays, and the state of the last of these stages, (B, D).

    Args:
        times: begin, end and length of the step, arrays (B, 1).
        first: k_1, where it is known.
    """
    ks, new = [field(arrays.tensor(times[0]), y, u) if first is None else first], y
    slopes, h = [arrays.array(ks[0])], arrays.widened(times[2], y.shape[1])
    for i in range(1, count):
        # In torch's own memory, since a matrix product of the same numbers may round differently at another place.
        new = arrays.tensor(h * weighted(tableau.a[i], slopes)) + y
        ks.append(field(arrays.tensor(stage_time(tableau, i, times)), new, u))
        slopes.append(arrays.array(ks[-1]))
    return ks, slopes, new


def stage_time(tableau: Tableau, i: int, times: tuple[Any, Any, Any]) -> Any:
    """t + c_i h of tensors or arrays, and exactly the ends where c_i is 0 or 1.

    So the last stage of one step can open the next.
    """
    t, t_end, h = times
    if tableau.c[i] == 0.0:
        return t
    return t_end if tableau.c[i] == 1.0 else t + tableau.c[i] * h
