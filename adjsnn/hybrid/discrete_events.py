"""Discrete adjoint of adaptive steps that end in events, (3.6): the located end of a step is one more unknown."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from adjsnn.hybrid.blocks import NotSideBySide, block_size, blocks_backward, refusals
from adjsnn.hybrid.discrete_blocks import BY_MATRIX
from adjsnn.hybrid.event_blocks import pull_event_block
from adjsnn.hybrid.event_steps import taped_step
from adjsnn.hybrid.guards import level
from adjsnn.hybrid.run import Gradients, Stored
from adjsnn.hybrid.steps import jump, step_times
from adjsnn.hybrid.vjp import add_held, add_inputs, add_leaves, at_row, at_rows, check_speed, pull


def hybrid_sweep(stored: Stored, cotangents: Tensor) -> Gradients:
    """Costate of the adaptive program itself through its events, step by step; exact to rounding.

    The steps' ends are constants, except where an event was located.

    Args:
        stored: the run.
        cotangents: dC/dy at the output times, (T+1, B, D).
    """
    steps, u = stored.steps, stored.u
    costate, sums = torch.zeros_like(stored.y0), [torch.zeros_like(x) for x in stored.leaves]
    u_bar = torch.zeros_like(u) if stored.wants_u and u is not None else None
    of_end = torch.zeros_like(stored.y0[:, :1])
    size = block_size(stored)
    side_by_side = size > 1 and stored.y0.shape[1] <= BY_MATRIX
    for block in blocks_backward(stored, size):
        part = slice(block.first, block.stop)
        kicks = at_rows(stored, cotangents, block.first + 1, block.stop + 1)
        if stored.of_times is None:
            kicks_of_end = kicks.new_zeros(len(block), len(of_end), 1)
        else:
            kicks_of_end = stored.of_times[part].unsqueeze(2)
        if side_by_side:
            try:
                with refusals():
                    pulled = pull_event_block(stored, block, (costate, of_end), (kicks, kicks_of_end))
            except NotSideBySide:
                side_by_side = False
            else:
                costate, of_end, of_inputs, of_leaves = pulled
                add_leaves(sums, of_leaves)
                if u_bar is not None and of_inputs is not None:
                    add_inputs(u_bar, steps.interval[part], of_inputs)
                continue
        for k, y in block.backward():
            costate, of_end = costate + kicks[k - block.first], of_end + kicks_of_end[k - block.first]
            costate, of_u, of_end = pull_hybrid_step(stored, k, y, costate, of_end, sums)
            if u_bar is not None and of_u is not None:
                add_held(u_bar, steps.interval[k], of_u)
    return Gradients(costate + at_row(steps, cotangents, 0), u_bar, tuple(sums))


def pull_hybrid_step(
    stored: Stored,
    k: int,
    y: Float[Tensor, "B D"],
    costate: Float[Tensor, "B D"],
    of_end: Float[Tensor, "B 1"],
    sums: Sequence[Tensor],
) -> tuple[Float[Tensor, "B D"], Tensor | None, Float[Tensor, "B 1"]]:
    """Costate before step k from the one after it.

    With Ψ(y, t, t_e) the step from t to t_e, the jump y⁺ = r(t_e, y⁻) and the event φ(t_e, Ψ) = 0:

        λ⁻ = r_yᵀ λ⁺,    D = φ_y Ψ_te + φ_t,    γ = -(λ⁻ᵀ Ψ_te + r_tᵀ λ⁺ + dC/dt_e)/D
        λ = Ψ_yᵀ (λ⁻ + γ φ_y),    θ̄ += r_θᵀ λ⁺ + γ φ_θ + Ψ_θᵀ (λ⁻ + γ φ_y)

    A step that ends in no event has a constant t_e and γ = 0.

    Args:
        y: state before the step, (B, D).
        costate: λ⁺ after it, (B, D).
        of_end: dC/dt_e of samples whose step ends in an event, by the step after it and the loss; elsewhere not read.
        sums: θ̄, added to.

    Returns:
        λ (B, D), dC/du of the step's held input (B, C) or None, and dC/dt of the step's begin (B, 1).

    Raises:
        EventError: the guard does not rise at an event, D ≤ 0; names sample, guard and time.
    """
    program, leaves = stored.program, stored.leaves
    event = stored.steps.event
    assert event is not None
    times, guard = step_times(stored.steps, k, y.dtype), event[k]
    held = program.held(stored.u, stored.steps, k)
    u = None if held is None else held.detach().requires_grad_(stored.wants_u)
    start, begin, end = (x.detach().clone().requires_grad_() for x in (y, times[0], times[1]))
    with torch.enable_grad():
        minus = taped_step(program, times, start, u, begin, end)
    fires = (guard >= 0)[:, None]
    if bool(fires.any()):
        state, when = (x.detach().clone().requires_grad_() for x in (minus, end))
        with torch.enable_grad():
            plus = jump(program.system, when, state, guard, program.guards)
            value = level(program.system, when, state, guard)
        costate, of_jump, *of_leaves = pull(plus, (state, when, *leaves), costate)
        add_leaves(sums, of_leaves)
        slope, slope_t = pull(value, (state, when), torch.ones_like(value), retain=True)
        (of_flow,) = pull(minus, (end,), costate, retain=True)
        (speed,) = pull(minus, (end,), slope, retain=True)
        speed = speed + slope_t
        check_speed(fires, guard, speed, times[1])
        gamma = torch.where(fires, -(of_flow + of_jump + of_end) / speed, 0.0)
        costate = costate + gamma * slope
        add_leaves(sums, pull(value, leaves, gamma.squeeze(1)))
    wanted = (start, begin, *([u] if stored.wants_u and u is not None else []), *leaves)
    before, of_begin, *rest = pull(minus, wanted, costate)
    of_u = rest.pop(0) if stored.wants_u and u is not None else None
    add_leaves(sums, rest)
    return before, of_u, of_begin
