"""A whole batch of a system of equations on a GPU: a launch runs all samples as far as there is room for their steps.

The host waits once for each launch forward, to see whether a sample needs more room, and takes over what it tells of a solve.
"""

import types
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adjsnn.equations import link
from adjsnn.equations.body import Solve
from adjsnn.equations.cpu import march, mathematics
from adjsnn.equations.cpu.adjoint import Back, Bars, Cotangents
from adjsnn.equations.cpu.march import Record, Samples, Trial, Work
from adjsnn.equations.cuda import kernels, sums
from adjsnn.numerics.device import SIMULATED, cuda, launch

PART = 1 << 30  # bytes of room that the samples of one launch share; does not depend on the machine, nor do sums then


@cache
def loops_of(source: str, method: str) -> link.Loops:
    """The kernels of one system and method, compiled at their first launch."""
    if SIMULATED:  # all but the kernels runs as Python
        functions, inner = link.functions_of(interpreted=True), np.errstate(all="ignore")
        within = inline = _same
    else:
        functions, within, inline = _functions(), cuda.jit(device=True), cuda.jit(device=True, forceinline=True)
        inner = within

    def entry(name: str, function: Any) -> Any:
        return cuda.jit(function) if "_kernel" in name else inner(function)

    named = link.bound(source, method, functions, link.Made(within, inline, within, entry), (kernels,), (sums,))
    return link.Loops(named["forward_kernel"], named["backward_kernel"], {x: named[x] for x in named if x.isupper()})


def _same(function: Any) -> Any:
    return function


@cache
def _functions() -> dict[str, Any]:
    """The functions that equations call. Those that take several units at once on a CPU are the usual ones here."""
    device = cuda.jit(device=True)
    found = {x: f for x, f in vars(mathematics).items() if not x.startswith("_")}
    found |= {x: device(f) for x, f in found.items() if isinstance(f, types.FunctionType)}
    return found | {f"lane_{x}": found[x] for x in ("exp", "tanh", "sigmoid")}


class CudaSolve(Solve):
    """One solve on a GPU; arguments as of `Solve`, whose arrays are tensors there."""

    def linked(self, source: str, method: str) -> link.Loops:
        self.device = self.problem.y0.device
        return loops_of(source, method)

    def placed(self, x: Any) -> Any:
        if isinstance(x, np.ndarray):
            return torch.from_numpy(x).to(self.device)
        return type(x)(*map(self.placed, x)) if isinstance(x, tuple) else x

    def room(self, x: Any) -> Any:
        if isinstance(x, np.ndarray):
            return torch.zeros_like(torch.from_numpy(x), device=self.device)
        return type(x)(*map(self.room, x))

    def forward(self, trial: Trial) -> tuple[Record, Samples]:
        there = self.placed(trial)
        record, samples = super().forward(there)
        self.kept = there, record, samples
        # The states of all steps stay: nobody reads them on the host.
        return _on_host(record._replace(states=np.empty(0)))._replace(states=record.states), _on_host(samples)

    def marches(self, trial: Trial) -> Callable[[Record, Samples], None]:
        batch = len(trial.y0)
        each = _bytes(self.work())
        works = self.works(_most(batch, each))

        def march_on(record: Record, samples: Samples) -> None:
            for begin, count in _parts(batch, each):
                launch(self.loops.forward, count, self.device, trial, record, samples, int(self.thin), works, begin, count)

        return march_on

    def backward(self, trial: Trial, record: Record, samples: Samples, cotangents: Cotangents) -> Bars:
        there, steps, stand = self.kept
        batch, n = len(trial.y0), self.loops.numbers
        back = Back(np.empty((int(samples.whole[:, march.STRIDE].max()) + 1, n["D"])), np.empty((6, n["D"])))
        each = _bytes((self.work(), back)) + 8 * n["P"]
        most = _most(batch, each)
        works, backs = self.works(most), Back(*(self.side_by_side(x, most) for x in back))
        zeros = [np.zeros(shape) for shape in ((batch, n["D"]), trial.u.shape, (0, 0), (batch, n["Q"]), (batch, 2))]
        bars, owed = self.placed(Bars(*zeros)), self.placed(cotangents)
        shared = torch.zeros(n["P"], dtype=torch.float64, device=self.device)
        for begin, count in _parts(batch, each):
            rows = torch.zeros((count, n["P"]), dtype=torch.float64, device=self.device)
            into = bars._replace(p=rows)
            launch(self.loops.backward, count, self.device, there, steps, stand, owed, into, works, backs, begin, count)
            shared += rows.sum(0)
        found = _on_host(bars._replace(p=shared[None]))
        self.judge(record, found)
        return found

    def works(self, count: int) -> Work:
        """Room for the threads of a launch, as `kernels.work_of` finds it."""
        one = self.work()
        step = type(one.step)(*(self.side_by_side(x, count) for x in one.step))
        sums = type(one.sums)(*(self.room(np.empty((count, *x.shape))) for x in one.sums))
        others = {x: self.side_by_side(getattr(one, x), count) for x in ("powers", "parts", "states", "levels", "w", "wb")}
        return Work(step=step, sums=sums, **others)

    def side_by_side(self, x: np.ndarray, count: int) -> Any:
        return self.room(np.empty((*x.shape, count)))


def _bytes(x: Any) -> int:
    return sum(map(_bytes, x)) if isinstance(x, tuple) else x.nbytes


def _most(batch: int, each: int) -> int:
    """Samples of one launch, that take so many bytes each."""
    return min(batch, max(1, PART // max(each, 1)))


def _parts(batch: int, each: int) -> Iterator[tuple[int, int]]:
    """The first sample and the number of samples of each launch."""
    most = _most(batch, each)
    return ((begin, min(most, batch - begin)) for begin in range(0, batch, most))


def _on_host(x: Any) -> Any:
    """Named tuples of arrays."""
    return type(x)(*(y.cpu().numpy() if isinstance(y, Tensor) else y for y in x))
