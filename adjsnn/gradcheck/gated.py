"""What is checked of a gated network."""

import torch
from torch import Tensor

from adjsnn.adjoints import BPTT
from adjsnn.gated.adjoint import GatedChoice
from adjsnn.gated.inheritance import settled
from adjsnn.gated.network import GatedState, GatedSynapseNetwork
from adjsnn.gated.solution import GatedSolution
from adjsnn.gradcheck.probe import Gradients, Probe


class GatedProbe(Probe):
    """Of a gated network, whose solution is smooth while its spikes stay in their steps."""

    system: GatedSynapseNetwork

    def _initial(self, y0: GatedState | None) -> GatedState:
        y0 = self.system.initial_state(self.inputs.shape[1]) if y0 is None else y0
        state = GatedState(*(x.detach().double().clone().requires_grad_() for x in y0))
        self.leaves |= {f"y0.{name}": x for name, x in zip(state._fields, state, strict=True)}
        return state

    def _spikes(self, sol: GatedSolution) -> int:
        return sol.stats.spikes

    def on_the_same_states(self, adjoint: GatedChoice | None) -> tuple[Gradients, Gradients]:
        kernels = "plain" if self.solve_kwargs.get("kernels") == "plain" else "backward"
        return self.gradients(adjoint, kernels=kernels)[2], self.gradients(BPTT())[2]

    def _branches(self, sol: GatedSolution) -> Tensor:
        """Its spikes, and for a gate with edges who is in the zone."""
        crossings = sol.crossings.to(torch.int16)
        gate, neuron = settled(self.system.gate), self.system.neuron
        if gate.vanishes_at_edges:
            return crossings
        height = sol.v[1:].abs() if neuron.two_sided else sol.v[1:]
        return 2 * crossings + (height > neuron.threshold - gate.width)
