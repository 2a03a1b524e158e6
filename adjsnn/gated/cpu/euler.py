"""The charge-conserving Euler program (1.6) and its adjoint (4.1) as fused loops for the CPU: here the steps forward.

The plain program multiplies a whole matrix at every step. These loops use that synapses change only while a neuron is in its
active zone, where few are at a time. With one τ_f for all neurons the recurrent current J = W_rec a_f obeys

    J⁺ = (1 - h/τ_f) J + W_rec q/τ_f                                                          (4.2)

so a step adds the columns of W_rec of the neurons that release charge. Backward, ζ, the cotangent of J, and η, that of the
readout o = W_out a_s, take the place of λ_f = W_recᵀ ζ and λ_s = W_outᵀ η,

    ζ ← (1 - h/τ_f) ζ + w          η ← (1 - h/τ_s) η + ∂C/∂o                                   (4.3)

and λ_f and λ_s are formed only for neurons in the zone, the only place where they are read. The weight gradients follow the
charge as well: dW_rec = Σ ζ qᵀ/τ_f, dW_out = Σ η qᵀ/τ_s. What is left per neuron and step is element-wise.

A few samples, a tile, are solved together: their neurons lie one after the other, so that the element-wise loops are long, and
where most neurons are in their zone, as in wide ones, W_rec is multiplied as it is by the charges of all of them, each of its
rows read once for four samples.

Numbers agree with the plain program to rounding. Samples are independent and shared out over threads.
"""

import numpy as np

from adjsnn.gated.cpu.arguments import TOGETHER, Taken
from adjsnn.gated.cpu.membranes import advance, reset
from adjsnn.gated.cpu.products import add_products, add_rows, dot_rows, whole_pays
from adjsnn.gated.cpu.vectors import (
    LOOP,
    OPTIONS,
    PIECE,
    charges_of,
    copy,
    fill,
    scaled,
    select,
    total,
)
from adjsnn.gated.limits import KEPT, MOST_COUNTED, MOST_CROSSINGS
from adjsnn.numerics.compiled import compiled


