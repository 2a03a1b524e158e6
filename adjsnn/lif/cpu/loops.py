"""Connects the fused LIF loops to arrays of a whole batch: threads over samples, and results put together in their order."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adjsnn.errors import EventError
from adjsnn.lif.layer import (
    FINE,
    RUNAWAY,
    Events,
    Layer,
    LayerCotangents,
    LayerGradients,
    LayerRun,
    State,
    Trial,
    grazing,
    runaway,
)
from adjsnn.lif.structure import LIFLayer
from adjsnn.numerics.threads import groups_of, loop_threads, run_groups

GROUP = 16  # neurons of equal time constants, about as quick together as if each had its own
STATES = 1 << 22  # states at stops, of 16 bytes each, that a thread keeps


def obstacle(layers: Sequence[LIFLayer]) -> str | None:
    """Why the loops cannot solve a network's layers: at present they can solve all of them."""
    del layers
    return None


def forward(layer: Layer, inputs: Events, start: State, trial: Trial) -> LayerRun:
    """Solve a layer for every sample, from its state (B, N) at time 0; as `lif.plain.forward`.

    Raises:
        EventError: a neuron spikes more often than trial.limit.
    """
    layer = _typed(layer)
    loop = _forward(layer)
    shape = (len(trial.probes), *start.v.shape)
    states = State(np.empty(shape), np.empty(shape))
    head = (layer, inputs, start, trial, *_marks(layer, trial))
    groups = _groups(layer, inputs, trial)
    parts: list[Any] = [None] * len(groups)

    def work(k: int, first: int, last: int) -> None:
        parts[k] = loop(*head, first, last, states)

    run_groups(work, groups)
    for part, (first, _) in zip(parts, groups, strict=True):
        failed = part
        while part[-2][0] != FINE and (sample := part[-2][1]) > first:  # some run abreast: one before may fail at a later stop
            part = loop(*head, first, sample, states)
            failed = failed if part[-2][0] == FINE else part
        _raise(trial, *failed[-2:])
    counts, spikes, *log = (joined(column) for column in list(zip(*parts, strict=True))[:-2])
    events = Events(starts(counts), spikes.time, spikes.neuron)
    return LayerRun(events, spikes.current, states, _record(events.first, spikes, *log))


def backward(
    layer: Layer,
    inputs: Events,
    start: State,
    trial: Trial,
    run: LayerRun,
    cotangents: LayerCotangents,
    wanted: frozenset[str],
) -> LayerGradients:
    """Gradients of a layer; as `lif.plain_adjoint.backward`. Groups of samples are summed in their order.

    Raises:
        EventError: the loss depends on a spike that touches its threshold without crossing it.
    """
    want_tau = bool(wanted & {"tau_mem", "tau_syn"})
    layer = _typed(layer)
    loop = _backward(layer, inputs, trial, want_tau)
    groups = _groups(layer, inputs, trial)
    nothing = None if cotangents.v is not None and cotangents.i is not None else np.zeros((len(trial.probes), *start.v.shape))
    d_v, d_i = (nothing if x is None else x for x in (cotangents.v, cotangents.i))
    head = (
        layer,
        inputs,
        start,
        trial,
        *_marks(layer, trial),
        *run.record,
        LayerCotangents(cotangents.time, d_v, d_i),
    )
    own = [np.zeros(x.shape) for x in (inputs.time, *start, trial.drive)]  # of each sample alone
    sums = [Layer._make([np.zeros(x.shape) for x in layer]) for _ in groups]
    outcomes: list[Any] = [None] * len(groups)

    def work(k: int, first: int, last: int) -> None:
        outcomes[k] = loop(*head, first, last, want_tau, LayerGradients(sums[k], *own))

    run_groups(work, groups)
    for outcome, time in outcomes:
        _raise(trial, outcome, time)
    for part in sums[1:]:
        for total, x in zip(sums[0], part, strict=True):
            total += x
    return LayerGradients(sums[0], *own)


