"""One event-exact gradient of a LIF network, by the fused loops and by the plain code, in one run.

    python benchmarks/lif_gradient.py [--threads 2] [--recurrent] [--repeats 50]

Batch 150 of 5-120-3, τ_m = 20, τ_s = 5, five input spikes within 30 ms as in the Yin-Yang task, weights such that there are
about 28,000 hidden spikes in 60 ms; gradient of the first-spike cross-entropy with respect to all weights. The plain code runs
a tenth of the batch, once, and its time is multiplied by ten.
"""

import argparse
import statistics
import time

import torch
from torch import Tensor

import adjsnn
from adjsnn import LIFNetwork, SpikeTrains, losses

BATCH, T_END, INPUT_END = 150, 60.0, 30.0


def problem(recurrent: bool) -> tuple[LIFNetwork, SpikeTrains, Tensor]:
    generator = torch.Generator().manual_seed(0)
    lif = LIFNetwork(5, (120, 3), recurrent=(recurrent, False), generator=generator)
    with torch.no_grad():
        lif.w_in[0].copy_(2.5 + 1.5 * torch.randn(120, 5, generator=generator))
        lif.w_in[1].copy_(0.1 + 0.1 * torch.randn(3, 120, generator=generator))
        if lif.w_rec[0] is not None:
            lif.w_rec[0].copy_(0.1 * torch.randn(120, 120, generator=generator))
    points = torch.rand(BATCH, 2, generator=generator)
    x = SpikeTrains.latency(torch.cat([points, 1.0 - points], 1), INPUT_END, bias=0.0)
    return lif, x, torch.randint(0, 3, (BATCH,), generator=generator)


def gradient(lif: LIFNetwork, x: SpikeTrains, labels: Tensor, kernels: str) -> adjsnn.LIFSolution:
    sol = adjsnn.solve(lif, x, t_end=T_END, kernels=kernels)
    weights = [w for w in (*lif.w_in, *lif.w_rec) if w is not None]
    torch.autograd.grad(losses.first_spike_cross_entropy(sol, labels), weights)
    return sol


def timed(repeats: int, lif: LIFNetwork, x: SpikeTrains, labels: Tensor, kernels: str) -> list[float]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        gradient(lif, x, labels, kernels)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--recurrent", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lif, x, labels = problem(options.recurrent)
    stats = gradient(lif, x, labels, "fused").stats  # compiles
    few = SpikeTrains(x.idx[: BATCH // 10], x.time[: BATCH // 10], x.n_neurons, x.t_max)
    fused = timed(options.repeats, lif, x, labels, "fused")
    plain = 10 * min(timed(1, lif, few, labels[: BATCH // 10], "plain"))
    print(f"{stats.spikes[0]} hidden and {stats.spikes[1]} output spikes, {stats.stored_bytes / 1e6:.1f} MB stored")
    median = statistics.median(fused)
    print(f"fused loops, {options.threads} threads: median {median:.1f} ms, fastest {min(fused):.1f} ms, of {options.repeats}")
    print(f"plain code: {plain:.0f} ms, {plain / median:.0f} times as long")


if __name__ == "__main__":
    main()
