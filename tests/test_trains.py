"""Spike trains on grids, at the end of the trial, in batches, and after something has written to them."""

import math
import pickle
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

import adjsnn
from adjsnn import ConfigurationError, SpikeTrains
from adjsnn.checks import steps_in
from adjsnn.losses import van_rossum

DTYPES = (torch.float32, torch.float64)


def _one_row(time, n_neurons=1, t_max=None):
    idx = torch.zeros(1, len(time), dtype=torch.long)
    return SpikeTrains(idx, time[None], n_neurons, float(time[-1]) if t_max is None else t_max)


# ---- grids


@pytest.mark.every(3)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dt", [0.1, 0.3, 1e-3, 0.7, 1.0, 1 / 3, 12.7, np.float32(0.1)])
@pytest.mark.parametrize("steps", [2000, 1_000_000])
def test_a_spike_on_every_edge_is_one_spike_in_every_bin(dtype, dt, steps):
    k = torch.arange(steps, dtype=torch.float64)
    grids = [(k * float(dt)).to(dtype), k.to(dtype) * torch.tensor(float(dt), dtype=dtype)]
    if steps == 2000:
        grids.append(torch.linspace(0.0, (steps - 1) * float(dt), steps, dtype=dtype))
    for time in grids:
        dense = _one_row(time, t_max=steps * float(dt)).to_dense(dt)
        assert dense.shape == (steps, 1, 1)
        assert bool((dense == 1).all())


