"""The adjoint (4.1) with (4.3) of the fused Euler loop, a tile of samples at a time; see `euler`."""

import numpy as np

from adjsnn.gated.cpu.arguments import LIF, QIF, TOGETHER
from adjsnn.gated.cpu.euler import add_input
from adjsnn.gated.cpu.membranes import reset_back, step_partials
from adjsnn.gated.cpu.vectors import (
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
    inside,
    integral,
    mirrored,
    number,
    scaled,
    select,
    slope,
    total,
    zone,
)
from adjsnn.numerics.compiled import compiled

PADDED = 32  # numbers in four vectors of AVX2 in float32, as many as loops over vectors take at a time


@compiled(**OPTIONS)
def backward(network, synapses, path, cotangents, want, costate, first, last, memory, sums):
    """The recursion (4.1) with (4.3), backward over the path's steps, for samples first … last-1.

    Args:
        network: Network; its constants and bias are repeated for each sample of a tile.
        synapses: Synapses.
        path: Path, as the forward loop left it.
        cotangents: Cotangents, the neurons of all samples in one row.
        want: Want.
        costate: Costate at the last row, likewise; on return at row 0.
        first: of the samples.
        last: one past the last of them.
        memory: EulerAdjointMemory.
        sums: Sums.
    """
    one, h, n_hidden = path.v.dtype.type(1.0), network.h, network.w_rec_t.shape[0]
    keep = (one - h / synapses.tau_fast, one - h / synapses.tau_slow)
    gain = (one / synapses.tau_fast, one / synapses.tau_slow)
    d_tau_fast = d_tau_slow = 0.0
    steps, tile = len(path.current), memory.m.shape[0] // n_hidden
    for start in range(first, last, tile):
        stop = min(start + tile, last)
        here, to = start * n_hidden, stop * n_hidden
        inside(path.v[steps, here:to], network.zone, network.two_sided, memory.marked[: to - here])
        for x in (memory.d_bias, memory.d_c0, memory.d_c1):
            fill(x, path.v.dtype.type(0.0))
        for row in memory.d_out:
            fill(row, path.v.dtype.type(0.0))
        for t in range(steps - 1, -1, -1):
            for_fast, for_slow = _released_back(network, gain, path, cotangents, want, costate, memory, sums, t, start, stop)
            d_tau_fast -= for_fast
            d_tau_slow -= for_slow
            if want.tau_fast | want.tau_slow:
                for_fast, for_slow = _tau_back(network, gain, path, want, costate, memory, t, start, stop)
                d_tau_fast += for_fast
                d_tau_slow += for_slow
            _back(network, keep[0], path, costate, memory, t, here, to)
            _inputs_back(network, path, want, memory, sums, t, start, stop)
            _read_back(keep, gain, cotangents, want, costate, t, start, stop, n_hidden)
        for b in range(stop - start):
            at, end = b * n_hidden, (b + 1) * n_hidden
            add(memory.d_bias[at:end], sums.bias)
            add(memory.d_c0[at:end], sums.c0)
            add(memory.d_c1[at:end], sums.c1)
        for c in range(memory.d_out.shape[0]):
            for n in range(n_hidden):
                sums.w_out_t[n, c] += memory.d_out[c, n]
    sums.tau[0] += d_tau_fast
    sums.tau[1] += d_tau_slow


