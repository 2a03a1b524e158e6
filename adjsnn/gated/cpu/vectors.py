"""Vector pieces of the CPU kernels, compiled by numba: sines, gates, and sums over the few neurons that release charge.

A loop over neurons touches few arrays and has no branch, so that the compiler turns it into vector instructions. Sums may be
reordered and multiply-adds fused, which changes rounding only; nothing is assumed about NaN and infinity, which must come
through.
"""

from math import copysign, factorial, pi
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from adjsnn.gated.cpu.arguments import RECTANGULAR
from adjsnn.numerics.compiled import WITHIN, compiled
from adjsnn.numerics.registers import chosen, compresses, lanes

LOOP: dict[str, Any] = {
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
    "nogil": True,
    "error_model": "numpy",
    "forceinline": True,
    "_nrt": False,  # the loops allocate nothing; counting references to views would take as long as the arithmetic
}
OPTIONS: dict[str, Any] = LOOP | WITHIN
CALLED: dict[str, Any] = OPTIONS | {"forceinline": False}  # long or seldom needed: not in the loop, which so stays small
PIECE: dict[str, Any] = OPTIONS | {"inline": "always"}  # of one loop: its code is put in there, and compiled once

# sin(πw)/w in powers of w², by Taylor's series, cut where for |w| ≤ ½ the next term is below rounding.
_TERMS = [(-1) ** k * pi ** (2 * k + 1) / factorial(2 * k + 1) for k in range(12)]
_D0, _D1, _D2, _D3, _D4, _D5, _D6, _D7, _D8, _D9, _D10, _D11 = (np.float64(c) for c in _TERMS)
_F0, _F1, _F2, _F3, _F4, _F5, _F6 = (np.float32(c) for c in _TERMS[:7])
_REST = np.float32(pi - float(_F0))  # π itself rounds by a quarter of a unit in the last place


def sine(w):
    """sin πw for |w| ≤ ½, to rounding in the precision of w."""
    return np.sin(pi * w)


def _sine64(w):
    z = w * w
    inner = _D6 + z * (_D7 + z * (_D8 + z * (_D9 + z * (_D10 + z * _D11))))
    return w * (_D0 + z * (_D1 + z * (_D2 + z * (_D3 + z * (_D4 + z * (_D5 + z * inner))))))


def _sine32(w):
    z = w * w
    return _F0 * w + w * (_REST + z * (_F1 + z * (_F2 + z * (_F3 + z * (_F4 + z * (_F5 + z * _F6))))))


@overload(sine, jit_options={"fastmath": {"contract", "nsz"}})  # reordered, _REST would be lost
def _typed_sine(w):
    return _sine32 if w == types.float32 else _sine64


@compiled(**OPTIONS)
def copy(source, target):
    """target[:] = source; the slice assignment would look for overlaps first."""
    for n in range(source.shape[0]):
        target[n] = source[n]


@compiled(**OPTIONS)
def fill(target, value):
    for n in range(target.shape[0]):
        target[n] = value


@compiled(**LOOP)
def zone(v, shape, two_sided, x):
    """Zone coordinate x = (v - θ + Δ)/Δ, clipped to [0, 1], of |v| where the zone is mirrored.

    shape holds 1/Δ and 1 - θ/Δ.
    """
    zero, one = v.dtype.type(0.0), v.dtype.type(1.0)
    slope, offset = shape[0], shape[1]
    if two_sided:
        for n in range(v.shape[0]):
            x[n] = min(max(abs(v[n]) * slope + offset, zero), one)
    else:
        for n in range(v.shape[0]):
            x[n] = min(max(v[n] * slope + offset, zero), one)


@compiled(**LOOP)
def inside(v, shape, two_sided, marks):
    """1 in the zone, edges included, and 0 outside; arguments as of `zone`."""
    zero, one = v.dtype.type(0.0), v.dtype.type(1.0)
    slope, offset = shape[0], shape[1]
    for n in range(v.shape[0]):
        y = (abs(v[n]) if two_sided else v[n]) * slope + offset
        marks[n] = one if (y >= zero) & (y <= one) else zero


@compiled(**LOOP)
def integral(gate, x, charge):
    """G of the zone coordinate: x, or x - sin(2πx)/2π."""
    if gate == RECTANGULAR:
        copy(x, charge)
        return
    half, quarter, share = x.dtype.type(0.5), x.dtype.type(0.25), x.dtype.type(0.5 / pi)
    for n in range(x.shape[0]):
        # sin 2πx = -sin 2π(x - ½), and |x - ½| is folded onto [0, ¼]: 0 and 1 give exactly 0.
        y = x[n] - half
        folded = quarter - abs(abs(y) - quarter)
        charge[n] = x[n] + share * copysign(sine(folded + folded), y)


@compiled(**OPTIONS)
def add_magnitudes(x, out):
    """out += |x|."""
    for n in range(x.shape[0]):
        out[n] += abs(x[n])


