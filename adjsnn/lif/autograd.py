"""The event-exact adjoint of LIF networks (2.5)-(2.10), and its connection to torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adjsnn.lif.engine import Body
from adjsnn.lif.layer import (
    NO_DRIVE,
    NO_STATES,
    NO_TIMES,
    Events,
    LayerCotangents,
    LayerGradients,
    LayerRun,
    Trial,
    as_array,
    layer_arrays,
)
from adjsnn.lif.network import LIFLayer, LIFState
from adjsnn.numerics.first_order import FirstOrder, first_order, laid_out

FIELDS = len(LIFLayer._fields)
WIDTH = FIELDS + len(LIFState._fields)  # tensors of one layer among the arguments


class LIFProblem(NamedTuple):
    """What a LIF network is solved for, beside its tensors.

    Fields: first (B+1,) and source (S,), the input spikes in flat columns as in Events; t_end, ms; probes (P,), ms; limit, the
    most spikes of one neuron; body, which solves it; edges (T-1,), at which the later steps of the drive begin, ms.
    """

    first: np.ndarray
    source: np.ndarray
    t_end: float
    probes: np.ndarray
    limit: int
    body: Body
    edges: np.ndarray = NO_TIMES

    def trial(self, layer: int, drive: Tensor | None) -> Trial:
        """What a layer is solved over; the drive is that of the first."""
        if drive is None or layer:
            return Trial(layer, self.t_end, self.probes, self.limit, NO_DRIVE, NO_TIMES)
        return Trial(layer, self.t_end, self.probes, self.limit, as_array(drive), self.edges)


class LayerResult(NamedTuple):
    """What a solve gives of one layer: times of its spikes (S,), v and i at the probes (P, B, N), differentiable; its run."""

    time: Tensor
    v: Tensor
    i: Tensor
    run: LayerRun


@dataclass(frozen=True)
class EventAdjoint:
    """Exact gradient of the true cost, to rounding: the costate jumps at events and is in closed form between them.

    What is stored are the spikes, with the current at each; the cost is proportional to their number.
    """

    def run(
        self,
        problem: LIFProblem,
        layers: Sequence[LIFLayer],
        time: Tensor,
        y0: Sequence[LIFState],
        drive: Tensor | None = None,
    ) -> list[LayerResult]:
        """Solve every layer; `time` (S_in,) are the times of the input spikes, `drive` (T, B, N) is added to the first bias.

        Gradients of the results run the adjoint.
        """
        runs: list[LayerRun] = []
        flat = [x for layer, state in zip(layers, y0, strict=True) for x in (*layer, *state)]
        results = _EventExact.apply(problem, runs, time, drive, *flat)
        return [LayerResult._make((*results[3 * k : 3 * k + 3], run)) for k, run in enumerate(runs)]


class _EventExact(FirstOrder):
    """Connects the layers' solves and adjoints to torch. Every tensor is an explicit argument."""

    @staticmethod
    def forward(ctx, problem, runs, time, drive, *flat):
        inputs = Events(problem.first, as_array(time).copy(), problem.source)
        outputs = []
        for k, (layer, state) in enumerate(_layers(flat)):
            arrays, like = layer_arrays(layer), layer.w_in
            run = problem.body.forward(arrays, inputs, *(as_array(x) for x in state), problem.trial(k, drive))
            # Users change results in place: of what they are given, the run keeps only a copy of the times.
            outputs.append(torch.from_numpy(run.spikes.time).to(like, copy=True))
            outputs += [torch.from_numpy(x).to(like) for x in (run.v, run.i)]
            runs.append(run._replace(v=NO_STATES, i=NO_STATES))
            inputs = run.spikes
        ctx.problem, ctx.runs = problem, tuple(runs)
        ctx.save_for_backward(time, drive, *flat)
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    def backward(ctx, *cotangents):
        return _backward(ctx, *cotangents)


@first_order
def _backward(ctx, *cotangents):
    time, drive, *flat = ctx.saved_tensors
    problem, layers, needs = ctx.problem, _layers(flat), ctx.needs_input_grad[4:]
    gradients: list[Tensor | None] = [None] * len(flat)
    lowest = 0 if any(ctx.needs_input_grad[2:4]) else next((k for k, need in enumerate(needs) if need), len(flat)) // WIDTH
    above: np.ndarray | None = None
    d_drive: Tensor | None = None
    for k in range(len(layers) - 1, lowest - 1, -1):
        layer, state = layers[k]
        run, given = ctx.runs[k], [None if c is None else as_array(c) for c in cotangents[3 * k : 3 * k + 3]]
        if above is None and all(c is None for c in given):
            continue
        inputs = ctx.runs[k - 1].spikes if k else Events(problem.first, as_array(time), problem.source)
        at_spikes = sum((c for c in (above, given[0]) if c is not None), np.zeros_like(run.spikes.time))
        need = needs[k * WIDTH : (k + 1) * WIDTH]
        names = frozenset(name for name, n in zip((*LIFLayer._fields, "v", "i"), need, strict=True) if n)
        states = [as_array(x) for x in state]
        found = problem.body.backward(
            layer_arrays(layer), inputs, *states, problem.trial(k, drive), run, LayerCotangents(at_spikes, *given[1:]), names
        )
        if k == 0 and ctx.needs_input_grad[3]:
            d_drive = torch.from_numpy(found.drive).to(drive)
        gradients[k * WIDTH : (k + 1) * WIDTH] = _tensors(found, (*layer, *state), need)
        above = found.time
    d_time = torch.from_numpy(above).to(time) if ctx.needs_input_grad[2] and above is not None else None
    return None, None, *laid_out((d_time, d_drive, *gradients), (time, drive, *flat))


def _layers(flat: Sequence[Any]) -> list[tuple[LIFLayer, LIFState]]:
    rows = [flat[k : k + WIDTH] for k in range(0, len(flat), WIDTH)]
    return [(LIFLayer(*row[:FIELDS]), LIFState(*row[FIELDS:])) for row in rows]


def _tensors(found: LayerGradients, like: Sequence[Tensor | None], needs: Sequence[bool]) -> list[Tensor | None]:
    """Gradients of one layer's arguments as tensors of their shape, dtype and device; None where none is needed."""
    arrays = (*found.layer, found.v, found.i)
    return [
        torch.from_numpy(x).reshape(y.shape).to(y) if need and y is not None else None
        for x, y, need in zip(arrays, like, needs, strict=True)
    ]
