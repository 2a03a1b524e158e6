"""The adjoint (4.5) with (4.6) of the fused Runge–Kutta loop; see `runge_kutta`."""

from math import copysign

import numpy as np

from adjsnn.gated.cpu.arguments import LIF, TOGETHER
from adjsnn.gated.cpu.membranes import constants_back, partials
from adjsnn.gated.cpu.runge_kutta import (
    after_reset,
    charge_of,
    combine,
    drives,
    polynomial,
    polynomial_slope,
    released_columns,
    stages,
)
from adjsnn.gated.cpu.vectors import (
    CALLED,
    LOOP,
    OPTIONS,
    PIECE,
    add,
    add_outer,
    add_outer_products,
    add_products,
    add_to_rows,
    combined,
    copy,
    decay,
    dot,
    dot_rows,
    fill,
    number,
    select,
    slope,
    zone,
)
from adjsnn.numerics.compiled import compiled


@compiled(**LOOP)
def backward(network, scheme, path, cotangents, want, costate, first, last, memory, back, sums):
    """The recursion (4.5) with (4.6) for samples first … last-1; arguments as in `euler_adjoint.backward`, and

    Args:
        scheme: RungeKutta.
        memory: StageMemory, for the stages, which are computed again.
        back: StageAdjointMemory.
    """
    d_tau_fast = d_tau_slow = 0.0
    n_hidden = network.w_rec_t.shape[0]
    tile = memory.x.shape[0] // n_hidden
    for t in range(len(path.current) - 1, -1, -1):
        for start in range(first, last, tile):
            stop = min(start + tile, last)
            for_fast, for_slow = _step_back(
                network, scheme, path, cotangents, want, costate, memory, back, sums, t, start, stop
            )
            d_tau_fast += for_fast
            d_tau_slow += for_slow
    sums.tau[0] += d_tau_fast
    sums.tau[1] += d_tau_slow


@compiled(**PIECE)
def _step_back(network, scheme, path, cotangents, want, costate, memory, back, sums, t, start, stop):
    """Step t of a tile. Returns what it adds to dC/dτ_f and dC/dτ_s."""
    s, fast, n_hidden = scheme.method.b.shape[0], scheme.fast, network.w_rec_t.shape[0]
    here, to = start * n_hidden, stop * n_hidden
    size = to - here
    zeta, lam_v, w, d_tau_fast = costate.zeta[here:to], costate.lam_v[here:to], back.w[:size], 0.0
    _again(network, scheme, path, memory, back, t, start, stop)
    d_tau_slow = _end_back(network, scheme, cotangents.charge, want, costate, memory, back, sums, start, stop)
    _start_stages_back(network, scheme.method, path, memory, back, sums, t, here, to)
    if want.tau_fast:
        charge, columns = memory.charges[s, :size], memory.columns[s, :size]
        released_columns(network.w_rec_t, charge, memory.active, memory.weight, columns)
        d_tau_fast += _filter_back(zeta, back.recurrent, memory.columns, scheme.d_fast, s)
    for i in range(s - 1, -1, -1):
        amps, bars, by_current = back.amps[i, :size], back.bars[i, :size], back.by_current[i, :size]
        for n in range(size):
            amps[n] += by_current[n] * bars[n]
        add(amps, w)
        if want.tau_fast and i > 0:
            d_tau_fast += _filter_back(amps, back.recurrent, memory.columns, scheme.d_fast, i)
        _flow_back(network, memory, back, sums, i, size)
        if i > 0:
            _scaled_from(zeta, back.amps, fast.gain, i, s, back.omega[i, :size])
            d_tau_slow += _released_back(network, scheme, want, costate, memory, back, sums, i, start, stop)
            _to_earlier_stages(network.h, scheme.method.a, memory.x[:size], back, i)
        add(bars, back.lam)
    for n in range(size):
        lam_v[n] = back.lam[n] - back.g0[n] * back.released[n]
    add(w, sums.bias)
    for b in range(start, stop):
        _inputs_back(network, path.u[t, b], want, w[(b - start) * n_hidden : (b - start + 1) * n_hidden], sums, t, b)
    decay(zeta, fast.keep[s], fast.keep[0], back.amps[0, :size])
    for i in range(1, s):
        decay(zeta, zeta.dtype.type(1.0), fast.keep[i], back.amps[i, :size])
    if want.tau_slow:
        for b in range(start, stop):
            d_tau_slow += dot(costate.eta[b], path.readout[t, b]) * scheme.d_slow.keep[s]
    if want.reads_fast:
        d_tau_fast += _filter_back(costate.fast[here:to], path.a_fast[t, here:to], memory.charges, scheme.d_fast, s)
    if want.reads_slow:
        d_tau_slow += _filter_back(costate.slow[here:to], path.a_slow[t, here:to], memory.charges, scheme.d_slow, s)
    _read(scheme, cotangents, want, costate, memory.x[:0], t, start, stop)
    return d_tau_fast, d_tau_slow


