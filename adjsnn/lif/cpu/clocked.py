"""LIF layers on a clock (5.1) and their adjoint as fused loops for the CPU; the plain program is `adjsnn.lif.clocked.unroll`.

Arrays over time have the neurons of all samples in one row, (T+1, B·N), in the layer's dtype; S is int8: FREE, SPIKES or HELD.
A few samples, a tile, are solved together, so that the loops over neurons are long; a layer's numbers are repeated for each.
A row of zeros stands for what there is not, so that one loop does for all.
"""

from typing import NamedTuple

import numpy as np

from adjsnn.numerics.compiled import EXACT, EXACT_BARE, compiled

FREE, SPIKES, HELD = 0, 1, 2
WORDS = 8  # entries that are looked at together for spikes


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


class Sent(NamedTuple):
    """Spikes that are sent to a layer, where they are few enough to be taken one by one; else of none.

    Attributes:
        first: those of row n and sample b are at first[n B + b] … first[n B + b + 1]-1, int64; empty where spikes are not here.
        neuron: m of each, int32.
        number: how many there are at once.
        lag: steps from a spike to its arrival.
        weights: (M, N), as (from, to).
    """

    first: np.ndarray
    neuron: np.ndarray
    number: np.ndarray
    lag: int
    weights: np.ndarray


