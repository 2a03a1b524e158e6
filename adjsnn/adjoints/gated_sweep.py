"""The backward sweep of a gated program: the fused loops where they cover the network, else plain operations."""

from collections.abc import Sequence

from torch import Tensor

from adjsnn.adjoints.gated_euler import EulerSweep
from adjsnn.adjoints.gated_rk import RungeKuttaSweep
from adjsnn.integrate.gated_euler import GatedEuler
from adjsnn.integrate.gated_program import GatedProgram
from adjsnn.integrate.gated_rk import GatedRungeKutta
from adjsnn.kernels.fused import FusedSweep
from adjsnn.systems.gated_network import GatedTensors

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
