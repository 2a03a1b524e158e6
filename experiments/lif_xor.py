"""Delayed-memory XOR with LIF neurons that jump, with and without slow synapses; trials as in `delayed_xor.py`.

    python experiments/lif_xor.py                       half of the neurons have synapses of 150 ms
    python experiments/lif_xor.py --slow-share 0        none has

What is trained on are exact integrals of the readout; sums over its samples would have another gradient.
"""

import math
import time
from copy import deepcopy
from dataclasses import dataclass, replace

import delayed_xor
import torch
import tyro
from delayed_xor import Trials, draw_trials
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import adjsnn

THRESHOLD = 0.25  # of the mean readout in the answer, half of that of a right answer
HELD_OUT = 2000


@dataclass(frozen=True)
class Config:
    """Delayed-memory XOR with LIF neurons. Times in ms."""

    seed: int = 0
    neurons: int = 60
    tau_mem: float = 20.0
    tau_out: float = 20.0
    tau_syn: float = 20.0
    tau_slow: float = 150.0
    slow_share: float = 0.5
    """share of the neurons whose synapses have tau_slow"""
    bias_start: float = 1.0
    bias_spread: float = 0.3
    """mean and standard deviation of the bias: about half of the neurons fire without input"""
    w_in_start: float = 1.5
    w_out_start: float = 0.3
    charge_start: float = 20.0
    """standard deviation of ∫ i dt of a recurrent spike, times √neurons"""
    slow_charge: float = 2.0
    """the same of slow synapses, over that of fast ones"""
    dt: float = 2.0
    delay: tuple[float, float] = (20.0, 150.0)
    gap: tuple[float, float] = (20.0, 60.0)
    mastered: float = 0.85
    """share of right answers in training (a running mean) from which delays and gaps get longer, from the shortest on"""
    longer: float = 0.02
    """by how much of their range in each iteration"""
    iterations: int = 300
    batch: int = 32
    learning_rate: float = 0.01
    clip: float = 1.0
    sharpness: float = 10.0
    """of the softmax over classes, one over the readout"""
    error_weight: float = 1.0
    activity_cost: float = 0.1
    activity_tau: float = 50.0
    log_every: int = 25


def lif_network(config: Config, channels: int) -> adjsnn.LIFNetwork:
    """Random start. Slow synapses come first, so that neighbours share their time constant and the loops their exponentials.

    Recurrent weights start strong enough for the network to carry on by itself: from weaker ones nothing of the first pulse is
    left when the cue comes, and there is no gradient towards remembering it.
    """
    generator = torch.Generator().manual_seed(config.seed)
    slow = round(config.slow_share * config.neurons)
    tau_syn = torch.full((config.neurons,), config.tau_syn)
    tau_syn[:slow] = config.tau_slow
    net = adjsnn.LIFNetwork(
        channels, (config.neurons,), recurrent=True, tau_mem=config.tau_mem, tau_syn=tau_syn, bias=True, n_out=1,
        tau_out=config.tau_out,
    )  # fmt: skip
    with torch.no_grad():
        for parameter, size in sizes(net, config):
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
        net.bias[0].add_(config.bias_start)
    return net


def sizes(net: adjsnn.LIFNetwork, config: Config) -> list[tuple[nn.Parameter, Tensor]]:
    """Learnt parameters, and the standard deviations of their entries at the start, in units of which the optimiser steps."""
    w_out, w_rec = net.w_out, net.w_rec[0]
    assert w_out is not None
    assert w_rec is not None
    slow = torch.arange(config.neurons) < round(config.slow_share * config.neurons)
    charge = config.charge_start / config.neurons**0.5 * torch.where(slow, config.slow_charge, 1.0)
    return [
        (net.w_in[0], torch.tensor(config.w_in_start)),
        (w_out, torch.tensor(config.w_out_start)),
        (w_rec, (charge / net.tau_syn[0].detach())[:, None]),
        (net.bias[0], torch.tensor(config.bias_spread)),
    ]


def mean_answer(sol: adjsnn.LIFSolution, trials: Trials, task: delayed_xor.Config) -> Tensor:
    """Mean readout in the answer of each trial, (B,): an exact integral, which changes smoothly with every spike time."""
    start = trials.starts[:, 2] + task.reaction
    return sol.readout_integral(start, start + task.answer)[:, 0] / task.answer


def decide(mean: Tensor) -> Tensor:
    """Class of each trial, as in `delayed_xor`."""
    return torch.where(mean > THRESHOLD, 0, torch.where(mean < -THRESHOLD, 1, 2))


