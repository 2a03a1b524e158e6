"""Connects the GPU loops of feed-forward LIF layers to tensors of a whole batch: nothing is copied to the host but sizes.

A spike takes 48 bytes until the backward pass. On the way 32 bytes are needed for each spike that a neuron could have in its
first room, 16 for each arrival at each row of delays, and three times that while they are sorted; backward `PART` at once.
"""

from collections.abc import Sequence
from math import inf, nan
from typing import Any

import torch
from torch import Tensor

from adjsnn.lif.layer import Events, Layer, LayerCotangents, LayerGradients, LayerRun, State, Trial, grazing, runaway, sample_of
from adjsnn.lif.network import LIFLayer, LIFState

ROOM = 16  # spikes of a neuron that the first pass has room for; if one has more, a second has room for exactly those of each
PART = 2**28  # bytes that samples swept at once may take, beside what is there anyway; one sample at least
COUNTERS = ("bias", "tau_mem", "tau_syn", "v_th", "v_reset", "refractory")  # what each neuron sums on its way


def obstacle(layers: Sequence[LIFLayer]) -> str | None:
    """Why the loops cannot solve a network's layers; asked by "auto" in every solve of a network on a GPU."""
    device = layers[0].w_in.device
    if device.type not in ("cuda", "cpu"):
        return f"the network is on the device {device}, not on a CUDA device"
    try:
        from adjsnn.lif.cuda import device as machine  # noqa: PLC0415  loads the compiler
    except ImportError as error:
        return f"numba.cuda cannot be imported ({error})"
    if device.type == "cpu" and not machine.SIMULATED:
        return "the network is on the CPU, not on a CUDA device"
    if any(layer.w_rec is not None for layer in layers):
        return "recurrent layers have no loops for a GPU"
    return machine.unusable()


