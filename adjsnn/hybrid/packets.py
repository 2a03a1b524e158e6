"""Packets that events sent and that arrived later, in steps that are known, as operations on autograd's tape."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Packets:
    """Of each sample.

    Attributes:
        landed: the packet that arrives at the end of step k, (K, B), -1 where none does.
        rows: the step that ended in the event which sent it, (B, M).
        what: what the system knows it by, (B, M, 3).
    """

    landed: Int[Tensor, "K B"]
    rows: Int[Tensor, "B M"]
    what: Int[Tensor, "B M 3"]

    def at(self, k: int) -> list[tuple[int, int, tuple[int, int, int]]]:
        """The samples in which a packet arrives at the end of step k, the row that sent it and what it is."""
        found = []
        for sample, packet in enumerate(self.landed[k].tolist()):
            if packet >= 0:
                kind, unit, place = self.what[sample, packet].tolist()
                found.append((sample, int(self.rows[sample, packet]), (kind, unit, place)))
        return found


@runtime_checkable
class Sender(Protocol):
    """A system whose events send packets."""

    def delay_of(self, what: tuple[int, int, int]) -> Tensor:
        """How long a packet is on its way, (), ms."""
        ...

    def delivered(self, what: tuple[int, int, int], y: Tensor) -> Tensor:
        """The state (D,) with what a packet adds."""
        ...


def arrivals(
    system: Sender, packets: Packets, k: int, ends: Sequence[Tensor], end: Float[Tensor, "B 1"], *, anew: bool
) -> Float[Tensor, "B 1"]:
    """Where step k ends, on the tape of the events that sent what arrives then, and of its delays.

    Args:
        ends: of the steps before, each (B, 1).
        end: as the step was taken; with `anew` it is computed again.
    """
    rows = list(end.unbind())
    for sample, row, what in packets.at(k):
        due = ends[row][sample] + system.delay_of(what).to(end)
        rows[sample] = due if anew else end[sample] + (due - due.detach())
    return torch.stack(rows)


def deliver(system: Sender, packets: Packets, k: int, y: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """States after what arrives at the end of step k."""
    rows = list(y.unbind())
    for sample, _, what in packets.at(k):
        rows[sample] = system.delivered(what, rows[sample])
    return torch.stack(rows)
