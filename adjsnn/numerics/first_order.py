"""What every connection of an adjoint to torch shares: gradients once, for one cotangent or many, laid out as their tensors."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from adjsnn.checks import all_finite
from adjsnn.errors import ConfigurationError, warn_of_infinity

Pull = Callable[..., Sequence[Tensor | None]]


class FirstOrder(torch.autograd.Function):
    """Base of a connection whose `backward` is wrapped in `first_order`. It has no forward-mode derivative."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise ConfigurationError(
            "forward-mode differentiation of a solve, which an adjoint does not have",
            "reverse mode: .backward() or torch.autograd.grad",
            "adjoint=adjsnn.BPTT() for gated networks and HybridSystems, which is on torch's tape throughout, or a "
            "difference of two solves",
        )


def differentiated(x: Tensor) -> bool:
    """Whether something may ask for derivatives by x: dual numbers, which are refused, need not require a gradient."""
    return x.requires_grad or forward_ad._current_level >= 0


def first_order(pull: Pull) -> Callable[..., tuple[Tensor | None, ...]]:
    """A `backward` from one that knows nothing of torch's ways: `pull(ctx, *cotangents)` gives a gradient per argument.

    It runs without a tape, and refuses at once to be on one, where the gradient of a gradient would be cut in silence. With
    batches of cotangents, as in torch.autograd.grad(..., is_grads_batched=True), it runs once for each.

    Gradients that are not finite, of cotangents that are, are told. `pull` may say where, by `tell_where`.

    Raises:
        ConfigurationError: under create_graph=True.
    """

    def told(ctx: Any, *cotangents: Tensor | None) -> Sequence[Tensor | None]:
        gradients = pull(ctx, *cotangents)
        where = vars(ctx).pop("where", None)
        needed = [g for g, need in zip(gradients, ctx.needs_input_grad, strict=True) if need]
        if all_finite(*(g for g in needed if g is not None)) or not all_finite(*(c for c in cotangents if c is not None)):
            return gradients
        found = [g for g, asked in zip(needed, _asked_for(ctx), strict=True) if asked and g is not None]
        if wrong := [g for g in found if not all_finite(g)]:
            seen = f"a gradient in {wrong[0].dtype} that is not finite in {len(wrong)} of the {len(found)} tensors asked for"
            wider = None if wrong[0].dtype == torch.float64 else "torch.float64"
            warn_of_infinity(seen + (where() if where else ""), wider)
        return gradients

    @functools.wraps(pull)
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise ConfigurationError(
                "create_graph=True: the gradient of a gradient, which an adjoint does not have",
                "first derivatives",
                "adjoint=adjsnn.BPTT() for gated networks and HybridSystems, which is on torch's tape throughout, or "
                "differences of gradients",
            )
        if any(c is not None and _LEGACY(c) for c in cotangents):
            return _each_of_a_batch(told, ctx, cotangents)
        if torch._C._are_functorch_transforms_active():
            return _Each.apply(told, ctx, *cotangents)
        return tuple(told(ctx, *cotangents))  # a Function more would cost a small solve a twentieth of its time

    return backward


def tell_where(ctx: Any, where: Callable[[], str]) -> None:
    """Let a pull say where on its way a gradient ceased to be finite.

    Args:
        where: asked after the pull, and only of such a gradient: words that follow its description, or none.
    """
    ctx.where = where


def _asked_for(ctx: Any) -> list[bool]:
    """Whether this backward pass wants the gradient of each argument that requires one: it may name others as its inputs."""

    def runs(node: Any) -> bool:
        try:
            return torch._C._will_engine_execute_node(node)  # pyright: ignore[reportAttributeAccessIssue]
        except RuntimeError:  # of a leaf that torch.autograd.grad was given: it gathers there, and executes nothing
            return True

    return [runs(node) for node, _ in ctx.next_functions if node is not None]


_LEGACY = torch._C._functorch.is_legacy_batchedtensor  # pyright: ignore[reportAttributeAccessIssue]


def _each_of_a_batch(pull: Pull, ctx: Any, cotangents: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """What `_Each` does under torch.vmap, for the older kind of vmap that torch.autograd.grad(is_grads_batched=True) uses."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    remove, add = torch._remove_batch_dim, torch._add_batch_dim  # pyright: ignore[reportPrivateImportUsage]
    batches = [None if c is None or not _LEGACY(c) else remove(c, level, 1, 0) for c in cotangents]
    size = max(0 if x is None else len(x) for x in batches)
    gradients = []
    for k in range(size):
        given = [c if x is None else x[k] for c, x in zip(cotangents, batches, strict=True)]
        with torch.no_grad():
            gradients.append(pull(ctx, *given))
    stacked = _stacked(gradients)
    return tuple(None if x is None else add(x, 0, level) for x in stacked)


def _stacked(gradients: Sequence[Sequence[Tensor | None]]) -> tuple[Tensor | None, ...]:
    return tuple(None if column[0] is None else torch.stack(column) for column in zip(*gradients, strict=True))  # pyright: ignore[reportArgumentType, reportCallIssue]


class _Each(torch.autograd.Function):
    """A pull, and under torch's vmap one for each cotangent of the batch."""

    @staticmethod
    def forward(pull: Pull, ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            return tuple(pull(ctx, *cotangents))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        pull, ctx, *cotangents = args
        gradients = [
            _Each.apply(
                pull,
                ctx,
                *(c if d is None else c.select(d, k) for c, d in zip(cotangents, in_dims[2:], strict=True)),
            )
            for k in range(info.batch_size)
        ]
        stacked = _stacked(gradients)
        return stacked, tuple(None if x is None else 0 for x in stacked)


def layouts_of(*tensors: Tensor) -> tuple[Tensor | None, ...]:
    """Layouts of tensors that are not kept themselves, for `laid_out`: None where contiguous."""
    return tuple(None if x.is_contiguous() else torch.empty_like(x, device="meta") for x in tensors)


def laid_out(gradients: Sequence[Tensor | None], like: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """The gradients with the strides of their tensors, contiguous where those overlap or are None; None stays None."""
    return tuple(g if g is None else _laid_out(g, x) for g, x in zip(gradients, like, strict=True))


def _laid_out(gradient: Tensor, like: Tensor | None) -> Tensor:
    if like is None or like.is_contiguous():
        return gradient.contiguous()
    if gradient.stride() == like.stride():
        return gradient
    wanted = torch.empty_like(like, device="meta")
    return torch.empty_strided(wanted.shape, wanted.stride(), dtype=gradient.dtype, device=gradient.device).copy_(gradient)
