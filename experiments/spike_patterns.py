"""Spike patterns: frozen inputs in, spikes at given times out, learnt by SuperSpike or any other rule.

    python experiments/spike_patterns.py                                  one neuron, 100 Poisson inputs, a train of 5 spikes
    python experiments/spike_patterns.py --adjoint surrogate              the same by surrogate gradients on a clock
    python experiments/spike_patterns.py --adjoint event                  the same by the exact gradient of spike times
    python experiments/spike_patterns.py --task one_spike                 inputs in a row, one spike at a time that is set
    python experiments/spike_patterns.py --task many                      1000 inputs, 300 hidden neurons, 500 trains
    python experiments/spike_patterns.py --task many --adjoint superspike_random     or superspike_uniform: its feedback
    python experiments/spike_patterns.py --task many --adjoint superspike_uniform --ceiling 5     with slow hidden neurons
    python experiments/spike_patterns.py --task many --hidden-rate 0      with hidden neurons that stay as they start
    python experiments/spike_patterns.py --task many --hidden 0           without hidden neurons
    python experiments/spike_patterns.py --task picture                   a picture in spikes: a row is a neuron

The tasks of Zenke and Ganguli 2018, with their constants: τ_m 10 ms, τ_s 5 ms, refractory 5 ms. The cost is the van Rossum
distance of output and target by a kernel that rises in 5 ms and decays in 10, over that of silence and target
(docs/equations.md, 2.15); weights take the steps of RMaxProp (5.4). There is one pattern, which is learnt by heart: what is
measured on it is not held out.

The exact gradient moves spikes; it knows of none that is missing, and of a silent neuron nothing at all. Remedy, outside the
gradient and the same for all rules: after each step, weights into a neuron that spikes too rarely rise by `wake` times the
learning rate, and into one that spikes too often they fall, if their own neurons spiked. Of a hidden neuron silence alone is
too rare.
"""

import math
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

import adjsnn
from adjsnn import plotting
from adjsnn.losses import van_rossum
from adjsnn.plotting import Axes, Figure
from adjsnn.rules import RMaxProp
from adjsnn.training import Column, Cost, Experiment, Metrics, Split, TrainingConfig, main
from adjsnn.training.ranges import Count, NotNegative, Positive, Range
from adjsnn.training.rules import Adjoint

Neurons = Annotated[int, Range(0)]
FEW = 5  # output neurons that are drawn as single rows


@dataclass(frozen=True)
class OneTrain(TrainingConfig):
    """One neuron learns a train of spikes. Times in ms."""

    task: Literal["one_train"] = "one_train"
    adjoint: Adjoint = "superspike"
    inputs: Count = 100
    hidden: Neurons = 0
    """0: none"""
    outputs: Count = 1
    t_end: Positive = 500.0
    input_rate: Positive = 10.0
    """spikes/s of each input"""
    spikes: Count = 5
    """of each target train"""
    tau_mem: Positive = 10.0
    tau_syn: Positive = 5.0
    refractory: NotNegative = 5.0
    tau: Positive = 10.0
    tau_rise: Positive = 5.0
    """of the kernel of the distance"""
    drive: NotNegative = 1.0
    """mean voltage of a layer at the start, if its inputs spiked at the rate of the network's and there were no threshold"""
    spread: NotNegative = 2.0
    """standard deviation of weights at the start, times √ of their number into a neuron"""
    iterations: Count = 1000
    batch: Count = 1
    learning_rate: Positive = 0.04
    """the longest step of a weight; it falls by a half cosine"""
    hidden_rate: NotNegative = 0.3
    """learning rate of hidden neurons over that; 0: their weights stay as they start"""
    decay: Annotated[float, Range(0.0, 1.0, above=True)] = math.exp(-0.5 / 30.0)
    """of the largest squared gradient, of a step"""
    clip: NotNegative = 0.0
    price: NotNegative = 1.0
    """of activity: this times the mean over hidden neurons of (mean square of the filtered rate / ceiling²)²"""
    ceiling: Positive = 20.0
    """spikes/s"""
    wake: NotNegative = 0.3
    """how far weights into neurons with a wrong number of spikes move, in learning rates; 0: not at all"""
    log_every: Count = 20
    save_every: Count = 500


