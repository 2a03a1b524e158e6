"""The discrete adjoint of a block of steps without events: the system evaluated once for all of them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from adjsnn.hybrid.arrays import stage_time
from adjsnn.hybrid.blocks import Block, NotSideBySide, agree, evaluated, operations_of, taped_block
from adjsnn.hybrid.products import Points, Product, record
from adjsnn.hybrid.run import Stored
from adjsnn.hybrid.steps import moved
from adjsnn.hybrid.vjp import pull, pull_all
from adjsnn.numerics.tableaus import Tableau

BY_MATRIX = 8  # most entries of a state for which the matrices of the steps are formed


def pull_block(
    stored: Stored, block: Block, costate: Float[Tensor, "B D"], kicks: Float[Tensor, "K B D"], product: Product | None
) -> tuple[Float[Tensor, "B D"], Tensor | None, Sequence[Tensor | None]]:
    """Costate before a block of steps from the one after it, dC/du in each of them, (K, B, C), and dC/dθ.

    Args:
        costate: without the cotangents of the state after the last step.
        kicks: cotangents of the states after each step.
        product: of the field; None where the matrices of the steps are formed.

    Raises:
        NotSideBySide: the steps have to be pulled one by one.
    """
    wants_u = stored.wants_u and block.u is not None
    u = None if block.u is None else block.u.detach().requires_grad_(wants_u)
    if product is None:
        return _by_matrices(stored, block, costate, kicks, u)
    return _by_products(stored, block, costate, kicks, u, product)


def product_for(stored: Stored, block: Block) -> Product | None:
    """The product of the field, recorded at the last step of a block; None for states of few entries.

    Raises:
        NotSideBySide: it cannot be recorded.
    """
    if stored.y0.shape[1] <= BY_MATRIX:
        return None
    t, y, u = block.times[0][-2:], block.y[-2:], None if block.u is None else block.u[-2:]
    product = record(stored.program.field, t[-1], y[-1], None if u is None else u[-1])
    return product.placed(evaluated(stored, t, y.detach().requires_grad_(), u)[1])


def transposed(end: Float[Tensor, "K B D"], wanted: Sequence[Tensor]) -> list[Tensor]:
    """Derivatives of every entry of `end`, on the tape, by each of `wanted`, (K, B, E): each (K, B, D, E)."""
    rows = []
    for d in range(end.shape[2]):
        cotangent = torch.zeros_like(end)
        cotangent[..., d] = 1.0
        rows.append(pull(end, wanted, cotangent, retain=True))
    return [torch.stack(x, 2) for x in zip(*rows, strict=True)]


def backward_through(
    matrices: Float[Tensor, "K B E E"], after: Float[Tensor, "B E"], kicks: Float[Tensor, "K B E"]
) -> tuple[Float[Tensor, "K B E"], Float[Tensor, "B E"]]:
    """Rows carried back through a matrix for each step: with its kick, at the end of each step; and before the first."""
    arriving: list[Tensor] = []
    before = after
    for kick, matrix in zip(reversed(kicks.unbind()), reversed(matrices.unbind()), strict=True):
        arriving.append(before + kick)
        before = summed(arriving[-1].unsqueeze(2) * matrix, 1)
    return torch.stack(arriving[::-1]), before


def summed(x: Tensor, dim: int) -> Tensor:
    """The sum over a dimension of a few entries, in their order: a library's may depend on the size of the batch."""
    first, *others = x.unbind(dim)
    for other in others:
        first = first + other
    return first


def _by_matrices(
    stored: Stored, block: Block, costate: Tensor, kicks: Tensor, u: Tensor | None
) -> tuple[Tensor, Tensor | None, Sequence[Tensor | None]]:
    """λ = Φ_yᵀ λ⁺ step by step, with Φ_y of all steps at once, and then all the rest: θ̄ = Σ_k Φ_θᵀ λ⁺."""
    y = block.y.detach().requires_grad_()
    with torch.enable_grad():
        end = taped_block(stored.program, block.times, y, u)
    block.check(end.detach())
    (matrices,) = transposed(end, (y,))
    bars, costate = backward_through(matrices, costate, kicks)
    wanted = [*([u] if u is not None and u.requires_grad else []), *stored.leaves]
    gradients = pull_all([end], wanted, [bars])
    of_u = gradients[0] if len(wanted) > len(stored.leaves) else None
    return costate, of_u, gradients[len(wanted) - len(stored.leaves) :]


