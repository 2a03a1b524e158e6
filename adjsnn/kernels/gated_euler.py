"""The charge-conserving Euler program (1.6) and its adjoint (4.1) as two fused loops for the CPU.

The plain program multiplies a whole matrix at every step. These loops use that synapses change only while a neuron is in its
active zone, where few are at a time. With one τ_f for all neurons the recurrent current J = W_rec a_f obeys

    J⁺ = (1 - h/τ_f) J + W_rec q/τ_f                                                          (4.2)

so a step adds the columns of W_rec of the neurons that release charge. Backward, ζ, the cotangent of J, and η, that of the
readout o = W_out a_s, take the place of λ_f = W_recᵀ ζ and λ_s = W_outᵀ η,

    ζ ← (1 - h/τ_f) ζ + w          η ← (1 - h/τ_s) η + ∂C/∂o                                   (4.3)

and λ_f and λ_s are formed only for neurons in the zone, the only place where they are read. The weight gradients follow the
charge as well: dW_rec = Σ ζ qᵀ/τ_f, dW_out = Σ η qᵀ/τ_s. What is left per neuron and step is element-wise.

Numbers agree with the plain program to rounding. Samples are independent and shared out over threads.
"""

import numpy as np
from numba import njit

from adjsnn.kernels.cache import renew
from adjsnn.kernels.vectors import (
    OPTIONS,
    add_rows,
    add_to_rows,
    copy,
    dot_rows,
    fill,
    integral,
    mirrored,
    select,
    sine,
    slope,
    zone,
)

NIF, LIF, QIF = 0, 1, 2


@njit(**OPTIONS)
def _advance(membrane, v, current, c, h, moved):
    """ṽ = v + h f(v, I); c[0] is 1/τ for each neuron."""
    rate = c[0]
    if membrane == NIF:
        for n in range(v.shape[0]):
            moved[n] = v[n] + h * current[n]
    elif membrane == LIF:
        for n in range(v.shape[0]):
            moved[n] = v[n] + h * rate[n] * (current[n] - v[n])
    else:
        half = v.dtype.type(0.5)
        for n in range(v.shape[0]):
            s = sine(half - abs(abs(v[n]) - half))
            flow = rate[n] + s * s * (current[n] - rate[n])
            moved[n] = v[n] + h * (flow + flow)


@njit(**OPTIONS)
def _reset(membrane, current, c, v, crossings):
    """v becomes v⁺; crossings the signed number of thresholds, as numbers of v's type."""
    zero, one = v.dtype.type(0.0), v.dtype.type(1.0)
    if membrane == LIF:
        v_reset = c[1]
        for n in range(v.shape[0]):
            crossings[n] = one if v[n] >= one else zero
        for n in range(v.shape[0]):
            after = v_reset[n] + (v[n] - one) * ((current[n] - v_reset[n]) / (current[n] - one))
            v[n] = after if v[n] >= one else v[n]
    else:
        for n in range(v.shape[0]):
            turns = np.trunc(v[n])
            crossings[n] = turns
            v[n] -= turns


@njit(**OPTIONS)
def _drive(w_in_t, bias, u, current):
    """current += W_in u + b."""
    for n in range(current.shape[0]):
        current[n] += bias[n]
    for c in range(u.shape[0]):
        x = u[c]
        if x != 0:
            row = w_in_t[c]
            for n in range(current.shape[0]):
                current[n] += x * row[n]


