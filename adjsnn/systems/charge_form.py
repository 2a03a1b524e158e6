"""A gated network of QIF neurons as a smooth system, in the charge form (1.5): any method and adjoint for smooth systems."""

import torch
from jaxtyping import Float
from torch import Tensor

from adjsnn.errors import ConfigurationError
from adjsnn.systems.gated_network import GatedState, GatedSynapseNetwork
from adjsnn.systems.hybrid import HybridSystem
from adjsnn.systems.membranes import QIF


class ChargeForm(HybridSystem):
    """ẏ = f(y, u) with y = (v, r_f, r_s), r = a - G(v)/τ, equation (1.5), for a network of QIF neurons.

        v̇ = f(v, W_rec a_f + W_in u + b)        ṙ = -a/τ,  a = r + G(v)/τ

    The phase v counts on through the threshold and G counts whole turns, so nothing is reset and nothing jumps.

    Args:
        net: the network; its parameters are this system's.

    Raises:
        ConfigurationError: a membrane whose reset is not a pure wrap of a periodic flow.
    """

    def __init__(self, net: GatedSynapseNetwork) -> None:
        super().__init__()
        if not isinstance(net, GatedSynapseNetwork) or not isinstance(net.neuron, QIF):
            what = f"a network of {net.neuron!r} neurons" if isinstance(net, GatedSynapseNetwork) else type(net).__name__
            raise ConfigurationError(
                what,
                "a GatedSynapseNetwork of QIF neurons: other membranes jump at their resets",
                'adjsnn.solve(net, u, dt=..., method="rk4"), whose steps hold resets',
            )
        self.net = net

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        tensors = self.net.tensors()
        v, a_fast, a_slow = self.state(y)
        drive = tensors.bias if u is None else u @ tensors.w_in.T + tensors.bias
        current = a_fast @ tensors.w_rec.T + drive
        flow = self.net.neuron.flow(v, current, self.net.neuron.prepare(tensors.constants))
        return torch.cat([flow, -a_fast / tensors.tau_fast, -a_slow / tensors.tau_slow], dim=-1)

    def readout(self, y: Tensor) -> Tensor:
        """o = W_out a_s, equation (1.3)."""
        return self.net.readout(self.state(y).a_slow)

    def initial_state(self, batch: int) -> Tensor:
        """Rest, or `from_state` of the network's own initial state."""
        return self.from_state(self.net.initial_state(batch))

    def state(self, y: Float[Tensor, "*T N3"]) -> GatedState:
        """Phase, still counted on, and synaptic activities of y."""
        tensors = self.net.tensors()
        v, r_fast, r_slow = y.chunk(3, dim=-1)
        charge = self._charge(v)
        return GatedState(v, r_fast + charge / tensors.tau_fast, r_slow + charge / tensors.tau_slow)

    def from_state(self, state: GatedState) -> Float[Tensor, "B N3"]:
        """y of a network state."""
        tensors, charge = self.net.tensors(), self._charge(state.v)
        parts = (state.v, state.a_fast - charge / tensors.tau_fast, state.a_slow - charge / tensors.tau_slow)
        return torch.cat(parts, dim=-1)

    def _charge(self, v: Tensor) -> Tensor:
        """G of (1.4), counting whole turns."""
        turns = torch.floor(v.detach())
        return turns + self.net.gate.integral(v - turns, threshold=self.net.neuron.threshold, two_sided=False)
