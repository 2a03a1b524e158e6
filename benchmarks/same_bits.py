"""Is every number the same by two checkouts of adjsnn, to the last bit?

    python benchmarks/same_bits.py OTHER_CHECKOUT [--only lif]

A change that only moves code changes no number. Here a fixed set of problems over all families, bodies, dtypes, checkpoints,
events, delays, currents and adjoints is solved and differentiated by either checkout, on one thread, and every result and
gradient compared byte for byte. Prints what differs and by how much; exit status 1 if anything does.
"""

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import adjsnn

HERE = Path(__file__).resolve()
F32, F64 = torch.float32, torch.float64
Results = dict[str, Tensor]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def differentiated(results: Results, wanted: dict[str, Tensor]) -> Results:
    """The results, and the gradients of a sum in which every entry has a weight of its own."""
    moved = [x.flatten() for x in results.values() if x.requires_grad]
    total = sum(((x * torch.cos(torch.arange(len(x), dtype=x.dtype))).sum() for x in moved), moved[0].new_zeros(()))
    found = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
    gradients = {f"d/d {name}": g for name, g in zip(wanted, found, strict=True) if g is not None}
    return {name: x.detach() for name, x in results.items()} | gradients


class Soft(adjsnn.Membrane):
    """f = (I - v + tanh(3 v))/τ: a membrane without derivatives of its own."""

    time_constants = ("tau",)

    def __init__(self) -> None:
        super().__init__(tau=18.0, v_reset=-0.3)

    def flow(self, v, current, c):
        return (current - v + torch.tanh(3.0 * v)) / c["tau"]


NEURONS: dict[str, Callable[[], adjsnn.Membrane]] = {
    "nif": adjsnn.NIF,
    "lif": lambda: adjsnn.LIF(20.0, -0.2),
    "qif": lambda: adjsnn.QIF(25.0),
    "own": Soft,
}
DRIVE = {"nif": 0.15, "lif": 1.3, "qif": 0.2, "own": 0.8}


def gated(
    neuron: str, method: str = "euler", *, dtype: torch.dtype = F64, gate: adjsnn.Gate | None = None, per_neuron: bool = False,
    size: int = 12, steps: int = 150, batch: int = 3, **options: Any,
) -> Callable[[], Results]:  # fmt: skip
    def run() -> Results:
        membrane = NEURONS[neuron]()
        taus = (torch.linspace(4.0, 6.0, size), torch.linspace(18.0, 22.0, size)) if per_neuron else (5.0, 20.0)
        net = adjsnn.GatedSynapseNetwork(
            2, size, 2, neuron=membrane, gate=gate, tau_fast=taus[0], tau_slow=taus[1],
            learn=("weights", "bias", "tau_fast", "tau_slow", *membrane.constants), generator=seeded(1), dtype=dtype,
        )  # fmt: skip
        with torch.no_grad():
            net.bias.copy_(DRIVE[neuron] * (0.8 + 0.8 * torch.rand(size, generator=seeded(2), dtype=dtype)))
            net.w_in.mul_(DRIVE[neuron])
            net.w_rec.mul_(0.5 * DRIVE[neuron])
        u = (2.0 * torch.rand(steps, batch, 2, generator=seeded(3), dtype=dtype) - 1.0).requires_grad_()
        y0 = adjsnn.GatedState(
            *(0.1 * torch.rand(batch, size, generator=seeded(k), dtype=dtype).requires_grad_() for k in (4, 5, 6))
        )
        sol = adjsnn.solve(net, u, dt=0.5, method=method, y0=y0, **options)
        whole = ("v", "a_fast", "a_slow") if isinstance(sol, adjsnn.GatedSolution) else ()
        results = {"readout": sol.readout, "spike_charge": sol.spike_charge, **{name: getattr(sol, name) for name in whole}}
        results |= {f"final {name}": x for name, x in sol.final_state._asdict().items()}
        wanted = {**dict(net.named_parameters()), "u": u, **y0._asdict()}
        return differentiated(results, wanted) | {"spikes": torch.tensor(sol.stats.spikes)}

    return run