@compiled(**PIECE)
def _released_back(network, gain, path, cotangents, want, costate, memory, sums, t, start, stop):
    """What one step of a tile needs of the neurons that release charge, or would, were they moved.

    Fills `to_now` and `to_after` with m g(v) and m g(v⁺) of (4.1), and adds to the gradients of W_rec and W_out.

    Returns:
        Σ λ_f q/τ_f² and Σ λ_s q/τ_s².
    """
    n_hidden = network.w_rec_t.shape[0]
    here, size = start * n_hidden, (stop - start) * n_hidden
    memory.size[0] = size
    v, crossings = path.v[t, here : here + size], path.crossings[t, here : here + size]
    m, marks, marked = memory.m[:size], memory.x[:size], memory.marked[:size]
    inside(v, network.zone, network.two_sided, marks)
    for n in range(size):  # in the zone before or after, or once through it
        m[n] = marks[n] + marked[n] + abs(crossings[n])
    copy(marks, marked)
    fill(memory.to_now[:size], v.dtype.type(0.0))
    fill(memory.to_after[:size], v.dtype.type(0.0))
    for_fast = for_slow = 0.0
    for done in range(0, size, TOGETHER * n_hidden):
        some = min(TOGETHER * n_hidden, size - done)
        if some == TOGETHER * n_hidden and 2 * number(m[done : done + some]) > some:
            fast, slow = _all_back(network, gain, path, cotangents, want, costate, memory, sums, t, here, done)
        else:
            fast, slow = _some_back(network, gain, path, cotangents, want, costate, memory, sums, t, here, done)
        for_fast += fast
        for_slow += slow
    return for_fast, for_slow


