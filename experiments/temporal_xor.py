"""Temporal XOR: did two spikes come at the same time? Answered by which of two neurons spikes first.

    python experiments/temporal_xor.py                            the closed form of single spikes, SingleSpike
    python experiments/temporal_xor.py --adjoint event            the same network by the event-exact adjoint
    python experiments/temporal_xor.py --jitter 0                 the four trials alone

Each of two inputs spikes once, early or late, with some jitter; the answer is 1 if one of them was early and the other late,
else 0 (Mostafa 2018). No third spike marks the beginning: a neuron without leak answers later what it is shown later, so that
only the distance of the two spikes counts, and both early is the same trial as both late.

Neurons do not leak and spike at most once, so that spike times have a closed form (docs/equations.md, 5.7). By the event-exact
adjoint it is the same network: its time constant is beyond rounding, and its refractory time as long as the trial. Weights are
in units of the one whose whole charge just lifts a neuron to its threshold. A neuron whose weights add up to less may stay
silent and get no gradient: what they lack is part of the cost.
"""

import sys
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

import adjsnn
from adjsnn import plotting
from adjsnn.losses import first_spike_cross_entropy
from adjsnn.plotting import Figure
from adjsnn.rules.single_spike import LEAKLESS
from adjsnn.training import Column, Cost, Experiment, Split, TrainingConfig, main
from adjsnn.training.ranges import Count, NotNegative, Positive
from adjsnn.training.rules import Adjoint

CASES = ((0, 0), (1, 1), (0, 1), (1, 0))  # which of the two inputs are late


@dataclass(frozen=True)
class Config(TrainingConfig):
    """Temporal XOR with neurons that do not leak and spike once. Times in ms."""

    network: Literal["lif"] = "lif"
    hidden: Count = 20
    tau_syn: Positive = 5.0
    early: NotNegative = 2.0
    """time of an early spike"""
    late: NotNegative = 10.0
    """time of a late one"""
    jitter: NotNegative = 1.0
    """each spike comes up to so much earlier or later, in training and in evaluation"""
    t_end: Positive = 60.0
    iterations: Count = 1000
    batch: Count = 32
    learning_rate: Positive = 0.02
    """in units of the weight whose charge reaches the threshold"""
    log_every: Count = 50
    save_every: Count = 200
    tau0: Positive = 1.0
    """how far apart the first spikes of the two neurons should be"""
    lack_cost: NotNegative = 1.0
    """weight of the mean over neurons of what their summed weights lack to 1 + `reserve`"""
    reserve: NotNegative = 0.2
    trials: Count = 1000
    """of validation, and held out"""
    adjoint: Adjoint = "single_spike"
    dtype: Literal["float32", "float64"] = "float64"


class Trials(NamedTuple):
    """Input spikes, one of each of two inputs, and the answers (S,)."""

    x: adjsnn.SpikeTrains
    labels: Tensor


def make_trials(config: Config, cases: Tensor, generator: torch.Generator | None) -> Trials:
    """Trials of these cases, numbers into CASES (S,); without a generator without jitter."""
    late = torch.tensor(CASES)[cases]
    time = torch.where(late == 1, config.late, config.early).double()
    if generator is not None:
        time = time + config.jitter * (2.0 * torch.rand(time.shape, generator=generator, dtype=torch.float64) - 1.0)
    time, idx = time.sort(dim=1, stable=True)
    return Trials(adjsnn.SpikeTrains(idx, time, 2, config.t_end), late[:, 0] ^ late[:, 1])


