"""Sums over earlier spikes or later spikes of a group, by recursion along them, equation (2.17)."""

from math import exp
from typing import Any

import numpy as np

from adjsnn.numerics.compiled import EXACT, compiled


@compiled(**EXACT)
def earlier(first, time, w, tau) -> Any:
    """Σ_{l<k} w_l e^{-(t_k-t_l)/τ} for each spike k within its group, w (S, C).

    Spikes first[g] … first[g+1]-1 are those of group g, sorted by time.
    """
    sums = np.zeros_like(w)
    for g in range(len(first) - 1):
        for k in range(first[g] + 1, first[g + 1]):
            decay = exp((time[k - 1] - time[k]) / tau)
            for c in range(w.shape[1]):
                sums[k, c] = decay * (sums[k - 1, c] + w[k - 1, c])
    return sums


@compiled(**EXACT)
def later(first, time, w, tau) -> Any:
    """Σ_{l>k} w_l e^{-(t_l-t_k)/τ}, likewise."""
    sums = np.zeros_like(w)
    for g in range(len(first) - 1):
        for k in range(first[g + 1] - 2, first[g] - 1, -1):
            decay = exp((time[k] - time[k + 1]) / tau)
            for c in range(w.shape[1]):
                sums[k, c] = decay * (sums[k + 1, c] + w[k + 1, c])
    return sums
