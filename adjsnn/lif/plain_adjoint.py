"""The adjoint (2.5)-(2.9) of one sample of a LIF layer, back through the log of its forward run, in plain numpy.

The states are run again from the log, without looking for spikes; nothing is integrated backward but the costate, which decays.
"""

from typing import NamedTuple

import numpy as np

from adjsnn.lif.flow import decay, double_kernels, flow
from adjsnn.lif.layer import (
    ALL,
    ARRIVAL,
    DRIVE,
    PROBE,
    RECURRENT,
    RELEASE,
    SPIKE,
    Events,
    Layer,
    LayerCotangents,
    LayerGradients,
    LayerRun,
    State,
    Trial,
    bias_of,
    grazing,
)
from adjsnn.lif.plain import Entry, SampleRun


class SampleGradients(NamedTuple):
    """dC/d of everything one sample of a layer depends on: the fields of Layer, the input times, v(0), i(0), and
    the drive (T, N)."""

    layer: Layer
    times: np.ndarray
    v: np.ndarray
    i: np.ndarray
    drive: np.ndarray


@np.errstate(over="ignore", invalid="ignore")  # told of the whole gradient, alike in all bodies
def backward(
    layer: Layer,
    inputs: Events,
    start: State,
    trial: Trial,
    run: LayerRun,
    cotangents: LayerCotangents,
    wanted: frozenset[str],
) -> LayerGradients:
    """Gradients of a layer, summed over the samples in their order.

    Raises:
        EventError: the loss depends on a spike that touches its threshold without crossing it.
    """
    totals = Layer(*(np.zeros_like(x) for x in layer))
    d_times, d_v0, d_i0 = np.zeros_like(inputs.time), np.zeros_like(start.v), np.zeros_like(start.i)
    d_drive = np.zeros_like(trial.drive)
    nothing = np.zeros((len(trial.probes), start.v.shape[1]))
    for b, record in enumerate(run.record):
        incoming, own = inputs.of_sample(b), run.spikes.of_sample(b)
        states = State(start.v[b], start.i[b])
        d_v, d_i = (nothing if x is None else x[:, b] for x in (cotangents.v, cotangents.i))
        gradients = adjoint_sample(layer, record, inputs.neuron[incoming], states, trial, b, cotangents.time[own], d_v, d_i)
        for total, part in zip(totals, gradients.layer, strict=True):
            total += part
        d_times[incoming], d_v0[b], d_i0[b] = gradients.times, gradients.v, gradients.i
        if trial.driven:
            d_drive[:, b] = gradients.drive
    return LayerGradients(totals, d_times, d_v0, d_i0, d_drive)


class Start(NamedTuple):
    """Neurons after their last event: v, i, the time, whether held at the reset, b with the drive, and the drive's step."""

    v: np.ndarray
    i: np.ndarray
    since: np.ndarray
    held: np.ndarray
    bias: np.ndarray
    step: int


class _Replay:
    """(v, i) of the target of each log entry just before it, and of every neuron after its last event before that one."""

    def __init__(
        self,
        layer: Layer,
        run: SampleRun,
        sources: np.ndarray,
        start: State,
        trial: Trial,
        sample: int,
    ) -> None:
        n = len(start.v)
        step, bias = 0, bias_of(layer.bias, trial, sample, 0)
        v, i = start.v.copy(), start.i.copy()
        since, held = np.zeros(n), np.zeros(n, bool)
        self.start: list[Start] = []
        self.before: list[tuple[np.ndarray, np.ndarray]] = []
        for entry in run.log:
            who = targets(entry, n)
            self.start.append(Start(v[who], i[who], since[who], held[who], bias[who], step))
            moved, i[who] = flow(v[who], i[who], entry.time - since[who], bias[who], layer.tau_mem[who], layer.tau_syn[who])
            v[who], since[who] = np.where(held[who], v[who], moved), entry.time
            self.before.append((v[who], i[who]))
            if entry.kind == ARRIVAL:
                i[who] += layer.w_in[who, sources[entry.ref]]
            elif entry.kind == RECURRENT:
                i[who] += layer.w_rec[who, run.neuron[entry.ref]]
            elif entry.kind in (SPIKE, RELEASE):
                held[who] = entry.kind == SPIKE
                v[who] = layer.v_reset[who]
            elif entry.kind == DRIVE:
                step, bias = entry.ref, bias_of(layer.bias, trial, sample, entry.ref)
        self.start.append(Start(v, i, since, held, bias, step))


def targets(entry: Entry, n: int) -> np.ndarray:
    return np.arange(n) if entry.target == ALL else np.array([entry.target])


