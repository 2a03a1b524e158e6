"""Spike trains as data, and the pool that trajectories take their memory from."""

import pytest
import torch

from adjsnn import ConfigurationError, SpikeTrains
from adjsnn.numerics import memory

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


def test_dense_counts_come_back_as_events():
    counts = torch.zeros(4, 2, 3, dtype=torch.long)
    counts[1, 0, 2], counts[3, 1, 0] = 1, 2
    trains = SpikeTrains.from_dense(counts, 0.5)
    assert trains.to_list() == [[(0.5, 2)], [(1.5, 0), (1.5, 0)]]
    assert trains.t_max == 2.0
    assert torch.equal(trains.to_dense(0.5), counts.to(trains.time))
    assert SpikeTrains.from_dense(counts[:, :, :1].double(), 0.5, t_max=9.0).t_max == 9.0


def test_merged_trains_are_sorted_and_differentiable():
    a = SpikeTrains.from_list(EVENTS, n_neurons=3, t_max=10.0, dtype=torch.float64)
    b = SpikeTrains.from_list([[(2.0, 1)], [(4.0, 0)], []], n_neurons=3, t_max=12.0, dtype=torch.float64)
    b.time.requires_grad_()
    both = a.merge(b)
    assert both.to_list() == [[(1.0, 0), (1.0, 2), (2.0, 1), (3.0, 1)], [(4.0, 0)], [(9.5, 2)]]
    assert both.t_max == 12.0
    both.time[both.idx >= 0].sum().backward()
    assert b.time.grad.tolist() == [[1.0], [1.0], [0.0]]


def test_slices_in_time_make_up_the_whole():
    trains = SpikeTrains.from_list([*EVENTS, [(10.0, 0)]], n_neurons=3, t_max=10.0)
    early, late = trains.between(0.0, 3.0), trains.between(3.0, 10.0)
    assert early.to_list() == [[(1.0, 0), (1.0, 2)], [], [], []]
    assert late.to_list() == [[(0.0, 1)], [], [(6.5, 2)], [(7.0, 0)]]
    assert (early.t_max, late.t_max) == (3.0, 7.0)


def test_poisson_spikes_have_their_rate():
    rates = torch.tensor([[0.0, 50.0, 200.0]], dtype=torch.float64).expand(400, 3)
    trains = SpikeTrains.poisson(rates, 500.0, generator=torch.Generator().manual_seed(0))
    mean, variance = trains.counts().double().mean(0), trains.counts().double().var(0)
    # 400 counts of mean 25 and 100: six standard errors of the mean, and of the variance.
    assert mean.tolist() == pytest.approx([0.0, 25.0, 100.0], abs=6 * 10.0 / 400**0.5)
    assert variance.tolist() == pytest.approx([0.0, 25.0, 100.0], rel=6 * (2 / 400) ** 0.5)
    assert float(trains.time[trains.idx >= 0].mean()) == pytest.approx(250.0, abs=6 * 145.0 / len(trains) ** 0.5)
    again = SpikeTrains.poisson(rates, 500.0, generator=torch.Generator().manual_seed(0))
    assert torch.equal(trains.time, again.time)


def test_latencies():
    x = torch.tensor([[0.5, 0.0], [0.1, 1.0]], requires_grad=True)
    trains = SpikeTrains.latency(x, 30.0, bias=15.0)
    assert trains.n_neurons == 3
    assert trains.to_list()[0] == [(0.0, 1), (15.0, 0), (15.0, 2)]
    trains.time.sum().backward()
    assert x.grad.tolist() == [[30.0, 30.0], [30.0, 30.0]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: SpikeTrains.from_dense(torch.ones(2, 3), 1.0),
        lambda: SpikeTrains.from_dense(torch.ones(2, 1, 3), 0.0),
        lambda: SpikeTrains.from_dense(-torch.ones(2, 1, 3), 1.0),
        lambda: SpikeTrains.from_dense(torch.full((2, 1, 3), 0.5), 1.0),
        lambda: SpikeTrains.poisson(torch.tensor([[-1.0]]), 10.0),
        lambda: SpikeTrains.poisson(torch.tensor([1.0]), 10.0),
        lambda: SpikeTrains.poisson(torch.tensor([[1.0]]), float("inf")),
        lambda: SpikeTrains.latency(torch.tensor([[1.5]]), 10.0),
        lambda: SpikeTrains.latency(torch.tensor([[0.5]]), 10.0, bias=11.0),
        lambda: SpikeTrains.from_list([[]], n_neurons=2, t_max=5.0).merge(SpikeTrains.from_list([[]], n_neurons=3, t_max=5.0)),
        lambda: SpikeTrains.from_list([[]], n_neurons=2, t_max=5.0).between(3.0, 6.0),
    ],
)
def test_spike_trains_that_cannot_be(make):
    with pytest.raises(ConfigurationError):
        make()


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
