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
ROUNDS = 4  # divisions after the first: to 1 / 8^5 of the step, all on the continuous extension, free of evaluations of f
LONGEST = 16  # divisions at most, where φ has no other sign at the start: to the rounding of a fraction
CLOSE = 1e-7  # part of the step up to which a crossing has to be known for Newton's method to find it at once
TIE = 1e-9  # a guard this little above zero was reached in the same instant, not raised by a jump
FINER = 2  # times that a step is divided finer where a guard may rise above zero and fall again within a part


class Span(NamedTuple):
    """Begin, end and length of each sample's step, arrays (B,), float64, ms."""

    begin: Any
    end: Any
    length: Any


class Part(NamedTuple):
    """A part of each sample's step, arrays.

    Attributes:
        low: where it begins, a fraction of the step, (B,).
        high: where it ends.
        before: φ there, (B, G).
        after: φ here.
        bend: second difference of φ about one of the two, (B, G).
    """

    low: Any
    high: Any
    before: Any
    after: Any
    bend: Any


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
    def _samples(self) -> Any:
        return self.arrays.counting(len(self.y), self.arrays.first_true(self.begins, 1))

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
        """φ at fractions of the step, (P, B) or (P, 1), of which only the first may be zero: (P, B, G)."""
        arrays = self.arrays
        t = arrays.cast(self.span.begin + sigma * self.span.length, self.y.dtype)[..., None]
        s = arrays.cast(sigma, self.y.dtype)[..., None]
        each = s if s.shape[1] == 1 else arrays.widened(s, self.y.shape[1])
        increment, *others = self.powers
        increment = increment * each
        for power in others:
            increment += power
            increment *= each
        y = arrays.tensor(increment) + self.y
        levels = arrays.array(levels_of(self.system, arrays.tensor(t).flatten(0, 1), y.flatten(0, 1)))
        levels = levels.reshape(*y.shape[:2], -1)
        return arrays.xp.concatenate([arrays.xp.where(s[:1] > 0.0, levels[:1], self.begins), levels[1:]])

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

    def locate(self, low: Any, high: Any, wanted: Any) -> tuple[Any, Any]:
        """Where a guard first rises through zero between two fractions, and which guard, each (B,), in the samples `wanted`.

        The part is divided until it is straight enough for a parabola to tell where.
        """
        xp, on_zero = self.arrays.xp, self.arrays.xp.amax(self.begins, 1) > -TIE
        divided, found = 0, None
        while True:
            part = self._divide(low, high)
            low, high, divided = part.low, part.high, divided + 1
            guess, guard, sure = self._cross(part)
            if found is not None:
                guess, guard = (xp.where(wanted, new, old) for new, old in zip((guess, guard), found, strict=True))
            # A flight that begins on zero may be any part of the step, and has no chord from its start.
            wanted = wanted & ~(sure | (divided >= ROUNDS)) | (wanted & (low == 0.0) & on_zero)
            if divided == LONGEST or not bool(wanted.any()):
                return guess, guard
            found = guess, guard

    def _divide(self, low: Any, high: Any) -> Part:
        """The first of PIECES parts between two fractions in which a guard rises through zero; all where none does."""
        xp, width = self.arrays.xp, (high - low) / PIECES
        levels = self._levels(low, width, PIECES)
        place, first, rises = self._first_of(levels)
        samples, at = self._samples, self.arrays.clip(place, 1, PIECES - 1)
        before, middle, after = (levels[at + n, samples] for n in (-1, 0, 1))
        return Part(
            low=low + first * width,
            high=xp.where(rises, low + (first + 1) * width, high),
            before=levels[place, samples],
            after=levels[xp.where(rises, place + 1, PIECES), samples],
            bend=before - 2.0 * middle + after,
        )

    def _first_or_hidden(self, levels: Any) -> tuple[Any, Any, Any, Any]:
        """The first of some parts of the step in which a guard rises, the first part where there is none; whether one does;
        whether one may in a part before."""
        xp, parts = self.arrays.xp, len(levels) - 1
        width = 1.0 / parts
        _, first, rises = self._first_of(levels)
        low, high = first * width, (first + 1) * width
        hidden = _of_any_guard(may_exceed(levels, xp))
        if not bool(hidden.any()):
            return low, high, rises, hidden[0]
        before = self.arrays.counting(parts, first)[:, None] < xp.where(rises, first, parts)
        return low, high, rises, (hidden & before).any(0)

    def _levels(self, low: Any, width: Any, parts: int) -> Any:
        """φ at the ends of parts of equal width, (P+1, B, G), each a number or (B,)."""
        return self.at(low + self.arrays.counting(parts + 1, self.span.length)[:, None] * width)

    def _first_of(self, levels: Any) -> tuple[Any, Any, Any]:
        """The first part in which a guard rises, 0 where there is none, as its place and as a number; whether one does; (B,)."""
        rises = _of_any_guard(_rises(levels[:-1], levels[1:]))
        first = self.arrays.first_true(rises, 0)
        return first, self.arrays.cast(first, torch.float64), rises.any(0)

    def _cross(self, part: Part) -> tuple[Any, Any, Any]:
        """Where the first guard crosses zero in a part, and which guard, each (B,); whether a part of this part would tell the
        same."""
        xp, before, after, bend = self.arrays.xp, part.before, part.after, part.bend
        rises, width = _rises(before, after), part.high - part.low
        # Where there is no chord, for want of a number, the end shows what the guard is.
        chord = xp.where(xp.isfinite(before) & xp.isfinite(after), before / (before - after), 1.0)
        slope = after - before - 0.5 * bend
        root = xp.sqrt(slope * slope - 2.0 * bend * before)
        curve = xp.where(slope > 0.0, -2.0 * before / (slope + root), (root - slope) / bend)
        near = (curve >= 0.0) & (curve <= 1.0)
        share = xp.where(rises, xp.where(near, curve, chord), float("inf"))
        guard = xp.argmin(share, 1)
        least = self.arrays.cast(self.arrays.clip(xp.amin(share, 1), None, 1.0), torch.float64)
        off = self.arrays.cast(xp.where(near, curve - chord, 1.0), torch.float64)[self._samples, guard]
        # The error of the parabola is that of the chord squared, in parts of the part.
        sure = (off * off * width <= CLOSE) & (rises.sum(1) == 1)
        return part.low + least * width, guard, sure

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
