"""Classes that know what they held when they were made."""

from abc import ABC
from typing import Any
from weakref import WeakKeyDictionary

ADDED = ("__", "_abc_", "_as_made")  # what Python adds to a class, and this
_SIZES: WeakKeyDictionary[type, int] = WeakKeyDictionary()  # of classes whose names were found to be those they were made with


class Recorded(ABC):
    """Base of membranes and gates: a later patch of a class can be told from what was written in it."""

    _as_made: dict[str, Any]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._as_made = holdings(cls)


def as_made(owner: type) -> bool:
    """Whether a class holds what it held when it was made. Asked at every solve: names are read where their number is new."""
    held, made = vars(owner), vars(owner)["_as_made"]
    if len(held) != _SIZES.get(owner):
        if holdings(owner).keys() != made.keys():
            return False
        _SIZES[owner] = len(held)
    return made.items() <= held.items()


def holdings(owner: type) -> dict[str, Any]:
    """What a class itself holds, by name, save what Python adds."""
    return {name: value for name, value in vars(owner).items() if not name.startswith(ADDED)}
