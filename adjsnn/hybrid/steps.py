"""Runge–Kutta steps of smooth systems: one step function for the forward run, for autograd's tape and for the adjoints."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.checks import all_finite
from adjsnn.errors import IntegrationError
from adjsnn.hybrid.arrays import stage_time
from adjsnn.hybrid.guards import one_of
from adjsnn.hybrid.packets import Packets
from adjsnn.hybrid.system import HybridSystem
from adjsnn.numerics.tableaus import Tableau

Field = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Signal = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Steps:
    """The steps that a program took; every sample has its own, padded at the end with steps of length zero.

    Times are float64 whatever the dtype of the state: a float32 time of 1000 ms cannot tell steps of 1e-4 ms apart.

    Attributes:
        times: where step k begins and ends, rows k and k+1 of (K+1, B), ms.
        lengths: h, (K, B), ms; what the step used, so differences of `times` may differ from it by rounding.
        interval: the interval between output times, and so of held inputs, that step k lies in, (K, B), integers.
        output: which output time row k of the states is at, -1 for none, (K+1, B), integers.
        rows: the row of the states at each output time, (T+1, B), integers.
        event: the guard that fired at the end of step k, -1 where none, (K, B), integers; None for systems without guards.
        packets: those that events sent and that end steps, of systems with synapses.
    """

    times: Float[Tensor, "K1 B"]
    lengths: Float[Tensor, "K B"]
    interval: Int[Tensor, "K B"]
    output: Int[Tensor, "K1 B"]
    rows: Int[Tensor, "T1 B"]
    event: Int[Tensor, "K B"] | None = None
    packets: Packets | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def accepted(self) -> Tensor:
        """Steps of each sample without its padding, (B,)."""
        return self.rows[-1]


def reversed_steps(steps: Steps, numbers: Tensor) -> Steps:
    """The same steps from the last to the first, in the time s = -t, padded at the front.

    Args:
        numbers: which output of the result each row of the forward states is, counted from the end, -1 for none, (K+1, B).
    """
    output = numbers.flip(0)
    passed = (output >= 0).long().cumsum(0) - 1
    rows = (output < 0).to(torch.int8).argsort(dim=0, stable=True)[: int(numbers.max()) + 1]
    return Steps(-steps.times.flip(0), steps.lengths.flip(0), passed[:-1].clamp(min=0), output, rows)


@dataclass(frozen=True)
class HybridProgram:
    """What the adjoints differentiate: the system, the method and where its output is wanted; steps and states are arguments.

    Args:
        system: f.
        tableau: the Runge–Kutta method.
        ts: output times, (T+1,), float64, increasing, ms. Steps end on them.
        signal: u(t) → (B, C) for t (B, 1), or None where inputs are absent or held.
        lengths: length of the fixed steps in each interval between output times, (T,), float64, ms; None: adaptive steps.
        substeps: number of fixed steps in each interval.
        rtol: relative tolerance of adaptive steps.
        atol: absolute tolerance of adaptive steps.
        max_steps: most attempted adaptive steps of any sample.
        guards: number G of the system's guards.
    """

    system: HybridSystem
    tableau: Tableau
    ts: Tensor
    signal: Signal | None = None
    lengths: Tensor | None = None
    substeps: int = 1
    rtol: float = 0.0
    atol: float = 0.0
    max_steps: int = 0
    guards: int = 0

    def field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        """f at t (B, 1), y (B, D) and the held input u (B, C), if there is one."""
        return self.system.vector_field(t, y, u if self.signal is None else self.signal(t))

    def held(self, u: Tensor | None, steps: Steps, k: int) -> Tensor | None:
        """The input of each sample in step k, (B, C), from held inputs (T, B, C)."""
        if u is None:
            return None
        if self.lengths is not None:
            return u[k // self.substeps]
        return u[steps.interval[k], torch.arange(u.shape[1], device=u.device)]

    def fixed_steps(self, batch: int) -> Steps:
        """The steps of a program with fixed steps."""
        if self.lengths is None:
            raise ValueError("a program with adaptive steps")
        m, intervals = self.substeps, len(self.lengths)
        inner = torch.arange(m, device=self.ts.device) * self.lengths[:, None]
        times = torch.cat([(self.ts[:-1, None] + inner).flatten(), self.ts[-1:]])
        rows = m * torch.arange(intervals + 1, device=self.ts.device)
        output = rows.new_full((m * intervals + 1,), -1)
        output[::m] = torch.arange(intervals + 1, device=self.ts.device)
        interval = torch.arange(intervals, device=self.ts.device).repeat_interleave(m)
        columns = (times, self.lengths.repeat_interleave(m), interval, output, rows)
        times, lengths, interval, output, rows = (x[:, None].expand(-1, batch) for x in columns)
        return Steps(times, lengths, interval, output, rows)


def stage_derivatives(tableau: Tableau, field: Field, steps: Steps, k: int, y: Tensor, u: Tensor | None) -> list[Tensor]:
    """k_i of step k, each (B, D), without the last stage of a first-same-as-last method, which the new state does not need."""
    t, t_end, h = step_times(steps, k, y.dtype)
    count = tableau.stages - tableau.first_same_as_last
    return derivatives(tableau, field, (t, t_end, h), y, u, count)


def derivatives(
    tableau: Tableau,
    field: Field,
    times: tuple[Tensor, Tensor, Tensor],
    y: Tensor,
    u: Tensor | None,
    count: int,
    wide: Tensor | None = None,
) -> list[Tensor]:
    """The first `count` k_i of the step from t to t_end of length h, `times` = (t, t_end, h), each (B, 1).

    `wide`: h beside every entry of y, (B, D), where there is such a tensor.
    """
    ks: list[Tensor] = []
    when, h = times[0], times[2] if wide is None else wide
    for i in range(count):
        if i and tableau.c[i] != tableau.c[i - 1]:
            when = stage_time(tableau, i, times)
        ks.append(field(when, y if i == 0 else moved(tableau, tableau.a[i], y, h, ks), u))
    return ks


def step_times(steps: Steps, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Begin, end and length of step k in the dtype of the state, each (B, 1)."""
    times = (steps.times[k], steps.times[k + 1], steps.lengths[k])
    begin, end, length = (x.to(dtype).unsqueeze(1) for x in times)
    return begin, end, length


