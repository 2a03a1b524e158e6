"""LIF layers on a clock (5.1) and their adjoint as fused loops for the CPU; the plain program is `adjsnn.lif.clocked.unroll`.

Arrays over time have the neurons of all samples in one row, (T+1, B·N), in the layer's dtype; S is int8: FREE, SPIKES or HELD.
A few samples, a tile, are solved together, so that the loops over neurons are long; a layer's numbers are repeated for each.
"""

from typing import NamedTuple

import numpy as np

from adjsnn.numerics.compiled import EXACT, EXACT_BARE, compiled

FREE, SPIKES, HELD = 0, 1, 2


class Clocked(NamedTuple):
    """A layer in steps, its numbers repeated for each of the S samples of a tile, (S·N,) unless said otherwise.

    Attributes:
        bias: b.
        v_th: threshold.
        v_reset: reset.
        alpha: α.
        beta: β.
        kappa: κ.
        hold: steps at the reset, int32.
        holds: whether any is held at all.
        lags: of the recurrent weights, (L,), int64.
        weights: those of each lag, (L, N, N), as (from, to) forward and (to, from) backward.
        drive: added to b in each step, (T, B·N), or of no steps.
        by: whether the reset is by v_th - v_reset.
        through: whether the gradient goes through S in the reset.
    """

    bias: np.ndarray
    v_th: np.ndarray
    v_reset: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    kappa: np.ndarray
    hold: np.ndarray
    holds: bool
    lags: np.ndarray
    weights: np.ndarray
    drive: np.ndarray
    by: bool
    through: bool


class Steps(NamedTuple):
    """What a layer did, (T+1, B·N); or the cotangents of that, of no rows where a loss has none.

    Attributes:
        peak: v before resets.
        i: the current; before the forward loop what arrives.
    """

    peak: np.ndarray
    i: np.ndarray


class Slope(NamedTuple):
    """σ′ of the loops' own, or what was computed of another.

    Attributes:
        shape: 1 + its number in SHAPES of `lif/clocked.py`; 0 where `values` are given.
        gamma: γ, in the layer's dtype.
        height: likewise.
        values: σ′(peak - v_th), (T+1, B·N), or of no rows.
    """

    shape: int
    gamma: np.floating
    height: np.floating
    values: np.ndarray


class Back(NamedTuple):
    """Cotangents and gradients, each sample's own, (B·N,) unless said otherwise.

    Attributes:
        v: λ_v of the next row, zeros; on return at row 0.
        i: λ_i of each row, the cotangent of what arrives, (T+1, B·N).
        bias: Σ over steps of what reaches v from the flow; times 1 - β it is the gradient of b.
        v_th: of v_th.
        v_reset: of v_reset.
        alpha: of α.
        beta: of β.
        kappa: of κ.
        drive: of the drive, (T, B·N), or of no steps.
        levels: whether those of v_th and v_reset are asked for.
        taus: whether those of α, β and κ are.
    """

    v: np.ndarray
    i: np.ndarray
    bias: np.ndarray
    v_th: np.ndarray
    v_reset: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    kappa: np.ndarray
    drive: np.ndarray
    levels: bool
    taus: bool


@compiled(**EXACT)
def forward(layer, steps, state, spikes, held, memory, first, last):
    """Steps of samples first … last-1 from row 0 of steps.peak, in place; i holds what arrives and becomes the current.

    Args:
        layer: Clocked, its weights (from, to).
        steps: Steps; row 0 of peak is given, and i⁻ at time 0 is in i already.
        state: S, (T+1, B·N), int8; written.
        spikes: the same in numbers, 0 or 1; written.
        held: how many steps more a neuron stays, (B·N,), int32, zeros.
        memory: (S·N,), for v⁺.
        first: of the samples.
        last: one past the last of them.
    """
    rows, n_hidden, tile, driven = len(state), layer.weights.shape[2], len(layer.bias), len(layer.drive) > 0
    for n in range(rows):
        for here in range(first * n_hidden, last * n_hidden, tile):
            to = min(here + tile, last * n_hidden)
            i, stays, v = steps.i[n, here:to], held[here:to], memory[: to - here]
            for k in range(len(layer.lags)):
                if layer.lags[k] <= n:
                    sent = state[n - layer.lags[k], here:to]
                    for b in range(0, to - here, n_hidden):
                        _add_spikes(layer.weights[k], sent[b : b + n_hidden], i[b : b + n_hidden])
            _reset(layer, steps.peak[n, here:to], stays, state[n, here:to], spikes[n, here:to], v)
            if n + 1 < rows:
                after = steps.peak[n + 1, here:to]
                _flow(layer, v, i, after, steps.i[n + 1, here:to])
                if driven:
                    _driven(layer, layer.drive[n, here:to], after)
                if layer.holds:
                    _hold(v, stays, after)


