"""A neural ODE that learns a spiral from trajectories: `python examples/neural_ode.py`."""

import torch
from torch import Tensor, nn

import adjsnn
from adjsnn.hybrid.system import HybridSystem


class Spiral(HybridSystem):
    """ẏ = A y³, entry by entry cubed."""

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        return y**3 @ torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=y.dtype)


class NeuralODE(HybridSystem):
    """ẏ = a small network of y³."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 2))

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        return self.layers(y**3)


def main(iterations: int = 60) -> list[float]:
    """Train, and return the loss of each iteration."""
    torch.manual_seed(0)
    ts = torch.linspace(0.0, 1.0, 11)
    y0 = torch.rand(32, 2) * 3 - 1.5
    target = adjsnn.solve(Spiral(), None, ts=ts, y0=y0, method="dopri5").y.detach()
    model = NeuralODE()
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.02), []
    for _ in range(iterations):
        loss = (adjsnn.solve(model, None, ts=ts, y0=y0, method="rk4").y - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    print(*(f"{loss:.5f}" for loss in main()), sep="\n")
