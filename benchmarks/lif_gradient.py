"""Event-exact gradients of LIF networks: time, scaling, memory, and error over long trials.

    python benchmarks/lif_gradient.py [--threads 2] [--repeats 50] [--quick]

Batch 150 of 5-120-3, τ_m = 20, τ_s = 5, five input spikes within 30 ms as in the Yin-Yang task, weights such that there are
about 28,000 hidden spikes in 60 ms; gradient of the first-spike cross-entropy with respect to all weights, float32 parameters.
The plain code runs a tenth of the batch, once, and its time is multiplied by ten. Time constants of each neuron, scaling,
memory and long trials are described with their tables, the first alone by --constants; other libraries are measured beside
adjsnn by `peers.py`. --quick writes nothing.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Literal

import psutil
import torch
from torch import Tensor

import adjsnn
from adjsnn import LIFNetwork, SpikeTrains, losses
from adjsnn.training.runs import processor

BATCH, HIDDEN, T_END, INPUT_END = 150, 120, 60.0, 30.0
EPOCH = 5000  # samples
RESULTS = Path(__file__).parent / "results"
Problem = tuple[LIFNetwork, SpikeTrains, Tensor]


def problem(recurrent: bool, batch: int = BATCH, hidden: int = HIDDEN, trials: int = 1) -> Problem:
    """Network, input spikes and labels; `trials` of the inputs one after the other, each T_END long."""
    generator = torch.Generator().manual_seed(0)
    lif = LIFNetwork(5, (hidden, 3), recurrent=(recurrent, False), generator=generator)
    with torch.no_grad():
        lif.w_in[0].copy_(2.5 + 1.5 * torch.randn(hidden, 5, generator=generator))
        lif.w_in[1].copy_((0.1 + 0.1 * torch.randn(3, hidden, generator=generator)) * HIDDEN / hidden)
        if lif.w_rec[0] is not None:
            lif.w_rec[0].copy_(0.1 * torch.randn(hidden, hidden, generator=generator) * (HIDDEN / hidden) ** 0.5)
    points = torch.rand(batch, 2, generator=generator)
    x = SpikeTrains.latency(torch.cat([points, 1.0 - points], 1), INPUT_END, bias=0.0)
    time = torch.cat([x.time + k * T_END for k in range(trials)], 1)
    labels = torch.randint(0, 3, (batch,), generator=generator)
    return lif, SpikeTrains(x.idx.repeat(1, trials), time, 5, trials * T_END), labels


def with_own_constants(case: Problem, names: Sequence[str]) -> Problem:
    """The same problem with time constants of each neuron its own, within a fifth of what they were; their names."""
    lif, x, labels = case
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name in names:
            for tau in getattr(lif, name):
                tau.mul_(0.8 + 0.4 * torch.rand(tau.shape, generator=generator))
    return lif, x, labels


def gradient(
    case: Problem, kernels: Literal["fused", "plain"] = "fused", *, every: bool = False, steps: int = 0, learnt: bool = False
) -> adjsnn.LIFSolution:
    """One gradient.

    Args:
        learnt: whether time constants are learnt beside the weights.
        every: whether the loss hears of every output spike, so that the adjoint comes back through the whole of a long trial.
        steps: of a weak analog current that is added to the input spikes.
    """
    lif, x, labels = case
    t_end = T_END * max(1, round(x.t_max / T_END))
    options = {"currents": torch.full((steps, x.batch, 5), 0.01), "dt": t_end / steps} if steps else {}
    sol = adjsnn.solve(lif, x, t_end=t_end, kernels=kernels, **options)
    weights = [w for w in (*lif.w_in, *lif.w_rec) if w is not None]
    weights += [*lif.tau_mem, *lif.tau_syn] if learnt else []
    loss = losses.first_spike_cross_entropy(sol, labels)
    torch.autograd.grad(loss + 1e-6 * sol.spike_times().square().mean() if every else loss, weights)
    return sol


def timed(repeats: int, run: Callable[[], object]) -> list[float]:
    """Milliseconds of each repetition."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Slope of the straight line through log time against log size."""
    x, y = [math.log(s) for s in sizes], [math.log(t) for t in times]
    x_mean, y_mean = statistics.mean(x), statistics.mean(y)
    return sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / sum((a - x_mean) ** 2 for a in x)


