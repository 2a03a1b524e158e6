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
from adjsnn.gated.cpu.products import dot_rows
from adjsnn.gated.cpu.vectors import LOOP, OPTIONS, PIECE, add_magnitudes, charges_of, copy, fill, total
from adjsnn.gated.limits import MOST_COUNTED, MOST_CROSSINGS
from adjsnn.numerics.compiled import compiled
from adjsnn.numerics.registers import added, lanes, load4, load_first, store, store_first, zeros, zeros4


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
            if network.membrane == LIF:
                _reset_at_threshold(network, scheme.method, v, after, memory)
            fine, low, high = _finish(network, scheme, path, recurrent, level, memory, t, here, to)
            add_magnitudes(memory.charges[len(weights), : to - here], carry.spent[here:to])
            for b in range(start, stop):
                a_slow = path.a_slow[t + 1, b * n_hidden : (b + 1) * n_hidden]
                dot_rows(network.w_out, channels, len(network.w_out), a_slow, path.readout[t + 1, b])
            lowest, highest = min(lowest, low), max(highest, high)
            if not fine:
                outcome.broken[0], outcome.broken[1] = t, start  # the tiles behind take the step, too: its row is read
        if outcome.broken[0] >= 0:
            return
    outcome.extremes[0], outcome.extremes[1] = min(outcome.extremes[0], lowest), max(outcome.extremes[1], highest)


@compiled(**OPTIONS)
def stages(network, scheme, v, recurrent, level, memory):
    """Stages of one step of a tile: fills volts, flows, currents, charges and columns; currents[0] and drive are given."""
    a, keep, gain, size = scheme.method.a, scheme.fast.keep, scheme.fast.gain, v.shape[0]
    flows, turns, drive, whole = memory.flows, memory.turns[:size], memory.drive[:size], memory.x[:size]
    copy(v, memory.volts[0])
    flow_of(network.membrane, v, memory.currents[0], network.constants, flows[0])
    if network.membrane == LIF:
        fill(turns, turns.dtype.type(0.0))
    for i in range(1, a.shape[0]):
        charge, volts, current = memory.charges[i, :size], memory.volts[i, :size], memory.currents[i, :size]
        combine(v, flows, a[i], i, network.h, volts)
        released(network, volts, level, turns, whole, charge)
        released_columns(network.w_rec_t, charge, memory.active, memory.weight, memory.columns[i, :size])
        scaled(drive, recurrent, keep[i], memory.columns, gain[i], 1, i + 1, current)
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
    charges, turns, slow, nothing = memory.charges, memory.turns[:size], scheme.slow, memory.turns[:0]
    whole = memory.x[:size]
    released(network, after, level, turns, whole, charges[s, :size])
    copy(whole, level)
    released_columns(network.w_rec_t, charges[s, :size], memory.active, memory.weight, memory.columns[s, :size])
    scaled(nothing, recurrent, keep[s], memory.columns, gain[s], 1, s + 1, recurrent)
    scaled(nothing, path.a_fast[t, here:to], keep[s], charges, gain[s], 1, s + 1, path.a_fast[t + 1, here:to])
    scaled(nothing, path.a_slow[t, here:to], slow.keep[s], charges, slow.gain[s], 1, s + 1, path.a_slow[t + 1, here:to])
    magnitude, lowest, highest = after.dtype.type(0.0), np.int8(0), np.int8(0)
    most, one, wrong = after.dtype.type(MOST_COUNTED), after.dtype.type(1.0), np.int32(0)
    for n in range(size):
        magnitude += abs(current[n]) + abs(after[n])  # not finite if any of them is not
    for n in range(size):
        crossings[n] = np.int8(min(max(turns[n], -most), most))
    for n in range(size):
        lowest, highest = min(lowest, crossings[n]), max(highest, crossings[n])
    for n in range(size):
        wrong += (turns[n] != 0) & (not (after[n] < one))
    fine = (magnitude < after.dtype.type(np.inf)) & (wrong == 0)
    return fine & (lowest >= -MOST_CROSSINGS) & (highest <= MOST_CROSSINGS), lowest, highest


