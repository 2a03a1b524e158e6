"""Where guards rise through zero along a step, on its continuous extension: free of evaluations of the field."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
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
CLOSE = 1e-5  # third difference of a guard, in rises of it, times the part of the step: a parabola is off by a tenth of that
TIE = 1e-9  # a guard this little above zero was reached in the same instant, not raised by a jump
FINER = 2  # times that a step is divided finer where a guard may rise above zero and fall again within a part


class Span(NamedTuple):
    """Begin, end and length of each sample's step, arrays (B,), float64, ms."""

    begin: Any
    end: Any
    length: Any


class Part(NamedTuple):
    """A part of each sample's step in which a guard may rise through zero, arrays.

    Attributes:
        low: where it begins, a fraction of the step, (B,).
        high: where it ends.
        rises: whether a guard does, (B,).
        before: φ where it begins, (B, G).
        after: φ where it ends.
        bend: second difference of φ about the part, (B, G).
        twist: its third difference.
    """

    low: Any
    high: Any
    rises: Any
    before: Any
    after: Any
    bend: Any
    twist: Any


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
    def _powers(self) -> Any:
        """Coefficients of the powers of σ in y(t + σh) - y, the highest first, (Q, B, D)."""
        return self._combined(_by_power)

    def _combined(self, weights: Callable[[Tableau], Sequence[Sequence[float]]]) -> Any:
        """h Σ_j w_j k_j for N weights of each stage, (N, B, D)."""
        arrays, y, total = self.arrays, self.y, None
        for weight, k in zip(_columns(arrays, weights, self.tableau, y.dtype, y.device), self.slopes, strict=True):
            if weight is not None:
                share = weight * k
                if total is None:
                    total = share
                else:
                    total += share
        total *= arrays.widened(arrays.cast(self.span.length, y.dtype)[:, None], y.shape[1])
        return total

    def _between(self, low: Any, high: Any) -> Any:
        """φ at the ends of PIECES parts between two fractions of the step, (B,): (P+1, B, G)."""
        arrays = self.arrays
        sigma = low + arrays.counting(PIECES + 1, low)[:, None] * ((high - low) / PIECES)
        each = arrays.widened(arrays.cast(sigma, self.y.dtype)[..., None], self.y.shape[1])
        increment, *others = self._powers
        increment = increment * each
        for power in others:
            increment += power
            increment *= each
        levels = self._levels(sigma, increment)
        return arrays.xp.concatenate([arrays.xp.where((low > 0.0)[:, None], levels[0], self.begins)[None], levels[1:]])

    def _along(self, parts: int) -> Any:
        """φ at the ends of parts of the step, (P+1, B, G)."""
        arrays = self.arrays
        sigma = arrays.counting(parts + 1, self.span.length)[1:, None] / parts
        return arrays.xp.concatenate([self.begins[None], self._levels(sigma, self._combined(SHARES[parts]))])

    def _levels(self, sigma: Any, increment: Any) -> Any:
        """φ at fractions of the step, (P, B) or (P, 1), at which the state is y + increment, (P, B, D): (P, B, G)."""
        arrays = self.arrays
        t = arrays.cast(self.span.begin + sigma * self.span.length, self.y.dtype)[..., None]
        y = arrays.tensor(increment) + self.y
        levels = levels_of(self.system, arrays.tensor(t).flatten(0, 1), y.flatten(0, 1))
        return arrays.array(levels).reshape(*y.shape[:2], -1)

    def first(self) -> Part | None:
        """The first part of the step in which a guard rises through zero, the whole of it where none does.

        A guard that is below zero at both ends of a part, but bends so that it may have been above in between, is looked at
        more closely, in the samples where that comes before a crossing. None where no guard of any sample comes near zero.
        """
        xp, parts = self.arrays.xp, PIECES
        levels = self._along(parts)
        if far_below(levels):
            return None
        part, hidden = self._first_or_hidden(levels)
        for _ in range(FINER):
            if not bool(hidden.any()):
                break
            parts *= PIECES
            finer, again = self._first_or_hidden(self._along(parts))
            part = Part(*(xp.where(hidden if x.ndim == 1 else hidden[:, None], x, y) for x, y in zip(finer, part, strict=True)))
            hidden = hidden & again
        return part

    def locate(self, part: Part, wanted: Any) -> tuple[Any, Any]:
        """Where a guard first rises through zero in a part, and which guard, each (B,), in the samples `wanted`.

        The part is divided until a parabola tells where.
        """
        xp, on_zero = self.arrays.xp, self.arrays.xp.amax(self.begins, 1) > -TIE
        guess, guard, sure = self._cross(part)
        for divided in range(LONGEST):
            # A flight that begins on zero may be any part of the step, and has no chord from its start.
            wanted = wanted & (((part.low == 0.0) & on_zero) | ~(sure | (divided >= ROUNDS)))
            if not bool(wanted.any()):
                break
            part = self._part_of(self._between(part.low, part.high), part.low, part.high - part.low)
            guess_of_part, guard_of_part, sure = self._cross(part)
            guess, guard = xp.where(wanted, guess_of_part, guess), xp.where(wanted, guard_of_part, guard)
        return guess, guard

    def _first_or_hidden(self, levels: Any) -> tuple[Part, Any]:
        """The first of some parts of the step in which a guard rises; whether one may in a part before, (B,)."""
        xp, part = self.arrays.xp, self._part_of(levels, 0.0, 1.0)
        hidden = _of_any_guard(may_exceed(levels, xp))
        if not bool(hidden.any()):
            return part, hidden[0]
        ends = self.arrays.counting(len(levels), part.low)[1:, None] / (len(levels) - 1)
        return part, (hidden & (ends <= xp.where(part.rises, part.low, 1.0))).any(0)

    def _part_of(self, levels: Any, low: Any, width: Any) -> Part:
        """The first of equal parts in which a guard rises, from φ at their ends (P+1, B, G); all where none does.

        Args:
            low: where they begin, a number or (B,).
            width: of all of them.
        """
        xp, parts, samples = self.arrays.xp, len(levels) - 1, self._samples
        each = _of_any_guard(_rises(levels[:-1], levels[1:]))
        place, rises = self.arrays.first_true(each, 0), each.any(0)
        first = self.arrays.cast(place, torch.float64)
        start = self.arrays.clip(place - 1, 0, parts - 3)
        a, b, c, d = (levels[start + n, samples] for n in range(4))
        return Part(
            low=low + first * (width / parts),
            high=low + xp.where(rises, first + 1.0, parts) * (width / parts),
            rises=rises,
            before=levels[place, samples],
            after=levels[xp.where(rises, place + 1, parts), samples],
            bend=0.5 * (a - b - c + d),
            twist=d - a + 3.0 * (b - c),
        )

    def _cross(self, part: Part) -> tuple[Any, Any, Any]:
        """Where the first guard crosses zero in a part, along a parabola where there is one; which guard; whether it is as
        close as need be, and the only guard; each (B,)."""
        xp, before, after, bend = self.arrays.xp, part.before, part.after, part.bend
        rises, rise, width = _rises(before, after), after - before, part.high - part.low
        # Where there is no chord, for want of a number, the end shows what the guard is.
        chord = xp.where(xp.isfinite(before) & xp.isfinite(after), before / -rise, 1.0)
        slope = rise - 0.5 * bend
        root = xp.sqrt(slope * slope - 2.0 * bend * before)
        curve = xp.where(slope > 0.0, -2.0 * before / (slope + root), (root - slope) / bend)
        near = (curve >= 0.0) & (curve <= 1.0)
        share = xp.where(rises, xp.where(near, curve, chord), float("inf"))
        guard = xp.argmin(share, 1)
        least = self.arrays.cast(self.arrays.clip(xp.amin(share, 1), None, 1.0), torch.float64)
        sure = (near & (abs(part.twist) * width[:, None] <= CLOSE * rise))[self._samples, guard] & (rises.sum(1) == 1)
        return part.low + least * width, guard, sure


