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
from adjsnn.gated.cpu.membranes import flow_of
from adjsnn.gated.cpu.vectors import (
    OPTIONS,
    PIECE,
    add,
    add_drive,
    add_rows,
    copy,
    dot_rows,
    fill,
    integral,
    mirrored,
    select,
    zone,
)
from adjsnn.gated.limits import MOST_COUNTED, MOST_CROSSINGS
from adjsnn.numerics.compiled import compiled


@compiled(**OPTIONS)
def forward(network, scheme, path, carry, first, last, memory, channels, outcome):
    """Steps for samples first … last-1; arguments as in `euler.forward`, and

    Args:
        scheme: RungeKutta.
        memory: StageMemory.
    """
    s, weights = scheme.method.b.shape[0], scheme.method.b
    lowest, highest = np.int8(0), np.int8(0)
    for t in range(len(path.current)):
        for b in range(first, last):
            v, after, recurrent, level = path.v[t, b], path.v[t + 1, b], carry.recurrent[b], carry.level[b]
            fill(memory.drive, v.dtype.type(0.0))
            add_drive(network.w_in_t, network.bias, path.u[t, b], memory.drive)
            copy(recurrent, memory.currents[0])
            add(memory.drive, memory.currents[0])
            copy(memory.currents[0], path.current[t, b])
            stages(network, scheme, v, recurrent, level, memory)
            combine(v, memory.flows, weights, s, network.h, after)
            _reset(network, scheme.method, v, after, memory)
            fine, low, high = _finish(network, scheme, path, recurrent, level, memory, t, b)
            dot_rows(network.w_out, channels, len(network.w_out), path.a_slow[t + 1, b], path.readout[t + 1, b])
            lowest, highest = min(lowest, low), max(highest, high)
            if not fine:
                outcome.broken[0], outcome.broken[1] = t, b
                return
    outcome.extremes[0], outcome.extremes[1] = min(outcome.extremes[0], lowest), max(outcome.extremes[1], highest)


@compiled(**OPTIONS)
def stages(network, scheme, v, recurrent, level, memory):
    """Stages of one step of one sample: fills volts, flows, currents, charges and columns; currents[0] and drive are given."""
    a, keep, gain = scheme.method.a, scheme.fast.keep, scheme.fast.gain
    volts, flows, currents, turns = memory.volts, memory.flows, memory.currents, memory.turns
    copy(v, volts[0])
    flow_of(network.membrane, volts[0], currents[0], network.constants, flows[0])
    for i in range(1, a.shape[0]):
        charge = memory.charges[i]
        combine(v, flows, a[i], i, network.h, volts[i])
        _unwrap(network.membrane, volts[i], turns)
        charge_of(network, volts[i], memory.x, charge)
        for n in range(v.shape[0]):
            charge[n] += turns[n] - level[n]
        released_columns(network.w_rec_t, charge, memory.active, memory.weight, memory.columns[i])
        scaled(recurrent, keep[i], memory.columns, gain[i], i + 1, currents[i])
        add(memory.drive, currents[i])
        flow_of(network.membrane, volts[i], currents[i], network.constants, flows[i])


@compiled(**PIECE)
def _finish(network, scheme, path, recurrent, level, memory, t, b):
    """Charge, synapses and recurrent current at the end of a step. Returns as `euler._step`."""
    s, keep, gain = scheme.method.b.shape[0], scheme.fast.keep, scheme.fast.gain
    after, current, crossings = path.v[t + 1, b], path.current[t, b], path.crossings[t, b]
    charges, turns, total = memory.charges, memory.turns, memory.drive  # of the drive nothing is needed any more
    charge_of(network, after, memory.x, total)
    for n in range(after.shape[0]):
        charges[s][n] = total[n] + turns[n] - level[n]
    copy(total, level)
    released_columns(network.w_rec_t, charges[s], memory.active, memory.weight, memory.columns[s])
    scaled(recurrent, keep[s], memory.columns, gain[s], s + 1, total)
    copy(total, recurrent)
    scaled(path.a_fast[t, b], keep[s], charges, gain[s], s + 1, path.a_fast[t + 1, b])
    scaled(path.a_slow[t, b], scheme.slow.keep[s], charges, scheme.slow.gain[s], s + 1, path.a_slow[t + 1, b])
    magnitude, lowest, highest = after.dtype.type(0.0), np.int8(0), np.int8(0)
    most = after.dtype.type(MOST_COUNTED)
    for n in range(after.shape[0]):
        magnitude += abs(current[n]) + abs(after[n])  # not finite if any of them is not
    for n in range(after.shape[0]):
        crossings[n] = np.int8(min(max(turns[n], -most), most))
    count = select(turns, memory.active)
    fine = magnitude < after.dtype.type(np.inf)
    for k in range(count):
        n = memory.active[k]
        fine &= (abs(turns[n]) <= MOST_CROSSINGS) & (after[n] < after.dtype.type(1.0))
        lowest, highest = min(lowest, crossings[n]), max(highest, crossings[n])
    return fine, lowest, highest


@compiled(**PIECE)
def _reset(network, method, v, after, memory):
    """`after` holds ṽ and becomes v⁺; turns the signed number of thresholds crossed."""
    flows, currents, turns, h = memory.flows, memory.currents, memory.turns, network.h
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
def charge_of(network, v, x, charge):
    """Zone coordinate x and G(v)."""
    zone(v, network.zone, network.two_sided, x)
    integral(network.gate, x, charge)
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


@compiled(**OPTIONS)
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
