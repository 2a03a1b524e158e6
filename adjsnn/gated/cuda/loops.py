"""Connects the GPU loops of gated networks to the engine; they are imported when first used, since they load the compiler."""

from typing import TYPE_CHECKING

from adjsnn.gated.cpu.covered import CONSTANTS
from adjsnn.gated.membranes import Membrane
from adjsnn.gated.network import GatedTensors
from adjsnn.gated.program import GatedProgram
from adjsnn.numerics import gpu

if TYPE_CHECKING:
    from adjsnn.gated.cuda.run import CudaGated

MOST_NEURONS = 1024  # beyond, whole products win


def uncovered(neuron: Membrane, tensors: GatedTensors) -> str | None:
    """What of the tensors the loops do not cover, or why none can run; of a membrane and gate that the CPU's loops know."""
    if tuple(tensors.constants) != CONSTANTS[type(neuron)]:
        return f"{type(neuron).__name__} has constants {list(tensors.constants)}"
    if tensors.tau_fast.dim() or tensors.tau_slow.dim():
        return "tau_fast and tau_slow differ between neurons"
    if (n := tensors.w_rec.shape[0]) > MOST_NEURONS:
        return f"{n} neurons are more than {MOST_NEURONS}"
    return gpu.obstacle(tensors.w_rec.device)


def body(program: GatedProgram, tensors: GatedTensors) -> "CudaGated":
    """The body that runs a network on a GPU."""
    from adjsnn.gated.cuda.run import CudaGated  # noqa: PLC0415

    return CudaGated(program, tensors)
