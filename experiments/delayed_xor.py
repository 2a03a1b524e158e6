"""Delayed-memory XOR: do two pulses that came long ago have different signs? Answered when a go cue comes.

    python experiments/delayed_xor.py                                train
    python experiments/delayed_xor.py --help                         every setting

Channel 1 carries two pulses of either sign with a variable delay between them, channel 2 a go cue some time later. After the
cue the readout makes a positive pulse if the signs differed, a negative one if they were equal, and stays at zero if only one
pulse came, which happens in 20 % of trials. Before the cue it stays at zero. The slots of both pulses and of the cue are drawn
before it is drawn whether a pulse is missing, so that no time in the trial tells the class.

No synapse or membrane remembers for longer than some tens of ms: the first pulse has to be kept in the activity of the network.

Remedy for chaotic samples, outside the gradient: the cost of a sample whose gradient by its input is `sample_limit` times
larger than the geometric mean over the batch, or more, is weighted down to that limit.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import adjsnn
from adjsnn import plotting
from adjsnn.training import Column, Cost, Experiment, Split, TrainingConfig, batch_mean, main

CLASSES = ("differ", "equal", "one pulse")
TRIALS: dict[Split, tuple[int, int]] = {
    "validation": (500, 1_000_000),
    "held_out": (2000, 2_000_000),
}  # count, seed's offset
DELAYS = (0.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 150.0, 200.0, 300.0, 400.0)  # ms, of the curve


@dataclass(frozen=True)
class Config(TrainingConfig):
    """Delayed-memory XOR with quadratic integrate-and-fire neurons. Times in ms."""

    network: Literal["gated"] = "gated"
    iterations: int = 3000
    batch: int = 64
    log_every: int = 100
    save_every: int = 100
    learning_rate: float = 0.0003
    """for w_in, w_rec and bias, 1/ms"""
    out_rate: float = 30.0
    """learning rate of w_out over that of the others"""
    sample_limit: float = 1.0
    """largest gradient of a sample by its input, in geometric means over the batch; 0: any"""
    neurons: int = 80
    tau_v: float = 25.0
    tau_fast: float = 5.0
    tau_slow: float = 20.0
    gate_width: float = 1.0
    dt: float = 1.0
    pulse: float = 20.0
    """length of a pulse and of the cue"""
    lead: float = 10.0
    """time before the first pulse"""
    delay: tuple[float, float] = (10.0, 40.0)
    """shortest and longest time between the two pulses, from end to start"""
    gap: tuple[float, float] = (5.0, 20.0)
    """shortest and longest time between the second pulse and the cue, from end to start"""
    reaction: float = 10.0
    """time from the start of the cue to the start of the answer"""
    answer: float = 60.0
    """length of the answer, sin² of height 1"""
    rest: float = 10.0
    """time of silence after the last answer"""
    missing: float = 0.2
    """share of trials in which one of the pulses does not come"""
    rest_weight: float = 0.1
    """weight of the readout's mean square outside the answer, beside that of its error in the answer"""
    activity_cost: float = 0.0
    """weight of the mean over neurons of (charge released per second / 60)²"""
    bias_start: float = 0.01
    """mean of the bias: neurons that fire about 40 spikes/s without input"""
    bias_spread: float = 0.01
    w_in_start: float = 0.04
    """standard deviations of the random start, those of w_rec and w_out times √neurons"""
    w_rec_start: float = 0.45
    w_out_start: float = 1.0


class Trials(NamedTuple):
    """Trials of the task.

    Fields: u input (T, B, 2); target (T+1, B, 1); labels (B,), indices into CLASSES; signs (B, 2) of the two pulses, 0 where
    one is missing; starts (B, 3) of first pulse, second pulse and cue, ms; window (T+1, B, 1), whether a time is in the answer.
    """

    u: Tensor
    target: Tensor
    labels: Tensor
    signs: Tensor
    starts: Tensor
    window: Tensor


