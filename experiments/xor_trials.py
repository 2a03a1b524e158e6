"""Delayed-memory XOR for any network: trials (two pulses of either sign, a go cue, an answer), evaluation and pictures."""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

import adjsnn
from adjsnn import plotting
from adjsnn.plotting import Figure
from adjsnn.training import Column, Cost, Curve, Experiment, Split, TrainingConfig
from adjsnn.training.ranges import Count, NotNegative, Positive, Share

CLASSES = ("differ", "equal", "one pulse")
NORM_SHARE = 0.05  # of a step in the running mean of the gradient's norm
KEPT_EVERY = 50  # steps between networks that are kept on the way
KEPT_UP_TO = 4.0  # norm of the gradient over `steep` up to which they are
THRESHOLD = 0.25  # of the mean readout in the answer: half of ½, the mean of sin²
# ms, of the curve of accuracy
DELAYS = (0.0, 20.0, 50.0, 80.0, 100.0, 120.0, 140.0, 160.0, 180.0, 200.0, 250.0, 300.0, 400.0, 500.0, 750.0)


@dataclass(frozen=True)
class TaskConfig(TrainingConfig):
    """The task, and what both families share. Times in ms."""

    neurons: Count = 80
    dt: Positive = 1.0
    pulse: Positive = 20.0
    """length of a pulse and of the cue"""
    lead: NotNegative = 20.0
    """time before the first pulse"""
    delay: tuple[NotNegative, NotNegative] = (20.0, 150.0)
    """shortest and longest time between the two pulses, from end to start"""
    gap: tuple[NotNegative, NotNegative] = (20.0, 60.0)
    """shortest and longest time between the second pulse and the cue, from end to start"""
    reaction: NotNegative = 10.0
    """time from the start of the cue to the start of the answer"""
    answer: Positive = 60.0
    """length of the answer, sin² of height 1"""
    rest: NotNegative = 20.0
    """time of silence after the last answer"""
    missing: Share = 0.2
    """share of trials in which one of the pulses does not come"""
    steep: NotNegative = 0.0
    """norm of the gradient, a running geometric mean, beyond which steps get shorter in proportion; 0: never"""
    retreat: NotNegative = 0.0
    """that norm over `steep`, from which on, or where a gradient overflows, the network goes back to what it was 50 or
    more steps before, with half as long steps from there; 0: never"""
    validation_trials: Count = 500
    held_out_trials: Count = 2000
    iterations: Count = 400
    batch: Count = 32
    log_every: Count = 25
    save_every: Count = 25


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


def make_trials(config: TaskConfig, signs: Tensor, delays: Tensor, gaps: Tensor) -> Trials:
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


def draw_trials(config: TaskConfig, count: int, generator: torch.Generator) -> Trials:
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


def decide(mean: Tensor) -> Tensor:
    """Class of each sample from its mean readout in the answer window, (B,), against ± half of the mean of a right answer."""
    return torch.where(mean > THRESHOLD, 0, torch.where(mean < -THRESHOLD, 1, 2))


KINDS = (((1.0, -1.0), "differ: + -"), ((-1.0, 1.0), "differ: - +"), ((1.0, 1.0), "equal: + +"), ((-1.0, -1.0), "equal: - -"),
         ((1.0, 0.0), "one: +, none"), ((0.0, -1.0), "one: none, -"))  # fmt: skip


def one_of_each(config: TaskConfig) -> Trials:
    """A trial of each kind, with the longest delay and gap."""
    signs = torch.tensor([signs for signs, _ in KINDS])
    longest = [torch.full((len(signs),), time) for time in (config.delay[1], config.gap[1])]
    return make_trials(config, signs, *longest)


