"""Filtered spikes of a layer: the linear readout at given times, and exact integrals over time of it and of its square."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from adjsnn.checks import real
from adjsnn.errors import ConfigurationError
from adjsnn.lif.layer import sample_of
from adjsnn.lif.run import LayerResult
from adjsnn.numerics.pair_sums import pair_sums


class Readout(NamedTuple):
    """w_out (C, N), and the time constant of the filter, ms."""

    w_out: Tensor
    tau_out: float


def windows(start: object, stop: object, batch: int) -> tuple[Tensor, Tensor]:
    """Windows of each sample, ms, as `readout_integral` of a solution takes them.

    Raises:
        ConfigurationError: of another shape, or backward in time.
    """
    begin, end = (
        real(name, x, "a time in ms for each sample, (B,)", "torch.full((B,), 10.0)").detach()
        for name, x in (("start", start), ("stop", stop))
    )
    if begin.shape != (batch,) or end.shape != (batch,) or bool((end < begin).any()):
        raise ConfigurationError(
            f"windows of shapes {tuple(begin.shape)} and {tuple(end.shape)}",
            f"two of ({batch},), start ≤ stop",
            "one for each sample",
        )
    return begin, end


def target_at(target: object, shape: tuple[int, ...]) -> Tensor:
    """Values of the readout at the times ts.

    Raises:
        ConfigurationError: of another shape, or fewer than two times.
    """
    if shape[0] < 2:
        raise ConfigurationError(
            f"the readout of a solve with {shape[0]} times ts", "at least 2 to read it at", "solve(..., ts=...)"
        )
    wanted = real("target", target, "values of the readout at the times ts", "torch.as_tensor(target)")
    if wanted.shape != shape:
        raise ConfigurationError(
            f"a target of shape {tuple(wanted.shape)}", f"{shape}, as sol.readout", "one value at each of ts"
        )
    return wanted


def filtered_readout(readout: Readout, result: LayerResult, ts: Float[Tensor, " T"]) -> Float[Tensor, "T B C"]:
    """o = W_out a with τ_out ȧ = -a + Σ_k δ(t - t_k) at the times ts, equation (2.13); a spike at one of them counts there."""
    w_out, tau = readout
    spikes, time = result.run.spikes, result.time
    first = torch.searchsorted(ts.detach().double(), time.detach().double())
    counted = (first < len(ts)).nonzero()[:, 0]
    step, sample, neuron = first[counted], sample_of(spikes)[counted], spikes.neuron[counted]
    share = torch.exp((time[counted] - ts[step]) / tau) / tau
    new = w_out.new_zeros(len(ts), spikes.batch, len(w_out))
    new = new.index_put((step, sample), share[:, None] * w_out[:, neuron].T, accumulate=True)
    decays = torch.exp(-ts.diff(prepend=ts[:1]) / tau).tolist()
    readouts = [new[0]]
    for decay, added in zip(decays[1:], new.unbind()[1:], strict=True):
        readouts.append(decay * readouts[-1] + added)
    return torch.stack(readouts)


def readout_error(
    readout: Readout, result: LayerResult, ts: Float[Tensor, " T"], target: Float[Tensor, "T B C"]
) -> Float[Tensor, " B"]:
    """∫ ‖o - o_d‖² dt over ts[0] … ts[-1] for each sample, equation (2.17), in float64; the target is linear between ts."""
    w_out, tau = readout[0].double(), readout.tau_out
    ts, target = ts.double(), target.double()
    spikes = result.run.spikes
    sample = sample_of(spikes)
    early = (ts[0] - result.time).clamp(min=0.0)  # a spike before ts[0] is there what it has decayed to
    time = result.time.double() + early
    inside = time <= ts[-1]
    w = w_out[:, spikes.neuron].T * (torch.exp(-early.double() / tau) * inside)[:, None]
    time = time.clamp(max=float(ts[-1]))
    pairs = pair_sums(time, w, spikes.first, tau)
    last = w.new_zeros(spikes.batch, len(w_out)).index_add(0, sample, w * torch.exp((time - ts[-1]) / tau)[:, None])
    overlap = w.new_zeros(spikes.batch).index_add(0, sample, (w * _target_ahead(ts, target, tau, time, sample)).sum(1))
    return pairs / tau - last.square().sum(1) / (2.0 * tau) - 2.0 * overlap + target_square(ts, target)


def readout_integral(
    readout: Readout, result: LayerResult, start: Float[Tensor, " B"], stop: Float[Tensor, " B"]
) -> Float[Tensor, "B C"]:
    """∫ o dt from `start` to `stop` of each sample, equation (2.18)."""
    w_out, tau = readout
    spikes, time = result.run.spikes, result.time
    sample = sample_of(spikes)
    begin, end = start[sample].to(time), stop[sample].to(time)
    share = torch.exp((time - torch.maximum(begin, time)) / tau) - torch.exp(((time - end) / tau).clamp(max=0.0))
    share = torch.where(time < end, share, 0.0)
    columns = w_out[:, spikes.neuron].T
    return w_out.new_zeros(spikes.batch, len(w_out)).index_add(0, sample, share[:, None] * columns)


def squared_activity(result: LayerResult, neurons: int, tau: float) -> Float[Tensor, "B N"]:
    """∫ a² dt of each neuron's spikes filtered with `tau`, past the end of the trial too, 1/ms, equation (2.19), in float64."""
    spikes = result.run.spikes
    flat = sample_of(spikes) * neurons + spikes.neuron
    order = flat.argsort(stable=True)
    first = torch.searchsorted(flat[order], torch.arange(spikes.batch * neurons + 1, device=flat.device))
    time = result.time.double()[order]
    return pair_sums(time, torch.ones_like(time)[:, None], first, tau).view(spikes.batch, neurons) / tau


def target_square(ts: Float[Tensor, " T"], target: Float[Tensor, "T B C"]) -> Float[Tensor, " B"]:
    """∫ ‖o_d‖² dt of a target that is linear between the times ts."""
    y, z = target[:-1], target[1:]
    return ts.diff() @ (y.square() + y * z + z.square()).sum(2) / 3.0


def _target_ahead(ts: Tensor, target: Tensor, tau: float, time: Tensor, sample: Tensor) -> Tensor:
    """h = ∫_t^{ts[-1]} e^{-(s-t)/τ} o_d(s) ds/τ at the time of each spike, (S, C)."""
    spans = ts.diff()[:, None, None]  # 0 where a time is asked for twice, and nothing happens
    slope = torch.where(spans > 0.0, target.diff(dim=0) / torch.where(spans > 0.0, spans, 1.0), 0.0).detach()
    ahead = target.new_zeros(target.shape)
    for k in range(len(ts) - 2, -1, -1):
        ahead[k] = _over_step(ts[k + 1] - ts[k], target[k], slope[k], ahead[k + 1], tau)
    step = (torch.searchsorted(ts, time.detach(), right=True) - 1).clamp(0, len(ts) - 2)
    left = (ts[step + 1] - time)[:, None]
    rate = slope[step, sample]
    return _over_step(left, target[step + 1, sample] - rate * left, rate, ahead[step + 1, sample], tau)


def _over_step(length: Tensor, target: Tensor, slope: Tensor, after: Tensor, tau: float) -> Tensor:
    """h at the start of an interval on which o_d is linear, from h at its end."""
    decay = torch.exp(-length / tau)
    return decay * after + (target + slope * tau) * (1.0 - decay) - slope * length * decay
