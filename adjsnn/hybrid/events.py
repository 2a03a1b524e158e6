"""Events of a hybrid system inside adaptive steps: found on the continuous extension, located on the step itself, (3.4)."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adjsnn.errors import EventError
from adjsnn.hybrid.excursions import may_exceed
from adjsnn.hybrid.guards import check_numbers, guard_slopes, level, levels_of, rounding
from adjsnn.hybrid.steps import (
    Field,
    HybridProgram,
    Steps,
    at_outputs,
    combine,
    derivatives,
    jump,
    stage_time,
    step_times,
)
from adjsnn.hybrid.system import HybridSystem
from adjsnn.numerics.tableaus import Tableau

PIECES = 8  # equal parts into which a step, and then the part with a crossing, is divided
FINER = 2  # times that a step is divided finer where a guard may rise above zero and fall again within a part
ROUNDS = 4  # divisions after the first: to 1 / 8^5 of the step, all on the continuous extension, free of evaluations of f
LONGEST = 16  # divisions at most, where φ has no other sign at the start: to the rounding of a fraction
POLISHES = 12  # Newton steps on the step itself; three or four are usual
TIE = 1e-9  # a guard this little above zero was reached in the same instant, not raised by a jump


class Span(NamedTuple):
    """Begin, end and length of each sample's step, each (B,), float64, ms."""

    begin: Tensor
    end: Tensor
    length: Tensor