def make_trials(config: Config, signs: Tensor, delays: Tensor, gaps: Tensor) -> Trials:
    """Trials with pulses of the given signs (B, 2), time between them and time to the cue (B,), in ms."""
    dt, pulse = config.dt, config.pulse
    first = torch.full_like(delays, config.lead)
    second = first + pulse + delays
    cue = second + pulse + gaps
    steps = round(float(cue.max() + config.reaction + config.answer + config.rest) / dt)
    # The middle of a step decides, so that rounding does not: starts are whole numbers of steps up to rounding.
    ts = (torch.arange(steps + 1, dtype=delays.dtype)[:, None]) * dt

    def on(start: Tensor, length: float) -> Tensor:
        middle = ts + 0.5 * dt
        return ((middle > start) & (middle < start + length)).to(delays.dtype)

    channel = on(first, pulse) * signs[:, 0] + on(second, pulse) * signs[:, 1]
    u = torch.stack([channel, on(cue, pulse)], dim=2)[:-1]
    product = signs.prod(1)
    labels = torch.where(product == 0, 2, torch.where(product < 0, 0, 1))
    phase = (ts - cue - config.reaction) / config.answer
    window = (phase > -1e-9) & (phase < 1.0 + 1e-9)
    bump = torch.sin(torch.pi * phase).square() * window
    target = -product.sign() * bump
    starts = torch.stack([first, second, cue], dim=1)
    return Trials(u, target[:, :, None], labels, signs, starts, window[:, :, None])


def draw_trials(config: Config, count: int, generator: torch.Generator) -> Trials:
    """Random trials: times first, then signs, then which pulses are missing, each independent of the others."""

    def uniform(bounds: tuple[float, float]) -> Tensor:
        low, high = (round(t / config.dt) for t in bounds)
        return torch.randint(low, high + 1, (count,), generator=generator) * config.dt

    delays, gaps = uniform(config.delay), uniform(config.gap)
    signs = 2.0 * torch.randint(2, (count, 2), generator=generator) - 1.0
    kind = torch.rand(count, generator=generator)
    signs[kind < 0.5 * config.missing, 0] = 0.0
    signs[(kind >= 0.5 * config.missing) & (kind < config.missing), 1] = 0.0
    return make_trials(config, signs, delays, gaps)


def decide(readout: Tensor, window: Tensor) -> Tensor:
    """Class of each sample: the mean readout in the answer window against ± half of the mean of a right answer.

    Args:
        readout: (T+1, B, 1).
        window: (T+1, B, 1).

    Returns:
        indices into CLASSES, (B,): "differ" above the upper threshold, "equal" below the lower, "one pulse" between.
    """
    mean = ((readout * window).sum(0) / window.sum(0)).squeeze(1)
    threshold = 0.25  # half of ½, the mean of sin²
    return torch.where(mean > threshold, 0, torch.where(mean < -threshold, 1, 2))


