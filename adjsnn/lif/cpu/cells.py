"""The neurons of a recurrent layer on their way through a sample: carried to a time, and their next spikes foreseen."""

from math import exp, inf
from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.flow import alike, decay, first_crossing, may_reach, moved, nearness, voltage
from adjsnn.numerics.compiled import EXACT_BARE, EXACT_INLINE, EXACT_PIECE, compiled


class Cells(NamedTuple):
    """The neurons of a sample on their way, each (N,).

    Attributes:
        v: membrane voltage.
        i: synaptic current.
        at: the time that both are of, ms.
        release: when a neuron that is held at its reset is released, or inf, ms.
        upcoming: when it spikes next, as far as foreseen, or inf, ms.
        bias: b and the present step of the drive together, (2.16).
        spike_of: the last spike of each that is held, counted in the group of samples.
        fired: spikes so far.
    """

    v: np.ndarray
    i: np.ndarray
    at: np.ndarray
    release: np.ndarray
    upcoming: np.ndarray
    bias: np.ndarray
    spike_of: np.ndarray
    fired: np.ndarray


class Kind(NamedTuple):
    """What the neurons of a layer have in common.

    Attributes:
        same: (N,), whether a neuron has the time constants of the one before it.
        broadcast: whether every spike arrives at all neurons at once.
        instant: whether the layer's own spikes do so without delay.
        w_in_t: (M, N), a row per source.
        w_rec_t: (N, N), a row per source.
    """

    same: np.ndarray
    broadcast: bool
    instant: bool
    w_in_t: np.ndarray
    w_rec_t: np.ndarray


@compiled(**EXACT_PIECE)
def kind_of(layer):
    """Kind of a layer."""
    broadcast = len(layer.delays) == 1 and len(layer.rec_delays) == 1
    return Kind(
        alike(layer.tau_mem, layer.tau_syn),
        broadcast,
        broadcast and not layer.rec_delays.any(),
        np.ascontiguousarray(layer.w_in.T),
        np.ascontiguousarray(layer.w_rec.T),
    )


@compiled(**EXACT_PIECE)
def memory_of(n):
    """Memory for n neurons."""
    return Cells(
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
    )


@compiled(**EXACT_BARE)
def predict(layer, cells, n, horizon):
    """When neuron n spikes next, if it does by the horizon."""
    cells.upcoming[n] = inf
    span = horizon - cells.at[n]
    if cells.release[n] < inf or span < 0.0:
        return
    v, i, c, tau_mem, tau_syn = cells.v[n], cells.i[n], cells.bias[n], layer.tau_mem[n], layer.tau_syn[n]
    end = voltage(span, v, i, c, tau_mem, tau_syn)[0]
    wait = first_crossing(v, i, c, tau_mem, tau_syn, layer.v_th[n], span, end)
    if wait < inf:
        cells.upcoming[n] = min(cells.at[n] + wait, horizon)


@compiled(**EXACT_BARE)
def _bounding(span, tau_mem, tau_syn):
    """What the bound asks of an interval: e^{-t/τ_m}, e^{-t/τ_s}, K/τ_m and t/τ_m. Neurons that are alike share them."""
    e_mem, e_syn, conv = decay(span, tau_mem, tau_syn)
    return e_mem, e_syn, conv / tau_mem, span / tau_mem


@compiled(**EXACT_BARE)
def foresee(layer, kind, cells, t, horizon):
    """`predict` for all neurons, all of them at time t: a bound from both ends of the interval first.

    With `kind.instant` the first spike reaches all neurons at once, and later ones need not be foreseen: the bound is asked up
    to the earliest crossing found so far, and few neurons are left to look at in detail. These are looked at over the interval,
    since a crossing is rounded differently with another end, and neurons that are alike must cross in the same instant; for
    the same reason the bound has room for the rounding of v.
    """
    tau_mem, tau_syn, v_th = layer.tau_mem, layer.tau_syn, layer.v_th
    whole = horizon - t
    span = whole
    e_mem, e_syn, gain, share = _bounding(span, tau_mem[0], tau_syn[0])
    for n in range(len(tau_mem)):
        v, i, c = cells.v[n], cells.i[n], cells.bias[n]
        cells.upcoming[n] = inf
        if not kind.same[n]:
            e_mem, e_syn, gain, share = _bounding(span, tau_mem[n], tau_syn[n])
        if cells.release[n] < inf:
            continue
        v_after, near = c + (v - c) * e_mem + i * gain, nearness(v, i, c, v_th[n])
        if may_reach(v, i, v_after, i * e_syn, c, tau_mem[n], tau_syn[n], v_th[n] - near, share, near):
            end = voltage(whole, v, i, c, tau_mem[n], tau_syn[n])[0]
            wait = first_crossing(v, i, c, tau_mem[n], tau_syn[n], v_th[n], whole, end)
            if wait < inf:
                cells.upcoming[n] = min(t + wait, horizon)
                if kind.instant and wait < span:
                    span = wait
                    e_mem, e_syn, gain, share = _bounding(span, tau_mem[n], tau_syn[n])


@compiled(**EXACT_INLINE)
def advance(tau_mem, tau_syn, cells, n, t):
    """Carry neuron n to time t; one that is held keeps its voltage."""
    span = t - cells.at[n]
    if cells.release[n] < inf:
        cells.i[n] *= exp(-span / tau_syn[n])
    else:
        e_mem, e_syn, conv = decay(span, tau_mem[n], tau_syn[n])
        cells.v[n], cells.i[n] = moved(cells.v[n], cells.i[n], cells.bias[n], tau_mem[n], e_mem, e_syn, conv)
    cells.at[n] = t


@compiled(**EXACT_BARE)
def advance_all(tau_mem, tau_syn, same, cells, t):
    """Carry every neuron to time t, by the same exponentials where neighbours start together and are alike."""
    since, e_mem, e_syn, conv = -1.0, 1.0, 1.0, 0.0
    for n in range(len(same)):
        if not same[n]:
            since = -1.0
        if cells.release[n] < inf:
            advance(tau_mem, tau_syn, cells, n, t)
            continue
        if cells.at[n] != since:
            since = cells.at[n]
            e_mem, e_syn, conv = decay(t - since, tau_mem[n], tau_syn[n])
        cells.v[n], cells.i[n] = moved(cells.v[n], cells.i[n], cells.bias[n], tau_mem[n], e_mem, e_syn, conv)
        cells.at[n] = t


@compiled(**EXACT_BARE)
def set_bias(bias, drive, step, b, c):
    """c ← b and the drive of a step in sample b together, (2.16)."""
    for n in range(len(c)):
        c[n] = bias[n] + drive[step, b, n] if len(drive) > 0 else bias[n]
