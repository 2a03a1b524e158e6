"""Synaptic gates: where on the membrane axis a crossing releases charge, equation (1.4).

A gate is a unit density on its active zone. The zone has width Δ and its top edge is the threshold θ; with the zone
coordinate x = (v - θ + Δ)/Δ the gate is g(v) = density(x)/Δ for 0 ≤ x ≤ 1 and zero elsewhere, and G(v) = ∫ g dv is
cumulative(clip(x, 0, 1)). A new gate needs one class with one method: `cumulative`; `density` comes from autograd unless
it is written by hand. Neurons with thresholds ±θ use the mirrored zone as well: g is even, G odd.
"""

from abc import abstractmethod
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor

from adjsnn.checks import Number, positive
from adjsnn.gated.recorded import Recorded
from adjsnn.numerics.scalars import scalar, spread


class Gate(Recorded):
    """Interface of a gate.

    Args:
        width: Δ > 0, the width of the active zone in units of voltage (dimensionless).

    Attributes:
        vanishes_at_edges: density(0) = density(1) = 0; saves masking.

    Raises:
        ConfigurationError: width is not a positive finite number.
    """

    vanishes_at_edges = False

    def __init__(self, width: Number) -> None:
        self.width = positive(
            f"{type(self).__name__} got width",
            width,
            "a positive finite width of the active zone, in units of voltage",
            "a width between 0.02 and 0.5",
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(width={self.width})"

    @abstractmethod
    def cumulative(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """∫₀ˣ density, for x inside [0, 1]; cumulative(0) = 0 and cumulative(1) = 1."""

    def density(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """d cumulative/dx for x inside [0, 1]; override with the closed form where there is one."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            level = spread(self.cumulative(leaf.clone()), leaf)
            if not level.requires_grad:
                return torch.zeros_like(x)
            return torch.autograd.grad(level, leaf, torch.ones_like(leaf))[0]

    def integral(self, v: Float[Tensor, "..."], *, threshold: float, two_sided: bool) -> Float[Tensor, "..."]:
        """G(v) of (1.4): the charge released on the way up to v, from 0 below the zone to 1 above it.

        With `two_sided` the zone below -threshold counts too, negatively.
        """
        # Not |v| and its sign, which have no derivative at 0, where zones that meet there do.
        side = torch.ones_like(v).copysign_(v.detach()) if two_sided else None
        x = self._zone(v if side is None else v * side, threshold).clamp_(0.0, 1.0)
        charge = spread(self.cumulative(x), x)
        return charge if side is None else charge * side

    def slope(self, v: Float[Tensor, "..."], *, threshold: float, two_sided: bool) -> Float[Tensor, "..."]:
        """g(v) = dG/dv of (1.4), in 1/voltage; zero outside the active zone."""
        x = self._zone(v.abs() if two_sided else v, threshold)
        inside = None if self.vanishes_at_edges else (x >= 0.0) & (x <= 1.0)
        density = spread(self.density(x.clamp_(0.0, 1.0)), x)
        # Into the memory of x, which is ours; what a user's density returns may be anything, its own argument included.
        slope = torch.mul(density, 1.0 / self.width, out=None if density.requires_grad or x.requires_grad else x)
        return slope if inside is None else slope.mul_(inside)

    def _zone(self, v: Tensor, threshold: float) -> Tensor:
        """x = (v - θ + Δ)/Δ."""
        return torch.add(scalar(1.0 - threshold / self.width, v.dtype), v, alpha=1.0 / self.width)


class RectangularGate(Gate):
    """Constant gate 1/Δ on the active zone (Huh & Sejnowski 2018, figure 1)."""

    def cumulative(self, x: Tensor) -> Tensor:
        return x

    def density(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


class RaisedCosineGate(Gate):
    """Smooth gate (1 - cos 2πx)/Δ on the active zone; the default."""

    vanishes_at_edges = True

    def cumulative(self, x: Tensor) -> Tensor:
        return torch.add(x, torch.sin(x * scalar(2 * pi, x.dtype)), alpha=-0.5 / pi)

    def density(self, x: Tensor) -> Tensor:
        return torch.cos(x * scalar(2 * pi, x.dtype)).neg_().add_(1.0)
