"""LIF and gated networks and equations on a GPU: checked against the plain code, then timed beside this machine's CPU.

    python benchmarks/gpu.py [--rounds 10] [--write]
    python benchmarks/gpu.py --simulate            the check alone, in numba's simulator, where there is no GPU

The LIF problem is that of lif_gradient.py: 5-120-3, 60 ms, about 190 hidden spikes in a sample, gradient of the first-spike
cross-entropy with respect to all weights; feed-forward with 15,000 samples at once, recurrent with 1,500. The gated one is that
of gated_gradient.py: 128 QIF neurons, 1000 Euler steps, float32, with 1,024 samples at once. The equations are those of 10,000
Izhikevich neurons with a drive that is held for 10 ms, 200 ms by dopri5 at 1e-5, gradient of end states and spike times with
respect to a, b and d. The first call compiles. Medians, the GPU waited for at both ends of a measurement. The check comes
first: a fast wrong number is none.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gated_gradient
import lif_gradient
import torch
from torch import Tensor

import adjsnn
from adjsnn import SpikeTrains, losses
from adjsnn.numerics.machine import processor

RESULT = Path(__file__).parent / "results" / "gpu.md"
SIZES = {False: 15_000, True: 1_500}  # samples, feed-forward and recurrent
LIF = {False: "LIF, feed-forward", True: "LIF, recurrent"}
CHECKED, TINY = 20, 1  # samples of the check on a GPU, and in the simulator
ALLOWED = 1e-10  # relative, between bodies that both compute in float64
GATED_SIZE = 1_024  # samples
GATED_METHODS = ("euler", "heun", "rk4")  # checked; Euler steps are timed
# Neurons, samples and steps of the check, few enough that a chaotic network does not amplify rounding; in the simulator
# as few as spike.
GATED_CHECKED, GATED_TINY = (gated_gradient.N, 20, 100), (5, 1, 40)
EQUATIONS = "equations, Izhikevich"
EQUATIONS_SIZE, EQUATIONS_CHECKED, EQUATIONS_TINY = (10_000, 20), (20, 20), (2, 3)  # samples, and drives of 10 ms
EQUATIONS_ALLOWED = 1e-6  # states and times of steps whose lengths follow an error that is rounded otherwise
Kernels = Literal["cuda", "fused", "plain"]


class Timed(NamedTuple):
    """Seconds of the first gradient, and medians of a forward run and of a whole gradient; peak memory in bytes."""

    first: float
    forward: float
    whole: float
    peak: int
    spikes: int


def placed(recurrent: bool, batch: int, device: str, dtype: torch.dtype, hidden: int = lif_gradient.HIDDEN) -> Any:
    """The problem on a device."""
    lif, x, labels = lif_gradient.problem(recurrent, batch, hidden)
    inputs = SpikeTrains(x.idx.to(device), x.time.to(device, dtype), x.n_neurons, x.t_max)
    return lif.to(device, dtype), inputs, labels.to(device)


def solved(case: Any, kernels: Kernels) -> tuple[adjsnn.LIFSolution, list[Tensor]]:
    """Solution, and gradients of all weights."""
    lif, x, labels = case
    sol = adjsnn.solve(lif, x, t_end=lif_gradient.T_END, kernels=kernels)
    weights = [w for w in (*lif.w_in, *lif.w_rec) if w is not None]
    return sol, list(torch.autograd.grad(losses.first_spike_cross_entropy(sol, labels), weights))


def disagreement(recurrent: bool, device: str, batch: int, hidden: int) -> float:
    """Largest relative difference between GPU and plain code, of spike times and gradients; inf if spikes differ."""
    found = solved(placed(recurrent, batch, device, torch.float64, hidden), "cuda")
    expected = solved(placed(recurrent, batch, "cpu", torch.float64, hidden), "plain")
    worst = 0.0
    for k in range(2):
        ours, truth = found[0].layer_spikes[k], expected[0].layer_spikes[k]
        if not torch.equal(ours.idx.cpu(), truth.idx):
            return float("inf")
        worst = max(worst, _relative(ours.time, truth.time))
    return max(worst, *(_relative(a, b) for a, b in zip(found[1], expected[1], strict=True)))


def gated_placed(device: str, dtype: torch.dtype, n: int, batch: int, steps: int) -> tuple[adjsnn.GatedSynapseNetwork, Tensor]:
    """The gated problem on a device."""
    net, u = gated_gradient.problem(dtype, n, batch, steps)
    return net.to(device), u.to(device)


def gated_solved(case: tuple[adjsnn.GatedSynapseNetwork, Tensor], kernels: Kernels, method: str = "euler") -> list[Tensor]:
    """Readout, and gradients of all weights."""
    net, u = case
    sol = adjsnn.solve(net, u, dt=gated_gradient.DT, kernels=kernels, method=method)
    return [sol.readout, *torch.autograd.grad(sol.readout.square().mean(), gated_gradient.weights(net))]


def gated_disagreement(method: str, device: str, sizes: tuple[int, int, int]) -> float:
    """Largest relative difference between GPU and plain code, of the readout and gradients."""
    found = gated_solved(gated_placed(device, torch.float64, *sizes), "cuda", method)
    expected = gated_solved(gated_placed("cpu", torch.float64, *sizes), "plain", method)
    return max(_relative(a, b) for a, b in zip(found, expected, strict=True))


def equations_placed(device: str, batch: int, drives: int) -> tuple[adjsnn.Equations, Tensor, Tensor]:
    """Izhikevich neurons on a device, where they start, and their drive."""
    system = adjsnn.Equations(
        "dv/dt = 0.04*v**2 + 5*v + 140 - w + I\ndw/dt = a*(b*v - w)",
        threshold="v > 30",
        reset="v = -65; w += d",
        parameters={"a": 0.02, "b": 0.2, "d": 8.0},
        inputs=("I",),
        learn=("a", "b", "d"),
        dtype=torch.float64,
    )
    u = 8.0 + 6.0 * torch.rand(drives, batch, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return system.to(device), system.start(batch, v=-65.0, w=-13.0).to(device), u.to(device)


def equations_solved(case: tuple[adjsnn.Equations, Tensor, Tensor], kernels: Kernels) -> Any:
    """The solution."""
    system, y0, u = case
    return adjsnn.solve(system, u, dt=10.0, method="dopri5", rtol=1e-5, y0=y0, kernels=kernels)


def equations_whole(case: tuple[adjsnn.Equations, Tensor, Tensor], kernels: Kernels) -> list[Tensor]:
    """States, spike times, and gradients of all parameters."""
    sol = equations_solved(case, kernels)
    times = torch.where(sol.event_index >= 0, sol.event_times, 0.0)
    return [sol.y, times, *torch.autograd.grad(sol.y[-1].mean() + times.mean(), list(case[0].parameters()))]


def equations_disagreement(device: str, sizes: tuple[int, int]) -> float:
    """Largest relative difference between GPU and plain code, of states, spike times and gradients."""
    found = equations_whole(equations_placed(device, *sizes), "cuda")
    expected = equations_whole(equations_placed("cpu", *sizes), "plain")
    return max(_relative(a, b) if a.shape == b.shape else float("inf") for a, b in zip(found, expected, strict=True))


def equations_timed(device: str, kernels: Kernels, rounds: int) -> Timed:
    """The Izhikevich neurons."""
    case = equations_placed(device, *EQUATIONS_SIZE)
    return timed(
        case[1],
        lambda: equations_solved(case, kernels),
        lambda: equations_whole(case, kernels),
        rounds,
        lambda sol: int((sol.event_index >= 0).sum()),
    )


def _relative(found: Tensor, expected: Tensor) -> float:
    a, b = (x.detach().cpu()[expected.detach().cpu().isfinite()] for x in (found, expected))
    return float((a - b).abs().max() / b.abs().max()) if b.numel() else 0.0


def _network_spikes(sol: Any) -> int:
    return sum(sol.stats.layer_spikes)


def timed(
    case: Any,
    forward: Callable[[], Any],
    whole: Callable[[], object],
    rounds: int,
    spikes_of: Callable[[Any], int] = _network_spikes,
) -> Timed:
    """One problem on one machine.

    Args:
        case: a tensor of the problem, which tells the machine.
        forward: solves it.
        whole: differentiates it too.
        rounds: of which medians are taken.
        spikes_of: a solution.
    """
    on_gpu = case.device.type != "cpu"

    def clocked(run: Callable[[], object]) -> float:
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    first = clocked(whole)
    forwards = [clocked(forward) for _ in range(rounds)]
    wholes = [clocked(whole) for _ in range(rounds)]
    spikes = spikes_of(forward())
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    return Timed(first, statistics.median(forwards), statistics.median(wholes), peak, spikes)


def lif_timed(recurrent: bool, device: str, kernels: Kernels, rounds: int) -> Timed:
    """The LIF problem, float32 parameters."""
    case = placed(recurrent, SIZES[recurrent], device, torch.float32)
    lif, x, _ = case
    return timed(
        x.time,
        lambda: adjsnn.solve(lif, x, t_end=lif_gradient.T_END, kernels=kernels),
        lambda: solved(case, kernels),
        rounds,
    )


def gated_timed(device: str, kernels: Kernels, rounds: int) -> Timed:
    """The gated problem by Euler steps, float32."""
    case = gated_placed(device, torch.float32, gated_gradient.N, GATED_SIZE, gated_gradient.STEPS)
    net, u = case
    return timed(
        u,
        lambda: adjsnn.solve(net, u, dt=gated_gradient.DT, kernels=kernels),
        lambda: gated_solved(case, kernels),
        rounds,
    )


def page(checks: dict[str, float], rows: dict[str, tuple[int, Timed, Timed]]) -> str:
    """The table: of each network its samples, and what the GPU and the CPU took."""
    lines = [
        "# LIF and gated networks and equations on a GPU",
        "",
        f"{torch.cuda.get_device_name()}, beside {processor()} with {torch.get_num_threads()} threads; "
        f"torch {torch.__version__}, adjsnn {adjsnn.__version__}, {date.today()}. Written by `benchmarks/gpu.py`.",
        "",
        "| network | samples | spikes | first gradient s | forward ms | gradient ms | spikes/s | GPU memory MB "
        "| CPU gradient ms | CPU / GPU | off from the plain code by |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, (samples, gpu, cpu) in rows.items():
        lines.append(
            f"| {name} | {samples} | {gpu.spikes} | {gpu.first:.1f} "
            f"| {1e3 * gpu.forward:.1f} | {1e3 * gpu.whole:.1f} | {gpu.spikes / gpu.whole:.2e} | {gpu.peak / 1e6:.0f} "
            f"| {1e3 * cpu.whole:.0f} | {cpu.whole / gpu.whole:.1f} | {checks[name]:.1e} |"
        )
    return "\n".join([*lines, ""])


def checked(simulate: bool) -> dict[str, float]:
    """How far each body for a GPU is off from the plain code, printed as it is found."""
    device, batch, hidden = ("cpu", TINY, 4) if simulate else ("cuda", CHECKED, lif_gradient.HIDDEN)
    sizes = GATED_TINY if simulate else GATED_CHECKED
    checks: dict[str, float] = {}
    for name, check in {
        **{LIF[recurrent]: lambda recurrent=recurrent: disagreement(recurrent, device, batch, hidden) for recurrent in SIZES},
        **{f"gated, {method}": lambda method=method: gated_disagreement(method, device, sizes) for method in GATED_METHODS},
        EQUATIONS: lambda: equations_disagreement(device, EQUATIONS_TINY if simulate else EQUATIONS_CHECKED),
    }.items():
        checks[name] = check()
        print(f"{name}: off from the plain code by {checks[name]:.1e}", flush=True)
    return checks


def main() -> int:
    parser = argparse.ArgumentParser(description="LIF and gated networks on a GPU, checked and timed.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--simulate", action="store_true", help="check in numba's simulator; nothing is timed")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/results, which git keeps")
    options = parser.parse_args()
    if not options.simulate and not torch.cuda.is_available():
        print("No GPU here: nothing is timed and no page written. --simulate checks the loops without one.")
        return 0
    if options.simulate:
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"  # read when numba is imported, which is at the first solve
        sys.setswitchinterval(1e-6)  # its threads wait for each other actively, so they are to be few
        from adjsnn.gated.cuda import run  # noqa: PLC0415  after what is said above of numba

        run.WIDTH = run.WARP = 2
    checks = checked(options.simulate)
    if not all(off <= (EQUATIONS_ALLOWED if name == EQUATIONS else ALLOWED) for name, off in checks.items()):
        print(f"The loops for a GPU are wrong: more than {ALLOWED:g}, of equations {EQUATIONS_ALLOWED:g}.", file=sys.stderr)
        return 1
    if options.simulate:
        return 0
    rows = {
        LIF[recurrent]: (
            samples,
            lif_timed(recurrent, "cuda", "cuda", options.rounds),
            lif_timed(recurrent, "cpu", "fused", 3),
        )
        for recurrent, samples in SIZES.items()
    }
    rows["gated, euler"] = GATED_SIZE, gated_timed("cuda", "cuda", options.rounds), gated_timed("cpu", "fused", 3)
    rows[EQUATIONS] = EQUATIONS_SIZE[0], equations_timed("cuda", "cuda", options.rounds), equations_timed("cpu", "fused", 3)
    table = page(checks, rows)
    print(table)
    if options.write:
        RESULT.write_text(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
