"""Euler steps (1.6) of a gated network on a GPU: a block of threads for each sample, its neurons on the threads.

As in `gated/cpu/euler.py` the recurrent current follows the charge (4.2): a step adds the columns of W_rec of the few neurons
that release some, a sum that every thread takes for its own neurons. Everything else a thread does for them alone, so that a
step waits for the other threads four times, and a whole block of steps is one launch.
"""

import numpy as np

from adjsnn.gated.cuda.neurons import charge_level, counted, moved, reset, sound
from adjsnn.gated.cuda.shared import column_sum, listed, place, workspace
from adjsnn.numerics.device import cuda


@cuda.jit
def forward(network, synapses, path, carry, broken):
    """Block b takes the steps of sample b, from row 0 of the path's states.

    Args:
        network: Network.
        synapses: Synapses.
        path: Path; written, but for row 0.
        carry: Carry of row 0; on return of the last row.
        broken: (B, N), int32, written: the first step after which a neuron's state is not sound, or -1.
    """
    shared, (b, thread, width) = workspace(network), place()
    size = np.uint64(len(shared.marks))
    for n in range(thread, size, width):
        broken[b, n] = -1
    for t in range(len(path.current)):
        for n in range(thread, size, width):
            shared.marks[n] = _step(network, synapses, path, carry, broken, t, b, n)
        count = listed(shared)
        for n in range(thread, size, width):
            carry.recurrent[b, n] = synapses.keep_fast * carry.recurrent[b, n] + column_sum(shared, count, n)
        cuda.syncthreads()  # everyone has read the marks


@cuda.jit(device=True)
def _step(network, synapses, path, carry, broken, t, b, n):
    """Step t of neuron n of sample b but for its recurrent current; returns q/τ_f."""
    current = path.current[t, b, n] + carry.recurrent[b, n]
    v, turns = reset(network, n, moved(network, n, path.v[t, b, n], current), current)
    level = charge_level(network, v)
    q = level - carry.level[b, n] + turns
    carry.level[b, n] = level
    carry.spent[b, n] += abs(q)
    path.v[t + 1, b, n], path.current[t, b, n], path.crossings[t, b, n] = v, current, counted(turns)
    path.a_fast[t + 1, b, n] = synapses.keep_fast * path.a_fast[t, b, n] + synapses.gain_fast * q
    path.a_slow[t + 1, b, n] = synapses.keep_slow * path.a_slow[t, b, n] + synapses.gain_slow * q
    if broken[b, n] < 0 and not sound(network, v, current, turns):
        broken[b, n] = t
    return synapses.gain_fast * q
