"""Every check of the arguments of a solve of a system that a user wrote."""

from collections.abc import Callable

import torch
from torch import Tensor

from adjsnn.checks import Number, Times, finite, positive, times
from adjsnn.errors import ConfigurationError
from adjsnn.hybrid.system import HybridSystem
from adjsnn.shapes import REAL, without_numbers

Inputs = Tensor | Callable[[Tensor], Tensor] | None
RTOL, ATOL = 1e-6, 1e-8  # where an adaptive solve is given none


def check_inputs(inputs: Inputs) -> Tensor | None:
    """Held inputs, checked; None where there are none or they are a function."""
    if inputs is None or callable(inputs):
        return None
    if not isinstance(inputs, Tensor):
        raise ConfigurationError(
            f"inputs of type {type(inputs).__name__}", "a tensor (T, B, C), a function u(t) or None", "torch.as_tensor(inputs)"
        )
    if inputs.dim() != 3 or 0 in inputs.shape:
        raise ConfigurationError(
            f"inputs of shape {tuple(inputs.shape)}",
            "(T, B, C), none of them 0: time first, batch second",
            "u.unsqueeze(1) for a single sample",
        )
    if inputs.dtype not in REAL:
        raise ConfigurationError(f"inputs of {inputs.dtype}", "torch.float32 or torch.float64", "inputs.double()")
    finite("inputs", inputs, "finite inputs", "interpolating or dropping the gaps of the recording")
    return inputs


def output_times(dt: Number | None, ts: Times | None, u: Tensor | None) -> tuple[Tensor, Tensor]:
    """Output times (T+1,) and their distances (T,), float64."""
    if (dt is None) == (ts is None):
        raise ConfigurationError(f"dt={dt!r} and ts={'given' if ts is not None else None}", "either dt or ts", "one of them")
    if ts is None:
        dt = positive("dt", dt, "a positive step in ms", "dt=0.5")
        if u is None:
            raise ConfigurationError(
                "dt without inputs (T, B, C), which would say how many steps",
                "output times",
                "ts=torch.arange(n + 1) * dt",
            )
        return torch.arange(len(u) + 1, dtype=torch.float64) * dt, torch.full((len(u),), dt, dtype=torch.float64)
    ts = times("ts", ts, "at least two times in ms, (T+1,)", "torch.linspace(...)")
    if len(ts) < 2:
        raise ConfigurationError(f"ts of {len(ts)} times", "at least two times", "torch.linspace(...)")
    spans = ts.diff()
    if not bool((spans > 0.0).all()):
        n = int((spans <= 0.0).nonzero()[0])
        raise ConfigurationError(
            f"ts[{n}] = {ts[n]:g} before ts[{n + 1}] = {ts[n + 1]:g}",
            "times that increase",
            "sorting them and dropping repeats",
        )
    if u is not None and len(u) != len(spans):
        raise ConfigurationError(
            f"inputs for {len(u)} intervals with {len(ts)} output times", f"inputs of shape ({len(spans)}, B, C)", "inputs[:-1]"
        )
    return ts, spans


def check_state(y0: Tensor, u: Tensor | None, system: HybridSystem) -> None:
    if not isinstance(y0, Tensor) or y0.dim() != 2 or 0 in y0.shape or y0.dtype not in REAL:
        seen = f"{tuple(y0.shape)}, {y0.dtype}" if isinstance(y0, Tensor) else type(y0).__name__
        raise ConfigurationError(
            f"y0 is {seen}", "a tensor (B, D) of torch.float32 or torch.float64", "y0.unsqueeze(0) for a single sample"
        )
    others: dict[str, Tensor] = {name: x for name, x in system.named_parameters() if x.is_floating_point()}
    if u is not None:
        if u.shape[1] != len(y0):
            raise ConfigurationError(f"y0 of {len(y0)} samples with inputs of {u.shape[1]}", "one batch", "y0.expand(B, -1)")
        others["inputs"] = u
    for name, x in {**others, "y0": y0}.items():
        if x.is_meta:
            raise without_numbers(name)
        if x.dtype != y0.dtype or x.device != y0.device:
            raise ConfigurationError(
                f"y0 is {y0.dtype} on {y0.device} while {name} is {x.dtype} on {x.device}",
                "one dtype and device",
                "system.to(y0) or y0.to(...)",
            )
    finite("y0", y0, "a finite state", "another y0")


def tolerances_of(
    method: str, adaptive: bool, rtol: Number | None, atol: Number | None, dtype: torch.dtype
) -> tuple[float, float]:
    if not adaptive:
        for name, value in (("rtol", rtol), ("atol", atol)):
            if value is not None:
                raise ConfigurationError(
                    f"{name}={value!r} with method={method!r}, whose steps are fixed",
                    "tolerances with adaptive steps only",
                    'method="dopri5"',
                )
        return 0.0, 0.0
    relative = positive("rtol", RTOL if rtol is None else rtol, "a positive tolerance", "rtol=1e-6")
    absolute = positive("atol", ATOL if atol is None else atol, "a positive tolerance", "atol=1e-6")
    least = 4.0 * torch.finfo(dtype).eps
    if relative < least:
        raise ConfigurationError(
            f"rtol={relative:g} in {dtype}", f"at least {least:.2g}, four roundings", "float64, or rtol=1e-5"
        )
    return relative, absolute
