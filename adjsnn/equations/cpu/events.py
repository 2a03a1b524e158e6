"""Events inside one step of one sample: found on its continuous extension, located on the step itself, (3.4).

The same search as that of `adjsnn.hybrid.events` and `adjsnn.hybrid.crossings`, where it is explained, but for the parabola
there: here to divide once more costs little.
"""

import math

from adjsnn.equations.cpu.names import DENSE, WATCHED, D, G, extend, field, jump, level_of, levels_of, pull_level
from adjsnn.equations.cpu.steps import taken
from adjsnn.hybrid.crossings import FINER, LONGEST, PIECES, ROUNDS, TIE
from adjsnn.hybrid.event_steps import POLISHES
from adjsnn.hybrid.events import BRIEF

STRAIGHT = 1e-5  # part of the step over which a guard has one speed, for Newton's method
EPS = 2.0**-52
TINY = 2.0**-1022
ROUNDINGS = 64.0 * EPS
FINEST = PIECES ** (FINER + 1)  # parts of a step, most
NOTHING, TOUCH, NO_NUMBER, NO_NUMBER_AFTER, OWN, OTHER, PILED, RAISED_BY_PACKET = range(8)  # what an event may turn out to be


def levels_at(sigma, t, h, y, values, powers, begins, state, levels):
    """levels ← φ at a fraction of the step."""
    if sigma <= 0.0:
        for g in range(G):
            levels[g] = begins[g]
        return
    for k in range(len(WATCHED)):
        increment = 0.0
        for n in range(DENSE.shape[1] - 1, -1, -1):
            increment = (increment + powers[n, k]) * sigma
        state[WATCHED[k]] = y[WATCHED[k]] + increment
    levels_of(t + sigma * h, state, values.p, values.q, values.w, levels)


def rises(before, after):
    return not (before >= 0.0 or after < 0.0)


def may_exceed(levels, parts, k, g):
    """Whether guard g, below zero at both ends of part k, may rise above zero inside; see `adjsnn.hybrid.excursions`."""
    before, after = levels[k, g], levels[k + 1, g]
    if not (before < 0.0 and after < 0.0):
        return False
    rise = math.inf if k == 0 else before - levels[k - 1, g]
    fall = math.inf if k == parts - 1 else after - levels[k + 2, g]
    if not (rise > 0.0 and fall > 0.0):
        return False
    if rise == math.inf:
        bound = after + fall
    elif fall == math.inf:
        bound = before + rise
    else:
        bound = before + rise * (after + fall - before) / (rise + fall)
    return bound >= 0.0


def first_part(levels, parts):
    """The first part in which a guard rises, -1 where there is none; and whether one may in a part before."""
    found = -1
    for k in range(parts):
        for g in range(G):
            if rises(levels[k, g], levels[k + 1, g]):
                found = k
        if found >= 0:
            break
    hidden = False
    for k in range(parts if found < 0 else found):
        for g in range(G):
            hidden = hidden or may_exceed(levels, parts, k, g)
    return found, hidden


def search(t, h, y, values, powers, begins, state, levels):
    """Where the first part of the step begins and ends in which a guard rises, and whether there is one."""
    parts, found = 1, -1
    for _ in range(FINER + 1):
        parts *= PIECES
        for k in range(parts + 1):
            levels_at(k / parts, t, h, y, values, powers, begins, state, levels[k])
        found, hidden = first_part(levels, parts)
        if not hidden:
            break
    return max(found, 0) / parts, (found + 1) / parts if found >= 0 else 1.0, found >= 0


def divide(low, high, t, h, y, values, powers, begins, state, levels):
    """The first of PIECES parts between two fractions in which a guard rises."""
    width = (high - low) / PIECES
    for k in range(PIECES + 1):
        levels_at(low + k * width, t, h, y, values, powers, begins, state, levels[k])
    for k in range(PIECES):
        for g in range(G):
            if rises(levels[k, g], levels[k + 1, g]):
                return low + k * width, low + (k + 1) * width
    return low, high


def cross(low, high, t, h, y, values, powers, begins, state, levels):
    """Where the first guard crosses zero between two near fractions, along chords, and which."""
    levels_at(low, t, h, y, values, powers, begins, state, levels[0])
    levels_at(high, t, h, y, values, powers, begins, state, levels[1])
    least, guard = math.inf, 0
    for g in range(G):
        before, after = levels[0, g], levels[1, g]
        if rises(before, after):
            chord = before / (before - after) if math.isfinite(before) and math.isfinite(after) else 1.0
            if chord < least:
                least, guard = chord, g
    return low + min(least, 1.0) * (high - low), guard


def slopes_at(g, t, y, values, slope, sums):
    """slope ← φ_y of guard g; returns φ_t. What parameters would get goes to `sums`, which nobody reads."""
    for d in range(D):
        slope[d] = 0.0
    return pull_level(g, t, y, values.p, values.q, values.w, values.wb, 1.0, slope, sums.p, sums.q)


