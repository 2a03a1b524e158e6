"""Whether tensors are spike trains: a few passes over them, and the reason in words only where they are not."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from adjsnn.checks import count, number, real
from adjsnn.errors import ConfigurationError

PADS = "SpikeTrains.from_list, which pads for you"


def check_trains(idx: Tensor, time: Tensor, sign: Tensor, n_neurons: int, t_max: float, *, ordered: bool) -> None:
    """Raise ConfigurationError unless idx, time and sign, (B, K), are spikes as SpikeTrains says.

    A time may be beyond t_max by one rounding of its dtype.
    """
    if idx.shape != time.shape or sign.shape != idx.shape or idx.dim() != 2:
        raise ConfigurationError(
            f"idx {tuple(idx.shape)}, time {tuple(time.shape)}, sign {tuple(sign.shape)}", "the same shape (B, K) for all", PADS
        )
    if sign.is_floating_point() or sign.is_complex() or sign.dtype == torch.bool:
        raise ConfigurationError(f"sign of {sign.dtype}", "integers, +1 or -1 for each spike", "sign.to(torch.int8)")
    latest = t_max * (1.0 + torch.finfo(time.dtype).eps)
    if not _fine(idx, time.detach(), sign, n_neurons, latest, ordered=ordered):
        _complain(idx, time.detach(), sign, n_neurons, t_max, latest)


def _fine(idx: Tensor, time: Tensor, sign: Tensor, n_neurons: int, latest: float, *, ordered: bool) -> bool:
    """All at once; on the CPU by numpy, whose calls are short. A comparison with NaN is False."""
    if idx.numel() == 0:
        return True
    if idx.device.type == "cpu" and time.dtype in (torch.float32, torch.float64):
        k, t, s = idx.numpy(), time.numpy(), sign.numpy()
        real = k >= 0
        with np.errstate(invalid="ignore"):
            there = (t >= 0.0) & ((t <= latest) == real) & (np.isinf(t) | real)
            return bool(
                ((k >= -1) & (k < n_neurons) & there & (np.abs(s) == real)).all()
                and (real[:, 1:] <= real[:, :-1]).all()
                and (not ordered or (t[:, 1:] >= t[:, :-1]).all())
            )
    real = idx >= 0
    fine = (idx >= -1).all() & (idx < n_neurons).all() & (time >= 0.0).all() & ((time.double() <= latest) == real).all()
    fine &= (time.isinf() | real).all() & (sign.abs() == real).all() & (real[:, 1:] <= real[:, :-1]).all()
    return bool(fine & (time[:, 1:] >= time[:, :-1]).all() if ordered else fine)


def _complain(idx: Tensor, time: Tensor, sign: Tensor, n_neurons: int, t_max: float, latest: float) -> None:
    padding = idx < 0
    if time.isnan().any():
        sample, k = (int(n) for n in time.isnan().nonzero()[0])
        raise ConfigurationError(
            f"NaN among the spike times, first at sample {sample}, spike {k}",
            "numbers, or inf in the padding",
            "dropping those spikes",
        )
    if (idx >= n_neurons).any() or (idx < -1).any():
        raise ConfigurationError(
            f"neuron indices from {int(idx.min())} to {int(idx.max())}",
            f"0 … {n_neurons - 1}, or -1 in the padding",
            "a larger n_neurons",
        )
    if (padding != time.isinf()).any() or (padding[:, :-1] & ~padding[:, 1:]).any():
        raise ConfigurationError(
            "padding that is not -1 in idx and inf in time, at the end of each row", "both, after the last spike", PADS
        )
    if (sign.abs() != ~padding).any():
        raise ConfigurationError(
            "signs other than +1 and -1, or not 0 in the padding", "+1 or -1 for each spike", "leaving it out"
        )
    spikes = time[~padding].double()
    if (spikes < 0.0).any() or (spikes > latest).any():
        raise ConfigurationError(
            f"spike times from {float(spikes.min()):.9g} to {float(spikes.max()):.9g} ms",
            f"0 to t_max = {t_max:.9g} ms",
            "a larger t_max, dropping the spikes outside, or where times are trained time.clamp_(0.0, t_max) after each step",
        )
    sample = int((time[:, 1:] < time[:, :-1]).any(1).nonzero()[0])
    raise ConfigurationError(
        f"unsorted spike times in sample {sample}",
        "times that never decrease along a row",
        "sorting them, or SpikeTrains.from_list, which sorts",
    )


def event_columns(**columns: object) -> tuple[Tensor, ...]:
    """Columns of events, of integers but for the times, and of one length."""
    events = {name: real(name, x, "one number for each spike, (S,)", f"torch.as_tensor({name})") for name, x in columns.items()}
    shapes = {name: tuple(x.shape) for name, x in events.items()}
    if len(set(shapes.values())) > 1 or events["time"].dim() != 1:
        raise ConfigurationError(f"columns of shapes {shapes}", "one length, (S,)", "one entry per spike in each")
    if wrong := [name for name, x in events.items() if x.is_floating_point() != (name == "time")]:
        raise ConfigurationError(
            f"{wrong[0]} of {events[wrong[0]].dtype}", "integers, and floating-point times", f"{wrong[0]}.long()"
        )
    return tuple(x if x.is_floating_point() else x.long() for x in events.values())


def plain_event(event: Any) -> tuple[float, int]:
    """A (time, neuron), as plain numbers; a NaN goes on to be refused with the others."""
    t, neuron = event
    t = t if type(t) is float else number("a spike time", t, "a time in ms")
    return t, neuron if type(neuron) is int else count("a neuron", neuron, 0)


def skipped(skip: object, x: Tensor) -> Tensor:
    """Which inputs (B, N) send no spike: those of x below a number, or those that are True.

    Raises:
        ConfigurationError: neither a number nor (B, N) of bool.
    """
    if isinstance(skip, (Tensor, np.ndarray)) and skip.ndim:
        given = torch.as_tensor(skip, device=x.device)
        if given.dtype != torch.bool or given.shape != x.shape:
            raise ConfigurationError(
                f"skip of {given.dtype} and shape {tuple(given.shape)}", f"a number, or {tuple(x.shape)} of bool", "x < 0.1"
            )
        return given
    return x.detach() < number("skip", skip, "a value below which there is no spike", "skip=0.1")
