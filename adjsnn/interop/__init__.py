"""Networks and data from and to other programs and their files. Each part needs a package of its own, imported when used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adjsnn.interop.nir import from_nir, to_nir

__all__ = [
    "from_nir",
    "to_nir",
]
_HOME = {
    name: f"adjsnn.interop.{module}"
    for module, names in {
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
