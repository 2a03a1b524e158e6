"""The adjoint (6.4) of a layer of generalised LIF neurons, back through the logs of its forward run, in plain numpy.

The states are run again from the log, without looking for spikes; nothing is integrated backward but the costate, which decays.
"""

from typing import NamedTuple

import numpy as np

from adjsnn.lif.glif.arrays import GLIF, GLIFCotangents, GLIFGradients, GLIFRun, GLIFState, Neurons, Wiring, X
from adjsnn.lif.glif.flow import convolved, double_kernel, kernel, of, slopes
from adjsnn.lif.glif.plain import Cells, SampleRun, group
from adjsnn.lif.layer import ARRIVAL, PROBE, RECURRENT, RELEASE, SPIKE, Events, Trial, grazing


@np.errstate(over="ignore", invalid="ignore")  # told of the whole gradient, alike in all bodies
def backward(
    layer: GLIF,
    inputs: Events,
    start: GLIFState,
    trial: Trial,
    run: GLIFRun,
    cotangents: GLIFCotangents,
    rates: bool,
) -> GLIFGradients:
    """Gradients of a layer, summed over the samples in their order.

    Raises:
        EventError: the loss depends on a spike that touches its threshold without crossing it.
    """
    edges = (layer.incoming.weight, layer.incoming.weight, layer.recurrent.weight, layer.recurrent.weight)
    g = GLIFGradients(
        Neurons._make(np.zeros_like(x) for x in layer.neurons),
        *(np.zeros_like(x) for x in (*edges, inputs.time, *start, trial.drive)),
    )
    for b, record in enumerate(run.record):
        incoming, own = inputs.of_sample(b), run.spikes.of_sample(b)
        states = GLIFState(start.v[b], start.c[b], start.h[b])
        at_probes = [None if x is None else x[:, b] for x in (cotangents.v, cotangents.c, cotangents.h)]
        sweep = _Sweep(layer, record, states, trial, b, rates, g)
        sweep.back(inputs.neuron[incoming], cotangents.time[own].copy(), g.time[incoming], at_probes)
        g.v[b], g.c[b], g.h[b] = sweep.lam
    return g


class Before(NamedTuple):
    """The neurons of an entry: who they are, their state after their last event, and that just before the entry.

    Attributes:
        who: (W,).
        after: GLIFState of them after their last event.
        since: (W,), when that was, ms.
        held: (W,), whether they are held in between.
        bias: (W,), b with the drive in between.
        step: the step of the drive in between.
        before: GLIFState of them just before the entry.
    """

    who: np.ndarray
    after: GLIFState
    since: np.ndarray
    held: np.ndarray
    bias: np.ndarray
    step: int
    before: GLIFState


def _replay(layer: GLIF, run: SampleRun, start: GLIFState, trial: Trial, sample: int) -> list[Before]:
    cells, replay = Cells(layer, start, trial, sample), []
    for entry in run.log:
        who = cells.targets(entry)
        past = (cells.state(who), cells.since[who], cells.held[who], cells.bias[who], cells.step)
        cells.advance(who, entry.time)
        replay.append(Before(who, *past, cells.state(who)))
        cells.jump(entry)
    return replay


