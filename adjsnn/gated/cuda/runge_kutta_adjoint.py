"""The adjoint (4.5) with (4.6) of Runge–Kutta steps on a GPU: a block of threads takes each sample back through its steps.

Stages are computed again from the stored states. What the gradients of the weights need of each step is left behind, cotangents
of the currents at the stages and a_f there, and multiplied by others for a whole block of steps at once, as in (1.10).
"""

from math import copysign
from typing import Any, NamedTuple

import numpy as np

from adjsnn.gated.cpu.arguments import LIF
from adjsnn.gated.cpu.runge_kutta_adjoint import reset_back
from adjsnn.gated.cuda.arguments import (
    BAR,
    CHARGE,
    COLUMN,
    CURRENT,
    DENSITY,
    END,
    FLOW,
    LAM,
    LEVEL,
    MOVED,
    RECURRENT,
    RELEASED,
    VOLT,
    G,
)
from adjsnn.gated.cuda.neurons import by_time_constant, charge_level, density, slopes
from adjsnn.gated.cuda.runge_kutta import MOST_STAGES, along, filtered, take_stages
from adjsnn.gated.cuda.shared import column_sum, listed, place, project, workspace
from adjsnn.numerics.device import cuda


class Reached(NamedTuple):
    """Of a sample what goes back through a reset reads of its stages, (s, N), and memory for the stages after it, (s,)."""

    flows: Any
    currents: Any
    slopes: Any


class Reset(NamedTuple):
    """Of a sample what it reads of the costate, (N,), and writes, (s, N), as in Memory.back; and memory, (s,)."""

    end: Any
    moved: Any
    bars: Any
    amps: Any
    reset_bars: Any


@cuda.jit
def backward(network, scheme, path, cotangents, costate, memory, found):
    """Block b sweeps sample b, backward over the path's steps; arguments as of `euler_adjoint.backward`, and

    Args:
        scheme: Scheme.
        memory: Memory, but for the drive written.
    """
    stages, back, drive = memory
    shared, (b, thread, width) = workspace(network), place()
    size, s = np.uint64(len(shared.marks)), len(scheme.b)
    for t in range(len(path.current) - 1, -1, -1):
        for n in range(thread, size, width):
            v = path.v[t, b, n]
            back[b, RECURRENT, n] = path.current[t, b, n] - drive[t, b, n]
            back[b, LEVEL, n], back[b, G, n] = charge_level(network, v), density(network, v)
        take_stages(network, scheme, path.v[t, b], drive[t, b], back[b, RECURRENT], back[b, LEVEL], stages, shared)
        _ends_back(network, scheme, path, cotangents, costate, stages, back, found, shared, t)
        for i in range(s - 1, -1, -1):
            for n in range(thread, size, width):
                _current_back(network, scheme, path, stages, back, found, t, b, i, n)
                if i > 0:
                    _ask(network, scheme, costate.zeta[b, n], stages, back, shared, b, i, n)
            if i > 0:
                project(shared)
                for n in range(thread, size, width):
                    x = _of_charge(scheme, cotangents, costate, shared.marks[n], b, i, n)
                    back[b, RELEASED, n] += x
                    _to_earlier_stages(network.h, scheme.a, back, x, b, i, n)
            for n in range(thread, size, width):
                back[b, LAM, n] += back[b, BAR + i, n]
        for n in range(thread, size, width):
            _step_back(scheme, path, cotangents, costate, stages, back, found, t, b, n)


@cuda.jit(device=True)
def _ends_back(network, scheme, path, cotangents, costate, stages, back, found, shared, t):
    """The end of step t: its charge, the cotangent of v⁺, and those of the flows. All threads of a block take part."""
    (b, thread, width), s = place(), len(scheme.b)
    for n in range(thread, np.uint64(len(shared.marks)), width):
        after = path.v[t + 1, b, n]
        charge = charge_level(network, after) + path.crossings[t, b, n] - back[b, LEVEL, n]
        stages[CHARGE, b, s, n], back[b, DENSITY, n] = charge, density(network, after)
        shared.marks[n] = charge
    if found.tau_fast:
        count = listed(shared)
        for n in range(thread, np.uint64(len(shared.marks)), width):
            stages[COLUMN, b, s, n] = column_sum(shared, count, n)
        cuda.syncthreads()  # everyone has read the marks
    for n in range(thread, np.uint64(len(shared.marks)), width):
        _ask(network, scheme, costate.zeta[b, n], stages, back, shared, b, s, n)
    project(shared)
    for n in range(thread, np.uint64(len(shared.marks)), width):
        x = _of_charge(scheme, cotangents, costate, shared.marks[n], b, s, n)
        charge = stages[CHARGE, b, s, n]
        if cotangents.reads_charge and charge != 0:
            x += copysign(cotangents.charge[b, n], charge * cotangents.charge[b, n])
        back[b, RELEASED, n] = x
        end = costate.lam_v[b, n] + back[b, DENSITY, n] * x
        back[b, END, n] = back[b, LAM, n] = end
        for i in range(s):
            back[b, BAR + s + i, n], back[b, BAR + i, n] = end - end, network.h * scheme.b[i] * end
        if network.membrane == LIF and path.crossings[t, b, n] != 0:
            _through_reset(network, scheme, path, stages, back, found, t, b, n)


