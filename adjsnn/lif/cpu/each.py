"""Time constants that neurons share, or of each neuron its own: loops are written once for both, and compiled for each.

What neurons share is a number, what each has for itself an array, and `at` reads either. Which of them a layer has numba knows
by its class: `Unequal` is a Layer of another name. The flows of neurons with constants of their own are computed here, many
at a time, without a branch.
"""

import inspect
import operator
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import lower_builtin, type_callable

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
    EXACT_WITHIN,
    REORDERED,
    compiled,
)


class Unequal(Layer):
    """A layer whose neurons have time constants each of their own."""


class Each(NamedTuple):
    """Lanes of neurons with time constants of their own, (L,), and their flows over intervals of their own.

    Attributes:
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
        block: (2,), of a feed-forward layer's adjoint, which stops the intervals end at, or -1 for none; the lane of the first
            neuron in the present one.
    """

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


def _has_own(x: Any) -> bool:
    """Whether an argument, or a type of one, says something of every neuron apart."""
    if isinstance(x, types.NamedTuple):
        return issubclass(x.instance_class, (Unequal, Each)) or any(map(_has_own, x.types))
    return isinstance(x, (Unequal, Each)) or (isinstance(x, tuple) and any(map(_has_own, x)))


def either(alike: Any, each: Any) -> Any:
    """What loops call as one of two functions of the same arguments: as the second where these have an Unequal layer or Each.

    The first may be None, which does nothing and is None. Functions that give back arrays of Each count no references, and are
    called by such alone. An overload of numba's would have one more function compiled, which calls it.
    """

    def chosen(*arguments: Any) -> Any:
        function = each if any(map(_has_own, arguments)) else alike
        return function(*arguments) if function else None

    def kind(context: Any) -> Any:
        def signature(*kinds: Any) -> Any:
            function = each if any(map(_has_own, kinds)) else alike
            return types.Dispatcher(function).get_call_type(context, kinds, {}) if function else types.none(*kinds)

        setattr(signature, "pysig", inspect.signature(getattr(each, "py_func", each)))  # noqa: B010  what numba reads
        return signature

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = each if any(map(_has_own, signature.args)) else alike
        if not function:
            return context.get_dummy_value()
        return context.get_function(types.Dispatcher(function), signature)(builder, arguments)

    type_callable(chosen)(kind)
    lower_builtin(chosen, types.VarArg(types.Any))(lower)
    return chosen


def _lowered(operation: Any, context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """An operation on an entry of an array."""
    own = context.typing_context.resolve_function_type(operation, signature.args, {})
    cast = [context.cast(builder, *x) for x in zip(arguments, signature.args, own.args, strict=True)]
    return context.get_function(operation, own)(builder, cast)


def at(x: Any, n: Any) -> Any:
    """What neuron or lane n has: entry n of an array, or a number that all share."""
    return x[n] if isinstance(x, np.ndarray) else x


@type_callable(at)
def _type_of_at(context):
    del context
    return lambda x, n: x.dtype if isinstance(x, types.Array) else x


@lower_builtin(at, types.Any, types.Integer)
def _lower_at(context, builder, signature, arguments):
    if isinstance(signature.args[0], types.Array):
        return _lowered(operator.getitem, context, builder, signature, arguments)
    return arguments[0]


def put_at(x: Any, n: Any, value: Any) -> None:
    """Entry n of an array becomes `value`; a number that all share stays."""
    if isinstance(x, np.ndarray):
        x[n] = value


@type_callable(put_at)
def _type_of_put_at(context):
    del context
    return lambda x, n, value: types.none


@lower_builtin(put_at, types.Any, types.Integer, types.Float)
def _lower_put_at(context, builder, signature, arguments):
    if isinstance(signature.args[0], types.Array):
        _lowered(operator.setitem, context, builder, signature, arguments)
    return context.get_dummy_value()


def shares(each: Any) -> bool:
    """Whether neurons share their time constants, by what `each_of` gave."""
    return each is None


@type_callable(shares)
def _type_of_shares(context):
    del context
    return lambda each: types.boolean


@lower_builtin(shares, types.Any)
def _lower_shares(context, builder, signature, arguments):
    del builder, arguments
    return context.get_constant(types.boolean, not _has_own(signature.args[0]))


@compiled(**EXACT_WITHIN)
def _lanes_of(layer, copies):
    neurons = len(layer.tau_mem)
    n = np.uint64(neurons * copies)
    rates = Rates(np.empty(n), np.empty(n), np.empty(n), np.empty(n, np.bool_), np.empty(n))
    each = Each(
        rates, np.empty(n), np.zeros(1), np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n),
        np.empty(n), np.empty(n), np.empty(2, np.int64),
    )  # fmt: skip
    for q in range(n):
        tau_mem, tau_syn = layer.tau_mem[q % np.uint64(neurons)], layer.tau_syn[q % np.uint64(neurons)]
        each.fastest[0], each.rate_syn[q] = max(each.fastest[0], 1.0 / tau_mem, 1.0 / tau_syn), 1.0 / tau_syn
        rates.slower[q], rates.kappa[q], rates.share[q], rates.mem_slower[q], rates.mem[q] = rates_of(tau_mem, tau_syn)
    each.block[0] = -1
    return each


each_of = either(None, _lanes_of)
"""each_of(layer, copies): Each, with so many lanes of every neuron, a copy of the layer after the other; or None."""


@compiled(**EXACT_BARE_INLINE)
def _first(tau_mem, tau_syn, each, size):
    return tau_mem[0], tau_syn[0]


@compiled(**EXACT_WITHIN)
def _memory(tau_mem, tau_syn, each, size):
    return np.empty(size), np.empty(size)


taus_of = either(_first, _memory)
"""taus_of(tau_mem, tau_syn, each, size): τ_m and τ_s that neurons share, or memory for those of so many neurons."""


@compiled(**EXACT_BARE_INLINE)
def twice_gone(x):
    """(x - 1 + e^{-x})/x² for |x| ≤ 1/2, to relative rounding."""
    r = -x
    r2 = r * r
    r4 = r2 * r2
    low, high = (F2 + F3 * r) + (F4 + F5 * r) * r2, (F6 + F7 * r) + (F8 + F9 * r) * r2
    return low + high * r4 + ((F10 + F11 * r) + (F12 + F13 * r) * r2 + (F14 + F15 * r) * r4) * (r4 * r4)


@compiled(**EXACT_BARE_INLINE)
def soon(t, rate_mem, rate_syn):
    """What `decays` says, for t ≤ τ/2 of both time constants, and `twice_gone`: two series, whichever constant is longer."""
    x = t * (rate_syn - rate_mem)
    e_mem, twice = 1.0 - gone(t * rate_mem), twice_gone(x)
    once = 1.0 - x * twice  # (1 - e^{-x})/x
    return e_mem, e_mem * (1.0 - x * once), t * rate_mem * e_mem * once, twice


@compiled(**EXACT_BARE_INLINE)
def weights_soon(t, rate_mem, rate_syn, flow):
    """`flow.tau_weights` from what `soon` says: J_m = t² e^{-t/τ_m} ψ(x), J_s = t² e^{-t/τ_m} (1 - (1 + x) ψ(x)), (2.10)."""
    e_mem, e_syn, gain, twice = flow
    y, z = t * rate_mem, t * rate_syn
    rest = 1.0 - (1.0 + (z - y)) * twice
    return (
        -y * e_mem * rate_mem,
        (e_mem * y * y * twice - gain) * rate_mem,
        z * e_syn * rate_syn,
        e_mem * z * z * rest * rate_mem,
    )


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
