"""Compiled loops of a system of equations, connected to torch."""

import itertools
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
import torch
from torch import Tensor

from adjsnn.adjoints import DiscreteAdjoint
from adjsnn.bodies import Ran
from adjsnn.equations.arguments import check_parameter
from adjsnn.equations.autograd import Attached, array_of
from adjsnn.equations.cpu import march
from adjsnn.equations.cpu.adjoint import Back, Bars, Cotangents
from adjsnn.equations.cpu.events import FINEST, NO_NUMBER, NO_NUMBER_AFTER, OTHER, OWN, PILED, RAISED_BY_PACKET, TOUCH
from adjsnn.equations.cpu.march import Record, Samples, Trial, Work
from adjsnn.equations.cpu.steps import Room, Sums
from adjsnn.equations.link import Loops, loops_of
from adjsnn.equations.model import Model
from adjsnn.equations.nodes import Layout
from adjsnn.equations.synapses import Synapse, check_put_here
from adjsnn.errors import ConfigurationError
from adjsnn.hybrid import refusals
from adjsnn.hybrid.packets import Packets
from adjsnn.hybrid.problem import HybridProblem
from adjsnn.hybrid.run import HybridStats
from adjsnn.hybrid.solution import HybridSolution
from adjsnn.hybrid.steps import Steps
from adjsnn.numerics import gpu
from adjsnn.numerics.threads import loop_threads, run_groups

GROUPS = 16  # of samples, at most: so the order of sums does not depend on the number of threads
FEW = 64  # rows that there is room for at first


class Values(NamedTuple):
    """Parameters of a solve: p (P,), q (B, Q), and where each that has a gradient lies: name, array, first entry, entries."""

    p: np.ndarray
    q: np.ndarray
    places: tuple[tuple[str, str, int, int], ...]


class System(Protocol):
    """What is asked of a system: its model, where everything lies, its functions as source, parameters that are numbers."""

    model: Model
    numbers: dict[str, float]
    synapses: tuple[Synapse, ...]

    @property
    def layout(self) -> Layout: ...
    @property
    def source(self) -> str: ...
    @property
    def wires(self) -> np.ndarray: ...
    def inputs_of(self, u: Tensor | None) -> Mapping[str, Any]: ...


class CompiledBody:
    """What runs a system of equations in compiled loops.

    Args:
        system: the equations.
        why_not: what keeps compiled loops from saying the same as the system; None where nothing does.
    """

    def __init__(self, system: System, why_not: str | None) -> None:
        self.system, self.why_not = system, why_not

    def obstacle(self, problem: HybridProblem, adjoint: DiscreteAdjoint) -> str | None:
        """Why these loops do not cover a solve; None where they do."""
        if self.why_not is not None:
            return self.why_not
        if self.kernel(problem) == "cuda":
            if (why := gpu.obstacle(problem.y0.device)) is not None:
                return why
        elif problem.y0.device.type != "cpu":
            return "the state is not on the CPU"
        if problem.program.signal is not None:
            return "the input is a Python function of time"
        if adjoint.checkpoints not in (None, "sqrt") or adjoint.memory_mb is not None:
            return 'checkpoints are "sqrt" or none there'
        return None

    def kernel(self, problem: HybridProblem) -> str:
        """Those for a GPU where the state is on one, or where they are asked for."""
        on_gpu = problem.y0.device.type == "cuda" and problem.kernels != "fused"
        return "cuda" if on_gpu or problem.kernels == "cuda" else "fused"

    def run(self, problem: HybridProblem, adjoint: DiscreteAdjoint, ran: Ran) -> HybridSolution:
        """Solve the problem; a loss of the solution runs the discrete adjoint."""
        check_put_here(self.system)
        model, y0 = self.system.model, problem.y0
        names = [x for x in model.parameters if x not in self.system.numbers]
        tensors = [getattr(self.system, name) for name in names]
        alike = all(x.dtype == y0.dtype and x.device == y0.device for x in tensors)
        if not alike or y0.shape[1] != model.width or (model.guards and not problem.by_events):
            _ = problem.first_levels  # is refused there if it is wrong
        stats: list[HybridStats] = []
        kind = import_module("adjsnn.equations.cuda.run").CudaSolve if ran.kernel == "cuda" else Solve
        solve = kind(self.system, problem, adjoint.checkpoints is not None, ran, tuple(names))
        y, times, index = Attached.apply(solve, stats, problem.u, problem.y0, *tensors)
        return problem.solution(y, times, index, stats[0])