def draw_classes(sol: Any, trials: Trials, dt: float) -> Figure:
    """Input, answer and spikes of each kind of trial."""
    figure = plotting.new_figure(10.0, 4.6)
    rows = figure.subplots(3, len(KINDS), sharex=True, sharey="row", height_ratios=(0.8, 1.0, 1.4))
    ts = np.arange(len(trials.target)) * dt
    for k, (_, title) in enumerate(KINDS):
        top, middle, bottom = rows[:, k]
        for channel, (name, colour) in enumerate((("pulses", plotting.INK), ("cue", plotting.COLOURS[4]))):
            top.step(ts[:-1], trials.u[:, k, channel].numpy(), where="post", lw=1.0, color=colour, label=name)
        top.set_title(title, loc="left", fontsize=8)
        middle.plot(ts, trials.target[:, k, 0].numpy(), color=plotting.INK, lw=1.8, alpha=0.35, label="target")
        middle.plot(ts, sol.readout[:, k, 0].detach().cpu().numpy(), color=plotting.COLOURS[0], lw=1.0, label="readout")
        plotting.raster(sol, sample=k, axes=bottom)
        bottom.set_title("", loc="left")
        bottom.set_ylabel("neuron" if k == 0 else "")
    rows[0, 0].set_ylabel("input")
    rows[1, 0].set_ylabel("readout")
    rows[0, 0].legend(fontsize=6)
    rows[1, 0].legend(fontsize=6)
    return figure


C = TypeVar("C", bound=TaskConfig)


