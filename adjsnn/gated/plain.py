"""Gated networks by plain torch operations, for any membrane, gate, dtype and device: the readable truth.

The other bodies compute the same, to rounding; which one runs is chosen in `engine.py`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from adjsnn.gated.euler import GatedEuler
from adjsnn.gated.euler_adjoint import EulerSweep
from adjsnn.gated.network import GatedState, GatedTensors
from adjsnn.gated.program import GatedProgram, GatedTrajectory, Irregular, Step, block_length, nested
from adjsnn.gated.runge_kutta import GatedRungeKutta
from adjsnn.gated.runge_kutta_adjoint import RungeKuttaSweep


class Carry(NamedTuple):
    """What the steps hand on beside the state: G(v), and Σ|q| so far, each (B, N)."""

    level: Tensor
    spent: Tensor


class Plain:
    """One program over one network's tensors; a body as in `adjsnn.gated.engine`.

    Args:
        program: what runs.
        tensors: the network's.
    """

    name = "plain"
    carried = 2
    again = None

    def __init__(self, program: GatedProgram, tensors: GatedTensors) -> None:
        self.program, self.tensors = program, tensors

    def unit_length(self, n_steps: int, batch: int) -> int:
        """Steps in one block of the backward pass."""
        return block_length(n_steps, batch * len(self.tensors.w_rec) * self.program.stage_count)

    def carry(self, y0: GatedState) -> Carry:
        """As `Body.carry` in `adjsnn.gated.engine`."""
        level = self.program.charge_level(y0.v).detach().clone()
        return Carry(level, torch.zeros_like(level, memory_format=torch.contiguous_format))

    def spent(self, carried: Carry) -> Tensor:
        """As `Body.spent` in `adjsnn.gated.engine`."""
        return carried.spent

    def fill(
        self, u: Tensor, trajectory: GatedTrajectory, carried: Carry, n_steps: int, start: int, unit: int
    ) -> tuple[Irregular, Carry]:
        """As `Body.fill` in `adjsnn.gated.engine`."""
        program, tensors = self.program, self.tensors
        current, readout = trajectory.current, trajectory.readout
        states = GatedState(trajectory.v, trajectory.a_fast, trajectory.a_slow)
        _, batch, n_hidden = current.shape
        block = block_length(n_steps, batch * n_hidden * program.stage_count)
        irregular, spent = Irregular(), carried.spent.clone()
        with torch.inference_mode():  # without autograd's bookkeeping a small operation costs half
            crossings_block = u.new_empty(min(block, len(current)), batch, n_hidden)
            rates, w_out_t = program.rates(tensors), tensors.w_out.T
            now = Step(states.v[0], states.a_fast[0], states.a_slow[0], None, None, carried.level)
            torch.mm(states.a_slow[0], w_out_t, out=readout[0])
            for first, last in nested(len(current), unit, block):
                # The drive of the block is written where I will stand; each step reads its drive and overwrites it.
                drive, crossed = current[first:last], crossings_block[: last - first]
                after = slice(first + 1, last + 1)
                torch.addmm(tensors.bias, u[first:last].flatten(0, 1), tensors.w_in.T, out=drive.flatten(0, 1))
                v, a_fast, a_slow = (x[after].unbind() for x in states)
                for row in zip(v, a_fast, a_slow, drive.unbind(), crossed.unbind(), strict=True):
                    memory = Step(*row)
                    now = program.step(now, memory.current, rates, memory)
                lowest, highest = program.check(states.v[after], states.a_fast[after], crossed, start + first)
                trajectory.crossings[first:last] = crossed
                for charge in program.charge(states.v[first : last + 1], trajectory.crossings[first:last]).abs_().unbind():
                    spent += charge
                irregular = irregular.and_then(
                    program.irregular(trajectory.crossings[first:last], lowest, highest, start + first)
                )
                torch.mm(states.a_slow[after].flatten(0, 1), w_out_t, out=readout[after].flatten(0, 1))
        return irregular, Carry(now.charge_level.clone(), spent)

    def sweep(
        self, shape: tuple[int, int, int], wanted: frozenset[str], last: Sequence[Tensor | None], c_charge: Tensor | None = None
    ) -> EulerSweep | RungeKuttaSweep:
        """The backward sweep; arguments as of `EulerSweep`."""
        if isinstance(self.program, GatedRungeKutta):
            return RungeKuttaSweep(self.program, self.tensors, shape, wanted, last, c_charge)
        assert isinstance(self.program, GatedEuler)
        return EulerSweep(self.program, self.tensors, shape, wanted, last, c_charge)
