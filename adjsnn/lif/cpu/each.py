"""Time constants that neurons share, or of each neuron its own: loops are written once for both, and compiled for each.

What neurons share is a number, what each has for itself an array, and `at` reads either. Which of them a layer has numba knows
by its class: `Unequal` is a Layer of another name. The flows of neurons with constants of their own are computed here, many
at a time, without a branch.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from adjsnn.lif.cpu.elementary import (
    F2,
    F3,
    F4,
    F5,
    F6,
    F7,
    F8,
    F9,
    F10,
    F11,
    F12,
    F13,
    F14,
    F15,
    SOON,
    Rates,
    decays,
    gone,
    rates_at,
    rates_of,
)
from adjsnn.lif.layer import Layer
from adjsnn.numerics.compiled import (
    EXACT_BARE,
    EXACT_BARE_INLINE,
    EXACT_INLINE,
    EXACT_PIECE,
    EXACT_WITHIN,
    REORDERED,
    compiled,
)


class Unequal(Layer):
    """A layer whose neurons have time constants each of their own."""


class Each(NamedTuple):
    """Lanes of neurons with time constants of their own, (L,), and their flows over intervals of their own.

    Attributes:
        tau_mem: τ_m, ms.
        tau_syn: τ_s, ms.
        rates: Rates.
        rate_syn: 1/τ_s, 1/ms.
        fastest: (1,), the largest of all 1/τ, 1/ms.
        span: the interval, ms.
        e_mem: e^{-t/τ_m}.
        e_syn: e^{-t/τ_s}.
        gain: K(t)/τ_m.
        leak: this and the next three are the `flow.tau_weights`.
        fed: of λ_v i, in dC/dτ_m.
        fading: of λ_i i, in dC/dτ_s.
        feeding: of λ_v i, in dC/dτ_s.
        block: (1,), which stops the intervals of a feed-forward layer's adjoint end at, as it says; -1 for none.
    """

    tau_mem: np.ndarray
    tau_syn: np.ndarray
    rates: Rates
    rate_syn: np.ndarray
    fastest: np.ndarray
    span: np.ndarray
    e_mem: np.ndarray
    e_syn: np.ndarray
    gain: np.ndarray
    leak: np.ndarray
    fed: np.ndarray
    fading: np.ndarray
    feeding: np.ndarray
    block: np.ndarray


def at(x: Any, n: Any) -> Any:
    """What neuron or lane n has: entry n of an array, or a number that all share."""


@overload(at, jit_options=EXACT_BARE_INLINE)
def _at(x, n):
    return (lambda x, n: x[n]) if isinstance(x, types.Array) else (lambda x, n: x)


def of_lane(x: Any, first: Any, n: Any) -> Any:
    """The same of neuron n, where that of the first one is in lane `first`."""


@overload(of_lane, jit_options=EXACT_BARE_INLINE)
def _of_lane(x, first, n):
    return (lambda x, first, n: x[first + np.uint64(n)]) if isinstance(x, types.Array) else (lambda x, first, n: x)


def put_at(x: Any, n: Any, value: Any) -> None:
    """Entry n of an array becomes `value`; a number that all share stays."""


@overload(put_at, jit_options=EXACT_BARE_INLINE)
def _put_at(x, n, value):
    def put(x, n, value):
        x[n] = value

    return put if isinstance(x, types.Array) else (lambda x, n, value: None)


def each_of(layer: Any, copies: Any) -> Any:
    """Each, with so many lanes for every neuron, one neuron after the other; None for a layer that is not Unequal."""


@overload(each_of, jit_options=EXACT_WITHIN)
def _each_of(layer, copies):
    return (lambda layer, copies: lanes_of(layer, copies)) if is_unequal(layer) else (lambda layer, copies: None)


def taus_of(layer: Any, size: Any) -> Any:
    """τ_m and τ_s of a layer whose neurons share them; of one that is Unequal memory for those of so many neurons."""


@overload(taus_of, jit_options=EXACT_WITHIN)
def _taus_of(layer, size):
    if is_unequal(layer):
        return lambda layer, size: (np.empty(size), np.empty(size))
    return lambda layer, size: (layer.tau_mem[0], layer.tau_syn[0])


def taus(layer: Any) -> Any:
    """τ_m and τ_s of a layer's neurons, to be read by `at`."""


@overload(taus, jit_options=EXACT_BARE_INLINE)
def _taus(layer):
    if is_unequal(layer):
        return lambda layer: (layer.tau_mem, layer.tau_syn)
    return lambda layer: (layer.tau_mem[0], layer.tau_syn[0])


def is_unequal(layer: types.NamedTuple) -> bool:
    """Of the type of a layer."""
    return issubclass(layer.instance_class, Unequal)


def are_unequal(each: types.Type) -> bool:
    """Of the type of what `each_of` gave."""
    return not isinstance(each, types.NoneType)


def shares(each: Any) -> Any:
    """Whether neurons share their time constants, by what `each_of` gave."""


@overload(shares, jit_options=EXACT_BARE_INLINE)
def _shares(each):
    return (lambda each: False) if are_unequal(each) else (lambda each: True)


@compiled(**EXACT_PIECE)
def lanes_of(layer, copies):
    """Each of a layer."""
    neurons = len(layer.tau_mem)
    n = np.uint64(neurons * copies)
    rates = Rates(np.empty(n), np.empty(n), np.empty(n), np.empty(n, np.bool_), np.empty(n))
    each = Each(
        np.empty(n), np.empty(n), rates, np.empty(n), np.zeros(1), np.empty(n), np.empty(n), np.empty(n), np.empty(n),
        np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(1, np.int64),
    )  # fmt: skip
    for q in range(n):
        tau_mem, tau_syn = layer.tau_mem[q % np.uint64(neurons)], layer.tau_syn[q % np.uint64(neurons)]
        each.tau_mem[q], each.tau_syn[q], each.rate_syn[q] = tau_mem, tau_syn, 1.0 / tau_syn
        each.fastest[0] = max(each.fastest[0], 1.0 / tau_mem, 1.0 / tau_syn)
        rates.slower[q], rates.kappa[q], rates.share[q], rates.mem_slower[q], rates.mem[q] = rates_of(tau_mem, tau_syn)
    each.block[0] = -1
    return each


