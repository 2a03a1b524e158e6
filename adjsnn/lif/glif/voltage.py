"""Voltages of generalised layers as explicit sums over arrivals: their maximum and their integral, on torch's tape.

As `lif/voltage.py` for ordinary layers. A neuron that never spikes has no jumps, so its voltage is the sum (6.5) of the
responses to what arrives, whose times pass their cotangents on to the solve.
"""

from math import exp
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from adjsnn.errors import ConfigurationError
from adjsnn.lif.flow import SERIES_BELOW
from adjsnn.lif.glif.assemble import Assembled, Connections, assembled
from adjsnn.lif.glif.crossing import collected, of_numbers, pieces
from adjsnn.lif.layer import Drive, Events, as_array, counts_of, sample_of
from adjsnn.lif.run import LayerResult
from adjsnn.lif.structure import AnyState, LIFLayer, Structure, four


class Arrivals(NamedTuple):
    """What arrives at P (sample, neuron) pairs, in order of time, (P, K): time inf and weight 0 in the padding."""

    time: Tensor
    weight: Tensor
    receptor: Tensor


class Started(NamedTuple):
    """State of pairs at time 0: v (P,), c (P, C) of all currents, and their rates (P, C); drive (T, P) in steps of dt."""

    v: Tensor
    c: Tensor
    rate: Tensor
    drive: Drive | None


def voltage_max(
    layer: LIFLayer,
    own: Structure,
    inputs: tuple[Tensor, Events],
    result: LayerResult,
    start: AnyState,
    t_end: float,
    drive: Drive | None = None,
) -> Float[Tensor, "B N"]:
    """max v over 0 … t_end of each neuron in each sample, (6.5): v_th if it spikes, else the largest value of its voltage."""
    batch, n = start.v.shape
    made = assembled(LIFLayer._make(None if x is None else x.cpu() for x in layer), own)
    silent = (counts_of(result.run.spikes, n).flatten() == 0).nonzero()[:, 0].cpu()
    sample, neuron = silent // n, silent % n
    number = torch.full((batch * n,), -1).index_put((silent,), torch.arange(len(silent)))
    arrivals = _arrivals(made, inputs, result, number, n, len(silent), t_end)
    begun = _started(made, start, sample, neuron, drive)
    mu, gain, bias = (made.neurons[name][neuron] for name in ("leak_rate", "gain", "bias"))
    when, cusp = _where_largest(begun, arrivals, (mu, gain, bias), t_end)
    padded = torch.cat([when[:, None], arrivals.time], 1)  # a maximum at an arrival moves with it
    t = padded.gather(1, cusp[:, None] + 1)[:, 0]
    v = _voltage(begun, arrivals, (mu, gain, bias), t)
    v_th = layer.v_th.expand(batch, n).reshape(-1)
    return v_th.index_put((silent.to(v_th.device),), v.to(v_th)).view(batch, n)


def voltage_integral(
    layer: LIFLayer,
    own: Structure,
    inputs: tuple[Tensor, Events],
    result: LayerResult,
    start: AnyState,
    end: AnyState,
    t_end: float,
) -> Float[Tensor, "B N"]:
    """∫ v dt over 0 … t_end of each neuron in each sample, without the drive's part, from the balance (6.6) of charge.

    Raises:
        ConfigurationError: neurons without leak, factors at spikes, or a reset that depends on a moving threshold.
    """
    scaled = [name for name in ("scale_adapt", "scale_th") if getattr(layer, name) is not None]
    moving = own.reset < 1.0 and (layer.tau_th is not None or layer.tau_follow is not None)
    if not own.leak or scaled or moving:
        seen = "without leak" if not own.leak else scaled[0] if scaled else "whose reset leaves out a moving threshold"
        raise ConfigurationError(
            f"the integral of v of a layer {seen}", 'leak, no factors, and reset="by"', "sol.v at times ts"
        )
    batch, n = start.v.shape
    made = assembled(LIFLayer._make(None if x is None else x.cpu() for x in layer), own)
    everyone = torch.arange(batch * n)
    # Which spikes arrive by the end is a matter of the very times that were solved with, whatever dtype they are given out in.
    arrivals = _listed(made, (inputs[1].time, inputs[1]), result._replace(time=result.run.spikes.time), everyone, n)
    pair, time, weight, receptor = arrivals
    rows = own.currents
    arrived = weight.new_zeros(batch * n * rows).index_add(0, pair * rows + receptor, torch.where(time <= t_end, weight, 0.0))
    arrived = arrived.view(batch, n, rows).transpose(1, 2).to(start.v)
    i0, i1 = (x.i if x.i.dim() == 3 else x.i[:, None] for x in (start, end))
    tau_syn = layer.tau_syn if own.receptors is not None else layer.tau_syn[None]
    charge = (tau_syn * (i0 + arrived - i1)).sum(1)
    spikes = counts_of(result.run.spikes, n).to(start.v)
    (_, _, a0, _), (_, _, a1, _) = four(start), four(end)
    if layer.tau_adapt is not None and layer.jump_adapt is not None and a0 is not None and a1 is not None:
        charge = charge + (layer.tau_adapt * (a0 + spikes[:, None] * layer.jump_adapt - a1)).sum(1)
    jumps = spikes * (layer.v_th - layer.v_reset)
    return charge + layer.bias * t_end - layer.tau_mem * (end.v - start.v + jumps)


