"""Several processes that train one network, each on its part of every batch: started by torchrun."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from adjsnn.errors import ConfigurationError


@dataclass(frozen=True)
class Processes:
    """The processes of a training and this one's place.

    Attributes:
        rank: number of this process; 0 writes the run folder.
        count: number of processes.
        device: this process's device.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def agree(self, value: int) -> int:
        """The largest of the processes' numbers."""
        if self.count == 1:
            return value
        largest = torch.tensor([value], device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def least(self, value: float) -> float:
        """The smallest of the processes' numbers; nan where one has none."""
        if self.count == 1:
            return value
        values = [math.nan] * self.count
        dist.all_gather_object(values, value)
        return math.nan if any(math.isnan(x) for x in values) else min(values)

    def told(self, text: str) -> str:
        """The text that the first process gives."""
        if self.count == 1:
            return text
        box = [text]
        dist.broadcast_object_list(box, 0, device=self.device)
        return str(box[0])

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()

    def same(self, module: nn.Module) -> None:
        """Gives all processes the first one's weights."""
        if self.count > 1:
            with torch.no_grad():
                for p in module.parameters():
                    dist.broadcast(p, 0)

    def mean(self, module: nn.Module, cost: Tensor, asked: int) -> tuple[float, int]:
        """Makes the gradients their mean over processes: one message, with everything else that a step has to tell.

        An adjoint gives all gradients at once, at its end: there is nothing that could be sent meanwhile. Weights that no
        process's cost uses stay without a gradient.

        Args:
            module: the network.
            cost: of this process.
            asked: a number of this process.

        Returns:
            the mean cost and the largest of the processes' numbers.
        """
        if self.count == 1:
            return float(cost.detach()), asked
        learnt = [p for p in module.parameters() if p.requires_grad]
        used = [float(p.grad is not None) for p in learnt]
        numbers = [float(asked if rank == self.rank else 0) for rank in range(self.count)]
        told = torch.tensor([*used, *numbers], dtype=cost.dtype, device=cost.device)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learnt]
        pieces = [cost.detach(), *gradients, told]
        message = torch.cat([x.flatten() for x in pieces])
        dist.all_reduce(message)
        total, *sums, told = message.split([x.numel() for x in pieces])
        total, *told = [float(total), *told.tolist()]
        for p, summed, users in zip(learnt, sums, told, strict=False):
            if users:
                p.grad = summed.div_(self.count).view_as(p)
        return total / self.count, int(max(told[len(learnt) :]))


def batch_mean(x: Tensor) -> Tensor:
    """Mean over the first dimension, the samples; over those of all processes if several share a batch. Differentiable.

    A cost that is not a mean over samples, such as the square of a mean rate, is the same for any number of processes if it is
    a function of such means.
    """
    return mean_over_processes(x.mean(0))


def mean_over_processes(x: Tensor) -> Tensor:
    """Mean of a tensor over the processes of a training; itself where there is one. Differentiable."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return x
    # Its own adjoint: each process's cost depends on x, so the sum of their cotangents comes back.
    return _Sum.apply(x) / dist.get_world_size()


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        summed = x.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:  # type: ignore[override]
        return _Sum.apply(cotangent)


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """The processes that torchrun started (gloo on the CPU, nccl on GPUs), or this one alone.

    Raises:
        ConfigurationError: more processes than GPUs on this machine.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(0, 1, device)
        return
    local = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ConfigurationError(
                f"process {local} on a machine with {torch.cuda.device_count()} GPUs", "a GPU for each", "fewer processes"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), count, device)
    finally:
        dist.destroy_process_group()