def _by_products(
    stored: Stored, block: Block, costate: Tensor, kicks: Tensor, u: Tensor | None, product: Product
) -> tuple[Tensor, Tensor | None, Sequence[Tensor | None]]:
    """The equations of `discrete_sweep` with every s̄_i = f_yᵀ k̄_i by the recorded product, and θ̄, for all steps at once.

    The product of all steps at once says whether the recorded one is right: at every stage in the block where it was recorded,
    and in the others at one that is inside of each step, since it was recorded at the beginning of one. There the stages' own
    operations must be the same.
    """
    tableau = stored.program.tableau
    count, h = tableau.stages - tableau.first_same_as_last, block.times[2]
    states: list[Tensor] = []
    outputs: list[Tensor] = []
    points: list[Points] = []
    for i in range(count):
        state = block.y if i == 0 else moved(tableau, tableau.a[i], block.y, h, [x.detach() for x in outputs])
        t = stage_time(tableau, i, block.times)
        states.append(state.detach().requires_grad_())
        out, saved = evaluated(stored, t, states[i], u)
        outputs.append(out)
        points.append(product.points(t, state, None if u is None else u.detach(), saved))
    block.check(moved(tableau, tableau.b, block.y, h, [x.detach() for x in outputs]))
    if len({operations_of(x) for x in outputs}) > 1:
        raise NotSideBySide
    judged = range(count) if block.stop == len(stored.steps) else (min(1, count - 1),)
    costate, k_bars, s_bars = _stage_by_stage(tableau, product, points, costate, kicks, h, judged)
    wanted = [*([u] if u is not None and u.requires_grad else []), *stored.leaves]
    gradients = pull_all(outputs, [*(states[i] for i in judged), *wanted], k_bars)
    for bars, of_state in zip(s_bars, gradients, strict=False):
        # The same operations, of which a matrix product may round differently.
        agree(bars, torch.zeros_like(bars) if of_state is None else of_state, 1024.0 * torch.finfo(bars.dtype).eps)
    rest = gradients[len(judged) :]
    of_u = rest[0] if len(wanted) > len(stored.leaves) else None
    return costate, of_u, rest[len(wanted) - len(stored.leaves) :]


def _stage_by_stage(
    tableau: Tableau,
    product: Product,
    points: Sequence[Points],
    costate: Tensor,
    kicks: Tensor,
    h: Tensor,
    judged: Sequence[int],
) -> tuple[Tensor, Sequence[Tensor], list[Tensor]]:
    """λ before the steps of a block, k̄ of every stage, and s̄ of the stages that are `judged`, (K, B, D) each."""
    count = len(points)
    k_bars = kicks.new_empty(count, *kicks.shape)
    of_steps, of_stages = k_bars.unbind(1), [x.unbind() for x in k_bars.unbind()]
    weights = [[(j, tableau.a[j][i]) for j in range(i + 1, count) if tableau.a[j][i]] for i in range(count)]
    shares = (h.unsqueeze(1) * h.new_tensor(tableau.b[:count])[:, None, None]).unbind()
    lengths, kicked = h.unbind(), kicks.unbind()
    stages: list[Tensor] = [costate] * count
    s_bars: list[list[Tensor]] = [[] for _ in judged]
    for k in reversed(range(len(kicks))):
        costate = costate + kicked[k]
        torch.mul(costate, shares[k], out=of_steps[k])
        for i in reversed(range(count)):
            k_bar = of_stages[i][k]
            for j, weight in weights[i]:
                k_bar.addcmul_(stages[j], lengths[k], value=weight)
            stages[i] = product.pull(points[i][k], k_bar)
            costate = costate + stages[i]
        for i, bars in zip(judged, s_bars, strict=True):
            bars.append(stages[i])
    return costate, k_bars.unbind(), [torch.stack(bars[::-1]) for bars in s_bars]
