"""The adjoint (4.1) with (4.3) of Euler steps on a GPU: a block of threads takes each sample back through its steps.

ζ, the cotangent of J, stands in shared memory; W_recᵀ ζ is formed for the neurons in the zone alone. What the gradients of the
weights need of each step is left behind, w of (4.1), and multiplied by others for a whole block of steps at once, as in (1.10).
"""

from math import copysign

import numpy as np

from adjsnn.gated.cpu.arguments import LIF, QIF
from adjsnn.gated.cpu.membranes import reset_back
from adjsnn.gated.cuda.neurons import charge_level, density, in_zone, step_slopes
from adjsnn.gated.cuda.shared import place, project, workspace
from adjsnn.numerics.device import cuda


@cuda.jit
def backward(network, synapses, path, cotangents, costate, found):
    """Block b sweeps sample b, backward over the path's steps.

    Args:
        network: Network.
        synapses: Synapses.
        path: Path, as `euler.forward` left it.
        cotangents: Cotangents.
        costate: Costate at the last row; on return at row 0.
        found: Found, written.
    """
    shared, (b, thread, width) = workspace(network), place()
    size = np.uint64(len(shared.marks))
    for n in range(thread, size, width):
        shared.vector[n] = costate.zeta[b, n]
    for t in range(len(path.current) - 1, -1, -1):
        for n in range(thread, size, width):
            shared.marks[n] = in_zone(network, path.v[t, b, n]) + in_zone(network, path.v[t + 1, b, n])
        project(shared)
        for n in range(thread, size, width):
            zeta = shared.vector[n]
            if found.tau_fast:
                found.zeta[t, b, n] = zeta
            m = _of_charge(network, synapses, path, cotangents, costate, shared.marks[n], t, b, n)
            w = _back(network, path, costate, found, m, t, b, n)
            found.w[0, t, b, n] = w
            shared.vector[n] = synapses.keep_fast * zeta + w
            _synapses_back(synapses, path, cotangents, costate, found, t, b, n)
    for n in range(thread, size, width):
        costate.zeta[b, n] = shared.vector[n]


@cuda.jit(device=True)
def _of_charge(network, synapses, path, cotangents, costate, projected, t, b, n):
    """m of (4.1), the cotangent of the charge, right where g is not 0.

    Args:
        projected: (W_recᵀ ζ)_n.
    """
    m = synapses.gain_fast * projected
    if cotangents.reads_slow:
        m += costate.slow[b, n]
    if cotangents.reads_fast:
        m += costate.fast[b, n]
    if cotangents.reads_charge:
        before, after = charge_level(network, path.v[t, b, n]), charge_level(network, path.v[t + 1, b, n])
        q = after - before + path.crossings[t, b, n]
        if q != 0:
            m += copysign(cotangents.charge[b, n], q * cotangents.charge[b, n])
    return m


@cuda.jit(device=True)
def _back(network, path, costate, found, m, t, b, n):
    """λ_v over step t, and the gradients of the membrane's constants; returns w."""
    rows = cuda.local.array((8, 1), network.constants.dtype)
    v, current, crossed, w, mu, d_reset = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5]
    v[0], current[0], crossed[0] = path.v[t, b, n], path.current[t, b, n], path.crossings[t, b, n]
    rate = network.constants[0, n]
    rows[6, 0], rows[7, 0] = rate, network.constants[1, n]
    w[0] = d_reset[0] = network.constants.dtype.type(0.0)
    mu[0] = costate.lam_v[b, n] + m * density(network, path.v[t + 1, b, n])
    push, pull = step_slopes(network, n, v[0], current[0])
    if network.membrane == LIF:
        reset_back(v, current, rows[6:8], network.h, crossed, w, mu, d_reset)
        if found.constants:
            found.c1[b, n] += d_reset[0]
            found.c0[b, n] += mu[0] * push * rate * (v[0] - current[0])
    elif network.membrane == QIF and found.constants:
        found.c0[b, n] -= (network.h + network.h - push) * mu[0] * rate * rate
    costate.lam_v[b, n] = pull * mu[0] - m * density(network, v[0])
    return w[0] + push * mu[0]


@cuda.jit(device=True)
def _synapses_back(synapses, path, cotangents, costate, found, t, b, n):
    """What the loss reads of v, a_f and a_s before step t, and the decay of what it read of the synapses later."""
    if cotangents.reads_v:
        costate.lam_v[b, n] += cotangents.v[t, b, n]
    if cotangents.reads_fast:
        if found.tau_fast:
            found.d_fast[b, n] -= costate.fast[b, n] * (path.a_fast[t + 1, b, n] - path.a_fast[t, b, n])
        costate.fast[b, n] *= synapses.keep_fast
        if cotangents.given_fast:
            costate.fast[b, n] += cotangents.fast[t, b, n]
    if cotangents.reads_slow:
        if found.tau_slow:
            found.d_slow[b, n] -= costate.slow[b, n] * (path.a_slow[t + 1, b, n] - path.a_slow[t, b, n])
        costate.slow[b, n] *= synapses.keep_slow
        if cotangents.given_slow:
            costate.slow[b, n] += cotangents.slow[t, b, n]
