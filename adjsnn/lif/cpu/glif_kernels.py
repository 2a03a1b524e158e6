"""Exponentials e_a = e^{-at} and their convolutions for compiled generalised LIF neurons, and the places in their rows."""

from math import exp

from adjsnn.lif.cpu.elementary import exponential, fades
from adjsnn.lif.flow import SERIES_BELOW, TERMS
from adjsnn.numerics.compiled import EXACT_BARE_INLINE, EXACT_INLINE, compiled

SINCE, SAFE, KEY, V, BIAS, V_TH, CURRENTS = range(7)  # places in a neuron's row; the currents and what follows come last
KIND, SPAN, E_MU, E_BIAS, SHARED = range(5)  # places in the exponentials that neurons share; the others come last


@compiled(**EXACT_BARE_INLINE)
def fading(mu, t):
    """e^{-μt} and E(μ, t) = ∫ e^{-μt}."""
    left, gone = fades(mu * t)
    return left, gone / mu if mu > 0.0 else t


@compiled(**EXACT_BARE_INLINE)
def kernel(mu, e_mu, r, t):
    """e^{-rt} and K(μ, r, t) from e^{-μt}, by the slower exponential."""
    apart = r - mu
    if apart == 0.0:
        return e_mu, t * e_mu
    left, gone = fades(abs(apart) * t)
    if apart > 0.0:
        return e_mu * left, e_mu * gone / apart
    slow = exponential(-r * t)
    return slow, slow * gone / -apart


@compiled(**EXACT_INLINE)
def three(a, b, c, t):
    """e_a∗e_b∗e_c at t, in any order, equation (6.10); as `glif.flow.convolved`."""
    low, high = min(a, b, c), max(a, b, c)
    middle = max(min(a, b), min(max(a, b), c))
    if (high - low) * t >= SERIES_BELOW:
        e_middle = exp(-middle * t)
        near, far = kernel(low, exp(-low * t), middle, t)[1], kernel(middle, e_middle, high, t)[1]
        return (near - far) / (high - low)
    centre = low + 0.5 * (high - low)
    x, y, z = (centre - low) * t, (centre - middle) * t, (centre - high) * t
    weight, total, first, second, third = 0.5, 0.5, 1.0, 1.0, 1.0
    for k in range(1, TERMS):  # all products of k of x, of x and y, of all
        first *= x
        second = first + y * second
        third = second + z * third
        weight /= k + 2
        total += weight * third
    return exp(-centre * t) * t * t * total


@compiled(**EXACT_INLINE)
def four(a, b, c, d, t):
    """e_a∗e_b∗e_c∗e_d at t, likewise."""
    low, high = min(a, b, c, d), max(a, b, c, d)
    more, less = max(min(a, b), min(c, d)), min(max(a, b), max(c, d))
    second, third = min(more, less), max(more, less)
    if (high - low) * t >= SERIES_BELOW:
        return (three(low, second, third, t) - three(second, third, high, t)) / (high - low)
    centre = low + 0.5 * (high - low)
    w, x, y, z = (centre - low) * t, (centre - second) * t, (centre - third) * t, (centre - high) * t
    weight, total, p, q, r, s = 1.0 / 6.0, 1.0 / 6.0, 1.0, 1.0, 1.0, 1.0
    for k in range(1, TERMS):
        p *= w
        q = p + x * q
        r = q + y * r
        s = r + z * s
        weight /= k + 3
        total += weight * s
    return exp(-centre * t) * t * t * t * total
