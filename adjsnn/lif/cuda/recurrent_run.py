"""A whole batch of a recurrent LIF layer on a GPU.

A spike takes 104 bytes until the backward pass, with its entries in the log, and an arrival 24. On the way there is room for as
many spikes in every sample as in the one that has most, and up to four times that.
"""

from math import nan

import torch
from torch import Tensor

from adjsnn.lif.cuda import recurrent, recurrent_adjoint
from adjsnn.lif.cuda.recurrent import NOBODY, RECURRENT, RELEASE, SPIKE, Cells, Done, Echo, Log, Spikes
from adjsnn.lif.cuda.recurrent_adjoint import Back, Fired, Heard, History
from adjsnn.lif.cuda.tensors import (
    Sums,
    add_by_source,
    cotangents_of,
    neurons_of,
    nothing,
    on_host,
    plain,
    starts,
    state_of,
    stops_of,
    sweeps,
)
from adjsnn.lif.layer import Events, LayerCotangents, LayerGradients, LayerRun, State, Trial, counts_of, runaway
from adjsnn.lif.structure import AnyState, LIFLayer
from adjsnn.numerics.device import launch

ROOM = 16  # spikes for which the first pass has room, per neuron of a sample; each further pass has four times as much
WIDTH = recurrent.WIDTH  # most threads of a block, a power of 2


def forward(layer: LIFLayer, inputs: Events, start: AnyState, trial: Trial) -> LayerRun:
    """As `loops.forward`."""
    neurons, stops, state = neurons_of(layer), stops_of(layer, inputs, trial), state_of(start)
    batch, size = state.v.shape
    states = nothing(state.v, len(trial.probes), batch, size)
    # Each arrival and mark is an entry of the log, and three are each spike, its release and arrival.
    entries, room = int(inputs.first.diff().amax()) + len(stops.mark), ROOM * size
    while True:
        cells, spikes, log = _memory(state.v, room, entries + 3 * room)
        found, length, stray = torch.zeros((3, batch), dtype=torch.int64, device=state.v.device)
        done = Done(found, length, stray, state.v.new_zeros(batch))
        arguments = neurons, _echo(layer), stops, state, trial.limit, cells, spikes, log, states, done
        width = _width(size)
        launch(recurrent.forward, batch * width, state.v.device, *arguments, width=width)
        total, logged, lost, strays = on_host(
            done.spikes.sum(), done.entries.sum(), (done.spikes == NOBODY).sum(), (done.stray > 0).sum()
        )
        if strays:
            b = int(done.stray.nonzero()[0])
            raise runaway(trial, b, int(done.stray[b]) - 1, float(done.time[b]))
        if not lost:
            return _run(cells, spikes, log, done, total, logged, states)
        room *= 4


def backward(
    layer: LIFLayer,
    inputs: Events,
    start: AnyState,
    trial: Trial,
    run: LayerRun,
    cotangents: LayerCotangents,
    tau: bool,
) -> LayerGradients:
    """As `loops.backward`; with gradients of time constants or without."""
    neurons, stops, state = neurons_of(layer), stops_of(layer, inputs, trial), state_of(start)
    echo, history, like = _echo(layer), run.record, state.v
    d_states, sums = cotangents_of(cotangents, trial, like), Sums(neurons, inputs, trial, like)
    fired = Fired(run.spikes.neuron, run.current, plain(cotangents.time).clone())
    heard_of = torch.zeros((2, *echo.w.shape), dtype=like.dtype, device=like.device)
    # A move ends at what happens to all, at a spike or release of the neuron, or at t_end.
    most = counts_of(run.spikes, like.shape[1]).amax(1)
    moves = (history.entries.diff() - run.spikes.first.diff() + 2 * most + 1).tolist()
    width = _width(like.shape[1])
    for sweep in sweeps(inputs.first.tolist(), run.spikes.first.tolist(), moves, like, tau):
        into, counters = sums.into(sweep)
        back = _back(like, sweep.samples)
        lam, shift = like.new_zeros((2, sweep.own.stop - sweep.own.start, like.shape[1]))
        heard = Heard(lam, shift, sweep.own.start)
        arguments = neurons, echo, stops, state, history, fired, d_states, sweep.part, back, heard, into
        launch(recurrent_adjoint.backward, len(back.at) * width, like.device, *arguments, width=width)
        sums.add(sweep, into, counters)
        add_by_source(run.spikes.neuron[sweep.own], heard.lam, heard.shift, heard_of)
    sums.check(trial)
    return LayerGradients(sums.of_layer(len(stops.time), heard_of), sums.time, sums.v, sums.i, sums.drive)


def _echo(layer: LIFLayer) -> Echo:
    assert layer.w_rec is not None
    delays = layer.bias.new_zeros(len(layer.bias)) if layer.rec_delays is None else layer.rec_delays
    return Echo(plain(layer.w_rec.t()), plain(delays))


def _width(size: int) -> int:
    """Threads of a block: a power of 2, one for every neuron if there are not too many."""
    return min(WIDTH, 1 << (size - 1).bit_length())


def _memory(like: Tensor, room: int, entries: int) -> tuple[Cells, Spikes, Log]:
    """For a batch with `room` spikes in a sample and as many entries in its log."""
    batch, size = like.shape
    floats = like.new_empty((5, batch, size)).unbind()
    integers = torch.empty((4, batch, size), dtype=torch.int64, device=like.device).unbind()
    numbers = like.new_full((3, batch, room), nan).unbind()
    names = torch.full((2, batch, room), NOBODY, device=like.device).unbind()
    kind, target = torch.empty((2, batch, entries), dtype=torch.int32, device=like.device)
    ref = torch.empty((batch, entries), dtype=torch.int64, device=like.device)
    log = Log(like.new_empty((batch, entries)), kind, ref, target)
    return Cells(*floats, *integers), Spikes(*numbers, *names), log


def _back(like: Tensor, samples: slice) -> Back:
    shape = samples.stop - samples.start, like.shape[1]
    integers = torch.empty((2, *shape), dtype=torch.int64, device=like.device).unbind()
    return Back(like.new_empty(shape), *integers)


def _run(cells: Cells, spikes: Spikes, log: Log, done: Done, total: int, length: int, states: State) -> LayerRun:
    """What was found, sample after sample; the log counts spikes in the batch."""
    first, entries = starts(done.spikes), starts(done.entries)
    at, _ = _places(done.spikes, first, total, spikes.time.shape[1])
    time, current, released, neuron = (x.flatten()[at] for x in spikes[:4])
    at, sample = _places(done.entries, entries, length, log.time.shape[1])
    log = Log._make(x.flatten()[at] for x in log)
    own = (log.kind == SPIKE) | (log.kind == RELEASE) | (log.kind == RECURRENT)
    log = log._replace(ref=log.ref + first[sample] * own)
    return LayerRun(Events(first, time, neuron), current, states, History(entries, log, released, cells.held))


def _places(counts: Tensor, first: Tensor, total: int, room: int) -> tuple[Tensor, Tensor]:
    """Where what is found lies in rooms of one size, and of which sample each is."""
    sample = torch.arange(len(counts), device=counts.device).repeat_interleave(counts, output_size=total)
    return torch.arange(total, device=counts.device) - first[sample] + room * sample, sample
