"""Forward runs of samples: adaptive steps that may end in events, and fixed steps.

A sample that needs more room than there is stops with FULL, and goes on where it stopped when it is called again. The control
of the steps is that of `adjsnn.hybrid.adaptive`.
"""

import math
from typing import NamedTuple

import numpy as np

from adjsnn.equations.cpu.events import (
    NOTHING,
    PILED,
    RAISED_BY_PACKET,
    TIE,
    TINY,
    after_event,
    arrive,
    brief,
    find,
    judge,
    polish,
    speed_at,
)
from adjsnn.equations.cpu.lengths import first_length, norm, proposed_factor, rounded
from adjsnn.equations.cpu.names import KINDS, MOST, SAME, STAGES, D, G, deliver, error_of, field, levels_of
from adjsnn.equations.cpu.packets import next_due, pop, send
from adjsnn.equations.cpu.steps import Room, Sums, Values, taken, tried
from adjsnn.hybrid.adaptive import STRETCH

DONE, RUNNING, FULL, STUCK, TOO_MANY, EVENT, START = range(7)
SMALLEST = 16.0 * 2.0**-52


class Trial(NamedTuple):
    """What is solved. Fields: ts (T+1,); y0 (B, D); u (T, B, C); p (P,); q (B, Q); tolerances; most attempts; for fixed steps
    their number between output times and their lengths there, (T,), else 0 and (0,); lists of synapses."""

    ts: np.ndarray
    y0: np.ndarray
    u: np.ndarray
    p: np.ndarray
    q: np.ndarray
    rtol: float
    atol: float
    max_steps: int
    substeps: int
    lengths: np.ndarray
    wiring: np.ndarray


class Record(NamedTuple):
    """The steps of each sample. Fields: times (B, K+1); lengths (B, K); states (B, S, D) before every `stride`-th step;
    interval (B, K); event (B, K), -1 where none; rows (B, T+1) of the states at output times; outputs (T+1, B, D);
    packets that were sent, (B, M, 4): kind, unit, target and row of the event; when they are due, (B, M). A step that ends with
    packet k has -2 - k for its event."""

    times: np.ndarray
    lengths: np.ndarray
    states: np.ndarray
    interval: np.ndarray
    event: np.ndarray
    rows: np.ndarray
    outputs: np.ndarray
    sent: np.ndarray
    due: np.ndarray


class Samples(NamedTuple):
    """Where each sample stands. Fields: integers (B, 14), by the names STATUS … JUDGED; numbers (B, 6), TIME … TWO; y (B, D);
    guards (B, G) and whether each has fired and not been below zero since; the first stage of the next step, (B, D); numbers of
    the packets on their way, a heap, (B, M)."""

    whole: np.ndarray
    real: np.ndarray
    y: np.ndarray
    levels: np.ndarray
    spent: np.ndarray
    first: np.ndarray
    heap: np.ndarray


# The number of steps taken, that of the interval, the distance of the states that are kept, whether the first stage is known;
# of a failure the guard, the kind and two numbers; whether a start with guards on zero was found to be right.
STATUS, TAKEN, REJECTED, ATTEMPTS, INTERVAL, STRIDE, FAILED, AFTER_REJECTION, KNOWN, WRONG, SAMPLE, SENT, ON_WAY = range(13)
JUDGED = 13
TIME, NEXT, SLOWEST, AT_ONCE, ONE, TWO = range(6)


class Work(NamedTuple):
    """Room of one group of samples. Fields: of a step; powers (4, W) and levels (parts, G) of a search; states of a sample
    (6, D); levels (3, G); sums that nobody reads; w and wb."""

    step: Room
    powers: np.ndarray
    parts: np.ndarray
    states: np.ndarray
    levels: np.ndarray
    sums: Sums
    w: np.ndarray
    wb: np.ndarray


