"""What the costates of a layer's neurons become in intervals that are known before the sweep begins."""

from typing import NamedTuple

import numpy as np

from adjsnn.lif.cpu.elementary import decays
from adjsnn.numerics.compiled import EXACT_PIECE, compiled


class Moves(NamedTuple):
    """Intervals and what the exponentials of each make of a costate, (K,).

    Attributes:
        span: length, ms; -1 where there is none.
        e_mem: e^{-t/τ_m}.
        e_syn: e^{-t/τ_s}.
        gain: K(t)/τ_m.
    """

    span: np.ndarray
    e_mem: np.ndarray
    e_syn: np.ndarray
    gain: np.ndarray


@compiled(**EXACT_PIECE)
def moves(size):
    """Memory for some intervals."""
    return Moves(np.empty(size), np.empty(size), np.empty(size), np.empty(size))


@compiled(**EXACT_PIECE)
def fill(into, count, rates):
    """The exponentials of the first intervals of `into`."""
    span, e_mem, e_syn, gain = into
    for k in range(count):
        e_mem[k], e_syn[k], gain[k] = decays(max(span[k], 0.0), rates)