def lif(
    *, recurrent: bool = False, delays: float | None = None, refractory: float = 0.0, currents: bool = False, ts: bool = True,
    dtype: torch.dtype = F64, equal: bool = False, layers: tuple[int, ...] = (12, 6), read_out: bool = True, **options: Any,
) -> Callable[[], Results]:  # fmt: skip
    def run() -> Results:
        learn = ("weights", "bias", "tau_mem", "tau_syn", "v_th", "v_reset", *(("delays",) if delays is not None else ()))
        net = adjsnn.LIFNetwork(
            3, layers, recurrent=recurrent, bias=0.2, delays=delays, rec_delays=delays if recurrent else None,
            refractory=refractory, n_out=2 if read_out else None, tau_mem=20.0, tau_syn=20.0 if equal else 5.0, learn=learn,
            generator=seeded(1), dtype=dtype,
        )  # fmt: skip
        with torch.no_grad():
            for w in net.w_in:
                w.mul_(1.6)
        x = adjsnn.SpikeTrains.poisson(torch.full((3, 3), 80.0, dtype=dtype), 60.0, generator=seeded(2))
        x = adjsnn.SpikeTrains(x.idx, x.time.clone().requires_grad_(), 3, 60.0)
        given: dict[str, Any] = dict(options)
        wanted = {**dict(net.named_parameters()), "times": x.time}
        if ts:
            given["ts"] = torch.linspace(0.0, 60.0, 7, dtype=dtype)
        if currents:
            given["currents"] = (0.2 * torch.rand(12, 3, 3, generator=seeded(3), dtype=dtype)).requires_grad_()
            given["dt"] = 5.0
            wanted["currents"] = given["currents"]
        sol = adjsnn.solve(net, x, **given)
        results = {f"times {k}": sol.spike_times(k) for k in range(len(layers))}
        results |= {f"voltage_max {k}": sol.voltage_max(k) for k in range(len(layers))}
        if not refractory:
            results |= {f"voltage_integral {k}": sol.voltage_integral(k) for k in range(len(layers))}
        if ts:
            results |= {f"v {k}": v for k, v in enumerate(sol.v)} | {f"i {k}": i for k, i in enumerate(sol.i)}
            results |= {"readout": sol.readout} if read_out else {}
        wanted = {name: p for name, p in wanted.items() if p.requires_grad}
        return differentiated(results, wanted) | {f"idx {k}": s.idx for k, s in enumerate(sol.layer_spikes)}

    return run


class Oscillator(adjsnn.HybridSystem):
    """y″ = -k y - c y′ + u, kicked back at y = 0.8 if it is to be."""

    def __init__(self, kicked: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor(1.0, dtype=dtype))
        self.c = torch.nn.Parameter(torch.tensor(0.05, dtype=dtype))
        self.kicked = kicked

    def vector_field(self, t, y, u):
        return torch.stack([y[:, 1], -self.k * torch.sin(y[:, 0]) - self.c * y[:, 1] + (0.5 if u is None else u[:, 0])], 1)

    def guard(self, t, y):
        return y[:, :1] - 0.8 if self.kicked else None

    def jump(self, t, y, fired):
        return torch.where(fired[:, :1], torch.stack([0.5 * y[:, 0], self.c + y[:, 1]], 1), y)


def hybrid(
    method: str = "dopri5", *, kicked: bool = False, held: bool = False, dtype: torch.dtype = F64, **options: Any
) -> Callable[[], Results]:
    def run() -> Results:
        system = Oscillator(kicked, dtype)
        y0 = torch.stack([torch.linspace(0.0, 0.5, 5), torch.zeros(5)], 1).to(dtype).requires_grad_()
        intervals = 80 if method in ("euler", "heun", "rk4") else 8
        u = torch.rand(intervals, 5, 1, generator=seeded(3), dtype=dtype).requires_grad_() if held else None
        ts = torch.linspace(0.0, 8.0, intervals + 1, dtype=dtype)
        sol = adjsnn.solve(system, u, y0=y0, ts=ts, method=method, **options)
        results = {"y": sol.y}
        if kicked:
            results["event_times"] = sol.event_times[sol.event_times.isfinite()]
        wanted = {**dict(system.named_parameters()), "y0": y0, **({"u": u} if u is not None else {})}
        return differentiated(results, wanted)

    return run


