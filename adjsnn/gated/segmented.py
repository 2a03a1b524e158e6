"""Discrete adjoint of gated networks with checkpoints: only some states are kept, the rest is computed again on the way back.

A unit is a block of steps, the one over which the backward pass takes its products and sums, so that a unit run again is the
same computation on the same numbers: checkpointed gradients are the bits of the stored ones. Inputs may come unit by unit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adjsnn.errors import ConfigurationError
from adjsnn.gated.cotangents import lost, tell_silence
from adjsnn.gated.engine import Engine, Sweep, set_out
from adjsnn.gated.network import GatedState, GatedTensors
from adjsnn.gated.program import Form, GatedTrajectory, Irregular, bytes_of, memory_for
from adjsnn.numerics.checkpoints import kept_on_the_way, reverse
from adjsnn.numerics.first_order import FirstOrder, first_order, laid_out, layouts_of, tell_where

Inputs = Callable[[int, int], Tensor]  # inputs(start, stop) gives u of these steps, (stop - start, B, C)


class Snapshot(NamedTuple):
    """Everything the forward run goes on from: the state and what it carries along, each (B, N); readout (B, C_out)."""

    v: Tensor
    a_fast: Tensor
    a_slow: Tensor
    carry: Any
    readout: Tensor | None = None


@dataclass
class Record:
    """What a segmented run notes beside its results; filled while it runs.

    Attributes:
        counts: spikes of each neuron, (B, N), of either sign.
        overlong: neuron-steps through several thresholds or back through one.
        kept_bytes: most memory of kept states and of one unit's trajectory.
        recomputed: steps run again on the way back.
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
        engine: what runs.
        tensors: of the network.
        inputs: u by steps.
        shape: (T, B).
        slots: number of states kept.
    """

    def __init__(self, engine: Engine, tensors: GatedTensors, inputs: Inputs, shape: tuple[int, int], slots: int) -> None:
        self.engine, self.slots = engine, slots
        self.tensors, self.inputs = tensors, inputs
        self.n_steps, self.batch = shape
        self.n_hidden = len(tensors.w_rec)
        self.body = engine.body(tensors, "forward")
        self.length = engine.unit_length(tensors, self.n_steps, self.batch)
        self.count = -(-self.n_steps // self.length)
        # Units stay near a core: their voltages and crossings are kept.
        self.form: Form = "lean" if engine.lean(tensors) else "whole"

    def span(self, unit: int) -> tuple[int, int]:
        return unit * self.length, min((unit + 1) * self.length, self.n_steps)

    @property
    def state_bytes(self) -> int:
        """Memory of one kept state: v, a_fast, a_slow, what is carried along, and the readout."""
        numbers = (3 + self.body.carried) * self.n_hidden + len(self.tensors.w_out)
        return self.batch * numbers * self.tensors.w_rec.element_size()

    @property
    def unit_bytes(self) -> int:
        """Memory of one unit's trajectory."""
        return bytes_of(self.tensors, (self.length, self.batch), self.form, self.length)

    def run(self, unit: int, start: Snapshot) -> tuple[Tensor, GatedTrajectory, Snapshot, Irregular]:
        """One unit from a snapshot: its input, its trajectory, the snapshot at its end, and what is to be warned of."""
        begin, end = self.span(unit)
        u = self.inputs(begin, end)
        trajectory = memory_for(self.tensors, u, self.form, begin)
        set_out(trajectory, GatedState(*start[:3]))
        irregular, carry = self.body.fill(u, trajectory, start.carry, self.n_steps, begin, self.length)
        if start.readout is not None:  # the same sum in the same order as the last row of the unit before
            trajectory.readout[0] = start.readout
        t = trajectory
        last = Snapshot(t.v[-1].clone(), t.a_fast[-1].clone(), t.a_slow[-1].clone(), carry, t.readout[-1].clone())
        return u, trajectory, last, irregular


class SegmentedGated(FirstOrder):
    """Connects the segmented run and its adjoint to torch."""

    @staticmethod
    def forward(ctx, units: Units, record: Record, names: tuple[str, ...], u: Tensor | None, v0, a_fast0, a_slow0, *flat):
        snapshot = Snapshot(v0.clone(), a_fast0.clone(), a_slow0.clone(), units.body.carry(GatedState(v0, a_fast0, a_slow0)))
        kept_units = kept_on_the_way(units.count, units.slots)
        readout = v0.new_empty(units.n_steps + 1, units.batch, units.tensors.w_out.shape[0])
        snapshots: dict[int, Snapshot] = {}
        counts = torch.zeros_like(v0, dtype=torch.long)
        irregular = Irregular()
        for unit in range(units.count):
            if unit in kept_units:
                snapshots[unit] = snapshot
            start, stop = units.span(unit)
            _, trajectory, snapshot, of_unit = units.run(unit, snapshot)
            irregular = irregular.and_then(of_unit)
            readout[start : stop + 1] = trajectory.readout
            counts += trajectory.crossings.abs().sum(0, dtype=torch.long)
            del trajectory
        units.engine.program.warn(irregular)
        record.counts, record.overlong = counts, irregular.steps
        record.kept_bytes = units.slots * units.state_bytes + units.unit_bytes
        ctx.units, ctx.record, ctx.names, ctx.counts = units, record, names, counts.clone()
        ctx.snapshots = snapshots
        ctx.y0 = layouts_of(v0, a_fast0, a_slow0)
        ctx.save_for_backward(u, *flat)
        ctx.set_materialize_grads(False)
        return readout, snapshot.v, snapshot.a_fast, snapshot.a_slow, units.body.spent(snapshot.carry)

    @staticmethod
    def backward(ctx, *grad_outputs):
        return _backward(ctx, *grad_outputs)


