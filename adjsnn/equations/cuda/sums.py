"""Sums of a Runge–Kutta method in loops: written out, as `adjsnn.equations.method` does, they crowd a thread's registers."""

from adjsnn.equations.cpu.names import COUNT, DENSE, ERROR, STAGES, WATCHED, A, B, D


def stage_state(i, h, y, slopes, state):
    """As `adjsnn.equations.cpu.names.stage_state`; so are the others."""
    for d in range(D):
        total = 0.0
        for j in range(i):
            total += A[i, j] * slopes[j, d]
        state[d] = y[d] + h * total


def end_state(h, y, slopes, new):
    for d in range(D):
        total = 0.0
        for j in range(COUNT):
            total += B[j] * slopes[j, d]
        new[d] = y[d] + h * total


def error_of(h, slopes, error):
    for d in range(D):
        total = 0.0
        for j in range(STAGES):
            total += ERROR[j] * slopes[j, d]
        error[d] = h * total


def slope_cotangent(i, h, bar, bars, out):
    for d in range(D):
        total = B[i] * bar[d]
        for j in range(i + 1, COUNT):
            total += A[j, i] * bars[j, d]
        out[d] = h * total


def extend(h, slopes, powers):
    for k in range(len(WATCHED)):
        for n in range(DENSE.shape[1]):
            total = 0.0
            for j in range(STAGES):
                total += DENSE[j, n] * slopes[j, WATCHED[k]]
            powers[n, k] = h * total
