"""The adjoint (2.5)-(2.10) of a feed-forward LIF layer in one fused loop, each neuron back through its stops and spikes."""

import numpy as np

from adjsnn.lif.cpu.feedforward import FINE, GRAZING, stops, tabulate
from adjsnn.lif.cpu.flow import decay, equal, tau_gradients
from adjsnn.numerics.compiled import EXACT, compiled


@compiled(**EXACT)
def _by_neuron(neuron, start, stop, n_neurons, own_first, own):
    """Spikes start … stop-1 of a sample grouped by neuron, in their order."""
    own_first[:] = 0
    for s in range(start, stop):
        own_first[neuron[s] + 1] += 1
    for n in range(n_neurons):
        own_first[n + 1] += own_first[n]
    place = own_first[:-1].copy()
    for s in range(start, stop):
        own[place[neuron[s]]] = s
        place[neuron[s]] += 1


@compiled(**EXACT)
def _replay(
    w_row, tau_mem, tau_syn, bias, v_reset, refractory, v, i, stop_time, ref, count, in_source, t_end, what, drive, b, n,
    time, at, free, own, states,
):  # fmt: skip
    """(v, i) at the start of every move of neuron n in sample b, in order.

    A move ends at a stop, a spike, a release or t_end.
    """
    moves, s, t, held = 0, 0, 0.0, False
    c = bias + drive[0, b, n] if len(drive) > 0 else bias
    for k in range(count + 1):
        to = stop_time[k] if k < count else t_end
        while True:
            spikes = (not held) and s < len(own) and at[own[s]] == k
            frees = held and free[own[s - 1]] == k
            until = time[own[s]] if spikes else (time[own[s - 1]] + refractory if frees else to)
            states[moves, 0], states[moves, 1] = v, i
            moves += 1
            e_mem, e_syn, conv = decay(until - t, tau_mem, tau_syn)
            v, i, t = (v if held else c + (v - c) * e_mem + i * conv / tau_mem), i * e_syn, until
            if spikes:
                v, held = v_reset, True
                s += 1
            elif frees:
                held = False
            else:
                break
        if k < count and ref[k] >= 0:
            i += w_row[in_source[ref[k]]]
        elif k < count and what[-1 - ref[k]] < 0:
            c = bias + drive[-what[-1 - ref[k]], b, n]
    return moves


