"""The Runge–Kutta program (1.14)-(1.16) of gated networks and its adjoint (4.5) as fused loops for the CPU: here the
steps forward.

As in `euler`, the recurrent current J = W_rec a_f is a filter of its own. With Ω_j = W_rec ΔG_j, few columns of W_rec,

    J_i = α_i J + Σ_{j≤i} C_ij Ω_j/τ_f                                                                         (4.6)

at the stages i and at the end of the step. Backward, with ω_j = Σ_{i≥j} C_ij dC/dJ_i/τ_f, the cotangent of ΔG_j is
W_recᵀ ω_j + C_ej W_outᵀ η/τ_s, needed only in the active zone, and dW_rec = Σ ω_j ΔG_jᵀ. Stages are computed again on the way
back.
"""

import numpy as np

from adjsnn.gated.cpu.arguments import LIF
from adjsnn.gated.cpu.euler import add_input, add_released
from adjsnn.gated.cpu.membranes import flow_of
from adjsnn.gated.cpu.vectors import (
    LOOP,
    OPTIONS,
    PIECE,
    add,
    copy,
    dot_rows,
    fill,
    integral,
    mirrored,
    total,
    zone,
)
from adjsnn.gated.limits import MOST_COUNTED, MOST_CROSSINGS
from adjsnn.numerics.compiled import compiled


@compiled(**LOOP)
def forward(network, scheme, path, carry, first, last, memory, channels, outcome):
    """Steps for samples first … last-1; arguments as in `euler.forward`, and

    Args:
        scheme: RungeKutta.
        memory: StageMemory.
    """
    s, weights, n_hidden = scheme.method.b.shape[0], scheme.method.b, network.w_rec_t.shape[0]
    lowest, highest, tile = np.int8(0), np.int8(0), memory.x.shape[0] // n_hidden
    for t in range(len(path.current)):
        for start in range(first, last, tile):
            stop = min(start + tile, last)
            here, to = start * n_hidden, stop * n_hidden
            v, after, current = path.v[t, here:to], path.v[t + 1, here:to], path.current[t, here:to]
            recurrent, level = carry.recurrent[here:to], carry.level[here:to]
            drives(network, path, t, start, stop, memory.drive)
            total(recurrent, memory.drive, current)
            copy(current, memory.currents[0])
            stages(network, scheme, v, recurrent, level, memory)
            combine(v, memory.flows, weights, s, network.h, after)
            _reset(network, scheme.method, v, after, memory)
            fine, low, high = _finish(network, scheme, path, recurrent, level, memory, t, here, to)
            for b in range(start, stop):
                a_slow = path.a_slow[t + 1, b * n_hidden : (b + 1) * n_hidden]
                dot_rows(network.w_out, channels, len(network.w_out), a_slow, path.readout[t + 1, b])
            lowest, highest = min(lowest, low), max(highest, high)
            if not fine:
                outcome.broken[0], outcome.broken[1] = t, start
                return
    outcome.extremes[0], outcome.extremes[1] = min(outcome.extremes[0], lowest), max(outcome.extremes[1], highest)


@compiled(**OPTIONS)
def stages(network, scheme, v, recurrent, level, memory):
    """Stages of one step of a tile: fills volts, flows, currents, charges and columns; currents[0] and drive are given."""
    a, keep, gain, size = scheme.method.a, scheme.fast.keep, scheme.fast.gain, v.shape[0]
    flows, turns, drive = memory.flows, memory.turns[:size], memory.drive[:size]
    copy(v, memory.volts[0])
    flow_of(network.membrane, v, memory.currents[0], network.constants, flows[0])
    for i in range(1, a.shape[0]):
        charge, volts, current = memory.charges[i, :size], memory.volts[i, :size], memory.currents[i, :size]
        combine(v, flows, a[i], i, network.h, volts)
        _unwrap(network.membrane, volts, turns)
        charge_of(network, volts, memory.x, charge)
        for n in range(size):
            charge[n] += turns[n] - level[n]
        released_columns(network.w_rec_t, charge, memory.active, memory.weight, memory.columns[i, :size])
        scaled(recurrent, keep[i], memory.columns, gain[i], i + 1, current)
        add(drive, current)
        flow_of(network.membrane, volts, current, network.constants, flows[i])


