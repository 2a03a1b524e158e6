"""The Runge–Kutta program (1.14)-(1.16) of gated networks and its adjoint (4.5) as two fused loops for the CPU.

As in `gated_euler`, the recurrent current J = W_rec a_f is a filter of its own. With Ω_j = W_rec ΔG_j, few columns of W_rec,

    J_i = α_i J + Σ_{j≤i} C_ij Ω_j/τ_f                                                                         (4.6)

at the stages i and at the end of the step. Backward, with ω_j = Σ_{i≥j} C_ij dC/dJ_i/τ_f, the cotangent of ΔG_j is
W_recᵀ ω_j + C_ej W_outᵀ η/τ_s, needed only in the active zone, and dW_rec = Σ ω_j ΔG_jᵀ. Stages are computed again on the way
back.
"""

import numpy as np
from numba import njit

from adjsnn.kernels.cache import renew
from adjsnn.kernels.gated_euler import LIF, NIF, QIF, _add, _add_outer, _decay, _dot, _drive
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


@njit(**OPTIONS)
def _flow(membrane, v, current, c, flow):
    """f(v, I); |v| ≤ 1 for QIF."""
    rate = c[0]
    if membrane == NIF:
        copy(current, flow)
    elif membrane == LIF:
        for n in range(v.shape[0]):
            flow[n] = rate[n] * (current[n] - v[n])
    else:
        half = v.dtype.type(0.5)
        for n in range(v.shape[0]):
            s = sine(half - abs(abs(v[n]) - half))
            x = rate[n] + s * s * (current[n] - rate[n])
            flow[n] = x + x


@njit(**OPTIONS)
def _partials(membrane, v, current, c, d_current, d_v):
    """∂_I f and ∂_v f."""
    one = v.dtype.type(1.0)
    rate = c[0]
    if membrane == NIF:
        fill(d_current, one)
        fill(d_v, v.dtype.type(0.0))
    elif membrane == LIF:
        for n in range(v.shape[0]):
            d_current[n] = rate[n]
            d_v[n] = -rate[n]
    else:
        half, two_pi = v.dtype.type(0.5), v.dtype.type(2 * np.pi)
        for n in range(v.shape[0]):
            s = sine(half - abs(abs(v[n]) - half))
            d_current[n] = s * s + s * s
            both = sine(half - abs(v[n])) * np.copysign(s, v[n])  # ½ sin 2πv
            d_v[n] = (both + both) * two_pi * (current[n] - rate[n])


@njit(**OPTIONS)
def _combine(start, rows, weights, count, h, out):
    """out = start + h Σ weights[j] rows[j] over the first `count` j."""
    copy(start, out)
    for j in range(count):
        weight = h * weights[j]
        if weight != 0:
            row = rows[j]
            for n in range(out.shape[0]):
                out[n] += weight * row[n]


@njit(**OPTIONS)
def _scaled(start, keep, rows, weights, count, out):
    """out = keep start + Σ weights[j] rows[j] over 1 ≤ j < count."""
    for n in range(out.shape[0]):
        out[n] = keep * start[n]
    for j in range(1, count):
        weight, row = weights[j], rows[j]
        for n in range(out.shape[0]):
            out[n] += weight * row[n]


@njit(**OPTIONS)
def _unwrap(membrane, v, turns):
    """Take whole turns off a voltage, except where the reset is no translation."""
    zero = v.dtype.type(0.0)
    if membrane == LIF:
        fill(turns, zero)
    else:
        for n in range(v.shape[0]):
            turns[n] = np.trunc(v[n])
            v[n] -= turns[n]


@njit(**OPTIONS)
def _level(gate, two_sided, shape, v, x, charge):
    """Zone coordinate x and G(v)."""
    zone(v, shape, two_sided, x)
    integral(gate, x, charge)
    if two_sided:
        mirrored(v, charge)


@njit(**OPTIONS)
def _polynomial(coefficients, x):
    total = coefficients[-1]
    for n in range(coefficients.shape[0] - 2, -1, -1):
        total = total * x + coefficients[n]
    return total


@njit(**OPTIONS)
def _slope_of(coefficients, x):
    total = coefficients[-1] * (coefficients.shape[0] - 1)
    for n in range(coefficients.shape[0] - 2, 0, -1):
        total = total * x + coefficients[n] * n
    return total


