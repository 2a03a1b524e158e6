"""A feed-forward LIF layer in one fused loop: samples, then neurons, then the arrivals of each neuron in time.

Between arrivals a neuron needs one step of its flow; crossings are looked for only where a bound from both ends allows one.
Where all neurons have equal time constants and arrivals, the exponentials of a step are computed once for all of them.
"""

from math import exp, inf

import numpy as np

from adjsnn.lif.cpu.flow import decay, equal, first_crossing, grown, may_cross
from adjsnn.numerics.compiled import EXACT, compiled

FINE, RUNAWAY, GRAZING = 0, 1, 2


@compiled(**EXACT)
def stops(delays, in_time, in_source, start, stop, t_end, marks, time, ref, scratch):
    """Where a walk through a sample stops: its arrivals by t_end and the marks, sorted in time, arrivals first.

    Marks are probes and changes of the drive.

    Args:
        delays: (M,) of one neuron.   in_time, in_source: the batch's input spikes, of which start … stop-1 are the sample's.
        time, ref: memory for the result; ref is the input spike ≥ 0, or -1-p for mark p.   scratch: as many floats.

    Returns:
        their number.
    """
    count, ordered = 0, True
    for s in range(start, stop):
        t = in_time[s] + delays[in_source[s]]
        if t <= t_end:
            scratch[count], ref[count] = t, s
            ordered &= count == 0 or scratch[count - 1] <= t
            count += 1
    if not ordered:
        order = np.argsort(scratch[:count], kind="mergesort")
        spikes = ref[:count].copy()
        for k in range(count):
            time[k], ref[k] = scratch[order[k]], spikes[order[k]]
    else:
        time[:count] = scratch[:count]
    k, p = count - 1, len(marks) - 1
    for at in range(count + len(marks) - 1, -1, -1):  # merge from the end, in place
        if p < 0 or (k >= 0 and time[k] > marks[p]):
            time[at], ref[at] = time[k], ref[k]
            k -= 1
        else:
            time[at], ref[at] = marks[p], -1 - p
            p -= 1
    return count + len(marks)


@compiled(**EXACT)
def tabulate(time, count, t_end, tau_mem, tau_syn, table):
    """Exponentials and K of every interval between stops, the last one up to t_end."""
    before = 0.0
    for k in range(count + 1):
        t = time[k] if k < count else t_end
        table[k, 0], table[k, 1], table[k, 2] = decay(t - before, tau_mem, tau_syn)
        before = t


@compiled(**EXACT)
def forward(
    w, bias, tau_mem, tau_syn, v_th, v_reset, refractory, delays, in_first, in_time, in_source, v0, i0,
    t_end, marks, what, drive, limit, first, last, v_out, i_out,
):  # fmt: skip
    """Solve samples first … last-1.

    Args:
        w: (N, M).   bias … refractory: (N,).   delays: (1, M) or (N, M).   in_first, in_time, in_source: input spikes as in
            Events.   v0, i0: (B, N).   marks, what: times at which the walk stops, and which probe p ≥ 0 is asked for
            there or which step -k of the drive begins.   drive: (T, B, N), T = 0 for none.   v_out, i_out: (P, B, N), written.

    Returns:
        spikes of each sample (last-first,); time, neuron, current (i and the drive), released (the same at the release, or
        NaN), at (stops before the spike), free (stops before the release, or -1), each (S,); what went wrong, and sample,
        neuron and time.
    """
    n_neurons, shared = len(bias), len(delays) == 1
    uniform = shared and equal(tau_mem) and equal(tau_syn)
    counts = np.zeros(last - first, np.int64)
    size = max(64, 2 * n_neurons * (last - first))
    time, current, released = np.empty(size), np.empty(size), np.empty(size)
    neuron, at, free = np.empty(size, np.int64), np.empty(size, np.int32), np.empty(size, np.int32)
    longest, driven, extra = len(marks) + 1, len(drive) > 0, 0.0
    for b in range(first, last):
        longest = max(longest, in_first[b + 1] - in_first[b] + len(marks) + 1)
    stop_time, scratch, ref, table = np.empty(longest), np.empty(longest), np.empty(longest, np.int64), np.empty((longest, 3))
    total, count = 0, 0
    for b in range(first, last):
        begin = total
        for n in range(n_neurons):
            if n == 0 or not shared:
                row = delays[0] if shared else delays[n]
                count = stops(row, in_time, in_source, in_first[b], in_first[b + 1], t_end, marks, stop_time, ref, scratch)
                if uniform:
                    tabulate(stop_time, count, t_end, tau_mem[0], tau_syn[0], table)
            v, i, t, release, mine = v0[b, n], i0[b, n], 0.0, inf, 0
            if driven:
                extra = drive[0, b, n]
            tm, ts, c, threshold = tau_mem[n], tau_syn[n], bias[n] + extra, v_th[n]
            for k in range(count + 1):
                to = stop_time[k] if k < count else t_end
                whole = uniform
                while True:
                    if release < inf:
                        if release > to:
                            i *= exp(-(to - t) / ts)
                            break
                        i *= exp(-(release - t) / ts)
                        t, release = release, inf
                        released[total - 1], free[total - 1] = i + extra, k
                        whole = False
                    if whole:
                        e_mem, e_syn, conv = table[k, 0], table[k, 1], table[k, 2]
                    else:
                        e_mem, e_syn, conv = decay(to - t, tm, ts)
                    v_after, i_after = c + (v - c) * e_mem + i * conv / tm, i * e_syn
                    wait = inf
                    if may_cross(v, i, v_after, i_after, c, tm, ts, threshold, to - t):
                        wait = first_crossing(v, i, c, tm, ts, threshold, to - t, v_after)
                    if wait == inf:
                        v, i = v_after, i_after
                        break
                    if mine == limit:
                        return counts, time, neuron, current, released, at, free, (RUNAWAY, b, n), t + wait
                    if total == len(time):
                        time, current, released = grown(time, total + 1), grown(current, total + 1), grown(released, total + 1)
                        neuron, at, free = grown(neuron, total + 1), grown(at, total + 1), grown(free, total + 1)
                    t, i, v, whole = min(t + wait, to), i * exp(-wait / ts), v_reset[n], False
                    release = t + refractory[n]
                    time[total], neuron[total], current[total], at[total] = t, n, i + extra, k
                    released[total], free[total] = np.nan, -1
                    total += 1
                    mine += 1
                t = to
                if k < count:
                    if ref[k] >= 0:
                        i += w[n, in_source[ref[k]]]
                    elif what[-1 - ref[k]] < 0:
                        extra = drive[-what[-1 - ref[k]], b, n]
                        c = bias[n] + extra
                    else:
                        v_out[what[-1 - ref[k]], b, n], i_out[what[-1 - ref[k]], b, n] = v, i
        counts[b - first] = total - begin
        order = np.argsort(time[begin:total], kind="mergesort")
        for x in (time, current, released):
            x[begin:total] = x[begin:total][order]
        neuron[begin:total] = neuron[begin:total][order]
        at[begin:total], free[begin:total] = at[begin:total][order], free[begin:total][order]
    return counts, time[:total], neuron[:total], current[:total], released[:total], at[:total], free[:total], (FINE, 0, 0), 0.0
