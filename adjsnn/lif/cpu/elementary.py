"""Exponentials, logarithms and the flow without a call or a branch: loops over arrays of them become vector instructions.

e^x and 1 - e^{-x} are within 1.5 units of 2⁻⁵³ of the exact numbers, within 4 those of `fades`, and ln within 3, relatively;
libm's, which the scalar pieces of `flow.py` call, are within 1, one after the other.
"""

from math import factorial
from typing import NamedTuple

import numpy as np

from adjsnn.numerics.compiled import EXACT_BARE, EXACT_BARE_INLINE, EXACT_INLINE, EXACT_PIECE, compiled

LOG2_E = 1.4426950408889634
LN2, LN2_REST = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # 32 bits of ln 2, so that few multiples are exact
ROUNDER = 1.5 * 2.0**52  # what is added to it is rounded to a whole number, which then stands in the lowest bits
ONE = 0x3FF0000000000000  # the bits of 1
ROOT_HALF = 0x3FE6A09E667F3BCD  # the bits of √½
SMALLEST = -708.0  # of exponents: beyond, e^x is less than 2⁻¹⁰²⁰ and counts for nothing beside any voltage
SOON = 0.5  # of t/τ, up to which 1 - e^{-t/τ} is a short series
F2, F3, F4, F5, F6, F7, F8, F9, F10, F11, F12, F13, F14, F15 = (1.0 / factorial(k) for k in range(2, 16))
L3, L5, L7, L9, L11, L13, L15, L17, L19, L21, L23 = (1.0 / k for k in range(3, 24, 2))  # no division in a loop


@compiled(**EXACT_INLINE)
def exponential(x):
    """e^x for x ≤ 708; for x < -708 that of -708."""
    x = x if x > SMALLEST else SMALLEST
    z = x * LOG2_E + ROUNDER
    k = z - ROUNDER
    r = (x - k * LN2) - k * LN2_REST  # |r| ≤ ln 2 / 2, and the series to r¹³ is within 2⁻⁵⁷
    r2 = r * r
    r4 = r2 * r2
    low, high = (F2 + F3 * r) + (F4 + F5 * r) * r2, (F6 + F7 * r) + (F8 + F9 * r) * r2
    series = 1.0 + (r + r2 * (low + high * r4 + ((F10 + F11 * r) + (F12 + F13 * r) * r2) * (r4 * r4)))
    shift = np.float64(z).view(np.int64) << np.int64(52)  # k in the place of an exponent
    return np.int64(np.float64(series).view(np.int64) + shift).view(np.float64)


@compiled(**EXACT_INLINE)
def gone(x):
    """1 - e^{-x} for |x| ≤ 1/2, to relative rounding."""
    r = -x
    r2 = r * r
    r4 = r2 * r2
    low, high = (F2 + F3 * r) + (F4 + F5 * r) * r2, (F6 + F7 * r) + (F8 + F9 * r) * r2
    highest = (F10 + F11 * r) + (F12 + F13 * r) * r2 + (F14 + F15 * r) * r4
    return -(r + r2 * (low + high * r4 + highest * (r4 * r4)))


@compiled(**EXACT_INLINE)
def fades(x):
    """e^{-x} and 1 - e^{-x} for x ≥ 0, both of one series: 1 - e^{-x} = (1 - 2^k) - 2^k (e^r - 1)."""
    x = x if x < -SMALLEST else -SMALLEST
    z = ROUNDER - x * LOG2_E
    k = z - ROUNDER
    r = (-x - k * LN2) - k * LN2_REST
    r2 = r * r
    r4 = r2 * r2
    low, high = (F2 + F3 * r) + (F4 + F5 * r) * r2, (F6 + F7 * r) + (F8 + F9 * r) * r2
    series = r + r2 * (low + high * r4 + ((F10 + F11 * r) + (F12 + F13 * r) * r2) * (r4 * r4))
    scale = np.int64(ONE + (np.float64(z).view(np.int64) << np.int64(52))).view(np.float64)
    part = scale * series
    return scale + part, (1.0 - scale) - part


