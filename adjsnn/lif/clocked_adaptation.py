"""What a neuron's own spikes trigger, on a clock: currents and parts of its threshold, equation (5.1a)."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Adaptation(NamedTuple):
    """Of a layer, in steps of h.

    Attributes:
        decay_a: e^{-h/τ_a} of spike-triggered currents, (J, N).
        gain_a: κ_a = K(h)/τ_m, what one of 1 adds to the voltage in a step, (J, N).
        jump_a: Δa, (J, N).
        scale_a: f, (J, N).
        decay_h: e^{-h/τ_h} of parts of the threshold, (H, N).
        jump_h: Δh, (H, N).
        scale_h: g, (H, N).
    """

    decay_a: Float[Tensor, "J N"]
    gain_a: Float[Tensor, "J N"]
    jump_a: Float[Tensor, "J N"]
    scale_a: Float[Tensor, "J N"]
    decay_h: Float[Tensor, "H N"]
    jump_h: Float[Tensor, "H N"]
    scale_h: Float[Tensor, "H N"]

    def threshold(self, v_th: Float[Tensor, " N"], h: Float[Tensor, "*T B H N"]) -> Float[Tensor, "..."]:
        """θ = v_th + Σ_m h_m, in this order."""
        theta = v_th
        for part in h.unbind(-2):
            theta = theta + part
        return theta

    def driven(self, v: Float[Tensor, "B N"], a: Float[Tensor, "B J N"]) -> Float[Tensor, "B N"]:
        """v and what the currents add to it in a step."""
        for gain, part in zip(self.gain_a, a.unbind(-2), strict=True):
            v = v + gain * part
        return v

    def after(
        self, s: Float[Tensor, "B N"], a: Float[Tensor, "B J N"], h: Float[Tensor, "B H N"]
    ) -> tuple[Float[Tensor, "B J N"], Float[Tensor, "B H N"]]:
        """a⁺ and h⁺: S jumps, with its gradient."""
        s = s[:, None]
        return a + s * self.of_spike_a(a), h + s * self.of_spike_h(h)

    def of_spike_a(self, a: Float[Tensor, "B J N"]) -> Float[Tensor, "B J N"]:
        """∂a⁺/∂S."""
        return (self.scale_a - 1.0) * a + self.jump_a

    def of_spike_h(self, h: Float[Tensor, "B H N"]) -> Float[Tensor, "B H N"]:
        """∂h⁺/∂S."""
        return (self.scale_h - 1.0) * h + self.jump_h

    def raised(self, h: Float[Tensor, "T1 B H N"], start: Float[Tensor, "B H N"]) -> Float[Tensor, "T1 B N"]:
        """θ - v_th before the spikes of each step, of h after them."""
        before = torch.cat([start[None], self.decay_h * h[:-1]])
        return self.threshold(before.new_zeros(before.shape[-1]), before).expand(*before.shape[:2], -1)
