"""An adaptive exponential integrate-and-fire neuron learns when to spike: `python examples/adaptive_neuron.py`."""

import torch
from torch import Tensor, nn

import adjsnn


class AdaptiveNeuron(adjsnn.HybridSystem):
    """τ v̇ = -(v - E) + Δ e^{(v-θ)/Δ} - w + I,  τ_w ẇ = a (v - E) - w;  at v = v_peak: v ← v_r, w ← w + b.  mV, ms."""

    def __init__(self, drive: float, b: float) -> None:
        super().__init__()
        self.drive, self.b = (nn.Parameter(torch.tensor(x, dtype=torch.float64)) for x in (drive, b))
        self.tau_w = 60.0

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        v, w = y.unbind(1)
        upstroke = 2.0 * torch.exp((v.clamp(max=-30.0) + 50.0) / 2.0)
        return torch.stack([(-(v + 70.0) + upstroke - w + self.drive) / 10.0, (0.2 * (v + 70.0) - w) / self.tau_w], 1)

    def guard(self, t: Tensor, y: Tensor) -> Tensor:
        return y[:, :1] + 30.0  # the peak, -30 mV

    def jump(self, t: Tensor, y: Tensor, fired: Tensor) -> Tensor:
        return torch.where(fired, torch.stack([-58.0 + 0.0 * y[:, 0], y[:, 1] + self.b], 1), y)


def main(iterations: int = 120, close: float = 1e-3) -> list[float]:
    """Train until the loss is below `close`, ms², and return that of each iteration; says why it ends.

    It starts with spikes enough: one that is missing has no gradient.
    """
    y0, ts = torch.tensor([[-70.0, 0.0]], dtype=torch.float64), torch.tensor([0.0, 60.0])
    options = {"y0": y0, "ts": ts, "method": "dopri5", "rtol": 1e-5, "atol": 1e-5}
    wanted = adjsnn.solve(AdaptiveNeuron(40.0, 3.0), None, **options).event_times[:, :3].detach()
    neuron = AdaptiveNeuron(50.0, 5.0)
    optimizer, losses, why = torch.optim.Adam(neuron.parameters(), lr=1.0), [], f"after {iterations} iterations"
    for k in range(iterations):
        found = adjsnn.solve(neuron, None, **options).event_times[:, :3]
        if found.shape[1] < 3 or not bool(found.isfinite().all()):
            why = f"in iteration {k}: of three spikes one is missing, and a spike that is missing has no gradient"
            break
        losses.append((found - wanted).square().mean())
        if losses[-1] < close:
            why = f"in iteration {k}: the loss is below {close:g} ms²"
            break
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    print("ended", why, "drive and b:", [round(x.item(), 2) for x in neuron.parameters()], "of", [40.0, 3.0])
    return [loss.item() for loss in losses]


if __name__ == "__main__":
    print(*(f"{loss:.4f}" for loss in main()), sep="\n")
