"""One LIF layer, what it is solved over and what it did: what the engine hands to every body and takes from it.

Between engine and body all of it is tensors on the network's device, so that a body for another device needs no copy on the
host. What a body takes has the network's dtype, or float64 where it was computed; what it gives back is float64. Bodies of
numpy take the same in float64 arrays: `on_the_host`, `back_on_the_host`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from adjsnn.checks import as_array
from adjsnn.errors import EventError
from adjsnn.lif.structure import AnyState, LIFLayer, Structure

X: TypeAlias = Any  # a tensor; in a body of numpy an array


class Layer(NamedTuple):
    """The tensors of a LIFLayer, with nothing left out: a layer in a body, and the gradients of one.

    Attributes:
        w_in: (N, M).
        w_rec: (N, N), or (N, 0) without recurrence.
        bias: (N,).
        tau_mem: (N,), ms.
        tau_syn: (N,), ms.
        v_th: (N,).
        v_reset: (N,).
        refractory: (N,), ms.
        delays: (1, M) per axon or (N, M) per synapse, zeros where the layer has none, ms.
        rec_delays: (1, N) or (N, N), likewise, ms.
    """

    w_in: X
    w_rec: X
    bias: X
    tau_mem: X
    tau_syn: X
    v_th: X
    v_reset: X
    refractory: X
    delays: X
    rec_delays: X

    @property
    def recurrent(self) -> bool:
        return self.w_rec.shape[1] > 0


class State(NamedTuple):
    """v and i of a layer at one time, (B, N), or at the probes, (P, B, N)."""

    v: X
    i: X


class Events(NamedTuple):
    """Spikes of a batch in flat columns, those of each sample together and sorted in time.

    Attributes:
        first: (B+1,), int64; those of sample b are at first[b] … first[b+1]-1.
        time: (S,), float64, ms.
        neuron: (S,), int64.
    """

    first: X
    time: X
    neuron: X

    def of_sample(self, b: int) -> slice:
        return slice(int(self.first[b]), int(self.first[b + 1]))

    @property
    def batch(self) -> int:
        return self.first.shape[0] - 1


def sample_of(spikes: Events) -> Tensor:
    """The sample of each spike, (S,)."""
    if spikes.first.is_cpu:  # torch shares even a few of them out, so that its workers spin afterwards
        first = spikes.first.numpy()
        return torch.from_numpy(np.repeat(np.arange(spikes.batch), first[1:] - first[:-1]))
    numbers = torch.arange(spikes.batch, device=spikes.first.device)
    return numbers.repeat_interleave(spikes.first.diff(), output_size=len(spikes.time))


def counts_of(spikes: Events, neurons: int) -> Tensor:
    """Number of spikes of each neuron in each sample, (B, N)."""
    flat = sample_of(spikes) * neurons + spikes.neuron
    return flat.bincount(minlength=spikes.batch * neurons).view(spikes.batch, neurons)


def first_of(spikes: Events, neurons: int) -> Tensor:
    """The first spike of each neuron in each sample, (B · N,), or S where there is none."""
    sample, size, count = sample_of(spikes), spikes.batch * neurons, spikes.time.shape[0]
    if sample.is_cpu:
        first, flat = np.full(size, count), sample.numpy() * neurons + spikes.neuron.numpy()
        first[flat[::-1]] = np.arange(count)[::-1]  # of several at one place the last stays, here the earliest
        return torch.from_numpy(first)
    numbers = torch.arange(count, device=sample.device)  # the first of several is the smallest, since they are sorted
    return numbers.new_full((size,), count).scatter_reduce(0, sample * neurons + spikes.neuron, numbers, "amin")


ARRIVAL, RECURRENT, SPIKE, RELEASE, PROBE, DRIVE = range(6)  # kinds of events of a layer
ALL = -1  # the target of an event that happens to every neuron
FINE, RUNAWAY, GRAZING = range(3)  # what a body of compiled code says of a solve or a sweep


class Trial(NamedTuple):
    """What a layer is solved over.

    Attributes:
        layer: its number, for messages.
        t_end: end of the trial, ms.
        probes: (P,), sorted times at which v and i are asked for, ms.
        limit: the most spikes of one neuron in one sample.
        drive: (T, B, N), what is added to b in each of T steps, or no steps at all.
        edges: (T-1,), times at which the second and every later step begin, ms.
        structure: of a generalised layer, or None for one of (2.1), (2.2).
    """

    layer: int
    t_end: float
    probes: X
    limit: int
    drive: X
    edges: X
    structure: Structure | None = None

    @property
    def driven(self) -> bool:
        return len(self.drive) > 0


def bias_of(bias: np.ndarray, trial: Trial, sample: int, step: int) -> np.ndarray:
    """b and the drive of a step together, (N,), equation (2.16)."""
    return bias + trial.drive[step, sample] if trial.driven else bias


class Drive(NamedTuple):
    """What analog inputs add to the bias of the first layer, (2.16): values (T, B, N) in steps of length dt, ms."""

    values: Tensor
    dt: float


class LayerRun(NamedTuple):
    """What a batch of one layer did.

    Attributes:
        spikes: Events.
        current: (S,), i at each spike, and the drive there; of a generalised layer nothing.
        states: v and i at the probes, (P, B, N), and of a generalised layer a and h; they become the user's and leave the run.
        record: what the adjoint of the same body reads beside.
        speed: (S,), v̇ - θ̇ before each spike of a generalised layer, 1/ms.
    """

    spikes: Events
    current: X
    states: Any
    record: Any
    speed: X | None = None

    @property
    def stored_bytes(self) -> int:
        return _bytes((*self.spikes, self.current, self.record))


class LayerCotangents(NamedTuple):
    """Cotangents of a layer's results: time (S,), states at the probes (P, B, …, N), None where the loss has none. They are
    torch's, or another layer's gradients: not to be written to."""

    time: X
    v: X | None
    i: X | None
    a: X | None = None
    h: X | None = None


class LayerGradients(NamedTuple):
    """dC/d of all that a layer depends on.

    Attributes:
        layer: of its parameters.
        time: of the times of its input spikes, (S_in,).
        v: of v(0), (B, N).
        i: of i(0), (B, N).
        drive: of its drive, (T, B, N).
        a: of a(0), (B, J, N), of a generalised layer.
        h: of h(0), (B, H, N), likewise.
    """

    layer: Any
    time: X
    v: X
    i: X
    drive: X
    a: X | None = None
    h: X | None = None


def on_the_host(forward: Callable[..., LayerRun]) -> Callable[..., LayerRun]:
    """A solve of float64 arrays, contiguous and in the host's memory, as one of tensors; results are views of its arrays."""

    def of_tensors(layer: LIFLayer, inputs: Events, start: AnyState, trial: Trial) -> LayerRun:
        run = forward(*_arrays(layer, inputs, start, trial))
        spikes, states = Events(*map(torch.from_numpy, run.spikes)), State(*map(torch.from_numpy, run.states))
        return LayerRun(spikes, torch.from_numpy(run.current), states, run.record)

    return of_tensors


