"""Backsolve: state and costate together backward from the end state. A foil for the adjoints that keep the states."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adjsnn.checks import Number, flag, positive
from adjsnn.errors import IntegrationError
from adjsnn.hybrid.arrays import stage_time
from adjsnn.hybrid.autograd import attach, leaves_of
from adjsnn.hybrid.keep import Keep
from adjsnn.hybrid.problem import HybridProblem
from adjsnn.hybrid.run import Gradients, Stored
from adjsnn.hybrid.solution import HybridSolution
from adjsnn.hybrid.steps import check_finite, combine, reversed_steps, step_times
from adjsnn.hybrid.torchdiffeq import solve_by_torchdiffeq
from adjsnn.hybrid.vjp import add_held, add_leaves, at_row, pull_field
from adjsnn.numerics.first_order import FirstOrder, first_order, laid_out


class BacksolveWarning(UserWarning):
    """The state reconstructed backward is not the one the solve started from, so the gradient is not to be trusted."""


@dataclass(frozen=True)
class Backsolve:
    """Gradient with only the end state kept, by integrating the state itself backward beside the costate.

        ẏ = f(t, y),   λ̇ = -f_yᵀ λ,   from t_end to 0, on the forward steps reversed

    A leak of time constant τ grows like e^{T/τ} backward, so beyond a few time constants the state, and the gradient with it,
    is wrong without any sign of it. The one sign there is, the state it arrives at, is compared with the initial state.

    Args:
        tolerance: largest |ŷ(0) - y(0)| allowed, relative to the larger of |y| at both ends, per sample.
        strict: raise instead of warning.

    Raises:
        ConfigurationError: a tolerance that is not positive.

    Warns:
        BacksolveWarning: on backward(), the reconstructed initial state is off by more than `tolerance`; with `strict`, an
            IntegrationError.
    """

    tolerance: Number = 1e-3
    strict: bool | np.bool_ = False

    def __post_init__(self) -> None:
        tolerance = positive("tolerance", self.tolerance, "a positive relative tolerance", "tolerance=1e-3")
        object.__setattr__(self, "tolerance", tolerance)
        object.__setattr__(self, "strict", flag("strict", self.strict))

    def run_hybrid(self, problem: HybridProblem) -> HybridSolution:
        problem.refuse_events(self)
        return attach(problem, self.sweep, Keep(last=True))

    def run_torchdiffeq(self, problem: HybridProblem, method: str) -> HybridSolution:
        """By torchdiffeq's odeint_adjoint."""
        program, read = problem.examined
        y = _Nested.apply(program, read.form, method, problem.u, problem.y0, *read.tensors)
        check_finite(y.detach(), program.ts)
        return problem.solution(y)

    def sweep(self, stored: Stored, cotangents: Tensor) -> Gradients:
        """Gradients from the cotangents of the output states, (T+1, B, D). The last state is the only one stored."""
        with torch.no_grad():
            return self._integrate(stored, cotangents)

    def _integrate(self, stored: Stored, cotangents: Tensor) -> Gradients:
        program, tableau = stored.program, stored.program.tableau
        intervals = len(program.ts) - 1
        output = stored.steps.output
        steps = reversed_steps(stored.steps, torch.where(output >= 0, intervals - output, -1))
        backward = cotangents.flip(0)
        sums = [torch.zeros_like(x) for x in stored.leaves]
        u_bar = torch.zeros_like(stored.u) if stored.wants_u and stored.u is not None else None
        samples = torch.arange(cotangents.shape[1], device=cotangents.device)
        y, costate = stored.kept[-1], at_row(steps, backward, 0)
        for k in range(len(steps)):
            times = step_times(steps, k, y.dtype)
            h, interval = times[2], intervals - 1 - steps.interval[k]
            flows: list[Tensor] = []
            rates: list[Tensor] = []
            for i in range(tableau.stages - tableau.first_same_as_last):
                state = (y if i == 0 else y - h * combine(tableau.a[i], flows)).detach().requires_grad_()
                stage = costate if i == 0 else costate + h * combine(tableau.a[i], rates)
                u = None if stored.u is None else stored.u[interval, samples].detach().requires_grad_(stored.wants_u)
                with torch.enable_grad():
                    out = program.field(-stage_time(tableau, i, times), state, u)
                flows.append(out.detach())
                rates.append(pull_field(out, state, None, (), stage, retain=True)[0])
                _, of_u, of_leaves = pull_field(out, state, u, stored.leaves, (h * tableau.b[i]) * stage)
                add_leaves(sums, of_leaves)
                if u_bar is not None and of_u is not None:
                    add_held(u_bar, interval, of_u)
            y = y - h * combine(tableau.b, flows)
            costate = costate + h * combine(tableau.b, rates) + at_row(steps, backward, k + 1)
        self._check_start(y, stored.y0, stored.kept[-1])
        return Gradients(costate, u_bar, tuple(sums))

    def _check_start(self, reached: Tensor, known: Tensor, last: Tensor) -> None:
        scale = torch.maximum(known.abs().amax(1), last.abs().amax(1))
        off = (reached - known).abs().amax(1)
        fine = off <= float(self.tolerance) * scale  # False where it is not a number
        if bool(fine.all()):
            return
        sample = int((~fine).nonzero()[0])
        seen = (
            f"sample {sample}: integrating backward ended {float(off[sample]):.3g} away from the initial state, "
            f"of size {float(scale[sample]):.3g}"
        )
        expected = f"a relative difference of at most {self.tolerance:g}: the gradient is not to be trusted"
        remedy = "DiscreteAdjoint() or ContinuousAdjoint(), which keep the states"
        if self.strict:
            raise IntegrationError(seen, expected, remedy)
        warnings.warn(f"{seen}; expected {expected}. Try: {remedy}.", BacksolveWarning, stacklevel=2)


class _Nested(FirstOrder):
    """A graph of its own by tensors of its own, so that its backward pass can be given what its forward pass saw."""

    @staticmethod
    def forward(ctx, program, form, method, u, y0, *tensors):
        needs_u, needs_y0, *needs = ctx.needs_input_grad[3:]
        u = None if u is None else u.detach().requires_grad_(needs_u)
        y0, tensors = y0.detach().requires_grad_(needs_y0), leaves_of(tensors, needs)
        fresh = (u, y0, *tensors)
        ctx.save_for_backward(*(None if x is None else x.detach() for x in fresh))
        with torch.enable_grad(), form.filled(tensors):
            leaves = tuple(x for x in tensors if x is not None and x.requires_grad)
            y = solve_by_torchdiffeq(program, y0, u, method, leaves)
        ctx.form, ctx.fresh, ctx.y = form, fresh, y
        return y.detach()

    @staticmethod
    def backward(ctx, *grad_outputs):
        return _backward(ctx, *grad_outputs)


@first_order
def _backward(ctx, cotangents):
    saved = ctx.saved_tensors  # read, so that torch says which was changed in place
    wanted = [x for x in ctx.fresh if x is not None and x.requires_grad]
    with ctx.form.filled(ctx.fresh[2:]):
        of_wanted = torch.autograd.grad(ctx.y, wanted, cotangents, retain_graph=True, materialize_grads=True, allow_unused=True)
    gradients = iter(of_wanted)
    arguments = tuple(next(gradients) if x is not None and x.requires_grad else None for x in ctx.fresh)
    return None, None, None, *laid_out(arguments, saved)
