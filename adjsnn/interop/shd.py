"""Spiking Heidelberg Digits and Spiking Speech Commands, and files of their form (Cramer et al. 2022)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from adjsnn.checks import Count, count, float_dtype, index, indices, kind
from adjsnn.errors import ConfigurationError
from adjsnn.interop.columns import Outside, border, cut, whole, wide
from adjsnn.interop.units import UnitName, package, unit_of
from adjsnn.spikes import SpikeTrains

FIELDS = ("spikes/times", "spikes/units", "labels")


class _NoSample(ConfigurationError, IndexError):
    """A sample that is not there, as Python's sequences say it."""


class SHDDataset(Dataset[tuple[SpikeTrains, int]]):
    """Samples of an HDF5 file with spikes/times, spikes/units and labels, read when asked for: (SpikeTrains, label).

    For torch's DataLoader, with any number of workers: `DataLoader(data, batch_size=64, collate_fn=adjsnn.collate_spikes)`
    gives (SpikeTrains, labels). Times become float64 before they are scaled: those of SHD are float16, where ties are the
    rule. Equal times are ordered by neuron.

    Args:
        path: the file.
        t_stop: end of every sample, in `unit`, such as 1.4 for SHD.
        unit: of the file's times, t_start and t_stop.
        n_neurons: number of neurons.
        t_start: what is subtracted.
        outside: "raise", or "drop" to leave out spikes before t_start or after t_stop.
        dtype: of the times that are returned.

    Raises:
        MissingPackageError: h5py is not installed.
        ConfigurationError: a file that cannot be read, lacks a field, or has another number of entries in each. A sample that
            cannot be right is named when it is read.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        t_stop: Any,
        unit: UnitName = "s",
        n_neurons: Count = 700,
        t_start: Any = 0.0,
        outside: Outside = "raise",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        float_dtype(dtype)
        kind("path", path, str, os.PathLike)
        self.path, self.unit, self.outside, self.dtype = Path(path), unit_of(unit), outside, dtype
        self.n_neurons = count("n_neurons", n_neurons)
        self.start, self.stop = (border(name, x, self.unit) for name, x in (("t_start", t_start), ("t_stop", t_stop)))
        self._held: tuple[int, Any] | None = None  # process that opened the file, and the file: HDF5 does not survive a fork
        lengths = {}
        for name in FIELDS:
            entry = self._file().get(name)
            if not hasattr(entry, "shape") or len(entry.shape) != 1:
                raise ConfigurationError(f"{path} without a row of {name}", f"datasets {', '.join(FIELDS)}", "a file as SHD's")
            lengths[name] = entry.shape[0]
        if len(set(lengths.values())) > 1:
            raise ConfigurationError(f"{path} with {lengths}", "one entry for each sample in every field", "a whole file")
        self.labels = whole("labels", self._read("labels", slice(None)))
        """label of each sample, (B,), int64"""

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)

    def __getitem__(self, k: int) -> tuple[SpikeTrains, int]:
        """A sample and its label."""
        try:
            k = index("sample", k, len(self))
        except ConfigurationError as error:
            raise _NoSample(*error.args) from error
        return self.trains([k]), int(self.labels[k])

    def trains(self, which: Sequence[int]) -> SpikeTrains:
        """Some of the samples."""
        columns: list[tuple[Tensor, Tensor, Tensor]] = []
        for b, k in enumerate(which):
            time = wide(f"spikes/times[{k}]", self._read("spikes/times", k))
            units = self._read("spikes/units", k)
            units = units.astype(np.int64) if bool((units == np.floor(units)).all()) else units
            neuron = whole(f"spikes/units[{k}]", units, len(time))
            columns.append((time, neuron, torch.full_like(neuron, b)))
        time, neuron, sample = (torch.cat(x) for x in zip(*columns, strict=True))
        start, stop = (torch.full((len(columns),), x, dtype=torch.float64) for x in (self.start, self.stop))
        window = {"unit": self.unit, "start": start, "stop": stop, "outside": self.outside}
        return cut(time, neuron, sample, None, n_neurons=self.n_neurons, dtype=self.dtype, **window)

    def _file(self) -> Any:
        if self._held is None or self._held[0] != os.getpid():
            try:
                self._held = os.getpid(), package("h5py", "shd").File(self.path, "r")
            except OSError as error:
                raise ConfigurationError(
                    f"{self.path} cannot be read: {error}", "a whole HDF5 file", "fetching it again"
                ) from error
        return self._held[1]

    def _read(self, name: str, which: Any) -> np.ndarray:
        try:
            return np.asarray(self._file()[name][which])
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigurationError(
                f"{name}[{which}] of {self.path}: {error}", "a whole HDF5 file", "fetching it again"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": None}


def from_shd(
    path: str | Path,
    *,
    t_stop: Any,
    unit: UnitName = "s",
    n_neurons: Count = 700,
    t_start: Any = 0.0,
    which: Sequence[int] | slice | None = None,
    outside: Outside = "raise",
    dtype: torch.dtype = torch.float64,
) -> tuple[SpikeTrains, Tensor]:
    """Spike trains and labels, (B,), int64, of an HDF5 file as SHD's and SSC's, at once; `SHDDataset` reads sample by sample.

    Args:
        path: the file, with spikes/times, spikes/units (a row of each sample) and labels.
        t_stop: end of every sample, in `unit`, such as 1.4 for SHD.
        unit: of the file's times, t_start and t_stop.
        n_neurons: number of neurons.
        t_start: what is subtracted.
        which: samples to read, a slice or numbers. Default: all.
        outside: "raise", or "drop" to leave out spikes before t_start or after t_stop.
        dtype: of the times.

    Raises:
        MissingPackageError: h5py is not installed.
        ConfigurationError: what `SHDDataset` says, or no samples.
    """
    data = SHDDataset(path, t_stop=t_stop, unit=unit, n_neurons=n_neurons, t_start=t_start, outside=outside, dtype=dtype)
    places = range(len(data))
    try:
        chosen = places[which] if isinstance(which, slice) else places if which is None else which
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"which={which!r}: {error}", "a slice of whole numbers", "which=slice(100)") from error
    chosen = indices("which", chosen, len(data))
    if not chosen:
        raise ConfigurationError(f"which={which!r} of {len(data)} samples", "one sample or more", "which=None for all")
    return data.trains(chosen), data.labels[chosen]
