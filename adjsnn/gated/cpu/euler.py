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
from adjsnn.gated.cpu.vectors import (
    OPTIONS,
    PIECE,
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
def forward(network, synapses, path, carry, first, last, memory, channels, outcome):
    """Steps of (1.6) for samples first … last-1, from row 0 of the path's states on, in place.

    Args:
        network: Network.
        synapses: Synapses.
        path: Path; row 0 of v, a_fast, a_slow and readout is given, the other rows, current and crossings are written.
        carry: Carry of row 0; on return of the last row.
        first: of the samples.
        last: one past the last of them.
        memory: EulerMemory.
        channels: (C_out,), 0, 1, 2 …
        outcome: Outcome; written.
    """
    one = path.v.dtype.type(1.0)
    keep = (one - network.h / synapses.tau_fast, one - network.h / synapses.tau_slow)
    gain = (one / synapses.tau_fast, one / synapses.tau_slow)
    lowest, highest = np.int8(0), np.int8(0)
    for t in range(len(path.current)):
        for b in range(first, last):
            fine, low, high = _step(network, keep, gain, path, carry, memory, t, b)
            dot_rows(network.w_out, channels, len(network.w_out), path.a_slow[t + 1, b], path.readout[t + 1, b])
            lowest, highest = min(lowest, low), max(highest, high)
            if not fine:
                outcome.broken[0], outcome.broken[1] = t, b
                return
    # Written once: a cache line that several threads write to is slow.
    outcome.extremes[0], outcome.extremes[1] = min(outcome.extremes[0], lowest), max(outcome.extremes[1], highest)


@compiled(**PIECE)
def _step(network, keep, gain, path, carry, memory, t, b):
    """Step t of sample b. Returns whether its state is sound, and its smallest and largest number of crossings."""
    v, current, crossings, after = path.v[t, b], path.current[t, b], path.crossings[t, b], path.v[t + 1, b]
    recurrent, level, turns, q, charge = carry.recurrent[b], carry.level[b], memory.turns, memory.q, memory.charge
    copy(recurrent, current)
    add_drive(network.w_in_t, network.bias, path.u[t, b], current)
    advance(network.membrane, v, current, network.constants, network.h, after)
    reset(network.membrane, current, network.constants, after, turns)
    zone(after, network.zone, network.two_sided, q)
    integral(network.gate, q, charge)
    if network.two_sided:
        mirrored(after, charge)
    for n in range(v.shape[0]):  # the charge that the step releases: what G gained, and one for every threshold crossed
        q[n] = charge[n] - level[n] + turns[n]
    copy(charge, level)
    _filter(path.a_fast[t, b], q, keep[0], gain[0], path.a_fast[t + 1, b])
    _filter(path.a_slow[t, b], q, keep[1], gain[1], path.a_slow[t + 1, b])
    magnitude = v.dtype.type(0.0)
    for n in range(v.shape[0]):
        recurrent[n] *= keep[0]
        magnitude += abs(current[n])  # not finite if any current is not: one sum instead of N questions
    most = v.dtype.type(MOST_COUNTED)
    for n in range(v.shape[0]):
        crossings[n] = np.int8(min(max(turns[n], -most), most))
    count = select(q, memory.active)
    fine = magnitude < v.dtype.type(np.inf)
    lowest, highest = np.int8(0), np.int8(0)
    for k in range(count):
        n = memory.active[k]
        memory.weight[k] = gain[0] * q[n]
        fine &= (abs(turns[n]) <= MOST_CROSSINGS) & (after[n] < v.dtype.type(1.0))
        lowest, highest = min(lowest, crossings[n]), max(highest, crossings[n])
    add_rows(network.w_rec_t, memory.active, memory.weight, count, recurrent)
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
