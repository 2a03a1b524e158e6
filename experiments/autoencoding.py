"""Autoencoding: the network reproduces its own input through neurons that may spike only so often.

    python experiments/autoencoding.py                               random signals of four channels
    python experiments/autoencoding.py --data digits                 pictures of handwritten digits
    python experiments/autoencoding.py --signal my_recording.npy --signal-dt 1.0
    python experiments/autoencoding.py --network lif                 with LIF neurons that jump; also with digits
    python experiments/autoencoding.py --network lif --receptors 2   that have slow synapses beside fast ones

The readout must follow the input low-passed, τ ȯ_d = -o_d + u. A picture of 8 x 8 pixels is shown row after row to 8 channels;
the readout redraws it: the filter is inverted over each row, which gives back the pixels exactly if the readout is o_d. R² is
1 - Σ (o - o_d)² / Σ (o_d - mean of its channel)² over all held-out trials, for pictures over pixels.

    python -m adjsnn.training sweep experiments/autoencoding.py --seeds 3 --grid activity-cost=0.003,0.01,0.03,0.1,0.3
    python experiments/rate_distortion.py runs/sweeps/...            what spikes buy: R² against the rate
"""

import sys
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from coding import C, Coding, CodingConfig, GatedCoding, GatedConfig, LIFCoding, LIFConfig, r_squared, weights_of
from pictures import SIDE, shuffled_digits
from torch import Tensor

import adjsnn
from adjsnn import plotting
from adjsnn.plotting import Figure
from adjsnn.training import Column, Split, main
from adjsnn.training.ranges import Count, NotNegative, Positive

HELD_OUT = 360  # pictures, and as many for validation; 1077 are left to train with


@dataclass(frozen=True)
class Data(CodingConfig):
    """What is coded. Times in ms."""

    data: Literal["signals", "digits"] = "signals"
    channels: Count = 4
    """of random signals"""
    row: Positive = 20.0
    """time for which a row of a picture is shown"""
    brightness: Positive = 0.4
    """input of the brightest pixel"""

    def settled(self) -> Self:
        if self.data == "digits" and self.signal is not None:
            raise adjsnn.ConfigurationError("--signal with --data digits", "one of them", "--data signals")
        if self.data == "digits" and self.row < self.dt:
            raise adjsnn.ConfigurationError(f"row={self.row} with dt={self.dt}", "one step or more", "--row 20")
        return self


@dataclass(frozen=True)
class Gated(GatedConfig, Data):
    """Autoencoding with gated synapses and non-leaky integrate-and-fire neurons. Times in ms."""

    neurons: Count = 60
    activity_cost: NotNegative = 0.03
    learning_rate: Positive = 0.02
    w_in_start: Positive = 0.4


@dataclass(frozen=True)
class LIF(LIFConfig, Data):
    """Autoencoding with LIF neurons that jump. Times in ms."""

    neurons: Count = 100
    activity_cost: NotNegative = 0.15


