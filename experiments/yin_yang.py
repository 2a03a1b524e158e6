"""Yin-Yang: which part of a yin-yang figure is a point in? Told and answered by the times of single spikes.

    python experiments/yin_yang.py --threads 2                        train, under a minute
    python experiments/yin_yang.py --threads 2 --quick                ten seconds
    python experiments/yin_yang.py --learn weights delays             transmission delays as well
    python experiments/yin_yang.py --answer readout --adjoint surrogate       by surrogate gradients, on a clock

Three classes of points in a disc (yin, yang, the two eyes; Kriener, Göltz and Petrovici 2022) reach a layer of LIF neurons as
spikes at x, y, 1-x, 1-y and a fifth at 0. The class is the output neuron that spikes first. Spikes are located and gradients
computed event by event, without a time grid; the loss is the cross-entropy of first spike times (docs/equations.md, 2.14).

With `--answer readout` there are no output neurons: the class is the channel of a filtered readout of the hidden spikes whose
integral over the trial is largest (2.18), and the loss the cross-entropy of these integrals. Each hidden spike adds to them,
the more the earlier it comes. Surrogate gradients learn from them what they do not learn from first spike times
(docs/rules/surrogate_bptt.md).

An output neuron that stays silent has no spike time and so no gradient. Remedy, outside the gradient: after each step, weights
into an output neuron that was silent though its own class was shown rise by `wake` times the learning rate, if their hidden
neurons spiked.
"""

import math
import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

import adjsnn
from adjsnn import plotting
from adjsnn.losses import first_spike_cross_entropy
from adjsnn.plotting import Axes, Figure
from adjsnn.training import Column, Cost, Experiment, Metrics, Split, TrainingConfig, main
from adjsnn.training.batches import samples_of
from adjsnn.training.processes import mean_over_processes
from adjsnn.training.ranges import Count, NotNegative, Positive, Range, Share

CLASSES = ("yin", "yang", "eyes")
RADIUS, EYE = 0.5, 0.1
TRAIN, HELD_OUT = 5000, 1000
SHORTEST, LONGEST = 1.0, 100.0  # bounds of time constants, ms
Constant = Annotated[float, Range(SHORTEST, LONGEST)]
wake = partial(adjsnn.remedies.wake, reduce=mean_over_processes)


@dataclass(frozen=True)
class Config(TrainingConfig):
    """Yin-Yang with LIF neurons that jump. Times in ms."""

    network: Literal["lif"] = "lif"
    hidden: Count = 200
    tau_mem: Constant = 20.0
    tau_syn: Constant = 5.0
    learn: tuple[str, ...] = ("weights",)
    """of weights, delays, tau_mem, tau_syn, v_th, v_reset, bias"""
    delay: NotNegative = 1.0
    """of all connections at the start, where delays are learnt"""
    span: Positive = 30.0
    """time over which a coordinate from 0 to 1 is spread"""
    t_end: Positive = 60.0
    iterations: Count = 6552
    """156 are an epoch of the training points"""
    batch: Count = 32
    learning_rate: Positive = 0.01
    """of Adam with betas 0.9 and 0.99, for weights"""
    times_learning_rate: Positive = 0.05
    """for delays and time constants, ms"""
    answer: Literal["first_spike", "readout"] = "first_spike"
    """first_spike: the output neuron that spikes first; readout: the channel of a filtered readout of the hidden spikes whose
    integral is largest, without output neurons"""
    tau_out: Constant = 20.0
    """of that readout"""
    rising: Share = 0.05
    """share of the training in which the learning rates rise to these values; then they fall by a half cosine"""
    clip: NotNegative = 0.0
    averaging: Annotated[float, Range(0.0, 1.0, below=True)] = 0.98
    log_every: Count = 156
    save_every: Count = 780
    tau0: Positive = 0.5
    alpha: NotNegative = 0.001
    tau1: Positive = 6.4
    """of the loss of first spikes"""
    wake: NotNegative = 1.0
    """how fast silent output neurons are woken, in learning rates; 0: not at all"""
    quick: bool = False
    """1872 iterations with 120 hidden neurons"""

    def settled(self) -> Self:
        return replace(self, iterations=1872, hidden=120) if self.quick else self