@compiled(**PIECE)
def _some_back(network, gain, path, cotangents, want, costate, memory, sums, t, here, done):
    """`_released_back` for up to TOGETHER samples, over the neurons that are marked in m."""
    n_hidden, active, ends, zero = network.w_rec_t.shape[0], memory.active, memory.ends, path.v.dtype.type(0.0)
    v0, v1, crossed, projected, slow = memory.v0, memory.v1, memory.crossed, memory.projected, memory.slow
    samples = min(TOGETHER, (memory.size[0] - done) // n_hidden)
    count = 0
    for b in range(samples):
        at, begin = here + done + b * n_hidden, count
        mine = active[begin:]
        found = select(memory.m[at - here : at - here + n_hidden], mine)
        for k in range(found):
            n = at + mine[k]
            v0[begin + k], v1[begin + k], crossed[begin + k] = path.v[t, n], path.v[t + 1, n], path.crossings[t, n]
        dot_rows(network.w_rec_t, mine, found, costate.zeta[at : at + n_hidden], projected[begin:])
        dot_rows(network.w_out_t, mine, found, costate.eta[at // n_hidden], slow[begin:])
        if want.reads_fast | want.reads_slow | (cotangents.charge.shape[0] > 0):
            for k in range(found):
                _asked(want, cotangents, costate, memory, begin + k, at + mine[k])
        count += found
        ends[b] = count
    filled = min((count + PADDED - 1) // PADDED * PADDED, v0.shape[0])  # neurons that do nothing, so that no loop has a rest
    for x in (v0, v1, crossed, projected, slow, memory.own, memory.counted):
        fill(x[count:filled], zero)
    totals = _charge_back(network, gain, cotangents, want, memory, filled)
    begin = 0
    for b in range(samples):
        at, end = here + done + b * n_hidden, ends[b]
        mine, found = active[begin:end], end - begin
        if want.w_rec:
            add_to_rows(sums.w_rec_t, mine, memory.q_fast[begin:end], found, costate.zeta[at : at + n_hidden])
        if want.w_out:
            add_to_rows(sums.w_out_t, mine, memory.q_slow[begin:end], found, costate.eta[at // n_hidden])
        for k in range(found):
            n = at - here + mine[k]
            memory.to_now[n], memory.to_after[n] = memory.g0[begin + k], memory.g1[begin + k]
        begin = end
    return totals


@compiled(**PIECE)
def _all_back(network, gain, path, cotangents, want, costate, memory, sums, t, here, done):
    """`_released_back` for the samples of TOGETHER, over all neurons."""
    n_hidden = network.w_rec_t.shape[0]
    at, size = here + done, TOGETHER * n_hidden
    zeta, projected, zero = costate.zeta[at : at + size], memory.projected[:size], path.v.dtype.type(0.0)
    copy(path.v[t, at : at + size], memory.v0)
    copy(path.v[t + 1, at : at + size], memory.v1)
    crossings, crossed = path.crossings[t, at : at + size], memory.crossed
    for n in range(size):
        crossed[n] = crossings[n]
    fill(projected, zero)
    add_products(network.w_rec, zeta, projected)
    for b in range(TOGETHER):
        combined(network.w_out, costate.eta[at // n_hidden + b], memory.slow[b * n_hidden : (b + 1) * n_hidden])
    if want.reads_fast | want.reads_slow | (cotangents.charge.shape[0] > 0):
        for n in range(size):
            _asked(want, cotangents, costate, memory, n, at + n)
    totals = _charge_back(network, gain, cotangents, want, memory, size)
    if want.w_rec:
        add_outer_products(memory.q_fast, zeta, sums.w_rec_t)
    if want.w_out:
        for b in range(TOGETHER):
            add_outer(costate.eta[at // n_hidden + b], memory.q_slow[b * n_hidden : (b + 1) * n_hidden], memory.d_out)
    copy(memory.g0[:size], memory.to_now[done : done + size])
    copy(memory.g1[:size], memory.to_after[done : done + size])
    return totals


@compiled(**PIECE)
def _asked(want, cotangents, costate, memory, k, n):
    """What a loss reads of neuron n itself, as the k-th of those chosen."""
    if want.reads_fast | want.reads_slow:
        own = memory.own.dtype.type(0.0)
        if want.reads_fast:
            own += costate.fast[n]
        if want.reads_slow:
            own += costate.slow[n]
        memory.own[k] = own
    if cotangents.charge.shape[0] > 0:
        memory.counted[k] = cotangents.charge[n]


@compiled(**PIECE)
def _charge_back(network, gain, cotangents, want, memory, count):
    """Of the chosen neurons: m g(v) into g0, m g(v⁺) into g1, their q/τ_f into q_fast and q/τ_s into q_slow."""
    g0, g1, m = memory.g0[:count], memory.g1[:count], memory.chosen[:count]
    projected, slow, crossed = memory.projected[:count], memory.slow[:count], memory.crossed[:count]
    q, level0, level1 = memory.q_slow[:count], memory.level0[:count], memory.level1[:count]
    _gate(network, memory.v0[:count], memory.x[:count], g0, level0)
    _gate(network, memory.v1[:count], memory.x[:count], g1, level1)
    for k in range(count):  # the numbers of `forward` again
        q[k] = level1[k] - level0[k] + crossed[k]
    for k in range(count):
        m[k] = gain[0] * projected[k] + gain[1] * slow[k]
    if want.reads_fast | want.reads_slow:
        add(memory.own[:count], m)
    if cotangents.charge.shape[0] > 0:
        counted = memory.counted
        for k in range(count):
            if q[k] != 0:
                m[k] += np.copysign(counted[k], q[k] * counted[k])
    for k in range(count):
        g0[k] *= m[k]
        g1[k] *= m[k]
    for_fast, for_slow = dot(projected, q) * gain[0] * gain[0], dot(slow, q) * gain[1] * gain[1]
    q_fast = memory.q_fast[:count]
    for k in range(count):
        q_fast[k] = gain[0] * q[k]
    scaled(gain[1], q)
    return for_fast, for_slow


@compiled(**OPTIONS)
def _gate(network, v, x, density, level):
    """g(v) and G(v)."""
    zone(v, network.zone, network.two_sided, x)
    slope(network.gate, v, x, network.zone, network.two_sided, density)
    integral(network.gate, x, level)
    if network.two_sided:
        mirrored(v, level)


@compiled(**PIECE)
def _back(network, keep, path, costate, memory, t, here, to):
    """(4.1) and the ζ of (4.3) for one step of a tile; w is left behind."""
    size = to - here
    v, current, c, h = path.v[t, here:to], path.current[t, here:to], network.constants, network.h
    to_now, to_after, mu, w = memory.to_now[:size], memory.to_after[:size], memory.mu[:size], memory.w[:size]
    push, pull, d_c0 = memory.push[:size], memory.pull[:size], memory.d_c0
    lam, zeta = costate.lam_v[here:to], costate.zeta[here:to]
    step_partials(network.membrane, v, current, c, h, push, pull)
    total(lam, to_after, mu)
    fill(w, v.dtype.type(0.0))
    if network.membrane == LIF:
        reset_back(v, current, c, h, path.crossings[t, here:to], w, mu, memory.d_c1)
        for n in range(size):
            d_c0[n] += mu[n] * push[n] * c[0, n] * (v[n] - current[n])
    elif network.membrane == QIF:
        for n in range(size):
            d_c0[n] -= (h + h - push[n]) * mu[n] * c[0, n] * c[0, n]
    for n in range(size):
        w[n] += push[n] * mu[n]
    for n in range(size):
        lam[n] = pull[n] * mu[n] - to_now[n]
    for n in range(size):
        zeta[n] = keep * zeta[n] + w[n]
    add(w, memory.d_bias)


@compiled(**PIECE)
def _inputs_back(network, path, want, memory, sums, t, start, stop):
    """Gradients of W_in and of the input, of w of one step of a tile."""
    n_hidden = network.w_rec_t.shape[0]
    for b in range(start, stop):
        w, u = memory.w[(b - start) * n_hidden : (b - start + 1) * n_hidden], path.u[t, b]
        if want.w_in:
            add_outer(u, w, sums.w_in_t)
        if want.u:
            for j in range(u.shape[0]):
                sums.u[t, b, j] = dot(network.w_in_t[j], w)


@compiled(**PIECE)
def _tau_back(network, gain, path, want, costate, memory, t, start, stop):
    """What the decay of one step of a tile adds to the gradients of τ_f and τ_s, and what a loss that reads a_f and a_s does."""
    n_hidden, h = network.w_rec_t.shape[0], network.h
    here, to = start * n_hidden, stop * n_hidden
    drive, for_fast, for_slow = memory.mu[: to - here], 0.0, 0.0
    if want.tau_fast:
        copy(network.bias[: to - here], drive)
        for b in range(start, stop):
            add_input(network.w_in_t, path.u[t, b], drive[(b - start) * n_hidden : (b - start + 1) * n_hidden])
        for_fast += _decayed(costate.zeta[here:to], path.current[t, here:to], drive) * h * gain[0] * gain[0]
    if want.tau_slow:
        for b in range(start, stop):
            for_slow += dot(costate.eta[b], path.readout[t, b]) * h * gain[1] * gain[1]
    if want.reads_fast:
        for_fast -= _change(costate.fast[here:to], path.a_fast[t, here:to], path.a_fast[t + 1, here:to])
    if want.reads_slow:
        for_slow -= _change(costate.slow[here:to], path.a_slow[t, here:to], path.a_slow[t + 1, here:to])
    return for_fast, for_slow


@compiled(**PIECE)
def _read_back(keep, gain, cotangents, want, costate, t, start, stop, n_hidden):
    """What the loss reads at the row before a step, and the decay of what it read later."""
    one, here, to = costate.lam_v.dtype.type(1.0), start * n_hidden, stop * n_hidden
    if len(cotangents.readout) > 0:
        for b in range(start, stop):
            decay(costate.eta[b], keep[1], one, cotangents.readout[t, b])
    if len(cotangents.v) > 0:
        add(cotangents.v[t, here:to], costate.lam_v[here:to])
    if want.reads_fast:
        scaled(keep[0], costate.fast[here:to])
        if len(cotangents.a_fast) > 0:
            decay(costate.fast[here:to], one, gain[0], cotangents.a_fast[t, here:to])
    if want.reads_slow:
        scaled(keep[1], costate.slow[here:to])
        if len(cotangents.a_slow) > 0:
            decay(costate.slow[here:to], one, gain[1], cotangents.a_slow[t, here:to])


@compiled(**OPTIONS)
def _decayed(z, current, drive):
    """ζ · J with J = I - W_in u - b."""
    whole = z.dtype.type(0.0)
    for n in range(z.shape[0]):
        whole += z[n] * (current[n] - drive[n])
    return whole


@compiled(**OPTIONS)
def _change(p, before, after):
    """p · (a⁺ - a)."""
    whole = p.dtype.type(0.0)
    for n in range(p.shape[0]):
        whole += p[n] * (after[n] - before[n])
    return whole