def times_of_steps(steps: Steps, dtype: torch.dtype, start: int, stop: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """`step_times` of steps start … stop-1, in fewer operations."""
    times = steps.times[start : stop + 1].to(dtype).unsqueeze(2).unbind()
    lengths = steps.lengths[start:stop].to(dtype).unsqueeze(2).unbind()
    return list(zip(times[:-1], times[1:], lengths, strict=True))


def combine(weights: Sequence[float], ks: Sequence[Tensor]) -> Tensor:
    """Σ_i w_i k_i over the weights that are not zero."""
    total = None
    for w, k in zip(weights, ks, strict=False):
        if w != 0.0:
            total = k * w if total is None else total + k * w
    return torch.zeros_like(ks[0]) if total is None else total


def moved(tableau: Tableau, weights: Sequence[float], y: Tensor, h: Tensor, ks: Sequence[Tensor]) -> Tensor:
    """y + h Σ_i w_i k_i: of fixed steps in fewer operations, of adaptive ones in those of `adjsnn.hybrid.arrays.stages`."""
    if tableau.b_error is not None:
        return y + h * combine(weights, ks)
    (first, total), *others = [(w, k) for w, k in zip(weights, ks, strict=False) if w != 0.0]
    for w, k in others:
        total = torch.add(total, k, alpha=w / first)
    return torch.addcmul(y, total, h, value=first)


def step(
    program: HybridProgram,
    steps: Steps,
    k: int,
    y: Float[Tensor, "B D"],
    u: Tensor | None,
    times: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """State after step k and the jump that ends it, (B, D), from the state before it and held inputs u (T, B, C).

    Zero-length steps return y. `times` are those of `step_times`, where they are known.
    """
    tableau, times = program.tableau, step_times(steps, k, y.dtype) if times is None else times
    count = tableau.stages - tableau.first_same_as_last
    ks = derivatives(tableau, program.field, times, y, program.held(u, steps, k), count)
    y = moved(tableau, tableau.b, y, times[2], ks)
    return y if steps.event is None else jump(program.system, times[1], y, steps.event[k], program.guards)


def jump(
    system: HybridSystem, t: Float[Tensor, "B 1"], y: Float[Tensor, "B D"], guard: Int[Tensor, " B"], count: int
) -> Float[Tensor, "B D"]:
    """State after the events `guard` (B,), of `count` guards, (B, D); y where that is -1."""
    fires = (guard >= 0)[:, None]
    return torch.where(fires, system.jump(t, y, one_of(guard, count)), y)


def replay(program: HybridProgram, steps: Steps, y: Tensor, u: Tensor | None, start: int, stop: int) -> Tensor:
    """State after step stop-1, (B, D), from the one before step `start`, by taking the same steps again."""
    for k, times in enumerate(times_of_steps(steps, y.dtype, start, stop), start):
        y = step(program, steps, k, y, u, times)
    return y


def unroll(program: HybridProgram, steps: Steps, y0: Tensor, u: Tensor | None) -> Tensor:
    """States at the output times, (T+1, B, D), as plain operations on autograd's tape; step lengths are constants."""
    states = [y0]
    for k, times in enumerate(times_of_steps(steps, y0.dtype, 0, len(steps))):
        states.append(step(program, steps, k, states[-1], u, times))
    return at_outputs(torch.stack(states), steps)


def at_outputs(states: Float[Tensor, "K1 B D"], steps: Steps) -> Float[Tensor, "T1 B D"]:
    """Rows of states (K+1, B, D) at the output times, (T+1, B, D)."""
    return states[steps.rows, torch.arange(states.shape[1], device=states.device)]


def run_fixed(
    program: HybridProgram, y0: Tensor, u: Tensor | None, some: dict[int, Tensor] | None = None
) -> tuple[Steps, Tensor, Tensor]:
    """Take the fixed steps, without a tape.

    Args:
        some: where given, the states before the steps that are its keys are written into it, instead of keeping all.

    Returns:
        the steps; the states at the output times, (T+1, B, D); every state, (K+1, B, D), which is the same memory as the
        output where that holds the same, or none, (0, B, D), with `some`.

    Raises:
        IntegrationError: the state is not finite; names the first sample and time.
    """
    steps = program.fixed_steps(len(y0))
    m, n = program.substeps, len(steps)
    outputs = y0.new_empty(n // m + 1, *y0.shape)
    rows = n + 1 if some is None else 0
    kept = outputs if some is None and m == 1 else y0.new_empty(rows, *y0.shape)
    y = y0
    outputs[0] = y
    kept[:1] = y
    at_output, at_step = outputs.unbind(), kept.unbind()
    for k, times in enumerate(times_of_steps(steps, y.dtype, 0, n)):
        y = step(program, steps, k, y, u, times)
        if (k + 1) % m == 0:
            at_output[(k + 1) // m].copy_(y)
        if some is not None:
            if k + 1 in some:
                some[k + 1] = y
        elif kept is not outputs:
            at_step[k + 1].copy_(y)
    check_finite(outputs, program.ts)
    return steps, outputs, kept


def check_finite(y: Float[Tensor, "T1 B D"], ts: Float[Tensor, " T1"]) -> None:
    """Raise IntegrationError unless states y (T+1, B, D) at times ts are finite."""
    if not all_finite(y):
        row, sample = (int(i) for i in (~y.isfinite().all(2)).nonzero()[0])
        raise IntegrationError(
            f"the state of sample {sample} diverged by t = {float(ts[row]):g} ms",
            "finite states",
            'shorter steps, or method="dopri5", which chooses them; the system may also be unstable',
        )
