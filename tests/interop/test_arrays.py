"""Columns of spikes as simulators record them, and units."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import quantities as pq
import torch
from pint_units import REGISTRY as PINT
from written_trains import assert_same, random_trains

import adjsnn
from adjsnn import ConfigurationError, SpikeTrains
from adjsnn.interop import from_arrays, to_arrays
from adjsnn.interop.units import KNOWN, from_ms, in_ms, unit_of

THREE = {"ids": [2, 0, 1], "n_neurons": 3}


def test_columns_there_and_back_to_the_bit():
    x = random_trains()
    columns = to_arrays(x, unit="ms")
    shuffle = np.random.default_rng(0).permutation(len(x))
    times, ids, samples, signs = (c[shuffle] for c in columns)
    y = from_arrays(times, ids, samples=samples, signs=signs, unit="ms", n_neurons=5, t_stop=1100.0, batch=3)
    assert_same(x, y)
    assert y.t_max == 1100.0


def doubles(n=100_000):
    """Of all sizes that times have, in ms."""
    generator = np.random.default_rng(0)
    return np.concatenate([generator.random(n) * 10.0 ** generator.integers(-3, 7, n), np.arange(20_000) / 10.0])


@pytest.mark.parametrize(("unit", "share"), [("s", 0.985), ("us", 0.975), ("ms", 1.0), ("min", 0.0)])
def test_times_come_back_from_a_unit_to_the_bit_where_a_double_of_it_does(unit, share):
    """Otherwise within one rounding. Shares: half of those from 1 to 1.024 s are stepped over, and 0.024 of all in us."""
    time, known = doubles(), KNOWN[unit]
    there = from_ms(time, known)
    back = in_ms(torch.from_numpy(there), known).numpy()
    assert (back == time).mean() >= share
    assert (np.abs(back - time) <= np.spacing(time)).all()
    with np.errstate(over="ignore"):
        for other in (np.nextafter(there, -np.inf), np.nextafter(there, np.inf)):  # no neighbour would have done better
            assert not ((in_ms(torch.from_numpy(other), known).numpy() == time) & (back != time)).any()


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_a_time_becomes_the_double_nearest_to_what_it_is_in_ms(unit):
    factor = {"s": Fraction(1000), "us": Fraction(1, 1000), "ns": Fraction(1, 10**6)}[unit]
    for t in np.random.default_rng(1).random(200) * 1e3:
        assert float(in_ms(torch.tensor(t, dtype=torch.float64), KNOWN[unit])) == float(Fraction(t) * factor)


@pytest.mark.parametrize(
    "unit",
    ["s", "second", "seconds", pq.s, PINT.second, PINT.Quantity(1.0, "s")],
)
def test_units_by_name_and_as_objects(unit):
    assert unit_of(unit) == KNOWN["s"]
    assert from_arrays([3, 1, 2], **THREE, unit=unit, t_stop=3).time.tolist() == [[1000.0, 2000.0, 3000.0]]


def test_all_names_of_a_unit():
    for names in (["us", "µs", "μs", "usec", "microsecond", "microseconds", pq.us, PINT.us], ["ms", "msec", pq.ms, PINT.ms]):
        assert len({unit_of(x) for x in names}) == 1
    step = pq.UnitQuantity("step", 0.1 * pq.ms)
    for unit in (step, 0.1 * pq.ms, PINT.Quantity(0.1, "ms")):
        x = from_arrays(np.array([30, 12, 7]), **THREE, unit=unit, t_stop=100)
        assert x.time.tolist() == [[0.1 * 7, 0.1 * 12, 0.1 * 30]]


def test_times_that_know_their_unit():
    wanted = [[0.001, 0.002, 0.003]]
    for times in (np.array([3, 1, 2]) * pq.us, PINT.Quantity(np.array([3, 1, 2]), "us")):
        x = from_arrays(times, **THREE, t_stop=4.0 * pq.us, t_start=PINT.Quantity(0, "ms"))
        assert x.time.tolist() == wanted
        assert x.t_max == 0.004
        with pytest.raises(ConfigurationError, match="in us with unit='ms'"):
            from_arrays(times, **THREE, unit="ms", t_stop=4.0)


class InSI(np.ndarray):
    """A quantity of Brian2: numbers in SI units that know their dimension, here by its exponent of time and of mass."""

    def __new__(cls, value, time=1, mass=0):
        new = np.array(value, dtype=np.float64).view(cls)
        new.dim = SimpleNamespace(get_dimension={"length": 2 * mass, "mass": mass, "time": time, "current": -mass}.get)
        return new

    def __array_finalize__(self, other):
        self.dim = getattr(other, "dim", None)

    def __iter__(self):
        return (self[k : k + 1].reshape(()) for k in range(len(self)))


def test_an_array_of_brian2_is_in_seconds_whatever_it_prints():
    times = InSI([0.003, 0.001, 0.002])
    assert from_arrays(times, **THREE, t_stop=0.004).time.tolist() == [[1.0, 2.0, 3.0]]
    with pytest.raises(ConfigurationError, match="in s with unit='ms'"):
        from_arrays(times, **THREE, unit="ms", t_stop=4.0)
    with pytest.raises(ConfigurationError, match="comes to s"):
        from_arrays(InSI([0.003, 0.001, 0.002], time=-3, mass=1), **THREE, t_stop=0.004)


def test_ends_in_brian2s_seconds_beside_times_in_milliseconds():
    for start, stop in ((InSI(0.01), InSI(0.06)), (InSI([0.01]), InSI([0.06]))):
        x = from_arrays([50.0, 30.0, 20.0], **THREE, unit="ms", t_start=start, t_stop=stop)
        assert x.time.tolist() == [[10.0, 20.0, 40.0]]
        assert x.t_max == 50.0
    with pytest.raises(ConfigurationError, match="t_stop"):
        from_arrays([50.0, 30.0, 20.0], **THREE, unit="ms", t_stop=InSI(0.06, time=-3, mass=1))


def test_a_list_of_quantities_knows_its_unit_too():
    for times in ([3 * pq.us, 1 * pq.us, 2 * pq.us], [PINT.Quantity(k, "us") for k in (3, 1, 2)], [*InSI([3e-6, 1e-6, 2e-6])]):
        assert from_arrays(times, **THREE, t_stop=1.0 * pq.s).time.tolist() == [[0.001, 0.002, 0.003]]
        with pytest.raises(ConfigurationError, match="with unit='ms'"):
            from_arrays(times, **THREE, unit="ms", t_stop=1.0)
    for mixed in ([3 * pq.us, 1 * pq.ms, 2 * pq.us], [3 * pq.us, 1.0, 2 * pq.us]):
        with pytest.raises(ConfigurationError, match="unit"):
            from_arrays(mixed, **THREE, t_stop=1.0)


@pytest.mark.parametrize("unit", [0.0 * pq.ms, -1.0 * pq.ms, 0.0 * PINT.ms])
def test_a_unit_of_no_length(unit):
    with pytest.raises(ConfigurationError, match=r"unit=-?[01]\.0"):
        from_arrays([1.0], [0], n_neurons=1, unit=unit, t_stop=1.0)


def test_a_sign_is_not_taken_modulo_256():
    with pytest.raises(ConfigurationError, match="signs other than"):
        from_arrays([3.0, 1.0, 2.0], **THREE, unit="ms", t_stop=4.0, signs=[257, 1, 1])


@pytest.mark.parametrize("wrong", ["mV", "m", "", None, 3, pq.mV, PINT.mV, 2.0 * pq.m, ["ms"]])
def test_a_unit_that_is_none_of_time(wrong):
    with pytest.raises(ConfigurationError, match="unit"):
        from_arrays([1.0], [0], n_neurons=1, unit=wrong, t_stop=1.0)


# ---- what recordings are like


def test_integers_of_any_width_are_widened_first():
    for dtype in (np.int16, np.uint8, np.int64, np.uint32, np.float16):
        x = from_arrays(np.array([200, 100, 50]).astype(dtype), **THREE, unit="s", t_stop=1000)
        assert x.time.tolist() == [[50_000.0, 100_000.0, 200_000.0]]


def test_whole_times_since_an_epoch_lose_nothing():
    first = 1_600_000_000_000_000  # µs since 1970: in ms float64 has them 0.2 µs apart
    x = from_arrays(first + np.array([3, 0, 1001]), **THREE, unit="us", t_start=first, t_stop=first + 2000)
    assert x.time.tolist() == [[0.0, 0.003, 1.001]]
    with pytest.raises(ConfigurationError, match=r"2\^53"):
        from_arrays(1000 * first + np.array([3, 0, 1]), **THREE, unit="ns", t_stop=2e18)


def test_ties_are_ordered_by_neuron_and_then_as_they_came():
    x = from_arrays([1.0, 1.0, 1.0, 0.5], [2, 0, 0, 1], signs=[1, -1, 1, 1], n_neurons=3, unit="ms", t_stop=2.0)
    assert x.idx.tolist() == [[1, 0, 0, 2]]
    assert x.sign.tolist() == [[1, -1, 1, 1]]


def test_both_ends_are_inside_and_starts_are_subtracted():
    x = from_arrays(
        [2.0, 7.5, 3.0, 10.0], [0, 0, 1, 1], samples=[0, 0, 1, 1], n_neurons=2, unit="s", t_start=[2.0, 3.0], t_stop=[7.5, 10.0]
    )
    assert x.to_list() == [[(0.0, 0), (5500.0, 0)], [(0.0, 1), (7000.0, 1)]]
    assert x.t_max == 7000.0


def test_samples_and_neurons_without_spikes_stay():
    x = from_arrays([], [], n_neurons=4, unit="ms", t_stop=3.0, batch=2)
    assert (len(x), x.batch, x.n_neurons, x.t_max) == (0, 2, 4, 3.0)
    assert from_arrays([1.0], [0], samples=[1], n_neurons=4, unit="ms", t_stop=3.0, batch=3).counts().sum(1).tolist() == [
        0,
        1,
        0,
    ]


def test_ids_of_a_simulator():
    x = from_arrays([1.0, 2.0, 3.0], [17, 15, 17], neurons=[15, 16, 17], unit="ms", t_stop=4.0)
    assert x.to_list() == [[(1.0, 2), (2.0, 0), (3.0, 2)]]
    assert x.n_neurons == 3


def test_gradients_pass_in_and_stop_on_the_way_out():
    time = torch.tensor([0.003, 0.001, 0.002], dtype=torch.float64, requires_grad=True)
    x = from_arrays(time, **THREE, unit="s", t_start=0.0005, t_stop=0.004)
    weights = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64)
    (x.time * weights).sum().backward()
    assert time.grad.tolist() == [4000.0, 1000.0, 2000.0]
    assert isinstance(to_arrays(x, unit="ms").times, np.ndarray)


def test_a_network_takes_what_was_read():
    x = from_arrays([1, 2, 3], [0, 1, 0], n_neurons=2, unit="ms", t_stop=20, dtype=torch.float32)
    assert x.time.dtype == torch.float32
    net = adjsnn.LIFNetwork(2, 3)
    assert adjsnn.solve(net, x, t_end=20.0).layer_spikes[0].batch == 1


def test_spikes_outside_are_counted_or_dropped():
    columns = {"ids": [0, 1, 1, 0], "n_neurons": 2, "unit": "s", "t_start": 1.0, "t_stop": 2.0}
    with pytest.raises(ConfigurationError, match=r"2 of 4 spikes outside 1 … 2 s, the first of neuron 1 in sample 0 at 0.5 s"):
        from_arrays([1.0, 0.5, 2.0, 2.5], **columns)
    assert from_arrays([1.0, 0.5, 2.0, 2.5], **columns, outside="drop").to_list() == [[(0.0, 0), (1000.0, 1)]]


REFUSED = {
    "frames": ({"times": np.zeros((3, 4))}, "column of spike times"),
    "text": ({"times": ["a", "b", "c"]}, "times"),
    "NaN": ({"times": [1.0, np.nan, np.inf]}, "2 of 3 in times that are NaN"),
    "no unit": ({"unit": None}, "without a unit"),
    "fewer ids": ({"ids": [0, 1]}, "3 of them"),
    "ids of floats": ({"ids": [0.0, 1.0, 2.0]}, "whole numbers"),
    "bools": ({"times": [True, False, True]}, "bool"),
    "a neuron too many": ({"n_neurons": 2}, r"neurons from 0 to 2; expected 0 … 1"),
    "a negative neuron": ({"ids": [0, -1, 2]}, "from -1"),
    "no number of neurons": ({"n_neurons": None}, "number of neurons"),
    "unknown ids": ({"neurons": [0, 1], "n_neurons": None}, "1 of 3 spikes of neurons that are not in neurons, the first 2"),
    "ids twice": ({"neurons": [0, 1, 1, 2], "n_neurons": None}, "4 neurons, 1 of them again"),
    "two numbers": ({"neurons": [0, 1, 2]}, None),
    "another number": ({"neurons": [0, 1, 2], "n_neurons": 4}, "n_neurons=4"),
    "samples": ({"samples": [0, 1, 5], "batch": 2}, "samples from 0 to 5"),
    "starts": ({"t_start": [0.0, 1.0], "batch": 3}, "2 numbers in t_start"),
    "a stop before the start": ({"t_start": 5.0, "t_stop": 4.0}, "sample 0 from 5 to 4"),
    "signs": ({"signs": [1, 0, 1]}, "signs"),
    "signs of another length": ({"signs": [1]}, "3 of them"),
    "a word": ({"outside": "ignore"}, "ignore"),
    "a dtype": ({"dtype": torch.int64}, "dtype"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_columns_that_cannot_be(case):
    change, message = REFUSED[case]
    columns = {"times": [1.0, 2.0, 3.0], "ids": [0, 1, 2], "n_neurons": 3, "unit": "ms", "t_stop": 5.0} | change
    if message is None:
        assert len(from_arrays(**columns)) == 3
        return
    with pytest.raises(ConfigurationError, match=message):
        from_arrays(**columns)


def test_only_spike_trains_go_out():
    with pytest.raises(ConfigurationError, match="SpikeTrains"):
        to_arrays(torch.zeros(3), unit="ms")
    with pytest.raises(ConfigurationError, match="unit"):
        to_arrays(random_trains(), unit="mV")


# ---- samples, one by one and together


def test_samples_with_labels_in_a_loader():
    x, labels = random_trains(batch=6), torch.arange(6)
    loader = torch.utils.data.DataLoader(
        list(zip(x, labels, strict=True)), batch_size=3, collate_fn=adjsnn.collate_spikes, shuffle=False
    )
    batches = list(loader)
    assert [y.tolist() for _, y in batches] == [[0, 1, 2], [3, 4, 5]]
    assert_same(SpikeTrains.cat([b for b, _ in batches]), x)
    assert_same(SpikeTrains.cat(list(x)), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dt", [0.05, 0.1, 0.2, 0.25])
def test_decimal_times_on_a_grid_land_in_the_bins_they_name(dt, dtype):
    k = np.arange(2001)  # 0, 0.1, 0.2, … as they are written
    whole = from_arrays([float(f"{n / 10:.1f}") for n in k], np.zeros_like(k), n_neurons=1, unit="ms", t_stop=201.0)
    dense = whole.to(dtype=dtype).to_dense(dt)[:, 0, 0]
    wanted = torch.bincount(torch.tensor([int(Fraction(int(n), 10) / Fraction(str(dt))) for n in k]), minlength=len(dense))
    assert torch.equal(dense, wanted.to(dtype))
