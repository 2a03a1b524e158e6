"""Models written a second time, in numpy, with the equations as the papers print them; and a solver of SciPy that finds spikes.

Nothing here comes from the library: the texts of `adjsnn.models` are held against these.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy import cosh, exp, tanh
from scipy.integrate import solve_ivp

Array = Any
Jump = Callable[[Array, Any], Array]


class Reference(NamedTuple):
    """f(y, I, c), φ(y, c) of each event, what each does, None where nothing; the state at the start is that of the library."""

    field: Callable[[Array, float, Any], Any]
    levels: tuple[Callable[[Array, Any], float], ...]
    jumps: tuple[Jump | None, ...]


def ratio(x: Array, y: float) -> Array:
    """x/(e^{x/y} - 1); analytic, for complex x too."""
    near = np.abs(x) < 1e-7
    far = np.where(near, 1.0, x)
    return np.where(near, y - x / 2.0, far / (exp(far / y) - 1.0))


def squid(y: Array, current: float, c: Any) -> Array:
    v, m, h, n = y
    u = v + 65.0  # of 1952, with the sign turned round
    am, bm = 0.1 * ratio(25.0 - u, 10.0), 4.0 * exp(-u / 18.0)
    ah, bh = 0.07 * exp(-u / 20.0), 1.0 / (exp((30.0 - u) / 10.0) + 1.0)
    an, bn = 0.01 * ratio(10.0 - u, 10.0), 0.125 * exp(-u / 80.0)
    ionic = c["g_na"] * m**3 * h * (v - c["e_na"]) + c["g_k"] * n**4 * (v - c["e_k"]) + c["g_l"] * (v - c["e_l"])
    return np.array([(current - ionic) / c["c_m"], am * (1 - m) - bm * m, ah * (1 - h) - bh * h, an * (1 - n) - bn * n])


def cortical(y: Array, current: float, c: Any) -> Array:
    v, m, h, n, *p = y
    u = v - c["v_t"]
    am, bm = 0.32 * ratio(13.0 - u, 4.0), 0.28 * ratio(u - 40.0, 5.0)
    ah, bh = 0.128 * exp((17.0 - u) / 18.0), 4.0 / (1.0 + exp((40.0 - u) / 5.0))
    an, bn = 0.032 * ratio(15.0 - u, 5.0), 0.5 * exp((10.0 - u) / 40.0)
    ionic = c["g_na"] * m**3 * h * (v - c["e_na"]) + c["g_k"] * n**4 * (v - c["e_k"]) + c["g_l"] * (v - c["e_l"])
    slow = []
    if p:
        ionic = ionic + c["g_m"] * p[0] * (v - c["e_k"])
        tau = c["tau_max"] / (3.3 * exp((v + 35.0) / 20.0) + exp(-(v + 35.0) / 20.0))
        slow = [(1.0 / (1.0 + exp(-(v + 35.0) / 10.0)) - p[0]) / tau]
    gates = [am * (1 - m) - bm * m, ah * (1 - h) - bh * h, an * (1 - n) - bn * n]
    return np.array([(current - ionic) / c["c_m"], *gates, *slow])


def wang_buzsaki(y: Array, current: float, c: Any) -> Array:
    v, h, n = y
    am, bm = 0.1 * ratio(-(v + 35.0), 10.0), 4.0 * exp(-(v + 60.0) / 18.0)
    ah, bh = 0.07 * exp(-(v + 58.0) / 20.0), 1.0 / (exp(-0.1 * (v + 28.0)) + 1.0)
    an, bn = 0.01 * ratio(-(v + 34.0), 10.0), 0.125 * exp(-(v + 44.0) / 80.0)
    m = am / (am + bm)
    ionic = c["g_na"] * m**3 * h * (v - c["e_na"]) + c["g_k"] * n**4 * (v - c["e_k"]) + c["g_l"] * (v - c["e_l"])
    return np.array([(current - ionic) / c["c_m"], c["phi"] * (ah * (1 - h) - bh * h), c["phi"] * (an * (1 - n) - bn * n)])


def morris_lecar(y: Array, current: float, c: Any) -> Array:
    v, w = y
    m, inf = 0.5 * (1 + tanh((v - c["v_1"]) / c["v_2"])), 0.5 * (1 + tanh((v - c["v_3"]) / c["v_4"]))
    ionic = c["g_l"] * (v - c["e_l"]) + c["g_ca"] * m * (v - c["e_ca"]) + c["g_k"] * w * (v - c["e_k"])
    return np.array([(current - ionic) / c["c_m"], c["phi"] * cosh((v - c["v_3"]) / (2 * c["v_4"])) * (inf - w)])


def adex(y: Array, current: float, c: Any) -> Array:
    v, w = y
    upstroke = c["g_l"] * c["delta_t"] * exp((v - c["v_t"]) / c["delta_t"])
    dv = (c["g_l"] * (c["e_l"] - v) + upstroke - w + current) / c["c_m"]
    return np.array([dv, (c["a"] * (v - c["e_l"]) - w) / c["tau_w"]])


def exponential(y: Array, current: float, c: Any) -> Array:
    v, held, _ = y
    upstroke = c["g_l"] * c["delta_t"] * exp((v - c["v_t"]) / c["delta_t"])
    return np.array([0.0 if held else (c["g_l"] * (c["e_l"] - v) + upstroke + current) / c["c_m"], 0.0, float(held)])


def peak(y: Array, c: Any) -> float:
    return y[0] - c["v_t"] - 10.0 * c["delta_t"]


def _voltage(y: Array, c: Any) -> float:
    del c
    return y[0]


def _spike(field: Callable[[Array, float, Any], Any]) -> Reference:
    return Reference(field, (_voltage,), (None,))


def _depressing(y: Array, rate: float, c: Any) -> Array:
    _, x, a, z = y
    del x
    return np.array([rate, z / c["tau_rec"], -a / c["tau_in"], a / c["tau_in"] - z / c["tau_rec"]])


def _facilitating(y: Array, rate: float, c: Any) -> Array:
    return np.append(_depressing(y[:4], rate, c), -y[4] / c["tau_facil"])


def _release(y: Array, c: Any) -> Array:
    phase, x, a, z, *u = y
    used = u[0] + c["U"] * (1.0 - u[0]) if u else c["U"]
    return np.array([phase - 1.0, x - used * x, a + used * x, z, *([used] if u else [])])


REFERENCES: dict[str, Reference] = {
    "izhikevich": Reference(
        lambda y, u, c: np.array([0.04 * y[0] ** 2 + 5 * y[0] + 140 - y[1] + u, c["a"] * (c["b"] * y[0] - y[1])]),
        (lambda y, c: y[0] - 30.0,),
        (lambda y, c: np.array([c["c"], y[1] + c["d"]]),),
    ),
    "adex": Reference(adex, (peak,), (lambda y, c: np.array([c["v_r"], y[1] + c["b"]]),)),
    "exponential_if": Reference(
        exponential,
        (peak, lambda y, c: y[2] - c["refractory"]),
        (lambda y, c: np.array([c["v_r"], 1.0, 0.0]), lambda y, c: np.array([y[0], 0.0, 0.0])),
    ),
    "quadratic_if": Reference(
        lambda y, u, c: (y**2 + c["eta"] + u) / c["tau"], (lambda y, c: y[0] - c["v_p"],), (lambda y, c: np.array([-c["v_p"]]),)
    ),
    "fitzhugh_nagumo": _spike(
        lambda y, u, c: np.array([y[0] - y[0] ** 3 / 3 - y[1] + u, c["epsilon"] * (y[0] + c["a"] - c["b"] * y[1])])
    ),
    "morris_lecar": _spike(morris_lecar),
    "squid": _spike(squid),
    "cortical": _spike(cortical),
    "wang_buzsaki": _spike(wang_buzsaki),
    "depressing": Reference(_depressing, (lambda y, c: y[0] - 1.0,), (_release,)),
    "facilitating": Reference(_facilitating, (lambda y, c: y[0] - 1.0,), (_release,)),
    "resonate_and_fire": Reference(
        lambda y, u, c: np.array([c["b"] * y[0] - c["omega"] * y[1] + u, c["omega"] * y[0] + c["b"] * y[1]]),
        (lambda y, c: y[1] - 1.0,),
        (lambda y, c: np.array([0.0, 1.0]),),
    ),
}


def solve(
    model: Reference, y0: Array, steps: Any, dt: float, constants: Any, *, method: str = "DOP853", rtol: float = 1e-11
) -> tuple[Array, list[tuple[float, int, Array]]]:
    """States (T + 1, D) at the ends of steps of the current; time, which, and the state before it, of all events."""
    y, states, events = np.asarray(y0, float), [np.asarray(y0, float)], []
    for k, current in enumerate(np.asarray(steps, float)):
        t, end = k * dt, (k + 1) * dt
        while t < end:
            levels = [_event(level, constants, jump is not None) for level, jump in zip(model.levels, model.jumps, strict=True)]
            span = solve_ivp(
                lambda _, x, u=current: model.field(x, u, constants),
                (t, end), y, method=method, rtol=rtol, atol=rtol, events=levels,
            )  # fmt: skip
            if not span.success:
                raise ArithmeticError(span.message)
            for which, found in enumerate(zip(span.t_events, span.y_events, strict=True)):
                events += [(float(time), which, state) for time, state in zip(*found, strict=True)]
            t, y = span.t[-1], span.y[:, -1]
            if span.status == 1:
                which = next(i for i, found in enumerate(span.t_events) if len(found) and found[-1] == t)
                y = model.jumps[which](y, constants)  # pyright: ignore[reportOptionalCall]
        states.append(y)
    return np.array(states), sorted(events, key=lambda event: event[0])


def _event(level: Callable[[Array, Any], float], constants: Any, terminal: bool) -> Callable[..., float]:
    def event(t: float, y: Array) -> float:
        del t
        return level(y, constants)

    event.direction, event.terminal = 1.0, terminal  # pyright: ignore[reportFunctionMemberAccess]
    return event
