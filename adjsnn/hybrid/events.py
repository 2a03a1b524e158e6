"""Events of a hybrid system inside adaptive steps: found on the continuous extension, located on the step itself, (3.4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.hybrid.arrays import TorchArrays, stages
from adjsnn.hybrid.crossings import TIE, Inside, Span
from adjsnn.hybrid.event_steps import POLISHES
from adjsnn.hybrid.guards import Levels, check_numbers, first_of, levels_of, rounding
from adjsnn.hybrid.refusals import not_left, piled, raised, touches
from adjsnn.hybrid.steps import Field
from adjsnn.hybrid.system import HybridSystem
from adjsnn.numerics.tableaus import Tableau

BRIEF = 4.0  # roundings of the time, up to which a step is an instant: all a guard does in it is rounding
EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Found:
    """Events that cut steps short. All but states and guards are arrays.

    Attributes:
        fires: which samples, (B,).
        guard: which guard, (B,), -1 where none.
        time: of the event, (B,), float64, ms.
        length: of the step up to the event, (B,), float64, ms.
        levels: the guards before the jump, (B, G).
        plus: state after the jump, (B, D).
        leaving: dφ/dt after the jump and what rounding leaves of φ there, (B, 1); None where no jump ends near its own guard.
        flow: the derivative of that state, (B, D), where it was asked for; None where it was not.
    """

    fires: Any
    guard: Int[Tensor, " B"]
    time: Any
    length: Any
    levels: Any
    plus: Float[Tensor, "B D"]
    leaving: tuple[Any, Any] | None
    flow: Float[Tensor, "B D"] | None


class Reached(NamedTuple):
    """Where guards reach zero, at the end of steps that were cut.

    Attributes:
        length: of the steps, an array (B,), float64, ms.
        t: their end, (B, 1).
        minus: the state there, (B, D).
        levels: the guards there, an array (B, G).
        speed: dφ/dt of the guard of each sample, an array (B,).
        of_y: its φ_y, (B, D).
    """

    length: Any
    t: Float[Tensor, "B 1"]
    minus: Float[Tensor, "B D"]
    levels: Any
    speed: Any
    of_y: Float[Tensor, "B D"]


class Watch:
    """Looks for events in the steps of an adaptive run. What it computes are arrays, of `arrays`.

    Args:
        arrays: those of the run.
        system: guard and jump.
        tableau: the method.
        field: f(t (B, 1), y (B, D), u).
        levels: the guards at the first state, (B, G), below zero or, as `leaves_zero` says, on it and falling.

    Attributes:
        slowest: smallest dφ/dt at an event of each sample, (B,), 1/ms; inf where there was none.
    """

    def __init__(
        self, arrays: type[TorchArrays], system: HybridSystem, tableau: Tableau, field: Field, levels: Float[Tensor, "B G"]
    ) -> None:
        self.arrays, self.system, self.tableau, self.field = arrays, system, tableau, field
        self.dtype, self.eps = levels.dtype, torch.finfo(levels.dtype).eps
        self.below = -torch.finfo(levels.dtype).tiny  # just below zero
        batch, self.count, array = *levels.shape, arrays.array
        # What is on zero at the start is leaving it.
        self.levels = array(torch.where(levels >= 0.0, self.below, levels))
        self.numbers = array(torch.arange(self.count, device=levels.device))
        self.samples = array(torch.arange(batch, device=levels.device))
        self.spent = array(torch.zeros_like(levels, dtype=torch.bool))  # fired, and not below zero since
        self.brief = array(torch.zeros(batch, dtype=torch.bool, device=levels.device))  # whether the step is an instant
        self.at_once = array(torch.zeros(batch, dtype=torch.long, device=levels.device))
        self.slowest = array(levels.new_full((batch,), float("inf")))

    def look(
        self,
        tried: Any,
        moving: Any,
        span: Span,
        y: Float[Tensor, "B D"],
        u: Tensor | None,
        slopes: Sequence[Any],
        first: Float[Tensor, "B D"],
    ) -> Any:
        """The first event of each sample in a step that may be taken; None where there is none in any.

        To locate one event takes as long as to locate one in every sample. So samples with an event wait, in front of the step
        that has it, as long as a sample without one is behind them in time; then those that have gathered are located together.

        Args:
            tried: the samples whose steps count, (B,).
            moving: the samples that have not arrived, (B,).
            span: of the step.
            y: state before the step, (B, D).
            u: held input, (B, C), or None.
            slopes: its stage derivatives, arrays (B, D), the last of them at its end.
            first: the first of them, as a tensor.

        Returns:
            the events, `Found`; or the samples that must try the same step again, since their events wait, (B,).
        """
        xp, never = self.arrays.xp, float("inf")
        self.brief = span.length <= BRIEF * EPS * abs(span.end)
        inside = Inside(self.arrays, self.system, self.tableau, span, y, slopes[: len(self.tableau.dense)], self.levels)
        part = inside.first()
        if part is None:
            return None
        waiting = (self.levels >= 0.0) & ~self.spent
        pending = tried & waiting.any(1)
        fires = pending | (tried & part.rises & ~self.brief)
        if not bool(fires.any()):
            return None
        if bool(xp.where(moving & ~fires, span.begin, never).min() < xp.where(fires, span.begin, never).min()):
            return fires
        guess, guard = inside.locate(part, fires & ~pending)
        guess = xp.where(pending, 0.0, guess)
        guard = xp.where(pending, self.arrays.first_true(waiting, 1), guard)
        reached = self._polish(fires & ~pending, guard, xp.where(fires, guess, 1.0) * span.length, span, y, u, first)
        return self._jump(fires, xp.where(fires, guard, -1), reached, span, u)

    def _jump(self, fires: Any, guard: Any, reached: Reached, span: Span, u: Tensor | None) -> Found:
        """The events where guards were reached.

        Raises:
            EventError: an event was not found, or a jump leaves its own guard reached or raises another.
        """
        xp, array = self.arrays.xp, self.arrays.array
        t, which, before = reached.t, self.arrays.tensor(guard), reached.levels
        own = guard[:, None] == self.numbers  # nothing where nothing fires
        jumped = self.system.jump(t, reached.minus, self.arrays.tensor(own))
        plus = torch.where(self.arrays.tensor(fires)[:, None], jumped, reached.minus)
        there = Levels(self.system, t, plus)
        after = array(there.values)
        check_numbers(fires, t, before, after)
        self._check_reached(fires, guard, reached)
        self.slowest = xp.where(fires, xp.minimum(self.slowest, reached.speed), self.slowest)
        leaving = flow = None
        if bool((fires[:, None] & ((after >= 0.0) | (own & (after >= -TIE)))).any()):
            flow = self.field(t, plus, u)
            speed, of_y = there.speeds(which, flow)
            speed = array(speed)
            leaving = speed[:, None], rounding(array(of_y), array(plus), speed, array(t), self.eps)[:, None]
            self._check(fires, guard, t, before, after, leaving[1])
        self._count(fires, guard, span.begin, reached.length)
        time = xp.minimum(span.begin + reached.length, span.end)
        return Found(fires, which, time, reached.length, before, plus, leaving, flow)

    def arrive(self, taken: Any, t: Tensor, y: Tensor, events: Found | None) -> None:
        """Note the guards at the state y from which the next step starts, for the samples (B,) whose step was taken.

        A guard that its own jump left on zero, to rounding, is below it where it is falling, like that of a ball on the floor;
        where it is not, it has been crossed, and fires again when it has been below.
        """
        xp, array = self.arrays.xp, self.arrays.array
        levels, spent = array(levels_of(self.system, t, y)), self.spent
        taken = taken & ~(self.brief if events is None else self.brief & ~events.fires)
        if events is not None:
            own = array(events.guard)[:, None] == self.numbers
            spent = spent & ~own
            if events.leaving is not None:
                speed, room = events.leaving
                unmoved = (levels >= -TIE) & (levels == events.levels)
                # Not a little below: there events may pile up, which has to be seen.
                on_zero = own & (unmoved | ((levels >= 0.0) & (levels <= room)))
                levels = xp.where(on_zero, 0.0, levels)
                levels = xp.where(on_zero & (speed < 0.0), self.below, levels)
                spent = spent | on_zero
        self.levels = xp.where(taken[:, None], levels, self.levels)
        self.spent = xp.where(taken[:, None], spent & (levels >= 0.0), self.spent)

    def column(self, x: Any) -> Tensor:
        """A time of each sample beside its state, in the state's dtype, a tensor (B, 1)."""
        return self.arrays.tensor(self.arrays.cast(x, self.dtype)[:, None])

    def _polish(self, wanted: Any, guard: Any, guess: Any, span: Span, y: Tensor, u: Tensor | None, first: Tensor) -> Reached:
        """Where the guard of the step itself is zero, by Newton's method in the samples that are `wanted`.

        Args:
            first: the step's first stage derivative, (B, D).
        """
        if not bool(wanted.any()):  # what fires has waited since the step began
            return self._seen(guard, guess, self.column(span.begin), y, first)
        xp, length, settled = self.arrays.xp, guess, ~wanted
        small = 4.0 * self.eps * (abs(span.begin) + span.length)
        reached = self._reach(guard, length, span, y, u, first)
        for _ in range(POLISHES):
            change = self.arrays.cast(reached.levels[self.samples, guard] / reached.speed, torch.float64)
            # Less than rounding is left, or it is no number.
            settled = settled | ~((abs(change) > small) & xp.isfinite(change))
            if bool(settled.all()):
                break
            length = xp.where(settled, length, xp.minimum(self.arrays.clip(length - change, 0.0, None), span.length))
            reached = self._reach(guard, length, span, y, u, first)
        return reached

    def _reach(self, guard: Any, length: Any, span: Span, y: Tensor, u: Tensor | None, first: Tensor) -> Reached:
        """The guards at the end of a step cut to `length` (B,)."""
        arrays, xp, tableau = self.arrays, self.arrays.xp, self.tableau
        cut = span.begin, xp.minimum(span.begin + length, span.end), length
        begin, end, h = (arrays.cast(x, self.dtype)[:, None] for x in cut)
        # The last stage is at the new state.
        flows, _, minus = stages(arrays, tableau, self.field, (begin, end, h), y, u, tableau.stages, first)
        return self._seen(guard, length, arrays.tensor(end), minus, flows[-1])

    def _seen(self, guard: Any, length: Any, t: Tensor, minus: Tensor, flow: Tensor) -> Reached:
        """The guards at the end t (B, 1) of such a step, in the state `minus` with its derivative, (B, D)."""
        array, there = self.arrays.array, Levels(self.system, t, minus)
        speed, of_y = there.speeds(self.arrays.tensor(guard), flow)
        return Reached(length, t, minus, array(there.values), array(speed), of_y)

    def _check_reached(self, fires: Any, guard: Any, reached: Reached) -> None:
        """Raise EventError where a guard is not zero, but for rounding, or does not rise."""
        array, off = self.arrays.array, reached.levels[self.samples, guard]
        missed = fires & ~((abs(off) <= TIE) & (reached.speed > 0.0))
        if not bool(missed.any()):
            return
        room = 64.0 * self.eps + rounding(array(reached.of_y), array(reached.minus), reached.speed, array(reached.t), self.eps)
        missed = missed & ~((abs(off) <= room) & (reached.speed > 0.0))
        if bool(missed.any()):
            sample = first_of(missed)[0]
            numbers = (float(x[sample]) for x in (reached.t, off, reached.speed))
            raise touches(int(guard[sample]), sample, *numbers)

    def _count(self, fires: Any, guard: Any, t: Any, length: Any) -> None:
        """Raise EventError where more events than guards follow each other without time passing."""
        instant = fires & (length <= 1e-12 * self.arrays.clip(abs(t), 1.0, None))
        self.at_once = self.arrays.xp.where(instant, self.at_once + 1, 0)
        if bool((self.at_once > self.count + 5).any()):
            sample = int(self.at_once.argmax())
            raise piled(int(self.at_once[sample]), sample, float(t[sample]), int(guard[sample]))

    def _check(self, fires: Any, guard: Any, t: Tensor, before: Any, after: Any, room: Any) -> None:
        """Raise EventError where a jump leaves its own guard reached, but for rounding (B, 1), or raises another."""
        own = guard[:, None] == self.numbers
        tied = ~own & (before >= -TIE)
        unmoved = (after <= TIE) & (after == before)
        wrong = fires[:, None] & (after >= 0.0) & ~tied & ~(own & (unmoved | (after <= room)))
        if not bool(wrong.any()):
            return
        sample, other = first_of(wrong)
        fired, when = int(guard[sample]), float(t[sample])
        if other == fired:
            raise not_left(fired, sample, when, float(after[sample, other]))
        raise raised(fired, sample, when, other, float(before[sample, other]), float(after[sample, other]))
