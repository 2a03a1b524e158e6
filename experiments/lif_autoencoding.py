"""Autoencoding with LIF neurons that jump: signals, and digits shown row by row; settings of `lif_predictive.py`."""

import math
import time
from dataclasses import replace
from typing import Annotated

import torch
import tyro
from autoencoding import BRIGHT, Digits, r_squared
from lif_predictive import Config, clip_gradients, lif_network, weights_of
from torch import Tensor

import adjsnn
from adjsnn.signals import lowpass, random_sinusoids

ROW = 20.0  # ms
BUDGET = 40.0  # spikes/s


def cost_of(sol: adjsnn.LIFSolution, target: Tensor, power: float, config: Config) -> Tensor:
    """Mean over trials of squared error over the data's mean power, plus the price of activity."""
    error = sol.readout_error(target) / (sol.t_end * target.shape[2] * power)
    return (error + config.activity_cost * sol.squared_rate(config.activity_tau).mean(1) / BUDGET**2).mean()


def redraw(net: adjsnn.LIFNetwork, sol: adjsnn.LIFSolution, row: float) -> Tensor:
    """Pictures (B, 8, 8): W_out times the spikes in each row, over its length, which is what undoing the low-pass leaves."""
    trains, rows = sol.layer_spikes[-1], round(sol.t_end / row)
    assert net.w_out is not None
    drawn = net.w_out.new_zeros(trains.batch, rows, len(net.w_out))
    sample, k = (trains.idx >= 0).nonzero(as_tuple=True)
    at = (trains.time[sample, k] / row).long().clamp(max=rows - 1)
    return drawn.index_put((sample, at), net.w_out.T[trains.idx[sample, k]], accumulate=True) / (row * BRIGHT)


class Signals:
    """Random signals: training batches, and fixed trials."""

    def __init__(self, config: Config, channels: int = 4) -> None:
        self.config, self.channels = config, channels

    def draw(self, duration: float, batch: int, generator: torch.Generator) -> Tensor:
        return random_sinusoids(round(duration / self.config.dt), batch, self.channels, self.config.dt, generator=generator)

    def training(self, generator: torch.Generator) -> Tensor:
        return self.draw(self.config.window, self.config.batch, generator)

    def fixed(self, name: str) -> Tensor:
        offset = {"validation": 1_000_000, "held_out": 2_000_000}[name]
        return self.draw(self.config.held_out_window, 16, torch.Generator().manual_seed(self.config.seed + offset))


class Pictures:
    """Digits as inputs."""

    channels = 8

    def __init__(self, config: Config) -> None:
        self.config, self.digits = config, Digits(ROW, config.dt, config.tau_out)

    def training(self, generator: torch.Generator) -> Tensor:
        pictures = self.digits.pictures["training"]
        return self.digits.show(pictures[torch.randint(len(pictures), (self.config.batch,), generator=generator)])

    def fixed(self, name: str) -> Tensor:
        return self.digits.show(self.digits.pictures[name])


@torch.no_grad()
def evaluate(net: adjsnn.LIFNetwork, data: Signals | Pictures, name: str, config: Config) -> dict[str, float]:
    u = data.fixed(name)
    sol = adjsnn.solve(net, u, dt=config.dt, ts=torch.arange(len(u) + 1) * config.dt)
    found = {"r2_lowpassed": r_squared(sol.readout, lowpass(u, config.dt, config.tau_out))}
    if isinstance(data, Pictures):
        drawn, pictures = redraw(net, sol, ROW), data.digits.pictures[name]
        found["r2_pixels"] = r_squared(drawn.flatten(1), pictures.flatten(1))
    found["spikes_per_s"] = sol.stats.spikes[0] / (u.shape[1] * config.neurons * sol.t_end / 1000.0)
    found["silent_neurons"] = float(sol.stats.silent_neurons[0])
    return found


def train(net: adjsnn.LIFNetwork, data: Signals | Pictures, config: Config, every: int) -> None:
    weights = weights_of(net, config)
    optimiser = torch.optim.Adam(
        [{"params": [weight], "lr": config.learning_rate * size} for weight, size in weights.values()], betas=(0.9, 0.99)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda i: 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * i / config.iterations))
    )
    power = float(lowpass(data.fixed("validation"), config.dt, config.tau_out).square().mean())
    generator, started = torch.Generator().manual_seed(config.seed), time.perf_counter()
    for iteration in range(config.iterations):
        u = data.training(generator)
        sol = adjsnn.solve(net, u, dt=config.dt, ts=torch.arange(len(u) + 1) * config.dt)
        cost = cost_of(sol, lowpass(u, config.dt, config.tau_out), power, config)
        optimiser.zero_grad()
        cost.backward()
        norm = clip_gradients(weights, config.clip)
        optimiser.step()
        schedule.step()
        if iteration % every == 0:
            seconds = time.perf_counter() - started
            print(
                iteration,
                f"{cost.item():.4f} {norm:.3f} {seconds:.0f} s",
                evaluate(net, data, "validation", config),
                flush=True,
            )


def main(config: Annotated[Config, tyro.conf.OmitArgPrefixes], data: str = "signals", every: int = 50) -> None:
    """Train on signals or digits.

    Args:
        config: as for predictive coding; w_in_start is for two channels.
        data: signals or digits.
        every: iterations between validations.
    """
    torch.set_num_threads(1)
    source = Pictures(config) if data == "digits" else Signals(config)
    scale = (2.0 / source.channels) ** 0.5
    net = lif_network(replace(config, w_in_start=config.w_in_start * scale), source.channels)
    started = time.perf_counter()
    train(net, source, config, every)
    seconds = time.perf_counter() - started
    print(f"{data}, seed {config.seed}: held out", evaluate(net, source, "held_out", config), f"{seconds:.0f} s")


if __name__ == "__main__":
    tyro.cli(main)
