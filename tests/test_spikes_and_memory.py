"""Spike trains as data, and the pool that trajectories take their memory from."""

import pytest
import torch

from adjsnn import SpikeTrains
from adjsnn.integrate import memory

EVENTS = [[(3.0, 1), (1.0, 0), (1.0, 2)], [], [(9.5, 2)]]


def test_lists_come_back_sorted():
    trains = SpikeTrains.from_list(EVENTS, n_neurons=3, t_max=10.0)
    assert trains.to_list() == [[(1.0, 0), (1.0, 2), (3.0, 1)], [], [(9.5, 2)]]
    assert trains.idx.tolist() == [[0, 2, 1], [-1, -1, -1], [2, -1, -1]]
    assert len(trains) == 4
    assert trains.counts().tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 1]]
    assert "4 spikes, batch=3" in repr(trains)


def test_dense_counts_each_spike_in_its_bin():
    trains = SpikeTrains.from_list([*EVENTS, [(10.0, 0)]], n_neurons=3, t_max=10.0)
    dense = trains.to_dense(2.5)
    assert dense.shape == (4, 4, 3)
    assert dense.nonzero().tolist() == [[0, 0, 0], [0, 0, 2], [1, 0, 1], [3, 2, 2], [3, 3, 0]]


def test_signed_events_in_any_order():
    columns = (
        torch.tensor([1, 0, 1]),
        torch.tensor([2, 0, 1]),
        torch.tensor([5.0, 4.0, 3.0]),
        torch.tensor([-1, 1, 1]),
    )
    trains = SpikeTrains.from_events(*columns, batch=2, n_neurons=3, t_max=6.0)
    assert trains.to_list() == [[(4.0, 0)], [(3.0, 1), (5.0, 2)]]
    assert trains.sign.tolist() == [[1, 0], [1, -1]]
    assert float(trains.to_dense(6.0).sum()) == 1.0


def test_no_events_at_all():
    trains = SpikeTrains.from_list([[], []], n_neurons=2, t_max=0.0)
    assert trains.to_list() == [[], []]
    assert trains.to_dense(1.0).shape == (1, 2, 2)


@pytest.fixture(autouse=True)
def _empty_pool():
    memory.release_memory()
    yield
    memory.release_memory()


LARGE = (3, memory.SMALLEST // 4)
LIKE = torch.zeros(1)


def test_memory_is_recycled_only_when_nothing_refers_to_it():
    first = memory.fresh(LARGE, LIKE)
    address = first.data_ptr()
    view, array = first[1, 5:8], first.numpy()
    second = memory.fresh(LARGE, LIKE)
    assert second.data_ptr() != address
    del first
    assert memory.fresh(LARGE, LIKE).data_ptr() != address
    del view
    assert memory.fresh(LARGE, LIKE).data_ptr() != address
    del array
    others = [memory.fresh(LARGE, LIKE) for _ in range(3)]
    assert address in [x.data_ptr() for x in others]
    assert len({x.data_ptr() for x in [*others, second]}) == 4


def test_memory_that_autograd_holds_is_not_recycled():
    class Keep(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            held = memory.fresh(LARGE, x).fill_(2.0)
            ctx.save_for_backward(held)
            return held.sum() * x

        @staticmethod
        def backward(ctx, slope):
            return slope * ctx.saved_tensors[0][0, 0]

    x = torch.ones((), requires_grad=True)
    y = Keep.apply(x)
    for _ in range(3):
        memory.fresh(LARGE, LIKE).zero_()
    y.backward()
    assert float(x.grad) == 2.0


def test_the_pool_stays_within_its_bound(monkeypatch):
    monkeypatch.setattr(memory, "POOL_BYTES", 3 * memory.SMALLEST * 3)
    held = [memory.fresh(LARGE, LIKE).fill_(k) for k in range(6)]
    assert sum(len(pages) for pages in memory._pool) <= memory.POOL_BYTES
    assert [float(x.mean()) for x in held] == list(range(6))


def test_small_tensors_and_dtypes():
    assert memory.fresh((2, 3), LIKE, torch.int8).dtype == torch.int8
    assert memory.fresh((7, memory.SMALLEST), LIKE.double()).dtype == torch.float64
