"""Where guards rise through zero along a step, on its continuous extension: free of evaluations of the field."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from adjsnn.hybrid.arrays import TorchArrays
from adjsnn.hybrid.excursions import far_below, may_exceed
from adjsnn.hybrid.guards import levels_of
from adjsnn.hybrid.system import HybridSystem
from adjsnn.numerics.tableaus import Tableau

PIECES = 8  # equal parts into which a step, and then the part with a crossing, is divided
FINER = 2  # times that a step is divided finer where a guard may rise above zero and fall again within a part


class Span(NamedTuple):
    """Begin, end and length of each sample's step, arrays (B,), float64, ms."""

    begin: Any
    end: Any
    length: Any


@dataclass(frozen=True)
class Inside:
    """The guards along a step, on its continuous extension. What is computed are arrays, of `arrays`.

    Attributes:
        span: of the step.
        y: state before the step, (B, D).
        slopes: stage derivatives, arrays (B, D).
        begins: φ at the start of the step, an array (B, G).
    """

    arrays: type[TorchArrays]
    system: HybridSystem
    tableau: Tableau
    span: Span
    y: Float[Tensor, "B D"]
    slopes: Sequence[Any]
    begins: Any

    @cached_property
    def powers(self) -> Any:
        """Coefficients of the powers of σ in y(t + σh) - y, the highest first, (Q, B, D)."""
        total = None
        for weight, k in zip(_powers(self.tableau.dense, self.y.dtype, self.y.device), self.slopes, strict=True):
            if weight is not None:
                share = self.arrays.array(weight) * k
                total = share if total is None else total + share
        return self._column(self.span.length) * total

    def at(self, sigma: Any) -> Any:
        """φ at fractions of the step, (P, B) or (P, 1): (P, B, G)."""
        arrays = self.arrays
        s = arrays.cast(sigma, self.y.dtype)[..., None]
        each = s if s.shape[1] == 1 else arrays.widened(s, self.y.shape[1])
        increment, *others = self.powers
        increment = increment * each
        for power in others:
            increment += power
            increment *= each
        t = self._column(self.span.begin) + s * self._column(self.span.length)
        y = arrays.tensor(increment) + self.y
        levels = arrays.array(levels_of(self.system, arrays.tensor(t).flatten(0, 1), y.flatten(0, 1)))
        return arrays.xp.where(s > 0.0, levels.reshape(*y.shape[:2], -1), self.begins)

    def first(self) -> tuple[Any, Any, Any] | None:
        """The first part of the step in which a guard rises through zero: where it begins and ends, and whether there is one.

        A guard that is below zero at both ends of a part, but bends so that it may have been above in between, is looked at
        more closely, in the samples where that comes before a crossing. None where no guard of any sample comes near zero.
        """
        xp, parts = self.arrays.xp, PIECES
        levels = self._levels(0.0, 1.0 / parts, parts)
        if far_below(levels):
            return None
        low, high, rises, hidden = self._first_or_hidden(levels)
        for _ in range(FINER):
            if not bool(hidden.any()):
                break
            parts *= PIECES
            finer = self._first_or_hidden(self._levels(0.0, 1.0 / parts, parts))
            low, high, rises, hidden = (
                xp.where(hidden, x, before) for x, before in zip(finer, (low, high, rises, hidden), strict=True)
            )
        return low, xp.where(rises, high, 1.0), rises

    def divide(self, low: Any, high: Any) -> tuple[Any, Any, Any]:
        """The first of PIECES parts between two fractions in which a guard rises through zero, and whether one does, (B,)."""
        width = (high - low) / PIECES
        first, rises = self._first_of(self._levels(low, width, PIECES))
        return low + first * width, self.arrays.xp.where(rises, low + (first + 1) * width, high), rises

    def _first_or_hidden(self, levels: Any) -> tuple[Any, Any, Any, Any]:
        """The first of some parts of the step in which a guard rises, the first part where there is none; whether one does;
        whether one may in a part before."""
        xp, parts = self.arrays.xp, len(levels) - 1
        width = 1.0 / parts
        first, rises = self._first_of(levels)
        low, high = first * width, (first + 1) * width
        hidden = _of_any_guard(may_exceed(levels, xp))
        if not bool(hidden.any()):
            return low, high, rises, hidden[0]
        before = self.arrays.counting(parts, first)[:, None] < xp.where(rises, first, parts)
        return low, high, rises, (hidden & before).any(0)

    def _levels(self, low: Any, width: Any, parts: int) -> Any:
        """φ at the ends of parts of equal width, (P+1, B, G), each a number or (B,)."""
        return self.at(low + self.arrays.counting(parts + 1, self.span.length)[:, None] * width)

    def _first_of(self, levels: Any) -> tuple[Any, Any]:
        """The number of the first part in which a guard rises, 0 where there is none, and whether one does, each (B,)."""
        rises = _of_any_guard(_rises(levels[:-1], levels[1:]))
        return self.arrays.cast(self.arrays.first_true(rises, 0), torch.float64), rises.any(0)

    def cross(self, low: Any, high: Any) -> tuple[Any, Any]:
        """Where the first guard crosses zero between two near fractions, along chords, and which guard, each (B,)."""
        xp = self.arrays.xp
        before, after = self.at(xp.stack([low, high]))
        # Where there is no chord, for want of a number, the end shows what the guard is.
        chord = xp.where(xp.isfinite(before) & xp.isfinite(after), before / (before - after), 1.0)
        share = xp.where(_rises(before, after), chord, float("inf"))
        least = self.arrays.cast(self.arrays.clip(xp.amin(share, 1), None, 1.0), torch.float64)
        return low + least * (high - low), xp.argmin(share, 1)

    def _column(self, x: Any) -> Any:
        """A time of each sample beside its state, in the state's dtype, (B, 1)."""
        return self.arrays.cast(x, self.y.dtype)[:, None]


def _rises(before: Any, after: Any) -> Any:
    return ~((before >= 0.0) | (after < 0.0))


def _of_any_guard(x: Any) -> Any:
    """Whether any guard (P, B, G) is so, (P, B)."""
    return x[..., 0] if x.shape[2] == 1 else x.any(2)


@lru_cache(maxsize=32)
def _powers(dense: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor | None, ...]:
    """Coefficients of each stage in the dense output by power, highest first, (Q, 1, 1) each; None where all are zero."""
    by_power = tuple(zip_longest(*dense, fillvalue=0.0))
    weights = torch.tensor(by_power[::-1], dtype=dtype, device=device).T[:, :, None, None].unbind()
    return tuple(w if any(row) else None for w, row in zip(weights, dense, strict=True))