def test_times_written_in_decimals_lie_on_the_edges_they_name():
    time = torch.tensor([float(f"{k / 10:.1f}") for k in range(5000)], dtype=torch.float64)  # 0.3 is below 3 · 0.1
    for row in (time, time.float()):
        assert bool((_one_row(row, t_max=500.0).to_dense(0.1) == 1).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_spike_inside_a_bin_does_not_move(dtype):
    generator = torch.Generator().manual_seed(0)
    for dt, steps in ((0.1, 20_000), (0.3, 1000), (1e-3, 5000), (2.5, 100_000)):
        n = torch.arange(steps, dtype=torch.float64)
        for place in (0.02, 0.5, 0.98, torch.rand(steps, generator=generator, dtype=torch.float64) * 0.96 + 0.02):
            dense = _one_row(((n + place) * dt).to(dtype), t_max=steps * dt).to_dense(dt)
            assert bool((dense == 1).all())
    # In float64 the nearest numbers that are truly before an edge stay before it.
    before = torch.tensor([0.3 * (1 - 4e-15)], dtype=torch.float64)
    assert _one_row(before, t_max=1.0).to_dense(0.1)[:, 0, 0].nonzero().tolist() == [[2]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dt", [0.1, 0.3, 0.7, 1e-3, 1.0])
def test_counts_come_back_from_the_grid(dtype, dt):
    generator = torch.Generator().manual_seed(1)
    for steps in (1, 6, 7, 300):  # 6 · 0.1 is above 0.6
        counts = torch.randint(0, 3, (steps, 2, 3), generator=generator)
        dense = SpikeTrains.from_dense(counts, dt, dtype=dtype).to_dense(dt)
        assert torch.equal(dense, counts.to(dtype))
    with pytest.raises(ConfigurationError, match="whole"):
        SpikeTrains.from_dense(torch.full((1, 1, 1), math.inf), dt)


def test_signs_and_the_end_are_kept_on_the_grid():
    x = SpikeTrains(torch.tensor([[0, 0, 1]]), torch.tensor([[0.3, 0.35, 0.6]]), 2, 0.6, torch.tensor([[1, -1, -1]]))
    dense = x.to_dense(0.1)
    assert dense.shape == (6, 1, 2)
    assert dense[3, 0].tolist() == [0.0, 0.0]
    assert dense[5, 0].tolist() == [0.0, -1.0]  # at t_max: in the last bin


def test_lengths_in_steps():
    for k in range(1, 500):
        assert steps_in(k * 0.1, 0.1) == (k, True)
        assert steps_in(float(f"{k / 10:.1f}"), 0.1) == (k, True)
        assert steps_in((k + 0.5) * 0.1, 0.1) == (k, False)


def test_a_recording_of_whole_steps_is_resampled_to_all_of_them(tmp_path):
    for samples, signal_dt, dt, steps in ((4, 0.1, 0.1, 3), (8, 0.1, 0.1, 7), (7, 0.1, 0.3, 2), (61, 0.1, 0.6, 10)):
        np.save(tmp_path / "u.npy", np.sin(np.arange(samples)))
        assert len(adjsnn.signals.load_signal(tmp_path / "u.npy", signal_dt, dt)) == steps


# ---- the end of a trial


def _lif(dtype=torch.float32, **options):
    options = {"layers": (2,), "generator": torch.Generator().manual_seed(0)} | options
    return adjsnn.LIFNetwork(1, dtype=dtype, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_last_of_the_times_asked_for_is_the_end(dtype, lif_kernels):
    net, silent = _lif(dtype, bias=0.5), SpikeTrains.from_list([[]], n_neurons=1, t_max=1.0)
    for k in range(1, 400, 3 if lif_kernels == "fused" and dtype == torch.float32 else 40):
        end = float(f"{k / 10:.1f}")
        for ts in (torch.linspace(0.0, end, 100), torch.arange(k + 1) * 0.1, torch.linspace(0.0, end, 7, dtype=torch.float64)):
            sol = adjsnn.solve(net, silent, t_end=end, ts=ts, kernels=lif_kernels)
            assert sol.t_end == end
            assert float(sol.ts[-1]) == pytest.approx(float(torch.tensor(end, dtype=dtype)), rel=1e-15)
            assert torch.allclose(sol.v[0][-1], sol.final_state[0].v, rtol=0.0, atol=1e-12)
    for end in (torch.tensor(0.7), np.float32(0.7)):
        assert len(adjsnn.solve(net, silent, t_end=end, ts=[0.0, 0.7]).ts) == 2


def test_a_time_beyond_the_end_is_refused():
    net, silent = _lif(), SpikeTrains.from_list([[]], n_neurons=1, t_max=1.0)
    for ts in (torch.tensor([0.0, 16.70001]), torch.tensor([0.0, 16.7 * (1 + 1e-15)], dtype=torch.float64), [0.0, 16.8]):
        with pytest.raises(ConfigurationError, match="0 to t_end = 16.7 ms"):
            adjsnn.solve(net, silent, t_end=16.7, ts=ts)


@pytest.mark.parametrize("delay", [None, 0.0])
def test_a_spike_at_the_very_end_counts_and_passes_its_gradient(delay, lif_kernels):
    net = _lif(delays=delay)
    for k in range(1, 60):
        end = float(f"{k / 10:.1f}")
        time = torch.tensor([[end]], requires_grad=True)  # float32: above `end` for half of them
        x = SpikeTrains(torch.zeros(1, 1, dtype=torch.long), time, 1, end)
        sol = adjsnn.solve(net, x, ts=[end], kernels=lif_kernels)
        assert torch.equal(sol.final_state[0].i[0], net.w_in[0][:, 0])
        assert torch.equal(sol.i[0][0], sol.final_state[0].i)
        (slope,) = torch.autograd.grad(sol.final_state[0].i.sum(), time)
        assert float(slope) == pytest.approx(
            float((net.w_in[0][:, 0] / net.tau_syn[0]).detach().sum()), rel=1e-6
        )  # i = w e^{-(T-t)/τ}
        assert x.to(dtype=torch.float64).counts().tolist() == [[1]]
        assert x.between(0.0, end).counts().tolist() == x.between(0.0, float(time.detach())).counts().tolist() == [[1]]
        assert x.to_dense(0.1)[-1].tolist() == [[1.0]]


def test_spikes_of_a_layer_at_the_very_end_are_spikes_of_trains(lif_kernels):
    net = _lif(torch.float64, layers=(1,), bias=2.0, tau_mem=20.0)
    silent = SpikeTrains.from_list([[]], n_neurons=1, t_max=100.0)
    at = float(adjsnn.solve(net, silent, t_end=20.0).spike_times().detach()[0])
    sol = adjsnn.solve(net.float(), silent, t_end=at, kernels=lif_kernels)  # τ, b and θ are exact in float32
    assert sol.spike_counts().tolist() == [[1]]
    found = sol.layer_spikes[0]
    assert len(found) == len(found.to(dtype=torch.float64)) == 1
    again = adjsnn.solve(_lif(layers=(1,)), found)
    assert float(again.final_state[0].i.detach()) != 0.0


def test_a_slice_in_time_that_is_shorter_than_its_roundings_is_one():
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        start, stop = (torch.rand(2, generator=generator, dtype=torch.float64).sort().values * 100).tolist()
        time = torch.tensor([start, stop]).clamp(max=stop)  # float32
        x = _one_row(time.sort().values, t_max=stop)
        part = x.between(start, stop)
        assert len(part) == int((time >= torch.tensor(start)).sum())
        assert float(part.time.max()) <= part.t_max * (1 + 1.2e-7)


def test_the_end_of_currents_is_the_end():
    net = _lif(torch.float64)
    for steps in range(1, 60):
        u, end = torch.ones(steps, 1, 1, dtype=torch.float64), float(f"{steps / 10:.1f}")
        x = SpikeTrains.from_list([[(end, 0)]], n_neurons=1, t_max=100.0, dtype=torch.float64)
        for t_end in (None, end, np.float32(end), torch.tensor(end)):
            sol = adjsnn.solve(net, x, currents=u, dt=0.1, t_end=t_end, ts=[0.0, steps * 0.1])
            assert torch.allclose(sol.v[0][-1], sol.final_state[0].v, rtol=0.0, atol=1e-12)
        sol = adjsnn.solve(net, x, currents=u, dt=0.1)
        assert torch.allclose(sol.final_state[0].i[0], net.w_in[0][:, 0], rtol=1e-14, atol=0.0)


@pytest.mark.parametrize("layers", [(2,), (2, 2)])
def test_the_integral_of_v_counts_the_spikes_that_arrived_by_the_end(layers):
    generator = torch.Generator().manual_seed(3)
    net = adjsnn.LIFNetwork(1, layers, delays=0.1, generator=generator, bias=2.0)
    exact = adjsnn.LIFNetwork(1, layers, delays=0.1, generator=generator, bias=2.0, dtype=torch.float64)
    exact.load_state_dict({name: x.double() for name, x in net.state_dict().items()})
    for k in range(1, 40):
        start, end = float(f"{k / 10:.1f}"), float(f"{(k + 1) / 10:.1f}")  # arrives at the end but for roundings
        x = SpikeTrains.from_list([[(start, 0)]], n_neurons=1, t_max=end)
        sol, true = adjsnn.solve(net, x, t_end=end), adjsnn.solve(exact, x, t_end=end)
        assert torch.allclose(sol.voltage_integral().double(), true.voltage_integral(), rtol=1e-4, atol=1e-4)


# ---- batches


def _trains(batch=5, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    counts = torch.poisson(torch.full((6, batch, 3), 0.4), generator=generator)
    x = SpikeTrains.from_dense(counts, 1.0, dtype=dtype)
    sign = torch.where(x.idx >= 0, torch.randint(0, 2, x.idx.shape, generator=generator) * 2 - 1, 0).to(torch.int8)
    return SpikeTrains(x.idx, x.time, 3, 6.0, sign)


def _equal(a, b):
    assert (a.n_neurons, a.t_max) == (b.n_neurons, b.t_max)
    for name in ("idx", "time", "sign"):
        found, expected = getattr(a, name), getattr(b, name)
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)


def test_samples_are_indexed_and_put_together_again():
    x = _trains()
    assert [len(part) for part in x] == [len(row) for row in x.to_list()]
    assert [part.to_list()[0] for part in x] == x.to_list()
    assert [part.to_list()[0] for part in reversed(x)] == x.to_list()[::-1]
    _equal(SpikeTrains.cat(list(x)), x)
    _equal(SpikeTrains.cat(x), x)
    _equal(SpikeTrains.cat([x[:2], x[2:]]), x)
    _equal(SpikeTrains.stack(x), x)
    with pytest.raises(ConfigurationError, match="number 1.*SpikeTrains.cat"):
        SpikeTrains.stack([x[0], x[1:3]])
    with pytest.raises(ConfigurationError, match="one SpikeTrains or more"):
        SpikeTrains.stack([])
    rows = x.to_list()
    for which, expected in (
        (1, [1]), (-1, [4]), (np.int64(2), [2]), (torch.tensor(3), [3]), (slice(1, 4), [1, 2, 3]), (slice(3, 3), []),
        (slice(None, None, 2), [0, 2, 4]), ([0, 0, 4], [0, 0, 4]), (torch.tensor([4, 1]), [4, 1]), ([], []),
        (np.array([2, -1], np.int32), [2, 4]), (torch.tensor([True, False, False, True, False]), [0, 3]),
        (torch.tensor([1, 1], dtype=torch.uint8), [1, 1]),
    ):  # fmt: skip
        assert x[which].to_list() == [rows[k] for k in expected]
        assert x[which].batch == len(expected)
    assert x.batch == 5
    assert len(x) == sum(len(row) for row in rows) == int(x.counts().sum())
    for wrong in (5, -6, 1.0, "0", None, (0, 1), [0, 7], [[0]], torch.tensor([True]), ..., torch.tensor(0.5)):
        with pytest.raises(ConfigurationError, match="samples|which"):
            x[wrong]


def test_gradients_pass_through_indexing_and_cat():
    x = _trains()
    x.time.requires_grad_()
    weight = torch.rand(x.time.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = SpikeTrains.cat([x[3:], x[0], x[1:3]])
    order = [3, 4, 0, 1, 2]
    found = torch.where(together.idx >= 0, together.time, 0.0)
    (found * weight[order][:, : found.shape[1]]).sum().backward()
    assert torch.equal(x.time.grad, torch.where(x.idx >= 0, weight, 0.0))


def test_trains_that_do_not_go_together_are_refused():
    x = _trains()
    others = [
        SpikeTrains(x.idx, x.time, 4, 6.0), SpikeTrains(x.idx, x.time, 3, 7.0), x.to(dtype=torch.float32), x.idx, None,
    ]  # fmt: skip
    for other in others:
        with pytest.raises(ConfigurationError, match="SpikeTrains"):
            SpikeTrains.cat([x, other])
    with pytest.raises(ConfigurationError, match="one SpikeTrains or more"):
        SpikeTrains.cat([])
    nearly = SpikeTrains(x.idx, x.time, 3, 6.0 * (1 + 1e-16))
    assert SpikeTrains.cat([x, nearly]).batch == 10


class Sample(NamedTuple):
    x: SpikeTrains
    label: int


class Samples(Dataset):
    def __init__(self, form):
        self.x, self.form = _trains(), form

    def __len__(self):
        return self.x.batch

    def __getitem__(self, k):
        return self.form(self.x[k], k)


def _pair(x, k):
    return x, k


def _nested(x, k):
    return {"x": x, "more": [(x, float(k)), "name"], "u": torch.full((2,), float(k))}


def _alone(x, k):
    del k
    return x


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("form", [_pair, Sample, _nested, _alone])
def test_a_data_loader_makes_batches_of_trains(form, workers):
    data = Samples(form)
    loader = DataLoader(data, batch_size=2, collate_fn=adjsnn.collate_spikes, num_workers=workers)
    batches = list(loader)
    assert len(batches) == 3
    for n, batch in enumerate(batches):
        expected, labels = data.x[2 * n : 2 * n + 2], list(range(5))[2 * n : 2 * n + 2]
        if form is _alone:
            _equal(batch, expected)
        elif form is _nested:
            _equal(batch["x"], expected)
            _equal(batch["more"][0][0], expected)
            assert batch["more"][0][1].tolist() == labels
            assert tuple(batch["more"][1]) == ("name",) * len(labels)
            assert torch.equal(batch["u"], default_collate([torch.full((2,), float(k)) for k in labels]))
        else:
            assert isinstance(batch, Sample if form is Sample else (tuple, list))
            _equal(batch[0], expected)
            assert batch[1].tolist() == labels


def test_trains_alone_are_no_data_set():
    x = _trains()
    with pytest.raises(ConfigurationError, match="list\\(x\\)"):
        next(iter(DataLoader(x, batch_size=2, collate_fn=adjsnn.collate_spikes)))
    batches = list(DataLoader(list(x), batch_size=2, collate_fn=adjsnn.collate_spikes))
    _equal(SpikeTrains.cat(batches), x)


def test_trains_are_pickled_and_asked_to_be_pinned():
    x = _trains()
    _equal(pickle.loads(pickle.dumps(x)), x)
    if torch.cuda.is_available():
        assert x.pin_memory().time.is_pinned()
    assert callable(x.pin_memory)


# ---- written to after they were made


def _write(name, at, value, x):
    with torch.no_grad():
        getattr(x, name)[at] = value


SPOILT = {
    "before the start": (partial(_write, "time", (0, 0), -0.5), "spike times from -0.5"),
    "after the end": (partial(_write, "time", (0, 1), 7.0), "to 7 ms"),
    "NaN": (partial(_write, "time", (0, 0), math.nan), "NaN among the spike times, first at sample 0"),
    "infinite": (partial(_write, "time", (0, 1), math.inf), "padding"),
    "minus infinity": (partial(_write, "time", (0, 0), -math.inf), "padding|spike times"),
    "no such neuron": (partial(_write, "idx", (0, 0), 2), "neuron indices from -?1 to 2"),
    "far away": (partial(_write, "idx", (0, 0), 1 << 40), "neuron indices"),
    "below": (partial(_write, "idx", (0, 0), -5), "neuron indices"),
    "a gap": (partial(_write, "idx", (0, 0), -1), "padding"),
    "no sign": (partial(_write, "sign", (0, 0), 3), "signs"),
    "finite padding": (partial(_write, "time", (1, 1), 5.0), "padding"),
    "another shape": (lambda x: setattr(x, "time", x.time[:, :1]), "the same shape|padding"),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", SPOILT)
def test_trains_that_were_spoilt_are_refused_by_whatever_reads_them(case, dtype):
    spoil, message = SPOILT[case]
    net = adjsnn.LIFNetwork(2, (2,), dtype=dtype)

    def fresh():
        return SpikeTrains.from_list([[(1.0, 0), (2.0, 1)], [(3.0, 1)]], n_neurons=2, t_max=6.0, dtype=dtype)

    readers = (
        lambda x: adjsnn.solve(net, x, t_end=6.0), lambda x: van_rossum(x, fresh()), lambda x: van_rossum(fresh(), x),
        lambda x: x.to_dense(1.0), lambda x: x.counts(), lambda x: x.between(0.0, 3.0), lambda x: SpikeTrains.cat([x, x]),
        lambda x: x.merge(fresh()), lambda x: x[:1], lambda x: x.to(dtype=torch.float64),
    )  # fmt: skip
    for read in readers:
        x = fresh()
        read(x)
        spoil(x)
        if "time" in case or case not in ("finite padding",):
            with pytest.raises(ConfigurationError, match=message):
                read(x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_times_that_moved_past_each_other_are_put_in_order_with_their_gradients(dtype, lif_kernels):
    net = adjsnn.LIFNetwork(2, (3,), dtype=dtype, generator=torch.Generator().manual_seed(2))
    time = torch.tensor([[1.0, 2.0, math.inf], [1.0, 2.0, 3.0]], dtype=dtype, requires_grad=True)
    x = SpikeTrains(torch.tensor([[0, 1, -1], [1, 0, 1]]), time, 2, 20.0)
    with torch.no_grad():  # as an optimiser does
        time[0, 0], time[1, 2] = 2.5, 0.5
    sol = adjsnn.solve(net, x, kernels=lif_kernels)
    loss = sol.final_state[0].v.square().sum() + sol.final_state[0].i.sum()
    (found,) = torch.autograd.grad(loss, time)
    rows = [[(2.0, 1), (2.5, 0)], [(0.5, 1), (1.0, 1), (2.0, 0)]]
    y = SpikeTrains.from_list(rows, n_neurons=2, t_max=20.0, dtype=dtype)
    y.time.requires_grad_()
    sorted_sol = adjsnn.solve(net, y, kernels=lif_kernels)
    assert torch.equal(sol.final_state[0].v, sorted_sol.final_state[0].v)
    value = sorted_sol.final_state[0].v.square().sum() + sorted_sol.final_state[0].i.sum()
    (expected,) = torch.autograd.grad(value, y.time)
    assert torch.equal(found[0, :2], expected[0, [1, 0]])
    assert torch.equal(found[1], expected[1, [1, 2, 0]])
    assert torch.equal(sol.voltage_max(), sorted_sol.voltage_max())


def test_latency_without_spikes_of_some_inputs():
    x = torch.tensor([[0.0, 0.5, 0.05], [0.02, 0.03, 0.01]], dtype=torch.float64, requires_grad=True)
    trains = SpikeTrains.latency(x, 20.0, skip=0.04)
    assert trains.to_list() == [[(1.0, 2), (10.0, 1)], []]
    assert trains.n_neurons == 3
    trains.time[trains.idx >= 0].sum().backward()
    assert torch.equal(x.grad, torch.tensor([[0.0, 20.0, 20.0], [0.0, 0.0, 0.0]], dtype=torch.float64))
    masked = SpikeTrains.latency(1.0 - x.detach(), 20.0, bias=3.0, skip=x < 0.04)
    assert masked.to_list() == [[(3.0, 3), (10.0, 1), (19.0, 2)], [(3.0, 3)]]
    assert torch.equal(SpikeTrains.latency(x, 20.0, skip=0.0).time, SpikeTrains.latency(x, 20.0).time)
    for wrong in (x.detach(), x[:, :2] < 0.1, "dark", float("nan")):
        with pytest.raises(ConfigurationError, match="skip"):
            SpikeTrains.latency(x, 20.0, skip=wrong)
