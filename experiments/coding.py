"""What predictive coding and autoencoding share: a network whose readout follows its low-passed input with few spikes.

The readout o must follow τ ȯ_d = -o_d + u, with τ that of its own filter unless another is given. The cost is ∫‖o - o_d‖² over
that of a silent network, plus λ times the mean over neurons of (spikes/s / 60)². A class for each family of networks;
`predictive_coding.py` and `autoencoding.py` build on them.
"""

from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from torch import Tensor

import adjsnn
from adjsnn import plotting
from adjsnn.losses import firing_rate, normalised_cost
from adjsnn.plotting import Figure
from adjsnn.signals import lowpass
from adjsnn.training import Cost, Experiment, Split, TrainingConfig, batch_mean
from adjsnn.training.ranges import Count, NotNegative, Positive, Range
from adjsnn.training.trials import SignalTrials

NARROW = 0.02  # width of a gate that is as good as a spike


@dataclass(frozen=True)
class CodingConfig(TrainingConfig):
    """Settings of both families. Times in ms."""

    neurons: Count = 30
    tau_slow: Positive = 10.0
    """of the readout's filter"""
    tau_target: NotNegative = 0.0
    """of the target; 0: that of the readout's filter"""
    dt: Positive = 0.1
    activity_cost: NotNegative = 0.024
    """λ"""
    w_in_start: Positive = 1.0
    """standard deviations of the random start"""
    w_out_start: NotNegative = 0.014
    w_rec_start: NotNegative = 0.02
    window: Positive = 100.0
    """length of a training trial"""
    held_out_window: Positive = 300.0
    """length of a validation or held-out trial"""
    signal: Path | None = None
    """.npy or .csv recording, one row per time, in place of random signals"""
    signal_dt: Positive = 1.0
    """time between the recording's samples"""


@dataclass(frozen=True)
class GatedConfig(CodingConfig):
    """Gated synapses and non-leaky integrate-and-fire neurons. Times in ms."""

    network: Literal["gated"] = "gated"
    tau_fast: Positive = 1.0
    gate_width: Positive = 0.3
    learning_rate: Positive = 0.015


@dataclass(frozen=True)
class LIFConfig(CodingConfig):
    """LIF neurons that jump. Times in ms."""

    network: Literal["lif"] = "lif"
    neurons: Count = 60
    tau_mem: Positive = 10.0
    tau_syn: Positive = 0.5
    receptors: Annotated[int, Range(1, 2)] = 1
    """2: neurons also have slow synapses beside the fast ones, each with weights of its own"""
    tau_syn_slow: Positive = 10.0
    """of the slow ones"""
    v_reset: float = -1.0
    """-1 makes the range of the voltage symmetric: a spike turns an error of a threshold into one of minus a threshold"""
    dt: Positive = 0.5
    """step of the input and of the target; spikes are located inside"""
    window: Positive = 60.0
    batch: Count = 16
    iterations: Count = 300
    learning_rate: Positive = 0.007
    """in units of the sizes of a balanced network's weights"""
    clip: NotNegative = 0.1
    """largest norm of the gradient, by weights in those units"""
    activity_cost: NotNegative = 0.06
    activity_tau: Positive = 20.0
    """filter of the rate that the price of activity is on"""
    w_in_start: Positive = 25.0
    w_out_start: NotNegative = 0.005
    w_rec_start: NotNegative = 0.2
    spike_size: Positive = 0.5
    """of a spike in the readout's filter, in the balanced network that gives the sizes"""


G = TypeVar("G", bound=GatedConfig)
L = TypeVar("L", bound=LIFConfig)
C = TypeVar("C", bound=CodingConfig)

Currents = tuple[Tensor, Tensor]


