"""A random smooth network to try things on: a leaky, coupled one with a time constant that is known."""

import math

import torch
from torch import Tensor, nn

from adjsnn.systems.hybrid import HybridSystem

DRIVE = 2.0 * math.pi / 30.0  # of the input that every unit gets at a phase of its own, rad/ms


class LeakyNetwork(HybridSystem):
    """Rate units: τ ẏ = -y + tanh(W y + b + sin(ωt + φ)), all of one time constant.

    Args:
        width: number of units D.
        tau: time constant τ, ms.
        gain: standard deviation of W times √D.
        seed: of W, b and φ.
    """

    phase: Tensor

    def __init__(self, width: int, tau: float = 10.0, gain: float = 0.8, seed: int = 0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.w = nn.Parameter(gain / math.sqrt(width) * torch.randn(width, width, generator=random, dtype=torch.float64))
        self.b = nn.Parameter(0.3 * torch.randn(width, generator=random, dtype=torch.float64))
        self.tau = nn.Parameter(torch.tensor(tau, dtype=torch.float64))
        self.register_buffer("phase", 2.0 * math.pi * torch.rand(width, generator=random, dtype=torch.float64))

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        """dy/dt, (B, D), per ms; `u` is not used."""
        del u
        return (torch.tanh(y @ self.w.T + self.b + torch.sin(DRIVE * t + self.phase)) - y) / self.tau


def initial_states(batch: int, width: int, seed: int = 0) -> Tensor:
    """Random initial states, (B, D), float64."""
    random = torch.Generator().manual_seed(1000 + seed)
    return 0.5 * torch.randn(batch, width, generator=random, dtype=torch.float64)
