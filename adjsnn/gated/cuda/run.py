"""A whole batch of a gated network on a GPU: a block of steps is one launch; matrix products over steps are torch's.

On the way back a block of steps leaves some arrays of the size of its trajectory behind, for the gradients of the weights.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from adjsnn.gated.cotangents import outer
from adjsnn.gated.cpu.covered import GATES, MEMBRANES
from adjsnn.gated.cpu.tableau import FusedTableau
from adjsnn.gated.cuda import euler, euler_adjoint, runge_kutta, runge_kutta_adjoint
from adjsnn.gated.cuda.arguments import (
    BAR,
    COLUMNS,
    NOTHING,
    ROWS,
    Carry,
    Costate,
    Cotangents,
    Found,
    Memory,
    Network,
    Path,
    Scheme,
    Synapses,
)
from adjsnn.gated.cuda.shared import layout
from adjsnn.gated.network import GatedState, GatedTensors
from adjsnn.gated.program import GatedProgram, GatedTrajectory, Irregular, nested
from adjsnn.gated.runge_kutta import GatedRungeKutta
from adjsnn.numerics.device import launch

NEURON_STEPS = 1 << 24  # neuron-steps in a block of steps; some hundred steps of a batch that fills a GPU, some 100 MB
WIDTH = 256  # most threads of a block; some have several neurons where there are more
COPIED = 1 << 14  # bytes up to which each block copies W_rec into its shared memory, of which all together have some 200 kB
WARP = 32
SCALARS = {torch.float32: np.float32, torch.float64: np.float64}


class CudaGated:
    """The GPU loops for one program and one network's tensors; a body as in `adjsnn.gated.engine`.

    Args:
        program: what runs; there must be no obstacle.
        tensors: the network's.
    """

    name = "cuda"
    carried = 3
    again = None

    def __init__(self, program: GatedProgram, tensors: GatedTensors) -> None:
        *others, constants = tensors
        plain = {name: x.detach().contiguous() for name, x in constants.items()}
        self.program, self.tensors = program, GatedTensors._make([*(x.detach().contiguous() for x in others), plain])
        self.size = len(tensors.w_rec)
        self.tableau = FusedTableau.of(program) if isinstance(program, GatedRungeKutta) else None
        self.width = min(WIDTH, -(-self.size // WARP) * WARP)

    def unit_length(self, n_steps: int, batch: int) -> int:
        """Steps of one launch, also the unit of checkpointing."""
        return max(1, min(n_steps, NEURON_STEPS // max(batch * self.size * self.program.stage_count, 1)))

    def carry(self, y0: GatedState) -> Carry:
        """What the first step starts with beside the initial state."""
        with torch.no_grad():
            recurrent, level = (y0.a_fast @ self.tensors.w_rec.T).contiguous(), _own(self.program.charge_level(y0.v))
            return Carry(recurrent, level, torch.zeros_like(recurrent))

    def spent(self, carried: Carry) -> Tensor:
        """As `Body.spent` in `adjsnn.gated.engine`."""
        return carried.spent

    def fill(
        self, u: Tensor, trajectory: GatedTrajectory, carried: Carry, n_steps: int, start: int, unit: int
    ) -> tuple[Irregular, Carry]:
        """As `Body.fill` in `adjsnn.gated.engine`."""
        t, irregular = trajectory, Irregular()
        carried = Carry(*map(_own, carried))
        with torch.no_grad():
            torch.mm(t.a_slow[0], self.tensors.w_out.T, out=t.readout[0])
            for first, last in nested(len(t.current), unit, unit):
                states, steps = slice(first, last + 1), slice(first, last)
                self.drive(u[steps], t.current[steps])
                path = Path(t.v[states], t.a_fast[states], t.a_slow[states], t.current[steps], t.crossings[steps])
                lowest, highest = self._steps(path, carried, start + first)
                irregular = irregular.and_then(self.program.irregular(path.crossings, lowest, highest, start + first))
                torch.mm(path.a_slow[1:].flatten(0, 1), self.tensors.w_out.T, out=t.readout[first + 1 : last + 1].flatten(0, 1))
        return irregular, carried

    def sweep(
        self, shape: tuple[int, int, int], wanted: frozenset[str], last: Sequence[Tensor | None], c_charge: Tensor | None = None
    ) -> "CudaSweep":
        """The backward sweep; arguments as of `CudaSweep`."""
        return CudaSweep(self, shape, wanted, last, c_charge)

    def drive(self, u: Tensor, out: Tensor) -> None:
        """W_in u + b of some steps."""
        torch.addmm(self.tensors.bias, u.detach().flatten(0, 1), self.tensors.w_in.T, out=out.flatten(0, 1))

    def _steps(self, path: Path, carried: Carry, start: int) -> tuple[int, int]:
        """One launch from step `start` of the trial; returns the extreme crossings of a step.

        Raises:
            IntegrationError: the state diverged or a reset did not end below the threshold.
        """
        _, batch, size = path.current.shape
        broken = torch.empty((batch, size), dtype=torch.int32, device=path.v.device)
        network, shared = self.network(forward=True)
        if self.tableau is None:
            arguments = network, self.scheme, path, carried, broken
            self.launch(euler.forward, batch, shared, *arguments)
        else:
            arguments = network, self.scheme, path, carried, self.memory(path), broken
            self.launch(runge_kutta.forward, batch, shared, *arguments)
        steps = len(path.current)
        first = torch.where(broken < 0, steps, broken).amin()
        lowest, highest = path.crossings.aminmax()
        step, lowest, highest = torch.stack([first, lowest.int(), highest.int()]).tolist()  # the host waits here, once
        if step < steps:
            after = slice(step + 1, step + 2)
            crossings = path.crossings[step : step + 1].to(path.v.dtype)
            self.program.refuse(path.v[after], path.a_fast[after], crossings, start + step)
        return lowest, highest

    def launch(self, kernel: object, batch: int, shared: int, *arguments: object) -> None:
        """Run a kernel with a block of threads for each sample."""
        launch(kernel, batch * self.width, self.tensors.w_rec.device, *arguments, width=self.width, shared=shared)

    def network(self, forward: bool) -> tuple[Network, int]:
        """The network as the loops take it in a direction, and the bytes of shared memory that they need."""
        t, program, scalar = self.tensors, self.program, SCALARS[self.tensors.w_rec.dtype]
        copied, ints, shared = layout(self.size, t.w_rec.element_size(), COPIED)
        network = Network(
            membrane=MEMBRANES[type(program.neuron)],
            gate=GATES[type(program.gate)],
            two_sided=int(program.neuron.two_sided),
            slope=scalar(1.0 / program.gate.width),
            offset=scalar(1.0 - program.neuron.threshold / program.gate.width),
            h=scalar(program.dt),
            constants=self._constants(),
            w_t=t.w_rec.T.contiguous().flatten(),
            w=t.w_rec.flatten(),
            copied=(COLUMNS if forward else ROWS) if copied else NOTHING,
            ints=ints,
        )
        return network, shared

    @cached_property
    def scheme(self) -> Synapses | Scheme:
        """How a step is taken; the host waits for the time constants."""
        t, h, scalar = self.tensors, self.program.dt, SCALARS[self.tensors.w_rec.dtype]
        tau_fast, tau_slow = t.tau_fast.item(), t.tau_slow.item()
        if self.tableau is None:
            fast, slow, h = scalar(tau_fast), scalar(tau_slow), scalar(h)
            one = scalar(1.0)
            return Synapses(one - h / fast, one - h / slow, one / fast, one / slow)
        method, *filters = self.tableau.scheme(h, tau_fast, tau_slow, scalar)
        arrays = [*method, *(x for filter_ in filters for x in filter_)]
        return Scheme._make(torch.from_numpy(np.ascontiguousarray(x)).to(t.w_rec.device) for x in arrays)

    def memory(self, path: Path, u: Tensor | None = None) -> Memory:
        """Memory for a Runge–Kutta step, backward with the drive by u."""
        (_, batch, size), s, new = path.v.shape, self.program.stage_count, path.v.new_empty
        stages = new((5, batch, s + 1, size))
        if u is None:
            return Memory(stages, new((0, 0, 0)), new((0, 0, 0)))
        drive = torch.empty_like(path.current)
        self.drive(u, drive)
        return Memory(stages, new((batch, BAR + 2 * s, size)), drive)

    def _constants(self) -> Tensor:
        """1/τ and v_r for each neuron, (2, N); zeros where the membrane has none."""
        rows = self.tensors.w_rec.new_zeros((2, self.size))
        for name, value in self.tensors.constants.items():
            rows[int(name == "v_reset")] = value if name == "v_reset" else 1.0 / value
        return rows


class CudaSweep:
    """The costate on its way back and the gradients gathered so far. Units of a trajectory are handed to `back` last first.

    Args:
        body: the loops.
        shape: (T, B, N) of the whole trajectory.
        wanted: names of tensors, and "u".
        last: cotangents of readout, v, a_fast and a_slow at the last time, None where the loss has none.
        c_charge: cotangents of the number of spikes Σ|q|, (B, N), where the loss depends on it.
    """

    def __init__(
        self,
        body: CudaGated,
        shape: tuple[int, int, int],
        wanted: frozenset[str],
        last: Sequence[Tensor | None],
        c_charge: Tensor | None = None,
    ) -> None:
        n_steps, batch, n_hidden = shape
        t = body.tensors
        self.body, self.wanted, self.length = body, wanted, body.unit_length(n_steps, batch)
        self.c_charge, self.last_readout = c_charge, None if last[0] is None else last[0].detach()[None]
        # Euler steps carry λ/τ, which saves two divisions in every step.
        self.scales = (t.tau_fast, t.tau_slow) if body.tableau is None else (torch.ones_like(t.tau_fast),) * 2
        with torch.no_grad():
            v, fast, slow = self._read(last)
            self.reads_fast, self.reads_slow = fast is not None, slow is not None
            zero = t.w_rec.new_zeros((batch, n_hidden))
            self.state = Costate(*(torch.zeros_like(zero) if x is None else _own(x) for x in (v, None, fast, slow)))
            self.gradients: dict[str, Tensor] = {}

    def back(self, u: Tensor, trajectory: GatedTrajectory, cotangents: Sequence[Tensor | None], d_u: Tensor | None) -> None:
        """Sweep through a unit of the trajectory.

        Args:
            u: input of the unit.
            trajectory: of the unit.
            cotangents: of readout, v, a_fast, a_slow; the rows of the unit's T times before each step are read.
            d_u: memory for the gradient of u.
        """
        t = trajectory
        with torch.no_grad():
            if self.last_readout is not None and "w_out" in self.wanted:
                self._add("w_out", outer(self.last_readout, t.a_slow[-1:]))
            self.last_readout = None
            for start, stop in reversed(list(nested(len(t.current), self.length, self.length))):
                steps, states = slice(start, stop), slice(start, stop + 1)
                path = Path(t.v[states], t.a_fast[states], t.a_slow[states], t.current[steps], t.crossings[steps])
                asked = [None if x is None else x.detach()[steps] for x in cotangents]
                self._block(u.detach()[steps], path, asked, None if d_u is None else d_u[steps])

    def finish(self, a_fast: Tensor, a_slow: Tensor) -> tuple[dict[str, Tensor], Sequence[Tensor]]:
        """Gradients by name, and of the initial state."""
        lam_v, zeta, fast, slow = self.state
        return self.gradients, (lam_v, zeta @ self.body.tensors.w_rec + fast * self.scales[0], slow * self.scales[1])

    def _read(self, cotangents: Sequence[Tensor | None]) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Those of v, a_f and a_s as they are carried, that of the readout in the last, from those of readout and states."""
        c_readout, c_v, c_fast, c_slow = cotangents
        slow = None if c_readout is None else c_readout @ (self.body.tensors.w_out / self.scales[1])
        if c_slow is not None:
            direct = c_slow / self.scales[1]
            slow = direct if slow is None else slow.add_(direct)
        return c_v, None if c_fast is None else c_fast / self.scales[0], slow

    def _block(self, u: Tensor, path: Path, asked: Sequence[Tensor | None], d_u: Tensor | None) -> None:
        """Sweep through the steps of one launch, and add their gradients."""
        body, found, sums = self.body, *self._memory(path)
        v, fast, slow = self._read(asked)
        nothing = path.v.new_zeros(0)
        cotangents = Cotangents(
            reads_v=int(v is not None),
            reads_fast=int(self.reads_fast),
            reads_slow=int(self.reads_slow),
            reads_charge=int(self.c_charge is not None),
            given_fast=int(fast is not None),
            given_slow=int(slow is not None),
            **{
                name: nothing.view(0, 0, 0) if x is None else x.contiguous()
                for name, x in (("v", v), ("fast", fast), ("slow", slow))
            },
            charge=nothing.view(0, 0) if self.c_charge is None else self.c_charge.detach().contiguous(),
        )
        network, shared = body.network(forward=False)
        batch = path.v.shape[1]
        if body.tableau is None:
            arguments = network, body.scheme, path, cotangents, self.state, found
            body.launch(euler_adjoint.backward, batch, shared, *arguments)
        else:
            arguments = network, body.scheme, path, cotangents, self.state, body.memory(path, u), found
            body.launch(runge_kutta_adjoint.backward, batch, shared, *arguments)
        self._gradients(u, path, asked[0], found, sums, d_u)

    def _memory(self, path: Path) -> tuple[Found, Tensor]:
        """For what a sweep leaves behind, and for its sums over the steps, (4, B, N)."""
        steps, batch, size = path.current.shape
        new, stages, euler_steps = path.v.new_empty, self.body.program.stage_count, self.body.tableau is None
        sums = path.v.new_zeros((4, batch, size))
        tau_fast = "tau_fast" in self.wanted
        found = Found(
            constants=int(not self.wanted.isdisjoint(self.body.tensors.constants)),
            tau_fast=int(tau_fast),
            tau_slow=int("tau_slow" in self.wanted),
            w=new((stages, steps, batch, size)),
            zeta=new((steps if euler_steps and tau_fast else 0, batch, size)),
            activity=new((0 if euler_steps else stages, steps, batch, size)),
            **dict(zip(("c0", "c1", "d_fast", "d_slow"), sums, strict=True)),
        )
        return found, sums

    def _gradients(
        self, u: Tensor, path: Path, c_readout: Tensor | None, found: Found, sums: Tensor, d_u: Tensor | None
    ) -> None:
        """Add the block's share of every wanted gradient, products of matrices as in (1.10)."""
        tensors, wanted = self.body.tensors, self.wanted
        w = found.w[0] if len(found.w) == 1 else found.w.sum(0)
        if "w_rec" in wanted:
            a_fast = path.a_fast[:-1] if self.body.tableau is None else found.activity.flatten(0, 1)
            self._add("w_rec", outer(found.w.flatten(0, 1), a_fast))
        if "w_in" in wanted:
            self._add("w_in", outer(w, u))
        if c_readout is not None and "w_out" in wanted:
            self._add("w_out", outer(c_readout, path.a_slow[:-1]))
        if "bias" in wanted:
            self._add("bias", w.sum((0, 1)))
        if d_u is not None:
            d_u.copy_(w @ tensors.w_in)  # whatever its layout
        c0, c1, d_fast, d_slow = sums.unbind()
        for name in wanted & tensors.constants.keys():
            self._add(name, (c1 if name == "v_reset" else c0).sum_to_size(tensors.constants[name].shape))
        if "tau_fast" in wanted:
            part = d_fast.sum()
            if self.body.tableau is None:  # p_f = W_recᵀ ζ/τ_f, and ∂a⁺/∂τ = -(a⁺ - a)/τ
                change = path.a_fast[1:] - path.a_fast[:-1]
                part = part - ((found.zeta @ (tensors.w_rec / tensors.tau_fast)) * change).sum()
            self._add("tau_fast", part)
        if "tau_slow" in wanted:
            self._add("tau_slow", d_slow.sum())

    def _add(self, name: str, part: Tensor) -> None:
        self.gradients[name] = self.gradients[name] + part if name in self.gradients else part


def _own(x: Tensor) -> Tensor:
    """A copy as a kernel takes it; `clone` alone keeps whatever layout x has."""
    return x.detach().clone(memory_format=torch.contiguous_format)
