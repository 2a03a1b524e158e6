"""What a LIF network is solved over, and what a solve gives of each layer."""

from typing import NamedTuple

from torch import Tensor

from adjsnn.lif.engine import Body
from adjsnn.lif.layer import LayerRun, Trial
from adjsnn.lif.structure import Structure


class LIFTrial(NamedTuple):
    """What a LIF network is solved over, beside its tensors.

    Attributes:
        first: (B+1,), where the input spikes of each sample begin in the flat columns of Events.
        source: (S,), their neurons.
        t_end: end of the trial, ms.
        probes: (P,), times at which voltages and currents are recorded, the last of them t_end, ms.
        limit: the most spikes of one neuron in one sample.
        body: which solves it.
        edges: (T-1,), at which the later steps of the drive begin, ms.
        no_drive: (0, 0, 0), that of the other layers.
        no_edges: (0,), likewise.
        structures: of each layer that is generalised, None of the others.
        voltages_read: layers whose voltages something has read from the solution: gradients that need no spike.
    """

    first: Tensor
    source: Tensor
    t_end: float
    probes: Tensor
    limit: int
    body: Body
    edges: Tensor
    no_drive: Tensor
    no_edges: Tensor
    structures: tuple[Structure | None, ...]
    voltages_read: list[int]

    def of_layer(self, layer: int, drive: Tensor | None) -> Trial:
        """What a layer is solved over; the drive is that of the first."""
        if drive is None or layer:
            drive, edges = self.no_drive, self.no_edges
        else:
            edges = self.edges
        return Trial(layer, self.t_end, self.probes, self.limit, drive, edges, self.structures[layer])


class LayerResult(NamedTuple):
    """What a solve gives of one layer: times of its spikes (S,), states at the probes (P, B, …, N), a and h None where
    its spikes trigger none, all differentiable; and its run."""

    time: Tensor
    v: Tensor
    i: Tensor
    run: LayerRun
    a: Tensor | None = None
    h: Tensor | None = None
