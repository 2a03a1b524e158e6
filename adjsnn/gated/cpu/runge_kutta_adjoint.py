"""The adjoint (4.5) with (4.6) of the fused Runge–Kutta loop; see `runge_kutta`."""

import numpy as np

from adjsnn.gated.cpu.membranes import LIF, constants_back, partials
from adjsnn.gated.cpu.runge_kutta import after_reset, charge_of, combine, polynomial, polynomial_slope, released_columns, stages
from adjsnn.gated.cpu.vectors import (
    OPTIONS,
    add,
    add_drive,
    add_outer,
    add_to_rows,
    copy,
    decay,
    dot,
    dot_rows,
    fill,
    select,
    slope,
    zone,
)
from adjsnn.numerics.compiled import compiled


@compiled(**OPTIONS)
def backward(
    membrane, gate, two_sided, shape, h, fast, slow, d_fast, d_slow, c, method, w_rec_t, w_in_t, bias, w_out_t, u,
    v, a_fast, a_slow, readout, current, crossings, c_readout, c_v, c_fast, c_slow, c_count,
    want, lam_v, zeta, eta, ext_fast, ext_slow, first, last, scratch, blocks, double, index,
    d_u, d_rec_t, d_in_t, d_out_t, d_bias, d_c0, d_c1, d_tau,
):  # fmt: skip
    """The recursion (4.5) with (4.6) for samples first … last-1; arguments as in `euler_adjoint.backward`, and

    Args:
        fast, slow, method: as in `forward`.   d_fast, d_slow: their derivatives in τ_f and τ_s.
        ext_fast, ext_slow: λ_f and λ_s of a loss that reads a_f or a_s itself.
        scratch (14, N), blocks (11, s + 1, N), double (2, s): memory.
    """
    a, weights = method[0], method[1]
    s = weights.shape[0]
    zero, one = v.dtype.type(0.0), v.dtype.type(1.0)
    reads = (len(c_readout) > 0, len(c_v) > 0, want[6], want[7])
    want_rec, want_in, want_out, want_u, want_fast, want_slow, _, _ = want
    volts, flows, currents, charges, columns = blocks[0], blocks[1], blocks[2], blocks[3], blocks[4]
    bars, amps, omega, slopes, partial_i, partial_v = blocks[5], blocks[6], blocks[7], blocks[8], blocks[9], blocks[10]
    turns, x, weight, drive, level, recurrent = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4], scratch[5]
    end, lam_new, released, g0, moved, w, chosen = (
        scratch[6], scratch[7], scratch[8], scratch[9], scratch[10], scratch[11], scratch[12],
    )  # fmt: skip
    d_tau_fast = d_tau_slow = 0.0
    for t in range(len(current) - 1, -1, -1):
        for b in range(first, last):
            fill(drive, zero)
            add_drive(w_in_t, bias, u[t, b], drive)
            copy(current[t, b], currents[0])
            for n in range(drive.shape[0]):
                recurrent[n] = current[t, b, n] - drive[n]
            charge_of(gate, two_sided, shape, v[t, b], x, level)
            slope(gate, v[t, b], x, shape, two_sided, g0)
            stages(
                membrane, gate, two_sided, shape, h, fast, c, method, w_rec_t, v[t, b], recurrent, drive, level,
                volts, flows, currents, charges, columns, turns, x, weight, index,
            )  # fmt: skip
            for i in range(1, s):
                zone(volts[i], shape, two_sided, x)
                slope(gate, volts[i], x, shape, two_sided, slopes[i])
            charge_of(gate, two_sided, shape, v[t + 1, b], x, charges[s])
            slope(gate, v[t + 1, b], x, shape, two_sided, slopes[s])
            for n in range(drive.shape[0]):
                charges[s][n] += crossings[t, b, n] - level[n]
            for i in range(s):
                partials(membrane, volts[i], currents[i], c, partial_i[i], partial_v[i])
            # The end of the step: ω_e, the cotangent of its charge, and v̄_e.
            for n in range(drive.shape[0]):
                omega[s][n] = fast[1][s, s] * zeta[b, n]
            fill(released, zero)
            d_tau_slow += _released_back(
                s, fast, slow, d_slow, g0, slopes[s], charges[s], w_rec_t, w_out_t, omega[s], eta[b], ext_fast[b], ext_slow[b],
                reads, x, weight, chosen, index, released, want_rec, want_out, d_rec_t, d_out_t, s,
            )  # fmt: skip
            if len(c_count) > 0:
                for n in range(drive.shape[0]):
                    if charges[s][n] != zero:
                        share = np.copysign(c_count[b, n], charges[s][n] * c_count[b, n])
                        x[n] += share
                        released[n] += share
            for n in range(drive.shape[0]):
                end[n] = lam_v[b, n] + slopes[s][n] * x[n]
            copy(end, lam_new)
            for i in range(s):
                fill(amps[i], zero)
                scale = h * weights[i]
                for n in range(drive.shape[0]):
                    bars[i][n] = scale * end[n]
            if membrane == LIF:
                combine(v[t, b], flows, weights, s, h, moved)
                for n in range(drive.shape[0]):
                    if crossings[t, b, n] != 0:
                        lam_new[n], d_rate, d_reset = _reset_back(
                            end[n], v[t, b, n], flows, currents, n, moved[n], c[0, n], c[1, n], method, h,
                            double[0], double[1], bars, amps,
                        )  # fmt: skip
                        d_c0[n] -= d_rate * c[0, n] * c[0, n]
                        d_c1[n] += d_reset
            fill(w, zero)
            if want_fast:
                released_columns(w_rec_t, charges[s], index, weight, columns[s])
                d_tau_fast += _filter_back(zeta[b], recurrent, columns, d_fast, s)
            for i in range(s - 1, -1, -1):
                for n in range(drive.shape[0]):
                    amps[i][n] += partial_i[i][n] * bars[i][n]
                add(amps[i], w)
                if want_fast and i > 0:
                    d_tau_fast += _filter_back(amps[i], recurrent, columns, d_fast, i)
                constants_back(membrane, volts[i], currents[i], c, bars[i], partial_i[i], d_c0)
                for n in range(drive.shape[0]):
                    bars[i][n] *= partial_v[i][n]
                if i > 0:
                    _scaled_from(zeta[b], amps, fast[1], i, s, omega[i])
                    d_tau_slow += _released_back(
                        i, fast, slow, d_slow, g0, slopes[i], charges[i], w_rec_t, w_out_t, omega[i], eta[b], ext_fast[b],
                        ext_slow[b], reads, x, weight, chosen, index, released, want_rec, want_out, d_rec_t, d_out_t, s,
                    )  # fmt: skip
                    for n in range(drive.shape[0]):
                        bars[i][n] += slopes[i][n] * x[n]
                    for j in range(i):
                        if a[i, j] != 0:
                            scale = h * a[i, j]
                            for n in range(drive.shape[0]):
                                bars[j][n] += scale * bars[i][n]
                add(bars[i], lam_new)
            for n in range(drive.shape[0]):
                lam_v[b, n] = lam_new[n] - g0[n] * released[n]
            add(w, d_bias)
            if want_in:
                add_outer(u[t, b], w, d_in_t)
            if want_u:
                for j in range(u.shape[2]):
                    d_u[t, b, j] = dot(w_in_t[j], w)
            decay(zeta[b], fast[0][s], fast[0][0], amps[0])
            for i in range(1, s):
                decay(zeta[b], one, fast[0][i], amps[i])
            if want_slow:
                d_tau_slow += dot(eta[b], readout[t, b]) * d_slow[0][s]
            if reads[2]:
                d_tau_fast += _filter_back(ext_fast[b], a_fast[t, b], charges, d_fast, s)
                decay(ext_fast[b], fast[0][s], one, c_fast[t, b] if len(c_fast) > 0 else x[:0])
            if reads[3]:
                d_tau_slow += _filter_back(ext_slow[b], a_slow[t, b], charges, d_slow, s)
                decay(ext_slow[b], slow[0][s], one, c_slow[t, b] if len(c_slow) > 0 else x[:0])
            if reads[0]:
                decay(eta[b], slow[0][s], one, c_readout[t, b])
            if reads[1]:
                add(c_v[t, b], lam_v[b])
    d_tau[0] += d_tau_fast
    d_tau[1] += d_tau_slow


