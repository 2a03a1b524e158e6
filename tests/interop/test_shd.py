"""HDF5 files of the form of SHD and SSC, written by h5py as their authors wrote theirs."""

import pickle
import sys

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from written_trains import assert_same

import adjsnn
from adjsnn import ConfigurationError, MissingPackageError, SpikeTrains
from adjsnn.interop import SHDDataset, from_shd


def write(path, times, units, labels, dtype=np.float16):
    with h5py.File(path, "w") as file:
        for name, rows, kind in (("times", times, dtype), ("units", units, np.uint16)):
            made = file.create_dataset(f"spikes/{name}", (len(rows),), dtype=h5py.vlen_dtype(kind))
            for k, row in enumerate(rows):
                made[k] = np.asarray(row, dtype=kind)
        file["labels"] = np.asarray(labels, dtype=np.uint16)
    return path


def random_file(path, dtype=np.float16, samples=12):
    generator = np.random.default_rng(0)
    lengths = [*generator.integers(200, 700, samples - 2), 1, 0]
    times = [generator.random(n) * 1.3 for n in lengths]  # in no order
    units = [generator.integers(0, 700, n) for n in lengths]
    return write(path, times, units, np.arange(samples) % 20, dtype), [t.astype(dtype) for t in times], units


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_all_spikes_in_their_order_to_the_bit(tmp_path, dtype):
    path, times, units = random_file(tmp_path / "x.h5", dtype)
    x, labels = from_shd(path, t_stop=1.4)
    assert labels.tolist() == [*range(12)]
    assert (x.batch, x.n_neurons, x.t_max) == (12, 700, 1400.0)
    assert len(x) == sum(len(t) for t in times)
    for row, t, n in zip(x.to_list(), times, units, strict=True):
        assert row == sorted(zip((t.astype(np.float64) * 1000.0).tolist(), n.tolist(), strict=True))


def test_ties_of_float16_are_many_and_ordered_by_neuron(tmp_path):
    path, times, _ = random_file(tmp_path / "x.h5")
    assert sum(len(t) - len(np.unique(t)) for t in times) > 100
    x, _ = from_shd(path, t_stop=1.4)
    tied = (x.time.diff(dim=1) == 0.0) & (x.idx[:, 1:] >= 0)
    assert int(tied.sum()) > 100
    assert bool((x.idx.diff(dim=1) >= 0)[tied].all())


def test_a_time_that_float16_would_lose_or_overflow(tmp_path):
    path = write(tmp_path / "x.h5", [[1.0009765625, 0.1]], [[3, 2]], [7])
    x, labels = from_shd(path, t_stop=1.4, n_neurons=5)
    assert x.time.tolist() == [[1000.0 * float(np.float16(0.1)), 1000.9765625]]
    assert labels.tolist() == [7]


def test_spikes_at_both_ends_and_files_in_milliseconds_with_another_start(tmp_path):
    path = write(tmp_path / "x.h5", [[20.0, 12.0, 10.0], [10.5]], [[0, 1, 2], [0]], [0, 1], np.float32)
    x, _ = from_shd(path, unit="ms", t_start=10.0, t_stop=20.0, n_neurons=3)
    assert x.to_list() == [[(0.0, 2), (2.0, 1), (10.0, 0)], [(0.5, 0)]]


def test_some_of_the_samples(tmp_path):
    path, _, _ = random_file(tmp_path / "x.h5")
    x, labels = from_shd(path, t_stop=1.4)
    some, their = from_shd(path, t_stop=1.4, which=[5, 2, -1])
    assert_same(some, x[[5, 2, 11]])
    assert their.tolist() == [5, 2, 11]
    assert from_shd(path, t_stop=1.4, which=slice(0, 3))[1].tolist() == labels[:3].tolist()
    with pytest.raises(ConfigurationError, match="which=12"):
        from_shd(path, t_stop=1.4, which=[12])
    with pytest.raises(ConfigurationError, match="one sample or more"):
        from_shd(path, t_stop=1.4, which=[])


def test_a_data_set_in_a_loader_is_the_file(tmp_path):
    path, _, _ = random_file(tmp_path / "x.h5")
    whole, labels = from_shd(path, t_stop=1.4, dtype=torch.float32)
    data = SHDDataset(path, t_stop=1.4, dtype=torch.float32)
    assert len(data) == 12
    for workers in (0, 2):
        batches = list(DataLoader(data, batch_size=5, collate_fn=adjsnn.collate_spikes, num_workers=workers))
        assert [x.batch for x, _ in batches] == [5, 5, 2]
        width = whole.idx.shape[1]
        assert len(SpikeTrains.cat([x for x, _ in batches])) == len(whole)
        assert_same(SpikeTrains.cat([x for x, _ in batches]), whole)
        assert torch.equal(torch.cat([y for _, y in batches]), labels)
        assert width == max(x.idx.shape[1] for x, _ in batches)
    x, label = data[-2]
    assert (len(x), x.batch, label) == (1, 1, 10)
    assert [y for _, y in data] == labels.tolist()  # ends with an IndexError
    assert len(pickle.loads(pickle.dumps(data))[0][0]) == len(data[0][0])
    for k in (12, -13, 1.5):
        with pytest.raises(ConfigurationError, match="12"):
            data[k]


