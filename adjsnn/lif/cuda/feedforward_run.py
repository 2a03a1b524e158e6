"""A whole batch of a feed-forward LIF layer on a GPU.

A spike takes 48 bytes until the backward pass. On the way 32 bytes are needed for each spike that a neuron could have in its
first room, 16 for each arrival at each row of delays, and three times that while they are sorted; backward `PART` at once.
"""

from math import inf, nan

import torch
from torch import Tensor

from adjsnn.lif.cuda import feedforward, feedforward_adjoint
from adjsnn.lif.cuda.feedforward import Spikes
from adjsnn.lif.cuda.feedforward_adjoint import Fired, Own
from adjsnn.lif.cuda.stops import Neurons, Stops
from adjsnn.lif.cuda.tensors import (
    Sums,
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
from adjsnn.lif.layer import Events, LayerCotangents, LayerGradients, LayerRun, State, Trial, runaway
from adjsnn.lif.structure import AnyState, LIFLayer
from adjsnn.numerics.device import launch

ROOM = 16  # spikes of a neuron that the first pass has room for; if one has more, a second has room for exactly those of each


def forward(layer: LIFLayer, inputs: Events, start: AnyState, trial: Trial) -> LayerRun:
    """As `loops.forward`."""
    neurons, stops, state = neurons_of(layer), stops_of(layer, inputs, trial), state_of(start)
    threads, states = state.v.numel(), nothing(state.v, len(trial.probes), *state.v.shape)
    room = ROOM * torch.arange(threads + 1, device=state.v.device)
    spikes, counts, ran_away = _walk(neurons, stops, state, trial.limit, room, ROOM * threads, states)
    total, most, strays = on_host(counts.sum(), counts.amax(), ran_away.isfinite().sum())
    if strays:
        j = int(ran_away.isfinite().nonzero()[0])
        raise runaway(trial, *divmod(j, state.v.shape[1]), float(ran_away[j]))
    if most > ROOM:
        room = starts(counts)
        spikes, *_ = _walk(neurons, stops, state, trial.limit, room, total, states)
    return _run(spikes, room, counts, total, states)


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
    d_states, sums = cotangents_of(cotangents, trial, state.v), Sums(neurons, inputs, trial, state.v)
    own, fired = run.record, Fired(run.spikes.time, run.current, plain(cotangents.time))
    most = own.place.diff().view(state.v.shape).amax(1)
    # A move ends at a stop, a spike, a release or t_end.
    moves = (inputs.first.diff() + len(stops.mark) + 1 + 2 * most).tolist()
    for sweep in sweeps(inputs.first.tolist(), [0] * (inputs.batch + 1), moves, state.v, tau):
        into, counters = sums.into(sweep)
        arguments = neurons, stops, state, own, fired, d_states, sweep.part, into
        launch(feedforward_adjoint.backward, len(into.grazes), state.v.device, *arguments)
        sums.add(sweep, into, counters)
    sums.check(trial)
    return LayerGradients(sums.of_layer(len(stops.time)), sums.time, sums.v, sums.i, sums.drive)


def _walk(
    neurons: Neurons, stops: Stops, start: State, limit: int, room: Tensor, size: int, states: State
) -> tuple[Spikes, Tensor, Tensor]:
    """Spikes with room for `size` of them, the number of spikes of each neuron, and when each runs away."""
    like = start.v
    floats = like.new_full((3, size), nan).unbind()
    integers = torch.full((2, size), -1, dtype=torch.int32, device=like.device).unbind()
    spikes = Spikes(*floats, *integers)
    counts, ran_away = torch.zeros_like(like, dtype=torch.int64).flatten(), torch.full_like(like, inf).flatten()
    arguments = neurons, stops, start, limit, room, spikes, states, counts, ran_away
    launch(feedforward.forward, len(counts), like.device, *arguments)
    return spikes, counts, ran_away


def _run(spikes: Spikes, room: Tensor, counts: Tensor, total: int, states: State) -> LayerRun:
    """What was found in the rooms of the neurons: the events in order, and what the adjoint reads, by neuron."""
    batch, size = states.v.shape[1:]
    each, place = torch.arange(total, device=counts.device), starts(counts)
    by = torch.arange(len(counts), device=counts.device).repeat_interleave(counts, output_size=total)
    spikes = Spikes._make(x[each + (room - place)[by]] for x in spikes)
    order = spikes.time.argsort(stable=True)  # of equal times the first neuron stays first
    order = order[(by // size)[order].argsort(stable=True)]
    rank = torch.empty_like(order)
    rank[order] = each
    events = Events(place[::size][: batch + 1].clone(), spikes.time[order], (by % size)[order])
    record = Own(place, rank, spikes.released, spikes.at, spikes.free)
    return LayerRun(events, spikes.current[order], states, record)
