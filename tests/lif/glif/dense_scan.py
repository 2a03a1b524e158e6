"""A second opinion on generalised LIF layers: matrix exponentials on a fine grid and bisection, sharing no code with adjsnn."""

from math import inf
from typing import NamedTuple

import numpy as np
from scipy.linalg import expm

STEP = 0.01  # ms; two crossings of one neuron within it would be missed


class Scanned(NamedTuple):
    """Of one sample: times and neurons of its spikes, and v (T, N), c (T, P, N), h (T, H, N) at the probes."""

    time: np.ndarray
    neuron: np.ndarray
    v: np.ndarray
    c: np.ndarray
    h: np.ndarray


def scan(layer, times, sources, v, c, h, trial, sample) -> Scanned:
    """Neuron n as the vector z = (v, c …, h …, 1) with ż = A z; held, the rows of v and of what follows it are zero."""
    p = layer.neurons
    (currents, n), parts = c.shape, len(h)
    own, size = currents - p.jump.shape[0], 2 + currents + parts
    z = np.concatenate([v[None], c, h, np.ones((1, n))]).T
    release, counted = np.full(n, inf), []
    edges, bias = [*trial.edges, trial.t_end], p.bias + (trial.drive[0, sample] if len(trial.drive) else 0.0)
    arrivals = []
    for t, source in zip(times, sources, strict=True):
        arrivals += spread(layer.incoming, t, source)
    states, probes = [], list(trial.probes)
    now, step = 0.0, 0

    def matrices():
        a = np.zeros((n, size, size))
        for m in range(n):
            if release[m] == inf:
                a[m, 0, 0] = -p.leak_rate[m]
                a[m, 0, 1 : 1 + currents] = p.gain[m]
                a[m, 0, -1] = p.gain[m] * bias[m]
            for k in range(currents):
                a[m, 1 + k, 1 + k] = -p.rate[k, m]
            for k in range(parts):
                a[m, 1 + currents + k, 1 + currents + k] = -p.th_rate[k, m]
            for k in range(parts - len(p.follow), parts):
                a[m, 1 + currents + k, 0] = p.follow[0, m]
                a[m, 1 + currents + k] *= release[m] == inf
        return a

    def gap(x):
        return x[..., 0] - p.v_th[: len(x)] - x[..., 1 + currents : -1].sum(-1)

    def crossing(a, before, threshold, length):
        low, high = 0.0, length
        while high - low > 1e-13:
            middle = 0.5 * (low + high)
            x = expm(a * middle) @ before
            low, high = (middle, high) if x[0] - threshold - x[1 + currents : -1].sum() < 0.0 else (low, middle)
        return high

    while True:
        known = min([t for t, *_ in arrivals] + list(release) + edges[step : step + 1] + probes[:1])
        a = matrices()
        fine = expm(a * STEP)
        while known > now:
            length = min(STEP, known - now)
            new = np.einsum("nij,nj->ni", fine if length == STEP else expm(a * length), z)
            up = np.flatnonzero((gap(z) < 0.0) & (gap(new) >= 0.0) & (release == inf))
            if len(up) == 0:
                z, now = new, now + length if length == STEP else known
                continue
            waits = [crossing(a[m], z[m], p.v_th[m], length) for m in up]
            first = int(np.argmin(waits))
            m = up[first]
            z, now = np.einsum("nij,nj->ni", expm(a * waits[first]), z), now + waits[first]
            counted.append((now, m))
            z[m, 0] = p.reset_factor[m] * (z[m, 0] - p.v_th[m]) + p.v_reset[m]
            z[m, 1 + own : 1 + currents] = p.scale[:, m] * z[m, 1 + own : 1 + currents] + p.jump[:, m]
            z[m, 1 + currents : -1] = p.th_scale[:, m] * z[m, 1 + currents : -1] + p.th_jump[:, m]
            if p.refractory[m] > 0.0:
                release[m] = now + p.refractory[m]
            if len(layer.recurrent.first) > 1:
                arrivals += spread(layer.recurrent, now, m)
            break
        else:
            if (release <= known).any():
                release[release <= known] = inf
            elif any(t <= known for t, *_ in arrivals):
                for t, post, receptor, weight in arrivals:
                    if t <= known:
                        z[post, 1 + receptor] += weight
                arrivals = [x for x in arrivals if x[0] > known]
            elif step + 1 < len(edges) and edges[step] <= known:
                step += 1
                bias = p.bias + trial.drive[step, sample]
            elif probes and probes[0] <= known:
                states.append(z.copy())
                probes.pop(0)
            elif known >= trial.t_end:
                break
    found = np.array(states).transpose(0, 2, 1)
    time, neuron = np.array([t for t, _ in counted]), np.array([m for _, m in counted], int)
    return Scanned(time, neuron, found[:, 0], found[:, 1 : 1 + currents], found[:, 1 + currents : -1])


def spread(wiring, t, source):
    """(time, post, receptor, weight) of what a spike sends."""
    found = []
    for q in range(wiring.first[source], wiring.first[source + 1]):
        for e in range(wiring.edge[q], wiring.edge[q + 1]):
            found.append((t + wiring.delay[q], wiring.post[e], wiring.receptor[e], wiring.weight[e]))
    return found
