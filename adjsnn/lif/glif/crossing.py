"""The first crossing of a moving threshold, without a miss, equations (6.3) and (6.10)."""

from collections.abc import Callable
from math import exp, expm1, factorial

import numpy as np

from adjsnn.lif.flow import SERIES_BELOW, TERMS
from adjsnn.lif.glif.arrays import GLIFState, Neurons

Terms = list[tuple[float, float]]  # Σ γ e^{-ρt} as its (γ, ρ), no γ zero and each ρ once, slowest first
Piece = tuple[float, float, bool]  # an interval, and whether a function is positive on it
WithSlope = Callable[[float], tuple[float, float]]  # t to a function of one sign change and e^{-ρt} d/dt e^{ρt} of it


def first_crossing(state: GLIFState, bias: float, p: Neurons, horizon: float) -> float:
    """Time of the first crossing of θ from below in [0, horizon], or inf, equation (6.3).

    f = v - θ climbs, up to a positive factor, where g = (d/dt + μ) f is positive, so that it crosses in the first such interval
    at whose end it is positive. At the horizon it need only have reached 0; just touching 0 elsewhere is no crossing.

    Args:
        state: v, a number, c (P,) and h (H,) of one neuron that is not held, no further above θ than rounding.
        bias: b with the drive.
        p: the neuron.
        horizon: until when it flows without events, ms.
    """
    if len(p.follow):
        return _following(state, bias, p, horizon)
    mu, gain, v_th = float(p.leak_rate), float(p.gain), float(p.v_th)
    x, push = float(state.v) - v_th, gain * float(bias) - mu * v_th
    currents = [(gain * c, r) for c, r in zip(state.c.tolist(), p.rate.tolist(), strict=True) if c != 0.0]
    moving = [(h, s) for h, s in zip(state.h.tolist(), p.th_rate.tolist(), strict=True) if h != 0.0]
    g = collected([(push, 0.0), *currents, *(((s - mu) * h, s) for h, s in moving)])
    # f and g times e^{slowest t}: of a long silence as well the sign is that of the slowest part.
    slowest = min(
        [0.0] * (push != 0.0) + [mu] * (x != 0.0 or bool(currents)) + [rate for _, rate in currents + moving], default=0.0
    )

    def gap(t: float) -> tuple[float, float]:
        f = x * exp(-(mu - slowest) * t) if x != 0.0 else 0.0
        f += push * of_numbers(mu, 0.0, t) if push != 0.0 else 0.0
        f += sum(c * of_numbers(mu - slowest, r - slowest, t) for c, r in currents)
        f -= sum(h * exp(-(s - slowest) * t) for h, s in moving)
        return f, _value(g, slowest, t)

    return _upward(gap, pieces(g, horizon), horizon)


def _following(state: GLIFState, bias: float, p: Neurons, horizon: float) -> float:
    """`first_crossing` of a neuron whose threshold follows its voltage, equation (6.10).

    Here (d/dt + q) g is a plain sum of exponentials, between the zeros of which e^{qt} g is monotone.
    """
    mu, gain, v_th, v, w = (float(x) for x in (p.leak_rate, p.gain, p.v_th, state.v, state.h[-1]))
    q, kappa = float(p.th_rate[-1]), float(p.follow[0])
    x, drive = v - v_th, gain * float(bias)
    push = drive - mu * v_th
    currents = [(gain * c, r) for c, r in zip(state.c.tolist(), p.rate.tolist(), strict=True) if c != 0.0]
    moving = [(h, s) for h, s in zip(state.h[:-1].tolist(), p.th_rate[:-1].tolist(), strict=True) if h != 0.0]
    fed = [(drive, 0.0), *currents] if drive != 0.0 else currents  # of v, which feeds w
    follows = kappa != 0.0 and (v != 0.0 or bool(fed))
    g = collected([(push, 0.0), *currents, *(((s - mu) * h, s) for h, s in moving)])
    below = collected(
        [
            (q * push - kappa * drive, 0.0),
            *((c * (q - r - kappa), r) for c, r in currents),
            *(((s - mu) * (q - s) * h, s) for h, s in moving),
        ]
    )
    slowest = min(
        [0.0] * (push != 0.0 or (follows and drive != 0.0))
        + [mu] * (x != 0.0 or bool(currents) or follows)
        + [q] * (w != 0.0 or follows)
        + [rate for _, rate in currents + moving],
        default=0.0,
    )
    leak, late = mu - slowest, q - slowest

    def gap(t: float) -> tuple[float, float]:
        f = x * exp(-leak * t) if x != 0.0 else 0.0
        f += push * of_numbers(leak, 0.0, t) if push != 0.0 else 0.0
        f += sum(c * of_numbers(leak, r - slowest, t) for c, r in currents)
        f -= sum(h * exp(-(s - slowest) * t) for h, s in moving)
        there, voltage = w * exp(-late * t) if w != 0.0 else 0.0, 0.0
        if follows:
            voltage = v * exp(-leak * t) + sum(c * of_numbers(leak, r - slowest, t) for c, r in fed)
            there += kappa * (v * of_numbers(late, leak, t) + sum(c * of_three(late, leak, r - slowest, t) for c, r in fed))
        return f - there, _value(g, slowest, t) - (mu - q) * there - kappa * voltage

    def slope(t: float) -> tuple[float, float]:
        return gap(t)[1], _value(below, slowest, t)

    return _upward(gap, _cut(slope, pieces(below, horizon)), horizon)