@compiled(**OPTIONS)
def charges_of(network, v, charge):
    """G(v): `zone`, `integral` and `mirrored` in one loop. A question in it that is the same for all would stay in it."""
    number, (height, offset) = v.dtype.type, network.zone
    zero, one, half, quarter, share = number(0.0), number(1.0), number(0.5), number(0.25), number(0.5 / pi)
    if network.gate == RECTANGULAR:
        zone(v, network.zone, network.two_sided, charge)
    elif network.two_sided:
        for n in range(v.shape[0]):
            x = min(max(abs(v[n]) * height + offset, zero), one)
            y = x - half
            folded = quarter - abs(abs(y) - quarter)
            charge[n] = x + share * copysign(sine(folded + folded), y)
    else:
        for n in range(v.shape[0]):
            x = min(max(v[n] * height + offset, zero), one)
            y = x - half
            folded = quarter - abs(abs(y) - quarter)
            charge[n] = x + share * copysign(sine(folded + folded), y)
    if network.two_sided:
        mirrored(v, charge)


@compiled(**OPTIONS)
def densities_of(network, v, density):
    """g(v): `zone` and `slope` in one loop."""
    number, (height, offset) = v.dtype.type, network.zone
    zero, one, half = number(0.0), number(1.0), number(0.5)
    if network.gate == RECTANGULAR:
        for n in range(v.shape[0]):
            y = (abs(v[n]) if network.two_sided else v[n]) * height + offset
            density[n] = height if (y >= zero) & (y <= one) else zero
    elif network.two_sided:
        for n in range(v.shape[0]):
            s = sine(half - abs(min(max(abs(v[n]) * height + offset, zero), one) - half))
            density[n] = (height + height) * s * s
    else:
        for n in range(v.shape[0]):
            s = sine(half - abs(min(max(v[n] * height + offset, zero), one) - half))
            density[n] = (height + height) * s * s


@compiled(**LOOP)
def slope(gate, v, x, shape, two_sided, density):
    """g(v), in 1/voltage, of the voltage and its zone coordinate: 1/Δ inside, or (1 - cos 2πx)/Δ = 2 sin²(πx)/Δ."""
    zero, one, half = x.dtype.type(0.0), x.dtype.type(1.0), x.dtype.type(0.5)
    height, offset = shape[0], shape[1]
    if gate == RECTANGULAR:  # the edges count as inside, so the clipped coordinate does not tell
        for n in range(v.shape[0]):
            y = (abs(v[n]) if two_sided else v[n]) * height + offset
            density[n] = height if (y >= zero) & (y <= one) else zero
        return
    for n in range(x.shape[0]):
        s = sine(half - abs(x[n] - half))
        density[n] = (height + height) * s * s


@compiled(**LOOP)
def mirrored(v, charge):
    """G is odd where the zone is mirrored."""
    for n in range(v.shape[0]):
        charge[n] = copysign(charge[n], v[n])


@compiled(**OPTIONS)
def select(marks, index):
    """Indices of the entries that are not zero; returns their number. The index is SPARE longer than the marks."""
    count, length = 0, marks.shape[0]
    if compresses():
        wide = lanes(marks)
        for n in range(0, length, wide):
            count += chosen(marks, n, min(wide, length - n), index, count)
        return count
    for n in range(length):
        index[count] = n
        count += marks[n] != 0
    return count


@compiled(**OPTIONS)
def number(marks):
    """Number of entries that are not zero."""
    count = np.int32(0)
    for n in range(marks.shape[0]):
        count += marks[n] != 0
    return count


@compiled(**OPTIONS)
def total(a, b, out):
    """out = a + b, of the first entries of b."""
    for n in range(a.shape[0]):
        out[n] = a[n] + b[n]


@compiled(**OPTIONS)
def scaled(factor, x):
    """x *= factor."""
    for n in range(x.shape[0]):
        x[n] *= factor


@compiled(**OPTIONS)
def combined(matrix, weight, out):
    """out = Σ_c weight[c] matrix[c]."""
    fill(out, weight.dtype.type(0.0))
    for c in range(matrix.shape[0]):
        row, x = matrix[c], weight[c]
        for n in range(out.shape[0]):
            out[n] += x * row[n]


@compiled(**OPTIONS)
def dot(a, b):
    total = a.dtype.type(0.0)
    for n in range(a.shape[0]):
        total += a[n] * b[n]
    return total


@compiled(**OPTIONS)
def add(x, total):
    for n in range(x.shape[0]):
        total[n] += x[n]


@compiled(**OPTIONS)
def decay(p, keep, gain, source):
    """p ← keep p + gain source; an empty source is zero."""
    for n in range(p.shape[0]):
        p[n] *= keep
    for n in range(source.shape[0]):
        p[n] += gain * source[n]


@compiled(**OPTIONS)
def add_outer(u, w, total):
    """total += u wᵀ, over the channels that are not silent."""
    for j in range(u.shape[0]):
        if u[j] != 0:
            x, row = u[j], total[j]
            for n in range(w.shape[0]):
                row[n] += x * w[n]