class DelayedXor(Experiment[Config]):
    config_type = Config
    columns = {
        "accuracy": Column("accuracy", ".4f"),
        "cost": Column("cost", ".4f"),
        "spikes_per_s": Column("spikes/s per neuron", ".1f"),
    }

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if not (0.0 <= config.delay[0] <= config.delay[1] and 0.0 <= config.gap[0] <= config.gap[1]):
            seen = f"delay={config.delay}, gap={config.gap}"
            raise adjsnn.ConfigurationError(seen, "shortest ≤ longest, neither negative", "--delay 10 40 --gap 5 20")
        self.trials = {
            split: self.place(draw_trials(config, count, self.generator(offset))) for split, (count, offset) in TRIALS.items()
        }

    def network(self) -> adjsnn.GatedSynapseNetwork:
        """Random start: neurons that fire slowly by themselves, weakly coupled.

        Stronger weights or currents that silence neurons make single samples exponentially sensitive: a QIF neuron that is held
        near its unstable point by an inhibitory current of -I leaves it at the rate 2√I.
        """
        config, generator = self.config, self.generator()
        net = adjsnn.GatedSynapseNetwork(
            2,
            config.neurons,
            1,
            neuron=adjsnn.QIF(tau_v=config.tau_v),
            gate=adjsnn.RaisedCosineGate(config.gate_width),
            tau_fast=config.tau_fast,
            tau_slow=config.tau_slow,
        )
        starts = {
            "w_in": config.w_in_start,
            "w_rec": config.w_rec_start / config.neurons**0.5,
            "w_out": config.w_out_start / config.neurons**0.5,
            "bias": config.bias_spread,
        }
        with torch.no_grad():
            for name, deviation in starts.items():
                parameter = getattr(net, name)
                parameter.copy_(deviation * torch.randn(parameter.shape, generator=generator))
            net.bias.add_(config.bias_start)
        return net

    def optimiser(self, net: adjsnn.GatedSynapseNetwork) -> torch.optim.Optimizer:
        rate, out = self.config.learning_rate, self.config.learning_rate * self.config.out_rate
        groups = [{"params": [net.w_in, net.w_rec, net.bias], "lr": rate}, {"params": [net.w_out], "lr": out}]
        return torch.optim.Adam(groups, betas=(0.9, 0.999))

    def batch(self, generator: torch.Generator, step: int) -> Trials:
        return draw_trials(self.config, self.config.batch, generator)

    def solve(self, net: adjsnn.GatedSynapseNetwork, u: Tensor) -> Any:
        """By Euler steps, or for the continuous adjoint by RK4 steps of the same length in the charge form."""
        if self.in_charge_form:
            return adjsnn.solve(adjsnn.ChargeForm(net), u, dt=self.config.dt, method="rk4", adjoint=self.adjoint())
        return adjsnn.solve(net, u, dt=self.config.dt, adjoint=self.adjoint())

    def errors(self, sol: Any, trials: Trials) -> Tensor:
        """Mean square error in the answer window, and `rest_weight` times the mean square outside, of each sample, (B,)."""
        error, inside = (sol.readout - trials.target).square(), trials.window.to(sol.readout.dtype)
        answer = (error * inside).sum(0) / inside.sum(0)
        outside = (error * (1.0 - inside)).sum(0) / (1.0 - inside).sum(0)
        return (answer + self.config.rest_weight * outside).squeeze(1)

    def cost(self, net: adjsnn.GatedSynapseNetwork, batch: Trials) -> Cost:
        limited = self.config.sample_limit > 0.0 and torch.is_grad_enabled()
        u = batch.u.clone().requires_grad_() if limited else batch.u
        sol = self.solve(net, u)
        errors = self.errors(sol, batch)
        weights = self.weights(errors, u) if limited else torch.ones_like(errors)
        value = (weights * errors).mean()
        if self.config.activity_cost:
            value = value + self.config.activity_cost * (batch_mean(adjsnn.losses.firing_rate(sol)) / 60.0).square().mean()
        return Cost(value, sol)

    def weights(self, errors: Tensor, u: Tensor) -> Tensor:
        """Weight of each sample, (B,): 1, or less where its gradient is beyond the limit; 0 where it overflows, nan if all do."""
        (gradient,) = torch.autograd.grad(errors.sum(), u, retain_graph=True)
        sizes = gradient.square().sum((0, 2)).sqrt()
        known = sizes.isfinite() & (sizes > 0.0)
        logs = torch.stack([torch.where(known, sizes, 1.0).log(), known.to(sizes)], 1)
        total, share = batch_mean(logs).unbind()
        limit = self.config.sample_limit * (total / share).exp()
        return torch.where(known, (limit / sizes).clamp(max=1.0), 0.0 * limit)

    def evaluate(self, net: adjsnn.GatedSynapseNetwork, split: Split) -> dict[str, float]:
        trials = self.trials[split]
        sol = self.solve(net, trials.u)
        seconds = float(sol.ts[-1]) / 1000.0 * trials.u.shape[1] * self.config.neurons
        return {
            "accuracy": accuracy(sol.readout, trials),
            "cost": float(self.errors(sol, trials).mean()),
            "spikes_per_s": math.nan if self.in_charge_form else sol.stats.spikes / seconds,
        }

    def figures(self, net: adjsnn.GatedSynapseNetwork) -> dict[str, Figure]:
        trials = one_of_each(self.config)
        placed = self.place(trials)
        sol: Any = adjsnn.solve(net, placed.u, dt=self.config.dt)
        return {
            "trials": draw_classes(sol, trials),
            "delay": draw_delays(self.config, accuracy_by_delay(self, net, DELAYS)),
            "events": plotting.event_diagnostics(sol),
        }