@njit(**OPTIONS)
def forward(
    membrane, gate, two_sided, shape, h, tau_fast, tau_slow, c, w_rec_t, w_in_t, bias, w_out, u,
    v, a_fast, a_slow, readout, current, crossings, recurrent, level, first, last, scratch, index, channels, bad, extremes,
):  # fmt: skip
    """Steps of (1.6) for samples first … last-1, from row 0 of v, a_fast, a_slow on, in place.

    Args:
        membrane, gate, two_sided: which flow, gate and reset.
        shape: (1/Δ, 1 - θ/Δ).   h, tau_fast, tau_slow: numbers of v's type.   c: constants of the membrane, (2, N).
        w_rec_t (N, N), w_in_t (C, N): one row per presynaptic neuron or channel.   bias: (N,).
        w_out: (C_out, N).   u: (T, B, C).   v, a_fast, a_slow: (T+1, B, N), row 0 given.   readout: (T+1, B, C_out),
            written from row 1 on.   current, crossings: (T, B, N), written.
        recurrent, level: J and G(v) of row 0, (B, N); on return those of the last row.
        bad: (2,), the step and sample at which a state was no longer finite or not below the threshold; -1 if none.
        extremes: (2,), smallest and largest number of crossings of a step.
    """
    one = v.dtype.type(1.0)
    keep = (one - h / tau_fast, one - h / tau_slow)
    gain = (one / tau_fast, one / tau_slow)
    lowest, highest = np.int8(0), np.int8(0)
    for t in range(len(current)):
        for b in range(first, last):
            fine, low, high = _step(
                membrane, gate, two_sided, shape, h, keep, gain, c, w_rec_t, w_in_t, bias, u[t, b],
                v[t, b], a_fast[t, b], a_slow[t, b], v[t + 1, b], a_fast[t + 1, b], a_slow[t + 1, b],
                current[t, b], crossings[t, b], recurrent[b], level[b],
                scratch[0], scratch[1], scratch[2], scratch[3], index,
            )  # fmt: skip
            dot_rows(w_out, channels, len(w_out), a_slow[t + 1, b], readout[t + 1, b])
            lowest, highest = min(lowest, low), max(highest, high)
            if not fine:
                bad[0], bad[1] = t, b
                return
    # Written once: a cache line that several threads write to is slow.
    extremes[0], extremes[1] = min(extremes[0], lowest), max(extremes[1], highest)


@njit(**OPTIONS)
def _step(
    membrane, gate, two_sided, shape, h, keep, gain, c, w_rec_t, w_in_t, bias, u,
    v, a_fast, a_slow, v_after, a_fast_after, a_slow_after, current, crossings, recurrent, level,
    turns, q, charge, weight, index,
):  # fmt: skip
    """One step of one sample. Returns whether its state is sound, and its smallest and largest number of crossings."""
    copy(recurrent, current)
    _drive(w_in_t, bias, u, current)
    _advance(membrane, v, current, c, h, v_after)
    _reset(membrane, current, c, v_after, turns)
    zone(v_after, shape, two_sided, q)
    integral(gate, q, charge)
    if two_sided:
        mirrored(v_after, charge)
    for n in range(v.shape[0]):
        q[n] = charge[n] - level[n] + turns[n]
    copy(charge, level)
    _filter(a_fast, q, keep[0], gain[0], a_fast_after)
    _filter(a_slow, q, keep[1], gain[1], a_slow_after)
    magnitude = v.dtype.type(0.0)
    for n in range(v.shape[0]):
        recurrent[n] *= keep[0]
        magnitude += abs(current[n])
    most = v.dtype.type(127.0)
    for n in range(v.shape[0]):
        crossings[n] = np.int8(min(max(turns[n], -most), most))
    count = select(q, index)
    fine = magnitude < v.dtype.type(np.inf)
    lowest, highest = np.int8(0), np.int8(0)
    for k in range(count):
        n = index[k]
        weight[k] = gain[0] * q[n]
        fine &= (abs(turns[n]) <= 100) & (v_after[n] < v.dtype.type(1.0))
        lowest, highest = min(lowest, crossings[n]), max(highest, crossings[n])
    add_rows(w_rec_t, index, weight, count, recurrent)
    return fine, lowest, highest


@njit(**OPTIONS)
def products(matrix_t, a, index, weight, out):
    """out[b] = W a[b] for each sample, over the neurons that are active at all."""
    for b in range(len(a)):
        fill(out[b], a.dtype.type(0.0))
        count = select(a[b], index)
        for k in range(count):
            weight[k] = a[b, index[k]]
        add_rows(matrix_t, index, weight, count, out[b])


