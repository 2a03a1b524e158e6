"""The programs of a model on tensors, batches of rows: the readable truth beside the compiled loops."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from adjsnn.equations.model import Event, Model
from adjsnn.equations.printing import TensorPrinter
from adjsnn.equations.writer import Node, Program, doubtful

Value = Tensor | float


def _each(function: Callable[[Tensor], Tensor]) -> Callable[[Value], Value]:
    """Of tensors, and of Python's numbers."""

    def of(x: Value) -> Value:
        return function(x) if isinstance(x, Tensor) else float(function(torch.tensor(x, dtype=torch.float64)))

    return of


class _Exprel(torch.autograd.Function):
    """(eˣ - 1)/x with a slope that does not cancel near 0, and a second one by autograd of that slope."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x == 0.0, 1.0, torch.expm1(x) / torch.where(x == 0.0, 1.0, x))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (x,) = ctx.saved_tensors
        return grad_outputs[0] * _exprel_slope(x)


def _exprel_slope(x: Tensor) -> Tensor:
    near = x.abs() < 1e-2
    far = torch.where(near, 1.0, x)
    series = 1 / 2 + x * (1 / 3 + x * (1 / 8 + x * (1 / 30 + x * (1 / 144 + x * (1 / 840 + x / 5760)))))
    return torch.where(near, series, (torch.exp(far) - torch.expm1(far) / far) / far)


def _where(condition: Any, yes: Value, no: Value) -> Value:
    if not isinstance(condition, Tensor):
        return yes if condition else no
    return torch.where(condition, yes, no)


def _choose(
    open_nodes: Mapping[str, tuple[Node, Any]],
    condition: Any,
    yes: Callable[[Mapping[str, Value]], Value],
    no: Callable[[Mapping[str, Value]], Value],
    v: Mapping[str, Value],
    names: tuple[str, ...],
) -> Value:
    """A branch where it is chosen. Where it is not, no gradient passes, also one that is not a number there."""
    if not isinstance(condition, Tensor):
        return yes(v) if condition else no(v)
    one, two = (branch(_through(open_nodes, side, v, names)) for branch, side in ((yes, condition), (no, ~condition)))
    if not isinstance(one, Tensor) and not isinstance(two, Tensor):  # of two numbers torch would make its default dtype
        one = torch.tensor(
            one, dtype=next(x.dtype for name in names if isinstance(x := v[name], Tensor)), device=condition.device
        )
    return torch.where(condition, one, two)


def _through(
    open_nodes: Mapping[str, tuple[Node, Any]], side: Tensor, v: Mapping[str, Value], names: tuple[str, ...]
) -> Mapping[str, Value]:
    """Values through which a gradient passes where `side` is true alone: open nodes anew, from what they are computed from."""
    needed, found = set(names), dict(v)
    nodes = []
    for name, (node, code) in reversed(list(open_nodes.items())):
        if name in needed:
            needed |= {x.name for x in node.expression.free_symbols}
            nodes.append((name, code))
    for name in needed - {name for name, _ in nodes}:
        if isinstance(x := v[name], Tensor):
            found[name] = torch.where(side, x, x.detach())
    for name, code in reversed(nodes):
        found[name] = _value(code, found, open_nodes)
    return found


def _whole_power(x: Value, n: float) -> Value:
    result, square, left = None, x, int(n)
    while left > 0:
        if left % 2 == 1:
            result = square if result is None else result * square
        square, left = square * square, left // 2
    return 1.0 if result is None else result


def _power(x: Value, n: Value) -> Value:
    return x**n if isinstance(x, Tensor) or isinstance(n, Tensor) else float(torch.tensor(x, dtype=torch.float64) ** n)


def _clip(x: Value, low: Value, high: Value) -> Value:
    return _where(x < low, low, _where(x > high, high, x))


NAMES: Mapping[str, Any] = MappingProxyType(
    {name: _each(getattr(torch, name)) for name in ("exp", "log", "sqrt", "sin", "cos", "tan", "atan", "sinh", "cosh", "tanh")}
    | {name: _each(getattr(torch, name)) for name in ("expm1", "log1p", "sigmoid")}
    | {"exprel": _each(_Exprel.apply)}
    | {"absolute": lambda x: _where(x < 0.0, -x, x), "clip": _clip}
    | {"minimum": lambda x, y: _where(x < y, x, y), "maximum": lambda x, y: _where(x > y, x, y)}
    | {"whole_power": _whole_power, "power": _power, "__builtins__": {}}
)

Evaluate = Callable[[Mapping[str, Value]], list[Value]]


def evaluator(program: Program, wanted: tuple[str, ...] | None = None) -> Evaluate:
    """The results of a program from the values of names: (R, 1) of a number, (R, N) of a vector, matrices as they are.

    Args:
        program: from the text.
        wanted: names of nodes instead of its results.
    """
    printer = TensorPrinter(lambda name: f"v[{name!r}]")
    codes = []
    for node in program.nodes:
        text = str(printer.doprint(node.expression)) if node.kind == "map" else ""
        codes.append((node, compile(text, f"<{node.place.line}>", "eval") if text else None))
    within = doubtful(program)
    open_nodes = {node.name: (node, code) for node, code in codes if node.name in within}
    results = program.results if wanted is None else wanted

    def evaluate(values: Mapping[str, Value]) -> list[Value]:
        v = dict(values)
        for node, code in codes:
            if code is not None:
                v[node.name] = _value(code, v, open_nodes)
                continue
            argument = v[node.argument or ""]
            if node.matrix is None:
                v[node.name] = argument.sum(-1, keepdim=True) if isinstance(argument, Tensor) else argument
            else:
                matrix = v[node.matrix]
                assert isinstance(matrix, Tensor)
                if not isinstance(argument, Tensor):
                    argument = torch.full((1, matrix.shape[1]), argument, dtype=matrix.dtype, device=matrix.device)
                v[node.name] = torch.nn.functional.linear(argument, matrix)
        return [v[name] for name in results]

    return evaluate


def _value(code: Any, v: Mapping[str, Value], open_nodes: Mapping[str, tuple[Node, Any]]) -> Value:
    """What sympy printed, with these names alone. x/0 is that of tensors, also where all are Python's numbers."""
    names = {**NAMES, "choose": partial(_choose, open_nodes)}
    try:
        return eval(code, {**names, "v": v})
    except ZeroDivisionError:
        dtype = next((x.dtype for x in v.values() if isinstance(x, Tensor)), torch.float64)
        tensors = {name: x if isinstance(x, Tensor) else torch.tensor(x, dtype=dtype) for name, x in v.items()}
        value = torch.as_tensor(eval(code, {**names, "v": tensors}))
        return value if value.dim() or value.requires_grad else float(value)


