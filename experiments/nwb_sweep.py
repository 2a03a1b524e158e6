"""Current and spikes of a sweep of an NWB file, for fit_neuron.py: a stimulus, and the times of a unit; none are detected."""

from pathlib import Path

import numpy as np

import adjsnn
from adjsnn.interop import from_nwb
from adjsnn.interop.units import package


def read_sweep(path: Path, dt: float, stimulus: str | None, unit: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean currents over steps of dt in ms, in pA, and spike times in ms from the first sample of the current.

    Args:
        path: the file; the current is a series of its `stimulus`, in A, with a constant rate.
        dt: step, ms, a whole number of samples.
        stimulus: name of the series; None where there is one.
        unit: row of the Units table, 0 being the first.
    """
    pynwb = package("pynwb", "nwb")
    try:
        with pynwb.NWBHDF5IO(path, "r") as io:
            held = io.read().stimulus
            known = sorted(held)
            name = known[0] if stimulus is None and len(known) == 1 else stimulus
            if name not in known:
                raise adjsnn.ConfigurationError(
                    f"stimulus={stimulus} of {path}", f"one of {known}", f"--stimulus {' '.join(known[:1])}"
                )
            series = held[name]
            if series.rate is None or series.unit != "amperes" or series.data.ndim != 1:
                raise adjsnn.ConfigurationError(
                    f"{name} in {series.unit}, rate {series.rate}",
                    "a current in amperes at a constant rate",
                    "another stimulus",
                )
            current = 1e12 * (np.asarray(series.data[:], dtype=np.float64) * series.conversion + series.offset)
            rate, start = float(series.rate), float(series.starting_time or 0.0)
    except adjsnn.ConfigurationError:
        raise
    except Exception as error:  # h5py, hdmf and pynwb each have their own
        raise adjsnn.ConfigurationError(f"{path} cannot be read: {error}", "a whole NWB file", "fetching it again") from error
    samples = round(dt * rate / 1000.0)
    if samples < 1 or abs(dt * rate / 1000.0 - samples) > 1e-6 * samples:
        raise adjsnn.ConfigurationError(f"dt={dt:g} ms of {rate:g} Hz", "a whole number of samples", f"--dt {1000.0 / rate:g}")
    steps = len(current) // samples
    u = current[: steps * samples].reshape(steps, samples).mean(1)
    spikes = from_nwb(path, units=[unit], t_start=start, t_stop=start + steps * samples / rate)
    if len(spikes) < 2:
        raise adjsnn.ConfigurationError(f"{len(spikes)} spikes of unit {unit} of {path}", "two or more", "another --unit")
    return u, spikes.time[0].numpy()
