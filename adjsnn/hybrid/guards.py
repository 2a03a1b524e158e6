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


class Levels:
    """φ of every guard at t (B, 1) and y (B, D), and where it leads from there.

    Attributes:
        values: φ, (B, G).
    """

    def __init__(self, system: HybridSystem, t: Float[Tensor, "B 1"], y: Float[Tensor, "B D"]) -> None:
        self._y, self._t = y.detach().requires_grad_(), t.detach().requires_grad_()
        with torch.enable_grad():
            self._taped = levels_of(system, self._t, self._y)
        self.values = self._taped.detach()

    def speeds(self, guard: Int[Tensor, " B"], flow: Float[Tensor, "B D"]) -> tuple[Float[Tensor, " B"], Float[Tensor, "B D"]]:
        """dφ/dt of each sample's guard along the flow, and φ_y. To be asked for once."""
        of_y = of_t = None
        if self._taped.requires_grad:
            count = self.values.shape[1]
            own = torch.ones_like(self.values) if count == 1 else one_of(guard, count).to(self.values)
            of_y, of_t = torch.autograd.grad(self._taped, (self._y, self._t), own, allow_unused=True)
        of_y = torch.zeros_like(self._y) if of_y is None else of_y
        speed = (of_y * flow).sum(1)
        return speed if of_t is None else speed + of_t.squeeze(1), of_y


def one_of(guard: Int[Tensor, "*B"], count: int) -> Bool[Tensor, "*B G"]:
    """True at each sample's guard, of `count`; nowhere where that is -1."""
    return guard.unsqueeze(-1) == torch.arange(count, device=guard.device)


def rounding(of_y: Any, y: Any, speed: Any, t: Any, eps: float) -> Any:
    """What rounding of states (B, D) and times (B, 1) leaves of a guard, with some operations' room, (B,); of arrays."""
    return 64.0 * eps * (abs(of_y * y).sum(1) + abs(speed * t[:, 0]))


def leaves_zero(
    system: HybridSystem, t: Float[Tensor, "B 1"], y: Float[Tensor, "B D"], flow: Float[Tensor, "B D"], levels: Tensor
) -> Bool[Tensor, "B G"]:
    """Where a guard is on zero, to rounding, and falls along the flow: like that of a ball thrown up from the floor."""
    leaving, eps = torch.zeros_like(levels, dtype=torch.bool), torch.finfo(y.dtype).eps
    for guard in (levels >= 0.0).any(0).nonzero().flatten():
        speed, of_y = Levels(system, t, y).speeds(guard.expand(len(y)), flow)
        leaving[:, guard] = (levels[:, guard].abs() <= rounding(of_y, y, speed, t, eps)) & (speed < 0.0)
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
