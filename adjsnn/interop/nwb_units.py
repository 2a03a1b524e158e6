"""Units of Neurodata Without Borders, through pynwb: rows of the table are neurons, intervals are samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adjsnn.checks import EPS, indices
from adjsnn.errors import ConfigurationError
from adjsnn.interop.columns import Outside, border, by_neuron, inside, ordered_window, plain, trains, whole, wide
from adjsnn.interop.units import KNOWN, from_ms, in_ms, package
from adjsnn.spikes import SpikeTrains

S = KNOWN["s"]
TIME, SIGN = "adjsnn_time_ms", "adjsnn_sign"  # columns of ours: times within the sample, to the bit; signs
EDITED = 16.0 * EPS  # of a sample's end: what rounding may put between a time in s and ours; beyond it the file was edited


def from_nwb(
    file: Any,
    *,
    intervals: str | Sequence[Sequence[float]] | np.ndarray | None = None,
    units: Sequence[int] | None = None,
    t_start: Any = None,
    t_stop: Any = None,
    outside: Outside = "raise",
    dtype: torch.dtype = torch.float64,
) -> SpikeTrains:
    """Spike trains from the Units of an NWB file, whose times are in s: neuron k is row k of the table, or row units[k].

    Without intervals the recording is one sample from t_start to t_stop, both included: by default from the first start to
    the last stop of the units' obs_intervals, or from 0, the session's reference time, to a t_stop that must be given. Units
    need not be sorted, and a unit without spikes is a silent neuron; gaps in obs_intervals are silence.

    With intervals each is a sample, which starts at its start, and the longest is t_max. A spike at the stop of an interval
    is in it unless another starts there. Spikes in none are an error, or left out with outside="drop".

    Args:
        file: a path, or an NWBFile that is open or was made in memory.
        intervals: "trials", another name in the file's `intervals`, such as "epochs", or (K, 2) starts and stops in s.
        units: rows of the table to read, 0 being the first. Default: all.
        t_start: start of the one sample, in s or as a quantity.
        t_stop: its end, likewise.
        outside: "raise", or "drop" to leave out spikes outside.
        dtype: of the times.

    Raises:
        MissingPackageError: pynwb is not installed.
        ConfigurationError: a file that cannot be read, no spike times, intervals that overlap, or spikes outside.
    """
    pynwb = package("pynwb", "nwb")
    if isinstance(file, str | Path):
        try:
            with pynwb.NWBHDF5IO(file, "r") as io:
                return _trains(io.read(), intervals, units, (t_start, t_stop), outside, dtype)
        except ConfigurationError:
            raise
        except Exception as error:  # h5py, hdmf and pynwb each have their own
            raise ConfigurationError(f"{file} cannot be read: {error}", "a whole NWB file", "fetching it again") from error
    if not isinstance(file, pynwb.NWBFile):
        raise ConfigurationError(
            f"file of type {type(file).__name__}", "a path or a pynwb.NWBFile", "from_nwb('recording.nwb')"
        )
    return _trains(file, intervals, units, (t_start, t_stop), outside, dtype)


def _trains(nwb: Any, intervals: Any, units: Any, window: tuple[Any, Any], outside: Outside, dtype: torch.dtype) -> SpikeTrains:
    table = nwb.units
    if table is None or "spike_times" not in table.colnames:
        raise ConfigurationError(
            "an NWB file without Units or without their spike_times", "spike times of units", "another file"
        )
    chosen = range(len(table)) if units is None else indices("units", units, len(table))
    if not len(chosen) or len(set(chosen)) < len(chosen):
        raise ConfigurationError(f"units={units!r} of {len(table)}", "one row or more, each once", "units=None for all")
    rows = _rows(table, "spike_times")
    lengths = torch.tensor([len(rows[k]) for k in chosen])
    time = torch.cat([wide(f"spike_times of unit {k}", rows[k]).reshape(-1) for k in chosen])
    neuron = torch.repeat_interleave(torch.arange(len(chosen)), lengths)
    start, stop = _window(table, chosen, window) if intervals is None else _intervals(nwb, intervals, window)
    sample = _samples(time, neuron, start, stop, outside)
    there = sample >= 0
    neuron, time, sample = neuron[there], time[there], sample[there]
    in_sample = in_ms(time - start[sample], S)
    t_max = float(in_ms(stop - start, S).max())
    if TIME in table.colnames:
        kept = torch.cat([wide(TIME, x) for x in _like(table, TIME, rows, chosen)])[there]
        in_sample = torch.where((kept - in_sample).abs() <= EDITED * in_ms(stop[sample].abs(), S), kept, in_sample)
        t_max = max([t_max, *in_sample.max().reshape(-1).tolist()]) if len(in_sample) else t_max
    sign = torch.cat([whole(SIGN, x) for x in _like(table, SIGN, rows, chosen)])[there] if SIGN in table.colnames else None
    return trains(in_sample, neuron, sample, sign, batch=len(start), n_neurons=len(chosen), t_max=t_max, dtype=dtype)


def _rows(table: Any, name: str) -> list[np.ndarray]:
    """A ragged column, row by row, read whole."""
    ends, values = np.asarray(table[name].data[:], dtype=np.int64), np.asarray(table[name].target.data[:])
    if len(ends) != len(table) or (np.diff(ends, prepend=0) < 0).any() or (len(ends) and ends[-1] != len(values)):
        raise ConfigurationError(
            f"{name} of {len(values)} entries for units that end at {ends.tolist()[:5]} …",
            "each entry in one unit",
            "a whole file",
        )
    return np.split(values, ends[:-1])


def _like(table: Any, name: str, rows: list[np.ndarray], chosen: Sequence[int]) -> list[np.ndarray]:
    """A column of ours, one entry for each spike."""
    column = _rows(table, name)
    if [len(x) for x in column] != [len(x) for x in rows]:
        raise ConfigurationError(
            f"{name} of another length than spike_times", "one entry for each spike", "removing the column"
        )
    return [column[k] for k in chosen]


def _window(table: Any, chosen: Sequence[int], given: tuple[Any, Any]) -> tuple[Tensor, Tensor]:
    """Start and stop of the one sample, (1,) each."""
    observed = np.zeros((0, 2))
    if "obs_intervals" in table.colnames:
        rows = _rows(table, "obs_intervals")
        observed = np.concatenate([np.asarray(rows[k], dtype=np.float64).reshape(-1, 2) for k in chosen])
    told = (observed[:, 0].min(), observed[:, 1].max()) if len(observed) else (0.0, None)
    ends = [
        border(name, x if x is not None else y, S) if x is not None or y is not None else None
        for name, x, y in zip(("t_start", "t_stop"), given, told, strict=True)
    ]
    if ends[1] is None:
        raise ConfigurationError(
            "units without obs_intervals, t_stop=None", "the end of the recording", "t_stop= in s, or intervals"
        )
    start, stop = (torch.tensor([x], dtype=torch.float64) for x in ends)
    ordered_window(start, stop, S)
    return start, stop


def _intervals(nwb: Any, given: Any, window: tuple[Any, Any]) -> tuple[Tensor, Tensor]:
    """Starts and stops of the samples, (K,) each."""
    if any(x is not None for x in window):
        raise ConfigurationError(f"intervals with t_start={window[0]!r}, t_stop={window[1]!r}", "either", "leaving them out")
    if isinstance(given, str):
        known = {**{x: nwb.intervals[x] for x in nwb.intervals}, "trials": nwb.trials, "epochs": nwb.epochs}
        if known.get(given) is None:
            there = sorted(k for k, x in known.items() if x is not None)
            raise ConfigurationError(f"no intervals {given!r}", f"one of {there}", "(K, 2) starts and stops in s")
        given = np.stack([np.asarray(known[given][x].data[:], dtype=np.float64) for x in ("start_time", "stop_time")], 1)
    pairs = wide("intervals", given)
    if pairs.dim() != 2 or pairs.shape[1] != 2 or len(pairs) == 0:
        raise ConfigurationError(f"intervals of shape {tuple(pairs.shape)}", "(K, 2) starts and stops in s", "[[0.0, 1.0]]")
    start, stop = pairs.unbind(1)
    ordered_window(start, stop, S)
    order = np.lexsort((stop.numpy(), start.numpy()))
    over = (stop[order][:-1] > start[order][1:]).nonzero()
    if len(over):
        k = int(over[0])
        raise ConfigurationError(
            f"intervals {order[k]} and {order[k + 1]} that overlap", "intervals that share a point at most", "a call for each"
        )
    return start, stop


def _samples(time: Tensor, neuron: Tensor, start: Tensor, stop: Tensor, outside: Outside) -> Tensor:
    """The interval of each spike, -1 for none: the last that starts before it or at it, if it has not ended."""
    order = torch.from_numpy(np.lexsort((stop.numpy(), start.numpy())))
    place = torch.searchsorted(start[order].contiguous(), time, right=True) - 1
    sample = order[place.clamp(min=0)]
    lost = (place < 0) | (time > stop[sample])
    who = f"of unit {int(neuron[lost][0])} at {float(time[lost][0]):.9g} s" if bool(lost.any()) else ""
    window = f"{float(start[0]):.9g} … {float(stop[0]):.9g} s" if len(start) == 1 else f"the {len(start)} intervals"
    return torch.where(inside(lost, outside, who, window), sample, -1)


def to_nwb(given: SpikeTrains, nwb: Any) -> Any:
    """Spike trains as Units of an NWBFile, one for each neuron, times in s; returns the file, for pynwb to write.

    One sample begins at 0. Of several, each begins at a whole second after the end of the one before, and is a trial of the
    file: `from_nwb(file, intervals="trials")`. Samples are the obs_intervals of every unit. `from_nwb` brings times in ms
    back to the bit: where no double in s does, a column "adjsnn_time_ms" of the table keeps them, which other readers pass
    over. Signs, where some are -1, are a column "adjsnn_sign". Times come without gradient.

    Args:
        given: spikes, of any dtype and device.
        nwb: a pynwb.NWBFile without units, and without trials where there are several samples.

    Raises:
        MissingPackageError: pynwb is not installed.
        ConfigurationError: no spike trains, no samples, or a file that has units or trials.
    """
    pynwb, given = package("pynwb", "nwb"), plain(given)
    if not isinstance(nwb, pynwb.NWBFile):
        raise ConfigurationError(f"nwb of type {type(nwb).__name__}", "a pynwb.NWBFile", "pynwb.NWBFile(...)")
    taken = [name for name in ("units", "trials")[: 1 + (given.batch > 1)] if getattr(nwb, name) is not None]
    if taken or given.batch == 0:
        raise ConfigurationError(
            f"{given.batch} samples, and a file that has {taken}",
            "a sample or more, and a file without them",
            "another NWBFile",
        )
    t_max = max(given.t_max, float(given.time[given.idx >= 0].max()) if len(given) else 0.0)
    starts = np.arange(given.batch) * (np.floor(t_max / 1000.0) + 1.0)
    stops = starts + from_ms(np.array([t_max]), S)
    if given.batch > 1:
        for start, stop in zip(starts, stops, strict=True):
            nwb.add_trial(start_time=start, stop_time=stop)
    times, signs = by_neuron(given)
    columns: dict[str, list[np.ndarray]] = {TIME: [], SIGN: []}
    exact = True
    for n in range(given.n_neurons):
        of_samples = times[n :: given.n_neurons]
        sample = np.repeat(np.arange(given.batch), [len(x) for x in of_samples])
        in_s = np.concatenate([from_ms(x, S) for x in of_samples]) + starts[sample]
        in_s = np.minimum(in_s, stops[sample])
        columns[TIME].append(np.concatenate(of_samples))
        columns[SIGN].append(np.concatenate(signs[n :: given.n_neurons]))
        exact &= bool((in_ms(torch.from_numpy(in_s - starts[sample]), S).numpy() == columns[TIME][-1]).all())
        nwb.add_unit(spike_times=in_s, obs_intervals=np.stack([starts, stops], 1))
    ends = np.cumsum([len(x) for x in columns[TIME]])
    if not exact:
        said = "spike times in ms from the start of their sample, which doubles in s do not hold"
        nwb.units.add_column(name=TIME, description=said, data=np.concatenate(columns[TIME]), index=ends)
    if bool((given.sign < 0).any()):
        said = "+1 or -1 for each spike"
        nwb.units.add_column(name=SIGN, description=said, data=np.concatenate(columns[SIGN]), index=ends)
    return nwb
