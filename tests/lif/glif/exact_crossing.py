"""The first crossing of a moving threshold in many digits, by partial fractions, a fine grid and bisection."""

from itertools import pairwise
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
        return self.both(t)[0]

    def slope(self, t) -> mpmath.mpf:
        return self.both(t)[1]

    def both(self, t) -> tuple[mpmath.mpf, mpmath.mpf]:
        """f and its slope; the exponentials take nearly all of the time."""
        values, slopes = [], []
        for a, r in self.plain:
            values.append(part := a * mpmath.exp(-r * t))
            slopes.append(-r * part)
        for a, r in self.linear:
            part = a * mpmath.exp(-r * t)
            values.append(part * t)
            slopes.append(part * (1 - r * t))
        return mpmath.fsum(values), mpmath.fsum(slopes)

    def gathered(self) -> "Curve":
        """The same with one coefficient for each rate."""
        return Curve(*(list(zip(sums.values(), sums, strict=True)) for sums in map(_by_rate, self)))


def _by_rate(terms: list[tuple[mpmath.mpf, mpmath.mpf]]) -> dict[mpmath.mpf, mpmath.mpf]:
    sums: dict[mpmath.mpf, mpmath.mpf] = {}
    for a, r in terms:
        sums[r] = sums.get(r, 0) + a
    return sums


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
    times, f = grid(horizon, fastest), f.gathered()
    value, slope = f.both(mpmath.mpf(times[0]))
    for before, t in pairwise(times):
        (was, rising), (value, slope) = (value, slope), f.both(mpmath.mpf(t))
        if was < 0 and value >= 0:
            return bisected(f.at, before, t)
        if was < 0 and rising > 0 and slope < 0:  # a maximum in between
            peak = bisected(lambda t: -f.slope(t), before, t)
            if f.at(peak) > 0:
                return bisected(f.at, before, peak)
    return inf


def bisected(function, low, high):
    """The zero of a function that is negative at low, positive at high."""
    low, high = mpmath.mpf(low), mpmath.mpf(high)
    for _ in range(150):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return high
