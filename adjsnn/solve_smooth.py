"""Solve a smooth system that a user wrote: every check of the arguments, and what a solve returns."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.adjoints.backsolve import Backsolve
from adjsnn.adjoints.continuous import ContinuousAdjoint
from adjsnn.adjoints.discrete import BPTT, DiscreteAdjoint
from adjsnn.adjoints.forward import ForwardSensitivity
from adjsnn.adjoints.hybrid_discrete import hybrid_sweep
from adjsnn.adjoints.smooth_checkpoints import Keep
from adjsnn.adjoints.smooth_discrete import SmoothStats, attach, discrete_sweep, events_of, registered, run_forward
from adjsnn.errors import ConfigurationError
from adjsnn.integrate.events import event_rows, unroll_events
from adjsnn.integrate.odeint import PREFIX, solve_by_torchdiffeq
from adjsnn.integrate.smooth import SmoothProgram, Steps, check_finite, unroll
from adjsnn.integrate.tableaus import RK4, TABLEAUS
from adjsnn.systems.hybrid import HybridSystem

Adjoint = DiscreteAdjoint | ContinuousAdjoint | ForwardSensitivity | Backsolve | BPTT
Inputs = Tensor | Callable[[Tensor], Tensor] | None
RTOL, ATOL = 1e-6, 1e-8  # where an adaptive solve is given none


@dataclass(frozen=True)
class SmoothSolution:
    """Solution of a smooth system.

    Attributes:
        ts: the T+1 output times, ms.
        y: states at these times, (T+1, B, D); differentiable.
        readout: system.readout of these states, (T+1, B, C_out); differentiable.
        event_times: when guards fired, (B, E), ms, in order, padded with inf; differentiable.
        event_index: which, (B, E), padded with -1.
        stats: figures about the solve; None where torchdiffeq solved it.
    """

    ts: Float[Tensor, " T1"]
    y: Float[Tensor, "T1 B D"]
    readout: Float[Tensor, "T1 B *C"]
    event_times: Float[Tensor, "B E"]
    event_index: Int[Tensor, "B E"]
    stats: SmoothStats | None

    @property
    def final_state(self) -> Tensor:
        """State at the last time, (B, D), to go on from with `y0=...`."""
        return self.y[-1]


def solve_smooth(
    system: HybridSystem,
    inputs: Inputs,
    *,
    dt: float | None = None,
    ts: Tensor | None = None,
    method: str = "rk4",
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 10_000,
    adjoint: Adjoint | None = None,
    y0: Tensor | None = None,
    substeps: int = 1,
) -> SmoothSolution:
    """Integrate ẏ = f(t, y, u); a loss of the solution, `.backward()`, runs the chosen adjoint.

    Args:
        system: f, and for adaptive steps guard and jump, whose events end steps and are located to rounding.
        inputs: u, (T, B, C), held between output times; or u(t), which takes (B, 1) to (B, C); or None. Parameters of a u(t)
            that is an nn.Module get gradients too.
        dt: distance of the output times, ms, starting at 0, for inputs (T, B, C). Either this or ts.
        ts: output times, (T+1,), increasing, ms.
        method: "euler", "heun", "rk4": `substeps` steps between output times. "dopri5", "tsit5": adaptive steps for each
            sample. "torchdiffeq:<name>": the method of that name in torchdiffeq, with BPTT (default) or Backsolve.
        rtol, atol: tolerances of adaptive steps, default 1e-6 and 1e-8.
        max_steps: most attempted adaptive steps of any sample.
        adjoint: how gradients are computed; default DiscreteAdjoint().
        y0: initial state (B, D); default system.initial_state(B), with B = 1 unless inputs say otherwise.
        substeps: fixed steps between output times.

    Returns:
        SmoothSolution with ts, y, readout and stats. Gradients reach the system's parameters, `inputs` and `y0`, as far as they
        require one.

    Raises:
        ConfigurationError: arguments that cannot be right; says which.
        IntegrationError: the solution diverged, or adaptive steps could not reach the end; names the sample and time.
        EventError: an event that is not a clear crossing, or a jump that does not leave its guard; names sample, guard, time.
    """
    if not isinstance(system, HybridSystem):
        raise ConfigurationError(f"a system of type {type(system).__name__}", "a HybridSystem", "subclassing it")
    by_torchdiffeq = isinstance(method, str) and method.startswith(PREFIX)
    if method not in TABLEAUS and not by_torchdiffeq:
        raise ConfigurationError(f"method={method!r}", f'one of {list(TABLEAUS)} or "torchdiffeq:<name>"', 'method="rk4"')
    adjoint = _adjoint(adjoint, by_torchdiffeq)
    tableau = RK4 if by_torchdiffeq else TABLEAUS[method]
    adaptive = by_torchdiffeq or tableau.b_error is not None
    u = _check_inputs(inputs)
    times, lengths = _times(dt, ts, u)
    batch = 1 if u is None else u.shape[1]
    y0 = system.initial_state(batch) if y0 is None else y0
    _check_state(y0, u, system)
    tolerances = _tolerances(method, adaptive, rtol, atol, y0.dtype)
    _check_count("substeps", substeps)
    _check_count("max_steps", max_steps)
    if adaptive and substeps != 1:
        raise ConfigurationError(
            f"substeps={substeps} with method={method!r}", "substeps with fixed steps only", "a tighter rtol"
        )
    guards = _check_events(system, times, y0, adjoint, adaptive and not by_torchdiffeq)
    program = SmoothProgram(
        system,
        tableau,
        times.to(y0.device),
        inputs if callable(inputs) else None,
        None if adaptive else (lengths / substeps).to(y0.device),
        substeps,
        *tolerances,
        max_steps,
        guards,
    )
    _check_field(program, y0, u, tape=isinstance(adjoint, BPTT) or by_torchdiffeq)
    if by_torchdiffeq:
        leaves = tuple(x for x in registered(program) if x.requires_grad)
        name = method.removeprefix(PREFIX)
        y = solve_by_torchdiffeq(program, y0, u, name, leaves, backsolve=isinstance(adjoint, Backsolve))
        check_finite(y.detach(), program.ts)
        stats, events = None, (y0.new_empty(len(y0), 0), torch.empty(len(y0), 0, dtype=torch.long, device=y0.device))
    else:
        y, times_found, index, stats = _solve(program, y0, u, adjoint)
        events = times_found, index
    readout = y if type(system).readout is HybridSystem.readout else _readout(system, y)
    shown = program.ts.to(y0.dtype) if ts is None else ts
    return SmoothSolution(shown, y, readout, *events, stats)


def _solve(
    program: SmoothProgram, y0: Tensor, u: Tensor | None, adjoint: Adjoint
) -> tuple[Tensor, Tensor, Tensor, SmoothStats]:
    if isinstance(adjoint, BPTT):
        return _unroll(program, y0, u, adjoint.steps)
    if isinstance(adjoint, DiscreteAdjoint):
        sweep = hybrid_sweep if program.guards else discrete_sweep
        return attach(program, y0, u, sweep, Keep(adjoint.checkpoints, adjoint.memory_mb))
    if isinstance(adjoint, ForwardSensitivity):
        leaves = [x for x in registered(program) if x.requires_grad]
        adjoint.check(leaves, y0, u if u is not None and u.requires_grad else None)
    if isinstance(adjoint, ContinuousAdjoint):
        adjoint.check(program)
    return attach(program, y0, u, adjoint.sweep, Keep(last=isinstance(adjoint, Backsolve)))


def _unroll(
    program: SmoothProgram, y0: Tensor, u: Tensor | None, known: Steps | None
) -> tuple[Tensor, Tensor, Tensor, SmoothStats]:
    """The steps on torch's tape. Adaptive ones are found first, so that their ends are constants, events excepted."""
    if known is not None:
        if known.times.shape[1] != len(y0) or len(known.rows) != len(program.ts):
            raise ConfigurationError(
                f"BPTT(steps) of {known.times.shape[1]} samples and {len(known.rows)} output times",
                f"the steps of a solution with {len(y0)} samples and {len(program.ts)} output times",
                "adjoint=BPTT()",
            )
        steps, rejected, slowest = known, torch.zeros_like(known.accepted), None
    elif program.lengths is not None:
        steps = program.fixed_steps(len(y0))
        rejected, slowest = torch.zeros_like(steps.accepted), None
    else:
        run = run_forward(program, y0, u)
        steps, rejected, slowest = run.steps, run.rejected, run.slowest
    times, index = events_of(steps, y0)
    if steps.event is None:
        y = unroll(program, steps, y0, u)
    else:
        y, ends = unroll_events(program, steps, y0, u, anew=known is not None)
        times = torch.where(index >= 0, ends.gather(0, event_rows(steps.event)[0]).T, float("inf"))
    check_finite(y.detach(), program.ts)
    return y, times, index, SmoothStats(steps.accepted, rejected, 0, 0, slowest, steps)