def accuracy(readout: Tensor, trials: Trials) -> float:
    return float((decide(readout, trials.window) == trials.labels).double().mean())


def accuracy_by_delay(experiment: DelayedXor, net: Any, delays: Sequence[float], count: int = 500) -> list[float]:
    """Share of trials decided right for each fixed delay, ms; the cue keeps its distance from the second pulse."""
    found = []
    for delay in delays:
        config = replace(experiment.config, delay=(delay, delay))
        trials = experiment.place(draw_trials(config, count, experiment.generator(3_000_000)))
        found.append(accuracy(experiment.solve(net, trials.u).readout, trials))
    return found


KINDS = (((1.0, -1.0), "differ: + -"), ((-1.0, 1.0), "differ: - +"), ((1.0, 1.0), "equal: + +"), ((-1.0, -1.0), "equal: - -"),
         ((1.0, 0.0), "one: +, none"), ((0.0, -1.0), "one: none, -"))  # fmt: skip


def one_of_each(config: Config) -> Trials:
    """A trial of each kind, with the longest delay and gap."""
    signs = torch.tensor([signs for signs, _ in KINDS])
    longest = [torch.full((len(signs),), time) for time in (config.delay[1], config.gap[1])]
    return make_trials(config, signs, *longest)


def draw_classes(sol: adjsnn.GatedSolution, trials: Trials) -> Figure:
    """Input, answer and spikes of each kind of trial."""
    figure = plotting.new_figure(10.0, 4.6)
    rows = figure.subplots(3, len(KINDS), sharex=True, sharey="row", height_ratios=(0.8, 1.0, 1.4))
    ts = sol.ts.cpu().numpy()
    for k, (_, title) in enumerate(KINDS):
        top, middle, bottom = rows[:, k]
        for channel, (name, colour) in enumerate((("pulses", plotting.INK), ("cue", plotting.COLOURS[4]))):
            top.step(ts[:-1], trials.u[:, k, channel].numpy(), where="post", lw=1.0, color=colour, label=name)
        top.set_title(title, loc="left", fontsize=8)
        middle.plot(ts, trials.target[:, k, 0].numpy(), color=plotting.INK, lw=1.8, alpha=0.35, label="target")
        middle.plot(ts, sol.readout[:, k, 0].detach().cpu().numpy(), color=plotting.COLOURS[0], lw=1.0, label="readout")
        plotting.raster(bottom, sol, sample=k)
        bottom.set_title("")
        bottom.set_ylabel("neuron" if k == 0 else "")
    rows[0, 0].set_ylabel("input")
    rows[1, 0].set_ylabel("readout")
    rows[0, 0].legend(fontsize=6)
    rows[1, 0].legend(fontsize=6)
    return figure


def draw_delays(config: Config, found: Sequence[float]) -> Figure:
    """Accuracy against the delay between the pulses."""
    figure = plotting.new_figure(4.2, 2.8)
    axes = figure.subplots()
    axes.axvspan(*config.delay, color=plotting.COLOURS[0], alpha=0.15, lw=0, label="trained")
    axes.plot(DELAYS, 100.0 * np.asarray(found), "o-", ms=3, lw=1.0, color=plotting.COLOURS[0])
    axes.axhline(100.0 * (1.0 - config.missing) / 2.0, color=plotting.INK, lw=0.6, ls="--", label="always the same answer")
    axes.set(xlabel="delay between the pulses (ms)", ylabel="right (%)", ylim=(0.0, 102.0))
    axes.legend(fontsize=7, loc="lower left")
    return figure


if __name__ == "__main__":
    sys.exit(main(DelayedXor))
