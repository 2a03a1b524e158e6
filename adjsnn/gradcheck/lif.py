"""What is checked of a LIF network, its input spike times among it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from adjsnn.gradcheck.probe import Gradients, Probe
from adjsnn.lif.network import LIFNetwork
from adjsnn.lif.solution import LIFSolution
from adjsnn.lif.structure import AnyState
from adjsnn.spikes import SpikeTrains


class LIFProbe(Probe):
    """Of a LIF network, whose solution is smooth while the same neurons spike in the same order.

    A perturbed parameter or time that `solve` refuses, such as a delay below zero or an input spike that would overtake its
    neighbour, is none that could be judged.
    """

    system: LIFNetwork

    def __init__(self, system: Any, inputs: Any, loss: Callable[[Any], Tensor], solve_kwargs: dict[str, Any]) -> None:
        super().__init__(system, inputs, loss, solve_kwargs)
        self.real: Tensor | None = None
        if isinstance(inputs, SpikeTrains):
            self.real = inputs.idx >= 0
            self.time = inputs.to(dtype=torch.float64).time[self.real].detach().clone().requires_grad_()
            self.leaves |= {"time": self.time} if self.time.numel() else {}
        if isinstance(self.solve_kwargs.get("currents"), Tensor):
            currents = self.solve_kwargs["currents"].detach().double().clone().requires_grad_()
            self.solve_kwargs["currents"] = currents
            self.leaves |= {"currents": currents} if currents.numel() else {}

    def solve(self, adjoint: Any = None, **changed: Any) -> tuple[Tensor, Any]:
        """The loss and the solution, from the input spikes at their present times."""
        if self.real is not None:
            x = self.inputs
            time = self.time.new_full(x.idx.shape, float("inf")).index_put((self.real,), self.time)
            self.inputs = SpikeTrains(x.idx, time, x.n_neurons, x.t_max, x.sign)
        return super().solve(adjoint, **changed)

    def by_the_other_engine(self) -> Gradients:
        """Gradients by the plain code, or by the fused loops where it is the plain code that is judged."""
        other = "fused" if self.solve_kwargs.get("kernels") == "plain" else "plain"
        return self.gradients(None, kernels=other)[2]

    def _initial(self, y0: Sequence[AnyState] | None) -> list[AnyState]:
        batch = self.inputs.batch if isinstance(self.inputs, SpikeTrains) else self.inputs.shape[1]
        y0 = self.system.initial_state(batch) if y0 is None else y0
        states = [state._make(x.detach().double().clone().requires_grad_() for x in state) for state in y0]
        named = {f"y0[{k}].{name}": x for k, state in enumerate(states) for name, x in state._asdict().items()}
        self.leaves |= {name: x for name, x in named.items() if x.numel()}
        return states

    def _branches(self, sol: LIFSolution) -> Tensor:
        """The neuron of every spike of every layer, in order."""
        neurons = [x.idx for x in sol.layer_spikes]
        return torch.cat([part for idx in neurons for part in (idx.new_tensor(idx.shape), idx.flatten())])

    def _spikes(self, sol: LIFSolution) -> int:
        return sum(sol.stats.spikes)
