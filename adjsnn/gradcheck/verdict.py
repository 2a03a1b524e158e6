"""What `judge` found of a layer of someone else's: its spikes and its gradients beside the exact ones, and the table."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adjsnn.errors import ConfigurationError
from adjsnn.gradcheck.yardstick import AngleRow
from adjsnn.spikes import SpikeTrains

MEANING = {
    "exact": "that of the event-exact network",
    "another program": "right for the spikes that the layer computes, which are not those of the exact network",
    "surrogate": "no derivative: the layer's spike times stand still, as on a clock, while it has a gradient",
    "wrong": "not the derivative of what the layer itself computes",
    "unused": "the layer's loss does not depend on it: is it the tensor that the layer computes with?",
    "unjudged": "not that of the exact network, and no entry could be judged by differences",
}


@dataclass(frozen=True)
class SpikeErrors:
    """Spikes of a layer beside the exact ones, matched by neuron in order: the k-th spike of one with the k-th of the other.

    Attributes:
        spikes: number of the layer's.
        exact: number of exact ones.
        missed: spikes that neurons have fewer than they should.
        surplus: spikes that neurons have more than they should.
        miscounted: number of (sample, neuron) pairs with another number of spikes.
        neurons: number of (sample, neuron) pairs.
        median: of the distances in time of matched spikes, ms; NaN where none is.
        largest: of these distances, ms.
    """

    spikes: int
    exact: int
    missed: int
    surplus: int
    miscounted: int
    neurons: int
    median: float
    largest: float

    def __str__(self) -> str:
        return (
            f"{self.spikes} output spikes, exact {self.exact}: {self.missed} missed, {self.surplus} surplus, in "
            f"{self.miscounted} of {self.neurons} neurons; times off by {self.median:.2g} ms (median), "
            f"{self.largest:.2g} (largest)"
        )


@dataclass(frozen=True)
class JudgeRow(AngleRow):
    """A layer's gradient r of one of its tensors beside the exact one, g, and beside the layer's own differences.

    Attributes:
        error: ‖r - g‖/‖g‖.
        differences: distance of the probed entries of r from central differences of the layer itself, taken where it has equal
            spike counts, over the norm of these or the largest entry of r; None where no entry could be judged.
        probed: entries compared with differences.
        skipped: entries given up, because a number of spikes changed or no two steps agreed.
        verdict: "exact", "another program", "surrogate", "wrong", "unused" or "unjudged".
    """

    error: float
    differences: float | None
    probed: int
    skipped: int
    verdict: str


@dataclass(frozen=True)
class JudgeReport:
    """What `judge` found. str() is the table.

    Attributes:
        rows: one of every parameter.
        spikes: of the layer beside the exact ones.
        layer: its name.
        loss: of the layer.
        exact_loss: of the exact network.
        tolerance: relative distance up to which gradients agree.
    """

    rows: tuple[JudgeRow, ...]
    spikes: SpikeErrors
    layer: str
    loss: float
    exact_loss: float
    tolerance: float

    def row(self, parameter: str) -> JudgeRow:
        """The row of a parameter.

        Raises:
            ConfigurationError: there is none.
        """
        for row in self.rows:
            if row.parameter == parameter:
                return row
        raise ConfigurationError(
            f"{parameter!r}", f"one of {[row.parameter for row in self.rows]}", "report.rows for all of them"
        )

    def __str__(self) -> str:
        named = max(12, max(len(row.parameter) for row in self.rows) + 2)
        head = f"{'parameter':<{named}}{'cosine':>8}{'|r|/|g|':>10}{'same sign':>11}{'vs exact':>10}"
        head += f"{'vs own differences':>20}{'probed':>8}{'skipped':>9}  verdict"
        lines = [f"{self.layer}: loss {self.loss:.6g}, exact {self.exact_loss:.6g}", str(self.spikes), head, "-" * len(head)]
        for row in self.rows:
            numbers = f"{row.cosine:>8.4f}{row.ratio:>10.3g}{row.signs:>11.3f}{row.error:>10.1e}"
            own = "-" if row.differences is None else f"{row.differences:.1e}"
            lines.append(f"{row.parameter:<{named}}{numbers}{own:>20}{row.probed:>8}{row.skipped:>9}  {row.verdict}")
        lines += [f"{verdict}: {MEANING[verdict]}" for verdict in dict.fromkeys(row.verdict for row in self.rows)]
        if self.spikes.miscounted:
            lines.append("Numbers of spikes differ: the exact gradient is that of another function of the parameters.")
        return "\n".join(lines)


def spike_errors(times: Tensor, exact: Tensor, counts: Tensor | None = None, exact_counts: Tensor | None = None) -> SpikeErrors:
    """Two sets of spikes, each neuron's matched in order.

    Args:
        times: in order, (B, N, K), ms; inf where a neuron has no more.
        exact: likewise, (B, N, L).
        counts: number of spikes, (B, N), where `times` are not all of them; default those in `times`.
        exact_counts: likewise.
    """
    shared = min(times.shape[2], exact.shape[2])
    apart = (times[..., :shared] - exact[..., :shared]).abs()
    apart = apart[apart.isfinite()]  # inf or NaN where one or both are none
    own = (times.isfinite().sum(2) if counts is None else counts).long()
    other = (exact.isfinite().sum(2) if exact_counts is None else exact_counts).long()
    more = own - other
    median, largest = (float(np.median(apart)), float(apart.max())) if len(apart) else (math.nan, math.nan)
    return SpikeErrors(
        spikes=int(own.sum()),
        exact=int(other.sum()),
        missed=int((-more).clamp(min=0).sum()),
        surplus=int(more.clamp(min=0).sum()),
        miscounted=int((more != 0).sum()),
        neurons=more.numel(),
        median=median,
        largest=largest,
    )


def by_neuron(spikes: SpikeTrains | Tensor) -> Tensor:
    """Times of each neuron in order, (B, N, K), ms, float64 on the CPU, inf where it has no more; of first spikes K = 1."""
    if isinstance(spikes, Tensor):
        return spikes.detach().to("cpu", torch.float64).unsqueeze(2)
    sample, k = (spikes.idx >= 0).nonzero(as_tuple=True)
    neuron, time = sample * spikes.n_neurons + spikes.idx[sample, k], spikes.time.detach()[sample, k]
    order = neuron.argsort(stable=True)  # spikes are sorted in time already
    neuron, time = neuron[order].cpu(), time[order].to("cpu", torch.float64)
    counts = torch.bincount(neuron, minlength=spikes.batch * spikes.n_neurons)
    rank = torch.arange(len(neuron)) - (counts.cumsum(0) - counts)[neuron]
    table = time.new_full((len(counts), int(counts.max()) if len(counts) else 0), float("inf"))
    table[neuron, rank] = time
    return table.view(spikes.batch, spikes.n_neurons, table.shape[1])
