"""Voltages of LIF layers as explicit sums over arrivals: their maximum and their integral, differentiable on torch's tape.

A neuron that never spikes has no reset, so its voltage is the sum (2.11) of the responses to its arrivals. The times of those
are results of the event-exact solve, and pass their cotangents on to it.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from adjsnn.lif.flow import SERIES_BELOW, flow, turning_point
from adjsnn.lif.layer import Drive, Events, as_array, counts_of, sample_of
from adjsnn.lif.run import LayerResult
from adjsnn.lif.structure import LIFLayer, LIFState


class Arrivals(NamedTuple):
    """What happens to P (sample, neuron) pairs, in order of time.

    Attributes:
        time: (P, K), ms, inf in the padding.
        weight: (P, K), of an arriving spike, 0 where a step of the drive begins.
        step: (P, K), which begins, or -1 at a spike.
    """

    time: Tensor
    weight: Tensor
    step: Tensor


def voltage_max(
    layer: LIFLayer,
    inputs: tuple[Tensor, Events],
    own: LayerResult,
    start: LIFState,
    t_end: float,
    drive: Drive | None = None,
) -> Float[Tensor, "B N"]:
    """max v over 0 … t_end of each neuron in each sample: its threshold if it spikes, or else the largest value of (2.11).

    At a smooth maximum the time is stationary. A maximum at an arrival that turns v down is a cusp and moves with the arrival;
    one where a step of the drive begins stays there.
    """
    batch, n = start.v.shape
    silent = (counts_of(own.run.spikes, n).flatten() == 0).nonzero()[:, 0]
    sample, neuron = silent // n, silent % n
    driven = None if drive is None else Drive(drive.values[:, sample, neuron], drive.dt)
    arrivals = _arrivals(layer, inputs, own, sample, neuron, driven)
    arrivals = arrivals._replace(time=arrivals.time.to(arrivals.weight))
    when, cusp = _where_largest(layer, arrivals, sample, neuron, start, t_end, driven)
    moving = arrivals.time.gather(1, cusp.clamp(min=0)[:, None])[:, 0] if arrivals.time.shape[1] else when
    t = torch.where(cusp >= 0, moving, when)
    voltage = _voltage(layer, arrivals, sample, neuron, start, t)
    if driven is not None:
        voltage = voltage + _driven(driven, layer.tau_mem[neuron], t)
    return layer.v_th.expand(batch, n).reshape(-1).index_put((silent,), voltage).view(batch, n)


def voltage_integral(
    layer: LIFLayer, inputs: tuple[Tensor, Events], own: LayerResult, start: LIFState, end: LIFState, t_end: float
) -> Float[Tensor, "B N"]:
    """∫ v dt over 0 … t_end of each neuron in each sample, from the balance (2.12) of charge; without refractory times."""
    batch, n = start.v.shape
    pairs = torch.arange(batch * n, device=start.v.device)
    # Which spikes arrive by the end is a matter of the very times that were solved with, whatever dtype they are given out in.
    solved = inputs[1].time, inputs[1]
    own = own._replace(time=own.run.spikes.time)
    time, weight, _ = _arrivals(layer, solved, own, pairs // n, pairs % n)
    arrived = torch.where(time <= t_end, weight, 0.0).sum(1).view(batch, n)
    resets = counts_of(own.run.spikes, n).to(start.v) * (layer.v_th - layer.v_reset)
    current = layer.tau_syn * (start.i + arrived - end.i)
    return current + layer.bias * t_end - layer.tau_mem * (end.v - start.v + resets)


def _padded(time: Tensor, spikes: Events) -> tuple[Tensor, Tensor]:
    """Times (B, K), inf in the padding, and neurons (B, K), 0 there."""
    sample, counts, neuron = sample_of(spikes), spikes.first.diff(), spikes.neuron
    entries = (sample, torch.arange(len(sample), device=sample.device) - spikes.first[sample])
    shape = (spikes.batch, int(counts.max()) if len(counts) else 0)
    return time.new_full(shape, float("inf")).index_put(entries, time), neuron.new_zeros(shape).index_put(entries, neuron)


def _arrivals(
    layer: LIFLayer,
    inputs: tuple[Tensor, Events],
    own: LayerResult,
    sample: Tensor,
    neuron: Tensor,
    drive: Drive | None = None,
) -> Arrivals:
    parts = [_from(_padded(*inputs), layer.w_in, layer.delays, sample, neuron)]
    if layer.w_rec is not None:
        parts.append(_from(_padded(own.time, own.run.spikes), layer.w_rec, layer.rec_delays, sample, neuron))
    spikes = sum(times.shape[1] for times, _ in parts)
    if drive is not None:  # its first step is there from the start
        begins = drive.dt * torch.arange(1, len(drive.values), device=sample.device).to(parts[0][0])
        parts.append((begins.expand(len(sample), -1), torch.zeros_like(begins).to(parts[0][1]).expand(len(sample), -1)))
    weight = torch.cat([weights for _, weights in parts], 1)
    time, order = torch.cat([times for times, _ in parts], 1).sort(dim=1, stable=True)
    return Arrivals(time, weight.gather(1, order), torch.where(order >= spikes, order - spikes + 1, -1))


def _from(
    spikes: tuple[Tensor, Tensor], weights: Tensor, delays: Tensor | None, sample: Tensor, neuron: Tensor
) -> tuple[Tensor, Tensor]:
    time, source = (x[sample] for x in spikes)
    if delays is not None:
        time = time.double() + (delays[source] if delays.dim() == 1 else delays[neuron[:, None], source])
    return time.double(), weights[neuron[:, None], source]


def _where_largest(
    layer: LIFLayer, arrivals: Arrivals, sample: Tensor, neuron: Tensor, start: LIFState, t_end: float, drive: Drive | None
) -> tuple[Tensor, Tensor]:
    """Time of the largest v of silent pairs, and the arrival at which it is a cusp, or -1: from arrival to arrival."""
    samples, neurons = sample.cpu().numpy(), neuron.cpu().numpy()
    time, weight, step = as_array(arrivals.time), as_array(arrivals.weight), arrivals.step.cpu().numpy()
    drives = np.zeros((1, len(samples))) if drive is None else as_array(drive.values)
    v, i = (as_array(x)[samples, neurons] for x in start)
    bias, tau_mem, tau_syn = (as_array(x)[neurons] for x in (layer.bias, layer.tau_mem, layer.tau_syn))
    c = bias + drives[0]
    now, when = np.zeros_like(v), np.zeros_like(v)
    best, cusp = v.copy(), np.full(len(v), -1)

    def better(value: np.ndarray, moment: np.ndarray, arrival: int, valid: np.ndarray) -> None:
        take = valid & (value > best)
        best[take], when[take], cusp[take] = value[take], moment[take], arrival

    for k in range(time.shape[1] + 1):
        until = np.minimum(time[:, k], t_end) if k < time.shape[1] else np.full_like(v, t_end)
        peak = turning_point(v, i, c, tau_mem, tau_syn)
        inside = (i > 0.0) & (peak > 0.0) & (now + peak < until)
        span = np.where(inside, peak, 0.0)
        better(flow(v, i, span, c, tau_mem, tau_syn)[0], now + span, -1, inside)
        v, i = flow(v, i, until - now, c, tau_mem, tau_syn)
        arrived = time[:, k] <= t_end if k < time.shape[1] else np.zeros(len(v), bool)
        better(v, until, k, arrived)
        better(v, until, -1, ~arrived)
        now = until
        if k < time.shape[1]:
            i = i + np.where(arrived, weight[:, k], 0.0)
            begun = np.flatnonzero(arrived & (step[:, k] >= 0))
            c[begun] = bias[begun] + drives[step[begun, k], begun]
    return torch.from_numpy(when).to(start.v), torch.from_numpy(cusp).to(start.v.device)


def _voltage(layer: LIFLayer, arrivals: Arrivals, sample: Tensor, neuron: Tensor, start: LIFState, t: Tensor) -> Tensor:
    """v(t) of pairs that did not spike before, equation (2.11)."""
    tau_mem, tau_syn, bias = (x[neuron][:, None] for x in (layer.tau_mem, layer.tau_syn, layer.bias))
    age = torch.cat([t[:, None], torch.where(arrivals.time < t[:, None], t[:, None] - arrivals.time, 0.0)], 1)
    weight = torch.cat([start.i[sample, neuron][:, None], arrivals.weight], 1)
    decay = torch.exp(-t / tau_mem[:, 0])
    v = bias[:, 0] + (start.v[sample, neuron] - bias[:, 0]) * decay
    return v + (weight * _response(age, tau_mem, tau_syn)).sum(1)


def _driven(drive: Drive, tau_mem: Tensor, t: Tensor) -> Tensor:
    """What a drive (T, P) has added to v at t (P,): Σ_k D_k (e^{-(t - t_{k+1})/τ_m} - e^{-(t - t_k)/τ_m}), ages from 0 on."""
    edges = drive.dt * torch.arange(len(drive.values) + 1, device=t.device).to(t)[:, None]
    left = torch.exp(-torch.where(edges < t, t - edges, 0.0) / tau_mem)
    return (drive.values.to(t) * (left[1:] - left[:-1])).sum(0)


def _response(t: Tensor, tau_mem: Tensor, tau_syn: Tensor) -> Tensor:
    """K(t)/τ_m, with right derivatives also where the time constants are equal."""
    x = t * (tau_mem - tau_syn) / (tau_mem * tau_syn)
    small = x.abs() < SERIES_BELOW
    near, far = torch.where(small, x, 0.0), torch.where(small, 1.0, x)
    series = torch.ones_like(near)
    if bool((small & (t != 0.0)).any()):  # where t is 0 it is 1, and its slope is multiplied by 0
        for k in range(16, 1, -1):  # (1 - e^{-x})/x
            series = 1.0 - near / k * series
    slow, fast = torch.exp(-t / tau_mem), torch.exp(-t / tau_syn)
    return t / tau_mem * torch.where(small, slow * series, (slow - fast) / far)