class TemporalXor(Experiment[Config]):
    config_type = Config
    captions = {
        "cases": "The four cases of the task, spikes from input to output; the neuron that spikes first answers.",
        "answers": "First spikes of both output neurons on held-out trials.",
    }
    columns = {
        "accuracy": Column("accuracy", ".4f"),
        "four_cases": Column("accuracy without jitter", ".2f"),
        "margin": Column("least lead of the right neuron (ms)", ".2f"),
        "hidden_spikes": Column("spikes per hidden neuron", ".2f"),
    }

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if not config.jitter <= config.early <= config.late <= config.t_end - config.jitter:
            raise adjsnn.ConfigurationError(
                f"early={config.early:g}, late={config.late:g}, jitter={config.jitter:g}, t_end={config.t_end:g}",
                "jitter ≤ early ≤ late ≤ t_end - jitter",
                "--early 2 --late 10 --jitter 1 --t-end 60",
            )
        self.four = self.place(make_trials(config, torch.arange(4), None))
        sizes = {"validation": 1_000_000, "held_out": 2_000_000}
        self.data = {name: self.place(self.draw(config.trials, self.generator(offset))) for name, offset in sizes.items()}

    def draw(self, count: int, generator: torch.Generator) -> Trials:
        """Trials, as many of each case."""
        return make_trials(self.config, torch.arange(count) % 4, generator)

    def network(self) -> adjsnn.LIFNetwork:
        config = self.config
        return adjsnn.LIFNetwork(
            2,
            (config.hidden, 2),
            tau_mem=2.0 * LEAKLESS * config.t_end,
            tau_syn=config.tau_syn,
            refractory=config.t_end,
            generator=self.generator(),
        )

    def sizes(self, net: adjsnn.LIFNetwork) -> dict[str, float | Tensor]:
        """The weight whose charge, v_th τ_m/τ_s, reaches the threshold."""
        return {f"w_in.{k}": float(net.v_th[k][0] * net.tau_mem[k][0] / net.tau_syn[k][0]) for k in range(len(net.layers))}

    def batch(self, generator: torch.Generator, step: int) -> Trials:
        return self.draw(self.config.batch, generator)

    def solve(self, net: adjsnn.LIFNetwork, x: adjsnn.SpikeTrains) -> adjsnn.LIFSolution:
        return adjsnn.solve(net, x, t_end=self.config.t_end, adjoint=self.adjoint(), **self.clock())

    def loss(self, sol: adjsnn.LIFSolution, labels: Tensor) -> Tensor:
        return first_spike_cross_entropy(sol, labels, tau0=self.config.tau0, alpha=0.0)

    def cost(self, net: adjsnn.LIFNetwork, batch: Trials) -> Cost:
        sol = self.solve(net, batch.x)
        return Cost(self.loss(sol, batch.labels) + self.config.lack_cost * self.lack(net), sol)

    def lack(self, net: adjsnn.LIFNetwork) -> Tensor:
        """What the weights of each neuron lack together, a mean over neurons."""
        units = self.sizes(net)
        sums = torch.cat([w.sum(1) / units[f"w_in.{k}"] for k, w in enumerate(net.w_in)])
        return torch.relu(1.0 + self.config.reserve - sums).mean()

    def leads(self, net: adjsnn.LIFNetwork, trials: Trials) -> tuple[Tensor, adjsnn.LIFSolution]:
        """How much earlier the right neuron spikes than the wrong one, (S,), ms; a silent one at t_end."""
        sol = self.solve(net, trials.x)
        first = sol.first_spike_times().clamp(max=self.config.t_end)
        right = first.gather(1, trials.labels[:, None])[:, 0]
        return first.sum(1) - 2.0 * right, sol

    @torch.no_grad()
    def evaluate(self, net: adjsnn.LIFNetwork, split: Split) -> dict[str, float]:
        """Accuracy, a tie being wrong, with and without jitter; the cost; the least lead; hidden spikes."""
        data = self.data[split]
        lead, sol = self.leads(net, data)
        return {
            "accuracy": float((lead > 0.0).double().mean()),
            "cost": float(self.loss(sol, data.labels)),
            "four_cases": float((self.leads(net, self.four)[0] > 0.0).double().mean()),
            "margin": float(lead.min()),
            "hidden_spikes": sol.stats.layer_spikes[0] / (data.x.batch * self.config.hidden),
        }

    @torch.no_grad()
    def figures(self, net: adjsnn.LIFNetwork) -> dict[str, Figure]:
        config, held_out = self.config, self.data["held_out"]
        sol = self.solve(net, self.four.x)
        first, last = sol.first_spike_times(), config.late
        cases = plotting.new_figure(9.0, 2.8)
        for k, axes in enumerate(cases.subplots(1, 4, sharey=True)):
            trains = {"input": self.four.x, "hidden": sol.layer_spikes[0], "output": sol.layer_spikes[1]}
            plotting.layers_raster(trains, sample=k, axes=axes)
            times = first[k][first[k].isfinite()]
            last = max(last, float(times.max()) if len(times) else 0.0)
            inputs = ", ".join("late" if late else "early" for late in CASES[k])
            answer = int(first[k].argmin())
            axes.axvline(float(first[k].amin().clamp(max=config.t_end)), color=plotting.COLOURS[1], lw=0.6, ls=":")
            axes.set_title(f"{inputs}: neuron {answer}", loc="left", fontsize=8)
        for axes in cases.axes:
            axes.set_xlim(0.0, min(config.t_end, 1.1 * last))

        times = self.solve(net, held_out.x).first_spike_times().clamp(max=config.t_end).cpu()
        answers = plotting.new_figure(5.4, 3.4)
        axes = answers.subplots()
        for answer, name in enumerate(("equal", "different")):
            here = times[held_out.labels.cpu() == answer]
            axes.scatter(*here.T, s=4, lw=0, color=plotting.COLOURS[answer], label=f"{name}: neuron {answer} first")
        low, high = float(times.min()) - 1.0, float(times.max()) + 1.0
        axes.plot([low, high], [low, high], color=plotting.INK, lw=0.6, ls="--")
        axes.set(xlabel="first spike of neuron 0 (ms)", ylabel="first spike of neuron 1 (ms)", aspect="equal")
        axes.set_title(f"held out; silent: at {config.t_end:g} ms", loc="left")
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return {"cases": cases, "answers": answers}


if __name__ == "__main__":
    sys.exit(main(TemporalXor))
