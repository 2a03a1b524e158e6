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
        results: the numbers of the tensors it returns, None for the places of others.
        single: whether it returns one tensor.
    """

    function: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    results: tuple[int | None, ...]
    single: bool

    @property
    def read(self) -> set[int]:
        """The numbers of its arguments that are tensors."""
        return _read((*self.arguments, *self.options.values()))


@dataclass(frozen=True)
class Product:
    """s = f_yᵀ c at any t, y and u, by the operations that one evaluation of it took.

    Attributes:
        evaluate: what `after` reads that is not the same at all points, from t, y and u, by operations that do not depend on c.
        after: s from c and what it reads, by the operations that do.
        read: what that is, by number: as it was when it was recorded.
        places: where among what autograd saves of an evaluation the tensors of `read` are; None where some are not there.
    """

    evaluate: Callable[..., Any]
    after: Callable[..., Tensor]
    read: dict[int, Tensor]
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
        if not self.read:
            return [()] * len(y)
        if self.places is not None:
            given = {T: t, Y: y, U: u}
            found = [saved[self.places[n]] if n in self.places else given[n] for n in self.read]
            if any(len(x) != len(y) for x in found):
                raise NotSideBySide
        else:
            found = side_by_side(self.evaluate, t, y, u)
        return list(zip(*(x.unbind() for x in found), strict=True))

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

    def pull(self, point: tuple[Tensor, ...], cotangent: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """s at one of the `points`, (B, D)."""
        return self.after(cotangent, *point)


Points = list[tuple[Tensor, ...]]
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
        return Product(lambda t, y, u: (), torch.zeros_like, {})
    after = _wanted(after, {result})
    read = sorted(set().union(*(operation.read for operation in after)) & of_point)
    before = _wanted(before, set(read))
    named = set().union(*(operation.read for operation in (*before, *after))) - of_point - of_cotangent
    constants = {n: tensors[n] for n in named}
    return Product(
        evaluate=_function((T, Y, U), before, f"({''.join(f'v{n}, ' for n in read)})", constants),
        after=_function((C, *read), after, f"v{result}", constants),
        read={n: tensors[n] for n in read},
    )


def _function(
    given: Sequence[int], operations: Sequence[Operation], result: str, constants: dict[int, Tensor]
) -> Callable[..., Any]:
    """Operations as a function of the tensors of some numbers, n of which is called vn.

    Written out and compiled: to walk through a list of operations takes about as long as a small operation does. They are
    called by the names that torch gives them in Python, with the same arguments, which is faster than what was recorded.
    """
    known: dict[str, Any] = {f"v{n}": x for n, x in constants.items()}

    def said(x: Any) -> str:
        if type(x) is Ref:
            return f"v{x.number}"
        if type(x) is list:
            return f"[{', '.join(map(said, x))}]"
        name = f"c{len(known)}"
        known[name] = x
        return name

    lines = [f"def function({', '.join(f'v{n}' for n in given)}):"]
    for operation in operations:
        arguments = [*map(said, operation.arguments), *(f"{name}={said(x)}" for name, x in operation.options.items())]
        targets = ["_" if n is None else f"v{n}" for n in operation.results]
        into = targets[0] if operation.single else f"({', '.join(targets)},)"
        name = operation.function._schema.name.removeprefix("aten::")
        function = getattr(torch._C._VariableFunctions, name, operation.function)  # pyright: ignore[reportAttributeAccessIssue]
        lines.append(f" {into} = {said(function)}({', '.join(arguments)})")
    exec("\n".join([*lines, f" return {result}"]), known)
    return known["function"]


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


def _read(x: Any) -> set[int]:
    if type(x) is Ref:
        return {x.number}
    return set().union(*(_read(entry) for entry in x)) if isinstance(x, (list, tuple)) else set()