@dataclass(frozen=True)
class OneSpike(OneTrain):
    """One neuron learns to spike once. Times in ms."""

    task: Literal["one_spike"] = "one_spike"  # pyright: ignore[reportIncompatibleVariableOverride]
    t_end: Positive = 200.0
    input_rate: Positive = 5.0
    """one spike of each input, in a row"""
    spikes: Count = 1
    at: Positive = 120.0
    """when"""
    iterations: Count = 500


@dataclass(frozen=True)
class Many(OneTrain):
    """Many neurons learn a train each. Times in ms."""

    task: Literal["many"] = "many"  # pyright: ignore[reportIncompatibleVariableOverride]
    inputs: Count = 1000
    hidden: Neurons = 300
    """0: none"""
    outputs: Count = 500
    drive: NotNegative = 0.6
    learning_rate: Positive = 0.1
    iterations: Count = 800
    clock: Positive = 1.0
    log_every: Count = 80
    save_every: Count = 100


@dataclass(frozen=True)
class Picture(OneTrain):
    """The output is a picture: a row is a neuron, time goes from left to right. Times in ms."""

    task: Literal["picture"] = "picture"  # pyright: ignore[reportIncompatibleVariableOverride]
    inputs: Count = 200
    hidden: Neurons = 256
    """0: none"""
    outputs: Count = 200
    t_end: Positive = 1890.0
    input_rate: Positive = 5.0
    """spikes/s of each input"""
    bright: Positive = 70.0
    """spikes/s where the picture is bright"""
    dark: Positive = 5.0
    """spikes/s where it is dark"""
    drive: NotNegative = 0.6
    learning_rate: Positive = 0.1
    iterations: Count = 300
    clock: Positive = 1.0
    log_every: Count = 50
    save_every: Count = 100


class Pattern(NamedTuple):
    """Input and target spikes, of one sample."""

    x: adjsnn.SpikeTrains
    target: adjsnn.SpikeTrains


def picture(rows: int, columns: int) -> Tensor:
    """A house under the sun beside a tree, 1 where it is bright, (rows, columns); the first row is the bottom."""
    y, x = torch.meshgrid(torch.linspace(0.0, 1.0, rows), torch.linspace(0.0, 1.9, columns), indexing="ij")
    ground = y < 0.08
    wall = (x > 0.25) & (x < 0.85) & (y < 0.45)
    window = (x > 0.34) & (x < 0.5) & (y > 0.2) & (y < 0.36)
    door = (x > 0.62) & (x < 0.74) & (y < 0.32)
    roof = (y >= 0.45) & (y < 0.8 - 0.9 * (x - 0.55).abs())
    crown = torch.hypot(x - 1.25, y - 0.52) < 0.2
    trunk = ((x - 1.25).abs() < 0.035) & (y < 0.4)
    sun = torch.hypot(x - 1.65, y - 0.82) < 0.12
    return (ground | (wall & ~window & ~door) | roof | crown | trunk | sun).float()


def drawn(config: Picture, generator: torch.Generator) -> list[tuple[float, int]]:
    """Spikes of neurons that fire regularly, at the rate of the picture's row, each from a phase of its own."""
    bright = picture(config.outputs, round(config.t_end)).double()
    rate = (config.dark + (config.bright - config.dark) * bright) / 1000.0  # in each ms
    phase = rate.cumsum(1) + torch.rand(config.outputs, 1, generator=generator, dtype=torch.float64)
    neuron, step = (phase.floor().diff(dim=1) > 0).nonzero().unbind(1)
    after = (phase[neuron, step + 1] - phase[neuron, step + 1].floor()) / rate[neuron, step + 1]
    return list(zip((step + 2.0 - after).tolist(), neuron.tolist(), strict=True))