def back_on_the_host(backward: Callable[..., LayerGradients]) -> Callable[..., LayerGradients]:
    """An adjoint likewise; of the run, whose record is arrays, it gets the tensors. What is not wanted of a layer's parameters
    is None."""

    def of_tensors(
        layer: LIFLayer,
        inputs: Events,
        start: AnyState,
        trial: Trial,
        run: LayerRun,
        cotangents: LayerCotangents,
        wanted: frozenset[str],
    ) -> LayerGradients:
        given = LayerCotangents(*[None if x is None else as_array(x) for x in cotangents])
        found = backward(*_arrays(layer, inputs, start, trial), run, given, wanted)
        of_layer = [torch.from_numpy(x) if name in wanted else None for name, x in zip(Layer._fields, found.layer, strict=True)]
        return LayerGradients(Layer(*of_layer), *map(torch.from_numpy, found[1:5]))

    return of_tensors


def _arrays(layer: LIFLayer, inputs: Events, start: AnyState, trial: Trial) -> tuple[Layer, Events, State, Trial]:
    probes, drive, edges = map(as_array, (trial.probes, trial.drive, trial.edges))
    over = Trial(trial.layer, trial.t_end, probes, trial.limit, drive, edges)
    return _filled(layer), Events(*map(as_array, inputs)), State(as_array(start.v), as_array(start.i)), over


def _filled(layer: LIFLayer) -> Layer:
    n, m = layer.w_in.shape
    w_rec = np.zeros((n, 0)) if layer.w_rec is None else as_array(layer.w_rec)
    delays = np.zeros((1, m)) if layer.delays is None else as_array(layer.delays).reshape(-1, m)
    rec_delays = np.zeros((1, w_rec.shape[1]))
    if layer.rec_delays is not None and layer.w_rec is not None:
        rec_delays = as_array(layer.rec_delays).reshape(-1, n)
    return Layer(w_in=as_array(layer.w_in), w_rec=w_rec, delays=delays, rec_delays=rec_delays, **layer.constants)


def _bytes(record: object) -> int:
    if isinstance(record, (np.ndarray, Tensor)):
        return record.nbytes
    if isinstance(record, (list, tuple)):
        return sum(_bytes(x) for x in record)
    return 8  # a number


def runaway(trial: Trial, sample: int, neuron: int, time: float) -> EventError:
    return EventError(
        f"more than {trial.limit} spikes of neuron {neuron} of layer {trial.layer} in sample {sample} by {time:g} ms",
        "a bounded rate; recurrent excitation or a large current lets it run away",
        "smaller weights, a refractory time, or a larger max_spikes",
    )


def grazing(trial: Trial, sample: int, neuron: int, time: float) -> EventError:
    return EventError(
        f"the spike of neuron {neuron} of layer {trial.layer} in sample {sample} at {time:g} ms, where dv/dt = 0",
        "a crossing, since a spike time that is touched has no derivative",
        "a loss without this spike, or other parameters by however little",
    )
