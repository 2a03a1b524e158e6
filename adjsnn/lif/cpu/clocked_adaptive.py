"""LIF layers that adapt on a clock, (5.1a), and their adjoint as loops for the CPU; the plain program is `lif.clocked.unroll`.

As `clocked`, whose vectors they take, with what a neuron's spikes trigger beside: a current or a part of the threshold is a row
of its own, (…, C, B·N) of C of them. Ordinary layers keep their own loops, which are faster.
"""

from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.clocked import (
    FREE,
    HELD,
    SPIKES,
    _add_products,
    _add_spikes,
    _arrive,
    _decay,
    _decay_and_arrive,
    _drive_back,
    _flow_back_held,
    _levels_back,
    _reset_back,
    _steepness,
    _taus_back,
    _tell,
)
from adjsnn.numerics.compiled import EXACT, EXACT_BARE, compiled


class Own(NamedTuple):
    """What spikes trigger, as `Adaptation` of `lif/clocked_adaptation.py`, repeated for the S samples of a tile, (C, S·N)."""

    decay_a: np.ndarray
    gain_a: np.ndarray
    jump_a: np.ndarray
    scale_a: np.ndarray
    decay_h: np.ndarray
    jump_h: np.ndarray
    scale_h: np.ndarray


class Path(NamedTuple):
    """What a layer did; or the cotangents of that, of no rows where a loss has none.

    Attributes:
        peak: v before resets, (T+1, B·N).
        i: the current, likewise; before the forward loop what arrives, where that is not in `Sent`.
        a: currents after spikes, (T+2, J, B·N), those at the start first; of cotangents (T+1, J, B·N).
        h: parts of the threshold, likewise.
    """

    peak: np.ndarray
    i: np.ndarray
    a: np.ndarray
    h: np.ndarray


class OwnBack(NamedTuple):
    """Cotangents and gradients, each sample's own, (C, B·N).

    Attributes:
        a: λ_a of the next row before its spikes, zeros; on return at row 0.
        h: λ_h, likewise.
        own: gradients.
    """

    a: np.ndarray
    h: np.ndarray
    own: Own


@compiled(**EXACT)
def forward(layer, own, sent, path, state, spikes, held, memory, first, last):
    """Steps of samples first … last-1, in place; as `clocked.forward`.

    Args:
        layer: Clocked, its weights (from, to).
        own: Own.
        sent: Sent.
        path: Path; row 0 of peak, a and h is given, and in i what arrives, i⁻ at time 0 included; of `sent`, i⁻ alone.
        state: S, (T+1, B·N), int8; written.
        spikes: the same in numbers, 0 or 1; written.
        held: how many steps more a neuron stays, (B·N,), int32, zeros.
        memory: (4, S·N): zeros, and places for what comes after the last step, and for θ.
        first: of the samples.
        last: one past the last of them.
    """
    _forward(layer, own, sent, path, state, spikes, held, memory, first, last)


