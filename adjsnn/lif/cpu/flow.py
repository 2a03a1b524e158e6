"""Scalar pieces of the LIF loops, compiled by numba: flow, crossing and costate of one neuron between events (2.3)-(2.10).

The same formulas as in `lif/flow.py`, one number at a time. Rounding must stay what it is written as, so sums are not
reordered; products and sums may be fused. `lif/cuda/` compiles them for a GPU, where nothing can be allocated.
"""

from math import exp, expm1, inf, log1p, sqrt
from typing import Any

import numpy as np

from adjsnn.lif.flow import SERIES_BELOW
from adjsnn.numerics.compiled import EXACT, EXACT_BARE, EXACT_BARE_INLINE, EXACT_INLINE, EXACT_WITHIN, compiled

BLUR = 2.0**-40  # of voltages, below which rounding may have decided


@compiled(**EXACT_INLINE)
def decay(t, tau_mem, tau_syn):
    """e^{-t/τ_m}, e^{-t/τ_s} and K(t), the faster exponential from the slower one; all to relative rounding."""
    kappa = (tau_mem - tau_syn) / (tau_mem * tau_syn)
    if kappa == 0.0:
        e = exp(-t / tau_mem)
        return e, e, t * e
    x = abs(kappa) * t
    if x > 0.5:  # either the share that is left or the one that is gone is computed, whichever is the smaller
        left = exp(-x)
        gone = 1.0 - left
    else:
        gone = -expm1(-x)
        left = 1.0 - gone
    slow = exp(-t / max(tau_mem, tau_syn))
    fast, k = slow * left, slow * gone / abs(kappa)
    return (slow, fast, k) if kappa > 0.0 else (fast, slow, k)


@compiled(**EXACT_INLINE)
def moved(v, i, bias, tau_mem, e_mem, e_syn, k):
    """(v, i) after an interval with the exponentials and K of `decay` (2.3); `bias` with the drive."""
    return bias + (v - bias) * e_mem + i * k / tau_mem, i * e_syn


@compiled(**EXACT_INLINE)
def costate_back(lam_v, lam_i, tau_mem, e_mem, e_syn, k):
    """(λ_v, λ_i) before an interval from those after it (2.5)."""
    return lam_v * e_mem, lam_i * e_syn + lam_v * k / tau_mem


@compiled(**EXACT_INLINE)
def speed(current, bias, v, tau_mem):
    """v̇ at the voltage v, with i and the drive together in `current` (2.7)."""
    return (current + bias - v) / tau_mem


@compiled(**EXACT_INLINE)
def arrival_shift(weight, lam_v, lam_i, tau_mem, tau_syn):
    """dC/dt_a of an arrival (2.6)."""
    return weight * (lam_i / tau_syn - lam_v / tau_mem)


@compiled(**EXACT_INLINE)
def release_shift(lam_v, current, bias, v_reset, tau_mem):
    """dC/dt of a release: -λ_v v̇ just after it."""
    return -lam_v * (current + bias - v_reset) / tau_mem


@compiled(**EXACT_INLINE)
def voltage(t, v, i, bias, tau_mem, tau_syn):
    """v(t) and τ_m v̇(t)."""
    e_mem, e_syn, k = decay(t, tau_mem, tau_syn)
    at, current = moved(v, i, bias, tau_mem, e_mem, e_syn, k)
    return at, current + bias - at


@compiled(**EXACT_INLINE)
def extremum(ratio, tau_mem, tau_syn):
    """Time at which v̇ = 0, with ratio = (i + b - v)/i; inf if there is none."""
    kappa = (tau_mem - tau_syn) / (tau_mem * tau_syn)
    x = kappa * tau_syn * ratio
    if kappa == 0.0 or x == 0.0:  # asked first: of a current that has all but decayed the ratio may be inf
        return tau_syn * ratio
    return inf if x >= 1.0 else -log1p(-x) / kappa


