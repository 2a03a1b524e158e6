"""Smooth systems and the comparison of their gradients, shared by the tests."""

import torch
from torch import Tensor, nn

from adjsnn.adjoints import DiscreteAdjoint
from adjsnn.hybrid.solve import solve_hybrid
from adjsnn.hybrid.system import HybridSystem

F64 = torch.float64
FIXED = ("euler", "heun", "rk4")
ADAPTIVE = ("dopri5", "tsit5")
TIMES = torch.tensor([0.0, 0.3, 0.5, 1.1, 1.2, 2.0, 2.6], dtype=F64)  # ms, uneven on purpose


class Network(HybridSystem):
    """ẏ = -y/τ + tanh(W y + sin t) + tanh(V u), nonlinear in everything and dependent on time."""

    def __init__(self, seed: int = 0, width: int = 3, channels: int = 2, tau: float = 2.0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.w = nn.Parameter(torch.randn(width, width, generator=random, dtype=F64))
        self.v = nn.Parameter(torch.randn(width, channels, generator=random, dtype=F64))
        self.tau = nn.Parameter(torch.tensor(tau, dtype=F64))

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        flow = -y / self.tau + torch.tanh(y @ self.w.T + torch.sin(t))
        return flow if u is None else flow + torch.tanh(u @ self.v.T)


class Drive(nn.Module):
    """u(t) with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.speed = nn.Parameter(torch.tensor([1.0, 2.0], dtype=F64))

    def forward(self, t: Tensor) -> Tensor:
        return torch.sin(t * self.speed)


def problem(mode: str, seed: int = 0, batch: int = 4):
    """A network, its inputs ("held", "callable" or "none"), y0, and the tensors to differentiate by."""
    random = torch.Generator().manual_seed(100 + seed)
    net = Network(seed)
    y0 = torch.randn(batch, 3, generator=random, dtype=F64).requires_grad_()
    u = torch.randn(len(TIMES) - 1, batch, 2, generator=random, dtype=F64).requires_grad_()
    inputs = {"held": u, "none": None, "callable": Drive()}[mode]
    wanted = {"y0": y0, **dict(net.named_parameters())}
    if mode == "held":
        wanted["u"] = u
    elif mode == "callable":
        wanted |= {f"drive.{name}": x for name, x in inputs.named_parameters()}
    else:
        del wanted["v"]
    return net, inputs, y0, wanted


def cost(y: Tensor) -> Tensor:
    """A cost of all output states with different weight at each."""
    weights = torch.linspace(-1.0, 2.0, y.numel(), dtype=y.dtype).view_as(y)
    return (weights * y + 0.5 * (y - weights) ** 2).sum() + (y[-1] ** 3).sum()


def gradients(mode: str, seed: int = 0, **options):
    """The solution of `problem` and dcost/d(each tensor)."""
    net, inputs, y0, wanted = problem(mode, seed)
    solution = solve_hybrid(net, inputs, y0=y0, **({"ts": TIMES} | options))
    return solution, dict(zip(wanted, torch.autograd.grad(cost(solution.y), list(wanted.values())), strict=True))


def relative(found: dict[str, Tensor], judge: dict[str, Tensor]) -> float:
    """Largest difference between gradients, each relative to the largest entry of the judge's."""
    assert found.keys() == judge.keys()
    return max(float((found[k] - judge[k]).abs().max() / judge[k].abs().max()) for k in judge)


def checkpointed(checkpoints: str | int | None) -> DiscreteAdjoint:
    """The discrete adjoint with checkpoints."""
    return DiscreteAdjoint(checkpoints=checkpoints)


def options_for(method: str, tolerance: float = 1e-7) -> dict:
    return {"method": method, "substeps": 2} if method in FIXED else {"method": method, "rtol": tolerance, "atol": tolerance}
