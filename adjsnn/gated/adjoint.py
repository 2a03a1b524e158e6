"""What carries a cotangent back through a gated network: the contract of every adjoint and learning rule.

A new one is a class with `run_gated`, in a file of its own. One with a backward sweep of its own hands it to
`adjsnn.gated.autograd.attach`; one that needs none forms its solution from tensors with `GatedProblem.solution`.
"""

from typing import Protocol, runtime_checkable

from adjsnn.adjoints import BPTT, DiscreteAdjoint, taken_as
from adjsnn.errors import ConfigurationError
from adjsnn.gated.discrete import GatedBPTT, GatedDiscrete
from adjsnn.gated.problem import GatedProblem
from adjsnn.gated.solution import CheckpointedSolution, GatedSolution

COMMON = {DiscreteAdjoint: GatedDiscrete, BPTT: GatedBPTT}


@runtime_checkable
class GatedAdjoint(Protocol):
    """What can be `adjoint=` for a gated network."""

    def run_gated(self, problem: GatedProblem) -> GatedSolution | CheckpointedSolution:
        """Solve the problem; gradients of the solution's tensors reach the network's, the inputs and y0.

        Args:
            problem: checked, its tensors copies on the tape.
        """
        ...


GatedChoice = GatedAdjoint | DiscreteAdjoint | BPTT


def gated_adjoint(adjoint: object) -> GatedAdjoint:
    """The adjoint that a caller chose.

    Raises:
        ConfigurationError: it does not run gated networks.
    """
    chosen = taken_as(GatedAdjoint, adjoint, COMMON)
    if chosen is None:
        raise ConfigurationError(
            f"adjoint={adjoint!r} for a gated network",
            "an adjoint instance, DiscreteAdjoint() or BPTT(), or an object with run_gated",
            "adjoint=adjsnn.DiscreteAdjoint(), or adjsnn.ChargeForm(net) for the other adjoints",
        )
    return chosen
