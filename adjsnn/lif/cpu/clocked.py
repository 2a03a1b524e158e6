"""LIF layers on a clock (5.1) and their adjoint as fused loops for the CPU; the plain program is `adjsnn.lif.clocked.unroll`.

Arrays over time are (T+1, B, N), those of a layer (N,), in its dtype; S is int8, FREE, SPIKES or HELD.
"""

from typing import NamedTuple

import numpy as np

from adjsnn.numerics.compiled import EXACT, EXACT_PIECE, compiled

FREE, SPIKES, HELD = 0, 1, 2


class Clocked(NamedTuple):
    """A layer in steps.

    Attributes:
        bias: (N,).
        v_th: (N,).
        v_reset: (N,).
        alpha: (N,).
        beta: (N,).
        kappa: (N,).
        hold: steps at the reset, (N,), int64.
        lags: of the recurrent weights, (L,), int64.
        weights: those of each lag, (L, N, N), as (from, to) forward and (to, from) backward.
        drive: added to b in each step, (T, B, N), or of no steps.
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
    lags: np.ndarray
    weights: np.ndarray
    drive: np.ndarray
    by: bool
    through: bool


class Steps(NamedTuple):
    """What a layer did, or the cotangents of that; (T+1, B, N).

    Attributes:
        peak: v before resets.
        v: v after them.
        i: the current; before the forward loop what arrives.
    """

    peak: np.ndarray
    v: np.ndarray
    i: np.ndarray


class Back(NamedTuple):
    """Gradients of a layer, (B, N): each sample's own.

    Attributes:
        bias: of b.
        v_th: of v_th, beside that through S.
        v_reset: of v_reset.
        alpha: of α.
        beta: of β.
        kappa: of κ.
        drive: of the drive, (T, B, N), or of no steps.
    """

    bias: np.ndarray
    v_th: np.ndarray
    v_reset: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    kappa: np.ndarray
    drive: np.ndarray


@compiled(**EXACT)
def forward(layer, steps, state, held, first, last):
    """Steps of samples first … last-1 from row 0 of steps.peak, in place; i holds what arrives and becomes the current.

    Args:
        layer: Clocked, its weights (from, to).
        steps: Steps; row 0 of peak is given, and i⁻ at time 0 is in i already.
        state: S, (T+1, B, N), int8; written.
        held: how many steps more a neuron stays, (B, N), int64, zeros.
        first: of the samples.
        last: one past the last of them.
    """
    rows, driven = len(state), len(layer.drive) > 0
    for n in range(rows):
        for b in range(first, last):
            i, s = steps.i[n, b], state[n, b]
            for k in range(len(layer.lags)):
                if layer.lags[k] <= n:
                    _add_spikes(layer.weights[k], state[n - layer.lags[k], b], i)
            _reset(layer, steps.peak[n, b], held[b], s, steps.v[n, b])
            if n + 1 < rows:
                _flow(layer, steps.v[n, b], i, held[b], steps.peak[n + 1, b], steps.i[n + 1, b])
                if driven:
                    _driven(layer, layer.drive[n, b], held[b], steps.peak[n + 1, b])


@compiled(**EXACT_PIECE)
def _add_spikes(weights, s, i):
    for m in range(len(s)):
        if s[m] == SPIKES:
            row = weights[m]
            for j in range(len(i)):
                i[j] += row[j]


@compiled(**EXACT)
def _reset(layer, peak, held, s, v):
    for j in range(len(s)):
        spikes = (peak[j] - layer.v_th[j] >= 0) & (held[j] == 0)
        s[j] = SPIKES if spikes else (HELD if held[j] > 0 else FREE)
        v[j] = peak[j]
        if spikes:
            v[j] = peak[j] + (layer.v_reset[j] - (layer.v_th[j] if layer.by else peak[j]))
        held[j] = layer.hold[j] if spikes else max(held[j] - 1, 0)


@compiled(**EXACT)
def _flow(layer, v, i, held, peak_next, i_next):
    for j in range(len(v)):
        b = layer.bias[j]
        moved = b + layer.beta[j] * (v[j] - b) + layer.kappa[j] * i[j]
        peak_next[j] = v[j] if held[j] > 0 else moved
        i_next[j] += layer.alpha[j] * i[j]


@compiled(**EXACT)
def _driven(layer, drive, held, peak_next):
    for j in range(len(drive)):
        if held[j] == 0:
            peak_next[j] += (peak_next.dtype.type(1.0) - layer.beta[j]) * drive[j]


@compiled(**EXACT)
def backward(layer, steps, state, slope, given, of_spikes, lam, into, d_spikes, first, last):
    """The adjoint of `forward`, for samples first … last-1.

    Args:
        layer: Clocked, its weights (to, from).
        steps: Steps, as `forward` left them.
        state: S.
        slope: σ′(peak - v_th), (T+1, B, N).
        given: Steps, cotangents of the states; that of i becomes λ_i, the cotangent of what arrives.
        of_spikes: cotangent of S.
        lam: λ_v at the next row, (B, N), zeros; on return at row 0.
        into: Back; added to.
        d_spikes: (N,), memory.
        first: of the samples.
        last: one past the last of them.
    """
    rows, driven, one = len(state), len(layer.drive) > 0, lam.dtype.type(1.0)
    for n in range(rows - 1, -1, -1):
        for b in range(first, last):
            v, i, lam_v, lam_i, held = steps.v[n, b], steps.i[n, b], lam[b], given.i[n, b], state[n, b]
            peak, p = steps.peak[n, b], given.v[n, b]
            if n + 1 < rows:
                after, lam_next = state[n + 1, b], given.i[n + 1, b]
                for j in range(len(v)):
                    free = one if after[j] != HELD else one - one
                    moved = free * lam_v[j]
                    bias = layer.bias[j] + (layer.drive[n, b, j] if driven else one - one)
                    into.beta[b, j] += moved * (v[j] - bias)
                    into.kappa[b, j] += moved * i[j]
                    into.alpha[b, j] += lam_next[j] * i[j]
                    share = moved * (one - layer.beta[j])
                    into.bias[b, j] += share
                    if driven:
                        into.drive[n, b, j] += share
                    p[j] += lam_v[j] + moved * (layer.beta[j] - one)
                    lam_i[j] += layer.alpha[j] * lam_next[j] + layer.kappa[j] * moved
            for j in range(len(v)):
                d_spikes[j] = of_spikes[n, b, j]
            for k in range(len(layer.lags)):
                if n + layer.lags[k] < rows:
                    _add_products(layer.weights[k], given.i[n + layer.lags[k], b], d_spikes)
            for j in range(len(v)):
                spikes = one if held[j] == SPIKES else one - one
                open_to = one if held[j] != HELD else one - one
                target = layer.v_reset[j] - (layer.v_th[j] if layer.by else peak[j])
                through = p[j] * target if layer.through else one - one
                crossing = (d_spikes[j] + through) * slope[n, b, j] * open_to
                into.v_reset[b, j] += p[j] * spikes
                into.v_th[b, j] -= crossing + (p[j] * spikes if layer.by else one - one)
                kept = one if layer.by else one - spikes
                lam_v[j] = given.peak[n, b, j] + p[j] * kept + crossing


@compiled(**EXACT)
def _add_products(weights, lam_i, d_spikes):
    """d_spikes += Vᵀ λ_i, a row of V for each neuron that receives."""
    for j in range(len(lam_i)):
        x = lam_i[j]
        if x != 0:
            row = weights[j]
            for m in range(len(d_spikes)):
                d_spikes[m] += x * row[m]
