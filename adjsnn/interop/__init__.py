"""Networks and data to and from other programs. Each needs the package that it speaks to; all are loaded when first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adjsnn.interop.nir import from_nir, to_nir

__all__ = ["from_nir", "to_nir"]
_HOME = {"from_nir": "nir", "to_nir": "nir"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