def speed(repeats: int, quick: bool) -> list[str]:
    """The first table."""
    lines = [
        "## One gradient",
        "",
        "| network | hidden spikes | output spikes | median ms | fastest ms | µs per spike | plain code ms |",
        "|---|---|---|---|---|---|---|",
    ]
    epoch, batches = [math.inf], EPOCH // BATCH + 1
    for recurrent in (False, True):
        case = problem(recurrent)
        stats = gradient(case).stats  # compiles
        times = timed(repeats, lambda case=case: gradient(case))
        part = 1 if quick else BATCH // 10
        few = (case[0], SpikeTrains(case[1].idx[:part], case[1].time[:part], 5, case[1].t_max), case[2][:part])
        plain = BATCH / part * timed(1, lambda few=few: gradient(few, "plain"))[0]
        median = statistics.median(times)
        lines.append(
            f"| {'recurrent' if recurrent else 'feed-forward'} | {stats.spikes[0]} | {stats.spikes[1]} | {median:.1f} "
            f"| {min(times):.1f} | {1e3 * median / sum(stats.spikes):.2f} | {plain:.0f} |"
        )
        if not recurrent:
            epoch = timed(1 if quick else 3, lambda case=case: [gradient(case) for _ in range(batches)])
    lines += ["", f"An epoch of {batches * BATCH} samples, feed-forward: {statistics.median(epoch) / 1000:.2f} s of gradients."]
    return [*lines, ""]


def constants(repeats: int) -> list[str]:
    """What time constants of each neuron cost beside shared ones, all kinds in turn, by the time of the processor."""
    kinds = {"shared": (), "τ_m of each neuron": ("tau_mem",), "τ_m and τ_s of each": ("tau_mem", "tau_syn")}
    lines = [
        "## Time constants of each neuron",
        "",
        "Those of a neuron are within a fifth of the shared ones, so that there are about as many spikes. The kinds take "
        "turns; the ratio is the median of those within a turn, of the processor's time.",
        "",
        "| network | gradient by | time constants | hidden spikes | median ms | of shared ones |",
        "|---|---|---|---|---|---|",
    ]
    for recurrent in (False, True):
        for learnt in (False, True):
            cases = {kind: with_own_constants(problem(recurrent), names) for kind, names in kinds.items()}
            for tau in (tau for lif, *_ in cases.values() for tau in (*lif.tau_mem, *lif.tau_syn)):
                tau.requires_grad_(learnt)
            spikes = {kind: gradient(case, learnt=learnt).stats.spikes[0] for kind, case in cases.items()}  # compiles
            times: dict[str, list[float]] = {kind: [] for kind in kinds}
            for turn in range(repeats):
                for kind in kinds if turn % 2 else reversed(kinds):
                    start = time.process_time()
                    gradient(cases[kind], learnt=learnt)
                    times[kind].append(1e3 * (time.process_time() - start))
            for kind in kinds:
                ratio = statistics.median(a / b for a, b in zip(times[kind], times["shared"], strict=True))
                by = "weights, time constants" if learnt else "weights"
                lines.append(
                    f"| {'recurrent' if recurrent else 'feed-forward'} | {by} | {kind} | {spikes[kind]} "
                    f"| {statistics.median(times[kind]):.1f} | {ratio:.2f} |"
                )
    return [*lines, ""]


def scaling(repeats: int, quick: bool) -> list[str]:
    """Time against what it should be proportional to, with fitted exponents."""
    factors = (1, 2) if quick else (1, 2, 4, 8)
    sweeps: dict[str, Callable[[bool, int], Problem]] = {
        "trial length: spikes and arrivals of a neuron": lambda rec, k: problem(rec, batch=50, trials=k),
        "samples": lambda rec, k: problem(rec, batch=50 * k),
        "hidden neurons, and their spikes": lambda rec, k: problem(rec, batch=50, hidden=60 * k),
    }
    lines = [
        "## Scaling",
        "",
        f"Fastest of {repeats}; sizes grow by {', '.join(map(str, factors))}. The exponent is the slope of log time against "
        "log of the number of spikes. Every arrival is an update of each neuron it reaches: a feed-forward "
        "layer costs neurons times its input spikes, and a recurrent one also neurons times its own spikes: at best exponent 1 "
        "in trial length and samples; in neurons 1 feed-forward, 2 recurrent, once the recurrent arrivals outweigh all else. "
        "The loss hears of every output spike.",
        "",
        "| varied | network | spikes | ms | exponent |",
        "|---|---|---|---|---|",
    ]
    for what, build in sweeps.items():
        for recurrent in (False, True):
            spikes, times = [], []
            for k in factors:
                case = build(recurrent, k)
                spikes.append(sum(gradient(case, every=True).stats.spikes))
                times.append(min(timed(repeats, lambda case=case: gradient(case, every=True))))
            name = "recurrent" if recurrent else "feed-forward"
            lines.append(
                f"| {what} | {name} | {_list(spikes, '.0f')} | {_list(times, '.1f')} | {exponent(spikes, times):.2f} |"
            )
    return [*lines, "", *currents(repeats, quick)]


