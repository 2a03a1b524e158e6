"""Spike trains as batched, padded event lists."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.checks import Count, Number, count, duration, number, positive, tensor
from adjsnn.errors import ConfigurationError
from adjsnn.untraced import untraced

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

    @untraced
    def __init__(
        self,
        idx: Int[Tensor, "B K"] | np.ndarray,
        time: Float[Tensor, "B K"] | np.ndarray,
        n_neurons: Count,
        t_max: Number,
        sign: Int[Tensor, "B K"] | np.ndarray | None = None,
    ) -> None:
        remedy = "SpikeTrains.from_list, which pads for you"
        self.idx = tensor("idx", idx, "integer neurons, (B, K)", remedy)
        self.time = tensor("time", time, "floating-point times, (B, K)", remedy)
        if self.idx.is_floating_point() or self.idx.dtype == torch.bool or not self.time.is_floating_point():
            raise ConfigurationError(
                f"idx of {self.idx.dtype}, time of {self.time.dtype}",
                "integer neurons and floating-point times",
                "idx.long(), time.float()",
            )
        self.idx = self.idx.long()
        padding = self.idx < 0
        if sign is None:
            self.sign = torch.where(padding, 0, 1).to(torch.int8)
        else:
            self.sign = tensor("sign", sign, "+1 or -1 for each spike, (B, K)", "leaving it out")
        self.n_neurons = count("n_neurons", n_neurons)
        self.t_max = duration("t_max", t_max)
        self._check(padding)

    def _check(self, padding: Tensor) -> None:
        if self.idx.shape != self.time.shape or self.sign.shape != self.idx.shape or self.idx.dim() != 2:
            raise ConfigurationError(
                f"idx {tuple(self.idx.shape)}, time {tuple(self.time.shape)}, sign {tuple(self.sign.shape)}",
                "the same shape (B, K) for all",
                "SpikeTrains.from_list, which pads for you",
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
    @untraced
    def from_list(
        cls,
        events: Sequence[Sequence[Event]],
        *,
        n_neurons: Count,
        t_max: Number,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> "SpikeTrains":
        """Spike trains from one list of (time in ms, neuron) per sample, in any order."""
        rows = [sorted((_event(event) for event in row), key=lambda event: event[0]) for row in events]
        width = max((len(row) for row in rows), default=0)
        idx = torch.full((len(rows), width), -1, dtype=torch.long)
        time = torch.full((len(rows), width), float("inf"), dtype=dtype or torch.get_default_dtype())
        for sample, row in enumerate(rows):
            for k, (t, neuron) in enumerate(row):
                idx[sample, k], time[sample, k] = neuron, t
        return cls(idx.to(device), time.to(device), n_neurons, t_max)

    @classmethod
    @untraced
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

    @classmethod
    @untraced
    def from_dense(
        cls,
        x: Tensor | np.ndarray,
        dt: Number,
        *,
        t_max: Number | None = None,
        dtype: torch.dtype | None = None,
    ) -> "SpikeTrains":
        """Spike trains from whole spike counts on a grid, (T, B, N); the spikes of entry n are put at n dt, its beginning.

        The inverse of `to_dense(dt)` for spikes that lie on the grid.

        Args:
            x: number of spikes of each neuron in each bin, ≥ 0, of any dtype.
            dt: length of a bin, ms.
            t_max: end of the recording, ms; default T dt.
            dtype: of the times; default that of x if it is floating-point, else torch's default.

        Raises:
            ConfigurationError: counts that are not whole or negative, another shape, or dt not positive.
        """
        dt = positive("dt", dt, "a positive step in ms", "dt=1.0")
        x = tensor("counts", x, "(T, B, N) numbers of spikes", "x > 0.5 for the spikes alone")
        if x.dim() != 3 or x.shape[2] < 1:
            raise ConfigurationError(
                f"counts of shape {tuple(x.shape)}", "(T, B, N): time first", "x.unsqueeze(1) for one sample"
            )
        if bool((x < 0).any()) or bool((x != x.floor()).any() if x.is_floating_point() else False):
            raise ConfigurationError(
                "counts that are negative or not whole", "numbers of spikes", "x > 0.5 for the spikes alone"
            )
        if dtype is None:
            dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        step, sample, neuron = x.nonzero(as_tuple=True)
        repeats = x[step, sample, neuron].long()
        step, sample, neuron = (k.repeat_interleave(repeats) for k in (step, sample, neuron))
        time, end = step.to(dtype) * dt, len(x) * dt if t_max is None else duration("t_max", t_max)
        return cls.from_events(sample, neuron, time, torch.ones_like(neuron), batch=x.shape[1], n_neurons=x.shape[2], t_max=end)

    @classmethod
    @untraced
    def poisson(cls, rates: Tensor, t_max: Number, *, generator: torch.Generator | None = None) -> "SpikeTrains":
        """Poisson spikes of constant rate over 0 … t_max.

        Args:
            rates: (B, N), spikes/s, ≥ 0.
            t_max: length, ms.
            generator: source of randomness, on the device of `rates`; default torch's global one.

        Raises:
            ConfigurationError: rates of another shape or sign, or t_max not finite.
        """
        if rates.dim() != 2 or not bool((rates >= 0.0).all() and rates.isfinite().all()):
            raise ConfigurationError(
                f"rates of shape {tuple(rates.shape)}", "(B, N) finite rates ≥ 0 in spikes/s", "rates.clamp(0)"
            )
        t_max = duration("t_max", t_max, remedy="t_max=100.0")
        rates = rates.detach() if rates.is_floating_point() else rates.to(torch.get_default_dtype())
        counts = torch.poisson(rates * (t_max / 1000.0), generator=generator).long()
        sample, neuron = counts.nonzero(as_tuple=True)
        repeats = counts[sample, neuron]
        sample, neuron = sample.repeat_interleave(repeats), neuron.repeat_interleave(repeats)
        # Given their number, the spikes of a Poisson process are independent and uniform.
        time = torch.rand(len(sample), generator=generator, dtype=rates.dtype, device=rates.device) * t_max
        return cls.from_events(
            sample, neuron, time, torch.ones_like(neuron), batch=rates.shape[0], n_neurons=rates.shape[1], t_max=t_max
        )

    @classmethod
    @untraced
    def latency(cls, x: Tensor, t_max: Number, *, bias: Number | None = None) -> "SpikeTrains":
        """One spike per neuron, at x · t_max: 0 spikes at once, 1 at the end. Differentiable in x.

        Args:
            x: (B, N), values in 0 … 1.
            t_max: time of the latest spike, ms.
            bias: time of the spike of one neuron more, the last, the same for all samples; None for none.

        Raises:
            ConfigurationError: values outside 0 … 1, another shape, or t_max not finite.
        """
        if x.dim() != 2 or not x.is_floating_point() or not bool(((x >= 0.0) & (x <= 1.0)).all()):
            raise ConfigurationError(
                f"values of {x.dtype} and shape {tuple(x.shape)}",
                "(B, N) floating-point values in 0 … 1",
                "(x - x.min()) / range",
            )
        t_max = duration("t_max", t_max, remedy="t_max=30.0")
        bias = None if bias is None else duration("bias", bias, remedy="bias=0.0")
        if bias is not None and bias > t_max:
            raise ConfigurationError(
                f"t_max={t_max!r}, bias={bias!r}", "0 ≤ bias ≤ t_max, finite, in ms", "t_max=30.0, bias=0.0"
            )
        time = x * t_max
        if bias is not None:
            time = torch.cat([time, time.new_full((len(x), 1), bias)], 1)
        time, idx = time.sort(dim=1, stable=True)
        return cls(idx, time, time.shape[1], t_max)

    @untraced
    def merge(self, other: "SpikeTrains") -> "SpikeTrains":
        """The spikes of both, of the same neurons and samples, sorted; times stay differentiable.

        Raises:
            ConfigurationError: another number of neurons or samples.
        """
        if (other.batch, other.n_neurons) != (self.batch, self.n_neurons):
            raise ConfigurationError(
                f"{other!r} merged into {self!r}", "the same batch and n_neurons", "a larger n_neurons and shifted indices"
            )
        time, order = torch.cat([self.time, other.time], 1).sort(dim=1, stable=True)
        idx, sign = (torch.cat(pair, 1).gather(1, order) for pair in ((self.idx, other.idx), (self.sign, other.sign)))
        return self._trimmed(idx, time, sign, max(self.t_max, other.t_max))

    @untraced
    def between(self, start: Number, stop: Number) -> "SpikeTrains":
        """The spikes in [start, stop), counted from `start` on; the end of the recording is included if stop reaches it.

        Raises:
            ConfigurationError: not 0 ≤ start ≤ stop ≤ t_max.
        """
        start, stop = duration("start", start, remedy="start=0.0"), duration("stop", stop)
        if not start <= stop <= self.t_max:
            raise ConfigurationError(
                f"[{start!r}, {stop!r})", f"0 ≤ start ≤ stop ≤ t_max = {self.t_max:g}", "times within the trial"
            )
        kept = (self.idx >= 0) & (self.time >= start) & ((self.time < stop) | (stop == self.t_max))
        time = torch.where(kept, self.time - start, float("inf"))
        time, order = time.sort(dim=1, stable=True)
        idx, sign = torch.where(kept, self.idx, -1).gather(1, order), torch.where(kept, self.sign, 0).gather(1, order)
        return self._trimmed(idx, time, sign, stop - start)

    @untraced
    def samples(self, which: Tensor | slice) -> "SpikeTrains":
        """Some of the samples: a slice, or indices (K,)."""
        return SpikeTrains(self.idx[which], self.time[which], self.n_neurons, self.t_max, self.sign[which])

    @untraced
    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "SpikeTrains":
        """The spikes on another device, their times in another floating-point dtype."""
        idx, sign = self.idx.to(device), self.sign.to(device)
        return SpikeTrains(idx, self.time.to(device, dtype), self.n_neurons, self.t_max, sign)

    def _trimmed(self, idx: Tensor, time: Tensor, sign: Tensor, t_max: float) -> "SpikeTrains":
        width = int((idx >= 0).sum(1).max()) if len(idx) else 0
        return SpikeTrains(idx[:, :width], time[:, :width], self.n_neurons, t_max, sign[:, :width])

    @untraced
    def to_list(self) -> list[list[Event]]:
        """One list of (time in ms, neuron) per sample, sorted in time."""
        return [
            [(t, k) for t, k in zip(times, neurons, strict=True) if k >= 0]
            for times, neurons in zip(self.time.tolist(), self.idx.tolist(), strict=True)
        ]

    @untraced
    def to_dense(self, dt: Number) -> Float[Tensor, "T B N"]:
        """Signed spike counts on a grid: entry n counts the spikes in [n dt, (n+1) dt), the last one those at t_max too.

        Raises:
            ConfigurationError: dt is not positive.
        """
        dt = positive("dt", dt, "a positive step in ms", "dt=1.0")
        steps = max(1, -int(-self.t_max / dt // 1))
        sample, k = (self.idx >= 0).nonzero(as_tuple=True)
        bins = (self.time[sample, k] / dt).floor().long().clamp_(max=steps - 1)
        dense = self.time.new_zeros(steps, self.idx.shape[0], self.n_neurons)
        at = (bins, sample, self.idx[sample, k])
        return dense.index_put_(at, self.sign[sample, k].to(dense.dtype), accumulate=True)

    @untraced
    def counts(self) -> Int[Tensor, "B N"]:
        """Number of spikes of each neuron in each sample, of either sign."""
        sample, k = (self.idx >= 0).nonzero(as_tuple=True)
        flat = sample * self.n_neurons + self.idx[sample, k]
        return torch.bincount(flat, minlength=self.batch * self.n_neurons).view(self.batch, self.n_neurons)

    @property
    def batch(self) -> int:
        return self.idx.shape[0]

    @untraced
    def __len__(self) -> int:
        """Number of spikes in the whole batch."""
        return int((self.idx >= 0).sum())

    def __repr__(self) -> str:
        return f"SpikeTrains({len(self)} spikes, batch={self.batch}, n_neurons={self.n_neurons}, t_max={self.t_max:g} ms)"


def _event(event: Any) -> Event:
    """A (time, neuron), as plain numbers; a NaN goes on to be refused with the others."""
    t, neuron = event
    t = t if type(t) is float else number("a spike time", t, "a time in ms")
    return t, neuron if type(neuron) is int else count("a neuron", neuron, 0)