@dataclass(frozen=True)
class Found:
    """Events that cut steps short.

    Attributes:
        here: which samples, (B,).
        guard: which guard, (B,), -1 where none.
        time: of the event, (B,), float64, ms.
        length: of the step up to the event, (B,), float64, ms.
        minus, plus: states before and after the jump, (B, D).
    """

    here: Bool[Tensor, " B"]
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
        self.spent = torch.zeros_like(levels, dtype=torch.bool)  # fired, and not below zero since
        self.at_once = torch.zeros(len(levels), dtype=torch.long, device=levels.device)
        self.slowest = levels.new_full((len(levels),), float("inf"))

    def look(
        self, tried: Bool[Tensor, " B"], span: Span, y: Float[Tensor, "B D"], u: Tensor | None, ks: list[Tensor]
    ) -> Found | None:
        """The first event of each sample in a step that may be taken; None where there is none in any.

        Args:
            tried: the samples whose steps count.
            span: of the step.
            y, u: state before the step and input.
            ks: its stage derivatives, the last of them at its end.
        """
        inside = _Inside(self.system, self.tableau, span, y, torch.stack(ks[: len(self.tableau.dense)]), self.levels)
        low, high, found = inside.first()
        waiting = (self.levels >= 0.0) & ~self.spent
        pending = tried & waiting.any(1)
        here = pending | (tried & found)
        if not bool(here.any()):
            return None
        for divided in range(LONGEST):
            # A flight that begins on zero may be any part of the step, and has no chord from its start.
            if divided >= ROUNDS and not bool((here & ~pending & (low == 0.0) & (self.levels.amax(1) > -TIE)).any()):
                break
            low, high, _ = inside.divide(low, high)
        guess, guard = inside.cross(low, high)
        guess = torch.where(pending, 0.0, guess)
        guard = torch.where(pending, waiting.to(torch.int8).argmax(1), guard)
        length, minus = self._polish(here & ~pending, guard, torch.where(here, guess, 1.0) * span.length, span, y, u)
        guard = torch.where(here, guard, -1)
        speed = self._speed(guard, span.begin + length, minus, u)
        self.slowest = torch.where(here, torch.minimum(self.slowest, speed), self.slowest)
        t_event = torch.minimum(span.begin + length, span.end)
        plus = jump(self.system, _column(t_event, y), minus, guard, self.count)
        self._check(here, guard, _column(t_event, y), minus, plus, speed, u)
        self._count(here, guard, span.begin, length)
        return Found(here, guard, t_event, length, minus, plus)

    def arrive(self, taken: Bool[Tensor, " B"], t: Tensor, y: Tensor, u: Tensor | None, found: Found | None) -> None:
        """Note the guards at the state y from which the next step starts, for the samples whose step was taken.

        A guard that its own jump left on zero, to rounding, is below it where it is falling, like that of a ball on the floor;
        where it is not, it has been crossed, and fires again when it has been below.
        """
        levels, spent = levels_of(self.system, t, y), self.spent
        if found is not None:
            own = torch.nn.functional.one_hot(found.guard.clamp(min=0), self.count).bool() & found.here[:, None]
            unmoved = (levels >= -TIE) & (levels == levels_of(self.system, t, found.minus))
            of_y, of_t = guard_slopes(self.system, t, y, found.guard)
            speed = (of_y * self.field(t, y, u)).sum(1) + of_t.squeeze(1)
            # Not a little below: there events may pile up, which has to be seen.
            reset = (levels >= 0.0) & (levels <= rounding(of_y, y, speed, t).unsqueeze(1))
            on_zero = own & (unmoved | reset)
            levels = torch.where(on_zero, torch.where(speed.unsqueeze(1) < 0.0, _below(levels), 0.0), levels)
            spent = torch.where(own, on_zero, spent)
        self.levels = torch.where(taken[:, None], levels, self.levels)
        self.spent = torch.where(taken[:, None], spent & (levels >= 0.0), self.spent)

    def _polish(
        self, wanted: Tensor, guard: Tensor, guess: Tensor, span: Span, y: Tensor, u: Tensor | None
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "B D"]]:
        """The length at which the guard of the step itself is zero, by Newton's method, and the state there."""
        tableau, length, settled, minus = self.tableau, guess, ~wanted, y
        for polish in range(POLISHES + 1):
            end = torch.minimum(span.begin + length, span.end)
            now = _column(span.begin, y), _column(end, y), _column(length, y)
            ks = derivatives(tableau, self.field, now, y, u, tableau.stages - 1)
            minus = y + now[2] * combine(tableau.b, ks)
            if polish == POLISHES or bool(settled.all()):
                break
            flow = self.field(stage_time(tableau, tableau.stages - 1, now), minus, u)
            of_y, of_t = guard_slopes(self.system, now[1], minus, guard)
            speed = (of_y * flow).sum(1) + of_t.squeeze(1)
            change = (level(self.system, now[1], minus, guard) / speed).double()
            change = torch.where(change.isfinite(), change, 0.0)
            moved = torch.minimum((length - change).clamp(min=0.0), span.length)
            length = torch.where(settled, length, moved)
            # What is left after a small change is its square.
            small = 4.0 * torch.finfo(y.dtype).eps * (span.begin.abs() + span.length)
            settled = settled | (change.abs() <= small)
        return length, minus

    def _speed(self, guard: Tensor, t: Tensor, y: Tensor, u: Tensor | None) -> Float[Tensor, " B"]:
        """dφ/dt along the flow."""
        of_y, of_t = guard_slopes(self.system, _column(t, y), y, guard)
        return (of_y * self.field(_column(t, y), y, u)).sum(1) + of_t.squeeze(1)

    def _count(self, here: Tensor, guard: Tensor, t: Tensor, length: Tensor) -> None:
        """Raise EventError where more events than guards follow each other without time passing."""
        instant = here & (length <= 1e-12 * t.abs().clamp(min=1.0))
        self.at_once = torch.where(instant, self.at_once + 1, 0)
        if bool((self.at_once > self.count + 5).any()):
            sample = int(self.at_once.argmax())
            raise EventError(
                f"{int(self.at_once[sample])} events of sample {sample} at t = {float(t[sample]):.12g} ms, the last of guard "
                f"{int(guard[sample])}, without time passing",
                "events that do not pile up in an instant",
                "a refractory time, or stopping before that time",
            )

    def _check(
        self, here: Tensor, guard: Tensor, t: Tensor, minus: Tensor, plus: Tensor, speed: Tensor, u: Tensor | None
    ) -> None:
        """Raise EventError where an event was not found, or a jump leaves its own guard reached or raises another."""
        before, after = levels_of(self.system, t, minus), levels_of(self.system, t, plus)
        check_numbers(here, t, before, after)
        own = torch.nn.functional.one_hot(guard.clamp(min=0), self.count).bool()
        of_y, _ = guard_slopes(self.system, t, minus, guard)
        room = 64.0 * torch.finfo(minus.dtype).eps + rounding(of_y, minus, speed, t)
        off = before.gather(1, guard.clamp(min=0)[:, None]).squeeze(1)
        missed = here & ~((off.abs() <= room.clamp(min=TIE)) & (speed > 0.0))
        if bool(missed.any()):
            sample = int(missed.nonzero()[0])
            raise EventError(
                f"guard {int(guard[sample])}, sample {sample}, touches zero near t = {float(t[sample]):.12g} ms without a "
                f"clear crossing: Newton's method ended at {float(off[sample]):.3g}, with dφ/dt = {float(speed[sample]):.3g}",
                "guards that rise through zero, and not many times in an instant",
                "another input or initial state, or stopping before: a grazing event has no gradient",
            )
        tied = ~own & (before >= -TIE)
        wrong = here[:, None] & (after >= 0.0) & ~tied
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
            raise EventError(
                f"the jump of guard {fired}, sample {sample}, t = {when:g} ms, left that guard at "
                f"{float(after[sample, other]):g}",
                "a jump that ends below its own threshold",
                "a reset further away from the threshold",
            )
        raise EventError(
            f"the jump of guard {fired}, sample {sample}, t = {when:g} ms, raised guard {other} from "
            f"{float(before[sample, other]):g} to {float(after[sample, other]):g}",
            "jumps that do not make another guard fire in the same instant",
            "a coupling with a time constant or a delay",
        )


