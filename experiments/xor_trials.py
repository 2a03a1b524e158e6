"""Trials of delayed-memory XOR: two pulses of either sign, a go cue, and the answer to give; and pictures of them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from adjsnn import plotting
from adjsnn.training import TrainingConfig

CLASSES = ("differ", "equal", "one pulse")
THRESHOLD = 0.25  # of the mean readout in the answer: half of ½, the mean of sin²


@dataclass(frozen=True)
class TaskConfig(TrainingConfig):
    """The task, and what both families share. Times in ms."""

    neurons: int = 80
    dt: float = 1.0
    pulse: float = 20.0
    """length of a pulse and of the cue"""
    lead: float = 20.0
    """time before the first pulse"""
    delay: tuple[float, float] = (20.0, 150.0)
    """shortest and longest time between the two pulses, from end to start"""
    gap: tuple[float, float] = (20.0, 60.0)
    """shortest and longest time between the second pulse and the cue, from end to start"""
    reaction: float = 10.0
    """time from the start of the cue to the start of the answer"""
    answer: float = 60.0
    """length of the answer, sin² of height 1"""
    rest: float = 20.0
    """time of silence after the last answer"""
    missing: float = 0.2
    """share of trials in which one of the pulses does not come"""
    validation_trials: int = 500
    held_out_trials: int = 2000
    iterations: int = 400
    batch: int = 32
    log_every: int = 25
    save_every: int = 25


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
        plotting.raster(bottom, sol, sample=k)
        bottom.set_title("", loc="left")
        bottom.set_ylabel("neuron" if k == 0 else "")
    rows[0, 0].set_ylabel("input")
    rows[1, 0].set_ylabel("readout")
    rows[0, 0].legend(fontsize=6)
    rows[1, 0].legend(fontsize=6)
    return figure