def speed_at(g, t, y, values, slope, flow, sums):
    """dφ/dt of guard g along the flow; leaves φ_y in `slope` and f in `flow`."""
    speed = slopes_at(g, t, y, values, slope, sums)
    field(t, y, values.u, values.p, values.q, values.w, flow)
    for d in range(D):
        speed += slope[d] * flow[d]
    return speed


def rounding(slope, y, speed, t):
    """What rounding of the state and of the time leaves of a guard."""
    total = abs(speed) * abs(t)
    for d in range(D):
        total += abs(slope[d] * y[d])
    return ROUNDINGS * total


def polish(g, guess, t, span_end, h, y, values, room, minus, sums):
    """The length at which the guard of the step itself is zero, by Newton's method; minus ← the state there."""
    length, known, settled, speed = guess, False, False, 0.0
    slope, flow = room.rows[1], room.rows[2]
    for n in range(POLISHES + 1):
        end = min(t + length, span_end)
        taken(t, end, length, y, values, room, minus)
        if n == POLISHES or settled:
            break
        if not known:
            speed, known = speed_at(g, end, minus, values, slope, flow, sums), True
        change = level_of(g, end, minus, values.p, values.q, values.w) / speed
        if not math.isfinite(change):
            change = 0.0
        length = min(max(length - change, 0.0), h)
        settled = abs(change) <= 4.0 * EPS * (abs(t) + h)
        if not (settled or abs(change) <= STRAIGHT * h):
            known = False
    return length


def brief(h, t_end):
    """Whether a step is so short that all a guard does in it is rounding: one that left zero could seem to come back."""
    return h <= BRIEF * EPS * abs(t_end)


def find(t, span_end, h, y, values, room, powers, begins, spent, state, levels):
    """The first event of a step that may be taken: its guard, -1 where there is none, and a guess of its fraction; -1 for one
    that waits since the step began, in the same instant as one before."""
    extend(h, room.slopes, powers)
    low, high, found = 0.0, 1.0, False
    if not brief(h, span_end):
        low, high, found = search(t, h, y, values, powers, begins, state, levels)
    top = -math.inf
    for g in range(G):
        if begins[g] >= 0.0 and not spent[g]:
            return g, -1.0
        top = max(top, begins[g])
    if not found:
        return -1, 0.0
    for divided in range(LONGEST):
        # A flight that begins on zero may be any part of the step, and has no chord from its start.
        if divided >= ROUNDS and not (low == 0.0 and top > -TIE):
            break
        low, high = divide(low, high, t, h, y, values, powers, begins, state, levels)
    guess, guard = cross(low, high, t, h, y, values, powers, begins, state, levels)
    return guard, guess


def judge(guard, t, minus, plus, speed, values, room, levels, sums):
    """What is wrong with an event, and the guard and two numbers to tell; NOTHING where it is a clear crossing."""
    before, after = levels[0], levels[1]
    levels_of(t, minus, values.p, values.q, values.w, before)
    levels_of(t, plus, values.p, values.q, values.w, after)
    for g in range(G):
        if not before[g] < math.inf:
            return NO_NUMBER, g, before[g], 0.0
    for g in range(G):
        if not after[g] < math.inf:
            return NO_NUMBER_AFTER, g, after[g], 0.0
    room_left = max(ROUNDINGS + rounding(room.rows[1], minus, speed, t), TIE)
    if not (abs(before[guard]) <= room_left and speed > 0.0):
        return TOUCH, guard, before[guard], speed
    for g in range(G):
        if after[g] < 0.0 or (g != guard and before[g] >= -TIE):
            continue
        if g != guard:
            return OTHER, g, before[g], after[g]
        if after[g] <= TIE and after[g] == before[g]:
            continue
        slope, flow = room.rows[1], room.rows[2]
        leaving = speed_at(g, t, plus, values, slope, flow, sums)
        if not after[g] <= rounding(slope, plus, leaving, t):
            return OWN, g, before[g], after[g]
    return NOTHING, guard, 0.0, 0.0


def arrive(guard, t, minus, y, values, room, levels, spent, new, sums):
    """levels ← the guards at the state y from which the next step starts; see `adjsnn.hybrid.events`."""
    levels_of(t, y, values.p, values.q, values.w, new)
    if guard >= 0:
        spent[guard] = False
        if new[guard] >= -TIE:
            own = new[guard]
            unmoved = own == level_of(guard, t, minus, values.p, values.q, values.w)
            slope, flow = room.rows[1], room.rows[2]
            speed = speed_at(guard, t, y, values, slope, flow, sums)
            if unmoved or (own >= 0.0 and own <= rounding(slope, y, speed, t)):
                new[guard] = -TINY if speed < 0.0 else 0.0
                spent[guard] = True
    for g in range(G):
        levels[g] = new[g]
        spent[g] = spent[g] and new[g] >= 0.0


def after_event(guard, t, minus, values, plus):
    """plus ← the state after the jump."""
    jump(guard, t, minus, values.p, values.q, values.w, plus)
