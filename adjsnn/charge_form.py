"""A gated network as a hybrid system, in the charge form (1.5): any adaptive method, and every adjoint of such systems."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from adjsnn.errors import ConfigurationError
from adjsnn.gated.inheritance import check_promises, is_own, of_the_base
from adjsnn.gated.membranes import QIF
from adjsnn.gated.network import GatedState, GatedSynapseNetwork
from adjsnn.gated.shapes import gated_tensors
from adjsnn.hybrid.system import HybridSystem
from adjsnn.numerics.scalars import spread


class ChargeForm(HybridSystem):
    """ẏ = f(y, u) with y = (v, r_f, r_s), r = a - G(v)/τ, equation (1.5).

        v̇ = f(v, W_rec a_f + W_in u + b)        ṙ = -a/τ,  a = r + G(v)/τ
        at v = θ:  v ← v_r,  r ← r + (G(θ) - G(v_r))/τ,  so that a is continuous; likewise at -θ with two thresholds

    In these coordinates the costate of v is p_v and those of r are τ p of (1.7)-(1.9), so an adjoint that integrates the
    costate integrates these equations, and the rule for events is (1.12).

    The phase of a QIF neuron counts on through the threshold, and G counts whole turns: nothing is reset, the system is smooth
    and has no events. For other membranes each threshold is a guard, so that `event_times` are the spike times: guard n is
    neuron n at θ, and with two thresholds guard N + n is neuron n at -θ.

    Args:
        net: the network; its parameters are this system's.

    Raises:
        ConfigurationError: not a gated network.
    """

    def __init__(self, net: GatedSynapseNetwork) -> None:
        super().__init__()
        if not isinstance(net, GatedSynapseNetwork):
            raise ConfigurationError(
                f"a system of type {type(net).__name__}",
                "a GatedSynapseNetwork",
                "solving it as it is: adjsnn.solve(system, ...)",
            )
        if not of_the_base(net.neuron, "reset"):
            raise ConfigurationError(
                f"{type(net.neuron).__name__}.reset, which the charge form does not call",
                "a membrane that overrides v_reset at most",
                'adjsnn.solve(net, u, dt=...), method="euler"',
            )
        check_promises(net.neuron, net.gate, net.tensors().constants, net.w_rec)
        self.net = net

    @property
    def turns(self) -> bool:
        """Whether v is a phase that counts on through the threshold: one of QIF itself, not of a subclass."""
        return isinstance(self.net.neuron, QIF) and is_own(self.net.neuron)

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        tensors = gated_tensors(self.net)
        v, a_fast, a_slow = self.state(y)
        drive = tensors.bias if u is None else u @ tensors.w_in.T + tensors.bias
        current = a_fast @ tensors.w_rec.T + drive
        flow = spread(self.net.neuron.flow(v, current, self.net.neuron.prepare(tensors.constants)), v)
        return torch.cat([flow, -a_fast / tensors.tau_fast, -a_slow / tensors.tau_slow], dim=-1)

    def guard(self, t: Tensor, y: Tensor) -> Float[Tensor, "B G"] | None:
        """v - θ of each neuron, and with two thresholds -θ - v; None for phases."""
        if self.turns:
            return None
        v, threshold = y[:, : self.net.n_hidden], self.net.neuron.threshold
        return torch.cat([v - threshold, -threshold - v], 1) if self.net.neuron.two_sided else v - threshold

    def jump(self, t: Tensor, y: Tensor, fired: Bool[Tensor, "B G"]) -> Float[Tensor, "B N3"]:
        """The reset, with the charge released so far moved from G(v) into r."""
        tensors, n = gated_tensors(self.net), self.net.n_hidden
        v, r_fast, r_slow = y.chunk(3, dim=-1)
        spiked = fired[:, :n] | fired[:, n:] if self.net.neuron.two_sided else fired
        after = torch.where(spiked, torch.as_tensor(self.net.neuron.v_reset(tensors.constants), dtype=y.dtype), v)
        released = torch.where(spiked, fired[:, :n].to(y.dtype), 0.0)
        if self.net.neuron.two_sided:
            released = released - fired[:, n:].to(y.dtype)
        # v = ±θ at an event, where G = ±1, so r jumps by a whole charge less what the reset potential still holds.
        released = released - torch.where(spiked, self._charge(after), 0.0)
        return torch.cat([after, r_fast + released / tensors.tau_fast, r_slow + released / tensors.tau_slow], dim=-1)

    def readout(self, y: Tensor) -> Tensor:
        """o = W_out a_s, equation (1.3)."""
        return self.net.readout(self.state(y).a_slow)

    def initial_state(self, batch: int) -> Tensor:
        """Rest, or `from_state` of the network's own initial state."""
        return self.from_state(self.net.initial_state(batch))

    def state(self, y: Float[Tensor, "*T N3"]) -> GatedState:
        """Voltage, or phase still counted on, and synaptic activities of y."""
        tensors = gated_tensors(self.net)
        v, r_fast, r_slow = y.chunk(3, dim=-1)
        charge = self._charge(v)
        return GatedState(v, r_fast + charge / tensors.tau_fast, r_slow + charge / tensors.tau_slow)

    def from_state(self, state: GatedState) -> Float[Tensor, "B N3"]:
        """y of a network state."""
        tensors, charge = gated_tensors(self.net), self._charge(state.v)
        parts = (state.v, state.a_fast - charge / tensors.tau_fast, state.a_slow - charge / tensors.tau_slow)
        return torch.cat(parts, dim=-1)

    def _charge(self, v: Tensor) -> Tensor:
        """G of (1.4); of a phase, counting whole turns."""
        neuron = self.net.neuron
        if not self.turns:
            return self.net.gate.integral(v, threshold=neuron.threshold, two_sided=neuron.two_sided)
        turns = torch.floor(v.detach())
        return turns + self.net.gate.integral(v - turns, threshold=neuron.threshold, two_sided=False)