@compiled(**PIECE)
def _reset_at_threshold(network, method, v, after, memory):
    """`after` of LIF neurons holds ṽ and becomes v⁺; turns the thresholds crossed."""
    flows, currents, turns, h = memory.flows, memory.currents, memory.turns[: v.shape[0]], network.h
    one = v.dtype.type(1.0)
    for n in range(v.shape[0]):
        turns[n] = one if after[n] >= one else one - one
    for n in range(v.shape[0]):
        if turns[n] != 0:
            after[n] = after_reset(v[n], flows, currents, n, after[n], network.constants, method, h, memory.slopes)[0]


@compiled(**OPTIONS)
def released_columns(w_rec_t, charge, index, weight, out):
    """Ω = W_rec ΔG of each sample, over the neurons that release charge, or by the whole matrix where most do."""
    fill(out, out.dtype.type(0.0))
    add_released(w_rec_t, charge, index, weight, out)


@compiled(**OPTIONS)
def combine(start, rows, weights, count, h, out):
    """out = start + h Σ weights[j] rows[j] over the first `count` j; what has no weight is not read."""
    length, wide, m = out.shape[0], lanes(out), 0
    while m + 4 * wide <= length:
        sums = load4(start, m)
        for j in range(count):
            if weights[j] != 0:
                sums = added(sums, h * weights[j], load4(rows[j], m))
        store(out, m, sums)
        m += 4 * wide
    while m < length:
        some = min(wide, length - m)
        rest = load_first(start, m, some)
        for j in range(count):
            if weights[j] != 0:
                rest = added(rest, h * weights[j], load_first(rows[j], m, some))
        store_first(out, m, some, rest)
        m += wide


@compiled(**OPTIONS)
def add_all(rows, count, out):
    """out += Σ rows[j] over the first `count` j."""
    length, wide, m = out.shape[0], lanes(out), 0
    while m < length:
        some = min(wide, length - m)
        total, one = load_first(out, m, some), out.dtype.type(1.0)
        for j in range(count):
            total = added(total, one, load_first(rows[j], m, some))
        store_first(out, m, some, total)
        m += wide


@compiled(**OPTIONS)
def scaled(drive, start, keep, rows, weights, first, count, out):
    """out = drive + keep start + Σ weights[j] rows[j] over first ≤ j < count; an empty drive is zero."""
    length, wide, driven, m = out.shape[0], lanes(out), drive.shape[0] > 0, 0
    while m + 4 * wide <= length:
        sums = load4(drive, m) if driven else zeros4(out)
        sums = added(sums, keep, load4(start, m))
        for j in range(first, count):
            sums = added(sums, weights[j], load4(rows[j], m))
        store(out, m, sums)
        m += 4 * wide
    while m < length:
        some = min(wide, length - m)
        rest = load_first(drive, m, some) if driven else zeros(out)
        rest = added(rest, keep, load_first(start, m, some))
        for j in range(first, count):
            rest = added(rest, weights[j], load_first(rows[j], m, some))
        store_first(out, m, some, rest)
        m += wide


@compiled(**OPTIONS)
def released(network, v, level, turns, whole, charge):
    """Takes whole turns off v, except where the reset is no translation; G(v), and the charge since G was `level`.

    Args:
        network: Network.
        v: voltages.
        level: G at the beginning of the step.
        turns: whole turns, written; of LIF given, the thresholds crossed.
        whole: written, G(v).
        charge: written, G(v) + turns - level.
    """
    if network.membrane != LIF:
        for n in range(v.shape[0]):
            crossed = np.trunc(v[n])
            v[n] -= crossed
            turns[n] = crossed
    charges_of(network, v, whole)
    for n in range(v.shape[0]):
        charge[n] = whole[n] + turns[n] - level[n]


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
