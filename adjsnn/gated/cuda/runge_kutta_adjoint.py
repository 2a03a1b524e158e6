"""The adjoint (4.5) with (4.6) of Runge–Kutta steps on a GPU: a block of threads takes each sample back through its steps.

Stages are computed again from the stored states. What the gradients of the weights need of each step is left behind, cotangents
of the currents at the stages and a_f there, and multiplied by others for a whole block of steps at once, as in (1.10).
"""

from math import copysign
from typing import Any, NamedTuple

import numpy as np

from adjsnn.gated.cpu.arguments import LIF
from adjsnn.gated.cpu.runge_kutta_adjoint import reset_back
from adjsnn.gated.cuda.neurons import by_time_constant, charge_level, density, slopes
from adjsnn.gated.cuda.runge_kutta import MOST_STAGES, along, filtered, take_stages
from adjsnn.gated.cuda.shared import column_sum, listed, project, workspace
from adjsnn.numerics.device import cuda


class Back(NamedTuple):
    """Neurons on their way back through a step, (B, N) unless said otherwise.

    Attributes:
        drive: W_in u + b of each step of the block, (T, B, N).
        recurrent: J before the step.
        level: G(v) there.
        g: g(v) there.
        density: g at the stage that is being swept, or at the end of the step.
        lam: λ_v before the step as far as gathered.
        released: cotangent of G(v).
        end: that of v⁺.
        moved: ṽ.
        bars: cotangents of the flows, (B, s, N).
        amps: those of the currents, (B, s, N).
    """

    drive: Any
    recurrent: Any
    level: Any
    g: Any
    density: Any
    lam: Any
    released: Any
    end: Any
    moved: Any
    bars: Any
    amps: Any


class Reached(NamedTuple):
    """Of a sample what goes back through a reset reads of its stages, (s, N), and memory for the stages after it, (s,)."""

    flows: Any
    currents: Any
    slopes: Any


class Reset(NamedTuple):
    """Of a sample what it reads of the costate, and writes; as in Back, and memory, (s,)."""

    end: Any
    moved: Any
    bars: Any
    amps: Any
    reset_bars: Any


@cuda.jit
def backward(network, scheme, path, cotangents, costate, stages, back, found):
    """Block b sweeps sample b, backward over the path's steps; arguments as of `euler_adjoint.backward`, and

    Args:
        scheme: Scheme.
        stages: Stages, written.
        back: Back; but for the drive written.
    """
    shared, b, thread, width = workspace(network), cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    size, s = len(shared.marks), len(scheme.b)
    for t in range(len(path.current) - 1, -1, -1):
        for n in range(thread, size, width):
            v, drive = path.v[t, b, n], back.drive[t, b, n]
            back.recurrent[b, n] = path.current[t, b, n] - drive
            back.level[b, n], back.g[b, n] = charge_level(network, v), density(network, v)
        take_stages(network, scheme, path.v[t, b], back.drive[t, b], back.recurrent[b], back.level[b], stages, shared)
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
                    back.released[b, n] += x
                    _to_earlier_stages(network.h, scheme.a, back, x, b, i, n)
            for n in range(thread, size, width):
                back.lam[b, n] += back.bars[b, i, n]
        for n in range(thread, size, width):
            _step_back(scheme, path, cotangents, costate, stages, back, found, t, b, n)


@cuda.jit(device=True)
def _ends_back(network, scheme, path, cotangents, costate, stages, back, found, shared, t):
    """The end of step t: its charge, the cotangent of v⁺, and those of the flows. All threads of a block take part."""
    b, thread, width, s = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x, len(scheme.b)
    for n in range(thread, len(shared.marks), width):
        after = path.v[t + 1, b, n]
        charge = charge_level(network, after) + path.crossings[t, b, n] - back.level[b, n]
        stages.charges[b, s, n], back.density[b, n] = charge, density(network, after)
        shared.marks[n] = charge
    if found.tau_fast:
        count = listed(shared)
        for n in range(thread, len(shared.marks), width):
            stages.columns[b, s, n] = column_sum(shared, count, n)
        cuda.syncthreads()  # everyone has read the marks
    for n in range(thread, len(shared.marks), width):
        _ask(network, scheme, costate.zeta[b, n], stages, back, shared, b, s, n)
    project(shared)
    for n in range(thread, len(shared.marks), width):
        x = _of_charge(scheme, cotangents, costate, shared.marks[n], b, s, n)
        charge = stages.charges[b, s, n]
        if cotangents.reads_charge and charge != 0:
            x += copysign(cotangents.charge[b, n], charge * cotangents.charge[b, n])
        back.released[b, n] = x
        end = costate.lam_v[b, n] + back.density[b, n] * x
        back.end[b, n] = back.lam[b, n] = end
        for i in range(s):
            back.amps[b, i, n], back.bars[b, i, n] = end - end, network.h * scheme.b[i] * end
        if network.membrane == LIF and path.crossings[t, b, n] != 0:
            _through_reset(network, scheme, path, stages, back, found, t, b, n)


