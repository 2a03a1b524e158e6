"""Products with the transposed Jacobian of a function at many points, one after the other, as a list of operations.

Autograd's engine and a tape for every point cost more than the operations of a small product. So one evaluation and its product
are recorded, operation by operation. What the product reads of the evaluation is computed for all points at once; left for
each point are the few operations that depend on its cotangent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from adjsnn.hybrid.blocks import NotSideBySide, side_by_side


@dataclass(frozen=True)
class Ref:
    """Stands for the tensor of a number: an argument, or the result of an operation."""

    number: int


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        function: torch's.
        arguments: by position, a `Ref` for every tensor that is computed.
        options: by name, likewise.
        nested: whether there are lists among them, or tensors by name.
        results: the numbers of the tensors it returns, None for the places of others.
        single: whether it returns one tensor.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    nested: bool
    results: tuple[int | None, ...]
    single: bool

    @property
    def read(self) -> set[int]:
        """The numbers of its arguments that are tensors."""
        return _read((*self.arguments, *self.options.values()))

    def run(self, values: dict[int, Tensor]) -> None:
        """Compute the results from the values so far, and add them."""
        if self.nested:
            arguments = [_filled(x, values) for x in self.arguments]
            out = self.function(*arguments, **{name: _filled(x, values) for name, x in self.options.items()})
        else:
            out = self.function(*(values[x.number] if type(x) is Ref else x for x in self.arguments), **self.options)
        if self.single:
            values[self.results[0]] = out  # pyright: ignore[reportArgumentType]
        else:
            values.update((n, x) for n, x in zip(self.results, out, strict=True) if n is not None)


@dataclass(frozen=True)
class Product:
    """s = f_yᵀ c at any t, y and u, by the operations that one evaluation of it took.

    Attributes:
        before: the operations that do not depend on c, as far as the others read them.
        after: those that do.
        read: what `after` reads that is not the same at all points, by number: as it was when it was recorded.
        constants: the tensors that depend on none of t, y, u and c, by number.
        result: the number of s; None where it is zero.
        places: where among what autograd saves of an evaluation the tensors of `read` are; None where some are not there.
    """

    before: tuple[Operation, ...]
    after: tuple[Operation, ...]
    read: dict[int, Tensor]
    constants: dict[int, Tensor]
    result: int | None
    places: dict[int, int] | None = None

    def points(
        self, t: Float[Tensor, "K B 1"], y: Float[Tensor, "K B D"], u: Tensor | None, saved: Sequence[Tensor]
    ) -> "Points":
        """For each of K points what the product there reads of the evaluation.

        Args:
            u: held inputs, (K, B, C), or None.
            saved: what autograd saved of the field at all these points.

        Raises:
            NotSideBySide: an operation cannot be done for all of them at once.
        """

        def evaluate(t: Tensor, y: Tensor, u: Tensor | None) -> Any:
            values = self.constants | {T: t, Y: y} | ({} if u is None else {U: u})
            for operation in self.before:
                operation.run(values)
            return tuple(values[n] for n in self.read)

        if not self.read:
            return [self.constants.copy() for _ in y]
        if self.places is not None:
            given = {T: t, Y: y, U: u}
            found = [saved[self.places[n]] if n in self.places else given[n] for n in self.read]
            if any(len(x) != len(y) for x in found):
                raise NotSideBySide
        else:
            found = side_by_side(evaluate, t, y, u)
        rows = zip(*(x.unbind() for x in found), strict=True)
        return [self.constants | dict(zip(self.read, row, strict=True)) for row in rows]

    def placed(self, saved: Sequence[Tensor]) -> "Product":
        """The same with the places in what autograd saved at some points, the last of which is that of the recording."""
        places: dict[int, int] = {}
        for n, x in self.read.items():
            if n in (T, Y, U):
                continue
            if (place := next((k for k, y in enumerate(saved) if _alike(y, x)), None)) is None:
                return self
            places[n] = place
        return replace(self, places=places)

    def pull(self, values: dict[int, Tensor], cotangent: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """s at one of the `points`, whose values are used up, (B, D)."""
        if self.result is None:
            return torch.zeros_like(cotangent)
        values[C] = cotangent
        for operation in self.after:
            operation.run(values)
        return values[self.result]


Points = list[dict[int, Tensor]]
T, Y, U, C = range(4)


class _Log(TorchDispatchMode):
    """Every operation that torch runs below autograd, with its results."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would load its compiler, for a second or two, to tell it that `__torch_dispatch__` is not to be traced."""
        return False

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.entries.append((func, args, kwargs or {}, out))
        return out


