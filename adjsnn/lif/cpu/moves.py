"""What the costates of a layer's neurons become in intervals that are known before the sweep begins."""

from typing import Any, NamedTuple

import numpy as np

from adjsnn.lif.cpu.each import at, taus_of
from adjsnn.lif.cpu.elementary import decays, rates_of
from adjsnn.numerics.compiled import EXACT_PIECE, compiled


class Moves(NamedTuple):
    """Intervals and what the exponentials of each make of a costate, (K,).

    Attributes:
        span: length, ms; -1 where there is none.
        e_mem: e^{-t/τ_m}.
        e_syn: e^{-t/τ_s}.
        gain: K(t)/τ_m.
        tau_mem: τ_m, or that of the neuron of each interval, ms.
        tau_syn: τ_s, likewise.
    """

    span: np.ndarray
    e_mem: np.ndarray
    e_syn: np.ndarray
    gain: np.ndarray
    tau_mem: Any
    tau_syn: Any


@compiled(**EXACT_PIECE)
def moves(layer, each, size):
    """Memory for some intervals of a layer's neurons."""
    tau_mem, tau_syn = taus_of(layer.tau_mem, layer.tau_syn, each, size)
    return Moves(np.empty(size), np.empty(size), np.empty(size), np.empty(size), tau_mem, tau_syn)


@compiled(**EXACT_PIECE)
def fill(into, count):
    """The exponentials of the first intervals of `into`."""
    span, e_mem, e_syn, gain, tau_mem, tau_syn = into
    for k in range(count):
        e_mem[k], e_syn[k], gain[k] = decays(max(span[k], 0.0), rates_of(at(tau_mem, k), at(tau_syn, k)))