class Solve:
    """One solve: arrays for the loops, and back.

    Args:
        system: the equations.
        problem: checked.
        thin: whether to keep 2√n of n states.
        ran: for the statistics.
        names: of the parameters that are tensors.
    """

    def __init__(self, system: System, problem: HybridProblem, thin: bool, ran: Ran, names: tuple[str, ...]) -> None:
        self.system, self.problem, self.thin, self.ran, self.names = system, problem, thin, ran, names
        self.program = problem.program
        self.loops = self.linked(system.source, self.program.tableau.name)

    def linked(self, source: str, method: str) -> Loops:
        """The loops of a system and a method."""
        return loops_of(source, method)

    def values(self, tensors: dict[str, Tensor], batch: int) -> Values:
        """Parameters as the loops take them: a copy."""
        layout, model = self.system.layout, self.system.model
        p, q = np.empty(layout.shared), np.empty((batch, layout.own))
        places = []
        for name in model.parameters:
            matrix = layout.matrices.get(name)
            array, first, size = ("p", matrix[0], matrix[1] * matrix[2]) if matrix else layout.slots[name]
            if name in self.system.numbers:
                p[first] = self.system.numbers[name]
                continue
            x = array_of(tensors[name])
            places.append((name, array, first, size))
            check_parameter(name, tensors[name], model.parameters[name], batch if array == "q" else None)
            if array == "q":
                q[:, first : first + size] = x.reshape(len(x), size)
                continue
            p[first : first + size] = (x.T if matrix else x).reshape(-1)
        for synapse in self.system.synapses:
            name, known = synapse.delay, self.system.numbers
            delays = np.array(known[name]) if name in known else array_of(tensors[name])
            if not (delays >= 0.0).all():
                raise ConfigurationError(f"{name} of {delays.min():g} ms", "delays ≥ 0", f"{name}.clamp(min=0)")
        return Values(p, q, tuple(places))

    def trial(self, y0: Tensor, u: Tensor | None, values: Values) -> Trial:
        program, width = self.program, sum(self.system.model.inputs.values())
        seen = 0 if u is None else u.shape[2]
        if seen != width:
            self.system.inputs_of(None if u is None else u[0])
        ts = program.ts.cpu().numpy().astype(np.float64)
        held = np.empty((len(ts) - 1, len(y0), 0)) if u is None else array_of(u).copy()
        fixed = program.lengths is not None
        lengths = array_of(program.lengths) if program.lengths is not None else np.empty(0)
        steps = program.substeps if fixed else 0
        how = program.rtol, program.atol, program.max_steps, steps, lengths
        return Trial(ts, array_of(y0), held, values.p, values.q, *how, self.system.wires)

    def forward(self, trial: Trial) -> tuple[Record, Samples]:
        """Run all samples, with more room where some need it."""
        record, samples = self._begun(trial)
        march_on = self.marches(trial)
        march_on(record, samples)
        if (samples.whole[:, march.STATUS] == march.START).any():
            _ = self.problem.first_levels  # says what is wrong; guards may be on zero and falling
            samples.whole[:, march.JUDGED] = 1
            march_on(record, samples)
        while (samples.whole[:, march.STATUS] == march.FULL).any():
            record, samples = self._grown(record, samples)
            march_on(record, samples)
        return record, samples

    def _begun(self, trial: Trial) -> tuple[Record, Samples]:
        """Room for the first steps, and samples that stand at their starts."""
        batch, d, g = len(trial.y0), self.loops.numbers["D"], self.loops.numbers["G"]
        fixed = (len(trial.ts) - 1) * trial.substeps
        steps = fixed or max(FEW, 2 * len(trial.ts))
        states = steps + 1 if not self.thin else min(steps, 4 * int(steps**0.5) + 4) + 1
        most = self.loops.numbers["MOST"]
        record = _record(batch, steps, states, len(trial.ts), d, 8 * most)
        whole, real = np.zeros((batch, march.JUDGED + 1), dtype=np.int64), np.zeros((batch, 6))
        levels, spent = np.empty((batch, g)), np.zeros((batch, g), dtype=np.bool_)
        heap = np.zeros((batch, 8 * most), dtype=np.int64)
        samples = Samples(whole, real, np.empty((batch, d)), levels, spent, np.zeros((batch, d)), heap)
        return self.room(record), self.placed(samples)

    def marches(self, trial: Trial) -> Callable[[Record, Samples], None]:
        """What runs all samples from where they stand."""
        batch = len(trial.y0)
        groups = [(0, batch)] if loop_threads() == 1 else _groups(batch)
        works = [self.work() for _ in groups]

        def march_on(record: Record, samples: Samples) -> None:
            def work(k: int, first: int, last: int) -> None:
                self.loops.forward(trial, record, samples, int(self.thin), works[k], first, last)

            run_groups(work, groups)

        return march_on

    def placed(self, x: Any) -> Any:
        """Arrays of named tuples where the loops run."""
        return x

    def room(self, x: Any) -> Any:
        """Arrays of these shapes where the loops run."""
        return x

    def _grown(self, old: Record, samples: Samples) -> tuple[Record, Samples]:
        """Twice the room, of steps or packets."""
        (batch, steps), states, packets = old.lengths.shape, old.states.shape[1], old.due.shape[1]
        if int(samples.whole[:, march.SENT].max()) + self.loops.numbers["MOST"] > packets:
            packets *= 2
        else:
            states, steps = (2 * states if self.thin else 2 * steps + 1), 2 * steps
        new = self.room(_record(batch, steps, states, old.rows.shape[1], old.states.shape[2], packets))
        heap = self.room(np.zeros((batch, packets), dtype=np.int64))
        for before, after in zip((*old, samples.heap), (*new, heap), strict=True):
            after[:, : before.shape[1]] = before
        return new, samples._replace(heap=heap)

    def work(self) -> Work:
        n = self.loops.numbers
        d, g, stages = n["D"], n["G"], n["STAGES"]
        step = Room(*(np.zeros(shape) for shape in (*3 * [(stages, d)], (5, d), (stages, n["ROOM"]))))
        sums = Sums(np.zeros(n["P"]), np.zeros(n["Q"]), np.zeros(n["C"]))
        powers = np.zeros((n["DENSE"].shape[1], len(n["WATCHED"])))
        parts = np.zeros((FINEST + 1 if g else 0, g))
        return Work(step, powers, parts, np.zeros((6, d)), np.zeros((3, g)), sums, np.zeros(n["ROOM"]), np.zeros(n["ROOM"]))

    def backward(self, trial: Trial, record: Record, samples: Samples, cotangents: Cotangents) -> Bars:
        batch, n = len(trial.y0), self.loops.numbers
        groups = _groups(batch)
        bars = Bars(
            np.zeros((batch, n["D"])),
            np.zeros(trial.u.shape),
            np.zeros((len(groups), n["P"])),
            np.zeros((batch, n["Q"])),
            np.zeros((batch, 2)),
        )
        longest = int(samples.whole[:, march.STRIDE].max())
        edges = np.array([0, *(last for _, last in groups)])

        def work(_: int, first: int, last: int) -> None:
            back = Back(np.zeros((longest + 1, n["D"])), np.zeros((6, n["D"])))
            self.loops.backward(trial, record, samples, cotangents, bars, self.work(), back, edges, first, last)

        whole = [(0, len(groups))]
        run_groups(work, whole if loop_threads() == 1 else [(k, k + 1) for k in range(len(groups))])
        self.judge(record, bars)
        return bars

    @staticmethod
    def judge(record: Record, bars: Bars) -> None:
        """Raise the error of the first sample that has an event whose guard does not rise."""
        for sample in np.flatnonzero(bars.failed[:, 0]):
            row = int(bars.failed[sample, 0]) - 1
            raise refusals.not_rising(
                int(record.event[sample, row]), int(sample), float(record.times[sample, row + 1]), float(bars.failed[sample, 1])
            )

    def steps(self, record: Record, samples: Samples) -> Steps:
        """The steps as other adjoints take them, padded with steps of length zero."""
        count = samples.whole[:, march.TAKEN]
        n, end = int(count.max()), len(self.program.ts) - 2
        index = np.arange(n + 1)
        beyond = index[:-1] >= count[:, None]
        times = np.where(index > count[:, None], samples.real[:, march.TIME, None], record.times[:, : n + 1])
        output = np.full((len(count), n + 1), -1)
        np.put_along_axis(output, record.rows, np.arange(record.rows.shape[1])[None], 1)
        columns = (
            times,
            np.where(beyond, 0.0, record.lengths[:, :n]),
            np.where(beyond, end, record.interval[:, :n]),
            output,
            record.rows,
            np.where(beyond, -1, np.maximum(record.event[:, :n], -1)),  # a packet is no guard
        )
        *known, event = (torch.from_numpy(np.array(x.T, order="C")).to(self.problem.y0.device) for x in columns)
        guards, packets = event if self.loops.numbers["G"] else None, self.packets(record, samples, n)
        return Steps(known[0], known[1], known[2], known[3], known[4], guards, packets)

    def packets(self, record: Record, samples: Samples, steps: int) -> Packets | None:
        """What was on its way in the steps, of a system with synapses."""
        if not self.system.synapses:
            return None
        within = np.arange(steps) < samples.whole[:, march.TAKEN, None]
        landed = np.where(within & (record.event[:, :steps] <= -2), -2 - record.event[:, :steps], -1)
        sent = torch.from_numpy(record.sent[:, : samples.whole[:, march.SENT].max()].copy())
        return Packets(torch.from_numpy(np.ascontiguousarray(landed.T)), sent[:, :, 3], sent[:, :, :3])

    def refuse(self, samples: Samples, record: Record) -> None:
        """Raise the error of the first sample that did not arrive."""
        wrong = np.flatnonzero(samples.whole[:, march.STATUS] != march.DONE)
        if not len(wrong):
            return
        s = int(wrong[0])
        whole, real = samples.whole[s], samples.real[s]
        status = int(whole[march.STATUS])
        accepted, rejected = (int(whole[k]) for k in (march.TAKEN, march.REJECTED))
        t, h = (float(real[k]) for k in (march.TIME, march.NEXT))
        tolerances = f"rtol={self.program.rtol:g}, atol={self.program.atol:g}"
        if status == march.STUCK:
            raise refusals.stuck(s, h, t, accepted, rejected, tolerances)
        if status == march.TOO_MANY:
            raise refusals.too_many(s, t, float(self.program.ts[-1]), self.program.max_steps, accepted, h, tolerances)
        _refuse_event(s, whole, real)


