"""Backpropagation through time of a system: its steps on torch's tape, by this library or by torchdiffeq."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adjsnn.adjoints import BPTT
from adjsnn.errors import ConfigurationError
from adjsnn.hybrid.engine import needs_loops
from adjsnn.hybrid.event_steps import event_rows, events_of, unroll_events
from adjsnn.hybrid.problem import HybridProblem
from adjsnn.hybrid.run import HybridStats, run_forward
from adjsnn.hybrid.solution import HybridSolution
from adjsnn.hybrid.steps import HybridProgram, Steps, check_finite, unroll
from adjsnn.hybrid.torchdiffeq import solve_by_torchdiffeq


@dataclass(frozen=True)
class HybridBPTT:
    """The program on torch's tape, on the steps of a choice where it has some."""

    choice: BPTT

    def run_hybrid(self, problem: HybridProblem) -> HybridSolution:
        program, _ = problem.examine(tape=True)
        return problem.solution(*_unrolled(program, problem.y0, problem.u, self.choice.steps))

    def run_torchdiffeq(self, problem: HybridProblem, method: str) -> HybridSolution:
        program, _ = problem.examine(tape=True)
        y = solve_by_torchdiffeq(program, problem.y0, problem.u, method)
        check_finite(y.detach(), program.ts)
        return problem.solution(y)


def _unrolled(
    program: HybridProgram, y0: Tensor, u: Tensor | None, known: Steps | None
) -> tuple[Tensor, Tensor, Tensor, HybridStats]:
    """States, event times and guards, and figures. Adaptive steps are found first, so that their ends are constants, events
    excepted."""
    if known is not None:
        if known.times.shape[1] != len(y0) or len(known.rows) != len(program.ts):
            raise ConfigurationError(
                f"BPTT(steps) of {known.times.shape[1]} samples and {len(known.rows)} output times",
                f"the steps of a solution with {len(y0)} samples and {len(program.ts)} output times",
                "adjoint=BPTT()",
            )
        if known.packets is not None and needs_loops(program.system) is None:
            raise ConfigurationError(
                "BPTT(steps) in which packets of synapses arrive, for a system without",
                "steps of a solution of the same system",
                "adjoint=BPTT()",
            )
        steps = known
        rejected, slowest = torch.zeros_like(steps.accepted), None
    elif program.lengths is not None:
        steps = program.fixed_steps(len(y0))
        rejected, slowest = torch.zeros_like(steps.accepted), None
    else:
        run = run_forward(program, y0, u)
        # The ends of steps are constants, of which forward differentiation is told here; without a tape it goes on.
        steps = replace(run.steps, times=run.steps.times.detach(), lengths=run.steps.lengths.detach())
        rejected, slowest = run.rejected, run.slowest
    times, index = events_of(steps, y0)
    if steps.event is None:
        y = unroll(program, steps, y0, u)
    else:
        y, ends = unroll_events(program, steps, y0, u, anew=known is not None)
        times = torch.where(index >= 0, ends.gather(0, event_rows(steps.event)[0]).T, float("inf"))
    check_finite(y.detach(), program.ts)
    return y, times, index, HybridStats(steps.accepted.clone(), rejected, 0, 0, slowest, steps)