def joined(parts: Sequence[Any]) -> Any:
    """Arrays, or named tuples of arrays, of all groups one after the other."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return type(parts[0])._make(np.concatenate(columns) for columns in zip(*parts, strict=True))


def starts(counts: np.ndarray) -> np.ndarray:
    """Where each sample begins, and the end."""
    first = np.zeros(len(counts) + 1, np.int64)
    counts.cumsum(out=first[1:])
    return first


def _marks(layer: Layer, trial: Trial) -> tuple[Any, ...]:
    """Probes and changes of the drive in one column for a feed-forward layer; the recurrent loop reads both in `trial`."""
    if layer.recurrent:
        return ()
    from adjsnn.lif.cpu.feedforward import Marks  # noqa: PLC0415  loads the compiler

    if not len(trial.edges):
        return (Marks(trial.probes, np.arange(len(trial.probes))),)
    times = np.concatenate([trial.edges, trial.probes])
    what = np.concatenate([-1 - np.arange(len(trial.edges)), np.arange(len(trial.probes))])
    order = np.argsort(times, kind="stable")
    return (Marks(times[order], what[order]),)


def _record(first: np.ndarray, spikes: Any, entries: np.ndarray | None = None, log: Any = None) -> tuple[Any, ...]:
    """What the adjoint reads of a forward run, in the form of its loop's arguments."""
    if entries is None:
        return first, spikes
    from adjsnn.lif.cpu.recurrent_adjoint import History  # noqa: PLC0415  loads the compiler

    return (History(first, spikes, starts(entries), log),)


def _groups(layer: Layer, inputs: Events, trial: Trial) -> list[tuple[int, int]]:
    """Samples of each call: all of them where one thread has them anyway."""
    if loop_threads() == 1:
        return [(0, inputs.batch)]
    return groups_of(inputs.batch, _work(layer, inputs, trial), len(layer.bias))


def _work(layer: Layer, inputs: Events, trial: Trial) -> int:
    """Steps of a neuron per sample, about."""
    arrivals = len(inputs.time) / inputs.batch * (4 if layer.recurrent else 1)
    return int(len(layer.bias) * (1 + len(trial.drive) + arrivals))


def _raise(trial: Trial, outcome: tuple[int, int, int], time: float) -> None:
    what, sample, neuron = outcome
    if what != FINE:
        error: EventError = (runaway if what == RUNAWAY else grazing)(trial, sample, neuron, time)
        raise error


def _alike(layer: Layer) -> bool:
    """Whether every neuron has the same arrivals."""
    return len(layer.delays) == 1 and len(layer.rec_delays) == 1


def _equal(x: np.ndarray) -> bool:
    return bool(np.logical_and.reduce(x == x[0]))


def _typed(layer: Layer) -> Layer:
    """An `each.Unequal` layer where neurons with the same arrivals have time constants of their own, rather than in groups."""
    tau_mem, tau_syn = layer.tau_mem, layer.tau_syn
    if not _alike(layer) or (_equal(tau_mem) and _equal(tau_syn)):
        return layer
    groups = 1 + np.count_nonzero((np.diff(tau_mem) != 0.0) | (np.diff(tau_syn) != 0.0))
    if layer.recurrent and groups <= len(layer.bias) // GROUP:
        return layer
    from adjsnn.lif.cpu.each import Unequal  # noqa: PLC0415  loads the compiler

    return Unequal._make(layer)


def _forward(layer: Layer) -> Callable[..., Any]:
    """The compiled solve, imported when first needed: numba takes a second."""
    if layer.recurrent:
        import adjsnn.lif.cpu.recurrent as module  # noqa: PLC0415
    elif _alike(layer):
        import adjsnn.lif.cpu.feedforward_lanes as module  # noqa: PLC0415
    else:
        import adjsnn.lif.cpu.feedforward as module  # noqa: PLC0415
    return module.forward


def _backward(layer: Layer, inputs: Events, trial: Trial, want_tau: bool) -> Callable[..., Any]:
    """Its adjoint, likewise.

    For the gradients of time constants equal neurons keep their states at all stops of a sample, where that is not too much.
    """

    def too_many() -> bool:
        stops = int(np.diff(inputs.first).max()) + len(trial.probes) + len(trial.edges)
        return stops * len(layer.bias) > STATES

    if layer.recurrent:
        import adjsnn.lif.cpu.recurrent_adjoint as module  # noqa: PLC0415
    elif _alike(layer) and not (want_tau and too_many()):
        import adjsnn.lif.cpu.feedforward_adjoint_lanes as module  # noqa: PLC0415
    else:
        import adjsnn.lif.cpu.feedforward_adjoint as module  # noqa: PLC0415
    return module.backward
