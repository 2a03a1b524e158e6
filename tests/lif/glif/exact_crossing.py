"""The first crossing of a moving threshold in many digits, by partial fractions, a fine grid and bisection."""

from math import inf
from typing import NamedTuple

import mpmath
import numpy as np

DIGITS = 40
PER_DECADE = 40  # points of the grid


class Curve(NamedTuple):
    """f(t) = v - θ of one neuron as exponentials, (coefficient, rate) each, and t e^{-rate t} for rates that are equal."""

    plain: list[tuple[mpmath.mpf, mpmath.mpf]]
    linear: list[tuple[mpmath.mpf, mpmath.mpf]]

    def at(self, t) -> mpmath.mpf:
        parts = [a * mpmath.exp(-r * t) for a, r in self.plain] + [a * t * mpmath.exp(-r * t) for a, r in self.linear]
        return mpmath.fsum(parts)

    def slope(self, t) -> mpmath.mpf:
        parts = [-a * r * mpmath.exp(-r * t) for a, r in self.plain]
        return mpmath.fsum(parts + [a * (1 - r * t) * mpmath.exp(-r * t) for a, r in self.linear])


def curve(mu, gain, bias, v, v_th, currents, parts) -> Curve:
    """Of currents (c, r) and parts of the threshold (h, s), all as the doubles they are."""
    mu, gain, bias, v, v_th = (mpmath.mpf(float(x)) for x in (mu, gain, bias, v, v_th))
    plain, linear = [(v, mu), (-v_th, mpmath.mpf(0))], []
    for c, r in [*currents, (bias, 0.0)]:
        c, r = mpmath.mpf(float(c)), mpmath.mpf(float(r))
        if r == mu:
            linear.append((gain * c, mu))
        else:
            plain += [(gain * c / (r - mu), mu), (-gain * c / (r - mu), r)]
    plain += [(-mpmath.mpf(float(h)), mpmath.mpf(float(s))) for h, s in parts]
    return Curve([(a, r) for a, r in plain if a], linear)


def grid(horizon: float, fastest: float) -> list[float]:
    """From a hundredth of the shortest time constant on in steps that grow with t."""
    start = min(0.01 / fastest, horizon)
    count = max(2, int(PER_DECADE * np.log10(horizon / start)) + 2)
    return [0.0, *np.geomspace(start, horizon, count).tolist()]


def first_upward(f: Curve, horizon: float, fastest: float) -> float:
    """First zero from below in (0, horizon], or inf; maxima between points of the grid are looked for."""
    times = grid(horizon, fastest)
    values = [f.at(mpmath.mpf(t)) for t in times]
    for k in range(1, len(times)):
        if values[k - 1] < 0 and values[k] >= 0:
            return bisected(f.at, times[k - 1], times[k])
        if values[k - 1] < 0 and f.slope(times[k - 1]) > 0 and f.slope(times[k]) < 0:  # a maximum in between
            peak = bisected(lambda t: -f.slope(t), times[k - 1], times[k])
            if f.at(peak) > 0:
                return bisected(f.at, times[k - 1], peak)
    return inf


def bisected(function, low, high):
    """The zero of a function that is negative at low, positive at high."""
    low, high = mpmath.mpf(low), mpmath.mpf(high)
    for _ in range(150):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return high
