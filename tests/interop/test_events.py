"""Events of cameras and cochleas: structured arrays as tonic has them, and files that faery writes."""

import sys
from pathlib import Path

import numpy as np
import pytest
import quantities as pq
import torch

import adjsnn
from adjsnn import ConfigurationError, MissingPackageError
from adjsnn.interop import from_events

TONIC = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])


def events(t, x, y=None, p=None, dtype=TONIC):
    made = np.zeros(len(t), dtype=dtype)
    for name, values in (("t", t), ("x", x), ("y", y), ("p", p)):
        if values is not None:
            made[name] = values
    return made


def random_events(n=400, width=34, height=30, first=0, last=50_000):
    generator = np.random.default_rng(n)
    time = np.sort(generator.integers(first, last, n))
    return events(time, generator.integers(width, size=n), generator.integers(height, size=n), generator.integers(2, size=n))


def expected(e, width, height, start=0):
    """(ms, neuron) by hand."""
    neuron = (e["p"].astype(int) * height + e["y"].astype(int)) * width + e["x"].astype(int)
    return sorted(zip(((e["t"].astype(np.int64) - start) / 1000.0).tolist(), neuron.tolist(), strict=True))


def test_all_events_to_the_bit_at_their_place_of_the_image():
    e = random_events()
    x = from_events(e, unit="us", sensor=(34, 30), t_stop=50_000)
    assert x.to_list() == [expected(e, 34, 30)]
    assert (x.n_neurons, x.t_max) == (2040, 50.0)
    image = x.counts().view(2, 30, 34)
    wanted = torch.zeros_like(image)
    np.add.at(wanted.numpy(), (e["p"].astype(int), e["y"], e["x"]), 1)
    assert torch.equal(image, wanted)


@pytest.mark.parametrize("values", [(0, 1), (-1, 1)])
def test_polarities_as_signs(values):
    e = random_events()
    signed = np.zeros(len(e), dtype=[("t", "f8"), ("x", "u2"), ("y", "u2"), ("p", "i1")])
    for name in ("t", "x", "y"):
        signed[name] = e[name]
    signed["p"] = np.where(e["p"], values[1], values[0])
    x = from_events(signed, unit=pq.us, sensor=(34, 30, 2), polarity="sign", t_stop=50.0 * pq.ms)
    assert x.n_neurons == 1020
    assert int(x.sign.sum()) == 2 * int(e["p"].sum()) - len(e)
    both = from_events(signed, unit="us", sensor=(34, 30), t_stop=50_000)
    order = np.lexsort((both.idx[0].numpy() % 1020, both.time[0].numpy()))
    assert torch.equal(x.time[0], both.time[0][order])
    assert torch.equal(x.idx[0], both.idx[0][order] % 1020)
    assert torch.equal(x.sign[0] > 0, both.idx[0][order] >= 1020)


def test_recordings_unsorted_empty_and_with_starts_of_their_own():
    late = random_events(50, first=1_600_000_000_000_000, last=1_600_000_000_020_000)[::-1]
    data = [late, events([], []), events([7], [3], [2], [1])]
    x = from_events(data, unit="us", sensor=(34, 30), t_start="first", t_stop="last")
    assert x.to_list() == [expected(late, 34, 30, int(late["t"].min())), [], [(0.0, 30 * 34 + 2 * 34 + 3)]]
    assert x.t_max == (int(late["t"].max()) - int(late["t"].min())) / 1000.0  # the last is at the very end
    y = from_events(data[2:], unit="us", sensor=(34, 30), t_start=[5], t_stop=[20])
    assert (y.time.tolist(), y.t_max) == ([[0.002]], 0.015)


def test_a_sensor_of_one_number_of_numpy():
    e = events([1], [1])[["t", "x", "p"]]
    assert (
        from_events(e, unit="us", sensor=np.int64(4), t_stop=5).n_neurons
        == from_events(e, unit="us", sensor=4, t_stop=5).n_neurons
    )


def test_a_cochlea_has_channels_alone():
    e = np.zeros(3, dtype=[("t", np.int32), ("x", np.uint8), ("p", np.int8)])
    e["t"], e["x"], e["p"] = [30, 10, 10], [255, 200, 199], 1
    for sensor in (700, (700, 1, 1), np.array([700, 1, 1])):
        x = from_events(e, unit="us", sensor=sensor, t_stop=40)
        assert x.to_list() == [[(0.01, 199), (0.01, 200), (0.03, 255)]]
        assert x.n_neurons == 700
    assert from_events(e[["t", "x"]], unit="ms", sensor=(700, 1, 1), t_stop=40).t_max == 40.0


def test_places_of_a_large_sensor_do_not_overflow():
    x = from_events(events([1], [639], [479], [1]), unit="us", sensor=(640, 480), t_stop=1)
    assert x.to_list() == [[(0.001, 2 * 640 * 480 - 1)]]


