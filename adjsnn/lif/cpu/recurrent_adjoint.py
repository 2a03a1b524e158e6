"""The adjoint (2.5)-(2.10) of a recurrent LIF layer in one fused loop, back through the log of its forward run."""

from math import inf

import numpy as np

from adjsnn.lif.cpu.feedforward import FINE, GRAZING
from adjsnn.lif.cpu.flow import alike, decay, tau_gradients
from adjsnn.lif.cpu.recurrent import ALL, ARRIVAL, DRIVE, PROBE, RECURRENT, RELEASE, SPIKE, advance_all, set_bias
from adjsnn.numerics.compiled import EXACT, compiled


@compiled(**EXACT)
def _replay(
    w_in_t, w_rec_t, bias, tau_mem, tau_syn, v_reset, in_source, v0, i0, drive, b, neuron,
    log_time, log_kind, log_ref, log_target, states,
):  # fmt: skip
    """(v, i) of the targets of each log entry just after it, in the order of the log, after those at the start."""
    n_neurons = len(bias)
    v, i, at, release = v0.copy(), i0.copy(), np.zeros(n_neurons), np.full(n_neurons, inf)
    states[:n_neurons, 0], states[:n_neurons, 1] = v, i
    row, same, c = n_neurons, alike(tau_mem, tau_syn), np.empty(n_neurons)
    set_bias(bias, drive, 0, b, c)
    for e in range(len(log_time)):
        kind, ref = log_kind[e], log_ref[e]
        start, stop = (0, n_neurons) if log_target[e] == ALL else (log_target[e], log_target[e] + 1)
        who = slice(start, stop)
        advance_all(log_time[e], v[who], i[who], at[who], release[who], c[who], tau_mem[who], tau_syn[who], same[who])
        if kind == ARRIVAL:
            i[who] += w_in_t[in_source[ref]][who]
        elif kind == RECURRENT:
            i[who] += w_rec_t[neuron[ref]][who]
        elif kind == SPIKE:
            v[start], release[start] = v_reset[start], 0.0
        elif kind == RELEASE:
            release[start] = inf
        elif kind == DRIVE:
            set_bias(bias, drive, ref, b, c)
        states[row : row + stop - start, 0], states[row : row + stop - start, 1] = v[who], i[who]
        row += stop - start
    return row


@compiled(**EXACT)
def _back(
    start, stop, t, states, row, want_tau, lam_v, lam_i, at, bias, tau_mem, tau_syn, same, d_bias, d_tau_mem, d_tau_syn,
    d_drive, step, b,
):  # fmt: skip
    """The costate of neurons start … stop-1 back to time t, where their states were states[row:]; `bias` with the drive."""
    since, e_mem, e_syn, conv = -1.0, 1.0, 1.0, 0.0
    for n in range(start, stop):
        tm, ts, span = tau_mem[n], tau_syn[n], at[n] - t
        if not same[n] or at[n] != since:
            since = at[n]
            e_mem, e_syn, conv = decay(span, tm, ts)
        if want_tau:
            v, i = states[row + n - start, 0], states[row + n - start, 1]
            d_mem, d_syn = tau_gradients(span, v, i, lam_v[n], lam_i[n], bias[n], tm, ts, e_mem, e_syn, conv)
            d_tau_mem[n] += d_mem
            d_tau_syn[n] += d_syn
        before = lam_v[n]
        lam_i[n], lam_v[n], at[n] = lam_i[n] * e_syn + before * conv / tm, before * e_mem, t
        d_bias[n] += before - lam_v[n]
        if len(d_drive) > 0:
            d_drive[step, b, n] += before - lam_v[n]


@compiled(**EXACT)
def _arrival(start, stop, source, w_t, d_w_t, d_delays, lam_v, lam_i, tau_mem, tau_syn):
    """Equation (2.6) at neurons start … stop-1; returns Σ dC/dt_a."""
    total, weights, d_weights = 0.0, w_t[source], d_w_t[source]
    shared = len(d_delays) == 1
    for n in range(start, stop):
        shift = weights[n] * (lam_i[n] / tau_syn[n] - lam_v[n] / tau_mem[n])
        d_weights[n] += lam_i[n]
        d_delays[0 if shared else n, source] += shift
        total += shift
    return total