@compiled(**PIECE)
def _again(network, scheme, path, memory, back, t, start, stop):
    """The stages of step t of a tile once more, with g and the derivatives of f at each."""
    n_hidden, s = network.w_rec_t.shape[0], scheme.method.b.shape[0]
    here, to = start * n_hidden, stop * n_hidden
    v, after = path.v[t, here:to], path.v[t + 1, here:to]
    current, crossings, size = path.current[t, here:to], path.crossings[t, here:to], to - here
    drive, x, charge = memory.drive, memory.x[:size], memory.charges[s, :size]
    recurrent, level = back.recurrent[:size], back.level[:size]
    drives(network, path, t, start, stop, drive)
    copy(current, memory.currents[0])
    for n in range(size):
        recurrent[n] = current[n] - drive[n]
    charge_of(network, v, x, level)
    slope(network.gate, v, x, network.zone, network.two_sided, back.g0)
    stages(network, scheme, v, recurrent, level, memory)
    for i in range(1, s):
        volts = memory.volts[i, :size]
        zone(volts, network.zone, network.two_sided, x)
        slope(network.gate, volts, x, network.zone, network.two_sided, back.density[i])
    charge_of(network, after, x, charge)
    slope(network.gate, after, x, network.zone, network.two_sided, back.density[s])
    for n in range(size):
        charge[n] += crossings[n] - level[n]
    for i in range(s):
        volts, at = memory.volts[i, :size], memory.currents[i, :size]
        partials(network.membrane, volts, at, network.constants, back.by_current[i, :size], back.by_v[i, :size])


@compiled(**PIECE)
def _end_back(network, scheme, c_count, want, costate, memory, back, sums, start, stop):
    """The end of the step: ω_e, the cotangent of its charge, and v̄_e; returns what its charge adds to dC/dτ_s."""
    n_hidden, s = network.w_rec_t.shape[0], scheme.method.b.shape[0]
    here, to = start * n_hidden, stop * n_hidden
    size = to - here
    x, charge, zero, omega = memory.x[:size], memory.charges[s, :size], memory.x.dtype.type(0.0), back.omega[s, :size]
    zeta, lam_v, released, end, density = (
        costate.zeta[here:to],
        costate.lam_v[here:to],
        back.released[:size],
        back.end[:size],
        back.density[s, :size],
    )
    for n in range(size):
        omega[n] = scheme.fast.gain[s, s] * zeta[n]
    fill(released, zero)
    d_tau_slow = _released_back(network, scheme, want, costate, memory, back, sums, s, start, stop)
    if len(c_count) > 0:
        for n in range(size):
            if charge[n] != zero:
                share = copysign(c_count[here + n], charge[n] * c_count[here + n])
                x[n] += share
                released[n] += share
    for n in range(size):
        end[n] = lam_v[n] + density[n] * x[n]
    return d_tau_slow


@compiled(**PIECE)
def _start_stages_back(network, method, path, memory, back, sums, t, here, to):
    """Cotangents of the flows from that of v⁺, through the reset where there was one; those of the currents begin at zero."""
    size = to - here
    weights, s, h, end, c = method.b, method.b.shape[0], network.h, back.end[:size], network.constants
    copy(end, back.lam)
    for i in range(s):
        fill(back.amps[i, :size], end.dtype.type(0.0))
        scale, bars = h * weights[i], back.bars[i, :size]
        for n in range(size):
            bars[n] = scale * end[n]
    if network.membrane == LIF:
        combine(path.v[t, here:to], memory.flows, weights, s, h, back.moved[:size])
        for n in range(size):
            if path.crossings[t, here + n] != 0:
                back.lam[n], d_rate, d_reset = reset_back(network, method, path.v[t, here + n], n, memory, back)
                sums.c0[n] -= d_rate * c[0, n] * c[0, n]
                sums.c1[n] += d_reset
    fill(back.w[:size], end.dtype.type(0.0))


@compiled(**PIECE)
def _flow_back(network, memory, back, sums, i, size):
    """From the cotangent of a stage's flow to that of its voltage; what the flow adds to the gradients of the constants."""
    volts, current, bars, by_v = memory.volts[i, :size], memory.currents[i, :size], back.bars[i, :size], back.by_v[i, :size]
    constants_back(network.membrane, volts, current, network.constants, bars, back.by_current[i], sums.c0)
    for n in range(size):
        bars[n] *= by_v[n]


@compiled(**PIECE)
def _to_earlier_stages(h, a, x, back, i):
    """Add to a stage's voltage what its charge brings, x, and hand the sum to the flows of the stages that it is made of."""
    size = x.shape[0]
    bars, density = back.bars[i, :size], back.density[i, :size]
    for n in range(size):
        bars[n] += density[n] * x[n]
    for j in range(i):
        if a[i, j] != 0:
            scale, earlier = h * a[i, j], back.bars[j, :size]
            for n in range(size):
                earlier[n] += scale * bars[n]


