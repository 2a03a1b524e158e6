"""What Euler steps of the fused loops do not store, found again: the numbers that they had."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adjsnn.gated.cpu.arguments import EulerMemory, Network, Path
from adjsnn.gated.cpu.arrays import array, blocks_of, copied, euler_memory, part_of, path_of, rows
from adjsnn.gated.program import GatedProgram, GatedTrajectory
from adjsnn.numerics.memory import fresh
from adjsnn.numerics.threads import groups_of, run_groups, run_parts


class EulerAgain:
    """What finds again what Euler steps do not store; methods as of `Again` in `adjsnn.gated.engine`.

    Args:
        program: what ran.
        network: gives it as the loops take it.
        length: of a unit of steps, given the neurons of the whole batch.
    """

    def __init__(self, program: GatedProgram, network: Callable[[], Network], length: Callable[[int], int]) -> None:
        self.program, self._given, self.length = program, network, length

    @cached_property
    def network(self) -> Network:
        return self._given()

    @property
    def dtype(self) -> Any:
        return self.network.w_rec.dtype.type

    def voltages(self, trajectory: GatedTrajectory) -> tuple[Tensor, Tensor]:
        from adjsnn.gated.cpu.euler import voltages  # noqa: PLC0415  loads the compiler

        n_steps, batch, n_hidden = trajectory.current.shape
        v = fresh((n_steps + 1, batch, n_hidden), trajectory.v)
        crossings = fresh((n_steps, batch, n_hidden), trajectory.v, torch.int8)
        of_v, of_crossings = (rows(x.numpy(), 2) for x in (v, crossings))

        def loop(path: Path, start: int, stop: int, first: int, last: int) -> None:
            memory = self._memory()
            voltages(self.network, path, first, last, memory, of_v[start : stop + 1], of_crossings[start:stop])

        self._in_units(loop, trajectory)
        return v, crossings

    def activities(self, first: Tensor, tau: Tensor, v: Tensor, crossings: Tensor) -> Tensor:
        from adjsnn.gated.cpu.euler import activities  # noqa: PLC0415  loads the compiler

        n_steps, batch, n_hidden = crossings.shape
        result = fresh(v.shape, v)
        result[0] = first
        path = [rows(array(x), 2) for x in (v, crossings)]
        level, out = self._level(v[0]), rows(result.numpy(), 2)
        constant = self.dtype(tau.item())

        def work(k: int, first: int, last: int) -> None:
            del k
            memory = self._memory()
            activities(self.network, constant, *path, level, first, last, memory, out)

        run_groups(work, groups_of(batch, n_hidden * n_steps, n_hidden))
        return result

    def _memory(self) -> EulerMemory:
        n_hidden = len(self.network.w_rec)
        return euler_memory(n_hidden, len(self.network.bias) // n_hidden, self.dtype)

    def _level(self, v: Tensor) -> np.ndarray:
        """G(v) of a row, which a loop moves along."""
        return rows(copied(array(self.program.charge_level(v)))[0], 1)

    def _in_units(self, loop: Callable[[Path, int, int, int, int], None], trajectory: GatedTrajectory) -> None:
        """loop(path, start, stop, first, last) for all groups of samples, unit by unit of steps."""
        t = trajectory
        n_steps, batch, n_hidden = t.current.shape
        whole = path_of(t.current.new_empty(n_steps, batch, 0), t.v, t.a_fast, t.a_slow, t.readout, t.current, t.crossings)
        length = min(n_steps, self.length(batch * n_hidden))
        units = blocks_of(n_steps, length)
        paths = [part_of(whole, start, stop, length) for start, stop in units]

        def work(k: int, first: int, last: int, part: int) -> bool:
            del k
            loop(paths[part], *units[part], first, last)
            return True

        run_parts(work, groups_of(batch, n_hidden * length, n_hidden), len(units))
