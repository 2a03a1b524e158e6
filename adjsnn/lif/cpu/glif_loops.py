"""Connects the fused loop of generalised LIF layers to arrays of a whole batch, as `loops.py` does that of LIF layers."""

from itertools import pairwise
from typing import Any

import numpy as np

from adjsnn.lif.cpu.loops import joined, starts
from adjsnn.lif.glif.arrays import GLIF, GLIFCotangents, GLIFGradients, GLIFRun, GLIFState, Neurons
from adjsnn.lif.glif.errors import ABOVE, above
from adjsnn.lif.layer import FINE, RUNAWAY, Events, Trial, grazing, runaway
from adjsnn.numerics.threads import SHARE, run_groups

MANY = 1 << 17  # synapses; each group of samples has gradients of their own of all of them
GROUPS, GROUPS_OF_MANY = 16, 4  # of samples, at most


def forward(layer: GLIF, inputs: Events, start: GLIFState, trial: Trial) -> GLIFRun:
    """Solve a layer for every sample, from its state at time 0; as `glif.plain.forward`.

    Raises:
        EventError: a neuron spikes more often than trial.limit, or is above its threshold after its reset.
    """
    from adjsnn.lif.cpu import glif, glif_dense  # noqa: PLC0415  load the compiler
    from adjsnn.lif.cpu.glif_cell import kinds_of  # noqa: PLC0415

    kinds = kinds_of(layer.neurons)
    tables = tables_of(layer, len(kinds.leak_rate))
    states = GLIFState._make([np.empty((len(trial.probes), *x.shape)) for x in start])
    groups = _groups(layer, inputs, trial)
    parts: list[Any] = [None] * len(groups)

    def work(k: int, first: int, last: int) -> None:
        if tables is None:
            parts[k] = glif.forward(layer, kinds, inputs, start, trial, first, last, states)
        else:
            parts[k] = glif_dense.forward(layer, kinds, tables, inputs, start, trial, first, last, states)

    run_groups(work, groups)
    for *_, outcome, time in parts:
        _raise(trial, outcome, time)
    counts, spikes, entries, log = (joined(column) for column in list(zip(*parts, strict=True))[:-2])
    events = Events(starts(counts), spikes.time, spikes.neuron)
    return GLIFRun(events, spikes.speed, states, (spikes, starts(entries), log))


def backward(
    layer: GLIF,
    inputs: Events,
    start: GLIFState,
    trial: Trial,
    run: GLIFRun,
    cotangents: GLIFCotangents,
    rates: bool,
) -> GLIFGradients:
    """Gradients of a layer; as `glif.plain_adjoint.backward`. Groups of samples are summed in their order.

    Raises:
        EventError: the loss depends on a spike that touches its threshold without crossing it.
    """
    from adjsnn.lif.cpu import glif_adjoint, glif_dense_adjoint  # noqa: PLC0415  load the compiler
    from adjsnn.lif.cpu.glif_cell import kinds_of  # noqa: PLC0415

    kinds = kinds_of(layer.neurons)
    tables = tables_of(layer, len(kinds.leak_rate))
    groups = _groups(layer, inputs, trial)
    spikes, log_first, log = run.record
    history = glif_adjoint.History(run.spikes.first, spikes, log_first, log)
    asked = [np.zeros(x.shape) if d is None else d for d, x in zip(cotangents[1:], run.states, strict=True)]
    wanted = GLIFCotangents(cotangents.time, *asked)
    sums = [_nothing(layer) for _ in groups]
    own = [np.zeros(x.shape) for x in (inputs.time, *start, trial.drive)]  # of each sample alone
    outcomes: list[Any] = [None] * len(groups)

    def work(k: int, first: int, last: int) -> None:
        into = GLIFGradients(*sums[k], *own)
        if tables is None:
            outcomes[k] = glif_adjoint.backward(layer, kinds, inputs, start, trial, history, wanted, first, last, rates, into)
        else:
            head = layer, kinds, tables, start, trial, history, wanted
            outcomes[k] = glif_dense_adjoint.backward(*head, first, last, rates, into)

    run_groups(work, groups)
    for outcome, time in outcomes:
        _raise(trial, outcome, time)
    for part in sums[1:]:
        for whole, x in zip((*sums[0][0], *sums[0][1:]), (*part[0], *part[1:]), strict=True):
            whole += x
    return GLIFGradients(*sums[0], *own)


def tables_of(layer: GLIF, kinds: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Weights as `glif_dense` takes them, or None: for neurons of several kinds, thresholds that follow the voltage,
    or spikes that reach few neurons."""
    from adjsnn.lif.cpu.glif_dense import table_of  # noqa: PLC0415  loads the compiler

    receptors, n = layer.neurons.rate.shape[0] - len(layer.neurons.jump), len(layer.neurons.bias)
    if kinds > 1 or len(layer.neurons.follow):
        return None
    (incoming, first), (recurrent, second) = (table_of(x, receptors, n) for x in (layer.incoming, layer.recurrent))
    return (incoming, recurrent) if first and second else None


def _nothing(layer: GLIF) -> tuple[Any, ...]:
    """Gradients of what samples share, to be added to."""
    synapses = (layer.incoming, layer.incoming, layer.recurrent, layer.recurrent)
    return Neurons._make([np.zeros(x.shape) for x in layer.neurons]), *[np.zeros(len(x.weight)) for x in synapses]


def _groups(layer: GLIF, inputs: Events, trial: Trial) -> list[tuple[int, int]]:
    """Samples (first, last) of each call; not by the number of threads, so that sums over samples are always the same."""
    neurons, batch, synapses = len(layer.neurons.bias), inputs.batch, len(layer.incoming.post) + len(layer.recurrent.post)
    arrivals = len(inputs.time) * len(layer.incoming.post) // max(1, len(layer.incoming.first) - 1)
    steps = batch * neurons * (1 + len(trial.drive)) + arrivals * (2 if len(layer.recurrent.post) else 1)
    count = max(1, min(GROUPS if synapses <= MANY else GROUPS_OF_MANY, batch, steps // SHARE))
    return list(pairwise(batch * k // count for k in range(count + 1)))


def _raise(trial: Trial, outcome: tuple[int, int, int], time: float) -> None:
    what, sample, neuron = outcome
    if what != FINE:
        raise {RUNAWAY: runaway, ABOVE: above}.get(what, grazing)(trial, sample, neuron, time)