class _Sweep:
    """The costate of a sample on its way back, and the gradients that it adds to."""

    def __init__(
        self, layer: GLIF, run: SampleRun, start: GLIFState, trial: Trial, sample: int, rates: bool, g: GLIFGradients
    ) -> None:
        self.layer, self.run, self.trial, self.sample, self.rates, self.g = layer, run, trial, sample, rates, g
        self.lam = GLIFState._make(np.zeros_like(x) for x in start)
        self.replay = _replay(layer, run, start, trial, sample)
        self.held = np.zeros(len(start.v), bool)
        for entry in run.log:
            if entry.kind in (SPIKE, RELEASE):
                self.held[entry.target] = entry.kind == SPIKE

    def back(self, sources: np.ndarray, d_spike: np.ndarray, d_input: np.ndarray, at_probes: list[np.ndarray | None]) -> None:
        """From the cotangents of the spikes (S,), which are used up, and at the probes; adds to d_input (S_in,)."""
        for entry, past in zip(reversed(self.run.log), reversed(self.replay), strict=True):
            if entry.kind == ARRIVAL:
                d_input[entry.ref] += self._arrival(self.layer.incoming, self.g.in_weight, self.g.in_delay, entry.target)
            elif entry.kind == RECURRENT:
                d_spike[entry.ref] += self._arrival(self.layer.recurrent, self.g.rec_weight, self.g.rec_delay, entry.target)
            elif entry.kind == RELEASE:
                d_spike[entry.ref] += self._release(entry.target, past)
            elif entry.kind == SPIKE:
                self._spike(entry.target, float(d_spike[entry.ref]), past, entry.time)
            elif entry.kind == PROBE:
                for lam, cotangent in zip(self.lam, at_probes, strict=True):
                    if cotangent is not None:
                        lam += cotangent[entry.ref]
            self._flow(past, entry.time)

    def _arrival(self, wiring: Wiring, g_weight: np.ndarray, g_delay: np.ndarray, q: int) -> float:
        """dC/dw and dC/dt_a of what arrives through a group; returns Σ dC/dt_a."""
        edges, p = group(wiring, q), self.layer.neurons
        m, k = wiring.post[edges], wiring.receptor[edges]
        lam_c = self.lam.c[k, m]
        g_weight[edges] += lam_c
        shift = wiring.weight[edges] * (p.rate[k, m] * lam_c - p.gain[m] * np.where(self.held[m], 0.0, self.lam.v[m]))
        g_delay[edges] += shift
        return float(shift.sum())

    def _release(self, n: int, past: Before) -> float:
        """A later release delays the flow of v, and of what follows it; returns dC/d of its time, also that of the spike."""
        v_slope, th_slope = slopes(past.before, past.bias, of(self.layer.neurons, past.who))
        last = len(th_slope) - len(self.layer.neurons.follow)
        shift = -float(self.lam.v[n] * v_slope[0] + (self.lam.h[last:, n] * th_slope[last:, 0]).sum())
        self.g.neurons.refractory[n] += shift
        self.held[n] = True
        return shift

    def _spike(self, n: int, d_time: float, past: Before, time: float) -> None:
        """The jump at a spike, and its time, which moves with v - θ just before it."""
        p, g, (lam_v, lam_c, lam_h) = of(self.layer.neurons, n), self.g.neurons, self.lam
        v, c, h = (x[..., 0] for x in past.before)
        own = len(p.rate) - len(p.jump)
        after_v, after_a, after_h = lam_v[n], lam_c[own:, n].copy(), lam_h[:, n].copy()
        v_slope, th_slope = (x[..., 0] for x in slopes(past.before, past.bias, of(self.layer.neurons, past.who)))
        last, speed = len(h) - len(p.follow), float(v_slope - th_slope.sum())
        later = (
            after_v * p.reset_factor * v_slope
            + (after_a * p.jump * p.rate[own:]).sum()
            + (after_h * p.th_jump * p.th_rate).sum()
            + (after_h[last:] * th_slope[last:]).sum()  # of what is held from here on
        )
        later = float(later) + d_time
        if later != 0.0 and not speed > 0.0:
            raise grazing(self.trial, self.sample, n, time)
        moved = later / speed if later != 0.0 else 0.0
        g.v_th[n] += moved - p.reset_factor * after_v
        g.v_reset[n] += after_v
        g.reset_factor[n] += after_v * (v - p.v_th)
        g.jump[:, n] += after_a
        g.scale[:, n] += after_a * c[own:]
        g.th_jump[:, n] += after_h
        g.th_scale[:, n] += after_h * h
        lam_v[n] = p.reset_factor * after_v - moved
        lam_c[own:, n] = p.scale * after_a
        lam_h[:, n] = p.th_scale * after_h + moved
        self.held[n] = False

    def _flow(self, past: Before, t: float) -> None:
        """The costate of neurons from time t back to their last event, and what the parameters of the flow in between gain."""
        who, (v, c, h), span, g = past.who, past.after, t - past.since, self.g.neurons
        p, (a_v, a_c, a_h) = of(self.layer.neurons, who), (x[..., who] for x in self.lam)
        free = np.where(past.held, 0.0, a_v)  # of v, which is constant while it is held
        by_current, by_bias = kernel(p.leak_rate, p.rate, span), kernel(p.leak_rate, 0.0, span)
        th_span = np.tile(span, (len(h), 1))
        if len(p.follow):  # which is held with v
            th_span[-1] = np.where(past.held, 0.0, span)
        e_v, e_c, e_h = np.exp(-p.leak_rate * span), np.exp(-p.rate * span), np.exp(-p.th_rate * th_span)
        g.bias[who] += p.gain * by_bias * free
        if self.trial.driven:
            self.g.drive[past.step, self.sample, who] += p.gain * by_bias * free
        if self.rates:
            pushed = past.bias * double_kernel(p.leak_rate, 0.0, span) + (c * double_kernel(p.leak_rate, p.rate, span)).sum(0)
            g.leak_rate[who] -= free * (v * span * e_v + p.gain * pushed)
            g.gain[who] += free * (past.bias * by_bias + (c * by_current).sum(0))
            g.rate[:, who] -= c * (a_c * span * e_c + free * p.gain * double_kernel(p.rate, p.leak_rate, span))
            g.th_rate[:, who] -= a_h * h * th_span * e_h
        self.lam.v[who] = np.where(past.held, a_v, a_v * e_v)
        self.lam.c[:, who] = a_c * e_c + free * p.gain * by_current
        self.lam.h[:, who] = a_h * e_h
        if len(p.follow):
            self._follow(past, span, a_h[-1])

    def _follow(self, past: Before, t: X, a_w: X) -> None:
        """What the part of the threshold that follows the voltage adds to that, equation (6.11), from its costate after it."""
        who, (v, c, _), g, p = past.who, past.after, self.g.neurons, of(self.layer.neurons, past.who)
        q, mu, kappa, free = p.th_rate[-1], p.leak_rate, p.follow[0], np.where(past.held, 0.0, a_w)
        by_v, by_current, by_bias = kernel(q, mu, t), convolved(t, q, mu, p.rate), convolved(t, q, mu, 0.0)
        fed = free * kappa * p.gain
        g.bias[who] += fed * by_bias
        if self.trial.driven:
            self.g.drive[past.step, self.sample, who] += fed * by_bias
        if self.rates:
            pushed = past.bias * by_bias + (c * by_current).sum(0)
            g.follow[0, who] += free * (v * by_v + p.gain * pushed)
            g.gain[who] += free * kappa * pushed

            def slower(rate: X) -> X:  # the flow of w, each convolution with e_rate once more
                again = past.bias * convolved(t, rate, q, mu, 0.0) + (c * convolved(t, rate, q, mu, p.rate)).sum(0)
                return p.gain * again

            g.leak_rate[who] -= free * kappa * (v * double_kernel(mu, q, t) + slower(mu))
            g.rate[:, who] -= fed * c * convolved(t, q, mu, p.rate, p.rate)
            g.th_rate[-1, who] -= free * kappa * (v * double_kernel(q, mu, t) + slower(q))
        self.lam.v[who] += free * kappa * by_v
        self.lam.c[:, who] += fed * by_current
