"""Which step states a smooth solve keeps, and the others again on the way back.

A unit of the plan (4.4) is one step. The backward pass evaluates the stages of a step anyway, from the state before it, so that
a step is run again only where that state was not kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isqrt

from torch import Tensor

from adjsnn.checks import Count, Number
from adjsnn.errors import ConfigurationError
from adjsnn.numerics.checkpoints import kept_on_the_way, reverse, slots_for


@dataclass(frozen=True)
class Keep:
    """Which step states are to be kept.

    Args:
        checkpoints: None, all; "sqrt", 2√n of n, with which fewer than n steps are run again; or a number.
        memory_mb: instead, the memory they may take, MB.
        last: instead, only the last.
    """

    checkpoints: str | Count | None = None
    memory_mb: Number | None = None
    last: bool = False

    @property
    def all(self) -> bool:
        return self.checkpoints is None and self.memory_mb is None and not self.last

    def slots(self, n: int, state_bytes: int, spent: int = 0) -> int:
        """Number of states to keep of n steps, each of `state_bytes`, where `spent` bytes of the memory are gone already.

        Raises:
            ConfigurationError: not a single state fits; or checkpoints of a wrong kind.
        """
        if self.memory_mb is not None:
            slots = int((float(self.memory_mb) * 1e6 - spent) // state_bytes)
            if slots < 1:
                raise ConfigurationError(
                    f"memory_mb={float(self.memory_mb):g}",
                    f"at least {(spent + state_bytes) / 1e6:.2g}: one state" + (" and the times of the steps" if spent else ""),
                    "a smaller batch or fewer steps",
                )
            return min(slots, n)
        return min(isqrt(4 * n), n) if self.checkpoints == "sqrt" else slots_for(self.checkpoints, n)


@dataclass(frozen=True)
class Thinned:
    """The states kept of a run of n steps.

    Attributes:
        n: steps.
        slots: most states there may be at a time.
        rows: steps whose initial state the forward run kept, ascending from 0.
        states: these states, each (B, D); a backward pass takes the places of those it has used, and leaves the first.
    """

    n: int
    slots: int
    rows: tuple[int, ...]
    states: dict[int, Tensor]

    @property
    def nbytes(self) -> int:
        return sum(y.nbytes for y in self.states.values())

    def backward(self, advance: Callable[[Tensor, int, int], Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Each step with the state before it, the last first; `advance(y, start, stop)` takes steps start … stop-1."""
        return reverse(self.n, self.slots, self.rows, self.states, advance)


def thin(n: int, slots: int, stride: int, kept: Tensor, y0: Tensor) -> Thinned:
    """Of states before every `stride`-th of n steps, (S, B, D), those nearest to the ones that the plan would have kept.

    The first is y0 itself, from whose memory the forward run set out.
    """
    rows = tuple(kept_on_the_way(n, slots, stride))
    return Thinned(n, slots, rows, {row: kept[row // stride].clone() if row else y0 for row in rows})
