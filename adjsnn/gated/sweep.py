"""The backward sweep of a gated program: the fused loops where they cover the network, else plain operations."""

from collections.abc import Sequence

from torch import Tensor

from adjsnn.gated.cpu.loops import FusedSweep
from adjsnn.gated.euler import GatedEuler
from adjsnn.gated.euler_adjoint import EulerSweep
from adjsnn.gated.network import GatedTensors
from adjsnn.gated.program import GatedProgram
from adjsnn.gated.runge_kutta import GatedRungeKutta
from adjsnn.gated.runge_kutta_adjoint import RungeKuttaSweep

Sweep = FusedSweep | EulerSweep | RungeKuttaSweep


def gated_sweep(
    program: GatedProgram,
    tensors: GatedTensors,
    shape: tuple[int, int, int],
    wanted: frozenset[str],
    last: Sequence[Tensor | None],
    c_charge: Tensor | None = None,
) -> Sweep:
    """A sweep back through a trajectory of `program`; arguments as of `EulerSweep`."""
    if (kernel := program.kernel(tensors, "backward")) is not None:
        return FusedSweep(kernel, shape, wanted, last, c_charge)
    if isinstance(program, GatedRungeKutta):
        return RungeKuttaSweep(program, tensors, shape, wanted, last, c_charge)
    assert isinstance(program, GatedEuler)
    return EulerSweep(program, tensors, shape, wanted, last, c_charge)