def currents(repeats: int, quick: bool) -> list[str]:
    """Time against the number of samples of an analog current."""
    lines = [
        "The same network, batch 50, with a weak analog current in more and more steps:",
        "",
        "| network | steps | ms | ms per 100 steps more |",
        "|---|---|---|---|",
    ]
    counts = (60, 120) if quick else (60, 240, 960)
    for recurrent in (False, True):
        case = problem(recurrent, batch=50)
        times = []
        for steps in counts:
            gradient(case, steps=steps)
            times.append(min(timed(repeats, lambda case=case, steps=steps: gradient(case, steps=steps))))
        rates = [100 * (b - a) / (m - n) for a, b, n, m in zip(times, times[1:], counts, counts[1:], strict=False)]
        name = "recurrent" if recurrent else "feed-forward"
        lines.append(f"| {name} | {_list(counts, 'd')} | {_list(times, '.1f')} | {_list(rates, '.2f')} |")
    return [*lines, ""]


def _list(values: Sequence[float], form: str) -> str:
    return ", ".join(f"{x:{form}}" for x in values)


def memory_of(recurrent: bool, batch: int) -> dict[str, float]:
    """In a process of its own: bytes stored and growth of resident memory, its peak and what stays after the forward pass."""
    gradient(problem(recurrent, batch=10))  # compiles
    lif, x, labels = problem(recurrent, batch=batch)
    before = psutil.Process().memory_info().rss
    sol = adjsnn.solve(lif, x, t_end=T_END)
    held = psutil.Process().memory_info().rss - before
    stats = sol.stats
    torch.autograd.grad(losses.first_spike_cross_entropy(sol, labels), list(lif.w_in))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {"spikes": sum(stats.spikes), "stored": stats.stored_bytes, "held": held, "peak": peak}


def memory(threads: int, quick: bool) -> list[str]:
    batch = 300 if quick else 6000
    lines = [
        "## Memory",
        "",
        f"Batch {batch}, one gradient in a process of its own. Stored is what the adjoint reads; resident memory grows also by "
        "the results as tensors and by working memory. A recurrent layer stores its log of all events, each arrival once for "
        "all neurons.",
        "",
        "| network | spikes | stored bytes per spike | resident bytes per spike after the forward pass | at the peak |",
        "|---|---|---|---|---|",
    ]
    for recurrent in (False, True):
        command = [sys.executable, __file__, "--memory", str(batch), "--threads", str(threads)]
        command += ["--recurrent"] if recurrent else []
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        per_spike = [f"{found[name] / found['spikes']:.0f}" for name in ("stored", "held", "peak")]
        name = "recurrent" if recurrent else "feed-forward"
        lines.append(f"| {name} | {found['spikes']:.0f} | {' | '.join(per_spike)} |")
    return [*lines, ""]


def tonic_error(length: float) -> tuple[int, float]:
    """Spikes, and relative error of the last spike's gradient, of neurons that fire by their bias alone over `length` τ_m.

    t_n = τ_m log(b/(b - θ)) + (n - 1)(τ_m log((b - v_r)/(b - θ)) + r), so every derivative is known; dt_n/db comes back through
    all n spikes.
    """
    tau, bias, reset, threshold, refractory = 20.0, 1.5, -0.5, 1.0, 2.0
    learn = ("bias", "tau_mem", "v_th", "v_reset", "refractory")
    lif = LIFNetwork(
        1, (1,), tau_mem=tau, bias=bias, v_reset=reset, v_th=threshold, refractory=refractory, learn=learn, dtype=torch.float64
    )
    x = SpikeTrains.from_list([[]], n_neurons=1, t_max=length * tau, dtype=torch.float64)
    times = adjsnn.solve(lif, x).spike_times()
    n = len(times)
    leaves = [getattr(lif, name)[0] for name in learn]
    found = torch.cat(torch.autograd.grad(times[-1], leaves))
    leaf = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (bias, tau, threshold, reset, refractory)]
    b, tau_m, theta, v_r, r = leaf
    last = tau_m * torch.log(b / (b - theta)) + (n - 1) * (tau_m * torch.log((b - v_r) / (b - theta)) + r)
    expected = torch.stack(torch.autograd.grad(last, leaf))
    return n, float((found - expected).norm() / expected.norm())


