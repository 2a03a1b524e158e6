"""Spikes of many independent LIF neurons in extended precision: a record that shares no code with the library.

Every neuron has constants of its own and hears the same input spikes, currents held over steps, and its own spikes a delay
later. Between events v is the closed form (2.3) in numpy's longdouble; a crossing is bracketed by the end of the interval or
the extremum, whose time is (2.4), and bisected until nothing is left to halve.
"""

from typing import NamedTuple

import numpy as np

LONG = np.longdouble
assert np.finfo(LONG).eps < 1e-18, "extended precision is needed to judge double precision"


class Neurons(NamedTuple):
    """Constants of n neurons, each (n,): τ_m, τ_s in ms, b, v_th, v_reset, weights of the inputs and of own spikes."""

    tau_mem: np.ndarray
    tau_syn: np.ndarray
    bias: np.ndarray
    v_th: np.ndarray
    v_reset: np.ndarray
    w: np.ndarray
    w_rec: np.ndarray


class State(NamedTuple):
    v: np.ndarray
    i: np.ndarray


def voltage(y: State, t: np.ndarray, b: np.ndarray, tm: np.ndarray, ts: np.ndarray) -> np.ndarray:
    """v(t) = b + (v - b) e^{-t/τ_m} + i K(t)/τ_m."""
    kappa = 1 / ts - 1 / tm
    same = tm == ts
    safe = np.where(same, LONG(1), kappa)
    slow = np.exp(-t / np.maximum(tm, ts))
    gone = -np.expm1(-np.abs(kappa) * t)
    k = np.where(same, t * slow, slow * gone / np.abs(safe))
    return b + (y.v - b) * np.exp(-t / tm) + y.i * k / tm


def crossing(y: State, span: np.ndarray, b: np.ndarray, th: np.ndarray, tm: np.ndarray, ts: np.ndarray) -> np.ndarray:
    """First time in [0, span] at which v rises to th from below, or inf."""
    end = voltage(y, span, b, tm, ts)
    rise = y.i + b - y.v
    peak = extremum(y, b, tm, ts)
    inside = (y.i > 0) & (rise > 0) & (peak < span)
    high = np.where(inside, peak, span)
    top = np.where(inside, voltage(y, np.where(inside, peak, LONG(0)), b, tm, ts), end)
    crosses = (top > th) & (y.v < th)
    low, high = np.zeros_like(span)[crosses], high[crosses]
    part = State(y.v[crosses], y.i[crosses])
    args = b[crosses], tm[crosses], ts[crosses]
    for _ in range(70):
        middle = (low + high) / 2
        below = voltage(part, middle, *args) < th[crosses]
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    found = np.full(span.shape, np.inf, LONG)
    found[crosses] = high
    return found


def extremum(y: State, b: np.ndarray, tm: np.ndarray, ts: np.ndarray) -> np.ndarray:
    """Time of the extremum of v, inf where there is none after 0."""
    kappa = 1 / ts - 1 / tm
    safe_i = np.where(y.i == 0, LONG(1), y.i)
    ratio = (y.i + b - y.v) / safe_i
    x = kappa * ts * ratio
    none = (y.i == 0) | (x >= 1)
    curved = -np.log1p(-np.where(none, LONG(0), x)) / np.where(kappa == 0, LONG(1), kappa)
    return np.where(none, LONG(np.inf), np.where(kappa == 0, ts * ratio, curved))


def spikes(
    p: Neurons,
    arrivals: np.ndarray,
    t_end: float | np.ndarray,
    edges: np.ndarray | None = None,
    drive: np.ndarray | None = None,
    delay: float | np.ndarray = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Solve all neurons from rest.

    Args:
        arrivals: (K,) or (n, K), sorted times of the input spikes, ms; inf is none.
        t_end: ms, of all or (n,).
        edges, drive: times at which later steps of the current begin, (T-1,) or (n, T-1), ms, and its value, (T, n).
        delay: of a neuron's own spikes, ms, of all or (n,).

    Returns:
        neuron and time of every spike, in the order of neurons, then time.
    """
    p = Neurons(*(x.astype(LONG) for x in p))
    n = len(p.bias)
    t_end, delay = (np.broadcast_to(x, n).astype(LONG) for x in (t_end, delay))

    def until_the_end(times: np.ndarray) -> np.ndarray:
        each = np.broadcast_to(times, (n, times.shape[-1])).astype(LONG)
        return np.pad(np.where(each <= t_end[:, None], each, np.inf), ((0, 0), (0, 1)), constant_values=np.inf)

    arrivals, edges = until_the_end(arrivals), until_the_end(np.zeros(0) if edges is None else edges)
    drive = np.zeros((1, n), LONG) if drive is None else drive.astype(LONG)
    v, i, t = (np.zeros(n, LONG) for _ in range(3))
    coming, step = np.zeros(n, int), np.zeros(n, int)
    own: list[list[np.longdouble]] = [[] for _ in range(n)]  # arrivals of own spikes yet to come
    own_next = np.full(n, np.inf, LONG)
    neuron, time = [], []
    active = np.arange(n)
    while len(active):
        at = active
        b = p.bias[at] + drive[step[at], at]
        stop = np.minimum.reduce([arrivals[at, coming[at]], edges[at, step[at]], own_next[at], t_end[at]])
        tm, ts = p.tau_mem[at], p.tau_syn[at]
        y, span = State(v[at], i[at]), stop - t[at]
        wait = crossing(y, span, b, p.v_th[at], tm, ts)
        fired = wait < np.inf
        move = np.where(fired, wait, span)
        v[at] = np.where(fired, p.v_reset[at], voltage(y, move, b, tm, ts))
        i[at] *= np.exp(-move / ts)
        t[at] += move
        who = at[fired]
        neuron.append(who)
        time.append(t[who])
        linked = who[p.w_rec[who] != 0]
        for k in linked:
            own[k].append(t[k] + delay[k])
        own_next[linked] = [own[k][0] for k in linked]
        rest = at[~fired]
        stop = stop[~fired]
        back = rest[own_next[rest] == stop]
        for k in back:
            own[k].pop(0)
        own_next[back] = [own[k][0] if own[k] else np.inf for k in back]
        i[back] += p.w_rec[back]
        new = np.setdiff1d(rest, back, assume_unique=True)
        stop = stop[np.isin(rest, new, assume_unique=True)]
        hit = arrivals[new, coming[new]] == stop
        i[new[hit]] += p.w[new[hit]]
        coming[new[hit]] += 1
        change = ~hit & (edges[new, step[new]] == stop)
        step[new[change]] += 1
        done = new[~hit & ~change]  # only the end is left
        active = np.setdiff1d(active, done, assume_unique=True)
    neuron, time = np.concatenate(neuron), np.concatenate(time)
    order = np.lexsort((time, neuron))
    return neuron[order], time[order].astype(float)