@compiled(**EXACT_INLINE)
def logarithm(y):
    """ln y for y > 0 that is no denormal number."""
    bits = np.float64(y).view(np.int64)
    k = (bits - ROOT_HALF) >> np.int64(52)  # y = 2^k m with √½ ≤ m < √2
    m = np.int64(bits - (k << np.int64(52))).view(np.float64)
    f = (m - 1.0) / (m + 1.0)
    s = f * f
    s2 = s * s
    s4 = s2 * s2
    low, high = (L3 + L5 * s) + (L7 + L9 * s) * s2, (L11 + L13 * s) + (L15 + L17 * s) * s2
    series = low + high * s4 + (L19 + L21 * s + L23 * s2) * (s4 * s4)
    return k * LN2 + (2.0 * f + (2.0 * f * s * series + k * LN2_REST))


@compiled(**EXACT_INLINE)
def rates_of(tau_mem, tau_syn):
    """What `decays` asks of the time constants: 1/τ of the slower and |κ|, 1/ms, and 1/(|κ| τ_m), 0 where they are equal."""
    kappa = abs(tau_mem - tau_syn) / (tau_mem * tau_syn)
    return (
        1.0 / max(tau_mem, tau_syn),
        kappa,
        1.0 / (kappa * tau_mem) if kappa > 0.0 else 0.0,
        tau_mem >= tau_syn,
        1.0 / tau_mem,
    )


@compiled(**EXACT_INLINE)
def decays(t, rates):
    """e^{-t/τ_m}, e^{-t/τ_s} and K(t)/τ_m, as `flow.decay` computes them; K = t e^{-t/τ_m} where the constants are equal."""
    slower, kappa, share, mem_slower, rate_mem = rates
    x = kappa * t
    far = exponential(-x)
    near = gone(x if x < 0.5 else 0.5)
    lost = near if x < 0.5 else 1.0 - far  # whichever is not the difference of two that are alike
    left = 1.0 - near if x < 0.5 else far
    slow = exponential(-t * slower)
    fast, gain = slow * left, slow * (lost * share if share > 0.0 else t * rate_mem)
    return (slow if mem_slower else fast), (fast if mem_slower else slow), gain


class Rates(NamedTuple):
    """What `decays` asks of each of a layer's neurons, (N,), so that nothing is divided on the way."""

    slower: np.ndarray
    kappa: np.ndarray
    share: np.ndarray
    mem_slower: np.ndarray
    mem: np.ndarray


@compiled(**EXACT_PIECE)
def all_rates(tau_mem, tau_syn):
    """Rates of neurons."""
    n = len(tau_mem)
    rates = Rates(np.empty(n), np.empty(n), np.empty(n), np.empty(n, np.bool_), np.empty(n))
    for k in range(n):
        rates.slower[k], rates.kappa[k], rates.share[k], rates.mem_slower[k], rates.mem[k] = rates_of(tau_mem[k], tau_syn[k])
    return rates


@compiled(**EXACT_BARE_INLINE)
def rates_at(rates, n):
    """Those of neuron n."""
    return rates.slower[n], rates.kappa[n], rates.share[n], rates.mem_slower[n], rates.mem[n]


@compiled(**EXACT_BARE)
def _later(t, rates):
    return decays(t, rates)


@compiled(**EXACT_INLINE)
def decay_soon(t, rates):
    """`decays` of one t ≥ 0, sooner where it is short, as those between the events of a network are: without powers of 2."""
    slower, kappa, share, mem_slower, rate_mem = rates
    x, y = kappa * t, slower * t
    if not (x < SOON and y < SOON):
        return _later(t, rates)
    lost, faded = gone(x), gone(y)
    slow, left = 1.0 - faded, 1.0 - lost
    fast, gain = slow * left, slow * (lost * share if share > 0.0 else t * rate_mem)
    return (slow if mem_slower else fast), (fast if mem_slower else slow), gain