@njit(**OPTIONS)
def _crossing(v, flow, n, moved, dense, h):
    """σ at which v + h Σ b_i(σ) k_i = 1, by Newton's method inside a bracket, and the slope there."""
    low, high = 0.0, 1.0
    sigma = (1.0 - v) / (moved - v)
    speed = 0.0
    for _ in range(80):
        miss, speed = np.float64(v) - 1.0, 0.0
        for i in range(dense.shape[0]):
            miss += h * _polynomial(dense[i], sigma) * flow[i, n]
            speed += h * _slope_of(dense[i], sigma) * flow[i, n]
        if miss < 0:
            low = sigma
        else:
            high = sigma
        following = sigma - miss / speed
        if not ((following > low) & (following < high)):
            following = 0.5 * (low + high)
        change = abs(following - sigma)
        sigma = following
        if change <= 4e-16:
            break
    return sigma, speed


@njit(**OPTIONS)
def _after_reset(v, flow, current, n, moved, rate, v_reset, method, h, slopes):
    """v⁺ of a LIF neuron by (1.16); slopes are left in the scratch vector, σ is returned too."""
    a, b, c, dense, along = method
    sigma, speed = _crossing(v, flow, n, moved, dense, h)
    rest = (1.0 - sigma) * h
    after = np.float64(v_reset)
    for i in range(b.shape[0]):
        now = np.float64(v_reset)
        for j in range(i):
            now += a[i, j] * rest * slopes[j]
        at, drive = sigma + c[i] * (1.0 - sigma), 0.0
        for j in range(b.shape[0]):
            drive += _polynomial(along[j], at) * current[j, n]
        slopes[i] = rate * (drive - now)
    for i in range(b.shape[0]):
        after += b[i] * rest * slopes[i]
    return after, sigma, speed


@njit(**OPTIONS)
def _reset_back(end, v, flow, current, n, moved, rate, v_reset, method, h, slopes, bars, d_flow, d_current):
    """Cotangents through (1.15) and (1.16) for the cotangent `end` of v⁺: into d_flow and d_current of the neuron.

    Returns:
        the cotangents of v, of 1/τ_m and of v_r.
    """
    a, b, c, dense, along = method
    _, sigma, speed = _after_reset(v, flow, current, n, moved, rate, v_reset, method, h, slopes)
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
            d_current[j, n] += rate * bars[i] * _polynomial(along[j], at)
            d_sigma += rate * bars[i] * _slope_of(along[j], at) * current[j, n] * (1.0 - c[i])
        d_reset += d_now
        for j in range(i):
            bars[j] += d_now * a[i, j] * rest
            d_rest += d_now * a[i, j] * slopes[j]
    d_sigma -= d_rest * h
    for i in range(s):
        d_flow[i, n] = -d_sigma / speed * h * _polynomial(dense[i], sigma)
    return -d_sigma / speed, d_rate, d_reset


@njit(**OPTIONS)
def _stages(
    membrane, gate, two_sided, shape, h, fast, c, method, w_rec_t, v, recurrent, drive, level,
    volts, flows, currents, charges, columns, turns, x, weight, index,
):  # fmt: skip
    """Stages of one step of one sample; currents[0] is given. volts are without whole turns; charges ΔG_j, columns Ω_j."""
    a = method[0]
    keep, gain = fast
    copy(v, volts[0])
    _flow(membrane, volts[0], currents[0], c, flows[0])
    for i in range(1, a.shape[0]):
        _combine(v, flows, a[i], i, h, volts[i])
        _unwrap(membrane, volts[i], turns)
        _level(gate, two_sided, shape, volts[i], x, charges[i])
        for n in range(v.shape[0]):
            charges[i][n] += turns[n] - level[n]
        _columns(w_rec_t, charges[i], index, weight, columns[i])
        _scaled(recurrent, keep[i], columns, gain[i], i + 1, currents[i])
        _add(drive, currents[i])
        _flow(membrane, volts[i], currents[i], c, flows[i])


@njit(**OPTIONS)
def _columns(w_rec_t, charge, index, weight, out):
    """Ω = W_rec ΔG, over the neurons that release charge."""
    fill(out, out.dtype.type(0.0))
    count = select(charge, index)
    for k in range(count):
        weight[k] = charge[index[k]]
    add_rows(w_rec_t, index, weight, count, out)


@njit(**OPTIONS)
def _reset(membrane, v, flows, currents, c, method, h, after, turns, slopes):
    """`after` holds ṽ and becomes v⁺; turns the signed number of thresholds crossed."""
    if membrane == LIF:
        one = v.dtype.type(1.0)
        for n in range(v.shape[0]):
            turns[n] = one if after[n] >= one else one - one
        for n in range(v.shape[0]):
            if turns[n] != 0:
                after[n], _, _ = _after_reset(v[n], flows, currents, n, after[n], c[0, n], c[1, n], method, h, slopes)
    else:
        _unwrap(membrane, after, turns)