def forward(layer: LIFLayer, inputs: Events, start: LIFState, trial: Trial) -> LayerRun:
    """Solve a layer for every sample, from its state (B, N) at time 0; as `lif.plain.forward`, of tensors on a GPU.

    Raises:
        EventError: a neuron spikes more often than trial.limit.
    """
    neurons, stops, state = _neurons(layer), _stops(layer, inputs, trial), State(_plain(start.v), _plain(start.i))
    threads, like = state.v.numel(), state.v
    states = State(like.new_empty((len(trial.probes), *like.shape)), like.new_empty((len(trial.probes), *like.shape)))
    room = ROOM * torch.arange(threads + 1, device=like.device)
    spikes, counts, ran_away = _walk(neurons, stops, state, trial.limit, room, ROOM * threads, states)
    total, most, strays = _on_host(counts.sum(), counts.amax(), ran_away.isfinite().sum())
    if strays:
        j = int(ran_away.isfinite().nonzero()[0])
        raise runaway(trial, j // like.shape[1], j % like.shape[1], float(ran_away[j]))
    if most > ROOM:
        room = _starts(counts)
        spikes, *_ = _walk(neurons, stops, state, trial.limit, room, total, states)
    return _run(spikes, room, counts, total, states)


def backward(
    layer: LIFLayer,
    inputs: Events,
    start: LIFState,
    trial: Trial,
    run: LayerRun,
    cotangents: LayerCotangents,
    wanted: frozenset[str],
) -> LayerGradients:
    """Gradients of a layer; as `lif.plain_adjoint.backward`, of tensors on a GPU. Samples are summed in one order.

    Raises:
        EventError: the loss depends on a spike that touches its threshold without crossing it.
    """
    from adjsnn.lif.cuda import feedforward_adjoint as adjoint  # noqa: PLC0415  loads the compiler

    neurons, stops, state = _neurons(layer), _stops(layer, inputs, trial), State(_plain(start.v), _plain(start.i))
    like, nothing = state.v, state.v.new_zeros((len(trial.probes), *state.v.shape))
    d_states = State(*[nothing if x is None else _plain(x) for x in (cotangents.v, cotangents.i)])
    fired = adjoint.Fired(run.spikes.time, run.current, _plain(cotangents.time))
    own, tau = run.record, int(bool(wanted & {"tau_mem", "tau_syn"}))
    sums, by_source = like.new_zeros((len(COUNTERS), like.shape[1])), like.new_zeros((2, *neurons.w.shape))
    time, drive = like.new_zeros(inputs.time.shape), like.new_zeros(trial.drive.shape)
    d_v, d_i, grazes = torch.zeros_like(like), torch.zeros_like(like), torch.full_like(like, adjoint.FINE).flatten()
    for part, samples, spikes in _parts(inputs, own.place, len(stops.mark), like, tau):
        counters = like.new_zeros((len(COUNTERS), samples.stop - samples.start, like.shape[1]))
        lam, shift = like.new_zeros((2, spikes.stop - spikes.start, like.shape[1]))
        threads = slice(samples.start * like.shape[1], samples.stop * like.shape[1])
        by_neuron = dict(zip(COUNTERS, counters, strict=True))
        into = adjoint.Into(lam=lam, shift=shift, **by_neuron, v=d_v, i=d_i, drive=drive, grazes=grazes[threads])
        _launch(adjoint.backward, len(into.grazes), like, neurons, stops, state, own, fired, d_states, part, into)
        sums += counters.sum(1)
        source = inputs.neuron[spikes]
        order = source.argsort(stable=True)
        begin = torch.searchsorted(source[order], torch.arange(len(neurons.w) + 1, device=like.device))
        _launch(adjoint.by_source, neurons.w.numel(), like, order, begin, lam, shift, *by_source)
        _launch(adjoint.by_spike, len(source), like, shift, time[spikes])
    if bad := (grazes != adjoint.FINE).nonzero()[:1].tolist():
        sample, neuron = divmod(bad[0][0], like.shape[1])
        raise grazing(trial, sample, neuron, float(grazes[bad[0][0]]))
    return LayerGradients(_gradients(by_source, sums, len(stops.time)), time, d_v, d_i, drive)


def _plain(x: Tensor) -> Tensor:
    return x.detach().double().contiguous()


def _neurons(layer: LIFLayer) -> Any:
    from adjsnn.lif.cuda.stops import Neurons  # noqa: PLC0415  loads the compiler

    own = layer.bias, layer.tau_mem, layer.tau_syn, layer.v_th, layer.v_reset, layer.refractory
    return Neurons(_plain(layer.w_in.t()), *map(_plain, own))


def _stops(layer: LIFLayer, inputs: Events, trial: Trial) -> Any:
    """Arrivals and marks, sorted; where they arrive at the same times at all neurons, in one row."""
    from adjsnn.lif.cuda.stops import Stops  # noqa: PLC0415  loads the compiler

    time = _plain(inputs.time)[None]
    ref = torch.arange(time.shape[1], device=time.device)[None]
    if layer.delays is not None:
        time = time + _plain(layer.delays).view(-1, layer.w_in.shape[1])[:, inputs.neuron]
        ref = time.argsort(stable=True)  # at equal times in the order of the spikes
        ref = ref.gather(1, sample_of(inputs)[ref].argsort(stable=True))
        time = time.gather(1, ref)
    mark = torch.cat([trial.edges, trial.probes])
    probe, edge = (torch.arange(len(x), device=mark.device) for x in (trial.probes, trial.edges))
    mark, order = mark.sort(stable=True)
    what = torch.cat([-1 - edge, probe])[order]
    drive = _plain(trial.drive)
    return Stops(inputs.first, time, ref, inputs.neuron, mark, what, drive, len(drive), trial.t_end)


def _walk(neurons: Any, stops: Any, start: State, limit: int, room: Tensor, size: int, states: State) -> tuple[Any, ...]:
    """Spikes with room for `size` of them, the number of spikes of each neuron, and when each runs away."""
    from adjsnn.lif.cuda import feedforward  # noqa: PLC0415  loads the compiler

    like = start.v
    floats = like.new_full((3, size), nan).unbind()
    integers = torch.full((2, size), -1, dtype=torch.int32, device=like.device).unbind()
    spikes = feedforward.Spikes(*floats, *integers)
    counts, ran_away = torch.zeros_like(like, dtype=torch.int64).flatten(), torch.full_like(like, inf).flatten()
    _launch(feedforward.forward, len(counts), like, neurons, stops, start, limit, room, spikes, states, counts, ran_away)
    return spikes, counts, ran_away


def _run(spikes: Any, room: Tensor, counts: Tensor, total: int, states: State) -> LayerRun:
    """What was found in the rooms of the neurons: the events in order, and what the adjoint reads, by neuron."""
    from adjsnn.lif.cuda.feedforward_adjoint import Own  # noqa: PLC0415  loads the compiler

    batch, size = states.v.shape[1:]
    each, place = torch.arange(total, device=counts.device), _starts(counts)
    by = torch.arange(len(counts), device=counts.device).repeat_interleave(counts, output_size=total)
    spikes = spikes._make(x[each + (room - place)[by]] for x in spikes)
    order = spikes.time.argsort(stable=True)  # of equal times the first neuron stays first
    order = order[(by // size)[order].argsort(stable=True)]
    rank = torch.empty_like(order)
    rank[order] = each
    events = Events(place[::size][: batch + 1].clone(), spikes.time[order], (by % size)[order])
    record = Own(place, rank, spikes.released, spikes.at, spikes.free)
    return LayerRun(events, spikes.current[order], states, record)


def _parts(inputs: Events, place: Tensor, marks: int, like: Tensor, tau: int) -> Any:
    """Groups of samples that take at most PART bytes to sweep: Part, and its slices of the samples and of the input spikes."""
    from adjsnn.lif.cuda.feedforward_adjoint import Part  # noqa: PLC0415  loads the compiler

    batch, size = like.shape
    most = place.diff().view(batch, size).amax(1)
    first, spikes = inputs.first.tolist(), most.tolist()
    begin = 0
    while begin < batch:
        end, moves, taken = begin, [0], 0
        while end < batch:
            arrivals = first[end + 1] - first[end]
            more = tau * (arrivals + marks + 1 + 2 * spikes[end])  # a move ends at a stop, a spike or a release
            taken += 16 * size * (arrivals + more)
            if end > begin and taken > PART:
                break
            moves.append(moves[-1] + more)
            end += 1
        states = like.new_empty((moves[-1], 2, size))
        part = Part(begin, first[begin], tau, torch.tensor(moves[:-1], device=like.device), states)
        yield part, slice(begin, end), slice(first[begin], first[end])
        begin = end


def _gradients(by_source: Tensor, sums: Tensor, rows: int) -> Layer:
    """Sums over samples and spikes in the shapes of the layer; of delays as many rows as there are."""
    weights, delays = by_source
    return Layer(
        w_in=weights.t(),
        w_rec=sums.new_zeros((sums.shape[1], 0)),
        **dict(zip(COUNTERS, sums, strict=True)),
        delays=delays.t() if rows > 1 else delays.sum(1)[None],
        rec_delays=sums.new_zeros((1, 0)),
    )


def _starts(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _on_host(*numbers: Tensor) -> list[int]:
    return torch.stack(numbers).tolist()


def _launch(kernel: Any, threads: int, like: Tensor, *arguments: Any) -> None:
    from adjsnn.lif.cuda.device import launch  # noqa: PLC0415  loads the compiler

    launch(kernel, threads, like.device, *arguments)
