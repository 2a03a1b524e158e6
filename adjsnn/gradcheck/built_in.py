"""Random networks to try things on: a smooth, leaky one with a time constant that is known, and a LIF network of everything."""

import math

import torch
from torch import Tensor, nn

from adjsnn.hybrid.system import HybridSystem
from adjsnn.lif.network import LEARNABLE, LIFNetwork
from adjsnn.spikes import SpikeTrains

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


def lif_problem(n_hidden: int, batch: int, t_end: float, seed: int = 0) -> tuple[LIFNetwork, SpikeTrains]:
    """A recurrent layer and three readout neurons in which everything is learnt, and its input spikes, in float64."""
    random = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=random, dtype=torch.float64)

    n_in, sizes = 5, (n_hidden, 3)
    lif = LIFNetwork(
        n_in, sizes, recurrent=(True, False), tau_mem=tuple(between(10.0, 20.0, n) for n in sizes),
        tau_syn=tuple(between(4.0, 6.0, n) for n in sizes), v_th=tuple(between(0.9, 1.1, n) for n in sizes),
        v_reset=tuple(between(-0.3, 0.1, n) for n in sizes), bias=tuple(between(0.1, 0.6, n) for n in sizes),
        refractory=tuple(between(0.5, 2.0, n) for n in sizes), delays=(between(0.5, 4.0, n_in), between(0.5, 4.0, 3, n_hidden)),
        rec_delays=(between(0.5, 4.0, n_hidden), None), learn=LEARNABLE, generator=random, dtype=torch.float64,
    )  # fmt: skip
    count = max(4, int(t_end / 5.0))
    time = between(0.0, 0.8 * t_end, batch, count).sort(1).values
    return lif, SpikeTrains(torch.randint(0, n_in, (batch, count), generator=random), time, n_in, t_end)