class Steps(NamedTuple):
    """What a layer did, (T+1, B·N); or the cotangents of that, of no rows where a loss has none.

    Attributes:
        peak: v before resets.
        i: the current; before the forward loop what arrives, where that is not in `Sent`.
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
        i: λ_i, the cotangent of what arrives, that of row n in row n modulo the number of rows, which are T+1, or 2 where none
            but the latest are read, (…, B·N).
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
def list_spikes(sent, bits, n_sending, first, neuron, number):
    """Writes spikes into the columns of `Sent`.

    Args:
        sent: (K·M,), of K rows.
        bits: the same as integers.
        n_sending: M.
        first: (K+1,), zeros.
        neuron: of int64, with room for WORDS more than the most spikes.
        number: likewise, of the dtype of sent.

    Returns:
        how many there are; -1 where they have no room.
    """
    found, room, whole = 0, len(neuron) - WORDS, len(sent) - len(sent) % WORDS
    for begin in range(0, whole, WORDS):
        some = bits[begin]
        for k in range(1, WORDS):
            some |= bits[begin + k]
        if some != 0:
            if found > room:
                return -1
            for k in range(begin, begin + WORDS):  # without a branch, which would be guessed wrong at most spikes
                neuron[found] = k
                found += bits[k] != 0
    if found > room:
        return -1
    for k in range(whole, len(sent)):
        neuron[found] = k
        found += bits[k] != 0
    for k in range(found):
        place = neuron[k]
        row = place // n_sending
        neuron[k], number[k] = place - row * n_sending, sent[place]
        first[row + 1] += 1
    for k in range(1, len(first)):
        first[k] += first[k - 1]
    return found


@compiled(**EXACT)
def products(told, weights, into):
    """Rows of into = told · weights, (K, M), (K, N) and (N, M), of few N: a product of matrices that is thin takes longer."""
    for k in range(len(into)):
        row = into[k]
        for m in range(len(row)):
            row[m] = told[k, 0] * weights[0, m]
        for j in range(1, len(weights)):
            x, other = told[k, j], weights[j]
            for m in range(len(row)):
                row[m] += x * other[m]


@compiled(**EXACT)
def forward(layer, sent, steps, state, spikes, held, memory, first, last):
    """Steps of samples first … last-1 from row 0 of steps.peak, in place; i becomes the current.

    Args:
        layer: Clocked, its weights (from, to).
        sent: Sent.
        steps: Steps; row 0 of peak is given, and in i what arrives, i⁻ at time 0 included; of `sent`, i⁻ alone.
        state: S, (T+1, B·N), int8; written.
        spikes: the same in numbers, 0 or 1; written.
        held: how many steps more a neuron stays, (B·N,), int32, zeros.
        memory: (3, S·N): zeros, and places for what comes after the last step.
        first: of the samples.
        last: one past the last of them.
    """
    _forward(layer, sent, steps, state, spikes, held, memory, first, last)


@compiled(**EXACT_BARE)
def _forward(layer, sent, steps, state, spikes, held, memory, first, last):
    rows, n_hidden, tile, listed = len(state), layer.weights.shape[2], len(layer.bias), len(sent.first) > 0
    batch = state.shape[1] // n_hidden
    for n in range(rows):
        for here in range(first * n_hidden, last * n_hidden, tile):
            to = min(here + tile, last * n_hidden)
            size = to - here
            i = steps.i[n, here:to]
            if listed and n >= sent.lag:
                _arrive(sent.first, sent.neuron, sent.number, sent.weights, (n - sent.lag) * batch + here // n_hidden, i)
            for k in range(len(layer.lags)):
                if layer.lags[k] <= n:
                    before = state[n - layer.lags[k], here:to]
                    for b in range(0, size, n_hidden):
                        _add_spikes(layer.weights[k], before[b : b + n_hidden], i[b : b + n_hidden])
            drive, after, i_after = memory[0, :size], memory[1, :size], memory[2, :size]
            if n + 1 < rows:
                after, i_after = steps.peak[n + 1, here:to], steps.i[n + 1, here:to]
                if len(layer.drive) > 0:
                    drive = layer.drive[n, here:to]
            if listed:
                _decay(layer.alpha, i, i_after)
            else:
                _decay_and_arrive(layer.alpha, i, i_after)
            peak, s, as_number = steps.peak[n, here:to], state[n, here:to], spikes[n, here:to]
            if layer.holds:
                _step_held(layer, drive, peak, i, held[here:to], s, as_number, after)
            else:
                levels = layer.bias, layer.v_th, layer.v_reset, layer.beta, layer.kappa
                _step(*levels, layer.by, drive, peak, i, s, as_number, after)


@compiled(**EXACT_BARE)
def _arrive(first, neuron, number, weights, k, i):
    """Adds what arrives of the spikes of rows k … to i, a sample after the other."""
    n_hidden = weights.shape[1]
    for b in range(len(i) // n_hidden):
        into = i[b * n_hidden : (b + 1) * n_hidden]
        for spike in range(first[k + b], first[k + b + 1]):
            row, x = weights[neuron[spike]], number[spike]
            for j in range(n_hidden):
                into[j] += x * row[j]


@compiled(**EXACT_BARE)
def _add_spikes(weights, s, i):
    for m in range(len(s)):
        if s[m] == SPIKES:
            row = weights[m]
            for j in range(len(i)):
                i[j] += row[j]


@compiled(**EXACT_BARE)
def _decay(alpha, i, i_next):
    for j in range(len(i)):
        i_next[j] = alpha[j] * i[j]


@compiled(**EXACT_BARE)
def _decay_and_arrive(alpha, i, i_next):
    for j in range(len(i)):
        i_next[j] += alpha[j] * i[j]


@compiled(**EXACT_BARE)
def _step(bias, v_th, v_reset, beta, kappa, by, drive, peak, i, s, as_number, peak_next):
    """Spikes, their reset and the flow to the next step."""
    zero, one = peak.dtype.type(0.0), peak.dtype.type(1.0)
    for j in range(len(s)):
        spikes = peak[j] - v_th[j] >= 0
        s[j], as_number[j] = np.int8(spikes), one if spikes else zero
        v = peak[j] + (v_reset[j] - (v_th[j] if by else peak[j])) if spikes else peak[j]
        b = bias[j] + drive[j]
        peak_next[j] = b + beta[j] * (v - b) + kappa[j] * i[j]


@compiled(**EXACT_BARE)
def _step_held(layer, drive, peak, i, held, s, as_number, peak_next):
    """The same of neurons that may be held."""
    bias, v_th, v_reset, beta, kappa, hold = layer.bias, layer.v_th, layer.v_reset, layer.beta, layer.kappa, layer.hold
    zero, one = peak.dtype.type(0.0), peak.dtype.type(1.0)
    for j in range(len(s)):
        spikes = (peak[j] - v_th[j] >= 0) & (held[j] == 0)
        s[j] = np.int8(SPIKES) if spikes else (np.int8(HELD) if held[j] > 0 else np.int8(FREE))
        as_number[j] = one if spikes else zero
        v = peak[j] + (v_reset[j] - (v_th[j] if layer.by else peak[j])) if spikes else peak[j]
        held[j] = hold[j] if spikes else max(held[j] - np.int32(1), np.int32(0))
        b = bias[j] + drive[j]
        flowed = b + beta[j] * (v - b) + kappa[j] * i[j]
        peak_next[j] = v if held[j] > 0 else flowed


@compiled(**EXACT)
def backward(layer, sent, steps, state, slope, of_spikes, given, into, d_weights, memory, first, last):
    """The adjoint of `forward`, for samples first … last-1.

    Args:
        layer: Clocked, its weights (to, from).
        sent: Sent.
        steps: Steps, as `forward` left them.
        state: S.
        slope: Slope.
        of_spikes: cotangent of S, (T+1, B·N), or of no rows.
        given: Steps, cotangents of v before resets and i.
        into: Back; written.
        d_weights: added to it is the gradient of the weights of `sent`, (M, N); of no rows where none is asked for.
        memory: (5, S·N): zeros, and places for the λ_v that flowed on, the cotangent of v⁺, that of S, and σ′.
        first: of the samples.
        last: one past the last of them.
    """
    _backward(layer, sent, steps, state, slope, of_spikes, given, into, d_weights, memory, first, last)


@compiled(**EXACT_BARE)
def _backward(layer, sent, steps, state, slope, of_spikes, given, into, d_weights, memory, first, last):
    rows, n_hidden, tile, kept = len(state), layer.weights.shape[2], len(layer.bias), len(into.i)
    batch, told = state.shape[1] // n_hidden, len(d_weights) > 0
    for n in range(rows - 1, -1, -1):
        for here in range(first * n_hidden, last * n_hidden, tile):
            to = min(here + tile, last * n_hidden)
            size = to - here
            none, moved, p, d_spikes, steep = (
                memory[0, :size], memory[1, :size], memory[2, :size], memory[3, :size], memory[4, :size],
            )  # fmt: skip
            peak, s, lam_v, lam_i = steps.peak[n, here:to], state[n, here:to], into.v[here:to], into.i[n % kept, here:to]
            after = into.i[(n + 1) % kept, here:to] if n + 1 < rows else none
            of_i = given.i[n, here:to] if len(given.i) > 0 else none
            flow = layer.alpha, layer.beta, layer.kappa
            if layer.holds and n + 1 < rows:
                _flow_back_held(*flow, state[n + 1, here:to], lam_v, after, of_i, into.bias[here:to], moved, p, lam_i)
            else:
                _flow_back(*flow, lam_v, after, of_i, into.bias[here:to], moved, p, lam_i)
            if told and n >= sent.lag:
                _tell(sent.first, sent.neuron, sent.number, (n - sent.lag) * batch + here // n_hidden, lam_i, d_weights)
            if n + 1 < rows:
                if len(into.drive) > 0:
                    _drive_back(layer.beta, moved, into.drive[n, here:to])
                if into.taus:
                    drive = layer.drive[n, here:to] if len(layer.drive) > 0 else none
                    _taus_back(layer, steps, s, drive, moved, after, into, n, here, to)
            from_outside = of_spikes[n, here:to] if len(of_spikes) > 0 else none
            for j in range(size):
                d_spikes[j] = from_outside[j]
            for k in range(len(layer.lags)):
                if n + layer.lags[k] < rows:
                    arrived = into.i[n + layer.lags[k], here:to]
                    for b in range(0, size, n_hidden):
                        _add_products(layer.weights[k], arrived[b : b + n_hidden], d_spikes[b : b + n_hidden])
            if slope.shape:
                _steepness(slope.shape, slope.gamma, slope.height, peak, layer.v_th, steep)
            else:
                steep = slope.values[n, here:to]
            of_peak = given.peak[n, here:to] if len(given.peak) > 0 else none
            levels = layer.v_th, layer.v_reset
            _reset_back(*levels, layer.by, layer.through, layer.holds, peak, s, steep, p, d_spikes, of_peak, lam_v)
            if into.levels:
                _levels_back(layer.by, s, p, d_spikes, into.v_th[here:to], into.v_reset[here:to])


@compiled(**EXACT_BARE)
def _steepness(shape, gamma, height, peak, v_th, into):
    """σ′(peak - v_th) of a known shape; as `adjsnn.rules.surrogates`."""
    size = len(into)
    zero, one = into.dtype.type(0.0), into.dtype.type(1.0)
    if shape == 1:
        for j in range(size):
            x = abs(gamma * (peak[j] - v_th[j])) + one
            into[j] = height / (x * x)
    elif shape == 2:
        for j in range(size):
            into[j] = height * max(one - abs(gamma * (peak[j] - v_th[j])), zero)
    elif shape == 3:
        for j in range(size):
            x = gamma * (peak[j] - v_th[j])
            into[j] = height * (max(one + x, zero) if x <= zero else zero)
    elif shape == 4:
        for j in range(size):
            into[j] = height if abs(gamma * (peak[j] - v_th[j])) < one else zero
    else:
        for j in range(size):
            x = gamma * (peak[j] - v_th[j])
            into[j] = height / (x * x + one)


@compiled(**EXACT_BARE)
def _flow_back(alpha, beta, kappa, lam_v, lam_next, of_i, bias, moved, p, lam_i):
    """From the next row to v⁺ and i of this one."""
    for j in range(len(p)):
        moved[j] = lam_v[j]
        p[j] = beta[j] * lam_v[j]
        bias[j] += lam_v[j]
        lam_i[j] = of_i[j] + (alpha[j] * lam_next[j] + kappa[j] * lam_v[j])


@compiled(**EXACT_BARE)
def _flow_back_held(alpha, beta, kappa, after, lam_v, lam_next, of_i, bias, moved, p, lam_i):
    """The same of neurons that may be held."""
    zero = p.dtype.type(0.0)
    for j in range(len(p)):
        flowed = zero if after[j] == HELD else lam_v[j]
        moved[j] = flowed
        p[j] = (lam_v[j] - flowed) + beta[j] * flowed
        bias[j] += flowed
        lam_i[j] = of_i[j] + (alpha[j] * lam_next[j] + kappa[j] * flowed)


@compiled(**EXACT_BARE)
def _tell(first, neuron, number, k, lam_i, d_weights):
    """Adds the λ_i of samples to the rows of the neurons whose spikes arrived there."""
    n_hidden = d_weights.shape[1]
    for b in range(len(lam_i) // n_hidden):
        told = lam_i[b * n_hidden : (b + 1) * n_hidden]
        for spike in range(first[k + b], first[k + b + 1]):
            row, x = d_weights[neuron[spike]], number[spike]
            for j in range(n_hidden):
                row[j] += x * told[j]


@compiled(**EXACT_BARE)
def _drive_back(beta, moved, d_drive):
    one = moved.dtype.type(1.0)
    for j in range(len(moved)):
        d_drive[j] = (one - beta[j]) * moved[j]


@compiled(**EXACT_BARE)
def _taus_back(layer, steps, s, drive, moved, lam_next, into, n, here, to):
    bias, v_reset, v_th = layer.bias, layer.v_reset, layer.v_th
    peak, i = steps.peak[n, here:to], steps.i[n, here:to]
    alpha, beta, kappa = into.alpha[here:to], into.beta[here:to], into.kappa[here:to]
    for j in range(len(moved)):
        v = peak[j] + (v_reset[j] - (v_th[j] if layer.by else peak[j])) if s[j] == SPIKES else peak[j]
        beta[j] += moved[j] * (v - bias[j] - drive[j])
        kappa[j] += moved[j] * i[j]
        alpha[j] += lam_next[j] * i[j]


@compiled(**EXACT_BARE)
def _reset_back(v_th, v_reset, by, through, holds, peak, s, slope, p, d_spikes, of_peak, lam_v):
    """From v⁺ and S to v before the reset, λ_v, which goes into the place of the next row's."""
    zero = p.dtype.type(0.0)
    if through:
        for j in range(len(p)):
            d_spikes[j] += p[j] * (v_reset[j] - (v_th[j] if by else peak[j]))
    if holds:
        for j in range(len(p)):
            d_spikes[j] = zero if s[j] == HELD else d_spikes[j]
    for j in range(len(p)):
        d_spikes[j] *= slope[j]
        kept = zero if (s[j] == SPIKES) & (not by) else p[j]
        lam_v[j] = kept + d_spikes[j] + of_peak[j]


@compiled(**EXACT_BARE)
def _levels_back(by, s, p, d_spikes, d_th, d_reset):
    zero = p.dtype.type(0.0)
    for j in range(len(p)):
        back = p[j] if s[j] == SPIKES else zero
        d_reset[j] += back
        d_th[j] -= d_spikes[j] + (back if by else zero)


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