@cuda.jit(device=True)
def _ask(network, scheme, zeta, stages, back, shared, b, row, n):
    """Puts ω_row = Σ_{row ≤ i < s} C_i,row Ī_i/τ_f + C_e,row ζ/τ_f into the vector, and marks where its projection is read."""
    s = len(scheme.b)
    if row < s:
        back[b, DENSITY, n] = density(network, stages[VOLT, b, row, n])
    omega = scheme.gain_fast[s, row] * zeta
    for i in range(row, s):
        omega += scheme.gain_fast[i, row] * back[b, BAR + s + i, n]
    shared.vector[n] = omega
    shared.marks[n] = back[b, G, n] + back[b, DENSITY, n]


@cuda.jit(device=True)
def _of_charge(scheme, cotangents, costate, projected, b, row, n):
    """Cotangent x of the charge of a row, right where g is not 0 there or before the step; `projected` is (W_recᵀ ω)_n."""
    s, x = len(scheme.b), projected
    if cotangents.reads_fast:
        x += scheme.gain_fast[s, row] * costate.fast[b, n]
    if cotangents.reads_slow:
        x += scheme.gain_slow[s, row] * costate.slow[b, n]
    return x


@cuda.jit(device=True)
def _through_reset(network, scheme, path, stages, back, found, t, b, n):
    """Cotangents of the flows and currents of neuron n through its reset (1.16), and of its constants."""
    slopes_after, bars_after = cuda.local.array(MOST_STAGES, np.float64), cuda.local.array(MOST_STAGES, np.float64)
    v, rate = path.v[t, b, n], network.constants[0, n]
    back[b, MOVED, n] = along(v, scheme.b, len(scheme.b), network.h, stages[FLOW, b], n)
    reached = Reached(stages[FLOW, b], stages[CURRENT, b], slopes_after)
    reset = Reset(back[b, END], back[b, MOVED], back[b, BAR:], back[b, BAR + len(scheme.b) :], bars_after)
    lam, d_rate, d_reset = reset_back(network, scheme, v, n, reached, reset)
    back[b, LAM, n] = lam
    found.c0[b, n] -= d_rate * rate * rate
    found.c1[b, n] += d_reset


@cuda.jit(device=True)
def _current_back(network, scheme, path, stages, back, found, t, b, i, n):
    """From the cotangent of a stage's flow to those of its current and, in its place, of its voltage."""
    s, v = len(scheme.b), (stages[VOLT, b, i, n] if i > 0 else path.v[t, b, n])
    current, bar = stages[CURRENT, b, i, n], back[b, BAR + i, n]
    by_current, by_v = slopes(network, n, v, current)
    amp = back[b, BAR + s + i, n] + by_current * bar
    back[b, BAR + s + i, n], back[b, BAR + i, n] = amp, bar * by_v
    if found.constants:
        found.c0[b, n] += by_time_constant(network, n, v, current, bar, by_current)
    found.w[i, t, b, n] = amp
    found.activity[i, t, b, n] = filtered(scheme.keep_fast, scheme.gain_fast, path.a_fast[t, b, n], stages[CHARGE, b], i, n)
    if found.tau_fast:
        found.d_fast[b, n] += amp * filtered(
            scheme.d_keep_fast, scheme.d_gain_fast, back[b, RECURRENT, n], stages[COLUMN, b], i, n
        )


@cuda.jit(device=True)
def _to_earlier_stages(h, a, back, x, b, i, n):
    """Add to a stage's voltage what its charge brings, and hand the sum to the flows of the stages that it is made of."""
    bar = back[b, BAR + i, n] + back[b, DENSITY, n] * x
    back[b, BAR + i, n] = bar
    for j in range(i):
        back[b, BAR + j, n] += h * a[i, j] * bar


@cuda.jit(device=True)
def _step_back(scheme, path, cotangents, costate, stages, back, found, t, b, n):
    """The costate of neuron n before step t, with what the loss reads there."""
    s, zeta = len(scheme.b), costate.zeta[b, n]
    costate.lam_v[b, n] = back[b, LAM, n] - back[b, G, n] * back[b, RELEASED, n]
    if cotangents.reads_v:
        costate.lam_v[b, n] += cotangents.v[t, b, n]
    if found.tau_fast:
        recurrent = back[b, RECURRENT, n]
        found.d_fast[b, n] += zeta * filtered(scheme.d_keep_fast, scheme.d_gain_fast, recurrent, stages[COLUMN, b], s, n)
    zeta *= scheme.keep_fast[s]
    for i in range(s):
        zeta += scheme.keep_fast[i] * back[b, BAR + s + i, n]
    costate.zeta[b, n] = zeta
    if cotangents.reads_fast:
        fast, a = costate.fast[b, n], path.a_fast[t, b, n]
        if found.tau_fast:
            found.d_fast[b, n] += fast * filtered(scheme.d_keep_fast, scheme.d_gain_fast, a, stages[CHARGE, b], s, n)
        costate.fast[b, n] = scheme.keep_fast[s] * fast
        if cotangents.given_fast:
            costate.fast[b, n] += cotangents.fast[t, b, n]
    if cotangents.reads_slow:
        slow, a = costate.slow[b, n], path.a_slow[t, b, n]
        if found.tau_slow:
            found.d_slow[b, n] += slow * filtered(scheme.d_keep_slow, scheme.d_gain_slow, a, stages[CHARGE, b], s, n)
        costate.slow[b, n] = scheme.keep_slow[s] * slow
        if cotangents.given_slow:
            costate.slow[b, n] += cotangents.slow[t, b, n]
