"""The adjoint (4.5) with (4.6) of the fused Runge–Kutta loop; see `runge_kutta`."""

from math import copysign

import numpy as np

from adjsnn.gated.cpu.arguments import FEW_CHANNELS, LIF, TOGETHER, WHOLE
from adjsnn.gated.cpu.membranes import constants_back, partials
from adjsnn.gated.cpu.products import (
    add_outer_later,
    add_pending,
    add_products,
    add_to_rows,
    add_to_rows_of,
    dot_rows,
    whole_pays,
)
from adjsnn.gated.cpu.runge_kutta import (
    add_all,
    after_reset,
    combine,
    drives,
    polynomial,
    polynomial_slope,
    released_columns,
    scaled,
    stages,
)
from adjsnn.gated.cpu.vectors import (
    LOOP,
    OPTIONS,
    PIECE,
    add,
    add_outer,
    charges_of,
    combined,
    copy,
    decay,
    densities_of,
    dot,
    fill,
    select,
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
    add_pending(back.pending, sums.w_rec_t)
    sums.tau[0] += d_tau_fast
    sums.tau[1] += d_tau_slow


@compiled(**PIECE)
def _step_back(network, scheme, path, cotangents, want, costate, memory, back, sums, t, start, stop):
    """Step t of a tile. Returns what it adds to dC/dτ_f and dC/dτ_s."""
    s, fast, n_hidden = scheme.method.b.shape[0], scheme.fast, network.w_rec_t.shape[0]
    here, to = start * n_hidden, stop * n_hidden
    size = to - here
    zeta, lam_v, w, nothing, d_tau_fast = costate.zeta[here:to], costate.lam_v[here:to], back.w[:size], back.w[:0], 0.0
    _again(network, scheme, path, memory, back, t, start, stop)
    _chosen(network, costate, memory, back, s, start, stop)
    _end_back(network, scheme, cotangents.charge, want, costate, memory, back, here, to)
    _start_stages_back(network, scheme.method, path, memory, back, sums, t, here, to)
    if want.tau_fast:
        charge, columns = memory.charges[s, :size], memory.columns[s, :size]
        released_columns(network.w_rec_t, charge, memory.active, memory.weight, columns)
        d_tau_fast += _filter_back(zeta, back.recurrent, memory.columns, scheme.d_fast, s)
    for i in range(s - 1, -1, -1):
        amps, bars, by_current = back.amps[i, :size], back.bars[i, :size], back.by_current[i, :size]
        for n in range(size):
            amps[n] += by_current[n] * bars[n]
        if want.tau_fast and i > 0:
            d_tau_fast += _filter_back(amps, back.recurrent, memory.columns, scheme.d_fast, i)
        _flow_back(network, memory, back, sums, i, size)
        if i > 0:
            scaled(nothing, zeta, fast.gain[s, i], back.amps, fast.gain[:, i], i, s, back.omega[i, :size])
            _charge_back(network, scheme, want, costate, memory, back, i, here, to)
            _to_earlier_stages(network.h, scheme.method.a, memory.x[:size], back, i)
    d_tau_slow = _weights_back(network, scheme, want, costate, memory, back, sums, start, stop)
    copy(back.lam[:size], lam_v)
    add_all(back.bars, s, lam_v)
    density = back.density[0]
    for n in range(size):
        lam_v[n] -= density[n] * back.released[n]
    fill(w, w.dtype.type(0.0))
    add_all(back.amps, s, w)
    add(w, sums.bias)
    for b in range(start, stop):
        _inputs_back(network, path.u[t, b], want, w[(b - start) * n_hidden : (b - start + 1) * n_hidden], sums, t, b)
    scaled(nothing, zeta, fast.keep[s], back.amps, fast.keep, 0, s, zeta)
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
    v, after, size = path.v[t, here:to], path.v[t + 1, here:to], to - here
    current, crossings, density = path.current[t, here:to], path.crossings[t, here:to], back.density[s, :size]
    recurrent, level, charge, drive = back.recurrent[:size], back.level[:size], memory.charges[s, :size], memory.drive
    drives(network, path, t, start, stop, drive)
    copy(current, memory.currents[0])
    for n in range(size):
        recurrent[n] = current[n] - drive[n]
    charges_of(network, v, level)
    stages(network, scheme, v, recurrent, level, memory)
    charges_of(network, after, charge)
    for n in range(size):
        charge[n] += crossings[n] - level[n]
    densities_of(network, after, density)
    for i in range(s):
        volts, at = memory.volts[i, :size], memory.currents[i]
        densities_of(network, volts, back.density[i])
        partials(network.membrane, volts, at, network.constants, back.by_current[i], back.by_v[i])


@compiled(**PIECE)
def _chosen(network, costate, memory, back, s, start, stop):
    """The neurons of a tile whose charge matters in a step, those in the zone at any stage or through it, and W_outᵀ η."""
    n_hidden, size, marks = network.w_rec_t.shape[0], (stop - start) * network.w_rec_t.shape[0], memory.x
    copy(back.density[0, :size], marks)
    add_all(back.density[1:], s, marks[:size])
    for i in range(1, s + 1):
        charge = memory.charges[i, :size]
        for n in range(size):
            marks[n] += abs(charge[n])
    together, whole = TOGETHER * n_hidden, False
    for b in range(stop - start):
        at = b * n_hidden
        combined(network.w_out, costate.eta[start + b], back.share[at : at + n_hidden])
        if b % TOGETHER == 0:
            whole = (size - at >= together) & whole_pays(marks[at : min(at + together, size)])
        back.chosen[b] = WHOLE if whole else select(marks[at : at + n_hidden], back.active[at:])


@compiled(**PIECE)
def _end_back(network, scheme, c_count, want, costate, memory, back, here, to):
    """The end of the step: ω_e, the cotangent of its charge, and v̄_e."""
    s, size = scheme.method.b.shape[0], to - here
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
    _charge_back(network, scheme, want, costate, memory, back, s, here, to)
    if len(c_count) > 0:
        for n in range(size):
            if charge[n] != zero:
                share = copysign(c_count[here + n], charge[n] * c_count[here + n])
                x[n] += share
                released[n] += share
    for n in range(size):
        end[n] = lam_v[n] + density[n] * x[n]


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
def _charge_back(network, scheme, want, costate, memory, back, row, here, to):
    """The cotangent x of ΔG of one row, where anything reads it, added to `released`."""
    n_hidden, s, size = network.w_rec_t.shape[0], scheme.method.b.shape[0], to - here
    x, share, omega, weight = memory.x[:size], back.share, back.omega[row, :size], memory.weight
    gain = scheme.slow.gain[s, row]
    for n in range(size):
        x[n] = gain * share[n]
    for b in range(size // n_hidden):
        at, count = b * n_hidden, back.chosen[b]
        if count == WHOLE:
            if b % TOGETHER == 0:
                add_products(network.w_rec, omega, at, 1, n_hidden, x[at : at + TOGETHER * n_hidden])
            continue
        index, own = back.active[at : at + count], x[at : at + n_hidden]
        dot_rows(network.w_rec_t, index, count, omega[at : at + n_hidden], weight)
        for k in range(count):
            own[index[k]] += weight[k]
    if want.reads_fast:
        for n in range(size):
            x[n] += scheme.fast.gain[s, row] * costate.fast[here + n]
    if want.reads_slow:
        for n in range(size):
            x[n] += gain * costate.slow[here + n]
    add(x, back.released)


@compiled(**PIECE)
def _weights_back(network, scheme, want, costate, memory, back, sums, start, stop):
    """What the charges of all rows of a step add to the gradients of W_rec and W_out. Returns what they add to dC/dτ_s."""
    n_hidden, s, channels, d_tau_slow = network.w_rec_t.shape[0], scheme.method.b.shape[0], len(network.w_out), 0.0
    size, gain = (stop - start) * n_hidden, scheme.slow.gain[s]
    if want.tau_slow:
        for i in range(1, s + 1):
            d_tau_slow += dot(memory.charges[i, :size], back.share) * scheme.d_slow.gain[s, i]
    slow, weight = memory.x[:size], memory.weight
    scaled(slow[:0], memory.charges[1], gain[1], memory.charges, gain, 2, s + 1, slow)
    for b in range(stop - start):
        at, count, eta = b * n_hidden, back.chosen[b], costate.eta[start + b]
        index, own = back.active[at : at + n_hidden], slow[at : at + n_hidden]
        if want.w_out and (channels <= FEW_CHANNELS or count == WHOLE):
            add_outer(eta, own, sums.w_out)
        elif want.w_out:
            for k in range(count):
                weight[k] = own[index[k]]
            add_to_rows(sums.w_out_t, index, weight, count, eta)
        if want.w_rec and count != WHOLE:
            add_to_rows_of(sums.w_rec_t, index, count, memory.charges, back.omega, s, at)
        elif want.w_rec and b % TOGETHER == 0:
            together = at + TOGETHER * n_hidden
            for i in range(1, s + 1):
                add_outer_later(memory.charges[i, at:together], back.omega[i, at:together], back.pending, sums.w_rec_t)
    return d_tau_slow


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
def _filter_back(cotangent, a, released, d_filter, row):
    """dC/dτ through α and C/τ of one row: cotangent · (α′ a + Σ_j (C/τ)′ released_j)."""
    total = dot(cotangent, a) * d_filter.keep[row]
    for j in range(1, row + 1):
        total += dot(cotangent, released[j]) * d_filter.gain[row, j]
    return total
