"""Blocks of steps of which a backward sweep evaluates the system side by side, once for all, instead of step by step."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adjsnn.errors import AdjsnnError
from adjsnn.hybrid.run import Stored
from adjsnn.hybrid.steps import HybridProgram, Steps, derivatives, moved
from adjsnn.hybrid.vjp import states_backward

NUMBERS = 2**16  # of the states of a block, at most: what is made of them stays in a core's cache
MOST = 128  # steps of a block
NARROW = 8  # numbers of a state, up to which operations take each sample's time many times over rather than as one
FEWEST = 4  # steps that such a block could have, for it to be worth it
WORKING = 2**23  # bytes that autograd saves of the stages of a block, at most; a sweep takes a small multiple of it
MUCH = 2**17  # bytes saved of one stage of one step: from here on its arithmetic, no longer its calls, is what takes time


class NotSideBySide(Exception):
    """The steps of a block have to be evaluated one by one."""


@dataclass(frozen=True)
class Block:
    """Steps first … first+K-1 of a run.

    Attributes:
        first: the first of them.
        y: the states before them, (K, B, D).
        after: the state after the last of them, (B, D), or None where it is not known.
        times: begin, end and length, (K, B, 1) each, ms, in the dtype of the state.
        u: held inputs, (K, B, C), or None.
    """

    first: int
    y: Float[Tensor, "K B D"]
    after: Float[Tensor, "B D"] | None
    times: tuple[Tensor, Tensor, Tensor]
    u: Float[Tensor, "K B C"] | None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def stop(self) -> int:
        return self.first + len(self)

    def backward(self) -> Iterator[tuple[int, Tensor]]:
        """Each step with the state before it, (B, D), in memory of its own, the last first."""
        for k in reversed(range(len(self))):
            yield self.first + k, self.y[k].clone()

    def check(self, after: Float[Tensor, "K B D"]) -> None:
        """Raise NotSideBySide unless the states after the steps are, to rounding, those that followed when they were taken."""
        share = torch.finfo(after.dtype).eps ** 0.5
        agree(after[:-1], self.y[1:], share)
        if self.after is not None:
            agree(after[-1], self.after, share)


@contextmanager
def refusals() -> Iterator[None]:
    """Raise NotSideBySide for whatever torch or a system says to being evaluated for many steps at once.

    An error that has another reason comes again when the steps are evaluated one by one. Not so what comes from outside: a
    limit of time that ran out (TimeoutError) and other errors of the machine pass.
    """
    try:
        yield
    except (AdjsnnError, OSError):
        raise
    except Exception as error:
        raise NotSideBySide from error


def agree(found: Tensor, expected: Tensor, share: float) -> None:
    """Raise NotSideBySide unless two tensors are the same up to a share of the largest entry; they are not where one is NaN."""
    if expected.numel() and not bool((found - expected).abs_().amax() <= share * expected.abs().amax()):
        raise NotSideBySide


def side_by_side(function: Callable[..., Tensor], *arguments: Tensor | None) -> Tensor:
    """function(*arguments) of every step of a block, the first dimension of the arguments, as one evaluation.

    By torch.vmap, under which a function sees the arguments of one step, and which refuses all that cannot be one evaluation:
    a number taken from a tensor, a branch on one, random numbers.

    To be called where `refusals` are seen to.
    """
    dims = tuple(None if x is None else 0 for x in arguments)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        return torch.func.vmap(function, dims)(*arguments)


def taped_block(
    program: HybridProgram, times: tuple[Tensor, Tensor, Tensor], y: Float[Tensor, "K B D"], u: Tensor | None
) -> Float[Tensor, "K B D"]:
    """States at the end of steps, before any jump, on autograd's tape.

    Args:
        times: begin, end and length of the steps, (K, B, 1) each.
    """

    def field(t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        return side_by_side(program.field, t, y, u)

    tableau = program.tableau
    # A loop over few numbers costs as much as one over a hundred, and so does their sum when the tape is gone back.
    h = times[2].expand_as(y).contiguous() if y.shape[2] <= NARROW else times[2]
    ks = derivatives(tableau, field, times, y, u, tableau.stages - tableau.first_same_as_last, h)
    return moved(tableau, tableau.b, y, h, ks)


def evaluated(stored: Stored, t: Tensor, y: Tensor, u: Tensor | None) -> tuple[Tensor, list[Tensor]]:
    """The field of the steps of a block on the tape, (K, B, D), and what autograd saved of it.

    To be called where `refusals` are seen to.
    """
    saved: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        saved.append(x.detach())  # a tensor of the tape itself would keep the tape alive
        return saved[-1]

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        return side_by_side(stored.program.field, t, y, u), saved


def operations_of(x: Tensor) -> tuple[str, ...]:
    """The names of the operations on the tape of a tensor, each once, in an order that is the same for the same operations."""
    names, seen, waiting = list[str](), set[Any](), [x.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            names.append(node.name())
            waiting.extend(following for following, _ in node.next_functions)
    return tuple(names)


def block_size(stored: Stored) -> int:
    """Steps of a block, the same for every number of steps and of checkpoints; 1 where they are not evaluated side by side.

    A field may save far more than its state, as one with a wide hidden layer does: one evaluation tells.
    """
    size = min(NUMBERS // stored.y0.numel(), MOST)
    if not stored.pure or size < FEWEST:
        return 1
    steps, first = stored.steps, slice(0, 1)
    t, y = steps.times[first].to(stored.y0.dtype).unsqueeze(2), stored.y0[None].detach().requires_grad_()
    try:
        with refusals():
            _, saved = evaluated(stored, t, y, _held(stored.u, steps, first))
    except NotSideBySide:
        return 1
    own = {x.data_ptr() for x in stored.tensors if x is not None}
    each = sum({x.data_ptr(): x.nbytes for x in saved if x.data_ptr() not in own}.values())
    size = min(size, WORKING // max(1, each * stored.program.tableau.stages))
    return size if size >= FEWEST and each <= MUCH else 1


def blocks_backward(stored: Stored, size: int) -> Iterator[Block]:
    """The blocks of a run, of `size` steps, the last first, with the states before their steps: kept, or made again."""
    n = len(stored.steps)
    begins, ends, lengths = (
        x.to(stored.y0.dtype).unsqueeze(2) for x in (stored.steps.times[:-1], stored.steps.times[1:], stored.steps.lengths)
    )
    states, after = states_backward(stored), stored.kept[n] if stored.thinned is None else None
    for first in reversed(range(0, n, size)):
        part = slice(first, min(first + size, n))
        if stored.thinned is None:
            y = stored.kept[part].clone()  # at the start of its memory, like the others
        else:
            y = stored.y0.new_empty(part.stop - first, *stored.y0.shape)
            for _ in range(len(y)):
                k, before = next(states)
                y[k - first] = before
        yield Block(first, y, after, (begins[part], ends[part], lengths[part]), _held(stored.u, stored.steps, part))
        after = y[0]


def _held(u: Tensor | None, steps: Steps, part: slice) -> Tensor | None:
    """The input in each of some steps, (K, B, C), from held inputs (T, B, C)."""
    return None if u is None else u[steps.interval[part], torch.arange(u.shape[1], device=u.device)]
