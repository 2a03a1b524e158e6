"""Membrane models v̇ = f(v, I) of the gated-synapse network, equation (1.1), and their resets, (1.6).

A new membrane needs one class with its `constants` and its `flow`; everything else has a default. Partial derivatives come
from autograd unless `flow_partials` is written by hand, and the reset is the one of (1.6),

    v⁺ = v_r + (ṽ - θ) ρ,     ρ = f(v_r, I) / f(θ, I),

which carries the part of the step after the crossing on from the reset potential.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from math import pi
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from adjsnn.checks import Number, number, positive
from adjsnn.gated.recorded import Recorded
from adjsnn.numerics.scalars import scalar, spread

Constants = Mapping[str, Tensor]


class Partials(NamedTuple):
    """Element-wise partial derivatives of a flow or a reset.

    Attributes:
        d_v: with respect to the voltage.
        d_current: with respect to I.
        d_constants: with respect to each constant, by name.
    """

    d_v: Tensor
    d_current: Tensor
    d_constants: dict[str, Tensor]


class Membrane(Recorded):
    """Interface of a membrane. Instances hold configuration only; the mathematics is pure.

    Attributes:
        constants: initial values of the named constants; a network turns each into a Parameter.
        time_constants: the names among them that are times in ms and bound the step from above.
        threshold: θ, dimensionless.
        two_sided: thresholds at ±θ, both with reset to 0; a negative spike releases negative charge.
        wraps: θ = 1, v_r = 0 and f(θ, I) = f(0, I) for every I, so that ρ = 1 and the reset is a pure translation.
    """

    time_constants: tuple[str, ...] = ()
    threshold: float = 1.0
    two_sided: bool = False
    wraps: bool = False

    def __init__(self, **constants: Number) -> None:
        self.constants: dict[str, float] = {}
        for name, value in constants.items():
            seen = f"{type(self).__name__} got {name}"
            if name in self.time_constants:
                self.constants[name] = positive(seen, value, remedy=f"{name}=20.0")
            else:
                self.constants[name] = number(seen, value, remedy=f"{name}=0.0")

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value}" for name, value in self.constants.items())
        return f"{type(self).__name__}({inside})"

    def prepare(self, c: Constants) -> Constants:
        """What `flow` reads, from the constants as tensors () or (N,): the constants and, where an override adds them,
        quantities of the constants alone that are then computed once per solve instead of once per step."""
        return c

    @abstractmethod
    def flow(self, v: Float[Tensor, "..."], current: Float[Tensor, "..."], c: Constants) -> Float[Tensor, "..."]:
        """dv/dt = f(v, I), in 1/ms, element by element; `c` comes from `prepare`."""

    def advance(self, v: Float[Tensor, "..."], current: Float[Tensor, "..."], c: Constants, h: float) -> Float[Tensor, "..."]:
        """ṽ = v + h f(v, I) of (1.6); an override may save an operation."""
        return torch.add(v, self.flow(v, current, c), alpha=h)

    def flow_partials(
        self, v: Float[Tensor, "..."], current: Float[Tensor, "..."], c: Constants, wanted: Sequence[str] = ()
    ) -> Partials:
        """∂f/∂v, ∂f/∂I, and ∂f/∂(constant) of those `wanted`, by autograd; override with closed forms for speed.

        Args:
            v: voltage, (...).
            current: I, (...).
            c: the constants.
            wanted: names of constants; derivatives with respect to others may be left out.
        """
        return partials_by_autograd(lambda v, current, c: self.flow(v, current, self.prepare(c)), v, current, c)

    def v_reset(self, c: Constants) -> Tensor | float:
        """v_r, the potential right after a spike located exactly at the threshold."""
        return c.get("v_reset", 0.0)

    def reset(
        self,
        v: Float[Tensor, "..."],
        current: Float[Tensor, "..."],
        c: Constants,
        *,
        out: Tensor | None = None,
        out_crossings: Tensor | None = None,
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """State after a step, (1.6): ṽ where no threshold was reached, the reset elsewhere.

        Args:
            v: ṽ, the voltage at the end of the step's flow.
            current: I of the step.
            c: from `prepare`.
            out: memory for v⁺; none under autograd.
            out_crossings: memory for the crossings, likewise.

        Returns:
            v⁺ and the signed number of thresholds crossed: 0 or 1, with two thresholds also -1. Its derivative is 0.
        """
        if self.wraps:  # θ = 1, v_r = 0: the fractional part is the reset, the integer part counts crossings
            wrapped = torch.frac(v, out=out)
            return wrapped, torch.sub(v, wrapped, out=out_crossings)
        upward = v >= self.threshold
        spiked = upward | (v <= -self.threshold) if self.two_sided else upward
        v_reset, threshold = self._levels(v, c)
        # The denominator is replaced only where no reset takes place, so that autograd meets no 0/0 in the unused branch.
        speed = torch.where(spiked, self.flow(threshold, current, c), scalar(1.0, v.dtype))
        ratio = self.flow(v_reset, current, c) / speed
        after = torch.where(spiked, v_reset + (v - threshold) * ratio, v, out=out)
        return after, torch.mul(spiked, v.sign(), out=out_crossings)

    def reset_partials(self, v: Float[Tensor, " S"], current: Float[Tensor, " S"], c: Constants) -> Partials:
        """Partial derivatives of v⁺ at S spikes; `c` holds each constant as () or (S,)."""
        return partials_by_autograd(lambda v, current, c: self.reset(v, current, self.prepare(c))[0], v, current, c)

    def speed_at_threshold(self, v: Float[Tensor, " S"], current: Float[Tensor, " S"], c: Constants) -> Float[Tensor, " S"]:
        """f(θ, I) of S spikes, 1/ms; `v` gives the side of the threshold."""
        return self.flow(self._levels(v, c)[1], current, c)

    def _levels(self, v: Tensor, c: Constants) -> tuple[Tensor, Tensor]:
        """v_r and θ, of the shape of v; with two thresholds θ takes the sign of v."""
        threshold = torch.full_like(v, self.threshold)
        return self.v_reset(c) + torch.zeros_like(v), threshold * v.sign() if self.two_sided else threshold


class NIF(Membrane):
    """Non-leaky integrate-and-fire: f = I, thresholds ±1, reset 0 (Huh & Sejnowski 2018)."""

    two_sided = True
    wraps = True

    def __init__(self) -> None:
        super().__init__()

    def flow(self, v: Tensor, current: Tensor, c: Constants) -> Tensor:
        return current

    def flow_partials(self, v: Tensor, current: Tensor, c: Constants, wanted: Sequence[str] = ()) -> Partials:
        return Partials(torch.zeros_like(v), torch.ones_like(v), {})


class LIF(Membrane):
    """Leaky integrate-and-fire: f = (-v + I)/τ_m, threshold 1, reset v_r.

    Args:
        tau_mem: τ_m, ms.
        v_reset: v_r, dimensionless, below the active zone of the gate.
    """

    time_constants = ("tau_mem",)

    def __init__(self, tau_mem: Number = 20.0, v_reset: Number = 0.0) -> None:
        super().__init__(tau_mem=tau_mem, v_reset=v_reset)

    def flow(self, v: Tensor, current: Tensor, c: Constants) -> Tensor:
        return (current - v) / c["tau_mem"]

    def flow_partials(self, v: Tensor, current: Tensor, c: Constants, wanted: Sequence[str] = ()) -> Partials:
        rate = (1.0 / c["tau_mem"]).expand_as(v)
        d_constants = {}
        if "tau_mem" in wanted:
            d_constants["tau_mem"] = (v - current) * rate * rate
        if "v_reset" in wanted:
            d_constants["v_reset"] = torch.zeros_like(v)
        return Partials(-rate, rate, d_constants)


class QIF(Membrane):
    """Quadratic integrate-and-fire in phase form: f = (1 + cos 2πv)/τ_v + (1 - cos 2πv) I.

    v = 1 and v = 0 are the same phase, so the reset is a pure wrap (Huh & Sejnowski 2018).

    Args:
        tau_v: τ_v, ms.
    """

    time_constants = ("tau_v",)
    wraps = True

    def __init__(self, tau_v: Number = 25.0) -> None:
        super().__init__(tau_v=tau_v)

    def prepare(self, c: Constants) -> Constants:
        rate = c["tau_v"].reciprocal()
        return {**c, "rate": rate}

    def flow(self, v: Tensor, current: Tensor, c: Constants) -> Tensor:
        return 2.0 * self._half_flow(v, current, c)

    def advance(self, v: Tensor, current: Tensor, c: Constants, h: float) -> Tensor:
        return torch.add(v, self._half_flow(v, current, c), alpha=2.0 * h)

    def _half_flow(self, v: Tensor, current: Tensor, c: Constants) -> Tensor:
        """f/2 = 1/τ_v + sin² πv (I - 1/τ_v), by 1 - cos 2πv = 2 sin² πv."""
        half_sine = torch.sin(v * scalar(pi, v.dtype))
        return torch.lerp(c["rate"], current, half_sine * half_sine)

    def flow_partials(self, v: Tensor, current: Tensor, c: Constants, wanted: Sequence[str] = ()) -> Partials:
        rate = c["tau_v"].reciprocal()
        phase = v * scalar(2 * pi, v.dtype)
        cosine = torch.cos(phase)
        d_v = phase.sin_().mul_(current - rate).mul_(scalar(2 * pi, v.dtype))
        d_constants = {"tau_v": (1.0 + cosine) * (-rate * rate)} if "tau_v" in wanted else {}
        return Partials(d_v, 1.0 - cosine, d_constants)


def partials_by_autograd(function, v: Tensor, current: Tensor, c: Constants) -> Partials:
    """Element-wise partials: every argument is expanded to the shape of v, so that d(sum)/d(entry) is the wanted slope."""
    with torch.enable_grad():
        arguments = [v.detach().clone().requires_grad_(), current.detach().clone().requires_grad_()]
        arguments += [c[name].detach().expand_as(v).clone().requires_grad_() for name in c]
        value = spread(function(arguments[0], arguments[1], dict(zip(c, arguments[2:], strict=True))), v)
        if value.requires_grad:
            slopes = torch.autograd.grad(value, arguments, torch.ones_like(v), materialize_grads=True)
        else:  # a constant
            slopes = [torch.zeros_like(x) for x in arguments]
    return Partials(slopes[0], slopes[1], dict(zip(c, slopes[2:], strict=True)))
