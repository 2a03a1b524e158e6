"""Connects a forward run and a backward sweep of compiled loops to torch."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from adjsnn.equations.cpu import march
from adjsnn.equations.cpu.adjoint import Cotangents
from adjsnn.equations.cpu.march import Record
from adjsnn.hybrid.autograd import lost, tell_silence
from adjsnn.hybrid.run import HybridStats
from adjsnn.hybrid.steps import check_finite
from adjsnn.numerics.first_order import FirstOrder, first_order, tell_where


def array_of(x: Tensor) -> np.ndarray:
    """A tensor as loops take it: float64, contiguous, on the host; where it is that already, its own memory."""
    return np.ascontiguousarray(x.detach().cpu().numpy(), dtype=np.float64)


class Fired(NamedTuple):
    """Steps that end in events: their samples, rows, and places among the events of their samples; times and guards (B, E) of
    these, padded with inf and -1."""

    sample: np.ndarray
    row: np.ndarray
    place: np.ndarray
    times: np.ndarray
    guards: np.ndarray


def fired_of(record: Record, taken: np.ndarray) -> Fired:
    """The events of a record of which each sample has taken so many steps, (B,)."""
    most = int(taken.max())
    sample, row = ((record.event[:, :most] >= 0) & (np.arange(most) < taken[:, None])).nonzero()
    counts = np.bincount(sample, minlength=len(taken))
    place = np.arange(len(sample)) - np.repeat(counts.cumsum() - counts, counts)
    times, guards = np.full((len(taken), counts.max()), np.inf), np.full((len(taken), counts.max()), -1)
    times[sample, place], guards[sample, place] = record.times[sample, row + 1], record.event[sample, row]
    return Fired(sample, row, place, times, guards)


class Attached(FirstOrder):
    """Connects the loops to torch."""

    @staticmethod
    def forward(ctx, solve, stats, u, y0, *tensors):
        y0, u = y0.detach(), None if u is None else u.detach()
        values = solve.values(dict(zip(solve.names, tensors, strict=True)), len(y0))
        trial = solve.trial(y0, u, values)
        record, samples = solve.forward(trial)
        solve.refuse(samples, record)
        steps = solve.steps(record, samples)
        y = torch.from_numpy(record.outputs).to(y0)  # no backward pass reads it
        check_finite(y, solve.program.ts)
        record = record._replace(outputs=np.empty((0, 0, 0)))
        kept = sum(x.nbytes for x in record)
        slowest = torch.from_numpy(samples.real[:, march.SLOWEST].copy()).to(y0) if steps.event is not None else None
        counts = (
            torch.from_numpy(samples.whole[:, march.TAKEN].copy()).to(y0.device),
            torch.from_numpy(samples.whole[:, march.REJECTED].copy()).to(y0.device),
        )
        stats.append(HybridStats(*counts, 0, kept, slowest, steps, *solve.ran))
        ctx.solve, ctx.trial, ctx.record, ctx.samples, ctx.values = solve, trial, record, samples, values
        ctx.shapes = [(x.shape, {"dtype": x.dtype, "device": x.device}) for x in tensors]
        ctx.set_materialize_grads(False)
        ctx.fired = fired_of(record, samples.whole[:, march.TAKEN])
        times, index = torch.from_numpy(ctx.fired.times).to(y0), torch.from_numpy(ctx.fired.guards).to(y0.device)
        ctx.mark_non_differentiable(index)
        ctx.like = {"dtype": y0.dtype, "device": y0.device}
        ctx.steps = steps
        return y, times, index

    @staticmethod
    def backward(ctx, *grad_outputs):
        return _backward(ctx, *grad_outputs)


@first_order
def _backward(ctx, of_outputs, of_event_times, _):
    solve, trial, record, samples = ctx.solve, ctx.trial, ctx.record, ctx.samples
    batch, d = trial.y0.shape
    outputs = np.zeros((len(trial.ts), batch, d)) if of_outputs is None else array_of(of_outputs)
    times = np.zeros(record.lengths.shape)
    if of_event_times is not None:
        times[ctx.fired.sample, ctx.fired.row] = array_of(of_event_times)[ctx.fired.sample, ctx.fired.place]
    bars = solve.backward(trial, record, samples, Cotangents(outputs, times))
    shared = bars.p.sum(0)
    gradients = []
    for (name, array, first, size), (shape, like) in zip(ctx.values.places, ctx.shapes, strict=True):
        matrix = solve.system.layout.matrices.get(name)
        if array == "q":
            x = bars.q[:, first : first + size]
            x = x.sum(0, keepdims=True) if shape[0] == 1 and batch > 1 else x
        else:
            x = shared[first : first + size]
            x = x.reshape(matrix[2], matrix[1]).T if matrix else x
        gradients.append(torch.from_numpy(np.ascontiguousarray(x)).reshape(shape).to(**like))
    needs = ctx.needs_input_grad
    of_u = torch.from_numpy(bars.u).to(**ctx.like) if needs[2] else None
    of_y0 = torch.from_numpy(bars.y0).to(**ctx.like) if needs[3] else None
    asked = (of_u, of_y0, *(x if need else None for x, need in zip(gradients, needs[4:], strict=True)))
    if ctx.steps.event is not None and (of_event_times is not None or outputs.any()):
        tell_silence(ctx.steps.event, asked)
    tell_where(ctx, lambda: lost(torch.from_numpy(bars.y0).to(**ctx.like)))
    return None, None, *asked
