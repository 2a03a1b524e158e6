"""Connects the fused CPU loops to tensors: threads, and gradients by name."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adjsnn.gated.cpu.again import EulerAgain
from adjsnn.gated.cpu.arguments import (
    PENDING,
    SPARE,
    TOGETHER,
    Carry,
    Costate,
    Cotangents,
    EulerAdjointMemory,
    Network,
    Outcome,
    Pending,
    RungeKutta,
    StageAdjointMemory,
    StageMemory,
    Sums,
    Synapses,
    Want,
)
from adjsnn.gated.cpu.arrays import array, blocks_of, copied, euler_memory, part_of, path_of, rows
from adjsnn.gated.cpu.covered import GATES, MEMBRANES
from adjsnn.gated.cpu.tableau import FusedTableau
from adjsnn.gated.limits import KEPT
from adjsnn.gated.network import GatedState, GatedTensors
from adjsnn.gated.program import GatedProgram, GatedTrajectory, Irregular
from adjsnn.gated.runge_kutta import GatedRungeKutta
from adjsnn.numerics.memory import aligned
from adjsnn.numerics.threads import groups_of, run_parts

TILE = 512  # neurons of some samples that Euler steps treat together: their vectors stay in a core's nearest cache
NEURON_STEPS = 1 << 21  # neuron-steps in a block of steps; some milliseconds, some tens of megabytes


class Progress(NamedTuple):
    """What a forward run found: the first step at which a state was broken, or -1, and the extreme crossings of a step."""

    broken: int
    lowest: int
    highest: int


class FusedGated:
    """The fused loops for one program and one network's tensors; a body as in `adjsnn.gated.engine`.

    Args:
        program: what runs; covered by the loops.
        tensors: the network's.
    """

    name = "fused"
    carried = 3

    def __init__(self, program: GatedProgram, tensors: GatedTensors) -> None:
        self.program, self.tensors = program, tensors
        self.neuron, self.gate, self.dt = program.neuron, program.gate, program.dt
        self.tableau = FusedTableau.of(program) if isinstance(program, GatedRungeKutta) else None
        # Samples in a tile: a multiple of those that are multiplied together.
        self.tile = TOGETHER * max(1, TILE // (TOGETHER * len(tensors.w_rec)))

    def unit_length(self, n_steps: int, batch: int) -> int:
        """Steps per call of a compiled loop, also the unit of checkpointing."""
        return min(n_steps, block_length(batch * len(self.tensors.w_rec)))

    def carry(self, y0: GatedState) -> Carry:
        """What the first block starts with beside the initial state."""
        carry = Carry._make(aligned([tuple(y0.v.shape)] * len(Carry._fields), array(y0.v).dtype, zero=True))
        carry.level[...] = array(self.program.charge_level(y0.v))
        # No product of torch's here or after the loops: its idle threads spin for milliseconds on the cores we need.
        self._products(self.tensors.w_rec, y0.a_fast, carry.recurrent)
        return carry

    def spent(self, carried: Carry) -> Tensor:
        """As `Body.spent` in `adjsnn.gated.engine`."""
        return torch.from_numpy(carried.spent)

    def fill(
        self, u: Tensor, trajectory: GatedTrajectory, carried: Carry, n_steps: int, start: int, unit: int
    ) -> tuple[Irregular, Carry]:
        """As `Body.fill` in `adjsnn.gated.engine`."""
        carried = Carry._make(copied(*carried))
        t = trajectory
        progress = self.forward(u, t.v, t.a_fast, t.a_slow, t.readout, t.current, t.crossings, carried)
        v, crossings, step = t.v, t.crossings, progress.broken
        if t.thin and (step >= 0 or self.program.any_irregular(progress.lowest, progress.highest)):
            v, crossings = self._again.voltages(t)
        if step >= 0:
            steps, after = slice(step, step + 1), slice(step + 1, step + 2)
            a_fast = t.a_fast
            if len(a_fast) < len(v):
                a_fast = self._again.activities(a_fast[0], self.tensors.tau_fast, v[: step + 2], crossings[: step + 1])
            self.program.refuse(v[after], a_fast[after], crossings[steps].to(u.dtype), start + step)
        return self.program.irregular(crossings, progress.lowest, progress.highest, start), carried

    @property
    def again(self) -> EulerAgain | None:
        """As of a body in `adjsnn.gated.engine`."""
        return None if self.tableau else self._again

    def sweep(
        self, shape: tuple[int, int, int], wanted: frozenset[str], last: Sequence[Tensor | None], c_charge: Tensor | None = None
    ) -> "FusedSweep":
        """The backward sweep; arguments as of `FusedSweep`."""
        return FusedSweep(self, shape, wanted, last, c_charge)

    @property
    def _again(self) -> EulerAgain:
        return EulerAgain(self.program, lambda: self.network, block_length)

    def forward(
        self, u: Tensor, v: Tensor, a_fast: Tensor, a_slow: Tensor, readout: Tensor, current: Tensor, crossings: Tensor,
        carry: Carry,
    ) -> Progress:  # fmt: skip
        """Fill a trajectory, in place, from its row 0; arguments as in `GatedTrajectory`. `carry` is moved along.

        Returns:
            Progress.
        """
        loop, t = self._loop("forward"), self.tensors
        dtype, n_hidden = array(v).dtype.type, v.shape[2]
        self._products(t.w_out, a_slow[0], array(readout[0]))
        channels = np.arange(len(t.w_out), dtype=np.int32)
        network, scheme = self.network, self.scheme(dtype)
        whole, carry = path_of(u, v, a_fast, a_slow, readout, current, crossings), Carry(*(rows(x, 1) for x in carry))
        length = block_length(v[0].numel())
        groups = groups_of(u.shape[1], n_hidden * min(len(u), length), n_hidden)
        outcomes = [Outcome(np.full(2, -1, np.int64), np.zeros(2, np.int64)) for _ in groups]
        blocks = blocks_of(len(u), length)
        paths = [part_of(whole, start, stop, length) for start, stop in blocks]
        broken: list[int] = []

        def work(k: int, first: int, last: int, part: int) -> bool:
            loop(network, scheme, paths[part], carry, first, last, *self._memory(n_hidden, dtype), channels, outcomes[k])
            step = int(outcomes[k].broken[0])
            if step >= 0:
                broken.append(blocks[part][0] + step)
            return step < 0

        run_parts(work, groups, len(blocks))
        return Progress(min(broken, default=-1), *_range(outcomes))

    def _products(self, matrix: Tensor, a: Tensor, out: np.ndarray) -> None:
        index, weight = np.empty(a.shape[1] + SPARE, np.int32), np.empty_like(array(a[0]))
        from adjsnn.gated.cpu.euler import products  # noqa: PLC0415  loads the compiler

        products(array(matrix.T), array(a), index, weight, out)

    def _loop(self, direction: str) -> Callable[..., Any]:
        """The compiled solve or adjoint, imported when first needed: numba takes a second."""
        if self.tableau is None:
            from adjsnn.gated.cpu import euler as forward  # noqa: PLC0415
            from adjsnn.gated.cpu import euler_adjoint as adjoint  # noqa: PLC0415
        else:
            from adjsnn.gated.cpu import runge_kutta as forward  # noqa: PLC0415
            from adjsnn.gated.cpu import runge_kutta_adjoint as adjoint  # noqa: PLC0415
        return forward.forward if direction == "forward" else adjoint.backward

    @cached_property
    def network(self) -> Network:
        """The network as the loops take it."""
        t, width, dtype = self.tensors, self.gate.width, array(self.tensors.w_rec).dtype.type
        constants, bias = aligned([(2, self.tile, len(t.w_rec)), (self.tile, len(t.w_rec))], dtype)
        constants[...], bias[...] = self._constants()[:, None], array(t.bias)
        return Network(
            membrane=MEMBRANES[type(self.neuron)],
            gate=GATES[type(self.gate)],
            two_sided=self.neuron.two_sided,
            zone=(dtype(1.0 / width), dtype(1.0 - self.neuron.threshold / width)),
            h=dtype(self.dt),
            constants=constants.reshape(2, -1),
            w_rec_t=array(t.w_rec.T),
            w_rec=array(t.w_rec),
            w_in_t=array(t.w_in.T),
            bias=bias.reshape(-1),
            w_out=array(t.w_out),
            w_out_t=array(t.w_out.T),
        )

    def scheme(self, dtype: Any) -> Synapses | RungeKutta:
        """How a step is taken."""
        tau_fast, tau_slow = self.tensors.tau_fast.item(), self.tensors.tau_slow.item()
        if self.tableau is None:
            return Synapses(dtype(tau_fast), dtype(tau_slow))
        return self.tableau.scheme(self.dt, tau_fast, tau_slow, dtype)

    def _memory(self, n_hidden: int, dtype: Any) -> tuple[Any, ...]:
        """What a thread of the forward loop writes to."""
        if self.tableau is None:
            return (euler_memory(n_hidden, self.tile, dtype),)
        s, width = len(self.tableau.b), self.tile * n_hidden
        *blocks, turns, x, weight, drive = aligned([(s + 1, width)] * 5 + [(width,), (width,), (n_hidden,), (width,)], dtype)
        index = np.empty(n_hidden + SPARE, np.int32)
        return (StageMemory._make([index, *blocks, turns, x, weight, drive, np.empty(s)]),)

    def _adjoint_memory(self, n_hidden: int, dtype: Any) -> tuple[Any, ...]:
        """What a thread of the backward loop writes to."""
        width, waiting = self.tile * n_hidden, [(PENDING * n_hidden,)] * 2
        indices = {
            "active": np.empty(width + SPARE, np.int32),
            "count": np.zeros(1, np.int64),
            "each": np.empty(self.tile, np.int64),
        }
        if self.tableau is None:
            twice, others = ("v", "x", "g", "level"), ("active", "ends", "pending", "volts", "crossings")
            names = [name for name in EulerAdjointMemory._fields if name not in others]
            vectors = [(2 * width if name in twice else width,) for name in names]
            charges, cotangents, volts, *found = aligned([*waiting, (KEPT + 1, width), *vectors], dtype)
            of_thin = {"volts": volts, "crossings": np.empty((KEPT, width), np.int8)}
            pending = Pending(indices["count"], charges, cotangents)
            given = dict(zip(names, found, strict=True))
            return (EulerAdjointMemory(active=indices["active"], ends=indices["each"], pending=pending, **given, **of_thin),)
        s = len(self.tableau.b)
        charges, cotangents, *found = aligned([*waiting, *[(s + 1, width)] * 6, *[(width,)] * 8], dtype)
        pending = Pending(indices["count"], charges, cotangents)
        memory = StageAdjointMemory._make([*found, np.empty(s), pending, indices["active"], indices["each"]])
        return *self._memory(n_hidden, dtype), memory

    def _constants(self) -> np.ndarray:
        """1/τ and v_r for each neuron, (2, N); zeros where the membrane has none."""
        w = array(self.tensors.w_rec)
        rows = np.zeros((2, len(w)), w.dtype)
        for name, value in self.tensors.constants.items():
            row = 1 if name == "v_reset" else 0
            rows[row] = array(value) if row else 1.0 / array(value)
        return rows

    def _by_name(self, sums: list[Tensor], d_tau: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        d_rec_t, d_in_t, d_out_t, *per_neuron, d_out = sums
        d_bias, d_c0, d_c1 = (x.view(self.tile, -1).sum(0) for x in per_neuron)
        found = {
            "w_rec": d_rec_t.T,
            "w_in": d_in_t.T,
            "w_out": d_out_t.T + d_out,
            "bias": d_bias,
            "tau_mem": d_c0,
            "tau_v": d_c0,
        }
        found["v_reset"] = d_c1
        found["tau_fast"], found["tau_slow"] = d_tau.to(d_bias.dtype)
        shapes = dict(zip(self.tensors.names(), (x.shape for x in self.tensors.flat()), strict=True))
        return {name: found[name].sum_to_size(shapes[name]) for name in wanted - {"u"}}


class FusedSweep:
    """The costate on its way back and the gradients gathered so far. Units of a trajectory are handed to `back` last first.

    Args:
        kernel: the loops.
        shape: (T, B, N) of the whole trajectory.
        wanted: names of tensors, and "u".
        last: cotangents of readout, v, a_fast and a_slow at the last time, None where the loss has none.
        c_charge: cotangents of the number of spikes Σ|q|, (B, N), where the loss depends on it.
    """

    def __init__(
        self,
        kernel: FusedGated,
        shape: tuple[int, int, int],
        wanted: frozenset[str],
        last: Sequence[Tensor | None],
        c_charge: Tensor | None = None,
    ) -> None:
        t = kernel.tensors
        n_steps, batch, n_hidden = shape
        self.kernel, self.wanted, self.length = kernel, wanted, block_length(batch * n_hidden)
        self.dtype = array(t.w_rec).dtype.type
        self.network, self.scheme = kernel.network, kernel.scheme(self.dtype)
        names = ("w_rec", "w_in", "w_out", "u", "tau_fast", "tau_slow")
        self.want = Want._make([*(name in wanted for name in names), last[2] is not None, last[3] is not None])
        widths = (t.w_out.shape[0], n_hidden, n_hidden, n_hidden)
        eta, lam_v, fast, slow, zeta = aligned([(batch, width) for width in (*widths, n_hidden)], self.dtype, zero=True)
        for costate, x in zip((eta, lam_v, fast, slow), last, strict=True):
            if x is not None:
                costate[...] = array(x)
        self.scales = (1.0, 1.0) if kernel.tableau else (t.tau_fast.item(), t.tau_slow.item())
        fast /= self.dtype(self.scales[0])
        slow /= self.dtype(self.scales[1])
        self.state = Costate(lam_v, zeta, eta, fast, slow)
        self.c_charge = np.zeros((0, 0), self.dtype) if c_charge is None else array(c_charge)
        self.groups = groups_of(batch, n_hidden * min(n_steps, self.length), n_hidden)
        per_neuron = ((kernel.tile * n_hidden,),) * 3
        self.shapes = (t.w_rec.T.shape, t.w_in.T.shape, t.w_out.T.shape, *per_neuron, t.w_out.shape)
        self.total = [aligned(self.shapes, self.dtype, zero=True) for _ in self.groups]
        self.d_tau = np.zeros((len(self.groups), 2))

    def back(self, u: Tensor, trajectory: Any, cotangents: tuple[Tensor | None, ...], d_u: Tensor | None) -> None:
        """Sweep through a unit of the trajectory.

        Args:
            u: input of the unit.
            trajectory: of the unit.
            cotangents: of readout, v, a_fast, a_slow; the rows of the unit's T times before each step are read.
            d_u: memory for the gradient of u.
        """
        tr, t, loop = trajectory, self.kernel.tensors, self.kernel._loop("backward")
        whole = path_of(u, tr.v, tr.a_fast, tr.a_slow, tr.readout, tr.current, tr.crossings)
        losses = [_EMPTY[self.dtype] if x is None else array(x) for x in cotangents]
        losses[1:] = [rows(x, 2) for x in losses[1:]]
        filled = None if d_u is None else d_u.contiguous()  # a loop would be compiled for another layout, and be slower
        whole_d_u = _EMPTY[self.dtype] if filled is None else filled.numpy()
        of_neurons = {name: rows(getattr(self.state, name), 1) for name in ("lam_v", "zeta", "fast", "slow")}
        state = self.state._replace(**of_neurons)
        blocks = blocks_of(len(u), self.length)[::-1]
        paths = [part_of(whole, start, stop, self.length) for start, stop in blocks]
        charge = rows(self.c_charge, 1)
        asked = [Cotangents._make([*(c[start:stop] for c in losses), charge]) for start, stop in blocks]

        def work(k: int, first: int, last: int, part: int) -> bool:
            sums = aligned(self.shapes, self.dtype, zero=True)  # short sums, so that float32 keeps its digits
            memory = self.kernel._adjoint_memory(len(t.w_rec), self.dtype)
            into = Sums._make([whole_d_u[slice(*blocks[part])], *sums, self.d_tau[k]])
            loop(self.network, self.scheme, paths[part], asked[part], self.want, state, first, last, *memory, into)
            for of_group, of_part in zip(self.total[k], sums, strict=True):
                of_group += of_part
            return True

        run_parts(work, self.groups, len(blocks))
        if d_u is not None and filled is not None and filled is not d_u:
            d_u.copy_(filled)

    def finish(self, a_fast: Tensor, a_slow: Tensor) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor, Tensor]]:
        """Gradients by name, and of the initial state; a_fast and a_slow are that state's."""
        t = self.kernel.tensors
        sums = [torch.from_numpy(sum(column[1:], column[0])) for column in zip(*self.total, strict=True)]
        gradients = self.kernel._by_name(sums, torch.from_numpy(self.d_tau.sum(0)), self.wanted)
        lam_v, zeta, eta, fast, slow = (torch.from_numpy(x) for x in self.state)
        if "w_rec" in self.wanted:
            gradients["w_rec"] = gradients["w_rec"] + zeta.T @ a_fast
        if "w_out" in self.wanted:
            gradients["w_out"] = gradients["w_out"] + eta.T @ a_slow
        d_fast = zeta @ t.w_rec + fast * self.scales[0]
        d_slow = eta @ t.w_out + slow * self.scales[1]
        return gradients, (lam_v, d_fast, d_slow)


_EMPTY = {dtype: np.zeros((0, 0, 0), dtype) for dtype in (np.float32, np.float64)}


def _range(outcomes: Sequence[Outcome]) -> tuple[int, int]:
    return min(int(x.extremes[0]) for x in outcomes), max(int(x.extremes[1]) for x in outcomes)


def block_length(width: int) -> int:
    """Steps between two looks at the outside world, and the unit of checkpointing, for `width` neurons in the whole batch."""
    return max(1, NEURON_STEPS // max(width, 1))
