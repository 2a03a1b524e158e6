"""A recurrent LIF layer in one fused loop: each sample event by event, with a queue of the arrivals to come.

The order of events is that of `lif/plain.py`: at equal times spikes, releases, arrivals, changes of the drive, then
probes. Every neuron carries its own time, and the time of its next spike as far as it is foreseen. Where every arrival reaches
all neurons, that is up to the next arrival, or the next spike where it arrives at once, for then all are looked at again; where
delays differ from synapse to synapse it is up to the end. Nowhere is it beyond the present step of the drive.
"""

from math import exp, inf
from typing import Any

import numpy as np

from adjsnn.lif.cpu.feedforward import FINE, RUNAWAY
from adjsnn.lif.cpu.flow import alike, decay, first_crossing, grown, may_reach, nearness, voltage
from adjsnn.numerics.compiled import EXACT, compiled

ARRIVAL, RECURRENT, SPIKE, RELEASE, PROBE, DRIVE = 0, 1, 2, 3, 4, 5
ALL = -1


@compiled(**EXACT)
def _before(time, order, a, b):
    return time[a] < time[b] or (time[a] == time[b] and order[a] < order[b])


@compiled(**EXACT)
def _swap(time, order, ref, target, a, b):
    time[a], time[b] = time[b], time[a]
    order[a], order[b] = order[b], order[a]
    ref[a], ref[b] = ref[b], ref[a]
    target[a], target[b] = target[b], target[a]