@compiled(**OPTIONS)
def _released_back(
    row, fast, slow, d_slow, g0, g, charge, w_rec_t, w_out_t, omega, eta, ext_fast, ext_slow,
    reads, x, weight, chosen, index, released, want_rec, want_out, d_rec_t, d_out_t, s,
):  # fmt: skip
    """The cotangent x of ΔG of one row, where anything reads it, added to `released`; weight gradients of that charge.

    Returns:
        the part of dC/dτ_s that comes from this charge.
    """
    zero = x.dtype.type(0.0)
    for n in range(x.shape[0]):
        x[n] = g0[n] + g[n] + abs(charge[n])
    count = select(x, index)
    fill(x, zero)
    dot_rows(w_rec_t, index, count, omega, weight)
    gain, share, d_share = slow[1][s, row], zero, 0.0
    for k in range(count):
        n = index[k]
        share = zero
        for j in range(eta.shape[0]):
            share += w_out_t[n, j] * eta[j]
        x[n] = weight[k] + gain * share
        chosen[k] = charge[n]
        d_share += share * charge[n]
        weight[k] = gain * charge[n]
    if want_rec:
        add_to_rows(d_rec_t, index, chosen, count, omega)
    if want_out:
        add_to_rows(d_out_t, index, weight, count, eta)
    if reads[2]:
        for n in range(x.shape[0]):
            x[n] += fast[1][s, row] * ext_fast[n]
    if reads[3]:
        for n in range(x.shape[0]):
            x[n] += gain * ext_slow[n]
    add(x, released)
    return d_share * d_slow[1][s, row]


