"""One LIF layer and batches of spikes as float64 arrays, the form that the event-exact solver works on."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from adjsnn.systems.lif_network import LIFLayer


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


class Events(NamedTuple):
    """Spikes of a batch in flat columns, those of sample b at first[b] … first[b+1]-1, sorted in time.

    Fields: first (B+1,) int64, time (S,) float64 in ms, neuron (S,) int64.
    """

    first: np.ndarray
    time: np.ndarray
    neuron: np.ndarray

    @property
    def batch(self) -> int:
        return len(self.first) - 1


def as_array(x: Tensor) -> np.ndarray:
    """A float64 copy or view on the CPU."""
    return x.detach().to("cpu", torch.float64).contiguous().numpy()


def layer_arrays(layer: LIFLayer) -> LayerArrays:
    n, m = layer.w_in.shape
    w_rec = np.zeros((n, 0)) if layer.w_rec is None else as_array(layer.w_rec)
    delays = np.zeros((1, m)) if layer.delays is None else as_array(layer.delays).reshape(-1, m)
    k = w_rec.shape[1]
    rec_delays = np.zeros((1, k)) if layer.rec_delays is None or k == 0 else as_array(layer.rec_delays).reshape(-1, k)
    return LayerArrays(as_array(layer.w_in), w_rec, *(as_array(x) for x in layer[2:8]), delays, rec_delays)
