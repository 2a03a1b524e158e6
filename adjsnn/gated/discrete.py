"""What the choices that several families take are for gated networks: the discrete adjoint, stored or with checkpoints, and
backpropagation through time."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adjsnn.adjoints import BPTT, DiscreteAdjoint
from adjsnn.bodies import Ran
from adjsnn.errors import ConfigurationError
from adjsnn.gated.autograd import attach, form_of
from adjsnn.gated.network import GatedState
from adjsnn.gated.problem import GatedProblem
from adjsnn.gated.program import bytes_of
from adjsnn.gated.segmented import Inputs, Units, segmented, slots_within
from adjsnn.gated.solution import CheckpointedSolution, GatedSolution
from adjsnn.numerics.checkpoints import slots_for
from adjsnn.numerics.memory import fresh
from adjsnn.signals import Stream

Choose = Callable[[Units], int]  # the number of kept states, given the units


@dataclass(frozen=True)
class GatedDiscrete:
    """The sweeps of `euler_adjoint` and `runge_kutta_adjoint` or their compiled loops, with the checkpoints of a choice."""

    choice: DiscreteAdjoint

    def run_gated(self, problem: GatedProblem) -> GatedSolution | CheckpointedSolution:
        choose = _kept_states(self.choice, problem)
        return attach(problem) if choose is None else _with_checkpoints(problem, choose)


@dataclass(frozen=True)
class GatedBPTT:
    """The program on torch's tape."""

    choice: BPTT

    def __post_init__(self) -> None:
        if self.choice.steps is not None:
            raise ConfigurationError(
                f"adjoint={self.choice!r} for a gated network",
                "BPTT(): its steps are those of the method",
                "adjoint=adjsnn.BPTT(), or adjsnn.ChargeForm(net) for adaptive steps",
            )

    def run_gated(self, problem: GatedProblem) -> GatedSolution:
        trajectory = problem.engine.program.unroll(problem.tensors, problem.whole_inputs(), problem.y0)
        return problem.solution(trajectory, Ran("plain", "BPTT runs on torch's tape"))


def _kept_states(choice: DiscreteAdjoint, problem: GatedProblem) -> Choose | None:
    """How to choose the number of kept states; None where the whole trajectory is to be stored."""
    n_steps, batch = problem.shape
    if choice.checkpoints is not None:
        return lambda units: min(slots_for(choice.checkpoints, n_steps), units.count)
    if choice.memory_mb is None:
        return None
    memory_mb, tensors = float(choice.memory_mb), problem.tensors
    unit = problem.engine.unit_length(tensors, n_steps, batch)
    trajectory = bytes_of(tensors, problem.shape, form_of(problem.engine, tensors, n_steps), unit)
    if trajectory <= memory_mb * 1e6 and not isinstance(problem.inputs, Stream):
        return None
    return lambda units: slots_within(memory_mb, units)


def _with_checkpoints(problem: GatedProblem, choose: Choose) -> CheckpointedSolution:
    engine, tensors, inputs = problem.engine, problem.tensors, problem.inputs
    if isinstance(inputs, Stream):
        u, read = None, _reader(inputs, tensors.w_rec.detach())
    else:
        u, read = inputs, _slices(inputs.detach())
    result, record = segmented(engine, tensors, u, read, problem.shape, problem.y0, choose)
    assert record.counts is not None
    return CheckpointedSolution(
        ts=problem.ts,
        readout=result.readout,
        final_state=GatedState(result.v, result.a_fast, result.a_slow),
        spike_charge=result.charge,
        spike_counts=record.counts.clone(),
        t_end=float(problem.ts[-1]),
        _record=record,
        _ran=engine.ran(tensors),
    )


def _slices(u: Tensor) -> Inputs:
    return lambda start, stop: u[start:stop]


def _reader(stream: Stream, like: Tensor) -> Inputs:
    """Steps of a stream in the dtype and on the device of `like`, refused if they are not the same each time."""
    seen: dict[tuple[int, int], int] = {}

    def read(start: int, stop: int) -> Tensor:
        u = stream.read(start, stop, like)
        checksum = _checksum(u)
        if seen.setdefault((start, stop), checksum) != checksum:
            raise ConfigurationError(
                f"a stream that gives other numbers for steps {start} to {stop} than in the forward pass",
                "the same for the same steps, however often it is asked",
                "a file, an array that stays as it is, or noise that is seeded by its step",
            )
        return fresh(tuple(u.shape), u, place=start * u[0].numel()).copy_(u)

    return read


def _checksum(u: Tensor) -> int:
    """Sum of the bits of u as whole numbers: unequal for inputs that differ, but for a coincidence."""
    bits = u.view({4: torch.int32, 8: torch.int64}[u.element_size()])
    return int(bits.numpy().sum(dtype=np.int64)) if u.device.type == "cpu" else int(bits.sum())