def cost_of(sol: adjsnn.LIFSolution, trials: Trials, config: Config, task: delayed_xor.Config) -> Tensor:
    """Mean over trials of: cross-entropy of the mean answer, error of the readout throughout, price of activity.

    The classes' scores m, -m and the threshold are such that the largest is the class that is decided on. The error in the
    answer alone would have to overcome a plateau where the readout is zero.
    """
    mean = mean_answer(sol, trials, task)
    scores = torch.stack([mean, -mean, torch.full_like(mean, THRESHOLD)], dim=1)
    wrong = cross_entropy(config.sharpness * scores, trials.labels, reduction="none")
    error = sol.readout_error(trials.target) / task.answer
    activity = sol.squared_rate(config.activity_tau).mean(1) / 60.0**2
    return (wrong + config.error_weight * error + config.activity_cost * activity).mean()


@torch.no_grad()
def evaluate(net: adjsnn.LIFNetwork, trials: Trials, config: Config, task: delayed_xor.Config) -> dict[str, float]:
    sol = adjsnn.solve(net, trials.u, dt=config.dt)
    right = decide(mean_answer(sol, trials, task)) == trials.labels
    found = {"accuracy": float(right.double().mean())}
    for k, name in enumerate(delayed_xor.CLASSES):
        found[name] = float(right[trials.labels == k].double().mean())
    found["spikes_per_s"] = sol.stats.spikes[0] / (len(trials.labels) * config.neurons * sol.t_end / 1000.0)
    return found


class Lengthening:
    """Delays and gaps start at their shortest and get longer, up to all of their range, while most answers are right."""

    def __init__(self, config: Config) -> None:
        self.config, self.part, self.right = config, 0.0, 0.0

    def task(self, base: delayed_xor.Config) -> delayed_xor.Config:
        def shortened(bounds: tuple[float, float]) -> tuple[float, float]:
            steps = round((bounds[0] + self.part * (bounds[1] - bounds[0])) / self.config.dt)
            return bounds[0], steps * self.config.dt

        return replace(base, delay=shortened(self.config.delay), gap=shortened(self.config.gap))

    def saw(self, right: float) -> None:
        self.right = 0.9 * self.right + 0.1 * right
        if self.right > self.config.mastered:
            self.part = min(1.0, self.part + self.config.longer)


def train(net: adjsnn.LIFNetwork, config: Config, task: delayed_xor.Config) -> adjsnn.LIFNetwork:
    """Train; returns the network that was best on validation trials."""
    parameters = sizes(net, config)
    scaled = [(p.detach() / size).requires_grad_() for p, size in parameters]  # in units of their sizes
    optimiser = torch.optim.Adam(scaled, lr=config.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda i: min(1.0, (i + 1) / 20) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * i / config.iterations))),
    )
    validation = draw_trials(task, 500, torch.Generator().manual_seed(config.seed + 1_000_000))
    generator, lengthening = torch.Generator().manual_seed(config.seed), Lengthening(config)
    best, kept, started = -1.0, deepcopy(net), time.perf_counter()
    for iteration in range(config.iterations + 1):
        if iteration % config.log_every == 0 or iteration == config.iterations:
            found = evaluate(net, validation, config, task)
            if found["accuracy"] >= best:
                best, kept = found["accuracy"], deepcopy(net)
            row = " ".join(f"{name} {x:.3f}" for name, x in found.items())
            print(f"{iteration} delays {lengthening.part:.2f} {row} {time.perf_counter() - started:.0f} s", flush=True)
        now = lengthening.task(task)
        trials = draw_trials(now, config.batch, generator)
        sol = adjsnn.solve(net, trials.u, dt=config.dt, ts=torch.arange(len(trials.u) + 1) * config.dt)
        net.zero_grad()
        cost_of(sol, trials, config, now).backward()
        lengthening.saw(float((decide(mean_answer(sol, trials, now).detach()) == trials.labels).double().mean()))
        for x, (parameter, size) in zip(scaled, parameters, strict=True):
            x.grad = None if parameter.grad is None else parameter.grad * size
        nn.utils.clip_grad_norm_(scaled, config.clip)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            for x, (parameter, size) in zip(scaled, parameters, strict=True):
                parameter.copy_(x * size)
    return kept


def main(config: Config) -> None:
    torch.set_num_threads(1)
    task = delayed_xor.Config(seed=config.seed, dt=config.dt, delay=config.delay, gap=config.gap)
    started = time.perf_counter()
    net = train(lif_network(config, 2), config, task)
    seconds = time.perf_counter() - started
    held_out = draw_trials(task, HELD_OUT, torch.Generator().manual_seed(config.seed + 2_000_000))
    print(f"seed {config.seed}: held out", evaluate(net, held_out, config, task), f"{seconds:.0f} s")


if __name__ == "__main__":
    main(tyro.cli(Config))