@compiled(**OPTIONS)
def _released_back(network, scheme, want, costate, memory, back, sums, row, start, stop):
    """The cotangent x of ΔG of one row, where anything reads it, added to `released`; weight gradients of that charge.

    Returns:
        the part of dC/dτ_s that comes from this charge.
    """
    n_hidden, s = network.w_rec_t.shape[0], scheme.method.b.shape[0]
    here, size = start * n_hidden, (stop - start) * n_hidden
    x, charge, density, g0 = memory.x[:size], memory.charges[row, :size], back.density[row, :size], back.g0[:size]
    d_share, gain = 0.0, scheme.slow.gain[s, row]
    for n in range(size):
        x[n] = g0[n] + density[n] + abs(charge[n])
    at, together = 0, TOGETHER * n_hidden
    while at < size:
        b = start + at // n_hidden
        whole = (size - at >= together) & (2 * number(x[at : min(at + together, size)]) > together)
        end = at + (together if whole else n_hidden)
        omega = back.omega[row, at:end]
        if whole:
            eta = costate.eta[b : b + TOGETHER]
            d_share += _all_released(network, want, eta, omega, charge[at:end], gain, back, sums, x[at:end])
        else:
            d_share += _released_of(network, want, costate.eta[b], omega, charge[at:end], gain, memory, back, sums, x[at:end])
        at = end
    if want.reads_fast:
        for n in range(size):
            x[n] += scheme.fast.gain[s, row] * costate.fast[here + n]
    if want.reads_slow:
        for n in range(size):
            x[n] += gain * costate.slow[here + n]
    add(x, back.released)
    return d_share * scheme.d_slow.gain[s, row]


@compiled(**CALLED)
def _all_released(network, want, eta, omega, charge, gain, back, sums, x):
    """As `_released_of`, of TOGETHER samples most of whose neurons are marked: of all neurons, by the whole matrix."""
    n_hidden, d_share = network.w_rec_t.shape[0], 0.0
    fill(x, x.dtype.type(0.0))
    add_products(network.w_rec, omega, x)
    if want.w_rec:
        add_outer_products(charge, omega, sums.w_rec_t)
    share, weight = back.moved[:n_hidden], back.level[:n_hidden]  # free at this point of a step
    for b in range(TOGETHER):
        own, released = x[b * n_hidden : (b + 1) * n_hidden], charge[b * n_hidden : (b + 1) * n_hidden]
        combined(network.w_out, eta[b], share)
        for n in range(n_hidden):
            own[n] += gain * share[n]
            weight[n] = gain * released[n]
        d_share += dot(share, released)
        if want.w_out:
            add_outer(eta[b], weight, sums.w_out)
    return d_share


@compiled(**PIECE)
def _released_of(network, want, eta, omega, charge, gain, memory, back, sums, x):
    """Of one sample, for the neurons marked in x, which becomes the cotangent. Returns Σ of W_outᵀ η times the charge."""
    weight, index, w_out_t, zero, d_share = memory.weight, memory.active, network.w_out_t, x.dtype.type(0.0), 0.0
    count = select(x, index)
    fill(x, zero)
    dot_rows(network.w_rec_t, index, count, omega, weight)
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
    return d_share


@compiled(**PIECE)
def _inputs_back(network, u, want, w, sums, t, b):
    """What the cotangent w of a sample's input current adds to the gradients of W_in and u."""
    if want.w_in:
        add_outer(u, w, sums.w_in_t)
    if want.u:
        for j in range(u.shape[0]):
            sums.u[t, b, j] = dot(network.w_in_t[j], w)


@compiled(**PIECE)
def _read(scheme, cotangents, want, costate, nothing, t, start, stop):
    """Over the step with what a loss reads of the readout and of a_f and a_s themselves; then what it reads before the step."""
    s, one = scheme.method.b.shape[0], nothing.dtype.type(1.0)
    n_hidden = len(costate.lam_v) // len(costate.eta)
    here, to = start * n_hidden, stop * n_hidden
    if want.reads_fast:
        read = cotangents.a_fast[t, here:to] if len(cotangents.a_fast) > 0 else nothing
        decay(costate.fast[here:to], scheme.fast.keep[s], one, read)
    if want.reads_slow:
        read = cotangents.a_slow[t, here:to] if len(cotangents.a_slow) > 0 else nothing
        decay(costate.slow[here:to], scheme.slow.keep[s], one, read)
    if len(cotangents.readout) > 0:
        for b in range(start, stop):
            decay(costate.eta[b], scheme.slow.keep[s], one, cotangents.readout[t, b])
    if len(cotangents.v) > 0:
        add(cotangents.v[t, here:to], costate.lam_v[here:to])


@compiled(**LOOP)
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