def adjoint_sample(
    layer: Layer,
    run: SampleRun,
    sources: np.ndarray,
    start: State,
    trial: Trial,
    sample: int,
    d_times: np.ndarray,
    d_v: np.ndarray,
    d_i: np.ndarray,
) -> SampleGradients:
    """Gradients from the cotangents of the sample's spike times, (S,), and of (v, i) at the probes, (P, N)."""
    n, replay = len(start.v), _Replay(layer, run, sources, start, trial, sample)
    d_drive = np.zeros((len(trial.drive), n))
    g = Layer(*(np.zeros_like(x) for x in layer))
    error, d_input = d_times.copy(), np.zeros(len(sources))
    lam_v, lam_i = np.zeros(n), np.zeros(n)
    held = replay.start[-1].held.copy()
    _back(layer, g, d_drive, lam_v, lam_i, np.arange(n), trial.t_end, replay.start[-1])
    for k in range(len(run.log) - 1, -1, -1):
        entry = run.log[k]
        who = targets(entry, n)
        if entry.kind == ARRIVAL:
            source = int(sources[entry.ref])
            shift = _arrival(layer, g.w_in, g.delays, layer.w_in, source, who, lam_v, lam_i)
            d_input[entry.ref] += shift
        elif entry.kind == RECURRENT:
            shift = _arrival(layer, g.w_rec, g.rec_delays, layer.w_rec, int(run.neuron[entry.ref]), who, lam_v, lam_i)
            error[entry.ref] += shift
        elif entry.kind == RELEASE:
            m = entry.target
            flow_after = (-layer.v_reset[m] + replay.before[k][1][0] + replay.start[k].bias[0]) / layer.tau_mem[m]
            shift = -lam_v[m] * flow_after
            g.v_reset[m] += lam_v[m]
            g.refractory[m] += shift
            error[entry.ref] += shift
            lam_v[m], held[m] = 0.0, True
        elif entry.kind == SPIKE:
            m = entry.target
            speed = (-layer.v_th[m] + replay.before[k][1][0] + replay.start[k].bias[0]) / layer.tau_mem[m]
            if error[entry.ref] != 0.0 and not speed > 0.0:
                raise grazing(trial, sample, m, entry.time)
            lam_v[m] = -error[entry.ref] / speed if error[entry.ref] != 0.0 else 0.0
            g.v_th[m] -= lam_v[m]
            held[m] = False
        elif entry.kind == PROBE:
            lam_i += d_i[entry.ref]
            g.v_reset[held] += d_v[entry.ref][held]
            lam_v[~held] += d_v[entry.ref][~held]
        _back(layer, g, d_drive, lam_v, lam_i, who, entry.time, replay.start[k])
    return SampleGradients(g, d_input, lam_v, lam_i, d_drive)


def _arrival(
    layer: Layer,
    g_weight: np.ndarray,
    g_delay: np.ndarray,
    weight: np.ndarray,
    source: int,
    who: np.ndarray,
    lam_v: np.ndarray,
    lam_i: np.ndarray,
) -> float:
    """Equation (2.6): dC/dw and dC/dt_a of an arrival at the neurons `who`; returns Σ dC/dt_a."""
    g_weight[who, source] += lam_i[who]
    shift = weight[who, source] * (lam_i[who] / layer.tau_syn[who] - lam_v[who] / layer.tau_mem[who])
    if len(g_delay) == 1:
        g_delay[0, source] += shift.sum()
    else:
        g_delay[who, source] += shift
    return float(shift.sum())


def _back(
    layer: Layer,
    g: Layer,
    d_drive: np.ndarray,
    lam_v: np.ndarray,
    lam_i: np.ndarray,
    who: np.ndarray,
    t: float,
    start: Start,
) -> None:
    """The costate of the neurons `who` from time t back to their last event, equations (2.5), (2.8) in closed form (2.10)."""
    v, i, since, held, bias, step = start
    span, tau_mem, tau_syn = t - since, layer.tau_mem[who], layer.tau_syn[who]
    a_v, a_i = lam_v[who], lam_i[who]
    e_mem, e_syn, k = decay(span, tau_mem, tau_syn)
    j_mem, j_syn = double_kernels(span, tau_mem, tau_syn)
    lost = -a_v * np.expm1(-span / tau_mem) * ~held
    g.bias[who] += lost
    if len(d_drive):
        d_drive[step, who] += lost
    g.tau_syn[who] += i * (a_i * span * e_syn + a_v / tau_mem * j_syn) / tau_syn**2
    g.tau_mem[who] -= a_v * ((bias - v) * span * e_mem + i * (k - j_mem / tau_mem)) / tau_mem**2
    lam_i[who] = a_i * e_syn + a_v * k / tau_mem
    lam_v[who] = a_v * e_mem
