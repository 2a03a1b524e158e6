"""What processes that share a training tell each other: one message in a step."""

import random

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from adjsnn.training.processes import processes

HERE = torch.device("cpu")


class Weights(nn.Module):
    def __init__(self):
        super().__init__()
        self.both, self.one, self.none = (nn.Parameter(torch.arange(3.0)) for _ in range(3))
        self.held = nn.Parameter(torch.ones(2), requires_grad=False)


def _each(rank, port, found):
    """A step of process `rank`: gradients of 2 and 4, 6 of the second process alone, and none."""
    import os  # noqa: PLC0415  this is another process

    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    net = Weights()
    with torch.no_grad():
        net.both += rank
    with processes(HERE) as team:
        team.same(net)
        cost = ((2.0 + 2.0 * rank) * net.both).sum() + (6.0 * net.one.sum() if rank else 0.0)
        cost.backward()
        mean, asked = team.mean(net, cost, 15 * rank)
    found.put((rank, mean, asked, {name: p.grad if p.grad is None else p.grad.tolist() for name, p in net.named_parameters()}))


@pytest.mark.slow
def test_one_message_has_all_that_a_step_tells():
    context = mp.get_context("spawn")
    found = context.Queue()
    mp.spawn(_each, (random.randint(20000, 60000), found), nprocs=2)
    told = sorted(found.get(timeout=60) for _ in range(2))
    gradients = {"both": [3.0] * 3, "one": [3.0] * 3, "none": None, "held": None}
    for _, mean, asked, grads in told:
        assert mean == 0.5 * (2.0 * 3.0 + 4.0 * 3.0 + 6.0 * 3.0)  # of the first process's weights, in both
        assert asked == 15
        assert grads == gradients


def test_alone_nothing_is_sent():
    net = Weights()
    with processes(HERE) as team:
        team.same(net)
        cost = (2.0 * net.both).sum()
        cost.backward()
        assert team.mean(net, cost, 2) == (6.0, 2)
    assert net.both.grad.tolist() == [2.0] * 3
    assert net.one.grad is None