@compiled(**LOOP)
def forward(network, synapses, path, carry, first, last, memory, channels, outcome):
    """Steps of (1.6) for samples first … last-1, from row 0 of the path's states on, in place.

    Args:
        network: Network, its constants and bias repeated for each sample of a tile.
        synapses: Synapses.
        path: Path, the neurons of all samples in one row; row 0 of v, a_fast, a_slow and readout is given, the other rows,
            current and crossings are written. Where a_fast and a_slow have fewer rows, the last one goes along with the steps.
        carry: Carry of row 0, in one row; on return of the last row.
        first: of the samples.
        last: one past the last of them.
        memory: EulerMemory.
        channels: (C_out,), 0, 1, 2 …
        outcome: Outcome; written.
    """
    one, n_hidden = path.v.dtype.type(1.0), network.w_rec_t.shape[0]
    keep = (one - network.h / synapses.tau_fast, one - network.h / synapses.tau_slow)
    gain = (one / synapses.tau_fast, one / synapses.tau_slow)
    lowest, highest, steps, tile = np.int8(0), np.int8(0), len(path.current), memory.q.shape[0] // n_hidden
    thin = path.crossings.shape[0] == 0
    for begin in range(0, steps, KEPT):
        end = min(begin + KEPT, steps)
        for start in range(first, last, tile):
            stop = min(start + tile, last)
            here, to = start * n_hidden, stop * n_hidden
            if thin:
                copy(path.v[begin // KEPT, here:to], memory.now[: to - here])
            for t in range(begin, end):
                taken = _taking(path, memory, thin, t - begin, t, here, to)
                fine, low, high = _step(network, keep, gain, taken, path, carry, memory, t, start, stop)
                lowest, highest = min(lowest, low), max(highest, high)
                for b in range(start, stop):
                    a_slow = path.a_slow[min(t + 1, len(path.a_slow) - 1), b * n_hidden : (b + 1) * n_hidden]
                    dot_rows(network.w_out, channels, len(network.w_out), a_slow, path.readout[t + 1, b])
                if not fine:
                    outcome.broken[0], outcome.broken[1] = t, start
                    end = t + 1  # the tiles behind take the step, too: its row is read
                    break
            if thin:
                copy((memory.next if (end - begin) % 2 else memory.now)[: to - here], path.v[begin // KEPT + 1, here:to])
        if outcome.broken[0] >= 0:
            return
    # Written once: a cache line that several threads write to is slow.
    outcome.extremes[0], outcome.extremes[1] = min(outcome.extremes[0], lowest), max(outcome.extremes[1], highest)


@compiled(**PIECE)
def _taking(path, memory, thin, k, t, here, to):
    """Where step t of a tile, the k-th since a stored voltage, reads and writes."""
    current = path.current[t, here:to]
    if not thin:
        return Taken(path.v[t, here:to], path.v[t + 1, here:to], current, path.crossings[t, here:to])
    now, after, size = memory.now, memory.next, to - here
    if k % 2:
        now, after = after, now
    return Taken(now[:size], after[:size], current, memory.crossings[:size])


@compiled(**PIECE)
def _step(network, keep, gain, taken, path, carry, memory, t, start, stop):
    """Step t of a tile. Returns whether its state is sound, and its smallest and largest number of crossings."""
    n_hidden = network.w_rec_t.shape[0]
    here, to = start * n_hidden, stop * n_hidden
    v, after, current, crossings = taken.v, taken.after, taken.current, taken.crossings
    recurrent, level, spent = carry.recurrent[here:to], carry.level[here:to], carry.spent[here:to]
    turns, q, charge = memory.turns[: to - here], memory.q[: to - here], memory.charge[: to - here]
    total(recurrent, network.bias, current)
    for b in range(start, stop):
        add_input(network.w_in_t, path.u[t, b], current[(b - start) * n_hidden : (b - start + 1) * n_hidden])
    advance(network.membrane, v, current, network.constants, network.h, after)
    reset(network.membrane, current, network.constants, after, turns)
    charges_of(network, after, charge)
    for n in range(v.shape[0]):  # the charge that the step releases: what G gained, and one for every threshold crossed
        q[n] = charge[n] - level[n] + turns[n]
        spent[n] += abs(q[n])
    copy(charge, level)
    _filter(path.a_fast, t, here, to, q, keep[0], gain[0])
    _filter(path.a_slow, t, here, to, q, keep[1], gain[1])
    scaled(keep[0], recurrent)
    fine, lowest, highest = _checked(current, after, turns, crossings)
    scaled(gain[0], q)
    add_released(network.w_rec_t, q, memory.active, memory.weight, recurrent)
    return fine, lowest, highest


@compiled(**OPTIONS)
def add_released(w_rec_t, weight, active, chosen, recurrent):
    """recurrent += W_rec weight for each sample of a tile: the columns that have a weight, or the whole matrix."""
    n_hidden, done = w_rec_t.shape[0], 0
    while recurrent.shape[0] - done >= n_hidden:
        together = TOGETHER * n_hidden
        if recurrent.shape[0] - done >= together and whole_pays(weight[done : done + together]):
            add_products(w_rec_t, weight, done, 1, n_hidden, recurrent[done : done + together])
            done += together
            continue
        some = weight[done : done + n_hidden]
        count = select(some, active)
        for k in range(count):
            chosen[k] = some[active[k]]
        add_rows(w_rec_t, active, chosen, count, recurrent[done : done + n_hidden])
        done += n_hidden


@compiled(**PIECE)
def _checked(current, after, turns, crossings):
    """Writes the crossings. Returns whether the state is sound, and the smallest and largest number of crossings."""
    one = after.dtype.type(1.0)
    _count(turns, crossings)
    lowest, highest, wrong, magnitude = np.int8(0), np.int8(0), np.int32(0), one
    for n in range(after.shape[0]):
        lowest, highest = min(lowest, crossings[n]), max(highest, crossings[n])
    for n in range(after.shape[0]):
        wrong += not (after[n] < one)
    for n in range(after.shape[0]):
        magnitude += abs(current[n])  # not finite if any current is not: one sum instead of N questions
    fine = (wrong == 0) & (lowest >= -MOST_CROSSINGS) & (highest <= MOST_CROSSINGS)
    return fine & (magnitude < after.dtype.type(np.inf)), lowest, highest


@compiled(**OPTIONS)
def _count(turns, crossings):
    """Crossings as they are stored."""
    most = turns.dtype.type(MOST_COUNTED)
    for n in range(turns.shape[0]):
        crossings[n] = np.int8(min(max(turns[n], -most), most))


@compiled(**OPTIONS)
def add_input(w_in_t, u, current):
    """current += W_in u."""
    for c in range(u.shape[0]):
        x = u[c]
        if x != 0:
            row = w_in_t[c]
            for n in range(current.shape[0]):
                current[n] += x * row[n]


@compiled(**LOOP)
def products(matrix_t, a, index, weight, out):
    """out[b] = W a[b] for each sample, over the neurons that are active at all."""
    for b in range(len(a)):
        fill(out[b], a.dtype.type(0.0))
        count = select(a[b], index)
        for k in range(count):
            weight[k] = a[b, index[k]]
        add_rows(matrix_t, index, weight, count, out[b])


@compiled(**PIECE)
def again(network, taken, turns):
    """A step of a thin trajectory once more, from its current: the numbers of `forward`. turns is memory, (S·N,)."""
    advance(network.membrane, taken.v, taken.current, network.constants, network.h, taken.after)
    reset(network.membrane, taken.current, network.constants, taken.after, turns)
    _count(turns, taken.crossings)


@compiled(**LOOP)
def voltages(network, path, first, last, memory, v, crossings):
    """Voltages and crossings of samples first … last-1 of a thin trajectory.

    Args:
        network: Network.
        path: Path, thin, as `forward` left it.
        first: of the samples.
        last: one past the last of them.
        memory: EulerMemory.
        v: (T+1, B·N), written.
        crossings: (T, B·N), int8, written.
    """
    n_hidden, tile = network.w_rec_t.shape[0], memory.q.shape[0]
    for here in range(first * n_hidden, last * n_hidden, tile):
        to = min(here + tile, last * n_hidden)
        for t in range(len(path.current)):
            if t % KEPT == 0:
                copy(path.v[t // KEPT, here:to], v[t, here:to])
            taken = Taken(v[t, here:to], v[t + 1, here:to], path.current[t, here:to], crossings[t, here:to])
            again(network, taken, memory.turns[: to - here])


@compiled(**LOOP)
def activities(network, tau, v, crossings, level, first, last, memory, out):
    """A synapse's activity of samples first … last-1 again, from v and crossings as `forward` left them.

    Args:
        network: Network.
        tau: of the synapse.
        v: (T+1, B·N).
        crossings: (T, B·N).
        level: G before the first step, (B·N,); on return after the last.
        first: of the samples.
        last: one past the last of them.
        memory: EulerMemory.
        out: (T+1, B·N); row 0 is given, the others are written.
    """
    one, n_hidden, tile = v.dtype.type(1.0), network.w_rec_t.shape[0], memory.q.shape[0]
    for t in range(len(crossings)):
        for here in range(first * n_hidden, last * n_hidden, tile):
            to = min(here + tile, last * n_hidden)
            after, before = v[t + 1, here:to], level[here:to]
            q, charge = memory.q[: to - here], memory.charge[: to - here]
            charges_of(network, after, charge)
            for n in range(to - here):
                q[n] = charge[n] - before[n] + crossings[t, here + n]
            copy(charge, before)
            _filter(out, t, here, to, q, one - network.h / tau, one / tau)


@compiled(**OPTIONS)
def _filter(a, t, here, to, q, keep, gain):
    """a⁺ = (1 - h/τ) a + q/τ of some neurons in a step, into the next row, or in the last where there is no next."""
    last = len(a) - 1
    if t < last:
        now, after = a[t, here:to], a[t + 1, here:to]
        for n in range(now.shape[0]):
            after[n] = keep * now[n] + gain * q[n]
    else:
        only = a[last, here:to]
        for n in range(only.shape[0]):
            only[n] = keep * only[n] + gain * q[n]
