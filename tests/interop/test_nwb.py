"""Units of NWB files that pynwb writes."""

import datetime
import sys

import numpy as np
import pynwb
import pytest
import quantities as pq
import torch
from written_trains import assert_same, random_trains

from adjsnn import ConfigurationError, MissingPackageError, SpikeTrains
from adjsnn.interop import from_nwb, to_nwb

START = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


def empty():
    return pynwb.NWBFile(session_description="a test", identifier="test", session_start_time=START)


def with_units(*times, intervals=None, trials=()):
    made = empty()
    for row in times:
        observed = {} if intervals is None else {"obs_intervals": intervals}
        made.add_unit(spike_times=np.asarray(row), **observed)
    for start, stop in trials:
        made.add_trial(start_time=start, stop_time=stop)
    return made


def written(made, tmp_path):
    path = tmp_path / "recording.nwb"
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(made)
    return path


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("signs", [False, True])
def test_there_and_back_to_the_bit(batch, signs, tmp_path):
    x = random_trains(batch, signs=signs)  # for t_max = 1100 ms one time in twenty has no double in s
    intervals = "trials" if batch > 1 else None
    made = to_nwb(x, empty())
    assert ("adjsnn_sign" in made.units.colnames) == signs
    for file in (made, written(made, tmp_path), str(tmp_path / "recording.nwb")):
        y = from_nwb(file, intervals=intervals)
        assert_same(x, y)
        assert y.t_max == pytest.approx(x.t_max, rel=1e-15)


def test_times_that_are_doubles_in_seconds_need_no_column_of_ours(tmp_path):
    x = SpikeTrains.from_list([[(0.0, 0), (0.1, 1), (37.5, 0), (60.0, 2)]], n_neurons=4, t_max=60.0, dtype=torch.float64)
    made = to_nwb(x, empty())
    assert set(made.units.colnames) == {"spike_times", "obs_intervals"}
    assert_same(from_nwb(written(made, tmp_path)), x)


def test_other_readers_find_times_in_seconds(tmp_path):
    x = random_trains(3)
    with pynwb.NWBHDF5IO(written(to_nwb(x, empty()), tmp_path), "r") as io:
        read = io.read()
        starts = read.trials["start_time"][:]
        assert starts.tolist() == [0.0, 2.0, 4.0]
        for b, sample in enumerate(x.to_list()):
            for n in range(x.n_neurons):
                times = read.units["spike_times"][n]
                times = times[(times >= starts[b]) & (times < starts[b] + 1.5)] - starts[b]
                np.testing.assert_allclose(1000.0 * times, [t for t, k in sample if k == n], atol=1e-11)


def test_a_file_whose_spikes_were_moved_is_read_from_what_all_readers_read():
    x = random_trains(1, signs=False)
    made = to_nwb(x, empty())
    assert "adjsnn_time_ms" in made.units.colnames
    made.units.spike_times.data[0] += 0.001
    first, moved = (float(y.time[y.idx == 0][0]) for y in (x, from_nwb(made)))
    assert moved == pytest.approx(first + 1.0, rel=1e-12)
    shifted = from_nwb(made, t_start=0.0, t_stop=1.2)  # another window with the same start: still to the bit but for that one
    assert torch.isin(x.time, shifted.time).sum() == len(x) - 1


def test_a_spike_at_the_very_end_and_silent_neurons(tmp_path):
    x = SpikeTrains.from_list([[(7.3, 1)], [], [(7.3, 0), (7.3, 1)]], n_neurons=3, t_max=7.3, dtype=torch.float64)
    y = from_nwb(written(to_nwb(x, empty()), tmp_path), intervals="trials")
    assert_same(x, y)


def test_a_recording_of_nothing_but_silence(tmp_path):
    x = SpikeTrains.from_list([[], []], n_neurons=2, t_max=1500.0)
    y = from_nwb(written(to_nwb(x, empty()), tmp_path), intervals="trials", dtype=torch.float32)
    assert_same(x, y)
    assert y.t_max == 1500.0


# ---- what files are like


def test_unsorted_units_of_which_one_is_silent_and_one_has_one_spike(tmp_path):
    made = with_units([0.3, 0.1, 0.2], [], [0.25], intervals=[[0.0, 0.5]])
    x = from_nwb(written(made, tmp_path))
    assert x.to_list() == [[(100.0, 0), (200.0, 0), (250.0, 2), (300.0, 0)]]
    assert (x.n_neurons, x.t_max) == (3, 500.0)


def test_units_without_intervals_need_the_end_of_the_recording(tmp_path):
    path = written(with_units([2.5, 2.0], [1.5]), tmp_path)
    with pytest.raises(ConfigurationError, match="units without obs_intervals, t_stop=None"):
        from_nwb(path)
    for window in ({"t_stop": 3.0}, {"t_stop": 3000.0 * pq.ms}):
        assert from_nwb(path, **window).to_list() == [[(1500.0, 1), (2000.0, 0), (2500.0, 0)]]
    x = from_nwb(path, t_start=1.5, t_stop=2.5)
    assert (x.to_list(), x.t_max) == ([[(0.0, 1), (500.0, 0), (1000.0, 0)]], 1000.0)


def test_recordings_that_start_later_and_were_interrupted(tmp_path):
    made = with_units([12.5, 10.0, 20.0], intervals=[[10.0, 13.0], [15.0, 20.0]])
    x = from_nwb(written(made, tmp_path))
    assert (x.to_list(), x.t_max) == ([[(0.0, 0), (2500.0, 0), (10_000.0, 0)]], 10_000.0)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int16])
