"""Whether loops for a GPU can run, asked without loading the compiler."""

import torch


def obstacle(device: torch.device) -> str | None:
    """Why loops for a GPU cannot run on a network's device, or None; "auto" asks in every solve of a network on a GPU."""
    if device.type not in ("cuda", "cpu"):
        return f"the network is on the device {device}, not on a CUDA device"
    try:
        from adjsnn.numerics import device as machine  # noqa: PLC0415  loads the compiler
    except ImportError as error:
        return f"numba.cuda cannot be imported ({error})"
    if device.type == "cpu" and not machine.SIMULATED:
        return "the network is on the CPU, not on a CUDA device"
    return machine.unusable()
