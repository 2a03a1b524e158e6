"""The guards of a hybrid system at a state: their levels, slopes and roundings."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adjsnn.hybrid.refusals import no_number
from adjsnn.hybrid.system import HybridSystem


def levels_of(system: HybridSystem, t: Tensor, y: Tensor) -> Float[Tensor, "R G"]:
    """φ of every guard, of a system that has some."""
    levels = system.guard(t, y)
    assert levels is not None
    return levels


def level(system: HybridSystem, t: Tensor, y: Tensor, guard: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """φ of each sample's guard; of guard 0 where that is -1."""
    return levels_of(system, t, y).gather(1, guard.clamp(min=0)[:, None]).squeeze(1)


def guard_slopes(
    system: HybridSystem, t: Tensor, y: Tensor, guard: Int[Tensor, " B"]
) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B 1"]]:
    """φ_y and φ_t of each sample's guard."""
    state, time = y.detach().requires_grad_(), t.detach().requires_grad_()
    with torch.enable_grad():
        levels = levels_of(system, time, state)
    if not levels.requires_grad:
        return torch.zeros_like(y), torch.zeros_like(t)
    count = levels.shape[1]
    own = torch.ones_like(levels) if count == 1 else torch.nn.functional.one_hot(guard.clamp(min=0), count).to(levels)
    slopes = torch.autograd.grad(levels, (state, time), own, allow_unused=True)
    return (
        torch.zeros_like(y) if slopes[0] is None else slopes[0],
        torch.zeros_like(t) if slopes[1] is None else slopes[1],
    )


def rounding(of_y: Float[Tensor, "B D"], y: Float[Tensor, "B D"], speed: Tensor, t: Tensor) -> Float[Tensor, " B"]:
    """What rounding of the state and of the time leaves of a guard, with some operations' room."""
    return 64.0 * torch.finfo(y.dtype).eps * ((of_y * y).abs().sum(1) + speed.abs() * t.squeeze(1).abs())


def leaves_zero(
    system: HybridSystem, t: Float[Tensor, "B 1"], y: Float[Tensor, "B D"], flow: Float[Tensor, "B D"], levels: Tensor
) -> Bool[Tensor, "B G"]:
    """Where a guard is on zero, to rounding, and falls along the flow: like that of a ball thrown up from the floor."""
    leaving = torch.zeros_like(levels, dtype=torch.bool)
    for guard in (levels >= 0.0).any(0).nonzero().flatten():
        of_y, of_t = guard_slopes(system, t, y, guard.expand(len(y)))
        speed = (of_y * flow).sum(1) + of_t.squeeze(1)
        leaving[:, guard] = (levels[:, guard].abs() <= rounding(of_y, y, speed, t)) & (speed < 0.0)
    return leaving


def check_numbers(fires: Any, t: Tensor, before: Any, after: Any) -> None:
    """Raise EventError where a guard (B, G) is no number, or infinitely far above zero, before or after an event; of arrays."""
    top = float("inf")
    if not bool((fires[:, None] & ~((before < top) & (after < top))).any()):
        return
    for levels, when in ((before, "at"), (after, "after the jump at")):
        wrong = fires[:, None] & ~(levels < top)
        if bool(wrong.any()):
            sample, guard = first_of(wrong)
            raise no_number(guard, sample, float(t[sample]), float(levels[sample, guard]), when)


def first_of(x: Any) -> list[int]:
    """Where the first True of an array is."""
    return torch.as_tensor(x).nonzero()[0].tolist()