@compiled(**EXACT_BARE)
def _add_spikes(weights, s, i):
    for m in range(len(s)):
        if s[m] == SPIKES:
            row = weights[m]
            for j in range(len(i)):
                i[j] += row[j]


@compiled(**EXACT_BARE)
def _reset(layer, peak, held, s, as_number, v):
    v_th, v_reset, hold, size = layer.v_th, layer.v_reset, layer.hold, len(s)
    zero, one = v.dtype.type(0.0), v.dtype.type(1.0)
    if layer.by:
        for j in range(size):
            v[j] = peak[j] + (v_reset[j] - v_th[j])
    else:
        for j in range(size):
            v[j] = peak[j] + (v_reset[j] - peak[j])
    if not layer.holds:
        for j in range(size):
            spikes = peak[j] - v_th[j] >= 0
            s[j], as_number[j] = np.int8(spikes), one if spikes else zero
            v[j] = v[j] if spikes else peak[j]
        return
    for j in range(size):
        spikes = (peak[j] - v_th[j] >= 0) & (held[j] == 0)
        s[j] = np.int8(SPIKES) if spikes else (np.int8(HELD) if held[j] > 0 else np.int8(FREE))
        as_number[j] = one if spikes else zero
        v[j] = v[j] if spikes else peak[j]
        held[j] = hold[j] if spikes else max(held[j] - np.int32(1), np.int32(0))


@compiled(**EXACT_BARE)
def _flow(layer, v, i, peak_next, i_next):
    bias, alpha, beta, kappa = layer.bias, layer.alpha, layer.beta, layer.kappa
    for j in range(len(v)):
        peak_next[j] = bias[j] + beta[j] * (v[j] - bias[j]) + kappa[j] * i[j]
        i_next[j] += alpha[j] * i[j]


@compiled(**EXACT_BARE)
def _driven(layer, drive, peak_next):
    one, beta = peak_next.dtype.type(1.0), layer.beta
    for j in range(len(drive)):
        peak_next[j] += (one - beta[j]) * drive[j]


@compiled(**EXACT_BARE)
def _hold(v, held, peak_next):
    for j in range(len(v)):
        peak_next[j] = v[j] if held[j] > 0 else peak_next[j]


@compiled(**EXACT)
def backward(layer, steps, state, slope, of_spikes, given, into, memory, first, last):
    """The adjoint of `forward`, for samples first … last-1.

    Args:
        layer: Clocked, its weights (to, from).
        steps: Steps, as `forward` left them.
        state: S.
        slope: Slope.
        of_spikes: cotangent of S, (T+1, B·N), or of no rows.
        given: Steps, cotangents of v before resets and i.
        into: Back; written.
        memory: (4, S·N), for the λ_v that flowed on, the cotangent of v⁺, that of S, and σ′.
        first: of the samples.
        last: one past the last of them.
    """
    rows, n_hidden, tile = len(state), layer.weights.shape[2], len(layer.bias)
    for n in range(rows - 1, -1, -1):
        for here in range(first * n_hidden, last * n_hidden, tile):
            to = min(here + tile, last * n_hidden)
            moved, p, d_spikes = memory[0, : to - here], memory[1, : to - here], memory[2, : to - here]
            lam_i = into.i[n, here:to]
            for j in range(to - here):
                p[j] = 0.0
            _given(given.i, n, here, to, lam_i)
            _given(of_spikes, n, here, to, d_spikes)
            if n + 1 < rows:
                _flow_back(layer, state[n + 1, here:to], into.i[n + 1, here:to], into, here, to, moved, p, lam_i)
                if len(into.drive) > 0:
                    _drive_back(layer, moved, into.drive[n, here:to])
                if into.taus:
                    drive = layer.drive[n, here:to] if len(layer.drive) > 0 else layer.bias[:0]
                    _taus_back(layer, steps, state[n, here:to], drive, moved, into, n, here, to)
            for k in range(len(layer.lags)):
                if n + layer.lags[k] < rows:
                    arrived = into.i[n + layer.lags[k], here:to]
                    for b in range(0, to - here, n_hidden):
                        _add_products(layer.weights[k], arrived[b : b + n_hidden], d_spikes[b : b + n_hidden])
            lam_v, peak, steep = into.v[here:to], steps.peak[n, here:to], memory[3, : to - here]
            if slope.shape:
                _steepness(slope, peak, layer.v_th, steep)
            else:
                steep = slope.values[n, here:to]
            _reset_back(layer, peak, state[n, here:to], steep, p, d_spikes, into, here, to)
            if len(given.peak) > 0:
                of_peak = given.peak[n, here:to]
                for j in range(to - here):
                    lam_v[j] += of_peak[j]


