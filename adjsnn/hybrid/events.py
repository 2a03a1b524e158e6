"""Events of a hybrid system inside adaptive steps: found on the continuous extension, located on the step itself, (3.4)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adjsnn.hybrid.arrays import arrays_for, stage_time, stages, weighted
from adjsnn.hybrid.crossings import Inside, Span, column
from adjsnn.hybrid.event_steps import POLISHES
from adjsnn.hybrid.guards import check_numbers, guard_slopes, level, levels_of, rounding
from adjsnn.hybrid.refusals import not_left, piled, raised, touches
from adjsnn.hybrid.steps import Field, jump
from adjsnn.hybrid.system import HybridSystem
from adjsnn.numerics.tableaus import Tableau

ROUNDS = 4  # divisions after the first: to 1 / 8^5 of the step, all on the continuous extension, free of evaluations of f
LONGEST = 16  # divisions at most, where φ has no other sign at the start: to the rounding of a fraction
STRAIGHT = 1e-5  # part of the step over which a guard has one speed, for Newton's method
BRIEF = 4.0  # roundings of the time, up to which a step is an instant: all a guard does in it is rounding
TIE = 1e-9  # a guard this little above zero was reached in the same instant, not raised by a jump


@dataclass(frozen=True)
class Found:
    """Events that cut steps short.

    Attributes:
        fires: which samples, (B,).
        guard: which guard, (B,), -1 where none.
        time: of the event, (B,), float64, ms.
        length: of the step up to the event, (B,), float64, ms.
        minus: state before the jump, (B, D).
        plus: state after the jump, (B, D).
    """

    fires: Bool[Tensor, " B"]
    guard: Int[Tensor, " B"]
    time: Float[Tensor, " B"]
    length: Float[Tensor, " B"]
    minus: Float[Tensor, "B D"]
    plus: Float[Tensor, "B D"]


class Watch:
    """Looks for events in the steps of an adaptive run.

    Args:
        system: guard and jump.
        tableau: the method.
        field: f(t (B, 1), y (B, D), u).
        levels: the guards at the first state, (B, G), below zero or, as `leaves_zero` says, on it and falling.

    Attributes:
        slowest: smallest dφ/dt at an event of each sample, (B,), 1/ms; inf where there was none.
    """

    def __init__(self, system: HybridSystem, tableau: Tableau, field: Field, levels: Float[Tensor, "B G"]) -> None:
        self.system, self.tableau, self.field = system, tableau, field
        # What is on zero at the start is leaving it.
        self.levels = torch.where(levels >= 0.0, _below(levels), levels)
        self.count = levels.shape[1]
        self.arrays = arrays_for(levels)
        self.spent = torch.zeros_like(levels, dtype=torch.bool)  # fired, and not below zero since
        self.brief = torch.zeros(len(levels), dtype=torch.bool, device=levels.device)  # whether the step is an instant
        self.at_once = torch.zeros(len(levels), dtype=torch.long, device=levels.device)
        self.slowest = levels.new_full((len(levels),), float("inf"))

    def look(
        self,
        tried: Bool[Tensor, " B"],
        moving: Bool[Tensor, " B"],
        span: Span,
        y: Float[Tensor, "B D"],
        u: Tensor | None,
        ks: list[Tensor],
    ) -> Found | Bool[Tensor, " B"] | None:
        """The first event of each sample in a step that may be taken; None where there is none in any.

        To locate one event takes as long as to locate one in every sample. So samples with an event wait, in front of the step
        that has it, as long as a sample without one is behind them in time; then those that have gathered are located together.

        Args:
            tried: the samples whose steps count.
            moving: the samples that have not arrived.
            span: of the step.
            y: state before the step, (B, D).
            u: held input, (B, C), or None.
            ks: its stage derivatives, the last of them at its end.

        Returns:
            the events; or the samples that must try the same step again, since their events wait.
        """
        self.brief = span.length <= BRIEF * torch.finfo(span.end.dtype).eps * span.end.abs()
        inside = Inside(self.system, self.tableau, span, y, ks[: len(self.tableau.dense)], self.levels)
        found = inside.first()
        if found is None:
            return None
        low, high, rises = found
        waiting = (self.levels >= 0.0) & ~self.spent
        pending = tried & waiting.any(1)
        fires = pending | (tried & rises & ~self.brief)
        if not bool(fires.any()):
            return None
        never = span.begin.new_tensor(float("inf"))
        if bool(torch.where(moving & ~fires, span.begin, never).min() < torch.where(fires, span.begin, never).min()):
            return fires
        for divided in range(LONGEST):
            # A flight that begins on zero may be any part of the step, and has no chord from its start.
            if divided >= ROUNDS and not bool((fires & ~pending & (low == 0.0) & (self.levels.amax(1) > -TIE)).any()):
                break
            low, high, _ = inside.divide(low, high)
        guess, guard = inside.cross(low, high)
        guess = torch.where(pending, 0.0, guess)
        guard = torch.where(pending, waiting.to(torch.int8).argmax(1), guard)
        length, minus = self._polish(fires & ~pending, guard, torch.where(fires, guess, 1.0) * span.length, span, y, u)
        guard = torch.where(fires, guard, -1)
        t_event = torch.minimum(span.begin + length, span.end)
        t = column(t_event, y)
        of_y, of_t = guard_slopes(self.system, t, minus, guard)
        speed = (of_y * self.field(t, minus, u)).sum(1) + of_t.squeeze(1)
        self.slowest = torch.where(fires, torch.minimum(self.slowest, speed), self.slowest)
        plus = jump(self.system, t, minus, guard, self.count)
        self._check(fires, guard, t, minus, plus, speed, of_y, u)
        self._count(fires, guard, span.begin, length)
        return Found(fires, guard, t_event, length, minus, plus)

    def arrive(self, taken: Bool[Tensor, " B"], t: Tensor, y: Tensor, u: Tensor | None, events: Found | None) -> None:
        """Note the guards at the state y from which the next step starts, for the samples whose step was taken.

        A guard that its own jump left on zero, to rounding, is below it where it is falling, like that of a ball on the floor;
        where it is not, it has been crossed, and fires again when it has been below.
        """
        levels, spent = levels_of(self.system, t, y), self.spent
        own = torch.zeros_like(spent)
        if events is not None:
            own = torch.nn.functional.one_hot(events.guard.clamp(min=0), self.count).bool() & events.fires[:, None]
            spent = spent & ~own
        if events is not None and bool((own & (levels >= -TIE)).any()):
            unmoved = (levels >= -TIE) & (levels == levels_of(self.system, t, events.minus))
            of_y, of_t = guard_slopes(self.system, t, y, events.guard)
            speed = (of_y * self.field(t, y, u)).sum(1) + of_t.squeeze(1)
            # Not a little below: there events may pile up, which has to be seen.
            reset = (levels >= 0.0) & (levels <= rounding(of_y, y, speed, t).unsqueeze(1))
            on_zero = own & (unmoved | reset)
            levels = torch.where(on_zero, torch.where(speed.unsqueeze(1) < 0.0, _below(levels), 0.0), levels)
            spent = spent | on_zero
        taken = taken & ~(self.brief if events is None else self.brief & ~events.fires)
        self.levels = torch.where(taken[:, None], levels, self.levels)
        self.spent = torch.where(taken[:, None], spent & (levels >= 0.0), self.spent)

    def _polish(
        self, wanted: Tensor, guard: Tensor, guess: Tensor, span: Span, y: Tensor, u: Tensor | None
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "B D"]]:
        """The length at which the guard of the step itself is zero, by Newton's method, and the state there."""
        tableau = self.tableau
        length, minus, speed = guess, y, None
        settled = ~wanted
        if not bool(wanted.any()):
            return length, minus
        for polish in range(POLISHES + 1):
            end = torch.minimum(span.begin + length, span.end)
            now = column(span.begin, y), column(end, y), column(length, y)
            times = self.arrays.array(now[0]), self.arrays.array(now[1]), self.arrays.array(now[2])
            slopes = stages(self.arrays, tableau, self.field, times, y, u, tableau.stages - 1)[1]
            minus = self.arrays.moved(self.arrays.array(y), times[2], weighted(tableau.b, slopes))
            if polish == POLISHES or bool(settled.all()):
                break
            if speed is None:
                flow = self.field(stage_time(tableau, tableau.stages - 1, now), minus, u)
                of_y, of_t = guard_slopes(self.system, now[1], minus, guard)
                speed = (of_y * flow).sum(1) + of_t.squeeze(1)
            change = (level(self.system, now[1], minus, guard) / speed).double()
            change = torch.where(change.isfinite(), change, 0.0)
            moved = torch.minimum((length - change).clamp(min=0.0), span.length)
            length = torch.where(settled, length, moved)
            # What is left after a small change is its square, or with a speed from before its product with the change before.
            small = 4.0 * torch.finfo(y.dtype).eps * (span.begin.abs() + span.length)
            settled = settled | (change.abs() <= small)
            if not bool((settled | (change.abs() <= STRAIGHT * span.length)).all()):
                speed = None
        return length, minus

    def _count(self, fires: Tensor, guard: Tensor, t: Tensor, length: Tensor) -> None:
        """Raise EventError where more events than guards follow each other without time passing."""
        instant = fires & (length <= 1e-12 * t.abs().clamp(min=1.0))
        self.at_once = torch.where(instant, self.at_once + 1, 0)
        if bool((self.at_once > self.count + 5).any()):
            sample = int(self.at_once.argmax())
            raise piled(int(self.at_once[sample]), sample, float(t[sample]), int(guard[sample]))

    def _check(
        self,
        fires: Tensor,
        guard: Tensor,
        t: Tensor,
        minus: Tensor,
        plus: Tensor,
        speed: Tensor,
        of_y: Tensor,
        u: Tensor | None,
    ) -> None:
        """Raise EventError where an event was not found, or a jump leaves its own guard reached or raises another."""
        before, after = levels_of(self.system, t, minus), levels_of(self.system, t, plus)
        check_numbers(fires, t, before, after)
        own = torch.nn.functional.one_hot(guard.clamp(min=0), self.count).bool()
        room = 64.0 * torch.finfo(minus.dtype).eps + rounding(of_y, minus, speed, t)
        off = before.gather(1, guard.clamp(min=0)[:, None]).squeeze(1)
        missed = fires & ~((off.abs() <= room.clamp(min=TIE)) & (speed > 0.0))
        if bool(missed.any()):
            sample = int(missed.nonzero()[0])
            raise touches(int(guard[sample]), sample, float(t[sample]), float(off[sample]), float(speed[sample]))
        tied = ~own & (before >= -TIE)
        wrong = fires[:, None] & (after >= 0.0) & ~tied
        if not bool(wrong.any()):
            return
        of_y, of_t = guard_slopes(self.system, t, plus, guard)
        speed = (of_y * self.field(t, plus, u)).sum(1) + of_t.squeeze(1)
        unmoved = (after <= TIE) & (after == before)
        wrong = wrong & ~(own & (unmoved | (after <= rounding(of_y, plus, speed, t).unsqueeze(1))))
        if not bool(wrong.any()):
            return
        sample, other = (int(k) for k in wrong.nonzero()[0])
        fired, when = int(guard[sample]), float(t[sample])
        if other == fired:
            raise not_left(fired, sample, when, float(after[sample, other]))
        raise raised(fired, sample, when, other, float(before[sample, other]), float(after[sample, other]))


def _below(levels: Tensor) -> Tensor:
    """Just below zero."""
    return torch.full_like(levels, -torch.finfo(levels.dtype).tiny)