def _readout(system: HybridSystem, y: Tensor) -> Tensor:
    """The readout of states (T+1, B, D), called as promised with rows of D entries."""
    rows = system.readout(y.flatten(0, 1))
    if not isinstance(rows, Tensor) or rows.dim() < 2 or len(rows) != y.shape[0] * y.shape[1]:
        seen = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
        raise ConfigurationError(
            f"readout returned {seen} for {y.shape[0] * y.shape[1]} rows",
            "a tensor (rows, C_out)",
            "keeping the first dimension",
        )
    return rows.unflatten(0, y.shape[:2])


def _adjoint(adjoint: Adjoint | None, by_torchdiffeq: bool) -> Adjoint:
    default = BPTT() if by_torchdiffeq else DiscreteAdjoint()
    adjoint = default if adjoint is None else adjoint
    if not isinstance(adjoint, (DiscreteAdjoint, ContinuousAdjoint, ForwardSensitivity, Backsolve, BPTT)):
        raise ConfigurationError(f"adjoint={adjoint!r}", "an adjoint instance", "adjoint=DiscreteAdjoint()")
    if by_torchdiffeq and not isinstance(adjoint, (BPTT, Backsolve)):
        raise ConfigurationError(
            f"adjoint={adjoint!r} with a method of torchdiffeq", "BPTT() or Backsolve(), which it has", "adjoint=None"
        )
    return adjoint


