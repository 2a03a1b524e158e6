"""The adjoint (2.5)-(2.10) of a recurrent LIF layer on a GPU: a block of threads takes each sample back through its log.

What a spike's arrival says of its time is a sum over all neurons, taken in shared memory in a fixed order; everything else each
thread does for its own neurons, and leaves its parts of the gradients where `feedforward_adjoint` does.
"""

from typing import Any, NamedTuple

import numpy as np

from adjsnn.lif.cpu.flow import (
    arrival_shift,
    costate_back,
    decay,
    moved,
    release_shift,
    speed,
    tau_gradients,
    tau_weights,
)
from adjsnn.lif.cuda.recurrent import ARRIVAL, DRIVE, PROBE, RECURRENT, RELEASE, SPIKE, WIDTH
from adjsnn.lif.cuda.stops import bias_at
from adjsnn.lif.layer import ALL
from adjsnn.numerics.device import cuda


class History(NamedTuple):
    """What was logged of a forward run, and its spikes.

    Attributes:
        entries: (B+1,), where the log of each sample begins.
        log: Log, of all samples one after the other, spikes counted in the batch.
        released: (S,), i and the drive at the release of each spike.
        held: (B, N), 1 where a neuron is held when the trial ends.
    """

    entries: Any
    log: Any
    released: Any
    held: Any


class Fired(NamedTuple):
    """Of each spike, (S,): its neuron, i and the drive there; and dC/dt of it, to which the sweep adds what it finds."""

    neuron: Any
    current: Any
    error: Any


class Back(NamedTuple):
    """Neurons on their way back through the samples of a part, (Bp, N).

    Attributes:
        at: the time that its costate, which is in `into`, is of, ms.
        held: 1 where it is held at the reset.
        move: the next row of its states, counted from the end.
    """

    at: Any
    held: Any
    move: Any


class Heard(NamedTuple):
    """Of the layer's own spikes in a part what Into says of input spikes, (S_p, N), and the first of those spikes."""

    lam: Any
    shift: Any
    spike: int


@cuda.jit
def backward(neurons, echo, stops, start, history, fired, cotangents, part, back, heard, into):
    """Block k sweeps sample k of a part.

    Args:
        neurons: Neurons.
        echo: Echo.
        stops: Stops.
        start: State (B, N) at time 0.
        history: History.
        fired: Fired, its errors added to.
        cotangents: State (P, B, N), of what was recorded at the probes.
        part: Part.
        back: Back, written.
        heard: Heard, written.
        into: Into, of zeros.
    """
    shares = cuda.shared.array(WIDTH, np.float64)
    k, thread, width, step = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x, stops.steps - 1
    b, log = part.sample + k, history.log
    for n in range(thread, len(neurons.bias), width):
        back.at[k, n], back.held[k, n] = stops.t_end, history.held[b, n]
        back.move[k, n] = _replay(neurons, echo, stops, start, history, fired, part, k, n) if part.tau else 0
    for e in range(history.entries[b + 1] - 1, history.entries[b] - 1, -1):
        t, kind, ref, target = log.time[e], log.kind[e], log.ref[e], log.target[e]
        if target == ALL:
            share = 0.0
            for n in range(thread, len(neurons.bias), width):
                _move_back(neurons, stops, part, back, into, k, n, step, t)
                share += _event_back(neurons, echo, stops, fired, cotangents, part, back, heard, into, k, n, (kind, ref))
            if kind == RECURRENT:
                shares[thread] = share
                _add(shares)
                if thread == 0:
                    fired.error[ref] += shares[0]
                cuda.syncthreads()
            elif kind == DRIVE:
                step -= 1
        elif target % width == thread:
            _move_back(neurons, stops, part, back, into, k, target, step, t)
            if kind == RELEASE:
                _release_back(neurons, history, fired, part, back, into, k, target, ref)
            elif into.grazes[k * len(neurons.bias) + target] < 0.0:
                _spike_back(neurons, fired, part, back, into, k, target, ref, t)
    for n in range(thread, len(neurons.bias), width):
        _move_back(neurons, stops, part, back, into, k, n, step, 0.0)


@cuda.jit(device=True)
def _add(shares):
    """Sum over the threads, left in shares[0], in pairs of threads at falling distances."""
    thread, half = cuda.threadIdx.x, cuda.blockDim.x // 2
    cuda.syncthreads()
    while half > 0:
        if thread < half:
            shares[thread] += shares[thread + half]
        cuda.syncthreads()
        half //= 2


