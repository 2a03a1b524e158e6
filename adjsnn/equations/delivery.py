"""What packets bring, by torch's operations: the readable truth beside the compiled loops."""

from typing import Any

import torch
from torch import Tensor

from adjsnn.equations.model import Model
from adjsnn.equations.synapses import Synapse
from adjsnn.lif.synapses import Synapses


class Delivers:
    """The part of a system of equations that knows its packets, each by kind of synapse, unit and place in its event."""

    model: Model
    numbers: dict[str, float]
    synapses: tuple[Synapse, ...]

    def delay_of(self, what: tuple[int, int, int]) -> Tensor:
        """How long a packet is on its way, (), ms."""
        synapse = self.synapses[what[0]]
        return _delay(synapse, self._tensor(synapse.delay), *what[1:])

    def delivered(self, what: tuple[int, int, int], y: Tensor) -> Tensor:
        """The state (D,) with what a packet adds."""
        synapse, states = self.synapses[what[0]], self.model.states
        parts = dict(zip(states, y.split(list(states.values())), strict=True))
        parts[synapse.state] = _delivered(synapse, self._tensor(synapse.weight), *what[1:], parts[synapse.state])
        return torch.cat(list(parts.values()))

    def _tensor(self, name: str) -> Tensor:
        """A parameter that may be a number."""
        own: Any = self
        return torch.tensor(self.numbers[name], dtype=torch.float64) if name in self.numbers else getattr(own, name)


def _delay(synapse: Synapse, delays: Tensor, unit: int, place: int) -> Tensor:
    """How long packet `place` of an event of a unit is on its way, ()."""
    if synapse.each == "all":
        return delays.reshape(())
    if synapse.each == "source":
        return delays[unit]
    return delays[place, unit] if synapse.edges is None else delays[_numbers(synapse.edges, unit)[place]]


def _delivered(synapse: Synapse, weights: Tensor, unit: int, place: int, state: Tensor) -> Tensor:
    """The state (N_target,) with what that packet adds."""
    if synapse.edges is None:
        targets, column = torch.arange(len(state), device=state.device), weights[:, unit]
    else:
        numbers = _numbers(synapse.edges, unit)
        targets = synapse.edges.post[numbers].to(state.device)
        column = weights.reshape(-1)[numbers if synapse.edges.shared is None else synapse.edges.shared[numbers]]
    if synapse.each == "synapse":
        targets, column = targets[place : place + 1], column[place : place + 1]
    return state.index_add(0, targets, column.to(state))


def _numbers(edges: Synapses, unit: int) -> Tensor:
    """Numbers of the synapses of a source."""
    return (edges.pre == unit).nonzero().flatten()