@compiled(**EXACT_BARE)
def _forward(layer, own, sent, path, state, spikes, held, memory, first, last):
    rows, n_hidden, tile, listed = len(state), layer.weights.shape[2], len(layer.bias), len(sent.first) > 0
    batch = state.shape[1] // n_hidden
    for n in range(rows):
        for here in range(first * n_hidden, last * n_hidden, tile):
            to = min(here + tile, last * n_hidden)
            size = to - here
            i = path.i[n, here:to]
            if listed and n >= sent.lag:
                _arrive(sent.first, sent.neuron, sent.number, sent.weights, (n - sent.lag) * batch + here // n_hidden, i)
            for k in range(len(layer.lags)):
                if layer.lags[k] <= n:
                    before = state[n - layer.lags[k], here:to]
                    for b in range(0, size, n_hidden):
                        _add_spikes(layer.weights[k], before[b : b + n_hidden], i[b : b + n_hidden])
            drive, after, i_after, threshold = memory[0, :size], memory[1, :size], memory[2, :size], memory[3, :size]
            if n + 1 < rows:
                after, i_after = path.peak[n + 1, here:to], path.i[n + 1, here:to]
                if len(layer.drive) > 0:
                    drive = layer.drive[n, here:to]
            if listed:
                _decay(layer.alpha, i, i_after)
            else:
                _decay_and_arrive(layer.alpha, i, i_after)
            peak, s = path.peak[n, here:to], state[n, here:to]
            _copy(layer.v_th, threshold)
            for m in range(len(own.decay_h)):
                h = path.h[n + 1, m, here:to]
                _go_on(n, own.decay_h[m], path.h[n, m, here:to], h)
                _add(h, threshold)
            _fire(threshold, peak, held[here:to], s, spikes[n, here:to])
            for m in range(len(own.decay_h)):
                _jump(own.scale_h[m], own.jump_h[m], s, path.h[n + 1, m, here:to])
            _flow(layer, drive, peak, i, s, after)
            for m in range(len(own.decay_a)):
                a = path.a[n + 1, m, here:to]
                _go_on(n, own.decay_a[m], path.a[n, m, here:to], a)
                _jump(own.scale_a[m], own.jump_a[m], s, a)
                _push(own.gain_a[m], a, after)
            _hold(layer, peak, s, held[here:to], after)


@compiled(**EXACT_BARE)
def _copy(x, into):
    for j in range(len(into)):
        into[j] = x[j]


@compiled(**EXACT_BARE)
def _add(x, into):
    for j in range(len(into)):
        into[j] += x[j]


@compiled(**EXACT_BARE)
def _go_on(n, decay, earlier, x):
    """What there is before the spikes of row n, of what there was after those before it, or at the start."""
    if n == 0:
        for j in range(len(x)):
            x[j] = earlier[j]
    else:
        for j in range(len(x)):
            x[j] = decay[j] * earlier[j]


@compiled(**EXACT_BARE)
def _fire(threshold, peak, held, s, as_number):
    zero, one = peak.dtype.type(0.0), peak.dtype.type(1.0)
    for j in range(len(s)):
        spikes = (peak[j] - threshold[j] >= 0) & (held[j] == 0)
        s[j] = np.int8(SPIKES) if spikes else (np.int8(HELD) if held[j] > 0 else np.int8(FREE))
        as_number[j] = one if spikes else zero


@compiled(**EXACT_BARE)
def _jump(scale, jump, s, x):
    one = x.dtype.type(1.0)
    for j in range(len(x)):
        x[j] = x[j] + ((scale[j] - one) * x[j] + jump[j]) if s[j] == SPIKES else x[j]


@compiled(**EXACT_BARE)
def _flow(layer, drive, peak, i, s, peak_next):
    """The next row of v of neurons that are free."""
    bias, v_th, v_reset, beta, kappa = layer.bias, layer.v_th, layer.v_reset, layer.beta, layer.kappa
    for j in range(len(s)):
        v = peak[j] + (v_reset[j] - (v_th[j] if layer.by else peak[j])) if s[j] == SPIKES else peak[j]
        b = bias[j] + drive[j]
        peak_next[j] = b + beta[j] * (v - b) + kappa[j] * i[j]


@compiled(**EXACT_BARE)
def _push(gain, a, peak_next):
    for j in range(len(a)):
        peak_next[j] += gain[j] * a[j]


@compiled(**EXACT_BARE)
def _hold(layer, peak, s, held, peak_next):
    """Of neurons that are held the next row is where the reset has put them."""
    v_th, v_reset, hold = layer.v_th, layer.v_reset, layer.hold
    for j in range(len(s)):
        v = peak[j] + (v_reset[j] - (v_th[j] if layer.by else peak[j])) if s[j] == SPIKES else peak[j]
        held[j] = hold[j] if s[j] == SPIKES else max(held[j] - np.int32(1), np.int32(0))
        peak_next[j] = v if held[j] > 0 else peak_next[j]


@compiled(**EXACT)
def backward(layer, own, sent, path, state, slope, given, of_spikes, into, d_weights, memory, samples):
    """The adjoint of `forward`; as `clocked.backward`.

    Args:
        layer: Clocked, its weights (to, from).
        own: Own.
        sent: Sent.
        path: Path, as `forward` left it.
        state: S.
        slope: Slope, its values σ′(peak - θ).
        given: Path of cotangents.
        of_spikes: cotangent of S, (T+1, B·N), or of no rows.
        into: Back and OwnBack, a pair; written.
        d_weights: added to it is the gradient of the weights of `sent`, (M, N); of no rows where none is asked for.
        memory: (7, S·N): zeros, and places for the λ_v that flowed on, the cotangent of v⁺, that of S, σ′, θ, and a or h before
            spikes.
        samples: the first of them, and one past the last.
    """
    _backward(layer, own, sent, path, state, slope, given, of_spikes, into, d_weights, memory, samples)


@compiled(**EXACT_BARE)
def _own_back(n, own, path, given, s, moved, d_spikes, none, before, into, here, to):
    """From a⁺ and h⁺ of row n, through its jumps, to before its spikes, but for what θ does to S."""
    for m in range(len(own.decay_a)):
        of_after = given.a[n, m, here:to] if len(given.a) > 0 else none
        after, grad = path.a[n + 1, m, here:to], into.own
        _go_on(n, own.decay_a[m], path.a[n, m, here:to], before)
        d_decay, d_gain = grad.decay_a[m, here:to], grad.gain_a[m, here:to]
        _decay_back(own.decay_a[m], after, of_after, d_decay, into.a[m, here:to])
        _push_back(own.gain_a[m], after, moved, d_gain, into.a[m, here:to])
        d_jump, d_scale = grad.jump_a[m, here:to], grad.scale_a[m, here:to]
        _jump_back(own.scale_a[m], own.jump_a[m], s, before, d_spikes, d_jump, d_scale, into.a[m, here:to])
    for m in range(len(own.decay_h)):
        of_after = given.h[n, m, here:to] if len(given.h) > 0 else none
        after, grad = path.h[n + 1, m, here:to], into.own
        _go_on(n, own.decay_h[m], path.h[n, m, here:to], before)
        _decay_back(own.decay_h[m], after, of_after, grad.decay_h[m, here:to], into.h[m, here:to])
        d_jump, d_scale = grad.jump_h[m, here:to], grad.scale_h[m, here:to]
        _jump_back(own.scale_h[m], own.jump_h[m], s, before, d_spikes, d_jump, d_scale, into.h[m, here:to])


@compiled(**EXACT_BARE)
def _backward(layer, own, sent, path, state, slope, given, of_spikes, backs, d_weights, memory, samples):
    into, into_own = backs
    rows, n_hidden, tile, kept = len(state), layer.weights.shape[2], len(layer.bias), len(into.i)
    batch, told, (first, last) = state.shape[1] // n_hidden, len(d_weights) > 0, samples
    for n in range(rows - 1, -1, -1):
        for here in range(first * n_hidden, last * n_hidden, tile):
            to = min(here + tile, last * n_hidden)
            size = to - here
            none, moved, p, d_spikes, steep, threshold, before = (
                memory[0, :size], memory[1, :size], memory[2, :size], memory[3, :size], memory[4, :size], memory[5, :size],
                memory[6, :size],
            )  # fmt: skip
            peak, s, lam_v, lam_i = path.peak[n, here:to], state[n, here:to], into.v[here:to], into.i[n % kept, here:to]
            after = into.i[(n + 1) % kept, here:to] if n + 1 < rows else none
            of_i = given.i[n, here:to] if len(given.i) > 0 else none
            later = state[n + 1, here:to] if n + 1 < rows else s  # λ_v is 0 after the last row
            _flow_back_held(
                layer.alpha, layer.beta, layer.kappa, later, lam_v, after, of_i, into.bias[here:to], moved, p, lam_i
            )
            if told and n >= sent.lag:
                _tell(sent.first, sent.neuron, sent.number, (n - sent.lag) * batch + here // n_hidden, lam_i, d_weights)
            if n + 1 < rows:
                if len(into.drive) > 0:
                    _drive_back(layer.beta, moved, into.drive[n, here:to])
                drive = layer.drive[n, here:to] if len(layer.drive) > 0 else none
                _taus_back(layer, path, s, drive, moved, after, into, n, here, to)
            _copy(of_spikes[n, here:to] if len(of_spikes) > 0 else none, d_spikes)
            for k in range(len(layer.lags)):
                if n + layer.lags[k] < rows:
                    arrived = into.i[n + layer.lags[k], here:to]
                    for b in range(0, size, n_hidden):
                        _add_products(layer.weights[k], arrived[b : b + n_hidden], d_spikes[b : b + n_hidden])
            _own_back(n, own, path, given, s, moved, d_spikes, none, before, into_own, here, to)
            _copy(layer.v_th, threshold)
            for m in range(len(own.decay_h)):
                _go_on(n, own.decay_h[m], path.h[n, m, here:to], before)
                _add(before, threshold)
            if slope.shape:
                _steepness(slope.shape, slope.gamma, slope.height, peak, threshold, steep)
            else:
                steep = slope.values[n, here:to]
            of_peak = given.peak[n, here:to] if len(given.peak) > 0 else none
            levels = layer.v_th, layer.v_reset
            _reset_back(*levels, layer.by, layer.through, True, peak, s, steep, p, d_spikes, of_peak, lam_v)
            _levels_back(layer.by, s, p, d_spikes, into.v_th[here:to], into.v_reset[here:to])
            for m in range(len(own.decay_h)):
                _raise_back(d_spikes, into_own.h[m, here:to])


@compiled(**EXACT_BARE)
def _decay_back(decay, after, of_after, d_decay, lam):
    """From before the spikes of the next row to after those of this one."""
    for j in range(len(lam)):
        d_decay[j] += lam[j] * after[j]
        lam[j] = of_after[j] + decay[j] * lam[j]


@compiled(**EXACT_BARE)
def _push_back(gain, after, moved, d_gain, lam):
    for j in range(len(lam)):
        d_gain[j] += moved[j] * after[j]
        lam[j] += gain[j] * moved[j]


@compiled(**EXACT_BARE)
def _jump_back(scale, jump, s, before, d_spikes, d_jump, d_scale, lam):
    zero, one = lam.dtype.type(0.0), lam.dtype.type(1.0)
    for j in range(len(lam)):
        d_spikes[j] += lam[j] * ((scale[j] - one) * before[j] + jump[j])
        jumped = lam[j] if s[j] == SPIKES else zero
        d_jump[j] += jumped
        d_scale[j] += jumped * before[j]
        lam[j] += (scale[j] - one) * jumped


@compiled(**EXACT_BARE)
def _raise_back(d_excess, lam):
    for j in range(len(lam)):
        lam[j] -= d_excess[j]
