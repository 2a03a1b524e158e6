"""A part of the threshold that follows the voltage, compiled by numba: its flow, bounds, and what it adds to f, (6.9), (6.10).

It is the last number of a neuron's row, w, and its rate q the last one of th_rate; `kinds.follow` holds κ, or no column.
"""

from math import exp

from adjsnn.lif.cpu.glif_kernels import BIAS, CURRENTS, SHARED, V_TH, V, fading, kernel, three
from adjsnn.numerics.compiled import EXACT_BARE, EXACT_BARE_INLINE, compiled


@compiled(**EXACT_BARE)
def share_following(kinds, shared, kind, e_mu, t):
    """K(q, μ), e_q∗e_μ∗e_0 and e_q∗e_μ∗e_r of each current, behind the exponentials of `share`."""
    mu, q = kinds.leak_rate[kind], kinds.th_rate[kind, -1]
    at = SHARED + 2 * kinds.rate.shape[1] + kinds.th_rate.shape[1]
    shared[at] = kernel(mu, e_mu, q, t)[1]
    shared[at + 1] = three(q, mu, 0.0, t)
    for p in range(kinds.rate.shape[1]):
        shared[at + 2 + p] = three(q, mu, kinds.rate[kind, p], t)


@compiled(**EXACT_BARE_INLINE)
def followed(kinds, shared, kind, x):
    """w of a neuron that is not held, over the time of `shared`."""
    n_c = kinds.rate.shape[1]
    at = SHARED + 2 * n_c + kinds.th_rate.shape[1]
    fed = x[BIAS] * shared[at + 1]
    for p in range(n_c):
        fed += x[CURRENTS + p] * shared[at + 2 + p]
    return x[-1] * shared[at - 1] + kinds.follow[kind, 0] * (x[V] * shared[at] + kinds.gain[kind] * fed)


@compiled(**EXACT_BARE_INLINE)
def slope_of(kinds, kind, v, w):
    """ẇ of a neuron that is not held."""
    return kinds.follow[kind, 0] * v - kinds.th_rate[kind, -1] * w


@compiled(**EXACT_BARE)
def retreat(kinds, kind, x, rise, unsure):
    """(slope, bend) so that w(t) ≥ w - slope t - bend t², with room for rounding.

    ẅ = -q ẇ + κ v̇, and v̇ = v̇(0) e_μ - G Σ r c K(μ, r) with r K ≤ 1 lies between min(v̇(0), 0) - G Σ_{c>0} c and the like above.

    Args:
        rise: v̇ now.
        unsure: its rounding.
    """
    kappa, against = kinds.follow[kind, 0], 0.0
    sign = 1.0 if kappa > 0.0 else -1.0
    for p in range(kinds.rate.shape[1]):
        against += max(sign * x[CURRENTS + p], 0.0)
    against = kinds.gain[kind] * against + max(-sign * rise + unsure, 0.0)
    size = abs(kappa * x[V]) + kinds.th_rate[kind, -1] * abs(x[-1])
    return max(2.0**-40 * size - slope_of(kinds, kind, x[V], x[-1]), 0.0), 0.5 * (1.0 + 2.0**-40) * abs(kappa) * against


@compiled(**EXACT_BARE)
def lowest(kinds, kind, x, high):
    """A bound of w for all times from the largest v, `high`; w is a mean of what it is and of what it is led to."""
    mu, gain, kappa = kinds.leak_rate[kind], kinds.gain[kind], kinds.follow[kind, 0]
    low = min(x[V], x[BIAS] * gain / mu)
    for p in range(kinds.rate.shape[1]):
        low += gain * min(x[CURRENTS + p], 0.0) * kinds.most[kind, p]
    return min(x[-1], kappa / kinds.th_rate[kind, -1] * (low if kappa > 0.0 else high))


@compiled(**EXACT_BARE_INLINE)
def feeds(kinds, kind, x):
    """Whether w is led anywhere but to 0."""
    if kinds.follow[kind, 0] == 0.0:
        return False
    for p in range(kinds.rate.shape[1]):
        if x[CURRENTS + p] != 0.0:
            return True
    return x[V] != 0.0 or x[BIAS] != 0.0


