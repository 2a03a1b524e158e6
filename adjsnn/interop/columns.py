"""What every importer ends in: columns of spikes, counted, cut to a window or refused, ordered, and put into SpikeTrains."""

from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from adjsnn.checks import count, float_dtype, has_unit, names, number, real
from adjsnn.errors import ConfigurationError
from adjsnn.interop.units import Unit, bare, from_ms, in_ms
from adjsnn.spikes import SpikeTrains

Outside: TypeAlias = Literal["raise", "drop"]
LARGEST = 2**53  # whole numbers above are no longer all doubles


def wide(name: str, times: object) -> Tensor:
    """Times of any shape as float64 on the CPU, before anything is computed from them; gradients pass.

    Raises:
        ConfigurationError: no numbers, NaN, inf, or whole numbers that float64 does not hold.
    """
    given = real(name, times, "real numbers", "np.asarray(times)")
    if not given.is_floating_point() and given.numel() and not -LARGEST <= int(given.min()) <= int(given.max()) <= LARGEST:
        raise ConfigurationError(
            f"{name} from {int(given.min())} to {int(given.max())}",
            "whole numbers up to 2^53, which float64 holds",
            "subtracting the first of them as integers",
        )
    time = given.cpu().double()
    if not bool(time.isfinite().all()):
        n = int((~time.isfinite()).sum())
        raise ConfigurationError(
            f"{n} of {time.numel()} in {name} that are NaN or infinite", "finite times", "leaving them out"
        )
    return time


def whole(name: str, values: object, length: int | None = None) -> Tensor:
    """Whole numbers, (S,), int64.

    Raises:
        ConfigurationError: others, or of another length.
    """
    wanted = "whole numbers, one for each spike, (S,)"
    given = real(name, values, wanted, f"np.asarray({name}, dtype=np.int64)")
    if given.numel() == 0:
        given = given.long()
    if given.is_floating_point() or given.dim() != 1 or (length is not None and len(given) != length):
        raise ConfigurationError(
            f"{name} of shape {tuple(given.shape)}, {given.dtype}",
            wanted if length is None else f"{length} of them, {wanted}",
            "one entry for each spike in every column",
        )
    return given.cpu().long()


def border(name: str, value: Any, unit: Unit, meant: Unit | None = None) -> float:
    """Where a window begins or ends, in the unit of the spikes; it may carry a unit, a plain number is in `meant`."""
    plain, own = bare(name, value, None) if has_unit(value) else (value, meant or unit)
    at = number(name, plain, f"a finite time in {unit.name}")
    if own == unit:
        return at
    return float(from_ms(in_ms(torch.tensor([at], dtype=torch.float64), own).numpy(), unit)[0])


def borders(name: str, value: Any, batch: int, unit: Unit) -> Tensor:
    """Where the window of each sample begins or ends, (B,), float64: one number, or one for each sample."""
    if np.ndim(getattr(value, "magnitude", value)) == 0:
        return torch.full((batch,), border(name, value, unit), dtype=torch.float64)
    entries = [border(f"{name}[{k}]", x, unit) for k, x in enumerate(value)]
    if len(entries) != batch:
        raise ConfigurationError(f"{len(entries)} numbers in {name}", f"one, or one for each of {batch} samples", f"{name}=0.0")
    return torch.tensor(entries, dtype=torch.float64)


def ordered_window(start: Tensor, stop: Tensor, unit: Unit, meant: Unit | None = None) -> None:
    """Refuse windows that end before they begin; `meant` is the unit of plain numbers, where it is another."""
    if bool((stop < start).any()):
        k = int((stop < start).nonzero()[0])
        raise ConfigurationError(
            f"sample {k} from {float(start[k]):g} to {float(stop[k]):g} {unit.name}",
            "a start that is not after the stop",
            f"t_start and t_stop in {(meant or unit).name}, which plain numbers are in, or as quantities",
        )


def inside(lost: Tensor, outside: Outside, who: str, window: str) -> Tensor:
    """Which spikes stay, given which are outside, (S,); raises unless the caller said "drop".

    Args:
        lost: whether each spike is outside.
        outside: "raise" or "drop".
        who: the first of them in words.
        window: what they are outside of.
    """
    drop = names("outside", outside, ("raise", "drop")) == ("drop",)
    if bool(lost.any()) and not drop:
        raise ConfigurationError(
            f"{int(lost.sum())} of {len(lost)} spikes outside {window}, the first {who}",
            "all spikes within it",
            "another t_start or t_stop, or outside='drop' to leave these out",
        )
    return ~lost