def difference_error(length: float, step: float = 1e-5) -> float:
    """Largest relative error by weights and time constants of Σ t, against extrapolated central differences.

    Three neurons, a pair of input spikes at the start and one at the end of a trial of `length` τ_m, silence between.
    """
    lif = LIFNetwork(2, (3,), bias=0.3, dtype=torch.float64, learn=("weights", "tau_mem", "tau_syn"))
    with torch.no_grad():
        lif.w_in[0].copy_(torch.tensor([[7.0, 5.0], [9.0, 4.0], [8.0, 6.0]]))
    t_end = 20.0 * length
    events = [(0.0, 0), (1.0, 1), (t_end - 60.0, 0), (t_end - 58.0, 1)]
    x = SpikeTrains.from_list([events], n_neurons=2, t_max=t_end, dtype=torch.float64)
    leaves = [lif.w_in[0], lif.tau_mem[0], lif.tau_syn[0]]
    start = adjsnn.solve(lif, x).spike_times()
    errors = []
    for leaf, g in zip(leaves, torch.autograd.grad(start.sum(), leaves), strict=True):
        quotients = []
        for h in (step, step / 3):
            ends = []
            for sign in (1.0, -1.0):
                with torch.no_grad():
                    leaf.add_(sign * h * g.sign())
                    ends.append(adjsnn.solve(lif, x).spike_times())
                    leaf.sub_(sign * h * g.sign())
            quotients.append(float((ends[0] - ends[1]).sum()) / (2 * h))
        expected = (9 * quotients[1] - quotients[0]) / 8
        errors.append(abs(float(g.abs().sum()) - expected) / abs(expected))
    return max(errors)


def long_trials(quick: bool) -> list[str]:
    lines = [
        "## Error over long trials",
        "",
        "Float64, τ_m = 20. Tonic: a neuron that fires by its bias alone, gradient of its last spike time against the closed "
        "form. Differences: three neurons with input spikes at both ends of the trial, against central differences, whose own "
        "rounding grows with the spike times they are differences of. The rest is the rounding of the spike times themselves, "
        "5e-13 ms at 4000 ms.",
        "",
        "| T/τ_m | spikes of the tonic neuron | off by (closed form) | off by (differences) |",
        "|---|---|---|---|",
    ]
    for length in (5.0, 200.0) if quick else (5.0, 10.0, 20.0, 40.0, 100.0, 200.0):
        spikes, error = tonic_error(length)
        lines.append(f"| {length:.0f} | {spikes} | {error:.1e} | {difference_error(length):.1e} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="few sizes")
    parser.add_argument("--constants", action="store_true", help="the table of time constants of each neuron alone")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/results, which git keeps")
    parser.add_argument("--memory", type=int, metavar="BATCH", help="measure memory and print JSON; used by the table")
    parser.add_argument("--recurrent", action="store_true", help="with --memory")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        print(json.dumps(memory_of(options.recurrent, options.memory)))
        return
    if options.constants:
        print("\n".join(constants(options.repeats)))
        return
    few = max(1, options.repeats // 5)
    head = [
        "# Gradients of LIF networks, event-exact",
        "",
        f"Batch {BATCH} of 5-{HIDDEN}-3, {T_END:.0f} ms, unless said otherwise. {processor()}, {options.threads} threads, "
        f"torch {torch.__version__}, adjsnn {adjsnn.__version__}, {date.today()}. Written by `benchmarks/lif_gradient.py`.",
        "",
    ]
    first = speed(options.repeats, options.quick)
    rest = [
        *constants(options.repeats),
        *scaling(few, options.quick),
        *memory(options.threads, options.quick),
        *long_trials(options.quick),
    ]
    table = "\n".join([*head, *first, *rest])
    print(table)
    if options.write and not options.quick:
        (RESULTS / "lif_gradient.md").write_text(table)


if __name__ == "__main__":
    main()
