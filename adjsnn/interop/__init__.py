"""Spikes and networks from and to other programs and their files. Each part needs a package of its own, imported when used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adjsnn.interop.arrays import SpikeArrays, from_arrays, to_arrays
    from adjsnn.interop.event_cameras import from_events
    from adjsnn.interop.neo_trains import from_neo, to_neo
    from adjsnn.interop.nir import from_nir, to_nir
    from adjsnn.interop.nwb_units import from_nwb, to_nwb
    from adjsnn.interop.shd import SHDDataset, from_shd

__all__ = [
    "SHDDataset",
    "SpikeArrays",
    "from_arrays",
    "from_events",
    "from_neo",
    "from_nir",
    "from_nwb",
    "from_shd",
    "to_arrays",
    "to_neo",
    "to_nir",
    "to_nwb",
]
_HOME = {
    name: f"adjsnn.interop.{module}"
    for module, names in {
        "arrays": "SpikeArrays from_arrays to_arrays",
        "event_cameras": "from_events",
        "neo_trains": "from_neo to_neo",
        "nwb_units": "from_nwb to_nwb",
        "shd": "SHDDataset from_shd",
        "nir": "from_nir to_nir",
    }.items()
    for name in names.split()
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
