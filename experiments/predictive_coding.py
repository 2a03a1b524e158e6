"""Predictive coding: a spiking network learns to represent its input, low-passed, with as few spikes as it can.

    python experiments/predictive_coding.py                          train, some seconds
    python experiments/predictive_coding.py --quick                  half of that
    python experiments/predictive_coding.py --network lif            with LIF neurons that jump
    python experiments/predictive_coding.py --network lif --receptors 2   that have slow synapses beside fast ones
    python experiments/predictive_coding.py --signal my_recording.npy --signal-dt 1.0

The readout o must follow τ_s ȯ_d = -o_d + u. The cost is ∫‖o - o_d‖² over that of a silent network, plus λ times the mean
over neurons of (charge released per second / 60)². Everything starts random; the solution is known (docs/equations.md, 1.13).
"""

import sys
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from coding import C, Coding, CodingConfig, GatedCoding, GatedConfig, LIFCoding, LIFConfig, weights_of
from torch import Tensor

from adjsnn import plotting
from adjsnn.plotting import Figure
from adjsnn.training import Column, Split, main


@dataclass(frozen=True)
class Quick(CodingConfig):
    """Predictive coding. Times in ms."""

    quick: bool = False
    """stop after a short training that already shows a learnt readout"""

    def settled(self) -> Self:
        return replace(self, iterations=100) if self.quick else self


@dataclass(frozen=True)
class Gated(GatedConfig, Quick):
    """Predictive coding with gated synapses and non-leaky integrate-and-fire neurons. Times in ms."""


@dataclass(frozen=True)
class LIF(LIFConfig, Quick):
    """Predictive coding with LIF neurons that jump. Times in ms."""


class PredictiveCoding(Coding[C]):
    captions = {
        "weights": "Learnt weights against those of the known solution.",
    }
    columns = {
        "cost": Column("cost / silent", ".4f"),
        "spikes_per_s": Column("spikes/s per neuron", ".1f"),
        "corr_rec": Column("corr(W_rec, -W_in W_out)", ".3f"),
        "corr_in_out": Column("corr(W_out, W_inᵀ)", ".3f"),
        "cost_narrow_gate": Column("cost, narrow gate", ".4f"),
    }

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.use_signals(2)

    @classmethod
    def name(cls) -> str:
        return "predictive_coding"

    def batch(self, generator: torch.Generator, step: int) -> Tensor:
        return self.trials.training(self.config.batch, generator)

    def evaluate(self, net: Any, split: Split) -> dict[str, float]:
        """Also the correlations of the learnt weights with their known solution."""
        w_in, w_rec, w_out = weights_of(net)
        off_diagonal = ~torch.eye(self.config.neurons, dtype=torch.bool)
        predicted = -w_in @ w_out
        return {
            **super().evaluate(net, split),
            "corr_rec": float(torch.corrcoef(torch.stack([w_rec[off_diagonal], predicted[off_diagonal]]))[0, 1]),
            "corr_in_out": float(torch.corrcoef(torch.stack([w_out.flatten(), w_in.T.flatten()]))[0, 1]),
        }

    def figures(self, net: Any) -> dict[str, Figure]:
        u = self.fixed["held_out"]
        sol = self.solve(net, u)
        return {
            "readout": self._draw(net, sol, u),
            "weights": self._draw_weights(net),
            "events": plotting.event_diagnostics(sol),
        }

    def _draw(self, net: Any, sol: Any, u: Tensor) -> Figure:
        w_in, _, w_out = weights_of(net)
        figure = plotting.new_figure(7.0, 5.4)
        top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(1.2, 1.0, 1.3))
        plotting.readout(sol, self.target(u), axes=top)
        top.set_title("held-out signal: readout against target", loc="left")
        planar = len(w_out) == 2
        angle = torch.atan2(w_out[1], w_out[0]) if planar else w_out[0]
        neuron = int(w_in.norm(dim=1).argmax())
        external, recurrent = self.currents(net, sol, u, neuron)
        title = f"currents into neuron {neuron}"
        plotting.balanced_currents(sol.ts[:-1], external, recurrent, title=title, unit=self.current_unit, axes=middle)
        plotting.raster(sol, order=torch.argsort(angle), axes=bottom)
        bottom.set_ylabel("neuron, by\ndirection of w_out" if planar else "neuron, by w_out")
        for axes in (top, middle):
            axes.set_xlabel("")
        return figure

    def _draw_weights(self, net: Any) -> Figure:
        w_in, w_rec, w_out = weights_of(net)
        figure = plotting.new_figure(7.0, 3.6)
        left, right = figure.subplots(1, 2)
        off_diagonal = ~torch.eye(self.config.neurons, dtype=torch.bool)
        predicted = -w_in @ w_out
        plotting.learnt_against_predicted(
            w_rec[off_diagonal], predicted[off_diagonal], "learnt $W_{rec}$ (off-diagonal)", "$-W_{in} W_{out}$", axes=left
        )
        scale = w_out.norm() / w_in.norm()
        plotting.learnt_against_predicted(
            w_out, w_in.T * scale, "learnt $W_{out}$", rf"$W_{{in}}^T$ scaled by {float(scale):.2g}", axes=right
        )
        return figure


class GatedPredictiveCoding(PredictiveCoding[Gated], GatedCoding[Gated]):
    config_type = Gated


class LIFPredictiveCoding(PredictiveCoding[LIF], LIFCoding[LIF]):
    config_type = LIF


if __name__ == "__main__":
    sys.exit(main(GatedPredictiveCoding, LIFPredictiveCoding))
