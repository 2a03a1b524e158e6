"""Connects the layers' solves and a backward pass through them to torch."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from adjsnn.errors import warn_of_silence
from adjsnn.lif.layer import LayerCotangents, LayerGradients, LayerRun
from adjsnn.lif.problem import LIFProblem
from adjsnn.lif.run import LayerResult, LIFTrial
from adjsnn.lif.solution import LIFSolution
from adjsnn.lif.structure import AdaptiveState, AnyState, LIFLayer, four
from adjsnn.numerics.first_order import FirstOrder, differentiated, first_order, laid_out

STATES = AdaptiveState._fields
NAMES = (*LIFLayer._fields, *STATES)  # of what a layer may have among the arguments
OUT = 1 + len(STATES)  # tensors of one layer among the results: times and states
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
    layers = [_Tensors(layer, state) for layer, state in zip(problem.layers, problem.y0, strict=True)]
    flat = [x for own in layers for x in own.there.values()]
    drive = None if problem.drive is None else problem.drive.values
    results = _Attached.apply(problem, back, runs, layers, problem.time, drive, *flat)
    rows = [results[k : k + OUT] for k in range(0, len(results), OUT)]
    return problem.solution(
        [LayerResult(row[0], row[1], row[2], run, row[3], row[4]) for row, run in zip(rows, runs, strict=True)]
    )


class _Tensors:
    """A layer and its state at time 0, copies that belong to the solve.

    Attributes:
        there: by name, those that are differentiated by.
    """

    def __init__(self, layer: LIFLayer, state: AnyState) -> None:
        self.layer, self.state = layer, state
        named = zip(NAMES, (*layer, *four(state)), strict=True)
        self.there = {name: x for name, x in named if x is not None and differentiated(x)}


class _Attached(FirstOrder):
    """Connects the layers' solves and their backward passes to torch. Every tensor with a gradient is an explicit argument."""

    @staticmethod
    def forward(ctx, problem, back, runs, layers, time, drive, *flat):
        trial, inputs = problem.trial, problem.inputs
        outputs = []
        for k, own in enumerate(layers):
            layer, state = own.layer, own.state
            run = trial.body.forward(layer, inputs, state, trial.of_layer(k, drive))
            # Users change results in place: of what they are given, the run keeps only a copy of the times.
            outputs.append(run.spikes.time.to(layer.w_in, copy=True))
            outputs += [None if x is None else x.to(layer.w_in) for x in four(run.states)]
            runs.append(run._replace(states=None))
            inputs = run.spikes
        ctx.trial, ctx.inputs, ctx.back, ctx.runs, ctx.layers = trial, problem.inputs, back, tuple(runs), layers
        ctx.save_for_backward(time, drive, *flat)
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    def backward(ctx, *cotangents):
        return _backward(ctx, *cotangents)


@first_order
def _backward(ctx, *cotangents):
    time, drive, *flat = ctx.saved_tensors  # refused a second time, and where one was changed
    trial, layers = ctx.trial, ctx.layers
    _, _, _, _, needs_time, needs_drive, *needs = ctx.needs_input_grad
    need = iter(needs)
    wanted = [frozenset([name for name in own.there if next(need)]) for own in layers]
    _tell_silence(trial, cotangents)
    gradients: list[list[Tensor | None]] = [[None] * len(own.there) for own in layers]
    # The input spikes and the drive reach the first layer.
    lowest = 0 if needs_time or needs_drive else next((k for k, names in enumerate(wanted) if names), len(layers))
    above: Tensor | None = None
    d_drive: Tensor | None = None
    for k in range(len(layers) - 1, lowest - 1, -1):
        own, names = layers[k], wanted[k]
        run, given = ctx.runs[k], cotangents[OUT * k : OUT * k + OUT]
        if above is None and all(c is None for c in given):
            continue
        inputs = ctx.runs[k - 1].spikes if k else ctx.inputs
        at_spikes = _sum(above, given[0], run.spikes.time)
        own_cotangents = LayerCotangents(at_spikes, *given[1:])
        found = ctx.back(trial, own.layer, inputs, own.state, trial.of_layer(k, drive), run, own_cotangents, names)
        if k == 0 and needs_drive:
            d_drive = found.drive.to(drive)
        gradients[k] = [_gradient(found, name, like) if name in names else None for name, like in own.there.items()]
        above = found.time
    d_time = above.to(time) if needs_time and above is not None else None
    return None, None, None, None, *laid_out((d_time, d_drive, *itertools.chain(*gradients)), (time, drive, *flat))


def _sum(x: Tensor | None, y: Tensor | None, like: Tensor) -> Tensor:
    """What there is of two cotangents together, in the dtype of `like`."""
    if x is None or y is None:
        one = y if x is None else x
        return torch.zeros_like(like) if one is None else one.to(like)
    return x + y


def _tell_silence(trial: LIFTrial, cotangents: Sequence[Tensor | None]) -> None:
    """Warn where a loss reads spikes of a layer that has none, and no voltages that have a gradient without: those of neurons
    that receive spikes."""
    spikes = {k: c.shape[0] for k, c in enumerate(cotangents[::OUT]) if c is not None}  # of the layers that are read
    if not spikes or spikes[max(spikes)] or any(k == 0 or spikes.get(k - 1) for k in trial.voltages_read):
        return
    if all(c is None for k, c in enumerate(cotangents) if k % OUT):
        warn_of_silence(f"layer {max(spikes)} of a LIF network spiked")


def _gradient(found: LayerGradients, name: str, like: Tensor) -> Tensor | None:
    """That of one of a layer's arguments as a tensor of its shape, dtype and device."""
    x = getattr(found if name in STATES else found.layer, name, None)
    return None if x is None else (x if x.shape == like.shape else x.reshape(like.shape)).to(like)
