"""Events of cameras and cochleas, as structured arrays (tonic, expelliarmus, aedat, faery) and in files of cameras."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from adjsnn.checks import count, names
from adjsnn.errors import ConfigurationError
from adjsnn.interop.columns import Outside, borders, cut, wide
from adjsnn.interop.units import UnitName, package, unit_of
from adjsnn.spikes import SpikeTrains

WORDS = {"% evt 2.0": 4, "% evt 2.1": 8, "% evt 3.0": 2}  # bytes
SUFFIXES = (".aedat4", ".dat", ".raw", ".es")


def from_events(
    events: Any,
    *,
    t_stop: Any,
    unit: UnitName | None = None,
    sensor: Sequence[int] | None = None,
    polarity: Literal["neuron", "sign"] = "neuron",
    t_start: Any = 0.0,
    outside: Outside = "raise",
    dtype: torch.dtype = torch.float64,
) -> SpikeTrains:
    """Spike trains from events with fields t, x, p and, of cameras, y; of one recording, or of a list, a sample each.

    With a sensor of width W, height H and polarity="neuron" an event is a spike of neuron (p H + y) W + x, the order of an
    image of 2 channels as `LIFConv2d` takes it; with "sign", of neuron y W + x with sign +1 or -1. Where the sensor has
    one row, or one polarity, y or p may be missing.

    Args:
        events: a structured array, the path of a file (.aedat4, .dat, .raw of EVT2 or EVT3, .es), read by faery, or a list of
            them.
        t_stop: end of the recording, in `unit`: one, or one for each sample; "last" is the last event of each. The longest
            sample is t_max.
        unit: of the events' times, t_start and t_stop: "us" for nearly all cameras and data sets. Files are in "us".
        sensor: (W, H) or, of a cochlea, (W,); a third number, tonic's of polarities, is 2, or 1 where all have one. None for
            the size that a file names.
        polarity: "neuron": the two polarities are two neurons; "sign": one neuron with signs. p is 0 or 1, False or True, -1
            or 1.
        t_start: what is subtracted: one, or one for each sample; "first" is the first event of each.
        outside: "raise", or "drop" to leave out events before t_start or after t_stop.
        dtype: of the times.

    Raises:
        MissingPackageError: a file, and faery is not installed.
        ConfigurationError: frames or any dense array, missing fields, a place off the sensor, or events outside.
    """
    names("polarity", polarity, ("neuron", "sign"))
    recordings = list(events) if isinstance(events, list | tuple) else [events]
    if not recordings:
        raise ConfigurationError("no recordings", "one or more", "a list of structured arrays")
    files = [isinstance(x, str | Path) for x in recordings]
    known = unit_of("us" if all(files) and unit is None else unit)
    if any(files) and known.name != "us":
        raise ConfigurationError(f"unit={unit!r} of files", "'us', which their formats say", "leaving unit out")
    read = [_from_file(Path(x)) if is_file else (x, None) for x, is_file in zip(recordings, files, strict=True)]
    sensor = _sensor(sensor, [size for _, size in read])
    columns = [_columns(k, x, sensor, polarity) for k, (x, _) in enumerate(read)]
    batch = len(columns)
    time, neuron, sign = (torch.cat(x) for x in zip(*columns, strict=True))
    sample = torch.repeat_interleave(torch.arange(batch), torch.tensor([len(x) for x, _, _ in columns]))
    start = _extreme(t_start, "first", columns) if isinstance(t_start, str) else borders("t_start", t_start, batch, known)
    stop = _extreme(t_stop, "last", columns) if isinstance(t_stop, str) else borders("t_stop", t_stop, batch, known)
    silent = torch.tensor([len(x) == 0 for x, _, _ in columns])  # has no first and no last event
    stop = torch.where(silent & isinstance(t_stop, str), start, stop)
    n_neurons = sensor[0] * sensor[1] * (sensor[2] if polarity == "neuron" else 1)
    return cut(
        time, neuron, sample, sign, unit=known, start=start, stop=stop, n_neurons=n_neurons, outside=outside, dtype=dtype
    )


def _extreme(word: str, known: str, columns: list[tuple[torch.Tensor, ...]]) -> torch.Tensor:
    names("t_start or t_stop", word, (known,), "a time")
    ends = [float(x[0].min() if known == "first" else x[0].max()) if len(x[0]) else 0.0 for x in columns]
    return torch.tensor(ends, dtype=torch.float64)


def _sensor(given: Any, told: list[tuple[int, int] | None]) -> tuple[int, int, int]:
    """Width, height and polarities."""
    if given is None:
        sizes = {x for x in told if x is not None}
        if len(sizes) != 1 or None in told:
            raise ConfigurationError(
                f"sensor=None, and files of {sorted(sizes)}", "the size of the sensor", "sensor=(346, 260)"
            )
        given = sizes.pop()
    entries = [count("sensor", x) for x in (given if np.ndim(given) else [given])]
    if not 1 <= len(entries) <= 3 or (len(entries) == 3 and entries[2] > 2):
        raise ConfigurationError(f"sensor={given!r}", "(W, H), or (W, H, 2), or (W,)", "sensor=(34, 34)")
    width, height, polarities = [*entries, *((), (1, 1), (2,), ())[len(entries)]]
    return width, height, polarities


def _columns(
    k: int, events: Any, sensor: tuple[int, int, int], polarity: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Times as float64, neurons, signs."""
    if not isinstance(events, np.ndarray) or events.dtype.names is None:
        shape = f" of shape {tuple(events.shape)}" if hasattr(events, "shape") else ""
        raise ConfigurationError(
            f"{type(events).__name__}{shape}, recording {k}, which has no fields: frames have lost the times of their events",
            "a structured array of events with fields t, x, p and, of cameras, y",
            "the events from which the frames were made, or SpikeTrains.from_dense for whole counts on a grid",
        )
    fields = set(events.dtype.fields or ())  # titles too: aedat's and faery's p has the name on and the title p
    wanted = {"t", "x"} | ({"y"} if sensor[1] > 1 else set()) | ({"p"} if sensor[2] == 2 or polarity == "sign" else set())
    if missing := sorted(wanted - fields):
        raise ConfigurationError(
            f"recording {k} with fields {events.dtype.names}, without {missing}", "t, x, y, p", "renaming them"
        )
    if events.ndim != 1:
        raise ConfigurationError(f"recording {k} of shape {events.shape}", "a row of events, (S,)", "events.ravel()")
    size = len(events)
    x, y = (_place(k, name, events, bound) for name, bound in (("x", sensor[0]), ("y", sensor[1])))
    p = np.asarray(events["p"]) if "p" in fields else np.ones(size, dtype=np.int64)
    values = set(np.unique(p).tolist())
    if not (values <= {0, 1} or values <= {-1, 1}):
        raise ConfigurationError(
            f"polarities {sorted(values)[:5]} in recording {k}", "0 and 1, or -1 and 1", "leaving others out"
        )
    up = torch.from_numpy((p > 0).astype(np.int64))
    if polarity == "sign":
        return wide("t", events["t"]), y * sensor[0] + x, 2 * up - 1
    if sensor[2] == 1 and len(values) > 1:
        raise ConfigurationError(f"both polarities in recording {k}", "one, as the sensor says", "sensor=(W, H, 2)")
    channel = up if sensor[2] == 2 else torch.zeros_like(up)
    return wide("t", events["t"]), (channel * sensor[1] + y) * sensor[0] + x, torch.ones_like(up)