@compiled(**PIECE)
def drives(network, path, t, start, stop, drive):
    """W_in u + b of a tile."""
    n_hidden = network.w_rec_t.shape[0]
    copy(network.bias[: (stop - start) * n_hidden], drive)
    for b in range(start, stop):
        add_input(network.w_in_t, path.u[t, b], drive[(b - start) * n_hidden : (b - start + 1) * n_hidden])


@compiled(**PIECE)
def _finish(network, scheme, path, recurrent, level, memory, t, here, to):
    """Charge, synapses and recurrent current at the end of a step. Returns as `euler._step`."""
    s, keep, gain, size = scheme.method.b.shape[0], scheme.fast.keep, scheme.fast.gain, to - here
    after, current, crossings = path.v[t + 1, here:to], path.current[t, here:to], path.crossings[t, here:to]
    charges, turns, whole = memory.charges, memory.turns[:size], memory.drive[:size]  # of the drive nothing is needed any more
    charge_of(network, after, memory.x, whole)
    for n in range(size):
        charges[s, n] = whole[n] + turns[n] - level[n]
    copy(whole, level)
    released_columns(network.w_rec_t, charges[s, :size], memory.active, memory.weight, memory.columns[s, :size])
    scaled(recurrent, keep[s], memory.columns, gain[s], s + 1, whole)
    copy(whole, recurrent)
    scaled(path.a_fast[t, here:to], keep[s], charges, gain[s], s + 1, path.a_fast[t + 1, here:to])
    slow = scheme.slow
    scaled(path.a_slow[t, here:to], slow.keep[s], charges, slow.gain[s], s + 1, path.a_slow[t + 1, here:to])
    magnitude, lowest, highest = after.dtype.type(0.0), np.int8(0), np.int8(0)
    most = after.dtype.type(MOST_COUNTED)
    for n in range(after.shape[0]):
        magnitude += abs(current[n]) + abs(after[n])  # not finite if any of them is not
    for n in range(after.shape[0]):
        crossings[n] = np.int8(min(max(turns[n], -most), most))
    fine, wrong = magnitude < after.dtype.type(np.inf), np.int32(0)
    for n in range(size):
        lowest, highest = min(lowest, crossings[n]), max(highest, crossings[n])
    for n in range(size):
        wrong += (turns[n] != 0) & (not (after[n] < after.dtype.type(1.0)))
    fine &= (wrong == 0) & (lowest >= -MOST_CROSSINGS) & (highest <= MOST_CROSSINGS)
    return fine, lowest, highest


@compiled(**PIECE)
def _reset(network, method, v, after, memory):
    """`after` holds ṽ and becomes v⁺; turns the signed number of thresholds crossed."""
    flows, currents, turns, h = memory.flows, memory.currents, memory.turns[: v.shape[0]], network.h
    if network.membrane == LIF:
        one = v.dtype.type(1.0)
        for n in range(v.shape[0]):
            turns[n] = one if after[n] >= one else one - one
        for n in range(v.shape[0]):
            if turns[n] != 0:
                after[n] = after_reset(v[n], flows, currents, n, after[n], network.constants, method, h, memory.slopes)[0]
    else:
        _unwrap(network.membrane, after, turns)


@compiled(**OPTIONS)
def released_columns(w_rec_t, charge, index, weight, out):
    """Ω = W_rec ΔG of each sample, over the neurons that release charge, or by the whole matrix where most do."""
    fill(out, out.dtype.type(0.0))
    add_released(w_rec_t, charge, index, weight, out)


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
def charge_of(network, v, x, charge):
    """Zone coordinate x and G(v); of x, which may be longer, only where there are neurons."""
    there = x[: v.shape[0]]
    zone(v, network.zone, network.two_sided, there)
    integral(network.gate, there, charge)
    if network.two_sided:
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


@compiled(**LOOP)
def after_reset(v, flow, current, n, moved, constants, method, h, slopes):
    """v⁺ of a LIF neuron by (1.16); slopes are left in the scratch vector, σ is returned too."""
    a, b, c, along, rate, v_reset = method.a, method.b, method.c, method.along, constants[0, n], constants[1, n]
    sigma, speed = _crossing(v, flow, n, moved, method.dense, h)
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
