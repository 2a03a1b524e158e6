"""The projection of learnt parameters onto what a solve accepts, for use after a step of an optimiser.

Every bound is on one number, or on a threshold and the reset below it, so the nearest allowed point has a closed form. Numbers
that are inside stay what they are, to the bit, and projecting twice is projecting once.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adjsnn.errors import ConfigurationError


@torch.no_grad()
def clip(owner: nn.Module, name: str, *, low: float | None = None, high: float | None = None) -> None:
    """Move the learnt parameter of that name into low … high, entry by entry."""
    if _learnt(owner, name):
        write(owner, name, getattr(owner, name).clamp(low, high))


@torch.no_grad()
def separate(lows: tuple[nn.Module, str], highs: tuple[nn.Module, str], margin: float) -> None:
    """Move a reset down and a threshold up until there is `margin` between them, by the least sum of squares.

    Where one is not learnt the other moves alone. One number stands for all neurons.
    """
    low, high = (getattr(owner, name) for owner, name in (lows, highs))
    moves_low, moves_high = _learnt(*lows), _learnt(*highs)
    if moves_low and moves_high:
        if low.numel() < high.numel():  # the same upside down
            low = -_meet(-low.reshape(1), -high.reshape(1, -1), margin)
            write(*lows, low)
            write(*highs, torch.maximum(high, low + margin))
            return
        high = _meet(high.flatten(), low.reshape(high.numel(), -1), margin)
        write(*highs, high)
        write(*lows, torch.minimum(low, high - margin))
    elif moves_high:
        write(*highs, torch.maximum(high, (low + margin).amax() if high.numel() < low.numel() else low + margin))
    elif moves_low:
        write(*lows, torch.minimum(low, (high - margin).amin() if low.numel() < high.numel() else high - margin))


def _meet(high: Tensor, lows: Tensor, margin: float) -> Tensor:
    """Where each threshold (G,) goes that has to stay `margin` above its resets (G, K), if both move.

    It goes to the mean of itself and of the k highest resets, margin added, for the k of the largest mean.
    """
    needs = (lows + margin).sort(dim=1, descending=True).values
    count = torch.arange(1, needs.shape[1] + 1, dtype=needs.dtype, device=needs.device)
    means = (high[:, None] + needs.cumsum(1)) / (count + 1.0)
    # Asked just as the caller then moves the resets, so that what was projected is found inside, whatever was rounded.
    return torch.where((lows > (high - margin)[:, None]).any(1), means.amax(1), high)


def _learnt(owner: nn.Module, name: str) -> bool:
    if parametrize.is_parametrized(owner, name):
        rules: nn.Module = getattr(owner.parametrizations, name)  # type: ignore[union-attr]
        return any(p.requires_grad for p in rules.parameters())
    x = getattr(owner, name)
    return isinstance(x, Tensor) and x.requires_grad


def write(owner: nn.Module, name: str, new: Tensor) -> None:
    """Put values into a parameter, through its right_inverse where it is parametrized.

    Raises:
        ConfigurationError: a parametrization that has none.
    """
    old = getattr(owner, name)
    new = new.reshape(old.shape)
    if torch.equal(old, new) or bool(old.isnan().any()):  # what is no number is left for the solve to name
        return
    if not parametrize.is_parametrized(owner, name):
        old.copy_(new)
        return
    try:
        setattr(owner, name, new)
    except (NotImplementedError, RuntimeError) as error:
        raise ConfigurationError(
            f"{name} from {float(old.min()):g} to {float(old.max()):g}, parametrized without a right_inverse",
            "a parametrization whose values are inside the bounds, or can be set",
            "softplus or exp in it, or right_inverse",
        ) from error
