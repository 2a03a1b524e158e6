"""Choices of an adjoint that several families take: the discrete adjoint, and backpropagation to judge it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adjsnn.checks import Count, Number, count, positive
from adjsnn.errors import ConfigurationError
from adjsnn.numerics.checkpoints import slots_for


@dataclass(frozen=True)
class DiscreteAdjoint:
    """Exact gradient of the computed cost, to rounding, by the hand-written adjoint (4.1) of the program that ran.

    The result equals backpropagation through time without its tape. With checkpoints only some states are kept, and steps are
    run again on the way back, by the binomial plan (4.4); the gradient is the same bits.

    Args:
        checkpoints: None, every step state is stored; "sqrt", at most √n states for n steps of a gated network and 2√n for a
            HybridSystem; or the number of states that there may be at a time.
        memory_mb: instead, the memory to stay within, MB: everything is stored where it fits, else as many states as fit are
            kept. The times of adaptive steps, whose number is not known, come on top, and for a HybridSystem the block of
            steps, up to some tens of megabytes, that a backward pass works on.

    Raises:
        ConfigurationError: another kind of value, or both.
    """

    checkpoints: str | Count | None = None
    memory_mb: Number | None = None

    def __post_init__(self) -> None:
        if self.checkpoints is not None:
            slots_for(self.checkpoints, 1)
            if not isinstance(self.checkpoints, str):
                object.__setattr__(self, "checkpoints", count("checkpoints", self.checkpoints))
        if self.memory_mb is None:
            return
        if self.checkpoints is not None:
            raise ConfigurationError(
                f"checkpoints={self.checkpoints!r} with memory_mb={self.memory_mb!r}", "one of the two", "memory_mb=200.0"
            )
        memory = positive("memory_mb", self.memory_mb, "a positive number of MB", "memory_mb=200.0")
        object.__setattr__(self, "memory_mb", memory)


@dataclass(frozen=True)
class BPTT:
    """Backpropagation through time: the same program, unrolled on torch's tape. The baseline and the judge.

    Memory: every intermediate result of every step. The only adjoint that has second derivatives (create_graph=True).

    Args:
        steps: for HybridSystems, steps to take instead of finding them: the `stats.taken` of another solution. Events
            happen in the same steps and are located anew, and so are arrivals of what events sent.
    """

    steps: Any = None


def taken_as(family: type, adjoint: object, common: Mapping[type, Callable[[Any], Any]]) -> Any:
    """An adjoint as a family runs it; None for what it cannot run, and for a class in place of its instance.

    Args:
        family: the family's protocol. What has its method is taken as it is.
        adjoint: as a caller gave it.
        common: what the family has for choices that several families take, by their class.
    """
    if isinstance(adjoint, type):  # a class has the methods of its instances
        return None
    if isinstance(adjoint, family):
        return adjoint
    make = next((common[kind] for kind in type(adjoint).__mro__ if kind in common), None)
    return None if make is None else make(adjoint)