@njit(**OPTIONS)
def forward(
    membrane, gate, two_sided, shape, h, fast, slow, c, method, w_rec_t, w_in_t, bias, w_out, u,
    v, a_fast, a_slow, readout, current, crossings, recurrent, level, first, last,
    scratch, blocks, double, index, channels, bad, extremes,
):  # fmt: skip
    """Steps for samples first … last-1; arguments as in `gated_euler.forward`, and

    Args:
        fast, slow: α and C/τ of (1.14), arrays (s+1,) and (s+1, s+1), each a pair.
        method: A (s, s), b, c (s,), the polynomials of the dense output and of the current (s, degree + 1).
        scratch (6, N), blocks (5, s + 1, N), double (2, s): memory.
    """
    s = method[1].shape[0]
    volts, flows, currents, charges, columns = blocks[0], blocks[1], blocks[2], blocks[3], blocks[4]
    turns, x, weight, drive = scratch[0], scratch[1], scratch[2], scratch[3]
    lowest, highest = np.int8(0), np.int8(0)
    for t in range(len(current)):
        for b in range(first, last):
            fill(drive, drive.dtype.type(0.0))
            _drive(w_in_t, bias, u[t, b], drive)
            copy(recurrent[b], currents[0])
            _add(drive, currents[0])
            copy(currents[0], current[t, b])
            _stages(
                membrane, gate, two_sided, shape, h, fast, c, method, w_rec_t, v[t, b], recurrent[b], drive, level[b],
                volts, flows, currents, charges, columns, turns, x, weight, index,
            )  # fmt: skip
            _combine(v[t, b], flows, method[1], s, h, v[t + 1, b])
            _reset(membrane, v[t, b], flows, currents, c, method, h, v[t + 1, b], turns, double[0])
            fine, low, high = _finish(
                gate, two_sided, shape, s, fast, slow, w_rec_t, a_fast[t, b], a_slow[t, b], v[t + 1, b], a_fast[t + 1, b],
                a_slow[t + 1, b], current[t, b], crossings[t, b], recurrent[b], level[b], charges, columns, turns, x, weight,
                drive, index,
            )  # fmt: skip
            dot_rows(w_out, channels, len(w_out), a_slow[t + 1, b], readout[t + 1, b])
            lowest, highest = min(lowest, low), max(highest, high)
            if not fine:
                bad[0], bad[1] = t, b
                return
    extremes[0], extremes[1] = min(extremes[0], lowest), max(extremes[1], highest)


@njit(**OPTIONS)
def _finish(
    gate, two_sided, shape, s, fast, slow, w_rec_t, a_fast, a_slow, after, a_fast_after, a_slow_after, current, crossings,
    recurrent, level, charges, columns, turns, x, weight, total, index,
):  # fmt: skip
    """Charge, synapses and recurrent current at the end of a step. Returns as `gated_euler._step`."""
    _level(gate, two_sided, shape, after, x, total)
    for n in range(after.shape[0]):
        charges[s][n] = total[n] + turns[n] - level[n]
    copy(total, level)
    _columns(w_rec_t, charges[s], index, weight, columns[s])
    _scaled(recurrent, fast[0][s], columns, fast[1][s], s + 1, total)
    copy(total, recurrent)
    _scaled(a_fast, fast[0][s], charges, fast[1][s], s + 1, a_fast_after)
    _scaled(a_slow, slow[0][s], charges, slow[1][s], s + 1, a_slow_after)
    magnitude, lowest, highest = after.dtype.type(0.0), np.int8(0), np.int8(0)
    most = after.dtype.type(127.0)
    for n in range(after.shape[0]):
        magnitude += abs(current[n]) + abs(after[n])
    for n in range(after.shape[0]):
        crossings[n] = np.int8(min(max(turns[n], -most), most))
    count = select(turns, index)
    fine = magnitude < after.dtype.type(np.inf)
    for k in range(count):
        n = index[k]
        fine &= (abs(turns[n]) <= 100) & (after[n] < after.dtype.type(1.0))
        lowest, highest = min(lowest, crossings[n]), max(highest, crossings[n])
    return fine, lowest, highest