@compiled(**EXACT_INLINE)
def twice_gone(x):
    """(x - 1 + e^{-x})/x² for |x| ≤ 1/2, to relative rounding."""
    r = -x
    r2 = r * r
    r4 = r2 * r2
    low, high = (F2 + F3 * r) + (F4 + F5 * r) * r2, (F6 + F7 * r) + (F8 + F9 * r) * r2
    return low + high * r4 + ((F10 + F11 * r) + (F12 + F13 * r) * r2 + (F14 + F15 * r) * r4) * (r4 * r4)


@compiled(**EXACT_INLINE)
def soon(t, rate_mem, rate_syn):
    """What `decays` says, for t ≤ τ/2 of both time constants, and `twice_gone`: two series, whichever constant is longer."""
    x = t * (rate_syn - rate_mem)
    e_mem, twice = 1.0 - gone(t * rate_mem), twice_gone(x)
    once = 1.0 - x * twice  # (1 - e^{-x})/x
    return e_mem, e_mem * (1.0 - x * once), t * rate_mem * e_mem * once, twice


@compiled(**EXACT_INLINE)
def weights_soon(t, rate_mem, rate_syn, flow):
    """`flow.tau_weights` from what `soon` says: J_m = t² e^{-t/τ_m} ψ(x), J_s = t² e^{-t/τ_m} (1 - (1 + x) ψ(x)), (2.10)."""
    e_mem, e_syn, gain, twice = flow
    y, z = t * rate_mem, t * rate_syn
    rest = 1.0 - (1.0 + (z - y)) * twice
    return -y * e_mem * rate_mem, (e_mem * y * y * twice - gain) * rate_mem, z * e_syn * rate_syn, e_mem * z * z * rest * rate_mem


@compiled(**EXACT_BARE)
def flow_over(each, t):
    """e_mem, e_syn and gain of every lane over one time t."""
    e_mem, e_syn, gain, rate_mem, rate_syn = each.e_mem, each.e_syn, each.gain, each.rates.mem, each.rate_syn
    if t * each.fastest[0] < SOON:
        for n in range(len(e_mem)):
            e_mem[n], e_syn[n], gain[n], _ = soon(t, rate_mem[n], rate_syn[n])
    else:
        for n in range(len(e_mem)):
            each.span[n] = t
        flows(each, np.uint64(len(e_mem)))
    return e_mem, e_syn, gain


@compiled(**EXACT_BARE)
def weights_over(each, t):
    """The `flow.tau_weights` of every lane over one time t, and what `flow_over` says."""
    e_mem, e_syn, gain, rate_mem, rate_syn = each.e_mem, each.e_syn, each.gain, each.rates.mem, each.rate_syn
    leak, fed, fading, feeding = each.leak, each.fed, each.fading, each.feeding
    if t * each.fastest[0] < SOON:
        for n in range(len(e_mem)):
            flow = soon(t, rate_mem[n], rate_syn[n])
            e_mem[n], e_syn[n], gain[n], _ = flow
            leak[n], fed[n], fading[n], feeding[n] = weights_soon(t, rate_mem[n], rate_syn[n], flow)
    else:
        flow_over(each, t)
        weights(each, np.uint64(len(e_mem)))
    return leak, fed, fading, feeding


@compiled(**EXACT_BARE)
def flows(each, lanes):
    """e_mem, e_syn and gain of the first lanes, each over its own span, however long."""
    span, e_mem, e_syn, gain, rates = each.span, each.e_mem, each.e_syn, each.gain, each.rates
    for q in range(lanes):
        e_mem[q], e_syn[q], gain[q] = decays(span[q], rates_at(rates, q))


@compiled(**EXACT_BARE)
def weights(each, lanes):
    """The `flow.tau_weights` of the first lanes, after `flows`."""
    rates, rate_syn, leak, fed, fading, feeding = each.rates, each.rate_syn, each.leak, each.fed, each.fading, each.feeding
    for q in range(lanes):
        t, e_mem, e_syn, gain, rate_mem = each.span[q], each.e_mem[q], each.e_syn[q], each.gain[q], rates.mem[q]
        x = t * (rate_syn[q] - rate_mem)
        near = abs(x) < SOON
        twice = twice_gone(x if near else 0.0)
        first, _, third, last = weights_soon(t, rate_mem, rate_syn[q], (e_mem, e_syn, gain, twice))
        share = rates.share[q] if rates.mem_slower[q] else -rates.share[q]
        y = t * rate_mem
        of_mem = e_mem * y * y * twice if near else (y * e_mem - gain) * share
        leak[q], fed[q], fading[q] = first, (of_mem - gain) * rate_mem, third
        feeding[q] = last if near else (gain - y * e_syn) * share / rate_mem * rate_syn[q] * rate_syn[q]


@compiled(**REORDERED)
def shift_sum(w, lam_v, lam_i, each):
    """Σ w (λ_i/τ_s - λ_v/τ_m), (2.6)."""
    total, rate_mem, rate_syn = 0.0, each.rates.mem, each.rate_syn
    for n in range(len(w)):
        total += w[n] * (lam_i[n] * rate_syn[n] - lam_v[n] * rate_mem[n])
    return total
