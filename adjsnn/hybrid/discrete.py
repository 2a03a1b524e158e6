"""Discrete adjoint of Runge–Kutta programs without events: the costate of the method itself."""

from collections.abc import Sequence

import torch
from torch import Tensor

from adjsnn.hybrid.arrays import stage_time
from adjsnn.hybrid.blocks import NotSideBySide, block_size, blocks_backward, refusals
from adjsnn.hybrid.discrete_blocks import product_for, pull_block
from adjsnn.hybrid.run import Gradients, Stored
from adjsnn.hybrid.steps import combine, moved, step_times
from adjsnn.hybrid.vjp import add_held, add_inputs, add_leaves, at_row, at_rows, pull_field


def discrete_sweep(stored: Stored, cotangents: Tensor) -> Gradients:
    """Costate of the Runge–Kutta program itself, step by step and stage by stage.

        k̄_i = h (b_i λ⁺ + Σ_{j>i} a_ji s̄_j),    s̄_i = f_yᵀ k̄_i,    λ = λ⁺ + Σ_i s̄_i,    θ̄ += Σ_i f_θᵀ k̄_i

    Exact to rounding for the steps that were taken; their lengths are constants.

    Args:
        stored: the run.
        cotangents: dC/dy at the output times, (T+1, B, D).
    """
    steps, u = stored.steps, stored.u
    costate = torch.zeros_like(stored.y0)
    sums = [torch.zeros_like(x) for x in stored.leaves]
    u_bar = torch.zeros_like(u) if stored.wants_u and u is not None else None
    size = block_size(stored)
    side_by_side, product = size > 1, None
    for block in blocks_backward(stored, size):
        kicks = at_rows(stored, cotangents, block.first + 1, block.stop + 1)
        if side_by_side:
            try:
                with refusals():
                    if block.stop == len(steps):
                        product = product_for(stored, block)
                    costate, of_inputs, of_leaves = pull_block(stored, block, costate, kicks, product)
            except NotSideBySide:
                side_by_side = False
            else:
                add_leaves(sums, of_leaves)
                if u_bar is not None and of_inputs is not None:
                    add_inputs(u_bar, steps.interval[block.first : block.stop], of_inputs)
                continue
        for k, y in block.backward():
            costate, of_u = _pull_step(stored, k, y, costate + kicks[k - block.first], sums)
            if u_bar is not None and of_u is not None:
                add_held(u_bar, steps.interval[k], of_u)
    return Gradients(costate + at_row(steps, cotangents, 0), u_bar, tuple(sums))


def _pull_step(stored: Stored, k: int, y: Tensor, costate: Tensor, sums: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Costate before step k, (B, D), from the one after it, and the step's dC/du, (B, C); adds its dC/dθ to `sums`."""
    program, tableau = stored.program, stored.program.tableau
    times = step_times(stored.steps, k, y.dtype)
    h = times[2]
    held = program.held(stored.u, stored.steps, k)
    count = tableau.stages - tableau.first_same_as_last
    u = None if held is None else held.detach().requires_grad_(stored.wants_u)
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    values: list[Tensor] = []
    for i in range(count):
        state = (y if i == 0 else moved(tableau, tableau.a[i], y, h, values)).detach().requires_grad_()
        with torch.enable_grad():
            out = program.field(stage_time(tableau, i, times), state, u)
        inputs.append(state)
        outputs.append(out)
        values.append(out.detach())
    before, of_u = costate, None
    stage_bars: list[Tensor] = [costate] * count
    for i in reversed(range(count)):
        weights = [(tableau.b[i], costate), *((tableau.a[j][i], stage_bars[j]) for j in range(i + 1, count))]
        chosen = [(w, bar) for w, bar in weights if w != 0.0]
        k_bar = h * combine([w for w, _ in chosen], [bar for _, bar in chosen]) if chosen else torch.zeros_like(y)
        stage_bars[i], stage_u, of_leaves = pull_field(outputs[i], inputs[i], u, stored.leaves, k_bar)
        before = before + stage_bars[i]
        if stage_u is not None:
            of_u = stage_u if of_u is None else of_u + stage_u
        add_leaves(sums, of_leaves)
    return before, of_u
