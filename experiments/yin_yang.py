"""Yin-Yang: which part of a yin-yang figure is a point in? Told and answered by the times of single spikes.

    python experiments/yin_yang.py                                    train, under a minute
    python experiments/yin_yang.py --quick                            ten seconds
    python experiments/yin_yang.py --learn weights delays             transmission delays as well

Three classes of points in a disc (yin, yang, the two eyes; Kriener, Göltz and Petrovici 2022) reach a layer of LIF neurons as
spikes at x, y, 1-x, 1-y and a fifth at 0. The class is the output neuron that spikes first. Spikes are located and gradients
computed event by event, without a time grid; the loss is the cross-entropy of first spike times (docs/equations.md, 2.14).

A neuron that stays silent has no spike time and so no gradient. Remedy, outside the gradient: after each step the weights into
an output neuron rise by `wake` times the learning rate times the share of its own class in which it was silent.
"""

import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import tyro
from matplotlib.axes import Axes
from torch import Tensor
from torch.nn.functional import one_hot
from tqdm import tqdm

import adjsnn
from adjsnn import plotting
from adjsnn.losses import first_spike_cross_entropy
from adjsnn.training.runs import RunFolder

CLASSES = ("yin", "yang", "eyes")
RADIUS, EYE = 0.5, 0.1
TRAIN, HELD_OUT = 5000, 1000
SHORTEST, LONGEST = 1.0, 100.0  # bounds of a learnt time constant, ms


@dataclass(frozen=True)
class Config:
    """Yin-Yang with LIF neurons that jump. Times in ms."""

    seed: int = 0
    hidden: int = 200
    tau_mem: float = 20.0
    tau_syn: float = 5.0
    learn: tuple[str, ...] = ("weights",)
    """of weights, delays, tau_mem, tau_syn, v_th, v_reset, bias"""
    delay: float = 1.0
    """of all connections at the start, where delays are learnt"""
    span: float = 30.0
    """time over which a coordinate from 0 to 1 is spread"""
    t_end: float = 60.0
    epochs: int = 60
    batch: int = 32
    learning_rate: float = 0.01
    """of Adam with betas 0.9 and 0.99, for weights"""
    times_learning_rate: float = 0.05
    """for delays and time constants, ms"""
    rising: float = 0.1
    """share of the training in which the learning rates rise to these values; then they fall by a half cosine"""
    tau0: float = 0.5
    alpha: float = 0.001
    tau1: float = 6.4
    """of the loss"""
    wake: float = 5.0
    """how fast silent output neurons are woken, in learning rates; 0: not at all"""
    runs: Path = Path("runs")
    """where run folders are made"""
    threads: int = 1
    """torch threads, also those of the compiled loops"""
    quick: bool = False
    """12 epochs with 120 hidden neurons"""


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


def chosen(trains: adjsnn.SpikeTrains, samples: Tensor) -> adjsnn.SpikeTrains:
    """Some of the samples."""
    return adjsnn.SpikeTrains(trains.idx[samples], trains.time[samples], trains.n_neurons, trains.t_max)


def new_network(config: Config) -> adjsnn.LIFNetwork:
    return adjsnn.LIFNetwork(
        5,
        (config.hidden, 3),
        tau_mem=config.tau_mem,
        tau_syn=config.tau_syn,
        delays=config.delay if "delays" in config.learn else None,
        learn=config.learn,
        generator=torch.Generator().manual_seed(config.seed),
    )


@torch.no_grad()
def evaluate(net: adjsnn.LIFNetwork, data: Points, config: Config) -> dict[str, float]:
    """Accuracy, loss, hidden spikes and silence."""
    sol, labels = adjsnn.solve(net, data.x, t_end=config.t_end), data.labels
    first = sol.first_spike_times()
    right = first.gather(1, labels[:, None]).isinf()
    return {
        "accuracy": float((first.argmin(1) == labels).double().mean()),
        "loss": float(first_spike_cross_entropy(sol, labels, tau0=config.tau0, alpha=config.alpha, tau1=config.tau1)),
        "hidden_spikes": sol.stats.spikes[0] / (data.x.batch * config.hidden),
        "silent": float(right.double().mean()),
    }


@torch.no_grad()
def wake(net: adjsnn.LIFNetwork, sol: adjsnn.LIFSolution, labels: Tensor, rise: float) -> None:
    """Raise the weights into output neurons that are silent when their own class is shown."""
    own = one_hot(labels, 3).bool()
    silent = (sol.first_spike_times().isinf() & own).sum(0) / own.sum(0).clamp(min=1)
    net.w_in[-1].add_(rise * silent[:, None])


