"""One Runge–Kutta step of one sample, and its product with a cotangent."""

from typing import NamedTuple

import numpy as np

from adjsnn.equations.cpu.names import (
    COUNT,
    NODES,
    SAME,
    STAGES,
    A,
    B,
    D,
    end_state,
    field,
    pull_field,
    slope_cotangent,
    stage_state,
)


class Values(NamedTuple):
    """What a sample is computed from: p, q, the room w and wb, the held input u of the interval, and lists of synapses."""

    p: np.ndarray
    q: np.ndarray
    u: np.ndarray
    w: np.ndarray
    wb: np.ndarray
    wiring: np.ndarray


class Room(NamedTuple):
    """Room of one step: stage derivatives, stage states and their cotangents, each (S, D); rows (5, D); what
    `field` computed at each stage, (S, ROOM)."""

    slopes: np.ndarray
    states: np.ndarray
    bars: np.ndarray
    rows: np.ndarray
    w: np.ndarray


class Sums(NamedTuple):
    """Where cotangents of p, q and the held input are added."""

    p: np.ndarray
    q: np.ndarray
    u: np.ndarray


def stage_time(i, t, t_end, h):
    """t + c_i h, and exactly the ends where c_i is 0 or 1."""
    c = NODES[i]
    return t if c == 0.0 else (t_end if c == 1.0 else t + c * h)


def weighted(weights, count, slopes, out):
    """out ← Σ w_j k_j, the first first, over weights that are not zero."""
    for d in range(D):
        out[d] = 0.0
    for j in range(count):
        if weights[j] != 0.0:
            for d in range(D):
                out[d] += weights[j] * slopes[j, d]


def along(x, y):
    """Σ x y."""
    total = 0.0
    for d in range(D):
        total += x[d] * y[d]
    return total


def stages(count, known, t, t_end, h, y, values, room):
    """The first `count` stage derivatives and states, from number `known` on."""
    for i in range(known, count):
        state = room.states[i]
        stage_state(i, h, y, room.slopes, state)
        field(stage_time(i, t, t_end, h), state, values.u, values.p, values.q, room.w[i], room.slopes[i])


def taken(t, t_end, h, y, values, room, new):
    """new ← the state after a step."""
    stages(COUNT, 0, t, t_end, h, y, values, room)
    end_state(h, y, room.slopes, new)


def tried(known, t, t_end, h, y, values, room, new):
    """The same with all stages, the first of which may be known."""
    stages(STAGES, known, t, t_end, h, y, values, room)
    if SAME:
        for d in range(D):
            new[d] = room.states[STAGES - 1, d]
    else:
        end_state(h, y, room.slopes, new)


def pull_step(t, t_end, h, values, room, bar, before, sums, timed):
    """before ← Ψ_yᵀ bar of the step Ψ from t to t_end, whose stages stand in `room`; adds to `sums`.

        k̄_i = h (b_i λ + Σ_{j>i} a_ji s̄_j),    s̄_i = f_yᵀ k̄_i,    λ⁻ = λ + Σ_i s̄_i

    Args:
        timed: whether dC/dt is read.

    Returns:
        dC/dt of its begin and of its end.
    """
    of_h, of_begin, of_end = 0.0, 0.0, 0.0
    slope_bar, slope = room.rows[0], room.rows[3]
    for d in range(D):
        before[d] = bar[d]
    if timed:
        weighted(B, COUNT, room.slopes, slope)
        of_h = along(slope, bar)
    for i in range(COUNT - 1, -1, -1):
        state_bar = room.bars[i]
        slope_cotangent(i, h, bar, room.bars, slope_bar)
        for d in range(D):
            state_bar[d] = 0.0
        time = stage_time(i, t, t_end, h)
        state, w, wb = room.states[i], room.w[i], values.wb
        of_time = pull_field(time, state, values.u, values.p, values.q, w, wb, slope_bar, state_bar, sums.u, sums.p, sums.q)
        if NODES[i] == 1.0:
            of_end += of_time
        else:
            of_begin += of_time
            of_h += NODES[i] * of_time
        for d in range(D):
            before[d] += state_bar[d]
        if timed:
            weighted(A[i], i, room.slopes, slope)
            of_h += along(slope, state_bar)
    return of_begin - of_h, of_end + of_h
