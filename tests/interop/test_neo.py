"""Spike trains of neo, and files that neo writes."""

import sys
from datetime import UTC, datetime

import neo
import numpy as np
import pytest
import quantities as pq
import torch
from written_trains import assert_same, random_trains

from adjsnn import ConfigurationError, MissingPackageError, SpikeTrains
from adjsnn.interop import from_neo, from_nwb, to_neo


def train(times, unit="ms", **window):
    return neo.SpikeTrain(times, units=unit, **({"t_start": 0.0, "t_stop": 10.0} | window))


def segment(*trains, signals=()):
    made = neo.Segment()
    made.spiketrains.extend(trains)
    made.analogsignals.extend(signals)
    return made


def written(made, path):
    """A block that neo's pickle writer wrote and its reader read."""
    neo.io.PickleIO(str(path)).write_block(made)
    return neo.io.PickleIO(str(path)).read_block()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("signs", [False, True])
def test_there_and_back_to_the_bit(dtype, signs, tmp_path):
    x = random_trains(signs=signs).to(dtype=dtype)
    y = from_neo(written(to_neo(x), tmp_path / "x.pkl"), dtype=dtype)
    assert_same(x, y)
    assert y.t_max == x.t_max
    assert all((t.t_start, t.t_stop) == (0.0, 1100.0) for s in to_neo(x).segments for t in s.spiketrains)


def test_the_end_in_float32_and_silent_trains_go_there_and_back():
    end = torch.tensor([[0.5, 0.3]]).float()
    x = SpikeTrains(torch.tensor([[1, 1]]), end.flip(1), 3, 0.5)
    assert_same(from_neo(to_neo(x), dtype=torch.float32), x)
    silent = SpikeTrains.from_list([[], []], n_neurons=2, t_max=5.0)
    assert from_neo(to_neo(silent)).t_max == 5.0
    assert from_neo(to_neo(silent)).batch == 2


# ---- what files are like


def test_unsorted_trains_in_several_units_and_a_start_that_is_not_zero(tmp_path):
    made = segment(
        train([5.5, 3.25, 9.0], t_start=2.0), train([0.0075, 0.002], "s", t_start=0.002, t_stop=0.01), train([], t_start=2.0)
    )
    x = from_neo(written(neo_block(made), tmp_path / "x.pkl"))
    assert x.to_list() == [[(0.0, 1), (1.25, 0), (3.5, 0), (5.5, 1), (7.0, 0)]]
    assert (x.n_neurons, x.t_max) == (3, 8.0)


def neo_block(*segments):
    made = neo.Block()
    made.segments.extend(segments)
    return made


def test_several_segments_each_with_its_own_start(tmp_path):
    made = neo_block(
        segment(train([1.0, 2.0]), train([4.0])),
        segment(train([21.0], t_start=20, t_stop=35.0), train([35.0], t_start=20, t_stop=35.0)),
    )
    for data in (made, made.segments, [list(s.spiketrains) for s in made.segments], written(made, tmp_path / "x.pkl")):
        x = from_neo(data)
        assert x.to_list() == [[(1.0, 0), (2.0, 0), (4.0, 1)], [(1.0, 0), (15.0, 1)]]
        assert x.t_max == 15.0


def test_trains_side_by_side_are_neurons():
    one = train([1.0, 2.0])
    assert from_neo(one).n_neurons == 1
    for data in ([one, train([3.0])], segment(one, train([3.0])), segment(one, train([3.0])).spiketrains):
        x = from_neo(data)
        assert (x.batch, x.n_neurons, x.to_list()) == (1, 2, [[(1.0, 0), (2.0, 0), (3.0, 1)]])


def test_one_spike_and_one_at_the_very_end_and_ties(tmp_path):
    made = [train([10.0]), train([10.0]), train([0.0])]
    for data in (made, written(neo_block(segment(*made)), tmp_path / "x.pkl")):
        assert from_neo(data).to_list() == [[(0.0, 2), (10.0, 0), (10.0, 1)]]


def test_trains_of_float32_are_widened_before_they_are_scaled():
    times = np.array([1.1, 1.3], dtype=np.float32)
    x = from_neo(train(times, "s"))
    assert x.time.tolist() == [[float(t) * 1000.0 for t in times]]


def test_trains_of_integers_do_not_say_where_the_recording_ends(tmp_path):
    made = train(np.array([3, 1]), "s", t_start=0.5, t_stop=3.9)
    assert (float(made.t_start), float(made.t_stop)) == (0.0, 3.0)  # neo's
    with pytest.raises(ConfigurationError, match=r"no t_start is told: neo rounds those of trains of integers down"):
        from_neo(made)
    for window in ({"t_start": 500.0, "t_stop": 3900}, {"t_start": 0.5 * pq.s, "t_stop": 3.9 * pq.s}):
        x = from_neo(made, **window)
        assert (x.time.tolist(), x.t_max) == ([[500.0, 2500.0]], 3400.0)
    file = written(neo_block(segment(made, train([], "s", t_start=0.5, t_stop=3.9))), tmp_path / "x.pkl")
    x = from_neo(file)  # of which another train says it
    assert (x.time.tolist(), x.t_max) == ([[500.0, 2500.0]], 3400.0)


