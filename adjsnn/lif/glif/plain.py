"""One layer of generalised LIF neurons, event by event, in plain numpy: the readable truth for compiled loops.

It keeps a log as `lif/plain.py` does, in the same order at one instant: spikes, releases from the reset, arrivals, changes of
the drive, probes. The target of an arrival is the group of synapses through which it arrives.
"""

import heapq
from itertools import count
from math import inf
from typing import NamedTuple

import numpy as np

from adjsnn.lif.glif.arrays import GLIF, GLIFRun, GLIFState, Wiring
from adjsnn.lif.glif.crossing import first_crossing
from adjsnn.lif.glif.errors import AT_THRESHOLD, above
from adjsnn.lif.glif.flow import flow, of, slopes
from adjsnn.lif.layer import ALL, ARRIVAL, DRIVE, PROBE, RECURRENT, RELEASE, SPIKE, Events, Trial, bias_of, runaway
from adjsnn.lif.plain import Entry


class SampleRun(NamedTuple):
    """What a sample did.

    Attributes:
        log: what happened, in order.
        time: (S,), of each spike, ms.
        neuron: (S,).
        speed: (S,), v̇ - θ̇ just before each spike, 1/ms.
        states: at the probes, v (T, N), c (T, P, N), h (T, H, N).
    """

    log: list[Entry]
    time: np.ndarray
    neuron: np.ndarray
    speed: np.ndarray
    states: GLIFState


def forward(layer: GLIF, inputs: Events, start: GLIFState, trial: Trial) -> GLIFRun:
    """Solve a layer for every sample, from its state at time 0, equations (6.1)-(6.3).

    Raises:
        EventError: a neuron spikes more often than trial.limit, or is above its threshold after a reset or at time 0.
    """
    runs = []
    for b, incoming in enumerate(map(inputs.of_sample, range(inputs.batch))):
        state = GLIFState(start.v[b], start.c[b], start.h[b])
        runs.append(run_sample(layer, inputs.time[incoming], inputs.neuron[incoming], state, trial, b))
    first = np.cumsum([0, *(len(run.time) for run in runs)])
    time, neuron, speed = (np.concatenate([run[k] for run in runs]) for k in (1, 2, 3))
    states = GLIFState._make(np.stack(parts, 1) for parts in zip(*(run.states for run in runs), strict=True))
    return GLIFRun(Events(first, time, neuron), speed, states, runs)


class Cells:
    """State of a sample on its way: v, c and h of each neuron after its last event, when that was, and whether it is held."""

    def __init__(self, layer: GLIF, start: GLIFState, trial: Trial, sample: int) -> None:
        n = len(start.v)
        self.layer, self.trial, self.sample = layer, trial, sample
        self.v, self.c, self.h = start.v.copy(), start.c.copy(), start.h.copy()
        self.since, self.held = np.zeros(n), np.zeros(n, bool)
        self.step, self.bias = 0, bias_of(layer.neurons.bias, trial, sample, 0)

    def state(self, who: np.ndarray) -> GLIFState:
        return GLIFState(self.v[who], self.c[:, who], self.h[:, who])

    def wiring(self, kind: int) -> Wiring:
        return self.layer.recurrent if kind == RECURRENT else self.layer.incoming

    def targets(self, entry: Entry) -> np.ndarray:
        """The neurons that something happens to."""
        if entry.kind in (ARRIVAL, RECURRENT):
            return np.unique(self.wiring(entry.kind).post[group(self.wiring(entry.kind), entry.target)])
        return np.arange(len(self.v)) if entry.target == ALL else np.array([entry.target])

    def advance(self, who: np.ndarray, t: float) -> None:
        """Carry neurons to time t; those that are held keep their voltage, and what follows it."""
        moved = flow(self.state(who), t - self.since[who], self.bias[who], of(self.layer.neurons, who))
        self.v[who] = np.where(self.held[who], self.v[who], moved.v)
        following = slice(len(self.h) - len(self.layer.neurons.follow), None)
        moved.h[following] = np.where(self.held[who], self.h[following, who], moved.h[following])
        self.c[:, who], self.h[:, who], self.since[who] = moved.c, moved.h, t

    def jump(self, entry: Entry) -> None:
        """What an entry does to the neurons that were carried to its time, equation (6.2)."""
        p, n = self.layer.neurons, entry.target
        if entry.kind in (ARRIVAL, RECURRENT):
            wiring = self.wiring(entry.kind)
            edges = group(wiring, entry.target)
            np.add.at(self.c, (wiring.receptor[edges], wiring.post[edges]), wiring.weight[edges])
        elif entry.kind == SPIKE:
            own = len(p.rate) - len(p.jump)
            self.v[n] = p.reset_factor[n] * (self.v[n] - p.v_th[n]) + p.v_reset[n]
            self.c[own:, n] = p.scale[:, n] * self.c[own:, n] + p.jump[:, n]
            self.h[:, n] = p.th_scale[:, n] * self.h[:, n] + p.th_jump[:, n]
            self.held[n] = True
        elif entry.kind == RELEASE:
            self.held[n] = False
        elif entry.kind == DRIVE:
            self.step, self.bias = entry.ref, bias_of(p.bias, self.trial, self.sample, entry.ref)


