"""What every method for gated-synapse networks shares: trajectories, the forward run, the checks of what it finds."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from adjsnn.errors import ConfigurationError, IntegrationError, StepTooLongWarning
from adjsnn.gated.gates import Gate
from adjsnn.gated.inheritance import of_the_base, settled
from adjsnn.gated.limits import KEPT, MOST_COUNTED, MOST_CROSSINGS
from adjsnn.gated.membranes import Constants, Membrane, Partials
from adjsnn.gated.network import GatedState, GatedTensors
from adjsnn.numerics.memory import fresh
from adjsnn.numerics.scalars import spread

Form = Literal["whole", "lean", "thin"]  # what is stored of a trajectory
BLOCK_ELEMENTS = 1 << 18  # entries of one (steps, B, N) block: a handful of such float32 blocks stay in a last-level cache


class Step(NamedTuple):
    """What one step computes, or the memory for it; every field (B, N).

    Attributes:
        v: the new voltage.
        a_fast: the new recurrent synaptic activity.
        a_slow: the new readout synaptic activity.
        current: I of the step.
        crossings: the signed number of thresholds crossed.
        charge_level: G of the new v.
    """

    v: Any
    a_fast: Any
    a_slow: Any
    current: Any
    crossings: Any
    charge_level: Any = None


NO_MEMORY = Step(None, None, None, None, None)


@dataclass(frozen=True)
class GatedTrajectory:
    """Everything stored about a forward solution; of a "lean" one synapses are computed again where they are asked for, of a
    "thin" one voltages and crossings too.

    Attributes:
        v: voltages at the T+1 times, (T+1, B, N); of a thin trajectory those of `kept_rows`.
        a_fast: recurrent synaptic activities, (T+1, B, N); of a lean or thin one the first and the last alone, (2, B, N).
        a_slow: readout synaptic activities, likewise.
        readout: o, (T+1, B, C_out).
        current: I of each step, (T, B, N).
        crossings: thresholds crossed in each step, negative for the lower threshold, mostly 0; (T, B, N), of a thin trajectory
            (0, B, N).
    """

    v: Float[Tensor, "voltages B N"]
    a_fast: Float[Tensor, "rows B N"]
    a_slow: Float[Tensor, "rows B N"]
    readout: Float[Tensor, "T1 B C"]
    current: Float[Tensor, "T B N"]
    crossings: Int8[Tensor, "counted B N"]

    @property
    def thin(self) -> bool:
        return len(self.crossings) < len(self.current)

    def flat(self) -> tuple[Tensor, ...]:
        return self.v, self.a_fast, self.a_slow, self.readout, self.current, self.crossings


class Located(NamedTuple):
    """Threshold crossings of a trajectory, flat, one entry per step with crossings of a neuron; each (S,).

    Attributes:
        step: its number.
        sample: of the batch.
        neuron: which.
        crossings: signed number of thresholds.
        v: the voltage before the step.
        moved: the voltage at its end, counted on through the threshold.
        fraction: of the step at the first crossing.
        speed: dv/dt there, 1/ms.
    """

    step: Tensor
    sample: Tensor
    neuron: Tensor
    crossings: Tensor
    v: Tensor
    moved: Tensor
    fraction: Tensor
    speed: Tensor


class Irregular(NamedTuple):
    """Steps through several thresholds or back through one: how many, and a description of the first."""

    steps: int = 0
    first: str = ""

    def and_then(self, later: "Irregular") -> "Irregular":
        """These and those of later steps."""
        return Irregular(self.steps + later.steps, self.first or later.first)


class GatedProgram(ABC):
    """The program that adjoints differentiate: membrane, gate and step length fixed, tensors and state as arguments.

    A method is a subclass with `rates` and `step`.

    Args:
        neuron: membrane model f.
        gate: synaptic gate g.
        dt: h, ms.

    Attributes:
        neuron: a copy whose derivatives are those of its own functions, whatever a subclass overrode.
        gate: likewise.
        translates: every reset is a translation, of derivative 1.
        stage_count: stages of a step, and so about how much memory a block of steps takes at once.
        reads_input_again: whether `locate` needs the input.
    """

    stage_count = 1
    reads_input_again = False

    def __init__(self, neuron: Membrane, gate: Gate, dt: float) -> None:
        self.neuron, self.gate, self.dt = settled(neuron), settled(gate), dt
        self.translates = self.neuron.wraps and of_the_base(self.neuron, "reset")

    @abstractmethod
    def rates(self, tensors: GatedTensors) -> Any:
        """The step's view of the network's tensors."""

    @abstractmethod
    def step(self, now: Step, drive: Float[Tensor, "B N"], rates: Any, memory: Step = NO_MEMORY) -> Step:
        """One step.

        Args:
            now: the step before: its state and charge level are read.
            drive: W_in u + b, (B, N), 1/ms for NIF, else dimensionless.
            rates: from `rates`.
            memory: where to write the results; nowhere under autograd.
        """

    @abstractmethod
    def locate(self, tensors: GatedTensors, u: Tensor, trajectory: GatedTrajectory) -> Located:
        """Where inside their steps thresholds were crossed."""

    def flow_partials(self, v: Tensor, current: Tensor, c: Constants, wanted: tuple[str, ...]) -> Partials:
        """∂f/∂(v, I, c), each of the shape of v, of those constants that are `wanted`."""
        partials = self.partials_as_given(v, current, c, wanted)
        d_constants = {name: spread(x, v) for name, x in partials.d_constants.items()}
        return Partials(spread(partials.d_v, v), spread(partials.d_current, v), d_constants)

    def partials_as_given(self, v: Tensor, current: Tensor, c: Constants, wanted: tuple[str, ...]) -> Partials:
        """The same, each of a shape that broadcasts to that of v."""
        partials = self.neuron.flow_partials(v, current, c, wanted)
        if missing := [name for name in wanted if name not in partials.d_constants]:
            raise ConfigurationError(
                f"{type(self.neuron).__name__}.flow_partials without {missing}",
                f"derivatives with respect to {list(wanted)}",
                "adding them, or leaving flow_partials to autograd",
            )
        return Partials(partials.d_v, partials.d_current, {name: partials.d_constants[name] for name in wanted})

    def charge_level(self, v: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """G(v) of (1.4)."""
        return self.gate.integral(v, threshold=self.neuron.threshold, two_sided=self.neuron.two_sided)

    def gate_slope(self, v: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """g(v) of (1.4), 1/voltage."""
        return self.gate.slope(v, threshold=self.neuron.threshold, two_sided=self.neuron.two_sided)

    def charge(self, v: Float[Tensor, "T1 B N"], crossings: Int8[Tensor, "T B N"]) -> Float[Tensor, "T B N"]:
        """q = G(v⁺) - G(v) + (thresholds crossed) of each step, differentiable; exactly 0 outside the zone and at rest in it.

        From the synapses, q = τ_s (a⁺ - a) + h a in Euler steps, it would be rounding there, whose sign is |q|'s derivative.
        """
        level = self.charge_level(v)
        return level[1:] - level[:-1] + crossings

    def first_level(self, v: Float[Tensor, " S"], moved: Float[Tensor, " S"]) -> Float[Tensor, " S"]:
        """The voltage of the first threshold between v and moved: θ or -θ, or 0 where a phase slips backward."""
        threshold = torch.full_like(v, self.neuron.threshold)
        return threshold * moved.sign() if self.neuron.two_sided else torch.where(moved >= v, threshold, 1.0 - threshold)

    def unroll(self, tensors: GatedTensors, u: Float[Tensor, "T B C"], y0: GatedState) -> GatedTrajectory:
        """The same program as plain tensor operations, for backpropagation through time."""
        rates = self.rates(tensors)
        drives = torch.addmm(tensors.bias, u.flatten(0, 1), tensors.w_in.T).unflatten(0, u.shape[:2])
        drives = drives.unbind()  # indexing instead would make the backward pass O(T²)
        steps = [Step(*y0, None, None, self.charge_level(y0.v))]
        for drive in drives:
            steps.append(self.step(steps[-1], drive, rates))
        v, a_fast, a_slow = (torch.stack([step[k] for step in steps]) for k in range(3))
        current = torch.stack([step.current for step in steps[1:]]).detach()
        crossings = torch.stack([step.crossings for step in steps[1:]])
        extremes = self.check(v[1:].detach(), a_fast[1:].detach(), crossings)
        crossings = crossings.to(torch.int8)
        self.warn(self.irregular(crossings, *extremes))
        return GatedTrajectory(v, a_fast, a_slow, a_slow @ tensors.w_out.T, current, crossings)

    def check(self, v: Tensor, a_fast: Tensor, crossings: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        """Check the steps after step `start`, each argument (steps, B, N).

        Returns:
            the smallest and the largest number of crossings in one step.

        Raises:
            IntegrationError: the state diverged or a reset did not end below the threshold; names the first sample,
                neuron and time.
        """
        height = v.abs() if self.neuron.two_sided else v
        lowest, highest = crossings.aminmax()  # NaN spreads
        fine = (lowest >= -MOST_CROSSINGS) & (highest <= MOST_CROSSINGS) & a_fast[-1].isfinite().all()
        if not self.translates:  # a wrapped voltage is below the threshold by construction
            fine &= height.amax() < self.neuron.threshold
        if not bool(fine):
            self.refuse(v, a_fast, crossings, start)
        return lowest, highest

    def refuse(self, v: Tensor, a_fast: Tensor, crossings: Tensor, start: int) -> None:
        """Raise the IntegrationError of steps that `check` found wanting; arguments as there."""
        height = v.abs() if self.neuron.two_sided else v
        broken = ~(v.isfinite() & a_fast.isfinite())
        outside = (crossings.abs() > MOST_CROSSINGS) | (height >= self.neuron.threshold)
        wrong = (broken | outside).nonzero()
        if not len(wrong):
            raise IntegrationError(
                f"the currents overflowed by t = {(start + 1) * self.dt:g} ms",
                "currents far below the largest number of their dtype",
                "smaller weights and input, or float64",
            )
        first = tuple(int(k) for k in wrong[0])
        if broken[first]:
            raise IntegrationError(
                f"the state diverged at {self._where(first, start)}: v = {v[first]:g}, a_fast = {a_fast[first]:g}",
                "finite voltages and synaptic activities",
                "smaller recurrent weights or a shorter dt",
            )
        turns = f"{abs(crossings[first]):g}" + (" or more" if abs(crossings[first]) == MOST_COUNTED else "")
        raise IntegrationError(
            f"runaway: one step ran through {turns} thresholds and on to v = {v[first]:g} at " + self._where(first, start),
            f"a reset that ends below the threshold {self.neuron.threshold:g}, and at most {MOST_CROSSINGS} turns",
            "a shorter dt or weaker weights and input: the current moves the voltage too far in one step",
        )

    def irregular(
        self, crossings: Int8[Tensor, "T B N"], lowest: int | Tensor, highest: int | Tensor, start: int = 0
    ) -> Irregular:
        """Steps after step `start` that ran through several thresholds or back through one, given the extreme crossings."""
        if not self.any_irregular(lowest, highest):
            return Irregular()
        least = -1 if self.neuron.two_sided else 0
        overlong = ((crossings > 1) | (crossings < least)).nonzero()
        first = tuple(int(k) for k in overlong[0])
        what = "back through its reset" if crossings[first] < least else f"through {crossings[first]} thresholds"
        return Irregular(len(overlong), f"{self._where(first, start)}, where the voltage went {what}")

    def any_irregular(self, lowest: int | Tensor, highest: int | Tensor) -> bool:
        """Whether steps of these extreme crossings ran through several thresholds or back through one."""
        return bool(lowest < (-1 if self.neuron.two_sided else 0) or highest > 1)

    def warn(self, irregular: Irregular) -> None:
        """Warn of steps through several thresholds or back through one."""
        if irregular.steps:
            warnings.warn(
                f"{irregular.steps} steps were too long, the first for {irregular.first}; "
                "expected at most one crossing per step, forward. Try: a shorter dt or weaker weights and input.",
                StepTooLongWarning,
                stacklevel=2,
            )

    def _where(self, place: tuple[int, ...], start: int) -> str:
        step, sample, neuron = place
        step += start + 1
        return f"sample {sample}, neuron {neuron}, t = {step * self.dt:g} ms (step {step} of {self.dt:g} ms)"


def memory_for(
    tensors: GatedTensors, u: Float[Tensor, "T B C"], form: Form, start: int = 0, unit: int | None = None
) -> GatedTrajectory:
    """Memory for the trajectory of T steps, placed like that of the steps from `start` on in the memory of a whole trial.

    Args:
        tensors: of the network.
        u: the input.
        form: of the trajectory.
        start: the first of the steps.
        unit: steps in a unit of the backward pass; all T if not given.
    """
    n_steps, batch, _ = u.shape
    w, n_out = tensors.w_rec, len(tensors.w_out)
    width = batch * len(w)
    voltages, synapses, counted = _rows(n_steps, form, unit or n_steps)
    v, a_fast, a_slow = (fresh((k, batch, len(w)), w, place=start * width) for k in (voltages, synapses, synapses))
    readout = fresh((n_steps + 1, batch, n_out), w, place=start * batch * n_out)
    current = fresh((n_steps, batch, len(w)), w, place=start * width)
    crossings = fresh((counted, batch, len(w)), w, torch.int8, place=start * width)
    return GatedTrajectory(v, a_fast, a_slow, readout, current, crossings)


def bytes_of(tensors: GatedTensors, shape: tuple[int, int], form: Form, unit: int) -> int:
    """Memory of a trajectory of (T, B) steps and samples in units of `unit` steps, as `memory_for` takes it."""
    n_steps, batch = shape
    voltages, synapses, counted = _rows(n_steps, form, unit)
    per_neuron = (voltages + 2 * synapses + n_steps) * tensors.w_rec.element_size() + counted
    return batch * (len(tensors.w_rec) * per_neuron + (n_steps + 1) * len(tensors.w_out) * tensors.w_rec.element_size())


def _rows(n_steps: int, form: Form, unit: int) -> tuple[int, int, int]:
    """Rows of v, of each synapse, and of crossings."""
    voltages = kept_rows(n_steps, unit)[-1] + 1 if form == "thin" else n_steps + 1
    return voltages, n_steps + 1 if form == "whole" else 2, 0 if form == "thin" else n_steps


def kept_rows(n_steps: int, unit: int) -> list[int]:
    """Rows of the voltages of a thin trajectory at which its units of `unit` steps begin, and the last row.

    A row stands for every KEPT-th step of a unit, the next one for its end.
    """
    lengths = (min(unit, n_steps - start) for start in range(0, n_steps, unit))
    return list(accumulate((-(-length // KEPT) for length in lengths), initial=0))


def nested(n_steps: int, unit: int, block: int) -> Iterator[tuple[int, int]]:
    """Split n_steps into units, and each unit into blocks (start, stop)."""
    for begin in range(0, n_steps, unit):
        end = min(begin + unit, n_steps)
        for start in range(begin, end, block):
            yield start, min(start + block, end)


def blocks(n_steps: int, width: int) -> Iterator[tuple[int, int]]:
    """Split n_steps into blocks (start, stop) of about BLOCK_ELEMENTS entries, `width` entries per step."""
    length = block_length(n_steps, width)
    return nested(n_steps, length, length)


def block_length(n_steps: int, width: int) -> int:
    """Steps in a block."""
    return max(1, min(n_steps, BLOCK_ELEMENTS // max(width, 1)))
