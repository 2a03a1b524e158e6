"""One LIF layer, event by event, in plain numpy: the readable truth that the fused loops are tested against.

Every spike, release, arrival, change of the drive and probe is an entry of a log, in the order in which it was processed; at
equal times that is the order too. So a neuron's spike at the instant of an arrival does not see it yet, several neurons can
spike at one instant in any order with the same result, and what is recorded at an instant includes its events.
"""

import heapq
from math import inf
from typing import NamedTuple

import numpy as np

from adjsnn.lif.flow import first_crossing, flow
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
    LayerRun,
    State,
    Trial,
    bias_of,
    runaway,
)


class Entry(NamedTuple):
    """Something that happened in one sample of one layer.

    Attributes:
        time: when, ms.
        kind: ARRIVAL, RECURRENT, SPIKE, RELEASE, PROBE or DRIVE.
        ref: the spike that arrives, is fired or released, counted within the sample; or the probe; or the step that begins.
        target: the neuron it happens to, or ALL.
    """

    time: float
    kind: int
    ref: int
    target: int


class SampleRun(NamedTuple):
    """What a sample did.

    Attributes:
        log: what happened, in order.
        time: (S,), of each spike, ms.
        neuron: (S,).
        current: (S,), i and the drive just before the spike.
        v: (P, N), at the probes.
        i: (P, N), likewise.
    """

    log: list[Entry]
    time: np.ndarray
    neuron: np.ndarray
    current: np.ndarray
    v: np.ndarray
    i: np.ndarray


def forward(layer: Layer, inputs: Events, start: State, trial: Trial) -> LayerRun:
    """Solve a layer for every sample, from its state (B, N) at time 0.

    Raises:
        EventError: a neuron spikes more often than trial.limit.
    """
    runs = [
        run_sample(layer, inputs.time[incoming], inputs.neuron[incoming], State(start.v[b], start.i[b]), trial, b)
        for b, incoming in enumerate(map(inputs.of_sample, range(inputs.batch)))
    ]
    first = np.cumsum([0, *(len(run.time) for run in runs)])
    time, neuron = np.concatenate([run.time for run in runs]), np.concatenate([run.neuron for run in runs])
    current = np.concatenate([run.current for run in runs])
    states = State(np.stack([run.v for run in runs], 1), np.stack([run.i for run in runs], 1))
    return LayerRun(Events(first, time, neuron), current, states, runs)


def arrivals(layer: Layer, recurrent: bool, time: float, spike: int, source: int) -> list[Entry]:
    """Where and when a spike of a source arrives: everywhere at once, or synapse by synapse where delays are per synapse."""
    kind, delays = (RECURRENT, layer.rec_delays) if recurrent else (ARRIVAL, layer.delays)
    if len(delays) == 1:
        return [Entry(time + delays[0, source], kind, spike, ALL)]
    return [Entry(time + delays[n, source], kind, spike, n) for n in range(len(layer.w_in))]


class _Run:
    """State of a sample on its way: v, i and time of each neuron, when it spikes next, and the arrivals to come."""

    def __init__(self, layer: Layer, start: State, ends: float, bias: np.ndarray) -> None:
        n = len(layer.w_in)
        self.layer, self.ends, self.bias = layer, ends, bias  # the step of the drive ends
        self.v, self.i = start.v.copy(), start.i.copy()
        self.since = np.zeros(n)  # the time of v and i
        self.release, self.spike_of = np.full(n, inf), np.full(n, -1)
        self.next_spike = np.full(n, inf)
        for m in range(n):
            self.predict(m)

    def advance(self, who: np.ndarray, t: float) -> None:
        """Carry neurons to time t; those that are held at the reset keep their voltage."""
        p = self.layer
        v, i = flow(self.v[who], self.i[who], t - self.since[who], self.bias[who], p.tau_mem[who], p.tau_syn[who])
        held = self.release[who] < inf
        self.v[who], self.i[who], self.since[who] = np.where(held, self.v[who], v), i, t

    def predict(self, n: int) -> None:
        p = self.layer
        self.next_spike[n] = inf
        if self.release[n] == inf:
            wait = first_crossing(
                self.v[n], self.i[n], self.bias[n], p.tau_mem[n], p.tau_syn[n], p.v_th[n], self.ends - self.since[n]
            )
            if wait < inf:
                self.next_spike[n] = min(self.since[n] + wait, self.ends)


