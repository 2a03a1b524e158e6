"""Batches: nested tuples of tensors and spike trains. Moving them, and taking some of their samples."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from adjsnn.errors import ConfigurationError
from adjsnn.spikes import SpikeTrains


def moved(batch: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """The batch on a device, its floating-point tensors in a dtype; what is no tensor stays as it is."""
    if isinstance(batch, Tensor):
        return batch.to(device, dtype if batch.is_floating_point() else None)
    if isinstance(batch, SpikeTrains):
        return batch.to(device, dtype)
    return _mapped(batch, lambda part: moved(part, device, dtype))


def samples_of(batch: Any, samples: slice | Tensor) -> Any:
    """Some samples of a batch.

    Args:
        batch: a tensor (T, B, ...) of three dimensions or more, (B,) or (B, ·); SpikeTrains; a tuple of these.
        samples: which, as a slice or a tensor of indices (K,).
    """
    if isinstance(batch, Tensor):
        return batch[:, samples] if batch.ndim >= 3 else batch[samples]
    if isinstance(batch, SpikeTrains):
        return batch.samples(samples)
    return _mapped(batch, lambda part: samples_of(part, samples))


def size_of(batch: object) -> int:
    """Number of samples of a batch.

    Raises:
        ConfigurationError: no part of it has samples.
    """
    if isinstance(batch, Tensor):
        return batch.shape[1] if batch.ndim >= 3 else batch.shape[0]
    if isinstance(batch, SpikeTrains):
        return batch.batch
    if isinstance(batch, tuple):
        for part in batch:
            if isinstance(part, Tensor | SpikeTrains | tuple):
                return size_of(part)
    raise ConfigurationError(
        f"a batch of type {type(batch).__name__}", "tensors, SpikeTrains or a tuple of them", "a NamedTuple"
    )


def share_of(batch: Any, rank: int, processes: int) -> Any:
    """The part of a batch that one of several processes takes.

    Raises:
        ConfigurationError: the samples do not divide evenly; their mean would not be the mean over processes.
    """
    if processes == 1:
        return batch
    size = size_of(batch)
    if size % processes:
        raise ConfigurationError(
            f"a batch of {size} samples for {processes} processes", "a multiple of the number of processes", "another --batch"
        )
    part = size // processes
    return samples_of(batch, slice(rank * part, (rank + 1) * part))


def _mapped(batch: Any, function: Callable[[Any], Any]) -> Any:
    if not isinstance(batch, tuple):
        return batch
    parts = [function(part) for part in batch]
    return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
