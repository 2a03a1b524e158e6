"""The discrete adjoint of the steps that were taken, sample by sample, through located events: (4.1) and (3.6)."""

from typing import NamedTuple

import numpy as np

from adjsnn.equations.cpu.events import after_event
from adjsnn.equations.cpu.march import STRIDE, TAKEN, values_of
from adjsnn.equations.cpu.names import D, delay_place, deliver, pull_delivery, pull_jump, pull_level
from adjsnn.equations.cpu.steps import Sums, pull_step, taken


class Cotangents(NamedTuple):
    """Of outputs, (T+1, B, D), and of the times of the events that end steps, (B, K); to these is added."""

    outputs: np.ndarray
    times: np.ndarray


class Bars(NamedTuple):
    """What is found: y0 (B, D); u (T, B, C); p of each group (groups, P); q (B, Q); whether an event does not rise: (B, 2) of
    the row plus one and its speed."""

    y0: np.ndarray
    u: np.ndarray
    p: np.ndarray
    q: np.ndarray
    failed: np.ndarray


class Back(NamedTuple):
    """Room of the way back. Fields: states of a stretch of steps (S+1, D); rows (8, D)."""

    stretch: np.ndarray
    rows: np.ndarray


def pull_event(t, t_end, h, guard, values, work, back, bar, of_end, minus, sums):
    """bar ← λ of the state before the jump and the event, dC/d minus, from dC/d plus; returns γ and the speed D.

    λ⁻ = r_yᵀ λ⁺,    D = φ_y Ψ_te + φ_t,    γ = -(λ⁻ᵀ Ψ_te + r_tᵀ λ⁺ + dC/dt_e)/D,    λ⁻ + γ φ_y
    """
    slope, of_minus, unread = back.rows[2], back.rows[3], back.rows[4]
    for d in range(D):
        of_minus[d] = 0.0
        slope[d] = 0.0
    of_jump = pull_jump(guard, t_end, minus, values.p, values.q, values.w, values.wb, bar, of_minus, sums.p, sums.q)
    junk = work.sums
    speed = pull_level(guard, t_end, minus, values.p, values.q, values.w, values.wb, 1.0, slope, junk.p, junk.q)
    speed += pull_step(t, t_end, h, values, work.step, slope, unread, junk, True)[1]
    of_flow = pull_step(t, t_end, h, values, work.step, of_minus, unread, junk, True)[1]
    if not speed > 0.0:
        return 0.0, speed
    gamma = -(of_flow + of_jump + of_end) / speed
    pull_level(guard, t_end, minus, values.p, values.q, values.w, values.wb, gamma, unread, sums.p, sums.q)
    for d in range(D):
        bar[d] = of_minus[d] + gamma * slope[d]
    return gamma, speed


def stretch(trial, record, s, start, stop, work, back):
    """The states before steps start … stop-1 again, from the first of them, which stands in back.stretch[0]."""
    for row in range(start, stop - 1):
        after = back.stretch[row - start + 1]
        values = values_of(trial, s, record.interval[s, row], work)
        t, t_end = record.times[s, row], record.times[s, row + 1]
        minus = back.rows[5]
        guard = record.event[s, row]
        taken(t, t_end, record.lengths[s, row], back.stretch[row - start], values, work.step, minus)
        if guard >= 0:
            after_event(guard, t_end, minus, values, after)
        else:
            for d in range(D):
                after[d] = minus[d]
        if guard <= -2:
            packet = record.sent[s, -2 - guard]
            deliver(packet[0], packet[1], packet[2], values.wiring, values.p, after)


def one_back(trial, record, cotangents, bars, s, row, y, work, back, sums, of_end):
    """λ in back.rows[0] from after a step to before it; returns dC/dt of its begin."""
    bar, before, minus = back.rows[0], back.rows[1], back.rows[5]
    interval, guard = record.interval[s, row], record.event[s, row]
    values = values_of(trial, s, interval, work)
    t, t_end, h = record.times[s, row], record.times[s, row + 1], record.lengths[s, row]
    taken(t, t_end, h, y, values, work.step, minus)
    into = Sums(sums.p, sums.q, bars.u[interval, s])
    if guard >= 0:
        of_end += cotangents.times[s, row]
        speed = pull_event(t, t_end, h, guard, values, work, back, bar, of_end, minus, into)[1]
        if not speed > 0.0:
            bars.failed[s, 0], bars.failed[s, 1] = row + 1, speed
    packet = record.sent[s, max(-2 - guard, 0)]
    if guard <= -2:
        pull_delivery(packet[0], packet[1], packet[2], values.wiring, bar, into.p)
    timed = guard != -1 or (row > 0 and record.event[s, row - 1] != -1)
    of_begin, of_t_end = pull_step(t, t_end, h, values, work.step, bar, before, into, timed)
    if guard <= -2:  # when a packet is due is when its event was, and its delay
        of_due = of_end + of_t_end
        cotangents.times[s, packet[3]] += of_due
        into.p[delay_place(packet[0], packet[1], packet[2], values.wiring)] += of_due
    for d in range(D):
        bar[d] = before[d]
    return of_begin


def sample_back(trial, record, samples, cotangents, bars, work, back, group, s):
    """Costates of a sample from its last step to its first; what all samples share goes to row `group`."""
    bar = back.rows[0]
    n, stride, output, of_end = samples.whole[s, TAKEN], samples.whole[s, STRIDE], len(trial.ts) - 1, 0.0
    sums = Sums(bars.p[group], bars.q[s], bars.u[0, s])
    for d in range(D):
        bar[d] = 0.0
    for slot in range((n - 1) // stride, -1, -1):
        start, stop = slot * stride, min((slot + 1) * stride, n)
        for d in range(D):
            back.stretch[0, d] = record.states[s, slot, d]
        stretch(trial, record, s, start, stop, work, back)
        for row in range(stop - 1, start - 1, -1):
            if record.rows[s, output] == row + 1:
                for d in range(D):
                    bar[d] += cotangents.outputs[output, s, d]
                output -= 1
            of_end = one_back(trial, record, cotangents, bars, s, row, back.stretch[row - start], work, back, sums, of_end)
            if bars.failed[s, 0] > 0.0:
                return
    for d in range(D):
        bars.y0[s, d] = bar[d] + cotangents.outputs[0, s, d]


def backward(trial, record, samples, cotangents, bars, work, back, edges, first, last):
    """Costates of all samples of groups first … last-1; group k is samples edges[k] … edges[k+1]-1."""
    for k in range(first, last):
        for s in range(edges[k], edges[k + 1]):
            sample_back(trial, record, samples, cotangents, bars, work, back, k, s)
