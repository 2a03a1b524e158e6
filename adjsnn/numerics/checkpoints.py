"""Checkpointing plans: which states to keep on the way forward and how to recompute the rest, as pure integers.

Units 0 … n-1 are reversed one by one, from the last to the first. To reverse unit j its initial state is needed, and the unit
is run once more with everything kept (`Back`). A slot holds the initial state of one unit; one slot always holds that of unit
0. With s slots the least number of unit runs in all, the first sweep included, is

    (r + 1) n - C(s + r, r - 1),     r = min{r : C(s + r, s) ≥ n}                                               (4.4)

(Griewank 1992); `binomial_runs` computes it and `plan` reaches it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb, isqrt
from typing import TypeVar

from adjsnn.checks import count


@dataclass(frozen=True)
class Advance:
    """Run units start … stop-1 from the state kept at `start`, keep only the state at `stop`."""

    start: int
    stop: int


@dataclass(frozen=True)
class Drop:
    """Give up the state kept at `unit`."""

    unit: int


@dataclass(frozen=True)
class Back:
    """Run `unit` from the state kept at `start` ≤ unit, keeping everything of the unit itself, and reverse it."""

    start: int
    unit: int


Action = Advance | Drop | Back
State = TypeVar("State")


def kept_on_the_way(n: int, slots: int, grid: int = 1) -> list[int]:
    """Units whose initial state the first sweep keeps, ascending, unit 0 first; only multiples of `grid`."""
    kept = [0]
    while n - kept[-1] > grid and slots > len(kept):
        ahead = _split(n - kept[-1], slots - len(kept) + 1)
        kept.append(min(kept[-1] + grid * max(1, round(ahead / grid)), (n - 1) // grid * grid))
    return kept


def plan(n: int, slots: int, kept: Sequence[int] | None = None) -> Iterator[Action]:
    """What to do after the first sweep, in order, to reverse n units with `slots` kept states.

    `kept` are the units, ascending from 0, whose initial state the first sweep kept; None for those of `kept_on_the_way`.
    """
    kept = kept_on_the_way(n, slots) if kept is None else kept
    stop = n
    for free, start in reversed(list(enumerate(kept))):
        yield from _reverse(start, stop, slots - free)
        if start:
            yield Drop(start)
        stop = start


def reverse(
    n: int, slots: int, rows: Sequence[int], kept: dict[int, State], advance: Callable[[State, int, int], State]
) -> Iterator[tuple[int, State]]:
    """Carry out a plan: each unit with its initial state, the last first, with never more than `slots` of them in `kept`.

    Args:
        n: units of the plan.
        slots: states that the plan may keep.
        rows: units whose initial state the first sweep kept.
        kept: these states. What is left in it at the end is that of unit 0, so a second pass makes the others again.
        advance: advance(state, start, stop) runs units start … stop-1.
    """
    for unit in set(kept).difference(rows):  # left by a pass that was interrupted
        del kept[unit]
    for before, unit in pairwise(rows):
        if unit not in kept:
            kept[unit] = advance(kept[before], before, unit)
    for action in plan(n, slots, rows):
        match action:
            case Drop(unit):
                del kept[unit]
            case Advance(start, stop):
                kept[stop] = advance(kept[start], start, stop)
            case Back(start, unit):
                yield unit, advance(kept[start], start, unit)


def runs_again(n: int, slots: int, rows: Sequence[int]) -> int:
    """Unit runs that `reverse` asks of `advance` where every state of `rows` is there."""
    stretches = zip(rows, [*rows[1:], n], strict=True)
    return sum(binomial_runs(stop - start, slots - before) - (stop - start) for before, (start, stop) in enumerate(stretches))


def _reverse(start: int, stop: int, slots: int) -> Iterator[Action]:
    """Reverse units start … stop-1 with `slots` slots, of which one holds the state at `start`."""
    while stop - start > 1 and slots > 1:
        middle = start + _split(stop - start, slots)
        yield Advance(start, middle)
        yield from _reverse(middle, stop, slots - 1)
        yield Drop(middle)
        stop = middle
    for unit in reversed(range(start, stop)):
        yield Back(start, unit)


def _split(n: int, slots: int) -> int:
    """How far ahead of the first of n units the next state is kept, with `slots` slots in all."""
    r = _repetitions(n, slots)
    # The part behind the new state may be as long as C(s-1+r, s-1), the part before it as C(s+r-1, s).
    return max(1, n - comb(slots - 1 + r, slots - 1), min(n - 1, comb(slots + r - 2, slots) if r > 1 else 1))


def _repetitions(n: int, slots: int) -> int:
    r = 0
    while comb(slots + r, slots) < n:
        r += 1
    return r


def binomial_runs(n: int, slots: int) -> int:
    """Least number of unit runs in all, equation (4.4)."""
    r = _repetitions(n, slots)
    return (r + 1) * n - (comb(slots + r, r - 1) if r > 0 else 0)


def slots_for(checkpoints: object, n: int) -> int:
    """Number of slots that a user's `checkpoints` means for n units.

    Args:
        checkpoints: "sqrt" or a number of kept states.
        n: units.

    Raises:
        ConfigurationError: neither of these.
    """
    if isinstance(checkpoints, str) and checkpoints == "sqrt":
        return max(1, isqrt(n - 1) + 1)
    slots = count("checkpoints", checkpoints, 1, 'None, "sqrt" or a number of kept states ≥ 1', 'checkpoints="sqrt"')
    return min(slots, n)
