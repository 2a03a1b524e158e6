"""What the GPU loops of feed-forward and recurrent layers are given and leave, in tensors; only sizes go to the host."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from adjsnn.lif.cuda.feedforward_adjoint import FINE, Into, Part, by_source, by_spike
from adjsnn.lif.cuda.stops import Neurons, Stops
from adjsnn.lif.layer import Events, Layer, LayerCotangents, State, Trial, grazing, sample_of
from adjsnn.lif.structure import AnyState, LIFLayer
from adjsnn.numerics.device import launch

PART = 2**28  # bytes that samples swept at once may take, beside what is there anyway; one sample at least
COUNTERS = ("bias", "tau_mem", "tau_syn", "v_th", "v_reset", "refractory")  # what each neuron sums on its way


def plain(x: Tensor) -> Tensor:
    """As a kernel takes it."""
    return x.detach().double().contiguous()


def state_of(start: AnyState) -> State:
    return State(plain(start.v), plain(start.i))


def starts(counts: Tensor) -> Tensor:
    """Where each begins, and the end."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def on_host(*numbers: Tensor) -> list[int]:
    """Numbers for the host, which waits for the GPU once."""
    return torch.stack(numbers).tolist()


def neurons_of(layer: LIFLayer) -> Neurons:
    own = layer.bias, layer.tau_mem, layer.tau_syn, layer.v_th, layer.v_reset, layer.refractory
    return Neurons(plain(layer.w_in.t()), *map(plain, own))


def stops_of(layer: LIFLayer, inputs: Events, trial: Trial) -> Stops:
    """Arrivals and marks, sorted; where they arrive at the same times at all neurons, in one row."""
    time = plain(inputs.time)[None]
    ref = torch.arange(time.shape[1], device=time.device)[None]
    if layer.delays is not None:
        time = time + plain(layer.delays).view(-1, layer.w_in.shape[1])[:, inputs.neuron]
        ref = time.argsort(stable=True)  # at equal times in the order of the spikes
        ref = ref.gather(1, sample_of(inputs)[ref].argsort(stable=True))
        time = time.gather(1, ref)
    mark = torch.cat([trial.edges, trial.probes])
    probe, edge = (torch.arange(len(x), device=mark.device) for x in (trial.probes, trial.edges))
    mark, order = mark.sort(stable=True)
    what = torch.cat([-1 - edge, probe])[order]
    drive = plain(trial.drive)
    return Stops(inputs.first, time, ref, inputs.neuron, mark, what, drive, len(drive), trial.t_end)


def nothing(like: Tensor, *shape: int) -> State:
    """Memory for v and i."""
    return State(like.new_empty(shape), like.new_empty(shape))


