"""The Runge–Kutta program (1.14)-(1.16) of gated networks and its adjoint (4.5) as fused loops for the CPU: here the
steps forward.

As in `euler`, the recurrent current J = W_rec a_f is a filter of its own. With Ω_j = W_rec ΔG_j, few columns of W_rec,

    J_i = α_i J + Σ_{j≤i} C_ij Ω_j/τ_f                                                                         (4.6)

at the stages i and at the end of the step. Backward, with ω_j = Σ_{i≥j} C_ij dC/dJ_i/τ_f, the cotangent of ΔG_j is
W_recᵀ ω_j + C_ej W_outᵀ η/τ_s, needed only in the active zone, and dW_rec = Σ ω_j ΔG_jᵀ. Stages are computed again on the way
back.
"""

import numpy as np

from adjsnn.gated.cpu.membranes import LIF, flow_of
from adjsnn.gated.cpu.vectors import OPTIONS, add, add_drive, add_rows, copy, dot_rows, fill, integral, mirrored, select, zone
from adjsnn.numerics.compiled import compiled


@compiled(**OPTIONS)
def forward(
    membrane, gate, two_sided, shape, h, fast, slow, c, method, w_rec_t, w_in_t, bias, w_out, u,
    v, a_fast, a_slow, readout, current, crossings, recurrent, level, first, last,
    scratch, blocks, double, index, channels, bad, extremes,
):  # fmt: skip
    """Steps for samples first … last-1; arguments as in `euler.forward`, and

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
            add_drive(w_in_t, bias, u[t, b], drive)
            copy(recurrent[b], currents[0])
            add(drive, currents[0])
            copy(currents[0], current[t, b])
            stages(
                membrane, gate, two_sided, shape, h, fast, c, method, w_rec_t, v[t, b], recurrent[b], drive, level[b],
                volts, flows, currents, charges, columns, turns, x, weight, index,
            )  # fmt: skip
            combine(v[t, b], flows, method[1], s, h, v[t + 1, b])
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


@compiled(**OPTIONS)
def stages(
    membrane, gate, two_sided, shape, h, fast, c, method, w_rec_t, v, recurrent, drive, level,
    volts, flows, currents, charges, columns, turns, x, weight, index,
):  # fmt: skip
    """Stages of one step of one sample; currents[0] is given. volts are without whole turns; charges ΔG_j, columns Ω_j."""
    a = method[0]
    keep, gain = fast
    copy(v, volts[0])
    flow_of(membrane, volts[0], currents[0], c, flows[0])
    for i in range(1, a.shape[0]):
        combine(v, flows, a[i], i, h, volts[i])
        _unwrap(membrane, volts[i], turns)
        charge_of(gate, two_sided, shape, volts[i], x, charges[i])
        for n in range(v.shape[0]):
            charges[i][n] += turns[n] - level[n]
        released_columns(w_rec_t, charges[i], index, weight, columns[i])
        scaled(recurrent, keep[i], columns, gain[i], i + 1, currents[i])
        add(drive, currents[i])
        flow_of(membrane, volts[i], currents[i], c, flows[i])


@compiled(**OPTIONS)
def _finish(
    gate, two_sided, shape, s, fast, slow, w_rec_t, a_fast, a_slow, after, a_fast_after, a_slow_after, current, crossings,
    recurrent, level, charges, columns, turns, x, weight, total, index,
):  # fmt: skip
    """Charge, synapses and recurrent current at the end of a step. Returns as `euler._step`."""
    charge_of(gate, two_sided, shape, after, x, total)
    for n in range(after.shape[0]):
        charges[s][n] = total[n] + turns[n] - level[n]
    copy(total, level)
    released_columns(w_rec_t, charges[s], index, weight, columns[s])
    scaled(recurrent, fast[0][s], columns, fast[1][s], s + 1, total)
    copy(total, recurrent)
    scaled(a_fast, fast[0][s], charges, fast[1][s], s + 1, a_fast_after)
    scaled(a_slow, slow[0][s], charges, slow[1][s], s + 1, a_slow_after)
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


@compiled(**OPTIONS)
def _reset(membrane, v, flows, currents, c, method, h, after, turns, slopes):
    """`after` holds ṽ and becomes v⁺; turns the signed number of thresholds crossed."""
    if membrane == LIF:
        one = v.dtype.type(1.0)
        for n in range(v.shape[0]):
            turns[n] = one if after[n] >= one else one - one
        for n in range(v.shape[0]):
            if turns[n] != 0:
                after[n], _, _ = after_reset(v[n], flows, currents, n, after[n], c[0, n], c[1, n], method, h, slopes)
    else:
        _unwrap(membrane, after, turns)


@compiled(**OPTIONS)
def released_columns(w_rec_t, charge, index, weight, out):
    """Ω = W_rec ΔG, over the neurons that release charge."""
    fill(out, out.dtype.type(0.0))
    count = select(charge, index)
    for k in range(count):
        weight[k] = charge[index[k]]
    add_rows(w_rec_t, index, weight, count, out)


@compiled(**OPTIONS)
def combine(start, rows, weights, count, h, out):
    """out = start + h Σ weights[j] rows[j] over the first `count` j."""
    copy(start, out)
    for j in range(count):
        weight = h * weights[j]
        if weight != 0:
            row = rows[j]
            for n in range(out.shape[0]):
                out[n] += weight * row[n]


@compiled(**OPTIONS)
def scaled(start, keep, rows, weights, count, out):
    """out = keep start + Σ weights[j] rows[j] over 1 ≤ j < count."""
    for n in range(out.shape[0]):
        out[n] = keep * start[n]
    for j in range(1, count):
        weight, row = weights[j], rows[j]
        for n in range(out.shape[0]):
            out[n] += weight * row[n]


@compiled(**OPTIONS)
def _unwrap(membrane, v, turns):
    """Take whole turns off a voltage, except where the reset is no translation."""
    zero = v.dtype.type(0.0)
    if membrane == LIF:
        fill(turns, zero)
    else:
        for n in range(v.shape[0]):
            turns[n] = np.trunc(v[n])
            v[n] -= turns[n]


@compiled(**OPTIONS)
def charge_of(gate, two_sided, shape, v, x, charge):
    """Zone coordinate x and G(v)."""
    zone(v, shape, two_sided, x)
    integral(gate, x, charge)
    if two_sided:
        mirrored(v, charge)


@compiled(**OPTIONS)
def _crossing(v, flow, n, moved, dense, h):
    """σ at which v + h Σ b_i(σ) k_i = 1, by Newton's method inside a bracket, and the slope there."""
    low, high = 0.0, 1.0
    sigma = (1.0 - v) / (moved - v)
    speed = 0.0
    for _ in range(80):
        miss, speed = np.float64(v) - 1.0, 0.0
        for i in range(dense.shape[0]):
            miss += h * polynomial(dense[i], sigma) * flow[i, n]
            speed += h * polynomial_slope(dense[i], sigma) * flow[i, n]
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


@compiled(**OPTIONS)
def after_reset(v, flow, current, n, moved, rate, v_reset, method, h, slopes):
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
            drive += polynomial(along[j], at) * current[j, n]
        slopes[i] = rate * (drive - now)
    for i in range(b.shape[0]):
        after += b[i] * rest * slopes[i]
    return after, sigma, speed


@compiled(**OPTIONS)
def polynomial(coefficients, x):
    total = coefficients[-1]
    for n in range(coefficients.shape[0] - 2, -1, -1):
        total = total * x + coefficients[n]
    return total


@compiled(**OPTIONS)
def polynomial_slope(coefficients, x):
    total = coefficients[-1] * (coefficients.shape[0] - 1)
    for n in range(coefficients.shape[0] - 2, 0, -1):
        total = total * x + coefficients[n] * n
    return total
