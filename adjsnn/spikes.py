"""Spike trains as batched, padded event lists."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.errors import ConfigurationError

Event = tuple[float, int]


class SpikeTrains:
    """Spikes of a batch: for each sample a list of (time, neuron), sorted in time and padded to equal length.

    Args:
        idx: neuron of each spike, (B, K), integers; -1 in the padding at the end of each row.
        time: time of each spike, (B, K), ms; inf in the padding.
        n_neurons: number of neurons; 0 ≤ idx < n_neurons.
        t_max: end of the recording, ms; 0 ≤ time ≤ t_max.
        sign: +1 or -1 for each spike, (B, K), where neurons with two thresholds spike either way; 0 in the padding.
            Default: all +1.

    Raises:
        ConfigurationError: shapes, dtypes, order, range or padding that cannot be right.
    """

    def __init__(
        self,
        idx: Int[Tensor, "B K"],
        time: Float[Tensor, "B K"],
        n_neurons: int,
        t_max: float,
        sign: Int[Tensor, "B K"] | None = None,
    ) -> None:
        padding = idx < 0
        self.idx = idx
        self.time = time
        self.sign = torch.where(padding, 0, 1).to(torch.int8) if sign is None else sign
        self.n_neurons, self.t_max = int(n_neurons), float(t_max)
        self._check(padding)

    def _check(self, padding: Tensor) -> None:
        if self.idx.shape != self.time.shape or self.sign.shape != self.idx.shape or self.idx.dim() != 2:
            raise ConfigurationError(
                f"idx {tuple(self.idx.shape)}, time {tuple(self.time.shape)}, sign {tuple(self.sign.shape)}",
                "the same shape (B, K) for all",
                "SpikeTrains.from_list, which pads for you",
            )
        if self.idx.is_floating_point() or not self.time.is_floating_point():
            raise ConfigurationError(
                f"idx of {self.idx.dtype}, time of {self.time.dtype}",
                "integer neurons and floating-point times",
                "idx.long()",
            )
        if self.n_neurons < 1 or not 0.0 <= self.t_max < float("inf"):
            raise ConfigurationError(
                f"n_neurons={self.n_neurons}, t_max={self.t_max}",
                "n_neurons ≥ 1 and a finite t_max ≥ 0 in ms",
                "both positive",
            )
        if self.time.isnan().any():
            raise ConfigurationError("NaN among the spike times", "numbers, or inf in the padding", "dropping those spikes")
        if (self.idx >= self.n_neurons).any() or (self.idx < -1).any():
            raise ConfigurationError(
                f"neuron indices from {int(self.idx.min())} to {int(self.idx.max())}",
                f"0 … {self.n_neurons - 1}, or -1 in the padding",
                "a larger n_neurons",
            )
        if (padding != self.time.isinf()).any() or (padding[:, :-1] & ~padding[:, 1:]).any():
            raise ConfigurationError(
                "padding that is not -1 in idx and inf in time, at the end of each row",
                "both, after the last spike",
                "SpikeTrains.from_list, which pads for you",
            )
        spikes = self.time[~padding]
        if (spikes < 0.0).any() or (spikes > self.t_max).any():
            raise ConfigurationError(
                f"spike times from {float(spikes.min()):g} to {float(spikes.max()):g} ms",
                f"0 to t_max = {self.t_max:g} ms",
                "a larger t_max, or dropping the spikes outside",
            )
        unsorted = (self.time[:, 1:] < self.time[:, :-1]).any(1)
        if unsorted.any():
            raise ConfigurationError(
                f"unsorted spike times in sample {int(unsorted.nonzero()[0])}",
                "times that never decrease along a row",
                "sorting them, or SpikeTrains.from_list, which sorts",
            )

    @classmethod
    def from_list(
        cls,
        events: Sequence[Sequence[Event]],
        *,
        n_neurons: int,
        t_max: float,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> "SpikeTrains":
        """Spike trains from one list of (time in ms, neuron) per sample, in any order."""
        rows = [sorted(row, key=lambda event: event[0]) for row in events]
        width = max((len(row) for row in rows), default=0)
        idx = torch.full((len(rows), width), -1, dtype=torch.long)
        time = torch.full((len(rows), width), float("inf"), dtype=dtype or torch.get_default_dtype())
        for sample, row in enumerate(rows):
            for k, (t, neuron) in enumerate(row):
                idx[sample, k], time[sample, k] = neuron, t
        return cls(idx.to(device), time.to(device), n_neurons, t_max)

    @classmethod
    def from_events(
        cls, sample: Tensor, neuron: Tensor, time: Tensor, sign: Tensor, *, batch: int, n_neurons: int, t_max: float
    ) -> "SpikeTrains":
        """Spike trains from flat columns of S events in any order, one entry per spike, each (S,)."""
        order = torch.argsort(time, stable=True)
        order = order[torch.argsort(sample[order], stable=True)]
        sample, neuron, time, sign = (x[order] for x in (sample, neuron, time, sign))
        counts = torch.bincount(sample, minlength=batch)
        place = torch.arange(len(sample), device=sample.device) - (counts.cumsum(0) - counts)[sample]
        shape = (batch, int(counts.max()) if len(sample) else 0)
        at = (sample, place)
        return cls(
            neuron.new_full(shape, -1).index_put(at, neuron),
            time.new_full(shape, float("inf")).index_put(at, time),
            n_neurons,
            t_max,
            torch.zeros(shape, dtype=torch.int8, device=sample.device).index_put(at, sign.to(torch.int8)),
        )

    def to_list(self) -> list[list[Event]]:
        """One list of (time in ms, neuron) per sample, sorted in time."""
        return [
            [(t, k) for t, k in zip(times, neurons, strict=True) if k >= 0]
            for times, neurons in zip(self.time.tolist(), self.idx.tolist(), strict=True)
        ]

    def to_dense(self, dt: float) -> Float[Tensor, "T B N"]:
        """Signed spike counts on a grid: entry n counts the spikes in [n dt, (n+1) dt), the last one those at t_max too.

        Raises:
            ConfigurationError: dt is not positive.
        """
        if not 0.0 < dt < float("inf"):
            raise ConfigurationError(f"dt={dt!r}", "a positive step in ms", "dt=1.0")
        steps = max(1, -int(-self.t_max / dt // 1))
        sample, k = (self.idx >= 0).nonzero(as_tuple=True)
        bins = (self.time[sample, k] / dt).floor().long().clamp_(max=steps - 1)
        dense = self.time.new_zeros(steps, self.idx.shape[0], self.n_neurons)
        at = (bins, sample, self.idx[sample, k])
        return dense.index_put_(at, self.sign[sample, k].to(dense.dtype), accumulate=True)

    def counts(self) -> Int[Tensor, "B N"]:
        """Number of spikes of each neuron in each sample, of either sign."""
        sample, k = (self.idx >= 0).nonzero(as_tuple=True)
        flat = sample * self.n_neurons + self.idx[sample, k]
        return torch.bincount(flat, minlength=self.batch * self.n_neurons).view(self.batch, self.n_neurons)

    @property
    def batch(self) -> int:
        return self.idx.shape[0]

    def __len__(self) -> int:
        """Number of spikes in the whole batch."""
        return int((self.idx >= 0).sum())

    def __repr__(self) -> str:
        return f"SpikeTrains({len(self)} spikes, batch={self.batch}, n_neurons={self.n_neurons}, t_max={self.t_max:g} ms)"
