"""What a system that a user wrote is solved for: everything that an adjoint runs on, checked at the door."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from adjsnn.errors import ConfigurationError
from adjsnn.hybrid.examine import Trial, examine
from adjsnn.hybrid.run import HybridStats, Read
from adjsnn.hybrid.solution import HybridSolution
from adjsnn.hybrid.steps import HybridProgram
from adjsnn.hybrid.system import HybridSystem
from adjsnn.hybrid.taped import on_tape


class Examined(NamedTuple):
    """A problem whose system was evaluated once.

    Attributes:
        program: with the number of guards, and the system and signal as they will be run.
        read: what a backward pass has to find in their modules.
    """

    program: HybridProgram
    read: Read


@dataclass(frozen=True)
class HybridProblem:
    """A system and its trial.

    Attributes:
        program: system, method and output times, as they were given.
        y0: initial state, (B, D).
        u: held inputs, (T, B, C), or None.
        by_events: whether steps can end on events.
        ts: the output times as the solution shows them, (T+1,).
        kernels: which body is wanted, of `adjsnn.hybrid.engine.KERNELS`.
    """

    program: HybridProgram
    y0: Tensor
    u: Tensor | None
    by_events: bool
    ts: Tensor
    kernels: str = "auto"

    @cached_property
    def first_levels(self) -> Tensor | None:
        """The guards at the start, (B, G), checked, as everything is that the system's functions return there.

        Raises:
            ConfigurationError: as `examined`.
        """
        with torch.no_grad():
            system = self.examine(tape=False).program.system
            return system.guard(self.program.ts[0].to(self.y0).expand(len(self.y0), 1), self.y0)

    @cached_property
    def examined(self) -> Examined:
        """The problem ready to be run, for gradients by a sweep.

        Raises:
            ConfigurationError: a result of a wrong shape, a guard that is not below zero at the start, or something that
                depends on a tensor of which no gradient would be found.
        """
        return self.examine(tape=False)

    def examine(self, *, tape: bool) -> Examined:
        """The same, with gradients by torch's tape where `tape` says so: it finds every tensor."""
        t = self.program.ts[0].to(self.y0).expand(len(self.y0), 1)
        name = type(self.program.system).__name__
        trial = Trial(name, t, self.y0, None if self.u is None else self.u[0], self.by_events, tape)
        return Examined(*examine(self.program, trial))

    def refuse_events(self, adjoint: object) -> None:
        """Raise ConfigurationError where the system has guards, which an adjoint does not go through."""
        if self.examined.program.guards:
            raise ConfigurationError(
                f"{type(self.program.system).__name__} with guards and adjoint={adjoint!r}",
                "an adjoint that goes through events",
                "adjoint=DiscreteAdjoint()",
            )

    def solution(
        self, y: Tensor, event_times: Tensor | None = None, event_index: Tensor | None = None, stats: HybridStats | None = None
    ) -> HybridSolution:
        """The solution of states at the output times, (T+1, B, D), and events, (B, E), where there are any.

        Raises:
            ConfigurationError: the system's readout does not return a row for each state.
        """
        system = self.program.system
        none = self.y0.new_empty(len(self.y0), 0)
        return HybridSolution(
            ts=self.ts,
            y=y,
            readout=y if type(system).readout is HybridSystem.readout else _readout(system, y),
            event_times=none if event_times is None else event_times,
            event_index=none.long() if event_index is None else event_index,
            stats=stats,
        )


def _readout(system: HybridSystem, y: Tensor) -> Tensor:
    """The readout of states (T+1, B, D), called as promised with rows of D entries."""
    flat = y.flatten(0, 1)
    try:
        values = system.readout(flat)
    except RuntimeError as error:
        try:
            values = on_tape(system.readout, flat)
        except RuntimeError:
            raise error from None
    if not isinstance(values, Tensor) or values.dim() < 2 or len(values) != y.shape[0] * y.shape[1]:
        seen = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ConfigurationError(
            f"readout returned {seen} for {y.shape[0] * y.shape[1]} rows",
            "a tensor (rows, C_out)",
            "keeping the first dimension",
        )
    return values.unflatten(0, y.shape[:2])