class Coding(Experiment[C]):
    """Follow the low-passed input. A subclass has trials `fixed["validation" | "held_out"]`, (T, B, C), and draws batches."""

    channels: int
    fixed: dict[Split, Tensor]
    trials: SignalTrials

    def use_signals(self, channels: int) -> None:
        """Trials of random signals of so many channels, or of the recording that the configuration names."""
        config = self.config
        about = {"signal": config.signal, "signal_dt": config.signal_dt}
        self.trials = SignalTrials(config.seed, channels, config.dt, config.window, config.held_out_window, **about)
        self.channels = self.trials.channels
        self.fixed = {split: self.place(u) for split, u in self.trials.fixed.items()}

    def target(self, u: Tensor) -> Tensor:
        """o_d, (T+1, B, C)."""
        return lowpass(u, self.config.dt, self.tau_target)

    @property
    def tau_target(self) -> float:
        """Time constant of the target's filter, ms."""
        return self.config.tau_target or self.config.tau_slow

    def solve(self, net: Any, u: Tensor) -> Any:
        raise NotImplementedError

    def evaluate(self, net: Any, split: Split) -> dict[str, float]:
        """Cost over that of silence, share of the target's variance that the readout has, spikes per second and neuron."""
        u = self.fixed[split]
        sol, target = self.solve(net, u), self.target(u)
        return {
            "cost": float(normalised_cost(sol, target)),
            "r2": r_squared(sol.readout, target),
            "spikes_per_s": sol.stats.layer_spikes[-1] / (len(u) * self.config.dt / 1000.0 * u.shape[1] * self.config.neurons),
        }

    def objective(self, found: dict[str, float]) -> float:
        return found["cost"] + self.config.activity_cost * (found["spikes_per_s"] / 60.0) ** 2

    current_unit = ""

    def currents(self, net: Any, sol: Any, u: Tensor, neuron: int) -> Currents:
        raise NotImplementedError

    def draw_readout(self, sol: Any, target: Tensor, order: Tensor, order_label: str) -> Figure:
        """Readout against target, and the raster of one trial."""
        figure = plotting.new_figure(7.0, 4.2)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1.2, 1.3))
        plotting.readout(sol, target, axes=top)
        top.set_title("a held-out trial: readout against target", loc="left")
        top.set_xlabel("")
        plotting.raster(sol, order=order, axes=bottom)
        bottom.set_ylabel(order_label)
        return figure


class GatedCoding(Coding[G]):
    """With gated synapses; u is held over each step."""

    current_unit = "1/ms"

    def network(self) -> adjsnn.GatedSynapseNetwork:
        """Random start: independent Gaussian weights.

        Input weights near their final size and readout weights near zero make the gradient of w_out point along w_inᵀ from the
        first step; recurrent weights start small because the cost hardly sees, and so never removes, what noise they begin
        with.
        """
        config = self.config
        net = adjsnn.GatedSynapseNetwork(
            self.channels,
            config.neurons,
            self.channels,
            neuron=adjsnn.NIF(),
            gate=adjsnn.RaisedCosineGate(config.gate_width),
            tau_fast=config.tau_fast,
            tau_slow=config.tau_slow,
        )
        start_at_random({"w_in": net.w_in, "w_out": net.w_out, "w_rec": net.w_rec}, config, self.generator())
        return net

    def evaluate(self, net: adjsnn.GatedSynapseNetwork, split: Split) -> dict[str, float]:
        """On held-out trials also with a gate so narrow that synapses release nothing but whole spikes.

        Neurons that turn back inside a wide active zone have released charge without a spike, so cost and R² may be better than
        the spikes alone would give. The same weights behind a narrow gate, without further training, tell by how much.
        """
        found = super().evaluate(net, split)
        if split == "held_out":
            narrow = copy(net)
            narrow.gate = adjsnn.RaisedCosineGate(NARROW)
            alone = super().evaluate(narrow, split)
            found |= {f"{name}_narrow_gate": alone[name] for name in ("cost", "r2", "spikes_per_s")}
        return found

    def solve(self, net: adjsnn.GatedSynapseNetwork, u: Tensor) -> adjsnn.GatedSolution:
        return adjsnn.solve(net, u, dt=self.config.dt, adjoint=self.adjoint())

    def currents(
        self, net: adjsnn.GatedSynapseNetwork, sol: adjsnn.GatedSolution, u: Tensor, neuron: int
    ) -> tuple[Tensor, Tensor]:
        """External and recurrent current into a neuron in the first trial, each (T,), 1/ms."""
        return u[:, 0] @ net.w_in[neuron] + net.bias[neuron], sol.a_fast[:-1, 0] @ net.w_rec[neuron]

    def cost(self, net: adjsnn.GatedSynapseNetwork, batch: Tensor) -> Cost:
        sol, power = self.solve(net, batch), float(self.target(self.fixed["validation"]).square().mean())
        error = (sol.readout - self.target(batch)).square().mean() / power
        activity = (batch_mean(firing_rate(sol)) / 60.0).square().mean()
        return Cost(error + self.config.activity_cost * activity, sol)


