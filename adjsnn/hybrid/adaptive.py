"""Adaptive Runge–Kutta steps, every sample of a batch with its own time, step length and error control."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.hybrid.arrays import arrays_for, stages, weighted
from adjsnn.hybrid.crossings import Span
from adjsnn.hybrid.events import Found, Watch
from adjsnn.hybrid.refusals import first_to_fail, stuck, too_many
from adjsnn.hybrid.steps import Field, Steps
from adjsnn.hybrid.system import HybridSystem
from adjsnn.numerics.tableaus import Tableau

Arrive = Callable[[Tensor, Tensor, Tensor], Tensor]

SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0
STRETCH = 1.01  # a last step may be this much longer than proposed, so that no sliver of an interval is left over
ASK_EVERY = {"cpu": 1}  # attempts between questions whether all are done; elsewhere 16, since each waits for the device
KEPT_BITS = 20  # mantissa bits of a step length
EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Control:
    """How an adaptive run is controlled.

    The error of a step is the root of the mean square of error / (atol + rtol max(|y|, |y⁺|)) over a sample's D entries; a
    step is accepted at ≤ 1, and the next length is h·min(10, max(0.2, 0.9 error^(-1/5))).

    Args:
        rtol: relative tolerance.
        atol: absolute tolerance, a number or (B, 1).
        max_steps: most attempts for any sample.
        keep: how many states to keep, at most: None, all of them; "sqrt", about 2√n after n steps; or a number. Kept are those
            before every `stride`-th step, and the stride doubles whenever they become too many.
    """

    rtol: float
    atol: float | Tensor
    max_steps: int
    keep: int | Literal["sqrt"] | None = None


@dataclass(frozen=True)
class AdaptiveRun:
    """What an adaptive run returns.

    Attributes:
        steps: the accepted steps.
        outputs: states at the output times, (T+1, B, D).
        kept: every `stride`-th state, (⌈(K+1)/stride⌉, B, D).
        stride: distance of the kept states, in steps.
        rejected: attempts of each sample that were not accepted, (B,).
        slowest: smallest dφ/dt at an event of each sample, (B,); None for a system without guards.
    """

    steps: Steps
    outputs: Float[Tensor, "T1 B D"]
    kept: Float[Tensor, "S B D"]
    stride: int
    rejected: Int[Tensor, " B"]
    slowest: Float[Tensor, " B"] | None = None


def march(
    tableau: Tableau,
    field: Field,
    ts: Tensor,
    y0: Tensor,
    u: Tensor | None,
    control: Control,
    *,
    arrive: Arrive | None = None,
    by_interval: bool = False,
    system: HybridSystem | None = None,
) -> AdaptiveRun:
    """Solve ẏ = field(t, y, u) adaptively from ts[0] to ts[-1], ending a step on every output time.

    Args:
        tableau: a method with an error estimate whose last stage is the first of the next step.
        field: (t (B, 1), y (B, D), u) → (B, D).
        ts: output times, (T+1,), float64, increasing; or (T+1, B), those of each sample, which may repeat.
        y0: (B, D).
        u: inputs (T, B, C) held between output times, of which the field is given (B, C), or None.
        control: tolerances and limits.
        arrive: (which, y, arrived) → the state after reaching output time `which` (B,) in state y (B, D), where `arrived` (B,).
        by_interval: give the field the number of the interval of each sample, (B,), in place of u.
        system: a system with guards, whose events end steps.

    Raises:
        IntegrationError: too many steps, or a step too short to advance time; names the first such sample, time and step.
        EventError: an event that is not a clear crossing, or a jump that does not leave its guard; names the first such sample,
            and the time.
    """
    ts = ts if ts.dim() == 2 else ts.unsqueeze(1).expand(-1, len(y0))
    every = ASK_EVERY.get(y0.device.type, 16)

    def first(count: int) -> AdaptiveRun:
        run = _Run(tableau, field, ts, y0, u, control, arrive, by_interval, system, count)
        with np.errstate(all="ignore"):
            for attempt in itertools.count():
                if attempt % every == 0 and run.finished():
                    break
                run.make_room(every)
                run.attempt()
        return run.result()

    return first_to_fail(first, len(y0))


class _Run:
    """State of an adaptive run; every field of the control is a (B,) array, so that samples differ by masks only. Those after
    the first `count` stay where they begin.

    Arrays are those of `arrays_for`; what is stored, and what the system's functions are given, are tensors.
    """

    def __init__(
        self,
        tableau: Tableau,
        field: Field,
        ts: Tensor,
        y0: Tensor,
        u: Tensor | None,
        control: Control,
        arrive: Arrive | None,
        by_interval: bool,
        system: HybridSystem | None,
        count: int,
    ) -> None:
        self.tableau, self.field, self.control = tableau, field, control
        self.arrays = arrays_for(y0)
        self.ts, self.u = ts, u
        self.on_arrival, self.by_interval = arrive, by_interval
        batch, device = len(y0), y0.device
        self.samples = torch.arange(batch, device=device)
        self.y, self.t = y0, ts[0].clone()
        zeros = torch.zeros(batch, dtype=torch.long, device=device)
        self.interval, self.count, self.rejected = zeros, zeros.clone(), zeros.clone()
        self.stuck = torch.zeros(batch, dtype=torch.bool, device=device)
        self.after_rejection = self.stuck.clone()
        self.most_taken = 0
        self.stride = 1
        self.outputs = y0.new_empty(len(ts), *y0.shape)
        self.outputs[0] = y0
        self.rows = zeros.new_zeros(len(ts), batch)
        self.times = self.t.new_empty(0, batch)
        self.lengths, self.kept = self.times.clone(), y0.new_empty(0, *y0.shape)
        self.intervals, self.output = zeros.new_empty(0, batch), zeros.new_empty(0, batch)
        self.watch: Watch | None = None
        if system is not None and (levels := system.guard(self._column(self.t), y0)) is not None:
            self.watch = Watch(self.arrays, system, tableau, field, levels)
        self.fired = zeros.new_empty(0, batch)
        self.make_room(1)
        self.times[0], self.kept[0], self.output[0] = self.t, y0, 0
        # The first derivative is that which ended the step before, unless the field or the state has jumped since.
        self.jumps = u is not None or by_interval or arrive is not None
        first = field(self._column(self.t), y0, self._input(zeros))
        self.first = None if self.jumps else first
        self.h = self._first_length(first)
        self.counts = self.samples < count
        self.moving: Any = None
        for name in ("t", "h", "ts", "samples", "counts", "interval", "count", "rejected", "stuck", "after_rejection"):
            setattr(self, name, self.arrays.array(getattr(self, name)))
        atol = control.atol
        self.atol = self.arrays.array(atol) if isinstance(atol, Tensor) else atol

    def finished(self) -> bool:
        """Whether every sample has arrived or may not go on. Waits for the device."""
        self.most_taken = int(self.count.max())
        if bool(self.stuck.any()):
            self._refuse_stuck()
        self.moving = self._moving()
        return not bool(self.moving.any())

    def _moving(self) -> Any:
        """Samples that have not arrived and may try another step."""
        return self._on_its_way() & ~self.stuck & (self.count + self.rejected < self.control.max_steps)

    def _on_its_way(self) -> Any:
        return self.counts & (self.interval < len(self.ts) - 1)

    def make_room(self, attempts: int) -> None:
        """Memory for the rows that this many attempts may add to those known to be taken."""
        # Rows are added for `attempts` more than `most_taken`, which is only known when the device was last asked.
        needed = self.most_taken + attempts + 1
        if needed > len(self.times):
            more = max(needed, 2 * len(self.times), 32) - len(self.times)
            for name, value in (("times", 0.0), ("lengths", 0.0), ("intervals", 0), ("output", -1), ("fired", -1)):
                old = getattr(self, name)
                setattr(self, name, torch.cat([old, old.new_full((more, old.shape[1]), value)]))
        keep = 2 * self.stride if self.control.keep == "sqrt" else self.control.keep
        if keep is not None and (needed - 1) // self.stride + 1 > keep + attempts:
            self.kept, self.stride = self.kept[::2].clone(), 2 * self.stride
        slots = (needed - 1) // self.stride + 1
        if slots > len(self.kept):
            room = max(slots, 2 * len(self.kept)) if keep is None else min(slots + 8, keep + attempts)
            grown = self.kept.new_zeros(room, *self.y.shape)
            grown[: len(self.kept)] = self.kept
            self.kept = grown

    def attempt(self) -> None:
        """Try one step of every sample that has not arrived; the others stay where they are."""
        xp, tensor, control = self.arrays.xp, self.arrays.tensor, self.control
        moving = self._moving() if self.moving is None else self.moving
        self.moving = None
        last = self.arrays.clip(self.interval + 1, None, len(self.ts) - 1)
        target = self.ts[last, self.samples]
        left = target - self.t
        reaches = self.h * STRETCH >= left
        h = xp.where(moving, xp.where(reaches, left, self.h), 0.0)
        t_end = xp.where(moving & ~reaches, self.t + h, xp.where(moving, target, self.t))

        u = self._input(tensor(self.interval))
        ks, slopes, new, error = self._stages(t_end, h, u)
        y, reached = self.arrays.array(self.y), self.arrays.array(new)
        error = error / (self.atol + control.rtol * xp.maximum(abs(y), abs(reached)))
        size = self.arrays.cast(_norm(error, xp), torch.float64)
        fine = xp.isfinite(size) & xp.isfinite(reached).all(1)
        accepted = moving & fine & (size <= 1.0)
        arrived = accepted & reaches

        proposed = self._proposed(h, size, fine, accepted)
        if not self.arrays.surely_none(arrived):
            # A step cut short by an output time says nothing against the longer one proposed before.
            proposed = xp.where(arrived, xp.maximum(proposed, self.h), proposed)

        events, after_rejection = None, moving & ~accepted
        if self.watch is not None:
            events = self.watch.look(accepted, moving, Span(self.t, t_end, h), self.y, u, slopes, ks[0])
        if events is not None and not isinstance(events, Found):  # who waits stays as it was
            wait, events = events, None
            moving, accepted, arrived = moving & ~wait, accepted & ~wait, arrived & ~wait
            after_rejection = xp.where(wait, self.after_rejection, after_rejection)
        if events is not None:
            # The step is taken again up to the event; being shorter than one that was accepted, its error is not judged again.
            fires = events.fires
            new = torch.where(tensor(fires).unsqueeze(1), events.plus, new)
            t_end, h = xp.where(fires, events.time, t_end), xp.where(fires, events.length, h)
            proposed = xp.where(fires, xp.maximum(proposed, self.h), proposed)
            arrived = arrived & ~fires

        taken = tensor(accepted).unsqueeze(1)
        if self.on_arrival is not None:
            new = self.on_arrival(tensor(last), new, tensor(arrived))
        self.y = torch.where(taken, new, self.y)
        self.first = None if self.jumps else self._next_first(ks, taken, events)
        if self.watch is not None:
            self.watch.arrive(accepted, self.watch.column(t_end), self.y, events)
        self._record(accepted, arrived, last, t_end, h, events)
        self.t = xp.where(accepted, t_end, self.t)
        self.h = xp.where(moving, proposed, self.h)
        refused, self.after_rejection = moving & ~accepted, after_rejection
        if not self.arrays.surely_none(refused):
            self.rejected = self.rejected + refused
            # A step that is refused and of a length that rounding swallows cannot be made shorter.
            smallest = 16 * EPS * xp.maximum(abs(self.t), abs(target))
            self.stuck = self.stuck | (refused & (self.h <= smallest))

    def _next_first(self, ks: Sequence[Tensor], taken: Tensor, events: Found | None) -> Tensor | None:
        """The first derivative of the next step, (B, D), where it is known, from the stages of this one."""
        first = torch.where(taken, ks[-1], ks[0])
        if events is None:
            return first
        flow = events.flow
        return None if flow is None else torch.where(self.arrays.tensor(events.fires)[:, None], flow, first)

    def _proposed(self, h: Any, size: Any, fine: Any, accepted: Any) -> Any:
        """Lengths for the steps after those of length h, from the sizes of their errors, (B,)."""
        xp, clip = self.arrays.xp, self.arrays.clip
        # A size of zero asks for the largest growth, and one that is not a number for the largest reduction.
        factor = xp.where(fine, clip(SAFETY * size ** (-1.0 / 5.0), SHRINK, GROW), SHRINK)
        return _rounded(h * xp.where(self.after_rejection | ~accepted, clip(factor, None, 1.0), factor))

    def _stages(self, t_end: Any, h: Any, u: Tensor | None) -> tuple[list[Tensor], list[Any], Tensor, Any]:
        """Derivatives at all stages, the last at the new state, as tensors and as arrays; the new state; the estimate of its
        error, an array."""
        tableau, arrays = self.tableau, self.arrays
        begin, end, length = (arrays.cast(x, self.y.dtype)[:, None] for x in (self.t, t_end, h))
        times = begin, end, length
        ks, slopes, new = stages(arrays, tableau, self.field, times, self.y, u, tableau.stages, self.first)
        return ks, slopes, new, length * weighted(tableau.b_error or (), slopes)

    def result(self) -> AdaptiveRun:
        """What was taken, trimmed."""
        self.finished()
        if bool(self._on_its_way().any()):
            self._refuse_count()
        for name in ("t", "count", "rejected"):
            setattr(self, name, self.arrays.tensor(getattr(self, name)))
        n = self.most_taken
        # Padding: the state and time after the last step, so that a step of length zero begins at a real state.
        index = torch.arange(n + 1, device=self.t.device)[:, None]
        times = torch.where(index > self.count, self.t, self.times[: n + 1])
        slots = n // self.stride + 1
        kept_rows = torch.arange(slots, device=self.t.device)[:, None] * self.stride
        kept = torch.where((kept_rows > self.count)[..., None], self.y, self.kept[:slots])
        intervals = torch.where(index[:n] >= self.count, len(self.ts) - 2, self.intervals[:n])
        event = None
        if self.watch is not None:
            event = torch.where(index[:n] >= self.count, -1, self.fired[:n])
        lengths = torch.where(index[:n] >= self.count, 0.0, self.lengths[:n])
        steps = Steps(times, lengths, intervals, self.output[: n + 1], self.rows, event)
        slowest = None if self.watch is None else self.arrays.tensor(self.watch.slowest)
        return AdaptiveRun(steps, self.outputs, kept, self.stride, self.rejected, slowest)

    def _record(self, accepted: Any, arrived: Any, last: Any, t_end: Any, h: Any, events: Found | None) -> None:
        """Write an accepted step at each sample's own row.

        Of a step that is not accepted something is written too: where the next one is going to be, or the padding.
        """
        xp, array = self.arrays.xp, self.arrays.array
        row, samples, y = self.count, self.samples, array(self.y)
        array(self.lengths)[row, samples] = h
        array(self.intervals)[row, samples] = self.interval
        array(self.times)[row + 1, samples] = t_end
        if events is not None:
            array(self.fired)[row, samples] = array(events.guard)
        if self.stride == 1:
            array(self.kept)[row + 1, samples] = y
        else:
            kept, place = array(self.kept), (row + 1) // self.stride
            chosen = accepted & ((row + 1) % self.stride == 0)
            kept[place, samples] = xp.where(chosen[:, None], y, kept[place, samples])
        self.count = row + accepted
        if not self.arrays.surely_none(arrived):
            array(self.output)[row + 1, samples] = xp.where(arrived, last, -1)
            outputs, rows = array(self.outputs), array(self.rows)
            outputs[last, samples] = xp.where(arrived[:, None], y, outputs[last, samples])
            rows[last, samples] = xp.where(arrived, self.count, rows[last, samples])
            self.interval = self.interval + arrived

    def _input(self, interval: Tensor) -> Tensor | None:
        if self.u is None and not self.by_interval:
            return None
        interval = interval.clamp(max=len(self.ts) - 2)
        if self.u is None:
            return interval
        return self.u[interval, torch.arange(len(interval), device=interval.device)]

    def _first_length(self, first: Tensor) -> Tensor:
        """First step to try, (B,), from the size of f, `first`, and of its change (Hairer, Nørsett & Wanner, II.4)."""
        scale = self.control.atol + self.control.rtol * self.y.abs()
        d0, d1 = _norm(self.y / scale, torch).double(), _norm(first / scale, torch).double()
        h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
        span = self.ts[1] - self.ts[0]
        h0 = torch.minimum(_rounded(h0), torch.where(span > 0.0, span, self.ts[-1] - self.ts[0]))
        t, y = self._column(self.t + h0), self.y + self._column(h0) * first
        ahead = self.field(t, y, self._input(self.interval))
        d2 = _norm((ahead - first) / scale, torch).double() / h0
        largest = torch.maximum(d1, d2)
        h1 = torch.where(largest <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), (0.01 / largest).pow(1.0 / 5.0))
        h = torch.minimum(100.0 * h0, _rounded(h1))
        # Where f is not finite a step ahead there is nothing to go by but the short step; the control does the rest.
        return torch.where(h.isfinite() & (h > 0.0), h, h0.where(h0.isfinite(), 1e-6))

    def _column(self, x: Tensor) -> Tensor:
        return x.to(self.y.dtype).unsqueeze(1)

    def _first_of(self, mask: Any) -> int:
        return int(self.arrays.tensor(mask).nonzero()[0])

    def _refuse_stuck(self) -> None:
        sample = self._first_of(self.stuck)
        raise stuck(
            sample,
            float(self.h[sample]),
            float(self.t[sample]),
            int(self.count[sample]),
            int(self.rejected[sample]),
            self._tolerances(sample),
        )

    def _refuse_count(self) -> None:
        sample = self._first_of(self._on_its_way())
        raise too_many(
            sample,
            float(self.t[sample]),
            float(self.ts[-1, sample]),
            self.control.max_steps,
            int(self.count[sample]),
            float(self.h[sample]),
            self._tolerances(sample),
        )

    def _tolerances(self, sample: int) -> str:
        atol = self.control.atol
        return f"rtol={self.control.rtol:g}, atol={float(atol[sample, 0] if isinstance(atol, Tensor) else atol):g}"


def _norm(x: Any, xp: Any) -> Any:
    """Root mean square over the D entries of each sample, (B, D) to (B,).

    By halving, so that every sum is of two columns: a library's sum over (B, D) may add in another order for another B.
    """
    width = x.shape[1]
    squares = x * x
    while squares.shape[1] > 1:
        half, odd = squares.shape[1] // 2, squares.shape[1] % 2
        folded = squares[:, :half] + squares[:, half : 2 * half]
        squares = xp.concatenate([folded, squares[:, -1:]], 1) if odd else folded
    return xp.sqrt(squares[:, 0] / width)


def _rounded(x: Any) -> Any:
    """x to KEPT_BITS bits.

    A power may differ in its last bit with the place of an entry in its vector; rounded, a step length does not, and a sample
    takes the same steps in any batch.
    """
    shifted = x * (2.0 ** (53 - KEPT_BITS) + 1.0)
    return shifted - (shifted - x)
