"""Spike trains of neo: trains side by side are neurons, what holds them is a sample."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from adjsnn.checks import Count, count
from adjsnn.errors import ConfigurationError
from adjsnn.interop.columns import Outside, border, by_neuron, inside, ordered_window, plain, trains, whole, wide
from adjsnn.interop.units import KNOWN, Unit, in_ms, package, unit_of
from adjsnn.spikes import SpikeTrains

SIGN = "adjsnn_sign"  # array annotation of trains that spike either way
MS = KNOWN["ms"]


def from_neo(
    data: Any,
    *,
    n_neurons: Count | None = None,
    t_start: Any = None,
    t_stop: Any = None,
    outside: Outside = "raise",
    dtype: torch.dtype = torch.float64,
) -> SpikeTrains:
    """Spike trains from neo: of a SpikeTrain, a Segment, a Block, or lists of them.

    Trains side by side are neurons, in their order; what holds them is a sample. So a SpikeTrain is one sample of one neuron; a
    list of SpikeTrains or a Segment is one sample; a Block, a list of Segments or a list of lists is a batch. Trains without
    spikes are silent neurons. The spikes need not be sorted.

    Units are those of the trains. A sample is recorded from t_start to t_stop, both included: by default from the first start
    to the last stop of the trains and signals in its Segment, counted from that start. neo rounds start and stop of a train
    of integers down to integers, so those say nothing: where nothing else does, they must be given.

    Args:
        data: what neo read or made.
        n_neurons: number of neurons, where samples have different numbers of trains; the last are silent then.
        t_start: the start of every sample, as a quantity or in ms.
        t_stop: the end of every sample, likewise. The longest sample is t_max.
        outside: "raise", or "drop" to leave out spikes before t_start or after t_stop.
        dtype: of the times.

    Raises:
        MissingPackageError: neo is not installed.
        ConfigurationError: no trains, another number of them in each sample, a start or stop that nothing says, or spikes
            outside.
    """
    neo = package("neo", "neo")
    samples = list(_samples(data, neo))
    widths = sorted({len(held) for held, _ in samples})
    if n_neurons is None and len(widths) != 1:
        raise ConfigurationError(f"samples of {widths} trains", "one number of trains", "n_neurons=, or empty trains")
    n_neurons = count("n_neurons", max(widths[-1], 1) if n_neurons is None else n_neurons)
    if widths[-1] > n_neurons:
        raise ConfigurationError(
            f"a sample of {widths[-1]} trains with n_neurons={n_neurons}", "n_neurons of them at most", "more"
        )
    columns: list[tuple[torch.Tensor, ...]] = []
    t_max = 0.0
    for k, (held, segment) in enumerate(samples):
        time, neuron, sign, length = _sample(k, held, segment, (t_start, t_stop), outside)
        columns.append((time, neuron, torch.full_like(neuron, k), sign))
        t_max = max(t_max, length)
    time, neuron, sample, sign = (torch.cat(x) for x in zip(*columns, strict=True))
    return trains(time, neuron, sample, sign, batch=len(samples), n_neurons=n_neurons, t_max=t_max, dtype=dtype)


def _samples(data: Any, neo: Any) -> Iterator[tuple[list[Any], Any]]:
    """Trains of each sample, and its Segment, None where there is none."""
    if isinstance(data, neo.Block):
        data = list(data.segments)
    if isinstance(data, neo.Segment):
        yield [_loaded(x, neo) for x in data.spiketrains], data
    elif _is_train(data, neo):
        yield [_loaded(data, neo)], None
    elif isinstance(data, Iterable) and not isinstance(data, np.ndarray | torch.Tensor | str | dict | neo.core.baseneo.BaseNeo):
        entries = list(data)
        if all(_is_train(x, neo) for x in entries) and entries:
            yield [_loaded(x, neo) for x in entries], None
        elif entries and not any(_is_train(x, neo) for x in entries):
            for entry in entries:
                yield from _samples(entry, neo)
        else:
            raise _no_trains(data)
    else:
        raise _no_trains(data)


def _is_train(x: object, neo: Any) -> bool:
    return isinstance(x, neo.SpikeTrain) or type(x).__name__ == "SpikeTrainProxy"


def _loaded(x: Any, neo: Any) -> Any:
    return x if isinstance(x, neo.SpikeTrain) else x.load()


def _no_trains(data: object) -> ConfigurationError:
    return ConfigurationError(
        f"{type(data).__name__} for spike trains of neo",
        "a SpikeTrain, Segment or Block, or lists of them that are not mixed and not empty",
        "segment.spiketrains; SpikeTrains.from_dense for frames",
    )


def _sample(
    k: int, held: list[Any], segment: Any, window: tuple[Any, Any], outside: Outside
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """Times in ms from the start, neurons and signs of a sample's spikes, and its length in ms.

    The start is subtracted in the unit of the trains if they share one, else in ms.
    """
    units = {unit_of(x.units) for x in held}
    unit = units.pop() if len(units) == 1 else MS
    start, stop = _window(k, held, segment, window, unit)
    time = torch.cat([torch.zeros(0, dtype=torch.float64), *(_times(x, unit) for x in held)])
    neuron = torch.repeat_interleave(torch.arange(len(held)), torch.tensor([len(x) for x in held], dtype=torch.long))
    sign = torch.cat([torch.zeros(0, dtype=torch.long), *(_signs(x) for x in held)])
    lost = (time < start) | (time > stop)
    who = f"of train {int(neuron[lost][0])} of sample {k} at {float(time[lost][0]):.9g} {unit.name}" if bool(lost.any()) else ""
    stays = inside(lost, outside, who, f"{start:.9g} … {stop:.9g} {unit.name}")
    length = float(in_ms(torch.tensor(stop, dtype=torch.float64) - start, unit))
    return in_ms(time[stays] - start, unit), neuron[stays], sign[stays], length


def _times(train: Any, unit: Unit) -> torch.Tensor:
    time, own = wide("a SpikeTrain", np.asarray(train.magnitude)), unit_of(train.units)
    return time if own == unit else in_ms(time, own)


def _signs(train: Any) -> torch.Tensor:
    given = train.array_annotations.get(SIGN)
    return torch.ones(len(train), dtype=torch.long) if given is None else whole(SIGN, np.asarray(given), len(train))


def _window(k: int, held: list[Any], segment: Any, given: tuple[Any, Any], unit: Unit) -> tuple[float, float]:
    """Start and stop of a sample in a unit: those that are given, else the first start and the last stop of what is in it."""
    parts = [x for x in held if np.asarray(x.magnitude).dtype.kind == "f"]
    if segment is not None:
        parts += [*segment.analogsignals, *segment.irregularlysampledsignals]
    ends = []
    for name, value, first in zip(("t_start", "t_stop"), given, (min, max), strict=True):
        if value is not None:
            ends.append(border(name, value, unit, MS))
        elif parts:
            ends.append(first(border(name, getattr(x, name), unit) for x in parts))
        else:
            why = "neo rounds those of trains of integers down" if held else "it has no trains"
            raise ConfigurationError(
                f"sample {k}, in which no {name} is told: {why}",
                "what says where the recording begins and ends",
                "t_start=0.0, t_stop=1000.0, in ms",
            )
    start, stop = (torch.tensor([x], dtype=torch.float64) for x in ends)
    ordered_window(start, stop, unit, MS)
    return ends[0], ends[1]


def to_neo(given: SpikeTrains) -> Any:
    """A neo.Block from spike trains: a Segment for each sample, in it a SpikeTrain for each neuron, from 0 to t_max, in ms.

    Times keep their bits; they come without gradient. Signs, where some are -1, become the array annotation "adjsnn_sign".
    `from_neo` brings all of it back.

    Args:
        given: spikes, of any dtype and device.

    Raises:
        MissingPackageError: neo is not installed.
        ConfigurationError: no spike trains.
    """
    neo, given = package("neo", "neo"), plain(given)
    times, signs, t_max = *by_neuron(given), max(given.t_max, float(given.time[given.idx >= 0].max()) if len(given) else 0.0)
    either, block = bool((given.sign < 0).any()), neo.Block()
    for b in range(given.batch):
        segment = neo.Segment(index=b)
        for k in range(b * given.n_neurons, (b + 1) * given.n_neurons):
            kept = {SIGN: signs[k]} if either else {}
            segment.spiketrains.append(neo.SpikeTrain(times[k], units="ms", t_start=0.0, t_stop=t_max, array_annotations=kept))
        block.segments.append(segment)
    return block
