"""Batches of samples that hold spike trains, for torch's DataLoader."""

from typing import Any

from torch.utils.data._utils.collate import collate, default_collate_fn_map

from adjsnn.spikes import SpikeTrains


def collate_spikes(samples: list[Any]) -> Any:
    """A batch from a list of samples as torch's default_collate makes it, the SpikeTrains among them put together by `cat`.

    A sample may be SpikeTrains, or a tuple, dict or named tuple of these, of tensors, arrays, numbers and strings, nested. Use
    it as DataLoader(..., collate_fn=adjsnn.collate_spikes), with any number of workers.

    Raises:
        ConfigurationError: SpikeTrains that differ in n_neurons, t_max, dtype or device.
    """
    return collate(samples, collate_fn_map={**default_collate_fn_map, SpikeTrains: _cat})


def _cat(trains: list[SpikeTrains], *, collate_fn_map: object = None) -> SpikeTrains:
    del collate_fn_map
    return SpikeTrains.cat(trains)
