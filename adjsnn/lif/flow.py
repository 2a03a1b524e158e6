"""The flow of LIF neurons between events in closed form (2.3), its integrals, and the first crossing of the threshold (2.4)."""

from math import exp, expm1, inf, log1p

import numpy as np

SERIES_BELOW = 0.5  # |κt| under which the integrals (2.10) are summed as series: the direct form loses one digit there
TERMS = 16


def decay(t: np.ndarray, tau_mem: np.ndarray, tau_syn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """e^{-t/τ_m}, e^{-t/τ_s} and their convolution K(t) = (e^{-t/τ_m} - e^{-t/τ_s})/κ, κ = 1/τ_s - 1/τ_m, equation (2.3).

    K is computed from the slower exponential and expm1, without cancellation for any ratio of the time constants.
    """
    rate = np.abs((tau_mem - tau_syn) / (tau_mem * tau_syn))
    slow = np.exp(-t / np.maximum(tau_mem, tau_syn))
    gone = -np.expm1(-rate * t)
    k = slow * np.where(rate > 0.0, gone / np.where(rate > 0.0, rate, 1.0), t)
    return np.exp(-t / tau_mem), np.exp(-t / tau_syn), k


def flow(
    v: np.ndarray, i: np.ndarray, t: np.ndarray, bias: np.ndarray, tau_mem: np.ndarray, tau_syn: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(v, i) a time t later without events: v(t) = b + (v - b) e^{-t/τ_m} + i K(t)/τ_m, i(t) = i e^{-t/τ_s}, equation (2.3)."""
    e_mem, e_syn, k = decay(t, tau_mem, tau_syn)
    return bias + (v - bias) * e_mem + i * k / tau_mem, i * e_syn


def double_kernels(t: np.ndarray, tau_mem: np.ndarray, tau_syn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """J_m = e_m∗e_m∗e_s = (t e_m - K)/κ and J_s = e_s∗e_m∗e_s = (K - t e_s)/κ at t, equation (2.10)."""
    kappa = (tau_mem - tau_syn) / (tau_mem * tau_syn)
    e_mem, e_syn, k = decay(t, tau_mem, tau_syn)
    x = kappa * t
    small = np.abs(x) < SERIES_BELOW
    safe = np.where(small, 1.0, kappa)
    near = np.where(small, x, 0.0)
    j_mem = np.where(small, e_mem * t * t * series_of_double_kernel(near), (t * e_mem - k) / safe)
    j_syn = np.where(small, e_syn * t * t * series_of_double_kernel(-near), (k - t * e_syn) / safe)
    return j_mem, j_syn


def series_of_double_kernel(x: np.ndarray) -> np.ndarray:
    """(x - 1 + e^{-x})/x² as a series, 1/2 - x/6 + x²/24 - …"""
    series = np.zeros_like(x)
    for k in range(TERMS, 1, -1):
        series = 1.0 - series * x / (k + 1)
    return series / 2.0


def turning_point(v: np.ndarray, i: np.ndarray, bias: np.ndarray, tau_mem: np.ndarray, tau_syn: np.ndarray) -> np.ndarray:
    """Time at which v̇ = 0, equation (2.4); inf if there is none, negative if it lies in the past."""
    kappa = (tau_mem - tau_syn) / (tau_mem * tau_syn)
    with np.errstate(over="ignore", invalid="ignore"):  # of a current that has all but decayed
        ratio = (i + bias - v) / np.where(i != 0.0, i, 1.0)
        x = kappa * tau_syn * ratio
    curved = (x < 1.0) & (kappa != 0.0)
    turn = np.where(curved, -np.log1p(-np.where(curved, x, 0.0)) / np.where(kappa != 0.0, kappa, 1.0), np.inf)
    return np.where(i != 0.0, np.where(kappa == 0.0, tau_syn * ratio, turn), np.inf)


def first_crossing(v: float, i: float, bias: float, tau_mem: float, tau_syn: float, v_th: float, horizon: float) -> float:
    """Time of the first upward crossing of v_th in [0, horizon], or inf, equation (2.4).

    v has at most one extremum. With i > 0 it is a maximum, and v climbs to it with decreasing slope, so that Newton's method
    from the left cannot overshoot, and where it ends does not depend on the horizon; with i ≤ 0 it is a minimum, and v crosses
    only on its way to b > v_th. Just touching the threshold from below is not a crossing.
    """
    # Python's floats, whose quotients are inf without numpy's warning where i has decayed to nearly nothing.
    v, i, bias = float(v), float(i), float(bias)
    tau_mem, tau_syn, v_th = float(tau_mem), float(tau_syn), float(v_th)
    if v >= v_th and i + bias - v > 0.0:
        return 0.0
    end = _voltage(horizon, v, i, bias, tau_mem, tau_syn)[0]
    low, high = 0.0, horizon
    if not (i > 0.0 and v < v_th < end):  # or else it climbs through v_th once, from 0 on
        low, high = _bracket(v, i, bias, tau_mem, tau_syn, v_th, horizon)
        if not low < high or (high == horizon and end < v_th):
            return inf
    return _newton(low, high, v, i, bias, tau_mem, tau_syn, v_th)


def _bracket(
    v: float, i: float, bias: float, tau_mem: float, tau_syn: float, v_th: float, horizon: float
) -> tuple[float, float]:
    """An interval on which v only climbs, and outside of which it cannot cross upward before the horizon; (0, 0) if none."""
    rise = i + bias - v
    kappa = (tau_mem - tau_syn) / (tau_mem * tau_syn)
    if i > 0.0:
        peak = _extremum(rise / i, kappa, tau_syn) if rise > 0.0 else 0.0
        if 0.0 < peak <= horizon and _voltage(peak, v, i, bias, tau_mem, tau_syn)[0] <= v_th:  # it touches at most
            return 0.0, 0.0
        return 0.0, min(peak, horizon)
    if bias <= v_th:
        return 0.0, 0.0
    falls = _extremum(rise / i, kappa, tau_syn) if i < 0.0 else inf
    return (falls if rise < 0.0 else 0.0), horizon


def _extremum(ratio: float, kappa: float, tau_syn: float) -> float:
    """Time at which v̇ = 0, with ratio = (i + b - v)/i; inf if there is none: -log(1 - κ τ_s ratio)/κ."""
    x = kappa * tau_syn * ratio
    if kappa == 0.0 or x == 0.0:  # asked first: of a current that has all but decayed the ratio may be inf
        return tau_syn * ratio
    return inf if x >= 1.0 else -log1p(-x) / kappa


def _voltage(t: float, v: float, i: float, bias: float, tau_mem: float, tau_syn: float) -> tuple[float, float]:
    """v(t) and τ_m v̇(t)."""
    kappa = (tau_mem - tau_syn) / (tau_mem * tau_syn)
    e_mem, e_syn = exp(-t / tau_mem), exp(-t / tau_syn)
    rate = abs(kappa)
    k = t * e_mem if rate == 0.0 else max(e_mem, e_syn) * (-expm1(-rate * t) / rate)
    voltage = bias + (v - bias) * e_mem + i * k / tau_mem
    return voltage, i * e_syn + bias - voltage


def _newton(low: float, high: float, v: float, i: float, bias: float, tau_mem: float, tau_syn: float, v_th: float) -> float:
    """The root of v(t) = v_th between low (below) and high (at or above) by Newton's method, bisecting where it leaves them."""
    # i counts by K/τ_m, which is no more than τ_s/τ_m.
    rounding = 2.0**-52 * (abs(v_th) + abs(bias) + abs(v) + abs(i) * min(1.0, tau_syn / tau_mem))
    t = low
    for _ in range(200):
        voltage, rise = _voltage(t, v, i, bias, tau_mem, tau_syn)
        gap = voltage - v_th
        if gap < 0.0:
            low = t
        else:
            high = t
        new = t - gap * tau_mem / rise if rise > 0.0 else inf
        if abs(gap) <= rounding or high - low <= 2.0**-52 * high:
            t = min(max(new, low), high)
            break
        t = new if low < new < high else 0.5 * (low + high)
    # To the side of rounding where the threshold is reached, so that an interval that ends at a spike contains it.
    step = max(2.0**-52 * high, 2.0**-1074)
    while t < high and _voltage(t, v, i, bias, tau_mem, tau_syn)[0] < v_th:
        t, step = min(t + step, high), 2.0 * step
    return t