def record(field: Callable[..., Tensor], t: Tensor, y: Tensor, u: Tensor | None) -> Product:
    """The product with the transposed Jacobian by y of field(t (B, 1), y (B, D), u (B, C)).

    It is right where the field does the same operations at every point, which is for the caller to find out.

    Raises:
        NotSideBySide: operations that change a tensor, or give a number to Python.
    """
    t, y, u = t.detach().clone(), y.detach().clone(), None if u is None else u.detach().clone()
    leaf, cotangent = y.requires_grad_(), torch.ones_like(y)
    with torch.enable_grad(), _Log() as log:
        out = field(t, leaf, u)
        found = torch.autograd.grad(out, leaf, cotangent, allow_unused=True)[0] if out.requires_grad else None
    numbers = _Numbers()
    for x in (t, y, u, cotangent):
        numbers.of(torch.empty(1) if x is None else x)
    operations = []
    for function, arguments, options, results in log.entries:
        if function._schema.is_mutable or function is torch.ops.aten._local_scalar_dense.default:
            raise NotSideBySide
        operations.append(_operation(numbers, function, arguments, options, results))
    return _parted(operations, numbers.tensors, None if found is None else numbers.of(found))


class _Numbers:
    """Numbers of tensors. The same memory read in the same way is the same tensor, since nothing is changed in place."""

    def __init__(self) -> None:
        self.known: dict[Any, int] = {}
        self.tensors: list[Tensor] = []  # kept, so that no memory is given to another meanwhile

    def of(self, x: Tensor) -> int:
        key = x.data_ptr() if x.numel() else id(x), x.shape, x.stride(), x.dtype, x.is_conj(), x.is_neg()
        if key not in self.known:
            self.known[key] = len(self.tensors)
            self.tensors.append(x.detach())
        return self.known[key]


def _operation(numbers: _Numbers, function: Any, arguments: Sequence[Any], options: dict[str, Any], results: Any) -> Operation:
    def numbered(x: Any) -> Any:
        if isinstance(x, Tensor):
            return Ref(numbers.of(x))
        return [numbered(entry) for entry in x] if isinstance(x, (list, tuple)) else x

    single = isinstance(results, Tensor)
    return Operation(
        function=function,
        arguments=tuple(numbered(x) for x in arguments),
        options={name: numbered(x) for name, x in options.items()},
        nested=any(isinstance(x, (list, tuple)) for x in arguments) or bool(options),
        results=tuple(numbers.of(x) if isinstance(x, Tensor) else None for x in ((results,) if single else results)),
        single=single,
    )


def _parted(operations: Sequence[Operation], tensors: Sequence[Tensor], result: int | None) -> Product:
    """Those that depend on the cotangent, those that depend on the point alone, and constants, as far as they are read."""
    of_point, of_cotangent = {T, Y, U}, {C}
    before, after = [], []
    for operation in operations:
        numbers, read = set(operation.results) - {None}, operation.read
        if numbers <= {T, Y, U, C} | of_point | of_cotangent:
            continue  # another name for the same memory
        if read & of_cotangent:
            after.append(operation)
            of_cotangent |= numbers
        elif read & of_point:
            before.append(operation)
            of_point |= numbers
    if result is None or result not in of_cotangent:
        return Product((), (), {}, {}, None)
    after = _wanted(after, {result})
    read = set().union(*(operation.read for operation in after)) & of_point
    before = _wanted(before, read)
    named = set().union(*(operation.read for operation in (*before, *after))) - of_point - of_cotangent
    return Product(
        before=tuple(before),
        after=tuple(after),
        read={n: tensors[n] for n in sorted(read)},
        constants={n: tensors[n] for n in named},
        result=result,
    )


def _alike(points: Tensor, x: Tensor) -> bool:
    """Whether x is, to rounding, the last of some tensors."""
    if points.shape[1:] != x.shape or points.dtype != x.dtype:
        return False
    if not x.is_floating_point():
        return torch.equal(points[-1], x)
    return torch.allclose(points[-1], x, rtol=64.0 * torch.finfo(x.dtype).eps, atol=0.0)


def _wanted(operations: Sequence[Operation], results: set[int]) -> list[Operation]:
    """Those of the operations that the results need, in order."""
    wanted, needed = [], set(results)
    for operation in reversed(operations):
        if not needed.isdisjoint(operation.results):
            wanted.append(operation)
            needed |= operation.read
    return wanted[::-1]


def _filled(x: Any, values: dict[int, Tensor]) -> Any:
    if type(x) is Ref:
        return values[x.number]
    return [_filled(entry, values) for entry in x] if type(x) is list else x


def _read(x: Any) -> set[int]:
    if type(x) is Ref:
        return {x.number}
    return set().union(*(_read(entry) for entry in x)) if isinstance(x, (list, tuple)) else set()
