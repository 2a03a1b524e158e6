"""Discrete adjoint of gated networks with checkpoints: only some states are kept, the rest is computed again on the way back.

A unit is a block of steps, as long as the fused loops take between two looks at the outside world, so that a unit run again is
the same computation on the same numbers: checkpointed gradients are the bits of the stored ones. Inputs may come unit by unit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from adjsnn.adjoints.checkpoints import Advance, Back, Drop, kept_on_the_way, plan
from adjsnn.errors import ConfigurationError
from adjsnn.integrate.gated_program import GatedProgram, GatedTrajectory
from adjsnn.integrate.memory import fresh
from adjsnn.kernels.fused import Carry, FusedGated, FusedSweep, block_length
from adjsnn.systems.gated_network import GatedState, GatedTensors

Inputs = Callable[[int, int], Tensor]  # inputs(start, stop) gives u of these steps, (stop - start, B, C)


class Snapshot(NamedTuple):
    """Everything the forward loop goes on from: the state and what it carries along, each (B, N)."""

    v: Tensor
    a_fast: Tensor
    a_slow: Tensor
    carry: Carry
    readout: Tensor | None = None


@dataclass
class Record:
    """What a segmented run notes beside its results; filled while it runs.

    Attributes:
        counts: spikes of each neuron, (B, N), of either sign.
        overlong: neuron-steps through several thresholds or back through one.
        kept_bytes: most memory of kept states and of one unit's trajectory.   recomputed: steps run again on the way back.
    """

    counts: Tensor | None = None
    overlong: int = 0
    kept_bytes: int = 0
    recomputed: int = 0


class SegmentedResult(NamedTuple):
    """Differentiable outcome: readout (T+1, B, C_out), the last state, and each neuron's Σ|q|, all (B, N)."""

    readout: Tensor
    v: Tensor
    a_fast: Tensor
    a_slow: Tensor
    charge: Tensor


