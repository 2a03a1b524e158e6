"""One LIF layer, what it is solved over and what it did, as float64 arrays: the form that the event-exact solver works on."""

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from adjsnn.errors import EventError
from adjsnn.lif.network import LIFLayer


class LayerArrays(NamedTuple):
    """The tensors of a LIFLayer as float64 arrays.

    Fields: w_in (N, M), w_rec (N, N), or (N, 0) without recurrence; bias, tau_mem, tau_syn, v_th, v_reset, refractory (N,);
    delays (1, M) per axon or (N, M) per synapse, rec_delays (1, N) or (N, N), zeros where the layer has none.
    """

    w_in: np.ndarray
    w_rec: np.ndarray
    bias: np.ndarray
    tau_mem: np.ndarray
    tau_syn: np.ndarray
    v_th: np.ndarray
    v_reset: np.ndarray
    refractory: np.ndarray
    delays: np.ndarray
    rec_delays: np.ndarray

    @property
    def recurrent(self) -> bool:
        return self.w_rec.shape[1] > 0


class StateArrays(NamedTuple):
    """v and i of a layer at one time, (B, N), or at the probes, (P, B, N)."""

    v: np.ndarray
    i: np.ndarray


class Events(NamedTuple):
    """Spikes of a batch in flat columns, those of sample b at first[b] … first[b+1]-1, sorted in time.

    Fields: first (B+1,) int64, time (S,) float64 in ms, neuron (S,) int64.
    """

    first: np.ndarray
    time: np.ndarray
    neuron: np.ndarray

    def sample(self, b: int) -> slice:
        return slice(int(self.first[b]), int(self.first[b + 1]))

    @property
    def batch(self) -> int:
        return len(self.first) - 1


ARRIVAL, RECURRENT, SPIKE, RELEASE, PROBE, DRIVE = range(6)  # kinds of events of a layer
ALL = -1  # the target of an event that happens to every neuron
FINE, RUNAWAY, GRAZING = range(3)  # what a body of compiled code says of a solve or a sweep
NO_TIMES, NO_DRIVE, NO_STATES = np.zeros(0), np.zeros((0, 0, 0)), np.zeros((0, 0, 0))


class Trial(NamedTuple):
    """What a layer is solved over.

    Fields: layer, its number, for messages; t_end, ms; probes (P,), sorted times at which v and i are asked for, ms; limit,
    the most spikes of one neuron in one sample; drive (T, B, N), what is added to b in each of T steps, or no steps at all;
    edges (T-1,), times at which the second and every later step begin, ms.
    """

    layer: int
    t_end: float
    probes: np.ndarray
    limit: int
    drive: np.ndarray = NO_DRIVE
    edges: np.ndarray = NO_TIMES

    @property
    def driven(self) -> bool:
        return len(self.drive) > 0

    def bias(self, layer: LayerArrays, sample: int, step: int) -> np.ndarray:
        """b and the drive of a step together, (N,), equation (2.16)."""
        return layer.bias + self.drive[step, sample] if self.driven else layer.bias


class Drive(NamedTuple):
    """What analog inputs add to the bias of the first layer, (2.16): values (T, B, N) in steps of length dt, ms."""

    values: Tensor
    dt: float


class LayerRun(NamedTuple):
    """What a batch of one layer did.

    Fields: spikes; current (S,), i at each spike, and the drive there; v and i at the probes, (P, B, N), which become the
    user's and leave the run; record, what the adjoint reads beside.
    """

    spikes: Events
    current: np.ndarray
    v: np.ndarray
    i: np.ndarray
    record: Any

    @property
    def stored_bytes(self) -> int:
        return sum(x.nbytes for x in (*self.spikes, self.current)) + _bytes(self.record)


class LayerCotangents(NamedTuple):
    """Cotangents of a layer's results: time (S,), v and i at the probes (P, B, N), None where the loss has none."""

    time: np.ndarray
    v: np.ndarray | None
    i: np.ndarray | None


class LayerGradients(NamedTuple):
    """dC/d of all that a layer depends on: its arrays, the times of its input spikes (S_in,), v(0) and i(0), each (B, N),
    and its drive (T, B, N)."""

    layer: LayerArrays
    time: np.ndarray
    v: np.ndarray
    i: np.ndarray
    drive: np.ndarray


def _bytes(record: Any) -> int:
    if isinstance(record, np.ndarray):
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


def as_array(x: Tensor) -> np.ndarray:
    """A float64 copy or view on the CPU."""
    return np.asarray(x.detach().cpu().numpy(), np.float64, "C")


def layer_arrays(layer: LIFLayer) -> LayerArrays:
    n, m = layer.w_in.shape
    w_rec = np.zeros((n, 0)) if layer.w_rec is None else as_array(layer.w_rec)
    delays = np.zeros((1, m)) if layer.delays is None else as_array(layer.delays).reshape(-1, m)
    k = w_rec.shape[1]
    rec_delays = np.zeros((1, k)) if layer.rec_delays is None or k == 0 else as_array(layer.rec_delays).reshape(-1, k)
    per_neuron = [as_array(x) for x in layer[2:8]]
    return LayerArrays._make([as_array(layer.w_in), w_rec, *per_neuron, delays, rec_delays])
