"""Connects the GPU loops of gated networks to the engine; they are imported when first used, since they load the compiler."""

from typing import TYPE_CHECKING

import torch

from adjsnn.gated.cpu.loops import CONSTANTS
from adjsnn.gated.membranes import Membrane
from adjsnn.gated.network import GatedTensors
from adjsnn.gated.program import GatedProgram

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
    return _no_machine(tensors.w_rec.device)


def _no_machine(device: torch.device) -> str | None:
    """Why loops for a GPU cannot run on a network's device; asked by "auto" in every solve of a network on a GPU."""
    if device.type not in ("cuda", "cpu"):
        return f"the network is on the device {device}, not on a CUDA device"
    try:
        from adjsnn.numerics import device as machine  # noqa: PLC0415
    except ImportError as error:
        return f"numba.cuda cannot be imported ({error})"
    if device.type == "cpu" and not machine.SIMULATED:
        return "the network is on the CPU, not on a CUDA device"
    return machine.unusable()


def body(program: GatedProgram, tensors: GatedTensors) -> "CudaGated":
    """The body that runs a network on a GPU."""
    from adjsnn.gated.cuda.run import CudaGated  # noqa: PLC0415

    return CudaGated(program, tensors)
