"""Discrete adjoint: the costate of the numerical method itself, swept backward through the stored step states."""

from dataclasses import dataclass

import torch
from torch import Tensor

from adjsnn.adjoints.checkpoints import slots_for
from adjsnn.adjoints.first_order import FirstOrder, first_order, laid_out, layouts_of
from adjsnn.adjoints.gated_sweep import gated_sweep
from adjsnn.checks import Count, Number, count, positive
from adjsnn.errors import ConfigurationError
from adjsnn.integrate.gated_program import GatedProgram, GatedTrajectory
from adjsnn.integrate.smooth import Steps
from adjsnn.systems.gated_network import GatedState, GatedTensors


@dataclass(frozen=True)
class DiscreteAdjoint:
    """Exact gradient of the computed cost, to rounding, by the hand-written adjoint (4.1) of the program that ran.

    The result equals backpropagation through time without its tape. With checkpoints only some states are kept, and steps are
    run again on the way back, by the binomial plan (4.4); the gradient is the same bits.

    Args:
        checkpoints: None, every step state is stored; "sqrt", at most √n states for n steps of a gated network and 2√n for a
            system of one's own; or the number of states that there may be at a time.
        memory_mb: instead, the memory to stay within, MB: everything is stored where it fits, else as many states as fit are
            kept. The times of adaptive steps, whose number is not known, come on top.

    Raises:
        ConfigurationError: another kind of value, or both.
    """

    checkpoints: str | Count | None = None
    memory_mb: Number | None = None

    def __post_init__(self) -> None:
        if self.checkpoints is not None:
            slots_for(self.checkpoints, 1)
            if not isinstance(self.checkpoints, str):
                object.__setattr__(self, "checkpoints", count("checkpoints", self.checkpoints))
        if self.memory_mb is None:
            return
        if self.checkpoints is not None:
            raise ConfigurationError(
                f"checkpoints={self.checkpoints!r} with memory_mb={self.memory_mb!r}", "one of the two", "memory_mb=200.0"
            )
        memory = positive("memory_mb", self.memory_mb, "a positive number of MB", "memory_mb=200.0")
        object.__setattr__(self, "memory_mb", memory)

    def run(self, program: GatedProgram, tensors: GatedTensors, u: Tensor, y0: GatedState) -> GatedTrajectory:
        """Solve forward; gradients of the trajectory's states and readout run the adjoint."""
        outputs = _DiscreteGatedEuler.apply(program, tensors.names(), u, *y0, *tensors.flat())
        return GatedTrajectory(*outputs)


@dataclass(frozen=True)
class BPTT:
    """Backpropagation through time: the same program, unrolled on torch's tape. The baseline and the judge.

    Memory: every intermediate result of every step. The only adjoint that has second derivatives (create_graph=True).

    Args:
        steps: for systems of one's own, steps to take instead of finding them: the `stats.taken` of another solution. Events
            happen in the same steps and are located anew.
    """

    steps: Steps | None = None

    def run(self, program: GatedProgram, tensors: GatedTensors, u: Tensor, y0: GatedState) -> GatedTrajectory:
        """Solve forward as plain tensor operations."""
        return program.unroll(tensors, u, y0)


class _DiscreteGatedEuler(FirstOrder):
    """Connects the forward program and its adjoint to torch. Every tensor is an explicit argument."""

    @staticmethod
    def forward(ctx, program, names, u, v0, a_fast0, a_slow0, *flat):
        tensors = _tensors(names, flat)
        trajectory = program.solve(tensors, u, GatedState(v0, a_fast0, a_slow0))
        ctx.program, ctx.names = program, names
        ctx.y0 = layouts_of(v0, a_fast0, a_slow0)
        ctx.save_for_backward(u, *flat, *trajectory.flat())
        ctx.mark_non_differentiable(trajectory.current, trajectory.crossings)
        ctx.set_materialize_grads(False)
        return trajectory.flat()

    @staticmethod
    def backward(ctx, *grad_outputs):
        return _backward(ctx, *grad_outputs)


@first_order
def _backward(ctx, *cotangents):
    names = ctx.names
    u, *rest = ctx.saved_tensors
    tensors = _tensors(names, rest[: len(names)])
    trajectory = GatedTrajectory(*rest[len(names) :])
    needs_u, *needs_y0 = ctx.needs_input_grad[2:6]
    wanted = {name for name, needed in zip(names, ctx.needs_input_grad[6:], strict=True) if needed}
    if needs_u:
        wanted.add("u")
    c_v, c_fast, c_slow, c_readout = cotangents[:4]
    rows = (c_readout, c_v, c_fast, c_slow)
    last = tuple(None if x is None else x[-1] for x in rows)
    sweep = gated_sweep(ctx.program, tensors, _sizes(trajectory), frozenset(wanted), last)
    d_u = torch.zeros_like(u) if needs_u else None
    sweep.back(u, trajectory, rows, d_u)
    gradients, d_y0 = sweep.finish(trajectory.a_fast[0], trajectory.a_slow[0])
    d_y0 = (g if needed else None for g, needed in zip(d_y0, needs_y0, strict=True))
    found = (d_u, *d_y0, *(gradients.get(name) for name in names))
    return None, None, *laid_out(found, (u, *ctx.y0, *tensors.flat()))


def _sizes(trajectory: GatedTrajectory) -> tuple[int, int, int]:
    n_steps, batch, n_hidden = trajectory.current.shape
    return n_steps, batch, n_hidden


def _tensors(names: tuple[str, ...], flat: tuple[Tensor, ...] | list[Tensor]) -> GatedTensors:
    w_in, w_rec, bias, w_out, tau_fast, tau_slow, *constants = flat
    return GatedTensors(w_in, w_rec, bias, w_out, tau_fast, tau_slow, dict(zip(names[6:], constants, strict=True)))
