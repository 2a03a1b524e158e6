"""The adjoint (4.5) with (4.6) of the fused Runge–Kutta loop; see `runge_kutta`."""

from math import copysign

import numpy as np

from adjsnn.gated.cpu.arguments import LIF
from adjsnn.gated.cpu.membranes import constants_back, partials
from adjsnn.gated.cpu.runge_kutta import after_reset, charge_of, combine, polynomial, polynomial_slope, released_columns, stages
from adjsnn.gated.cpu.vectors import (
    OPTIONS,
    PIECE,
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
def backward(network, scheme, path, cotangents, want, costate, first, last, memory, back, sums):
    """The recursion (4.5) with (4.6) for samples first … last-1; arguments as in `euler_adjoint.backward`, and

    Args:
        scheme: RungeKutta.
        memory: StageMemory, for the stages, which are computed again.
        back: StageAdjointMemory.
    """
    s, fast = scheme.method.b.shape[0], scheme.fast
    d_tau_fast = d_tau_slow = 0.0
    for t in range(len(path.current) - 1, -1, -1):
        for b in range(first, last):
            _again(network, scheme, path, memory, back, t, b)
            d_tau_slow += _end_back(network, scheme, cotangents.charge, want, costate, memory, back, sums, b)
            _start_stages_back(network, scheme.method, path, memory, back, sums, t, b)
            if want.tau_fast:
                released_columns(network.w_rec_t, memory.charges[s], memory.active, memory.weight, memory.columns[s])
                d_tau_fast += _filter_back(costate.zeta[b], back.recurrent, memory.columns, scheme.d_fast, s)
            for i in range(s - 1, -1, -1):
                for n in range(back.w.shape[0]):
                    back.amps[i][n] += back.by_current[i][n] * back.bars[i][n]
                add(back.amps[i], back.w)
                if want.tau_fast and i > 0:
                    d_tau_fast += _filter_back(back.amps[i], back.recurrent, memory.columns, scheme.d_fast, i)
                _flow_back(network, memory, back, sums, i)
                if i > 0:
                    _scaled_from(costate.zeta[b], back.amps, fast.gain, i, s, back.omega[i])
                    d_tau_slow += _released_back(network, scheme, want, costate, memory, back, sums, i, b)
                    _to_earlier_stages(network.h, scheme.method.a, memory.x, back, i)
                add(back.bars[i], back.lam)
            for n in range(back.w.shape[0]):
                costate.lam_v[b, n] = back.lam[n] - back.g0[n] * back.released[n]
            _inputs_back(network, path.u[t, b], want, back.w, sums, t, b)
            zeta = costate.zeta[b]
            decay(zeta, fast.keep[s], fast.keep[0], back.amps[0])
            for i in range(1, s):
                decay(zeta, zeta.dtype.type(1.0), fast.keep[i], back.amps[i])
            if want.tau_slow:
                d_tau_slow += dot(costate.eta[b], path.readout[t, b]) * scheme.d_slow.keep[s]
            if want.reads_fast:
                d_tau_fast += _filter_back(costate.fast[b], path.a_fast[t, b], memory.charges, scheme.d_fast, s)
            if want.reads_slow:
                d_tau_slow += _filter_back(costate.slow[b], path.a_slow[t, b], memory.charges, scheme.d_slow, s)
            _read(scheme, cotangents, want, costate, memory.x[:0], t, b)
    sums.tau[0] += d_tau_fast
    sums.tau[1] += d_tau_slow


@compiled(**PIECE)
def _again(network, scheme, path, memory, back, t, b):
    """The stages of step t of sample b once more, with g and the derivatives of f at each."""
    s, v, after, current = scheme.method.b.shape[0], path.v[t, b], path.v[t + 1, b], path.current[t, b]
    drive, x, charges, density = memory.drive, memory.x, memory.charges, back.density
    fill(drive, drive.dtype.type(0.0))
    add_drive(network.w_in_t, network.bias, path.u[t, b], drive)
    copy(current, memory.currents[0])
    for n in range(drive.shape[0]):
        back.recurrent[n] = current[n] - drive[n]
    charge_of(network, v, x, back.level)
    slope(network.gate, v, x, network.zone, network.two_sided, back.g0)
    stages(network, scheme, v, back.recurrent, back.level, memory)
    for i in range(1, s):
        zone(memory.volts[i], network.zone, network.two_sided, x)
        slope(network.gate, memory.volts[i], x, network.zone, network.two_sided, density[i])
    charge_of(network, after, x, charges[s])
    slope(network.gate, after, x, network.zone, network.two_sided, density[s])
    for n in range(drive.shape[0]):
        charges[s][n] += path.crossings[t, b, n] - back.level[n]
    for i in range(s):
        partials(network.membrane, memory.volts[i], memory.currents[i], network.constants, back.by_current[i], back.by_v[i])


@compiled(**PIECE)
def _end_back(network, scheme, c_count, want, costate, memory, back, sums, b):
    """The end of the step: ω_e, the cotangent of its charge, and v̄_e; returns what its charge adds to dC/dτ_s."""
    s, x, charge, zero = scheme.method.b.shape[0], memory.x, memory.charges[scheme.method.b.shape[0]], memory.x.dtype.type(0.0)
    for n in range(x.shape[0]):
        back.omega[s][n] = scheme.fast.gain[s, s] * costate.zeta[b, n]
    fill(back.released, zero)
    d_tau_slow = _released_back(network, scheme, want, costate, memory, back, sums, s, b)
    if len(c_count) > 0:
        for n in range(x.shape[0]):
            if charge[n] != zero:
                share = copysign(c_count[b, n], charge[n] * c_count[b, n])
                x[n] += share
                back.released[n] += share
    for n in range(x.shape[0]):
        back.end[n] = costate.lam_v[b, n] + back.density[s][n] * x[n]
    return d_tau_slow


@compiled(**PIECE)
def _start_stages_back(network, method, path, memory, back, sums, t, b):
    """Cotangents of the flows from that of v⁺, through the reset where there was one; those of the currents begin at zero."""
    weights, s, h, end, c = method.b, method.b.shape[0], network.h, back.end, network.constants
    copy(end, back.lam)
    for i in range(s):
        fill(back.amps[i], end.dtype.type(0.0))
        scale = h * weights[i]
        for n in range(end.shape[0]):
            back.bars[i][n] = scale * end[n]
    if network.membrane == LIF:
        combine(path.v[t, b], memory.flows, weights, s, h, back.moved)
        for n in range(end.shape[0]):
            if path.crossings[t, b, n] != 0:
                back.lam[n], d_rate, d_reset = reset_back(network, method, path.v[t, b, n], n, memory, back)
                sums.c0[n] -= d_rate * c[0, n] * c[0, n]
                sums.c1[n] += d_reset
    fill(back.w, end.dtype.type(0.0))


@compiled(**PIECE)
def _flow_back(network, memory, back, sums, i):
    """From the cotangent of a stage's flow to that of its voltage; what the flow adds to the gradients of the constants."""
    constants_back(
        network.membrane, memory.volts[i], memory.currents[i], network.constants, back.bars[i], back.by_current[i], sums.c0
    )
    for n in range(memory.x.shape[0]):
        back.bars[i][n] *= back.by_v[i][n]


@compiled(**PIECE)
def _to_earlier_stages(h, a, x, back, i):
    """Add to a stage's voltage what its charge brings, x, and hand the sum to the flows of the stages that it is made of."""
    for n in range(x.shape[0]):
        back.bars[i][n] += back.density[i][n] * x[n]
    for j in range(i):
        if a[i, j] != 0:
            scale = h * a[i, j]
            for n in range(x.shape[0]):
                back.bars[j][n] += scale * back.bars[i][n]


@compiled(**OPTIONS)
def _released_back(network, scheme, want, costate, memory, back, sums, row, b):
    """The cotangent x of ΔG of one row, where anything reads it, added to `released`; weight gradients of that charge.

    Returns:
        the part of dC/dτ_s that comes from this charge.
    """
    s, x, weight, index, zero = scheme.method.b.shape[0], memory.x, memory.weight, memory.active, memory.x.dtype.type(0.0)
    charge, density, omega, eta, w_out_t = (
        memory.charges[row],
        back.density[row],
        back.omega[row],
        costate.eta[b],
        network.w_out_t,
    )
    for n in range(x.shape[0]):
        x[n] = back.g0[n] + density[n] + abs(charge[n])
    count = select(x, index)
    fill(x, zero)
    dot_rows(network.w_rec_t, index, count, omega, weight)
    gain, share, d_share = scheme.slow.gain[s, row], zero, 0.0
    for k in range(count):
        n = index[k]
        share = zero
        for j in range(eta.shape[0]):
            share += w_out_t[n, j] * eta[j]
        x[n] = weight[k] + gain * share
        back.chosen[k] = charge[n]
        d_share += share * charge[n]
        weight[k] = gain * charge[n]
    if want.w_rec:
        add_to_rows(sums.w_rec_t, index, back.chosen, count, omega)
    if want.w_out:
        add_to_rows(sums.w_out_t, index, weight, count, eta)
    if want.reads_fast:
        for n in range(x.shape[0]):
            x[n] += scheme.fast.gain[s, row] * costate.fast[b, n]
    if want.reads_slow:
        for n in range(x.shape[0]):
            x[n] += gain * costate.slow[b, n]
    add(x, back.released)
    return d_share * scheme.d_slow.gain[s, row]


@compiled(**PIECE)
def _inputs_back(network, u, want, w, sums, t, b):
    """What the cotangent w of the input current adds to the gradients of bias, W_in and u."""
    add(w, sums.bias)
    if want.w_in:
        add_outer(u, w, sums.w_in_t)
    if want.u:
        for j in range(u.shape[0]):
            sums.u[t, b, j] = dot(network.w_in_t[j], w)


@compiled(**PIECE)
def _read(scheme, cotangents, want, costate, nothing, t, b):
    """Over the step with what a loss reads of the readout and of a_f and a_s themselves; then what it reads before the step."""
    s, one = scheme.method.b.shape[0], nothing.dtype.type(1.0)
    if want.reads_fast:
        decay(costate.fast[b], scheme.fast.keep[s], one, cotangents.a_fast[t, b] if len(cotangents.a_fast) > 0 else nothing)
    if want.reads_slow:
        decay(costate.slow[b], scheme.slow.keep[s], one, cotangents.a_slow[t, b] if len(cotangents.a_slow) > 0 else nothing)
    if len(cotangents.readout) > 0:
        decay(costate.eta[b], scheme.slow.keep[s], one, cotangents.readout[t, b])
    if len(cotangents.v) > 0:
        add(cotangents.v[t, b], costate.lam_v[b])


@compiled(**OPTIONS)
def reset_back(network, method, v, n, memory, back):
    """Cotangents through (1.15) and (1.16) of the cotangent back.end of v⁺: into bars and amps of neuron n.

    Returns:
        the cotangents of v, of 1/τ_m and of v_r.
    """
    a, b, c, along = method.a, method.b, method.c, method.along
    current, slopes, bars, d_flow, d_current = memory.currents, memory.slopes, back.reset_bars, back.bars, back.amps
    end, moved, h, rate = back.end[n], back.moved[n], network.h, network.constants[0, n]
    _, sigma, speed = after_reset(v, memory.flows, current, n, moved, network.constants, method, h, slopes)
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
        d_flow[i, n] = -d_sigma / speed * h * polynomial(method.dense[i], sigma)
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
    total = dot(cotangent, a) * d_filter.keep[row]
    for j in range(1, row + 1):
        total += dot(cotangent, released[j]) * d_filter.gain[row, j]
    return total