def test_a_network_takes_a_batch(tmp_path):
    path = write(tmp_path / "x.h5", [[0.1, 0.02]] * 4, [[3, 5]] * 4, range(4))
    data = SHDDataset(path, t_stop=0.2, n_neurons=7, dtype=torch.float32)
    x, labels = next(iter(DataLoader(data, 4, collate_fn=adjsnn.collate_spikes)))
    sol = adjsnn.solve(adjsnn.LIFNetwork(7, 2), x, t_end=200.0)
    assert sol.layer_spikes[0].batch == len(labels) == 4


def test_spikes_outside_are_counted_or_dropped(tmp_path):
    path = write(tmp_path / "x.h5", [[0.5], [1.5, 0.25, 2.0]], [[0], [1, 2, 3]], [0, 1])
    with pytest.raises(ConfigurationError, match="2 of 4 spikes outside 0 … 1 s, the first of neuron 1 in sample 1 at 1.5 s"):
        from_shd(path, t_stop=1.0)
    assert len(from_shd(path, t_stop=1.0, outside="drop")[0]) == 2


def _broken(path, change):
    write(path, [[0.5], [0.25, 0.75]], [[0], [1, 2]], [0, 1])
    with h5py.File(path, "a") as file:
        change(file)
    return path


def _replace(name, value):
    def change(file):
        del file[name]
        if value is not None:
            file[name] = value

    return change


def _shorter(file):
    file["spikes/units"][1] = np.array([1], dtype=np.uint16)


def _half(file):
    del file["spikes/units"]
    rows = file.create_dataset("spikes/units", (2,), dtype=h5py.vlen_dtype(np.float64))
    rows[0], rows[1] = np.array([0.5]), np.array([1.0, 2.0])


def _nan(file):
    file["spikes/times"][0] = np.array([np.nan], dtype=np.float16)


REFUSED = {
    "no times": (_replace("spikes/times", None), {}, "without a row of spikes/times"),
    "no units": (_replace("spikes/units", None), {}, "without a row of spikes/units"),
    "no labels": (_replace("labels", None), {}, "without a row of labels"),
    "frames": (_replace("labels", np.zeros((2, 3, 4))), {}, "without a row of labels"),
    "fewer labels": (_replace("labels", [0]), {}, "one entry for each sample"),
    "labels of floats": (_replace("labels", [0.5, 1.0]), {}, "labels"),
    "fewer units than times": (_shorter, {}, r"spikes/units\[1\] of shape \(1,\)"),
    "half a neuron": (_half, {}, r"spikes/units\[0\]"),
    "which is one": (lambda file: None, {"which": 1}, "which=1; expected a row"),
    "a slice of words": (lambda file: None, {"which": slice("a", None)}, "which=slice"),
    "a slice in steps of 0": (lambda file: None, {"which": slice(0, 2, 0)}, "which=slice"),
    "NaN": (_nan, {}, r"1 of 1 in spikes/times\[0\] that are NaN"),
    "too few neurons": (lambda file: None, {"n_neurons": 2}, "neurons from 0 to 2"),
    "another unit": (lambda file: None, {"unit": "mV"}, "unit"),
    "a stop before the start": (lambda file: None, {"t_stop": -1.0}, "from 0 to -1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be(case, tmp_path):
    change, options, message = REFUSED[case]
    with pytest.raises(ConfigurationError, match=message):
        from_shd(_broken(tmp_path / "x.h5", change), **{"t_stop": 1.0} | options)


def test_files_that_cannot_be_read(tmp_path):
    path, _, _ = random_file(tmp_path / "x.h5")
    raw = path.read_bytes()
    for length in (len(raw) // 2, len(raw) - 10, 100, 0):
        (tmp_path / "cut.h5").write_bytes(raw[:length])
        with pytest.raises(ConfigurationError, match="cannot be read"):
            SHDDataset(tmp_path / "cut.h5", t_stop=1.4)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        from_shd(tmp_path / "no.h5", t_stop=1.4)


def test_without_h5py(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingPackageError, match=r'pip install "adjsnn\[shd\]"'):
        from_shd(tmp_path / "x.h5", t_stop=1.4)