@njit(**OPTIONS)
def _filter(a, q, keep, gain, out):
    """a⁺ = (1 - h/τ) a + q/τ."""
    for n in range(a.shape[0]):
        out[n] = keep * a[n] + gain * q[n]


@njit(**OPTIONS)
def _partials(membrane, v, current, c, h, push, pull):
    """push = h ∂_I f and pull = 1 + h ∂_v f at the state before a step."""
    one = v.dtype.type(1.0)
    rate = c[0]
    if membrane == NIF:
        fill(push, h)
        fill(pull, one)
    elif membrane == LIF:
        for n in range(v.shape[0]):
            push[n] = h * rate[n]
            pull[n] = one - push[n]
    else:
        half, two_pi = v.dtype.type(0.5), v.dtype.type(2 * np.pi)
        for n in range(v.shape[0]):
            s = sine(half - abs(abs(v[n]) - half))
            push[n] = h * (s * s + s * s)
            both = sine(half - abs(v[n])) * np.copysign(s, v[n])  # ½ sin 2πv; sin π(½ - |v|) = cos πv
            pull[n] = one + (both + both) * two_pi * h * (current[n] - rate[n])


@njit(**OPTIONS)
def _reset_back(v, current, c, h, crossed, w, mu, d_reset):
    """Where a LIF neuron was reset: μ = ρ p_v and the part p_v ∂v⁺/∂I of w; adds to the gradient of v_r. mu holds p_v."""
    one = v.dtype.type(1.0)
    for n in range(v.shape[0]):
        if crossed[n] != 0:
            moved = v[n] + h * c[0, n] * (current[n] - v[n])
            above, speed, v_reset = moved - one, current[n] - one, c[1, n]
            d_reset[n] += mu[n] * (one - above / speed)
            w[n] = mu[n] * above * (v_reset - one) / (speed * speed)
            mu[n] *= (current[n] - v_reset) / speed


