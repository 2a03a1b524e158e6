"""Predictive coding: a spiking network learns to represent its input, low-passed, with as few spikes as it can.

    python experiments/predictive_coding.py                          train, some seconds
    python experiments/predictive_coding.py --quick                  half of that
    python experiments/predictive_coding.py --signal my_recording.npy --signal-dt 1.0

The readout o must follow τ_s ȯ_d = -o_d + u. The cost is ∫‖o - o_d‖² over that of a silent network, plus λ times the mean
over neurons of (charge released per second / 60)². Everything starts random; the solution is known (docs/equations.md, 1.13).
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import torch
from matplotlib.figure import Figure
from torch import Tensor

import adjsnn
from adjsnn import plotting
from adjsnn.losses import firing_rate, normalised_cost
from adjsnn.signals import load_signal, lowpass, random_sinusoids
from adjsnn.training import Column, Cost, Experiment, Split, TrainingConfig, batch_mean, main

TRIALS_HELD_OUT = 16


@dataclass(frozen=True)
class Config(TrainingConfig):
    """Predictive coding with non-leaky integrate-and-fire neurons. Times in ms."""

    network: Literal["gated"] = "gated"
    neurons: int = 30
    tau_fast: float = 1.0
    tau_slow: float = 10.0
    gate_width: float = 0.3
    dt: float = 0.1
    window: float = 100.0
    """length of a training trial"""
    held_out_window: float = 300.0
    """length of a validation or held-out trial"""
    learning_rate: float = 0.015
    activity_cost: float = 0.024
    """λ"""
    w_in_start: float = 1.0
    """standard deviations of the random start"""
    w_out_start: float = 0.014
    w_rec_start: float = 0.02
    signal: Path | None = None
    """.npy or .csv recording, one row per time; default: random sums of sinusoids"""
    signal_dt: float = 1.0
    """time between the recording's samples"""
    quick: bool = False
    """stop after a short training that already shows a learnt readout"""

    def settled(self) -> Self:
        return replace(self, iterations=100) if self.quick else self


