"""The adjoint (2.5)-(2.10) of a feed-forward LIF layer on a GPU: one thread takes one neuron back through one sample.

No two threads add to one number. Each leaves its parts of the gradients in places of its own, and further threads sum these in
a fixed order, so that a gradient is the same bits every time.
"""

from typing import Any, NamedTuple

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
from adjsnn.lif.cuda.stops import ARRIVAL, END, MARK, bias_at, previous, upcoming
from adjsnn.numerics.device import cuda

FINE = -1.0  # no time of a spike


class Own(NamedTuple):
    """Spikes by sample and neuron, those of each in order of time; what beside the events is read of a forward run.

    Attributes:
        place: (B N + 1,), where those of each sample and neuron begin.
        rank: (S,), which of the events each is.
        released: (S,), as in Spikes.
        at: (S,), likewise.
        free: (S,), likewise.
    """

    place: Any
    rank: Any
    released: Any
    at: Any
    free: Any


class Fired(NamedTuple):
    """Of each event, (S,): its time, ms, i and the drive there, and the cotangent of the time."""

    time: Any
    current: Any
    cotangent: Any


class Part(NamedTuple):
    """Samples that are swept at once.

    Attributes:
        sample: the first of them.
        spike: their first input spike.
        tau: 1 where gradients of τ_m and τ_s are asked for, which need the states of the forward run again; else 0.
        moves: (Bp,), where the states of each of them begin in `states`, a row for every move of a neuron.
        states: (moves, 2, N), v and i at the start of each.
    """

    sample: int
    spike: int
    tau: int
    moves: Any
    states: Any


class Into(NamedTuple):
    """What the sweep writes, each number by one thread: of the Bp samples of a part, of their S_p input spikes, or of all.

    Attributes:
        lam: (S_p, N), λ_i of each neuron where a spike arrives, which is dC/dw.
        shift: (S_p, N), dC/dt_a.
        bias: (Bp, N).
        tau_mem: (Bp, N).
        tau_syn: (Bp, N).
        v_th: (Bp, N).
        v_reset: (Bp, N).
        refractory: (Bp, N).
        v: (B, N), dC/dv(0).
        i: (B, N), dC/di(0).
        drive: (T, B, N).
        grazes: (Bp N,), the time of a spike on which the loss depends though it only touches the threshold, or FINE.
    """

    lam: Any
    shift: Any
    bias: Any
    tau_mem: Any
    tau_syn: Any
    v_th: Any
    v_reset: Any
    refractory: Any
    v: Any
    i: Any
    drive: Any
    grazes: Any


@cuda.jit
def backward(neurons, stops, start, own, fired, cotangents, part, into):
    """Thread k N + n sweeps neuron n through sample k of a part.

    Args:
        neurons: Neurons.
        stops: Stops.
        start: State (B, N) at time 0.
        own: Own.
        fired: Fired.
        cotangents: State (P, B, N), of what was recorded at the probes.
        part: Part.
        into: Into, of zeros.
    """
    j = cuda.grid(1)
    if j < len(into.grazes):
        k, n = j // len(neurons.bias), j % len(neurons.bias)
        moves = _replay(neurons, stops, start, own, fired, part, k, n) if part.tau else 0
        into.grazes[j] = _sweep(neurons, stops, own, fired, cotangents, part, into, moves, k, n)


@cuda.jit(device=True)
def _replay(neurons, stops, start, own, fired, part, k, n):
    """(v, i) at the start of every move of a neuron; returns their number. A move ends at a stop, spike, release or t_end."""
    b, tm, ts = part.sample + k, neurons.tau_mem[n], neurons.tau_syn[n]
    s, spikes_end = own.place[b * len(neurons.bias) + n], own.place[b * len(neurons.bias) + n + 1]
    v, i, t, held, stop, move = start.v[b, n], start.i[b, n], 0.0, False, 0, part.moves[k]
    c, _ = bias_at(neurons, stops, 0, b, n)
    row, place, last, mark = (n if len(stops.time) > 1 else 0), stops.first[b], stops.first[b + 1], 0
    while True:
        to, kind = upcoming(stops, row, place, last, mark)
        while True:
            fires = (not held) and s < spikes_end and own.at[s] == stop
            frees = held and own.free[s - 1] == stop
            until = to
            if fires:
                until = fired.time[own.rank[s]]
            elif frees:
                until = fired.time[own.rank[s - 1]] + neurons.refractory[n]
            part.states[move, 0, n], part.states[move, 1, n] = v, i
            move += 1
            e_mem, e_syn, conv = decay(until - t, tm, ts)
            v_after, i = moved(v, i, c, tm, e_mem, e_syn, conv)
            v, t = (v if held else v_after), until
            if fires:
                v, held = neurons.v_reset[n], True
                s += 1
            elif frees:
                held = False
            else:
                break
        if kind == END:
            return move - part.moves[k]
        if kind == ARRIVAL:
            i += neurons.w[stops.source[stops.ref[row, place]], n]
            place += 1
        else:
            if stops.what[mark] < 0:
                c, _ = bias_at(neurons, stops, -stops.what[mark], b, n)
            mark += 1
        stop += 1


