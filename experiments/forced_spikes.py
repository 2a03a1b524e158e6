"""A generalised LIF neuron that spikes when a recorded one did: its state in closed form, and the likelihood of a recording."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.signal import lfilter
from torch import Tensor, nn
from torch.nn.functional import pad

import adjsnn

GRID = 1.0  # ms, of the integral of the rate
STRAIGHT = 3.0  # (v - θ)/softness from which on the rate is a straight line


class Recording(NamedTuple):
    """A current, held over steps of dt, and the spikes in answer.

    Attributes:
        u: the current, (T,).
        spikes: sorted times, (K,), ms, up to T dt.
    """

    u: Tensor
    spikes: Tensor


class Part(NamedTuple):
    """Steps start … stop of a recording."""

    recording: Recording
    start: int
    stop: int


class Pieces(NamedTuple):
    """Where pieces of the recording begin, (B,), in steps, and whether the step of training goes by the likelihood, (B,)."""

    first: Tensor
    likelihood: Tensor


class Forced(NamedTuple):
    """State of a neuron that spikes when it is told to, just before any spike of that instant.

    Attributes:
        v: (M,).
        threshold: (M,).
        a: spike-triggered currents, (M, J).
        h: components of the threshold, (M, H).
    """

    v: Tensor
    threshold: Tensor
    a: Tensor
    h: Tensor


class DelayedNeuron(adjsnn.LIFNetwork):
    """One neuron with one input, and how much later than it crosses the threshold a spike is recorded.

    Attributes:
        delay: of the record, ms.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(1, 1, **options)
        self.delay = nn.Parameter(self.v_th[0].new_tensor(0.5))


def filtered(u: Tensor, decay: Tensor) -> Tensor:
    """x_{j+1} = d x_j + (1 - d) u_j from x_0 = 0, (T + 1,), with its first derivative by d."""
    d, given = float(decay.detach()), u.detach().cpu().double().numpy()
    x = np.concatenate([[0.0], lfilter([1.0 - d], [1.0, -d], given)])
    slope = np.concatenate([[0.0], lfilter([1.0], [1.0, -d], x[:-1] - given)])
    return torch.from_numpy(x).to(u) + torch.from_numpy(slope).to(u) * (decay - decay.detach())


def convolved(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """K(a, b) of (6.1), e^{-at} ∗ e^{-bt}."""
    x = (b - a) * t
    near = x.abs() < 1e-4
    full = -torch.expm1(-x) / torch.where(near, 1.0, x)
    return torch.exp(-a * t) * t * torch.where(near, 1.0 - x / 2.0 + x * x / 6.0 - x**3 / 24.0, full)


def left_by_spikes(spikes: Tensor, tau: Tensor | None, jump: Tensor | None) -> Tensor:
    """What spikes have left of components of time constants tau (C, 1), just after each of them and before all, (K + 1, C)."""
    if tau is None or jump is None:
        return spikes.new_zeros(len(spikes) + 1, 0)
    sums = spikes.new_ones(len(spikes), len(tau))
    decay = torch.exp(-torch.diff(spikes, prepend=spikes[:1])[:, None] / tau[:, 0])
    apart = 1
    while apart < len(spikes):  # sums over 1, 2, 4 … spikes
        sums = sums + pad(decay[apart:] * sums[:-apart], (0, 0, apart, 0))
        decay = pad(decay[apart:] * decay[:-apart], (0, 0, apart, 0))
        apart *= 2
    return torch.cat([spikes.new_zeros(1, len(tau)), sums * jump[:, 0]])


def crossings(net: DelayedNeuron, recording: Recording) -> Recording:
    """The recording with the times at which the neuron must cross its threshold to spike as recorded."""
    return recording._replace(spikes=(recording.spikes - net.delay).clamp(min=0.0))


def forced(net: DelayedNeuron, recording: Recording, dt: float, times: Tensor) -> Forced:
    """State of the neuron at `times`, if it spiked at the recorded times and never else; differentiable in its parameters.

    Between a release and the next spike (6.1) is linear: v is what is left of the reset, and the filtered current without what
    it was at the release, and spike-triggered currents at the release, filtered. At time 0 it is as `initial_state`.

    Args:
        net: of one neuron with one input, that resets to v_reset.
        recording: the current and the spikes.
        dt: step of the current, ms.
        times: 0 … T dt.
    """
    layer, (u, spikes) = net.tensors()[0], recording
    mu = 1.0 / layer.tau_mem[0]
    x = filtered(u, torch.exp(-mu * dt))

    def of_current(t: Tensor) -> Tensor:
        step = (t.detach() / dt).floor().clamp(max=len(u) - 1)
        kept, step = torch.exp(-mu * (t - dt * step)), step.long()
        return kept * x[step] + (1.0 - kept) * u[step]

    last = torch.searchsorted(spikes, times)  # how many spikes are earlier
    since = torch.cat([spikes.new_zeros(1), spikes])[last]
    release = torch.minimum(since + torch.where(last > 0, layer.refractory[0], 0.0), times)
    free = times - release
    left = torch.exp(-mu * free)
    v = torch.where(last > 0, layer.v_reset[0], 0.0) * left + layer.bias[0] * (1.0 - left)
    v = v + layer.w_in[0, 0] * (of_current(times) - left * of_current(release))
    a = left_by_spikes(spikes, layer.tau_adapt, layer.jump_adapt)[last]
    h = left_by_spikes(spikes, layer.tau_th, layer.jump_th)[last]
    if layer.tau_adapt is not None:
        rate = 1.0 / layer.tau_adapt[:, 0]
        at_release = a * torch.exp(-(release - since)[:, None] * rate)
        v = v + mu * (at_release * convolved(mu, rate, free[:, None])).sum(1)
        a = a * torch.exp(-(times - since)[:, None] * rate)
    if layer.tau_th is not None:
        h = h * torch.exp(-(times - since)[:, None] / layer.tau_th[:, 0])
    return Forced(v, layer.v_th[0] + h.sum(1), a, h)


def log_likelihood(net: DelayedNeuron, part: Part, dt: float, softness: float) -> Tensor:
    """Log-likelihood of the recorded spikes, per spike, at a rate of e^{(v - θ)/softness} per ms.

    v and θ are `forced`; the integral of the rate is a sum over a grid. Far above the threshold the rate goes on as a straight
    line, so that it does not overflow.
    """
    spikes, start, stop = spikes_within(part, dt), dt * part.start, dt * part.stop
    every = (stop - start) / math.ceil((stop - start) / GRID)
    grid = torch.arange(start + 0.5 * every, stop, every, device=spikes.device).to(spikes)
    # The grid moves with the spikes, none of which it then passes: the sum is as smooth in the delay as the integral.
    times = (torch.cat([spikes, grid]) - net.delay).clamp(min=0.0)
    state = forced(net, crossings(net, part.recording), dt, times)
    above = (state.v - state.threshold) / softness
    x = above[len(spikes) :]
    rate = torch.exp(x.clamp(max=STRAIGHT)) * (1.0 + (x - STRAIGHT).clamp(min=0.0))
    return (above[: len(spikes)].sum() - every * rate.sum()) / max(len(spikes), 1)


def spikes_within(part: Part, dt: float) -> Tensor:
    """Recorded times from the beginning of the recording."""
    times = part.recording.spikes
    return times[(times > part.start * dt) & (times <= part.stop * dt)]
