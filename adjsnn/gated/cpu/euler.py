"""The charge-conserving Euler program (1.6) and its adjoint (4.1) as fused loops for the CPU: here the steps forward.

The plain program multiplies a whole matrix at every step. These loops use that synapses change only while a neuron is in its
active zone, where few are at a time. With one τ_f for all neurons the recurrent current J = W_rec a_f obeys

    J⁺ = (1 - h/τ_f) J + W_rec q/τ_f                                                          (4.2)

so a step adds the columns of W_rec of the neurons that release charge. Backward, ζ, the cotangent of J, and η, that of the
readout o = W_out a_s, take the place of λ_f = W_recᵀ ζ and λ_s = W_outᵀ η,

    ζ ← (1 - h/τ_f) ζ + w          η ← (1 - h/τ_s) η + ∂C/∂o                                   (4.3)

and λ_f and λ_s are formed only for neurons in the zone, the only place where they are read. The weight gradients follow the
charge as well: dW_rec = Σ ζ qᵀ/τ_f, dW_out = Σ η qᵀ/τ_s. What is left per neuron and step is element-wise.

Numbers agree with the plain program to rounding. Samples are independent and shared out over threads.
"""

import numpy as np

from adjsnn.gated.cpu.membranes import advance, reset
from adjsnn.gated.cpu.vectors import OPTIONS, add_drive, add_rows, copy, dot_rows, fill, integral, mirrored, select, zone
from adjsnn.numerics.compiled import compiled


@compiled(**OPTIONS)
def forward(
    membrane, gate, two_sided, shape, h, tau_fast, tau_slow, c, w_rec_t, w_in_t, bias, w_out, u,
    v, a_fast, a_slow, readout, current, crossings, recurrent, level, first, last, scratch, index, channels, bad, extremes,
):  # fmt: skip
    """Steps of (1.6) for samples first … last-1, from row 0 of v, a_fast, a_slow on, in place.

    Args:
        membrane, gate, two_sided: which flow, gate and reset.
        shape: (1/Δ, 1 - θ/Δ).   h, tau_fast, tau_slow: numbers of v's type.   c: constants of the membrane, (2, N).
        w_rec_t (N, N), w_in_t (C, N): one row per presynaptic neuron or channel.   bias: (N,).
        w_out: (C_out, N).   u: (T, B, C).   v, a_fast, a_slow: (T+1, B, N), row 0 given.   readout: (T+1, B, C_out),
            written from row 1 on.   current, crossings: (T, B, N), written.
        recurrent, level: J and G(v) of row 0, (B, N); on return those of the last row.
        bad: (2,), the step and sample at which a state was no longer finite or not below the threshold; -1 if none.
        extremes: (2,), smallest and largest number of crossings of a step.
    """
    one = v.dtype.type(1.0)
    keep = (one - h / tau_fast, one - h / tau_slow)
    gain = (one / tau_fast, one / tau_slow)
    lowest, highest = np.int8(0), np.int8(0)
    for t in range(len(current)):
        for b in range(first, last):
            fine, low, high = _step(
                membrane, gate, two_sided, shape, h, keep, gain, c, w_rec_t, w_in_t, bias, u[t, b],
                v[t, b], a_fast[t, b], a_slow[t, b], v[t + 1, b], a_fast[t + 1, b], a_slow[t + 1, b],
                current[t, b], crossings[t, b], recurrent[b], level[b],
                scratch[0], scratch[1], scratch[2], scratch[3], index,
            )  # fmt: skip
            dot_rows(w_out, channels, len(w_out), a_slow[t + 1, b], readout[t + 1, b])
            lowest, highest = min(lowest, low), max(highest, high)
            if not fine:
                bad[0], bad[1] = t, b
                return
    # Written once: a cache line that several threads write to is slow.
    extremes[0], extremes[1] = min(extremes[0], lowest), max(extremes[1], highest)


@compiled(**OPTIONS)
def _step(
    membrane, gate, two_sided, shape, h, keep, gain, c, w_rec_t, w_in_t, bias, u,
    v, a_fast, a_slow, v_after, a_fast_after, a_slow_after, current, crossings, recurrent, level,
    turns, q, charge, weight, index,
):  # fmt: skip
    """One step of one sample. Returns whether its state is sound, and its smallest and largest number of crossings."""
    copy(recurrent, current)
    add_drive(w_in_t, bias, u, current)
    advance(membrane, v, current, c, h, v_after)
    reset(membrane, current, c, v_after, turns)
    zone(v_after, shape, two_sided, q)
    integral(gate, q, charge)
    if two_sided:
        mirrored(v_after, charge)
    for n in range(v.shape[0]):
        q[n] = charge[n] - level[n] + turns[n]
    copy(charge, level)
    _filter(a_fast, q, keep[0], gain[0], a_fast_after)
    _filter(a_slow, q, keep[1], gain[1], a_slow_after)
    magnitude = v.dtype.type(0.0)
    for n in range(v.shape[0]):
        recurrent[n] *= keep[0]
        magnitude += abs(current[n])
    most = v.dtype.type(127.0)
    for n in range(v.shape[0]):
        crossings[n] = np.int8(min(max(turns[n], -most), most))
    count = select(q, index)
    fine = magnitude < v.dtype.type(np.inf)
    lowest, highest = np.int8(0), np.int8(0)
    for k in range(count):
        n = index[k]
        weight[k] = gain[0] * q[n]
        fine &= (abs(turns[n]) <= 100) & (v_after[n] < v.dtype.type(1.0))
        lowest, highest = min(lowest, crossings[n]), max(highest, crossings[n])
    add_rows(w_rec_t, index, weight, count, recurrent)
    return fine, lowest, highest


@compiled(**OPTIONS)
def products(matrix_t, a, index, weight, out):
    """out[b] = W a[b] for each sample, over the neurons that are active at all."""
    for b in range(len(a)):
        fill(out[b], a.dtype.type(0.0))
        count = select(a[b], index)
        for k in range(count):
            weight[k] = a[b, index[k]]
        add_rows(matrix_t, index, weight, count, out[b])


@compiled(**OPTIONS)
def _filter(a, q, keep, gain, out):
    """a⁺ = (1 - h/τ) a + q/τ."""
    for n in range(a.shape[0]):
        out[n] = keep * a[n] + gain * q[n]