class Digits:
    """scikit-learn's pictures of digits as trials.

    Args:
        seed: of the order that tells which pictures are trained on, validated on and held out.
        row: time for which a row is shown, ms.
        dt: step, ms.
        brightness: input of the brightest pixel.
    """

    def __init__(self, seed: int, row: float, dt: float, brightness: float) -> None:
        pictures, _ = shuffled_digits(seed)
        self.held: dict[Split, Tensor] = {"held_out": pictures[:HELD_OUT], "validation": pictures[HELD_OUT : 2 * HELD_OUT]}
        self.pictures = pictures[2 * HELD_OUT :]
        self.steps, self.brightness = round(row / dt), brightness

    def shown(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 8, 8) as input (T, B, 8): row after row, from above."""
        return self.brightness * pictures.transpose(0, 1).repeat_interleave(self.steps, dim=0)

    def redrawn(self, readout: Tensor, share: float) -> Tensor:
        """Pictures (B, 8, 8) from a readout (T+1, B, 8) that follows a filter which passes `share` of a row within its time."""
        ends = readout[:: self.steps]
        return ((ends[1:] - (1.0 - share) * ends[:-1]) / (share * self.brightness)).transpose(0, 1)


class Autoencoding(Coding[C]):
    columns = {
        "r2": Column("R²", ".4f"),
        "spikes_per_s": Column("spikes/s per neuron", ".1f"),
        "r2_narrow_gate": Column("R², narrow gate", ".4f"),
        "spikes_per_s_narrow_gate": Column("spikes/s, narrow gate", ".1f"),
        "cost": Column("cost / silent", ".4f"),
    }

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.digits: Digits | None = None
        if config.data == "digits":
            self.digits = Digits(config.seed, config.row, config.dt, config.brightness)
            self.channels = SIDE
            self.fixed = {split: self.place(self.digits.shown(pictures)) for split, pictures in self.digits.held.items()}
            return
        self.use_signals(config.channels)

    @classmethod
    def name(cls) -> str:
        return "autoencoding"

    @property
    def title(self) -> str:
        config: Any = self.config
        return f"Autoencoding, {config.signal.name if config.signal else config.data}"

    def batch(self, generator: torch.Generator, step: int) -> Tensor:
        if self.digits is None:
            return self.trials.training(self.config.batch, generator)
        chosen = torch.randint(len(self.digits.pictures), (self.config.batch,), generator=generator)
        return self.digits.shown(self.digits.pictures[chosen])

    @property
    def passed(self) -> float:
        """Share of a row that the filter's Euler steps pass within its time."""
        assert self.digits is not None
        return 1.0 - (1.0 - self.config.dt / self.tau_target) ** self.digits.steps

    def evaluate(self, net: Any, split: Split) -> dict[str, float]:
        """R² of the readout, of pixels where pictures are shown; R² of the readout beside it then; cost and rate."""
        found = super().evaluate(net, split)
        if self.digits is None:
            return found
        readout = self.solve(net, self.fixed[split]).readout
        pictures = self.digits.held[split].to(readout)
        return {**found, "r2": r_squared(self.digits.redrawn(readout, self.passed), pictures), "r2_readout": found["r2"]}

    def figures(self, net: Any) -> dict[str, Figure]:
        sol = self.solve(net, self.fixed["held_out"][:, :16])
        target = self.target(self.fixed["held_out"][:, :16])
        _, _, w_out = weights_of(net)
        order = torch.argsort(w_out.abs().argmax(0) * 1000.0 - w_out.sum(0))
        drawn = {
            "readout": self.draw_readout(sol, target, order, "neuron, by channel of w_out"),
            "events": plotting.event_diagnostics(sol),
        }
        if self.digits is not None:
            redrawn = self.digits.redrawn(sol.readout, self.passed)
            drawn["pictures"] = draw_pictures(self.digits.held["held_out"][:16], redrawn.cpu())
        return drawn


def draw_pictures(originals: Tensor, redrawn: Tensor) -> Figure:
    """Held-out pictures above what the readout makes of them."""
    figure = plotting.new_figure(7.2, 1.4)
    axes = figure.subplots(2, len(originals))
    for row, (pictures, name) in zip(axes, ((originals, "shown"), (redrawn, "redrawn")), strict=True):
        for place, picture in zip(row, pictures, strict=True):
            place.imshow(np.asarray(picture), cmap="gray_r", vmin=0.0, vmax=1.0, interpolation="nearest")
            place.set(xticks=[], yticks=[])
            place.spines[:].set_visible(True)
            place.spines[:].set_linewidth(0.4)
        row[0].set_ylabel(name, fontsize=7)
    return figure


class GatedAutoencoding(Autoencoding[Gated], GatedCoding[Gated]):
    config_type = Gated


class LIFAutoencoding(Autoencoding[LIF], LIFCoding[LIF]):
    config_type = LIF


if __name__ == "__main__":
    sys.exit(main(GatedAutoencoding, LIFAutoencoding))