@cuda.jit(device=True)
def _replay(neurons, echo, stops, start, history, fired, part, k, n):
    """(v, i) at the start of every move of a neuron, the last one up to t_end; returns their number."""
    b, log, tm, ts, step = part.sample + k, history.log, neurons.tau_mem[n], neurons.tau_syn[n], 0
    v, i, at, held, move = start.v[b, n], start.i[b, n], 0.0, False, part.moves[k]
    for e in range(history.entries[b], history.entries[b + 1]):
        kind, ref, target = log.kind[e], log.ref[e], log.target[e]
        if target in (ALL, n):
            part.states[move, 0, n], part.states[move, 1, n] = v, i
            move += 1
            c, _ = bias_at(neurons, stops, step, b, n)
            e_mem, e_syn, conv = decay(log.time[e] - at, tm, ts)
            v_after, i = moved(v, i, c, tm, e_mem, e_syn, conv)
            v, at = (v if held else v_after), log.time[e]
            if kind == ARRIVAL:
                i += neurons.w[stops.source[ref], n]
            elif kind == RECURRENT:
                i += echo.w[fired.neuron[ref], n]
            elif kind == DRIVE:
                step = ref
            elif kind != PROBE:
                v, held = neurons.v_reset[n], kind == SPIKE
    part.states[move, 0, n], part.states[move, 1, n] = v, i
    return move + 1 - part.moves[k]


@cuda.jit(device=True)
def _move_back(neurons, stops, part, back, into, k, n, step, t):
    """The costate of neuron n back to time t, with what the way adds to the gradients; λ_v of one that is held is zero."""
    b, tm, ts = part.sample + k, neurons.tau_mem[n], neurons.tau_syn[n]
    span, lam_v, lam_i = back.at[k, n] - t, into.v[b, n], into.i[b, n]
    c, _ = bias_at(neurons, stops, step, b, n)
    e_mem, e_syn, conv = decay(span, tm, ts)
    if part.tau:
        back.move[k, n] -= 1
        move = part.moves[k] + back.move[k, n]
        v, i = part.states[move, 0, n], part.states[move, 1, n]
        d_mem, d_syn = tau_gradients(v, i, lam_v, lam_i, c, tau_weights(span, tm, ts, e_mem, e_syn, conv))
        into.tau_mem[k, n] += d_mem
        into.tau_syn[k, n] += d_syn
    into.v[b, n], into.i[b, n] = costate_back(lam_v, lam_i, tm, e_mem, e_syn, conv)
    into.bias[k, n] += lam_v - into.v[b, n]  # ∫ λ_v dt/τ_m, since λ_v decays with τ_m
    if step >= 0:
        into.drive[step, b, n] += lam_v - into.v[b, n]
    back.at[k, n] = t


@cuda.jit(device=True)
def _event_back(neurons, echo, stops, fired, cotangents, part, back, heard, into, k, n, event):
    """Neuron n back over what happens to every neuron; returns dC/dt_a where it is the arrival of a spike of the layer."""
    kind, ref = event
    b, shift = part.sample + k, 0.0
    lam_v, lam_i, tm, ts = into.v[b, n], into.i[b, n], neurons.tau_mem[n], neurons.tau_syn[n]
    if kind == ARRIVAL:
        into.lam[ref - part.spike, n] = lam_i
        into.shift[ref - part.spike, n] = arrival_shift(neurons.w[stops.source[ref], n], lam_v, lam_i, tm, ts)
    elif kind == RECURRENT:
        shift = arrival_shift(echo.w[fired.neuron[ref], n], lam_v, lam_i, tm, ts)
        heard.lam[ref - heard.spike, n], heard.shift[ref - heard.spike, n] = lam_i, shift
    elif kind == PROBE:
        into.i[b, n] += cotangents.i[ref, b, n]
        if back.held[k, n]:  # v is v_reset there
            into.v_reset[k, n] += cotangents.v[ref, b, n]
        else:
            into.v[b, n] += cotangents.v[ref, b, n]
    return shift


@cuda.jit(device=True)
def _release_back(neurons, history, fired, part, back, into, k, n, spike):
    """v starts from the reset: λ_v ends here, and the instant is that of the spike moved by a constant."""
    lam_v = into.v[part.sample + k, n]
    carried = release_shift(lam_v, history.released[spike], neurons.bias[n], neurons.v_reset[n], neurons.tau_mem[n])
    into.v_reset[k, n] += lam_v
    into.refractory[k, n] += carried
    fired.error[spike] += carried
    into.v[part.sample + k, n], back.held[k, n] = 0.0, 1


@cuda.jit(device=True)
def _spike_back(neurons, fired, part, back, into, k, n, spike, t):
    """A spike of neuron n (2.7)."""
    error, slope = fired.error[spike], speed(fired.current[spike], neurons.bias[n], neurons.v_th[n], neurons.tau_mem[n])
    back.held[k, n] = 0
    if error != 0.0 and not slope > 0.0:
        into.grazes[k * len(neurons.bias) + n] = t
    elif error != 0.0:
        into.v_th[k, n] += error / slope
        into.v[part.sample + k, n] = -error / slope
