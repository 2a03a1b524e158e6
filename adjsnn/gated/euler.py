"""Charge-conserving Euler steps of a gated-synapse network, equation (1.6).

One step from (v, a_f, a_s) of length h:

    I = W_rec a_f + W_in u + b        ṽ = v + h f(v, I)        v⁺ = ṽ, or its reset where ṽ has reached a threshold
    q = G(v⁺) - G(v) + (±1 per threshold crossed)
    a_f ← (1 - h/τ_f) a_f + q/τ_f     a_s ← (1 - h/τ_s) a_s + q/τ_s

`GatedEuler.step` is the only place where this is written. Forward solutions run it into preallocated memory, BPTT runs it on
the tape.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from adjsnn.gated.inheritance import own_step
from adjsnn.gated.membranes import Constants, Partials, partials_by_autograd
from adjsnn.gated.network import GatedTensors
from adjsnn.gated.program import NO_MEMORY, GatedProgram, GatedTrajectory, Located, Step
from adjsnn.numerics.scalars import scalar, spread


class Rates(NamedTuple):
    """What a step needs of the network: W_recᵀ, h/τ_f, h/τ_s, and the membrane's prepared constants."""

    w_rec_t: Tensor
    shrink_fast: Tensor
    shrink_slow: Tensor
    constants: Constants


class GatedEuler(GatedProgram):
    """Charge-conserving Euler steps (1.6)."""

    def rates(self, tensors: GatedTensors) -> Rates:
        """The step's view of the network's tensors."""
        return Rates(
            tensors.w_rec.T.contiguous(),
            self.dt / tensors.tau_fast,
            self.dt / tensors.tau_slow,
            self.neuron.prepare(tensors.constants),
        )

    def step(self, now: Step, drive: Float[Tensor, "B N"], rates: Rates, memory: Step = NO_MEMORY) -> Step:
        """One step of (1.6)."""
        c = rates.constants
        current = torch.addmm(drive, now.a_fast, rates.w_rec_t, out=memory.current)
        moved = self.neuron.advance(now.v, current, c, self.dt)
        v, crossings = self.neuron.reset(moved, current, c, out=memory.v, out_crossings=memory.crossings)
        level = self.charge_level(v)
        charge_rate = (level - now.charge_level).add_(crossings).mul_(scalar(1.0 / self.dt, level.dtype))
        a_fast = torch.lerp(now.a_fast, charge_rate, rates.shrink_fast, out=memory.a_fast)
        a_slow = torch.lerp(now.a_slow, charge_rate, rates.shrink_slow, out=memory.a_slow)
        return Step(v, a_fast, a_slow, current, crossings, level)

    def step_partials(self, v: Tensor, current: Tensor, c: Constants, wanted: tuple[str, ...]) -> Partials:
        """∂ṽ/∂(v, I, c) of `advance`: 1 + h ∂_v f, h ∂_I f and h ∂f/∂c; by autograd where a user wrote another `advance`."""
        if not own_step(self.neuron):
            step = self.neuron.advance
            return partials_by_autograd(lambda v, i, c: step(v, i, self.neuron.prepare(c), self.dt), v, current, c)
        d_v, d_current, d_constants = self.partials_as_given(v, current, c, wanted)
        h = scalar(self.dt, v.dtype)
        d_step = torch.as_tensor(d_v, dtype=v.dtype, device=v.device).mul(h).add_(1.0)  # small where it is one number
        d_constants = {name: spread(x * h, v) for name, x in d_constants.items()}
        return Partials(spread(d_step, v), spread(d_current * h, v), d_constants)

    def locate(self, tensors: GatedTensors, u: Tensor, trajectory: GatedTrajectory) -> Located:
        """Within an Euler step v moves on a straight line."""
        with torch.no_grad():
            spiked = trajectory.crossings.nonzero(as_tuple=True)
            v, current, crossings = trajectory.v[:-1][spiked], trajectory.current[spiked], trajectory.crossings[spiked]
            constants = {name: x.detach()[spiked[2]] if x.dim() else x.detach() for name, x in tensors.constants.items()}
            constants = self.neuron.prepare(constants)
            moved = self.neuron.advance(v, current, constants, self.dt)
            level = self.first_level(v, moved)
            fraction = (level - v) / (moved - v)
            step, sample, neuron = spiked
            speed = spread(self.neuron.speed_at_threshold(moved, current, constants), moved)
            return Located(step, sample, neuron, crossings, v, moved, fraction, speed)
