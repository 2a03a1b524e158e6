"""Solve a system that a user wrote, smooth or with events: every check of the arguments, and the choice of what runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from adjsnn.adjoints import BPTT, DiscreteAdjoint
from adjsnn.checks import Count, Number, Times, count
from adjsnn.errors import ConfigurationError
from adjsnn.hybrid.adjoint import HybridChoice, hybrid_adjoint, torchdiffeq_adjoint
from adjsnn.hybrid.arguments import Inputs, check_inputs, check_state, output_times, tolerances_of
from adjsnn.hybrid.engine import check_kernels, refuse_fused, refuse_plain
from adjsnn.hybrid.examine import modules_of
from adjsnn.hybrid.held import held_by
from adjsnn.hybrid.problem import HybridProblem
from adjsnn.hybrid.solution import HybridSolution
from adjsnn.hybrid.steps import HybridProgram
from adjsnn.hybrid.system import HybridSystem
from adjsnn.hybrid.torchdiffeq import PREFIX
from adjsnn.numerics.tableaus import RK4, TABLEAUS
from adjsnn.reparametrized import stale

Kernels = Literal["auto", "plain", "fused", "cuda"]


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
    adjoint: HybridChoice | None = None,
    y0: Tensor | None = None,
    substeps: Count = 1,
    kernels: Kernels = "auto",
) -> HybridSolution:
    """Integrate ẏ = f(t, y, u); a loss of the solution, `.backward()`, runs the chosen adjoint.

    Args:
        system: f, and for adaptive steps guard and jump, whose events end steps and are located to rounding.
        inputs: u, (T, B, C), held between output times; or u(t), which takes (B, 1) to (B, C); or None. Parameters of a u(t)
            that is an nn.Module get gradients too.
        dt: distance of the output times, ms, starting at 0, for inputs (T, B, C). Either this or ts.
        ts: output times, (T+1,), increasing, ms; a tensor, an array or a sequence.
        method: "euler", "heun", "rk4": `substeps` steps between output times. "dopri5", "tsit5": adaptive steps for each
            sample. "torchdiffeq:<name>": the method of that name in torchdiffeq, with BPTT (default) or Backsolve; its dopri8
            is as exact as asked for at its own steps alone, not at the times ts between them.
        rtol: relative tolerance of adaptive steps, default 1e-6.
        atol: absolute tolerance of adaptive steps, default 1e-8.
        max_steps: most attempted adaptive steps of any sample.
        adjoint: how gradients are computed: DiscreteAdjoint(), the default, another adjoint of this library, or anything with
            the method of `adjsnn.hybrid.adjoint.HybridAdjoint`.
        y0: initial state (B, D); default system.initial_state(B), with B = 1 unless inputs say otherwise.
        substeps: fixed steps between output times.
        kernels: "auto", compiled loops where the system brings some that cover the solve, as `adjsnn.Equations` does with
            DiscreteAdjoint; "plain", torch's operations; "fused", compiled loops or an error, and "cuda", those for a GPU.
            `stats` says which ran.

    Returns:
        HybridSolution with ts, y, readout and stats. Gradients reach the system's parameters, `inputs` and `y0`, as far as they
        require one.

    Raises:
        ConfigurationError: arguments that cannot be right; says which.
        IntegrationError: the solution diverged, or adaptive steps could not reach the end; names the sample and time.
        EventError: an event that is not a clear crossing, or a jump that does not leave its guard; names sample, guard, time.
    """
    _check_system(system)
    by_torchdiffeq = isinstance(method, str) and method.startswith(PREFIX)
    if method not in TABLEAUS and not by_torchdiffeq:
        raise ConfigurationError(f"method={method!r}", f'one of {list(TABLEAUS)} or "torchdiffeq:<name>"', 'method="rk4"')
    check_kernels(kernels)
    if by_torchdiffeq or not (adjoint is None or isinstance(adjoint, DiscreteAdjoint)):
        refuse_fused(kernels, f"of adjoint={adjoint!r} with method={method!r} there are none")
        if by_torchdiffeq or not (isinstance(adjoint, BPTT) and getattr(adjoint.steps, "packets", None) is not None):
            refuse_plain(system, f"adjoint={type(adjoint).__name__} with method={method!r} has none")
    run = _run_of(adjoint, method.removeprefix(PREFIX) if by_torchdiffeq else None)
    with _outside_inference_mode(system, inputs, y0) as (signal, start):
        u = check_inputs(signal)
        times, lengths = output_times(dt, ts, u)
        if start is None:
            start = system.initial_state(1 if u is None else u.shape[1])
        check_state(start, u, system)
        tableau = RK4 if by_torchdiffeq else TABLEAUS[method]
        adaptive = by_torchdiffeq or tableau.b_error is not None
        tolerances = tolerances_of(method, adaptive, rtol, atol, start.dtype)
        substeps, max_steps = count("substeps", substeps), count("max_steps", max_steps)
        if adaptive and substeps != 1:
            raise ConfigurationError(
                f"substeps={substeps} with method={method!r}", "substeps with fixed steps only", "a tighter rtol"
            )
        program = HybridProgram(
            system=system,
            tableau=tableau,
            ts=times.to(start.device, copy=True),
            signal=signal if callable(signal) else None,
            lengths=None if adaptive else (lengths / substeps).to(start.device),
            substeps=substeps,
            rtol=tolerances[0],
            atol=tolerances[1],
            max_steps=max_steps,
        )
        shown = times.to(ts.dtype if isinstance(ts, Tensor) and ts.is_floating_point() else start.dtype, copy=True)
        return run(HybridProblem(program, start, u, adaptive and not by_torchdiffeq, shown, kernels))


def _run_of(adjoint: HybridChoice | None, name: str | None) -> Callable[[HybridProblem], HybridSolution]:
    """What solves a problem: an adjoint, by torchdiffeq's method of that name where there is a name."""
    if name is None:
        return hybrid_adjoint(DiscreteAdjoint() if adjoint is None else adjoint).run_hybrid
    chosen = torchdiffeq_adjoint(BPTT() if adjoint is None else adjoint)
    return partial(chosen.run_torchdiffeq, method=name)