def group(wiring: Wiring, q: int) -> slice:
    """The synapses of a group."""
    return slice(int(wiring.edge[q]), int(wiring.edge[q + 1]))


class _Run(Cells):
    """Cells that foresee: when each neuron spikes next if nothing happens to it, when it is released, and what will arrive."""

    def __init__(self, layer: GLIF, start: GLIFState, trial: Trial, sample: int) -> None:
        super().__init__(layer, start, trial, sample)
        n = len(start.v)
        self.edges = [*trial.edges.tolist(), inf]
        self.release, self.spike_of, self.next_spike = np.full(n, inf), np.full(n, -1), np.full(n, inf)
        self.queue: list[tuple[float, int, Entry]] = []
        self.number = count()
        self.log: list[Entry] = []
        for m in range(n):
            self.check(m)
            self.predict(m)

    def predict(self, n: int) -> None:
        """Its next spike before the drive changes or the trial ends."""
        self.next_spike[n] = inf
        if not self.held[n]:
            ends = min(self.edges[self.step], self.trial.t_end)
            state = GLIFState(self.v[n], self.c[:, n], self.h[:, n])
            wait = first_crossing(state, self.bias[n], of(self.layer.neurons, n), ends - self.since[n])
            if wait < inf:
                self.next_spike[n] = min(self.since[n] + wait, ends)

    def check(self, n: int) -> None:
        size = abs(self.v[n]) + abs(self.layer.neurons.v_th[n]) + np.abs(self.h[:, n]).sum()
        if self.v[n] - self.layer.neurons.v_th[n] - self.h[:, n].sum() > AT_THRESHOLD * size:
            raise above(self.trial, self.sample, n, float(self.since[n]))

    def send(self, kind: int, time: float, spike: int, source: int) -> None:
        wiring = self.wiring(kind)
        for q in range(int(wiring.first[source]), int(wiring.first[source + 1])):
            arrives = time + float(wiring.delay[q])
            heapq.heappush(self.queue, (arrives, next(self.number), Entry(arrives, kind, spike, q)))

    def happen(self, entry: Entry) -> None:
        who = self.targets(entry)
        self.advance(who, entry.time)
        self.jump(entry)
        self.log.append(entry)
        for m in who.tolist():
            if entry.kind == RELEASE:
                self.check(m)
            self.predict(m)


def run_sample(layer: GLIF, times: np.ndarray, sources: np.ndarray, start: GLIFState, trial: Trial, sample: int) -> SampleRun:
    """Solve one sample of a layer from its input spikes."""
    run, p = _Run(layer, start, trial, sample), layer.neurons
    everyone, probes, done = np.arange(len(start.v)), trial.probes, 0
    recorded = GLIFState._make(np.zeros((len(probes), *x.shape)) for x in start)
    fired_at: list[float] = []
    fired_by: list[int] = []
    speeds: list[float] = []
    counts = np.zeros(len(start.v), int)

    for spike, (time, source) in enumerate(zip(times.tolist(), sources.tolist(), strict=True)):
        run.send(ARRIVAL, time, spike, source)
    while True:
        spiking, releasing = int(run.next_spike.argmin()), int(run.release.argmin())
        arriving, edge = run.queue[0][0] if run.queue else inf, run.edges[run.step]
        t = min(float(run.next_spike[spiking]), float(run.release[releasing]), arriving, edge)
        while done < len(probes) and probes[done] < t:
            run.advance(everyone, float(probes[done]))
            for into, x in zip(recorded, run.state(everyone), strict=True):
                into[done] = x
            run.log.append(Entry(float(probes[done]), PROBE, done, ALL))
            done += 1
        if t > trial.t_end:
            return SampleRun(run.log, np.array(fired_at), np.array(fired_by, int), np.array(speeds), recorded)
        if run.next_spike[spiking] == t:
            who = everyone[spiking : spiking + 1]
            run.advance(who, t)
            v_slope, th_slope = slopes(run.state(who), run.bias[who], of(p, who))
            speeds.append(float(v_slope[0] - th_slope.sum()))
            run.happen(Entry(t, SPIKE, len(fired_at), spiking))
            run.release[spiking], run.spike_of[spiking] = t + p.refractory[spiking], len(fired_at)
            if len(layer.recurrent.first) > 1:
                run.send(RECURRENT, t, len(fired_at), spiking)
            fired_at.append(t)
            fired_by.append(spiking)
            counts[spiking] += 1
            if counts[spiking] > trial.limit:
                raise runaway(trial, sample, spiking, t)
        elif run.release[releasing] == t:
            run.release[releasing] = inf
            run.happen(Entry(t, RELEASE, int(run.spike_of[releasing]), releasing))
        elif arriving > t:
            run.happen(Entry(t, DRIVE, run.step + 1, ALL))
        else:
            run.happen(heapq.heappop(run.queue)[2])
