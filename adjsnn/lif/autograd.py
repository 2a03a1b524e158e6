"""Connects the layers' solves and a backward pass through them to torch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from adjsnn.errors import warn_of_silence
from adjsnn.lif.layer import Events, LayerCotangents, LayerGradients, LayerRun
from adjsnn.lif.network import AdaptiveState, AnyState, LIFLayer, four, state_of
from adjsnn.lif.problem import LIFProblem
from adjsnn.lif.run import LayerResult, LIFTrial
from adjsnn.lif.solution import LIFSolution
from adjsnn.numerics.first_order import FirstOrder, first_order, laid_out

FIELDS = len(LIFLayer._fields)
STATES = AdaptiveState._fields
WIDTH = FIELDS + len(STATES)  # tensors of one layer among the arguments
OUT = 1 + len(STATES)  # and among the results: times and states
Back = Callable[..., LayerGradients]  # from (trial, *arguments), the arguments those of `lif.plain_adjoint.backward`


def exact(trial: LIFTrial, *arguments: Any) -> LayerGradients:
    """The event-exact adjoint of a layer (2.5)-(2.10), by the body that solved it."""
    return trial.body.backward(*arguments)


def attach(problem: LIFProblem, back: Back = exact) -> LIFSolution:
    """The event-exact solution; gradients of spike times and recorded states go `back` through one layer after the other.

    Args:
        problem: what to solve.
        back: gradients of a layer's arguments from the cotangents of its results.
    """
    runs: list[LayerRun] = []
    flat = [x for layer, state in zip(problem.layers, problem.y0, strict=True) for x in (*layer, *four(state))]
    drive = None if problem.drive is None else problem.drive.values
    results = _Attached.apply(problem.trial, back, runs, problem.time, drive, *flat)
    rows = [results[k : k + OUT] for k in range(0, len(results), OUT)]
    return problem.solution(
        [LayerResult(row[0], row[1], row[2], run, row[3], row[4]) for row, run in zip(rows, runs, strict=True)]
    )


class _Attached(FirstOrder):
    """Connects the layers' solves and their backward passes to torch. Every tensor is an explicit argument."""

    @staticmethod
    def forward(ctx, trial, back, runs, time, drive, *flat):
        inputs = Events(trial.first, time.detach().to(torch.float64, copy=True), trial.source)
        outputs = []
        for k, (layer, state) in enumerate(_layers(flat)):
            run = trial.body.forward(layer, inputs, state, trial.of_layer(k, drive))
            # Users change results in place: of what they are given, the run keeps only a copy of the times.
            outputs.append(run.spikes.time.to(layer.w_in, copy=True))
            outputs += [None if x is None else x.to(layer.w_in) for x in four(run.states)]
            runs.append(run._replace(states=None))
            inputs = run.spikes
        ctx.trial, ctx.back, ctx.runs = trial, back, tuple(runs)
        ctx.save_for_backward(time, drive, *flat)
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    def backward(ctx, *cotangents):
        return _backward(ctx, *cotangents)


@first_order
def _backward(ctx, *cotangents):
    time, drive, *flat = ctx.saved_tensors
    trial, layers, needs = ctx.trial, _layers(flat), ctx.needs_input_grad[5:]
    _tell_silence(trial, cotangents)
    gradients: list[Tensor | None] = [None] * len(flat)
    first_layer = any(ctx.needs_input_grad[3:5])  # the input spikes and the drive reach the first layer
    lowest = 0 if first_layer else _first(needs) // WIDTH
    above: Tensor | None = None
    d_drive: Tensor | None = None
    for k in range(len(layers) - 1, lowest - 1, -1):
        layer, state = layers[k]
        run, given = ctx.runs[k], cotangents[OUT * k : OUT * k + OUT]
        if above is None and all(c is None for c in given):
            continue
        inputs = ctx.runs[k - 1].spikes if k else Events(trial.first, time.detach().double(), trial.source)
        at_spikes = _sum(above, given[0], run.spikes.time)
        need = needs[k * WIDTH : (k + 1) * WIDTH]
        names = frozenset(name for name, n in zip((*LIFLayer._fields, *STATES), need, strict=True) if n)
        own_cotangents = LayerCotangents(at_spikes, *given[1:])
        layer_gradients = ctx.back(trial, layer, inputs, state, trial.of_layer(k, drive), run, own_cotangents, names)
        if k == 0 and ctx.needs_input_grad[4]:
            d_drive = layer_gradients.drive.to(drive)
        gradients[k * WIDTH : (k + 1) * WIDTH] = _tensors(layer_gradients, (*layer, *four(state)), need)
        above = layer_gradients.time
    d_time = above.to(time) if ctx.needs_input_grad[3] and above is not None else None
    return None, None, None, *laid_out((d_time, d_drive, *gradients), (time, drive, *flat))


def _sum(x: Tensor | None, y: Tensor | None, like: Tensor) -> Tensor:
    """What there is of two cotangents together, in the dtype of `like`."""
    if x is None or y is None:
        one = y if x is None else x
        return torch.zeros_like(like) if one is None else one.to(like, copy=True)
    return x + y


def _tell_silence(trial: LIFTrial, cotangents: Sequence[Tensor | None]) -> None:
    """Warn where a loss reads spikes of a layer that has none, and no voltages that have a gradient without: those of neurons
    that receive spikes."""
    spikes = {k: len(c) for k, c in enumerate(cotangents[::OUT]) if c is not None}  # of the layers that are read
    if not spikes or spikes[max(spikes)] or any(k == 0 or spikes.get(k - 1) for k in trial.voltages_read):
        return
    if all(c is None for k, c in enumerate(cotangents) if k % OUT):
        warn_of_silence(f"layer {max(spikes)} of a LIF network spiked")


def _first(needs: Sequence[bool]) -> int:
    """Where the first gradient is needed; behind the last where none is."""
    return list(needs).index(True) if True in needs else len(needs)


def _layers(flat: Sequence[Any]) -> list[tuple[LIFLayer, AnyState]]:
    per_layer = [flat[k : k + WIDTH] for k in range(0, len(flat), WIDTH)]
    return [(LIFLayer(*tensors[:FIELDS]), state_of(*tensors[FIELDS:])) for tensors in per_layer]


def _tensors(layer_gradients: LayerGradients, like: Sequence[Tensor | None], needs: Sequence[bool]) -> list[Tensor | None]:
    """Gradients of one layer's arguments as tensors of their shape, dtype and device; None where none is needed."""
    g = layer_gradients
    own = [getattr(g.layer, name, None) for name in LIFLayer._fields]
    return [
        x.reshape(y.shape).to(y) if need and x is not None and y is not None else None
        for x, y, need in zip((*own, g.v, g.i, g.a, g.h), like, needs, strict=True)
    ]