@compiled(**EXACT_BARE)
def slowest_following(kinds, kind, x):
    """The slowest rate of what f is made of."""
    mu, q, fed, base = kinds.leak_rate[kind], kinds.th_rate[kind, -1], feeds(kinds, kind, x), 1e300
    if kinds.gain[kind] * x[BIAS] != mu * x[V_TH] or (fed and x[BIAS] != 0.0):
        return 0.0
    if x[V] != x[V_TH] or fed:
        base = mu
    if x[-1] != 0.0 or fed:
        base = min(base, q)
    for p in range(kinds.rate.shape[1]):
        if x[CURRENTS + p] != 0.0:
            base = min(base, mu, kinds.rate[kind, p])
    for m in range(kinds.th_rate.shape[1] - 1):
        if x[CURRENTS + kinds.rate.shape[1] + m] != 0.0:
            base = min(base, kinds.th_rate[kind, m])
    return base if base < 1e300 else 0.0


@compiled(**EXACT_BARE)
def over_following(kinds, kind, x, base, t):
    """f = v - θ, g = (d/dt + μ) f and (d/dt + q) g at t, all times e^{base t}, of which no rate is below base."""
    mu, gain, n_c, n_h = kinds.leak_rate[kind], kinds.gain[kind], kinds.rate.shape[1], kinds.th_rate.shape[1] - 1
    q, kappa, fed = kinds.th_rate[kind, -1], kinds.follow[kind, 0], feeds(kinds, kind, x)
    drive, leak, late = gain * x[BIAS], mu - base, q - base
    push = drive - mu * x[V_TH]
    e_mu, e_bias = fading(leak, t)  # base > 0 only where push = 0, and the drive if w is fed
    f, g, below = (x[V] - x[V_TH]) * e_mu + push * e_bias, push, q * push - kappa * drive
    w, v = x[-1] * exp(-late * t), 0.0
    if fed:
        v = x[V] * e_mu + drive * e_bias
        w += kappa * (x[V] * kernel(leak, e_mu, late, t)[1] + (drive * three(late, leak, 0.0, t) if drive != 0.0 else 0.0))
    for p in range(n_c):
        c = gain * x[CURRENTS + p]
        if c != 0.0:
            r = kinds.rate[kind, p]
            e, k = kernel(leak, e_mu, r - base, t)
            f += c * k
            g += c * e
            below += c * (q - r - kappa) * e
            if fed:
                v += c * k
                w += kappa * c * three(late, leak, r - base, t)
    for m in range(n_h):
        if x[CURRENTS + n_c + m] != 0.0:
            s = kinds.th_rate[kind, m]
            h = x[CURRENTS + n_c + m] * exp(-(s - base) * t)
            f -= h
            g += (s - mu) * h
            below += (s - mu) * (q - s) * h
    return f - w, g - (mu - q) * w - kappa * v, below


@compiled(**EXACT_BARE)
def terms_following(kinds, kind, x, work):
    """(d/dt + q) g as a sum of exponentials, as `terms_of` does for g."""
    mu, gain, n_c, slots = kinds.leak_rate[kind], kinds.gain[kind], kinds.rate.shape[1], kinds.slots[kind]
    q, kappa = kinds.th_rate[kind, -1], kinds.follow[kind, 0]
    for k in range(slots):
        work[0, 0, k] = 0.0
    drive = gain * x[BIAS]
    work[0, 0, 0] = q * (drive - mu * x[V_TH]) - kappa * drive
    for p in range(n_c):
        work[0, 0, kinds.slot[kind, 1 + p]] += gain * x[CURRENTS + p] * (q - kinds.rate[kind, p] - kappa)
    for m in range(kinds.th_rate.shape[1] - 1):
        s = kinds.th_rate[kind, m]
        work[0, 0, kinds.slot[kind, 1 + n_c + m]] += (s - mu) * (q - s) * x[CURRENTS + n_c + m]
    count = 0
    for k in range(slots):
        if work[0, 0, k] != 0.0:
            work[0, 0, count], work[0, 1, count] = work[0, 0, k], kinds.slot_rate[kind, k]
            count += 1
    return count