@compiled(**EXACT_BARE)
def _steepness(slope, peak, v_th, into):
    """σ′(peak - v_th) of a known shape; as `adjsnn.rules.surrogates`."""
    gamma, height, size = slope.gamma, slope.height, len(into)
    zero, one = into.dtype.type(0.0), into.dtype.type(1.0)
    if slope.shape == 1:
        for j in range(size):
            x = abs(gamma * (peak[j] - v_th[j])) + one
            into[j] = height / (x * x)
    elif slope.shape == 2:
        for j in range(size):
            into[j] = height * max(one - abs(gamma * (peak[j] - v_th[j])), zero)
    elif slope.shape == 3:
        for j in range(size):
            x = gamma * (peak[j] - v_th[j])
            into[j] = height * (max(one + x, zero) if x <= zero else zero)
    elif slope.shape == 4:
        for j in range(size):
            into[j] = height if abs(gamma * (peak[j] - v_th[j])) < one else zero
    else:
        for j in range(size):
            x = gamma * (peak[j] - v_th[j])
            into[j] = height / (x * x + one)


@compiled(**EXACT_BARE)
def _given(cotangent, n, here, to, into):
    """A row of a cotangent, or zeros."""
    if len(cotangent) > 0:
        row = cotangent[n, here:to]
        for j in range(len(into)):
            into[j] = row[j]
    else:
        zero = into.dtype.type(0.0)
        for j in range(len(into)):
            into[j] = zero


@compiled(**EXACT_BARE)
def _flow_back(layer, after, lam_next, into, here, to, moved, p, lam_i):
    """From the next row to v⁺ and i of this one."""
    lam_v, bias, zero = into.v[here:to], into.bias[here:to], p.dtype.type(0.0)
    alpha, beta, kappa = layer.alpha, layer.beta, layer.kappa
    if layer.holds:
        for j in range(len(p)):
            moved[j] = zero if after[j] == HELD else lam_v[j]
            p[j] += lam_v[j] - moved[j]
    else:
        for j in range(len(p)):
            moved[j] = lam_v[j]
    for j in range(len(p)):
        p[j] += beta[j] * moved[j]
        lam_i[j] += alpha[j] * lam_next[j] + kappa[j] * moved[j]
        bias[j] += moved[j]


@compiled(**EXACT_BARE)
def _drive_back(layer, moved, d_drive):
    one, beta = moved.dtype.type(1.0), layer.beta
    for j in range(len(moved)):
        d_drive[j] = (one - beta[j]) * moved[j]


@compiled(**EXACT_BARE)
def _taus_back(layer, steps, s, drive, moved, into, n, here, to):
    lam_next, bias, v_reset, v_th = into.i[n + 1, here:to], layer.bias, layer.v_reset, layer.v_th
    peak, i = steps.peak[n, here:to], steps.i[n, here:to]
    alpha, beta, kappa = into.alpha[here:to], into.beta[here:to], into.kappa[here:to]
    for j in range(len(moved)):
        v = peak[j] + (v_reset[j] - (v_th[j] if layer.by else peak[j])) if s[j] == SPIKES else peak[j]
        beta[j] += moved[j] * (v - bias[j])
        kappa[j] += moved[j] * i[j]
        alpha[j] += lam_next[j] * i[j]
    for j in range(len(drive)):
        beta[j] -= moved[j] * drive[j]


@compiled(**EXACT_BARE)
def _reset_back(layer, peak, s, slope, p, d_spikes, into, here, to):
    """From v⁺ and S to v before the reset, λ_v, which goes into the place of the next row's."""
    v_th, v_reset, lam_v, zero = layer.v_th, layer.v_reset, into.v[here:to], p.dtype.type(0.0)
    if layer.through:
        for j in range(len(p)):
            d_spikes[j] += p[j] * (v_reset[j] - (v_th[j] if layer.by else peak[j]))
    for j in range(len(p)):
        d_spikes[j] = zero if s[j] == HELD else d_spikes[j] * slope[j]
    if into.levels:
        d_th, d_reset = into.v_th[here:to], into.v_reset[here:to]
        for j in range(len(p)):
            back = p[j] if s[j] == SPIKES else zero
            d_reset[j] += back
            d_th[j] -= d_spikes[j] + (back if layer.by else zero)
    for j in range(len(p)):
        kept = zero if (s[j] == SPIKES) & (not layer.by) else p[j]
        lam_v[j] = kept + d_spikes[j]


@compiled(**EXACT_BARE)
def _add_products(weights, lam_i, d_spikes):
    """d_spikes += Vᵀ λ_i, four rows of V at a time."""
    size = len(lam_i)
    whole = size - size % 4
    for j in range(0, whole, 4):
        a, b, c, d = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        p, q, r, s = lam_i[j], lam_i[j + 1], lam_i[j + 2], lam_i[j + 3]
        for m in range(size):
            d_spikes[m] += (p * a[m] + q * b[m]) + (r * c[m] + s * d[m])
    for j in range(whole, size):
        row = weights[j]
        for m in range(size):
            d_spikes[m] += lam_i[j] * row[m]
