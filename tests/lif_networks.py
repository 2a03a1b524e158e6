"""Random LIF networks that the tests share, and their spikes by an independent dense scan with bisection."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import adjsnn

ALL = ("weights", "bias", "tau_mem", "tau_syn", "v_th", "v_reset", "refractory", "delays")
RATIOS = (4.0, 2.0, 1.0, 0.5)
T_END = 60.0


STEP = 1e-6


def derivative(run: Callable[[], Tensor], weights: Tensor, leaf: Tensor, direction: Tensor, size: float = STEP) -> float:
    """Central differences at two steps, extrapolated: slow crossings make their error h² large for any h rounding allows."""
    quotients = []
    for step in (size, size / 3):
        values = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                leaf.add_(sign * step * direction)
                values.append(run())
                leaf.sub_(sign * step * direction)
        quotients.append(float(weights @ (values[0] - values[1])) / (2 * step))
    return (9 * quotients[1] - quotients[0]) / 8


def direction_along(g: Tensor, generator: torch.Generator) -> Tensor:
    """Random, of a gradient's signs, so that no two terms cancel and rounding stays a small part of a difference.

    Entries whose gradient is zero move too: one that is wrongly zero shows in the difference.
    """
    return torch.rand(g.shape, generator=generator, dtype=torch.float64) * torch.where(g < 0.0, -1.0, 1.0)


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


def random_lif(
    seed: int,
    *,
    ratio: float = 4.0,
    recurrent: bool = True,
    per_synapse: bool = True,
    delayed: bool = True,
    refractory: float = 2.0,
    layers: tuple[int, ...] = (6, 3),
    n_in: int = 5,
) -> adjsnn.LIFNetwork:
    """A float64 network of everything: biases, delays, refractory times, resets that are not zero; all of it learnable."""
    generator = torch.Generator().manual_seed(seed)

    def per_neuron(low: float, high: float) -> tuple[Tensor, ...]:
        return tuple(uniform(generator, low, high, n) for n in layers)

    fan_in = (n_in, *layers[:-1])
    delays = tuple(
        uniform(generator, 0.5, 4.0, *((n, m) if per_synapse else (m,))) for n, m in zip(layers, fan_in, strict=True)
    )
    rec_delays = tuple(uniform(generator, 0.5, 4.0, *((n, n) if per_synapse else (n,))) for n in layers)
    lif = adjsnn.LIFNetwork(
        n_in,
        layers,
        recurrent=recurrent,
        tau_mem=5.0 * ratio,
        tau_syn=5.0,
        v_th=per_neuron(0.9, 1.1),
        v_reset=per_neuron(-0.4, 0.2),
        bias=per_neuron(0.1, 0.8),
        refractory=tuple(refractory * uniform(generator, 0.2, 1.0, n) for n in layers),
        delays=delays if delayed else None,
        rec_delays=rec_delays if recurrent and delayed else None,
        learn=ALL if delayed else ALL[:-1],
        generator=generator,
        dtype=torch.float64,
    )
    with torch.no_grad():
        for w in (w for w in lif.w_rec if w is not None):
            w.mul_(0.5)
    return lif


def random_spikes(seed: int, *, batch: int = 3, n_in: int = 5, count: int = 12, t_end: float = T_END) -> adjsnn.SpikeTrains:
    generator = torch.Generator().manual_seed(1000 + seed)
    time = uniform(generator, 0.0, 0.8 * t_end, batch, count).sort(1).values
    idx = torch.randint(0, n_in, (batch, count), generator=generator)
    return adjsnn.SpikeTrains(idx, time, n_in, t_end)


def scanned_spikes(
    lif: adjsnn.LIFNetwork,
    x: adjsnn.SpikeTrains,
    t_end: float,
    step: float = 0.01,
    currents: Tensor | None = None,
    dt: float = 1.0,
) -> list[list[list]]:
    """Spikes of every layer and sample, [(time, neuron), ...], without the library's flow, kernels or event queue."""
    found = []
    inputs = x.to_list()
    w = lif.w_in[0].detach().double()
    drives = [None] * x.batch if currents is None else [(currents[:, b].double() @ w.T).numpy() for b in range(x.batch)]
    for layer in lif.tensors():
        p = {name: None if value is None else value.detach().double().numpy() for name, value in layer._asdict().items()}
        inputs = [_scan(p, row, t_end, step, drive, dt) for row, drive in zip(inputs, drives, strict=True)]
        found.append(inputs)
        drives = [None] * x.batch
    return found


def _scan(p: dict, inputs: list, t_end: float, step: float, drive: np.ndarray | None, dt: float) -> list:
    """One sample of one layer: v as a sum of responses to all arrivals since the last release, looked at every `step`.

    To it comes the response to each step of the drive (T, N) since then.
    """
    begin = None if drive is None else dt * np.arange(len(drive))[:, None]
    n = len(p["v_th"])
    when, weight = [], []  # one row of arrival times and weights per spike, each (N,)

    def send(time: float, source: int, weights: np.ndarray, delays: np.ndarray | None) -> None:
        delay = np.zeros(n) if delays is None else np.broadcast_to(delays[..., source], (n,))
        when.append(time + delay)
        weight.append(weights[:, source])

    for time, source in inputs:
        send(time, source, p["w_in"], p["delays"])
    start, from_v = np.zeros(n), np.zeros(n)  # time of the last release, and v then
    spikes, now = [], 0.0

    def voltage(t: float) -> np.ndarray:
        age = np.maximum(t - start, 0.0)
        v = p["bias"] + (from_v - p["bias"]) * np.exp(-age / p["tau_mem"])
        if when:
            arrived, w = np.array(when), np.array(weight)
            old, new = arrived <= start, (arrived > start) & (arrived < t)
            left = np.where(old, w * np.exp(-np.where(old, start - arrived, 0.0) / p["tau_syn"]), 0.0).sum(0)
            v = v + left * _response(age, p) + np.where(new, w * _response(np.where(new, t - arrived, 0.0), p), 0.0).sum(0)
        if drive is not None:
            low, high = np.clip(begin, start, max(t, 0.0)), np.clip(begin + dt, start, max(t, 0.0))
            v = v + (drive * (np.exp((high - t) / p["tau_mem"]) - np.exp((low - t) / p["tau_mem"]))).sum(0)
        return np.where(t < start, p["v_reset"], v)

    while now < t_end:
        to = min(now + step, t_end)
        above = np.flatnonzero((voltage(to) >= p["v_th"]) & (start < to))
        if not len(above):
            now = to
            continue
        times = [_bisect(lambda t, m=m: voltage(t)[m] - p["v_th"][m], max(now, start[m]), to) for m in above]
        now, m = min(zip(times, above, strict=True))
        spikes.append((now, int(m)))
        start[m], from_v[m] = now + p["refractory"][m], p["v_reset"][m]
        if p["w_rec"] is not None:
            send(now, int(m), p["w_rec"], p["rec_delays"])
    return spikes


def _response(t: np.ndarray, p: dict) -> np.ndarray:
    """v a time t after a current of 1."""
    tau_m, tau_s = p["tau_mem"], p["tau_syn"]
    if (tau_m == tau_s).all():
        return t / tau_m * np.exp(-t / tau_m)
    return tau_s / (tau_m - tau_s) * (np.exp(-t / tau_m) - np.exp(-t / tau_s))


def _bisect(f: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(100):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        if f(middle) >= 0.0:
            high = middle
        else:
            low = middle
    return high