def _refuse_event(s: int, whole: np.ndarray, real: np.ndarray) -> NoReturn:
    what, guard, fired = int(whole[march.WRONG]), int(whole[march.FAILED]), int(whole[march.INTERVAL])
    t, one, two = float(real[march.TIME]), float(real[march.ONE]), float(real[march.TWO])
    if what == TOUCH:
        raise refusals.touches(guard, s, t, one, two)
    if what in (NO_NUMBER, NO_NUMBER_AFTER):
        raise refusals.no_number(guard, s, t, one, "at" if what == NO_NUMBER else "after the jump at")
    if what == OWN:
        raise refusals.not_left(guard, s, t, two)
    if what == OTHER:
        raise refusals.raised(fired, s, t, guard, one, two)
    if what == RAISED_BY_PACKET:
        raise refusals.raised_by_packet(s, t, guard, one, two)
    assert what == PILED
    raise refusals.piled(int(one), s, t, guard)


def _groups(batch: int) -> list[tuple[int, int]]:
    count = min(GROUPS, batch)
    edges = [batch * k // count for k in range(count + 1)]
    return list(itertools.pairwise(edges))


def _record(batch: int, steps: int, states: int, outputs: int, d: int, packets: int) -> Record:
    return Record(
        np.empty((batch, steps + 1)),
        np.empty((batch, steps)),
        np.empty((batch, states, d)),
        np.empty((batch, steps), dtype=np.int64),
        np.empty((batch, steps), dtype=np.int64),
        np.zeros((batch, outputs), dtype=np.int64),
        np.empty((outputs, batch, d)),
        np.empty((batch, max(packets, 1), 4), dtype=np.int64),
        np.empty((batch, packets)),
    )