class DelayedXor(Experiment[C]):
    """The task. A family gives a network, `solve`, and of a solution `means`, the cost of `each` sample and a `price`."""

    captions = {
        "trials": "One trial of each kind: input, readout against target, and spikes.",
    }
    columns = {
        "accuracy": Column("accuracy", ".4f"),
        "accuracy_3x": Column("accuracy, longest delay x 3", ".4f"),
        "spikes_per_s": Column("spikes/s per neuron", ".1f"),
        "cost": Column("cost", ".4f"),
    }

    def __init__(self, config: C) -> None:
        super().__init__(config)
        if not (0.0 <= config.delay[0] <= config.delay[1] and 0.0 <= config.gap[0] <= config.gap[1]):
            seen = f"delay={config.delay}, gap={config.gap}"
            raise adjsnn.ConfigurationError(seen, "shortest ≤ longest, neither negative", "--delay 20 150 --gap 20 60")
        if min(config.pulse, config.answer) < 2.0 * config.dt:
            seen = f"pulse={config.pulse}, answer={config.answer} with dt={config.dt}"
            raise adjsnn.ConfigurationError(seen, "two steps or more in each", "--pulse 20 --answer 60, or a shorter --dt")
        self.log_norm = 0.0  # running mean of the logarithm of the gradient's norm
        self.kept: list[dict[str, Any]] = []  # the last two networks on the way, "net" and "log_norm"
        self.since, self.pace = 0, 1.0  # steps since the last of them, and what retreats have left of the steps
        self.trials: dict[Split, Trials] = {
            "validation": self.place(draw_trials(config, config.validation_trials, self.generator(1_000_000))),
            "held_out": self.place(draw_trials(config, config.held_out_trials, self.generator(2_000_000))),
        }

    @classmethod
    def name(cls) -> str:
        return "delayed_xor"

    @property
    def title(self) -> str:
        return "Delayed XOR"

    def solve(self, net: Any, trials: Trials) -> Any:
        raise NotImplementedError

    def means(self, sol: Any, trials: Trials) -> Tensor:
        """Mean readout in the answer window of each sample, (B,)."""
        raise NotImplementedError

    def each(self, sol: Any, trials: Trials) -> Tensor:
        """Cost of each sample, (B,)."""
        raise NotImplementedError

    def price(self, sol: Any) -> Tensor | float:
        """Price of activity."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        return {"log_norm": self.log_norm, "kept": self.kept, "since": self.since, "pace": self.pace}

    def load_state(self, state: dict[str, Any]) -> None:
        self.log_norm = state.get("log_norm", 0.0)  # older checkpoints have none, of LIF networks, or only this
        self.kept, self.since, self.pace = state.get("kept", []), state.get("since", 0), state.get("pace", 1.0)

    def limit_gradient(self, net: Any) -> float:
        norm = super().limit_gradient(net)
        if 0.0 < norm < math.inf:
            self.log_norm += NORM_SHARE * (math.log(norm) - self.log_norm)
        return norm

    def shortened_step(self) -> float:
        """Share of a step, at most 1, that is left where gradients are or were steep, unseen by Adam."""
        typical = math.exp(self.log_norm)
        return self.pace * (self.config.steep / typical if typical > self.config.steep > 0.0 else 1.0)

    def after_step(self, net: Any, batch: Trials, cost: Cost, rate: float) -> None:
        """Keep the network now and then, and go back where it has become chaotic.

        Gradients are so large there that steps in inverse proportion never lead out again.
        """
        config, typical = self.config, math.exp(self.log_norm)
        if not config.retreat:
            return
        self.since += 1
        if self.kept and typical > config.retreat * config.steep > 0.0:
            self.go_back(net)
        elif self.since >= KEPT_EVERY and typical <= KEPT_UP_TO * config.steep:
            now = {name: x.detach().clone() for name, x in net.state_dict().items()}
            self.kept, self.since = [*self.kept[-1:], {"net": now, "log_norm": self.log_norm}], 0

    def after_overflow(self, net: Any) -> None:
        """Go back: a gradient without a norm is steeper than any."""
        if self.kept and self.config.retreat and self.config.steep:
            self.go_back(net)

    def go_back(self, net: Any) -> None:
        """To the earlier one of the networks that are kept, and half as long steps."""
        net.load_state_dict(self.kept[0]["net"])
        self.log_norm, self.pace = self.kept[0]["log_norm"], 0.5 * self.pace
        self.kept, self.since = self.kept[:1], 0

    def batch(self, generator: torch.Generator, step: int) -> Trials:
        return draw_trials(self.config, self.config.batch, generator)

    def cost(self, net: Any, batch: Trials) -> Cost:
        sol = self.solve(net, batch)
        return Cost(self.each(sol, batch).mean() + self.price(sol), sol)

    def evaluate(self, net: Any, split: Split) -> dict[str, float]:
        trials = self.trials[split]
        sol = self.solve(net, trials)
        seconds = float(sol.ts[-1] if len(sol.ts) else sol.t_end) / 1000.0 * len(trials.labels) * self.config.neurons
        found = {
            "accuracy": self.accuracy(sol, trials),
            "cost": float(self.each(sol, trials).mean()),
            "spikes_per_s": math.nan if self.in_charge_form else sol.stats.layer_spikes[-1] / seconds,
        }
        if split == "held_out":
            found["accuracy_3x"] = self.accuracy_at(net, 3.0 * self.config.delay[1])
        return found

    def objective(self, found: dict[str, float]) -> float:
        return found["cost"]

    def accuracy(self, sol: Any, trials: Trials) -> float:
        return float((decide(self.means(sol, trials)) == trials.labels).double().mean())

    def accuracy_at(self, net: Any, delay: float) -> float:
        """Share of trials decided right at one delay, ms; the cue keeps its distance from the second pulse."""
        config = replace(self.config, delay=(delay, delay))
        trials = self.place(draw_trials(config, config.validation_trials, self.generator(3_000_000)))
        return self.accuracy(self.solve(net, trials), trials)

    def curves(self, net: Any) -> dict[str, Curve]:
        if self.in_charge_form:  # hundreds of trials take minutes in it
            return {}
        config = self.config
        right = [100.0 * self.accuracy_at(net, delay) for delay in DELAYS]
        chance = 100.0 * (1.0 - config.missing) / 2.0
        names = "delay between the pulses (ms)", "right (%)"
        return {
            "accuracy_against_delay": Curve(
                *names, DELAYS, right, shaded=config.delay, marked=chance, marked_label="always the same answer"
            )
        }

    def figures(self, net: Any) -> dict[str, Figure]:
        if self.in_charge_form:  # it has no spike trains
            return {}
        trials = one_of_each(self.config)
        sol = self.solve(net, self.place(trials))
        return {
            "trials": draw_classes(sol, trials, self.config.dt),
            "events": plotting.event_diagnostics(sol),
        }
