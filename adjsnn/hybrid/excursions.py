"""Excursions of a function above zero between the points at which it is known: where there may be one."""

from typing import Any

import torch


def far_below(levels: Any) -> bool:
    """Whether functions (P+1, B, G) are below zero at all points, and so that no line of `may_exceed` reaches zero."""
    twice = 2.0 * levels[1:-1]
    below = (levels.max() < 0.0) & ((twice - levels[:-2]).max() < 0.0) & ((twice - levels[2:]).max() < 0.0)
    return bool(below)  # what is no number is not below


def may_exceed(levels: Any, xp: Any = torch) -> Any:
    """For each part between neighbouring points whether a function, below zero at both ends, may rise above zero inside.

    From its values at P+1 points of equal distance. Where it is concave it lies below the straight lines through the two points
    before the part and through the two after it, and so below where they meet; at either end of the row there is one line only.
    A function that turns back twice within a part is beyond this.

    Args:
        levels: (P+1, B, G), an array.
        xp: whose array, numpy or torch.

    Returns:
        (P, B, G).
    """
    before, after = levels[:-1], levels[1:]
    risen = after - before
    may = (before < 0.0) & (after < 0.0)
    may[1:] &= risen[:-1] > 0.0
    may[:-1] &= risen[1:] < 0.0
    may[0] &= after[0] >= risen[1]
    may[-1] &= before[-1] >= -risen[-2]
    if not bool(may.any()):
        return may  # no lines meet above zero: so in most steps
    infinite = xp.full_like(levels[:1], float("inf"))
    rise = xp.concatenate([infinite, risen[:-1]])  # along the line from the left, over one part
    fall = xp.concatenate([-risen[1:], infinite])  # along the line from the right, towards the left
    left, right = rise == float("inf"), fall == float("inf")
    meet = before + rise * (after + fall - before) / (rise + fall)
    bound = xp.where(left, after + fall, xp.where(right, before + rise, meet))
    return may & (bound >= 0.0)
