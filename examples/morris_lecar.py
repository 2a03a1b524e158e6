"""Fit the conductances of a Morris–Lecar neuron to a recording of its voltage: `python examples/morris_lecar.py`."""

import torch
from torch import Tensor, nn

import adjsnn
from adjsnn.hybrid.system import HybridSystem


class MorrisLecar(HybridSystem):
    """C v̇ = I - g_L(v - E_L) - g_Ca m∞(v)(v - E_Ca) - g_K w(v - E_K), ẇ = (w∞(v) - w)/τ_w(v), mV, ms, µA/cm², mS/cm²."""

    def __init__(self, g_ca: float, g_k: float) -> None:
        super().__init__()
        self.log_g = nn.Parameter(torch.tensor([g_ca, g_k]).log())

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        v, w = y[:, :1], y[:, 1:]
        g_ca, g_k = self.log_g.exp()
        m_inf = 0.5 * (1 + torch.tanh((v + 1.2) / 18))
        w_inf, rate = 0.5 * (1 + torch.tanh((v - 2) / 30)), 0.04 * torch.cosh((v - 2) / 60)
        dv = (0.0 if u is None else u) - 2 * (v + 60) - g_ca * m_inf * (v - 120) - g_k * w * (v + 84)
        return torch.cat([dv / 20, rate * (w_inf - w)], 1)


def main(iterations: int = 40) -> list[float]:
    """Train, and return the loss, mV², of each iteration."""
    current = torch.tensor([60.0, 90.0, 110.0]).view(1, 3, 1).expand(60, 3, 1)  # three currents, (T, B, 1)
    y0 = torch.tensor([-40.0, 0.0]).expand(3, 2)
    options = {"dt": 1.0, "method": "tsit5", "rtol": 1e-5, "atol": 1e-5, "y0": y0}
    recording = adjsnn.solve(MorrisLecar(4.4, 8.0), current, **options).y[..., 0].detach()
    neuron = MorrisLecar(4.0, 7.0)
    optimizer, losses = torch.optim.Adam(neuron.parameters(), lr=0.02), []
    for _ in range(iterations):
        loss = (adjsnn.solve(neuron, current, **options).y[..., 0] - recording).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print("conductances:", neuron.log_g.exp().tolist(), "of", [4.4, 8.0])
    return losses


if __name__ == "__main__":
    print(*(f"{loss:.4f}" for loss in main()), sep="\n")
