"""Where guards rise through zero along a step, on its continuous extension: free of evaluations of the field."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import zip_longest
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.hybrid.excursions import far_below, may_exceed
from adjsnn.hybrid.guards import levels_of
from adjsnn.hybrid.system import HybridSystem
from adjsnn.numerics.tableaus import Tableau

PIECES = 8  # equal parts into which a step, and then the part with a crossing, is divided
FINER = 2  # times that a step is divided finer where a guard may rise above zero and fall again within a part


class Span(NamedTuple):
    """Begin, end and length of each sample's step, each (B,), float64, ms."""

    begin: Tensor
    end: Tensor
    length: Tensor


@dataclass(frozen=True)
class Inside:
    """The guards along a step, on its continuous extension.

    Attributes:
        span: of the step.
        y: state before the step, (B, D).
        slopes: stage derivatives, (B, D) each.
        begins: φ at the start of the step, (B, G).
    """

    system: HybridSystem
    tableau: Tableau
    span: Span
    y: Float[Tensor, "B D"]
    slopes: Sequence[Float[Tensor, "B D"]]
    begins: Float[Tensor, "B G"]

    @cached_property
    def powers(self) -> tuple[Float[Tensor, "B D"], ...]:
        """Coefficients of the powers of σ in y(t + σh) - y, the highest first."""
        weights = _powers(self.tableau.dense, self.y.dtype, self.y.device)
        total = weights[0] * self.slopes[0]
        for weight, k in zip(weights[1:], self.slopes[1:], strict=True):
            total = total + weight * k
        return (column(self.span.length, self.y) * total).unbind()

    def at(self, sigma: Float[Tensor, "P B"]) -> Float[Tensor, "P B G"]:
        """φ at fractions of the step."""
        s = sigma.to(self.y.dtype).unsqueeze(2)
        first, *others = self.powers
        increment = first * s
        for power in others:
            increment = (increment + power) * s
        t = column(self.span.begin, self.y) + s * column(self.span.length, self.y)
        levels = levels_of(self.system, t.flatten(0, 1), (self.y + increment).flatten(0, 1)).unflatten(0, sigma.shape)
        return torch.where(s > 0.0, levels, self.begins)

    def first(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """The first part of the step in which a guard rises through zero: where it begins and ends, and whether there is one.

        A guard that is below zero at both ends of a part, but bends so that it may have been above in between, is looked at
        more closely, in the samples where that comes before a crossing. None where no guard of any sample comes near zero.
        """
        zero = torch.zeros_like(self.span.begin)
        parts = PIECES
        levels = self._levels(zero, 1.0 / parts, parts)
        if far_below(levels):
            return None
        low, high, rises, hidden = self._first_or_hidden(zero, levels)
        for _ in range(FINER):
            if not bool(hidden.any()):
                break
            parts *= PIECES
            finer = self._first_or_hidden(zero, self._levels(zero, 1.0 / parts, parts))
            low, high, rises, hidden = (
                torch.where(hidden, x, before) for x, before in zip(finer, (low, high, rises, hidden), strict=True)
            )
        return low, torch.where(rises, high, 1.0), rises

    def divide(self, low: Float[Tensor, " B"], high: Float[Tensor, " B"]) -> tuple[Tensor, Tensor, Tensor]:
        """The first of PIECES parts between two fractions in which a guard rises through zero, and whether one does, (B,)."""
        width = (high - low) / PIECES
        first, rises = self._first_of(self._levels(low, width, PIECES))
        return low + first * width, torch.where(rises, low + (first + 1) * width, high), rises

    def _first_or_hidden(self, zero: Tensor, levels: Float[Tensor, "P1 B G"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The first of some parts of the step in which a guard rises, the first part where there is none; whether one does;
        whether one may in a part before."""
        parts = len(levels) - 1
        width = 1.0 / parts
        first, rises = self._first_of(levels)
        low, high = zero + first * width, zero + (first + 1) * width
        hidden = may_exceed(levels).any(2)
        if not bool(hidden.any()):
            return low, high, rises, hidden[0]
        before = torch.arange(parts, device=zero.device)[:, None] < torch.where(rises, first, parts)
        return low, high, rises, (hidden & before).any(0)

    def _levels(self, low: Tensor, width: Tensor | float, parts: int) -> Float[Tensor, "P1 B G"]:
        """φ at the ends of parts of equal width."""
        return self.at(low + torch.arange(parts + 1, device=low.device, dtype=low.dtype)[:, None] * width)

    def _first_of(self, levels: Float[Tensor, "P1 B G"]) -> tuple[Tensor, Tensor]:
        """The number of the first part in which a guard rises, 0 where there is none, and whether one does, each (B,)."""
        rises = self._rises(levels[:-1], levels[1:]).any(2)
        return rises.to(torch.int8).argmax(0), rises.any(0)

    def cross(self, low: Float[Tensor, " B"], high: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Int[Tensor, " B"]]:
        """Where the first guard crosses zero between two near fractions, along chords, and which guard."""
        before, after = self.at(torch.stack([low, high]))
        # Where there is no chord, for want of a number, the end shows what the guard is.
        chord = torch.where(before.isfinite() & after.isfinite(), before / (before - after), 1.0)
        share = torch.where(self._rises(before, after), chord, float("inf"))
        least, guard = share.min(1)
        return low + least.clamp(max=1.0).to(low.dtype) * (high - low), guard

    @staticmethod
    def _rises(before: Tensor, after: Tensor) -> Tensor:
        return ~((before >= 0.0) | (after < 0.0))


@lru_cache(maxsize=32)
def _powers(dense: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """Coefficients of each stage in the dense output by power, highest first, (Q, 1, 1) each."""
    by_power = tuple(zip_longest(*dense, fillvalue=0.0))
    return torch.tensor(by_power[::-1], dtype=dtype, device=device).T[:, :, None, None].unbind()


def column(x: Float[Tensor, " B"], like: Tensor) -> Float[Tensor, "B 1"]:
    """A time of each sample beside its state, in the state's dtype."""
    return x.to(like.dtype).unsqueeze(1)