@torch.no_grad()
def keep_in_bounds(net: adjsnn.LIFNetwork) -> None:
    """Delays stay positive, time constants within bounds, resets below thresholds."""
    for layer, delays in enumerate(net.delays):
        if delays is not None:
            delays.clamp_(min=0.0)
        for tau in (net.tau_mem[layer], net.tau_syn[layer]):
            tau.clamp_(SHORTEST, LONGEST)
        net.v_reset[layer].copy_(torch.minimum(net.v_reset[layer], net.v_th[layer] - 0.1))


def train(net: adjsnn.LIFNetwork, data: dict[str, Points], config: Config, run: RunFolder) -> dict[str, float]:
    """Train, log every epoch, keep the network that is best on the validation set.

    Returns:
        seconds of training, without evaluations, in all and until 95 and 98 % of the validation set were right.
    """
    parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
    times = [p for name, p in parameters.items() if name.startswith(("delays", "tau"))]
    others = [p for name, p in parameters.items() if not name.startswith(("delays", "tau"))]
    groups = [{"params": others, "lr": config.learning_rate}, {"params": times, "lr": config.times_learning_rate}]
    optimiser = torch.optim.Adam([group for group in groups if group["params"]], betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        [group["lr"] for group in optimiser.param_groups],
        epochs=config.epochs,
        steps_per_epoch=-(-TRAIN // config.batch),
        pct_start=config.rising,
        cycle_momentum=False,
    )
    generator = torch.Generator().manual_seed(config.seed)
    _, x, labels = data["train"]
    found: dict[str, float] = {"seconds": 0.0, "seconds_to_95": math.nan, "seconds_to_98": math.nan}
    best = -math.inf
    progress = tqdm(range(1, config.epochs + 1), unit="epoch", file=sys.stdout, mininterval=0.5)
    for epoch in progress:
        started, total = time.perf_counter(), 0.0
        for samples in torch.randperm(TRAIN, generator=generator).split(config.batch):
            sol = adjsnn.solve(net, chosen(x, samples), t_end=config.t_end)
            loss = first_spike_cross_entropy(sol, labels[samples], tau0=config.tau0, alpha=config.alpha, tau1=config.tau1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(samples) / TRAIN
            wake(net, sol, labels[samples], config.wake * optimiser.param_groups[0]["lr"])
            keep_in_bounds(net)
            schedule.step()
        found["seconds"] += time.perf_counter() - started
        row = evaluate(net, data["validation"], config)
        for percent in (95, 98):
            if row["accuracy"] >= percent / 100 and math.isnan(found[f"seconds_to_{percent}"]):
                found[f"seconds_to_{percent}"] = found["seconds"]
        if row["accuracy"] > best:
            best = row["accuracy"]
            run.save_best(net)
        run.log({"iteration": epoch, "train_loss": total, **row, "seconds": found["seconds"]})
        progress.set_description(f"accuracy {row['accuracy']:.3f}  {row['hidden_spikes']:.1f} spikes per hidden neuron")
    return found


@torch.no_grad()
def draw(net: adjsnn.LIFNetwork, held_out: Points, config: Config, run: RunFolder) -> list[Path]:
    """The figures of the run."""
    figures = {}
    figure = figures["decision_map"] = plotting.new_figure(7.0, 3.4)
    left, right = figure.subplots(1, 2)
    first = adjsnn.solve(net, held_out.x, t_end=config.t_end).first_spike_times()
    draw_map(left, net, held_out, first, config)
    draw_first_spikes(right, held_out.labels, first, config)

    figure = figures["raster"] = plotting.new_figure(7.0, 3.6)
    axes = figure.subplots()
    sol = adjsnn.solve(net, held_out.x, t_end=config.t_end)
    plotting.layers_raster(axes, {"input": held_out.x, "hidden": sol.layer_spikes[0], "output": sol.layer_spikes[1]})
    (x, y), name, answer = held_out.points[0].tolist(), CLASSES[int(held_out.labels[0])], CLASSES[int(first[0].argmin())]
    axes.set_title(
        f"one held-out point, ({x:.2f}, {y:.2f}), of class {name}; {answer} fires first, at {float(first[0].amin()):.1f} ms",
        loc="left",
    )
    axes.axvline(float(first[0].amin()), color=plotting.COLOURS[1], lw=0.6, ls=":")

    figure = figures["learning"] = plotting.new_figure(7.0, 2.6)
    left, middle, right = figure.subplots(1, 3)
    metrics = run.metrics()
    metrics["error"] = [max(100.0 * (1.0 - a), 0.05) for a in metrics["accuracy"]]
    plotting.learning_curves(left, metrics, {"error": "validation"}, ylabel="wrong (%)", step="epoch")
    plotting.learning_curves(middle, metrics, {"loss": "validation"}, ylabel="loss", step="epoch")
    plotting.learning_curves(
        right, metrics, {"hidden_spikes": "per hidden neuron"}, ylabel="spikes per trial", log=False, step="epoch"
    )
    paths = []
    for name, figure in figures.items():
        paths.append(run.path / "figures" / f"{name}.png")
        figure.savefig(paths[-1])
    return paths


def draw_map(axes: Axes, net: adjsnn.LIFNetwork, held_out: Points, first: Tensor, config: Config) -> None:
    """Answers over the whole disc, and held-out points with those answered wrong."""
    side = np.linspace(0.0, 1.0, 161)
    grid = torch.from_numpy(np.stack(np.meshgrid(side, side), -1).reshape(-1, 2))
    inside = torch.hypot(grid[:, 0] - RADIUS, grid[:, 1] - RADIUS) <= RADIUS
    found = adjsnn.solve(net, encode(grid[inside], config.span), t_end=config.t_end).first_spike_times().argmin(1)
    answers = np.full(len(grid), np.nan)
    answers[inside.numpy()] = found.numpy()
    answers = answers.reshape(len(side), len(side))
    wrong = first.argmin(1) != held_out.labels
    for k, name in enumerate(CLASSES):
        axes.contourf(side, side, answers == k, levels=[0.5, 1.5], colors=[plotting.COLOURS[k]], alpha=0.45)
        points = held_out.points[(held_out.labels == k) & ~wrong]
        axes.scatter(*points.T, s=4, lw=0, color=plotting.COLOURS[k], label=name)
    axes.scatter(*held_out.points[wrong].T, s=26, marker="x", lw=1.2, color=plotting.INK, label="wrong")
    axes.set(xlabel="x", ylabel="y", aspect="equal", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"answers; {int(wrong.sum())} of {len(wrong)} held-out points wrong", loc="left")
    axes.legend(fontsize=6, loc="upper left", bbox_to_anchor=(-0.02, 1.0), handletextpad=0.1)


def draw_first_spikes(axes: Axes, labels: Tensor, first: Tensor, config: Config) -> None:
    """How far the right neuron is ahead of the others."""
    right = first.gather(1, labels[:, None]).squeeze(1).clamp(max=config.t_end)
    others = torch.where(one_hot(labels, 3).bool(), float("inf"), first).amin(1).clamp(max=config.t_end)
    for k, name in enumerate(CLASSES):
        axes.scatter(right[labels == k], others[labels == k], s=4, lw=0, color=plotting.COLOURS[k], label=name)
    low, high = float(torch.minimum(right, others).min()) - 1.0, float(torch.maximum(right, others).max()) + 1.0
    axes.plot([low, high], [low, high], color=plotting.INK, lw=0.6, ls="--")
    axes.set(
        xlabel="first spike of the right neuron (ms)", ylabel="earliest of the others (ms)", xlim=(low, high), ylim=(low, high)
    )
    axes.set_aspect("equal")
    axes.set_title("above the line: answered right", loc="left")


def main(argv: list[str] | None = None) -> int:
    config = tyro.cli(Config, args=argv)
    torch.set_num_threads(config.threads)
    if config.quick:
        config = replace(config, epochs=12, hidden=120)
    try:
        sizes = {"train": (TRAIN, 0), "validation": (HELD_OUT, 1_000_000), "held_out": (HELD_OUT, 2_000_000)}
        data = {name: draw_points(count, config.seed + offset, config.span) for name, (count, offset) in sizes.items()}
        net = new_network(config)
        run = RunFolder(config.runs, "yin_yang", config, sys.argv if argv is None else argv)
        found: dict[str, float] = {"seconds": math.nan}
        try:
            found = train(net, data, config, run)
        except KeyboardInterrupt:
            print("\nstopped; going on with the best network so far")
        run.load_best(net)
    except adjsnn.AdjsnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    result = evaluate(net, data["held_out"], config)
    run.write_json("summary.json", {"held_out": result, "training": found, "epochs": config.epochs, "hidden": config.hidden})
    paths = draw(net, data["held_out"], config, run)
    print(
        f"\nheld-out points: {100 * result['accuracy']:.1f} % right, {result['hidden_spikes']:.2f} spikes per hidden neuron"
        f"\ntrained in {found['seconds']:.0f} s; pictures:"
    )
    for path in paths:
        print(f"  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
