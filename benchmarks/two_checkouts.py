"""Every kind of gradient by two checkouts of adjsnn in one run: is the newer one slower anywhere?

    python benchmarks/two_checkouts.py OTHER_CHECKOUT [--rounds 40] [--threads 1 2] [--only lif] [--write]

Two processes stay alive, one for each checkout, and take turns: one gradient here, one there, in an order that alternates from
round to round, so that a change of the machine's speed meets both. For each case the table has the medians, the median of the
ratios within a round, and the middle half of these ratios. Exit status 1 if a median ratio is above --limit.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

import adjsnn

HERE = Path(__file__).resolve()


def gated(method: str, steps: int = 400, price: float = 0.0, width: float = 0.1, **options: Any) -> Callable[[], object]:
    import gated_gradient  # noqa: PLC0415 - beside this file, in either checkout

    usual, gated_gradient.WIDTH = gated_gradient.WIDTH, width
    net, u = gated_gradient.problem(torch.float32)
    gated_gradient.WIDTH, u = usual, u[:steps]

    def run() -> object:
        sol = adjsnn.solve(net, u, dt=0.5, method=method, **options)
        loss = sol.readout.square().mean()
        if price:
            loss = loss + price * sol.spike_charge.square().mean()
        return torch.autograd.grad(loss, gated_gradient.weights(net))

    return run


def lif(recurrent: bool, currents: int = 0) -> Callable[[], object]:
    import lif_gradient  # noqa: PLC0415 - beside this file, in either checkout

    case = lif_gradient.problem(recurrent)
    return lambda: lif_gradient.gradient(case, steps=currents)


def many_lif() -> Callable[[], object]:
    import lif_gradient  # noqa: PLC0415 - beside this file, in either checkout

    case = lif_gradient.problem(False, 1500)
    return lambda: lif_gradient.gradient(case)


def pictures() -> Callable[[], object]:
    """100 samples of 784-350-10, a fifth of the inputs with a spike whose latency is a grey value, as of handwritten digits."""
    generator = torch.Generator().manual_seed(0)
    net = adjsnn.LIFNetwork(784, (350, 10), generator=generator)
    with torch.no_grad():
        net.w_in[0].copy_(0.05 + 0.1 * torch.randn(350, 784, generator=generator))
        net.w_in[1].copy_(0.05 + 0.1 * torch.randn(10, 350, generator=generator))
    late = 20.0 * torch.rand(100, 784, generator=generator)
    sends = torch.rand(100, 784, generator=generator) < 0.2
    events = [[(float(t), n) for n, t in enumerate(row) if sends[b, n]] for b, row in enumerate(late)]
    x, labels = adjsnn.SpikeTrains.from_list(events, n_neurons=784, t_max=20.0), torch.arange(100) % 10

    def run() -> object:
        sol = adjsnn.solve(net, x, t_end=30.0)
        return torch.autograd.grad(adjsnn.losses.first_spike_cross_entropy(sol, labels), list(net.w_in))

    return run


def small_lif() -> Callable[[], object]:
    """One sample of a small network: what a solve costs beside its loops."""
    net = adjsnn.LIFNetwork(5, (20, 3), generator=torch.Generator().manual_seed(0))
    x = adjsnn.SpikeTrains.from_list([[(1.0 * k, k) for k in range(5)]], n_neurons=5, t_max=60.0)

    def run() -> object:
        sol = adjsnn.solve(net, x, t_end=60.0)
        return torch.autograd.grad(sol.voltage_max(0).sum() + sol.final_state[1].v.sum(), list(net.w_in), allow_unused=True)

    return run


def small_gated() -> Callable[[], object]:
    net = adjsnn.GatedSynapseNetwork(2, 10, 2, generator=torch.Generator().manual_seed(0))
    u = torch.ones(20, 1, 2)
    return lambda: torch.autograd.grad(adjsnn.solve(net, u, dt=0.5).readout.sum(), [net.w_in, net.w_rec])


class Oscillator(adjsnn.HybridSystem):
    """A driven oscillator, y″ = -k y - c y′, that may be kicked back at y = 1."""

    def __init__(self, kicked: bool) -> None:
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.c = torch.nn.Parameter(torch.tensor(0.05, dtype=torch.float64))
        self.kicked = kicked

    def vector_field(self, t, y, u):
        del t, u
        return torch.stack([y[:, 1], -self.k * y[:, 0] - self.c * y[:, 1] + 0.5], 1)

    def guard(self, t, y):
        del t
        return y[:, :1] - 1.0 if self.kicked else None

    def jump(self, t, y, fired):
        del t
        return torch.where(fired[:, :1], torch.stack([0.5 * y[:, 0], y[:, 1]], 1), y)


def hybrid(kicked: bool, method: str, adjoint: Any = None) -> Callable[[], object]:
    system, ts = Oscillator(kicked), torch.linspace(0.0, 10.0, 11, dtype=torch.float64)
    y0 = torch.stack([torch.linspace(0.0, 0.5, 16), torch.zeros(16)], 1).double()

    def run() -> object:
        sol = adjsnn.solve(system, None, y0=y0, ts=ts, method=method, adjoint=adjoint)
        return torch.autograd.grad(sol.y.square().mean(), [system.k, system.c])

    return run


def larger(name: str) -> Callable[[], object]:
    import hybrid_gradient  # noqa: PLC0415 - beside this file, in either checkout

    return lambda: hybrid_gradient.gradient(name, "adjsnn")


CASES: dict[str, Callable[[], Callable[[], object]]] = {
    "gated, Euler": lambda: gated("euler"),
    "gated, Heun": lambda: gated("heun"),
    "gated, Euler, gate width 1": lambda: gated("euler", width=1.0),
    "gated, RK4": lambda: gated("rk4", 200),
    "gated, Heun, gate width 1": lambda: gated("heun", 200, width=1.0),
    "gated, RK4, gate width 1": lambda: gated("rk4", 200, width=1.0),
    'gated, Euler, checkpoints="sqrt"': lambda: gated("euler", adjoint=adjsnn.DiscreteAdjoint(checkpoints="sqrt")),
    "gated, Euler, a price on activity": lambda: gated("euler", price=0.1),
    "gated, Euler, plain": lambda: gated("euler", 100, kernels="plain"),
    "gated, 10 neurons, 20 steps": small_gated,
    "lif, feed-forward": lambda: lif(False),
    "lif, feed-forward, 1500 samples": many_lif,
    "lif, 784-350-10": pictures,
    "lif, recurrent": lambda: lif(True),
    "lif, feed-forward, 60 steps of currents": lambda: lif(False, 60),
    "lif, 23 neurons, one sample": small_lif,
    "hybrid, rk4": lambda: hybrid(False, "rk4"),
    "hybrid, dopri5": lambda: hybrid(False, "dopri5"),
    "hybrid, dopri5, events": lambda: hybrid(True, "dopri5"),
    "hybrid, dopri5, continuous adjoint": lambda: hybrid(False, "dopri5", adjsnn.ContinuousAdjoint()),
    "hybrid, 64 x 32 tanh units, rk4": lambda: larger("rk4"),
    "hybrid, 64 x 32 tanh units, dopri5": lambda: larger("dopri5"),
    "hybrid, 256 balls": lambda: larger("balls"),
    "hybrid, 64 Izhikevich neurons": lambda: larger("izhikevich"),
}


def serve(threads: int) -> None:
    """Answer each case named on stdin with the milliseconds of one gradient."""
    torch.set_num_threads(threads)
    print(Path(adjsnn.__file__).parent.parent, flush=True)
    prepared: dict[str, Callable[[], object]] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in prepared:
            prepared[name] = CASES[name]()
            for _ in range(3):  # compiles, and fills what is recycled
                prepared[name]()
        start = time.perf_counter()
        prepared[name]()
        print(1e3 * (time.perf_counter() - start), flush=True)


class Worker:
    """A process that imports adjsnn from one checkout; the cases are those of this file."""

    def __init__(self, checkout: Path, threads: int) -> None:
        path = os.pathsep.join([str(checkout), str(HERE.parent)])
        command = [sys.executable, str(HERE), "--serve", str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
        )
        assert self.process.stdout is not None
        found = self.process.stdout.readline().strip()
        assert Path(found) == checkout, f"adjsnn came from {found}, not from {checkout}"

    def run(self, name: str) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self) -> None:
        self.process.communicate()


def compared(name: str, here: Worker, other: Worker, rounds: int) -> tuple[float, str]:
    """Median ratio of one case, and the cells of its row."""
    pairs = []
    for k in range(rounds):
        if k % 2:
            theirs, ours = other.run(name), here.run(name)
        else:
            ours, theirs = here.run(name), other.run(name)
        pairs.append((ours, theirs))
    ratios = [a / b for a, b in pairs]
    low, ratio, high = statistics.quantiles(ratios * 2 if len(ratios) == 1 else ratios, n=4)
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    return ratio, f"{ours:.2f} | {theirs:.2f} | {ratio:.3f} | {low:.3f} … {high:.3f}"


def commit(checkout: Path) -> str:
    """The commit that is checked out, and whether files differ from it."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    from adjsnn.numerics.machine import processor  # noqa: PLC0415 - an older checkout, which is served, may lack it

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, nargs="+", default=[2], help="numbers of threads, one after the other")
    parser.add_argument("--only", default="", help="the cases whose name contains this")
    parser.add_argument("--limit", type=float, default=1.03, help="largest median ratio that passes")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/results, which git keeps")
    options = parser.parse_args()
    root, others = HERE.parent.parent, options.other.resolve()
    lines = [
        "# Gradients by two checkouts",
        "",
        f"ms of one gradient at {commit(root)} and at {commit(others)}, in alternation in one run: medians of "
        f"{options.rounds} rounds, the median of the ratios within a round, and their middle half. {processor()}, "
        f"torch {torch.__version__}, {date.today()}. Written by `benchmarks/two_checkouts.py`.",
        "",
        f"| gradient | threads | {commit(root)} | {commit(others)} | ratio | middle half |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    slower = []
    for threads in options.threads:
        here, other = Worker(root, threads), Worker(others, threads)
        for name in (name for name in CASES if options.only in name):
            ratio, cells = compared(name, here, other, options.rounds)
            lines.append(f"| {name} | {threads} | {cells} |")
            print(lines[-1], flush=True)
            slower += [f"{name} on {threads}"] if ratio > options.limit else []
        for worker in (here, other):
            worker.end()
    print(f"\nslower by more than {options.limit - 1:.0%}: {', '.join(slower) or 'none'}")
    if options.write:
        (HERE.parent / "results" / "two_checkouts.md").write_text("\n".join(lines) + "\n")
    return int(bool(slower))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]))
    else:
        sys.exit(main())
