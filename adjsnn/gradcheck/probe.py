"""Float64 leaves of everything differentiable in a solve, and the loss as a function of them."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adjsnn.errors import ConfigurationError, EventError, IntegrationError
from adjsnn.gradcheck.report import relative
from adjsnn.solve import solve

CONSISTENT = 3e-7  # a difference quotient counts where a step ten times longer gave the same to this share of the largest
STEPS = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)  # relative perturbations, from long to short
Gradients = dict[str, Tensor]


class Probe:
    """A float64 copy of the system, the inputs and the initial state; the originals are not touched.

    Args:
        system: what is solved. inputs: as `solve` takes them. loss: a scalar function of the solution.
        solve_kwargs: of `solve`; adjoint and y0 among them are treated apart.
    """

    judged: Any = None  # the adjoint, if any, that perturbed solutions are run with

    def __init__(self, system: Any, inputs: Any, loss: Callable[[Any], Tensor], solve_kwargs: dict[str, Any]) -> None:
        # Copied together, so that a parameter of both stays one. A function that is no module cannot be copied, nor need be.
        both = (system, inputs if isinstance(inputs, nn.Module) else None)
        self.system, drive = copy.deepcopy(both)
        self.system.double()
        self.inputs: Any = inputs if drive is None else drive.double()
        if isinstance(inputs, Tensor):
            self.inputs = inputs.detach().double().clone().requires_grad_()
        self.loss = loss
        self.solve_kwargs = {k: v for k, v in solve_kwargs.items() if k not in ("adjoint", "y0")}
        self.leaves = {name: p for name, p in self.system.named_parameters() if p.requires_grad}
        if isinstance(self.inputs, Tensor):
            self.leaves |= {"u": self.inputs} if self.inputs.numel() else {}
        elif isinstance(self.inputs, nn.Module):
            known = {id(p) for p in self.leaves.values()}
            own = self.inputs.named_parameters()
            self.leaves |= {f"u.{name}": p for name, p in own if p.requires_grad and id(p) not in known}
        self.y0 = self._initial(solve_kwargs.get("y0"))

    def _initial(self, y0: Any) -> Any:
        """The initial state as leaves, which it adds to the others."""
        raise NotImplementedError

    def _branches(self, sol: Any) -> Tensor | None:
        """Which smooth piece of the program the solution is on; None where there is only one."""
        raise NotImplementedError

    def _spikes(self, sol: Any) -> int:
        raise NotImplementedError

    def _note(self, sol: Any) -> None:
        """Prepare perturbed solutions to be those of the same program."""

    def on_the_same_states(self, adjoint: Any) -> tuple[Gradients, Gradients]:
        """Gradients of the adjoint and of BPTT on bit-identical states."""
        raise NotImplementedError

    def by_forward_sensitivities(self) -> Gradients:
        """Gradients carried forward, a judge of HybridSystems."""
        raise NotImplementedError

    def by_the_other_engine(self) -> Gradients:
        """Gradients by another body of code, the judge of LIF networks."""
        raise NotImplementedError

    def solve(self, adjoint: Any = None, **changed: Any) -> tuple[Tensor, Any]:
        """The loss and the solution."""
        sol = solve(self.system, self.inputs, y0=self.y0, adjoint=adjoint, **(self.solve_kwargs | changed))
        value = self.loss(sol)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise ConfigurationError("a loss that is not a single number", "a scalar tensor", "loss.sum() or loss.mean()")
        return value, sol

    def gradients(self, adjoint: Any, **changed: Any) -> tuple[float, int, Gradients]:
        """The loss, the number of spikes, and the gradient of every leaf."""
        value, sol = self.solve(adjoint, **changed)
        if not value.isfinite():
            raise ConfigurationError(
                f"a loss of {float(value.detach())}", "a finite one", "a loss of spikes that every sample has: padding is inf"
            )
        self._note(sol)
        gradients = torch.autograd.grad(value, list(self.leaves.values()), allow_unused=True, materialize_grads=True)
        return float(value.detach()), self._spikes(sol), dict(zip(self.leaves, gradients, strict=True))

    def finite_difference(
        self, name: str, gradient: Tensor, entries: int, generator: torch.Generator, floor: float
    ) -> tuple[float | None, int, int]:
        """Relative difference over the probed entries, their number, and the number of skipped ones.

        A gradient that is zero throughout gives no hint where to look, so it is judged along a random direction too.
        """
        flat = gradient.flatten()
        size = max(floor, float(flat.abs().max()))
        slopes = {k: self._slope(name, unit(flat, k), size) for k in entries_to_probe(flat, entries, generator)}
        judged = {k: slope for k, slope in slopes.items() if slope is not None}
        skipped = len(slopes) - len(judged)
        if not judged:
            return None, 0, skipped
        expected = flat.new_tensor(list(judged.values()))
        error = relative(flat[list(judged)], expected, size)
        if not flat.any() and len(judged) < len(flat):
            signs = torch.randint(0, 2, (len(flat),), generator=generator).to(flat) * 2.0 - 1.0
            along = self._slope(name, signs, size)
            error = max(error, 0.0 if along is None else relative(flat[:1], flat.new_tensor([along]), size))
        return error, len(judged), skipped

    def _slope(self, name: str, direction: Tensor, size: float) -> float | None:
        def run() -> tuple[Tensor, Tensor | None]:
            value, sol = self.solve(self.judged)
            return value, self._branches(sol)

        leaf = self.leaves[name]
        largest = float((leaf.detach().flatten() * direction).abs().max())
        return slope_along(run, leaf, direction, size, scale=max(1.0, largest), consistent=CONSISTENT)


def slope_along(
    run: Callable[[], tuple[Tensor, Tensor | None]],
    leaf: Tensor,
    direction: Tensor,
    size: float,
    *,
    scale: float,
    steps: Sequence[float] = STEPS,
    consistent: float = CONSISTENT,
) -> float | None:
    """Fourth-order central difference along a direction, once two consecutive steps agree on it.

    They have to agree to `consistent` times `size` or times their own size. None where none do, or a perturbed value is on
    another smooth piece, or is none that can be run, however small the perturbation.

    Args:
        run: one number, and which smooth piece of the program it was computed on.
        leaf: what is perturbed in place, and put back.
        direction: as many entries as the leaf.
        size: of the largest gradient.
        scale: what steps are relative to.
        steps: from long to short.
        consistent: share of `size`.
    """
    previous = None
    with torch.no_grad():
        original, along = leaf.clone(), direction.view(leaf.shape)
        for h in (scale * step for step in steps):
            values, grids = [], []
            try:
                for shift in (-2, -1, 1, 2):
                    leaf.copy_(original + shift * h * along)
                    value, grid = run()
                    values.append(float(value))
                    grids.append(grid)
            except (ConfigurationError, IntegrationError, EventError):
                pass  # a delay below zero, input spikes out of order, an upstroke that runs away in a held step
            finally:
                leaf.copy_(original)
            if len(values) < 4 or not all(grid is None or torch.equal(grids[0], grid) for grid in grids[1:]):
                previous = None
                continue
            # Differences first: exactly 0 where the loss does not depend on the entry.
            slope = (values[0] - values[3] + 8 * (values[2] - values[1])) / (12 * h)
            # The quotient's own size counts too: a gradient that is wrongly 0 must not set the scale it is judged by.
            if previous is not None and abs(slope - previous) <= consistent * max(size, abs(slope)):
                return slope
            previous = slope
    return None


def entries_to_probe(flat: Tensor, entries: int, generator: torch.Generator) -> list[int]:
    """The entry of the largest gradient, and random others."""
    chosen = [int(flat.abs().argmax()), *torch.randperm(len(flat), generator=generator)[: entries - 1].tolist()]
    return list(dict.fromkeys(chosen))


def unit(like: Tensor, entry: int) -> Tensor:
    """The direction of one entry."""
    direction = torch.zeros_like(like)
    direction[entry] = 1.0
    return direction
