"""Digits: pictures told by when each pixel spikes, answered by the output neuron that spikes first; convolutional.

    python experiments/digits.py                    train, four minutes
    python experiments/digits.py --quick            a quarter of that

Each pixel of scikit-learn's 8 x 8 pictures is two input neurons: one spikes the earlier the brighter it is, the other the
earlier the darker. A convolution of LIF neurons and a dense layer of ten follow. Spikes are located and gradients computed
event by event, without a time grid; the loss is the cross-entropy of first spike times (docs/equations.md, 2.14).

A neuron that stays silent has no spike time and so no gradient. Remedies, outside the gradient: every window of the convolution
gets the same number of input spikes, whatever the picture, and weights start so large that neurons spike; and where an output
neuron was silent though its own digit was shown, its weights rise (`wake`, as in yin_yang.py).
"""

import math
import sys
from dataclasses import dataclass, replace
from typing import Annotated, Literal, NamedTuple, Self

import torch
from pictures import SIDE, shuffled_digits
from torch import Tensor
from torch.nn.functional import grid_sample
from yin_yang import wake

import adjsnn
from adjsnn import plotting
from adjsnn.lif.conv import Conv2d
from adjsnn.losses import first_spike_cross_entropy
from adjsnn.plotting import Figure
from adjsnn.training import Column, Cost, Experiment, Split, TrainingConfig, main
from adjsnn.training.ranges import Count, NotNegative, Positive, Range, Share

HELD_OUT = 360  # pictures, and as many for validation; 1077 are left to train with
CLASSES, SHOWN = 10, 12


@dataclass(frozen=True)
class Config(TrainingConfig):
    """Digits with convolutional LIF neurons that jump. Times in ms."""

    network: Literal["lif"] = "lif"
    maps: Count = 32
    """of the convolution"""
    kernel: Annotated[int, Range(1, SIDE)] = 4
    """side of its windows"""
    stride: Annotated[int, Range(1, SIDE)] = 2
    """pixels between windows"""
    tau_mem: Positive = 20.0
    tau_syn: Positive = 5.0
    span: Positive = 20.0
    """time over which the brightness of a pixel is spread"""
    t_end: Positive = 40.0
    iterations: Count = 2000
    batch: Count = 32
    learning_rate: Positive = 0.05
    """in units of the standard deviations of the random start"""
    rising: Share = 0.05
    """share of the training in which the learning rate rises to this; then it falls by a half cosine"""
    clip: NotNegative = 0.0
    averaging: Annotated[float, Range(0.0, 1.0, below=True)] = 0.99
    log_every: Count = 100
    save_every: Count = 100
    shift: NotNegative = 0.6
    """pictures in training are moved by up to so many pixels, all drawn anew each time"""
    turn: NotNegative = 12.0
    """turned by up to so many degrees"""
    stretch: Annotated[float, Range(0.0, 1.0, below=True)] = 0.1
    """and stretched by up to this share, or shrunk"""
    tau0: Positive = 0.5
    alpha: NotNegative = 0.001
    tau1: Positive = 6.4
    """of the loss"""
    wake: NotNegative = 1.0
    """how fast silent output neurons are woken, in learning rates; 0: not at all"""
    quick: bool = False
    """500 iterations"""

    def settled(self) -> Self:
        return replace(self, iterations=500) if self.quick else self


class Pictures(NamedTuple):
    """Input spikes of pictures, and their digits (S,)."""

    x: adjsnn.SpikeTrains
    labels: Tensor


def encode(pictures: Tensor, span: float) -> adjsnn.SpikeTrains:
    """Spikes of two maps, 128 neurons: in the first at 0 for the brightest and at `span` for the darkest pixels, in the second
    the other way round."""
    both = torch.stack([1.0 - pictures, pictures], 1).flatten(1)
    return adjsnn.SpikeTrains.latency(both.to(torch.get_default_dtype()), span)


def moved(pictures: Tensor, shifts: Tensor, turns: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
    """Pictures (S, 8, 8) moved by shifts (S, 2) in pixels, right and down; between pixels linearly, dark beyond the edge.

    Before that turned clockwise about their middle by `turns` (S,) in degrees, and stretched `sizes` (S,) times.
    """
    places = 2.0 * (torch.arange(SIDE, dtype=pictures.dtype) + 0.5) / SIDE - 1.0
    y, x = torch.meshgrid(places, places, indexing="ij")
    grid = torch.stack([x, y], -1) - 2.0 / SIDE * shifts.to(pictures)[:, None, None]
    if turns is not None:
        angle = torch.deg2rad(turns.to(pictures))
        cos, sin = angle.cos(), angle.sin()
        grid = grid @ torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)[:, None]
    if sizes is not None:
        grid = grid / sizes.to(pictures)[:, None, None, None]
    return grid_sample(pictures[:, None], grid, align_corners=False)[:, 0].clamp(0.0, 1.0)