def test_a_convolution_takes_a_recording():
    x = from_events(random_events(40, 6, 6), unit="us", sensor=(6, 6), t_stop=50_000, dtype=torch.float32)
    net = adjsnn.LIFConv2d((2, 6, 6), [adjsnn.Conv2d(2, 3)])
    assert adjsnn.solve(net, x, t_end=50.0).layer_spikes[0].batch == 1


def test_events_outside_are_counted_or_dropped():
    e = events([10, 20, 30, 40], [0, 1, 2, 3])
    with pytest.raises(ConfigurationError, match="2 of 4 spikes outside 15 … 30 us, the first of neuron 0 in .* at 10 us"):
        from_events(e, unit="us", sensor=(4, 4), t_start=15, t_stop=30)
    assert len(from_events(e, unit="us", sensor=(4, 4), t_start=15, t_stop=30, outside="drop")) == 2


ONE = {"unit": "us", "sensor": (4, 4), "t_stop": 100}
REFUSED = {
    "frames": (np.zeros((10, 2, 4, 4)), {}, r"ndarray of shape \(10, 2, 4, 4\), recording 0, which has no fields: frames"),
    "frames of torch": (torch.zeros(10, 2, 4, 4), {}, "frames"),
    "a list of frames": ([events([1], [1]), np.zeros((3, 4))], {}, "recording 1, which has no fields"),
    "no recordings": ([], {}, "no recordings"),
    "no unit": (events([1], [1]), {"unit": None}, "unit"),
    "another unit": (events([1], [1]), {"unit": "mV"}, "unit"),
    "no sensor": (events([1], [1]), {"sensor": None}, "the size of the sensor"),
    "a sensor of four": (events([1], [1]), {"sensor": (4, 4, 2, 2)}, r"sensor=\(4, 4, 2, 2\)"),
    "a sensor that is no count": (events([1], [1]), {"sensor": 4.0}, r"sensor=4\.0"),
    "no places": (np.zeros(3, dtype=[("t", "i8"), ("p", "i1")]), {}, r"without \['x', 'y'\]"),
    "no polarities": (events([1], [1])[["t", "x", "y"]], {}, r"without \['p'\]"),
    "no signs": (events([1], [1])[["t", "x", "y"]], {"polarity": "sign"}, r"without \['p'\]"),
    "rows": (events([1, 2], [1, 1]).reshape(1, 2), {}, r"shape \(1, 2\)"),
    "off the sensor": (events([1, 2], [1, 4]), {}, "1 of 2 events of recording 0 off the sensor, the first at x=4"),
    "before the sensor": (events([1, 2], [1, 1], [0, -3]), {}, "y=-3"),
    "polarities": (
        np.array([(1, 1, 1, 7)], dtype=[("t", "i8"), ("x", "i2"), ("y", "i2"), ("p", "i1")]),
        {},
        r"polarities \[7\]",
    ),
    "two where one is said": (events([1, 2], [1, 1], [0, 0], [0, 1]), {"sensor": (4, 4, 1)}, "both polarities"),
    "NaN": (np.array([(np.nan, 1, 1, 1)], dtype=[("t", "f8"), ("x", "i2"), ("y", "i2"), ("p", "i1")]), {}, "NaN"),
    "a polarity": (events([1], [1]), {"polarity": "both"}, "both"),
    "a word": (events([1], [1]), {"t_stop": "first"}, "first"),
    "a stop before the start": (events([1], [1]), {"t_start": 200}, "from 200 to 100"),
    "a file in another unit": ("x.aedat4", {"unit": "ms"}, "unit='ms' of files"),
    "an array beside a file": (["x.aedat4", events([1], [1])], {"unit": None}, "unit=None"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be(case):
    data, change, message = REFUSED[case]
    with pytest.raises(ConfigurationError, match=message):
        from_events(data, **ONE | change)


def test_files_without_their_reader(monkeypatch):
    monkeypatch.setitem(sys.modules, "faery", None)
    with pytest.raises(MissingPackageError, match=r'pip install "adjsnn\[events\]"'):
        from_events("x.aedat4", t_stop=1)


# ---- files

FORMATS = [(".aedat4", {}), (".dat", {}), (".raw", {"version": "evt2"}), (".raw", {"version": "evt3"}), (".es", {})]


def _file(path, e, sensor=(34, 30), **version):
    faery = pytest.importorskip("faery")
    data = np.zeros(len(e), dtype=faery.EVENTS_DTYPE)
    for name in ("t", "x", "y", "p"):
        data[name] = e[name]
    faery.events_stream_from_array(data, sensor).to_file(path, **version)
    return path


@pytest.mark.parametrize(("suffix", "version"), FORMATS, ids=[x[0] + "".join(x[1].values()) for x in FORMATS])
def test_files_to_the_bit(suffix, version, tmp_path):
    """Many, one, ties, and a second without events; .es counts from its first event."""
    tied = random_events(500, last=200)
    gap = np.concatenate([random_events(100), random_events(101, first=1_050_000, last=1_100_000)])
    for k, e in enumerate((random_events(), random_events(1), tied, gap)):
        path = _file(tmp_path / f"{k}{suffix}", e, **version)
        start = int(e["t"].min()) if suffix == ".es" else 0
        for given in (path, str(path)):
            x = from_events(given, sensor=(34, 30), t_stop="last")
            assert x.to_list() == [expected(e, 34, 30, start)]


def test_a_file_that_names_its_sensor(tmp_path):
    path = _file(tmp_path / "x.aedat4", random_events())
    assert from_events([path, path], t_start="first", t_stop="last").n_neurons == 2040
    with pytest.raises(ConfigurationError, match="the size of the sensor"):
        from_events([path, random_events()], unit="us", t_stop="last")


def test_a_file_that_dv_processing_wrote():
    """Its MonoCameraWriter, 2.0.4, with a sensor of 6 by 4: (t, x, y, p) as below."""
    pytest.importorskip("faery")
    recorded = [(1000, 0, 0, 1), (1000, 5, 3, 0), (2500, 1, 2, 1), (40_000, 5, 0, 1)]
    x = from_events(Path(__file__).with_name("dv_processing.aedat4"), t_stop=40_000)
    assert x.n_neurons == 48
    assert x.to_list() == [sorted((t / 1000.0, (p * 4 + y) * 6 + x) for t, x, y, p in recorded)]


def test_events_of_a_second_camera_start_where_they_start(tmp_path):
    e = random_events(300, first=3_000_000_000, last=3_000_050_000)
    path = _file(tmp_path / "x.aedat4", e)
    x = from_events([e, path], unit="us", sensor=(34, 30), t_start="first", t_stop=3_000_050_000)
    assert x.to_list() == 2 * [expected(e, 34, 30, int(e["t"][0]))]


def _evt3(recorded):
    """Words of EVT 3.0 by its specification: high and low 12 bits of a time, y, then x with the polarity."""
    words, high = [], None
    for t, x, y, p in recorded:
        if t >> 12 != high:
            high = t >> 12
            words.append(0x8000 | high & 0xFFF)
        words += [0x6000 | t & 0xFFF, y, 0x2000 | p << 11 | x]
    return b"% evt 3.0\n% geometry 34x30\n% end\n" + np.array(words, dtype="<u2").tobytes()


def test_a_file_written_word_by_word(tmp_path):
    """Times pass 2^12 µs between events and 2^24 µs in all, which readers of this format have missed."""
    pytest.importorskip("faery")
    recorded = [(t, t % 34, t % 30, t % 2) for t in range(3087, 20_000_000, 4999)]
    (tmp_path / "x.raw").write_bytes(_evt3(recorded))
    x = from_events(tmp_path / "x.raw", sensor=(34, 30), t_stop="last")
    assert x.time[0].tolist() == [t / 1000.0 for t, *_ in recorded]
    assert x.idx[0].tolist() == [(p * 30 + y) * 34 + x for _, x, y, p in recorded]


def test_a_dat_file_of_another_type_names_its_reader(tmp_path):
    pytest.importorskip("faery")
    (tmp_path / "x.dat").write_bytes(b"% Height 240\n% Width 304\n\x00\x08" + bytes(16))
    with pytest.raises(ConfigurationError, match=r"type \"2d\".*Try: the array that expelliarmus"):
        from_events(tmp_path / "x.dat", t_stop="last")


@pytest.mark.parametrize(("suffix", "version"), FORMATS[:4], ids=[x[0] + "".join(x[1].values()) for x in FORMATS[:4]])
def test_files_that_cannot_be_read(suffix, version, tmp_path):
    path = _file(tmp_path / f"x{suffix}", random_events(), **version)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 + 1 if suffix == ".aedat4" else -1])
    for file, message in ((path, "cannot be read|ends . bytes into"), (tmp_path / f"no{suffix}", "cannot be read")):
        with pytest.raises(ConfigurationError, match=message):
            from_events(file, sensor=(34, 30), t_stop=50_000)


def test_a_file_of_another_kind(tmp_path):
    pytest.importorskip("faery")
    with pytest.raises(ConfigurationError, match=r"suffix '\.mp4'"):
        from_events(tmp_path / "x.mp4", sensor=(34, 30), t_stop=50_000)
    (tmp_path / "x.aedat4").write_bytes(b"no events")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        from_events(tmp_path / "x.aedat4", sensor=(34, 30), t_stop=50_000)
