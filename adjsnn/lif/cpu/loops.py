"""Connects the fused LIF loops to arrays of a whole batch: threads over samples, and results put together in their order."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adjsnn.errors import EventError
from adjsnn.lif.layer import (
    Events,
    LayerArrays,
    LayerCotangents,
    LayerGradients,
    LayerRun,
    Trial,
    grazing,
    runaway,
)
from adjsnn.lif.network import LIFLayer
from adjsnn.numerics.threads import groups_of, run_groups

FINE, RUNAWAY = 0, 1


def obstacle(layers: Sequence[LIFLayer]) -> str | None:
    """Why the loops cannot solve a network's layers: at present they can solve all of them."""
    del layers
    return None


def forward(layer: LayerArrays, inputs: Events, v: np.ndarray, i: np.ndarray, trial: Trial) -> LayerRun:
    """Solve a layer for every sample, from v and i (B, N) at time 0; as `lif.plain.forward`.

    Raises:
        EventError: a neuron spikes more often than trial.limit.
    """
    loop, _ = _loops(layer.recurrent)
    states = np.empty((2, len(trial.probes), *v.shape))
    head = (*_head(layer), *inputs, v, i, trial.t_end, *_stops(layer, trial), trial.drive, trial.limit)
    groups = groups_of(inputs.batch, _work(layer, inputs, trial), v.shape[1])
    parts: list[Any] = [None] * len(groups)

    def work(k: int, first: int, last: int) -> None:
        parts[k] = loop(*head, first, last, *states)

    run_groups(work, groups)
    for *_, where, time in parts:
        _raise(trial, where, time)
    counts, *columns = (np.concatenate(x) for x in list(zip(*parts, strict=True))[:-2])
    first = np.concatenate([[0], np.cumsum(counts)])
    time, neuron, current, *record = columns
    return LayerRun(Events(first, time, neuron), current, states[0], states[1], record)


def backward(
    layer: LayerArrays,
    inputs: Events,
    v: np.ndarray,
    i: np.ndarray,
    trial: Trial,
    run: LayerRun,
    cotangents: LayerCotangents,
    wanted: frozenset[str],
) -> LayerGradients:
    """Gradients of a layer; as `lif.plain_adjoint.backward`. Groups of samples are summed in their order.

    Raises:
        EventError: the loss depends on a spike that touches its threshold without crossing it.
    """
    _, loop = _loops(layer.recurrent)
    groups = groups_of(inputs.batch, _work(layer, inputs, trial), v.shape[1])
    nothing = None if cotangents.v is not None and cotangents.i is not None else np.zeros((len(trial.probes), *v.shape))
    d_states = [nothing if x is None else x for x in (cotangents.v, cotangents.i)]
    head = (*_head(layer), *inputs, v, i, trial.t_end, *_stops(layer, trial), trial.drive)
    middle = (run.spikes.first, *run.spikes[1:], run.current, *run.record, cotangents.time, *d_states)
    want_tau = bool(wanted & {"tau_mem", "tau_syn"})
    d_time, d_v0, d_i0 = np.zeros_like(inputs.time), np.zeros_like(v), np.zeros_like(i)
    d_drive = np.zeros_like(trial.drive)
    sums = [LayerArrays(*(np.zeros_like(x) for x in layer)) for _ in groups]
    outcomes: list[Any] = [None] * len(groups)

    def work(k: int, first: int, last: int) -> None:
        d = sums[k]
        weights = (d.w_in, d.w_rec) if layer.recurrent else (d.w_in,)
        delays = (d.delays, d.rec_delays) if layer.recurrent else (d.delays,)
        per_neuron = (d.bias, d.tau_mem, d.tau_syn, d.v_th, d.v_reset, d.refractory)
        outcomes[k] = loop(*head, first, last, *middle, want_tau, *weights, *per_neuron, *delays, d_time, d_v0, d_i0, d_drive)

    run_groups(work, groups)
    for where, time in outcomes:
        _raise(trial, where, time)
    total = sums[0]
    for part in sums[1:]:
        for whole, x in zip(total, part, strict=True):
            whole += x
    return LayerGradients(total, d_time, d_v0, d_i0, d_drive)


def _head(layer: LayerArrays) -> tuple[np.ndarray, ...]:
    """A layer's arrays in the order of the loops' arguments."""
    if layer.recurrent:
        return layer
    return layer.w_in, *layer[2:9]


def _stops(layer: LayerArrays, trial: Trial) -> tuple[np.ndarray, np.ndarray]:
    """Times of probes and of changes of the drive in the form of each loop.

    For a feed-forward layer both in one column, sorted, and what each is: probe p ≥ 0, or -k for the beginning of step k of the
    drive. For a recurrent one probes and edges.
    """
    if layer.recurrent:
        return trial.probes, trial.edges
    times = np.concatenate([trial.edges, trial.probes])
    what = np.concatenate([-1 - np.arange(len(trial.edges)), np.arange(len(trial.probes))])
    order = np.argsort(times, kind="stable")
    return times[order], what[order]


def _work(layer: LayerArrays, inputs: Events, trial: Trial) -> int:
    """Steps of a neuron per sample, about."""
    arrivals = len(inputs.time) / inputs.batch * (4 if layer.recurrent else 1)
    return int(len(layer.bias) * (1 + len(trial.drive) + arrivals))


def _raise(trial: Trial, where: tuple[int, int, int], time: float) -> None:
    what, sample, neuron = where
    if what != FINE:
        error: EventError = (runaway if what == RUNAWAY else grazing)(trial, sample, neuron, time)
        raise error


def _loops(is_recurrent: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The compiled solve and adjoint, imported when first needed: numba takes a second."""
    if is_recurrent:
        from adjsnn.lif.cpu import recurrent as forward  # noqa: PLC0415
        from adjsnn.lif.cpu import recurrent_adjoint as adjoint  # noqa: PLC0415
    else:
        from adjsnn.lif.cpu import feedforward as forward  # noqa: PLC0415
        from adjsnn.lif.cpu import feedforward_adjoint as adjoint  # noqa: PLC0415
    return forward.forward, adjoint.backward
