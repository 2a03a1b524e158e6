"""Solve a system that a user wrote, smooth or with events, and what a solve returns."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from adjsnn.adjoints import BPTT, DiscreteAdjoint
from adjsnn.checks import Count, Number, Times, count
from adjsnn.errors import ConfigurationError
from adjsnn.hybrid.arguments import (
    Inputs,
    check_inputs,
    check_state,
    output_times,
    tolerances_of,
)
from adjsnn.hybrid.autograd import attach
from adjsnn.hybrid.backsolve import Backsolve, backsolve_by_torchdiffeq
from adjsnn.hybrid.continuous import ContinuousAdjoint
from adjsnn.hybrid.discrete import discrete_sweep
from adjsnn.hybrid.discrete_events import hybrid_sweep
from adjsnn.hybrid.events import event_rows, events_of, unroll_events
from adjsnn.hybrid.examine import Trial, examine, modules_of
from adjsnn.hybrid.forward import ForwardSensitivity
from adjsnn.hybrid.held import held_by
from adjsnn.hybrid.keep import Keep
from adjsnn.hybrid.run import HybridStats, Read, run_forward
from adjsnn.hybrid.solution import HybridSolution
from adjsnn.hybrid.steps import HybridProgram, Steps, check_finite, unroll
from adjsnn.hybrid.system import HybridSystem
from adjsnn.hybrid.taped import on_tape
from adjsnn.hybrid.torchdiffeq import PREFIX, solve_by_torchdiffeq
from adjsnn.numerics.tableaus import RK4, TABLEAUS
from adjsnn.reparametrized import stale

Adjoint = DiscreteAdjoint | ContinuousAdjoint | ForwardSensitivity | Backsolve | BPTT


def solve_hybrid(
    system: HybridSystem,
    inputs: Inputs,
    *,
    dt: Number | None = None,
    ts: Times | None = None,
    method: str = "rk4",
    rtol: Number | None = None,
    atol: Number | None = None,
    max_steps: Count = 10_000,
    adjoint: Adjoint | None = None,
    y0: Tensor | None = None,
    substeps: Count = 1,
) -> HybridSolution:
    """Integrate ẏ = f(t, y, u); a loss of the solution, `.backward()`, runs the chosen adjoint.

    Args:
        system: f, and for adaptive steps guard and jump, whose events end steps and are located to rounding.
        inputs: u, (T, B, C), held between output times; or u(t), which takes (B, 1) to (B, C); or None. Parameters of a u(t)
            that is an nn.Module get gradients too.
        dt: distance of the output times, ms, starting at 0, for inputs (T, B, C). Either this or ts.
        ts: output times, (T+1,), increasing, ms; a tensor, an array or a sequence.
        method: "euler", "heun", "rk4": `substeps` steps between output times. "dopri5", "tsit5": adaptive steps for each
            sample. "torchdiffeq:<name>": the method of that name in torchdiffeq, with BPTT (default) or Backsolve.
        rtol, atol: tolerances of adaptive steps, default 1e-6 and 1e-8.
        max_steps: most attempted adaptive steps of any sample.
        adjoint: how gradients are computed; default DiscreteAdjoint().
        y0: initial state (B, D); default system.initial_state(B), with B = 1 unless inputs say otherwise.
        substeps: fixed steps between output times.

    Returns:
        HybridSolution with ts, y, readout and stats. Gradients reach the system's parameters, `inputs` and `y0`, as far as they
        require one.

    Raises:
        ConfigurationError: arguments that cannot be right; says which.
        IntegrationError: the solution diverged, or adaptive steps could not reach the end; names the sample and time.
        EventError: an event that is not a clear crossing, or a jump that does not leave its guard; names sample, guard, time.
    """
    if not isinstance(system, HybridSystem):
        raise ConfigurationError(f"a system of type {type(system).__name__}", "a HybridSystem", "subclassing it")
    if (name := stale(system)) is not None:
        raise ConfigurationError(
            f"{name}, which torch.nn.utils computes anew when its module is called, as a system is not",
            "a weight that is computed when it is read",
            "torch.nn.utils.parametrize and torch.nn.utils.parametrizations, or a submodule that vector_field calls",
        )
    if torch.is_inference_mode_enabled() or _of_inference(system, inputs, y0):
        with _normal(system, inputs, y0) as (normal_inputs, normal_y0):
            return solve_hybrid(
                system,
                normal_inputs,
                dt=dt,
                ts=ts,
                method=method,
                rtol=rtol,
                atol=atol,
                max_steps=max_steps,
                adjoint=adjoint,
                y0=normal_y0,
                substeps=substeps,
            )
    by_torchdiffeq = isinstance(method, str) and method.startswith(PREFIX)
    if method not in TABLEAUS and not by_torchdiffeq:
        raise ConfigurationError(f"method={method!r}", f'one of {list(TABLEAUS)} or "torchdiffeq:<name>"', 'method="rk4"')
    adjoint = _adjoint(adjoint, by_torchdiffeq)
    tableau = RK4 if by_torchdiffeq else TABLEAUS[method]
    adaptive = by_torchdiffeq or tableau.b_error is not None
    u = check_inputs(inputs)
    times, lengths = output_times(dt, ts, u)
    batch = 1 if u is None else u.shape[1]
    y0 = system.initial_state(batch) if y0 is None else y0
    check_state(y0, u, system)
    tolerances = tolerances_of(method, adaptive, rtol, atol, y0.dtype)
    substeps, max_steps = count("substeps", substeps), count("max_steps", max_steps)
    if adaptive and substeps != 1:
        raise ConfigurationError(
            f"substeps={substeps} with method={method!r}", "substeps with fixed steps only", "a tighter rtol"
        )
    t = times[0].to(y0).expand(len(y0), 1)
    tape = isinstance(adjoint, BPTT) or (by_torchdiffeq and not isinstance(adjoint, Backsolve))
    signal = inputs if callable(inputs) else None
    trial = Trial(type(system).__name__, t, y0, None if u is None else u[0], adjoint, adaptive and not by_torchdiffeq, tape)
    examined = examine(system, signal, trial)
    program = HybridProgram(
        examined.system,
        tableau,
        times.to(y0.device, copy=True),
        examined.signal,
        None if adaptive else (lengths / substeps).to(y0.device),
        substeps,
        *tolerances,
        max_steps,
        examined.guards,
    )
    if by_torchdiffeq:
        name = method.removeprefix(PREFIX)
        if isinstance(adjoint, Backsolve):
            y = backsolve_by_torchdiffeq(program, examined.read, y0, u, name)
        else:
            y = solve_by_torchdiffeq(program, y0, u, name)
        check_finite(y.detach(), program.ts)
        stats, events = None, (y0.new_empty(len(y0), 0), torch.empty(len(y0), 0, dtype=torch.long, device=y0.device))
    else:
        y, times_found, index, stats = _solve(program, examined.read, y0, u, adjoint)
        events = times_found, index
    readout = y if type(system).readout is HybridSystem.readout else _readout(system, y)
    shown = times.to(ts.dtype if isinstance(ts, Tensor) and ts.is_floating_point() else y0.dtype, copy=True)
    return HybridSolution(shown, y, readout, *events, stats)


def _of_inference(system: HybridSystem, inputs: Inputs, y0: Tensor | None) -> bool:
    """Whether anything was made in inference mode, which autograd cannot save."""
    modules = modules_of(system, inputs)
    tensors = (inputs, y0, *(x for module in modules for x in (*module.parameters(), *module.buffers())))
    return any(isinstance(x, Tensor) and x.is_inference() for x in tensors)


@contextmanager
def _normal(system: HybridSystem, inputs: Inputs, y0: Tensor | None) -> Iterator[tuple[Inputs, Tensor | None]]:
    """Leave inference mode, in which not even a guard can be differentiated, with copies of what was made in it."""

    def copied(x: Tensor) -> Tensor:
        return x.clone() if x.is_inference() else x

    recording = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.set_grad_enabled(recording):
        held = held_by(modules_of(system, inputs))
        form = held.form.with_any({n for n, x in enumerate(held.tensors) if x.is_inference()})
        with form.filled([copied(x) for x in held.tensors]):
            yield copied(inputs) if isinstance(inputs, Tensor) else inputs, copied(y0) if isinstance(y0, Tensor) else y0


def _solve(
    program: HybridProgram, read: Read, y0: Tensor, u: Tensor | None, adjoint: Adjoint
) -> tuple[Tensor, Tensor, Tensor, HybridStats]:
    if isinstance(adjoint, BPTT):
        return _unroll(program, y0, u, adjoint.steps)
    if isinstance(adjoint, DiscreteAdjoint):
        sweep = hybrid_sweep if program.guards else discrete_sweep
        return attach(program, read, y0, u, sweep, Keep(adjoint.checkpoints, adjoint.memory_mb))
    if isinstance(adjoint, ForwardSensitivity):
        adjoint.check(read.wanted, y0, u if u is not None and u.requires_grad else None)
    if isinstance(adjoint, ContinuousAdjoint):
        adjoint.check(program)
    return attach(program, read, y0, u, adjoint.sweep, Keep(last=isinstance(adjoint, Backsolve)))


def _unroll(
    program: HybridProgram, y0: Tensor, u: Tensor | None, known: Steps | None
) -> tuple[Tensor, Tensor, Tensor, HybridStats]:
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
        # The ends of steps are constants, of which forward differentiation is told here; without a tape it goes on.
        steps = replace(run.steps, times=run.steps.times.detach(), lengths=run.steps.lengths.detach())
        rejected, slowest = run.rejected, run.slowest
    times, index = events_of(steps, y0)
    if steps.event is None:
        y = unroll(program, steps, y0, u)
    else:
        y, ends = unroll_events(program, steps, y0, u, anew=known is not None)
        times = torch.where(index >= 0, ends.gather(0, event_rows(steps.event)[0]).T, float("inf"))
    check_finite(y.detach(), program.ts)
    return y, times, index, HybridStats(steps.accepted.clone(), rejected, 0, 0, slowest, steps)


def _readout(system: HybridSystem, y: Tensor) -> Tensor:
    """The readout of states (T+1, B, D), called as promised with rows of D entries."""
    flat = y.flatten(0, 1)
    try:
        rows = system.readout(flat)
    except RuntimeError as error:
        try:
            rows = on_tape(system.readout, flat)
        except RuntimeError:
            raise error from None
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
