"""The adjoint (4.1) with (4.3) of the fused Euler loop; see `euler`."""

import numpy as np

from adjsnn.gated.cpu.membranes import LIF, QIF, reset_back, step_partials
from adjsnn.gated.cpu.vectors import (
    OPTIONS,
    add,
    add_drive,
    add_outer,
    add_to_rows,
    decay,
    dot,
    dot_rows,
    fill,
    integral,
    select,
    slope,
    zone,
)
from adjsnn.numerics.compiled import compiled


@compiled(**OPTIONS)
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
                add_drive(w_in_t, bias, u[t, b], small[3])
                d_tau_fast += _decayed(zeta[b], current[t, b], small[3]) * h * gain[0] * gain[0]
            if want_slow:
                d_tau_slow += dot(eta[b], readout[t, b]) * h * gain[1] * gain[1]
            if reads[2]:
                add(ext_fast[b], scratch[4])
                d_tau_fast -= _change(ext_fast[b], a_fast[t, b], a_fast[t + 1, b])
            if reads[3]:
                add(ext_slow[b], scratch[4])
                d_tau_slow -= _change(ext_slow[b], a_slow[t, b], a_slow[t + 1, b])
            _back(
                membrane, h, keep, c, v[t, b], current[t, b], crossings[t, b],
                scratch[2], scratch[3], scratch[4], scratch[5], scratch[6], scratch[7], scratch[8],
                lam_v[b], zeta[b], d_bias, d_c0, d_c1,
            )  # fmt: skip
            if want_in:
                add_outer(u[t, b], scratch[6], d_in_t)
            if want_u:
                for j in range(u.shape[2]):
                    d_u[t, b, j] = dot(w_in_t[j], scratch[6])
            if reads[0]:
                decay(eta[b], keep[1], one, c_readout[t, b])
            if reads[1]:
                add(c_v[t, b], lam_v[b])
            if reads[2]:
                decay(ext_fast[b], keep[0], gain[0], c_fast[t, b] if len(c_fast) > 0 else small[3][:0])
            if reads[3]:
                decay(ext_slow[b], keep[1], gain[1], c_slow[t, b] if len(c_slow) > 0 else small[3][:0])
    d_tau[0] += d_tau_fast
    d_tau[1] += d_tau_slow


@compiled(**OPTIONS)
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


@compiled(**OPTIONS)
def _back(membrane, h, keep, c, v, current, crossings, g0, g1, m, mu, w, push, pull, lam, zeta, d_bias, d_c0, d_c1):
    """(4.1) and the ζ of (4.3) for one step of one sample; w is left behind."""
    step_partials(membrane, v, current, c, h, push, pull)
    for n in range(v.shape[0]):
        mu[n] = lam[n] + g1[n] * m[n]
    fill(w, v.dtype.type(0.0))
    if membrane == LIF:
        reset_back(v, current, c, h, crossings, w, mu, d_c1)
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


@compiled(**OPTIONS)
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


@compiled(**OPTIONS)
def _decayed(z, current, drive):
    """ζ · J with J = I - W_in u - b."""
    total = z.dtype.type(0.0)
    for n in range(z.shape[0]):
        total += z[n] * (current[n] - drive[n])
    return total


@compiled(**OPTIONS)
def _change(p, before, after):
    """p · (a⁺ - a)."""
    total = p.dtype.type(0.0)
    for n in range(p.shape[0]):
        total += p[n] * (after[n] - before[n])
    return total