@compiled(**EXACT_INLINE)
def may_cross(v, i, v_after, i_after, bias, tau_mem, tau_syn, v_th, t):
    """Whether v can cross within t: a necessary condition from both ends, without exponentials.

    It is above at the end; or its maximum, which only i > 0 brings, lies inside and above. With S = |v| + |b| + |i| + |v_th|
    and fall = τ_m v̇ at the end, the maximum is

    - not inside where v still climbs at the end, fall > 0;
    - below the tangent at the start, since v climbs to it with decreasing slope;
    - below the point where the tangents at both ends meet, if v is concave up to the end, i(t) τ_m + fall τ_s > 0: a sum of two
      exponentials, which changes sign once and, where there is a maximum, for good to below 0.

    Rounding, with u = 2⁻⁵³: every e^{-y} is computed to 3u for all y ≥ 0, because y u e^{-y} < u/2; hence 1 - e^{-κt} to 4u,
    the faster exponential to 12u, and K/τ_m, which is below 1, to 15u. So v(t), i(t) and both slopes are within 64u S of the
    exact ones, however long t is; at the end of a long interval nothing else is left of `fall`. Therefore a slope only counts
    beyond 2⁻⁴⁰ S = 2¹³ u S, and a tangent, which multiplies the error of a slope by t/τ_m, has as much room. Whatever exceeds
    v_th inside by more than 64u S is never passed over; below that rounding decides, here as in `first_crossing`.
    """
    near = nearness(v, i, bias, v_th)
    return may_reach(v, i, v_after, i_after, bias, tau_mem, tau_syn, v_th, t / tau_mem, near)


@compiled(**EXACT_INLINE)
def nearness(v, i, bias, v_th):
    """2⁻⁴⁰ S of `may_cross`: a voltage, below which rounding may have decided."""
    return BLUR * (abs(v) + abs(bias) + abs(i) + abs(v_th))


@compiled(**EXACT_INLINE)
def quick_bound(v, i, v_after, bias, v_th, span, room):
    """What `may_reach` asks first, and nearly always last: 1 or 0, without a branch.

    Args:
        room: 2⁻⁴⁰ (1 + span) or more, of which S is multiplied term by term: products and sums that fuse.
    """
    tangent = v + (i - (v - bias)) * span
    highest = max(tangent, v_after) + room * abs(v) + room * abs(bias) + room * abs(i) + room * abs(v_th)
    return 1 if highest >= v_th else 0


@compiled(**EXACT_INLINE)
def may_reach(v, i, v_after, i_after, bias, tau_mem, tau_syn, v_th, span, near):
    """`may_cross` for loops that know t/τ_m, span, and `nearness` already."""
    rise, reach = i + bias - v, v_th - near * (1.0 + span)
    tangent = v + (rise if rise > 0.0 else 0.0) * span
    if not ((tangent >= reach) | (v_after >= v_th)):  # nearly always, and so a branch that is foretold; those below are not
        return False
    fall = i_after + bias - v_after  # τ_m v̇ at the end, as `rise` at the start
    inside = (i > 0.0) & (rise > 0.0) & (fall <= near) & (tangent >= reach)
    if inside & (fall < -near) & (i_after * tau_mem + fall * tau_syn > near * (tau_mem + tau_syn)):
        inside = v + rise * (v_after - v - fall * span) / (rise - fall) >= reach
    return (v_after >= v_th) | inside | ((v >= v_th) & (rise > 0.0))


@compiled(**EXACT_INLINE)
def bracket(v, i, bias, tau_mem, tau_syn, v_th, horizon):
    """An interval on which v only climbs, and outside of which it cannot cross before the horizon; (0, 0) if none."""
    rise = i + bias - v
    if i > 0.0:
        peak = extremum(rise / i, tau_mem, tau_syn) if rise > 0.0 else 0.0
        touches = 0.0 < peak <= horizon and voltage(peak, v, i, bias, tau_mem, tau_syn)[0] <= v_th
        return 0.0, 0.0 if touches else min(peak, horizon)
    if bias <= v_th:
        return 0.0, 0.0
    falls = extremum(rise / i, tau_mem, tau_syn) if i < 0.0 else inf
    return (falls if rise < 0.0 else 0.0), horizon


@compiled(**EXACT_INLINE)
def passage(way, rise, i, tau_mem, tau_syn):
    """How long v takes for a way, by its first three derivatives.

    Where i > 0 and v climbs, these alternate in sign, so the time is too short, as it is by the first alone.
    """
    speed = rise / tau_mem
    slowing = (i / tau_syn + speed) / tau_mem
    left = speed * speed - 2.0 * slowing * way
    if left <= 0.0:
        return way / speed
    mean = slowing - (i / (tau_syn * tau_syn) + slowing) / tau_mem * (2.0 / 3.0) * way / (speed + sqrt(left))
    left = speed * speed - 2.0 * mean * way
    return 2.0 * way / (speed + sqrt(left)) if left > 0.0 else way / speed