@cuda.jit(device=True)
def _ask(network, scheme, zeta, stages, back, shared, b, row, n):
    """Puts ω_row = Σ_{row ≤ i < s} C_i,row Ī_i/τ_f + C_e,row ζ/τ_f into the vector, and marks where its projection is read."""
    s = len(scheme.b)
    if row < s:
        back.density[b, n] = density(network, stages.volts[b, row, n])
    omega = scheme.gain_fast[s, row] * zeta
    for i in range(row, s):
        omega += scheme.gain_fast[i, row] * back.amps[b, i, n]
    shared.vector[n] = omega
    shared.marks[n] = back.g[b, n] + back.density[b, n]


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
    back.moved[b, n] = along(v, scheme.b, len(scheme.b), network.h, stages.flows, b, n)
    reached = Reached(stages.flows[b], stages.currents[b], slopes_after)
    reset = Reset(back.end[b], back.moved[b], back.bars[b], back.amps[b], bars_after)
    lam, d_rate, d_reset = reset_back(network, scheme, v, n, reached, reset)
    back.lam[b, n] = lam
    found.c0[b, n] -= d_rate * rate * rate
    found.c1[b, n] += d_reset


@cuda.jit(device=True)
def _current_back(network, scheme, path, stages, back, found, t, b, i, n):
    """From the cotangent of a stage's flow to those of its current and, in its place, of its voltage."""
    v = stages.volts[b, i, n] if i > 0 else path.v[t, b, n]
    current, bar = stages.currents[b, i, n], back.bars[b, i, n]
    by_current, by_v = slopes(network, n, v, current)
    amp = back.amps[b, i, n] + by_current * bar
    back.amps[b, i, n], back.bars[b, i, n] = amp, bar * by_v
    found.c0[b, n] += by_time_constant(network, n, v, current, bar, by_current)
    found.w[i, t, b, n] = amp
    found.activity[i, t, b, n] = filtered(scheme.keep_fast, scheme.gain_fast, path.a_fast[t, b, n], stages.charges, i, b, n)
    if found.tau_fast:
        found.d_fast[b, n] += amp * filtered(
            scheme.d_keep_fast, scheme.d_gain_fast, back.recurrent[b, n], stages.columns, i, b, n
        )


@cuda.jit(device=True)
def _to_earlier_stages(h, a, back, x, b, i, n):
    """Add to a stage's voltage what its charge brings, and hand the sum to the flows of the stages that it is made of."""
    bar = back.bars[b, i, n] + back.density[b, n] * x
    back.bars[b, i, n] = bar
    for j in range(i):
        back.bars[b, j, n] += h * a[i, j] * bar


@cuda.jit(device=True)
def _step_back(scheme, path, cotangents, costate, stages, back, found, t, b, n):
    """The costate of neuron n before step t, with what the loss reads there."""
    s, zeta = len(scheme.b), costate.zeta[b, n]
    costate.lam_v[b, n] = back.lam[b, n] - back.g[b, n] * back.released[b, n]
    if cotangents.reads_v:
        costate.lam_v[b, n] += cotangents.v[t, b, n]
    if found.tau_fast:
        recurrent = back.recurrent[b, n]
        found.d_fast[b, n] += zeta * filtered(scheme.d_keep_fast, scheme.d_gain_fast, recurrent, stages.columns, s, b, n)
    zeta *= scheme.keep_fast[s]
    for i in range(s):
        zeta += scheme.keep_fast[i] * back.amps[b, i, n]
    costate.zeta[b, n] = zeta
    if cotangents.reads_fast:
        fast, a = costate.fast[b, n], path.a_fast[t, b, n]
        if found.tau_fast:
            found.d_fast[b, n] += fast * filtered(scheme.d_keep_fast, scheme.d_gain_fast, a, stages.charges, s, b, n)
        costate.fast[b, n] = scheme.keep_fast[s] * fast
        if cotangents.given_fast:
            costate.fast[b, n] += cotangents.fast[t, b, n]
    if cotangents.reads_slow:
        slow, a = costate.slow[b, n], path.a_slow[t, b, n]
        if found.tau_slow:
            found.d_slow[b, n] += slow * filtered(scheme.d_keep_slow, scheme.d_gain_slow, a, stages.charges, s, b, n)
        costate.slow[b, n] = scheme.keep_slow[s] * slow
        if cotangents.given_slow:
            costate.slow[b, n] += cotangents.slow[t, b, n]
