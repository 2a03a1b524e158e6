"""What carries a cotangent back through a LIF network: the contract of every adjoint and learning rule, and the exact one.

A new one is a class with `run_lif`, in a file of its own. One with a backward sweep of its own hands it to
`adjsnn.lif.autograd.attach`; one that needs none forms its solution from results of layers with `LIFProblem.solution`; one that
needs a grid solves by `adjsnn.lif.clocked_problem.solve_clocked`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from adjsnn.adjoints import taken_as
from adjsnn.errors import ConfigurationError
from adjsnn.lif.autograd import attach
from adjsnn.lif.clocked_solution import ClockedSolution
from adjsnn.lif.problem import LIFProblem
from adjsnn.lif.solution import LIFSolution

COMMON: dict[type, Callable[[Any], Any]] = {}  # of the choices that several families take, none


@runtime_checkable
class LIFAdjoint(Protocol):
    """What can be `adjoint=` for a LIF network."""

    def run_lif(self, problem: LIFProblem) -> LIFSolution:
        """Solve the problem; gradients of the solution's tensors reach the network's, the input spike times, currents and y0.

        Args:
            problem: checked, its tensors copies on the tape.
        """
        ...


@runtime_checkable
class ClockedAdjoint(Protocol):
    """What solves a LIF network in steps of dt, a learning rule.

    Attributes:
        clocked: True. One that also has `adaptive`, True, is given layers with spike-triggered currents and moving thresholds.
    """

    @property
    def clocked(self) -> bool: ...

    def run_lif(self, problem: LIFProblem) -> ClockedSolution:
        """As of a LIFAdjoint; `problem.dt` may be None still."""
        ...


@dataclass(frozen=True)
class EventAdjoint:
    """Exact gradient of the true cost, to rounding: the costate jumps at events and is in closed form between them.

    What is stored are the spikes, with the current at each; the cost is proportional to their number. Equations (2.5)-(2.10),
    of generalised layers (6.4).
    """

    generalised: ClassVar[bool] = True

    def run_lif(self, problem: LIFProblem) -> LIFSolution:
        return attach(problem)


def has_clock(adjoint: LIFAdjoint | ClockedAdjoint) -> bool:
    """Whether it solves in steps of dt."""
    return bool(getattr(adjoint, "clocked", False))


def lif_adjoint(adjoint: object) -> LIFAdjoint | ClockedAdjoint:
    """The adjoint that a caller chose.

    Raises:
        ConfigurationError: it does not run LIF networks.
    """
    chosen = taken_as(LIFAdjoint, adjoint, COMMON)
    if chosen is None:
        raise ConfigurationError(
            f"adjoint={adjoint!r} for a LIF network",
            "an adjoint instance, EventAdjoint(), a rule of adjsnn.rules, or an object with run_lif",
            "adjoint=adjsnn.EventAdjoint()",
        )
    return chosen
