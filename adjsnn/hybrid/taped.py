"""Systems that differentiate inside themselves, such as a flow that is the gradient of an energy by torch.autograd.grad."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from adjsnn.hybrid.system import HybridSystem


def on_tape(function: Callable[..., Any], *arguments: Tensor | None) -> Any:
    """function(*arguments) with arguments that autograd knows, whether or not it is recording.

    Without recording, the result is off the tape again.
    """
    recording = torch.is_grad_enabled()
    with torch.enable_grad():
        known = (
            x if x is None or x.requires_grad or not x.is_floating_point() else x.detach().requires_grad_() for x in arguments
        )
        out = function(*known)
    return out.detach() if isinstance(out, Tensor) and not recording else out


class Taped(HybridSystem):
    """A system each of whose functions is evaluated `on_tape`.

    Args:
        system: the system.
    """

    def __init__(self, system: HybridSystem) -> None:
        super().__init__()
        self.system = system

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        return on_tape(self.system.vector_field, t, y, u)

    def guard(self, t: Tensor, y: Tensor) -> Tensor | None:
        return on_tape(self.system.guard, t, y)

    def jump(self, t: Tensor, y: Tensor, fired: Tensor) -> Tensor:
        return on_tape(self.system.jump, t, y, fired)

    def readout(self, y: Tensor) -> Tensor:
        return on_tape(self.system.readout, y)


class TapedSignal(nn.Module):
    """A signal u(t) evaluated `on_tape`.

    Args:
        signal: a function, or a module, whose parameters are this one's.
    """

    def __init__(self, signal: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.signal = signal

    def forward(self, t: Tensor) -> Tensor:
        return on_tape(self.signal, t)