class Signals:
    """Training trials without end, and fixed validation and held-out trials, from other seeds or another part of the file."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.recording: Tensor | None = None
        if config.signal is None:
            self.channels = 2
            self.validation, self.held_out = (
                self._random(config.held_out_window, TRIALS_HELD_OUT, torch.Generator().manual_seed(config.seed + offset))
                for offset in (1_000_000, 2_000_000)
            )
            return
        recording = load_signal(config.signal, config.signal_dt, config.dt)
        self.channels = recording.shape[1]
        cut, end = int(0.7 * len(recording)), int(0.85 * len(recording))
        self.recording = recording[:cut]
        self.validation, self.held_out = self._tail(recording[cut:end]), self._tail(recording[end:])

    def training(self, generator: torch.Generator) -> Tensor:
        """A new batch of trials, (T, B, C)."""
        config = self.config
        if self.recording is None:
            return self._random(config.window, config.batch, generator)
        steps = min(round(config.window / config.dt), len(self.recording))
        starts = torch.randint(len(self.recording) - steps + 1, (config.batch,), generator=generator)
        return torch.stack([self.recording[s : s + steps] for s in starts.tolist()], dim=1)

    def _random(self, duration: float, batch: int, generator: torch.Generator) -> Tensor:
        return random_sinusoids(round(duration / self.config.dt), batch, 2, self.config.dt, generator=generator)

    def _tail(self, part: Tensor) -> Tensor:
        steps = round(self.config.held_out_window / self.config.dt)
        if len(part) < steps:
            needed = self.config.held_out_window / 0.15
            raise adjsnn.ConfigurationError(
                f"{self.config.signal}: {len(part) * self.config.dt:g} ms in each held-out part of the recording",
                f"at least one held-out trial of {self.config.held_out_window:g} ms, so about {needed:g} ms in all",
                "a longer recording or a smaller --held-out-window",
            )
        return torch.stack(part[: len(part) // steps * steps].split(steps)[:TRIALS_HELD_OUT], dim=1)


class PredictiveCoding(Experiment[Config]):
    config_type = Config
    columns = {
        "cost": Column("cost / silent", ".4f"),
        "spikes_per_s": Column("spikes/s per neuron", ".1f"),
        "corr_rec": Column("corr(W_rec, -W_in W_out)", ".3f"),
        "corr_in_out": Column("corr(W_out, W_inᵀ)", ".3f"),
    }

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.signals = Signals(config)
        self.fixed = {"validation": self.place(self.signals.validation), "held_out": self.place(self.signals.held_out)}
        self.power = float(self.target(self.fixed["validation"]).square().mean())

    def network(self) -> adjsnn.GatedSynapseNetwork:
        """Random start: independent Gaussian weights.

        Input weights near their final size and readout weights near zero make the gradient of w_out point along w_inᵀ from the
        first step; recurrent weights start small because the cost hardly sees, and so never removes, what noise they begin
        with.
        """
        config, generator, channels = self.config, self.generator(), self.signals.channels
        net = adjsnn.GatedSynapseNetwork(
            channels,
            config.neurons,
            channels,
            neuron=adjsnn.NIF(),
            gate=adjsnn.RaisedCosineGate(config.gate_width),
            tau_fast=config.tau_fast,
            tau_slow=config.tau_slow,
        )
        starts = {"w_in": config.w_in_start, "w_out": config.w_out_start, "w_rec": config.w_rec_start}
        with torch.no_grad():
            for name, deviation in starts.items():
                weight = getattr(net, name)
                weight.copy_(deviation * torch.randn(weight.shape, generator=generator))
        return net

    def batch(self, generator: torch.Generator, step: int) -> Tensor:
        return self.signals.training(generator)

    def target(self, u: Tensor) -> Tensor:
        return lowpass(u, self.config.dt, self.config.tau_slow)

    def solve(self, net: adjsnn.GatedSynapseNetwork, u: Tensor) -> adjsnn.GatedSolution:
        return adjsnn.solve(net, u, dt=self.config.dt, adjoint=self.adjoint())

    def cost(self, net: adjsnn.GatedSynapseNetwork, batch: Tensor) -> Cost:
        sol = self.solve(net, batch)
        error = (sol.readout - self.target(batch)).square().mean() / self.power
        activity = (batch_mean(firing_rate(sol)) / 60.0).square().mean()
        return Cost(error + self.config.activity_cost * activity, sol)

    def evaluate(self, net: adjsnn.GatedSynapseNetwork, split: Split) -> dict[str, float]:
        """Cost, spikes per second and neuron, and the correlations of the learnt weights with their known solution."""
        u = self.fixed[split]
        sol = self.solve(net, u)
        seconds = float(sol.ts[-1]) / 1000.0 * u.shape[1] * self.config.neurons
        off_diagonal = ~torch.eye(self.config.neurons, dtype=torch.bool)
        predicted = -net.w_in @ net.w_out
        rec = torch.corrcoef(torch.stack([net.w_rec[off_diagonal], predicted[off_diagonal]]))[0, 1]
        ends = torch.corrcoef(torch.stack([net.w_out.flatten(), net.w_in.T.flatten()]))[0, 1]
        return {
            "cost": float(normalised_cost(sol, self.target(u))),
            "spikes_per_s": sol.stats.spikes / seconds,
            "corr_rec": float(rec),
            "corr_in_out": float(ends),
            "overlong_steps": sol.stats.overlong_steps,
        }

    def objective(self, found: dict[str, float]) -> float:
        return found["cost"] + self.config.activity_cost * (found["spikes_per_s"] / 60.0) ** 2

    def figures(self, net: adjsnn.GatedSynapseNetwork) -> dict[str, Figure]:
        u = self.fixed["held_out"]
        sol = self.solve(net, u)
        return {
            "readout": self._draw_readout(net, sol, u),
            "weights": self._draw_weights(net),
            "events": plotting.event_diagnostics(sol),
        }

    def _draw_readout(self, net: adjsnn.GatedSynapseNetwork, sol: adjsnn.GatedSolution, u: Tensor) -> Figure:
        figure = plotting.new_figure(7.0, 5.4)
        top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(1.2, 1.0, 1.3))
        plotting.readout(top, sol, self.target(u))
        top.set_title("held-out signal: readout against target", loc="left")
        planar = net.n_out == 2
        angle = torch.atan2(net.w_out[1], net.w_out[0]) if planar else net.w_out[0]
        plotting.balanced_currents(middle, net, sol, u, int(net.w_in.norm(dim=1).argmax()))
        plotting.raster(bottom, sol, order=torch.argsort(angle))
        bottom.set_ylabel("neuron, by direction of w_out" if planar else "neuron, by w_out")
        for axes in (top, middle):
            axes.set_xlabel("")
        return figure

    def _draw_weights(self, net: adjsnn.GatedSynapseNetwork) -> Figure:
        figure = plotting.new_figure(7.0, 3.6)
        left, right = figure.subplots(1, 2)
        off_diagonal = ~torch.eye(self.config.neurons, dtype=torch.bool)
        predicted = -net.w_in @ net.w_out
        plotting.learnt_against_predicted(
            left, net.w_rec[off_diagonal], predicted[off_diagonal], "learnt $W_{rec}$ (off-diagonal)", "$-W_{in} W_{out}$"
        )
        scale = net.w_out.norm() / net.w_in.norm()
        plotting.learnt_against_predicted(
            right, net.w_out, net.w_in.T * scale, "learnt $W_{out}$", rf"$W_{{in}}^T$ scaled by {float(scale):.2f}"
        )
        return figure


if __name__ == "__main__":
    sys.exit(main(PredictiveCoding))
