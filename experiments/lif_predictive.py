"""Predictive coding with LIF neurons that jump: the readout of their spikes follows the low-passed input."""

import math
import time
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor

import adjsnn
from adjsnn.losses import normalised_cost
from adjsnn.signals import lowpass, random_sinusoids


@dataclass(frozen=True)
class Config:
    """Predictive coding with LIF neurons. Times in ms."""

    seed: int = 0
    neurons: int = 60
    tau_mem: float = 10.0
    tau_syn: float = 0.5
    tau_out: float = 10.0
    v_reset: float = -1.0
    dt: float = 0.5
    """step of the input and of the target; spikes are located inside"""
    window: float = 60.0
    held_out_window: float = 300.0
    batch: int = 16
    iterations: int = 300
    learning_rate: float = 0.007
    """in units of the sizes below, decayed to 1 % by a half cosine"""
    activity_cost: float = 0.06
    """weight of the mean over neurons of (filtered rate / 60)²"""
    activity_tau: float = 20.0
    clip: float = 0.1
    """largest norm of the gradient by weights in units of the sizes below"""
    w_in_start: float = 25.0
    w_out_start: float = 0.005
    w_rec_start: float = 0.2
    """standard deviations of the random start"""


def lif_network(config: Config, channels: int) -> adjsnn.LIFNetwork:
    """Random start: input weights of their final size, hardly any readout and recurrence, as with gated synapses.

    A reset to -v_th makes the voltage range symmetric around zero: a spike then corrects an error of v_th to one of -v_th.
    """
    generator = torch.Generator().manual_seed(config.seed)
    net = adjsnn.LIFNetwork(
        channels,
        (config.neurons,),
        recurrent=True,
        tau_mem=config.tau_mem,
        tau_syn=config.tau_syn,
        v_reset=config.v_reset,
        bias=True,
        n_out=channels,
        tau_out=config.tau_out,
    )
    with torch.no_grad():
        for name, (weight, _) in weights_of(net, config).items():
            weight.copy_(getattr(config, f"{name}_start", 0.0) * torch.randn(weight.shape, generator=generator))
    return net


def weights_of(net: adjsnn.LIFNetwork, config: Config) -> dict[str, tuple[Tensor, float]]:
    """Weights, and the size of each in a tightly balanced network with spikes of size 0.5 in the readout's filter.

    There W_in = 2 τ_out/a (unit vectors), W_out = a (unit vectors), W_rec = -2 τ_mem/τ_syn (cosine of the angle between two),
    and entries of unit vectors and cosines go as 1/√C with the channels C. The optimiser steps in these units: Adam's steps are
    of one size, these differ by a factor of 80.
    """
    assert net.w_out is not None
    assert net.w_rec[0] is not None
    per_channel = (2.0 / net.n_in) ** 0.5
    return {
        "w_in": (net.w_in[0], 2.0 * config.tau_out * per_channel),
        "w_out": (net.w_out, 0.5 * per_channel),
        "w_rec": (net.w_rec[0], 2.0 * config.tau_mem / config.tau_syn * per_channel),
        "bias": (net.bias[0], 1.0),
    }


def cost_of(sol: adjsnn.LIFSolution, target: Tensor, config: Config) -> Tensor:
    """Mean over samples of the error over that of silence, plus the price of activity."""
    activity = sol.squared_rate(config.activity_tau).mean(1) / 60.0**2
    return (sol.readout_error(target) / sol.error_of_silence(target) + config.activity_cost * activity).mean()


def clip_gradients(weights: dict[str, tuple[Tensor, float]], largest: float) -> float:
    """Scale all gradients alike so that their norm, in units of the weights' sizes, is at most `largest`; returns the norm."""
    gradients = [(weight.grad, size) for weight, size in weights.values() if weight.grad is not None]
    norm = math.sqrt(sum(float((g * size).square().sum()) for g, size in gradients))
    for g, _ in gradients:
        g.mul_(min(1.0, largest / max(norm, 1e-30)))
    return norm


@torch.no_grad()
def evaluate(net: adjsnn.LIFNetwork, u: Tensor, config: Config) -> dict[str, float]:
    sol = adjsnn.solve(net, u, dt=config.dt, ts=torch.arange(len(u) + 1) * config.dt)
    weights = {name: weight for name, (weight, _) in weights_of(net, config).items()}
    off_diagonal = ~torch.eye(config.neurons, dtype=torch.bool)
    predicted = -weights["w_in"] @ weights["w_out"]
    rec = torch.corrcoef(torch.stack([weights["w_rec"][off_diagonal], predicted[off_diagonal]]))[0, 1]
    ends = torch.corrcoef(torch.stack([weights["w_out"].flatten(), weights["w_in"].T.flatten()]))[0, 1]
    return {
        "cost": float(normalised_cost(sol, lowpass(u, config.dt, config.tau_out))),
        "spikes_per_s": sol.stats.spikes[0] / (u.shape[1] * config.neurons * sol.t_end / 1000.0),
        "corr_rec": float(rec),
        "corr_in_out": float(ends),
        "silent_neurons": sol.stats.silent_neurons[0],
    }


def signals(config: Config, duration: float, batch: int, generator: torch.Generator) -> Tensor:
    return random_sinusoids(round(duration / config.dt), batch, 2, config.dt, generator=generator)


def main(config: Config) -> None:
    torch.set_num_threads(1)
    validation, held_out = (
        signals(config, config.held_out_window, 16, torch.Generator().manual_seed(config.seed + offset))
        for offset in (1_000_000, 2_000_000)
    )
    net = lif_network(config, 2)
    weights = weights_of(net, config)
    optimiser = torch.optim.Adam(
        [{"params": [weight], "lr": config.learning_rate * size} for weight, size in weights.values()], betas=(0.9, 0.99)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda i: 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * i / config.iterations))
    )
    generator, started = torch.Generator().manual_seed(config.seed), time.perf_counter()
    for iteration in range(config.iterations):
        u = signals(config, config.window, config.batch, generator)
        sol = adjsnn.solve(net, u, dt=config.dt, ts=torch.arange(len(u) + 1) * config.dt)
        cost = cost_of(sol, lowpass(u, config.dt, config.tau_out), config)
        optimiser.zero_grad()
        cost.backward()
        norm = clip_gradients(weights, config.clip)
        optimiser.step()
        schedule.step()
        if iteration % 50 == 0:
            print(iteration, f"{cost.item():.4f} {norm:.3f}", evaluate(net, validation, config), flush=True)
    print(f"seed {config.seed}: held out", evaluate(net, held_out, config), f"{time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main(tyro.cli(Config))