def rows(value: Value, size: int, like: Tensor) -> Tensor:
    """A value as (R, size) for as many rows as `like` has."""
    if not isinstance(value, Tensor):
        return like.new_full((len(like), size), value)
    return value.expand(len(like), size)


def changed(model: Model, event: Event, values: Mapping[str, Value], evaluate: Evaluate, y: Tensor, fired: Tensor) -> Tensor:
    """States (R, D) after the jump of an event in the rows and units where it fired, (R, its size)."""
    results = evaluate(values)
    parts = dict(zip(model.states, y.split(list(model.states.values()), 1), strict=True))
    new = dict(parts)
    nodes = [change for change in event.changes if change.node is not None]
    for change, value in zip(nodes, results, strict=True):
        old = parts[change.state]
        value = rows(value, max(old.shape[1], event.size if event.size > 1 else 1), y)
        if event.size > 1 and old.shape[1] == 1:  # of the unit that fired
            value = torch.where(fired, value, 0.0).sum(1, keepdim=True)
            new[change.state] = torch.where(fired.any(1, keepdim=True), value, old)
        else:
            new[change.state] = torch.where(fired, value, old)
    for change in event.changes:
        if change.matrix is not None:
            matrix = values[change.matrix]
            assert isinstance(matrix, Tensor)
            new[change.state] = new[change.state] + change.sign * torch.nn.functional.linear(fired.to(y.dtype), matrix)
    return torch.cat(list(new.values()), 1)
