"""Backpropagation through time with a surrogate for the derivative of a spike, equation (5.2)."""

from dataclasses import dataclass, field
from typing import ClassVar

from adjsnn.checks import flag, kind
from adjsnn.errors import ConfigurationError
from adjsnn.lif.clocked import RESETS, Reset
from adjsnn.lif.clocked_problem import solve_clocked
from adjsnn.lif.clocked_solution import ClockedSolution
from adjsnn.lif.problem import LIFProblem
from adjsnn.rules.stated import LAYER_ERROR, OTHERS, OWN, Stated
from adjsnn.rules.surrogates import FastSigmoid, Surrogate


@dataclass(frozen=True)
class SurrogateBPTT:
    """Backpropagation through the network on a clock (5.1), with σ′ in place of the derivative of a spike (5.2).

    A synapse must know the errors of all neurons at all later times. What it computes is the gradient of no loss.

    Args:
        surrogate: σ′.
        reset: "to" v_reset, or "by" v_th - v_reset, which keeps what a step overshot.
        through_reset: whether the gradient also goes through the reset; most codes cut it there.

    Raises:
        ConfigurationError: another kind of value.
    """

    surrogate: Surrogate = field(default_factory=FastSigmoid)
    reset: Reset = "to"
    through_reset: bool = False

    clocked = adaptive = True  # solves in steps of dt, and layers that adapt
    stated: ClassVar[Stated] = Stated(
        "that a spike has no derivative: σ′ stands in (5.2)",
        (OWN, LAYER_ERROR, OTHERS),
        "every step of every neuron, B T N",
        "B T (N + W)",
    )

    def __post_init__(self) -> None:
        kind("surrogate", self.surrogate, Surrogate)
        if self.reset not in RESETS:
            raise ConfigurationError(f"reset={self.reset!r}", f"one of {list(RESETS)}", 'reset="to"')
        object.__setattr__(self, "through_reset", flag("through_reset", self.through_reset))

    def run_lif(self, problem: LIFProblem) -> ClockedSolution:
        """Solve on the clock; gradients are the rule's."""
        return solve_clocked(problem, self.surrogate, self.reset, self.through_reset)
