"""A balanced random network after Brunel (2000): seconds, memory and ns per arrival of a solve and of its gradient.

N neurons, 80 % excitatory and 20 % inhibitory, each with as many random recurrent synapses of one delay, and driven by
Poisson trains; one thread. `--sizes` runs several N at about the same rates, each in a process of its own, and prints the
exponent of seconds in arrivals. Seconds are of the processor, which other programs lengthen less than those of the clock.

    python benchmarks/balanced_network.py --neurons 10000 --in-degree 1000 --ms 500
    python benchmarks/balanced_network.py --sizes 1000,2000,4000
"""

import argparse
import math
import multiprocessing
import resource
import time
from typing import NamedTuple

import numpy as np
import torch

from adjsnn.lif.cpu import glif_loops
from adjsnn.lif.glif.arrays import GLIF, GLIFCotangents, GLIFRun, GLIFState, Neurons, Wiring
from adjsnn.lif.layer import Events, Trial

TAU_MEM, TAU_SYN, REFRACTORY, DELAY = 20.0, 2.0, 2.0, 1.5  # ms; the threshold is 1
EXTERNAL = 100  # Poisson sources of each neuron, out of as many as ten neurons have
INHIBITION = 5.0  # of an inhibitory synapse, times an excitatory one


class Figures(NamedTuple):
    """What a run took.

    Attributes:
        arrivals: of spikes at neurons.
        rate: of the neurons, Hz.
        seconds: of the solve and of the gradient.
        bytes: the most memory of the process after building the network, after the solve and after the gradient.
    """

    arrivals: int
    rate: float
    seconds: tuple[float, float]
    bytes: tuple[int, int, int]


def network(n: int, in_degree: int, rng: np.random.Generator) -> GLIF:
    """The network as arrays; a presynaptic neuron's targets are drawn, so that in-degrees are binomial about their mean."""
    ones, none = np.ones(n), np.zeros((0, n))
    neurons = Neurons(
        ones / TAU_MEM, ones / TAU_MEM, 0.0 * ones, ones, 0.0 * ones, 0.0 * ones, REFRACTORY * ones,
        np.stack([ones / TAU_SYN]), none, none, none, none, none,
    )  # fmt: skip
    weight = 4.0 / math.sqrt(in_degree)  # a current; fluctuations do not depend on the in-degree
    own = np.where(np.arange(n) < 0.8 * n, weight, -INHIBITION * weight)
    outside = random_wiring(10 * EXTERNAL, n, EXTERNAL, 0.0, np.full(10 * EXTERNAL, 0.4), rng)
    return GLIF(neurons, outside, random_wiring(n, n, in_degree, DELAY, own, rng))


def random_wiring(m: int, n: int, in_degree: int, delay: float, weight: np.ndarray, rng: np.random.Generator) -> Wiring:
    """m sources, each with n in_degree / m random targets, all of one weight and delay."""
    out = n * in_degree // m
    post = np.concatenate([np.sort(rng.choice(n, out, replace=False)) for _ in range(m)])
    edge = out * np.arange(m + 1)
    return Wiring(np.arange(m + 1), np.full(m, delay), edge, post, np.zeros(m * out, np.int64), np.repeat(weight, out))


def poisson(m: int, hz: float, ms: float, rng: np.random.Generator) -> Events:
    """Spikes of m sources in one sample."""
    count = rng.poisson(m * hz * ms / 1000.0)
    return Events(np.array([0, count]), np.sort(rng.uniform(0.0, ms, count)), rng.integers(0, m, count))


def arrivals_of(layer: GLIF, inputs: Events, run: GLIFRun) -> int:
    """Arrivals, including those that would come after the end."""
    return int(
        sum(np.diff(w.edge)[spikes.neuron].sum() for w, spikes in ((layer.incoming, inputs), (layer.recurrent, run.spikes)))
    )


def measure(n: int, in_degree: int, ms: float, hz: float, seed: int, rates: bool) -> Figures:
    """Solve the network and differentiate the sum of its spike times, weighted at random."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    layer = network(n, in_degree, rng)
    inputs = poisson(10 * EXTERNAL, hz, ms, rng)
    small = network(10, 2, rng)._replace(
        incoming=random_wiring(10 * EXTERNAL, 10, EXTERNAL, 0.0, np.full(10 * EXTERNAL, 0.4), rng)
    )
    marks, seconds = [], []
    for solved, spikes, until in (
        (small, poisson(10 * EXTERNAL, hz, 5.0, rng), 5.0),
        (layer, inputs, ms),
    ):  # the first compiles
        start = GLIFState(rng.uniform(0.0, 1.0, (1, len(solved.neurons.bias))), *zeros(len(solved.neurons.bias)))
        trial = Trial(0, until, np.zeros(0), 1 << 30, np.zeros((0, *start.v.shape)), np.zeros(0))
        marks, begun = [peak()], time.process_time()
        run = glif_loops.forward(solved, spikes, start, trial)
        marks.append(peak())
        half = time.process_time()
        cotangents = GLIFCotangents(rng.standard_normal(len(run.spikes.time)), None, None, None)
        glif_loops.backward(solved, spikes, start, trial, run, cotangents, rates)
        marks.append(peak())
        seconds = [half - begun, time.process_time() - half]
    rate = 1000.0 * len(run.spikes.time) / (n * ms)
    return Figures(arrivals_of(layer, inputs, run), rate, (seconds[0], seconds[1]), (marks[0], marks[1], marks[2]))


def zeros(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Currents and thresholds at the start."""
    return np.zeros((1, 1, n)), np.zeros((1, 0, n))


def peak() -> int:
    """The most memory that this process had."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--neurons", type=int, default=10_000)
    options.add_argument("--in-degree", type=int, default=0, help="a tenth of the neurons unless given")
    options.add_argument("--ms", type=float, default=500.0)
    options.add_argument("--hz", type=float, default=15.0, help="of each Poisson source")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--sizes", default="", help="numbers of neurons, with commas between")
    options.add_argument("--rates", action="store_true", help="gradients of time constants too")
    args = options.parse_args()
    points = []
    for n in [int(x) for x in args.sizes.split(",")] if args.sizes else [args.neurons]:
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # so that each has a peak of its own
            in_degree = args.in_degree or n // 10
            x: Figures = pool.apply(measure, (n, in_degree, args.ms, args.hz, args.seed, args.rates))
        each = [1e9 * s / x.arrivals for s in x.seconds]
        points.append((math.log(x.arrivals), [math.log(s) for s in x.seconds]))
        gb = [b / 1e9 for b in x.bytes]
        print(f"{n} neurons, in-degree {in_degree}, {args.ms:g} ms, {x.rate:.1f} Hz, {x.arrivals:.3g} arrivals:", flush=True)
        print(f"  forward  {x.seconds[0]:7.2f} s {each[0]:6.0f} ns per arrival, peak {gb[1]:.2f} GB ({gb[0]:.2f} GB before)")
        print(f"  backward {x.seconds[1]:7.2f} s {each[1]:6.0f} ns per arrival, peak {gb[2]:.2f} GB", flush=True)
    if len(points) > 1:
        for k, name in enumerate(("forward", "backward")):
            slope = np.polyfit([p[0] for p in points], [p[1][k] for p in points], 1)[0]
            print(f"seconds of {name} ~ arrivals^{slope:.2f}")


if __name__ == "__main__":
    main()
