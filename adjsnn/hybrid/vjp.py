"""Products with transposed derivatives that the backward sweeps take, and the states they meet on the way."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from adjsnn.hybrid.refusals import not_rising
from adjsnn.hybrid.run import Stored
from adjsnn.hybrid.steps import Steps, replay


def at_row(steps: Steps, cotangents: Float[Tensor, "T1 B D"], row: int) -> Float[Tensor, "B D"]:
    """Cotangents (T+1, B, D) that belong to the states of a row, (B, D); zero where a sample has no output there."""
    output = steps.output[row]
    cotangent = cotangents[output.clamp(min=0), torch.arange(len(output), device=output.device)]
    return torch.where((output >= 0)[:, None], cotangent, 0.0)


def at_rows(stored: Stored, cotangents: Float[Tensor, "T1 B D"], start: int, stop: int) -> Float[Tensor, "K B D"]:
    """The same of rows start … stop-1."""
    if stored.program.lengths is not None:
        return _at_fixed_rows(stored.program.substeps, cotangents, start, stop)
    output = stored.steps.output[start:stop]
    cotangent = cotangents[output.clamp(min=0), torch.arange(output.shape[1], device=output.device)]
    return torch.where((output >= 0).unsqueeze(2), cotangent, 0.0)


def _at_fixed_rows(substeps: int, cotangents: Tensor, start: int, stop: int) -> Tensor:
    """The same where every row that is a multiple of `substeps` is an output of all samples."""
    if substeps == 1:
        return cotangents[start:stop]
    first = -(-start // substeps)
    rows = cotangents.new_zeros(stop - start, *cotangents.shape[1:])
    rows[first * substeps - start :: substeps] = cotangents[first : (stop - 1) // substeps + 1]
    return rows


def add_held(u_bar: Tensor, interval: Tensor, of_u: Tensor) -> None:
    """Add each sample's gradient (B, C) to the interval (B,) of dC/du (T, B, C) that its step was in."""
    u_bar[interval, torch.arange(len(interval), device=interval.device)] += of_u


def add_inputs(u_bar: Tensor, interval: Tensor, of_u: Tensor) -> None:
    """The same of a block of steps, (K, B) and (K, B, C), the last step first, so that sums are formed in one order."""
    for k in reversed(range(len(of_u))):
        add_held(u_bar, interval[k], of_u[k])


def add_leaves(sums: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Add the gradients that exist."""
    for total, gradient in zip(sums, gradients, strict=True):
        if gradient is not None:
            total.add_(gradient)


def states_backward(stored: Stored) -> Iterator[tuple[int, Tensor]]:
    """Each step with the state before it, (B, D), the last first: kept, or made again."""

    def advance(y: Tensor, start: int, stop: int) -> Tensor:
        stored.stats.recomputed_steps += stop - start
        with torch.no_grad():
            return replay(stored.program, stored.steps, y, stored.u, start, stop)

    every = ((k, stored.kept[k]) for k in reversed(range(len(stored.steps))))
    for k, y in every if stored.thinned is None else stored.thinned.backward(advance):
        # In memory of its own, since a matrix product of the same numbers may round differently at another place in memory.
        yield k, y.clone()


def pull(out: Tensor, wanted: Sequence[Tensor], cotangent: Tensor, *, retain: bool = False) -> tuple[Tensor, ...]:
    """Cotangents of `wanted`, zero where `out` does not depend on one."""
    if not out.requires_grad or not wanted:
        return tuple(torch.zeros_like(x) for x in wanted)
    gradients = torch.autograd.grad(out, wanted, cotangent, retain_graph=retain, allow_unused=True)
    return tuple(torch.zeros_like(x) if g is None else g for g, x in zip(gradients, wanted, strict=True))


def pull_field(
    out: Tensor, y: Tensor, u: Tensor | None, leaves: Sequence[Tensor], cotangent: Tensor, *, retain: bool = False
) -> tuple[Tensor, Tensor | None, Sequence[Tensor | None]]:
    """f_yᵀ c, f_uᵀ c and f_θᵀ c for out = f(t, y, u) on the tape; None where f does not depend on it or u needs no gradient."""
    with_u = u is not None and u.requires_grad
    wanted = [y, *([u] if with_u else []), *leaves]
    if not out.requires_grad:
        return torch.zeros_like(y), None, [None] * len(leaves)
    gradients = torch.autograd.grad(out, wanted, cotangent, allow_unused=True, retain_graph=retain)
    of_y = torch.zeros_like(y) if gradients[0] is None else gradients[0]
    return of_y, (gradients[1] if with_u else None), gradients[1 + with_u :]


def pull_all(outs: Sequence[Tensor], wanted: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor | None]:
    """Sums over several results of the cotangents of `wanted`; None where none of them depends on one."""
    pairs = [(out, cotangent) for out, cotangent in zip(outs, cotangents, strict=True) if out.requires_grad]
    if not pairs or not wanted:
        return [None] * len(wanted)
    chosen, given = zip(*pairs, strict=True)
    return list(torch.autograd.grad(chosen, wanted, given, allow_unused=True))


def check_speed(fires: Tensor, guard: Tensor, speed: Tensor, t: Tensor) -> None:
    """Raise EventError unless dφ/dt (B, 1) is positive where a guard `fires` (B, 1), or in the last of E steps, (E, B, 1)."""
    wrong = fires & ~(speed > 0.0)
    if not bool(wrong.any()):
        return
    if wrong.dim() == 3:
        last = int(wrong.flatten(1).any(1).nonzero()[-1])
        wrong, guard, speed, t = (x[last] for x in (wrong, guard, speed, t))
    sample = int(wrong.nonzero()[0, 0])
    raise not_rising(int(guard[sample]), sample, float(t[sample]), float(speed[sample]))