@compiled(**EXACT)
def backward(
    w, bias, tau_mem, tau_syn, v_th, v_reset, refractory, delays, in_first, in_time, in_source, v0, i0, t_end,
    marks, what, drive, first, last, own_all, time, neuron, current, released, at, free, d_time, d_v, d_i, want_tau,
    d_w, d_bias, d_tau_mem, d_tau_syn, d_v_th, d_v_reset, d_refractory, d_delays, d_in_time, d_v0, d_i0, d_drive,
):  # fmt: skip
    """Gradients of samples first … last-1, added to d_w … d_delays and written to d_in_time, d_v0, d_i0, d_drive.

    Args:
        as in `feedforward.forward`, and own_all: (B+1,), where each sample's spikes begin.   time … free: (S,) of the batch.
        d_time: (S,), cotangents of the spike times.   d_v, d_i: (P, B, N), those of the states at the probes.
        want_tau: whether d_tau_mem or d_tau_syn are wanted, which takes the states run again.

    Returns:
        what went wrong, and sample, neuron and time.
    """
    n_neurons, shared = len(bias), len(delays) == 1
    uniform = shared and equal(tau_mem) and equal(tau_syn)
    longest, most, steps = len(marks) + 1, 1, len(drive)
    for b in range(first, last):
        longest = max(longest, in_first[b + 1] - in_first[b] + len(marks) + 1)
        most = max(most, own_all[b + 1] - own_all[b])
    stop_time, scratch, ref, table = np.empty(longest), np.empty(longest), np.empty(longest, np.int64), np.empty((longest, 3))
    own_first, grouped = np.empty(n_neurons + 1, np.int64), np.empty(most, np.int64)
    states = np.empty((longest + 2 * most if want_tau else 0, 2))
    count = 0
    for b in range(first, last):
        _by_neuron(neuron, own_all[b], own_all[b + 1], n_neurons, own_first, grouped)
        for n in range(n_neurons):
            if n == 0 or not shared:
                row = delays[0] if shared else delays[n]
                count = stops(row, in_time, in_source, in_first[b], in_first[b + 1], t_end, marks, stop_time, ref, scratch)
                if uniform:
                    tabulate(stop_time, count, t_end, tau_mem[0], tau_syn[0], table)
            own = grouped[own_first[n] : own_first[n + 1]]
            delay_row = 0 if shared else n
            tm, ts, c = tau_mem[n], tau_syn[n], bias[n]
            move, step, now = 0, steps - 1, c
            if steps > 0:
                now = c + drive[step, b, n]
            if want_tau:
                move = _replay(
                    w[n], tm, ts, c, v_reset[n], refractory[n], v0[b, n], i0[b, n], stop_time, ref, count, in_source, t_end,
                    what, drive, b, n, time, at, free, own, states,
                )  # fmt: skip
            lam_v, lam_i, t, s, carried = 0.0, 0.0, t_end, len(own) - 1, 0.0
            held = s >= 0 and free[own[s]] < 0
            for k in range(count, -1, -1):
                to = stop_time[k - 1] if k > 0 else 0.0
                whole = uniform
                while True:
                    frees = (not held) and s >= 0 and free[own[s]] == k
                    spikes = held and at[own[s]] == k
                    until = time[own[s]] if spikes else (time[own[s]] + refractory[n] if frees else to)
                    if whole and not (frees or spikes):
                        e_mem, e_syn, conv = table[k, 0], table[k, 1], table[k, 2]
                    else:
                        e_mem, e_syn, conv = decay(t - until, tm, ts)
                        whole = False
                    if want_tau:
                        move -= 1
                        d_mem, d_syn = tau_gradients(
                            t - until, states[move, 0], states[move, 1], lam_v, lam_i, now, tm, ts, e_mem, e_syn, conv
                        )
                        d_tau_mem[n] += d_mem
                        d_tau_syn[n] += d_syn
                    before = lam_v
                    lam_i, lam_v, t = lam_i * e_syn + lam_v * conv / tm, lam_v * e_mem, until
                    d_bias[n] += before - lam_v
                    if steps > 0:
                        d_drive[step, b, n] += before - lam_v
                    if frees:
                        carried = -lam_v * (released[own[s]] + c - v_reset[n]) / tm
                        d_v_reset[n] += lam_v
                        d_refractory[n] += carried
                        lam_v, held = 0.0, True
                    elif spikes:
                        error = d_time[own[s]] + carried
                        speed = (current[own[s]] + c - v_th[n]) / tm
                        if error != 0.0:
                            if not speed > 0.0:
                                return (GRAZING, b, n), t
                            lam_v = -error / speed
                            d_v_th[n] -= lam_v
                        held, carried = False, 0.0
                        s -= 1
                    else:
                        break
                if k == 0:
                    break
                if ref[k - 1] >= 0:
                    source = in_source[ref[k - 1]]
                    shift = w[n, source] * (lam_i / ts - lam_v / tm)
                    d_w[n, source] += lam_i
                    d_delays[delay_row, source] += shift
                    d_in_time[ref[k - 1]] += shift
                elif what[-1 - ref[k - 1]] < 0:
                    step -= 1
                    now = c + drive[step, b, n]
                else:
                    probe = what[-1 - ref[k - 1]]
                    lam_i += d_i[probe, b, n]
                    if held:
                        d_v_reset[n] += d_v[probe, b, n]
                    else:
                        lam_v += d_v[probe, b, n]
            d_v0[b, n], d_i0[b, n] = lam_v, lam_i
    return (FINE, 0, 0), 0.0
