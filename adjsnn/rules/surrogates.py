"""What stands in for the derivative of a spike, equation (5.2): shapes σ′(x) of x = v - v_th."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import pi
from typing import Any, ClassVar

import torch
from torch import Tensor

from adjsnn.checks import Number, flag, positive
from adjsnn.lif.clocked import Slope


@dataclass(frozen=True)
class Surrogate(ABC):
    """σ′ in place of Θ′ on the way back; spikes stay Θ(x).

    A new shape is a subclass with `shape`, of height 1, and `area`, ∫ shape(x) dx.

    Args:
        slope: γ, 1/voltage: the larger, the narrower.
        normalised: whether ∫ σ′ dx = 1, as of Θ′; else its height is 1, as most codes have it.

    Raises:
        ConfigurationError: a slope that is not positive.
    """

    slope: Number = 10.0
    normalised: bool = False
    area: ClassVar[float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "slope", positive("slope", self.slope, "a positive number, in 1/voltage", "slope=10.0"))
        object.__setattr__(self, "normalised", flag("normalised", self.normalised))

    @abstractmethod
    def shape(self, x: Tensor) -> Tensor:
        """σ′ as a function of γ x, of height 1. The tensor is the method's own, and may become the result."""

    def derivative(self, x: Tensor) -> Tensor:
        """σ′(x) of x = v - v_th, in units of voltage."""
        shape = self.shape(float(self.slope) * x)
        return shape * (float(self.slope) / self.area) if self.normalised else shape

    @property
    def loops(self) -> Slope | None:
        """What compiled loops know of it; None for a shape that they do not know, a subclass's own or one put in its place."""
        known, slope = LOOPS.get((type(self).shape, type(self).derivative)), float(self.slope)
        return None if known is None else Slope(known, slope, slope / self.area if self.normalised else 1.0)

    def fire(self, x: Tensor) -> Tensor:
        """Θ(x): 1 where x ≥ 0, else 0, with σ′ for its derivative."""
        result: Tensor = _Fired.apply(x, self)  # pyright: ignore[reportAssignmentType]
        return result


class _Fired(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, surrogate):
        ctx.surrogate = surrogate
        ctx.save_for_backward(x)
        return (x >= 0.0).to(x.dtype)

    @staticmethod
    def backward(ctx, *cotangents):
        (x,) = ctx.saved_tensors
        return cotangents[0] * ctx.surrogate.derivative(x), None


class FastSigmoid(Surrogate):
    """1/(1 + γ|x|)², of SuperSpike (Zenke and Ganguli 2018); γ = 10 at a threshold of 1 is their 1/mV at one of 10 mV."""

    area = 2.0

    def shape(self, x: Tensor) -> Tensor:
        return x.abs_().add_(1.0).square_().reciprocal_()


class Triangle(Surrogate):
    """max(0, 1 - γ|x|), of Bellec et al. 2018."""

    area = 1.0

    def shape(self, x: Tensor) -> Tensor:
        return x.abs_().neg_().add_(1.0).clamp_(min=0.0)


class RectifiedLinear(Surrogate):
    """max(0, 1 + γx) below the threshold, 0 above: the derivative of a truncated quadratic, of Bohte 2011."""

    area = 0.5

    def shape(self, x: Tensor) -> Tensor:
        return torch.where(x <= 0.0, (1.0 + x).clamp_(min=0.0), 0.0)


class Exponential(Surrogate):
    """e^{-γ|x|}, of SLAYER (Shrestha and Orchard 2018)."""

    area = 2.0

    def shape(self, x: Tensor) -> Tensor:
        return x.abs_().neg_().exp_()


class Boxcar(Surrogate):
    """1 where γ|x| < 1, else 0, of eRBP (Neftci et al. 2017)."""

    area = 2.0

    def shape(self, x: Tensor) -> Tensor:
        return (x.abs_() < 1.0).to(x.dtype)


class Arctangent(Surrogate):
    """1/(1 + (γx)²), the derivative of an arctangent."""

    area = pi

    def shape(self, x: Tensor) -> Tensor:
        return x.square_().add_(1.0).reciprocal_()


LOOPS: dict[Any, str] = {
    (shape.shape, Surrogate.derivative): name
    for shape, name in (
        (FastSigmoid, "fast sigmoid"),
        (Triangle, "triangle"),
        (RectifiedLinear, "rectified linear"),
        (Boxcar, "boxcar"),
        (Arctangent, "arctangent"),
    )
}
