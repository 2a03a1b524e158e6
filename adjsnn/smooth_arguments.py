"""Every check of the arguments of a solve of a system that a user wrote."""

from collections.abc import Callable

import torch
from torch import Tensor

from adjsnn.adjoints.backsolve import Backsolve
from adjsnn.adjoints.forward import ForwardSensitivity
from adjsnn.adjoints.smooth_discrete import registered
from adjsnn.checks import Number, Times, positive, times
from adjsnn.errors import ConfigurationError
from adjsnn.integrate.smooth import SmoothProgram
from adjsnn.systems.hybrid import HybridSystem
from adjsnn.systems.shapes import REAL

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
    wrong = ~inputs.detach().isfinite()
    if bool(wrong.any()):
        n, b, c = (int(k) for k in wrong.nonzero()[0])
        raise ConfigurationError(
            f"inputs[{n}, {b}, {c}] = {inputs[n, b, c]:g}", "finite inputs", "interpolating or dropping the gaps"
        )
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
    for name, x in others.items():
        if x.dtype != y0.dtype or x.device != y0.device:
            raise ConfigurationError(
                f"y0 is {y0.dtype} on {y0.device} while {name} is {x.dtype} on {x.device}",
                "one dtype and device",
                "system.to(y0) or y0.to(...)",
            )
    wrong = ~y0.detach().isfinite()
    if bool(wrong.any()):
        b, d = (int(k) for k in wrong.nonzero()[0])
        raise ConfigurationError(f"y0[{b}, {d}] = {y0[b, d]:g}", "a finite state", "another y0")


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


def count_guards(system: HybridSystem, times: Tensor, y0: Tensor, adjoint: object, adaptive: bool) -> int:
    """Number of guards, 0 for a smooth system; what has events has to be solved and differentiated by what knows them."""
    name, t = type(system).__name__, times[0].to(y0).expand(len(y0), 1)
    with torch.no_grad():
        levels = system.guard(t, y0)
    if levels is None:
        return 0
    _check_result(f"{name}.guard", levels, (len(y0), None), y0)
    if not adaptive:
        raise ConfigurationError(
            f"{name} with guards and fixed steps", "steps that end on events", 'method="dopri5" or method="tsit5"'
        )
    if isinstance(adjoint, (Backsolve, ForwardSensitivity)):
        raise ConfigurationError(
            f"{name} with guards and adjoint={adjoint!r}", "an adjoint that goes through events", "adjoint=DiscreteAdjoint()"
        )
    above = (levels >= 0.0).nonzero()
    if len(above):
        sample, guard = (int(k) for k in above[0])
        raise ConfigurationError(
            f"{name}.guard {guard} of sample {sample} is {float(levels[sample, guard]):g} at the start",
            "guards below zero, so that they can rise through it",
            "an initial state below the threshold",
        )
    fired = torch.zeros_like(levels, dtype=torch.bool)
    with torch.no_grad():
        _check_result(f"{name}.jump", system.jump(t, y0, fired), tuple(y0.shape), y0)
    return levels.shape[1]


def check_field(program: SmoothProgram, y0: Tensor, u: Tensor | None, *, tape: bool) -> None:
    """One evaluation at the start: what it returns, and unless a tape is used that everything it depends on is known."""
    system, name = program.system, type(program.system).__name__
    t = program.ts[0].to(y0.dtype).expand(len(y0), 1)
    y = y0.detach().requires_grad_()
    held = None if u is None else u[0].detach().requires_grad_()
    with torch.enable_grad():
        if program.signal is None:
            out = system.vector_field(t, y, held)
        else:
            drive = program.signal(t)
            _check_result("inputs(t)", drive, (len(y0), None), y0)
            out = system.vector_field(t, y, drive)
    _check_result(f"{name}.vector_field", out, tuple(y0.shape), y0)
    known = {id(x) for x in (*registered(program), y, held)}
    for leaf in [] if tape else _leaves(out):
        if id(leaf) not in known:
            raise ConfigurationError(
                f"{name}.vector_field depends on a tensor of shape {tuple(leaf.shape)} that requires a gradient and is neither "
                "a registered parameter nor y nor u, so its gradient would be missing",
                "every such tensor as a parameter of the module",
                f"self.name = nn.Parameter(...) in {name}, .detach(), or adjoint=BPTT()",
            )


def _check_result(what: str, x: Tensor, shape: tuple[int | None, ...], like: Tensor) -> None:
    if not isinstance(x, Tensor) or x.dim() != 2 or x.dtype != like.dtype or x.device != like.device:
        fits = False
    else:
        fits = all(expected in (None, size) for size, expected in zip(x.shape, shape, strict=True))
    if not fits:
        seen = f"{tuple(x.shape)}, {x.dtype}, {x.device}" if isinstance(x, Tensor) else type(x).__name__
        wanted = str(shape).replace("None", "C")
        raise ConfigurationError(
            f"{what} returned {seen}", f"a tensor {wanted}, {like.dtype}, {like.device}", "keeping one row for each sample"
        )


def _leaves(out: Tensor) -> list[Tensor]:
    """The tensors that a tape ends in."""
    found, seen, todo = [], set(), [out.grad_fn]
    if out.is_leaf and out.requires_grad:
        return [out]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)  # pyright: ignore[reportAttributeAccessIssue]
        todo.extend(after for after, _ in node.next_functions)
    return found