def _check_inputs(inputs: Inputs) -> Tensor | None:
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
    if not inputs.is_floating_point():
        raise ConfigurationError(f"inputs of {inputs.dtype}", "a floating-point dtype", "inputs.double()")
    wrong = ~inputs.detach().isfinite()
    if bool(wrong.any()):
        n, b, c = (int(k) for k in wrong.nonzero()[0])
        raise ConfigurationError(
            f"inputs[{n}, {b}, {c}] = {inputs[n, b, c]:g}", "finite inputs", "interpolating or dropping the gaps"
        )
    return inputs


def _times(dt: float | None, ts: Tensor | None, u: Tensor | None) -> tuple[Tensor, Tensor]:
    """Output times (T+1,) and their distances (T,), float64."""
    if (dt is None) == (ts is None):
        raise ConfigurationError(f"dt={dt!r} and ts={'given' if ts is not None else None}", "either dt or ts", "one of them")
    if ts is None:
        if isinstance(dt, bool) or not isinstance(dt, (int, float)) or not 0.0 < dt < float("inf"):
            raise ConfigurationError(f"dt={dt!r}", "a positive step in ms", "dt=0.5")
        if u is None:
            raise ConfigurationError(
                "dt without inputs (T, B, C), which would say how many steps",
                "output times",
                "ts=torch.arange(n + 1) * dt",
            )
        return torch.arange(len(u) + 1, dtype=torch.float64) * dt, torch.full((len(u),), float(dt), dtype=torch.float64)
    if not isinstance(ts, Tensor) or not ts.is_floating_point() or ts.dim() != 1 or len(ts) < 2:
        seen = f"{tuple(ts.shape)}, {ts.dtype}" if isinstance(ts, Tensor) else type(ts).__name__
        raise ConfigurationError(f"ts is {seen}", "a floating-point tensor of at least two times", "torch.linspace(...)")
    if ts.requires_grad:
        raise ConfigurationError("ts that requires a gradient", "output times as constants", "ts.detach()")
    if not bool(ts.isfinite().all()):
        n = int((~ts.isfinite()).nonzero()[0])
        raise ConfigurationError(f"ts[{n}] = {ts[n]:g}", "finite times in ms", "torch.linspace(...)")
    spans = ts.double().diff()
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
    return ts.double(), spans


def _check_state(y0: Tensor, u: Tensor | None, system: HybridSystem) -> None:
    if not isinstance(y0, Tensor) or y0.dim() != 2 or 0 in y0.shape or not y0.is_floating_point():
        seen = f"{tuple(y0.shape)}, {y0.dtype}" if isinstance(y0, Tensor) else type(y0).__name__
        raise ConfigurationError(f"y0 is {seen}", "a floating-point tensor (B, D)", "y0.unsqueeze(0) for a single sample")
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


def _tolerances(method: str, adaptive: bool, rtol: float | None, atol: float | None, dtype: torch.dtype) -> tuple[float, float]:
    if not adaptive:
        for name, value in (("rtol", rtol), ("atol", atol)):
            if value is not None:
                raise ConfigurationError(
                    f"{name}={value!r} with method={method!r}, whose steps are fixed",
                    "tolerances with adaptive steps only",
                    'method="dopri5"',
                )
        return 0.0, 0.0
    chosen = (RTOL if rtol is None else rtol, ATOL if atol is None else atol)
    for name, value in zip(("rtol", "atol"), chosen, strict=True):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < float("inf"):
            raise ConfigurationError(f"{name}={value!r}", "a positive tolerance", f"{name}=1e-6")
    least = 4.0 * torch.finfo(dtype).eps
    if chosen[0] < least:
        raise ConfigurationError(
            f"rtol={chosen[0]:g} in {dtype}", f"at least {least:.2g}, four roundings", "float64, or rtol=1e-5"
        )
    return float(chosen[0]), float(chosen[1])


def _check_events(system: HybridSystem, times: Tensor, y0: Tensor, adjoint: Adjoint, adaptive: bool) -> int:
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


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name}={value!r}", "a whole number ≥ 1", f"{name}=1")


def _check_field(program: SmoothProgram, y0: Tensor, u: Tensor | None, *, tape: bool) -> None:
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