def _upward(gap: WithSlope, found: list[Piece], horizon: float) -> float:
    """Where f crosses 0 in the first piece on which it climbs and at whose end it is positive."""
    for left, right, climbs in found:
        end = gap(right)[0] if climbs else -1.0
        if end > 0.0 or (end == 0.0 and right == horizon):
            # At or above θ on the left only by rounding, from where it goes up.
            return left if gap(left)[0] >= 0.0 else _root(gap, left, right, True)
    return np.inf


def pieces(terms: Terms, horizon: float) -> list[Piece]:
    """[0, horizon] cut where Σ γ e^{-ρt} changes sign, by Rolle's theorem.

    With ρ_k next to a change of sign among the γ, (d/dt + ρ_k) of the sum is a sum of one term and one such change less, as in
    Descartes' rule. Between its zeros e^{ρ_k t} times the sum is monotone: the signs at both ends tell whether there is a zero.
    """
    changes = [k for k in range(len(terms) - 1) if (terms[k][0] > 0.0) != (terms[k + 1][0] > 0.0)]
    if not changes:
        return [(0.0, horizon, bool(terms) and terms[0][0] > 0.0)]
    slowest, rate = terms[0][1], terms[changes[0]][1]
    below = collected([(gamma * (rate - other), other) for gamma, other in terms])

    def sum_and_slope(t: float) -> tuple[float, float]:
        return _value(terms, slowest, t), _value(below, slowest, t)

    return _cut(sum_and_slope, pieces(below, horizon))


def _cut(function: WithSlope, between: list[Piece]) -> list[Piece]:
    """Pieces of a function from those of its slope."""
    found: list[Piece] = []
    for left, right, climbs in between:
        start, end = function(left)[0], function(right)[0]
        if (start >= 0.0) if climbs else (start <= 0.0):
            found.append((left, right, climbs))
        elif (end <= 0.0) if climbs else (end >= 0.0):
            found.append((left, right, not climbs))
        else:
            zero = _root(function, left, right, climbs)
            found += [(left, zero, not climbs), (zero, right, climbs)]
    return _joined(found)


def _joined(found: list[Piece]) -> list[Piece]:
    joined = found[:1]
    for piece in found[1:]:
        if piece[2] == joined[-1][2]:
            joined[-1] = (joined[-1][0], piece[1], piece[2])
        else:
            joined.append(piece)
    return joined


def collected(terms: Terms) -> Terms:
    """The same sum, each rate once, slowest first."""
    total: dict[float, float] = {}
    for gamma, rate in terms:
        total[rate] = total.get(rate, 0.0) + gamma
    return [(total[rate], rate) for rate in sorted(total) if total[rate] != 0.0]


def _value(terms: Terms, slowest: float, t: float) -> float:
    return sum(gamma * exp(-(rate - slowest) * t) for gamma, rate in terms)


def of_numbers(a: float, b: float, t: float) -> float:
    """K(a, b) of flow.kernel, of numbers."""
    apart = abs(b - a)
    return exp(-min(a, b) * t) * (-expm1(-apart * t) / apart if apart > 0.0 else t)


def of_three(a: float, b: float, c: float, t: float) -> float:
    """e_a∗e_b∗e_c at t, as flow.convolved, of numbers."""
    low, middle, high = sorted((a, b, c))
    if (high - low) * t >= SERIES_BELOW:
        return (of_numbers(low, middle, t) - of_numbers(middle, high, t)) / (high - low)
    centre = low + 0.5 * (high - low)
    x, y, z = ((centre - rate) * t for rate in (low, middle, high))
    total, first, second, third = 0.5, 1.0, 1.0, 1.0
    for k in range(1, TERMS):
        first = x * first
        second = first + y * second
        third = second + z * third
        total += third / factorial(k + 2)
    return exp(-centre * t) * t * t * total


def _root(function: WithSlope, low: float, high: float, climbs: bool) -> float:
    """Where a function that is e^{-ρt} times a monotone one changes sign between low and high, rounded to the side after.

    Newton's method for the monotone one, from the best point so far and a little further than it says, so that the root is soon
    enclosed from both sides; every third time a bisection, so that it ends whatever the rounding of the function.
    """
    t, best, side, further, step = low, (low, np.inf, 0.0), False, 2.0**-52, 0
    while True:
        value, slope = function(t)
        after = value >= 0.0 if climbs else value <= 0.0
        low, high = (low, t) if after else (t, high)
        middle = 0.5 * (low + high)
        if high - low <= 2.0**-52 * high or not low < middle < high:
            return high
        if abs(value) < abs(best[1]):
            best = (t, value, slope)
        move = -best[1] / best[2] if best[2] != 0.0 else np.inf
        new = best[0] + move + (further if move > 0.0 else -further) * high
        further = 2.0**-52 if after != side else 4.0 * further
        side = after
        step += 1
        t = new if low < new < high and step % 3 else middle
