"""One Runge–Kutta step of one sample, and its product with a cotangent."""

from typing import NamedTuple

import numpy as np

from adjsnn.equations.cpu.names import COUNT, NODES, SAME, STAGES, A, B, D, field, pull_field


class Values(NamedTuple):
    """What a sample is computed from: p, q, the room w and wb, and the held input u of the interval."""

    p: np.ndarray
    q: np.ndarray
    u: np.ndarray
    w: np.ndarray
    wb: np.ndarray


class Room(NamedTuple):
    """Room of one step: stage derivatives, stage states and their cotangents, each (S, D), and rows (5, D)."""

    slopes: np.ndarray
    states: np.ndarray
    bars: np.ndarray
    rows: np.ndarray


class Sums(NamedTuple):
    """Where cotangents of p, q and the held input are added."""

    p: np.ndarray
    q: np.ndarray
    u: np.ndarray


def stage_time(i, t, t_end, h):
    """t + c_i h, and exactly the ends where c_i is 0 or 1."""
    c = NODES[i]
    return t if c == 0.0 else (t_end if c == 1.0 else t + c * h)


def stages(count, known, t, t_end, h, y, values, room):
    """The first `count` stage derivatives and states, from number `known` on."""
    for i in range(known, count):
        state = room.states[i]
        for d in range(D):
            change = 0.0
            for j in range(i):
                change += A[i, j] * room.slopes[j, d]
            state[d] = y[d] + h * change
        field(stage_time(i, t, t_end, h), state, values.u, values.p, values.q, values.w, room.slopes[i])


def taken(t, t_end, h, y, values, room, new):
    """new ← the state after a step."""
    stages(COUNT, 0, t, t_end, h, y, values, room)
    for d in range(D):
        change = 0.0
        for i in range(COUNT):
            change += B[i] * room.slopes[i, d]
        new[d] = y[d] + h * change


def tried(known, t, t_end, h, y, values, room, new):
    """The same with all stages, the first of which may be known."""
    stages(STAGES, known, t, t_end, h, y, values, room)
    for d in range(D):
        if SAME:
            new[d] = room.states[STAGES - 1, d]
        else:
            change = 0.0
            for i in range(STAGES):
                change += B[i] * room.slopes[i, d]
            new[d] = y[d] + h * change


def pull_step(t, t_end, h, y, values, room, bar, before, sums):
    """before ← Ψ_yᵀ bar of the step Ψ from t to t_end, whose stages stand in `room`; adds to `sums`.

        k̄_i = h (b_i λ + Σ_{j>i} a_ji s̄_j),    s̄_i = f_yᵀ k̄_i,    λ⁻ = λ + Σ_i s̄_i

    Returns:
        dC/dt of its begin and of its end.
    """
    of_h, of_begin, of_end = 0.0, 0.0, 0.0
    slope_bar = room.rows[0]
    for d in range(D):
        before[d] = bar[d]
        for i in range(COUNT):
            of_h += B[i] * room.slopes[i, d] * bar[d]
    for i in range(COUNT - 1, -1, -1):
        state_bar = room.bars[i]
        for d in range(D):
            total = B[i] * bar[d]
            for j in range(i + 1, COUNT):
                total += A[j, i] * room.bars[j, d]
            slope_bar[d] = h * total
            state_bar[d] = 0.0
        time = stage_time(i, t, t_end, h)
        of_time = pull_field(
            time,
            room.states[i],
            values.u,
            values.p,
            values.q,
            values.w,
            values.wb,
            slope_bar,
            state_bar,
            sums.u,
            sums.p,
            sums.q,
        )
        if NODES[i] == 1.0:
            of_end += of_time
        else:
            of_begin += of_time
            of_h += NODES[i] * of_time
        for d in range(D):
            before[d] += state_bar[d]
            for j in range(i):
                of_h += A[i, j] * room.slopes[j, d] * state_bar[d]
    return of_begin - of_h, of_end + of_h