def test_signals_of_a_segment_say_how_long_it_was():
    signal = neo.AnalogSignal(np.zeros(80), units="mV", sampling_rate=1.0 * pq.kHz, t_start=0.0 * pq.s)
    x = from_neo(segment(train(np.array([3, 1])), signals=[signal]))
    assert (x.time.tolist(), x.t_max) == ([[1.0, 3.0]], 80.0)


def test_samples_of_different_width_need_a_number_of_neurons():
    data = [segment(train([1.0])), segment(train([2.0]), train([3.0]))]
    with pytest.raises(ConfigurationError, match=r"samples of \[1, 2\] trains"):
        from_neo(data)
    assert from_neo(data, n_neurons=3).n_neurons == 3
    with pytest.raises(ConfigurationError, match="n_neurons=1"):
        from_neo(data, n_neurons=1)


def test_what_a_lazy_reader_gives_is_loaded():
    lazy = neo.io.ExampleIO("recording.fake").read_segment(lazy=True)
    whole = neo.io.ExampleIO("recording.fake").read_segment(lazy=False)
    assert_same(from_neo(lazy), from_neo(whole))
    assert len(from_neo(whole)) == sum(len(x) for x in whole.spiketrains) > 0


def test_a_matlab_file_of_neo(tmp_path):
    path = str(tmp_path / "x.mat")
    neo.io.NeoMatlabIO(path).write_block(neo_block(segment(train([2.25, 0.5], "s"), train([1.0], "s"), train([], "s"))))
    x = from_neo(neo.io.NeoMatlabIO(path).read_block())
    assert x.to_list() == [[(500.0, 0), (1000.0, 1), (2250.0, 0)]]
    assert (x.n_neurons, x.t_max) == (3, 10_000.0)


@pytest.mark.filterwarnings("ignore:validate:FutureWarning")  # how neo calls pynwb
def test_an_nwb_file_of_neo(tmp_path):
    """Unsorted trains, one spike at the end, none: they come back by neo's reader, and by pynwb's, one sample to that."""
    path = str(tmp_path / "x.nwb")
    rows = [[2.5, 2.25], [4.0]], [[2.0, 2.0], []]
    made = neo_block(*(segment(*(train(t, "s", t_start=2.0, t_stop=4.0) for t in row)) for row in rows))
    made.annotations["session_start_time"] = datetime(2026, 1, 1, tzinfo=UTC)
    neo.io.NWBIO(path, "w").write_all_blocks([made])
    (block,) = neo.io.NWBIO(path, "r").read_all_blocks()
    assert from_neo(block).to_list() == [[(250.0, 0), (500.0, 0), (2000.0, 1)], [(0.0, 0), (0.0, 0)]]
    x = from_nwb(path)
    assert x.to_list() == [[(0.0, 2), (0.0, 2), (250.0, 0), (500.0, 0), (2000.0, 1)]]
    assert (x.n_neurons, x.t_max) == (4, 2000.0)


def test_spikes_outside_are_counted_or_dropped():
    data = [train([1.0, 9.0]), train([2.0, 8.0])]
    with pytest.raises(ConfigurationError, match="2 of 4 spikes outside 1.5 … 8 ms, the first of train 0 of sample 0 at 1 ms"):
        from_neo(data, t_start=1.5, t_stop=8.0)
    assert from_neo(data, t_start=1.5, t_stop=8.0, outside="drop").to_list() == [[(0.5, 1), (6.5, 1)]]


def test_a_stop_that_was_meant_in_the_unit_of_the_trains():
    data = [train([12.5, 13.0], "s", t_start=12.3, t_stop=14.3)]
    with pytest.raises(ConfigurationError, match=r"from 12.3 to 0.014 s; .* in ms, which plain numbers are in"):
        from_neo(data, t_stop=14.0)
    assert from_neo(data, t_stop=14.0 * pq.s).t_max == pytest.approx(1700.0)


REFUSED = {
    "an array": (lambda: np.zeros((3, 4)), "ndarray for spike trains"),
    "a signal": (lambda: neo.AnalogSignal(np.zeros(4), units="mV", sampling_rate=1 * pq.kHz), "AnalogSignal"),
    "signals": (lambda: [neo.AnalogSignal(np.zeros(4), units="mV", sampling_rate=1 * pq.kHz)], "AnalogSignal"),
    "nothing": (list, "not empty"),
    "trains among segments": (lambda: [train([1.0]), segment()], "not mixed"),
    "NaN": (lambda: [train([1.0]), _nan()], "1 of 2 in a SpikeTrain that are NaN"),
    "no trains": (segment, "no t_start is told: it has no trains"),
    "signs": (lambda: train([1.0, 2.0], array_annotations={"adjsnn_sign": np.array([1, 0])}), "sign"),
}


def _nan():
    made = train([1.0, 2.0])
    made[0] = np.nan * pq.ms
    return made


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be(case):
    make, message = REFUSED[case]
    with pytest.raises(ConfigurationError, match=message):
        from_neo(make())


def test_without_neo(monkeypatch):
    monkeypatch.setitem(sys.modules, "neo", None)
    for call in (lambda: from_neo([]), lambda: to_neo(random_trains())):
        with pytest.raises(MissingPackageError, match=r'pip install "adjsnn\[neo\]"'):
            call()


def test_only_spike_trains_go_out():
    with pytest.raises(ConfigurationError, match="SpikeTrains"):
        to_neo(torch.zeros(3))