def keep(record, whole, limit, y):
    """Note the state before the next step where that is one that is kept; thins what is kept where it becomes too much."""
    row, stride, s = whole[TAKEN], whole[STRIDE], whole[SAMPLE]
    if row % stride != 0:
        return
    if limit > 0 and row // stride >= 2 * stride:
        for k in range(stride):
            for d in range(D):
                record.states[s, k, d] = record.states[s, 2 * k, d]
        stride *= 2
        whole[STRIDE] = stride
        if row % stride != 0:
            return
    for d in range(D):
        record.states[s, row // stride, d] = y[d]


def fail(whole, real, status, guard, what, one, two):
    whole[STATUS], whole[FAILED], whole[WRONG] = status, guard, what
    real[ONE], real[TWO] = one, two


def event_of(trial, values, t, t_end, h, y, whole, real, levels, spent, work):
    """Look for an event in a step whose stages stand in the room: its guard, -1 for none, -2 for one that is wrong; its time
    and the length of the step up to it. The states before and after the jump are states[3] and states[4]."""
    minus, plus = work.states[3], work.states[4]
    guard, guess = find(t, t_end, h, y, values, work.step, work.powers, levels, spent, work.states[5], work.parts)
    if guard < 0:
        return -1, t_end, h
    length = 0.0
    if guess < 0.0:
        for d in range(D):
            minus[d] = y[d]
    else:
        length = polish(guard, guess * h, t, t_end, h, y, values, work.step, minus, work.sums)
    time = min(t + length, t_end)
    speed = speed_at(guard, time, minus, values, work.step.rows[1], work.step.rows[2], work.sums)
    real[SLOWEST] = min(real[SLOWEST], speed)
    after_event(guard, time, minus, values, plus)
    what, other, one, two = judge(guard, time, minus, plus, speed, values, work.step, work.levels, work.sums)
    real[AT_ONCE] = real[AT_ONCE] + 1.0 if length <= 1e-12 * max(abs(t), 1.0) else 0.0
    if what != NOTHING:
        fail(whole, real, EVENT, other, what, one, two)
        whole[INTERVAL] = guard  # which fired; the sample goes no further
        real[TIME] = time
        return -2, time, length
    if real[AT_ONCE] > G + 5:
        fail(whole, real, EVENT, guard, PILED, real[AT_ONCE], 0.0)
        return -2, time, length
    return guard, time, length


def attempt(trial, record, values, samples, limit, s, work):
    """Try one step of a sample."""
    whole, real, y, first = samples.whole[s], samples.real[s], samples.y[s], samples.first[s]
    t, last = real[TIME], whole[INTERVAL] + 1
    target, lands = trial.ts[last], False
    if KINDS > 0:
        due = next_due(samples.heap[s], whole[ON_WAY], record.due[s])
        lands = due <= target
        target = min(due, target)
        if lands and target <= t:
            land(record, values, samples, t, 0.0, y, limit, s, work)
            return
    left = target - t
    reaches = real[NEXT] * STRETCH >= left
    h, t_end = (left, target) if reaches else (real[NEXT], t + real[NEXT])
    new = work.states[0]
    size = error_of_trial(trial, values, whole, t, t_end, h, y, first, new, work)
    fine = math.isfinite(size)
    accepted = fine and size <= 1.0
    proposed = rounded(h * proposed_factor(size, fine, accepted, whole[AFTER_REJECTION]))
    whole[ATTEMPTS] += 1
    whole[AFTER_REJECTION] = not accepted
    if not accepted:
        reject(whole, real, first, proposed, target, work)
        return
    guard = -1
    if G > 0:
        guard, t_end, length = event_of(trial, values, t, t_end, h, y, whole, real, samples.levels[s], samples.spent[s], work)
        if guard == -2:
            return
        if guard >= 0:
            # The step is taken again up to the event; being shorter than one that was accepted, its error is not judged again.
            h, reaches, proposed, new = length, False, max(proposed, real[NEXT]), work.states[4]
    # A step cut short by an output time or a packet says nothing against the longer one proposed before.
    real[NEXT] = max(proposed, real[NEXT]) if reaches else proposed
    if reaches and lands:
        land(record, values, samples, t_end, h, new, limit, s, work)
        return
    if G > 0 and (guard >= 0 or not brief(h, t_end)):
        levels, spent = samples.levels[s], samples.spent[s]
        arrive(guard, t_end, work.states[3], new, values, work.step, levels, spent, work.levels[2], work.sums)
    if KINDS > 0 and guard >= 0:
        whole[SENT], whole[ON_WAY] = send(
            guard, whole[TAKEN], t_end, values, record.sent[s], record.due[s], samples.heap[s], whole[SENT], whole[ON_WAY]
        )
    whole[KNOWN] = SAME and guard < 0 and not (reaches and trial.u.shape[2] > 0)
    for d in range(D):
        first[d] = work.step.slopes[STAGES - 1, d]
    write(record, whole, real, t_end, h, guard, new, y, limit, s)
    if reaches:
        whole[INTERVAL] = last
        record.rows[s, last] = whole[TAKEN]
        for d in range(D):
            record.outputs[last, s, d] = y[d]


def error_of_trial(trial, values, whole, t, t_end, h, y, first, new, work):
    """Size of the error of a step, whose state goes to `new`; NaN where that is not finite."""
    error = work.states[1]
    if whole[KNOWN]:
        for d in range(D):
            work.step.slopes[0, d] = first[d]
            work.step.states[0, d] = y[d]
    tried(whole[KNOWN], t, t_end, h, y, values, work.step, new)
    error_of(h, work.step.slopes, error)
    fine = True
    for d in range(D):
        fine = fine and math.isfinite(new[d])
    return norm(error, trial.atol, trial.rtol, y, new) if fine else math.nan


def reject(whole, real, first, proposed, target, work):
    """Go back, with a shorter step to try."""
    whole[REJECTED] += 1
    real[NEXT] = proposed
    whole[KNOWN] = 1
    for d in range(D):
        first[d] = work.step.slopes[0, d]
    if proposed <= SMALLEST * max(abs(real[TIME]), abs(target)):
        whole[STATUS] = STUCK


def write(record, whole, real, t_end, h, event, new, y, limit, s):
    """Write down a step, and go on from the state after it."""
    row = whole[TAKEN]
    record.lengths[s, row], record.interval[s, row], record.event[s, row] = h, whole[INTERVAL], event
    record.times[s, row + 1] = t_end
    whole[TAKEN] = row + 1
    real[TIME] = t_end
    for d in range(D):
        y[d] = new[d]
    keep(record, whole, limit, y)


def land(record, values, samples, t, h, new, limit, s, work):
    """Deliver the next packet at the end of a step of length h in the state `new`."""
    whole, real, y = samples.whole[s], samples.real[s], samples.y[s]
    k = pop(samples.heap[s], whole[ON_WAY], record.due[s])
    whole[ON_WAY] -= 1
    after = work.states[2]
    for d in range(D):
        after[d] = new[d]
    deliver(record.sent[s, k, 0], record.sent[s, k, 1], record.sent[s, k, 2], values.wiring, values.p, after)
    before = work.levels[0]
    levels_of(t, new, values.p, values.q, values.w, before)
    now, levels, spent = work.levels[1], samples.levels[s], samples.spent[s]
    levels_of(t, after, values.p, values.q, values.w, now)
    for g in range(G):
        if brief(h, t) and now[g] == before[g]:  # it stays as its event left it
            continue
        levels[g], spent[g] = now[g], spent[g] and now[g] >= 0.0
        if before[g] < -TIE and now[g] >= 0.0:
            fail(whole, real, EVENT, g, RAISED_BY_PACKET, before[g], now[g])
            real[TIME] = t
            return
    whole[KNOWN] = 0
    write(record, whole, real, t, h, -2 - k, after, y, limit, s)


def values_of(trial, s, interval, work):
    return Values(trial.p, trial.q[s], trial.u[interval, s], work.w, work.wb, trial.wiring)


def sound(trial, samples, s, values, work):
    """Note the guards at the start, and f in states[0]; whether they are below zero and f is a number."""
    y, levels, fine = samples.y[s], samples.levels[s], True
    levels_of(trial.ts[0], y, values.p, values.q, values.w, levels)
    for g in range(G):
        fine = fine and levels[g] < 0.0 and math.isfinite(levels[g])
        if levels[g] >= 0.0:  # what is on zero at the start is leaving it, or is refused
            levels[g] = -TINY
    field(trial.ts[0], y, values.u, values.p, values.q, values.w, work.states[0])
    for d in range(D):
        fine = fine and math.isfinite(work.states[0, d])
    return fine


def begin(trial, record, samples, s, values, work):
    """The first row of a sample's record. One whose start has to be judged first waits with START."""
    whole, real, y = samples.whole[s], samples.real[s], samples.y[s]
    for d in range(D):
        y[d] = trial.y0[s, d]
    if not sound(trial, samples, s, values, work) and not whole[JUDGED]:
        whole[STATUS] = START
        return
    real[TIME], record.times[s, 0], record.rows[s, 0] = trial.ts[0], trial.ts[0], 0
    whole[STATUS], whole[STRIDE], whole[SAMPLE] = RUNNING, 1, s
    real[SLOWEST] = math.inf
    for d in range(D):
        record.outputs[0, s, d] = y[d]
        record.states[s, 0, d] = y[d]
    if trial.substeps == 0:
        real[NEXT] = first_length(trial, values, real[TIME], y, work)


def adaptive(trial, record, samples, limit, work, s):
    """Steps of one sample until it has arrived, failed, or has no room."""
    whole = samples.whole[s]
    steps, states = record.lengths.shape[1], record.states.shape[1]
    while whole[STATUS] == RUNNING:
        if whole[INTERVAL] >= len(trial.ts) - 1:
            whole[STATUS] = DONE
        elif whole[ATTEMPTS] >= trial.max_steps:
            whole[STATUS] = TOO_MANY
        elif whole[TAKEN] >= steps or (whole[TAKEN] + 1) // whole[STRIDE] >= states or whole[SENT] + MOST > record.due.shape[1]:
            whole[STATUS] = FULL
        else:
            values = values_of(trial, s, whole[INTERVAL], work)
            attempt(trial, record, values, samples, limit, s, work)


def fixed(trial, record, samples, limit, work, s):
    """Fixed steps of one sample."""
    whole, real, y = samples.whole[s], samples.real[s], samples.y[s]
    new, m = work.states[0], trial.substeps
    for n in range(len(trial.ts) - 1):
        values = values_of(trial, s, n, work)
        h = trial.lengths[n]
        for k in range(m):
            row = whole[TAKEN]
            t = record.times[s, row]
            t_end = trial.ts[n + 1] if k == m - 1 else trial.ts[n] + (k + 1) * h
            taken(t, t_end, h, y, values, work.step, new)
            record.lengths[s, row], record.interval[s, row], record.event[s, row] = h, n, -1
            record.times[s, row + 1] = t_end
            whole[TAKEN] = row + 1
            for d in range(D):
                y[d] = new[d]
            keep(record, whole, limit, y)
        record.rows[s, n + 1] = whole[TAKEN]
        for d in range(D):
            record.outputs[n + 1, s, d] = y[d]
    real[TIME], whole[STATUS] = trial.ts[-1], DONE


def forward(trial, record, samples, limit, work, first, last):
    """Run samples first … last-1, from where each stands.

    Args:
        limit: 1 to keep about 2√n states of n steps, 0 to keep all.
    """
    for s in range(first, last):
        if samples.whole[s, STRIDE] == 0:
            begin(trial, record, samples, s, values_of(trial, s, 0, work), work)
        elif samples.whole[s, STATUS] == FULL:
            samples.whole[s, STATUS] = RUNNING
        if samples.whole[s, STATUS] != RUNNING:
            continue
        if trial.substeps > 0:
            fixed(trial, record, samples, limit, work, s)
        else:
            adaptive(trial, record, samples, limit, work, s)
