"""How long the steps of one sample are: the first from the field, the others from the error of the one before."""

import math

from adjsnn.equations.cpu.names import D, field
from adjsnn.hybrid.adaptive import GROW, KEPT_BITS, SAFETY, SHRINK

SHIFT = 2.0 ** (53 - KEPT_BITS) + 1.0


def norm(x, atol, rtol, one, other):
    """Root mean square of x / (atol + rtol max(|one|, |other|))."""
    total = 0.0
    for d in range(D):
        e = x[d] / (atol + rtol * max(abs(one[d]), abs(other[d])))
        total += e * e
    return math.sqrt(total / D)


def rounded(x):
    """x to KEPT_BITS bits: so no step length depends on how a power was rounded."""
    shifted = x * SHIFT
    return shifted - (shifted - x)


def first_length(trial, values, t, y, work):
    """First step to try, from the size of f, which stands in states[0], and of its change (Hairer, Nørsett & Wanner, II.4)."""
    first, ahead, state = work.states[0], work.states[1], work.states[2]
    atol, rtol = trial.atol, trial.rtol
    d0, d1 = norm(y, atol, rtol, y, y), norm(first, atol, rtol, y, y)
    h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
    h0 = min(rounded(h0), trial.ts[1] - trial.ts[0])
    for d in range(D):
        state[d] = y[d] + h0 * first[d]
    field(t + h0, state, values.u, values.p, values.q, values.w, ahead)
    for d in range(D):
        ahead[d] -= first[d]
    d2 = norm(ahead, atol, rtol, y, y) / h0
    largest = max(d1, d2)
    h1 = max(h0 * 1e-3, 1e-6) if largest <= 1e-15 else (0.01 / largest) ** (1.0 / 5.0)
    h = min(100.0 * h0, rounded(h1))
    if math.isfinite(h) and h > 0.0:
        return h
    return h0 if math.isfinite(h0) else 1e-6


def proposed_factor(size, fine, accepted, after_rejection):
    """By how much the next step is longer."""
    factor = SHRINK
    if fine:
        factor = GROW if size == 0.0 else min(max(SAFETY * size ** (-1.0 / 5.0), SHRINK), GROW)
    return min(factor, 1.0) if after_rejection or not accepted else factor
