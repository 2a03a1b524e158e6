"""Classes that know what they held when they were made."""

from abc import ABC

ADDED = ("__", "_abc_", "_as_made")  # what Python adds to a class, and this


class Record:
    """What a class held when it was made.

    Attributes:
        made: its functions and values by name.
        size: how many names it has with those that Python adds, once they were found to be the same names; -1 before.
        line: the class and those of its ancestors that have a record.
    """

    def __init__(self, owner: type) -> None:
        self.made, self.size = holdings(owner), -1
        self.line = (owner, *(c for c in owner.__mro__[1:] if "_as_made" in vars(c)))


class Recorded(ABC):
    """Base of membranes and gates: a later patch of a class can be told from what was written in it."""

    _as_made: Record

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        cls._as_made = Record(cls)


def as_made(owner: type) -> bool:
    """Whether a class holds what it held when it was made. Asked at every solve: names are read where their number is new."""
    held = vars(owner)
    record = held["_as_made"]
    if len(held) != record.size:
        if holdings(owner).keys() != record.made.keys():
            return False
        record.size = len(held)
    return record.made.items() <= held.items()


def holdings(owner: type) -> dict[str, object]:
    """What a class itself holds, by name, save what Python adds."""
    return {name: value for name, value in vars(owner).items() if not name.startswith(ADDED)}