@cuda.jit(device=True)
def _sweep(neurons, stops, own, fired, cotangents, part, into, moves, k, n):
    """The costate back through the moves of a neuron, with every gradient; returns as `backward` writes.

    Args:
        moves: how many `_replay` found, 0 where nobody asked.
    """
    b, tm, ts = part.sample + k, neurons.tau_mem[n], neurons.tau_syn[n]
    s_first, s = own.place[b * len(neurons.bias) + n], own.place[b * len(neurons.bias) + n + 1] - 1
    row, first, place, mark = (n if len(stops.time) > 1 else 0), stops.first[b], stops.first[b + 1], len(stops.mark)
    while place > first and stops.time[row, place - 1] > stops.t_end:
        place -= 1
    step, move, held = stops.steps - 1, part.moves[k] + moves, s >= s_first and own.free[s] < 0
    c, _ = bias_at(neurons, stops, step, b, n)
    lam_v, lam_i, t, carried = 0.0, 0.0, stops.t_end, 0.0
    while True:
        to, kind = previous(stops, row, first, place, mark)
        stop = place - first + mark
        while True:
            frees = (not held) and s >= s_first and own.free[s] == stop
            fires = held and own.at[s] == stop
            until = to
            if fires:
                until = fired.time[own.rank[s]]
            elif frees:
                until = fired.time[own.rank[s]] + neurons.refractory[n]
            e_mem, e_syn, conv = decay(t - until, tm, ts)
            if part.tau:
                move -= 1
                v, i = part.states[move, 0, n], part.states[move, 1, n]
                d_mem, d_syn = tau_gradients(v, i, lam_v, lam_i, c, tau_weights(t - until, tm, ts, e_mem, e_syn, conv))
                into.tau_mem[k, n] += d_mem
                into.tau_syn[k, n] += d_syn
            before, t = lam_v, until
            lam_v, lam_i = costate_back(lam_v, lam_i, tm, e_mem, e_syn, conv)
            into.bias[k, n] += before - lam_v  # ∫ λ_v dt/τ_m, since λ_v decays with τ_m
            if step >= 0:
                into.drive[step, b, n] += before - lam_v
            if frees:
                carried = _release_back(neurons, own, into, s, lam_v, k, n)
                lam_v, held = 0.0, True
            elif fires:
                lam_v, grazes = _spike_back(neurons, fired, into, own.rank[s], carried, k, n)
                if grazes:
                    return t
                s, held, carried = s - 1, False, 0.0
            else:
                break
        if kind == ARRIVAL:
            place -= 1
            _arrival_back(neurons, stops, part, into, stops.ref[row, place], lam_v, lam_i, n)
        elif kind == MARK and stops.what[mark - 1] < 0:
            step, mark = step - 1, mark - 1
            c, _ = bias_at(neurons, stops, step, b, n)
        elif kind == MARK:
            mark -= 1
            lam_v, lam_i = _probe_back(cotangents, into, stops.what[mark], lam_v, lam_i, held, b, k, n)
        else:
            into.v[b, n], into.i[b, n] = lam_v, lam_i
            return FINE


@cuda.jit(device=True)
def _release_back(neurons, own, into, s, lam_v, k, n):
    """What a release hands to its spike: v starts from the reset, and the instant is that of the spike moved by a constant."""
    carried = release_shift(lam_v, own.released[s], neurons.bias[n], neurons.v_reset[n], neurons.tau_mem[n])
    into.v_reset[k, n] += lam_v
    into.refractory[k, n] += carried
    return carried


@cuda.jit(device=True)
def _spike_back(neurons, fired, into, event, carried, k, n):
    """λ_v before a spike of neuron n (2.7); and whether the loss depends on it though it only touches the threshold."""
    error = fired.cotangent[event] + carried
    slope = speed(fired.current[event], neurons.bias[n], neurons.v_th[n], neurons.tau_mem[n])
    if error == 0.0:
        return 0.0, False
    if not slope > 0.0:
        return 0.0, True
    into.v_th[k, n] += error / slope
    return -error / slope, False


@cuda.jit(device=True)
def _arrival_back(neurons, stops, part, into, ref, lam_v, lam_i, n):
    """An arrival (2.6)."""
    weight = neurons.w[stops.source[ref], n]
    into.lam[ref - part.spike, n] = lam_i
    into.shift[ref - part.spike, n] = arrival_shift(weight, lam_v, lam_i, neurons.tau_mem[n], neurons.tau_syn[n])


@cuda.jit(device=True)
def _probe_back(cotangents, into, probe, lam_v, lam_i, held, b, k, n):
    """The costate before a probe that the loss reads; v of a neuron that is held is v_reset there."""
    if held:
        into.v_reset[k, n] += cotangents.v[probe, b, n]
        return lam_v, lam_i + cotangents.i[probe, b, n]
    return lam_v + cotangents.v[probe, b, n], lam_i + cotangents.i[probe, b, n]


@cuda.jit
def by_source(order, begin, lam, shift, weights, delays):
    """Thread m N + n adds what the spikes of source m bring neuron n, in the order of the spikes.

    Args:
        order: (S_p,), input spikes of the part, those of each source together.
        begin: (M+1,), where those of each source begin.
        lam: (S_p, N), as in Into.
        shift: (S_p, N), as in Into.
        weights: (M, N), dC/dw, added to.
        delays: (M, N), dC/dd, added to.
    """
    j = cuda.grid(1)
    sources, neurons = weights.shape
    if j < sources * neurons:
        m, n = j // neurons, j % neurons
        for k in range(begin[m], begin[m + 1]):
            weights[m, n] += lam[order[k], n]
            delays[m, n] += shift[order[k], n]


@cuda.jit
def by_spike(shift, time):
    """Thread s adds what all neurons say of the time of input spike s, in their order: (S_p, N) to (S_p,)."""
    s = cuda.grid(1)
    if s < len(time):
        total = 0.0
        for n in range(shift.shape[1]):
            total += shift[s, n]
        time[s] = total