def trains(
    time: Tensor,
    neuron: Tensor,
    sample: Tensor,
    sign: Tensor | None,
    *,
    batch: int,
    n_neurons: int,
    t_max: float,
    dtype: torch.dtype,
) -> SpikeTrains:
    """Spike trains from times in ms from the start of each sample, float64, in any order.

    Equal times are ordered by neuron, those of one neuron as they came. Gradients pass.
    """
    float_dtype(dtype)
    names_of_neurons(neuron, n_neurons)
    order = torch.from_numpy(np.lexsort((neuron.numpy(), time.detach().numpy(), sample.numpy())))
    sign = torch.ones_like(neuron) if sign is None else sign
    made = SpikeTrains.from_events(
        sample[order], neuron[order], time[order], sign[order], batch=batch, n_neurons=n_neurons, t_max=t_max
    )
    return made if dtype == torch.float64 else made.to(dtype=dtype)


def names_of_neurons(neuron: Tensor, n_neurons: int, name: str = "neurons") -> None:
    """Refuse neurons that are not there."""
    n = count("n_neurons", n_neurons)
    if len(neuron) and not 0 <= int(neuron.min()) <= int(neuron.max()) < n:
        raise ConfigurationError(
            f"{name} from {int(neuron.min())} to {int(neuron.max())}", f"0 … {n - 1}", "a larger n_neurons, or neurons=ids"
        )


def cut(
    times: object,
    neuron: Tensor,
    sample: Tensor,
    sign: Tensor | None,
    *,
    unit: Unit,
    start: Tensor,
    stop: Tensor,
    n_neurons: int,
    outside: Outside,
    dtype: torch.dtype,
) -> SpikeTrains:
    """Spike trains from times in a unit, in the window [start, stop] of each sample, both ends included.

    The start is subtracted in that unit, where whole numbers are exact, and the difference brought to ms: two correctly rounded
    operations, or one where the start is 0 or the times are whole.
    """
    time = wide("times", times)
    if time.dim() != 1 or len(time) != len(neuron):
        raise ConfigurationError(f"times of shape {tuple(time.shape)}", f"({len(neuron)},), one for each spike", "one column")
    ordered_window(start, stop, unit)
    names_of_neurons(neuron, n_neurons)
    t = time.detach()
    lost = (t < start[sample]) | (t > stop[sample])
    who = window = ""
    if bool(lost.any()):
        k = int(lost.nonzero()[0])
        b = int(sample[k])
        who = f"of neuron {int(neuron[k])} in sample {b} at {float(t[k]):.9g} {unit.name}"
        window = f"{float(start[b]):.9g} … {float(stop[b]):.9g} {unit.name}"
    stays = inside(lost, outside, who, window)
    time, neuron, sample = time[stays], neuron[stays], sample[stays]
    return trains(
        in_ms(time - start[sample], unit),
        neuron,
        sample,
        None if sign is None else sign[stays],
        batch=len(start),
        n_neurons=n_neurons,
        t_max=float(in_ms(stop - start, unit).max()) if len(start) else 0.0,
        dtype=dtype,
    )


def plain(given: SpikeTrains) -> SpikeTrains:
    """What writers take: times as float64 on the CPU, without gradient; checked."""
    if not isinstance(given, SpikeTrains):
        raise ConfigurationError(f"trains of type {type(given).__name__}", "SpikeTrains", "sol.layer_spikes[-1]")
    given.check()
    return SpikeTrains(given.idx, given.time.detach(), given.n_neurons, given.t_max, given.sign).to("cpu", torch.float64)


def rows(given: SpikeTrains) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Time in ms, neuron, sample and sign of every spike, sample by sample."""
    sample, k = (given.idx >= 0).nonzero(as_tuple=True)
    return given.time[sample, k].numpy(), given.idx[sample, k].numpy(), sample.numpy(), given.sign[sample, k].numpy()


def by_neuron(given: SpikeTrains) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Times in ms and signs of each neuron of the first sample, then of the next, B·N of each."""
    time, neuron, sample, sign = rows(given)
    place = sample * given.n_neurons + neuron
    order = np.argsort(place, kind="stable")
    ends = np.cumsum(np.bincount(place, minlength=given.batch * given.n_neurons))[:-1]
    return np.split(time[order], ends), np.split(sign[order], ends)
