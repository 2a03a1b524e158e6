"""The discrete adjoint of a block of steps that may end in events, (3.6): every step as one matrix, all at once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adjsnn.hybrid.blocks import Block, side_by_side, taped_block
from adjsnn.hybrid.discrete_blocks import backward_through, summed, transposed
from adjsnn.hybrid.guards import level, one_of
from adjsnn.hybrid.run import Stored
from adjsnn.hybrid.vjp import check_speed, pull, pull_all


class Events(NamedTuple):
    """The E steps of a block in which a guard fired, in some samples, on the tape.

    Attributes:
        steps: their numbers in the block, (E,).
        fires: in which samples, (E, B, 1).
        plus: the states after them, (E, B, D).
        level: of the guard that fired, of guard 0 elsewhere, (E, B).
        of_state: ∂plus/∂minus, (E, B, D, D).
        of_time: ∂plus/∂t_e, (E, B, D).
        slope: φ_y, (E, B, D).
        slope_t: φ_t, (E, B, 1).
    """

    steps: Int[Tensor, " E"]
    fires: Bool[Tensor, "E B 1"]
    plus: Float[Tensor, "E B D"]
    level: Float[Tensor, "E B"]
    of_state: Float[Tensor, "E B D D"]
    of_time: Float[Tensor, "E B D"]
    slope: Float[Tensor, "E B D"]
    slope_t: Float[Tensor, "E B 1"]


def pull_event_block(
    stored: Stored, block: Block, after: tuple[Tensor, Tensor], kicks: tuple[Tensor, Tensor]
) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B 1"], Tensor | None, Sequence[Tensor | None]]:
    """Costate and dC/dt before a block of steps from those after it.

    With the letters of `pull_hybrid_step`, λ⁻ + γ φ_y = (λ⁺, dC/dt_e) T and γ = (λ⁺, dC/dt_e) g are linear in what comes
    from the step after, and so is all that goes on to the step before: (λ, dC/dt) = (λ⁺, dC/dt_e) T (Ψ_y, Ψ_t). The matrices
    of all steps are formed at once; what is left for each step is one product.

    Args:
        after: λ⁺ (B, D) and dC/dt_e (B, 1), without what the loss itself adds at the last step's end.
        kicks: what it adds to them at the end of each step, (K, B, D) and (K, B, 1).

    Returns:
        λ (B, D), dC/dt of the first step's begin (B, 1), dC/du of each step's held input (K, B, C) or None, and dC/dθ.

    Raises:
        EventError: the guard does not rise at an event; names sample, guard and time.
        NotSideBySide: the steps have to be pulled one by one.
    """
    u = None if block.u is None else block.u.detach().requires_grad_(stored.wants_u)
    t, t_end, length = block.times
    start, begin, end = (x.detach().clone().requires_grad_() for x in (block.y, t, t_end))
    with torch.enable_grad():
        times = begin, end, length + (end - t_end) - (begin - t)
        minus = taped_block(stored.program, times, start, u)
    of_start, of_begin, of_end = transposed(minus, (start, begin, end))
    events = _events(stored, block, minus.detach())
    reached = minus.detach().clone()
    if events is not None:
        reached[events.steps] = events.plus.detach()
    block.check(reached)
    through, factor = _through(stored, block, events, of_end.squeeze(3))
    matrices = summed(through.unsqueeze(4) * torch.cat([of_start, of_begin], 3).unsqueeze(2), 3)
    arriving, before = backward_through(matrices, torch.cat(after, 1), torch.cat(kicks, 2))
    outs, cotangents = [minus], [summed(arriving.unsqueeze(3) * through, 2)]
    if events is not None:
        chosen = arriving[events.steps]
        outs += [events.plus, events.level]
        cotangents += [chosen[..., :-1], summed(chosen * factor[events.steps], 2)]
    wanted = [*([u] if u is not None and u.requires_grad else []), *stored.leaves]
    gradients = pull_all(outs, wanted, cotangents)
    rest = len(wanted) - len(stored.leaves)
    return before[:, :-1], before[:, -1:], gradients[0] if rest else None, gradients[rest:]


def _events(stored: Stored, block: Block, minus: Float[Tensor, "K B D"]) -> Events | None:
    """Jumps and guards at the steps of a block that end in events, None where there is none."""
    system, count, event = stored.program.system, stored.program.guards, stored.steps.event
    assert event is not None
    guard = event[block.first : block.stop]
    steps = (guard >= 0).any(1).nonzero().squeeze(1)
    if not len(steps):
        return None
    guard, state, when = guard[steps], minus[steps].requires_grad_(), block.times[1][steps].requires_grad_()
    fires = (guard >= 0).unsqueeze(2)
    fired = one_of(guard, count)

    def value(t: Tensor, y: Tensor, guard: Tensor) -> Tensor:
        return level(system, t, y, guard)

    with torch.enable_grad():
        plus = torch.where(fires, side_by_side(system.jump, when, state, fired), state)
        levels = side_by_side(value, when, state, guard)
    of_state, of_time = transposed(plus, (state, when))
    slope, slope_t = pull(levels, (state, when), torch.ones_like(levels), retain=True)
    return Events(steps, fires, plus, levels, of_state, of_time.squeeze(3), slope, slope_t)


def _through(
    stored: Stored, block: Block, events: Events | None, of_end: Float[Tensor, "K B D"]
) -> tuple[Float[Tensor, "K B D1 D"], Float[Tensor, "K B D1"]]:
    """T and g of `pull_event_block`: one and zero for steps that end in no event.

        D = φ_y Ψ_te + φ_t,    g = -(r_y Ψ_te + r_t, 1)/D,    T = (r_y, 0) + g φ_y

    Raises:
        EventError: D ≤ 0; names sample, guard and time.
    """
    width = of_end.shape[2]
    one = torch.eye(width + 1, width, dtype=of_end.dtype, device=of_end.device)
    through = one.repeat(*of_end.shape[:2], 1, 1)
    factor = of_end.new_zeros(*of_end.shape[:2], width + 1)
    if events is None or stored.steps.event is None:
        return through, factor
    steps, fires = events.steps, events.fires
    of_end, guard = of_end[steps], stored.steps.event[block.first : block.stop][steps]
    speed = summed(events.slope * of_end, 2).unsqueeze(2) + events.slope_t
    check_speed(fires, guard, speed, block.times[1][steps])
    moved = summed(events.of_state * of_end.unsqueeze(2), 3) + events.of_time
    of_events = -torch.cat([moved, torch.ones_like(speed)], 2) / speed
    factor[steps] = torch.where(fires, of_events, 0.0)
    jumped = torch.nn.functional.pad(events.of_state, (0, 0, 0, 1))
    through[steps] = torch.where(fires.unsqueeze(3), jumped + factor[steps].unsqueeze(3) * events.slope.unsqueeze(2), one)
    return through, factor
