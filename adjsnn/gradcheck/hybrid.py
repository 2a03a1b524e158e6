"""What is checked of a HybridSystem."""

from torch import Tensor

from adjsnn.adjoints import BPTT
from adjsnn.errors import ConfigurationError
from adjsnn.gradcheck.probe import Gradients, Probe
from adjsnn.hybrid.adjoint import HybridChoice
from adjsnn.hybrid.engine import needs_loops
from adjsnn.hybrid.forward import ForwardSensitivity
from adjsnn.hybrid.solution import HybridSolution
from adjsnn.hybrid.system import HybridSystem


class HybridProbe(Probe):
    """Of a HybridSystem, whose solution is smooth in its events; perturbed ones take the steps of the first."""

    system: HybridSystem

    def _initial(self, y0: Tensor | None) -> Tensor:
        batch = self.inputs.shape[1] if isinstance(self.inputs, Tensor) and self.inputs.dim() == 3 else 1
        y0 = self.system.initial_state(batch) if y0 is None else y0
        if not isinstance(y0, Tensor):
            raise ConfigurationError(f"y0 of type {type(y0).__name__}", "a tensor (B, D)", "torch.as_tensor(y0)")
        state = y0.detach().double().clone().requires_grad_()
        self.leaves["y0"] = state
        return state

    def _spikes(self, sol: HybridSolution) -> int:
        return int((sol.event_index >= 0).sum())

    def _note(self, sol: HybridSolution) -> None:
        if self.judged is None and sol.stats is not None:
            self.judged = BPTT(sol.stats.taken)

    def on_the_same_states(self, adjoint: HybridChoice | None) -> tuple[Gradients, Gradients]:
        known = BPTT() if needs_loops(self.system) is None else self.judged  # then torch cannot find the steps
        return self.gradients(adjoint)[2], self.gradients(known)[2]

    def by_forward_sensitivities(self) -> Gradients:
        return self.gradients(ForwardSensitivity())[2]

    def _branches(self, sol: HybridSolution) -> None:
        del sol