class Sums:
    """Gradients of a layer on their way: those of each sample alone, and sums over the samples that were swept so far.

    Args:
        neurons: of the layer.
        inputs: their spikes.
        trial: what was solved.
        like: (B, N).
    """

    def __init__(self, neurons: Neurons, inputs: Events, trial: Trial, like: Tensor) -> None:
        self.like, self.source = like, inputs.neuron
        self.counters = like.new_zeros((len(COUNTERS), like.shape[1]))
        self.arrivals = like.new_zeros((2, *neurons.w.shape))
        self.time, self.drive = like.new_zeros(inputs.time.shape), like.new_zeros(trial.drive.shape)
        self.v, self.i, self.grazes = torch.zeros_like(like), torch.zeros_like(like), torch.full_like(like, FINE).flatten()

    def into(self, sweep: "Sweep") -> tuple[Into, Tensor]:
        """Where a part of the samples leaves its gradients, and those of the parameters of neurons at once, (6, Bp, N)."""
        samples, spikes, size = sweep.samples, sweep.spikes, self.like.shape[1]
        counters = self.like.new_zeros((len(COUNTERS), samples.stop - samples.start, size))
        lam, shift = self.like.new_zeros((2, spikes.stop - spikes.start, size))
        into = Into(
            lam=lam,
            shift=shift,
            **dict(zip(COUNTERS, counters, strict=True)),
            v=self.v,
            i=self.i,
            drive=self.drive,
            grazes=self.grazes[samples.start * size : samples.stop * size],
        )
        return into, counters

    def add(self, sweep: "Sweep", into: Into, counters: Tensor) -> None:
        """What a part has left."""
        self.counters += counters.sum(1)
        add_by_source(self.source[sweep.spikes], into.lam, into.shift, self.arrivals)
        launch(by_spike, len(into.shift), self.like.device, into.shift, self.time[sweep.spikes])

    def of_layer(self, rows: int, echo: Tensor | None = None) -> Layer:
        """Sums over samples and spikes in the shapes of the layer.

        Args:
            rows: of its delays.
            echo: (2, N, N), sums by source of what it heard of itself.
        """
        weights, delays = self.arrivals
        w_rec, rec_delays = self.like.new_zeros((2, 0, self.like.shape[1])) if echo is None else echo
        return Layer(
            w_in=weights.t(),
            w_rec=w_rec.t(),
            **dict(zip(COUNTERS, self.counters, strict=True)),
            delays=delays.t() if rows > 1 else delays.sum(1)[None],
            rec_delays=rec_delays.sum(1)[None],
        )

    def check(self, trial: Trial) -> None:
        """Raise where a spike on which the loss depends only touches its threshold."""
        if bad := (self.grazes != FINE).nonzero()[:1].tolist():
            sample, neuron = divmod(bad[0][0], self.like.shape[1])
            raise grazing(trial, sample, neuron, float(self.grazes[bad[0][0]]))


def add_by_source(source: Tensor, lam: Tensor, shift: Tensor, into: Tensor) -> None:
    """Add λ_i and shifts of arrivals, (S, N), to sums by source, (2, M, N), in the order of the spikes."""
    order = source.argsort(stable=True)
    begin = torch.searchsorted(source[order], torch.arange(into.shape[1] + 1, device=source.device))
    launch(by_source, into[0].numel(), source.device, order, begin, lam, shift, *into)


class Sweep(NamedTuple):
    """Samples that are swept at once.

    Attributes:
        part: as the kernels see them.
        samples: their slice of the samples.
        spikes: their slice of the input spikes.
        own: their slice of the layer's own spikes.
    """

    part: Part
    samples: slice
    spikes: slice
    own: slice


def sweeps(first: Sequence[int], own: Sequence[int], moves: Sequence[int], like: Tensor, tau: bool) -> Iterator[Sweep]:
    """Groups of samples that take at most PART bytes to sweep.

    Args:
        first: (B+1,), where the input spikes of each sample begin.
        own: (B+1,), where those of the layer begin that it hears itself; zeros where it does not.
        moves: (B,), the most moves that a neuron makes in each.
        like: (B, N).
        tau: whether the states at all of them are asked for.
    """
    batch, size = like.shape
    begin = 0
    while begin < batch:
        end, rows, taken = begin, [0], 0
        while end < batch:
            more = moves[end] if tau else 0
            taken += 16 * size * (first[end + 1] - first[end] + own[end + 1] - own[end] + more)
            if end > begin and taken > PART:
                break
            rows.append(rows[-1] + more)
            end += 1
        states = like.new_empty((rows[-1], 2, size))
        part = Part(begin, first[begin], int(tau), torch.tensor(rows[:-1], device=like.device), states)
        yield Sweep(part, slice(begin, end), slice(first[begin], first[end]), slice(own[begin], own[end]))
        begin = end


def cotangents_of(cotangents: LayerCotangents, trial: Trial, like: Tensor) -> State:
    """Those of v and i at the probes, zeros where the loss has none."""
    none = like.new_zeros((len(trial.probes), *like.shape))
    return State(*[none if x is None else plain(x) for x in (cotangents.v, cotangents.i)])
