"""What a solve of a HybridSystem returns; its face is that of a `ReadoutSolution` of `adjsnn.solutions`."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.hybrid.run import HybridStats
from adjsnn.kept import Recorded
from adjsnn.solutions import described, summed_errors
from adjsnn.untraced import untraced


@dataclass(frozen=True)
class HybridSolution(Recorded):
    """Solution of a HybridSystem.

    A copy by `copy.deepcopy` or `torch.save` holds the numbers without a gradient, which lies on the tape of the solve.

    Attributes:
        ts: the T+1 output times, ms.
        y: states at these times, (T+1, B, D); differentiable.
        readout: system.readout of these states, (T+1, B, C_out); differentiable.
        event_times: when guards fired, (B, E), ms, in order, padded with inf; differentiable.
        event_index: which, (B, E), padded with -1.
        stats: figures about the solve; None where torchdiffeq solved it.
    """

    ts: Float[Tensor, " T1"]
    y: Float[Tensor, "T1 B D"]
    readout: Float[Tensor, "T1 B *C"]
    event_times: Float[Tensor, "B E"]
    event_index: Int[Tensor, "B E"]
    stats: HybridStats | None

    __repr__ = described

    @property
    def t_end(self) -> float:
        """The last output time, ms."""
        return float(self.ts[-1])

    @untraced
    def squared_errors(self, target: Float[Tensor, "T1 B C"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Σ ‖o - o_d‖² and Σ ‖o_d‖² over the output times and the batch.

        Args:
            target: o_d at the times ts.

        Raises:
            ConfigurationError: target and readout differ in shape.
        """
        return summed_errors(self.readout, target)

    @property
    def final_state(self) -> Tensor:
        """State at the last time, (B, D), to go on from with `y0=...`."""
        return self.y[-1]