@first_order
def _backward(ctx, c_readout, c_v, c_fast, c_slow, c_charge):
    # Raises if a tensor was changed since. Read once: torch.utils.checkpoint gives what it has computed again no second time.
    given, *flat = ctx.saved_tensors
    units, record, names = ctx.units, ctx.record, ctx.names
    needs_u, *needs_y0 = ctx.needs_input_grad[3:7]
    wanted = {name for name, needed in zip(names, ctx.needs_input_grad[7:], strict=True) if needed}
    wanted |= {"u"} if needs_u else set()
    last = (None if c_readout is None else c_readout[-1], c_v, c_fast, c_slow)
    shape = (units.n_steps, units.batch, units.n_hidden)
    body = units.engine.body(units.tensors, "backward")

    def back(sweep: Sweep, unit: Unit, d_u: Tensor | None) -> None:
        cotangents = (None if c_readout is None else c_readout[unit.begin : unit.end], None, None, None)
        sweep.back(unit.u, unit.trajectory, cotangents, d_u)

    def where() -> str:
        words, recomputed = "", record.recomputed
        sweep = body.sweep(shape, frozenset({"u"}), last, c_charge)
        for unit in _units_back(ctx):
            d_u = torch.zeros_like(unit.u)
            back(sweep, unit, d_u)
            if words := lost(d_u, units.engine.program.dt, unit.begin):
                break
            del unit
        record.recomputed = recomputed
        return words

    sweep = body.sweep(shape, frozenset(wanted), last, c_charge)
    d_u = torch.zeros_like(given) if needs_u else None
    for unit in _units_back(ctx):
        back(sweep, unit, None if d_u is None else d_u[unit.begin : unit.end])
        del unit  # before the next one takes memory
    first = ctx.snapshots[0]
    gradients, d_y0 = sweep.finish(first.a_fast, first.a_slow)
    d_y0 = (g if needed else None for g, needed in zip(d_y0, needs_y0, strict=True))
    tell_silence(lambda: ctx.counts, (*gradients.values(), d_u))
    tell_where(ctx, where)
    of_arguments = (d_u, *d_y0, *(gradients.get(name) for name in names))
    return None, None, None, *laid_out(of_arguments, (given, *ctx.y0, *flat))


class Unit(NamedTuple):
    """Steps begin … end - 1 on the way back: their input and trajectory."""

    begin: int
    end: int
    u: Tensor
    trajectory: GatedTrajectory


def _units_back(ctx: Any) -> Iterator[Unit]:
    """The units, the last first, run again from what is kept; counts the steps. Keeps nothing of a unit that it has given."""
    units, record = ctx.units, ctx.record
    record.recomputed = 0

    def advance(snapshot: Snapshot, start: int, stop: int) -> Snapshot:
        for unit in range(start, stop):
            begin, end = units.span(unit)
            record.recomputed += end - begin
            snapshot = units.run(unit, snapshot)[2]
        return snapshot

    kept_units = kept_on_the_way(units.count, units.slots)
    for unit, snapshot in reverse(units.count, units.slots, kept_units, ctx.snapshots, advance):
        begin, end = units.span(unit)
        record.recomputed += end - begin
        yield Unit(begin, end, *units.run(unit, snapshot)[:2])


def slots_within(memory_mb: float, units: Units) -> int:
    """Number of kept states that fit `memory_mb` beside one unit's trajectory.

    Raises:
        ConfigurationError: not even one fits; says what the least is.
    """
    state, unit = units.state_bytes, units.unit_bytes
    slots = int((memory_mb * 1e6 - unit) // state)
    if slots < 1:
        raise ConfigurationError(
            f"memory_mb={memory_mb:g}",
            f"at least {(unit + state) / 1e6:.1f}: one block of steps and one state",
            "a smaller batch",
        )
    return min(slots, units.count)


def segmented(
    engine: Engine,
    tensors: GatedTensors,
    u: Tensor | None,
    inputs: Inputs,
    shape: tuple[int, int],
    y0: GatedState,
    choose: Callable[[Units], int],
) -> tuple[SegmentedResult, Record]:
    """Solve a trial unit by unit, ready to be differentiated.

    Args:
        engine: what runs.
        tensors: of the network.
        u: the whole input where it is a tensor that may need a gradient, else None.
        inputs: u by steps.
        shape: (T, B).
        y0: initial state.
        choose: number of kept states, given the units.
    """
    units = Units(engine, tensors, inputs, shape, 1)
    units.slots = choose(units)
    record = Record()
    anchor = tensors.w_rec.new_zeros(0) if u is None else u
    outputs: Any = SegmentedGated.apply(units, record, tensors.names(), anchor, *y0, *tensors.flat())
    return SegmentedResult(*outputs), record
