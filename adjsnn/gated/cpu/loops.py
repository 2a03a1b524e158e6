"""Connects the fused CPU loops to tensors: threads, and gradients by name."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adjsnn.gated.cpu.arguments import (
    PENDING,
    SPARE,
    TOGETHER,
    Carry,
    Costate,
    Cotangents,
    EulerAdjointMemory,
    EulerMemory,
    Network,
    Outcome,
    Path,
    Pending,
    RungeKutta,
    StageAdjointMemory,
    StageMemory,
    Sums,
    Synapses,
    Want,
)
from adjsnn.gated.cpu.covered import GATES, MEMBRANES
from adjsnn.gated.cpu.tableau import FusedTableau
from adjsnn.gated.network import GatedState, GatedTensors
from adjsnn.gated.program import GatedProgram, GatedTrajectory, Irregular
from adjsnn.gated.runge_kutta import GatedRungeKutta
from adjsnn.numerics.memory import aligned, fresh
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
    carried = 2

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
        level = self.program.charge_level(y0.v)
        recurrent = aligned([tuple(y0.a_fast.shape)], _array(y0.a_fast).dtype)[0]
        # No product of torch's here or after the loops: its idle threads spin for milliseconds on the cores we need.
        self._products(self.tensors.w_rec, y0.a_fast, recurrent)
        return Carry(recurrent, _copied(_array(level)))

    def fill(
        self, u: Tensor, trajectory: GatedTrajectory, carried: Carry, n_steps: int, start: int, unit: int
    ) -> tuple[Irregular, Carry]:
        """As `Body.fill` in `adjsnn.gated.engine`."""
        carried = Carry(*map(_copied, carried))
        t = trajectory
        progress = self.forward(u, t.v, t.a_fast, t.a_slow, t.readout, t.current, t.crossings, carried)
        if (step := progress.broken) >= 0:
            steps, after = slice(step, step + 1), slice(step + 1, step + 2)
            a_fast = t.a_fast
            if len(a_fast) < len(t.v):
                a_fast = self._activities(a_fast[0], self.tensors.tau_fast, t.v[: step + 2], t.crossings[: step + 1])
            self.program.refuse(t.v[after], a_fast[after], t.crossings[steps].to(u.dtype), start + step)
        return self.program.irregular(t.crossings, progress.lowest, progress.highest, start), carried

    @property
    def activities(self) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None:
        """As of a body in `adjsnn.gated.engine`."""
        return None if self.tableau else self._activities

    def _activities(self, first: Tensor, tau: Tensor, v: Tensor, crossings: Tensor) -> Tensor:
        from adjsnn.gated.cpu.euler import activities  # noqa: PLC0415  loads the compiler

        n_steps, batch, n_hidden = crossings.shape
        result, dtype = fresh(v.shape, v), _array(v).dtype.type
        result[0] = first
        path = [self.rows(_array(x), 2) for x in (v, crossings)]
        level, out = self.rows(_array(self.program.charge_level(v[0])).copy(), 1), self.rows(result.numpy(), 2)
        network, constant = self.network(dtype), dtype(tau.item())

        def work(k: int, first: int, last: int, part: int) -> bool:
            del k, part
            activities(network, constant, *path, level, first, last, *self._memory(n_hidden, dtype), out)
            return True

        run_parts(work, groups_of(batch, n_hidden * n_steps, n_hidden), 1)
        return result

    def sweep(
        self, shape: tuple[int, int, int], wanted: frozenset[str], last: Sequence[Tensor | None], c_charge: Tensor | None = None
    ) -> "FusedSweep":
        """The backward sweep; arguments as of `FusedSweep`."""
        return FusedSweep(self, shape, wanted, last, c_charge)

    def forward(
        self, u: Tensor, v: Tensor, a_fast: Tensor, a_slow: Tensor, readout: Tensor, current: Tensor, crossings: Tensor,
        carry: Carry,
    ) -> Progress:  # fmt: skip
        """Fill a trajectory, in place, from its row 0; arguments as in `GatedTrajectory`. `carry` is moved along.

        Returns:
            Progress.
        """
        loop, t = self._loop("forward"), self.tensors
        dtype, n_hidden = _array(v).dtype.type, v.shape[2]
        self._products(t.w_out, a_slow[0], _array(readout[0]))
        channels = np.arange(len(t.w_out), dtype=np.int32)
        network, scheme = self.network(dtype), self.scheme(dtype)
        whole, carry = self.path(u, v, a_fast, a_slow, readout, current, crossings), Carry(*(self.rows(x, 1) for x in carry))
        length = block_length(v[0].numel())
        groups = groups_of(u.shape[1], n_hidden * min(len(u), length), n_hidden)
        outcomes = [Outcome(np.full(2, -1, np.int64), np.zeros(2, np.int64)) for _ in groups]
        blocks = _blocks(len(u), length)
        paths = [_part(whole, start, stop) for start, stop in blocks]
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
        index, weight = np.empty(a.shape[1] + SPARE, np.int32), np.empty_like(_array(a[0]))
        from adjsnn.gated.cpu.euler import products  # noqa: PLC0415  loads the compiler

        products(_array(matrix.T), _array(a), index, weight, out)

    def _loop(self, direction: str) -> Callable[..., Any]:
        """The compiled solve or adjoint, imported when first needed: numba takes a second."""
        if self.tableau is None:
            from adjsnn.gated.cpu import euler as forward  # noqa: PLC0415
            from adjsnn.gated.cpu import euler_adjoint as adjoint  # noqa: PLC0415
        else:
            from adjsnn.gated.cpu import runge_kutta as forward  # noqa: PLC0415
            from adjsnn.gated.cpu import runge_kutta_adjoint as adjoint  # noqa: PLC0415
        return forward.forward if direction == "forward" else adjoint.backward

    def network(self, dtype: Any) -> Network:
        """The network as the loops take it."""
        t, width = self.tensors, self.gate.width
        constants, bias = aligned([(2, self.tile, len(t.w_rec)), (self.tile, len(t.w_rec))], dtype)
        constants[...], bias[...] = self._constants()[:, None], _array(t.bias)
        return Network(
            membrane=MEMBRANES[type(self.neuron)],
            gate=GATES[type(self.gate)],
            two_sided=self.neuron.two_sided,
            zone=(dtype(1.0 / width), dtype(1.0 - self.neuron.threshold / width)),
            h=dtype(self.dt),
            constants=constants.reshape(2, -1),
            w_rec_t=_array(t.w_rec.T),
            w_rec=_array(t.w_rec),
            w_in_t=_array(t.w_in.T),
            bias=bias.reshape(-1),
            w_out=_array(t.w_out),
            w_out_t=_array(t.w_out.T),
        )

    def path(self, *arrays: Tensor) -> Path:
        """What is stored of a trajectory, u to crossings, as the loops take it."""
        whole = Path(*(_array(x) for x in arrays))
        per_neuron = {name: self.rows(getattr(whole, name), 2) for name in ("v", "a_fast", "a_slow", "current", "crossings")}
        return whole._replace(**per_neuron)

    def rows(self, x: np.ndarray, dimensions: int) -> np.ndarray:
        """An array (…, B, N) as the loops take it, (…, B·N) of so many dimensions."""
        return x.reshape(-1) if dimensions == 1 else x.reshape(len(x), x.shape[1] * x.shape[2])

    def scheme(self, dtype: Any) -> Synapses | RungeKutta:
        """How a step is taken."""
        tau_fast, tau_slow = self.tensors.tau_fast.item(), self.tensors.tau_slow.item()
        if self.tableau is None:
            return Synapses(dtype(tau_fast), dtype(tau_slow))
        return self.tableau.scheme(self.dt, tau_fast, tau_slow, dtype)

    def _memory(self, n_hidden: int, dtype: Any) -> tuple[Any, ...]:
        """What a thread of the forward loop writes to."""
        index = np.empty(n_hidden + SPARE, np.int32)
        if self.tableau is None:
            return (EulerMemory._make([index, *aligned([(self.tile * n_hidden,)] * (len(EulerMemory._fields) - 1), dtype)]),)
        s, width = len(self.tableau.b), self.tile * n_hidden
        *blocks, turns, x, weight, drive = aligned([(s + 1, width)] * 5 + [(width,), (width,), (n_hidden,), (width,)], dtype)
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
            twice, others = ("v", "x", "g", "level"), ("active", "ends", "pending")
            names = [name for name in EulerAdjointMemory._fields if name not in others]
            vectors = [(2 * width if name in twice else width,) for name in names]
            charges, cotangents, *found = aligned(waiting + vectors, dtype)
            pending = Pending(indices["count"], charges, cotangents)
            given = dict(zip(names, found, strict=True))
            return (EulerAdjointMemory(active=indices["active"], ends=indices["each"], pending=pending, **given),)
        s = len(self.tableau.b)
        charges, cotangents, *found = aligned([*waiting, *[(s + 1, width)] * 6, *[(width,)] * 8], dtype)
        pending = Pending(indices["count"], charges, cotangents)
        memory = StageAdjointMemory._make([*found, np.empty(s), pending, indices["active"], indices["each"]])
        return *self._memory(n_hidden, dtype), memory

    def _constants(self) -> np.ndarray:
        """1/τ and v_r for each neuron, (2, N); zeros where the membrane has none."""
        w = _array(self.tensors.w_rec)
        rows = np.zeros((2, len(w)), w.dtype)
        for name, value in self.tensors.constants.items():
            row = 1 if name == "v_reset" else 0
            rows[row] = _array(value) if row else 1.0 / _array(value)
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
        self.dtype = _array(t.w_rec).dtype.type
        self.network, self.scheme = kernel.network(self.dtype), kernel.scheme(self.dtype)
        names = ("w_rec", "w_in", "w_out", "u", "tau_fast", "tau_slow")
        self.want = Want._make([*(name in wanted for name in names), last[2] is not None, last[3] is not None])
        widths = (t.w_out.shape[0], n_hidden, n_hidden, n_hidden)
        eta, lam_v, fast, slow = (
            aligned([(batch, width)], self.dtype, zero=True)[0] if x is None else _copied(_array(x))
            for x, width in zip(last, widths, strict=True)
        )
        self.scales = (1.0, 1.0) if kernel.tableau else (t.tau_fast.item(), t.tau_slow.item())
        fast /= self.dtype(self.scales[0])
        slow /= self.dtype(self.scales[1])
        self.state = Costate(lam_v, aligned([lam_v.shape], self.dtype, zero=True)[0], eta, fast, slow)
        self.c_charge = np.zeros((0, 0), self.dtype) if c_charge is None else _array(c_charge)
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
        whole = self.kernel.path(u, tr.v, tr.a_fast, tr.a_slow, tr.readout, tr.current, tr.crossings)
        losses = [_EMPTY[self.dtype] if x is None else _array(x) for x in cotangents]
        losses[1:] = [self.kernel.rows(x, 2) for x in losses[1:]]
        filled = None if d_u is None else d_u.contiguous()  # a loop would be compiled for another layout, and be slower
        whole_d_u = _EMPTY[self.dtype] if filled is None else filled.numpy()
        of_neurons = {name: self.kernel.rows(getattr(self.state, name), 1) for name in ("lam_v", "zeta", "fast", "slow")}
        state = self.state._replace(**of_neurons)
        blocks = _blocks(len(u), self.length)[::-1]
        paths = [_part(whole, start, stop) for start, stop in blocks]
        charge = self.kernel.rows(self.c_charge, 1)
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


def _array(x: Tensor) -> np.ndarray:
    """The tensor's memory as an array, contiguous."""
    return x.detach().contiguous().numpy()


def _copied(x: np.ndarray) -> np.ndarray:
    result = aligned([x.shape], x.dtype)[0]
    result[...] = x
    return result


def _part(path: Path, start: int, stop: int) -> Path:
    """Steps start … stop-1 of a path."""
    at, states = slice(start, stop), slice(start, stop + 1)
    kept = slice(min(start, len(path.a_fast) - 1), stop + 1)  # of a lean one the last row is all there is
    return Path(
        u=path.u[at],
        v=path.v[states],
        a_fast=path.a_fast[kept],
        a_slow=path.a_slow[kept],
        readout=path.readout[states],
        current=path.current[at],
        crossings=path.crossings[at],
    )


def _range(outcomes: Sequence[Outcome]) -> tuple[int, int]:
    return min(int(x.extremes[0]) for x in outcomes), max(int(x.extremes[1]) for x in outcomes)


def block_length(width: int) -> int:
    """Steps between two looks at the outside world, and the unit of checkpointing, for `width` neurons in the whole batch."""
    return max(1, NEURON_STEPS // max(width, 1))


def _blocks(n_steps: int, length: int) -> list[tuple[int, int]]:
    return [(start, min(start + length, n_steps)) for start in range(0, n_steps, length)]
