"""Checkpointing plans: which states to keep on the way forward and how to recompute the rest, as pure integers.

Units 0 … n-1 are reversed one by one, from the last to the first. To reverse unit j its initial state is needed, and the unit
is run once more with everything kept (`Back`). A slot holds the initial state of one unit; one slot always holds that of unit
0. With s slots the least number of unit runs in all, the first sweep included, is

    (r + 1) n - C(s + r, r - 1),     r = min{r : C(s + r, s) ≥ n}                                               (4.4)

(Griewank 1992); `binomial_runs` computes it and `plan` reaches it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb, isqrt

from adjsnn.errors import ConfigurationError


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


def kept_on_the_way(n: int, slots: int) -> list[int]:
    """Units whose initial state the first sweep keeps, ascending, unit 0 first."""
    kept = [0]
    while n - kept[-1] > 1 and slots > len(kept):
        kept.append(kept[-1] + _split(n - kept[-1], slots - len(kept) + 1))
    return kept


def plan(n: int, slots: int) -> Iterator[Action]:
    """What to do after the first sweep, in order, to reverse n units with `slots` kept states."""
    kept = kept_on_the_way(n, slots)
    stop = n
    for free, start in reversed(list(enumerate(kept))):
        yield from _reverse(start, stop, slots - free)
        if start:
            yield Drop(start)
        stop = start


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
    if checkpoints == "sqrt":
        return max(1, isqrt(n - 1) + 1)
    if isinstance(checkpoints, bool) or not isinstance(checkpoints, int) or checkpoints < 1:
        raise ConfigurationError(
            f"checkpoints={checkpoints!r}", 'None, "sqrt" or a number of kept states ≥ 1', 'checkpoints="sqrt"'
        )
    return min(checkpoints, n)
