"""What carries a cotangent back through a system that a user wrote: the contract of every adjoint and learning rule.

A new one is a class with `run_hybrid`, in a file of its own. One with a backward sweep of its own hands it to
`adjsnn.hybrid.autograd.attach`; one that needs none forms its solution from tensors with `HybridProblem.solution`.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from adjsnn.adjoints import BPTT, DiscreteAdjoint, taken_as
from adjsnn.errors import ConfigurationError
from adjsnn.hybrid.autograd import attach
from adjsnn.hybrid.bptt import HybridBPTT
from adjsnn.hybrid.discrete import discrete_sweep
from adjsnn.hybrid.discrete_events import hybrid_sweep
from adjsnn.hybrid.engine import choose
from adjsnn.hybrid.keep import Keep
from adjsnn.hybrid.problem import HybridProblem
from adjsnn.hybrid.solution import HybridSolution


@runtime_checkable
class HybridAdjoint(Protocol):
    """What can be `adjoint=` for a HybridSystem."""

    def run_hybrid(self, problem: HybridProblem) -> HybridSolution:
        """Solve the problem; gradients of the solution's tensors reach the system's parameters, the inputs and y0.

        Args:
            problem: checked; `problem.examined` is what runs.
        """
        ...


@runtime_checkable
class TorchdiffeqAdjoint(Protocol):
    """What can be `adjoint=` where torchdiffeq takes the steps."""

    def run_torchdiffeq(self, problem: HybridProblem, method: str) -> HybridSolution:
        """The same by torchdiffeq's method of that name."""
        ...


@dataclass(frozen=True)
class HybridDiscrete:
    """The sweeps of `discrete` and `discrete_events` with the checkpoints of a choice, or a system's own compiled loops."""

    choice: DiscreteAdjoint

    def run_hybrid(self, problem: HybridProblem) -> HybridSolution:
        body, ran = choose(problem, self.choice)
        if body is not None:
            return body.run(problem, self.choice, ran)
        solution = self._plain(problem)
        if solution.stats is not None:
            solution.stats.kernel_reason = ran.reason
        return solution

    def _plain(self, problem: HybridProblem) -> HybridSolution:
        sweep = hybrid_sweep if problem.examined.program.guards else discrete_sweep
        return attach(problem, sweep, Keep(self.choice.checkpoints, self.choice.memory_mb))


COMMON = {DiscreteAdjoint: HybridDiscrete, BPTT: HybridBPTT}
HybridChoice = HybridAdjoint | TorchdiffeqAdjoint | DiscreteAdjoint | BPTT


def hybrid_adjoint(adjoint: object) -> HybridAdjoint:
    """The adjoint that a caller chose.

    Raises:
        ConfigurationError: it does not run systems that a user wrote.
    """
    chosen = taken_as(HybridAdjoint, adjoint, COMMON)
    if chosen is None:
        raise ConfigurationError(
            f"adjoint={adjoint!r} for a HybridSystem",
            "an adjoint instance of this library, or an object with run_hybrid",
            "adjoint=adjsnn.DiscreteAdjoint()",
        )
    return chosen


def torchdiffeq_adjoint(adjoint: object) -> TorchdiffeqAdjoint:
    """The adjoint that a caller chose where torchdiffeq takes the steps.

    Raises:
        ConfigurationError: it does not run with torchdiffeq.
    """
    chosen = taken_as(TorchdiffeqAdjoint, adjoint, COMMON)
    if not isinstance(chosen, TorchdiffeqAdjoint):
        raise ConfigurationError(
            f"adjoint={adjoint!r} with a method of torchdiffeq", "BPTT() or Backsolve(), which it has", "adjoint=None"
        )
    return chosen