@njit(**OPTIONS)
def backward(
    membrane, gate, two_sided, shape, h, tau_fast, tau_slow, c, w_rec_t, w_in_t, bias, w_out_t, u,
    v, a_fast, a_slow, readout, current, crossings, c_readout, c_v, c_fast, c_slow, c_count,
    want, lam_v, zeta, eta, ext_fast, ext_slow, first, last, scratch, index,
    d_u, d_rec_t, d_in_t, d_out_t, d_bias, d_c0, d_c1, d_tau,
):  # fmt: skip
    """The recursion (4.1) with (4.3), backward over the given steps, for samples first … last-1.

    Args:
        as in `forward`; w_out_t (N, C_out), readout (T+1, B, C_out).
        c_readout, c_v, c_fast, c_slow: cotangents of the loss at times 0 … T-1 of these steps; of first length 0 where zero.
        c_count: cotangent of each neuron's Σ|q|, (B, N) or empty.
        want: flags for the gradients of w_rec, w_in, w_out, u, tau_fast and tau_slow, and for ext_fast and ext_slow.
        lam_v, zeta (B, N), eta (B, C_out): λ_v, ζ and η at time T; on return at time 0.
        ext_fast, ext_slow: λ_f/τ_f and λ_s/τ_s of a loss that reads a_f or a_s itself, like lam_v.
        d_u (T, B, C), d_rec_t, d_in_t, d_out_t, d_bias: gradients, added to.   d_c0, d_c1: of τ_m or τ_v,
            and of v_r, per neuron.   d_tau: of τ_f and τ_s, (2,).
    """
    one = v.dtype.type(1.0)
    keep = (one - h / tau_fast, one - h / tau_slow)
    gain = (one / tau_fast, one / tau_slow)
    reads = (len(c_readout) > 0, len(c_v) > 0, want[6], want[7])
    want_rec, want_in, want_out, want_u, want_fast, want_slow, _, _ = want
    small, near = scratch[9:15], scratch[15:]
    d_tau_fast = d_tau_slow = 0.0
    for t in range(len(current) - 1, -1, -1):
        for b in range(first, last):
            count, for_fast, for_slow = _active(
                gate, two_sided, shape, gain, w_rec_t, w_out_t, v[t, b], v[t + 1, b], crossings[t, b], zeta[b], eta[b],
                scratch, near, small[0], small[1], small[2], index, c_count[b] if len(c_count) else small[3][:0],
            )  # fmt: skip
            d_tau_fast -= for_fast
            d_tau_slow -= for_slow
            if want_rec:
                add_to_rows(d_rec_t, index, small[1], count, zeta[b])
            if want_out:
                add_to_rows(d_out_t, index, small[2], count, eta[b])
            if want_fast:
                fill(small[3], 0)
                _drive(w_in_t, bias, u[t, b], small[3])
                d_tau_fast += _decayed(zeta[b], current[t, b], small[3]) * h * gain[0] * gain[0]
            if want_slow:
                d_tau_slow += _dot(eta[b], readout[t, b]) * h * gain[1] * gain[1]
            if reads[2]:
                _add(ext_fast[b], scratch[4])
                d_tau_fast -= _change(ext_fast[b], a_fast[t, b], a_fast[t + 1, b])
            if reads[3]:
                _add(ext_slow[b], scratch[4])
                d_tau_slow -= _change(ext_slow[b], a_slow[t, b], a_slow[t + 1, b])
            _back(
                membrane, h, keep, c, v[t, b], current[t, b], crossings[t, b],
                scratch[2], scratch[3], scratch[4], scratch[5], scratch[6], scratch[7], scratch[8],
                lam_v[b], zeta[b], d_bias, d_c0, d_c1,
            )  # fmt: skip
            if want_in:
                _add_outer(u[t, b], scratch[6], d_in_t)
            if want_u:
                for j in range(u.shape[2]):
                    d_u[t, b, j] = _dot(w_in_t[j], scratch[6])
            if reads[0]:
                _decay(eta[b], keep[1], one, c_readout[t, b])
            if reads[1]:
                _add(c_v[t, b], lam_v[b])
            if reads[2]:
                _decay(ext_fast[b], keep[0], gain[0], c_fast[t, b] if len(c_fast) > 0 else small[3][:0])
            if reads[3]:
                _decay(ext_slow[b], keep[1], gain[1], c_slow[t, b] if len(c_slow) > 0 else small[3][:0])
    d_tau[0] += d_tau_fast
    d_tau[1] += d_tau_slow


@njit(**OPTIONS)
def _active(
    gate, two_sided, shape, gain, w_rec_t, w_out_t, v, v_after, crossings, zeta, eta,
    scratch, near, projected, q_fast, q_slow, index, c_count,
):  # fmt: skip
    """What one step of one sample needs of the neurons that release charge, or would, were they moved.

    Fills scratch rows 0 … 4 with the zone coordinates before and after, g before and after, and m of (4.1); index with the
    neurons, q_fast and q_slow with their q/τ.

    Returns:
        their number, Σ λ_f q/τ_f² and Σ λ_s q/τ_s².
    """
    one, zero = v.dtype.type(1.0), v.dtype.type(0.0)
    x0, x1, g0, g1, m = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    zone(v, shape, two_sided, x0)
    zone(v_after, shape, two_sided, x1)
    slope(gate, v, x0, shape, two_sided, g0)
    slope(gate, v_after, x1, shape, two_sided, g1)
    for n in range(v.shape[0]):  # in the zone before or after, or once through it
        m[n] = g0[n] + g1[n] + abs(crossings[n])
    for n in range(v.shape[0]):
        m[n] += x0[n] * (one - x0[n]) + x1[n] * (one - x1[n])
    count = select(m, index)
    fill(m, zero)
    dot_rows(w_rec_t, index, count, zeta, projected)
    _released(gate, two_sided, x0, x1, v, v_after, crossings, index, count, near, q_fast)
    for_fast = for_slow = 0.0
    for k in range(count):
        n = index[k]
        q, slow = q_fast[k], zero
        for j in range(eta.shape[0]):
            slow += w_out_t[n, j] * eta[j]
        m[n] = gain[0] * projected[k] + gain[1] * slow
        if c_count.shape[0] > 0 and q != zero:
            m[n] += np.copysign(c_count[n], q * c_count[n])
        q_fast[k], q_slow[k] = gain[0] * q, gain[1] * q
        for_fast += projected[k] * q_fast[k]
        for_slow += slow * q_slow[k]
    return count, for_fast * gain[0], for_slow * gain[1]