def run_sample(
    layer: Layer,
    times: np.ndarray,
    sources: np.ndarray,
    start: State,
    trial: Trial,
    sample: int,
) -> SampleRun:
    """Solve one sample of a layer from its input spikes."""
    n, everyone = len(start.v), np.arange(len(start.v))
    t_end, probes = trial.t_end, trial.probes
    edges, step = [*trial.edges.tolist(), inf], 0
    run = _Run(layer, start, min(edges[0], t_end), bias_of(layer.bias, trial, sample, 0))
    queue: list[tuple[float, int, Entry]] = []
    log: list[Entry] = []
    fired_at: list[float] = []
    fired_by: list[int] = []
    currents: list[float] = []
    counts = np.zeros(n, int)
    recorded = (np.zeros((len(probes), n)), np.zeros((len(probes), n)))
    done = 0

    def send(recurrent: bool, time: float, spike: int, source: int) -> None:
        for entry in arrivals(layer, recurrent, time, spike, source):
            heapq.heappush(queue, (entry.time, len(log) + len(queue), entry))

    for spike, (time, source) in enumerate(zip(times.tolist(), sources.tolist(), strict=True)):
        send(False, time, spike, source)
    while True:
        spiking, releasing = int(run.next_spike.argmin()), int(run.release.argmin())
        arriving = queue[0][0] if queue else inf
        t = min(run.next_spike[spiking], run.release[releasing], arriving, edges[step])
        while done < len(probes) and probes[done] < t:
            run.advance(everyone, probes[done])
            recorded[0][done], recorded[1][done] = run.v, run.i
            log.append(Entry(probes[done], PROBE, done, ALL))
            done += 1
        if t > t_end:
            return SampleRun(log, np.array(fired_at), np.array(fired_by, int), np.array(currents), *recorded)
        if run.next_spike[spiking] == t:
            _fire(run, spiking, t, len(fired_at))
            log.append(Entry(t, SPIKE, len(fired_at), spiking))
            if layer.recurrent:
                send(True, t, len(fired_at), spiking)
            fired_at.append(t)
            fired_by.append(spiking)
            currents.append(float(run.i[spiking] + (run.bias[spiking] - layer.bias[spiking])))
            counts[spiking] += 1
            if counts[spiking] > trial.limit:
                raise runaway(trial, sample, spiking, t)
        elif run.release[releasing] == t:
            run.advance(everyone[releasing : releasing + 1], t)
            log.append(Entry(t, RELEASE, run.spike_of[releasing], releasing))
            run.release[releasing] = inf
            run.predict(releasing)
        elif arriving > t:
            step += 1
            run.advance(everyone, t)
            log.append(Entry(t, DRIVE, step, ALL))
            run.ends, run.bias = min(edges[step], t_end), bias_of(layer.bias, trial, sample, step)
            for m in range(n):
                run.predict(m)
        else:
            entry = heapq.heappop(queue)[2]
            _arrive(run, entry, sources, fired_by)
            log.append(entry)


def _fire(run: _Run, n: int, t: float, spike: int) -> None:
    run.advance(np.array([n]), t)
    run.v[n] = run.layer.v_reset[n]
    run.release[n], run.spike_of[n], run.next_spike[n] = t + run.layer.refractory[n], spike, inf


def _arrive(run: _Run, entry: Entry, sources: np.ndarray, fired_by: list[int]) -> None:
    who = np.arange(len(run.v)) if entry.target == ALL else np.array([entry.target])
    weights = run.layer.w_rec[who, fired_by[entry.ref]] if entry.kind == RECURRENT else run.layer.w_in[who, sources[entry.ref]]
    run.advance(who, entry.time)
    run.i[who] += weights
    for m in who.tolist():
        run.predict(m)
