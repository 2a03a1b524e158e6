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
    """Indices of the entries that are not zero; returns their number."""
    count = 0
    for n in range(marks.shape[0]):
        index[count] = n
        count += marks[n] != 0
    return count


@compiled(**OPTIONS)
def add_rows(matrix, index, weight, count, total):
    """total += Σ weight[k] matrix[index[k]] over the first `count` k."""
    whole = count - count % 4
    for k in range(0, whole, 4):
        a, b, c, d = matrix[index[k]], matrix[index[k + 1]], matrix[index[k + 2]], matrix[index[k + 3]]
        p, q, r, s = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
        for n in range(total.shape[0]):
            total[n] += (p * a[n] + q * b[n]) + (r * c[n] + s * d[n])
    for k in range(whole, count):
        a, p = matrix[index[k]], weight[k]
        for n in range(total.shape[0]):
            total[n] += p * a[n]


@compiled(**OPTIONS)
def add_to_rows(matrix, index, weight, count, row):
    """matrix[index[k]] += weight[k] row for the first `count` k."""
    for k in range(count):
        a, p = matrix[index[k]], weight[k]
        for n in range(row.shape[0]):
            a[n] += p * row[n]


@compiled(**OPTIONS)
def dot_rows(matrix, index, count, row, out):
    """out[k] = matrix[index[k]] · row for the first `count` k."""
    whole = count - count % 2
    for k in range(0, whole, 2):
        a, b = matrix[index[k]], matrix[index[k + 1]]
        p = q = matrix.dtype.type(0.0)
        for n in range(row.shape[0]):
            p += a[n] * row[n]
            q += b[n] * row[n]
        out[k], out[k + 1] = p, q
    for k in range(whole, count):
        a = matrix[index[k]]
        p = matrix.dtype.type(0.0)
        for n in range(row.shape[0]):
            p += a[n] * row[n]
        out[k] = p


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


@compiled(**CALLED)
def add_products(matrix, weight, total):
    """total[s] += Σ_n weight[s, n] matrix[n] for the four s of TOGETHER, both flat: four rows at a time, each read once."""
    rows, length = matrix.shape
    w0, w1, w2, w3 = weight[:rows], weight[rows : 2 * rows], weight[2 * rows : 3 * rows], weight[3 * rows :]
    t0, t1, t2, t3 = total[:length], total[length : 2 * length], total[2 * length : 3 * length], total[3 * length :]
    whole = rows - rows % 4
    for n in range(0, whole, 4):
        a, b, c, d = matrix[n], matrix[n + 1], matrix[n + 2], matrix[n + 3]
        p0, q0, r0, s0 = w0[n], w0[n + 1], w0[n + 2], w0[n + 3]
        p1, q1, r1, s1 = w1[n], w1[n + 1], w1[n + 2], w1[n + 3]
        p2, q2, r2, s2 = w2[n], w2[n + 1], w2[n + 2], w2[n + 3]
        p3, q3, r3, s3 = w3[n], w3[n + 1], w3[n + 2], w3[n + 3]
        for m in range(length):
            t0[m] += (p0 * a[m] + q0 * b[m]) + (r0 * c[m] + s0 * d[m])
            t1[m] += (p1 * a[m] + q1 * b[m]) + (r1 * c[m] + s1 * d[m])
            t2[m] += (p2 * a[m] + q2 * b[m]) + (r2 * c[m] + s2 * d[m])
            t3[m] += (p3 * a[m] + q3 * b[m]) + (r3 * c[m] + s3 * d[m])
    for n in range(whole, rows):
        a = matrix[n]
        for m in range(length):
            t0[m] += w0[n] * a[m]
            t1[m] += w1[n] * a[m]
            t2[m] += w2[n] * a[m]
            t3[m] += w3[n] * a[m]


@compiled(**CALLED)
def add_outer_products(weight, rows, total):
    """total[n] += Σ_s weight[s, n] rows[s] over the four s of TOGETHER, weight and rows flat: four n at a time."""
    size, length = total.shape
    w0, w1, w2, w3 = weight[:size], weight[size : 2 * size], weight[2 * size : 3 * size], weight[3 * size :]
    a, b, c, d = rows[:length], rows[length : 2 * length], rows[2 * length : 3 * length], rows[3 * length :]
    whole = size - size % 4
    for n in range(0, whole, 4):
        four = total[n : n + 4]  # so the compiler sees that its rows lie one after the other
        t0, t1, t2, t3 = four[0], four[1], four[2], four[3]
        p0, q0, r0, s0 = w0[n], w1[n], w2[n], w3[n]
        p1, q1, r1, s1 = w0[n + 1], w1[n + 1], w2[n + 1], w3[n + 1]
        p2, q2, r2, s2 = w0[n + 2], w1[n + 2], w2[n + 2], w3[n + 2]
        p3, q3, r3, s3 = w0[n + 3], w1[n + 3], w2[n + 3], w3[n + 3]
        for m in range(length):
            t0[m] += (p0 * a[m] + q0 * b[m]) + (r0 * c[m] + s0 * d[m])
            t1[m] += (p1 * a[m] + q1 * b[m]) + (r1 * c[m] + s1 * d[m])
            t2[m] += (p2 * a[m] + q2 * b[m]) + (r2 * c[m] + s2 * d[m])
            t3[m] += (p3 * a[m] + q3 * b[m]) + (r3 * c[m] + s3 * d[m])
    for n in range(whole, size):
        row = total[n]
        for m in range(length):
            row[m] += (w0[n] * a[m] + w1[n] * b[m]) + (w2[n] * c[m] + w3[n] * d[m])


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
