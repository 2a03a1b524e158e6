"""What the modules of a system hold: its tensors, each known by a number, and the places that they stand in.

A backward pass evaluates the system again, when its attributes may be others: `torch.func.functional_call` has put the
module's own parameters back, a parameter or a number has been replaced. `Form.filled` gives it, for a while, what the forward
pass saw.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

BOOKKEEPING = frozenset(vars(nn.Module())) - {"training"}  # attributes that every module has
CONTAINERS = (list, tuple, dict, OrderedDict, defaultdict)
DEPTH = 4  # containers within containers that are looked into
ABSENT = object()


@dataclass(frozen=True)
class Slot:
    """Stands for the tensor of a number."""

    number: int


@dataclass(frozen=True)
class Place:
    """An attribute of a module: its name, the dictionary it stands in, and what it held, slots for tensors."""

    store: dict[str, Any]
    name: str
    held: object


@dataclass(frozen=True)
class Form:
    """The places of a system's modules, without their tensors.

    Attributes:
        places: parameters, buffers, submodules and all other attributes.
    """

    places: tuple[Place, ...]

    @contextmanager
    def filled(self, tensors: Sequence[Tensor | None]) -> Iterator[None]:
        """Have every attribute be what it was, with `tensors` for its tensors, then put back what is there now.

        Parametrizations are evaluated anew meanwhile: what `parametrize.cached` keeps is of other tensors.
        """
        before = [place.store.get(place.name, ABSENT) for place in self.places]
        cached = parametrize._cache_enabled
        try:
            parametrize._cache_enabled = 0
            for place in self.places:
                place.store[place.name] = fill(place.held, tensors)
            yield
        finally:
            parametrize._cache_enabled = cached
            for place, value in zip(self.places, before, strict=True):
                if value is ABSENT:
                    place.store.pop(place.name, None)
                else:
                    place.store[place.name] = value

    def changed(self, tensors: Sequence[Tensor], versions: Sequence[int]) -> frozenset[int]:
        """Numbers of the places that no longer hold what `filled` put there: the state of a system that counts its calls.

        Args:
            tensors: as given to `filled`.
            versions: of these tensors then, by which changes in place are seen.
        """
        written = {n for n, (x, version) in enumerate(zip(tensors, versions, strict=True)) if x._version != version}
        return frozenset(
            n
            for n, place in enumerate(self.places)
            if not _same(place.store.get(place.name, ABSENT), fill(place.held, tensors))
            or not written.isdisjoint(_numbers(place.held))
        )

    def numbers(self) -> set[int]:
        """Those of the tensors that stand anywhere."""
        return {number for place in self.places for number in _numbers(place.held)}

    def with_any(self, numbers: set[int]) -> "Form":
        """The places only where one of these tensors stands."""
        return Form(tuple(place for place in self.places if not numbers.isdisjoint(_numbers(place.held))))

    def without(self, places: frozenset[int]) -> "Form":
        """The same without some places."""
        return Form(tuple(place for n, place in enumerate(self.places) if n not in places))


@dataclass(frozen=True)
class Held:
    """What modules hold.

    Attributes:
        form: the places.
        tensors: by number.
        names: of each tensor, the first it is found by.
        registered: the numbers of parameters and buffers.
    """

    form: Form
    tensors: tuple[Tensor, ...]
    names: tuple[str, ...]
    registered: frozenset[int]


def held_by(modules: Iterable[nn.Module]) -> Held:
    """Every tensor, number, function and submodule among the attributes of modules and their submodules.

    Tensors are looked for in lists, tuples and dictionaries too, not in other objects.
    """
    numbers: dict[int, int] = {}
    tensors: list[Tensor] = []
    names: list[str] = []
    registered: set[int] = set()
    places: list[Place] = []
    for path, module in _named(modules):
        if isinstance(module, torch.jit.ScriptModule):
            continue  # its attributes cannot be replaced
        own = {name: value for name, value in vars(module).items() if name not in BOOKKEEPING}
        for known, store in ((True, module._parameters), (True, module._buffers), (False, module._modules), (False, own)):
            for name, value in store.items():

                def number(x: Tensor, name: str = path + name, known: bool = known) -> Slot:
                    if id(x) not in numbers:
                        numbers[id(x)] = len(tensors)
                        tensors.append(x)
                        names.append(name)
                    if known:
                        registered.add(numbers[id(x)])
                    return Slot(numbers[id(x)])

                places.append(Place(vars(module) if store is own else store, name, _emptied(value, number, DEPTH)))
    return Held(Form(tuple(places)), tuple(tensors), tuple(names), frozenset(registered))


def _named(modules: Iterable[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    seen: set[int] = set()
    for root in modules:
        for path, module in root.named_modules():
            if id(module) not in seen:
                seen.add(id(module))
                yield (path + "." if path else ""), module


def _emptied(value: Any, number: Callable[[Tensor], Slot], depth: int) -> Any:
    """A copy of nested containers with a slot for every tensor."""
    if isinstance(value, Tensor):
        return number(value)
    if depth == 0 or not _is_container(value):
        return value
    return _mapped(value, lambda entry: _emptied(entry, number, depth - 1))


def fill(held: Any, tensors: Sequence[Tensor | None], depth: int = DEPTH) -> Any:
    """A copy with a tensor for every slot."""
    if isinstance(held, Slot):
        return tensors[held.number]
    if depth == 0 or not _is_container(held):
        return held
    return _mapped(held, lambda entry: fill(entry, tensors, depth - 1))


def _numbers(held: Any, depth: int = DEPTH) -> Iterator[int]:
    if isinstance(held, Slot):
        yield held.number
    elif depth and _is_container(held):
        for entry in held.values() if isinstance(held, dict) else held:
            yield from _numbers(entry, depth - 1)


def _is_container(value: object) -> bool:
    return type(value) in CONTAINERS or (isinstance(value, tuple) and hasattr(value, "_fields"))


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        copy = value.copy()
        copy.update((key, function(entry)) for key, entry in value.items())
        return copy
    entries = [function(entry) for entry in value]
    if isinstance(value, list):
        return entries
    return tuple(entries) if type(value) is tuple else type(value)(*entries)


def _same(value: Any, other: Any, depth: int = DEPTH) -> bool:
    if depth == 0 or not _is_container(other):
        return value is other
    if type(value) is not type(other) or len(value) != len(other):
        return False
    if isinstance(other, dict):
        return value.keys() == other.keys() and all(_same(value[key], other[key], depth - 1) for key in other)
    return all(_same(x, y, depth - 1) for x, y in zip(value, other, strict=True))
