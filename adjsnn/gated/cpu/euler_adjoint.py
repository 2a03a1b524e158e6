"""The adjoint (4.1) with (4.3) of the fused Euler loop; see `euler`."""

import numpy as np

from adjsnn.gated.cpu.arguments import LIF, QIF
from adjsnn.gated.cpu.membranes import reset_back, step_partials
from adjsnn.gated.cpu.vectors import (
    OPTIONS,
    PIECE,
    add,
    add_drive,
    add_outer,
    add_to_rows,
    decay,
    dot,
    dot_rows,
    fill,
    integral,
    select,
    slope,
    zone,
)
from adjsnn.numerics.compiled import compiled


@compiled(**OPTIONS)
def backward(network, synapses, path, cotangents, want, costate, first, last, memory, sums):
    """The recursion (4.1) with (4.3), backward over the path's steps, for samples first … last-1.

    Args:
        network: Network; its w_out is the transpose.
        synapses: Synapses.
        path: Path, as the forward loop left it.
        cotangents: Cotangents.
        want: Want.
        costate: Costate at the last row; on return at row 0.
        first: of the samples.
        last: one past the last of them.
        memory: EulerAdjointMemory.
        sums: Sums.
    """
    one, h = path.v.dtype.type(1.0), network.h
    keep = (one - h / synapses.tau_fast, one - h / synapses.tau_slow)
    gain = (one / synapses.tau_fast, one / synapses.tau_slow)
    d_tau_fast = d_tau_slow = 0.0
    for t in range(len(path.current) - 1, -1, -1):
        for b in range(first, last):
            u, zeta, eta = path.u[t, b], costate.zeta[b], costate.eta[b]
            count, for_fast, for_slow = _active(network, gain, path, cotangents.charge, costate, memory, t, b)
            d_tau_fast -= for_fast
            d_tau_slow -= for_slow
            if want.w_rec:
                add_to_rows(sums.w_rec_t, memory.active, memory.q_fast, count, zeta)
            if want.w_out:
                add_to_rows(sums.w_out_t, memory.active, memory.q_slow, count, eta)
            if want.tau_fast:
                fill(memory.drive, 0)
                add_drive(network.w_in_t, network.bias, u, memory.drive)
                d_tau_fast += _decayed(zeta, path.current[t, b], memory.drive) * h * gain[0] * gain[0]
            if want.tau_slow:
                d_tau_slow += dot(eta, path.readout[t, b]) * h * gain[1] * gain[1]
            if want.reads_fast:
                add(costate.fast[b], memory.m)
                d_tau_fast -= _change(costate.fast[b], path.a_fast[t, b], path.a_fast[t + 1, b])
            if want.reads_slow:
                add(costate.slow[b], memory.m)
                d_tau_slow -= _change(costate.slow[b], path.a_slow[t, b], path.a_slow[t + 1, b])
            _back(network, keep[0], path, costate, memory, sums, t, b)
            if want.w_in:
                add_outer(u, memory.w, sums.w_in_t)
            if want.u:
                for j in range(u.shape[0]):
                    sums.u[t, b, j] = dot(network.w_in_t[j], memory.w)
            # What the loss reads at the row before the step, and the decay of what it read later.
            nothing = memory.drive[:0]
            if len(cotangents.readout) > 0:
                decay(eta, keep[1], one, cotangents.readout[t, b])
            if len(cotangents.v) > 0:
                add(cotangents.v[t, b], costate.lam_v[b])
            if want.reads_fast:
                decay(costate.fast[b], keep[0], gain[0], cotangents.a_fast[t, b] if len(cotangents.a_fast) > 0 else nothing)
            if want.reads_slow:
                decay(costate.slow[b], keep[1], gain[1], cotangents.a_slow[t, b] if len(cotangents.a_slow) > 0 else nothing)
    sums.tau[0] += d_tau_fast
    sums.tau[1] += d_tau_slow


