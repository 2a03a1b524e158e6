"""Excursions of a function above zero between the points at which it is known: where there may be one."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def far_below(levels: Float[Tensor, "P1 B G"]) -> bool:
    """Whether functions are below zero at all points, and so that none of the lines of `may_exceed` reaches zero."""
    twice = 2.0 * levels[1:-1]
    highest = torch.stack([levels.amax(), (twice - levels[:-2]).amax(), (twice - levels[2:]).amax()])
    return bool((highest < 0.0).all())  # what is no number is not below


def may_exceed(levels: Float[Tensor, "P1 B G"]) -> Bool[Tensor, "P B G"]:
    """For each part between neighbouring points whether a function, below zero at both ends, may rise above zero inside.

    From its values at P+1 points of equal distance. Where it is concave it lies below the straight lines through the two points
    before the part and through the two after it, and so below where they meet; at either end of the row there is one line only.
    A function that turns back twice within a part is beyond this.
    """
    before, after = levels[:-1], levels[1:]
    if not bool(((2.0 * levels[1:-1] >= levels[:-2]) | (2.0 * levels[1:-1] >= levels[2:])).any()):
        return torch.zeros_like(before, dtype=torch.bool)  # no line reaches zero: so in most steps
    infinite = torch.full_like(levels[:1], float("inf"))
    rise = torch.cat([infinite, after[:-1] - before[:-1]])  # along the line from the left, over one part
    fall = torch.cat([before[1:] - after[1:], infinite])  # along the line from the right, towards the left
    left, right = rise == float("inf"), fall == float("inf")
    meet = before + rise * (after + fall - before) / (rise + fall)
    bound = torch.where(left, after + fall, torch.where(right, before + rise, meet))
    return (before < 0.0) & (after < 0.0) & (rise > 0.0) & (fall > 0.0) & (bound >= 0.0)