@compiled(**EXACT)
def _push(time, order, ref, target, size):
    """Entry `size` of a binary heap sinks to its place; returns the new size."""
    k = size
    while k > 0 and _before(time, order, k, (k - 1) // 2):
        _swap(time, order, ref, target, k, (k - 1) // 2)
        k = (k - 1) // 2
    return size + 1


@compiled(**EXACT)
def _pop(time, order, ref, target, size):
    """Move the first entry of a heap to place size-1; returns the new size."""
    size -= 1
    _swap(time, order, ref, target, 0, size)
    k = 0
    while True:
        child = 2 * k + 1
        if child >= size:
            return size
        if child + 1 < size and _before(time, order, child + 1, child):
            child += 1
        if not _before(time, order, child, k):
            return size
        _swap(time, order, ref, target, k, child)
        k = child


@compiled(**EXACT)
def _inputs(delays, in_time, in_source, start, stop, t_end) -> Any:
    """Arrivals of a sample's input spikes by t_end, sorted: times, spikes, targets."""
    rows = len(delays)
    time, ref, target = (
        np.empty((stop - start) * rows),
        np.empty((stop - start) * rows, np.int64),
        np.empty((stop - start) * rows, np.int64),
    )
    count = 0
    for s in range(start, stop):
        for n in range(rows):
            t = in_time[s] + delays[n, in_source[s]]
            if t <= t_end:
                time[count], ref[count], target[count] = t, s, n if rows > 1 else ALL
                count += 1
    order = np.argsort(time[:count], kind="mergesort")
    return time[order], ref[order], target[order]


@compiled(**EXACT)
def _predict(n, v, i, at, release, bias, tau_mem, tau_syn, v_th, horizon, upcoming):
    """When neuron n spikes next, if it does by the horizon."""
    upcoming[n] = inf
    span = horizon - at[n]
    if release[n] < inf or span < 0.0:
        return
    end = voltage(span, v[n], i[n], bias[n], tau_mem[n], tau_syn[n])[0]
    wait = first_crossing(v[n], i[n], bias[n], tau_mem[n], tau_syn[n], v_th[n], span, end)
    if wait < inf:
        upcoming[n] = min(at[n] + wait, horizon)


@compiled(**EXACT)
def _bounding(span, tau_mem, tau_syn):
    """What the bound asks of an interval: e^{-t/τ_m}, e^{-t/τ_s}, K/τ_m and t/τ_m. Neurons that are alike share them."""
    e_mem, e_syn, conv = decay(span, tau_mem, tau_syn)
    return e_mem, e_syn, conv / tau_mem, span / tau_mem


@compiled(**EXACT)
def _foresee(t, v, i, release, bias, tau_mem, tau_syn, v_th, horizon, same, instant, upcoming):
    """`_predict` for all neurons, all of them at time t: a bound from both ends of the interval first.

    With `instant` the first spike reaches all neurons at once, and later ones need not be foreseen: the bound is asked up to
    the earliest crossing found so far, and few neurons are left to look at in detail. These are looked at over the interval,
    since a crossing is rounded differently with another end, and neurons that are alike must cross in the same instant; for
    the same reason the bound has room for the rounding of v.
    """
    whole = horizon - t
    span = whole
    e_mem, e_syn, gain, share = _bounding(span, tau_mem[0], tau_syn[0])
    for n in range(len(v)):
        upcoming[n] = inf
        if not same[n]:
            e_mem, e_syn, gain, share = _bounding(span, tau_mem[n], tau_syn[n])
        if release[n] < inf:
            continue
        v_after, near = bias[n] + (v[n] - bias[n]) * e_mem + i[n] * gain, nearness(v[n], i[n], bias[n], v_th[n])
        if may_reach(v[n], i[n], v_after, i[n] * e_syn, bias[n], tau_mem[n], tau_syn[n], v_th[n] - near, share, near):
            end = voltage(whole, v[n], i[n], bias[n], tau_mem[n], tau_syn[n])[0]
            wait = first_crossing(v[n], i[n], bias[n], tau_mem[n], tau_syn[n], v_th[n], whole, end)
            if wait < inf:
                upcoming[n] = min(t + wait, horizon)
                if instant and wait < span:
                    span = wait
                    e_mem, e_syn, gain, share = _bounding(span, tau_mem[n], tau_syn[n])


@compiled(**EXACT)
def _advance(n, t, v, i, at, release, bias, tau_mem, tau_syn):
    """Carry neuron n to time t; one that is held keeps its voltage."""
    span = t - at[n]
    if release[n] < inf:
        i[n] *= exp(-span / tau_syn[n])
    else:
        e_mem, e_syn, conv = decay(span, tau_mem[n], tau_syn[n])
        v[n], i[n] = bias[n] + (v[n] - bias[n]) * e_mem + i[n] * conv / tau_mem[n], i[n] * e_syn
    at[n] = t


@compiled(**EXACT)
def advance_all(t, v, i, at, release, bias, tau_mem, tau_syn, same):
    """Carry every neuron to time t, by the same exponentials where neighbours start together and are alike."""
    since, e_mem, e_syn, conv = -1.0, 1.0, 1.0, 0.0
    for n in range(len(v)):
        if not same[n]:
            since = -1.0
        if release[n] < inf:
            _advance(n, t, v, i, at, release, bias, tau_mem, tau_syn)
            continue
        if at[n] != since:
            since = at[n]
            e_mem, e_syn, conv = decay(t - since, tau_mem[n], tau_syn[n])
        v[n], i[n], at[n] = bias[n] + (v[n] - bias[n]) * e_mem + i[n] * conv / tau_mem[n], i[n] * e_syn, t


@compiled(**EXACT)
def set_bias(bias, drive, step, b, c):
    """c ← b and the drive of a step in sample b together, (2.16)."""
    for n in range(len(c)):
        c[n] = bias[n] + drive[step, b, n] if len(drive) > 0 else bias[n]


@compiled(**EXACT)
def forward(
    w_in, w_rec, bias, tau_mem, tau_syn, v_th, v_reset, refractory, delays, rec_delays, in_first, in_time, in_source, v0, i0,
    t_end, probes, edges, drive, limit, first, last, v_out, i_out,
):  # fmt: skip
    """Solve samples first … last-1; arguments as in `feedforward.forward`, and w_rec (N, N), rec_delays (1, N) or (N, N),
    probes (P,), edges (T-1,), at which the later steps of the drive (T, B, N) begin.

    Returns:
        spikes of each sample; time, neuron, current (i and the drive), released (the same at the release, or NaN), each (S,);
        number of log entries of each sample, and time, kind, ref and target of each entry; what went wrong, and sample, neuron
        and time. `ref` counts spikes within their sample, input spikes within the batch, steps of the drive.
    """
    n_neurons = len(bias)
    broadcast = len(delays) == 1 and len(rec_delays) == 1
    same = alike(tau_mem, tau_syn)
    instant = broadcast and not rec_delays.any()
    w_in_t, w_rec_t = np.ascontiguousarray(w_in.T), np.ascontiguousarray(w_rec.T)
    counts, entries = np.zeros(last - first, np.int64), np.zeros(last - first, np.int64)
    size = max(64, 2 * n_neurons * (last - first))
    time, current, released, neuron = np.empty(size), np.empty(size), np.empty(size), np.empty(size, np.int64)
    log_time, log_kind, log_ref, log_target = (
        np.empty(size),
        np.empty(size, np.int8),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
    )
    heap_time, heap_order = np.empty(64), np.empty(64, np.int64)
    heap_ref, heap_target = np.empty(64, np.int64), np.empty(64, np.int64)
    v, i, at, release, upcoming, c = (
        np.empty(n_neurons),
        np.empty(n_neurons),
        np.empty(n_neurons),
        np.empty(n_neurons),
        np.empty(n_neurons),
        np.empty(n_neurons),
    )
    spike_of, mine = np.empty(n_neurons, np.int64), np.empty(n_neurons, np.int64)
    total, logged = 0, 0
    for b in range(first, last):
        begin, log_begin, pushed, heap, probe, coming = total, logged, 0, 0, 0, 0
        ext_time, ext_ref, ext_target = _inputs(delays, in_time, in_source, in_first[b], in_first[b + 1], t_end)
        v[:], i[:], at[:], release[:], mine[:] = v0[b], i0[b], 0.0, inf, 0
        step = 0
        set_bias(bias, drive, 0, b, c)
        ends = min(edges[0], t_end) if len(edges) > 0 else t_end  # of the step of the drive
        horizon = min(ext_time[0], ends) if broadcast and len(ext_time) > 0 else ends
        _foresee(0.0, v, i, release, c, tau_mem, tau_syn, v_th, horizon, same, instant, upcoming)
        while True:
            spiking, releasing = 0, 0
            for n in range(n_neurons):
                if upcoming[n] < upcoming[spiking]:
                    spiking = n
                if release[n] < release[releasing]:
                    releasing = n
            external = ext_time[coming] if coming < len(ext_time) else inf
            arriving = min(external, heap_time[0] if heap > 0 else inf)
            changing = edges[step] if step < len(edges) else inf
            t = min(upcoming[spiking], release[releasing], arriving, changing)
            if logged + len(probes) + 2 >= len(log_time):
                log_time, log_kind = grown(log_time, logged + len(probes) + 3), grown(log_kind, logged + len(probes) + 3)
                log_ref, log_target = grown(log_ref, len(log_time)), grown(log_target, len(log_time))
            while probe < len(probes) and probes[probe] < t:
                advance_all(probes[probe], v, i, at, release, c, tau_mem, tau_syn, same)
                v_out[probe, b], i_out[probe, b] = v, i
                log_time[logged], log_kind[logged], log_ref[logged], log_target[logged] = probes[probe], PROBE, probe, ALL
                logged += 1
                probe += 1
            if t > t_end:
                break
            log_time[logged] = t
            if upcoming[spiking] == t:
                n = spiking
                if mine[n] == limit:
                    return (
                        counts,
                        time,
                        neuron,
                        current,
                        released,
                        entries,
                        log_time,
                        log_kind,
                        log_ref,
                        log_target,
                        (RUNAWAY, b, n),
                        t,
                    )
                if total == len(time):
                    time, current = grown(time, total + 1), grown(current, total + 1)
                    released, neuron = grown(released, total + 1), grown(neuron, total + 1)
                _advance(n, t, v, i, at, release, c, tau_mem, tau_syn)
                time[total], neuron[total], current[total], released[total] = t, n, i[n] + (c[n] - bias[n]), np.nan
                v[n], release[n], upcoming[n], spike_of[n] = v_reset[n], t + refractory[n], inf, total
                mine[n] += 1
                log_kind[logged], log_ref[logged], log_target[logged] = SPIKE, total - begin, n
                rows = len(rec_delays)
                if heap + rows > len(heap_time):
                    heap_time, heap_order = grown(heap_time, heap + rows), grown(heap_order, heap + rows)
                    heap_ref, heap_target = grown(heap_ref, heap + rows), grown(heap_target, heap + rows)
                for m in range(rows):
                    if t + rec_delays[m, n] <= t_end:
                        heap_time[heap], heap_order[heap] = t + rec_delays[m, n], pushed
                        heap_ref[heap], heap_target[heap] = total - begin, m if rows > 1 else ALL
                        pushed += 1
                        heap = _push(heap_time, heap_order, heap_ref, heap_target, heap)
                total += 1
            elif release[releasing] == t:
                n = releasing
                _advance(n, t, v, i, at, release, c, tau_mem, tau_syn)
                released[spike_of[n]], release[n] = i[n] + (c[n] - bias[n]), inf
                log_kind[logged], log_ref[logged], log_target[logged] = RELEASE, spike_of[n] - begin, n
                _predict(n, v, i, at, release, c, tau_mem, tau_syn, v_th, min(arriving, ends) if broadcast else ends, upcoming)
            elif arriving > t:
                advance_all(t, v, i, at, release, c, tau_mem, tau_syn, same)
                step += 1
                log_kind[logged], log_ref[logged], log_target[logged] = DRIVE, step, ALL
                set_bias(bias, drive, step, b, c)
                ends = edges[step] if step < len(edges) else t_end
                horizon = min(arriving, ends) if broadcast else ends
                _foresee(t, v, i, release, c, tau_mem, tau_syn, v_th, horizon, same, instant, upcoming)
            else:
                if external == t:
                    ref, target, weights = ext_ref[coming], ext_target[coming], w_in_t[in_source[ext_ref[coming]]]
                    log_kind[logged] = ARRIVAL
                    coming += 1
                else:
                    heap = _pop(heap_time, heap_order, heap_ref, heap_target, heap)
                    ref, target = heap_ref[heap], heap_target[heap]
                    weights = w_rec_t[neuron[begin + ref]]
                    log_kind[logged] = RECURRENT
                log_ref[logged], log_target[logged] = ref, target
                if target == ALL:
                    advance_all(t, v, i, at, release, c, tau_mem, tau_syn, same)
                    for n in range(n_neurons):
                        i[n] += weights[n]
                    horizon = ends
                    if broadcast:
                        external = ext_time[coming] if coming < len(ext_time) else inf
                        horizon = min(external, heap_time[0] if heap > 0 else inf, ends)
                    _foresee(t, v, i, release, c, tau_mem, tau_syn, v_th, horizon, same, instant, upcoming)
                else:
                    _advance(target, t, v, i, at, release, c, tau_mem, tau_syn)
                    i[target] += weights[target]
                    _predict(target, v, i, at, release, c, tau_mem, tau_syn, v_th, ends, upcoming)
            logged += 1
        counts[b - first], entries[b - first] = total - begin, logged - log_begin
    return (
        counts, time[:total], neuron[:total], current[:total], released[:total], entries,
        log_time[:logged], log_kind[:logged], log_ref[:logged], log_target[:logged], (FINE, 0, 0), 0.0,
    )  # fmt: skip