def classes_of(points: Tensor) -> Tensor:
    """0 yin, 1 yang, 2 an eye, for points (S, 2) in the disc around (½, ½)."""
    left = torch.hypot(points[:, 0] - 0.5 * RADIUS, points[:, 1] - RADIUS)
    right = torch.hypot(points[:, 0] - 1.5 * RADIUS, points[:, 1] - RADIUS)
    yang = (right <= EYE) | ((left > EYE) & (left <= 0.5 * RADIUS)) | ((points[:, 1] > RADIUS) & (right > 0.5 * RADIUS))
    return torch.where((left <= EYE) | (right <= EYE), 2, yang.long())


class Points(NamedTuple):
    """Points (S, 2), their input spikes, and their classes (S,)."""

    points: Tensor
    x: adjsnn.SpikeTrains
    labels: Tensor


def draw_points(count: int, seed: int, span: float) -> Points:
    """As many points of each class, in random order."""
    generator = torch.Generator().manual_seed(seed)
    wanted = [len(range(k, count, 3)) for k in range(3)]
    found: list[list[Tensor]] = [[], [], []]
    while any(sum(map(len, rows)) < n for rows, n in zip(found, wanted, strict=True)):
        points = torch.rand(4096, 2, generator=generator, dtype=torch.float64)
        points = points[torch.hypot(points[:, 0] - RADIUS, points[:, 1] - RADIUS) <= RADIUS]
        labels = classes_of(points)
        for k, rows in enumerate(found):
            rows.append(points[labels == k])
    points = torch.cat([torch.cat(rows)[:n] for rows, n in zip(found, wanted, strict=True)])
    order = torch.randperm(count, generator=generator)
    return Points(points[order], encode(points[order], span), classes_of(points)[order])


def encode(points: Tensor, span: float) -> adjsnn.SpikeTrains:
    """Five input spikes for each point: x, y, 1-x, 1-y over `span` ms, and one at 0."""
    times = torch.cat([points, 1.0 - points, torch.zeros_like(points[:, :1])], 1) * span
    times, idx = times.to(torch.get_default_dtype()).sort(dim=1, stable=True)
    return adjsnn.SpikeTrains(idx, times, 5, span)


def scores_of(sol: adjsnn.LIFSolution, answer: str) -> Tensor:
    """What is largest for the class that is answered, (S, 3): minus first spike times, or integrals of the readout."""
    if answer == "first_spike":
        return -sol.first_spike_times()
    start = sol.layer_spikes[0].time.new_zeros(sol.layer_spikes[0].batch)
    return sol.readout_integral(start, start + sol.t_end)


def draw_map(axes: Axes, net: adjsnn.LIFNetwork, held_out: Points, wrong: Tensor, config: Config) -> None:
    """Answers over the whole disc without a clock, and held-out points with those answered wrong."""
    side = np.linspace(0.0, 1.0, 161)
    grid = torch.from_numpy(np.stack(np.meshgrid(side, side), -1).reshape(-1, 2))
    inside = torch.hypot(grid[:, 0] - RADIUS, grid[:, 1] - RADIUS) <= RADIUS
    sol = adjsnn.solve(net, encode(grid[inside], config.span), t_end=config.t_end)
    found = scores_of(sol, config.answer).argmax(1)
    answers = np.full(len(grid), np.nan)
    answers[inside.numpy()] = found.numpy()
    answers = answers.reshape(len(side), len(side))
    for k, name in enumerate(CLASSES):
        axes.contourf(side, side, answers == k, levels=[0.5, 1.5], colors=[plotting.COLOURS[k]], alpha=0.45)
        points = held_out.points[(held_out.labels == k) & ~wrong]
        axes.scatter(*points.T, s=4, lw=0, color=plotting.COLOURS[k], label=name)
    axes.scatter(*held_out.points[wrong].T, s=26, marker="x", lw=1.2, color=plotting.INK, label="wrong")
    axes.set(xlabel="x", ylabel="y", aspect="equal", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"answers; {int(wrong.sum())} of {len(wrong)} held-out points wrong", loc="left")
    axes.legend(fontsize=6, loc="upper left", bbox_to_anchor=(-0.02, 1.0), handletextpad=0.1)