def _place(k: int, name: str, events: np.ndarray, bound: int) -> torch.Tensor:
    """Columns or rows of the sensor, widened before they are multiplied."""
    if name not in (events.dtype.fields or ()):
        return torch.zeros(len(events), dtype=torch.long)
    place = np.asarray(events[name])
    wrong = (place < 0) | (place >= bound) | (place != np.floor(place))
    if wrong.any():
        raise ConfigurationError(
            f"{int(wrong.sum())} of {len(place)} events of recording {k} off the sensor, the first at {name}={place[wrong][0]}",
            f"whole numbers 0 … {bound - 1}",
            "a larger sensor=(W, H)",
        )
    return torch.from_numpy(place.astype(np.int64))


def _from_file(path: Path) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Events of a file, and the size of its sensor where it says so."""
    faery = package("faery", "events")
    if path.suffix not in SUFFIXES:
        raise ConfigurationError(f"{path}: suffix {path.suffix!r}", f"one of {', '.join(SUFFIXES)}", "converting the recording")
    try:
        _whole_words(path)
        stream = faery.events_stream_from_file(path, dimensions_fallback=(1, 1))
        events = np.concatenate([np.zeros(0, faery.EVENTS_DTYPE), *stream])
        size = stream.dimensions()
    except ConfigurationError:
        raise
    except Exception as error:  # faery's errors have no class of their own
        remedy = "fetching it again"
        if path.suffix == ".dat" and "unsupported type" in str(error):  # as of early recordings, which another package reads
            remedy = "the array that expelliarmus.Wizard(encoding='dat').read(path) gives, in place of the path"
        raise ConfigurationError(f"{path} cannot be read: {error}", "a whole file of events", remedy) from error
    return events, None if size == (1, 1) else size


def _whole_words(path: Path) -> None:
    """Refuse a file that ends inside a word: faery leaves it out in silence."""
    if path.suffix not in (".raw", ".dat"):
        return
    header, place = [], 0
    with path.open("rb") as file:
        while (line := file.readline()).startswith(b"%"):
            header.append(line.decode(errors="replace").strip())
            place = file.tell()
    size = 8 if path.suffix == ".dat" else next((WORDS[x] for x in header if x in WORDS), 1)
    place += 2 if path.suffix == ".dat" else 0  # type and size of an event
    rest = (path.stat().st_size - place) % size
    if rest:
        raise ConfigurationError(
            f"{path} ends {rest} bytes into an event", f"whole events of {size} bytes", "fetching it again"
        )