class LIFCoding(Coding[L]):
    """With LIF neurons that jump; costs are exact integrals, smooth in every spike time (docs/equations.md, 2.17 and 2.19)."""

    current_unit = "thresholds"

    def network(self) -> adjsnn.LIFNetwork:
        """Random start like that of gated synapses: input weights of their final size, hardly any readout and recurrence."""
        config = self.config
        net = adjsnn.LIFNetwork(
            self.channels,
            (config.neurons,),
            recurrent=True,
            tau_mem=config.tau_mem,
            receptors=None if config.receptors == 1 else config.receptors,
            tau_syn=config.tau_syn if config.receptors == 1 else self.taus.tolist(),
            v_reset=config.v_reset,
            bias=True,
            learn=("weights", "bias"),
            n_out=self.channels,
            tau_out=config.tau_slow,
        )
        weights = {"w_in": net.w_in[0], "w_out": weights_of(net)[2], "w_rec": net.w_rec[0]}
        start_at_random(weights, config, self.generator())
        if config.receptors > 1:
            with torch.no_grad():
                net.w_in[0].div_(config.receptors**0.5)  # a current passes the sum of them
                net.w_rec[0].mul_((config.tau_syn / self.taus)[:, None, None])  # of equal charges
        return net

    @property
    def taus(self) -> Tensor:
        """τ_syn of each receptor, (K,), ms."""
        return torch.tensor([self.config.tau_syn, self.config.tau_syn_slow][: self.config.receptors])

    def sizes(self, net: adjsnn.LIFNetwork) -> dict[str, float | Tensor]:
        """Sizes of weights in a tightly balanced network with spikes of size a in the readout's filter.

        There W_in = 2 τ/a (unit vectors), W_out = a (unit vectors), W_rec = -2 (τ_mem/τ_syn) (cosine of the angle between two).
        """
        config, a = self.config, self.config.spike_size
        w_rec = 2.0 * config.tau_mem / self.taus.to(weights_of(net)[2])
        return {
            "w_in.0": config.tau_slow / a / config.receptors,
            "w_out": a,
            "w_rec.0": float(w_rec) if config.receptors == 1 else w_rec[:, None, None],
        }

    def solve(self, net: adjsnn.LIFNetwork, u: Tensor) -> adjsnn.LIFSolution:
        ts = torch.arange(len(u) + 1, device=u.device, dtype=u.dtype) * self.config.dt
        return adjsnn.solve(net, u, dt=self.config.dt, ts=ts, adjoint=self.adjoint())

    def currents(self, net: adjsnn.LIFNetwork, sol: adjsnn.LIFSolution, u: Tensor, neuron: int) -> Currents:
        """External and recurrent current into a neuron in the first trial, each (T,), in thresholds."""
        w_in, _, _ = weights_of(net)
        return u[:, 0] @ w_in[neuron] + net.bias[0][neuron], sol.currents()[:-1, 0, neuron]

    def cost(self, net: adjsnn.LIFNetwork, batch: Tensor) -> Cost:
        sol, target = self.solve(net, batch), self.target(batch)
        activity = sol.squared_rate(self.config.activity_tau).mean(1) / 60.0**2
        error = sol.readout_error(target) / sol.error_of_silence(target)
        return Cost((error + self.config.activity_cost * activity).mean(), sol)


def start_at_random(weights: dict[str, Tensor], config: CodingConfig, generator: torch.Generator) -> None:
    """Independent Gaussian entries with the standard deviations <name>_start of the configuration."""
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(getattr(config, f"{name}_start") * torch.randn(weight.shape, generator=generator))


def weights_of(net: adjsnn.GatedSynapseNetwork | adjsnn.LIFNetwork) -> tuple[Tensor, Tensor, Tensor]:
    """w_in, w_rec and w_out of a network of either family; of receptors the sum of w_in and the first w_rec, the fast one."""
    if isinstance(net, adjsnn.GatedSynapseNetwork):
        return net.w_in, net.w_rec, net.w_out
    assert net.w_out is not None
    assert net.w_rec[0] is not None
    w_in, w_rec = net.w_in[0], net.w_rec[0]
    return (w_in, w_rec, net.w_out) if w_in.dim() == 2 else (w_in.sum(0), w_rec[0], net.w_out)


def r_squared(found: Tensor, target: Tensor) -> float:
    """1 - Σ (found - target)² / Σ (target - its mean)², sums over all but the last dimension and over channels, whose means are
    those of each channel over everything held out."""
    mean = target.mean(tuple(range(target.ndim - 1)), keepdim=True)
    return 1.0 - float((found - target).square().sum() / (target - mean).square().sum())
