"""What a gated network is solved for: everything that an adjoint runs on, checked at the door."""

from dataclasses import dataclass

from torch import Tensor

from adjsnn.bodies import Ran
from adjsnn.errors import ConfigurationError
from adjsnn.gated.engine import Engine
from adjsnn.gated.network import GatedState, GatedTensors
from adjsnn.gated.program import GatedTrajectory
from adjsnn.gated.solution import GatedSolution, Unread
from adjsnn.signals import Stream


@dataclass(frozen=True)
class GatedProblem:
    """A gated network and its trial.

    Attributes:
        engine: the program, and the bodies that run it.
        tensors: of the network, copies on the tape.
        inputs: u, (T, B, C_in), or a Stream of it.
        y0: initial state, each field (B, N).
        ts: the T+1 times, ms.
    """

    engine: Engine
    tensors: GatedTensors
    inputs: Tensor | Stream
    y0: GatedState
    ts: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(T, B)."""
        return len(self.ts) - 1, len(self.y0.v)

    def whole_inputs(self) -> Tensor:
        """u as one tensor.

        Raises:
            ConfigurationError: the inputs are a stream.
        """
        if isinstance(self.inputs, Stream):
            raise ConfigurationError(
                "a stream with an adjoint that holds the whole trajectory",
                "an adjoint that keeps checkpoints",
                'adjoint=adjsnn.DiscreteAdjoint(checkpoints="sqrt")',
            )
        return self.inputs

    def solution(self, trajectory: GatedTrajectory, ran: Ran, unread: Unread | None = None) -> GatedSolution:
        """The solution of a whole trajectory.

        Args:
            trajectory: of all steps.
            ran: what ran to find it.
            unread: zeros with the gradients of what is found when it is asked for; None where those are the states'.
        """
        return GatedSolution(
            ts=self.ts,
            readout=trajectory.readout,
            t_end=float(self.ts[-1]),
            _ran=ran,
            _tensors=self.tensors,
            _trajectory=trajectory,
            _u=self.whole_inputs().detach(),
            _unread=unread,
            _engine=self.engine,
        )
