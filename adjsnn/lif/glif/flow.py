"""The flow of generalised LIF neurons between events in closed form, equation (6.2), by rates, with and without leak.

Exponentials e_a = e^{-at} and their convolutions K(a, b) = e_a∗e_b, J(a, b) = e_a∗e_a∗e_b; a constant is e_0, and without leak
μ = 0.
"""

from math import factorial

import numpy as np

from adjsnn.lif.flow import SERIES_BELOW, TERMS, series_of_double_kernel
from adjsnn.lif.glif.arrays import GLIFState, Neurons, X


def of(neurons: Neurons, who: X | int) -> Neurons:
    """Some of the neurons."""
    return Neurons._make(x[..., who] for x in neurons)


def kernel(a: X, b: X | float, t: X) -> X:
    """K(a, b) = (e^{-at} - e^{-bt})/(b - a) at t, t e^{-at} for a = b, by the slower exponential and expm1: no cancellation."""
    apart = np.abs(b - a)
    return np.exp(-np.minimum(a, b) * t) * np.where(apart > 0.0, -np.expm1(-apart * t) / np.where(apart > 0.0, apart, 1.0), t)


def double_kernel(a: X, b: X | float, t: X) -> X:
    """J(a, b) = (t e^{-at} - K(a, b))/(b - a) at t, so that ∂K(a, b)/∂a = -J(a, b); a series for |(b - a) t| < ½."""
    x = (b - a) * t
    small = np.abs(x) < SERIES_BELOW
    slow = np.exp(-a * t)
    apart = (t * slow - kernel(a, b, t)) / np.where(small, 1.0, b - a)
    return np.where(small, slow * t * t * series_of_double_kernel(np.where(small, x, 0.0)), apart)


def convolved(t: X, *rates: X | float) -> X:
    """e_a∗e_b∗… of three rates or more at t, in any order, equation (6.10).

    A series where the two outermost are within ½/t of each other, the switch of (2.10); elsewhere their divided difference.
    """
    return _convolved(np.sort(np.stack(np.broadcast_arrays(*rates, t)[:-1]), 0), t)


def _convolved(rising: X, t: X) -> X:
    if len(rising) == 2:
        return kernel(rising[0], rising[1], t)
    n, apart = len(rising) - 1, rising[-1] - rising[0]
    small = apart * t < SERIES_BELOW
    middle = rising[0] + 0.5 * apart
    x = np.where(small, (middle - rising) * t, 0.0)
    weight, sums = 1.0 / factorial(n), np.ones_like(x)
    series = np.full(x.shape[1:], weight)
    for k in range(1, TERMS):  # all products of k of the x, those of the first, of the first two …
        sums = (x * sums).cumsum(0)
        weight /= n + k
        series += weight * sums[-1]
    far = (_convolved(rising[:-1], t) - _convolved(rising[1:], t)) / np.where(small, 1.0, apart)
    return np.where(small, np.exp(-middle * t) * t**n * series, far)


def flow(state: GLIFState, t: X, bias: X, p: Neurons) -> GLIFState:
    """v (N,), c (P, N) and h (H, N) a time t (N,) later without events, equation (6.2); bias is b with the drive."""
    v, c, h = state
    pushed = bias * kernel(p.leak_rate, 0.0, t) + (c * kernel(p.leak_rate, p.rate, t)).sum(0)
    h = h * np.exp(-p.th_rate * t)
    if len(p.follow):
        q = p.th_rate[-1]
        fed = bias * convolved(t, q, p.leak_rate, 0.0) + (c * convolved(t, q, p.leak_rate, p.rate)).sum(0)
        h[-1] += p.follow[0] * (state.v * kernel(q, p.leak_rate, t) + p.gain * fed)
    return GLIFState(v * np.exp(-p.leak_rate * t) + p.gain * pushed, c * np.exp(-p.rate * t), h)


def slopes(state: GLIFState, bias: X, p: Neurons) -> tuple[X, X]:
    """v̇ of neurons that are not held, and ḣ (H, N), equations (6.1), (6.9)."""
    moves = -p.th_rate * state.h
    moves[len(moves) - len(p.follow) :] += p.follow * state.v
    return p.gain * (state.c.sum(0) + bias) - p.leak_rate * state.v, moves