def _listed(
    made: Assembled, inputs: tuple[Tensor, Events], result: LayerResult, number: Tensor, n: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pair, time, weight and receptor of every arrival at the pairs that have a number ≥ 0."""
    parts = [_of(made.incoming, inputs, number, n)]
    parts.append(_of(made.recurrent, (result.time, result.run.spikes), number, n))
    pair, time, weight, receptor = (torch.cat(column) for column in zip(*parts, strict=True))
    return pair, time, weight, receptor


def _of(wired: Connections, fed: tuple[Tensor, Events], number: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    time, spikes = fed[0].cpu().double(), Events(*(x.cpu() for x in fed[1]))
    first, edge = (torch.from_numpy(x) for x in (wired.wiring.first, wired.wiring.edge))
    post, receptor = (torch.from_numpy(x) for x in (wired.wiring.post, wired.wiring.receptor))
    if len(first) < 2:
        none = torch.zeros(0, dtype=torch.long)
        return none, time[:0], wired.weight[:0], none
    begin, stop = edge[first[:-1]][spikes.neuron], edge[first[1:]][spikes.neuron]
    spike = torch.arange(len(time)).repeat_interleave(stop - begin)
    before = (stop - begin).cumsum(0) - (stop - begin)
    synapse = torch.arange(len(spike)) - before[spike] + begin[spike]
    pair = number[sample_of(spikes)[spike] * n + post[synapse]]
    there = pair >= 0
    pair, spike, synapse = pair[there], spike[there], synapse[there]
    late = time[spike] if wired.delay is None else time[spike] + wired.delay[synapse]
    return pair, late, wired.weight[synapse], receptor[synapse]


def _arrivals(
    made: Assembled,
    inputs: tuple[Tensor, Events],
    result: LayerResult,
    number: Tensor,
    n: int,
    pairs: int,
    t_end: float,
) -> Arrivals:
    """Those of all pairs up to the end, in rows."""
    pair, time, weight, receptor = _listed(made, inputs, result, number, n)
    within = time.detach() <= t_end
    pair, time, weight, receptor = pair[within], time[within], weight[within], receptor[within]
    order = torch.from_numpy(np.lexsort((time.detach().numpy(), pair.numpy())))
    pair, time, weight, receptor = (x[order] for x in (pair, time, weight, receptor))
    counts = pair.bincount(minlength=pairs)
    shape = (pairs, int(counts.max()) if pairs else 0)
    entries = (pair, torch.arange(len(pair)) - (counts.cumsum(0) - counts)[pair])
    return Arrivals(
        time.new_full(shape, torch.inf).index_put(entries, time),
        weight.new_zeros(shape).index_put(entries, weight),
        receptor.new_zeros(shape).index_put(entries, receptor),
    )


def _started(made: Assembled, start: AnyState, sample: Tensor, neuron: Tensor, drive: Drive | None) -> Started:
    v, i, a, _ = (None if x is None else x.cpu().double() for x in four(start))
    assert v is not None
    assert i is not None
    i = i if i.dim() == 3 else i[:, None]
    c = i if a is None else torch.cat([i, a], 1)
    driven = None if drive is None else Drive(drive.values.cpu().double()[:, sample, neuron], drive.dt)
    return Started(v[sample, neuron], c[sample, :, neuron], made.neurons["rate"][:, neuron].T, driven)


def _where_largest(
    begun: Started, arrivals: Arrivals, neurons: tuple[Tensor, Tensor, Tensor], t_end: float
) -> tuple[Tensor, Tensor]:
    """Time of the largest v of each pair, and the arrival at which it is a cusp, or -1; pair by pair, from event to event."""
    mu, gain, bias = (as_array(x) for x in neurons)
    v, c, rate = as_array(begun.v), as_array(begun.c), as_array(begun.rate)
    time, weight, receptor = as_array(arrivals.time), as_array(arrivals.weight), arrivals.receptor.numpy()
    when, cusp = torch.zeros(len(v), dtype=torch.float64), torch.full((len(v),), -1)
    steps = np.zeros((1, len(v))) if begun.drive is None else as_array(begun.drive.values)
    edges = [] if begun.drive is None else [begun.drive.dt * k for k in range(1, len(steps))]
    for p in range(len(v)):
        events = [(float(t), k, True) for k, t in enumerate(time[p]) if t <= t_end]
        events = sorted([*events, *((t, k + 1, False) for k, t in enumerate(edges))], key=lambda e: e[0])
        row = _Row(float(v[p]), c[p].tolist(), rate[p].tolist(), float(mu[p]), float(gain[p]), float(bias[p] + steps[0, p]))
        for t, k, arrives in [*events, (t_end, -1, False)]:
            row.go(t, k if arrives else -1)
            if arrives:
                row.c[receptor[p, k]] += float(weight[p, k])
            elif k >= 0:
                row.b = float(bias[p] + steps[k, p])
        when[p], cusp[p] = row.when, row.cusp
    return when, cusp


class _Row:
    """A neuron that does not spike, on its way: v, currents, bias with the drive, and where v was largest so far."""

    def __init__(self, v: float, c: list[float], rate: list[float], mu: float, gain: float, b: float) -> None:
        self.v, self.c, self.rate, self.mu, self.gain, self.b = v, c, rate, mu, gain, b
        self.now, self.best, self.when, self.cusp = 0.0, v, 0.0, -1

    def at(self, t: float) -> float:
        """v a time t later."""
        fed = sum(c * of_numbers(self.mu, r, t) for c, r in zip(self.c, self.rate, strict=True))
        return self.v * exp(-self.mu * t) + self.gain * (self.b * of_numbers(self.mu, 0.0, t) + fed)

    def slope(self, t: float) -> float:
        """v̇ a time t later."""
        currents = sum(c * exp(-r * t) for c, r in zip(self.c, self.rate, strict=True))
        return -self.mu * self.at(t) + self.gain * (self.b + currents)

    def go(self, until: float, arrival: int) -> None:
        """To the next event, past maxima on the way; e^{μt} v̇ is monotone where Σ r c e^{-rt} keeps its sign."""
        span = until - self.now
        most = max(self.b, 0.0) * span + sum(max(c, 0.0) * min(span, 1.0 / r) for c, r in zip(self.c, self.rate, strict=True))
        if span > 0.0 and max(self.v, 0.0) + self.gain * most > self.best:
            terms = [(-self.gain * c * r, r) for c, r in zip(self.c, self.rate, strict=True)]
            for left, right, rises in pieces(collected(terms), span):
                if not rises and self.slope(left) > 0.0 > self.slope(right):
                    self.better(self.at(t := self.turn(left, right)), self.now + t, -1)
        self.v = self.at(span)
        self.c, self.now = [c * exp(-r * span) for c, r in zip(self.c, self.rate, strict=True)], until
        self.better(self.v, until, arrival)

    def turn(self, low: float, high: float) -> float:
        """Where v̇ changes from + to -: bisection, since v does not depend on it to first order."""
        while high - low > 2.0**-50 * high:
            middle = 0.5 * (low + high)
            if not low < middle < high:
                break
            low, high = (middle, high) if self.slope(middle) > 0.0 else (low, middle)
        return low

    def better(self, v: float, t: float, arrival: int) -> None:
        """Keep a larger value."""
        if v > self.best:
            self.best, self.when, self.cusp = v, t, arrival


def _voltage(begun: Started, arrivals: Arrivals, neurons: tuple[Tensor, Tensor, Tensor], t: Tensor) -> Tensor:
    """v(t) of pairs that did not spike before, equation (6.5)."""
    mu, gain, bias = neurons
    flat = mu[:, None]
    rates = begun.rate.gather(1, arrivals.receptor) if arrivals.time.shape[1] else begun.rate[:, :0]
    age = torch.where(arrivals.time < t[:, None], t[:, None] - arrivals.time, 0.0)
    fed = (arrivals.weight * _kernel(flat, rates, age)).sum(1) + (begun.c * _kernel(flat, begun.rate, t[:, None])).sum(1)
    v = begun.v * torch.exp(-mu * t) + gain * (bias * _kernel(mu, torch.zeros_like(mu), t) + fed)
    if begun.drive is None:
        return v
    edges = begun.drive.dt * torch.arange(len(begun.drive.values) + 1, dtype=t.dtype)[:, None]
    age = torch.where(edges < t, t - edges, 0.0)
    whole = _kernel(mu.expand_as(age), torch.zeros_like(age), age)
    return v + gain * (begun.drive.values * (whole[:-1] - whole[1:])).sum(0)


def _kernel(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """K(a, b) at t, with right derivatives also where the rates are equal."""
    x = (b - a) * t
    small = x.abs() < SERIES_BELOW
    near, far = torch.where(small, x, 0.0), torch.where(small, 1.0, b - a)
    series = torch.ones_like(near)
    for k in range(16, 1, -1):  # (1 - e^{-x})/x
        series = 1.0 - near / k * series
    return torch.where(small, t * torch.exp(-a * t) * series, (torch.exp(-a * t) - torch.exp(-b * t)) / far)
