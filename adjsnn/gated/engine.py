"""Which body runs a gated network: the contract that every body keeps, and the choice between them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from adjsnn.bodies import Ran
from adjsnn.gated.cpu import covered, loops
from adjsnn.gated.cuda import loops as cuda_loops
from adjsnn.gated.membranes import Membrane
from adjsnn.gated.network import GatedState, GatedTensors
from adjsnn.gated.plain import Plain
from adjsnn.gated.program import Form, GatedProgram, GatedTrajectory, Irregular, memory_for

# Which of the directions compiled loops take where they cover the network.
BOTH = ("forward", "backward")
KERNELS = {"auto": BOTH, "plain": (), "fused": BOTH, "cuda": BOTH, "backward": ("backward",)}


@runtime_checkable
class Sweep(Protocol):
    """The costate on its way back and the gradients gathered so far. Units of a trajectory are handed to `back` last first."""

    def back(self, u: Tensor, trajectory: GatedTrajectory, cotangents: tuple[Tensor | None, ...], d_u: Tensor | None) -> None:
        """Sweep through a unit.

        Args:
            u: its input, (T, B, C).
            trajectory: of the unit.
            cotangents: of readout, v, a_fast, a_slow; the rows of the unit's T times before each step are read.
            d_u: memory for the gradient of u, (T, B, C), or None.
        """
        ...

    def finish(self, a_fast: Tensor, a_slow: Tensor) -> tuple[dict[str, Tensor], Sequence[Tensor]]:
        """Gradients by name, and of the initial state v, a_fast, a_slow; a_fast and a_slow (B, N) are that state's."""
        ...


class Again(Protocol):
    """What finds the numbers again that `Body.fill` would have written."""

    def voltages(self, trajectory: GatedTrajectory) -> tuple[Tensor, Tensor]:
        """v, (T+1, B, N), and crossings, (T, B, N), of a thin trajectory."""
        ...

    def activities(self, first: Tensor, tau: Tensor, v: Tensor, crossings: Tensor) -> Tensor:
        """A synapse's activities, (T+1, B, N).

        Args:
            first: before the first step, (B, N).
            tau: its time constant.
            v: (T+1, B, N), from the beginning of a trial.
            crossings: (T, B, N), likewise.
        """
        ...


class Body(Protocol):
    """A way to compute one program over one network's tensors; all of them agree to rounding.

    Attributes:
        name: as in `kernels=`.
        carried: how many arrays (B, N) steps hand on beside the state.
    """

    name: str
    carried: int

    @property
    def again(self) -> Again | None:
        """Where the body takes lean and thin trajectories, forward and back: what finds again what they leave out.

        Back, the gradients of τ_f and τ_s are none of those that are asked for.
        """
        ...

    def unit_length(self, n_steps: int, batch: int) -> int:
        """Steps in a unit of checkpointing.

        Products and sums of a trajectory are taken block by block; those of a unit run on its own are the same numbers in the
        same order, because a unit is one block of the backward pass.
        """
        ...

    def carry(self, y0: GatedState) -> Any:
        """What the steps hand on beside the state, before the first one; in a form of the body's own."""
        ...

    def spent(self, carried: Any) -> Tensor:
        """Σ|q| of each neuron over the steps so far, (B, N), added up step after step; of what `fill` returned."""
        ...

    def fill(
        self, u: Tensor, trajectory: GatedTrajectory, carried: Any, n_steps: int, start: int, unit: int
    ) -> tuple[Irregular, Any]:
        """Take steps start … start + T - 1 of a trial of `n_steps`, from row 0 of the trajectory, into its memory.

        Args:
            u: (T, B, C).
            trajectory: of T steps; row 0 of v, a_fast and a_slow is given. A thin one is that of a whole trial.
            carried: from `carry` or an earlier `fill`; not modified.
            unit: steps in a unit of the backward pass, between which no product may reach.

        Returns:
            irregular steps to warn about, and a new `carried` from which the trial continues.

        Raises:
            IntegrationError: the state diverged or a reset did not end below the threshold.
        """
        ...

    def sweep(
        self, shape: tuple[int, int, int], wanted: frozenset[str], last: Sequence[Tensor | None], c_charge: Tensor | None = None
    ) -> Sweep:
        """A sweep back through a trajectory of the program.

        Args:
            shape: (T, B, N) of the whole trajectory.
            wanted: names of the tensors whose gradient is asked for, and "u".
            last: cotangents of readout, v, a_fast and a_slow at the last time, None where the loss has none.
            c_charge: cotangent of each neuron's Σ|q|, (B, N), where the loss depends on it.
        """
        ...


