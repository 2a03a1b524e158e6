"""Forward sensitivities (real-time recurrent learning) of smooth systems: ∂y/∂(θ, y0, u) carried along with the state."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp, vmap

from adjsnn.checks import Count, count
from adjsnn.errors import ConfigurationError
from adjsnn.hybrid.autograd import attach
from adjsnn.hybrid.problem import HybridProblem
from adjsnn.hybrid.run import Gradients, Stored
from adjsnn.hybrid.solution import HybridSolution
from adjsnn.hybrid.steps import derivatives, moved, step_times
from adjsnn.hybrid.taped import Taped
from adjsnn.hybrid.vjp import at_row


@dataclass(frozen=True)
class ForwardSensitivity:
    """Exact gradient of the computed cost, to rounding, by the derivative of every step in every direction, forward in time.

        S⁺ = ∂Φ/∂y S + ∂Φ/∂(θ, u),    dC/dp = Σ_n S_nᵀ dC/dy_n,    Φ the Runge–Kutta step that was taken

    One direction for every entry of θ, of a sample's y0 and, where the inputs need a gradient, of a sample's inputs: the cost
    is that many solves. A judge for the other adjoints, and for systems of a few parameters. Samples must not depend on each
    other, and the field must be one that torch.func can differentiate.

    Memory: the states of all steps, and B·D numbers for each direction.

    Args:
        most: largest number of directions that is not refused.

    Raises:
        ConfigurationError: on backward(), more directions than `most`.
    """

    most: Count = 2000

    def __post_init__(self) -> None:
        object.__setattr__(self, "most", count("most", self.most, 1, "a number of directions ≥ 1", "most=2000"))

    def run_hybrid(self, problem: HybridProblem) -> HybridSolution:
        problem.refuse_events(self)
        program, read = problem.examined
        if isinstance(program.system, Taped) and torch.is_grad_enabled():
            raise ConfigurationError(
                f"{type(problem.program.system).__name__}, which calls torch.autograd.grad, with adjoint={self!r}",
                "a system that torch.func can transform",
                "torch.func.grad in its place, or adjoint=DiscreteAdjoint()",
            )
        u = problem.u
        self._check(read.wanted, problem.y0, u if u is not None and u.requires_grad else None)
        return attach(problem, self.sweep)

    def _check(self, leaves: Sequence[Tensor], y0: Tensor, u: Tensor | None) -> None:
        """Raise ConfigurationError where there would be more than `most` directions; u is None where it needs no gradient."""
        directions = sum(x.numel() for x in leaves) + y0.shape[1] + (0 if u is None else u.shape[0] * u.shape[2])
        if directions > self.most:
            raise ConfigurationError(
                f"{directions} directions of parameters, initial state and inputs",
                f"at most {self.most} for forward sensitivities, whose cost is that many solves",
                "DiscreteAdjoint(), whose cost does not depend on their number, or ForwardSensitivity(most=...)",
            )

    def sweep(self, stored: Stored, cotangents: Tensor) -> Gradients:
        """Gradients from the cotangents of the output states, (T+1, B, D)."""
        self._check(stored.leaves, stored.y0, stored.u if stored.wants_u else None)
        with torch.no_grad(), warnings.catch_warnings():
            # Said by torch of itself, when forward differentiation is first used.
            warnings.filterwarnings("ignore", ".*torch.jit.script.* is deprecated", DeprecationWarning)
            return _carry(stored, cotangents)


def _carry(stored: Stored, cotangents: Tensor) -> Gradients:
    program, steps, u = stored.program, stored.steps, stored.u
    known = {id(x): n for n, x in enumerate(stored.tensors)}
    numbers = [known[id(x)] for x in stored.leaves]
    batch, width = stored.y0.shape
    sizes = [x.numel() for x in stored.leaves]
    n_theta, n_u = sum(sizes), u.shape[0] * u.shape[2] if stored.wants_u and u is not None else 0
    count = n_theta + width + n_u
    basis = torch.eye(count, dtype=stored.y0.dtype, device=stored.y0.device)[:, :n_theta]
    theta_dots = tuple(x.reshape(count, *leaf.shape) for x, leaf in zip(basis.split(sizes, 1), stored.leaves, strict=True))
    samples = torch.arange(batch, device=stored.y0.device)
    directions = stored.y0.new_zeros(count, batch, width)
    directions[n_theta + torch.arange(width), :, torch.arange(width)] = 1.0
    of_directions = torch.einsum("pbd,bd->pb", directions, at_row(steps, cotangents, 0))
    for k in range(len(steps)):
        times = step_times(steps, k, stored.y0.dtype)
        held = program.held(u, steps, k)
        arguments = [stored.kept[k], *stored.leaves]
        dots = [directions, *theta_dots]
        if held is not None and n_u:
            channels = torch.arange(held.shape[1], device=held.device)
            u_dot = held.new_zeros(count, *held.shape)
            first = n_theta + width + steps.interval[k] * held.shape[1]
            u_dot[first[:, None] + channels, samples[:, None], channels] = 1.0
            arguments.append(held)
            dots.append(u_dot)

        def after(y, *rest, times=times, held=held):
            values = list(stored.tensors)
            for n, value in zip(numbers, rest, strict=False):
                values[n] = value
            u_now = rest[-1] if len(rest) > len(numbers) else held
            tableau = program.tableau
            with stored.form.filled(values):
                ks = derivatives(tableau, program.field, times, y, u_now, tableau.stages - tableau.first_same_as_last)
            return moved(tableau, tableau.b, y, times[2], ks)

        def push(*dots, arguments=arguments, after=after):
            return jvp(after, tuple(arguments), dots)[1]

        try:
            directions = vmap(push)(*dots)
        except RuntimeError as error:
            raise ConfigurationError(
                f"a vector_field that torch.func cannot differentiate forward: {error}",
                "operations that it can, and derivatives inside by torch.func.grad",
                "adjoint=DiscreteAdjoint(), or other operations",
            ) from error
        of_directions += torch.einsum("pbd,bd->pb", directions, at_row(steps, cotangents, k + 1))
    of_theta = of_directions[:n_theta].sum(1).split(sizes)
    leaves = tuple(x.reshape(leaf.shape) for x, leaf in zip(of_theta, stored.leaves, strict=True))
    y_bar = of_directions[n_theta : n_theta + width].T.contiguous()
    u_bar = None
    if n_u and u is not None:
        u_bar = of_directions[n_theta + width :].reshape(u.shape[0], u.shape[2], batch).transpose(1, 2).contiguous()
    return Gradients(y_bar, u_bar, leaves)