@njit(**OPTIONS)
def backward(
    membrane, gate, two_sided, shape, h, fast, slow, d_fast, d_slow, c, method, w_rec_t, w_in_t, bias, w_out_t, u,
    v, a_fast, a_slow, readout, current, crossings, c_readout, c_v, c_fast, c_slow, c_count,
    want, lam_v, zeta, eta, ext_fast, ext_slow, first, last, scratch, blocks, double, index,
    d_u, d_rec_t, d_in_t, d_out_t, d_bias, d_c0, d_c1, d_tau,
):  # fmt: skip
    """The recursion (4.5) with (4.6) for samples first … last-1; arguments as in `gated_euler.backward`, and

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
            _drive(w_in_t, bias, u[t, b], drive)
            copy(current[t, b], currents[0])
            for n in range(drive.shape[0]):
                recurrent[n] = current[t, b, n] - drive[n]
            _level(gate, two_sided, shape, v[t, b], x, level)
            slope(gate, v[t, b], x, shape, two_sided, g0)
            _stages(
                membrane, gate, two_sided, shape, h, fast, c, method, w_rec_t, v[t, b], recurrent, drive, level,
                volts, flows, currents, charges, columns, turns, x, weight, index,
            )  # fmt: skip
            for i in range(1, s):
                zone(volts[i], shape, two_sided, x)
                slope(gate, volts[i], x, shape, two_sided, slopes[i])
            _level(gate, two_sided, shape, v[t + 1, b], x, charges[s])
            slope(gate, v[t + 1, b], x, shape, two_sided, slopes[s])
            for n in range(drive.shape[0]):
                charges[s][n] += crossings[t, b, n] - level[n]
            for i in range(s):
                _partials(membrane, volts[i], currents[i], c, partial_i[i], partial_v[i])
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
                _combine(v[t, b], flows, weights, s, h, moved)
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
                _columns(w_rec_t, charges[s], index, weight, columns[s])
                d_tau_fast += _filter_back(zeta[b], recurrent, columns, d_fast, s)
            for i in range(s - 1, -1, -1):
                for n in range(drive.shape[0]):
                    amps[i][n] += partial_i[i][n] * bars[i][n]
                _add(amps[i], w)
                if want_fast and i > 0:
                    d_tau_fast += _filter_back(amps[i], recurrent, columns, d_fast, i)
                _constants_back(membrane, volts[i], currents[i], c, bars[i], partial_i[i], d_c0)
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
                _add(bars[i], lam_new)
            for n in range(drive.shape[0]):
                lam_v[b, n] = lam_new[n] - g0[n] * released[n]
            _add(w, d_bias)
            if want_in:
                _add_outer(u[t, b], w, d_in_t)
            if want_u:
                for j in range(u.shape[2]):
                    d_u[t, b, j] = _dot(w_in_t[j], w)
            _decay(zeta[b], fast[0][s], fast[0][0], amps[0])
            for i in range(1, s):
                _decay(zeta[b], one, fast[0][i], amps[i])
            if want_slow:
                d_tau_slow += _dot(eta[b], readout[t, b]) * d_slow[0][s]
            if reads[2]:
                d_tau_fast += _filter_back(ext_fast[b], a_fast[t, b], charges, d_fast, s)
                _decay(ext_fast[b], fast[0][s], one, c_fast[t, b] if len(c_fast) > 0 else x[:0])
            if reads[3]:
                d_tau_slow += _filter_back(ext_slow[b], a_slow[t, b], charges, d_slow, s)
                _decay(ext_slow[b], slow[0][s], one, c_slow[t, b] if len(c_slow) > 0 else x[:0])
            if reads[0]:
                _decay(eta[b], slow[0][s], one, c_readout[t, b])
            if reads[1]:
                _add(c_v[t, b], lam_v[b])
    d_tau[0] += d_tau_fast
    d_tau[1] += d_tau_slow


@njit(**OPTIONS)
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


@njit(**OPTIONS)
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
    _add(x, released)
    return d_share * d_slow[1][s, row]


@njit(**OPTIONS)
def _filter_back(cotangent, a, released, d_filter, row):
    """dC/dτ through α and C/τ of one row: cotangent · (α′ a + Σ_j (C/τ)′ released_j)."""
    total = _dot(cotangent, a) * d_filter[0][row]
    for j in range(1, row + 1):
        total += _dot(cotangent, released[j]) * d_filter[1][row, j]
    return total


@njit(**OPTIONS)
def _constants_back(membrane, v, current, c, flow_bar, d_current, d_c0):
    """dC/dτ_m or dC/dτ_v through f at one stage."""
    if membrane == LIF:
        for n in range(v.shape[0]):
            d_c0[n] -= flow_bar[n] * c[0, n] * c[0, n] * (current[n] - v[n])
    elif membrane == QIF:
        two = v.dtype.type(2.0)
        for n in range(v.shape[0]):
            d_c0[n] -= flow_bar[n] * c[0, n] * c[0, n] * (two - d_current[n])


renew((forward, copy))