@compiled(**PIECE)
def _active(network, gain, path, c_count, costate, memory, t, b):
    """What one step of one sample needs of the neurons that release charge, or would, were they moved.

    Fills x0, x1, g0, g1 and m of (4.1), `active` with the neurons, q_fast and q_slow with their q/τ.

    Returns:
        their number, Σ λ_f q/τ_f² and Σ λ_s q/τ_s².
    """
    v, v_after, crossings = path.v[t, b], path.v[t + 1, b], path.crossings[t, b]
    x0, x1, g0, g1, m = memory.x0, memory.x1, memory.g0, memory.g1, memory.m
    projected, q_fast, q_slow, w_out_t, eta = memory.projected, memory.q_fast, memory.q_slow, network.w_out, costate.eta[b]
    one, zero = v.dtype.type(1.0), v.dtype.type(0.0)
    zone(v, network.zone, network.two_sided, x0)
    zone(v_after, network.zone, network.two_sided, x1)
    slope(network.gate, v, x0, network.zone, network.two_sided, g0)
    slope(network.gate, v_after, x1, network.zone, network.two_sided, g1)
    for n in range(v.shape[0]):  # in the zone before or after, or once through it
        m[n] = g0[n] + g1[n] + abs(crossings[n])
    for n in range(v.shape[0]):
        m[n] += x0[n] * (one - x0[n]) + x1[n] * (one - x1[n])
    count = select(m, memory.active)
    fill(m, zero)
    dot_rows(network.w_rec_t, memory.active, count, costate.zeta[b], projected)
    _released(network, v, v_after, crossings, count, memory)
    for_fast = for_slow = 0.0
    for k in range(count):
        n = memory.active[k]
        q, slow = q_fast[k], zero
        for j in range(eta.shape[0]):
            slow += w_out_t[n, j] * eta[j]
        m[n] = gain[0] * projected[k] + gain[1] * slow
        if c_count.shape[0] > 0 and q != zero:
            m[n] += np.copysign(c_count[b, n], q * c_count[b, n])
        q_fast[k], q_slow[k] = gain[0] * q, gain[1] * q
        for_fast += projected[k] * q_fast[k]
        for_slow += slow * q_slow[k]
    return count, for_fast * gain[0], for_slow * gain[1]


@compiled(**PIECE)
def _back(network, keep, path, costate, memory, sums, t, b):
    """(4.1) and the ζ of (4.3) for one step of one sample; w is left behind."""
    v, current, c, h = path.v[t, b], path.current[t, b], network.constants, network.h
    g0, g1, m, mu, w, push, pull = memory.g0, memory.g1, memory.m, memory.mu, memory.w, memory.push, memory.pull
    lam, zeta, d_bias, d_c0 = costate.lam_v[b], costate.zeta[b], sums.bias, sums.c0
    step_partials(network.membrane, v, current, c, h, push, pull)
    for n in range(v.shape[0]):
        mu[n] = lam[n] + g1[n] * m[n]
    fill(w, v.dtype.type(0.0))
    if network.membrane == LIF:
        reset_back(v, current, c, h, path.crossings[t, b], w, mu, sums.c1)
        for n in range(v.shape[0]):
            d_c0[n] += mu[n] * push[n] * c[0, n] * (v[n] - current[n])
    elif network.membrane == QIF:
        for n in range(v.shape[0]):
            d_c0[n] -= (h + h - push[n]) * mu[n] * c[0, n] * c[0, n]
    for n in range(v.shape[0]):
        w[n] += push[n] * mu[n]
    for n in range(v.shape[0]):
        lam[n] = pull[n] * mu[n] - g0[n] * m[n]
    for n in range(v.shape[0]):
        d_bias[n] += w[n]
        zeta[n] = keep * zeta[n] + w[n]


@compiled(**PIECE)
def _released(network, now, after, crossed, count, memory):
    """Charge q of each selected neuron into q_fast, the numbers of `forward` again."""
    index, q = memory.active, memory.q_fast
    y0, y1, c0, c1 = memory.y0[:count], memory.y1[:count], memory.level0[:count], memory.level1[:count]
    for k in range(count):
        y0[k], y1[k] = memory.x0[index[k]], memory.x1[index[k]]
    integral(network.gate, y0, c0)
    integral(network.gate, y1, c1)
    for k in range(count):
        n = index[k]
        if network.two_sided:
            c0[k], c1[k] = np.copysign(c0[k], now[n]), np.copysign(c1[k], after[n])
        q[k] = c1[k] - c0[k] + crossed[n]


@compiled(**OPTIONS)
def _decayed(z, current, drive):
    """ζ · J with J = I - W_in u - b."""
    total = z.dtype.type(0.0)
    for n in range(z.shape[0]):
        total += z[n] * (current[n] - drive[n])
    return total


@compiled(**OPTIONS)
def _change(p, before, after):
    """p · (a⁺ - a)."""
    total = p.dtype.type(0.0)
    for n in range(p.shape[0]):
        total += p[n] * (after[n] - before[n])
    return total