@compiled(**EXACT)
def backward(
    w_in, w_rec, bias, tau_mem, tau_syn, v_th, v_reset, refractory, delays, rec_delays, in_first, in_time, in_source, v0, i0,
    t_end, probes, edges, drive, first, last, own_first, time, neuron, current, released, entries,
    log_time, log_kind, log_ref, log_target,
    d_time, d_v, d_i, want_tau,
    d_w_in, d_w_rec, d_bias, d_tau_mem, d_tau_syn, d_v_th, d_v_reset, d_refractory, d_delays, d_rec_delays,
    d_in_time, d_v0, d_i0, d_drive,
):  # fmt: skip
    """Gradients of samples first … last-1; arguments as in `lif_layer_adjoint.backward`.

    The log is what `recurrent.forward` returned; `entries` counts the log entries of every sample of the batch.
    """
    n_neurons = len(bias)
    same = alike(tau_mem, tau_syn)
    w_in_t, w_rec_t = np.ascontiguousarray(w_in.T), np.ascontiguousarray(w_rec.T)
    d_w_in_t, d_w_rec_t = np.zeros_like(w_in_t), np.zeros_like(w_rec_t)
    lam_v, lam_i, at, held = np.empty(n_neurons), np.empty(n_neurons), np.empty(n_neurons), np.empty(n_neurons, np.bool_)
    c = np.empty(n_neurons)
    log_first = entries[:first].sum()
    states = np.empty((0, 2))
    for b in range(first, last):
        log_last = log_first + entries[b]
        of, log = slice(own_first[b], own_first[b + 1]), slice(log_first, log_last)
        row = n_neurons
        for e in range(log_first, log_last):
            row += n_neurons if log_target[e] == ALL else 1
        if want_tau:
            if row > len(states):
                states = np.empty((2 * row, 2))
            _replay(
                w_in_t, w_rec_t, bias, tau_mem, tau_syn, v_reset, in_source, v0[b], i0[b], drive, b, neuron[of],
                log_time[log], log_kind[log], log_ref[log], log_target[log], states,
            )  # fmt: skip
        error, step = d_time[of].copy(), len(edges)
        set_bias(bias, drive, step, b, c)
        lam_v[:], lam_i[:], at[:], held[:] = 0.0, 0.0, t_end, False
        for s in range(own_first[b], own_first[b + 1]):  # those that are not released by the end stay held
            held[neuron[s]] = np.isnan(released[s])
        for e in range(log_last - 1, log_first - 1, -1):
            kind, ref, n = log_kind[e], log_ref[e], log_target[e]
            start, stop = (0, n_neurons) if n == ALL else (n, n + 1)
            row -= stop - start
            _back(
                start, stop, log_time[e], states, row, want_tau, lam_v, lam_i, at, c, tau_mem, tau_syn, same,
                d_bias, d_tau_mem, d_tau_syn, d_drive, step, b,
            )  # fmt: skip
            if kind == ARRIVAL:
                d_in_time[ref] += _arrival(
                    start, stop, in_source[ref], w_in_t, d_w_in_t, d_delays, lam_v, lam_i, tau_mem, tau_syn
                )
            elif kind == RECURRENT:
                source = neuron[own_first[b] + ref]
                error[ref] += _arrival(start, stop, source, w_rec_t, d_w_rec_t, d_rec_delays, lam_v, lam_i, tau_mem, tau_syn)
            elif kind == RELEASE:
                shift = -lam_v[n] * (released[own_first[b] + ref] + bias[n] - v_reset[n]) / tau_mem[n]
                d_v_reset[n] += lam_v[n]
                d_refractory[n] += shift
                error[ref] += shift
                lam_v[n], held[n] = 0.0, True
            elif kind == SPIKE:
                speed = (current[own_first[b] + ref] + bias[n] - v_th[n]) / tau_mem[n]
                lam_v[n], held[n] = 0.0, False
                if error[ref] != 0.0:
                    if not speed > 0.0:
                        return (GRAZING, b, n), log_time[e]
                    lam_v[n] = -error[ref] / speed
                    d_v_th[n] -= lam_v[n]
            elif kind == DRIVE:
                step -= 1
                set_bias(bias, drive, step, b, c)
            elif kind == PROBE:
                for m in range(n_neurons):
                    lam_i[m] += d_i[ref, b, m]
                    if held[m]:
                        d_v_reset[m] += d_v[ref, b, m]
                    else:
                        lam_v[m] += d_v[ref, b, m]
        _back(
            0, n_neurons, 0.0, states, 0, want_tau, lam_v, lam_i, at, c, tau_mem, tau_syn, same,
            d_bias, d_tau_mem, d_tau_syn, d_drive, step, b,
        )  # fmt: skip
        d_v0[b], d_i0[b] = lam_v, lam_i
        log_first = log_last
    d_w_in += d_w_in_t.T
    d_w_rec += d_w_rec_t.T
    return (FINE, 0, 0), 0.0
