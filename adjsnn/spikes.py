"""Spike trains as batched, padded event lists."""

from collections.abc import Iterable, Iterator, Sequence
from math import inf, isclose
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from adjsnn.checks import (
    EPS,
    Count,
    Number,
    at_end,
    bins,
    count,
    duration,
    flag,
    float_dtype,
    kind,
    placement,
    positive,
    real,
    rounding,
    steps_in,
    tensor,
)
from adjsnn.errors import ConfigurationError
from adjsnn.grid import labels
from adjsnn.kept import Recorded
from adjsnn.trains_check import PADS, check_trains, event_columns, plain_event, skipped
from adjsnn.untraced import untraced

Event = tuple[float, int]
GRAZING_SPEED = 1e-6  # 1/ms: a spike slower than this grazes its threshold, and its gradient is not to be trusted


class SpikeTrains(Recorded):
    """Spikes of a batch: for each sample a list of (time, neuron), sorted in time and padded to equal length.

    x[k], x[a:b] and x[indices] are some of the samples, iteration goes over the samples one by one, `cat` and
    `adjsnn.collate_spikes` put samples together; times stay differentiable. len(x) is the number of spikes, `batch` that of
    samples. A copy by `copy.deepcopy` or `pickle` has no gradient by times that a solve made; those that are learnt stay so.

    Args:
        idx: neuron of each spike, (B, K), integers; -1 in the padding at the end of each row. Here and below a tensor, or an
            array, which is copied.
        time: time of each spike, (B, K), ms; inf in the padding.
        n_neurons: number of neurons; 0 ≤ idx < n_neurons.
        t_max: end of the recording, ms; 0 ≤ time ≤ t_max, but for a rounding of the dtype in which either is given.
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
        self.idx = tensor("idx", idx, "integer neurons, (B, K)", PADS)
        self.time = tensor("time", time, "floating-point times, (B, K)", PADS)
        if self.idx.is_floating_point() or self.idx.dtype == torch.bool or not self.time.is_floating_point():
            raise ConfigurationError(
                f"idx of {self.idx.dtype}, time of {self.time.dtype}",
                "integer neurons and floating-point times",
                "idx.long(), time.float()",
            )
        self.idx = self.idx.long()
        if sign is None:
            self.sign = torch.where(self.idx < 0, 0, 1).to(torch.int8)
        else:
            self.sign = tensor("sign", sign, "+1 or -1 for each spike, (B, K)", "leaving it out")
        self.n_neurons = count("n_neurons", n_neurons)
        self.t_max = duration("t_max", t_max)
        if rounding(t_max) > EPS and self.time.numel():  # the end was rounded: the spikes at it say where it was
            last = float(torch.where(self.time.isinf(), 0.0, self.time.detach()).max())
            self.t_max = last if self.t_max < last <= self.t_max * (1.0 + rounding(t_max)) else self.t_max
        self.check()

    def __getstate__(self) -> dict[str, Any]:
        """Times that are learnt stay so in a copy; those that a solve made have no gradient there."""
        return vars(self) if self.time.is_leaf else super().__getstate__()

    @untraced
    def check(self, *, ordered: bool = True) -> None:
        """Raise ConfigurationError unless these are spike trains still: tensors can be written to, and moved by an optimiser.

        Args:
            ordered: whether times out of order are an error.
        """
        ordered = flag("ordered", ordered)
        check_trains(self.idx, self.time, self.sign, self.n_neurons, self.t_max, ordered=ordered)

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
        float_dtype(dtype)
        placement(device, None)
        try:
            samples = [sorted((plain_event(event) for event in row), key=lambda event: event[0]) for row in events]
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"events that are no lists of (time, neuron): {error}",
                "one list of (time in ms, neuron) for each sample",
                "SpikeTrains.from_list([[(1.5, 0)]], n_neurons=1, t_max=10.0)",
            ) from error
        width = max((len(row) for row in samples), default=0)
        idx = torch.full((len(samples), width), -1, dtype=torch.long)
        time = torch.full((len(samples), width), float("inf"), dtype=dtype or torch.get_default_dtype())
        for sample, row in enumerate(samples):
            for k, (t, neuron) in enumerate(row):
                idx[sample, k], time[sample, k] = neuron, t
        return cls(idx.to(device), time.to(device), n_neurons, t_max)

    @classmethod
    @untraced
    def from_events(
        cls, sample: Tensor, neuron: Tensor, time: Tensor, sign: Tensor, *, batch: Count, n_neurons: Count, t_max: Number
    ) -> "SpikeTrains":
        """Spike trains from flat columns of S events in any order, one entry per spike, each (S,).

        Args:
            sample: sample of each spike, (S,), integers.
            neuron: its neuron, (S,), integers.
            time: its time, (S,), ms, floating-point; gradients pass.
            sign: +1 or -1, (S,), integers.
            batch: number of samples.
            n_neurons: number of neurons.
            t_max: end of the recording, ms.

        Raises:
            ConfigurationError: columns of another shape or dtype, or out of range.
        """
        batch, n_neurons = count("batch", batch, 0), count("n_neurons", n_neurons)
        sample, neuron, time, sign = event_columns(sample=sample, neuron=neuron, time=time, sign=sign)
        if len(sample) and not 0 <= int(sample.min()) <= int(sample.max()) < batch:
            raise ConfigurationError(
                f"samples from {int(sample.min())} to {int(sample.max())}", f"0 … {batch - 1}", "a larger batch"
            )
        order = torch.argsort(time, stable=True)
        order = order[torch.argsort(sample[order], stable=True)]
        sample, neuron, time, sign = (x[order] for x in (sample, neuron, time, sign))
        counts = torch.bincount(sample, minlength=batch)
        place = torch.arange(len(sample), device=sample.device) - (counts.cumsum(0) - counts)[sample]
        shape = (batch, int(counts.max()) if len(sample) else 0)
        entries = (sample, place)
        return cls(
            neuron.new_full(shape, -1).index_put(entries, neuron),
            time.new_full(shape, float("inf")).index_put(entries, time),
            n_neurons,
            t_max,
            torch.zeros(shape, dtype=torch.int8, device=sample.device).index_put(
                entries, sign.clamp(-2, 2).to(torch.int8)
            ),  # 257 is not 1
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
        float_dtype(dtype)
        dt = positive("dt", dt, "a positive step in ms", "dt=1.0")
        x = tensor("counts", x, "(T, B, N) numbers of spikes", "x > 0.5 for the spikes alone")
        if x.dim() != 3 or x.shape[2] < 1:
            raise ConfigurationError(
                f"counts of shape {tuple(x.shape)}", "(T, B, N): time first", "x.unsqueeze(1) for one sample"
            )
        if (
            x.is_complex()
            or bool((x < 0).any())
            or (x.is_floating_point() and not bool((x.isfinite() & (x == x.floor())).all()))
        ):
            raise ConfigurationError(
                "counts that are negative or not whole", "numbers of spikes", "x > 0.5 for the spikes alone"
            )
        if dtype is None:
            dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        step, sample, neuron = x.nonzero(as_tuple=True)
        repeats = x[step, sample, neuron].long()
        step, sample, neuron = (k.repeat_interleave(repeats) for k in (step, sample, neuron))
        time, end = (step.double() * dt).to(dtype), len(x) * dt if t_max is None else duration("t_max", t_max)
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
        placement(None, generator)
        rates = real("rates", rates, "(B, N) finite rates ≥ 0 in spikes/s", "torch.full((B, N), 10.0)")
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
    def latency(
        cls, x: Tensor, t_max: Number, *, bias: Number | None = None, skip: Number | Tensor | None = None
    ) -> "SpikeTrains":
        """One spike per neuron, at x · t_max: 0 spikes at once, 1 at the end. Differentiable in x.

        Args:
            x: (B, N), values in 0 … 1.
            t_max: time of the latest spike, ms.
            bias: time of the spike of one neuron more, the last, the same for all samples; None for none.
            skip: a value below which there is no spike, or which inputs send none, (B, N), bool: `skip=pixels < 0.1` where
                x is `1.0 - pixels`, so that bright ones spike early and dark ones not at all. Default: all spike.

        Raises:
            ConfigurationError: values outside 0 … 1, another shape, or t_max not finite.
        """
        x = real("x", x, "(B, N) floating-point values in 0 … 1", "torch.as_tensor(x)")
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
        silent = None if skip is None else skipped(skip, x)
        time = x * t_max if silent is None else torch.where(silent, inf, x * t_max)
        if bias is not None:
            time = torch.cat([time, time.new_full((len(x), 1), bias)], 1)
        neurons, (time, idx) = time.shape[1], time.sort(dim=1, stable=True)
        if silent is not None:
            width = int((time < inf).sum(1).max()) if len(time) else 0
            time, idx = time[:, :width], torch.where(time < inf, idx, -1)[:, :width]
        return cls(idx, time, neurons, t_max)

    @untraced
    def merge(self, other: "SpikeTrains") -> "SpikeTrains":
        """The spikes of both, of the same neurons and samples, sorted; times stay differentiable.

        Raises:
            ConfigurationError: another number of neurons or samples.
        """
        kind("other", other, SpikeTrains)
        if (other.batch, other.n_neurons) != (self.batch, self.n_neurons):
            raise ConfigurationError(
                f"{other!r} merged into {self!r}", "the same batch and n_neurons", "a larger n_neurons and shifted indices"
            )
        dtype = torch.promote_types(self.time.dtype, other.time.dtype)
        time, order = torch.cat([self._widened(dtype), other._widened(dtype)], 1).sort(dim=1, stable=True)
        idx, sign = (torch.cat(pair, 1).gather(1, order) for pair in ((self.idx, other.idx), (self.sign, other.sign)))
        return self._trimmed(idx, time, sign, max(self.t_max, other.t_max))

    @untraced
    def between(self, start: Number, stop: Number) -> "SpikeTrains":
        """The spikes in [start, stop), counted from `start` on; the end of the recording is included if stop reaches it.

        Raises:
            ConfigurationError: not 0 ≤ start ≤ stop ≤ t_max.
        """
        self.check(ordered=False)
        eps = max(rounding(stop), torch.finfo(self.time.dtype).eps)
        start, stop = duration("start", start, remedy="start=0.0"), duration("stop", stop)
        stop = float(at_end(torch.tensor(stop, dtype=torch.float64), self.t_max, eps))
        if not start <= stop <= self.t_max:
            raise ConfigurationError(
                f"[{start!r}, {stop!r})", f"0 ≤ start ≤ stop ≤ t_max = {self.t_max:g}", "times within the trial"
            )
        inside = (self.idx >= 0) & (self.time >= start) & ((self.time < stop) | (stop == self.t_max))
        length = stop - start
        time = self.time - start
        time = time - (time.detach() - length).clamp(min=0.0)  # a spike at the end stays at it, past the difference's rounding
        time, order = torch.where(inside, time, float("inf")).sort(dim=1, stable=True)
        idx, sign = torch.where(inside, self.idx, -1).gather(1, order), torch.where(inside, self.sign, 0).gather(1, order)
        return self._trimmed(idx, time, sign, length)

    @untraced
    def samples(self, which: Tensor | slice) -> "SpikeTrains":
        """Some of the samples: a slice, or indices (K,); padded as they are here."""
        which = self._rows(which)
        return SpikeTrains(self.idx[which], self.time[which], self.n_neurons, self.t_max, self.sign[which])

    @untraced
    def __getitem__(self, which: object) -> "SpikeTrains":
        """Some of the samples, padded no more than they need: a number, a slice, indices, or a bool for each.

        Raises:
            ConfigurationError: samples that are not there.
        """
        which = self._rows(which)
        return self._trimmed(self.idx[which], self.time[which], self.sign[which], self.t_max)

    def _rows(self, which: object) -> Tensor | slice:
        """Samples that are there, as torch's indexing takes them."""
        if isinstance(which, slice):
            return which
        wanted = f"a number, a slice, or indices, of {self.batch} samples"
        indices = tensor("which", None if isinstance(which, tuple) else which, wanted, "x[0], x[2:4]")
        indices = indices.long() if indices.numel() == 0 or indices.dtype == torch.uint8 else indices
        if indices.dtype == torch.bool:
            there = indices.shape == (self.batch,)
        else:
            there = not (indices.is_floating_point() or indices.is_complex()) and indices.dim() < 2
            there = there and (not indices.numel() or -self.batch <= int(indices.min()) <= int(indices.max()) < self.batch)
        if not there:
            raise ConfigurationError(f"samples {which!r}", wanted, "x[0], x[2:4]")
        indices = indices if indices.dtype == torch.bool else indices.long()
        return torch.atleast_1d(indices).to(self.idx.device)

    def __iter__(self) -> Iterator["SpikeTrains"]:
        """The samples, one by one, each a batch of one."""
        return (self[k] for k in range(self.batch))

    def __reversed__(self) -> Iterator["SpikeTrains"]:
        return (self[k] for k in reversed(range(self.batch)))

    def __getitems__(self, indices: Sequence[int]) -> list["SpikeTrains"]:
        """What torch's DataLoader would ask of a data set; its length would have to be that of the batch."""
        raise ConfigurationError(
            "SpikeTrains as the data set of a DataLoader, while their len is a number of spikes",
            "a sequence of samples",
            "DataLoader(list(x), collate_fn=adjsnn.collate_spikes)",
        )

    @classmethod
    @untraced
    def cat(cls, trains: Iterable["SpikeTrains"]) -> "SpikeTrains":
        """The samples of all, one batch after the other; times stay differentiable.

        Raises:
            ConfigurationError: none at all, or another number of neurons, t_max, dtype or device.
        """
        trains = list(trains) if isinstance(trains, Iterable) else [trains]
        if not trains or not all(isinstance(x, SpikeTrains) for x in trains):
            raise ConfigurationError(
                f"{[type(x).__name__ for x in trains]}", "one SpikeTrains or more", "SpikeTrains.cat([a, b])"
            )
        first, width = trains[0], max(x.idx.shape[1] for x in trains)
        dtype, device = first.time.dtype, first.time.device
        for k, x in enumerate(trains):
            same = (x.n_neurons, x.time.dtype, x.time.device) == (first.n_neurons, dtype, device)
            if not same or not isclose(x.t_max, first.t_max, rel_tol=torch.finfo(dtype).eps):
                raise ConfigurationError(
                    f"{x!r} of {x.time.dtype} on {x.time.device}, number {k}",
                    f"n_neurons={first.n_neurons}, t_max={first.t_max:g} ms, {dtype} on {device}, as number 0",
                    "x.to(device, dtype), or SpikeTrains(x.idx, x.time, n_neurons, t_max, x.sign)",
                )

        def padded(rows: Iterable[Tensor], value: float) -> Tensor:
            return torch.cat([pad(row, (0, width - row.shape[1]), value=value) for row in rows])

        idx, time = padded((x.idx for x in trains), -1), padded((x.time for x in trains), inf)
        sign = padded((x.sign for x in trains), 0)
        return cls(idx, time, first.n_neurons, max(x.t_max for x in trains), sign)

    @classmethod
    @untraced
    def stack(cls, samples: Iterable["SpikeTrains"]) -> "SpikeTrains":
        """A batch of single samples, as `torch.stack` makes one; times stay differentiable.

        Raises:
            ConfigurationError: as `cat`, and for a batch of other than one sample.
        """
        samples = list(samples) if isinstance(samples, Iterable) else [samples]
        for k, x in enumerate(samples):
            if isinstance(x, SpikeTrains) and x.batch != 1:
                raise ConfigurationError(f"{x!r}, number {k}", "batches of one sample", "SpikeTrains.cat, which joins batches")
        return cls.cat(samples)

    def pin_memory(self) -> "SpikeTrains":
        """The spikes in page-locked memory, from which a GPU copies faster; a DataLoader with pin_memory=True calls it."""
        return SpikeTrains(self.idx.pin_memory(), self.time.pin_memory(), self.n_neurons, self.t_max, self.sign.pin_memory())

    @untraced
    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "SpikeTrains":
        """The spikes on another device, their times in another floating-point dtype."""
        placement(device, None)
        float_dtype(dtype)
        idx, sign, time = self.idx.to(device), self.sign.to(device), self._widened(dtype).to(device, dtype)
        return SpikeTrains(idx, time, self.n_neurons, self.t_max, sign)

    def _widened(self, dtype: torch.dtype | None) -> Tensor:
        """Times in a wider dtype, in which those that a rounding put beyond t_max are at it."""
        if dtype is None or torch.finfo(dtype).eps >= torch.finfo(self.time.dtype).eps:
            return self.time
        time, beyond = self.time.to(dtype), self.time.detach().to(dtype) - self.t_max
        rounded = (beyond > 0.0) & (beyond <= self.t_max * torch.finfo(self.time.dtype).eps)
        return time - torch.where(rounded, beyond, 0.0)

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

        Times on a grid are off its edges by roundings: one that falls short of an edge by no more than three roundings of its
        dtype (or of dt's) lies on it, no other time moves (`adjsnn.checks.bins`). The inverse of `from_dense` for the same dt.

        Raises:
            ConfigurationError: dt is not positive.
        """
        self.check(ordered=False)
        eps = max(rounding(dt), torch.finfo(self.time.dtype).eps)
        dt = positive("dt", dt, "a positive step in ms", "dt=1.0")
        whole, filled = steps_in(self.t_max, dt, eps)
        steps = max(1, whole if filled else whole + 1)
        sample, k = (self.idx >= 0).nonzero(as_tuple=True)
        cells = (bins(self.time[sample, k], dt, eps).clamp_(max=steps - 1), sample, self.idx[sample, k])
        dense = self.time.new_zeros(steps, self.idx.shape[0], self.n_neurons)
        return dense.index_put_(cells, self.sign[sample, k].to(dense.dtype), accumulate=True)

    @untraced
    def to_grid(self, dt: Number, rule: str = "nest") -> "SpikeTrains":
        """The spikes at the times by which a simulator that steps on a grid labels them, without gradient.

        Times on a grid are off its edges by roundings, as in `to_dense`. Labels are the floating-point numbers that are nearest
        to decimal ones: 0.3, not 3 · 0.1.

        Args:
            dt: the step, ms.
            rule: "nest" for the end of the step, the label that is dt or less after the spike, or at it; "brian2" for its
                beginning, which is at the spike or less than dt before.

        Returns:
            trains whose t_max is a label too where it has to be: NEST's may lie up to dt after it.

        Raises:
            ConfigurationError: dt is not positive, or another rule.
        """
        self.check(ordered=False)
        eps = max(rounding(dt), torch.finfo(self.time.dtype).eps)
        dt = positive("dt", dt, "a positive step in ms", "dt=0.1")
        end = torch.tensor(self.t_max, dtype=torch.float64)
        t_max = max(self.t_max, float(labels(end, dt, rule, eps)))
        return SpikeTrains(self.idx, labels(self.time, dt, rule, eps).to(self.time), self.n_neurons, t_max, self.sign)

    @untraced
    def counts(self) -> Int[Tensor, "B N"]:
        """Number of spikes of each neuron in each sample, of either sign."""
        self.check(ordered=False)
        sample, k = (self.idx >= 0).nonzero(as_tuple=True)
        flat = sample * self.n_neurons + self.idx[sample, k]
        return torch.bincount(flat, minlength=self.batch * self.n_neurons).view(self.batch, self.n_neurons)

    @property
    def batch(self) -> int:
        return self.idx.shape[0]

    @untraced
    def __len__(self) -> int:
        """Number of spikes in the whole batch; that of samples is `batch`."""
        return int((self.idx >= 0).sum())

    def __repr__(self) -> str:
        return f"SpikeTrains({len(self)} spikes, batch={self.batch}, n_neurons={self.n_neurons}, t_max={self.t_max:g} ms)"
