"""Spikes as simulators record them: a column of times and a column of neurons."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from adjsnn.checks import Count, count
from adjsnn.errors import ConfigurationError
from adjsnn.interop.columns import Outside, borders, cut, plain, rows, whole, wide
from adjsnn.interop.units import UnitName, bare, from_ms, unit_of
from adjsnn.spikes import SpikeTrains


class SpikeArrays(NamedTuple):
    """Columns of spikes, one entry for each, sample by sample, each sorted in time.

    Attributes:
        times: float64, in the unit that was asked for, from the start of each sample.
        ids: neuron, int64.
        samples: sample, int64.
        signs: +1 or -1, int8.
    """

    times: np.ndarray
    ids: np.ndarray
    samples: np.ndarray
    signs: np.ndarray


def from_arrays(
    times: Any,
    ids: Any,
    *,
    t_stop: Any,
    unit: UnitName | None = None,
    n_neurons: Count | None = None,
    neurons: Sequence[int] | np.ndarray | None = None,
    t_start: Any = 0.0,
    samples: Any = None,
    batch: Count | None = None,
    signs: Any = None,
    outside: Outside = "raise",
    dtype: torch.dtype = torch.float64,
) -> SpikeTrains:
    """Spike trains from columns of times and neurons, in any order: NEST's `events`, Brian2's `t` and `i`, and the like.

    Times become float64 first; then the start is subtracted, then they are brought to ms. Equal times are ordered by neuron.
    Gradients pass from a tensor of times; the spikes are on the CPU.

    Args:
        times: time of each spike, (S,), numbers of any type, or an array of quantities, pint or Brian2, which knows its unit.
        ids: neuron of each spike, (S,), whole numbers: 0 … N-1, or those in `neurons`.
        t_stop: end of the recording, in `unit` or with a unit of its own; one, or one for each sample. The longest sample is
            t_max.
        unit: of times, t_start and t_stop: "s", "ms", "us", "ns", "min", or one of quantities or pint. None where the times
            know it.
        n_neurons: number of neurons. Default: that of `neurons`.
        neurons: the id of neuron 0, 1, …, (N,), where ids are others, as NEST's.
        t_start: what is subtracted; one, or one for each sample.
        samples: sample of each spike, (S,). Default: all 0.
        batch: number of samples, (B). Default: 1 without `samples`, else that of t_stop or t_start, else one more than the
            largest.
        signs: +1 or -1 of each spike, (S,). Default: all +1.
        outside: "raise", or "drop" to leave out spikes before t_start or after t_stop. Both ends are inside.
        dtype: of the times. A network in float32 takes float32, which holds 8 µs after two minutes.

    Raises:
        ConfigurationError: columns that differ in length, another unit, ids that are unknown, or spikes outside.
    """
    times, known = bare("times", times, unit)
    time = wide("times", times)
    if time.dim() != 1:
        raise ConfigurationError(
            f"times of shape {tuple(time.shape)}", "a column of spike times, (S,)", "SpikeTrains.from_dense for frames"
        )
    neuron, n_neurons = _neurons(whole("ids", ids, len(time)), n_neurons, neurons)
    sample = torch.zeros_like(neuron) if samples is None else whole("samples", samples, len(time))
    if batch is None:
        lengths = [len(x) for x in (getattr(y, "magnitude", y) for y in (t_stop, t_start)) if np.ndim(x)]
        most = int(sample.max()) + 1 if len(sample) else 1
        batch = max(lengths, default=1 if samples is None else most)
    batch = count("batch", batch)
    if len(sample) and not 0 <= int(sample.min()) <= int(sample.max()) < batch:
        raise ConfigurationError(
            f"samples from {int(sample.min())} to {int(sample.max())}", f"0 … {batch - 1}", "a larger batch"
        )
    start, stop = borders("t_start", t_start, batch, known), borders("t_stop", t_stop, batch, known)
    sign = None if signs is None else whole("signs", signs, len(time))
    return cut(
        time, neuron, sample, sign, unit=known, start=start, stop=stop, n_neurons=n_neurons, outside=outside, dtype=dtype
    )


def _neurons(ids: torch.Tensor, n_neurons: Any, neurons: Any) -> tuple[torch.Tensor, int]:
    """Places 0 … N-1 of ids, and N."""
    if neurons is None:
        return ids, count("n_neurons", n_neurons, expected="the number of neurons", remedy="n_neurons=100, or neurons=ids")
    known = whole("neurons", neurons)
    ordered, place = known.sort()
    twice = int((ordered.diff() == 0).sum())
    if twice or len(known) == 0 or (n_neurons is not None and count("n_neurons", n_neurons) != len(known)):
        raise ConfigurationError(
            f"{len(known)} neurons, {twice} of them again, n_neurons={n_neurons}", "one id for each neuron", "n_neurons=None"
        )
    found = torch.searchsorted(ordered, ids).clamp(max=len(known) - 1)
    if bool((strange := ordered[found] != ids).any()):
        raise ConfigurationError(
            f"{int(strange.sum())} of {len(ids)} spikes of neurons that are not in neurons, the first {int(ids[strange][0])}",
            "ids of known neurons",
            "the ids of all that were recorded",
        )
    return place[found], len(known)


def to_arrays(trains: SpikeTrains, *, unit: UnitName) -> SpikeArrays:
    """Columns of times and neurons, of numpy, from spike trains; without gradient.

    In "ms" times keep their bits. In another unit `from_arrays` brings back the bits where any double of that unit does, in s
    and us of some 98 of 100 times; the others come back within one rounding.

    Args:
        trains: spikes, of any dtype and device.
        unit: of the times.

    Raises:
        ConfigurationError: no unit of time, or no spike trains.
    """
    known = unit_of(unit)
    time, neuron, sample, sign = rows(plain(trains))
    return SpikeArrays(from_ms(time, known), neuron, sample, sign)
