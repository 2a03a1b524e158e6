"""Learn the couplings of a FitzHugh–Nagumo network from the voltages of another one: `python examples/fitzhugh_nagumo.py`."""

import torch
from torch import Tensor, nn

import adjsnn
from adjsnn.hybrid.system import HybridSystem


class FitzHughNagumo(HybridSystem):
    """N neurons with diffusive coupling W: v̇ = v - v³/3 - w + I + Σ_m W_nm (v_m - v_n), ẇ = (v + 0.7 - 0.8 w)/12.5."""

    def __init__(self, coupling: Tensor) -> None:
        super().__init__()
        self.coupling = nn.Parameter(coupling)

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        v, w = y.chunk(2, dim=1)
        current = v @ self.coupling.T - v * self.coupling.sum(1)
        dv = v - v**3 / 3 - w + current + (0.0 if u is None else u)
        return torch.cat([dv, (v + 0.7 - 0.8 * w) / 12.5], 1)

    def readout(self, y: Tensor) -> Tensor:
        return y.chunk(2, dim=1)[0]


def main(iterations: int = 30) -> list[float]:
    """Train, and return the loss of each iteration."""
    torch.manual_seed(0)
    n, batch, steps = 4, 8, 20
    teacher, student = FitzHughNagumo(0.3 * torch.rand(n, n)), FitzHughNagumo(torch.zeros(n, n))
    current = torch.rand(1, batch, n).expand(steps, -1, -1)  # (T, B, N), held over each ms
    y0 = torch.randn(batch, 2 * n)
    target = adjsnn.solve(teacher, current, dt=1.0, substeps=4, y0=y0).readout.detach()
    optimizer, losses = torch.optim.Adam(student.parameters(), lr=0.05), []
    for _ in range(iterations):
        loss = (adjsnn.solve(student, current, dt=1.0, substeps=4, y0=y0).readout - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    print(*(f"{loss:.5f}" for loss in main()), sep="\n")
