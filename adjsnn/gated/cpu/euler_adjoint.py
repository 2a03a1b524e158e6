"""The adjoint (4.1) with (4.3) of the fused Euler loop, a tile of samples at a time; see `euler`."""

from math import copysign

from adjsnn.gated.cpu.arguments import FEW_CHANNELS, LIF, QIF, TOGETHER, Taken
from adjsnn.gated.cpu.euler import add_input, again
from adjsnn.gated.cpu.membranes import reset_back, step_partials
from adjsnn.gated.cpu.products import add_outer_later, add_pending, add_products, add_to_rows, dot_rows, whole_pays
from adjsnn.gated.cpu.vectors import (
    CALLED,
    LOOP,
    OPTIONS,
    PIECE,
    add,
    add_outer,
    charges_of,
    combined,
    copy,
    decay,
    densities_of,
    dot,
    fill,
    inside,
    scaled,
    select,
    total,
)
from adjsnn.gated.limits import KEPT
from adjsnn.numerics.compiled import compiled

PADDED = 32  # numbers in four vectors of AVX2 in float32, as many as loops over vectors take at a time


@compiled(**LOOP)
def backward(network, synapses, path, cotangents, want, costate, first, last, memory, sums):
    """The recursion (4.1) with (4.3), backward over the path's steps, for samples first … last-1.

    Args:
        network: Network; its constants and bias are repeated for each sample of a tile.
        synapses: Synapses.
        path: Path, as the forward loop left it.
        cotangents: Cotangents, the neurons of all samples in one row.
        want: Want.
        costate: Costate at the last row, likewise; on return at row 0.
        first: of the samples.
        last: one past the last of them.
        memory: EulerAdjointMemory.
        sums: Sums; of bias, c0 and c1 for each sample of a tile.
    """
    one, h, n_hidden = path.v.dtype.type(1.0), network.h, network.w_rec_t.shape[0]
    keep = (one - h / synapses.tau_fast, one - h / synapses.tau_slow)
    gain = (one / synapses.tau_fast, one / synapses.tau_slow)
    d_tau_fast = d_tau_slow = 0.0
    steps, tile, thin = len(path.current), memory.m.shape[0] // n_hidden, path.crossings.shape[0] == 0
    for begin in range((steps - 1) // KEPT * KEPT, -1, -KEPT):
        end = min(begin + KEPT, steps)
        for start in range(first, last, tile):
            stop = min(start + tile, last)
            here, to = start * n_hidden, stop * n_hidden
            if thin:
                copy(path.v[begin // KEPT, here:to], memory.volts[0, : to - here])
                for t in range(begin, end):
                    again(network, _taken(path, memory, thin, t - begin, t, here, to), memory.x[: to - here])
            for t in range(end - 1, begin - 1, -1):
                taken = _taken(path, memory, thin, t - begin, t, here, to)
                for_fast, for_slow = _released_back(network, gain, taken, cotangents, want, costate, memory, sums, start, stop)
                d_tau_fast -= for_fast
                d_tau_slow -= for_slow
                if want.tau_fast | want.tau_slow:
                    for_fast, for_slow = _tau_back(network, gain, path, want, costate, memory, t, start, stop)
                    d_tau_fast += for_fast
                    d_tau_slow += for_slow
                _back(network, keep[0], taken, costate, memory, sums, here, to)
                _inputs_back(network, path, want, memory, sums, t, start, stop)
                if len(cotangents.readout) > 0:
                    for b in range(start, stop):
                        decay(costate.eta[b], keep[1], one, cotangents.readout[t, b])
                if (len(cotangents.v) > 0) | want.reads_fast | want.reads_slow:
                    _read_back(keep, gain, cotangents, want, costate, t, here, to)
    add_pending(memory.pending, sums.w_rec_t)
    sums.tau[0] += d_tau_fast
    sums.tau[1] += d_tau_slow


@compiled(**PIECE)
def _taken(path, memory, thin, k, t, here, to):
    """Step t of a tile, the k-th since a stored voltage."""
    current = path.current[t, here:to]
    if thin:
        size = to - here
        return Taken(memory.volts[k, :size], memory.volts[k + 1, :size], current, memory.crossings[k, :size])
    return Taken(path.v[t, here:to], path.v[t + 1, here:to], current, path.crossings[t, here:to])


@compiled(**PIECE)
def _released_back(network, gain, taken, cotangents, want, costate, memory, sums, start, stop):
    """What one step of a tile needs of the neurons that release charge, or would, were they moved.

    Fills `to_now` and `to_after` with m g(v) and m g(v⁺) of (4.1), and adds to the gradients of W_rec and W_out.

    Returns:
        Σ λ_f q/τ_f² and Σ λ_s q/τ_s².
    """
    n_hidden = network.w_rec_t.shape[0]
    here, size = start * n_hidden, (stop - start) * n_hidden
    v, crossings = taken.v, taken.crossings
    m, marks = memory.m[:size], memory.x[:size]
    inside(v, network.zone, network.two_sided, marks)
    inside(taken.after, network.zone, network.two_sided, m)
    for n in range(size):  # in the zone before or after, or once through it
        m[n] += marks[n] + abs(crossings[n])
    fill(memory.to_now[:size], v.dtype.type(0.0))
    fill(memory.to_after[:size], v.dtype.type(0.0))
    for b in range(stop - start):
        combined(network.w_out, costate.eta[start + b], memory.share[b * n_hidden : (b + 1) * n_hidden])
    for_fast = for_slow = 0.0
    for done in range(0, size, TOGETHER * n_hidden):
        some = min(TOGETHER * n_hidden, size - done)
        whole = (some == TOGETHER * n_hidden) & whole_pays(m[done : done + some])
        if whole:
            count = some
            _all_chosen(network, taken, costate, memory, here, done, some)
        else:
            count = _some_chosen(network, taken, costate, memory, here, done, some)
        if want.reads_fast | want.reads_slow | (cotangents.charge.shape[0] > 0):
            _asked(want, cotangents, costate, memory, here + done, whole, some // n_hidden, n_hidden)
        fast, slow = _charge_back(network, gain, cotangents, want, memory, count)
        for_fast += fast
        for_slow += slow
        if whole:
            _all_back(want, costate, memory, sums, here, done, some, n_hidden)
        else:
            _some_back(network, want, costate, memory, sums, here, done, some, n_hidden)
    return for_fast, for_slow


@compiled(**PIECE)
def _all_chosen(network, taken, costate, memory, here, done, size):
    """Voltages, crossings, W_recᵀ ζ and W_outᵀ η of all neurons of TOGETHER samples."""
    n_hidden = network.w_rec_t.shape[0]
    crossings, crossed = taken.crossings[done : done + size], memory.crossed
    copy(taken.v[done : done + size], memory.v)
    copy(taken.after[done : done + size], memory.v[size:])
    for n in range(size):
        crossed[n] = crossings[n]
    fill(memory.projected[:size], taken.v.dtype.type(0.0))
    add_products(network.w_rec, costate.zeta, here + done, 1, n_hidden, memory.projected[:size])
    copy(memory.share[done : done + size], memory.slow)


@compiled(**PIECE)
def _some_chosen(network, taken, costate, memory, here, done, size):
    """The same of the neurons that are marked in m, of up to TOGETHER samples. Returns their number, as it is filled up."""
    n_hidden, active, v, crossed = network.w_rec_t.shape[0], memory.active, memory.v, memory.crossed
    count = 0
    for b in range(size // n_hidden):
        at, mine = done + b * n_hidden, active[count:]
        found = select(memory.m[at : at + n_hidden], mine)
        for k in range(found):
            crossed[count + k] = taken.crossings[at + mine[k]]
            memory.slow[count + k] = memory.share[at + mine[k]]
        zeta = costate.zeta[here + at : here + at + n_hidden]
        dot_rows(network.w_rec_t, mine, found, zeta, memory.projected[count:])
        count += found
        memory.ends[b] = count
    # Filled up by neurons that do nothing, so that no loop has a rest.
    filled = min((count + PADDED - 1) // PADDED * PADDED, crossed.shape[0])
    for k in range(count, filled):
        v[k] = v[filled + k] = crossed[k] = memory.projected[k] = memory.slow[k] = v.dtype.type(0.0)
    for b in range(size // n_hidden):
        at, begin = done + b * n_hidden, 0 if b == 0 else memory.ends[b - 1]
        for k in range(begin, memory.ends[b]):
            v[k], v[filled + k] = taken.v[at + active[k]], taken.after[at + active[k]]
    return filled


@compiled(**PIECE)
def _all_back(want, costate, memory, sums, here, done, size, n_hidden):
    """Of all neurons of TOGETHER samples: what goes on to the voltages, and the gradients of W_rec and W_out."""
    at = here + done
    if want.w_rec:
        add_outer_later(memory.q_fast[:size], costate.zeta[at : at + size], memory.pending, sums.w_rec_t)
    if want.w_out:
        for b in range(TOGETHER):
            add_outer(costate.eta[at // n_hidden + b], memory.q_slow[b * n_hidden : (b + 1) * n_hidden], sums.w_out)
    copy(memory.g[:size], memory.to_now[done : done + size])
    copy(memory.g[size : 2 * size], memory.to_after[done : done + size])


@compiled(**PIECE)
def _some_back(network, want, costate, memory, sums, here, done, size, n_hidden):
    """The same of the neurons that are marked in m, of up to TOGETHER samples."""
    samples = size // n_hidden
    filled = min((memory.ends[samples - 1] + PADDED - 1) // PADDED * PADDED, memory.crossed.shape[0])
    begin = 0
    for b in range(samples):
        at, end = here + done + b * n_hidden, memory.ends[b]
        mine, found = memory.active[begin:end], end - begin
        if want.w_rec:
            add_to_rows(sums.w_rec_t, mine, memory.q_fast[begin:end], found, costate.zeta[at : at + n_hidden])
        for k in range(found):
            n = at - here + mine[k]
            memory.to_now[n], memory.to_after[n] = memory.g[begin + k], memory.g[filled + begin + k]
        if want.w_out and len(network.w_out) > FEW_CHANNELS:
            add_to_rows(sums.w_out_t, mine, memory.q_slow[begin:end], found, costate.eta[at // n_hidden])
        elif want.w_out:
            q = memory.push[:n_hidden]  # free at this point of a step
            fill(q, q.dtype.type(0.0))
            for k in range(found):
                q[mine[k]] = memory.q_slow[begin + k]
            add_outer(costate.eta[at // n_hidden], q, sums.w_out)
        begin = end


@compiled(**CALLED)
def _asked(want, cotangents, costate, memory, at, whole, samples, n_hidden):
    """What a loss reads of the chosen neurons themselves, λ_f/τ_f + λ_s/τ_s, and its cotangent of their numbers of spikes."""
    begin = 0
    for b in range(samples):
        end = begin + n_hidden if whole else memory.ends[b]
        for k in range(begin, end):
            n = at + b * n_hidden + (k - begin if whole else memory.active[k])
            own = memory.own.dtype.type(0.0)
            if want.reads_fast:
                own += costate.fast[n]
            if want.reads_slow:
                own += costate.slow[n]
            memory.own[k] = own
            if cotangents.charge.shape[0] > 0:
                memory.counted[k] = cotangents.charge[n]
        begin = end


@compiled(**PIECE)
def _charge_back(network, gain, cotangents, want, memory, count):
    """Of the chosen neurons: m g(v) and m g(v⁺) into g, one after the other; q/τ_f into q_fast and q/τ_s into q_slow."""
    v, g, level = memory.v[: 2 * count], memory.g[: 2 * count], memory.level[: 2 * count]
    m, q, q_fast = memory.chosen[:count], memory.q_slow[:count], memory.q_fast[:count]
    projected, slow, crossed = memory.projected[:count], memory.slow[:count], memory.crossed[:count]
    densities_of(network, v, g)
    charges_of(network, v, level)
    before, after, now, later = level[:count], level[count:], g[:count], g[count:]
    for k in range(count):  # the numbers of `forward` again
        q[k] = after[k] - before[k] + crossed[k]
    for k in range(count):
        m[k] = gain[0] * projected[k] + gain[1] * slow[k]
    if want.reads_fast | want.reads_slow:
        add(memory.own[:count], m)
    if cotangents.charge.shape[0] > 0:
        counted = memory.counted
        for k in range(count):
            if q[k] != 0:
                m[k] += copysign(counted[k], q[k] * counted[k])
    for k in range(count):
        now[k] *= m[k]
        later[k] *= m[k]
    for_fast, for_slow = dot(projected, q) * gain[0] * gain[0], dot(slow, q) * gain[1] * gain[1]
    for k in range(count):
        q_fast[k] = gain[0] * q[k]
    scaled(gain[1], q)
    return for_fast, for_slow


@compiled(**PIECE)
def _back(network, keep, taken, costate, memory, sums, here, to):
    """(4.1) and the ζ of (4.3) for one step of a tile; w is left behind."""
    size = to - here
    v, current, c, h = taken.v, taken.current, network.constants, network.h
    to_now, to_after, mu, w = memory.to_now[:size], memory.to_after[:size], memory.mu[:size], memory.w[:size]
    push, pull, d_c0 = memory.push[:size], memory.pull[:size], sums.c0
    lam, zeta = costate.lam_v[here:to], costate.zeta[here:to]
    step_partials(network.membrane, v, current, c, h, push, pull)
    total(lam, to_after, mu)
    fill(w, v.dtype.type(0.0))
    if network.membrane == LIF:
        reset_back(v, current, c, h, taken.crossings, w, mu, sums.c1)
        for n in range(size):
            d_c0[n] += mu[n] * push[n] * c[0, n] * (v[n] - current[n])
    elif network.membrane == QIF:
        for n in range(size):
            d_c0[n] -= (h + h - push[n]) * mu[n] * c[0, n] * c[0, n]
    for n in range(size):
        w[n] += push[n] * mu[n]
    for n in range(size):
        lam[n] = pull[n] * mu[n] - to_now[n]
    for n in range(size):
        zeta[n] = keep * zeta[n] + w[n]
    add(w, sums.bias)


@compiled(**PIECE)
def _inputs_back(network, path, want, memory, sums, t, start, stop):
    """Gradients of W_in and of the input, of w of one step of a tile."""
    n_hidden = network.w_rec_t.shape[0]
    for b in range(start, stop):
        w, u = memory.w[(b - start) * n_hidden : (b - start + 1) * n_hidden], path.u[t, b]
        if want.w_in:
            add_outer(u, w, sums.w_in_t)
        if want.u:
            for j in range(u.shape[0]):
                sums.u[t, b, j] = dot(network.w_in_t[j], w)


@compiled(**CALLED)
def _tau_back(network, gain, path, want, costate, memory, t, start, stop):
    """What the decay of a step of a tile adds to the gradients of τ_f and τ_s, and a loss that reads a_f and a_s does."""
    n_hidden, h = network.w_rec_t.shape[0], network.h
    here, to = start * n_hidden, stop * n_hidden
    drive, for_fast, for_slow = memory.mu[: to - here], 0.0, 0.0
    if want.tau_fast:
        copy(network.bias[: to - here], drive)
        for b in range(start, stop):
            add_input(network.w_in_t, path.u[t, b], drive[(b - start) * n_hidden : (b - start + 1) * n_hidden])
        for_fast += _decayed(costate.zeta[here:to], path.current[t, here:to], drive) * h * gain[0] * gain[0]
    if want.tau_slow:
        for b in range(start, stop):
            for_slow += dot(costate.eta[b], path.readout[t, b]) * h * gain[1] * gain[1]
    if want.reads_fast:
        for_fast -= _change(costate.fast[here:to], path.a_fast[t, here:to], path.a_fast[t + 1, here:to])
    if want.reads_slow:
        for_slow -= _change(costate.slow[here:to], path.a_slow[t, here:to], path.a_slow[t + 1, here:to])
    return for_fast, for_slow


@compiled(**CALLED)
def _read_back(keep, gain, cotangents, want, costate, t, here, to):
    """What the loss reads of v, a_f and a_s at the row before a step, and the decay of what it read later."""
    one = costate.lam_v.dtype.type(1.0)
    if len(cotangents.v) > 0:
        add(cotangents.v[t, here:to], costate.lam_v[here:to])
    if want.reads_fast:
        scaled(keep[0], costate.fast[here:to])
        if len(cotangents.a_fast) > 0:
            decay(costate.fast[here:to], one, gain[0], cotangents.a_fast[t, here:to])
    if want.reads_slow:
        scaled(keep[1], costate.slow[here:to])
        if len(cotangents.a_slow) > 0:
            decay(costate.slow[here:to], one, gain[1], cotangents.a_slow[t, here:to])


@compiled(**OPTIONS)
def _decayed(z, current, drive):
    """ζ · J with J = I - W_in u - b."""
    whole = z.dtype.type(0.0)
    for n in range(z.shape[0]):
        whole += z[n] * (current[n] - drive[n])
    return whole


@compiled(**OPTIONS)
def _change(p, before, after):
    """p · (a⁺ - a)."""
    whole = p.dtype.type(0.0)
    for n in range(p.shape[0]):
        whole += p[n] * (after[n] - before[n])
    return whole
