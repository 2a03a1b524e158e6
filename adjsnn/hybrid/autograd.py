"""Connects a forward run and a backward sweep to torch."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.errors import ConfigurationError, warn_of_silence
from adjsnn.hybrid.event_steps import event_rows, events_of
from adjsnn.hybrid.keep import Keep
from adjsnn.hybrid.problem import HybridProblem
from adjsnn.hybrid.refusals import first_to_fail
from adjsnn.hybrid.run import HybridStats, Stored, Sweep, columns, figures, run_forward
from adjsnn.hybrid.solution import HybridSolution
from adjsnn.hybrid.steps import Steps
from adjsnn.numerics.first_order import FirstOrder, first_order, laid_out, tell_where


def attach(problem: HybridProblem, sweep: Sweep, keep: Keep | None = None) -> HybridSolution:
    """The solution; gradients of its states and event times run `sweep`.

    Args:
        problem: what to solve.
        sweep: gradients from what is stored and the cotangents of the output states, (T+1, B, D).
        keep: which step states are stored, by default all.
    """
    stats: list[HybridStats] = []
    program, read = problem.examined
    known = read.form, read.strangers, read.names, read.pure
    y, times, index = _Attached.apply(program, known, sweep, keep, stats, problem.u, problem.y0, *read.tensors)
    return problem.solution(y, times, index, stats[0])


class _Attached(FirstOrder):
    """Connects a forward run and an adjoint to torch. Every tensor that the field depends on is an explicit argument."""

    @staticmethod
    def forward(ctx, program, known, sweep, keep, stats, u, y0, *tensors):
        # Other tensors of the same memory: `x.data = ...` gives x other memory, and torch does not call that a change.
        y0 = y0.detach()
        u, *tensors = (None if x is None else x.detach() for x in (u, *tensors))
        run = run_forward(program, y0, u, keep)
        stats.append(figures(run))
        ctx.program, ctx.known, ctx.sweep = program, known, sweep
        ctx.thinned, ctx.stats = run.thinned, stats[0]
        # Saving what the field reads, and what a solution shows, lets torch notice changes in place before the backward pass.
        ctx.save_for_backward(u, y0, run.kept, *columns(run.steps), *tensors)
        ctx.set_materialize_grads(False)
        times, index = events_of(run.steps, y0)
        ctx.mark_non_differentiable(index)
        return run.outputs, times, index

    @staticmethod
    def backward(ctx, *grad_outputs):
        return _backward(ctx, *grad_outputs)


@first_order
def _backward(ctx, cotangents, of_event_times, _):
    u, y0, kept, times, lengths, interval, output, rows, event, *tensors = ctx.saved_tensors
    # Of the tape itself where it is the output; a field that differentiates inside must not meet that.
    kept, steps = kept.detach(), Steps(times, lengths, interval, output, rows, event)
    form, strangers, names, pure = ctx.known
    if cotangents is None:
        cotangents = y0.new_zeros(len(rows), *y0.shape)
    needs_u, needs_y0, *needs = ctx.needs_input_grad[5:]
    fresh = leaves_of(tensors, [needed or n in strangers for n, needed in enumerate(needs)])
    chosen = {n: x for n, x in enumerate(fresh) if x is not None and x.requires_grad}
    of_times = None if of_event_times is None else by_step(steps, of_event_times)
    leaves = tuple(chosen.values())
    stored = Stored(ctx.program, steps, kept, ctx.thinned, u, y0, needs_u, leaves, form, fresh, ctx.stats, of_times, pure)
    with form.filled(fresh):
        gradients = first_to_fail(lambda count: ctx.sweep(_first(stored, count), cotangents), len(y0))
    of_chosen = dict(zip(chosen, gradients.leaves, strict=True))
    check_strangers(of_chosen, strangers, names)
    of_tensors = [of_chosen[n] if needed else None for n, needed in enumerate(needs)]
    arguments = (gradients.u, gradients.y0 if needs_y0 else None, *of_tensors)
    if steps.event is not None and (of_event_times is not None or bool(cotangents.any())):
        tell_silence(steps.event, arguments)
    tell_where(ctx, lambda: lost(gradients.y0))
    return None, None, None, None, None, *laid_out(arguments, (u, y0, *tensors))


def _first(stored: Stored, count: int) -> Stored:
    """The same with the events of the first samples alone, of which one may be refused."""
    steps = stored.steps
    if steps.event is None or count == steps.event.shape[1]:
        return stored
    counts = torch.arange(steps.event.shape[1], device=steps.event.device) < count
    return replace(stored, steps=replace(steps, event=torch.where(counts, steps.event, -1)))


def lost(d_y0: Float[Tensor, "B D"]) -> str:
    """Words on the samples whose costate was not finite at the start of the trial; none where they were."""
    samples = (~d_y0.isfinite().all(1)).nonzero()[:, 0].tolist()
    return f": the costate is not finite any more at the start of the trial, in samples {samples}" if samples else ""


def tell_silence(event: Int[Tensor, "K B"], gradients: Sequence[Tensor | None]) -> None:
    """Warn where no guard fired, and nothing that a loss asks a gradient for has one."""
    if bool((event >= 0).any()) or any(g is not None and bool(g.any()) for g in gradients):
        return
    remedy = "inputs, parameters or a y0 for which they fire, or a loss that also reads states"
    warn_of_silence("guards of a HybridSystem fired", "events", remedy)


def leaves_of(tensors: Sequence[Tensor | None], needs: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """The same numbers as leaves of tapes of their own."""
    return tuple(None if x is None else x.detach().requires_grad_(n) for x, n in zip(tensors, needs, strict=True))


def check_strangers(gradients: dict[int, Tensor], strangers: frozenset[int], names: tuple[str, ...]) -> None:
    """Raise ConfigurationError where something is found to have a gradient that would be missing."""
    for n in strangers & gradients.keys():
        if bool(gradients[n].any()):
            raise ConfigurationError(
                f"{names[n]}, an attribute that requires a gradient and is not registered, used first after the start",
                "such tensors used from the start, or parameters",
                f"registering {names[n]}, .detach(), or adjoint=BPTT()",
            )


def by_step(steps: Steps, of_event_times: Float[Tensor, "B E"]) -> Float[Tensor, "K B"] | None:
    """Cotangents of event times by the steps that end in the events."""
    if steps.event is None:
        return None
    rows, index = event_rows(steps.event)
    real = torch.where(index >= 0, of_event_times, 0.0)
    return real.new_zeros(steps.event.shape).scatter_add_(0, rows, real.T)