def _rises(before: Any, after: Any) -> Any:
    return ~((before >= 0.0) | (after < 0.0))


def _of_any_guard(x: Any) -> Any:
    """Whether any guard (P, B, G) is so, (P, B)."""
    return x[..., 0] if x.shape[2] == 1 else x.any(2)


def _by_power(tableau: Tableau) -> Sequence[Sequence[float]]:
    """Coefficients of each stage in the dense output by power, highest first."""
    return tuple(zip(*tuple(zip_longest(*tableau.dense, fillvalue=0.0))[::-1], strict=True))


def _shares(tableau: Tableau, parts: int) -> Sequence[Sequence[float]]:
    """Weights of each stage in the dense output at the end of each of some equal parts."""
    ends = [(n + 1) / parts for n in range(parts)]
    return [[sum(w * s**q for q, w in enumerate(row, 1)) for s in ends] for row in tableau.dense]


SHARES = {PIECES**n: partial(_shares, parts=PIECES**n) for n in range(1, FINER + 2)}


@lru_cache(maxsize=32)
def _columns(
    arrays: type[TorchArrays],
    weights: Callable[[Tableau], Sequence[Sequence[float]]],
    tableau: Tableau,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Any, ...]:
    """N weights of each stage as arrays (N, 1, 1); None where all are zero."""
    rows = weights(tableau)
    return tuple(
        arrays.array(torch.tensor(row, dtype=dtype, device=device)[:, None, None]) if any(row) else None for row in rows
    )