class Loops(NamedTuple):
    """Compiled loops for one kind of machine.

    Attributes:
        uncovered: what of a network's tensors they do not cover, or None; its membrane and gate are those that all loops know.
        body: the body for a program and a network's tensors.
    """

    uncovered: Callable[[Membrane, GatedTensors], str | None]
    body: Callable[[GatedProgram, GatedTensors], Body]


LOOPS = {"fused": Loops(covered.uncovered, loops.FusedGated), "cuda": Loops(cuda_loops.uncovered, cuda_loops.body)}


class Engine:
    """A program, and which body runs it.

    Args:
        program: what runs.
        kernels: as in `solve`.
    """

    def __init__(self, program: GatedProgram, kernels: str = "auto") -> None:
        self.program, self.kernels = program, kernels
        self._unlike = covered.unlike_the_loops(program.neuron, program.gate)

    def loops(self, tensors: GatedTensors) -> str:
        """Which loops run the network where they cover it: those that were asked for, else those for its device."""
        if self.kernels in LOOPS:
            return self.kernels
        return "cuda" if tensors.w_rec.is_cuda else "fused"

    def obstacle(self, tensors: GatedTensors) -> str | None:
        """Why the compiled loops cannot run this network, or None where they can."""
        return self._unlike or LOOPS[self.loops(tensors)].uncovered(self.program.neuron, tensors)

    def body(self, tensors: GatedTensors, direction: str) -> Body:
        """The body that runs in a direction, "forward" or "backward"."""
        compiled = direction in KERNELS[self.kernels] and self.obstacle(tensors) is None
        return (LOOPS[self.loops(tensors)].body if compiled else Plain)(self.program, tensors)

    def ran(self, tensors: GatedTensors) -> Ran:
        """Which body runs forward, and why."""
        asked = f'kernels="{self.kernels}"'
        if "forward" not in KERNELS[self.kernels]:
            return Ran(Plain.name, asked)
        why, name = self.obstacle(tensors), self.loops(tensors)
        reason = why or f"the {name} loops cover this network"
        return Ran(Plain.name if why else name, reason if self.kernels == "auto" else asked)

    def unit_length(self, tensors: GatedTensors, n_steps: int, batch: int) -> int:
        """Steps in a unit of checkpointing, a block of the backward pass."""
        return self.body(tensors, "backward").unit_length(n_steps, batch)

    def lean(self, tensors: GatedTensors) -> bool:
        """Whether lean and thin trajectories do: for the body, and since the gradients of τ_f and τ_s are not asked for."""
        if tensors.tau_fast.requires_grad or tensors.tau_slow.requires_grad or KERNELS[self.kernels] != BOTH:
            return False
        return self.body(tensors, "forward").again is not None  # the same body takes it back

    def again(self, tensors: GatedTensors) -> Again:
        """What finds again what lean and thin trajectories leave out."""
        found = self.body(tensors, "forward").again
        assert found is not None
        return found

    def solve(
        self, tensors: GatedTensors, u: Float[Tensor, "T B C"], y0: GatedState, form: Form = "whole"
    ) -> tuple[GatedTrajectory, Tensor]:
        """Forward solution into preallocated memory, and Σ|q| of each neuron, (B, N); without a tape."""
        unit, body = self.unit_length(tensors, len(u), u.shape[1]), self.body(tensors, "forward")
        trajectory = memory_for(tensors, u, form, unit=unit)
        set_out(trajectory, y0)
        irregular, carried = body.fill(u, trajectory, body.carry(y0), len(u), 0, unit)
        self.program.warn(irregular)
        return trajectory, body.spent(carried)


def set_out(trajectory: GatedTrajectory, y0: GatedState) -> None:
    """Write the state before the steps into row 0, from which `Body.fill` goes on."""
    for stored, first in zip((trajectory.v, trajectory.a_fast, trajectory.a_slow), y0, strict=True):
        stored[0] = first
