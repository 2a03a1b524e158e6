"""Filtered linear readout of a layer's spikes at given times, in closed form between them."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from adjsnn.adjoints.event_exact import LayerResult


class Readout(NamedTuple):
    """w_out (C, N), and the time constant of the filter, ms."""

    w_out: Tensor
    tau_out: float


def filtered_readout(readout: Readout, result: LayerResult, ts: Float[Tensor, " T"]) -> Float[Tensor, "T B C"]:
    """o = W_out a with τ_out ȧ = -a + Σ_k δ(t - t_k) at the times ts, equation (2.13); a spike at one of them counts there."""
    w_out, tau = readout
    spikes, time = result.run.spikes, result.time
    first = np.searchsorted(ts.detach().double().cpu().numpy(), time.detach().double().cpu().numpy())
    seen = np.flatnonzero(first < len(ts))
    step, sample, neuron = (
        torch.from_numpy(x[seen]).to(time.device)
        for x in (first, np.repeat(np.arange(spikes.batch), np.diff(spikes.first)), spikes.neuron)
    )
    kept = torch.from_numpy(seen).to(time.device)
    share = torch.exp((time[kept] - ts[step]) / tau) / tau
    new = w_out.new_zeros(len(ts), spikes.batch, len(w_out))
    new = new.index_put((step, sample), share[:, None] * w_out.T[neuron], accumulate=True)
    decays = torch.exp(-ts.diff(prepend=ts[:1]) / tau).tolist()
    rows = [new[0]]
    for decay, row in zip(decays[1:], new.unbind()[1:], strict=True):
        rows.append(decay * rows[-1] + row)
    return torch.stack(rows)
