"""Classes that know what they held when they were made."""

from abc import ABC
from typing import Any


class Recorded(ABC):
    """Base of membranes and gates: a later patch of a class can be told from what was written in it."""

    _as_made: dict[str, Any]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._as_made = holdings(cls)


def holdings(owner: type) -> dict[str, Any]:
    """What a class itself holds, by name, save what Python adds."""
    return {name: value for name, value in vars(owner).items() if not name.startswith(("__", "_abc_", "_as_made"))}