def pattern_of(config: OneTrain, generator: torch.Generator) -> Pattern:
    """The pattern of a task. Times of target spikes are uniform, in as many equal parts of the trial as there are spikes."""
    sizes = {"n_neurons": config.outputs, "t_max": config.t_end, "dtype": torch.float64}
    if isinstance(config, OneSpike):
        part = config.t_end / config.inputs
        row = adjsnn.SpikeTrains.from_list(
            [[((k + 0.5) * part, k) for k in range(config.inputs)]],
            n_neurons=config.inputs, t_max=config.t_end, dtype=torch.float64,
        )  # fmt: skip
        if config.at > config.t_end:
            raise adjsnn.ConfigurationError(f"at={config.at:g} ms", f"a time up to t_end={config.t_end:g} ms", "--at 120")
        return Pattern(row, adjsnn.SpikeTrains.from_list([[(config.at, n) for n in range(config.outputs)]], **sizes))
    rates = torch.full((1, config.inputs), config.input_rate, dtype=torch.float64)
    x = adjsnn.SpikeTrains.poisson(rates, config.t_end, generator=generator)
    if isinstance(config, Picture):
        return Pattern(x, adjsnn.SpikeTrains.from_list([drawn(config, generator)], **sizes))
    part = config.t_end / config.spikes
    place = 0.2 + 0.6 * torch.rand(config.outputs, config.spikes, generator=generator, dtype=torch.float64)
    times = part * (torch.arange(config.spikes) + place)
    wanted = [(t, n) for n, row in enumerate(times.tolist()) for t in row]
    return Pattern(x, adjsnn.SpikeTrains.from_list([wanted], **sizes))


def draw_spikes(axes: Axes, trains: adjsnn.SpikeTrains, title: str, colour: str) -> None:
    """One mark for each spike, in rows."""
    few = trains.n_neurons <= FEW
    spiked = trains.idx[0] >= 0
    size = {"marker": "|", "s": 120.0, "lw": 1.2} if few else {"marker": ".", "s": 2.5, "lw": 0.0}
    axes.scatter(trains.time[0][spiked].detach(), trains.idx[0][spiked], color=colour, **size)
    axes.set(xlim=(0.0, trains.t_max), ylim=(-0.6, trains.n_neurons - 0.4), ylabel="" if few else "neuron")
    axes.set_title(title, loc="left")
    if few:
        axes.set_yticks([])


C = TypeVar("C", bound=OneTrain)