def test_times_that_are_not_float64_are_widened_first(kind):
    """In memory: pynwb writes float64."""
    times = np.array([100.1, 70.7]).astype(kind)
    x = from_nwb(with_units(times), t_stop=101)
    assert x.time.tolist() == [[1000.0 * float(times[1]), 1000.0 * float(times[0])]]


def test_trials_cut_sorted_spikes_and_share_their_borders(tmp_path):
    """pynwb's own cut of a unit in no order is wrong, and a spike on a border would be in both trials."""
    made = with_units([2.5, 0.5, 1.0, 2.0], [1.75, 3.0], trials=[(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)])
    x = from_nwb(written(made, tmp_path), intervals="trials")
    assert x.to_list() == [[(500.0, 0)], [(0.0, 0), (750.0, 1)], [(0.0, 0), (500.0, 0), (1000.0, 1)]]
    assert len(x) == 6


def test_spikes_between_trials_are_counted_or_dropped(tmp_path):
    path = written(with_units([0.5, 1.5, 5.0], [2.25], trials=[(2.0, 3.0), (0.0, 1.0)]), tmp_path)
    with pytest.raises(ConfigurationError, match=r"2 of 4 spikes outside the 2 intervals, the first of unit 0 at 1.5 s"):
        from_nwb(path, intervals="trials")
    x = from_nwb(path, intervals="trials", outside="drop")
    assert x.to_list() == [[(250.0, 1)], [(500.0, 0)]]  # in the order of the table
    assert from_nwb(path, intervals=[[0.0, 6.0]]).to_list() == [[(500.0, 0), (1500.0, 0), (2250.0, 1), (5000.0, 0)]]
    with pytest.raises(ConfigurationError, match=r"2 of 4 spikes outside 0 … 2 s"):
        from_nwb(path, t_stop=2.0)


def test_some_of_the_units_and_named_intervals(tmp_path):
    made = with_units([0.1], [0.2], [0.3])
    made.add_epoch(0.0, 0.25)
    path = written(made, tmp_path)
    x = from_nwb(path, units=[2, 0], t_stop=1.0)
    assert x.to_list() == [[(100.0, 1), (300.0, 0)]]
    assert from_nwb(path, units=[0, 1], intervals="epochs").t_max == 250.0


def _without_times():
    made = empty()
    made.add_unit(id=3)
    return made


REFUSED = {
    "no units": (empty, {"t_stop": 1.0}, "without Units"),
    "no spike times": (_without_times, {"t_stop": 1.0}, "without their spike_times"),
    "no such intervals": (lambda: with_units([0.1]), {"intervals": "trials"}, r"no intervals 'trials'; expected one of \[\]"),
    "overlap": (
        lambda: with_units([0.1]),
        {"intervals": [[0.0, 1.0], [3.0, 4.0], [0.5, 2.0]]},
        "intervals 0 and 2 that overlap",
    ),
    "backward": (lambda: with_units([0.1]), {"intervals": [[1.0, 0.0]]}, "from 1 to 0"),
    "one number": (lambda: with_units([0.1]), {"intervals": [0.0, 1.0]}, r"shape \(2,\)"),
    "both": (lambda: with_units([0.1]), {"intervals": [[0.0, 1.0]], "t_stop": 1.0 * pq.s}, "either"),
    "NaN": (lambda: with_units([0.1, np.nan]), {"t_stop": 1.0}, "1 of 2 in spike_times of unit 0 that are NaN"),
    "a row too many": (lambda: with_units([0.1]), {"t_stop": 1.0, "units": [1]}, "units=1"),
    "a row alone": (lambda: with_units([0.1]), {"t_stop": 1.0, "units": 0}, "units=0; expected a row"),
    "intervals with a unit": (lambda: with_units([0.1]), {"intervals": np.array([[0.0, 500.0]]) * pq.ms}, "has a unit"),
    "a row twice": (lambda: with_units([0.1]), {"t_stop": 1.0, "units": [0, 0]}, "each once"),
    "milliseconds": (lambda: with_units([100.0]), {"t_stop": 1.0}, "1 of 1 spikes outside 0 … 1 s"),
    "mV": (lambda: with_units([0.1]), {"t_stop": 1.0 * pq.mV}, "unit"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be(case, tmp_path):
    make, options, message = REFUSED[case]
    with pytest.raises(ConfigurationError, match=message):
        from_nwb(written(make(), tmp_path), **options)


def test_files_that_cannot_be_read(tmp_path):
    path = written(to_nwb(random_trains(1), empty()), tmp_path)
    path.write_bytes(path.read_bytes()[:-1000])
    for file in (path, tmp_path / "no.nwb"):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            from_nwb(file)
    with pytest.raises(ConfigurationError, match="ndarray"):
        from_nwb(np.zeros((3, 4)))


def test_files_that_have_units_are_not_written_to():
    x = random_trains(2)
    with pytest.raises(ConfigurationError, match="has .'units'"):
        to_nwb(x, with_units([0.1]))
    taken = empty()
    taken.add_trial(start_time=0.0, stop_time=1.0)
    with pytest.raises(ConfigurationError, match="has .'trials'"):
        to_nwb(x, taken)
    with pytest.raises(ConfigurationError, match="0 samples"):
        to_nwb(x[0:0], empty())
    with pytest.raises(ConfigurationError, match="nwb of type str"):
        to_nwb(x, "recording.nwb")
    with pytest.raises(ConfigurationError, match="SpikeTrains"):
        to_nwb(torch.zeros(3), empty())


def test_without_pynwb(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    for call in (lambda: from_nwb("x.nwb"), lambda: to_nwb(random_trains(1), None)):
        with pytest.raises(MissingPackageError, match=r'pip install "adjsnn\[nwb\]"'):
            call()
