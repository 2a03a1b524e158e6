"""Runge–Kutta steps (1.14)-(1.16) of a gated network on a GPU: a block of threads for each sample, its neurons on the threads.

As in `gated/cpu/runge_kutta.py` the recurrent currents at the stages follow the charge (4.6). What a neuron has found at its
stages it keeps in memory of its own, since a thread may have several; a stage waits for the other threads four times.
"""

import numpy as np

from adjsnn.gated.cpu.arguments import LIF
from adjsnn.gated.cpu.runge_kutta import after_reset
from adjsnn.gated.cuda.arguments import CHARGE, COLUMN, CURRENT, FLOW, VOLT
from adjsnn.gated.cuda.neurons import charge_level, counted, flow, sound, unwrapped
from adjsnn.gated.cuda.shared import column_sum, listed, place, workspace
from adjsnn.numerics.device import cuda

MOST_STAGES = 4


@cuda.jit
def forward(network, scheme, path, carry, memory, broken):
    """Block b takes the steps of sample b; arguments as of `euler.forward`, and

    Args:
        scheme: Scheme.
        memory: Memory, its stages written.
    """
    stages = memory.stages
    shared, (b, thread, width) = workspace(network), place()
    size, s = np.uint64(len(shared.marks)), len(scheme.b)
    for n in range(thread, size, width):
        broken[b, n] = -1
    for t in range(len(path.current)):
        drive, recurrent = path.current[t, b], carry.recurrent[b]
        take_stages(network, scheme, path.v[t, b], drive, recurrent, carry.level[b], stages, shared)
        for n in range(thread, size, width):
            shared.marks[n] = _end(network, scheme, path, carry, stages, broken, t, b, n)
        count = listed(shared)
        for n in range(thread, size, width):
            stages[COLUMN, b, s, n] = column_sum(shared, count, n)
            recurrent[n] = filtered(scheme.keep_fast, scheme.gain_fast, recurrent[n], stages[COLUMN, b], s, n)
        cuda.syncthreads()  # everyone has read the marks


@cuda.jit(device=True)
def take_stages(network, scheme, v, drive, recurrent, level, stages, shared):
    """The stages of a step of the block's sample. All threads of a block take part.

    Args:
        network: Network.
        scheme: Scheme.
        v: before the step, (N,).
        drive: W_in u + b, (N,).
        recurrent: J before the step, (N,).
        level: G(v), (N,).
        stages: (5, B, s+1, N), written.
        shared: Shared.
    """
    b, thread, width = place()
    for n in range(thread, np.uint64(len(v)), width):
        current = recurrent[n] + drive[n]
        stages[CURRENT, b, 0, n], stages[FLOW, b, 0, n] = current, flow(network, n, v[n], current)
    for i in range(1, len(scheme.b)):
        for n in range(thread, np.uint64(len(v)), width):
            volt, turns = unwrapped(network, along(v[n], scheme.a[i], i, network.h, stages[FLOW, b], n))
            charge = charge_level(network, volt) + turns - level[n]
            stages[VOLT, b, i, n], stages[CHARGE, b, i, n], shared.marks[n] = volt, charge, charge
        count = listed(shared)
        for n in range(thread, np.uint64(len(v)), width):
            stages[COLUMN, b, i, n] = column_sum(shared, count, n)
            current = filtered(scheme.keep_fast, scheme.gain_fast, recurrent[n], stages[COLUMN, b], i, n) + drive[n]
            stages[CURRENT, b, i, n] = current
            stages[FLOW, b, i, n] = flow(network, n, stages[VOLT, b, i, n], current)
        cuda.syncthreads()  # everyone has read the marks


@cuda.jit(device=True)
def along(start, weights, count, h, rows, n):
    """start + h Σ weights[j] rows[j] over the first `count` j."""
    for j in range(count):
        start += h * weights[j] * rows[j, n]
    return start


@cuda.jit(device=True)
def filtered(keep, gain, start, rows, i, n):
    """α_i start + Σ C_ij/τ rows[j] over 1 ≤ j ≤ i, of (1.14) and (4.6)."""
    whole = keep[i] * start
    for j in range(1, i + 1):
        whole += gain[i, j] * rows[j, n]
    return whole


@cuda.jit(device=True)
def _end(network, scheme, path, carry, stages, broken, t, b, n):
    """The end of step t of neuron n of sample b but for its recurrent current; returns the charge that it released."""
    s, v = len(scheme.b), path.v[t, b, n]
    after, turns = unwrapped(network, along(v, scheme.b, s, network.h, stages[FLOW, b], n))
    one = network.constants.dtype.type(1.0)
    if network.membrane == LIF and after >= one:
        slopes = cuda.local.array(MOST_STAGES, np.float64)
        found = after_reset(v, stages[FLOW, b], stages[CURRENT, b], n, after, network.constants, scheme, network.h, slopes)
        after, turns = network.constants.dtype.type(found[0]), one
    level = charge_level(network, after)
    charge = level + turns - carry.level[b, n]
    carry.level[b, n] = level
    carry.spent[b, n] += abs(charge)
    stages[CHARGE, b, s, n] = charge
    current = stages[CURRENT, b, 0, n]
    path.v[t + 1, b, n], path.current[t, b, n], path.crossings[t, b, n] = after, current, counted(turns)
    a_fast, a_slow = path.a_fast[t, b, n], path.a_slow[t, b, n]
    path.a_fast[t + 1, b, n] = filtered(scheme.keep_fast, scheme.gain_fast, a_fast, stages[CHARGE, b], s, n)
    path.a_slow[t + 1, b, n] = filtered(scheme.keep_slow, scheme.gain_slow, a_slow, stages[CHARGE, b], s, n)
    if broken[b, n] < 0 and not sound(network, after, current, turns):
        broken[b, n] = t
    return charge
