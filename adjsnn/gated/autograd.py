"""Connects a gated program and a backward sweep through it to torch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from adjsnn.gated.cotangents import lost, tell_silence
from adjsnn.gated.engine import Engine, Sweep
from adjsnn.gated.network import GatedState, GatedTensors
from adjsnn.gated.problem import GatedProblem
from adjsnn.gated.program import Form, GatedTrajectory
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
    form = form_of(engine, tensors, problem.shape[0]) if start is exact else "whole"
    outputs = _Attached.apply(engine, start, form, tensors.names(), problem.whole_inputs(), *problem.y0, *tensors.flat())
    *trajectory, spent, v, fast, slow = outputs
    unread = Unread(spent, GatedState(v, fast, slow)) if start is exact else None
    return problem.solution(GatedTrajectory(*trajectory), engine.ran(tensors), unread)


def form_of(engine: Engine, tensors: GatedTensors, n_steps: int) -> Form:
    """What is stored for the exact sweep back; of one step, both ends are all there is."""
    return "thin" if engine.lean(tensors) and n_steps > 1 else "whole"


class _Attached(FirstOrder):
    """Connects the forward program and a sweep to torch. Every tensor is an explicit argument."""

    @staticmethod
    def forward(ctx, engine, start, form, names, u, v0, a_fast0, a_slow0, *flat):
        tensors = _tensors(names, flat)
        trajectory, spent = engine.solve(tensors, u, GatedState(v0, a_fast0, a_slow0), form)
        ctx.engine, ctx.start, ctx.names = engine, start, names
        ctx.y0 = layouts_of(v0, a_fast0, a_slow0)
        ctx.save_for_backward(u, *flat, *trajectory.flat())
        ctx.mark_non_differentiable(trajectory.current, trajectory.crossings)
        if trajectory.thin:
            ctx.mark_non_differentiable(trajectory.v, trajectory.a_fast, trajectory.a_slow)
        ctx.set_materialize_grads(False)
        # Zeros with the gradients of what is found when it is asked for, the states of a thin trajectory; being zero they take
        # no memory.
        states = (v0.new_zeros(()).expand(len(u) + 1, *v0.shape) for _ in range(3))
        return *trajectory.flat(), spent, *states

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
    for_sweep = (c_readout, *(of_unread if trajectory.thin else (c_v, c_fast, c_slow)))
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
    tell_silence(lambda: _crossings(ctx.engine, tensors, trajectory), (*gradients.values(), d_u))
    tell_where(ctx, where)
    d_y0 = (g if needed else None for g, needed in zip(d_y0, needs_y0, strict=True))
    of_arguments = (d_u, *d_y0, *(gradients.get(name) for name in names))
    return None, None, None, None, *laid_out(of_arguments, (u, *ctx.y0, *tensors.flat()))


def _crossings(engine: Engine, tensors: GatedTensors, trajectory: GatedTrajectory) -> Tensor:
    return engine.again(tensors).voltages(trajectory)[1] if trajectory.thin else trajectory.crossings


def _sizes(trajectory: GatedTrajectory) -> tuple[int, int, int]:
    n_steps, batch, n_hidden = trajectory.current.shape
    return n_steps, batch, n_hidden


def _tensors(names: tuple[str, ...], flat: tuple[Tensor, ...] | list[Tensor]) -> GatedTensors:
    w_in, w_rec, bias, w_out, tau_fast, tau_slow, *constants = flat
    return GatedTensors(w_in, w_rec, bias, w_out, tau_fast, tau_slow, dict(zip(names[6:], constants, strict=True)))
