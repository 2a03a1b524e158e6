"""Adam with a size of step for each entry of a parameter."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class SizedAdam(torch.optim.Adam):
    """Adam on parameters in units of their sizes: x = p / size is what takes Adam's steps.

    Adam moves every entry by about the learning rate, whatever its gradient; where input weights of 25 learn beside readout
    weights of 0.01, no one rate is right. In units of their sizes they can share one.

    Args:
        sizes: parameters and the size of each, a number or a tensor that broadcasts to it.
        options: those of torch.optim.Adam.
    """

    def __init__(self, sizes: Mapping[nn.Parameter, float | Tensor], **options: Any) -> None:
        super().__init__(list(sizes), **options)
        self.sizes = dict(sizes)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step, after the closure where there is one; gradients are scaled for it and left scaled."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        before = {p: (p.clone(), p / size) for p, size in self.sizes.items()}
        for p, size in self.sizes.items():
            p.copy_(before[p][1])  # x itself: beside a p of 1e13 a step of 0.01 would be lost
            if p.grad is not None:
                p.grad.mul_(size)
        super().step()
        for p, size in self.sizes.items():
            start, x = before[p]
            p.copy_(start + size * (p - x))
        return loss


def scaled_norm(sizes: Mapping[nn.Parameter, float | Tensor]) -> float:
    """Norm of the whole gradient, by parameters in units of their sizes."""
    squares = [(p.grad * size).square().sum() for p, size in sizes.items() if p.grad is not None]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0
