"""Connects a forward run and a backward sweep of compiled loops to torch."""

import numpy as np
import torch
from torch import Tensor

from adjsnn.equations.cpu import march
from adjsnn.equations.cpu.adjoint import Cotangents
from adjsnn.hybrid.autograd import by_step, tell_silence
from adjsnn.hybrid.event_steps import events_of
from adjsnn.hybrid.run import HybridStats
from adjsnn.hybrid.steps import check_finite
from adjsnn.numerics.first_order import FirstOrder, first_order


def array_of(x: Tensor) -> np.ndarray:
    """A tensor as loops take it: float64, contiguous, on the host."""
    return np.ascontiguousarray(x.detach().cpu().numpy().astype(np.float64))


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
        y = torch.from_numpy(np.ascontiguousarray(record.outputs.transpose(1, 0, 2))).to(y0)
        check_finite(y, solve.program.ts)
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
        times, index = events_of(steps, y0)
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
    outputs = np.zeros((batch, len(trial.ts), d))
    if of_outputs is not None:
        outputs[:] = array_of(of_outputs).transpose(1, 0, 2)
    times = np.zeros(record.lengths.shape)
    found = None if of_event_times is None else by_step(ctx.steps, of_event_times)
    if found is not None:
        times[:, : len(found)] = array_of(found).T
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
    return None, None, *asked
