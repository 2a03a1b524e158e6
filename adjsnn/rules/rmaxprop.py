"""The step of SuperSpike, equation (5.4): a rate for each weight, by the largest gradient that it has had lately."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from adjsnn.checks import Number, positive
from adjsnn.errors import ConfigurationError

DECAY = math.exp(-0.5 / 30.0)  # an update every half second, forgotten over 30 s


class RMaxProp(torch.optim.Optimizer):
    """w ← w - η g/√m, m ← max(γ m, g²), for each entry by itself (5.4). Zenke and Ganguli 2018.

    No step is longer than η, and the first is η. What is kept is √m, which does not underflow where g² would. A weight that
    never had a gradient stays.

    Args:
        params: as of torch's optimisers.
        lr: η.
        decay: γ, of a step.

    Raises:
        ConfigurationError: lr not positive, decay not in (0, 1].
    """

    def __init__(self, params: Iterable[Any], lr: Number = 1e-3, decay: Number = DECAY) -> None:
        lr, decay = positive("lr", lr, remedy="lr=1e-3"), positive("decay", decay, remedy="decay=0.98")
        super().__init__(params, {"lr": lr, "decay": decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """A group of parameters, with an lr and a decay of its own where it has them.

        Raises:
            ConfigurationError: as of the class.
        """
        given = {**self.defaults, **param_group}
        positive("lr", given["lr"], remedy="lr=1e-3")
        if positive("decay", given["decay"], remedy="decay=0.98") > 1.0:
            raise ConfigurationError(f"decay={given['decay']:g}", "at most 1, which forgets nothing", "decay=0.98")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state: dict[str, Tensor] = self.state[p]
                if not state:
                    state["largest"] = torch.zeros_like(p)
                largest = state["largest"].mul_(group["decay"] ** 0.5)
                torch.maximum(largest, p.grad.abs(), out=largest)
                p.sub_(torch.where(largest > 0.0, p.grad / largest, 0.0), alpha=group["lr"])
        return loss