@compiled(**EXACT)
def first_crossing(v, i, bias, tau_mem, tau_syn, v_th, horizon, end):
    """Time of the first upward crossing of v_th in [0, horizon], or inf (2.4); see `lif/flow.py`.

    Args:
        end: v at the horizon.
    """
    rise = i + bias - v
    if v >= v_th and rise > 0.0:
        return 0.0
    low, high, at, t = 0.0, horizon, v, 0.0
    if i > 0.0 and v < v_th < end:  # it climbs through v_th once, from 0 on
        t = passage(v_th - v, rise, i, tau_mem, tau_syn)
        t = t if 0.0 < t < high else high
        at, rise = voltage(t, v, i, bias, tau_mem, tau_syn)
    else:
        low, high = bracket(v, i, bias, tau_mem, tau_syn, v_th, horizon)
        if not low < high or (high == horizon and end < v_th):
            return inf
        t = low
        if i > 0.0:
            t = passage(v_th - v, rise, i, tau_mem, tau_syn)
            t = t if 0.0 < t < high else high
        if t > 0.0:
            at, rise = voltage(t, v, i, bias, tau_mem, tau_syn)
    # i counts by K/τ_m, which is no more than τ_s/τ_m.
    rounding = 2.0**-52 * (abs(v_th) + abs(bias) + abs(v) + abs(i) * min(1.0, tau_syn / tau_mem))
    for _ in range(200):
        gap = at - v_th
        if gap < 0.0:
            low = t
        else:
            high = t
        if 0.0 <= gap <= rounding:
            return t
        new = t - gap * tau_mem / rise if rise > 0.0 else inf
        if abs(gap) <= rounding or high - low <= 2.0**-52 * high:
            t = min(max(new, low), high)
            break
        t = new if low < new < high else 0.5 * (low + high)
        at, rise = voltage(t, v, i, bias, tau_mem, tau_syn)
    step = max(2.0**-52 * high, 2.0**-1074)  # to the side of rounding where the threshold is reached
    while t < high and voltage(t, v, i, bias, tau_mem, tau_syn)[0] < v_th:
        t, step = min(t + step, high), 2.0 * step
    return t


@compiled(**EXACT_INLINE)
def psi(x):
    """(x - 1 + e^{-x})/x² as a series."""
    total = 0.0
    for k in range(16, 1, -1):
        total = 1.0 - total * x / (k + 1)
    return 0.5 * total


@compiled(**EXACT_INLINE)
def double_kernels(t, tau_mem, tau_syn, e_mem, e_syn, k):
    """J_m and J_s of (2.10)."""
    kappa = (tau_mem - tau_syn) / (tau_mem * tau_syn)
    x = kappa * t
    if abs(x) < SERIES_BELOW:
        return e_mem * t * t * psi(x), e_syn * t * t * psi(-x)
    return (t * e_mem - k) / kappa, (k - t * e_syn) / kappa


@compiled(**EXACT_INLINE)
def tau_weights(t, tau_mem, tau_syn, e_mem, e_syn, k):
    """What neurons that are alike share in `tau_gradients`: the weights of λ_v (b - v) and λ_v i, and of λ_i i and λ_v i."""
    j_mem, j_syn = double_kernels(t, tau_mem, tau_syn, e_mem, e_syn, k)
    m, s = tau_mem * tau_mem, tau_syn * tau_syn
    return -t * e_mem / m, -(k - j_mem / tau_mem) / m, t * e_syn / s, j_syn / (tau_mem * s)


@compiled(**EXACT_INLINE)
def tau_gradients(v, i, lam_v, lam_i, bias, weights):
    """What an interval that starts at (v, i) and ends with the costate (λ_v, λ_i) adds to dC/dτ_m and dC/dτ_s (2.8).

    Args:
        weights: from `tau_weights`.
    """
    leak, fed, fading, feeding = weights
    return lam_v * ((bias - v) * leak + i * fed), i * (lam_i * fading + lam_v * feeding)


@compiled(**EXACT_WITHIN)
def grown(x, size) -> Any:
    """x, or a longer copy of it that holds `size` entries."""
    if size <= len(x):
        return x
    longer = np.empty(max(size, 2 * len(x)), x.dtype)
    copy(x, longer)
    return longer


@compiled(**EXACT_BARE_INLINE)
def copy(source, target):
    """Into the first entries of the target; a slice would have the message of two that do not fit compiled, for seconds."""
    for k in range(len(source)):
        target[k] = source[k]


@compiled(**EXACT_BARE)
def add_transposed(x_t, total):
    """total += x_tᵀ, of matrices."""
    for n in range(len(total)):
        for m in range(len(x_t)):
            total[n, m] += x_t[m, n]