class SpikePatterns(Experiment[C]):
    columns = {
        "cost": Column("distance / silent", ".4f"),
        "at_start": Column("at the start", ".3f"),
        "exact_cost": Column("event-exact", ".4f"),
        "spikes_per_s": Column("spikes/s", ".1f"),
        "hidden_per_s": Column("hidden", ".1f"),
    }

    def __init__(self, config: C) -> None:
        super().__init__(config)
        self.pattern = self.place(pattern_of(config, self.generator()))
        none = adjsnn.SpikeTrains.from_list([[]], n_neurons=config.outputs, t_max=config.t_end, dtype=self.dtype)
        self.silence = float(self.distance(none.to(self.device), self.pattern.target))

    @classmethod
    def name(cls) -> str:
        return "spike_patterns"

    def network(self) -> adjsnn.LIFNetwork:
        config, generator = self.config, self.generator(1_000_000)
        layers = (config.hidden, config.outputs) if config.hidden else (config.outputs,)
        net = adjsnn.LIFNetwork(
            config.inputs, layers, tau_mem=config.tau_mem, tau_syn=config.tau_syn, refractory=config.refractory
        )
        with torch.no_grad():
            for w in net.w_in:
                of_spikes = 0.001 * config.input_rate * config.tau_syn * w.shape[1]  # ∫ i dt of all spikes of 1 ms, weights 1
                w.copy_(
                    config.drive / of_spikes + config.spread / w.shape[1] ** 0.5 * torch.randn(w.shape, generator=generator)
                )
        return net

    def optimiser(self, net: adjsnn.LIFNetwork) -> torch.optim.Optimizer:
        rate = self.config.learning_rate
        share = self.config.hidden_rate
        hidden = [{"params": [w], "lr": share * rate} for w in list(net.w_in)[:-1] if share]
        return RMaxProp([{"params": [net.w_in[-1]]}, *hidden], rate, self.config.decay)

    def batch(self, generator: torch.Generator, step: int) -> Pattern:
        return self.pattern

    def solve(self, net: adjsnn.LIFNetwork, x: adjsnn.SpikeTrains) -> Any:
        return adjsnn.solve(net, x, t_end=self.config.t_end, adjoint=self.adjoint(), **self.clock())

    def distance(self, sol: Any, target: adjsnn.SpikeTrains) -> Tensor:
        return van_rossum(sol, target, self.config.tau, tau_rise=self.config.tau_rise).mean()

    def cost(self, net: adjsnn.LIFNetwork, batch: Pattern) -> Cost:
        sol = self.solve(net, batch.x)
        cost = self.distance(sol, batch.target) / self.silence
        if self.config.hidden and self.config.price:
            cost = cost + self.config.price * (sol.squared_rate(100.0, 0) / self.config.ceiling**2).square().mean()
        return Cost(cost, sol)

    def after_step(self, net: adjsnn.LIFNetwork, batch: Pattern, cost: Cost, rate: float) -> None:
        """Weights from neurons that spiked move, up into those that spiked too rarely, down into those that did too often."""
        counts = [trains.counts()[0] for trains in (batch.x, *cost.sol.layer_spikes)]
        missing = [*((n == 0).long() for n in counts[1:-1]), batch.target.counts()[0] - counts[-1]]
        learning = [*(bool(self.config.hidden_rate) for _ in missing[:-1]), True]
        with torch.no_grad():
            for w, before, short, learns in zip(net.w_in, counts[:-1], missing, learning, strict=True):
                w.add_(learns * self.config.wake * rate * short.sign()[:, None] * (before > 0).to(w))

    def evaluate(self, net: adjsnn.LIFNetwork, split: Split) -> dict[str, float]:
        """The distance over that of silence, on the clock of the rule and of the event-exact network; spikes."""
        config, (x, target) = self.config, self.pattern
        sol = self.solve(net, x)
        exact = adjsnn.solve(net, x, t_end=config.t_end)
        per_s = [1000.0 * float(s.counts().double().mean()) / config.t_end for s in sol.layer_spikes]
        return {
            "cost": float(self.distance(sol, target)) / self.silence,
            "exact_cost": float(self.distance(exact, target)) / self.silence,
            "spikes_per_s": per_s[-1],
            "hidden_per_s": per_s[0] if config.hidden else 0.0,
        }

    def summary(self, metrics: Metrics) -> dict[str, float]:
        """The cost at the start."""
        return {"at_start": metrics["cost"][0]}

    def figures(self, net: adjsnn.LIFNetwork) -> dict[str, Figure]:
        (x, target), start = self.pattern, self.network().to(self.device, self.dtype)
        trains = {"target": target}
        for name, of in (("at the start", start), ("learnt", net)):
            sol = self.solve(of, x)
            trains[f"{name}, distance / silent {float(self.distance(sol, target)) / self.silence:.3g}"] = sol.layer_spikes[-1]
        few = self.config.outputs <= FEW
        raster = plotting.new_figure(7.0, 2.4 if few else 7.5)
        panels = raster.subplots(3, 1, sharex=True)
        for axes, (title, spikes), colour in zip(panels, trains.items(), (plotting.INK, *plotting.COLOURS), strict=False):
            draw_spikes(axes, spikes, title, colour)
        panels[-1].set(xlabel="time (ms)")
        return {"raster": raster} if few else {"raster": raster, "events": plotting.event_diagnostics(sol)}


class LearnOneTrain(SpikePatterns[OneTrain]):
    config_type = OneTrain


class LearnOneSpike(SpikePatterns[OneSpike]):
    config_type = OneSpike


class LearnMany(SpikePatterns[Many]):
    config_type = Many


class LearnPicture(SpikePatterns[Picture]):
    config_type = Picture


KINDS = (LearnOneTrain, LearnOneSpike, LearnMany, LearnPicture)

if __name__ == "__main__":
    sys.exit(main(*KINDS))