def charge_form(adjoint: Any = None) -> Callable[[], Results]:
    def run() -> Results:
        net = adjsnn.GatedSynapseNetwork(
            2, 4, 2, neuron=adjsnn.LIF(20.0, -0.2), gate=adjsnn.RaisedCosineGate(0.2), learn=("weights", "bias"),
            generator=seeded(1), dtype=F64,
        )  # fmt: skip
        with torch.no_grad():
            net.bias.fill_(1.6)
        u = torch.rand(4, 2, 2, generator=seeded(3), dtype=F64)
        ts = torch.linspace(0.0, 20.0, 5, dtype=F64)
        sol = adjsnn.solve(adjsnn.ChargeForm(net), u, ts=ts, method="dopri5", adjoint=adjoint)
        return differentiated(
            {"y": sol.y, "readout": sol.readout}, {n: p for n, p in net.named_parameters() if p.requires_grad}
        )

    return run


def of_losses() -> Results:
    """Losses of spikes, on both networks."""
    net = adjsnn.LIFNetwork(3, (8, 3), bias=0.2, learn=("weights", "bias"), generator=seeded(1), dtype=F64)
    with torch.no_grad():
        for w in net.w_in:
            w.mul_(2.0)
    x = adjsnn.SpikeTrains.poisson(torch.full((3, 3), 80.0, dtype=F64), 60.0, generator=seeded(2))
    sol = adjsnn.solve(net, x)
    target = adjsnn.SpikeTrains.poisson(torch.full((3, 3), 40.0, dtype=F64), 60.0, generator=seeded(5))
    results = {
        "van_rossum": adjsnn.losses.van_rossum(sol, target, tau=10.0),
        "first_spike": adjsnn.losses.first_spike_cross_entropy(sol, torch.tensor([0, 1, 2])),
        "squared_rate": sol.squared_rate(),
    }
    return differentiated(results, {name: p for name, p in net.named_parameters() if p.requires_grad})


def gated_cases() -> Iterable[tuple[str, Callable[[], Results]]]:
    checkpoints = {"sqrt": adjsnn.DiscreteAdjoint(checkpoints="sqrt"), "3": adjsnn.DiscreteAdjoint(checkpoints=3)}
    for method in ("euler", "heun", "rk4"):
        for neuron in ("nif", "lif", "qif"):
            for kernels in ("auto", "plain"):
                yield f"gated, {neuron}, {method}, {kernels}", gated(neuron, method, kernels=kernels)
        yield f"gated, lif, {method}, float32", gated("lif", method, dtype=F32)
        yield f"gated, own membrane, {method}", gated("own", method)
        yield f"gated, constants of each neuron, {method}", gated("lif", method, per_neuron=True)
        yield f"gated, raised cosine, {method}", gated("lif", method, gate=adjsnn.RaisedCosineGate(0.2))
        yield f"gated, BPTT, {method}", gated("nif", method, adjoint=adjsnn.BPTT())
        for name, adjoint in checkpoints.items():
            for kernels in ("auto", "plain"):
                options: dict[str, Any] = {"adjoint": adjoint, "kernels": kernels, "steps": 60}
                yield f"gated, checkpoints {name}, {method}, {kernels}", gated("lif", method, **options)
    yield "gated, 200 neurons, 300 steps", gated("nif", size=200, steps=300, batch=4)
    yield "gated, 1100 neurons", gated("nif", size=1100, steps=20, batch=2)


def lif_cases() -> Iterable[tuple[str, Callable[[], Results]]]:
    for kernels in ("auto", "plain"):
        for recurrent in (False, True):
            for currents in (False, True):
                name = f"lif, {'recurrent' if recurrent else 'feed-forward'}{', currents' if currents else ''}, {kernels}"
                given: dict[str, Any] = {"recurrent": recurrent, "currents": currents, "kernels": kernels}
                yield name, lif(**given)
                yield f"{name}, delays, refractory", lif(delays=0.5, refractory=2.0, **given)
        yield f"lif, equal time constants, {kernels}", lif(equal=True, kernels=kernels)
        yield f"lif, no times asked for, {kernels}", lif(ts=False, kernels=kernels)
    yield "lif, float32", lif(dtype=F32)
    yield "lif, recurrent, float32", lif(dtype=F32, recurrent=True)
    yield "lif, three layers", lif(layers=(20, 10, 5), recurrent=True)
    yield "lif, losses", of_losses


