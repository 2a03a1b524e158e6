"""Steps whose events are known: on autograd's tape, and the events of each sample as a solution shows them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.hybrid.guards import level
from adjsnn.hybrid.packets import Sender, arrivals, deliver
from adjsnn.hybrid.steps import HybridProgram, Steps, at_outputs, derivatives, jump, moved, step_times

POLISHES = 12  # Newton steps on the step itself; three or four are usual


def taped_step(
    program: HybridProgram,
    times: tuple[Tensor, Tensor, Tensor],
    y: Float[Tensor, "B D"],
    u: Tensor | None,
    begin: Float[Tensor, "B 1"],
    end: Float[Tensor, "B 1"],
) -> Float[Tensor, "B D"]:
    """State at the end of a step as a function of y, u, and of where the step begins and ends, before any jump.

    Args:
        times: its begin, end and length as they were taken.
        begin: the same as times.begin, on the tape.
        end: the same as times.end, on the tape.
    """
    tableau, (t, t_end, length) = program.tableau, times
    h = length + (end - t_end) - (begin - t)
    ks = derivatives(tableau, program.field, (begin, end, h), y, u, tableau.stages - tableau.first_same_as_last)
    return moved(tableau, tableau.b, y, h, ks)


def unroll_events(
    program: HybridProgram, steps: Steps, y0: Tensor, u: Tensor | None, *, anew: bool
) -> tuple[Float[Tensor, "T1 B D"], Float[Tensor, "K B"]]:
    """States at the output times and the time at the end of every step, as operations on autograd's tape.

    Each located time is two steps φ/s away from itself, with the constant slope s = dφ/dt there. Both have length zero. The
    first has the derivative of the implicit function; the error of such a step is the error before it times that of the slope,
    so after the second the second derivative is that of the implicit function too.

    Args:
        anew: locate the events of the same steps again, for another state or other parameters than the steps are of.
    """
    assert steps.event is not None
    states, ends = [y0], []
    sender = program.system if isinstance(program.system, Sender) else None
    begin = step_times(steps, 0, y0.dtype)[0]
    for k in range(len(steps)):
        times, guard = step_times(steps, k, y0.dtype), steps.event[k]
        held = program.held(u, steps, k)
        end = times[1]
        if sender is not None and steps.packets is not None:
            end = arrivals(sender, steps.packets, k, ends, end, anew=anew)
        minus = taped_step(program, times, states[-1], held, begin, end)
        fires = (guard >= 0)[:, None]
        if bool(fires.any()):
            start = (times, states[-1].detach(), held, begin.detach())
            if anew:
                for _ in range(POLISHES):
                    value, speed = _event_residual(program, *start, end, guard)
                    end = end - torch.where(fires, value / speed, 0.0)
                minus = taped_step(program, times, states[-1], held, begin, end)
            speed = torch.where(fires, _event_residual(program, *start, end, guard)[1], 1.0)
            for _ in range(2):
                value = level(program.system, end, minus, guard)[:, None]
                end = end - torch.where(fires, (value - value.detach()) / speed, 0.0)
                minus = taped_step(program, times, states[-1], held, begin, end)
        after = jump(program.system, end, minus, guard, program.guards)
        states.append(after if sender is None or steps.packets is None else deliver(sender, steps.packets, k, after))
        ends.append(end)
        begin = end
    return at_outputs(torch.stack(states), steps), torch.cat(ends, 1).T


def _event_residual(
    program: HybridProgram,
    times: tuple[Tensor, Tensor, Tensor],
    y: Tensor,
    u: Tensor | None,
    begin: Tensor,
    end: Tensor,
    guard: Tensor,
) -> tuple[Float[Tensor, "B 1"], Float[Tensor, "B 1"]]:
    """φ at the end of a step and its derivative by that end, off the tape."""
    free = end.detach().clone().requires_grad_()
    held = None if u is None else u.detach()
    with torch.enable_grad():
        value = level(program.system, free, taped_step(program, times, y, held, begin, free), guard)
    speed = torch.autograd.grad(value, free, torch.ones_like(value), materialize_grads=True, allow_unused=True)[0]
    return value.detach()[:, None], speed


def event_rows(event: Int[Tensor, "K B"]) -> tuple[Int[Tensor, "E B"], Int[Tensor, "B E"]]:
    """The steps that end in each sample's events, in order, padded with 0, and the guards that fired, padded with -1."""
    counts = (event >= 0).sum(0)
    order = (event < 0).to(torch.int8).argsort(dim=0, stable=True)[: int(counts.max())]
    real = torch.arange(len(order), device=event.device)[:, None] < counts
    index = torch.where(real, event.gather(0, order), -1)
    return torch.where(real, order, 0), index.T.contiguous()


def events_of(steps: Steps, like: Tensor) -> tuple[Float[Tensor, "B E"], Int[Tensor, "B E"]]:
    """Time and guard of each sample's events, in order, padded with inf and -1."""
    if steps.event is None:
        batch = steps.times.shape[1]
        return like.new_empty(batch, 0), torch.empty(batch, 0, dtype=torch.long, device=like.device)
    rows, index = event_rows(steps.event)
    times = steps.times.gather(0, rows + 1).T.to(like.dtype)
    return torch.where(index >= 0, times, float("inf")), index