class Digits(Experiment[Config]):
    config_type = Config
    captions = {
        "kernels": "The weights of each map of the convolution, from bright and from dark pixels.",
        "wrong": "Held-out pictures that are told wrong.",
    }
    columns = {
        "accuracy": Column("accuracy", ".4f"),
        "hidden_spikes": Column("spikes per hidden neuron", ".2f"),
        "silent": Column("silent where it is right", ".4f"),
    }

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        pictures, labels = shuffled_digits(config.seed)
        self.pictures, self.labels = pictures[2 * HELD_OUT :], labels[2 * HELD_OUT :]
        if config.batch > len(self.labels):
            seen = f"batch={config.batch}"
            raise adjsnn.ConfigurationError(seen, f"1 to {len(self.labels)}, the training pictures", "--batch 32")
        parts: dict[Split, slice] = {"held_out": slice(HELD_OUT), "validation": slice(HELD_OUT, 2 * HELD_OUT)}
        self.held = {split: pictures[part] for split, part in parts.items()}
        self.data = {
            split: self.place(Pictures(encode(pictures[part], config.span), labels[part])) for split, part in parts.items()
        }

    def network(self) -> adjsnn.LIFConv2d:
        config = self.config
        stack = [Conv2d(config.maps, config.kernel, config.stride), CLASSES]
        return adjsnn.LIFConv2d(
            (2, SIDE, SIDE), stack, tau_mem=config.tau_mem, tau_syn=config.tau_syn, generator=self.generator()
        )

    def sizes(self, net: adjsnn.LIFConv2d) -> dict[str, float | Tensor]:
        """Standard deviations of the random start."""
        return {f"w_in.{k}": float(w.detach().std()) for k, w in enumerate(self.network().w_in)}

    def schedule(self, progress: float) -> float:
        rising = self.config.rising
        if progress < rising:
            return 0.04 + 0.96 * 0.5 * (1.0 - math.cos(math.pi * progress / rising))
        return 0.5 * (1.0 + math.cos(math.pi * (progress - rising) / (1.0 - rising)))

    def batch(self, generator: torch.Generator, step: int) -> Pictures:
        config = self.config
        chosen = torch.randint(len(self.labels), (config.batch,), generator=generator)
        most = torch.tensor([config.shift, config.shift, config.turn, config.stretch])
        drawn = most * (2.0 * torch.rand(config.batch, 4, generator=generator) - 1.0)
        pictures = moved(self.pictures[chosen], drawn[:, :2], drawn[:, 2], 1.0 + drawn[:, 3])
        return Pictures(encode(pictures, config.span), self.labels[chosen])

    def loss(self, sol: adjsnn.LIFSolution, labels: Tensor) -> Tensor:
        config = self.config
        return first_spike_cross_entropy(sol, labels, tau0=config.tau0, alpha=config.alpha, tau1=config.tau1)

    def solve(self, net: adjsnn.LIFConv2d, x: adjsnn.SpikeTrains) -> adjsnn.LIFSolution:
        return adjsnn.solve(net, x, t_end=self.config.t_end, adjoint=self.adjoint(), **self.clock())

    def cost(self, net: adjsnn.LIFConv2d, batch: Pictures) -> Cost:
        sol = self.solve(net, batch.x)
        return Cost(self.loss(sol, batch.labels), sol)

    def after_step(self, net: adjsnn.LIFConv2d, batch: Pictures, cost: Cost, rate: float) -> None:
        wake(net, cost.sol, batch.labels, self.config.wake * rate)

    def evaluate(self, net: adjsnn.LIFConv2d, split: Split) -> dict[str, float]:
        """Accuracy, loss, hidden spikes, and how often the neuron of the right digit is silent."""
        data = self.data[split]
        sol, labels = self.solve(net, data.x), data.labels
        first = sol.first_spike_times()
        return {
            "accuracy": float((first.argmin(1) == labels).double().mean()),
            "loss": float(self.loss(sol, labels)),
            "hidden_spikes": sol.stats.spikes[0] / (data.x.batch * net.layers[0]),
            "silent": float(first.gather(1, labels[:, None]).isinf().double().mean()),
        }

    def objective(self, found: dict[str, float]) -> float:
        return found["loss"]

    def figures(self, net: adjsnn.LIFConv2d) -> dict[str, Figure]:
        data = self.data["held_out"]
        sol = self.solve(net, data.x)
        answers = sol.first_spike_times().argmin(1)
        raster = plotting.new_figure(7.0, 3.6)
        axes = raster.subplots()
        trains = {"input": data.x, "maps": sol.layer_spikes[0], "output": sol.layer_spikes[1]}
        plotting.layers_raster(trains, axes=axes)
        axes.set_title(f"a held-out picture of a {int(data.labels[0])}; {int(answers[0])} fires first", loc="left")
        return {
            "kernels": draw_kernels(net.kernels(0).detach().cpu()),
            "wrong": self._draw_wrong(answers),
            "raster": raster,
            "events": plotting.event_diagnostics(sol, 0),
        }

    def _draw_wrong(self, answers: Tensor) -> Figure:
        """The first held-out pictures that are answered wrong."""
        labels = self.data["held_out"].labels
        wrong = (answers != labels).nonzero()[:, 0].tolist()
        figure = plotting.new_figure(7.2, 1.2)
        places = figure.subplots(1, SHOWN)
        for place in places:
            place.axis("off")
        for place, k in zip(places, wrong, strict=False):
            place.imshow(self.held["held_out"][k].numpy(), cmap="gray_r", vmin=0.0, vmax=1.0, interpolation="nearest")
            place.set_title(f"{int(labels[k])}, not {int(answers[k])}", fontsize=6)
        figure.suptitle(f"{len(wrong)} of {len(labels)} held-out pictures wrong", fontsize=8)
        return figure


def draw_kernels(kernels: Tensor) -> Figure:
    """Weights of each map (maps, 2, kernel, kernel) from bright pixels, above, and from dark ones."""
    figure = plotting.new_figure(7.2, 1.6)
    most = float(kernels.abs().max())
    rows = figure.subplots(2, len(kernels), squeeze=False)
    for row, part, name in zip(rows, kernels.transpose(0, 1), ("bright", "dark"), strict=True):
        for place, kernel in zip(row, part, strict=True):
            place.imshow(kernel.numpy(), cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
            place.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=7)
    return figure


if __name__ == "__main__":
    sys.exit(main(Digits))