def draw_margins(axes: Axes, labels: Tensor, scores: Tensor, config: Config) -> None:
    """How far the right neuron or channel is ahead of the others."""
    mine = one_hot(labels, 3).bool()
    right, others = scores.gather(1, labels[:, None]).squeeze(1), scores.masked_fill(mine, -float("inf")).amax(1)
    names = ("integral of the right channel", "largest of the others")
    if config.answer == "first_spike":
        right, others = (-right).clamp(max=config.t_end), (-others).clamp(max=config.t_end)
        names = ("first spike of the right neuron (ms)", "earliest of the others (ms)")
    for k, name in enumerate(CLASSES):
        axes.scatter(right[labels == k], others[labels == k], s=4, lw=0, color=plotting.COLOURS[k], label=name)
    low, high = float(torch.minimum(right, others).min()) - 1.0, float(torch.maximum(right, others).max()) + 1.0
    axes.plot([low, high], [low, high], color=plotting.INK, lw=0.6, ls="--")
    axes.set(xlabel=names[0], ylabel=names[1], xlim=(low, high), ylim=(low, high))
    axes.set_aspect("equal")
    axes.set_title(f"{'above' if config.answer == 'first_spike' else 'below'} the line: answered right", loc="left")


class YinYang(Experiment[Config]):
    config_type = Config
    captions = {
        "decision_map": "The answer for every point of the disc, and how far the right one is ahead of the others.",
    }
    columns = {
        "accuracy": Column("accuracy", ".4f"),
        "hidden_spikes": Column("spikes per hidden neuron", ".2f"),
        "seconds_to_95": Column("s to 95 %", ".1f"),
        "seconds_to_98": Column("s to 98 %", ".1f"),
    }

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.batch > TRAIN:
            raise adjsnn.ConfigurationError(f"batch={config.batch}", f"1 to {TRAIN}, the training points", "--batch 32")
        sizes = {"train": (TRAIN, 0), "validation": (HELD_OUT, 1_000_000), "held_out": (HELD_OUT, 2_000_000)}
        self.data = {
            name: self.place(draw_points(count, config.seed + offset, config.span)) for name, (count, offset) in sizes.items()
        }

    def network(self) -> adjsnn.LIFNetwork:
        config = self.config
        read = config.answer == "readout"
        return adjsnn.LIFNetwork(
            5,
            (config.hidden,) if read else (config.hidden, 3),
            n_out=3 if read else None,
            tau_out=config.tau_out,
            tau_mem=config.tau_mem,
            tau_syn=config.tau_syn,
            delays=config.delay if "delays" in config.learn else None,
            learn=config.learn,
            generator=self.generator(),
        )

    def optimiser(self, net: adjsnn.LIFNetwork) -> torch.optim.Optimizer:
        parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
        times = [p for name, p in parameters.items() if name.startswith(("delays", "tau"))]
        others = [p for name, p in parameters.items() if not name.startswith(("delays", "tau"))]
        rates = self.config.learning_rate, self.config.times_learning_rate
        groups = [{"params": group, "lr": rate} for group, rate in zip((others, times), rates, strict=True) if group]
        return torch.optim.Adam(groups, betas=(0.9, 0.99))

    def schedule(self, progress: float) -> float:
        rising = self.config.rising
        if progress < rising:
            return 0.04 + 0.96 * 0.5 * (1.0 - math.cos(math.pi * progress / rising))
        return 0.5 * (1.0 + math.cos(math.pi * (progress - rising) / (1.0 - rising)))

    def batch(self, generator: torch.Generator, step: int) -> Points:
        """The next points of an epoch, which shows each once, in an order that the seed and its number give."""
        size = self.config.batch
        epoch, place = divmod(step, TRAIN // size)
        order = torch.randperm(TRAIN, generator=self.generator(3_000_000 + epoch))
        return samples_of(self.data["train"], order[place * size : (place + 1) * size])

    def loss(self, sol: adjsnn.LIFSolution, labels: Tensor) -> Tensor:
        config = self.config
        if config.answer == "readout":
            return cross_entropy(scores_of(sol, config.answer), labels)
        return first_spike_cross_entropy(sol, labels, tau0=config.tau0, alpha=config.alpha, tau1=config.tau1)

    def solve(self, net: adjsnn.LIFNetwork, x: adjsnn.SpikeTrains) -> adjsnn.LIFSolution:
        return adjsnn.solve(net, x, t_end=self.config.t_end, adjoint=self.adjoint(), **self.clock())

    def cost(self, net: adjsnn.LIFNetwork, batch: Points) -> Cost:
        sol = self.solve(net, batch.x)
        return Cost(self.loss(sol, batch.labels), sol)

    def after_step(self, net: adjsnn.LIFNetwork, batch: Points, cost: Cost, rate: float) -> None:
        if self.config.answer == "first_spike":
            wake(net, cost.sol, batch.labels, self.config.wake * rate)
        net.project_(tau_min=SHORTEST, tau_max=LONGEST, margin=0.1)

    def evaluate(self, net: adjsnn.LIFNetwork, split: Split) -> dict[str, float]:
        """Accuracy, loss, hidden spikes, and how often the output neuron of the class is silent."""
        data = self.data[split]
        sol, labels = self.solve(net, data.x), data.labels
        scores = scores_of(sol, self.config.answer)
        return {
            "accuracy": float((scores.argmax(1) == labels).double().mean()),
            "loss": float(self.loss(sol, labels)),
            "hidden_spikes": sol.stats.spikes[0] / (data.x.batch * self.config.hidden),
            "silent": float(scores.gather(1, labels[:, None]).isinf().double().mean()),
        }

    def objective(self, found: dict[str, float]) -> float:
        return -found["accuracy"]

    def summary(self, metrics: Metrics) -> dict[str, float]:
        """Seconds of training, without evaluations, until 95 and 98 % of the validation set were right; nan: never."""
        rows = list(zip(metrics["accuracy"], metrics["seconds"], strict=True))
        return {
            f"seconds_to_{percent}": next((time for accuracy, time in rows if accuracy >= percent / 100), math.nan)
            for percent in (95, 98)
        }

    def figures(self, net: adjsnn.LIFNetwork) -> dict[str, Figure]:
        config, held_out = self.config, self.data["held_out"]
        sol = self.solve(net, held_out.x)
        scores = scores_of(sol, config.answer).detach()
        decisions = plotting.new_figure(7.0, 3.4)
        left, right = decisions.subplots(1, 2)
        draw_map(left, net, held_out, scores.argmax(1) != held_out.labels, config)
        draw_margins(right, held_out.labels, scores, config)

        raster = plotting.new_figure(7.0, 3.6)
        axes = raster.subplots()
        trains = {"input": held_out.x, **dict(zip(("hidden", "output"), sol.layer_spikes, strict=False))}
        plotting.layers_raster(trains, axes=axes)
        (x, y), name, answer = held_out.points[0].tolist(), CLASSES[int(held_out.labels[0])], CLASSES[int(scores[0].argmax())]
        said = f"read as {answer}"
        if config.answer == "first_spike":
            earliest = -float(scores[0].amax())
            said = f"{answer} fires first, at {earliest:.1f} ms"
            axes.axvline(earliest, color=plotting.COLOURS[1], lw=0.6, ls=":")
        axes.set_title(f"one held-out point, ({x:.2f}, {y:.2f}), of class {name}; {said}", loc="left")
        return {"decision_map": decisions, "raster": raster, "events": plotting.event_diagnostics(sol, 0)}


if __name__ == "__main__":
    sys.exit(main(YinYang))