class Units:
    """A trial cut into units.

    Args:
        program, tensors: what runs; the fused loops must cover it.
        inputs: u by steps.   shape: (T, B).
        slots: number of states kept.
    """

    def __init__(
        self, program: GatedProgram, tensors: GatedTensors, inputs: Inputs, shape: tuple[int, int], slots: int
    ) -> None:
        kernel = program.kernel(tensors, "forward")
        if kernel is None or program.kernel(tensors, "backward") is None:
            raise ConfigurationError(
                "checkpoints for a network that runs by torch operations",
                "one that the fused loops cover: NIF, LIF or QIF, a built-in gate, one tau_fast and tau_slow, on the CPU",
                "checkpoints=None with shorter trials or smaller batches",
            )
        self.program, self.tensors, self.inputs, self.slots = program, tensors, inputs, slots
        self.kernel: FusedGated = kernel
        self.n_steps, self.batch = shape
        self.n_hidden = len(tensors.w_rec)
        self.length = block_length(self.batch * self.n_hidden)
        self.count = -(-self.n_steps // self.length)

    def span(self, unit: int) -> tuple[int, int]:
        return unit * self.length, min((unit + 1) * self.length, self.n_steps)

    def run(self, unit: int, start: Snapshot, *, first: bool = False) -> tuple[Tensor, GatedTrajectory, Snapshot]:
        """One unit from a snapshot: its input, its trajectory, and the snapshot at its end."""
        begin, end = self.span(unit)
        u = self.inputs(begin, end)
        steps, t = end - begin, self.tensors
        size = (steps + 1, self.batch, self.n_hidden)
        states = GatedState(fresh(size, t.w_rec), fresh(size, t.w_rec), fresh(size, t.w_rec))
        for stored, x in zip(states, start[:3], strict=True):
            stored[0] = x
        current = fresh((steps, self.batch, self.n_hidden), t.w_rec)
        crossings = fresh((steps, self.batch, self.n_hidden), t.w_rec, torch.int8)
        readout = u.new_empty(steps + 1, self.batch, t.w_out.shape[0])
        carry = Carry(*(x.copy() for x in start.carry))
        progress = self.kernel.forward(u, *states, readout, current, crossings, carry)
        if (step := progress.broken) >= 0:
            after = slice(step + 1, step + 2)
            self.program.refuse(states.v[after], states.a_fast[after], crossings[step : step + 1].to(u.dtype), begin + step)
        if first:
            self.program.warn(crossings, [(torch.tensor(progress.lowest), torch.tensor(progress.highest))], begin)
        trajectory = GatedTrajectory(*states, readout, current, crossings)
        if start.readout is not None:  # the same sum in the same order as the last row of the unit before
            readout[0] = start.readout
        last = Snapshot(states.v[-1].clone(), states.a_fast[-1].clone(), states.a_slow[-1].clone(), carry, readout[-1].clone())
        return u, trajectory, last


class SegmentedGated(torch.autograd.Function):
    """Connects the segmented run and its adjoint to torch."""

    @staticmethod
    def forward(ctx, units: Units, record: Record, names: tuple[str, ...], u: Tensor | None, v0, a_fast0, a_slow0, *flat):
        level = units.program.charge_level(v0)
        snapshot = Snapshot(v0.clone(), a_fast0.clone(), a_slow0.clone(), units.kernel.carry(v0, a_fast0, level))
        at, two_sided = set(kept_on_the_way(units.count, units.slots)), units.program.neuron.two_sided
        readout = v0.new_empty(units.n_steps + 1, units.batch, units.tensors.w_out.shape[0])
        kept: dict[int, Snapshot] = {}
        charge, counts = torch.zeros_like(v0), torch.zeros(v0.shape, dtype=torch.long)
        for unit in range(units.count):
            if unit in at:
                kept[unit] = snapshot
            start, stop = units.span(unit)
            _, trajectory, snapshot = units.run(unit, snapshot, first=True)
            readout[start : stop + 1] = trajectory.readout
            charge += _released(units, trajectory).abs_().sum(0)
            counts += trajectory.crossings.abs().sum(0, dtype=torch.long)
            overlong = (trajectory.crossings > 1) | (trajectory.crossings < (-1 if two_sided else 0))
            record.overlong += int(overlong.sum())
            del trajectory
        record.counts = counts
        record.kept_bytes = units.slots * _size(snapshot) + _unit_bytes(units)
        ctx.units, ctx.record, ctx.names, ctx.kept = units, record, names, kept
        ctx.save_for_backward(u, *flat)
        ctx.set_materialize_grads(False)
        return readout, snapshot.v, snapshot.a_fast, snapshot.a_slow, charge

    @staticmethod
    def backward(ctx, *grad_outputs):
        return _backward(ctx, *grad_outputs)


@once_differentiable
def _backward(ctx, c_readout, c_v, c_fast, c_slow, c_charge):
    _ = ctx.saved_tensors  # raises if a tensor was changed since
    units, record, names = ctx.units, ctx.record, ctx.names
    needs_u, *needs_y0 = ctx.needs_input_grad[3:7]
    wanted = {name for name, needed in zip(names, ctx.needs_input_grad[7:], strict=True) if needed}
    wanted |= {"u"} if needs_u else set()
    last = (None if c_readout is None else c_readout[-1], c_v, c_fast, c_slow)
    shape = (units.n_steps, units.batch, units.n_hidden)
    sweep = FusedSweep(units.kernel, shape, frozenset(wanted), last, c_charge)
    d_u = torch.zeros_like(ctx.saved_tensors[0]) if needs_u else None
    kept, record.recomputed = dict(ctx.kept), 0
    first = kept[0]
    for action in plan(units.count, units.slots):
        match action:
            case Drop(unit):
                del kept[unit]
            case Advance(start, stop):
                kept[stop] = _advance(units, record, kept[start], start, stop)
            case Back(start, unit):
                snapshot = _advance(units, record, kept[start], start, unit)
                u, trajectory, _ = units.run(unit, snapshot)
                begin, end = units.span(unit)
                record.recomputed += end - begin
                rows = (None if c_readout is None else c_readout[begin:end], None, None, None)
                sweep.back(u, trajectory, rows, None if d_u is None else d_u[begin:end])
                del trajectory
    gradients, d_y0 = sweep.finish(first.a_fast, first.a_slow)
    d_y0 = (g if needed else None for g, needed in zip(d_y0, needs_y0, strict=True))
    return (None, None, None, d_u, *d_y0, *(gradients.get(name) for name in names))


def _advance(units: Units, record: Record, snapshot: Snapshot, start: int, stop: int) -> Snapshot:
    for unit in range(start, stop):
        begin, end = units.span(unit)
        record.recomputed += end - begin
        snapshot = units.run(unit, snapshot)[2]
    return snapshot


def _released(units: Units, trajectory: GatedTrajectory) -> Tensor:
    """Charge q of each step of a unit, G(v⁺) - G(v) + crossings."""
    level = units.program.charge_level(trajectory.v)
    return level[1:] - level[:-1] + trajectory.crossings


def _size(snapshot: Snapshot) -> int:
    """Bytes of one kept state."""
    return sum(x.numel() * x.element_size() for x in snapshot[:3]) + sum(x.nbytes for x in snapshot.carry)


def _unit_bytes(units: Units) -> int:
    steps = min(units.length, units.n_steps)
    return steps * units.batch * units.n_hidden * (4 * units.tensors.w_rec.element_size() + 1)


def slots_within(memory_mb: float, units: Units) -> int:
    """Number of kept states that fit `memory_mb` beside one unit's trajectory.

    Raises:
        ConfigurationError: not even one fits; says what the least is.
    """
    state = 5 * units.batch * units.n_hidden * units.tensors.w_rec.element_size()
    unit = _unit_bytes(units)
    slots = int((memory_mb * 1e6 - unit) // state)
    if slots < 1:
        raise ConfigurationError(
            f"memory_mb={memory_mb:g}",
            f"at least {(unit + state) / 1e6:.1f}: one block of steps and one state",
            "a smaller batch",
        )
    return min(slots, units.count)


def segmented(
    program: GatedProgram,
    tensors: GatedTensors,
    u: Tensor | None,
    inputs: Inputs,
    shape: tuple[int, int],
    y0: GatedState,
    choose: Callable[[Units], int],
) -> tuple[SegmentedResult, Record]:
    """Solve a trial unit by unit, ready to be differentiated.

    Args:
        program, tensors: what runs.
        u: the whole input where it is a tensor that may need a gradient, else None.
        inputs: u by steps.   shape: (T, B).   y0: initial state.
        choose: number of kept states, given the units.
    """
    units = Units(program, tensors, inputs, shape, 1)
    units.slots = choose(units)
    record = Record()
    anchor = tensors.w_rec.new_zeros(0) if u is None else u
    outputs: Any = SegmentedGated.apply(units, record, tensors.names(), anchor, *y0, *tensors.flat())
    return SegmentedResult(*outputs), record