def _check_system(system: HybridSystem) -> None:
    if not isinstance(system, HybridSystem):
        raise ConfigurationError(f"a system of type {type(system).__name__}", "a HybridSystem", "subclassing it")
    if (name := stale(system)) is not None:
        raise ConfigurationError(
            f"{name}, which torch.nn.utils computes anew when its module is called, as a system is not",
            "a weight that is computed when it is read",
            "torch.nn.utils.parametrize and torch.nn.utils.parametrizations, or a submodule that vector_field calls",
        )


@contextmanager
def _outside_inference_mode(system: HybridSystem, inputs: Inputs, y0: Tensor | None) -> Iterator[tuple[Inputs, Tensor | None]]:
    """Leave inference mode, in which not even a guard can be differentiated, with copies of what was made in it."""
    if not torch.is_inference_mode_enabled() and not _of_inference(system, inputs, y0):
        yield inputs, y0
        return

    def copied(x: Tensor) -> Tensor:
        return x.clone() if x.is_inference() else x

    recording = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.set_grad_enabled(recording):
        held = held_by(modules_of(system, inputs))
        form = held.form.with_any({n for n, x in enumerate(held.tensors) if x.is_inference()})
        with form.filled([copied(x) for x in held.tensors]):
            yield copied(inputs) if isinstance(inputs, Tensor) else inputs, copied(y0) if isinstance(y0, Tensor) else y0


def _of_inference(system: HybridSystem, inputs: Inputs, y0: Tensor | None) -> bool:
    """Whether anything was made in inference mode, which autograd cannot save."""
    modules = modules_of(system, inputs)
    tensors = (inputs, y0, *(x for module in modules for x in (*module.parameters(), *module.buffers())))
    return any(isinstance(x, Tensor) and x.is_inference() for x in tensors)
