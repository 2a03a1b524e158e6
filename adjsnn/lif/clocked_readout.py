"""Exact integrals over time of the readout of a network on a clock, and of its square: between steps it only decays."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def filtered(sent: Float[Tensor, "T1 ..."], dt: float, tau: float) -> Float[Tensor, "T1 ..."]:
    """a with τ ȧ = -a + Σ_n sent[n] δ(t - n h) at the times of the grid, just after what is sent there."""
    decay = math.exp(-dt / tau)
    rows: list[Tensor] = []
    for now in (sent / tau).unbind():
        rows.append(now + decay * rows[-1] if rows else now)
    return torch.stack(rows)


def error_integral(o: Float[Tensor, "T1 B C"], target: Float[Tensor, "T1 B C"], dt: float, tau: float) -> Float[Tensor, " B"]:
    """∫ ‖o - o_d‖² dt of each sample, equation (2.17), but for ∫ ‖o_d‖² dt. Between times o decays, and o_d is linear.

    Args:
        o: readout at the times of the grid.
        target: o_d there.
        dt: the step, ms.
        tau: of the readout, ms.
    """
    decay = math.exp(-dt / tau)
    square, whole = tau / 2.0 * -math.expm1(-2.0 * dt / tau), tau * -math.expm1(-dt / tau)
    rising = (tau * whole - tau * dt * decay) / dt  # ∫ e^{-s/τ} s/h ds
    here, y, slope = o[:-1], target[:-1], target[1:] - target[:-1]
    return (square * here.square() - 2.0 * here * (whole * y + rising * slope)).sum((0, 2))


def integral(
    sent: Float[Tensor, "T1 B C"], dt: float, tau: float, start: Float[Tensor, " B"], stop: Float[Tensor, " B"]
) -> Float[Tensor, "B C"]:
    """∫ o dt from `start` to `stop` of each sample, equation (2.18), ms.

    Args:
        sent: W_out S at the times of the grid.
        dt: the step, ms.
        tau: of the readout, ms.
        start: when the windows begin, ms.
        stop: when they end, ms.
    """
    time = dt * torch.arange(len(sent), device=sent.device, dtype=torch.float64)[:, None]
    begin, end = start.double(), stop.double()
    share = torch.exp((time - torch.maximum(begin, time)) / tau) - torch.exp(((time - end) / tau).clamp(max=0.0))
    share = torch.where(time < end, share, 0.0).to(sent)
    return torch.einsum("tb,tbc->bc", share, sent)


def square_integral(a: Float[Tensor, "T1 B N"], dt: float, tau: float) -> Float[Tensor, "B N"]:
    """∫ a² dt, past the end of the grid too, equation (2.19), of a that decays between its times."""
    return tau / 2.0 * (-math.expm1(-2.0 * dt / tau) * a[:-1].square().sum(0) + a[-1].square())