def hybrid_cases() -> Iterable[tuple[str, Callable[[], Results]]]:
    tight: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-8}
    for method in ("euler", "heun", "rk4"):
        for held in (False, True):
            yield f"hybrid, {method}{', held' if held else ''}", hybrid(method, held=held)
        yield f"hybrid, {method}, continuous", hybrid(method, adjoint=adjsnn.ContinuousAdjoint())
    for method in ("dopri5", "tsit5"):
        for kicked in (False, True):
            name = f"hybrid, {method}{', events' if kicked else ''}"
            yield name, hybrid(method, kicked=kicked, **tight)
            yield f"{name}, held", hybrid(method, kicked=kicked, held=True, **tight)
            yield f"{name}, checkpoints", hybrid(method, kicked=kicked, adjoint=adjsnn.DiscreteAdjoint(checkpoints=3), **tight)
            yield f"{name}, continuous", hybrid(method, kicked=kicked, adjoint=adjsnn.ContinuousAdjoint(), **tight)
            yield f"{name}, BPTT", hybrid(method, kicked=kicked, adjoint=adjsnn.BPTT(), **tight)
        yield f"hybrid, {method}, forward", hybrid(method, adjoint=adjsnn.ForwardSensitivity(), **tight)
        yield f"hybrid, {method}, backsolve", hybrid(method, adjoint=adjsnn.Backsolve(tolerance=1.0), **tight)
        yield f"hybrid, {method}, float32", hybrid(method, dtype=F32)
    yield "hybrid, torchdiffeq", hybrid("torchdiffeq:dopri5", **tight)
    yield "charge form", charge_form()
    yield "charge form, continuous", charge_form(adjsnn.ContinuousAdjoint())


CASES = dict([*gated_cases(), *lif_cases(), *hybrid_cases()])


def dump(path: Path, only: str) -> None:
    """Solve every case and write what was found."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", adjsnn.StepTooLongWarning)
    print(Path(adjsnn.__file__).parent.parent, flush=True)
    found = {name: {key: x.numpy() for key, x in CASES[name]().items()} for name in CASES if only in name}
    path.write_bytes(pickle.dumps(found))


def solved_by(checkout: Path, only: str) -> dict[str, dict[str, np.ndarray]]:
    """The results of a process that imports adjsnn from the checkout; the problems are those of this file."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "found"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(checkout), str(HERE.parent)])}
        command = [sys.executable, str(HERE), "--dump", str(target), only]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        origin = Path(done.stdout.splitlines()[0])
        assert origin == checkout, f"adjsnn came from {origin}, not from {checkout}"
        return pickle.loads(target.read_bytes())


def differences(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> list[str]:
    wrong = [f"{key} by one only" for key in sorted(ours.keys() ^ theirs.keys())]
    for key in ours.keys() & theirs.keys():
        a, b = ours[key], theirs[key]
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            wrong.append(f"{key}: {a.dtype}{a.shape}, {b.dtype}{b.shape}")
        elif a.tobytes() != b.tobytes():
            size = float(np.abs(b).max()) or 1.0
            wrong.append(f"{key}: {float(np.abs(a - b).max()) / size:.1e} of its largest entry")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument("--only", default="", help="the problems whose name contains this")
    options = parser.parse_args()
    ours, theirs = (solved_by(x, options.only) for x in (HERE.parent.parent, options.other.resolve()))
    count = 0
    for name, results in ours.items():
        wrong = differences(results, theirs[name])
        count += bool(wrong)
        for line in wrong:
            print(f"{name}: {line}")
    arrays = sum(len(results) for results in ours.values())
    print(f"torch {torch.__version__}: {len(ours)} problems, {arrays} arrays; {count} problems differ")
    return int(count > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--dump"]:
        dump(Path(sys.argv[2]), sys.argv[3])
    else:
        sys.exit(main())