@njit(**OPTIONS)
def _back(membrane, h, keep, c, v, current, crossings, g0, g1, m, mu, w, push, pull, lam, zeta, d_bias, d_c0, d_c1):
    """(4.1) and the ζ of (4.3) for one step of one sample; w is left behind."""
    _partials(membrane, v, current, c, h, push, pull)
    for n in range(v.shape[0]):
        mu[n] = lam[n] + g1[n] * m[n]
    fill(w, v.dtype.type(0.0))
    if membrane == LIF:
        _reset_back(v, current, c, h, crossings, w, mu, d_c1)
        for n in range(v.shape[0]):
            d_c0[n] += mu[n] * push[n] * c[0, n] * (v[n] - current[n])
    elif membrane == QIF:
        for n in range(v.shape[0]):
            d_c0[n] -= (h + h - push[n]) * mu[n] * c[0, n] * c[0, n]
    for n in range(v.shape[0]):
        w[n] += push[n] * mu[n]
    for n in range(v.shape[0]):
        lam[n] = pull[n] * mu[n] - g0[n] * m[n]
    for n in range(v.shape[0]):
        d_bias[n] += w[n]
        zeta[n] = keep[0] * zeta[n] + w[n]


@njit(**OPTIONS)
def _released(gate, two_sided, x0, x1, now, after, crossed, index, count, scratch, q):
    """Charge q of each selected neuron, the numbers of `forward` again."""
    y0, y1, c0, c1 = scratch[0, :count], scratch[1, :count], scratch[2, :count], scratch[3, :count]
    for k in range(count):
        y0[k], y1[k] = x0[index[k]], x1[index[k]]
    integral(gate, y0, c0)
    integral(gate, y1, c1)
    for k in range(count):
        n = index[k]
        if two_sided:
            c0[k], c1[k] = np.copysign(c0[k], now[n]), np.copysign(c1[k], after[n])
        q[k] = c1[k] - c0[k] + crossed[n]


@njit(**OPTIONS)
def _decayed(z, current, drive):
    """ζ · J with J = I - W_in u - b."""
    total = z.dtype.type(0.0)
    for n in range(z.shape[0]):
        total += z[n] * (current[n] - drive[n])
    return total


@njit(**OPTIONS)
def _change(p, before, after):
    """p · (a⁺ - a)."""
    total = p.dtype.type(0.0)
    for n in range(p.shape[0]):
        total += p[n] * (after[n] - before[n])
    return total


@njit(**OPTIONS)
def _dot(a, b):
    total = a.dtype.type(0.0)
    for n in range(a.shape[0]):
        total += a[n] * b[n]
    return total


@njit(**OPTIONS)
def _add(x, total):
    for n in range(x.shape[0]):
        total[n] += x[n]


@njit(**OPTIONS)
def _decay(p, keep, gain, source):
    """p ← keep p + gain source; an empty source is zero."""
    for n in range(p.shape[0]):
        p[n] *= keep
    for n in range(source.shape[0]):
        p[n] += gain * source[n]


@njit(**OPTIONS)
def _add_outer(u, w, total):
    """total += u wᵀ, over the channels that are not silent."""
    for j in range(u.shape[0]):
        if u[j] != 0:
            x, row = u[j], total[j]
            for n in range(w.shape[0]):
                row[n] += x * w[n]


renew((forward, copy))
