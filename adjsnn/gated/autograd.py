"""Connects a gated program and a backward sweep through it to torch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from adjsnn.gated.cotangents import lost, tell_silence
from adjsnn.gated.engine import Engine, Sweep
from adjsnn.gated.network import GatedState, GatedTensors
from adjsnn.gated.problem import GatedProblem
from adjsnn.gated.program import GatedTrajectory
from adjsnn.gated.solution import GatedSolution, Unread
from adjsnn.numerics.first_order import FirstOrder, first_order, laid_out, layouts_of, tell_where

# A sweep from (engine, tensors, shape, wanted, last), the last three as of `Body.sweep` in `adjsnn.gated.engine`.
Start = Callable[[Engine, GatedTensors, tuple[int, int, int], frozenset[str], Sequence[Tensor | None]], Sweep]


def exact(
    engine: Engine,
    tensors: GatedTensors,
    shape: tuple[int, int, int],
    wanted: frozenset[str],
    last: Sequence[Tensor | None],
    c_charge: Tensor | None = None,
) -> Sweep:
    """The sweep of the discrete adjoint, by the body that runs backward."""
    return engine.body(tensors, "backward").sweep(shape, wanted, last, c_charge)


def attach(problem: GatedProblem, start: Start = exact) -> GatedSolution:
    """The solution by the engine, stored whole; gradients of its states and readout run the sweep that `start` gives.

    Raises:
        ConfigurationError: the inputs are a stream.
    """
    engine, tensors = problem.engine, problem.tensors
    lean = start is exact and engine.lean(tensors) and problem.shape[0] > 1  # of one step, both ends are all there is
    outputs = _Attached.apply(engine, start, lean, tensors.names(), problem.whole_inputs(), *problem.y0, *tensors.flat())
    *trajectory, spent, fast, slow = outputs
    unread = Unread(spent, (fast, slow)) if start is exact else None
    return problem.solution(GatedTrajectory(*trajectory), engine.ran(tensors), unread)


class _Attached(FirstOrder):
    """Connects the forward program and a sweep to torch. Every tensor is an explicit argument."""

    @staticmethod
    def forward(ctx, engine, start, lean, names, u, v0, a_fast0, a_slow0, *flat):
        tensors = _tensors(names, flat)
        trajectory = engine.solve(tensors, u, GatedState(v0, a_fast0, a_slow0), lean)
        ctx.engine, ctx.start, ctx.lean, ctx.names = engine, start, lean, names
        ctx.y0 = layouts_of(v0, a_fast0, a_slow0)
        ctx.save_for_backward(u, *flat, *trajectory.flat())
        ctx.mark_non_differentiable(trajectory.current, trajectory.crossings)
        if lean:
            ctx.mark_non_differentiable(trajectory.a_fast, trajectory.a_slow)
        ctx.set_materialize_grads(False)
        # Zeros with the gradients of what is found when it is asked for: Σ|q|, and the synapses of a lean trajectory, which
        # take no memory for being zero.
        activities = (v0.new_zeros(()).expand(trajectory.v.shape) for _ in range(2))
        return *trajectory.flat(), torch.zeros_like(v0), *activities

    @staticmethod
    def backward(ctx, *grad_outputs):
        return _backward(ctx, *grad_outputs)


@first_order
def _backward(ctx, *cotangents):
    names = ctx.names
    u, *rest = ctx.saved_tensors
    tensors = _tensors(names, rest[: len(names)])
    trajectory = GatedTrajectory(*rest[len(names) :])
    needs_u, *needs_y0 = ctx.needs_input_grad[4:8]
    wanted = {name for name, needed in zip(names, ctx.needs_input_grad[8:], strict=True) if needed}
    if needs_u:
        wanted.add("u")
    c_v, c_fast, c_slow, c_readout, _, _, c_charge, *of_unread = cotangents
    for_sweep = (c_readout, c_v, *(of_unread if ctx.lean else (c_fast, c_slow)))
    last = tuple(None if x is None else x[-1] for x in for_sweep)
    charge = {} if c_charge is None else {"c_charge": c_charge}

    def swept(names: set[str], d_u: Tensor | None) -> Sweep:
        sweep = ctx.start(ctx.engine, tensors, _sizes(trajectory), frozenset(names), last, **charge)
        sweep.back(u, trajectory, for_sweep, d_u)
        return sweep

    def where() -> str:
        again = torch.zeros_like(u)
        swept({"u"}, again)
        return lost(again, ctx.engine.program.dt)

    d_u = torch.zeros_like(u) if needs_u else None
    gradients, d_y0 = swept(wanted, d_u).finish(trajectory.a_fast[0], trajectory.a_slow[0])
    tell_silence(trajectory.crossings, (*gradients.values(), d_u))
    tell_where(ctx, where)
    d_y0 = (g if needed else None for g, needed in zip(d_y0, needs_y0, strict=True))
    of_arguments = (d_u, *d_y0, *(gradients.get(name) for name in names))
    return None, None, None, None, *laid_out(of_arguments, (u, *ctx.y0, *tensors.flat()))


def _sizes(trajectory: GatedTrajectory) -> tuple[int, int, int]:
    n_steps, batch, n_hidden = trajectory.current.shape
    return n_steps, batch, n_hidden


def _tensors(names: tuple[str, ...], flat: tuple[Tensor, ...] | list[Tensor]) -> GatedTensors:
    w_in, w_rec, bias, w_out, tau_fast, tau_slow, *constants = flat
    return GatedTensors(w_in, w_rec, bias, w_out, tau_fast, tau_slow, dict(zip(names[6:], constants, strict=True)))