@dataclass(frozen=True)
class _Inside:
    """The guards along a step, on its continuous extension.

    Attributes:
        span, y: the step and the state before it.
        slopes: stage derivatives, (S, B, D).
        begins: φ at the start of the step, (B, G).
    """

    system: HybridSystem
    tableau: Tableau
    span: Span
    y: Float[Tensor, "B D"]
    slopes: Float[Tensor, "S B D"]
    begins: Float[Tensor, "B G"]

    def at(self, sigma: Float[Tensor, "P B"]) -> Float[Tensor, "P B G"]:
        """φ at fractions of the step."""
        s = sigma.to(self.y.dtype).unsqueeze(2)
        total, weights = torch.zeros_like(s), s.new_zeros(len(self.slopes), 1, 1, 1)
        for coefficients in _powers(self.tableau.dense, s.dtype, s.device):  # of all stages at once, highest power first
            weights = (weights + coefficients) * s
        for weight, k in zip(weights, self.slopes, strict=True):
            total = total + weight * k
        y = self.y + _column(self.span.length, self.y) * total
        t = _column(self.span.begin, self.y) + s * _column(self.span.length, self.y)
        levels = levels_of(self.system, t.flatten(0, 1), y.flatten(0, 1)).unflatten(0, sigma.shape)
        return torch.where(s > 0.0, levels, self.begins)

    def first(self) -> tuple[Tensor, Tensor, Tensor]:
        """The first part of the step in which a guard rises through zero: where it begins and ends, and whether there is one.

        A guard that is below zero at both ends of a part, but bends so that it may have been above in between, is looked at
        more closely, in the samples where that comes before a crossing.
        """
        zero = torch.zeros_like(self.span.begin)
        parts = PIECES
        low, high, found, hidden = self._first_or_hidden(zero, parts)
        for _ in range(FINER):
            if not bool(hidden.any()):
                break
            parts *= PIECES
            finer = self._first_or_hidden(zero, parts)
            low, high, found, hidden = (
                torch.where(hidden, x, before) for x, before in zip(finer, (low, high, found, hidden), strict=True)
            )
        return low, torch.where(found, high, 1.0), found

    def divide(self, low: Float[Tensor, " B"], high: Float[Tensor, " B"]) -> tuple[Tensor, Tensor, Tensor]:
        """The first of PIECES parts between two fractions in which a guard rises through zero, and whether one does, (B,)."""
        width = (high - low) / PIECES
        first, found = self._first_of(self._levels(low, width, PIECES))
        return low + first * width, torch.where(found, low + (first + 1) * width, high), found

    def _first_or_hidden(self, zero: Tensor, parts: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The first of some parts of the step in which a guard rises, the first part where there is none; whether one does;
        whether one may in a part before."""
        levels, width = self._levels(zero, 1.0 / parts, parts), 1.0 / parts
        first, found = self._first_of(levels)
        low, high = zero + first * width, zero + (first + 1) * width
        hidden = may_exceed(levels).any(2)
        if not bool(hidden.any()):
            return low, high, found, hidden[0]
        before = torch.arange(parts, device=zero.device)[:, None] < torch.where(found, first, parts)
        return low, high, found, (hidden & before).any(0)

    def _levels(self, low: Tensor, width: Tensor | float, parts: int) -> Float[Tensor, "P1 B G"]:
        """φ at the ends of parts of equal width."""
        return self.at(low + torch.arange(parts + 1, device=low.device, dtype=low.dtype)[:, None] * width)

    def _first_of(self, levels: Float[Tensor, "P1 B G"]) -> tuple[Tensor, Tensor]:
        """The number of the first part in which a guard rises, 0 where there is none, and whether one does, each (B,)."""
        rises = self._rises(levels[:-1], levels[1:]).any(2)
        return rises.to(torch.int8).argmax(0), rises.any(0)

    def cross(self, low: Float[Tensor, " B"], high: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Int[Tensor, " B"]]:
        """Where the first guard crosses zero between two near fractions, along chords, and which guard."""
        before, after = self.at(torch.stack([low, high]))
        # Where there is no chord, for want of a number, the end shows what the guard is.
        chord = torch.where(before.isfinite() & after.isfinite(), before / (before - after), 1.0)
        share = torch.where(self._rises(before, after), chord, float("inf"))
        least, guard = share.min(1)
        return low + least.clamp(max=1.0).to(low.dtype) * (high - low), guard

    @staticmethod
    def _rises(before: Tensor, after: Tensor) -> Tensor:
        return ~((before >= 0.0) | (after < 0.0))


@lru_cache(maxsize=32)
def _powers(dense: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device) -> Float[Tensor, "Q S 1 1 1"]:
    """Coefficients of the dense output by power, highest first."""
    by_power = tuple(zip_longest(*dense, fillvalue=0.0))
    return torch.tensor(by_power[::-1], dtype=dtype, device=device)[:, :, None, None, None]


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
        begin, end: the same times, on the tape.
    """
    tableau, (t, t_end, length) = program.tableau, times
    h = length + (end - t_end) - (begin - t)
    ks = derivatives(tableau, program.field, (begin, end, h), y, u, tableau.stages - tableau.first_same_as_last)
    return y + h * combine(tableau.b, ks)


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
    begin = step_times(steps, 0, y0.dtype)[0]
    for k in range(len(steps)):
        times, held, guard = step_times(steps, k, y0.dtype), program.held(u, steps, k), steps.event[k]
        end = times[1]
        minus = taped_step(program, times, states[-1], held, begin, end)
        if bool((here := (guard >= 0)[:, None]).any()):
            start = (times, states[-1].detach(), held, begin.detach())
            if anew:
                for _ in range(POLISHES):
                    value, speed = _event_residual(program, *start, end, guard)
                    end = end - torch.where(here, value / speed, 0.0)
                minus = taped_step(program, times, states[-1], held, begin, end)
            speed = torch.where(here, _event_residual(program, *start, end, guard)[1], 1.0)
            for _ in range(2):
                value = level(program.system, end, minus, guard)[:, None]
                end = end - torch.where(here, (value - value.detach()) / speed, 0.0)
                minus = taped_step(program, times, states[-1], held, begin, end)
        states.append(jump(program.system, end, minus, guard, program.guards))
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


def _column(x: Float[Tensor, " B"], like: Tensor) -> Float[Tensor, "B 1"]:
    return x.to(like.dtype).unsqueeze(1)


def _below(levels: Tensor) -> Tensor:
    """Just below zero."""
    return torch.full_like(levels, -torch.finfo(levels.dtype).tiny)


def events_of(steps: Steps, like: Tensor) -> tuple[Float[Tensor, "B E"], Int[Tensor, "B E"]]:
    """Time and guard of each sample's events, in order, padded with inf and -1."""
    if steps.event is None:
        batch = steps.times.shape[1]
        return like.new_empty(batch, 0), torch.empty(batch, 0, dtype=torch.long, device=like.device)
    rows, index = event_rows(steps.event)
    times = steps.times.gather(0, rows + 1).T.to(like.dtype)
    return torch.where(index >= 0, times, float("inf")), index