@compiled(**OPTIONS)
def _reset_back(end, v, flow, current, n, moved, rate, v_reset, method, h, slopes, bars, d_flow, d_current):
    """Cotangents through (1.15) and (1.16) for the cotangent `end` of v⁺: into d_flow and d_current of the neuron.

    Returns:
        the cotangents of v, of 1/τ_m and of v_r.
    """
    a, b, c, dense, along = method
    _, sigma, speed = after_reset(v, flow, current, n, moved, rate, v_reset, method, h, slopes)
    rest, s = (1.0 - sigma) * h, b.shape[0]
    d_rest = d_sigma = d_rate = 0.0
    d_reset = np.float64(end)
    for i in range(s):
        bars[i] = end * b[i] * rest
        d_rest += end * b[i] * slopes[i]
    for i in range(s - 1, -1, -1):
        d_now, at = -rate * bars[i], sigma + c[i] * (1.0 - sigma)
        d_rate += bars[i] * slopes[i] / rate
        for j in range(s):
            d_current[j, n] += rate * bars[i] * polynomial(along[j], at)
            d_sigma += rate * bars[i] * polynomial_slope(along[j], at) * current[j, n] * (1.0 - c[i])
        d_reset += d_now
        for j in range(i):
            bars[j] += d_now * a[i, j] * rest
            d_rest += d_now * a[i, j] * slopes[j]
    d_sigma -= d_rest * h
    for i in range(s):
        d_flow[i, n] = -d_sigma / speed * h * polynomial(dense[i], sigma)
    return -d_sigma / speed, d_rate, d_reset


@compiled(**OPTIONS)
def _scaled_from(zeta, amps, gain, row, s, out):
    """ω_row = Σ_{row ≤ i < s} C_i,row Ī_i/τ_f + C_e,row ζ/τ_f."""
    weight = gain[s, row]
    for n in range(out.shape[0]):
        out[n] = weight * zeta[n]
    for i in range(row, s):
        weight, amp = gain[i, row], amps[i]
        if weight != 0:
            for n in range(out.shape[0]):
                out[n] += weight * amp[n]


@compiled(**OPTIONS)
def _filter_back(cotangent, a, released, d_filter, row):
    """dC/dτ through α and C/τ of one row: cotangent · (α′ a + Σ_j (C/τ)′ released_j)."""
    total = dot(cotangent, a) * d_filter[0][row]
    for j in range(1, row + 1):
        total += dot(cotangent, released[j]) * d_filter[1][row, j]
    return total
