"""Numbers as zero-dimensional tensors: small operations run faster with them than with Python floats."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@lru_cache(maxsize=256)
def scalar(value: float, dtype: torch.dtype) -> Tensor:
    """`value` as a zero-dimensional CPU tensor, which operands on any device accept. Never write to it."""
    with torch.inference_mode(False):  # whoever asks first: autograd may have to save it later
        return torch.tensor(value, dtype=dtype)


def spread(value: Any, like: Tensor) -> Tensor:
    """A number or a smaller tensor as one of the shape of `like`."""
    if isinstance(value, Tensor) and value.shape == like.shape:
        return value
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).expand_as(like)
